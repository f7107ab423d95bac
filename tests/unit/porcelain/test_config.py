"""`ckpt.yaml` and the environment: what they say is taken, and what is wrong is named with its line."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import dvc.dirs
import pytest

from ckptvcs.domain.policy import Best, Checkout, Config
from ckptvcs.errors import BadConfig, UsageError
from ckptvcs.porcelain.config import Surroundings, read_config, surroundings

ALL = """\
version: 1
directory: out/checkpoints
track: teacher
remote: store
best:
  monitor: val_loss
  mode: min
checkout:
  link: copy
  on_commit: false
"""


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    (tmp_path / "private").mkdir()
    return tmp_path / "private/config.json"


def read(folder: Path, text: str | bytes, cache: Path) -> Config:
    (folder / "ckpt.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_config(folder, cache)


# ---------------------------------------------------------------------------------------------------------- ckpt.yaml


@pytest.mark.parametrize("text", ["", "\n", "# nothing\n", "{}", "null", "version: 1\n", "---\n", "\ufeffversion: 1\n"])
def test_who_says_nothing_gets_the_defaults(tmp_path: Path, cache: Path, text: str):
    assert read(tmp_path, text, cache) == Config()


def test_without_a_file_there_are_the_defaults(tmp_path: Path, cache: Path):
    assert read_config(tmp_path, cache) == Config()
    assert not cache.exists()


def test_every_key_is_taken(tmp_path: Path, cache: Path):
    assert read(tmp_path, ALL, cache) == Config(
        directory="out/checkpoints",
        track="teacher",
        remote="store",
        best=Best(monitor="val_loss", mode="min"),
        checkout=Checkout(link="copy", on_commit=False),
    )


@pytest.mark.parametrize(
    ("text", "line", "key"),
    [
        ("version: 2\n", 1, "version"),
        ("version: '1'\n", 1, "version"),
        ("version: 1\ncolour: red\n", 2, "colour"),
        ("# c\n\nremote: 7\n", 3, "remote"),
        ("checkout:\n  link: soft\n", 2, "checkout.link"),
        ("checkout:\n  on_commit: 'yes'\n", 2, "checkout.on_commit"),
        ("checkout:\n  link: copy\n  x: 1\n", 3, "checkout.x"),
        ("best:\n  monitor: loss\n  mode: low\n", 3, "best.mode"),
        ("best:\n  monitor: loss\n", 1, "best.mode"),
        ("best: loss\n", 1, "best"),
        ("directory: [a]\n", 1, "directory"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(tmp_path: Path, cache: Path, text: str, line: int, key: str):
    with pytest.raises(BadConfig) as caught:
        read(tmp_path, text, cache)

    assert (caught.value.facts["line"], caught.value.facts["key"]) == (line, key)
    assert f"line {line}" in caught.value.what


@pytest.mark.parametrize(
    "text",
    [
        "directory: ../out\n",
        "directory: /out\n",
        "directory: .git\n",
        "directory: ''\n",
        "directory: a//b\n",
        "track: ../x\n",
        "track: 'yes'\n",
        "track: a b\n",
        "track: 2024-01-01\n",
        "remote: 'a b'\n",
        'remote: "a\\nb"\n',
    ],
)
def test_a_name_that_could_do_harm_is_refused(tmp_path: Path, cache: Path, text: str):
    with pytest.raises(BadConfig):
        read(tmp_path, text, cache)


@pytest.mark.parametrize(
    "text",
    [
        "- a list\n",
        "just text\n",
        "7\n",
        "{version: 1\n",
        "a: b: c\n",
        "version: 1\nversion: [\n",
        "\tversion: 1\n",
        "!!python/object/apply:os.system [echo]\n",
        "version: !!python/name:os.system\n",
        "? [a]\n: b\n",
        "version: &a 1\ntrack: *b\n",
        b"version: 1\n\xff\xfe\n",
        b"\x00\x01\x02",
        "best: {monitor: loss, mode: .nan}\n",
        "best: &a [*a]\n",
        "[" * 3000,
        "best: 2024-13-45\n",
    ],
)
def test_what_is_no_configuration_is_a_bad_one(tmp_path: Path, cache: Path, text: str | bytes):
    with pytest.raises(BadConfig) as caught:
        read(tmp_path, text, cache)

    assert "ckpt.yaml" in caught.value.what
    assert not cache.exists()


@pytest.mark.parametrize("span", ["0d", "30s", "1.5h", "12"])
def test_what_is_no_span_is_told_what_is(tmp_path: Path, cache: Path, span: str):
    with pytest.raises(BadConfig) as caught:
        read(tmp_path, f"retain: {{keep: [{{keep_last: 1}}], grace: {span!r}}}\n", cache)

    assert "a whole number of min, h, d or w" in str(caught.value)
    assert "1min is the smallest" in str(caught.value)


BOMB = "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 40))


def test_aliases_do_not_expand_without_end(tmp_path: Path):
    (tmp_path / "ckpt.yaml").write_text(BOMB)
    code = (
        "import pathlib, sys; from ckptvcs.errors import BadConfig; from ckptvcs.porcelain.config import read_config\n"
        "try: read_config(pathlib.Path(sys.argv[1]), pathlib.Path('/nowhere'))\n"
        "except BadConfig: print('refused')"
    )

    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CPU, (1, 1)),
    )

    assert done.stdout == "refused\n"


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path, cache: Path):
    with pytest.raises(BadConfig, match="bytes"):
        read(tmp_path, b"#" * ((1 << 20) + 1), cache)


@pytest.mark.parametrize("kind", ["folder", "loop"])
def test_what_cannot_be_read_is_a_bad_configuration(tmp_path: Path, cache: Path, kind: str):
    path = tmp_path / "ckpt.yaml"
    path.mkdir() if kind == "folder" else path.symlink_to("ckpt.yaml")

    with pytest.raises(BadConfig):
        read_config(tmp_path, cache)


# ---------------------------------------------------------------------------------------------------- what is remembered


def test_an_unchanged_file_is_remembered_and_a_changed_one_is_read(tmp_path: Path, cache: Path):
    first = read(tmp_path, "track: a\n", cache)
    assert cache.exists()

    assert read_config(tmp_path, cache) == first
    assert read(tmp_path, "track: b\n", cache).track == "b"


@pytest.mark.parametrize(
    "save",
    [
        "{}",
        "{on_preemption: true, interval: auto}",
        "{on_preemption: false, on_event: [drift, pre_deploy]}",
        "{on_preemption: {signals: [SIGTERM], grace_s: 5}, interval: {mtbf_s: 3600}, every_n_seconds: 60}",
        "{on_improvement: {monitor: loss}, on_plateau: {monitor: acc}, grade: weights-only, when_busy: skip}",
    ],
)
def test_what_is_remembered_of_a_policy_of_saves_is_what_was_parsed(tmp_path: Path, cache: Path, save: str):
    parsed = read(tmp_path, f"save: {save}\n", cache)
    known = cache.stat()

    remembered = read_config(tmp_path, cache)

    assert remembered == parsed
    assert repr(remembered) == repr(parsed)
    assert cache.stat().st_mtime_ns == known.st_mtime_ns


@pytest.mark.parametrize("left", [b"", b"{", b"[]", b"{}", b"\xff", b'{"digest": 1}'])
def test_a_damaged_memory_is_none(tmp_path: Path, cache: Path, left: bytes):
    cache.write_bytes(left)

    assert read(tmp_path, ALL, cache).track == "teacher"


def test_a_memory_of_another_version_is_none(tmp_path: Path, cache: Path):
    read(tmp_path, "track: a\n", cache)
    cache.write_bytes(cache.read_bytes().replace(b'"by":"', b'"by":"9').replace(b'"track":"a"', b'"track":"z"'))

    assert read_config(tmp_path, cache).track == "a"


def test_a_repository_that_may_only_be_read_remembers_nothing(tmp_path: Path, cache: Path, without_privilege: None):
    cache.parent.chmod(0o555)

    assert read(tmp_path, ALL, cache).track == "teacher"
    assert not cache.exists()


def test_a_reader_makes_no_folder_of_ours(tmp_path: Path):
    read(tmp_path, ALL, tmp_path / "none/config.json")

    assert not (tmp_path / "none").exists()


# ------------------------------------------------------------------------------------------------------- environment


def around(**variables: str) -> Surroundings:
    return Surroundings(variables=variables, privileged=False)


AUTHOR = {"GIT_AUTHOR_NAME": "A", "GIT_AUTHOR_EMAIL": "a@x"}
COMMITTER = {"GIT_COMMITTER_NAME": "C", "GIT_COMMITTER_EMAIL": "c@x"}


@pytest.mark.parametrize(
    ("variables", "configured", "expected"),
    [
        ({}, ("N", "n@x"), "N <n@x>"),
        (AUTHOR, ("N", "n@x"), "A <a@x>"),
        (AUTHOR, (None, None), "A <a@x>"),
        (COMMITTER, (None, None), "C <c@x>"),
        (AUTHOR | COMMITTER, ("N", "n@x"), "A <a@x>"),
        ({"GIT_AUTHOR_NAME": "A"}, ("N", "n@x"), "A <n@x>"),
        ({"GIT_AUTHOR_NAME": ""}, ("N", "n@x"), "N <n@x>"),
        ({"GIT_AUTHOR_NAME": "A <evil>\n"}, ("N", "n@x"), "A evil <n@x>"),
    ],
)
def test_who_commits_is_told_by_the_environment_then_by_git(variables, configured, expected: str):
    identity = around(**variables).identity(configured)

    assert f"{identity.name} <{identity.email}>" == expected


@pytest.mark.parametrize("configured", [(None, None), ("N", None), (None, "n@x"), ("", "")])
def test_who_is_told_by_neither_is_asked_to_say_it(configured):
    with pytest.raises(UsageError, match="who you are") as caught:
        around().identity(configured)

    assert "git config --global user.name" in caught.value.next_step


@pytest.mark.parametrize("names", [[], ["DVC_SYSTEM_CONFIG_DIR"], ["DVC_GLOBAL_CONFIG_DIR"], ["XDG_CONFIG_HOME"]])
def test_the_configuration_of_dvc_is_where_dvc_looks_for_it(
    names: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for name in names:
        monkeypatch.setenv(name, str(tmp_path / name))

    assert surroundings().dvc_files == (
        Path(dvc.dirs.system_config_dir()) / "config",
        Path(dvc.dirs.global_config_dir()) / "config",
    )
