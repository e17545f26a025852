"""What concerns this process and this user, whatever the queue: versions, event loop, secret."""

from __future__ import annotations

import os
import stat
import sys
import time
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from nbqueue.errors import NbqueueError
from nbqueue.facade.checks.finding import Finding, fine, note, wrong
from nbqueue.secret import check_secret, secret_file

__all__ = ["host"]

#: Said with their versions, where they are installed.
_SAID = {
    "duckdb": "DuckDB",
    "pandas": "pandas",
    "ipython": "IPython",
    "ipykernel": "ipykernel",
    "ipywidgets": "ipywidgets",
    "anywidget": "anywidget",
}
#: Older ones are known not to do, of what nbqueue does not ask for itself.
_LEAST = {"ipykernel": (6, 29)}


def host(*needed: str) -> Iterator[Finding]:
    """Check this process and this user; ``needed`` are packages that this kind of queue takes besides."""
    yield from _versions(needed)
    yield from _event_loop()
    yield from _secret()


# -- versions


def _versions(needed: tuple[str, ...]) -> Iterator[Finding]:
    said = [f"nbqueue {_version('nbqueue')}", f"Python {sys.version.split()[0]}"]
    titles = _SAID | {name: name for name in needed}
    said += [f"{title} {version}" for name, title in titles.items() if (version := _version(name))]
    old = [*_unmet(), *_known_bad()]
    if old:
        yield wrong("versions", f"{'; '.join(old)}; upgrade with: pip install -U nbqueue")
    else:
        yield fine("versions", ", ".join(said))


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


def _unmet() -> Iterator[str]:
    """What nbqueue asks for and is not here, or in another version."""
    from packaging.requirements import Requirement

    try:
        asked = metadata.requires("nbqueue") or ()
    except metadata.PackageNotFoundError:
        return
    for text in asked:
        requirement = Requirement(text)
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        found = _version(requirement.name)
        if not found:
            yield f"{requirement.name} is not installed, and nbqueue needs it"
        elif not requirement.specifier.contains(found, prereleases=True):
            yield f"{requirement.name} is {found}, and nbqueue needs {requirement.name}{requirement.specifier}"


def _known_bad() -> Iterator[str]:
    from packaging.version import Version

    for name, least in _LEAST.items():
        found = _version(name)
        if found and Version(found).release < least:
            yield f"{name} is {found}, and nbqueue needs {name}>={'.'.join(map(str, least))}"


def _event_loop() -> Iterator[Finding]:
    """``nest_asyncio.apply()`` on the loop of ipykernel 7 loses messages of the front end."""
    asyncio, kernel = sys.modules.get("asyncio"), _version("ipykernel")
    if "ipykernel.kernelapp" not in sys.modules or not kernel or int(kernel.partition(".")[0]) < 7:
        return
    if getattr(asyncio, "_nest_patched", False):
        yield wrong(
            "event loop",
            f"nest_asyncio.apply() was called in this kernel, and on ipykernel {kernel} that loses messages;"
            " take the call out and restart the kernel: nbqueue does not need it",
        )


# -- secret


def _secret() -> Iterator[Finding]:
    path = secret_file()
    try:
        check_secret()
    except FileNotFoundError:
        yield note("secret", f"there is no secret yet; the first job that brings code makes it in {path}")
        return
    except NbqueueError as error:
        yield wrong("secret", str(error))
        return
    if path is None:
        yield fine("secret", "it comes from NBQUEUE_SECRET; everybody with the same one trusts your jobs")
        return
    status = path.stat()
    made = time.strftime("%Y-%m-%d", time.localtime(status.st_mtime))
    mode = f", mode {stat.S_IMODE(status.st_mode):o}" if os.name == "posix" else ""
    if _is_open(path.parent):
        yield wrong(
            "secret",
            f"others may write to {path.parent}, and so put a secret of their own in place of {path};"
            f" run: chmod go-w '{path.parent}'",
        )
        return
    yield fine("secret", f"yours alone, in {path}{mode}, made {made}")


def _is_open(folder: Path) -> bool:
    """Whether others may put a file of theirs in the place of one in it."""
    mode = folder.stat().st_mode
    return os.name == "posix" and bool(mode & 0o022) and not mode & stat.S_ISVTX
