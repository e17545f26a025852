"""Serve ``python -m nbqueue``: the command line."""

from __future__ import annotations

from nbqueue.cli.commands import main

if __name__ == "__main__":
    main()
