"""What a running job says is its own, in order and within bounds; everybody else's prints go where they went."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import importlib
import io
import logging
import pickle
import subprocess
import sys
import textwrap
import threading
import time
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import cloudpickle
import pytest

from nbqueue.running.capture import Capture, active, install, uninstall


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    yield
    uninstall()


@contextlib.contextmanager
def bare_root() -> Iterator[logging.Logger]:
    """The root logger as it is in a fresh interpreter: no handler, not even pytest's."""
    root = logging.getLogger()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(root, "handlers", [])
        yield root
        uninstall()


def bare_logging(test: Callable[..., None]) -> Callable[..., None]:
    """Run a test with a bare root logger; a fixture would be over before pytest adds its handlers."""

    @functools.wraps(test)
    def wrapped(*args: Any, **kwargs: Any) -> None:
        with bare_root():
            test(*args, **kwargs)

    return wrapped


@contextlib.contextmanager
def own_logger(handler: logging.Handler, propagate: bool = True) -> Iterator[logging.Logger]:
    """A logger from INFO up that has this handler."""
    logger = logging.getLogger("own")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(logger, "propagate", propagate)
        patch.setattr(logger, "handlers", [handler])
        logger.setLevel("INFO")
        yield logger
    logger.setLevel(logging.NOTSET)
    handler.close()


def in_thread(work: object) -> None:
    thread = threading.Thread(target=work)  # type: ignore[arg-type]
    thread.start()
    thread.join(10)
    assert not thread.is_alive()


def spoken(capture: Capture) -> list[tuple[str, str]]:
    return [(chunk.stream, chunk.text) for chunk in capture.drain()]


def test_streams_are_kept_in_order() -> None:
    """Consecutive text of one stream is one chunk, and a change of stream begins another."""
    before = time.time()
    with Capture() as capture:
        print("one", 1)
        print("two")
        print("oh", file=sys.stderr)
        print("three", end="")
    chunks = capture.drain()
    assert [(c.stream, c.text) for c in chunks] == [
        ("stdout", "one 1\ntwo\n"),
        ("stderr", "oh\n"),
        ("stdout", "three"),
    ]
    assert before <= chunks[0].at <= chunks[-1].at <= time.time()
    assert capture.text() == "one 1\ntwo\noh\nthree"


def test_captured_text_is_not_echoed(capsys: pytest.CaptureFixture[str]) -> None:
    """Text of a job does not appear where others print."""
    with Capture():
        print("mine")
        sys.stderr.write("mine too")
    print("theirs")
    assert capsys.readouterr() == ("theirs\n", "")


def test_drain_gives_what_is_new() -> None:
    """Each drain gives what was said since the one before, and text() gives all of it still."""
    with Capture() as capture:
        assert capture.drain() == ()
        print("a")
        assert spoken(capture) == [("stdout", "a\n")]
        assert capture.drain() == ()
        print("b")
        assert spoken(capture) == [("stdout", "b\n")]
    assert capture.drain() == ()
    assert capture.text() == "a\nb\n"


def test_two_jobs_at_once_do_not_mix(capsys: pytest.CaptureFixture[str]) -> None:
    """Jobs in two threads and the cell beside them each keep their own text."""
    barrier = threading.Barrier(3, timeout=10)
    said: dict[str, str] = {}

    def job(name: str) -> None:
        with Capture() as capture:
            for _ in range(50):
                barrier.wait()
                print(name)
        said[name] = capture.text()

    threads = [threading.Thread(target=job, args=(name,)) for name in ("a", "b")]
    for thread in threads:
        thread.start()
    for _ in range(50):
        barrier.wait()
        print("cell")
    for thread in threads:
        thread.join(10)
    assert said == {"a": "a\n" * 50, "b": "b\n" * 50}
    assert capsys.readouterr().out == "cell\n" * 50


def test_async_jobs_on_one_loop_do_not_mix() -> None:
    """Tasks that take turns on one event loop each keep their own text."""

    async def job(name: str) -> str:
        with Capture() as capture:
            for _ in range(3):
                print(name)
                await asyncio.sleep(0)
        return capture.text()

    async def both() -> list[str]:
        return await asyncio.gather(job("a"), job("b"))

    assert asyncio.run(both()) == ["a\n" * 3, "b\n" * 3]


