"""Driving a simulated frontend by hand: one verb a line, its arguments as words or `name=value`."""

import json
import shlex
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import yaml

from ....domain.errors import WorkerError
from .verbs import Verbs, WrongCall

HELP = "help"
QUIT = ("quit", "exit")


@dataclass
class Prompt:
    """Reads lines and does what they say; `write` shows what came of it."""

    verbs: Verbs
    write: Callable[[str], None]
    failed: int = field(default=0, init=False)

    async def obey(self, lines: AsyncIterator[str]) -> None:
        """Until the lines end, or one says `quit`. A line that fails is told and the next one is read."""
        async for line in lines:
            if not await self.line(line):
                return

    async def line(self, line: str) -> bool:
        """Do one line; False for `quit`."""
        try:
            words = shlex.split(line, comments=True)
            if not words:
                return True
            if words[0] in QUIT:
                return False
            if words[0] == HELP:
                self._help()
                return True
            given = await self.verbs.call(words[0], self._arguments(words[0], words[1:]))
        except (WorkerError, ValueError, TypeError) as error:
            self.failed += 1
            self.write(f"! {error}")
        else:
            self.write(json.dumps(given, indent=2, default=str) if given not in ({}, None) else "ok")
        return True

    def _arguments(self, verb: str, words: list[str]) -> dict[str, Any]:
        """Words without a name come first, in the order of the verb's arguments; values are YAML."""
        named = [word for word in words if "=" in word and word.partition("=")[0].isidentifier()]
        plain = [word for word in words if word not in named]
        pairs = {**self.verbs.positional(verb, plain), **dict(word.split("=", 1) for word in named)}
        return {name: _value(verb, text) for name, text in pairs.items()}

    def _help(self) -> None:
        for usage, what in self.verbs.usage():
            self.write(f"{usage}\n    {what}")
        self.write("help\nquit")


def _value(verb: str, text: str) -> Any:
    try:
        return yaml.safe_load(text) if text[:1] in {"{", "[", "'", '"'} or _is_plain(text) else text
    except yaml.YAMLError as error:
        raise WrongCall(verb, f"{text!r} is no value: {' '.join(str(error).split())}") from error


def _is_plain(text: str) -> bool:
    """A number or a truth value: everything else stays the text it is."""
    return text in {"true", "false", "null"} or text.lstrip("-").replace(".", "", 1).isdigit()
