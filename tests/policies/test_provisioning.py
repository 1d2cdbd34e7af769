"""What is bought for the pods that wait: by table with action, reason, offer and evidence; and for any input."""

import dataclasses
import random
from collections.abc import Iterable, Mapping

import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies import provisioning
from policies.decisions import Action, Buy, Decision, Reason
from policies.provisioning import PendingPod, Spec, State
from providers.offers import CapacityType, MachineShape, Offer
from vgpu import Allocator, Device, Node, Placement, Request, Shape

NOW = 1000.0
USD = 1_000_000


def machine(
    gpus: int,
    *,
    model: str = "L4",
    cpu: int | None = None,
    memory: int | None = 64_000,
    gpu_memory: int | None = 24_000,
) -> MachineShape:
    return MachineShape(
        gpu_model=model if gpus else "",
        gpus=gpus,
        gpu_memory_mib=gpu_memory,
        cpu_milli=8000 * max(gpus, 1) if cpu is None else cpu,
        memory_mib=memory,
    )


def offer(
    name: str, usd: float, shape: MachineShape, *, zone: str = "z", capacity: CapacityType = CapacityType.ON_DEMAND
) -> Offer:
    return Offer(
        provider="aws",
        region="r",
        zone=zone,
        instance_type=name,
        capacity_type=capacity,
        shape=shape,
        price_micro_usd=round(usd * USD),
        as_of="2026-05-01",
    )


ONE = offer("one", 1.0, machine(1))
FOUR = offer("four", 3.0, machine(4))
FOUR_DEAR = offer("four", 5.0, machine(4))
EIGHT = offer("eight", 12.0, machine(8))
H100 = offer("h100", 9.0, machine(1, model="H100"))
BARE = offer("bare", 0.2, machine(0))

GPU = Shape(gpus=1, cpu_milli=1000)
GPU4 = Shape(gpus=4, cpu_milli=1000)
CPU = Shape(cpu_milli=1000)
ON_H100 = Shape(gpus=1, models=frozenset({"H100", "H200"}))
IMPOSSIBLE = Shape(gpus=16)


def pods(*shapes: Shape) -> tuple[PendingPod, ...]:
    return tuple(
        PendingPod(request=Request(id=f"p{index}", shape=shape), since_s=NOW - 60 + index)
        for index, shape in enumerate(shapes)
    )


def node(name: str, gpus: int, *, cpu: int = 8000, model: str = "L4") -> Node:
    devices = tuple(Device(uuid=f"{name}/{index}", model=model, memory_mib=24_000) for index in range(gpus))
    return Node(name=name, cpu_milli=cpu, memory_mib=64_000, devices=devices)


def state(
    pending: Iterable[PendingPod],
    offers: Iterable[Offer] = (),
    *,
    nodes: Iterable[Node] = (),
    coming: Iterable[Node] = (),
    cooling: Mapping[str, float] | None = None,
    gpus: int = 0,
    usd: float = 0.0,
) -> State:
    return State(
        pool="pool",
        pending=tuple(pending),
        inventory=Allocator(nodes),
        coming=tuple(coming),
        offers=tuple(offers),
        cooling=cooling or {},
        charged_gpus=gpus,
        charged_micro_usd=round(usd * USD),
    )


def bought(decision: Decision) -> tuple[str, tuple[str, ...]]:
    assert isinstance(decision.plan, Buy)
    return decision.plan.offers[0].instance_type, decision.plan.for_requests


def verdict(decision: Decision) -> tuple[Action, Reason, str, tuple[str, ...] | str]:
    """Action, reason, and what is bought for whom, or whom nothing is bought for."""
    name, whom = bought(decision) if decision.plan else ("", decision.subject)
    return decision.action, decision.reason, name, whom


def verdicts(decisions: Iterable[Decision]) -> list[tuple[Action, Reason, str, tuple[str, ...] | str]]:
    return [verdict(decision) for decision in decisions]


def buys(name: str, *for_requests: str) -> tuple[Action, Reason, str, tuple[str, ...]]:
    return Action.BUY, Reason.PENDING_SHARES, name, for_requests


def nothing(reason: Reason, subject: str = "pool") -> tuple[Action, Reason, str, str]:
    return Action.NOTHING, reason, "", subject


