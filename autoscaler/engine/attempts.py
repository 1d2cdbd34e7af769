"""A claim's purchase attempts: their keys, how they close, and the machine that they stand for. Pure."""

import hashlib

from autoscaler.model import kinds
from autoscaler.model.kinds import ClaimState
from providers.offers import Machine, MachineState, Offer

LAUNCHED = "launched"
"""Outcome of an attempt that a machine answers for."""


def order_key(uid: str, attempt: int) -> str:
    """The key of a purchase: a function of the claim's UID and the attempt's number, and of nothing else."""
    return f"{uid}/{attempt}"


def parameter_hash(offer: Offer, user_data: str) -> str:
    """Identity of the rendered launch parameters of an attempt."""
    return hashlib.sha256(f"{offer.id}|{user_data}".encode()).hexdigest()[:16]


def closed(attempt: kinds.Attempt, outcome: str, ticket: str, refused_s: float | None = None) -> kinds.Attempt:
    return kinds.Attempt(
        number=attempt.number,
        key=attempt.key,
        offer=attempt.offer,
        parameter_hash=attempt.parameter_hash,
        user_data=attempt.user_data,
        ticket=ticket,
        outcome=outcome,
        refused_s=refused_s,
    )


def ordered_s(claim: kinds.NodeClaim) -> float:
    """When the newest attempt was stored."""
    times = [stage.time_s for stage in claim.history if stage.state == ClaimState.ORDERING.value]
    return times[-1] if times else claim.meta.created_s


def machine(claim: kinds.NodeClaim) -> Machine:
    """The machine as the claim remembers it, for calls about it."""
    attempt = claim.attempt
    assert attempt is not None
    return Machine(
        id=claim.machine_id,
        key=attempt.key,
        state=MachineState.RUNNING,
        provider_id=claim.provider_id,
        zone=attempt.offer.zone,
        instance_type=attempt.offer.instance_type,
        capacity_type=attempt.offer.capacity_type,
        ticket=attempt.ticket,
    )
