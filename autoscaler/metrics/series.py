"""The embedded series store: the metric port without a server, for the embedded cluster, demos and replays.

Answers the named queries as a Prometheus server that holds the same samples would; one contract suite holds both to
that. Bounded: each series keeps ``retention_s``, ended series are dropped. Not thread-safe. Never raises for bad
samples: a sample that comes too late is refused and counted, as a server would.
"""

import bisect
import itertools
import math
import re
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import numpy as np

from autoscaler.metrics import grid
from autoscaler.metrics.judge import judge
from autoscaler.metrics.labels import target
from autoscaler.metrics.queries import LOOK_BACK_S, QUERIES, Metric, Query, find
from autoscaler.metrics.rows import Floats, Grid, Row, Track
from autoscaler.model.ports import Clock
from policies.signals import Signal
from vgpu.errors import InvalidRequest

_Key = tuple[tuple[str, str], ...]

_SWEEP_EVERY = 4096
"""Appended samples between two looks for ended series."""


class _Series:
    """Samples of one series, oldest first."""

    __slots__ = ("ends", "labels", "times", "values")

    def __init__(self, labels: Mapping[str, str]) -> None:
        self.labels = labels
        self.times = array("d")
        self.values = array("d")
        self.ends = array("d")
        """Times at which the series was known to have ended."""

    def append(self, time_s: float, value: float, retention_s: float) -> bool:
        if self.times and time_s <= self.times[-1]:
            # The same sample again is no news; another value for a time that has one, or for an earlier time, is
            # refused.
            return time_s == self.times[-1] and (
                value == self.values[-1] or (math.isnan(value) and math.isnan(self.values[-1]))
            )
        self.times.append(time_s)
        self.values.append(value)
        horizon = time_s - retention_s
        if self.times[0] < horizon:
            old = bisect.bisect_left(self.times, horizon)
            # Shifting is dear: wait until it frees half.
            if old * 2 >= len(self.times):
                del self.times[:old]
                del self.values[:old]
                del self.ends[: bisect.bisect_left(self.ends, horizon)]
        return True

    def newest(self, at: float) -> int:
        """Index of the newest sample not after ``at``; -1 for none."""
        return bisect.bisect_right(self.times, at) - 1

    def ended(self, index: int, at: float) -> bool:
        """Whether the series ended after the sample at ``index`` and not after ``at``."""
        end = bisect.bisect_right(self.ends, at) - 1
        return end >= 0 and self.ends[end] > self.times[index]


class SeriesStore:
    """Samples in memory, and the named queries over them; implements ``autoscaler.model.ports.MetricSource``."""

    def __init__(
        self,
        *,
        clock: Clock | None = None,
        retention_s: float = 2 * LOOK_BACK_S,
        queries: Mapping[str, Query] = QUERIES,
    ) -> None:
        """``clock``: what "now" is for questions without a time; without one it is the newest sample's time.
        ``retention_s``: how long samples are kept, at least the look-back. Raises InvalidRequest for less.
        """
        if not retention_s >= LOOK_BACK_S:
            raise InvalidRequest(f"retention_s={retention_s}: keep at least the look-back of {LOOK_BACK_S:.0f} s")
        self._clock = clock
        self._retention_s = retention_s
        self._queries = queries
        self._metrics: dict[str, dict[_Key, _Series]] = {}
        self._newest_s = -math.inf
        self._since_sweep = 0
        self.refused = 0
        """Samples that came too late or named no time."""

    def append(self, metric: str, labels: Mapping[str, str], time_s: float, value: float) -> bool:
        """Store one sample; ``time_s`` in Unix seconds (or the embedded clock's). False when it is refused: not newer
        than the series' newest sample, or a time that is no number. An empty label is no label.
        """
        if not math.isfinite(time_s):
            self.refused += 1
            return False
        key = tuple(sorted((name, text) for name, text in labels.items() if text))
        series = self._metrics.setdefault(metric, {}).get(key)
        if series is None:
            series = self._metrics[metric][key] = _Series(dict(key))
        if not series.append(time_s, value, self._retention_s):
            self.refused += 1
            return False
        self._newest_s = max(self._newest_s, time_s)
        self._since_sweep += 1
        if self._since_sweep >= _SWEEP_EVERY:
            self._sweep()
        return True

    def end(self, metric: str, labels: Mapping[str, str], time_s: float) -> bool:
        """Note that a series has ended, as a server does when a scrape no longer brings it. A later sample revives it.
        False when there is no such series, or it has a sample or an end at that time or later.
        """
        key = tuple(sorted((name, text) for name, text in labels.items() if text))
        series = self._metrics.get(metric, {}).get(key)
        if series is None or time_s <= series.times[-1] or (series.ends and time_s <= series.ends[-1]):
            return False
        series.ends.append(time_s)
        return True

    def series_count(self) -> int:
        return sum(len(known) for known in self._metrics.values())

    def _sweep(self) -> None:
        """Drop the series whose newest sample is past retention."""
        self._since_sweep = 0
        horizon = self._newest_s - self._retention_s
        for known in self._metrics.values():
            for key in [key for key, series in known.items() if series.times[-1] < horizon]:
                del known[key]

    # The port ---------------------------------------------------------------------------------------------------

    def signals(self, names: Sequence[str], *, at: float | None = None) -> Sequence[Signal]:
        """See the port. Raises UnknownQuery for a name that nobody defined."""
        now = self._now() if at is None else at
        found: list[Signal] = []
        for name in names:
            query = find(self._queries, name)
            answers = {metric.name: tuple(self._rows(query, metric, now)) for metric in query.metrics}
            found.extend(judge(query, answers, now))
        return found

    def history(
        self, name: str, *, start_s: float, end_s: float, step_s: float, past: Callable[[int], None] | None = None
    ) -> Iterator[Grid]:
        """The query's series on a grid, as ``PrometheusSource.history`` gives them; one part. Raises UnknownQuery,
        InvalidRequest.
        """
        query = find(self._queries, name)
        span = grid.span(query, start_s=start_s, end_s=end_s, step_s=step_s)
        if not span.points:
            return
        tracks: list[Track] = []
        for rank, metric in enumerate(query.metrics):
            for series in self._answering(metric, span.end_s):
                raw, broken = _on_grid(series, span, query.max_age_s)
                if not np.isnan(raw).all() or broken.any():
                    values = grid.judged(query, metric, raw, broken)
                    tracks.append(Track(rank=rank, labels=series.labels, values=values))
        yield Grid(start_s=span.start_s, step_s=span.step_s, points=span.points, tracks=tuple(tracks))
        if past is not None:
            past(span.points)

    def _now(self) -> float:
        if self._clock is not None:
            return self._clock.now()
        return self._newest_s if math.isfinite(self._newest_s) else 0.0

    def _rows(self, query: Query, metric: Metric, at: float) -> Iterator[Row]:
        for series in self._answering(metric, at):
            index = series.newest(at)
            if index < 0 or series.times[index] < at - LOOK_BACK_S:
                continue
            value: float | None = series.values[index]
            if query.rate_window_s is not None:
                value = _rate(series, at, query.rate_window_s)
            ended = series.ended(index, at)
            if ended and query.rate_window_s is not None:
                value = None
            yield Row(labels=series.labels, value=value, time_s=series.times[index], ended=ended)

    def _answering(self, metric: Metric, at: float) -> Iterable[_Series]:
        known = self._metrics.get(metric.name, {}).values()
        if not metric.matchers and not metric.beside:
            return known
        patterns = [(label, re.compile(regex)) for label, regex in metric.matchers]
        beside = {
            target(series.labels)
            for name in metric.beside
            for series in self._metrics.get(name, {}).values()
            if (index := series.newest(at)) >= 0 and series.times[index] >= at - LOOK_BACK_S
        }
        return [
            series
            for series in known
            if all(pattern.fullmatch(series.labels.get(label, "")) for label, pattern in patterns)
            or target(series.labels) in beside
        ]


