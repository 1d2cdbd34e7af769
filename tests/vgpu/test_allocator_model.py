"""The allocator against a reference that recomputes everything from the list of placements, under any history."""

import dataclasses
import itertools

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from vgpu import Allocator, Device, LedgerError, Node, Placement, Refusal, Request, Shape

NODES = {
    node.name: node
    for node in (
        Node(name="bare", cpu_milli=3, memory_mib=3),
        Node(name="one", cpu_milli=4, memory_mib=2, devices=(Device(uuid="0", model="L4", memory_mib=10),)),
        Node(
            name="two",
            cpu_milli=3,
            memory_mib=4,
            devices=(Device(uuid="1", model="L4", memory_mib=None), Device(uuid="2", model="T4", memory_mib=8)),
        ),
        Node(
            name="three",
            cpu_milli=9,
            memory_mib=9,
            devices=(
                Device(uuid="3", model="T4", memory_mib=8, healthy=False),
                Device(uuid="4", model="T4", memory_mib=8),
                Device(uuid="5", model="L4", memory_mib=10, milli=500),
            ),
        ),
        Node(name="shut", cpu_milli=9, memory_mib=9, schedulable=False, devices=(Device(uuid="6", model="L4"),)),
        Node(
            name="amd",
            cpu_milli=1,
            memory_mib=1,
            devices=(Device(uuid="7", model="MI300X", resource_name="amd.com/gpu"),),
        ),
    )
}

GPUS = ((0, 1000), (1, 100), (1, 300), (1, 500), (1, 700), (1, 1000), (2, 1000))


def sized(gpus: tuple[int, int], **fields: object) -> Shape:
    return Shape(gpus=gpus[0], milli=gpus[1], **fields)  # type: ignore[arg-type]


SHAPES = st.builds(
    sized,
    gpus=st.sampled_from(GPUS),
    cpu_milli=st.integers(0, 2),
    memory_mib=st.integers(0, 2),
    gpu_memory_mib=st.sampled_from((0, 0, 0, 3, 8, 10)),
    models=st.sampled_from((frozenset[str](), frozenset[str](), frozenset({"L4"}), frozenset({"T4", "MI300X"}))),
    resource_name=st.sampled_from(("", "", "", "nvidia.com/gpu", "amd.com/gpu")),
)
IDS = st.sampled_from("abcdefgh")
NAMES = st.sampled_from(tuple(NODES))


@dataclasses.dataclass(kw_only=True)
class World:
    """The reference: nodes, who is closed, and the placements. Nothing derived is kept."""

    nodes: dict[str, Node]
    closed: set[str]
    held: dict[str, Placement]

    def copy(self) -> "World":
        return World(nodes=dict(self.nodes), closed=set(self.closed), held=dict(self.held))

    def reserved_memory(self, placement: Placement, index: int) -> int:
        shape = placement.request.shape
        if shape.gpu_memory_mib or shape.milli < 1000:
            return shape.gpu_memory_mib
        return self.nodes[placement.node].devices[index].memory_mib or 0

    def possible(self, extra: Placement) -> bool:
        """Whether all placements of a node, with one more, stay within every limit of the node."""
        node = self.nodes.get(extra.node)
        if node is None or extra.request.id in self.held:
            return False
        if len(extra.devices) != extra.request.shape.gpus or len(set(extra.devices)) != len(extra.devices):
            return False
        if any(not 0 <= index < len(node.devices) for index in extra.devices):
            return False
        there = [placement for placement in self.held.values() if placement.node == node.name] + [extra]
        if sum(placement.request.shape.cpu_milli for placement in there) > node.cpu_milli:
            return False
        if sum(placement.request.shape.memory_mib for placement in there) > node.memory_mib:
            return False
        for index in extra.devices:
            device = node.devices[index]
            users = [placement for placement in there if index in placement.devices]
            if sum(placement.request.shape.milli for placement in users) > device.milli * device.healthy:
                return False
            memory = sum(self.reserved_memory(placement, index) for placement in users)
            if device.memory_mib is not None and memory > device.memory_mib:
                return False
        return True

    def may_hold(self, extra: Placement) -> bool:
        """Whether a new placement may be made: possible, and the node is open and of the right kind."""
        shape = extra.request.shape
        if extra.node in self.closed or not self.possible(extra):
            return False
        devices = [self.nodes[extra.node].devices[index] for index in extra.devices]
        return all(
            (not shape.models or device.model in shape.models)
            and shape.resource_name in ("", device.resource_name)
            and (shape.gpu_memory_mib == 0 or device.memory_mib is not None)
            for device in devices
        )

    def choices(self, request: Request) -> list[Placement]:
        """Every placement that may be made for a request: all nodes, all combinations of devices."""
        return [
            placement
            for node in self.nodes.values()
            for devices in itertools.combinations(range(len(node.devices)), request.shape.gpus)
            if self.may_hold(placement := Placement(request=request, node=node.name, devices=devices))
        ]

    def rank(self, placement: Placement) -> tuple[object, ...]:
        """The documented rule: least free GPU, least free CPU, name; inside, the fullest device or index order."""
        node = self.nodes[placement.node]
        there = [other for other in self.held.values() if other.node == node.name]
        free = [
            device.milli * device.healthy - sum(o.request.shape.milli for o in there if index in o.devices)
            for index, device in enumerate(node.devices)
        ]
        free_cpu = node.cpu_milli - sum(other.request.shape.cpu_milli for other in there)
        shape = placement.request.shape
        fullest = free[placement.devices[0]] if shape.gpus == 1 and shape.milli < 1000 else 0
        return (sum(free), free_cpu, node.name, fullest, placement.devices)

    def replayed(self) -> Allocator:
        """A new allocator that was told the outcome and nothing of the way."""
        fresh = Allocator(self.nodes.values())
        for name in self.nodes:
            fresh.cordon(name, name in self.closed)
        for placement in sorted(self.held.values(), key=lambda placement: placement.request.id):
            fresh.apply(placement)
        return fresh


class AllocatorMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        names = ("one", "two", "shut")
        self.allocator = Allocator(NODES[name] for name in names)
        self.world = World(nodes={name: NODES[name] for name in names}, closed={"shut"}, held={})
        self.open: list[tuple[object, object, World, str, tuple[Node, ...], tuple[Placement, ...]]] = []

    @rule(request_id=IDS, shape=SHAPES)
    def place(self, request_id: str, shape: Shape) -> None:
        if request_id in self.world.held:
            return
        request = Request(id=request_id, shape=shape)
        choices = self.world.choices(request)
        outcome = self.allocator.place(request)
        if isinstance(outcome, Refusal):
            assert choices == [], f"{outcome.describe()}, but {choices[0]} was possible"
            assert sum(count for _, count in outcome.counts) == len(self.world.nodes)
            return
        assert outcome == min(choices, key=self.world.rank)
        self.world.held[request_id] = outcome

    @rule(request_id=IDS, shape=SHAPES, name=NAMES, devices=st.lists(st.integers(-1, 3), max_size=2))
    def apply(self, request_id: str, shape: Shape, name: str, devices: list[int]) -> None:
        placement = Placement(request=Request(id=request_id, shape=shape), node=name, devices=tuple(devices))
        possible = self.world.possible(placement)
        try:
            self.allocator.apply(placement)
        except LedgerError:
            assert not possible
        else:
            assert possible
            self.world.held[request_id] = placement

    @rule(shapes=st.lists(SHAPES, min_size=1, max_size=4))
    def place_all(self, shapes: list[Shape]) -> None:
        requests = [Request(id=f"all-{index}", shape=shape) for index, shape in enumerate(shapes)]
        if any(request.id in self.world.held for request in requests):
            return
        outcome = self.allocator.place_all(requests)
        if not isinstance(outcome, Refusal):
            self.world.held |= {placement.request.id: placement for placement in outcome}

    @rule(request_id=IDS)
    def release(self, request_id: str) -> None:
        assert self.allocator.release(request_id) == self.world.held.pop(request_id, None)

    @rule(name=NAMES, closed=st.booleans())
    def cordon(self, name: str, closed: bool) -> None:
        if name in self.world.nodes:
            self.allocator.cordon(name, closed)
            (self.world.closed.add if closed else self.world.closed.discard)(name)

    @rule(name=NAMES)
    def add_node(self, name: str) -> None:
        if name not in self.world.nodes:
            self.allocator.add_node(NODES[name])
            self.world.nodes[name] = NODES[name]
            if not NODES[name].schedulable:
                self.world.closed.add(name)

    @rule(name=NAMES)
    def remove_node(self, name: str) -> None:
        if name in self.world.nodes:
            lost = {placement.request.id: placement for placement in self.allocator.remove_node(name)}
            del self.world.nodes[name]
            self.world.closed.discard(name)
            assert lost == {key: held for key, held in self.world.held.items() if held.node == name}
            for request_id in lost:
                del self.world.held[request_id]

    @precondition(lambda self: len(self.open) < 3)
    @rule()
    def enter(self) -> None:
        context = self.allocator.overlay()
        before = (self.allocator.digest(), self.allocator.nodes(), self.allocator.placements())
        self.open.append((context, context.__enter__(), self.world.copy(), *before))

    @precondition(lambda self: self.open)
    @rule(keep=st.booleans())
    def leave(self, keep: bool) -> None:
        context, overlay, world, digest, nodes, placements = self.open.pop()
        if keep:
            overlay.keep()  # type: ignore[attr-defined]
        context.__exit__(None, None, None)  # type: ignore[attr-defined]
        if not keep:
            self.world = world
            # Exactly as before: values, the order of nodes, and the order of what each holds.
            assert self.allocator.digest() == digest
            assert self.allocator.nodes() == nodes
            assert self.allocator.placements() == placements

    @invariant()
    def nothing_is_lost_or_doubled(self) -> None:
        placements = self.allocator.placements()
        assert {placement.request.id: placement for placement in placements} == self.world.held
        assert len(placements) == len(self.world.held)
        assert {node.name for node in self.allocator.nodes()} == set(self.world.nodes)

    @invariant()
    def the_state_is_a_function_of_the_placements(self) -> None:
        """Replaying applies every limit again, so this also says that no device and no node is over any of them."""
        assert self.allocator.digest() == self.world.replayed().digest()

    def teardown(self) -> None:
        while self.open:
            self.open.pop()[0].__exit__(None, None, None)  # type: ignore[attr-defined]


AllocatorMachine.TestCase.settings = settings(max_examples=120, stateful_step_count=40, deadline=None)
TestAllocator = AllocatorMachine.TestCase
