"""A scraped exporter whose devices go away: what a server knows to have ended is stale at once, in both sources."""

import http.server
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from autoscaler.metrics import openmetrics
from autoscaler.metrics.prometheus import PrometheusSource
from autoscaler.metrics.series import SeriesStore
from policies.signals import Signal, SignalState

UTIL = "DCGM_FI_DEV_GPU_UTIL"
TARGET = {"job": "gpu", "instance": "n1:9400"}


class Exporter:
    """An exporter whose page a test writes, and which tells how often it was scraped."""

    def __init__(self) -> None:
        self._scraped = threading.Condition()
        self._scrapes = 0
        self.page = ""
        exporter = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = exporter.page.encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)
                exporter.count()

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the library's name
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()

    def count(self) -> None:
        with self._scraped:
            self._scrapes += 1
            self._scraped.notify_all()

    def show(self, *series: tuple[dict[str, str], float]) -> None:
        """Serve these rows until they are surely stored: when the scrape after the next begins, the next is
        committed."""
        self.page = (
            "\n".join(openmetrics.lines([(UTIL, *row[:1], 0.0, row[1]) for row in series], with_times=False)) + "\n"
        )
        with self._scraped:
            until = self._scrapes + 3
            assert self._scraped.wait_for(lambda: self._scrapes >= until, timeout=20)

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def exporter() -> Iterator[Exporter]:
    made = Exporter()
    yield made
    made.stop()


def told(signals: list[Signal] | tuple[Signal, ...], name: str) -> dict[str, Signal]:
    return {s.labels.get("UUID", s.labels.get("job", "")): s for s in signals if s.name == name}


def test_devices_and_exporters_that_go_away(exporter: Exporter, start_prometheus: Callable[..., str]) -> None:
    url = start_prometheus(
        [],
        "scrape_configs:\n- job_name: gpu\n  scrape_interval: 1s\n  scrape_timeout: 1s\n  static_configs:\n"
        f"  - targets: ['127.0.0.1:{exporter.port}']\n"
        "    labels: {pod: probe-x, namespace: monitoring, container: probe}\n",
    )
    names = ("gpu_utilisation", "pod_gpu_utilisation", "exporter_up")
    held, free = {"UUID": "GPU-1", "pod": "a", "namespace": "ml"}, {"UUID": "GPU-2"}
    with PrometheusSource(url) as source:
        exporter.show((held, 7.0), (free, 0.0))
        signals = tuple(source.signals(names))
        devices = told(signals, "gpu_utilisation")
        assert {uuid: (s.state, s.value) for uuid, s in devices.items()} == {
            "GPU-1": (SignalState.VALID, 7),
            "GPU-2": (SignalState.VALID, 0),
        }
        # The scrape renamed the exporter's label and wrote its own pod beside it: GPU-2 is free, not the probe's.
        pods = told(signals, "pod_gpu_utilisation")
        assert {uuid: dict(s.labels) for uuid, s in pods.items()} == {"GPU-1": held}
        assert told(signals, "exporter_up")["gpu"].value == 1

        exporter.show((free, 0.0))
        signals = tuple(source.signals(names))
        devices = told(signals, "gpu_utilisation")
        gone = devices["GPU-1"]
        assert (gone.state, gone.value) == (SignalState.STALE, 7)
        assert "ended" in gone.detail
        assert gone.age_s is not None
        assert 0 < gone.age_s < 60
        assert devices["GPU-2"].valid
        # Its pod went with it, in the source's eyes as well.
        assert told(signals, "pod_gpu_utilisation")["GPU-1"].state is SignalState.STALE
        assert told(signals, "exporter_up")["gpu"].value == 1

        exporter.stop()
        deadline = time.monotonic() + 15
        while told(signals, "exporter_up")["gpu"].value != 0:
            assert time.monotonic() < deadline, "the server did not notice that its target is gone"
            threading.Event().wait(0.1)
            signals = tuple(source.signals(names))
        assert told(signals, "gpu_utilisation")["GPU-2"].state is SignalState.STALE


def test_the_store_knows_the_same_end() -> None:
    store = SeriesStore()
    labels = {"UUID": "GPU-1", **TARGET}
    store.append(UTIL, labels, 100.0, 7.0)
    assert store.end(UTIL, labels, 110.0)

    before, after = store.signals(["gpu_utilisation"], at=105.0)[0], store.signals(["gpu_utilisation"], at=120.0)[0]
    assert before.valid
    assert (after.state, after.value, after.age_s) == (SignalState.STALE, 7, 20)
    assert "ended 20 s ago" in after.detail

    assert store.append(UTIL, labels, 130.0, 8.0)
    assert store.signals(["gpu_utilisation"], at=131.0)[0].valid
    # At each past time it is what it was then.
    assert store.signals(["gpu_utilisation"], at=120.0)[0].state is SignalState.STALE

    (grid,) = store.history("gpu_utilisation", start_s=100, end_s=140, step_s=10)
    assert [str(value) for value in grid.tracks[0].values.tolist()] == ["7.0", "nan", "nan", "8.0", "8.0"]


def test_what_ended_does_not_contradict_what_goes_on() -> None:
    store = SeriesStore()
    store.append(UTIL, {"UUID": "GPU-1", **TARGET}, 100.0, 0.0)
    store.end(UTIL, {"UUID": "GPU-1", **TARGET}, 110.0)
    store.append(UTIL, {"UUID": "GPU-1", "job": "gpu", "instance": "n2:9400"}, 115.0, 80.0)
    (signal,) = store.signals(["gpu_utilisation"], at=120.0)
    assert (signal.state, signal.value) == (SignalState.VALID, 80)


def test_an_end_that_is_none() -> None:
    store = SeriesStore()
    store.append(UTIL, TARGET, 100.0, 7.0)
    assert not store.end(UTIL, {"job": "other"}, 110.0)
    assert not store.end(UTIL, TARGET, 100.0)
    assert store.signals(["gpu_utilisation"], at=101.0)[0].valid
