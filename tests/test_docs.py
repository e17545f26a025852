"""The documents run: every Python block of README.md and docs/, every example in a docstring.

The ``python`` blocks of one file run in order in one namespace, as the cells of one notebook would,
in an empty directory. A comment on the line before a block changes that:

- ``<!-- not run: why -->``: the block is not run; the reason must be there;
- ``<!-- run -->`` before a ``console`` block: its ``nbqueue …`` lines are run and must succeed.
"""

from __future__ import annotations

import ast
import asyncio
import doctest
import importlib
import inspect
import io
import re
import shlex
import subprocess
import sys
import types
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "nbqueue"
DOCUMENTS = [path for path in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))) if path.exists()]

#: Drivers that need not be installed: a module that cannot be imported for want of one is skipped.
OPTIONAL = {"boto3", "botocore", "dask", "distributed", "psycopg"}

FENCE = re.compile(r"^(?P<indent>\s*)(?P<fence>`{3,})(?P<language>[\w+-]*)")
NOT_RUN = re.compile(r"<!--\s*not run:(?P<reason>.*?)-->")
RUN = re.compile(r"<!--\s*run\s*-->")


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """One fenced block of a document."""

    language: str
    line: int  #: of its first line of code, counted from 1
    source: str
    note: str  #: the comment before it; empty if there is none


def blocks_of(text: str) -> Iterator[Block]:
    lines = text.splitlines()
    note, at = "", 0
    while at < len(lines):
        opening = FENCE.match(lines[at])
        if opening is None:
            note = lines[at].strip() or note
            at += 1
            continue
        indent, fence = len(opening["indent"]), opening["fence"]
        end = at + 1
        while end < len(lines) and lines[end].strip() != fence:
            end += 1
        body = [line[indent:] if not line[:indent].strip() else line for line in lines[at + 1 : end]]
        is_comment = note.startswith("<!--")
        yield Block(
            language=opening["language"].lower(),
            line=at + 2,
            source="\n".join(body) + "\n",
            note=note if is_comment else "",
        )
        note, at = "", end + 1


def is_run(block: Block, where: str) -> bool:
    skipped = NOT_RUN.search(block.note)
    assert skipped is None or skipped["reason"].strip(), f"{where}: a block that is not run says why"
    if block.language == "python":
        return skipped is None
    return block.language == "console" and RUN.search(block.note) is not None


@pytest.fixture
def empty_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty directory to work in: a document's queue file must not land in the project."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def main_module(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """A fresh ``__main__``, since that is where a reader's functions and classes would live."""
    module = types.ModuleType("__main__")
    monkeypatch.setitem(sys.modules, "__main__", module)
    return module


def run_python(block: Block, path: Path, names: dict[str, object], runner: asyncio.Runner) -> None:
    """Run one block; what it raises shows the document's own file and line."""
    padded = "\n" * (block.line - 1) + block.source
    code = compile(padded, str(path), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
    result = eval(code, names)  # noqa: S307 - the project's own documents
    if code.co_flags & inspect.CO_COROUTINE:

        async def awaited() -> None:
            await result

        runner.run(awaited())


def run_console(block: Block, where: str) -> None:
    """Run the ``nbqueue …`` lines of a console block, with or without a prompt."""
    for line in block.source.splitlines():
        words = shlex.split(line.strip().removeprefix("$ "), comments=True)
        if words[:1] != [PACKAGE]:
            continue
        done = subprocess.run(
            [sys.executable, "-m", PACKAGE, *words[1:]],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, f"{where}: {line.strip()}\n{done.stdout}{done.stderr}"


def run_document(path: Path, main: types.ModuleType) -> None:
    with asyncio.Runner() as runner:
        for block in blocks_of(path.read_text(encoding="utf-8")):
            where = f"{path.relative_to(ROOT) if path.is_relative_to(ROOT) else path}:{block.line}"
            if not is_run(block, where):
                continue
            if block.language == "console":
                run_console(block, where)
                continue
            try:
                run_python(block, path, main.__dict__, runner)
            except Exception as error:
                error.add_note(f"in the block at {where}")
                raise


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
@pytest.mark.usefixtures("empty_dir")
def test_document(path: Path, main_module: types.ModuleType) -> None:
    """What a document shows works, from its first block to its last."""
    run_document(path, main_module)


# ----------------------------------------------------------------------------------------- docstrings
def module_names() -> list[str]:
    names = []
    for path in sorted((ROOT / PACKAGE).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        if parts[-1] != "__main__":
            names.append(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
    return names


@pytest.mark.parametrize("name", module_names())
@pytest.mark.usefixtures("empty_dir")
def test_docstrings(name: str) -> None:
    """The examples in a module's docstrings give what they say."""
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in OPTIONAL:
            raise
        pytest.skip(f"{error.name} is not installed")
    said = io.StringIO()
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    for test in doctest.DocTestFinder().find(module):
        runner.run(test, out=said.write)
    assert runner.summarize(verbose=False).failed == 0, said.getvalue()


# --------------------------------------------------------------------------------- the runner's rules
DOCUMENT = """
# Title

```python
x = 1
```

<!-- not run: needs a cluster -->
```python
raise RuntimeError
```

- in a list:

  ```python
  import asyncio
  x += await asyncio.sleep(0, 1)
  ```

```python
assert __name__ == "__main__"
assert x == 2, x
{last}
```
"""


@pytest.mark.usefixtures("empty_dir")
def test_blocks_share_names(tmp_path: Path, main_module: types.ModuleType) -> None:
    """Blocks run in order, in one namespace, with ``await``, and marked ones are left out."""
    path = tmp_path / "good.md"
    path.write_text(DOCUMENT.format(last="y = x"), encoding="utf-8")
    run_document(path, main_module)
    assert main_module.__dict__["y"] == 2


def test_failure_names_the_line(tmp_path: Path, main_module: types.ModuleType) -> None:
    """A failure points into the document itself."""
    path = tmp_path / "bad.md"
    path.write_text(DOCUMENT.format(last="1 / 0"), encoding="utf-8")
    with pytest.raises(ZeroDivisionError) as caught:
        run_document(path, main_module)
    last = caught.traceback[-1]
    assert (Path(last.path).name, last.lineno + 1) == ("bad.md", 23)
    assert caught.value.__notes__ == [f"in the block at {path}:21"]


def test_reason_is_required(tmp_path: Path, main_module: types.ModuleType) -> None:
    """``not run`` without a reason is a failure."""
    path = tmp_path / "mute.md"
    path.write_text("<!-- not run: -->\n```python\n1 / 0\n```\n", encoding="utf-8")
    with pytest.raises(AssertionError, match="says why"):
        run_document(path, main_module)
