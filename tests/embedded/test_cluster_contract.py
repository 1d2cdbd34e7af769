"""What every cluster behind ``ports.ClusterApi`` owes the engine. A real API server joins by one more factory."""

import dataclasses
from collections.abc import Callable, Sequence

import pytest

from autoscaler.embedded import clock, store
from autoscaler.model import kinds, ports
from providers import offers
from vgpu.inventory import Placement, Request, Shape

SHAPE = Shape(cpu_milli=1000, memory_mib=1024, gpus=1, milli=500)
ADDED, MODIFIED, DELETED = ports.EventType.ADDED, ports.EventType.MODIFIED, ports.EventType.DELETED


@dataclasses.dataclass(frozen=True, kw_only=True)
class Server:
    """A cluster under test, and the one thing the port cannot ask for."""

    cluster: ports.ClusterApi
    forget: Callable[[], None]
    """Make the server drop its oldest changes, as etcd's compaction does."""


def embedded() -> Server:
    cluster = store.EmbeddedCluster(clock.VirtualClock(100.0), history=20)

    def forget() -> None:
        for kind in (node("forgotten"), pod("forgotten")):
            for _ in range(20):
                cluster.create(kind)
                cluster.delete(cluster.get(type(kind), kind.meta.key))

    return Server(cluster=cluster, forget=forget)


FACTORIES: Sequence[Callable[[], Server]] = (embedded,)


@pytest.fixture(params=FACTORIES, ids=lambda factory: factory.__name__)
def server(request: pytest.FixtureRequest) -> Server:
    return request.param()


@pytest.fixture
def cluster(server: Server) -> ports.ClusterApi:
    return server.cluster


def node(name: str = "n", **meta: object) -> kinds.Node:
    return kinds.Node(meta=kinds.Meta(name=name, **meta), cpu_milli=8000, memory_mib=8192)  # type: ignore[arg-type]


def pod(name: str = "p", *, workload: str = "", finalizers: tuple[str, ...] = ()) -> kinds.Pod:
    labels = {kinds.WORKLOAD_LABEL: workload} if workload else {}
    return kinds.Pod(meta=kinds.Meta(name=name, namespace="ns", labels=labels, finalizers=finalizers), shape=SHAPE)


def offer() -> offers.Offer:
    shape = offers.MachineShape(gpu_model="L4", gpus=1, gpu_memory_mib=24000, cpu_milli=4000, memory_mib=16384)
    return offers.Offer(
        provider="aws",
        region="r",
        zone="z",
        instance_type="g6.xlarge",
        capacity_type=offers.CapacityType.SPOT,
        shape=shape,
        price_micro_usd=1,
        as_of="2026-01-01",
    )


def claim(name: str = "c") -> kinds.NodeClaim:
    return kinds.NodeClaim(
        meta=kinds.Meta(name=name, finalizers=(kinds.MACHINE_FINALIZER,)), pool="p", offers=(offer(),), reason="test"
    )


def placement(key: str) -> Placement:
    return Placement(request=Request(id=key, shape=SHAPE), node="n", devices=(0,))


def make_ready(cluster: ports.ClusterApi, key: str) -> None:
    bound = cluster.patch(cluster.get(kinds.Pod, key), placement=placement(key))
    cluster.patch(bound, phase=kinds.PodPhase.RUNNING, started_s=bound.meta.created_s, ready=True)


def seen(events: Sequence[ports.WatchEvent]) -> list[tuple[ports.EventType, str]]:
    return [(event.type, event.object.meta.key) for event in events]


# Create, get, list ------------------------------------------------------------------------------------------------


def test_create_gives_identity_version_and_time(cluster: ports.ClusterApi) -> None:
    one, two = cluster.create(pod("a")), cluster.create(pod("b"))
    assert one.meta.uid
    assert two.meta.uid
    assert one.meta.uid != two.meta.uid
    assert two.meta.resource_version > one.meta.resource_version > 0
    assert one.meta.created_s <= two.meta.created_s
    assert cluster.get(kinds.Pod, "ns/a") == one


def test_one_version_counts_over_all_kinds(cluster: ports.ClusterApi) -> None:
    versions = [
        stored.meta.resource_version
        for stored in (cluster.create(pod()), cluster.create(node()), cluster.create(claim()))
    ]
    assert versions == sorted(set(versions))


