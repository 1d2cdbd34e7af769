"""Jobs that run to completion for a given time, as traces know them.

A job has one pod, named like the job. Its run time counts from its first start and goes on while it is moved: the
replacement pod carries the job's label and takes over once it is ready. When the run time is over, all pods of the job
are deleted. A run is lost when the last pod that carried it goes before its end, also when a replacement exists that
was not ready yet; the job then begins again and the loss is counted.
"""

import dataclasses
import enum
from collections.abc import Callable, Mapping

from autoscaler.embedded import pods, store
from autoscaler.model import kinds, ports
from vgpu.inventory import Shape


class JobState(enum.StrEnum):
    SUBMITTED = "Submitted"
    """Its time has not come."""
    PENDING = "Pending"
    RUNNING = "Running"
    FINISHED = "Finished"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class JobFacts:
    """What is known of one job; times in seconds of the world's clock."""

    name: str
    namespace: str
    shape: Shape
    run_s: float
    arrival_s: float
    state: JobState
    start_s: float | None
    """First start ever; wait = start_s - arrival_s."""
    end_s: float | None
    """When it finished."""
    lost: int
    """Runs that were cut short."""


class _Job:
    __slots__ = (
        "arrival_s",
        "carriers",
        "end_s",
        "key",
        "labels",
        "lost",
        "name",
        "namespace",
        "pods",
        "rebuilding",
        "run",
        "run_s",
        "shape",
        "start_delay_s",
        "start_s",
        "state",
    )

    def __init__(
        self,
        *,
        name: str,
        namespace: str,
        shape: Shape,
        run_s: float,
        arrival_s: float,
        labels: Mapping[str, str],
        start_delay_s: float,
    ) -> None:
        self.name = name
        self.namespace = namespace
        self.key = f"{namespace}/{name}"
        self.shape = shape
        self.run_s = run_s
        self.arrival_s = arrival_s
        self.labels = labels
        self.start_delay_s = start_delay_s
        self.state = JobState.SUBMITTED
        self.start_s: float | None = None
        self.end_s: float | None = None
        self.lost = 0
        self.run = 0
        """Number of the present run: the end of an earlier one means nothing to it."""
        self.rebuilding = False
        """All its pods have ended and a new one is not made yet."""
        self.pods: dict[str, kinds.Pod] = {}
        self.carriers: dict[str, None] = {}
        """Pods that hold the present run's progress."""

    def facts(self) -> JobFacts:
        return JobFacts(
            name=self.name,
            namespace=self.namespace,
            shape=self.shape,
            run_s=self.run_s,
            arrival_s=self.arrival_s,
            state=self.state,
            start_s=self.start_s,
            end_s=self.end_s,
            lost=self.lost,
        )


class Jobs:
    """Listens to pods; ``at`` is the world's timer."""

    def __init__(
        self,
        cluster: store.EmbeddedCluster,
        clock: ports.Clock,
        at: Callable[[float, Callable[[], None]], None],
    ) -> None:
        self._cluster = cluster
        self._clock = clock
        self._at = at
        self._jobs: dict[str, _Job] = {}
        self._dirty: dict[str, None] = {}
        self.lost = 0

    def submit(
        self,
        name: str,
        namespace: str,
        shape: Shape,
        run_s: float,
        at: float,
        *,
        labels: Mapping[str, str] | None = None,
        start_delay_s: float = 0.0,
    ) -> None:
        """Let the job arrive at second ``at``.

        Raises ValueError for a second job of that name, a time in the past or a run time below zero.
        """
        job = _Job(
            name=name,
            namespace=namespace,
            shape=shape,
            run_s=run_s,
            arrival_s=at,
            labels={**(labels or {}), kinds.WORKLOAD_LABEL: f"{namespace}/{name}"},
            start_delay_s=start_delay_s,
        )
        if not name or not namespace or "/" in name or "/" in namespace:
            raise ValueError(f"job {job.key!r}: give a name and a namespace, both without slashes")
        if job.key in self._jobs:
            raise ValueError(f"job {job.key!r}: submitted twice; give every job its own name")
        if not run_s >= 0 or not start_delay_s >= 0:
            raise ValueError(f"job {job.key!r}: run_s={run_s!r}, start_delay_s={start_delay_s!r}: give zero or more")
        self._at(at, lambda: self._arrive(job))
        self._jobs[job.key] = job

    def facts(self) -> tuple[JobFacts, ...]:
        return tuple(job.facts() for job in self._jobs.values())

    def get(self, namespace: str, name: str) -> JobFacts:
        """Facts of one job. Raises KeyError."""
        return self._jobs[f"{namespace}/{name}"].facts()

    def observe(self, event: ports.WatchEvent) -> None:
        pod = event.object
        if not isinstance(pod, kinds.Pod):
            return
        job = self._jobs.get(pods.owner(pod))
        if job is None:
            return
        key = pod.meta.key
        if event.type is ports.EventType.DELETED:
            job.pods.pop(key, None)
        else:
            job.pods[key] = pod
        self._dirty[job.key] = None

    def step(self) -> bool:
        """Follow up on every job whose pods changed; True when something was written."""
        if not self._dirty:
            return False
        keys = tuple(self._dirty)
        self._dirty.clear()
        before = self._cluster.version
        for key in keys:
            self._follow(self._jobs[key])
        return self._cluster.version != before

    # Inside -----------------------------------------------------------------------------------------------------

    def _arrive(self, job: _Job) -> None:
        job.state = JobState.PENDING
        self._create(job)

    def _create(self, job: _Job) -> None:
        annotations = {pods.START_DELAY: repr(job.start_delay_s)} if job.start_delay_s else {}
        meta = kinds.Meta(name=job.name, namespace=job.namespace, labels=job.labels, annotations=annotations)
        self._cluster.create(kinds.Pod(meta=meta, shape=job.shape))

    def _follow(self, job: _Job) -> None:
        if job.state is JobState.SUBMITTED:
            return
        if job.state is JobState.FINISHED:
            # A replacement made at the very moment of the end has nothing left to do.
            self._delete_pods(job)
            return
        active = {key: pod for key, pod in job.pods.items() if pods.active(pod)}
        for key, pod in active.items():
            if pod.phase is kinds.PodPhase.RUNNING and (pod.ready or pods.moved_from(pod) is None):
                if job.state is JobState.PENDING:
                    self._begin(job, pod)
                job.carriers[key] = None
        job.carriers = {key: None for key in job.carriers if key in active}
        if job.state is JobState.RUNNING and not job.carriers:
            self._lose(job)
        elif not active and not job.rebuilding:
            # It never started, and yet its pod is gone.
            self._lose(job)
        if active:
            return
        job.rebuilding = True
        if job.pods:
            # Whatever failed holds the name: the new pod is made when the old one is gone.
            self._delete_pods(job)
        else:
            job.rebuilding = False
            self._create(job)

    def _begin(self, job: _Job, pod: kinds.Pod) -> None:
        now = self._clock.now()
        job.state = JobState.RUNNING
        job.run += 1
        if job.start_s is None:
            job.start_s = pod.started_s
        run = job.run
        self._at(now + job.run_s, lambda: self._end(job, run))

    def _lose(self, job: _Job) -> None:
        job.state = JobState.PENDING
        job.lost += 1
        self.lost += 1

    def _end(self, job: _Job, run: int) -> None:
        if job.state is JobState.RUNNING and job.run == run:
            job.state = JobState.FINISHED
            job.end_s = self._clock.now()
            self._delete_pods(job)

    def _delete_pods(self, job: _Job) -> None:
        for pod in tuple(job.pods.values()):
            self._cluster.delete(pod)
