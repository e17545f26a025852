"""Processes on one file: they join whoever has it, take over when it goes, and nothing is lost or done twice."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

import nbqueue as nbq
from nbqueue.cli.commands import main
from nbqueue.stores.owner import Holder
from nbqueue.stores.shared import SharedStore
from nbqueue.testing.workers import check_books
from tests.halting import halt
from tests.sharing.children import PATIENCE, Child

Start = Callable[[str], Child]
Notes = Callable[[], list[str]]

CONNECT = "queues = nbq.connect(path)"
#: A worker whose job says that it began, and goes on when it may.
WORK = """
    queues = nbq.connect(path)

    @nbq.command("hold")
    def hold(word):
        begun.set()
        assert go.wait(30)
        note(word)
        return word.upper()

    @nbq.command("note")
    def quick(word):
        note(word)
        return word.upper()

    worker = queues.worker(concurrency=2).start()
"""


def work(name: str, *args: object) -> nbq.QueuedCommand:
    return nbq.QueuedCommand(name).with_args(list(args))


def until(true: Callable[[], object]) -> None:
    """Wait for what only another process can bring about."""
    end = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


# ------------------------------------------------------------------------------------------------ joining
def test_two_notebooks_and_a_terminal(path: Path, start: Start, tmp_path: Path) -> None:
    """Dispatched in one process, run in another, seen in a third: the same path is the same queue."""
    (tmp_path / "tasks.py").write_text(
        "import nbqueue as nbq\n\n@nbq.command('double')\ndef double(n):\n    return 2 * n\n"
    )
    guest = start("guest")
    with nbq.connect(path) as queues:
        assert queues.owner.here
        guest.tell(CONNECT)
        assert guest.ask("(queues.owner.pid, queues.owner.here)") == (os.getpid(), False)
        job_id = guest.ask("str(queues.dispatch(nbq.QueuedCommand('double').with_args([21])))")
        worker = subprocess.run(
            [sys.executable, "-m", "nbqueue", "work", "--import", "tasks.py", "--stop-when-empty", "--db", path],
            cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True,
            env=os.environ | {"PYTHONPATH": str(Path(nbq.__file__).parents[1])},
        )  # fmt: skip
        assert f"{path}: joined process {os.getpid()} (" in worker.stderr
        assert queues.job(job_id).result(timeout=PATIENCE) == 42
        # Views, the caller's frames, and plots go through the same door.
        guest.tell("""
            import pandas as pd
            users = pd.DataFrame({"n": [1, 2]})
        """)
        assert guest.ask("queues.sql('SELECT sum(n) AS s, any_value(state)::VARCHAR AS j FROM users, jobs')"
                         ".to_dict('list')") == {"s": [3], "j": ["succeeded"]}  # fmt: skip
        assert guest.ask("len(queues.attempts())") == 1


def test_copied_and_opened_by_its_owner(path: Path, start: Start) -> None:
    """Whatever the owner does with its own file, a second process joins it, and never writes beside it."""
    owner, guest = start("owner"), start("guest")
    owner.tell(f"{CONNECT}; shutil.copy(path, path + '.copy'); open(path).close(); open(path, 'rb').close()")
    guest.tell(CONNECT)
    guest.tell("ids = [str(queues.dispatch(nbq.QueuedCommand('any'))) for _ in range(5)]")
    assert guest.ask("queues.owner.pid") == owner.pid
    assert owner.ask("sorted(queues.jobs().job_id.astype(str))") == sorted(guest.ask("ids"))


def test_handlers_of_one_name(path: Path, start: Start) -> None:
    """Two notebooks that each have an import_csv never run each other's."""
    define = """
        queues = nbq.connect(path)

        @nbq.job
        def import_csv(n):
            return (who, n)

        worker = queues.worker().start()
    """
    pair = [start("alice"), start("bob")]
    for child in pair:
        child.tell(define, who=child.process.name)
    for child in pair:
        child.begin(
            "[r.result(timeout=30) for r in queues.dispatch_many([import_csv.call(n) for n in range(20)])]"
        )
    for child in pair:
        assert child.answer() == [(child.process.name, n) for n in range(20)]


def test_a_fork(path: Path, start: Start) -> None:
    """A fork that connects joins its parent, and keeps neither its lock nor its connections alive."""
    parent = start("parent")
    parent.tell(f"""
        {CONNECT}
        reading, writing = os.pipe()
        child = os.fork()
        if not child:
            signal.alarm(60)
            try:
                queues.list()
            except nbq.QueueUnavailable as error:
                refused = "before this process was forked" in str(error)
            with nbq.connect(path) as joined:
                joined.dispatch(nbq.QueuedCommand("from the fork"))
                os.write(writing, f"{{joined.owner.pid}} {{refused}}".encode())
            signal.pause()
    """)
    fork = parent.ask("child")
    try:
        assert parent.ask("os.read(reading, 99).decode()") == f"{parent.pid} True"
        with nbq.connect(path) as queues:
            assert queues.owner.pid == parent.pid
            parent.kill()
            os.kill(fork, 0)
            assert queues.jobs().command.tolist() == ["from the fork"]
            assert queues.owner.here
    finally:
        os.kill(fork, signal.SIGKILL)


