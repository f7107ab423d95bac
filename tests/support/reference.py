"""Writes the reference pages that are made from the code: the command line, the errors, Python, the configuration.

`python -m tests.support.reference` writes them, with `--check` it only compares. What a page says depends on the code alone:
not on the width of a terminal, on colours, on the version of Python or of click.
"""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import inspect
import io
import re
import sys
import types
import typing
from collections.abc import Callable, Iterable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import click

import ckptvcs
from ckptvcs import errors
from ckptvcs.cli import render
from ckptvcs.cli.main import VERBS, cli
from ckptvcs.domain import basics, policy

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docs" / "reference"
NOTE = "<!-- This page is made from the code by `make docs`. Edit the code, not the page. -->"

_WIDTH = 100


def pages() -> dict[str, str]:
    """Every generated page, by its name in `docs/reference`."""
    return {
        "cli.md": cli_page(),
        "configuration.md": configuration_page(),
        "errors.md": errors_page(),
        "python.md": python_page(),
    }


def main(args: list[str]) -> int:
    """Write the pages, or compare them; the status is 1 if one is not what it should be."""
    stale = [name for name, text in pages().items() if not is_current(name, text)]
    if "--check" in args:
        for name in stale:
            print(f"docs/reference/{name} is not what the code says: run 'make docs'", file=sys.stderr)
        return 1 if stale else 0
    for name in stale:
        (FOLDER / name).write_text(pages()[name], encoding="utf-8")
        print(f"wrote docs/reference/{name}")
    return 0


def is_current(name: str, text: str) -> bool:
    path = FOLDER / name
    return path.is_file() and path.read_text(encoding="utf-8") == text


# ------------------------------------------------------------------------------------------------------------- markdown


