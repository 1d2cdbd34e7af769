"""The embedded world as a whole: booting, placing, moving, finishing, losing, and doing so the same way twice."""

import dataclasses
import random
from collections.abc import Callable, Sequence

import pytest

from autoscaler.embedded import checker, clock, jobs, pods, recorder, world
from autoscaler.model import kinds, ports
from providers import offers
from vgpu.inventory import WHOLE, Device, Placement, Request, Shape

HALF = Shape(cpu_milli=1000, memory_mib=1024, gpus=1, milli=500)
ONE = Shape(cpu_milli=1000, memory_mib=1024, gpus=1)
FOUR = Shape(cpu_milli=1000, memory_mib=1024, gpus=4)
OFFER = offers.Offer(
    provider="aws",
    region="r",
    zone="z",
    instance_type="g6.12xlarge",
    capacity_type=offers.CapacityType.ON_DEMAND,
    shape=offers.MachineShape(gpu_model="L4", gpus=4, gpu_memory_mib=24000, cpu_milli=48000, memory_mib=192 * 1024),
    price_micro_usd=4_600_000,
    as_of="2026-01-01",
)


class Cloud:
    """Machines by hand."""

    def __init__(self) -> None:
        self.machines: dict[str, offers.Machine] = {}
        self.calls = 0

    def list(self) -> Sequence[offers.Machine]:
        self.calls += 1
        return tuple(self.machines.values())

    def start(self, machine_id: str, key: str) -> offers.Machine:
        machine = offers.Machine(
            id=machine_id,
            key=key,
            state=offers.MachineState.RUNNING,
            provider_id=f"aws:///z/{machine_id}",
            zone="z",
            instance_type=OFFER.instance_type,
            capacity_type=OFFER.capacity_type,
        )
        self.machines[machine_id] = machine
        return machine


def node(name: str = "n", *, gpus: int = 4, cpu_milli: int = 48000, ready: bool = True) -> kinds.Node:
    devices = tuple(Device(uuid=f"GPU-{name}-{index}", model="L4", memory_mib=24000) for index in range(gpus))
    return kinds.Node(
        meta=kinds.Meta(name=name),
        provider_id=f"aws:///z/{name}",
        ready=ready,
        cpu_milli=cpu_milli,
        memory_mib=192 * 1024,
        devices=devices,
    )


def plain_pod(name: str, shape: Shape, **annotations: str) -> kinds.Pod:
    return kinds.Pod(meta=kinds.Meta(name=name, namespace="ns", annotations=annotations), shape=shape)


def claim(here: world.EmbeddedWorld, name: str, *keys: str) -> kinds.NodeClaim:
    """A claim that has stored its attempts and is ordering."""
    stored = here.cluster.create(
        kinds.NodeClaim(
            meta=kinds.Meta(name=name, finalizers=(kinds.MACHINE_FINALIZER,)), pool="p", offers=(OFFER,), reason="test"
        )
    )
    attempts = tuple(
        kinds.Attempt(number=number, key=key, offer=OFFER, parameter_hash="h") for number, key in enumerate(keys, 1)
    )
    stage = kinds.Stage(state="Ordering", time_s=here.clock.now())
    return here.cluster.patch(stored, state=kinds.ClaimState.ORDERING, attempts=attempts, history=(stage,))


def enter(here: world.EmbeddedWorld, name: str, state: kinds.ClaimState, **fields: object) -> None:
    stored = here.cluster.get(kinds.NodeClaim, name)
    history = (*stored.history, kinds.Stage(state=state.value, time_s=here.clock.now()))
    here.cluster.patch(stored, state=state, history=history, **fields)


def replace(here: world.EmbeddedWorld, source: str, node_name: str, *devices: int) -> kinds.Pod:
    """What an engine does to move a pod: a pinned replacement with the same owner."""
    old = here.cluster.get(kinds.Pod, source)
    key = f"{source}-moved"
    return here.cluster.create(
        kinds.Pod(
            meta=kinds.Meta(
                name=key.rpartition("/")[2],
                namespace=old.meta.namespace,
                labels=old.meta.labels,
                annotations={kinds.MOVED_FROM: source},
            ),
            shape=old.shape,
            placement=Placement(request=Request(id=key, shape=old.shape), node=node_name, devices=devices),
        )
    )


def names(here: world.EmbeddedWorld) -> list[str]:
    return [pod.meta.name for pod in here.cluster.list(kinds.Pod).items]


def pod(here: world.EmbeddedWorld, key: str) -> kinds.Pod:
    return here.cluster.get(kinds.Pod, key)


