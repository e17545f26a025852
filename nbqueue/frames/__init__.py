"""From a store's views to DataFrames: which columns, of which types, in which order; draws nothing, changes nothing.

Each frame has one table of columns in ``columns``, and the same columns and types whether it is empty or full:
``job_id`` is text, names are categories, times are ``datetime64[us, UTC]``, durations are float seconds, counts are
``int64``.
"""

from __future__ import annotations

from nbqueue.frames.rows import attempts, events, jobs
from nbqueue.frames.stretches import backlog, throughput
from nbqueue.frames.summaries import failures, latency, stats, timeline

__all__ = ["attempts", "backlog", "events", "failures", "jobs", "latency", "stats", "throughput", "timeline"]
