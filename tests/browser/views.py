"""What the tests do with a panel in a page."""

from __future__ import annotations

from playwright.sync_api import Locator, expect

__all__ = ["PanelView"]


class PanelView:
    """A panel in a page.

    Parameters
    ----------
    element : Locator
        Where it is; ``.nbq-panel`` in whatever front end.
    """

    def __init__(self, element: Locator) -> None:
        self.element = element
        self.header_menu = element.get_by_role("button", name="New job")
        self.link = element.locator("[data-link]")
        self.detail = element.get_by_role("region", name="Job", exact=True)
        self.form = element.get_by_role("region", name="New job")
        self.failures = element.get_by_role("region", name="Failures")
        self.queues = element.get_by_role("region", name="Queues")

    def row(self, job: str) -> Locator:
        """The row of a job."""
        return self.element.locator(f'[role=row][data-job="{job}"]')

    def rows(self, command: str) -> Locator:
        """The rows of a command's jobs."""
        return self.element.locator("[role=row][data-job]").filter(
            has=self.element.page.get_by_text(command, exact=True)
        )

    def press(self, what: str, job: str) -> Locator:
        """Press ``"retry"`` or ``"cancel"`` in a job's row; gives the button."""
        button = self.row(job).locator(f'[data-key="{what}:{job}"]')
        self.row(job).hover()
        button.click()
        return button

    def expect_state(self, job: str, state: str) -> None:
        """Wait until a job is shown in that state."""
        expect(self.row(job)).to_have_attribute("data-state", state)

    def open_form(self, command: str) -> Locator:
        """Open the form of a command from the menu."""
        self.header_menu.click()
        self.element.get_by_role("menuitem", name=command, exact=True).click()
        return self.form
