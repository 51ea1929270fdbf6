"""What the parts of a worker take from its settings."""

import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import anyio

from ..domain.backend_environment import backend_environment as environment_of_backends
from ..domain.bus_credentials import BusCredentials
from ..domain.node_report import NodeProfile
from ..domain.validate_paths import FileRoots
from .settings import Settings


def gallery_copies(root: Path) -> Path | None:
    return root.parent / "cache/gallery" if root.is_absolute() else None


def parts_with_worries(*parts: Any) -> list[Any]:
    """Those that there are: a worker without an object store has none to worry about."""
    return [part for part in parts if part is not None]


def profile(settings: Settings) -> NodeProfile:
    return NodeProfile(
        name=settings.node_name,
        address=str(settings.addresses.grpc),
        http_address=str(settings.addresses.http),
        token=settings.registration_token,
        labels=settings.node_labels,
        max_replicas_per_model=settings.max_replicas_per_model,
        vram_budget=settings.vram_budget,
        models_path=settings.models_path,
    )


def fixed_login(settings: Settings) -> BusCredentials | None:
    if not settings.nats_jwt:
        return None
    return BusCredentials.parse(settings.nats_jwt, settings.nats_user_seed)


def registration_attempts(settings: Settings) -> int:
    """Upstream's: longer where the NATS credentials come with the registration."""
    return 10 if settings.nats_jwt else 100


def spread(pause_s: float) -> float:
    """A pause up to a tenth longer by chance."""
    return pause_s * random.uniform(1, 1.1)  # noqa: S311 - no secret


def roots(settings: Settings) -> FileRoots:
    base = settings.models_path.parent
    return FileRoots(models=settings.models_path, data=base / "data", staging=base / "staging")


def upload_limit(settings: Settings) -> int | None:
    return settings.upload_limit_bytes or None


def cached_models(settings: Settings) -> Path:
    return settings.models_path.parent / "cache/models"


def output_directory(settings: Settings) -> Path:
    return settings.state_path / "logs"


def journal_directory(settings: Settings) -> Path:
    return settings.state_path / "processes"


def identity_file(settings: Settings) -> Path:
    return settings.state_path / "identity.json"


def needs_minted_login(settings: Settings) -> bool:
    return settings.requires_nats_auth and not settings.nats_jwt


def dismissal(dismissed: anyio.Event, stop_requested: anyio.Event) -> Callable[[], None]:
    def dismiss() -> None:
        dismissed.set()
        stop_requested.set()

    return dismiss


def backend_environment(settings: Settings, environment: Mapping[str, str]) -> dict[str, str]:
    return environment_of_backends(
        environment, token=settings.registration_token, allowed=settings.backend_env
    )
