"""`ckpt`, with one of its safeguards taken out. The fault tests must notice each of these; see `test_mutants.py`.

usage: launch.py MUTANT ARGS...
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

MUTANTS: dict[str, Any] = {}


def mutant(apply: Any) -> Any:
    MUTANTS[apply.__name__] = apply
    return apply


@mutant
def none() -> None:
    """Nothing is taken out."""


@mutant
def ref_before_objects() -> None:
    """The branch moves before the objects are written."""
    from ckptvcs.porcelain import commit
    from ckptvcs.storage.objects import LocalStore, MemoryStore

    real_put, real_commit, real_size = LocalStore.put, commit._commit, LocalStore.nbytes
    late: list[Any] = []

    def put(self: Any, objects: Any, progress: Any = lambda n: None) -> Any:
        late.append((self, objects))
        return MemoryStore().put(objects)

    def nbytes(self: Any, name: Any) -> Any:
        announced = (pair for _, objects in late for pair in zip(objects, MemoryStore().put(objects), strict=True))
        return next((new.nbytes for new, ref in announced if ref.name == name), None)

    def commit_first(*args: Any) -> Any:
        result = real_commit(*args)
        LocalStore.nbytes = real_size
        for store, objects in late:
            real_put(store, objects)
        return result

    LocalStore.put, LocalStore.nbytes, commit._commit = put, nbytes, commit_first
    commit.VerifiedStore = None
    from ckptvcs.storage.verified import VerifiedStore

    VerifiedStore.note = lambda self, refs: None


@mutant
def objects_in_place() -> None:
    """An object gets its name before it is complete."""
    from ckptvcs.storage.objects import LocalStore

    real = LocalStore._publish

    def publish(self: Any, tmp: str, new: Any, written: Any) -> Any:
        name = written.md5 + new.suffix
        final = self.path(name)
        final.parent.mkdir(parents=True, exist_ok=True)
        if not final.exists():
            data = Path(tmp).read_bytes()
            fd = os.open(final, os.O_WRONLY | os.O_CREAT, 0o444)
            for start in range(0, len(data), 4096):
                os.writev(fd, [data[start : start + 4096]])  # nothing else writes so: its points are its own
            os.fchmod(fd, 0o444)
            os.close(fd)
        return real(self, tmp, new, written)

    LocalStore._publish = publish


@mutant
def no_lock_recovery() -> None:
    """Lock files of a dead process stay."""
    from ckptvcs.storage.history import commits

    commits._remove_left_locks = lambda *_: None


@mutant
def no_follow_recovery() -> None:
    """Index and worktree stay behind if a process died before they followed."""
    from ckptvcs.porcelain import following

    following.finish_interrupted = lambda *_: None


@mutant
def workspace_in_place() -> None:
    """The workspace directory is emptied and filled again where it is."""
    from ckptvcs.storage import workspace

    def materialise(where: Any, members: Any, *, source: Any, **_: Any) -> None:
        import shutil

        folder = where.root / where.path
        shutil.rmtree(folder, ignore_errors=True)
        for member, ref in members.items():
            target = folder / member
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source.store.path(ref.name), target)

    workspace.materialise = materialise


@mutant
def errors_swallowed() -> None:
    """A write that fails is taken for one that succeeded."""
    from ckptvcs.storage import files

    real = files.write_all

    def write_all(fd: int, data: Any) -> None:
        try:
            real(fd, data)
        except OSError:
            pass

    files.write_all = write_all


@mutant
def source_moved() -> None:
    """The user's file is moved into the cache instead of read."""
    from ckptvcs.porcelain import incoming

    real = incoming.from_path

    def from_path(path: Path, **options: Any) -> Any:
        aside = path.with_suffix(".moved")
        os.rename(path, aside)
        what = real(aside, **options)
        what.watched.clear()
        import shutil

        shutil.copyfile(aside, path)
        os.unlink(aside)
        return what

    incoming.from_path = from_path


@mutant
def no_fsync() -> None:
    """Objects get their names without being durable."""
    from ckptvcs.storage import files, ingest

    class Quick:
        def __getattr__(self, name: str) -> Any:
            return getattr(os, name)

        @staticmethod
        def fsync(fd: int) -> None:
            pass

    ingest.os = files.os = Quick()


if __name__ == "__main__":
    MUTANTS[sys.argv[1]]()
    from ckptvcs.cli.main import main

    main(sys.argv[2:])
