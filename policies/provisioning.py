"""Which machines to buy for the pods that no node can hold.

Pods are planned as classes of equal shape, GPU pods first (a CPU pod must never take the room that a GPU pod was bought
for). First onto the nodes that exist and those that are on their way; what is left buys. For the leading class every
machine shape on offer is packed with everything that is left, and the cheapest per packed GPU wins (per packed pod
where the class asks for no GPU). Equal prices are decided by offer id, so that the same input gives the same plan.

A purchase lists further offers that would hold the same pods, cheapest first: the engine walks them when the market
says no. Limits are charged with everything that is bought or on its way, so that they cannot be overshot. A limit that
refuses the best machine leaves those that keep it, and stops nobody else.
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

import pydantic

from policies.decisions import Action, Buy, Decision, Evidence, Reason, Step
from providers.offers import MachineShape, Offer
from vgpu.allocator import Allocator, Refusal
from vgpu.inventory import Node, Request, Shape

NAME = "provisioning"

_NEW = "new"


class Spec(pydantic.BaseModel):
    """What may be bought for a pool."""

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid")

    max_gpus: int | None = pydantic.Field(default=None, ge=0, description="Most GPUs bought at once; unset: no limit.")
    max_hourly_micro_usd: int | None = pydantic.Field(
        default=None, ge=0, description="Most micro US dollars per hour committed at once; unset: no limit."
    )
    architectures: tuple[str, ...] = pydantic.Field(
        default=("amd64",), min_length=1, description="Processor architectures that the pool's images run on."
    )
    fallbacks: int = pydantic.Field(
        default=8, ge=0, le=60, description="Further offers that one purchase may fail over to."
    )
    max_purchases: int = pydantic.Field(
        default=64,
        ge=1,
        le=1000,
        description="Most machines bought by one decision; the rest follows in the next cycle.",
    )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class PendingPod:
    request: Request
    since_s: float


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """What the decision depends on."""

    pool: str
    pending: tuple[PendingPod, ...]
    """Pods without a node, oldest first."""
    inventory: Allocator
    """Nodes in service with what they hold; changed only inside an overlay that is undone."""
    coming: tuple[Node, ...] = ()
    """Nodes that were bought and are not in service yet."""
    offers: tuple[Offer, ...] = ()
    cooling: Mapping[str, float] = dataclasses.field(default_factory=dict[str, float])
    """Offer id to the time until which it is not tried."""
    charged_gpus: int = 0
    charged_micro_usd: int = 0


def decide(spec: Spec, state: State, now: float) -> tuple[Decision, ...]:
    """One decision per machine to buy, one per pod that nothing on offer holds, or one that says why nothing is
    bought.
    """
    if not state.pending:
        return (_nothing(state, Reason.NOTHING_PENDING, {}),)
    steps = [Step(name="pending", value=len(state.pending))]
    queue = sorted(state.pending, key=_gpu_first)
    left = _place_on_known(state, queue)
    steps.append(Step(name="placeable-on-nodes-and-machines-on-order", value=len(queue) - len(left)))
    if not left:
        evidence: dict[str, Evidence] = {
            "pending": len(state.pending),
            "machines_on_order": len(state.coming),
            "oldest_wait_s": round(now - min(pod.since_s for pod in state.pending), 3),
        }
        return (_nothing(state, Reason.WAITING_FOR_NODE, evidence, steps),)
    state = dataclasses.replace(
        state, offers=tuple(offer for offer in state.offers if offer.shape.arch in spec.architectures)
    )
    usable = [offer for offer in state.offers if state.cooling.get(offer.id, now) <= now]
    steps.append(Step(name="offers-usable", value=len(usable)))
    return tuple(_purchases(spec, state, left, usable=usable, steps=steps, now=now))


def _gpu_first(pod: PendingPod) -> tuple[int, int, int, int, float, str]:
    shape = pod.request.shape
    return (-shape.gpus, -shape.gpu_milli, -shape.cpu_milli, -shape.memory_mib, pod.since_s, pod.request.id)


def _place_on_known(state: State, queue: Sequence[PendingPod]) -> list[PendingPod]:
    """The pods that neither the nodes in service nor the machines on order can hold."""
    left: list[PendingPod] = []
    hopeless: set[Shape] = set()
    with state.inventory.overlay():
        for node in state.coming:
            state.inventory.add_node(node)
        for pod in queue:
            shape = pod.request.shape
            if shape in hopeless or isinstance(state.inventory.place(pod.request), Refusal):
                hopeless.add(shape)
                left.append(pod)
    return left


def _purchases(
    spec: Spec, state: State, left: list[PendingPod], *, usable: Sequence[Offer], steps: list[Step], now: float
) -> Iterable[Decision]:
    by_shape = _by_shape(usable)
    gpus, micro_usd, bought = state.charged_gpus, state.charged_micro_usd, 0
    held_back, refused, refused_offer = 0, None, ""
    while left and bought < spec.max_purchases:
        leader = left[0].request
        within = _within(spec, by_shape, gpus, micro_usd)
        choice = _cheapest(within, left)
        if choice is None:
            same = [pod for pod in left if pod.request.shape == leader.shape]
            unlimited = _cheapest(by_shape, left)
            if unlimited is None:
                yield from _unhelped(state, same, usable, steps, now)
            else:
                held_back += len(same)
                refused_offer = refused_offer or unlimited[0].id
                refused = refused or _over_limit(spec, unlimited[0], gpus, micro_usd)
            left = [pod for pod in left if pod.request.shape != leader.shape]
            continue
        offer, packed = choice
        fallbacks = _fallbacks(within, offer, packed, spec.fallbacks)
        # Charged with the dearest that the purchase may fail over to, as the claim will be while it may.
        gpus += max(possible.shape.gpus for possible in (offer, *fallbacks))
        micro_usd += max(possible.price_micro_usd for possible in (offer, *fallbacks))
        bought += 1
        names = {pod.request.id for pod in packed}
        yield Decision(
            policy=NAME,
            action=Action.BUY,
            subject=state.pool,
            reason=Reason.PENDING_SHARES,
            evidence={
                "offer": offer.id,
                "usd_per_hour": offer.price_micro_usd / 1e6,
                "price_as_of": offer.as_of,
                "pods": len(packed),
                "pod": packed[0].request.id,
                "largest": leader.shape.describe(),
                "gpu_milli": sum(pod.request.shape.gpu_milli for pod in packed),
                "oldest_wait_s": round(now - min(pod.since_s for pod in packed), 3),
                "fallbacks": len(fallbacks),
            },
            steps=(*steps, Step(name="shapes-compared", value=len(by_shape)), Step(name="chosen", value=offer.id)),
            plan=Buy(offers=(offer, *fallbacks), for_requests=tuple(pod.request.id for pod in packed)),
        )
        left = [pod for pod in left if pod.request.id not in names]
    if refused is not None:
        evidence: dict[str, Evidence] = {
            "pending": held_back,
            "charged_gpus": gpus,
            "charged_usd_per_hour": micro_usd / 1e6,
            "cheapest_offer": refused_offer,
        }
        yield _nothing(state, refused, evidence, steps)


def _by_shape(offers: Iterable[Offer]) -> dict[MachineShape, list[Offer]]:
    """Offers of one machine shape, cheapest first: they differ in price and place, not in what they hold."""
    groups: dict[MachineShape, list[Offer]] = {}
    for offer in sorted(offers, key=lambda offer: (offer.price_micro_usd, offer.id)):
        groups.setdefault(offer.shape, []).append(offer)
    return groups


def _pack(shape: MachineShape, pods: Sequence[PendingPod]) -> list[PendingPod]:
    """The pods that one machine of ``shape`` holds, taken in order."""
    packed: list[PendingPod] = []
    hopeless = {pod.request.shape for pod in pods if not _may_hold(shape, pod.request.shape)}
    if len(hopeless) == len(pods):
        return packed
    machine = Allocator([shape.node(_NEW)])
    for pod in pods:
        if pod.request.shape in hopeless:
            continue
        if isinstance(machine.place(pod.request), Refusal):
            hopeless.add(pod.request.shape)
        else:
            packed.append(pod)
    return packed


def _may_hold(machine: MachineShape, wanted: Shape) -> bool:
    """A cheap look before the real one: False when even an empty machine certainly cannot hold the pod."""
    return (
        machine.gpus >= wanted.gpus
        and machine.cpu_milli >= wanted.cpu_milli
        and (machine.memory_mib or 0) >= wanted.memory_mib
        and (wanted.gpus == 0 or machine.gpu_milli >= wanted.milli)
        and (wanted.gpus == 0 or not wanted.models or machine.gpu_model in wanted.models)
    )


def _cheapest(
    by_shape: Mapping[MachineShape, Sequence[Offer]], left: Sequence[PendingPod]
) -> tuple[Offer, list[PendingPod]] | None:
    """The offer with the lowest price per packed GPU (or pod) among those that hold the leading pod."""
    best: tuple[float, int, str] | None = None
    choice: tuple[Offer, list[PendingPod]] | None = None
    leader = left[0].request.shape
    for shape, offers in by_shape.items():
        if not _may_hold(shape, leader):
            continue
        offer = offers[0]
        packed = _pack(shape, left)
        if not packed or packed[0].request.id != left[0].request.id:
            continue
        served = sum(pod.request.shape.gpu_milli for pod in packed) if leader.gpus else len(packed)
        key = (offer.price_micro_usd / served, offer.price_micro_usd, offer.id)
        if best is None or key < best:
            best, choice = key, (offer, packed)
    return choice


def _fallbacks(
    by_shape: Mapping[MachineShape, Sequence[Offer]], chosen: Offer, packed: Sequence[PendingPod], most: int
) -> tuple[Offer, ...]:
    """Other offers that hold the same pods, cheapest first."""
    if most == 0:
        return ()
    others = [offer for offer in by_shape[chosen.shape] if offer.id != chosen.id]
    for shape, offers in by_shape.items():
        # Shapes come cheapest first: once there are enough, a dearer shape cannot displace any of them.
        if len(others) >= most and offers[0].price_micro_usd > others[-1].price_micro_usd:
            break
        if shape != chosen.shape and len(_pack(shape, packed)) == len(packed):
            others = sorted((*others, *offers), key=lambda offer: (offer.price_micro_usd, offer.id))[:most]
    return tuple(others[:most])


def _within(
    spec: Spec, by_shape: Mapping[MachineShape, Sequence[Offer]], gpus: int, micro_usd: int
) -> Mapping[MachineShape, Sequence[Offer]]:
    """The offers that keep the limits beside what is charged already."""
    if spec.max_gpus is None and spec.max_hourly_micro_usd is None:
        return by_shape
    kept = {
        shape: [offer for offer in offers if _over_limit(spec, offer, gpus, micro_usd) is None]
        for shape, offers in by_shape.items()
    }
    # A limit takes a shape's dearest offers first, so the shapes stay in the order of their cheapest.
    return {shape: offers for shape, offers in kept.items() if offers}


def _over_limit(spec: Spec, offer: Offer, gpus: int, micro_usd: int) -> Reason | None:
    if spec.max_gpus is not None and gpus + offer.shape.gpus > spec.max_gpus:
        return Reason.GPU_LIMIT
    if spec.max_hourly_micro_usd is not None and micro_usd + offer.price_micro_usd > spec.max_hourly_micro_usd:
        return Reason.SPEND_LIMIT
    return None


def _unhelped(
    state: State, pods: Sequence[PendingPod], usable: Sequence[Offer], steps: Sequence[Step], now: float
) -> Iterable[Decision]:
    """Nothing on offer holds these pods (one class): because the offers that would are cooling, which is said once for
    all of them, or because none exists, which is said of each.
    """
    cooling = [offer for offer in state.offers if state.cooling.get(offer.id, now) > now]
    would_fit = [offer for offer in cooling if _pack(offer.shape, pods[:1])]
    evidence: dict[str, Evidence] = {
        "pods": len(pods),
        "shape": pods[0].request.shape.describe(),
        "offers_usable": len(usable),
        "offers_cooling": len(cooling),
    }
    for pod in pods[:1] if would_fit else pods:
        yield Decision(
            policy=NAME,
            action=Action.NOTHING,
            subject=pod.request.id,
            reason=Reason.OFFERS_COOLING if would_fit else Reason.NO_OFFER_FITS,
            evidence=evidence,
            steps=tuple(steps),
            recheck_s=min((state.cooling[offer.id] for offer in would_fit), default=None),
        )


def _nothing(state: State, reason: Reason, evidence: Mapping[str, Evidence], steps: Sequence[Step] = ()) -> Decision:
    return Decision(
        policy=NAME,
        action=Action.NOTHING,
        subject=state.pool,
        reason=reason,
        evidence=evidence,
        steps=tuple(steps),
    )
