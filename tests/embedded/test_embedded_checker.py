"""The consistency checker names every impossibility it is shown, and finds none in worlds that any walk can reach."""

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule

from autoscaler.embedded import checker, clock, store, world
from autoscaler.model import kinds, ports
from providers import offers
from vgpu.inventory import Device, Placement, Request, Shape

SHAPES = (
    Shape(cpu_milli=500, memory_mib=512, gpus=1, milli=250, gpu_memory_mib=4000),
    Shape(cpu_milli=500, memory_mib=512, gpus=1, milli=700),
    Shape(cpu_milli=1000, memory_mib=1024, gpus=1),
    Shape(cpu_milli=1000, memory_mib=1024, gpus=2),
    Shape(cpu_milli=3000, memory_mib=100),
)
ONE = SHAPES[2]
OFFER = offers.Offer(
    provider="aws",
    region="r",
    zone="z",
    instance_type="g6.xlarge",
    capacity_type=offers.CapacityType.SPOT,
    shape=offers.MachineShape(gpu_model="L4", gpus=1, gpu_memory_mib=24000, cpu_milli=4000, memory_mib=16384),
    price_micro_usd=1,
    as_of="2026-01-01",
)


def node(name: str, **changes: Any) -> kinds.Node:
    given: dict[str, Any] = {
        "provider_id": f"aws:///z/{name}",
        "ready": True,
        "cpu_milli": 4000,
        "memory_mib": 16384,
        "devices": tuple(Device(uuid=f"GPU-{name}-{index}", model="L4", memory_mib=24000) for index in range(2)),
    }
    return kinds.Node(meta=kinds.Meta(name=name), **{**given, **changes})


def running(name: str, shape: Shape, where: str, *devices: int, **changes: Any) -> kinds.Pod:
    given: dict[str, Any] = {
        "phase": kinds.PodPhase.RUNNING,
        "started_s": 50.0,
        "placement": Placement(request=Request(id=f"ns/{name}", shape=shape), node=where, devices=devices),
    }
    return kinds.Pod(meta=kinds.Meta(name=name, namespace="ns"), shape=shape, **{**given, **changes})


def claim(name: str, **changes: Any) -> kinds.NodeClaim:
    meta = kinds.Meta(name=name, finalizers=changes.pop("finalizers", (kinds.MACHINE_FINALIZER,)))
    return kinds.NodeClaim(meta=meta, pool="p", offers=(OFFER,), reason="test", **changes)


def attempt(number: int, key: str) -> kinds.Attempt:
    return kinds.Attempt(number=number, key=key, offer=OFFER, parameter_hash="h")


LAUNCHED, READY = kinds.ClaimState.LAUNCHED, kinds.ClaimState.READY

