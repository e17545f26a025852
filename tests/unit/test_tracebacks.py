"""A job's traceback names the notebook's cells as cells, through every error that led to it."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import pytest
from IPython.core.compilerop import CachingCompiler

from nbqueue.running import tracebacks

CELL = """
def fail():
    try:
        {}["x"]
    except KeyError as error:
        raise ValueError('File "Cell In[7]"') from error
"""


@pytest.fixture
def compiler(monkeypatch: pytest.MonkeyPatch) -> CachingCompiler:
    """The compiler of a notebook's shell, which knows which cell is which file."""
    compiler = CachingCompiler()  # type: ignore[no-untyped-call]
    monkeypatch.setattr(tracebacks, "shell", lambda: SimpleNamespace(compile=compiler))
    return compiler


def defined(compiler: CachingCompiler, cell: str, number: int) -> Callable[[], None]:
    """Run a cell that defines ``fail``."""
    names: dict[str, Callable[[], None]] = {}
    exec(compile(cell, compiler.cache(cell, number), "exec"), names)
    return names["fail"]


def raised(fail: Callable[[], None]) -> BaseException:
    try:
        fail()
    except BaseException as error:
        return error
    raise AssertionError("it should have failed")


def test_cells_are_named_through_the_chain(compiler: CachingCompiler) -> None:
    """Both errors point to their lines in Cell In[7], and the file that does not exist is not named."""
    text = tracebacks.of(raised(defined(compiler, CELL, 7)))
    lines = text.splitlines()
    assert lines.count("Traceback (most recent call last):") == 2
    assert lines[1:3] == ["  Cell In[7], line 4, in fail", '    {}["x"]']
    assert "  Cell In[7], line 6, in fail" in lines
    assert "<ipython-input" not in text


def test_cells_are_named_within_a_group(compiler: CachingCompiler) -> None:
    """What is in an exception group is named like what is not."""
    first, second = (raised(defined(compiler, CELL, number)) for number in (7, 8))
    second.__cause__ = None
    text = tracebacks.of(BaseExceptionGroup("both", [first, second]))
    assert "Cell In[7], line 6, in fail" in text
    assert "<ipython-input" not in text


def test_other_files_keep_their_names(compiler: CachingCompiler) -> None:
    """A frame of a module is named by its file, whether or not there is a shell."""

    def fail() -> None:
        raise ValueError

    assert f'File "{__file__}", line ' in tracebacks.of(raised(fail))


def test_without_a_shell_a_cell_is_a_file(compiler: CachingCompiler, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is known of cells where no shell is."""
    monkeypatch.setattr(tracebacks, "shell", lambda: None)
    assert 'File "<ipython-input-7-' in tracebacks.of(raised(defined(compiler, CELL, 7)))
