"""What else DVC tracks, and what it would not see of ours: the real program is the oracle."""

from __future__ import annotations

import hashlib
import json
import subprocess
from pathlib import Path

import pytest

from ckptvcs.errors import BadConfig, Refused
from ckptvcs.storage.dvc.outputs import Output, ignored_paths, outputs, refuse_overlap


def md5(data: bytes) -> str:
    return hashlib.md5(data).hexdigest()


def found(project: Path, file: str) -> set[tuple[str, str]]:
    stages = (project / "dvc.yaml").read_bytes() if file == "dvc.lock" else b""
    return {(out.path, out.name) for out in outputs((project / file).read_bytes(), file=file, stages=stages)}


# --------------------------------------------------------------------------------------------------- files of DVC


@pytest.fixture
def project(dvc_project: Path, dvc) -> Path:
    """A project of DVC as users have them: added files and folders, and a stage."""
    (dvc_project / "sub").mkdir()
    (dvc_project / "folder").mkdir()
    for name in ("data.csv", "sub/x.bin", "folder/é.txt", "folder/b"):
        (dvc_project / name).write_text(name)
    dvc(
        (dvc_project, "init -q"),
        (dvc_project, "add -q data.csv folder"),
        (dvc_project, "add -q sub/x.bin"),
        (dvc_project, "stage add -q -n here -o out.txt -M metrics.json 'echo hi > out.txt; echo {} > metrics.json'"),
        (dvc_project, "repro -q"),
    )
    return dvc_project


def test_outputs_are_found_with_the_names_of_their_objects(project: Path):
    listing = json.dumps(
        [{"md5": md5(f"folder/{n}".encode()), "relpath": n} for n in ("b", "é.txt")], sort_keys=True
    ).encode()

    assert found(project, "data.csv.dvc") == {("data.csv", md5(b"data.csv"))}
    assert found(project, "sub/x.bin.dvc") == {("sub/x.bin", md5(b"sub/x.bin"))}
    assert found(project, "folder.dvc") == {("folder", md5(listing) + ".dir")}
    assert found(project, "dvc.lock") == {("out.txt", md5(b"hi\n")), ("metrics.json", md5(b"{}\n"))}


def test_the_output_of_a_stage_in_another_folder_is_found_there(dvc_project: Path, dvc):
    (dvc_project / "sub").mkdir()

    dvc(
        (dvc_project, "init -q"),
        (dvc_project, "stage add -q -n there -w sub -o o.txt 'echo ho > o.txt'"),
        (dvc_project, "repro -q"),
    )

    assert found(dvc_project, "dvc.lock") == {("sub/o.txt", md5(b"ho\n"))}


def test_the_folder_that_a_file_says_is_where_its_outputs_are():
    data = b"wdir: ../data\nouts:\n- md5: 3ecfad755fa825f7a17c5526ec44e651\n  path: x\n"

    assert outputs(data, file="sub/x.dvc") == [Output("data/x", "3ecfad755fa825f7a17c5526ec44e651")]


@pytest.mark.parametrize("file", ["x.dvc", "dvc.lock"])
@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff\xfe\x00",
        b"just text",
        b"[]",
        b"1",
        b"outs: {a: b",
        b"outs: null\nstages: null",
        b"outs: 7\nstages: 7",
        b"outs: [7]\nstages: [7]",
        b"outs: [{md5: x}]\nstages: {s: {outs: [{md5: x}]}}",
        b"outs: [{path: 7, md5: x}]\nstages: {s: {outs: [{path: [], md5: x}]}}",
        b"outs: [{path: x}]\nstages: {s: {cmd: x}}",
        b"outs: !!python/object/apply:os.system [echo]\nstages: !!python/name:os.system",
        b"outs: 2024-13-45\nstages: 2024-13-45",
        b"outs:\n" + b"- " * 3000,
        b"[" * 5000,
        b"outs: [{path: x, md5: y}]\nstages: {s: {outs: [{path: x, md5: y}]}}".ljust((8 << 20) + 1),
        b"a: &a [x, x]\nb: &b [*a, *a]\nouts: [{path: x, md5: *b}]\nstages: {s: {outs: [{path: x, md5: *b}]}}",
    ],
    ids=lambda value: repr(value[:30]) if isinstance(value, bytes) else value,
)
def test_a_file_that_is_broken_or_hostile_names_no_outputs(file: str, data: bytes):
    assert outputs(data, file=file) == []


# ------------------------------------------------------------------------------------------------------- .dvcignore