IMPOSSIBLE: dict[str, tuple[tuple[kinds.Kind, ...], str]] = {
    "ready node without provider id": ((node("n", provider_id=""),), "Node n: ready without provider_id"),
    "one machine, two nodes": ((node("n"), node("m", provider_id="aws:///z/n")), "Node n: provider_id aws:///z/n"),
    "one device, two nodes": ((node("n"), node("m", devices=node("n").devices)), "Node n: device GPU-n-0 is also on"),
    "absent node": ((running("p", ONE, "x", 0),), "Pod ns/p: bound to node x"),
    "absent device": ((node("n"), running("p", ONE, "n", 5)), "Pod ns/p: devices [5] on n, which has 2"),
    "device compute": (
        (node("n"), running("p", ONE, "n", 0), running("q", SHAPES[0], "n", 0)),
        "Node n: device 0 (GPU-n-0) serves 1250 milli of 1000",
    ),
    "device memory": (
        (
            node("n"),
            running("p", Shape(gpus=1, milli=100, gpu_memory_mib=20000), "n", 0),
            running("q", SHAPES[0], "n", 0, phase=kinds.PodPhase.PENDING, started_s=None),
            running("r", SHAPES[0], "n", 0),
        ),
        "serves 28000 MiB of 24000",
    ),
    "processor": (
        (node("n"), running("p", SHAPES[4], "n"), running("q", SHAPES[4], "n")),
        "Node n: pods hold 6000 milli-CPU of 4000",
    ),
    "host memory": ((node("n"), running("p", Shape(memory_mib=99999), "n")), "pods hold 99999 MiB of 16384"),
    "too few devices": ((node("n"), running("p", SHAPES[3], "n", 0)), "Pod ns/p: devices [0] for 2 asked"),
    "a device twice": ((node("n"), running("p", SHAPES[3], "n", 1, 1)), "Pod ns/p: devices [1, 1] for 2 asked"),
    "running nowhere": ((running("p", ONE, "n", 0, placement=None),), "Pod ns/p: running without a placement"),
    "another's placement": (
        (
            node("n"),
            running("p", ONE, "n", placement=Placement(request=Request(id="q", shape=ONE), node="n", devices=(0,))),
        ),
        "Pod ns/p: placement made for q",
    ),
    "another shape's placement": (
        (
            node("n"),
            running(
                "p",
                ONE,
                "n",
                placement=Placement(request=Request(id="ns/p", shape=SHAPES[1]), node="n", devices=(0,)),
            ),
        ),
        "Pod ns/p: placement made for another shape",
    ),
    "running unstarted": (
        (node("n"), running("p", ONE, "n", 0, started_s=None)),
        "Pod ns/p: running and never started",
    ),
    "started unborn": ((node("n"), running("p", ONE, "n", 0, started_s=49.0)), "started at 49.0, before its creation"),
    "pending started": (
        (node("n"), running("p", ONE, "n", 0, phase=kinds.PodPhase.PENDING)),
        "Pod ns/p: pending and started at 50.0",
    ),
    "failed and ready": (
        (node("n"), running("p", ONE, "n", 0, phase=kinds.PodPhase.FAILED, ready=True)),
        "Pod ns/p: ready in phase Failed",
    ),
    "key used twice": (
        (claim("a", attempts=(attempt(1, "k"),)), claim("b", attempts=(attempt(1, "k"),))),
        "NodeClaim b attempt 1: key k is also that of NodeClaim a attempt 1",
    ),
    "gap in attempts": (
        (claim("a", attempts=(attempt(1, "k"), attempt(3, "l"))),),
        "NodeClaim a: attempts numbered [1, 3]",
    ),
    "ordering nothing": ((claim("a", state=kinds.ClaimState.ORDERING),), "NodeClaim a: ordering without an attempt"),
    "no finalizer": ((claim("a", attempts=(attempt(1, "k"),), finalizers=()),), "NodeClaim a: has attempts and no"),
    "ready without node": ((claim("a", state=READY, machine_id="i"),), "NodeClaim a: ready without a node"),
    "launched without machine": ((claim("a", state=LAUNCHED),), "NodeClaim a: Launched without a machine"),
    "terminating without machine": (
        (claim("a", state=kinds.ClaimState.TERMINATING),),
        "NodeClaim a: Terminating without a machine",
    ),
    "one machine, two claims": (
        (claim("a", state=LAUNCHED, machine_id="i"), claim("b", state=LAUNCHED, machine_id="i")),
        "NodeClaim b: machine i is also that of NodeClaim a",
    ),
    "history backwards": (
        (claim("a", history=(kinds.Stage(state="x", time_s=2.0), kinds.Stage(state="y", time_s=1.0))),),
        "NodeClaim a: history goes back in time",
    ),
    "more ready than there are": (
        (kinds.Workload(meta=kinds.Meta(name="w", namespace="ns"), replicas=3, ready_replicas=2, shape=ONE),),
        "Workload ns/w: ready_replicas 2 with 0 ready pods",
    ),
}


def put(cluster: store.EmbeddedCluster, obj: kinds.Kind, **meta: Any) -> None:
    """Store it past all admission, as a broken fake would."""
    version = cluster.version + 1
    given = {"uid": f"uid-{version}", "resource_version": version, "created_s": 50.0, **meta}
    stored = msgspec.structs.replace(obj, meta=msgspec.structs.replace(obj.meta, **given))
    cluster._commit(ports.EventType.ADDED, stored)


