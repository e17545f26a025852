"""What stands for the kernel and its jobs where the panel's front end is tested by itself."""

from __future__ import annotations

from typing import Any

from playwright.sync_api import Page

__all__ = ["HOST", "NOW", "NO_FILTER", "Kernel", "detail_of", "field", "row", "state_of"]

NOW = 1_790_000_000_000
NO_FILTER = {"states": [], "queue": None, "command": None, "text": "", "fingerprint": None, "batch": None}
#: A model as a host gives it: `initialize` and every view get proxies of their own, none the model itself.
HOST = """
async ({esm, state}) => {
    const listeners = {};
    const traits = {snapshot: state, height: 360};
    const model = {
        sent: [], answers: true,
        get: (name) => structuredClone(traits[name]),
        on: (event, listener) => (listeners[event] ??= new Set()).add(listener),
        off: (event, listener) => listeners[event]?.delete(listener),
        fire: (event, ...args) => listeners[event]?.forEach((listener) => listener(...args)),
        hear: (message) => model.fire("msg:custom", structuredClone(message)),
        send: (message) => {
            model.sent.push(structuredClone(message));
            if (!model.answers) return;
            model.hear({type: "received", id: message.id});
            if (message.do === "hello") model.hear({type: "snapshot", state: traits.snapshot});
            else model.hear({type: "done", id: message.id, ok: true, text: ""});
        },
    };
    const proxy = () => ({get: model.get, on: model.on, off: model.off, send: model.send});
    const {default: factory} = await import(URL.createObjectURL(new Blob([esm], {type: "text/javascript"})));
    const widget = await factory();
    await widget.initialize({model: proxy()});
    window.model = model;
    window.show = async () => {
        const el = document.body.appendChild(document.createElement("div"));
        const end = await widget.render({model: proxy(), el});
        window.end = () => { end(); el.remove(); };
    };
    await window.show();
}
"""


class Kernel:
    """Stands for the kernel: what the front end sent, and what it hears."""

    def __init__(self, page: Page, state: dict[str, Any]) -> None:
        self._page = page
        self.state = state

    def sent(self, what: str) -> list[dict[str, Any]]:
        """What was sent of one kind, in order."""
        sent: list[dict[str, Any]] = self._page.evaluate("model.sent")
        return [message for message in sent if message["do"] == what]

    def tell(self, message: dict[str, Any]) -> None:
        self._page.evaluate("(message) => model.hear(message)", message)

    def patch(self, **parts: Any) -> None:
        """Tell what is new, as the next version."""
        self.state["v"] += 1
        self.tell({"type": "patch", "base": self.state["v"] - 1, "v": self.state["v"], **parts})

    def fall_silent(self) -> None:
        """Be busy: answer nothing from now on."""
        self._page.evaluate("() => { model.answers = false; }")


def row(number: int, **more: Any) -> dict[str, Any]:
    """A job of the table; number 0 is the newest."""
    plain = {
        "id": f"job-{number}",
        "command": "clean",
        "queue": "default",
        "state": "failed",
        "status": "failed",
        "attempt": 1,
        "max_attempts": 3,
        "priority": 0,
        "dispatched": NOW - 1000 * number,
        "scheduled": None,
        "started": NOW - 1000 * number,
        "finished": NOW,
        "wait": 0.5,
        "run": 1.5,
        "error": "KeyError: 'a'",
        "fingerprint": "KeyError at clean.py:88 in clean",
        "progress": None,
        "worker": "w",
        "arguments": "1",
        "batch": None,
        "stale": False,
    }
    return plain | more


def state_of(*rows: dict[str, Any], **more: Any) -> dict[str, Any]:
    queue = {"name": "default", "paused": False, "pending": 1, "waiting": 0, "running": 0, "succeeded": 2}
    jobs = {"filter": NO_FILTER, "page": 0, "size": 1000, "total": len(rows)}
    order = {"order": [one["id"] for one in rows], "rows": {one["id"]: one for one in rows}}
    series = {name: [1, 2, 0] for name in ("succeeded", "failed", "pending", "running")}
    plain = {
        "v": 7,
        "now": NOW,
        "name": "/data/jobs.duckdb",
        "kernel": "ipykernel 7",
        "workers": [],
        "failures": [],
        "queues": [{**queue, "failed": 3, "cancelled": 0, "wait": 1.0}],
        "series": {"step": 10, "start": NOW - 30_000, **series},
        "commands": [{"name": "clean"}],
        "jobs": {**jobs, **order},
        "detail": None,
        "form": None,
        "notice": None,
    }
    return plain | more


def detail_of(job: dict[str, Any], **more: Any) -> dict[str, Any]:
    attempt = {"attempt": 1, "outcome": "failed", "started": NOW, "finished": NOW, "run": 1.5, "worker": "w"}
    plain = {
        "why": "",
        "arguments_text": "path='a.csv'",
        "metadata": {},
        "logs": [],
        "logs_truncated": False,
        "attempts": [{**attempt, "error": job["error"], "cause": "error", "traceback": "Traceback"}],
        "outputs": [],
    }
    return job | plain | more


def field(name: str, kind: str, **more: Any) -> dict[str, Any]:
    plain = {
        "name": name,
        "label": name,
        "kind": kind,
        "required": False,
        "default": None,
        "help": "",
        "choices": None,
    }
    return plain | {"nullable": False, "free": False, "least": None, "most": None} | more
