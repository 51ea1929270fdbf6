"""A backend that exists in memory: it answers like a LocalAI backend and embeds by hashing words."""

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache

from ...domain.ports.backend_client import ModelToLoad

_DIMENSIONS = 256
_TRIGRAM = 3


@dataclass(kw_only=True, eq=False)
class FakeBackend:
    """Answers Health, Free, LoadModel and Embedding.

    Settable faults: `health` is what it answers instead of OK, `hangs` are the calls that never return
    (`health`, `free`, `load_model`, `embed`), `has_free` False makes Free UNIMPLEMENTED.
    """

    health: str = "OK"
    hangs: frozenset[str] = frozenset()
    has_free: bool = True
    refuses_load: str = ""
    token: str = ""
    model: ModelToLoad | None = None
    freed: int = 0

    def started(self, environment: Mapping[str, str]) -> "FakeBackend":
        """A fresh process of this backend: no model, the token from its environment."""
        return replace(
            self, token=environment.get("LOCALAI_GRPC_AUTH_TOKEN", self.token), model=None, freed=0
        )

    def embed(self, text: str) -> tuple[float, ...]:
        """A unit vector from hashed character trigrams: texts that share word parts come out alike."""
        return _embedded(text)


@lru_cache(maxsize=1024)
def _embedded(text: str) -> tuple[float, ...]:
    vector = [0.0] * _DIMENSIONS
    padded = f"  {text.lower()} "
    for start in range(len(padded) - _TRIGRAM + 1):
        digest = hashlib.blake2b(padded[start : start + _TRIGRAM].encode(), digest_size=2).digest()
        vector[int.from_bytes(digest) % _DIMENSIONS] += 1.0
    norm = math.sqrt(sum(value * value for value in vector)) or 1.0
    return tuple(value / norm for value in vector)
