"""The book of who holds what: assumed, committed, released, expired, rebuilt; and what it refuses."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vgpu import Device, Ledger, Node, Placement, Refusal, Request, Shape

WHOLE = Shape(gpus=1)
HALF = Shape(gpus=1, milli=500)


def node(name: str, gpus: int = 2, *, cpu: int = 8000) -> Node:
    devices = tuple(Device(uuid=f"{name}/{index}", model="L4", memory_mib=24_000) for index in range(gpus))
    return Node(name=name, cpu_milli=cpu, memory_mib=8192, devices=devices)


def record(request_id: str, on: str, *devices: int, shape: Shape = WHOLE) -> Placement:
    return Placement(request=Request(id=request_id, shape=shape), node=on, devices=devices)


def closed(ledger: Ledger) -> set[str]:
    return {known.name for known in ledger.allocator.nodes() if ledger.allocator.is_cordoned(known.name)}


def assume(ledger: Ledger, request_id: str, shape: Shape = WHOLE, *, ttl_s: float = 60) -> Placement:
    outcome = ledger.assume(Request(id=request_id, shape=shape), now=100.0, ttl_s=ttl_s)
    assert isinstance(outcome, Placement)
    return outcome


# Hoped for and known -----------------------------------------------------------------------------------------------


def test_an_assumption_holds_its_place_until_its_deadline() -> None:
    ledger = Ledger([node("a", 1)])
    empty = ledger.allocator.digest()
    assume(ledger, "p", ttl_s=60)
    assert isinstance(ledger.assume(Request(id="q", shape=WHOLE), now=100.0, ttl_s=60), Refusal)
    assert [entry.placement.request.id for entry in ledger.assumed()] == ["p"]
    assert ledger.expire(159.9) == ()
    assert ledger.expire(160.0) == ("p",)
    assert ledger.assumed() == ()
    assert ledger.allocator.digest() == empty


def test_late_assumptions_are_named_in_order() -> None:
    ledger = Ledger([node("a", 4)])
    for request_id, ttl_s in (("c", 1), ("a", 2), ("b", 3), ("d", 99)):
        assume(ledger, request_id, ttl_s=ttl_s)
    assert ledger.expire(110.0) == ("a", "b", "c")
    assert [entry.placement.request.id for entry in ledger.assumed()] == ["d"]


def test_a_refused_assumption_leaves_no_trace() -> None:
    ledger = Ledger([node("a", 1)])
    empty = ledger.allocator.digest()
    assert isinstance(ledger.assume(Request(id="p", shape=Shape(gpus=2)), now=0.0, ttl_s=9), Refusal)
    assert (ledger.assumed(), ledger.allocator.digest()) == ((), empty)


def test_a_commit_ends_the_deadline() -> None:
    ledger = Ledger([node("a", 1)])
    placement = assume(ledger, "p")
    assert ledger.commit(placement)
    assert ledger.assumed() == ()
    assert ledger.expire(1e9) == ()
    assert ledger.allocator.placement("p") == placement


def test_the_fact_outranks_the_assumption_of_the_same_request() -> None:
    ledger = Ledger([node("a", 2), node("b", 2)])
    assert assume(ledger, "p").node == "a"
    assert ledger.commit(record("p", "b", 1))
    assert ledger.allocator.placements("a") == ()
    assert ledger.allocator.placement("p") == record("p", "b", 1)


def test_the_fact_outranks_the_assumption_of_another_request() -> None:
    """A hope in the way of a fact gives up its place; the node is accounted for and stays open."""
    ledger = Ledger([node("a", 1)])
    assume(ledger, "hope")
    assert ledger.commit(record("fact", "a", 0))
    assert ledger.assumed() == ()
    assert ledger.refused == {}
    assert closed(ledger) == set()
    assert ledger.allocator.placements() == (record("fact", "a", 0),)


def test_an_assumption_that_is_not_in_the_way_survives_a_clash() -> None:
    ledger = Ledger([node("a", 3)])
    assert assume(ledger, "hope").devices == (0,)
    ledger.commit(record("x", "a", 1))
    assert not ledger.commit(record("y", "a", 1))
    assert [entry.placement.request.id for entry in ledger.assumed()] == ["hope"]
    assert ledger.allocator.placement("hope") is not None


def test_release_is_for_everything_and_for_nothing() -> None:
    ledger = Ledger([node("a", 2)])
    empty = ledger.allocator.digest()
    assume(ledger, "p")
    ledger.commit(record("q", "a", 1))
    for request_id in ("p", "q", "never heard of"):
        ledger.release(request_id)
    assert (ledger.assumed(), ledger.allocator.digest()) == ((), empty)


def test_committing_twice_is_once() -> None:
    ledger = Ledger([node("a", 1)])
    assert ledger.commit(record("p", "a", 0))
    once = ledger.allocator.digest()
    assert ledger.commit(record("p", "a", 0))
    assert ledger.allocator.digest() == once


def test_a_record_that_moved_gives_up_its_old_place() -> None:
    ledger = Ledger([node("a", 1), node("b", 1)])
    ledger.commit(record("p", "a", 0))
    assert ledger.commit(record("p", "b", 0))
    assert ledger.allocator.whole_free("a") == 1
    assert ledger.allocator.whole_free("b") == 0


# What does not add up ------------------------------------------------------------------------------------------------

THERE = record("there", "a", 0, shape=Shape(gpus=1, milli=600, gpu_memory_mib=20_000))

WRONG: dict[str, tuple[Placement, str]] = {
    "device out of range": (record("zz", "a", 2), "node 'a' has no device 2"),
    "negative device": (record("zz", "a", -1), "node 'a' has no device -1"),
    "over the compute": (record("zz", "a", 0, shape=HALF), "device 0 of 'a' has 400 milli left of the 500 recorded"),
    "over the device memory": (
        record("zz", "a", 0, shape=Shape(gpus=1, milli=1, gpu_memory_mib=5000)),
        "device 0 of 'a' has 4000 MiB left of the 5000 recorded",
    ),
    "over the CPU": (record("zz", "a", shape=Shape(cpu_milli=9000)), "has 8000 milli-CPU"),
    "over the memory": (record("zz", "a", shape=Shape(memory_mib=9000)), "8192 MiB left"),
    "too few devices": (record("zz", "a", 1, shape=Shape(gpus=2)), "devices [1] recorded for a request of 2"),
    "too many devices": (record("zz", "a", 0, 1), "devices [0, 1] recorded for a request of 1"),
    "one device twice": (record("zz", "a", 1, 1, shape=Shape(gpus=2)), "devices [1, 1] recorded for a request of 2"),
}


@pytest.mark.parametrize(("wrong", "why"), WRONG.values(), ids=WRONG.keys())
def test_a_wrong_record_closes_its_node_until_it_is_released(wrong: Placement, why: str) -> None:
    ledger = Ledger.rebuild([node("a"), node("b")], [wrong, THERE])
    assert set(ledger.refused) == {"zz"}
    assert ledger.refused["zz"].node == "a"
    assert ledger.refused["zz"].why.startswith("allocation of 'zz': ")
    assert why in ledger.refused["zz"].why
    assert closed(ledger) == {"a"}
    assert ledger.allocator.placements() == (THERE,)
    assert assume(ledger, "new").node == "b"
    ledger.release("zz")
    assert ledger.refused == {}
    assert closed(ledger) == set()


@pytest.mark.parametrize(("wrong", "why"), WRONG.values(), ids=WRONG.keys())
@pytest.mark.parametrize("corrected", [record("zz", "a", 1), record("zz", "b", 0)], ids=["same node", "other node"])
def test_a_wrong_record_closes_its_node_until_it_is_corrected(wrong: Placement, why: str, corrected: Placement) -> None:
    ledger = Ledger.rebuild([node("a"), node("b")], [THERE, wrong])
    assert closed(ledger) == {"a"}
    assert ledger.commit(corrected)
    assert ledger.refused == {}
    assert closed(ledger) == set()
    assert ledger.allocator.placement("zz") == corrected


def test_a_wrong_record_that_moves_to_another_node_takes_its_closure_along() -> None:
    ledger = Ledger([node("a"), node("b")])
    assert not ledger.commit(record("p", "a", 7))
    assert not ledger.commit(record("p", "b", 7))
    assert closed(ledger) == {"b"}


def test_a_record_on_an_unknown_node_is_kept_by_name() -> None:
    ledger = Ledger.rebuild([node("a")], [record("p", "gone", 0), record("q", "a", 0)])
    assert ledger.refused["p"].why == "allocation of 'p': node 'gone' is not in the inventory"
    assert closed(ledger) == set()
    assert ledger.allocator.placements() == (record("q", "a", 0),)


def test_a_request_recorded_twice_is_refused_by_name() -> None:
    """One request sits in one place. Which of two records is right cannot be known: the second node stays closed."""
    ledger = Ledger.rebuild([node("a"), node("b")], [record("p", "a", 0), record("p", "b", 0)])
    assert ledger.refused["p"].why == "allocation of 'p': recorded twice (also on a)"
    assert closed(ledger) == {"b"}
    ledger.release("p")
    assert (ledger.refused, closed(ledger), ledger.allocator.placements()) == ({}, set(), ())


def test_a_request_recorded_twice_beside_another_clash() -> None:
    records = [record("p", "a", 0), record("p", "b", 0), record("q", "a", 0)]
    ledger = Ledger.rebuild([node("a"), node("b")], records)
    assert {request_id: refused.node for request_id, refused in ledger.refused.items()} == {"p": "b", "q": "a"}
    assert closed(ledger) == {"a", "b"}
    ledger.release("q")
    assert closed(ledger) == {"b"}
    ledger.release("p")
    assert (ledger.refused, closed(ledger)) == ({}, set())


def test_the_record_that_counted_may_turn_out_wrong_as_well() -> None:
    records = [record("p", "a", 0), record("p", "b", 0), record("o", "a", 0)]
    ledger = Ledger.rebuild([node("a"), node("b")], records)
    assert ledger.allocator.placement("o") == records[2]
    assert closed(ledger) == {refused.node for refused in ledger.refused.values()}
    ledger.release("p")
    assert (ledger.refused, closed(ledger)) == ({}, set())


def test_the_same_record_listed_twice_is_fine() -> None:
    ledger = Ledger.rebuild([node("a")], [record("p", "a", 0)] * 2)
    assert ledger.refused == {}


def test_a_node_with_two_wrong_records_opens_after_both_are_gone() -> None:
    ledger = Ledger.rebuild([node("a")], [record("p", "a", 7), record("q", "a", 8)])
    ledger.release("p")
    assert closed(ledger) == {"a"}
    ledger.release("q")
    assert closed(ledger) == set()


def test_a_clash_is_over_when_the_other_side_is_gone() -> None:
    """What was refused for lack of room is entered as soon as the room is there, and the node opens."""
    ledger = Ledger.rebuild([node("a", 1)], [record("p", "a", 0), record("q", "a", 0)])
    assert set(ledger.refused) == {"q"}
    ledger.release("p")
    assert ledger.refused == {}
    assert closed(ledger) == set()
    assert ledger.allocator.placements() == (record("q", "a", 0),)


def test_a_closed_node_stays_closed_whatever_its_records_do() -> None:
    ledger = Ledger([node("a")])
    ledger.cordon("a")
    ledger.commit(record("p", "a", 7))
    ledger.release("p")
    assert closed(ledger) == {"a"}
    ledger.commit(record("p", "a", 7))
    ledger.cordon("a", cordoned=False)
    assert closed(ledger) == {"a"}
    ledger.release("p")
    assert closed(ledger) == set()


def test_a_node_taken_out_takes_its_wrong_records_and_hopes_along() -> None:
    ledger = Ledger([node("a")])
    assume(ledger, "hope")
    ledger.commit(record("p", "a", 1))
    ledger.commit(record("q", "a", 7))
    assert set(ledger.remove_node("a")) == {record("hope", "a", 0), record("p", "a", 1)}
    assert (ledger.refused, ledger.assumed(), ledger.allocator.nodes()) == ({}, (), ())
    ledger.allocator.add_node(node("a"))
    assert closed(ledger) == set()


# Whatever happened before --------------------------------------------------------------------------------------------

IDS = ("p", "q", "r", "s")
RECORDS = st.builds(
    Placement,
    request=st.builds(
        Request,
        id=st.sampled_from(IDS),
        shape=st.sampled_from((WHOLE, HALF, Shape(gpus=2), Shape(cpu_milli=5000), Shape(gpus=1, milli=300))),
    ),
    node=st.sampled_from(("a", "b", "gone")),
    devices=st.sampled_from(((), (0,), (1,), (0, 1), (2,))),
)
STEPS = st.lists(st.one_of(RECORDS, st.sampled_from(IDS), st.tuples(st.sampled_from(IDS), st.just(HALF))), max_size=14)


def nodes() -> list[Node]:
    return [node("a", 2), node("b", 1)]


@given(STEPS)
def test_the_book_depends_on_the_records_and_not_on_the_way_to_them(
    steps: list[Placement | str | tuple[str, Shape]],
) -> None:
    ledger, known = Ledger(nodes()), dict[str, Placement]()
    for step in steps:
        match step:
            case Placement():
                known[step.request.id] = step
                accepted = ledger.commit(step)
                assert accepted is (step.request.id not in ledger.refused)
            case str():
                known.pop(step, None)
                ledger.release(step)
            case (request_id, shape):
                if request_id not in known and ledger.allocator.placement(request_id) is None:
                    ledger.assume(Request(id=request_id, shape=shape), now=0.0, ttl_s=10)
        hoped = {entry.placement.request.id for entry in ledger.assumed()}
        held = {placement.request.id for placement in ledger.allocator.placements()}
        assert held == hoped | (set(known) - set(ledger.refused))
        assert closed(ledger) == {refused.node for refused in ledger.refused.values()} - {"gone"}
    ledger.expire(10.0)
    for order in itertools.islice(itertools.permutations(known.values()), 6):
        fresh = Ledger.rebuild(nodes(), order)
        assert fresh.allocator.digest() == ledger.allocator.digest()
        assert fresh.refused == ledger.refused
