"""A real repository in a temporary folder, and the real programs to work on it: git, dvc, ckpt."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ckptvcs import Repo


@dataclass
class Done:
    """What a program printed, and how it ended."""

    out: str
    err: str
    status: int

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@dataclass
class World:
    """One repository."""

    root: Path

    @classmethod
    def create(cls, root: Path) -> World:
        root.mkdir(parents=True)
        Repo.init(root).close()
        return cls(root)

    def repo(self) -> Repo:
        return Repo(self.root)

    def ckpt(self, *args: str | Path, status: int | None = 0, env: dict[str, str] | None = None) -> Done:
        """Run `ckpt` as a user types it, in a process of its own."""
        return run([sys.executable, "-m", "ckptvcs", *map(str, args)], self.root, status=status, env=env)

    def git(self, *args: str | Path, status: int | None = 0) -> str:
        return run(["git", *map(str, args)], self.root, status=status).out.rstrip("\n")

    def dvc(self, *args: str | Path, status: int | None = 0) -> Done:
        """Run the real `dvc`."""
        return run([sys.executable, "-m", "dvc", *map(str, args)], self.root, status=status)

    def clone(self, where: Path) -> World:
        """`git clone` into another folder."""
        run(["git", "clone", "-q", str(self.root), str(where)], self.root)
        return World(where)

    @property
    def cache(self) -> Path:
        return self.root / ".dvc/cache/files/md5"

    def objects(self) -> dict[str, Path]:
        """Every object in the cache, by name."""
        return {p.parent.name + p.name: p for p in self.cache.glob("[0-9a-f][0-9a-f]/*")}

    def temporaries(self) -> list[Path]:
        """Whatever ckptvcs left lying about."""
        return [p for p in self.root.rglob(".ckptvcs-*") if ".git" not in p.parts]


def run(
    command: list[str],
    cwd: Path,
    *,
    status: int | None = 0,
    env: dict[str, str] | None = None,
    stdin: bytes | None = None,
) -> Done:
    """Run a program; fail the test if it ends otherwise than expected. `status=None` accepts any end."""
    done = subprocess.run(
        command, cwd=cwd, input=stdin, capture_output=True, env={**os.environ, **(env or {})}, timeout=600, check=False
    )
    result = Done(done.stdout.decode(), done.stderr.decode(), done.returncode)
    if status is not None and result.status != status:
        raise AssertionError(f"{command} ended with {result.status}, expected {status}\n{result.out}\n{result.err}")
    return result
