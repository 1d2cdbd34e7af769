"""Idle GPU-hours per namespace and workload, from history alone.

A device that a pod holds is idle in a step when its utilisation is at or below a threshold. A device-hour is counted
once, however many series carry it: pods that share a device share its hours equally. Time for which nothing is known is
unknown, not idle. Pure: grids in, a report out; knows no source, no clock and no price list.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal

import numpy as np

from autoscaler.metrics import labels as naming
from autoscaler.metrics.rows import Floats, Grid, Track
from autoscaler.metrics.workloads import workload_of
from vgpu.errors import InvalidRequest

IDLE_BELOW_PERCENT = 1.0
"""Default threshold. Exporters round to whole percent, so 1 also covers what a health check or a monitor causes; real
work on a GPU, even one slow token stream, shows tens of percent."""

NOT_ALLOCATED = "(not allocated)"
"""Workload under which devices are reported that no pod holds."""

_HOUR_S = 3600.0

_Holder = tuple[str, str]
"""Namespace and pod."""
_NOBODY: _Holder = ("", "")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """What one workload held and did not use. Hours are device-hours; gpu_hours = busy + idle + unknown."""

    namespace: str
    workload: str
    allocated: bool
    pods: int
    models: tuple[str, ...]
    gpu_hours: float
    idle_gpu_hours: float
    unknown_gpu_hours: float
    idle_usd: Decimal | None
    """None when a model has no known price: unknown, not free."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """All lines, the most idle hours first, and their sums."""

    lines: tuple[Line, ...]
    devices: int
    gpu_hours: float
    idle_gpu_hours: float
    unknown_gpu_hours: float
    idle_usd: Decimal | None
    """None when any idle hour has no known price."""
    priced_idle_usd: Decimal
    """Dollars of the idle hours whose price is known."""
    unpriced_models: tuple[str, ...]
    """Models without a price, as the exporter names them; an empty name is a device without a model label."""


@dataclasses.dataclass(slots=True)
class _Hours:
    """Steps, weighted by the holder's share of the device."""

    held: float = 0.0
    idle: float = 0.0
    unknown: float = 0.0


@dataclasses.dataclass(slots=True)
class _Device:
    """What is carried from one grid to the next about one device."""

    known_step: int = -1
    """Last step, counted over all grids, at which anything was known; -1 before the first."""
    holders: tuple[_Holder, ...] = ()
    """Who held it then."""
    model: str = ""


def measure(
    grids: Iterable[Grid],
    *,
    idle_below_percent: float = IDLE_BELOW_PERCENT,
    price: Callable[[str], Decimal | None],
) -> Report:
    """The waste in consecutive parts of one utilisation history.

    ``price`` tells dollars per GPU-hour of a model as the exporter names it, None where nobody knows. Raises
    InvalidRequest for a threshold outside 0 to 100. A device counts from its first known step to its last: before and
    after nobody knows whether it existed. A gap between is unknown time of whoever held it before the gap.
    """
    if not 0 <= idle_below_percent <= 100:
        raise InvalidRequest(f"idle-below={idle_below_percent}: give a percentage from 0 to 100")
    devices: dict[naming.Key, _Device] = {}
    hours: dict[tuple[_Holder, str], _Hours] = {}
    step_s, done = 0.0, 0
    for grid in grids:
        step_s = grid.step_s
        for key, tracks in _by_device(grid).items():
            device = devices.setdefault(key, _Device())
            _count(device, tracks, done, idle_below_percent, hours)
        done += grid.points
    return _report(hours, len(devices), step_s / _HOUR_S, price)


_Held = tuple[_Holder, Track]


def _by_device(grid: Grid) -> dict[naming.Key, list[_Held]]:
    """The tracks of each device with their holders; of several metrics only the first that knows the device."""
    # Judged per metric: who renames labels is a property of the scrape, which all its metrics share.
    owners = naming.Owners(track.labels for track in grid.tracks)
    grouped: dict[naming.Key, list[_Held]] = {}
    for track in grid.tracks:
        owner = owners.of(track.labels)
        holder = (owner.namespace, owner.pod) if owner else _NOBODY
        grouped.setdefault(naming.device_key(track.labels, owner), []).append((holder, track))
    best: dict[naming.Key, list[_Held]] = {}
    for key, held in grouped.items():
        # A metric with only impossible values (a field the device lacks) leaves the device to the next one.
        usable = [track.rank for _, track in held if np.isfinite(track.values).any()]
        rank = min(usable, default=min(track.rank for _, track in held))
        best[key] = [(holder, track) for holder, track in held if track.rank == rank]
    return best