@dataclasses.dataclass
class Scripted:
    """A controller that writes down when it is called and may do something there."""

    here: world.EmbeddedWorld
    act: Callable[[float], float | None] = lambda _: None
    calls: list[float] = dataclasses.field(default_factory=list[float])

    def cycle(self) -> float | None:
        now = self.here.clock.now()
        self.calls.append(now)
        return self.act(now)


# Clock and driver ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [9.9, float("nan"), -1.0])
def test_time_only_goes_forward(bad: float) -> None:
    now = clock.VirtualClock(10.0)
    now.advance_to(10.0)
    with pytest.raises(ValueError, match="only goes forward"):
        now.advance_to(bad)
    here = world.EmbeddedWorld(start_s=10.0)
    with pytest.raises(ValueError, match="from now on"):
        here.at(bad, lambda: None)
    assert now.now() == 10.0


def test_events_of_one_instant_run_in_the_order_in_which_they_were_asked_for() -> None:
    here, order = world.EmbeddedWorld(), list[str]()
    here.at(5.0, lambda: order.append("b"))

    def third() -> None:
        order.append("c")
        here.at(5.0, lambda: order.append("d"))

    here.at(5.0, third)
    here.at(1.0, lambda: order.append("a"))
    assert here.next_time() == 1.0
    here.run((), 10.0)
    assert order == ["a", "b", "c", "d"]
    assert here.clock.now() == 10.0
    assert here.next_time() is None


def test_controllers_are_called_at_once_then_a_batch_after_the_first_change_then_when_they_asked() -> None:
    here = world.EmbeddedWorld(batch_s=1.0)
    for at in (10.0, 10.5, 10.9, 30.0):
        here.jobs.submit(f"j{at}", "ns", ONE, 5.0, at)
    wakes = iter((None, 20.0, None, None))
    controller = Scripted(here, lambda _: next(wakes))
    here.run([controller], 100.0)
    # 10.5 and 10.9 fall into the batch that 10.0 opened.
    assert controller.calls == [0.0, 11.0, 20.0, 31.0]
    assert here.cycles == 4


def test_a_controllers_own_writes_do_not_call_it_but_what_the_world_makes_of_them_does() -> None:
    here = world.EmbeddedWorld(batch_s=1.0)

    def act(now: float) -> None:
        if now == 0.0:
            here.cluster.create(node())
        if now == 1.0:
            here.cluster.patch(here.cluster.get(kinds.Node, "n"), labels={"by": "me"})

    here.cluster.create(plain_pod("p", ONE))
    controller = Scripted(here, act)
    here.run([controller], 50.0)
    # At 0 the scheduler binds the pod to the new node; the label at 1 moves nobody.
    assert controller.calls == [0.0, 1.0]


def test_a_run_can_be_cut_into_pieces() -> None:
    def play(cuts: Sequence[float]) -> list[float]:
        here = world.EmbeddedWorld()
        here.cluster.create(node())
        for index in range(20):
            here.jobs.submit(f"j{index}", "ns", ONE, 7.0, 3.0 * index)
        controller = Scripted(here, lambda now: now + 13.0)
        for cut in cuts:
            here.run([controller], cut)
        return controller.calls

    assert play([100.0]) == play([10.0, 10.5, 33.0, 100.0])


def test_a_controller_that_asks_for_now_for_ever_is_called_a_livelock() -> None:
    here = world.EmbeddedWorld(max_cycles=10)
    with pytest.raises(world.Livelock, match="ran 11 times"):
        here.run([Scripted(here, lambda now: now)], 1.0)


def test_a_controller_that_dies_leaves_a_world_that_goes_on() -> None:
    cloud = Cloud()
    here = world.EmbeddedWorld(machines_from=cloud, boot_s=180.0)

    def die(_: float) -> None:
        claim(here, "c", "k")
        cloud.start("i", "k")
        raise ConnectionError("killed")

    here.at(5.0, lambda: None)
    with pytest.raises(ConnectionError):
        here.run([Scripted(here, die)], 100.0)
    here.run_due()
    assert [machine.id for machine in here.boot.known()] == ["i"]
    heir = Scripted(here)
    here.run([heir], 300.0)
    assert heir.calls == [0.0, 181.0], "called at once, and when the orphaned order's node had joined"
    assert [item.meta.name for item in here.cluster.list(kinds.Node).items] == ["node-c"]