TABLE: dict[str, tuple[State, Spec, list[tuple[Action, Reason, str, tuple[str, ...] | str]]]] = {
    "nothing pending": (state([], [ONE]), Spec(), [nothing(Reason.NOTHING_PENDING)]),
    "fits on a node that exists": (
        state(pods(GPU), [ONE], nodes=[node("a", 1)]),
        Spec(),
        [nothing(Reason.WAITING_FOR_NODE)],
    ),
    "fits on a machine on order": (
        state(pods(GPU, CPU), [ONE], coming=[node("coming/x", 1)]),
        Spec(),
        [nothing(Reason.WAITING_FOR_NODE)],
    ),
    "fits on both together": (
        state(pods(GPU, GPU), [ONE], nodes=[node("a", 1)], coming=[node("coming/x", 1)]),
        Spec(),
        [nothing(Reason.WAITING_FOR_NODE)],
    ),
    "only what is left is bought for": (
        state(pods(GPU, GPU), [ONE, FOUR], nodes=[node("a", 1)]),
        Spec(),
        [buys("one", "p1")],
    ),
    "one GPU": (state(pods(GPU), [ONE, FOUR, EIGHT, BARE]), Spec(), [buys("one", "p0")]),
    "two GPUs on two small machines": (
        state(pods(GPU, GPU), [ONE, FOUR]),
        Spec(),
        [buys("one", "p0"), buys("one", "p1")],
    ),
    "four GPUs on a big machine that is cheaper per GPU": (
        state(pods(GPU, GPU, GPU, GPU), [ONE, FOUR]),
        Spec(),
        [buys("four", "p0", "p1", "p2", "p3")],
    ),
    "four GPUs on small machines that are cheaper per GPU": (
        state(pods(GPU, GPU, GPU, GPU), [ONE, FOUR_DEAR]),
        Spec(),
        [buys("one", f"p{index}") for index in range(4)],
    ),
    "five GPUs: a big machine and a small one": (
        state(pods(GPU, GPU, GPU, GPU, GPU), [ONE, FOUR]),
        Spec(),
        [buys("four", "p0", "p1", "p2", "p3"), buys("one", "p4")],
    ),
    "a pod of four needs the big machine whatever its price": (
        state(pods(GPU4), [ONE, FOUR_DEAR]),
        Spec(),
        [buys("four", "p0")],
    ),
    "shares fill one device": (
        state(pods(*[Shape(gpus=1, milli=250)] * 4), [ONE, FOUR]),
        Spec(),
        [buys("one", "p0", "p1", "p2", "p3")],
    ),
    "GPU work first, CPU work with it where there is room": (
        state(pods(CPU, GPU), [ONE, BARE]),
        Spec(),
        [buys("one", "p1", "p0")],
    ),
    "CPU work never takes the room of GPU work": (
        state(pods(Shape(cpu_milli=8000), Shape(gpus=1, cpu_milli=8000)), [ONE, BARE]),
        Spec(),
        [buys("one", "p1"), buys("bare", "p0")],
    ),
    "CPU work alone on the cheapest per pod": (
        state(pods(CPU, CPU, CPU), [ONE, BARE]),
        Spec(),
        [buys("bare", "p0", "p1", "p2")],
    ),
    "CPU work alone where only GPU machines are on offer": (state(pods(CPU), [ONE, FOUR]), Spec(), [buys("one", "p0")]),
    "CPU work per pod, not per machine": (
        state(pods(*[CPU] * 16), [BARE, offer("fat", 0.3, machine(0, cpu=16_000))]),
        Spec(),
        [buys("fat", *(f"p{index}" for index in (range(16))))],
    ),
    "an impossible class stops nobody": (
        state(pods(IMPOSSIBLE, GPU, IMPOSSIBLE), [ONE]),
        Spec(),
        [*(nothing(Reason.NO_OFFER_FITS, pod) for pod in ("p0", "p2")), buys("one", "p1")],
    ),
    "no offers at all": (state(pods(GPU, CPU)), Spec(), [nothing(Reason.NO_OFFER_FITS, p) for p in ("p0", "p1")]),
    "host memory that nobody said holds no pod that asks for some": (
        state(pods(Shape(gpus=1, memory_mib=1)), [offer("unknown", 1, machine(1, memory=None))]),
        Spec(),
        [nothing(Reason.NO_OFFER_FITS, "p0")],
    ),
    "device memory that nobody said holds no pod that asks for some": (
        state(pods(Shape(gpus=1, milli=100, gpu_memory_mib=1)), [offer("unknown", 1, machine(1, gpu_memory=None))]),
        Spec(),
        [nothing(Reason.NO_OFFER_FITS, "p0")],
    ),
    "an allowed model": (state(pods(ON_H100, GPU), [ONE, H100]), Spec(), [buys("one", "p1"), buys("h100", "p0")]),
    "a model that nobody offers": (
        state(pods(Shape(gpus=1, models=frozenset({"B200"})), GPU), [ONE, H100]),
        Spec(),
        [buys("one", "p1"), nothing(Reason.NO_OFFER_FITS, "p0")],
    ),
    "a cooling offer is passed over": (
        state(pods(GPU), [ONE, FOUR], cooling={ONE.id: NOW + 1}),
        Spec(),
        [buys("four", "p0")],
    ),
    "an offer that has cooled is back": (
        state(pods(GPU), [ONE, FOUR], cooling={ONE.id: NOW}),
        Spec(),
        [buys("one", "p0")],
    ),
    "all that would fit are cooling": (
        state(pods(GPU4), [ONE, FOUR, EIGHT], cooling={FOUR.id: NOW + 60, EIGHT.id: NOW + 30, ONE.id: NOW + 5}),
        Spec(),
        [nothing(Reason.OFFERS_COOLING, "p0")],
    ),
    "what is cooling would not fit either": (
        state(pods(IMPOSSIBLE), [ONE, FOUR], cooling={FOUR.id: NOW + 60}),
        Spec(),
        [nothing(Reason.NO_OFFER_FITS, "p0")],
    ),
    "GPU limit": (state(pods(GPU), [ONE], gpus=8), Spec(max_gpus=8), [nothing(Reason.GPU_LIMIT)]),
    "GPU limit reached within the decision": (
        state(pods(GPU, GPU, GPU), [ONE], gpus=6),
        Spec(max_gpus=8),
        [buys("one", "p0"), buys("one", "p1"), nothing(Reason.GPU_LIMIT)],
    ),
    "GPU limit of zero": (state(pods(GPU), [ONE]), Spec(max_gpus=0), [nothing(Reason.GPU_LIMIT)]),
    "GPU limit that a smaller machine keeps": (
        state(pods(GPU, GPU, GPU, GPU), [ONE, FOUR], gpus=6),
        Spec(max_gpus=8),
        [buys("one", "p0"), buys("one", "p1"), nothing(Reason.GPU_LIMIT)],
    ),
    "GPU limit does not stop CPU work": (
        state(pods(GPU, CPU), [ONE, BARE], gpus=8),
        Spec(max_gpus=8),
        [buys("bare", "p1"), nothing(Reason.GPU_LIMIT)],
    ),
    "spend limit": (
        state(pods(GPU), [ONE], usd=9.5),
        Spec(max_hourly_micro_usd=10 * USD),
        [nothing(Reason.SPEND_LIMIT)],
    ),
    "spend limit reached exactly": (
        state(pods(GPU, GPU), [ONE], usd=9),
        Spec(max_hourly_micro_usd=10 * USD),
        [buys("one", "p0"), nothing(Reason.SPEND_LIMIT)],
    ),
    "spend limit that a smaller machine keeps": (
        state(pods(GPU, GPU, GPU, GPU), [ONE, FOUR], usd=8),
        Spec(max_hourly_micro_usd=10 * USD),
        [buys("one", "p0"), buys("one", "p1"), nothing(Reason.SPEND_LIMIT)],
    ),
    "a limit stops nobody whom nothing on offer could hold": (
        state(pods(IMPOSSIBLE, GPU), [ONE], gpus=8),
        Spec(max_gpus=8),
        [nothing(Reason.NO_OFFER_FITS, "p0"), nothing(Reason.GPU_LIMIT)],
    ),
    "no more purchases than allowed": (
        state(pods(GPU, GPU, GPU), [ONE]),
        Spec(max_purchases=2),
        [buys("one", "p0"), buys("one", "p1")],
    ),
    "equal prices: the offer's id decides": (
        state(pods(GPU), [offer("b", 1, machine(1)), offer("a", 1, machine(1, cpu=9000)), offer("c", 1, machine(1))]),
        Spec(),
        [buys("a", "p0")],
    ),
    "equal price per GPU: the cheaper machine": (
        state(pods(GPU, GPU), [offer("a", 2, machine(2)), offer("b", 1, machine(1))]),
        Spec(),
        [buys("b", "p0"), buys("b", "p1")],
    ),
}


