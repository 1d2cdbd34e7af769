"""The learnt time-out: choices that can be checked by hand, bounds, and errors."""

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from policies.keep_alive import BLOCK_S, Gap, Spec, choose, quiet_rate
from vgpu.errors import InvalidRequest

GAPS = st.lists(st.builds(Gap, length_s=st.floats(0.1, 1e6), requests_within_load=st.integers(0, 10_000)), max_size=40)
RATES = st.floats(1e-6, 1e4)


def gaps(*lengths: float, near: int = 1) -> list[Gap]:
    return [Gap(length_s=length, requests_within_load=near) for length in lengths]


def test_a_workload_that_always_comes_back_soon_is_held_just_long_enough() -> None:
    chosen = choose(gaps(*[100.0] * 20), 0.01, Spec())
    assert 100 <= chosen.t_s < 300  # a little beyond, for the gaps that the prior still expects
    assert chosen.evidence["gaps"] == 20


def test_gaps_too_long_to_hold_are_not_held() -> None:
    # Holding 50,000 s costs more than w = 12 / 0.01 = 1,200 GPU-seconds per delayed request.
    assert choose(gaps(*[50_000.0] * 20), 0.01, Spec()).t_s == 30


def test_more_requests_near_the_gaps_end_hold_longer() -> None:
    few, many = (choose(gaps(*[3_000.0] * 20, near=near), 0.01, Spec()).t_s for near in (1, 10))
    assert few == 30
    assert 3_000 <= many < 4_500


def test_the_newest_gaps_count_most() -> None:
    short, hopeless = [100.0] * 60, [50_000.0] * 60
    assert choose(gaps(*short, *hopeless), 0.01, Spec()).t_s == 30
    assert 100 <= choose(gaps(*hopeless, *short), 0.01, Spec()).t_s < 300


def test_only_the_newest_of_the_history_are_looked_at() -> None:
    spec = Spec(history_gaps=5)
    recent = gaps(40.0, 50.0, 60.0, 70.0, 80.0)
    assert choose(gaps(*[5_000.0] * 50) + recent, 0.1, spec) == choose(recent, 0.1, spec)


def test_gaps_below_the_shortest_are_passed_over() -> None:
    assert choose(gaps(1, 2, 29.9), 0.1, Spec()) == choose([], 0.1, Spec())


@given(GAPS, RATES, st.floats(0, 600))
def test_bounds_and_determinism(history: list[Gap], rate_rps: float, load_s: float) -> None:
    spec = Spec(minimum_s=45, maximum_s=2_000)
    chosen = choose(history, rate_rps, spec, load_s=load_s)
    assert spec.minimum_s <= chosen.t_s <= spec.maximum_s
    assert choose(history, rate_rps, spec, load_s=load_s) == chosen


@given(GAPS, RATES)
def test_a_higher_price_of_delay_never_shortens(history: list[Gap], rate_rps: float) -> None:
    prices = [0.25, 1.0, 7.6, 12.0, 40.0, 400.0]
    chosen = [choose(history, rate_rps, Spec(delay_price=price)).t_s for price in prices]
    assert all(a <= b for a, b in itertools.pairwise(chosen))


def test_no_choice_between_equal_bounds() -> None:
    assert choose(gaps(500.0), 1.0, Spec(minimum_s=300, maximum_s=300)).t_s == 300


def test_choice_is_the_minimum_of_the_stated_cost() -> None:
    """The formula again, in plain Python and one time-out at a time."""
    history = [Gap(length_s=g, requests_within_load=m) for g, m in ((40, 1), (700, 3), (95, 2), (4_000, 1), (310, 6))]
    rate_rps, load_s, spec = 0.02, 20.0, Spec()
    weights = [0.5 ** ((len(history) - 1 - i) / 10) for i in range(len(history))]
    near = (sum(w * gap.requests_within_load for w, gap in zip(weights, history, strict=True)) + 0.5) / (
        sum(weights) + 0.5
    )
    price = spec.delay_price / rate_rps
    span = math.log(86_400 / 30)

    def cost(t: float) -> float:
        past = sum(
            w * (min(gap.length_s, t) + price * gap.requests_within_load * (gap.length_s > t))
            for w, gap in zip(weights, history, strict=True)
        )
        longer = math.log(86_400 / t) / span
        return past + 0.5 * ((t - 30) / span + t * longer + price * near * longer)

    grid = [30 * 2 ** (k / 4) for k in range(32) if 30 * 2 ** (k / 4) <= 6_500]
    assert choose(history, rate_rps, spec, load_s=load_s).t_s == pytest.approx(min(grid, key=cost))


@pytest.mark.parametrize("rate_rps", [0.0, -1.0, math.nan, math.inf])
def test_a_rate_that_is_none_is_refused(rate_rps: float) -> None:
    with pytest.raises(InvalidRequest, match="rate_rps="):
        choose([], rate_rps, Spec())


@pytest.mark.parametrize(("length_s", "near"), [(0.0, 1), (-3.0, 1), (math.nan, 1), (math.inf, 1), (40.0, -1)])
def test_impossible_gaps_are_refused(length_s: float, near: int) -> None:
    with pytest.raises(InvalidRequest, match=r"gap\."):
        Gap(length_s=length_s, requests_within_load=near)


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"minimum_s": 29}, "minimum_s"),
        ({"minimum_s": 900, "maximum_s": 600}, "maximum_s=600"),
        ({"delay_price": 0}, "delay_price"),
        ({"delay_price": math.nan}, "delay_price"),
        ({"prior_weight": 0}, "prior_weight"),
        ({"per_client": {"7": 3}}, "per_client"),
    ],
)
def test_invalid_settings_name_the_field(values: dict[str, object], field: str) -> None:
    with pytest.raises(ValidationError, match=field):
        Spec.model_validate(values)


@pytest.mark.parametrize(
    ("counts", "running_s", "expected"),
    [
        ((), 0.0, None),
        ((0, 0), 100.0, None),
        ((432,), 600.0, 432 / BLOCK_S),
        ((537_607, 618), BLOCK_S, 618 / BLOCK_S),
        # Blocks before the first request are no evidence of a low rate.
        ((0, 0, 0, 537_607, 618), BLOCK_S, 618 / BLOCK_S),
        # A block that has just begun counts as a whole one.
        ((90_000, 5), 10.0, 5 / BLOCK_S),
        ((300, 90_000, 100), 21_600.0, 400 / (1.5 * BLOCK_S)),
        # Nothing outside the fullest block: one request in all that time.
        ((90_000, 0, 0), 10.0, 1 / (3 * BLOCK_S)),
        # The running block may be the fullest.
        ((20, 90_000), 600.0, 20 / BLOCK_S),
    ],
)
def test_quiet_rate(counts: tuple[int, ...], running_s: float, expected: float | None) -> None:
    assert quiet_rate(counts, running_s) == (None if expected is None else pytest.approx(expected))
