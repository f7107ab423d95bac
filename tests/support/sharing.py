"""A repository that is shared: through a bare one, over some transport of git, and a store of some kind."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.support.states import training_state
from tests.support.world import World, run

STORES = ["folder", "s3", "ssh", "webdav", "ceph", "azure"]
TRANSPORTS = ["path", "file", "ssh", "http"]


@dataclass
class Store:
    """A place for objects, and the options with which DVC gets in."""

    url: str
    options: dict[str, str] = field(default_factory=dict)


@dataclass
class Hub:
    """A bare repository, and the environment in which git gets in."""

    url: str
    bare: Path
    env: dict[str, str] = field(default_factory=dict)


@dataclass
class Shared:
    """A repository, the bare one that it is shared through, and a store for objects."""

    world: World
    hub: Hub
    store: Store

    def clone(self, where: Path) -> World:
        run(["git", "clone", "-q", self.hub.url, str(where)], self.world.root, env=self.hub.env)
        world = World(where)
        for key, value in (("user.name", "Other"), ("user.email", "other@example.com")):
            world.git("config", key, value)
        return world


def bare(world: World, where: Path) -> Path:
    world.git("init", "-q", "--bare", "-b", "main", where)
    return where


def hub_at(world: World, folder: Path) -> Hub:
    """A bare repository that is reached by its path."""
    path = bare(world, folder / "hub.git")
    return Hub(str(path), path)


def hub(request: pytest.FixtureRequest, kind: str, world: World, folder: Path) -> Hub:
    """A bare repository, as it is seen over a transport of git. The variables that it takes are set for all of the test."""
    path = bare(world, folder / "hub.git")
    if kind == "http":
        server = request.getfixturevalue("git_http_server")
        served = bare(world, server.folder / f"{folder.name}.git")
        return Hub(server.url(served), served)
    if kind == "ssh":
        server = request.getfixturevalue("ssh_server")
        for name, value in server.git.items():
            request.getfixturevalue("monkeypatch").setenv(name, value)
        return Hub(server.url(path), path, server.git)
    return Hub(f"file://{path}" if kind == "file" else str(path), path)


def store(request: pytest.FixtureRequest, kind: str, folder: Path) -> Store:
    """A store that nobody else uses."""
    if kind == "folder":
        return Store(str(folder / "store"))
    server = request.getfixturevalue(f"{kind}_server")
    url = {
        "s3": lambda: f"s3://bucket/{folder.name}",
        "ceph": lambda: f"s3://bucket/{folder.name}",
        "ssh": lambda: server.url(folder / "store"),
        "webdav": lambda: server.url(folder.name),
        "azure": lambda: f"azure://container/{folder.name}",
    }[kind]()
    return Store(url, server.options)


def share(world: World, hub: Hub, store: Store, name: str = "share") -> Shared:
    """Tell git and DVC of both, as their users do."""
    world.git("remote", "add", "origin", hub.url)
    add_store(world, store, name)
    world.git("commit", "-qam", "a remote")
    return Shared(world, hub, store)


def add_store(world: World, store: Store, name: str = "share") -> None:
    world.dvc("remote", "add", "-d", name, store.url)
    for option, value in store.options.items():
        world.dvc("remote", "modify", name, option, value)


def commit(world: World, seed: int, **options: Any) -> Any:
    state = training_state(seed, width=16)
    with world.repo() as repo:
        repo.commit(state, step=seed, message=f"step {seed}", **options)
    return state