@pytest.mark.parametrize(("given_state", "spec", "expected"), TABLE.values(), ids=TABLE.keys())
def test_decisions(
    given_state: State, spec: Spec, expected: list[tuple[Action, Reason, str, tuple[str, ...] | str]]
) -> None:
    before = given_state.inventory.digest()
    assert verdicts(provisioning.decide(spec, given_state, NOW)) == expected
    assert given_state.inventory.digest() == before
    backwards = dataclasses.replace(given_state, pending=given_state.pending[::-1], offers=given_state.offers[::-1])
    assert verdicts(provisioning.decide(spec, backwards, NOW)) == expected


def test_every_reason_of_this_policy_has_a_row() -> None:
    # PRICE_UNKNOWN: an offer without a price cannot be built.
    reasons = {expected[1] for row in TABLE.values() for expected in row[2]}
    assert reasons == {
        Reason.PENDING_SHARES,
        Reason.NOTHING_PENDING,
        Reason.WAITING_FOR_NODE,
        Reason.NO_OFFER_FITS,
        Reason.OFFERS_COOLING,
        Reason.GPU_LIMIT,
        Reason.SPEND_LIMIT,
    }


# Evidence ------------------------------------------------------------------------------------------------------------


def only(spec: Spec, given_state: State) -> Decision:
    (decision,) = provisioning.decide(spec, given_state, NOW)
    assert decision.policy == "provisioning"
    return decision


