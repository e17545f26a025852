"""A display as text: what it holds comes back, what could run code is signed, and what is not signed is not trusted."""

from __future__ import annotations

import base64
import json
import math
from typing import Any

import pytest

from nbqueue.errors import NbqueueError
from nbqueue.payload import bundles

PNG = b"\x89PNG\r\n"


def key() -> bytes:
    return b"k" * 32


def never() -> bytes:
    raise AssertionError("nobody needs the secret here")


def written(data: dict[str, Any], **given: Any) -> dict[str, Any]:
    read: dict[str, Any] = json.loads(bundles.write(data, given.pop("metadata", {}), **given))
    return read


def test_what_was_displayed_comes_back() -> None:
    """Data and metadata are what they were; bytes are base64, as notebooks have them."""
    bundle = written({"text/plain": "ü", "image/png": PNG}, metadata={"image/png": {"width": 3}}, key=never)
    assert bundle == {
        "data": {"text/plain": "ü", "image/png": base64.b64encode(PNG).decode()},
        "metadata": {"image/png": {"width": 3}},
    }
    assert written({}, display_id="x", update=True) == {
        "data": {},
        "metadata": {},
        "display_id": "x",
        "update": True,
    }


@pytest.mark.parametrize("value", [float("nan"), object(), {1, 2}])
def test_what_json_cannot_hold_is_reduced_to_text(value: object) -> None:
    """Of a display the types that JSON has a word for are kept, else a text says so; it is no error in the job."""
    rich = {"text/plain": "7", "text/html": "<b>7</b>"}
    bundle = written({**rich, "application/json": value}, metadata={"a": value, "b": 1}, key=key, context="7")
    assert (bundle["data"], bundle["metadata"]) == (rich, {"b": 1})
    assert bundles.is_trusted(bundle, key=key, context="7")
    (text,) = written({"application/json": value})["data"].items()
    assert text == ("text/plain", "an output that JSON cannot hold")


def deep() -> list[Any]:
    inner: list[Any] = []
    for _ in range(100_000):
        inner = [inner]
    return inner


def test_what_is_nested_too_deeply_is_left_out() -> None:
    """Neither writing nor reading it fails; in a file it is of a type that is not shown."""
    assert written({"text/plain": "7", "application/json": deep()})["data"] == {"text/plain": "7"}
    read = bundles.read('{"data":{"text/plain":' + "[" * 100_000)
    assert bundles.harmless(read["data"]) == {}
    assert list(read["data"]) == ["application/json"]


def test_a_lone_surrogate_is_written_out() -> None:
    """No page and no store takes one; a pair is a character, and stays."""
    bundle = written({"text/html": "caf\udce9 \U0001f600", "text/plain": "caf\udce9"}, key=key, context="7")
    shown = [bundle["data"][mime].encode("utf-8", "replace").decode() for mime in ("text/html", "text/plain")]
    assert shown == ["caf\\udce9 \U0001f600", "caf\\udce9"]
    assert bundles.is_trusted(bundle, key=key, context="7")
    # Whoever puts it back has changed what was signed.
    bundle["data"]["text/html"] = "caf\udce9 \U0001f600"
    assert not bundles.is_trusted(bundle, key=key, context="7")


@pytest.mark.parametrize("number", ["NaN", "1e999", "-1e999", "1" + "0" * 4000, "-1", '"3"', "null", "[3]"])
def test_only_sizes_are_harmless_metadata(number: str) -> None:
    """An image is as large as a page may be; all else is left out."""
    metadata = json.loads(
        f'{{"image/png":{{"width":{number},"height":3,"onload":4}},"image/gif":7,"x":{{"width":3}}}}'
    )
    assert bundles.harmless_metadata(metadata) == {"image/png": {"height": 3}}


@pytest.mark.parametrize(
    "data",
    [
        {"text/html": "<b>7</b>"},
        {"image/svg+xml": "<svg/>"},
        {"application/javascript": "alert(1)"},
        {"application/vnd.vegalite.v5+json": {"mark": "bar", "values": [0.1, 1e300, "ü"]}},
        {"text/markdown": "*7*"},
        {"text/latex": "$7$"},
        {"application/x-anything": "new"},
        {"image/png": "no base64: \" onerror='alert(1)'"},
        {"text/plain": ["no", "text"]},
    ],
)
def test_what_could_run_is_trusted_by_its_signature_alone(data: dict[str, Any]) -> None:
    """It is signed, for one job and one secret; changed, unsigned or moved to another job it is not trusted."""
    bundle = written(data, key=key, context="job 1")
    assert bundles.is_trusted(bundle, key=key, context="job 1")
    assert not bundles.is_trusted(bundle, key=key, context="job 2")
    assert not bundles.is_trusted(bundle, key=lambda: b"another", context="job 1")
    assert not bundles.is_trusted({**bundle, "metadata": {"isolated": False}}, key=key, context="job 1")
    unsigned = {name: value for name, value in bundle.items() if name != "signature"}
    assert not bundles.is_trusted(unsigned, key=key, context="job 1")
    assert bundles.harmless(bundle["data"]) == {}


def test_text_and_raster_images_are_harmless() -> None:
    """They are trusted unsigned, and the secret is never asked for."""
    bundle = written({"text/plain": "<b>", "image/png": PNG, "image/jpeg": PNG}, key=never)
    assert bundles.is_trusted(bundle, key=never, context="")
    assert bundles.harmless(bundle["data"]) == bundle["data"]


def test_a_secret_that_cannot_be_read_leaves_it_unsigned() -> None:
    """A job that displays does not fail for it, and what it displayed is not trusted either."""

    def broken() -> bytes:
        raise NbqueueError("the secret is open to other users")

    bundle = written({"text/html": "<b>"}, key=broken)
    assert "signature" not in bundle
    signed = written({"text/html": "<b>"}, key=key)
    assert not bundles.is_trusted(signed, key=broken, context="")


@pytest.mark.parametrize("value", [math.nan, math.inf, deep()], ids=["nan", "inf", "deep"])
def test_a_signed_value_that_json_cannot_hold_is_not_trusted(value: object) -> None:
    """Nobody has signed it, as nobody can have written it."""
    bundle = {"data": {"text/html": "<b>", "x/y": value}, "metadata": {}, "signature": "x"}
    assert not bundles.is_trusted(bundle, key=key, context="")


@pytest.mark.parametrize(
    "bundle", [{}, {"data": {}}, {"data": [], "metadata": {}}, {"data": {}, "metadata": {}, "signature": 7}]
)
def test_nonsense_is_no_error(bundle: dict[str, Any]) -> None:
    """What a stranger wrote into a file is looked at without failing."""
    assert bundles.is_trusted(bundle, key=key, context="") is (bundle.get("signature") == 7)
