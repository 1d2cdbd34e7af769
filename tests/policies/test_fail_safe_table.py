"""The fail-safe table: what each bad situation may and may not cause, cell by cell, with the expected reason.

Columns here: Up (a sleeping workload whose gateway reports demand, unless the row says otherwise) and To zero (an
awake workload that is idle for long). Down between N and 1 has no column: scaling to zero never sets a number in
between, which ``test_nothing_between_n_and_one`` proves for every row. Migrate and resize: see MIGRATE at the end.
"""

import dataclasses
import math
from collections.abc import Callable

import pytest

from policies import compaction, scale_to_zero
from policies.decisions import Action, Decision, Reason, Scale
from policies.scale_to_zero import Spec, State
from policies.signals import Signal, SignalState
from vgpu import Allocator, Device, Node, Placement, Request, Shape

NOW = 1_000_000.0

NOTHING, UP, ZERO, CANCEL = Action.NOTHING, Action.SCALE_UP, Action.SCALE_TO_ZERO, Action.CANCEL

Cell = tuple[Action, Reason, int | None]
"""Action, reason and the replicas asked for (None: no change)."""


def held(reason: Reason) -> Cell:
    return NOTHING, reason, None


FIXED = Spec(keep_alive="fixed", idle_after_s=900)
WITH_FALLBACK = Spec(keep_alive="fixed", idle_after_s=900, fallback_replicas=2, fallback_after_s=600)


def valid(name: str, value: float) -> Signal:
    return Signal(name=name, state=SignalState.VALID, value=value, age_s=10)


SLEEPING = State(
    workload="chat/llama",
    replicas=0,
    restore_replicas=3,
    zeroed_by=scale_to_zero.OURS,
    last_active_s=NOW - 50_000,
    controller_started_s=NOW - 500_000,
    wake=(valid("queue", 4), valid("arrivals", 1)),
)

IDLE = State(
    workload="chat/llama",
    replicas=3,
    ready=3,
    last_active_s=NOW - 5_000,
    last_wake_s=NOW - 50_000,
    controller_started_s=NOW - 500_000,
    activity=(valid("duty", 0), valid("requests", 0)),
    presence=valid("exporter", 1),
    wake=(valid("queue", 0), valid("arrivals", 0)),
)

Change = Callable[[State], State]


def same(state: State) -> State:
    return state


def changed(**values: object) -> Change:
    return lambda state: dataclasses.replace(state, **values)  # pyright: ignore[reportArgumentType]


def every_signal(signal: Signal) -> Change:
    """All wake and activity signals are in this condition."""

    def change(state: State) -> State:
        alike = tuple(dataclasses.replace(signal, name=old.name) for old in state.wake)
        activity = tuple(dataclasses.replace(signal, name=old.name) for old in state.activity)
        return dataclasses.replace(state, wake=alike, activity=activity)

    return change


def one_signal(signal: Signal) -> Change:
    """The first wake and the first activity signal are in this condition; the others are well."""

    def change(state: State) -> State:
        return dataclasses.replace(
            state, wake=(signal, *state.wake[1:]), activity=(signal, *state.activity[1:]) if state.activity else ()
        )

    return change


def bad(state: SignalState, value: float | None = None, age_s: float | None = None, detail: str = "") -> Signal:
    return Signal(name="bad", state=state, value=value, age_s=age_s, detail=detail)


def pretended(value: float | None, age_s: float | None = 5) -> Signal:
    """Called Valid by a careless source."""
    return Signal(name="bad", state=SignalState.VALID, value=value, age_s=age_s)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    situation: str
    spec: Spec = FIXED
    change: Change = same
    up: Cell | None
    """None: the situation says nothing about a sleeping workload."""
    zero: Cell | None