def test_drain_beside_a_writer_loses_nothing() -> None:
    """A supervisor that drains while the job writes gets every character once, in order."""
    capture = Capture()
    written = threading.Event()
    got: list[str] = []

    def job() -> None:
        with capture:
            for number in range(20_000):
                print(number)
        written.set()

    thread = threading.Thread(target=job)
    thread.start()
    while not written.is_set():
        got += [chunk.text for chunk in capture.drain()]
    thread.join(10)
    got += [chunk.text for chunk in capture.drain()]
    assert "".join(got) == "".join(f"{n}\n" for n in range(20_000)) == capture.text()


def test_threads_in_a_copied_context_are_captured(capsys: pytest.CaptureFixture[str]) -> None:
    """A thread that runs in a copy of the job's context speaks for the job; a bare one does not."""
    with Capture() as capture:
        in_thread(lambda: print("stranger"))
        context = contextvars.copy_context()
        in_thread(lambda: context.run(print, "own"))
    assert capture.text() == "own\n"
    assert capsys.readouterr().out == "stranger\n"


def test_what_comes_after_the_end_is_dropped(capsys: pytest.CaptureFixture[str]) -> None:
    """A thread that outlives its job speaks to nobody, least of all into a stranger's cell."""
    with Capture() as capture:
        print("in time")
        left_behind = contextvars.copy_context()
    in_thread(lambda: left_behind.run(print, "late"))
    assert capture.text() == "in time\n"
    assert capsys.readouterr().out == ""


def test_nested_captures_restore_the_outer_one() -> None:
    """A job that runs inside a job has its own text, and the outer one goes on."""
    with Capture() as outer:
        print("before")
        with Capture() as inner:
            print("inside")
            assert active() is inner
        print("after")
    assert active() is None
    assert (outer.text(), inner.text()) == ("before\nafter\n", "inside\n")


# ------------------------------------------------------------------------------------- its bounds
@pytest.mark.parametrize("size", [1, 7, 100, 5000])
def test_too_much_text_keeps_head_and_tail(size: int) -> None:
    """Beyond the limit the middle is left out, and a mark counts what was."""
    text = "".join(chr(ord("a") + n % 26) for n in range(10_000))
    with Capture(limit=100) as capture:
        for start in range(0, len(text), size):
            sys.stdout.write(text[start : start + size])
    expected = text[:50] + "\n… [truncated: 9,900 characters left out] …\n" + text[-50:]
    assert capture.text() == expected
    assert "".join(chunk.text for chunk in capture.drain()) == expected


def test_text_within_the_limit_is_whole() -> None:
    """As many characters as the limit are kept without a mark."""
    with Capture(limit=100) as capture:
        sys.stdout.write("x" * 60)
        sys.stdout.write("y" * 40)
    assert capture.text() == "x" * 60 + "y" * 40


def test_live_drains_add_up_to_the_truncated_text() -> None:
    """What was drained while it ran and what came at the end are the text, its mark included."""
    parts = []
    with Capture(limit=1000) as capture:
        for number in range(1000):
            print(number)
            if number % 10 == 0:
                parts += [chunk.text for chunk in capture.drain()]
    parts += [chunk.text for chunk in capture.drain()]
    assert "".join(parts) == capture.text()
    assert "characters left out" in capture.text()
    assert capture.drain() == ()


def test_a_long_loop_of_small_writes_takes_little_memory() -> None:
    """A progress bar of dots is kept as text, not as a million little records."""
    with Capture() as capture:
        for _ in range(5000):
            sys.stdout.write(".")
    assert len(capture._raw) < 1000
    assert capture.text() == "." * 5000


def test_a_lone_surrogate_is_written_out() -> None:
    """The name of an undecodable file does not keep the job's log from being stored."""
    with Capture() as capture:
        print("caf\udce9 ü")
    assert capture.text() == "caf\\udce9 ü\n"


# ---------------------------------------------------------------------------------- the stand-ins
def test_the_original_shines_through(monkeypatch: pytest.MonkeyPatch) -> None:
    """Outside of a job every attribute is the original stream's, also those no stream has by itself."""

    class Odd(io.StringIO):
        parent_header = {"msg_id": "7"}

        def isatty(self) -> bool:
            return True

        def fileno(self) -> int:
            return 42

    monkeypatch.setattr(sys, "stdout", Odd())
    install()
    assert (sys.stdout.isatty(), sys.stdout.fileno()) == (True, 42)
    assert sys.stdout.parent_header == {"msg_id": "7"}  # type: ignore[attr-defined]
    with pytest.raises(AttributeError, match="nonsense"):
        sys.stdout.nonsense  # type: ignore[attr-defined]  # noqa: B018
    with Capture():
        assert not sys.stdout.isatty()
        assert sys.stdout.encoding == "utf-8"
        assert sys.stdout.fileno() == 42


