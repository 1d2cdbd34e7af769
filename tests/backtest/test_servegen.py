"""The ServeGen reader and generator: bad rows, the published rule, facts against brute force, the benchmark's table."""

import gzip
import io
import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from autoscaler.backtest import servegen
from autoscaler.backtest.servegen import DAY_S, SHORTEST_GAP_S, ClientLoad, Window
from autoscaler.backtest.traces import TraceError
from benchmarks import scale_to_zero as benchmark
from policies import keep_alive

BROKEN = gzip.compress(b"client," * 50)[:12] + b"\xff" * 20
"""A good gzip header before a damaged body."""

HEADER = "client,window_start_s,rate_rps,cv,dist,param1,param2\n"


def window(start_s: int, rate_rps: float, shape: float = 0.7, dist: str = "Gamma", client: int = 3) -> Window:
    return Window(client=client, start_s=start_s, rate_rps=rate_rps, dist=dist, shape=shape)


# Reading --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("row", "field"),
    [
        ("x,600,1,1,Gamma,1,1", "client='x'"),
        ("-1,600,1,1,Gamma,1,1", "client='-1'"),
        ("1.5,600,1,1,Gamma,1,1", "client='1.5'"),
        ("1e300,600,1,1,Gamma,1,1", "client='1e300'"),
        ("1,6e300,1,1,Gamma,1,1", "window_start_s='6e300'"),
        ("1,601,1,1,Gamma,1,1", "window_start_s='601'"),
        ("1,,1,1,Gamma,1,1", "window_start_s=''"),
        ("1,600,0,1,Gamma,1,1", "rate_rps='0'"),
        ("1,600,nan,1,Gamma,1,1", "rate_rps='nan'"),
        ("1,600,inf,1,Gamma,1,1", "rate_rps='inf'"),
        ("1,600,1e9,1,Gamma,1,1", "rate_rps='1e9'"),
        ("1,600,1,1,Pareto,1,1", "dist='Pareto'"),
        ("1,600,1,1,Gamma,0,1", "param1='0'"),
        ("1,600,1,1,Gamma", "param1=''"),
        ("1,0,5,1,Weibull,1,1", "window_start_s='0'"),  # a second row for the same window
    ],
)
def test_a_bad_row_is_one_clear_error_and_the_rest_goes_on(row: str, field: str) -> None:
    trace = servegen.parse(io.StringIO(f"{HEADER}1,0,2,1,Gamma,0.5,1\n{row}\n1,1200,3,1,Weibull,0.5,1\n"))
    assert [window.start_s for window in trace.windows[1]] == [0, 1_200]
    assert [str(error).split(": ")[:2] for error in trace.errors] == [["line 3", field]]


def test_windows_are_in_order_whatever_the_files() -> None:
    trace = servegen.parse(io.StringIO(f"{HEADER}2,1200,1,1,Gamma,1,1\n1,0,1,1,Gamma,1,1\n2,0,1,1,Gamma,1,1\n"))
    assert list(trace.windows) == [1, 2]
    assert [window.start_s for window in trace.windows[2]] == [0, 1_200]


def test_a_file_without_the_columns_is_refused() -> None:
    with pytest.raises(TraceError, match="also needs rate_rps, param1"):
        servegen.parse(io.StringIO("client,window_start_s,dist\n1,0,Gamma\n"))


