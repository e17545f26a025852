"""What every test gets: a queue home of its own, no settings from outside, and no thread left behind."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.kernel_lines import LINES, check_line, write_kernelspecs

# Their asserts show what they compared, as those of tests do; before anybody imports them.
pytest.register_assert_rewrite("nbqueue.testing.stores", "nbqueue.testing.workers", "tests.hostile")

# Runners are slow and shared, so no deadline; a failure prints the line that reproduces it.
settings.register_profile("ci", deadline=None, derandomize=False, print_blob=True)
settings.register_profile("fuzz", settings.get_profile("ci"), max_examples=10_000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))

#: How long a thread that is ending may take to end.
GRACE = 2.0


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where this run keeps secrets and sockets; its path is short enough for a socket."""
    return tmp_path_factory.mktemp("nbq", numbered=True)


@pytest.fixture(scope="session")
def kernelspecs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the kernelspecs of both lines of ipykernel are."""
    return write_kernelspecs(tmp_path_factory.mktemp("kernelspecs"))


@pytest.fixture(params=LINES)
def kernel_line(request: pytest.FixtureRequest, kernelspecs: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a kernelspec that jupyter_client finds, for each line of ipykernel."""
    check_line(request.param)
    monkeypatch.setenv("JUPYTER_PATH", str(kernelspecs))
    return str(request.param)


@pytest.fixture(autouse=True)
def isolated(monkeypatch: pytest.MonkeyPatch, data_dir: Path) -> None:
    """No test sees the user's queue, secret, IPython start-up files or screen."""
    monkeypatch.delenv("NBQUEUE_URL", raising=False)
    monkeypatch.delenv("NBQUEUE_SECRET", raising=False)
    monkeypatch.setenv("NBQUEUE_DATA_DIR", str(data_dir))
    monkeypatch.setenv("IPYTHONDIR", str(data_dir / "ipython"))
    monkeypatch.setenv("MPLBACKEND", "agg")


@pytest.fixture(autouse=True)
def no_thread_left() -> Iterator[None]:
    """A thread of ours that is not a daemon would keep a notebook from restarting."""
    before = set(threading.enumerate())
    yield
    left = [t for t in threading.enumerate() if t not in before and not t.daemon and _is_ours(t)]
    for thread in left:
        thread.join(GRACE)
    still = [thread.name for thread in left if thread.is_alive()]
    assert not still, f"threads left running that are not daemons: {', '.join(still)}"


def _is_ours(thread: threading.Thread) -> bool:
    target = getattr(thread, "_target", None)
    modules = (type(thread).__module__, getattr(target, "__module__", None) or "")
    return thread.name.startswith("nbq") or any(name.partition(".")[0] == "nbqueue" for name in modules)
