"""What every metric source owes its caller: the same cases against the embedded store and a real Prometheus server."""

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence

import pytest

from autoscaler.metrics.prometheus import PrometheusSource
from autoscaler.metrics.queries import QUERIES
from autoscaler.metrics.rows import Grid
from autoscaler.metrics.series import SeriesStore
from autoscaler.model.ports import MetricSource
from policies.signals import Signal, SignalState

UTIL, ACTIVE, USED = "DCGM_FI_DEV_GPU_UTIL", "DCGM_FI_PROF_GR_ENGINE_ACTIVE", "DCGM_FI_DEV_FB_USED"
V, S, A, I = SignalState.VALID, SignalState.STALE, SignalState.ABSENT, SignalState.INVALID  # noqa: E741
BLANK = 9223372036854775794.0

Labels = Mapping[str, str]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """Samples as (metric, labels, age in seconds, value), a question, and the whole answer."""

    name: str
    samples: Sequence[tuple[str, Labels, float, float]]
    ask: str = "gpu_utilisation"
    expect: "Sequence[Expected]"
    says: str = ""
    """Part of the detail of the first signal."""


def gpu(uuid: str = "GPU-1", **more: str) -> dict[str, str]:
    return {"UUID": uuid, "gpu": "0", "job": "dcgm-exporter", "instance": "10.0.0.1:9400", **more}


DEVICE = {"UUID": "GPU-1", "gpu": "0"}
POD_A = {"pod": "a", "namespace": "ml", "container": "main"}
POD_B = {"pod": "b", "namespace": "ml", "container": "main"}
Expected = tuple[Labels, SignalState, float | None, float | None]
ABSENT: Sequence[Expected] = [({}, A, None, None)]

