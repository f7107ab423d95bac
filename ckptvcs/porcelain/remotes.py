"""The remotes of a repository: which there are, what they are for, opening one, adding one."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from ckptvcs.domain.policy import is_remote_name
from ckptvcs.errors import HostileInput, UsageError, WouldOverwrite
from ckptvcs.paths import printable
from ckptvcs.porcelain import config as configuration
from ckptvcs.storage.dvc import config as dvc
from ckptvcs.storage.dvc import remotes as door
from ckptvcs.storage.folder_remote import FolderRemote
from ckptvcs.storage.objects import LocalStore
from ckptvcs.storage.remotes import FilesystemRemote

if TYPE_CHECKING:
    from ckptvcs.porcelain.repo import Repository
    from ckptvcs.storage.remotes import Remote

Tier = Literal["warm", "cold"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """A remote that DVC's configuration has."""

    name: str
    url: str
    default: bool
    tier: Tier


def known(repo: Repository) -> list[Known]:
    """Every remote, by name."""
    default = default_name(repo)
    return [
        Known(name=name, url=str(options.get("url", "")), default=name == default, tier=tier_of(repo, name))
        for name, options in sorted(repo.dvc_config.remotes.items())
    ]


def tier_of(repo: Repository, name: str) -> Tier:
    """What a remote is for."""
    policy = repo.config.remotes.get(name)
    return policy.tier if policy is not None else "warm"


def default_name(repo: Repository) -> str | None:
    """The remote that checkpoints go to: that of ckpt.yaml, else DVC's default, else the only one. A cold one never is."""
    config = repo.dvc_config
    warm = [name for name in config.remotes if tier_of(repo, name) == "warm"]
    only = warm[0] if len(warm) == 1 else None
    stated = repo.config.remote or config.default_remote
    return stated if stated and tier_of(repo, stated) == "warm" else only


def open_remote(repo: Repository, name: str | None = None) -> Remote:
    """Open a remote that objects are pushed to and pulled from.

    Args:
        repo: the repository.
        name: of the remote; None for the one that checkpoints go to.

    Raises:
        UsageError: none is named, and there is no default; or it is a cold one.
        NotFound: no remote has that name.
        BadConfig, StorageError: it cannot be opened.
    """
    name = name or default_name(repo)
    if name is None:
        raise UsageError(
            "there is no remote for checkpoints",
            why="DVC's configuration has no warm one, or several of which none is the default",
            next_step="run 'ckpt remote add NAME URL --default'",
        )
    require_warm(repo, name)
    return open_any(repo, name)


def require_warm(repo: Repository, name: str) -> None:
    """Refuse a cold remote where objects are pushed or pulled.

    Raises:
        UsageError: it is cold.
    """
    if tier_of(repo, name) == "cold":
        raise UsageError(
            f"cannot use remote '{printable(name)}' for that",
            why="it is cold: it is for the archive, and push and pull do without it",
            next_step="name a warm one: 'ckpt remote list' tells which there are",
        )


def open_any(repo: Repository, name: str) -> Remote:
    """Open a remote whatever it is for; see `open_remote`."""
    _refuse_planted(repo, name)
    folder = door.local_folder(repo.root, repo.dvc_config, name)
    if folder is not None:
        return FolderRemote(name, LocalStore(folder / "files" / "md5"))
    return FilesystemRemote(name, *door.open_filesystem(repo.root, repo.dvc_config, name))


def is_folder(repo: Repository, name: str) -> bool:
    """Whether a remote is a folder of this machine, which takes no time to open; one that may have to be mounted."""
    return name in repo.dvc_config.remotes and door.local_folder(repo.root, repo.dvc_config, name) is not None


_COMMANDS: Final = {"bearer_token_command"}
_FILES: Final = {"configpath", "credentialpath"}
"""Files that can name a program which gives credentials, as `credential_process` of AWS."""


def _refuse_planted(repo: Repository, name: str) -> None:
    """Refuse options that come with a clone and would make us run what comes with it too.

    Where a remote is may come with a clone, as with git-lfs and submodules. What runs is for who works here to say.

    Raises:
        HostileInput: `.dvc/config` says it, and nothing of the user's own says it again.
    """
    config = repo.dvc_config
    seen: set[str] = set()
    while name in config.remotes and name not in seen:
        seen.add(name)
        shared = config.shared.get(name, {})
        for option in sorted((_COMMANDS | _FILES) & shared.keys()):
            value = str(shared[option])
            if option in _COMMANDS or _comes_along(repo, value):
                raise HostileInput(
                    f"cannot open remote '{printable(name)}'",
                    why=f"'.dvc/config', which comes with the clone, sets {option} = {printable(value)}, "
                    "which can run a program",
                    next_step=f"if that is what you want: 'dvc remote modify --local {printable(name)} {option} ...'",
                )
        name = str(config.remotes[name].get("url", "")).removeprefix("remote://").partition("/")[0]


