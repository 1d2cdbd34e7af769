"""The metric port on a Prometheus-compatible HTTP API (Prometheus, Thanos, Mimir, VictoriaMetrics).

Asks PromQL and sorts the answers; must not judge values, that is ``judge``'s. Fails into Unreachable signals: whatever
a server answers, or does not answer, ``signals`` does not raise for it. ``history`` raises MetricsUnreachable.

Not thread-safe.
"""

import datetime as dt
import math
import types
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Self

import numpy as np

from autoscaler.metrics import grid, promql
from autoscaler.metrics.judge import judge
from autoscaler.metrics.queries import LOOK_BACK_S, QUERIES, Metric, Query, find
from autoscaler.metrics.rows import Answer, Floats, Grid, MetricsUnreachable, Row, Track, Unanswered
from autoscaler.metrics.wire import Matrix, NoAnswer, Vector, Wire, finite, number, shown_url
from policies.signals import Signal

CHUNK_VALUES = 2_000_000
"""Values that one range request should bring at most: about 50 MB of JSON."""

FEWEST_POINTS, MOST_POINTS = 60, 1440
"""Bounds of the points per series in one range request; servers refuse more than 11,000."""

MOST_CHARACTERS = 5000
"""Longest list of label values in a question: proxies commonly refuse addresses of 8 KiB."""

MOST_RAW_SERIES = 5000
"""Series whose samples are read at once to learn when they ended: an hour of them is about 15 MB of JSON."""

SEEN_S = 290.0
"""What an instant query does not see although it is younger than this (seconds) has ended: servers look back five
minutes unless told otherwise. Under a shorter look-back old values look ended, which is no more than Stale."""

_Key = frozenset[tuple[str, str]]


