"""Periodic jobs: when one is due next, computed from ``now`` by APScheduler's interval trigger.

Nothing here fires by itself: the engine's cycle asks. A controller that slept through several periods runs the job
once.
"""

import datetime as dt
from typing import cast

from apscheduler.triggers.interval import IntervalTrigger

_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_LEAST = dt.timedelta(microseconds=1)


class Periodic:
    """Due at every multiple of ``every_s`` seconds of the cluster's clock."""

    def __init__(self, every_s: float) -> None:
        # The start lies a period before the clock's zero: the trigger counts from its own start.
        self._trigger = IntervalTrigger(seconds=every_s, start_date=_EPOCH, timezone=dt.UTC)  # pyright: ignore[reportArgumentType]

    def after(self, now_s: float) -> float:
        """The next time strictly after ``now_s`` at which the job is due."""
        now = _EPOCH + dt.timedelta(seconds=now_s) + _LEAST
        due = cast("dt.datetime", self._trigger.get_next_fire_time(None, now))  # pyright: ignore[reportUnknownMemberType]
        return (due - _EPOCH).total_seconds()