def test_stop_ends_a_run_early() -> None:
    here = world.EmbeddedWorld()
    here.at(5.0, lambda: None)
    here.at(7.0, lambda: None)
    here.run((), 100.0, stop=lambda: here.clock.now() >= 5.0)
    assert here.clock.now() == 5.0


# Machines -----------------------------------------------------------------------------------------------------------


def test_a_machine_joins_as_the_node_of_its_claim_when_it_has_booted() -> None:
    cloud = Cloud()
    here = world.EmbeddedWorld(machines_from=cloud, boot_s=180.0, strict=True)
    here.jobs.submit("j", "ns", ONE, 100.0, 5.0)

    def buy(now: float) -> None:
        if now == 6.0:
            claim(here, "c1", "key-1")
            cloud.start("i-1", "key-1")

    here.run([Scripted(here, buy)], 185.9)
    assert here.cluster.list(kinds.Node).items == ()
    assert pod(here, "ns/j").phase is kinds.PodPhase.PENDING
    here.run((), 186.0)
    (joined,) = here.cluster.list(kinds.Node).items
    assert (joined.meta.name, joined.provider_id, joined.zone, joined.ready) == ("node-c1", "aws:///z/i-1", "z", True)
    assert joined.meta.labels[kinds.CLAIM_LABEL] == "c1"
    assert (joined.cpu_milli, joined.memory_mib, len(joined.devices)) == (48000, 192 * 1024, 4)
    assert {(device.model, device.memory_mib, device.milli) for device in joined.devices} == {("L4", 24000, WHOLE)}
    running = pod(here, "ns/j")
    assert (running.phase, running.ready, running.started_s) == (kinds.PodPhase.RUNNING, True, 186.0)
    assert running.node == "node-c1"
    assert checker.check(here.cluster) == []


@pytest.mark.parametrize(
    ("boot", "missing", "expected"),
    [
        pytest.param(60.0, 0, [4], id="early"),
        pytest.param(600.0, 0, [4], id="late"),
        pytest.param(None, 0, [], id="never"),
        pytest.param(60.0, 3, [1], id="fewer devices"),
        pytest.param(60.0, 9, [0], id="no devices"),
    ],
)
def test_boot_time_and_missing_devices_are_settings(boot: float | None, missing: int, expected: list[int]) -> None:
    cloud = Cloud()
    here = world.EmbeddedWorld(machines_from=cloud, boot_s=lambda _: boot, missing_devices=lambda _: missing)
    claim(here, "c", "k")
    cloud.start("i", "k")
    here.run((), (boot or 5000.0) - 0.5)
    assert here.cluster.list(kinds.Node).items == ()
    here.run((), 10_000.0)
    assert [len(item.devices) for item in here.cluster.list(kinds.Node).items] == expected


def test_a_machine_that_is_gone_takes_its_node_and_pods_along() -> None:
    cloud = Cloud()
    here = world.EmbeddedWorld(machines_from=cloud, boot_s=0.0)
    claim(here, "c", "k")
    cloud.start("i", "k")
    here.cluster.create(plain_pod("p", ONE))
    here.run((), 0.0)
    assert pod(here, "ns/p").ready
    del cloud.machines["i"]
    here.run((), 50.0)
    assert len(here.cluster.list(kinds.Node).items) == 1, "nobody looked"
    here.boot.look()
    since = here.cluster.version
    here.run_due()
    assert here.cluster.list(kinds.Node).items == ()
    assert names(here) == []
    events = here.cluster.watch(kinds.Pod, since)
    last = events[-1].object
    assert isinstance(last, kinds.Pod)
    assert (events[-1].type, last.phase, last.reason) == (ports.EventType.DELETED, kinds.PodPhase.FAILED, "NodeLost")
    assert [(lost.pod, lost.node, lost.time_s) for lost in here.kubelet.lost] == [("ns/p", "node-c", 50.0)]


def test_strays_and_second_machines_are_named_and_never_join() -> None:
    cloud = Cloud()
    here = world.EmbeddedWorld(machines_from=cloud, boot_s=10.0)
    claim(here, "c", "k")
    for machine_id, key in (("i-1", "k"), ("i-2", "k"), ("i-3", "unknown")):
        cloud.start(machine_id, key)
    here.run((), 100.0)
    assert [item.meta.name for item in here.cluster.list(kinds.Node).items] == ["node-c"]
    assert [machine.id for machine in here.boot.unclaimed()] == ["i-2", "i-3"]
    assert here.next_time() is None, "they do not keep knocking"
    controller = Scripted(here, lambda now: 110.0 if now < 110.0 else None)
    for machine_id in ("i-2", "i-3"):
        del cloud.machines[machine_id]
    here.run([controller], 120.0)
    assert here.boot.unclaimed() == ()
    assert [machine.id for machine in here.boot.known()] == ["i-1"]


