"""`ci init`: files that real parsers take, that say nothing wrong of this clone, and that do their work in a new one."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from ckptvcs import Repo
from ckptvcs.errors import HostileInput, StorageError, UsageError, WouldOverwrite
from ckptvcs.porcelain import ci
from ckptvcs.porcelain.repo import Repository
from ckptvcs.storage.files import Lock
from tests.support.world import World, run

ALL = tuple(ci.KINDS)


def made(world: World, *kinds: ci.Kind, force: bool = False) -> ci.CiPlan:
    repository = Repository.open(world.root)
    plan = ci.plan(repository, kinds, force=force)
    ci.execute(repository, plan)
    return plan


def in_path() -> dict[str, str]:
    return {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}


def test_files_are_made_and_a_second_time_there_is_nothing_to_do(world: World, everything):
    assert {file.deed for file in made(world, *ALL).files} == {"make"}
    before = everything(world)

    again = made(world, *ALL)

    assert again.done == []
    assert everything(world) == before


def test_a_file_that_says_something_else_stays_unless_it_is_forced(world: World):
    made(world, "github")
    path = world.root / ".github/workflows/ckpt.yml"
    ours = path.read_text()
    path.write_text("name: mine\n")

    with pytest.raises(WouldOverwrite, match=r"ckpt\.yml") as caught:
        made(world, "cron", "github")

    assert path.read_text() == "name: mine\n"
    assert not (world.root / "ops").exists()
    assert caught.value.facts["paths"] == [".github/workflows/ckpt.yml"]
    made(world, "github", force=True)
    assert path.read_text() == ours


def test_to_plan_changes_nothing(world: World, everything):
    before = everything(world)

    said = world.ckpt("ci", "init", "--kind", "systemd", "--kind", "cron", "-n")

    assert said.out.splitlines() == [
        f"would make ops/{name}" for name in ("ckpt-apply.sh", "ckpt-apply.service", "ckpt-apply.timer", "ckpt.cron")
    ]
    assert everything(world) == before


def test_a_link_leads_nowhere(world: World, tmp_path: Path):
    (tmp_path / "outside").mkdir()
    (world.root / "ops").symlink_to(tmp_path / "outside")

    with pytest.raises((HostileInput, StorageError)):
        made(world, "cron")

    assert list((tmp_path / "outside").iterdir()) == []


def test_it_has_to_be_said_for_what(world: World):
    with pytest.raises(UsageError, match="not said for what"):
        made(world)


# --------------------------------------------------------------------------------------------------------- their formats


def text_of(world: World, path: str) -> str:
    return (world.root / path).read_text()


def with_s3(world: World) -> None:
    (world.root / ".dvc/config").write_text("[core]\n remote = s\n['remote \"s\"']\n url = s3://bucket/x\n")


@pytest.mark.parametrize("remote", [False, True])
@pytest.mark.parametrize(
    ("kind", "path", "schema"),
    [("github", ".github/workflows/ckpt.yml", "github-workflows"), ("gitlab", ".gitlab/ckpt.yml", "gitlab-ci")],
)
def test_the_schema_of_the_platform_takes_the_file(
    world: World, kind: ci.Kind, path: str, schema: str, *, remote: bool
):
    pytest.importorskip("check_jsonschema", reason="check-jsonschema is in the extra 'dev'")
    if remote:
        with_s3(world)
    made(world, kind)

    run([sys.executable, "-m", "check_jsonschema", "--builtin-schema", f"vendor.{schema}", path], world.root)


def test_a_workflow_sees_all_of_the_history_and_only_the_nightly_job_may_write(world: World):
    with_s3(world)
    made(world, "github")

    flow = yaml.load(text_of(world, ".github/workflows/ckpt.yml"), yaml.BaseLoader)

    assert flow["permissions"] == {"contents": "read"}
    assert flow["jobs"]["apply"]["permissions"] == {"contents": "write"}
    assert flow["jobs"]["apply"]["env"]["AWS_ACCESS_KEY_ID"] == "${{ secrets.AWS_ACCESS_KEY_ID }}"
    assert "env" not in flow["jobs"]["check"]
    assert flow["on"]["pull_request"]["paths"] == ["ckpt.yaml"]
    for job in flow["jobs"].values():
        checkouts = [step["with"] for step in job["steps"] if step.get("uses", "").startswith("actions/checkout")]
        assert checkouts == [{"fetch-depth": "0"}]
        for script in (step["run"] for step in job["steps"] if "run" in step):
            assert "${{" not in script  # what somebody else names is never a part of a script
            subprocess.run(["bash", "-n"], input=script, text=True, check=True)
    assert "pip install 'ckptvcs[s3]'" in text_of(world, ".github/workflows/ckpt.yml")


def test_without_a_remote_there_are_no_secrets(world: World):
    made(world, "github")

    flow = yaml.safe_load(text_of(world, ".github/workflows/ckpt.yml"))

    assert not any(name.startswith("AWS") for name in flow["jobs"]["apply"]["env"])
    assert not re.search(r"%%", text_of(world, ".github/workflows/ckpt.yml"))


def test_what_gitlab_runs_is_a_script(world: World):
    made(world, "gitlab")

    jobs = yaml.safe_load(text_of(world, ".gitlab/ckpt.yml"))

    assert jobs["ckpt-apply"]["resource_group"] == "ckpt-apply"
    assert jobs[".ckpt"]["variables"]["GIT_DEPTH"] == "0"
    for name in ("ckpt-apply", "ckpt-check"):
        subprocess.run(["bash", "-n"], input="\n".join(jobs[name]["script"]), text=True, check=True)


def test_kubernetes_gets_a_claim_and_a_job_that_does_not_overlap(world: World):
    world.git("remote", "add", "origin", "https://me:secret@git.example.com/a.git")
    made(world, "kubernetes")

    claim, job = yaml.safe_load_all(text_of(world, "ops/ckpt-cronjob.yaml"))

    pod = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert (claim["kind"], job["kind"], job["apiVersion"]) == ("PersistentVolumeClaim", "CronJob", "batch/v1")
    assert job["spec"]["concurrencyPolicy"] == "Forbid"
    assert pod["restartPolicy"] == "Never"
    assert pod["volumes"][0]["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
    assert {"name": "REPOSITORY", "value": "https://me@git.example.com/a.git"} in container["env"]
    assert "secret@" not in text_of(world, "ops/ckpt-cronjob.yaml")
    subprocess.run(["sh", "-n"], input=container["args"][0], text=True, check=True)


@pytest.mark.parametrize("name", ["repo", "a b%c'd\"e$f\\g"])
def test_systemd_takes_the_units_whatever_the_folder_is_called(world: World, tmp_path: Path, name: str):
    if shutil.which("systemd-analyze") is None:
        pytest.skip("there is no systemd-analyze")
    other = World(world.root.rename(tmp_path / name)) if name != "repo" else world
    made(other, "systemd")
    units = [str(other.root / f"ops/ckpt-apply.{end}") for end in ("service", "timer")]
    for unit in units:  # where a path has no blanks: they would be escaped in the name of a unit
        shutil.copy(unit, tmp_path)

    done = run(["systemd-analyze", "verify", *(str(tmp_path / Path(unit).name) for unit in units)], tmp_path)

    assert done.err == ""


@pytest.mark.parametrize("name", ["repo", "a b%c'd"])
def test_cron_runs_the_script_whatever_the_folder_is_called(world: World, tmp_path: Path, name: str):
    other = World(world.root.rename(tmp_path / name)) if name != "repo" else world
    made(other, "cron")
    (line,) = [line for line in text_of(other, "ops/ckpt.cron").splitlines() if not line.startswith("#")]
    minute, *times, command = line.split(" ", 5)

    assert 0 <= int(minute) < 60
    assert times == ["3", "*", "*", "*"]
    assert re.search(r"(?<!\\)%", command) is None  # cron takes it for the end of the line
    path, shell, script = shlex.split(command.replace("\\%", "%"))
    assert (path.partition("=")[0], shell) == ("PATH", "sh")
    assert Path(script).is_file()


def test_a_repository_below_the_root_of_git_is_found(tmp_path: Path):
    root = tmp_path / "mono"
    (root / "ml x").mkdir(parents=True)
    world = World(root)
    world.git("init", "-q")
    (root / "ml x/.dvc").mkdir()
    (root / "ml x/.dvc/config").write_text("")
    made(World(root / "ml x"), *ALL)

    flow = yaml.safe_load(text_of(world, ".github/workflows/ckpt.yml"))
    assert flow["defaults"]["run"]["working-directory"] == "ml x"
    assert flow[True]["pull_request"]["paths"] == ["ml x/ckpt.yaml"]
    assert "cd 'ml x'" in yaml.safe_load(text_of(world, ".gitlab/ckpt.yml"))["ckpt-apply"]["script"]
    assert "&& cd 'ml x' ||" in text_of(world, "ops/ckpt-apply.sh")


# ----------------------------------------------------------------------------------------------------------- their work


@pytest.fixture
def shared(world: World, history, repo: Repo, state, tmp_path: Path) -> World:
    """A clone that is up to date with a hub, and a folder where objects are."""
    repo.commit(state(4), metrics={"loss": 0.25})
    world.git("init", "-q", "--bare", "-b", "main", "../hub.git")
    world.git("remote", "add", "origin", str(tmp_path / "hub.git"))
    world.ckpt("remote", "add", "store", str(tmp_path / "store"), "--default")
    (world.root / "ckpt.yaml").write_text("version: 1\nretain:\n  keep: [{keep_last: 3}]\n")
    made(world, "cron")
    world.git("add", "ckpt.yaml", "ops", ".dvc/config")
    world.git("commit", "-qm", "policy")
    world.ckpt("push")
    world.git("push", "-q", "-u", "origin", "main")
    return world


def test_the_script_does_its_work_in_a_new_clone_and_others_read_what_was_done(shared: World, tmp_path: Path):
    clone = World(tmp_path / "clone")
    run(["git", "clone", "-q", str(tmp_path / "hub.git"), str(clone.root)], tmp_path)

    first = run(["sh", "ops/ckpt-apply.sh"], clone.root, env=in_path())
    again = run(["sh", "ops/ckpt-apply.sh"], clone.root, env=in_path())

    assert "dropped 1 checkpoint," in first.out
    assert "dropped" not in again.out
    shared.ckpt("fetch")
    assert "condemn" in shared.ckpt("audit", "log", "--op", "condemn").out


def test_the_script_ends_as_a_machine_has_to_know(shared: World):
    repository = Repository.open(shared.root)
    (shared.root / "ckpt.yaml").write_text(
        "version: 1\nretain:\n  keep: [{keep_last: 1}]\nalerts:\n  growth: {max_bytes: 1B}\n"
    )
    told = run(["sh", "ops/ckpt-apply.sh"], shared.root, env=in_path(), status=None)

    assert told.status in (1, 50)  # alerts, or a policy that is not committed

    repository.private.mkdir(exist_ok=True)
    with Lock(repository.private / "gc.lock", timeout_s=0):
        busy = run(["sh", "ops/ckpt-apply.sh"], shared.root, env=in_path())
    assert "another one is at work" in busy.out


def test_a_branch_that_follows_none_is_no_reason_to_fail_and_a_hub_that_is_away_is(shared: World, tmp_path: Path):
    shared.git("branch", "--unset-upstream")
    assert "dropped 1 checkpoint," in run(["sh", "ops/ckpt-apply.sh"], shared.root, env=in_path()).out

    shared.git("branch", "-q", "--set-upstream-to", "origin/main")
    (tmp_path / "hub.git").rename(tmp_path / "away.git")
    assert run(["sh", "ops/ckpt-apply.sh"], shared.root, env=in_path(), status=30)


def test_the_commands_of_the_help_are_those_of_the_list(world: World):
    said = world.ckpt("ci", "init", "--list").out

    assert [line.split()[0] for line in said.splitlines()] == list(ALL)
    assert [one["kind"] for one in world.ckpt("ci", "init", "--list", "--json").json] == list(ALL)
    answer = world.ckpt("ci", "init", "--kind", "gitlab", "--json").json
    assert answer["files"] == [{"path": ".gitlab/ckpt.yml", "did": "make"}]
    assert any("CKPT_GIT_TOKEN" in step for step in answer["next"])
