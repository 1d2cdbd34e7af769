"""What the engine knows of the cluster: the same by following as by listing afresh, whatever happened."""

import dataclasses
from collections.abc import Mapping

import hypothesis.strategies as st
import msgspec
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from autoscaler.embedded.clock import VirtualClock
from autoscaler.embedded.store import EmbeddedCluster
from autoscaler.engine import view as views
from autoscaler.engine.view import ClusterView
from autoscaler.model import kinds, ports
from vgpu.inventory import Device, Placement, Request, Shape

HALF = Shape(cpu_milli=100, gpus=1, milli=500)
WHOLE = Shape(cpu_milli=100, gpus=1)
PAIR = Shape(gpus=2)


def devices(count: int, model: str = "L4") -> tuple[Device, ...]:
    return tuple(Device(uuid=f"{model}-{index}", model=model, memory_mib=24_000) for index in range(count))


def node(name: str, gpus: int = 2, *, claim: str = "", ready: bool = True) -> kinds.Node:
    labels = {kinds.CLAIM_LABEL: claim} if claim else {}
    return kinds.Node(
        meta=kinds.Meta(name=name, labels=labels), ready=ready, cpu_milli=1000, memory_mib=1000, devices=devices(gpus)
    )


def pod(name: str, shape: Shape = WHOLE) -> kinds.Pod:
    return kinds.Pod(meta=kinds.Meta(name=name, namespace="ns"), shape=shape)


def placed(key: str, shape: Shape, on: str, *indexes: int) -> Placement:
    return Placement(request=Request(id=key, shape=shape), node=on, devices=indexes)


class World:
    """A cluster and a view that follows it."""

    def __init__(self, history: int = 10_000) -> None:
        self.cluster = EmbeddedCluster(VirtualClock(0.0), history=history)
        self.view = ClusterView(self.cluster)
        self.view.refresh()

    def bind(self, name: str, on: str, *indexes: int, shape: Shape = WHOLE) -> kinds.Pod:
        """Create a pod and bind it, as the scheduler does."""
        created = self.cluster.create(pod(name, shape))
        return self.cluster.patch(created, placement=placed(created.meta.key, shape, on, *indexes))

    def fresh(self) -> ClusterView:
        listed = ClusterView(self.cluster)
        listed.refresh()
        return listed

    def agree(self) -> None:
        """The follower knows what a newcomer reads from the lists."""
        self.view.refresh()
        assert facts(self.view) == facts(self.fresh())


def facts(view: ClusterView) -> Mapping[str, object]:
    allocator = view.ledger.allocator
    return {
        **{kind.__name__: dict(sorted(view.of(kind).items())) for kind in kinds.KINDS},
        "pods_on": {name: dict(sorted(pods.items())) for name, pods in sorted(view.pods_on.items()) if pods},
        "waiting": dict(sorted(view.waiting.items())),
        "node_of_claim": dict(sorted(view.node_of_claim.items())),
        "ledger": allocator.digest(),
        "closed": sorted(known.name for known in allocator.nodes() if allocator.is_cordoned(known.name)),
        "refused": dict(sorted(view.ledger.refused.items())),
    }


@pytest.fixture
def world() -> World:
    return World()


def closed(world: World, name: str) -> bool:
    return world.view.ledger.allocator.is_cordoned(name)


def held(world: World) -> dict[str, str]:
    return {item.request.id: item.node for item in world.view.ledger.allocator.placements()}


# Following -----------------------------------------------------------------------------------------------------------


def test_a_pod_waits_and_is_bound_and_ends(world: World) -> None:
    world.cluster.create(node("a"))
    created = world.cluster.create(pod("p"))
    world.view.refresh()
    assert list(world.view.waiting) == ["ns/p"]
    bound = world.cluster.patch(created, placement=placed("ns/p", WHOLE, "a", 1))
    world.view.refresh()
    assert world.view.waiting == {}
    assert world.view.pods_on["a"] == {"ns/p": bound}
    assert world.view.ledger.allocator.placement("ns/p") == bound.placement
    before = world.view.departures
    world.cluster.patch(bound, phase=kinds.PodPhase.SUCCEEDED)
    world.view.refresh()
    assert world.view.pods_on["a"] == {}
    assert held(world) == {}
    assert world.view.departures == before + 1
    assert "ns/p" in world.view.of(kinds.Pod)
    world.agree()


