"""What a policy returns: actions with a reason, evidence and the steps that led there. "Nothing, because …" is one too.

Reasons are one enumerated set: the same string in the decision log, in ``explain`` and, in a cluster, in conditions,
events and metric labels.
"""

import dataclasses
import enum
from collections.abc import Mapping

from providers.offers import Offer
from vgpu.inventory import Placement

Evidence = str | int | float | bool | None


class Action(enum.StrEnum):
    NOTHING = "Nothing"
    BUY = "Buy"
    REMOVE = "Remove"
    """Give back a node that holds no pods."""
    COMPACT = "Compact"
    """Move all pods of a node elsewhere, then give it back."""
    SCALE_UP = "ScaleUp"
    SCALE_TO_ZERO = "ScaleToZero"
    FAIL_OVER = "FailOver"
    """A purchase attempt was refused: the next offer, or none."""
    COLLECT = "Collect"
    """Terminate a machine that carries our tag and belongs to no claim."""
    CANCEL = "Cancel"
    """Take back an intent that no longer holds."""


class Reason(enum.StrEnum):
    # Provisioning
    PENDING_SHARES = "PendingShares"
    NOTHING_PENDING = "NothingPending"
    WAITING_FOR_NODE = "WaitingForNode"
    NO_OFFER_FITS = "NoOfferFits"
    OFFERS_COOLING = "OffersCooling"
    GPU_LIMIT = "GpuLimit"
    SPEND_LIMIT = "SpendLimit"
    PRICE_UNKNOWN = "PriceUnknown"
    # Removal and compaction
    NODE_EMPTY = "NodeEmpty"
    UNDER_USED = "UnderUsed"
    HEADROOM_NEEDED = "HeadroomNeeded"
    NO_ROOM_ELSEWHERE = "NoRoomElsewhere"
    MOVE_BUDGET_SPENT = "MoveBudgetSpent"
    WOULD_NOT_PAY_BACK = "WouldNotPayBack"
    PROTECTED = "Protected"
    DRAIN_IN_PROGRESS = "DrainInProgress"
    NO_CANDIDATE = "NoCandidate"
    MOVE_FAILED = "MoveFailed"
    # Scaling
    IDLE_PROVEN = "IdleProven"
    WAKE_SIGNAL = "WakeSignal"
    ACTIVE = "Active"
    ALREADY_ZERO = "AlreadyZero"
    IDLE_TOO_SHORT = "IdleTooShort"
    REPLICAS_PENDING = "ReplicasPending"
    REPLICAS_STUCK = "ReplicasStuck"
    MINIMUM_UPTIME = "MinimumUptime"
    ZEROED_BY_USER = "ZeroedByUser"
    OTHER_OWNER = "OtherOwner"
    # Signals
    SIGNAL_STALE = "SignalStale"
    SIGNAL_ABSENT = "SignalAbsent"
    SIGNAL_INVALID = "SignalInvalid"
    SIGNAL_UNREACHABLE = "SignalUnreachable"
    PRESENCE_UNPROVEN = "PresenceUnproven"
    CONTROLLER_JUST_STARTED = "ControllerJustStarted"
    FROZEN = "Frozen"
    # Purchases
    CAPACITY = "Capacity"
    QUOTA = "Quota"
    THROTTLED = "Throttled"
    AUTH = "Auth"
    INVALID = "Invalid"
    OUTCOME_UNKNOWN = "OutcomeUnknown"
    DEADLINE_PASSED = "DeadlinePassed"
    OVERDUE = "Overdue"
    MACHINE_LOST = "MachineLost"
    NO_CLAIM = "NoClaim"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One link of the chain that led to a decision: the name of the check and the value after it."""

    name: str
    value: Evidence


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Buy:
    """Buy one machine: the offers in order of preference. The first that is not refused is taken."""

    offers: tuple[Offer, ...]
    for_requests: tuple[str, ...]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Vacate:
    """Give back one node after moving its pods to where ``moves`` says (none for an empty node)."""

    node: str
    moves: tuple[Placement, ...]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """Set the replicas of one workload."""

    workload: str
    replicas: int


Plan = Buy | Vacate | Scale


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """One thing to do, or not to do, with everything needed to understand it."""

    policy: str
    action: Action
    subject: str
    """What it is about: a pool, a node, a claim, a pod or a workload (``namespace/name``)."""
    reason: Reason
    evidence: Mapping[str, Evidence] = dataclasses.field(default_factory=dict[str, Evidence])
    steps: tuple[Step, ...] = ()
    plan: Plan | None = None
    recheck_s: float | None = None
    """Virtual or wall time at which the answer may change without any event; None when only events can change it."""
