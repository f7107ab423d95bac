"""The door to DVC's remotes: their options and credentials are DVC's business, and so is opening their file systems."""

from __future__ import annotations

import contextlib
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ckptvcs.errors import BadConfig, CkptvcsError, NotFound, StorageError
from ckptvcs.paths import printable
from ckptvcs.storage import store_errors
from ckptvcs.storage.patience import Steady

if TYPE_CHECKING:
    from ckptvcs.storage.dvc.config import DvcConfig


def local_folder(root: Path, config: DvcConfig, name: str) -> Path | None:
    """The folder of a remote on a local path; None for every other kind.

    Args:
        root: the folder that holds `.dvc`.
        config: of the repository.
        name: of the remote.
    """
    url = str(_options(config, name).get("url", ""))
    if "://" in url:
        return Path(url.removeprefix("file://")) if url.startswith("file://") else None
    # DVC writes a relative path relative to its configuration file.
    return (root / ".dvc" / Path(url).expanduser()).resolve() if url else None


def open_filesystem(root: Path, config: DvcConfig, name: str) -> tuple[Any, str]:
    """Open the file system of a remote, as fsspec has it, and say where in it DVC's objects are.

    Args:
        root: the folder that holds `.dvc`.
        config: of the repository.
        name: of the remote.

    Raises:
        NotFound: no remote has that name.
        BadConfig: DVC cannot make sense of its options, or keeps no objects there.
        StorageError: what it takes to open it is not installed, or it cannot be opened.
    """
    _options(config, name)
    from dvc.config import Config, ConfigError
    from dvc.exceptions import DvcException
    from dvc.fs import get_cloud_fs
    from dvc_objects.fs.errors import AuthError, RemoteMissingDepsError
    from dvc_objects.fs.errors import ConfigError as FsConfigError

    try:
        cls, options, path = get_cloud_fs(Config(str(root / ".dvc")), name=name)
        if options.get("version_aware") or options.get("worktree"):
            raise BadConfig(
                f"cannot use remote '{name}'",
                why="it is version_aware or worktree: DVC keeps no objects there",
                next_step="add another one with 'ckpt remote add'",
            )
        fs = Steady(lambda: _open(cls(**options)), breaks=cls.protocol == "ssh")
        return fs, cls.join(path, "files", "md5")
    except (ImportError, RemoteMissingDepsError) as err:
        raise StorageError(
            f"cannot open remote '{name}'", why=_first_line(err), next_step=f"pip install 'dvc[{_kind(config, name)}]'"
        ) from err
    except (ConfigError, FsConfigError) as err:
        raise BadConfig(
            f"cannot open remote '{name}'", why=_first_line(err), next_step="see 'dvc remote modify --help'"
        ) from err
    except (DvcException, AuthError, FileNotFoundError, ValueError) as err:
        raise StorageError(
            f"cannot open remote '{name}'",
            why=_first_line(err),
            next_step=f"see its options with 'dvc config --list', and try 'dvc push -r {name}', which opens it too",
        ) from err
    except CkptvcsError:
        raise
    except Exception as err:  # a server that hangs up, or a key that is refused: each library has classes of its own
        raise store_errors.storage_error(f"cannot open remote '{name}'", name, err) from err


_SILENT_S: Final = 60
"""A connection over which nothing came for so long is broken off. DVC's own options, where they are set, come first."""

_S3_ATTEMPTS: Final = 2
"""What fails is tried again by botocore, by s3fs and by us, and each multiplies what those below it wait."""


def _open(opened: Any) -> Any:
    """Open a file system of DVC's, with a bound on how long it may be silent: else it waits for half an hour, or for ever."""
    arguments = opened.fs_args
    if opened.protocol == "ssh":
        arguments.setdefault("keepalive_interval", _SILENT_S // 4)
        arguments.setdefault("keepalive_count_max", 3)
        arguments["timeout"] = opened.config.get("timeout", _SILENT_S)
        opened.fs.protocol = "ssh"  # sshfs does not say what it is
    if opened.protocol == "s3":
        config = arguments.setdefault("config_kwargs", {})
        config.setdefault("connect_timeout", _SILENT_S)
        config.setdefault("read_timeout", _SILENT_S)
        config.setdefault("retries", {"total_max_attempts": _S3_ATTEMPTS})
        _give_up_sending(config, config["read_timeout"])
        opened.fs.retries = _S3_ATTEMPTS
    return opened.fs


def _give_up_sending(config: dict[str, Any], seconds: float) -> None:
    """Break off a connection whose other side takes nothing for so long, which no timeout for reading notices."""
    from aiobotocore.config import AioConfig

    def make(address: Any) -> socket.socket:
        made = socket.socket(*address[:3])
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(seconds * 1000))
        return made

    arguments = {"socket_factory": make}
    with contextlib.suppress(Exception):  # a version that does not know it; then each call is bounded all the same
        AioConfig(connector_args=arguments)
        config.setdefault("connector_args", arguments)


def _options(config: DvcConfig, name: str) -> Any:
    if name not in config.remotes:
        there = ", ".join(sorted(config.remotes)) or "none"
        raise NotFound(
            f"no remote '{printable(name)}'",
            why=f"DVC's configuration has {there}",
            next_step="add it with 'ckpt remote add NAME URL'",
        )
    return config.remotes[name]


def _kind(config: DvcConfig, name: str) -> str:
    return str(_options(config, name).get("url", "")).partition("://")[0]


def _first_line(err: Exception) -> str:
    return printable(str(err).strip().splitlines()[0] if str(err).strip() else type(err).__name__)
