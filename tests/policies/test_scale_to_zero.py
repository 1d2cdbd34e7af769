"""Scaling to zero and back: order of the checks, recheck times, and what holds for every state."""

import dataclasses
import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from policies import keep_alive, scale_to_zero
from policies.decisions import Action, Reason, Scale
from policies.scale_to_zero import OURS, Spec, State
from policies.signals import Signal, SignalState
from vgpu.errors import InvalidRequest

NOW = 100_000.0


def valid(name: str, value: float, age_s: float = 5) -> Signal:
    return Signal(name=name, state=SignalState.VALID, value=value, age_s=age_s)


def idle(**changes: Any) -> State:
    values: dict[str, Any] = {
        "workload": "chat/llama",
        "replicas": 2,
        "ready": 2,
        "last_active_s": NOW - 5_000,
        "controller_started_s": 0.0,
        "activity": (valid("duty", 0),),
        "presence": valid("exporter", 2),
        "wake": (valid("queue", 0),),
    }
    return State(**values | changes)


FIXED = Spec(keep_alive="fixed")


def test_to_zero_tells_its_steps_in_order() -> None:
    decision = scale_to_zero.decide(FIXED, idle(last_wake_s=NOW - 9_000), NOW)
    assert (decision.action, decision.reason) == (Action.SCALE_TO_ZERO, Reason.IDLE_PROVEN)
    assert decision.plan == Scale(workload="chat/llama", replicas=0)
    assert [(step.name, step.value) for step in decision.steps] == [
        ("owner", "none"),
        ("wake signal", "quiet"),
        ("activity signal", "quiet"),
        ("activity signals trusted", True),
        ("wake signals trusted", True),
        ("presence proven", True),
        ("keep-alive", "fixed"),
        ("idle for the keep-alive", True),
        ("minimum uptime passed", True),
        ("frozen", False),
        ("replicas", 0),
    ]
    assert decision.evidence == {
        "replicas": 2,
        "ready": 2,
        "pending": 0,
        "idle_s": 5_000,
        "idle_since": "last activity",
        "keep_alive_s": 900,
    }


@pytest.mark.parametrize(
    ("changes", "reason", "recheck_s"),
    [
        ({"last_active_s": NOW - 400}, Reason.IDLE_TOO_SHORT, NOW + 500),
        ({"last_active_s": None, "controller_started_s": NOW - 100}, Reason.CONTROLLER_JUST_STARTED, NOW + 800),
        ({"last_wake_s": NOW - 20}, Reason.MINIMUM_UPTIME, NOW + 40),
        ({"pending": 1, "oldest_pending_s": 200.0}, Reason.REPLICAS_PENDING, NOW + 1_000),
        # A slow starter gets twice its learnt load time.
        ({"pending": 1, "oldest_pending_s": 1_500.0, "load_s": 900.0}, Reason.REPLICAS_PENDING, NOW + 300),
        (
            {"pending": 1, "ready": 1, "oldest_pending_s": 1_500.0, "last_active_s": NOW - 700},
            Reason.REPLICAS_STUCK,
            NOW + 200,
        ),
        ({"activity": (valid("duty", 3),)}, Reason.ACTIVE, NOW + 900),
        ({"wake": (valid("queue", 1),)}, Reason.ACTIVE, NOW + 900),
        ({"frozen": frozenset({Action.SCALE_TO_ZERO})}, Reason.FROZEN, None),
        ({"other_owner": "chat/hpa"}, Reason.OTHER_OWNER, None),
    ],
)
def test_waiting_says_why_and_until_when(changes: dict[str, Any], reason: Reason, recheck_s: float | None) -> None:
    decision = scale_to_zero.decide(FIXED, idle(**changes), NOW)
    assert (decision.action, decision.reason, decision.recheck_s) == (Action.NOTHING, reason, recheck_s)
    assert decision.plan is None


@pytest.mark.parametrize(
    "changes",
    [
        {"last_active_s": NOW - 400},
        {"last_active_s": None, "controller_started_s": NOW - 100},
        {"last_wake_s": NOW - 20},
    ],
)
def test_the_answer_changes_at_the_recheck_and_not_before(changes: dict[str, Any]) -> None:
    state = idle(**changes)
    at = scale_to_zero.decide(FIXED, state, NOW).recheck_s
    assert at is not None
    assert scale_to_zero.decide(FIXED, state, math.nextafter(at, 0) - 1e-6).action is Action.NOTHING
    assert scale_to_zero.decide(FIXED, state, at).action is Action.SCALE_TO_ZERO


