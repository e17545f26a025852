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
