"""When a window is open: by table, over midnight, over the change of the clocks, and back to back."""

import datetime as dt
import math
import zoneinfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoscaler.engine.windows import InvalidWindow, Window
from vgpu.errors import TidegateError

HOUR = 3600.0


def window(schedule: str, hours: float = 1.0, zone: str = "UTC") -> Window:
    return Window(name="w", schedule=schedule, duration_s=hours * HOUR, time_zone=zone)


def at(text: str) -> float:
    """Unix seconds of an ISO time; UTC where it names no offset."""
    moment = dt.datetime.fromisoformat(text)
    return (moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)).timestamp()


# 2026-06-01 is a Monday.
OPEN = [
    ("0 8 * * *", 2.0, "UTC", "2026-06-01T08:00", True, "the first moment belongs to it"),
    ("0 8 * * *", 2.0, "UTC", "2026-06-01T09:59:59.999", True, "until just before the end"),
    ("0 8 * * *", 2.0, "UTC", "2026-06-01T10:00", False, "the end does not belong to it"),
    ("0 8 * * *", 2.0, "UTC", "2026-06-01T07:59:59.999", False, "not a moment early"),
    ("0 8 * * *", 2.0, "UTC", "2026-06-01T08:00:00.500", True, "fractions of a second"),
    ("0 22 * * *", 4.0, "UTC", "2026-06-01T23:59", True, "before midnight"),
    ("0 22 * * *", 4.0, "UTC", "2026-06-02T00:00", True, "at midnight"),
    ("0 22 * * *", 4.0, "UTC", "2026-06-02T01:59", True, "after midnight"),
    ("0 22 * * *", 4.0, "UTC", "2026-06-02T02:00", False, "the end after midnight"),
    ("0 20 31 12 *", 8.0, "UTC", "2027-01-01T03:00", True, "over the new year"),
    ("0 0 29 2 *", 24.0, "UTC", "2028-02-29T12:00", True, "a leap day"),
    ("0 0 29 2 *", 24.0, "UTC", "2026-03-01T00:00", False, "a leap day of another year"),
    ("0 0 1 * *", 72.0, "UTC", "2026-06-03T23:00", True, "several days long"),
    ("0 * * * *", 0.5, "UTC", "2026-06-01T13:29", True, "first half of each hour"),
    ("0 * * * *", 0.5, "UTC", "2026-06-01T13:30", False, "second half of each hour"),
    ("0,30 8 * * *", 0.5, "UTC", "2026-06-01T08:30", True, "adjacent windows: the next begins where one ends"),
    ("0 * * * *", 1.0, "UTC", "2026-06-01T13:00", True, "back to back: always open, on the hour too"),
    ("*/10 * * * *", 1.0, "UTC", "2026-06-01T13:05", True, "overlapping firings"),
    ("0 8 * * *", 1.0, "Europe/Berlin", "2026-06-01T06:30", True, "summer time in Berlin"),
    ("0 8 * * *", 1.0, "Europe/Berlin", "2026-12-01T07:30", True, "winter time in Berlin"),
    ("0 8 * * *", 1.0, "Europe/Berlin", "2026-12-01T06:30", False, "winter time in Berlin, an hour early"),
    ("0 8 * * *", 1.0, "Asia/Kolkata", "2026-06-01T02:30", True, "a zone of half hours"),
    ("0 8 * * 1-5", 1.0, "UTC", "2026-06-01T08:30", True, "weekdays as cron counts them: Monday is 1"),
    ("0 8 * * 1-5", 1.0, "UTC", "2026-06-05T08:30", True, "Friday is 5"),
    ("0 8 * * 1-5", 1.0, "UTC", "2026-06-06T08:30", False, "Saturday is no weekday"),
    ("0 8 * * 1-5", 1.0, "UTC", "2026-06-07T08:30", False, "Sunday is no weekday"),
    ("0 8 * * 0", 1.0, "UTC", "2026-06-07T08:30", True, "Sunday is 0"),
    ("0 8 * * 7", 1.0, "UTC", "2026-06-07T08:30", True, "and 7"),
    ("0 8 * * 6,0", 1.0, "UTC", "2026-06-06T08:30", True, "a list of days"),
    ("0 8 * * 5-7", 1.0, "UTC", "2026-06-07T08:30", True, "a range to Sunday as 7"),
    ("0 8 * * 0-2", 1.0, "UTC", "2026-06-02T08:30", True, "a range from Sunday as 0"),
    ("0 8 * * 0-2", 1.0, "UTC", "2026-06-03T08:30", False, "and no further"),
    ("0 8 * * */2", 1.0, "UTC", "2026-06-02T08:30", True, "every second day from Sunday: Tuesday"),
    ("0 8 * * */2", 1.0, "UTC", "2026-06-01T08:30", False, "every second day from Sunday: not Monday"),
    ("0 8 * * 1-5/2", 1.0, "UTC", "2026-06-03T08:30", True, "every second weekday: Wednesday"),
    ("0 8 * * mon-fri", 1.0, "UTC", "2026-06-01T08:30", True, "names"),
    ("0 8 * * SUN", 1.0, "UTC", "2026-06-07T08:30", True, "names in capitals"),
    ("0 8 * * fri-sun", 1.0, "UTC", "2026-06-07T08:30", True, "a range of names to Sunday"),
    ("0 8 * * 5/1", 1.0, "UTC", "2026-06-06T08:30", True, "from Friday to the end of the week"),
    ("0 8 * * sat,sun", 1.0, "UTC", "2026-06-05T08:30", False, "a list of names"),
]


