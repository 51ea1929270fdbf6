"""An event loop whose clock jumps to the next timer instead of waiting.

Tests of domain services use it through `VIRTUAL_TIME`, a value for the `anyio_backend` fixture:

    @pytest.fixture
    def anyio_backend() -> AnyioBackend:
        return VIRTUAL_TIME

Worker threads and real sockets have no place in it: the loop would jump past them.
"""

import asyncio
import selectors
from collections.abc import Mapping
from typing import Any

AnyioBackend = tuple[str, dict[str, Any]]


class _JumpingSelector(selectors.BaseSelector):
    """Adds the wait to `now_s` instead of waiting."""

    def __init__(self) -> None:
        self._real = selectors.DefaultSelector()
        self.now_s = 0.0

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._real.register(fileobj, events, data)

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._real.unregister(fileobj)

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = self._real.select(0)
        if ready:
            return ready
        if timeout is None:
            raise RuntimeError("every task waits and no timer is set: the test would hang for ever")
        self.now_s += max(timeout, 0.0)
        return []

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return self._real.get_map()

    def close(self) -> None:
        self._real.close()


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """`time()` starts at 0 and moves only when every task waits for it."""

    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.now_s


VIRTUAL_TIME: AnyioBackend = ("asyncio", {"loop_factory": VirtualTimeLoop})
