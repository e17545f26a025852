"""The state of a panel: a patch brings whoever has the old state to the new one."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from nbqueue.widgets.panel.state import State
from tests.widgets.front import patched

IDS = st.sampled_from("abcdef")
STEPS = st.one_of(
    st.tuples(st.just("set"), st.sampled_from(["queues", "jobs.total", "notice"]), st.integers(0, 3)),
    st.tuples(st.just("rows"), st.dictionaries(IDS, st.integers(0, 3))),
    st.tuples(st.just("order"), st.lists(IDS, unique=True)),
    st.tuples(
        st.just("detail"), st.none() | st.dictionaries(st.sampled_from(["id", "why"]), st.integers(0, 3))
    ),
    st.tuples(st.just("more"), st.dictionaries(st.sampled_from(["why", "logs"]), st.integers(0, 3))),
    st.tuples(st.just("take")),
)


def play(state: State, step: tuple[Any, ...]) -> None:
    match step:
        case ("set", section, value):
            state.set(section, value)
        case ("rows", rows):
            state.set_rows({job_id: {"id": job_id, "attempt": n} for job_id, n in rows.items()})
        case ("order", order):
            state.set_rows({job_id: {"id": job_id, "attempt": 0} for job_id in order})
            state.set_order(order)
        case ("detail", value):
            state.set("detail", value)
        case ("more", values) if state.get("detail") is not None:
            state.set_detail(**values)


@given(st.lists(STEPS, max_size=20))
def test_patch_brings_the_old_state_to_the_new(steps: list[tuple[Any, ...]]) -> None:
    """Whatever was set, in whatever order: the patches of it, applied one by one, give the snapshot."""
    state = State(queues=0, notice=None)
    seen = state.snapshot()
    for now, step in enumerate([*steps, ("take",)]):
        play(state, step)
        if step == ("take",) and (patch := state.take(now=now)) is not None:
            seen = patched(seen, patch)
            assert seen == state.snapshot()
    assert state.take(now=99) is None


def test_nothing_new_is_no_patch() -> None:
    """Setting what is there already sends nothing."""
    state = State(queues=[1])
    state.set("queues", [2])
    state.set("queues", [1])
    state.set_rows({})
    state.set_order([])
    assert state.take(now=1) is None


def test_untaken_is_not_in_the_snapshot() -> None:
    """A snapshot has the version of what was sent, and nothing that was not."""
    state = State(queues=[1])
    state.set("queues", [2])
    assert (state.snapshot()["v"], state.snapshot()["queues"]) == (0, [1])


def test_snapshot_stays_as_it_was() -> None:
    """Whoever has a snapshot keeps it, whatever comes."""
    state = State()
    state.set_rows({"a": {"id": "a"}})
    state.set_order(["a"])
    state.take(now=1)
    kept = state.snapshot()
    state.set_rows({"b": {"id": "b"}})
    state.set_order(["b"])
    state.take(now=2)
    assert kept["jobs"] == {"order": ["a"], "rows": {"a": {"id": "a"}}}
