"""Which node is given back and why not: every reason by table, and what any plan owes the pods that it moves."""

import dataclasses
import itertools
import random
from collections.abc import Iterable, Sequence

import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies import compaction
from policies.compaction import Candidate, Spec, State
from policies.decisions import Action, Decision, Reason, Vacate
from policies.signals import SignalState
from vgpu import Allocator, Device, Node, Placement, Request, Shape

NOW = 100_000.0
WHOLE = Shape(gpus=1)
HALF = Shape(gpus=1, milli=500)
HUGE = Shape(gpus=4)


def node(name: str, gpus: int, *, cpu: int = 8000) -> Node:
    devices = tuple(Device(uuid=f"{name}/{index}", model="L4", memory_mib=24_000) for index in range(gpus))
    return Node(name=name, cpu_milli=cpu, memory_mib=64_000, devices=devices)


def on(name: str, *shapes: Shape) -> list[tuple[str, Shape]]:
    """Pods of these shapes on a node."""
    return [(name, shape) for shape in shapes]


def world(nodes: Iterable[Node], pods: Sequence[tuple[str, Shape]] = (), closed: Iterable[str] = ()) -> Allocator:
    allocator = Allocator(nodes)
    for index, (name, shape) in enumerate(pods):
        assert isinstance(allocator.place(Request(id=f"p{index}", shape=shape), only={name}), Placement)
    for name in closed:
        allocator.cordon(name)
    return allocator


def candidates(allocator: Allocator, **protected: str) -> tuple[Candidate, ...]:
    return tuple(
        Candidate(node=known.name, gpus=known.gpus, protected=protected.get(known.name, ""))
        for known in allocator.nodes()
    )


def state(
    nodes: Iterable[Node],
    pods: Sequence[tuple[str, Shape]] = (),
    *,
    closed: Iterable[str] = (),
    protected: dict[str, str] | None = None,
    only: Iterable[str] | None = None,
    **fields: object,
) -> State:
    allocator = world(nodes, pods, closed)
    chosen = tuple(c for c in candidates(allocator, **(protected or {})) if only is None or c.node in only)
    return State(pool="pool", inventory=allocator, candidates=chosen, **fields)  # type: ignore[arg-type]


def gaps(given_state: State, *seconds: float, bought_s: float | None = None) -> State:
    """The same, where machines came back after gaps of so many seconds."""
    known = tuple(dataclasses.replace(c, gaps_s=seconds, bought_s=bought_s) for c in given_state.candidates)
    return dataclasses.replace(given_state, candidates=known)


def verdict(decision: Decision) -> tuple[Action, Reason, str]:
    return decision.action, decision.reason, decision.subject


def kept(reason: Reason) -> tuple[Action, Reason, str]:
    return Action.NOTHING, reason, "pool"


def removed(name: str) -> tuple[Action, Reason, str]:
    return Action.REMOVE, Reason.NODE_EMPTY, name


def compacted(name: str) -> tuple[Action, Reason, str]:
    return Action.COMPACT, Reason.UNDER_USED, name


FREE = node("free", 8)
"""Room for everybody, and headroom."""

EMPTY = [node("a", 1), FREE], on("free", WHOLE)
"""``a`` is empty and may go at once."""

SMALL = [node("a", 1), FREE], on("a", WHOLE) + on("free", WHOLE, WHOLE)
"""``a`` may go after one move."""

MANY = [node("a", 51), node("free", 64, cpu=0)], on("a", *[WHOLE] * 50)
"""Fifty moves empty ``a``."""

LONG_AGO = NOW - 600