def test_list_is_by_key_and_carries_the_version_to_watch_from(cluster: ports.ClusterApi) -> None:
    for name in ("c", "a", "b"):
        cluster.create(pod(name))
    listing = cluster.list(kinds.Pod)
    assert [item.meta.key for item in listing.items] == ["ns/a", "ns/b", "ns/c"]
    assert cluster.watch(kinds.Pod, listing.resource_version) == ()
    cluster.create(pod("d"))
    assert seen(cluster.watch(kinds.Pod, listing.resource_version)) == [(ADDED, "ns/d")]


def test_the_same_name_in_another_kind_or_namespace_is_another_object(cluster: ports.ClusterApi) -> None:
    cluster.create(node("x"))
    cluster.create(pod("x"))
    other = pod("x")
    cluster.create(kinds.Pod(meta=kinds.Meta(name="x", namespace="other"), shape=other.shape))
    with pytest.raises(ports.AlreadyExists, match="'ns/x'"):
        cluster.create(pod("x"))


@pytest.mark.parametrize(
    ("obj", "message"),
    [
        pytest.param(node(""), "name", id="no name"),
        pytest.param(node("a/b"), "slash", id="slash"),
        pytest.param(node("a", resource_version=3), "resource_version", id="stored version on a new object"),
        pytest.param(node("a", deleting_s=1.0), "deleting_s", id="born deleted"),
        pytest.param(
            kinds.Workload(meta=kinds.Meta(name="w", namespace="ns"), replicas=-1, shape=SHAPE),
            "replicas=-1",
            id="negative replicas",
        ),
        pytest.param(
            kinds.Pod(meta=kinds.Meta(name="p", namespace="ns"), shape=SHAPE, phase=kinds.PodPhase.RUNNING),
            "placement",
            id="running nowhere",
        ),
        pytest.param(
            kinds.Pod(meta=kinds.Meta(name="p", namespace="ns"), shape=SHAPE, placement=placement("ns/q")),
            "request.id",
            id="another pod's placement",
        ),
        pytest.param(
            kinds.Pod(
                meta=kinds.Meta(name="p", namespace="ns"),
                shape=SHAPE,
                placement=Placement(request=Request(id="ns/p", shape=SHAPE), node="n", devices=(0, 1)),
            ),
            "devices",
            id="too many devices",
        ),
    ],
)
def test_create_refuses_what_cannot_be(cluster: ports.ClusterApi, obj: kinds.Kind, message: str) -> None:
    with pytest.raises(ports.UnprocessableEntity, match=message):
        cluster.create(obj)
    assert cluster.list(type(obj)).items == ()


# Patch --------------------------------------------------------------------------------------------------------------


def test_patch_changes_fields_and_merges_metadata(cluster: ports.ClusterApi) -> None:
    stored = cluster.create(node("n", labels={"keep": "1", "drop": "1"}))
    changed = cluster.patch(
        stored, ready=True, provider_id="aws:///z/i", labels={"drop": None, "new": "2"}, annotations={"a": "b"}
    )
    assert (changed.ready, changed.provider_id, changed.cpu_milli) == (True, "aws:///z/i", 8000)
    assert dict(changed.meta.labels) == {"keep": "1", "new": "2"}
    assert dict(changed.meta.annotations) == {"a": "b"}
    assert changed.meta.uid == stored.meta.uid
    assert changed.meta.resource_version > stored.meta.resource_version
    assert cluster.get(kinds.Node, "n") == changed
    assert dict(stored.meta.labels) == {"keep": "1", "drop": "1"}, "what was read is a value of its own"


def test_a_patch_that_changes_nothing_writes_nothing(cluster: ports.ClusterApi) -> None:
    stored = cluster.create(node("n", labels={"a": "1"}))
    before = cluster.list(kinds.Node).resource_version
    again = cluster.patch(stored, ready=False, labels={"a": "1", "absent": None}, finalizers=())
    assert again == stored
    assert cluster.list(kinds.Node).resource_version == before
    assert cluster.watch(kinds.Node, before) == ()


def test_patch_on_an_old_version_is_a_conflict_and_changes_nothing(cluster: ports.ClusterApi) -> None:
    old = cluster.create(node())
    new = cluster.patch(old, unschedulable=True)
    with pytest.raises(ports.Conflict, match=f"version {old.meta.resource_version}, now at"):
        cluster.patch(old, ready=True)
    with pytest.raises(ports.Conflict):
        cluster.patch(old, unschedulable=False)
    with pytest.raises(ports.Conflict):
        cluster.delete(old)
    assert cluster.get(kinds.Node, "n") == new


