"""The login by JWT, as nats-py asks for it at every connect."""

import base64
from collections.abc import Callable
from dataclasses import dataclass

from ...domain.bus_credentials import BusCredentials


@dataclass(frozen=True, slots=True)
class Signer:
    """Shows who we are and proves it: the JWT, and the base64 signature of the server's challenge."""

    jwt: Callable[[], bytearray]
    signature: Callable[[str], bytes]


def signer(credentials: BusCredentials) -> Signer:
    """Who logs in as the user of `credentials`; nkeys is loaded here, by those who use it."""
    import nkeys

    pair = nkeys.from_seed(bytearray(credentials.seed.encode()))
    return Signer(
        jwt=lambda: bytearray(credentials.jwt.encode()),
        signature=lambda nonce: base64.b64encode(pair.sign(nonce.encode())),
    )