@pytest.mark.parametrize(
    ("schedule", "hours", "zone", "moment", "expected"), [row[:5] for row in OPEN], ids=[row[5] for row in OPEN]
)
def test_open(schedule: str, hours: float, zone: str, moment: str, expected: bool) -> None:
    assert window(schedule, hours, zone).open_at(at(moment)) is expected


# Berlin goes from +01:00 to +02:00 on 2026-03-29 at 02:00, and back on 2026-10-25 at 03:00.
CHANGE = [
    ("0 1 * * *", 2.0, "2026-03-29T01:30+01:00", True, "opened before the lost hour"),
    ("0 1 * * *", 2.0, "2026-03-29T03:30+02:00", True, "two hours long although the clock shows three"),
    ("0 1 * * *", 2.0, "2026-03-29T04:00+02:00", False, "and no longer"),
    ("0 3 * * *", 1.0, "2026-03-29T03:00+02:00", True, "right after the lost hour"),
    ("0 8 * * *", 1.0, "2026-03-29T08:30+02:00", True, "eight o'clock by the new time"),
    ("0 8 * * *", 1.0, "2026-03-29T08:30+01:00", False, "and not by the old"),
    ("0 22 * * *", 8.0, "2026-03-29T06:59+02:00", True, "eight hours over the lost one"),
    ("0 22 * * *", 8.0, "2026-03-29T07:00+02:00", False, "eight hours are eight hours"),
    ("0 2 * * *", 0.5, "2026-10-25T02:15+02:00", True, "the doubled hour, first time"),
    ("0 2 * * *", 0.5, "2026-10-25T02:15+01:00", True, "the doubled hour, second time"),
    ("0 2 * * *", 0.5, "2026-10-25T02:45+02:00", False, "the doubled hour, between"),
    ("0 1 * * *", 2.0, "2026-10-25T02:30+02:00", True, "opened before the doubled hour"),
    ("0 1 * * *", 2.0, "2026-10-25T02:30+01:00", False, "two hours long although the clock shows one and a half"),
    ("0 22 * * *", 8.0, "2026-10-25T04:59+01:00", True, "eight hours over the doubled one"),
    ("0 22 * * *", 8.0, "2026-10-25T05:00+01:00", False, "eight hours are eight hours"),
    ("0 8 * * *", 1.0, "2026-10-25T08:30+01:00", True, "eight o'clock by the old time again"),
]


