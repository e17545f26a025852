"""Which modules this process has, and whether any of them was loaded anew since; looked at before every job."""

from __future__ import annotations

import sys
from operator import is_, is_not, itemgetter

__all__ = ["Loaded"]

_spec_of = itemgetter("__spec__")


class Loaded:
    """The modules of this process as they are now, by what says how each was loaded."""

    __slots__ = ("_modules", "_spaces", "_specs", "_specs_now")

    def __init__(self) -> None:
        self._take()

    def _take(self) -> None:
        modules = sys.modules.copy()
        self._modules = list(modules.values())
        self._specs = {name: getattr(module, "__spec__", None) for name, module in modules.items()}
        spaces = [getattr(module, "__dict__", {}) for module in self._modules]
        self._spaces = [space for space in spaces if "__spec__" in space]
        self._specs_now = list(map(_spec_of, self._spaces))

    def renewed(self) -> bool:
        """Whether one of those that were there was loaded anew since this was asked last; new ones are noted."""
        if self._is_same():
            return False
        before = self._specs
        self._take()
        return any(self._specs.get(name, spec) is not spec for name, spec in before.items())

    def _is_same(self) -> bool:
        # However it came about, a reload gives a module another spec. There are a thousand modules in a notebook:
        # loops of C take a fraction of the time.
        modules = list(sys.modules.values())
        if len(modules) != len(self._modules) or not all(map(is_, modules, self._modules)):
            return False
        try:
            return not any(map(is_not, map(_spec_of, self._spaces), self._specs_now))
        except KeyError:
            return False
