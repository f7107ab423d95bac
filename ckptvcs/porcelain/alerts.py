"""`alerts`: finds the facts that alerts are made of, and hands what was found to a program, to Prometheus, to people."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from ckptvcs.domain import alerts as rules
from ckptvcs.domain import exposition, recorded
from ckptvcs.domain.alerts import Alert, Facts, Filled, Golden
from ckptvcs.domain.checkpoint import mark_of
from ckptvcs.domain.exposition import Metric, Sample
from ckptvcs.errors import CkptvcsError
from ckptvcs.paths import printable
from ckptvcs.porcelain import ledger, marks, places, sweeping, view
from ckptvcs.storage import files
from ckptvcs.storage.history import settings

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
    from datetime import datetime
    from pathlib import Path

    from ckptvcs.domain.recorded import Recorded
    from ckptvcs.porcelain.inventory import Inventory, Slim
    from ckptvcs.porcelain.places import Place
    from ckptvcs.porcelain.repo import Repository
    from ckptvcs.porcelain.view import Looked

FORMAT: Final = "ckptvcs-alerts/1"
ALLOW: Final = "ckptvcs.alertcommand"
"""The key of git's configuration by which a machine lets the program of `ckpt.yaml` run."""

Made = dict[bytes, tuple[float, int]]
"""When objects were first part of a checkpoint, and their bytes, by the 16 bytes of the name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What was found."""

    repository: str
    """The name of its folder."""
    facts: Facts
    alerts: tuple[Alert, ...]
    checkpoints: int
    newest: Mapping[tuple[str, str], float]
    """When the newest checkpoint of each branch and track was saved."""
    full_in_s: Mapping[str, tuple[int, float]]
    """The limit of each place that has one, and in how many seconds it is full."""
    notes: tuple[str, ...] = ()


# ---------------------------------------------------------------------------------------------------------------- look


def look(repo: Repository, *, offline: bool = False, at: datetime | None = None) -> Found:
    """Look at everything, change nothing. A remote that does not answer is an alert, and no error.

    Args:
        repo: the repository.
        offline: look at the local cache alone, and at no remote.
        at: the time to look for; None for now.

    Raises:
        BadConfig: ckpt.yaml cannot be used.
        StorageError: git or the cache cannot be read.
    """
    wanted, now = repo.config.alerts, (at or repo.now()).timestamp()
    looked = view.look(repo)
    said = recorded.of_events(ledger.events(repo, ops=recorded.OPS))
    there = places.names(repo)
    asked = rules.periods(wanted)
    made = _made(looked.inventory, since=now - max(asked, default=0.0))
    lists = {slim.directory for slim in looked.inventory.slims()}
    listed, silent = _listed(repo, there[:1] if offline else there, made.keys() | lists)
    pushed = {name for place, one in listed.items() if place != places.HOT for name in one.names}
    facts = Facts(
        now=now,
        oldest=min((slim.time for slim in looked.inventory.checkpoints.values()), default=None),
        added={length: sum(n for at, n in made.values() if at > now - length) for length in asked},
        places=tuple(_filled(listed, made, said, asked, now)),
        silent=silent,
        runs=tuple(_runs(looked, said, now)),
        restored=said.restored,
        unpushed=tuple(_unpushed(looked, pushed)) if len(listed) > 1 and not silent else (),
        golden=tuple(_golden(repo, looked, said)),
    )
    quota = wanted.quota if wanted is not None else None
    members = looked.view.members
    return Found(
        repository=repo.root.name,
        facts=facts,
        alerts=rules.found(facts, wanted),
        checkpoints=len(members),
        newest={(line.branch, line.track): members[line.members[0]].time for line in looked.view.lines if line.members},
        full_in_s={one.place: (limit, left) for one, limit, left in rules.forecast(facts, quota)} if quota else {},
        notes=(
            *looked.account.notes,
            *(_unknown(name) for name in (quota.places if quota else ()) if name not in there),
        ),
    )


def _unknown(place: str) -> str:
    return f"there is no place '{printable(place)}', which alerts.quota names: it is 'hot', or a warm remote"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Listed:
    """What is in a place."""

    objects: int
    nbytes: int
    trash: int
    """Bytes in its trash."""
    names: frozenset[bytes]
    """Those of the objects that were asked for: there may be very many others."""


def _listed(
    repo: Repository, names: Iterable[str], wanted: Collection[bytes]
) -> tuple[dict[str, _Listed], dict[str, str]]:
    """What is in places; and those that do not answer, and why."""
    found: dict[str, _Listed] = {}
    silent: dict[str, str] = {}
    for name in names:
        try:
            found[name] = _list(places.opened(repo, (name,))[0], wanted)
        except CkptvcsError as err:
            if name == places.HOT:
                raise
            silent[name] = str(err)
    return found, silent