def _count(
    device: _Device,
    held: Sequence[_Held],
    done: int,
    idle_below_percent: float,
    hours: dict[tuple[_Holder, str], _Hours],
) -> None:
    """Add the steps of one device in one grid to its holders' hours."""
    model = next((model for _, track in held if (model := track.labels.get("modelName", ""))), device.model)
    device.model = model
    merged: dict[_Holder, Floats] = {}
    for holder, track in held:
        # Of a pod's several containers and of a device scraped twice the busiest row counts; fmax passes over MISSING.
        merged[holder] = np.fmax(merged[holder], track.values) if holder in merged else track.values
    bare = merged.pop(_NOBODY, None)
    present = {holder: ~np.isnan(values) for holder, values in merged.items()}
    some = next(iter(held))[1].values
    sharing = np.sum([*present.values()], axis=0) if present else np.zeros(len(some))
    weights = 1.0 / np.maximum(sharing, 1)
    for holder, values in merged.items():
        share = np.where(present[holder], weights, 0.0)
        _add(hours.setdefault((holder, model), _Hours()), values, share, idle_below_percent)
    known = sharing > 0
    if bare is not None:
        alone = ~np.isnan(bare) & ~known
        known = known | alone
        if alone.any():
            _add(hours.setdefault((_NOBODY, model), _Hours()), bare, alone.astype(np.float64), idle_below_percent)
    steps = np.flatnonzero(known)
    if not len(steps):
        return
    _add_gaps(device, steps, done, present, hours)
    last = int(steps[-1])
    device.known_step = done + last
    device.holders = _holders_at(present, last)


def _add(hours: _Hours, values: Floats, share: Floats, idle_below_percent: float) -> None:
    hours.held += float(share.sum())
    hours.unknown += float(share[np.isinf(values)].sum())
    # MISSING compares false.
    hours.idle += float(share[values <= idle_below_percent].sum())


def _holders_at(
    present: Mapping[_Holder, "np.ndarray[tuple[int], np.dtype[np.bool_]]"], step: int
) -> tuple[_Holder, ...]:
    return tuple(holder for holder, there in present.items() if there[step]) or (_NOBODY,)


def _add_gaps(
    device: _Device,
    steps: "np.ndarray[tuple[int], np.dtype[np.intp]]",
    done: int,
    present: Mapping[_Holder, "np.ndarray[tuple[int], np.dtype[np.bool_]]"],
    hours: dict[tuple[_Holder, str], _Hours],
) -> None:
    gaps: list[tuple[int, tuple[_Holder, ...]]] = []
    if device.known_step >= 0:
        gaps.append((done + int(steps[0]) - device.known_step - 1, device.holders))
    between = np.diff(steps) - 1
    gaps += [(int(between[place]), _holders_at(present, int(steps[place]))) for place in np.flatnonzero(between)]
    for length, holders in gaps:
        for holder in holders if length > 0 else ():
            counted = hours.setdefault((holder, device.model), _Hours())
            counted.held += length / len(holders)
            counted.unknown += length / len(holders)


def _report(
    hours: Mapping[tuple[_Holder, str], _Hours], devices: int, step_h: float, price: Callable[[str], Decimal | None]
) -> Report:
    hours = {key: counted for key, counted in hours.items() if counted.held > 0}
    prices = {model: price(model) for _, model in hours}
    groups: dict[tuple[str, str], dict[_Holder, dict[str, _Hours]]] = {}
    for (holder, model), counted in hours.items():
        workload = NOT_ALLOCATED if holder == _NOBODY else workload_of(holder[1])
        groups.setdefault((holder[0], workload), {}).setdefault(holder, {})[model] = counted
    lines: list[Line] = []
    for (namespace, workload), pods in groups.items():
        each = [(model, counted) for models in pods.values() for model, counted in models.items()]
        dollars = [_dollars(counted.idle * step_h, prices[model]) for model, counted in each]
        lines.append(
            Line(
                namespace=namespace,
                workload=workload,
                allocated=_NOBODY not in pods,
                pods=len(pods) if _NOBODY not in pods else 0,
                models=tuple(sorted({model for model, _ in each if model})),
                gpu_hours=sum(counted.held for _, counted in each) * step_h,
                idle_gpu_hours=sum(counted.idle for _, counted in each) * step_h,
                unknown_gpu_hours=sum(counted.unknown for _, counted in each) * step_h,
                idle_usd=_sum(dollars),
            )
        )
    lines.sort(key=lambda line: (-line.idle_gpu_hours, line.namespace, line.workload))
    everything = [_dollars(counted.idle * step_h, prices[model]) for (_, model), counted in hours.items()]
    unpriced = {model for (_, model), counted in hours.items() if counted.idle > 0 and prices[model] is None}
    return Report(
        lines=tuple(lines),
        devices=devices,
        gpu_hours=sum(line.gpu_hours for line in lines),
        idle_gpu_hours=sum(line.idle_gpu_hours for line in lines),
        unknown_gpu_hours=sum(line.unknown_gpu_hours for line in lines),
        idle_usd=_sum(everything),
        priced_idle_usd=sum((dollars for dollars in everything if dollars is not None), Decimal(0)),
        unpriced_models=tuple(sorted(unpriced)),
    )


def _dollars(idle_h: float, price: Decimal | None) -> Decimal | None:
    """Nothing idle costs nothing whatever the price; idle hours at an unknown price cost an unknown sum."""
    if idle_h == 0:
        return Decimal(0)
    return None if price is None else Decimal(repr(idle_h)) * price


def _sum(dollars: Iterable[Decimal | None]) -> Decimal | None:
    total = Decimal(0)
    for part in dollars:
        if part is None:
            return None
        total += part
    return total
