"""When to save: rules over step, epoch, time, metrics and events. Pure; time and metrics are arguments.

A rule can only ask for a save, so rules compose by union and none can silence another. What happens at the end of the
loop, at an exception or at a preemption is not decided here, and neither is what is kept.

Rules of cadence (`every_n_steps`, `every_n_epochs`) ask once: who skips that save waits for the next. Whoever asks for
something that comes once (`on_event`, `on_plateau`) asks until a save was taken. `on_improvement` compares with what is in
a checkpoint, so what was skipped is not taken for saved.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from ckptvcs.domain.auto_interval import AutoInterval, with_cost
from ckptvcs.domain.moments import Memory, Moment, SavedBest, Stretch, at_clock, replaced

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ckptvcs.domain.policy import Save
    from ckptvcs.domain.revisions import Mode

__all__ = ["AutoInterval", "Memory", "Moment", "Trigger", "look", "resumed", "saved", "triggers_of"]


class Trigger(Protocol):
    """One rule. It changes only its own part of the memory, and reads of the rest how it was at the moment before."""

    def look(self, memory: Memory, moment: Moment) -> tuple[Memory, tuple[str, ...]]:
        """What it remembers from now on, and its reasons to save now; reasons in `Memory.owed` stay until a save."""
        ...


def look(triggers: Sequence[Trigger], memory: Memory, moment: Moment) -> tuple[Memory, tuple[str, ...]]:
    """Ask all rules.

    Args:
        triggers: the rules, at most one of each kind and metric.
        memory: what the last call of `look`, `saved` or `resumed` returned.
        moment: the step that was done just now.

    Returns:
        The new memory, and the reasons to save now; none means that no save is asked for. Whoever saves tells `saved`.
    """
    # What was measured before of the same step is still true of the state that a save would take.
    offers = memory.offers if moment.step == memory.step else {}
    memory = replaced(_on_clock_of(moment, memory), offers=offers)
    reasons: list[str] = []
    for trigger in triggers:
        memory, found = trigger.look(memory, moment)
        reasons += found
    epochs = memory.epochs if moment.whole_epochs is None else moment.whole_epochs
    memory = replaced(memory, time_s=moment.time_s, step=moment.step, epochs=epochs)
    return memory, (*memory.owed, *reasons)


def saved(memory: Memory, moment: Moment, cost_s: float | None) -> Memory:
    """Be told that a save was taken, for whatever reason. What it returns is the memory that belongs into the checkpoint.

    Args:
        memory: what `look` returned for this moment.
        moment: the step that was saved; its time is that of the begin of the save.
        cost_s: seconds that the save took from training, if they are known already; else a later moment tells them.
    """
    memory = _on_clock_of(moment, memory)
    offers = memory.offers if moment.step == memory.step else {}
    bests = {key: SavedBest(value=value, step=moment.step) for key, value in offers.items()}
    return replaced(
        with_cost(memory, cost_s),
        saved_s=moment.time_s,
        saves=memory.saves + 1,
        owed=(),
        offers={},
        bests=memory.bests | bests,
    )


def not_saved(memory: Memory, before: Memory) -> Memory:
    """Take back that a save was taken: it has failed.

    Args:
        memory: as it is now.
        before: as it was when `saved` was told of that save.
    """
    owed = (*before.owed, *(reason for reason in memory.owed if reason not in before.owed))
    return replaced(memory, saved_s=before.saved_s, saves=before.saves, bests=before.bests, owed=owed)


def resumed(memory: Memory, *, failures: int | None = None, uptime_s: float | None = None) -> Memory:
    """Carry a memory over into a new process, whose clock begins at 0.

    Args:
        memory: that of the checkpoint from which training goes on.
        failures: how often the run was broken off until now, the last time included; one more than the memory knows of if
            None. Give what a ledger counted: two failures without a save in between leave only one trace in the memory.
        uptime_s: seconds that the run was up in all its processes until now; those up to the checkpoint if None.

    `calibration.of_events` gives both from the ledger.
    """
    seen_s = memory.uptime_s + memory.time_s - memory.started_s
    return replaced(
        at_clock(memory, 0.0),
        failures=memory.failures + 1 if failures is None else failures,
        uptime_s=max(0.0, seen_s if uptime_s is None else uptime_s),
        started_s=0.0,
    )


def _on_clock_of(moment: Moment, memory: Memory) -> Memory:
    """The memory as it is; where time went back, nobody told of a new clock, and it begins with this moment."""
    return memory if moment.time_s >= memory.time_s else at_clock(memory, moment.time_s)


def triggers_of(save: Save) -> tuple[Trigger, ...]:
    """The rules that a policy names, in the order of its keys."""
    return tuple(_rules(save))


def _rules(save: Save) -> Iterator[Trigger]:
    if save.every_n_steps is not None:
        yield EveryNSteps(save.every_n_steps)
    if save.every_n_epochs is not None:
        yield EveryNEpochs(save.every_n_epochs)
    if save.every_n_seconds is not None:
        yield EveryNSeconds(save.every_n_seconds)
    if (best := save.on_improvement) is not None:
        metric = Metric(name=best.monitor, mode=best.direction, min_delta=best.min_delta)
        yield OnImprovement(metric, min_interval=best.min_interval)
    if (flat := save.on_plateau) is not None:
        metric = Metric(name=flat.monitor, mode=flat.direction, min_delta=flat.min_delta)
        yield OnPlateau(metric, patience=flat.patience)
    if save.on_event:
        yield OnEvent(frozenset(save.on_event))
    if save.interval is not None:
        yield AutoInterval(overhead=save.interval.overhead, mtbf_s=save.interval.mtbf_s)


# --------------------------------------------------------------------------------------------------------------- cadence


@dataclass(frozen=True, slots=True)
class EveryNSteps:
    """Fires at each multiple of `n` that is reached or passed, once. Step 0 is none: nothing has been trained there."""

    n: int

    def look(self, memory: Memory, moment: Moment) -> tuple[Memory, tuple[str, ...]]:
        fires = _reached(self.n, memory.step, moment.step)
        return memory, (f"every_n_steps: {self.n}",) if fires else ()


@dataclass(frozen=True, slots=True)
class EveryNEpochs:
    """Fires when `n` more epochs are completed.

    Where the loop counts epochs from 0 and tells the one that it is in, epoch 0 is completed at the first step of epoch 1;
    where it tells parts of epochs, at 1.0.
    """

    n: int

    def look(self, memory: Memory, moment: Moment) -> tuple[Memory, tuple[str, ...]]:
        epochs = moment.whole_epochs
        fires = epochs is not None and _reached(self.n, memory.epochs, epochs)
        if memory.epochs is None and epochs != moment.epoch:
            fires = False  # the middle of an epoch is what we saw first
        return memory, (f"every_n_epochs: {self.n}",) if fires else ()


def _reached(n: int, before: int | None, now: int) -> bool:
    """Whether a multiple of `n` above 0 was reached since `before`; going back, or at first, only if it is one exactly."""
    if before is None or now < before:
        return now > 0 and now % n == 0
    return now // n > max(before, 0) // n


@dataclass(frozen=True, slots=True)
class EveryNSeconds:
    """Fires when the last save, or the beginning, is so long ago."""

    n: float

    def look(self, memory: Memory, moment: Moment) -> tuple[Memory, tuple[str, ...]]:
        fires = moment.time_s - memory.saved_s >= self.n
        return memory, (f"every_n_seconds: {self.n:g}",) if fires else ()


# --------------------------------------------------------------------------------------------------------------- metrics


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """A metric and what is better of it, by more than `min_delta`."""

    name: str
    mode: Mode
    min_delta: float = 0.0

    @property
    def key(self) -> str:
        """Its name in a memory."""
        return f"{self.mode} {self.name}"

    def better(self, value: float, than: float) -> bool:
        """Whether a value is better than another one."""
        gain = than - value if self.mode == "min" else value - than
        return gain > self.min_delta


@dataclass(frozen=True, slots=True)
class OnImprovement:
    """Fires when the metric is better than in any checkpoint of the run; the first value is. NaN and infinities never are."""

    metric: Metric
    min_interval: int = 0
    """Steps between two of them, at least."""

    def look(self, memory: Memory, moment: Moment) -> tuple[Memory, tuple[str, ...]]:
        value = moment.value(self.metric.name)
        best = memory.bests.get(self.metric.key)
        if value is None or (best is not None and not self.metric.better(value, best.value)):
            return memory, ()
        memory = replaced(memory, offers={**memory.offers, self.metric.key: value})
        if best is not None and 0 <= moment.step - best.step < self.min_interval:
            return memory, ()
        before = "first value" if best is None else f"{best.value:.6g}"
        return memory, (f"on_improvement: {self.metric.name} {before} -> {value:.6g}",)


@dataclass(frozen=True, slots=True)
class OnPlateau:
    """Fires once when the metric was observed `patience` times in a row without being better than the best before.

    Steps at which the metric is missing, NaN or infinite are no observations. The next plateau begins with the next better
    value.
    """

    metric: Metric
    patience: int

    def look(self, memory: Memory, moment: Moment) -> tuple[Memory, tuple[str, ...]]:
        value = moment.value(self.metric.name)
        if value is None:
            return memory, ()
        known = memory.stretches.get(self.metric.key)
        if known is None or self.metric.better(value, known.best):
            return self._remembered(memory, Stretch(best=value)), ()
        fires = known.count + 1 >= self.patience and not known.told
        memory = self._remembered(memory, Stretch(best=known.best, count=known.count + 1, told=known.told or fires))
        if fires:
            reason = (
                f"on_plateau: {self.metric.name} no better than {known.best:.6g} for {known.count + 1} observations"
            )
            memory = owing(memory, reason)
        return memory, ()

    def _remembered(self, memory: Memory, stretch: Stretch) -> Memory:
        return replaced(memory, stretches={**memory.stretches, self.metric.key: stretch})


# ---------------------------------------------------------------------------------------------------------------- events


@dataclass(frozen=True, slots=True)
class OnEvent:
    """Fires when the loop tells of one of the named events; other events are no reason."""

    names: frozenset[str]

    def look(self, memory: Memory, moment: Moment) -> tuple[Memory, tuple[str, ...]]:
        for name in sorted(self.names & moment.events):
            memory = owing(memory, f"on_event: {name}")
        return memory, ()


def owing(memory: Memory, reason: str) -> Memory:
    """The memory with a reason that stays until a save was taken."""
    return memory if reason in memory.owed else replaced(memory, owed=(*memory.owed, reason))
