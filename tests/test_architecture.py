"""Imports point down, L0 touches no clock and no disk, and importing nbqueue is light.

Every module of the package is read with ``ast``, none is imported. The tables at the top are the
whole of the rules; a new module fails until its layer is named in ``LAYERS``.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "nbqueue"

#: Layer by layer, the modules below ``nbqueue.``; a module imports from its own layer or a lower one.
LAYERS: dict[int, tuple[str, ...]] = {
    0: (
        "errors",
        "ids",
        "jobs",
        "rows",
        "durations",
        "sizes",
        "retry",
        "patience",
        "lifecycle",
        "payload",
        "payload.*",
    ),
    1: (
        *("secret", "slots", "handlers", "handlers.*", "running", "running.*"),
        *("store", "stores", "stores.*", "executor", "executors", "executors.*", "wire", "wire.*"),
    ),
    2: ("worker", "worker.*", "frames", "frames.*", "shortcuts"),
    3: ("facade", "facade.*"),
    4: ("plots", "magics", "magics.*", "cli", "cli.*", "widgets", "widgets.*", "chaos", "chaos.*"),
}
L0, FACES = LAYERS[0], LAYERS[4]
RUNNING = ("secret", "handlers", "handlers.*", "running", "running.*")
WIRE = ("wire", "wire.*")
CONTRACTS = ("store", "executor")  # protocols and the values they speak in; no implementation

#: Above every layer, may import any: the public names (``""`` is ``nbqueue/__init__.py``), the entry
#: point, the helpers for tests.
ABOVE_ALL = ("", "__main__", "testing", "testing.*")

#: Where the layer alone allows too much: (modules, all they may import, why).
NARROWER: tuple[tuple[tuple[str, ...], tuple[str, ...], str], ...] = (
    (("store",), L0, "the Store protocol knows jobs, and nothing that runs them"),
    (
        ("stores", "stores.*"),
        ("store", "stores", "stores.*", "slots", *WIRE, *L0),
        "a store knows the Store protocol, other stores, what lies beside its file, the wire, and L0",
    ),
    (
        ("executors", "executors.*"),
        (*CONTRACTS, "executors", "executors.*", "running.*", "handlers.handler", "slots", *WIRE, *L0),
        "an executor knows the contracts, what runs one job, the wire, and L0, but no store",
    ),
    (WIRE, (*WIRE, "store", *L0), "the wire carries the contracts' values, and knows nobody who uses it"),
    (
        ("executor",),
        ("store", "running.run", "slots", *L0),
        "the Executor protocol knows jobs and the Store protocol's values",
    ),
    (
        RUNNING,
        (*RUNNING, *CONTRACTS, *L0),
        "what runs one job knows the contracts' values, but no store and no executor",
    ),
    (
        ("chaos", "chaos.*"),
        ("chaos", "chaos.*", "facade.*", "handlers.registry", "running.context", "errors", "jobs"),
        "chaos does what users do, handlers included, and is proof only as long as it knows nothing beneath",
    ),
    (
        FACES,
        ("facade.*", "errors", "jobs", "durations", "sizes", "patience", *FACES),
        "a face calls the facade: it knows managers, receipts and batches, never a store, worker or executor",
    ),
)

#: The late imports that point up: (module, function) -> what its body may import. There are no others.
LATE_IMPORTS: dict[tuple[str, str], tuple[str, ...]] = {
    ("handlers.registry", "_facade"): ("facade.manager",),
    ("running.remote", "_receipt"): ("facade.manager",),
    ("facade.manager", "_face"): FACES,
}

#: L0 gets the time as an argument and does no I/O, so none of these, at the top or late.
IMPURE = frozenset(
    (
        *("asyncio", "multiprocessing", "os", "pathlib", "random", "secrets", "select", "shutil", "signal"),
        *("socket", "sqlite3", "subprocess", "tempfile", "threading", "time"),
        *("duckdb", "numpy", "pandas"),
    )
)
#: Except that the codec takes and gives paths as values.
PURE_ENOUGH = {("payload.reading", "pathlib"), ("payload.writing", "pathlib")}
CLOCK_CALLS = frozenset(("now", "utcnow", "today"))

#: What takes long to import, and the modules that may do so at their top; elsewhere it is imported late.
HEAVY: dict[str, tuple[str, ...]] = {
    "pandas": FACES,
    "numpy": FACES,
    "matplotlib": FACES,
    "ipywidgets": FACES,
    "anywidget": FACES,
    "IPython": FACES,
    "cloudpickle": (),
    "click": FACES,
    "duckdb": (
        "stores.duckdb",
        "stores.ledger",
        "stores.opening",
        "stores.postgres.mirror",
        "stores.trusting",
    ),
    "psycopg": ("stores.postgres", "stores.postgres.*"),
    "boto3": ("stores.sqs", "stores.sqs.*"),
    "botocore": ("stores.sqs", "stores.sqs.*"),
    "dask": (),
    "distributed": (),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Import:
    """One imported name, and where it stands."""

    target: str  #: dotted and absolute, ``nbqueue.jobs`` or ``pandas.api``
    line: int
    function: str = ""  #: the outermost function around it; empty at the top of the module
    for_types: bool = False  #: under ``if TYPE_CHECKING``


@dataclass(frozen=True, slots=True, kw_only=True)
class Module:
    """One module of the package, parsed."""

    name: str  #: below the package, ``stores.duckdb``; ``""`` is the package itself
    path: Path
    tree: ast.Module
    is_package: bool = False

    def at(self, line: int, rule: str) -> str:
        """One line of a failure: file, line, rule."""
        path = self.path.relative_to(ROOT) if self.path.is_relative_to(ROOT) else self.path
        return f"{path}:{line}: {rule}"


def read_modules() -> dict[str, Module]:
    modules = {}
    for path in sorted((ROOT / PACKAGE).rglob("*.py")):
        parts = path.relative_to(ROOT / PACKAGE).with_suffix("").parts
        is_package = parts[-1] == "__init__"
        name = ".".join(parts[:-1] if is_package else parts)
        tree = ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
        modules[name] = Module(name=name, path=path, tree=tree, is_package=is_package)
    return modules


MODULES = read_modules()
each_module = pytest.mark.parametrize("module", MODULES.values(), ids=lambda m: m.name or "__init__")


# ------------------------------------------------------------------------------ reading the imports
def matches(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def is_type_checking(node: ast.AST) -> bool:
    if not isinstance(node, ast.If):
        return False
    test = node.test
    name = test.attr if isinstance(test, ast.Attribute) else getattr(test, "id", "")
    return name == "TYPE_CHECKING"


def targets_of(node: ast.AST, module: Module) -> list[str]:
    """The absolute dotted names that one statement or ``import_module("…")`` call imports."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        base = node.module or ""
        if node.level:
            here = [PACKAGE, *module.name.split(".")] if module.name else [PACKAGE]
            up = node.level - 1 if module.is_package else node.level
            base = ".".join([*here[: len(here) - up], *([node.module] if node.module else [])])
        return [f"{base}.{alias.name}" for alias in node.names]
    if isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
        called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        name = node.args[0].value
        if called in {"import_module", "__import__"} and isinstance(name, str):
            return [name]
    return []


