"""What a form dispatches is a call that its handler can take: a function, one with ``**kwargs``, a click command."""

from __future__ import annotations

import dataclasses
from typing import Any

import click
import pytest

import nbqueue as nbq
from nbqueue.facade.forms.spec import FormErrors
from nbqueue.payload import encode_call


def refused(queues: nbq.QueueManager, work: object, values: Any, options: Any = None) -> dict[str, str]:
    """Give what is said by field, and see that nothing was dispatched."""
    with pytest.raises(FormErrors) as caught:
        queues.dispatch_form(work, values, options)
    assert queues.jobs().empty
    return caught.value.errors


# ------------------------------------------------------------------------------------------------------ functions
def test_box_left_out(queues: nbq.QueueManager) -> None:
    """A needed bool that is left out is False in the call, so that it can be run."""

    @nbq.job
    def purge(path: str, force: bool) -> tuple[str, bool]:
        return path, force

    with queues.worker():
        assert queues.dispatch_form(purge, {"path": "x"}).result(30) == ("x", False)


def test_call_that_does_not_bind(queues: nbq.QueueManager) -> None:
    """What the form gives is checked as any call is, before it is dispatched."""

    @nbq.job
    def purge(path: str) -> None: ...

    without_fields = dataclasses.replace(queues.form_spec(purge), parts=())
    assert "missing 'path'" in refused(queues, without_fields, {})[""]


def test_names_in_the_rest(queues: nbq.QueueManager) -> None:
    """What stands in ``**kwargs`` must not be a parameter that has a field of its own, nor the context."""

    @nbq.job
    def up(ctx: Any, path: str, *, mode: str = "w", **extra: Any) -> None: ...

    assert '"path"' in refused(queues, up, {"path": "a", "extra": '{"path": "b"}'})["extra"]
    # Its own field is left empty here; the call would bind.
    assert '"mode"' in refused(queues, up, {"path": "a", "extra": '{"mode": "b"}'})["extra"]
    assert '"ctx"' in refused(queues, up, {"path": "a", "extra": '{"ctx": 1}'})["extra"]
    receipt = queues.dispatch_form(up, {"path": "a", "extra": '{"tag": 1}'})
    assert receipt.record().payload == encode_call((), {"path": "a", "tag": 1})


def test_names_of_positional_only(queues: nbq.QueueManager) -> None:
    """A parameter that is positional only leaves its name to ``**kwargs``, as in Python."""

    @nbq.job
    def up(ctx: Any, path: str, /, **extra: Any) -> None: ...

    receipt = queues.dispatch_form(up, {"path": "a", "extra": '{"path": "b", "ctx": 1}'})
    assert receipt.record().payload == encode_call(("a",), {"path": "b", "ctx": 1})


@pytest.mark.parametrize("values", [None, [], "x", 5], ids=repr)
def test_values_are_a_dict(queues: nbq.QueueManager, values: Any) -> None:
    """Values that are no dict by field are refused by a sentence."""

    @nbq.job
    def tick() -> None: ...

    assert "by field" in refused(queues, tick, values)[""]
    if values is not None:
        assert "by field" in refused(queues, tick, {}, values)[""]


# --------------------------------------------------------------------------------------------------- click commands
def clicked(*params: Any) -> str:
    """Make a click command of these parameters, which gives what it got; gives its name."""

    @click.command(params=[*params])
    def work(**given: Any) -> dict[str, Any]:
        return given

    nbq.command("work")(work)
    return "work"


def test_click_needs_an_argument(queues: nbq.QueueManager) -> None:
    """Several of which click needs one are needed here, too."""
    work = clicked(
        click.Argument(["paths"], nargs=-1, required=True),
        click.Option(["--tag"], multiple=True, required=True),
        click.Option(["--size"], nargs=2, type=int, required=True),
    )
    assert all(field.required for field in queues.form_spec(work).fields)
    needed = dict.fromkeys(("paths", "tag", "size"), "is needed")
    assert refused(queues, work, {}) == needed
    assert refused(queues, work, {"paths": "", "tag": [], "size": "\n"}) == needed
    assert set(refused(queues, work, {"paths": "[]", "tag": "[]", "size": "[]"})) == set(needed)
    with queues.worker():
        receipt = queues.dispatch_form(work, {"paths": "a\nb", "tag": "t", "size": "1\n2"})
        assert receipt.result(30) == {"paths": ("a", "b"), "tag": ("t",), "size": (1, 2)}


def test_click_does_not_ask(queues: nbq.QueueManager) -> None:
    """What click would ask for is always said on the command line, also where it is the default."""
    work = clicked(
        click.Option(["--user"], prompt=True, default="me"),
        click.Option(["--hello/--no-hello"], prompt=True, default=True),
        click.Option(["--city"], prompt=True),
        click.Option(["--color"], prompt=True, prompt_required=False, default="red"),
    )
    fields = queues.form_spec(work).fields
    assert [field.name for field in fields if field.required] == ["city"]
    assert refused(queues, work, {"city": ""}) == {"city": "is needed"}
    with queues.worker():
        expected = {"user": "me", "hello": True, "city": "Ulm", "color": "red"}
        for values in ({"city": "Ulm"}, {"user": "me", "hello": True, "city": "Ulm", "color": "red"}):
            assert queues.dispatch_form(work, values).result(30) == expected


def test_click_flag_that_must_be_ticked(queues: nbq.QueueManager) -> None:
    """A switch that click needs or asks for, and that has no word for no, has to be ticked."""
    work = clicked(
        click.Option(["--sure"], is_flag=True, required=True),
        click.Option(["--yes"], is_flag=True, expose_value=False, prompt="Continue?", is_eager=True),
    )
    assert set(refused(queues, work, {})) == {"sure", "yes"}
    assert set(refused(queues, work, {"sure": False, "yes": False})) == {"sure", "yes"}
    with queues.worker():
        assert queues.dispatch_form(work, {"sure": True, "yes": True}).result(30) == {"sure": True}


def test_click_switch_left_out(queues: nbq.QueueManager) -> None:
    """A switch that click needs, and that is left out, says no."""
    work = clicked(click.Option(["--dry/--wet"], required=True))
    with queues.worker():
        assert queues.dispatch_form(work, {}).result(30) == {"dry": False}