def test_an_object_of_the_same_name_made_later_is_not_the_one_that_was_read(cluster: ports.ClusterApi) -> None:
    old = cluster.create(pod())
    cluster.delete(old)
    new = cluster.create(pod())
    assert new.meta.uid != old.meta.uid
    with pytest.raises(ports.Conflict):
        cluster.delete(old)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"colour": "blue"}, "colour"),
        ({"meta": kinds.Meta(name="x")}, "meta"),
        ({"uid": "x"}, "uid"),
        ({"labels": "text"}, "labels"),
        ({"finalizers": "text"}, "finalizers"),
    ],
)
def test_patch_refuses_unknown_fields(cluster: ports.ClusterApi, changes: dict[str, object], message: str) -> None:
    stored = cluster.create(node())
    with pytest.raises(ports.UnprocessableEntity, match=f"Node 'n'.*{message}"):
        cluster.patch(stored, **changes)
    assert cluster.get(kinds.Node, "n") == stored


def test_what_was_decided_once_cannot_change(cluster: ports.ClusterApi) -> None:
    stored = cluster.create(claim())
    with pytest.raises(ports.UnprocessableEntity, match="offers"):
        cluster.patch(stored, offers=())
    cluster.create(node())
    bound = cluster.patch(cluster.create(pod()), placement=placement("ns/p"))
    with pytest.raises(ports.UnprocessableEntity, match="bound already"):
        cluster.patch(bound, placement=None)
    with pytest.raises(ports.UnprocessableEntity, match="shape"):
        cluster.patch(bound, shape=Shape())


def test_absent_objects_are_not_found_by_name(cluster: ports.ClusterApi) -> None:
    stored = cluster.create(pod())
    cluster.delete(stored)
    for call in (
        lambda: cluster.get(kinds.Pod, "ns/p"),
        lambda: cluster.patch(stored, ready=True),
        lambda: cluster.delete(stored),
        lambda: cluster.evict("ns/p"),
    ):
        with pytest.raises(ports.NotFound, match="Pod 'ns/p'"):
            call()


# Deletion -----------------------------------------------------------------------------------------------------------


def test_deletion_marks_and_the_last_finalizer_removes(cluster: ports.ClusterApi) -> None:
    since = cluster.list(kinds.NodeClaim).resource_version
    stored = cluster.patch(cluster.create(claim()), finalizers=(kinds.MACHINE_FINALIZER, "other/one"))
    cluster.delete(stored)
    marked = cluster.get(kinds.NodeClaim, "c")
    assert marked.meta.deleting_s is not None
    assert marked.meta.resource_version > stored.meta.resource_version
    cluster.delete(marked)
    assert cluster.get(kinds.NodeClaim, "c") == marked, "asking twice is asking once"
    with pytest.raises(ports.UnprocessableEntity, match="finalizers"):
        cluster.patch(marked, finalizers=(*marked.meta.finalizers, "late/one"))
    one_left = cluster.patch(marked, finalizers=(kinds.MACHINE_FINALIZER,), state=kinds.ClaimState.TERMINATING)
    assert cluster.get(kinds.NodeClaim, "c") == one_left
    gone = cluster.patch(one_left, finalizers=())
    with pytest.raises(ports.NotFound):
        cluster.get(kinds.NodeClaim, "c")
    events = cluster.watch(kinds.NodeClaim, since)
    assert [event.type for event in events] == [ADDED, MODIFIED, MODIFIED, MODIFIED, DELETED]
    last = events[-1].object
    assert isinstance(last, kinds.NodeClaim)
    assert last.state is kinds.ClaimState.TERMINATING
    assert last.meta.finalizers == ()
    assert last.meta.resource_version == gone.meta.resource_version == events[-1].resource_version


def test_without_finalizers_deletion_is_at_once_and_the_event_has_the_last_state(cluster: ports.ClusterApi) -> None:
    stored = cluster.create(node("n", labels={"a": "b"}))
    cluster.delete(stored)
    (event,) = cluster.watch(kinds.Node, stored.meta.resource_version)
    assert event.type is DELETED
    assert isinstance(event.object, kinds.Node)
    assert dict(event.object.meta.labels) == {"a": "b"}
    assert event.object.cpu_milli == stored.cpu_milli
    assert event.resource_version > stored.meta.resource_version
    cluster.create(node("n"))


# Watch --------------------------------------------------------------------------------------------------------------


