"""Reading a report folder back: decisions, pods, stays and machines, in the files' order.

A broken line is one problem that names file and line; the rest is read. Raises ReportError when the folder or its
decision log cannot be read. Must not know: the run in memory, clusters, what anybody asks.
"""

import csv
import dataclasses
import json
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar, cast

from autoscaler.engine.log import Record
from autoscaler.model.records import MachineRecord, Stay
from autoscaler.report import files
from autoscaler.report.run import PodRecord, ReportError

T = TypeVar("T")

_TEXT = ("id", "policy", "action", "subject", "reason")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """What a report folder holds, in the files' order."""

    decisions: tuple[Record, ...]
    pods: Mapping[str, PodRecord]
    stays: tuple[Stay, ...]
    machines: tuple[MachineRecord, ...]
    problems: tuple[str, ...]

    def names(self) -> set[str]:
        """Everything one can ask about."""
        found = {decision.subject for decision in self.decisions} | {decision.id for decision in self.decisions}
        found |= set(self.pods) | {stay.pod for stay in self.stays}
        return found | {name for machine in self.machines for name in (machine.claim, machine.machine_id)}

    @property
    def origin_s(self) -> float:
        """Where day 1 begins: the earliest time in the files."""
        times = [decision.time_s for decision in self.decisions]
        times += [pod.arrival_s for pod in self.pods.values()]
        times += [machine.ordered_s for machine in self.machines]
        return min(times, default=0.0)


def read(folder: Path) -> History:
    """Read a report folder."""
    if not folder.is_dir():
        raise ReportError(f"from={str(folder)!r}: no such folder; name one that a run wrote its report into")
    problems: list[str] = []
    decisions = tuple(_decisions(folder / files.DECISIONS, problems))
    pods = {pod.name: pod for pod in _rows(folder / files.PODS, _pod, problems)}

    def stay(row: Mapping[str, str]) -> Stay:
        return _stay(row, pods)

    return History(
        decisions=decisions,
        pods=pods,
        stays=tuple(_rows(folder / files.PLACEMENTS, stay, problems)),
        machines=tuple(_rows(folder / files.MACHINES, _machine, problems)),
        problems=tuple(problems),
    )


def _decisions(path: Path, problems: list[str]) -> Iterator[Record]:
    try:
        content = path.read_bytes()
    except OSError as error:
        reason = error.strerror or str(error)
        raise ReportError(f"{path}: {reason}; name a folder that a run wrote its report into") from error
    for number, line in enumerate(content.split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            yield _decision(json.loads(line))
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            problems.append(f"{path.name} line {number}: {_said(error)}; the line is left out")


def _said(error: Exception) -> str:
    return f"no {error}" if isinstance(error, KeyError) else str(error)


def _decision(data: Any) -> Record:
    if not isinstance(data, dict):
        raise TypeError("not a mapping")
    entry = cast("dict[str, Any]", data)
    for key in _TEXT:
        if not isinstance(entry[key], str):
            raise TypeError(f"{key}={entry[key]!r} is no text")
    steps: list[tuple[str, Any]] = [(str(step["name"]), step["value"]) for step in entry["steps"]]
    return Record(
        id=entry["id"],
        time_s=_finite(entry["time_s"]),
        policy=entry["policy"],
        action=entry["action"],
        subject=entry["subject"],
        reason=entry["reason"],
        evidence=dict(entry["evidence"]),
        steps=tuple(steps),
    )


def _finite(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise TypeError(f"time_s={value!r} is no time")
    return value


def _rows(path: Path, make: Callable[[Mapping[str, str]], T], problems: list[str]) -> Iterator[T]:
    """Rows of a CSV that may be missing."""
    if not path.is_file():
        return
    try:
        lines = list(csv.reader(path.read_text(encoding="utf-8", errors="replace").splitlines()))
    except (OSError, csv.Error) as error:
        problems.append(f"{path.name}: {error}; the file is left out")
        return
    header = lines[0] if lines else []
    for number, values in enumerate(lines[1:], start=2):
        try:
            yield make(dict(zip(header, values, strict=True)))
        except (ValueError, KeyError) as error:
            problems.append(f"{path.name} line {number}: {_said(error)}; the line is left out")


def _time(text: str) -> float | None:
    return _second(text) if text else None


def _second(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is no time")
    return value


def _pod(row: Mapping[str, str]) -> PodRecord:
    return PodRecord(
        name=row["pod"],
        namespace=row["namespace"],
        gpu_milli=int(row["gpu_milli"]),
        arrival_s=_second(row["arrival_s"]),
        start_s=_time(row["start_s"]),
        end_s=_time(row["end_s"]),
        lost=row["lost"] == "true",
    )


def _stay(row: Mapping[str, str], pods: Mapping[str, PodRecord]) -> Stay:
    known = pods.get(row["pod"])
    return Stay(
        pod=row["pod"],
        namespace=known.namespace if known else "",
        claim=row["claim"],
        devices=tuple(int(device) for device in row["devices"].split(";")) if row["devices"] else (),
        milli=int(row["milli"]),
        start_s=_second(row["start_s"]),
        end_s=_time(row["end_s"]),
    )


def _machine(row: Mapping[str, str]) -> MachineRecord:
    return MachineRecord(
        claim=row["claim"],
        machine_id=row["machine_id"],
        instance_type=row["instance_type"],
        capacity_type=row["capacity_type"],
        gpus=int(row["gpus"]),
        ordered_s=_second(row["ordered_s"]),
        ready_s=_time(row["ready_s"]),
        terminated_s=_time(row["terminated_s"]),
    )
