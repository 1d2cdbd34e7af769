"""Replicas to zero and back: asks the activity source about every workload whose turn it is, decides, and stores.

A workload has its turn when it changed, when the policy said that its answer may change by itself, and at the latest
after ``poll_s``. The scale write carries who caused the zero and how many replicas there were, so that a new
controller, or a user, can tell our zero from somebody else's.
"""

import dataclasses
import math
from collections.abc import Callable

from autoscaler.engine.log import DecisionLog
from autoscaler.engine.view import ClusterView
from autoscaler.model import kinds
from autoscaler.model.ports import Activity, ActivitySource
from policies import keep_alive, scale_to_zero
from policies.decisions import Action, Decision, Reason, Scale
from policies.signals import SignalState
from vgpu.errors import TidegateError

_WORST = (SignalState.UNREACHABLE, SignalState.INVALID, SignalState.STALE, SignalState.ABSENT)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ScalingSettings:
    """Scaling of all workloads of a cluster."""

    spec: scale_to_zero.Spec
    poll_s: float = 30.0
    """Longest time between two looks at one workload, seconds."""


@dataclasses.dataclass(slots=True)
class _Memory:
    """What is kept of one workload between looks; all of it can be learnt again."""

    seen_version: int = -1
    due_s: float = 0.0
    spell: int = 0
    chosen: keep_alive.KeepAlive | None = None
    state: SignalState = SignalState.VALID


