"""Refuses impossible worlds: what no cluster could show, no test may be built on.

``check`` reads through the cluster port only, so it can be pointed at any cluster. ``settled=False`` leaves out what
may be true for a moment while controllers catch up (a pod on a node that is just gone). It never raises by itself.
"""

from collections.abc import Iterator, Sequence

from autoscaler.embedded import pods, store
from autoscaler.model import kinds, ports
from vgpu.allocator import memory_share
from vgpu.errors import TidegateError

_WITH_MACHINE = (
    kinds.ClaimState.LAUNCHED,
    kinds.ClaimState.REGISTERED,
    kinds.ClaimState.INITIALIZED,
    kinds.ClaimState.READY,
    kinds.ClaimState.DRAINING,
    kinds.ClaimState.TERMINATING,
)


class ImpossibleWorld(TidegateError):
    """``problems`` lists every contradiction that was found."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("impossible world: " + "; ".join(problems))
        self.problems = tuple(problems)


def check(cluster: ports.ClusterApi, *, settled: bool = True) -> list[str]:
    """Every contradiction in the stored objects, in a stable order; empty when the world is possible."""
    nodes, all_pods = cluster.list(kinds.Node), cluster.list(kinds.Pod)
    workloads, claims = cluster.list(kinds.Workload), cluster.list(kinds.NodeClaim)
    listings = (nodes, all_pods, workloads, claims, cluster.list(kinds.DisruptionBudget), cluster.list(kinds.Migration))
    by_name = {node.meta.name: node for node in nodes.items}
    problems: list[str] = []
    uids: dict[str, str] = {}
    for listing in listings:
        for obj in listing.items:
            problems += _meta(obj, listing.resource_version, uids)
    problems += _nodes(nodes.items)
    for pod in all_pods.items:
        problems += _pod(pod, by_name, settled=settled)
    problems += _room(by_name, all_pods.items, settled=settled)
    if settled:
        problems += _workloads(workloads.items, all_pods.items)
    problems += _claims(claims.items)
    return problems


def assert_possible(cluster: ports.ClusterApi, *, settled: bool = True) -> None:
    """Raises ImpossibleWorld with all problems when there are any."""
    problems = check(cluster, settled=settled)
    if problems:
        raise ImpossibleWorld(problems)


def watch_strictly(cluster: store.EmbeddedCluster) -> None:
    """Check after every single write from now on. Costs a full pass each time: for small worlds.

    A test that takes devices away under running pods cannot use it: until the kubelet acts, they are too many.
    """

    def after(event: ports.WatchEvent) -> None:
        meta = event.object.meta
        if event.type is ports.EventType.DELETED and meta.finalizers:
            raise ImpossibleWorld([f"{_name(event.object)}: gone while it had finalizers {list(meta.finalizers)}"])
        assert_possible(cluster, settled=False)

    cluster.subscribe(after)


def _name(obj: kinds.Kind) -> str:
    return f"{type(obj).__name__} {obj.meta.key}"


def _meta(obj: kinds.Kind, newest: int, uids: dict[str, str]) -> Iterator[str]:
    meta, name = obj.meta, _name(obj)
    if not 0 < meta.resource_version <= newest:
        yield f"{name}: resource_version {meta.resource_version} is not in 1..{newest}"
    if not meta.uid:
        yield f"{name}: stored without uid"
    elif uids.setdefault(meta.uid, name) != name:
        yield f"{name}: uid {meta.uid} is also that of {uids[meta.uid]}"
    if meta.deleting_s is not None:
        if not meta.finalizers:
            yield f"{name}: deleted without finalizers and still stored"
        if meta.deleting_s < meta.created_s:
            yield f"{name}: deleted at {meta.deleting_s}, before its creation at {meta.created_s}"


def _nodes(nodes: Sequence[kinds.Node]) -> Iterator[str]:
    uuids: dict[str, str] = {}
    providers: dict[str, str] = {}
    for node in nodes:
        name = _name(node)
        if node.ready and not node.provider_id:
            yield f"{name}: ready without provider_id"
        if node.provider_id and providers.setdefault(node.provider_id, name) != name:
            yield f"{name}: provider_id {node.provider_id} is also that of {providers[node.provider_id]}"
        seen: set[str] = set()
        for device in node.devices:
            if device.uuid in seen or uuids.setdefault(device.uuid, name) != name:
                yield f"{name}: device {device.uuid} is also on {uuids.get(device.uuid, name)}"
            seen.add(device.uuid)


def _pod(pod: kinds.Pod, nodes: dict[str, kinds.Node], *, settled: bool) -> Iterator[str]:
    name, placement = _name(pod), pod.placement
    running = pod.phase is kinds.PodPhase.RUNNING
    if running and placement is None:
        yield f"{name}: running without a placement"
    if running and pod.started_s is None:
        yield f"{name}: running and never started"
    if pod.phase is kinds.PodPhase.PENDING and pod.started_s is not None:
        yield f"{name}: pending and started at {pod.started_s}"
    if pod.ready and not running:
        yield f"{name}: ready in phase {pod.phase.value}"
    if pod.started_s is not None and pod.started_s < pod.meta.created_s:
        yield f"{name}: started at {pod.started_s}, before its creation at {pod.meta.created_s}"
    if placement is None:
        return
    if placement.request.id != pod.meta.key:
        yield f"{name}: placement made for {placement.request.id}"
    if placement.request.shape != pod.shape:
        yield f"{name}: placement made for another shape"
    if len(placement.devices) != pod.shape.gpus or len(set(placement.devices)) != len(placement.devices):
        yield f"{name}: devices {list(placement.devices)} for {pod.shape.gpus} asked"
    if not pods.active(pod) or not (settled or running):
        return
    node = nodes.get(placement.node)
    if node is None:
        if settled:
            yield f"{name}: bound to node {placement.node}, which does not exist"
    elif settled and not all(0 <= index < len(node.devices) for index in placement.devices):
        yield f"{name}: devices {list(placement.devices)} on {placement.node}, which has {len(node.devices)}"


def _room(nodes: dict[str, kinds.Node], all_pods: Sequence[kinds.Pod], *, settled: bool) -> Iterator[str]:
    """Sums of what running pods (and bound ones, once admitted) hold, against what there is."""
    held: dict[str, list[kinds.Pod]] = {}
    for pod in all_pods:
        if pod.placement is not None and (pod.phase is kinds.PodPhase.RUNNING or (settled and pods.active(pod))):
            held.setdefault(pod.placement.node, []).append(pod)
    for node_name in sorted(held.keys() & nodes.keys()):
        node = nodes[node_name]
        cpu = sum(pod.shape.cpu_milli for pod in held[node_name])
        memory = sum(pod.shape.memory_mib for pod in held[node_name])
        if cpu > node.cpu_milli:
            yield f"Node {node_name}: pods hold {cpu} milli-CPU of {node.cpu_milli}"
        if memory > node.memory_mib:
            yield f"Node {node_name}: pods hold {memory} MiB of {node.memory_mib}"
        for index, device in enumerate(node.devices):
            on_it = [pod for pod in held[node_name] if pod.placement and index in pod.placement.devices]
            milli = sum(pod.shape.milli for pod in on_it)
            if milli > device.milli:
                yield f"Node {node_name}: device {index} ({device.uuid}) serves {milli} milli of {device.milli}"
            if device.memory_mib is not None:
                share = sum(memory_share(pod.shape, device.memory_mib) for pod in on_it)
                if share > device.memory_mib:
                    yield f"Node {node_name}: device {index} ({device.uuid}) serves {share} MiB of {device.memory_mib}"


def _workloads(workloads: Sequence[kinds.Workload], all_pods: Sequence[kinds.Pod]) -> Iterator[str]:
    ready: dict[str, int] = {}
    for pod in all_pods:
        if pods.serving(pod):
            ready[pods.owner(pod)] = ready.get(pods.owner(pod), 0) + 1
    for workload in workloads:
        there = ready.get(workload.meta.key, 0)
        if workload.ready_replicas > there:
            yield f"{_name(workload)}: ready_replicas {workload.ready_replicas} with {there} ready pods"


def _claims(claims: Sequence[kinds.NodeClaim]) -> Iterator[str]:
    keys: dict[str, str] = {}
    machines: dict[str, str] = {}
    for claim in claims:
        name = _name(claim)
        numbers = [attempt.number for attempt in claim.attempts]
        if numbers != list(range(1, len(numbers) + 1)):
            yield f"{name}: attempts numbered {numbers}, not 1 to {len(numbers)}"
        for attempt in claim.attempts:
            owner = f"{name} attempt {attempt.number}"
            if keys.setdefault(attempt.key, owner) != owner:
                yield f"{owner}: key {attempt.key} is also that of {keys[attempt.key]}"
        if claim.attempts and kinds.MACHINE_FINALIZER not in claim.meta.finalizers:
            yield f"{name}: has attempts and no finalizer {kinds.MACHINE_FINALIZER}"
        if claim.state is kinds.ClaimState.ORDERING and not claim.attempts:
            yield f"{name}: ordering without an attempt"
        if claim.state in _WITH_MACHINE and not claim.machine_id:
            yield f"{name}: {claim.state.value} without a machine"
        if claim.machine_id and machines.setdefault(claim.machine_id, name) != name:
            yield f"{name}: machine {claim.machine_id} is also that of {machines[claim.machine_id]}"
        if claim.state is kinds.ClaimState.READY and not claim.node:
            yield f"{name}: ready without a node"
        times = [stage.time_s for stage in claim.history]
        if times != sorted(times):
            yield f"{name}: history goes back in time: {times}"
