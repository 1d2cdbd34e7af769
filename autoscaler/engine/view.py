"""What the engine knows: the newest version of every object, read through list and watch, and the book of free
capacity.

Everything here can be thrown away and rebuilt from lists. A watch that fell too far behind (Gone) lists again and works
out what was missed, deletions included. Writes of the engine itself are entered at once, so that the next decision sees
them; the watch event that follows has the same version and changes nothing.
"""

import contextlib
from collections.abc import Iterable
from typing import cast

from autoscaler.model import kinds
from autoscaler.model.kinds import K, Kind
from autoscaler.model.ports import ClusterApi, EventType, Gone, NotFound
from vgpu import inventory
from vgpu.ledger import Ledger


class ClusterView:
    """Projections by kind and key, pods by node, and the ledger of the nodes."""

    def __init__(self, cluster: ClusterApi) -> None:
        self._cluster = cluster
        self._objects: dict[type[Kind], dict[str, Kind]] = {kind: {} for kind in kinds.KINDS}
        self._versions: dict[type[Kind], int] = {}
        self.pods_on: dict[str, dict[str, kinds.Pod]] = {}
        """Bound pods by node name, terminal ones left out."""
        self.waiting: dict[str, kinds.Pod] = {}
        """Pods without a node."""
        self.ledger = Ledger()
        self._homeless: dict[str, dict[str, kinds.Pod]] = {}
        """Bound pods whose node is not known (yet), by node name."""
        self.node_of_claim: dict[str, str] = {}
        """Node name by the claim that its purchase label names; the first by name where several carry the label."""
        self.version = 0
        """Grows with every change seen."""
        self.departures = 0
        """Grows with every pod that left its node or was forgotten."""

    # Reading ----------------------------------------------------------------------------------------------------

    def of(self, kind: type[K]) -> dict[str, K]:
        """All known objects of a kind by key. Not to be changed by the caller."""
        return cast("dict[str, K]", self._objects[kind])

    def refresh(self) -> int:
        """Read what has changed; returns the number of changes."""
        before = self.version
        for kind in kinds.KINDS:
            since = self._versions.get(kind)
            if since is None:
                self._relist(kind)
                continue
            try:
                events = self._cluster.watch(kind, since)
            except Gone:
                self._relist(kind)
                continue
            for event in events:
                self._versions[kind] = event.resource_version
                if event.type is EventType.DELETED:
                    self.forget(event.object)
                else:
                    self.learn(event.object)
        return self.version - before

    def _relist(self, kind: type[Kind]) -> None:
        listing = self._cluster.list(kind)
        known = self._objects[kind]
        present = {item.meta.key for item in listing.items}
        for key in [key for key in known if key not in present]:
            self.forget(known[key])
        for item in listing.items:
            self.learn(item)
        self._versions[kind] = listing.resource_version

    # Learning ---------------------------------------------------------------------------------------------------

    def learn(self, obj: Kind) -> None:
        """Enter an object as observed or as answered to a write; older versions than the known one change nothing."""
        known = self._objects[type(obj)]
        key = obj.meta.key
        old = known.get(key)
        # Versions rise over all objects: an older one is outdated even where it belongs to a predecessor of the name.
        if old is not None and old.meta.resource_version >= obj.meta.resource_version:
            return
        if old is not None and old.meta.uid != obj.meta.uid:
            self.forget(old)
            old = None
        known[key] = obj
        self.version += 1
        match obj:
            case kinds.Pod():
                self._learn_pod(cast("kinds.Pod | None", old), obj)
            case kinds.Node():
                self._learn_node(cast("kinds.Node | None", old), obj)
            case _:
                pass

    def forget(self, obj: Kind) -> None:
        """The object is gone. A newer object of the same name stays."""
        known = self._objects[type(obj)]
        key = obj.meta.key
        old = known.get(key)
        if old is None or old.meta.uid != obj.meta.uid:
            return
        del known[key]
        self.version += 1
        match old:
            case kinds.Pod():
                self._unplace(old)
            case kinds.Node():
                self._unlabel(old)
                for pod in self.pods_on.get(key, {}).values():
                    self._homeless.setdefault(key, {})[pod.meta.key] = pod
                if self.ledger.allocator.has_node(key):
                    self.ledger.remove_node(key)
            case _:
                pass

    def _learn_pod(self, old: kinds.Pod | None, pod: kinds.Pod) -> None:
        if old is not None and old.placement == pod.placement and _live(old) == _live(pod):
            # Only its state moved on: the book stays as it is.
            if pod.node is not None and _live(pod):
                self.pods_on[pod.node][pod.meta.key] = pod
            elif pod.meta.key in self.waiting:
                self.waiting[pod.meta.key] = pod
            return
        if old is not None:
            self._unplace(old)
        if not _live(pod):
            return
        if pod.placement is None:
            self.waiting[pod.meta.key] = pod
            return
        self.pods_on.setdefault(pod.placement.node, {})[pod.meta.key] = pod
        self._enter(pod, pod.placement)

    def _enter(self, pod: kinds.Pod, placement: inventory.Placement) -> None:
        if self.ledger.allocator.has_node(placement.node):
            self.ledger.commit(placement)
        else:
            self._homeless.setdefault(placement.node, {})[pod.meta.key] = pod

    def _unplace(self, pod: kinds.Pod) -> None:
        key = pod.meta.key
        self.waiting.pop(key, None)
        if pod.node is None:
            return
        if self.pods_on.get(pod.node, {}).pop(key, None) is not None:
            self.departures += 1
        self._homeless.get(pod.node, {}).pop(key, None)
        self.ledger.release(key)

    def _learn_node(self, old: kinds.Node | None, node: kinds.Node) -> None:
        allocator = self.ledger.allocator
        name = node.meta.name
        claim = node.meta.labels.get(kinds.CLAIM_LABEL)
        if old is not None and old.meta.labels.get(kinds.CLAIM_LABEL) != claim:
            self._unlabel(old)
        if claim:
            self.node_of_claim[claim] = min(name, self.node_of_claim.get(claim, name))
        in_service = node.ready and not node.unschedulable and node.meta.deleting_s is None
        if old is not None and _hardware(old) == _hardware(node) and allocator.has_node(name):
            self.ledger.cordon(name, not in_service)
            return
        if allocator.has_node(name):
            self.ledger.remove_node(name)
        allocator.add_node(
            inventory.Node(
                name=name,
                cpu_milli=node.cpu_milli,
                memory_mib=node.memory_mib,
                devices=node.devices,
                zone=node.zone,
            )
        )
        self.ledger.cordon(name, not in_service)
        homeless = self._homeless.pop(name, {})
        for pod in (homeless | self.pods_on.get(name, {})).values():
            if pod.placement is not None:
                self.ledger.commit(pod.placement)

    def _unlabel(self, node: kinds.Node) -> None:
        """The node no longer stands for its claim; another one with the same label may."""
        claim = node.meta.labels.get(kinds.CLAIM_LABEL, "")
        if self.node_of_claim.get(claim) != node.meta.name:
            return
        others = (
            name
            for name, other in self.of(kinds.Node).items()
            if name != node.meta.name and other.meta.labels.get(kinds.CLAIM_LABEL) == claim
        )
        heir = min(others, default=None)
        if heir is None:
            del self.node_of_claim[claim]
        else:
            self.node_of_claim[claim] = heir

    # Writing ----------------------------------------------------------------------------------------------------

    def create(self, obj: K) -> K:
        """Create through the cluster and enter the answer."""
        stored = self._cluster.create(obj)
        self.learn(stored)
        return stored

    def patch(self, obj: K, **changes: object) -> K:
        """Patch the object as it was read and enter the answer."""
        stored = self._cluster.patch(obj, **changes)
        self.learn(stored)
        return stored

    def delete(self, obj: Kind) -> None:
        """Ask for deletion of the object as it was read, and look what became of it. Absent is fine."""
        with contextlib.suppress(NotFound):
            self._cluster.delete(obj)
        self._look(type(obj), obj)

    def evict(self, pod: kinds.Pod) -> None:
        """Evict within the budgets, and look what became of the pod. Raises TooManyRequests; absent is fine."""
        with contextlib.suppress(NotFound):
            self._cluster.evict(pod.meta.key)
        self._look(kinds.Pod, pod)

    def release(self, obj: Kind) -> None:
        """Take our finalizers off an object that is marked for deletion: it goes."""
        self._cluster.patch(obj, finalizers=())
        self._look(type(obj), obj)

    def _look(self, kind: type[Kind], obj: Kind) -> None:
        """Read back what was just written to: the watch may lag behind."""
        try:
            self.learn(self._cluster.get(kind, obj.meta.key))
        except NotFound:
            self.forget(obj)


def _live(pod: kinds.Pod) -> bool:
    return pod.phase in (kinds.PodPhase.PENDING, kinds.PodPhase.RUNNING)


def _hardware(node: kinds.Node) -> tuple[object, ...]:
    return (node.cpu_milli, node.memory_mib, node.devices, node.zone)


def by_creation(pods: Iterable[kinds.Pod]) -> list[kinds.Pod]:
    """Oldest first; equal ages by key."""
    return sorted(pods, key=lambda pod: (pod.meta.created_s, pod.meta.key))
