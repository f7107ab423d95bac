"""What the hooks look at: what enters git, what is pushed, where HEAD went. The scripts are in `ckptvcs/hooks`."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from ckptvcs.errors import Refused, UsageError
from ckptvcs.paths import printable
from ckptvcs.porcelain import account, checkout
from ckptvcs.porcelain.checkpoints import made_by, tracks_at
from ckptvcs.porcelain.describe import ref_of
from ckptvcs.porcelain.push import ORIGIN, directory_of
from ckptvcs.porcelain.remotes import open_remote
from ckptvcs.storage.history import ancestry, program, staged
from ckptvcs.storage.history.repository import HEADS, OURS, TAGS, CommitId
from ckptvcs.storage.history.transport import Git

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from ckptvcs.domain.checkpoint import Checkpoint
    from ckptvcs.porcelain.checkout import CheckoutPlan
    from ckptvcs.porcelain.repo import Repository
    from ckptvcs.storage.names import ObjectRef
    from ckptvcs.storage.remotes import Remote

_MIB: Final = 1 << 20
_SHOWN: Final = 3

# --------------------------------------------------------------------------------------------------------- pre-commit


@dataclass(frozen=True, slots=True, kw_only=True)
class Raw:
    """A raw checkpoint that would enter git."""

    path: str
    """Relative to the worktree."""
    nbytes: int
    what: str
    """What it is, in words."""


def raw_checkpoints(repo: Repository, start: Path, names: Sequence[str] = ()) -> list[Raw]:
    """Raw checkpoints in the index that are larger than `hooks.max_mib`. The worktree is not looked at, nothing unpickled.

    Args:
        repo: the repository.
        start: the folder that names are relative to.
        names: look at these files, changed or not; without any at those that the next commit brings into git.
    """
    variables, root = repo.around.variables, repo.history.root
    files = staged.indexed(start, root, variables, names) if names else staged.entering(root, variables)
    large = [file for file in files if file.nbytes > repo.config.hooks.max_mib * _MIB]
    if not large:
        return []
    from ckptvcs.formats.foreign.heads import ENOUGH, raw_checkpoint  # NumPy with it, which most commits can do without

    found = []
    for file in large:
        head = program.beginning(root, variables, file.blob, ENOUGH)
        what = raw_checkpoint(file.path, head, file.nbytes)
        if what is not None:
            found.append(Raw(path=file.path, nbytes=file.nbytes, what=what))
    return found


def refuse_raw(repo: Repository, start: Path, names: Sequence[str] = ()) -> None:
    """Refuse to let a raw checkpoint enter git; arguments as for `raw_checkpoints`.

    Raises:
        Refused: there is one; nothing was changed.
    """
    found = raw_checkpoints(repo, start, names)
    if not found:
        return
    first, limit = found[0], repo.config.hooks.max_mib
    kept = f"git keeps every version of it in every clone for ever; at most {limit} MiB are let in (hooks.max_mib in ckpt.yaml)"
    more = "".join(f"; and so would '{raw.path}', {_described(raw)}" for raw in found[1:])
    raise Refused(
        f"'{first.path}' would enter git: {_described(first)}{more}",
        why=kept,
        next_step=" && ".join(_out_of_git(repo, raw) for raw in found),
        paths=[raw.path for raw in found],
    )


def _described(raw: Raw) -> str:
    return f"{raw.what} of {raw.nbytes / _MIB:.1f} MiB"


def _out_of_git(repo: Repository, raw: Raw) -> str:
    path = shlex.quote(raw.path)
    out = f"git rm --cached {path}"
    return out if repo.is_ours(raw.path) else f"{out} && ckpt commit {path}"


# ----------------------------------------------------------------------------------------------------------- pre-push


@dataclass(frozen=True, slots=True)
class Pushed:
    """A ref that `git push` is about to move: a line that it gives its hook."""

    local: str
    new: str
    remote: str
    old: str

    @property
    def name(self) -> str:
        """As users name it."""
        return self.local.removeprefix(HEADS).removeprefix(TAGS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Incomplete:
    """A checkpoint that would be pushed, of which a remote has not all objects."""

    checkpoint: Checkpoint
    missing: int
    objects: int


def parse_pushed(lines: str) -> list[Pushed]:
    """The refs that a push moves, from the lines that git gives its hook; those that it deletes are left out.

    Raises:
        UsageError: git gives no such lines.
    """
    found = []
    for line in lines.splitlines():
        parts = line.split(" ")
        if len(parts) != 4:
            raise UsageError(
                f"cannot read '{printable(line[:60])}'",
                why="git tells a pre-push hook 'LOCAL-REF ID REMOTE-REF ID' on stdin, for each ref",
                next_step="let git run the hook",
            )
        pushed = Pushed(*parts)
        if not _is_zero(pushed.new) and not pushed.remote.startswith(OURS):
            found.append(pushed)
    return found


def refuse_incomplete(repo: Repository, name: str, url: str, lines: str) -> None:
    """Refuse a push of checkpoints whose objects are not on the remote where others look for them.

    Only checkpoints that the other side does not know yet are looked at.

    Args:
        repo: the repository.
        name: of the git remote, or its address if it has no name.
        url: its address.
        lines: what git gives its hook.

    Raises:
        Refused: some are not there.
        UsageError: there is no remote for them.
        StorageError: the remote does not answer.
    """
    pushed = parse_pushed(lines)
    tips = {one: tip for one in pushed if (tip := ancestry.commit_behind(repo.history, one.new)) is not None}
    checkpoints = _new(repo, list(tips.values()), known=_known(repo, pushed, url))
    if not checkpoints:
        return
    remote = open_remote(repo)
    found = _incomplete(repo, checkpoints, remote)
    if not found:
        return
    named = [one.name for one, tip in tips.items() if _leads_to_any(repo, tip, found)]
    shown = ", ".join(map(_worded, found[:_SHOWN]))
    more = f" and of {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    to = [] if name in (ORIGIN, url) else ["--to", name]
    raise Refused(
        f"cannot push '{printable(', '.join(named))}' to '{printable(name)}'",
        why=f"remote '{remote.name}' has not all objects of {shown}{more}",
        next_step=shlex.join(["ckpt", "push", *to, *named]),
        refs=named,
        checkpoints=[one.checkpoint.id for one in found],
    )


def _known(repo: Repository, pushed: Sequence[Pushed], url: str) -> list[str]:
    """What the other side has: of a ref that is new there git does not tell the hook where it came from."""
    known = [one.old for one in pushed if not _is_zero(one.old)]
    if len(known) == len(pushed):
        return known
    return [*known, *Git(repo.history, repo.around.variables).list_refs_at(url).values()]


def _new(repo: Repository, tips: Sequence[CommitId], *, known: Sequence[str]) -> list[Checkpoint]:
    commits = list(ancestry.between(repo.history, tips, [CommitId(oid) for oid in known]))
    tracks = sorted({track for tip in tips for track in tracks_at(repo, tip)}) if commits else []
    return list(account.with_late(repo, *(c for track in tracks for c in made_by(repo, iter(commits), track))))


def _incomplete(repo: Repository, checkpoints: Iterable[Checkpoint], remote: Remote) -> list[Incomplete]:
    objects = [(checkpoint, _objects(repo, checkpoint)) for checkpoint in checkpoints]
    there = remote.sizes({ref.name for _, refs in objects for ref in refs})
    found = []
    for checkpoint, refs in objects:
        missing = sum(there.get(ref.name) != ref.nbytes for ref in refs)
        if missing:
            found.append(Incomplete(checkpoint=checkpoint, missing=missing, objects=len(refs)))
    return found


def _objects(repo: Repository, checkpoint: Checkpoint) -> list[ObjectRef]:
    files = {ref.name: ref for file in checkpoint.needed_files() for ref in [ref_of(file)]}
    return [] if checkpoint.is_dropped else [*files.values(), directory_of(repo, checkpoint)[0]]


def _leads_to_any(repo: Repository, tip: CommitId, found: Iterable[Incomplete]) -> bool:
    return any(repo.history.is_ancestor(CommitId(one.checkpoint.commit), tip) for one in found)


def _worded(one: Incomplete) -> str:
    step = f" step {one.checkpoint.manifest.step}" if one.checkpoint.manifest.step is not None else ""
    return f"{one.checkpoint.id[:10]}{step} ({one.missing} of {one.objects} are missing)"


def _is_zero(oid: str) -> bool:
    return set(oid) == {"0"}


# ------------------------------------------------------------------------------------------ post-checkout, post-merge


def plan_after(repo: Repository, hook: str, args: Sequence[str]) -> CheckoutPlan | None:
    """Look what makes the workspace follow HEAD after git has moved it; None if its checkpoints are the same as before.

    Args:
        repo: the repository.
        hook: `post-checkout` or `post-merge`.
        args: what git gives it.

    Raises:
        Unsaved: something would be lost.
    """
    if hook == "post-checkout":
        before, is_for_head = args[0] if args else "", "1" in args[2:3]
    else:
        before, is_for_head = repo.history.resolve("ORIG_HEAD") or "", "1" not in args[:1]
    return checkout.plan_follow(repo, ancestry.commit_behind(repo.history, before)) if is_for_head else None
