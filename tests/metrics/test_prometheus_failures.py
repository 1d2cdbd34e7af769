"""Whatever a server answers, or does not: Unreachable signals with a reason, and never an exception."""

import json
import re
import threading
from collections.abc import Callable, Iterator

import pytest

from autoscaler.metrics import promql
from autoscaler.metrics.prometheus import PrometheusSource
from autoscaler.metrics.queries import QUERIES, extended
from autoscaler.metrics.rows import MetricsUnreachable
from autoscaler.metrics.wire import checked_url, shown_url
from policies.signals import SignalState
from vgpu.errors import InvalidRequest

Serve = Callable[[Callable[[str], tuple[int, str]]], str]
NAMES = tuple(QUERIES)


def quick(url: str, **more: float) -> PrometheusSource:
    return PrometheusSource(url, timeout_s=more.get("timeout_s", 5.0), longest_wait_s=0.0)


def vector(*rows: tuple[dict[str, str], str]) -> str:
    result = [{"metric": labels, "value": [1_700_000_000.0, value]} for labels, value in rows]
    return json.dumps({"status": "success", "data": {"resultType": "vector", "result": result}})


@pytest.mark.parametrize("at", [None, 1_700_000_000.0])
def test_nobody_listens(at: float | None, unused_url: str) -> None:
    with quick(unused_url) as source:
        signals = source.signals(NAMES, at=at)

    assert [(s.name, s.state, s.value, s.age_s, dict(s.labels)) for s in signals] == [
        (name, SignalState.UNREACHABLE, None, None, {}) for name in NAMES
    ]
    assert all(re.search(r"no connection: \[Errno \d+\] Connection refused$", signal.detail) for signal in signals)


@pytest.fixture
def unused_url(serve: Serve) -> Iterator[str]:
    """An address at which nobody listens: bound by a socket that does not."""
    import socket

    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{bound.getsockname()[1]}"


@pytest.mark.parametrize(
    ("status", "body", "says"),
    [
        (500, "boom", "HTTP 500: b'boom'"),
        (502, "<html>Bad Gateway</html>", "HTTP 502"),
        (400, '{"status":"error","errorType":"bad_data","error":"no such function"}', "no such function"),
        (401, "who are you", "HTTP 401"),
        (200, "<html>log in, please</html>", "not JSON"),
        (200, "", "not JSON"),
        (200, "[]", "not a Prometheus answer"),
        (200, "null", "not a Prometheus answer"),
        (200, '{"status":"success"}', "not a Prometheus answer"),
        (200, '{"data":{"result":null}}', "not a Prometheus answer"),
        (200, '{"data":{"result":[{"metric":{}}]}}', "not a Prometheus answer"),
        (200, '{"data":{"result":[{"metric":{"a":1},"value":[1,"1"]}]}}', "not a Prometheus answer"),
        (200, '{"data":{"result":[{"metric":{},"value":[1,"one"]}]}}', "value 'one'"),
        (200, '{"data":{"result":[{"metric":{"tidegate_part":"time"},"value":[1,"NaN"]}]}}', "where a time"),
    ],
)
def test_a_wrong_answer(serve: Serve, status: int, body: str, says: str) -> None:
    url = serve(lambda _path: (status, body))
    for at in (None, 1_700_000_000.0):
        with quick(url) as source:
            signals = source.signals(NAMES, at=at)

        assert [signal.name for signal in signals] == list(NAMES)
        assert {signal.state for signal in signals} == {SignalState.UNREACHABLE}
        assert all(says in signal.detail for signal in signals), signals[0].detail


def test_a_server_that_never_answers(serve: Serve) -> None:
    hold = threading.Event()
    url = serve(lambda _path: (hold.wait(20), (200, ""))[1])
    try:
        with quick(url, timeout_s=0.1) as source:
            signals = source.signals(NAMES, at=1_700_000_000.0)
    finally:
        hold.set()

    assert {(signal.state, signal.value) for signal in signals} == {(SignalState.UNREACHABLE, None)}
    assert all("no answer in time" in signal.detail for signal in signals)


def test_a_busy_server_is_asked_again_and_no_more_than_three_times(serve: Serve) -> None:
    asked: list[str] = []

    def answer(path: str) -> tuple[int, str]:
        asked.append(path)
        return (503, "later") if len(asked) < 3 else (200, vector())

    with quick(serve(answer)) as source:
        (signal,) = source.signals(["gpu_memory_used_mib"], at=1_700_000_000.0)
    assert (len(asked), signal.state) == (3, SignalState.ABSENT)

    asked.clear()
    with quick(serve(lambda path: (asked.append(path), (503, "later"))[1])) as source:
        (signal,) = source.signals(["gpu_memory_used_mib"], at=1_700_000_000.0)
    assert (len(asked), signal.state) == (3, SignalState.UNREACHABLE)


