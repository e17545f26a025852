"""Whom a process asks that shares a file, and how it comes to the next one when that goes; knows no verb."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from typing import TypeAlias

from nbqueue.errors import NbqueueError, QueueUnavailable
from nbqueue.stores.duckdb import DuckDBStore
from nbqueue.stores.sharing.guest import Guest, OwnerGoneError

__all__ = ["FileGoneError", "Role", "Succession"]

_log = logging.getLogger("nbqueue.sharing")

#: What a process is that shares a file: its owner, with the store itself, or a guest of who is.
Role: TypeAlias = DuckDBStore | Guest

#: Seconds until an owner that went at once is looked for again, and until a file that cannot be had is tried again.
_PAUSE, _TRY_AGAIN = 0.01, 0.5
#: The longest wait for an owner, which either comes or is known to be in trouble before.
_WAIT = 90.0


class FileGoneError(QueueUnavailable):
    """The file was deleted or replaced: there is nothing to go on with."""


class Succession:
    """The role of this process, now and after each change.

    Parameters
    ----------
    name : str
        What people call the file.
    settle : Callable[[threading.Event], Role]
        Owns the file or joins who does; the event ends the waiting for that.
    introduce : Callable[[Role], bool]
        Registers there what is registered; whether that is done. If not, it is tried again, and this is the role.
    give_up : Callable[[], None]
        Is called when the file has gone for good.
    """

    def __init__(
        self,
        name: str,
        settle: Callable[[threading.Event], Role],
        introduce: Callable[[Role], bool],
        give_up: Callable[[], None],
    ):
        self._name, self._settle, self._introduce, self._give_up = name, settle, introduce, give_up
        self._pid = os.getpid()
        #: Held where what is registered changes; notified when the role does.
        self.change = threading.Condition()
        #: Who is asked; and the same before all is registered there, None as soon as it is known to be lost.
        self.ready: Role | None = None
        self.current: Role | None = None
        #: Why it can never be reached again.
        self.gone = ""
        self._closing = threading.Event()
        self._trouble: NbqueueError | None = None
        self._introduced = True
        self._keeper: threading.Thread | None = None

    def begin(self) -> None:
        """Take the first role.

        Raises
        ------
        QueueUnavailable
            Where the file can neither be owned nor joined.
        """
        role = self._settle(self._closing)
        self._take(role)
        if isinstance(role, Guest):
            self._keeper = threading.Thread(
                target=self._keep, args=(role,), name="nbqueue-keeper", daemon=True
            )
            self._keeper.start()

    def reach(self) -> Role:
        """Give whom to ask, once there is somebody.

        Raises
        ------
        QueueUnavailable
            If nobody is to be had, and why; in a fork; and after ``close``.
        """
        if os.getpid() != self._pid:
            raise QueueUnavailable(
                f"{self._name} was opened before this process was forked, and stays with process {self._pid};"
                " connect here to join it"
            )
        if (role := self.ready) is not None:
            return role
        with self.change:
            self.change.wait_for(lambda: self.ready or self._trouble or self._closing.is_set(), _WAIT)
            if self._closing.is_set():
                raise QueueUnavailable(f"{self._name} is closed; open it again with nbqueue.connect")
            if self.ready is not None:
                return self.ready
            raise QueueUnavailable(str(self._trouble or f"{self._name} has had no owner for {_WAIT:g} s"))

    def lose(self, role: Role) -> None:
        """Ask this one no more: it went, or does not answer."""
        with self.change:
            if self.current is role:
                self.current = self.ready = None
        if isinstance(role, Guest):
            role.close()

    def _take(self, role: Role) -> None:
        """Have it know what is registered, then let everybody ask it."""
        with self.change:
            self.current = role
        self._introduced = self._introduce(role)
        with self.change:
            if self.current is not role:
                raise OwnerGoneError("the owner went while it was joined")
            self.ready, self._trouble = role, None
            self.change.notify_all()

    def _keep(self, role: Role | None) -> None:
        """Be a guest, of one owner after the other, until this is closed or owns the file itself."""
        while isinstance(role, Guest):
            role.follow()
            self.lose(role)
            role = self._come_back()
        while role is not None and not (self._introduced or role.broken or self._closing.wait(_TRY_AGAIN)):
            self._introduced = self._introduce(role)
        if self.gone or (role is not None and not self._introduced and not self._closing.is_set()):
            self._give_up()

    def _come_back(self) -> Role | None:
        while not (self._closing.is_set() or self.gone):
            role = None
            try:
                role = self._settle(self._closing)
                self._take(role)
            except OwnerGoneError:
                self._closing.wait(_PAUSE)
            except FileGoneError as error:
                self.gone = str(error)
                self._say(error)
            except NbqueueError as error:
                self._say(error)
                self._closing.wait(_TRY_AGAIN)
            except Exception as error:  # noqa: BLE001 - whoever waits is told, whatever it is
                _log.exception("%s cannot be reached", self._name)
                self._say(QueueUnavailable(f"{self._name} cannot be reached: {error!r}"))
                self._closing.wait(_TRY_AGAIN)
            else:
                return role
            if role is not None:
                self.lose(role)
        return None

    def _say(self, trouble: NbqueueError) -> None:
        """Tell who waits for an owner why there is none."""
        if self._trouble is None and not self._closing.is_set():
            _log.warning("%s", trouble)
        with self.change:
            self._trouble = trouble
            self.change.notify_all()

    def close(self) -> bool:
        """Leave the owner, if this is a guest, and settle no more; whether that was still to do."""
        if os.getpid() != self._pid:
            return False
        with self.change:
            if self._closing.is_set():
                return False
            self._closing.set()
            role = self.current
            self.change.notify_all()
        if isinstance(role, Guest):
            self.lose(role)
        keeper = self._keeper
        if keeper is not None and keeper is not threading.current_thread():
            keeper.join()
        return True
