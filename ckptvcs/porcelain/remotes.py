"""The remotes of a repository: which there are, opening one, adding one."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ckptvcs.errors import UsageError, WouldOverwrite
from ckptvcs.paths import printable
from ckptvcs.storage.dvc import config as dvc
from ckptvcs.storage.dvc import remotes as door
from ckptvcs.storage.objects import LocalStore
from ckptvcs.storage.remotes import FilesystemRemote, FolderRemote

if TYPE_CHECKING:
    from ckptvcs.porcelain.repo import Repository
    from ckptvcs.storage.remotes import Probe, Remote


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """A remote that DVC's configuration has."""

    name: str
    url: str
    default: bool


def known(repo: Repository) -> list[Known]:
    """Every remote, by name."""
    config = repo.dvc_config
    default = default_name(repo)
    return [
        Known(name=name, url=str(options.get("url", "")), default=name == default)
        for name, options in sorted(config.remotes.items())
    ]


def default_name(repo: Repository) -> str | None:
    """The remote that checkpoints go to: that of ckpt.yaml, else DVC's default, else the only one."""
    config = repo.dvc_config
    only = next(iter(config.remotes)) if len(config.remotes) == 1 else None
    return repo.config.remote or config.default_remote or only


def open_remote(repo: Repository, name: str | None = None) -> Remote:
    """Open a remote.

    Args:
        repo: the repository.
        name: of the remote; None for the one that checkpoints go to.

    Raises:
        UsageError: none is named, and there is no default.
        NotFound: no remote has that name.
        BadConfig, StorageError: it cannot be opened.
    """
    name = name or default_name(repo)
    if name is None:
        raise UsageError(
            "there is no remote for checkpoints",
            why="DVC's configuration has none, or several of which none is the default",
            next_step="run 'ckpt remote add NAME URL --default'",
        )
    folder = door.local_folder(repo.root, repo.dvc_config, name)
    if folder is not None:
        return FolderRemote(name, LocalStore(folder / "files" / "md5"))
    return FilesystemRemote(name, *door.open_filesystem(repo.root, repo.dvc_config, name))


@dataclass(frozen=True, slots=True, kw_only=True)
class AddPlan:
    """A remote that is to be added."""

    name: str
    url: str
    default: bool


def plan_add(repo: Repository, name: str, url: str, *, default: bool = False) -> AddPlan:
    """Look whether a remote can be added; change nothing.

    Raises:
        WouldOverwrite: there is one of that name with another URL.
    """
    url = as_dvc_writes(url, repo.root)
    there = repo.dvc_config.remotes.get(name)
    if there is not None and str(there.get("url")) != url:
        raise WouldOverwrite(
            f"there is a remote '{printable(name)}' already",
            why=f"its URL is {printable(str(there.get('url')))}",
            next_step=f"choose another name, or 'dvc remote modify {printable(name)} url URL'",
        )
    return AddPlan(name=name, url=url, default=default or not repo.dvc_config.remotes)


def add(repo: Repository, plan: AddPlan) -> Probe:
    """Add a remote to `.dvc/config`, and try what it can do with a throw-away object.

    Raises:
        StorageError: it does not let itself be written to, read or listed; its options stay in the configuration, to be
            mended with `dvc remote modify`.
    """
    dvc.add_remote(repo.root, plan.name, plan.url, default=plan.default)
    repo.forget_dvc_config()
    return open_remote(repo, plan.name).probe(repo.now().timestamp())


def as_dvc_writes(url: str, root: Path) -> str:
    """A relative path is kept relative to `.dvc`, as by `dvc remote add`; anything else stays as it is."""
    if "://" in url or Path(url).expanduser().is_absolute():
        return url
    return os.path.relpath(Path(url).absolute(), root / ".dvc")