CASES = (
    Case(name="fresh", samples=[(UTIL, gpu(), 75, 30), (UTIL, gpu(), 15, 42)], expect=[(DEVICE, V, 42, 15)]),
    Case(name="a real zero is a value", samples=[(UTIL, gpu(), 15, 0)], expect=[(DEVICE, V, 0, 15)]),
    Case(name="at the maximum age", samples=[(UTIL, gpu(), 180, 42)], expect=[(DEVICE, V, 42, 180)]),
    Case(
        name="just past the maximum age",
        samples=[(UTIL, gpu(), 181, 42)],
        expect=[(DEVICE, S, 42, 181)],
        says="last sample of DCGM_FI_DEV_GPU_UTIL is 181 s old, at most 180 s are trusted",
    ),
    Case(name="ten minutes old", samples=[(UTIL, gpu(), 600, 42)], expect=[(DEVICE, S, 42, 600)], says="600 s old"),
    Case(name="ten minutes old between search steps", samples=[(UTIL, gpu(), 607, 0)], expect=[(DEVICE, S, 0, 607)]),
    Case(name="55 minutes old", samples=[(UTIL, gpu(), 3300, 42)], expect=[(DEVICE, S, 42, 3300)]),
    Case(
        name="past the look-back",
        samples=[(UTIL, gpu(), 3700, 42)],
        expect=ABSENT,
        says="no series of DCGM_FI_DEV_GPU_UTIL, DCGM_FI_PROF_GR_ENGINE_ACTIVE",
    ),
    Case(name="never seen", samples=[(USED, gpu(), 15, 42)], expect=ABSENT),
    Case(name="only in the future", samples=[(UTIL, gpu(), -30, 42)], expect=ABSENT),
    Case(
        name="one fresh, one stale",
        samples=[(UTIL, gpu(), 15, 42), (UTIL, gpu("GPU-2"), 900, 7)],
        expect=[(DEVICE, V, 42, 15), ({"UUID": "GPU-2", "gpu": "0"}, S, 7, 900)],
    ),
    Case(name="NaN", samples=[(UTIL, gpu(), 15, math.nan)], expect=[(DEVICE, I, None, 15)], says="is NaN"),
    Case(name="stale NaN", samples=[(UTIL, gpu(), 600, math.nan)], expect=[(DEVICE, I, None, 600)], says="is NaN"),
    Case(name="+Inf", samples=[(UTIL, gpu(), 15, math.inf)], expect=[(DEVICE, I, None, 15)], says="infinite"),
    Case(name="-Inf", samples=[(UTIL, gpu(), 15, -math.inf)], expect=[(DEVICE, I, None, 15)], says="infinite"),
    Case(name="blank marker", samples=[(UTIL, gpu(), 15, BLANK)], expect=[(DEVICE, I, None, 15)], says="blank marker"),
    Case(
        name="above the range",
        samples=[(UTIL, gpu(), 15, 101)],
        expect=[(DEVICE, I, None, 15)],
        says="101 percent is outside 0 to 100",
    ),
    Case(name="negative", samples=[(UTIL, gpu(), 15, -1)], expect=[(DEVICE, I, None, 15)], says="outside"),
    Case(
        name="bytes where MiB belong",
        ask="gpu_memory_used_mib",
        samples=[(USED, gpu(), 15, 50_833_129_472)],
        expect=[(DEVICE, I, None, 15)],
        says="outside",
    ),
    Case(
        name="second choice, scaled",
        samples=[(ACTIVE, gpu(), 15, 0.25)],
        expect=[(DEVICE, V, 25, 15)],
    ),
    Case(
        name="first choice wins",
        samples=[(UTIL, gpu(), 15, 42), (ACTIVE, gpu(), 15, 0.25)],
        expect=[(DEVICE, V, 42, 15)],
    ),
    Case(
        name="second choice where the first is unsupported",
        samples=[(UTIL, gpu(), 15, BLANK), (ACTIVE, gpu(), 15, 0.25)],
        expect=[(DEVICE, V, 25, 15)],
    ),
    Case(
        name="MIG instances are devices of their own",
        samples=[
            (ACTIVE, gpu(GPU_I_ID="1", GPU_I_PROFILE="1g.10gb"), 15, 0.5),
            (ACTIVE, gpu(GPU_I_ID="2", GPU_I_PROFILE="1g.10gb"), 15, 0),
        ],
        expect=[
            ({**DEVICE, "GPU_I_ID": "1", "GPU_I_PROFILE": "1g.10gb"}, V, 50, 15),
            ({**DEVICE, "GPU_I_ID": "2", "GPU_I_PROFILE": "1g.10gb"}, V, 0, 15),
        ],
    ),
    # Sharing ----------------------------------------------------------------------------------------------------------
    Case(
        name="time-slicing copies are one device",
        samples=[(UTIL, gpu(**POD_A), 15, 80), (UTIL, gpu(**POD_B), 15, 80)],
        expect=[(DEVICE, V, 80, 15)],
    ),
    Case(
        name="time-slicing copies are told to each pod",
        ask="pod_gpu_utilisation",
        samples=[(UTIL, gpu(**POD_A), 15, 80), (UTIL, gpu(**POD_B), 15, 80)],
        expect=[({**DEVICE, **POD_A}, V, 80, 15), ({**DEVICE, **POD_B}, V, 80, 15)],
        says="copied to the 2 pods that share it",
    ),
    Case(
        name="memory of time-slicing copies is not summed",
        ask="gpu_memory_used_mib",
        samples=[(USED, gpu(**POD_A), 15, 20000), (USED, gpu(**POD_B), 15, 20000)],
        expect=[(DEVICE, V, 20000, 15)],
    ),
    Case(
        name="per-pod rows beside the device's own row",
        samples=[(UTIL, gpu(**POD_A), 15, 30), (UTIL, gpu(**POD_B), 15, 50), (UTIL, gpu(), 15, 80)],
        expect=[(DEVICE, V, 80, 15)],
    ),
    Case(
        name="per-pod rows beside the device's own row, per pod",
        ask="pod_gpu_utilisation",
        samples=[(UTIL, gpu(**POD_A), 15, 30), (UTIL, gpu(**POD_B), 15, 50), (UTIL, gpu(), 15, 80)],
        expect=[({**DEVICE, **POD_A}, V, 30, 15), ({**DEVICE, **POD_B}, V, 50, 15)],
    ),
    Case(
        name="copies that contradict each other",
        samples=[(UTIL, gpu(**POD_A), 15, 0), (UTIL, gpu(**POD_B), 15, 80)],
        expect=[(DEVICE, I, None, 15)],
        says="contradict each other: 0 with pod='a'; 80 with pod='b'",
    ),
    Case(
        name="two targets that contradict each other",
        samples=[(UTIL, gpu(), 20, 0), (UTIL, gpu(instance="10.0.0.2:9400"), 5, 80)],
        expect=[(DEVICE, I, None, 5)],
        says="contradict each other",
    ),
    Case(
        name="two targets that agree",
        samples=[(UTIL, gpu(), 20, 0), (UTIL, gpu(job="kubernetes-pods"), 5, 0)],
        expect=[(DEVICE, V, 0, 5)],
    ),
    Case(
        name="two targets that agree within a point: the larger",
        samples=[(UTIL, gpu(), 20, 1), (UTIL, gpu(job="kubernetes-pods"), 5, 0)],
        expect=[(DEVICE, V, 1, 5)],
    ),
    Case(
        name="a stale target does not contradict a fresh one",
        samples=[(UTIL, gpu(), 900, 0), (UTIL, gpu(instance="10.0.0.2:9400"), 5, 80)],
        expect=[(DEVICE, V, 80, 5)],
    ),
    Case(
        name="a device that went from one pod to the next",
        samples=[(UTIL, gpu(**POD_A), 45, 90), (UTIL, gpu(**POD_B), 15, 0)],
        expect=[(DEVICE, V, 0, 15)],
    ),
    # Labels -----------------------------------------------------------------------------------------------------------
    Case(
        name="uuid in another case is the same device",
        samples=[(UTIL, gpu(job="a"), 15, 10), (UTIL, {"uuid": "gpu-1", "gpu": "0", "job": "b"}, 5, 10)],
        expect=[({"UUID": "gpu-1", "gpu": "0"}, V, 10, 5)],
    ),
    Case(
        name="hostname old and new",
        samples=[(UTIL, {"gpu": "3", "Hostname": "n1"}, 15, 10), (UTIL, {"gpu": "3", "hostname": "n2"}, 15, 20)],
        expect=[({"gpu": "3", "Hostname": "n1"}, V, 10, 15), ({"gpu": "3", "Hostname": "n2"}, V, 20, 15)],
    ),
    Case(
        name="an index without a host belongs to its scrape target",
        samples=[
            (UTIL, {"gpu": "0", "instance": "n1:9400"}, 15, 10),
            (UTIL, {"gpu": "0", "instance": "n2:9400"}, 15, 20),
        ],
        expect=[({"gpu": "0", "instance": "n1:9400"}, V, 10, 15), ({"gpu": "0", "instance": "n2:9400"}, V, 20, 15)],
    ),
    Case(
        name="exported_pod wins over the exporter's own pod",
        ask="pod_gpu_utilisation",
        samples=[
            (
                UTIL,
                gpu(
                    pod="dcgm-exporter-x7k2p",
                    namespace="gpu-operator",
                    container="exporter",
                    exported_pod="a",
                    exported_namespace="ml",
                    exported_container="main",
                ),
                15,
                60,
            )
        ],
        expect=[({**DEVICE, **POD_A}, V, 60, 15)],
    ),
    Case(
        name="the exporter's own pod holds no device",
        ask="pod_gpu_utilisation",
        samples=[
            (UTIL, gpu(pod="probe-1", namespace="mon", exported_pod="a", exported_namespace="ml"), 15, 60),
            (UTIL, gpu("GPU-2", pod="probe-1", namespace="mon"), 15, 0),
        ],
        expect=[({**DEVICE, "pod": "a", "namespace": "ml"}, V, 60, 15)],
    ),
    Case(
        name="the exporter's own pod holds no device, told by its name",
        ask="pod_gpu_utilisation",
        samples=[(UTIL, gpu(pod="nvidia-dcgm-exporter-x7k2p", namespace="gpu-operator"), 15, 0)],
        expect=ABSENT,
    ),
    Case(
        name="old label names",
        ask="pod_gpu_memory_used_mib",
        samples=[(USED, gpu(pod_name="a", pod_namespace="ml", container_name="main"), 15, 4096)],
        expect=[({**DEVICE, **POD_A}, V, 4096, 15)],
    ),
    Case(
        name="a pod and nothing else",
        samples=[(UTIL, {"pod": "23b8eba99c14"}, 15, 10), (UTIL, {"pod": "11415d99a127"}, 15, 20)],
        expect=[({"pod": "11415d99a127"}, V, 20, 15), ({"pod": "23b8eba99c14"}, V, 10, 15)],
    ),
    # Presence ---------------------------------------------------------------------------------------------------------
    Case(
        name="exporter up",
        ask="exporter_up",
        samples=[
            ("up", {"job": "nvidia-dcgm-exporter", "instance": "n1:9400"}, 15, 1),
            ("up", {"job": "node-exporter", "instance": "n1:9100"}, 15, 1),
        ],
        expect=[({"job": "nvidia-dcgm-exporter", "instance": "n1:9400"}, V, 1, 15)],
    ),
    Case(
        name="exporter down",
        ask="exporter_up",
        samples=[("up", {"job": "DCGM", "instance": "n1:9400"}, 15, 0)],
        expect=[({"job": "DCGM", "instance": "n1:9400"}, V, 0, 15)],
    ),
    Case(
        name="exporter under a foreign job name, known by its series",
        ask="exporter_up",
        samples=[
            ("up", {"job": "pods", "instance": "n1:9400"}, 15, 1),
            ("up", {"job": "pods", "instance": "n2:8080"}, 15, 1),
            (UTIL, {"UUID": "GPU-1", "job": "pods", "instance": "n1:9400"}, 600, 5),
        ],
        expect=[({"job": "pods", "instance": "n1:9400"}, V, 1, 15)],
    ),
    Case(
        name="exporter last heard of ten minutes ago",
        ask="exporter_up",
        samples=[("up", {"job": "dcgm", "instance": "n1:9400"}, 600, 1)],
        expect=[({"job": "dcgm", "instance": "n1:9400"}, S, 1, 600)],
    ),
    Case(
        name="exporter present, device gone",
        samples=[("up", {"job": "dcgm", "instance": "n1:9400"}, 15, 1), (UTIL, gpu(), 600, 0)],
        expect=[(DEVICE, S, 0, 600)],
    ),
    # Requests ---------------------------------------------------------------------------------------------------------
    Case(
        name="queues of two servers",
        ask="requests_waiting",
        samples=[
            ("vllm:num_requests_waiting", {"pod": "a", "namespace": "ml", "model_name": "m"}, 15, 3),
            ("vllm:num_requests_waiting", {"pod": "b", "namespace": "ml", "model_name": "m"}, 15, 0),
            ("interceptor_request_concurrency", {"route_name": "r", "route_namespace": "ml"}, 15, 2),
        ],
        expect=[
            ({"model_name": "m", "namespace": "ml", "pod": "a"}, V, 3, 15),
            ({"model_name": "m", "namespace": "ml", "pod": "b"}, V, 0, 15),
            ({"route_name": "r", "route_namespace": "ml"}, V, 2, 15),
        ],
    ),
    Case(
        name="one counter seen by both servers of a pair",
        ask="requests_running",
        samples=[
            ("vllm:num_requests_running", {"pod": "a", "prometheus_replica": "prometheus-0"}, 15, 4),
            ("vllm:num_requests_running", {"pod": "a", "prometheus_replica": "prometheus-1"}, 15, 4),
        ],
        expect=[({"pod": "a"}, V, 4, 15)],
    ),
    Case(
        name="rate of a counter",
        ask="request_rate",
        samples=[
            ("vllm:request_success_total", {"pod": "a"}, age, 1000 + 2 * (600 - age)) for age in range(600, 0, -15)
        ],
        expect=[({"pod": "a"}, V, 2, 15)],
    ),
    Case(
        name="rate over a reset",
        ask="request_rate",
        samples=[
            ("vllm:request_success_total", {"pod": "a"}, age, 600 - age if age > 150 else 150 - age)
            for age in range(300, -1, -30)
        ],
        # 120 before the reset, where 450 fell to 120 - 120 = 0: the increase is 30 * 4 + 0 + 150 over 300 s.
        expect=[({"pod": "a"}, V, 0.9, 0)],
    ),
    Case(
        name="rate of samples far from the window's edges",
        ask="request_rate",
        samples=[("vllm:request_success_total", {"pod": "a"}, age, 1000 - age) for age in (150, 120, 90, 60)],
        # 90 in 90 s, stretched by half an interval at either edge: 120 in a window of 300 s.
        expect=[({"pod": "a"}, V, 0.4, 60)],
    ),
    Case(
        name="rate of one sample",
        ask="request_rate",
        samples=[("vllm:request_success_total", {"pod": "a"}, 15, 7)],
        expect=[({"pod": "a"}, I, None, 15)],
        says="a rate needs two",
    ),
    Case(
        name="rate of a counter that ended",
        ask="request_rate",
        samples=[("vllm:request_success_total", {"pod": "a"}, age, 1000 - age) for age in (660, 630, 600)],
        expect=[({"pod": "a"}, S, None, 600)],
    ),
)

