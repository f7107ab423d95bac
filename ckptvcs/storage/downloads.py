"""Objects come from a remote: ahead of who takes them, with bounded memory, and under their name only when they are right."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from ckptvcs.digest import digest_of_parts, short
from ckptvcs.errors import WrongDigest
from ckptvcs.storage.ingest import NewObject
from ckptvcs.storage.names import DIR_SUFFIX
from ckptvcs.storage.objects import check_digest
from ckptvcs.storage.remotes import PARALLEL, PIECE

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ckptvcs.progress import Progress
    from ckptvcs.storage.names import ObjectName, ObjectRef
    from ckptvcs.storage.objects import LocalStore
    from ckptvcs.storage.remotes import Remote


class Downloads:
    """Objects of a remote as they are fetched: pieces ahead of who takes them, with bounded memory.

    Args:
        remote: where they are.
        refs: the objects, in the order in which they are taken.
        pool: fetches.
    """

    def __init__(self, remote: Remote, refs: Sequence[ObjectRef], pool: ThreadPoolExecutor) -> None:
        self._remote, self._pool = remote, pool
        self._waiting = list(reversed(refs))
        self._first: dict[ObjectName, Any] = {}
        for _ in range(2 * PARALLEL):
            self._begin_next()

    def _begin_next(self) -> None:
        if self._waiting:
            ref = self._waiting.pop()
            self._first[ref.name] = self._piece(ref, 0)

    def _piece(self, ref: ObjectRef, start: int) -> Any:
        # The last piece asks for one byte more than there should be, and so learns whether there is.
        end = start + PIECE if start + PIECE < ref.nbytes else ref.nbytes + 1
        return self._pool.submit(self._remote.read, ref.name, start, end)

    def chunks(self, ref: ObjectRef) -> Iterator[bytes]:
        """The bytes of an object.

        Raises:
            WrongDigest: there are fewer, or more.
        """
        following = self._first.pop(ref.name, None) or self._piece(ref, 0)
        self._begin_next()
        for start in range(0, max(ref.nbytes, 1), PIECE):
            piece = following.result()
            if len(piece) != min(PIECE, ref.nbytes - start):
                found = f"more than {ref.nbytes}" if start + len(piece) > ref.nbytes else f"{start + len(piece)}"
                raise _other(self._remote, ref, f"it has {found} bytes, it should have {ref.nbytes}")
            if start + PIECE < ref.nbytes:
                following = self._piece(ref, start + PIECE)
            yield piece


def download(remote: Remote, refs: Sequence[ObjectRef], to: LocalStore, progress: Progress) -> None:
    """Fetch objects into a local store, largest first; each is verified while it is written.

    Raises:
        MissingObject: the remote has not all of them.
        IntegrityError: one is not what it should be; it was not stored.
        StorageError: the remote does not answer, or the disk is full.
    """
    # In the order in which the store takes them.
    ordered = sorted(refs, key=lambda ref: ref.nbytes, reverse=True)
    with ThreadPoolExecutor(PARALLEL, "ckptvcs-fetch") as pool:
        fetched = Downloads(remote, ordered, pool)
        try:
            to.put([_new(ref, fetched) for ref in ordered], progress)
        except WrongDigest as err:
            wrong = next((ref for ref in refs if ref.name == err.facts.get("object")), None)
            if wrong is None or "remote" in err.facts:
                raise
            raise _other(remote, wrong, err.why) from err
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _new(ref: ObjectRef, fetched: Downloads) -> NewObject:
    suffix = DIR_SUFFIX if ref.name.endswith(DIR_SUFFIX) else ""
    return NewObject(lambda: fetched.chunks(ref), ref.nbytes, suffix, ref)


def _other(remote: Remote, ref: ObjectRef, why: str) -> WrongDigest:
    return WrongDigest(
        f"what remote '{remote.name}' has as object {short(ref.name)} is something else",
        why=why,
        next_step="nothing of it was kept; whoever has it whole heals the remote with 'ckpt push --full --verify'",
        object=ref.name,
        remote=remote.name,
    )


def verify(remote: Remote, refs: Sequence[ObjectRef], progress: Progress) -> None:
    """Read objects back from a remote, and compare.

    Raises:
        WrongDigest: one is not what it should be.
        MissingObject: one is not there.
    """
    for _, problem in unsound(remote, refs, progress):
        raise problem


def unsound(remote: Remote, refs: Sequence[ObjectRef], progress: Progress) -> Iterator[tuple[ObjectRef, WrongDigest]]:
    """Read objects back from a remote; gives those that are not what they should be, and what is wrong with them.

    Raises:
        MissingObject: one is not there.
    """
    with ThreadPoolExecutor(PARALLEL, "ckptvcs-verify") as pool:
        fetched = Downloads(remote, refs, pool)
        try:
            for ref in refs:
                try:
                    check_digest(digest_of_parts(fetched.chunks(ref)), ref, where=f"remote '{remote.name}'")
                except WrongDigest as err:
                    yield ref, err
                progress(ref.nbytes)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