def test_the_cloud_is_asked_only_while_a_claim_may_change_it() -> None:
    cloud = Cloud()
    here = world.EmbeddedWorld(machines_from=cloud, boot_s=5.0)
    for index in range(50):
        here.jobs.submit(f"j{index}", "ns", ONE, 1.0, 20.0 * index + 20.0)

    def act(now: float) -> None:
        match now:
            case 21.0:
                claim(here, "c", "k")
            case 101.0:
                machine = cloud.start("i", "k")
                enter(here, "c", kinds.ClaimState.LAUNCHED, machine_id=machine.id)
            case 301.0:
                enter(here, "c", kinds.ClaimState.READY, node="node-c")
            case 601.0:
                enter(here, "c", kinds.ClaimState.TERMINATING)
            case 661.0:
                cloud.machines.clear()
            case _:
                pass

    controller = Scripted(here, act)
    here.run([controller], 1000.0)
    # Once at the start; after each cycle from the order to the first sight, and from the return to the last.
    in_motion = [now for now in controller.calls if 21.0 <= now <= 101.0 or 601.0 <= now <= 661.0]
    assert cloud.calls == here.boot.looks == 1 + len(in_motion)
    assert len(controller.calls) > 3 * len(in_motion)
    assert here.cluster.list(kinds.Node).items == ()


# Scheduler ----------------------------------------------------------------------------------------------------------


def test_the_oldest_goes_first_and_what_does_not_fit_is_passed_by() -> None:
    here = world.EmbeddedWorld(strict=True)
    for at, (name, shape) in enumerate((("big", FOUR), ("second", ONE), ("third", ONE), ("late-big", FOUR))):
        here.jobs.submit(name, "ns", shape, 1000.0, float(at))
    here.at(10.0, lambda: here.cluster.create(node("small", gpus=1)) and None)
    here.run((), 10.0)
    assert [item.meta.name for item in here.cluster.list(kinds.Pod).items if item.node] == ["second"]
    here.at(20.0, lambda: here.cluster.create(node("large", gpus=4)) and None)
    here.run((), 20.0)
    bound = {item.meta.name: item.node for item in here.cluster.list(kinds.Pod).items}
    assert bound == {"big": "large", "second": "small", "third": None, "late-big": None}


def test_a_class_that_was_refused_is_not_tried_again_until_room_appears() -> None:
    here = world.EmbeddedWorld()
    here.cluster.create(node(gpus=1))
    for index in range(200):
        here.jobs.submit(f"j{index:03}", "ns", ONE, 1000.0, float(index))
    here.run((), 500.0)
    assert here.scheduler.tried == 2, "one placed, one refused, 198 known not to fit"
    here.run((), 1000.0)
    assert here.scheduler.tried == 4, "the first ended: one placed, one refused"
    assert here.jobs.get("ns", "j001").state is jobs.JobState.RUNNING


@pytest.mark.parametrize("change", [{"unschedulable": True}, {"ready": False}])
def test_closed_nodes_get_no_pods_until_they_open(change: dict[str, object]) -> None:
    here = world.EmbeddedWorld()
    closed = here.cluster.patch(here.cluster.create(node()), **change)
    here.cluster.create(plain_pod("p", ONE))
    here.run_due()
    assert pod(here, "ns/p").node is None
    here.cluster.patch(closed, unschedulable=False, ready=True)
    here.run_due()
    assert pod(here, "ns/p").node == "n"


# Kubelet ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "devices", "target", "phase", "reason"),
    [
        (HALF, (0,), "n", kinds.PodPhase.RUNNING, ""),
        (ONE, (0,), "n", kinds.PodPhase.FAILED, "OutOfDevice"),
        (ONE, (1,), "n", kinds.PodPhase.RUNNING, ""),
        (ONE, (7,), "n", kinds.PodPhase.FAILED, "OutOfDevice"),
        (Shape(cpu_milli=47_500, gpus=0), (), "n", kinds.PodPhase.FAILED, "OutOfCpu"),
        (Shape(memory_mib=192 * 1024, gpus=0), (), "n", kinds.PodPhase.FAILED, "OutOfMemory"),
    ],
)
def test_a_pinned_pod_is_admitted_exactly_when_its_place_is_free(
    shape: Shape, devices: tuple[int, ...], target: str, phase: kinds.PodPhase, reason: str
) -> None:
    here = world.EmbeddedWorld(strict=True)
    here.cluster.create(node())
    here.cluster.create(plain_pod("first", HALF))
    here.run_due()
    assert pod(here, "ns/first").placement == Placement(
        request=Request(id="ns/first", shape=HALF), node="n", devices=(0,)
    )
    here.cluster.create(
        kinds.Pod(
            meta=kinds.Meta(name="pinned", namespace="ns"),
            shape=shape,
            placement=Placement(request=Request(id="ns/pinned", shape=shape), node=target, devices=devices),
        )
    )
    here.run_due()
    pinned = pod(here, "ns/pinned")
    assert (pinned.phase, pinned.reason) == (phase, reason)
    assert checker.check(here.cluster) == []