def test_learnt_keep_alive_is_the_one_that_keep_alive_chooses() -> None:
    gaps = tuple(keep_alive.Gap(length_s=200.0, requests_within_load=2) for _ in range(12))
    chosen = keep_alive.choose(gaps, 0.01, keep_alive.Spec(), load_s=20.0)
    state = idle(gaps=gaps, rate_rps=0.01, load_s=20.0, last_active_s=NOW - chosen.t_s + 1)
    early = scale_to_zero.decide(Spec(), state, NOW)
    assert (early.reason, early.recheck_s) == (Reason.IDLE_TOO_SHORT, pytest.approx(NOW + 1))
    assert early.evidence["keep_alive_s"] == chosen.t_s
    assert early.evidence["gaps"] == 12
    assert scale_to_zero.decide(Spec(), state, NOW + 1.01).action is Action.SCALE_TO_ZERO
    handed_over = dataclasses.replace(state, gaps=(), chosen=chosen)
    assert scale_to_zero.decide(Spec(), handed_over, NOW) == early


def test_without_a_rate_the_fixed_time_holds() -> None:
    decision = scale_to_zero.decide(Spec(), idle(last_active_s=NOW - 899), NOW)
    assert (decision.reason, decision.evidence["keep_alive_s"]) == (Reason.IDLE_TOO_SHORT, 900)
    assert decision.recheck_s == pytest.approx(NOW + 1)


@pytest.mark.parametrize(("restore", "expected"), [(0, 1), (1, 1), (5, 5)])
def test_wake_restores_at_least_one(restore: int, expected: int) -> None:
    state = idle(replicas=0, ready=0, zeroed_by=OURS, restore_replicas=restore, wake=(valid("queue", 0.5),))
    decision = scale_to_zero.decide(Spec(), state, NOW)
    assert (decision.action, decision.reason) == (Action.SCALE_UP, Reason.WAKE_SIGNAL)
    assert decision.plan == Scale(workload="chat/llama", replicas=expected)
    assert decision.evidence["wake"] == "queue"


def test_wake_needs_more_than_the_threshold() -> None:
    state = idle(replicas=0, ready=0, zeroed_by=OURS, wake=(valid("queue", 2),))
    assert scale_to_zero.decide(Spec(wake_threshold=2), state, NOW).reason is Reason.ALREADY_ZERO
    assert scale_to_zero.decide(Spec(wake_threshold=1.9), state, NOW).action is Action.SCALE_UP


def test_the_fallback_is_due_when_the_last_signal_is_too_old() -> None:
    def stale(age_s: float) -> Signal:
        return Signal(name="queue", state=SignalState.STALE, value=0, age_s=age_s)

    spec = Spec(fallback_replicas=2, fallback_after_s=600)
    state = idle(replicas=0, ready=0, zeroed_by=OURS, wake=(stale(900), stale(500)))
    decision = scale_to_zero.decide(spec, state, NOW)
    assert (decision.action, decision.reason, decision.recheck_s) == (Action.NOTHING, Reason.SIGNAL_STALE, NOW + 100)


def test_bad_values_are_told_in_words_that_json_knows() -> None:
    decision = scale_to_zero.decide(FIXED, idle(activity=(valid("duty", math.nan, math.inf),)), NOW)
    assert decision.reason is Reason.SIGNAL_INVALID
    told = json.loads(json.dumps(dict(decision.evidence), allow_nan=False))
    assert (told["activity"], told["activity_value"], told["activity_age_s"]) == ("duty", "nan", "inf")


SIGNALS = st.builds(
    Signal,
    name=st.sampled_from(["duty", "requests", "queue"]),
    state=st.sampled_from(list(SignalState)),
    value=st.none() | st.floats() | st.just(0.0) | st.just(1.0),
    age_s=st.none() | st.floats(0, 2_000) | st.just(5.0),
)
TIMES = st.none() | st.floats(0, 2 * NOW)
STATES = st.builds(
    State,
    workload=st.just("chat/llama"),
    replicas=st.integers(0, 4),
    ready=st.integers(0, 4),
    pending=st.sampled_from([0, 0, 1, 3]),
    oldest_pending_s=st.none() | st.floats(0, 5_000),
    restore_replicas=st.integers(0, 4),
    zeroed_by=st.sampled_from(["", OURS, "alice"]),
    last_active_s=TIMES,
    last_wake_s=TIMES,
    controller_started_s=st.floats(0, NOW),
    activity=st.lists(SIGNALS, max_size=3).map(tuple),
    presence=st.none() | SIGNALS | st.just(valid("exporter", 1)),
    wake=st.lists(SIGNALS | st.just(valid("queue", 0)), max_size=3).map(tuple),
    gaps=st.lists(
        st.builds(keep_alive.Gap, length_s=st.floats(30, 1e5), requests_within_load=st.integers(0, 50)), max_size=5
    ).map(tuple),
    rate_rps=st.none() | st.floats(1e-6, 1e4),
    load_s=st.none() | st.floats(0, 900),
    other_owner=st.sampled_from(["", "", "chat/hpa"]),
    frozen=st.frozensets(st.sampled_from([Action.SCALE_UP, Action.SCALE_TO_ZERO, Action.CANCEL]), max_size=1),
    price_unknown=st.booleans(),
)
SPECS = st.sampled_from([Spec(), FIXED, Spec(fallback_replicas=3), Spec(own_manual_zero=True, min_uptime_s=0)])


