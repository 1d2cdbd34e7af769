"""What the engine remembers of the market: which offers were refused and until when, and how long returned machines
stay away before they are bought again.

Refusals are rebuilt from the stored attempts of the claims that still exist; the rest is lost with the controller and
has a safe default.
"""

import dataclasses
from collections.abc import Iterable, Sequence

from autoscaler.model import kinds
from providers import errors
from providers.offers import CapacityType, Offer


@dataclasses.dataclass(slots=True)
class TypeHistory:
    """When machines of one type were given back and bought again: what the payback of giving one back is judged by.

    It is lost with the controller; without it ``compaction`` assumes its ``payback_within_s``.
    """

    gaps_s: tuple[float, ...] = ()
    """Seconds between giving one back and the next purchase, newest last, at most sixteen."""
    bought_s: float | None = None
    _given_back_s: float | None = None

    def gave_back(self, now: float) -> None:
        self._given_back_s = now

    def bought(self, now: float) -> None:
        self.bought_s = now
        if self._given_back_s is not None:
            self.gaps_s = (*self.gaps_s[-15:], now - self._given_back_s)
            self._given_back_s = None


class Market:
    """Cooling offers and the history of instance types."""

    def __init__(self) -> None:
        self._cooling: dict[tuple[str, ...], float] = {}
        self._history: dict[str, TypeHistory] = {}

    def cooling(self, offers: Sequence[Offer], now: float) -> dict[str, float]:
        """Offer id to the time until which it is not tried, for the offers that are blocked now."""
        self._cooling = {key: until for key, until in self._cooling.items() if until > now}
        if not self._cooling:
            return {}
        blocked: dict[str, float] = {}
        for offer in offers:
            until = max((self._cooling.get(key, now) for key in _scope_keys(offer).values()), default=now)
            if until > now:
                blocked[offer.id] = until
        return blocked

    def cool(self, offer: Offer, scope: errors.Scope, until: float) -> None:
        """Do not try what ``scope`` says of ``offer`` before ``until``."""
        key = _scope_keys(offer)[scope]
        self._cooling[key] = max(until, self._cooling.get(key, until))

    def recover(self, claims: Iterable[kinds.NodeClaim]) -> None:
        """After a start: block again what the stored attempts say was refused."""
        for claim in claims:
            for attempt in claim.attempts:
                if attempt.refused_s is not None:
                    why, scope, _ = attempt.outcome.split(":", 2)
                    cool_s = errors.REACTIONS[errors.Why(why)].cool_s
                    self.cool(attempt.offer, errors.Scope(scope), attempt.refused_s + cool_s)

    def remembered(self, offer: Offer) -> TypeHistory:
        """Past purchases of the offer's instance type, as far as this controller has seen them."""
        return self._history.setdefault(offer.instance_type, TypeHistory())


def _scope_keys(offer: Offer) -> dict[errors.Scope, tuple[str, ...]]:
    """What a refusal blocks, by its scope. On AWS a dry zone is dry per capacity type (Karpenter blocks the same)."""
    market = "spot" if offer.capacity_type is CapacityType.SPOT else "other"
    return {
        errors.Scope.OFFER: ("offer", offer.id),
        errors.Scope.ZONE: ("zone", offer.provider, offer.zone or offer.region, offer.instance_type, market),
        errors.Scope.REGION: ("region", offer.provider, offer.region, offer.instance_type, market),
        errors.Scope.MARKET: ("market", offer.provider, offer.region, offer.capacity_type.value),
        errors.Scope.ACCOUNT: ("account", offer.provider),
    }
