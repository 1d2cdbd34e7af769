"""Who holds what in the embedded world: one allocator kept in step with the stored nodes and pods.

The scheduler places through it and the kubelets admit through it, so that both see the same free room. It only listens;
it never writes to the store. What cannot be entered (a pinned pod whose place is taken, a pod on a node that is not
there) is kept in ``refused`` with the reason, for the kubelet to act on.
"""

from autoscaler.embedded import pods
from autoscaler.model import kinds, ports
from vgpu.allocator import Allocator
from vgpu.errors import LedgerError
from vgpu.inventory import Node, Placement

NODE_LOST = "NodeLost"
OUT_OF_CPU = "OutOfCpu"
OUT_OF_MEMORY = "OutOfMemory"
OUT_OF_DEVICE = "OutOfDevice"


class Book:
    """Free room on the stored nodes. ``gains`` rises whenever something may fit that did not fit before."""

    def __init__(self) -> None:
        self.allocator = Allocator()
        self.gains = 0
        self.refused: dict[str, str] = {}
        """Pod key to why its recorded placement does not hold."""
        self._nodes: dict[str, kinds.Node] = {}

    def observe(self, event: ports.WatchEvent) -> None:
        obj = event.object
        if isinstance(obj, kinds.Pod):
            if event.type is ports.EventType.DELETED or not pods.active(obj):
                self._release(obj.meta.key)
            elif obj.placement is not None:
                self._enter(obj.placement)
        elif isinstance(obj, kinds.Node):
            if event.type is ports.EventType.DELETED:
                self._drop_node(obj.meta.name)
            else:
                self._put_node(obj)

    def node(self, name: str) -> kinds.Node | None:
        """The stored node of that name."""
        return self._nodes.get(name)

    def _release(self, key: str) -> None:
        self.refused.pop(key, None)
        if self.allocator.release(key) is not None:
            self.gains += 1

    def _enter(self, placement: Placement) -> None:
        key = placement.request.id
        if key in self.refused or self.allocator.placement(key) is not None:
            return
        reason = self._why_not(placement)
        if reason is not None:
            self.refused[key] = reason

    def _why_not(self, placement: Placement) -> str | None:
        """Enter the placement; the reason when it does not hold."""
        node = self._nodes.get(placement.node)
        if node is None:
            return NODE_LOST
        try:
            self.allocator.apply(placement)
        except LedgerError:
            shape, held = placement.request.shape, self.allocator.placements(placement.node)
            if sum(other.request.shape.cpu_milli for other in held) + shape.cpu_milli > node.cpu_milli:
                return OUT_OF_CPU
            if sum(other.request.shape.memory_mib for other in held) + shape.memory_mib > node.memory_mib:
                return OUT_OF_MEMORY
            return OUT_OF_DEVICE
        return None

    def _drop_node(self, name: str) -> None:
        del self._nodes[name]
        for placement in self.allocator.remove_node(name):
            self.refused[placement.request.id] = NODE_LOST

    def _put_node(self, node: kinds.Node) -> None:
        name = node.meta.name
        before = self._nodes.get(name)
        self._nodes[name] = node
        open_now = node.ready and not node.unschedulable and node.meta.deleting_s is None
        same = before is not None and (before.devices, before.cpu_milli, before.memory_mib, before.zone) == (
            node.devices,
            node.cpu_milli,
            node.memory_mib,
            node.zone,
        )
        if same:
            if open_now and self.allocator.is_cordoned(name):
                self.gains += 1
            self.allocator.cordon(name, cordoned=not open_now)
            return
        # Capacity changed: enter everything again; what no longer fits is refused like a newcomer.
        held = self.allocator.remove_node(name) if before is not None else ()
        self.allocator.add_node(
            Node(
                name=name,
                cpu_milli=node.cpu_milli,
                memory_mib=node.memory_mib,
                devices=node.devices,
                zone=node.zone,
                schedulable=open_now,
            )
        )
        for placement in held:
            self._enter(placement)
        self.gains += 1
