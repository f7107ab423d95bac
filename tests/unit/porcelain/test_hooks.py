"""Installing hooks: where git looks for them, beside those of others, and out again without a trace."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from ckptvcs.errors import NoRepository, UsageError
from ckptvcs.porcelain import hooks
from tests.support.world import World, run

THEIRS = "#!/bin/sh\nexec dvc git-hook pre-commit $@\n"


def installed(root: Path, **options) -> hooks.HooksPlan:
    plan = hooks.plan_install(root, **options)
    hooks.execute(plan)
    return plan


def deeds(plan: hooks.HooksPlan) -> dict[str, str]:
    return {change.name: change.deed for change in plan.changes}


def put(path: Path, text: str, mode: int = 0o755) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode())
    path.chmod(mode)
    return path


@pytest.fixture
def folder(world: World) -> Path:
    return world.root / ".git/hooks"


def there(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {
        path.name: (path.read_bytes(), stat.S_IMODE(path.stat().st_mode))
        for path in folder.iterdir()
        if path.suffix != ".sample"
    }


def test_scripts_are_made_and_a_second_time_there_is_nothing_to_do(world: World, folder: Path):
    assert set(deeds(installed(world.root)).values()) == {"make"}
    before = there(folder)
    assert set(before) == set(hooks.CLIENT)
    assert all(mode & 0o100 for _, mode in before.values())

    again = installed(world.root)

    assert set(deeds(again).values()) == {"keep"}
    assert again.done == again.left == []
    assert there(folder) == before


def test_a_plan_changes_nothing(world: World, everything):
    before = everything(world)

    hooks.plan_install(world.root)
    hooks.plan_uninstall(world.root)

    assert everything(world) == before


@pytest.mark.parametrize("name", [*hooks.CLIENT, *hooks.SERVER])
@pytest.mark.parametrize("shell", ["dash", "bash --posix", "bash"])
def test_a_script_is_one_block_that_a_shell_understands(name: str, shell: str, tmp_path: Path):
    text = hooks.script(name)

    assert hooks._BLOCK.sub("", text).count("\n") == 2
    assert text.startswith("#!/bin/sh\n")
    path = put(tmp_path / name, text)
    if shell == "dash" and not os.path.exists("/bin/dash"):
        pytest.skip("no dash")
    run([*shell.split(), "-n", str(path)], tmp_path)


@pytest.mark.parametrize(
    "first",
    ["#!/bin/sh", "#!/bin/sh -e", "#! /bin/bash", "#!/usr/bin/env bash", "#!/usr/bin/env -S zsh -f", "#!/bin/dash"],
)
def test_a_block_goes_before_what_a_shell_script_does(first: str, world: World, folder: Path):
    text = f"{first}\nexec something\n"
    path = put(folder / "pre-commit", text, 0o750)

    plan = installed(world.root)

    assert deeds(plan)["pre-commit"] == "add"
    lines = path.read_text().splitlines()
    assert lines[0] == first
    assert lines[1].startswith("# >>> ckptvcs >>>")
    assert lines[-1] == "exec something"
    assert stat.S_IMODE(path.stat().st_mode) == 0o750
    assert deeds(installed(world.root))["pre-commit"] == "keep"


@pytest.mark.parametrize(
    "text",
    [
        THEIRS,
        "#!/bin/sh\n",
        "#!/bin/sh\nno newline at the end",
        "#!/bin/bash\n# caf\udce9, in Latin-1\n",
        "#!/bin/sh\n\n\n",
    ],
)
def test_what_was_there_comes_out_as_it_was(text: str, world: World, folder: Path):
    data = text.encode("utf-8", "surrogateescape")
    path = folder / "pre-push"
    path.write_bytes(data)
    path.chmod(0o711)
    before = there(folder)
    config = (world.root / ".git/config").read_bytes()

    installed(world.root)
    assert path.read_bytes() != data
    plan = hooks.plan_uninstall(world.root)
    hooks.execute(plan)

    assert deeds(plan)["pre-push"] == "take out"
    assert there(folder) == before
    assert world.git("config", "--get", "ckptvcs.program", status=1) == ""
    assert (world.root / ".git/config").read_bytes().startswith(config)


def test_what_somebody_added_to_a_script_of_ours_stays(world: World, folder: Path):
    installed(world.root)
    path = folder / "post-merge"
    path.write_text(path.read_text() + "echo mine\n")

    assert deeds(installed(world.root))["post-merge"] == "keep"
    hooks.execute(hooks.plan_uninstall(world.root))

    assert path.read_text().endswith(
        "# Made by 'ckpt hooks install'; what you add to it outside of the two lines with arrows stays.\necho mine\n"
    )
    assert set(there(folder)) == {"post-merge"}


def test_an_older_block_is_renewed_in_its_place(world: World, folder: Path):
    old = "#!/bin/sh\nfirst\n# >>> ckptvcs >>> of old\nold \\1 code\n# <<< ckptvcs <<<\nlast\n"
    path = put(folder / "pre-commit", old)

    assert deeds(installed(world.root))["pre-commit"] == "renew"

    assert path.read_text() == f"#!/bin/sh\nfirst\n{hooks._block('pre-commit')}last\n"


@pytest.mark.parametrize(
    ("text", "mode", "why"),
    [
        ("#!/usr/bin/env python3\nimport sys\n", 0o755, "no shell script"),
        ("#!/usr/bin/fish\n", 0o755, "no shell script"),
        ("echo no first line that says it\n", 0o755, "no shell script"),
        ("#!/bin/sh\r\necho which the kernel cannot run\r\n", 0o755, "no shell script"),
        ("\x7fELF\0\0", 0o755, "no shell script"),
        ("#!/bin/sh\n" + "#" * (1 << 20), 0o755, "no shell script"),
        (THEIRS, 0o644, "may not be executed"),
    ],
)
def test_what_is_no_shell_script_or_switched_off_is_left_and_told(
    text: str, mode: int, why: str, world: World, folder: Path
):
    path = put(folder / "pre-commit", text, mode)

    plan = installed(world.root)

    assert path.read_bytes() == text.encode()
    assert stat.S_IMODE(path.stat().st_mode) == mode
    (left,) = plan.left
    assert (left.name, why in left.why) == ("pre-commit", True)
    assert "ckpt hook pre-commit" in left.next_step or "chmod +x" in left.next_step
    assert set(there(folder)) == set(hooks.CLIENT)
    assert "pre-commit" not in deeds(hooks.plan_uninstall(world.root))


def test_a_link_is_left_and_what_it_leads_to_as_well(world: World, folder: Path, tmp_path: Path):
    elsewhere = put(tmp_path / "shared-hook", THEIRS)
    (folder / "pre-commit").symlink_to(elsewhere)
    (folder / "pre-push").symlink_to(tmp_path / "nowhere")

    plan = installed(world.root)

    assert [change.name for change in plan.left] == ["pre-commit", "pre-push"]
    assert elsewhere.read_text() == THEIRS
    assert not (tmp_path / "nowhere").exists()
    hooks.execute(hooks.plan_uninstall(world.root))
    assert (folder / "pre-commit").is_symlink()


def test_a_hook_that_calls_ours_already_is_as_it_should_be(world: World, folder: Path):
    text = "#!/usr/bin/env python3\nimport subprocess, sys\n# ckpt hook pre-commit\n"
    put(folder / "pre-commit", text)

    plan = installed(world.root)

    assert deeds(plan)["pre-commit"] == "keep"
    assert (folder / "pre-commit").read_text() == text


# ------------------------------------------------------------------------------------------------ where git looks


@pytest.mark.parametrize("setting", ["my hooks", "./.husky/../my hooks", "{tmp}/outside"])
def test_core_hookspath_has_its_say(setting: str, world: World, tmp_path: Path):
    world.git("config", "core.hooksPath", setting.format(tmp=tmp_path))
    wanted = (world.root / setting.format(tmp=tmp_path)).resolve()
    (world.root / "src").mkdir()

    plan = installed(world.root / "src")

    assert plan.folder == wanted
    assert set(there(wanted)) == set(hooks.CLIENT)
    assert bool(plan.notes) == (tmp_path / "outside" == wanted)
    assert there(world.root / ".git/hooks") == {}


def test_a_folder_that_is_a_link_is_followed_as_git_does(world: World, folder: Path):
    for sample in folder.iterdir():
        sample.unlink()
    folder.rmdir()
    (world.root / "githooks").mkdir()
    folder.symlink_to("../githooks")

    installed(world.root)

    assert set(there(world.root / "githooks")) == set(hooks.CLIENT)


def test_a_linked_worktree_has_the_hooks_of_its_repository(world: World, history, tmp_path: Path):
    world.git("worktree", "add", "-q", "--detach", tmp_path / "linked")

    plan = installed(tmp_path / "linked")

    assert plan.folder == world.root / ".git/hooks"
    assert plan.notes == ()


def test_a_repository_of_dvc_in_a_folder_of_another_has_the_hooks_of_git(tmp_path: Path):
    run(["git", "init", "-q", str(tmp_path / "mono")], tmp_path)
    (tmp_path / "mono/ml/.dvc").mkdir(parents=True)

    assert installed(tmp_path / "mono/ml").folder == tmp_path / "mono/.git/hooks"


def test_where_nothing_is_of_ours_there_is_nothing_to_install(tmp_path: Path):
    with pytest.raises(NoRepository):
        hooks.plan_install(tmp_path)
    with pytest.raises(NoRepository):
        hooks.plan_uninstall(tmp_path)
    run(["git", "init", "-q", str(tmp_path)], tmp_path)
    with pytest.raises(NoRepository, match="no DVC repository"):
        hooks.plan_install(tmp_path)


# ----------------------------------------------------------------------------------------------------- the server


def test_a_server_needs_nothing_of_ours(tmp_path: Path):
    run(["git", "init", "-q", "--bare", str(tmp_path / "hub.git")], tmp_path)

    plan = installed(tmp_path / "hub.git", server=True)

    assert deeds(plan) == {"update": "make"}
    assert set(there(tmp_path / "hub.git/hooks")) == {"update"}
    assert "ckptvcs" not in (tmp_path / "hub.git/config").read_text()
    hooks.execute(hooks.plan_uninstall(tmp_path / "hub.git"))
    assert there(tmp_path / "hub.git/hooks") == {}


def test_a_bare_repository_is_no_clone(tmp_path: Path):
    run(["git", "init", "-q", "--bare", str(tmp_path / "hub.git")], tmp_path)

    with pytest.raises(UsageError, match="is bare"):
        hooks.plan_install(tmp_path / "hub.git")


def test_where_ckpt_is_gets_remembered_and_forgotten(world: World):
    plan = installed(world.root)

    assert plan.program is not None
    assert os.access(plan.program, os.X_OK)
    assert world.git("config", "ckptvcs.program") == plan.program
    assert hooks.plan_install(world.root).program is None
    hooks.execute(hooks.plan_uninstall(world.root))
    assert world.git("config", "--get", "ckptvcs.program", status=1) == ""
