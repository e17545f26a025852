"""Calls SQS: every call has time limits and bounded retries, and fails with one sentence; knows no job."""

from __future__ import annotations

import functools
import threading
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from nbqueue.errors import NotSupported, QueueUnavailable
from nbqueue.stores.sqs.address import Address

__all__ = ["Client", "Limits", "SqsTroubleError", "Why"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How long a call may take, in seconds, and how often it is tried."""

    connect: float = 3.0
    #: For an answer; a request that waits for messages has its waiting besides.
    read: float = 10.0
    tries: int = 3


class Why(StrEnum):
    """What a call failed of."""

    MISSING = "missing"
    EXISTS = "exists"
    KEYS = "keys"
    DENIED = "denied"
    #: The clock of this machine is wrong.
    CLOCK = "clock"
    THROTTLED = "throttled"
    #: Nobody answered: what was asked for may have happened, or not.
    SILENT = "silent"
    #: Nobody was there: nothing has happened.
    DEAD = "dead"
    OTHER = "other"

    @property
    def of_one_queue(self) -> bool:
        """Whether other queues, and other messages, may fare better."""
        return self in (Why.MISSING, Why.EXISTS, Why.DENIED, Why.OTHER)


class SqsTroubleError(QueueUnavailable):
    """SQS could not be asked, or said no."""

    def __init__(self, message: str, why: Why, *, maybe: bool = False):
        super().__init__(message)
        self.why = why
        #: What was asked for may have happened all the same.
        self.maybe = maybe or why is Why.SILENT


_CODES = {
    "AWS.SimpleQueueService.NonExistentQueue": Why.MISSING,
    "QueueDoesNotExist": Why.MISSING,
    "QueueAlreadyExists": Why.EXISTS,
    "QueueNameExists": Why.EXISTS,
    "InvalidClientTokenId": Why.KEYS,
    "UnrecognizedClientException": Why.KEYS,
    "SignatureDoesNotMatch": Why.KEYS,
    "InvalidSignatureException": Why.KEYS,
    "IncompleteSignature": Why.KEYS,
    "MissingAuthenticationToken": Why.KEYS,
    "ExpiredToken": Why.KEYS,
    "ExpiredTokenException": Why.KEYS,
    "RequestExpired": Why.CLOCK,
    "RequestTimeTooSkewed": Why.CLOCK,
    "InvalidSecurity": Why.KEYS,
    "AccessDenied": Why.DENIED,
    "AccessDeniedException": Why.DENIED,
    "Throttling": Why.THROTTLED,
    "ThrottlingException": Why.THROTTLED,
    "RequestThrottled": Why.THROTTLED,
    "TooManyRequestsException": Why.THROTTLED,
    "ServiceUnavailable": Why.THROTTLED,
    "503": Why.THROTTLED,
}


#: From this HTTP status on a server failed in the middle of something.
_FAULT_OF_SERVER = 500
#: So much is repeated of what it says, characters.
_DETAIL_MAX = 200


class Client:
    """SQS at one address; any thread may call.

    Parameters
    ----------
    address : Address
        Where it is.
    limits : Limits
        How long it may take.

    Raises
    ------
    NotSupported
        Where boto3 is missing.
    """

    def __init__(self, address: Address, limits: Limits):
        self._address = address
        self._limits = limits
        #: boto3 makes clients in one thread at a time.
        self._making = threading.Lock()
        self._clients: dict[float, Any] = {}
        try:
            import boto3  # noqa: F401 - whether it is there
        except ImportError as error:
            raise NotSupported(
                "an sqs:// queue needs boto3, which is not installed: pip install 'nbqueue[sqs]'"
            ) from error

    def call(self, verb: str, about: str = "", *, waiting: float = 0.0, **params: Any) -> dict[str, Any]:
        """Call a method of boto3's SQS client.

        Parameters
        ----------
        verb : str
            "send_message_batch" …
        about : str
            The queue it is about, for the sentence of an error.
        waiting : float
            Seconds that SQS may wait before it answers.

        Raises
        ------
        SqsTroubleError
            Whatever went wrong; its sentence says where, what, and what to do.
        """
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            found: dict[str, Any] = getattr(self._client(waiting), verb)(**params)
        except ClientError as error:
            refused = self._refused(verb, about, error)
            # What it says of a signature repeats the request, with its token.
            raise refused from None if refused.why in (Why.KEYS, Why.CLOCK) else error
        except BotoCoreError as error:
            raise self._failed(error) from error
        return found

    def _client(self, waiting: float) -> Any:
        with self._making:
            if waiting not in self._clients:
                self._clients[waiting] = self._make(self._limits.read + waiting)
            return self._clients[waiting]

    def _make(self, read: float) -> Any:
        import boto3
        import botocore.session
        from botocore.config import Config

        address, limits = self._address, self._limits
        core = botocore.session.Session()
        core.register_component("data_loader", _descriptions())
        session = boto3.session.Session(
            botocore_session=core, profile_name=address.profile or None, region_name=address.region
        )
        # One request that waits for each queue, beside those of dispatches.
        config = Config(
            connect_timeout=limits.connect,
            read_timeout=read,
            retries={"mode": "standard", "total_max_attempts": limits.tries},
            max_pool_connections=64,
        )
        return session.client("sqs", endpoint_url=address.endpoint or None, config=config)

    def close(self) -> None:
        """Let go of the connections that nobody uses."""
        with self._making:
            clients, self._clients = list(self._clients.values()), {}
        for client in clients:
            client.close()

    # -- sentences

    def _refused(self, verb: str, about: str, error: Any) -> SqsTroubleError:
        said = error.response.get("Error", {})
        code = str(said.get("Code", ""))
        detail = str(said.get("Message", "")).strip().partition("\n")[0][:_DETAIL_MAX]
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        why = _CODES.get(code, Why.THROTTLED if status in (429, 502, 503) else Why.OTHER)
        if why is Why.KEYS and detail.startswith(("Signature expired", "Signature not yet current")):
            why = Why.CLOCK
        where, what = self._address.name, about or "a queue"
        sentences = {
            Why.MISSING: f"there is no queue {what} in SQS at {where}; make it, or leave create=false away",
            Why.EXISTS: f"SQS at {where} has a queue {what} of another kind; name another prefix",
            Why.KEYS: (
                f"SQS at {where} does not take these credentials ({code}: {detail}); check AWS_ACCESS_KEY_ID,"
                " AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN, or name a profile with ?profile=…"
            ),
            Why.CLOCK: (
                f"SQS at {where} finds the clock of this machine wrong ({code}: {detail}); set it, then do it again"
            ),
            Why.DENIED: (
                f"SQS at {where} does not allow {_action(verb)} on {what} to these credentials; their IAM policy has to"
            ),
            Why.THROTTLED: (
                f"SQS at {where} turns requests down for now ({code}); it was tried {self._limits.tries} times: wait a"
                " little, then do it again"
            ),
        }
        return SqsTroubleError(
            sentences.get(why, f"SQS at {where} refused {_action(verb)} on {what} ({code}: {detail})"),
            why,
            maybe=status >= _FAULT_OF_SERVER and code not in _CODES,
        )

    def _failed(self, error: Exception) -> SqsTroubleError:
        from botocore import exceptions as known

        where = self._address.name
        if isinstance(error, known.ProfileNotFound):
            return SqsTroubleError(
                f"there is no profile {self._address.profile!r} in ~/.aws/config; name another with ?profile=…",
                Why.KEYS,
            )
        if isinstance(
            error, known.NoCredentialsError | known.PartialCredentialsError | known.CredentialRetrievalError
        ):
            return SqsTroubleError(
                f"there are no credentials for {where}; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or name a"
                " profile with ?profile=…",
                Why.KEYS,
            )
        if isinstance(
            error, known.EndpointConnectionError | known.ConnectTimeoutError | known.ProxyConnectionError
        ):
            return SqsTroubleError(
                f"nobody answers at {where}; check the endpoint, the region and the network", Why.DEAD
            )
        if isinstance(error, known.HTTPClientError):
            return SqsTroubleError(
                f"SQS at {where} did not answer within {self._limits.read:g} s ({type(error).__name__}); it was tried"
                f" {self._limits.tries} times",
                Why.SILENT,
            )
        return SqsTroubleError(f"SQS at {where} could not be asked ({error})", Why.OTHER)


@functools.cache
def _descriptions() -> Any:
    """Amazon's descriptions of its services: large files, which all clients of a process share."""
    from botocore.loaders import Loader

    return Loader(include_default_search_paths=True)


def _action(verb: str) -> str:
    return "sqs:" + "".join(part.capitalize() for part in verb.removesuffix("_batch").split("_"))