def _list(place: Place, wanted: Collection[bytes]) -> _Listed:
    objects = nbytes = 0
    names = set()
    for stored in place.removal.stored():
        objects += 1
        nbytes += stored.nbytes
        name = bytes.fromhex(stored.name[:32])
        if name in wanted:
            names.add(name)
    return _Listed(objects=objects, nbytes=nbytes, trash=_in_trash(place), names=frozenset(names))


def _in_trash(place: Place) -> int:
    """Bytes that take room though they are no objects any more."""
    return sum(
        sum(place.removal.trashed(record.names, sweeping.trash_of(record)).values())
        for record in marks.read(place, marks.TRASH)
    )


def _made(inventory: Inventory, *, since: float) -> Made:
    """The objects that are in no checkpoint of before."""
    found: Made = {}
    for slim in inventory.slims():
        for name, nbytes in _objects(slim) if slim.time > since else ():
            found[name] = (min(slim.time, found.get(name, (slim.time, 0))[0]), nbytes)
    for slim in inventory.slims():
        for name, _ in _objects(slim) if slim.time <= since else ():
            found.pop(name, None)
    return found


def _objects(slim: Slim) -> Iterator[tuple[bytes, int]]:
    yield from slim.objects(slim.parts)
    yield slim.directory, slim.directory_nbytes


def _filled(
    listed: Mapping[str, _Listed], made: Made, said: Recorded, asked: Sequence[float], now: float
) -> Iterator[Filled]:
    """What came to each place: what was made since then and is there, or nowhere any more, without what was swept and freed.

    What was swept and still lies in the trash has freed nothing yet.
    """
    anywhere = {name for one in listed.values() for name in one.names}
    for place, one in listed.items():
        added = {}
        for length in asked:
            recent = ((name, n) for name, (at, n) in made.items() if at > now - length)
            came = sum(n for name, n in recent if name in one.names or name not in anywhere)
            added[length] = came - max(0, said.swept_since(place, now - length) - one.trash)
        yield Filled(place=place, nbytes=one.nbytes + one.trash, objects=one.objects, added=added)


def _runs(looked: Looked, said: Recorded, now: float) -> Iterator[rules.RunUnderWay]:
    newest: dict[str, float] = {}
    for identifier, member in looked.view.members.items():
        if member.complete:
            run = looked.inventory.checkpoints[identifier].run
            newest[run] = max(member.time, newest.get(run, member.time))
    for one in said.runs_at(now):
        yield rules.RunUnderWay(run=one.run, branch=one.branch, began=one.began, newest=newest.get(one.run))


def _unpushed(looked: Looked, pushed: set[bytes]) -> Iterator[tuple[str, float]]:
    """Checkpoints that nobody condemned and whose list of files is in no warm remote."""
    for identifier, member in looked.view.members.items():
        slim = looked.inventory.slim(identifier)
        if slim.directory not in pushed and identifier not in looked.account.dropped:
            yield identifier, member.time


def _golden(repo: Repository, looked: Looked, said: Recorded) -> Iterator[Golden]:
    for tag in repo.history.tags():
        for identifier in looked.inventory.held.get(tag.commit, ()) if mark_of(tag.name) == "golden" else ():
            yield Golden(
                tag=tag.name,
                checkpoint=identifier,
                since=said.marked.get(tag.name, looked.inventory.checkpoints[identifier].time),
                proved=said.proved.get(identifier),
                failed=said.failed.get(identifier),
            )


# ---------------------------------------------------------------------------------------------------------------- send


def document(found: Found) -> dict[str, Any]:
    """What a program gets."""
    return {
        "format": FORMAT,
        "repository": found.repository,
        "time": found.facts.now,
        "alerts": [
            {
                "kind": one.kind,
                "severity": one.severity,
                "what": one.what,
                "next": one.next_step,
                "value": one.value,
                "limit": one.limit,
                "facts": dict(one.facts),
            }
            for one in found.alerts
        ],
    }


def send(repo: Repository, found: Found) -> tuple[str, ...]:
    """Hand alerts to the program that `alerts.command` names; without any alert, or without a program, to nobody.

    `ckpt.yaml` comes with a clone, and a program in it is run only where the machine says that it may: by git's
    configuration, or by `CKPT_ALERT_COMMAND`.

    Returns:
        What the user should know: that it may not run, or failed. It is never a reason to lose the alerts.
    """
    wanted = repo.config.alerts
    if wanted is None or not wanted.command or not found.alerts:
        return ()
    name = printable(wanted.command[0])
    if not _may_run(repo):
        return (
            f"'{name}' was not told: ckpt.yaml comes with the clone, and may name any program; to let it run here: "
            f"git config {ALLOW} true",
        )
    data = json.dumps(document(found), allow_nan=False, sort_keys=True).encode("ascii") + b"\n"
    problem = _run(wanted.command, data, repo.root, repo.around.variables, wanted.timeout_s)
    return (f"'{name}' was not told: {problem}",) if problem else ()