def _on_grid(
    series: _Series, span: grid.Span, max_age_s: float
) -> tuple[Floats, "np.ndarray[tuple[int], np.dtype[np.bool_]]"]:
    """Raw values per step, NaN where none is young enough, and where the sample itself is NaN."""
    steps = span.start_s + span.step_s * np.arange(span.points)
    # Copies: an array that lends its memory could not grow any more.
    times, values = np.array(series.times), np.array(series.values)
    last = np.searchsorted(times, steps, side="right") - 1
    window = max(max_age_s, span.step_s)
    known = (last >= 0) & (times[np.maximum(last, 0)] > steps - window)
    raw = np.full(span.points, np.nan)
    if span.step_s <= max_age_s:
        ends = np.array(series.ends)
        if len(ends):
            end = np.searchsorted(ends, steps, side="right") - 1
            known &= ~((end >= 0) & (ends[np.maximum(end, 0)] > times[np.maximum(last, 0)]))
        raw[known] = values[last[known]]
    else:
        first = np.searchsorted(times, steps - window, side="right")
        for step in np.flatnonzero(known):
            inside = values[first[step] : last[step] + 1]
            raw[step] = np.nan if np.isnan(inside).all() else np.nanmax(inside)
    return raw, known & np.isnan(raw)


def _rate(series: _Series, at: float, window_s: float) -> float | None:
    """Increase per second over the window as Prometheus defines ``rate``: resets add up, and the increase between first
    and last sample is stretched to the window's edges where the samples reach close to them. None with fewer than two
    samples.

    Source of the rule: the PromQL functions ``rate`` and ``increase`` of prometheus/prometheus (1.1 average intervals
    count as close; otherwise half an interval; a counter is not stretched to before the time at which it was zero).
    """
    first = bisect.bisect_left(series.times, at - window_s)
    last = series.newest(at)
    if last - first < 1:
        return None
    times, values = series.times[first : last + 1], series.values[first : last + 1]
    increase = values[-1] - values[0]
    for before, after in itertools.pairwise(values):
        if after < before:
            increase += before
    sampled = times[-1] - times[0]
    interval = sampled / (len(times) - 1)
    to_start, to_end = times[0] - (at - window_s), at - times[-1]
    if increase > 0 and values[0] >= 0:
        to_start = min(to_start, sampled * values[0] / increase)
    stretched = sampled
    for gap in (to_start, to_end):
        stretched += gap if gap < 1.1 * interval else interval / 2
    return increase * stretched / sampled / window_s
