"""Walks every GPUNodeClaim through its life: from the intent to buy a machine to the proof that it is gone.

Two halves, in this order. ``observe`` reflects what cloud and cluster say. ``advance`` intends: it stores the next
intent and only then calls the cloud, always with what was stored. A crash between any two lines loses nothing and
buys nothing twice: a new controller finds the open attempt and sends the same order under the same key.

The cloud's list is asked for only while an order's outcome is open, while a machine is being given back, after a start,
when a node vanished, and in a sweep whose period is a setting.
"""

import dataclasses
from collections.abc import Callable, Mapping

from autoscaler.engine import attempts as attempts_of
from autoscaler.engine import lifecycle
from autoscaler.engine.log import DecisionLog
from autoscaler.engine.market import Market
from autoscaler.engine.periodic import Periodic
from autoscaler.engine.strays import Strays
from autoscaler.engine.view import ClusterView
from autoscaler.model import kinds
from autoscaler.model.kinds import ClaimState
from autoscaler.model.ports import ClusterError
from policies.decisions import Action, Decision, Evidence, Reason
from providers import errors
from providers.offers import Machine, MachineState, Order, Provider

POLICY = "claims"

_BACKOFF_S = (5.0, 10.0, 20.0, 40.0, 60.0)

_MEMORY_TOLERANCE = 0.95
"""Device memory that a node registers may fall short of the catalogue's nominal figure by this factor."""

REASONS: dict[errors.Why, Reason] = {
    errors.Why.CAPACITY: Reason.CAPACITY,
    errors.Why.QUOTA: Reason.QUOTA,
    errors.Why.THROTTLED: Reason.THROTTLED,
    errors.Why.AUTH: Reason.AUTH,
    errors.Why.INVALID: Reason.INVALID,
    errors.Why.TRANSIENT: Reason.OUTCOME_UNKNOWN,
    errors.Why.UNKNOWN: Reason.OUTCOME_UNKNOWN,
}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """Periods of the purchase path, seconds."""

    sweep_s: float = 1800.0
    """Between two comparisons of the cloud's list with the claims."""
    collect_grace_s: float = 120.0
    """How long a machine without a claim is left alone before it is terminated."""
    poll_s: float = 60.0
    """Between two questions after a machine that has not joined yet."""
    confirm_s: float = 5.0
    """From a terminate call to the first look whether the machine is gone."""