START = 1_700_000_000.0
APART_S = 10_800.0
"""Farther apart than the look-back: no case sees another one's samples."""
AT = {case.name: START + index * APART_S for index, case in enumerate(CASES)}
EMPTY_AT = START - 30 * APART_S


def samples_of(case: Case) -> list[tuple[str, Labels, float, float]]:
    at = AT[case.name]
    return sorted(((metric, labels, at - age, value) for metric, labels, age, value in case.samples), key=by_series)


def by_series(sample: tuple[str, Labels, float, float]) -> tuple[str, list[tuple[str, str]], float]:
    return sample[0], sorted(sample[1].items()), sample[2]


@pytest.fixture(scope="module")
def prometheus_url(start_prometheus: Callable[..., str]) -> str:
    return start_prometheus(itertools.chain.from_iterable(samples_of(case) for case in CASES))


@pytest.fixture(params=["store", "prometheus"])
def source_of(request: pytest.FixtureRequest) -> Iterable[Callable[[Case | None], MetricSource]]:
    """A source that holds the samples of a case; None for one that holds nothing."""
    if request.param == "store":
        yield store_with
        return
    with PrometheusSource(request.getfixturevalue("prometheus_url")) as source:
        yield lambda _case: source


def store_with(case: Case | None) -> SeriesStore:
    store = SeriesStore()
    for metric, labels, time_s, value in samples_of(case) if case else ():
        assert store.append(metric, labels, time_s, value)
    return store


