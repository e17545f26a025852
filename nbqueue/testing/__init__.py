"""For tests: a clock that stands still, a manager in memory, ``drain``, and the suite that every store has to pass.

Nothing in nbqueue imports it. The suite is in ``nbqueue.testing.stores``, since it needs pytest; the rest does not.
"""

from __future__ import annotations

from nbqueue.testing.clock import FakeClock
from nbqueue.testing.queues import drain, memory_manager
from nbqueue.testing.workers import FakeWorker, new_job

__all__ = ["FakeClock", "FakeWorker", "drain", "memory_manager", "new_job"]