TABLE = [
    Row(
        situation="all metrics fresh",
        up=(UP, Reason.WAKE_SIGNAL, 3),
        zero=(ZERO, Reason.IDLE_PROVEN, 0),
    ),
    Row(
        situation="one stale of several",
        change=one_signal(bad(SignalState.STALE, 0, 400)),
        up=(UP, Reason.WAKE_SIGNAL, 3),
        zero=held(Reason.SIGNAL_STALE),
    ),
    Row(
        situation="one missing of several",
        change=one_signal(bad(SignalState.ABSENT)),
        up=(UP, Reason.WAKE_SIGNAL, 3),
        zero=held(Reason.SIGNAL_ABSENT),
    ),
    Row(
        situation="all stale for less than the fallback's time",
        spec=WITH_FALLBACK,
        change=every_signal(bad(SignalState.STALE, 7, 599)),
        up=held(Reason.SIGNAL_STALE),
        zero=held(Reason.SIGNAL_STALE),
    ),
    Row(
        situation="all stale for longer, fallback set",
        spec=WITH_FALLBACK,
        change=every_signal(bad(SignalState.STALE, 0, 601)),
        up=(UP, Reason.SIGNAL_STALE, 2),
        zero=held(Reason.SIGNAL_STALE),
    ),
    Row(
        situation="one stale for longer, the other absent, fallback set",
        spec=WITH_FALLBACK,
        change=changed(wake=(bad(SignalState.STALE, 0, 900), bad(SignalState.ABSENT))),
        up=held(Reason.SIGNAL_STALE),
        zero=held(Reason.SIGNAL_STALE),
    ),
    Row(
        situation="all stale for ten minutes, no fallback",
        change=every_signal(bad(SignalState.STALE, 0, 600)),
        up=held(Reason.SIGNAL_STALE),
        zero=held(Reason.SIGNAL_STALE),
    ),
    Row(
        situation="ten minutes old and called valid",
        change=every_signal(pretended(0, 600)),
        up=held(Reason.SIGNAL_STALE),
        zero=held(Reason.SIGNAL_STALE),
    ),
    Row(
        situation="value 0, no presence signal",
        change=lambda s: dataclasses.replace(s, presence=None, wake=IDLE.wake),
        up=held(Reason.ALREADY_ZERO),
        zero=held(Reason.PRESENCE_UNPROVEN),
    ),
    Row(
        situation="value 0, exporter counted as 0",
        change=lambda s: dataclasses.replace(s, presence=valid("exporter", 0), wake=IDLE.wake),
        up=held(Reason.ALREADY_ZERO),
        zero=held(Reason.PRESENCE_UNPROVEN),
    ),
    Row(
        situation="value 0, presence stale",
        change=lambda s: dataclasses.replace(s, presence=bad(SignalState.STALE, 1, 400), wake=IDLE.wake),
        up=held(Reason.ALREADY_ZERO),
        zero=held(Reason.PRESENCE_UNPROVEN),
    ),
    Row(
        situation="presence unproven, gateway reports demand",
        change=changed(presence=None),
        up=(UP, Reason.WAKE_SIGNAL, 3),
        zero=held(Reason.PRESENCE_UNPROVEN),
    ),
    Row(
        situation="Prometheus unreachable",
        spec=WITH_FALLBACK,
        change=every_signal(bad(SignalState.UNREACHABLE, detail="connection refused")),
        up=held(Reason.SIGNAL_UNREACHABLE),
        zero=held(Reason.SIGNAL_UNREACHABLE),
    ),
    Row(
        situation="Prometheus answers with nothing",
        spec=WITH_FALLBACK,
        change=every_signal(bad(SignalState.ABSENT)),
        up=held(Reason.SIGNAL_ABSENT),
        zero=held(Reason.SIGNAL_ABSENT),
    ),
    *(
        Row(
            situation=f"pods seen and quiet, wake signals {state.value}: it could never be woken",
            change=lambda s, state=state: dataclasses.replace(s, wake=(bad(state, None, 400),)),
            up=held(reason),
            zero=held(reason),
        )
        for state, reason in (
            (SignalState.STALE, Reason.SIGNAL_STALE),
            (SignalState.ABSENT, Reason.SIGNAL_ABSENT),
            (SignalState.INVALID, Reason.SIGNAL_INVALID),
            (SignalState.UNREACHABLE, Reason.SIGNAL_UNREACHABLE),
        )
    ),
    Row(
        situation="no signals configured",
        change=changed(wake=(), activity=()),
        up=held(Reason.SIGNAL_ABSENT),
        zero=held(Reason.SIGNAL_ABSENT),
    ),
    Row(
        situation="duplicates that contradict each other",
        change=every_signal(bad(SignalState.INVALID, detail="2 series with values 0 and 70")),
        up=held(Reason.SIGNAL_INVALID),
        zero=held(Reason.SIGNAL_INVALID),
    ),
    *(
        Row(
            situation=f"{value} called valid",
            change=every_signal(pretended(value)),
            up=held(Reason.SIGNAL_INVALID),
            zero=held(Reason.SIGNAL_INVALID),
        )
        for value in (math.nan, math.inf, -math.inf, -1.0, None)
    ),
    Row(
        situation="valid without an age",
        change=every_signal(pretended(0, None)),
        up=held(Reason.SIGNAL_INVALID),
        zero=held(Reason.SIGNAL_INVALID),
    ),
    Row(
        situation="controller just started, last activity unknown",
        change=changed(controller_started_s=NOW - 899, last_active_s=None),
        up=(UP, Reason.WAKE_SIGNAL, 3),
        zero=held(Reason.CONTROLLER_JUST_STARTED),
    ),
    Row(
        situation="controller started a full idle time ago, last activity unknown",
        change=changed(controller_started_s=NOW - 900, last_active_s=None),
        up=(UP, Reason.WAKE_SIGNAL, 3),
        zero=(ZERO, Reason.IDLE_PROVEN, 0),
    ),
    Row(
        situation="controller just started, last activity persisted",
        change=changed(controller_started_s=NOW - 1),
        up=(UP, Reason.WAKE_SIGNAL, 3),
        zero=(ZERO, Reason.IDLE_PROVEN, 0),
    ),
    Row(
        situation="target owned by another scaler",
        change=changed(other_owner="chat/keda-hpa-llama"),
        up=held(Reason.OTHER_OWNER),
        zero=held(Reason.OTHER_OWNER),
    ),
    Row(
        situation="replicas set to 0 by a user",
        change=changed(zeroed_by=""),
        up=held(Reason.ZEROED_BY_USER),
        zero=None,
    ),
    Row(
        situation="replicas set to 0 by a user, ownManualZero",
        spec=FIXED.model_copy(update={"own_manual_zero": True}),
        change=changed(zeroed_by=""),
        up=(UP, Reason.WAKE_SIGNAL, 3),
        zero=None,
    ),
    Row(
        situation="replicas set to 0 by a user, fallback due",
        spec=WITH_FALLBACK,
        change=lambda s: dataclasses.replace(every_signal(bad(SignalState.STALE, 0, 601))(s), zeroed_by="alice"),
        up=held(Reason.ZEROED_BY_USER),
        zero=None,
    ),
    Row(
        situation="price unknown, spend cap set",
        change=changed(price_unknown=True),
        up=held(Reason.PRICE_UNKNOWN),
        zero=(ZERO, Reason.IDLE_PROVEN, 0),
    ),
    Row(
        situation="freeze of everything that lowers",
        change=changed(frozen=frozenset({Action.SCALE_TO_ZERO, Action.COMPACT})),
        up=(UP, Reason.WAKE_SIGNAL, 3),
        zero=held(Reason.FROZEN),
    ),
    Row(
        situation="freeze of ScaleUp",
        change=changed(frozen=frozenset({Action.SCALE_UP})),
        up=held(Reason.FROZEN),
        zero=(ZERO, Reason.IDLE_PROVEN, 0),
    ),
    Row(
        situation="pending within the deadline",
        change=changed(replicas=3, ready=1, pending=2, oldest_pending_s=1_199),
        up=held(Reason.REPLICAS_PENDING),
        zero=held(Reason.REPLICAS_PENDING),
    ),
    Row(
        situation="pending of unknown age",
        change=changed(replicas=3, ready=1, pending=2, oldest_pending_s=None),
        up=held(Reason.REPLICAS_PENDING),
        zero=held(Reason.REPLICAS_PENDING),
    ),
    Row(
        situation="pending past the deadline: no more up; without demand those that cannot start are taken back",
        change=changed(replicas=3, ready=1, pending=2, oldest_pending_s=1_200),
        up=held(Reason.REPLICAS_STUCK),
        zero=(CANCEL, Reason.REPLICAS_STUCK, 1),
    ),
    Row(
        situation="none ever started, past the deadline",
        change=changed(replicas=3, ready=0, pending=3, oldest_pending_s=1_200, activity=(), presence=None),
        up=held(Reason.REPLICAS_STUCK),
        zero=(CANCEL, Reason.REPLICAS_STUCK, 0),
    ),
    Row(
        situation="pending past the deadline, frozen",
        change=changed(
            replicas=3, ready=1, pending=2, oldest_pending_s=1_200, frozen=frozenset({Action.SCALE_TO_ZERO})
        ),
        up=held(Reason.REPLICAS_STUCK),
        zero=held(Reason.FROZEN),
    ),
    Row(
        situation="pending past the deadline, wake signals unreachable",
        change=lambda s: dataclasses.replace(
            every_signal(bad(SignalState.UNREACHABLE))(s), replicas=3, ready=1, pending=2, oldest_pending_s=1_200
        ),
        up=held(Reason.REPLICAS_STUCK),
        zero=held(Reason.REPLICAS_STUCK),
    ),
]


