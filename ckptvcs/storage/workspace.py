"""Making files appear in a workspace, whole or not at all, without ever following a link or losing what lies there.

A directory is built beside its place and exchanged with the old one in one step, so a crash leaves the old directory or
the new one. Files are cloned where the file system can (reflink); else hard-linked, read-only; else copied. As root never
hard-linked unless that was asked for: root writes through the mode 0444, and the cache would be written with it.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import secrets
import stat
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Literal

from ckptvcs.errors import CkptvcsError, IntegrityError, from_os_error
from ckptvcs.progress import Progress, silent
from ckptvcs.storage import direct, files, linking
from ckptvcs.storage.directory import walk
from ckptvcs.storage.verified import identify

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from ckptvcs.storage.directory import Directory
    from ckptvcs.storage.names import ObjectRef
    from ckptvcs.storage.verified import VerifiedStore

LinkKind = Literal["auto", "reflink", "hardlink", "copy"]

_STAGE: Final = f"{files.PREFIX}stage-"
_ASIDE: Final = f"{files.PREFIX}aside-"


@dataclass(frozen=True, slots=True, kw_only=True)
class Placing:
    """How files are put into a workspace."""

    link: LinkKind
    privileged: bool
    """Whether we are root."""

    @property
    def ways(self) -> tuple[linking.Way, ...]:
        """What to try, best first."""
        if self.link == "copy":
            return (linking.copy,)
        if self.link == "hardlink":
            return (linking.hardlink, linking.copy)
        if self.link == "reflink" or self.privileged:
            return (linking.reflink, linking.copy)
        return (linking.reflink, linking.hardlink, linking.copy)


def materialise(
    where: Directory,
    members: Mapping[str, ObjectRef],
    *,
    source: VerifiedStore,
    placing: Placing,
    at_hand: Mapping[str, linking.Chunks] = MappingProxyType({}),
    progress: Progress = silent,
) -> None:
    """Make a directory hold exactly these files. What was there is gone afterwards: see `unsaved` first.

    Args:
        where: the directory; what is missing above it is made.
        members: path in the directory -> object, each of which `source` has checked.
        source: where the bytes are.
        placing: how they get there.
        at_hand: what gives the bytes of some of the files from memory, by path; a copy need not read the object then.
        progress: told about bytes that are done with.

    Raises:
        HostileInput: a folder on the way is a link.
        StorageError: there is no room, or no right to write.
    """
    try:
        with files.open_folder(where.root) as root, files.open_beneath(root, where.parent, make=True) as parent:
            _clean(parent, where.name)
            old = _verified_links(where, source)
            with _stage(parent) as (stage_name, stage):
                _fill(stage, where, members, source=source, placing=placing, at_hand=at_hand, progress=progress)
                _exchange(parent, stage_name, where.name)
                placed = os.dup(stage)  # what we made, whatever has its name by now
    except OSError as err:
        raise from_os_error(err, doing=f"write '{where.path}'") from err
    try:
        _note(where, members, source, old, placed)
    finally:
        os.close(placed)


def remove(where: Directory) -> None:
    """Remove a directory; see `unsaved` first. One that is not there is no error.

    Raises:
        HostileInput: a folder on the way is a link.
        StorageError: we may not.
    """
    try:
        with files.open_folder(where.root) as root, files.open_beneath(root, where.parent) as parent:
            aside = _STAGE + secrets.token_hex(6)
            os.rename(where.name, aside, src_dir_fd=parent, dst_dir_fd=parent)
            os.fsync(parent)
            files.remove_tree(parent, aside)
    except FileNotFoundError:
        return
    except OSError as err:
        raise from_os_error(err, doing=f"remove '{where.path}'") from err


def unsaved(where: Directory, source: VerifiedStore) -> list[str]:
    """Files in a directory whose bytes are not in the store: what would be lost if the directory went.

    Returns:
        Their paths in the directory, sorted; links, special files and what cannot be read count as unsaved.
    """
    lost, seen = [], []
    for member, info in walk(where):
        if not stat.S_ISREG(info.st_mode):
            lost.append(member)
            continue
        path = where.absolute(member)
        ref = source.index.ref_of(path, info)
        if ref is None:
            try:
                ref = identify(path)
            except OSError:  # nobody knows what is in it
                lost.append(member)
                continue
            seen.append((path, info, ref))
        if not source.is_healthy(ref):
            lost.append(member)
    source.index.saw(seen)
    return sorted(lost)


# ------------------------------------------------------------------------------------------------------------ staging


@contextlib.contextmanager
def _stage(parent: int) -> Iterator[tuple[str, int]]:
    """A folder to build in; it is removed, with whatever is in it by then, when the block ends."""
    name = _STAGE + secrets.token_hex(6)
    os.mkdir(name, 0o777, dir_fd=parent)
    try:
        with files.open_folder(name, parent) as stage:
            fcntl.flock(stage, fcntl.LOCK_EX)  # says to `_clean` of another process that someone is at it
            yield name, stage
    finally:
        files.remove_tree(parent, name)


def _clean(parent: int, name: str) -> None:
    """Remove what dead processes left, and put back a directory that one of them had moved aside."""
    aside = _ASIDE + name
    entries = os.listdir(parent)
    if aside in entries:
        if name in entries:
            files.remove_tree(parent, aside)
        else:
            os.rename(aside, name, src_dir_fd=parent, dst_dir_fd=parent)
    for entry in entries:
        if entry.startswith(_STAGE) and _is_abandoned(parent, entry):
            files.remove_tree(parent, entry)


def _is_abandoned(parent: int, name: str) -> bool:
    try:
        with files.open_folder(name, parent) as folder:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _exchange(parent: int, stage: str, name: str) -> None:
    """Put the staged directory into its place; the old one, if any, is under the staged name afterwards."""
    try:
        os.stat(name, dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        os.rename(stage, name, src_dir_fd=parent, dst_dir_fd=parent)
        os.fsync(parent)
        return
    if not _swap_names(parent, stage, name):
        # No atomic exchange here: between these two the directory is under its other name, where `_clean` finds it.
        os.rename(name, _ASIDE + name, src_dir_fd=parent, dst_dir_fd=parent)
        os.rename(stage, name, src_dir_fd=parent, dst_dir_fd=parent)
        os.rename(_ASIDE + name, stage, src_dir_fd=parent, dst_dir_fd=parent)
    os.fsync(parent)


def _swap_names(folder: int, a: str, b: str) -> bool:
    """`renameat2(RENAME_EXCHANGE)`; False where the system has no such thing."""
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:
        return False
    if rename(folder, os.fsencode(a), folder, os.fsencode(b), 2) == 0:
        return True
    code = ctypes.get_errno()
    if code in (errno.ENOSYS, errno.EINVAL):
        return False
    raise OSError(code, os.strerror(code), b)


# ------------------------------------------------------------------------------------------------------------- files


def _fill(
    stage: int,
    where: Directory,
    members: Mapping[str, ObjectRef],
    *,
    source: VerifiedStore,
    placing: Placing,
    at_hand: Mapping[str, linking.Chunks],
    progress: Progress,
) -> None:
    def ways(member: str) -> Sequence[linking.Way]:
        if member not in at_hand:
            return placing.ways
        *others, copy = placing.ways
        return [*others, linking.from_memory(at_hand[member], members[member]), copy]

    def place(member: str) -> None:
        ref = members[member]
        folder, _, name = member.rpartition("/")
        # Not durable: a workspace can be made again, and a journal that is forced out would wait for all these bytes.
        with files.open_beneath(stage, folder, make=True, durable=False) as inner:
            if not _reuse(where.absolute(member), ref, source, inner, name):
                linking.place(str(source.store.path(ref.name)), ref, ways(member), inner, name)
        progress(ref.nbytes)

    with ThreadPoolExecutor(direct.PARALLEL, "ckptvcs-place") as pool:
        list(pool.map(place, members))


def _reuse(path: str, ref: ObjectRef, source: VerifiedStore, folder: int, name: str) -> bool:
    """Take over a file of the old directory that is known to hold the right bytes already."""
    try:
        before = os.lstat(path)
        known = source.index.ref_of(path, before)
        if known is None or known.digest != ref.digest:
            return False
        os.link(path, name, dst_dir_fd=folder, follow_symlinks=False)
        if _is_as_before(os.stat(name, dir_fd=folder, follow_symlinks=False), before):
            return True
        os.unlink(name, dir_fd=folder)  # a folder on the way was exchanged meanwhile
    except OSError:
        return False  # then it is placed anew
    return False


def _verified_links(where: Directory, source: VerifiedStore) -> list[tuple[ObjectRef, os.stat_result]]:
    """Objects that files of a directory are links to, and that are known to be whole as they are now."""
    found = []
    for member, info in walk(where):
        ref = source.index.ref_of(where.absolute(member), info) if info.st_nlink > 1 else None
        with contextlib.suppress(IntegrityError):  # that it is not whole is for those to say who want it
            if ref is not None and source.is_known(ref):
                found.append((ref, info))
    return found


def _note(
    where: Directory,
    members: Mapping[str, ObjectRef],
    source: VerifiedStore,
    old: Sequence[tuple[ObjectRef, os.stat_result]],
    placed: int,
) -> None:
    """Remember what the new files are. Making or removing a hard link changes the times of its object: those too."""
    seen = []
    with contextlib.suppress(OSError, CkptvcsError):  # a hint for the next look
        for member, ref in members.items():
            folder, _, name = member.rpartition("/")
            with files.open_beneath(placed, folder) as inner:
                seen.append((where.absolute(member), os.stat(name, dir_fd=inner, follow_symlinks=False), ref))
        source.note(members.values())
        source.note(ref for ref, before in old if _is_as_before(os.lstat(source.store.path(ref.name)), before))
    source.index.saw(seen)


def _is_as_before(now: os.stat_result, before: os.stat_result) -> bool:
    """Whether a file is the same but for the number of its links."""
    return all(
        getattr(now, what) == getattr(before, what)
        for what in ("st_dev", "st_ino", "st_size", "st_mtime_ns", "st_mode")
    )
