"""A kernel in a folder of its own, of each line of ipykernel."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kernel.kernel import Kernel


@pytest.fixture
def kernel(tmp_path: Path, kernel_line: str) -> Iterator[Kernel]:
    """A kernel in a folder of its own, of each line of ipykernel."""
    kernel = Kernel(tmp_path, kernel_line)
    yield kernel
    kernel.close()
