"""The named queries as data: what each asks, which metrics can answer it, and when its answer may be believed.

Knows metric and label names of exporters. Must not know a query language, a client library or a policy: the adapters
turn a query into PromQL or into a walk over the embedded store. A query that cannot work is refused when it is made.
"""

import dataclasses
import enum
import re
import types
from collections.abc import Mapping

from vgpu.errors import InvalidRequest, TidegateError

LOOK_BACK_S = 3600.0
"""How far back a series is still looked for, seconds. What ended before is Absent, what ended since is Stale."""

MAX_AGE_S = 180.0
"""Default maximum age, seconds: three scrapes at the slowest usual interval (60 s)."""

RATE_WINDOW_S = 300.0
"""Window of a rate, seconds: five scrapes at 60 s, so that one lost scrape does not lose the rate."""

BLANK_MARKER = 9223372036854775794.0
"""What old DCGM builds export for a field that the device does not support (an int64 sentinel, read as a float)."""

GPU_MEMORY_CEILING_MIB = 1048576.0
"""1 TiB: more than any one device carries; a larger figure is bytes or a sentinel."""

_METRIC_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")


class UnknownQuery(TidegateError, ValueError):
    """A query name that nobody defined."""


class QueryKind(enum.StrEnum):
    DEVICE = "device"
    """One answer per GPU or MIG instance; copies that sharing makes are folded into one."""
    POD = "pod"
    """One answer per pod, container and device. Under time-slicing it is the device's value, copied."""
    PRESENCE = "presence"
    """One answer per scrape target: does the exporter itself answer?"""
    ACTIVITY = "activity"
    """One answer per series that a workload or its gateway exports; it may end with the pods."""
    WAKE = "wake"
    """As activity, and the reason to raise from zero: at least one source of it must outlive the pods."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One metric that can answer a query."""

    name: str
    scale: float = 1.0
    """What a sample is multiplied with to reach the query's unit."""
    matchers: tuple[tuple[str, str], ...] = ()
    """(label, regular expression) pairs; a series answers when every label matches whole."""
    beside: tuple[str, ...] = ()
    """Also answers for targets (job, instance) that gave any of these metrics within the look-back."""

    def __post_init__(self) -> None:
        for name in (self.name, *self.beside):
            if not _METRIC_NAME.fullmatch(name):
                raise InvalidRequest(f"metric={name!r}: not a Prometheus metric name; use letters, digits, _ and :")
        for label, pattern in self.matchers:
            if not re.fullmatch(r"[a-zA-Z_][a-zA-Z0-9_]*", label):
                raise InvalidRequest(f"metric={self.name!r}: matcher on {label!r}: not a Prometheus label name")
            try:
                re.compile(pattern)
            except re.error as error:
                raise InvalidRequest(f"metric={self.name!r}: matcher {label}=~{pattern!r}: {error}") from None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """One named question."""

    name: str
    meaning: str
    unit: str
    kind: QueryKind
    metrics: tuple[Metric, ...]
    """In order of preference. Per device (pod, target, series) the first with a valid value answers."""
    low: float = 0.0
    high: float
    """Smallest and largest value that can be true, in the query's unit."""
    tolerance: float = 0.0
    """Duplicates that differ by no more than this agree; the larger counts. In the query's unit."""
    max_age_s: float = MAX_AGE_S
    rate_window_s: float | None = None
    """Set on a counter: the value is its increase per second over this window."""

    def __post_init__(self) -> None:
        if not self.metrics:
            raise InvalidRequest(f"query={self.name!r}: metrics is empty; name at least one metric")
        if not self.low <= self.high:
            raise InvalidRequest(f"query={self.name!r}: low={self.low} is above high={self.high}; swap them")
        if not 0 < self.max_age_s <= LOOK_BACK_S:
            raise InvalidRequest(f"query={self.name!r}: max_age_s={self.max_age_s}: choose 0 to {LOOK_BACK_S:.0f}")


_GPU_UTIL = Metric(name="DCGM_FI_DEV_GPU_UTIL")
# Share of time with work on the graphics or compute engine, 0-1; the only one of the two that exists per MIG instance.
_ENGINE_ACTIVE = Metric(name="DCGM_FI_PROF_GR_ENGINE_ACTIVE", scale=100.0)
_FB_USED = Metric(name="DCGM_FI_DEV_FB_USED")
_FB_FREE = Metric(name="DCGM_FI_DEV_FB_FREE")

