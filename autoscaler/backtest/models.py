"""Replays request rates of many models through the real engine: scale to zero and back, one GPU per loaded model.

The question of benchmark 5: how many GPU-hours does unloading idle models save, and how many requests wait for it? The
cluster has a GPU for every model; a loaded or loading model costs one GPU, an unloaded one nothing.
"""

import dataclasses
import math
import time
from collections import defaultdict
from collections.abc import Callable, Mapping

from autoscaler.backtest import servegen
from autoscaler.backtest.gateway import Gateway, Loading
from autoscaler.backtest.replay import peak_rss_mib
from autoscaler.embedded import checker
from autoscaler.embedded.recorder import Recorder
from autoscaler.embedded.world import EmbeddedWorld
from autoscaler.engine.capacity import PoolSettings
from autoscaler.engine.controller import Controller
from autoscaler.engine.log import DecisionLog, Record
from autoscaler.engine.scaling import Scaling, ScalingSettings
from autoscaler.model import kinds, records
from autoscaler.report import run as report
from policies import compaction, provisioning, scale_to_zero
from providers.offers import Caps, Machine, Notice, Offer, Order
from vgpu.inventory import Device, Shape

NAMESPACE = "models"
DAY_S = 86_400.0
POLL_S = 30.0
"""An idle spell is noticed within this; a fixed timer needs no earlier look than its own."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """Benchmark 5's figures over ``[start_s, end_s)``."""

    gpu_hours: float
    delayed_share_percent: float
    """Mean over the models with requests of delayed requests over requests."""
    delayed_per_million: float
    loads: int
    requests: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Played:
    """What one policy setting made of the load."""

    stays: tuple[records.Stay, ...]
    loadings: tuple[Loading, ...]
    decisions: tuple[Record, ...]


class NothingForSale:
    """A provider without offers: the models' GPUs are there from the start."""

    name = "none"
    caps = Caps()

    def offers(self) -> tuple[Offer, ...]:
        return ()

    def launch(self, order: Order) -> Machine:
        raise AssertionError(f"order {order.key}: nothing is for sale here, so nothing can be ordered")

    def poll(self, machine: Machine) -> Machine:
        return machine

    def list(self) -> tuple[Machine, ...]:
        return ()

    def terminate(self, machine: Machine) -> None:
        raise AssertionError(f"machine {machine.id}: nothing was ever sold here, so nothing can be given back")

    def notices(self) -> tuple[Notice, ...]:
        return ()


def play(
    loads: Mapping[str, servegen.ClientLoad],
    spec: scale_to_zero.Spec,
    *,
    load_s: float,
    until_s: float,
    seed: int,
    progress: Callable[[float], None],
) -> Played:
    """Run the engine over ``loads`` (by workload key), from second 0 to ``until_s``. Every model starts unloaded."""
    world = EmbeddedWorld(seed=seed, batch_s=0.0)
    recorder = Recorder(world.cluster, world.clock)
    devices = tuple(Device(uuid=f"GPU-static-{index}", model="GPU") for index in range(len(loads)))
    world.cluster.create(
        kinds.Node(
            meta=kinds.Meta(name="static"),
            provider_id="static:///0",
            ready=True,
            cpu_milli=1000 * len(loads),
            memory_mib=1024 * len(loads),
            devices=devices,
        )
    )
    for workload in loads:
        world.cluster.create(
            kinds.Workload(
                meta=kinds.Meta(
                    name=workload.rpartition("/")[2],
                    namespace=NAMESPACE,
                    annotations={kinds.ZEROED_BY: scale_to_zero.OURS},
                ),
                replicas=0,
                shape=Shape(gpus=1),
                start_delay_s=load_s,
            )
        )
    gateway = Gateway(world, loads, history_gaps=spec.learnt.history_gaps)
    decisions: list[Record] = []
    controller = Controller(
        cluster=world.cluster,
        provider=NothingForSale(),
        clock=world.clock,
        pool=PoolSettings(name="static", provisioning=provisioning.Spec(), compaction=compaction.Spec()),
        log=DecisionLog(decisions.append),
        scaling=Scaling(
            settings=ScalingSettings(spec=spec, poll_s=POLL_S if spec.keep_alive == "learnt" else spec.idle_after_s),
            source=gateway,
            started_s=world.clock.now(),
        ),
    )
    pieces = 100
    for piece in range(1, pieces + 1):
        world.run([controller], until=until_s * piece / pieces)
        progress(piece / pieces)
    checker.assert_possible(world.cluster)
    return Played(stays=recorder.stays(), loadings=tuple(gateway.loadings), decisions=tuple(decisions))


def score(played: Played, loads: Mapping[str, servegen.ClientLoad], *, start_s: float, end_s: float) -> Score:
    """Benchmark 5's figures. A delayed request counts where its load was asked for."""
    gpu_s = math.fsum(
        max(0.0, min(end_s if stay.end_s is None else stay.end_s, end_s) - max(stay.start_s, start_s))
        for stay in played.stays
    )
    inside = [loading for loading in played.loadings if start_s <= loading.asked_s < end_s]
    delayed: defaultdict[str, int] = defaultdict(int)
    for loading in inside:
        delayed[loading.workload] += loading.delayed
    requests = {workload: load.count(start_s, end_s) for workload, load in loads.items()}
    shares = [delayed[workload] / count for workload, count in requests.items() if count]
    total = sum(requests.values())
    return Score(
        gpu_hours=gpu_s / 3600,
        delayed_share_percent=100 * math.fsum(shares) / len(shares) if shares else 0.0,
        delayed_per_million=1e6 * sum(delayed.values()) / total if total else 0.0,
        loads=len(inside),
        requests=total,
    )


