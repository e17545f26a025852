"""The benchmarks run: whether they are fast is not for a test to say."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest

#: Each table, with sizes that say nothing of speed.
SMALL = {
    "drain": "--jobs 200 --rounds 1",
    "enqueue": "--jobs 100 --rows 200 --rounds 1",
    "single": "--calls 5 --milliseconds 20 --rounds 1",
    "peers": "--jobs 200 --calls 2 --rounds 1 --only ThreadPool Huey persist lite Dask Ray",
    "flat": "--jobs 2000 --room 500 --opens 1 --rounds 1",
    "looking": "--jobs 2000 --calls 1 --rounds 1",
    "processes": "--jobs 100 --rounds 1",
    "second": "--jobs 200 --rounds 1",
    "starting": "--rounds 1",
    "idle": "--seconds 0.1 --watches 1 --slices 2 --rounds 1",
}


@pytest.mark.parametrize("name", SMALL)
def test_every_table_is_made(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A small round of a script ends with a result file, with its tables on the page, and exit code 0."""
    from benchmarks import harness, tables

    monkeypatch.setattr(harness, "RESULTS", tmp_path / "results")
    page = tmp_path / "benchmarks.md"
    page.write_text(f"before\n<!-- begin: {name} -->\nof last time\n<!-- end: {name} -->\nafter\n")
    monkeypatch.setattr(tables, "PAGE", page)
    script = importlib.import_module(f"benchmarks.{name}")
    assert script.main([*SMALL[name].split(), "--write-docs"]) == 0
    result = json.loads((tmp_path / "results" / f"{name}.json").read_text())
    assert all(figure["median"] > 0 for figure in result["figures"])
    assert any(ratio["bar"] for ratio in result["ratios"])
    before, *table, after = page.read_text().splitlines()
    assert (before, after) == ("before", "after")
    assert "of last time" not in table
    assert all(f"| {ratio['name']} |" in page.read_text() for ratio in result["ratios"])


def test_all_tables_have_a_place_and_are_run() -> None:
    """``make bench`` runs every script that has a table, and the page has a place for each."""
    from benchmarks import __main__ as run_all
    from benchmarks import tables

    page = tables.PAGE.read_text()
    assert sorted(run_all.SCRIPTS) == sorted(SMALL)
    assert [name for name in SMALL if f"<!-- begin: {name} -->\n" not in page] == []
    assert page.count("<!-- begin: ") == page.count("<!-- end: ") == len(SMALL)


def test_who_is_not_there_is_left_out_and_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A peer that needs what this machine has not got is no error: its line is missing, and a note says why."""
    from benchmarks import harness, peers

    monkeypatch.setattr(harness, "RESULTS", tmp_path / "results")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert peers.main(["--jobs", "20", "--calls", "1", "--rounds", "1", "--only", "RQ", "Celery"]) == 0
    result = json.loads((tmp_path / "results" / "peers.json").read_text())
    assert result["left_out"] == [
        "RQ, Redis, 2 workers: no redis-server",
        "Celery, Redis, 4 threads: no redis-server",
    ]
    assert {figure["name"].partition(":")[0] for figure in result["figures"]} == {peers.NBQUEUE}


def test_a_bar_is_a_least_or_a_most() -> None:
    """A ratio says both sides of a bar and whether it is reached, whichever way the bar goes."""
    from benchmarks.harness import Figure, Ratio

    ours, theirs = Figure("ours", "ms", [1.0, 9.0, 3.0]), Figure("theirs", "ms", [2.0, 3.0, 6.0])
    assert (
        str(Ratio.between("ours / theirs", ours, theirs, 0.4))
        == "ours / theirs: 0.50x, bar at least 0.4x: reached"
    )
    assert Ratio.between("ours / theirs", ours, theirs, 0.4, at_most=True).reached is False
    assert Ratio.of(ours, 3.0, at_most=True).reached is True
    assert Ratio.between("ours / theirs", ours, theirs).reached is None


def test_room_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A small round of everything ends with sizes, a table, a result file and exit code 0."""
    from benchmarks import harness, room

    monkeypatch.setattr(harness, "RESULTS", tmp_path / "results")
    small = ["--rounds", "2", "--jobs", "200", "--history", "1000", "--commits", "5"]
    assert room.main(small) == 0
    assert "round 2: " in capsys.readouterr().out
    result = json.loads((tmp_path / "results" / "room.json").read_text())
    assert all(figure["median"] > 0 for figure in result["figures"])


