"""What live views ask: text that people look for is found as they see it."""

from __future__ import annotations

import pytest

import nbqueue as nbq
from nbqueue.facade.watching.filtering import JobFilter
from nbqueue.facade.watching.following import Following


@pytest.mark.parametrize("text", ["c\\d", 'say "hi"', "Zoë", "100%", "a_b"])
def test_text_is_found_in_arguments(queues: nbq.QueueManager, text: str) -> None:
    """Arguments and metadata are JSON in the file, and looked through as if they were not."""

    @nbq.job
    def work(what: str) -> None: ...

    work.dispatch(text)
    work.options(metadata={"note": text}).dispatch("other")
    work.dispatch("acd axb")
    assert len(Following(queues).matching(JobFilter(text=text.upper()))) == 2
