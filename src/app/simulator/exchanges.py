"""The record of what a simulated frontend said over the bus and what came back."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Exchange:
    """One message; `reply` is None for a publish and where none came, then `failure` says why."""

    subject: str
    request: bytes
    reply: bytes | None = None
    failure: str = ""

    def __str__(self) -> str:
        """One line of a transcript."""
        said = f"{self.subject} {self.request.decode(errors='replace')}"
        if self.reply is not None:
            return f"{said} -> {self.reply.decode(errors='replace')}"
        return f"{said} !! {self.failure}" if self.failure else said