def seen(signals: Iterable[Signal]) -> list[tuple[str, dict[str, str], SignalState, object, object]]:
    return [
        (
            signal.name,
            dict(signal.labels),
            signal.state,
            None if signal.value is None else pytest.approx(signal.value, abs=1e-6),
            None if signal.age_s is None else pytest.approx(signal.age_s, abs=1e-3),
        )
        for signal in signals
    ]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_one_question(case: Case, source_of: Callable[[Case | None], MetricSource]) -> None:
    signals = source_of(case).signals([case.ask], at=AT[case.name])

    found = [(dict(signal.labels), signal.state, signal.value, signal.age_s) for signal in signals]
    assert found == [
        (
            labels,
            state,
            None if value is None else pytest.approx(value, abs=1e-6),
            None if age_s is None else pytest.approx(age_s, abs=1e-3),
        )
        for labels, state, value, age_s in sorted(case.expect, key=lambda row: sorted(row[0].items()))
    ]
    assert {signal.name for signal in signals} == {case.ask}
    assert case.says in signals[0].detail
    assert all(signal.detail for signal in signals if not signal.valid)


def test_nothing_stored(source_of: Callable[[Case | None], MetricSource]) -> None:
    signals = source_of(None).signals(tuple(QUERIES), at=EMPTY_AT)

    assert [(s.name, s.state, s.value, s.age_s) for s in signals] == [(name, A, None, None) for name in QUERIES]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_both_sources_say_the_same_to_every_question(case: Case, prometheus_url: str) -> None:
    names = tuple(QUERIES)
    with PrometheusSource(prometheus_url) as source:
        theirs = source.signals(names, at=AT[case.name])
    ours = store_with(case).signals(names, at=AT[case.name])

    assert seen(ours) == seen(theirs)
    assert [signal.detail for signal in ours] == [signal.detail for signal in theirs]


