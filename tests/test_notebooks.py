"""The notebooks run where only what binder/ names is installed, as do their numbers; `make demo` says what is off."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import nbformat
import pandas as pd
import pytest
from filelock import FileLock

ROOT = Path(__file__).resolve().parent.parent
BINDER = ROOT / "binder"
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
QUICKSTART = ROOT / "notebooks" / "01-quickstart.ipynb"

#: What tells of the machine that a notebook ran on: its folders, and the name of a worker (host, process, number).
MACHINE = re.compile(
    r"/(home|root|Users|tmp|var|opt|work|private|mnt)/|[A-Z]:\\|ipykernel_\d|\b[\w.-]+-\d+-[0-9a-f]{6}\b"
)
#: What a widget shows where it has no kernel is enough to be stored.
WIDGET = "application/vnd.jupyter.widget-view+json"

each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def _load() -> ModuleType:
    """The script behind `make demo`; notebooks/ is no package, and its folder is where the script looks."""
    sys.path.insert(0, str(ROOT / "notebooks"))
    try:
        import run_demo
    finally:
        sys.path.remove(str(ROOT / "notebooks"))
    return run_demo


demo = _load()


# ------------------------------------------------------------------------------------------- what binder/ names
@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that the workers of this run share: an environment and a run of each notebook do for all of them."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "notebooks"
    folder.mkdir(exist_ok=True)
    return folder


def binder_python() -> str:
    """The Python that runtime.txt names, where it is installed; else this one."""
    wanted = shutil.which(BINDER.joinpath("runtime.txt").read_text(encoding="utf-8").strip().replace("-", ""))
    works = wanted and subprocess.run(
        [wanted, "-c", "import ensurepip, venv"], capture_output=True, check=False
    )
    return wanted if wanted and works and works.returncode == 0 else sys.executable


@pytest.fixture(scope="session")
def binder_env(shared: Path) -> Path:
    """The interpreter of a new environment that holds what binder/requirements.txt names, and nothing else."""
    python = shared / "env" / "bin" / "python"
    with FileLock(shared / "env.lock"):
        if not (shared / "env.made").exists():
            # From the top of the repository, as repo2docker does it, but for pip's cache and for byte code that
            # nobody here reads.
            install = [
                python,
                "-m",
                "pip",
                "install",
                "--quiet",
                "--disable-pip-version-check",
                "--no-compile",
            ]
            for command in (
                [binder_python(), "-m", "venv", "--clear", shared / "env"],
                [*install, "-r", BINDER / "requirements.txt"],
                [python, "-c", "import matplotlib.font_manager"],  # as postBuild does
            ):
                done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
                assert done.returncode == 0, done.stderr
            (shared / "env.made").touch()
    return python


@dataclasses.dataclass(frozen=True)
class Run:
    notebook: Any
    said: str  #: what `make demo` printed
    trouble: str  #: why it failed; "" if it did not
    folder: Path


@pytest.fixture(scope="session")
def run(shared: Path, binder_env: Path) -> Callable[[Path], Run]:
    """Run a notebook in that environment, as `make demo` does, once however many tests ask for it."""

    def once(path: Path) -> Run:
        said = shared / f"{path.stem}.json"
        with FileLock(shared / f"{path.stem}.lock"):
            if not said.exists():
                script = ROOT / "notebooks" / "run_demo.py"
                places = ["--build", shared / "pages", "--keep", shared / "left"]
                done = subprocess.run(
                    [binder_env, script, path.stem, "--no-open", *places],
                    cwd=shared,  # where nothing of the project can be imported by chance
                    capture_output=True,
                    text=True,
                    check=False,
                )
                said.write_text(json.dumps([done.stdout, done.stderr if done.returncode else ""]))
        out, trouble = json.loads(said.read_text())
        page = shared / "pages" / path.name
        notebook = nbformat.read(page, as_version=4) if page.exists() else None
        return Run(notebook, out, trouble, shared / "left" / path.stem)

    return once


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_environment(binder_env: Path) -> None:
    """It has the project itself, as a package and with what its widgets are drawn with."""
    code = "import nbqueue.widgets.panel.panel as p; print(p.__file__); p.Panel._esm, p.Panel._css"
    done = subprocess.run(
        [binder_env, "-c", code], cwd=binder_env.parent, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()).is_relative_to(binder_env.parent.parent)


def test_lab_opens_on_the_quickstart(tmp_path: Path) -> None:
    """postBuild leaves a workspace of JupyterLab that shows the first notebook, whichever address it is opened at."""
    env = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "JUPYTERLAB_WORKSPACES_DIR": str(tmp_path / "workspaces"),
    }
    done = subprocess.run(
        ["bash", BINDER / "postBuild"], cwd=ROOT, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    (kept,) = (tmp_path / "workspaces").iterdir()
    workspace = json.loads(kept.read_text(encoding="utf-8"))
    opened = workspace["data"]["layout-restorer:data"]["main"]["current"]
    assert workspace["data"][opened]["data"]["path"] == QUICKSTART.relative_to(ROOT).as_posix()
    assert workspace["metadata"]["id"] == "default"


def test_binder_names_a_python_that_will_do() -> None:
    """runtime.txt is read by repo2docker as python-3.N, and the project takes that version."""
    import tomllib

    found = re.fullmatch(
        r"python-3\.(\d+)", BINDER.joinpath("runtime.txt").read_text(encoding="utf-8").strip()
    )
    assert found
    project = tomllib.loads(ROOT.joinpath("pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert int(found[1]) >= int(re.fullmatch(r">=3\.(\d+)", project["requires-python"])[1])


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
    @pytest.mark.timeout(600)
    def test_runs(self, path: Path, run: Callable[[Path], Run]) -> None:
        """It runs from top to bottom where only binder/ was installed, and shows what its stored outputs show."""
        ran = run(path)
        assert not ran.trouble, ran.trouble
        stored = json.loads(path.read_text(encoding="utf-8"))
        for fresh, kept in zip(code_cells(ran.notebook), code_cells(stored), strict=True):
            assert fresh["source"] == "".join(kept["source"])
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

    def test_stored_for_readers(self, path: Path) -> None:
        """What needs no kernel is stored of a widget, and nothing of its state."""
        notebook = json.loads(path.read_text(encoding="utf-8"))
        assert set(notebook["metadata"]) == {"kernelspec", "language_info"}
        assert notebook["metadata"]["kernelspec"]["name"] == "python3"
        for cell in notebook["cells"]:
            assert cell["metadata"] == {}, cell["source"]
            for output in cell.get("outputs", ()):
                assert WIDGET not in output.get("data", ()), cell["source"]

    def test_size(self, path: Path) -> None:
        """It is small enough to be read on a web page."""
        assert path.stat().st_size < 1_500_000


def test_every_notebook_is_listed() -> None:
    """The tests above have something to say, and the list beside the notebooks names each of them."""
    assert QUICKSTART in NOTEBOOKS
    listed = (ROOT / "notebooks" / "README.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| \[[\w-]+\]\(([\w-]+\.ipynb)\)", listed, re.MULTILINE) == [
        p.name for p in NOTEBOOKS
    ]
    linked = [
        name
        for path in NOTEBOOKS
        for name in re.findall(r"\]\(([\w-]+\.ipynb)\)", path.read_text(encoding="utf-8"))
    ]
    assert set(linked) <= {path.name for path in NOTEBOOKS}


# ------------------------------------------------------------------------------------------------ the checker
@pytest.fixture(scope="module")
def result(run: Callable[[Path], Run], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What the quickstart left behind."""
    ran = run(QUICKSTART)
    assert not ran.trouble, ran.trouble
    # Other workers of this run read it as well, and each is to find it as the notebook left it.
    mine = shutil.copytree(ran.folder, tmp_path_factory.mktemp("left") / "quickstart")
    return demo.read(mine)


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
    broken = attempts["job_id"].isin(attempts.loc[attempts["attempt"] == 2, "job_id"])
    before = attempts.loc[
        broken & (attempts["attempt"] == 1) & (attempts["queue"] == "imports"), "finished_at"
    ].item()
    second = broken & (attempts["attempt"] == 2) & (attempts["queue"] == "imports")
    attempts.loc[second, "started_at"] = before + pd.Timedelta(seconds=0.5)
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
        notebook = nbformat.read(QUICKSTART, as_version=4)
        arguments = ["01", "--no-open", "--build", str(tmp_path)]
        monkeypatch.setattr(demo, "execute", lambda *_: (notebook, None))
        monkeypatch.setattr(demo, "read", lambda _: result)
        assert demo.main(arguments) == 0
        assert "Every number is right" in capsys.readouterr().out

        doctored = DOCTORED["a row short"][0](result)
        monkeypatch.setattr(demo, "read", lambda _: doctored)
        assert demo.main(arguments) == 1
        said = capsys.readouterr()
        assert "01-quickstart is off: the number of imported rows is 336,775, not 336,776." in said.err
        assert f"The pages show where: {os.path.relpath(tmp_path)}" in said.err
        assert "Every number is right" not in said.out


