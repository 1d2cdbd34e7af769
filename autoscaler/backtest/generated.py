"""A seeded load with the shape of the openb trace, for machines without the trace folder.

Nothing is taken from the trace itself. The published figures that shaped it: 5,567 GPU pods in 30 days, of which 30 are
carried over; 44 % fractions, 55 % one GPU, 1 % two, four or eight; run times with quartiles of 184, 655 and 2,302 s and
a tail of weeks; a mean load of about 37 GPUs. Arrivals follow the hour of the day. Reports must say "generated".

Must not know: nodes, prices, the engine. The same seed gives the same pods on every Python: only ``Random.random`` is
drawn from, which is promised to stay the same. Fails on a length that is not positive (TraceError).
"""

import math
import random
import statistics
from collections.abc import Callable

from autoscaler.backtest.traces import TraceError, TracePod, Window, demand_gpu_hours
from vgpu.inventory import Shape

DAY_S = 86_400
LEAD_IN_DAYS = 60
"""Load is generated from this long before the window, so that it starts with long pods in the middle of their run."""

PODS_PER_DAY = 5567 / 30
SWING = 0.6
"""Arrivals at 15:00 are 1 + SWING times the mean, at 03:00 1 - SWING times."""

MEDIAN_S = 560
SPREAD = 1.75
"""Standard deviation of the logarithm. Both are below the published 655 s and ln(2302 / 655) / 0.6745 = 1.86, because
the middle and long pods shift the quartiles of the whole; together they come to the published ones."""

SHORT_MOST_S = 12 * 3600
MIDDLE_SHARE = 0.04
"""Pods that run for three to ten hours."""
LONG_SHARE = 0.02
LONG_MEAN_S = 11 * DAY_S
LONG_MOST_S = 40 * DAY_S
"""Few pods carry most of the load: 2 % that run for 11 days on average."""

FRACTION_SHARE = 0.436
SEVERAL_SHARE = 0.0106
FRACTIONS = (100, 200, 250, 300, 400, 500, 600, 750, 800, 800)
SEVERAL = (2, 4, 8, 8, 8)
CPU_MILLI_PER_GPU = (4000, 6000, 8000, 12000)
MEMORY_MIB_PER_GPU = (16384, 24576, 32768, 65536)
NAMESPACES = (("ls", 0.57), ("be", 0.98), ("burstable", 1.0))
"""Name, and the share up to which it is drawn, counted from the left."""


def generate(seed: int, days: float) -> Window:
    """``days`` of load from second 0 on. Raises TraceError when ``days`` is not positive and finite."""
    if not 0 < days < 36_500:
        raise TraceError(file="", field="days", value=days, remedy="give a positive number of days, at most 36500")
    draw = random.Random(seed).random  # noqa: S311 - a load, not a secret
    end_s = round(days * DAY_S)
    pods: list[TracePod] = []
    carried = 0
    clock = -float(LEAD_IN_DAYS * DAY_S)
    while True:
        # Exponential gaps at the highest rate, thinned to the rate of the hour.
        clock -= math.log(1 - draw()) * DAY_S / (PODS_PER_DAY * (1 + SWING))
        if clock >= end_s:
            break
        rate = 1 + SWING * math.cos(2 * math.pi * (clock / 3600 - 15) / 24)
        if draw() * (1 + SWING) > rate:
            continue
        shape = _shape(draw)
        created_s = math.floor(clock)
        run_s = _run_s(draw, several=shape.gpus > 1)
        namespace = _namespace(draw())
        if created_s + run_s <= 0:
            continue
        carried += created_s < 0
        pods.append(
            TracePod(
                name=f"generated-{len(pods):05d}",
                namespace=namespace,
                shape=shape,
                arrival_s=max(0, created_s),
                run_s=min(run_s, created_s + run_s),
            )
        )
    chosen = tuple(pods)
    return Window(pods=chosen, t0=0, t1=end_s, carried=carried, demand_gpu_hours=demand_gpu_hours(chosen, end_s))


def _pick(draw: Callable[[], float], values: tuple[int, ...]) -> int:
    return values[int(draw() * len(values))]


def _shape(draw: Callable[[], float]) -> Shape:
    kind = draw()
    several = kind >= 1 - SEVERAL_SHARE
    gpus = _pick(draw, SEVERAL) if several else 1
    milli = _pick(draw, FRACTIONS) if kind < FRACTION_SHARE else 1000
    return Shape(
        gpus=gpus,
        milli=milli,
        cpu_milli=gpus * _pick(draw, CPU_MILLI_PER_GPU) * milli // 1000,
        memory_mib=gpus * _pick(draw, MEMORY_MIB_PER_GPU) * milli // 1000,
    )


def _run_s(draw: Callable[[], float], *, several: bool) -> int:
    """Seconds a pod runs. Pods on several GPUs are never long ones: one of them would be a fifth of the load."""
    group = draw()
    where = min(max(draw(), 1e-12), 1 - 1e-12)
    if group < LONG_SHARE and not several:
        return round(min(DAY_S - math.log(1 - where) * (LONG_MEAN_S - DAY_S), LONG_MOST_S))
    if group < LONG_SHARE + MIDDLE_SHARE:
        return round(3 * 3600 + where * 7 * 3600)
    normal = statistics.NormalDist().inv_cdf(where)
    return max(1, round(min(MEDIAN_S * math.exp(SPREAD * normal), SHORT_MOST_S)))


def _namespace(where: float) -> str:
    return next(name for name, up_to in NAMESPACES if where < up_to)
