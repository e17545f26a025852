"""A kernel as a notebook has one: cells are run in it, and it is interrupted, restarted and killed."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jupyter_client

__all__ = ["Kernel"]

PATIENCE = 60.0


class Kernel:
    """A kernel that belongs to one notebook, through all its restarts."""

    def __init__(self, folder: Path, line: str):
        self.folder = folder
        self.manager = jupyter_client.KernelManager(kernel_name=line)
        # One that would have to be killed is found out after ten seconds; two and a half are few on a busy machine.
        self.manager.shutdown_wait_time = 20.0
        notebook = {"JPY_SESSION_NAME": str(folder / "reports.ipynb")}
        self.manager.start_kernel(env={**os.environ, **notebook}, cwd=str(folder))
        self._connect()

    def _connect(self) -> None:
        self.client = self.manager.client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=PATIENCE)

    def run(self, code: str, *, on_print: Callable[[str], None] = lambda _: None) -> str:
        """Run a cell; gives what it printed, and fails with its traceback."""
        said: list[str] = []

        def hook(message: dict[str, Any]) -> None:
            if message["msg_type"] == "stream":
                said.append(message["content"]["text"])
                on_print(said[-1])

        reply = self.client.execute_interactive(code, timeout=PATIENCE, output_hook=hook)
        content = reply["content"]
        assert content["status"] == "ok", "\n".join(content.get("traceback", [])) + "".join(said)
        return "".join(said)

    def ask(self, code: str) -> Any:
        """Run a cell that prints JSON last."""
        return json.loads(self.run(code).splitlines()[-1])

    def kill(self) -> None:
        """Kill it as the system does, and start another for the same notebook."""
        pid = self.manager.provisioner.pid
        self.client.stop_channels()
        os.kill(pid, signal.SIGKILL)
        self.manager.restart_kernel(now=True)
        self._connect()

    def restart(self) -> list[str]:
        """Restart it as the button does; gives what it took besides asking."""
        forced: list[str] = []
        provisioner = self.manager.provisioner
        for verb in ("terminate", "kill"):
            real = getattr(provisioner, verb)

            def note(*args: Any, verb: str = verb, real: Any = real, **kwargs: Any) -> Any:
                forced.append(verb)
                return real(*args, **kwargs)

            setattr(provisioner, verb, note)
        self.client.stop_channels()
        self.manager.restart_kernel(now=False)
        self._connect()
        return forced

    def interrupt(self) -> None:
        """Interrupt it as the button does."""
        self.manager.interrupt_kernel()

    def close(self) -> None:
        """Shut it down."""
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)
