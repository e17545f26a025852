"""What a function uses from outside its own body: globals, and variables of the functions around it."""

from __future__ import annotations

import dis
from collections.abc import Iterator
from functools import lru_cache
from types import CodeType, FunctionType

__all__ = ["captured", "globals_used"]

_READS_GLOBAL = ("LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS")


@lru_cache(maxsize=1024)
def globals_used(code: CodeType) -> frozenset[str]:
    """The names of the globals that it reads, and those of the functions in it."""
    # By instruction, as `co_names` holds the names of attributes too.
    own = {step.argval for step in dis.get_instructions(code) if step.opname in _READS_GLOBAL}
    return frozenset(own).union(
        *(globals_used(part) for part in code.co_consts if isinstance(part, CodeType))
    )


def captured(function: FunctionType) -> Iterator[tuple[str, object]]:
    """The variables of the functions around it, by name."""
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            yield name, cell.cell_contents
        except ValueError:  # not assigned yet
            continue
