"""The hooks of a clone, run by the real git, beside the hooks of other programs, and without `ckpt`."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest
import torch

from tests.support import oracle
from tests.support.world import World, run

BIN = Path(sys.executable).parent
MIB = 1 << 20


def state(step: int) -> dict:
    return {"model": {"w": torch.full((4,), float(step))}}


def commit(world: World, *steps: int) -> None:
    with world.repo() as repo:
        for step in steps:
            repo.commit(state(step), step=step)


def step_in_workspace(world: World) -> float | None:
    """What the files say that are there, by the safetensors library."""
    from safetensors.torch import load_file

    found = list((world.root / "checkpoints/model").rglob("*.safetensors"))
    return float(load_file(found[0])["w"][0]) if found else None


def attempt(world: World, *args: str | Path, env: dict[str, str] | None = None) -> tuple[int, str]:
    """A git command that a hook may refuse: its status, and what was said on stderr."""
    done = run(["git", *map(str, args)], world.root, status=None, env=env)
    return done.status, done.err


@pytest.fixture
def hooked(world: World, monkeypatch: pytest.MonkeyPatch) -> World:
    """Checkpoints of steps 1 and 2 on `main`, and hooks."""
    monkeypatch.setenv("PATH", f"{BIN}{os.pathsep}{os.environ['PATH']}")
    commit(world, 1, 2)
    world.ckpt("hooks", "install")
    return world


@pytest.fixture
def hub(hooked: World, tmp_path: Path) -> Path:
    """What `hooked` pushes to, with a store for its objects."""
    hooked.git("init", "-q", "--bare", "-b", "main", tmp_path / "hub.git")
    hooked.git("remote", "add", "origin", tmp_path / "hub.git")
    hooked.ckpt("remote", "add", "share", tmp_path / "store")
    hooked.git("commit", "-qam", "a remote")
    return tmp_path / "hub.git"


# ------------------------------------------------------------------------------------------ post-checkout, post-merge


def test_git_checkout_brings_the_artifact_along(hooked: World):
    status, said = attempt(hooked, "checkout", "-q", "main~1")

    assert status == 0
    assert step_in_workspace(hooked) == 1
    assert "step 1" in said
    assert "up to date" in hooked.dvc("status").out


def test_git_switch_in_a_subfolder_does_so_too(hooked: World):
    (hooked.root / "src").mkdir()
    (hooked.root / "src/a.py").write_text("")
    hooked.git("add", "src")
    hooked.git("commit", "-qm", "code")

    run(["git", "switch", "-q", "--detach", "main~2"], hooked.root / "src")

    assert step_in_workspace(hooked) == 1


def test_where_no_checkpoint_is_the_artifact_goes(hooked: World):
    hooked.git("checkout", "-q", "main~2")

    assert step_in_workspace(hooked) is None
    hooked.git("checkout", "-q", "main")
    assert step_in_workspace(hooked) == 2


@pytest.mark.parametrize("where", ["main~1", "main~2"])
def test_files_that_are_saved_nowhere_stay(where: str, hooked: World):
    mine = hooked.root / "checkpoints/model/mine.txt"
    mine.write_text("mine")

    status, said = attempt(hooked, "checkout", "-q", where)

    assert status == 0
    assert mine.read_text() == "mine"
    assert step_in_workspace(hooked) == 2
    assert "saved nowhere: mine.txt" in said


def test_an_edited_checkpoint_stays(hooked: World):
    (path,) = (hooked.root / "checkpoints/model").rglob("*.safetensors")
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.unlink()
    path.write_bytes(data)

    hooked.git("checkout", "-q", "main~1")

    assert path.read_bytes() == data


def test_what_moves_no_checkpoint_is_not_looked_at(hooked: World):
    hooked.git("commit", "-q", "--allow-empty", "-m", "code")
    shutil.rmtree(hooked.root / "checkpoints/model")

    hooked.git("checkout", "-q", "main~1")
    hooked.git("checkout", "-q", "-b", "other")
    hooked.git("checkout", "-q", "main~2", "--", "checkpoints/model.json")

    assert step_in_workspace(hooked) is None


def test_an_object_that_is_missing_fails_no_checkout(hooked: World):
    shutil.rmtree(hooked.cache)

    status, said = attempt(hooked, "checkout", "-q", "main~1")

    assert status == 0
    assert step_in_workspace(hooked) == 2
    assert "note: HEAD has moved, and the workspace keeps what it has" in said


def test_it_can_only_be_told(hooked: World):
    (hooked.root / "ckpt.yaml").write_text("version: 1\nhooks: {materialise: tell}\n")

    status, said = attempt(hooked, "checkout", "-q", "main~1")

    assert status == 0
    assert step_in_workspace(hooked) == 2
    assert "step 1" in said
    assert "run 'ckpt checkout HEAD'" in said
    hooked.ckpt("checkout", "HEAD")
    assert step_in_workspace(hooked) == 1


def test_a_broken_configuration_fails_no_checkout(hooked: World):
    (hooked.root / "ckpt.yaml").write_text("nope: 1\n")

    status, said = attempt(hooked, "checkout", "-q", "main~1")

    assert status == 0
    assert "no such key" in said


def test_git_pull_and_git_merge_bring_the_artifact_along(hooked: World, tmp_path: Path):
    other = hooked.clone(tmp_path / "other")
    other.dvc("cache", "dir", "--local", hooked.root / ".dvc/cache")
    other.ckpt("hooks", "install")
    commit(hooked, 3)
    other.ckpt("checkout", "main")
    assert step_in_workspace(other) == 2

    other.git("pull", "-q")

    assert step_in_workspace(other) == 3
    other.git("checkout", "-q", "-b", "old", "main~1")
    assert step_in_workspace(other) == 2
    other.git("merge", "-q", "--squash", "main")
    assert step_in_workspace(other) == 2
    other.git("reset", "-q", "--hard")
    other.git("merge", "-q", "--no-ff", "-m", "merged", "main")
    assert step_in_workspace(other) == 3


def test_hooks_work_in_a_linked_worktree(hooked: World, tmp_path: Path):
    hooked.git("worktree", "add", "-q", "--detach", tmp_path / "linked", "main")
    linked = World(tmp_path / "linked")
    (linked.root / ".dvc/config.local").write_text(f"[cache]\n    dir = {hooked.root}/.dvc/cache\n")

    linked.git("checkout", "-q", "main~1")

    assert step_in_workspace(linked) == 1
    assert step_in_workspace(hooked) == 2


# --------------------------------------------------------------------------------------------------------- pre-commit


def large(path: Path, nbytes: int = 11 * MIB) -> None:
    torch.save({"w": torch.randn(nbytes // 4)}, path)


def test_a_raw_checkpoint_does_not_enter_git_and_the_command_that_is_told_does_it_right(hooked: World):
    large(hooked.root / "it's a.pt")
    hooked.git("add", ".")

    status, said = attempt(hooked, "commit", "-qm", "raw")

    assert status == 1
    assert "'it's a.pt' would enter git: a torch checkpoint of 11.0 MiB" in said
    told = said.split("next: ")[1].splitlines()[0]
    run(["sh", "-c", told], hooked.root)
    assert "(HEAD -> main)" in hooked.ckpt("log", "-n", "1").out
    assert hooked.git("ls-files", "*.pt") == ""


def test_it_looks_at_what_is_staged_and_not_at_what_lies_there(hooked: World):
    path = hooked.root / "a.pt"
    large(path)
    hooked.git("add", "a.pt")
    path.write_bytes(b"small now")
    assert attempt(hooked, "commit", "-qm", "raw")[0] == 1

    hooked.git("add", "a.pt")
    large(path)
    assert attempt(hooked, "commit", "-qm", "small") == (0, "")


def test_it_looks_at_the_index_of_a_commit_of_one_file(hooked: World):
    large(hooked.root / "a.pt")
    (hooked.root / "b.py").write_text("1")
    hooked.git("add", "a.pt", "b.py")

    assert attempt(hooked, "commit", "-qm", "code", "b.py") == (0, "")
    assert attempt(hooked, "commit", "-qm", "raw", "a.pt")[0] == 1
    (hooked.root / "b.py").write_text("2")
    assert attempt(hooked, "commit", "-qam", "raw")[0] == 1


def test_the_first_commit_is_looked_at_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", f"{BIN}{os.pathsep}{os.environ['PATH']}")
    root = tmp_path / "new"
    root.mkdir()
    run(["git", "init", "-q"], root)
    world = World(root)
    (root / ".dvc").mkdir()
    world.ckpt("hooks", "install")
    large(root / "a.pt")
    world.git("add", "a.pt")

    assert attempt(world, "commit", "-qm", "raw")[0] == 1
    assert attempt(world, "commit", "-qm", "raw", env={"CKPT_NO_HOOKS": "1"})[0] == 0


def test_what_is_in_git_already_may_be_renamed_and_merged(hooked: World):
    hooked.git("checkout", "-q", "-b", "side")
    large(hooked.root / "a.pt")
    hooked.git("add", "a.pt")
    hooked.git("commit", "-q", "--no-verify", "-m", "raw")
    (hooked.root / "x.py").write_text("side")
    hooked.git("add", ".")
    hooked.git("commit", "-qm", "x")
    hooked.git("mv", "a.pt", "b.pt")
    assert attempt(hooked, "commit", "-qm", "renamed")[0] == 0

    hooked.git("checkout", "-q", "main")
    (hooked.root / "x.py").write_text("main")
    hooked.git("add", ".")
    hooked.git("commit", "-qm", "x")
    hooked.git("merge", "-q", "side", status=1)
    hooked.git("add", "x.py")
    assert attempt(hooked, "commit", "-qm", "merged")[0] == 0


def test_a_shard_of_an_artifact_is_no_file_for_git(hooked: World):
    (hooked.root / "ckpt.yaml").write_text("version: 1\nhooks: {max_mib: 0}\n")
    (path,) = (hooked.root / "checkpoints/model").rglob("*.safetensors")
    hooked.git("add", "-f", path)

    status, said = attempt(hooked, "commit", "-qm", "raw")

    assert status == 1
    assert "next: git rm --cached checkpoints/model/model/" in said
    assert "ckpt commit" not in said


# ----------------------------------------------------------------------------------------------------------- pre-push


def test_a_branch_without_its_objects_is_not_pushed_until_they_are_there(hooked: World, hub: Path):
    status, said = attempt(hooked, "push", "-q", "origin", "main")

    assert status == 1
    assert "cannot push 'main' to 'origin'" in said
    assert "remote 'share' has not all objects of" in said
    assert "step 2 (4 of 4 are missing)" in said
    assert "next: ckpt push main" in said
    assert oracle.git(hub, "for-each-ref") == ""

    hooked.ckpt("push", "main")
    hooked.git("checkout", "-q", "-b", "exp")
    assert attempt(hooked, "push", "-q", "origin", "exp") == (0, "")


def test_only_the_names_that_lack_something_are_named(hooked: World, hub: Path):
    hooked.ckpt("push")
    hooked.git("branch", "code")
    commit(hooked, 3)
    hooked.git("tag", "v3")
    hooked.git("tag", "-a", "-m", "v4", "v4")

    status, said = attempt(hooked, "push", "-q", "origin", "code", "main", "v3", "v4")

    assert status == 1
    assert "cannot push 'main, v3, v4' to 'origin'" in said
    assert "next: ckpt push main v3 v4" in said
    assert "step 3" in said
    assert "step 2" not in said
    assert "code" not in oracle.git(hub, "for-each-ref")


def test_only_what_the_other_side_lacks_is_looked_at(hooked: World, hub: Path, tmp_path: Path):
    hooked.ckpt("push")
    shutil.rmtree(tmp_path / "store")
    hooked.git("commit", "-q", "--allow-empty", "-m", "code")

    assert attempt(hooked, "push", "-q", "origin", "main") == (0, "")
    hooked.git("branch", "old", "main~1")
    assert attempt(hooked, "push", "-q", "origin", "old") == (0, "")
    assert attempt(hooked, "push", "-q", "origin", ":old") == (0, "")


def test_a_remote_without_a_name_is_looked_at_too(hooked: World, hub: Path):
    status, said = attempt(hooked, "push", "-q", hub.as_uri(), "main")

    assert status == 1
    assert "ckpt push main" in said


def test_without_a_remote_for_objects_a_checkpoint_is_not_pushed(hooked: World, tmp_path: Path):
    hooked.git("init", "-q", "--bare", tmp_path / "hub.git")

    status, said = attempt(hooked, "push", "-q", tmp_path / "hub.git", "main")

    assert status == 1
    assert "no remote for checkpoints" in said
    assert attempt(hooked, "push", "-q", tmp_path / "hub.git", "main~2:refs/heads/main") == (0, "")


def test_ckpt_push_and_pull_do_not_look_twice(
    hooked: World, hub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    calls = tmp_path / "calls"
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/ckpt").write_text(f'#!/bin/sh\necho "$@" >>{calls}\nexec {BIN}/ckpt "$@"\n')
    (tmp_path / "bin/ckpt").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin{os.pathsep}{os.environ['PATH']}")

    hooked.ckpt("push")
    other = World(tmp_path / "other")
    run(["git", "clone", "-q", str(hub), str(other.root)], tmp_path)
    other.ckpt("hooks", "install")
    commit(hooked, 3)
    hooked.ckpt("push")
    other.ckpt("pull")

    assert step_in_workspace(other) == 3
    assert not calls.exists()
    hooked.git("commit", "-q", "--allow-empty", "-m", "code")
    hooked.git("push", "-q", "origin", "main")
    assert calls.read_text() == f"hook pre-commit\nhook pre-push origin {hub}\n"


# -------------------------------------------------------------------------------------------------------- without ckpt


@pytest.fixture
def without_ckpt(hooked: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """git and a shell are on PATH, `ckpt` is not, and git's configuration does not know it either."""
    (tmp_path / "bin").mkdir()
    for name in ("git", "sh", "cat"):
        (tmp_path / "bin" / name).symlink_to(shutil.which(name))
    hooked.git("config", "--unset", "ckptvcs.program")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    return hooked


