"""The hook of a server: golden marks stay, the ledger only grows. The server has git and a shell, and nothing of ours."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support import oracle, servers
from tests.support.world import World, run

ZERO = "0" * 40
GOLDEN = "refs/tags/golden/base"
LEDGER = "refs/ckptvcs/ledger/" + "a" * 16


@pytest.fixture
def hub(tmp_path: Path) -> Path:
    """A bare repository with the hook."""
    path = tmp_path / "hub.git"
    run(["git", "init", "-q", "--bare", "-b", "main", str(path)], tmp_path)
    World(tmp_path).ckpt("-C", path, "hooks", "install", "--server")
    return path


@pytest.fixture
def clone(hub: Path, tmp_path: Path) -> World:
    """Commits 1 to 3 on `main`, a golden mark and a chain of the ledger with two entries; all of it is pushed."""
    root = tmp_path / "clone"
    run(["git", "init", "-q", str(root)], tmp_path)
    world = World(root)
    world.git("remote", "add", "origin", hub.as_uri())
    for n in (1, 2, 3):
        world.git("commit", "-q", "--allow-empty", "-m", str(n))
    world.git("tag", "-a", "-m", "golden", "golden/base", "main~1")
    entries = [world.git("commit-tree", "-m", "entry 1", "main^{tree}")]
    entries.append(world.git("commit-tree", "-m", "entry 2", "-p", entries[0], "main^{tree}"))
    world.git("update-ref", LEDGER, entries[1])
    world.git("push", "-q", "origin", "main", GOLDEN, LEDGER)
    return world


@pytest.fixture(params=["file", "path", "ssh"])
def reached(request: pytest.FixtureRequest, clone: World, hub: Path, tmp_path: Path) -> Iterator[World]:
    """The clone, which reaches the hub in one of several ways."""
    if request.param == "ssh":
        if not servers.has_sshd():
            pytest.skip("no sshd")
        with servers.ssh(tmp_path / "sshd") as server, pytest.MonkeyPatch.context() as patch:
            for name, value in server.git.items():
                patch.setenv(name, value)
            clone.git("remote", "set-url", "origin", server.url(hub))
            yield clone
        return
    clone.git("remote", "set-url", "origin", hub.as_uri() if request.param == "file" else str(hub))
    yield clone


def refs(hub: Path) -> str:
    return oracle.git(hub, "for-each-ref")


def for_ever(hub: Path) -> str:
    """The refs that the hook is about."""
    return oracle.git(hub, "for-each-ref", "refs/tags/golden", "refs/ckptvcs")


def other_chain(world: World) -> str:
    return world.git("commit-tree", "-m", "other", "main^{tree}")


def shorter_chain(world: World) -> str:
    return world.git("rev-parse", f"{LEDGER}~1")


ATTACKS: dict[str, Callable[[World], list[str]]] = {
    "golden: moved by force": lambda w: ["--force", f"main:{GOLDEN}"],
    "golden: moved by force, forward": lambda w: [f"+main:{GOLDEN}"],
    "golden: replaced by a lightweight tag of the same commit": lambda w: ["-f", f"main~1:{GOLDEN}"],
    "golden: replaced by an annotated tag of the same commit": lambda w: ["-f", f"{annotated(w)}:{GOLDEN}"],
    "golden: deleted": lambda w: [f":{GOLDEN}"],
    "golden: deleted by force": lambda w: ["--force", "--delete", GOLDEN],
    "golden: mirrored away": lambda w: ["--mirror"],
    "golden: pruned": lambda w: ["--prune", "refs/heads/*:refs/tags/*"],
    "ledger: deleted": lambda w: [f":{LEDGER}"],
    "ledger: cut": lambda w: ["--force", f"{shorter_chain(w)}:{LEDGER}"],
    "ledger: rewritten": lambda w: ["--force", f"{other_chain(w)}:{LEDGER}"],
    "ledger: replaced by what is no commit": lambda w: ["--force", f"{w.git('rev-parse', 'main^{tree}')}:{LEDGER}"],
    "ledger: replaced by a tag": lambda w: ["--force", f"golden/base:{LEDGER}"],
    "ledger: replaced by a tag of a longer chain": lambda w: ["--force", f"{annotated(w, longer_chain(w))}:{LEDGER}"],
}


def longer_chain(world: World) -> str:
    return world.git("commit-tree", "-m", "entry 3", "-p", LEDGER, "main^{tree}")


def annotated(world: World, what: str = "main~1") -> str:
    world.git("tag", "-a", "-m", "forged", "forged", what)
    forged = world.git("rev-parse", "refs/tags/forged")
    world.git("tag", "-d", "forged")
    return forged


@pytest.mark.parametrize("attack", ATTACKS)
def test_what_is_for_ever_is_neither_moved_nor_deleted(attack: str, clone: World, hub: Path):
    if "mirrored" in attack:
        clone.git("tag", "-d", "golden/base")
    before = for_ever(hub)

    said = run(["git", "push", "origin", *ATTACKS[attack](clone)], clone.root, status=1).err

    assert for_ever(hub) == before
    assert "remote: ckptvcs: 'refs/" in said
    assert "(hook declined)" in said


@pytest.mark.parametrize("attack", ATTACKS)
def test_without_the_hook_each_of_these_succeeds(attack: str, clone: World, hub: Path):
    """So it is the hook that holds them; `receive.denyNonFastForwards` and `denyDeletes` are about branches."""
    (hub / "hooks/update").unlink()
    oracle.git(hub, "config", "receive.denyNonFastForwards", "true")
    oracle.git(hub, "config", "receive.denyDeletes", "true")
    if "mirrored" in attack:
        clone.git("tag", "-d", "golden/base")
    before = for_ever(hub)

    run(["git", "push", "origin", *ATTACKS[attack](clone)], clone.root)

    assert for_ever(hub) != before


@pytest.mark.parametrize("attack", ["golden: moved by force", "golden: deleted", "ledger: cut", "ledger: deleted"])
def test_it_holds_over_every_transport(attack: str, reached: World, hub: Path):
    before = refs(hub)

    run(["git", "push", "-q", "origin", *ATTACKS[attack](reached)], reached.root, status=1)

    assert refs(hub) == before
    reached.git("tag", "golden/new")
    longer = longer_chain(reached)
    reached.git("push", "-q", "origin", "golden/new", f"{longer}:{LEDGER}", f"{longer}:{LEDGER[:-1]}b")
    assert longer in for_ever(hub)


def test_neither_the_environment_nor_a_push_of_ours_goes_around_it(clone: World, hub: Path, tmp_path: Path):
    before = refs(hub)
    run(["git", "push", "-q", "origin", f":{GOLDEN}"], clone.root, status=1, env={"CKPT_NO_HOOKS": "1"})
    run(["git", "push", "-q", "--no-verify", "origin", f":{GOLDEN}"], clone.root, status=1)
    clone.ckpt("init")
    clone.git("tag", "-d", "golden/base")
    clone.git("tag", "golden/base", "main")

    done = clone.ckpt("push", "golden/base", status=None)

    assert done.status != 0
    assert "golden/base" in done.err
    assert refs(hub) == before


def test_a_mark_that_was_taken_away_cannot_be_made_again_elsewhere(clone: World, hub: Path):
    """Deleting in one push and making it anew in the next is moving it."""
    before = refs(hub)

    for spec in (f":{GOLDEN}", f"main:{GOLDEN}"):
        run(["git", "push", "-q", "origin", spec], clone.root, status=1)

    assert refs(hub) == before


def test_the_rest_of_a_push_goes_through_unless_it_is_atomic(clone: World, hub: Path):
    clone.git("commit", "-q", "--allow-empty", "-m", "4")
    before = refs(hub)

    run(["git", "push", "-q", "--atomic", "origin", "main", f":{GOLDEN}"], clone.root, status=1)
    assert refs(hub) == before
    run(["git", "push", "-q", "origin", "main", f":{GOLDEN}"], clone.root, status=1)

    assert oracle.git(hub, "rev-parse", "main") == clone.git("rev-parse", "main") + "\n"
    assert GOLDEN in refs(hub)


def test_branches_and_other_tags_are_not_its_business(clone: World, hub: Path):
    clone.git("tag", "v1")
    clone.git("tag", "milestone/m")
    clone.git("push", "-q", "origin", "v1", "milestone/m")

    clone.git("push", "-q", "-f", "origin", "main~2:main", "main~2:refs/tags/v1", ":refs/tags/milestone/m")

    assert oracle.git(hub, "rev-parse", "main", "v1").split() == [clone.git("rev-parse", "main~2")] * 2


# ---------------------------------------------------------------------------------------------- a client that lies


def pushed_by_hand(hub: Path, *commands: tuple[str, str, str]) -> str:
    """Speak git's protocol with a server that says only what we want it to hear: (old, new, ref). Its report."""
    lines = [f"{old} {new} {ref}".encode() for old, new, ref in commands]
    lines[0] += b"\0 report-status delete-refs atomic"
    asked = b"".join(f"{len(line) + 4:04x}".encode() + line for line in lines) + b"0000"
    if any(new != ZERO for _, new, _ in commands):  # a pack without objects: it has them already
        asked += subprocess.run(
            ["git", "pack-objects", "--stdout", "-q"], cwd=hub, input=b"", capture_output=True, check=True
        ).stdout
    done = subprocess.run(["git", "receive-pack", str(hub)], input=asked, capture_output=True, check=False)
    return (done.stdout.split(b"0000", 1)[1] + done.stderr).decode("utf-8", "replace")