def test_a_job_may_treat_stdout_as_a_file() -> None:
    """What programs do with a text stream works, and closing it closes nothing for others."""
    with Capture() as capture:
        sys.stdout.writelines(["a", "b"])
        sys.stdout.buffer.write(b"\xc3\xbc")
        sys.stdout.flush()
        assert sys.stdout.write("xyz") == 3
        with pytest.raises(TypeError, match="must be str, not int"):
            sys.stdout.write(5)  # type: ignore[arg-type]
        sys.stdout.close()
    assert capture.text() == "abüxyz"
    print("still open")


def test_install_is_idempotent_and_undone() -> None:
    """Installing twice is installing once, and uninstalling gives back what was there."""
    out, err = sys.stdout, sys.stderr
    install()
    face = sys.stdout
    install()
    assert face is sys.stdout is not out
    uninstall()
    uninstall()
    assert (sys.stdout, sys.stderr) == (out, err)


def test_somebody_else_replacing_stdout_meanwhile() -> None:
    """Under redirect_stdout jobs are captured still, others are redirected, and afterwards all is as before."""
    install()
    before = sys.stdout
    redirected = io.StringIO()
    with Capture() as capture:
        cell = contextvars.Context()
        redirect = contextlib.redirect_stdout(redirected)
        cell.run(redirect.__enter__)
        print("running")
        cell.run(redirect.__exit__, None, None, None)
    with redirect:
        with Capture() as other:
            print("job")
        print("cell")
    assert (capture.text(), other.text(), redirected.getvalue()) == ("running\n", "job\n", "cell\n")
    assert sys.stdout is before
    with Capture() as capture:
        print("next")
    assert capture.text() == "next\n"


def test_jobs_that_redirect_do_so_for_themselves(capsys: pytest.CaptureFixture[str]) -> None:
    """Two jobs whose redirections overlap each get their own, and nobody else's text; afterwards all is as before."""
    install()
    before = sys.stdout
    turns = threading.Barrier(3, timeout=20)
    taken: dict[str, tuple[str, str]] = {}

    def job(name: str) -> None:
        own = io.StringIO()
        with Capture() as capture:
            print("not redirected")
            with contextlib.redirect_stdout(own):
                assert sys.stdout is own
                turns.wait()
                print(name)
        taken[name] = capture.text(), own.getvalue()

    threads = [threading.Thread(target=job, args=(name,)) for name in "ab"]
    for thread in threads:
        thread.start()
    print("cell")
    turns.wait()
    for thread in threads:
        thread.join(20)
    assert taken == {name: ("not redirected\n", f"{name}\n") for name in "ab"}
    assert sys.stdout is before
    print("cell")
    assert capsys.readouterr().out == "cell\ncell\n"


def test_a_job_that_never_puts_stdout_back_mutes_itself_alone(capsys: pytest.CaptureFixture[str]) -> None:
    """What it puts in the place of a stream is there for the rest of this job."""
    with Capture() as capture:
        print("before")
        own = sys.stdout = io.StringIO()
        print("mine")
        sys.stdout = None
        print("nowhere")
    assert (capture.text(), own.getvalue()) == ("before\n", "mine\n")
    print("cell")
    with Capture() as capture:
        print("next job")
    assert capture.text() == "next job\n"
    assert capsys.readouterr().out == "cell\n"


def test_a_job_may_put_a_stream_around_stdout() -> None:
    """One that writes to what was there before, as a tee does, and one that sends errors to the output."""

    class Loud:
        def __init__(self, inner: Any) -> None:
            self.inner = inner

        def write(self, text: str) -> int:
            return int(self.inner.write(text.upper()))

        def flush(self) -> None:
            self.inner.flush()

    with Capture() as capture:
        quiet, sys.stdout = sys.stdout, Loud(sys.stdout)  # type: ignore[assignment]
        print("loud", flush=True)
        sys.stdout = quiet
        sys.stderr = sys.stdout
        print("quiet", file=sys.stderr)
    assert spoken(capture) == [("stdout", "LOUD\nquiet\n")]


def test_a_patched_stream_is_put_back(capsys: pytest.CaptureFixture[str]) -> None:
    """By ``unittest.mock.patch``, which reads what the module holds, in a job and in a cell."""
    install()
    before = sys.stdout
    with Capture() as capture:
        with mock.patch("sys.stdout", io.StringIO()) as own:
            print("patched")
        print("job")
    assert (capture.text(), own.getvalue()) == ("job\n", "patched\n")
    with mock.patch("sys.stdout", io.StringIO()) as own:
        print("patched")
    print("cell")
    assert (capsys.readouterr().out, own.getvalue()) == ("cell\n", "patched\n")
    assert sys.stdout is before


