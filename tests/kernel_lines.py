"""Kernels of both lines of ipykernel: 6.31, which knows no subshells, and 7.4, which does."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import NoReturn

import pytest

#: The names of the kernelspecs, which say what is in them.
LINES = ("ipykernel6", "ipykernel7")

ROOT = Path(__file__).resolve().parent.parent
#: Where `make test` puts ipykernel 6.31: beside the other one, so that each kernel takes the one it names.
IPYKERNEL6 = Path(sys.prefix) / "ipykernel6"


def lacking(what: str) -> NoReturn:
    """Skip, saying what to do; where nothing may be lacking (CI), fail."""
    if os.environ.get("NBQUEUE_REQUIRE_BROWSER"):
        pytest.fail(f"NBQUEUE_REQUIRE_BROWSER is set, and {what}", pytrace=False)
    pytest.skip(what)


def write_kernelspecs(folder: Path) -> Path:
    """Write a kernelspec for each line; gives the folder, fit for ``JUPYTER_PATH``."""
    for line in LINES:
        path = [str(IPYKERNEL6)] if line == "ipykernel6" else []
        spec = {
            "argv": [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"],
            "display_name": line,
            "language": "python",
            "metadata": {"debugger": False},
            "env": {"PYTHONPATH": os.pathsep.join([*path, str(ROOT)])},
        }
        place = folder / "kernels" / line
        place.mkdir(parents=True)
        (place / "kernel.json").write_text(json.dumps(spec))
    return folder


def check_line(line: str) -> None:
    """Skip where that line is not installed."""
    if line == "ipykernel6" and not (IPYKERNEL6 / "ipykernel").is_dir():
        lacking("there is no ipykernel 6.31 beside the other one: run `make test`, which puts it into .venv")