def cell(decision: Decision) -> Cell:
    return decision.action, decision.reason, decision.plan.replicas if isinstance(decision.plan, Scale) else None


def cases(column: str) -> list[object]:
    return [pytest.param(row, id=row.situation) for row in TABLE if getattr(row, column) is not None]


@pytest.mark.parametrize("row", cases("up"))
def test_up(row: Row) -> None:
    decision = scale_to_zero.decide(row.spec, row.change(SLEEPING), NOW)
    assert cell(decision) == row.up


@pytest.mark.parametrize("row", cases("zero"))
def test_to_zero(row: Row) -> None:
    decision = scale_to_zero.decide(row.spec, row.change(IDLE), NOW)
    assert cell(decision) == row.zero


@pytest.mark.parametrize("row", [pytest.param(row, id=row.situation) for row in TABLE])
def test_nothing_between_n_and_one(row: Row) -> None:
    """The Down column: the only numbers below the present one are 0, and the ready replicas when others are stuck."""
    for base in (SLEEPING, IDLE):
        state = row.change(base)
        plan = scale_to_zero.decide(row.spec, state, NOW).plan
        if isinstance(plan, Scale) and plan.replicas < state.replicas:
            assert plan.replicas == (state.ready if state.pending else 0)


# Migrate, resize ------------------------------------------------------------------------------------------------------
# Cells of the table's last column, from policies/compaction: situation, the decision made in it, what it must say.
def moving(*, signals: SignalState | None = SignalState.VALID, frozen: str = "", started_s: float = 0.0) -> Decision:
    """One pod on each of two nodes that fit on one: nothing but the situation stands against emptying one of them."""
    nodes = [Node(name=name, cpu_milli=8000, memory_mib=8000, devices=_devices(name)) for name in ("a", "b")]
    allocator = Allocator(nodes)
    for name in ("a", "b"):
        request = Request(id=f"pod-{name}", shape=Shape(gpus=1))
        allocator.apply(Placement(request=request, node=name, devices=(0,)))
    state = compaction.State(
        pool="pool",
        inventory=allocator,
        candidates=tuple(compaction.Candidate(node=name, gpus=4) for name in ("a", "b")),
        signals=signals,
        frozen=frozen,
        started_s=started_s,
    )
    return compaction.decide(compaction.Spec(), state, NOW)


