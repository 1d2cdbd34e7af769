"""An independent check of a report: worked out again from ``machines.csv`` and ``placements.csv`` alone.

Shares no arithmetic with ``figures``: it must find what that gets wrong. Returns contradictions in plain sentences.
Never raises for what a file contains; a file that cannot be read is one contradiction.

Must not know: the run in memory, the engine.
"""

import csv
import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, cast

from vgpu.inventory import Shape

WHOLE = 1000
DAY_S = 86_400
MOVES_PER_DAY = 50
TOLERANCE = 1e-4
"""Allowed difference of figures: the files hold six digits after the point."""

MACHINES_HEADER = [
    "claim",
    "machine_id",
    "instance_type",
    "capacity_type",
    "gpus",
    "ordered_s",
    "ready_s",
    "terminated_s",
]
PLACEMENTS_HEADER = ["pod", "claim", "devices", "milli", "start_s", "end_s"]


class LoadPod(Protocol):
    """What the check needs to know of a pod of the load."""

    @property
    def name(self) -> str: ...
    @property
    def shape(self) -> Shape: ...
    @property
    def arrival_s(self) -> float: ...
    @property
    def run_s(self) -> float: ...


class Load(Protocol):
    """The load that was replayed."""

    @property
    def pods(self) -> Sequence[LoadPod]: ...
    @property
    def t0(self) -> float: ...
    @property
    def t1(self) -> float: ...
    @property
    def demand_gpu_hours(self) -> float: ...


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Machine:
    claim: str
    gpus: int
    ordered_s: float
    ready_s: float | None
    terminated_s: float | None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Stay:
    line: int
    pod: str
    claim: str
    devices: tuple[int, ...]
    milli: int
    start_s: float
    end_s: float | None


def verify(
    folder: Path, window: Load, *, moves_per_day: int = MOVES_PER_DAY, run_tolerance_s: float = 1.0
) -> list[str]:
    """Everything in ``folder`` that contradicts itself, ``window`` or the promises; empty when all adds up.

    Checked: device capacity at every instant, stays inside their machine's life, no gap in a pod's stays, waits, run
    times (to ``run_tolerance_s``), the counts and figures of ``report.json``, and at most ``moves_per_day`` moves in
    any 24 hours.
    """
    found: list[str] = []
    machines = _read_machines(folder / "machines.csv", window, found)
    stays = _read_stays(folder / "placements.csv", found)
    for stay in stays:
        _check_stay(stay, machines, window, found)
    _check_capacity([stay for stay in stays if stay.claim in machines], window, found)
    by_pod: dict[str, list[_Stay]] = {}
    for stay in stays:
        by_pod.setdefault(stay.pod, []).append(stay)
    for chain in by_pod.values():
        chain.sort(key=lambda stay: stay.start_s)
    _check_pods(by_pod, window, run_tolerance_s, found)
    moves = sorted(stay.start_s for chain in by_pod.values() for stay in chain[1:])
    busiest = max((sum(1 for other in moves[i:] if other < at + DAY_S) for i, at in enumerate(moves)), default=0)
    if busiest > moves_per_day:
        found.append(f"{busiest} moves in 24 hours; at most {moves_per_day} are allowed")
    _check_report(folder / "report.json", machines, by_pod, window, moves=(len(moves), busiest), found=found)
    return found


def _read_machines(path: Path, window: Load, found: list[str]) -> dict[str, list[_Machine]]:
    machines: dict[str, list[_Machine]] = {}
    ids: set[str] = set()
    for line, row in _rows(path, MACHINES_HEADER, found):
        try:
            machine = _Machine(
                claim=row["claim"],
                gpus=int(row["gpus"]),
                ordered_s=_seconds(row["ordered_s"]),
                ready_s=_time(row["ready_s"]),
                terminated_s=_time(row["terminated_s"]),
            )
        except ValueError as error:
            found.append(f"machines.csv line {line}: {error}")
            continue
        earlier = machines.setdefault(machine.claim, [])
        if any(other.terminated_s is None or other.terminated_s > machine.ordered_s for other in earlier):
            found.append(f"machines.csv line {line}: claim {machine.claim} has two machines at once")
        if row["machine_id"] in ids:
            found.append(f"machines.csv line {line}: machine {row['machine_id']} is there twice")
        ids.add(row["machine_id"])
        last = machine.ordered_s
        for name, moment in (("ready_s", machine.ready_s), ("terminated_s", machine.terminated_s)):
            if moment is not None and moment < last:
                found.append(f"machine {machine.claim}: {name} {moment:g} lies before what must come first ({last:g})")
            last = last if moment is None else moment
        if not window.t0 <= machine.ordered_s <= window.t1:
            found.append(f"machine {machine.claim}: ordered at {machine.ordered_s:g}, outside the window")
        earlier.append(machine)
    return machines


