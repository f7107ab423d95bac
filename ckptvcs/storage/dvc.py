"""The only door to DVC: its configuration, its pointer files, its directory objects, its lock. No import of `dvc` itself.

What DVC writes is small and stable (the layout of 3.0 to 3.67), and importing it costs more than most of our commands; so
we write the same bytes ourselves, and interop tests hold them against the real program.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ckptvcs.digest import Digest
from ckptvcs.errors import BadConfig, BadManifest, Conflict, NoRepository, Refused
from ckptvcs.paths import printable
from ckptvcs.storage import files
from ckptvcs.storage.objects import DIR_SUFFIX, LocalStore, ObjectName

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

INIT_FILES: Final = {
    ".dvc/config": "",
    ".dvc/.gitignore": "/config.local\n/tmp\n/cache\n",
    ".dvcignore": "# Add patterns of files dvc should ignore, which could improve\n"
    "# the performance. Learn more at\n# https://dvc.org/doc/user-guide/dvcignore\n",
}
"""What `dvc init` writes."""

_MAX_YAML: Final = 8 << 20


# ---------------------------------------------------------------------------------------------------- configuration


@dataclass(frozen=True, slots=True, kw_only=True)
class DvcConfig:
    """The part of DVC's configuration that concerns us."""

    cache_dir: Path
    shared_group: bool
    hardlink_lock: bool
    remotes: Mapping[str, Mapping[str, Any]]
    default_remote: str | None


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
    for path in (*outer, root / ".dvc/config", root / ".dvc/config.local"):
        for section, options in _read_ini(path).items():
            merged.setdefault(section, {}).update(options)
    cache, core = merged.get("cache", {}), merged.get("core", {})
    # Relative to the folder of the file that says so, which for everything that DVC writes itself is `.dvc`.
    cache_dir = (root / ".dvc" / Path(cache.get("dir", "cache")).expanduser()).absolute()
    return DvcConfig(
        cache_dir=Path(os.path.normpath(cache_dir)),
        shared_group=cache.get("shared") == "group",
        hardlink_lock=str(core.get("hardlink_lock", "false")).lower() in ("true", "yes", "on", "1"),
        remotes={m[1]: options for section, options in merged.items() if (m := _REMOTE.fullmatch(section))},
        default_remote=core.get("remote"),
    )


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
    parsed.setdefault(f"'remote \"{name}\"'", {})["url"] = url
    if default:
        parsed.setdefault("core", {})["remote"] = name
    parsed.filename = None
    files.write_atomic(path, ("\n".join(parsed.write()) + "\n").encode("utf-8"))


def open_cache(config: DvcConfig) -> LocalStore:
    """The hot tier: DVC's local cache."""
    return LocalStore(config.cache_dir / "files" / "md5", group=config.shared_group)


# ---------------------------------------------------------------------------------------------------------- pointers


@dataclass(frozen=True, slots=True, kw_only=True)
class Pointer:
    """A `.dvc` file of ours: which directory object an artifact is, and which manifest describes it."""

    directory: ObjectName
    nbytes: int
    nfiles: int
    track: str
    manifest: Digest
    remote: str | None = None


_POINTER: Final = re.compile(
    r"outs:\n- md5: (?P<directory>[0-9a-f]{32}\.dir)\n  size: (?P<nbytes>\d{1,19})\n  nfiles: (?P<nfiles>\d{1,9})\n"
    r"  hash: md5\n  path: (?P<track>[A-Za-z0-9_-]{1,64})\n"
    r"  meta:\n    ckptvcs:\n      v: 1\n      manifest: (?P<manifest>[0-9a-f]{64})\n"
    r"(  remote: (?P<remote>[A-Za-z0-9._-]{1,64})\n)?\Z"
)


def reads_as_number(digest: Digest) -> bool:
    """Whether YAML would take a digest for a number, such as `12345...` or `1e5...`; about one in 10^12 is such.

    DVC would write it back as that number. A digest with a prefix would be safe but longer than DVC's 80 columns, and
    DVC would break the line.
    """
    return re.fullmatch(r"\d+(e\d+)?", digest) is not None


def pointer_bytes(pointer: Pointer) -> bytes:
    """The `.dvc` file, as DVC itself would write it: `dvc add` of the same directory changes no byte of it."""
    text = (
        f"outs:\n- md5: {pointer.directory}\n  size: {pointer.nbytes}\n  nfiles: {pointer.nfiles}\n"
        f"  hash: md5\n  path: {pointer.track}\n"
        f"  meta:\n    ckptvcs:\n      v: 1\n      manifest: {pointer.manifest}\n"
    )
    return (text + (f"  remote: {pointer.remote}\n" if pointer.remote else "")).encode("ascii")


def read_pointer(data: bytes, *, where: str) -> Pointer:
    """Read a `.dvc` file of ours. No YAML parser sees it: the grammar is all that we ever write.

    Raises:
        BadManifest: it is not one of ours, or was edited.
    """
    match = _POINTER.match(data.decode("utf-8", "replace"))
    if match is None:
        raise BadManifest(
            f"cannot read pointer '{where}'",
            why="it is not in the form that ckptvcs writes",
            next_step="restore it from git: git checkout HEAD -- " + where,
        )
    return Pointer(
        directory=ObjectName(match["directory"]),
        nbytes=int(match["nbytes"]),
        nfiles=int(match["nfiles"]),
        track=match["track"],
        manifest=Digest(match["manifest"]),
        remote=match["remote"],
    )


