"""The embedded API server: objects, versions, watches, finalizers and evictions, as Kubernetes does them.

One resourceVersion rises over all kinds. Each kind has its ordered log of changes with a bounded length; a watch from
before its beginning raises Gone. It knows nothing of scheduling or kubelets and asks its clock for time stamps.
Every refusal names the object, the field and the remedy. Nothing is ever written partly.
"""

import bisect
import typing
from collections.abc import Callable, Mapping, Sequence

import msgspec

from autoscaler.embedded import pods
from autoscaler.model import kinds, ports
from autoscaler.model.kinds import K

Subscriber = Callable[[ports.WatchEvent], None]

_FIELDS: dict[type[kinds.Kind], frozenset[str]] = {
    kind: frozenset(kind.__struct_fields__) - {"meta"} for kind in kinds.KINDS
}
_META_FIELDS = frozenset({"labels", "annotations", "finalizers"})

_IMMUTABLE: dict[type[kinds.Kind], frozenset[str]] = {
    kinds.Pod: frozenset({"shape"}),
    kinds.NodeClaim: frozenset({"pool", "offers", "reason"}),
    kinds.Migration: frozenset({"pod", "source", "target", "claim"}),
}
"""What a controller decided once and everybody else relies on."""


class _Shelf:
    """All that is kept of one kind: the objects by key, and the log of changes with the version of each entry."""

    __slots__ = ("events", "floor", "objects", "versions")

    def __init__(self) -> None:
        self.objects: dict[str, kinds.Kind] = {}
        self.events: list[ports.WatchEvent] = []
        self.versions: list[int] = []
        self.floor = 0
        """Version of the newest change that the log no longer holds."""