def test_chaos_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run in which nobody is killed ends with the account, a result file and exit code 0."""
    from benchmarks import chaos, harness

    monkeypatch.setattr(harness, "RESULTS", tmp_path / "results")
    assert chaos.main(["--jobs", "20", "--kills", "0", "--freezes", "0", "--seed", "3"]) == 0
    assert "20 jobs, 0 kills, seed 3" in capsys.readouterr().out
    result = json.loads((tmp_path / "results" / "chaos.json").read_text())
    assert (result["account"]["dispatched and acknowledged"], result["account"]["lost"]) == ("20", "0")
    assert result["faults"] == []


def test_sharing_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A small round of everything, with one owner killed, ends with a table, a result file and exit code 0."""
    from benchmarks import harness, sharing

    monkeypatch.setattr(harness, "RESULTS", tmp_path / "results")
    assert sharing.main(["--rounds", "1", "--jobs", "50", "--calls", "3", "--kills", "1"]) == 0
    assert "take-over" in capsys.readouterr().out
    result = json.loads((tmp_path / "results" / "sharing.json").read_text())
    assert all(figure["median"] > 0 for figure in result["figures"])


def test_stores_run(
    postgres: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A small round of every store, and of Procrastinate on the same server, ends with a table and a result file."""
    from benchmarks import harness, stores

    monkeypatch.setenv("NBQUEUE_BENCH_POSTGRES", postgres)
    monkeypatch.setattr(harness, "RESULTS", tmp_path / "results")
    assert stores.main(["--rounds", "1", "--jobs", "60", "--calls", "3"]) == 0
    said = capsys.readouterr().out
    assert "run: PostgreSQL / Procrastinate: " in said
    assert "bar at least 5x" in said
    result = json.loads((tmp_path / "results" / "stores.json").read_text())
    assert all(figure["median"] > 0 for figure in result["figures"])
    subjects = {figure["name"].partition(":")[0] for figure in result["figures"]}
    assert subjects == {"memory", "DuckDB", "shared", "PostgreSQL", "PostgreSQL by two", "Procrastinate"}


def test_footprint_runs(
    postgres: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A small round in a file and on a server ends with sizes, connections, a table and a result file."""
    from benchmarks import footprint, harness

    monkeypatch.setenv("NBQUEUE_BENCH_POSTGRES", postgres)
    monkeypatch.setattr(harness, "RESULTS", tmp_path / "results")
    assert footprint.main(["--rounds", "1", "--jobs", "50", "--calls", "2", "--idle", "0.1"]) == 0
    assert "PostgreSQL: who works" in capsys.readouterr().out
    result = json.loads((tmp_path / "results" / "footprint.json").read_text())
    assert all(figure["median"] > 0 for figure in result["figures"] if figure["unit"] != "transactions/s")


def test_mirror_runs(
    postgres: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A small history on a server is copied, asked and forgotten, and ends with a table and a result file."""
    from benchmarks import harness, mirror

    monkeypatch.setenv("NBQUEUE_BENCH_POSTGRES", postgres)
    monkeypatch.setattr(harness, "RESULTS", tmp_path / "results")
    assert mirror.main(["--rounds", "1", "--jobs", "300"]) == 0
    assert "900 rows" in capsys.readouterr().out
    result = json.loads((tmp_path / "results" / "mirror.json").read_text())
    assert all(figure["median"] > 0 for figure in result["figures"] if figure["unit"] != "MiB")
