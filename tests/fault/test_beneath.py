"""Links, absolute paths and `..` in a clone, also some that appear in the middle: nothing is written outside of the artifact.

The races have a naive writer, which looks with `realpath` and then writes: the same race must catch it.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from ckptvcs.errors import CkptvcsError
from ckptvcs.porcelain import checkout, fetch
from ckptvcs.storage import downloads
from ckptvcs.storage.objects import LocalStore
from tests.support import oracle
from tests.support.places import Place, point_to
from tests.support.world import World

RACER = str(Path(__file__).parents[1] / "support" / "racer.py")
SECONDS = 3.0


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """Two checkpoints, pushed; and a clone that has pulled the first of them."""
    found = Place.create(tmp_path_factory.mktemp("beneath") / "base")
    found.world.ckpt("remote", "add", "share", "../store")
    found.world.git("commit", "-qam", "a remote")
    commit(found.world, 1)
    found.world.ckpt("push")
    found.make_clone().ckpt("pull")
    commit(found.world, 2)
    found.world.ckpt("push")
    return found


def commit(world: World, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    state = {part: {"w": torch.randn(500, generator=generator)} for part in ("model", "optimizer")}
    with world.repo() as repo:
        repo.commit(state, step=seed)


@pytest.fixture
def here(base: Place, tmp_path: Path) -> Place:
    return base.copy(tmp_path / "here")


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """Somebody's folder, which looks as an artifact and a cache do, so that whoever follows a link can write there."""
    where = tmp_path / "outside"
    for folder in ("model/model", "model/optimizer", "model", "optimizer", "files/md5", "hooks", "tmp"):
        (where / folder).mkdir(parents=True, exist_ok=True)
    (where / "model/model/precious").write_text("kept")
    (where / "precious").write_text("kept")
    return where


def picture(where: Path) -> dict[str, Any]:
    """All that is in a folder, with times, so that a file which came and went shows."""
    return {
        str(path.relative_to(where)): (path.lstat().st_mtime_ns, path.read_bytes() if path.is_file() else None)
        for path in [where, *sorted(where.rglob("*"))]
    }


# ------------------------------------------------------------------------------------------------------------- committed

PLANTED = [
    "checkpoints",
    "checkpoints/model",
    "checkpoints/model/model",
    "checkpoints/model/model/tree.json",
    ".dvc/cache",
    ".dvc/cache/files",
    ".dvc/cache/files/md5",
    ".dvc/tmp",
    "checkpoints/model.json",
    "checkpoints/.gitignore",
]


def plant(world: World, path: str, target: str) -> None:
    """Commit a link in the place of whatever is there, with plain git, as an attacker would."""
    blob = subprocess.run(
        ["git", "hash-object", "-w", "--stdin"], cwd=world.root, input=target.encode(), capture_output=True, check=True
    ).stdout.decode()
    world.git("rm", "-rq", "--cached", "--ignore-unmatch", path)
    world.git("update-index", "--add", "--cacheinfo", f"120000,{blob.strip()},{path}")
    world.git("commit", "-qm", "nothing to see here")
    world.git("push", "-q", "origin", "HEAD:main")


@pytest.mark.parametrize("where", ["outside", pytest.param("hooks", marks=pytest.mark.long)])
@pytest.mark.parametrize("path", PLANTED)
def test_a_link_that_was_committed_leads_nowhere(here: Place, outside: Path, path: str, where: str, tmp_path: Path):
    fresh = where == "hooks"  # a clone of its own, else one that goes on from the checkpoint before
    attacker = here.world
    target = str(outside) if where == "outside" else os.path.relpath(".git/hooks", os.path.dirname(path) or ".")
    plant(attacker, path, target)
    clone = here.make_clone("fresh") if fresh else here.clone
    before = picture(outside), picture(clone.root / ".git/hooks")
    cached = set(clone.objects())

    for args in (["pull"], ["restore", "origin/main"], ["checkout", "origin/main"]):
        done = clone.ckpt(*args, status=None)
        assert "Traceback" not in done.err, done.err
        assert done.status in (0, 12, 20, 30, 40, 50), done.err
        assert (picture(outside), picture(clone.root / ".git/hooks")) == before, f"'{' '.join(args)}' wrote outside"
        assert cached <= set(clone.objects()), f"'{' '.join(args)}' cost the cache"


