"""Reads the URL of an SQS queue, and knows how queues are called there; asks nobody."""

from __future__ import annotations

import re
from dataclasses import dataclass
from hashlib import sha256
from urllib.parse import parse_qsl, urlsplit

from nbqueue.errors import InvalidCommand, QueueUnavailable

__all__ = ["Address", "read"]

_EXAMPLE = '"sqs://eu-west-1/myteam"'
_REGION = re.compile(r"[a-z]{2}(-[a-z]+)+-\d+|local|[a-z0-9-]+")
_PREFIX = re.compile(r"[A-Za-z0-9-]+(_[A-Za-z0-9-]+)*")
_OPTIONS = ("create", "endpoint", "fifo", "ledger", "profile", "visibility", "wait")
_SWITCHES = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
#: What parts the prefix from the name of a queue; neither has it in it.
_BETWEEN = "__"
_FIFO, _DEAD = ".fifo", "_dead"
_NAME_MAX = 80


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where queues are in SQS, and how they are used; made by ``read``."""

    region: str
    #: What the names of its queues begin with.
    prefix: str
    #: Another server than Amazon's, "" for that.
    endpoint: str = ""
    #: Of ``~/.aws/config``, "" for what the environment says.
    profile: str = ""
    fifo: bool = False
    #: Make queues that are missing.
    create: bool = True
    #: Seconds after which a message comes back whose process has died.
    visibility: int = 60
    #: Seconds that one request waits for messages.
    wait: int = 20
    #: The file for what this process saw, "" for the first free one of this address.
    ledger: str = ""

    @property
    def name(self) -> str:
        """What people call it; there is no secret in it."""
        return f"sqs://{self.region}/{self.prefix}" + (f"?endpoint={self.endpoint}" if self.endpoint else "")

    @property
    def key(self) -> str:
        """What makes two URLs the same."""
        parts = (
            self.region,
            self.prefix,
            self.endpoint,
            self.profile,
            _FIFO if self.fifo else "",
            self.ledger,
        )
        return "sqs:" + "|".join(parts)

    @property
    def digest(self) -> str:
        """Some digits that tell this address from others, for the name of a file."""
        return sha256(self.key.encode()).hexdigest()[:10]

    # -- names of queues

    @property
    def beginning(self) -> str:
        """What the names of all its queues in SQS begin with."""
        return self.prefix + _BETWEEN

    def queue_name(self, queue: str, *, dead: bool = False) -> str:
        """Give the name that a queue has in SQS; what is not allowed there is written as hexadecimal digits.

        Raises
        ------
        InvalidCommand
            If it is longer than SQS takes.

        Example
        -------
        >>> read("sqs://eu-west-1/team").queue_name("e mails"), read("sqs://eu-west-1/team").queue_of("team__e_20mails")
        ('team__e_20mails', 'e mails')
        """
        spelt = "".join(
            chr(byte) if (chr(byte).isalnum() and byte < 128) or byte == ord("-") else f"_{byte:02X}"
            for byte in queue.encode()
        )
        name = self.beginning + spelt + (_DEAD if dead else "") + (_FIFO if self.fifo else "")
        longest = len(name) if dead else len(name) + len(_DEAD)
        if longest > _NAME_MAX:
            raise InvalidCommand(
                f'queue "{queue}" would be called {name} in SQS: with its dead-letter queue that is {longest}'
                f" characters, and SQS takes {_NAME_MAX}; choose a shorter name, or a shorter prefix"
            )
        return name

    def queue_of(self, name: str) -> str | None:
        """Give the queue that has this name in SQS; None where it is none of ours, or a dead-letter queue."""
        if name.endswith(_FIFO) != self.fifo or not name.startswith(self.beginning):
            return None
        spelt = name.removeprefix(self.beginning).removesuffix(_FIFO)
        if not re.fullmatch(r"(?:[A-Za-z0-9-]|_[0-9A-F]{2})+", spelt):
            return None
        data = re.sub(
            rb"_([0-9A-F]{2})", lambda found: bytes.fromhex(found.group(1).decode()), spelt.encode()
        )
        try:
            return data.decode()
        except UnicodeDecodeError:
            return None


def read(url: str) -> Address:
    """Read ``sqs://REGION/PREFIX?…``.

    Raises
    ------
    QueueUnavailable
        Where it is none; the sentence says what is wrong with it.

    Example
    -------
    >>> read("sqs://eu-west-1/team?endpoint=http://127.0.0.1:5000&fifo=true").queue_name("default")
    'team__default.fifo'
    """
    parts = urlsplit(url)
    if parts.scheme.lower() != "sqs" or not parts.netloc:
        raise QueueUnavailable(f"{url!r} names no region of SQS; write e.g. {_EXAMPLE}")
    if "@" in parts.netloc:
        raise QueueUnavailable(
            "an SQS URL carries no keys: put them into the environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY)"
            " or into a profile, and name that as ?profile=…"
        )
    prefix = parts.path.strip("/") or "nbqueue"
    if not _PREFIX.fullmatch(prefix):
        raise QueueUnavailable(
            f"the prefix {prefix!r} cannot begin the name of an SQS queue; use letters, digits, hyphens and single"
            f" underscores, as in {_EXAMPLE}"
        )
    region = parts.netloc.lower()
    if not _REGION.fullmatch(region):
        raise QueueUnavailable(f"{parts.netloc!r} is no region of SQS; write e.g. {_EXAMPLE}")
    given = dict(parse_qsl(parts.query, keep_blank_values=True))
    unknown = sorted(given.keys() - set(_OPTIONS))
    if unknown:
        raise QueueUnavailable(
            f"unknown option {', '.join(unknown)} in {url!r}; an option is one of {', '.join(_OPTIONS)}"
        )
    return Address(
        region=region,
        prefix=prefix,
        endpoint=_endpoint(given.get("endpoint", "")),
        profile=given.get("profile", ""),
        fifo=_switch("fifo", given.get("fifo", "false")),
        create=_switch("create", given.get("create", "true")),
        visibility=_seconds("visibility", given.get("visibility", "60"), 2, 43_200),
        wait=_seconds("wait", given.get("wait", "20"), 0, 20),
        ledger=given.get("ledger", ""),
    )


def _endpoint(text: str) -> str:
    if not text:
        return ""
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
        raise QueueUnavailable(
            f"the endpoint {text!r} is no address of a server; write e.g. http://127.0.0.1:5000"
        )
    return text.rstrip("/")


def _switch(name: str, text: str) -> bool:
    found = _SWITCHES.get(text.lower())
    if found is None:
        raise QueueUnavailable(f"{name} must be true or false, not {text!r}")
    return found


def _seconds(name: str, text: str, least: int, most: int) -> int:
    if not text.isdecimal() or not least <= int(text) <= most:
        raise QueueUnavailable(
            f"{name} must be a whole number of seconds from {least} to {most:,}, not {text!r}"
        )
    return int(text)