@pytest.mark.parametrize("name", IMPOSSIBLE)
def test_every_impossibility_is_named(name: str) -> None:
    objects, expected = IMPOSSIBLE[name]
    cluster = store.EmbeddedCluster(clock.VirtualClock(100.0))
    for obj in objects:
        put(cluster, obj)
    problems = checker.check(cluster)
    assert any(expected in problem for problem in problems), problems
    with pytest.raises(checker.ImpossibleWorld) as caught:
        checker.assert_possible(cluster)
    assert caught.value.problems == tuple(problems)


@pytest.mark.parametrize(
    ("meta", "expected"),
    [
        ({"uid": ""}, "stored without uid"),
        ({"uid": "uid-1"}, "uid uid-1 is also that of Node n"),
        ({"deleting_s": 60.0}, "deleted without finalizers and still stored"),
        ({"deleting_s": 40.0, "finalizers": ("x",)}, "deleted at 40.0, before its creation"),
    ],
)
def test_impossible_metadata_is_named(meta: dict[str, Any], expected: str) -> None:
    cluster = store.EmbeddedCluster(clock.VirtualClock(100.0))
    put(cluster, node("n"))
    put(cluster, node("o"), **meta)
    assert any(expected in problem for problem in checker.check(cluster))


def test_strictness_catches_the_write_itself() -> None:
    here = world.EmbeddedWorld(strict=True)
    here.cluster.create(node("n"))
    with pytest.raises(checker.ImpossibleWorld, match="ready without provider_id"):
        here.cluster.create(node("m", provider_id=""))


def test_a_subscriber_that_writes_is_caught() -> None:
    cluster = store.EmbeddedCluster(clock.VirtualClock())
    cluster.subscribe(lambda _: cluster.create(node("again")) and None)
    with pytest.raises(RuntimeError, match="subscriber wrote"):
        cluster.create(node("n"))


