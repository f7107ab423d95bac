"""git over file, ssh and smart HTTP, crossed with the stores: the same round trip, and what is refused is said so."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ckptvcs.errors import StorageError
from ckptvcs.porcelain.repo import Repository
from ckptvcs.storage.history.transport import Git
from tests.support import git_http, oracle, sharing
from tests.support.same import assert_same
from tests.support.sharing import Hub, Shared, Store, commit
from tests.support.world import Done, World

OVER = ["file", "ssh", "http"]
CROSSED = [
    pytest.param(transport, store, marks=() if store == "folder" else pytest.mark.long)
    for transport in OVER
    for store in sharing.STORES
]


def tip(hub: Hub) -> str:
    return oracle.git(hub.bare, "rev-parse", "main").strip()


@pytest.mark.parametrize(("transport", "kind"), CROSSED)
def test_what_was_pushed_is_pulled(
    request: pytest.FixtureRequest, world: World, tmp_path: Path, transport: str, kind: str
):
    hub = sharing.hub(request, transport, world, tmp_path)
    shared = sharing.share(world, hub, sharing.store(request, kind, tmp_path))
    states = {seed: commit(world, seed) for seed in (1, 2)}
    world.ckpt("tag", "--golden", "base", "main@step:1")
    world.ckpt("note", "main@step:1", "--metric", "loss=0.5")

    world.ckpt("push", "main", "golden/base")

    other = shared.clone(tmp_path / "other")
    other.ckpt("pull")
    other.ckpt("pull", "golden/base")
    with other.repo() as repo:
        assert_same(states[2], dict(repo.load("HEAD")))
        assert_same(states[1], dict(repo.load("golden/base")))
    assert other.ckpt("show", "golden/base", "--json").json["metrics"]["loss"] == 0.5
    assert oracle.check(other.root)
    chains = oracle.git(hub.bare, "for-each-ref", "--format=%(refname)", "refs/ckptvcs/ledger").split()
    assert len(chains) == 1
    commit(other, 3)
    other.ckpt("push")
    world.ckpt("pull")
    assert world.git("rev-parse", "HEAD") == other.git("rev-parse", "HEAD") == tip(hub)


def test_http_is_the_smart_one(request: pytest.FixtureRequest, world: World, tmp_path: Path):
    server: git_http.GitHttp = request.getfixturevalue("git_http_server")
    hub = sharing.hub(request, "http", world, tmp_path)
    sharing.share(world, hub, Store(str(tmp_path / "store")))
    commit(world, 1)

    world.ckpt("push")

    name = hub.bare.name
    assert f"GET /{name}/info/refs?service=git-receive-pack" in server.asked
    assert f"POST /{name}/git-receive-pack" in server.asked


# ------------------------------------------------------------------------------------------------------------ refusals


@pytest.fixture(params=OVER)
def shared(request: pytest.FixtureRequest, world: World, tmp_path: Path) -> Shared:
    found = sharing.share(world, sharing.hub(request, request.param, world, tmp_path), Store(str(tmp_path / "store")))
    commit(world, 1)
    return found


HOOKS = {
    "pre-receive": "#!/bin/sh\necho 'checkpoints go to team/ only' >&2\nexit 1\n",
    "update": "#!/bin/sh\ncase $1 in refs/heads/*) echo 'checkpoints go to team/ only' >&2; exit 1;; esac\n",
}


@pytest.mark.parametrize("hook", HOOKS)
def test_a_hook_that_refuses_is_told_with_its_own_words_and_nothing_moves(shared: Shared, hook: str):
    script = shared.hub.bare / "hooks" / hook
    script.write_text(HOOKS[hook])
    script.chmod(0o755)

    refused = shared.world.ckpt("push", status=50)

    assert "cannot push to 'origin'" in refused.err
    assert "refs/heads/main" in refused.err
    assert "hook declined" in refused.err
    assert "checkpoints go to team/ only" in refused.err
    assert oracle.git(shared.hub.bare, "for-each-ref") == ""
    script.unlink()
    shared.world.ckpt("push")


def without_entry(shared: Shared, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """Take the right credentials away; returns a word that nobody may be shown."""
    world, url = shared.world, shared.hub.url
    if url.startswith("http"):
        world.git("remote", "set-url", "origin", url.replace(git_http.PASSWORD, "wrong-word"))
        return "wrong-word"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "stranger"], check=True)
    command = shared.hub.env["GIT_SSH_COMMAND"].split()
    command[command.index("-i") + 1] = str(tmp_path / "stranger")
    monkeypatch.setenv("GIT_SSH_COMMAND", " ".join(command))
    return git_http.PASSWORD


def on_a_terminal(world: World, *args: str) -> Done:
    """Run ckpt as one who sits before a terminal, and answers nothing: it must not ask."""
    script = (
        "import os, pty, sys\n"
        "pid, fd = pty.fork()\n"
        "if pid == 0:\n"
        "    os.execv(sys.executable, [sys.executable, '-m', 'ckptvcs', *sys.argv[1:]])\n"
        "said = b''\n"
        "try:\n"
        "    while data := os.read(fd, 4096):\n"
        "        said += data\n"
        "except OSError:\n"
        "    pass\n"
        "sys.stdout.buffer.write(said)\n"
        "sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *args],
        cwd=world.root,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "COLUMNS": "400"},
    )
    return Done(done.stdout, done.stderr, done.returncode)


@pytest.mark.parametrize("shared", ["ssh", "http"], indirect=True)
@pytest.mark.parametrize("verb", ["push", "fetch"])
def test_wrong_credentials_are_told_within_seconds_and_nobody_is_asked(
    shared: Shared, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, verb: str
):
    secret = without_entry(shared, monkeypatch, tmp_path)
    began = time.monotonic()

    refused = on_a_terminal(shared.world, verb)

    assert time.monotonic() - began < 30
    assert refused.status == 30, refused.out
    assert "credentials" in refused.out
    assert "'origin'" in refused.out
    assert secret not in refused.out
    assert "assword:" not in refused.out
    assert "sername for" not in refused.out


@pytest.mark.parametrize("shared", ["ssh", "http"], indirect=True)
def test_no_credentials_at_all_are_told_and_nobody_is_asked(
    shared: Shared, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    world, url = shared.world, shared.hub.url
    if url.startswith("http"):
        world.git("remote", "set-url", "origin", url.replace(f"{git_http.USER}:{git_http.PASSWORD}@", ""))
    else:  # a key that has to be opened with a passphrase
        command = shared.hub.env["GIT_SSH_COMMAND"].split()
        key = shutil.copy(command[command.index("-i") + 1], tmp_path / "sealed")
        subprocess.run(["ssh-keygen", "-q", "-p", "-P", "", "-N", "sealed", "-f", key], check=True)
        command[command.index("-i") + 1] = str(key)
        monkeypatch.setenv("GIT_SSH_COMMAND", " ".join(command))

    refused = on_a_terminal(world, "push")

    assert refused.status == 30, refused.out
    assert "credentials" in refused.out
    assert "assphrase for" not in refused.out
    assert "sername for 'http" not in refused.out.replace("could not read Username for 'http", "")


@pytest.mark.parametrize("shared", ["ssh", "http"], indirect=True)
def test_a_git_server_that_is_down_is_told(shared: Shared):
    port = shared.hub.url.split("127.0.0.1:")[1].split("/")[0]
    shared.world.git("remote", "set-url", "origin", shared.hub.url.replace(port, "9"))

    refused = shared.world.ckpt("push", status=30)

    assert "cannot look at 'origin'" in refused.err
    assert git_http.PASSWORD not in refused.err


def test_a_password_in_an_address_is_not_shown(request: pytest.FixtureRequest, world: World, tmp_path: Path):
    """A hook asks an address, and not a remote by its name."""
    hub = sharing.hub(request, "http", world, tmp_path)
    repo = Repository.open(world.root)

    with pytest.raises(StorageError) as caught:
        Git(repo.history, repo.around.variables).list_refs_at(hub.url.replace(git_http.PASSWORD, "wrong-word"))

    assert "wrong-word" not in f"{caught.value} {caught.value.next_step}"
    assert f"{git_http.USER}@127.0.0.1" in caught.value.what
