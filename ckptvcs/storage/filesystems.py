"""Where the file systems of fsspec differ for us: how a name appears in one step, and how it is given only once.

Errors are those of the file systems; `store_errors` knows what they mean.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from base64 import b64encode
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ckptvcs.storage import files, store_errors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

_OBJECT_STORES: Final = {"s3", "s3a", "gs", "gcs", "abfs", "az", "abfss", "adl", "oss"}
_IN_ONE_PIECE: Final = 16 << 20
"""Bytes; so much is read into memory for each upload under way."""
STALE_S: Final = 24 * 3600.0
"""What nobody wrote to for so long is no upload under way any more."""


class Kind:
    """What a file system is, and how it is written to.

    Args:
        fs: as DVC opened it.
    """

    def __init__(self, fs: Any) -> None:
        self._fs = fs
        protocols = {fs.protocol} if isinstance(fs.protocol, str) else set(fs.protocol)
        self.appears_whole = bool(protocols & _OBJECT_STORES)
        """There an upload appears as a whole; elsewhere it is given its name when it is complete."""
        self.lists = not protocols & {"http", "https"}
        self.is_s3 = "s3" in protocols
        self._is_webdav = "webdav" in protocols
        self.creates_whole = self.appears_whole or self._is_webdav
        """Whether `create` makes a file appear as a whole."""
        self._is_ssh = "ssh" in protocols
        self._puts_only_once = self.is_s3

    def put(self, local: str, path: str, md5: str, is_whole: Callable[[], bool]) -> bool:
        """Upload a file to where none is, as far as the store can tell.

        Args:
            local: the file here.
            path: its path there.
            md5: of the file.
            is_whole: tells of what is there already whether it is right; only what is damaged is written over.

        Returns:
            Whether the store has said what arrived, and it is right: then nobody needs to look.
        """
        if self._puts_only_once:
            try:
                return self._put(local, path, md5, create=True)
            except Exception as err:
                if store_errors.says_unsupported(err):
                    self._puts_only_once = False
                elif not store_errors.says_exists(err):
                    raise
                elif is_whole():
                    return True
        return self._put(local, path, md5)

    def replace(self, local: str, path: str, md5: str) -> None:
        """Upload a file to where another one is, as a whole."""
        self._put(local, path, md5)

    def _put(self, local: str, path: str, md5: str, *, create: bool = False) -> bool:
        if not self.is_s3 or os.path.getsize(local) > _IN_ONE_PIECE:
            self._fs.put_file(local, path, **({"mode": "create"} if create else {}))
            return False
        bucket, key, _ = self._fs.split_path(path)
        answer = self._fs.call_s3(
            "put_object",
            Bucket=bucket,
            Key=key,
            Body=Path(local).read_bytes(),
            ContentMD5=b64encode(bytes.fromhex(md5)).decode(),  # what arrives as something else is refused
            **({"IfNoneMatch": "*"} if create else {}),
        )
        # An encrypting bucket has another tag; and who takes a file for something else gives one, too.
        return str(answer.get("ETag", "")).strip('"') == md5

    def create(self, path: str, data: bytes) -> None:
        """Write a small file where there is none; whoever comes second gets an error, where the store can do that."""
        if self._is_webdav:  # PUT would look first and write then; MOVE does both in one
            tmp = f"{path.rpartition('/')[0]}/{files.tmp_name()}"
            self._fs.pipe_file(tmp, data)
            try:
                self.move(tmp, path)
            except BaseException:
                with contextlib.suppress(Exception):  # the first error is on its way already
                    self._fs.rm_file(tmp)
                raise
        elif self._is_ssh:  # `pipe_file` of sshfs takes "create" and writes over what is there
            with opened(self._fs, path, "xb") as file:
                file.write(data)
        else:
            self._fs.pipe_file(path, data, mode="create")

    def read(self, path: str, start: int, end: int) -> bytes:
        """Read a range of a file, which may be shorter than that."""
        if self._is_ssh:  # `cat_file` of sshfs takes a range and reads all of the file
            with opened(self._fs, path, "rb") as file:
                file.seek(start)
                return bytes(file.read(end - start))
        try:
            data = bytes(self._fs.cat_file(path, start=start, end=end))
        except Exception as err:
            if store_errors.says_behind_the_end(err):
                return b""
            raise
        return data if len(data) <= end - start else data[start:end]  # there are servers that do not know ranges

    def move(self, path: str, to: str) -> None:
        """Rename in one step. On WebDAV fsspec would copy, for all to see, and then delete."""
        if self._is_webdav:
            self._fs.client.move(path, to, overwrite=False)
        else:
            self._fs.mv(path, to)

    def creates_only_once(self, path: str, first: bytes) -> bool:
        """Whether the second of two who make one name is told, and changes nothing.

        Args:
            path: of a file that is there.
            first: what it holds.
        """
        try:
            self.create(path, secrets.token_bytes(len(first)))
        except Exception as err:  # noqa: BLE001 - whatever it is, it is looked at, and what we want to know is known
            return store_errors.says_exists(err) and bytes(self._fs.cat_file(path)) == first
        return False

    def sweep(self, folder: str, newest: str) -> None:
        """Remove from a folder what uploads that were killed left in it.

        Args:
            folder: the root of the objects; objects lie further down and are not looked at.
            newest: the path of a file that was written a moment ago: its time is the time of the store.
        """
        now = timestamp(self._fs.info(newest))
        for entry in self._fs.ls(folder, detail=True) if now is not None else []:
            path, written = entry["name"].rstrip("/"), timestamp(entry)
            name = path.rpartition("/")[2]
            is_ours = name.startswith(files.PREFIX) or (
                name[:1] == "." and name.endswith(".tmp")
            )  # so DVC calls its own
            if is_ours and written is not None and now is not None and written < now - STALE_S:
                with contextlib.suppress(FileNotFoundError):  # somebody else sweeps too
                    self._fs.rm_file(path)


@contextlib.contextmanager
def opened(fs: Any, path: str, mode: str) -> Iterator[Any]:
    """A file of sshfs, which is closed once: it would be again when it is collected, and then wait for a line that is dead.

    As Python ends there is nobody left to answer it, and that wait would be for ever.
    """
    file = fs.open(path, mode)
    try:
        yield file
    finally:
        close, file.close = file.close, _nothing
        close()


def _nothing() -> None:
    """Close what is closed."""


def timestamp(info: Mapping[str, Any]) -> float | None:
    """When a file was written, in seconds since the epoch, by the clock of its store; None if it does not say."""
    for key in ("LastModified", "last_modified", "mtime", "modified", "updated", "created"):
        value = info.get(key)
        if isinstance(value, datetime):
            return value.timestamp()
        if isinstance(value, (int, float)):
            return float(value)
    return None
