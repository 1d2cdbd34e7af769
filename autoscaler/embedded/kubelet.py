"""All kubelets at once: they admit bound pods, start them, report them Ready, and take them down with their node.

A pinned pod (created with its placement) that finds its place taken ends in phase FAILED and stays for whoever created
it. A pod whose node is gone ends FAILED/NodeLost and is deleted at once: that is what pod collection does in a cluster.
"""

import dataclasses
from collections.abc import Callable

from autoscaler.embedded import book as books
from autoscaler.embedded import pods, store
from autoscaler.model import kinds, ports


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LostPod:
    pod: str
    node: str
    time_s: float


class Kubelet:
    """``at`` is the world's timer; ``move_hold_s`` the least seconds that a replacement takes to become ready."""

    def __init__(
        self,
        cluster: store.EmbeddedCluster,
        book: books.Book,
        clock: ports.Clock,
        at: Callable[[float, Callable[[], None]], None],
        *,
        move_hold_s: float,
    ) -> None:
        self._cluster = cluster
        self._book = book
        self._clock = clock
        self._at = at
        self._move_hold_s = move_hold_s
        self._bound: dict[str, kinds.Pod] = {}
        """Bound pods that have not started."""
        self._to_start: dict[str, None] = {}
        self._waiting: dict[str, dict[str, None]] = {}
        """Node that is not ready to the pods that wait for it."""
        self._ready_nodes: set[str] = set()
        self._delays: dict[str, float] = {}
        self._lost: list[LostPod] = []

    @property
    def lost(self) -> tuple[LostPod, ...]:
        return tuple(self._lost)

    def observe(self, event: ports.WatchEvent) -> None:
        obj, gone = event.object, event.type is ports.EventType.DELETED
        if isinstance(obj, kinds.Pod):
            key = obj.meta.key
            if not gone and obj.placement is not None and obj.phase is kinds.PodPhase.PENDING:
                self._bound[key] = obj
                self._to_start[key] = None
            elif self._bound.pop(key, None) is not None:
                self._to_start.pop(key, None)
        elif isinstance(obj, kinds.Node):
            name = obj.meta.name
            if gone or not obj.ready:
                self._ready_nodes.discard(name)
            elif name not in self._ready_nodes:
                self._ready_nodes.add(name)
                self._to_start.update(self._waiting.pop(name, {}))
        elif isinstance(obj, kinds.Workload):
            if gone:
                self._delays.pop(obj.meta.key, None)
            else:
                self._delays[obj.meta.key] = obj.start_delay_s

    def step(self) -> bool:
        """Act on everything that was observed; True when something was written."""
        acted = False
        if self._book.refused:
            for key, reason in tuple(self._book.refused.items()):
                self._fail(key, reason)
                acted = True
        if self._to_start:
            keys = tuple(self._to_start)
            self._to_start.clear()
            for key in keys:
                pod = self._bound.get(key)
                if pod is not None:
                    acted = self._start(pod) or acted
        return acted

    def _fail(self, key: str, reason: str) -> None:
        pod = self._cluster.get(kinds.Pod, key)
        failed = self._cluster.patch(pod, phase=kinds.PodPhase.FAILED, ready=False, reason=reason)
        if reason == books.NODE_LOST:
            self._lost.append(LostPod(pod=key, node=pod.node or "", time_s=self._clock.now()))
            self._cluster.delete(failed)

    def _start(self, pod: kinds.Pod) -> bool:
        node = pod.node
        assert node is not None
        if pod.meta.deleting_s is not None:
            return False
        if node not in self._ready_nodes:
            self._waiting.setdefault(node, {})[pod.meta.key] = None
            return False
        now, delay = self._clock.now(), self._delay(pod)
        ready = delay <= 0
        self._cluster.patch(pod, phase=kinds.PodPhase.RUNNING, started_s=now, ready=ready)
        if not ready:
            key, uid = pod.meta.key, pod.meta.uid
            self._at(now + delay, lambda: self._become_ready(key, uid))
        return True

    def _delay(self, pod: kinds.Pod) -> float:
        given = pods.start_delay_s(pod)
        delay = self._delays.get(pods.owner(pod), 0.0) if given is None else given
        return delay if pods.moved_from(pod) is None else max(delay, self._move_hold_s)

    def _become_ready(self, key: str, uid: str) -> None:
        try:
            pod = self._cluster.get(kinds.Pod, key)
        except ports.NotFound:
            return
        if pod.meta.uid == uid and pod.phase is kinds.PodPhase.RUNNING:
            self._cluster.patch(pod, ready=True)