def test_git_goes_on_without_ckpt_and_that_is_told(without_ckpt: World):
    (without_ckpt.root / "a.pt").write_bytes(b"x" * (11 * MIB))
    without_ckpt.git("add", "a.pt")

    status, said = attempt(without_ckpt, "commit", "-qm", "raw")
    assert (status, "there is no 'ckpt' here" in said) == (0, True)

    status, said = attempt(without_ckpt, "checkout", "-q", "main~2")
    assert (status, "the workspace keeps the checkpoint" in said) == (0, True)
    without_ckpt.git("branch", "-f", "b", "main")
    without_ckpt.git("checkout", "-q", "main~1")
    status, said = attempt(without_ckpt, "merge", "-q", "b")
    assert (status, "the workspace keeps the checkpoint" in said) == (0, True)


def test_without_ckpt_checkpoints_are_not_pushed_and_code_is(without_ckpt: World, tmp_path: Path):
    without_ckpt.git("init", "-q", "--bare", tmp_path / "hub.git")
    without_ckpt.git("remote", "add", "origin", tmp_path / "hub.git")
    assert attempt(without_ckpt, "push", "-q", "origin", "main~2:refs/heads/main") == (0, "")

    status, said = attempt(without_ckpt, "push", "-q", "origin", "main")

    assert status == 1
    assert "'refs/heads/main' has new checkpoints, and there is no 'ckpt' here" in said
    assert attempt(without_ckpt, "push", "-q", "--no-verify", "origin", "main") == (0, "")
    without_ckpt.git("commit", "-q", "--allow-empty", "-m", "code")
    assert attempt(without_ckpt, "push", "-q", "origin", "main", "main:new") == (0, "")
    assert attempt(without_ckpt, "push", "-q", "origin", ":new") == (0, "")