def imports_of(module: Module) -> Iterator[Import]:
    def walk(node: ast.AST, function: str, *, for_types: bool) -> Iterator[Import]:
        for target in targets_of(node, module):
            yield Import(target=target, line=node.lineno, function=function, for_types=for_types)
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            function = function or getattr(node, "name", "<lambda>")
        if is_type_checking(node):
            for child in node.body:
                yield from walk(child, function, for_types=True)
            for child in node.orelse:
                yield from walk(child, function, for_types=for_types)
            return
        for child in ast.iter_child_nodes(node):
            yield from walk(child, function, for_types=for_types)

    yield from walk(module.tree, "", for_types=False)


def inner_target(target: str, known: Iterable[str]) -> str | None:
    """Which module of the package an import reaches: ``""`` for its top, None for a foreign one."""
    if target != PACKAGE and not target.startswith(PACKAGE + "."):
        return None
    name = target.removeprefix(PACKAGE).removeprefix(".")
    while name and name not in known:
        name = name.rpartition(".")[0]
    return name


def layer_of(name: str) -> int | None:
    if matches(name, ABOVE_ALL):
        return max(LAYERS) + 1
    return next((layer for layer, names in LAYERS.items() if matches(name, names)), None)


# ------------------------------------------------------------------------------------------ the rules
def wrong_directions(module: Module, known: Iterable[str]) -> Iterator[str]:
    """Imports inside the package that point up, or sideways where that is not allowed."""
    mine = layer_of(module.name)
    if mine is None or matches(module.name, ABOVE_ALL):
        return
    for found in imports_of(module):
        target = inner_target(found.target, known)
        if target is None or target == module.name:
            continue
        late = LATE_IMPORTS.get((module.name, found.function), ())
        if matches(target, late):
            continue
        name = f"{PACKAGE}.{target}".rstrip(".")
        theirs = layer_of(target)
        if target == "":
            yield module.at(found.line, f"imports {found.target} from the top; import the module that has it")
        elif theirs is not None and theirs > mine:
            yield module.at(found.line, f"imports point down: {module.name} is L{mine}, {name} L{theirs}")
        else:
            for names, allowed, why in NARROWER:
                if matches(module.name, names):
                    if not matches(target, allowed):
                        yield module.at(found.line, f"{module.name} must not import {name}: {why}")
                    break


