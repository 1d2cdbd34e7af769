"""Replicas to zero when a workload is provably idle, and back when a signal that outlives its pods asks for it.

One rule stands above the others: missing data never lowers. Zero needs every activity signal fresh and quiet, the
pods proven to be seen at all, the wake signal proven to answer, and an idle time longer than the keep-alive. Waking
needs only one fresh wake signal. Between N and 1 replicas this policy decides nothing.

Must not know: clocks, clusters, where signals come from. Never fails on bad signals: the decision is then "nothing,
because …". A State that no world can contain is refused with InvalidRequest.
"""

import dataclasses
import math
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from policies import keep_alive as timeouts
from policies.decisions import Action, Decision, Evidence, Reason, Scale, Step
from policies.signals import Signal, SignalState
from vgpu.errors import InvalidRequest

NAME = "scale-to-zero"

OURS = "tidegate"
"""Value of ``State.zeroed_by`` for a zero that this policy caused."""


class Spec(BaseModel):
    """Settings of scaling to zero for one workload or many."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    keep_alive: Literal["learnt", "fixed"] = Field(
        default="learnt",
        description="Where the idle time before zero comes from: learnt from the workload's own gaps, or fixed "
        "(idle_after_s).",
    )
    idle_after_s: float = Field(
        default=900.0,
        ge=30,
        le=86_400,
        description="Idle time before zero when fixed, and while a learnt one has no request rate to go by. Seconds, "
        "30 to 86400.",
    )
    learnt: timeouts.Spec = Field(
        default_factory=timeouts.Spec, description="Settings of the learnt time-out; unused when fixed."
    )
    activity_threshold: float = Field(
        default=0.0,
        ge=0,
        le=1e9,
        description="An activity signal above this is activity. In the signal's own unit, 0 to 1e9.",
    )
    wake_threshold: float = Field(
        default=0.0, ge=0, le=1e9, description="A wake signal above this is demand. In the signal's own unit, 0 to 1e9."
    )
    max_signal_age_s: float = Field(
        default=180.0,
        ge=15,
        le=3_600,
        description="Older values count as stale, even if their source calls them valid. Seconds, 15 to 3600.",
    )
    min_uptime_s: float = Field(
        # A learnt keep-alive needs no more than a guard against thrashing: on benchmark 5 the 600 s that fixed timers
        # are given cost 1.7 to 1.9 % more GPU-hours (days 1-2, 20 s load) and spare next to no delay.
        default=60.0,
        ge=0,
        le=86_400,
        description="Time a woken workload stays up whatever happens. Seconds, 0 to 86400.",
    )
    start_deadline_s: float = Field(
        default=1_200.0,
        ge=60,
        le=7_200,
        description="A replica that is pending for longer counts as stuck. Seconds, 60 to 7200; stretched to twice the "
        "learnt load time where that is longer.",
    )
    require_presence: bool = Field(
        default=True,
        description="Believe a quiet signal only when the presence signal proves that the pods are being measured.",
    )
    own_manual_zero: bool = Field(
        default=False, description="Wake also a workload that somebody else set to zero. Normally a user's zero stays."
    )
    fallback_replicas: int | None = Field(
        default=None,
        ge=1,
        le=1_000,
        description="Replicas for a sleeping workload whose wake signals have all been stale for fallback_after_s. "
        "1 to 1000; unset: it sleeps on.",
    )
    fallback_after_s: float = Field(
        default=600.0, ge=180, le=86_400, description="Staleness before the fallback. Seconds, 180 to 86400."
    )

    @model_validator(mode="after")
    def _reachable(self) -> Self:
        if self.fallback_replicas is not None and self.fallback_after_s <= self.max_signal_age_s:
            raise ValueError(
                f"fallback_after_s={self.fallback_after_s:g}: give more than max_signal_age_s, "
                f"{self.max_signal_age_s:g}"
            )
        return self


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """What is known about one workload. Times are seconds on the clock of ``now``."""

    workload: str
    """``namespace/name``."""
    replicas: int
    """Wanted replicas as the cluster has them."""
    ready: int = 0
    pending: int = 0
    """Replicas that exist and are not ready."""
    oldest_pending_s: float | None = None
    """Age of the oldest pending replica."""
    restore_replicas: int = 1
    """Replicas it had before it was scaled to zero."""
    zeroed_by: str = ""
    """Who set it to zero: OURS, or anybody else (empty included), who then is taken for a user."""
    last_active_s: float | None = None
    """When activity or demand was last seen, by proof that reaches up to now (a gateway's last request, a range query,
    the value stored by the controller before it restarted). None when nobody can say."""
    last_wake_s: float | None = None
    """When it was last raised from zero."""
    controller_started_s: float
    activity: tuple[Signal, ...] = ()
    """Signals that are above the threshold while the workload works (duty cycle, requests running, request rate)."""
    presence: Signal | None = None
    """Above 0 exactly when the pods' exporter is being read."""
    wake: tuple[Signal, ...] = ()
    """Demand measured outside the pods (gateway, queue): it exists at zero replicas."""
    gaps: tuple[timeouts.Gap, ...] = ()
    """Past gaps between requests, oldest first; only the newest ``learnt.history_gaps`` are looked at."""
    rate_rps: float | None = None
    """``keep_alive.quiet_rate`` of the workload; None when unknown."""
    load_s: float | None = None
    """Learnt time from wake to ready; None when unknown."""
    chosen: timeouts.KeepAlive | None = None
    """The learnt time-out, when the caller has it already for these very gaps: spares the choice in every cycle."""
    other_owner: str = ""
    """Another scaler that owns the replicas (an HPA, a ScaledObject); empty for none."""
    frozen: frozenset[Action] = frozenset()
    """Actions that a guardrail forbids now."""
    price_unknown: bool = False
    """A spend cap holds and nobody knows what another replica would cost."""

    def __post_init__(self) -> None:
        if not self.workload:
            raise InvalidRequest(f"state.workload={self.workload!r}: give namespace/name")
        for name in ("replicas", "ready", "pending"):
            if getattr(self, name) < 0:
                raise InvalidRequest(f"state.{name}={getattr(self, name)!r}: give a count of at least 0")
        for name in ("oldest_pending_s", "last_active_s", "last_wake_s", "controller_started_s", "load_s"):
            value: float | None = getattr(self, name)
            if value is not None and not math.isfinite(value):
                raise InvalidRequest(f"state.{name}={value!r}: give finite seconds, or None where it is unknown")
        if self.rate_rps is not None and not 0 < self.rate_rps < math.inf:
            raise InvalidRequest(
                f"state.rate_rps={self.rate_rps!r}: give requests per second above 0, or None if unknown"
            )
        if self.load_s is not None and self.load_s < 0:
            raise InvalidRequest(
                f"state.load_s={self.load_s!r}: give seconds of at least 0, or None where it is unknown"
            )


