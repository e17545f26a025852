"""Everything that a page asks for, and what it should not have."""

from __future__ import annotations

from urllib.parse import urlsplit

from playwright.sync_api import BrowserContext, Dialog, Error, Page, Request

__all__ = ["Traffic"]

#: What a page holds itself.
INSIDE = {"about", "blob", "data"}


class Traffic:
    """Notes what the pages of a browser context ask for, and what they throw and ask.

    Parameters
    ----------
    context : BrowserContext
        Whose pages.
    """

    def __init__(self, context: BrowserContext) -> None:
        self.context = context
        self.asked: list[str] = []
        self.errors: list[str] = []
        self.dialogs: list[str] = []
        self._allowed: tuple[str, ...] = ()
        context.on("request", lambda request: self.asked.append(request.url))
        context.on("requestfailed", self._failed)
        context.on("page", self._watch)

    def _failed(self, request: Request) -> None:
        # A page's own policy forbade it: now and then that is told as a request first, which none is.
        if request.failure == "csp":
            self.asked.remove(request.url)

    def _watch(self, page: Page) -> None:
        page.on("websocket", lambda socket: self.asked.append(socket.url))
        page.on("pageerror", self._note)
        page.on("dialog", self._dismiss)

    def _note(self, error: Error) -> None:
        # The applications have errors of their own; widgets are modules that are nowhere but in the page.
        if "blob:" in (error.stack or ""):
            self.errors.append(f"{error.message}\n{error.stack}")

    def _dismiss(self, dialog: Dialog) -> None:
        self.dialogs.append(dialog.message)
        dialog.dismiss()

    def allow(self, *addresses: str) -> None:
        """Let pages ask for what begins with that; it gets nowhere all the same."""
        self._allowed += addresses

    def outside(self) -> set[str]:
        """What was asked of another machine, and was not allowed."""
        return {url for url in self.asked if _is_outside(url) and not url.startswith(self._allowed)}


def _is_outside(url: str) -> bool:
    parts = urlsplit(url)
    return parts.scheme not in INSIDE and parts.hostname != "127.0.0.1"
