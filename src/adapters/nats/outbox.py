"""What waits to be sent while there is no connection."""

from collections import deque
from dataclasses import dataclass, field

LIMIT_BYTES = 8 * 1024 * 1024  # nats.go's default for what may wait for a reconnect


@dataclass(frozen=True, slots=True)
class Outgoing:
    subject: str
    payload: bytes
    reply_to: str = ""

    @property
    def size_bytes(self) -> int:
        return len(self.subject) + len(self.payload) + len(self.reply_to)


@dataclass
class Outbox:
    """Messages in the order they were published, 8 MiB of them at most."""

    _messages: deque[Outgoing] = field(default_factory=deque)
    _size_bytes: int = 0

    def __len__(self) -> int:
        return len(self._messages)

    def put(self, message: Outgoing) -> bool:
        """Append `message`; False if there is no room for it."""
        if self._size_bytes + message.size_bytes > LIMIT_BYTES:
            return False
        self._messages.append(message)
        self._size_bytes += message.size_bytes
        return True

    def first(self) -> Outgoing:
        """The oldest message; it stays until `drop_first`, so a failed attempt to send loses nothing."""
        return self._messages[0]

    def drop_first(self) -> None:
        self._size_bytes -= self._messages.popleft().size_bytes

    def clear(self) -> None:
        self._messages.clear()
        self._size_bytes = 0
