"""Syntax trees of our own modules, for tests that compare code with pages."""

import ast
import gc
from pathlib import Path


def parsed(path: Path) -> ast.Module:
    """The syntax tree of a module.

    Up to CPython 3.11.7 and 3.12.1 a collection in the middle of `ast.parse` whose finalizers let others
    parse makes the outer one fail: "AST constructor recursion depth mismatch" (python/cpython#106905).
    """
    collects = gc.isenabled()
    gc.disable()
    try:
        return ast.parse(path.read_text(encoding="utf-8"))
    finally:
        if collects:
            gc.enable()
