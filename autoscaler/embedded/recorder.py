"""Writes down, as the events pass, which pod sat where and what became of every claim. Keeps nothing but records."""

import dataclasses

from autoscaler.embedded import pods, store
from autoscaler.model import kinds, ports, records


class Recorder:
    """Make it before the first event: what happened earlier is not known to it."""

    def __init__(self, cluster: store.EmbeddedCluster, clock: ports.Clock) -> None:
        self._clock = clock
        self._stays: list[records.Stay] = []
        self._open: dict[str, int] = {}
        """Pod that runs to the position of its stay."""
        self._origins: dict[str, str] = {}
        """Replacement to the name of the pod whose place it took, over any number of moves."""
        self._claim_of: dict[str, str] = {}
        """Node to claim; kept after the node is gone, since its pods' last events come later."""
        self._ready: dict[str, float] = {}
        """Provider id to when its node was first ready; the claim learns of it a little later."""
        self._machines: dict[str, list[records.MachineRecord]] = {}
        cluster.subscribe(self._observe)

    def stays(self) -> tuple[records.Stay, ...]:
        """In the order in which they began."""
        return tuple(self._stays)

    def machines(self) -> tuple[records.MachineRecord, ...]:
        """Claims that got a machine, in the order in which the machines became known."""
        return tuple(record for history in self._machines.values() for record in history)

    def _observe(self, event: ports.WatchEvent) -> None:
        obj = event.object
        gone = event.type is ports.EventType.DELETED
        if isinstance(obj, kinds.Pod):
            self._pod(obj, gone=gone)
        elif isinstance(obj, kinds.Node):
            self._claim_of[obj.meta.name] = obj.meta.labels.get(kinds.CLAIM_LABEL, obj.meta.name)
            if obj.ready:
                self._ready.setdefault(obj.provider_id, self._clock.now())
        elif isinstance(obj, kinds.NodeClaim):
            self._claim(obj, gone=gone)

    def _pod(self, pod: kinds.Pod, *, gone: bool) -> None:
        key = pod.meta.key
        source = pods.moved_from(pod)
        if source is not None and key not in self._origins:
            self._origins[key] = self._origins.get(source, source.rpartition("/")[2])
        position = self._open.get(key)
        if position is None:
            if not gone and pod.phase is kinds.PodPhase.RUNNING and pod.placement is not None:
                self._open[key] = len(self._stays)
                self._stays.append(
                    records.Stay(
                        pod=self._origins.get(key, pod.meta.name),
                        namespace=pod.meta.namespace,
                        claim=self._claim_of.get(pod.placement.node, pod.placement.node),
                        devices=pod.placement.devices,
                        milli=pod.shape.milli,
                        start_s=self._clock.now() if pod.started_s is None else pod.started_s,
                        end_s=None,
                    )
                )
        elif gone:
            del self._open[key]
            self._stays[position] = dataclasses.replace(self._stays[position], end_s=self._clock.now())

    def _claim(self, claim: kinds.NodeClaim, *, gone: bool) -> None:
        if not claim.machine_id:
            return
        history = self._machines.setdefault(claim.meta.name, [])
        known = bool(history) and history[-1].machine_id == claim.machine_id
        # A further machine of the same claim has its own order, which is the newest one.
        later = len(history) > 1 or (bool(history) and not known)
        orders = [stage.time_s for stage in claim.history if stage.state == kinds.ClaimState.ORDERING.value]
        ordered_s = history[-1].ordered_s if known else (orders[-1 if later else 0] if orders else claim.meta.created_s)
        terminated_s = _stage(claim, kinds.ClaimState.TERMINATING, ordered_s)
        if terminated_s is None and gone:
            terminated_s = self._clock.now()
        record = records.MachineRecord(
            claim=claim.meta.name,
            machine_id=claim.machine_id,
            instance_type=claim.offer.instance_type,
            capacity_type=claim.offer.capacity_type.value,
            gpus=claim.offer.shape.gpus,
            ordered_s=ordered_s,
            ready_s=self._ready.get(claim.provider_id),
            terminated_s=terminated_s,
        )
        if known:
            history[-1] = record
        else:
            history.append(record)


def _stage(claim: kinds.NodeClaim, state: kinds.ClaimState, since_s: float) -> float | None:
    """First time at which the claim entered ``state``, not before ``since_s``."""
    return next(
        (stage.time_s for stage in claim.history if stage.state == state.value and stage.time_s >= since_s), None
    )