def test_an_undefined_name_is_refused(source_of: Callable[[Case | None], MetricSource]) -> None:
    with pytest.raises(ValueError, match=r"query='gpu_heat': not defined; choose one of exporter_up, "):
        source_of(None).signals(["gpu_heat"], at=START)


def test_very_many_ended_series_are_searched_in_steps(crowd_url: str) -> None:
    with PrometheusSource(crowd_url) as source:
        signals = source.signals(["gpu_memory_used_mib"], at=START + 3600)
    ages = {s.labels["UUID"]: s.age_s or 0.0 for s in signals}
    assert {s.state for s in signals} == {S}
    assert {s.value for s in signals} == {7}
    assert len(ages) == 300
    for index in range(300):
        # Up to a step too old, never too young.
        assert 600 + index <= ages[crowd_uuid(index)] <= 660 + index


def crowd_uuid(index: int) -> str:
    return f"GPU-{index:040d}"


@pytest.fixture(scope="module")
def crowd_url(start_prometheus: Callable[..., str]) -> str:
    """300 devices whose names are too long to ask for one by one, each last seen a second before the last."""
    return start_prometheus(
        (USED, {"UUID": crowd_uuid(index)}, START + 3000 - index - 60 * (9 - step), 7.0)
        for index in range(300)
        for step in range(10)
    )


