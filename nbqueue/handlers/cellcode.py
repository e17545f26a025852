"""The code of one cell: IPython's syntax to Python, compiled, and run on names; knows no job.

Everything of IPython's is asked of the shell that is given, as it would do it for a cell of its own.
"""

from __future__ import annotations
import __future__

import ast
import functools
import inspect
import itertools
import operator
from collections.abc import Awaitable
from dataclasses import dataclass
from types import CodeType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio

    from nbqueue.running.context import Context

__all__ = ["CellCode", "compile_cell"]

#: An awaiting cell looks so often whether it was told to stop.
_TICK = 0.1
#: What ``from __future__ import ...`` in one cell means for those after it.
_FUTURE = functools.reduce(
    operator.or_, (getattr(__future__, name).compiler_flag for name in __future__.all_feature_names)
)


@dataclass(frozen=True, slots=True)
class CellCode:
    """What a cell does, compiled."""

    #: All of it but an expression at its end.
    body: CodeType
    #: The expression at its end, None where it ends otherwise.
    last: CodeType | None
    #: Whether the value of that expression is displayed: it does not end in a semicolon.
    shows: bool

    @property
    def awaits(self) -> bool:
        """Whether there is an ``await`` at its top level."""
        return any(code is not None and _awaits(code) for code in (self.body, self.last))

    def run(self, names: dict[str, Any], context: Context | None = None) -> Any:
        """Run it on these names, display the value of its last expression as Out[] would, and give that.

        Parameters
        ----------
        names : dict
            What it reads and assigns.
        context : Context, optional
            Of the job that it is, which may be told to stop while the cell awaits.
        """
        value = self._run_awaiting(names, context) if self.awaits else self._run(names)
        if self.shows and value is not None:
            from IPython.display import display

            display(value)  # type: ignore[no-untyped-call]
        return value

    def _run(self, names: dict[str, Any]) -> Any:
        exec(self.body, names)  # noqa: S102 - it is what the user has written, and its source was signed
        return None if self.last is None else eval(self.last, names)  # noqa: S307 - as above

    def _run_awaiting(self, names: dict[str, Any], context: Context | None) -> Any:
        import asyncio

        # A loop of its own, in this thread: what blocks in a cell blocks no other job, and can be stopped.
        with asyncio.Runner() as runner:
            task = runner.run(_attended(self._steps(names), context))
        if task.cancelled() and context is not None:
            context.raise_if_stopped()
        return task.result()

    async def _steps(self, names: dict[str, Any]) -> Any:
        value = eval(self.body, names)  # noqa: S307 - as above
        if _awaits(self.body):
            await value
        if self.last is None:
            return None
        value = eval(self.last, names)  # noqa: S307 - as above
        return await value if _awaits(self.last) else value


async def _attended(work: Awaitable[Any], context: Context | None) -> asyncio.Future[Any]:
    """Wait until it is done, and cancel it once the job is told to stop; gives the task, however it ended."""
    import asyncio

    task = asyncio.ensure_future(work)
    told = False
    while not (await asyncio.wait({task}, timeout=_TICK))[0]:
        if context is not None and context.should_stop() and not told:
            told = True
            task.cancel()
    return task


def _awaits(code: CodeType) -> bool:
    return bool(code.co_flags & inspect.CO_COROUTINE)


def compile_cell(shell: Any, head: str, source: str, number: int) -> CellCode:
    """Compile a cell, so that tracebacks point into it as ``Cell In[number], line k``.

    Parameters
    ----------
    shell : InteractiveShell
        Whose syntax it is written in.
    head : str
        The line above it, which is no Python; lines are counted from it.
    source : str
        The cell below that line.
    number : int
        The number in ``In[number]``.

    Raises
    ------
    SyntaxError
        Which names the cell and the line.
    """
    blank = sum(1 for _ in itertools.takewhile(lambda line: not line.strip(), source.splitlines()))
    # The transformation drops blank lines at the top, and tracebacks count them.
    code = f"# {head}\n" + "\n" * blank + shell.transform_cell(source)
    # In a kernel a file's name is made of the text alone, and the same cell may be run under many numbers.
    file = shell.compile.cache(code, number, f"# In[{number}]\n{code}")
    flags = shell.compile.flags & _FUTURE | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    tree = compile(code, file, "exec", flags | ast.PyCF_ONLY_AST, dont_inherit=True)
    tree = shell.transform_ast(tree)
    last = None
    if tree.body and isinstance(tree.body[-1], ast.Expr):
        expression = ast.Expression(tree.body.pop().value)
        last = compile(expression, file, "eval", flags, dont_inherit=True)
    body = compile(tree, file, "exec", flags, dont_inherit=True)
    return CellCode(body, last, shows=not shell.displayhook.semicolon_at_end_of_expression(code))
