"""Where a request goes: the allocator's state, its placements, and what-if with undo.

The allocator is the one book of free capacity. The engine, the embedded scheduler and the planner all use it, so that
what is planned is what is placed. ``place`` never raises for a request that does not fit: it returns a ``Refusal`` that
counts, per reason, the nodes that said no.

Placement rule ``best_fit``: the feasible node with the least free GPU compute (then least free CPU, then name order);
inside it a fraction goes to the fullest device that holds it, whole devices are taken in index order. Requests without
GPUs prefer the node with the fewest free GPUs for the same reason: keep whole devices for those who need them.
"""

import contextlib
import dataclasses
import enum
import functools
import hashlib
from collections.abc import Callable, Collection, Generator, Iterable

from vgpu import errors
from vgpu.inventory import WHOLE, Node, Placement, Request, Shape


class RefusalReason(enum.StrEnum):
    """Why one node cannot hold a request; on a ``Refusal``, the reason that most nodes gave."""

    NO_NODES = "NoNodes"
    CORDONED = "Cordoned"
    MODEL_NOT_ALLOWED = "ModelNotAllowed"
    NOT_ENOUGH_DEVICES = "NotEnoughDevices"
    NOT_ENOUGH_GPU = "NotEnoughGpu"
    NOT_ENOUGH_GPU_MEMORY = "NotEnoughGpuMemory"
    NOT_ENOUGH_CPU = "NotEnoughCpu"
    NOT_ENOUGH_MEMORY = "NotEnoughMemory"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """No node can hold the request now. ``counts`` holds the number of nodes per reason."""

    request: Request
    reason: RefusalReason
    counts: tuple[tuple[RefusalReason, int], ...]

    def describe(self) -> str:
        by_reason = ", ".join(f"{reason.value} on {count}" for reason, count in self.counts)
        return f"{self.request.shape.describe()}: {by_reason or self.reason.value}"


class _NodeState:
    """Free capacity of one node; the only mutable thing in this package."""

    __slots__ = (
        "cordoned",
        "free_cpu",
        "free_gpu",
        "free_gpu_memory",
        "free_memory",
        "free_milli",
        "held",
        "name",
        "node",
    )

    def __init__(self, node: Node) -> None:
        self.node = node
        self.name = node.name
        self.cordoned = not node.schedulable
        self.free_cpu = node.cpu_milli
        self.free_memory = node.memory_mib
        self.free_milli = [device.milli if device.healthy else 0 for device in node.devices]
        self.free_gpu_memory = [device.memory_mib for device in node.devices]
        self.free_gpu = sum(self.free_milli)
        self.held: dict[str, Placement] = {}

    def whole_free(self) -> int:
        return sum(1 for milli in self.free_milli if milli == WHOLE)

    def add(self, placement: Placement, sign: int) -> None:
        """Take (sign -1) or give back (sign +1) what ``placement`` holds."""
        shape = placement.request.shape
        self.free_cpu += sign * shape.cpu_milli
        self.free_memory += sign * shape.memory_mib
        for index in placement.devices:
            self.free_milli[index] += sign * shape.milli
            free = self.free_gpu_memory[index]
            if free is not None:
                self.free_gpu_memory[index] = free + sign * memory_share(shape, self.node.devices[index].memory_mib)
        self.free_gpu += sign * shape.milli * len(placement.devices)

    def usable(self, shape: Shape) -> list[int] | RefusalReason:
        """Indexes of the devices that could serve one unit of ``shape``, or why there are not enough of them."""
        devices = self.node.devices
        if len(devices) < shape.gpus:
            return RefusalReason.NOT_ENOUGH_DEVICES
        allowed = [
            index
            for index, device in enumerate(devices)
            if (not shape.models or device.model in shape.models)
            and (not shape.resource_name or device.resource_name == shape.resource_name)
        ]
        if len(allowed) < shape.gpus:
            return RefusalReason.MODEL_NOT_ALLOWED
        room = [index for index in allowed if self.free_milli[index] >= shape.milli]
        if len(room) < shape.gpus:
            return RefusalReason.NOT_ENOUGH_GPU
        fitting = [index for index in room if self._memory_fits(index, shape)]
        return fitting if len(fitting) >= shape.gpus else RefusalReason.NOT_ENOUGH_GPU_MEMORY

    def _memory_fits(self, index: int, shape: Shape) -> bool:
        free = self.free_gpu_memory[index]
        if free is None:
            # An unknown size cannot prove that a memory request fits.
            return shape.gpu_memory_mib == 0
        return free >= memory_share(shape, self.node.devices[index].memory_mib)

    def fit(self, shape: Shape) -> tuple[int, ...] | RefusalReason:
        """The devices ``shape`` would get here, or why it gets none."""
        if self.cordoned:
            return RefusalReason.CORDONED
        if self.free_cpu < shape.cpu_milli:
            return RefusalReason.NOT_ENOUGH_CPU
        if self.free_memory < shape.memory_mib:
            return RefusalReason.NOT_ENOUGH_MEMORY
        if shape.gpus == 0:
            return ()
        picky = shape.models or shape.resource_name
        if self.free_gpu < shape.gpu_milli and len(self.node.devices) >= shape.gpus and not picky:
            return RefusalReason.NOT_ENOUGH_GPU
        usable = self.usable(shape)
        if isinstance(usable, RefusalReason):
            return usable
        if shape.fraction:
            return (min(usable, key=lambda index: (self.free_milli[index], index)),)
        return tuple(usable[: shape.gpus])