def believable(signal: Signal | None, spec: Spec) -> bool:
    return (
        signal is not None
        and signal.valid
        and signal.value is not None
        and 0 <= signal.value < math.inf
        and signal.age_s is not None
        and signal.age_s <= spec.max_signal_age_s
    )


@given(SPECS, STATES)
def test_missing_data_never_lowers(spec: Spec, state: State) -> None:
    decision = scale_to_zero.decide(spec, state, NOW)
    if not isinstance(decision.plan, Scale) or decision.plan.replicas >= state.replicas:
        return
    # Both ways down: every wake signal answers, and says that nobody waits.
    assert state.wake
    assert all(believable(signal, spec) and signal.value == 0 for signal in state.wake)
    assert not state.other_owner
    if decision.action is Action.CANCEL:  # replicas that could not start: they cannot report, the ready ones stay
        assert state.pending
        assert decision.plan.replicas == state.ready
    else:
        assert decision.action is Action.SCALE_TO_ZERO
        assert not state.pending
        assert state.activity
        assert all(believable(signal, spec) and signal.value == 0 for signal in state.activity)
        assert believable(state.presence, spec)
        assert state.presence is not None
        assert state.presence.value
        assert state.last_active_s is not None or state.controller_started_s <= NOW - 30


@given(SPECS, STATES)
def test_one_more_bad_signal_never_lowers_further(spec: Spec, state: State) -> None:
    """Spoiling any single input of any state leads to no lower number than before."""
    lost = Signal(name="lost", state=SignalState.UNREACHABLE)

    def replicas(of: State) -> int:
        plan = scale_to_zero.decide(spec, of, NOW).plan
        return plan.replicas if isinstance(plan, Scale) else of.replicas

    before = replicas(state)
    if state.replicas:
        assert replicas(dataclasses.replace(state, activity=(*state.activity, lost))) >= before
        assert replicas(dataclasses.replace(state, wake=(*state.wake, lost))) >= before
        assert replicas(dataclasses.replace(state, presence=lost)) >= before


@given(SPECS, STATES, st.lists(SIGNALS, max_size=3).map(tuple), st.none() | SIGNALS)
def test_waking_never_depends_on_what_the_pods_report(
    spec: Spec, state: State, activity: tuple[Signal, ...], presence: Signal | None
) -> None:
    asleep = dataclasses.replace(state, replicas=0)
    otherwise = dataclasses.replace(asleep, activity=activity, presence=presence)
    assert scale_to_zero.decide(spec, asleep, NOW) == scale_to_zero.decide(spec, otherwise, NOW)


@given(SPECS, STATES)
def test_same_input_same_decision_and_always_explained(spec: Spec, state: State) -> None:
    decision = scale_to_zero.decide(spec, state, NOW)
    assert scale_to_zero.decide(spec, state, NOW) == decision
    assert decision.policy == "scale-to-zero"
    assert decision.subject == state.workload
    assert decision.steps
    assert (decision.plan is None) == (decision.action is Action.NOTHING)
    assert decision.recheck_s is None or decision.recheck_s >= NOW - 1e-6
    json.dumps([dict(decision.evidence), [step.value for step in decision.steps]], allow_nan=False)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"replicas": -1}, "state.replicas=-1"),
        ({"pending": -2}, "state.pending=-2"),
        ({"workload": ""}, "state.workload="),
        ({"last_active_s": math.nan}, "state.last_active_s=nan"),
        ({"rate_rps": 0.0}, "state.rate_rps=0.0"),
        ({"load_s": -1.0}, "state.load_s=-1.0"),
    ],
)
def test_impossible_states_are_refused(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidRequest, match=field):
        idle(**changes)


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"idle_after_s": 10}, "idle_after_s"),
        ({"idle_after_s": math.inf}, "idle_after_s"),
        ({"keep_alive": "sometimes"}, "keep_alive"),
        ({"start_deadline_s": 59}, "start_deadline_s"),
        ({"fallback_replicas": 0}, "fallback_replicas"),
        ({"fallback_replicas": 1, "fallback_after_s": 300, "max_signal_age_s": 400}, "fallback_after_s=300"),
        ({"idleAfter": 900}, "idleAfter"),
        ({"learnt": {"delay_price": -1}}, "learnt.delay_price"),
    ],
)
def test_invalid_specs_name_the_field(values: dict[str, object], field: str) -> None:
    with pytest.raises(ValidationError, match=field):
        Spec.model_validate(values)
