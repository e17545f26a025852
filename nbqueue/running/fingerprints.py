"""What failures of the same kind have in common, in a line that people read; knows no job."""

from __future__ import annotations

import os
import site
import sysconfig
import traceback
from pathlib import PurePath

__all__ = ["fingerprint"]

FINGERPRINT_MAX = 300
#: A cell's code is compiled under a name of its own that differs from run to run.
_CELLS = ("ipykernel_", "<ipython-input-", "<stdin>", "<string>")


def _libraries() -> tuple[str, ...]:
    paths = sysconfig.get_paths()
    found = {paths[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    found.update(getattr(site, "getsitepackages", list)())
    found.add(site.getusersitepackages())
    own = PurePath(__file__).parent.parent
    return tuple(f"{folder}{os.sep}" for folder in (*found, str(own)))


_LIBRARIES = _libraries()


def fingerprint(error: BaseException) -> str:
    """Say where and with what a job failed: the error's class, and the last line of the user's own code.

    The message is left out, as it names the row; so are paths, as they name the machine.

    Example
    -------
    >>> try:
    ...     {}["x"]
    ... except KeyError as error:
    ...     print(fingerprint(error).split(" at ")[0])
    KeyError
    """
    name = type(error).__name__
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if not _is_library(frame.filename)] or list(frames)
    if not own:
        return name
    last = own[-1]
    text = f"{name} at {_file(last.filename)}:{last.lineno} in {last.name}"
    return text if len(text) <= FINGERPRINT_MAX else text[: FINGERPRINT_MAX - 1] + "…"


def _is_library(filename: str) -> bool:
    return filename.startswith(("<frozen", *_LIBRARIES))


def _file(filename: str) -> str:
    if any(mark in filename for mark in _CELLS):
        return "cell"
    return PurePath(filename).name
