"""The openb pod lists (Alibaba GPU cluster trace gpu-v2023): reading them row by row, and cutting a window out of them.

A file without the columns is refused as a whole (TraceError). A bad row is one Problem that names row, pod, field and
value; the rest of the file is read. The trace knows no namespaces: the ``qos`` column, in lower case, stands for one,
so that cost can be split by something that the trace really says.

Must not know: nodes, prices, the engine.
"""

import csv
import dataclasses
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from autoscaler.backtest.traces import TraceError, TracePod, Window, demand_gpu_hours
from vgpu.inventory import MAX_DEVICES, WHOLE, Shape

KNOWN_MODELS = frozenset({"G2", "G3", "T4", "P100", "V100M16", "V100M32", "A10"})
"""GPU models of the trace's node list; G2 and G3 are its own pseudonyms."""

COLUMNS = (
    "name",
    "cpu_milli",
    "memory_mib",
    "num_gpu",
    "gpu_milli",
    "gpu_spec",
    "qos",
    "creation_time",
    "deletion_time",
    "scheduled_time",
)
"""Columns that are read. Their order is free and further ones (``pod_phase``) are ignored."""

DAY_S = 86_400

MOST = 10**10
"""Largest number taken in any column: 317 years in seconds. One absurd time would move the whole window."""

_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_DIGITS = re.compile(r"[0-9]+")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Why one row was left out."""

    row: int
    """Line of the file; the header is line 1."""
    pod: str
    field: str
    value: str
    remedy: str

    def __str__(self) -> str:
        return f"row {self.row}, pod {self.pod or '(no name)'}: {self.field}={self.value!r}: {self.remedy}"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class OpenbPod:
    """One row of a pod list. Times are seconds from the start of the trace."""

    name: str
    namespace: str
    shape: Shape
    created_s: int
    scheduled_s: int | None
    """None for a pod that never started."""
    deleted_s: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class OpenbTrace:
    """The good rows in the file's order, and one problem for each bad one."""

    path: Path
    pods: tuple[OpenbPod, ...]
    problems: tuple[Problem, ...]


class _BadRowError(Exception):
    """Carries field, value and remedy from where they are known to where row and pod are."""

    def __init__(self, field: str, value: str, remedy: str) -> None:
        super().__init__(field, value, remedy)
        self.field = field
        self.value = value
        self.remedy = remedy


def read(path: Path, known_models: frozenset[str] = KNOWN_MODELS) -> OpenbTrace:
    """Read a pod list. CRLF, a byte order mark and blank lines are tolerated.

    ``known_models`` are the GPU models that ``gpu_spec`` may name. Raises TraceError when the file cannot be read or
    its header lacks a column.
    """
    try:
        text = path.read_text(encoding="utf-8-sig", errors="replace")
    except OSError as error:
        reason = error.strerror or str(error)
        raise TraceError(
            file=str(path), field="file", value=path.name, remedy=f"{reason}; name a readable file"
        ) from error
    rows = _rows(text)
    columns = _columns(path, next(rows, (1, [""])))
    pods: list[OpenbPod] = []
    problems: list[Problem] = []
    first_row: dict[str, int] = {}
    for row, values in rows:
        pod_name = values[columns["name"]].strip() if columns["name"] < len(values) else ""
        try:
            pod = _pod(columns, values, known_models)
            if pod.name in first_row:
                raise _BadRowError("name", pod.name, f"row {first_row[pod.name]} has the same name; rename one of them")
        except _BadRowError as bad:
            problems.append(Problem(row=row, pod=pod_name, field=bad.field, value=bad.value, remedy=bad.remedy))
            continue
        first_row[pod.name] = row
        pods.append(pod)
    return OpenbTrace(path=path, pods=tuple(pods), problems=tuple(problems))


def _rows(text: str) -> Iterator[tuple[int, list[str]]]:
    """Line number and values of each line that is not blank.

    Each line is parsed alone: a stray quote cannot swallow the lines that follow it.
    """
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                yield number, next(csv.reader([line]))
            except csv.Error:
                # Only an over-long field gets here; the split keeps the row, and its checks name the field.
                yield number, line.split(",")


def _columns(path: Path, header: tuple[int, list[str]]) -> Mapping[str, int]:
    line, values = header
    names = [value.strip() for value in values]
    missing = [column for column in COLUMNS if column not in names]
    if missing:
        raise TraceError(
            file=str(path),
            line=line,
            field="header",
            value=",".join(names)[:200],
            remedy=f"no column {', '.join(missing)}; an openb pod list with run times has {', '.join(COLUMNS)}",
        )
    twice = [column for column in COLUMNS if names.count(column) > 1]
    if twice:
        raise TraceError(
            file=str(path), line=line, field="header", value=twice[0], remedy="the column is there twice; remove one"
        )
    return {name: index for index, name in enumerate(names)}