def test_a_quiet_cluster_changes_nothing(world: World) -> None:
    world.cluster.create(node("a"))
    assert world.view.refresh() == 1
    version = world.view.version
    assert world.view.refresh() == 0
    assert world.view.version == version


def test_its_own_writes_are_known_at_once_and_counted_once(world: World) -> None:
    created = world.view.create(pod("p"))
    assert list(world.view.waiting) == ["ns/p"]
    world.view.patch(created, phase=kinds.PodPhase.FAILED)
    assert world.view.waiting == {}
    version = world.view.version
    world.view.refresh()
    assert world.view.version == version


def test_its_own_deletions_are_known_at_once(world: World) -> None:
    world.view.delete(world.view.create(pod("p")))
    held_back = world.view.create(
        msgspec.structs.replace(pod("q"), meta=kinds.Meta(name="q", namespace="ns", finalizers=("x",)))
    )
    world.view.delete(held_back)
    assert list(world.view.of(kinds.Pod)) == ["ns/q"]
    marked = world.view.of(kinds.Pod)["ns/q"]
    assert marked.meta.deleting_s is not None
    world.view.release(marked)
    assert world.view.of(kinds.Pod) == {}
    world.view.evict(held_back)
    world.agree()


@pytest.mark.parametrize(
    "change", [{"ready": False}, {"unschedulable": True}], ids=["not ready", "closed by its owner"]
)
def test_a_node_out_of_service_takes_nothing_new(world: World, change: dict[str, object]) -> None:
    created = world.cluster.create(node("a"))
    world.bind("p", "a", 0)
    changed = world.cluster.patch(created, **change)
    world.view.refresh()
    assert closed(world, "a")
    assert held(world) == {"ns/p": "a"}
    world.cluster.patch(changed, ready=True, unschedulable=False)
    world.view.refresh()
    assert not closed(world, "a")


def test_a_node_that_is_being_deleted_takes_nothing_new(world: World) -> None:
    meta = kinds.Meta(name="a", finalizers=("x",))
    world.cluster.delete(world.cluster.create(msgspec.structs.replace(node("a"), meta=meta)))
    world.view.refresh()
    assert closed(world, "a")


# What it missed ------------------------------------------------------------------------------------------------------


def test_a_watch_that_fell_behind_lists_again_and_finds_what_it_missed() -> None:
    world = World(history=3)
    world.cluster.create(node("a"))
    world.cluster.create(node("b"))
    gone, stays = world.bind("gone", "a", 0), world.bind("stays", "a", 1)
    waits = world.cluster.create(pod("waits"))
    world.view.refresh()
    before = world.view.departures
    world.cluster.delete(gone)
    world.cluster.delete(waits)
    world.cluster.delete(world.cluster.get(kinds.Node, "b"))
    for index in range(20):
        stays = world.cluster.patch(stays, annotations={"x": str(index)})
        world.cluster.patch(world.cluster.get(kinds.Node, "a"), annotations={"x": str(index)})
    with pytest.raises(ports.Gone):
        world.cluster.watch(kinds.Pod, waits.meta.resource_version)
    assert world.view.refresh() > 0
    assert list(world.view.of(kinds.Pod)) == ["ns/stays"]
    assert world.view.of(kinds.Pod)["ns/stays"] == stays
    assert list(world.view.of(kinds.Node)) == ["a"]
    assert world.view.waiting == {}
    assert held(world) == {"ns/stays": "a"}
    assert world.view.departures == before + 1
    world.agree()