def _read_stays(path: Path, found: list[str]) -> list[_Stay]:
    stays: list[_Stay] = []
    for line, row in _rows(path, PLACEMENTS_HEADER, found):
        try:
            stay = _Stay(
                line=line,
                pod=row["pod"],
                claim=row["claim"],
                devices=tuple(int(device) for device in row["devices"].split(";")) if row["devices"] else (),
                milli=int(row["milli"]),
                start_s=_seconds(row["start_s"]),
                end_s=_time(row["end_s"]),
            )
        except ValueError as error:
            found.append(f"placements.csv line {line}: {error}")
            continue
        stays.append(stay)
    return stays


def _rows(path: Path, header: list[str], found: list[str]) -> list[tuple[int, dict[str, str]]]:
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            lines = list(csv.reader(stream))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        found.append(f"{path.name}: {error}")
        return []
    if not lines or lines[0] != header:
        found.append(f"{path.name}: the header is {','.join(lines[0]) if lines else 'missing'}, not {','.join(header)}")
        return []
    rows: list[tuple[int, dict[str, str]]] = []
    for line, values in enumerate(lines[1:], start=2):
        if len(values) == len(header):
            rows.append((line, dict(zip(header, values, strict=True))))
        else:
            found.append(f"{path.name} line {line}: {len(values)} values for {len(header)} columns")
    return rows