TABLE: dict[str, tuple[State, Spec, tuple[Action, Reason, str]]] = {
    "an empty node": (state(*EMPTY), Spec(), removed("a")),
    "an under-used node": (state(*SMALL), Spec(), compacted("a")),
    "an empty node before an under-used one": (
        state([node("a", 1), node("b", 1), FREE], on("a", WHOLE) + on("free", WHOLE)),
        Spec(),
        removed("b"),
    ),
    "fewest moves first": (
        state([node("a", 2), node("b", 2), FREE], on("a", HALF, HALF, HALF) + on("b", HALF) + on("free", *[WHOLE] * 4)),
        Spec(),
        compacted("b"),
    ),
    "as many moves: the most free GPU": (
        state([node("a", 2), node("b", 4), FREE], on("a", WHOLE) + on("b", WHOLE) + on("free", *[WHOLE] * 2)),
        Spec(),
        compacted("b"),
    ),
    "all equal: the name": (state([node("b", 1), node("a", 1), FREE], on("free", WHOLE)), Spec(), removed("a")),
    "no candidate at all": (state(*EMPTY, only=()), Spec(), kept(Reason.NO_CANDIDATE)),
    "no nodes at all": (state([]), Spec(), kept(Reason.NO_CANDIDATE)),
    "moves are off": (state(*SMALL, only=["a"]), Spec(moves=False), kept(Reason.NO_CANDIDATE)),
    "moves are off, an empty node goes all the same": (state(*EMPTY), Spec(moves=False), removed("a")),
    "frozen": (state(*EMPTY, frozen="month end"), Spec(), kept(Reason.FROZEN)),
    "signals valid": (state(*EMPTY, signals=SignalState.VALID), Spec(), removed("a")),
    "signals not configured": (state(*EMPTY, signals=None), Spec(), removed("a")),
    "signals stale": (state(*EMPTY, signals=SignalState.STALE), Spec(), kept(Reason.SIGNAL_STALE)),
    "signals absent": (state(*EMPTY, signals=SignalState.ABSENT), Spec(), kept(Reason.SIGNAL_ABSENT)),
    "signals invalid": (state(*EMPTY, signals=SignalState.INVALID), Spec(), kept(Reason.SIGNAL_INVALID)),
    "signals unreachable": (state(*EMPTY, signals=SignalState.UNREACHABLE), Spec(), kept(Reason.SIGNAL_UNREACHABLE)),
    "just started": (state(*EMPTY, started_s=NOW - 9), Spec(settle_s=10), kept(Reason.CONTROLLER_JUST_STARTED)),
    "started long enough ago": (state(*EMPTY, started_s=NOW - 10), Spec(settle_s=10), removed("a")),
    "a drain in progress": (state(*EMPTY, draining=1), Spec(), kept(Reason.DRAIN_IN_PROGRESS)),
    "one drain of two": (state(*EMPTY, draining=1), Spec(max_draining=2), removed("a")),
    "two drains of two": (state(*EMPTY, draining=2), Spec(max_draining=2), kept(Reason.DRAIN_IN_PROGRESS)),
    "protected": (state(*EMPTY, protected={"a": "ns/p"}, only=["a"]), Spec(), kept(Reason.PROTECTED)),
    "protected, another one goes": (
        state([node("a", 1), node("b", 1), FREE], on("free", WHOLE), protected={"a": "ns/p"}),
        Spec(),
        removed("b"),
    ),
    "no room elsewhere": (
        state([node("a", 4), node("b", 4)], on("a", HUGE) + on("b", WHOLE), only=["a"]),
        Spec(headroom_gpus=0),
        kept(Reason.NO_ROOM_ELSEWHERE),
    ),
    "no room on a node that is closed": (
        state([node("a", 1), FREE, node("b", 1)], on("a", WHOLE) + on("b", WHOLE), closed=["free"], only=["a"]),
        Spec(headroom_gpus=0),
        kept(Reason.NO_ROOM_ELSEWHERE),
    ),
    "no CPU elsewhere": (
        state([node("a", 1), node("b", 4, cpu=99)], on("a", Shape(gpus=1, cpu_milli=100)), only=["a"]),
        Spec(),
        kept(Reason.NO_ROOM_ELSEWHERE),
    ),
    "room for each but not for both": (
        state([node("a", 2), node("b", 1)], on("a", Shape(gpus=1, milli=600), Shape(gpus=1, milli=600)), only=["a"]),
        Spec(headroom_gpus=0),
        kept(Reason.NO_ROOM_ELSEWHERE),
    ),
    "room for both": (
        state([node("a", 2), node("b", 1)], on("a", HALF, HALF), only=["a"]),
        Spec(headroom_gpus=0),
        compacted("a"),
    ),
    "headroom is kept exactly": (state([node("a", 1), node("b", 2)], only=["a"]), Spec(), removed("a")),
    "headroom would be missing": (
        state([node("a", 1), node("b", 2)], on("b", HALF), only=["a"]),
        Spec(),
        kept(Reason.HEADROOM_NEEDED),
    ),
    "headroom is counted after the moves": (
        state([node("a", 1), node("b", 2)], on("a", HALF), only=["a"]),
        Spec(),
        kept(Reason.HEADROOM_NEEDED),
    ),
    "headroom is not touched by moves into used devices": (
        state([node("a", 1), node("b", 3)], on("a", HALF) + on("b", HALF), only=["a"]),
        Spec(),
        compacted("a"),
    ),
    "headroom on a closed node does not count": (
        state([node("a", 1), node("b", 2)], closed=["b"], only=["a"]),
        Spec(),
        kept(Reason.HEADROOM_NEEDED),
    ),
    "the budget of fifty, used up exactly": (state(*MANY, only=["a"]), Spec(), compacted("a")),
    "the budget of fifty, one too many": (
        state(*MANY, only=["a"], moves_last_day=1),
        Spec(),
        kept(Reason.MOVE_BUDGET_SPENT),
    ),
    "an empty node needs no budget": (state(*EMPTY, moves_last_day=50), Spec(), removed("a")),
    "a budget of zero": (state(*SMALL, only=["a"]), Spec(max_moves_per_day=0), kept(Reason.MOVE_BUDGET_SPENT)),
    "gaps too short to pay back": (
        gaps(state(*EMPTY, only=["a"]), 100, 100, 179, 200, 9999),
        Spec(),
        kept(Reason.WOULD_NOT_PAY_BACK),
    ),
    "gaps just long enough": (gaps(state(*EMPTY, only=["a"]), 100, 100, 180, 200, 9999), Spec(), removed("a")),
    "moves cost more than no moves": (
        gaps(state(*SMALL, only=["a"]), 180, 180, 180, 180),
        Spec(),
        kept(Reason.WOULD_NOT_PAY_BACK),
    ),
    "three gaps say nothing": (gaps(state(*EMPTY, only=["a"]), 1, 1, 1), Spec(), removed("a")),
    "short gaps, but nothing was bought for long": (
        gaps(state(*EMPTY, only=["a"]), 1, 1, 1, 1, bought_s=NOW - 180),
        Spec(),
        removed("a"),
    ),
    "short gaps, and bought a moment ago": (
        gaps(state(*EMPTY, only=["a"]), 1, 1, 1, 1, bought_s=NOW - 179),
        Spec(),
        kept(Reason.WOULD_NOT_PAY_BACK),
    ),
    "a boot that can never be earned back": (
        state(*EMPTY, only=["a"]),
        Spec(boot_s=20_000),
        kept(Reason.WOULD_NOT_PAY_BACK),
    ),
    "an empty pool keeps its headroom for a while": (
        state([node("a", 2)], empty_since_s=NOW - 599),
        Spec(),
        kept(Reason.HEADROOM_NEEDED),
    ),
    "an empty pool goes to zero": (state([node("a", 2)], empty_since_s=LONG_AGO), Spec(), removed("a")),
    "an empty pool stays warm": (
        state([node("a", 2), node("b", 2)], empty_since_s=LONG_AGO, only=["a"]),
        Spec(warm_gpus=3),
        kept(Reason.HEADROOM_NEEDED),
    ),
    "an empty pool goes to its warm size": (
        state([node("a", 2), node("b", 3)], empty_since_s=LONG_AGO, only=["a"]),
        Spec(warm_gpus=3),
        removed("a"),
    ),
    "warm GPUs count while something runs": (
        state([node("a", 1), node("b", 4)], on("b", WHOLE, WHOLE), only=["a"]),
        Spec(warm_gpus=3),
        kept(Reason.HEADROOM_NEEDED),
    ),
    "not looked at beyond the most candidates": (
        state([node("a", 1), node("b", 2), FREE], on("b", HALF, HALF), protected={"a": "x", "free": "x"}),
        Spec(max_candidates=2),
        kept(Reason.PROTECTED),
    ),
}  # fmt: skip