@pytest.mark.parametrize("content", [None, b"not gzip at all", gzip.compress(b"\xff\xfe\x00")[:-4], BROKEN])
def test_an_unreadable_file_is_one_error(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "trace.csv.gz"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(TraceError, match=r"trace\.csv\.gz"):
        servegen.read(path)


def test_the_gate_asks_for_requests_and_for_empty_windows() -> None:
    rows = {
        0: [window(0, 1)],
        1: [window(600 * i, 1) for i in range(19)],  # 1 of 20 empty
        2: [window(600 * i, 1) for i in range(20)],
        3: [window(600 * 30, 1)],  # nothing in the span
    }
    trace = servegen.Trace(windows={client: tuple(found) for client, found in rows.items()})
    assert trace.gated(windows=20) == (0, 1)


# Generating -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dist", ["Gamma", "Weibull"])
def test_requests_follow_the_published_rule(dist: str) -> None:
    made = window(1_200, 0.5, 0.4, dist).times(seed=7)
    generator = np.random.default_rng([7, 3, 2])
    gaps = generator.standard_gamma(0.4, 300) if dist == "Gamma" else generator.weibull(0.4, 300)
    expected = 1_200 + 600 * np.cumsum(gaps) / gaps.sum()
    assert made == pytest.approx(expected[:-1])
    assert len(made) == 299
    assert made.min() >= 1_200
    assert made.max() <= 1_800


def test_gaps_that_all_underflow_are_spread_evenly() -> None:
    times = window(0, 0.01, 1e-12).times(seed=0)
    assert len(times) == 5
    assert np.all(np.isfinite(times))
    assert np.all(np.diff(times) >= 0)


WINDOWS = st.dictionaries(
    st.integers(0, 12),
    st.tuples(st.floats(0.001, 0.3), st.floats(0.2, 3), st.sampled_from(["Gamma", "Weibull"])),
    max_size=6,
).map(lambda rows: [window(600 * k, rate, shape, dist) for k, (rate, shape, dist) in sorted(rows.items())])


@settings(max_examples=60)
@given(WINDOWS, st.integers(0, 5), st.floats(1, 120), st.floats(0, 700), st.lists(st.floats(-100, 9_000), max_size=12))
def test_every_fact_against_brute_force(
    windows: list[Window], seed: int, load_s: float, shift_s: float, moments: list[float]
) -> None:
    load = ClientLoad(windows, seed=seed, load_s=load_s, shift_s=shift_s)
    every = np.concatenate([np.empty(0), *(w.times(seed) + shift_s for w in windows)])
    assert load.requests == len(every)
    long = np.flatnonzero(np.diff(every) >= SHORTEST_GAP_S)
    assert load.gaps.start_s.tolist() == every[long].tolist()
    assert load.gaps.end_s.tolist() == every[long + 1].tolist()
    near = [int(((every >= end) & (every < end + load_s)).sum()) for end in every[long + 1]]
    assert load.gaps.within_load.tolist() == near

    edges = [*every[long].tolist(), *every[long + 1].tolist(), *every[:3].tolist()]
    for t in [*moments, *edges, 600.0, 1_200.0 + shift_s]:
        assert load.last_before(t) == (every[every <= t][-1] if np.any(every <= t) else None)
        assert load.first_after(t) == (every[every > t][0] if np.any(every > t) else None)
        assert load.count(t, t + 333) == int(((every >= t) & (every < t + 333)).sum())
        known = load.gaps_until(t)
        assert known.end_s.tolist() == [end for end in load.gaps.end_s if end <= t - load_s]
        assert len(load.gaps_until(t, most=1)) == min(1, len(known))
        counts, running_s = load.counts_until(t, 1_000.0)
        assert sum(counts) == int((every < t).sum())
        assert counts == tuple(
            int(((every >= 1_000 * i) & (every < min(t, 1_000 * (i + 1)))).sum()) for i in range(len(counts))
        )
        if t > 0:
            assert (len(counts) - 1) * 1_000 + running_s == pytest.approx(t)
    for t in moments:
        told = list(load.idle_from(t))
        assert [gap for gap in told if gap[1] is not None] == [
            (a, b) for a, b in zip(load.gaps.start_s, load.gaps.end_s, strict=True) if b > t
        ]
        assert bool(told) == bool(len(every))


def test_facts_about_the_past_do_not_change_with_the_future() -> None:
    """What is known at t from a load cut off after t is what is known from the whole load."""
    windows = [window(600 * k, 0.02 + 0.01 * (k % 4)) for k in (0, 1, 5, 6, 20, 21, 22, 40)]
    whole = ClientLoad(windows, seed=1, load_s=20)
    for t in (3_000.0, 4_100.0, 13_000.0):
        cut = ClientLoad(windows, seed=1, load_s=20, until_s=t)
        assert cut.gaps_until(t).length_s.tolist() == whole.gaps_until(t).length_s.tolist()
        assert cut.gaps_until(t).within_load.tolist() == whole.gaps_until(t).within_load.tolist()
        assert cut.last_before(t) == whole.last_before(t)
        assert cut.counts_until(t, 1_000) == whole.counts_until(t, 1_000)


@pytest.mark.parametrize("load_s", [0.0, -1.0, 600.0, math.nan])
def test_impossible_load_times_are_refused(load_s: float) -> None:
    with pytest.raises(TraceError, match="load_s="):
        ClientLoad([], seed=0, load_s=load_s)


def test_a_client_without_requests_is_a_client() -> None:
    load = ClientLoad([window(0, 1 / 600)], seed=0, load_s=20)  # one draw, no request
    assert (load.requests, load.last_before(1e9), load.first_after(0), list(load.idle_from(0))) == (0, None, None, [])


# The benchmark --------------------------------------------------------------------------------------------------------


@settings(max_examples=200)
@given(WINDOWS, st.floats(30, 2_000), st.floats(1, 60))
@example(windows=[window(0, 0.0625, 2.0)], timer_s=30.0, load_s=49.0)  # a load that outlasts its time-out
def test_the_vectorised_score_agrees_with_a_walk_over_the_requests(
    windows: list[Window], timer_s: float, load_s: float
) -> None:
    load = ClientLoad(windows, seed=2, load_s=load_s)
    end_s = 9_000.0
    every = np.concatenate([np.empty(0), *(w.times(2) for w in windows)]).tolist()
    ready_s, off_s, since_s = -math.inf, -math.inf, 0.0
    held_s, delayed, loads = 0.0, 0, 0
    for t in every:
        if t >= off_s:  # not loaded: this request starts a load
            held_s += max(0.0, off_s - since_s) if loads else 0.0
            since_s, ready_s, loads = t, t + load_s, loads + 1
        delayed += t < ready_s
        off_s = max(t + timer_s, ready_s)
    held_s += max(0.0, min(off_s, end_s) - since_s) if loads else 0.0
    score = benchmark.score([load], benchmark.fixed(timer_s), 0.0, end_s)
    assert score.gpu_hours == pytest.approx(held_s / 3_600, abs=1e-9)
    assert score.delayed_share == pytest.approx(delayed / len(every) if every else 0.0)
    assert score.loads_per_day == pytest.approx(loads * DAY_S / end_s)


def test_case_lines_are_json() -> None:
    load = ClientLoad([window(0, 0.1)], seed=0, load_s=20)
    result = benchmark.score([load], benchmark.learnt(keep_alive.Spec()), 0.0, 600.0)
    line = benchmark.Case(name="learnt", seed=0, load_s=20, score=result, seconds=0.1).line()
    assert list(json.loads(line)) == ["benchmark", "case", "seed", "metrics", "seconds", "version"]


@pytest.fixture(scope="session")
def inference(traces: Path) -> servegen.Trace:
    return servegen.read(traces / "inference" / servegen.TRACE_FILE)


def test_the_gated_clients_are_the_published_ones(inference: servegen.Trace) -> None:
    assert not inference.errors
    assert len(inference.windows) == 35
    assert inference.gated() == (
        *(0, 1, 2, 4, 6, 7, 9, 10, 13, 15, 16, 17, 18, 19, 20, 24, 27, 28, 29, 30, 33, 34, 40),
    )


# GPU-hours and delayed share in percent, as published for a 20 s load: means of three seeds, here seed 0 alone.
PUBLISHED = {60.0: (1_063.4, 2.980), 300.0: (1_124.9, 1.187), 600.0: (1_168.7, 1.026), 1_800.0: (1_273.3, 0.894)}


@pytest.mark.slow
def test_fixed_timers_give_the_published_numbers(inference: servegen.Trace) -> None:
    loads = benchmark.client_loads(inference, seed=0, load_s=20)
    for timer_s, (gpu_hours, share) in PUBLISHED.items():
        score = benchmark.score(loads, benchmark.fixed(timer_s), DAY_S, 7 * DAY_S)
        assert score.gpu_hours == pytest.approx(gpu_hours, abs=1.0)
        assert 100 * score.delayed_share == pytest.approx(share, abs=0.25)  # spread over seeds: up to 0.18


def test_the_default_beats_the_900_s_timer_on_day_two(inference: servegen.Trace) -> None:
    loads = benchmark.client_loads(inference, seed=0, load_s=20, days=2)
    timer = benchmark.score(loads, benchmark.fixed(900), DAY_S, 2 * DAY_S)
    chosen = benchmark.score(loads, benchmark.learnt(keep_alive.Spec()), DAY_S, 2 * DAY_S)
    assert chosen.gpu_hours < timer.gpu_hours - 1
    assert chosen.delayed_share < timer.delayed_share


def test_one_price_for_all_and_dearer_is_quicker(inference: servegen.Trace) -> None:
    loads = benchmark.client_loads(inference, seed=1, load_s=20, days=2)
    scores = [
        benchmark.score(loads, benchmark.learnt(keep_alive.Spec(delay_price=price)), DAY_S, 2 * DAY_S)
        for price in (0.25, 12.0, 160.0)
    ]
    for cheap, quick in itertools.pairwise(scores):
        assert cheap.gpu_hours < quick.gpu_hours
        assert cheap.delayed_share > quick.delayed_share
