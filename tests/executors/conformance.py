"""What every executor must do: derive ``ExecutorConformance`` and say in ``make`` how yours is made.

Jobs and tests meet at named pipes, never by time, so that the same tests serve threads and processes.
"""

from __future__ import annotations

import itertools
import os
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from nbqueue import payload
from nbqueue.executor import Executor, StopReason
from nbqueue.handlers.definitions import function_handler
from nbqueue.handlers.handler import Handler
from nbqueue.jobs import Claim, Options, Spec
from nbqueue.lifecycle import Outcome
from nbqueue.running.run import ERROR_MAX, Runner, Services, unstored_reason
from nbqueue.running.tracebacks import TRACEBACK_MAX
from nbqueue.slots import SlotFile, begun_claims
from nbqueue.store import Report, ReportKind
from tests.executors.jobs import JOBS, Pickled

__all__ = ["Bench", "ExecutorConformance", "Meeting"]

#: How long a test waits for what must come; only a failing test waits so long.
PATIENCE = 20.0
KEY = b"a secret for tests" * 2

_fences = itertools.count(1)


class Meeting:
    """A pair of named pipes: a job says that it is there, and waits until it may go on."""

    def __init__(self, folder: Path):
        self._there, self._go = folder / f"there-{uuid.uuid4().hex}", folder / f"go-{uuid.uuid4().hex}"
        os.mkfifo(self._there)
        os.mkfifo(self._go)

    @property
    def paths(self) -> tuple[str, str]:
        """What the job is given."""
        return str(self._there), str(self._go)

    def wait(self) -> str:
        """Wait for the job; gives what it says."""
        return self._there.read_text()

    def let_go(self) -> None:
        """Let the job go on; it reads to the end, since writing would break where it is stopped meanwhile."""
        self._go.open("w").close()


# ------------------------------------------------------------------------- the bench


class Bench:
    """An executor at work, with a runner of its own."""

    def __init__(
        self, executor: Executor, jobs: dict[str, Callable[..., Any]], slot_file: SlotFile | None = None
    ):
        self.executor = executor
        self.handlers = {name: function_handler(function, name, Options()) for name, function in jobs.items()}
        self.values: dict[int, object] = {}
        self.reports: list[Report] = []
        self._news = threading.Event()
        services = Services(
            key=lambda: KEY,
            dispatcher=None,  # type: ignore[arg-type]
            live_call=lambda _: None,
            on_value=lambda claim, value: self.values.__setitem__(claim.fence, value),
        )
        self.runner = Runner(self._resolve, services)
        executor.start(self.runner, self._news.set, slot_file)

    def _resolve(self, spec: Spec) -> Handler | None:
        return self.handlers.get(spec.command)

    def claim(self, job: str, *args: Any, timeout: float | None = None, key: bytes = KEY) -> Claim:
        """Make a claim of a job with these arguments."""
        text = payload.encode_call(args, {}, key=key, context=job)
        return Claim(uuid.uuid4(), next(_fences), 1, 1, timeout, Spec(job), text, "")

    def submit(self, job: str, *args: Any, timeout: float | None = None) -> Claim:
        """Submit one job."""
        claim = self.claim(job, *args, timeout=timeout)
        self.executor.submit([claim])
        return claim

    def wait_for(self, *claims: Claim) -> list[Report]:
        """Wait until all of these are reported; gives their reports in this order."""
        wanted = {claim.fence for claim in claims}
        while True:
            self._news.clear()
            self.reports += self.executor.collect()
            found = {report.claim.fence: report for report in self.reports}
            if wanted <= found.keys():
                return [found[claim.fence] for claim in claims]
            assert self._news.wait(PATIENCE), f"no report of {wanted - found.keys()}"

    def run(self, job: str, *args: Any) -> Report:
        """Run one job to its end."""
        (report,) = self.wait_for(self.submit(job, *args))
        return report


