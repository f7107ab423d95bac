"""What must hold of a repository after anything at all, told by git, hashlib and blake3 alone: ckptvcs is not asked."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
from pathlib import Path

from blake3 import blake3


def git(root: Path, *args: str) -> str:
    return subprocess.run(["git", *args], cwd=root, check=True, capture_output=True, text=True).stdout


def commits(root: Path) -> list[str]:
    """Every commit that a ref leads to."""
    return git(root, "rev-list", "--all").split()


def checkpoints(root: Path, track: str = "model") -> dict[str, dict]:
    """Every commit that holds a manifest, with the manifest."""
    found = {}
    for commit in commits(root):
        done = subprocess.run(
            ["git", "show", f"{commit}:checkpoints/{track}.json"], cwd=root, capture_output=True, check=False
        )
        if done.returncode == 0:
            found[commit] = json.loads(done.stdout)
            pointer = git(root, "show", f"{commit}:checkpoints/{track}.dvc")
            assert re.search(rf"manifest: {blake3(done.stdout).hexdigest()}\n", pointer), "pointer and manifest differ"
    return found


def files(manifest: dict) -> list[dict]:
    return [f for component in manifest["components"] for f in component["files"]] + manifest["files"]


def ledger(root: Path) -> dict[str, list[dict]]:
    """The chains of the ledger, oldest entry first; fails unless each entry names the one before it."""
    chains = {}
    for ref in git(root, "for-each-ref", "--format=%(refname)", "refs/ckptvcs/ledger").split():
        prev, entries = "", []
        for n, commit in enumerate(git(root, "rev-list", "--reverse", "--topo-order", ref).split(), start=1):
            data = git(root, "cat-file", "commit", commit).partition("\n\n")[2].encode()
            entry = json.loads(data)
            writer = ref.rpartition("/")[2]
            assert (entry["writer"], entry["n"], entry["prev"]) == (writer, n, prev), (
                f"entry {n} of {ref} is not linked"
            )
            entries.append(entry)
            prev = hashlib.sha256(data).hexdigest()
        chains[ref] = entries
    return chains


def check(root: Path, *, complete: bool = True) -> dict[str, dict]:
    """Fail unless git is sound, every visible object is whole, and every checkpoint has all its objects.

    Args:
        root: the repository.
        complete: whether objects may not be missing, as they may in a clone.

    Returns:
        The checkpoints.
    """
    fsck = subprocess.run(
        ["git", "fsck", "--strict", "--no-dangling"], cwd=root, capture_output=True, text=True, check=False
    )
    assert fsck.returncode == 0, f"git fsck: {fsck.stdout}{fsck.stderr}"
    ledger(root)
    cache = root / ".dvc/cache/files/md5"
    sound: dict[str, tuple[int, str]] = {}
    for path in cache.glob("[0-9a-f][0-9a-f]/*"):
        data = path.read_bytes()
        name = path.parent.name + path.name
        assert hashlib.md5(data).hexdigest() == name.removesuffix(".dir"), f"object {name} is torn"
        assert path.stat().st_mode & 0o777 == 0o444, f"object {name} has mode {path.stat().st_mode:o}"
        sound[name] = (len(data), blake3(data).hexdigest())
    found = checkpoints(root)
    for commit, manifest in found.items() if complete else ():
        for file in files(manifest):
            assert sound.get(file["md5"]) == (file["size"], file["blake3"]), f"{commit[:10]}: {file['path']} is missing"
        directory = re.search(r"md5: (\w+\.dir)", git(root, "show", f"{commit}:checkpoints/model.dvc"))
        assert directory is not None
        assert directory[1] in sound, f"{commit[:10]}: its directory object is missing"
    return found


def workspace_of(root: Path, manifests: list[dict]) -> int | None:
    """Which of some manifests the workspace holds, exactly; None if it holds nothing at all.

    Fails if it holds anything else: a mixture, or a part.
    """
    folder = root / "checkpoints/model"
    there = {
        p.relative_to(folder).as_posix(): blake3(p.read_bytes()).hexdigest() for p in folder.rglob("*") if p.is_file()
    }
    if not there:
        return None
    wanted = [{f["path"]: f["blake3"] for f in files(manifest)} for manifest in manifests]
    assert there in wanted, "the workspace holds a mixture"
    return wanted.index(there)
