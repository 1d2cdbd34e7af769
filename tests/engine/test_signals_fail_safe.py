"""What the whole controller does with what a metric source says: the embedded cluster, scaling, and real samples read
from the embedded store and from a real Prometheus server. Missing or broken data never lowers anything.
"""

import contextlib
import dataclasses
import itertools
import math
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoscaler.backtest.models import NothingForSale
from autoscaler.embedded.world import EmbeddedWorld
from autoscaler.engine.capacity import PoolSettings
from autoscaler.engine.controller import Controller
from autoscaler.engine.log import DecisionLog, Record
from autoscaler.engine.scaling import Scaling, ScalingSettings
from autoscaler.metrics.activity import MetricActivity
from autoscaler.metrics.prometheus import PrometheusSource
from autoscaler.metrics.queries import QUERIES, extended
from autoscaler.metrics.quiet import HistorySource
from autoscaler.metrics.rows import Grid, MetricsUnreachable
from autoscaler.metrics.series import SeriesStore
from autoscaler.model import kinds
from policies import compaction, provisioning, scale_to_zero
from policies.signals import Signal, SignalState
from tests.metrics import conftest as metrics_fixtures
from vgpu.inventory import Device, Shape

start_prometheus = metrics_fixtures.start_prometheus
duty_cycle = metrics_fixtures.duty_cycle

IDLE_S = 300.0
SPEC = scale_to_zero.Spec(keep_alive="fixed", idle_after_s=IDLE_S, min_uptime_s=0)
UTIL, ACTIVE = "DCGM_FI_DEV_GPU_UTIL", "DCGM_FI_PROF_GR_ENGINE_ACTIVE"
QUEUE, RUNNING, DONE = "interceptor_request_concurrency", "vllm:num_requests_running", "vllm:request_success_total"
BLANK = 9223372036854775794.0
SCRAPE_S = 30
BEFORE_S, AFTER_S = 1500, 450
"""Samples of a case around its moment; the controller runs for 400 s from the moment on."""

Labels = Mapping[str, str]
Values = Callable[[int], float | None]
"""Sample by seconds from the case's moment; None for a scrape that brought none."""
Series = tuple[str, Labels, Values]


# Samples --------------------------------------------------------------------------------------------------------------


def always(value: float) -> Values:
    return lambda _t: value


QUIET, PRESENT = always(0), always(1)


def until(end_s: int, value: float = 0.0) -> Values:
    return lambda t: value if t <= end_s else None


def then(start_s: int, before: float, after: float) -> Values:
    return lambda t: before if t < start_s else after


def counter(t: int) -> float:
    return 1000.0 + t


def holes(t: int) -> float | None:
    """Two minutes with samples, then four without: never idle for five by proof."""
    return 0.0 if t % 360 < 120 else None


def gpu(pod: str, uuid: str, **more: str) -> dict[str, str]:
    owner = {"pod": pod, "namespace": "ml", "container": "main"} if pod else {}
    return {"UUID": uuid, "gpu": "0", **owner, "job": "dcgm-exporter", "instance": "n:9400", **more}


def renamed(pod: str, uuid: str) -> dict[str, str]:
    """As scraped with honor_labels off."""
    exporter = {"pod": "nvidia-dcgm-exporter-x7k2p", "namespace": "gpu-operator", "container": "exporter"}
    whose = {"exported_pod": pod, "exported_namespace": "ml", "exported_container": "main"}
    return gpu("", uuid) | exporter | whose


def util(value: Values = QUIET, other: Values = QUIET) -> list[Series]:
    return [(UTIL, gpu("chat-0", "GPU-0"), value), (UTIL, gpu("chat-1", "GPU-1"), other)]


def shared(first: Values, second: Values) -> list[Series]:
    """Time-slicing: the device's value, copied into the row of either pod."""
    return [(UTIL, gpu("chat-0", "GPU-0"), first), (UTIL, gpu("chat-1", "GPU-0"), second)]


def up(value: Values = PRESENT, instance: str = "n:9400") -> list[Series]:
    return [("up", {"job": "dcgm-exporter", "instance": instance}, value)]


def queue(value: Values = QUIET, route: str = "chat") -> list[Series]:
    """The gateway's own pod stands under ``pod``, as a scrape writes it."""
    gateway = {"pod": "interceptor-6d5f8c7b9d-x2k4z", "namespace": "keda", "job": "keda", "instance": "g:2223"}
    return [(QUEUE, {"route_name": route, "route_namespace": "ml", **gateway}, value)]


