"""``nbqueue trust``: what another secret signed is shown, signed anew and run, and never decoded meanwhile."""

from __future__ import annotations

import contextlib
import json
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

import nbqueue as nbq
from nbqueue import payload
from nbqueue.cli.commands import main
from nbqueue.errors import NotSupported, PayloadUntrusted, QueueUnavailable
from nbqueue.facade.trusting import foreign_in
from nbqueue.handlers.registry import registry
from nbqueue.payload import bundles
from nbqueue.payload.notation import to_base64
from nbqueue.payload.renewal import renew_code, renew_display, renew_value

PATIENCE = 30
As = Callable[[str], None]


class Mark:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path | str):
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (Path(self.path),)


@contextlib.contextmanager
def known() -> Iterator[None]:
    """The commands of this module, and no others."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "_named", {})
        patch.setattr(registry, "_owned", {})

        @nbq.command("measure")
        def measure(text: slice) -> int:
            return int(text.stop) - int(text.start)

        @nbq.command("spread")
        def spread(ctx: nbq.Context) -> slice:
            ctx.capture.show({"text/html": "<b>seven</b>"}, {})
            return slice(1, 2)

        @nbq.command("touch")
        def touch(what: object) -> str:
            return repr(what)

        yield
        registry.unregister("")


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """The commands of this module, and no others."""
    with known():
        yield


def secret_of(name: str) -> str:
    return f"the secret of {name}, and of nobody else"


@pytest.fixture
def user(monkeypatch: pytest.MonkeyPatch) -> As:
    """Makes this process that of a user, by the secret."""

    def become(name: str) -> None:
        monkeypatch.setenv("NBQUEUE_SECRET", secret_of(name))

    return become


def work(path: Path) -> None:
    with nbq.connect(path) as queues, queues.worker(when_empty=True) as worker:
        worker.wait(PATIENCE)


def run(*args: str, **options: Any) -> Result:
    result = CliRunner().invoke(main, args, **options)
    assert "Traceback" not in result.output
    return result


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of Ann's with one job that succeeded under her, and three that wait."""
    folder = tmp_path_factory.mktemp("ann")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NBQUEUE_SECRET", secret_of("Ann"))
        with known(), nbq.connect(folder / "jobs.duckdb") as queues:
            with queues.worker():
                receipt = queues.dispatch(nbq.QueuedCommand("spread"))
                assert receipt.result(timeout=PATIENCE) == slice(1, 2)
            queues.dispatch(nbq.QueuedCommand("measure").with_arg(slice(2, 5)))
            queues.dispatch(nbq.QueuedCommand("touch").with_arg(Mark("mark")))
            queues.dispatch(nbq.QueuedCommand("touch").with_arg("plain"))
    return folder / "jobs.duckdb"


