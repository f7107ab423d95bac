"""DVC's configuration as DVC reads it: the real program is the oracle."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ckptvcs.errors import BadConfig, NoRepository
from ckptvcs.storage.dvc.config import INIT_FILES, add_remote, find_root, read_config

CONFIGS = {
    "empty": {},
    "a folder beside": {"config": "[cache]\n    dir = ../shared\n"},
    "a folder elsewhere": {"config": "[cache]\n    dir = /data/cache\n"},
    "a folder at home": {"config": "[cache]\n    dir = ~/cache\n"},
    "a roundabout path": {"config": "[cache]\n    dir = ../a/./b/../c\n"},
    "a local override": {"config": "[cache]\n    dir = one\n", "config.local": "[cache]\n    dir = two\n"},
    "another section in local": {"config": "[cache]\n    dir = one\n", "config.local": "[core]\n    remote = r\n"},
    "what the user says everywhere": {"global": "[cache]\n    dir = /data/user\n"},
    "what the system says everywhere": {"system": "[cache]\n    dir = /data/system\n"},
    "user before system": {"global": "[core]\n    remote = u\n", "system": "[core]\n    remote = s\n"},
    "repository before user": {"config": "[core]\n    remote = r\n", "global": "[core]\n    remote = u\n"},
    "a group": {"config": "[cache]\n    shared = group\n"},
    "hard-linked locks": {"config": "[core]\n    hardlink_lock = true\n"},
    "hard-linked locks, in capitals": {"config": "[core]\n    hardlink_lock = True\n"},
    "no hard-linked locks": {"config": "[core]\n    hardlink_lock = false\n"},
    "remotes": {
        "config": "['remote \"a\"']\n    url = s3://bucket/a\n['remote \"b c\"']\n    url = ../b\n[core]\n    remote = a\n"
    },
    "percent signs and comments": {"config": "# note\n['remote \"a\"']\n    url = https://x/%41%20y  # why\n"},
    "text that is not ASCII": {"config": "['remote \"é\"']\n    url = /data/ü\n[cache]\n    dir = /data/ü\n"},
}

ASK = """
import json, os, sys
from dvc.repo import Repo
told = []
for folder, home in json.load(sys.stdin):
    os.environ["DVC_GLOBAL_CONFIG_DIR"], os.environ["DVC_SYSTEM_CONFIG_DIR"] = f"{home}/global", f"{home}/system"
    repo = Repo(folder)
    core = repo.config["core"]
    told.append([repo.cache.local_cache_dir, repo.config["cache"].get("shared"), core.get("remote"),
                 bool(core.get("hardlink_lock")), sorted(repo.config["remote"])])
