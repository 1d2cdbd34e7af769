"""The double's HTTP side: EC2 calls, moto's other services, and the control endpoints under /tidegate/.

An answer that is to be lost is lost on the socket: the connection is closed without a byte, as a network does it.
"""

import json
import socket
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, cast

from moto.core.request import Request
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.exceptions import HTTPException
from werkzeug.wrappers import Response

from providers.aws.double import CONTROL, responses
from providers.aws.double.world import World, as_json

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

HANDLES = frozenset(
    {
        "set_capacity",
        "inject",
        "add_type",
        "withhold",
        "delay",
        "end_instance",
        "call_log",
        "instances",
        "health",
        "reset",
    }
)
"""Methods of World that POST /tidegate/NAME calls with the JSON object of its body as keyword arguments."""


class ServerRequest(Request):
    """A request that came through a socket."""

    from_wsgi_server = True


class QuietHandler(MotoRequestHandler):
    """Keeps connections open and says nothing on stderr."""

    protocol_version = "HTTP/1.1"
    # Headers and body are written apart: with Nagle's algorithm each answer would wait for the client's delayed ACK.
    disable_nagle_algorithm = True

    def log(self, type: str, message: str, *args: Any) -> None:  # noqa: A002 - the name is werkzeug's
        """Requests are in the double's own call log; failures of the double itself are said aloud."""
        if type == "error":
            super().log(type, message, *args)


class Wire:
    """The WSGI application of one world."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._others = DomainDispatcherApplication(create_backend_app)

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        if environ.get("PATH_INFO", "").startswith(CONTROL):
            return self._control(environ)(environ, start_response)
        if _service(environ) != "ec2":
            environ["HTTP_X_MOTO_ACCOUNT_ID"] = self._world.account
            return cast("Iterable[bytes]", self._others(environ, start_response))
        request = ServerRequest(environ)
        call = responses.DoubleResponse(self._world)
        try:
            status, headers, body = call.answer(request)
        except responses.AnswerLostError as lost:
            _cut(environ)
            # werkzeug's word for a client that has gone: it writes nothing and closes.
            raise ConnectionAbortedError from lost
        text = Response(body, status=int(status), headers=_plain(headers))
        return text(environ, start_response)

    def _control(self, environ: "WSGIEnvironment") -> Response:
        request = ServerRequest(environ)
        name = request.path.removeprefix(CONTROL)
        if name not in HANDLES:
            return _answer({"error": f"no handle {name!r}; there are {', '.join(sorted(HANDLES))}"}, 404)
        handle = cast("Callable[..., object]", getattr(self._world, name))
        try:
            return _answer({"result": as_json(handle(**json.loads(request.get_data() or b"{}")))}, 200)
        except (ValueError, TypeError, HTTPException) as error:
            return _answer({"error": str(error)}, 400)


def _answer(content: dict[str, object], status: int) -> Response:
    return Response(json.dumps(content), status=status, content_type="application/json")


def _plain(headers: Any) -> list[tuple[str, str]]:
    return [(str(name), str(value)) for name, value in dict(headers).items() if str(name).lower() != "status"]


def _service(environ: "WSGIEnvironment") -> str:
    """The service that a request was signed for: the fourth part of the credential's scope."""
    scope = str(environ.get("HTTP_AUTHORIZATION", "")).partition("Credential=")[2].partition(",")[0].split("/")
    return scope[3] if len(scope) > 3 else ""


def _cut(environ: "WSGIEnvironment") -> None:
    connection = cast("socket.socket", environ["werkzeug.socket"])
    connection.shutdown(socket.SHUT_RDWR)