@pytest.fixture
def file(made: Path, tmp_path: Path, user: As, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it that Bob has worked on: two of the jobs are held."""
    monkeypatch.chdir(tmp_path)
    path = shutil.copy(made, tmp_path / "jobs.duckdb")
    user("Bob")
    work(path)
    return path


def standing(path: Path) -> dict[str, list[Any]]:
    with nbq.connect(path) as queues:
        found = queues.sql("SELECT command, status::VARCHAR AS status FROM jobs ORDER BY number")
    return {name: found.loc[found["command"] == name, "status"].tolist() for name in found["command"]}


def test_foreign_jobs_are_held(file: Path, tmp_path: Path) -> None:
    """What Ann pickled does not run for Bob, nor can he read it; what is plain JSON does."""
    assert standing(file) == {
        "spread": ["succeeded"],
        "measure": ["held"],
        "touch": ["held", "succeeded"],
    }
    with nbq.connect(file) as queues:
        (done,) = queues.jobs(command="spread")["job_id"]
        with pytest.raises(PayloadUntrusted):
            queues.job(done).result(timeout=PATIENCE)
    assert not (tmp_path / "mark").exists()


def test_trust_shows_asks_and_signs(file: Path, tmp_path: Path) -> None:
    """It lists what is foreign, changes nothing on a no, and on a yes the held jobs run as Bob's."""
    before = file.read_bytes()
    no = run("trust", str(file), input="n\n")
    assert no.exit_code == 1
    assert file.read_bytes() == before or standing(file)["measure"] == ["held"]
    yes = run("trust", str(file), input="y\n")
    assert yes.exit_code == 0, yes.output
    lines = [line.split() for line in yes.stdout.splitlines()]
    assert ["measure", "1", "0", "0"] in lines
    assert ["spread", "0", "1", "0"] in lines
    assert ["touch", "1", "0", "0"] in lines
    assert "Displays, which a browser may run (HTML, SVG and the like): 1" in yes.stdout
    assert "Jobs that are held, and would run again: 2" in yes.stdout
    assert not (tmp_path / "mark").exists(), "trusting unpickles nothing"

    assert standing(file)["measure"] == ["pending"]
    work(file)
    assert standing(file) == {
        "spread": ["succeeded"],
        "measure": ["succeeded"],
        "touch": ["succeeded", "succeeded"],
    }
    assert (tmp_path / "mark").exists()
    with nbq.connect(file) as queues:
        results = {
            name: queues.job(found).result(timeout=PATIENCE)
            for name, found in queues.jobs()[["command", "job_id"]].itertuples(index=False)
            if name != "touch"
        }
        (done,) = queues.jobs(command="spread")["job_id"]
        shown = queues.job(done).outputs()
    assert results == {"measure": 3, "spread": slice(1, 2)}
    assert "<b>seven</b>" in repr([one.data for one in shown if one.trusted])
    assert "needs your trust" in run("trust", str(file)).stdout


def test_a_held_job_keeps_its_history(file: Path) -> None:
    """The job that is let run again was retried by hand: no attempt was spent, and its history says all of it."""
    nbq.trust(file)
    work(file)
    with nbq.connect(file) as queues:
        found = queues.sql("SELECT event FROM events WHERE command = 'measure' ORDER BY seq")["event"]
        assert found.tolist() == ["dispatched", "claimed", "refused", "retried", "claimed", "succeeded"]
        (job_id,) = queues.jobs(command="measure")["job_id"]
        assert queues.job(job_id).attempt == 1


def test_trust_in_python(file: Path) -> None:
    """``nbq.trust`` says what it has signed; a second time there is nothing to sign."""
    found = nbq.trust(file)
    assert [(one.command, one.arguments, one.results) for one in found.jobs] == [
        ("measure", 1, 0),
        ("spread", 0, 1),
        ("touch", 1, 0),
    ]
    assert (found.displays, found.held, found.code) == (1, 2, ())
    assert not nbq.trust(file)


def test_the_one_who_lost_the_trust(file: Path, user: As) -> None:
    """What Bob signed anew is foreign to Ann, until she trusts it in turn."""
    nbq.trust(file)
    user("Ann")
    assert len(nbq.trust(file).jobs) == 3
    assert not nbq.trust(file)


def test_all_or_nothing(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If letting the held jobs run fails, nothing was signed either."""
    from nbqueue.stores.trusting import ForeignFile

    def fails(*_: object) -> None:
        raise duckdb.IOException("no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(ForeignFile, "_release_held", fails)
        with pytest.raises(QueueUnavailable, match=r"no space left on device.*nothing was signed"):
            nbq.trust(file)
    assert len(nbq.trust(file).jobs) == 3


def test_a_file_that_is_open(file: Path) -> None:
    """A file that a process has is refused, and the process is named."""
    with nbq.connect(file) as queues:
        queues.jobs()
        found = run("trust", str(file), "--yes")
        assert found.exit_code == 1
        assert f"{file} is held by process" in found.stderr
        with pytest.raises(QueueUnavailable, match="is held by process"):
            nbq.trust(file)
    assert run("trust", str(file), "--yes").exit_code == 0


def test_a_file_that_is_looked_at(file: Path) -> None:
    """Whoever wants the file while somebody makes up their mind is told so, and need not wait."""
    with foreign_in(file), pytest.raises(QueueUnavailable, match="somebody looks at what is foreign"):
        nbq.connect(file)
    nbq.connect(file).close()


@pytest.mark.parametrize("what", ["missing", "text", "database"])
def test_a_file_that_is_no_queue(tmp_path: Path, what: str) -> None:
    """What is no queue is refused and stays as it is."""
    path = tmp_path / "other.duckdb"
    if what == "text":
        path.write_text("just text")
    if what == "database":
        with duckdb.connect(str(path)) as connection:
            connection.execute("CREATE TABLE mine (x INT)")
    before = {found.name: found.read_bytes() for found in tmp_path.iterdir()}
    with pytest.raises(QueueUnavailable, match=r"other\.duckdb"):
        nbq.trust(path)
    assert {found.name: found.read_bytes() for found in tmp_path.iterdir()} == before


def test_a_queue_in_memory() -> None:
    """A queue in memory has nothing foreign."""
    with pytest.raises(NotSupported, match="name a file"):
        nbq.trust(":memory:")


def test_names_are_printed_harmlessly(tmp_path: Path, user: As) -> None:
    """A command whose name would drive the terminal is shown with its escapes written out."""
    path = tmp_path / "jobs.duckdb"
    user("Ann")
    with nbq.connect(path) as queues:
        queues.dispatch(nbq.QueuedCommand("measure").with_arg(slice(1)))
    with duckdb.connect(str(path)) as connection:
        connection.execute("UPDATE specs SET command = 'x' || chr(27) || '[2J'")
    user("Bob")
    shown = run("trust", str(path), input="n\n").stdout
    assert "\x1b" not in shown
    assert r"x\x1b[2J" in shown


SCRIPT = """
import sys
import nbqueue as nbq

@nbq.job
def double(x):
    return 2 * x

with nbq.connect(sys.argv[1]) as queues:
    double.dispatch(21)
"""


def test_code_by_value(tmp_path: Path, user: As) -> None:
    """A function that Ann's script stored does not run for Bob before he trusts it; then it does."""
    path, script = tmp_path / "jobs.duckdb", tmp_path / "theirs.py"
    script.write_text(SCRIPT)
    user("Ann")
    subprocess.run([sys.executable, script, path], check=True, timeout=PATIENCE)
    user("Bob")
    work(path)
    assert standing(path) == {"double": ["pending"]}
    shown = run("trust", str(path), "--yes").stdout
    assert "Functions, which jobs would run:" in shown
    assert "double" in shown
    assert str(script) in shown
    work(path)
    with nbq.connect(path) as queues:
        (job_id,) = queues.jobs()["job_id"]
        assert queues.job(job_id).result(timeout=PATIENCE) == 42


# -------------------------------------------------------------------------------------------- signing anew, alone
plain = st.none() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5)
pickled = st.builds(slice, st.integers(), st.integers())


@pytest.mark.fuzz
@given(
    st.lists(
        plain | pickled | st.dictionaries(st.text(max_size=3), st.tuples(plain, pickled), max_size=2),
        max_size=3,
    )
)
def test_signed_anew_is_the_same_value(value: Any) -> None:
    """A value comes back the same from what was signed anew, and only with the new key."""
    theirs = payload.encode(value, key=b"theirs", context="c")
    renewed = renew_value(theirs, key=b"mine", context="c")
    if not payload.needs_pickle(theirs):
        assert renewed is None
        return
    assert renewed is not None
    assert payload.decode(renewed, key=b"mine", context="c") == value
    assert payload.encode(value, key=b"mine", context="c") == renewed
    with pytest.raises(PayloadUntrusted):
        payload.decode(renewed, key=b"mine", context="another command")
    assert renew_value(renewed, key=b"mine", context="c") is None


@pytest.mark.fuzz
@given(st.text() | st.binary().map(lambda data: data.decode("latin-1")))
def test_damaged_texts_stay(text: str) -> None:
    """What is no stored value is left as it is."""
    assert renew_value(text, key=b"mine", context="c") is None
    assert renew_display(text, key=b"mine", context="c") is None
    assert renew_code(text.encode("utf-8", "replace"), key=b"mine", context="c") is None


@pytest.mark.parametrize(
    "text",
    [
        *(
            '{"$nbq":"pickle"}',
            '{"$nbq":"pickle","v":7}',
            '{"$nbq":"pickle","v":"not base64!"}',
            "[" * 100_000,
        ),
        *('{"$nbq":"pickle","v":"gAQu","x":NaN}', '{"$nbq":"pickle","v":"gAQu","x":"\\ud800"}'),
    ],
    ids=lambda text: text[:40],
)
def test_damaged_pickles_stay(text: str) -> None:
    """A pickle that is damaged, or that no store could keep, is not signed."""
    assert renew_value(text, key=b"mine", context="c") is None


def test_signing_decodes_nothing(tmp_path: Path) -> None:
    """A pickle and code that would leave a mark are signed, and leave none."""
    mark = tmp_path / "mark"
    bomb = pickle.dumps(Mark(mark))
    text = json.dumps([{"$nbq": "pickle", "v": to_base64(bomb)}])
    renewed = renew_value(text, key=b"mine", context="c")
    assert renew_code(payload.sign(bomb, key=b"theirs", context="c"), key=b"mine", context="c")
    assert not mark.exists()
    assert renewed is not None
    payload.decode(renewed, key=b"mine", context="c")
    assert mark.exists()


def test_a_display_that_is_no_display() -> None:
    """What is nested too deeply to be looked at is not signed."""
    deep = '{"data":{"text/html":' + "[" * 100_000 + "]" * 100_000 + '},"metadata":{}}'
    assert renew_display(deep, key=b"mine", context="job 1") is None
    assert not bundles.is_trusted(bundles.read(deep), key=lambda: b"mine", context="job 1")
