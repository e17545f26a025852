"""Whatever the views are joined with, DuckDB answers, and the answer is what the rows themselves say."""

from __future__ import annotations

import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.frames.conftest import Book
from tests.frames.test_shortcuts import plain, told

OWNERS = pd.DataFrame({"command": ["mail", "load"], "owner": ["ann", "bob"]})
NUMBERS = [1, 2, 3, 4, 5]


@settings(max_examples=4)
@given(seed=st.integers(0, 10**6), steps=st.integers(0, 30))
# With these an outer join of the view meets rows with and without a match below another join.
@example(seed=1, steps=18)
@example(seed=14, steps=12)
@example(seed=19, steps=12)
@example(seed=39, steps=18)
def test_joins_with_a_short_history(seed: int, steps: int) -> None:
    """Jobs picked and joined by names, numbers and ids are those of all jobs that have them."""
    with told(seed, steps) as story:
        jobs = story.query("SELECT * FROM jobs ORDER BY number")
        waiting = jobs[jobs["state"].isin(["pending", "running"])]
        picked = story.query(
            "SELECT * FROM jobs WHERE number IN (SELECT unnest(?::BIGINT[])) AND state IN ('pending', 'running')"
            " ORDER BY number",
            (NUMBERS,),
        )
        assert plain(picked) == plain(waiting[waiting["number"].isin(NUMBERS)])
        ids = [str(job_id) for job_id in jobs["job_id"]]
        assert plain(
            story.query(
                "SELECT * FROM jobs WHERE job_id IN (SELECT unnest(?::UUID[])) ORDER BY number", (ids,)
            )
        ) == plain(jobs)
        owned = story.query(
            "SELECT jobs.* FROM jobs JOIN owners USING (command) WHERE state IN ('pending', 'running')"
            " ORDER BY number",
            (),
            {"owners": OWNERS},
        )
        assert plain(owned) == plain(waiting[waiting["command"].isin(OWNERS["command"])])
        pairs = story.query(
            "SELECT a.fence, j.error FROM attempts a JOIN jobs j USING (number) WHERE j.state <> 'failed'"
            " AND a.worker IN (SELECT unnest(['w1', 'w2'])) ORDER BY a.fence"
        )
        attempts = story.query("SELECT fence, number FROM attempts ORDER BY fence")
        errors = jobs[jobs["state"] != "failed"].set_index("number")["error"]
        kept = attempts[attempts["number"].isin(errors.index)]
        assert plain(pairs) == plain(
            pd.DataFrame({"fence": kept["fence"].array, "error": errors.loc[kept["number"]].array})
        )


@pytest.mark.parametrize("view", ["jobs", "attempts", "events"])
@pytest.mark.parametrize("condition", ["true", "command = 'none'", "command = 'mail' AND queue = 'q0'"])
def test_what_keeps_joins_whole_stays_in_the_plan(book: Book, view: str, condition: str) -> None:
    """The union below each view's outer joins is there whatever is asked for, or nothing at all is read."""
    book.claim(book.job(0, "mail", "q0"), 1)
    plan = book.query(f"EXPLAIN SELECT worker FROM {view} WHERE {condition}").iloc[0, 1].upper()
    assert "UNION" in plan or "LEDGER" not in plan