def _devices(node: str) -> tuple[Device, ...]:
    return tuple(Device(uuid=f"{node}-{index}", model="L4") for index in range(4))


MIGRATE: list[tuple[str, Callable[[], Decision], Action, Reason]] = [
    ("all metrics fresh", moving, Action.COMPACT, Reason.UNDER_USED),
    ("no metrics configured", lambda: moving(signals=None), Action.COMPACT, Reason.UNDER_USED),
    ("one stale or missing", lambda: moving(signals=SignalState.STALE), Action.NOTHING, Reason.SIGNAL_STALE),
    ("presence unproven", lambda: moving(signals=SignalState.ABSENT), Action.NOTHING, Reason.SIGNAL_ABSENT),
    ("NaN or duplicates", lambda: moving(signals=SignalState.INVALID), Action.NOTHING, Reason.SIGNAL_INVALID),
    (
        "Prometheus unreachable",
        lambda: moving(signals=SignalState.UNREACHABLE),
        Action.NOTHING,
        Reason.SIGNAL_UNREACHABLE,
    ),
    (
        "controller just started",
        lambda: moving(started_s=NOW - 1),
        Action.NOTHING,
        Reason.CONTROLLER_JUST_STARTED,
    ),
    ("controller watched for one window", lambda: moving(started_s=NOW - 300), Action.COMPACT, Reason.UNDER_USED),
    ("freeze active", lambda: moving(frozen="month end"), Action.NOTHING, Reason.FROZEN),
]


@pytest.mark.parametrize(("situation", "decision", "action", "reason"), MIGRATE)
def test_migrate(situation: str, decision: Callable[[], Decision], action: Action, reason: Reason) -> None:
    made = decision()
    assert (made.action, made.reason) == (action, reason), situation
