"""The pool's capacity: turns what the view shows into the states of the provisioning and compaction policies, and their
decisions into stored intents.

A disruptive decision is made twice: it is acted on only when, after ``validate_s``, a fresh look at the cluster
chooses the same node again.
"""

import dataclasses
import hashlib
from collections.abc import Sequence

from autoscaler.engine import lifecycle
from autoscaler.engine.claims import Claims
from autoscaler.engine.log import DecisionLog
from autoscaler.engine.market import Market
from autoscaler.engine.moves import DAY_S, Moves
from autoscaler.engine.view import ClusterView, by_creation
from autoscaler.engine.windows import Window
from autoscaler.model import kinds
from autoscaler.model.kinds import ClaimState
from policies import compaction, provisioning
from policies.decisions import Buy, Decision, Reason, Vacate
from policies.signals import SignalState
from providers.offers import Offer, Provider
from vgpu import inventory


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class PoolSettings:
    """One pool: what may be bought for it and how it gives nodes back."""

    name: str
    provisioning: provisioning.Spec
    compaction: compaction.Spec
    freeze: tuple[Window, ...] = ()
    """While one of them is open, nothing is moved and no node is given back."""
    validate_s: float = 5.0
    """Between a disruptive decision and the second look that must confirm it, seconds."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Proposal:
    node: str
    since_s: float


class Capacity:
    """Buys for, compacts and empties one pool."""

    def __init__(
        self,
        *,
        settings: PoolSettings,
        view: ClusterView,
        provider: Provider,
        market: Market,
        claims: Claims,
        moves: Moves,
        log: DecisionLog,
        started_s: float,
    ) -> None:
        self._settings = settings
        self._view = view
        self._provider = provider
        self._market = market
        self._claims = claims
        self._moves = moves
        self._log = log
        self._started_s = started_s
        self._planned_version = -1
        self._offers: tuple[Offer, ...] = ()
        self._beyond_reach: dict[str, inventory.Shape] = {}
        """Waiting pods that none of ``_offers`` holds, with what they asked for: said once, and not planned again until
        the offers change. Should a node turn up that holds them, the scheduler needs no help."""
        self._buy_again_s: float | None = None
        self._seen_departures = -1
        self._look_s: float | None = None
        self._proposal: _Proposal | None = None
        self._empty_since_s: float | None = None

    def next_wake_s(self) -> float | None:
        times = [self._buy_again_s, self._look_s]
        if self._proposal is not None:
            times.append(self._proposal.since_s + self._settings.validate_s)
        return min((time for time in times if time is not None), default=None)

    # Buying -------------------------------------------------------------------------------------------------------

    def provision(self, now: float) -> None:
        """Buy what the waiting pods need. Skipped while nothing has changed since the last look."""
        due = self._buy_again_s is not None and now >= self._buy_again_s
        if self._view.version == self._planned_version and not due:
            return
        decisions = provisioning.decide(self._settings.provisioning, self.provisioning_state(now), now)
        for index, decision in enumerate(decisions):
            if decision.reason is Reason.NO_OFFER_FITS:
                self._beyond_reach[decision.subject] = self._view.waiting[decision.subject].shape
            record = self._log.add(decision, now)
            if isinstance(decision.plan, Buy):
                self._claim(decision, decision.plan, index, record)
        self._log.retain(provisioning.NAME, {decision.subject for decision in decisions} | self._beyond_reach.keys())
        self._buy_again_s = min((d.recheck_s for d in decisions if d.recheck_s is not None), default=None)
        self._planned_version = self._view.version

    def provisioning_state(self, now: float) -> provisioning.State:
        """What the provisioning policy sees now."""
        offers = tuple(self._provider.offers())
        if offers != self._offers:
            self._offers, self._beyond_reach = offers, {}
        waiting = self._view.waiting
        # A pod that came back under its old name may ask for something else.
        self._beyond_reach = {
            key: shape for key, shape in self._beyond_reach.items() if key in waiting and waiting[key].shape == shape
        }
        claims = list(self._view.of(kinds.NodeClaim).values())
        pending = [pod for key, pod in waiting.items() if pod.meta.deleting_s is None and key not in self._beyond_reach]
        charged = [_may_cost(claim) for claim in claims if claim.state in lifecycle.CHARGED]
        coming = [
            claim.offer.shape.node(f"coming/{claim.meta.name}", zone=claim.offer.zone)
            for claim in claims
            if claim.state in lifecycle.ON_THE_WAY
            and claim.meta.deleting_s is None
            and not self._view.ledger.allocator.has_node(claim.node)
        ]
        return provisioning.State(
            pool=self._settings.name,
            pending=tuple(
                provisioning.PendingPod(
                    request=inventory.Request(id=pod.meta.key, shape=pod.shape), since_s=pod.meta.created_s
                )
                for pod in by_creation(pending)
            ),
            inventory=self._view.ledger.allocator,
            coming=tuple(coming),
            offers=offers,
            cooling=self._market.cooling(offers, now),
            charged_gpus=sum(max(offer.shape.gpus for offer in possible) for possible in charged),
            charged_micro_usd=sum(max(offer.price_micro_usd for offer in possible) for possible in charged),
        )

    def _claim(self, decision: Decision, plan: Buy, index: int, record: str) -> None:
        """Store the intent: the purchase call follows it, never precedes it."""
        identity = hashlib.sha256(f"{record}|{index}".encode()).hexdigest()[:10]
        self._view.create(
            kinds.NodeClaim(
                meta=kinds.Meta(
                    name=f"{self._settings.name}-{identity}",
                    finalizers=(kinds.MACHINE_FINALIZER,),
                    annotations={"tidegate.dev/decision": record},
                ),
                pool=self._settings.name,
                offers=plan.offers,
                reason=decision.reason.value,
            )
        )

    # Giving back --------------------------------------------------------------------------------------------------

    def compact(self, now: float, signals: SignalState | None) -> None:
        """Give a node back when the policy says so twice. Looked at after departures and in the policy's own period."""
        confirming = self._proposal is not None and now >= self._proposal.since_s + self._settings.validate_s
        departed = self._view.departures != self._seen_departures
        if not confirming and not departed and self._look_s is not None and now < self._look_s:
            return
        self._seen_departures = self._view.departures
        decision = compaction.decide(self._settings.compaction, self.compaction_state(now, signals), now)
        self._look_s = decision.recheck_s if self._view.of(kinds.NodeClaim) else None
        if not isinstance(decision.plan, Vacate):
            self._proposal = None
            self._log.add(decision, now)
            return
        self._look_s = now + self._settings.compaction.check_every_s
        if self._proposal is None or self._proposal.node != decision.plan.node:
            self._proposal = _Proposal(node=decision.plan.node, since_s=now)
        if now < self._proposal.since_s + self._settings.validate_s:
            return
        self._proposal = None
        claim = self._claim_of(decision.plan.node)
        if claim is None:
            return
        self._log.add(decision, now)
        claim = self._claims.drain(claim, now, decision.reason.value)
        self._moves.begin(claim, decision.plan.moves, now)
        # The node is on its way out; the next candidate is looked at afresh.
        self._look_s = now

    def compaction_state(self, now: float, signals: SignalState | None) -> compaction.State:
        """What the compaction policy sees now."""
        busy = bool(self._view.waiting) or any(self._view.pods_on.values())
        if busy:
            self._empty_since_s = None
        elif self._empty_since_s is None:
            self._empty_since_s = now
        claims = self._view.of(kinds.NodeClaim).values()
        failed = self._moves.failed_since(now - DAY_S)
        frozen = next((window.name for window in self._settings.freeze if window.open_at(now)), "")
        return compaction.State(
            pool=self._settings.name,
            inventory=self._view.ledger.allocator,
            candidates=tuple(
                self._candidate(claim, failed=claim.meta.name in failed)
                for claim in claims
                if claim.state is ClaimState.READY and self._view.ledger.allocator.has_node(claim.node)
            ),
            draining=sum(1 for claim in claims if claim.state is ClaimState.DRAINING),
            moves_last_day=self._moves.last_day(now),
            empty_since_s=self._empty_since_s,
            signals=signals,
            frozen=frozen,
            started_s=self._started_s,
        )

    def _candidate(self, claim: kinds.NodeClaim, *, failed: bool) -> compaction.Candidate:
        history = self._market.remembered(claim.offer)
        return compaction.Candidate(
            node=claim.node,
            gpus=claim.offer.shape.gpus,
            protected=self._protected(claim.node) or ("a move off it failed within a day" if failed else ""),
            gaps_s=history.gaps_s,
            bought_s=history.bought_s,
        )

    def _protected(self, node: str) -> str:
        """Who asked that this node, or a pod on it, stays; empty for nobody."""
        known = self._view.of(kinds.Node).get(node)
        objects: Sequence[kinds.Node | kinds.Pod] = tuple(self._view.pods_on.get(node, {}).values())
        for obj in (known, *objects) if known else objects:
            if obj.meta.annotations.get(kinds.DO_NOT_DISRUPT) == "true":
                return obj.meta.key
        return ""

    def _claim_of(self, node: str) -> kinds.NodeClaim | None:
        claims = self._view.of(kinds.NodeClaim).values()
        return next((claim for claim in claims if claim.node == node and claim.state is ClaimState.READY), None)


def _may_cost(claim: kinds.NodeClaim) -> tuple[Offer, ...]:
    """What a claim is charged for: while it may still fail over, the dearest it could come to; then what was bought."""
    undecided = claim.state in (ClaimState.PENDING, ClaimState.ORDERING)
    return claim.offers if undecided else (claim.offer,)
