"""Replays a window of pods through the real engine: embedded cluster, virtual time, and whatever provider is given.

The engine, its policies and the provider are the ones that run beside a real cluster; only the outside is played. What
comes out is a ``report.run.Run``: plain values from which every figure is computed.

Must not know which cloud is behind the provider. Fails with what the parts raise; a replay never hides a broken
promise.
"""

import dataclasses
import re
import time
from collections.abc import Callable
from pathlib import Path

from autoscaler.backtest.traces import Window
from autoscaler.embedded import checker
from autoscaler.embedded.jobs import JobState
from autoscaler.embedded.machines import MachineSource
from autoscaler.embedded.recorder import Recorder
from autoscaler.embedded.world import EmbeddedWorld
from autoscaler.engine.capacity import PoolSettings
from autoscaler.engine.claims import Timing
from autoscaler.engine.controller import Controller
from autoscaler.engine.log import DecisionLog, Record
from autoscaler.model import kinds
from autoscaler.model.ports import WatchEvent
from autoscaler.report import moves as moves_of
from autoscaler.report import run as report
from providers.offers import Provider

PIECES = 200
"""Parts in which a replay reports its progress."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """How the outside behaves in a replay."""

    boot_s: float = 180.0
    """From the purchase of a machine to its node being ready."""
    hold_s: float = 60.0
    """How long a moved pod holds both places."""
    batch_s: float = 1.0
    """From a change in the cluster to the engine's cycle."""
    seed: int = 0


def replay(
    window: Window,
    *,
    title: str,
    provider: Provider,
    machines: MachineSource,
    pool: PoolSettings,
    timing: Timing,
    world: World,
    progress: Callable[[float], None],
    launched: Callable[[], int] | None = None,
    notes: tuple[str, ...] = (),
) -> report.Run:
    """Play ``window`` from start to end. ``machines`` is what the machines' own boot reads of the cloud; ``progress``
    is told the share of virtual time that has passed; ``launched`` asks the cloud's own books for the number of
    machines it ever launched (without it, what is known here is counted).
    """
    began = time.perf_counter()
    outside = EmbeddedWorld(
        machines_from=machines,
        boot_s=world.boot_s,
        move_hold_s=world.hold_s,
        batch_s=world.batch_s,
        start_s=window.t0,
        seed=world.seed,
    )
    recorder = Recorder(outside.cluster, outside.clock)
    prices: dict[str, int] = {}

    def keep_price(event: WatchEvent) -> None:
        if isinstance(event.object, kinds.NodeClaim):
            prices[event.object.meta.name] = event.object.offer.price_micro_usd

    outside.cluster.subscribe(keep_price)
    decisions: list[Record] = []
    controller = Controller(
        cluster=outside.cluster,
        provider=provider,
        clock=outside.clock,
        pool=pool,
        log=DecisionLog(decisions.append),
        timing=timing,
    )
    for pod in window.pods:
        outside.jobs.submit(pod.name, pod.namespace, pod.shape, pod.run_s, at=pod.arrival_s)
    for piece in range(1, PIECES + 1):
        outside.run([controller], until=window.t0 + (window.t1 - window.t0) * piece / PIECES)
        progress(piece / PIECES)
    checker.assert_possible(outside.cluster)
    leaked = _leaked(provider, outside)
    stays = recorder.stays()
    machines_had = recorder.machines()
    return report.Run(
        title=title,
        t0=window.t0,
        t1=window.t1,
        demanded_gpu_hours=window.demand_gpu_hours,
        pods=_pods(outside),
        stays=stays,
        machines=machines_had,
        prices=prices,
        moves=moves_of.moves(stays),
        decisions=tuple(decisions),
        launched=len({machine.machine_id for machine in machines_had} | set(leaked))
        if launched is None
        else launched(),
        leaked=len(leaked),
        wall_s=time.perf_counter() - began,
        peak_rss_mib=peak_rss_mib(),
        notes=(*notes, *_problems(controller)),
    )


def peak_rss_mib() -> float:
    """Largest resident memory of this process so far, MiB.

    From the kernel's high-water mark of this very program: ``getrusage`` also counts what the parent held before it
    started this one.
    """
    status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    return int(re.search(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)[1]) / 1024  # type: ignore[index]


def _leaked(provider: Provider, outside: EmbeddedWorld) -> tuple[str, ...]:
    """Machines that the cloud still has at the end and that no claim answers for."""
    claims = outside.cluster.list(kinds.NodeClaim).items
    owned = {attempt.key for claim in claims for attempt in claim.attempts}
    return tuple(machine.id for machine in provider.list() if machine.key not in owned)


def _pods(outside: EmbeddedWorld) -> tuple[report.PodRecord, ...]:
    return tuple(
        report.PodRecord(
            name=job.name,
            namespace=job.namespace,
            arrival_s=job.arrival_s,
            start_s=job.start_s,
            end_s=job.end_s,
            gpu_milli=job.shape.gpu_milli,
            lost=job.lost > 0,
        )
        for job in outside.jobs.facts()
        if job.state is not JobState.SUBMITTED
    )


def _problems(controller: Controller) -> tuple[str, ...]:
    if not controller.problem_count:
        return ()
    newest = controller.problems[-1]
    count = controller.problem_count
    return (f"The engine met {count} errors on single objects and went on; newest: {newest.subject}: {newest.error}",)
