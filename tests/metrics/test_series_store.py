"""The store keeps what it promises and no more."""

import math

import pytest

from autoscaler.embedded.clock import VirtualClock
from autoscaler.metrics.series import SeriesStore
from policies.signals import SignalState
from vgpu.errors import InvalidRequest

USED = "DCGM_FI_DEV_FB_USED"


def test_samples_out_of_order_are_refused_and_counted() -> None:
    store = SeriesStore()
    assert store.append(USED, {"UUID": "GPU-1"}, 100, 1)
    # The same sample again is no news and no fault.
    assert store.append(USED, {"UUID": "GPU-1"}, 100, 1)
    assert not store.append(USED, {"UUID": "GPU-1"}, 100, 2)
    assert not store.append(USED, {"UUID": "GPU-1"}, 99, 1)
    assert not store.append(USED, {"UUID": "GPU-1"}, math.nan, 1)
    assert store.refused == 3
    assert store.signals(["gpu_memory_used_mib"], at=100)[0].value == 1


def test_an_empty_label_is_no_label() -> None:
    store = SeriesStore()
    store.append(USED, {"UUID": "GPU-1", "pod": ""}, 100, 1)
    store.append(USED, {"UUID": "GPU-1"}, 101, 2)
    assert store.series_count() == 1


def test_memory_is_bounded_by_retention_and_by_living_series() -> None:
    store = SeriesStore(retention_s=3600)
    for time_s in range(0, 100_000, 10):
        store.append(USED, {"UUID": "GPU-1"}, time_s, 1)
        store.append(USED, {"UUID": "GPU-2", "pod": f"p{time_s // 1000}"}, time_s, 1)
    assert store.series_count() < 30
    (grid,) = store.history("gpu_memory_used_mib", start_s=0, end_s=99_990, step_s=10)
    kept = next(track for track in grid.tracks if track.labels["UUID"] == "GPU-1").values
    assert 360 <= (~(kept != kept)).sum() < 800  # noqa: PLR0124 - not NaN


def test_now_is_the_clocks_or_the_newest_samples_time() -> None:
    clock = VirtualClock(100.0)
    timed, bare = SeriesStore(clock=clock), SeriesStore()
    for store in (timed, bare):
        store.append(USED, {"UUID": "GPU-1"}, 100, 1)
    clock.advance_to(700.0)
    (late,), (now,) = timed.signals(["gpu_memory_used_mib"]), bare.signals(["gpu_memory_used_mib"])
    assert (late.state, late.age_s) == (SignalState.STALE, 600)
    assert (now.state, now.age_s) == (SignalState.VALID, 0)


def test_retention_covers_the_look_back() -> None:
    with pytest.raises(InvalidRequest, match=r"retention_s=60: keep at least the look-back of 3600 s"):
        SeriesStore(retention_s=60)


@pytest.mark.parametrize(
    ("name", "start_s", "end_s", "step_s", "says"),
    [
        ("request_rate", 0, 60, 15, "rates have no grid"),
        ("gpu_utilisation", 0, 60, 0, "step=0"),
        ("gpu_utilisation", 0, 60, 1.5, "step=1.5"),
        ("gpu_utilisation", 0, 60, math.nan, "step=nan"),
        ("gpu_utilisation", 60, 0, 15, "span 60 to 0"),
        ("gpu_utilisation", -1, 0, 15, "span -1 to 0"),
        ("gpu_utilisation", 0, math.inf, 15, "span 0 to inf"),
    ],
)
def test_what_makes_no_grid(name: str, start_s: float, end_s: float, step_s: float, says: str) -> None:
    with pytest.raises(InvalidRequest, match=says):
        list(SeriesStore().history(name, start_s=start_s, end_s=end_s, step_s=step_s))


def test_five_thousand_series_answer_at_once() -> None:
    import time

    store = SeriesStore()
    for index in range(5000):
        for time_s in (0, 30, 60):
            store.append("DCGM_FI_DEV_GPU_UTIL", {"UUID": f"GPU-{index}", "pod": f"p{index}"}, time_s, index % 100)
    started = time.perf_counter()
    signals = store.signals(["gpu_utilisation", "pod_gpu_utilisation"], at=60)
    spent = time.perf_counter() - started
    assert len(signals) == 10_000
    # Measured 0.2 s; the limit leaves room for a busy machine and still catches a quadratic walk.
    assert spent < 3