def page(title: str, *parts: str) -> str:
    return "\n\n".join([f"# {title}", NOTE, *(part.strip("\n") for part in parts if part)]) + "\n"


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    head = list(head)
    lines = [head, ["---"] * len(head), *(list(row) for row in rows)]
    return "\n".join("| " + " | ".join(_cell(text) for text in line) + " |" for line in lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def fenced(text: str, language: str = "") -> str:
    return f"```{language}\n{text.strip(chr(10))}\n```"


def code(text: str) -> str:
    return f"`{text}`"


# --------------------------------------------------------------------------------------------------------- command line


def _reasons(when: str) -> list[tuple[str, str, str]]:
    return [
        (when, "floor", "whether no policy can change it"),
        (when, "kind", "the rule, or `newest`, `best`, `fork`, `hold`, `golden`..."),
        (when, "text", "the same in words"),
        (when, "components", "the components that it keeps; empty if it keeps all of them"),
        (when, "ends", "it ends when all of one of these lists are gone"),
    ]


_COLLECTED: list[tuple[str, str, str]] = [
    ("", "run", "the name of this collection"),
    ("", "dropped", "checkpoint id -> the components that were condemned"),
    ("", "kept_again", "ids of checkpoints that were condemned and are needed again"),
    *(
        (f"each of `{which}`", key, text)
        for which in ("condemned", "waiting")
        for key, text in (
            ("place", "`hot`, or the name of a remote"),
            ("objects", "how many objects"),
            ("nbytes", "their bytes"),
            ("grace_s", "how many seconds it waits at least from now on"),
        )
    ),
    *(
        ("each of `swept`", key, text)
        for key, text in (
            ("place", "`hot`, or the name of a remote"),
            ("objects", "objects that were swept"),
            ("nbytes", "their bytes"),
            ("into_trash", "whether they can be brought back for some time"),
            ("emptied", "objects that went from the trash for good"),
            ("emptied_bytes", "their bytes"),
            ("healed", "names of objects that came back from the trash, because they are needed"),
        )
    ),
    ("each of `stops`", "kind", "why a person would have to look first, with `--dry-run`"),
    ("each of `stops`", "what", "the same in words"),
    ("each of `stops`", "next", "what a person can do"),
    ("", "dry_run", "whether nothing was done"),
]


# What `--json` answers: verb -> (when, key, meaning). A test compares the keys with what the verbs say.
JSON: dict[str, list[tuple[str, str, str]]] = {
    "init": [
        ("", "root", "the folder of the repository"),
        ("", "made", "what was made, or would be"),
        ("", "commit", "the git commit that holds it, or null"),
        ("", "dry_run", "whether nothing was done"),
    ],
    "commit": [
        ("", "id", "the checkpoint id"),
        ("", "commit", "the git commit"),
        ("", "branch", "the branch that it is on"),
        ("", "track", "the track"),
        ("", "step", "the step, or null"),
        ("", "epoch", "the epoch, or null"),
        ("", "metrics", "metrics by name"),
        ("", "grade", "`exact`, `approximate` or `weights-only`"),
        ("", "bytes", "size of the artifact"),
        ("", "new_bytes", "of these, bytes of objects that were written"),
        ("", "notes", "what the user should know"),
        ("with `-n`", "dry_run", "true"),
        ("with `-n`", "branch", "the branch that it would go to"),
        ("with `-n`", "track", "the track"),
        ("with `-n`", "bytes", "size of the artifact"),
        ("with `-n`", "new_bytes", "bytes that would be written"),
        ("with `-n`", "files", "paths in the artifact"),
        ("with `-n`", "new_files", "of these, the files whose objects would be written"),
    ],
    "import": [
        (
            "",
            "files",
            "each file or folder that was found: `path`, `format` (or null), `bytes`, `date`, `step`, `epoch`, `metrics`, "
            "`best` (whether its trainer calls it the best of its run), `branch`, `status` (`new` with `-n`, else `imported`; "
            "`there`, `dropped` where all or some of it was swept since, `same`, `failed`), `error` (with `error`, `what`, "
            "`why` and `next`, or null), `same_as` (the path of the one with the same bytes, or null), `id` and `commit` (of "
            "the checkpoint, or null), `dropped` (what of the checkpoint that it became is condemned or gone, as in the log, "
            "or null), `new_bytes` (that were written, or null), `kept` (why `retain` would keep it, empty if it would not, "
            "null if there is no policy), `notes`",
        ),
        ("", "others", "files that fit a pattern and are no checkpoints"),
        ("", "bytes", "size of all of them"),
        ("", "new_bytes", "bytes of objects that were written; with `-n`, the size of what would be imported"),
        ("", "notes", "what else the user should know"),
        ("", "track", "the track"),
        ("", "dry_run", "whether nothing was done"),
    ],
    "remote list": [
        ("each of the list", "name", "the remote"),
        ("each of the list", "url", "where it is"),
        ("each of the list", "default", "whether checkpoints go there"),
        ("each of the list", "tier", "`warm` or `cold`"),
    ],
    "remote add": [
        ("", "name", "the remote"),
        ("", "url", "where it is"),
        ("", "default", "whether checkpoints go there"),
        ("", "tier", "`warm` or `cold`"),
        (
            "",
            "can",
            "`ranges`, `listing`, `exclusive`, `clock`: what the store was seen to do; null where nothing was done",
        ),
        ("", "dry_run", "whether nothing was done"),
    ],
    "remote show": [
        ("", "name", "the remote"),
        ("", "url", "where it is"),
        ("", "default", "whether checkpoints go there"),
        ("", "tier", "`warm` or `cold`"),
        ("", "store", "id of the store, which all clones see, or null"),
        ("", "can", "`ranges`, `listing`, `exclusive`, `clock`: what is recorded of the store, or null"),
        (
            "",
            "pushes",
            "those under way: `writer`, `actor`, `repository`, `refs`, `objects` (how many), `bytes` (to be sent), `age_s`, "
            "`counts` (whether a collector respects it), of its [lease](format/remote-1.md#leases)",
        ),
    ],
    "push": [
        ("", "to", "the git remote"),
        (
            "",
            "remotes",
            "each DVC remote: `name`, `objects`, `bytes`; empty if no object had to be looked at",
        ),
        ("", "refs", "full names of the refs that moved, or would"),
        ("", "checkpoints", "ids of those that the other side did not have"),
        ("", "objects", "how many objects were uploaded, or would be, to all of them"),
        ("", "bytes", "their size"),
        ("", "dry_run", "whether nothing was done"),
    ],
    "fetch": [
        ("", "to", "the git remote"),
        ("", "refs", "full names of the refs that are new here or moved"),
        ("", "dry_run", "whether nothing was done"),
    ],
    "pull": [
        ("", "to", "the git remote"),
        ("", "refs", "full names of the refs that are new here or moved"),
        ("", "commit", "where the branch that is checked out went, or null"),
        ("", "objects", "how many objects came"),
        ("", "bytes", "their size"),
        ("", "dry_run", "whether nothing was done"),
    ],
    "note": [
        ("", "id", "the checkpoint id"),
        ("", "commit", "the git commit of the checkpoint"),
        ("", "metrics", "what was noted"),
        ("", "before", "the metrics that counted until then"),
        ("", "message", "the message, or an empty text"),
        ("", "writer", "whose chain of the [ledger](format/ledger-1.md) the note is in; null where nothing was done"),
        ("", "n", "the number of its entry there; null where nothing was done"),
        ("", "dry_run", "whether nothing was done"),
    ],
    "hold": [
        ("with REV", "id", "the checkpoint id"),
        ("with REV", "commit", "the git commit of the checkpoint"),
        ("with REV", "until", "when the hold runs out, UTC; an empty text if it does not"),
        ("with REV", "why", "the reason"),
        ("with REV", "hold", "what a release calls it, `WRITER#N`; null where nothing was done"),
        ("with REV", "dry_run", "whether nothing was done"),
        *(
            ("each of the list", key, text)
            for key, text in (
                ("checkpoint", "the checkpoint id"),
                ("commit", "the git commit that it was found at"),
                ("until", "when the hold runs out, UTC; an empty text if it does not"),
                ("why", "the reason"),
                ("time", "when it was made, UTC"),
                ("writer", "whose chain of the [ledger](format/ledger-1.md) it is in"),
                ("n", "the number of its entry there"),
                ("actor", "who made it, by a pseudonym"),
                ("hold", "what a release calls it"),
            )
        ),
    ],
    "release": [
        ("", "id", "the checkpoint id"),
        ("", "holds", "the holds that end"),
        ("", "dry_run", "whether nothing was done"),
    ],
    "audit log": [
        ("each of the list", "writer", "whose chain it is in"),
        ("each of the list", "n", "its place there"),
        ("each of the list", "prev", "SHA-256 of the entry before"),
        ("each of the list", "time", "when it was written, UTC"),
        ("each of the list", "op", "what was done"),
        ("each of the list", "actor", "who did it, by a pseudonym"),
        ("each of the list", "facts", "what there is to say about it"),
        ("each of the list", "seen", "heads of other chains that its writer knew"),
        ("each of the list", "format", "of the entry"),
        ("each of the list", "who", "the name of its key in ckpt.signers, else the pseudonym"),
        ("each of the list", "here", "whether this clone wrote it"),
        ("each of the list", "counts", "whether its writer may write"),
    ],
    "audit verify": [
        ("", "sound", "whether nothing is wrong"),
        ("", "chains", "how many there are"),
        ("", "entries", "how many they have together"),
        ("", "unsigned", "writers whose chains are from before there were signatures"),
        ("", "listed", "whether there is a `ckpt.signers`"),
        (
            "",
            "flaws",
            "what is wrong: `writer`, `n`, `what`, and `unlisted` if all that is wrong is that its key is not listed",
        ),
        ("", "notes", "what the user should know"),
    ],
    "audit heads": [
        ("", "format", "`ckptvcs-pins/1`"),
        ("", "heads", "writer -> number and SHA-256 of its last entry"),
    ],
    "audit keys": [
        ("each of the list", "key", "the public key"),
        ("each of the list", "name", "whose it is by `ckpt.signers`; null if it is not there"),
        ("each of the list", "valid", "whether what it writes now counts elsewhere"),
        ("each of the list", "writers", "chains that it signed"),
        ("each of the list", "here", "whether this clone signs with it"),
        ("each of the list", "fingerprint", "as `ssh-keygen -l` prints it"),
    ],
    "audit allow": [
        ("", "name", "whose key it is"),
        ("", "key", "the public key"),
        ("", "after", "from when on it is valid, UTC; an empty text for always"),
        ("", "before", "until when"),
        ("", "line", "what stands in `ckpt.signers` then"),
        ("", "dry_run", "whether nothing was done"),
    ],
    "audit revoke": [
        ("", "key", "the public key"),
        ("", "name", "whose it is"),
        ("", "valid", "whether it was valid before"),
        ("", "writers", "chains that it signed"),
        ("", "here", "whether this clone signs with it"),
        ("", "fingerprint", "as `ssh-keygen -l` prints it"),
        ("", "until", "when it ends, UTC"),
        ("", "dry_run", "whether nothing was done"),
    ],
    "merge": [
        ("", "id", "the checkpoint id"),
        ("", "commit", "the git commit"),
        ("", "branch", "the branch that it is on"),
        ("", "step", "the step, or null"),
        ("", "grade", "`approximate` or `weights-only`"),
        ("", "notes", "what the user should know"),
        ("", "method", "the method; beside it the numbers that it takes, such as `weights`, `density` or `lambda`"),
        ("", "of", "ids of the checkpoints"),
        ("", "base", "id of the base of `ties`, or null"),
        ("", "merged", "names of the components that are merged"),
        ("", "taken", "names of those that are the first checkpoint's"),
        ("", "left_out", "names of those that are left out"),
        ("", "track", "the track"),
        ("", "bytes", "size of the artifact"),
        ("", "new_bytes", "of these, bytes of objects that were written"),
        ("with `-n`", "dry_run", "true"),
        ("with `-n`", "...", "the same without `id`, `commit`, `step` and `grade`"),
    ],
    "log": [("", "checkpoints", "a list of checkpoints, newest first"), ("", "more", "whether there are more")],
    "show": [
        ("", "...", "all keys of a checkpoint"),
        ("", "manifest", "the [manifest](format/manifest-1.md)"),
        ("", "here", "whether all objects are in the cache"),
        ("", "holds", "those that stand, as `ckpt hold --json` lists them"),
        ("with `--tensors`", "tensors", "component -> tensor name -> its row"),
    ],
    "status": [
        ("", "branch", "the branch that is checked out, or null"),
        ("", "head", "the commit that is checked out, or null"),
        (
            "",
            "tracks",
            "track -> `checkpoint`, `workspace` (`clean`, `earlier`, `changed` or `missing`), `changed` (paths), "
            "`holds` (id of the earlier checkpoint that is there, or null)",
        ),
        ("", "code", "`changed` and `untracked` paths outside of the checkpoints"),
    ],
    "diff": [
        ("", "before", "a checkpoint"),
        ("", "after", "a checkpoint"),
        ("", "difference", "a [Difference](python.md#difference)"),
        ("", "values", "a list of [Distance](python.md#distance); empty without `--values`"),
    ],
    "checkout": [
        ("", "commit", "the commit that HEAD is at"),
        ("", "branch", "the branch that HEAD names, or null"),
        ("", "checkpoints", "a list of checkpoints, one a track"),
        ("", "dry_run", "whether nothing was done"),
    ],
    "restore": [
        ("", "checkpoint", "a checkpoint"),
        ("", "places", "the folders that were written"),
        ("", "bytes", "their size"),
        ("", "dry_run", "whether nothing was done"),
    ],
    "branch": [
        ("each of the list", "name", "the branch"),
        ("each of the list", "commit", "where it is"),
        ("each of the list", "current", "whether it is checked out"),
        ("each of the list", "checkpoint", "a checkpoint, or null"),
        ("with NAME", "branch", "the branch"),
        ("with NAME", "commit", "where it is, or was"),
        ("with NAME", "done", "`made` or `deleted`"),
        ("with NAME", "dry_run", "whether nothing was done"),
    ],
    "tag": [
        ("each of the list", "name", "the tag"),
        ("each of the list", "commit", "where it is"),
        ("each of the list", "mark", "`golden`, `milestone` or null"),
        ("each of the list", "message", "of an annotated tag, else null"),
        ("each of the list", "checkpoint", "a checkpoint, or null"),
        ("with NAME", "tag", "the whole name of the tag"),
        ("with NAME", "commit", "where it is, or was"),
        ("with NAME", "done", "`made` or `deleted`"),
        ("with NAME", "dry_run", "whether nothing was done"),
    ],
    "export": [
        ("", "checkpoint", "a checkpoint"),
        ("", "destination", "what was written"),
        ("", "format", "its format"),
        ("", "dry_run", "whether nothing was done"),
    ],
    "policy show": [("", "...", "all [keys](configuration.md#keys) of the configuration")],
    "policy check": [
        ("", "against", "the commit that was compared with, or null"),
        (
            "",
            "changes",
            "what means something else: `section` (`retain`, `best`, `save`), `how` (`added`, `removed`, `changed`), `what`, "
            "`before`",
        ),
        (
            "",
            "dropped",
            "what was kept and is dropped now, newest first: `id`, `commit`, `step`, `time`, `branches`, `components`, "
            "`because` (why it was kept)",
        ),
        ("", "dropped_bytes", "bytes of the objects that only that needs"),
        ("", "kept", "what was dropped and is kept now, likewise; `because` is why it is kept"),
        ("", "kept_bytes", "bytes of the objects that only that needs"),
        ("", "odd", "what is odd about the policy, in words that begin with a key"),
    ],
    "alerts": [
        ("", "format", "`ckptvcs-alerts/1`"),
        ("", "repository", "the name of its folder"),
        ("", "time", "when it was looked, in seconds since the epoch"),
        (
            "",
            "alerts",
            "`kind` (`growth`, `quota`, `save`, `restore`, `push`, `proof`, `place`), `severity` (`warning`, `critical`), "
            "`what`, `next`, `value` and `limit` in bytes or seconds, `facts`",
        ),
    ],
    "ci init": [
        ("", "files", "`path`, relative to the root of git, and `did`: `make`, `replace` or `keep`"),
        ("", "next", "what is left to do"),
        ("", "dry_run", "whether nothing was done"),
        ("each of the list", "kind", "what `--kind` takes"),
        ("each of the list", "what", "what it is"),
    ],
    "why": [
        ("", "id", "the checkpoint id"),
        ("", "commit", "the git commit of the checkpoint"),
        ("", "kept", "the components that are kept"),
        ("", "dropped", "those that nothing keeps"),
        *_reasons("each of `reasons`"),
        ("each of `overruled`", "by", "the key of ckpt.yaml that sets a limit of bytes"),
        ("each of `overruled`", "reason", "what would keep it without that, as in `reasons`"),
        ("each of `removals`", "source", "a key of ckpt.yaml, or `branch NAME`, `tag NAME`, `hold ID`..."),
        ("each of `removals`", "left", "the kinds of reasons that would be left without it"),
        ("each of `removals`", "dropped", "whether the checkpoint would be dropped"),
        ("each of `standings`", "branch", "a branch that it is on"),
        ("each of `standings`", "place", "1 for the newest of the branch"),
        ("each of `standings`", "count", "how many the branch has"),
        ("each of `standings`", "ranks", "by metrics that are compared: 1 for the best"),
        ("", "leases", "pushes under way that need it, with `--ask`"),
        ("", "fate", "what was condemned or is gone, as `dropped` of [`log`](#ckpt-log); null if nothing"),
    ],
    "gc": [*_COLLECTED],
    "gc --rescue": [
        ("", "id", "the checkpoint id"),
        ("", "components", "what was condemned, or in a trash"),
        ("", "brought_back", "objects that came back from a trash"),
        ("", "dry_run", "whether nothing was done"),
    ],
    "policy plan": [
        ("each of `checkpoints`", "id", "the checkpoint id"),
        ("each of `checkpoints`", "commit", "the git commit that holds it"),
        ("each of `checkpoints`", "track", "its track"),
        ("each of `checkpoints`", "step", "the step, or null"),
        ("each of `checkpoints`", "time", "when it was saved, in seconds since the epoch"),
        ("each of `checkpoints`", "branches", "those that it is on"),
        ("each of `checkpoints`", "kept", "whether anything of it is kept"),
        ("each of `checkpoints`", "dropped", "the components that nothing keeps"),
        ("each of `checkpoints`", "reasons", "why it is kept, as in [`why`](#ckpt-why)"),
        ("each of `checkpoints`", "overruled", "what would keep it, if there were room, as in [`why`](#ckpt-why)"),
        ("", "evicted", "checkpoints whose local copies go, which a remote has"),
        (
            "",
            "new",
            "how many lose something not condemned yet: the number for `--yes-delete`, less what neighbours need",
        ),
        ("each of `freed`", "place", "`hot`, or the name of a remote"),
        ("each of `freed`", "objects", "how many objects go there"),
        ("each of `freed`", "nbytes", "their bytes"),
        ("`at`", "refs", "a digest of all refs that the plan was made from"),
        ("`at`", "policy", "a digest of the policy"),
        ("`at`", "ledger", "a digest of the ends of all chains"),
    ],
    "policy apply": [*_COLLECTED, ("", "alerts", "what somebody has to know, as in [`alerts`](#ckpt-alerts)")],
    "policy simulate": [
        ("each policy", "policy", "what it is called"),
        ("each policy", "bytes", "bytes at the end"),
        ("each policy", "peak", "the most bytes at any time"),
        ("each policy", "gb_months", "bytes times time: GB times months of 30 days"),
        ("each policy", "cost", "that times `--price`; null without one"),
        ("each policy", "kept", "checkpoints that are left, whole or in part"),
        ("each policy", "dropped", "those of which nothing is left"),
        ("each of `lost`", "use", "`time`, `checkpoint` and `what`: how it was used"),
        ("each of `lost`", "gone_at", "since when it would have been gone, in seconds since the epoch"),
        ("each of `over_time`", "time", "in seconds since the epoch; with `--every`, since training begins"),
        ("each of `over_time`", "bytes", "what was there then"),
    ],
    "policy calibrate": [
        ("", "source", "`ledger`, or `checkpoints` where that tells of no run"),
        ("", "saves", "how many saves there were whose cost is known"),
        ("", "runs", "how many runs"),
        ("", "starts", "how often they were started"),
        ("", "failures", "how often training was broken off or ended with an exception"),
        ("", "preemptions", "how often it was preempted"),
        ("", "uptime_s", "seconds of training"),
        ("", "cost_median_s", "seconds that a save took from training; null if that is not known, as below"),
        ("", "cost_p90_s", "what nine of ten saves did not exceed"),
        ("", "duration_median_s", "seconds until a save was durable"),
        ("", "duration_p90_s", "what nine of ten saves did not exceed"),
        ("", "mtbf_s", "mean seconds between failures that is reckoned with"),
        ("", "mtbf_low_s", "it is at least that, with 95 % confidence"),
        ("", "mtbf_high_s", "it is at most that, with 95 % confidence; null without a failure"),
        ("", "overhead", "the part of the work that saves may cost"),
        ("", "young_s", "the interval of Young"),
        ("", "daly_s", "the interval of Daly"),
        ("", "budget_s", "the shortest interval within the overhead"),
        ("", "interval_s", "the proposal: seconds of work between two saves"),
        ("", "lost", "the part of the time that is then lost to saves and to work done again"),
        ("", "now_s", "median seconds between two saves until now"),
        ("", "lost_now", "the part of the time that is lost with them"),
        ("", "save", "what can be written into `ckpt.yaml`"),
    ],
    **{
        f"hooks {verb}": [
            ("", "folder", "where git looks for hooks"),
            ("", "hooks", "a list of `name`, `did`, `why`, `next`; `did` is one of " + deeds),
            ("", "dry_run", "whether nothing was done"),
        ]
        for verb, deeds in (
            (
                "install",
                "`make`, `add` (to a script of others), `renew`, `keep`, and `leave`, of which the other two tell",
            ),
            ("uninstall", "`remove` and `take out` (of a script of others)"),
        )
    },
    "doctor": [("", "findings", "a list of `what`, `why`, `next_step`; empty if all is well")],
    "completion": [("", "shell", "the shell"), ("", "script", "the script")],
}

CHECKPOINT_KEYS = [
    ("id", "the checkpoint id"),
    ("commit", "the git commit"),
    ("subject", "first line of the commit message"),
    ("author", "who committed it"),
    ("time", "when it was committed, ISO 8601 with offset"),
    ("names", "branches and tags that stand there (`log` and `show` alone fill it)"),
    ("track", "the track"),
    ("run", "`id` and `name`"),
    ("step", "the step, or null"),
    ("epoch", "the epoch, or null"),
    ("metrics", "metrics by name: those of the manifest, and the late ones, which override them"),
    ("late_metrics", "of these, those that were noted later: name -> `value`, `time`, `writer`, `n`, `message`"),
    ("params", "hyperparameters by name"),
    ("reason", "why it was saved"),
    ("grade", "`exact`, `approximate` or `weights-only`; `dropped` if nothing of it is left"),
    ("dropped", "what of it is condemned or gone: `components`, `gone`, `time`, `why`, `run`; null if nothing"),
    ("bytes", "size of the artifact"),
    ("parents", "checkpoint ids"),
]


def cli_page() -> str:
    context = click.Context(cli, info_name="ckpt")
    parts = [
        str(cli.help),
        "`python -m ckptvcs` is the same program. Answers go to stdout, talk and progress to stderr. Every verb takes\n"
        "`--json`; every verb that writes takes `--dry-run`; none asks a question. How a `REV` is read is in\n"
        "[Revisions](revisions.md); what an error looks like is in [Errors](errors.md).",
        fenced("ckpt [-C PATH] VERB [OPTIONS] [ARGUMENTS]"),
        options_table(cli),
        "`-h` and `--help` explain `ckpt` and every verb.",
        "## Exit status",
        exit_table(),
        "## Checkpoints in JSON",
        "Where an answer holds a checkpoint, it has these keys. Numbers that JSON cannot say (`nan`, `inf`) are text.",
        table(["key", "value"], [(code(key), meaning) for key, meaning in CHECKPOINT_KEYS]),
    ]
    for title, verbs in VERBS.items():
        parts.append(f"## {title}")
        for verb in verbs:
            command = cli.get_command(context, verb)
            assert command is not None
            parts += group_parts(verb, command) if isinstance(command, click.Group) else verb_parts(verb, command)
    return page("Command line", *parts)


def group_parts(verb: str, group: click.Group) -> Iterator[str]:
    yield f"### ckpt {verb}"
    yield inspect.cleandoc(str(group.help))
    for name, command in group.commands.items():
        yield from verb_parts(f"{verb} {name}", command)


def verb_parts(verb: str, command: click.Command) -> Iterator[str]:
    yield f"### ckpt {verb}"
    arguments = [p for p in command.params if isinstance(p, click.Argument)]
    shown = " ".join(["ckpt", verb, "[OPTIONS]", *map(argument_name, arguments)])
    examples = None
    for paragraph in inspect.cleandoc(str(command.help)).split("\n\n"):
        if paragraph.startswith("\b\nExamples:\n"):
            examples = inspect.cleandoc("\n" + paragraph.removeprefix("\b\nExamples:\n"))
        else:
            yield paragraph
    yield fenced(shown)
    defaults = [(argument_name(a), a.default) for a in arguments if is_told(a.default)]
    yield "\n".join(f"`{name}` is `{default}` where it is not given." for name, default in defaults)
    yield options_table(command)
    if examples:
        yield "Examples:"
        yield fenced(examples, "sh")
    yield "With `--json`:"
    yield json_table(verb)


def json_table(verb: str) -> str:
    rows = JSON[verb]
    if any(when for when, _, _ in rows):
        return table(["when", "key", "value"], [(when, code(key), meaning) for when, key, meaning in rows])
    return table(["key", "value"], [(code(key), meaning) for _, key, meaning in rows])


def argument_name(argument: click.Argument) -> str:
    name = argument.metavar or (argument.name or "").upper()
    if isinstance(argument.type, click.Choice):
        name = "|".join(map(str, argument.type.choices))
    return name if argument.required or name.startswith("[") else f"[{name}]"


def options_table(command: click.Command) -> str:
    rows = []
    for option in command.params:
        if isinstance(option, click.Option):
            names = ", ".join(code(f"{name}{option_value(option)}") for name in option.opts)
            default = code(str(option.default)) if is_told(option.default) and not option.is_flag else ""
            if option.name == "limit":
                default = ""  # its help says it
            rows.append((names, default, f"{option.help or ''}{option_range(option)}"))
    return table(["option", "default", "meaning"], rows)


def option_value(option: click.Option) -> str:
    if option.is_flag or option.count:
        return ""
    if isinstance(option.type, click.Choice):
        return " " + "|".join(map(str, option.type.choices))
    return f" {option.metavar or (option.name or '').upper()}"


def option_range(option: click.Option) -> str:
    low = getattr(option.type, "min", None)
    return f" At least {low}." if low is not None else ""


def is_told(default: Any) -> bool:
    """Whether a default is one that a user can see: click has values of its own for "none was given"."""
    return isinstance(default, (str, int, float)) and not isinstance(default, bool) and type(default).__name__ in BASIC


BASIC = ("str", "int", "float")


# --------------------------------------------------------------------------------------------------------------- errors


def classes() -> Iterator[tuple[type[errors.CkptvcsError], int]]:
    """Every error class with its depth, parents before their children, in the order of the source."""

    def below(cls: type[errors.CkptvcsError], depth: int) -> Iterator[tuple[type[errors.CkptvcsError], int]]:
        yield cls, depth
        for child in cls.__subclasses__():
            if child.__module__ == errors.__name__:
                yield from below(child, depth + 1)

    return below(errors.CkptvcsError, 0)


def first_sentence(cls: type) -> str:
    """The first paragraph of a docstring, on one line."""
    return " ".join(inspect.cleandoc(cls.__doc__ or "").split("\n\n")[0].split())


def made() -> set[str]:
    """The error classes that some code makes."""
    found = set()
    for module in sorted((ROOT / "ckptvcs").rglob("*.py")):
        for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                found.add(node.func.id)
    return found


def exit_table() -> str:
    rows = [("0", "", "done")]
    for cls, _ in classes():
        if "exit_status" in vars(cls):
            rows.append((str(cls.exit_status), f"[{cls.__name__}](errors.md#classes)", first_sentence(cls)))
    rows[1] = ("1", "", "a check found something: `ckpt doctor`")
    rows.append(("130", "", "interrupted from the keyboard"))
    return table(["exit status", "error", "meaning"], rows)


def errors_page() -> str:
    known = made() | {"CkptvcsError"}
    rows = []
    for cls, depth in classes():
        name = "&nbsp;&nbsp;" * depth + code(cls.__name__)
        meaning = first_sentence(cls) + ("" if cls.__name__ in known else " Nothing raises it yet.")
        rows.append((name, str(cls.exit_status), code(kind(cls)), meaning))
    return page(
        "Errors",
        "Every error that is raised on purpose is a `CkptvcsError`. It says what failed, why, and what to do next; its\n"
        "class says which kind of failure it is, and so does the exit status of `ckpt`.",
        "## Classes",
        "Indented under its parent. Catch the parent to catch its children. `error` is what `--json` calls it.",
        table(["class", "exit status", "error", "meaning"], rows),
        "The names at the top of the package are " + names_at_the_top() + ".\n"
        "The others are imported from `ckptvcs.errors`.",
        "## Attributes",
        table(["attribute", "holds"], attributes_of_errors()),
        "`str(error)` is `what: why` on one line.",
        "## In a terminal",
        "Errors go to stderr:",
        fenced(worded(as_json=False)),
        "With `--json`, also on stderr, as one line:",
        fenced(worded(as_json=True), "json"),
        "A mistake in the options themselves is told in click's own words and ends with 2, with `--json` too.",
        "## Exit statuses",
        exit_table(),
    )


def kind(cls: type[errors.CkptvcsError]) -> str:
    return cls("").kind


def names_at_the_top() -> str:
    names = [name for name in ckptvcs.__all__ if is_error(getattr(ckptvcs, name))]
    return ", ".join(map(code, names))


def is_error(value: Any) -> bool:
    return isinstance(value, type) and issubclass(value, errors.CkptvcsError)


def attributes_of_errors() -> list[tuple[str, str]]:
    sections = dict(docstring_sections(errors.CkptvcsError))
    arguments = items(sections["Args"])
    return [
        *((code(name), text) for name, text in arguments),
        (code("kind"), "the class name in kebab case, which is the `error` of `--json`"),
        (code("exit_status"), "the exit status"),
    ]


EXAMPLE = errors.NotFound(
    "no checkpoint 'exp-a@step:12'",
    why="no checkpoint of track 'model' on that branch fits",
    next_step="run 'ckpt log exp-a' to see which there are",
)


def worded(*, as_json: bool) -> str:
    stream = io.StringIO()
    with contextlib.redirect_stderr(stream):
        render.error(EXAMPLE, as_json=as_json)
    return stream.getvalue()


# --------------------------------------------------------------------------------------------------------------- python


# Values that the public methods return: where they are, and in which order the page has them.
FACES = [
    ("ckptvcs.train.lightning", "CkptCallback"),
    ("ckptvcs.train.transformers", "CkptCallback"),
    ("ckptvcs.train.accelerate", "CkptAccelerate"),
]

VALUES = [
    ("ckptvcs.porcelain.commit", "Receipt"),
    ("ckptvcs.train.resume", "Resumed"),
    ("ckptvcs.domain.checkpoint", "Checkpoint"),
    ("ckptvcs.domain.events", "Noted"),
    ("ckptvcs.domain.fates", "Dropped"),
    ("ckptvcs.domain.manifest", "Manifest"),
    ("ckptvcs.porcelain.load", "State"),
    ("ckptvcs.porcelain.status", "Status"),
    ("ckptvcs.porcelain.status", "TrackStatus"),
    ("ckptvcs.storage.history.worktree", "Changes"),
    ("ckptvcs.porcelain.compare", "Compared"),
    ("ckptvcs.domain.compare", "Difference"),
    ("ckptvcs.domain.compare", "ComponentDifference"),
    ("ckptvcs.domain.compare", "Change"),
    ("ckptvcs.porcelain.compare", "Distance"),
    ("ckptvcs.porcelain.sharing", "Pushed"),
    ("ckptvcs.porcelain.fetch", "Fetched"),
    ("ckptvcs.porcelain.sharing", "Pulled"),
]


def python_page() -> str:
    return page(
        "Python",
        "```python\nimport ckptvcs\n```",
        "The public names are `ckptvcs.Repo`, `ckptvcs.Checkpointer`, `ckptvcs.load`, `ckptvcs.__version__` and the\n"
        "errors. They are loaded when they are used: importing `ckptvcs` imports neither torch nor pygit2. "
        "`Checkpointer` and\n`load` need torch (`pip install 'ckptvcs[train]'`); `Repo` needs it to load, to export "
        "torch files and to commit tensors.",
        "## Repo",
        *class_parts(ckptvcs.Repo),
        "## Checkpointer",
        *class_parts(ckptvcs.Checkpointer),
        *(part for module, name in FACES for part in face_parts(module, name)),
        "## load",
        *function_parts("ckptvcs.load", ckptvcs.load),
        "## Errors",
        "See [Errors](errors.md). At the top of the package: " + names_at_the_top() + ".",
        "## Values",
        "What the methods return. They are immutable, and are made by ckptvcs alone; the fields may be read.",
        *(part for module, name in VALUES for part in value_parts(module, name)),
    )


def class_parts(cls: type, qualified: str = "", title: str = "") -> Iterator[str]:
    """What users call of a class of ours, and of its bases that are ours; not what a framework calls of it."""
    yield fenced(signature(qualified or f"ckptvcs.{cls.__name__}", cls), "python")
    yield from docstring_parts(cls)
    own = [base for base in reversed(cls.__mro__) if base.__module__.startswith("ckptvcs.")]
    others = [base for base in cls.__mro__ if base not in own]
    members = {name: member for base in own for name, member in vars(base).items()}
    members = {name: member for name, member in members.items() if not any(hasattr(base, name) for base in others)}
    documented = [row for base in own for row in attributes_of(base)]
    if attributes := list(dict.fromkeys([*properties_of(members), *documented])):
        yield table(["attribute", "type", "meaning"], attributes)
    for name, member in members.items():
        function = member.__func__ if isinstance(member, classmethod) else member
        if not name.startswith("_") and inspect.isfunction(function):
            yield f"### {title or cls.__name__}.{name}"
            yield from function_parts(f"{cls.__name__}.{name}", function)


def face_parts(module: str, name: str) -> Iterator[str]:
    """A class that a framework calls: what users call of it."""
    title = f"{module.rpartition('.')[2]}.{name}"
    yield f"## {title}"
    yield "For who has the framework installed; it is not among the names of `ckptvcs` itself."
    yield from class_parts(getattr(import_module(module), name), f"{module}.{name}", title)


def function_parts(name: str, function: Callable[..., Any]) -> Iterator[str]:
    yield fenced(signature(name, function), "python")
    yield from docstring_parts(function)


def properties_of(members: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    for name, member in members.items():
        if isinstance(member, property) and not name.startswith("_"):
            returned = inspect.signature(member.fget).return_annotation
            yield code(name), code(annotation(returned)), first_sentence(member)


def attributes_of(cls: type) -> Iterator[tuple[str, str, str]]:
    """What `__init__` documents; variables of its own are nobody's business."""
    for init in [n for n in class_node(cls).body if isinstance(n, ast.FunctionDef) and n.name == "__init__"]:
        own = [n for n in init.body if not (isinstance(n, ast.AnnAssign) and isinstance(n.target, ast.Name))]
        yield from described(own, module_source(cls))


def value_parts(module: str, name: str) -> Iterator[str]:
    cls = getattr(import_module(module), name)
    yield f"### {name}"
    for part in docstring_parts(cls):
        yield re.sub(r"`docs/reference/([^`]+)`", r"[\1](\1)", part)
    rows = list(described(class_node(cls).body, module_source(cls)))
    if rows:
        yield table(["field", "type", "meaning"], rows)


def described(body: list[ast.stmt], source: str) -> Iterator[tuple[str, str, str]]:
    """Public fields with an annotation, and the string behind each."""
    for statement, following in zip(body, [*body[1:], None], strict=True):
        if not isinstance(statement, ast.AnnAssign):
            continue
        target = statement.target
        name = target.attr if isinstance(target, ast.Attribute) else getattr(target, "id", "_")
        annotated = ast.get_source_segment(source, statement.annotation) or ""
        if not name.startswith("_"):
            yield code(name), code(annotated), text_of(following)


def text_of(statement: ast.stmt | None) -> str:
    if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
        return " ".join(str(statement.value.value).split())
    return ""


def module_source(cls: type) -> str:
    return Path(sys.modules[cls.__module__].__file__ or "").read_text(encoding="utf-8")


def class_node(cls: type) -> ast.ClassDef:
    tree = ast.parse(module_source(cls))
    return next(node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == cls.__name__)


def signature(name: str, function: Any) -> str:
    function = function.__init__ if isinstance(function, type) else function
    found = inspect.signature(function)
    shown = [text for parameter in found.parameters.values() for text in parameter_texts(parameter, found)]
    returned = "" if found.return_annotation in (found.empty, "None", None) else annotation(found.return_annotation)
    arrow = f" -> {returned}" if returned else ""
    line = f"{name}({', '.join(shown)}){arrow}"
    return line if len(line) <= _WIDTH else f"{name}(\n" + "".join(f"    {text},\n" for text in shown) + f"){arrow}"


def parameter_texts(parameter: inspect.Parameter, found: inspect.Signature) -> Iterator[str]:
    if parameter.name in ("self", "cls"):
        return
    first = next((p.name for p in found.parameters.values() if p.kind is p.KEYWORD_ONLY), None)
    if parameter.name == first:
        yield "*"
    stars = {parameter.VAR_POSITIONAL: "*", parameter.VAR_KEYWORD: "**"}.get(parameter.kind, "")
    default = "" if parameter.default is parameter.empty else f" = {parameter.default!r}"
    yield f"{stars}{parameter.name}: {annotation(parameter.annotation)}{default}"


def annotation(value: Any) -> str:
    return value if isinstance(value, str) else inspect.formatannotation(value)


# ----------------------------------------------------------------------------------------------------------- docstrings


_HEADING = re.compile(r"^(Args|Returns|Yields|Raises|Example|Examples):$")


def docstring_sections(thing: Any) -> Iterator[tuple[str, str]]:
    """The parts of a docstring: ("", text) or (heading, text)."""
    heading, lines = "", list[str]()
    for line in inspect.cleandoc(thing.__doc__ or "").splitlines():
        match = _HEADING.match(line)
        if match or (heading and line and not line.startswith(" ")):
            yield heading, inspect.cleandoc("\n" + "\n".join(lines))
            heading, lines = match[1] if match else "", [] if match else [line]
        else:
            lines.append(line)
    yield heading, inspect.cleandoc("\n" + "\n".join(lines))


def docstring_parts(thing: Any) -> Iterator[str]:
    for heading, text in docstring_sections(thing):
        if heading.startswith("Example"):
            yield fenced(text, "python")
        elif heading in ("Returns", "Yields"):
            yield f"{heading}: {text}"
        elif heading:
            title = {"Args": "argument", "Raises": "raises"}[heading]
            yield table([title, "meaning"], [(code(name), meaning) for name, meaning in items(text)])
        elif text:
            yield text


def items(text: str) -> list[tuple[str, str]]:
    """`name: meaning` paragraphs, whose further lines are indented."""
    found: list[list[str]] = []
    for line in text.splitlines():
        if line.startswith(" "):
            found[-1].append(line.strip())
        elif line:
            found.append([line])
    joined = (" ".join(lines).partition(": ") for lines in found)
    return [(name, meaning.removesuffix(".")) for name, _, meaning in joined]


# -------------------------------------------------------------------------------------------------------- configuration


OTHER_CONFIGURATION = [
    ("git", "`user.name`, `user.email`", "who makes commits and tags"),
    ("git", "`ckptvcs.signingkey`", "the private key that entries of the ledger are signed with"),
    ("git", "`ckptvcs.alertcommand`", "`true` lets the program of `alerts.command` run here, which comes with a clone"),
    ("git", "`core.sparseCheckout`", "`ckpt checkout` refuses a sparse checkout"),
    ("DVC", "`cache.dir`", "where objects are; see [the cache](format/cache.md)"),
    ("DVC", "`cache.shared`", "`group` makes the folders of the cache writable for the group"),
    ("DVC", "`core.remote`", "`ckpt init --remote URL` makes its remote the default one only where there is none"),
    ("DVC", "`core.hardlink_lock`", "refused: DVC's locks could not be seen"),
    ("DVC", "`remote` sections", "`ckpt doctor` looks whether the remote of `ckpt.yaml` is there and usable"),
]

ENVIRONMENT = [
    (
        "`GIT_AUTHOR_NAME`, `GIT_COMMITTER_NAME`",
        "who makes commits and tags; before git's configuration, in this order",
    ),
    ("`GIT_AUTHOR_EMAIL`, `GIT_COMMITTER_EMAIL`", "their address, likewise"),
    ("`DVC_SYSTEM_CONFIG_DIR`, `DVC_GLOBAL_CONFIG_DIR`", "where DVC's configuration of the system and of the user is"),
    (
        "`CKPT_NO_HOOKS`",
        "if it is set to anything, the hooks of a clone do nothing, as while `ckpt` runs git itself; the hook of a server "
        "does not look at it",
    ),
    (
        "`CKPT_SIGNING_KEY`",
        "the private key that entries of the ledger are signed with, instead of the clone's own; before git's "
        "`ckptvcs.signingkey`",
    ),
    (
        "`CKPT_ALERT_COMMAND`",
        "`1` lets the program of `alerts.command` run here; before git's `ckptvcs.alertcommand`",
    ),
    ("`CKPT_DEBUG`", "if it is set to anything, what should not be possible (exit status 70) is shown as a traceback"),
]


def configuration_page() -> str:
    rows = list(keys(policy.Config, ""))
    return page(
        "Configuration",
        f"`{basics.FILE}` lies in the folder that holds `.dvc` and is committed like any other file. Every key is "
        "optional; so is\nthe file. `ckpt init` makes one with `version: 1` alone.",
        "## Keys",
        table(["key", "type", "default", "meaning"], rows),
        "- `directory` is a [safe path](format/artifact-1.md#names): relative, without `..`, the same on every file "
        "system.\n"
        "- `track` begins with a letter and has letters, digits, `-` and `_`, 64 at most; no word that YAML reads as "
        "something\n  else, such as `yes` or `null`.\n"
        "- `remote` has letters, digits, `.`, `_` and `-`.",
        "The same with all defaults written out:",
        fenced(defaults_as_yaml(policy.Config), "yaml"),
        "Where `save` is left out, or is `null`, training saves as if this stood there:",
        fenced(default_save_as_yaml(), "yaml"),
        "Where it is empty (`save: {}`), training saves only when told to. Hugging Face's Trainer has [a default of its\n"
        "own](../howto/transformers.md#when-it-saves).",
        "With everything said:",
        fenced(COMPLETE, "yaml"),
        "## How it is read",
        "- At most 1 MiB, as UTF-8, as one YAML document.\n"
        "- An unknown key, or a value of another type (`track: 3`), is an error with exit status 2 that names the key "
        "and, where\n  it stands on one, the line. Nothing is guessed.\n"
        "- What an unchanged file means is remembered in `.git/ckptvcs/config.json`, which can be deleted at any time.\n"
        "- The file of the worktree counts, whatever commit a command is about.",
        "## What is read of git and DVC",
        table(["program", "key", "used for"], OTHER_CONFIGURATION),
        "## Environment",
        table(["variable", "used for"], ENVIRONMENT),
        "Nothing else of the environment is read, apart from what git, DVC's configuration folders (`XDG_CONFIG_HOME`, "
        "`HOME`)\nand the completion of the shell need.",
    )


COMPLETE = """\
version: 1
directory: checkpoints
track: teacher
remote: store
remotes:
  archive:
    tier: cold
replicas: 2
best:
  monitor: val_loss
  mode: min
checkout:
  link: hardlink
  on_commit: false
hooks:
  materialise: tell
  max_mib: 50
save:
  every_n_steps: 1000
  every_n_epochs: 1
  every_n_seconds: 900
  on_improvement:
    monitor: val_loss
    mode: min
    min_delta: 0.001
    min_interval: 500
  on_plateau:
    monitor: val_loss
    mode: min
    patience: 5
    min_delta: 0.0
  on_event: [stage_change, pre_deploy, drift]
  on_preemption:
    signals: [SIGTERM, SIGUSR1]
    grace_s: 90
  on_exception: true
  on_exit: true
  interval:
    overhead: 0.035
    mtbf_s: 28800
  when_busy: wait
  grade: exact
retain:
  keep:
    - branches: [main, exp/*]
      tracks: ["*"]
      keep_last: 3
      keep_best:
        monitor: val_loss
        mode: min
        n: 2
      keep_every_n_steps: 5000
      keep_every: 1d
      keep_within: 7d
      components: [model]
      ttl: 90d
      max_bytes: 500GB
  keep_marked: true
  grace: 7d
  trash: 14d
  max_bytes:
    hot: 200GB
    warm: 5TB
  shared_with: [../other]
  eval_deadline: 2d
alerts:
  growth:
    max_bytes: 500GB
    period: 7d
  quota:
    places: {hot: 1TB, store: 20TB}
    within: 14d
    period: 7d
  save_within: 2h
  restore_within: 10min
  push_within: 12h
  proof_within: 30d
  command: [python, ops/tell.py]
  timeout_s: 30
"""


def keys(cls: Any, prefix: str) -> Iterator[tuple[str, str, str, str]]:
    hints = typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        inner = dataclass_in(hints[field.name])
        default = default_of(field)
        words = [code(yaml_of(short)) for short, _ in field.metadata["short"]]
        many = "a list of mappings" if typing.get_origin(hints[field.name]) is tuple else "a mapping"
        kind = " or ".join([*words, many] if inner else type_texts(hints[field.name]))
        yield code(prefix + field.name), kind, default, field.metadata["description"]
        if inner:
            named = "NAME." if typing.get_origin(hints[field.name]) is dict else ""
            yield from keys(inner, f"{prefix}{field.name}.{named}")


def dataclass_in(kind: Any) -> Any:
    return next((k for k in (kind, *typing.get_args(kind)) if dataclasses.is_dataclass(k)), None)


def default_of(field: dataclasses.Field[Any]) -> str:
    if field.default_factory is not dataclasses.MISSING:
        return ""
    if field.default is dataclasses.MISSING:
        return "required"
    return "" if field.default is None else code(yaml_of(field.default))


def type_texts(kind: Any) -> list[str]:
    if typing.get_origin(kind) is typing.Literal:
        return [code(yaml_of(value)) for value in typing.get_args(kind)]
    if typing.get_origin(kind) in (types.UnionType, typing.Union):
        return [text for arg in typing.get_args(kind) for text in type_texts(arg)]
    if typing.get_origin(kind) is tuple:
        return ["a list of " + " or ".join(type_texts(typing.get_args(kind)[0]))]
    if typing.get_origin(kind) is dict:
        return ["a mapping of names to " + " or ".join(type_texts(typing.get_args(kind)[1]))]
    names = {str: "text", bool: "`true` or `false`", int: "a whole number", float: "a number", type(None): "nothing"}
    return [names[kind]]


def yaml_of(value: Any) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(map(yaml_of, value))}]"
    return str(value).lower() if isinstance(value, bool) else "null" if value is None else str(value)


def defaults_as_yaml(cls: Any, indent: str = "") -> str:
    lines = []
    for field in dataclasses.fields(cls):
        if field.default_factory is dict:
            lines.append(f"{indent}{field.name}: {{}}")
        elif field.default_factory is not dataclasses.MISSING:
            lines += [
                f"{indent}{field.name}:",
                defaults_as_yaml(dataclass_in(typing.get_type_hints(cls)[field.name]), "  "),
            ]
        else:
            lines.append(f"{indent}{field.name}: {yaml_of(field.default)}")
    return "\n".join(lines)


def default_save_as_yaml() -> str:
    """What the policy says that holds where `ckpt.yaml` says nothing; values that have a short word, by that."""
    lines = ["save:"]
    for field in dataclasses.fields(policy.DEFAULT_SAVE):
        said = getattr(policy.DEFAULT_SAVE, field.name)
        if said != field.default:
            words = [word for word, long in field.metadata["short"] if long is not None and said == type(said)(**long)]
            lines.append(f"  {field.name}: {yaml_of([*words, said][0])}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
