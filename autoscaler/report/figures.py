"""Every figure of a report, computed from a run and from nothing else. Pure.

Definitions:

* billed GPU-hours: sum over machines of gpus x (termination, or the end of the run, minus the order) / 3600;
* wait: start minus arrival over all pods that arrived; a pod that never started has waited until the end of the run;
* percentile: nearest rank, the ceil(q x n)-th smallest of n values;
* moves in any 24 hours: the most in a half-open stretch [t, t + 24 h);
* by namespace: a machine's cost is split by the GPU thousandths that each pod held of it and for how long; what nobody
  held is the namespace ``(idle)``. The parts are whole micro-dollars and micro-hours, so that they sum to the whole.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

from autoscaler.model.records import MachineRecord, Stay
from autoscaler.report.run import Run

IDLE = "(idle)"
"""Namespace of capacity that nobody held; no real namespace has brackets."""

SCHEMA = "tidegate.dev/report/v1"
DAY_S = 86_400
MICRO = 1_000_000


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """One namespace's part of the bill."""

    gpu_hours: float
    cost_usd: float


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What a run cost and how long its pods waited."""

    demanded_gpu_hours: float
    billed_gpu_hours: float
    cost_usd: float
    arrived: int
    finished: int
    running: int
    lost: int
    wait_mean_s: float
    wait_p99_s: float
    moves: int
    moves_max_24h: int
    launched: int
    terminated: int
    machines_running: int
    leaked: int
    by_namespace: tuple[tuple[str, Share], ...]
    """Largest cost first, ``(idle)`` last."""

    @property
    def waiting(self) -> int:
        """Pods that had not started when the run ended."""
        return self.arrived - self.finished - self.running - self.lost

    @property
    def billed_per_demanded(self) -> float | None:
        """Billed over demanded GPU-hours; None where nothing was demanded."""
        return self.billed_gpu_hours / self.demanded_gpu_hours if self.demanded_gpu_hours > 0 else None


def compute(run: Run) -> Figures:
    """All figures of ``run``."""
    waits = wait_seconds(run)
    gone = [machine for machine in run.machines if machine.terminated_s is not None and machine.terminated_s <= run.t1]
    billed, cost, parts = _split(run)
    lost = sum(1 for pod in run.pods if pod.lost)
    finished = sum(1 for pod in run.pods if not pod.lost and pod.end_s is not None and pod.end_s <= run.t1)
    started = sum(1 for pod in run.pods if not pod.lost and pod.start_s is not None and pod.start_s <= run.t1)
    return Figures(
        demanded_gpu_hours=run.demanded_gpu_hours,
        billed_gpu_hours=billed,
        cost_usd=cost,
        arrived=len(run.pods),
        finished=finished,
        running=started - finished,
        lost=lost,
        wait_mean_s=math.fsum(waits) / len(waits) if waits else 0.0,
        wait_p99_s=percentile(waits, 0.99),
        moves=len(run.moves),
        moves_max_24h=most_within([move.time_s for move in run.moves], DAY_S),
        launched=run.launched,
        terminated=len(gone),
        machines_running=len(run.machines) - len(gone),
        leaked=run.leaked,
        by_namespace=parts,
    )


def by_name(run: Run, figures: Figures) -> dict[str, Any]:
    """The figures under the names and in the order of ``report.json``."""
    return {
        "schema": SCHEMA,
        "demanded_gpu_hours": figures.demanded_gpu_hours,
        "billed_gpu_hours": figures.billed_gpu_hours,
        "cost_usd": figures.cost_usd,
        "pods": {
            "arrived": figures.arrived,
            "finished": figures.finished,
            "running": figures.running,
            "lost": figures.lost,
        },
        "wait_s": {"mean": figures.wait_mean_s, "p99": figures.wait_p99_s},
        "moves": {"total": figures.moves, "max_24h": figures.moves_max_24h},
        "machines": {
            "launched": figures.launched,
            "terminated": figures.terminated,
            "running": figures.machines_running,
            "leaked": figures.leaked,
        },
        "by_namespace": {
            name: {"gpu_hours": share.gpu_hours, "cost_usd": share.cost_usd} for name, share in figures.by_namespace
        },
        "wall_s": run.wall_s,
        "peak_rss_mib": run.peak_rss_mib,
    }


def wait_seconds(run: Run) -> list[float]:
    """The wait of each pod, in the order of ``run.pods``."""
    return [(run.t1 if pod.start_s is None else min(pod.start_s, run.t1)) - pod.arrival_s for pod in run.pods]


def percentile(values: Sequence[float], share: float) -> float:
    """Nearest rank; 0 for no values."""
    if not values:
        return 0.0
    # The rounding keeps 0.99 x 100 at 99: as a float product it may lie a hair above.
    rank = math.ceil(round(share * len(values), 9))
    return sorted(values)[max(rank, 1) - 1]


def most_within(times: Sequence[float], span_s: float) -> int:
    """The largest number of ``times`` in any half-open stretch of ``span_s`` seconds."""
    ordered = sorted(times)
    most = first = 0
    for last, time_s in enumerate(ordered):
        while time_s - ordered[first] >= span_s:
            first += 1
        most = max(most, last - first + 1)
    return most


def billed_until(machine: MachineRecord, t1: float) -> float:
    """The second at which a machine's bill ends, inside the run."""
    return t1 if machine.terminated_s is None else min(machine.terminated_s, t1)


