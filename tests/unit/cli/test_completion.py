"""Shells complete verbs, options, branches, tags and selectors; where there is no repository, nothing breaks."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.world import World
from tests.unit.cli.conftest import Ckpt


def completed(words: str, at: Path) -> set[str]:
    """What bash would offer for the last word of a line."""
    typed = words.split(" ")
    environment = {"_CKPT_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(len(typed) - 1)}
    done = subprocess.run(
        [sys.executable, "-m", "ckptvcs"],
        cwd=at,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    return {line.partition(",")[2] for line in done.stdout.splitlines() if line}


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("ckpt che", {"checkout"}),
        ("ckpt show --", {"--tensors", "--track", "--json", "--help"}),
        ("ckpt completion ", {"bash", "zsh", "fish"}),
        ("ckpt show exp", {"exp-a", "exp-a@latest", "exp-a@best"}),
        ("ckpt checkout main", {"main", "main@latest", "main@best"}),
        ("ckpt diff gold", {"golden/base"}),
        ("ckpt diff HEAD gold", {"golden/base"}),
        ("ckpt branch new H", {"HEAD"}),
        ("ckpt log zzz", set()),
    ],
)
def test_what_was_begun_is_completed(words: str, offered: set[str], ground: World):
    assert completed(words, ground.root) == offered


@pytest.mark.parametrize("words", ["ckpt show m", "ckpt checkout "])
def test_without_a_repository_no_revision_is_offered(words: str, tmp_path: Path):
    assert completed(words, tmp_path) == set()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_of_a_shell_calls_ckpt(shell: str, ckpt: Ckpt):
    script = ckpt("completion", shell).out

    assert f"_CKPT_COMPLETE={shell}_complete" in script
    assert ckpt("completion", shell, "--json").json == {"shell": shell, "script": script.removesuffix("\n")}


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
def test_bash_understands_the_script(ckpt: Ckpt):
    script = ckpt("completion", "bash").out

    subprocess.run(["bash", "-n"], input=script, text=True, check=True)


def test_another_shell_is_refused(ckpt: Ckpt):
    done = ckpt("completion", "tcsh")

    assert done.status == 2
    assert "'tcsh'" in done.err
