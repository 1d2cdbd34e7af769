"""A run small enough to check by hand."""

import dataclasses

import pytest

from autoscaler.engine.log import Record
from autoscaler.model.records import MachineRecord, Stay
from autoscaler.report.moves import moves
from autoscaler.report.run import PodRecord, Run
from vgpu.inventory import Shape


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pod:
    name: str
    namespace: str
    shape: Shape
    arrival_s: float
    run_s: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Load:
    pods: tuple[Pod, ...]
    t0: float
    t1: float
    demand_gpu_hours: float


@pytest.fixture
def load() -> Load:
    whole, half = Shape(gpus=1), Shape(gpus=1, milli=500)
    return Load(
        pods=(
            Pod(name="moved", namespace="x", shape=whole, arrival_s=0, run_s=3600),
            Pod(name="short", namespace="y", shape=half, arrival_s=100, run_s=720),
            Pod(name="late", namespace="y", shape=half, arrival_s=7000, run_s=1000),
            Pod(name="never", namespace="x", shape=whole, arrival_s=7100, run_s=1000),
        ),
        t0=0,
        t1=7200,
        # Clipped at the end: 3600 + 720 / 2 + 200 / 2 + 100 GPU-seconds.
        demand_gpu_hours=4160 / 3600,
    )


@pytest.fixture
def run(load: Load) -> Run:
    """Two machines at 8 dollars an hour; ``moved`` holds both for a minute, ``never`` never starts."""
    stays = (
        Stay(pod="moved", namespace="x", claim="a", devices=(0,), milli=1000, start_s=180, end_s=3540),
        Stay(pod="short", namespace="y", claim="a", devices=(1,), milli=500, start_s=180, end_s=900),
        Stay(pod="moved", namespace="x", claim="b", devices=(3,), milli=1000, start_s=3480, end_s=3780),
        Stay(pod="late", namespace="y", claim="b", devices=(7,), milli=500, start_s=7000, end_s=None),
    )
    machines = (
        _machine("a", ordered_s=0, terminated_s=3600),
        _machine("b", ordered_s=3300, terminated_s=None),
    )
    decisions = (
        _decision("d1", 0.0, "provisioning", "Buy", "default", "PendingShares", {"pod": "x/moved", "a": 0.1 + 0.2}),
        _decision("d2", 3300.5, "compaction", "Compact", "node-a", "UnderUsed", {"moves": 1, "b": True}),
        _decision("d3", 3480, "moves", "Cancel", "x/moved-mv-0a1b", "MoveFailed", {"why": None}),
    )
    return Run(
        title="A run by hand",
        t0=load.t0,
        t1=load.t1,
        demanded_gpu_hours=load.demand_gpu_hours,
        pods=(
            _pod(load.pods[0], start_s=180, end_s=3780),
            _pod(load.pods[1], start_s=180, end_s=900),
            _pod(load.pods[2], start_s=7000, end_s=None),
            _pod(load.pods[3], start_s=None, end_s=None),
        ),
        stays=stays,
        machines=machines,
        prices={"a": 8_000_000, "b": 8_000_000},
        moves=moves(stays),
        decisions=decisions,
        launched=2,
        leaked=0,
        wall_s=1.5,
        peak_rss_mib=100,
    )


def _pod(pod: Pod, *, start_s: float | None, end_s: float | None) -> PodRecord:
    return PodRecord(
        name=pod.name,
        namespace=pod.namespace,
        arrival_s=pod.arrival_s,
        start_s=start_s,
        end_s=end_s,
        gpu_milli=pod.shape.gpu_milli,
    )


def _machine(claim: str, *, ordered_s: float, terminated_s: float | None) -> MachineRecord:
    return MachineRecord(
        claim=claim,
        machine_id=f"i-{claim}",
        instance_type="gpu8",
        capacity_type="on-demand",
        gpus=8,
        ordered_s=ordered_s,
        ready_s=ordered_s + 180,
        terminated_s=terminated_s,
    )


def _decision(  # noqa: PLR0917 - the fields of a line of the log, in its order
    key: str,
    time_s: float,
    policy: str,
    action: str,
    subject: str,
    reason: str,
    evidence: dict[str, str | float | None],
) -> Record:
    return Record(
        id=key,
        time_s=time_s,
        policy=policy,
        action=action,
        subject=subject,
        reason=reason,
        evidence=evidence,
        steps=(("pending", 2), ("chosen", "offer")),
    )