def test_a_purchase_says_what_for_and_at_which_price() -> None:
    decision = only(Spec(), state(pods(Shape(gpus=1, milli=400), Shape(gpus=1, milli=300)), [ONE, FOUR, BARE]))
    assert decision.subject == "pool"
    assert decision.evidence == {
        "offer": "aws/z/one/on-demand",
        "usd_per_hour": 1.0,
        "price_as_of": "2026-05-01",
        "pods": 2,
        "pod": "p0",
        "largest": "400 GPU milli, 0 milli-CPU, 0 MiB",
        "gpu_milli": 700,
        "oldest_wait_s": 60.0,
        "fallbacks": 1,
    }
    assert [(step.name, step.value) for step in decision.steps] == [
        ("pending", 2),
        ("placeable-on-nodes-and-machines-on-order", 0),
        ("offers-usable", 3),
        ("shapes-compared", 3),
        ("chosen", "aws/z/one/on-demand"),
    ]
    assert decision.recheck_s is None


def test_waiting_says_for_how_long_and_for_what() -> None:
    decision = only(Spec(), state(pods(GPU), [ONE], coming=[node("coming/x", 1)]))
    assert decision.evidence == {"pending": 1, "machines_on_order": 1, "oldest_wait_s": 60.0}
    assert decision.recheck_s is None


def test_cooling_says_when_to_look_again() -> None:
    cooling = {FOUR.id: NOW + 60, EIGHT.id: NOW + 30, ONE.id: NOW + 5}
    decision = only(Spec(), state(pods(GPU4), [ONE, FOUR, EIGHT], cooling=cooling))
    assert decision.recheck_s == NOW + 30
    assert decision.evidence == {
        "pods": 1,
        "shape": "4 GPU, 1000 milli-CPU, 0 MiB",
        "offers_usable": 0,
        "offers_cooling": 3,
    }


def test_no_offer_says_what_was_looked_for() -> None:
    decisions = provisioning.decide(Spec(), state(pods(IMPOSSIBLE, IMPOSSIBLE), [ONE]), NOW)
    assert [decision.subject for decision in decisions] == ["p0", "p1"], "each pod can be explained"
    for decision in decisions:
        assert (decision.evidence["pods"], decision.evidence["shape"]) == (2, "16 GPU, 0 milli-CPU, 0 MiB")
        assert decision.recheck_s is None


def test_a_limit_says_what_is_charged_and_what_was_refused() -> None:
    decisions = provisioning.decide(Spec(max_gpus=8), state(pods(GPU, GPU), [ONE, FOUR], gpus=7, usd=3), NOW)
    assert decisions[-1].evidence == {
        "pending": 1,
        "charged_gpus": 8,
        "charged_usd_per_hour": 4.0,
        "cheapest_offer": ONE.id,
    }


