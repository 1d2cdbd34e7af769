"""Fixtures of the metrics tests: real Prometheus servers on loopback, small HTTP servers, and the image-generation
series."""

import contextlib
import csv
import gzip
import http.server
import shutil
import socket
import subprocess
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import pytest

from autoscaler.metrics import openmetrics

Sample = tuple[str, Mapping[str, str], float, float]


def _free_port() -> int:
    with contextlib.closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="session")
def start_prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., str]]:
    """``start(samples, scrape_configs="") -> url``: a real server with those samples in its blocks."""
    prometheus, promtool = shutil.which("prometheus"), shutil.which("promtool")
    if prometheus is None or promtool is None:
        pytest.skip("prometheus not on PATH: apt-get install prometheus")
    running: list[subprocess.Popen[bytes]] = []

    def start(samples: Iterable[Sample], scrape_configs: str = "") -> str:
        folder = tmp_path_factory.mktemp("prometheus")
        text = folder / "samples.om"
        written = list(samples)
        (folder / "data").mkdir()
        if written:
            text.write_text("\n".join(openmetrics.lines(written)) + "\n")
            subprocess.run(
                [promtool, "tsdb", "create-blocks-from", "openmetrics", str(text), str(folder / "data")],
                check=True,
                capture_output=True,
            )
        (folder / "prometheus.yml").write_text("global: {}\n" + scrape_configs)
        port = _free_port()
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                [
                    prometheus,
                    f"--config.file={folder / 'prometheus.yml'}",
                    f"--storage.tsdb.path={folder / 'data'}",
                    # The samples are years old; nothing may expire while the tests look.
                    "--storage.tsdb.retention.time=100y",
                    f"--web.listen-address=127.0.0.1:{port}",
                    "--log.level=error",
                ],
                stdout=subprocess.DEVNULL,
                stderr=log,
            )
        running.append(process)
        url = f"http://127.0.0.1:{port}"
        _await_ready(url, process, folder / "log")
        return url

    yield start
    for process in running:
        process.terminate()
    for process in running:
        process.wait(timeout=10)


def _await_ready(url: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    for _ in range(600):
        with contextlib.suppress(urllib.error.URLError), urllib.request.urlopen(f"{url}/-/ready", timeout=5) as answer:
            if answer.status == 200:
                return
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=0.05)
            pytest.fail(f"prometheus ended at its start: {log.read_text()[-2000:]}")
    pytest.fail(f"prometheus was not ready in time: {log.read_text()[-2000:]}")


@pytest.fixture
def serve() -> Iterator[Callable[[Callable[[str], tuple[int, str]]], str]]:
    """``serve(answer) -> url``: an HTTP server whose every GET is answered by ``answer(path) -> (status, body)``."""
    servers: list[http.server.ThreadingHTTPServer] = []

    def start(answer: Callable[[str], tuple[int, str]]) -> str:
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                status, body = answer(self.path)
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                    self.send_response(status)
                    self.send_header("Content-Length", str(len(body.encode())))
                    self.end_headers()
                    self.wfile.write(body.encode())

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's name
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_address[1]}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture(scope="session")
def duty_cycle(traces: Path) -> list[tuple[float, str, float]]:
    """(second, pod, percent) of a real image-generation fleet; rows without a pod are left out."""
    return _rows(traces / "genai" / "pod_gpu_duty_cycle_anon.csv.gz")


@pytest.fixture(scope="session")
def memory_used(traces: Path) -> list[tuple[float, str, float]]:
    """(second, pod, bytes) of the same fleet."""
    return _rows(traces / "genai" / "pod_gpu_memory_used_bytes_anon.csv.gz")


def _rows(path: Path) -> list[tuple[float, str, float]]:
    if not path.is_file():
        pytest.skip(f"no {path.name} at {path.parent}: set TIDEGATE_TRACES to a folder with genai/")
    with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
        return sorted(
            (float(row["timestamp_anon"]), row["container_ip"][:12], float(row["value"]))
            for row in csv.DictReader(file)
            if row["container_ip"]
        )
