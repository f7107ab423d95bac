"""Files appear in a workspace whole or not at all, never through a link, and never at the cost of what is saved nowhere."""

from __future__ import annotations

import ctypes
import fcntl
import os
import random
import stat
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ckptvcs.digest import Digest
from ckptvcs.errors import HostileInput, StorageError, TierFull, TierReadOnly
from ckptvcs.storage import workspace
from ckptvcs.storage.directory import Directory
from ckptvcs.storage.index import LocalIndex
from ckptvcs.storage.ingest import NewObject
from ckptvcs.storage.names import ObjectName, ObjectRef
from ckptvcs.storage.objects import LocalStore
from ckptvcs.storage.verified import VerifiedStore
from ckptvcs.storage.workspace import LinkKind, Placing

COPY = Placing(link="copy", privileged=False)
ONE = {"a.json": b"{}", "model/w.safetensors": random.Random(1).randbytes(70_000), "model/empty": b""}
TWO = {"a.json": b"[]", "rng/x": b"random", "model/w.safetensors": ONE["model/w.safetensors"]}

Stored = Callable[[dict[str, bytes]], dict[str, ObjectRef]]


@pytest.fixture
def source(tmp_path: Path):
    index = LocalIndex(tmp_path / "index.sqlite3")
    yield VerifiedStore(LocalStore(tmp_path / "store"), index)
    index.close()


@pytest.fixture
def stored(source: VerifiedStore) -> Stored:
    """Put files into the store and tell which objects they are."""

    def put(files: dict[str, bytes]) -> dict[str, ObjectRef]:
        refs = source.store.put([NewObject(lambda data=data: [data], len(data)) for data in files.values()])
        source.note(refs)
        return dict(zip(files, refs, strict=True))

    return put


@pytest.fixture
def where(tmp_path: Path) -> Directory:
    (tmp_path / "root").mkdir()
    return Directory(root=tmp_path / "root", path="checkpoints/model")


@pytest.fixture
def place(where: Directory, source: VerifiedStore, stored: Stored) -> Callable[..., Path]:
    """Make the directory hold some files; tells where it is."""

    def make(files: dict[str, bytes], placing: Placing = COPY) -> Path:
        workspace.materialise(where, stored(files), source=source, placing=placing)
        return where.root / where.path

    return make


