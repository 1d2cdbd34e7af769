"""The double in this process: a context manager with the handles of World; ``url`` is the endpoint to give to boto3."""

import threading
from types import TracebackType
from typing import Self

from werkzeug.serving import BaseWSGIServer, make_server

from providers.aws.double.process import Ec2DoubleProcess
from providers.aws.double.wire import QuietHandler, Wire
from providers.aws.double.world import World

__all__ = ["Ec2Double", "Ec2DoubleProcess"]

HOST = "127.0.0.1"

STOP_POLL_S = 0.05
"""How long a running server may take to notice that it is to stop."""


class Ec2Double(World):
    """The double in this process, on a free port of the loopback interface."""

    def __init__(self, *, port: int = 0, failed_calls_bind: bool = True) -> None:
        """``port`` 0 takes a free one. ``failed_calls_bind``: a failed call binds its client token, as at AWS."""
        super().__init__(failed_calls_bind=failed_calls_bind)
        self._port = port
        self._server: BaseWSGIServer | None = None
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        if self._server is None:
            raise RuntimeError("the double is not running: enter it as a context manager first")
        return f"http://{HOST}:{self._server.port}"

    def start(self) -> None:
        server = make_server(HOST, self._port, Wire(self), threaded=True, request_handler=QuietHandler)
        self._server = server
        self._thread = threading.Thread(
            target=server.serve_forever, args=(STOP_POLL_S,), name="ec2-double", daemon=True
        )
        self._thread.start()

    def wait(self) -> None:
        """Until the server is stopped."""
        if self._thread is not None:
            self._thread.join()

    def stop(self) -> None:
        if self._server is not None and self._thread is not None:
            self._server.shutdown()
            self._thread.join()
            self._server.server_close()
            self._server = self._thread = None
        self.forget()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