def test_serve(path: Path, tmp_path: Path) -> None:
    """``nbqueue serve`` holds the file for others, says who comes and goes, and leaves it to them when told to end."""
    command = [sys.executable, "-m", "nbqueue", "serve", "--db", str(path)]
    env = os.environ | {"PYTHONPATH": str(Path(nbq.__file__).parents[1])}
    with subprocess.Popen(command, cwd=tmp_path, env=env, stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr is not None
        said = iter(server.stderr.readline, "")
        assert next(said) == f"{path}: created\n"
        assert "until Ctrl-C" in next(said)
        with nbq.connect(path) as queues:
            assert next(said).endswith(f"process {os.getpid()} ({Holder.myself().program}) joined\n")
            assert (queues.owner.pid, queues.owner.program) == (server.pid, "nbqueue")
            second = CliRunner().invoke(main, ["serve", "--db", str(path)])
            assert second.exit_code == 1
            assert f"process {server.pid} (nbqueue)" in second.stderr
            assert "--wait" in second.stderr
            server.send_signal(signal.SIGTERM)
            assert server.wait(PATIENCE) == 0
            assert "SIGTERM: lets go of it.\n" in list(said)
            queues.dispatch(work("any"))
            assert queues.owner.here


# --------------------------------------------------------------------------------------------- taking over
@pytest.mark.parametrize("how", ["close", "exit", "SIGINT", "SIGKILL"])
def test_the_owner_goes(path: Path, start: Start, notes: Notes, how: str) -> None:
    """Jobs of live workers go on running when their owner goes, and their ends are accepted: nothing runs twice."""
    owner, working = start("owner"), start("working")
    owner.tell(CONNECT)
    working.tell(WORK)
    with nbq.connect(path) as queues:
        assert queues.owner.pid == owner.pid
        held = queues.dispatch(work("hold", "held"))
        assert working.ask("begun.wait(30)")
        if how == "close":
            owner.tell("queues.close()")
        elif how == "exit":
            owner.end()
        else:
            owner.signal(getattr(signal, how))
        more = queues.dispatch(work("note", "more"))
        assert more.result(timeout=PATIENCE) == "MORE"
        working.tell("go.set()")
        assert held.result(timeout=PATIENCE) == "HELD"
        assert queues.owner.pid in (os.getpid(), working.pid)
        assert notes() == ["held", "more"]
        # What was claimed, and not begun when the owner was killed, may have been given back.
        assert [how for how in queues.attempts().outcome if how != "released"] == ["succeeded"] * 2
        check_books(queues.store)


@pytest.mark.parametrize("verb", ["insert", "turn", "cancel"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_call_under_way(path: Path, start: Start, notes: Notes, verb: str, when: str) -> None:
    """A call that an owner was killed over is made again and done once, whether or not it was done before."""
    owner = start("owner")
    owner.tell(f"""
        from nbqueue.stores.sharing.session import Session

        queues, answer = nbq.connect(path), Session.answer

        def die_over(session, verb, args, named):
            if verb != {verb!r} or ({verb!r} == "turn" and not queues.queues()[0].counts["pending"]):
                return answer(session, verb, args, named)
            if {when == "after"}:
                answer(session, verb, args, named)
            os.kill(os.getpid(), signal.SIGKILL)

        Session.answer = die_over
    """)
    if verb == "turn":
        owner.tell("[queues.dispatch(nbq.QueuedCommand('noted').with_args([f'n{n}'])) for n in range(3)]")
    with nbq.connect(path) as queues:
        assert queues.owner.pid == owner.pid
        if verb == "turn":
            seen: list[str] = []

            @nbq.command("noted")
            def noted(word: str) -> None:
                seen.append(word)

            with queues.worker() as worker:
                worker.drain(timeout=PATIENCE)
            assert sorted(seen) == ["n0", "n1", "n2"]
            assert queues.jobs().state.tolist() == ["succeeded"] * 3
        elif verb == "insert":
            receipts = queues.dispatch_many([work("any", n) for n in range(3)])
            assert sorted(queues.jobs().job_id.astype(str)) == sorted(map(str, receipts))
        else:
            receipt = queues.dispatch(work("any"))
            assert receipt.cancel()
            assert queues.events().event.tolist().count("cancelled") == 1
        assert queues.owner.here
        check_books(queues.store)


def test_one_after_the_other(path: Path, start: Start) -> None:
    """Of several guests one takes over, again and again; what was acknowledged is there to the end."""
    children = {child.pid: child for child in map(start, ("a", "b", "c", "d"))}
    for child in children.values():
        child.tell(CONNECT)
    with nbq.connect(path) as queues:
        mine = []
        for n in range(4):
            mine.append(str(queues.dispatch(work("any", n))))
            owner = queues.owner
            if owner.here:
                break
            children.pop(owner.pid).kill()
            mine += [
                child.ask("str(queues.dispatch(nbq.QueuedCommand('any')))") for child in children.values()
            ]
            assert {child.ask("queues.owner.pid") for child in children.values()} <= {queues.owner.pid}
        assert sorted(queues.jobs().job_id.astype(str)) == sorted(mine)


def test_a_guest_dies(path: Path, start: Start) -> None:
    """The jobs of a guest that is killed are given back at once, not after its lease."""
    guest = start("guest")
    with nbq.connect(path) as queues:
        guest.tell(WORK)
        held = queues.dispatch(work("hold", "held"))
        assert guest.ask("begun.wait(30)")
        guest.kill()
        began = time.monotonic()
        until(lambda: queues.job(str(held)).state == "pending")
        assert time.monotonic() - began < 10, "a lease is 15 s"
        assert queues.workers() == []


IN_A_CELL = """
@nbq.job
def cell():
    note("begun")
    while not os.path.exists(path + ".go"):
        time.sleep(0.01)
    return "RAN"
"""


def test_a_guest_dies_in_a_cell(path: Path, start: Start, notes: Notes) -> None:
    """A job that runs in a cell belongs to its process as those of workers do: it is given back at once."""
    guest = start("guest")
    with nbq.connect(path) as queues:
        guest.tell(CONNECT)
        guest.tell(IN_A_CELL)
        guest.begin("queues.run(cell.call())")
        until(notes)
        guest.kill()
        until(lambda: list(queues.jobs().state) == ["pending"])
        assert list(queues.attempts().cause) == ["killed"]
        assert list((path.parent / f"{path.name}.slots").iterdir()) == []


def test_the_owner_dies_under_a_cell(path: Path, start: Start, notes: Notes) -> None:
    """A job that runs in a cell goes on when the owner of its file is killed, and its end is accepted."""
    owner, guest = start("owner"), start("guest")
    owner.tell(CONNECT)
    guest.tell(CONNECT)
    guest.tell(IN_A_CELL)
    guest.begin("queues.run(cell.call())")
    until(notes)
    owner.kill()
    with nbq.connect(path) as queues:
        assert queues.owner.pid != owner.pid
        assert list(queues.jobs().state) == ["running"]
        Path(f"{path}.go").touch()
        assert guest.answer() == "RAN"
        assert list(queues.attempts().outcome) == ["succeeded"]


# ----------------------------------------------------------------------------------------- an owner that is stopped
def test_a_stopped_owner(path: Path, start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """A call that nobody answers ends with a sentence that names the owner, and Ctrl-C ends it at once."""
    monkeypatch.setattr("nbqueue.stores.sharing.guest.PATIENCE", 0.3)
    monkeypatch.setattr("nbqueue.wire.channel.HANDSHAKE_SECONDS", 0.5)
    owner = start("owner")
    owner.tell(CONNECT)
    with nbq.connect(path) as queues:
        halt(owner.pid)
        with pytest.raises(nbq.QueueUnavailable, match=f"process {owner.pid} .* does not answer"):
            queues.dispatch(work("any"))
        with pytest.raises(nbq.QueueUnavailable, match=f"process {owner.pid} .* does not answer"):
            nbq.QueueManager(store=SharedStore(path, lambda: b""))
        owner.signal(signal.SIGCONT)
        until(lambda: not queues.closed and _works(queues))
        assert queues.owner.pid == owner.pid

        monkeypatch.setattr("nbqueue.stores.sharing.guest.PATIENCE", 30.0)
        halt(owner.pid)
        signal.signal(signal.SIGALRM, signal.default_int_handler)
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        began = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            queues.dispatch(work("any"))
        assert time.monotonic() - began < 5
        owner.signal(signal.SIGCONT)
        assert queues.dispatch(work("any")).state == "pending"


def _works(queues: nbq.QueueManager) -> bool:
    try:
        queues.list()
    except nbq.QueueUnavailable:
        return False
    return True


def test_guest_maps_many_rows(path: Path, start: Start) -> None:
    """Rows that a guest hands in by the thousand are its owner's jobs, in order, and their results come home."""

    @nbq.command("x:y")
    def same(item: str) -> str:
        return item

    with nbq.connect(path) as queues:
        guest = start("guest")
        guest.tell(CONNECT)
        guest.tell("batch = queues.map('x:y', [f'ü {n}' for n in range(2_100)])")
        assert guest.ask("tuple(batch.progress())") == (2_100, 2_100, 0, 0, 0, 0)
        told = queues.sql("SELECT row_label, arguments FROM jobs ORDER BY job_id")
        assert told["row_label"].tolist() == [str(n) for n in range(2_100)]
        assert told["arguments"].tolist() == [f'{{"args":["ü {n}"],"kwargs":{{}}}}' for n in range(2_100)]
        with queues.worker() as worker:
            worker.drain(timeout=PATIENCE)
        assert guest.ask("batch.results().tolist()") == [f"ü {n}" for n in range(2_100)]
        guest.end()
