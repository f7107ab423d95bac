"""Measure, and write what was measured: `python -m tests.bench.run [--write PAGE] [--only NAME] [--sizes GB,GB]`."""

from __future__ import annotations

import argparse
import multiprocessing
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

from tests.bench import experiments
from tests.bench.experiments import Peak, Share, Table
from tests.bench.timing import ROUNDS, ROUNDS_OF_BIG

SIZES = "0.3,1.5"
MAX_ABOVE = 1 << 30

BY_SIZE = (
    "commit",
    "commit_frozen",
    "commit_unchanged",
    "commit_one_of_sixteen",
    "commit_cold",
    "asynchronous",
    "throughput",
    "checkout",
    "load",
    "verification",
)

ALL = [*BY_SIZE, "looking", "planning", "pushing", "appending", "stored", "memory"]

ONE_SIZE = ("commit_frozen", "commit_unchanged", "throughput", "verification")
"""No budget depends on their size, or the machine has too few cores for the larger one."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", type=Path, help="the page to write")
    parser.add_argument("--only", action="append", choices=ALL)
    parser.add_argument("--sizes", default=SIZES, help="bytes of the states, in GB")
    parser.add_argument("--history", type=int, default=10_000, help="checkpoints in the long history")
    args = parser.parse_args()

    parts = list(measured(args.only or ALL, args.sizes, args.history))
    if args.write:
        args.write.write_text(page(parts, args.sizes), encoding="utf-8")
    broken = [part for part in parts if "**no**" in part]
    sys.exit(f"{len(broken)} tables have a budget that does not hold" if broken else 0)


def measured(names: list[str], sizes: str, history: int) -> Iterator[str]:
    """The tables, one after the other, told as they come.

    Each is measured in a process of its own: memory that another one has used and given back is faster than other memory.
    """
    for name in names:
        scales = {"looking": [history], "planning": [10 * history], "stored": [], "pushing": [], "appending": []}.get(
            name, [int(float(size) * 1e9) for size in sizes.split(",")]
        )
        scales = scales[:1] if name in ONE_SIZE else scales
        for scale in [(n,) for n in scales] or [()]:
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                text = pool.apply(part, (name, scale))
            print(text, flush=True)
            yield text


def part(name: str, scale: tuple[int, ...]) -> str:
    """One table."""
    folder = Path(tempfile.mkdtemp(prefix="ckptvcs-bench-"))
    try:
        return worded(getattr(experiments, name)(folder, *scale), *scale)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


Found = Table | list[Table] | list[Peak] | list[Share]


def worded(found: Found | tuple[Found, ...], nbytes: int = 0) -> str:
    """A result as Markdown."""
    if isinstance(found, tuple):
        return "\n".join(worded(one) for one in found)
    if isinstance(found, Table):
        return of_times(found)
    if isinstance(found[0], Table):
        return "\n".join(of_times(one) for one in found)
    if isinstance(found[0], Share):
        return of_shares(found)
    return of_memory(found, nbytes)


def of_shares(shares: list[Share]) -> str:
    """A table of bytes stored."""
    rows = [
        f"| {s.name} | {s.share:.3f} | {s.budget:.2f} | {'yes' if s.share <= s.budget else '**no**'} |" for s in shares
    ]
    about = "MiniLM, frozen base, rank-16 adapters on the attention, 8 checkpoints; of the bytes of 8 `.pt` files."
    head = ["| | share | budget | holds |", "|---|--:|--:|---|"]
    return "\n".join(["### Bytes in the DVC cache of a LoRA run", "", about, "", *head, *rows, ""])


def of_times(table: Table) -> str:
    """A table of wall times, as Markdown."""
    rows = [
        f"| {row.name} | {row.seconds:.3f} s | {row.ratio:.2f} | "
        + (f"{row.budget:.2f} | {'yes' if row.holds else '**no**'} |" if row.budget is not None else "| |")
        for row in table.rows
    ]
    head = ["| | median | ratio | budget | holds |", "|---|--:|--:|--:|---|"]
    title = table.title[0].upper() + table.title[1:]
    return "\n".join([f"### {title}", "", f"Ratios to {table.reference}.", "", *head, *rows, ""])


def of_memory(peaks: list[Peak], nbytes: int) -> str:
    """A table of peak memory, as Markdown."""
    rows = [
        f"| {peak.name} | {peak.nbytes >> 20} MiB | {peak.above >> 20} MiB | {'yes' if peak.above <= MAX_ABOVE else '**no**'} |"
        for peak in peaks
    ]
    head = ["| | peak | above an empty process | holds |", "|---|--:|--:|---|"]
    budget = "Budget: 1 GiB above the interpreter and its imports."
    title = f"### Peak memory, {nbytes / 1e9:.2g} GB" if nbytes else "### Peak memory"
    return "\n".join([title, "", budget, "", *head, *rows, ""])


def page(parts: list[str], sizes: str) -> str:
    """The page of benchmarks."""
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "dvc", "safetensors", "pygit2"))
    return "\n".join(
        [
            "# Benchmarks",
            "",
            f"Written by `make bench`. Wall times are medians of {ROUNDS} ({ROUNDS_OF_BIG} for over a gigabyte, 20 for",
            "asynchronous saves), the candidates take turns within one run, and only ratios mean anything elsewhere:",
            "`tests/bench/` says what exactly is timed. Every commit of ckptvcs is durable",
            "(`fsync`) when it returns; `dvc add` and `torch.save` without fsync leave that to the kernel, which in the routes",
            "that begin with `torch.save` is still writing that file meanwhile. DVC has its `core.checksum_jobs`. States",
            f"have random weights and both moments of AdamW, {' and '.join(sizes.split(','))} GB together.",
            "",
            f"Measured on {os.cpu_count()} cores ({platform.machine()}), Python {platform.python_version()}, {packages},",
            f"as {'root' if os.geteuid() == 0 else 'a user'}. Linked and copied say how files came into the workspace: where",
            "they cannot be cloned, a user's are hard-linked and root's are copied.",
            "",
            *parts,
        ]
    )


if __name__ == "__main__":
    main()
