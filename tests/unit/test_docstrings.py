"""What is read out of docstrings, however they are written."""

from __future__ import annotations

import pytest

from nbqueue.facade.forms.docstrings import parameters_of, summary_of

NUMPY = """Import a file.

    It may be
    large.

    Parameters
    ----------
    path : Path
        The file,
        as the worker sees it.
    batch, size : int, optional
        How many.
    *rest
        More.

    Returns
    -------
    int
        Rows.
    """
GOOGLE = """Import a file.

    Args:
        path (Path): The file,
            as the worker sees it.
        batch: How many.

    Returns:
        int: Rows.
    """
SPHINX = """Import a file.

    :param path: The file,
        as the worker sees it.
    :param int batch: How many.
    :returns: Rows.
    """


@pytest.mark.parametrize("doc", [NUMPY, GOOGLE, SPHINX], ids=["numpy", "google", "sphinx"])
def test_styles(doc: str) -> None:
    """Each of the three ways gives the parameters their help, and the summary is the first paragraph."""
    assert summary_of(doc) == "Import a file."
    found = parameters_of(doc)
    assert found["path"] == "The file, as the worker sees it."
    assert found["batch"] == "How many."
    assert "int" not in found


def test_numpy_names() -> None:
    """Parameters that share an entry share its help, and stars are no part of a name."""
    found = parameters_of(NUMPY)
    assert found["size"] == "How many."
    assert found["rest"] == "More."


@pytest.mark.parametrize(
    "doc", [None, "", "   \n  ", "Parameters\n----------\n", "Args:\n\n", "x :", "Parameters\n---"]
)
def test_nothing_said(doc: str | None) -> None:
    """A docstring without parameters has none."""
    assert parameters_of(doc) == {}


def test_no_summary() -> None:
    """A docstring that begins with its parameters has no summary."""
    assert summary_of("Args:\n    path: The file.") == ""
    assert summary_of(":param path: The file.") == ""