def _comes_along(repo: Repository, value: str) -> bool:
    """Whether a path leads into the clone; DVC takes it relative to its configuration."""
    path = Path(os.path.realpath(repo.root / ".dvc" / Path(value).expanduser()))
    return path.is_relative_to(os.path.realpath(repo.history.root))


@dataclass(frozen=True, slots=True, kw_only=True)
class AddPlan:
    """A remote that is to be added."""

    name: str
    url: str
    default: bool
    tier: Tier


def plan_add(repo: Repository, name: str, url: str, *, default: bool = False, tier: Tier | None = None) -> AddPlan:
    """Look whether a remote can be added; change nothing.

    Args:
        repo: the repository.
        name: of the remote.
        url: as DVC takes it.
        default: whether checkpoints go there from now on.
        tier: what it is for; None for what it was for, or warm.

    Raises:
        UsageError: a cold one cannot be the default; the name or the URL cannot be used, with which DVC would read its
            configuration no more.
        WouldOverwrite: there is one of that name with another URL.
    """
    _check_name(name)
    _check_scheme(url)
    url = as_dvc_writes(url, repo.root)
    there = repo.dvc_config.remotes.get(name)
    if there is not None and str(there.get("url")) != url:
        raise WouldOverwrite(
            f"there is a remote '{printable(name)}' already",
            why=f"its URL is {printable(str(there.get('url')))}",
            next_step=f"choose another name, or 'dvc remote modify {printable(name)} url URL'",
        )
    tier = tier or tier_of(repo, name)
    if tier == "cold" and (default or name in (repo.config.remote, repo.dvc_config.default_remote)):
        raise UsageError(
            f"remote '{printable(name)}' cannot be cold and the default",
            why="what is pushed goes to the default one, and a cold one is for the archive",
            next_step="make another one the default, or this one warm",
        )
    others = any(one.tier == "warm" for one in known(repo))
    return AddPlan(name=name, url=url, default=default or (tier == "warm" and not others), tier=tier)


_SCHEMES: Final = frozenset(
    (
        "",
        "file",
        "remote",
        "s3",
        "gs",
        "azure",
        "oss",
        "ssh",
        "hdfs",
        "webhdfs",
        "http",
        "https",
        "webdav",
        "webdavs",
        "gdrive",
    )
)
"""That DVC's configuration may have."""


def _check_name(name: str) -> None:
    if not is_remote_name(name):
        raise UsageError(
            f"'{printable(name)}' cannot be the name of a remote",
            why="it has at most 64 letters, digits, '.', '_', '-', a letter first",
            next_step="choose another one",
        )


def _check_scheme(url: str) -> None:
    scheme = url.partition("://")[0] if "://" in url else ""
    if scheme not in _SCHEMES:
        raise UsageError(
            f"cannot add a remote at '{printable(url)}'",
            why=f"DVC knows no '{printable(scheme)}://'",
            next_step=f"use one of {', '.join(sorted(_SCHEMES - {''}))}, or a path",
        )


def add(repo: Repository, plan: AddPlan) -> Remote:
    """Add a remote to `.dvc/config`, and what it is for to `ckpt.yaml`; and open it.

    Raises:
        BadConfig: `ckpt.yaml` cannot be changed.
        StorageError: it cannot be opened, or the disk is full.
    """
    if plan.tier != tier_of(repo, plan.name):  # first, so that nobody takes a cold one for a warm one
        tier = None if plan.tier == "warm" else plan.tier
        configuration.write_value(repo.root, ("remotes", plan.name, "tier"), tier)
        repo.forget_config()
    dvc.add_remote(repo.root, plan.name, plan.url, default=plan.default)
    repo.forget_dvc_config()
    return open_any(repo, plan.name)


def as_dvc_writes(url: str, root: Path) -> str:
    """A relative path is kept relative to `.dvc`, as by `dvc remote add`; anything else stays as it is."""
    if "://" in url or Path(url).expanduser().is_absolute():
        return url
    return os.path.relpath(Path(url).absolute(), root / ".dvc")
