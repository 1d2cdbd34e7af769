"""What an adapter hands to the judge: the newest sample of each series, or the word that there was no answer.

Also the grid of a range question. Plain values; knows neither queries nor a source.
"""

import dataclasses
from collections.abc import Mapping
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from vgpu.errors import TidegateError

Floats: TypeAlias = NDArray[np.float64]

MISSING = float("nan")
"""In a grid: no sample was young enough at that step."""

BROKEN = float("inf")
"""In a grid: there was a sample, and it cannot be true."""


class MetricsUnreachable(TidegateError):
    """The metric source did not answer a question about the past; the message says what was asked and what came
    back.
    """


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """The newest sample of one series."""

    labels: Mapping[str, str]
    value: float | None
    """As exported, unscaled; None where the series is known and its value is not (a rate from one sample)."""
    time_s: float
    """When it was scraped, Unix seconds."""
    ended: bool = False
    """The source knows that the series has ended: its exporter was scraped since, or could not be, and it was not
    there."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Unanswered:
    """The source gave no usable answer."""

    detail: str


Answer: TypeAlias = tuple[Row, ...] | Unanswered


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Track:
    """One series on a grid."""

    rank: int
    """Position of its metric in the query's order of preference."""
    labels: Mapping[str, str]
    values: Floats
    """One value per step in the query's unit; MISSING or BROKEN where there is none."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """Part of the answer to a range question: step i stands for the time ``start_s + i * step_s``."""

    start_s: float
    step_s: float
    points: int
    tracks: tuple[Track, ...]