class Scaling:
    """Scales the workloads of one cluster to zero and back."""

    def __init__(self, *, settings: ScalingSettings, source: ActivitySource, started_s: float) -> None:
        self._settings = settings
        self._source = source
        self._started_s = started_s
        self._memory: dict[str, _Memory] = {}

    def health(self) -> SignalState | None:
        """The worst state of the activity signals at their last look; None before there was one."""
        states = {memory.state for memory in self._memory.values()}
        return next((state for state in _WORST if state in states), SignalState.VALID if states else None)

    def next_wake_s(self) -> float | None:
        return min((memory.due_s for memory in self._memory.values()), default=None)

    def cycle(self, view: ClusterView, now: float, log: DecisionLog, note: Callable[[str, Exception], None]) -> None:
        """Look at every workload whose turn it is. One workload's failure is that workload's failure."""
        workloads = view.of(kinds.Workload)
        for key in [key for key in self._memory if key not in workloads]:
            del self._memory[key]
        for key, workload in list(workloads.items()):
            memory = self._memory.setdefault(key, _Memory())
            if workload.meta.resource_version == memory.seen_version and now < memory.due_s:
                continue
            memory.seen_version = workload.meta.resource_version
            memory.due_s = now + self._settings.poll_s
            try:
                self._look(workload, memory, view, now, log)
            except TidegateError as error:
                note(key, error)
                memory.seen_version = -1
                memory.due_s = now + min(5.0, self._settings.poll_s)

    def _look(self, workload: kinds.Workload, memory: _Memory, view: ClusterView, now: float, log: DecisionLog) -> None:
        if workload.replicas and workload.meta.annotations.get(kinds.ZEROED_BY) == scale_to_zero.OURS:
            # Somebody else raised it: the marks of our zero must not speak for a zero of theirs.
            workload = view.patch(workload, annotations=dict.fromkeys((kinds.ZEROED_BY, kinds.RESTORE_REPLICAS)))
            memory.seen_version = workload.meta.resource_version
        known = self._source.activity(workload.meta.key, at=now)
        memory.state = _worst_of(known, measured=workload.ready_replicas > 0)
        decision = scale_to_zero.decide(self._settings.spec, self._state(workload, memory, known, view, now), now)
        log.add(decision, now)
        if isinstance(decision.plan, Scale):
            stored = view.patch(
                workload,
                replicas=decision.plan.replicas,
                annotations=_marks(workload, decision.action, decision.plan.replicas, now),
            )
            memory.seen_version = stored.meta.resource_version
        memory.due_s = min(memory.due_s, self._again_s(decision, memory, known, now))

    def _state(
        self, workload: kinds.Workload, memory: _Memory, known: Activity, view: ClusterView, now: float
    ) -> scale_to_zero.State:
        marks = workload.meta.annotations
        starting = (
            [
                pod.meta.created_s
                for pod in view.of(kinds.Pod).values()
                if pod.meta.labels.get(kinds.WORKLOAD_LABEL) == workload.meta.key and not pod.ready
            ]
            if workload.ready_replicas < workload.replicas
            else []
        )
        return scale_to_zero.State(
            workload=workload.meta.key,
            replicas=workload.replicas,
            ready=workload.ready_replicas,
            pending=max(0, workload.replicas - workload.ready_replicas),
            oldest_pending_s=now - min(starting) if starting else None,
            restore_replicas=_number(marks.get(kinds.RESTORE_REPLICAS), default=1),
            zeroed_by=marks.get(kinds.ZEROED_BY, ""),
            last_active_s=known.last_active_s,
            last_wake_s=_seconds(marks.get(kinds.LAST_WAKE)),
            controller_started_s=self._started_s,
            activity=known.activity,
            presence=known.presence,
            wake=known.wake,
            gaps=known.gaps,
            rate_rps=known.rate_rps,
            load_s=known.load_s,
            chosen=self._chosen(memory, known, now),
        )

    def _chosen(self, memory: _Memory, known: Activity, now: float) -> keep_alive.KeepAlive | None:
        """The learnt time-out, chosen once per idle spell from what is known when the spell has become one."""
        spec = self._settings.spec
        if spec.keep_alive == "fixed" or known.rate_rps is None or known.last_active_s is None:
            return None
        idle = now - known.last_active_s >= spec.learnt.minimum_s
        spell = hash((known.last_active_s, len(known.gaps), known.gaps[-1:]))
        if memory.chosen is None or (idle and memory.spell != spell):
            memory.spell = spell
            memory.chosen = keep_alive.choose(known.gaps, known.rate_rps, spec.learnt, load_s=known.load_s or 0.0)
        return memory.chosen

    def _again_s(self, decision: Decision, memory: _Memory, known: Activity, now: float) -> float:
        """When the answer may change without any event. In use: not before the time-out has passed since."""
        again_s = now + self._settings.poll_s if decision.recheck_s is None else decision.recheck_s
        if decision.reason in (Reason.ACTIVE, Reason.IDLE_TOO_SHORT) and known.last_active_s is not None:
            spec = self._settings.spec
            wait_s = memory.chosen.t_s if memory.chosen is not None else spec.idle_after_s
            again_s = max(again_s, known.last_active_s + wait_s)
        return max(again_s, now + 1e-3)


def _marks(workload: kinds.Workload, action: Action, replicas: int, now: float) -> dict[str, str | None]:
    """Annotations that go with a scale write: who did it, and what there was before."""
    if action is Action.SCALE_UP:
        return {kinds.ZEROED_BY: None, kinds.RESTORE_REPLICAS: None, kinds.LAST_WAKE: repr(now)}
    if replicas > 0:
        return {}
    return {kinds.ZEROED_BY: scale_to_zero.OURS, kinds.RESTORE_REPLICAS: str(max(1, workload.replicas))}


def _worst_of(known: Activity, *, measured: bool) -> SignalState:
    """The worst of what should be there: without a ready pod (not ``measured``) that is the wake signals alone."""
    states = {signal.state for signal in known.wake}
    if measured:
        states |= {signal.state for signal in known.activity}
        if known.presence is not None:
            states.add(known.presence.state)
    return next((state for state in _WORST if state in states), SignalState.VALID)


def _number(text: str | None, *, default: int) -> int:
    """A count that stands in an annotation; anything else counts as absent (a user may have edited it)."""
    return int(text) if text is not None and text.isdecimal() else default


def _seconds(text: str | None) -> float | None:
    """A time that stands in an annotation; anything that is no finite number counts as absent."""
    try:
        time_s = math.nan if text is None else float(text)
    except ValueError:
        return None
    return time_s if math.isfinite(time_s) else None