def test_a_refused_question_is_not_asked_again(serve: Serve) -> None:
    asked: list[str] = []
    with quick(serve(lambda path: (asked.append(path), (422, "no"))[1])) as source:
        source.signals(["gpu_memory_used_mib"], at=1_700_000_000.0)
    assert len(asked) == 1


def test_one_metric_without_an_answer_leaves_the_rest_and_says_so(serve: Serve) -> None:
    def answer(path: str) -> tuple[int, str]:
        if "GR_ENGINE_ACTIVE" in path:
            return 422, "too many samples"
        rows = [({"UUID": "GPU-1", promql.PART: "value"}, "42"), ({"UUID": "GPU-1", promql.PART: "time"}, "1700000000")]
        return 200, vector(*rows)

    with quick(serve(answer)) as source:
        signals = source.signals(["gpu_utilisation"], at=1_700_000_010.0)

    assert [(dict(s.labels), s.state, s.value, s.age_s) for s in signals] == [
        ({"UUID": "GPU-1"}, SignalState.VALID, 42, 10),
        ({}, SignalState.UNREACHABLE, None, None),
    ]
    assert "DCGM_FI_PROF_GR_ENGINE_ACTIVE: HTTP 422" in signals[1].detail


def test_half_of_the_stores_is_no_answer(serve: Serve) -> None:
    """Thanos is told to fail rather than to answer with the stores that it reached."""
    asked: list[str] = []
    with quick(serve(lambda path: (asked.append(path), (200, vector()))[1])) as source:
        source.signals(["gpu_memory_used_mib"], at=1_700_000_000.0)
    assert all("partial_response=false" in path for path in asked)


def test_without_a_time_ages_follow_the_servers_clock(serve: Serve) -> None:
    """A clock that runs an hour ahead of ours makes nothing stale."""

    def answer(path: str) -> tuple[int, str]:
        if "vector%28time" in path:
            return 200, vector(({}, "4000000000"))
        assert "time=4000000000.000" in path
        rows = [({"UUID": "GPU-1", promql.PART: "value"}, "0"), ({"UUID": "GPU-1", promql.PART: "time"}, "3999999990")]
        return 200, vector(*rows)

    with quick(serve(answer)) as source:
        (signal,) = source.signals(["gpu_memory_used_mib"])
    assert (signal.state, signal.age_s) == (SignalState.VALID, 10)


@pytest.mark.parametrize(
    ("status", "body"),
    [(500, "boom"), (200, "<html>"), (200, '{"data":{"result":[{"x":1}]}}'), (200, vector(({}, "NaN")))],
)
def test_the_past_needs_an_answer(serve: Serve, status: int, body: str) -> None:
    with (
        quick(serve(lambda _path: (status, body))) as source,
        pytest.raises(MetricsUnreachable, match=r"127\.0\.0\.1.*gpu_utilisation over time"),
    ):
        list(source.history("gpu_utilisation", start_s=1_700_000_000, end_s=1_700_003_600, step_s=60))


@pytest.mark.parametrize(
    "url", ["", "prometheus:9090", "ftp://prometheus", "http://", "http://a b", "http://h:99999", "//h:9090"]
)
def test_what_is_no_address(url: str) -> None:
    with pytest.raises(InvalidRequest, match="not a server's address; give one like http://prometheus:9090"):
        checked_url(url)


def test_credentials_stay_out_of_messages() -> None:
    assert shown_url("https://me:secret@mimir.example:8443/prometheus") == "https://mimir.example:8443/prometheus"


def test_a_house_metric_comes_first(serve: Serve) -> None:
    queries = extended(QUERIES, "requests_waiting", "gateway_queue_length")
    rows = [({"route": "r", promql.PART: "value"}, "5"), ({"route": "r", promql.PART: "time"}, "1700000000")]
    url = serve(lambda path: (200, vector(*rows) if "gateway_queue_length" in path else vector()))
    with PrometheusSource(url, queries=queries) as source:
        (signal,) = source.signals(["requests_waiting"], at=1_700_000_000.0)
    assert (dict(signal.labels), signal.value) == ({"route": "r"}, 5)

    with pytest.raises(InvalidRequest, match=r"metric='a-b': not a Prometheus metric name"):
        extended(QUERIES, "requests_waiting", "a-b")
