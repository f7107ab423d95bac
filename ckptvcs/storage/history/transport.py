"""Refs of other clones, by the git program: it has the user's credentials, transports and hooks; libgit2 runs no hooks.

https://libgit2.org/docs/reference/main/remote/ has no word of hooks: what a server refuses is refused over ssh and http
alone, and a push to a folder would go around it.
"""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from ckptvcs.errors import NotFound, RefMoved, Refused, StorageError
from ckptvcs.paths import printable
from ckptvcs.storage.history import program

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ckptvcs.storage.history.repository import CommitId, History

NO_HOOKS: Final = "CKPT_NO_HOOKS"
"""The environment variable that keeps the hooks of a clone from doing anything; those of a server do not look at it."""

_FETCH: Final = ("fetch", "--no-progress", "--no-auto-maintenance")
_LATER: Final = ("fetch first", "non-fast-forward", "stale info", "failed to update ref", "cannot lock ref")
_NO_ENTRY: Final = (
    "Authentication failed",
    "Host key verification failed",
    "Permission denied (",
    "could not read Password",
    "could not read Username",
    "The requested URL returned error: 403",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RefUpdate:
    """A ref that a push moves."""

    ref: str
    old: str | None
    """What the other side has; None if it has no such ref."""
    new: str


class Git:
    """The git program in one repository.

    Args:
        history: the repository.
        variables: the environment, in which git finds its user's settings.
    """

    def __init__(self, history: History, variables: Mapping[str, str]) -> None:
        self._history = history
        # Hooks of ours have nothing to look at: what they look for is what whoever calls us does.
        quiet = {"GIT_TERMINAL_PROMPT": "0", "SSH_ASKPASS_REQUIRE": "never", "LC_ALL": "C"}
        self._variables = {**variables, **quiet, NO_HOOKS: "1"}

    def remotes(self) -> list[str]:
        """The names of the remotes that git knows."""
        return sorted(name for name in self._history.repo.remotes.names() if name)

    def list_refs(self, remote: str) -> dict[str, str]:
        """Every ref of a remote, and the git object that it names.

        Raises:
            NotFound: git knows no such remote.
            StorageError: it does not answer.
        """
        self._check(remote)
        return self.list_refs_at(remote)

    def list_refs_at(self, where: str) -> dict[str, str]:
        """The same of a remote or an address, which git need not have a name for."""
        done = self._run("ls-remote", "--refs", "--quiet", "--", where)
        if done.returncode:
            shown = without_password(where)
            raise _no_answer(f"look at '{shown}'", shown, done.stderr)
        pairs = (line.split("\t", 1) for line in done.stdout.splitlines())
        return {ref: oid for oid, ref in pairs}

    def push(self, remote: str, updates: Sequence[RefUpdate]) -> None:
        """Move refs of a remote, all of them or none.

        Raises:
            RefMoved: somebody was faster.
            Refused: a hook or rule of the remote does not allow it.
            StorageError: it does not answer.
        """
        self._check(remote)
        doing = f"push to '{remote}'"
        specs = [f"{update.new}:{update.ref}" for update in updates]
        done = self._run("push", "--atomic", "--porcelain", "--", remote, *specs)
        if done.returncode == 0:
            return
        rejected = [line for line in done.stdout.splitlines() if line.startswith("!")]
        if rejected and any(word in " ".join(rejected) + done.stderr for word in _LATER):
            raise RefMoved(
                f"cannot {doing}",
                why=f"it has something that this clone has not: {_reasons(rejected)}",
                next_step="run 'ckpt pull', then push again",
            )
        if rejected:
            raise Refused(
                f"cannot {doing}",
                why=f"it does not allow that: {_reasons(rejected)}{_words(done.stderr)}",
                next_step="ask who keeps it",
            )
        raise _no_answer(doing, remote, done.stderr)

    def fetch_ledger(self, remote: str, spec: str) -> None:
        """Fetch refs as they are there, whatever they were, and forget those that are there no more.

        Args:
            remote: where from.
            spec: as `git fetch` takes it.

        Raises:
            StorageError: it does not answer.
        """
        self._check(remote)
        done = self._run(*_FETCH, "--prune", "--no-tags", "--", remote, spec)
        if done.returncode:
            raise _no_answer(f"fetch from '{remote}'", remote, done.stderr)

    def fetch(self, remote: str) -> tuple[str, ...]:
        """Fetch the branches that are configured, and all tags; none by force that was moved there.

        Args:
            remote: where from.

        Returns:
            What was moved there and stays as it is here, such as a tag, in git's words; the rest came.

        Raises:
            StorageError: it does not answer.
        """
        self._check(remote)
        done = self._run(*_FETCH, "--tags", "--", remote)
        if done.returncode == 0:
            return ()
        rejected = [line for line in done.stderr.splitlines() if line.lstrip().startswith("!")]
        if rejected:
            return tuple(_reasons([line]) for line in rejected)
        raise _no_answer(f"fetch from '{remote}'", remote, done.stderr)

    def bring(self, remote: str, refs: Sequence[str]) -> None:
        """Bring what refs of a remote name, and let no ref here tell of it. One that is gone there is no error.

        Raises:
            StorageError: it does not answer.
        """
        self._check(remote)
        done = self._run(*_FETCH, "--no-tags", "--no-write-fetch-head", "--", remote, *refs)
        if done.returncode and "couldn't find remote ref" not in done.stderr:
            raise _no_answer(f"fetch from '{remote}'", remote, done.stderr)

    def fast_forward(self, to: CommitId) -> None:
        """Move the branch that is checked out to a commit ahead of it, with index and worktree.

        Raises:
            Refused: the commit is not ahead of it, or changes of the user would be overwritten.
        """
        done = self._run("merge", "--ff-only", "--no-overwrite-ignore", "--quiet", to)
        if done.returncode:
            raise Refused(
                "cannot fast-forward",
                why=printable(" ".join(done.stderr.split()))[:300],
                next_step="commit or stash what you changed, then run the command again",
            )

    def _check(self, remote: str) -> None:
        known = self.remotes()
        if remote not in known:
            raise NotFound(
                f"no git remote '{printable(remote)}'",
                why=f"git knows {', '.join(known) or 'none'}",
                next_step=f"git remote add {printable(remote)} URL",
            )

    def _run(self, *args: str) -> subprocess.CompletedProcess[str]:
        done = program.run(self._history.root, self._variables, *args)
        said = [stream.decode("utf-8", "replace") for stream in (done.stdout, done.stderr)]
        return subprocess.CompletedProcess(done.args, done.returncode, *said)


def _reasons(rejected: Sequence[str]) -> str:
    told = [line.lstrip(" !\t").split("\t") for line in rejected if "(atomic push failed)" not in line]
    # Of a push: `COMMIT:REF`, a tab, why. Of a fetch it is for people, and stays.
    words = [
        f"{one[0].rpartition(':')[2]} {' '.join(one[1:])}" if len(one) > 1 else " ".join(one[0].split()) for one in told
    ]
    return printable("; ".join(words))[:300]


def _words(stderr: str) -> str:
    """What hooks and server said themselves."""
    said = [line.removeprefix("remote:").strip() for line in stderr.splitlines() if line.startswith("remote:")]
    words = printable("; ".join(line for line in said if line))[:300]
    return f" ({words})" if words else ""


def without_password(where: str) -> str:
    """A git URL without the password in it."""
    return re.sub(r"(?<=://)([^/@:\s]*):[^/@\s]*@", r"\1@", where)


def _no_answer(doing: str, remote: str, stderr: str) -> StorageError:
    said = [line for line in stderr.splitlines() if line.strip() and not line.startswith(("hint:", "To "))]
    command = f"'git ls-remote {printable(remote)}'"
    locked_out = any(words in line for words in _NO_ENTRY for line in said)
    return StorageError(
        f"cannot {doing}",
        why=printable("; ".join(said))[:300] or "git says nothing",
        next_step=f"give git the credentials: {command} asks for them, and a credential helper or 'ssh-add' keeps them"
        if locked_out
        else f"check that the remote is there and may be used: {command}",
    )
