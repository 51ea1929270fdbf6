"""From flags and environment to `Settings`: the rules that go beyond the form of a single value.

Where upstream only warns and goes on, so does this; what it cannot work with is an error here.
Sources: LocalAI core/cli/worker.go, core/services/worker/config.go, pkg/natsauth.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ..domain.addresses import NodeAddresses, WrongAddress, derive_addresses, effective_max_port
from ..domain.node import label_warnings, parse_labels
from ..domain.vram_budget import WrongVramBudget, parse_vram_budget
from .go_values import WrongValue, parse_duration_s
from .option_values import OptionReader, OptionValue, SettingsError, is_url
from .options import Kind
from .settings import Bus, Settings, split_nats_url

DEFAULT_NATS_URL = "nats://127.0.0.1:4222"  # what nats.go takes an empty URL for
DEFAULT_REGION = "us-east-1"  # what the S3 store falls back to
DEFAULT_HEARTBEAT = "10s"

# The frontend looks every 15 s for nodes whose last heartbeat is older than 60 s: beyond a third of that
# two lost beats take the node away. Below the shortest, a typo (`10ns`) would flood the frontend.
_LONGEST_HEARTBEAT_S = 20.0
_SHORTEST_HEARTBEAT_S = 0.05

_LONGEST_NODE_NAME_BYTES = 255  # the frontend answers 400 beyond


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
    addresses = _addresses(read, hostname)
    bus = Bus(read.choice("bus"))
    models_path = read.directory("models_path")
    settings = Settings(
        register_to=_register_to(read),
        node_name=_node_name(read, hostname, pid),
        registration_token=read.text("registration_token"),
        registration_require_auth=read.switch("registration_require_auth"),
        distributed_require_auth=read.switch("distributed_require_auth"),
        node_labels=_labels(read),
        max_replicas_per_model=_max_replicas(read),
        vram_budget=_vram_budget(read),
        heartbeat_interval_s=_heartbeat_s(read),
        addresses=addresses,
        grpc_max_port=_max_port(read, addresses.base_port),
        models_path=models_path,
        backends_path=read.directory("backends_path"),
        backends_system_path=read.path("backends_system_path"),
        state_path=_state_path(read, models_path),
        backend_galleries=read.galleries("backend_galleries"),
        galleries=read.galleries("galleries"),
        prefetch_models=read.items("prefetch_models"),
        require_backend_integrity=read.switch("require_backend_integrity"),
        nats_url=_nats_url(read, bus),
        nats_jwt=read.text("nats_jwt").strip(),
        nats_user_seed=read.text("nats_user_seed").strip(),
        nats_require_auth=read.switch("nats_require_auth"),
        nats_tls_ca=read.path("nats_tls_ca"),
        nats_tls_cert=read.path("nats_tls_cert"),
        nats_tls_key=read.path("nats_tls_key"),
        bus=bus,
        storage_url=read.http_url("storage_url", right="the S3 endpoint, like http://minio:9000"),
        storage_bucket=read.text("storage_bucket"),
        storage_region=_region(read),
        storage_access_key=read.text("storage_access_key"),
        storage_secret_key=read.text("storage_secret_key"),
        backend_env=read.variable_patterns("backend_env"),
        ready_timeout_s=read.duration_s("ready_timeout", shortest_s=0.1),
        stop_grace_s=read.duration_s("stop_grace", shortest_s=0.0),
        log_level=_log_level(read),
        log_format=read.choice("log_format"),
        log_dedup_logs=read.switch("log_dedup_logs") if read.raw("log_dedup_logs").strip() else None,
    )
    _check_credentials(read, settings)
    _check_storage(read, settings)
    return settings


def _addresses(read: OptionReader, hostname: str) -> NodeAddresses:
    addr, serve_addr, advertise_addr, http_addr, advertise_http_addr = map(
        read.text, ("addr", "serve_addr", "advertise_addr", "http_addr", "advertise_http_addr")
    )
    try:
        addresses = derive_addresses(
            addr, serve_addr, advertise_addr, http_addr, advertise_http_addr, hostname
        )
    except WrongAddress as wrong:
        read.refuse("http_addr", wrong.right)
        return derive_addresses(addr, serve_addr, advertise_addr, "", advertise_http_addr, hostname)
    for warning in addresses.warnings:
        read.warn_of(warning.setting, warning.effect)
    read.derive("advertise_addr", str(addresses.grpc))
    read.derive("http_addr", str(addresses.http_bind))
    read.derive("advertise_http_addr", str(addresses.http))
    return addresses


def _max_port(read: OptionReader, base_port: int) -> int:
    max_port, wrong = effective_max_port(read.number("grpc_max_port"), base_port)
    if wrong:
        read.warn_of("grpc_max_port", wrong)
    read.derive("grpc_max_port", str(max_port))
    return max_port


def _register_to(read: OptionReader) -> str:
    right = "the frontend's base URL, like http://frontend:8080"
    url = read.http_url("register_to", right=right)
    if not url:
        read.refuse("register_to", right)
    return url


def _nats_url(read: OptionReader, bus: Bus) -> str:
    text = read.text("nats_url").strip()
    right = "NATS servers, like nats://nats:4222 or tls://user:password@nats:4222, with commas between them"
    if not text and not read.is_set("nats_url"):
        if bus is Bus.NATS:
            read.refuse("nats_url", right)
        else:
            read.derive("nats_url", "")
        return ""
    if not text:
        read.show("nats_url", DEFAULT_NATS_URL)
        return DEFAULT_NATS_URL
    servers = split_nats_url(text)
    if not servers or not all(is_url(server, {"nats", "tls", "ws", "wss"}) for server in servers):
        read.refuse("nats_url", right)
    return text


def _node_name(read: OptionReader, hostname: str, pid: int) -> str:
    name = read.text("node_name").strip() or hostname or f"node-{pid}"
    if len(name.encode(errors="replace")) > _LONGEST_NODE_NAME_BYTES:
        read.refuse("node_name", f"at most {_LONGEST_NODE_NAME_BYTES} bytes long")
    read.derive("node_name", name)
    return name


def _labels(read: OptionReader) -> Mapping[str, str]:
    text = read.text("node_labels")
    for warning in label_warnings(text):
        read.warn(f"{read.values['node_labels'].origin}: {warning}")
    return parse_labels(text)


def _max_replicas(read: OptionReader) -> int:
    replicas = read.number("max_replicas_per_model")
    if replicas < 1:
        read.warn_of("max_replicas_per_model", "is used as 1")
        read.show("max_replicas_per_model", "1")
    return max(replicas, 1)


def _vram_budget(read: OptionReader) -> str:
    text = read.text("vram_budget").strip()
    try:
        parse_vram_budget(text)
    except WrongVramBudget as wrong:
        read.warn(f"{read.values['vram_budget'].origin}: the frontend ignores this budget: {wrong}")
    return text


def _heartbeat_s(read: OptionReader) -> float:
    try:
        interval_s = parse_duration_s(read.raw("heartbeat_interval").strip())
        right = f"at least {_SHORTEST_HEARTBEAT_S:g}s"
    except WrongValue as wrong:
        interval_s, right = 0.0, wrong.right
    if interval_s < _SHORTEST_HEARTBEAT_S:
        read.warn_of("heartbeat_interval", f"is used as {DEFAULT_HEARTBEAT}; it must be {right}")
        read.show("heartbeat_interval", DEFAULT_HEARTBEAT)
        return parse_duration_s(DEFAULT_HEARTBEAT)
    if interval_s > _LONGEST_HEARTBEAT_S:
        effect = "is long: the frontend gives a node up 60s after its last heartbeat; 10s is usual"
        read.warn_of("heartbeat_interval", effect)
    return interval_s


def _state_path(read: OptionReader, models_path: Path) -> Path:
    path = read.path("state_path")
    if path is None:
        path = models_path.parent / "localai-worker"
        read.derive("state_path", str(path))
    return path


def _region(read: OptionReader) -> str:
    region = read.text("storage_region") or DEFAULT_REGION
    read.show("storage_region", region)
    return region


def _log_level(read: OptionReader) -> str:
    level = read.choice("log_level")
    if read.switch("debug") and not read.is_set("log_level"):
        level = "debug"
        read.derive("log_level", level)
    return level


def _check_credentials(read: OptionReader, settings: Settings) -> None:
    if settings.requires_registration_auth and not settings.registration_token:
        switches = "--registration-require-auth or --distributed-require-auth"
        read.refuse("registration_token", f"the frontend's token, because {switches} is on")
    elif not settings.registration_token:
        read.warn(
            "no registration token: the file server and every backend are open to whoever reaches their"
            " ports; set LOCALAI_REGISTRATION_TOKEN here and on the frontend"
        )
    for one, other in (
        ("nats_jwt", "nats_user_seed"),
        ("nats_user_seed", "nats_jwt"),
        ("nats_tls_cert", "nats_tls_key"),
        ("nats_tls_key", "nats_tls_cert"),
    ):
        if getattr(settings, one) and not getattr(settings, other):
            read.refuse(other, f"given together with {read.values[one].origin}")


def _check_storage(read: OptionReader, settings: Settings) -> None:
    if bool(settings.storage_access_key) != bool(settings.storage_secret_key):
        read.warn("only one of --storage-access-key and --storage-secret-key is set; AWS defaults are used")
    if settings.storage_url and not settings.storage_bucket:
        read.warn("--storage-url is set without --storage-bucket; every file operation will fail")
