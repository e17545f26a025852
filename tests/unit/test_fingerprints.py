"""A fingerprint says what failures have in common, and nothing that tells them apart."""

from __future__ import annotations

import json

import pytest

from nbqueue.running.fingerprints import FINGERPRINT_MAX, fingerprint


def fails(code: str, filename: str = "/home/someone/clean.py") -> BaseException:
    try:
        exec(compile(code, filename, "exec"), {"json": json})
    except BaseException as error:
        return error
    raise AssertionError


def test_names_class_file_line_and_function():
    """The file without its folder, and no message: both differ from machine to machine and from row to row."""
    one = fails("def clean(row):\n    return row['price']\nclean({'a': 1})")
    other = fails("def clean(row):\n    return row['price']\nclean({'b': 2})", "/srv/elsewhere/clean.py")
    assert fingerprint(one) == fingerprint(other) == "KeyError at clean.py:2 in clean"


def test_points_into_own_code():
    """Where a library raises, it is the line that called it which counts."""
    error = fails("def read(text):\n    return json.loads(text)\nread('{')")
    assert fingerprint(error) == "JSONDecodeError at clean.py:2 in read"


@pytest.mark.parametrize("name", ["/tmp/ipykernel_4711/1234.py", "<ipython-input-3-abc>"])
def test_cell(name):
    """A cell's file has another name after every restart, so it is called a cell."""
    assert fingerprint(fails("1 / 0", name)) == "ZeroDivisionError at cell:1 in <module>"


def test_without_traceback_and_very_long():
    """An error that was never raised has a class; a long name is cut."""
    assert fingerprint(ValueError("x")) == "ValueError"
    name = "f" * 1000
    assert len(fingerprint(fails(f"def {name}():\n    1 / 0\n{name}()"))) == FINGERPRINT_MAX
