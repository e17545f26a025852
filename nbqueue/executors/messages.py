"""What travels between a slot and its child besides plain values; both import it."""

from __future__ import annotations

from nbqueue.jobs import Options
from nbqueue.running.handing import Handed
from nbqueue.wire import allow

__all__ = ["Handed"]

allow(Options, Handed)
