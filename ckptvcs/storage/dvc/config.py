"""DVC's configuration: where the cache is, which remotes there are."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ckptvcs.errors import BadConfig, NoRepository
from ckptvcs.storage import files

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

INIT_FILES: Final = {
    ".dvc/config": "",
    ".dvc/.gitignore": "/config.local\n/tmp\n/cache\n",
    ".dvcignore": "# Add patterns of files dvc should ignore, which could improve\n"
    "# the performance. Learn more at\n# https://dvc.org/doc/user-guide/dvcignore\n",
}
"""What `dvc init` writes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DvcConfig:
    """The part of DVC's configuration that concerns us."""

    cache_dir: Path
    shared_group: bool
    hardlink_lock: bool
    remotes: Mapping[str, Mapping[str, Any]]
    default_remote: str | None
    shared: Mapping[str, Mapping[str, Any]]
    """What `.dvc/config` alone says of the remotes: it comes with a clone, and `.dvc/config.local` is this clone's own."""


def find_root(start: Path, stop: Path) -> Path:
    """The folder that holds `.dvc`: `start` or the nearest one above it, not above `stop`.

    Raises:
        NoRepository: there is none.
    """
    for folder in (start, *start.parents):
        if (folder / ".dvc").is_dir():
            return folder
        if folder == stop:
            break
    raise NoRepository(
        f"no DVC repository at '{start}'",
        why=f"there is no '.dvc' folder here or above, up to '{stop}'",
        next_step="run 'ckpt init'",
    )


def read_config(root: Path, outer: Sequence[Path]) -> DvcConfig:
    """Read the configuration of a DVC repository.

    Args:
        root: the folder that holds `.dvc`.
        outer: the configuration files of the system and the user, in this order.

    Raises:
        BadConfig: a file is no INI file, or an option has a value that DVC would refuse too.
    """
    merged: dict[str, dict[str, Any]] = {}
    shared = _read_ini(root / ".dvc/config")
    local = _read_ini(root / ".dvc/config.local")
    for found in (*map(_read_ini, outer), shared, local):
        for section, options in found.items():
            merged.setdefault(section, {}).update(options)
    cache, core = merged.get("cache", {}), merged.get("core", {})
    # Relative to the folder of the file that says so, which for everything that DVC writes itself is `.dvc`.
    cache_dir = (root / ".dvc" / Path(cache.get("dir", "cache")).expanduser()).absolute()
    return DvcConfig(
        cache_dir=Path(os.path.normpath(cache_dir)),
        shared_group=cache.get("shared") == "group",
        hardlink_lock=str(core.get("hardlink_lock", "false")).lower() in ("true", "yes", "on", "1"),
        remotes=_remotes(merged),
        default_remote=core.get("remote"),
        shared={
            name: {option: value for option, value in options.items() if option not in _remotes(local).get(name, {})}
            for name, options in _remotes(shared).items()
        },
    )


def _remotes(sections: Mapping[str, Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    return {m[1]: options for section, options in sections.items() if (m := _REMOTE.fullmatch(section))}


_REMOTE: Final = re.compile(r"""['"]?remote\s+"([^"]+)"['"]?""")


def _read_ini(path: Path) -> dict[str, dict[str, Any]]:
    try:
        if path.stat().st_size == 0:
            return {}
    except OSError:
        return {}
    from configobj import ConfigObj, ConfigObjError

    try:
        parsed = ConfigObj(str(path), encoding="utf-8", interpolation=False)
    except (ConfigObjError, UnicodeDecodeError) as err:
        raise BadConfig(f"cannot read '{path}'", why=str(err), next_step="mend the file by hand") from err
    return {section: dict(options) for section, options in parsed.items() if isinstance(options, dict)}


def add_remote(root: Path, name: str, url: str, *, default: bool) -> None:
    """Write a remote into `.dvc/config`, as `dvc remote add` does. A URL that is there already stays."""
    from configobj import ConfigObj

    path = root / ".dvc/config"
    parsed = ConfigObj(str(path), encoding="utf-8", interpolation=False, indent_type="    ")
    parsed.setdefault(f'remote "{name}"', {})["url"] = url
    if default:
        parsed.setdefault("core", {})["remote"] = name
    written = BytesIO()
    parsed.write(written)
    files.write_atomic(path, written.getvalue())
