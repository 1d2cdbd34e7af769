"""The claim's life as data: nothing is forgotten, nothing is a dead end, every deadline leads somewhere legal."""

import itertools

import pytest

from autoscaler.engine import lifecycle
from autoscaler.model.kinds import ClaimState

S = ClaimState
STATES = tuple(ClaimState)


@pytest.mark.parametrize("state", STATES)
def test_every_state_has_a_deadline_or_says_that_it_has_none(state: ClaimState) -> None:
    deadline = lifecycle.DEADLINES[state]
    if deadline.after_s is None:
        assert deadline.then is None
        # In service is the one state that may last for ever without a word.
        assert (deadline.warn_s is None) is (state is S.READY)
    else:
        assert deadline.after_s > 0
        assert deadline.then is not None
        assert lifecycle.allowed(state, deadline.then), "a deadline that leads where no edge does"


@pytest.mark.parametrize("state", STATES)
def test_every_state_comes_to_an_end(state: ClaimState) -> None:
    assert lifecycle.GONE in lifecycle.reachable(state)


def test_every_state_can_be_reached_from_the_first() -> None:
    assert lifecycle.reachable(S.PENDING) | {S.PENDING} == {*STATES, lifecycle.GONE}


def test_gone_is_the_end() -> None:
    assert not [edge for edge in lifecycle.EDGES if edge[0] == lifecycle.GONE]


@pytest.mark.parametrize(("edge", "why"), lifecycle.EDGES.items(), ids=[f"{a} to {b}" for a, b in lifecycle.EDGES])
def test_every_edge_says_why(edge: tuple[ClaimState, ClaimState | str], why: str) -> None:
    assert len(why.split()) >= 4
    assert edge[0] in STATES
    assert edge[1] in {*STATES, lifecycle.GONE}


def test_no_two_edges_give_the_same_reason() -> None:
    assert len(set(lifecycle.EDGES.values())) == len(lifecycle.EDGES)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (S.PENDING, S.LAUNCHED),  # a purchase without a stored attempt
        (S.PENDING, lifecycle.GONE),  # deletion passes through Failed, which looks for machines
        (S.ORDERING, S.PENDING),  # an attempt is never forgotten
        (S.ORDERING, S.TERMINATING),
        (S.ORDERING, lifecycle.GONE),  # a machine may have been bought
        (S.LAUNCHED, S.ORDERING),  # never a second machine for one claim
        (S.LAUNCHED, S.READY),  # GPUs are counted first
        (S.REGISTERED, S.READY),
        (S.READY, S.TERMINATING),  # pods are moved first
        (S.READY, lifecycle.GONE),
        (S.DRAINING, lifecycle.GONE),
        (S.TERMINATING, S.READY),
        (S.TERMINATING, S.FAILED),
        (S.FAILED, S.READY),
        (S.FAILED, S.ORDERING),  # a failed claim is not revived
    ],
)
def test_short_cuts_that_would_lose_money_or_pods_do_not_exist(before: ClaimState, after: ClaimState) -> None:
    assert not lifecycle.allowed(before, after)


def test_allowed_says_what_the_edges_say() -> None:
    allowed = {(a, b) for a, b in itertools.product(STATES, (*STATES, lifecycle.GONE)) if lifecycle.allowed(a, b)}  # type: ignore[arg-type]
    assert allowed == set(lifecycle.EDGES)


def test_only_the_next_attempt_repeats_a_state() -> None:
    assert [edge for edge in lifecycle.EDGES if edge[0] == edge[1]] == [(S.ORDERING, S.ORDERING)]


def test_capacity_on_the_way_is_what_comes_before_service() -> None:
    before_service = {state for state in STATES if S.READY in lifecycle.reachable(state)} - {S.READY, S.DRAINING}
    assert before_service == lifecycle.ON_THE_WAY


def test_money_is_charged_in_every_state() -> None:
    assert set(STATES) == lifecycle.CHARGED


@pytest.mark.parametrize("state", [S.LAUNCHED, S.REGISTERED, S.INITIALIZED, S.READY, S.DRAINING])
def test_a_machine_may_vanish_at_any_time(state: ClaimState) -> None:
    assert lifecycle.allowed(state, S.FAILED)


def test_a_drain_that_cannot_be_finished_is_taken_back_and_one_that_can_ends() -> None:
    assert lifecycle.allowed(S.DRAINING, S.READY)
    assert lifecycle.allowed(S.DRAINING, S.TERMINATING)