@pytest.mark.parametrize(("given_state", "spec", "expected"), TABLE.values(), ids=TABLE.keys())
def test_decisions(given_state: State, spec: Spec, expected: tuple[Action, Reason, str]) -> None:
    before = given_state.inventory.digest()
    decision = compaction.decide(spec, given_state, NOW)
    assert verdict(decision) == expected
    assert decision.policy == "compaction"
    assert given_state.inventory.digest() == before
    assert (decision.recheck_s == NOW + 300) is (decision.plan is None)
    backwards = dataclasses.replace(given_state, candidates=given_state.candidates[::-1])
    assert compaction.decide(spec, backwards, NOW) == decision


def test_every_reason_of_this_policy_has_a_row() -> None:
    assert {row[2][1] for row in TABLE.values()} == {
        Reason.NODE_EMPTY,
        Reason.UNDER_USED,
        Reason.NO_CANDIDATE,
        Reason.FROZEN,
        *compaction.SIGNAL_REASONS.values(),
        Reason.CONTROLLER_JUST_STARTED,
        Reason.DRAIN_IN_PROGRESS,
        Reason.PROTECTED,
        Reason.NO_ROOM_ELSEWHERE,
        Reason.HEADROOM_NEEDED,
        Reason.MOVE_BUDGET_SPENT,
        Reason.WOULD_NOT_PAY_BACK,
    }


