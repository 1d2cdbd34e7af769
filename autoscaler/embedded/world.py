"""Ties the embedded world together: timed events, settling, and the driver that calls the controllers.

At one instant: first all timed events that are due, then everything settles (boot agent, jobs, workloads, kubelets,
scheduler) until nothing moves, then the controllers whose turn it is run one after the other, then it settles again.
Whatever the world changed by itself starts a batch timer; when it ends, all controllers are called. Order is by time,
then by the order in which things were asked for. It fails with Livelock when an instant does not end.
"""

import heapq
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Protocol

from autoscaler.embedded import book, checker, clock, jobs, kubelet, machines, scheduler, store, workloads
from providers.offers import Machine
from vgpu.errors import TidegateError

MAX_SETTLING = 100_000
"""Rounds of settling at one instant before it is called a livelock; one round moves a pod by one step."""


class Livelock(TidegateError):
    """Virtual time stands still because something asks to be called again and again at one instant."""


class Controller(Protocol):
    def cycle(self) -> float | None:
        """Do one round; returns when to be called even if nothing happens, None for only when something does."""
        ...


class EmbeddedWorld:
    """One cluster with everything that moves in it, apart from the controllers under test."""

    def __init__(
        self,
        *,
        machines_from: machines.MachineSource | None = None,
        boot_s: machines.BootTime = 180.0,
        missing_devices: Callable[[Machine], int] | None = None,
        move_hold_s: float = 60.0,
        batch_s: float = 1.0,
        start_s: float = 0.0,
        seed: int = 0,
        history: int = 10_000,
        strict: bool = False,
        max_cycles: int = 1000,
    ) -> None:
        self.clock = clock.VirtualClock(start_s)
        self.cluster = store.EmbeddedCluster(self.clock, seed=seed, history=history)
        self.batch_s = batch_s
        self.cycles = 0
        self._max_cycles = max_cycles
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._sequence = itertools.count()
        self._controllers: tuple[Controller, ...] = ()
        self._wakes: list[float | None] = []
        self._batch_at: float | None = None
        self._noted = 0
        """Newest version that the last call of ``run`` has seen."""
        self.book = book.Book()
        self.boot = machines.BootAgent(
            self.cluster, self.clock, self.at, machines_from, boot_s=boot_s, missing_devices=missing_devices
        )
        self.jobs = jobs.Jobs(self.cluster, self.clock, self.at)
        self.workloads = workloads.Workloads(self.cluster)
        self.kubelet = kubelet.Kubelet(self.cluster, self.book, self.clock, self.at, move_hold_s=move_hold_s)
        self.scheduler = scheduler.Scheduler(self.cluster, self.book)
        # The book first: the others ask it when they act.
        for part in (self.book, self.boot, self.jobs, self.workloads, self.kubelet, self.scheduler):
            self.cluster.subscribe(part.observe)
        if strict:
            checker.watch_strictly(self.cluster)

    # Time -------------------------------------------------------------------------------------------------------

    def at(self, time_s: float, fn: Callable[[], None]) -> None:
        """Call ``fn`` at second ``time_s``. Raises ValueError for a time in the past."""
        # "not >=" also refuses NaN, which would break the heap's order.
        if not time_s >= self.clock.now():
            raise ValueError(f"at({time_s!r}): it is {self.clock.now()!r} already; give a time from now on")
        heapq.heappush(self._heap, (time_s, next(self._sequence), fn))

    def next_time(self) -> float | None:
        """Time of the next timed event; None when there is none."""
        return self._heap[0][0] if self._heap else None

    def run_due(self) -> None:
        """Everything that is due now, settled."""
        now, heap = self.clock.now(), self._heap
        for _ in range(MAX_SETTLING):
            while heap and heap[0][0] <= now:
                heapq.heappop(heap)[2]()
            self.settle()
            if not heap or heap[0][0] > now:
                return
        raise Livelock(f"at {now!r}: events make new events for the same instant, {MAX_SETTLING} rounds so far")

    def settle(self) -> None:
        """Let boot agent, jobs, workloads, kubelets and scheduler act until none of them has anything left to do."""
        parts = (self.boot, self.jobs, self.workloads, self.kubelet, self.scheduler)
        for _ in range(MAX_SETTLING):
            moved = False
            for part in parts:
                moved = part.step() or moved
            if not moved:
                return
        raise Livelock(f"at {self.clock.now()!r}: the cluster does not settle in {MAX_SETTLING} rounds")

    # Driver -----------------------------------------------------------------------------------------------------

    def run(self, controllers: Sequence[Controller], until: float, *, stop: Callable[[], bool] | None = None) -> None:
        """Drive ``controllers`` up to and including second ``until``, or until ``stop`` says so after an instant.

        New controllers are called at once; the same ones again go on where the last call left off, so that a long run
        can be cut into pieces. What a controller raises ends the run; the world stays usable, as after a crash of the
        process, and the next call starts its controllers anew. Raises Livelock.
        """
        if len(controllers) != len(self._controllers) or any(
            new is not old for new, old in zip(controllers, self._controllers, strict=True)
        ):
            self._controllers = tuple(controllers)
            self._wakes = [None] * len(self._controllers)
            self._batch_at = self.clock.now() if self._controllers else None
        # What was written between two calls is news for the world and for the controllers.
        self.run_due()
        self._note_change(self._noted)
        self._noted = self.cluster.version
        instant, calls = -1.0, 0
        while True:
            time_s = self._next_instant()
            if time_s is None or time_s > until:
                break
            now = max(time_s, self.clock.now())
            self.clock.advance_to(now)
            if now != instant:
                instant, calls = now, 0
            before = self.cluster.version
            self.run_due()
            self._note_change(before)
            calls += self._call(now)
            if calls > self._max_cycles * max(1, len(self._controllers)):
                raise Livelock(
                    f"at {now!r}: controllers ran {calls} times at one instant; one of them asks to be called now"
                )
            self._noted = self.cluster.version
            if stop is not None and stop():
                return
        if self.clock.now() < until < math.inf:
            self.clock.advance_to(until)

    def _next_instant(self) -> float | None:
        times = [time_s for time_s in self._wakes if time_s is not None]
        if self._batch_at is not None:
            times.append(self._batch_at)
        if self._heap:
            times.append(self._heap[0][0])
        return min(times, default=None)

    def _call(self, now: float) -> int:
        """Run the controllers whose turn it is; returns how many did."""
        everybody = self._batch_at is not None and self._batch_at <= now
        if everybody:
            self._batch_at = None
        calls = 0
        for index, controller in enumerate(self._controllers):
            wake = self._wakes[index]
            if not everybody and (wake is None or wake > now):
                continue
            try:
                self._wakes[index] = controller.cycle()
            except BaseException:
                # It may have bought something before it died, and whoever comes next is to be called at once.
                self.boot.cycle_ended()
                self._controllers = ()
                raise
            calls += 1
        if calls:
            self.cycles += calls
            self.boot.cycle_ended()
            before = self.cluster.version
            self.run_due()
            self._note_change(before)
        return calls

    def _note_change(self, before: int) -> None:
        if self.cluster.version != before and self._batch_at is None and self._controllers:
            self._batch_at = self.clock.now() + self.batch_s
