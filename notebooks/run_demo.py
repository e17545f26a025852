"""Run the notebooks from top to bottom, each in a fresh kernel, and fail if one stops or a number is off.

``make demo`` runs this. The committed notebooks are only read, unless ``--store`` asks for their outputs to be renewed.
The quickstart's numbers are read back through nbqueue's own public surface from the queue file that it leaves behind.
"""

from __future__ import annotations

import argparse
import base64
import os
import re
import sys
import tempfile
import time
import webbrowser
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import nbformat
from demo.numbers import faults, read, summary
from demo.pages import can_show, write_page
from demo.running import execute, tidy

HERE = Path(__file__).resolve().parent
NOTEBOOKS = sorted(HERE.glob("*.ipynb"))
QUICKSTART = HERE / "01-quickstart.ipynb"
BUILD = HERE.parent / "build" / "demo"
PICTURE = HERE.parent / "docs" / "images" / "quickstart-timeline.png"


def run(path: Path, folder: Path, *, build: Path, store: bool) -> tuple[float, str]:
    """Run one notebook in a folder and write its page.

    Returns
    -------
    seconds, trouble
        How long it took, and in a sentence what stopped it; "" if nothing did.
    """
    began = time.perf_counter()
    notebook, error = execute(path, folder)
    seconds = time.perf_counter() - began
    write_page(tidy(notebook, folder), build, path.stem)
    if error is not None:
        return seconds, _last_line(error)
    if store:
        save(notebook, path)
    return seconds, ""


def save(notebook: Any, path: Path) -> None:
    """Renew the outputs of the committed notebook, and of the quickstart the picture that the documents show."""
    nbformat.write(notebook, path)
    if path != QUICKSTART:
        return
    (cell,) = (cell for cell in notebook.cells if cell.id == "timeline")
    (png,) = (output.data["image/png"] for output in cell.outputs if "image/png" in output.get("data", {}))
    PICTURE.parent.mkdir(parents=True, exist_ok=True)
    PICTURE.write_bytes(base64.b64decode(png))


def main(argv: Sequence[str] | None = None) -> int:
    """Run them; 0 if all came to their end and every number is right."""
    parser = argparse.ArgumentParser(prog="make demo", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help='the beginning of a name, e.g. "02"; else all'
    )
    parser.add_argument(
        "--no-open", action="store_true", help="do not open the quickstart's page in a browser"
    )
    parser.add_argument("--store", action="store_true", help="renew the outputs of the committed notebooks")
    parser.add_argument("--build", type=Path, default=BUILD, metavar="DIR", help="where the pages go")
    parser.add_argument(
        "--keep", type=Path, metavar="DIR", help="keep what the notebooks leave behind, in here"
    )
    args = parser.parse_args(argv)
    paths = [path for path in NOTEBOOKS if not args.names or path.name.startswith(tuple(args.names))]
    if not paths:
        parser.error(f"no notebook is called so; there are {', '.join(path.stem for path in NOTEBOOKS)}")

    taken = [args.keep / path.stem for path in paths if args.keep and (args.keep / path.stem).exists()]
    if taken:
        parser.error(f"{_shown(taken[0])} is there already; a notebook begins in an empty folder")

    what = f"{len(paths)} notebooks, each" if len(paths) > 1 else paths[0].name
    print(f"Running {what} in a fresh kernel; pages go to {_shown(args.build)}", flush=True)
    stopped, said = [], ""
    with ExitStack() as stack:
        for path in paths:
            folder = _folder(stack, args.keep, path.stem)
            seconds, trouble = run(path, folder, build=args.build, store=args.store)
            off = []
            if not trouble and path == QUICKSTART:
                result = read(folder)
                off = faults(result)
                said = "" if off else summary(result, seconds)
            if trouble:
                stopped.append(f"{path.stem} stopped: {trouble}")
            stopped += [f"{path.stem} is off: {fault}." for fault in off]
            end = "stopped" if trouble else "off" if off else "ran to its end"
            print(f"  {path.stem:<28}{seconds:5.1f} s   {end}", flush=True)
    page = args.build / f"{paths[0].stem}.html"
    if stopped:
        print("\n" + "\n".join(stopped) + f"\nThe pages show where: {_shown(args.build)}", file=sys.stderr)
        return 1
    print(
        f"\n{said}\n\nEvery number is right. The page: {_shown(page)}" if said else "\nAll ran to their end."
    )
    if not args.no_open and can_show():
        webbrowser.open(page.as_uri())
    return 0


def _folder(stack: ExitStack, keep: Path | None, name: str) -> Path:
    if keep is None:
        made = tempfile.TemporaryDirectory(prefix="nbqueue-demo-", ignore_cleanup_errors=True)
        return Path(stack.enter_context(made))
    (keep / name).mkdir(parents=True)
    return (keep / name).resolve()


def _shown(path: Path) -> str:
    return os.path.relpath(path)


def _last_line(error: Exception) -> str:
    text = re.sub(r"\x1b\[[0-9;]*m", "", str(error)).strip()
    return text.splitlines()[-1] if text else type(error).__name__


if __name__ == "__main__":
    raise SystemExit(main())
