"""The live jobs of a store in memory, and what each verb does to them; knows no file and no thread.

Every method is called by one thread at a time (the store sees to that), changes the index and appends rows for the
ledger. The lifecycle decides what a change is; this only keeps the books. The books are one: what is live, ended,
pending, watched and unwritten changes together or not at all, so all of it belongs to ``Held``, and each verb to a
group that is based on it.

==================================================  ==================
how much is kept in memory                          ``limits.py``
what is held, loading it, specs and queues          ``held.py``
the one place where a job moves, who is told        ``moving.py``
`insert`                                            ``inserting.py``
`claim`                                             ``claiming.py``
`apply`: what reports do                            ``reporting.py``
`cancel`, `retry`                                   ``asking.py``
`join`, `leave`, `lapse`, `bury`                    ``seating.py``
==================================================  ==================
"""

from __future__ import annotations

from nbqueue.stores.index.asking import Asking
from nbqueue.stores.index.inserting import Inserting
from nbqueue.stores.index.reporting import Reporting
from nbqueue.stores.index.seating import Seating

__all__ = ["Index"]


class Index(Inserting, Reporting, Asking, Seating):
    """All that a store knows without asking its file, and every verb; see ``Held`` for its parameters."""
