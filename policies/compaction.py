"""Which node to give back: an empty one, or one whose pods all fit elsewhere.

The rule (measured in ``benchmarks/README.md``): look at the nodes in the order of how few moves empty them. A node
may go only when

* all its pods fit jointly on the other nodes in service (a what-if on the same allocator that places pods),
* at least ``headroom_gpus`` wholly free GPUs stay on the others afterwards: without this the room that was removed is
  bought again minutes later, and launches and waits multiply,
* the moves are within the budget of the last 24 hours,
* it pays back: the cost of the moves and of the boot that a later purchase will need, in GPU-seconds, is earned back by
  the GPUs given back before they are likely to be needed again.

A pool in which nothing has run for ``empty_after_s`` needs no headroom and goes to ``warm_gpus``. Nothing is moved
while the pool's signals are stale, absent, invalid or unreachable: missing data never takes capacity away from anybody.
"""

import dataclasses
import statistics
from collections.abc import Mapping, Sequence

import pydantic

from policies.decisions import Action, Decision, Evidence, Reason, Step, Vacate
from policies.signals import SignalState
from vgpu.allocator import Allocator, Refusal
from vgpu.inventory import WHOLE, Placement

NAME = "compaction"

_SAMPLES = 4
"""Fewest past gaps between giving back and buying again from which an expectation is drawn."""

SIGNAL_REASONS = {
    SignalState.STALE: Reason.SIGNAL_STALE,
    SignalState.ABSENT: Reason.SIGNAL_ABSENT,
    SignalState.INVALID: Reason.SIGNAL_INVALID,
    SignalState.UNREACHABLE: Reason.SIGNAL_UNREACHABLE,
}


class Spec(pydantic.BaseModel):
    """How a pool gives nodes back."""

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid")

    moves: bool = pydantic.Field(default=True, description="Whether pods may be moved; off: only empty nodes go.")
    headroom_gpus: int = pydantic.Field(
        default=2, ge=0, le=1024, description="Wholly free GPUs that must stay on the other nodes."
    )
    warm_gpus: int = pydantic.Field(default=0, ge=0, le=1024, description="Free GPUs kept even when nothing runs.")
    empty_after_s: float = pydantic.Field(
        default=600, ge=0, description="Seconds without any pod after which headroom is given up."
    )
    max_moves_per_day: int = pydantic.Field(default=50, ge=0, description="Most pods moved in any 24 hours.")
    max_draining: int = pydantic.Field(default=1, ge=1, description="Most nodes emptied at one time.")
    max_candidates: int = pydantic.Field(default=32, ge=1, description="Most nodes for which a what-if is tried.")
    hold_s: float = pydantic.Field(
        default=60, ge=0, description="Seconds for which a moved pod holds both places; the cost of a move."
    )
    boot_s: float = pydantic.Field(
        default=180, ge=0, description="Seconds a bought machine is billed before it serves; the cost of buying again."
    )
    payback_within_s: float = pydantic.Field(
        default=14_400, gt=0, description="A node given back must earn back its cost within this many seconds."
    )
    check_every_s: float = pydantic.Field(default=300, gt=0, description="Seconds between two looks without an event.")
    settle_s: float = pydantic.Field(
        default=300, ge=0, description="Seconds after its start in which a new controller moves and removes nothing."
    )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One node in service that could be given back."""

    node: str
    gpus: int
    protected: str = ""
    """Why the node or one of its pods must stay; empty when it may go."""
    gaps_s: tuple[float, ...] = ()
    """Past gaps between giving back a machine of this type and buying the next one, seconds, oldest first."""
    bought_s: float | None = None
    """When a machine of this type was last bought; None where nobody remembers."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class State:
    pool: str
    inventory: Allocator
    """Nodes in service with what they hold; changed only inside an overlay that is undone."""
    candidates: tuple[Candidate, ...]
    draining: int = 0
    moves_last_day: int = 0
    empty_since_s: float | None = None
    """Since when no pod runs or waits in the pool; None while one does."""
    signals: SignalState | None = None
    """State of the pool's metrics; None where the pool was configured without any."""
    frozen: str = ""
    """Name of the freeze window that forbids disruption now; empty for none."""
    started_s: float = 0.0
    """When this controller began to observe."""


def decide(spec: Spec, state: State, now: float) -> Decision:
    """The node to give back now with its moves, or why none."""
    recheck = now + spec.check_every_s
    blocked = _blocked(spec, state, now)
    if blocked is not None:
        return _nothing(state, blocked, {}, (), recheck)
    ranked = sorted(state.candidates, key=lambda candidate: _effort(state.inventory, candidate))
    if not ranked:
        return _nothing(state, Reason.NO_CANDIDATE, {"nodes": 0}, (), recheck)
    headroom = _headroom(spec, state, now)
    refusal: tuple[Reason, dict[str, Evidence]] | None = None
    free = _whole_free(state.inventory)
    steps: list[Step] = [Step(name="headroom-gpus", value=headroom)]
    for candidate in ranked[: spec.max_candidates]:
        verdict = _try(spec, state, candidate, headroom=headroom, free=free, now=now)
        if isinstance(verdict, Decision):
            return dataclasses.replace(verdict, steps=(*steps, *verdict.steps))
        steps.append(Step(name=candidate.node, value=verdict[0].value))
        refusal = refusal or verdict
    assert refusal is not None
    return _nothing(state, refusal[0], {"nodes": len(ranked), **refusal[1]}, steps, recheck)


