"""A browser, the servers it looks at, and a fresh notebook for every test; nothing may be fetched from outside."""

from __future__ import annotations

import io
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.browser.server import JupyterServer, MarimoServer
from tests.kernel_lines import check_line, lacking

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page

    from tests.browser.notebook import Notebook
    from tests.browser.traffic import Traffic

APPS = ("lab", "notebook")
CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
OPTIONS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
    # A request to the outside is seen, and gets nowhere.
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
]
IMAGES = Path(__file__).resolve().parent.parent.parent / "docs" / "images"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what is here, and give it time: a page, a server and a kernel are started on a machine that is busy."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.browser)
            item.add_marker(pytest.mark.timeout(300))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Any:
    """Take a picture of a page whose test has failed, while it is there."""
    report = yield
    if report.when == "call" and report.failed and "page" in item.funcargs:
        report.sections.append(("Page", _picture(item.funcargs["page"], item.funcargs["tmp_path"])))
        report.sections.append(("Thrown in the page", "\n".join(item.funcargs["traffic"].errors)))
    return report


def _picture(page: Page, folder: Path) -> str:
    from playwright.sync_api import Error

    try:
        page.screenshot(path=folder / "failed.png", timeout=5_000)
    except Error as error:
        return f"There is no picture of it: {error}"
    return f"See {folder / 'failed.png'}"


# ------------------------------------------------------------------------------------------------ the servers
@pytest.fixture(scope="session")
def chromium() -> str:
    """Where the system's Chromium is."""
    found = next(filter(None, map(shutil.which, CHROMIUM)), None)
    if found is None:
        lacking("there is no Chromium: install it (on Debian and Ubuntu: apt install chromium)")
    return found


@pytest.fixture(scope="session")
def environment(data_dir: Path) -> dict[str, str]:
    """What kernels see: a home for secrets that is the tests' own, and plots inline."""
    return {
        "NBQUEUE_DATA_DIR": str(data_dir),
        "NBQUEUE_URL": "",
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",
    }


@pytest.fixture(scope="session")
def server(
    chromium: str, tmp_path_factory: pytest.TempPathFactory, kernelspecs: Path, environment: dict[str, str]
) -> Iterator[JupyterServer]:
    """One Jupyter server for all the tests of this process; none where no browser would look at it."""
    home = tmp_path_factory.mktemp("jupyter")
    server = JupyterServer(home, kernels=kernelspecs, environment=environment)
    yield server
    server.close()


@pytest.fixture
def marimo(environment: dict[str, str]) -> Iterator[Callable[[Path], MarimoServer]]:
    """Run a marimo notebook as an app."""
    running: list[MarimoServer] = []

    def run(path: Path) -> MarimoServer:
        running.append(MarimoServer(path, environment=environment))
        return running[-1]

    yield run
    for server in running:
        server.close()


# ------------------------------------------------------------------------------------------------ the browser
@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Browser]:
    """The browser.

    It lives for a module and no longer: while Playwright is there, its event loop counts as the running one,
    and no other test in this process could run one.
    """
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=OPTIONS)
        yield browser
        browser.close()


@pytest.fixture
def traffic(browser: Browser) -> Iterator[Traffic]:
    """What the test's pages ask for; what leaves the machine fails the test, and so does an alert or an error."""
    from tests.browser.traffic import Traffic

    context = browser.new_context(
        viewport={"width": 1280, "height": 900}, device_scale_factor=2, service_workers="block"
    )
    context.set_default_timeout(30_000)
    traffic = Traffic(context)
    yield traffic
    context.close()
    assert traffic.outside() == set()
    assert traffic.dialogs == []
    assert traffic.errors == []


@pytest.fixture
def page(traffic: Traffic, tmp_path: Path) -> Page:
    """An empty page; where the test fails, there is a picture of it."""
    from playwright.sync_api import expect

    expect.set_options(timeout=30_000)
    return traffic.context.new_page()


@pytest.fixture
def screenshot() -> Callable[[str, Locator], None]:
    """Keep a picture for the documents, where ``NBQUEUE_SCREENSHOTS`` asks for it."""

    def take(name: str, what: Locator) -> None:
        if not os.environ.get("NBQUEUE_SCREENSHOTS"):
            return
        from PIL import Image

        what.page.mouse.move(0, 0)
        picture = Image.open(io.BytesIO(what.screenshot(animations="disabled")))
        IMAGES.mkdir(exist_ok=True)
        # Flat colours: a palette looks the same, and is a quarter of the size.
        picture.convert("RGB").quantize(256).save(IMAGES / f"{name}.png", optimize=True)

    return take


# ---------------------------------------------------------------------------------------------- the notebooks
@pytest.fixture
def folder(server: JupyterServer, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A folder of the test's own below the server's: its notebook, and the queue beside it.

    The kernels that it started end with the test.
    """
    folder = server.root / re.sub(r"\W+", "-", request.node.name).strip("-")
    folder.mkdir()
    before = {kernel["id"] for kernel in server.kernels()}
    yield folder
    for kernel in server.kernels():
        if kernel["id"] not in before:
            server.shut_down(kernel["id"])


@pytest.fixture
def open_notebook(server: JupyterServer, folder: Path, page: Page) -> Callable[..., Notebook]:
    """Open a new notebook in an application, on a kernel of a line."""
    from tests.browser.notebook import Notebook

    def open_(app: str = "lab", line: str = "ipykernel7", *, theme: str = "light") -> Notebook:
        check_line(line)
        return Notebook(page, server, Notebook.create(folder, line), app).open(theme=theme)

    return open_


@pytest.fixture(params=APPS)
def app(request: pytest.FixtureRequest) -> str:
    """Both applications, one after the other."""
    return str(request.param)


@pytest.fixture
def notebook(open_notebook: Callable[..., Notebook], app: str, kernel_line: str) -> Notebook:
    """A new notebook, in each application on each line."""
    return open_notebook(app, kernel_line)
