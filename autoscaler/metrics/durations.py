"""Durations and instants as people write them: ``7d``, ``90m``, ``1h30m``; ``1700000000`` or RFC 3339. Pure.

Raises InvalidRequest that says what would have been understood.
"""

import datetime as dt
import math
import re

from vgpu.errors import InvalidRequest

_SECONDS = {"w": 604800, "d": 86400, "h": 3600, "m": 60, "s": 1}
_PART = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,3})?)([wdhms])")
_LAST_INSTANT_S = 253402300799.0
"""The end of the year 9999: what lies behind it is milliseconds given as seconds."""


def parse_duration(text: str) -> float:
    """Seconds of ``text``: numbers with w, d, h, m or s, largest unit first, each at most once."""
    rest, total, units = text.strip(), 0.0, "wdhms"
    while rest:
        match = _PART.match(rest)
        if match is None or match.group(2) not in units:
            raise InvalidRequest(f"{text!r} is not a duration; write one like 7d, 90m or 1h30m")
        units = units[units.index(match.group(2)) + 1 :]
        total += float(match.group(1)) * _SECONDS[match.group(2)]
        rest = rest[match.end() :]
    if not total > 0:
        raise InvalidRequest(f"{text!r} is not a duration above zero; write one like 7d, 90m or 1h30m")
    return total


def parse_instant(text: str) -> float:
    """Unix seconds of ``text``: seconds, or an RFC 3339 time with its zone."""
    remedy = "write Unix seconds or a time with zone like 2026-05-01T12:00:00Z"
    try:
        instant = float(text)
    except ValueError:
        try:
            moment = dt.datetime.fromisoformat(text)
        except ValueError:
            raise InvalidRequest(f"{text!r} is not a time; {remedy}") from None
        if moment.tzinfo is None:
            raise InvalidRequest(f"{text!r} has no time zone; {remedy}") from None
        instant = moment.timestamp()
    if not (math.isfinite(instant) and 0 <= instant <= _LAST_INSTANT_S):
        raise InvalidRequest(f"{text!r} is not between 1970 and 9999; {remedy}")
    return instant
