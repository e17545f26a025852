"""Durations and moments as people write them: ``"1h30m"``, ``"7d"``, ``"2026-03-01 06:00"``; reads no clock."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from nbqueue.errors import InvalidCommand
from nbqueue.jobs import seconds, timestamp

__all__ = ["ago", "duration", "moment"]

_UNITS = {
    **dict.fromkeys(("ms", "millisecond", "milliseconds"), 0.001),
    **dict.fromkeys(("s", "sec", "secs", "second", "seconds"), 1.0),
    **dict.fromkeys(("m", "min", "mins", "minute", "minutes"), 60.0),
    **dict.fromkeys(("h", "hr", "hrs", "hour", "hours"), 3_600.0),
    **dict.fromkeys(("d", "day", "days"), 86_400.0),
    **dict.fromkeys(("w", "week", "weeks"), 604_800.0),
}
_PART = re.compile(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*([a-z]*)", re.ASCII)


def duration(value: object, *, what: str, least: float = 0.0) -> float:
    """Give a duration in float seconds, or refuse it by name.

    Parameters
    ----------
    value : number, timedelta or str
        Seconds, or a text such as ``"90s"``, ``"1h30m"``, ``"2 days"``; a bare number in a text is seconds.
    what : str
        What it is called in an error.
    least : float
        The smallest that is allowed.

    Raises
    ------
    InvalidCommand
        Where it is none; the sentence says how to write one.

    Examples
    --------
    >>> duration("1h30m", what="timeout"), duration("7d", what="older_than"), duration(2, what="delay")
    (5400.0, 604800.0, 2.0)
    """
    if not isinstance(value, str):
        # What is no number either is refused there, by name.
        return seconds(value, what=what, least=least)  # type: ignore[arg-type]
    found = _read(value)
    if found is None:
        raise InvalidCommand(
            f'{what} {value[:60]!r} is no duration; write seconds or e.g. "90s", "1h30m", "7d"'
        )
    return seconds(found, what=what, least=least)


def moment(value: object, *, now: float, what: str) -> float:
    """Give a time to come as seconds since the epoch, or refuse it by name.

    Parameters
    ----------
    value : datetime or str
        An aware datetime; or as text a date with or without a time (local time unless it names a zone), or the
        time from now as ``duration`` takes it.
    now : float
        Seconds since the epoch.
    what : str
        What it is called in an error.

    Raises
    ------
    InvalidCommand
        Where it is none.

    Examples
    --------
    >>> moment("2026-03-01T06:00:00+00:00", now=0.0, what="at"), moment("5m", now=100.0, what="at")
    (1772344800.0, 400.0)
    """
    return _moment(value, now=now, what=what, sign=1)


def ago(value: object, *, now: float, what: str) -> float:
    """Give a time past as seconds since the epoch; as ``moment``, but a duration counts back from now.

    Examples
    --------
    >>> from datetime import timedelta
    >>> ago("1h", now=10_000.0, what="since"), ago(timedelta(minutes=1), now=10_000.0, what="since")
    (6400.0, 9940.0)
    """
    return _moment(value, now=now, what=what, sign=-1)


def _moment(value: object, *, now: float, what: str, sign: int) -> float:
    if isinstance(value, datetime):
        return timestamp(value, what=what)
    if isinstance(value, str) and _read(value) is None:
        try:
            read = datetime.fromisoformat(value.strip())
        except ValueError:
            raise InvalidCommand(
                f'{what} {value[:60]!r} is neither a duration nor a date; write e.g. "90s", "7d", "2026-03-01 06:00"'
            ) from None
        # What somebody types without a zone is meant in theirs.
        return (read if read.tzinfo else read.astimezone()).astimezone(UTC).timestamp()
    return now + sign * duration(value, what=what)


def _read(text: str) -> float | None:
    """Seconds of a text, None where it is no duration."""
    text = text.strip().lower()
    parts = _PART.findall(text)
    if not parts or _PART.sub("", text).strip():
        return None
    if len(parts) == 1 and not parts[0][1]:
        return float(parts[0][0])
    if any(unit not in _UNITS for _, unit in parts):
        return None
    return sum(float(number) * _UNITS[unit] for number, unit in parts)
