"""The gateway in front of scaled models, as a replay plays it: it holds requests for models that are not loaded.

It is part of the outside world. It asks for a wake by an annotation on the workload (a signal that outlives the pods),
answers what a gateway's metrics would answer, and counts which requests had to wait. It never tells anybody about a
request that has not come yet.
"""

import dataclasses
from collections.abc import Callable, Mapping

from autoscaler.backtest.servegen import ClientLoad
from autoscaler.embedded.world import EmbeddedWorld
from autoscaler.model import kinds, ports
from autoscaler.model.ports import Activity, EventType
from policies import keep_alive
from policies.signals import Signal, SignalState

RECENT_S = 30.0
"""Span of the gateway's request count, seconds."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Loading:
    """One load of a model: from the first request that had to wait until the model was unloaded again."""

    workload: str
    asked_s: float
    ready_s: float
    delayed: int
    """Requests that came before the load was done."""


class _Route:
    """The gateway's side of one model."""

    __slots__ = ("asked_s", "load", "pods", "ready", "workload")

    def __init__(self, workload: str, load: ClientLoad) -> None:
        self.workload = workload
        self.load = load
        self.pods: set[str] = set()
        self.ready: set[str] = set()
        self.asked_s: float | None = None
        """Since when requests wait; None while none does."""


class Gateway:
    """Routes for ``loads`` (by workload key). Implements ``ports.ActivitySource``."""

    def __init__(self, world: EmbeddedWorld, loads: Mapping[str, ClientLoad], *, history_gaps: int) -> None:
        self._world = world
        self._history = history_gaps
        self._routes = {workload: _Route(workload, load) for workload, load in loads.items()}
        self._gaps: dict[str, tuple[int, tuple[keep_alive.Gap, ...]]] = {}
        self.loadings: list[Loading] = []
        world.cluster.subscribe(self._observe)
        for route in self._routes.values():
            self._expect(route)

    # The world's side ---------------------------------------------------------------------------------------------

    def _expect(self, route: _Route) -> None:
        """The model is not loaded: its next request will have to wait."""
        now = self._world.clock.now()
        following = route.load.first_after(now)
        if following is not None:
            self._world.at(following, self._arrives(route))

    def _arrives(self, route: _Route) -> Callable[[], None]:
        def arrive() -> None:
            if route.ready or route.asked_s is not None:
                return
            route.asked_s = self._world.clock.now()
            workload = self._world.cluster.get(kinds.Workload, route.workload)
            self._world.cluster.patch(workload, annotations={kinds.WAKE_REQUESTED: repr(route.asked_s)})

        return arrive

    def _observe(self, event: ports.WatchEvent) -> None:
        pod = event.object
        if not isinstance(pod, kinds.Pod):
            return
        route = self._routes.get(pod.meta.labels.get(kinds.WORKLOAD_LABEL, ""))
        if route is None:
            return
        key = pod.meta.key
        if event.type is EventType.DELETED:
            route.ready.discard(key)
            if not route.ready and route.asked_s is None:
                self._expect(route)
        elif pod.ready and key not in route.ready:
            route.ready.add(key)
            self._loaded(route)

    def _loaded(self, route: _Route) -> None:
        if route.asked_s is None:
            return
        now = self._world.clock.now()
        delayed = route.load.count(route.asked_s, now)
        self.loadings.append(Loading(workload=route.workload, asked_s=route.asked_s, ready_s=now, delayed=delayed))
        route.asked_s = None

    # What it can be asked -------------------------------------------------------------------------------------------

    def activity(self, workload: str, *, at: float) -> Activity:
        """What the gateway has seen of ``workload`` up to ``at``."""
        route = self._routes.get(workload)
        if route is None:
            unknown = Signal(name="gateway_requests", labels={"workload": workload}, state=SignalState.ABSENT)
            return Activity(activity=(unknown,), wake=(unknown,))
        labels = {"workload": workload}

        def signal(name: str, value: float) -> Signal:
            return Signal(name=name, labels=labels, state=SignalState.VALID, value=value, age_s=0.0)

        counts, running_s = route.load.counts_until(at, keep_alive.BLOCK_S)
        return Activity(
            activity=(signal("gateway_requests", route.load.count(at - RECENT_S, at)),),
            presence=signal("gateway_up", 1.0),
            wake=(signal("gateway_requests_waiting", 0.0 if route.asked_s is None else 1.0),),
            last_active_s=route.load.last_before(at),
            gaps=self._finished(route, at),
            rate_rps=keep_alive.quiet_rate(counts, running_s),
            load_s=route.load.load_s,
        )

    def _finished(self, route: _Route, at: float) -> tuple[keep_alive.Gap, ...]:
        gaps = route.load.gaps_until(at, self._history)
        last = int(gaps.end_s[-1]) if len(gaps) else -1
        kept = self._gaps.get(route.workload)
        if kept is None or kept[0] != last:
            found = tuple(
                keep_alive.Gap(length_s=float(length), requests_within_load=int(near))
                for length, near in zip(gaps.length_s, gaps.within_load, strict=True)
            )
            kept = self._gaps[route.workload] = (last, found)
        return kept[1]