_BAD: tuple[tuple[SignalState, Reason], ...] = (
    (SignalState.UNREACHABLE, Reason.SIGNAL_UNREACHABLE),
    (SignalState.INVALID, Reason.SIGNAL_INVALID),
    (SignalState.STALE, Reason.SIGNAL_STALE),
    (SignalState.ABSENT, Reason.SIGNAL_ABSENT),
)
"""Which bad state is named first when there are several: the one that most likely explains the others."""


def _judged(signal: Signal, spec: Spec) -> SignalState:
    """The signal's state; Valid only when value and age bear it out."""
    if signal.state is not SignalState.VALID:
        return signal.state
    if signal.value is None or not math.isfinite(signal.value) or signal.value < 0:
        return SignalState.INVALID
    if signal.age_s is None or not math.isfinite(signal.age_s):
        return SignalState.INVALID
    return SignalState.STALE if signal.age_s > spec.max_signal_age_s else SignalState.VALID


def _worst(signals: tuple[Signal, ...], spec: Spec) -> tuple[Reason, Signal | None] | None:
    """Why the signals as a whole cannot be believed, and which one is at fault; None when they can. No signal at all is
    an absent one.
    """
    if not signals:
        return Reason.SIGNAL_ABSENT, None
    for state, reason in _BAD:
        for signal in signals:
            if _judged(signal, spec) is state:
                return reason, signal
    return None


def _highest(signals: tuple[Signal, ...], spec: Spec) -> Signal | None:
    """The Valid signal with the highest value; None when none is Valid."""
    valid = [signal for signal in signals if _judged(signal, spec) is SignalState.VALID]
    return max(valid, key=lambda signal: signal.value or 0.0) if valid else None


def _about(kind: str, signal: Signal | None) -> dict[str, Evidence]:
    """A signal as evidence. NaN and infinity are spelt out, for a decision is written as JSON."""
    if signal is None:
        return {kind: None}
    value = signal.value
    known: dict[str, Evidence] = {
        kind: signal.name,
        f"{kind}_state": signal.state.value,
        f"{kind}_value": value if value is None or math.isfinite(value) else str(value),
        f"{kind}_age_s": signal.age_s if signal.age_s is None or math.isfinite(signal.age_s) else str(signal.age_s),
    }
    if signal.detail:
        known[f"{kind}_detail"] = signal.detail
    return known