def test_the_streams_that_python_began_with_are_captured() -> None:
    """In a kernel what is printed there lands in a cell; outside of a job they are what they were."""
    original = sys.__stdout__
    with Capture() as capture:
        print("mine", file=sys.__stdout__)
        print("oh", file=sys.__stderr__)
    assert spoken(capture) == [("stdout", "mine\n"), ("stderr", "oh\n")]
    assert sys.__stdout__ is original


def test_code_that_names_sys_is_pickled_as_ever() -> None:
    """The module goes by its name, installed or not."""
    install()
    assert pickle.loads(cloudpickle.dumps(lambda: sys.maxsize))() == sys.maxsize


# -------------------------------------------------------------------------------------- logging
@bare_logging
def test_log_records_are_part_of_the_text() -> None:
    """Where nobody configured logging, a job's records are in its log in order, at the levels loggers have."""
    with Capture() as capture:
        print("first")
        logging.getLogger("pipeline").warning("disk %d %% full", 90)
        logging.getLogger("pipeline").info("below the level")
    assert spoken(capture) == [("stdout", "first\n"), ("log", "WARNING pipeline: disk 90 % full\n")]


@bare_logging
def test_a_logged_exception_has_its_traceback() -> None:
    """log.exception() puts the traceback into the job's log."""
    with Capture() as capture:
        try:
            raise KeyError("x")
        except KeyError:
            logging.getLogger("pipeline").exception("no luck")
    assert capture.text().startswith("ERROR pipeline: no luck\nTraceback")
    assert capture.text().endswith("KeyError: 'x'\n")


@bare_logging
def test_outside_of_a_job_logging_is_as_it_was(capsys: pytest.CaptureFixture[str]) -> None:
    """Installed, we change nothing for others: warnings go to stderr, and basicConfig() still configures."""
    with Capture():
        pass
    logging.getLogger("pipeline").warning("as ever")
    logging.getLogger("pipeline").info("not shown")
    assert capsys.readouterr().err == "as ever\n"
    logging.basicConfig(format="set up: %(message)s")
    logging.getLogger("pipeline").warning("now")
    assert capsys.readouterr().err == "set up: now\n"


@pytest.mark.parametrize("first", ["logging", "nbqueue"])
@bare_logging
def test_a_handler_of_the_users_does_not_double_records(
    capsys: pytest.CaptureFixture[str], first: str
) -> None:
    """With basicConfig() before or after us, a job's record is in its log once and in no cell."""
    if first == "nbqueue":
        install()
    logging.basicConfig(format="set up: %(message)s")
    with Capture() as capture:
        logging.getLogger("pipeline").warning("once")
    assert spoken(capture) == [("log", "set up: once\n")]
    assert capsys.readouterr() == ("", "")
    uninstall()
    logging.getLogger("pipeline").warning("after us")
    assert capsys.readouterr().err == "set up: after us\n"


@bare_logging
def test_records_reach_the_users_own_handlers_too() -> None:
    """A file that the user logs to gets a job's records as well as the job's log does."""
    file = io.StringIO()
    logging.getLogger().addHandler(logging.StreamHandler(file))
    with Capture() as capture:
        logging.getLogger("pipeline").error("both")
    assert file.getvalue() == "both\n"
    assert spoken(capture) == [("log", "ERROR pipeline: both\n")]
    with Capture() as capture:
        logging.getLogger("pipeline").error("again")
    assert spoken(capture) == [("log", "ERROR pipeline: again\n")]


@bare_logging
def test_basic_config_by_force_is_survived() -> None:
    """Throwing all handlers out of the root does not cut the next job off."""
    file = io.StringIO()
    logging.getLogger().addHandler(logging.NullHandler())
    install()
    logging.basicConfig(stream=file, format="%(message)s", force=True)
    with Capture() as capture:
        logging.getLogger("pipeline").error("still here")
    assert capture.text() == "ERROR pipeline: still here\n"
    assert file.getvalue() == "still here\n"