print(json.dumps(told))
"""


def write_config(folder: Path, files: dict[str, str]) -> tuple[Path, Path]:
    """A DVC repository with these configuration files, and a home with those of the user and the system."""
    root, home = folder / "repo", folder / "home"
    (root / ".dvc/tmp").mkdir(parents=True)
    (root / ".dvc/config").touch()
    subprocess.run(["git", "init", "-q"], cwd=root, check=True)
    for name, text in files.items():
        path = home / name / "config" if name in ("global", "system") else root / ".dvc" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return root, home


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Path, list]]:
    """What DVC makes of each configuration: name -> (root, home, answer)."""
    folder = tmp_path_factory.mktemp("configs")
    made = {name: write_config(folder / str(n), files) for n, (name, files) in enumerate(CONFIGS.items())}
    batch = json.dumps([[str(root), str(home)] for root, home in made.values()])
    environment = {**os.environ, "HOME": str(folder), "DVC_SITE_CACHE_DIR": str(folder / "site")}
    done = subprocess.run(
        [sys.executable, "-c", ASK], input=batch, env=environment, capture_output=True, check=True, text=True
    )
    told = json.loads(done.stdout.splitlines()[-1])
    return {name: (root, home, answer) for (name, (root, home)), answer in zip(made.items(), told, strict=True)}


@pytest.mark.parametrize("name", CONFIGS)
def test_a_configuration_means_what_it_means_to_dvc(name: str, answers, monkeypatch: pytest.MonkeyPatch):
    root, home, (cache, shared, remote, hardlink_lock, remotes) = answers[name]
    monkeypatch.setenv("HOME", str(root.parent.parent))

    config = read_config(root, (home / "system/config", home / "global/config"))

    assert config.cache_dir == Path(os.path.normpath(cache))
    assert config.shared_group == (shared == "group")
    assert config.default_remote == remote
    assert config.hardlink_lock == hardlink_lock
    assert sorted(config.remotes) == remotes


@pytest.mark.parametrize("text", ["no section", "[cache\n", "[cache]\ndir = 'unclosed\n", "[a]\n[a]\n"])
def test_what_is_no_configuration_is_named(tmp_path: Path, text: str):
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc/config").write_text(text)

    with pytest.raises(BadConfig) as caught:
        read_config(tmp_path, ())

    assert str(tmp_path / ".dvc/config") in caught.value.what


def test_bytes_that_are_no_text_are_no_configuration(tmp_path: Path):
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc/config").write_bytes(b"[core]\n    remote = \xff\xfe\n")

    with pytest.raises(BadConfig):
        read_config(tmp_path, ())


def test_files_that_are_not_there_say_nothing(tmp_path: Path):
    config = read_config(tmp_path, (tmp_path / "system", tmp_path / "global"))

    assert config.cache_dir == tmp_path / ".dvc/cache"
    assert (config.remotes, config.default_remote, config.shared_group) == ({}, None, False)


# ----------------------------------------------------------------------------------------------------------- remotes


@pytest.mark.parametrize(
    ("before", "url", "default"),
    [
        ("", "s3://bucket/path", True),
        ("", "/data/store", False),
        ("", "ssh://user@host:22/a b/#c,d", True),
        ("[core]\n    autostage = true\n", "s3://bucket", True),
        ("['remote \"other\"']\n    url = /other\n    jobs = 4\n", "/data", False),
        ("# a comment\n[core]\n    remote = other\n['remote \"other\"']\n    url = /o\n", "/data", True),
    ],
)
def test_a_remote_of_ours_is_to_dvc_what_it_would_have_written(
    tmp_path: Path, dvc_project: Path, dvc, before: str, url: str, *, default: bool
):
    (dvc_project / ".dvc").mkdir()
    (dvc_project / ".dvc/config").write_text(before)
    theirs = tmp_path / "theirs"
    shutil.copytree(dvc_project, theirs)

    add_remote(dvc_project, "store", url, default=default)

    looks = [(folder, command) for folder in (dvc_project, theirs) for command in ("remote list", "config -l")]
    told = dvc((theirs, f"remote add -q {'-d' if default else ''} store '{url}'"), *looks)
    assert f"store {url}" in " ".join(told[1].split())
    assert [sorted(out.splitlines()) for out in told[1:3]] == [sorted(out.splitlines()) for out in told[3:5]]


def test_a_remote_that_is_there_gets_the_new_url_and_keeps_its_options(tmp_path: Path):
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc/config").write_text("['remote \"store\"']\n    url = /old\n    jobs = 4\n")

    add_remote(tmp_path, "store", "/new", default=False)

    assert read_config(tmp_path, ()).remotes == {"store": {"url": "/new", "jobs": "4"}}


def test_what_init_writes_is_what_dvc_writes(dvc_project: Path, dvc):
    dvc((dvc_project, "init -q"))

    for name, text in INIT_FILES.items():
        assert (dvc_project / name).read_text() == text


# ------------------------------------------------------------------------------------------------------ finding it


@pytest.mark.parametrize("start", [".", "a", "a/b/c"])
def test_the_nearest_repository_above_is_found(tmp_path: Path, start: str):
    (tmp_path / "a/b/c").mkdir(parents=True)
    (tmp_path / ".dvc").mkdir()

    assert find_root(tmp_path / start, tmp_path) == tmp_path


def test_a_repository_in_between_goes_first(tmp_path: Path):
    (tmp_path / "a/b/.dvc").mkdir(parents=True)
    (tmp_path / ".dvc").mkdir()

    assert find_root(tmp_path / "a/b", tmp_path) == tmp_path / "a/b"
    assert find_root(tmp_path / "a", tmp_path) == tmp_path


def test_nothing_above_the_git_repository_counts(tmp_path: Path):
    (tmp_path / ".dvc").mkdir()
    (tmp_path / "git/a").mkdir(parents=True)

    with pytest.raises(NoRepository, match="no DVC repository"):
        find_root(tmp_path / "git/a", tmp_path / "git")


def test_a_file_of_that_name_is_no_repository(tmp_path: Path):
    (tmp_path / ".dvc").write_text("")

    with pytest.raises(NoRepository):
        find_root(tmp_path, tmp_path)
