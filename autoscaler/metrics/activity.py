"""What a metric source knows of each workload's use: implements ``autoscaler.model.ports.ActivitySource``.

Each named query is asked once per moment for all workloads and sorted by workload here. Where the parts come from:

- ``activity``: every series of the ``activity`` queries (GPU utilisation per pod) and of the ``extra`` queries
  (requests running, request rate) that belongs to the workload. Under time-slicing a pod carries its device's value, an
  upper bound: an idle device proves all its pods idle, a busy one proves nothing and keeps them all.
- ``presence``: ``exporter_up`` of the scrape targets that the workload's series come from; the worst of them. Of all
  targets where the series do not say which (imported without ``job`` and ``instance``).
- ``wake``: the workload's series of the ``wake`` queries. Those of its own pods end with the pods: alone they are
  demand, and no proof that anybody could wake it.
- ``last_active_s``: from the past of all of these (``quiet.Past``): not in use after it, by samples without a hole.
- ``gaps``, ``rate_rps``, ``load_s``: left unknown, for utilisation counts no requests. The policy then keeps its fixed
  time-out.

A series belongs to the workload that it names in one of ``NAMED_BY``, else to its pod's. Whose a pod is, the cluster
says where ``pods`` is given: series of pods that are gone no longer count, and a ready pod with a GPU and without a
series is an Absent signal. Without ``pods`` the pod's name has to tell (``workloads.workload_of``), a missing pod goes
unnoticed while others report, and ended series stay Stale signals for an hour.

Must not know a query language. Never raises for what a source says or does not say: Unreachable, Invalid and Stale
signals are passed on as they are, and what is missing is Absent. Not thread-safe.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence

from autoscaler.metrics.labels import target
from autoscaler.metrics.queries import QUERIES, Query, QueryKind, find
from autoscaler.metrics.quiet import Course, HistorySource, Past
from autoscaler.metrics.workloads import workload_of
from autoscaler.model import kinds
from autoscaler.model.ports import Activity
from policies.signals import Signal, SignalState
from vgpu.errors import InvalidRequest

NAMED_BY: tuple[tuple[str, str], ...] = (
    ("route_namespace", "route_name"),
    ("namespace", "workload"),
    ("namespace", "deployment"),
    ("namespace", "statefulset"),
)
"""(namespace label, name label) pairs by which a series names its workload, in order of preference: the routes of the
KEDA HTTP add-on's interceptor (named after what they scale), then what queue exporters and relabelling commonly write.
They win over the pod label, which on a gateway's series is the gateway's own pod. GPU series go by their pod alone."""

LOOK_BACK_S = 7200.0
"""Default length of the past that the first look reads, seconds: longer than the longest learnt time-out (6500 s)."""

STEP_S = 15.0
"""Default step of the past, seconds: the shortest usual scrape interval."""

_WORST = (SignalState.UNREACHABLE, SignalState.INVALID, SignalState.STALE, SignalState.ABSENT)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Cluster:
    """The pods as the cluster has them."""

    owner: Mapping[str, str]
    """Workload by pod key."""
    measured: Mapping[str, Sequence[str]]
    """Keys of the ready pods that hold a GPU, by workload: their series must be there."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Moment:
    """One look at everything, sorted by workload."""

    at: float
    asked_s: float
    """When the source was asked; at most ``reuse_s`` before."""
    cluster: _Cluster | None
    signals: Mapping[str, dict[str, list[Signal]]]
    """By query and workload."""
    silent: Mapping[str, list[Signal]]
    """By query: what went unanswered, and so is unknown of every workload."""
    courses: Mapping[str, dict[str, list[Course]]]
    """By query and workload."""
    targets: Sequence[Signal]

    def own(self, workload: str, signal: Signal) -> bool:
        """Whether the series is of one of the workload's own pods, and so ends with it."""
        return _of_pod(signal.labels, self.cluster) == workload

    def missing(self, name: str, workload: str, found: Iterable[Signal]) -> list[Signal]:
        """An Absent signal for each ready pod with a GPU of which nothing is told."""
        if self.cluster is None:
            return []
        told = {_pod_key(signal.labels) for signal in found}
        pods = self.cluster.measured.get(workload, ())
        return [_absent(name, workload, f"no series of pod {pod}") for pod in pods if pod not in told]