def _blocked(spec: Spec, state: State, now: float) -> Reason | None:
    """Why nothing may be disrupted now, whatever the nodes look like."""
    if state.frozen:
        return Reason.FROZEN
    if state.signals is not None and state.signals is not SignalState.VALID:
        return SIGNAL_REASONS[state.signals]
    if now - state.started_s < spec.settle_s:
        return Reason.CONTROLLER_JUST_STARTED
    if state.draining >= spec.max_draining:
        return Reason.DRAIN_IN_PROGRESS
    return None


def _headroom(spec: Spec, state: State, now: float) -> int:
    idle = state.empty_since_s is not None and now - state.empty_since_s >= spec.empty_after_s
    return spec.warm_gpus if idle else max(spec.headroom_gpus, spec.warm_gpus)


def _effort(inventory: Allocator, candidate: Candidate) -> tuple[int, int, str]:
    """Fewest moves first, then the most free GPU, then the name."""
    return (len(inventory.placements(candidate.node)), -inventory.free_gpu_milli(candidate.node), candidate.node)


def _whole_free(inventory: Allocator) -> dict[str, int]:
    """Wholly free GPUs by node, for the nodes that take pods."""
    names = (node.name for node in inventory.nodes())
    return {name: inventory.whole_free(name) for name in names if not inventory.is_cordoned(name)}


def _try(
    spec: Spec, state: State, candidate: Candidate, *, headroom: int, free: Mapping[str, int], now: float
) -> Decision | tuple[Reason, dict[str, Evidence]]:
    """The decision to give ``candidate`` back, or why it stays. ``free``: wholly free GPUs by node in service."""
    inventory = state.inventory
    held = inventory.placements(candidate.node)
    evidence: dict[str, Evidence] = {"node": candidate.node, "moves": len(held), "gpus": candidate.gpus}
    if candidate.protected:
        return Reason.PROTECTED, {**evidence, "by": candidate.protected}
    if held and not spec.moves:
        return Reason.NO_CANDIDATE, evidence
    if held and state.moves_last_day + len(held) > spec.max_moves_per_day:
        return Reason.MOVE_BUDGET_SPENT, {**evidence, "moves_last_day": state.moves_last_day}
    left = sum(free.values()) - free.get(candidate.node, 0)
    if left < headroom:
        # Moving pods there can only take more: no what-if is needed to refuse.
        return Reason.HEADROOM_NEEDED, {**evidence, "free_gpus_after": left, "headroom_gpus": headroom}
    with inventory.overlay():
        inventory.cordon(candidate.node)
        moves: list[Placement] = []
        # Large shares first: they have the fewest places to go.
        for placement in sorted(held, key=_large_first):
            inventory.release(placement.request.id)
            target = inventory.place(placement.request)
            if isinstance(target, Refusal):
                return Reason.NO_ROOM_ELSEWHERE, {**evidence, "pod": placement.request.id, "refusal": target.describe()}
            moves.append(target)
        left -= sum(free[name] - inventory.whole_free(name) for name in {move.node for move in moves})
    evidence["free_gpus_after"] = left
    if left < headroom:
        return Reason.HEADROOM_NEEDED, {**evidence, "headroom_gpus": headroom}
    payback_s = _payback_s(spec, candidate, held)
    expected_s = expected_gap_s(spec, candidate, now)
    evidence |= {"payback_s": round(payback_s, 1), "expected_unused_s": round(expected_s, 1)}
    if payback_s > expected_s:
        return Reason.WOULD_NOT_PAY_BACK, evidence
    return Decision(
        policy=NAME,
        action=Action.COMPACT if moves else Action.REMOVE,
        subject=candidate.node,
        reason=Reason.UNDER_USED if moves else Reason.NODE_EMPTY,
        evidence={**evidence, "headroom_gpus": headroom, "moves_last_day": state.moves_last_day},
        steps=(Step(name=candidate.node, value="chosen"),),
        plan=Vacate(node=candidate.node, moves=tuple(moves)),
    )


def _large_first(placement: Placement) -> tuple[int, int, int, str]:
    shape = placement.request.shape
    return (-shape.gpu_milli, -shape.cpu_milli, -shape.memory_mib, placement.request.id)


def _payback_s(spec: Spec, candidate: Candidate, held: Sequence[Placement]) -> float:
    """Seconds that the node must stay away until giving it back has cost nothing.

    Cost in GPU-seconds: every moved share is held twice for ``hold_s``, and the machine that replaces this one later is
    billed for ``boot_s`` before it serves.
    """
    moved_gpu = sum(placement.request.shape.gpu_milli for placement in held) / WHOLE
    return spec.boot_s + moved_gpu * spec.hold_s / max(candidate.gpus, 1)


def expected_gap_s(spec: Spec, candidate: Candidate, now: float) -> float:
    """How long a machine of this type is likely to stay away: the median of the past gaps, at most
    ``payback_within_s``.

    The gap that is open now counts too, as long as it has lasted: a quiet spell ends a run of short gaps, so that a
    refusal never feeds on itself. With fewer than four samples nothing is known yet, and ``payback_within_s`` stands.
    """
    if len(candidate.gaps_s) < _SAMPLES:
        return spec.payback_within_s
    quiet_s = 0.0 if candidate.bought_s is None else now - candidate.bought_s
    return min(max(statistics.median(candidate.gaps_s), quiet_s), spec.payback_within_s)


def _nothing(
    state: State, reason: Reason, evidence: dict[str, Evidence], steps: Sequence[Step], recheck: float
) -> Decision:
    return Decision(
        policy=NAME,
        action=Action.NOTHING,
        subject=state.pool,
        reason=reason,
        evidence=evidence,
        steps=tuple(steps),
        recheck_s=recheck,
    )
