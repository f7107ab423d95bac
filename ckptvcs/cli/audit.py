"""`ckpt audit`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ckptvcs.cli.options import dry_run_option, json_option, open_repo

if TYPE_CHECKING:
    from ckptvcs.domain.events import Event
    from ckptvcs.porcelain.audit import Deed, Verdict
    from ckptvcs.porcelain.keys import Key


@click.group()
def command() -> None:
    """See who did what, prove that nobody changed it, and say who may write."""


@command.command()
@click.option("--since", metavar="WHEN", help="Only from then on: 2026-11-01, or 7d for the last seven days.")
@click.option("--until", metavar="WHEN", help="Only up to then.")
@click.option("--actor", metavar="WHO", help="Only what this name, pseudonym or writer did; 'me' for yourself, here.")
@click.option("--op", "ops", multiple=True, metavar="OP", help="Only this: restore, push, hold, run... Repeatable.")
@click.option("-n", "limit", metavar="N", type=click.IntRange(min=1), help="The newest N at most.")
@json_option
@click.pass_context
def log(
    ctx: click.Context,
    *,
    since: str | None,
    until: str | None,
    actor: str | None,
    ops: tuple[str, ...],
    limit: int | None,
    as_json: bool,
) -> None:
    """List what was done with checkpoints, by whom, newest first.

    Entries of other clones are here once 'ckpt fetch' brought them. WHO is a name in ckpt.signers, or a pseudonym.

    \b
    Examples:
      ckpt audit log --since 7d --op restore
      ckpt audit log --actor ada@example.com --json
    """
    from ckptvcs.cli import render
    from ckptvcs.porcelain import audit

    deeds = audit.log(open_repo(ctx), since=since, until=until, actor=actor, ops=ops)[:limit]
    if as_json:
        render.answer_json(
            [{**render.plain(deed.event), "who": deed.who, "here": deed.here, "counts": deed.counts} for deed in deeds]
        )
        return
    for deed in deeds:
        render.answer(_line(deed))


def _line(deed: Deed) -> str:
    from ckptvcs.cli import render

    event = deed.event
    where = "" if deed.counts else " (does not count)"
    who = f"{render.text(deed.who) or 'somebody'}{' (here)' if deed.here else ''}{where}"
    return "  ".join([render.stamp(event.time), who, event.op, _told(event), f"{event.writer}#{event.n}"])


def _told(event: Event) -> str:
    """The facts of an event, in short."""
    from ckptvcs.cli import render

    return ", ".join(
        f"{render.text(key)} {_short(value)}" for key, value in event.facts.items() if value not in ("", [])
    )


def _short(value: Any) -> str:
    from ckptvcs.cli import render
    from ckptvcs.domain.events import is_time

    if isinstance(value, dict):
        return render.listed(value)
    if isinstance(value, list):
        return f"{_short(value[0])} and {len(value) - 1} more" if len(value) > 2 else " ".join(map(_short, value))
    text = render.stamp(value) if isinstance(value, str) and is_time(value) else render.number(value)
    return text[:10] if len(text) in (40, 64) and set(text) <= set("0123456789abcdef") else text


@command.command()
@click.option("--remote", metavar="REMOTE", help="Ask this git remote too whether its chains are those that it had.")
@click.option(
    "--pins",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Compare with heads that 'ckpt audit heads' wrote at an earlier time.",
)
@json_option
@click.pass_context
def verify(ctx: click.Context, *, remote: str | None, pins: Path | None, as_json: bool) -> int:
    """Prove that nobody changed the ledger: links, signatures, what chains saw of each other, golden marks.

    Exit status 1 if something is wrong. What nobody else has seen, and no file of heads names, can be cut off unnoticed.

    \b
    Examples:
      ckpt audit verify
      ckpt audit verify --remote origin --pins heads.json
    """
    from ckptvcs.cli import render, waiting
    from ckptvcs.porcelain import audit

    with waiting.busy("reading the ledger"):
        verdict = audit.verify(open_repo(ctx), pins=pins, remote=remote)
    for text in verdict.notes:
        render.note(text)
    if as_json:
        render.answer_json({**render.plain(verdict), "sound": not verdict.flaws})
    else:
        _say(verdict)
    return 1 if verdict.flaws else 0


def _say(verdict: Verdict) -> None:
    from ckptvcs.cli import render

    for flaw in verdict.flaws:
        render.answer(f"entry {flaw.n} of chain '{render.text(flaw.writer)}': {render.text(flaw.what)}")
    if verdict.unsigned:
        render.note(
            f"{render.counted(len(verdict.unsigned), 'chain')} without signatures: {', '.join(verdict.unsigned)}"
        )
    if not verdict.listed:
        render.note("there is no ckpt.signers, so that every key may write: 'ckpt audit allow' begins one")
    entries = f"{verdict.entries} {'entry' if verdict.entries == 1 else 'entries'}"
    looked = f"{entries} of {render.counted(verdict.chains, 'chain')}"
    found = render.counted(len(verdict.flaws), "thing") + " wrong" if verdict.flaws else "all is as it was written"
    render.answer(f"{looked}: {found}")


@command.command()
@json_option
@click.pass_context
def heads(ctx: click.Context, *, as_json: bool) -> None:  # noqa: ARG001 - it is JSON in any case
    """Print what every chain ends with now, as JSON.

    Kept where nobody who writes the ledger can change it, such as with the results of a CI job, it shows later what was cut
    off or rewritten since.

    \b
    Examples:
      ckpt audit heads > heads.json
      ckpt audit heads --json | gzip > heads.json.gz
    """
    from ckptvcs.cli import render
    from ckptvcs.porcelain import audit

    render.answer_json(audit.heads(open_repo(ctx)))


@command.command()
@json_option
@click.pass_context
def keys(ctx: click.Context, *, as_json: bool) -> None:
    """List the keys that have written, and those that may.

    \b
    Examples:
      ckpt audit keys
      ckpt audit keys --json
    """
    from ckptvcs.cli import render
    from ckptvcs.porcelain import keys as porcelain

    found = porcelain.keys(open_repo(ctx))
    if as_json:
        render.answer_json([{**render.plain(key), "fingerprint": key.fingerprint} for key in found])
        return
    for key in found:
        render.answer(_key_line(key))


def _key_line(key: Key) -> str:
    from ckptvcs.cli import render

    may = "may write" if key.valid else "may not write" if key.name is None else "may not write any more"
    signed = f"signed {', '.join(key.writers)}" if key.writers else "has signed nothing"
    parts = [key.fingerprint, render.text(key.name) if key.name else "not in ckpt.signers", may, signed]
    return "  ".join([*parts, *(["(here)"] if key.here else [])])


@command.command()
@click.argument("which", metavar="[KEY]", required=False)
@click.option("--name", metavar="NAME", help="Whose key it is; your address, where it is the key of this clone.")
@json_option
@dry_run_option
@click.pass_context
def allow(ctx: click.Context, *, which: str | None, name: str | None, as_json: bool, dry_run: bool) -> None:
    """Let a key write: add it to ckpt.signers. Without KEY, that of this clone.

    KEY is a writer or a fingerprint as 'ckpt audit keys' shows them, or a public key. From the first line of the file on, only
    listed keys count; so the file is committed and reviewed as code is.

    \b
    Examples:
      ckpt audit allow && git add ckpt.signers
      ckpt audit allow 7f3c9a1e5b2d4860 --name bob@example.com
    """
    from ckptvcs.cli import render
    from ckptvcs.domain.signers import line_of
    from ckptvcs.porcelain import keys as porcelain

    repo = open_repo(ctx)
    signer = porcelain.plan_allow(repo, which, name=name)
    listed = porcelain.is_listed(repo, signer)
    if listed:
        render.note(f"that key is in ckpt.signers, as {signer.name}")
        dry_run = True
    for key in porcelain.shut_out(repo, signer):
        render.note(
            f"from now on what {key.fingerprint} wrote does not count: 'ckpt audit allow {key.writers[0]} --name NAME' lists it"
        )
    if not dry_run:
        porcelain.allow(repo, signer)
    if as_json:
        render.answer_json({**render.plain(signer), "line": line_of(signer), "dry_run": dry_run})
        return
    if not listed:
        render.answer(f"{'would add' if dry_run else 'added'} to ckpt.signers: {line_of(signer)}")


@command.command()
@click.argument("which", metavar="KEY")
@click.option("--at", metavar="WHEN", help="When it ended, if not now: 2026-11-01, or 2h ago.")
@json_option
@dry_run_option
@click.pass_context
def revoke(ctx: click.Context, *, which: str, at: str | None, as_json: bool, dry_run: bool) -> None:
    """Let a key write no more: what it signed until now counts, what it signs later does not.

    KEY is a name in ckpt.signers, a writer, a fingerprint, or a public key.

    \b
    Examples:
      ckpt audit revoke bob@example.com
      ckpt audit revoke 7f3c9a1e5b2d4860 --at 2026-11-01
    """
    from ckptvcs.cli import render
    from ckptvcs.porcelain import keys as porcelain

    key, until = porcelain.revoke(open_repo(ctx), which, at=at, dry_run=dry_run)
    if as_json:
        render.answer_json({**render.plain(key), "fingerprint": key.fingerprint, "until": until, "dry_run": dry_run})
        return
    name = render.text(key.name or "")
    render.answer(
        f"{'would end' if dry_run else 'ended'} the key of {name} ({key.fingerprint}) at {render.stamp(until)}"
    )
