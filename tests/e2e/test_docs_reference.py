"""The reference pages are what the code says, what is explained holds, and no link in the documentation leads nowhere."""

from __future__ import annotations

import ast
import dataclasses
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
import torch

import ckptvcs
from ckptvcs.cli.main import VERBS
from ckptvcs.domain import policy, revisions, schema
from tests.support import reference
from tests.support.states import training_state
from tests.support.world import World

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


# ------------------------------------------------------------------------------------------------------ generated pages


@pytest.mark.parametrize("name", ["cli.md", "configuration.md", "errors.md", "python.md"])
def test_a_generated_page_is_what_the_code_says(name: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("FORCE_COLOR", "1")

    assert (reference.FOLDER / name).read_text(encoding="utf-8") == reference.pages()[name], "run 'make docs'"


def test_the_check_says_which_page_is_stale(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert reference.main(["--check"]) == 0

    monkeypatch.setattr(reference, "FOLDER", tmp_path)
    assert reference.main(["--check"]) == 1
    assert "docs/reference/cli.md is not what the code says" in capsys.readouterr().err
    assert reference.main([]) == 0
    assert reference.main(["--check"]) == 0


def keys(value: Any) -> set[str]:
    (value,) = value[:1] if isinstance(value, list) else (value,)
    return set(value)


def told(verb: str, when: str = "") -> set[str]:
    found = {key for moment, key, _ in reference.JSON[verb] if moment == when}
    return found - {"..."} | ({key for key, _ in reference.CHECKPOINT_KEYS} if "..." in found else set())


def told_below(verb: str) -> dict[str, set[str]]:
    """The keys of an answer, and those of what it has lists of."""
    found: dict[str, set[str]] = {}
    for when, key, _ in reference.JSON[verb]:
        place = next(iter(re.findall(r"`(.*)`", when)), "")
        found.setdefault(place, set()).add(key)
        if place:
            found.setdefault("", set()).add(place)
    return found


def shown_below(answer: Any) -> dict[str, set[str]]:
    """The same of an answer; a mapping with keys that are no words of ours is none."""
    (answer,) = answer[:1] if isinstance(answer, list) else (answer,)
    found = {"": set(answer)}
    for key, value in answer.items():
        inner = value[0] if isinstance(value, list) and value else value
        if isinstance(inner, dict) and key not in ("dropped", "fate", "ranks"):
            found[key] = set(inner)
    return found


def retention_of(world: World, tmp_path: Path, said: dict[str, Any]) -> dict[str, dict[str, set[str]]]:
    """What `why`, `gc` and `policy` answer, as far as a short history makes them say it."""
    found: dict[str, dict[str, set[str]]] = {}

    def ask(verb: str, *args: str) -> Any:
        name = f"{verb} --rescue" if "--rescue" in args else verb
        said.setdefault(verb.split(maxsplit=1)[0], []).append((*verb.split(), *args))
        answer = world.ckpt(*verb.split(), *args, "--json").json
        for place, keys in shown_below(answer).items():
            found.setdefault(name, {})[place] = keys
        return answer

    for seed, loss in ((5, "0.1"), (6, "0.2"), (7, "0.3")):
        torch.save(training_state(seed), tmp_path / "r.pt")
        world.ckpt("commit", "../r.pt", "--branch", "ret", "--step", str(seed), "--metric", f"val_loss={loss}")
    policy_file = world.root / "ckpt.yaml"
    policy_file.write_text(
        policy_file.read_text() + "retain:\n  keep:\n    - {branches: [ret], keep_last: 3, max_bytes: 1B}\n"
    )
    for verb in ("gc", "policy apply"):
        ask(verb, "-n")  # which stops: the policy is not committed
    world.git("commit", "-qam", "A policy")
    ask("why", "ret@step:5", "--ask")
    ask("why", "ret@step:6")
    ask("policy plan", "--output", "plan.json")
    ask("policy simulate", "--every", "1h", "--for", "2d", "--size", "1GB")
    found["policy simulate"]["lost"] = {"use", "gone_at"}  # nothing was lost
    dropped = ask("gc", "-n")["dropped"]
    ask("policy apply", "--yes-delete", str(len(dropped)))
    ask("policy apply", "-n")
    ask("gc", "-n")
    ask("gc", "--rescue", "ret@step:6")
    return found


def test_every_verb_answers_in_json_with_the_keys_of_the_page(world: World, tmp_path: Path):
    torch.save(training_state(1), tmp_path / "a.pt")
    torch.save(training_state(2), tmp_path / "b.pt")
    said = {}

    def ask(*args: str, status: int = 0) -> Any:
        said.setdefault(args[0], []).append(args)
        return world.ckpt(*args, "--json", status=status).json

    assert keys(ask("init")) == told("init")
    assert keys(ask("commit", "../a.pt")) == told("commit")
    assert keys(ask("commit", "../b.pt", "-n")) == told("commit", "with `-n`")
    listed = ask("import", "../a.pt", "--run", "x2", "-n")
    assert keys(listed) == told("import")
    (text,) = [text for _, key, text in reference.JSON["import"] if key == "files"]
    named = set(re.findall(r"`([a-z_]+)`", text)) - {
        "new",
        "imported",
        "there",
        "same",
        "failed",
        "retain",
        "what",
        "why",
        "next",
    }
    assert keys(listed["files"]) == named
    world.ckpt("commit", "../b.pt")
    assert keys(ask("note", "HEAD", "--metric", "acc=0.5")) == told("note")
    log = ask("log")
    assert keys(log) == told("log")
    assert keys(log["checkpoints"]) == {key for key, _ in reference.CHECKPOINT_KEYS}
    assert keys(ask("show")) == told("show")
    assert keys(ask("show", "--tensors")) == told("show") | told("show", "with `--tensors`")
    assert keys(ask("status")) == told("status")
    assert keys(ask("diff", "HEAD~1")) == told("diff")
    assert keys(ask("branch")) == told("branch", "each of the list")
    assert keys(ask("branch", "x")) == told("branch", "with NAME")
    assert keys(ask("tag", "--golden", "x")) == told("tag", "with NAME")
    assert keys(ask("tag")) == told("tag", "each of the list")
    assert keys(ask("hold", "HEAD", "--why", "x")) == told("hold", "with REV")
    assert keys(ask("hold")) == told("hold", "each of the list")
    assert keys(ask("release", "HEAD")) == told("release")
    assert keys(ask("audit", "allow")) == told("audit allow")
    for words, status in (("log", 0), ("keys", 0)):
        assert keys(ask("audit", words, status=status)) == told(f"audit {words}", "each of the list")
    for words in ("verify", "heads"):
        assert keys(ask("audit", words)) == told(f"audit {words}")
    assert keys(ask("merge", "HEAD", "HEAD~1")) == told("merge")
    same = told("merge") - {"id", "commit", "step", "grade"}
    assert keys(ask("merge", "main", "HEAD~1", "-n")) == {"dry_run"} | same
    assert keys(ask("checkout", "HEAD~1")) == told("checkout")
    assert keys(ask("restore", "HEAD")) == told("restore")
    assert keys(ask("export", "HEAD", "../x.pt")) == told("export")
    world.git("init", "-q", "--bare", "-b", "main", "../hub.git")
    world.git("remote", "add", "origin", "../hub.git")
    assert keys(ask("remote", "add", "share", "../store")) == told("remote add")
    assert keys(ask("remote", "list")) == told("remote list", "each of the list")
    assert keys(ask("remote", "show", "share")) == told("remote show")
    assert keys(ask("push", "x")) == told("push")
    assert keys(ask("fetch")) == told("fetch")
    assert keys(ask("pull")) == told("pull")
    assert keys(ask("policy", "show")) == {field.name for field in dataclasses.fields(policy.Config)}
    assert keys(ask("policy", "calibrate")) == told("policy calibrate")
    for name, found in retention_of(world, tmp_path, said).items():
        assert found == told_below(name), name
    assert keys(ask("policy", "check")) == told("policy check")
    assert keys(ask("alerts")) == told("alerts")
    assert keys(ask("ci", "init", "--kind", "cron", "-n")) == told("ci init")
    assert keys(ask("ci", "init", "--list")) == told("ci init", "each of the list")
    assert keys(ask("hooks", "install")) == told("hooks install")
    assert keys(ask("hooks", "uninstall")) == told("hooks uninstall")
    assert keys(ask("doctor")) == told("doctor")
    assert keys(ask("audit", "revoke", "test@example.com")) == told("audit revoke")
    assert keys(ask("completion", "bash")) == told("completion")
    assert set(said) == {name.split()[0] for name in reference.JSON} == {verb for v in VERBS.values() for verb in v}


def test_every_public_name_is_on_the_page_of_python():
    text = reference.python_page()

    assert all(f"`{name}`" in text or f"## {name}" in text or f"ckptvcs.{name}" in text for name in ckptvcs.__all__)


@pytest.mark.parametrize("block", re.findall(r"```yaml\n(.*?)```", reference.configuration_page(), re.DOTALL))
def test_the_configurations_of_the_page_can_be_used(block: str):
    import yaml

    assert isinstance(schema.parse(yaml.safe_load(block)), policy.Config)


def test_the_first_configuration_of_the_page_is_the_default():
    import yaml

    block = re.findall(r"```yaml\n(.*?)```", reference.configuration_page(), re.DOTALL)[0]

    assert schema.parse(yaml.safe_load(block)) == policy.Config()


def test_the_environment_of_the_page_is_what_the_code_reads():
    said = set(re.findall(r"[A-Z]+_[A-Z_]+", " ".join(name for name, _ in reference.ENVIRONMENT)))
    read = set()
    for module in (ROOT / "ckptvcs").rglob("*.py"):
        tree = ast.parse(module.read_text(encoding="utf-8"))
        constants = {
            node.target.id: node.value
            for node in tree.body
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value is not None
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("variables.get", "os.environ.get")):
                name = node.args[0]
                read.add(ast.literal_eval(constants[name.id] if isinstance(name, ast.Name) else name))

    assert read == said


# ------------------------------------------------------------------------------------------------------------ revisions


def tables(page: str) -> list[list[list[str]]]:
    """The rows of each table of a page, without the head; cells without the ticks around them."""
    text = (DOCS / page).read_text(encoding="utf-8")
    found = re.findall(r"^\|.*\n\|[-| ]+\n((?:\|.*\n)+)", text, re.MULTILINE)
    return [
        [[cell.strip().strip("`") for cell in row.strip("|\n").split(" | ")] for row in t.splitlines()] for t in found
    ]


@pytest.fixture
def history(world: World, tmp_path: Path) -> World:
    """What the example of the page makes."""
    text = (DOCS / "reference/revisions.md").read_text(encoding="utf-8")
    (script,) = re.findall(r"<!-- example: history -->\n```sh\n(.*?)\n```", text, re.DOTALL)
    for name, seed in (("a", 1), ("b", 2), ("c", 3)):
        torch.save({"model": torch.nn.Linear(2, 2).state_dict(), "seed": seed}, world.root / f"{name}.pt")
    for line in script.splitlines():
        words = re.findall(r'"([^"]+)"|(\S+)', line)
        program, *args = [quoted or plain for quoted, plain in words]
        world.ckpt(*args) if program == "ckpt" else world.git(*args)
    return world


def test_revisions_mean_what_the_page_says(history: World):
    *_, works, fails = tables("reference/revisions.md")

    with history.repo() as repo:
        assert {revision: str(repo.show(revision).manifest.step) for revision, *_ in works} == {
            revision: step for revision, step, *_ in works
        }
        for revision, kind, status, *_ in fails:
            with pytest.raises(ckptvcs.CkptvcsError) as caught:
                repo.show(revision)
            assert (caught.value.kind, str(caught.value.exit_status)) == (kind, status), revision
        for checkpoint in repo.log("main"):
            assert repo.show(checkpoint.id) == repo.show(checkpoint.id[:12]) == checkpoint


def test_the_directions_of_metrics_are_those_of_the_page():
    text = " ".join((DOCS / "reference/revisions.md").read_text(encoding="utf-8").split())
    less, _, more = text.partition("A name is taken apart")[2].partition("Else more is better")
    named = dict.fromkeys(re.findall(r"`([a-z0-9]+)`", less), "min")
    named |= dict.fromkeys(re.findall(r"`([a-z0-9]+)`", more.partition("Else it is an error")[0]), "max")
    named.pop("1", None)

    assert {word: revisions.mode_of(word) for word in named} == named
    assert set(named) == {*revisions._MINIMISED, *revisions._MAXIMISED}


# ------------------------------------------------------------------------- what the explanations say, and no other test


def everything(root: Path) -> dict[str, bytes]:
    """All files of a repository but the hints of ours, with their modes."""
    return {
        path.relative_to(root).as_posix(): path.read_bytes() + f"{path.lstat().st_mode:o}".encode()
        for path in root.rglob("*")
        if path.is_file() and not path.is_relative_to(root / ".git/ckptvcs")
    }


@pytest.fixture
def committed(world: World, tmp_path: Path) -> World:
    """Two checkpoints, with the file of a third beside the repository."""
    for seed in (1, 2, 3):
        torch.save(training_state(seed), tmp_path / f"{seed}.pt")
    world.ckpt("commit", "../1.pt")
    world.ckpt("commit", "../2.pt")
    return world


def test_looking_changes_nothing(committed: World):
    before = everything(committed.root)

    for line in ("status", "log --graph --all", "show --tensors", "diff HEAD~1 --values", "doctor", "branch", "tag"):
        committed.ckpt(*line.split())
    for line in (
        "init",
        "commit ../3.pt",
        "note HEAD --metric acc=0.5",
        "checkout HEAD~1 -b x",
        "restore HEAD~1",
        "branch x",
        "tag x",
        "export HEAD x.pt",
    ):
        committed.ckpt(*line.split(), "-n")

    assert everything(committed.root) == before


def test_the_last_name_of_a_checkpoint_is_not_deleted(committed: World):
    committed.ckpt("commit", "../3.pt", "--branch", "exp")

    assert "lead" in committed.ckpt("branch", "-d", "exp", status=50).err
    committed.ckpt("tag", "keep", "exp")
    committed.ckpt("branch", "-d", "exp")
    assert "last name" in committed.ckpt("tag", "-d", "keep", status=50).err


def test_a_file_that_is_saved_nowhere_is_not_overwritten(committed: World):
    note = committed.root / "checkpoints/model/model/notes.txt"
    note.write_text("mine")

    for verb in ("checkout", "restore"):
        assert "notes.txt" in committed.ckpt(verb, "HEAD~1", status=50).err

    assert note.read_text() == "mine"


def test_processes_that_commit_at_once_all_get_through(committed: World, tmp_path: Path):
    command = [sys.executable, "-m", "ckptvcs", "commit", "../3.pt", "--branch", "exp", "--step"]

    running = [subprocess.Popen([*command, str(n)], cwd=committed.root, stdout=subprocess.DEVNULL) for n in range(4)]
    ends = [process.wait() for process in running]

    assert ends == [0] * 4
    with committed.repo() as repo:
        steps = [checkpoint.manifest.step for checkpoint in repo.log("exp")]
        assert (sorted(steps[:4]), steps[4:]) == ([0, 1, 2, 3], [2, 1])
        assert all(repo.load(f"exp@step:{n}")["step"] == 3 for n in (0, 3))


def test_golden_marks_do_not_move(committed: World, tmp_path: Path):
    committed.ckpt("tag", "--golden", "base", "HEAD~1")
    clone = committed.clone(tmp_path / "clone")
    there = committed.git("rev-parse", "golden/base")

    assert "immutable" in committed.ckpt("tag", "--golden", "base", status=50).err
    assert "immutable" in committed.ckpt("tag", "-d", "golden/base", status=50).err
    assert committed.git("rev-parse", "golden/base") == there

    committed.git("tag", "-f", "-a", "-m", "rewritten", "golden/base", "HEAD")
    clone.git("fetch", "--tags", "-q", status=1)
    assert clone.git("rev-parse", "golden/base") == there


def test_no_code_of_a_file_runs(committed: World, tmp_path: Path):
    class Trap:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(tmp_path / "sprung"),)

    torch.save({"model": {"w": torch.ones(2)}, "extra": Trap()}, tmp_path / "trap.pt")

    assert "posix.mkdir" in committed.ckpt("commit", "../trap.pt", status=40).err
    assert not (tmp_path / "sprung").exists()
    committed.ckpt("commit", "../trap.pt", "--allow-pickle")
    assert (tmp_path / "sprung").exists()


def test_every_module_is_on_the_page_of_the_architecture():
    (tree,) = re.findall(
        r"^ckptvcs/\n(.*?)^```", (DOCS / "explanation/architecture.md").read_text(), re.DOTALL | re.MULTILINE
    )
    named, folder = set(), ""
    for line in tree.splitlines():
        if re.match(r"  \w+/$", line):
            folder = line.strip()
        elif line.startswith("  ") and not line.startswith("   "):
            folder = ""
        named |= {folder + name for name in re.findall(r"[\w/]+\.py", line)}
    modules = {path.relative_to(ROOT / "ckptvcs").as_posix() for path in (ROOT / "ckptvcs").rglob("*.py")}

    assert named == {name for name in modules if not name.endswith("/__init__.py")}


# ---------------------------------------------------------------------------------------------------------------- links


def without_code(text: str) -> str:
    return re.sub(r"`[^`\n]*`", "", re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE))


