"""Ports of the engine: the cluster, the metrics and the clock. Adapters implement them; tests and the embedded world
too.

Cluster semantics are those of a Kubernetes API server: every write carries the resourceVersion on which it was
decided and is refused with Conflict when the object has moved on; a watch from a version too old to serve raises
Gone, after which the caller lists again and works out what it missed.
"""

import dataclasses
import enum
from collections.abc import Sequence
from typing import Generic, Protocol

from autoscaler.model.kinds import K, Kind
from policies.keep_alive import Gap
from policies.signals import Signal
from vgpu.errors import TidegateError


class ClusterError(TidegateError):
    """Root of what the cluster can answer to a request."""


class NotFound(ClusterError):
    """The object does not exist."""


class AlreadyExists(ClusterError):
    """An object of that kind and name exists."""


class Conflict(ClusterError):
    """The object has changed since it was read: read it again and decide again."""


class TooManyRequests(ClusterError):
    """An eviction would break a disruption budget, or the server asks to slow down: try later."""


class UnprocessableEntity(ClusterError):
    """The server understood the object and refuses it."""


class Gone(ClusterError):
    """The watch's version is no longer served (410): list again."""


class Unavailable(ClusterError):
    """The API server did not answer; the effect of a write is unknown."""


class EventType(enum.StrEnum):
    ADDED = "ADDED"
    MODIFIED = "MODIFIED"
    DELETED = "DELETED"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class WatchEvent:
    type: EventType
    object: Kind
    """For DELETED: the last state of the object, with the version of its deletion."""
    resource_version: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Listing(Generic[K]):
    items: tuple[K, ...]
    resource_version: int
    """Watch from here to miss nothing."""


class ClusterApi(Protocol):
    """What the engine may ask of a cluster."""

    def list(self, kind: type[K]) -> Listing[K]:
        """All objects of a kind, by key."""
        ...

    def watch(self, kind: type[Kind], since: int) -> Sequence[WatchEvent]:
        """The changes of a kind after ``since`` that are known now, oldest first. Raises Gone."""
        ...

    def get(self, kind: type[K], key: str) -> K:
        """The object as it stands now. Raises NotFound."""
        ...

    def create(self, obj: K) -> K:
        """Store a new object; returns it with uid, version and time. Raises AlreadyExists, UnprocessableEntity."""
        ...

    def patch(self, obj: K, **changes: object) -> K:
        """Change fields (and ``labels``, ``annotations``, ``finalizers`` of its metadata) of the object as it was read.
        Raises Conflict, NotFound, UnprocessableEntity. A change that changes nothing writes nothing.
        """
        ...

    def delete(self, obj: Kind) -> None:
        """Ask for deletion of the object as it was read. It stays, marked, while it has finalizers."""
        ...

    def evict(self, pod: str) -> None:
        """Remove a pod within the disruption budgets. Raises TooManyRequests, NotFound."""
        ...


class Clock(Protocol):
    def now(self) -> float:
        """Seconds since an origin that stays the same for the life of the cluster."""
        ...


class MetricSource(Protocol):
    """Named questions about the cluster's load; the adapter knows the query language."""

    def signals(self, names: Sequence[str], *, at: float | None = None) -> Sequence[Signal]:
        """The newest value per labelled series of each named query, judged for age and sanity. At least one signal per
        name: one without labels when the series is absent or the source is unreachable. Never raises for bad data.
        """
        ...


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Activity:
    """What is known of one workload's use at one moment; every part may be missing, and missing is not idle."""

    activity: tuple[Signal, ...] = ()
    """Above zero while the workload works."""
    presence: Signal | None = None
    """Proves that the workload is being measured at all."""
    wake: tuple[Signal, ...] = ()
    """Demand measured outside the pods: it exists at zero replicas."""
    last_active_s: float | None = None
    """When it was last in use, by proof that reaches up to now; None when nobody can say."""
    gaps: tuple[Gap, ...] = ()
    """Its finished idle gaps, oldest first."""
    rate_rps: float | None = None
    load_s: float | None = None
    """Time from a wake to ready, as learnt."""


class ActivitySource(Protocol):
    """Who knows how much a workload is used: a gateway, or Prometheus."""

    def activity(self, workload: str, *, at: float) -> Activity:
        """What is known of ``workload`` (``namespace/name``) at ``at``. Never raises for missing or bad data."""
        ...
