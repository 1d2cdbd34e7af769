"""Since when each series of a query is quiet, by proof: what is kept of the past to judge idleness.

A workload is idle since the newest ``since_s`` of its series. What nobody measured counts as use: holes, impossible
values and the time before a series began never make it idle longer than samples prove.

Knows named queries and the past of a source, no workloads. Never raises for what a source says: a past that cannot be
read up to now is a ``failure``, in words.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol, TypeAlias

import numpy as np

from autoscaler.metrics import labels as naming
from autoscaler.metrics.queries import Query, QueryKind
from autoscaler.metrics.rows import BROKEN, MISSING, Floats, Grid, MetricsUnreachable, Track
from autoscaler.model.ports import MetricSource
from policies.signals import Signal, SignalState
from vgpu.errors import InvalidRequest

_Key: TypeAlias = tuple[str, ...]


class HistorySource(MetricSource, Protocol):
    """A metric source that also tells the past: ``PrometheusSource`` and ``SeriesStore``."""

    def history(self, name: str, *, start_s: float, end_s: float, step_s: float) -> Iterator[Grid]: ...


@dataclasses.dataclass(slots=True)
class Course:
    """The past of one series. Times are Unix seconds."""

    labels: Mapping[str, str]
    last_s: float
    """Its newest sample or step."""
    since_s: float
    """The newest of: its first sample, its last one above the threshold, its last impossible one, and the end of its
    last hole. It is quiet since, without a hole, up to ``last_s``."""
    target: tuple[str, str] = ("", "")
    """The scrape target (job, instance); empty strings where it was not told."""


class Past:
    """All courses of one query, carried on from look to look."""

    def __init__(self, query: Query, *, look_back_s: float, step_s: float, above: float) -> None:
        """``look_back_s``: how much past the first look reads; later ones read what is new. ``step_s``: of that
        reading; samples closer together can hide behind one another. ``above``: a value above it is use.
        """
        self.query = query
        self._look_back_s, self._above = look_back_s, above
        # A step longer than the maximum age could not see holes of that length. A rate's values at whole multiples of
        # its window cover the past without one.
        self._step_s = query.rate_window_s or min(step_s, max(1.0, float(int(query.max_age_s))))
        self._reach_s = query.rate_window_s or query.max_age_s
        self._asked_s: float | None = None
        self._courses: dict[_Key, Course] = {}
        self.failure = ""
        """Why the past is not known up to now; empty when it is."""

    def courses(self) -> Iterator[Course]:
        return iter(self._courses.values())

    def reaches(self, course: Course) -> bool:
        """Whether the course goes on to the last read: a sample was young enough at its last step, or came after it."""
        return course.last_s >= (self._asked_s or 0.0)

    def read(self, source: HistorySource, now: Sequence[Signal], at: float) -> None:
        """Bring the courses up to ``at``. ``now``: the query's signals of that moment."""
        oldest = max(0.0, at - self._look_back_s)
        if self._asked_s is not None and at < self._asked_s:
            # The clock went back: what was read lies in the future.
            self._asked_s, self._courses = None, {}
        start = oldest if self._asked_s is None else max(oldest, self._asked_s + self._step_s)
        # Whoever did not answer now is not asked for more: each question costs the server's whole silence.
        self.failure = next((signal.detail for signal in now if signal.state is SignalState.UNREACHABLE), "")
        if not self.failure and (any(signal.labels for signal in now) or self._courses):
            try:
                for grid in self._steps(source, start, at):
                    self._enter(grid)
                    self._asked_s = grid.start_s + (grid.points - 1) * grid.step_s
            except (MetricsUnreachable, InvalidRequest) as error:
                self.failure = str(error)
        for signal in now:
            if signal.labels and signal.age_s is not None:
                self._enter_newest(signal, at - signal.age_s)
        self._courses = {key: course for key, course in self._courses.items() if course.last_s >= oldest}

    def _steps(self, source: HistorySource, start: float, at: float) -> Iterator[Grid]:
        if start > at:
            return
        if self.query.rate_window_s is None:
            parts = source.history(self.query.name, start_s=start, end_s=at, step_s=self._step_s)
            yield from (part for part in parts if part.points)
            return
        for index in range(-int(-start // self._step_s), int(at // self._step_s) + 1):
            tracks: list[Track] = []
            for signal in source.signals([self.query.name], at=index * self._step_s):
                if signal.state is SignalState.UNREACHABLE:
                    raise MetricsUnreachable(signal.detail)
                value = signal.value if signal.valid else BROKEN if signal.state is SignalState.INVALID else MISSING
                if signal.labels:
                    tracks.append(Track(rank=0, labels=signal.labels, values=np.array([value], dtype=np.float64)))
            yield Grid(start_s=index * self._step_s, step_s=self._step_s, points=1, tracks=tuple(tracks))

    def _enter(self, grid: Grid) -> None:
        """Carry the courses on over one part of the past."""
        for key, (plain, values) in self._merged(grid).items():
            known = np.flatnonzero(~np.isnan(values))
            if not len(known):
                continue
            first_s = grid.start_s + grid.step_s * int(known[0])
            course = self._courses.get(key)
            if course is None:
                course = self._courses[key] = self._begun(plain, first_s)
            elif first_s - course.last_s > grid.step_s:
                course.since_s = first_s
            course.target = naming.target(plain)
            # Beyond the threshold lies BROKEN too, which is infinite: nobody knows what it hides.
            for steps in (known[1:][np.diff(known) > 1], np.flatnonzero(values > self._above)):
                if len(steps):
                    course.since_s = max(course.since_s, grid.start_s + grid.step_s * int(steps[-1]))
            course.last_s = max(course.last_s, grid.start_s + grid.step_s * int(known[-1]))

    def _merged(self, grid: Grid) -> dict[_Key, tuple[Mapping[str, str], Floats]]:
        """One course per key, with the labels of its newest track. As for the newest samples, the first metric in the
        order of preference whose value can be true counts, and of duplicates the larger.
        """
        owners = naming.Owners(track.labels for track in grid.tracks)
        ranks: dict[int, dict[_Key, tuple[Mapping[str, str], Floats]]] = {}
        for track in sorted(grid.tracks, key=_newest_step):
            owner = owners.of(track.labels)
            if self.query.kind is QueryKind.POD and owner is None:
                continue
            key = self._key(track.labels, owner)
            same = ranks.setdefault(track.rank, {})
            plain = {**track.labels, **owner.labels()} if owner is not None else track.labels
            # MISSING loses, BROKEN wins: an error must never look like idleness.
            same[key] = (plain, np.fmax(same[key][1], track.values) if key in same else track.values)
        merged: dict[_Key, tuple[Mapping[str, str], Floats]] = {}
        for _, same in sorted(ranks.items()):
            for key, (plain, values) in same.items():
                better_plain, better = merged.get(key, (plain, values))
                chosen: Floats = np.where(np.isfinite(better) | np.isnan(values), better, values)
                merged[key] = (better_plain, chosen)
        return merged

    def _enter_newest(self, signal: Signal, time_s: float) -> None:
        """Add the newest sample, which may lie behind the last step."""
        named = naming.pod_labels(signal.labels)
        owner = None
        if named.get("pod"):
            namespace, container = named.get("namespace", ""), named.get("container", "")
            owner = naming.Owner(namespace=namespace, pod=named["pod"], container=container)
        key = self._key(signal.labels, owner)
        course = self._courses.get(key)
        if course is None:
            self._courses[key] = self._begun(signal.labels, time_s)
        elif time_s > course.last_s:
            quiet = signal.valid and (signal.value or 0.0) <= self._above
            # A step at which nothing was young enough lies in a hole, however short ago the step before it was.
            hole = course.last_s < (self._asked_s or 0.0) or time_s - course.last_s > self._reach_s
            if not quiet or hole:
                course.since_s = max(course.since_s, time_s)
            course.last_s = time_s

    def _begun(self, labels: Mapping[str, str], time_s: float) -> Course:
        plain = labels if self.query.kind is QueryKind.POD else naming.series_labels(labels)
        return Course(labels=plain, last_s=time_s, since_s=time_s)

    def _key(self, labels: Mapping[str, str], owner: naming.Owner | None) -> _Key:
        """One series under one key, whether its labels come from the past or from a signal."""
        if self.query.kind is QueryKind.POD and owner is not None:
            return (owner.namespace, owner.pod, owner.container, *naming.device_key(labels, owner))
        return tuple(f"{name}={value}" for name, value in sorted(naming.series_labels(labels).items()))


def _newest_step(track: Track) -> int:
    known = np.flatnonzero(~np.isnan(track.values))
    return int(known[-1]) if len(known) else -1
