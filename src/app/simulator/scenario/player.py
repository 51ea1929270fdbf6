"""Playing the steps of a scenario, one after the other, and saying what came of each."""

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

import anyio

from ....domain.errors import WorkerError
from .document import TOGETHER, Step
from .expectations import differences
from .verbs import Verbs

STEP_S = 120.0  # the longest a step may take
_AGAIN_S = 0.1
_VARIABLE = re.compile(r"\$\{([^{}]+)\}")  # name.field.0[any text]
_PART = re.compile(r"([^.\[\]]+)|\[([^\]]+)\]")


@dataclass(eq=False)
class StepFailed(WorkerError):
    """A step did not come out as the scenario says."""

    step: Step
    why: str

    def __str__(self) -> str:
        return f"{self.step}: {self.why}"


class Telling(Protocol):
    """Where the steps are told; the list takes remarks."""

    def step(self, what: str) -> AbstractContextManager[list[str]]: ...


@dataclass
class Player:
    """Plays steps with `verbs`; `saved` holds what earlier steps gave, by the names they saved it under."""

    verbs: Verbs
    report: Telling
    saved: dict[str, Any] = field(default_factory=dict)

    async def play(self, steps: Sequence[Step]) -> None:
        """Play `steps` in order.

        Raises:
            StepFailed: one did not come out as it says; those after it were not played.
        """
        for step in steps:
            with self.report.step(str(step)):
                await self._bounded(step)

    async def _bounded(self, step: Step) -> None:
        limit_s = STEP_S + step.within_s
        try:
            with anyio.fail_after(limit_s):
                await self._do(step)
        except TimeoutError as error:
            raise StepFailed(step, f"not done within {limit_s:g} s") from error

    async def _do(self, step: Step) -> None:
        if step.verb == TOGETHER:
            async with anyio.create_task_group() as tasks:
                for each in step.together:
                    tasks.start_soon(self._bounded, each)
            return
        until_s = anyio.current_time() + step.within_s
        while (why := await self._attempt(step)) and anyio.current_time() < until_s:
            await anyio.sleep(_AGAIN_S)
        if why:
            raise StepFailed(step, why)

    async def _attempt(self, step: Step) -> str:
        """Do it once; "" or what is not as it should be."""
        try:
            given = await self.verbs.call(step.verb, self._filled(step.arguments))
        except WorkerError as error:
            if step.fails is not None and self._filled(step.fails) in str(error):
                return ""
            wanted = f"; it should fail with {step.fails!r}" if step.fails is not None else ""
            return f"{error}{wanted}"
        if step.fails is not None:
            return f"gave {given!r}; it should fail with {step.fails!r}"
        if step.expect is not None and (found := list(differences(given, self._filled(step.expect)))):
            return "; ".join(found)
        if step.save:
            self.saved[step.save] = given
        return ""

    def _filled(self, value: Any) -> Any:
        """`value` with every `${name.field}` replaced by what was saved; one alone keeps its type."""
        if isinstance(value, Mapping):
            return {self._filled(key): self._filled(each) for key, each in value.items()}
        if isinstance(value, list):
            return [self._filled(each) for each in value]
        if not isinstance(value, str):
            return value
        whole = _VARIABLE.fullmatch(value)
        if whole:
            return self._saved(whole[1])
        replace: Callable[[re.Match[str]], str] = lambda found: str(self._saved(found[1]))  # noqa: E731
        return _VARIABLE.sub(replace, value)

    def _saved(self, path: str) -> Any:
        value: Any = self.saved
        for part in (plain or bracketed for plain, bracketed in _PART.findall(path)):
            key: Any = int(part) if isinstance(value, list | tuple) and part.isdigit() else part
            try:
                value = value[key]
            except (KeyError, IndexError, TypeError) as error:
                raise WrongVariable(path, sorted(self.saved)) from error
        return value


@dataclass(eq=False)
class WrongVariable(WorkerError):
    """A step names what no step before it has saved."""

    path: str
    known: Sequence[str]

    def __str__(self) -> str:
        return f"${{{self.path}}}: nothing was saved there; saved: {', '.join(self.known) or 'nothing'}"
