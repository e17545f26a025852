"""Libraries are changed when they are imported, never imported for it, and left as they were."""

from __future__ import annotations

import importlib
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from nbqueue.running import grafts

NAME = "nbqueue_test_library"


def shout(module: ModuleType) -> None:
    grafts.replace(module, "say", lambda original: lambda: original().upper())
    grafts.replace(module, "missing", pytest.fail)


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A library that nobody has imported."""
    (tmp_path / f"{NAME}.py").write_text("def say():\n    return 'hello'\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(grafts, "_wanted", {NAME: shout})
    grafts.uninstall()
    yield NAME
    grafts.uninstall()
    sys.modules.pop(NAME, None)


def test_a_library_changes_as_it_is_imported(library: str) -> None:
    """It is not imported for it; once somebody does it is changed, and says by which loader it came."""
    grafts.install()
    assert library not in sys.modules
    module = importlib.import_module(library)
    assert module.say() == "HELLO"
    assert module.__spec__ is not None
    assert type(module.__spec__.loader).__name__ == "SourceFileLoader"
    assert module.__loader__ is module.__spec__.loader
    grafts.uninstall()
    assert module.say() == "hello"


def test_a_library_that_is_here_changes_at_once(library: str) -> None:
    """What was imported before is changed, once however often it is asked for."""
    module = importlib.import_module(library)
    assert module.say() == "hello"
    grafts.install()
    grafts.install()
    assert module.say() == "HELLO"
    grafts.uninstall()
    assert module.say() == "hello"
    assert not any(type(finder).__module__ == grafts.__name__ for finder in sys.meta_path)


def test_a_library_that_another_thread_is_importing_is_awaited(
    library: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is half imported when the first job begins is changed as soon as it is whole."""
    gate = SimpleNamespace(reached=threading.Event(), go=threading.Event())
    monkeypatch.setitem(sys.modules, "nbqueue_test_gate", gate)  # type: ignore[arg-type] # all it is asked for
    text = "import nbqueue_test_gate as gate\ngate.reached.set()\ngate.go.wait(20)\n"
    (tmp_path / f"{library}.py").write_text(f"{text}def say():\n    return 'hello'\n")
    user = threading.Thread(target=importlib.import_module, args=(library,))
    job = threading.Thread(target=grafts.install)
    user.start()
    assert gate.reached.wait(20)
    job.start()
    gate.go.set()
    for thread in (user, job):
        thread.join(20)
        assert not thread.is_alive()
    assert importlib.import_module(library).say() == "HELLO"


def test_what_somebody_else_replaced_stays(library: str) -> None:
    """Undoing does not undo what came later."""
    module = importlib.import_module(library)
    grafts.install()
    theirs = module.say = lambda: "theirs"
    grafts.uninstall()
    assert module.say is theirs


def test_a_library_that_cannot_be_changed_is_imported_still(
    library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A version that nobody here has seen works without what is added to it."""

    def fails(module: ModuleType) -> None:
        raise AttributeError("no such class any more")

    monkeypatch.setitem(grafts._wanted, NAME, fails)
    grafts.install()
    assert importlib.import_module(library).say() == "hello"
