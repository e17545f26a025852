"""The suites in ``nbqueue.testing`` show what their asserts compared, as tests of this folder do."""

from __future__ import annotations

import pytest

pytest.register_assert_rewrite("nbqueue.testing.stores", "nbqueue.testing.workers")
