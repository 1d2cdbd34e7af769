"""Reads from a Prometheus HTTP API: bounded in time and tries, checked for shape, with one exception for every failure.

Knows the client library and nothing of metrics. The library is imported when the first question is asked. Not
thread-safe.
"""

import contextlib
import datetime as dt
import math
import re
from collections.abc import Callable, Generator, Mapping
from typing import Any, Protocol, TypeVar, cast
from urllib.parse import urlsplit, urlunsplit

import msgspec
import tenacity

from vgpu.errors import InvalidRequest

CLIP = 200
"""Longest server text that reaches a detail, characters."""

_T = TypeVar("_T")
_STATUS = re.compile(r"HTTP Status Code (\d+)")
_ERRNO = re.compile(r"\[Errno[^\]]*\][^'\")]*")
_SERVER_BUSY = frozenset({408, 425, 429, 500, 502, 503, 504})


class Client(Protocol):
    """The part of the client library that is used."""

    def custom_query(self, query: str, params: dict[str, str]) -> object: ...
    def custom_query_range(
        self,
        query: str,
        start_time: dt.datetime,
        end_time: dt.datetime,
        step: str,
        params: dict[str, str],
    ) -> object: ...
    def close(self) -> None: ...


class Vector(msgspec.Struct, frozen=True):
    metric: dict[str, str]
    value: tuple[float, str]


class Matrix(msgspec.Struct, frozen=True):
    metric: dict[str, str]
    values: list[tuple[float, str]]


class NoAnswer(Exception):
    """One question without a usable answer."""

    def __init__(self, detail: str, *, again: bool, whole_server: bool) -> None:
        super().__init__(detail)
        self.detail = detail
        self.again = again
        """Asking once more may help."""
        self.whole_server = whole_server
        """Nobody is there: other questions would fare the same."""


class Wire:
    """One server."""

    def __init__(
        self, url: str, *, timeout_s: float, tries: int, longest_wait_s: float, headers: Mapping[str, str]
    ) -> None:
        """As ``PrometheusSource``. Raises InvalidRequest for a url that names no http server."""
        self.url = checked_url(url)
        self._timeout_s = timeout_s
        self._tries = max(1, tries)
        self._longest_wait_s = longest_wait_s
        self._headers = dict(headers)
        self._client: Client | None = None

    def close(self) -> None:
        """Give the connections back; the next question opens new ones."""
        if self._client is not None:
            self._client.close()
            self._client = None

    def ask(self, call: Callable[[Client, dict[str, str]], object], kind: type[_T], at: float | None) -> list[_T]:
        """One read with bounded tries. Raises NoAnswer."""
        # Thanos would rather answer with half of its stores than fail; half is not known to be half.
        params = {"partial_response": "false"}
        if at is not None:
            params["time"] = f"{at:.3f}"
        retrying = tenacity.Retrying(
            stop=tenacity.stop_after_attempt(self._tries),
            wait=tenacity.wait_random_exponential(multiplier=0.2, max=self._longest_wait_s),
            retry=tenacity.retry_if_exception(lambda error: isinstance(error, NoAnswer) and error.again),
            reraise=True,
        )
        return retrying(self._ask_once, call, kind, params)

    def _ask_once(
        self, call: Callable[[Client, dict[str, str]], object], kind: type[_T], params: dict[str, str]
    ) -> list[_T]:
        with _translated():
            answer = call(self._connection(), params)
        try:
            return msgspec.convert(answer, list[kind], strict=True)
        except (msgspec.ValidationError, ValueError) as error:
            raise NoAnswer(f"not a Prometheus answer: {str(error)[:CLIP]}", again=False, whole_server=False) from None

    def _connection(self) -> Client:
        if self._client is None:
            import prometheus_api_client  # noqa: PLC0415 - 0.15 s that only those who ask a server pay
            import urllib3.util  # noqa: PLC0415

            library = cast(Any, prometheus_api_client)
            self._client = cast(
                Client,
                library.PrometheusConnect(
                    url=self.url,
                    headers=self._headers,
                    # Tries are counted here, where they are bounded and jittered, and not a second time below.
                    retry=urllib3.util.Retry(total=0, read=False, raise_on_status=False),
                    timeout=self._timeout_s,
                ),
            )
        return self._client


def checked_url(url: str) -> str:
    """``url`` without a trailing slash. Raises InvalidRequest when it names no http server."""
    try:
        parts = urlsplit(url)
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable or re.search(r"\s", url):
        raise InvalidRequest(f"prometheus url={url!r}: not a server's address; give one like http://prometheus:9090")
    return url.rstrip("/")


def shown_url(url: str) -> str:
    """``url`` without its credentials, for messages and tables."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        detail = f"not a Prometheus answer: value {text[:40]!r}"
        raise NoAnswer(detail, again=False, whole_server=False) from None


def finite(value: str | float) -> float:
    """A number that must be one: a time, a count. Raises NoAnswer."""
    found = number(value) if isinstance(value, str) else value
    if not math.isfinite(found):
        raise NoAnswer(
            f"not a Prometheus answer: {value!r} where a time or a count belongs", again=False, whole_server=False
        )
    return found


@contextlib.contextmanager
def _translated() -> Generator[None]:
    """Whatever the client library raises about an answer, as one exception with a clear line."""
    import prometheus_api_client  # noqa: PLC0415
    import requests  # noqa: PLC0415

    refused = cast(type[Exception], cast(Any, prometheus_api_client).PrometheusApiClientException)
    try:
        yield
    except refused as error:
        match = _STATUS.search(str(error))
        status = int(match.group(1)) if match else 0
        detail = f"HTTP {status}: {_said(str(error))}"
        raise NoAnswer(detail, again=status in _SERVER_BUSY, whole_server=False) from None
    except requests.exceptions.JSONDecodeError as error:
        raise NoAnswer(f"the answer is not JSON: {error}"[:CLIP], again=False, whole_server=False) from None
    except requests.exceptions.Timeout:
        raise NoAnswer("no answer in time", again=True, whole_server=True) from None
    except requests.exceptions.RequestException as error:
        # The library's text holds the whole question; what matters stands at its end.
        match = _ERRNO.search(str(error))
        detail = f"no connection: {match.group() if match else f'{type(error).__name__}: {str(error)[:CLIP]}'}"
        raise NoAnswer(detail, again=True, whole_server=True) from None
    except (KeyError, TypeError, IndexError, ValueError, AttributeError) as error:
        # The library takes the answer apart without looking: JSON of another shape ends here.
        detail = f"not a Prometheus answer: {type(error).__name__}: {str(error)[:CLIP]}"
        raise NoAnswer(detail, again=False, whole_server=False) from None


def _said(text: str) -> str:
    """The server's own words out of the library's message."""
    start = text.find("(")
    return text[start + 1 : -1][:CLIP] if start >= 0 else text[:CLIP]
