"""ckptvcs on a real training run, in about a minute: every claim is checked here, and printed once it held.

usage: python demo/run.py [FOLDER]
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from safetensors.torch import load_file

import ckptvcs

HERE = Path(__file__).parent
STEPS, KILLED_AT, FORKED_AT = 201, 130, 100


def main() -> None:
    """Run the story; end with an error at the first claim that does not hold."""
    where = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(tempfile.mkdtemp(prefix="ckptvcs-demo-"))
    began = time.monotonic()
    for role in ("AUTHOR", "COMMITTER"):  # git may not have been told yet who works here
        os.environ |= {f"GIT_{role}_NAME": "demo", f"GIT_{role}_EMAIL": "demo@example.org"}
    root = prepare(where / "gpt")
    with ckptvcs.Repo(root) as repo:
        never_stopped(root)
        killed_and_resumed(root)
        same_to_the_bit(root, repo)
        forks(root, repo)
        golden(repo)
        old_state(root, repo, where / "step-50")
        plain_git_and_dvc(root, where / "clone")
    tell(f"\nDone in {time.monotonic() - began:.0f} s. The repository is in {root}: try 'ckpt log --graph' there.")


# --------------------------------------------------------------------------------------------------------- the story


def prepare(root: Path) -> Path:
    """A repository with the code that will be run."""
    chapter("A repository: git for the code, DVC for the bytes, ckpt.yaml")
    root.mkdir(parents=True)
    ckptvcs.Repo.init(root, remote=str(root.parent / "remote")).close()
    for name in ("gpt.py", "train.py"):
        shutil.copyfile(HERE / name, root / name)
    (root / ".gitignore").write_text("*.losses\n__pycache__/\n")
    run("git", "add", "-A", cwd=root)
    run("git", "commit", "-qm", "A small GPT", cwd=root)
    return root


def never_stopped(root: Path) -> None:
    """The run that all others are compared with."""
    chapter(f"Run 'steady': {STEPS} steps of a GPT on the sources of the standard library")
    train(root, "steady")
    losses = losses_of(root, "steady")
    tell(f"loss {losses[0]:.2f} -> {losses[STEPS - 1]:.2f}")
    ckpt(root, "log", "steady")


def killed_and_resumed(root: Path) -> None:
    """The same run, killed with SIGKILL in the middle, and started again with the same command."""
    chapter(f"Run 'stopped': the same, but killed (SIGKILL) at step {KILLED_AT}")
    process = subprocess.Popen(
        [sys.executable, "train.py", "stopped", str(STEPS), "--pause-at", str(KILLED_AT)], cwd=root
    )
    log = root / "stopped.losses"
    while not (log.exists() and log.read_text().endswith("paused\n")):
        if process.poll() is not None:
            raise SystemExit("the training ended too early")
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    log.write_text(log.read_text().removesuffix("paused\n"))
    train(root, "stopped")


def same_to_the_bit(root: Path, repo: ckptvcs.Repo) -> None:
    """Losses and weights of the two runs, compared bit by bit."""
    prove(
        losses_of(root, "steady") == losses_of(root, "stopped"),
        f"it went on from step {FORKED_AT} exactly: all {STEPS} losses are those of the run that was never stopped",
    )
    one, two = (repo.show(f"{name}@latest").manifest for name in ("steady", "stopped"))
    prove(
        {f.path: f.blake3 for c in one.components for f in c.files}
        == {f.path: f.blake3 for c in two.components for f in c.files},
        "weights, optimizer, scheduler and random generators at the end are the same bytes",
    )


def forks(root: Path, repo: ckptvcs.Repo) -> None:
    """Two experiments from one checkpoint."""
    chapter(f"Two experiments fork from step {FORKED_AT}")
    base = repo.show(f"steady@step:{FORKED_AT}")
    for run_name, lr in (("lr-high", "0.003"), ("lr-low", "0.0003")):
        train(root, run_name, "--from", f"steady@step:{FORKED_AT}", "--lr", lr, steps=STEPS - 50)
    ckpt(root, "log", "--graph", "--all")
    prove(
        all(repo.log(name)[1].id == base.id for name in ("lr-high", "lr-low"))
        and all(repo.show(name).manifest.parents == (base.id,) for name in ("lr-high", "lr-low")),
        f"both lines go back to {base.id[:10]}, in git as in the manifests",
    )


def golden(repo: ckptvcs.Repo) -> None:
    """A mark that does not move."""
    chapter("A golden tag on the best one")
    best = min((repo.show(f"{name}@best:loss") for name in ("steady", "lr-high", "lr-low")), key=loss)
    name = repo.tag("demo", best.commit, golden=True, message="the best of the demo")
    tell(f"{name} -> {best.id[:10]}, step {best.manifest.step}, loss {loss(best):.4f}")
    try:
        repo.tag("demo", "steady@step:0", golden=True)
    except ckptvcs.Refused as refused:
        prove(True, f"it cannot be moved: {refused}")
    else:
        prove(False, "a golden tag refuses to move")


def old_state(root: Path, repo: ckptvcs.Repo, to: Path) -> None:
    """An old state comes back, and is compared with the golden one."""
    chapter("An old state comes back")
    repo.restore("steady@step:50", to=to)
    here = {
        name: tensor
        for file in sorted((to / "model").glob("*.safetensors"))
        for name, tensor in load_file(file).items()
    }
    there = ckptvcs.load("stopped@step:50", ["model"], repo=root)["model"]
    prove(
        all(here[name].equal(tensor) for name, tensor in there.items() if name in here) and len(here) >= len(there) - 1,
        "restored from 'steady', read by safetensors, equal bit for bit to what 'stopped' had at step 50",
    )
    ckpt(root, "diff", "steady@step:50", "golden/demo")


def plain_git_and_dvc(root: Path, clone: Path) -> None:
    """Whoever has git and DVC needs nothing else."""
    chapter("Somebody without ckptvcs: git clone, dvc pull")
    run(sys.executable, "-m", "dvc", "push", "-q", "--all-branches", cwd=root)
    run("git", "clone", "-q", "-b", "steady", str(root), str(clone), cwd=root)
    run(sys.executable, "-m", "dvc", "pull", "-q", cwd=clone)
    tensors = sum(len(load_file(file)) for file in (clone / "checkpoints/model/model").glob("*.safetensors"))
    status = run(sys.executable, "-m", "dvc", "status", cwd=clone)
    prove(tensors > 0 and "up to date" in status, f"'dvc status' is clean, and safetensors reads {tensors} tensors")


# --------------------------------------------------------------------------------------------------------- the tools


def train(root: Path, name: str, *options: str, steps: int = STEPS) -> None:
    run(sys.executable, "train.py", name, str(steps), *options, cwd=root)


def losses_of(root: Path, name: str) -> dict[int, float]:
    """Step -> loss; a step that was done twice must have given the same loss twice."""
    found: dict[int, float] = {}
    for line in (root / f"{name}.losses").read_text().splitlines():
        entry = json.loads(line)
        loss = float.fromhex(entry["loss"])
        if found.setdefault(entry["step"], loss) != loss:
            raise SystemExit(f"FAILED: step {entry['step']} of '{name}' was done twice, with two losses")
    return found


def loss(checkpoint: object) -> float:
    return checkpoint.manifest.metrics["loss"]


def run(*command: str, cwd: Path) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"FAILED: {' '.join(command)}\n{done.stdout}{done.stderr}")
    return done.stdout


def ckpt(root: Path, *args: str) -> None:
    """Show what a command prints."""
    tell(f"$ ckpt {' '.join(args)}")
    tell(run(sys.executable, "-m", "ckptvcs", *args, cwd=root).rstrip())


def chapter(title: str) -> None:
    tell(f"\n== {title}")


def prove(held: bool, claim: str) -> None:
    if not held:
        raise SystemExit(f"FAILED: {claim}")
    tell(f"PROVED  {claim}")


def tell(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    main()