def test_a_ckpt_whose_python_is_gone_is_no_ckpt(without_ckpt: World, tmp_path: Path):
    (tmp_path / "bin/ckpt").write_text("#!/nowhere/python\n")
    (tmp_path / "bin/ckpt").chmod(0o755)

    status, said = attempt(without_ckpt, "commit", "-q", "--allow-empty", "-m", "code")

    assert status == 0
    assert "there is no 'ckpt' here" in said


def test_where_ckpt_was_at_the_installation_is_remembered(without_ckpt: World):
    without_ckpt.git("config", "ckptvcs.program", str(BIN / "ckpt"))

    without_ckpt.git("checkout", "-q", "main~1")

    assert step_in_workspace(without_ckpt) == 1


# -------------------------------------------------------------------------------------------------- hooks of others


def test_hooks_of_dvc_run_as_before_and_come_out_as_they_were(
    world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setenv("PATH", f"{BIN}{os.pathsep}{os.environ['PATH']}")
    commit(world, 1)
    world.dvc("install")
    folder = world.root / ".git/hooks"
    theirs = {name: (folder / name).read_bytes() for name in ("pre-commit", "pre-push", "post-checkout")}

    world.ckpt("hooks", "install")
    world.ckpt("hooks", "install")

    large(world.root / "a.pt")
    world.git("add", "a.pt")
    assert attempt(world, "commit", "-qm", "raw")[0] == 1
    world.git("rm", "-q", "--cached", "a.pt")
    world.git("init", "-q", "--bare", "-b", "main", tmp_path / "hub.git")
    world.git("remote", "add", "origin", tmp_path / "hub.git")
    world.ckpt("remote", "add", "share", tmp_path / "store")
    world.git("commit", "-qam", "a remote")
    assert attempt(world, "push", "-q", "origin", "main")[0] == 1
    world.ckpt("push")
    # dvc add of something else, which nobody but DVC's own hook pushes
    (world.root / "data.bin").write_bytes(b"data")
    world.dvc("add", "data.bin")
    world.git("add", "data.bin.dvc", ".gitignore")
    world.git("commit", "-qm", "data")
    world.git("push", "-q", "origin", "main")
    assert (tmp_path / "store/files/md5/8d/777f385d3dfec8815d20f7496026dc").read_bytes() == b"data"

    world.ckpt("hooks", "uninstall")
    assert {name: (folder / name).read_bytes() for name in theirs} == theirs
    assert not (folder / "post-merge").exists()


RECORDING = """\
#!{shell}
printf '%s\\n' "$0" "$#" "$@" >{out}
cat >>{out}
exit {status}
"""


@pytest.mark.parametrize("shell", ["/bin/sh", "/bin/sh -e", "/usr/bin/env bash", "/bin/bash -eu"])
@pytest.mark.parametrize("refs", [["main~2:refs/heads/a"], ["main~2:refs/heads/a", "main~2:refs/heads/b"]])
def test_what_follows_ours_sees_what_it_saw_before(shell: str, refs: list[str], hooked: World, tmp_path: Path):
    hooked.ckpt("hooks", "uninstall")
    path, out, seen = hooked.root / ".git/hooks/pre-push", tmp_path / "out", []
    path.write_text(RECORDING.format(shell=shell, out=out, status=0))
    path.chmod(0o755)

    for install in (False, True):
        hub = tmp_path / f"{'with' if install else 'sans'}.git"
        hooked.git("init", "-q", "--bare", hub)
        if install:
            hooked.ckpt("hooks", "install")
        hooked.git("push", "-q", hub, *refs)
        seen.append(out.read_text().replace("with.git", "sans.git"))

    assert seen[0] == seen[1]
    assert seen[0].count("refs/heads/") == len(refs)


def test_a_hook_that_refuses_goes_on_refusing(hooked: World, tmp_path: Path):
    hooked.ckpt("hooks", "uninstall")
    path = hooked.root / ".git/hooks/pre-push"
    path.write_text(RECORDING.format(shell="/bin/sh", out=tmp_path / "out", status=7))
    path.chmod(0o755)
    hooked.ckpt("hooks", "install")
    hooked.git("init", "-q", "--bare", tmp_path / "hub.git")

    assert attempt(hooked, "push", "-q", tmp_path / "hub.git", "main~2:refs/heads/main")[0] == 1


# --------------------------------------------------------------------------------------------- the pre-commit framework

ROOT = Path(__file__).parents[2]


def pre_commit(world: World, *args: str, status: int = 0):
    home = world.root.parent / "pre-commit-home"
    return run(
        [sys.executable, "-m", "pre_commit", *args], world.root, status=status, env={"PRE_COMMIT_HOME": str(home)}
    )


def test_the_pre_commit_framework_takes_our_manifest(world: World):
    pre_commit(world, "validate-manifest", str(ROOT / ".pre-commit-hooks.yaml"))


def test_the_pre_commit_framework_runs_the_hook(hooked: World):
    import yaml

    (hook,) = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text())
    # As the file says it, but without a virtual environment of its own for it to be installed in.
    here = {"repo": "local", "hooks": [{**hook, "language": "system"}]}
    (hooked.root / ".pre-commit-config.yaml").write_text(yaml.safe_dump({"repos": [here]}))
    hooked.ckpt("hooks", "uninstall")
    pre_commit(hooked, "install")
    for name in ("-a.pt", "b c.pt"):
        large(hooked.root / name)
    (hooked.root / "small.py").write_text("1")
    hooked.git("add", ".")

    status, said = attempt(hooked, "commit", "-qm", "raw", env={"PRE_COMMIT_HOME": str(hooked.root.parent / "home")})

    assert status == 1
    assert "'-a.pt' would enter git: a torch checkpoint of 11.0 MiB; and so would 'b c.pt'" in said
    hooked.git("rm", "-q", "--cached", "--", "-a.pt", "b c.pt")
    hooked.git("commit", "-qm", "code")
    # Ours in the script that the framework made: it works, and says so itself.
    hooked.ckpt("hooks", "install")
    large(hooked.root / "c.pt")
    hooked.git("add", "c.pt")
    status, said = attempt(hooked, "commit", "-qm", "raw")
    assert (status, "'c.pt' would enter git" in said) == (1, True)
