"""Durations and instants as people write them."""

import pytest

from autoscaler.metrics.durations import parse_duration, parse_instant
from vgpu.errors import InvalidRequest


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("7d", 604800), ("90m", 5400), ("1h30m", 5400), ("1w2d", 777600), ("45s", 45), ("1.5h", 5400), (" 2h ", 7200)],
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "7", "d", "-7d", "7 d", "7x", "0s", "30m1h", "1h1h", "7dd", "1e3s", "٣d", "infd"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(InvalidRequest, match=r"is not a duration.*write one like 7d, 90m or 1h30m"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1700000000", 1_700_000_000),
        ("1700000000.25", 1_700_000_000.25),
        ("2023-11-14T22:13:20Z", 1_700_000_000),
        ("2023-11-14T23:13:20+01:00", 1_700_000_000),
        ("0", 0),
    ],
)
def test_instants(text: str, seconds: float) -> None:
    assert parse_instant(text) == seconds


@pytest.mark.parametrize("text", ["", "now", "-1", "nan", "inf", "1700000000000", "2023-11-14T22:13:20", "14.11.2023"])
def test_what_is_no_instant(text: str) -> None:
    with pytest.raises(InvalidRequest, match="write Unix seconds or a time with zone"):
        parse_instant(text)