def anchors(page: Path) -> set[str]:
    """The names of the headings of a page, as GitHub and others make them."""
    found: set[str] = set()
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    for title in re.findall(r"^#+ (.+)$", text, re.MULTILINE):
        base = slug = re.sub(r"[^\w\- ]", "", title.strip().lower()).replace(" ", "-")
        number = 0
        while slug in found:
            number += 1
            slug = f"{base}-{number}"
        found.add(slug)
    return found


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page: Path):
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", without_code(page.read_text(encoding="utf-8"))):
        path, _, anchor = link.partition("#")
        if re.match(r"[a-z]+:", link):
            continue
        target = (page.parent / unquote(path)).resolve() if path else page
        there = target.exists() and target.is_relative_to(ROOT)
        if not there or (anchor and (target.suffix != ".md" or anchor not in anchors(target))):
            broken.append(link)

    assert broken == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_tests_that_are_named_exist(page: Path):
    text = page.read_text(encoding="utf-8")
    missing = []
    for path, name in re.findall(r"(tests/[\w/]+\.py)::(\w+)", text):
        module = ROOT / path
        if not module.is_file() or not re.search(rf"^\s*(def|class) {name}\b", module.read_text(), re.MULTILINE):
            missing.append(f"{path}::{name}")

    assert missing == []
