"""A machine that fails at random, and training on it: the oracle for how often to save. It knows no formula of ours."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy

from ckptvcs.domain.triggers import Memory, Moment, Trigger, look, resumed, saved


def expected_lost(interval_s: float, cost_s: float, mtbf_s: float, restart_s: float) -> float:
    """The part of the time that is lost in the long run, by adding up what can happen to one interval.

    An attempt lasts work and save. It succeeds if no failure comes in that time; else the time until the failure and a
    restart (in which none comes) are lost, and it begins anew. The mean of the time until the failure is integrated.
    """
    attempt_s = interval_s + cost_s
    time = numpy.linspace(0, attempt_s, 2001)
    density = numpy.exp(-time / mtbf_s) / mtbf_s
    fails = _area(density, time)
    mean_until_failure = _area(time * density, time) / fails
    failures = fails / (1 - fails)
    return float(1 - interval_s / (attempt_s + failures * (mean_until_failure + restart_s)))


def _area(height: numpy.ndarray, at: numpy.ndarray) -> float:
    return float(numpy.sum((height[1:] + height[:-1]) / 2 * numpy.diff(at)))


def best_fixed_interval_s(cost_s: float, mtbf_s: float, restart_s: float) -> float:
    """The interval that loses least, of many that are tried."""
    tried = numpy.geomspace(max(cost_s, mtbf_s * 1e-4) / 100, 4 * mtbf_s, 4000)
    return float(min(tried, key=lambda interval_s: expected_lost(interval_s, cost_s, mtbf_s, restart_s)))


def lost_in_simulation(interval_s: float, cost_s: float, mtbf_s: float, *, work_s: float, seed: int) -> float:
    """The part of the time that is lost when it is played out, with saves at a fixed interval and free restarts."""
    chance = random.Random(seed)
    done_s = time_s = 0.0
    next_failure_s = chance.expovariate(1 / mtbf_s)
    while done_s < work_s:
        if time_s + interval_s + cost_s <= next_failure_s:
            time_s, done_s = time_s + interval_s + cost_s, done_s + interval_s
        else:
            time_s, next_failure_s = next_failure_s, next_failure_s + chance.expovariate(1 / mtbf_s)
    return 1 - done_s / time_s


@dataclass
class Played:
    """What happened to a training on a machine that fails."""

    intervals_s: list[float] = field(default_factory=list)
    """Between the end of one save and the begin of the next, in one process."""
    time_s: float = 0.0
    work_s: float = 0.0
    failures: int = 0
    memory: Memory = field(default_factory=Memory)


def play(
    trigger: Trigger,
    *,
    cost_s: Callable[[random.Random], float],
    mtbf_s: float,
    failures: int,
    seed: int,
    step_s: float = 5.0,
    restart_s: float = 60.0,
) -> Played:
    """Train until the machine has failed so often: each failure throws training back to the last save."""
    chance, played = random.Random(seed), Played()
    durable, durable_work_s, up_s, step = Memory(), 0.0, 0.0, 0
    for _ in range(failures):
        memory = resumed(durable, failures=played.failures, uptime_s=up_s) if played.failures else durable
        lives_s, now_s, work_s, saved_at = chance.expovariate(1 / mtbf_s), 0.0, durable_work_s, None
        while now_s + step_s <= lives_s:
            now_s, work_s, step = now_s + step_s, work_s + step_s, step + 1
            moment = Moment(step=step, time_s=now_s)
            memory, reasons = look([trigger], memory, moment)
            if not reasons:
                continue
            took_s = cost_s(chance)
            if now_s + took_s > lives_s:
                break  # killed in the middle of the save
            if saved_at is not None:
                played.intervals_s.append(now_s - saved_at)
            memory = saved(memory, moment, took_s)
            now_s = saved_at = now_s + took_s
            durable, durable_work_s = Memory.from_plain(memory.to_plain()), work_s
        played.failures, up_s = played.failures + 1, up_s + lives_s
        played.time_s += lives_s + restart_s
    played.work_s, played.memory = durable_work_s, resumed(durable, failures=played.failures, uptime_s=up_s)
    return played