def contents(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


KINDS: list[LinkKind] = ["auto", "reflink", "hardlink", "copy"]


# ---------------------------------------------------------------------------------------------------- materialising


@pytest.mark.parametrize("privileged", [True, False])
@pytest.mark.parametrize("link", KINDS)
def test_a_directory_holds_exactly_what_it_should(place, where: Directory, link: LinkKind, *, privileged: bool):
    folder = place(ONE, Placing(link=link, privileged=privileged))

    assert contents(folder) == ONE
    assert os.listdir(folder.parent) == ["model"]


@pytest.mark.parametrize("link", KINDS)
def test_what_was_there_before_is_gone_afterwards(place, link: LinkKind):
    folder = place(ONE, Placing(link=link, privileged=False))
    (folder / "model/extra").write_bytes(b"x")

    place(TWO, Placing(link=link, privileged=False))

    assert contents(folder) == TWO
    assert os.listdir(folder.parent) == ["model"]


def test_a_copy_can_be_written_and_does_not_reach_the_object(place, source: VerifiedStore):
    folder = place(ONE)

    with (folder / "model/w.safetensors").open("r+b") as file:
        file.write(b"mine")

    place(ONE)
    assert contents(folder) == ONE


def test_a_hard_link_is_read_only_and_costs_no_bytes(place, source: VerifiedStore, stored: Stored):
    folder = place(ONE, Placing(link="hardlink", privileged=False))

    linked, object_path = folder / "model/w.safetensors", source.store.path(stored(ONE)["model/w.safetensors"].name)
    assert linked.samefile(object_path)
    assert stat.S_IMODE(linked.stat().st_mode) == 0o444
    assert stat.S_IMODE((folder / "model/empty").stat().st_mode) & stat.S_IWUSR, "an empty file is nobody's link"


def test_root_gets_no_hard_links_unless_it_asks(place, source: VerifiedStore):
    folder = place(ONE, Placing(link="auto", privileged=True))

    assert {path.stat().st_nlink for path in folder.rglob("*") if path.is_file()} == {1}


def test_whoever_can_write_a_file_cannot_write_an_object_with_it(place, source: VerifiedStore):
    folder = place(ONE, Placing(link="auto", privileged=False))

    objects = {source.store.path(name).stat().st_ino for name in source.store.names()}
    writable = [p.stat() for p in folder.rglob("*") if p.is_file() and p.stat().st_mode & 0o222]
    assert not objects & {info.st_ino for info in writable}


def test_a_file_that_is_right_already_is_taken_over(place):
    folder = place(ONE)
    before = (folder / "model/w.safetensors").stat().st_ino

    place(TWO)

    assert (folder / "model/w.safetensors").stat().st_ino == before


def test_a_file_that_the_user_changed_is_not_taken_over(place, flip):
    folder = place(ONE)
    before = (folder / "model/w.safetensors").stat()
    flip(folder / "model/w.safetensors")
    os.utime(folder / "model/w.safetensors", ns=(before.st_atime_ns, before.st_mtime_ns))

    place(TWO)

    assert contents(folder) == TWO


def test_an_empty_artifact_is_an_empty_directory(place):
    place(ONE)

    assert contents(place({})) == {}


def test_a_reader_never_sees_a_mixture(place):
    versions = [{name: bytes([n]) * 5000 for name in ("a", "b", "c")} for n in range(2)]
    folder = place(versions[0])
    writer = threading.Thread(target=lambda: [place(versions[n % 2]) for n in range(15)])

    writer.start()
    seen = []
    while writer.is_alive():
        fd = os.open(folder, os.O_RDONLY)
        try:
            seen.append({Path(f"/proc/self/fd/{fd}/{name}").read_bytes()[:1] for name in ("a", "b", "c")})
        except FileNotFoundError:
            continue  # the old directory is being taken away
        finally:
            os.close(fd)

    assert {len(values) for values in seen} == {1}


def test_progress_is_told_about_every_byte(where: Directory, source: VerifiedStore, stored: Stored):
    told: list[int] = []

    workspace.materialise(where, stored(ONE), source=source, placing=COPY, progress=told.append)

    assert sum(told) == sum(map(len, ONE.values()))


def test_what_was_placed_is_known_without_reading_it(place, where: Directory, source: VerifiedStore, stored: Stored):
    folder = place(ONE)

    for member, ref in stored(ONE).items():
        assert source.index.ref_of(where.absolute(member), (folder / member).stat()) == ref


# ------------------------------------------------------------------------------------------------------------ errors


def test_a_missing_object_leaves_the_old_directory(place, where: Directory, source: VerifiedStore, stored: Stored):
    folder = place(ONE)
    members = stored(TWO)
    source.store.delete(members["rng/x"].name)

    with pytest.raises(StorageError):
        workspace.materialise(where, members, source=source, placing=COPY)

    assert contents(folder) == ONE
    assert os.listdir(folder.parent) == ["model"]


def test_a_full_disk_leaves_the_old_directory(place, where: Directory, source: VerifiedStore, stored: Stored, request):
    folder = place(ONE)
    members = stored({"big": bytes(1 << 20)})
    request.getfixturevalue("small_files")

    with pytest.raises(TierFull):
        workspace.materialise(where, members, source=source, placing=COPY)

    assert contents(folder) == ONE
    assert os.listdir(folder.parent) == ["model"]


def test_a_folder_that_cannot_be_written_is_left_as_it_is(place, where: Directory, without_privilege: None):
    folder = place(ONE)
    folder.parent.chmod(0o555)

    with pytest.raises(TierReadOnly):
        place(TWO)
    with pytest.raises(TierReadOnly):
        workspace.remove(where)

    assert contents(folder) == ONE


def test_a_root_that_is_not_there_is_an_error_of_storage(place, where: Directory):
    where.root.rmdir()

    with pytest.raises(StorageError):
        place(ONE)


# ------------------------------------------------------------------------------------------------------------- links


def test_a_link_in_its_place_is_replaced_and_not_followed(place, where: Directory, tmp_path: Path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/precious").write_bytes(b"x")
    (where.root / "checkpoints").mkdir()
    (where.root / where.path).symlink_to(tmp_path / "elsewhere")

    folder = place(ONE)

    assert not folder.is_symlink()
    assert contents(folder) == ONE
    assert contents(tmp_path / "elsewhere") == {"precious": b"x"}


@pytest.mark.parametrize("make", ["link", "file"])
def test_a_link_or_file_above_it_is_refused(place, where: Directory, tmp_path: Path, make: str):
    (tmp_path / "elsewhere").mkdir()
    above = where.root / "checkpoints"
    above.symlink_to(tmp_path / "elsewhere") if make == "link" else above.write_bytes(b"precious")

    with pytest.raises(HostileInput):
        place(ONE)
    with pytest.raises(HostileInput):
        workspace.remove(where)

    assert os.listdir(tmp_path / "elsewhere") == []
    assert above.is_symlink() or above.read_bytes() == b"precious"


def test_links_inside_are_removed_and_not_followed(place, tmp_path: Path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/precious").write_bytes(b"x")
    folder = place(ONE)
    (folder / "rng").symlink_to(tmp_path / "elsewhere")

    place(TWO)

    assert contents(folder) == TWO
    assert contents(tmp_path / "elsewhere") == {"precious": b"x"}


def test_a_folder_that_is_swapped_for_a_link_meanwhile_leads_nothing_outside(place, where: Directory, tmp_path: Path):
    (tmp_path / "outside").mkdir()
    folder, link = where.root / "checkpoints", where.root / "link"
    link.symlink_to(tmp_path / "outside")
    place(ONE)
    stop = threading.Event()
    attacker = threading.Thread(target=lambda: [exchange(folder, link) for _ in iter(stop.is_set, True)])

    attacker.start()
    for n in range(25):
        try:
            place(TWO if n % 2 else ONE)
        except (HostileInput, StorageError):
            continue
    stop.set()
    attacker.join()

    assert os.listdir(tmp_path / "outside") == []
    assert contents((link if folder.is_symlink() else folder) / "model") in (ONE, TWO)


def exchange(a: Path, b: Path) -> None:
    """Swap two names in one step: `renameat2(AT_FDCWD, a, AT_FDCWD, b, RENAME_EXCHANGE)`."""
    time.sleep(0.0002)
    ctypes.CDLL(None).renameat2(-100, os.fsencode(a), -100, os.fsencode(b), 2)


@pytest.mark.parametrize("member", ["../evil", "../../../evil", "a/../../evil", "/evil", "..", ".", "a/..", ""])
def test_a_hostile_member_writes_nothing_outside(
    where: Directory, source: VerifiedStore, stored: Stored, snapshot, member: str, tmp_path: Path
):
    members = stored({member: b"evil"})

    try:
        workspace.materialise(where, members, source=source, placing=COPY)
    except (HostileInput, StorageError):
        pass

    outside = {path for path in snapshot(tmp_path) if "evil" in path and not path.startswith(f"root/{where.path}/")}
    assert outside == set()


# -------------------------------------------------------------------------------------------------- bytes at hand


def test_bytes_at_hand_are_not_read_again(where: Directory, source: VerifiedStore, stored: Stored):
    members = stored(ONE)
    for ref in members.values():
        source.store.delete(ref.name)

    workspace.materialise(
        where, members, source=source, placing=COPY, at_hand={name: lambda d=data: [d] for name, data in ONE.items()}
    )

    assert contents(where.root / where.path) == ONE


@pytest.mark.parametrize("now", [b"", b"{", b"[]", b"{} ", b"{}" + bytes(5 << 20)], ids=len)
def test_bytes_that_have_changed_since_are_not_taken(
    where: Directory, source: VerifiedStore, stored: Stored, now: bytes
):
    workspace.materialise(where, stored(ONE), source=source, placing=COPY, at_hand={"a.json": lambda: [now]})

    assert contents(where.root / where.path) == ONE


@pytest.mark.parametrize("read", [0, 1])
def test_bytes_that_cannot_be_had_any_more_are_read_from_the_object(
    where: Directory, source: VerifiedStore, stored: Stored, read: int
):
    def gone() -> Iterator[bytes]:
        yield from [ONE["a.json"]] * read
        raise FileNotFoundError(2, "the user's file was removed")

    workspace.materialise(where, stored(ONE), source=source, placing=COPY, at_hand={"a.json": gone})

    assert contents(where.root / where.path) == ONE


def test_a_link_is_better_than_bytes_at_hand(where: Directory, source: VerifiedStore, stored: Stored):
    members, name = stored(ONE), "model/w.safetensors"
    hard = Placing(link="hardlink", privileged=False)

    workspace.materialise(where, members, source=source, placing=hard, at_hand={name: lambda: [ONE[name]]})

    assert (where.root / where.path / name).samefile(source.store.path(members[name].name))


# ---------------------------------------------------------------------------------------------- what dead ones left


def test_the_stage_of_a_dead_process_is_removed(place, where: Directory):
    (where.root / "checkpoints/.ckptvcs-stage-dead/deep").mkdir(parents=True)
    (where.root / "checkpoints/.ckptvcs-stage-dead/deep/file").write_bytes(b"half")

    folder = place(ONE)

    assert os.listdir(folder.parent) == ["model"]


def test_the_stage_of_a_living_process_stays(place, where: Directory):
    stage = where.root / "checkpoints/.ckptvcs-stage-living"
    stage.mkdir(parents=True)
    fd = os.open(stage, os.O_RDONLY)
    fcntl.flock(fd, fcntl.LOCK_EX)

    folder = place(ONE)
    os.close(fd)

    assert sorted(os.listdir(folder.parent)) == [".ckptvcs-stage-living", "model"]


@pytest.mark.parametrize("died", ["before it put the new one into place", "after it"])
def test_a_directory_that_was_moved_aside_is_back_or_gone(place, where: Directory, died: str):
    folder = place(ONE)
    aside = folder.parent / ".ckptvcs-aside-model"
    folder.rename(aside) if died.startswith("before") else aside.mkdir()

    with pytest.raises(StorageError):  # the attempt itself fails: what counts is what it found
        workspace.materialise(
            where,
            {"x": ObjectRef(name=ObjectName("0" * 32), nbytes=1, digest=Digest("0" * 64))},
            source=VerifiedStore(LocalStore(where.root / "none"), LocalIndex(where.root / "none")),
            placing=COPY,
        )

    assert contents(folder) == ONE
    assert os.listdir(folder.parent) == ["model"]


# ---------------------------------------------------------------------------------------------------------- removing


def test_a_directory_is_removed_whole(place, where: Directory):
    folder = place(ONE)

    workspace.remove(where)
    workspace.remove(where)

    assert os.listdir(folder.parent) == []


def test_removing_a_link_leaves_its_target(where: Directory, tmp_path: Path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/precious").write_bytes(b"x")
    (where.root / "checkpoints").mkdir()
    (where.root / where.path).symlink_to(tmp_path / "elsewhere")

    workspace.remove(where)

    assert os.listdir(where.root / "checkpoints") == []
    assert contents(tmp_path / "elsewhere") == {"precious": b"x"}


def test_removing_what_never_was_makes_nothing(where: Directory):
    workspace.remove(where)

    assert os.listdir(where.root) == []


# ---------------------------------------------------------------------------------------------------------- unsaved


def test_what_is_in_the_store_is_saved(place, where: Directory, source: VerifiedStore, stored: Stored):
    assert workspace.unsaved(where, source) == []

    folder = place(ONE)
    stored({"elsewhere": b"bytes that are stored too"})
    (folder / "another name").write_bytes(b"bytes that are stored too")

    assert workspace.unsaved(where, source) == []


def change(file: Path) -> None:
    file.write_bytes(b"mine")


def replace_by_link(file: Path) -> None:
    file.unlink()
    file.symlink_to("/etc/passwd")


def replace_by_broken_link(file: Path) -> None:
    file.unlink()
    file.symlink_to(file)


def replace_by_pipe(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


@pytest.mark.parametrize("spoil", [change, replace_by_link, replace_by_broken_link, replace_by_pipe])
def test_what_is_nowhere_else_is_unsaved(place, where: Directory, source: VerifiedStore, spoil):
    folder = place(ONE)

    spoil(folder / "model/w.safetensors")
    (folder / "deep/er").mkdir(parents=True)
    (folder / "deep/er/notes.txt").write_bytes(b"mine")

    assert workspace.unsaved(where, source) == ["deep/er/notes.txt", "model/w.safetensors"]


@pytest.mark.parametrize("harm", ["damaged", "missing"])
def test_the_last_good_copy_of_an_object_is_unsaved(
    place, where: Directory, source: VerifiedStore, stored: Stored, flip, harm: str
):
    place(ONE)
    name = stored(ONE)["model/w.safetensors"].name
    flip(source.store.path(name)) if harm == "damaged" else source.store.delete(name)

    assert workspace.unsaved(where, source) == ["model/w.safetensors"]


def test_looking_for_what_is_unsaved_follows_no_link(place, where: Directory, source: VerifiedStore, tmp_path: Path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/precious").write_bytes(b"x")
    folder = place(ONE)
    (folder / "link").symlink_to(tmp_path / "elsewhere")

    assert workspace.unsaved(where, source) == ["link"]


def test_a_file_in_the_place_of_the_directory_is_unsaved(where: Directory, source: VerifiedStore):
    (where.root / "checkpoints").mkdir()
    (where.root / where.path).write_bytes(b"precious")

    assert workspace.unsaved(where, source) != []


def test_a_file_whose_name_is_no_text_is_unsaved(place, where: Directory, source: VerifiedStore):
    folder = place(ONE)
    Path(os.fsdecode(os.fsencode(folder) + b"/\xff")).write_bytes(b"mine")

    assert workspace.unsaved(where, source) == ["\udcff"]


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_cannot_be_read_is_not_taken_for_saved(
    place, where: Directory, source: VerifiedStore, without_privilege: None, kind: str
):
    folder = place(ONE)
    (folder / "secret").mkdir() if kind == "folder" else (folder / "secret").write_bytes(b"mine")
    (folder / "secret").chmod(0)

    try:
        assert workspace.unsaved(where, source) == ["secret"]
    except StorageError:
        pass
    finally:
        (folder / "secret").chmod(0o700)


# --------------------------------------------------------------------------------------------- links and their objects


def test_linking_an_object_does_not_make_it_unknown(place, source: VerifiedStore, stored: Stored):
    hard = Placing(link="hardlink", privileged=False)

    place(ONE, hard)
    place(TWO, hard)
    place({}, hard)

    assert all(source.is_known(ref) for ref in [*stored(ONE).values(), *stored(TWO).values()])


def test_an_object_that_was_changed_through_a_link_is_not_taken_for_known(place, source: VerifiedStore, stored: Stored):
    hard = Placing(link="hardlink", privileged=True)
    folder = place(ONE, hard)
    member = stored(ONE)["model/w.safetensors"]
    before = (folder / "model/w.safetensors").stat()
    (folder / "model/w.safetensors").chmod(0o644)
    with (folder / "model/w.safetensors").open("r+b") as file:
        file.write(b"changed through the link")
    (folder / "model/w.safetensors").chmod(0o444)
    os.utime(folder / "model/w.safetensors", ns=(before.st_atime_ns, before.st_mtime_ns))

    workspace.materialise(Directory(root=folder.parent, path="model"), {}, source=source, placing=hard)

    assert not source.is_healthy(member)
