"""Idle hours add up, are counted once, and are never made out of what is not known."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoscaler.metrics.prices import gpu_hour_price, parse_price, price_list
from autoscaler.metrics.rows import Grid, Track
from autoscaler.metrics.series import SeriesStore
from autoscaler.metrics.waste import NOT_ALLOCATED, Line, Report, measure
from autoscaler.metrics.workloads import workload_of
from vgpu.errors import InvalidRequest

NAN, INF = math.nan, math.inf
Rows = Sequence[tuple[Mapping[str, str], Sequence[float]]]

DEVICE = {"UUID": "GPU-1", "modelName": "NVIDIA H100 80GB HBM3"}
A = {**DEVICE, "namespace": "ml", "pod": "api-6d4b9f7c88-x2x4z"}
B = {**DEVICE, "namespace": "ml", "pod": "batch-0"}


def grid(rows: Rows, *, start: int = 0, rank: int = 0) -> Grid:
    """Steps of one hour, so that hours are steps."""
    tracks = tuple(Track(rank=rank, labels=labels, values=np.array(values, dtype=float)) for labels, values in rows)
    points = len(rows[0][1]) if rows else 0
    return Grid(start_s=start * 3600.0, step_s=3600.0, points=points, tracks=tracks)


def two_dollars(_model: str) -> Decimal:
    return Decimal(2)


def told(report: Report) -> dict[str, tuple[float, float, float]]:
    """Held, idle and unknown hours per workload."""
    return {
        line.workload: (round(line.gpu_hours, 6), round(line.idle_gpu_hours, 6), round(line.unknown_gpu_hours, 6))
        for line in report.lines
    }


@pytest.mark.parametrize(
    ("rows", "expect"),
    [
        pytest.param([(A, [0, 0, 50, 0])], {"api": (4, 3, 0)}, id="idle and busy"),
        pytest.param([(A, [1, 1.5])], {"api": (2, 1, 0)}, id="the threshold itself is idle"),
        pytest.param([(A, [0, NAN, NAN, 0])], {"api": (4, 2, 2)}, id="a gap is unknown"),
        pytest.param([(A, [NAN, 0, 0, NAN])], {"api": (2, 2, 0)}, id="before and after there was nothing"),
        pytest.param([(A, [0, INF, 0])], {"api": (3, 2, 1)}, id="an impossible value is unknown"),
        pytest.param([(A, [INF, INF])], {"api": (2, 0, 2)}, id="nothing but impossible values"),
        pytest.param([(A, [NAN, NAN])], {}, id="nothing at all"),
        pytest.param([(DEVICE, [0, 0])], {NOT_ALLOCATED: (2, 2, 0)}, id="nobody holds it"),
        pytest.param(
            [(A, [0, 90, NAN, NAN]), (DEVICE, [NAN, NAN, 0, 0])],
            {"api": (2, 1, 0), NOT_ALLOCATED: (2, 2, 0)},
            id="held, then free",
        ),
        pytest.param(
            [(A, [0, NAN, NAN, NAN]), (B, [NAN, NAN, NAN, 0])],
            {"api": (3, 1, 2), "batch": (1, 1, 0)},
            id="a gap belongs to who held it before",
        ),
        pytest.param(
            [(A, [0, 80]), (B, [0, 80])],
            {"api": (1, 0.5, 0), "batch": (1, 0.5, 0)},
            id="time-slicing copies count once",
        ),
        pytest.param(
            [(A, [0, 0]), (B, [80, 80]), (DEVICE, [80, 80])],
            {"api": (1, 1, 0), "batch": (1, 0, 0)},
            id="per-pod values beside the device's own row",
        ),
        pytest.param(
            [({**A, "container": "main"}, [0, 0]), ({**A, "container": "side"}, [70, 0])],
            {"api": (2, 1, 0)},
            id="containers of one pod",
        ),
        pytest.param(
            [({**A, "job": "a"}, [0, NAN, 0]), ({**A, "job": "b"}, [0, 0, 60])],
            {"api": (3, 2, 0)},
            id="scraped twice: the busier one counts",
        ),
        pytest.param(
            [({**DEVICE, "pod": "dcgm-exporter-x7k2p", "namespace": "gpu-operator"}, [0])],
            {NOT_ALLOCATED: (1, 1, 0)},
            id="the exporter's own pod holds nothing",
        ),
    ],
)
def test_hours(rows: Rows, expect: dict[str, tuple[float, float, float]]) -> None:
    report = measure([grid(rows)], price=two_dollars)
    assert told(report) == expect
    assert report.devices == 1
    assert report.idle_usd == sum(Decimal(2) * Decimal(str(idle)) for _, idle, _ in expect.values())


def test_a_field_that_the_device_lacks_leaves_it_to_the_next_metric() -> None:
    both = dataclasses.replace(
        grid([(A, [INF, INF])]), tracks=(*grid([(A, [INF, INF])]).tracks, *grid([(A, [0, 40])], rank=1).tracks)
    )
    assert told(measure([both], price=two_dollars)) == {"api": (2, 1, 0)}


def test_the_threshold_is_a_choice() -> None:
    parts = [grid([(A, [5, 15, 25])])]
    assert told(measure(parts, idle_below_percent=15, price=two_dollars)) == {"api": (3, 2, 0)}
    with pytest.raises(InvalidRequest, match="idle-below=101"):
        measure(parts, idle_below_percent=101, price=two_dollars)


step_values = st.lists(st.sampled_from([NAN, INF, 0.0, 1.0, 2.0, 90.0]), min_size=6, max_size=6)


@given(data=st.lists(step_values, min_size=1, max_size=4), cut=st.integers(1, 5))
def test_parts_say_what_the_whole_says(data: list[list[float]], cut: int) -> None:
    labels = [A, B, DEVICE, {**B, "UUID": "GPU-2"}]
    rows = [(labels[index], values) for index, values in enumerate(data)]
    halves = [
        grid([(name, values[:cut]) for name, values in rows]),
        grid([(name, values[cut:]) for name, values in rows], start=cut),
    ]
    whole = measure([grid(rows)], price=two_dollars)
    assert told(measure(halves, price=two_dollars)) == told(whole)
    for line in whole.lines:
        assert -1e-9 <= line.idle_gpu_hours + line.unknown_gpu_hours <= line.gpu_hours + 1e-9
    # No device gives more than one hour an hour.
    assert whole.gpu_hours <= 6 * whole.devices + 1e-9


def test_an_unknown_price_is_not_zero() -> None:
    other = {**B, "UUID": "GPU-2", "modelName": "Imagination 9000"}
    busy = {**other, "UUID": "GPU-3", "pod": "used-0"}
    report = measure([grid([(A, [0, 0]), (other, [0, 0]), (busy, [90, 90])])], price=price_list({"H100": Decimal(3)}))

    dollars = {line.workload: line.idle_usd for line in report.lines}
    assert dollars == {"api": Decimal(6), "batch": None, "used": Decimal(0)}
    assert (report.idle_usd, report.priced_idle_usd) == (None, Decimal(6))
    assert report.unpriced_models == ("Imagination 9000",)


def test_the_most_idle_comes_first() -> None:
    report = measure([grid([(A, [0, 90, 90]), ({**B, "UUID": "GPU-2"}, [0, 0, 90])])], price=two_dollars)
    assert [(line.workload, line.idle_gpu_hours) for line in report.lines] == [("batch", 2), ("api", 1)]


# Prices ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "price"),
    [
        ("NVIDIA H100 80GB HBM3", Decimal("6.88")),  # p5.48xlarge: 55.04 for eight
        ("Tesla T4", Decimal("0.526")),  # g4dn.xlarge, cheaper per GPU than the large ones
        ("A10G", Decimal("1.006")),
        ("Imagination 9000", None),
        ("", None),
    ],
)
def test_the_tables_price(model: str, price: Decimal | None) -> None:
    assert gpu_hour_price(model) == price


def test_a_price_by_hand_wins_and_a_star_fills_in() -> None:
    price = price_list({"h100": Decimal(2), "Imagination 9000": Decimal(1), "*": Decimal("0.5")})
    assert price("NVIDIA H100 80GB HBM3") == 2
    assert price("Imagination 9000") == 1
    assert price("Tesla T4") == Decimal("0.526")
    assert price("unheard of") == Decimal("0.5")
    assert price("") == Decimal("0.5")


@pytest.mark.parametrize("text", ["H100", "=2", "H100=", "H100=two", "H100=-1", "H100=NaN", "H100=Infinity"])
def test_what_is_no_price(text: str) -> None:
    with pytest.raises(InvalidRequest, match=r"is not a price; write MODEL=USD"):
        parse_price(text)


# Workloads ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pod", "workload"),
    [
        ("api-6d4b9f7c88-x2x4z", "api"),
        ("llama-3-70b-7f9c6d5b4-qwzxc", "llama-3-70b"),
        ("web-0", "web"),
        ("trainer-worker-12", "trainer-worker"),
        ("nightly-28123456-x7k2p", "nightly"),
        ("nightly-28123456-0-x7k2p", "nightly"),
        ("sweep-3-x7k2p", "sweep"),
        ("import-x7k2p", "import"),
        ("notebook", "notebook"),
        ("notebook-alice", "notebook-alice"),
        ("23b8eba99c14", "23b8eba99c14"),
        ("-0", "-0"),
        ("", ""),
    ],
)
def test_the_workload_behind_a_pods_name(pod: str, workload: str) -> None:
    assert workload_of(pod) == workload


# A real fleet ---------------------------------------------------------------------------------------------------------


def test_a_real_day(duty_cycle: list[tuple[float, str, float]]) -> None:
    store = SeriesStore(retention_s=100_000)
    for time_s, pod, value in duty_cycle:
        store.append("DCGM_FI_DEV_GPU_UTIL", {"pod": pod}, time_s, value)
    begin, end = duty_cycle[0][0], duty_cycle[-1][0]
    report = measure(store.history("gpu_utilisation", start_s=begin, end_s=end, step_s=60), price=lambda _model: None)

    # From outside: each sample stands until the next one, for three minutes at most.
    idle = sum(_idle_of(samples, end) for samples in _by_pod(duty_cycle).values())
    life = sum(samples[-1][0] - samples[0][0] for samples in _by_pod(duty_cycle).values())
    assert len(report.lines) == report.devices == 143
    assert report.idle_gpu_hours == pytest.approx(idle, rel=0.01)
    assert report.gpu_hours == pytest.approx(life / 3600, rel=0.01)
    assert 0 < report.unknown_gpu_hours < 0.02 * report.gpu_hours
    assert report.idle_usd is None
    line = max(report.lines, key=_idle)
    samples = _by_pod(duty_cycle)[line.workload]
    assert line.idle_gpu_hours == pytest.approx(_idle_of(samples, end), rel=0.01)


def _idle(line: Line) -> float:
    return line.idle_gpu_hours


def _idle_of(samples: list[tuple[float, float]], end: float) -> float:
    ends = [*(time_s for time_s, _ in samples[1:]), end]
    stays = zip(samples, ends, strict=True)
    return sum(min(until - time_s, 180) for (time_s, value), until in stays if value <= 1) / 3600


def _by_pod(rows: list[tuple[float, str, float]]) -> dict[str, list[tuple[float, float]]]:
    found: dict[str, list[tuple[float, float]]] = {}
    for time_s, pod, value in rows:
        found.setdefault(pod, []).append((time_s, value))
    return found
