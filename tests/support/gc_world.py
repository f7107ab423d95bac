"""Three clones, their hub and their store, small and in memory where possible, with what is known of who needs what.

What must be there is worked out from git (read by libgit2 alone), JSON and what the test itself did; ckptvcs is not asked.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy
import pygit2
import yaml

from ckptvcs.errors import NeedsPerson
from ckptvcs.porcelain import fetch, gc, push
from ckptvcs.porcelain.repo import Repository
from tests.support.places import Place, point_to
from tests.support.world import World

POLICY = "retain:\n  keep: [{keep_last: 1}]\n  grace: 24h\n  trash: 1d\n"
CLONES = ("a", "b", "c")
HOURS = 25


_KNOWN: dict[pygit2.Oid, frozenset[str]] = {}
"""By the tree that holds them, the objects of checkpoints: git names it by what is in it."""


def memory() -> Path:
    """A new folder, in memory where there is a file system for that."""
    shm = Path("/dev/shm")
    return Path(tempfile.mkdtemp(prefix="ckptvcs-", dir=shm if os.access(shm, os.W_OK) else None))


def state(model: int, optim: int, size: int = 8) -> dict[str, Any]:
    return {"model": {"w": numpy.arange(size) + 100 * model}, "optim": {"m": numpy.arange(size) - 100 * optim - 1}}


def template(folder: Path) -> Place:
    """Two branches with checkpoints of which only the newest are kept, a large one so that little of all goes, three clones."""
    found = Place.create(folder)
    world = found.world
    point_to(world, "../../store", {})
    with (world.root / "ckpt.yaml").open("a") as file:
        file.write(POLICY)
    world.git("add", "ckpt.yaml")
    world.git("commit", "-qm", "a policy")
    with world.repo() as repo:
        repo.commit(state(50, 50, size=20_000), branch="large", step=0)
        for branch in ("main", "exp"):
            for n in range(3):
                repo.commit(state(n, 2 - n if branch == "exp" else n), branch=branch, step=n, workspace=False)
        push.execute(repo._repo, push.plan_push(repo._repo, everything=True))
    for name in CLONES:
        clone = found.make_clone(name)
        point_to(clone, "../../store", {})
        clone.git("switch", "-q", "-c", "idle")
        clone.git("branch", "-q", "exp", "origin/exp")
        with clone.repo() as repo:
            plan = fetch.plan_objects(repo._repo, "origin/main")
            fetch.fetch_objects(repo._repo, plan)
    shutil.rmtree(found.folder / "repo")
    shutil.rmtree(found.folder / "store/.ckptvcs/repositories")  # it is where the hub of a copy is not
    return found


@dataclass
class Scene:
    """One example: a copy of the template."""

    folder: Path
    foreign: set[str] = field(default_factory=set)
    """Objects that none of our checkpoints has, in the store or in a cache."""
    named_here: dict[str, set[str]] = field(default_factory=lambda: {name: set() for name in CLONES})
    """What foreign files that are not at the hub name, by the clone that has them."""

    @classmethod
    def copy(cls, of: Place, to: Path) -> Scene:
        shutil.rmtree(to, ignore_errors=True)
        shutil.copytree(of.folder, to, symlinks=True)
        for clone in CLONES:
            writer = to / clone / ".git/ckptvcs/writer.json"
            if writer.exists():  # it knows a copy of its folder from the folder itself, and here they are to be one
                said = json.loads(writer.read_bytes())
                writer.write_text(json.dumps({**said, "folder": writer.parent.stat().st_ino}))
        return cls(to)

    # ------------------------------------------------------------------------------------------------------------- doing

    def world(self, clone: str) -> World:
        return World(self.folder / clone)

    def open(self, clone: str) -> Repository:
        return Repository.open(self.folder / clone)

    def git(self, clone: str) -> pygit2.Repository:
        return pygit2.Repository(str(self.folder / clone))

    @property
    def hub(self) -> pygit2.Repository:
        return pygit2.Repository(str(self.folder / "hub.git"))

    @property
    def store(self) -> Path:
        return self.folder / "store/files/md5"

    def cache(self, clone: str) -> Path:
        return self.folder / clone / ".dvc/cache/files/md5"

    def pass_time(self) -> None:
        """By the clock of the store, and of every cache."""
        for root in (self.folder / "store", *(self.folder / clone / ".dvc/cache" for clone in CLONES)):
            for folder, _, names in os.walk(root):
                for name in names:
                    path = os.path.join(folder, name)
                    os.utime(path, (os.stat(path).st_mtime - HOURS * 3600,) * 2)

    def collect(self, clone: str, places: Collection[str]) -> gc.Report:
        """As a user who agrees to what he is asked."""
        try:
            return gc.collect(self.open(clone), gc.Options(places=tuple(places)))
        except NeedsPerson as err:
            agreed = next((int(word) for word in err.next_step.split() if word.isdigit()), None)
            return gc.collect(self.open(clone), gc.Options(places=tuple(places), yes_delete=agreed))

    def write_object(self, root: Path, data: bytes) -> str:
        """As DVC does."""
        name = hashlib.md5(data).hexdigest()
        path = root / name[:2] / name[2:]
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            path.write_bytes(data)
            path.chmod(0o444)
        return name

    # ----------------------------------------------------------------------------------------------------------- looking

    def is_there(self, root: Path, name: str) -> bool:
        return os.path.isfile(f"{root}/{name[:2]}/{name[2:]}")

    @staticmethod
    def needed_at(commit: pygit2.Commit) -> frozenset[str]:
        """The objects of the checkpoint that a commit holds."""
        folder = commit.tree / "checkpoints"
        if folder.id not in _KNOWN:
            _KNOWN[folder.id] = Scene._read(folder)
        return _KNOWN[folder.id]

    @staticmethod
    def _read(folder: Any) -> frozenset[str]:
        manifest, pointer = json.loads((folder / "model.json").data), yaml.safe_load((folder / "model.dvc").data)
        files = [file for component in manifest["components"] for file in component["files"]] + manifest["files"]
        return frozenset({file["md5"] for file in files} | {pointer["outs"][0]["md5"]})

    def tips(self, repo: pygit2.Repository) -> Iterator[tuple[str, pygit2.Commit]]:
        for ref in repo.references:
            if ref.startswith(("refs/heads/", "refs/tags/")):
                commit = repo.references[ref].peel(pygit2.Commit)
                if "checkpoints" in commit.tree:
                    yield ref, commit

    def kept_at_hub(self) -> dict[str, frozenset[str]]:
        """What the newest checkpoint of every branch, and every tag, needs."""
        hub = self.hub
        return {f"{ref} {commit.id}": self.needed_at(commit) for ref, commit in self.tips(hub)}

    def foreign_at_hub(self) -> set[str]:
        """What files of DVC at the tips of the hub name that are none of ours."""
        hub, found = self.hub, set[str]()
        for _, commit in self.tips(hub):
            for entry in commit.tree:
                if (entry.name or "").endswith(".dvc") and isinstance(entry, pygit2.Blob):
                    found.add(yaml.safe_load(entry.data)["outs"][0]["md5"])
        return found
