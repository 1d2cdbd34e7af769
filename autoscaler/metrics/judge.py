"""From the newest samples to signals: deduplicated, scaled, and judged for age and sanity.

Both adapters end here, so that the same samples give the same answers whoever stored them. Pure: the time of asking is
a parameter. Never raises for bad data; what is wrong stands in the signal's state and detail.
"""

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping, Sequence

from autoscaler.metrics import labels as naming
from autoscaler.metrics.queries import BLANK_MARKER, Metric, Query, QueryKind
from autoscaler.metrics.rows import Answer, Row, Unanswered
from policies.signals import Signal, SignalState

_KEY = tuple[str, ...]


def judge(query: Query, answers: Mapping[str, Answer], at: float) -> tuple[Signal, ...]:
    """The signals of ``query`` at the time ``at`` (Unix seconds), in the order of their labels.

    ``answers`` holds what the source said per metric name; a metric that is not there was not answered. Per device
    (pod, target, series) the first metric with a valid value answers, else the first that knows it. A metric without an
    answer adds an unlabelled Unreachable signal: what it might have said is unknown.
    """
    merged: dict[_KEY, Signal] = {}
    silent: list[str] = []
    for metric in query.metrics:
        answer = answers.get(metric.name, Unanswered(detail="not asked"))
        if isinstance(answer, Unanswered):
            silent.append(f"{metric.name}: {answer.detail}")
            continue
        for key, signal in _of_metric(query, metric, answer, at).items():
            known = merged.get(key)
            if known is None or (signal.valid and not known.valid):
                merged[key] = signal
    signals = sorted(merged.values(), key=lambda signal: (sorted(signal.labels.items()), signal.state, signal.age_s))
    if silent:
        signals.append(Signal(name=query.name, state=SignalState.UNREACHABLE, detail="; ".join(silent)))
    if not signals:
        asked = ", ".join(metric.name for metric in query.metrics)
        signals.append(
            Signal(name=query.name, state=SignalState.ABSENT, detail=f"no series of {asked} in the last hour")
        )
    return tuple(signals)


def _of_metric(query: Query, metric: Metric, rows: Sequence[Row], at: float) -> dict[_KEY, Signal]:
    match query.kind:
        case QueryKind.DEVICE:
            return _devices(query, metric, rows, at)
        case QueryKind.POD:
            return _pods(query, metric, rows, at)
        case QueryKind.PRESENCE:
            return _plain(query, metric, rows, at, naming.target_labels, naming.target)
        case QueryKind.ACTIVITY | QueryKind.WAKE:
            return _plain(query, metric, rows, at, naming.series_labels, _series_key)


def _series_key(labels: Mapping[str, str]) -> _KEY:
    return tuple(f"{name}={value}" for name, value in sorted(naming.series_labels(labels).items()))


def _plain(  # noqa: PLR0917 - two of them are what differs between its callers
    query: Query,
    metric: Metric,
    rows: Sequence[Row],
    at: float,
    name_it: Callable[[Mapping[str, str]], dict[str, str]],
    key_it: Callable[[Mapping[str, str]], _KEY],
) -> dict[_KEY, Signal]:
    groups: dict[_KEY, list[Row]] = {}
    for row in rows:
        groups.setdefault(key_it(row.labels), []).append(row)
    signals: dict[_KEY, Signal] = {}
    for key, group in groups.items():
        live = _live(group, query.max_age_s, at)
        signals[key] = _signal(query, metric, live, at, name_it(live[0].labels))
    return signals


def _devices(query: Query, metric: Metric, rows: Sequence[Row], at: float) -> dict[_KEY, Signal]:
    owners = naming.owners_of(rows)
    groups: dict[_KEY, list[Row]] = {}
    for row in rows:
        groups.setdefault(naming.device_key(row.labels, owners.of(row.labels)), []).append(row)
    signals: dict[_KEY, Signal] = {}
    for key, group in groups.items():
        live = _live(group, query.max_age_s, at)
        # Newer exporters write one row per pod and the device's own row without a pod: that one is the device's value.
        # Older ones copy the device's value into every pod's row: all of them must agree.
        bare = [row for row in live if owners.of(row.labels) is None]
        chosen = bare or live
        labels = naming.device_labels(chosen[0].labels)
        owner = owners.of(chosen[0].labels)
        if key[0] == "pod" and owner is not None:
            labels |= owner.labels()
        signals[key] = _signal(query, metric, chosen, at, labels or naming.series_labels(chosen[0].labels))
    return signals


