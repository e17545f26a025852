"""The servers behind the pages: one Jupyter server for JupyterLab, Notebook 7 and Voila; one marimo a notebook."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

__all__ = ["JupyterServer", "MarimoServer"]

PATIENCE = 60.0
#: The fronts and how their pages are found below the server.
PAGES = {
    "lab": "lab/workspaces/{workspace}/tree/{path}",
    "notebook": "notebooks/{path}",
    "voila": "voila/render/{path}",
}
NO_NEWS = {"disabledExtensions": {"@jupyterlab/apputils-extension:announcements": True}}
EXPOSED = {app: {"expose_app_in_browser": True} for app in ("LabApp", "JupyterNotebookApp")}


class _Server:
    """A server as a process of its own, with nothing of the user's around it.

    Parameters
    ----------
    arguments : Sequence of str
        What comes after ``python -m``.
    home : Path
        Where it lives; made when it is not there.
    ready : str
        The path that answers when it is up.
    environment : dict of str to str
        What it sees besides.
    """

    def __init__(
        self, arguments: Sequence[str], home: Path, *, port: int, ready: str, environment: dict[str, str]
    ) -> None:
        home.mkdir(parents=True, exist_ok=True)
        self.url = f"http://127.0.0.1:{port}/"
        self.log = home / "server.log"
        kept = {name: value for name, value in os.environ.items() if not name.startswith("JUPYTER")}
        own = {"HOME": str(home), "IPYTHONDIR": str(home / "ipython"), **environment}
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", *arguments],
                cwd=home,
                env=kept | own,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._wait_for(ready)

    def _wait_for(self, path: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                break
            try:
                with urllib.request.urlopen(self.url + path, timeout=5):  # noqa: S310 -- our own server
                    return
            except (urllib.error.URLError, ConnectionError, TimeoutError):
                time.sleep(0.05)  # there is no event: nothing tells that a port is being served
        self.close()
        raise RuntimeError(f"The server did not come up:\n{self.log.read_text()[-4000:]}")

    def close(self) -> None:
        """Stop it and what it has started."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                os.killpg(self._process.pid, signal.SIGKILL)
                self._process.wait()


class JupyterServer(_Server):
    """JupyterLab, Notebook 7 and Voila on one port, with a token of its own and no news from outside.

    Parameters
    ----------
    home : Path
        Where its notebooks, settings and log go.
    kernels : Path
        Where its kernelspecs are.
    environment : dict of str to str
        What its kernels see besides.
    """

    def __init__(self, home: Path, *, kernels: Path, environment: dict[str, str]) -> None:
        self.root = home / "notebooks"
        self.root.mkdir(parents=True)
        self.token = home.name
        config = home / "config"
        (config / "labconfig").mkdir(parents=True)
        (config / "labconfig" / "page_config.json").write_text(json.dumps(NO_NEWS))
        (config / "jupyter_server_config.json").write_text(json.dumps(EXPOSED))
        port = _free_port()
        arguments = [
            *("jupyter_server", "--no-browser", "--allow-root", "--ip=127.0.0.1", f"--port={port}"),
            *("--ServerApp.port_retries=0", f"--IdentityProvider.token={self.token}"),
            f"--ServerApp.root_dir={self.root}",
        ]
        folders = {
            "JUPYTER_CONFIG_DIR": str(config),
            "JUPYTER_DATA_DIR": str(home / "data"),
            "JUPYTER_RUNTIME_DIR": str(home / "runtime"),
            "JUPYTER_PATH": str(kernels),
        }
        ready = f"api/status?token={self.token}"
        super().__init__(arguments, home, port=port, ready=ready, environment=environment | folders)

    def page(self, app: str, path: Path) -> str:
        """Where a notebook is shown by ``"lab"``, ``"notebook"`` or ``"voila"``."""
        relative = path.relative_to(self.root).as_posix()
        place = PAGES[app].format(workspace=path.parent.name, path=relative)
        return f"{self.url}{place}?token={self.token}"

    def kernels(self) -> list[dict[str, Any]]:
        """The kernels that run."""
        return list(json.loads(self._ask("api/kernels")))

    def shut_down(self, kernel: str) -> None:
        """End a kernel."""
        self._ask(f"api/kernels/{kernel}", method="DELETE")

    def _ask(self, path: str, *, method: str = "GET") -> bytes:
        headers = {"Authorization": f"token {self.token}"}
        request = urllib.request.Request(self.url + path, method=method, headers=headers)  # noqa: S310 -- our own
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:  # noqa: S310
            return bytes(answer.read())


class MarimoServer(_Server):
    """One marimo notebook, run as an app.

    Parameters
    ----------
    path : Path
        The notebook, a Python file.
    environment : dict of str to str
        What its kernel sees besides.
    """

    def __init__(self, path: Path, *, environment: dict[str, str]) -> None:
        port = _free_port()
        arguments = [
            *("marimo", "--quiet", "run", str(path), "--headless", "--no-token", "--no-check"),
            *("--host=127.0.0.1", f"--port={port}"),
        ]
        super().__init__(arguments, path.parent, port=port, ready="health", environment=environment)


def _free_port() -> int:
    with socket.socket() as asked:
        asked.bind(("127.0.0.1", 0))
        return int(asked.getsockname()[1])