def _may_run(repo: Repository) -> bool:
    said = repo.around.variables.get("CKPT_ALERT_COMMAND") or settings.value(repo.history, ALLOW) or ""
    return said.lower() in ("1", "true", "yes", "on")


def _run(command: Sequence[str], data: bytes, folder: Path, variables: Mapping[str, str], timeout_s: float) -> str:
    """Run a program, and say what was wrong with it; nothing if it did its work."""
    pipe, nowhere = subprocess.PIPE, subprocess.DEVNULL
    try:
        process = subprocess.Popen(
            list(command),
            cwd=folder,
            env=dict(variables),
            stdin=pipe,
            stdout=nowhere,
            stderr=pipe,
            start_new_session=True,
        )
    except OSError as err:
        return f"it cannot be run: {(err.strerror or str(err)).lower()}"
    with process:
        try:
            _, said = process.communicate(data, timeout=timeout_s)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # with whatever it has started
            return f"it took longer than {timeout_s:g} s"
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    if process.returncode:
        words = printable(" ".join(said.decode("utf-8", "replace").split()))[:200]
        return f"it ended with {process.returncode}{f': {words}' if words else ''}"
    return ""


# ---------------------------------------------------------------------------------------------------------- prometheus


def prometheus(found: Found) -> str:
    """What was found, in the text format of Prometheus."""
    return exposition.text_of(_metrics(found), labels={"repository": found.repository})


def write_prometheus(found: Found, path: Path) -> None:
    """Write it to a file, which is the old one or the new one for whoever reads it.

    Raises:
        StorageError: the disk is full, read-only or failing; the old file is as it was.
    """
    files.write_atomic(path.absolute(), prometheus(found).encode("utf-8"), mode=0o644)


def _metrics(found: Found) -> Iterator[Metric]:
    facts = found.facts

    def metric(name: str, what: str, samples: Iterable[tuple[float, Mapping[str, str]]]) -> Metric:
        numbers = tuple(Sample(value=value, labels=labels) for value, labels in samples)
        return Metric(name=f"ckptvcs_{name}", what=what, samples=numbers)

    counts = {(kind, severity): 0 for kind in rules.KINDS for severity in ("warning", "critical")}
    for one in found.alerts:
        counts[one.kind, one.severity] += 1
    yield metric("alerts", "Alerts.", ((n, {"kind": kind, "severity": how}) for (kind, how), n in counts.items()))
    yield metric("checkpoints", "Checkpoints that are not gone.", [(found.checkpoints, {})])
    yield metric(
        "bytes", "Bytes in a place, its trash included.", ((p.nbytes, {"place": p.place}) for p in facts.places)
    )
    yield metric("objects", "Objects in a place.", ((p.objects, {"place": p.place}) for p in facts.places))
    answers = [(1, p.place) for p in facts.places] + [(0, place) for place in facts.silent]
    yield metric("place_up", "Whether a place answers.", ((n, {"place": place}) for n, place in answers))
    quotas = sorted(found.full_in_s.items())
    yield metric("quota_bytes", "Bytes that a place has room for.", ((n, {"place": p}) for p, (n, _) in quotas))
    yield metric("full_seconds", "Until a place is full.", ((left, {"place": p}) for p, (_, left) in quotas))
    added = ((n, {"period_seconds": f"{length:.0f}"}) for length, n in facts.added.items())
    yield metric("added_bytes", "Bytes that checkpoints added in a period, each object once.", added)
    newest = [({"branch": branch, "track": track}, at) for (branch, track), at in sorted(found.newest.items())]
    yield metric("newest_timestamp_seconds", "When the newest checkpoint was saved.", ((at, on) for on, at in newest))
    ages = ((max(0.0, facts.now - at), on) for on, at in newest)
    yield metric("newest_age_seconds", "Age of the newest checkpoint, when this was written.", ages)
    lost: dict[str, float] = {}
    for run in facts.runs:
        lost[run.run] = max(rules.at_risk_s(run, facts.now), lost.get(run.run, 0.0))
    yield metric(
        "at_risk_seconds", "Work that a run would lose if it failed.", ((s, {"run": r}) for r, s in lost.items())
    )
    if facts.restored is not None:
        last = [(facts.restored.seconds, {"by": facts.restored.by})]
        yield metric("restore_seconds", "How long the last restore took.", last)
    yield metric("looked_timestamp_seconds", "When this was written.", [(facts.now, {})])


def limits(repo: Repository) -> bool:
    """Whether anybody wants to be told of anything."""
    wanted = repo.config.alerts
    keys = ("growth", "quota", "save_within", "restore_within", "push_within", "proof_within")
    return wanted is not None and any(getattr(wanted, key) is not None for key in keys)
