"""What happened in one run, as plain frozen values: the only thing that reports are made from.

Times are seconds of the run's clock (of the trace's, in a replay), pods carry the trace's names, money is micro US
dollars. Knows no cluster, no provider and no file. Impossible values are refused when they are built (ReportError).
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from autoscaler.engine.log import Record
from autoscaler.model.records import MachineRecord, Stay
from vgpu.errors import TidegateError


class ReportError(TidegateError):
    """A run that cannot be reported, or a report that cannot be written or read."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class PodRecord:
    """One pod that arrived in the window."""

    name: str
    namespace: str
    arrival_s: float
    start_s: float | None
    """When it first ran; None for a pod that never did."""
    end_s: float | None
    """When it finished (or was lost); None for a pod that still runs or waits at the end."""
    gpu_milli: int
    """Thousandths of a device over all its devices."""
    lost: bool = False
    """It stopped before its work was done."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """One pod that began to hold its second place."""

    pod: str
    time_s: float


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One run from ``t0`` to ``t1``."""

    title: str
    """One line that says what was replayed, for headings."""
    t0: float
    t1: float
    demanded_gpu_hours: float
    pods: tuple[PodRecord, ...]
    stays: tuple[Stay, ...]
    """Stays of the pods above. One on a node without a claim is held, but nothing is billed for it."""
    machines: tuple[MachineRecord, ...]
    """Machines that a cloud accepted to launch. Claims that never got one are in the decisions, not here."""
    prices: Mapping[str, int]
    """Micro US dollars per hour for the whole machine, by claim."""
    moves: tuple[Move, ...]
    decisions: tuple[Record, ...]
    launched: int
    """Machines that the cloud says were launched, whoever remembers them."""
    leaked: int
    """Machines of ours that the cloud still has and no claim knows."""
    wall_s: float
    peak_rss_mib: float
    extra: Mapping[str, Any] = dataclasses.field(default_factory=dict[str, Any])
    """Further sections by key (``catalog``, ``scale_to_zero``): values that JSON can hold. A section is a mapping of
    values, a mapping of equal mappings (rows by name), or a list of equal mappings (rows)."""
    notes: tuple[str, ...] = ()
    """Sentences a reader must know, for example that the load was generated."""

    def __post_init__(self) -> None:
        if not self.t0 < self.t1:
            raise ReportError(f"t1={self.t1!r}: a run ends after it started ({self.t0!r}); check the window")
        names: set[str] = set()
        for pod in self.pods:
            if pod.name in names:
                raise ReportError(f"pods: {pod.name!r} is there twice; record each pod of the trace once")
            names.add(pod.name)
        for machine in self.machines:
            if machine.claim not in self.prices:
                raise ReportError(f"prices: none for claim {machine.claim!r}; an unknown price is not zero, record it")
        for stay in self.stays:
            if stay.pod not in names:
                raise ReportError(f"stays: pod {stay.pod!r} is not among the run's pods; record it too")