class Claims:
    """The claims of one pool and the machines behind them."""

    def __init__(
        self,
        *,
        view: ClusterView,
        provider: Provider,
        market: Market,
        log: DecisionLog,
        note: Callable[[str, Exception], None],
        timing: Timing,
    ) -> None:
        self._view = view
        self._provider = provider
        self._market = market
        self._log = log
        self._note = note
        self._timing = timing
        self._due: dict[str, float] = {}
        self._tries: dict[str, int] = {}
        self._listing: Mapping[str, Machine] | None = None
        self._strays = Strays(
            provider=provider, log=log, note=note, grace_s=timing.collect_grace_s, again_s=timing.confirm_s
        )
        self._sweeps = Periodic(timing.sweep_s)
        self._next_sweep_s: float | None = None
        self._started_s: float | None = None
        self._unanswered_s: dict[str, float] = {}
        """Claim to when a purchase call for it last ended without an answer."""
        self._nodeless_s: dict[str, float] = {}
        """Claim in service to since when its node has been missing."""

    # What others ask ----------------------------------------------------------------------------------------------

    def next_wake_s(self, now: float) -> float | None:
        """When something is due without any event; None when nothing is."""
        times = [time for key, time in self._due.items() if key in self._view.of(kinds.NodeClaim)]
        if self._next_sweep_s is not None:
            times.append(self._next_sweep_s)
        return max(min(times), now) if times else None

    # One cycle ----------------------------------------------------------------------------------------------------

    def observe(self, now: float) -> None:
        """Passive transitions: reflect what cloud and cluster say. One claim's failure is that claim's failure."""
        if self._started_s is None:
            self._started_s = now
            self._market.recover(self._view.of(kinds.NodeClaim).values())
        self._listing = self._ask_list(now) if self._list_wanted(now) else None
        for claim in list(self._view.of(kinds.NodeClaim).values()):
            # A machine in service is only looked at beside a fresh list: the common case costs nothing.
            if claim.state is not ClaimState.READY or self._listing is not None:
                self._isolated(claim, now, self._reflect)
        if self._listing is not None:
            again_s = self._strays.collect(self._listing, self._view.of(kinds.NodeClaim).values(), now)
            if again_s is not None:
                self._next_sweep_s = min(again_s, self._next_sweep_s or again_s)

    def advance(self, now: float) -> None:
        """Active transitions: store the next intent, then act on it."""
        for claim in list(self._view.of(kinds.NodeClaim).values()):
            if claim.state is ClaimState.READY and claim.meta.deleting_s is None and not self._nodeless(claim):
                # In service: nothing is intended, and nothing is left to be waited for.
                self._settle(claim.meta.key)
                continue
            if self._due.get(claim.meta.key, now + 1) <= now:
                # Its turn has come; what is still to be waited for is said anew by the step itself.
                del self._due[claim.meta.key]
            self._isolated(claim, now, self._intend)

    def _isolated(self, claim: kinds.NodeClaim, now: float, step: Callable[[kinds.NodeClaim, float], None]) -> None:
        try:
            step(claim, now)
        except (ClusterError, errors.BuyError) as error:
            # Conflict and friends: the next cycle reads the object again and decides again.
            self._note(claim.meta.key, error)
            self._retry(claim.meta.key, now)

    # The cloud's list -----------------------------------------------------------------------------------------------

    def _list_wanted(self, now: float) -> bool:
        if self._next_sweep_s is None or now >= self._next_sweep_s:
            return True
        for key, claim in self._view.of(kinds.NodeClaim).items():
            if claim.state is ClaimState.TERMINATING and self._due.get(key, now) <= now:
                return True
            if claim.state is ClaimState.ORDERING and key in self._tries and self._due.get(key, now) <= now:
                return True
            if self._nodeless(claim) and self._due.get(key, now) <= now:
                return True
        return self._strays.known

    def _ask_list(self, now: float) -> Mapping[str, Machine] | None:
        """Machines by order key; None when the cloud did not answer."""
        try:
            machines = self._provider.list()
        except errors.BuyError as error:
            self._note("list", error)
            self._next_sweep_s = now + _BACKOFF_S[2]
            return None
        self._next_sweep_s = self._sweeps.after(now)
        alive = (MachineState.PENDING, MachineState.RUNNING, MachineState.STOPPING)
        return {machine.key: machine for machine in machines if machine.state in alive}

    # Passive transitions ----------------------------------------------------------------------------------------------

    def _reflect(self, claim: kinds.NodeClaim, now: float) -> None:
        state = claim.state
        if state is ClaimState.ORDERING:
            machine = self._listed(claim)
            if machine is not None:
                self._launched(claim, machine, now)
            return
        if state is ClaimState.TERMINATING:
            if self._listing is not None and self._listed(claim) is None and self._list_proves(claim, now):
                self._finish(claim)
            return
        if state in _HAS_MACHINE and self._vanished(claim, now):
            self._to(claim, ClaimState.FAILED, now, Reason.MACHINE_LOST.value)
            self._decide(now, Action.FAIL_OVER, claim.meta.name, Reason.MACHINE_LOST, {"was": state.value})
            return
        # A node that is in service at once passes through three states in one cycle: each is written and seen.
        if claim.state is ClaimState.LAUNCHED and claim.meta.name in self._view.node_of_claim:
            node = self._view.node_of_claim[claim.meta.name]
            claim = self._to(claim, ClaimState.REGISTERED, now, "", node=node)
        if claim.state is ClaimState.REGISTERED and self._initialised(claim) is None:
            claim = self._to(claim, ClaimState.INITIALIZED, now, "")
        if claim.state is ClaimState.INITIALIZED:
            node_object = self._view.of(kinds.Node).get(claim.node)
            if node_object is not None and node_object.ready and not node_object.unschedulable:
                self._to(claim, ClaimState.READY, now, "")

    def _listed(self, claim: kinds.NodeClaim) -> Machine | None:
        if self._listing is None:
            return None
        found = (self._listing.get(attempt.key) for attempt in reversed(claim.attempts))
        return next((machine for machine in found if machine is not None), None)

    def _list_proves(self, claim: kinds.NodeClaim, now: float) -> bool:
        """Whether a list without the machine proves that there is none: not within five minutes of the last purchase
        call that may have bought it. What controllers before this one called, and when, nobody knows: this one's start
        stands for it.
        """
        attempt = claim.attempt
        if attempt is not None and attempt.outcome:
            return True
        last_s = max(attempts_of.ordered_s(claim), self._unanswered_s.get(claim.meta.key, 0.0), self._started_s or 0.0)
        return now - last_s >= lifecycle.EMPTY_LIST_PROVES_S

    def _vanished(self, claim: kinds.NodeClaim, now: float) -> bool:
        """Whether the machine is gone: missing from the list, and gone too when asked for by its own id. One look is
        not enough: a list that is wrong must not end machines that work.
        """
        if (
            self._listing is None
            or self._listed(claim) is not None
            or now - attempts_of.ordered_s(claim) < lifecycle.EMPTY_LIST_PROVES_S
        ):
            return False
        return self._provider.poll(attempts_of.machine(claim)).state in (MachineState.GONE, MachineState.FAILED)

    def _nodeless(self, claim: kinds.NodeClaim) -> bool:
        return claim.state in _HAS_NODE and claim.node not in self._view.of(kinds.Node)

    def _initialised(self, claim: kinds.NodeClaim) -> str | None:
        """None once the node registered every GPU that was bought, else what is missing."""
        node = self._view.of(kinds.Node).get(claim.node)
        shape = claim.offer.shape
        if node is None or not node.ready:
            return "node not ready"
        if len(node.devices) < shape.gpus:
            return f"{len(node.devices)} of {shape.gpus} GPUs registered"
        for device in node.devices:
            expected, found = shape.gpu_memory_mib, device.memory_mib
            if expected is not None and found is not None and found < expected * _MEMORY_TOLERANCE:
                return f"device {device.uuid} has {found} of {expected} MiB"
        return None

    # Active transitions -----------------------------------------------------------------------------------------------

    def _intend(self, claim: kinds.NodeClaim, now: float) -> None:
        match claim.state:
            case ClaimState.PENDING:
                if claim.meta.deleting_s is not None:
                    self._drop(self._to(claim, ClaimState.FAILED, now, "Deleted"), now)
                else:
                    self._order_next(claim, now)
            case ClaimState.ORDERING:
                if self._is_due(claim, now):
                    self._warn(claim, now)
                    self._order(claim, now, repeated=True)
            case ClaimState.LAUNCHED | ClaimState.REGISTERED | ClaimState.INITIALIZED:
                self._await_node(claim, now)
            case ClaimState.READY:
                if claim.meta.deleting_s is not None:
                    self.drain(claim, now, "Deleted")
                else:
                    self._await_return(claim, now)
            case ClaimState.DRAINING:
                self._drained(claim, now)
            case ClaimState.FAILED:
                self._drop(claim, now)
            case ClaimState.TERMINATING:
                if self._is_due(claim, now):
                    self._warn(claim, now)
                    self._terminate(claim, now)

    def _order_next(self, claim: kinds.NodeClaim, now: float) -> None:
        """Store the next attempt, then make its call. No offer left: the claim has failed."""
        tried = {attempt.offer.id for attempt in claim.attempts}
        blocked = self._market.cooling(claim.offers, now)
        left = [offer for offer in claim.offers if offer.id not in tried and offer.id not in blocked]
        if not left:
            self._drop(self._to(claim, ClaimState.FAILED, now, "NoOfferLeft"), now)
            return
        number = len(claim.attempts) + 1
        attempt = kinds.Attempt(
            number=number,
            key=attempts_of.order_key(claim.meta.uid, number),
            offer=left[0],
            parameter_hash=attempts_of.parameter_hash(left[0], ""),
        )
        attempts = (*claim.attempts, attempt)
        claim = self._to(claim, ClaimState.ORDERING, now, f"attempt {number}: {attempt.offer.id}", attempts=attempts)
        self._market.remembered(attempt.offer).bought(now)
        self._order(claim, now, repeated=False)

    def _order(self, claim: kinds.NodeClaim, now: float, *, repeated: bool) -> None:
        """Send the stored attempt. The same order may be sent any number of times: the key makes it one purchase.

        ``repeated``: an earlier call of this attempt may have been made, by this controller or one before it.
        """
        attempt = claim.attempt
        assert attempt is not None, "Ordering is only entered together with an attempt"
        order = Order(
            key=attempt.key,
            offer=attempt.offer,
            user_data=attempt.user_data,
            labels={"tidegate-claim": claim.meta.name, "tidegate-pool": claim.pool},
        )
        try:
            machine = self._provider.launch(order)
        except errors.BuyError as error:
            self._refused(claim, attempt, error, now, settled=not repeated or self._settles(claim, error, now))
            return
        self._launched(claim, machine, now)

    def _launched(self, claim: kinds.NodeClaim, machine: Machine, now: float) -> None:
        attempts = tuple(
            attempts_of.closed(attempt, attempts_of.LAUNCHED, machine.ticket) if attempt.key == machine.key else attempt
            for attempt in claim.attempts
        )
        self._settle(claim.meta.key)
        self._to(
            claim,
            ClaimState.LAUNCHED,
            now,
            "",
            attempts=attempts,
            machine_id=machine.id,
            provider_id=machine.provider_id,
        )

    def _refused(
        self, claim: kinds.NodeClaim, attempt: kinds.Attempt, error: errors.BuyError, now: float, *, settled: bool
    ) -> None:
        """React to a purchase that failed, as the table in ``providers.errors`` says. ``settled``: the refusal
        answers for every call that was made under the attempt's key.
        """
        reaction = errors.REACTIONS[error.why]
        evidence: dict[str, Evidence] = {
            "offer": attempt.offer.id,
            "attempt": attempt.number,
            "code": error.code,
            "scope": error.scope.value,
        }
        known = error.launched is False and settled
        if error.launched is None:
            self._unanswered_s[claim.meta.key] = now
        self._decide(
            now,
            Action.FAIL_OVER if known and reaction.next_offer else Action.NOTHING,
            claim.meta.name,
            REASONS[error.why] if known else Reason.OUTCOME_UNKNOWN,
            evidence,
        )
        if not known or not reaction.next_offer:
            # The same order again, under the same key; never another offer while this outcome is open.
            self._retry(claim.meta.key, now, at_least_s=error.retry_after_s or reaction.retry_s)
            return
        self._market.cool(attempt.offer, error.scope, now + reaction.cool_s)
        self._settle(claim.meta.key)
        outcome = f"{error.why.value}:{error.scope.value}:{error.code}"
        attempts = (*claim.attempts[:-1], attempts_of.closed(attempt, outcome, "", refused_s=now))
        claim = self._view.patch(claim, attempts=attempts)
        self._order_next(claim, now)

    def _settles(self, claim: kinds.NodeClaim, error: errors.BuyError, now: float) -> bool:
        """Whether a refusal of a repeated order also answers for the earlier calls under its key.

        A cloud looks at the key before it looks for capacity or quota, so those refusals do. Others (credentials, a
        parameter that is no longer valid) may come before that look: then only a list without the machine proves it.
        """
        if error.why in _AFTER_KEY_CHECK:
            return True
        return self._listing is not None and self._listed(claim) is None and self._list_proves(claim, now)

    def _await_node(self, claim: kinds.NodeClaim, now: float) -> None:
        deadline = lifecycle.DEADLINES[claim.state]
        assert deadline.after_s is not None
        limit = claim.entered_s + deadline.after_s
        missing = self._initialised(claim) if claim.state is not ClaimState.LAUNCHED else "node not registered"
        if claim.meta.deleting_s is not None:
            self._drop(self._to(claim, ClaimState.FAILED, now, "Deleted"), now)
            return
        if now >= limit:
            evidence: dict[str, Evidence] = {
                "state": claim.state.value,
                "missing": missing,
                "after_s": deadline.after_s,
            }
            self._decide(now, Action.FAIL_OVER, claim.meta.name, Reason.DEADLINE_PASSED, evidence)
            self._market.cool(claim.offer, errors.Scope.OFFER, now + errors.REACTIONS[errors.Why.CAPACITY].cool_s)
            self._drop(self._to(claim, ClaimState.FAILED, now, f"DeadlinePassed: {missing}"), now)
            return
        key = claim.meta.key
        if claim.state is not ClaimState.LAUNCHED:
            self._due[key] = limit
            return
        if key in self._due:
            return
        first_s = claim.entered_s + self._timing.poll_s
        if now >= first_s and not self._poll(claim, now):
            return
        self._due[key] = min(limit, first_s if now < first_s else now + self._timing.poll_s)

    def _await_return(self, claim: kinds.NodeClaim, now: float) -> None:
        """The machine runs but its node is gone: it may register again, for as long as a new one may take."""
        since_s = self._nodeless_s.setdefault(claim.meta.key, now)
        limit_s = lifecycle.DEADLINES[ClaimState.LAUNCHED].after_s
        assert limit_s is not None
        if now < since_s + limit_s:
            self._due[claim.meta.key] = min(now + self._timing.poll_s, since_s + limit_s)
            return
        evidence: dict[str, Evidence] = {"state": claim.state.value, "missing": "node", "after_s": limit_s}
        self._decide(now, Action.FAIL_OVER, claim.meta.name, Reason.DEADLINE_PASSED, evidence)
        self._drop(self._to(claim, ClaimState.FAILED, now, "DeadlinePassed: node gone"), now)

    def _poll(self, claim: kinds.NodeClaim, now: float) -> bool:
        """Ask after a machine that has not joined: an accepted purchase can still fail. False when it did."""
        try:
            machine = self._provider.poll(attempts_of.machine(claim))
        except errors.BuyError as error:
            if error.launched is None:
                self._note(claim.meta.key, error)
                return True
            self._market.cool(claim.offer, error.scope, now + errors.REACTIONS[error.why].cool_s)
            reason, evidence = REASONS[error.why], {"code": error.code}
        else:
            if machine.state not in (MachineState.GONE, MachineState.FAILED):
                return True
            reason, evidence = Reason.MACHINE_LOST, {"was": claim.state.value}
        self._decide(now, Action.FAIL_OVER, claim.meta.name, reason, evidence)
        self._drop(self._to(claim, ClaimState.FAILED, now, reason.value), now)
        return False

    def drain(self, claim: kinds.NodeClaim, now: float, reason: str) -> kinds.NodeClaim:
        """Give the node back: no new pods from here on. The cordon follows the stored intent."""
        claim = self._to(claim, ClaimState.DRAINING, now, reason)
        self.cordon(claim.node, cordoned=True)
        return claim

    def cancel_drain(self, claim: kinds.NodeClaim, now: float, reason: str) -> None:
        """The node stays in service after all. The cordon goes first: while the claim still says Draining, a crash in
        between is seen and walked again; the other way round the node would stay closed for ever.
        """
        self.cordon(claim.node, cordoned=False)
        self._to(claim, ClaimState.READY, now, reason)

    def cordon(self, name: str, *, cordoned: bool) -> None:
        node = self._view.of(kinds.Node).get(name)
        if node is not None and node.unschedulable is not cordoned:
            self._view.patch(node, unschedulable=cordoned)

    def _drained(self, claim: kinds.NodeClaim, now: float) -> None:
        """Give the machine back once its node holds no pods. When the grace is over, a claim that was deleted takes its
        pods with it, as its owner asked; a drain of our own is taken back, because saving money is no reason to kill.
        """
        self.cordon(claim.node, cordoned=True)
        # Look again after the cordon: a pod may have been bound in between.
        self._view.refresh()
        claim = self._view.of(kinds.NodeClaim).get(claim.meta.key, claim)
        if claim.state is not ClaimState.DRAINING:
            # An answer that was lost: the step had been stored already.
            return
        grace = lifecycle.DEADLINES[ClaimState.DRAINING].after_s
        assert grace is not None
        pods = self._view.pods_on.get(claim.node)
        if pods and now < claim.entered_s + grace:
            self._due[claim.meta.key] = claim.entered_s + grace
            return
        if pods and claim.meta.deleting_s is None:
            evidence: dict[str, Evidence] = {"pods": len(pods), "after_s": grace}
            self._decide(now, Action.CANCEL, claim.node, Reason.DEADLINE_PASSED, evidence)
            self.cancel_drain(claim, now, Reason.DEADLINE_PASSED.value)
            return
        self._market.remembered(claim.offer).gave_back(now)
        claim = self._to(claim, ClaimState.TERMINATING, now, "")
        self._terminate(claim, now)

    def _drop(self, claim: kinds.NodeClaim, now: float) -> None:
        """A failed claim: terminate what may run, or let go when certainly nothing does."""
        if claim.machine_id or any(not attempt.outcome for attempt in claim.attempts):
            claim = self._to(claim, ClaimState.TERMINATING, now, "")
            self._terminate(claim, now)
        else:
            self._finish(claim)

    def _terminate(self, claim: kinds.NodeClaim, now: float) -> None:
        machine = self._listed(claim) or (attempts_of.machine(claim) if claim.machine_id else None)
        self._retry(claim.meta.key, now, at_least_s=self._timing.confirm_s)
        if machine is not None:
            self._provider.terminate(machine)

    def _finish(self, claim: kinds.NodeClaim) -> None:
        """The machine is proven gone: let the object go."""
        self._settle(claim.meta.key)
        if claim.meta.deleting_s is None:
            self._view.delete(claim)
        marked = self._view.of(kinds.NodeClaim).get(claim.meta.key)
        if marked is not None:
            self._view.release(marked)

    # Inside -------------------------------------------------------------------------------------------------------

    def _to(
        self, claim: kinds.NodeClaim, state: ClaimState, now: float, reason: str, **changes: object
    ) -> kinds.NodeClaim:
        """Store a transition; only those of the table exist."""
        if not lifecycle.allowed(claim.state, state):
            raise AssertionError(f"claim {claim.meta.name}: {claim.state.value} → {state.value} is not in the table")
        stage = kinds.Stage(state=state.value, time_s=now, reason=reason)
        stored = self._view.patch(claim, state=state, history=(*claim.history, stage), **changes)
        if state is not claim.state:
            self._settle(claim.meta.key)
        return stored

    def _warn(self, claim: kinds.NodeClaim, now: float) -> None:
        """Say so when a state without a deadline lasts longer than it should."""
        warn_s = lifecycle.DEADLINES[claim.state].warn_s
        if warn_s is not None and now - claim.entered_s >= warn_s:
            evidence: dict[str, Evidence] = {"state": claim.state.value, "since_s": claim.entered_s, "after_s": warn_s}
            self._decide(now, Action.NOTHING, claim.meta.name, Reason.OVERDUE, evidence)

    def _is_due(self, claim: kinds.NodeClaim, now: float) -> bool:
        return self._due.get(claim.meta.key, now) <= now

    def _retry(self, key: str, now: float, at_least_s: float = 0.0) -> None:
        tries = self._tries.get(key, 0)
        self._tries[key] = tries + 1
        self._due[key] = now + max(_BACKOFF_S[min(tries, len(_BACKOFF_S) - 1)], at_least_s)

    def _settle(self, key: str) -> None:
        for memory in (self._tries, self._due, self._unanswered_s, self._nodeless_s):
            memory.pop(key, None)

    def _decide(
        self, now: float, action: Action, subject: str, reason: Reason, evidence: Mapping[str, Evidence]
    ) -> None:
        decision = Decision(policy=POLICY, action=action, subject=subject, reason=reason, evidence=evidence)
        self._log.add(decision, now)


_AFTER_KEY_CHECK = frozenset({errors.Why.CAPACITY, errors.Why.QUOTA})

_HAS_NODE = frozenset({ClaimState.REGISTERED, ClaimState.INITIALIZED, ClaimState.READY, ClaimState.DRAINING})
_HAS_MACHINE = _HAS_NODE | {ClaimState.LAUNCHED}