@pytest.mark.parametrize("ref", [GOLDEN, LEDGER])
@pytest.mark.parametrize("old", ["zero", "main", "right"])
@pytest.mark.parametrize("new", ["zero", "other"])
def test_who_lies_about_what_is_there_gets_no_further(ref: str, old: str, new: str, clone: World, hub: Path):
    known = {
        "zero": ZERO,
        "main": oracle.git(hub, "rev-parse", "main").strip(),
        "other": oracle.git(hub, "rev-parse", "main~2").strip(),
        "right": oracle.git(hub, "rev-parse", ref).strip(),
    }
    before = refs(hub)

    said = pushed_by_hand(hub, (known[old], known[new], ref))

    assert f"ng {ref}" in said
    assert refs(hub) == before


def test_git_itself_would_delete_for_who_says_that_there_is_nothing(clone: World, hub: Path):
    """Why the hook does not believe the old value: this is the case that it alone holds."""
    (hub / "hooks/update").unlink()

    assert f"ok {GOLDEN}" in pushed_by_hand(hub, (ZERO, ZERO, GOLDEN))
    assert GOLDEN not in refs(hub)


def test_a_replacement_makes_no_chain_longer(clone: World, hub: Path):
    """A commit that git shows in place of another may have other parents."""
    forged = other_chain(clone)
    clone.git("push", "-q", "origin", f"{longer_chain(clone)}:refs/replace/{forged}", f"{forged}:refs/heads/forged")
    before = for_ever(hub)

    run(["git", "push", "-q", "-f", "origin", f"{forged}:{LEDGER}"], clone.root, status=1)

    assert for_ever(hub) == before
    fooled = ["git", "merge-base", "--is-ancestor", LEDGER, forged]
    assert run(fooled, hub).status == 0