@pytest.mark.parametrize(
    ("path", "shown"), [(".dvc/cache", ".dvc/cache"), (".dvc/tmp", ".dvc/tmp"), (".dvc/cache/files/md5", ".dvc/cache")]
)
def test_a_cache_that_came_with_a_clone_is_refused_and_a_link_of_the_user_is_not(
    here: Place, outside: Path, path: str, shown: str, tmp_path: Path
):
    cache = tmp_path / "disk"
    shutil.move(here.clone.root / ".dvc/cache", cache)
    os.symlink(cache, here.clone.root / ".dvc/cache")
    here.clone.ckpt("pull")
    plant(here.world, path, str(outside))

    refused = here.clone.ckpt("pull", status=40)

    assert f"git tracks '{shown}'" in refused.err
    assert here.clone.git("rev-parse", "main") != here.world.git("rev-parse", "main")
    assert here.clone.ckpt("status").out.count("up to date") == 1
    assert f"git tracks '{shown}'" in here.make_clone("fresh").ckpt("pull", status=40).err


# --------------------------------------------------------------------------------------------------------------- by hand


@pytest.mark.parametrize("verb", [["pull"], ["restore", "HEAD"], ["checkout", "HEAD"], ["commit"]])
@pytest.mark.parametrize("path", ["checkpoints", "checkpoints/model", "checkpoints/model/model"])
def test_a_link_in_the_workspace_is_not_followed(here: Place, outside: Path, path: str, verb: list[str]):
    clone = here.clone
    (clone.root / path).rename(clone.root / "aside")
    os.symlink(outside, clone.root / path)
    before = picture(outside)

    if verb == ["commit"]:
        torch.save({"model": {"w": torch.ones(3)}}, clone.root / "x.pt")
        verb = ["commit", "x.pt"]
    done = clone.ckpt(*verb, status=None)

    assert "Traceback" not in done.err
    assert done.status in (0, 40, 50), done.err
    assert picture(outside) == before


LEADING_OUT = [
    "../../outside/x",
    "/tmp/escaped-ckptvcs",
    "model/../../../x",
    "a/../x",
    "./x",
    "a//x",
    "",
    ".git/hooks/x",
]


@pytest.mark.parametrize("name", LEADING_OUT)
@pytest.mark.parametrize("where", ["manifest", "directory"])
def test_paths_that_lead_out_are_refused(here: Place, outside: Path, name: str, where: str):
    """In the manifest, and in the list of files that DVC reads and we do not."""
    world, clone = here.world, here.clone
    path = world.root / "checkpoints/model.json"
    manifest = json.loads(path.read_text())
    if where == "manifest":
        manifest["components"][0]["files"][0]["path"] = name
        path.write_text(json.dumps(manifest))
    else:
        pointer = (world.root / "checkpoints/model.dvc").read_text()
        listed = next(line.split()[-1] for line in pointer.splitlines() if ".dir" in line)
        for store in (world.cache, here.folder / "store/files/md5"):
            file = store / listed[:2] / listed[2:]
            file.chmod(0o644)
            file.write_text(json.dumps([{"md5": "0" * 32, "relpath": name}]))
    world.git("commit", "-qam", "edited", "--allow-empty")
    world.git("push", "-q", "origin", "main")
    before = picture(outside), picture(here.folder)["."][0]

    done = clone.ckpt("pull", status=None)

    assert "Traceback" not in done.err
    assert done.status == (20 if where == "manifest" else 0), done.err
    assert (picture(outside), picture(here.folder)["."][0]) == before
    assert not Path("/tmp/escaped-ckptvcs").exists()


# -------------------------------------------------------------------------------------------- a configuration that came along

PROCESS = "[default]\ncredential_process = sh -c 'touch {marker}; exit 1'\n[profile x]\nregion = eu\n"


@pytest.mark.parametrize("option", ["configpath", "credentialpath", "bearer_token_command"])
@pytest.mark.parametrize("around", [False, True])
def test_no_program_runs_because_a_clone_says_so(here: Place, tmp_path: Path, option: str, around: bool):
    """botocore runs what a `credential_process` names, and DVC's WebDAV what a `bearer_token_command` does."""
    marker, world = tmp_path / "ran", here.world
    (world.root / "aws").write_text(PROCESS.format(marker=marker))
    url = "webdav://127.0.0.1:1/x" if option == "bearer_token_command" else "s3://bucket/x"
    value = f"touch {marker}" if option == "bearer_token_command" else "../aws"
    hostile = f"url = {url}\nendpointurl = http://127.0.0.1:1\n{option} = {value}\n"
    sections = f"['remote \"share\"']\n{hostile}"
    if around:
        sections = f"['remote \"share\"']\nurl = remote://base/y\n['remote \"base\"']\n{hostile}"
    if option == "bearer_token_command":
        sections = sections.replace("endpointurl = http://127.0.0.1:1\n", "")
    (world.root / ".dvc/config").write_text(f"[core]\nremote = share\n{sections}")
    world.git("add", "aws", ".dvc/config")
    world.git("commit", "-qm", "faster downloads")
    world.git("push", "-q", "origin", "main")
    clone = here.make_clone("fresh")

    for args in (["pull"], ["push", "--full"], ["pull", "main~1"]):
        refused = clone.ckpt(*args, status=40)
        assert f"sets {option} = " in refused.err
        assert not marker.exists()

    if option != "bearer_token_command":  # dvc-webdav is not installed everywhere
        (clone.root / ".dvc/config.local").write_text(
            f"['remote \"{'base' if around else 'share'}\"']\n{option} = ../aws\n"
        )
        clone.ckpt("pull", status=None)
        assert marker.exists(), "who says so himself is believed; and this is how the test knows that it would see it"


