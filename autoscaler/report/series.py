"""Step functions of a run over time, averaged into buckets so that a month stays a small chart. Pure."""

import dataclasses
from collections.abc import Iterable

from autoscaler.report.figures import billed_until, gpu_milli
from autoscaler.report.run import Run

BUCKETS = 720
"""One per hour for 30 days."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """Mean GPUs per bucket; all three have the same length."""

    t0: float
    step_s: float
    demanded: tuple[float, ...]
    """Asked for by pods that have arrived and not finished, waiting ones included."""
    bought: tuple[float, ...]
    """Billed: from the order to the termination."""
    busy: tuple[float, ...]
    """Held by pods; a pod that is being moved holds twice."""


def over_time(run: Run, buckets: int = BUCKETS) -> Series:
    """GPUs demanded, bought and busy from ``run.t0`` to ``run.t1``."""
    t0, t1 = run.t0, run.t1
    return Series(
        t0=t0,
        step_s=(t1 - t0) / buckets,
        demanded=means(
            ((pod.arrival_s, t1 if pod.end_s is None else pod.end_s, pod.gpu_milli / 1000) for pod in run.pods),
            t0,
            t1,
            buckets,
        ),
        bought=means(
            ((machine.ordered_s, billed_until(machine, t1), machine.gpus) for machine in run.machines), t0, t1, buckets
        ),
        busy=means(
            ((stay.start_s, t1 if stay.end_s is None else stay.end_s, gpu_milli(stay) / 1000) for stay in run.stays),
            t0,
            t1,
            buckets,
        ),
    )


def means(spans: Iterable[tuple[float, float, float]], t0: float, t1: float, buckets: int) -> tuple[float, ...]:
    """Mean per bucket of the sum of ``(start, end, height)`` spans, clipped to [t0, t1]."""
    step = (t1 - t0) / buckets
    area = [0.0] * buckets
    # A span adds its height to every bucket it covers whole: the steps collect where that begins and ends.
    steps = [0.0] * (buckets + 1)
    for start, end, height in spans:
        left, right = max(start, t0), min(end, t1)
        if right <= left:
            continue
        first = min(int((left - t0) / step), buckets - 1)
        last = min(int((right - t0) / step), buckets - 1)
        if first == last:
            area[first] += height * (right - left)
            continue
        area[first] += height * (t0 + (first + 1) * step - left)
        area[last] += height * (right - (t0 + last * step))
        steps[first + 1] += height
        steps[last] -= height
    result: list[float] = []
    level = 0.0
    for index in range(buckets):
        level += steps[index]
        result.append(max(0.0, level + area[index] / step))
    return tuple(result)