def test_a_pod_pinned_to_an_absent_node_is_lost_and_one_on_an_unready_node_waits() -> None:
    here = world.EmbeddedWorld()
    closed = here.cluster.create(node("later", ready=False))
    for name, target in (("lost", "absent"), ("waits", "later")):
        here.cluster.create(
            kinds.Pod(
                meta=kinds.Meta(name=name, namespace="ns"),
                shape=ONE,
                placement=Placement(request=Request(id=f"ns/{name}", shape=ONE), node=target, devices=(0,)),
            )
        )
    here.run_due()
    assert names(here) == ["waits"]
    assert pod(here, "ns/waits").phase is kinds.PodPhase.PENDING
    here.cluster.patch(closed, ready=True)
    here.run_due()
    assert pod(here, "ns/waits").ready


def test_a_pod_is_ready_after_its_start_delay() -> None:
    here = world.EmbeddedWorld()
    here.cluster.create(node())
    here.cluster.create(plain_pod("slow", ONE, **{pods.START_DELAY: "20"}))
    here.run((), 19.9)
    slow = pod(here, "ns/slow")
    assert (slow.phase, slow.ready, slow.started_s) == (kinds.PodPhase.RUNNING, False, 0.0)
    here.run((), 20.0)
    assert pod(here, "ns/slow").ready
    for bad in ("soon", "-1", "nan", "inf"):
        with pytest.raises(ports.UnprocessableEntity, match="start-delay"):
            here.cluster.create(plain_pod("bad", ONE, **{pods.START_DELAY: bad}))


def test_a_pod_made_anew_under_an_old_name_waits_its_own_delay() -> None:
    here = world.EmbeddedWorld()
    here.cluster.create(node())
    slow = plain_pod("slow", ONE, **{pods.START_DELAY: "20"})
    here.cluster.create(slow)
    here.run((), 10.0)
    here.cluster.evict("ns/slow")
    here.cluster.create(slow)
    here.run((), 29.9)
    assert not pod(here, "ns/slow").ready
    here.run((), 30.0)
    assert pod(here, "ns/slow").ready


def test_a_device_that_falls_ill_fails_the_pods_on_it() -> None:
    here = world.EmbeddedWorld()
    stored = here.cluster.create(node(gpus=1))
    here.jobs.submit("j", "ns", ONE, 100.0, 0.0)
    here.run((), 10.0)
    sick = (dataclasses.replace(stored.devices[0], healthy=False),)
    here.cluster.patch(stored, devices=sick)
    here.run_due()
    facts = here.jobs.get("ns", "j")
    assert (facts.state, facts.lost) == (jobs.JobState.PENDING, 1)
    assert pod(here, "ns/j").node is None


# Workloads ----------------------------------------------------------------------------------------------------------


def deploy(here: world.EmbeddedWorld, replicas: int, *, delay: float = 0.0, shape: Shape = ONE) -> kinds.Workload:
    meta = kinds.Meta(name="w", namespace="ns")
    stored = here.cluster.create(kinds.Workload(meta=meta, replicas=replicas, shape=shape, start_delay_s=delay))
    here.run_due()
    return stored


def scale(here: world.EmbeddedWorld, replicas: int) -> None:
    here.cluster.patch(here.cluster.get(kinds.Workload, "ns/w"), replicas=replicas)
    here.run_due()


def test_replicas_are_made_counted_when_ready_and_replaced_under_new_names() -> None:
    here = world.EmbeddedWorld(strict=True)
    here.cluster.create(node())
    deploy(here, 2, delay=20.0)
    assert names(here) == ["w-0", "w-1"]
    assert here.cluster.get(kinds.Workload, "ns/w").ready_replicas == 0
    here.run((), 20.0)
    assert here.cluster.get(kinds.Workload, "ns/w").ready_replicas == 2
    here.cluster.evict("ns/w-0")
    here.run_due()
    assert names(here) == ["w-1", "w-2"]
    assert here.cluster.get(kinds.Workload, "ns/w").ready_replicas == 1
    scale(here, 0)
    assert names(here) == []
    assert here.cluster.get(kinds.Workload, "ns/w").ready_replicas == 0
    scale(here, 1)
    assert names(here) == ["w-3"]


