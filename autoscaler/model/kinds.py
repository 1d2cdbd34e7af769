"""The objects that the engine reads and writes, as frozen projections of what stands in the API server.

A projection holds the fields a planner needs and nothing else (full objects cost thirty times more to hold). Every
object carries the resourceVersion on which it was read: a write is accepted only on that version.
"""

import enum
from collections.abc import Mapping
from typing import TypeVar

import msgspec

from providers.offers import Offer
from vgpu.inventory import Device, Placement, Shape

MACHINE_FINALIZER = "tidegate.dev/machine"
"""Holds a claim until its machine is gone."""

CLAIM_LABEL = "tidegate.dev/claim"
"""On a node: the claim whose machine it is (the purchase label)."""

MOVED_FROM = "tidegate.dev/moved-from"
"""On a pod: the pod whose place it takes in a make-before-break move."""

WORKLOAD_LABEL = "tidegate.dev/workload"
"""On a pod: the workload (``namespace/name``) or job that owns it."""

DO_NOT_DISRUPT = "tidegate.dev/do-not-disrupt"
"""On a pod or node: ``true`` keeps it where it is."""

ZEROED_BY = "tidegate.dev/zeroed-by"
"""On a workload at zero replicas: ``tidegate`` when we did it; anything else, or nothing, means a user did."""

RESTORE_REPLICAS = "tidegate.dev/restore-replicas"
"""On a workload that we scaled to zero: how many replicas it had."""

LAST_WAKE = "tidegate.dev/last-wake"
"""On a workload: second at which we last raised it from zero."""


class Meta(msgspec.Struct, frozen=True, kw_only=True):
    """Object metadata. Times are seconds of the cluster's clock."""

    name: str
    namespace: str = ""
    uid: str = ""
    resource_version: int = 0
    """0 on an object that was never stored."""
    created_s: float = 0.0
    deleting_s: float | None = None
    """When deletion was asked for; the object stays while it has finalizers."""
    finalizers: tuple[str, ...] = ()
    labels: Mapping[str, str] = {}
    annotations: Mapping[str, str] = {}
    owner: str = ""
    """Controller that owns the object, ``namespace/name``; empty for none."""

    @property
    def key(self) -> str:
        return f"{self.namespace}/{self.name}" if self.namespace else self.name


class Node(msgspec.Struct, frozen=True, kw_only=True):
    meta: Meta
    provider_id: str = ""
    ready: bool = False
    unschedulable: bool = False
    zone: str = ""
    cpu_milli: int = 0
    memory_mib: int = 0
    devices: tuple[Device, ...] = ()
    """What the sharing layer registered; fewer than the machine should have means that it is not initialised."""


class PodPhase(enum.StrEnum):
    PENDING = "Pending"
    RUNNING = "Running"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"


class Pod(msgspec.Struct, frozen=True, kw_only=True):
    meta: Meta
    shape: Shape
    phase: PodPhase = PodPhase.PENDING
    ready: bool = False
    started_s: float | None = None
    reason: str = ""
    """Why the pod is in its phase, where the cluster says so (``OutOfDevice``, ``InvalidRequest``)."""
    placement: Placement | None = None
    """Recorded allocation (``tidegate.dev/allocation``); present exactly when the pod is bound to a node."""

    @property
    def node(self) -> str | None:
        return self.placement.node if self.placement else None


class Workload(msgspec.Struct, frozen=True, kw_only=True):
    """Anything with a scale subresource."""

    meta: Meta
    replicas: int
    ready_replicas: int = 0
    shape: Shape
    start_delay_s: float = 0.0
    """How long a pod of it takes from its start to Ready (image, weights), as the embedded cluster plays it."""


class DisruptionBudget(msgspec.Struct, frozen=True, kw_only=True):
    """A PodDisruptionBudget: at least ``min_available`` ready pods of ``workload`` survive every eviction."""

    meta: Meta
    workload: str
    min_available: int


class ClaimState(enum.StrEnum):
    PENDING = "Pending"
    ORDERING = "Ordering"
    LAUNCHED = "Launched"
    REGISTERED = "Registered"
    INITIALIZED = "Initialized"
    READY = "Ready"
    DRAINING = "Draining"
    TERMINATING = "Terminating"
    FAILED = "Failed"


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """One purchase attempt, stored before its call is made."""

    number: int
    key: str
    """The order's key: a function of the claim's UID and the attempt's number, and of nothing else."""
    offer: Offer
    parameter_hash: str
    """Hash of the rendered launch parameters; a later rendering that differs is never sent under this key."""
    user_data: str = ""
    ticket: str = ""
    outcome: str = ""
    """Empty while open; ``launched``, or the reason of the definite refusal."""
    refused_s: float | None = None


class Stage(msgspec.Struct, frozen=True, kw_only=True):
    """One entry of a claim's or a migration's history."""

    state: str
    time_s: float
    reason: str = ""


class NodeClaim(msgspec.Struct, frozen=True, kw_only=True):
    """GPUNodeClaim: one machine, from the intent to buy it to the proof that it is gone."""

    meta: Meta
    pool: str
    offers: tuple[Offer, ...]
    """Acceptable offers in order of preference, fixed at creation."""
    reason: str
    """Reason of the decision that created the claim."""
    state: ClaimState = ClaimState.PENDING
    attempts: tuple[Attempt, ...] = ()
    machine_id: str = ""
    provider_id: str = ""
    node: str = ""
    history: tuple[Stage, ...] = ()

    @property
    def attempt(self) -> Attempt | None:
        """The newest attempt."""
        return self.attempts[-1] if self.attempts else None

    @property
    def offer(self) -> Offer:
        """What the claim stands for now: the newest attempt's offer, or the first choice."""
        return self.attempts[-1].offer if self.attempts else self.offers[0]

    @property
    def entered_s(self) -> float:
        """When the present state was entered."""
        return self.history[-1].time_s if self.history else self.meta.created_s


class MigrationPhase(enum.StrEnum):
    PENDING = "Pending"
    STARTING = "Starting"
    """The replacement exists and holds its place; the source still runs."""
    RELEASING = "Releasing"
    """The replacement is ready; the source is being evicted."""
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"


class Migration(msgspec.Struct, frozen=True, kw_only=True):
    """GPUMigration: one move of one pod, make before break."""

    meta: Meta
    pod: str
    """Key of the pod that moves."""
    source: str
    target: Placement
    claim: str
    """Claim whose node is emptied by the move."""
    replacement: str = ""
    phase: MigrationPhase = MigrationPhase.PENDING
    history: tuple[Stage, ...] = ()


Kind = Node | Pod | Workload | DisruptionBudget | NodeClaim | Migration
WAKE_REQUESTED = "tidegate.dev/wake-requested"
"""On a workload at zero: second at which its gateway began to hold a request for it."""

KINDS: tuple[type[Kind], ...] = (Node, Pod, Workload, DisruptionBudget, NodeClaim, Migration)

K = TypeVar("K", bound=Kind)