def least_gpu_hours(loads: Mapping[str, servegen.ClientLoad], *, load_s: float, start_s: float, end_s: float) -> float:
    """GPU-hours of an oracle that unloads in every gap of at least 30 s and loads ``load_s`` before the next request:
    what the load demands when nothing may wait.
    """
    total_s = 0.0
    for load in loads.values():
        first, last = load.first_after(start_s), load.last_before(end_s)
        if first is None or last is None or last < first:
            continue
        total_s += float(last - first) + load_s
        for begin, end in zip(load.gaps.start_s, load.gaps.end_s, strict=True):
            if begin >= first and end <= last and end - begin > load_s:
                total_s -= float(end - begin) - load_s
    return total_s / 3600


def read_loads(trace: servegen.Trace, *, seed: int, load_s: float, until_s: float) -> dict[str, servegen.ClientLoad]:
    """One load per gated client, by workload key."""
    return {
        f"{NAMESPACE}/client-{client}": servegen.ClientLoad(
            trace.windows[client], seed=seed, load_s=load_s, until_s=until_s
        )
        for client in trace.gated()
    }


def replay(
    trace: servegen.Trace,
    *,
    title: str,
    spec: scale_to_zero.Spec,
    days: float,
    load_s: float,
    seed: int,
    progress: Callable[[float], None],
    notes: tuple[str, ...] = (),
) -> report.Run:
    """Play the gated clients for ``days`` with ``spec``, and beside it with a fixed timer of ``spec.idle_after_s``.

    The run's machines are the loads: each holds one GPU, at a nominal dollar per hour, from the first waiting request
    to the unloading. The last day is scored, the days before it are for learning.
    """
    began = time.perf_counter()
    until_s = days * DAY_S
    loads = read_loads(trace, seed=seed, load_s=load_s, until_s=until_s)
    timer = spec.model_copy(update={"keep_alive": "fixed"})
    learnt = play(loads, spec, load_s=load_s, until_s=until_s, seed=seed, progress=lambda part: progress(part / 2))
    wall_s = time.perf_counter() - began
    fixed = play(
        loads, timer, load_s=load_s, until_s=until_s, seed=seed, progress=lambda part: progress(0.5 + part / 2)
    )
    start_s = max(0.0, until_s - DAY_S)
    rows = {
        "learnt keep-alive": _row(score(learnt, loads, start_s=start_s, end_s=until_s)),
        f"{spec.idle_after_s:g} s timer": _row(score(fixed, loads, start_s=start_s, end_s=until_s)),
        "always loaded": {
            "gpu_hours": round(len(loads) * (until_s - start_s) / 3600, 1),
            "delayed_share_percent": 0.0,
            "delayed_per_million": 0.0,
            "loads": 0,
        },
        "oracle, loads ahead": {
            "gpu_hours": round(least_gpu_hours(loads, load_s=load_s, start_s=start_s, end_s=until_s), 1),
            "delayed_share_percent": 0.0,
            "delayed_per_million": 0.0,
            "loads": None,
        },
    }
    machines, pods, stays = _as_machines(learnt, until_s)
    return report.Run(
        title=title,
        t0=0.0,
        t1=until_s,
        demanded_gpu_hours=least_gpu_hours(loads, load_s=load_s, start_s=0.0, end_s=until_s),
        pods=pods,
        stays=stays,
        machines=machines,
        prices={machine.claim: 1_000_000 for machine in machines},
        moves=(),
        decisions=learnt.decisions,
        launched=len(machines),
        leaked=0,
        wall_s=wall_s,
        peak_rss_mib=peak_rss_mib(),
        extra={"scale_to_zero": rows},
        notes=(*notes, "A machine here is one load of a model: one GPU, at a nominal dollar per GPU-hour."),
    )


def _row(figures: Score) -> dict[str, float | int]:
    return {
        "gpu_hours": round(figures.gpu_hours, 1),
        "delayed_share_percent": round(figures.delayed_share_percent, 3),
        "delayed_per_million": round(figures.delayed_per_million, 1),
        "loads": figures.loads,
    }


def _as_machines(
    played: Played, until_s: float
) -> tuple[tuple[records.MachineRecord, ...], tuple[report.PodRecord, ...], tuple[records.Stay, ...]]:
    """Every stay of a model as a machine of its own, with the pod that it served."""
    ready = {(loading.workload, loading.asked_s): loading.ready_s for loading in played.loadings}
    machines: list[records.MachineRecord] = []
    pods: list[report.PodRecord] = []
    stays: list[records.Stay] = []
    for stay in played.stays:
        claim = f"gpu-{stay.pod}"
        workload = f"{stay.namespace}/{stay.pod.rpartition('-')[0]}"
        machines.append(
            records.MachineRecord(
                claim=claim,
                machine_id=claim,
                instance_type="static.1gpu",
                capacity_type="on-demand",
                gpus=1,
                ordered_s=stay.start_s,
                ready_s=stay.start_s,
                terminated_s=stay.end_s,
            )
        )
        stays.append(dataclasses.replace(stay, claim=claim, devices=(0,)))
        pods.append(
            report.PodRecord(
                name=stay.pod,
                namespace=stay.namespace,
                arrival_s=stay.start_s,
                start_s=min(ready.get((workload, stay.start_s), until_s), until_s),
                end_s=stay.end_s,
                gpu_milli=1000,
            )
        )
    return tuple(machines), tuple(pods), tuple(stays)