class ExecutorConformance:
    """The tests; ``make`` is yours."""

    #: More jobs, by name.
    jobs: dict[str, Callable[..., Any]] = JOBS

    def make(self, slots: int) -> Executor:
        """Make the executor under test."""
        raise NotImplementedError

    @pytest.fixture
    def bench(self) -> Iterator[Callable[..., Bench]]:
        """Makes benches, and closes them."""
        made: list[Bench] = []

        def make(slots: int = 1, slot_file: SlotFile | None = None) -> Bench:
            made.append(Bench(self.make(slots), self.jobs, slot_file))
            return made[-1]

        yield make
        for one in made:
            one.executor.close(PATIENCE)

    def test_says_its_name_and_slots(self) -> None:
        """It has a name for frames, and as many slots as it was given."""
        executor = self.make(3)
        assert executor.name
        assert executor.slots == 3

    def test_gives_results(self, bench: Callable[..., Bench]) -> None:
        """What a handler returns is in the report as text, and None as nothing."""
        one = bench()
        report = one.run("give", {"a": [1, None]})
        assert (report.kind, report.outcome) == (ReportKind.ENDED, Outcome.SUCCEEDED)
        assert payload.decode(report.result) == {"a": [1, None]}
        assert report.started_at is not None
        assert report.finished_at is not None
        assert report.started_at <= report.finished_at
        assert one.run("give", None).result == ""

    def test_runs_async_handlers(self, bench: Callable[..., Bench]) -> None:
        """An ``async def`` handler is awaited."""
        assert payload.decode(bench().run("give_async", 7).result) == 7

    def test_keeps_the_order(self, bench: Callable[..., Bench], tmp_path: Path) -> None:
        """One slot runs jobs in the order they were submitted."""
        one, path = bench(1), tmp_path / "order"
        claims = [one.claim("note", str(path), str(i)) for i in range(50)]
        one.executor.submit(claims[:20])
        one.executor.submit(claims[20:])
        one.wait_for(*claims)
        assert path.read_text().split() == [str(i) for i in range(50)]

    def test_fills_its_slots_and_no_more(self, bench: Callable[..., Bench], tmp_path: Path) -> None:
        """As many jobs run at once as there are slots; the others wait, and begin as slots come free."""
        one = bench(3)
        meetings = [Meeting(tmp_path) for _ in range(5)]
        claims = [one.submit("meet", *meeting.paths) for meeting in meetings]
        for meeting in meetings[:3]:
            meeting.wait()
        assert {running.claim.fence for running in one.executor.running()} == {c.fence for c in claims[:3]}
        assert one.executor.waiting() == 2
        for i, meeting in enumerate(meetings):
            if i >= 3:
                meeting.wait()
            assert len(one.executor.running()) <= 3
            meeting.let_go()
        assert {report.outcome for report in one.wait_for(*claims)} == {Outcome.SUCCEEDED}

    def test_opens_a_slot_for_each_single_job(self, bench: Callable[..., Bench], tmp_path: Path) -> None:
        """Jobs that come one by one run beside each other, too."""
        one = bench(4)
        meetings = [Meeting(tmp_path) for _ in range(4)]
        claims = []
        for meeting in meetings:
            claims.append(one.submit("meet", *meeting.paths))
            meeting.wait()
        for meeting in meetings:
            meeting.let_go()
        one.wait_for(*claims)

    def test_says_what_failed(self, bench: Callable[..., Bench]) -> None:
        """An error comes as a sentence, the names of its classes, and the traceback from the handler on."""
        report = bench().run("fail", "x")
        assert report.outcome is Outcome.FAILED
        assert report.error == "KeyError: 'x'"
        assert report.kinds[:2] == ("builtins.KeyError", "builtins.LookupError")
        assert report.traceback.startswith("Traceback")
        assert "in fail" in report.traceback
        assert "nbqueue/running/run.py" not in report.traceback

    @pytest.mark.parametrize("job", ["leave", "leave_async"])
    @pytest.mark.parametrize(
        ("kind", "error"), [("exit", "SystemExit: 3"), ("interrupt", "KeyboardInterrupt")]
    )
    def test_survives_a_job_that_leaves(
        self, bench: Callable[..., Bench], job: str, kind: str, error: str
    ) -> None:
        """SystemExit and KeyboardInterrupt fail the job that raises them, and no other."""
        one = bench()
        report = one.run(job, kind)
        assert (report.outcome, report.error) == (Outcome.FAILED, error)
        assert one.run("give", 1).outcome is Outcome.SUCCEEDED
        assert one.run("give_async", 1).outcome is Outcome.SUCCEEDED

    def test_survives_errors_that_cannot_be_told(self, bench: Callable[..., Bench]) -> None:
        """An error whose text fails, cannot be encoded or is huge is told within bounds."""
        one = bench()
        assert one.run("fail_unspeakably").error == "Unspeakable: <its text failed with RuntimeError>"
        unprintable = one.run("fail_unprintably")
        assert unprintable.error == "ValueError: name \\udcff.csv"
        unprintable.traceback.encode()
        huge = one.run("fail_at_length")
        assert len(huge.error) == ERROR_MAX
        assert len(huge.traceback) < TRACEBACK_MAX + 100
        deep = one.run("recurse")
        assert deep.error.startswith("RecursionError")
        assert len(deep.traceback) < TRACEBACK_MAX + 100

    @pytest.mark.parametrize("job", ["give_lock", "give_generator", "give_unpicklable"])
    def test_succeeds_with_what_cannot_be_stored(self, bench: Callable[..., Bench], job: str) -> None:
        """A result that cannot be stored does not fail its job; it says why it is not there."""
        report = bench().run(job)
        assert report.outcome is Outcome.SUCCEEDED
        assert unstored_reason(report.result)

    @pytest.mark.parametrize(
        ("reason", "kind", "outcome"),
        [
            (StopReason.CANCEL, ReportKind.ENDED, Outcome.CANCELLED),
            (StopReason.TIMEOUT, ReportKind.ENDED, Outcome.TIMED_OUT),
            (StopReason.SHUTDOWN, ReportKind.RELEASED, None),
        ],
    )
    def test_stops_a_job(
        self,
        bench: Callable[..., Bench],
        tmp_path: Path,
        reason: StopReason,
        kind: ReportKind,
        outcome: Outcome | None,
    ) -> None:
        """A job that is told to stop and does is reported with the reason."""
        one, meeting = bench(), Meeting(tmp_path)
        claim = one.submit("until_told", meeting.paths[0])
        meeting.wait()
        assert one.executor.stop_job(claim.fence, reason)
        (report,) = one.wait_for(claim)
        assert (report.kind, report.outcome) == (kind, outcome)
        assert not one.executor.stop_job(claim.fence, reason)
        assert one.executor.running() == []

    def test_knows_no_stranger(self, bench: Callable[..., Bench]) -> None:
        """Telling a job to stop that does not run here says so."""
        assert not bench().executor.stop_job(999_999, StopReason.CANCEL)

    def test_gives_back_what_waits(self, bench: Callable[..., Bench], tmp_path: Path) -> None:
        """What was withdrawn does not run; what was to be kept does."""
        one, meeting, path = bench(), Meeting(tmp_path), tmp_path / "ran"
        first = one.submit("meet", *meeting.paths)
        meeting.wait()
        claims = [one.submit("note", str(path), str(i)) for i in range(4)]
        assert one.executor.withdraw(keep=1) == claims[1:]
        assert one.executor.waiting() == 1
        meeting.let_go()
        one.wait_for(first, claims[0])
        assert path.read_text().split() == ["0"]

    def test_tells_jobs_apart(self, bench: Callable[..., Bench], tmp_path: Path) -> None:
        """What jobs that run at once print and log is in the report of the one that said it."""
        one = bench(3)
        meetings = [Meeting(tmp_path) for _ in range(3)]
        claims = [one.submit("talk", f"job{i}", *meeting.paths) for i, meeting in enumerate(meetings)]
        for meeting in meetings:
            meeting.wait()
        early = one.executor.news()
        for meeting in meetings:
            meeting.let_go()
        reports = one.wait_for(*claims)
        for i, report in enumerate(reports):
            mine = [r for r in early if r.claim == report.claim] + [report]
            text = "".join(chunk.text for r in mine for chunk in r.logs)
            said = [line for line in text.splitlines() if line]
            assert len(said) == 80
            assert all(f"job{i} " in line for line in said)
            streams = [chunk.stream for r in mine for chunk in r.logs]
            assert {"stdout", "stderr", "log"} == set(streams)
            outs = [int(line.split()[-1]) for line in said if " out " in line]
            assert outs == list(range(20))

    def test_brings_news_of_running_jobs(self, bench: Callable[..., Bench], tmp_path: Path) -> None:
        """What a job has printed and how far it is can be asked while it runs, once."""
        one, meeting = bench(), Meeting(tmp_path)
        claim = one.submit("report_progress", *meeting.paths)
        meeting.wait()
        (news,) = one.executor.news()
        assert (news.kind, news.claim) == (ReportKind.NEWS, claim)
        assert [chunk.text for chunk in news.logs] == ["half done\n"]
        assert '"done":1' in news.progress
        assert one.executor.news() == []
        meeting.let_go()
        (report,) = one.wait_for(claim)
        assert report.logs == ()

    def test_refuses_what_is_not_signed(self, bench: Callable[..., Bench], tmp_path: Path) -> None:
        """Arguments that were pickled under another secret are not decoded: the claim is refused, not failed."""
        one = bench()
        claim = one.claim("give", Pickled(str(tmp_path / "decoded")), key=b"a foreign secret" * 2)
        one.executor.submit([claim])
        (report,) = one.wait_for(claim)
        assert (report.kind, report.cause) == (ReportKind.REFUSED, "untrusted")
        assert not (tmp_path / "decoded").exists()

    def test_gives_back_what_nobody_knows(self, bench: Callable[..., Bench]) -> None:
        """A job whose handler was forgotten since it was claimed is given back."""
        one = bench()
        one.handlers["gone"] = one.handlers["give"]
        claim = one.claim("gone", 1)
        del one.handlers["gone"]
        one.executor.submit([claim])
        assert one.wait_for(claim)[0].kind is ReportKind.RELEASED

    def test_notes_which_job_has_begun(self, bench: Callable[..., Bench], tmp_path: Path) -> None:
        """The slot file names the claims that run, not those that wait."""
        file = SlotFile(tmp_path / "slots" / "w.slots", 4)
        one, meeting = bench(1, file), Meeting(tmp_path)
        first, second = one.submit("meet", *meeting.paths), one.submit("give", 1)
        meeting.wait()
        assert list(begun_claims(tmp_path / "slots")) == [first.fence]
        meeting.let_go()
        one.wait_for(first, second)
        assert list(begun_claims(tmp_path / "slots")) == []
        file.close()
        assert not list((tmp_path / "slots").iterdir())

    def test_lets_jobs_end_as_it_closes(self, bench: Callable[..., Bench], tmp_path: Path) -> None:
        """Closing waits for what runs, gives back what waits, and the reports are there afterwards."""
        one, meeting = bench(1), Meeting(tmp_path)
        first, second = one.submit("meet", *meeting.paths), one.submit("give", 1)
        meeting.wait()
        closing: list[list[Claim]] = []
        thread = threading.Thread(target=lambda: closing.append(one.executor.close(PATIENCE)))
        thread.start()
        meeting.let_go()
        thread.join()
        assert closing == [[second]]
        assert [report.claim for report in one.executor.collect()] == [first]

    def test_gives_back_what_does_not_end(self, bench: Callable[..., Bench], tmp_path: Path) -> None:
        """Closing without patience gives back what runs on, by hand or as a report, and nothing is said of it later."""
        one, meeting = bench(1), Meeting(tmp_path)
        first, second = one.submit("meet", *meeting.paths), one.submit("give", 1)
        meeting.wait()
        left = [claim.fence for claim in one.executor.close(0.0)]
        released = one.executor.collect()
        assert sorted([*left, *(report.claim.fence for report in released)]) == [first.fence, second.fence]
        assert all(report.kind is ReportKind.RELEASED for report in released)
        if not released:
            meeting.let_go()
        assert one.executor.collect() == []

    def test_stops_what_can_be_stopped_as_it_closes(
        self, bench: Callable[..., Bench], tmp_path: Path
    ) -> None:
        """A job that reacts is released with what it said, or given back; never both, and never ended."""
        one, meeting = bench(1), Meeting(tmp_path)
        claim = one.submit("until_told", meeting.paths[0])
        meeting.wait()
        left = one.executor.close(0.0)
        reports = one.executor.collect()
        assert [*(c.fence for c in left), *(r.claim.fence for r in reports)] == [claim.fence]
        assert all(report.kind is ReportKind.RELEASED for report in reports)

    def test_opens_again(self, bench: Callable[..., Bench]) -> None:
        """An executor that was closed works again after ``start``."""
        one = bench(2)
        for _ in range(3):
            assert one.run("give", 1).outcome is Outcome.SUCCEEDED
            assert one.run("give_async", 1).outcome is Outcome.SUCCEEDED
            assert one.executor.close(PATIENCE) == []
            one.executor.start(one.runner, one._news.set, None)