class PrometheusSource:
    """Named questions to one Prometheus-compatible server; implements ``autoscaler.model.ports.MetricSource``."""

    def __init__(
        self,
        url: str,
        *,
        queries: Mapping[str, Query] = QUERIES,
        timeout_s: float = 15.0,
        tries: int = 3,
        longest_wait_s: float = 2.0,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """``url``: base of the server, with its path prefix and, if need be, credentials. ``timeout_s``: longest
        silence of the server per try. ``tries``: how often a failed read is asked in all; ``longest_wait_s``: between
        two tries (jittered, doubling from 0.2 s). Raises InvalidRequest for a url that names no http server.
        """
        self._wire = Wire(
            url, timeout_s=timeout_s, tries=tries, longest_wait_s=longest_wait_s, headers=dict(headers or {})
        )
        self._queries = queries

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: types.TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give the connections back; the next question opens new ones."""
        self._wire.close()

    # The port ---------------------------------------------------------------------------------------------------

    def signals(self, names: Sequence[str], *, at: float | None = None) -> Sequence[Signal]:
        """See the port. Ages are measured on the server's clock. Raises UnknownQuery for a name that nobody defined."""
        wanted = [find(self._queries, name) for name in names]
        gone: Unanswered | None = None
        now = at if at is not None else 0.0
        if at is None:
            # The server's own time: a clock that differs from ours must not make values older or younger.
            try:
                now = self._server_time()
            except NoAnswer as error:
                gone = Unanswered(detail=error.detail)
        found: list[Signal] = []
        seen: dict[tuple[Metric, float | None], Answer] = {}
        for query in wanted:
            answers: dict[str, Answer] = {}
            for metric in query.metrics:
                key = (metric, query.rate_window_s)
                if gone is None and key not in seen:
                    try:
                        seen[key] = self._newest(query, metric, now)
                    except NoAnswer as error:
                        seen[key] = Unanswered(detail=error.detail)
                        if error.whole_server:
                            gone = Unanswered(detail=error.detail)
                answers[metric.name] = seen[key] if key in seen else gone or Unanswered(detail="not asked")
            found.extend(judge(query, answers, now))
        return found

    def history(
        self, name: str, *, start_s: float, end_s: float, step_s: float, past: Callable[[int], None] | None = None
    ) -> Iterator[Grid]:
        """The query's series on a grid of whole multiples of ``step_s`` in [start_s, end_s], in parts, oldest first.

        A step holds the newest sample no older than the query's maximum age; a step longer than that age holds the
        largest sample inside it. ``past`` hears the number of steps done. Raises UnknownQuery, InvalidRequest for a
        span or step that makes no grid, MetricsUnreachable when the server fails. A part never exceeds the server's
        11,000 points per series, and shrinks as the number of series grows.
        """
        query = find(self._queries, name)
        span = grid.span(query, start_s=start_s, end_s=end_s, step_s=step_s)
        first, series = 0, self._series_at(query, span.end_s) if span.points else 0
        while first < span.points:
            points = min(MOST_POINTS, max(FEWEST_POINTS, CHUNK_VALUES // max(1, series)))
            part = span.part(first, points)
            tracks: list[Track] = []
            for rank, metric in enumerate(query.metrics):
                try:
                    tracks.extend(self._tracks(query, metric, rank, part))
                except NoAnswer as error:
                    raise MetricsUnreachable(
                        f"{shown_url(self._wire.url)}: {metric.name} over time: {error.detail}"
                    ) from None
            yield Grid(start_s=part.start_s, step_s=part.step_s, points=part.points, tracks=tuple(tracks))
            first += part.points
            if past is not None:
                past(first)
            series = max(series, len(tracks))

    def _series_at(self, query: Query, at: float) -> int:
        """How many series answer at that time; the past has about as many."""
        try:
            counts = [self._instant(promql.count(metric), at) for metric in query.metrics]
            return sum(int(finite(item.value[1])) for count in counts for item in count)
        except NoAnswer as error:
            raise MetricsUnreachable(f"{shown_url(self._wire.url)}: {query.name} over time: {error.detail}") from None

    def server_time(self) -> float:
        """The server's clock, Unix seconds. Raises MetricsUnreachable."""
        try:
            return self._server_time()
        except NoAnswer as error:
            raise MetricsUnreachable(f"{shown_url(self._wire.url)}: {error.detail}") from None

    # The wire ---------------------------------------------------------------------------------------------------

    def _server_time(self) -> float:
        result = self._instant("vector(time())", None)
        if not result:
            raise NoAnswer("the server does not tell its time", again=False, whole_server=True)
        return finite(result[0].value[1])

    def _newest(self, query: Query, metric: Metric, at: float) -> tuple[Row, ...]:
        parts: dict[str, dict[_Key, float]] = {}
        names: dict[_Key, dict[str, str]] = {}
        for item in self._instant(promql.newest(query, metric), at):
            labels = {name: value for name, value in item.metric.items() if name not in {"__name__", promql.PART}}
            key = frozenset(labels.items())
            names[key] = labels
            part = item.metric.get(promql.PART, "")
            read = finite if part == promql.TIME else number
            parts.setdefault(part, {})[key] = read(item.value[1])
        values, times = parts.get(promql.VALUE, {}), parts.get(promql.TIME, {})
        rows = [Row(labels=names[key], value=values.get(key), time_s=time_s) for key, time_s in times.items()]
        last_values = parts.get(promql.LAST_VALUE, {})
        last_times = self._last_times(metric, at, last_values.keys(), names) if last_values else {}
        for key, last_value in last_values.items():
            value = last_value if query.rate_window_s is None else None
            # A series without a time is as old as it can be: it is there within the look-back.
            time_s = last_times.get(key, at - LOOK_BACK_S)
            rows.append(Row(labels=names[key], value=value, time_s=time_s, ended=at - time_s < SEEN_S))
        return tuple(rows)

    def _last_times(
        self, metric: Metric, at: float, ended: Collection[_Key], names: Mapping[_Key, Mapping[str, str]]
    ) -> dict[_Key, float]:
        """When each of the ``ended`` series was last scraped: from their samples where few series need be read for it,
        else by a search in steps.
        """
        label = _narrowing([names[key] for key in ended], names.values())
        if label is None:
            found = self._instant(promql.search(metric), at)
            return {_key(item.metric): finite(item.value[1]) for item in found}
        text = promql.raw(metric, label, {names[key][label] for key in ended})
        samples = self._wire.ask(lambda client, params: client.custom_query(text, params), Matrix, at)
        return {_key(item.metric): finite(item.values[-1][0]) for item in samples if item.values}

    def _tracks(self, query: Query, metric: Metric, rank: int, part: grid.Span) -> list[Track]:
        text = promql.on_grid(query, metric, part.step_s)
        start = dt.datetime.fromtimestamp(part.start_s, tz=dt.UTC)
        end = dt.datetime.fromtimestamp(part.end_s, tz=dt.UTC)
        step = f"{part.step_s:.0f}"
        answer = self._wire.ask(
            lambda client, params: client.custom_query_range(text, start, end, step, params), Matrix, None
        )
        tracks: list[Track] = []
        for item in answer:
            raw = np.full(part.points, np.nan)
            broken = np.zeros(part.points, dtype=np.bool_)
            for time_s, value in item.values:
                index = round((finite(time_s) - part.start_s) / part.step_s)
                if not 0 <= index < part.points:
                    raise NoAnswer(f"a sample at {time_s}, outside the span asked for", again=False, whole_server=False)
                raw[index] = number(value)
                broken[index] = math.isnan(raw[index])
            labels = {name: value for name, value in item.metric.items() if name != "__name__"}
            values: Floats = grid.judged(query, metric, raw, broken)
            tracks.append(Track(rank=rank, labels=labels, values=values))
        return tracks

    def _instant(self, text: str, at: float | None) -> list[Vector]:
        return self._wire.ask(lambda client, params: client.custom_query(text, params), Vector, at)


def _key(labels: Mapping[str, str]) -> _Key:
    return frozenset((name, value) for name, value in labels.items() if name != "__name__")


def _narrowing(wanted: Sequence[Mapping[str, str]], known: Collection[Mapping[str, str]]) -> str | None:
    """The label by whose values the fewest series beside the wanted ones are read; None where none keeps question and
    answer small.
    """
    best: tuple[int, str] | None = None
    shared = [label for label in sorted(wanted[0]) if all(label in labels for labels in wanted)]
    for label in shared:
        values = {labels[label] for labels in wanted}
        if sum(len(value) + 2 for value in values) > MOST_CHARACTERS:
            continue
        read = sum(1 for labels in known if labels.get(label) in values)
        if read <= MOST_RAW_SERIES and (best is None or read < best[0]):
            best = (read, label)
    return best[1] if best else None
