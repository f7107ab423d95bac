"""`ckpt`: verbs are loaded when they are used; the one place where an error becomes text and an exit status."""

from __future__ import annotations

import contextlib
import gc
import sys
from importlib import import_module
from keyword import iskeyword
from typing import TYPE_CHECKING, Final, NoReturn

import click

from ckptvcs._version import VERSION
from ckptvcs.errors import Bug, CkptvcsError, UsageError, from_os_error

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType

# Verb -> what it does, as `ckpt --help` says it; a test holds that it is the first line of the verb's own help. Listing
# verbs must not import them.
VERBS: Final[dict[str, dict[str, str]]] = {
    "Begin and record": {
        "init": "Make a ckptvcs repository out of this folder.",
        "commit": "Make a checkpoint from a file or folder.",
        "import": "Make checkpoints from files and folders that lie around.",
        "note": "Note metrics of a checkpoint that come late.",
        "hold": "Hold a checkpoint: it is kept whatever the policy says; without REV, list what is held.",
        "release": "Release a checkpoint: end the holds that it has.",
    },
    "Look": {
        "log": "List checkpoints, newest first.",
        "show": "Show one checkpoint.",
        "status": "Show how workspace and code stand to HEAD.",
        "diff": "Show what changed between two checkpoints.",
    },
    "Go back and fork": {
        "checkout": "Move HEAD and make the artifact of a revision appear.",
        "restore": "Make the artifact of a revision appear; HEAD stays.",
        "branch": "List, make or delete branches.",
        "tag": "List, make or delete tags and marks.",
        "merge": "Make one checkpoint of several: average or merge their weights.",
        "export": "Write a checkpoint for other programs.",
    },
    "Share": {
        "remote": "List, show and add the remotes that objects go to.",
        "push": "Push branches, tags, the ledger, and the objects of their checkpoints.",
        "fetch": "Fetch branches, tags and the ledger; no objects.",
        "pull": "Fetch, and bring objects: of the branch that is checked out, or of REV.",
        "audit": "See who did what, prove that nobody changed it, and say who may write.",
    },
    "Upkeep": {
        "policy": "Show and check the policy, plan by it, carry it out, and calibrate it by past training.",
        "why": "Say what keeps a checkpoint, or why it is dropped.",
        "gc": "Collect garbage: condemn what no policy keeps, and sweep what was condemned before and is still unneeded.",
        "alerts": "Tell what somebody has to know: growth, a place that fills, work that could be lost, proofs that are too old.",
        "ci": "Carry the policy out by itself: every night, and a check on pull requests.",
        "hooks": "Install and remove git hooks.",
        "doctor": "Say what is wrong here, and what mends it.",
        "completion": "Print the script that completes ckpt in a shell.",
    },
}

HIDDEN: Final = ("hook",)
"""Verbs that programs call."""

_OBJECTS_BETWEEN_COLLECTIONS: Final = 50_000
"""Python looks for garbage whenever 700 objects were made, a tenth of the time of a command that makes classes and ends."""

EPILOG: Final = """\b
A revision is anything git knows (branch, tag, commit), the beginning of a
checkpoint id, BRANCH@latest, BRANCH@best, BRANCH@best:METRIC or BRANCH@step:N.

\b
Exit status: 0 done, 1 a check found something, 2 usage, 10 no repository,
11 conflict, 12 not found, 20 integrity, 30 storage, 40 format, 50 refused,
70 a bug of ours, 130 interrupted.
"""


class LazyGroup(click.Group):
    """A group whose verbs are imported when they are run."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return [name for verbs in VERBS.values() for name in verbs]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in (*self.list_commands(ctx), *HIDDEN):
            return None
        module = f"{cmd_name}_" if iskeyword(cmd_name) else cmd_name
        command = getattr(import_module(f"ckptvcs.cli.{module}"), "command")  # noqa: B009 - mypy cannot know it
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        for title, verbs in VERBS.items():
            with formatter.section(title):
                formatter.write_dl(list(verbs.items()))


@click.group(
    cls=LazyGroup, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.option("-C", "path", metavar="PATH", default=".", help="Run as if ckpt was started in PATH.")
@click.version_option(VERSION, prog_name="ckpt")
@click.pass_context
def cli(ctx: click.Context, path: str) -> None:
    """Git for training state: every checkpoint is a DVC artifact and a git commit."""
    ctx.obj = path


def main(args: Sequence[str] | None = None) -> NoReturn:
    """Run `ckpt` and exit with its status."""
    gc.set_threshold(_OBJECTS_BETWEEN_COLLECTIONS)
    as_json = "--json" in (sys.argv[1:] if args is None else args)
    status = run(args, as_json=as_json)
    for name in ("stdout", "stderr"):
        _give_up_if_stuck(name)
    gc.freeze()  # the process ends: nothing is worth to be looked for
    sys.exit(status)


def _give_up_if_stuck(name: str) -> None:
    """Let go of a stream that cannot get rid of its words, which was reported already: Python would exit with 120 for it."""
    try:
        getattr(sys, name).flush()
    except (OSError, ValueError):  # ValueError: it is closed
        setattr(sys, name, None)


def run(args: Sequence[str] | None, *, as_json: bool) -> int:
    """Run `ckpt` and return its status; errors are worded on stderr."""
    try:
        status = cli.main(args, prog_name="ckpt", standalone_mode=False)
        return status if isinstance(status, int) else 0
    except click.exceptions.NoArgsIsHelpError as err:
        err.show()
        return err.exit_code
    except click.ClickException as err:
        return _fail(_in_our_words(err), as_json=as_json)
    except (click.Abort, KeyboardInterrupt):
        _render().talk("interrupted")
        return 130
    except BrokenPipeError:
        sys.stderr.close()  # who reads our answer has read enough
        return 0
    except Exception as err:  # noqa: BLE001 - nothing is swallowed: whatever gets here is told, by its name
        return _fail(_named(err), as_json=as_json)


def _in_our_words(err: click.ClickException) -> UsageError:
    """What click found wrong with a command line, in the manner of all our errors."""
    said = " ".join(err.format_message().replace(",\n", ",").split()).rstrip(".")
    context = err.ctx if isinstance(err, click.UsageError) else None
    return UsageError(
        said[:1].lower() + said[1:],
        next_step=f"run '{context.command_path if context else 'ckpt'} --help'",
    )


def _named(err: Exception) -> CkptvcsError:
    """Which of our errors it is: the machine's fault where nobody expected it, or else our own."""
    if isinstance(err, CkptvcsError):
        return err
    if isinstance(err, OSError):
        return from_os_error(err, doing="go on")
    if _render().debugging():
        raise err
    return Bug(
        "something went wrong that should not be possible",
        why=f"{type(err).__name__}: {err}",
        next_step="run it again with CKPT_DEBUG=1 and report what it prints",
    )


def _fail(err: CkptvcsError, *, as_json: bool) -> int:
    """Word an error and return its status, which tells the truth also where stderr takes no words."""
    with contextlib.suppress(OSError):
        _render().error(err, as_json=as_json)
    return err.exit_status


def _render() -> ModuleType:
    """The module that prints, for those who have something to say: `ckpt --help` has not."""
    from ckptvcs.cli import render

    return render
