"""What a worker logs in to the message bus with, as a newer frontend mints it or the operator sets it."""

import base64
import binascii
import json
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Self

from .errors import WorkerError

JWT = "NATS user JWT"
SEED = "NATS user seed"

_PARTS = 3  # header, claims, signature
_SEED = re.compile(r"SU[A-Z2-7]{56}")  # a user's Ed25519 seed in NATS' own base32 form
_CHECKSUM_BYTES = 2


@dataclass(eq=False)
class WrongCredentials(WorkerError):
    """A NATS user JWT or its seed cannot be one; the text never quotes them."""

    what: str
    right: str

    def __str__(self) -> str:
        return f"the {self.what} must be {self.right}"


@dataclass(frozen=True, slots=True)
class BusCredentials:
    """A NATS user: the JWT that says what it may do, and the seed that signs the server's challenge.

    `issued_at` and `expires_at` are what the JWT says of itself; None where it says nothing, so without
    `expires_at` it is good for ever.
    """

    jwt: str = field(repr=False)
    seed: str = field(repr=False)
    issued_at: datetime | None = None
    expires_at: datetime | None = None

    @classmethod
    def parse(cls, jwt: str, seed: str) -> Self:
        """Read a pair; whether the server accepts it, only the server knows.

        Raises:
            WrongCredentials: one of the two cannot be what it should be.
        """
        claims = _claims(jwt)
        _check_seed(seed)
        return cls(jwt, seed, _time(claims, "iat"), _time(claims, "exp"))


def _claims(jwt: str) -> dict[str, object]:
    """The claims of a JWT, unverified: the server verifies them, we only want to know when they end."""
    wrong = WrongCredentials(JWT, "three base64 parts with dots between, the second a JSON object")
    parts = jwt.split(".")
    if len(parts) != _PARTS:
        raise wrong
    try:
        padded = parts[1] + "=" * (-len(parts[1]) % 4)
        claims = json.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
    except (binascii.Error, ValueError, RecursionError):
        raise wrong from None  # the cause quotes the text
    if not isinstance(claims, dict):
        raise wrong
    return claims


def _check_seed(seed: str) -> None:
    if not _SEED.fullmatch(seed):
        raise WrongCredentials(SEED, "58 letters and digits that begin with SU")
    raw = base64.b32decode(seed + "=" * (-len(seed) % 8))
    if binascii.crc_hqx(raw[:-_CHECKSUM_BYTES], 0) != int.from_bytes(raw[-_CHECKSUM_BYTES:], "little"):
        raise WrongCredentials(SEED, "copied whole: its checksum does not fit")


def _time(claims: dict[str, object], name: str) -> datetime | None:
    seconds = claims.get(name)
    if seconds is None or seconds == 0:  # NATS writes no expiry as 0 or leaves it out
        return None
    if isinstance(seconds, int | float) and not isinstance(seconds, bool):
        try:
            return datetime.fromtimestamp(seconds, UTC)
        except (OverflowError, ValueError, OSError):
            pass
    raise WrongCredentials(JWT, f'one whose "{name}" is a time in seconds')
