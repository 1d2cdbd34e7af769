"""How reports write numbers, times and the names of figures, for people. Pure; used by the page and by the terminal."""

import math
from collections.abc import Mapping
from typing import Any, cast

DAY_S = 86_400

_UNITS = {"usd": "USD", "s": "s", "mib": "MiB", "pct": "%"}
_WORDS = {"gpu": "GPU", "gpus": "GPUs", "aws": "AWS", "rss": "RSS"}


def count(value: float) -> str:
    return f"{value:,.0f}"


def dollars(value: float) -> str:
    return f"-{dollars(-value)}" if value < 0 else f"${value:,.2f}"


def seconds(value: float) -> str:
    """A length of time: seconds below five minutes, then minutes, hours, days."""
    size = abs(value)
    if size < 300:
        return f"{plain(round(value, 1))} s"
    if size < 3600:
        return f"{plain(round(value / 60, 1))} min"
    return f"{plain(round(value / 3600, 1))} h" if size < 2 * DAY_S else f"{plain(round(value / DAY_S, 1))} days"


def plain(value: float) -> str:
    """A number with as many digits as it needs: at most four after the point, two from a thousand on."""
    if not math.isfinite(value):
        return str(value)
    text = f"{value:,.{2 if abs(value) >= 1000 else 4}f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def moment(time_s: float, t0: float) -> str:
    """A point in time as the day and hour of the run; day 1 is the first."""
    since = math.floor(time_s - t0)
    day, rest = divmod(since, DAY_S)
    return f"day {day + 1}, {rest // 3600:02d}:{rest % 3600 // 60:02d}:{rest % 60:02d}"


def title(key: str) -> str:
    """A key of ``report.json`` in words: ``wait_s.p99`` becomes ``Wait, s: p99``."""
    parts: list[str] = []
    for part in key.split("."):
        words = part.split("_")
        unit = _UNITS.get(words[-1]) if len(words) > 1 else None
        named = " ".join(_WORDS.get(word, word) for word in (words[:-1] if unit else words))
        parts.append(f"{named}, {unit}" if unit else named)
    text = ": ".join(parts).replace("GPU hours", "GPU-hours")
    return text[:1].upper() + text[1:]


_HEADINGS = {
    "catalog": "The same load on the offers of the catalogue",
    "scale_to_zero": "Scale to zero beside a fixed timer, the last day",
}


def heading(key: str) -> str:
    """The heading of a further section of the report."""
    return _HEADINGS.get(key, title(key))


def value(item: Any) -> str:
    """Any value of an extra section as text."""
    if item is None:
        return "unknown"
    if isinstance(item, bool):
        return "yes" if item else "no"
    if isinstance(item, int | float):
        return plain(item)
    if isinstance(item, list | tuple):
        return ", ".join(value(part) for part in cast("list[Any]", item))
    return str(item)


def flatten(section: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one, keys joined by dots."""
    flat: dict[str, Any] = {}
    for key, item in section.items():
        if isinstance(item, Mapping):
            flat.update(flatten(cast("Mapping[str, Any]", item), f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = item
    return flat
