"""The verbs that scenarios and the prompt share: methods by their names, their arguments checked."""

import inspect
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from ....domain.errors import WorkerError

_MARK = "__is_verb__"
Method = TypeVar("Method", bound=Callable[..., Awaitable[object]])


@dataclass(eq=False)
class WrongCall(WorkerError):
    """A verb is unknown, or not to be called like this."""

    verb: str
    problem: str

    def __str__(self) -> str:
        return f"{self.verb}: {self.problem}"


def verb(method: Method) -> Method:
    """Make a method of a group a verb; its arguments are keywords, its docstring's first line the help."""
    setattr(method, _MARK, True)
    return method


class Verbs:
    """The verbs of several groups."""

    def __init__(self, *groups: object) -> None:
        self._methods: dict[str, Callable[..., Awaitable[object]]] = {}
        for group in groups:
            for name, method in inspect.getmembers(group, inspect.iscoroutinefunction):
                if getattr(method, _MARK, False):
                    self._methods[name.rstrip("_")] = method

    def usage(self) -> list[tuple[str, str]]:
        """Each verb with its arguments, and what it does."""
        return [
            (" ".join((name, *_arguments(method))), (inspect.getdoc(method) or "").partition("\n")[0])
            for name, method in sorted(self._methods.items())
        ]

    def positional(self, name: str, words: list[str]) -> dict[str, str]:
        """Arguments by name for the `words` of a prompt, in the order of the verb's parameters."""
        names = list(inspect.signature(self._method(name)).parameters)
        if len(words) > len(names):
            raise WrongCall(name, f"takes {', '.join(names) or 'no arguments'}")
        return dict(zip(names, words, strict=False))

    async def call(self, name: str, arguments: Mapping[str, Any]) -> object:
        """What the verb gives.

        Raises:
            WrongCall: it is unknown, or lacks an argument, or knows none of that name.
            WorkerError: what went wrong.
        """
        method = self._method(name)
        parameters = inspect.signature(method).parameters
        if unknown := [key for key in arguments if key not in parameters]:
            raise WrongCall(name, f"takes no {', '.join(unknown)}; it takes {', '.join(_arguments(method))}")
        required = {key for key, each in parameters.items() if each.default is inspect.Parameter.empty}
        if missing := sorted(required - set(arguments)):
            raise WrongCall(name, f"{', '.join(missing)} must be given")
        return await method(**arguments)

    def _method(self, name: str) -> Callable[..., Awaitable[object]]:
        if name not in self._methods:
            raise WrongCall(name, f"unknown; there are {', '.join(sorted(self._methods))}")
        return self._methods[name]


def _arguments(method: Callable[..., Awaitable[object]]) -> list[str]:
    """`NAME` for what must be given, `[NAME]` for the rest."""
    return [
        each.name.upper() if each.default is inspect.Parameter.empty else f"[{each.name}=]"
        for each in inspect.signature(method).parameters.values()
    ]
