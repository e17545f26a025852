"""What somebody comes to who can write to the file, or ask it, and has not the secret."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest

import nbqueue as nbq
from nbqueue.handlers.registry import registry
from nbqueue.stores import opening
from tests.hostile import check_reads_only

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 30


@pytest.fixture(autouse=True)
def handlers(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """One command, and no others."""
    monkeypatch.setattr(registry, "_named", {})
    monkeypatch.setattr(registry, "_owned", {})

    @nbq.command("greet")
    def greet(name: str) -> str:
        return f"hello {name}"

    yield
    registry.unregister("")


def test_hostile_statements(tmp_path: Path) -> None:
    """No statement reads a file, writes, or reaches outside of the queue."""
    with nbq.connect(tmp_path / "jobs.duckdb") as queues:
        queues.dispatch(nbq.QueuedCommand("greet").with_arg("Ann"))
        check_reads_only(queues, tmp_path)


JOINED = """
import sys
from pathlib import Path
import nbqueue as nbq
from tests.hostile import check_reads_only

folder = Path(sys.argv[1])
with nbq.connect(folder / "jobs.duckdb") as queues:
    check_reads_only(queues, folder)
    print("joined" if not queues.owner.here else "owned")
"""


def test_hostile_statements_from_a_joined_process(tmp_path: Path) -> None:
    """Nor does any when a process asks that has joined the one which has the file."""
    with nbq.connect(tmp_path / "jobs.duckdb") as queues:
        queues.dispatch(nbq.QueuedCommand("greet").with_arg("Ann"))
        done = subprocess.run(
            [sys.executable, "-c", JOINED, str(tmp_path)],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.stdout == "joined\n", done.stderr
        assert len(queues.jobs()) == 1


#: A command that somebody might hope is imported, with arguments that would leave a mark.
NAMES = [
    *(
        ("os:system", '["touch {mark}"]'),
        ("os.system", '["touch {mark}"]'),
        ("posix:system", '["touch {mark}"]'),
    ),
    *(("builtins:eval", "[\"open('{mark}', 'w')\"]"), ("builtins:exec", "[\"open('{mark}', 'w')\"]")),
    *(("subprocess:run", '[["touch", "{mark}"]]'), ("subprocess:Popen", '[["touch", "{mark}"]]')),
    *(("pathlib:Path.touch", '["{mark}"]'), ("nbq_innocent:main", "[]"), ("__main__", '["{mark}"]')),
    *(("open", '["{mark}", "w"]'), ("!touch {mark}", "[]"), ("$(touch {mark})", "[]"), ("../../evil", "[]")),
]


def test_a_row_names_what_it_likes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows written past nbqueue that name ``os:system`` and the like run nothing and import nothing."""
    path, mark = tmp_path / "jobs.duckdb", tmp_path / "mark"
    (tmp_path / "nbq_innocent.py").write_text(f"open({str(mark)!r}, 'w')\ndef main(): pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    nbq.connect(path).close()
    with duckdb.connect(str(path)) as attacker:
        # With every origin that a row may claim: none, a module's, a script's and a session's.
        origins = [
            "",
            "module:os",
            "module:subprocess",
            "module:nbq_innocent",
            "script:/data/x.py",
            "session:1",
        ]
        rows = [(name, args, origin) for name, args in NAMES for origin in origins]
        for number, (name, args, origin) in enumerate(rows, 1):
            attacker.execute(
                "INSERT INTO specs VALUES (?, ?, 'default', 0, ?, ?, NULL, NULL, '')",
                [number, name.format(mark=mark), origin, "0123456789abcdef" if origin else ""],
            )
            attacker.execute(
                "INSERT INTO ledger (seq, happened_us, event, job, job_id, spec, data)"
                " VALUES (?, 0, 'dispatched', ?, ?, ?, ?)",
                [
                    *(number, number, str(uuid.uuid4()), number),
                    '{"args":' + args.format(mark=mark) + ',"kwargs":{}}',
                ],
            )
        attacker.execute(
            "INSERT INTO code VALUES ('0123456789abcdef', ?, 0)", [b"nbq1" + bytes(32) + b"cos\nsystem\n."]
        )
    before = set(sys.modules)
    with nbq.connect(path) as queues:
        friendly = queues.dispatch(nbq.QueuedCommand("greet").with_arg("Ann"))
        with queues.worker(when_empty=True) as worker:
            worker.wait(PATIENCE)
        assert friendly.result(timeout=PATIENCE) == "hello Ann"
        found = queues.jobs(state="pending")
        assert queues.jobs()["attempt"].sum() == 1
    assert len(found) == len(rows)
    assert not mark.exists()
    assert "nbq_innocent" not in set(sys.modules) - before


@pytest.mark.parametrize(
    "payload",
    [
        '{{"args":[{{"$nbq":"pickle","v":"{bomb}"}}],"kwargs":{{}}}}',
        '{{"args":[{{"$nbq":"pickle","v":"{bomb}","sig":""}}],"kwargs":{{}}}}',
        '{{"args":[{{"$nbq":"pickle","v":"{bomb}","sig":"' + "0" * 64 + '"}}],"kwargs":{{}}}}',
        '{{"args":[{{"\\u0024nbq":"pickle","v":"{bomb}","sig":null}}],"kwargs":{{}}}}',
        '{{"args":[{{"$nbq":"dataclass","t":"os:system","v":{{}}}}],"kwargs":{{}}}}',
        '{{"args":[{{"$nbq":"enum","t":"subprocess:Popen","v":"touch"}}],"kwargs":{{}}}}',
        '{{"args":[{{"$nbq":"namedtuple","t":"builtins:eval","v":["1"]}}],"kwargs":{{}}}}',
    ],
    ids=lambda text: text[12:60],
)
def test_a_row_brings_its_own_pickle(tmp_path: Path, payload: str) -> None:
    """A payload that was never signed, and one that names what is no data, are held and nothing of them is decoded."""
    import base64
    import pickle

    path, mark = tmp_path / "jobs.duckdb", tmp_path / "mark"

    class Mark:
        def __reduce__(self) -> object:
            return Path.touch, (mark,)

    bomb = base64.b64encode(pickle.dumps(Mark())).decode()
    nbq.connect(path).close()
    with duckdb.connect(str(path)) as attacker:
        attacker.execute("INSERT INTO specs VALUES (1, 'greet', 'default', 0, '', '', NULL, NULL, '')")
        attacker.execute(
            "INSERT INTO ledger (seq, happened_us, event, job, job_id, spec, data)"
            " VALUES (1, 0, 'dispatched', 1, ?, 1, ?)",
            [str(uuid.uuid4()), payload.format(bomb=bomb)],
        )
    with nbq.connect(path) as queues:
        with queues.worker(when_empty=True) as worker:
            worker.wait(PATIENCE)
        (status,) = queues.jobs()["status"]
    # To a reader of text that has no tag, what would be one is plain data.
    assert status == ("succeeded" if "u0024" in payload else "held")
    assert not mark.exists()


# ------------------------------------------------------------------------------------------------- private files
def modes(folder: Path) -> dict[str, str]:
    """The mode of everything there, as people write it."""
    return {
        str(path.relative_to(folder)): f"{stat.S_IMODE(path.stat().st_mode):o}"
        for path in folder.rglob("*")
        if path.name != "closed"
    }


@pytest.mark.parametrize("folder_mode", [0o700, 0o777])
def test_new_files_are_private(tmp_path: Path, folder_mode: int) -> None:
    """The queue's file, log, lock and slots are for this user alone, in a folder of everybody's too."""
    folder = tmp_path / "shared"
    folder.mkdir()
    folder.chmod(folder_mode)
    path = folder / "jobs.duckdb"
    with nbq.connect(path) as queues, queues.worker():
        assert queues.dispatch(nbq.QueuedCommand("greet").with_arg("Ann")).result(timeout=PATIENCE)
        found = modes(folder)
        beside = {f"jobs.duckdb{end}" for end in ("", ".journal", ".wal", ".lock", ".slots")}
        assert beside <= found.keys()
        others = {name: mode for name, mode in found.items() if mode[-2:] != "00"}
        assert others == {}
    assert modes(folder)["jobs.duckdb"] == "600"


def test_a_log_that_comes_again_is_private(tmp_path: Path) -> None:
    """After a checkpoint DuckDB makes the log anew; it is private again before anything is in it."""
    from nbqueue.jobs import NewJob, Spec
    from nbqueue.stores.duckdb import DuckDBStore

    store = DuckDBStore(tmp_path / "jobs.duckdb")
    try:
        for _ in range(3):
            store.insert([NewJob(uuid.uuid4(), Spec("greet"), "[]")])
            assert modes(tmp_path)["jobs.duckdb.wal"] == "600"
            store._run(lambda _: store._checkpoint())
    finally:
        store.close()
    assert "jobs.duckdb.wal" not in modes(tmp_path)


def test_a_file_that_was_there_keeps_its_mode(tmp_path: Path) -> None:
    """A file that its user opened to a group stays so, and so is its log."""
    path = tmp_path / "jobs.duckdb"
    nbq.connect(path).close()
    path.chmod(0o640)
    with nbq.connect(path) as queues:
        queues.dispatch(nbq.QueuedCommand("greet").with_arg("Ann"))
        assert modes(tmp_path)["jobs.duckdb"] == "640"
        assert modes(tmp_path)["jobs.duckdb.wal"] == "640"
    assert modes(tmp_path)["jobs.duckdb"] == "640"


def test_a_file_that_another_made_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A database that another program puts there while ours is made is opened, and not written over."""
    tmp_path.chmod(0o755)
    path = tmp_path / "jobs.duckdb"
    link = opening.os.link

    def late(source: Path, target: Path) -> None:
        with duckdb.connect(str(path)) as stranger:
            stranger.execute("CREATE TABLE theirs AS SELECT 7 AS x")
        link(source, target)

    monkeypatch.setattr(opening.os, "link", late)
    with opening.connect(path) as connection:
        assert connection.execute("FROM theirs").fetchall() == [(7,)]
    assert [found.name for found in tmp_path.iterdir() if found.name.startswith(".")] == []