def test_notebook_that_stops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A notebook that raises fails the demo with the last line of its error, and the page is written all the same."""
    notebook = nbformat.read(QUICKSTART, as_version=4)
    stopped = ValueError("Traceback\n\x1b[31mAssertionError\x1b[0m: 7 rows instead of 336,776\n")
    monkeypatch.setattr(demo, "execute", lambda *_: (notebook, stopped))
    assert demo.main(["01", "--build", str(tmp_path)]) == 1
    assert "01-quickstart stopped: AssertionError: 7 rows instead of 336,776\n" in capsys.readouterr().err
    assert (tmp_path / "01-quickstart.html").stat().st_size > 10_000


@each_notebook
def test_page_stands_alone(path: Path, tmp_path: Path) -> None:
    """The page fetches nothing: it can be read offline, and tells nobody that it is read."""
    html = demo.write_page(nbformat.read(path, as_version=4), tmp_path, path.stem).read_text(encoding="utf-8")
    assert "<script" not in html
    assert re.search(r"(src|href)=[\"']?(https?:)?//", html) is None
    assert re.search(r"@import|url\(\s*[\"']?https?:", html) is None
    assert "No description has been provided for this image" not in html


def test_plots_are_described(tmp_path: Path) -> None:
    """A plot on the page says to those who cannot see it what it is."""
    notebook = nbformat.read(QUICKSTART, as_version=4)
    html = demo.write_page(notebook, tmp_path, QUICKSTART.stem).read_text(encoding="utf-8")
    pictures = re.findall(r"<img[^>]*>", html)
    described = [re.findall(r'alt="Plot: (\w+)"', picture) for picture in pictures]
    assert described == [["timeline"], ["backlog"], ["throughput"], ["latency"]]