def test_every_state_of_a_signal_but_valid_has_a_reason() -> None:
    assert set(compaction.SIGNAL_REASONS) == set(SignalState) - {SignalState.VALID}


# What stands in the way, in this order: whoever reads the log sees the strongest reason.
OBSTACLES = [
    ({"frozen": "w"}, Reason.FROZEN),
    ({"signals": SignalState.STALE}, Reason.SIGNAL_STALE),
    ({"started_s": NOW}, Reason.CONTROLLER_JUST_STARTED),
    ({"draining": 1}, Reason.DRAIN_IN_PROGRESS),
]


@pytest.mark.parametrize(("first", "second"), list(itertools.pairwise(range(len(OBSTACLES)))))
def test_of_two_obstacles_the_stronger_is_named(first: int, second: int) -> None:
    both = OBSTACLES[first][0] | OBSTACLES[second][0]
    assert compaction.decide(Spec(settle_s=60), state(*EMPTY, **both), NOW).reason is OBSTACLES[first][1]  # type: ignore[arg-type]


# Evidence and plan ---------------------------------------------------------------------------------------------------


def test_a_compaction_says_where_everything_goes_and_what_it_costs() -> None:
    given_state = state(
        [node("a", 2), node("b", 2), FREE], on("a", HALF, WHOLE) + on("b", HALF, WHOLE, HALF) + on("free", *[WHOLE] * 4)
    )
    decision = compaction.decide(Spec(), gaps(given_state, 500, 500, 500, 500), NOW)
    assert (
        decision.evidence
        == {
            "node": "a",
            "moves": 2,
            "gpus": 2,
            "free_gpus_after": 2,
            "headroom_gpus": 2,
            "payback_s": 225.0,
            "expected_unused_s": 500.0,
            "moves_last_day": 0,
        }
        or decision.evidence["free_gpus_after"] == 1
    )
    assert isinstance(decision.plan, Vacate)
    assert decision.plan.node == "a"
    assert [move.request.id for move in decision.plan.moves] == ["p1", "p0"], "large shares first"
    assert [(step.name, step.value) for step in decision.steps] == [("headroom-gpus", 2), ("a", "chosen")]


