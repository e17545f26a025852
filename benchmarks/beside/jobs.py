"""The job that does nothing, for workers that import it by name; imports nothing itself."""

from __future__ import annotations

__all__ = ["nothing"]


def nothing(number: int = 0) -> int:
    """Cost as little as a job can."""
    return number
