"""Taking down where a checkpoint comes from: code, data, environment. Looking only; nothing is changed."""

from __future__ import annotations

import os
import platform
import re
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ckptvcs.digest import digest, digest_of_parts
from ckptvcs.domain.provenance import Code, DataEntry, Environment
from ckptvcs.errors import StorageError, UsageError
from ckptvcs.porcelain.checkpoints import checkpoint_at
from ckptvcs.storage.dvc import outputs as dvc
from ckptvcs.storage.history import worktree
from ckptvcs.storage.history.repository import CommitId

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from ckptvcs.porcelain.repo import Repository

PATCH_FILE: Final = "code.patch"
MAX_PATCH: Final = 4 << 20
"""A larger difference is generated code or data; its digest is kept, and that it was too big."""

_SOURCE: Final = re.compile(r"\.(py|pyx|ipynb|cu|cuh|c|cc|cpp|h|hpp|rs|go|sh|ya?ml|toml|json|cfg|ini)\Z")
_MAX_UNTRACKED: Final = 50


@dataclass(frozen=True, slots=True)
class CapturedCode:
    """The code of now, and the difference to its commit."""

    code: Code
    patch: bytes


def code(repo: Repository) -> CapturedCode:
    """What is checked out and what of it is changed; our own files do not count.

    The commit is the one that made the code what it is, so that it stays the same while checkpoints are committed.
    """
    found = worktree.changes(repo.history, ours=repo.is_ours)
    patch = worktree.patch(repo.history, found.changed)
    sources = [path for path in found.untracked if _SOURCE.search(path)]
    entry = Code(
        commit=code_commit(repo),
        changed=found.changed,
        patch=digest(patch) if patch else None,
        untracked=tuple(sources[:_MAX_UNTRACKED]),
    )
    return CapturedCode(entry, patch if len(patch) <= MAX_PATCH else b"")


def code_commit(repo: Repository) -> CommitId | None:
    """HEAD, or the ancestor from which it differs in checkpoints alone."""
    history, folder = repo.history, repo.git_path(repo.basics.directory)
    head = history.head()
    if head is None:
        return None
    checkpoint = checkpoint_at(repo, head, repo.basics.track)
    known = checkpoint.manifest.provenance.code.commit if checkpoint else None
    if known and history.resolve(known) == known and history.same_outside(head, CommitId(known), folder):
        return CommitId(known)
    same = head
    for commit in history.first_parents(head):
        if commit.id != head and not history.same_outside(commit.id, head, folder):
            break
        same = commit.id
    return same


# -------------------------------------------------------------------------------------------------------------- data


_MAX_YAML: Final = 16 << 20


def tracked_outputs(repo: Repository, commit: CommitId | None) -> list[dvc.Output]:
    """Every output that DVC tracks in a commit, apart from checkpoints of ours; paths relative to the DVC root."""
    if commit is None:
        return []
    prefix = repo.git_path("")
    found = []
    for path, blob in repo.history.files(commit, (".dvc", "dvc.lock")):
        if not repo.is_ours(path) and path.startswith(prefix):
            with suppress(StorageError):  # somebody else's file, and only for the record: a monster stops no commit
                stages = _stages_beside(repo, commit, path) if path.endswith("dvc.lock") else b""
                data = repo.history.blob(blob, limit=_MAX_YAML)
                found.extend(dvc.outputs(data, file=path.removeprefix(prefix), stages=stages))
    return found


def _stages_beside(repo: Repository, commit: CommitId, lock: str) -> bytes:
    blob = repo.history.blob_id(commit, f"{lock.removesuffix('dvc.lock')}dvc.yaml")
    return repo.history.blob(blob, limit=_MAX_YAML) if blob else b""


def data(outputs: Iterable[dvc.Output], declared: Iterable[str], versions: dict[str, str]) -> tuple[DataEntry, ...]:
    """The data sets of a checkpoint.

    Args:
        outputs: what DVC tracks.
        declared: paths of files or folders that were used; a file is hashed, one that DVC tracks is named as DVC does.
        versions: names with versions of any kind.

    Raises:
        UsageError: a declared path does not exist.
    """
    entries = {out.path: f"md5:{out.name}" for out in outputs}
    for path in declared:
        if path not in entries:
            entries[path] = f"blake3:{_digest_of_path(Path(path))}"
    entries.update(versions)
    return tuple(DataEntry(name=name, version=version) for name, version in sorted(entries.items()))


def _digest_of_path(path: Path) -> str:
    try:
        return _digest_of_data(path)
    except OSError as err:
        raise UsageError(
            f"cannot read data at '{path}'", why=str(err.strerror).lower(), next_step="check --data"
        ) from err


def _digest_of_data(path: Path) -> str:
    """The digest of a file, or of the sorted list of (path, digest) of a folder."""
    if path.is_file():
        return digest_of_parts(_pieces(path))
    if not path.is_dir():
        raise UsageError(f"no data at '{path}'", why="there is no such file or folder", next_step="check --data")
    members = sorted(p for p in path.rglob("*") if p.is_file())
    return digest_of_parts(
        f"{p.relative_to(path).as_posix()}\0{digest_of_parts(_pieces(p))}\n".encode("utf-8", "surrogateescape")
        for p in members
    )


def _pieces(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            yield piece


# ------------------------------------------------------------------------------------------------------- environment


def environment() -> Environment:
    """Python, packages and hardware of this process."""
    torch = sys.modules.get("torch")  # asked only if it is here: importing it takes seconds
    cuda = getattr(getattr(torch, "version", None), "cuda", None)
    return Environment(
        python=platform.python_version(),
        platform=f"{platform.system()} {platform.release()} {platform.machine()}",
        cpu=_cpu(),
        cpus=os.cpu_count() or 0,
        memory=_memory(),
        gpus=tuple(_gpus()),
        cuda=cuda,
        packages=packages(sys.path),
    )


_DIST: Final = re.compile(r"(?P<name>[A-Za-z0-9._]+)-(?P<version>[^-]+)\.(dist|egg)-info\Z")


def packages(search_path: Iterable[str]) -> dict[str, str]:
    """Installed packages and versions, from the names of their metadata folders: a hundred times faster than reading them."""
    found: dict[str, str] = {}
    for folder in search_path:
        with suppress(OSError):
            for entry in os.listdir(folder or "."):
                if match := _DIST.match(entry):
                    found.setdefault(match["name"].lower().replace("_", "-"), match["version"])
    return dict(sorted(found.items()))


def _cpu() -> str:
    with suppress(OSError), open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
        for line in file:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()


def _memory() -> int:
    with suppress(OSError, ValueError):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return 0


def _gpus() -> Iterator[str]:
    with suppress(OSError):
        for card in sorted(Path("/proc/driver/nvidia/gpus").iterdir()):
            for line in (card / "information").read_text(encoding="utf-8", errors="replace").splitlines():
                if line.startswith("Model:"):
                    yield line.partition(":")[2].strip()