# Fallbacks -----------------------------------------------------------------------------------------------------------


def fallbacks(spec: Spec, given_state: State) -> list[str]:
    plan = provisioning.decide(spec, given_state, NOW)[0].plan
    assert isinstance(plan, Buy)
    return [fallback.id.split("/", 1)[1] for fallback in plan.offers[1:]]


ZONES = [offer("one", price, machine(1), zone=zone) for zone, price in (("c", 1.2), ("a", 1.0), ("b", 1.1))]
SPOT = offer("one", 1.05, machine(1), zone="a", capacity=CapacityType.SPOT)


@pytest.mark.parametrize(
    ("shapes", "offers", "spec", "expected"),
    [
        pytest.param([GPU], ZONES, Spec(), ["b/one/on-demand", "c/one/on-demand"], id="other zones by price"),
        pytest.param(
            [GPU],
            [*ZONES, SPOT, FOUR, EIGHT, BARE],
            Spec(),
            ["a/one/spot", "b/one/on-demand", "c/one/on-demand", "z/four/on-demand", "z/eight/on-demand"],
            id="then larger machines, never one that holds no GPU",
        ),
        pytest.param([GPU] * 4, [ONE, FOUR, EIGHT], Spec(), ["z/eight/on-demand"], id="only such as hold all the pods"),
        pytest.param([GPU], [ONE, FOUR, EIGHT], Spec(fallbacks=1), ["z/four/on-demand"], id="not more than allowed"),
        pytest.param([GPU], [ONE, FOUR], Spec(fallbacks=0), [], id="none where none are allowed"),
        pytest.param([ON_H100], [ONE, H100, FOUR], Spec(), [], id="none of another model"),
        pytest.param([GPU], [ONE, FOUR, EIGHT], Spec(max_gpus=4), ["z/four/on-demand"], id="none beyond the GPU limit"),
        pytest.param(
            [GPU],
            [ONE, FOUR, EIGHT],
            Spec(max_hourly_micro_usd=3 * USD),
            ["z/four/on-demand"],
            id="none beyond the spend limit",
        ),
    ],
)
def test_fallbacks(shapes: list[Shape], offers: list[Offer], spec: Spec, expected: list[str]) -> None:
    assert fallbacks(spec, state(pods(*shapes), offers)) == expected


def test_fallbacks_do_not_cool() -> None:
    assert fallbacks(Spec(), state(pods(GPU), ZONES, cooling={ZONES[2].id: NOW + 1})) == ["c/one/on-demand"]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("max_gpus", -1),
        ("max_hourly_micro_usd", -1),
        ("fallbacks", -1),
        ("fallbacks", 61),
        ("max_purchases", 0),
        ("x", 1),
    ],
)
def test_a_spec_that_cannot_be_is_refused_by_field(field: str, value: int) -> None:
    with pytest.raises(pydantic.ValidationError, match=field):
        Spec(**{field: value})  # type: ignore[arg-type]


# Any input -----------------------------------------------------------------------------------------------------------

SHAPES = (
    Shape(gpus=1, milli=300, cpu_milli=500),
    Shape(gpus=1, milli=700, gpu_memory_mib=20_000),
    GPU,
    GPU4,
    Shape(gpus=2, memory_mib=40_000),
    CPU,
    Shape(cpu_milli=9000),
    ON_H100,
    IMPOSSIBLE,
)
OFFERS = (
    ONE,
    FOUR,
    EIGHT,
    H100,
    BARE,
    *ZONES,
    SPOT,
    offer("big", 2.0, machine(2)),
    offer("blind", 0.5, machine(1, memory=None)),
)


@st.composite
def worlds(draw: st.DrawFn) -> State:
    shapes = draw(st.lists(st.sampled_from(SHAPES), max_size=12))
    ages = draw(st.lists(st.sampled_from((0.0, 5.0)), min_size=len(shapes), max_size=len(shapes)))
    offers = draw(st.lists(st.sampled_from(OFFERS), unique=True, max_size=8))
    cooling = draw(
        st.dictionaries(st.sampled_from([o.id for o in OFFERS]), st.sampled_from((NOW, NOW + 9)), max_size=4)
    )
    return State(
        pool="pool",
        pending=tuple(
            PendingPod(request=Request(id=f"p{index}", shape=shape), since_s=age)
            for index, (shape, age) in enumerate(zip(shapes, ages, strict=True))
        ),
        inventory=Allocator(
            node(f"n{index}", gpus) for index, gpus in enumerate(draw(st.sampled_from(((), (1,), (0, 4)))))
        ),
        coming=tuple(
            node(f"coming/{index}", gpus) for index, gpus in enumerate(draw(st.sampled_from(((), (1,), (2, 2)))))
        ),
        offers=tuple(offers),
        cooling=cooling,
        charged_gpus=draw(st.sampled_from((0, 3))),
        charged_micro_usd=draw(st.sampled_from((0, 2 * USD))),
    )