@pytest.mark.parametrize(("schedule", "hours", "moment", "expected", "why"), CHANGE, ids=[row[4] for row in CHANGE])
def test_open_over_the_change_of_the_clocks_in_berlin(
    schedule: str, hours: float, moment: str, expected: bool, why: str
) -> None:
    assert window(schedule, hours, "Europe/Berlin").open_at(at(moment)) is expected, why


@given(st.integers(0, 4_000_000_000), st.integers(1, 23))
def test_adjacent_windows_share_no_moment_and_leave_none_out(second: int, hour: int) -> None:
    morning = window("0 0 * * *", hour)
    rest = window(f"0 {hour} * * *", 24 - hour)
    assert morning.open_at(second) is not rest.open_at(second)


@given(
    st.datetimes(dt.datetime(2020, 1, 1), dt.datetime(2035, 1, 1), timezones=st.just(dt.UTC)),  # noqa: DTZ001 - UTC it is
    st.integers(1, 20),
)
def test_a_daily_window_is_open_when_the_clock_says_so(moment: dt.datetime, hours: int) -> None:
    local = moment.astimezone(zoneinfo.ZoneInfo("Asia/Tokyo"))
    since_eight = (local - local.replace(hour=8, minute=0, second=0, microsecond=0)).total_seconds() % (24 * HOUR)
    assert window("0 8 * * *", hours, "Asia/Tokyo").open_at(moment.timestamp()) is (since_eight < hours * HOUR)


REFUSED = [
    ({"schedule": ""}, "schedule=''"),
    ({"schedule": "* * * *"}, "schedule='* * * *'"),
    ({"schedule": "* * * * * *"}, "schedule='* * * * * *'"),
    ({"schedule": "61 * * * *"}, "schedule='61 * * * *'"),
    ({"schedule": "0 8 * * 8"}, "schedule='0 8 * * 8'"),
    ({"schedule": "0 8 * * 5-1"}, "schedule='0 8 * * 5-1'"),
    ({"schedule": "0 8 * * 1-5/0"}, "schedule='0 8 * * 1-5/0'"),
    ({"schedule": "0 8 * * freitag"}, "schedule='0 8 * * freitag'"),
    ({"schedule": "0 8 * * -1"}, "schedule='0 8 * * -1'"),
    ({"schedule": "0 8 * * 1,,2"}, "schedule='0 8 * * 1,,2'"),
    ({"schedule": "0 8 30 2 *"}, "schedule='0 8 30 2 *'"),
    ({"time_zone": "Berlin"}, "time_zone='Berlin'"),
    ({"time_zone": ""}, "time_zone=''"),
    ({"time_zone": "/etc/localtime"}, "time_zone='/etc/localtime'"),
    ({"time_zone": "Europe"}, "time_zone='Europe'"),
    ({"duration_s": 0.0}, "duration_s=0.0"),
    ({"duration_s": -1.0}, "duration_s=-1.0"),
    ({"duration_s": math.nan}, "duration_s=nan"),
    ({"duration_s": math.inf}, "duration_s=inf"),
]
REMEDIES = {"schedule": "for example '0 8 * * 1-5'", "time_zone": "Europe/Berlin", "duration_s": "number of seconds"}


@pytest.mark.parametrize(("change", "names"), REFUSED, ids=[row[1] for row in REFUSED])
def test_a_window_that_cannot_be_is_refused_with_field_value_and_remedy(change: dict[str, object], names: str) -> None:
    fields = {"name": "nights", "schedule": "0 22 * * *", "duration_s": HOUR, "time_zone": "UTC"} | change
    with pytest.raises(InvalidWindow) as caught:
        Window(**fields)  # type: ignore[arg-type]
    message = str(caught.value)
    assert message.startswith("window 'nights': ")
    assert names in message
    assert REMEDIES[next(iter(change))] in message
    assert isinstance(caught.value, TidegateError)