class MetricActivity:
    """Activity of all workloads out of named queries; implements ``ports.ActivitySource``."""

    def __init__(
        self,
        source: HistorySource,
        *,
        pods: Callable[[], Iterable[kinds.Pod]] | None = None,
        activity: Sequence[str] = ("pod_gpu_utilisation",),
        extra: Sequence[str] = ("requests_running", "request_rate"),
        wake: Sequence[str] = ("requests_waiting",),
        presence: str = "exporter_up",
        queries: Mapping[str, Query] = QUERIES,
        look_back_s: float = LOOK_BACK_S,
        step_s: float = STEP_S,
        above: float = 0.0,
        reuse_s: float = 1.0,
    ) -> None:
        """``pods``: tells the cluster's pods as they are now; None where no cluster is at hand. ``activity`` and
        ``wake`` must be there for every workload, ``extra`` counts where the source has it. ``look_back_s``, ``step_s``
        and ``above``: see ``Past``. ``reuse_s``: how long an answer serves further workloads, seconds.

        Raises UnknownQuery for a name that nobody defined, InvalidRequest for a setting that makes no sense.
        """
        if not activity or not wake:
            raise InvalidRequest(f"activity={activity!r}, wake={wake!r}: name at least one query of each")
        if not (step_s >= 1 and step_s == int(step_s) and look_back_s > step_s):
            raise InvalidRequest(
                f"step_s={step_s}, look_back_s={look_back_s}: give whole seconds of at least 1, and a longer look-back"
            )
        self._source = source
        self._pods = pods
        self._activity, self._extra, self._wake = tuple(activity), tuple(extra), tuple(wake)
        self._presence = find(queries, presence).name
        self._reuse_s = reuse_s
        self._pasts = {
            name: Past(find(queries, name), look_back_s=look_back_s, step_s=step_s, above=above)
            for name in (*self._activity, *self._extra, *self._wake)
        }
        self._answers: tuple[Signal, ...] = ()
        self._moment: _Moment | None = None

    def activity(self, workload: str, *, at: float) -> Activity:
        """What the source knows of ``workload`` (``namespace/name``) at ``at``, seconds on the source's clock."""
        moment = self._look(at)
        activity = [signal for name in self._activity for signal in self._required(moment, name, workload)]
        activity += [signal for name in self._extra for signal in self._optional(moment, name, workload)]
        # A past that cannot be read is no proof of idleness, whatever the newest samples say.
        activity += [
            Signal(name=name, state=SignalState.UNREACHABLE, detail=f"the past of {name}: {past.failure}")
            for name, past in self._pasts.items()
            if past.failure and not moment.silent[name]
        ]
        return Activity(
            activity=tuple(activity),
            presence=self._presence_of(moment, workload),
            wake=tuple(signal for name in self._wake for signal in self._wakes(moment, name, workload)),
            last_active_s=self._last_active(moment, workload),
        )

    # Asking -----------------------------------------------------------------------------------------------------

    def _look(self, at: float) -> _Moment:
        last = self._moment
        if last is not None and last.at == at:
            return last
        if last is not None and 0 <= at - last.asked_s <= self._reuse_s:
            asked_s = last.asked_s
        else:
            asked_s = at
            self._answers = tuple(self._source.signals((*self._pasts, self._presence), at=at))
            for name, past in self._pasts.items():
                past.read(self._source, [signal for signal in self._answers if signal.name == name], at)
        self._moment = self._sorted(at, asked_s)
        return self._moment

    def _sorted(self, at: float, asked_s: float) -> _Moment:
        cluster = _cluster(self._pods()) if self._pods is not None else None
        signals: dict[str, dict[str, list[Signal]]] = {name: {} for name in self._pasts}
        silent: dict[str, list[Signal]] = {name: [] for name in self._pasts}
        courses: dict[str, dict[str, list[Course]]] = {name: {} for name in self._pasts}
        targets: list[Signal] = []
        for answer in self._answers:
            signal = answer
            if answer.age_s is not None and at > asked_s:
                signal = dataclasses.replace(answer, age_s=answer.age_s + at - asked_s)
            if signal.name == self._presence:
                targets.append(signal)
            elif signal.labels:
                owner = _workload(self._pasts[signal.name].query, signal.labels, cluster)
                signals[signal.name].setdefault(owner, []).append(signal)
            elif signal.state is SignalState.UNREACHABLE:
                silent[signal.name].append(signal)
        for name, past in self._pasts.items():
            for course in past.courses():
                # Pods that are gone count in the past, by their names: theirs was the workload's use.
                owner = _workload(past.query, course.labels, cluster) or _workload(past.query, course.labels, None)
                courses[name].setdefault(owner, []).append(course)
        return _Moment(
            at=at, asked_s=asked_s, cluster=cluster, signals=signals, silent=silent, courses=courses, targets=targets
        )

    # Answering --------------------------------------------------------------------------------------------------

    def _required(self, moment: _Moment, name: str, workload: str) -> list[Signal]:
        found = moment.signals[name].get(workload, [])
        silent = moment.silent[name]
        missing = moment.missing(name, workload, found)
        if not found and not missing and not silent:
            missing = [_absent(name, workload, "no series belongs to this workload")]
        return [*found, *missing, *silent]

    def _optional(self, moment: _Moment, name: str, workload: str) -> list[Signal]:
        found = moment.signals[name].get(workload, [])
        # Where one pod tells of its requests, the others have to.
        per_pod = any(moment.own(workload, signal) for signal in found)
        return [*found, *(moment.missing(name, workload, found) if per_pod else ()), *moment.silent[name]]

    def _wakes(self, moment: _Moment, name: str, workload: str) -> list[Signal]:
        found = moment.signals[name].get(workload, [])
        silent = moment.silent[name]
        if silent or any(not moment.own(workload, signal) for signal in found):
            return [*found, *silent]
        detail = "no series belongs to this workload"
        if found:
            detail = "only the workload's own pods report demand: at zero replicas nothing could wake it"
        return [*found, _absent(name, workload, detail)]

    def _presence_of(self, moment: _Moment, workload: str) -> Signal | None:
        """The worst of the targets that measure the workload."""
        sources = {
            course.target
            for name in self._activity
            for course in moment.courses[name].get(workload, ())
            if self._pasts[name].reaches(course)
        }
        judged = list(moment.targets)
        if sources and ("", "") not in sources:
            # A signal without labels says that nothing is known of any target.
            judged = [signal for signal in judged if not signal.labels or target(signal.labels) in sources]
            told = {target(signal.labels) for signal in judged}
            judged += [
                Signal(
                    name=self._presence,
                    state=SignalState.ABSENT,
                    detail=f"nothing says whether the target job={job!r} instance={instance!r} is being scraped",
                )
                for job, instance in sorted(sources - told)
            ]
        for state in _WORST:
            for signal in judged:
                if signal.state is state:
                    return signal
        return min(judged, key=lambda signal: signal.value or 0.0, default=None)

    def _last_active(self, moment: _Moment, workload: str) -> float | None:
        """After this none of the workload's series shows use, or a hole; None when nobody can say."""
        since: list[float] = []
        for name, past in self._pasts.items():
            courses = moment.courses[name].get(workload, [])
            since += [course.since_s for course in courses]
            live = any(past.reaches(course) for course in courses)
            if past.failure or (not live and name not in self._extra):
                return None
        return max(since)


