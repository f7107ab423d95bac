"""`Keeper`: the loop whose state is that of parts in memory. `Checkpointer` is its face."""

from __future__ import annotations

import contextlib
import gc
from typing import TYPE_CHECKING, Any

from ckptvcs.train import ranks, resume
from ckptvcs.train.loop import Loop
from ckptvcs.train.parts import LOOP
from ckptvcs.train.preemption import within_grace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from ckptvcs.domain.calibration import Recorded
    from ckptvcs.domain.checkpoint import Checkpoint
    from ckptvcs.domain.policy import Save
    from ckptvcs.porcelain.commit import Receipt
    from ckptvcs.train.facts import Facts
    from ckptvcs.train.parts import Parts
    from ckptvcs.train.resume import Found, Resumed
    from ckptvcs.train.saver import Saver
    from ckptvcs.train.watch import Place


@contextlib.contextmanager
def _collector_at_rest() -> Iterator[None]:
    """Keep Python's garbage collector from running while training waits.

    Describing a state makes many small objects, which sets it off; over all objects of a program with torch it takes longer
    than the copy of the state does.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


class Keeper(Loop):
    """Saves a copy of the states of parts, and puts them back.

    Args:
        parts: the parts of the training.
        saver: commits what is saved.
        policy: when to save.
        preempted: asked at every step whether the process is to end soon.
    """

    def __init__(self, parts: Parts, saver: Saver, policy: Save, *, preempted: Callable[[], bool] | None) -> None:
        super().__init__(saver, policy, preempted=preempted)
        self.parts = parts
        roles = ", ".join(sorted(set(parts.roles.values())))
        self.demand(parts.grade(), why=f"its parts play the roles {roles}", next_step="pass the optimizer too")

    # ---- saving

    def tell(self, place: Place) -> tuple[str, ...]:
        self.parts.update_averages("step")
        return super().tell(place)

    def write(self, facts: Facts, place: Place | None, parts: Mapping[str, Any] | None) -> Receipt | None:
        self.parts.update_averages("save")
        with _collector_at_rest():
            states = self.parts.states(self.parts.by_name if parts is None else parts)
            if place is not None:
                states[LOOP] = {"samples": place.samples, "triggers": self.watch.remembered()}
            return self.saver.save(self.parts.incoming(states), facts) if ranks.rank() == 0 else None

    def within_grace(self) -> tuple[Mapping[str, Any], str]:
        return within_grace(self.parts, self.saver.last, self.preemption.left_s() - self.saver.remaining_s())

    # ---- going on

    def resume(self, revision: str | None, *, strict: bool, components: Sequence[str] | None) -> Resumed | None:
        """Go on from a checkpoint; see `Checkpointer.resume`."""
        self.wait()
        self.parts.wanted(components)  # before anything is looked at: it may name no part
        found = ranks.together(lambda: self._find(revision, strict=strict))
        chosen = ranks.agreed(found.checkpoint.id if found is not None else None)
        if (found.checkpoint.id if found is not None else None) != chosen:  # of this rank, objects may be missing
            found = ranks.together(lambda: resume.find(self.saver, chosen) if chosen else None)
        if found is None:
            return None
        past = self.saver.past(found.checkpoint) if revision is None else None
        if revision is not None:
            resume.fork_if_needed(self.saver, found.checkpoint)
        same_run = revision is None
        return self.put_back(
            found.checkpoint, found.skipped, strict=strict, components=components, past=past, same_run=same_run
        )

    def _find(self, revision: str | None, *, strict: bool) -> Found | None:
        if not strict or revision is not None:
            return resume.find(self.saver, revision)
        return resume.find_whole(self.saver, None, refuse=resume.refuse_partial)

    def put_back(
        self,
        checkpoint: Checkpoint,
        skipped: tuple[str, ...] = (),
        *,
        strict: bool,
        components: Sequence[str] | None,
        past: Recorded | None = None,
        same_run: bool = False,
    ) -> Resumed:
        """Give every part its state from a checkpoint."""
        mine, wanted = self.parts.by_name, self.parts.wanted(components)
        states, left = resume.put_back(self.saver, checkpoint, mine, wanted, strict=strict, same_run=same_run)
        loop = states.get(LOOP) or {}
        if "triggers" in loop:
            self.watch.go_on(loop["triggers"], past=past)
        left = resume.restore_generators(states, left)
        self.forget_step()
        return resume.resumed(self.saver, checkpoint, samples=loop.get("samples"), skipped=skipped, left=left)
