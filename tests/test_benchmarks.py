"""The benchmarks run: whether they are fast is not for a test to say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest


def test_throughput_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A small round of everything ends with a table, ratios, a result file and exit code 0."""
    from benchmarks import harness, throughput

    monkeypatch.setattr(harness, "RESULTS", tmp_path / "results")
    assert throughput.main(["--jobs", "200", "--rounds", "1", "--calls", "5"]) == 0
    said = capsys.readouterr().out
    assert "nbqueue / Huey: " in said
    assert "bar 5x" in said
    result = json.loads((tmp_path / "results" / "throughput.json").read_text())
    assert result["jobs"] == 200
    assert all(figure["median"] > 0 for figure in result["figures"])
    assert {ratio["name"] for ratio in result["ratios"]} >= {"nbqueue / Huey", "one dispatch / bare INSERT"}


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
    assert "bar 5x" in said
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