def test_a_refusal_names_the_first_node_and_lists_all_that_were_tried() -> None:
    given_state = state(
        [node("a", 1), node("b", 1), FREE],
        on("b", WHOLE) + on("free", *[WHOLE] * 7),
        protected={"a": "ns/p", "free": "x"},
    )
    decision = compaction.decide(Spec(), given_state, NOW)
    assert decision.evidence == {"nodes": 3, "node": "a", "moves": 0, "gpus": 1, "by": "ns/p"}
    assert [(step.name, step.value) for step in decision.steps] == [
        ("headroom-gpus", 2),
        ("a", "Protected"),
        ("b", "HeadroomNeeded"),
        ("free", "Protected"),
    ]


def test_no_room_says_for_whom_and_why() -> None:
    given_state = state([node("a", 4), node("b", 4)], on("a", HUGE) + on("b", WHOLE), only=["a"])
    decision = compaction.decide(Spec(headroom_gpus=0), given_state, NOW)
    assert decision.evidence["pod"] == "p0"
    assert "NotEnoughGpu on 1" in str(decision.evidence["refusal"])


@pytest.mark.parametrize(
    ("seconds", "bought_s", "expected"),
    [
        ((), None, 14_400.0),
        ((1.0, 2.0, 3.0), None, 14_400.0),
        ((1.0, 2.0, 3.0, 4.0), None, 2.5),
        ((1.0, 2.0, 3.0, 4.0, 1e9), None, 3.0),
        ((1e9,) * 4, None, 14_400.0),
        ((1.0,) * 4, NOW - 50, 50.0),
        ((1.0,) * 4, NOW - 1e9, 14_400.0),
    ],
)
def test_the_expected_gap(seconds: tuple[float, ...], bought_s: float | None, expected: float) -> None:
    candidate = Candidate(node="a", gpus=1, gaps_s=seconds, bought_s=bought_s)
    assert compaction.expected_gap_s(Spec(), candidate, NOW) == expected


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("headroom_gpus", -1),
        ("warm_gpus", 1025),
        ("empty_after_s", -1),
        ("max_moves_per_day", -1),
        ("max_draining", 0),
        ("max_candidates", 0),
        ("payback_within_s", 0),
        ("check_every_s", 0),
        ("unheard_of", 1),
    ],
)
def test_a_spec_that_cannot_be_is_refused_by_field(field: str, value: int) -> None:
    with pytest.raises(pydantic.ValidationError, match=field):
        Spec(**{field: value})  # type: ignore[arg-type]


# Any input -----------------------------------------------------------------------------------------------------------

SHAPES = (HALF, WHOLE, Shape(gpus=1, milli=300), Shape(gpus=2), Shape(cpu_milli=3000), Shape(gpus=1, cpu_milli=4000))


@st.composite
def worlds(draw: st.DrawFn) -> State:
    sizes = draw(st.lists(st.sampled_from((0, 1, 2, 4)), min_size=1, max_size=5))
    allocator = Allocator(node(f"n{index}", size) for index, size in enumerate(sizes))
    for index, (shape, where) in enumerate(
        draw(st.lists(st.tuples(st.sampled_from(SHAPES), st.integers(0, len(sizes) - 1)), max_size=8))
    ):
        allocator.place(Request(id=f"p{index}", shape=shape), only={f"n{where}"})
    for name in draw(st.sets(st.sampled_from([known.name for known in allocator.nodes()]), max_size=1)):
        allocator.cordon(name)
    protected = draw(st.dictionaries(st.sampled_from([f"n{index}" for index in range(5)]), st.just("ns/p"), max_size=2))
    return gaps(
        State(
            pool="pool",
            inventory=allocator,
            candidates=candidates(allocator, **protected),
            moves_last_day=draw(st.sampled_from((0, 3))),
            empty_since_s=draw(st.sampled_from((None, None, NOW - 1e6))),
        ),
        *draw(st.sampled_from(((), (200.0,) * 4, (1e5,) * 4))),
    )


