"""Where configuration comes from: `ckpt.yaml`, and the environment, which nothing below reads."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from ckptvcs._version import VERSION
from ckptvcs.digest import digest
from ckptvcs.domain.basics import FILE, Basics
from ckptvcs.errors import BadConfig, UsageError

# The policy is imported where it is asked for: it is of many classes, and a command that only looks has 150 ms.
if TYPE_CHECKING:
    from ckptvcs.domain.policy import Config, Save
    from ckptvcs.storage.history.repository import CommitId, History, Identity

_MAX_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What the environment of this process says."""

    variables: Mapping[str, str]
    privileged: bool
    """Whether we are root."""

    @property
    def dvc_files(self) -> tuple[Path, ...]:
        """DVC's configuration files of the system and the user."""
        import platformdirs

        system = self.variables.get("DVC_SYSTEM_CONFIG_DIR") or platformdirs.site_config_dir("dvc", "iterative")
        user = self.variables.get("DVC_GLOBAL_CONFIG_DIR") or platformdirs.user_config_dir("dvc", "iterative")
        return Path(system) / "config", Path(user) / "config"

    @property
    def no_hooks(self) -> bool:
        """Whether hooks have nothing to do: `ckpt` itself is at work, or the user wants it so."""
        return bool(self.variables.get("CKPT_NO_HOOKS"))

    def identity(self, configured: tuple[str | None, str | None]) -> Identity:
        """Who makes commits: git's environment variables, else what git's configuration says.

        Raises:
            UsageError: neither says it.
        """
        from ckptvcs.storage.history.repository import Identity

        name, email = configured
        name = self.variables.get("GIT_AUTHOR_NAME") or self.variables.get("GIT_COMMITTER_NAME") or name
        email = self.variables.get("GIT_AUTHOR_EMAIL") or self.variables.get("GIT_COMMITTER_EMAIL") or email
        if not name or not email:
            raise UsageError(
                "git does not know who you are",
                why="neither 'user.name' and 'user.email' nor GIT_AUTHOR_NAME and GIT_AUTHOR_EMAIL are set",
                next_step="run: git config --global user.name 'Your Name' && git config --global user.email you@example.com",
            )
        # git forbids these characters too; they would change the meaning of a commit object.
        return Identity(name=_clean(name), email=_clean(email))


def _clean(text: str) -> str:
    return "".join(c for c in text if c not in "<>\n\0").strip() or "unknown"


def surroundings() -> Surroundings:
    """Look at the environment of this process."""
    return Surroundings(variables=dict(os.environ), privileged=os.geteuid() == 0)  # noqa: TID251 - this is the place


# ----------------------------------------------------------------------------------------------------------- ckpt.yaml


def read_basics(root: Path, cache: Path) -> Basics:
    """Read of `ckpt.yaml` what every command needs; the defaults where there is none.

    Args:
        root: the folder that holds it.
        cache: a private file that remembers what an unchanged `ckpt.yaml` means: checking it takes longer than most
            commands.

    Raises:
        BadConfig: a key or value of it is wrong, whichever; the error names its line.
    """
    data = _data_of(root)
    if data is None:
        return Basics()
    known = _remembered(data, cache)
    return known.basics if known else _basics_of(_parse(data, root / FILE, cache))


def read_config(root: Path, cache: Path) -> Config:
    """Read `ckpt.yaml` of a repository; the defaults where there is none.

    Args:
        root: the folder that holds it.
        cache: as for `read_basics`.

    Raises:
        BadConfig: a key or value is wrong; the error names its line.
    """
    from ckptvcs.domain.policy import Config

    data = _data_of(root)
    if data is None:
        return Config()
    known = _remembered(data, cache)
    if known is not None:
        with suppress(ValueError):
            return msgspec.json.decode(known.config, type=Config)
    return _parse(data, root / FILE, cache)


def _data_of(root: Path) -> bytes | None:
    path = root / FILE
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as err:
        raise BadConfig(f"cannot read '{path}'", why=str(err.strerror).lower()) from err
    if len(data) > _MAX_BYTES:
        raise BadConfig(f"cannot read '{path}'", why=f"it has {len(data)} bytes, at most {_MAX_BYTES} are read")
    return data


def read_file(path: Path) -> Config:
    """Read a file that is written as `ckpt.yaml` is, wherever it lies.

    Raises:
        BadConfig: a key or value is wrong, or it cannot be read; the error names its line.
    """
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_BYTES + 1)
    except OSError as err:
        raise BadConfig(f"cannot read '{path}'", why=str(err.strerror).lower()) from err
    if len(data) > _MAX_BYTES:
        raise BadConfig(f"cannot read '{path}'", why=f"at most {_MAX_BYTES} bytes of it are read")
    return _parse(data, path, None)