# Over time ------------------------------------------------------------------------------------------------------------


def whole(grids: Iterable[Grid]) -> dict[tuple[object, ...], list[float]]:
    """Values per series over all parts; series that a part does not name are missing there."""
    found: dict[tuple[object, ...], list[float]] = {}
    done = 0
    for grid in grids:
        for track in grid.tracks:
            key = (track.rank, *sorted(track.labels.items()))
            values = found.setdefault(key, [])
            values += [math.nan] * (done - len(values)) + [round(value, 6) for value in track.values.tolist()]
        done += grid.points
    return {key: values + [math.nan] * (done - len(values)) for key, values in found.items()}


@pytest.fixture(scope="module")
def past_samples() -> list[tuple[str, Labels, float, float]]:
    """Two hours of two devices: scraped each 15 s with gaps and bad values, and each 57 s."""
    samples: list[tuple[str, Labels, float, float]] = []
    for index in range(480):
        value = math.nan if 100 <= index < 110 else 101.0 if 200 <= index < 204 else float(index % 7 * 10)
        if not 300 <= index < 440:
            samples.append((UTIL, gpu("GPU-1"), START + 15 * index, value))
    samples += [(UTIL, gpu("GPU-2"), START + 7 + 57 * index, float(index % 3)) for index in range(120)]
    samples += [(ACTIVE, gpu("GPU-2"), START + 7 + 57 * index, 0.5) for index in range(60)]
    return samples