def _cluster(pods: Iterable[kinds.Pod]) -> _Cluster:
    owner: dict[str, str] = {}
    measured: dict[str, list[str]] = {}
    for pod in pods:
        workload = pod.meta.labels.get(kinds.WORKLOAD_LABEL, "")
        owner[pod.meta.key] = workload
        if workload and pod.ready and pod.shape.gpus:
            measured.setdefault(workload, []).append(pod.meta.key)
    return _Cluster(owner=owner, measured=measured)


def _workload(query: Query, labels: Mapping[str, str], cluster: _Cluster | None) -> str:
    """Key of the workload that a series belongs to; empty where it tells none."""
    if query.kind is not QueryKind.POD:
        for namespace, name in NAMED_BY:
            if labels.get(name):
                return _key(labels.get(namespace, ""), labels[name])
    return _of_pod(labels, cluster)


def _of_pod(labels: Mapping[str, str], cluster: _Cluster | None) -> str:
    """Key of the workload whose pod a series is about; empty for none."""
    if not labels.get("pod"):
        return ""
    if cluster is not None:
        return cluster.owner.get(_pod_key(labels), "")
    return _key(labels.get("namespace", ""), workload_of(labels["pod"]))


def _pod_key(labels: Mapping[str, str]) -> str:
    return _key(labels.get("namespace", ""), labels.get("pod", ""))


def _key(namespace: str, name: str) -> str:
    return f"{namespace}/{name}" if namespace else name


def _absent(name: str, workload: str, detail: str) -> Signal:
    return Signal(name=name, labels={"workload": workload}, state=SignalState.ABSENT, detail=detail)
