"""What a host can run, as the gallery and the listing ask it."""

from collections.abc import Mapping
from typing import Protocol


class CapabilityRules(Protocol):
    """Pure rules over the host's capability (`nvidia-cuda-12`, `amd`, `default`, ...)."""

    def choose(self, capability: str, mapping: Mapping[str, str], /) -> str | None:
        """The name of the concrete backend that a meta backend's `mapping` has for `capability`."""

    def is_compatible(self, capability: str, name: str, uri: str, /) -> bool:
        """Whether a concrete backend of this name and payload runs on the host."""

    def alias_preference(self, capability: str, /) -> tuple[str, ...]:
        """Parts of directory names, most wanted first: which of several backends answers a shared alias."""
