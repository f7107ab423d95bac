"""The help says what a verb does, with examples; and looking costs no import of what looking does not need."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest

from ckptvcs.cli.main import VERBS, cli
from tests.support.world import World
from tests.unit.cli.conftest import Ckpt

TOP = [verb for verbs in VERBS.values() for verb in verbs]
WRITERS = [
    *("init", "commit", "import", "merge", "note", "checkout", "restore", "branch", "tag", "export"),
    *("remote add", "push", "fetch", "pull"),
    *("hold", "release", "audit allow", "audit revoke"),
    *("hooks install", "hooks uninstall"),
    *("gc", "policy apply", "ci init"),
]


def command(verb: str) -> click.Command:
    """A verb, or one below a verb: `policy show`."""
    found: click.Command | None = cli
    for word in verb.split():
        assert isinstance(found, click.Group)
        found = found.get_command(click.Context(found), word)
    assert found is not None
    return found


def with_those_below(verb: str) -> list[str]:
    found = command(verb)
    return [f"{verb} {name}" for name in found.commands] if isinstance(found, click.Group) else [verb]


ALL = [below for verb in TOP for below in with_those_below(verb)]


def options(verb: str) -> set[str]:
    return {name for parameter in command(verb).params for name in parameter.opts}


@pytest.mark.parametrize("verb", ALL)
def test_the_help_of_a_verb_has_examples_that_begin_with_it(verb: str, ckpt: Ckpt):
    done = ckpt(*verb.split(), "--help")

    examples = done.out.split("Examples:\n")[1].split("\n\n")[0].splitlines()
    assert done.status == 0
    assert done.err == ""
    assert len(examples) >= 2
    assert all(line.strip().startswith(f"ckpt {verb}") for line in examples)


@pytest.mark.parametrize("verb", ALL)
def test_the_options_of_an_example_exist(verb: str, ckpt: Ckpt):
    examples = ckpt(*verb.split(), "--help").out.split("Examples:\n")[1].split("\n\n")[0]

    used = set(re.findall(r"(?<=\s)--?[a-z][a-z-]*", examples))

    assert used <= options(verb)


@pytest.mark.parametrize("verb", TOP)
def test_the_help_of_a_verb_begins_as_the_list_of_verbs_says(verb: str):
    said = next(text for verbs in VERBS.values() for name, text in verbs.items() if name == verb)

    assert (command(verb).help or "").splitlines()[0] == said


@pytest.mark.parametrize("verb", ALL)
def test_every_verb_answers_in_json(verb: str, ckpt: Ckpt):
    assert "--json" in options(verb)
    assert "--json" in ckpt(*verb.split(), "--help").out


@pytest.mark.parametrize("verb", ALL)
def test_what_writes_and_nothing_else_has_a_dry_run(verb: str):
    assert ("--dry-run" in options(verb)) == (verb in WRITERS)


@pytest.mark.parametrize("verb", ALL)
def test_every_option_says_what_it_does(verb: str):
    for parameter in command(verb).params:
        if isinstance(parameter, click.Option):
            text = parameter.help or ""
            assert text, parameter.opts
            assert text[0].isupper(), parameter.opts
            assert text.rstrip("]").endswith((".", "50")), parameter.opts


@pytest.mark.parametrize("words", [["--help"], ["-h"]])
def test_the_help_lists_every_verb_and_every_exit_status(words: list[str], ckpt: Ckpt):
    done = ckpt(*words)

    assert done.status == 0
    assert [verb for verb in TOP if not re.search(rf"^  {verb} ", done.out, re.MULTILINE)] == []
    for status in ("0", "1", "2", "10", "11", "12", "20", "30", "40", "50", "70", "130"):
        assert re.search(rf"\b{status}\b", done.out.split("Exit status:")[1]), status
    for form in ("BRANCH@latest", "BRANCH@best", "BRANCH@best:METRIC", "BRANCH@step:N"):
        assert form in done.out


@pytest.mark.parametrize("verb", sorted({"", *TOP, *ALL}))
def test_the_help_fits_a_terminal(verb: str, ckpt: Ckpt):
    lines = ckpt(*verb.split(), "--help").out.splitlines()

    assert max(map(len, lines)) <= 100


def test_the_version_is_told(ckpt: Ckpt):
    assert re.fullmatch(r"ckpt, version \d+\.\d+\.\d+\S*\n", ckpt("--version").out)


# ------------------------------------------------------------------------------------------------------------- imports

_RUN = """
import json, sys
from ckptvcs.cli.main import run
status = run(sys.argv[1:], as_json=False)
print(json.dumps({"status": status, "modules": sorted(sys.modules)}), file=sys.stderr)
"""


def modules(*words: str, at: Path) -> set[str]:
    """The modules that a command imports, in a process of its own."""
    done = subprocess.run([sys.executable, "-c", _RUN, *words], cwd=at, capture_output=True, text=True, check=True)
    report = json.loads(done.stderr.splitlines()[-1])
    assert report["status"] == 0, done.stderr
    return set(report["modules"])


HEAVY = {"torch", "dvc", "dvc_data", "dvc_objects", "numpy", "transformers", "lightning"}


@pytest.mark.parametrize(
    "words",
    [["--help"], ["--version"], ["commit", "--help"], ["log", "--help"], ["completion", "bash"]],
    ids=" ".join,
)
def test_help_imports_nothing_heavy(words: list[str], tmp_path: Path):
    assert not modules(*words, at=tmp_path) & {*HEAVY, "pygit2", "pydantic", "yaml", "rich", "safetensors"}


@pytest.mark.parametrize(
    "words",
    [
        ["log"],
        ["log", "--graph", "--all"],
        ["show"],
        ["show", "main@best:val_loss", "--tensors"],
        ["status"],
        ["branch"],
        ["tag"],
        ["policy", "show"],
        ["policy", "calibrate"],
        ["diff", "HEAD~1"],
        ["diff", "HEAD~1", "--tensors", "--json"],
    ],
    ids=" ".join,
)
def test_looking_imports_neither_torch_nor_dvc(words: list[str], ground: World):
    assert not modules(*words, at=ground.root) & HEAVY


@pytest.mark.parametrize("verb", ["log", "status", "branch", "tag"])
def test_looking_around_imports_only_what_it_needs(verb: str, ground: World):
    modules(verb, at=ground.root)  # from now on it is remembered what ckpt.yaml means, and what lies in the workspace

    found = modules(verb, at=ground.root)

    assert not found & {"pydantic", "yaml", "rich", "concurrent.futures"}
    assert not found & {"ckptvcs.domain.policy", "ckptvcs.domain.retention", "ckptvcs.storage.workspace"}


@pytest.mark.parametrize(
    "words", [["branch", "new"], ["tag", "v1"], ["restore", "HEAD"], ["checkout", "exp-a"]], ids=" ".join
)
def test_going_about_imports_neither_torch_nor_dvc(words: list[str], world: World):
    assert not modules(*words, at=world.root) & HEAVY


@pytest.mark.parametrize("extra", [[], ["--dry-run"], ["--json"]], ids=str)
def test_a_commit_of_a_torch_file_imports_neither_torch_nor_dvc(extra: list[str], world: World, ground: World):
    found = modules("commit", str(ground.root.parent / "3.pt"), *extra, at=world.root)

    assert not found & {"torch", "dvc", "dvc_data", "dvc_objects", "pickle"}
    assert not found & {"ckptvcs.porcelain.api", "ckptvcs.porcelain.push"}


def test_the_package_imports_nothing_until_it_is_used(tmp_path: Path):
    script = (
        "import ckptvcs, sys; print([m for m in ('torch', 'pygit2', 'numpy', 'msgspec', 'click') if m in sys.modules])"
    )

    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True)

    assert done.stdout == "[]\n"