def impurities(module: Module) -> Iterator[str]:
    """What reads a clock or does I/O in L0."""
    if layer_of(module.name) != 0:
        return
    for found in imports_of(module):
        top = found.target.partition(".")[0]
        if top in IMPURE and not found.for_types and (module.name, top) not in PURE_ENOUGH:
            yield module.at(found.line, f"L0 is pure: no {top} (the time is an argument, I/O is L1's)")
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            owner = node.func.value
            owner_name = owner.attr if isinstance(owner, ast.Attribute) else getattr(owner, "id", "")
            if node.func.attr in CLOCK_CALLS and owner_name in {"datetime", "date", "dt"}:
                yield module.at(node.lineno, f"L0 is pure: no {owner_name}.{node.func.attr}()")


def heavy_tops(module: Module) -> Iterator[str]:
    """What a plain ``import nbqueue`` must not pay for."""
    for found in imports_of(module):
        top = found.target.partition(".")[0]
        if top not in HEAVY or found.function or found.for_types or matches(module.name, HEAVY[top]):
            continue
        where = " or ".join(HEAVY[top]) or "no module"
        yield module.at(found.line, f"{top} is heavy: import it in the function (at the top: {where})")


def cycles(modules: dict[str, Module]) -> Iterator[str]:
    """Modules that need one another to be imported at all."""
    graph = {
        name: {
            target
            for found in imports_of(module)
            if not found.function
            and not found.for_types
            and (target := inner_target(found.target, modules)) not in {None, "", name}
        }
        for name, module in modules.items()
        if name and not matches(name, ABOVE_ALL)
    }
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> Iterator[str]:
        if name in trail:
            yield " -> ".join((*trail[trail.index(name) :], name))
        elif name not in done:
            for target in sorted(graph.get(name, ())):
                yield from visit(target, (*trail, name))
            done.add(name)

    for name in sorted(graph):
        yield from visit(name, ())


def report(problems: Iterable[str]) -> None:
    found = list(dict.fromkeys(problems))
    assert not found, "\n".join(found)


# --------------------------------------------------------------------------------- the package itself
def test_there_is_something_to_check() -> None:
    """The package was found."""
    assert "errors" in MODULES


@each_module
def test_layer_is_named(module: Module) -> None:
    """Every module has a layer."""
    assert layer_of(module.name) is not None, module.at(
        1, f"{PACKAGE}.{module.name} is in no layer: name its layer in test_architecture.py"
    )


@each_module
def test_has_docstring(module: Module) -> None:
    """Every module says in its docstring what it is responsible for."""
    assert ast.get_docstring(module.tree), module.at(1, "a module says what it does: docstring missing")


@each_module
def test_imports_point_down(module: Module) -> None:
    """No module imports one above it, or a neighbour that it must not know."""
    report(wrong_directions(module, MODULES))


@each_module
def test_l0_is_pure(module: Module) -> None:
    """L0 reads no clock, rolls no dice and does no I/O."""
    report(impurities(module))


@each_module
def test_heavy_imports_are_late(module: Module) -> None:
    """pandas, matplotlib and their like are imported where they are used."""
    report(heavy_tops(module))


def test_no_import_cycles() -> None:
    """Within a layer too, imports form no circle."""
    report(f"import cycle: {cycle}" for cycle in cycles(MODULES))