SPECS = st.builds(
    Spec,
    moves=st.sampled_from((True, True, False)),
    headroom_gpus=st.integers(0, 3),
    warm_gpus=st.sampled_from((0, 0, 1)),
    max_moves_per_day=st.sampled_from((2, 5, 50)),
)


def whole_free(allocator: Allocator, without: str) -> int:
    """Devices that nobody uses on other nodes in service, counted from the placements."""
    return sum(
        1
        for known in allocator.nodes()
        if known.name != without and not allocator.is_cordoned(known.name)
        for index in range(known.gpus)
        if not any(index in placement.devices for placement in allocator.placements(known.name))
    )


@settings(deadline=None, max_examples=300)
@given(worlds(), SPECS, st.randoms(use_true_random=False))
def test_for_any_input(given_state: State, spec: Spec, shuffle: random.Random) -> None:
    inventory = given_state.inventory
    before, order = inventory.digest(), inventory.placements()
    decision = compaction.decide(spec, given_state, NOW)
    assert (inventory.digest(), inventory.placements()) == (before, order)
    assert compaction.decide(spec, given_state, NOW) == decision
    mixed = list(given_state.candidates)
    shuffle.shuffle(mixed)
    assert compaction.decide(spec, dataclasses.replace(given_state, candidates=tuple(mixed)), NOW) == decision
    if not isinstance(decision.plan, Vacate):
        assert decision.action is Action.NOTHING
        return

    plan = decision.plan
    candidate = next(c for c in given_state.candidates if c.node == plan.node)
    there = {placement.request.id: placement for placement in inventory.placements(plan.node)}
    assert not candidate.protected
    assert {move.request.id: move.request for move in plan.moves} == {key: p.request for key, p in there.items()}
    assert len(plan.moves) == len(there)
    assert spec.moves or not there
    assert not there or given_state.moves_last_day + len(there) <= spec.max_moves_per_day
    # The plan is carried out on a book that knows nothing of the policy: apply refuses whatever does not fit jointly.
    after = Allocator(known for known in inventory.nodes() if known.name != plan.node)
    for placement in inventory.placements():
        if placement.node != plan.node:
            after.apply(placement)
    for move in plan.moves:
        assert not inventory.is_cordoned(move.node)
        after.apply(move)
    for known in after.nodes():
        after.cordon(known.name, inventory.is_cordoned(known.name))
    idle = given_state.empty_since_s is not None
    headroom = spec.warm_gpus if idle else max(spec.headroom_gpus, spec.warm_gpus)
    assert whole_free(after, plan.node) >= headroom
    assert decision.evidence["free_gpus_after"] == whole_free(after, plan.node)


@settings(deadline=None, max_examples=150)
@given(worlds(), SPECS)
def test_an_empty_node_that_nothing_needs_always_goes(given_state: State, spec: Spec) -> None:
    """Nothing else in the pool keeps it, whatever the others look like."""
    long_ago = gaps(given_state)
    decision = compaction.decide(spec, long_ago, NOW)
    idle = given_state.empty_since_s is not None
    headroom = spec.warm_gpus if idle else max(spec.headroom_gpus, spec.warm_gpus)
    spare = [
        c.node
        for c in long_ago.candidates
        if not c.protected
        and not given_state.inventory.placements(c.node)
        and whole_free(given_state.inventory, c.node) >= headroom
    ]
    if spare:
        assert decision.action is Action.REMOVE
        assert decision.subject in spare
