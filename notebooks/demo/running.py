"""Run a notebook from top to bottom in a fresh kernel, and take out of it what is of one machine alone."""

from __future__ import annotations

import os
import platform
import re
import tempfile
from pathlib import Path
from typing import Any

import nbformat

#: What the folder that a notebook ran in is called in its stored outputs, and the machine.
NAMED, MACHINE = "/data", "ada-laptop"
_WIDGET = "application/vnd.jupyter.widget-view+json"


def execute(path: Path, folder: Path, *, timeout: int = 300) -> tuple[Any, Exception | None]:
    """Run a notebook in a fresh kernel of this interpreter.

    Parameters
    ----------
    path : Path
        The notebook; it is only read.
    folder : Path
        An empty folder that it runs in and keeps its files in.
    timeout : int
        Seconds that one cell may take.

    Returns
    -------
    notebook, error or None
        The notebook with its outputs, as far as it came, and what stopped it.
    """
    from jupyter_client.kernelspec import KernelSpecManager
    from jupyter_client.manager import AsyncKernelManager
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    home = Path(tempfile.mkdtemp(prefix="ipython-", dir=folder))
    env = {name: value for name, value in os.environ.items() if name != "NBQUEUE_URL"} | {
        "NBQUEUE_DEMO_DIR": str(folder),
        "IPYTHONDIR": str(home),  # nobody's start-up files
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",
    }
    # Without folders to look in, "python3" is the kernel of this very interpreter.
    specs = KernelSpecManager(kernel_dirs=[])
    kernel = AsyncKernelManager(kernel_name="python3", kernel_spec_manager=specs)
    client = NotebookClient(
        notebook,
        km=kernel,
        timeout=timeout,
        record_timing=False,
        store_widget_state=False,
        coalesce_streams=True,
    )
    said = home / "kernel.log"
    # What processes meet at in here has a short path, and nothing that others have left is there.
    meeting = tempfile.TemporaryDirectory(prefix="nbqueue-", ignore_cleanup_errors=True)
    with meeting as runtime, said.open("w", encoding="utf-8") as log:  # ipykernel greets on stderr
        env["XDG_RUNTIME_DIR"] = runtime
        try:
            client.execute(cleanup_kc=True, cwd=str(folder), env=env, stderr=log)
        except (CellExecutionError, CellTimeoutError) as error:
            return notebook, error
        except DeadKernelError as error:
            error.add_note(said.read_text(encoding="utf-8")[-2_000:])
            return notebook, error
    return notebook, None


def tidy(notebook: Any, folder: Path | None = None) -> Any:
    """Take out of the outputs what is of one run and one machine alone, and what only a running kernel can show."""
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        for output in cell.get("outputs", ()):
            if "text" in output:
                output.text = _neutral(output.text, folder)
            data = output.get("data", {})
            if (
                len(data) > 1
            ):  # a widget's model is gone with the kernel; the rest of what it showed is still there
                data.pop(_WIDGET, None)
            for kind, value in data.items():
                if isinstance(value, str) and not kind.startswith("image/"):
                    data[kind] = _neutral(value, folder)
    language = notebook.metadata.get("language_info", {})
    notebook.metadata.language_info = {
        key: language[key] for key in ("name", "file_extension", "mimetype") if key in language
    }
    return notebook


def _neutral(text: str, folder: Path | None) -> str:
    if folder is not None:
        text = text.replace(str(folder.resolve()), NAMED).replace(str(folder), NAMED)
    if len(Path.home().parts) > 1:
        text = text.replace(str(Path.home()), "~")
    text = re.sub(rf"\bon {re.escape(platform.node())}\b", f"on {MACHINE}", text)
    return re.sub(r'[^"\'\s>]*ipykernel_\d+.(\d+\.py)', r"ipykernel/\1", text)