def test_watch_gives_each_kind_its_own_history_in_order(cluster: ports.ClusterApi) -> None:
    start = cluster.list(kinds.Pod).resource_version
    one = cluster.create(pod("a"))
    cluster.create(node())
    two = cluster.create(pod("b"))
    cluster.patch(one, labels={"x": "y"})
    cluster.delete(two)
    table = [(ADDED, "ns/a"), (ADDED, "ns/b"), (MODIFIED, "ns/a"), (DELETED, "ns/b")]
    events = cluster.watch(kinds.Pod, start)
    assert seen(events) == table
    versions = [event.resource_version for event in events]
    assert versions == sorted(set(versions))
    assert [event.object.meta.resource_version for event in events] == versions
    for cut in range(len(table)):
        assert seen(cluster.watch(kinds.Pod, versions[cut])) == table[cut + 1 :]
    assert seen(cluster.watch(kinds.Node, start)) == [(ADDED, "n")]
    assert seen(cluster.watch(kinds.Workload, start)) == []


def test_a_watch_from_before_the_history_is_gone_and_a_new_list_heals_it(server: Server) -> None:
    cluster = server.cluster
    since = cluster.list(kinds.Pod).resource_version
    kept = cluster.create(pod("kept"))
    server.forget()
    with pytest.raises(ports.Gone, match="list again"):
        cluster.watch(kinds.Pod, since)
    listing = cluster.list(kinds.Pod)
    assert listing.items == (kept,)
    assert cluster.watch(kinds.Pod, listing.resource_version) == ()


def test_a_version_from_the_future_is_gone(cluster: ports.ClusterApi) -> None:
    with pytest.raises(ports.Gone):
        cluster.watch(kinds.Pod, cluster.list(kinds.Pod).resource_version + 1000)


# Eviction -----------------------------------------------------------------------------------------------------------


def with_budget(cluster: ports.ClusterApi, minimum: int, *, workload: str = "ns/w", name: str = "b") -> None:
    cluster.create(
        kinds.DisruptionBudget(meta=kinds.Meta(name=name, namespace="ns"), workload=workload, min_available=minimum)
    )


def answer_to_eviction(cluster: ports.ClusterApi, key: str) -> str:
    try:
        cluster.evict(key)
    except ports.TooManyRequests as refusal:
        return str(refusal)
    return ""


@pytest.mark.parametrize(
    ("ready", "minimum", "evictions"),
    [(3, 0, 3), (3, 1, 2), (3, 2, 1), (3, 3, 0), (3, 9, 0), (1, 1, 0)],
)
def test_evictions_stop_at_the_budget(cluster: ports.ClusterApi, ready: int, minimum: int, evictions: int) -> None:
    cluster.create(node())
    with_budget(cluster, minimum)
    for index in range(ready):
        cluster.create(pod(f"p{index}", workload="ns/w"))
        make_ready(cluster, f"ns/p{index}")
    answers = [answer_to_eviction(cluster, f"ns/p{index}") for index in range(ready)]
    assert [answer == "" for answer in answers] == [True] * evictions + [False] * (ready - evictions)
    assert all("'ns/b'" in answer for answer in answers[evictions:])
    assert len(cluster.list(kinds.Pod).items) == ready - evictions


def test_pods_that_are_not_ready_may_always_be_evicted_and_do_not_count(cluster: ports.ClusterApi) -> None:
    cluster.create(node())
    with_budget(cluster, 1)
    for name in ("ready", "waiting"):
        cluster.create(pod(name, workload="ns/w"))
    make_ready(cluster, "ns/ready")
    with pytest.raises(ports.TooManyRequests):
        cluster.evict("ns/ready")
    cluster.evict("ns/waiting")
    assert [item.meta.name for item in cluster.list(kinds.Pod).items] == ["ready"]


def test_the_strictest_of_several_budgets_holds_and_other_workloads_do_not_matter(cluster: ports.ClusterApi) -> None:
    cluster.create(node())
    with_budget(cluster, 0, name="loose")
    with_budget(cluster, 1, name="tight")
    with_budget(cluster, 9, name="other", workload="ns/other")
    for name, workload in (("a", "ns/w"), ("alone", "")):
        cluster.create(pod(name, workload=workload))
        make_ready(cluster, f"ns/{name}")
    with pytest.raises(ports.TooManyRequests, match="tight"):
        cluster.evict("ns/a")
    cluster.evict("ns/alone")


def test_an_evicted_pod_with_a_finalizer_is_only_marked_and_no_longer_counts(cluster: ports.ClusterApi) -> None:
    cluster.create(node())
    with_budget(cluster, 1)
    for name in ("a", "b"):
        cluster.create(pod(name, workload="ns/w", finalizers=("hold/it",)))
        make_ready(cluster, f"ns/{name}")
    cluster.evict("ns/a")
    assert cluster.get(kinds.Pod, "ns/a").meta.deleting_s is not None
    cluster.evict("ns/a")
    with pytest.raises(ports.TooManyRequests):
        cluster.evict("ns/b")