class EmbeddedCluster:
    """In-process ``ports.ClusterApi``. Not thread-safe.

    ``history`` bounds the entries of each kind's log: at least that many of the newest changes can be watched.
    """

    def __init__(self, clock: ports.Clock, *, seed: int = 0, history: int = 10_000) -> None:
        if history < 1:
            raise ValueError(f"history={history!r}: keep at least one change per kind")
        self._clock = clock
        self._seed = seed
        self._history = history
        self._shelves: dict[type[kinds.Kind], _Shelf] = {kind: _Shelf() for kind in kinds.KINDS}
        self._version = 0
        self._uids = 0
        self._owned: dict[str, dict[str, kinds.Pod]] = {}
        self._subscribers: tuple[Subscriber, ...] = ()
        self._telling = False

    @property
    def version(self) -> int:
        """The newest resourceVersion."""
        return self._version

    def subscribe(self, callback: Subscriber) -> None:
        """Call ``callback`` after every write. It must not write: remember what to do and do it later."""
        self._subscribers = (*self._subscribers, callback)

    # Reading ----------------------------------------------------------------------------------------------------

    def watch(self, kind: type[K], since: int) -> Sequence[ports.WatchEvent]:
        shelf = self._shelf(kind)
        if since < shelf.floor:
            raise ports.Gone(f"watch {kind.__name__} since={since}: the log begins after {shelf.floor}; list again")
        if since > self._version:
            raise ports.Gone(f"watch {kind.__name__} since={since}: newer than {self._version}; list again")
        versions = shelf.versions
        if not versions or versions[-1] <= since:
            return ()
        return tuple(shelf.events[bisect.bisect_right(versions, since) :])

    def get(self, kind: type[K], key: str) -> K:
        return self._stored(kind, key)

    # Writing ----------------------------------------------------------------------------------------------------

    def create(self, obj: K) -> K:
        kind = type(obj)
        shelf, meta = self._shelf(kind), obj.meta
        name = f"{kind.__name__} {meta.key!r}"
        if not meta.name or "/" in meta.name or "/" in meta.namespace:
            raise ports.UnprocessableEntity(f"create {name}: meta.name and namespace: give a name without slashes")
        if meta.resource_version != 0:
            raise ports.UnprocessableEntity(
                f"create {name}: meta.resource_version={meta.resource_version}: leave it 0 on a new object"
            )
        if meta.deleting_s is not None:
            raise ports.UnprocessableEntity(f"create {name}: meta.deleting_s={meta.deleting_s}: leave it None")
        if meta.key in shelf.objects:
            raise ports.AlreadyExists(f"create {name}: it exists already; read it and patch it, or choose another name")
        self._validate(obj, f"create {name}")
        self._uids += 1
        stored = msgspec.structs.replace(
            obj,
            meta=msgspec.structs.replace(
                meta,
                uid=f"{self._seed & 0xFFFFFFFF:08x}-0000-4000-8000-{self._uids:012x}",
                resource_version=self._version + 1,
                created_s=self._clock.now(),
                labels=dict(meta.labels),
                annotations=dict(meta.annotations),
            ),
        )
        self._commit(ports.EventType.ADDED, stored)
        return stored

    def patch(self, obj: K, **changes: object) -> K:
        kind = type(obj)
        stored = self._current(obj, "patch")
        name = f"patch {kind.__name__} {obj.meta.key!r}"
        fields, allowed = dict[str, object](), _FIELDS[kind]
        meta: dict[str, object] = {}
        for field, value in changes.items():
            if field in _META_FIELDS:
                changed = self._changed_meta(stored.meta, field, value, name)
                if changed is not None:
                    meta[field] = changed
            elif field in allowed:
                if getattr(stored, field) != value:
                    fields[field] = value
            else:
                known = ", ".join(sorted(allowed | _META_FIELDS))
                raise ports.UnprocessableEntity(f"{name}: {field}: no such field; choose from {known}")
        if not fields and not meta:
            return stored
        frozen = _IMMUTABLE.get(kind, frozenset[str]()) & fields.keys()
        if frozen:
            raise ports.UnprocessableEntity(f"{name}: {', '.join(sorted(frozen))}: cannot change after creation")
        if isinstance(stored, kinds.Pod) and stored.placement is not None and "placement" in fields:
            raise ports.UnprocessableEntity(f"{name}: placement: the pod is bound already; move it by a new pod")
        meta["resource_version"] = self._version + 1
        new = msgspec.structs.replace(stored, meta=msgspec.structs.replace(stored.meta, **meta), **fields)
        self._validate(new, name)
        gone = new.meta.deleting_s is not None and not new.meta.finalizers
        self._commit(ports.EventType.DELETED if gone else ports.EventType.MODIFIED, new)
        return new

    def delete(self, obj: kinds.Kind) -> None:
        self._remove(self._current(obj, "delete"))

    def evict(self, pod: str) -> None:
        stored = self._stored(kinds.Pod, pod)
        if stored.meta.deleting_s is not None:
            return
        workload = pods.owner(stored)
        if workload and pods.serving(stored):
            left = sum(pods.serving(other) for other in self._owned[workload].values()) - 1
            for item in self._shelves[kinds.DisruptionBudget].objects.values():
                budget = typing.cast("kinds.DisruptionBudget", item)
                if budget.workload == workload and left < budget.min_available:
                    raise ports.TooManyRequests(
                        f"evict Pod {pod!r}: budget {budget.meta.key!r} wants {budget.min_available} ready pods of "
                        f"{workload!r} and {left} would be left; try again when more are ready"
                    )
        self._remove(stored)

    # Inside -----------------------------------------------------------------------------------------------------

    def _shelf(self, kind: type[kinds.Kind]) -> _Shelf:
        shelf = self._shelves.get(kind)
        if shelf is None:
            raise ports.UnprocessableEntity(f"kind {kind!r}: not served; choose one of kinds.KINDS")
        return shelf

    def _stored(self, kind: type[K], key: str) -> K:
        found = self._shelf(kind).objects.get(key)
        if found is None:
            raise ports.NotFound(f"{kind.__name__} {key!r}: not found")
        return typing.cast("K", found)

    def _current(self, obj: K, verb: str) -> K:
        """The stored object, provided that it is the one that the caller read."""
        stored = self._stored(type(obj), obj.meta.key)
        if stored.meta.resource_version != obj.meta.resource_version:
            raise ports.Conflict(
                f"{verb} {type(obj).__name__} {obj.meta.key!r}: read at version {obj.meta.resource_version}, now at "
                f"{stored.meta.resource_version}; read it again and decide again"
            )
        return stored

    @staticmethod
    def _changed_meta(meta: kinds.Meta, field: str, value: object, name: str) -> object | None:
        """The new value of a metadata field, or None when the patch leaves it as it is."""
        if field == "finalizers":
            if not isinstance(value, (tuple, list)):
                raise ports.UnprocessableEntity(f"{name}: finalizers={value!r}: give a tuple of names")
            finalizers = tuple(typing.cast("Sequence[str]", value))
            if meta.deleting_s is not None and not set(finalizers) <= set(meta.finalizers):
                raise ports.UnprocessableEntity(f"{name}: finalizers: none can be added while the object is deleted")
            return None if finalizers == meta.finalizers else finalizers
        if not isinstance(value, Mapping):
            raise ports.UnprocessableEntity(
                f"{name}: {field}={value!r}: give a mapping; a value of None removes the key"
            )
        old: Mapping[str, str] = getattr(meta, field)
        merged = dict(old)
        for key, item in typing.cast("Mapping[str, str | None]", value).items():
            if item is None:
                merged.pop(key, None)
            else:
                merged[key] = item
        return None if merged == old else merged

    @staticmethod
    def _validate(obj: kinds.Kind, name: str) -> None:
        """What an admission check refuses, whoever asks."""
        if isinstance(obj, kinds.Pod):
            try:
                pods.start_delay_s(obj)
            except ValueError as error:
                raise ports.UnprocessableEntity(
                    f"{name}: annotation {pods.START_DELAY}={error}: give zero or more seconds"
                ) from error
            placement = obj.placement
            if placement is None:
                if obj.phase is kinds.PodPhase.RUNNING:
                    raise ports.UnprocessableEntity(f"{name}: phase=Running: a pod without a placement cannot run")
                return
            if placement.request.id != obj.meta.key:
                raise ports.UnprocessableEntity(
                    f"{name}: placement.request.id={placement.request.id!r}: use the pod's own key"
                )
            if placement.request.shape != obj.shape:
                raise ports.UnprocessableEntity(f"{name}: placement.request.shape: use the pod's own shape")
            if len(set(placement.devices)) != obj.shape.gpus or len(placement.devices) != obj.shape.gpus:
                raise ports.UnprocessableEntity(
                    f"{name}: placement.devices={placement.devices!r}: name {obj.shape.gpus} different devices"
                )
        elif isinstance(obj, kinds.Workload):
            if obj.replicas < 0:
                raise ports.UnprocessableEntity(f"{name}: replicas={obj.replicas}: give zero or more")
        elif isinstance(obj, kinds.DisruptionBudget) and obj.min_available < 0:
            raise ports.UnprocessableEntity(f"{name}: min_available={obj.min_available}: give zero or more")

    def _remove(self, stored: kinds.Kind) -> None:
        meta = stored.meta
        if meta.finalizers:
            if meta.deleting_s is not None:
                return
            changed = msgspec.structs.replace(meta, deleting_s=self._clock.now(), resource_version=self._version + 1)
            self._commit(ports.EventType.MODIFIED, msgspec.structs.replace(stored, meta=changed))
            return
        changed = msgspec.structs.replace(meta, resource_version=self._version + 1)
        self._commit(ports.EventType.DELETED, msgspec.structs.replace(stored, meta=changed))

    def _commit(self, event_type: ports.EventType, obj: kinds.Kind) -> None:
        if self._telling:
            raise RuntimeError(f"{type(obj).__name__} {obj.meta.key!r}: a subscriber wrote from inside a notification")
        shelf, key = self._shelves[type(obj)], obj.meta.key
        self._version = obj.meta.resource_version
        old = shelf.objects.pop(key, None) if event_type is ports.EventType.DELETED else shelf.objects.get(key)
        if event_type is not ports.EventType.DELETED:
            shelf.objects[key] = obj
        if isinstance(obj, kinds.Pod):
            self._index(typing.cast("kinds.Pod | None", old), obj, gone=event_type is ports.EventType.DELETED)
        event = ports.WatchEvent(type=event_type, object=obj, resource_version=self._version)
        shelf.events.append(event)
        shelf.versions.append(self._version)
        if len(shelf.events) >= 2 * self._history:
            # Cut in halves: a cut costs its length, so a write costs the same on average however long the log is.
            cut = len(shelf.events) - self._history
            shelf.floor = shelf.versions[cut - 1]
            del shelf.events[:cut]
            del shelf.versions[:cut]
        self._telling = True
        try:
            for subscriber in self._subscribers:
                subscriber(event)
        finally:
            self._telling = False

    def _index(self, old: kinds.Pod | None, pod: kinds.Pod, *, gone: bool) -> None:
        """Pods by owner, so that an eviction does not walk through all pods."""
        key, workload = pod.meta.key, pods.owner(pod)
        before = pods.owner(old) if old is not None else ""
        if before and (gone or before != workload):
            owned = self._owned[before]
            del owned[key]
            if not owned:
                del self._owned[before]
        if workload and not gone:
            self._owned.setdefault(workload, {})[key] = pod

    # Last, because the port's name hides the built-in one in the rest of a class body.
    def list(self, kind: type[K]) -> ports.Listing[K]:
        objects = typing.cast("dict[str, K]", self._shelf(kind).objects)
        return ports.Listing(items=tuple(objects[key] for key in sorted(objects)), resource_version=self._version)
