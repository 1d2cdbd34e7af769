"""Binds pending pods to nodes, oldest first, by the allocator's own placement rule.

A pod that fits nowhere stays Pending and those behind it may go ahead. Pods of one shape fit or do not fit together, so
a shape that was refused is left alone until room was gained somewhere. It knows no claims, prices or machines.
"""

from autoscaler.embedded import book as books
from autoscaler.embedded import store
from autoscaler.model import kinds, ports
from vgpu.inventory import Placement, Request, Shape


class Scheduler:
    """Listens to pods; ``step`` binds what can be bound."""

    def __init__(self, cluster: store.EmbeddedCluster, book: books.Book) -> None:
        self._cluster = cluster
        self._book = book
        self._pending: dict[str, kinds.Pod] = {}
        self._new: dict[str, None] = {}
        self._blocked: set[Shape] = set()
        self._seen_gains = 0
        self.tried = 0
        """Placements asked of the allocator so far."""

    def observe(self, event: ports.WatchEvent) -> None:
        pod = event.object
        if not isinstance(pod, kinds.Pod):
            return
        key = pod.meta.key
        waits = (
            event.type is not ports.EventType.DELETED
            and pod.placement is None
            and pod.phase is kinds.PodPhase.PENDING
            and pod.meta.deleting_s is None
        )
        if waits:
            if key not in self._pending:
                self._new[key] = None
            self._pending[key] = pod
        elif self._pending.pop(key, None) is not None:
            self._new.pop(key, None)

    def step(self) -> bool:
        """Bind every pod that fits; True when at least one was bound."""
        if self._seen_gains != self._book.gains:
            self._seen_gains = self._book.gains
            self._blocked.clear()
            keys = list(self._pending)
        elif self._new:
            keys = list(self._new)
        else:
            return False
        self._new.clear()
        bound = False
        waiting = sorted((self._pending[key] for key in keys), key=lambda pod: (pod.meta.created_s, pod.meta.key))
        for pod in waiting:
            if pod.shape in self._blocked:
                continue
            self.tried += 1
            outcome = self._book.allocator.place(Request(id=pod.meta.key, shape=pod.shape))
            if isinstance(outcome, Placement):
                self._cluster.patch(pod, placement=outcome)
                bound = True
            else:
                self._blocked.add(pod.shape)
        return bound
