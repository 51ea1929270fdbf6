"""From flags and environment to `Settings`."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from .option_values import OptionReader, OptionValue, SettingsError
from .options import Kind
from .setting_rules import (
    check_credentials,
    check_storage,
    read_addresses,
    read_backend_log_mib,
    read_bucket,
    read_cache_limit,
    read_heartbeat_s,
    read_labels,
    read_log_level,
    read_max_port,
    read_max_replicas,
    read_nats_url,
    read_node_name,
    read_region,
    read_register_to,
    read_state_path,
    read_storage_url,
    read_vram_budget,
)
from .settings import Bus, Settings


@dataclass(frozen=True, slots=True)
class ResolvedSettings:
    """Settings with the text and source of every option, in table order, and lines for the log."""

    settings: Settings
    values: tuple[OptionValue, ...]
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SettingsSurvey:
    """Every option as it stands, whatever is wrong with it; `settings` only where `errors` is empty."""

    settings: Settings | None
    values: tuple[OptionValue, ...]
    warnings: tuple[str, ...]
    errors: tuple[SettingsError, ...]

    def require(self) -> ResolvedSettings:
        """The settings.

        Raises:
            SettingsError: the first value that cannot be used.
        """
        if self.settings is None:
            raise self.errors[0]
        return ResolvedSettings(self.settings, self.values, self.warnings)


def resolve_settings(
    flags: Mapping[str, str | None],
    environment: Mapping[str, str],
    *,
    cwd: Path,
    home: Path,
    hostname: str,
    pid: int,
) -> ResolvedSettings:
    """Settings from `flags` (by field name; None: not given), else `environment`, else the defaults.

    Reads nothing else: whether the named files exist, `require_files` tells.

    Raises:
        SettingsError: the first value that cannot be used.
    """
    return survey_settings(flags, environment, cwd=cwd, home=home, hostname=hostname, pid=pid).require()


def survey_settings(
    flags: Mapping[str, str | None],
    environment: Mapping[str, str],
    *,
    cwd: Path,
    home: Path,
    hostname: str,
    pid: int,
) -> SettingsSurvey:
    """As `resolve_settings`, but with every wrong value reported beside all that can be told."""
    read = OptionReader(cwd, home)
    read.choose(flags, environment)
    settings = _read_settings(read, hostname, pid)
    return SettingsSurvey(
        settings=None if read.errors else settings,
        values=tuple(read.values.values()),
        warnings=tuple(dict.fromkeys(read.warnings)),
        errors=tuple(read.errors),
    )


def require_files(values: tuple[OptionValue, ...]) -> None:
    """Look on the disk for every file an option names.

    Raises:
        SettingsError: one is not there, or is no file.
    """
    for value in values:
        if value.option.kind is Kind.FILE and value.text and not Path(value.text).is_file():
            raise value.error("a file that exists")


def _read_settings(read: OptionReader, hostname: str, pid: int) -> Settings:
    addresses = read_addresses(read, hostname)
    bus = Bus(read.choice("bus"))
    models_path = read.directory("models_path")
    settings = Settings(
        register_to=read_register_to(read),
        node_name=read_node_name(read, hostname, pid),
        registration_token=read.text("registration_token"),
        registration_require_auth=read.switch("registration_require_auth"),
        distributed_require_auth=read.switch("distributed_require_auth"),
        node_labels=read_labels(read),
        max_replicas_per_model=read_max_replicas(read),
        vram_budget=read_vram_budget(read),
        heartbeat_interval_s=read_heartbeat_s(read),
        addresses=addresses,
        grpc_max_port=read_max_port(read, addresses.base_port),
        models_path=models_path,
        backends_path=read.directory("backends_path"),
        backends_system_path=read.path("backends_system_path"),
        state_path=read_state_path(read, models_path),
        upload_limit_bytes=read.size_bytes("upload_limit"),
        staging_keep_s=read.duration_s("staging_keep", shortest_s=60.0),
        staging_limit_bytes=read.size_bytes("staging_limit"),
        backend_galleries=read.galleries("backend_galleries"),
        galleries=read.galleries("galleries"),
        prefetch_models=read.items("prefetch_models"),
        require_backend_integrity=read.switch("require_backend_integrity"),
        sigstore_trusted_root=read.path("sigstore_trusted_root"),
        nats_url=read_nats_url(read, bus),
        nats_jwt=read.text("nats_jwt").strip(),
        nats_user_seed=read.text("nats_user_seed").strip(),
        nats_require_auth=read.switch("nats_require_auth"),
        nats_tls_ca=read.path("nats_tls_ca"),
        nats_tls_cert=read.path("nats_tls_cert"),
        nats_tls_key=read.path("nats_tls_key"),
        bus=bus,
        storage_url=read_storage_url(read),
        storage_bucket=read_bucket(read),
        storage_region=read_region(read),
        storage_access_key=read.text("storage_access_key"),
        storage_secret_key=read.text("storage_secret_key"),
        storage_verify=read.switch("storage_verify"),
        storage_cache_limit=read_cache_limit(read),
        download_connections=read.count("download_connections", most=64),
        backend_cache_bytes=read.size_bytes("backend_cache"),
        backend_size_limit_bytes=read.size_bytes("backend_size_limit"),
        disk_floor_bytes=read.size_bytes("disk_floor"),
        backend_env=read.variable_patterns("backend_env"),
        ready_timeout_s=read.duration_s("ready_timeout", shortest_s=0.1),
        stop_grace_s=read.duration_s("stop_grace", shortest_s=0.0),
        keep_backends=read.switch("keep_backends"),
        adoption_window_s=read.duration_s("adoption_window", shortest_s=0.0),
        backend_log_mib=read_backend_log_mib(read),
        log_level=read_log_level(read),
        log_format=read.choice("log_format"),
        log_dedup_logs=read.switch("log_dedup_logs") if read.raw("log_dedup_logs").strip() else None,
    )
    check_credentials(read, settings)
    check_storage(read, settings)
    return settings