@pytest.fixture(scope="module")
def past_url(start_prometheus: Callable[..., str], past_samples: list[tuple[str, Labels, float, float]]) -> str:
    return start_prometheus(past_samples)


@pytest.mark.parametrize("step_s", [10.0, 60.0, 180.0, 300.0, 900.0])
def test_both_sources_tell_the_same_past(
    step_s: float, past_url: str, past_samples: list[tuple[str, Labels, float, float]]
) -> None:
    store = SeriesStore(retention_s=86400)
    for sample in past_samples:
        store.append(*sample)
    start_s, end_s = START - 600, START + 8000

    ours = whole(store.history("gpu_utilisation", start_s=start_s, end_s=end_s, step_s=step_s))
    with PrometheusSource(past_url) as source:
        theirs = whole(source.history("gpu_utilisation", start_s=start_s, end_s=end_s, step_s=step_s))

    assert len(ours) == 3
    assert ours.keys() == theirs.keys()
    for key, values in ours.items():
        assert values == pytest.approx(theirs[key], nan_ok=True), key
    busy = ours[0, *sorted(gpu("GPU-1").items())]
    assert math.inf in busy
    assert any(math.isnan(value) for value in busy)


def test_a_long_past_is_asked_in_parts(past_url: str) -> None:
    done: list[int] = []
    with PrometheusSource(past_url) as source:
        # 25,001 steps: more than a server gives at once.
        grids = list(
            source.history("gpu_utilisation", start_s=START - 17000, end_s=START + 8000, step_s=1.0, past=done.append)
        )

    assert sum(grid.points for grid in grids) == 25_001
    assert max(grid.points for grid in grids) <= 1_440
    assert done[-1] == 25_001
    assert [grid.start_s for grid in grids[1:]] == [grid.start_s + grid.points for grid in grids[:-1]]


# A real fleet ---------------------------------------------------------------------------------------------------------


def test_a_real_fleet_looks_the_same_in_both(
    duty_cycle: list[tuple[float, str, float]],
    memory_used: list[tuple[float, str, float]],
    start_prometheus: Callable[..., str],
) -> None:
    begin = 1662858720.0 + 7 * 3600
    end = begin + 5400
    samples = [
        (metric, {"pod": pod}, time_s, value * scale)
        for metric, scale, rows in ((UTIL, 1.0, duty_cycle), (USED, 1 / 1048576, memory_used))
        for time_s, pod, value in rows
        if begin <= time_s <= end
    ]
    store = SeriesStore()
    for sample in samples:
        store.append(*sample)
    with PrometheusSource(start_prometheus(samples)) as source:
        for at in (begin + 1800, begin + 4000.5, end, end + 400):
            theirs = source.signals(tuple(QUERIES), at=at)
            ours = store.signals(tuple(QUERIES), at=at)
            assert seen(ours) == seen(theirs)

            newest = {pod: (time_s, value) for time_s, pod, value in duty_cycle if begin <= time_s <= min(at, end)}
            told = {s.labels["pod"]: s for s in ours if s.name == "gpu_utilisation"}
            recent = {pod: row for pod, row in newest.items() if at - row[0] <= 3600}
            assert told.keys() == recent.keys()
            assert len(told) > 100
            for pod, (time_s, value) in recent.items():
                signal = told[pod]
                assert (signal.value, signal.age_s) == (pytest.approx(value), pytest.approx(at - time_s, abs=1e-3))
                assert signal.state is (V if at - time_s <= 180 else S)
