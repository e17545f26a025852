"""What every test gets: a queue home of its own, no settings from outside, and no thread left behind."""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.kernel_lines import LINES, check_line, write_kernelspecs
from tests.servers import PostgresServer, fresh_schema, moto_server, unreachable

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


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """A server of this process alone, made for the first test that asks for one."""
    with PostgresServer() as server:
        yield server


@pytest.fixture
def private_postgres(postgres_server: PostgresServer) -> Iterator[PostgresServer]:
    """A server that a test may stop and start: whatever the environment says, nobody else is on it."""
    yield postgres_server
    postgres_server.start()


@pytest.fixture(scope="session")
def postgres(request: pytest.FixtureRequest) -> str:
    """The URL of a PostgreSQL server: the one in ``NBQUEUE_TEST_POSTGRES``, else one of our own."""
    given = os.environ.get("NBQUEUE_TEST_POSTGRES")
    if not given:
        return str(request.getfixturevalue("postgres_server").url)
    if trouble := unreachable(given):
        pytest.fail(f"NBQUEUE_TEST_POSTGRES is no use: {trouble}", pytrace=False)
    return given


@pytest.fixture
def postgres_url(postgres: str) -> Iterator[str]:
    """The URL of a queue on a PostgreSQL server that no other test knows."""
    with fresh_schema(postgres) as url:
        yield url


@pytest.fixture(scope="session")
def moto() -> Iterator[str]:
    """The endpoint of moto's SQS, in a thread of this process."""
    with moto_server() as endpoint:
        yield endpoint


@pytest.fixture
def sqs_endpoint(moto: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The endpoint of an SQS, with credentials for it in the environment."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    return moto


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what each store does not do, whichever reports of skips were asked for: its conformance is less that."""
    missing: dict[str, Counter[str]] = {}
    for report in terminalreporter.stats.get("skipped", ()):
        # Of a skip: where it was said, and what.
        said = report.longrepr[2] if isinstance(report.longrepr, tuple) else ""
        store, found, capability = said.removeprefix("Skipped: ").partition(" does not declare ")
        if found:
            missing.setdefault(store, Counter())[capability] += 1
    for store, skipped in sorted(missing.items()):
        listed = ", ".join(f"{what} ({tests} tests)" for what, tests in sorted(skipped.items()))
        terminalreporter.write_line(f"{store} does not declare, and was not asked for: {listed}")


@pytest.fixture(autouse=True)
def isolated(monkeypatch: pytest.MonkeyPatch, data_dir: Path) -> None:
    """No test sees the user's queue, secret, accounts, IPython start-up files or screen."""
    for name in [name for name in os.environ if name.startswith(("PG", "AWS_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PGPASSFILE", str(data_dir / "pgpass"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(data_dir / "aws-config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(data_dir / "aws-credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
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