def test_scale_down_takes_the_newest_that_is_not_ready_first() -> None:
    here = world.EmbeddedWorld()
    here.cluster.create(node(gpus=2))
    deploy(here, 2)
    here.run((), 10.0)
    scale(here, 4)
    assert [item.meta.name for item in here.cluster.list(kinds.Pod).items if not item.ready] == ["w-2", "w-3"]
    for replicas, left in ((3, ["w-0", "w-1", "w-2"]), (2, ["w-0", "w-1"]), (1, ["w-0"])):
        scale(here, replicas)
        assert names(here) == left


def test_scale_down_keeps_a_ready_pod_before_an_older_one_that_waits() -> None:
    here = world.EmbeddedWorld()
    here.jobs.submit("j", "ns", ONE, 5.0, 0.0)
    deploy(here, 1, shape=FOUR)
    here.cluster.create(node("n", gpus=1))
    here.run((), 10.0)
    ready = kinds.Pod(meta=kinds.Meta(name="x", namespace="ns", labels={kinds.WORKLOAD_LABEL: "ns/w"}), shape=ONE)
    here.cluster.patch(here.cluster.get(kinds.Workload, "ns/w"), replicas=2)
    here.cluster.create(ready)
    here.run_due()
    assert [(item.meta.name, item.ready) for item in here.cluster.list(kinds.Pod).items] == [
        ("w-0", False),
        ("x", True),
    ]
    scale(here, 1)
    assert names(here) == ["x"]


def test_pods_go_with_their_workload() -> None:
    here = world.EmbeddedWorld()
    deploy(here, 3)
    here.cluster.delete(here.cluster.get(kinds.Workload, "ns/w"))
    here.run_due()
    assert names(here) == []


def test_a_replacement_takes_a_replicas_place_without_a_gap() -> None:
    here = world.EmbeddedWorld(strict=True, move_hold_s=60.0)
    for name in ("a", "b"):
        here.cluster.create(node(name, gpus=1))
    deploy(here, 1)
    assert pod(here, "ns/w-0").node == "a"
    replace(here, "ns/w-0", "b", 0)
    here.run((), 59.9)
    assert names(here) == ["w-0", "w-0-moved"]
    assert not pod(here, "ns/w-0-moved").ready
    here.run((), 60.0)
    assert pod(here, "ns/w-0-moved").ready
    here.cluster.evict("ns/w-0")
    here.run_due()
    assert names(here) == ["w-0-moved"], "no third pod is made"
    assert here.cluster.get(kinds.Workload, "ns/w").ready_replicas == 1


# Jobs ---------------------------------------------------------------------------------------------------------------


def test_a_job_runs_its_time_from_its_start_and_is_gone() -> None:
    here = world.EmbeddedWorld()
    here.jobs.submit("j", "ns", ONE, 100.0, 10.0)
    assert here.jobs.get("ns", "j").state is jobs.JobState.SUBMITTED
    here.at(50.0, lambda: here.cluster.create(node()) and None)
    here.run((), 20.0)
    assert here.jobs.get("ns", "j").state is jobs.JobState.PENDING
    here.run((), 149.0)
    assert here.jobs.get("ns", "j").state is jobs.JobState.RUNNING
    here.run((), 150.0)
    facts = here.jobs.get("ns", "j")
    assert (facts.state, facts.arrival_s, facts.start_s, facts.end_s) == (jobs.JobState.FINISHED, 10.0, 50.0, 150.0)
    assert names(here) == []


@pytest.mark.parametrize(
    ("name", "run_s", "at", "message"),
    [("j", 1.0, 5.0, "twice"), ("k", -1.0, 5.0, "run_s"), ("k", 1.0, -5.0, "from now on"), ("a/b", 1.0, 5.0, "slash")],
)
def test_impossible_jobs_are_refused_and_leave_nothing(name: str, run_s: float, at: float, message: str) -> None:
    here = world.EmbeddedWorld()
    here.jobs.submit("j", "ns", ONE, 1.0, 0.0)
    with pytest.raises(ValueError, match=message):
        here.jobs.submit(name, "ns", ONE, run_s, at)
    here.run((), 100.0)
    assert [facts.name for facts in here.jobs.facts()] == ["j"]


