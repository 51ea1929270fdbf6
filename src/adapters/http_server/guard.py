"""Who is let in: those who have the registration token."""

import hmac
from dataclasses import dataclass

from starlette.types import Scope


@dataclass(frozen=True)
class Guard:
    """Admits requests that carry the registration token; every request when the token is empty."""

    token: str

    def admits(self, scope: Scope) -> bool:
        """Whether the first `Authorization` header is exactly `Bearer <token>`, compared as bytes.

        Source: LocalAI core/services/nodes/file_transfer_server.go.
        """
        expected = self.token.encode("utf-8", "surrogateescape")
        if not expected:
            return True
        sent = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
        scheme, secret = sent[:7], sent[7:]
        return scheme == b"Bearer " and hmac.compare_digest(secret, expected)


OPEN = Guard("")