# ----------------------------------------------------------------------------------------------------- installing it


def test_it_needs_git_and_a_shell_alone(clone: World, hub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "bin").mkdir()
    for name in ("git", "sh"):
        (tmp_path / "bin" / name).symlink_to(str(shutil.which(name)))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    before = refs(hub)

    run(["git", "push", "-q", "origin", f":{GOLDEN}"], clone.root, status=1)
    run(["git", "push", "-q", "-f", "origin", f"main:{GOLDEN}"], clone.root, status=1)
    run(["git", "push", "-q", "-f", "origin", f"{shorter_chain(clone)}:{LEDGER}"], clone.root, status=1)

    assert refs(hub) == before


def test_a_hook_that_is_there_goes_on_and_can_refuse_what_ours_lets_pass(clone: World, hub: Path):
    path = hub / "hooks/update"
    path.write_text("#!/bin/sh\ncase $1 in *secret*) exit 1;; esac\n")
    path.chmod(0o755)
    theirs = path.read_bytes()
    World(hub).ckpt("hooks", "install", "--server")

    run(["git", "push", "-q", "origin", "main:secret"], clone.root, status=1)
    run(["git", "push", "-q", "origin", f":{GOLDEN}"], clone.root, status=1)
    run(["git", "push", "-q", "origin", "main:open"], clone.root)

    World(hub).ckpt("hooks", "uninstall")
    assert path.read_bytes() == theirs


def test_the_hooks_of_a_clone_have_no_place_in_a_bare_repository(hub: Path):
    done = World(hub).ckpt("hooks", "install", status=2)

    assert "ckpt hooks install --server" in done.err
    assert os.listdir(hub / "hooks").count("pre-commit") == 0
