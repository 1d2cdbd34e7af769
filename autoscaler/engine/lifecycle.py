"""The life of a GPUNodeClaim as data: which state follows which, why, and how long each may last.

Nothing here acts. ``claims`` walks these edges and refuses any other; a test derives reachability from them and fails
when a state was forgotten.
"""

import dataclasses

from autoscaler.model.kinds import ClaimState

GONE = "Gone"
"""Not a state: the claim's object no longer exists."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Deadline:
    """How long a claim may stay in a state.

    ``after_s`` None means unbounded; then ``warn_s`` says after how many seconds it starts to warn.
    """

    after_s: float | None
    then: ClaimState | None = None
    warn_s: float | None = None


S = ClaimState

EDGES: dict[tuple[ClaimState, ClaimState | str], str] = {
    (S.PENDING, S.ORDERING): "the first attempt and its key are stored; the purchase call follows",
    (S.PENDING, S.FAILED): "the claim was deleted, or nothing it accepts can be ordered, before anything was bought",
    (S.ORDERING, S.ORDERING): "the attempt was definitely refused; the next offer is stored as the next attempt",
    (S.ORDERING, S.LAUNCHED): "the cloud named a machine for the key, in its answer or in its list",
    (S.ORDERING, S.FAILED): "every acceptable offer was definitely refused",
    (S.LAUNCHED, S.REGISTERED): "a node with the machine's provider id or the purchase label exists",
    (S.LAUNCHED, S.FAILED): "the machine failed, vanished or did not join in time, or the claim was deleted",
    (S.REGISTERED, S.INITIALIZED): "the node is ready and registered all expected GPUs (count and memory)",
    (S.REGISTERED, S.FAILED): "the GPUs did not all appear in time, the machine vanished, or the claim was deleted",
    (S.INITIALIZED, S.READY): "the node takes pods",
    (S.INITIALIZED, S.FAILED): "the node did not become schedulable in time, the machine vanished, or was deleted",
    (S.READY, S.DRAINING): "a decision or the claim's deletion gives the node back: no new pods from here on",
    (S.READY, S.FAILED): "the machine vanished under a node in service",
    (S.DRAINING, S.READY): "the pods cannot go elsewhere, or not in time: the node stays, nothing is lost",
    (S.DRAINING, S.TERMINATING): "the node holds no pods (or its grace is over); the order is closed for good",
    (S.DRAINING, S.FAILED): "the machine vanished while it was emptied",
    (S.FAILED, S.TERMINATING): "a machine runs, or may run, under one of the keys: it must be terminated",
    (S.FAILED, GONE): "certainly nothing runs under any of the keys",
    (S.TERMINATING, GONE): "the cloud no longer lists a machine of any of the keys",
}

DEADLINES: dict[ClaimState, Deadline] = {
    # The next cycle orders; if this passes, the engine is not running.
    S.PENDING: Deadline(after_s=30, then=S.ORDERING),
    # An unknown outcome is never given up and never failed over: same key again.
    S.ORDERING: Deadline(after_s=None, warn_s=300),
    S.LAUNCHED: Deadline(after_s=900, then=S.FAILED),
    S.REGISTERED: Deadline(after_s=900, then=S.FAILED),
    S.INITIALIZED: Deadline(after_s=1200, then=S.FAILED),
    # In service: no deadline, and nothing to warn of.
    S.READY: Deadline(after_s=None),
    # After an hour the grace is over. A claim that its owner deleted goes with what is left on it; a drain of our own
    # is taken back (the edge to Ready).
    S.DRAINING: Deadline(after_s=3600, then=S.TERMINATING),
    S.FAILED: Deadline(after_s=30, then=S.TERMINATING),
    S.TERMINATING: Deadline(after_s=None, warn_s=600),
}

EMPTY_LIST_PROVES_S = 300.0
"""A machine may be missing from the cloud's list for this long after its purchase (EC2 reads are eventually
consistent)."""


def allowed(before: ClaimState, after: ClaimState) -> bool:
    return (before, after) in EDGES


def reachable(start: ClaimState) -> frozenset[ClaimState | str]:
    """Every state (and GONE) that can follow ``start``, in any number of steps."""
    found: set[ClaimState | str] = set()
    frontier: list[ClaimState | str] = [start]
    while frontier:
        state = frontier.pop()
        for before, after in EDGES:
            if before == state and after not in found:
                found.add(after)
                frontier.append(after)
    return frozenset(found)


ON_THE_WAY = frozenset({S.PENDING, S.ORDERING, S.LAUNCHED, S.REGISTERED, S.INITIALIZED})
"""Bought or about to be, not in service yet: capacity that pending pods may count on."""

CHARGED = frozenset(ClaimState)
"""States that count against limits: all of them, from the intent until the machine is proven gone."""
