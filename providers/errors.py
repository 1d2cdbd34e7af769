"""What can go wrong with a purchase, on two axes: why it failed and what to stop trying.

``why`` decides what to tell the user and how long to wait; ``scope`` decides which other offers stay usable.
``launched`` is False when certainly nothing runs under the order's key and None when nobody knows. None forbids
fail-over.
"""

import dataclasses
import enum

from vgpu.errors import TidegateError

CLIP = 256
"""Longest provider text that reaches a log, a condition or a decision, characters."""


class Why(enum.StrEnum):
    CAPACITY = "capacity"
    QUOTA = "quota"
    THROTTLED = "throttled"
    AUTH = "auth"
    INVALID = "invalid"
    TRANSIENT = "transient"
    UNKNOWN = "unknown"


class Scope(enum.StrEnum):
    OFFER = "offer"
    ZONE = "zone"
    REGION = "region"
    MARKET = "market"
    ACCOUNT = "account"


class BuyError(TidegateError):
    """A purchase that did not happen, or of which nobody knows whether it did."""

    def __init__(
        self,
        *,
        why: Why,
        scope: Scope,
        code: str,
        message: str,
        launched: bool | None,
        retry_after_s: float | None = None,
    ) -> None:
        if launched is True:
            raise ValueError("launched=True: a purchase that happened is a Machine, not a BuyError")
        super().__init__(f"{code} ({why.value}, {scope.value}): {message[:CLIP]}")
        self.why = why
        self.scope = scope
        self.code = code
        self.message = message[:CLIP]
        self.launched = launched
        self.retry_after_s = retry_after_s


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Reaction:
    """What the engine does about one ``why`` once nothing runs under the key (``launched`` is False)."""

    next_offer: bool
    """Try the next offer of the claim (as a new attempt) instead of the same one again."""
    cool_s: float
    """How long the scope is blocked for new purchases, seconds."""
    retry_s: float
    """How long to wait before the same order is tried again, when it is; seconds."""


REACTIONS: dict[Why, Reaction] = {
    # Karpenter blocks a dry pool for 3 minutes; the drought rarely ends sooner.
    Why.CAPACITY: Reaction(next_offer=True, cool_s=180, retry_s=0),
    # Quotas change by hand: look again after a while, do not hammer.
    Why.QUOTA: Reaction(next_offer=True, cool_s=900, retry_s=0),
    # The order is fine; the call rate is not.
    Why.THROTTLED: Reaction(next_offer=False, cool_s=0, retry_s=5),
    # A person must act; the rest of the account would be refused as well.
    Why.AUTH: Reaction(next_offer=True, cool_s=900, retry_s=0),
    # Our request or a stale catalogue row: repeating it changes nothing.
    Why.INVALID: Reaction(next_offer=True, cool_s=3600, retry_s=0),
    # Only reached with a known outcome; the same order is still the best one.
    Why.TRANSIENT: Reaction(next_offer=False, cool_s=0, retry_s=5),
    Why.UNKNOWN: Reaction(next_offer=False, cool_s=0, retry_s=5),
}