def config_at(history: History, commit: CommitId, path: str) -> Config:
    """What `ckpt.yaml` says at a commit; the defaults where there is none.

    Args:
        history: the repository.
        commit: the commit.
        path: of the file, in git.

    Raises:
        BadConfig: a key or value is wrong; the error names its line.
        StorageError: git cannot read it.
    """
    from ckptvcs.domain.policy import Config

    blob = history.blob_id(commit, path)
    if blob is None:
        return Config()
    return _parse(history.blob(blob, limit=_MAX_BYTES), Path(f"{commit[:10]}:{FILE}"), None)


def write_value(root: Path, keys: Sequence[str], value: Any) -> None:
    """Change one value of `ckpt.yaml`; the rest of it, and its comments, stay. There need not be such a file.

    Args:
        root: the folder that holds it.
        keys: the keys that lead to the value.
        value: the value; None takes the key away.

    Raises:
        BadConfig: the file cannot be changed without changing more.
        StorageError: the disk is full, read-only or failing.
    """
    from ckptvcs.storage import files
    from ckptvcs.storage.yaml_edit import with_value

    path = root / FILE
    try:
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        changed = with_value(text, keys, value)
    except (OSError, ValueError) as err:
        raise BadConfig(
            f"cannot change '{path}'",
            why=" ".join(str(err).split()),
            next_step=f"write '{'.'.join(keys)}' into it by hand",
        ) from err
    if changed != text:
        files.write_atomic(path, changed.encode("utf-8"))


def save_policy(config: Config, given: Save | Mapping[str, Any] | None) -> Save:
    """The policy of saves: the one that was given, else that of `ckpt.yaml`, else the default.

    Args:
        config: of the repository.
        given: values, or what could stand under `save:` in `ckpt.yaml`.

    Raises:
        BadConfig: a key or value is wrong.
    """
    from ckptvcs.domain.policy import DEFAULT_SAVE, Save
    from ckptvcs.domain.schema import Malformed, parse_save

    if given is None or isinstance(given, Save):
        return given or config.save or DEFAULT_SAVE
    if not isinstance(given, Mapping):
        raise BadConfig(
            f"cannot use the policy of saves {given!r}",
            why="it is no mapping of keys to values",
            next_step='pass one, such as policy={"every_n_steps": 100, "on_preemption": True}',
        )
    try:
        return parse_save(dict(given))
    except Malformed as err:
        key = ".".join(map(str, err.location))
        raise BadConfig(
            f"cannot use the policy of saves{f': {key!r}' if key else ''}",
            why=err.why,
            next_step="see 'save' in docs/reference/configuration.md for what may stand there",
            key=key,
        ) from None


class _Known(msgspec.Struct):
    """What is remembered of a `ckpt.yaml`. The whole is taken apart by those who need it."""

    digest: str
    by: str
    basics: Basics
    config: msgspec.Raw


def _remembered(data: bytes, cache: Path) -> _Known | None:
    try:
        known = msgspec.json.decode(cache.read_bytes(), type=_Known)
    except (OSError, ValueError):
        return None
    return known if known.digest == digest(data) and known.by == VERSION else None


def _remember(data: bytes, config: Config, cache: Path) -> None:
    known = _Known(
        digest=digest(data),
        by=VERSION,
        basics=_basics_of(config),
        config=msgspec.Raw(msgspec.json.encode(config)),
    )
    with suppress(OSError):  # it is a hint; a repository that we may only read has none
        if cache.parent.is_dir():
            cache.write_bytes(msgspec.json.encode(known))


def _basics_of(config: Config) -> Basics:
    return Basics(directory=config.directory, track=config.track)


def _parse(data: bytes, path: Path, cache: Path | None) -> Config:
    from ckptvcs.domain.schema import Malformed, parse
    from ckptvcs.storage.plain_yaml import plain_yaml

    text = data.decode("utf-8", "replace")
    try:
        document = plain_yaml(text)
        config = parse({} if document is None else document)
    except Malformed as err:
        line_number, key = _line_of(text, err.location), ".".join(map(str, err.location))
        raise BadConfig(
            f"cannot use '{path}'{f', line {line_number}' if line_number else ''}",
            why=f"'{key}': {err.why}" if key else err.why,
            next_step="see docs/reference/configuration.md for what may stand there",
            key=key,
            line=line_number,
        ) from None  # what pydantic says is in it
    except ValueError as err:
        mark = getattr(err.__cause__, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        problem = getattr(err.__cause__, "problem", None) or str(err)
        raise BadConfig(f"cannot read '{path}'{line}", why=problem, next_step="mend the file by hand") from None
    if cache is not None:
        _remember(data, config, cache)
    return config


def _line_of(text: str, location: tuple[Any, ...]) -> int | None:
    """The line, from 1, of a key given by its path."""
    import yaml

    node, line = yaml.compose(text, yaml.SafeLoader), None
    for part in location:
        if isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node, line = node.value[part], node.value[part].start_mark.line + 1
            continue
        if not isinstance(node, yaml.MappingNode):
            break
        for key, value in node.value:
            if key.value == part:
                node, line = value, key.start_mark.line + 1
                break
    return line
