"""Serve ``python -m nbqueue``: the command line."""

from __future__ import annotations

from nbqueue.cli import main

if __name__ == "__main__":
    main()