@pytest.mark.parametrize("folder", ["/", "../..", ".git/hooks", "checkpoints/model"])
def test_a_cache_that_a_clone_puts_elsewhere_gets_objects_under_their_names_and_no_more(
    here: Place, tmp_path: Path, folder: str
):
    """DVC's caches are shared by saying so in `.dvc/config`. What lands there has a name of hexadecimal digits, and is new."""
    if folder == "/":
        folder = str(tmp_path / "anywhere")
        Path(folder).mkdir()
    (here.world.root / ".dvc/config").write_text(
        f"[core]\nremote = share\n[cache]\ndir = {folder}\n['remote \"share\"']\nurl = ../../store\n"
    )
    here.world.git("commit", "-qam", "a larger disk")
    here.world.git("push", "-q", "origin", "main")
    clone = here.make_clone("fresh")
    target = Path(os.path.normpath(clone.root / ".dvc" / folder))
    before = set(target.rglob("*")) if target.exists() else set()

    done = clone.ckpt("pull", status=None)

    assert "Traceback" not in done.err
    new = {str(path.relative_to(target)) for path in target.rglob("*") if path.is_file()} - {
        str(path.relative_to(target)) for path in before
    }
    allowed = re.compile(r"files/md5/[0-9a-f]{2}/[0-9a-f]{30}(\.dir)?")
    strays = {p for p in new if not allowed.fullmatch(p) and not p.startswith(("fresh/", "model/", "optimizer/"))}
    assert not strays


# --------------------------------------------------------------------------------------------------------------- races


@contextlib.contextmanager
def racing(folder: Path, link: Path, target: Path) -> Iterator[None]:
    """Exchange a folder with a link, without pause; in the end the folder is where it was."""
    racer = subprocess.Popen([sys.executable, RACER, folder, link, target], stdout=subprocess.PIPE)
    assert racer.stdout is not None
    try:
        racer.stdout.readline()
        yield
    finally:
        racer.kill()
        racer.wait()
        racer.stdout.close()
        if folder.is_symlink():
            folder.unlink()
            with contextlib.suppress(OSError):
                link.rename(folder)


def tries(act: Callable[[], None], outside: Path, seconds: float) -> tuple[int, int, int]:
    """Act until time is up; returns how often, how often it went well, and how often something was written outside."""
    before, end = set(outside.rglob("*")), time.monotonic() + seconds
    count = done = escaped = 0
    while time.monotonic() < end:
        count += 1
        with contextlib.suppress(CkptvcsError, OSError):
            act()
            done += 1
        new = set(outside.rglob("*")) - before
        escaped += bool(new)
        for path in sorted(new, reverse=True):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    return count, done, escaped


def naive(root: Path, relative: str) -> None:
    """Look where the path really leads, and then write there: what most programs do."""
    path = root / relative
    path.parent.mkdir(parents=True, exist_ok=True)
    if not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(root)):
        raise PermissionError("it leads out")
    path.with_name("naive").write_bytes(b"x")


SWAPPED = [("checkpoints", "model"), (".", "checkpoints"), ("checkpoints/model", "model")]
ROUNDS = [pytest.param(SECONDS, id="short"), pytest.param(60.0, id="long", marks=pytest.mark.long)]


