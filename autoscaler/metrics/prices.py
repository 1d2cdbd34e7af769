"""Dollars per GPU-hour by model, for pricing what was measured. Never guesses: an unknown model has no price.

The lowest on-demand price per device in the offers counts, so that a reported waste is at least that large.
"""

import functools
from collections.abc import Callable, Mapping
from decimal import Decimal, InvalidOperation

from providers.catalog import aws_offers
from providers.offers import CapacityType
from vgpu import models
from vgpu.errors import InvalidRequest

ANY_MODEL = "*"
"""In a price given by hand: every model that has no price of its own."""

_MICRO = Decimal(1_000_000)


@functools.cache
def gpu_hour_price(model: str) -> Decimal | None:
    """US dollars per hour and whole device of ``model`` (as a catalogue or an exporter spells it) in the table of
    offers that comes with Tidegate; None where it has none.
    """
    name = _canonical(model)
    found = [
        Decimal(offer.price_micro_usd) / _MICRO / offer.shape.gpus
        for offer in aws_offers()
        if offer.shape.gpu_model == name
        and offer.capacity_type is CapacityType.ON_DEMAND
        and offer.shape.gpu_milli == 1000
    ]
    return min(found, default=None)


def price_list(given: Mapping[str, Decimal]) -> Callable[[str], Decimal | None]:
    """Prices by hand before the table's. ``*`` prices every model that neither names."""
    by_name = {_canonical(model): price for model, price in given.items()}

    def price(model: str) -> Decimal | None:
        own = by_name.get(_canonical(model)) if model else None
        listed = gpu_hour_price(model) if own is None and model else own
        return by_name.get(ANY_MODEL) if listed is None else listed

    return price


def parse_price(text: str) -> tuple[str, Decimal]:
    """``MODEL=USD`` as a pair. Raises InvalidRequest."""
    model, equals, amount = text.rpartition("=")
    try:
        price = Decimal(amount)
    except InvalidOperation:
        price = Decimal("NaN")
    if not equals or not model.strip() or not price.is_finite() or price < 0:
        raise InvalidRequest(f"{text!r} is not a price; write MODEL=USD per GPU-hour, like H100=2.50 or '*=2.50'")
    return model.strip(), price


def _canonical(model: str) -> str:
    try:
        return models.find(model).name
    except InvalidRequest:
        # A model that the catalogue does not know can still be priced by hand under the exporter's spelling.
        return model.strip().casefold()