def server(metric: str, value: Values, pod: str = "chat-0") -> list[Series]:
    labels = {"pod": pod, "namespace": "ml", "model_name": "m", "job": "vllm", "instance": f"{pod}:8000"}
    return [(metric, labels, value)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """What is measured of ``ml/chat`` with its two pods, and what comes of it."""

    name: str
    series: Sequence[Series]
    reasons: tuple[str, ...]
    """The reasons of all entries of the decision log about the workload, in order."""
    replicas: int = 2
    asleep: bool = False
    """It starts at zero, by us, with two replicas to restore."""
    marks: Labels = dataclasses.field(
        default_factory=lambda: {kinds.ZEROED_BY: "tidegate", kinds.RESTORE_REPLICAS: "2"}
    )


ZERO = ("IdleProven", "AlreadyZero")

TABLE = (
    # Proof that the table can fail ------------------------------------------------------------------------------------
    Case(name="healthy idle", series=[*util(), *up(), *queue()], replicas=0, reasons=ZERO),
    Case(
        name="healthy idle after use",
        series=[*util(then(-200, 80, 0)), *up(), *queue()],
        replicas=0,
        reasons=("IdleTooShort", *ZERO),
    ),
    Case(
        name="healthy idle, with an inference server",
        series=[*util(), *up(), *queue(), *server(RUNNING, always(0)), *server(RUNNING, always(0), "chat-1"),
                *server(DONE, always(7)), *server(DONE, always(9), "chat-1")],
        replicas=0,
        reasons=ZERO,
    ),
    Case(name="idle, pods under exported_pod", replicas=0, reasons=ZERO, series=[
        (UTIL, renamed("chat-0", "GPU-0"), always(0)), (UTIL, renamed("chat-1", "GPU-1"), always(0)), *up(), *queue()]),
    Case(name="time-sliced, device idle, all fresh", replicas=0, reasons=ZERO,
         series=[*shared(always(0), always(0)), *up(), *queue()]),
    Case(name="first metric unsupported, second idle", replicas=0, reasons=ZERO, series=[
        *util(always(BLANK), always(BLANK)), (ACTIVE, gpu("chat-0", "GPU-0"), always(0)),
        (ACTIVE, gpu("chat-1", "GPU-1"), always(0)), *up(), *queue()]),
    Case(name="idle, the series of a pod that is gone are stale", replicas=0, reasons=ZERO, series=[
        *util(), (UTIL, gpu("chat-7", "GPU-7"), until(-600)), *up(), *queue()]),
    Case(name="idle since the end of a hole", replicas=0, reasons=("IdleTooShort", *ZERO), series=[
        *util(lambda t: None if -900 < t < -200 else 0.0), *up(), *queue()]),
    Case(name="the other pod was in use a short while ago", replicas=0, reasons=("IdleTooShort", *ZERO), series=[
        *util(always(0), then(-200, 80, 0)), *up(), *queue()]),
    Case(name="a pod that is gone was in use a short while ago", replicas=0, reasons=("IdleTooShort", *ZERO), series=[
        *util(), (UTIL, gpu("chat-7", "GPU-7"), until(-270, 80)), *up(), *queue()]),
    Case(name="requests waited a short while ago", replicas=0, reasons=("IdleTooShort", *ZERO),
         series=[*util(), *up(), *queue(then(-200, 2, 0))]),
    # In use -----------------------------------------------------------------------------------------------------------
    Case(name="one pod busy", series=[*util(always(0), always(35)), *up(), *queue()], reasons=("Active",)),
    Case(name="time-sliced, device busy", series=[*shared(always(60), always(60)), *up(), *queue()],
         reasons=("Active",)),
    Case(name="busy, pods under exported_pod", reasons=("Active",), series=[
        (UTIL, renamed("chat-0", "GPU-0"), always(9)), (UTIL, renamed("chat-1", "GPU-1"), always(0)), *up(), *queue()]),
    Case(name="requests run while the GPU looks idle", reasons=("Active",), series=[
        *util(), *up(), *queue(), *server(RUNNING, always(1)), *server(RUNNING, always(0), "chat-1")]),
    Case(name="requests are finished while the GPU looks idle", reasons=("Active",), series=[
        *util(), *up(), *queue(), *server(DONE, counter), *server(DONE, always(5), "chat-1")]),
    Case(name="requests wait while the GPU looks idle", reasons=("Active",),
         series=[*util(), *up(), *queue(always(1))]),
    # Missing and broken -----------------------------------------------------------------------------------------------
    Case(name="empty", series=[], reasons=("SignalAbsent",)),
    Case(name="NaN", series=[*util(then(-60, 0, math.nan)), *up(), *queue()], reasons=("SignalInvalid",)),
    Case(name="+Inf", series=[*util(then(-60, 0, math.inf)), *up(), *queue()], reasons=("SignalInvalid",)),
    Case(name="blank marker", series=[*util(always(BLANK)), *up(), *queue()], reasons=("SignalInvalid",)),
    Case(name="above the range", series=[*util(always(101)), *up(), *queue()], reasons=("SignalInvalid",)),
    Case(name="ten minutes stale", reasons=("SignalStale",),
         series=[*util(until(-600), until(-600)), *up(), *queue()]),
    Case(name="one of two pods ten minutes stale", series=[*util(until(-600)), *up(), *queue()],
         reasons=("SignalStale",)),
    Case(name="one of two pods missing", series=[*util()[:1], *up(), *queue()], reasons=("SignalAbsent",)),
    Case(name="both pods missing, the wake signal is there", series=[*up(), *queue()], reasons=("SignalAbsent",)),
    Case(name="series of another workload with the same beginning", reasons=("SignalAbsent",), series=[
        (UTIL, gpu("chat-v2-0", "GPU-0"), always(0)), (UTIL, gpu("chat-v2-1", "GPU-1"), always(0)), *up(), *queue()]),
    Case(name="series of the same name in another namespace", reasons=("SignalAbsent",), series=[
        (UTIL, gpu("chat-0", "GPU-0", namespace="dev"), always(0)),
        (UTIL, gpu("chat-1", "GPU-1", namespace="dev"), always(0)), *up(), *queue()]),
    Case(name="duplicates that contradict each other", reasons=("SignalInvalid",), series=[
        *util(), (UTIL, gpu("chat-0", "GPU-0", instance="n2:9400"), always(80)), *up(), *up(instance="n2:9400"),
        *queue()]),
    Case(name="time-sliced, one copy stale", reasons=("SignalStale",), series=[
        (UTIL, gpu("chat-0", "GPU-0"), always(0)), (UTIL, gpu("chat-1", "GPU-0", instance="m:9400"), until(-600)),
        *up(), *up(instance="m:9400"), *queue()]),
    Case(name="only the exporter's own pod is named", reasons=("SignalAbsent",), series=[
        (UTIL, gpu("nvidia-dcgm-exporter-x7k2p", "GPU-0"), always(0)), *up(), *queue()]),
    Case(name="scraped with holes: never idle for long enough", reasons=("IdleTooShort", "SignalStale"),
         series=[*util(holes, holes), *up(), *queue()]),
    Case(name="an inference server went silent", reasons=("SignalStale",), series=[
        *util(), *up(), *queue(), *server(RUNNING, until(-600)), *server(RUNNING, always(0), "chat-1")]),
    Case(name="one of two inference servers tells nothing", reasons=("SignalAbsent",),
         series=[*util(), *up(), *queue(), *server(RUNNING, always(0))]),
    # Nobody could wake it ---------------------------------------------------------------------------------------------
    Case(name="no wake signal", series=[*util(), *up()], reasons=("SignalAbsent",)),
    Case(name="another workload's wake signal", series=[*util(), *up(), *queue(route="chat-v2")],
         reasons=("SignalAbsent",)),
    Case(name="a wake signal that ends with the pods", reasons=("SignalAbsent",), series=[
        *util(), *up(), *server("vllm:num_requests_waiting", always(0))]),
    Case(name="the gateway is silent", series=[*util(), *up(), *queue(until(-600))], reasons=("SignalStale",)),
    # Zero without presence --------------------------------------------------------------------------------------------
    Case(name="no presence", series=[*util(), *queue()], reasons=("PresenceUnproven",)),
    Case(name="exporter down", series=[*util(), *up(then(-60, 1, 0)), *queue()], reasons=("PresenceUnproven",)),
    Case(name="exporter silent", series=[*util(), *up(until(-600)), *queue()], reasons=("PresenceUnproven",)),
    Case(name="another node's exporter is up", series=[*util(), *up(instance="m:9400"), *queue()],
         reasons=("PresenceUnproven",)),
    # At zero ----------------------------------------------------------------------------------------------------------
    Case(name="asleep, nobody waits", asleep=True, replicas=0, series=queue(), reasons=("AlreadyZero",)),
    Case(name="asleep, requests wait", asleep=True, replicas=2, series=queue(then(90, 0, 3)),
         reasons=("AlreadyZero", "WakeSignal", "Active")),
    Case(name="asleep, requests wait for another workload", asleep=True, replicas=0, reasons=("AlreadyZero",),
         series=[*queue(), *queue(always(3), "chat-v2")]),
    Case(name="asleep, requests wait, and old pods' series have ended", asleep=True, replicas=2,
         series=[*util(until(-600), until(-600)), *queue(always(1))], reasons=("WakeSignal", "Active")),
    Case(name="asleep by a user, requests wait", asleep=True, replicas=0, marks={}, series=queue(always(3)),
         reasons=("ZeroedByUser",)),
    Case(name="asleep, the gateway is silent", asleep=True, replicas=0, series=queue(until(-600)),
         reasons=("SignalStale",)),
    Case(name="asleep, the gateway says NaN", asleep=True, replicas=0, series=queue(always(math.nan)),
         reasons=("SignalInvalid",)),
    Case(name="asleep, nothing known", asleep=True, replicas=0, series=[], reasons=("SignalAbsent",)),
)  # fmt: skip

START = 1_700_000_000.0
APART_S = 10_800.0
"""Farther apart than every look-back: no case sees another one's samples."""
AT = {case.name: START + index * APART_S for index, case in enumerate(TABLE)}


def samples_of(case: Case) -> Iterator[metrics_fixtures.Sample]:
    for metric, labels, values in case.series:
        for t in range(-BEFORE_S, AFTER_S, SCRAPE_S):
            value = values(t)
            if value is not None:
                yield metric, labels, AT[case.name] + t, value


@pytest.fixture(scope="module")
def prometheus_url(start_prometheus: Callable[..., str]) -> str:
    return start_prometheus(itertools.chain.from_iterable(samples_of(case) for case in TABLE))


@pytest.fixture(params=["store", "prometheus"])
def source_of(request: pytest.FixtureRequest) -> Generator[Callable[[Case], HistorySource]]:
    if request.param == "store":
        yield store_with
        return
    with PrometheusSource(request.getfixturevalue("prometheus_url")) as source:
        yield lambda _case: source


def store_with(case: Case) -> SeriesStore:
    store = SeriesStore()
    for sample in samples_of(case):
        assert store.append(*sample)
    return store


# The controller beside it ---------------------------------------------------------------------------------------------


class Rig:
    """An embedded cluster at a moment of a case, with a controller that reads ``source``."""

    def __init__(self, source: HistorySource, at: float, *, gpus: int = 4, spec: scale_to_zero.Spec = SPEC) -> None:
        self.world = EmbeddedWorld(start_s=at)
        self.records: list[Record] = []
        devices = tuple(Device(uuid=f"GPU-{index}", model="L4", memory_mib=24000) for index in range(gpus))
        node = kinds.Node(
            meta=kinds.Meta(name="n"), provider_id="x:///n", ready=True, cpu_milli=gpus * 4000, memory_mib=gpus * 8192,
            devices=devices,
        )  # fmt: skip
        self.world.cluster.create(node)
        self.activity = MetricActivity(source, pods=lambda: self.world.cluster.list(kinds.Pod).items)
        self.scaling = Scaling(settings=ScalingSettings(spec=spec, poll_s=120), source=self.activity, started_s=at)
        self.controller = Controller(
            cluster=self.world.cluster,
            provider=NothingForSale(),
            clock=self.world.clock,
            pool=PoolSettings(name="pool", provisioning=provisioning.Spec(), compaction=compaction.Spec()),
            log=DecisionLog(self.records.append),
            scaling=self.scaling,
        )

    def add(self, name: str, replicas: int, annotations: Labels) -> None:
        self.world.cluster.create(
            kinds.Workload(
                meta=kinds.Meta(name=name, namespace="ml", annotations=annotations),
                replicas=replicas,
                shape=Shape(cpu_milli=1000, memory_mib=1024, gpus=1, milli=1000),
            )
        )

    def run(self, seconds: float) -> None:
        now = self.world.clock.now()
        # The pods run before the controller looks for the first time.
        self.world.run([], until=now)
        self.world.run([self.controller], until=now + seconds)

    def replicas(self, name: str = "chat") -> int:
        return self.world.cluster.get(kinds.Workload, f"ml/{name}").replicas

    def reasons(self, name: str = "chat") -> tuple[str, ...]:
        return tuple(record.reason for record in self.records if record.subject == f"ml/{name}")


def rig_of(case: Case, source: HistorySource) -> Rig:
    rig = Rig(source, AT[case.name])
    rig.add("chat", 0 if case.asleep else 2, case.marks if case.asleep else {})
    return rig


@pytest.mark.parametrize("case", TABLE, ids=lambda case: case.name)
def test_what_comes_of_it(case: Case, source_of: Callable[[Case], HistorySource]) -> None:
    rig = rig_of(case, source_of(case))
    rig.run(400)
    assert (rig.replicas(), rig.reasons()) == (case.replicas, case.reasons)
    assert rig.controller.problems == []
    woken = case.asleep and case.replicas > 0
    if woken:
        marks = rig.world.cluster.get(kinds.Workload, "ml/chat").meta.annotations
        assert marks.keys() == {kinds.LAST_WAKE}


@pytest.mark.parametrize("asleep", [False, True])
def test_a_server_that_is_down_changes_nothing(*, asleep: bool) -> None:
    with PrometheusSource(f"http://127.0.0.1:{metrics_fixtures._free_port()}", tries=1) as source:
        case = dataclasses.replace(TABLE[0], asleep=asleep)
        rig = rig_of(case, source)
        rig.run(400)
        assert (rig.replicas(), rig.reasons()) == (0 if asleep else 2, ("SignalUnreachable",))
        assert rig.scaling.health() is SignalState.UNREACHABLE


def test_a_past_that_cannot_be_read_is_no_proof() -> None:
    """The newest samples are there and quiet; range questions fail. Then they work again."""

    class Forgetful(SeriesStore):
        fails = True

        def history(self, name: str, *args: Any, **span: Any) -> Iterator[Grid]:
            if self.fails:
                raise MetricsUnreachable("query processing would load too many samples into memory")
            return super().history(name, *args, **span)

    case = TABLE[0]
    store = Forgetful()
    for sample in samples_of(case):
        store.append(*sample)
    rig = rig_of(case, store)
    # Longer than the idle time: its own watching is no proof either.
    rig.run(310)
    assert (rig.replicas(), rig.reasons()) == (2, ("SignalUnreachable",))
    store.fails = False
    rig.run(130)
    assert (rig.replicas(), rig.reasons()) == (0, ("SignalUnreachable", *ZERO))


@pytest.mark.parametrize("quiet_s", [270, 330])
def test_both_sources_meet_the_same_idle_time(quiet_s: int, start_prometheus: Callable[..., str]) -> None:
    """The bound of the last use, from either source, to within one scrape and one step."""
    at = START - 40 * APART_S
    samples = [
        (metric, labels, at + t, float(value))
        for metric, labels, values in (*util(then(-quiet_s, 50, 0)), *up(), *queue())
        for t in range(-BEFORE_S, 0, SCRAPE_S)
        if (value := values(t)) is not None
    ]
    store = SeriesStore()
    for sample in samples:
        store.append(*sample)
    bounds: list[float | None] = []
    with PrometheusSource(start_prometheus(samples)) as source:
        for asked in (store, source):
            rig = Rig(asked, at)
            rig.add("chat", 2, {})
            rig.run(0)
            bounds.append(rig.activity.activity("ml/chat", at=at).last_active_s)
            assert rig.replicas() == (0 if quiet_s > IDLE_S else 2)
    assert bounds[0] == bounds[1]
    assert bounds[0] is not None
    # Between the last busy sample and the first quiet one; no more than a step before the latter.
    assert at - quiet_s - 15 <= bounds[0] <= at - quiet_s


# The source alone -----------------------------------------------------------------------------------------------------


def plain(store: SeriesStore, **settings: object) -> MetricActivity:
    """Without a cluster: pods' names have to tell."""
    return MetricActivity(store, **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("pod", "workload", "found"),
    [
        ("api-7d4b9c5f6b-x2x4z", "ml/api", True),
        ("api-0", "ml/api", True),
        ("api-x2x4z", "ml/api", True),
        ("api-v2-7d4b9c5f6b-x2x4z", "ml/api", False),
        ("api-v2-7d4b9c5f6b-x2x4z", "ml/api-v2", True),
        ("api-v2-0", "ml/api", False),
        ("apis-0", "ml/api", False),
        ("api-0", "dev/api", False),
    ],
)
def test_pods_by_their_names(pod: str, workload: str, *, found: bool) -> None:
    store = SeriesStore()
    store.append(UTIL, gpu(pod, "GPU-0"), 1000.0, 0.0)
    (signal,) = plain(store).activity(workload, at=1010.0).activity
    assert signal.state is (SignalState.VALID if found else SignalState.ABSENT)


def test_every_query_is_asked_once_for_all_workloads() -> None:
    asked: list[tuple[str, ...]] = []

    class Counting(SeriesStore):
        def signals(self, names: Sequence[str], *, at: float | None = None) -> Sequence[Signal]:
            asked.append(tuple(names))
            return super().signals(names, at=at)

        def history(self, name: str, *args: Any, **span: Any) -> Iterator[Grid]:
            asked.append(("past", name))
            return super().history(name, *args, **span)

    store = Counting()
    for index, t in itertools.product(range(50), range(0, 1000, 30)):
        store.append(UTIL, gpu(f"w{index}-0", f"GPU-{index}"), t, 0.0)
        store.append(QUEUE, {"route_name": f"w{index}", "route_namespace": "ml"}, t, 0.0)
    source = plain(store)
    for index in range(50):
        known = source.activity(f"ml/w{index}", at=1000.0)
        assert [signal.state for signal in (*known.activity, *known.wake)] == [SignalState.VALID] * 2
        assert known.last_active_s == 0.0
    assert asked == [
        ("pod_gpu_utilisation", "requests_running", "request_rate", "requests_waiting", "exporter_up"),
        ("past", "pod_gpu_utilisation"),
        ("past", "requests_waiting"),
    ]
    # A second later the answer still serves, and is a second older.
    assert source.activity("ml/w0", at=1001.0).activity[0].age_s == pytest.approx(11.0)
    assert len(asked) == 3
    source.activity("ml/w0", at=1002.5)
    assert len(asked) > 3


def test_a_clock_that_goes_back_reads_the_past_again() -> None:
    store = SeriesStore()
    for t in range(0, 2000, 30):
        store.append(UTIL, gpu("w-0", "GPU-0"), t, 0.0 if t < 1500 else 70.0)
        store.append(QUEUE, {"route_name": "w", "route_namespace": "ml"}, t, 0.0)
    source = plain(store)
    assert source.activity("ml/w", at=1990.0).last_active_s == pytest.approx(1990, abs=30)
    assert source.activity("ml/w", at=1400.0).last_active_s == 0.0


@given(
    spells=st.lists(st.tuples(st.sampled_from([0.0, 55.0, None]), st.integers(1, 14)), min_size=2, max_size=8),
    looks=st.lists(st.integers(0, 80 * 30), max_size=12),
)
def test_however_often_one_looks_idle_time_is_never_longer_than_proven(
    spells: list[tuple[float | None, int]], looks: list[int]
) -> None:
    """A sample each half minute, or none. Truth: the last busy sample, the first of all, the end of the last hole."""
    values = [value for value, length in spells for _ in range(length)]
    store = SeriesStore()
    known = [(1000.0 + 30 * index, value) for index, value in enumerate(values) if value is not None]
    for time_s, value in known:
        store.append(UTIL, gpu("w-0", "GPU-0"), time_s, value)
    now = 1000.0 + 30 * len(values)
    for index in range(len(values) + 1):
        store.append(QUEUE, {"route_name": "w", "route_namespace": "ml"}, 1000.0 + 30 * index, 0.0)
    source = plain(store)
    for look in sorted(look for look in looks if 1000 + look < now):
        source.activity("ml/w", at=1000.0 + look)
    bound = source.activity("ml/w", at=now).last_active_s
    if not known or now - known[-1][0] > 180:
        assert bound is None
        return
    truth = max(
        known[0][0],
        *(time_s for time_s, value in known if value),
        *(after for (before, _), (after, _) in itertools.pairwise(known) if after - before > 180 + 15),
        1000.0,
    )
    assert bound is not None
    assert bound >= truth
    assert plain(store).activity("ml/w", at=now).last_active_s == pytest.approx(bound, abs=15)


def test_a_house_of_its_own_gateway() -> None:
    queries = extended(QUERIES, "requests_waiting", "our_queue_length")
    store = SeriesStore(queries=queries)
    store.append("our_queue_length", {"workload": "chat", "namespace": "ml"}, 1000.0, 4.0)
    source = plain(store, queries=queries)
    (signal,) = source.activity("ml/chat", at=1005.0).wake
    assert (signal.state, signal.value) == (SignalState.VALID, 4.0)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"activity": ()}, "name at least one query"),
        ({"wake": ()}, "name at least one query"),
        ({"wake": ("gpu_heat",)}, "query='gpu_heat': not defined"),
        ({"presence": "gpu_heat"}, "query='gpu_heat': not defined"),
        ({"step_s": 0.5}, "whole seconds"),
        ({"look_back_s": 10.0}, "longer look-back"),
    ],
)
def test_settings_that_make_no_sense(settings: dict[str, object], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        plain(SeriesStore(), **settings)


# A real fleet ---------------------------------------------------------------------------------------------------------

FLEET_IDLE_S = 897.0
"""No multiple of a step: no pod is a borderline case."""


def idle_by_hand(rows: Sequence[tuple[float, float]], at: float) -> bool:
    """Whether a pod's samples alone prove that it was idle for ``FLEET_IDLE_S``: time between a busy sample and the
    next one counts as busy, to the last whole 15 s; so does a hole of more than three minutes.
    """
    rows = [row for row in rows if at - 7200 <= row[0] <= at]
    if not rows or at - rows[-1][0] > 180 or rows[-1][1] > 0:
        return False
    since = rows[0][0]
    for (time_s, value), (next_s, _) in itertools.pairwise(rows):
        if next_s - time_s > 180:
            since = math.ceil(next_s / 15) * 15
        elif value > 0:
            since = (math.ceil(next_s / 15) - 1) * 15
    return at - since >= FLEET_IDLE_S


@pytest.fixture(params=["store", "prometheus"])
def fleet_source(request: pytest.FixtureRequest) -> Generator[Callable[[list[metrics_fixtures.Sample]], HistorySource]]:
    with contextlib.ExitStack() as stack:

        def build(samples: list[metrics_fixtures.Sample]) -> HistorySource:
            if request.param == "prometheus":
                url: str = request.getfixturevalue("start_prometheus")(samples)
                return stack.enter_context(PrometheusSource(url))
            store = SeriesStore()
            for sample in samples:
                store.append(*sample)
            return store

        yield build


@pytest.mark.parametrize("hour", [12, 16])
def test_a_real_fleet_sleeps_where_its_samples_prove_it(
    hour: int,
    duty_cycle: list[tuple[float, str, float]],
    fleet_source: Callable[[list[metrics_fixtures.Sample]], HistorySource],
) -> None:
    at = 1662858720.0 + hour * 3600
    by_pod: dict[str, list[tuple[float, float]]] = {}
    for time_s, pod, value in duty_cycle:
        if at - 7200 <= time_s <= at:
            by_pod.setdefault(pod, []).append((time_s, value))
    samples: list[metrics_fixtures.Sample] = []
    for pod, rows in by_pod.items():
        samples += [(UTIL, gpu(f"{pod}-0", f"GPU-{pod}"), time_s, value) for time_s, value in rows]
        route = {"route_name": pod, "route_namespace": "ml"}
        samples += [(QUEUE, route, at - 7200 + 60 * step, 0.0) for step in range(121)]
    samples += [
        ("up", {"job": "dcgm-exporter", "instance": "n:9400"}, at - 60 * step, 1.0) for step in range(120, -1, -1)
    ]

    spec = SPEC.model_copy(update={"idle_after_s": FLEET_IDLE_S})
    rig = Rig(fleet_source(samples), at, gpus=len(by_pod), spec=spec)
    for pod in by_pod:
        rig.add(pod, 1, {})
    rig.run(0)

    slept = {pod for pod in by_pod if rig.replicas(pod) == 0}
    assert slept == {pod for pod, rows in by_pod.items() if idle_by_hand(rows, at)}
    assert 10 <= len(slept) <= len(by_pod) - 10, "the moment must hold both kinds"
    busy = {pod for pod, rows in by_pod.items() if rows[-1][1] > 0 and at - rows[-1][0] <= 180}
    assert {rig.reasons(pod)[0] for pod in busy} <= {"Active"}
    assert not busy & slept
