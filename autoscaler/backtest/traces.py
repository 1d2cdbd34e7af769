"""Which trace to replay: the folder with the public traces, ``--trace KIND:FILE`` values, and what a window of load is.

Must not know: file formats, the engine, reports. Fails with one TraceError that names file, field, value and remedy.
"""

import dataclasses
import enum
import os
from pathlib import Path

from vgpu.errors import TidegateError
from vgpu.inventory import Shape

FOLDER_VARIABLE = "TIDEGATE_TRACES"
DEFAULT_FOLDER = Path("..") / "shared" / "data"
"""Relative to the current working directory."""


class TraceError(TidegateError):
    """A trace that cannot be used at all: where, which field, which value, and what to do about it."""

    def __init__(self, *, file: str, field: str, value: object, remedy: str, line: int | None = None) -> None:
        self.file = file
        self.line = line
        self.field = field
        self.value = value
        self.remedy = remedy
        where = f"{file}, line {line}" if line is not None else file
        super().__init__(f"{where}: {field}={value!r}: {remedy}" if where else f"{field}={value!r}: {remedy}")


class TraceKind(enum.StrEnum):
    OPENB = "openb"
    SERVEGEN = "servegen"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TraceFile:
    """What ``--trace KIND:FILE`` names; the file existed when the value was read."""

    kind: TraceKind
    path: Path


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TracePod:
    """One pod of a load: when it arrives and how long it runs once it has started."""

    name: str
    """The trace's own name; unique in its window."""
    namespace: str
    shape: Shape
    arrival_s: float
    """Seconds of the trace's clock."""
    run_s: float


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """The pods of one stretch of time, by arrival; pods that arrive together keep the order of the trace."""

    pods: tuple[TracePod, ...]
    t0: float
    t1: float
    carried: int
    """Pods that were created before ``t0`` and arrive at ``t0`` with what is left of their run time."""
    demand_gpu_hours: float
    """GPU-hours asked for: devices x thousandths x run time, clipped at ``t1``."""


def demand_gpu_hours(pods: tuple[TracePod, ...], t1: float) -> float:
    """GPU-hours that ``pods`` would use if each started on arrival, up to ``t1``."""
    return sum(pod.shape.gpu_milli * max(0.0, min(pod.run_s, t1 - pod.arrival_s)) for pod in pods) / 3_600_000


def trace_folder() -> Path | None:
    """The folder with the public traces, or None where there is none.

    ``TIDEGATE_TRACES`` names it; set to nothing at all it says "use no traces". Without the variable ``../shared/data``
    is taken where it exists. Raises TraceError when the variable names something that is no folder.
    """
    named = os.environ.get(FOLDER_VARIABLE)
    if named is None:
        return DEFAULT_FOLDER if DEFAULT_FOLDER.is_dir() else None
    if not named.strip():
        return None
    folder = Path(named)
    if not folder.is_dir():
        raise TraceError(
            file="",
            field=FOLDER_VARIABLE,
            value=named,
            remedy="name the folder that holds openb/ and inference/, or unset the variable",
        )
    return folder


def parse_trace(text: str) -> TraceFile:
    """Read ``KIND:FILE``. Raises TraceError for an unknown kind, a missing separator or a file that is not there."""
    kinds = " or ".join(f"{kind.value}:FILE" for kind in TraceKind)
    word, separator, name = text.partition(":")
    if not separator or not name:
        raise TraceError(file="", field="--trace", value=text, remedy=f"write {kinds}")
    try:
        kind = TraceKind(word)
    except ValueError:
        raise TraceError(file="", field="--trace", value=text, remedy=f"unknown kind {word!r}; write {kinds}") from None
    path = Path(name)
    if not path.is_file():
        problem = "is not a file" if path.exists() else "does not exist"
        raise TraceError(file="", field="--trace", value=text, remedy=f"{name} {problem}; name a readable trace file")
    return TraceFile(kind=kind, path=path)