def _seconds(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is no time")
    return value


def _time(text: str) -> float | None:
    return _seconds(text) if text else None


def _check_stay(stay: _Stay, machines: Mapping[str, Sequence[_Machine]], window: Load, found: list[str]) -> None:
    where = f"placements.csv line {stay.line}: pod {stay.pod} on {stay.claim}"
    if stay.end_s is not None and stay.end_s < stay.start_s:
        found.append(f"{where}: ends at {stay.end_s:g}, before it starts at {stay.start_s:g}")
    if not window.t0 <= stay.start_s <= window.t1:
        found.append(f"{where}: starts at {stay.start_s:g}, outside the window")
    lives = machines.get(stay.claim, ())
    # A claim whose machine was lost may have got another: the newest that was ordered before the stay.
    machine = next((life for life in reversed(lives) if life.ordered_s <= stay.start_s), lives[0] if lives else None)
    if machine is None:
        found.append(f"{where}: machines.csv has no such claim")
        return
    if len(set(stay.devices)) != len(stay.devices) or any(not 0 <= index < machine.gpus for index in stay.devices):
        found.append(f"{where}: devices {list(stay.devices)} of a machine with {machine.gpus}")
    if machine.ready_s is None or stay.start_s < machine.ready_s:
        found.append(f"{where}: starts at {stay.start_s:g}, before the machine is ready ({machine.ready_s})")
    gone_s = machine.terminated_s
    # The window's end hides what comes after it: a machine terminated later has no say about an open stay.
    if gone_s is not None and (gone_s < window.t1 if stay.end_s is None else gone_s < stay.end_s):
        found.append(f"{where}: still there when the machine is terminated at {gone_s:g}")


def _check_capacity(stays: Sequence[_Stay], window: Load, found: list[str]) -> None:
    """Sweep each device: at one instant ends come before starts, a stay holds [start, end)."""
    changes: dict[tuple[str, int], list[tuple[float, int]]] = {}
    for stay in stays:
        end_s = window.t1 if stay.end_s is None else stay.end_s
        if end_s > stay.start_s:
            for device in stay.devices:
                events = changes.setdefault((stay.claim, device), [])
                events.extend(((stay.start_s, stay.milli), (end_s, -stay.milli)))
    for (claim, device), events in sorted(changes.items()):
        held = 0
        for moment, change in sorted(events):
            held += change
            if held > WHOLE:
                found.append(f"machine {claim}, device {device}: {held} milli held at {moment:g}, more than {WHOLE}")
                break


def _check_pods(by_pod: Mapping[str, Sequence[_Stay]], window: Load, run_tolerance_s: float, found: list[str]) -> None:
    load = {pod.name: pod for pod in window.pods}
    for name, chain in by_pod.items():
        held_until = chain[0].end_s
        for stay in chain[1:]:
            if held_until is not None and stay.start_s > held_until:
                found.append(f"pod {name}: nowhere from {held_until:g} to {stay.start_s:g}")
            held_until = None if held_until is None or stay.end_s is None else max(held_until, stay.end_s)
        pod = load.get(name)
        if pod is None:
            found.append(f"pod {name}: not in the load")
            continue
        if chain[0].start_s < pod.arrival_s:
            found.append(f"pod {name}: starts at {chain[0].start_s:g}, before it arrives at {pod.arrival_s:g}")
        asked = (pod.shape.gpus, pod.shape.milli)
        found.extend(
            f"placements.csv line {stay.line}: pod {name} holds {len(stay.devices)} devices of {stay.milli} milli, "
            f"asked for {asked[0]} of {asked[1]}"
            for stay in chain
            if len(stay.devices) != asked[0] or (stay.devices and stay.milli != asked[1])
        )
        due_s = chain[0].start_s + pod.run_s
        if held_until is not None and abs(held_until - due_s) > run_tolerance_s:
            found.append(f"pod {name}: ran for {held_until - chain[0].start_s:g} s, the load says {pod.run_s:g} s")
        if held_until is None and due_s < window.t1 - run_tolerance_s:
            found.append(f"pod {name}: should have finished at {due_s:g}, still there at the end")


def _check_report(
    path: Path,
    machines: Mapping[str, Sequence[_Machine]],
    by_pod: Mapping[str, Sequence[_Stay]],
    window: Load,
    *,
    moves: tuple[int, int],
    found: list[str],
) -> None:
    try:
        loaded: object = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        found.append(f"{path.name}: {error}")
        return
    if not isinstance(loaded, dict):
        found.append(f"{path.name}: holds no mapping of figures")
        return
    report = cast("dict[str, Any]", loaded)
    owned = [machine for history in machines.values() for machine in history]
    lives = [
        (machine, window.t1 if machine.terminated_s is None else min(machine.terminated_s, window.t1))
        for machine in owned
    ]
    terminated = sum(machine.terminated_s is not None and machine.terminated_s <= window.t1 for machine in owned)
    waits = sorted(
        (by_pod[pod.name][0].start_s if pod.name in by_pod else window.t1) - pod.arrival_s for pod in window.pods
    )
    ends = [max((window.t1 + 1 if stay.end_s is None else stay.end_s) for stay in chain) for chain in by_pod.values()]
    finished = sum(end <= window.t1 for end in ends)
    expected: dict[str, float] = {
        "demanded_gpu_hours": window.demand_gpu_hours,
        "billed_gpu_hours": sum(machine.gpus * (end - machine.ordered_s) for machine, end in lives) / 3600,
        "pods.arrived": len(window.pods),
        "machines.launched": len(owned),
        "machines.terminated": terminated,
        "machines.running": len(owned) - terminated,
        "moves.total": moves[0],
        "moves.max_24h": moves[1],
    }
    if waits:
        # Nearest rank without floats: the smallest value with at least 99 of 100 at or below it.
        expected["wait_s.p99"] = waits[-(-99 * len(waits) // 100) - 1]
        expected["wait_s.mean"] = sum(waits) / len(waits)
    for key, value in expected.items():
        given = _lookup(report, key)
        if not _equal(given, value):
            found.append(f"report.json: {key} is {given}, the files say {round(value, 6):g}")
    ended, stopped = _lookup(report, "pods.finished"), _lookup(report, "pods.lost")
    if not isinstance(ended, int) or not isinstance(stopped, int) or ended + stopped != finished:
        found.append(f"report.json: pods.finished {ended} and lost {stopped}, the files show {finished} that ended")
    running = _lookup(report, "pods.running")
    if running != len(ends) - finished:
        found.append(f"report.json: pods.running is {running}, the files say {len(ends) - finished}")
    names: list[str] = list(report.get("by_namespace") or ())
    for part, whole in (("cost_usd", "cost_usd"), ("gpu_hours", "billed_gpu_hours")):
        shares = [_lookup(report["by_namespace"], f"{name}.{part}") for name in names]
        total = sum(share for share in shares if isinstance(share, int | float))
        if not _equal(report.get(whole), total):
            found.append(f"report.json: by_namespace sums to {part} {total:.6f}, the whole is {report.get(whole)}")


def _lookup(report: Mapping[str, Any], key: str) -> object:
    value: object = report
    for part in key.split("."):
        value = cast("Mapping[str, object]", value).get(part) if isinstance(value, Mapping) else None
    return value


def _equal(given: object, value: float) -> bool:
    return isinstance(given, int | float) and abs(given - value) <= TOLERANCE + 1e-9 * abs(value)
