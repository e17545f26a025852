"""How often a job is tried and when again: pure values, which know no job, no clock and no randomness."""

from __future__ import annotations

import builtins
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import timedelta
from numbers import Real

from nbqueue.errors import InvalidCommand

__all__ = ["RetryPolicy", "kinds_of"]

#: The longest wait of the exponential default, in seconds.
LONGEST = 300.0
#: How far the exponential default strays to either side, as a fraction.
JITTER = 0.2

# Later than this no calendar holds the time a job would be due at.
_CENTURY = 100 * 366 * 86_400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """Which errors are worth another try, and how long to wait before it.

    Examples
    --------
    >>> RetryPolicy(backoff=(1, 5, 30)).delay(attempt=4, chance=0.9)
    30.0
    >>> [RetryPolicy(jitter=0).delay(n, 0.5) for n in (1, 2, 3, 20)]
    [1.0, 2.0, 4.0, 300.0]
    """

    #: Seconds before each next try, the last repeated; None doubles from 1 s to 5 minutes.
    backoff: tuple[float, ...] | None = None
    #: How far a delay strays to either side, as a fraction; None: 0.2 on the exponential, 0 on given seconds.
    jitter: float | None = None
    #: Dotted names of the exceptions worth another try; empty means all.
    retry_on: tuple[str, ...] = ()
    #: Dotted names of the exceptions that end a job at once; these win.
    give_up_on: tuple[str, ...] = ()

    @classmethod
    def make(
        cls, backoff: object = None, jitter: object = None, retry_on: object = None, give_up_on: object = None
    ) -> RetryPolicy:
        """Make a policy of what users write.

        Parameters
        ----------
        backoff : number, timedelta, sequence of them, "exponential" or None
            The seconds before each next try; one number means always the same.
        jitter : number or None
            A fraction from 0 to 1.
        retry_on, give_up_on : exception class, dotted name, or sequence of them

        Raises
        ------
        InvalidCommand
            Where one of them means nothing; the sentence says how to write it.

        Examples
        --------
        >>> RetryPolicy.make(backoff=[1, timedelta(minutes=1)], give_up_on=KeyError)
        RetryPolicy(backoff=(1.0, 60.0), jitter=None, retry_on=(), give_up_on=('builtins.KeyError',))
        """
        return cls(
            backoff=_backoff(backoff),
            jitter=_jitter(jitter),
            retry_on=_names("retry_on", retry_on),
            give_up_on=_names("give_up_on", give_up_on),
        )

    def delay(self, attempt: int, chance: float) -> float:
        """Seconds to wait after `attempt` (from 1) failed; `chance`, in [0, 1), decides the jitter.

        Examples
        --------
        >>> RetryPolicy().delay(attempt=3, chance=0.0)
        3.2
        """
        jitter = self.jitter
        if self.backoff is None:
            # 2 ** 9 is beyond the cap already, and a large attempt would overflow the float.
            wait = min(float(2 ** min(max(attempt, 1) - 1, 9)), LONGEST)
            jitter = JITTER if jitter is None else jitter
            return min(wait * (1 + jitter * (2 * chance - 1)), LONGEST)
        wait = float(self.backoff[min(max(attempt, 1), len(self.backoff)) - 1])
        return wait * (1 + jitter * (2 * chance - 1)) if jitter else wait

    def allows(self, kinds: Sequence[str]) -> bool:
        """Whether an error of these `kinds` (see `kinds_of`) is worth another try.

        Examples
        --------
        >>> RetryPolicy.make(retry_on=OSError).allows(kinds_of(TimeoutError()))
        True
        """
        if any(name in kinds for name in self.give_up_on):
            return False
        return not self.retry_on or any(name in kinds for name in self.retry_on)

    def to_json(self) -> str:
        """What differs from the default, as JSON; the default itself is the empty text.

        Examples
        --------
        >>> RetryPolicy().to_json(), RetryPolicy(backoff=(1, 5)).to_json()
        ('', '{"backoff":[1,5]}')
        """
        if self == _DEFAULT:
            return ""
        changed = {
            field.name: value
            for field in fields(self)
            if (value := getattr(self, field.name)) != getattr(_DEFAULT, field.name)
        }
        return json.dumps(changed, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> RetryPolicy:
        """Read back what `to_json` wrote; what is unknown in it, from a later nbqueue, is passed over.

        Examples
        --------
        >>> RetryPolicy.from_json('{"backoff":[1,5]}').backoff
        (1.0, 5.0)
        """
        if not text:
            return _DEFAULT
        try:
            stored = json.loads(text)
            names = [field.name for field in fields(cls)]
            return cls.make(**{name: stored[name] for name in names if stored.get(name) is not None})
        except (AttributeError, TypeError, json.JSONDecodeError, RecursionError) as error:
            raise InvalidCommand(
                f"the retry policy {text[:80]!r} of a stored job is damaged ({error}); dispatch it again"
            ) from error


_DEFAULT = RetryPolicy()


def kinds_of(error: BaseException) -> tuple[str, ...]:
    """The dotted names of an error's class and of the exception classes that it descends from.

    Examples
    --------
    >>> kinds_of(KeyError("x"))
    ('builtins.KeyError', 'builtins.LookupError', 'builtins.Exception', 'builtins.BaseException')
    """
    return tuple(_dotted(kind) for kind in type(error).__mro__ if issubclass(kind, BaseException))


def _dotted(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def _backoff(given: object) -> tuple[float, ...] | None:
    if given is None or (isinstance(given, str) and given == "exponential"):
        return None
    if not isinstance(given, list | tuple):
        return (_seconds(given),)
    if not given:
        raise InvalidCommand("backoff is empty; name at least one delay, or leave it out for 'exponential'")
    return tuple(_seconds(item) for item in given)


def _seconds(given: object) -> float:
    seconds = given.total_seconds() if isinstance(given, timedelta) else _number(given)
    if seconds is None:
        raise InvalidCommand(
            f"backoff takes seconds, timedeltas, a list of them or 'exponential', not {given!r}; "
            "for example [1, 5, 30]"
        )
    if not 0 <= seconds <= _CENTURY:
        reason = (
            "negative" if seconds < 0 else "not a number" if math.isnan(seconds) else "more than a century"
        )
        raise InvalidCommand(f"the backoff {given!r} is {reason}; give the seconds to wait, from 0 up")
    return seconds


def _jitter(given: object) -> float | None:
    if given is None:
        return None
    fraction = _number(given)
    if fraction is None or not 0 <= fraction <= 1:
        raise InvalidCommand(
            f"the jitter {given!r} is no fraction from 0 to 1; 0.2 strays by a fifth, 0 not at all"
        )
    return fraction


def _number(given: object) -> float | None:
    """`given` as a float, or None where it is no number; True and False are none."""
    if isinstance(given, bool) or not isinstance(given, Real):
        return None
    try:
        return float(given)
    except OverflowError:
        return math.inf


def _names(option: str, given: object) -> tuple[str, ...]:
    if given is None:
        return ()
    items = given if isinstance(given, list | tuple | set | frozenset) else (given,)
    if not items:
        raise InvalidCommand(f"{option} is empty; name at least one exception, or leave it out")
    names = dict.fromkeys(_name(option, item) for item in items)
    return tuple(names if isinstance(items, list | tuple) else sorted(names))


def _name(option: str, given: object) -> str:
    if isinstance(given, type) and issubclass(given, BaseException):
        return _dotted(given)
    if isinstance(given, str):
        module, _, name = given.rpartition(".")
        if module in ("", "builtins"):
            found = getattr(builtins, name, None)
            if isinstance(found, type) and issubclass(found, BaseException):
                return _dotted(found)
        elif all(part.isidentifier() or part == "<locals>" for part in given.split(".")):
            return given
    raise InvalidCommand(
        f"{option} takes exception classes, not {given!r}; "
        "write KeyError, or a dotted name such as 'requests.exceptions.Timeout'"
    )