class _Trail:
    """Collects steps and evidence of one decision; lives no longer than the call."""

    def __init__(self, state: State) -> None:
        self._workload = state.workload
        self._steps: list[Step] = []
        self._evidence: dict[str, Evidence] = {
            "replicas": state.replicas,
            "ready": state.ready,
            "pending": state.pending,
        }

    def step(self, name: str, value: Evidence) -> None:
        self._steps.append(Step(name=name, value=value))

    def note(self, **evidence: Evidence) -> None:
        self._evidence |= evidence

    def end(
        self,
        reason: Reason,
        *,
        action: Action = Action.NOTHING,
        replicas: int | None = None,
        recheck_s: float | None = None,
    ) -> Decision:
        return Decision(
            policy=NAME,
            action=action,
            subject=self._workload,
            reason=reason,
            evidence=self._evidence,
            steps=tuple(self._steps),
            plan=None if replicas is None else Scale(workload=self._workload, replicas=replicas),
            recheck_s=recheck_s,
        )


def decide(spec: Spec, state: State, now: float) -> Decision:
    """One workload's decision: ScaleToZero, ScaleUp (from zero), Cancel (replicas that cannot start), or nothing.

    ``now`` is in seconds on the clock of the state's times. The steps name each constraint in the order in which it was
    checked; the last one decided.
    """
    trail = _Trail(state)
    trail.step("owner", state.other_owner or "none")
    if state.other_owner:
        trail.note(owner=state.other_owner)
        return trail.end(Reason.OTHER_OWNER)
    if state.replicas == 0:
        return _asleep(spec, state, now, trail)
    if state.pending:
        return _starting(spec, state, now, trail)
    return _awake(spec, state, now, trail)


def _asleep(spec: Spec, state: State, now: float, trail: _Trail) -> Decision:
    """At zero: wake or sleep on. Reads wake signals only, for those of the pods went with the pods."""
    demand = _highest(state.wake, spec)
    wanted = demand is not None and (demand.value or 0.0) > spec.wake_threshold
    trail.step("wake signal", "demand" if wanted else "none")
    if wanted:
        trail.note(**_about("wake", demand))
        return _wake(spec, state, max(1, state.restore_replicas), Reason.WAKE_SIGNAL, trail)
    bad = _worst(state.wake, spec)
    if bad is None:
        trail.note(**_about("wake", demand))
        return trail.end(Reason.ALREADY_ZERO)
    reason, signal = bad
    trail.step("wake signals trusted", reason.value)
    trail.note(**_about("wake", signal))
    ages = [s.age_s for s in state.wake if _judged(s, spec) is SignalState.STALE and s.age_s is not None]
    if spec.fallback_replicas is None or not ages or len(ages) < len(state.wake):
        return trail.end(reason)
    left_s = spec.fallback_after_s - min(ages)
    trail.step("stale for longer than the fallback", left_s <= 0)
    if left_s > 0:
        return trail.end(reason, recheck_s=now + left_s)
    return _wake(spec, state, spec.fallback_replicas, reason, trail)


def _wake(spec: Spec, state: State, replicas: int, reason: Reason, trail: _Trail) -> Decision:
    """Up from zero, unless somebody must be respected first."""
    trail.step("zeroed by", state.zeroed_by or "user")
    if state.zeroed_by != OURS and not spec.own_manual_zero:
        trail.note(zeroed_by=state.zeroed_by or "user")
        return trail.end(Reason.ZEROED_BY_USER)
    trail.step("frozen", Action.SCALE_UP in state.frozen)
    if Action.SCALE_UP in state.frozen:
        return trail.end(Reason.FROZEN)
    trail.step("price unknown under a spend cap", state.price_unknown)
    if state.price_unknown:
        return trail.end(Reason.PRICE_UNKNOWN)
    trail.step("replicas", replicas)
    return trail.end(reason, action=Action.SCALE_UP, replicas=replicas)


def _starting(spec: Spec, state: State, now: float, trail: _Trail) -> Decision:
    """With replicas pending: wait for them. One that cannot start is taken back once nobody wants it any more; serving
    replicas stay. The pods cannot report before they run, so demand is judged by the wake signals alone.
    """
    deadline_s = max(spec.start_deadline_s, 2 * (state.load_s or 0.0))
    age_s = state.oldest_pending_s
    trail.note(oldest_pending_s=age_s, start_deadline_s=deadline_s)
    stuck = age_s is not None and age_s >= deadline_s
    trail.step("pending past the deadline", stuck)
    if not stuck:
        return trail.end(Reason.REPLICAS_PENDING, recheck_s=None if age_s is None else now + deadline_s - age_s)
    bad = _worst(state.wake, spec)
    trail.step("wake signals trusted", bad is None)
    if bad is not None:
        trail.note(**_about("wake", bad[1]), wake_problem=bad[0].value)
        return trail.end(Reason.REPLICAS_STUCK)
    demand = _highest(state.wake, spec)
    trail.note(**_about("wake", demand))
    wanted = demand is not None and (demand.value or 0.0) > spec.wake_threshold
    trail.step("demand", wanted)
    if wanted:
        return trail.end(Reason.REPLICAS_STUCK)
    wait = _idle_wait(spec, state, now, trail)
    if wait is not None:
        return dataclasses.replace(wait, reason=Reason.REPLICAS_STUCK)
    frozen = bool(state.frozen & {Action.SCALE_TO_ZERO, Action.CANCEL})
    trail.step("frozen", frozen)
    if frozen:
        return trail.end(Reason.FROZEN)
    replicas = min(state.ready, state.replicas)
    trail.step("replicas", replicas)
    return trail.end(Reason.REPLICAS_STUCK, action=Action.CANCEL, replicas=replicas)


