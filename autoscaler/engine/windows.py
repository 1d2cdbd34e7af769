"""Cron windows: whether one is open at a given moment. Computed from ``now``, never from a job having fired.

APScheduler's CronTrigger reads the cron line and knows time zones and daylight saving; nothing here looks at a clock.
Weekdays are those of cron (Sunday is 0 and 7), which CronTrigger counts from Monday: they are handed over as names.
"""

import dataclasses
import datetime as dt
import re
import zoneinfo
from typing import cast

from apscheduler.triggers.cron import CronTrigger

from vgpu.errors import TidegateError


class InvalidWindow(TidegateError, ValueError):
    """A window whose cron line, duration or time zone cannot be read."""


_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat", "sun")
_WEEKDAYS = re.compile(r"(?:(?P<any>\*)|(?P<first>[0-9]|[a-z]{3})(?:-(?P<last>[0-9]|[a-z]{3}))?)(?:/(?P<step>[0-9]+))?")

_LONGEST_S = 366 * 86_400.0


def _weekdays(field: str) -> str:
    """Cron's field of weekdays as a list of names. Raises ValueError for anything that cron does not know."""
    days: list[str] = []
    for part in field.lower().split(","):
        match = _WEEKDAYS.fullmatch(part)
        if match is None:
            raise ValueError(f"weekdays {part!r} are neither 0 to 7 nor sun to sat")
        first, last = (0, 6) if match["any"] else (_day(match["first"]), _day(match["last"] or match["first"]))
        if match["last"] and last == 0:
            last = 7  # "fri-sun": as the end of a range, Sunday is the seventh day
        step = int(match["step"] or 1)
        if step == 0 or last < first:
            raise ValueError(f"weekdays {part!r} name no day: count upwards, in steps of one or more")
        if match["step"] and not match["any"] and not match["last"]:
            last = 6  # "2/2": from there to the end of the week
        days += _DAYS[first : last + 1 : step]
    return ",".join(dict.fromkeys(days))


def _day(text: str) -> int:
    day = int(text) if text.isdigit() else _DAYS.index(text)
    if day >= len(_DAYS):
        raise ValueError(f"weekday {text!r} is not one of 0 to 7")
    return day


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """Opens whenever ``schedule`` fires and stays open for ``duration_s``.

    Where both the day of the month and the weekday are restricted, both must hold. A time in the hour that occurs twice
    in autumn opens it twice; a time in the hour that is skipped in spring may not open it at all.
    """

    name: str
    schedule: str
    """Five cron fields: minute, hour, day of the month, month, weekday."""
    duration_s: float
    """Elapsed seconds, whatever the clocks do meanwhile; at most a year."""
    time_zone: str = "UTC"

    def __post_init__(self) -> None:
        # "not" also catches NaN.
        if not 0 < self.duration_s <= _LONGEST_S:
            raise InvalidWindow(
                f"window {self.name!r}: duration_s={self.duration_s!r}: give a positive number of seconds, "
                f"at most {_LONGEST_S:.0f}"
            )
        if self._next_fire(self._trigger(), dt.datetime.fromtimestamp(0, dt.UTC)) is None:
            raise InvalidWindow(
                f"window {self.name!r}: schedule={self.schedule!r}: no day of any year is like that; "
                "give five cron fields, for example '0 8 * * 1-5'"
            )

    def _trigger(self) -> CronTrigger:
        try:
            zone = zoneinfo.ZoneInfo(self.time_zone)
        except (zoneinfo.ZoneInfoNotFoundError, ValueError) as error:
            raise InvalidWindow(
                f"window {self.name!r}: time_zone={self.time_zone!r}: use an IANA name such as Europe/Berlin"
            ) from error
        try:
            fields = self.schedule.split()
            if len(fields) != 5:
                raise ValueError(f"it has {len(fields)} fields")
            # APScheduler ships no types.
            return CronTrigger.from_crontab(  # pyright: ignore[reportUnknownMemberType]
                " ".join((*fields[:4], _weekdays(fields[4]))), timezone=zone
            )
        except ValueError as error:
            raise InvalidWindow(
                f"window {self.name!r}: schedule={self.schedule!r}: {error}; "
                "give five cron fields, for example '0 8 * * 1-5'"
            ) from error

    def open_at(self, now_s: float) -> bool:
        """Whether the window is open at ``now_s`` (Unix seconds)."""
        now = dt.datetime.fromtimestamp(now_s, dt.UTC)
        # The last moment of a window is outside it, so that adjacent windows do not overlap: a firing exactly
        # duration_s ago no longer counts, and must not hide a later one.
        earliest = now - dt.timedelta(seconds=self.duration_s) + dt.timedelta(microseconds=1)
        fired = self._next_fire(self._trigger(), earliest)
        return fired is not None and fired <= now

    @staticmethod
    def _next_fire(trigger: CronTrigger, since: dt.datetime) -> dt.datetime | None:
        return cast(
            "dt.datetime | None",
            trigger.get_next_fire_time(None, since),  # pyright: ignore[reportUnknownMemberType]
        )
