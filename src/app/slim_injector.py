"""dependency_injector without the libraries it would load for features nobody uses here.

For configuration providers it imports pydantic and PyYAML, for its wiring web frameworks, where they are
installed: a tenth of a second and 10 MiB in a worker that uses neither. It does without when they are absent.
"""

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

_UNUSED = frozenset({"fastapi", "flask", "pydantic", "pydantic_settings", "starlette", "werkzeug", "yaml"})


class _Absent(MetaPathFinder):
    """Says that certain modules are not installed."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        del path, target
        if fullname in _UNUSED:
            raise ModuleNotFoundError(f"{fullname} is not loaded for dependency_injector", name=fullname)
        return None


_absent = _Absent()
sys.meta_path.insert(0, _absent)
try:
    from dependency_injector import containers, providers
finally:
    sys.meta_path.remove(_absent)

__all__ = ["containers", "providers"]