_QUERIES = (
    Query(
        name="gpu_utilisation",
        meaning="share of time in which anything ran on the device",
        unit="percent",
        kind=QueryKind.DEVICE,
        metrics=(_GPU_UTIL, _ENGINE_ACTIVE),
        high=100.0,
        tolerance=1.0,
    ),
    Query(
        name="gpu_memory_used_mib",
        meaning="device memory in use: contexts, all tenants and cached pools",
        unit="MiB",
        kind=QueryKind.DEVICE,
        metrics=(_FB_USED,),
        high=GPU_MEMORY_CEILING_MIB,
        tolerance=64.0,
    ),
    Query(
        name="gpu_memory_free_mib",
        meaning="device memory that nobody holds",
        unit="MiB",
        kind=QueryKind.DEVICE,
        metrics=(_FB_FREE,),
        high=GPU_MEMORY_CEILING_MIB,
        tolerance=64.0,
    ),
    Query(
        name="pod_gpu_utilisation",
        meaning="utilisation that the exporter attributes to a pod; the whole device's where it is shared",
        unit="percent",
        kind=QueryKind.POD,
        metrics=(_GPU_UTIL, _ENGINE_ACTIVE),
        high=100.0,
        tolerance=1.0,
    ),
    Query(
        name="pod_gpu_memory_used_mib",
        meaning="device memory that the exporter attributes to a pod; the whole device's where it is shared",
        unit="MiB",
        kind=QueryKind.POD,
        metrics=(_FB_USED,),
        high=GPU_MEMORY_CEILING_MIB,
        tolerance=64.0,
    ),
    Query(
        name="exporter_up",
        meaning="1 when Prometheus could scrape the GPU exporter: the proof that a zero is a zero",
        unit="0 or 1",
        kind=QueryKind.PRESENCE,
        # The job is named after the exporter in its own chart and in the GPU operator; annotation-based discovery names
        # it after the cluster role, so targets that gave GPU series count as well.
        metrics=(
            Metric(
                name="up",
                matchers=(("job", "(?i).*dcgm.*"),),
                beside=(_GPU_UTIL.name, _ENGINE_ACTIVE.name, _FB_USED.name),
            ),
        ),
        high=1.0,
    ),
    Query(
        name="requests_waiting",
        meaning="requests held in front of a workload or queued in it; more than none means demand",
        unit="requests",
        kind=QueryKind.WAKE,
        # The KEDA HTTP add-on's interceptor counts held and running requests per route and outlives the pods; vLLM's
        # queue ends with them.
        metrics=(Metric(name="interceptor_request_concurrency"), Metric(name="vllm:num_requests_waiting")),
        high=1e9,
    ),
    Query(
        name="requests_running",
        meaning="requests that the inference server works on",
        unit="requests",
        kind=QueryKind.ACTIVITY,
        metrics=(Metric(name="vllm:num_requests_running"),),
        high=1e9,
    ),
    Query(
        name="request_rate",
        meaning="requests finished per second over the last five minutes",
        unit="requests/s",
        kind=QueryKind.ACTIVITY,
        metrics=(Metric(name="interceptor_request_count_total"), Metric(name="vllm:request_success_total")),
        high=1e9,
        rate_window_s=RATE_WINDOW_S,
    ),
)

QUERIES: Mapping[str, Query] = types.MappingProxyType({query.name: query for query in _QUERIES})
"""Every query that Tidegate asks by default, by name."""


def find(queries: Mapping[str, Query], name: str) -> Query:
    """The query of that name. Raises UnknownQuery with the names there are."""
    query = queries.get(name)
    if query is None:
        raise UnknownQuery(f"query={name!r}: not defined; choose one of {', '.join(sorted(queries))}")
    return query


def extended(queries: Mapping[str, Query], name: str, *metrics: str) -> Mapping[str, Query]:
    """A copy of ``queries`` in which ``name`` asks ``metrics`` first: how a house's own gateway metric is put in.

    Raises UnknownQuery, or InvalidRequest for what is not a metric name.
    """
    query = find(queries, name)
    own = tuple(Metric(name=metric) for metric in metrics)
    return types.MappingProxyType({**queries, name: dataclasses.replace(query, metrics=own + query.metrics)})
