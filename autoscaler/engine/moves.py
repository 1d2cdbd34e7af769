"""Moves pods off a node that is given back, make before break: the replacement is ready before the source goes.

Each move is a stored GPUMigration. Its phases are walked by what is observed; the place of the replacement is the one
that the decision reserved. A move that fails leaves the source where it is: the drain is planned again, or taken back.
"""

import hashlib
from collections.abc import Callable

from autoscaler.engine import lifecycle
from autoscaler.engine.claims import Claims
from autoscaler.engine.log import DecisionLog
from autoscaler.engine.view import ClusterView
from autoscaler.model import kinds
from autoscaler.model.kinds import ClaimState, MigrationPhase
from autoscaler.model.ports import AlreadyExists, ClusterError, TooManyRequests
from policies.decisions import Action, Decision, Reason
from vgpu.allocator import Refusal
from vgpu.inventory import Placement, Request

POLICY = "moves"

DAY_S = 86_400.0

START_DEADLINE_S = 600.0
"""A replacement that is not ready after this is given up; the source never stopped."""

EVICT_RETRY_S = 10.0
"""Between two tries of an eviction that a disruption budget refused."""

ACTIVE = (MigrationPhase.PENDING, MigrationPhase.STARTING, MigrationPhase.RELEASING)


class Moves:
    """The migrations of one pool."""

    def __init__(
        self,
        *,
        view: ClusterView,
        claims: Claims,
        log: DecisionLog,
        note: Callable[[str, Exception], None],
    ) -> None:
        self._view = view
        self._claims = claims
        self._log = log
        self._note = note
        self._due: dict[str, float] = {}

    def last_day(self, now: float) -> int:
        """How many moves began in the last 24 hours."""
        migrations = self._view.of(kinds.Migration).values()
        return sum(1 for migration in migrations if migration.meta.created_s > now - DAY_S)

    def failed_since(self, since_s: float) -> frozenset[str]:
        """Claims off whose nodes a move began at ``since_s`` or later, and failed."""
        return frozenset(
            migration.claim
            for migration in self._view.of(kinds.Migration).values()
            if migration.phase is MigrationPhase.FAILED and migration.meta.created_s >= since_s
        )

    def next_wake_s(self, now: float) -> float | None:
        known = (self._view.of(kinds.Migration), self._view.of(kinds.NodeClaim))
        times = [time for key, time in self._due.items() if any(key in objects for objects in known)]
        return max(min(times), now) if times else None

    def begin(self, claim: kinds.NodeClaim, moves: tuple[Placement, ...], now: float) -> None:
        """Store one migration per pod. The claim is draining already, so a crash in between is planned again."""
        for target in moves:
            pod = self._view.of(kinds.Pod).get(target.request.id)
            if pod is None or pod.node != claim.node:
                continue
            name = f"{claim.meta.name}-{hashlib.sha256(f'{pod.meta.uid}|{now}'.encode()).hexdigest()[:8]}"
            replacement = replacement_key(pod.meta, name)
            meta = kinds.Meta(name=name, namespace=pod.meta.namespace, labels={kinds.CLAIM_LABEL: claim.meta.name})
            self._view.create(
                kinds.Migration(
                    meta=meta,
                    pod=pod.meta.key,
                    source=claim.node,
                    target=Placement(
                        request=Request(id=replacement, shape=pod.shape), node=target.node, devices=target.devices
                    ),
                    claim=claim.meta.name,
                    replacement=replacement,
                    history=(kinds.Stage(state=MigrationPhase.PENDING.value, time_s=now),),
                )
            )

    def advance(self, now: float) -> None:
        """Walk every migration on; plan again the drains that have none left; forget the old ones."""
        busy: set[str] = set()
        # What is due has its turn now; what is still to be waited for is said anew.
        self._due = {key: time for key, time in self._due.items() if time > now}
        for migration in list(self._view.of(kinds.Migration).values()):
            if migration.phase in ACTIVE:
                busy.add(migration.claim)
                try:
                    self._walk(migration, now)
                except ClusterError as error:
                    self._note(migration.meta.key, error)
                    self._due[migration.meta.key] = now + EVICT_RETRY_S
            elif migration.meta.created_s <= now - DAY_S:
                self._due.pop(migration.meta.key, None)
                self._view.delete(migration)
        for claim in list(self._view.of(kinds.NodeClaim).values()):
            if claim.state is ClaimState.DRAINING and claim.meta.name not in busy:
                try:
                    self._plan_again(claim, now)
                except ClusterError as error:
                    self._note(claim.meta.key, error)

    # One migration --------------------------------------------------------------------------------------------------

    def _walk(self, migration: kinds.Migration, now: float) -> None:
        pods = self._view.of(kinds.Pod)
        source = pods.get(migration.pod)
        if source is not None and source.node != migration.source:
            source = None
        replacement = pods.get(migration.replacement)
        claim = self._view.of(kinds.NodeClaim).get(migration.claim)
        if source is not None and claim is not None and claim.state is ClaimState.READY:
            if replacement is not None:
                self._view.delete(replacement)
            self._fail(migration, now, "DrainTakenBack")
            return
        match migration.phase:
            case MigrationPhase.PENDING:
                if source is None:
                    self._end(migration, MigrationPhase.SUCCEEDED, now, "PodFinished")
                    return
                if replacement is None:
                    self._start(migration, source)
                self._to(migration, MigrationPhase.STARTING, now, "")
                self._due[migration.meta.key] = migration.meta.created_s + START_DEADLINE_S
            case MigrationPhase.STARTING:
                self._started(migration, source, replacement, now)
            case MigrationPhase.RELEASING:
                self._release(migration, source, now)
            case _:
                pass

    def _start(self, migration: kinds.Migration, source: kinds.Pod) -> None:
        """Create the replacement in its reserved place; it is bound from the first moment."""
        namespace, _, name = migration.replacement.rpartition("/")
        meta = kinds.Meta(
            name=name,
            namespace=namespace,
            labels=source.meta.labels,
            annotations={**source.meta.annotations, kinds.MOVED_FROM: source.meta.key},
            owner=source.meta.owner,
        )
        try:
            self._view.create(kinds.Pod(meta=meta, shape=source.shape, placement=migration.target))
        except AlreadyExists:
            # An earlier controller got this far; the watch will show its pod.
            self._view.refresh()

    def _started(
        self, migration: kinds.Migration, source: kinds.Pod | None, replacement: kinds.Pod | None, now: float
    ) -> None:
        if replacement is not None and replacement.phase is kinds.PodPhase.FAILED:
            self._view.delete(replacement)
            self._fail(migration, now, replacement.reason or "ReplacementFailed")
        elif source is None:
            self._end(migration, MigrationPhase.SUCCEEDED, now, "PodFinished" if replacement is None else "SourceGone")
        elif replacement is None:
            self._fail(migration, now, "ReplacementGone")
        elif replacement.ready:
            migration = self._to(migration, MigrationPhase.RELEASING, now, "")
            self._release(migration, source, now)
        elif now >= migration.meta.created_s + START_DEADLINE_S:
            self._view.delete(replacement)
            self._fail(migration, now, "StartDeadline")
        else:
            self._due[migration.meta.key] = migration.meta.created_s + START_DEADLINE_S

    def _release(self, migration: kinds.Migration, source: kinds.Pod | None, now: float) -> None:
        if source is not None:
            try:
                self._view.evict(source)
            except TooManyRequests as error:
                self._note(migration.meta.key, error)
                self._due[migration.meta.key] = now + EVICT_RETRY_S
                return
            if migration.pod in self._view.of(kinds.Pod):
                return
        self._end(migration, MigrationPhase.SUCCEEDED, now, "")

    def _fail(self, migration: kinds.Migration, now: float, reason: str) -> None:
        self._end(migration, MigrationPhase.FAILED, now, reason)
        decision = Decision(
            policy=POLICY,
            action=Action.CANCEL,
            subject=migration.pod,
            reason=Reason.MOVE_FAILED,
            evidence={"why": reason, "source": migration.source, "target": migration.target.node},
        )
        self._log.add(decision, now)

    def _end(self, migration: kinds.Migration, phase: MigrationPhase, now: float, reason: str) -> None:
        self._to(migration, phase, now, reason)
        self._due.pop(migration.meta.key, None)

    def _to(self, migration: kinds.Migration, phase: MigrationPhase, now: float, reason: str) -> kinds.Migration:
        stage = kinds.Stage(state=phase.value, time_s=now, reason=reason)
        return self._view.patch(migration, phase=phase, history=(*migration.history, stage))

    # Drains without migrations --------------------------------------------------------------------------------------

    def _plan_again(self, claim: kinds.NodeClaim, now: float) -> None:
        """A draining node with pods and nobody moving them: a move failed, or a controller died in between."""
        pods = self._view.pods_on.get(claim.node, {})
        if not pods:
            return
        allocator = self._view.ledger.allocator
        self._claims.cordon(claim.node, cordoned=True)
        targets: list[Placement] = []
        with allocator.overlay():
            for pod in pods.values():
                allocator.release(pod.meta.key)
                target = allocator.place(Request(id=pod.meta.key, shape=pod.shape))
                if isinstance(target, Refusal):
                    break
                targets.append(target)
        if len(targets) == len(pods) and claim.meta.name not in self.failed_since(claim.entered_s):
            self.begin(claim, tuple(targets), now)
        elif claim.meta.deleting_s is None:
            decision = Decision(
                policy=POLICY,
                action=Action.CANCEL,
                subject=claim.node,
                reason=Reason.NO_ROOM_ELSEWHERE,
                evidence={"pods": len(pods), "placeable": len(targets)},
            )
            self._log.add(decision, now)
            self._claims.cancel_drain(claim, now, Reason.NO_ROOM_ELSEWHERE.value)
        else:
            self._due_drain(claim, now)

    def _due_drain(self, claim: kinds.NodeClaim, now: float) -> None:
        """The claim was deleted and its pods fit nowhere: evict within the budgets until the grace is over."""
        grace = lifecycle.DEADLINES[ClaimState.DRAINING].after_s or 0.0
        if now >= claim.entered_s + grace:
            return
        for pod in list(self._view.pods_on.get(claim.node, {}).values()):
            try:
                self._view.evict(pod)
            except TooManyRequests as error:
                self._note(pod.meta.key, error)
        self._due[claim.meta.key] = now + EVICT_RETRY_S


def replacement_key(pod: kinds.Meta, migration: str) -> str:
    """Key of the pod that takes the place of ``pod``: its first name with the move's suffix, however often it moved."""
    stem = pod.name.split("-mv-")[0]
    name = f"{stem}-mv-{migration.rpartition('-')[2]}"
    return f"{pod.namespace}/{name}" if pod.namespace else name
