"""`import`: what lies around becomes commits in the order in which it became, with its dates, once."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from ckptvcs import Repo
from ckptvcs.digest import digest
from ckptvcs.domain.import_names import template
from ckptvcs.errors import FormatError, LockHeld, Refused, UsageError
from ckptvcs.porcelain import gc, import_look, importing
from ckptvcs.porcelain.importing import ImportPlan, Wanted
from ckptvcs.porcelain.repo import Repository
from tests.support.same import assert_same
from tests.support.world import World
from tests.unit.formats.makers import peak

DAY = 86_400
BEGIN = 1_600_000_000


@pytest.fixture
def at(world: World, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The root of the repository, in which the test stands."""
    monkeypatch.chdir(world.root)
    return world.root


def put(path: Path, state: Any, day: float = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(state, path)
    os.utime(path, (BEGIN + day * DAY,) * 2)
    return path


def weights(n: float) -> dict[str, Any]:
    return {"model": {"frozen": torch.ones(64), "head": torch.full((4,), float(n))}}


def planned(repository: Repository, *patterns: str, **wanted: Any) -> ImportPlan:
    return importing.plan(repository, patterns or ("runs",), Wanted(**wanted))


def imported(repository: Repository, *patterns: str, **wanted: Any) -> tuple[importing.Outcome, ...]:
    return importing.execute(repository, planned(repository, *patterns, **wanted))


def told(plan: ImportPlan) -> dict[str, str]:
    return {item.looked.found.path.name: item.status for item in plan.items}


def steps(repo: Repo, branch: str) -> list[int | None]:
    return [checkpoint.manifest.step for checkpoint in repo.log(branch)][::-1]


# -------------------------------------------------------------------------------------------------------------- order


def test_they_are_committed_in_the_order_of_training(repository: Repository, repo: Repo, at: Path):
    for n, step in enumerate((1000, 20, 300)):
        put(at / f"runs/a/step_{step}.pt", weights(step), day=n)

    imported(repository)

    assert steps(repo, "a") == [20, 300, 1000]
    *_, first = repo.log("a")
    assert first.manifest.parents == ()
    assert [c.subject for c in repo.log("a")] == ["Import step_1000.pt", "Import step_300.pt", "Import step_20.pt"]


def test_each_keeps_its_date_and_git_does_not_go_back_in_time(
    repository: Repository, repo: Repo, world: World, at: Path
):
    put(at / "runs/a/step_1.pt", weights(1), day=2)
    put(at / "runs/a/step_2.pt", weights(2), day=1)

    imported(repository)

    newest, oldest = repo.log("a")
    assert (oldest.time.timestamp(), newest.time.timestamp()) == (BEGIN + 2 * DAY, BEGIN + DAY)
    assert oldest.manifest.created == "2020-09-15T12:26:40.000000+00:00"
    times = [int(line) for line in world.git("log", "--format=%ct", "a").split()]
    assert times == sorted(times, reverse=True)
    authored = [int(line) for line in world.git("log", "--format=%at", "a").split()]
    assert authored[:2] == [BEGIN + DAY, BEGIN + 2 * DAY]


def test_a_date_in_the_future_counts_as_of_now(repository: Repository, at: Path):
    put(at / "runs/a/x.pt", weights(1), day=40_000)

    (item,) = planned(repository).items

    assert item.looked.date.timestamp() < BEGIN + 40_000 * DAY
    assert "future" in item.looked.notes[0]


def test_each_folder_is_a_run(repository: Repository, repo: Repo, at: Path):
    put(at / "runs/exp-a/step_1.pt", weights(1))
    put(at / "runs/exp-b/checkpoints/step_2.pt", weights(2))

    imported(repository)

    assert {c.manifest.run.name for branch in ("exp-a", "exp-b") for c in repo.log(branch)} == {"exp-a", "exp-b"}
    assert (steps(repo, "exp-a"), steps(repo, "exp-b")) == ([1], [2])


@pytest.mark.parametrize(
    ("wanted", "branch", "run"),
    [({"branch": "old"}, "old", "old"), ({"run": "r"}, "r", "r"), ({"branch": "old", "run": "r"}, "old", "r")],
)
def test_all_of_them_may_go_to_one_branch(
    wanted: dict[str, str], branch: str, run: str, repository: Repository, repo: Repo, at: Path
):
    put(at / "runs/b/step_1.pt", weights(1))
    put(at / "runs/a/step_2.pt", weights(2))

    imported(repository, **wanted)

    assert steps(repo, branch) == [1, 2]
    assert {c.manifest.run.name for c in repo.log(branch)} == {run}
    assert len({c.manifest.run.id for c in repo.log(branch)}) == 1


def test_a_branch_that_cannot_be_is_refused_before_anything_is_done(repository: Repository, world: World, at: Path):
    put(at / "runs/a/step_1.pt", weights(1))

    with pytest.raises(UsageError):
        planned(repository, branch="a@latest")
    assert world.objects() == {}


def test_the_branch_that_is_checked_out_gets_the_last_one_into_the_workspace(
    repository: Repository, repo: Repo, at: Path, artifact: Path
):
    for step in (1, 2):
        put(at / f"runs/a/step_{step}.pt", weights(step))

    imported(repository, branch="main")

    assert steps(repo, "main") == [1, 2]
    assert_same(dict(repo.load("HEAD"))["model"], weights(2)["model"])
    assert (artifact / "model/tree.json").is_file()


def test_another_branch_leaves_head_index_and_worktree_alone(
    repository: Repository, at: Path, user_work: Callable[[], list[str]]
):
    put(at / "runs/a/step_1.pt", weights(1))
    before, head = user_work(), repository.history.head()

    imported(repository)

    assert user_work() == before
    assert repository.history.head() == head


def test_what_lies_in_the_root_of_the_repository_is_no_run(repository: Repository, repo: Repo, at: Path):
    put(at / "step_1.pt", weights(1))

    imported(repository, "*.pt")

    assert steps(repo, "imported") == [1]


# ------------------------------------------------------------------------------------------------- what is known of each


def test_the_file_counts_before_its_name_and_the_user_before_both(repository: Repository, at: Path):
    put(at / "runs/a/step_7.pt", {**weights(1), "step": 9, "metrics": {"loss": 0.3125}})

    (item,) = planned(repository).items
    assert item.facts.step == 9
    assert item.facts.notes == ("its name says step 7, the file itself 9; the file counts: 9",)

    (item,) = planned(repository, templates=(template("step_{step}.pt"),)).items
    assert item.facts.step == 7
    assert item.facts.notes == ("its name says step 7, the file itself 9; --names counts: 7",)


def test_a_name_that_does_not_fit_is_read_as_ever_and_told(repository: Repository, at: Path):
    put(at / "runs/a/step_7.pt", weights(1))

    (item,) = planned(repository, templates=(template("m_{step}"),)).items

    assert item.facts.step == 7
    assert item.facts.notes == ("its name does not fit --names: it is read as names commonly are",)


def test_names_say_metrics(repository: Repository, repo: Repo, at: Path):
    put(at / "runs/a/epoch=3-step=1200-val_loss=0.31.ckpt", weights(1))
    put(at / "runs/a/m 5 0.25.pt", weights(2))

    imported(repository, templates=(template("m {step} {acc}.pt"),))

    found = {c.manifest.step: (c.manifest.epoch, c.manifest.metrics) for c in repo.log("a")}
    assert found == {1200: (3, {"val_loss": 0.31}), 5: (None, {"acc": 0.25})}


def test_a_trainer_says_what_it_knows(repository: Repository, repo: Repo, at: Path):
    for step, loss in ((5, 0.5), (10, 0.25), (15, 0.4)):
        folder = at / f"runs/bert/checkpoint-{step}"
        put(folder / "optimizer.pt", {"state": {}, "lr": 0.1 / step})
        safetensors.torch.save_file({"w": torch.full((3,), float(step))}, folder / "model.safetensors")
        entry = {"step": step, "eval_loss": loss}
        state = {"global_step": step, "epoch": 0.5, "log_history": [entry], "best_model_checkpoint": "x/checkpoint-10"}
        (folder / "trainer_state.json").write_text(json.dumps(state))

    plan = planned(repository)
    importing.execute(repository, plan)

    assert [(i.facts.step, i.facts.epoch, dict(i.facts.metrics), i.best) for i in plan.items] == [
        (5, 0.5, {"eval_loss": 0.5}, False),
        (10, 0.5, {"eval_loss": 0.25}, True),
        (15, 0.5, {"eval_loss": 0.4}, False),
    ]
    assert repo.show("bert@best:eval_loss").manifest.step == 10


def test_what_is_of_now_is_not_said_to_have_made_it(repository: Repository, repo: Repo, world: World, at: Path):
    (at / "train.py").write_text("x")
    world.git("add", "train.py")
    world.git("commit", "-qm", "code")
    put(at / "runs/a/step_1.pt", weights(1))

    imported(repository)

    (checkpoint,) = repo.log("a")
    provenance = checkpoint.manifest.provenance
    assert (provenance.code.commit, provenance.environment.python, provenance.command, provenance.data) == (
        None,
        "",
        (),
        (),
    )
    assert checkpoint.manifest.reason == "import"
    assert world.git("show", "a:train.py") == "x"


def test_looking_at_large_files_takes_little_memory(repository: Repository, at: Path):
    for n in range(4):
        put(at / f"runs/a/step_{n}.pt", {"model": {"w": torch.full((1 << 22,), float(n))}})

    assert peak(lambda: planned(repository)) < 8 << 20


def test_layers_that_did_not_change_are_stored_once(repository: Repository, at: Path):
    for n in range(3):
        put(at / f"runs/a/step_{n}.pt", {"model": {"frozen": torch.ones(1 << 16), "head": torch.full((4,), float(n))}})

    first, *others = imported(repository)

    assert first.receipt is not None
    assert first.receipt.new_bytes > 4 << 16
    assert all(outcome.receipt is not None and outcome.receipt.new_bytes < 1 << 17 for outcome in others[1:])


# ----------------------------------------------------------------------------------------------------------- same bytes


def test_the_same_bytes_are_one_checkpoint_by_the_name_that_says_most(repository: Repository, repo: Repo, at: Path):
    one = put(at / "runs/a/step_300.pt", weights(3))
    shutil.copy(one, at / "runs/a/best.pt")
    (at / "runs/a/last.pt").symlink_to(one)
    put(at / "runs/a/step_400.pt", weights(4))

    plan = planned(repository)

    assert told(plan) == {"step_300.pt": "new", "best.pt": "same", "last.pt": "same", "step_400.pt": "new"}
    assert {item.same_as for item in plan.items if item.status == "same"} == {"runs/a/step_300.pt"}
    importing.execute(repository, plan)
    assert steps(repo, "a") == [300, 400]


def test_the_same_bytes_in_two_runs_are_a_checkpoint_of_each(repository: Repository, repo: Repo, at: Path):
    for run in "ab":
        put(at / f"runs/{run}/step_1.pt", weights(1))

    first, second = imported(repository)

    assert (steps(repo, "a"), steps(repo, "b")) == ([1], [1])
    assert second.receipt is not None
    assert second.receipt.new_bytes < 1000, "more than the tree was written"
    assert first.receipt is not None


def test_files_of_one_size_are_not_the_same_for_that(repository: Repository, at: Path):
    for n in (1, 2):
        put(at / f"runs/a/step_{n}.pt", weights(n))

    assert set(told(planned(repository)).values()) == {"new"}


# -------------------------------------------------------------------------------------------------------------- again


def test_a_second_import_does_nothing(repository: Repository, repo: Repo, world: World, at: Path):
    for n in (1, 2):
        put(at / f"runs/a/step_{n}.pt", weights(n))
    imported(repository)
    tip = world.git("rev-parse", "a")

    plan = planned(repository)

    assert set(told(plan).values()) == {"there"}
    assert {item.checkpoint for item in plan.items} == {c.id for c in repo.log("a")}
    assert importing.execute(repository, plan) == ()
    assert world.git("rev-parse", "a") == tip


def collected(world: World, keep: str, times: int) -> None:
    """The policy is changed, and carried out so many times."""
    (world.root / "ckpt.yaml").write_text(f"version: 1\nretain:\n  keep: [{keep}]\n  grace: 1h\n")
    world.git("add", "ckpt.yaml")
    world.git("commit", "-qm", "policy", "--allow-empty")
    for _ in range(times):
        gc.collect(Repository.open(world.root), gc.Options(grace_s=0.0, yes_delete=2))


def test_what_was_dropped_since_is_not_there(repository: Repository, repo: Repo, world: World, at: Path):
    for n in (1, 2, 3):
        put(at / f"runs/a/step_{n}.pt", weights(n))
    imported(repository)

    collected(world, "{keep_last: 1}", times=1)
    assert set(told(planned(repository)).values()) == {"there"}, "what is condemned is there"
    assert " there  " in world.ckpt("import", "runs", "-n").out
    assert "condemned 20" in world.ckpt("import", "runs", "-n").out
    collected(world, "{keep_last: 1}", times=1)

    assert told(planned(repository)) == {"step_1.pt": "dropped", "step_2.pt": "dropped", "step_3.pt": "there"}
    done = world.ckpt("import", "runs")
    assert "1 there already; 2 were imported before and dropped since: no rule keeps them" in done.out
    assert " dropped  step 1 " in world.ckpt("import", "runs", "-n").out
    files = world.ckpt("import", "runs", "--json").json["files"]
    assert [file["status"] for file in files] == ["dropped", "dropped", "there"]
    assert files[0]["dropped"]["gone"] == ["model"]
    assert files[2]["dropped"] is None
    imported(repository, branch="again")
    assert steps(repo, "again") == [1, 2, 3]


def test_what_was_dropped_in_part_is_not_there(repository: Repository, world: World, at: Path):
    for n in (1, 2):
        put(at / f"runs/a/step_{n}.pt", {**weights(n), "optimizer": {"m": torch.full((9,), float(n))}})
    imported(repository)

    collected(world, "{keep_last: 1}, {keep_last: 2, components: [model]}", times=2)

    assert told(planned(repository)) == {"step_1.pt": "dropped", "step_2.pt": "there"}
    done = world.ckpt("import", "runs", "-n").out
    assert "1 was imported before and dropped since in part" in done
    assert "dropped optimizer 20" in done


def test_what_was_moved_or_touched_is_known_by_its_bytes(repository: Repository, at: Path):
    put(at / "runs/a/step_1.pt", weights(1))
    imported(repository)

    (at / "elsewhere/a").mkdir(parents=True)
    shutil.move(at / "runs/a/step_1.pt", at / "elsewhere/a/step_0001.pt")
    os.utime(at / "elsewhere/a/step_0001.pt")

    assert told(planned(repository, "elsewhere")) == {"step_0001.pt": "there"}


def test_what_is_new_is_added(repository: Repository, repo: Repo, at: Path):
    put(at / "runs/a/step_1.pt", weights(1))
    imported(repository)
    put(at / "runs/a/step_2.pt", weights(2))

    assert told(planned(repository)) == {"step_1.pt": "there", "step_2.pt": "new"}
    imported(repository)
    assert steps(repo, "a") == [1, 2]


def test_what_is_older_than_the_branch_is_refused_and_stops_no_other(repository: Repository, repo: Repo, at: Path):
    put(at / "runs/a/step_2.pt", weights(2))
    imported(repository)
    put(at / "runs/a/step_1.pt", weights(1))
    put(at / "runs/a/step_3.pt", weights(3))

    plan = planned(repository)

    assert told(plan) == {"step_1.pt": "failed", "step_2.pt": "there", "step_3.pt": "new"}
    (late,) = [item for item in plan.items if item.status == "failed"]
    assert isinstance(late.failure, Refused)
    assert "older than the newest" in late.failure.why
    importing.execute(repository, plan)
    assert steps(repo, "a") == [2, 3]


def test_behind_a_checkpoint_that_was_trained_nothing_older_comes(repository: Repository, repo: Repo, at: Path):
    repo.commit(weights(9), branch="a", step=100)
    put(at / "runs/a/step_99.pt", weights(1))
    put(at / "runs/a/step_101.pt", weights(2))
    put(at / "runs/a/last.pt", weights(3))

    assert told(planned(repository)) == {"step_99.pt": "failed", "last.pt": "failed", "step_101.pt": "new"}


def test_an_import_is_known_by_the_digest_of_the_bytes(repository: Repository, repo: Repo, at: Path):
    path = put(at / "runs/a/step_1.pt", weights(1))

    imported(repository)

    source = repo.show("a").manifest.source
    assert source.metadata == {
        "ckptvcs:digest": f"blake3:{digest(path.read_bytes())}",
        "ckptvcs:bytes": str(path.stat().st_size),
    }
    assert source.header == {}


def test_two_clones_make_the_same_checkpoints(
    repository: Repository, repo: Repo, world: World, at: Path, tmp_path: Path
):
    put(at / "runs/a/step_1.pt", weights(1))
    clone = world.clone(tmp_path / "clone")
    imported(repository)

    other = Repository.open(clone.root)
    imported(other)
    other.close()

    with clone.repo() as there:
        assert there.show("a").id == repo.show("a").id


# ------------------------------------------------------------------------------------------------------- what goes wrong


def test_what_cannot_be_read_says_why_and_stops_no_other(repository: Repository, repo: Repo, at: Path):
    put(at / "runs/a/step_1.pt", weights(1))
    put(at / "runs/a/step_3.pt", weights(3))
    (at / "runs/a/step_2.pt").write_bytes((at / "runs/a/step_1.pt").read_bytes()[:500])

    plan = planned(repository)

    assert told(plan) == {"step_1.pt": "new", "step_3.pt": "new", "step_2.pt": "failed"}
    assert isinstance(plan.items[-1].failure, FormatError)
    importing.execute(repository, plan)
    assert steps(repo, "a") == [1, 3]


def test_whatever_fails_names_its_file(repository: Repository, world: World, at: Path):
    deep: Any = []
    for _ in range(150):
        deep = [deep]
    put(at / "runs/a/step_1.pt", {"model": {"w": torch.ones(4), "s": deep}})
    put(at / "runs/a/step_2.pt", {**weights(2), "odd": Odd()})
    (at / "runs/a/step_3.pt").write_bytes(b"PK\x03\x04")
    put(at / "runs/a/step_4.pt", {"model": {torch.ones(1)}})
    (at / "runs/a/step_5.safetensors").write_bytes(b"\xff" * 40)
    safetensors.torch.save_file({"w": torch.ones(2)}, at / "runs/a/step_6.safetensors", {"ckptvcs:digest": "blake3:0"})
    (at / "runs/a/checkpoint-7").mkdir()
    (at / "runs/a/checkpoint-7/model.safetensors").symlink_to(put(at / "other.pt", weights(1)))

    files = world.ckpt("import", "runs", "--json", status=1).json["files"]

    assert len(files) == 7
    for file in files:
        assert file["status"] == "failed", file["path"]
        assert file["path"] in f"{file['error']['what']} {file['error']['why']}", file
        assert file["error"]["next"]


class Odd:
    """A class that nobody knows."""

    made = 0

    def __init__(self) -> None:
        type(self).made += 1

    def __reduce__(self) -> Any:
        return Odd, ()


def test_a_pickle_is_kept_if_that_is_asked_for_and_never_made_for_looking(repository: Repository, repo: Repo, at: Path):
    put(at / "runs/a/step_1.pt", {**weights(1), "odd": Odd()})

    Odd.made = 0
    assert told(planned(repository)) == {"step_1.pt": "failed"}
    plan = planned(repository, allow_pickle=True)
    assert told(plan) == {"step_1.pt": "new"}
    assert "kept as a pickle" in plan.items[0].looked.notes[0]
    assert Odd.made == 0
    importing.execute(repository, plan)
    assert steps(repo, "a") == [1]
    assert Odd.made > 0


def test_what_changes_after_it_was_looked_at_is_left_for_the_next_time(repository: Repository, repo: Repo, at: Path):
    put(at / "runs/a/step_1.pt", weights(1))
    put(at / "runs/a/step_2.pt", weights(2))
    plan = planned(repository)
    put(at / "runs/a/step_1.pt", weights(5))

    first, second = importing.execute(repository, plan)

    assert first.failure is not None
    assert "changed since" in first.failure.why
    assert second.receipt is not None
    assert steps(repo, "a") == [2]


def test_a_branch_that_moved_meanwhile_is_not_committed_to(repository: Repository, repo: Repo, at: Path):
    put(at / "runs/a/step_1.pt", weights(1))
    plan = planned(repository)
    repo.commit(weights(9), branch="a")

    with pytest.raises(Exception, match="committed to it meanwhile"):
        importing.execute(repository, plan)
    assert len(list(repo.log("a"))) == 1


def test_a_branch_that_another_process_trains_on_is_not_committed_to(
    repository: Repository, world: World, at: Path, python: Any, tmp_path: Path
):
    import subprocess
    import sys

    put(at / "runs/a/step_1.pt", weights(1))
    script = (
        "import sys\nfrom ckptvcs.porcelain.claim import claim_branch\nfrom ckptvcs.porcelain.repo import Repository\n"
        "claim_branch(Repository.open('.'), 'a', run='a', wait_s=0)\nprint('held', flush=True)\nsys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=at
    ) as other:
        assert other.stdout is not None
        other.stdout.readline()
        with pytest.raises(LockHeld, match="cannot import to branch 'a'"):
            imported(repository)
        other.communicate(b"")
    imported(repository)


def test_a_header_that_says_what_only_an_import_notes_is_refused(repository: Repository, at: Path):
    (at / "runs/a").mkdir(parents=True)
    safetensors.torch.save_file({"w": torch.ones(2)}, at / "runs/a/step_1.safetensors", {"ckptvcs:digest": "blake3:0"})

    (outcome,) = imported(repository)

    assert outcome.failure is not None
    assert "ckptvcs:" in outcome.failure.why


def test_a_link_that_leads_out_of_a_folder_is_refused_unless_it_is_asked_for(
    repository: Repository, at: Path, tmp_path: Path
):
    folder = at / "runs/bert/checkpoint-1"
    folder.mkdir(parents=True)
    safetensors.torch.save_file({"w": torch.ones(2)}, tmp_path / "blob")
    (folder / "model.safetensors").symlink_to(tmp_path / "blob")

    assert told(planned(repository)) == {"checkpoint-1": "failed"}
    assert told(planned(repository, follow_links=True)) == {"checkpoint-1": "new"}


def test_a_plan_changes_nothing(repository: Repository, world: World, at: Path, everything: Any):
    put(at / "runs/a/step_1.pt", weights(1))
    before = everything(world)

    planned(repository)

    assert everything(world) == before


def test_the_artifact_of_the_repository_itself_is_not_imported(repository: Repository, repo: Repo, at: Path):
    repo.commit(weights(1))
    put(at / "runs/a/step_1.pt", weights(2))

    assert list(told(planned(repository, "**"))) == ["step_1.pt"]


# -------------------------------------------------------------------------------------------------------------- retain


def test_it_says_what_the_policy_would_keep(repository: Repository, at: Path):
    (at / "ckpt.yaml").write_text("version: 1\nretain:\n  keep:\n    - keep_last: 1\n      keep_every_n_steps: 100\n")
    for step in (50, 100, 150, 200, 250):
        put(at / f"runs/a/step_{step}.pt", weights(step))

    plan = planned(repository)

    assert plan.has_policy
    assert [item.facts.step for item in plan.items if item.kept] == [100, 200, 250]
    assert all(item.kept is not None for item in plan.items)


def test_a_limit_of_bytes_counts_what_lies_around(repository: Repository, at: Path):
    for step in (1, 2, 3):
        put(at / f"runs/a/step_{step}.pt", {"model": {"w": torch.full((1 << 16,), float(step))}})
    (at / "ckpt.yaml").write_text("version: 1\nretain:\n  keep: [{keep_last: 3, max_bytes: 600kB}]\n")

    assert [bool(item.kept) for item in planned(repository).items] == [False, True, True]


def test_without_a_policy_there_is_nothing_to_say(repository: Repository, at: Path):
    put(at / "runs/a/step_1.pt", weights(1))

    plan = planned(repository)

    assert not plan.has_policy
    assert plan.items[0].kept is None


# ------------------------------------------------------------------------------------------------------ any set of files


@pytest.mark.parametrize("seed", range(5))
def test_any_interruption_leads_to_the_same_history(
    seed: int, repository: Repository, world: World, at: Path, tmp_path: Path
):
    chance = random.Random(seed)
    for n in range(8):
        name = chance.choice([f"step_{chance.randrange(9)}", f"epoch_{chance.randrange(4)}", f"x{n}"])
        put(
            at / f"runs/a/{name}_{n}z.pt" if "x" in name else at / f"runs/a/{n}_{name}.pt",
            weights(n),
            chance.randrange(5),
        )
    clone = World(Path(shutil.copytree(world.root, tmp_path / "clone")))
    imported(repository)

    class Stop(BaseException):
        pass

    class Impatient(importing.Watcher):
        def told(self, outcome: importing.Outcome) -> None:
            if chance.random() < 0.5:
                raise Stop

    os.chdir(clone.root)
    other = Repository.open(clone.root)
    for _ in range(30):
        try:
            importing.execute(other, planned(other), Impatient())
            break
        except Stop:
            continue
    other.close()

    assert clone.git("rev-parse", "a") == world.git("rev-parse", "a")
    assert import_look.DIGEST in clone.git("show", "a:checkpoints/model.json")
