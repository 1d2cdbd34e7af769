"""The output folder: ``report.json``, ``report.html``, ``machines.csv``, ``placements.csv``, ``pods.csv`` and
``decisions.jsonl``.

Each file is written beside its place and renamed, so that a reader never sees half of one. The same run gives the same
bytes: keys have one order, numbers carry no float noise. In the CSVs a time that has not come is empty: a stay without
``end_s`` still ran, a machine without ``terminated_s`` was still there when the run ended. ``milli`` is per device.

Must not know: clusters, providers. Fails with one ReportError when the folder cannot be written.
"""

import csv
import io
import json
import math
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from autoscaler.engine.log import Record
from autoscaler.report import figures as figures_of
from autoscaler.report import html
from autoscaler.report.figures import Figures
from autoscaler.report.run import ReportError, Run

REPORT = "report.json"
PAGE = "report.html"
MACHINES = "machines.csv"
PLACEMENTS = "placements.csv"
PODS = "pods.csv"
DECISIONS = "decisions.jsonl"

MACHINE_COLUMNS = (
    "claim",
    "machine_id",
    "instance_type",
    "capacity_type",
    "gpus",
    "ordered_s",
    "ready_s",
    "terminated_s",
)
PLACEMENT_COLUMNS = ("pod", "claim", "devices", "milli", "start_s", "end_s")
POD_COLUMNS = ("pod", "namespace", "gpu_milli", "arrival_s", "start_s", "end_s", "lost")


def write(run: Run, folder: Path) -> Figures:
    """Write all files of ``run`` into ``folder`` (created where it is missing); returns the figures."""
    figures = figures_of.compute(run)
    contents: tuple[tuple[str, Iterable[str]], ...] = (
        (REPORT, [report_json(run, figures)]),
        (MACHINES, _csv(MACHINE_COLUMNS, _machine_rows(run))),
        (PLACEMENTS, _csv(PLACEMENT_COLUMNS, _placement_rows(run))),
        (PODS, _csv(POD_COLUMNS, _pod_rows(run))),
        (DECISIONS, (decision_line(decision) for decision in run.decisions)),
        (PAGE, [html.render(run, figures)]),
    )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, parts in contents:
            _replace(folder / name, parts)
    except OSError as error:
        reason = error.strerror or str(error)
        raise ReportError(f"out={str(folder)!r}: {reason}; name a folder that can be written") from error
    return figures


def report_json(run: Run, figures: Figures) -> str:
    """The text of ``report.json``. Raises ReportError for an extra section that would hide a figure."""
    report = figures_of.by_name(run, figures)
    for key, section in run.extra.items():
        if key in report:
            raise ReportError(f"extra[{key!r}]: the report has a figure of that name; choose another key")
        report[key] = section
    return json.dumps(_plain(report), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def decision_line(decision: Record) -> str:
    """One line of ``decisions.jsonl``: fixed key order, evidence by key."""
    entry = {
        "id": decision.id,
        "time_s": decision.time_s,
        "policy": decision.policy,
        "action": decision.action,
        "subject": decision.subject,
        "reason": decision.reason,
        "evidence": dict(sorted(decision.evidence.items())),
        "steps": [{"name": name, "value": value} for name, value in decision.steps],
    }
    return json.dumps(_plain(entry), separators=(",", ":"), ensure_ascii=False, allow_nan=False) + "\n"


def number(value: float) -> int | float | str:
    """A number without float noise: whole ones as integers, others to six digits. JSON knows no NaN and no infinity:
    they are written as text.
    """
    if isinstance(value, int):
        return value
    if not math.isfinite(value):
        return str(value)
    rounded = round(value, 6)
    return int(rounded) if rounded.is_integer() else rounded


def _plain(value: Any) -> Any:
    """``value`` with plain numbers and string keys, as JSON holds it."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return str(value)
    if isinstance(value, int | float):
        return number(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in cast("Mapping[Any, Any]", value).items()}
    if isinstance(value, Sequence):
        return [_plain(item) for item in cast("Sequence[Any]", value)]
    raise ReportError(f"value={value!r}: a report holds text, numbers, truth values, lists and mappings")


def _cell(value: float | None) -> int | float | str:
    return "" if value is None else number(value)


def _machine_rows(run: Run) -> Iterator[Sequence[object]]:
    for machine in sorted(run.machines, key=lambda machine: (machine.ordered_s, machine.claim)):
        yield (
            machine.claim,
            machine.machine_id,
            machine.instance_type,
            machine.capacity_type,
            machine.gpus,
            _cell(machine.ordered_s),
            _cell(machine.ready_s),
            _cell(machine.terminated_s),
        )


def _placement_rows(run: Run) -> Iterator[Sequence[object]]:
    for stay in sorted(run.stays, key=lambda stay: (stay.start_s, stay.pod, stay.claim)):
        devices = ";".join(map(str, stay.devices))
        yield stay.pod, stay.claim, devices, stay.milli, _cell(stay.start_s), _cell(stay.end_s)


def _pod_rows(run: Run) -> Iterator[Sequence[object]]:
    for pod in sorted(run.pods, key=lambda pod: (pod.arrival_s, pod.name)):
        times = (_cell(pod.arrival_s), _cell(pod.start_s), _cell(pod.end_s))
        yield pod.name, pod.namespace, pod.gpu_milli, *times, str(pod.lost).lower()


def _csv(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> Iterator[str]:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    yield buffer.getvalue()


def _replace(path: Path, parts: Iterable[str]) -> None:
    """Write to a temporary file in the same folder, then rename: on any failure the old file stays."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="") as stream:
            stream.writelines(parts)
        # mkstemp makes the file private; a report is as readable as any other file the user writes.
        umask = os.umask(0)
        os.umask(umask)
        Path(name).chmod(0o666 & ~umask)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
