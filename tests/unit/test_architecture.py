"""The house rules that can be checked: imports point down, heavy dependencies have one door, modules stay small."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "ckptvcs"
MODULES = sorted(PACKAGE.rglob("*.py"))

# Layer -> the layers that it may import from. Names outside of these are the package itself (`ckptvcs/__init__.py`).
LEAVES = {"errors", "digest", "paths", "progress", "signatures", "_version"}
ALLOWED = {
    "errors": set(),
    "progress": set(),
    "_version": set(),
    "digest": {"errors"},
    "paths": {"errors"},
    "signatures": {"errors", "paths"},
    "domain": LEAVES,
    "formats": LEAVES,
    "storage": LEAVES,
    "porcelain": LEAVES | {"domain", "formats", "storage"},
    "cli": LEAVES | {"porcelain", "domain", "formats", "storage"},
    "train": LEAVES | {"porcelain", "domain", "formats"},
}

# Dependency -> the modules that may import it.
DOORS = {
    "torch": ("formats/torch_state.py", "train/"),
    "lightning": ("train/flavour.py",),
    "pytorch_lightning": ("train/flavour.py",),
    "pygit2": ("storage/history/",),
    "configobj": ("storage/dvc/",),
    "pathspec": ("storage/dvc/",),
    "dvc": ("storage/dvc/remotes.py",),
    "dvc_data": (),
    "dvc_objects": ("storage/dvc/remotes.py",),
    "click": ("cli/",),
    "rich": ("cli/waiting.py",),
    "pydantic": ("domain/schema.py",),
    "ruamel": ("storage/yaml_edit.py",),
    "sqlite3": ("storage/index.py",),
    "cryptography": ("signatures.py",),
    "pickle": (),
}

# Call -> the modules that may make it. Below porcelain, time and environment are arguments.
CLOCKS = {
    "datetime.now": ("porcelain/repo.py",),
    "datetime.utcnow": (),
    "time.time": ("porcelain/repo.py",),
    "os.environ": ("porcelain/config.py", "cli/render.py"),
    "os.getenv": (),
    "os.getcwd": (),
    "Path.cwd": (),
    "random.random": (),
}


def relative(module: Path) -> str:
    return module.relative_to(PACKAGE).as_posix()


def layer(name: str) -> str:
    return name.split("/", maxsplit=1)[0].removesuffix(".py")


def imports(module: Path) -> list[str]:
    """Every module that is imported anywhere in a file, inside functions and type-checking blocks too."""
    found = []
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{relative(module)}: relative import"
            found += [f"{node.module}.{alias.name}" for alias in node.names]
    return found


@pytest.mark.parametrize("module", MODULES, ids=relative)
def test_imports_point_down(module: Path):
    own = layer(relative(module))
    if own in ("__init__", "__main__"):
        return
    for name in imports(module):
        parts = name.split(".")
        if parts[0] == "ckptvcs" and len(parts) > 1:
            assert parts[1] == own or parts[1] in ALLOWED[own], f"{relative(module)} imports {name}"


@pytest.mark.parametrize("module", MODULES, ids=relative)
def test_each_heavy_dependency_has_one_door(module: Path):
    for name in imports(module):
        doors = DOORS.get(name.split(".")[0])
        if doors is not None:
            assert relative(module).startswith(doors), f"{relative(module)} imports {name}"


@pytest.mark.parametrize("module", MODULES, ids=relative)
def test_time_and_environment_are_arguments(module: Path):
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.Attribute):
            doors = CLOCKS.get(ast.unparse(node))
            if doors is not None:
                assert relative(module) in doors, f"{relative(module)}:{node.lineno} reads {ast.unparse(node)}"


@pytest.mark.parametrize("module", MODULES, ids=relative)
def test_modules_are_small_and_say_what_they_are_for(module: Path):
    text = module.read_text()

    assert text.count("\n") <= 400, "over 400 lines: it answers more than one question"
    assert ast.get_docstring(ast.parse(text)), "no docstring"


@pytest.mark.parametrize("module", MODULES, ids=relative)
def test_functions_fit_on_a_screen(module: Path):
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.end_lineno:
            body = node.end_lineno - node.body[0].lineno + 1
            assert body <= 60, f"{relative(module)}:{node.lineno} {node.name} has {body} lines"


@pytest.mark.parametrize("module", MODULES, ids=relative)
def test_only_render_prints(module: Path):
    if relative(module) == "cli/render.py":
        return
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("print", "click.echo", "sys.stdout.write"):
            raise AssertionError(f"{relative(module)}:{node.lineno} prints")


def test_every_verb_has_its_porcelain_and_its_tests():
    shared = {
        "branch": "refs",
        "tag": "refs",
        "export": "exchange",
        "import_": "importing",
        "policy_plan": "retention",
        "restore": "checkout",
        "diff": "compare",
        "policy": "calibrate",
        "remote": "remotes",
        "release": "hold",
    }
    alone = {"completion"}
    verbs = {p.stem for p in (PACKAGE / "cli").glob("*.py")} - {
        "__init__",
        "main",
        "render",
        "options",
        "graph",
        "waiting",
    }

    for verb in verbs - alone:
        name = shared.get(verb, verb)
        assert (PACKAGE / "porcelain" / f"{name}.py").is_file(), f"no porcelain for {verb}"
        assert (PACKAGE.parent / "tests/unit/porcelain" / f"test_{name}.py").is_file(), f"no tests for {name}"
