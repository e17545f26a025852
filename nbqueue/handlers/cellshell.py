"""A shell for one cell that runs in the background: like the notebook's, with names of its own; knows no job.

It is a shallow copy of the notebook's shell, whose magics are bound to it, so that ``%time x = 1`` assigns where the
cell does. The notebook's own shell is left as it is.
"""

from __future__ import annotations

import atexit
import contextlib
import copy
import functools
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from types import CellType, FunctionType, MethodType, ModuleType
from typing import Any

from nbqueue.errors import NotSupported
from nbqueue.executor import StopReason
from nbqueue.handlers.cellcode import compile_cell
from nbqueue.running.context import JobStopped

__all__ = ["names_for", "shell_for"]

#: A cell that waits for a command can be stopped so often.
_TICK = 0.1
#: Those that cells wait for, and those of them that were ended with the kernel.
_commands: set[subprocess.Popen[str]] = set()
_killed: set[subprocess.Popen[str]] = set()
#: Whose they are: what is forked off has a copy of both.
_pid = os.getpid()


@contextlib.contextmanager
def names_for(shell: Any, names: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Give a copy of these names for a cell to run on, in which ``get_ipython()`` is a shell of its own."""
    module = ModuleType("__main__")
    own = vars(module)
    own.update(names)
    made: list[Any] = []

    def get_ipython() -> Any:
        """Give the shell of this cell."""
        if not made:
            made.append(shell_for(shell, module))
        return made[0]

    own["get_ipython"] = get_ipython
    for name in ("exit", "quit"):
        # IPython's end the notebook's kernel.
        if type(own.get(name)).__module__.startswith(("IPython.", "ipykernel.")):
            own[name] = sys.exit
    try:
        yield own
    finally:
        # Names and shell hold each other: what a cell leaves behind would stay until garbage is collected.
        for one in made:
            one.user_module, one.user_ns = shell.user_module, shell.user_ns
            _let_go(one)
        made.clear()
        own["get_ipython"] = shell.get_ipython


def shell_for(shell: Any, module: ModuleType) -> Any:
    """Give a shell like this one that works on the names of a module."""
    own = copy.copy(shell)
    own.user_module = module
    own.user_ns = vars(module)
    # Magics that are loaded when first used enter themselves.
    own.configurables = list(shell.configurables)
    own.magics_manager = _magics_for(shell, own)
    own.run_cell = MethodType(_run_cell, own)
    own._inspect = MethodType(_inspect, own)  # noqa: SLF001 - what `?` calls; without it a pager opens
    # A terminal's would write past whatever takes the job's output.
    own.system = own.system_piped
    own.getoutput = MethodType(_getoutput, own)
    return own


def _magics_for(shell: Any, own: Any) -> Any:
    """Give the shell's magics, bound to its copy."""
    from IPython.core.alias import Alias
    from IPython.core.magic import MagicAlias, Magics

    twins: dict[int, Any] = {}

    def twin(owner: Any) -> Any:
        if id(owner) not in twins:
            twins[id(owner)] = made = copy.copy(owner)
            made.shell = own
            if hasattr(made, "bg_processes"):
                # It ends them when it goes, and those in this list are the notebook's.
                made.bg_processes = []
        return twins[id(owner)]

    def bound(magic: Any) -> Any:
        if isinstance(magic, Alias | MagicAlias):
            return twin(magic)
        # What is neither is left: to look at one that is not loaded yet would load it.
        if isinstance(magic, MethodType) and getattr(magic.__self__, "shell", None) is shell:
            return MethodType(magic.__func__, twin(magic.__self__))
        if isinstance(magic, FunctionType):
            return _enclosing(
                magic, lambda held: twin(held) if isinstance(held, Magics) and held.shell is shell else held
            )
        return magic

    manager = copy.copy(shell.magics_manager)
    tables = {
        kind: {name: bound(magic) for name, magic in dict(table).items()}
        for kind, table in shell.magics_manager.magics.items()
    }
    tables["cell"]["capture"] = _refuse_capture
    manager.shell, manager.magics, manager.registry = own, tables, copy.copy(manager.registry)
    if hasattr(manager, "_loaded_lazy"):
        # What this one loads is in its own tables, and whatever it finds in them not loaded is for it to load.
        manager._loaded_lazy = set()  # noqa: SLF001 - IPython 9.18 has no other way
        manager.registry._manager = manager  # noqa: SLF001 - as above
    return manager


def _enclosing(function: FunctionType, instead: Callable[[Any], Any]) -> FunctionType:
    """Give a function such as ``%%bash``, whose magics are one of the values around it, with others in their place."""
    try:
        held = [cell.cell_contents for cell in function.__closure__ or ()]
    except ValueError:
        # A name around it means nothing yet.
        return function
    given = [instead(one) for one in held]
    if all(new is old for new, old in zip(given, held, strict=True)):
        return function
    made = FunctionType(
        function.__code__,
        function.__globals__,
        function.__name__,
        function.__defaults__,
        tuple(CellType(one) for one in given),
    )
    functools.update_wrapper(made, function)
    made.__kwdefaults__ = function.__kwdefaults__
    return made


def _let_go(own: Any) -> None:
    """Free the magics that were loaded for this cell alone, some of which would stay until the kernel ends."""
    for magics in own.magics_manager.registry.values():
        if hasattr(magics, "kill_bg_processes") and magics.shell is own:
            atexit.unregister(magics.kill_bg_processes)
            if not magics.bg_processes and hasattr(magics, "stop_event_loop"):
                # Else whoever collects garbage would wait for its thread.
                magics.stop_event_loop()


def _run_cell(shell: Any, raw_cell: str, *_args: object, **_kwargs: object) -> Any:
    """Run more of a cell, as some magics do; what goes wrong is raised, for it is the job that fails."""
    from IPython.core.interactiveshell import ExecutionResult

    ran: Any = ExecutionResult(None)  # type: ignore[no-untyped-call]
    ran.result = compile_cell(shell, "", raw_cell, shell.execution_count).run(shell.user_ns)
    return ran


def _inspect(shell: Any, _how: str, name: str, _namespaces: object = None, **words: Any) -> None:
    """Print what ``name?`` would show: a pager would open below whatever cell is run next."""
    try:
        text = shell.object_inspect_text(name, detail_level=words.get("detail_level", 0))
    except KeyError:
        text = f"Object `{name}` not found."
    sys.stdout.write(f"{text}\n")


def _getoutput(shell: Any, cmd: str, split: bool = True, depth: int = 0) -> Any:  # noqa: FBT001, FBT002 - IPython's
    """Give what a command prints; IPython's own would end with the cell in front, and could not be stopped."""
    from IPython.utils.text import LSString, SList

    if cmd.rstrip().endswith("&"):
        raise OSError("Background processes not supported.")
    text, code = _output_of(shell.var_expand(cmd, depth=depth + 1))
    if getattr(shell, "system_raise_on_error", False):
        shell.user_ns["_exit_code"] = code
        if code:
            raise subprocess.CalledProcessError(code, cmd, text)
    return SList(text.splitlines()) if split else LSString(text)


def _output_of(command: str) -> tuple[str, int]:
    process = subprocess.Popen(  # noqa: S602 - the user wrote it behind a "!"
        command,
        shell=True,
        executable=os.environ.get("SHELL") if os.name == "posix" else None,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
        # An interrupt is sent to the kernel's whole group.
        start_new_session=True,
    )
    _commands.add(process)
    with process:
        try:
            while True:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    text, _ = process.communicate(timeout=_TICK)
                    if process in _killed:
                        # What it printed is not all that it would have.
                        raise JobStopped(StopReason.SHUTDOWN)
                    return text, process.returncode
        except BaseException:
            _kill(process)
            raise
        finally:
            _commands.discard(process)


def _kill(process: subprocess.Popen[str]) -> None:
    if os.name != "posix":
        process.kill()
        return
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


@atexit.register
def _kill_all() -> None:
    """End the commands of cells with the kernel: they are not in its group, with which others end."""
    if os.getpid() != _pid:
        return
    _killed.update(_commands)
    for process in list(_killed):
        _kill(process)


def _refuse_capture(_line: str, _cell: str) -> None:
    raise NotSupported(
        "%%capture takes what every cell prints, so a job cannot use it; what a job prints and displays is kept anyway"
    )
