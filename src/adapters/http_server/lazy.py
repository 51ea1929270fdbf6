"""An ASGI application that is built when its first request comes."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import anyio
from anyio import to_thread


@dataclass
class LazyApplication:
    """Calls `make` in a worker thread at the first request, and what it made from then on.

    A worker that is asked nothing over HTTP never loads the framework behind it.
    """

    make: Callable[[], Any]
    _made: Any = field(default=None, init=False)
    _making: anyio.Lock = field(default_factory=anyio.Lock, init=False)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async with self._making:
            if self._made is None:
                self._made = await to_thread.run_sync(self.make)
        await self._made(scope, receive, send)
