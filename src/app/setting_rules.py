"""Rules of single settings that go beyond the form of their value.

Where upstream only warns and goes on, so does this; what it cannot work with is an error here.
Sources: LocalAI core/cli/worker.go, core/services/worker/config.go, pkg/natsauth.
"""

from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from ..adapters.nats.servers import DEFAULT_SERVER, parse_servers
from ..domain.addresses import NodeAddresses, WrongAddress, derive_addresses, effective_max_port
from ..domain.bus_credentials import JWT, BusCredentials, WrongCredentials
from ..domain.errors import BusUnavailable
from ..domain.node import label_warnings, parse_labels
from ..domain.vram_budget import WrongVramBudget, parse_vram_budget
from .go_values import WrongValue, parse_duration_s
from .option_values import OptionReader
from .settings import Bus, Settings

DEFAULT_REGION = "us-east-1"  # what the S3 store falls back to
DEFAULT_BUCKET = "localai"  # the frontend's; upstream's worker has none, and every operation fails
DEFAULT_HEARTBEAT = "10s"

# The frontend looks every 15 s for nodes whose last heartbeat is older than 60 s: beyond a third of that
# two lost beats take the node away. Below the shortest, a typo (`10ns`) would flood the frontend.
_LONGEST_HEARTBEAT_S = 20.0
_SHORTEST_HEARTBEAT_S = 0.05

_LONGEST_NODE_NAME_BYTES = 255  # the frontend answers 400 beyond


def read_addresses(read: OptionReader, hostname: str) -> NodeAddresses:
    """The addresses that follow from the five address options; they become the effective values."""
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


def read_max_port(read: OptionReader, base_port: int) -> int:
    """The highest port a backend may get; bounds that make no sense are warned about."""
    max_port, wrong = effective_max_port(read.number("grpc_max_port"), base_port)
    if wrong:
        read.warn_of("grpc_max_port", wrong)
    read.derive("grpc_max_port", str(max_port))
    return max_port


def read_register_to(read: OptionReader) -> str:
    """The frontend's base URL, which must be there."""
    right = "the frontend's base URL, like http://frontend:8080"
    url = read.http_url("register_to", right=right)
    if not url:
        read.refuse("register_to", right)
    return url


def read_nats_url(read: OptionReader, bus: Bus) -> str:
    """NATS servers as the bus takes them; an empty value is the local server, a missing one an error."""
    text = read.text("nats_url").strip()
    right = "NATS servers, like nats://nats:4222 or tls://user:password@nats:4222, with commas between them"
    if not text and not read.is_set("nats_url"):
        if bus is Bus.NATS:
            read.refuse("nats_url", right)
        else:
            read.derive("nats_url", "")
        return ""
    if not text:
        read.show("nats_url", DEFAULT_SERVER)
        return DEFAULT_SERVER
    try:
        parse_servers(text)
    except BusUnavailable as error:
        read.refuse("nats_url", f"{right}: {error.reason}")
    return text


def read_node_name(read: OptionReader, hostname: str, pid: int) -> str:
    """The name, else the host name, else one from the process id."""
    name = read.text("node_name").strip() or hostname or f"node-{pid}"
    if len(name.encode(errors="replace")) > _LONGEST_NODE_NAME_BYTES:
        read.refuse("node_name", f"at most {_LONGEST_NODE_NAME_BYTES} bytes long")
    read.derive("node_name", name)
    return name


def read_labels(read: OptionReader) -> Mapping[str, str]:
    """The operator's labels; what will not arrive is warned about."""
    text = read.text("node_labels")
    for warning in label_warnings(text):
        read.warn(f"{read.values['node_labels'].origin}: {warning}")
    return parse_labels(text)


def read_max_replicas(read: OptionReader) -> int:
    """At least 1."""
    replicas = read.number("max_replicas_per_model")
    if replicas < 1:
        read.warn_of("max_replicas_per_model", "is used as 1")
        read.show("max_replicas_per_model", "1")
    return max(replicas, 1)


def read_backend_log_mib(read: OptionReader) -> int:
    """At least 1: without a limit output would fill the disk."""
    limit = read.number("backend_log_mib")
    if limit < 1:
        read.warn_of("backend_log_mib", "is used as 1")
        read.show("backend_log_mib", "1")
    return max(limit, 1)


def read_vram_budget(read: OptionReader) -> str:
    """The text as given; one that the frontend would ignore is warned about."""
    text = read.text("vram_budget").strip()
    try:
        parse_vram_budget(text)
    except WrongVramBudget as wrong:
        read.warn(f"{read.values['vram_budget'].origin}: the frontend ignores this budget: {wrong}")
    return text


def read_heartbeat_s(read: OptionReader) -> float:
    """Seconds between two heartbeats; a text that is no interval counts as the default (N-B35)."""
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


def read_state_path(read: OptionReader, models_path: Path) -> Path:
    """Where this worker keeps its state: beside the models unless it is set."""
    path = read.path("state_path")
    if path is None:
        path = models_path.parent / "localai-worker"
        read.derive("state_path", str(path))
    return path


def read_region(read: OptionReader) -> str:
    """The S3 region."""
    region = read.text("storage_region") or DEFAULT_REGION
    read.show("storage_region", region)
    return region


def read_log_level(read: OptionReader) -> str:
    """The level; `debug` is one only where none is given."""
    level = read.choice("log_level")
    if read.switch("debug") and not read.is_set("log_level"):
        level = "debug"
        read.derive("log_level", level)
    return level


def check_credentials(read: OptionReader, settings: Settings) -> None:
    """What upstream refuses before anything else: required tokens, half pairs (S-W06, S-W07)."""
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
    if settings.nats_jwt and settings.nats_user_seed:
        try:
            BusCredentials.parse(settings.nats_jwt, settings.nats_user_seed)
        except WrongCredentials as wrong:
            read.refuse("nats_jwt" if wrong.what == JWT else "nats_user_seed", wrong.right)


def read_storage_url(read: OptionReader) -> str:
    """The object store: an S3 endpoint, or `file://` and an absolute directory."""
    right = "the S3 endpoint, like http://minio:9000, or a shared directory, like file:///mnt/objects"
    text = read.text("storage_url").strip()
    if not text.startswith("file:"):
        return read.http_url("storage_url", right=right)
    parts = urlsplit(text)
    if parts.netloc not in {"", "localhost"} or len(parts.path) < 2:
        read.refuse("storage_url", right)
    return text


def read_bucket(read: OptionReader) -> str:
    """The bucket; with an S3 endpoint and without a name it is the frontend's default."""
    bucket = read.text("storage_bucket").strip()
    if not bucket and read.raw("storage_url").startswith("http"):
        bucket = DEFAULT_BUCKET
        read.derive("storage_bucket", bucket)
    return bucket


def read_cache_limit(read: OptionReader) -> str:
    """How much of the disk the cache may take: a size or a share."""
    text = read.text("storage_cache_limit").strip()
    try:
        parse_vram_budget(text)
    except WrongVramBudget:
        read.refuse("storage_cache_limit", "a size like 500GB or 500GiB, or a share of the disk like 60%")
        return ""
    return text


def check_storage(read: OptionReader, settings: Settings) -> None:
    """Warn about object store settings that do not work together; upstream starts with them too."""
    if bool(settings.storage_access_key) != bool(settings.storage_secret_key):
        read.warn("only one of --storage-access-key and --storage-secret-key is set; AWS defaults are used")