def test_import_is_light() -> None:
    """``import nbqueue`` loads no view, no frame library, no kernel and no driver."""
    heavy = ["IPython", "anywidget", "ipywidgets", "matplotlib", "pandas", "psycopg", "boto3", "distributed"]
    code = f"import sys, {PACKAGE}; print(*[name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [], f"`import {PACKAGE}` also imports {done.stdout.strip()}"


# ------------------------------------------------------------------------------------ the rules' rules
def parsed(name: str, source: str) -> Module:
    return Module(name=name, path=Path(f"{name}.py"), tree=ast.parse(source))


KNOWN = (
    "",
    "errors",
    "jobs",
    "handlers.registry",
    "running.run",
    "store",
    "stores.memory",
    "worker.worker",
    "facade.manager",
    "widgets.panel",
)


@pytest.mark.parametrize(
    ("name", "source", "part"),
    [
        ("jobs", "from nbqueue.store import Store", "jobs is L0, nbqueue.store L1"),
        ("jobs", "def f():\n    import nbqueue.facade.manager", "jobs.py:2: imports point down"),
        ("worker.worker", "from ..facade import manager", "nbqueue.facade.manager L3"),
        ("stores.shared", "from ..worker.worker import Worker", "nbqueue.worker.worker L2"),
        ("stores.shared", "from ..running.run import run_job", "a store knows the Store protocol"),
        ("executors.thread", "from nbqueue.stores.memory import MemoryStore", "an executor knows"),
        ("running.run", "from nbqueue.stores.memory import MemoryStore", "no store and no executor"),
        ("widgets.panel", "import nbqueue.stores.memory", "a face calls the facade"),
        (
            "handlers.registry",
            "def other():\n    from ..facade.manager import QueueManager",
            "imports point down",
        ),
        (
            "handlers.registry",
            "import importlib\nimportlib.import_module('nbqueue.facade.manager')",
            "registry.py:2:",
        ),
        ("worker.worker", "from nbqueue import connect", "from the top"),
        ("jobs", "if TYPE_CHECKING:\n    from .store import Store", "imports point down"),
    ],
)
def test_wrong_direction_is_found(name: str, source: str, part: str) -> None:
    """A planted import in the wrong direction is found, with its line and its rule."""
    (problem,) = wrong_directions(parsed(name, source), KNOWN)
    assert part in problem


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("worker.worker", "from ..store import Store\nfrom nbqueue.jobs import Job"),
        ("stores.shared", "from .memory import MemoryStore\nfrom ..store import Store"),
        ("handlers.registry", "def _facade():\n    from ..facade.manager import QueueManager"),
        ("facade.manager", "def _face(name):\n    from ..widgets import panel"),
        (
            "widgets.panel",
            "from ..facade.manager import QueueManager\nfrom nbqueue.errors import NotSupported",
        ),
        ("testing", "from .worker.worker import Worker\nfrom .stores.memory import MemoryStore"),
    ],
)
def test_right_direction_passes(name: str, source: str) -> None:
    """What the rules allow is allowed."""
    report(wrong_directions(parsed(name, source), KNOWN))


def test_impurity_is_found() -> None:
    """A clock in L0 is found, at the top, late, and called."""
    source = "import time\ndef f():\n    from os import path\n    return datetime.now(UTC)"
    assert [line.split(":")[1] for line in impurities(parsed("jobs", source))] == ["1", "3", "4"]
    assert not list(impurities(parsed("worker.worker", source)))


def test_heavy_top_is_found() -> None:
    """pandas at a module's top is found; late, for types only, or in a face it is not."""
    assert list(heavy_tops(parsed("frames", "try:\n    import pandas as pd\nexcept ImportError: pass")))
    assert not list(heavy_tops(parsed("frames", "def f():\n    import pandas")))
    assert not list(heavy_tops(parsed("frames", "if typing.TYPE_CHECKING:\n    import pandas")))
    assert not list(heavy_tops(parsed("plots", "import pandas")))


def test_cycle_is_found() -> None:
    """Two modules that import each other at their tops are named."""
    both = {"jobs": parsed("jobs", "from . import retry"), "retry": parsed("retry", "from . import jobs")}
    assert list(cycles(both)) == ["jobs -> retry -> jobs"]


def test_unknown_module_has_no_layer() -> None:
    """A module in no table is in no layer."""
    assert layer_of("cron") is None
    assert layer_of("stores.redis") == 1