@pytest.mark.parametrize("first", ["logging", "nbqueue"])
@pytest.mark.parametrize("propagate", [True, False])
@bare_logging
def test_a_logger_with_a_handler_of_its_own(
    capsys: pytest.CaptureFixture[str], first: str, propagate: bool
) -> None:
    """Its records are in the job's log once, as it writes them, and in no cell; others' go where they went."""
    if first == "nbqueue":
        install()
    with own_logger(logging.StreamHandler(), propagate) as logger:
        logger.handlers[0].setFormatter(logging.Formatter("app: %(message)s"))
        with Capture() as capture:
            logger.info("the job")
        assert spoken(capture) == [("log", "app: the job\n")]
        assert capsys.readouterr() == ("", "")
        logger.info("the cell")
        assert capsys.readouterr().err == "app: the cell\n"


@bare_logging
def test_a_handler_that_shows_nothing_hides_nothing(tmp_path: Path) -> None:
    """With a NullHandler or a file on its logger, and no handler on the root, a record is in the job's log too."""
    with own_logger(logging.NullHandler()) as logger, Capture() as capture:
        logger.info("null")
    assert spoken(capture) == [("log", "INFO own: null\n")]
    with own_logger(logging.FileHandler(tmp_path / "log.txt")) as logger, Capture() as capture:
        logger.info("file")
    assert spoken(capture) == [("log", "INFO own: file\n")]
    assert (tmp_path / "log.txt").read_text() == "file\n"


@bare_logging
def test_a_filter_of_a_handler_hides_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    """What the user keeps off his screen is in the job's log, and what a filter adds to a record its format finds."""

    def judge(record: logging.LogRecord) -> bool:
        record.job = 7
        return record.msg != "unwanted"

    handler = logging.StreamHandler()
    handler.addFilter(judge)
    handler.setFormatter(logging.Formatter("%(job)s %(message)s"))
    with own_logger(handler) as logger, Capture() as capture:
        logger.info("unwanted")
        logger.info("wanted")
    assert spoken(capture) == [("log", "INFO own: unwanted\n7 wanted\n")]
    assert capsys.readouterr() == ("", "")


@bare_logging
def test_a_handler_that_prints_doubles_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    """One that is no StreamHandler and prints what it is given, as Rich's does."""

    class Printing(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            print("printed", record.getMessage())

    with own_logger(Printing()) as logger:
        with Capture() as capture:
            logger.info("once")
            print("and on")
        assert spoken(capture) == [("log", "INFO own: once\n"), ("stdout", "and on\n")]
        logger.info("outside")
    assert capsys.readouterr() == ("printed outside\n", "")


@bare_logging
def test_a_handler_bound_to_the_original_stream(capsys: pytest.CaptureFixture[str]) -> None:
    """It was made before the first job, and is none of a job's; the handler of a job's own buffer is."""
    out, buffer = logging.StreamHandler(sys.stdout), io.StringIO()
    with own_logger(out) as logger, Capture() as capture:
        logger.addHandler(logging.StreamHandler(buffer))
        logger.info("both")
    assert (capture.text(), buffer.getvalue()) == ("both\n", "both\n")
    assert capsys.readouterr() == ("", "")


@bare_logging
def test_a_record_that_cannot_be_formatted_is_told() -> None:
    """As outside of jobs it is no error of who logs, and the reason is among what is written."""
    with own_logger(logging.NullHandler()) as logger, Capture() as capture:
        logger.info("%d", "seven")
    assert "--- Logging error ---" in capture.text()
    assert "TypeError" in capture.text()


def test_a_whole_interpreter_ends_in_peace() -> None:
    """A script that never uninstalls exits without a word of its own, its prints in place."""
    script = """
        import sys
        from nbqueue.running.capture import Capture
        with Capture() as said:
            print("job")
        print("cell", repr(said.text()))
        print("sorry", file=sys.stderr)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert (done.stdout, done.stderr) == ("cell 'job\\n'\n", "sorry\n")


def test_other_modules_are_what_they_were(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only ``sys`` has a class of its own: modules that are imported meanwhile may have a ``stdout``."""
    package = tmp_path / "with_streams"
    package.mkdir()
    (package / "__init__.py").write_text("stderr = 7\nfrom . import stdout\n")
    (package / "stdout.py").write_text("name = 'a module'\n")
    monkeypatch.syspath_prepend(tmp_path)
    with Capture() as capture:
        print("before")
        with_streams = importlib.import_module("with_streams")
        assert (with_streams.stderr, with_streams.stdout.name) == (7, "a module")
        assert type(with_streams) is types.ModuleType
        assert type(type(sys)("made")) is types.ModuleType
        assert isinstance(with_streams, type(sys))
        assert not isinstance(7, type(sys))
        print("after")
    assert capture.text() == "before\nafter\n"
    del sys.modules["with_streams"], sys.modules["with_streams.stdout"]
