"""The double as a process of its own, with the same handles, for replays whose memory and time are measured.

Imports no moto: the process that starts the double stays as small as one that talks to AWS.
"""

import contextlib
import dataclasses
import json
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from types import TracebackType
from typing import Any, Self

from providers.aws.double import CONTROL
from providers.aws.double.state import Call, InstanceRecord

START_TIMEOUT_S = 60


class Ec2DoubleProcess:
    """The double as ``python -m providers.aws.double``; its handles go over HTTP."""

    def __init__(self, *, port: int = 0) -> None:
        self._port = port
        self._process: subprocess.Popen[str] | None = None
        self._url = ""
        self.peak_rss_mib: float | None = None
        """Highest resident memory of the server, MiB; known once it has been stopped, where the system tells."""

    @property
    def url(self) -> str:
        if not self._url:
            raise RuntimeError("the double is not running: enter it as a context manager first")
        return self._url

    def start(self) -> None:
        """Start the server and wait until it listens. Raises RuntimeError when it ends or stays silent instead."""
        process = self._process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
            [sys.executable, "-m", "providers.aws.double", "--port", str(self._port)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        if process.stdout is None:
            raise RuntimeError("the double's output is not connected")
        watch = threading.Timer(START_TIMEOUT_S, process.kill)
        watch.start()
        try:
            line = process.stdout.readline().strip()
        finally:
            watch.cancel()
        if not line.startswith("http"):
            self.stop()
            raise RuntimeError(f"the double did not start; it said {line!r} and ended with {process.returncode}")
        self._url = line

    def stop(self) -> None:
        """End the server: closing its standard input is the sign."""
        process, self._process = self._process, None
        if process is None:
            return
        if self._url:
            with contextlib.suppress(OSError):
                self.peak_rss_mib = self._call("health")["peak_rss_mib"]
        self._url = ""
        process.communicate("", timeout=START_TIMEOUT_S)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    # Handles: see World -------------------------------------------------------------------------------------------

    def set_capacity(self, instance_type: str, zone: str | None, market: str, count: int) -> None:
        self._call("set_capacity", instance_type=instance_type, zone=zone, market=market, count=count)

    def inject(
        self,
        action: str,
        *,
        code: str = "",
        message: str = "",
        status: int | None = None,
        times: int = 1,
        after: bool = False,
        lost: bool = False,
    ) -> None:
        self._call(
            "inject", action=action, code=code, message=message, status=status, times=times, after=after, lost=lost
        )

    def add_type(self, instance_type: str) -> None:
        self._call("add_type", instance_type=instance_type)

    def withhold(self, instance_type: str, zone: str) -> None:
        self._call("withhold", instance_type=instance_type, zone=zone)

    def delay(self, *, hidden_describes: int = 0, pending_describes: int = 0) -> None:
        self._call("delay", hidden_describes=hidden_describes, pending_describes=pending_describes)

    def end_instance(self, instance_id: str, code: str = "Server.SpotInstanceTermination", message: str = "") -> None:
        self._call("end_instance", instance_id=instance_id, code=code, message=message)

    def call_log(self) -> list[Call]:
        # JSON knows no tuples.
        return [
            dataclasses.replace(Call(**record), instance_ids=tuple(record["instance_ids"]))
            for record in self._call("call_log")
        ]

    def instances(self) -> list[InstanceRecord]:
        return [InstanceRecord(**record) for record in self._call("instances")]

    def health(self) -> dict[str, float | None]:
        return self._call("health")

    def reset(self) -> None:
        self._call("reset")

    def _call(self, handle: str, **arguments: object) -> Any:
        request = urllib.request.Request(  # noqa: S310 - our own loopback server
            f"{self.url}{CONTROL}{handle}", data=json.dumps(arguments).encode(), method="POST"
        )
        try:
            with urllib.request.urlopen(request, timeout=START_TIMEOUT_S) as answer:  # noqa: S310
                return json.load(answer)["result"]
        except urllib.error.HTTPError as error:
            raise ValueError(json.load(error)["error"]) from error