def test_a_pod_that_was_replaced_under_its_name_while_nobody_watched() -> None:
    world = World(history=1)
    world.cluster.create(node("a"))
    world.cluster.create(node("b"))
    old = world.bind("p", "a", 0)
    world.view.refresh()
    world.cluster.delete(old)
    new = world.bind("p", "b", 1)
    world.view.refresh()
    assert world.view.pods_on == {"a": {}, "b": {"ns/p": new}}
    assert held(world) == {"ns/p": "b"}
    world.agree()


# Out of order --------------------------------------------------------------------------------------------------------


def test_an_older_version_changes_nothing(world: World) -> None:
    first = world.view.create(pod("p"))
    second = world.view.patch(first, annotations={"x": "1"})
    version = world.view.version
    world.view.learn(first)
    world.view.learn(second)
    assert world.view.version == version
    assert world.view.of(kinds.Pod)["ns/p"] == second


def test_an_older_object_of_the_same_name_changes_nothing(world: World) -> None:
    world.cluster.create(node("a"))
    world.view.refresh()
    old = world.bind("p", "a", 0)
    world.cluster.delete(old)
    new = world.view.create(pod("p"))
    world.view.learn(old)
    assert world.view.of(kinds.Pod)["ns/p"] == new
    assert list(world.view.waiting) == ["ns/p"]
    assert held(world) == {}
    world.view.forget(old)
    assert world.view.of(kinds.Pod)["ns/p"] == new
    world.agree()


def test_forgetting_what_was_never_known_is_fine(world: World) -> None:
    version = world.view.version
    world.view.forget(pod("p"))
    assert world.view.version == version


# Nodes and their records ---------------------------------------------------------------------------------------------


def test_a_pod_bound_before_its_node_is_known_is_entered_when_it_comes(world: World) -> None:
    bound = world.bind("p", "late", 1)
    world.view.refresh()
    assert world.view.pods_on["late"] == {"ns/p": bound}
    assert world.view.waiting == {}
    assert held(world) == {}
    assert world.view.ledger.refused == {}
    world.cluster.create(node("late"))
    world.view.refresh()
    assert held(world) == {"ns/p": "late"}
    assert world.view.ledger.allocator.whole_free("late") == 1
    world.agree()


def test_a_pod_that_ended_before_its_node_came_is_not_entered(world: World) -> None:
    bound = world.bind("p", "late", 1)
    world.view.refresh()
    world.cluster.delete(bound)
    world.cluster.create(node("late"))
    world.view.refresh()
    assert held(world) == {}
    world.agree()


def test_a_node_that_goes_and_comes_back_finds_its_pods(world: World) -> None:
    world.cluster.create(node("a"))
    world.bind("p", "a", 0)
    world.view.refresh()
    world.cluster.delete(world.cluster.get(kinds.Node, "a"))
    world.view.refresh()
    assert not world.view.ledger.allocator.has_node("a")
    assert list(world.view.pods_on["a"]) == ["ns/p"]
    world.agree()
    world.cluster.create(node("a", 1))
    world.view.refresh()
    assert held(world) == {"ns/p": "a"}
    world.agree()


def test_a_node_that_registers_more_devices_keeps_its_pods(world: World) -> None:
    created = world.cluster.create(node("a", 1))
    world.bind("p", "a", 0)
    world.view.refresh()
    assert world.view.ledger.allocator.whole_free("a") == 0
    world.cluster.patch(created, devices=devices(4))
    world.view.refresh()
    assert world.view.ledger.allocator.whole_free("a") == 3
    assert held(world) == {"ns/p": "a"}
    world.agree()


def test_a_node_that_loses_a_device_under_a_pod_is_closed_until_the_pod_is_gone(world: World) -> None:
    created = world.cluster.create(node("a", 2))
    bound = world.bind("p", "a", 1)
    world.view.refresh()
    world.cluster.patch(created, devices=devices(1))
    world.view.refresh()
    assert closed(world, "a")
    assert "no device 1" in world.view.ledger.refused["ns/p"].why
    world.cluster.delete(bound)
    world.view.refresh()
    assert not closed(world, "a")
    world.agree()


