"""The notebooks run from top to bottom, their stored outputs are of a run, and `make demo` notices a wrong number."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pandas as pd
import pytest

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
QUICKSTART = ROOT / "notebooks" / "01-quickstart.ipynb"

#: What tells of the machine that a notebook ran on: its folders, and the name of a worker (host, process, number).
MACHINE = re.compile(
    r"/(home|root|Users|tmp|var|opt|work|private|mnt)/|[A-Z]:\\|ipykernel_\d|\b[\w.-]+-\d+-[0-9a-f]{6}\b"
)

each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def _load() -> ModuleType:
    """The script behind `make demo`; notebooks/ is no package."""
    spec = importlib.util.spec_from_file_location("run_demo", ROOT / "notebooks" / "run_demo.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


demo = _load()


@dataclasses.dataclass(frozen=True)
class Run:
    notebook: Any
    error: Exception | None
    folder: Path


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], Run]:
    """Run a notebook, once however many tests ask for it."""
    done: dict[Path, Run] = {}

    def once(path: Path) -> Run:
        if path not in done:
            folder = tmp_path_factory.mktemp("run")
            notebook, error = demo.execute(path, folder)
            done[path] = Run(notebook, error, folder)
        return done[path]

    return once


def code_cells(notebook: Any) -> list[Any]:
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def kinds(cell: Any) -> list[tuple[str, ...]]:
    """What a cell shows, without what differs from run to run."""
    return [(output["output_type"], *sorted(output.get("data", ()))) for output in cell["outputs"]]


def text_of(output: Any) -> str:
    """All that can be read in an output."""
    parts = [output.get("text", "")]
    parts += [data for kind, data in output.get("data", {}).items() if not kind.startswith("image/")]
    return "\n".join(part if isinstance(part, str) else "".join(part) for part in parts)


# --------------------------------------------------------------------------------------------- every notebook
@each_notebook
class TestNotebook:
    @pytest.mark.kernel
    @pytest.mark.slow
    @pytest.mark.timeout(400)
    def test_runs(self, path: Path, run: Callable[[Path], Run]) -> None:
        """It runs from top to bottom in a fresh kernel, and shows what its stored outputs show."""
        ran = run(path)
        assert ran.error is None, ran.error
        stored = json.loads(path.read_text(encoding="utf-8"))
        for fresh, kept in zip(code_cells(ran.notebook), code_cells(stored), strict=True):
            assert kinds(fresh) == kinds(kept), fresh["source"]

    def test_stored_in_order(self, path: Path) -> None:
        """It was stored as one run left it: every cell executed, from the first to the last."""
        cells = code_cells(json.loads(path.read_text(encoding="utf-8")))
        assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
        assert any(cell["outputs"] for cell in cells)

    def test_stored_without_trouble(self, path: Path) -> None:
        """No stored output is an error or a warning."""
        for cell in code_cells(json.loads(path.read_text(encoding="utf-8"))):
            for output in cell["outputs"]:
                assert output["output_type"] != "error", cell["source"]
                assert output.get("name") != "stderr", output["text"]

    def test_stored_without_machine(self, path: Path) -> None:
        """Nothing in it names the machine that it ran on."""
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            for text in ("".join(cell["source"]), *map(text_of, cell.get("outputs", ()))):
                found = MACHINE.search(text)
                assert found is None, text[max(0, found.start() - 80) : found.end() + 80]

    def test_size(self, path: Path) -> None:
        """It is small enough to be read on a web page."""
        assert path.stat().st_size < 1_500_000


def test_there_are_notebooks() -> None:
    """The tests above have something to say."""
    assert QUICKSTART in NOTEBOOKS


# ------------------------------------------------------------------------------------------------ the checker
@pytest.fixture(scope="module")
def result(run: Callable[[Path], Run]) -> Any:
    """What the quickstart left behind."""
    ran = run(QUICKSTART)
    assert ran.error is None, ran.error
    return demo.read(ran.folder)


def with_jobs(result: Any, queue: str, change: Callable[[pd.DataFrame], None], *, month: int = 3) -> Any:
    """The result with one job changed."""
    jobs = result.jobs.copy()
    mine = (jobs["queue"] == queue) & (jobs["metadata"].str["month"] == month)
    one = jobs[mine].copy()
    change(one)
    return dataclasses.replace(result, jobs=pd.concat([jobs[~mine], one], ignore_index=True))


def without_attempt(result: Any, number: int) -> Any:
    """The result without one attempt of the broken import."""
    mine = (result.attempts["queue"] == "imports") & (result.attempts["attempt"] == number)
    if number == 1:
        mine &= result.attempts["outcome"] == "failed"
    return dataclasses.replace(result, attempts=result.attempts[~mine])


def earlier(column: str, by: float) -> Callable[[pd.DataFrame], None]:
    def change(one: pd.DataFrame) -> None:
        one[column] -= pd.Timedelta(seconds=by)

    return change


def setting(column: str, value: object) -> Callable[[pd.DataFrame], None]:
    def change(one: pd.DataFrame) -> None:
        one[column] = one[column].astype(object)
        one[column] = pd.Series([value] * len(one), index=one.index, dtype=object)

    return change


def without_pauses(result: Any) -> Any:
    attempts = result.attempts.copy()
    second = (attempts["queue"] == "imports") & (attempts["attempt"] == 2)
    attempts.loc[second, "started_at"] -= pd.Timedelta(seconds=0.5)
    return dataclasses.replace(result, attempts=attempts)


def without_tracebacks(result: Any) -> Any:
    return dataclasses.replace(result, attempts=result.attempts.assign(traceback=None))


DOCTORED: dict[str, tuple[Callable[[Any], Any], str]] = {
    "a row short": (
        lambda r: dataclasses.replace(r, rows=r.rows | {3: r.rows[3] - 1}),
        r"imported rows is 336,775, not 336,776",
    ),
    "a month short": (
        lambda r: dataclasses.replace(r, rows={m: n for m, n in r.rows.items() if m != 3}),
        r"months in the table are \[1, 2, 4, .*not 1 to 12",
    ),
    "an import failed": (
        lambda r: with_jobs(r, "imports", setting("state", "failed")),
        r"11 imports succeeded, not 12",
    ),
    "an import missing": (
        lambda r: dataclasses.replace(r, jobs=r.jobs[r.jobs["queue"] != "imports"]),
        r'"imports" had 0 jobs, not 12',
    ),
    "never failed": (lambda r: without_attempt(r, 1), r"month 6 ended failed, failed, succeeded, not failed"),
    "never repaired": (lambda r: without_attempt(r, 4), r"month 6 ended failed, failed, failed, not failed"),
    "no backoff": (without_pauses, r"attempt 2 of month 6 came 0\.\d\d s after the one before, not 1 s"),
    "no traceback": (without_tracebacks, r"attempt 1 of month 6 has no traceback"),
    "a report failed": (
        lambda r: with_jobs(r, "reports", setting("state", "failed")),
        r"11 reports succeeded, not 12",
    ),
    "another queue": (
        lambda r: with_jobs(r, "reports", setting("queue", "default")),
        r'"reports" had 11 jobs, not 12',
    ),
    "no metadata": (
        lambda r: with_jobs(r, "reports", setting("metadata", None)),
        r"months in the metadata of the reports are \[0, 1, 2, 4,",
    ),
    "no priority": (
        lambda r: with_jobs(r, "reports", setting("priority", 0)),
        r"month 3 had the priority 0, not 3",
    ),
    "no delay": (
        lambda r: with_jobs(r, "reports", earlier("scheduled_at", 2)),
        r"month 3 was delayed by -?0\.\d\d s, not by 2 s",
    ),
    "too early": (
        lambda r: with_jobs(r, "reports", earlier("started_at", 60)),
        r"month 3 started before its delay was over",
    ),
    "dispatched by nobody": (
        lambda r: with_jobs(r, "reports", earlier("dispatched_at", 60)),
        r"month 3 was not dispatched from inside its import",
    ),
    "unfinished": (
        lambda r: with_jobs(r, "reports", setting("state", "pending")),
        r"1 jobs are unfinished, not 0",
    ),
    "a wrong result": (
        lambda r: dataclasses.replace(r, returned=dict.fromkeys(r.returned, 7)),
        r"import:csv of month \d+ counted 7 rows, the table has",
    ),
    "a report file missing": (
        lambda r: dataclasses.replace(r, files=r.files[1:]),
        r"11 report files .* not 12",
    ),
}


@pytest.mark.kernel
@pytest.mark.slow
@pytest.mark.timeout(400)
class TestChecker:
    def test_right(self, result: Any) -> None:
        """Nothing is off in what the quickstart leaves behind, and the summary says how it went."""
        assert demo.faults(result) == []
        said = demo.summary(result, 12.3)
        for part in (
            "12 of 12",
            "15 attempts",
            "336,776 rows",
            "CSV Error on Line: 18806",
            "attempt 4",
            "12.3 s",
        ):
            assert part in said
        assert max(map(len, said.splitlines())) <= 100

    @pytest.mark.parametrize("what", DOCTORED)
    def test_wrong(self, what: str, result: Any) -> None:
        """A number that is off is named."""
        doctor, sentence = DOCTORED[what]
        found = demo.faults(doctor(result))
        assert any(re.search(sentence, fault) for fault in found), found

    def test_exit_code(
        self, result: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """`make demo` fails with the sentence, and says where the page is; with nothing off it succeeds."""
        notebook = demo.nbformat.read(QUICKSTART, as_version=4)
        monkeypatch.setattr(demo, "BUILD", tmp_path)
        monkeypatch.setattr(demo, "execute", lambda *_: (notebook, None))
        monkeypatch.setattr(demo, "read", lambda _: result)
        assert demo.main(["--no-open"]) == 0
        assert "Every number is right" in capsys.readouterr().out

        doctored = DOCTORED["a row short"][0](result)
        monkeypatch.setattr(demo, "read", lambda _: doctored)
        assert demo.main(["--no-open"]) == 1
        said = capsys.readouterr()
        assert "Off: the number of imported rows is 336,775, not 336,776." in said.err
        assert "01-quickstart.html" in said.err
        assert "Every number is right" not in said.out


def test_notebook_that_stops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A notebook that raises fails the demo with the last line of its error, and the page is written all the same."""
    notebook = demo.nbformat.read(QUICKSTART, as_version=4)
    stopped = ValueError("Traceback\n\x1b[31mAssertionError\x1b[0m: 7 rows instead of 336,776\n")
    monkeypatch.setattr(demo, "BUILD", tmp_path)
    monkeypatch.setattr(demo, "execute", lambda *_: (notebook, stopped))
    assert demo.main([]) == 1
    assert "The notebook stopped: AssertionError: 7 rows instead of 336,776\n" in capsys.readouterr().err
    assert (tmp_path / "01-quickstart.html").stat().st_size > 10_000


def test_page_stands_alone(tmp_path: Path) -> None:
    """The page fetches nothing: it can be read offline, and tells nobody that it is read."""
    notebook = demo.nbformat.read(QUICKSTART, as_version=4)
    html = demo.write_page(notebook, tmp_path).read_text(encoding="utf-8")
    assert "<script" not in html
    assert re.search(r"(src|href)=[\"']?(https?:)?//", html) is None
    assert re.search(r"@import|url\(\s*[\"']?https?:", html) is None
    pictures = re.findall(r"<img[^>]*>", html)
    described = [re.findall(r'alt="Plot: (\w+)"', picture) for picture in pictures]
    assert described == [["timeline"], ["backlog"], ["throughput"], ["latency"]]
