"""Keeps the pods of every workload at its replicas, as a Deployment does.

Pods are named ``<workload>-<n>`` with a number that is never used twice. A replacement pod (make before break) does not
count while its source is there, and takes its place afterwards. On the way down, pods that are not ready go first, the
newest of them first.
"""

from autoscaler.embedded import pods, store
from autoscaler.model import kinds, ports


class Workloads:
    def __init__(self, cluster: store.EmbeddedCluster) -> None:
        self._cluster = cluster
        self._stored: dict[str, kinds.Workload] = {}
        self._pods: dict[str, dict[str, kinds.Pod]] = {}
        self._numbers: dict[str, int] = {}
        self._dirty: dict[str, None] = {}

    def observe(self, event: ports.WatchEvent) -> None:
        obj, gone = event.object, event.type is ports.EventType.DELETED
        if isinstance(obj, kinds.Workload):
            key = obj.meta.key
            if gone:
                del self._stored[key]
            else:
                self._stored[key] = obj
            self._dirty[key] = None
        elif isinstance(obj, kinds.Pod):
            owner = pods.owner(obj)
            if owner:
                owned = self._pods.setdefault(owner, {})
                if gone:
                    owned.pop(obj.meta.key, None)
                    if not owned:
                        del self._pods[owner]
                else:
                    owned[obj.meta.key] = obj
                # A job's pods carry the same label: only a stored workload is looked after here.
                if owner in self._stored:
                    self._dirty[owner] = None

    def step(self) -> bool:
        """Bring every changed workload to its replicas; True when something was written."""
        if not self._dirty:
            return False
        keys = tuple(self._dirty)
        self._dirty.clear()
        before = self._cluster.version
        for key in keys:
            workload = self._stored.get(key)
            if workload is None:
                for pod in tuple(self._pods.get(key, {}).values()):
                    self._cluster.delete(pod)
            else:
                self._reconcile(workload)
        return self._cluster.version != before

    def _reconcile(self, workload: kinds.Workload) -> None:
        key = workload.meta.key
        owned = tuple(self._pods.get(key, {}).values())
        present = {pod.meta.key for pod in owned if pods.active(pod) and pod.meta.deleting_s is None}
        replicas: list[kinds.Pod] = []
        for pod in owned:
            source = pods.moved_from(pod)
            if pod.meta.key in present:
                if source not in present:
                    replicas.append(pod)
            elif source is None and not pods.active(pod):
                # A failed replacement stays for the controller that made it, which must learn of the failure.
                self._cluster.delete(pod)
        wanted = 0 if workload.meta.deleting_s is not None else workload.replicas
        if len(replicas) > wanted:
            # Two stable sorts: the newest first, and before them all that are not ready.
            replicas.sort(key=lambda pod: (pod.meta.created_s, pod.meta.resource_version), reverse=True)
            replicas.sort(key=lambda pod: pod.ready)
            for pod in replicas[: len(replicas) - wanted]:
                self._cluster.delete(pod)
            replicas = replicas[len(replicas) - wanted :]
        for _ in range(wanted - len(replicas)):
            self._create(workload)
        ready = sum(pods.serving(pod) for pod in replicas)
        if workload.ready_replicas != ready:
            self._cluster.patch(self._cluster.get(kinds.Workload, key), ready_replicas=ready)

    def _create(self, workload: kinds.Workload) -> None:
        meta = workload.meta
        while True:
            number = self._numbers.get(meta.key, 0)
            self._numbers[meta.key] = number + 1
            name = f"{meta.name}-{number}"
            pod = kinds.Pod(
                meta=kinds.Meta(
                    name=name, namespace=meta.namespace, owner=meta.key, labels={kinds.WORKLOAD_LABEL: meta.key}
                ),
                shape=workload.shape,
            )
            try:
                self._cluster.create(pod)
            except ports.AlreadyExists:
                # Somebody else's pod has that name: take the next number.
                continue
            return