def _awake(spec: Spec, state: State, now: float, trail: _Trail) -> Decision:
    """With replicas and none pending: zero, if idleness is proven."""
    for kind, signals, threshold in (
        ("wake", state.wake, spec.wake_threshold),
        ("activity", state.activity, spec.activity_threshold),
    ):
        highest = _highest(signals, spec)
        active = highest is not None and (highest.value or 0.0) > threshold
        trail.step(f"{kind} signal", "active" if active else "quiet")
        if active:
            trail.note(**_about(kind, highest))
            return trail.end(Reason.ACTIVE, recheck_s=now + _shortest_s(spec))
    for kind, signals in (("activity", state.activity), ("wake", state.wake)):
        bad = _worst(signals, spec)
        trail.step(f"{kind} signals trusted", bad is None)
        if bad is not None:
            trail.note(**_about(kind, bad[1]))
            return trail.end(bad[0])
    if spec.require_presence:
        seen = state.presence
        proven = seen is not None and _judged(seen, spec) is SignalState.VALID and (seen.value or 0.0) > 0
        trail.step("presence proven", proven)
        if not proven:
            trail.note(**_about("presence", seen))
            return trail.end(Reason.PRESENCE_UNPROVEN)
    wait = _idle_wait(spec, state, now, trail)
    if wait is not None:
        return wait
    if state.last_wake_s is not None:
        up_s = now - state.last_wake_s
        trail.step("minimum uptime passed", up_s >= spec.min_uptime_s)
        if up_s < spec.min_uptime_s:
            trail.note(up_s=up_s, min_uptime_s=spec.min_uptime_s)
            return trail.end(Reason.MINIMUM_UPTIME, recheck_s=state.last_wake_s + spec.min_uptime_s)
    frozen = Action.SCALE_TO_ZERO in state.frozen
    trail.step("frozen", frozen)
    if frozen:
        return trail.end(Reason.FROZEN)
    trail.step("replicas", 0)
    return trail.end(Reason.IDLE_PROVEN, action=Action.SCALE_TO_ZERO, replicas=0)


def _shortest_s(spec: Spec) -> float:
    """No idle time below this can lead to zero."""
    if spec.keep_alive == "fixed":
        return spec.idle_after_s
    return min(spec.learnt.minimum_s, spec.idle_after_s)


def _idle_wait(spec: Spec, state: State, now: float, trail: _Trail) -> Decision | None:
    """Nothing yet, because the workload is not idle for long enough; None when it is. Without proof of the last
    activity the idle time counts from the controller's own start: it has seen no more than that.
    """
    watched = state.last_active_s is None
    since_s = state.controller_started_s if state.last_active_s is None else state.last_active_s
    reason = Reason.CONTROLLER_JUST_STARTED if watched else Reason.IDLE_TOO_SHORT
    idle_s = max(0.0, now - since_s)
    trail.note(idle_s=idle_s, idle_since="controller start" if watched else "last activity")
    if idle_s < _shortest_s(spec):  # the usual case by far: no need to choose a time-out for it
        trail.step("idle for the shortest keep-alive", value=False)
        return trail.end(reason, recheck_s=since_s + _shortest_s(spec))
    needed_s = _keep_alive_s(spec, state, trail)
    trail.step("idle for the keep-alive", idle_s >= needed_s)
    return trail.end(reason, recheck_s=since_s + needed_s) if idle_s < needed_s else None


def _keep_alive_s(spec: Spec, state: State, trail: _Trail) -> float:
    """The idle time that leads to zero: fixed, or learnt where there is a rate to learn from."""
    if spec.keep_alive == "fixed" or (state.chosen is None and state.rate_rps is None):
        trail.step("keep-alive", "fixed" if spec.keep_alive == "fixed" else "fixed: no request rate known yet")
        trail.note(keep_alive_s=spec.idle_after_s)
        return spec.idle_after_s
    chosen = state.chosen
    if chosen is None:
        assert state.rate_rps is not None
        chosen = timeouts.choose(state.gaps, state.rate_rps, spec.learnt, load_s=state.load_s or 0.0)
    trail.step("keep-alive", "learnt")
    trail.note(**{**chosen.evidence, "keep_alive_s": chosen.t_s})
    return chosen.t_s