OURS = [
    "checkpoints/model/model/a.safetensors",
    "checkpoints/model/model/tree.json",
    "checkpoints/model/rng/rng.safetensors",
    "checkpoints/model/code.patch",
]
IGNORES = {
    "nothing": {"": ""},
    "another folder": {"": "/data\n"},
    "a comment": {"": "#*.json\n\n   \n"},
    "by ending": {"": "*.json\n"},
    "the folder": {"": "checkpoints/\n"},
    "a name at any depth": {"": "rng\n"},
    "stars": {"": "**/model/*.safetensors\n"},
    "all but ours": {"": "*.json\n!checkpoints/model/**\n"},
    "all of it but ours": {"": "checkpoints/*\n!checkpoints/model\n"},
    "excluded above": {"": "checkpoints/\n!checkpoints/model/**\n"},
    "beside the artifact": {"checkpoints": "*.patch\n"},
    "anchored below": {"checkpoints": "/model/code.patch\n"},
    "taken back below": {"": "*.json\n", "checkpoints": "!*.json\n"},
    "carriage returns": {"": "*.json\r\n"},
    "a blank at the end": {"": "*.json \n"},
    "a name with a hash": {"": "\\#x\n*.patch\n"},
    "brackets": {"": "checkpoints/model/[mr]*/\n"},
    "excluded above, taken back below": {"": "checkpoints/\n", "checkpoints": "!*.json\n!model\n"},
    "hidden below again": {"": "!*.json\n", "checkpoints/model": "*.json\n"},
    "a folder taken back below": {"": "rng/\n", "checkpoints/model": "!rng/\n"},
    "a slash and a file": {"": "*.json/\n*.patch\n!checkpoints/**/\n"},
    "files of a folder that is not hidden": {"": "checkpoints/**\n!checkpoints/**/\n!*.json\n"},
}


@pytest.fixture(scope="module")
def listings(tmp_path_factory: pytest.TempPathFactory, dvc) -> dict[str, tuple[Path, set[str]]]:
    """A project for each .dvcignore, and which files in it DVC sees."""
    projects = {name: tmp_path_factory.mktemp("ignores") for name in IGNORES}
    for name, project in projects.items():
        for path, text in {**dict.fromkeys(OURS, "x"), ".dvc/config": ""}.items():
            (project / path).parent.mkdir(parents=True, exist_ok=True)
            (project / path).write_text(text)
        for folder, text in IGNORES[name].items():
            (project / folder / ".dvcignore").write_bytes(text.encode())
        subprocess.run(["git", "init", "-q"], cwd=project, check=True)
    told = dvc(*((project, "ls -R --json .") for project in projects.values()))
    seen = ({entry["path"] for entry in json.loads(listing)} for listing in told)
    return {name: (project, paths) for (name, project), paths in zip(projects.items(), seen, strict=True)}


@pytest.mark.parametrize("name", IGNORES)
def test_a_file_is_hidden_from_dvc_if_dvc_says_so(listings: dict[str, tuple[Path, set[str]]], name: str):
    project, visible = listings[name]

    assert ignored_paths(project, OURS) == sorted(set(OURS) - visible)


@pytest.mark.parametrize("kind", ["folder", "link to nowhere", "bytes that are no text"])
def test_a_dvcignore_that_cannot_be_read_hides_nothing(tmp_path: Path, kind: str):
    path = tmp_path / ".dvcignore"
    if kind == "folder":
        path.mkdir()
    elif kind == "link to nowhere":
        path.symlink_to("nowhere")
    else:
        path.write_bytes(b"\xff\xfe*.json\n")

    assert ignored_paths(tmp_path, OURS) == []


@pytest.mark.parametrize("line", ["!", "\\"])
def test_a_line_of_a_dvcignore_that_is_no_pattern_is_named(tmp_path: Path, line: str):
    (tmp_path / ".dvcignore").write_text(f"{line}\n")

    with pytest.raises(BadConfig, match="dvcignore"):
        ignored_paths(tmp_path, OURS)


# ----------------------------------------------------------------------------------------------------------- overlap


@pytest.mark.parametrize("other", ["checkpoints", "checkpoints/model", "checkpoints/model/sub/file"])
def test_a_track_inside_or_around_an_output_is_refused(other: str):
    with pytest.raises(Refused, match=other):
        refuse_overlap("checkpoints/model", [Output("data", "0"), Output(other, "0")])


@pytest.mark.parametrize("other", ["checkpoints/model2", "checkpoints/mod", "model", "checkpoint", "../checkpoints"])
def test_a_track_beside_other_outputs_is_fine(other: str):
    refuse_overlap("checkpoints/model", [Output(other, "0")])
