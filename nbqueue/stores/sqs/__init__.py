"""Jobs as messages in Amazon SQS, with a ledger in this process's own DuckDB file of what it dispatched and ran."""

from __future__ import annotations