class Walk(RuleBasedStateMachine):
    """Users, an engine and bad luck at random. The world must stay possible and its watches complete."""

    nodes: Bundle[str] = Bundle("nodes")

    def __init__(self) -> None:
        super().__init__()
        self.here = world.EmbeddedWorld(strict=True, history=10_000, move_hold_s=30.0)
        self.count = 0
        self.mirror: dict[type[kinds.Kind], dict[str, kinds.Kind]] = {kind: {} for kind in kinds.KINDS}
        self.since = dict.fromkeys(kinds.KINDS, 0)

    @property
    def cluster(self) -> store.EmbeddedCluster:
        return self.here.cluster

    def name(self, prefix: str) -> str:
        self.count += 1
        return f"{prefix}{self.count}"

    def pick(self, index: int) -> kinds.Pod | None:
        listed = self.cluster.list(kinds.Pod).items
        return listed[index % len(listed)] if listed else None

    @initialize(minimum=st.integers(0, 3), delay=st.sampled_from((0.0, 20.0)))
    def begin(self, minimum: int, delay: float) -> None:
        meta = kinds.Meta(name="w", namespace="ns")
        self.cluster.create(kinds.Workload(meta=meta, replicas=1, shape=SHAPES[1], start_delay_s=delay))
        self.cluster.create(kinds.DisruptionBudget(meta=meta, workload="ns/w", min_available=minimum))

    @rule(target=nodes, gpus=st.integers(0, 4))
    def add_node(self, gpus: int) -> str:
        name = self.name("n")
        devices = tuple(Device(uuid=f"GPU-{name}-{index}", model="L4", memory_mib=24000) for index in range(gpus))
        self.cluster.create(node(name, devices=devices))
        return name

    @rule(name=nodes, change=st.sampled_from(("cordon", "uncordon", "unready", "ready", "lose")))
    def change_node(self, name: str, change: str) -> None:
        try:
            stored = self.cluster.get(kinds.Node, name)
        except ports.NotFound:
            return
        match change:
            case "cordon" | "uncordon":
                self.cluster.patch(stored, unschedulable=change == "cordon")
            case "ready" | "unready":
                self.cluster.patch(stored, ready=change == "ready")
            case _:
                self.cluster.delete(stored)

    @rule(shape=st.sampled_from(SHAPES), run_s=st.floats(0, 200), wait_s=st.floats(0, 50))
    def submit(self, shape: Shape, run_s: float, wait_s: float) -> None:
        self.here.jobs.submit(self.name("j"), "ns", shape, run_s, self.here.clock.now() + wait_s)

    @rule(shape=st.sampled_from(SHAPES), finalizers=st.sampled_from(((), ("hold/it",))))
    def create_pod(self, shape: Shape, finalizers: tuple[str, ...]) -> None:
        meta = kinds.Meta(name=self.name("p"), namespace="ns", finalizers=finalizers)
        self.cluster.create(kinds.Pod(meta=meta, shape=shape))

    @rule(index=st.integers(0, 50), name=nodes, first=st.integers(0, 3))
    def move(self, index: int, name: str, first: int) -> None:
        source = self.pick(index)
        if source is None:
            return
        key = f"ns/{self.name('m')}"
        devices = tuple(range(first, first + source.shape.gpus))
        meta = kinds.Meta(
            name=key.rpartition("/")[2],
            namespace="ns",
            labels=source.meta.labels,
            annotations={kinds.MOVED_FROM: source.meta.key},
        )
        placement = Placement(request=Request(id=key, shape=source.shape), node=name, devices=devices)
        self.cluster.create(kinds.Pod(meta=meta, shape=source.shape, placement=placement))

    @rule(index=st.integers(0, 50), how=st.sampled_from(("delete", "evict", "release", "label")))
    def change_pod(self, index: int, how: str) -> None:
        pod = self.pick(index)
        if pod is None:
            return
        match how:
            case "delete":
                self.cluster.delete(pod)
            case "release":
                self.cluster.patch(pod, finalizers=())
            case "label":
                self.cluster.patch(pod, labels={"touched": str(index)})
            case _:
                try:
                    self.cluster.evict(pod.meta.key)
                except ports.TooManyRequests:
                    assert pod.ready

    @rule(replicas=st.integers(0, 4))
    def scale(self, replicas: int) -> None:
        self.cluster.patch(self.cluster.get(kinds.Workload, "ns/w"), replicas=replicas)

    @rule(seconds=st.sampled_from((0.0, 1.0, 30.0, 300.0)))
    def wait(self, seconds: float) -> None:
        self.here.run((), self.here.clock.now() + seconds)

    @invariant()
    def possible_and_fully_watched(self) -> None:
        self.here.run_due()
        assert checker.check(self.cluster) == []
        for kind in kinds.KINDS:
            for event in self.cluster.watch(kind, self.since[kind]):
                if event.type is ports.EventType.DELETED:
                    del self.mirror[kind][event.object.meta.key]
                else:
                    self.mirror[kind][event.object.meta.key] = event.object
                self.since[kind] = event.resource_version
            assert {item.meta.key: item for item in self.cluster.list(kind).items} == self.mirror[kind]

    @invariant()
    def what_waits_really_fits_nowhere(self) -> None:
        book = self.here.book.allocator
        held = {item.request.id for item in book.placements()}
        for pod in self.cluster.list(kinds.Pod).items:
            if pod.placement is None and pod.meta.deleting_s is None:
                assert pod.meta.key not in held
                outcome = book.place(Request(id="probe", shape=pod.shape))
                book.release("probe")
                assert not isinstance(outcome, Placement), f"{pod.meta.key} waits and would fit"
            elif pod.phase in (kinds.PodPhase.PENDING, kinds.PodPhase.RUNNING):
                assert pod.meta.key in held or pod.placement is None


TestWalk: Callable[..., Any] = Walk.TestCase
TestWalk.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)  # type: ignore[attr-defined]
