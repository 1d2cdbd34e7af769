"""The generated load: repeatable, and of the published shape."""

import statistics

import pytest

from autoscaler.backtest import generated
from autoscaler.backtest.traces import TraceError, demand_gpu_hours


def test_the_same_seed_gives_the_same_pods_and_another_seed_others() -> None:
    assert generated.generate(7, 3) == generated.generate(7, 3)
    assert generated.generate(7, 3) != generated.generate(8, 3)


def test_thirty_days_have_the_published_shape() -> None:
    windows = [generated.generate(seed, 30) for seed in range(5)]
    pods = [pod for window in windows for pod in window.pods]
    assert 5000 < len(pods) / len(windows) < 6100
    quartiles = statistics.quantiles((pod.run_s for pod in pods), n=4)
    for found, published in zip(quartiles, (184, 655, 2302), strict=True):
        assert found == pytest.approx(published, rel=0.15)
    assert max(pod.run_s for pod in pods) > 14 * 86_400
    load = statistics.mean(window.demand_gpu_hours for window in windows) / 720
    assert load == pytest.approx(37, rel=0.2)
    assert sum(pod.shape.fraction for pod in pods) / len(pods) == pytest.approx(0.44, abs=0.03)
    assert 0.005 < sum(pod.shape.gpus > 1 for pod in pods) / len(pods) < 0.02
    by_hour = [sum(int(pod.arrival_s // 3600) % 24 == hour for pod in pods if pod.arrival_s) for hour in range(24)]
    assert min(by_hour[13:18]) > 2 * max(by_hour[1:6])


@pytest.mark.parametrize("days", [0.5, 2])
def test_the_window_is_a_window(days: float) -> None:
    window = generated.generate(1, days)
    assert (window.t0, window.t1) == (0, days * 86_400)
    assert len({pod.name for pod in window.pods}) == len(window.pods)
    assert [pod.arrival_s for pod in window.pods] == sorted(pod.arrival_s for pod in window.pods)
    assert all(0 <= pod.arrival_s < window.t1 and pod.run_s > 0 for pod in window.pods)
    assert 0 < window.carried <= sum(pod.arrival_s == 0 for pod in window.pods)
    assert window.demand_gpu_hours == demand_gpu_hours(window.pods, window.t1)
    # Everything fits on the benchmark's node: 8 GPUs, 128 cores, 768 GiB.
    assert all(pod.shape.cpu_milli <= 128_000 and pod.shape.memory_mib <= 768 * 1024 for pod in window.pods)


@pytest.mark.parametrize("days", [0, -3, float("nan"), 1e9])
def test_days_must_be_sensible(days: float) -> None:
    with pytest.raises(TraceError, match="days="):
        generated.generate(1, days)