SPECS = st.builds(
    Spec,
    max_gpus=st.sampled_from((None, None, 2, 4, 9)),
    max_hourly_micro_usd=st.sampled_from((None, None, USD, 4 * USD, 20 * USD)),
    fallbacks=st.sampled_from((0, 2, 8)),
    max_purchases=st.sampled_from((1, 3, 64)),
)


def holds(candidate: Offer, requests: list[Request]) -> bool:
    return isinstance(Allocator([candidate.shape.node("new")]).place_all(requests), tuple)


@settings(deadline=None, max_examples=200)
@given(worlds(), SPECS, st.randoms(use_true_random=False))
def test_for_any_input(given_state: State, spec: Spec, shuffle: random.Random) -> None:
    before = given_state.inventory.digest()
    decisions = provisioning.decide(spec, given_state, NOW)
    assert decisions
    assert given_state.inventory.digest() == before
    assert provisioning.decide(spec, given_state, NOW) == decisions

    plans = [decision.plan for decision in decisions if isinstance(decision.plan, Buy)]
    waiting = {pod.request.id: pod.request for pod in given_state.pending}
    bought_for = [request_id for plan in plans for request_id in plan.for_requests]
    assert len(bought_for) == len(set(bought_for)), "one pod in two purchases"
    assert set(bought_for) <= set(waiting)
    assert len(plans) <= spec.max_purchases

    gpus, micro_usd = given_state.charged_gpus, given_state.charged_micro_usd
    for plan in plans:
        chosen, *others = plan.offers
        assert plan.for_requests
        # Every offer that could take this purchase: not cooling, within the limits, holding all of its pods.
        could = [
            candidate
            for candidate in given_state.offers
            if given_state.cooling.get(candidate.id, NOW) <= NOW
            and (spec.max_gpus is None or gpus + candidate.shape.gpus <= spec.max_gpus)
            and (
                spec.max_hourly_micro_usd is None or micro_usd + candidate.price_micro_usd <= spec.max_hourly_micro_usd
            )
            and holds(candidate, [waiting[key] for key in plan.for_requests])
        ]
        assert chosen in could
        could.remove(chosen)
        assert others == sorted(could, key=lambda o: (o.price_micro_usd, o.id))[: spec.fallbacks]
        gpus += chosen.shape.gpus
        micro_usd += chosen.price_micro_usd

    mixed = list(given_state.pending)
    shuffle.shuffle(mixed)
    assert provisioning.decide(spec, dataclasses.replace(given_state, pending=tuple(mixed)), NOW) == decisions


@settings(deadline=None, max_examples=100)
@given(worlds())
def test_nobody_is_forgotten(given_state: State) -> None:
    """Without limits, every pod has a place on what is there or coming, in a purchase, or a reason of its own."""
    decisions = provisioning.decide(Spec(max_purchases=1000), given_state, NOW)
    bought_for = {key for d in decisions if isinstance(d.plan, Buy) for key in d.plan.for_requests}
    unhelped = {
        given_state.pending[index].request.shape
        for index, pod in enumerate(given_state.pending)
        for d in decisions
        if d.reason in (Reason.NO_OFFER_FITS, Reason.OFFERS_COOLING) and d.subject == pod.request.id
    }
    rest = [
        pod for pod in given_state.pending if pod.request.id not in bought_for and pod.request.shape not in unhelped
    ]
    allocator = given_state.inventory
    with allocator.overlay():
        for machine_on_order in given_state.coming:
            allocator.add_node(machine_on_order)
        # In the policy's own order: large shapes first.
        ordered = sorted(rest, key=lambda pod: (-pod.request.shape.gpus, -pod.request.shape.gpu_milli))
        placed = [allocator.place(pod.request) for pod in ordered]
    assert all(isinstance(outcome, Placement) for outcome in placed)
