"""What the double remembers beside moto: capacity, client tokens, faults and calls. Knows no HTTP and no moto.

Not thread-safe: the server holds one lock around each call.
"""

import collections
import dataclasses
from collections.abc import Sequence

from providers.aws.double import refusals

MARKETS = ("on-demand", "spot")

LOG_LIMIT = 200_000
"""Calls remembered; a replay of a month makes tens of thousands."""


@dataclasses.dataclass(frozen=True, slots=True)
class Pool:
    """Where one instance counts."""

    instance_type: str
    zone: str
    market: str


class Stock:
    """How many instances of a type may run at once, per zone or over all zones, and per market.

    Unlimited where nothing was set. Every limit that matches counts: that of the zone and that of all zones.
    """

    def __init__(self) -> None:
        self._limits: dict[tuple[str, str | None, str], int] = {}
        self._used: collections.Counter[Pool] = collections.Counter()

    def limit(self, instance_type: str, zone: str | None, market: str, count: int) -> None:
        """Set a limit; running instances count. Raises ValueError for an unknown market or a negative count."""
        if market not in MARKETS:
            raise ValueError(f"market={market!r}: choose one of {', '.join(MARKETS)}")
        if count < 0:
            raise ValueError(f"count={count!r}: give zero or more instances")
        self._limits[instance_type, zone, market] = count

    def used(self, instance_type: str, zone: str | None, market: str) -> int:
        if zone is not None:
            return self._used[Pool(instance_type, zone, market)]
        return sum(
            count for pool, count in self._used.items() if (pool.instance_type, pool.market) == (instance_type, market)
        )

    def take(self, pool: Pool, least: int, most: int) -> int:
        """Count as many instances as there are, at most ``most``; none, and zero returned, below ``least``."""
        granted = most
        for zone in (pool.zone, None):
            count = self._limits.get((pool.instance_type, zone, pool.market))
            if count is not None:
                granted = min(granted, count - self.used(pool.instance_type, zone, pool.market))
        if granted < least:
            return 0
        self._used[pool] += granted
        return granted

    def give_back(self, pool: Pool) -> None:
        self._used[pool] -= 1
        if not self._used[pool]:
            del self._used[pool]


@dataclasses.dataclass(slots=True)
class _Bound:
    digest: str
    instance_ids: tuple[str, ...]


class Tokens:
    """Client tokens of RunInstances. One token is one purchase per (region, zone), and bound to its parameters."""

    def __init__(self, *, failed_calls_bind: bool) -> None:
        self._bound: dict[tuple[str, str, str], _Bound] = {}
        self._failed_calls_bind = failed_calls_bind

    def seen(self, scope: tuple[str, str], token: str, digest: str) -> tuple[str, ...]:
        """The instances that the token bought; empty where it bought none yet. Raises Refusal on other parameters."""
        bound = self._bound.get((*scope, token)) if token else None
        if bound is None:
            return ()
        if bound.digest != digest:
            raise refusals.mismatch(token)
        return bound.instance_ids

    def bought(self, scope: tuple[str, str], token: str, digest: str, instance_ids: Sequence[str]) -> None:
        if token:
            self._bound[*scope, token] = _Bound(digest, tuple(instance_ids))

    def failed(self, scope: tuple[str, str], token: str, digest: str) -> None:
        """A call with the token failed after EC2 had looked at it."""
        if token and self._failed_calls_bind:
            self._bound.setdefault((*scope, token), _Bound(digest, ()))


@dataclasses.dataclass(slots=True, kw_only=True)
class Fault:
    """What one or several calls of an action get instead of their answer."""

    code: str
    """EC2's error code; empty when the connection just ends."""
    message: str
    status: int | None
    times: int
    after: bool
    """The effect happens first."""
    lost: bool
    """The connection is cut instead of an answer."""


class Faults:
    """Injected faults per action, first in first out."""

    def __init__(self) -> None:
        self._waiting: dict[str, collections.deque[Fault]] = {}

    def inject(self, action: str, fault: Fault) -> None:
        """Queue a fault. Raises ValueError for one that would do nothing."""
        if fault.times < 1:
            raise ValueError(f"times={fault.times!r}: give one or more calls")
        if not fault.code and not fault.lost:
            raise ValueError("code='': give an error code, or lost=True for a connection that ends without an answer")
        self._waiting.setdefault(action, collections.deque()).append(fault)

    def take(self, action: str) -> Fault | None:
        waiting = self._waiting.get(action)
        if not waiting:
            return None
        fault = waiting[0]
        fault.times -= 1
        if fault.times == 0:
            waiting.popleft()
        return fault


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call that reached the double."""

    number: int
    action: str
    token: str
    """Its client token; empty where the action has none."""
    outcome: str
    """``ok``, an error code, or ``lost``: what the caller saw."""
    effect: bool
    """Whether the action was carried out, whatever the caller saw."""
    instance_ids: tuple[str, ...]
    """The instances that it bought, found again or ended."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class InstanceRecord:
    """One instance as the double knows it, ended ones included."""

    id: str
    instance_type: str
    zone: str
    market: str
    state: str
    token: str
    tags: dict[str, str]
