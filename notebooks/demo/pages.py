"""A page of an executed notebook that needs nothing but itself."""

from __future__ import annotations

import os
import re
import sys
import webbrowser
from pathlib import Path
from typing import Any

import nbformat

_STYLE = """
body.jp-Notebook { max-width: 60rem; margin: 0 auto; padding: 2rem 1.5rem 5rem; }
.jp-RenderedHTMLCommon { line-height: 1.55; }
.jp-MarkdownOutput.jp-RenderedHTMLCommon { padding-left: 0; }
.jp-RenderedHTMLCommon h2 { margin-top: 2.2rem; }
.jp-RenderedHTMLCommon table { font-variant-numeric: tabular-nums; }
.jp-OutputArea-output { overflow-x: auto; }
"""


def write_page(notebook: Any, build: Path, name: str) -> Path:
    """Write the executed notebook, and the page of it; gives the page."""
    from nbconvert import HTMLExporter

    build.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, build / f"{name}.ipynb")
    exporter = HTMLExporter(exclude_input_prompt=True, exclude_output_prompt=True)
    html, _ = exporter.from_notebook_node(notebook, {"metadata": {"name": name}})
    # No formula, diagram or widget is on the page, so nothing is fetched for them.
    html = re.sub(r"<script\b.*?</script>", "", html, flags=re.DOTALL | re.IGNORECASE)
    for cell in notebook.cells:
        for _ in (output for output in cell.get("outputs", ()) if "image/png" in output.get("data", ())):
            html = html.replace("No description has been provided for this image", f"Plot: {cell.id}", 1)
    page = build / f"{name}.html"
    page.write_text(html.replace("</head>", f"<style>{_STYLE}</style>\n</head>", 1), encoding="utf-8")
    return page


def can_show() -> bool:
    """Whether somebody sits there with a browser that would not take over the terminal."""
    if not sys.stdout.isatty() or os.environ.get("CI"):
        return False
    if sys.platform.startswith("linux") and not (
        os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    ):
        return False
    try:
        return type(webbrowser.get()) is not webbrowser.GenericBrowser
    except webbrowser.Error:
        return False