def test_a_move_keeps_the_run_time_and_both_stays_are_on_record() -> None:
    here = world.EmbeddedWorld(strict=True, move_hold_s=60.0)
    record = recorder.Recorder(here.cluster, here.clock)
    for name in ("a", "b"):
        here.cluster.create(node(name, gpus=1))
    here.jobs.submit("j", "ns", ONE, 1000.0, 0.0)
    here.run((), 300.0)
    replace(here, "ns/j", "b", 0)
    here.run((), 360.0)
    here.cluster.evict("ns/j")
    here.run((), 999.0)
    assert names(here) == ["j-moved"]
    here.run((), 1000.0)
    assert names(here) == []
    facts = here.jobs.get("ns", "j")
    assert (facts.state, facts.start_s, facts.end_s, facts.lost) == (jobs.JobState.FINISHED, 0.0, 1000.0, 0)
    assert [(stay.pod, stay.claim, stay.devices, stay.start_s, stay.end_s) for stay in record.stays()] == [
        ("j", "a", (0,), 0.0, 360.0),
        ("j", "b", (0,), 300.0, 1000.0),
    ]


def test_a_pod_that_moves_twice_keeps_its_first_name_on_record() -> None:
    here = world.EmbeddedWorld(move_hold_s=0.0)
    record = recorder.Recorder(here.cluster, here.clock)
    for name in ("a", "b"):
        here.cluster.create(node(name, gpus=1))
    here.jobs.submit("j", "ns", ONE, 100.0, 0.0)
    here.run_due()
    for source, target in (("ns/j", "b"), ("ns/j-moved", "a")):
        replace(here, source, target, 0)
        here.run_due()
        here.cluster.evict(source)
    here.run((), 100.0)
    assert [(stay.pod, stay.claim) for stay in record.stays()] == [("j", "a"), ("j", "b"), ("j", "a")]
    assert here.jobs.lost == 0


def test_a_job_that_ends_during_its_move_takes_both_pods_along() -> None:
    here = world.EmbeddedWorld()
    for name in ("a", "b"):
        here.cluster.create(node(name, gpus=1))
    here.jobs.submit("j", "ns", ONE, 100.0, 0.0)
    here.run((), 80.0)
    replace(here, "ns/j", "b", 0)
    here.run((), 100.0)
    assert names(here) == []
    assert here.jobs.get("ns", "j").state is jobs.JobState.FINISHED
    here.run((), 500.0)
    assert here.jobs.lost == 0


def test_a_lost_node_sends_the_job_back_to_its_beginning_and_counts_it() -> None:
    here = world.EmbeddedWorld(strict=True)
    record = recorder.Recorder(here.cluster, here.clock)
    here.cluster.create(node("a"))
    here.jobs.submit("j", "ns", ONE, 100.0, 0.0)
    here.run((), 70.0)
    here.cluster.delete(here.cluster.get(kinds.Node, "a"))
    here.run_due()
    assert pod(here, "ns/j").phase is kinds.PodPhase.PENDING
    here.cluster.create(node("b"))
    here.run((), 169.0)
    facts = here.jobs.get("ns", "j")
    assert (facts.state, facts.lost, facts.start_s) == (jobs.JobState.RUNNING, 1, 0.0)
    here.run((), 170.0)
    assert here.jobs.get("ns", "j").end_s == 170.0
    assert here.jobs.lost == 1
    assert [(stay.claim, stay.start_s, stay.end_s) for stay in record.stays()] == [("a", 0.0, 70.0), ("b", 70.0, 170.0)]


def test_a_source_taken_before_its_replacement_is_ready_loses_the_run() -> None:
    here = world.EmbeddedWorld(move_hold_s=60.0)
    for name in ("a", "b"):
        here.cluster.create(node(name, gpus=1))
    here.jobs.submit("j", "ns", ONE, 100.0, 0.0)
    here.run((), 50.0)
    replace(here, "ns/j", "b", 0)
    here.run((), 80.0)
    here.cluster.evict("ns/j")
    here.run((), 109.0)
    assert here.jobs.lost == 1
    here.run((), 209.0)
    assert here.jobs.get("ns", "j").state is jobs.JobState.RUNNING
    here.run((), 210.0)
    assert here.jobs.get("ns", "j").end_s == 210.0, "the run began again when the replacement was ready, at 110"