def test_a_record_that_does_not_add_up_closes_its_node_and_no_other(world: World) -> None:
    world.cluster.create(node("a"))
    world.cluster.create(node("b"))
    world.bind("p", "a", 0)
    clash = world.bind("q", "a", 0)
    world.view.refresh()
    assert closed(world, "a")
    assert not closed(world, "b")
    assert list(world.view.ledger.refused) == ["ns/q"]
    assert set(world.view.pods_on["a"]) == {"ns/p", "ns/q"}
    world.agree()
    world.cluster.delete(clash)
    world.view.refresh()
    assert not closed(world, "a")
    world.agree()


def test_a_clash_ends_when_either_side_is_gone(world: World) -> None:
    world.cluster.create(node("a"))
    first = world.bind("p", "a", 0)
    world.bind("q", "a", 0)
    world.view.refresh()
    world.cluster.delete(first)
    world.view.refresh()
    assert not closed(world, "a")
    assert held(world) == {"ns/q": "a"}
    world.agree()


def test_a_wrong_record_on_a_node_that_is_gone_is_forgotten(world: World) -> None:
    created = world.cluster.create(node("a"))
    world.bind("p", "a", 7)
    world.view.refresh()
    world.cluster.delete(created)
    world.agree()
    assert world.view.ledger.refused == {}


def test_a_claims_node_follows_its_label(world: World) -> None:
    created = world.cluster.create(node("a", claim="one"))
    world.view.refresh()
    assert world.view.node_of_claim == {"one": "a"}
    moved = world.cluster.patch(created, labels={kinds.CLAIM_LABEL: "two"})
    world.view.refresh()
    assert world.view.node_of_claim == {"two": "a"}
    bare = world.cluster.patch(moved, labels={kinds.CLAIM_LABEL: None})
    world.view.refresh()
    assert world.view.node_of_claim == {}
    world.cluster.delete(bare)
    world.agree()


def test_of_two_nodes_of_one_claim_the_first_by_name_counts(world: World) -> None:
    world.cluster.create(node("b", claim="one"))
    first = world.cluster.create(node("a", claim="one"))
    last = world.cluster.create(node("c", claim="one"))
    world.view.refresh()
    assert world.view.node_of_claim == {"one": "a"}
    world.agree()
    world.cluster.delete(last)
    world.cluster.delete(first)
    world.view.refresh()
    assert world.view.node_of_claim == {"one": "b"}
    world.agree()


def test_pods_by_age() -> None:
    def aged(name: str, created_s: float) -> kinds.Pod:
        return kinds.Pod(meta=kinds.Meta(name=name, created_s=created_s), shape=WHOLE)

    ordered = views.by_creation([aged("b", 2.0), aged("z", 1.0), aged("a", 2.0)])
    assert [item.meta.name for item in ordered] == ["z", "a", "b"]


# Any history ---------------------------------------------------------------------------------------------------------

PODS = st.sampled_from(("p", "q", "r", "s", "t"))
NODES = st.sampled_from(("a", "b", "c"))
SHAPES = st.sampled_from((HALF, HALF, WHOLE, PAIR, Shape(cpu_milli=600)))


@dataclasses.dataclass(frozen=True)
class Known:
    """What the machine may act on: objects as the cluster holds them now."""

    cluster: EmbeddedCluster

    def pod(self, name: str) -> kinds.Pod | None:
        return next((item for item in self.cluster.list(kinds.Pod).items if item.meta.name == name), None)

    def node(self, name: str) -> kinds.Node | None:
        return next((item for item in self.cluster.list(kinds.Node).items if item.meta.name == name), None)


