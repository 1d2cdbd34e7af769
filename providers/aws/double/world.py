"""The double's whole state: one account's regions, stock, tokens, faults and calls, and the handles that tests turn.

Every handle takes the lock, so that it may be turned while calls are served. Two worlds in one process share nothing:
each has an account of its own.
"""

import collections
import dataclasses
import itertools
import os
import re
import threading
from pathlib import Path
from typing import Any, cast

from moto.core.base_backend import AccountSpecificBackend
from moto.ec2.models import ec2_backends
from moto.ec2.models.instance_types import INSTANCE_TYPES

from providers.aws.double import refusals, responses, state
from providers.aws.double.backend import Entry, IndexedBackend

_accounts = itertools.count(1)


class World:
    """Everything that one double knows."""

    def __init__(self, *, failed_calls_bind: bool = True) -> None:
        self.account = f"{next(_accounts):012d}"
        self.lock = threading.RLock()
        self._failed_calls_bind = failed_calls_bind
        self._start()

    def _start(self) -> None:
        self.stock = state.Stock()
        self.tokens = state.Tokens(failed_calls_bind=self._failed_calls_bind)
        self.faults = state.Faults()
        self.calls: collections.deque[state.Call] = collections.deque(maxlen=state.LOG_LIMIT)
        self.hidden_describes = 0
        self.pending_describes = 0
        self._not_sold: set[tuple[str, str]] = set()
        self._extra_types: set[str] = set()
        self._backends: dict[str, IndexedBackend] = {}

    # For the responses --------------------------------------------------------------------------------------------

    def backend(self, region: str) -> IndexedBackend:
        """The region's state, built when it is first asked for."""
        backend = self._backends.get(region)
        if backend is None:
            # moto counts its objects in ``__new__``, whose annotation hides the class that is made.
            backend = self._backends[region] = cast("IndexedBackend", IndexedBackend(region, self.account))
            # moto's other services find EC2 through this registry.
            regions: AccountSpecificBackend[Any] = ec2_backends[self.account]
            regions[region] = backend
        return backend

    def knows(self, instance_type: str) -> bool:
        return (
            instance_type in INSTANCE_TYPES
            or instance_type in responses.ALWAYS_KNOWN
            or instance_type in self._extra_types
        )

    def sells(self, pool: state.Pool) -> bool:
        return (pool.instance_type, pool.zone) not in self._not_sold

    def end(self, backend: IndexedBackend, entry: Entry, code: str = "", message: str = "") -> None:
        """Terminate an instance, once, and return its place to the stock."""
        if not entry.ended:
            backend.end(entry, code, message)
            self.stock.give_back(entry.pool)

    # Handles ------------------------------------------------------------------------------------------------------

    def set_capacity(self, instance_type: str, zone: str | None, market: str, count: int) -> None:
        """Let at most ``count`` instances run at once, in one zone or (None) over all of them; running ones count."""
        with self.lock:
            self.stock.limit(instance_type, zone, market, count)

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
        """Spoil the next ``times`` calls of an action that no earlier fault spoils.

        ``code`` is EC2's; its real HTTP status is used unless ``status`` says otherwise. With ``after`` the effect
        happens first. With ``lost`` the connection is cut instead of an answer.
        """
        fault = state.Fault(code=code, message=message, status=status, times=times, after=after, lost=lost)
        with self.lock:
            self.faults.inject(action, fault)

    def add_type(self, instance_type: str) -> None:
        """Accept an instance type that moto does not know."""
        with self.lock:
            self._extra_types.add(instance_type)

    def withhold(self, instance_type: str, zone: str) -> None:
        """Do not sell a type in a zone: the answer is ``Unsupported``."""
        with self.lock:
            self._not_sold.add((instance_type, zone))

    def delay(self, *, hidden_describes: int = 0, pending_describes: int = 0) -> None:
        """Show instances launched from now on late: missing from so many reads, then pending in so many."""
        with self.lock:
            self.hidden_describes = hidden_describes
            self.pending_describes = pending_describes

    def end_instance(self, instance_id: str, code: str = "Server.SpotInstanceTermination", message: str = "") -> None:
        """End an instance from EC2's side. Raises Refusal when there is none of that id."""
        with self.lock:
            for backend in self._backends.values():
                entry = backend.entry(instance_id)
                if entry is not None:
                    self.end(backend, entry, code, message)
                    return
            raise refusals.not_found([instance_id])

    def call_log(self) -> list[state.Call]:
        """The calls so far, oldest first."""
        with self.lock:
            return list(self.calls)

    def instances(self) -> list[state.InstanceRecord]:
        """All instances of all regions, ended ones included, in the order of their launch."""
        with self.lock:
            return [record for backend in self._backends.values() for record in backend.records()]

    def health(self) -> dict[str, float | None]:
        """Process id and the highest resident memory so far, MiB (None where the system has no /proc)."""
        return {"pid": os.getpid(), "peak_rss_mib": _peak_rss_mib()}

    def reset(self) -> None:
        """Forget everything: instances, capacity, tokens, faults and calls."""
        with self.lock:
            self.forget()
            self._start()

    def forget(self) -> None:
        """Take this world's account out of moto's registry."""
        ec2_backends.pop(self.account, None)


def _peak_rss_mib() -> float | None:
    # Not getrusage: its figure survives exec, so that a child starts with that of whoever started it.
    try:
        text = Path("/proc/self/status").read_text(encoding="ascii")
    except OSError:
        return None
    found = re.search(r"^VmHWM:\s+(\d+) kB$", text, re.MULTILINE)
    return int(found[1]) / 1024 if found else None


def as_json(value: object) -> object:
    """Records as plain values, for the control endpoints."""
    if isinstance(value, list):
        return [as_json(item) for item in cast("list[object]", value)]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    return value