def test_a_rejected_replacement_stays_for_its_maker_and_harms_nobody() -> None:
    here = world.EmbeddedWorld()
    here.cluster.create(node("a", gpus=1))
    here.cluster.create(node("b", gpus=1))
    here.jobs.submit("j", "ns", ONE, 100.0, 0.0)
    here.jobs.submit("k", "ns", ONE, 100.0, 0.0)
    here.run((), 10.0)
    replace(here, "ns/j", "b", 0)
    here.run((), 20.0)
    failed = pod(here, "ns/j-moved")
    assert (failed.phase, failed.reason) == (kinds.PodPhase.FAILED, "OutOfDevice")
    here.cluster.delete(failed)
    here.run((), 100.0)
    assert [facts.state for facts in here.jobs.facts()] == [jobs.JobState.FINISHED] * 2
    assert here.jobs.lost == 0


def test_a_pending_job_whose_pod_is_deleted_comes_back() -> None:
    here = world.EmbeddedWorld()
    here.jobs.submit("j", "ns", ONE, 100.0, 0.0)
    here.run((), 5.0)
    first = pod(here, "ns/j")
    here.cluster.delete(first)
    here.run_due()
    assert pod(here, "ns/j").meta.uid != first.meta.uid
    assert here.jobs.get("ns", "j").lost == 1


# Records ------------------------------------------------------------------------------------------------------------


def test_machine_records_follow_the_claims_history() -> None:
    cloud = Cloud()
    here = world.EmbeddedWorld(machines_from=cloud, boot_s=180.0)
    record = recorder.Recorder(here.cluster, here.clock)
    here.clock.advance_to(10.0)
    claim(here, "never", "key-0")
    claim(here, "c", "key-1")
    machine = cloud.start("i-1", "key-1")
    here.clock.advance_to(12.0)
    enter(here, "c", kinds.ClaimState.LAUNCHED, machine_id="i-1", provider_id=machine.provider_id)
    here.run((), 200.0)
    enter(here, "c", kinds.ClaimState.READY, node="node-c")
    (entry,) = record.machines()
    assert (entry.claim, entry.machine_id, entry.instance_type, entry.gpus) == ("c", "i-1", "g6.12xlarge", 4)
    assert (entry.capacity_type, entry.ordered_s, entry.ready_s, entry.terminated_s) == ("on-demand", 10.0, 192.0, None)
    here.clock.advance_to(300.0)
    enter(here, "c", kinds.ClaimState.TERMINATING)
    here.clock.advance_to(330.0)
    stored = here.cluster.get(kinds.NodeClaim, "c")
    here.cluster.delete(stored)
    here.cluster.patch(here.cluster.get(kinds.NodeClaim, "c"), finalizers=())
    (entry,) = record.machines()
    assert (entry.ordered_s, entry.ready_s, entry.terminated_s) == (10.0, 192.0, 300.0), "ready when its node was"


# Determinism --------------------------------------------------------------------------------------------------------


def play(seed: int) -> tuple[tuple[ports.WatchEvent, ...], list[float], tuple[jobs.JobFacts, ...]]:
    """A busy afternoon: jobs, moves, a lost node, a workload that goes up and down."""
    draw, cloud = random.Random(seed), Cloud()
    here = world.EmbeddedWorld(machines_from=cloud, boot_s=30.0, seed=seed)
    history: list[ports.WatchEvent] = []
    struck: list[str] = []
    here.cluster.subscribe(history.append)
    for index in range(60):
        shape = draw.choice((HALF, ONE, FOUR))
        here.jobs.submit(f"j{index}", "ns", shape, draw.uniform(1, 300), draw.uniform(0, 900))
    deploy(here, 2)

    def act(now: float) -> float:
        bought = len(cloud.machines)
        if bought < 5 and now > 60 * bought:
            claim(here, f"c{bought}", f"k{bought}")
            cloud.start(f"i-{bought}", f"k{bought}")
        if 500 < now < 540:
            scale(here, draw.randrange(4))
        nodes = here.cluster.list(kinds.Node).items
        if len(nodes) > 2 and now > 700 and not struck:
            struck.append(nodes[0].meta.name)
            here.cluster.delete(nodes[0])
        return now + 17.0

    controller = Scripted(here, act)
    here.run([controller], 5000.0)
    assert checker.check(here.cluster) == []
    return tuple(history), controller.calls, here.jobs.facts()


def test_the_same_seed_gives_the_same_history() -> None:
    first, again, other = play(7), play(7), play(8)
    assert first == again
    assert first[0] != other[0]
    assert {facts.state for facts in first[2]} == {jobs.JobState.FINISHED}
    assert sum(facts.lost for facts in first[2]) > 0
