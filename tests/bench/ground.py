"""What is measured against: the DVC route, with the settings that favour it, and repositories to write to."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ckptvcs import Repo

ENVIRONMENT = {
    **os.environ,
    "DVC_NO_ANALYTICS": "1",
    **{
        f"GIT_{role}_{what}": f"bench{at}"
        for role in ("AUTHOR", "COMMITTER")
        for what, at in (("NAME", ""), ("EMAIL", "@x"))
    },
}


def shell(command: str, cwd: Path) -> None:
    """Run a command line; its failure is an error."""
    done = subprocess.run(command, shell=True, cwd=cwd, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{command}: {done.stdout}{done.stderr}")


PYTHON = f"{sys.executable} -m"


@dataclass
class DvcRoute:
    """`torch.save`, `dvc add`, `git commit`: what a careful user does without ckptvcs."""

    root: Path
    count: int = 0

    @classmethod
    def create(cls, root: Path) -> DvcRoute:
        root.mkdir(parents=True)
        shell(
            f"git init -q . && {PYTHON} dvc init -q && {PYTHON} dvc config core.checksum_jobs 2 && git commit -qam i",
            root,
        )
        return cls(root)

    def commit(self, state: Any) -> None:
        torch.save(state, self.root / "state.pt")
        self.commit_file()

    def commit_file(self) -> None:
        self.count += 1
        shell(
            f"{PYTHON} dvc add -q state.pt && git add state.pt.dvc .gitignore && git commit -q --allow-empty -m {self.count}",
            self.root,
        )

    def checkout(self, revision: str) -> None:
        shell(f"git checkout -q {revision} && {PYTHON} dvc checkout -q", self.root)


def repository(root: Path, *, link: str = "auto") -> Repo:
    """A ckptvcs repository."""
    root.mkdir(parents=True)
    os.environ.update(ENVIRONMENT)
    repo = Repo.init(root)
    if link != "auto":
        repo.close()
        (root / "ckpt.yaml").write_text((root / "ckpt.yaml").read_text() + f"\ncheckout:\n  link: {link}\n")
        repo = Repo(root)
    return repo


def forget(root: Path) -> None:
    """Remove the objects that the workspace does not hold: the disk has no room for those of every round."""
    shell(f"{PYTHON} dvc gc -q --workspace --force", root)