def lives(run: Run) -> dict[str, list[MachineRecord]]:
    """The machines of each claim by time; a claim whose machine was lost may have got another."""
    found: dict[str, list[MachineRecord]] = {}
    for machine in sorted(run.machines, key=lambda machine: machine.ordered_s):
        found.setdefault(machine.claim, []).append(machine)
    return found


def _split(run: Run) -> tuple[float, float, tuple[tuple[str, Share], ...]]:
    """Billed GPU-hours, cost in dollars, and both by namespace."""
    seconds = [(machine, max(0.0, billed_until(machine, run.t1) - machine.ordered_s)) for machine in run.machines]
    hours_total = round(math.fsum(machine.gpus * length for machine, length in seconds) * MICRO / 3600)
    cost_total = round(math.fsum(run.prices[machine.claim] * length for machine, length in seconds) / 3600)

    by_claim = lives(run)
    namespaces = {pod.name: pod.namespace for pod in run.pods}
    held: dict[str, list[float]] = {}
    paid: dict[str, list[float]] = {}
    for pod in run.pods:
        held.setdefault(pod.namespace, [])
        paid.setdefault(pod.namespace, [])
    for stay in run.stays:
        machines = [machine for machine in by_claim.get(stay.claim, ()) if machine.ordered_s <= stay.start_s]
        if not machines or not machines[-1].gpus:
            continue
        end_s = billed_until(machines[-1], run.t1)
        end_s = end_s if stay.end_s is None else min(stay.end_s, end_s)
        milli_seconds = gpu_milli(stay) * max(0.0, end_s - stay.start_s)
        held[namespaces[stay.pod]].append(milli_seconds)
        paid[namespaces[stay.pod]].append(run.prices[stay.claim] * milli_seconds / (1000 * machines[-1].gpus))
    hours = {name: round(math.fsum(parts) * MICRO / 3_600_000) for name, parts in held.items()}
    costs = {name: round(math.fsum(parts) / 3600) for name, parts in paid.items()}
    order = sorted(costs, key=lambda name: (-costs[name], name))
    shares = [(name, Share(gpu_hours=hours[name] / MICRO, cost_usd=costs[name] / MICRO)) for name in order]
    idle = Share(
        gpu_hours=(hours_total - sum(hours.values())) / MICRO, cost_usd=(cost_total - sum(costs.values())) / MICRO
    )
    return hours_total / MICRO, cost_total / MICRO, (*shares, (IDLE, idle))


def gpu_milli(stay: Stay) -> int:
    """Thousandths of a device that a stay holds over all its devices."""
    return stay.milli * len(stay.devices)