def _pod(columns: Mapping[str, int], values: list[str], known_models: frozenset[str]) -> OpenbPod:
    if len(values) > len(columns):
        raise _BadRowError(
            "row", ",".join(values)[:200], f"{len(values)} values for {len(columns)} columns; remove some"
        )

    def text(field: str, *, optional: bool = False) -> str:
        index = columns[field]
        value = values[index].strip() if index < len(values) else ""
        if not value and not optional:
            raise _BadRowError(field, "", "the value is missing; give one")
        return value

    name = text("name")
    if not _NAME.fullmatch(name):
        raise _BadRowError("name", name[:200], "use lower-case letters, digits, '-' and '.', at most 253 characters")
    qos = text("qos")
    if not _LABEL.fullmatch(qos.lower()):
        raise _BadRowError("qos", qos[:200], "it stands for the namespace: use letters, digits and '-'")
    shape = _shape(
        cpu_milli=_whole("cpu_milli", text("cpu_milli")),
        memory_mib=_whole("memory_mib", text("memory_mib")),
        gpus=_whole("num_gpu", text("num_gpu")),
        milli=_whole("gpu_milli", text("gpu_milli")),
        models=_models(text("gpu_spec", optional=True), known_models),
    )
    created_s = _whole("creation_time", text("creation_time"))
    deleted_s = _whole("deletion_time", text("deletion_time"))
    scheduled = text("scheduled_time", optional=True)
    scheduled_s = _whole("scheduled_time", scheduled) if scheduled else None
    if deleted_s < created_s:
        raise _BadRowError("deletion_time", str(deleted_s), f"before creation_time {created_s}; correct one of them")
    if scheduled_s is not None and scheduled_s < created_s:
        raise _BadRowError("scheduled_time", str(scheduled_s), f"before creation_time {created_s}; correct one of them")
    if scheduled_s is not None and deleted_s < scheduled_s:
        raise _BadRowError("deletion_time", str(deleted_s), f"before scheduled_time {scheduled_s}; correct one of them")
    return OpenbPod(
        name=name,
        namespace=qos.lower(),
        shape=shape,
        created_s=created_s,
        scheduled_s=scheduled_s,
        deleted_s=deleted_s,
    )


def _whole(field: str, value: str) -> int:
    if not _DIGITS.fullmatch(value):
        negative = value.startswith("-") and _DIGITS.fullmatch(value[1:])
        raise _BadRowError(field, value[:200], f"{'negative' if negative else 'not a whole number'}; give 0 or more")
    if len(value) > 20 or int(value) > MOST:
        raise _BadRowError(field, value[:200], f"larger than {MOST}; check the unit")
    return int(value)


def _models(spec: str, known_models: frozenset[str]) -> frozenset[str]:
    models = frozenset(model.strip() for model in spec.split("|")) if spec else frozenset[str]()
    unknown = sorted(models - known_models)
    if unknown:
        raise _BadRowError(
            "gpu_spec", spec[:200], f"unknown GPU model {unknown[0]!r}; known are {', '.join(sorted(known_models))}"
        )
    return models


def _shape(*, cpu_milli: int, memory_mib: int, gpus: int, milli: int, models: frozenset[str]) -> Shape:
    if gpus > MAX_DEVICES:
        raise _BadRowError(
            "num_gpu", str(gpus), f"impossible request: one pod gets at most {MAX_DEVICES} GPUs; split it"
        )
    if gpus == 0:
        if milli:
            raise _BadRowError("gpu_milli", str(milli), "num_gpu is 0; give gpu_milli 0 too, or ask for a GPU")
        if models:
            raise _BadRowError("gpu_spec", "|".join(sorted(models)), "num_gpu is 0; leave gpu_spec empty")
        return Shape(cpu_milli=cpu_milli, memory_mib=memory_mib)
    if not 1 <= milli <= WHOLE:
        raise _BadRowError("gpu_milli", str(milli), f"impossible request: a share of a GPU is 1 to {WHOLE} thousandths")
    if milli < WHOLE and gpus > 1:
        raise _BadRowError("gpu_milli", str(milli), f"fractions of {gpus} GPUs are not supported; ask for whole ones")
    return Shape(cpu_milli=cpu_milli, memory_mib=memory_mib, gpus=gpus, milli=milli, models=models)


def window(trace: OpenbTrace, days: float = 30) -> Window:
    """The last ``days`` of GPU pods that were scheduled.

    The window ends at the file's latest deletion time (of all its good rows). Run time is deletion minus scheduling.
    Pods whose creation plus run time is not after the start are left out; a pod that was created before the start
    arrives at the start with what is left of its run time. Raises TraceError when ``days`` is not positive or nothing
    is left.
    """
    if not 0 < days < MOST:
        raise TraceError(file=str(trace.path), field="days", value=days, remedy="give a positive number of days")
    t1 = max((pod.deleted_s for pod in trace.pods), default=0)
    start = t1 - days * DAY_S
    t0 = int(start) if float(start).is_integer() else start
    pods: list[TracePod] = []
    carried = 0
    for pod in trace.pods:
        if pod.shape.gpus == 0 or pod.scheduled_s is None:
            continue
        run_s: float = pod.deleted_s - pod.scheduled_s
        if pod.created_s + run_s <= t0:
            continue
        arrival_s: float = pod.created_s
        if arrival_s < t0:
            carried += 1
            run_s = arrival_s + run_s - t0
            arrival_s = t0
        pods.append(TracePod(name=pod.name, namespace=pod.namespace, shape=pod.shape, arrival_s=arrival_s, run_s=run_s))
    if not pods:
        raise TraceError(
            file=str(trace.path),
            field="days",
            value=days,
            remedy=f"no scheduled GPU pod in that time ({len(trace.problems)} rows were left out); give more days",
        )
    pods.sort(key=lambda pod: pod.arrival_s)
    chosen = tuple(pods)
    return Window(pods=chosen, t0=t0, t1=t1, carried=carried, demand_gpu_hours=demand_gpu_hours(chosen, t1))