def _pods(query: Query, metric: Metric, rows: Sequence[Row], at: float) -> dict[_KEY, Signal]:
    owners = naming.owners_of(rows)
    groups: dict[_KEY, list[Row]] = {}
    devices: dict[_KEY, list[Row]] = {}
    device_of: dict[_KEY, _KEY] = {}
    for row in rows:
        owner = owners.of(row.labels)
        device = naming.device_key(row.labels, owner)
        devices.setdefault(device, []).append(row)
        if owner is not None:
            key = (owner.namespace, owner.pod, owner.container, *device)
            groups.setdefault(key, []).append(row)
            device_of[key] = device
    sharing = {device: _sharing(_live(group, query.max_age_s, at), owners) for device, group in devices.items()}
    signals: dict[_KEY, Signal] = {}
    for key, group in groups.items():
        live = _live(group, query.max_age_s, at)
        owner = owners.of(live[0].labels)
        labels = naming.device_labels(live[0].labels) | (owner.labels() if owner else {})
        signal = _signal(query, metric, live, at, labels)
        tenants = sharing[device_of[key]]
        if signal.valid and tenants > 1:
            note = f"the device's value, copied to the {tenants} pods that share it: an upper bound for this one"
            signal = dataclasses.replace(signal, detail=note)
        signals[key] = signal
    return signals


def _sharing(live: Iterable[Row], owners: naming.Owners) -> int:
    """How many pods carry a copy of a device's value; 0 where the device has a row of its own."""
    pods: set[tuple[str, str]] = set()
    for row in live:
        owner = owners.of(row.labels)
        if owner is None:
            return 0
        pods.add((owner.namespace, owner.pod))
    return len(pods)


def _live(rows: Sequence[Row], max_age_s: float, at: float) -> list[Row]:
    """The rows that speak for now, newest first.

    Of one target only its newest scrape counts: what an earlier scrape said of the same thing is superseded (a device
    that went from one pod to the next). Several targets all count while they are fresh: when they disagree, nobody
    knows who is right.
    """
    newest: dict[tuple[str, str], float] = {}
    for row in rows:
        source = naming.target(row.labels)
        newest[source] = max(newest.get(source, -math.inf), row.time_s)
    current = [row for row in rows if row.time_s == newest[naming.target(row.labels)]]
    fresh = [row for row in current if at - row.time_s <= max_age_s and not row.ended]
    if not fresh:
        last = max(newest.values())
        fresh = [row for row in current if row.time_s == last]
    return sorted(fresh, key=lambda row: (-row.time_s, sorted(row.labels.items())))


def _signal(query: Query, metric: Metric, rows: Sequence[Row], at: float, labels: Mapping[str, str]) -> Signal:
    """One signal out of rows that claim to be the same thing."""
    age_s = max(0.0, at - max(row.time_s for row in rows))

    def make(state: SignalState, value: float | None, detail: str) -> Signal:
        return Signal(name=query.name, labels=labels, state=state, value=value, age_s=age_s, detail=detail)

    ended = all(row.ended for row in rows)
    stale = ended or age_s > query.max_age_s
    too_old = (
        f"{metric.name} ended {age_s:.0f} s ago: nothing reports it any more"
        if ended
        else f"last sample of {metric.name} is {age_s:.0f} s old, at most {query.max_age_s:.0f} s are trusted"
    )
    values: list[float] = []
    for row in rows:
        if row.value is None:
            if stale:
                return make(SignalState.STALE, None, too_old)
            return make(SignalState.INVALID, None, f"{metric.name}: one sample only, a rate needs two")
        fault = fault_of(query, metric, row.value)
        if fault:
            return make(SignalState.INVALID, None, fault)
        values.append(row.value * metric.scale)
    if max(values) - min(values) > query.tolerance:
        return make(SignalState.INVALID, None, _contradiction(metric, rows))
    # Duplicates within the tolerance: the larger, because an error must never look like idleness.
    value = max(values)
    return make(SignalState.STALE, value, too_old) if stale else make(SignalState.VALID, value, "")


def fault_of(query: Query, metric: Metric, raw: float) -> str:
    """Why an exported value cannot be true; empty when it can."""
    if math.isnan(raw):
        return f"{metric.name} is NaN"
    if math.isinf(raw):
        return f"{metric.name} is infinite"
    if raw >= BLANK_MARKER:
        return f"{metric.name} is the driver's blank marker: the device does not support the field"
    value = raw * metric.scale
    if not query.low <= value <= query.high:
        return f"{metric.name} = {value:g} {query.unit} is outside {query.low:g} to {query.high:g}"
    return ""


def _contradiction(metric: Metric, rows: Sequence[Row]) -> str:
    """Names two rows that disagree, by the labels in which they differ."""
    first, last = min(rows, key=_raw), max(rows, key=_raw)
    differing = sorted(
        name for name in {*first.labels, *last.labels} if first.labels.get(name, "") != last.labels.get(name, "")
    )
    told = [
        f"{row.value:g} with " + ", ".join(f"{name}={row.labels.get(name, '')!r}" for name in differing)
        for row in (first, last)
    ]
    return f"{len(rows)} series of {metric.name} claim this and contradict each other: {told[0]}; {told[1]}"


def _raw(row: Row) -> float:
    return row.value if row.value is not None else math.nan
