"""``nbqueue.__all__`` is the public surface: these names, sorted, and nothing else."""

from __future__ import annotations

import subprocess
import sys

import pytest

import nbqueue

#: The public names. Adding one is a promise; taking one away is a breaking change.
EXPECTED = [
    *(
        "Batch",
        "CommandQueue",
        "Context",
        "DaskExecutor",
        "Job",
        "JobDispatch",
        "ProcessExecutor",
        "QueueConfig",
        "QueueManager",
        "QueuedCommand",
        "State",
    ),
    *("command", "connect", "current", "dispatch", "job", "manager", "trust"),
    # errors
    *("NbqueueError", "QueueError", "InvalidCommand", "QueueUnavailable", "DispatchFailed"),
    *("JobNotFound", "JobFailed", "JobCancelled", "JobTimeout"),
    *("PayloadUntrusted", "StaleClaim", "NotSupported"),
]


def test_all_is_sorted() -> None:
    """In order, so that a name is found and a change is one line."""
    assert list(nbqueue.__all__) == sorted(nbqueue.__all__)


def test_all_is_what_was_promised() -> None:
    """No name more, no name less."""
    assert set(nbqueue.__all__) == set(EXPECTED)
    assert len(nbqueue.__all__) == len(EXPECTED)


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_name_is_there(name: str) -> None:
    """Every public name is there and says what it is."""
    assert getattr(nbqueue, name).__doc__


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_name_is_listed(name: str) -> None:
    """Completion shows every public name, loaded yet or not."""
    assert name in dir(nbqueue)


def test_no_other_name() -> None:
    """A name that is none is an error; for type checkers as well, or the comment would be one too many."""
    with pytest.raises(AttributeError, match="no attribute 'dispach'"):
        nbqueue.dispach  # type: ignore[attr-defined]  # noqa: B018


def test_is_an_ipython_extension() -> None:
    """``%load_ext nbqueue`` finds its hook."""
    assert callable(nbqueue.load_ipython_extension)


def test_manager_stays_a_function() -> None:
    """``nbqueue.manager`` is the function, whatever is imported."""
    code = "import nbqueue, nbqueue.facade.manager; assert callable(nbqueue.manager), nbqueue.manager"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
