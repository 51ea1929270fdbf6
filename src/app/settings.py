"""The settings of a worker: what `resolve_settings` reads from flags and environment."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from enum import StrEnum
from pathlib import Path

from ..domain.addresses import NodeAddresses
from ..domain.galleries import Gallery
from ..domain.masking import MASK, mask_url, mask_url_value
from .option_table import BY_FIELD
from .options import Kind


class Bus(StrEnum):
    """Which message bus carries the frontend's commands."""

    NATS = "nats"
    MEMORY = "memory"


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Settings:
    """Everything a worker is told from outside, checked. Its repr masks secrets.

    Text fields are ``""`` where nothing is set. `nats_url`: one server or several, with commas.
    `grpc_max_port`: the highest port a backend may get, inclusive. `backend_env` None: backends get
    everything but the worker's secrets. `log_dedup_logs` None: only on a terminal.
    """

    register_to: str
    node_name: str
    registration_token: str
    registration_require_auth: bool
    distributed_require_auth: bool
    node_labels: Mapping[str, str]
    max_replicas_per_model: int
    vram_budget: str
    heartbeat_interval_s: float

    addresses: NodeAddresses
    grpc_max_port: int

    models_path: Path
    backends_path: Path
    backends_system_path: Path | None
    state_path: Path

    upload_limit_bytes: int
    staging_keep_s: float
    staging_limit_bytes: int

    backend_galleries: tuple[Gallery, ...]
    galleries: tuple[Gallery, ...]
    prefetch_models: tuple[str, ...]
    require_backend_integrity: bool
    sigstore_trusted_root: Path | None

    nats_url: str
    nats_jwt: str
    nats_user_seed: str
    nats_require_auth: bool
    nats_tls_ca: Path | None
    nats_tls_cert: Path | None
    nats_tls_key: Path | None
    bus: Bus

    storage_url: str
    storage_bucket: str
    storage_region: str
    storage_access_key: str
    storage_secret_key: str
    storage_verify: bool
    storage_cache_limit: str

    download_connections: int
    backend_cache_bytes: int
    backend_size_limit_bytes: int
    disk_floor_bytes: int

    backend_env: tuple[str, ...] | None
    ready_timeout_s: float
    stop_grace_s: float
    keep_backends: bool
    adoption_window_s: float
    backend_log_mib: int

    log_level: str
    log_format: str
    log_dedup_logs: bool | None

    @property
    def requires_registration_auth(self) -> bool:
        """No start without a registration token."""
        return self.registration_require_auth or self.distributed_require_auth

    @property
    def requires_nats_auth(self) -> bool:
        """No connection to NATS without credentials."""
        return self.nats_require_auth or self.distributed_require_auth

    @property
    def grpc_ports(self) -> range:
        """The ports backends may get."""
        return range(self.addresses.base_port, self.grpc_max_port + 1)

    def __repr__(self) -> str:
        shown = (f"{each.name}={_shown(each.name, getattr(self, each.name))}" for each in fields(self))
        return f"Settings({', '.join(shown)})"


def _shown(name: str, value: object) -> str:
    option = BY_FIELD.get(name)
    if option and option.secret:
        return repr(MASK if value else "")
    text = repr(value)
    return mask_url_value(text) if option and option.kind is Kind.URL else mask_url(text)