def directory_bytes(members: Mapping[str, ObjectName]) -> bytes:
    """The `.dir` object of a directory: path -> object name, byte for byte as DVC writes it."""
    entries = [{"md5": members[path], "relpath": path} for path in sorted(members)]
    return json.dumps(entries, sort_keys=True).encode("utf-8")


def with_ignored(text: str, name: str) -> str:
    """The content of a `.gitignore` with an entry for `name` beside it; unchanged if it has one."""
    entry = f"/{name}"
    if entry in text.splitlines():
        return text
    return f"{text}{'' if not text or text.endswith(chr(10)) else chr(10)}{entry}\n"


# ------------------------------------------------------------------------------------------------- what others track


@dataclass(frozen=True, slots=True)
class Output:
    """An output that DVC tracks: its path relative to the DVC root, and its object name."""

    path: str
    name: str


def outputs(data: bytes, *, file: str) -> list[Output]:
    """The outputs that a foreign `.dvc` file or `dvc.lock` names; nothing for a file that we cannot read.

    It is somebody else's file, and only a note in our provenance: a broken one must not stop a commit.
    """
    if len(data) > _MAX_YAML:
        return []
    folder = os.path.dirname(file)
    try:
        document = _safe_yaml(data)
        if file.endswith("dvc.lock"):
            stages = (document.get("stages") or {}).values()
            found = [(out, folder) for stage in stages for out in stage.get("outs", [])]
        else:
            found = [(out, os.path.join(folder, document.get("wdir", ""))) for out in document.get("outs", [])]
        return [Output(os.path.normpath(os.path.join(base, out["path"])), str(out["md5"])) for out, base in found if "md5" in out]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return []


def _safe_yaml(data: bytes) -> Any:
    """Parse YAML of strangers: plain values only, and no aliases, which expand without end."""
    import yaml

    class Loader(yaml.SafeLoader):
        def compose_node(self, parent: Any, index: Any) -> Any:
            if self.check_event(yaml.AliasEvent):
                raise ValueError("aliases are not read")
            return super().compose_node(parent, index)

    try:
        return yaml.load(data, Loader)  # noqa: S506 - a SafeLoader
    except yaml.YAMLError as err:
        raise ValueError(str(err)) from err


def ignored_paths(root: Path, paths: Iterable[str]) -> list[str]:
    """Those of our paths (relative to the DVC root) that a `.dvcignore` would hide from DVC.

    DVC silently leaves such a file out of a directory, so that its own view of a checkpoint would be incomplete.
    """
    paths = list(paths)
    folders = {"/".join(path.split("/")[:i]) for path in paths for i in range(path.count("/") + 1)}
    hidden: set[str] = set()
    for folder in folders:
        lines = _ignore_lines(root / folder / ".dvcignore")
        if not lines:
            continue
        from pathspec import GitIgnoreSpec

        spec = GitIgnoreSpec.from_lines(lines)
        prefix = f"{folder}/" if folder else ""
        hidden.update(p for p in paths if p.startswith(prefix) and spec.match_file(p[len(prefix) :]))
    return sorted(hidden)


def _ignore_lines(path: Path) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return []
    return [line for line in text.splitlines() if line.strip() and not line.startswith("#")]


def refuse_overlap(track_path: str, others: Iterable[Output]) -> None:
    """Refuse a track whose directory lies inside an output of DVC, or around one.

    Raises:
        Refused: the other output would count as modified for ever.
    """
    for other in others:
        inside = f"{track_path}/".startswith(f"{other.path}/") or f"{other.path}/".startswith(f"{track_path}/")
        if inside:
            raise Refused(
                f"cannot keep a track in '{printable(track_path)}'",
                why=f"DVC already tracks '{printable(other.path)}', and one output must not lie inside another",
                next_step="choose another 'directory' in ckpt.yaml, or 'dvc remove' that output",
            )


# -------------------------------------------------------------------------------------------------------------- locks


def lock(root: Path, config: DvcConfig, *, timeout_s: float) -> files.Lock:
    """DVC's own repository lock. Hold it for as short as can be: every other `dvc` command fails after 3 s of it.

    Raises:
        BadConfig: `core.hardlink_lock` is set, which needs DVC's lock program.
    """
    if config.hardlink_lock:
        raise BadConfig(
            "cannot lock the DVC repository",
            why="'core.hardlink_lock' is set, and ckptvcs uses flock",
            next_step="run 'dvc config --unset core.hardlink_lock' where the file system supports flock",
        )
    (root / ".dvc/tmp").mkdir(exist_ok=True)
    return files.Lock(root / ".dvc/tmp/lock", timeout_s=timeout_s, stamp=b" %d\n" % os.getpid())


def refuse_while_writing(root: Path, track_path: str) -> None:
    """Refuse to touch a path that a running DVC stage writes to.

    Raises:
        Conflict: some living process has it in `.dvc/tmp/rwlock`.
    """
    try:
        held = json.loads((root / ".dvc/tmp/rwlock").read_bytes())["write"]
    except (OSError, ValueError, KeyError, TypeError):
        return
    for path, holder in held.items():
        relative = os.path.relpath(path, root)
        near = f"{track_path}/".startswith(f"{relative}/") or f"{relative}/".startswith(f"{track_path}/")
        if near and _is_alive(holder.get("pid")):
            raise Conflict(
                f"cannot write '{track_path}'",
                why=f"'{holder.get('cmd', 'a DVC stage')}' (process {holder['pid']}) is writing '{relative}'",
                next_step="wait for it to end and run the command again",
            )


def _is_alive(pid: Any) -> bool:
    try:
        os.kill(int(pid), 0)
    except (OSError, ValueError, TypeError):
        return False
    return True
