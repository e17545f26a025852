"""The panel: the whole queue, live."""
