"""Find a missing ``if __name__ == "__main__"`` before worker processes import the script again and again."""

from __future__ import annotations

import ast
import inspect
import sys

from daskconv.errors import InputError


def check_main_guard() -> None:
    """Raise InputError where the script's own top level, outside of the guard, started this call."""
    frame = inspect.currentframe()
    while frame is not None:
        if frame.f_code.co_name == "<module>" and frame.f_globals.get("__name__") == "__main__":
            break
        frame = frame.f_back
    path = getattr(sys.modules.get("__main__"), "__file__", None)
    if frame is None or path is None or frame.f_code.co_filename != path:
        return
    try:
        with open(path, encoding="utf-8") as file:
            tree = ast.parse(file.read())
    except (OSError, SyntaxError, UnicodeDecodeError):
        return
    if not _guarded(tree, frame.f_lineno):
        raise InputError(
            f"{path} starts worker processes at line {frame.f_lineno}, outside of a main guard: put the script's "
            'code into a function and call it under if __name__ == "__main__":.'
        )


def _guarded(tree: ast.Module, line: int) -> bool:
    return any(
        isinstance(node, ast.If)
        and "__name__" in {part.id for part in ast.walk(node.test) if isinstance(part, ast.Name)}
        and node.lineno <= line <= (node.end_lineno or line)
        for node in tree.body
    )