@pytest.mark.parametrize("seconds", ROUNDS)
@pytest.mark.parametrize(("folder", "name"), SWAPPED)
def test_a_folder_of_the_artifact_that_is_exchanged_with_a_link_while_it_is_written(
    here: Place, outside: Path, folder: str, name: str, seconds: float
):
    root = here.world.root
    target = {"checkpoints": outside}.get(
        name, outside / "model" if folder == "checkpoints" else outside / "model/model"
    )
    kept = picture(outside)
    with here.world.repo() as repo:
        plans = itertools.cycle([checkout.plan_restore(repo._repo, revision) for revision in ("HEAD", "HEAD~1")])
        with racing(root / folder / name, root / ".link", target):
            ours = tries(lambda: checkout.execute(repo._repo, next(plans)), outside, seconds)
            theirs = tries(lambda: naive(root, "checkpoints/model/model/tree.json"), outside, seconds / 2)

    assert ours[0] > 20
    assert ours[1] > 0, "it never got through"
    assert theirs[2] > 0, f"the race is too slow to catch anybody: {theirs}"
    assert ours[2] == 0, f"{ours[2]} of {ours[0]} tries wrote outside"
    assert {path: data for path, (_, data) in picture(outside).items()} == {p: data for p, (_, data) in kept.items()}


@pytest.mark.parametrize("seconds", ROUNDS)
@pytest.mark.parametrize(("folder", "name"), SWAPPED)
def test_a_folder_of_the_artifact_that_is_exchanged_with_a_link_while_it_is_checked_out(
    here: Place, outside: Path, folder: str, name: str, seconds: float
):
    root = here.world.root
    kept = picture(outside)
    with here.world.repo() as repo:
        revisions = itertools.cycle(["main~1", "main"])
        with racing(root / folder / name, root / ".link", outside / "model"):
            count, done, escaped = tries(lambda: repo.checkout(next(revisions)), outside, seconds)

    print(f"{name} in {folder}: {count} tries, {done} went through, {escaped} wrote outside")
    assert count > 20
    assert escaped == 0, f"{escaped} of {count} tries wrote outside"
    assert {path: data for path, (_, data) in picture(outside).items()} == {p: data for p, (_, data) in kept.items()}


@pytest.mark.parametrize("seconds", ROUNDS)
def test_the_folder_of_checkpoints_that_is_exchanged_with_a_link_while_a_branch_goes_on(
    here: Place, outside: Path, seconds: float
):
    """The part of `pull` that writes into the worktree, again and again from the commit before."""
    root = here.world.root
    old, new = here.world.git("rev-parse", "main~1", "main").split()
    with here.world.repo() as repo:
        history = repo._repo.history

        def go_on() -> None:
            while history.head() != old:
                with contextlib.suppress(CkptvcsError, OSError):
                    repo.checkout(old)
            history.repo.references.create("refs/heads/behind", old, force=True)
            history.repo.set_head("refs/heads/behind")
            fetch.advance(repo._repo, new)

        with racing(root / "checkpoints", root / ".link", outside):
            told = [tries(go_on, outside, 2 * seconds)]
            while not any(done for _, done, _ in told) and len(told) < 10:  # a racer that is quick lets few through
                told.append(tries(go_on, outside, 2 * seconds))

    assert any(done for _, done, _ in told), f"it never got through: {told}"
    assert not any(escaped for *_, escaped in told), f"something was written outside: {told}"


@pytest.mark.parametrize("seconds", ROUNDS)
def test_a_folder_of_the_cache_that_is_exchanged_with_a_link_while_objects_come(
    here: Place, outside: Path, seconds: float
):
    point_to(here.clone, "../../store", {})
    with here.clone.repo() as repo:
        fetch.fetch(repo._repo)
        plan = fetch.plan_objects(repo._repo, "origin/main")
        remote = fetch.open_remote(repo._repo, "bucket")
        store = repo._repo.objects.store
    ref = plan.missing[0]
    folder = store.path(ref.name).parent
    folder.mkdir(parents=True, exist_ok=True)
    shown: list[Exception] = []

    def download() -> None:
        store.path(ref.name).unlink(missing_ok=True)
        try:
            downloads.download(remote, [ref], store, lambda _: None)
        except Exception as err:
            shown.append(err)
            raise

    def careless() -> None:
        real, LocalStore.enter = LocalStore.enter, by_path
        try:
            download()
        finally:
            LocalStore.enter = real

    @contextlib.contextmanager
    def by_path(self: LocalStore, name: str) -> Iterator[int]:
        fd = os.open(self.root / name, os.O_RDONLY | os.O_DIRECTORY)
        try:
            yield fd
        finally:
            os.close(fd)

    with racing(folder, store.root / "link", outside):
        ours = tries(download, outside, seconds)
        theirs = tries(careless, outside, seconds / 2)

    assert ours[0] > 20
    assert ours[1] > 0
    assert theirs[2] > 0, f"the race is too slow to catch anybody: {theirs}"
    assert ours[2] == 0, f"{ours[2]} of {ours[0]} tries wrote outside"
    assert all(isinstance(err, CkptvcsError) for err in shown)
    oracle.check(here.clone.root, complete=False)
