"""What a front end does with the messages of a panel, in a few lines."""

from __future__ import annotations

from typing import Any


def patched(state: dict[str, Any], patch: dict[str, Any]) -> dict[str, Any]:
    """Apply a patch as the protocol says."""
    assert patch["base"] == state["v"]
    new = {**state, "jobs": {**state["jobs"]}, "v": patch["v"]}
    for section, value in patch["set"].items():
        if section.startswith("jobs."):
            new["jobs"][section.removeprefix("jobs.")] = value
        else:
            new[section] = value
    gone = patch.get("gone", [])
    rows = {**state["jobs"]["rows"], **patch.get("rows", {})}
    new["jobs"]["rows"] = {job_id: row for job_id, row in rows.items() if job_id not in gone}
    new["jobs"]["order"] = patch.get("order", state["jobs"]["order"])
    if "detail" in patch:
        new["detail"] = {**(new["detail"] or {}), **patch["detail"]}
    return new
