"""One cycle: observe, decide, guard, act; outcomes are learnt in a later cycle.

The controller holds nothing that cannot be rebuilt from lists: throw it away after any effect, build a new one on the
same cluster and cloud, and it goes on without buying, moving or ending anything twice.
"""

import dataclasses
from collections.abc import Callable

from autoscaler.engine.capacity import Capacity, PoolSettings
from autoscaler.engine.claims import Claims, Timing
from autoscaler.engine.log import DecisionLog
from autoscaler.engine.market import Market
from autoscaler.engine.moves import Moves
from autoscaler.engine.scaling import Scaling
from autoscaler.engine.view import ClusterView
from autoscaler.model.ports import Clock, ClusterApi, ClusterError
from policies.signals import SignalState
from providers.offers import Provider

BLIND_RETRY_S = 5.0
"""From a failed look at the cluster to the next one, seconds."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Something that went wrong with one object; the rest went on."""

    time_s: float
    subject: str
    error: str


class Controller:
    """Runs the pool and the scaled workloads of one cluster."""

    PROBLEMS_KEPT = 200
    """Newest problems kept for health reports; the count is never cut."""

    def __init__(
        self,
        *,
        cluster: ClusterApi,
        provider: Provider,
        clock: Clock,
        pool: PoolSettings,
        log: DecisionLog,
        timing: Timing | None = None,
        scaling: Scaling | None = None,
    ) -> None:
        self._clock = clock
        self.view = ClusterView(cluster)
        self.problems: list[Problem] = []
        self.problem_count = 0
        market = Market()
        self.claims = Claims(
            view=self.view, provider=provider, market=market, log=log, note=self._note, timing=timing or Timing()
        )
        self.moves = Moves(view=self.view, claims=self.claims, log=log, note=self._note)
        self.capacity = Capacity(
            settings=pool,
            view=self.view,
            provider=provider,
            market=market,
            claims=self.claims,
            moves=self.moves,
            log=log,
            started_s=clock.now(),
        )
        self._scaling = scaling
        self._log = log

    def cycle(self) -> float | None:
        """Observe, decide and act once; returns when to come back without any event, or None."""
        now = self._clock.now()
        try:
            self.view.refresh()
        except ClusterError as error:
            # Blind: nothing is decided on what may be stale.
            self._note("refresh", error)
            return now + BLIND_RETRY_S
        self.claims.observe(now)
        self._act(now)
        signals: SignalState | None = None
        if self._scaling is not None:
            self._scaling.cycle(self.view, now, self._log, self._note)
            signals = self._scaling.health()
        self._guarded("provisioning", lambda: self.capacity.provision(now))
        self._guarded("compaction", lambda: self.capacity.compact(now, signals))
        self._act(now)
        return self._next_wake_s(now)

    def _act(self, now: float) -> None:
        """Walk stored intents on. A drain that has just been emptied goes on in the same cycle."""
        self.moves.advance(now)
        self.claims.advance(now)

    def _guarded(self, subject: str, step: Callable[[], None]) -> None:
        try:
            step()
        except ClusterError as error:
            self._note(subject, error)

    def _next_wake_s(self, now: float) -> float | None:
        times = [self.claims.next_wake_s(now), self.moves.next_wake_s(now), self.capacity.next_wake_s()]
        if self._scaling is not None:
            times.append(self._scaling.next_wake_s())
        return min((max(time, now) for time in times if time is not None), default=None)

    def _note(self, subject: str, error: Exception) -> None:
        """Keep an error in sight: it ended one item's turn, not the cycle."""
        self.problem_count += 1
        self.problems.append(
            Problem(time_s=self._clock.now(), subject=subject, error=f"{type(error).__name__}: {error}")
        )
        del self.problems[: -self.PROBLEMS_KEPT]
