"""`policy calibrate`: how often to save, from what the ledger and the checkpoints tell of past training."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ckptvcs.domain import calibration
from ckptvcs.domain.policy import Interval
from ckptvcs.errors import NotFound
from ckptvcs.paths import printable
from ckptvcs.porcelain import ledger
from ckptvcs.porcelain.checkpoints import made_by

if TYPE_CHECKING:
    from ckptvcs.domain.calibration import Proposal
    from ckptvcs.porcelain.repo import Repository


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """A proposal, and where its numbers are from."""

    proposal: Proposal
    source: str
    """`ledger`, or `checkpoints` where the ledger tells of no save and no start."""

    @property
    def interval(self) -> Interval:
        """What to write under `save.interval`."""
        mtbf_s = float(round(self.proposal.mtbf_s)) if self.proposal.states_mtbf else None
        return Interval(overhead=self.proposal.overhead, mtbf_s=mtbf_s)

    @property
    def yaml(self) -> str:
        """The same, to be pasted into `ckpt.yaml`."""
        if self.interval == Interval():
            return "save:\n  interval: auto\n"
        lines = ["save:", "  interval:", f"    overhead: {self.interval.overhead:g}"]
        if self.interval.mtbf_s is not None:
            lines.append(f"    mtbf_s: {self.interval.mtbf_s:.0f}")
        return "\n".join(lines) + "\n"


def calibrate(repo: Repository, *, run: str | None = None, track: str | None = None) -> Calibration:
    """Look at past training, change nothing.

    Args:
        repo: the repository.
        run: only the runs of this name; None for all.
        track: the track whose checkpoints count where there is no ledger; None for the configured one.

    Raises:
        NotFound: nothing was recorded.
    """
    source, recorded = "ledger", calibration.of_events(ledger.events(repo, ops=calibration.OPS), run=run)
    if not recorded.costs_s and not recorded.lives:
        source, recorded = "checkpoints", calibration.of_checkpoints(_times(repo, run, track or repo.basics.track))
    if not recorded.lives and not recorded.costs_s:
        whom = "past training" if run is None else f"run '{printable(run)}'"
        raise NotFound(
            f"nothing is known of {whom}",
            why="neither the ledger nor any branch tells of a save",
            next_step="write 'interval: auto' under 'save' in ckpt.yaml: it measures while it trains",
        )
    save = repo.config.save
    overhead = ((save and save.interval) or Interval()).overhead
    return Calibration(proposal=calibration.proposal(recorded, overhead=overhead), source=source)


def _times(repo: Repository, run: str | None, track: str) -> dict[str, list[float]]:
    """Run -> when its checkpoints were committed, of all branches, in seconds."""
    found: dict[str, list[float]] = defaultdict(list)
    tips = list(dict.fromkeys(repo.history.branches().values()))
    for checkpoint in made_by(repo, repo.history.newest_first(tips), track):
        name = checkpoint.manifest.run.name
        if run is None or name == run:
            found[name].append(checkpoint.time.timestamp())
    return found
