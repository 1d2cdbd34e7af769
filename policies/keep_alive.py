"""How long an idle workload stays loaded: a time-out learnt from the workload's own past gaps.

Holding a GPU through a gap costs its seconds; unloading too early delays the requests that come during the next load.
The time-out chosen is the one that would have cost least over the past gaps, the newer counting more, with a weak prior
in place of the gaps not seen yet. One setting serves all workloads; what differs is their history.

Must not know: clocks, signals, replicas. Fails with InvalidRequest on a rate or a gap that no workload can have; no
history is no failure: then the prior alone chooses.
"""

import dataclasses
import functools
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from policies.decisions import Evidence
from vgpu.errors import InvalidRequest

BLOCK_S = 43_200.0
"""Blocks over which ``quiet_rate`` counts, in seconds. Twelve hours keep one burst inside one or two blocks; from
six-hour blocks or from the whole past the rate comes out far too high for a workload that was busy once."""

STEPS_PER_DOUBLING = 4
"""Fineness of the grid of time-outs: each is 2^(1/4), about 19 %, longer than the one before."""

Floats = NDArray[np.float64]


class Spec(BaseModel):
    """The time-out's settings, the same for all workloads."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    delay_price: float = Field(
        default=12.0,
        ge=0.01,
        le=10_000,
        description="GPU-seconds that one is ready to hold idle to spare the delay of one second's worth of the "
        "workload's average requests. Higher is quicker and dearer. 0.01 to 10000.",
    )
    minimum_s: float = Field(
        default=30.0,
        ge=30,
        le=86_400,
        description="Shortest time-out, seconds. 30 to 86400; gaps below 30 s are no gaps.",
    )
    maximum_s: float = Field(
        default=6_500.0, ge=30, le=86_400, description="Longest time-out, seconds. 30 to 86400, at least the shortest."
    )
    half_life_gaps: float = Field(
        default=10.0, gt=0, le=1_000, description="Gaps after which a past gap counts half. Above 0, at most 1000."
    )
    prior_weight: float = Field(
        default=0.5,
        gt=0,
        le=100,
        description="Weight of the prior, in gaps. Above 0, at most 100. The prior says: a gap is as likely to last "
        "between 1 and 2 minutes as between 1 and 2 hours, up to a day.",
    )
    history_gaps: int = Field(
        default=128,
        ge=1,
        le=10_000,
        description="Past gaps looked at, the newest. 1 to 10000; bounds the work of one choice.",
    )

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.maximum_s < self.minimum_s:
            raise ValueError(f"maximum_s={self.maximum_s:g}: give at least minimum_s, which is {self.minimum_s:g}")
        return self


SHORTEST_GAP_S = 30.0
"""Gaps below this are part of being active."""

LONGEST_GAP_S = 86_400.0
"""Longest gap the prior thinks of."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """One finished gap between requests."""

    length_s: float
    requests_within_load: int
    """Requests that came within the load time after the gap, its end included: those delayed by having unloaded."""

    def __post_init__(self) -> None:
        if not 0 < self.length_s < math.inf:
            raise InvalidRequest(f"gap.length_s={self.length_s!r}: give finite seconds above 0")
        if self.requests_within_load < 0:
            raise InvalidRequest(f"gap.requests_within_load={self.requests_within_load!r}: give at least 0")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class KeepAlive:
    """The chosen time-out and what led to it."""

    t_s: float
    evidence: Mapping[str, Evidence]


def quiet_rate(counts: Sequence[int], running_s: float, block_s: float = BLOCK_S) -> float | None:
    """A workload's request rate, in requests per second, apart from its busiest time.

    ``counts`` are the requests per block of ``block_s`` seconds, oldest first; the last one has run for ``running_s``
    seconds so far. Blocks before the first request do not count: the workload may not have existed. The fullest block
    is left out, so that one burst does not make every later request look unimportant; what is left counts as one block
    at least, so that a block just begun says little. Never below one request in all that time. None when there was no
    request: unknown, not zero.
    """
    lived = list(itertools.dropwhile(lambda count: count <= 0, counts))
    if not lived:
        return None
    if len(lived) == 1:
        return lived[0] / block_s
    fullest = max(range(len(lived)), key=lived.__getitem__)
    left_out_s = running_s if fullest == len(lived) - 1 else block_s
    rest_s = max(block_s, (len(lived) - 1) * block_s + running_s - left_out_s)
    return max((sum(lived) - lived[fullest]) / rest_s, 1 / (len(lived) * block_s))


@functools.lru_cache(maxsize=64)
def _grid(minimum_s: float, maximum_s: float) -> tuple[Floats, Floats, Floats]:
    """Time-outs [steps] with what the prior expects of each: seconds held per gap, and share of gaps longer than it.

    For a gap g with a uniform log between a and b: P(g > T) = ln(b/T) / ln(b/a), and
    E min(g, T) = (T - a) / ln(b/a) + T · P(g > T).
    """
    steps = math.floor(math.log2(maximum_s / minimum_s) * STEPS_PER_DOUBLING + 1e-9)
    timeouts = minimum_s * 2.0 ** (np.arange(steps + 1) / STEPS_PER_DOUBLING)
    timeouts = np.minimum(timeouts, maximum_s)
    log_range = math.log(LONGEST_GAP_S / SHORTEST_GAP_S)
    log_left = np.log(LONGEST_GAP_S / timeouts)
    held = (timeouts - SHORTEST_GAP_S + timeouts * log_left) / log_range
    return timeouts, held, log_left / log_range


def choose(gaps: Sequence[Gap], rate_rps: float, spec: Spec, *, load_s: float = 0.0) -> KeepAlive:
    """The time-out T that would have cost least: the sum over past gaps g of min(g, T) + w·m·[g > T], in GPU-seconds.

    ``gaps`` are the workload's finished gaps, oldest first; those below 30 s are passed over. m is a gap's
    ``requests_within_load``, w = ``delay_price / rate_rps`` the GPU-seconds that one delayed request is worth, so that
    the same share of delayed requests weighs the same for a busy and a quiet workload. ``load_s`` is the expected load
    time in seconds; it only says how many requests the prior expects after a gap. Of equally good time-outs the
    shortest is taken. Raises InvalidRequest for a rate that is not above 0.
    """
    if not 0 < rate_rps < math.inf:
        raise InvalidRequest(
            f"rate_rps={rate_rps!r}: give finite requests per second above 0, or do not ask for a choice"
        )
    if not 0 <= load_s < math.inf:
        raise InvalidRequest(f"load_s={load_s!r}: give finite seconds of at least 0")
    timeouts, prior_held, prior_longer = _grid(spec.minimum_s, spec.maximum_s)
    known = [gap for gap in gaps[-spec.history_gaps :] if gap.length_s >= SHORTEST_GAP_S]
    lengths = np.array([gap.length_s for gap in known], dtype=np.float64)
    near = np.array([gap.requests_within_load for gap in known], dtype=np.float64)
    weights = 0.5 ** (np.arange(len(known), dtype=np.float64)[::-1] / spec.half_life_gaps)
    per_request = spec.delay_price / rate_rps

    weight = float(weights.sum()) + spec.prior_weight
    expected_near = (float((weights * near).sum()) + spec.prior_weight * max(1.0, rate_rps * load_s)) / weight

    longer = lengths[:, None] > timeouts
    held = (weights[:, None] * np.minimum(lengths[:, None], timeouts)).sum(axis=0) + spec.prior_weight * prior_held
    delayed = ((weights * near)[:, None] * longer).sum(axis=0) + spec.prior_weight * expected_near * prior_longer
    best = int(np.argmin(held + per_request * delayed))
    return KeepAlive(
        t_s=float(timeouts[best]),
        evidence={
            "keep_alive_s": round(float(timeouts[best]), 1),
            "gaps": len(known),
            "rate_rps": round(rate_rps, 6),
            "gpu_s_per_delayed_request": round(per_request, 3),
            "expected_held_s_per_gap": round(float(held[best]) / weight, 1),
            "expected_delayed_per_gap": round(float(delayed[best]) / weight, 3),
        },
    )
