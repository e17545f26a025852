"""The panel's benchmark runs: whether it is fast is not for a test to say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest


def test_panel_benchmark_runs(
    chromium: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A small round of everything ends with a table, ratios, a result file and exit code 0."""
    from benchmarks import harness, panel

    monkeypatch.setattr(harness, "RESULTS", tmp_path / "results")
    small = ["--clicks", "1", "--seconds", "2", "--idle", "1", "--loops", "1", "--history", "1000"]
    assert panel.main(small) == 0
    assert "busy cell with 4 jobs and panel / with 4 jobs: " in capsys.readouterr().out
    figures = json.loads((tmp_path / "results" / "panel.json").read_text())["figures"]
    assert {"1,000 jobs: report to screen", "1,000 jobs: click to handler, busy cell"} <= {
        figure["name"] for figure in figures
    }
    assert all(figure["values"] for figure in figures)
