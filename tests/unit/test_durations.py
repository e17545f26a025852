"""Durations and moments as people write them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from nbqueue.durations import ago, duration, moment
from nbqueue.errors import InvalidCommand


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90.0),
        ("90s", 90.0),
        ("1.5h", 5_400.0),
        ("1h30m", 5_400.0),
        (" 2 days ", 172_800.0),
        ("1w 2d", 777_600.0),
        ("30min", 1_800.0),
        ("250ms", 0.25),
        ("1H", 3_600.0),
        (timedelta(minutes=1), 60.0),
        (2, 2.0),
    ],
)
def test_duration(text: object, seconds: float) -> None:
    """Numbers with units add up; a number alone is seconds."""
    assert duration(text, what="older_than") == seconds


@pytest.mark.parametrize(
    "text", ["", "h", "1x", "1h30", "1h 30 m x", "-1h", "1 000s", "1h,5m", "inf", "nan", None, [], True]
)
def test_no_duration(text: object) -> None:
    """It is refused by the name it was given for."""
    with pytest.raises(InvalidCommand, match="older_than"):
        duration(text, what="older_than")


def test_least() -> None:
    """What is too short is refused."""
    with pytest.raises(InvalidCommand, match="timeout"):
        duration("0s", what="timeout", least=0.001)


def test_moments() -> None:
    """A duration counts from now, forwards or back; a date is itself."""
    now = 1_772_344_800.0
    date = datetime.fromtimestamp(now, UTC)
    assert moment("5m", now=now, what="at") == now + 300
    assert ago("5m", now=now, what="since") == now - 300
    for given in (date, date.isoformat(), date.astimezone().replace(tzinfo=None).isoformat(" ")):
        assert moment(given, now=0.0, what="at") == ago(given, now=0.0, what="since") == now


@pytest.mark.parametrize("given", ["soon", "2026-13-01", datetime(2026, 3, 1), None])  # noqa: DTZ001
def test_no_moment(given: object) -> None:
    """A datetime without a zone is none either: nobody can tell where it was meant."""
    with pytest.raises(InvalidCommand, match="at"):
        moment(given, now=0.0, what="at")
