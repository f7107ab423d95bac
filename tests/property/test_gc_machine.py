"""Three clones, one hub and one store, and whatever people do with them, in any order: nothing that is needed is ever lost.

Git, stores and collections are real. What must be there is worked out by `tests/support/gc_world.py` without ckptvcs.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import hypothesis
import pygit2
import pytest
from hypothesis import HealthCheck
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from ckptvcs import Repo
from ckptvcs.errors import CkptvcsError, Conflict, LockHeld, MissingObject, NotFound
from ckptvcs.porcelain import account, fetch, push, rescue
from ckptvcs.storage.folder_remote import FolderRemote
from ckptvcs.storage.removal import FolderRemoval
from ckptvcs.storage.sidefiles import FolderSide
from tests.support.gc_world import CLONES, Scene, memory, state, template
from tests.support.places import Place

SOMEBODY = pygit2.Signature("Test", "test@example.com", 1, 0)
LONG = 10
"""Parts that the long run comes in, each as long as it takes one worker some minutes."""


class Interrupted(BaseException):
    """The process is gone."""


class Fuse:
    """Lets calls to a store pass, and the process die at one of them."""

    left: int | None = None

    def burn(self) -> bool:
        """Whether this is the call at which it dies."""
        if self.left is None:
            return False
        self.left -= 1
        return self.left < 0


FUSE = Fuse()


def frail(real: Callable[..., Any]) -> Callable[..., Any]:
    """The same, which may die before it, or when the first half of the objects are done."""

    def act(self: object, first: Any, *args: Any, **options: Any) -> Any:
        if not FUSE.burn():
            return real(self, first, *args, **options)
        if not isinstance(first, (str, bytes)) and isinstance(first, Iterable):
            real(self, list(first)[::2], *args, **options)
        raise Interrupted

    return act


clones = st.sampled_from(CLONES)
branches = st.sampled_from(["main", "exp"])
few = st.integers(0, 3)
EXPECTED = (Conflict, NotFound, MissingObject)
"""What users are told when others were faster, or when what they want is no more."""


class Machine(RuleBasedStateMachine):
    """One example."""

    place: ClassVar[Place]
    folder: ClassVar[Path]

    def __init__(self) -> None:
        super().__init__()
        self.scene = Scene.copy(self.place, self.folder)
        self.at_hub: dict[str, frozenset[str]] = {}
        self.here: dict[str, dict[str, frozenset[str]]] = {clone: {} for clone in CLONES}
        self.held: dict[str, frozenset[str]] = {}
        self.died: set[str] = set()
        """Clones whose collections died less than an hour ago: they may have left their lock in the store."""
        self.unique = 0

    # -------------------------------------------------------------------------------------------------- what people do

    @rule(clone=clones, branch=branches, model=few, optim=few, also_push=st.booleans())
    def commit(self, clone: str, branch: str, model: int, optim: int, also_push: bool) -> None:
        with Repo(self.scene.folder / clone) as repo:
            repo.commit(state(model, optim), branch=branch, step=10, workspace=False)
        if also_push:
            self._push(clone, branch)

    @rule(clone=clones, branch=branches)
    def push(self, clone: str, branch: str) -> None:
        self._push(clone, branch)

    def _push(self, clone: str, branch: str) -> bool:
        repo = self.scene.open(clone)
        with contextlib.suppress(*EXPECTED):
            push.execute(repo, push.plan_push(repo, [branch]))
            hub = self.scene.hub
            tip = hub.references[f"refs/heads/{branch}"].peel(pygit2.Commit)
            for name in self.scene.needed_at(tip):
                assert self.scene.is_there(self.scene.store, name), f"a push moved {branch} without {name}"
            return True
        return False

    @rule(clone=clones, branch=branches)
    def take_theirs(self, clone: str, branch: str) -> None:
        fetch.fetch(self.scene.open(clone), "origin")
        git = self.scene.git(clone)
        if (theirs := f"refs/remotes/origin/{branch}") in git.references:
            target = git.references[theirs].target
            git.references.create(f"refs/heads/{branch}", target, force=True)

    @rule(clone=clones, branch=branches)
    def get_objects(self, clone: str, branch: str) -> None:
        repo = self.scene.open(clone)
        with contextlib.suppress(*EXPECTED):
            fetch.fetch_objects(repo, fetch.plan_objects(repo, branch))

    @rule(branch=branches)
    def delete_at_hub(self, branch: str) -> None:
        with contextlib.suppress(KeyError):
            self.scene.hub.references.delete(f"refs/heads/{branch}")

    @rule(clone=clones, branch=branches)
    def delete_here(self, clone: str, branch: str) -> None:
        with contextlib.suppress(KeyError):
            self.scene.git(clone).references.delete(f"refs/heads/{branch}")

    @rule(clone=clones, branch=branches, back=st.integers(0, 2), number=few)
    def tag(self, clone: str, branch: str, back: int, number: int) -> None:
        repo = self.scene.open(clone)
        with contextlib.suppress(*EXPECTED, CkptvcsError), Repo(repo.root) as face:
            face.tag(f"t{number}", f"{branch}~{back}")
            push.execute(repo, push.plan_push(repo, [f"t{number}"]))

    @rule(clone=clones, branch=branches, back=st.integers(1, 2))
    def hold(self, clone: str, branch: str, back: int) -> None:
        git = self.scene.git(clone)
        with contextlib.suppress(*EXPECTED, KeyError), Repo(self.scene.folder / clone) as repo:
            repo.hold(f"{branch}~{back}", why="a paper")
            commit = git.revparse_single(f"{branch}~{back}").peel(pygit2.Commit)
            names = self.scene.needed_at(commit)
            if self._push(clone, branch) and self._whole(names):
                self.held[f"hold {commit.id}"] = names

    @rule(clone=clones, branch=branches, back=st.integers(1, 2))
    def release(self, clone: str, branch: str, back: int) -> None:
        git = self.scene.git(clone)
        with contextlib.suppress(*EXPECTED, KeyError), Repo(self.scene.folder / clone) as repo:
            commit = git.revparse_single(f"{branch}~{back}")
            repo.release(f"{branch}~{back}")
            self.held.pop(f"hold {commit.id}", None)

    # ------------------------------------------------------------------------------------------------ what others track

    def _foreign(self, clone: str, model: int | None) -> str:
        """The name of an object in the cache: one that a checkpoint has as well, or one of nobody else."""
        cache = self.scene.cache(clone)
        ours = sorted(p.parent.name + p.name for p in cache.glob("??/*") if not p.name.endswith(".dir"))
        if model is not None and ours:
            return ours[model % len(ours)]
        self.unique += 1
        name = self.scene.write_object(cache, b"data %d of a user" % self.unique)
        self.scene.foreign.add(f"{clone}:{name}")
        return name

    @staticmethod
    def _pointer(name: str) -> bytes:
        return f"outs:\n- md5: {name}\n  size: 1\n  hash: md5\n  path: data\n".encode()

    @rule(clone=clones, model=st.none() | st.integers(0, 40), how=st.sampled_from(["staged", "untracked", "stash"]))
    def track_data_here(self, clone: str, model: int | None, how: str) -> None:
        name = self._foreign(clone, model)
        git, path = self.scene.git(clone), f"data-{name[:6]}.dvc"
        (self.scene.folder / clone / path).write_bytes(self._pointer(name))
        if how != "untracked":
            git.index.add(path)
            git.index.write()
        if how == "stash":
            git.stash(SOMEBODY)
        elif how == "staged":
            (self.scene.folder / clone / path).unlink()
        self.scene.named_here[clone].add(name)

    @rule(clone=clones, branch=branches, model=st.none() | st.integers(0, 40))
    def share_data(self, clone: str, branch: str, model: int | None) -> None:
        """As `dvc add`, `git commit`, `dvc push` and `git push` do: they know nothing of leases and marks."""
        git, ref = self.scene.git(clone), f"refs/heads/{branch}"
        if ref not in git.references:
            return
        name = self._foreign(clone, model)
        tip = git.references[ref].peel(pygit2.Commit)
        builder = git.TreeBuilder(tip.tree)
        builder.insert(f"data-{name[:6]}.dvc", git.create_blob(self._pointer(name)), pygit2.enums.FileMode.BLOB)
        commit = git.create_commit(None, SOMEBODY, SOMEBODY, "data", builder.write(), [tip.id])
        git.references[ref].set_target(commit, "commit: data")
        data = (self.scene.cache(clone) / name[:2] / name[2:]).read_bytes()
        self.scene.write_object(self.scene.store, data)
        if f"{clone}:{name}" in self.scene.foreign:
            self.scene.foreign.add(f"store:{name}")
        with contextlib.suppress(pygit2.GitError):  # theirs is ahead
            git.remotes["origin"].push([ref])

    @rule()
    def leave_an_object_in_the_store(self) -> None:
        self.unique += 1
        name = self.scene.write_object(self.scene.store, b"data %d of nobody" % self.unique)
        self.scene.foreign.add(f"store:{name}")

    # ---------------------------------------------------------------------------------------------------- collections

    def _collect(self, clone: str, places: tuple[str, ...]) -> None:
        try:
            self.scene.collect(clone, places)
        except LockHeld:
            assert self.died - {clone}, "nobody else was at work"

    def _pass_time(self) -> None:
        self.scene.pass_time()
        self.died.clear()

    @rule(clone=clones, places=st.sampled_from([(), ("hot",), ("bucket",)]))
    def collect(self, clone: str, places: tuple[str, ...]) -> None:
        self._collect(clone, places)

    @rule(clone=clones, places=st.sampled_from([(), ("hot",), ("bucket",)]))
    def collect_later(self, clone: str, places: tuple[str, ...]) -> None:
        self._collect(clone, places)
        self._pass_time()
        self._collect(clone, places)

    @rule(clone=clones, after=st.integers(0, 8), later=st.booleans())
    def collect_and_die(self, clone: str, after: int, later: bool) -> None:
        if later:
            self._pass_time()
        with self.dying(after):
            self._collect(clone, ())
            return
        self.died.add(clone)

    @rule(clone=clones, branch=branches, after=st.integers(0, 8))
    def push_and_die(self, clone: str, branch: str, after: int) -> None:
        with self.dying(after), contextlib.suppress(*EXPECTED):
            repo = self.scene.open(clone)
            push.execute(repo, push.plan_push(repo, [branch]))

    @contextlib.contextmanager
    def dying(self, after: int) -> Iterator[None]:
        FUSE.left = after
        try:
            with contextlib.suppress(Interrupted):
                yield
        finally:
            FUSE.left = None

    @rule()
    def time_passes(self) -> None:
        self._pass_time()

    @rule(clone=clones, branch=branches, back=st.integers(1, 2))
    def bring_back(self, clone: str, branch: str, back: int) -> None:
        repo = self.scene.open(clone)
        with contextlib.suppress(*EXPECTED):
            rescue.execute(repo, rescue.plan(repo, f"{branch}~{back}"))
            git = self.scene.git(clone)
            for name in self.scene.needed_at(git.revparse_single(f"{branch}~{back}").peel(pygit2.Commit)):
                roots = (self.scene.store, self.scene.cache(clone))
                assert any(self.scene.is_there(root, name) for root in roots), f"{name} was not rescued"

    # ------------------------------------------------------------------------------------------------- what must hold

    def _whole(self, names: Iterable[str], root: Path | None = None) -> bool:
        return all(self.scene.is_there(root or self.scene.store, name) for name in names)

    @staticmethod
    def _still(
        known: dict[str, frozenset[str]], now: dict[str, frozenset[str]], whole: Callable[[frozenset[str]], bool]
    ) -> dict[str, frozenset[str]]:
        """What is needed and was there when it came to be needed; the rest was gone before."""
        return {why: names for why, names in now.items() if why in known or whole(names)}

    @invariant()
    def nothing_is_lost(self) -> None:
        scene = self.scene
        now = {**scene.kept_at_hub(), **{f"data {name}": frozenset({name}) for name in scene.foreign_at_hub()}}
        self.at_hub = self._still(self.at_hub, now, self._whole)
        for why, names in {**self.at_hub, **self.held}.items():
            lost = [name for name in names if not scene.is_there(scene.store, name)]
            assert not lost, f"the store lost {lost}, which '{why}' needs"
        for clone in CLONES:
            cache, git = scene.cache(clone), scene.git(clone)
            tips = {f"{ref} {tip.id}": scene.needed_at(tip) for ref, tip in scene.tips(git)}
            self.here[clone] = self._still(self.here[clone], tips, lambda names, root=cache: self._whole(names, root))
            for why, names in self.here[clone].items():
                lost = [name for name in names if not scene.is_there(cache, name)]
                assert not lost, f"the cache of {clone} lost {lost}, which '{why}' needs"
            lost = [name for name in scene.named_here[clone] if not scene.is_there(cache, name)]
            assert not lost, f"the cache of {clone} lost {lost}, which files of DVC name"

    @invariant()
    def nothing_foreign_is_deleted(self) -> None:
        for where, _, name in (one.partition(":") for one in self.scene.foreign):
            root = self.scene.store if where == "store" else self.scene.cache(where)
            assert self.scene.is_there(root, name), f"{where} lost {name}, which is none of ours"

    def teardown(self) -> None:
        for clone in CLONES[:1]:
            assert account.read(self.scene.open(clone)).flaws == ()


@pytest.fixture(scope="module")
def base() -> Iterator[Place]:
    folder = memory()
    try:
        yield template(folder / "base")
    finally:
        shutil.rmtree(folder)


def run(base: Place, monkeypatch: pytest.MonkeyPatch, *, examples: int, steps: int, seed: int) -> None:
    monkeypatch.setattr("os.fsync", lambda _: None)  # no power is cut here
    for cls, names in (
        (FolderSide, ("write", "remove")),
        (FolderRemoval, ("trash", "remove", "empty", "bring_back")),
        (FolderRemote, ("upload",)),
    ):
        for name in names:
            monkeypatch.setattr(cls, name, frail(getattr(cls, name)))
    monkeypatch.setattr(Machine, "place", base, raising=False)
    monkeypatch.setattr(Machine, "folder", base.folder.with_name("here"), raising=False)
    settings = hypothesis.settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        database=None,
        derandomize=False,
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(hypothesis.seed(seed)(Machine), settings=settings)


def test_nothing_needed_is_lost_and_nothing_foreign_deleted(base: Place, monkeypatch: pytest.MonkeyPatch):
    run(base, monkeypatch, examples=200, steps=6, seed=0)


@pytest.mark.long
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("part", range(LONG))
def test_nothing_needed_is_lost_in_many_worlds(base: Place, monkeypatch: pytest.MonkeyPatch, part: int):
    run(base, monkeypatch, examples=10_000 // LONG, steps=10, seed=1 + part)