class Histories(RuleBasedStateMachine):
    """Writes of any kind in any order; one view reads after each, one now and then, and one falls behind its watch."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World(history=4)
        self.cluster = self.world.cluster
        self.known = Known(self.cluster)
        self.late = ClusterView(self.cluster)

    @rule(name=PODS, shape=SHAPES, finalizer=st.booleans())
    def create_pod(self, name: str, shape: Shape, finalizer: bool) -> None:
        if self.known.pod(name) is None:
            meta = kinds.Meta(name=name, namespace="ns", finalizers=("x",) if finalizer else ())
            self.cluster.create(kinds.Pod(meta=meta, shape=shape))

    @rule(name=PODS, on=NODES, first=st.integers(0, 2))
    def bind(self, name: str, on: str, first: int) -> None:
        """Anywhere, whether it adds up or not."""
        found = self.known.pod(name)
        if found is not None and found.placement is None:
            indexes = range(first, first + found.shape.gpus)
            self.cluster.patch(found, placement=placed(found.meta.key, found.shape, on, *indexes))

    @rule(name=PODS, phase=st.sampled_from(kinds.PodPhase), ready=st.booleans())
    def pod_moves_on(self, name: str, phase: kinds.PodPhase, ready: bool) -> None:
        found = self.known.pod(name)
        if found is not None and (phase is not kinds.PodPhase.RUNNING or found.placement is not None):
            self.cluster.patch(found, phase=phase, ready=ready)

    @rule(name=PODS)
    def delete_pod(self, name: str) -> None:
        found = self.known.pod(name)
        if found is not None:
            self.cluster.delete(found)

    @rule(name=PODS)
    def release_pod(self, name: str) -> None:
        found = self.known.pod(name)
        if found is not None and found.meta.finalizers:
            self.cluster.patch(found, finalizers=())

    @rule(name=NODES, gpus=st.integers(0, 3), ready=st.booleans())
    def create_node(self, name: str, gpus: int, ready: bool) -> None:
        if self.known.node(name) is None:
            self.cluster.create(node(name, gpus, claim="one", ready=ready))

    @rule(name=NODES, gpus=st.integers(0, 3), model=st.sampled_from(("L4", "T4")))
    def register_devices(self, name: str, gpus: int, model: str) -> None:
        found = self.known.node(name)
        if found is not None:
            self.cluster.patch(found, devices=devices(gpus, model))

    @rule(name=NODES, ready=st.booleans(), unschedulable=st.booleans(), claim=st.sampled_from(("one", "two", None)))
    def node_changes(self, name: str, ready: bool, unschedulable: bool, claim: str | None) -> None:
        found = self.known.node(name)
        if found is not None:
            labels = {kinds.CLAIM_LABEL: claim}
            self.cluster.patch(found, ready=ready, unschedulable=unschedulable, labels=labels)

    @rule(name=NODES)
    def delete_node(self, name: str) -> None:
        found = self.known.node(name)
        if found is not None:
            self.cluster.delete(found)

    @rule(name=PODS)
    def the_view_writes_itself(self, name: str) -> None:
        found = self.known.pod(name)
        if found is None:
            self.world.view.create(pod(name, HALF))
        else:
            self.world.view.delete(found)

    @rule()
    def the_late_one_reads(self) -> None:
        self.late.refresh()
        assert facts(self.late) == facts(self.world.fresh())

    @invariant()
    def following_is_as_good_as_listing(self) -> None:
        self.world.agree()

    @invariant()
    def every_live_pod_is_in_one_place(self) -> None:
        view = self.world.view
        bound = [key for pods in view.pods_on.values() for key in pods]
        live = {
            key
            for key, item in view.of(kinds.Pod).items()
            if item.phase in (kinds.PodPhase.PENDING, kinds.PodPhase.RUNNING)
        }
        assert len(bound) == len(set(bound))
        assert set(bound) | set(view.waiting) == live
        assert not set(bound) & set(view.waiting)

    @invariant()
    def what_the_book_does_not_hold_is_named_or_homeless(self) -> None:
        view = self.world.view
        in_book = {placement.request.id for placement in view.ledger.allocator.placements()}
        for name, pods in view.pods_on.items():
            for key in pods:
                if view.ledger.allocator.has_node(name):
                    assert (key in in_book) is not (key in view.ledger.refused)
                else:
                    assert key not in in_book


Histories.TestCase.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)
TestHistories = Histories.TestCase
