"""The arithmetic of range questions that both adapters share: which steps there are, and which values can be true.

Pure. Raises InvalidRequest for a span or step that makes no grid.
"""

import dataclasses
import math

import numpy as np
from numpy.typing import NDArray

from autoscaler.metrics.queries import Metric, Query
from autoscaler.metrics.rows import BROKEN, Floats
from vgpu.errors import InvalidRequest

MOST_POINTS = 11_000
"""Points per series that a Prometheus server gives in one range answer."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """Steps at whole multiples of ``step_s``, both ends included."""

    start_s: float
    step_s: float
    points: int

    @property
    def end_s(self) -> float:
        return self.start_s + (self.points - 1) * self.step_s

    def part(self, first: int, most: int) -> "Span":
        """``most`` steps from step ``first`` on, or those that are left."""
        points = min(most, MOST_POINTS, self.points - first)
        return Span(start_s=self.start_s + first * self.step_s, step_s=self.step_s, points=points)


def span(query: Query, *, start_s: float, end_s: float, step_s: float) -> Span:
    """The grid inside [start_s, end_s]. Whole multiples, so that two runs over one past see the same steps."""
    if query.rate_window_s is not None:
        raise InvalidRequest(f"history of {query.name!r}: rates have no grid yet; ask for a gauge")
    if not (math.isfinite(step_s) and step_s >= 1 and step_s == int(step_s)):
        raise InvalidRequest(f"step={step_s}: give whole seconds, at least 1")
    if not (math.isfinite(start_s) and math.isfinite(end_s) and 0 <= start_s <= end_s):
        raise InvalidRequest(f"span {start_s} to {end_s}: give a start of at least 0 that is not after the end")
    first, last = math.ceil(start_s / step_s), math.floor(end_s / step_s)
    return Span(start_s=first * step_s, step_s=step_s, points=max(0, last - first + 1))


def judged(query: Query, metric: Metric, raw: Floats, broken: NDArray[np.bool_]) -> Floats:
    """Raw samples on a grid in the query's unit; BROKEN where a sample cannot be true (``broken`` marks NaN samples,
    which look like MISSING ones).
    """
    values: Floats = raw * metric.scale
    wrong = broken | (values < query.low) | (values > query.high)
    values[wrong] = BROKEN
    return values
