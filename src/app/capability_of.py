"""The capability of this node, with what the operator says of it."""

from collections.abc import Mapping
from pathlib import Path

from ..domain import capability as capabilities
from ..domain.ports.hardware import Hardware

_FORCED_CAPABILITY = "LOCALAI_FORCE_META_BACKEND_CAPABILITY"
_CAPABILITY_FILE = "LOCALAI_FORCE_META_BACKEND_CAPABILITY_RUN_FILE"
_DEFAULT_CAPABILITY_FILE = "/run/localai/capability"


class CapabilityOf:
    """The capability of a reading, with the operator's overrides; the override file is read once."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._forced = environment.get(_FORCED_CAPABILITY)
        path = Path(environment.get(_CAPABILITY_FILE) or _DEFAULT_CAPABILITY_FILE)
        self._said = path.read_text(errors="replace") if path.is_file() else None

    def __call__(self, hardware: Hardware) -> str:
        return self.trace(hardware).capability

    def trace(self, hardware: Hardware) -> capabilities.Detection:
        """The capability, and how it comes about."""
        return capabilities.trace(hardware, self._forced, self._said)