def memory_share(shape: Shape, device_memory_mib: int | None) -> int:
    """MiB of a device that one unit of ``shape`` reserves: what it asks for, all of it for a whole device that names no
    size, none for a fraction that names none.
    """
    if shape.gpu_memory_mib:
        return shape.gpu_memory_mib
    return (device_memory_mib or 0) if shape.milli == WHOLE else 0


class Allocator:
    """Free capacity of a set of nodes, and the rule that hands it out.

    Not thread-safe. Every change is undone exactly by leaving the ``overlay`` in which it was made.
    """

    STRATEGIES = ("best_fit",)

    def __init__(self, nodes: Iterable[Node] = (), strategy: str = "best_fit") -> None:
        if strategy not in self.STRATEGIES:
            raise errors.InvalidRequest(f"strategy={strategy!r}: choose one of {', '.join(self.STRATEGIES)}")
        self.strategy = strategy
        self._nodes: dict[str, _NodeState] = {}
        self._where: dict[str, _NodeState] = {}
        self._undo: list[list[Callable[[], object]]] = []
        for node in nodes:
            self.add_node(node)

    # Nodes ------------------------------------------------------------------------------------------------------

    def add_node(self, node: Node) -> None:
        """Add an empty node. Raises InvalidRequest when a node of that name is there already."""
        if node.name in self._nodes:
            raise errors.InvalidRequest(f"node={node.name!r}: already in the inventory; remove it first")
        self._nodes[node.name] = _NodeState(node)
        self._log(self.remove_node, node.name)

    def remove_node(self, name: str) -> tuple[Placement, ...]:
        """Take a node out; returns the placements that went with it, in the order in which they were made."""
        state = self._state(name)
        lost = tuple(state.held.values())
        for placement in lost:
            del self._where[placement.request.id]
        position = list(self._nodes).index(name) if self._undo else 0
        del self._nodes[name]
        self._log(self._restore_node, position, state)
        return lost

    def cordon(self, name: str, cordoned: bool = True) -> None:
        """Stop (or resume) new placements on a node; what is there stays."""
        state = self._state(name)
        if state.cordoned is not cordoned:
            self._log(self.cordon, name, state.cordoned)
            state.cordoned = cordoned

    def nodes(self) -> tuple[Node, ...]:
        return tuple(state.node for state in self._nodes.values())

    def has_node(self, name: str) -> bool:
        return name in self._nodes

    def is_cordoned(self, name: str) -> bool:
        return self._state(name).cordoned

    def placements(self, node: str | None = None) -> tuple[Placement, ...]:
        """All placements, or those of one node."""
        if node is not None:
            return tuple(self._state(node).held.values())
        return tuple(placement for state in self._nodes.values() for placement in state.held.values())

    def placement(self, request_id: str) -> Placement | None:
        state = self._where.get(request_id)
        return state.held[request_id] if state else None

    def free_gpu_milli(self, node: str) -> int:
        return self._state(node).free_gpu

    def whole_free(self, node: str) -> int:
        """Devices of a node that nobody uses at all (healthy and whole)."""
        return self._state(node).whole_free()

    # Requests ---------------------------------------------------------------------------------------------------

    def place(self, request: Request, *, only: Collection[str] | None = None) -> Placement | Refusal:
        """Find the best node for ``request`` and take its place there.

        ``only`` narrows the nodes that may be used. Raises InvalidRequest when the id is placed already.
        """
        if request.id in self._where:
            raise errors.InvalidRequest(f"request.id={request.id!r}: already placed; release it first")
        best: tuple[_NodeState, tuple[int, ...]] | None = None
        best_key = (0, 0)
        counts: dict[RefusalReason, int] = {}
        for state in self._nodes.values():
            if only is not None and state.name not in only:
                continue
            devices = state.fit(request.shape)
            if isinstance(devices, RefusalReason):
                counts[devices] = counts.get(devices, 0) + 1
                continue
            key = (state.free_gpu, state.free_cpu)
            if best is None or key < best_key or (key == best_key and state.name < best[0].name):
                best, best_key = (state, devices), key
        if best is None:
            ordered = tuple(sorted(counts.items(), key=lambda item: (-item[1], item[0].value)))
            return Refusal(request=request, reason=ordered[0][0] if ordered else RefusalReason.NO_NODES, counts=ordered)
        placement = Placement(request=request, node=best[0].name, devices=best[1])
        self._take(best[0], placement)
        return placement

    def apply(self, placement: Placement) -> None:
        """Enter a placement that was made before (a recorded allocation). Refuses, by name, what does not add up."""
        request = placement.request
        if request.id in self._where:
            raise errors.LedgerError(
                f"allocation of {request.id!r}: recorded twice (also on {self._where[request.id].name})"
            )
        state = self._nodes.get(placement.node)
        if state is None:
            raise errors.LedgerError(f"allocation of {request.id!r}: node {placement.node!r} is not in the inventory")
        shape = request.shape
        if len(placement.devices) != shape.gpus or len(set(placement.devices)) != shape.gpus:
            raise errors.LedgerError(
                f"allocation of {request.id!r}: devices {list(placement.devices)} recorded for a request of "
                f"{shape.gpus}"
            )
        for index in placement.devices:
            if not 0 <= index < len(state.node.devices):
                raise errors.LedgerError(f"allocation of {request.id!r}: node {state.name!r} has no device {index}")
            if state.free_milli[index] < shape.milli:
                raise errors.LedgerError(
                    f"allocation of {request.id!r}: device {index} of {state.name!r} has "
                    f"{state.free_milli[index]} milli left of the {shape.milli} recorded"
                )
            free = state.free_gpu_memory[index]
            if free is not None and free < memory_share(shape, state.node.devices[index].memory_mib):
                raise errors.LedgerError(
                    f"allocation of {request.id!r}: device {index} of {state.name!r} has {free} MiB left of the "
                    f"{memory_share(shape, state.node.devices[index].memory_mib)} recorded"
                )
        if state.free_cpu < shape.cpu_milli or state.free_memory < shape.memory_mib:
            raise errors.LedgerError(
                f"allocation of {request.id!r}: node {state.name!r} has {state.free_cpu} milli-CPU and "
                f"{state.free_memory} MiB left of the {shape.cpu_milli} and {shape.memory_mib} recorded"
            )
        self._take(state, placement)

    def release(self, request_id: str) -> Placement | None:
        """Give back what a request holds; None when it holds nothing."""
        state = self._where.pop(request_id, None)
        if state is None:
            return None
        # The order of ``held`` is part of the state: what-if plans walk it, and undo must restore it.
        order = tuple(state.held) if self._undo else ()
        placement = state.held.pop(request_id)
        state.add(placement, +1)
        self._log(self._restore, placement, order)
        return placement

    def place_all(self, requests: Iterable[Request]) -> tuple[Placement, ...] | Refusal:
        """Place several requests together or none: the first refusal undoes the others."""
        with self.overlay() as attempt:
            placed: list[Placement] = []
            for request in requests:
                outcome = self.place(request)
                if isinstance(outcome, Refusal):
                    return outcome
                placed.append(outcome)
            attempt.keep()
        return tuple(placed)

    # What-if ----------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def overlay(self) -> Generator["Overlay"]:
        """Try changes: they are undone on leaving unless ``keep`` was called. Overlays nest."""
        overlay = Overlay()
        self._undo.append([])
        try:
            yield overlay
        finally:
            log = self._undo.pop()
            if overlay.kept:
                if self._undo:
                    self._undo[-1].extend(log)
            else:
                outer, self._undo = self._undo, []
                for revert in reversed(log):
                    revert()
                self._undo = outer

    def digest(self) -> str:
        """A hash of the whole state: equal states have equal digests, whatever path led to them; states that differ in
        a node's hardware, in what is free or in who holds what have different ones.
        """
        digest = hashlib.sha256()
        for name in sorted(self._nodes):
            state = self._nodes[name]
            free = (state.free_cpu, state.free_memory, state.free_milli, state.free_gpu_memory)
            digest.update(repr((name, state.node, state.cordoned, free)).encode())
            for request_id in sorted(state.held):
                held = state.held[request_id]
                digest.update(f"{request_id}:{held.devices}:{held.request.shape.describe()};".encode())
        return digest.hexdigest()

    # Inside -----------------------------------------------------------------------------------------------------

    def _state(self, name: str) -> _NodeState:
        state = self._nodes.get(name)
        if state is None:
            raise errors.InvalidRequest(f"node={name!r}: not in the inventory")
        return state

    def _take(self, state: _NodeState, placement: Placement) -> None:
        state.held[placement.request.id] = placement
        self._where[placement.request.id] = state
        state.add(placement, -1)
        self._log(self.release, placement.request.id)

    def _log(self, inverse: Callable[..., object], *arguments: object) -> None:
        if self._undo:
            self._undo[-1].append(functools.partial(inverse, *arguments))

    def _restore(self, placement: Placement, order: tuple[str, ...]) -> None:
        state = self._state(placement.node)
        self._take(state, placement)
        state.held = {request_id: state.held[request_id] for request_id in order}

    def _restore_node(self, position: int, state: _NodeState) -> None:
        nodes = list(self._nodes.items())
        nodes.insert(position, (state.name, state))
        self._nodes = dict(nodes)
        for request_id in state.held:
            self._where[request_id] = state


class Overlay:
    """Handle of one what-if: call ``keep`` to make its changes stay."""

    __slots__ = ("kept",)

    def __init__(self) -> None:
        self.kept = False

    def keep(self) -> None:
        self.kept = True
