"""Every option of the worker, in the order `config` prints them.

Sources: LocalAI core/cli/worker.go, newer core/services/worker/config.go.
"""

from .options import Kind, Option

_BACKEND_GALLERIES = (
    '[{"name":"localai","url":"https://index.localai.io/backends",'
    '"mirrors":["github:mudler/LocalAI/backend/index.yaml@master"]}]'
)
_MODEL_GALLERIES = (
    '[{"name":"localai","url":"https://index.localai.io/models",'
    '"mirrors":["github:mudler/LocalAI/gallery/index.yaml@master"]}]'
)

OPTIONS: tuple[Option, ...] = (
    # the frontend and this node's identity
    Option(
        "register_to",
        ("LOCALAI_REGISTER_TO",),
        kind=Kind.URL,
        required=True,
        help="The frontend's base URL, like http://frontend:8080.",
    ),
    Option(
        "node_name",
        ("LOCALAI_NODE_NAME",),
        help="The node's identity: the same name is the same node. Default: the host name.",
    ),
    Option(
        "registration_token",
        ("LOCALAI_REGISTRATION_TOKEN",),
        secret=True,
        help="Shared with the frontend; guards registration, the file server and the backends.",
    ),
    Option(
        "registration_require_auth",
        ("LOCALAI_REGISTRATION_REQUIRE_AUTH",),
        since="newer",
        kind=Kind.SWITCH,
        default="false",
        help="Refuse to start without a registration token.",
    ),
    Option(
        "distributed_require_auth",
        ("LOCALAI_DISTRIBUTED_REQUIRE_AUTH",),
        since="newer",
        kind=Kind.SWITCH,
        default="false",
        help="Both --registration-require-auth and --nats-require-auth.",
    ),
    Option(
        "node_labels",
        ("LOCALAI_NODE_LABELS",),
        kind=Kind.LABELS,
        help="Labels that model selectors match, like zone=a,disk=ssd.",
    ),
    Option(
        "max_replicas_per_model",
        ("LOCALAI_MAX_REPLICAS_PER_MODEL",),
        since="newer",
        kind=Kind.NUMBER,
        default="1",
        help="How many replicas of one model the frontend may place here.",
    ),
    Option(
        "vram_budget",
        ("LOCALAI_VRAM_BUDGET",),
        since="newer",
        help="The VRAM the frontend may plan with: 80%, 0.8, 12GB or 12GiB.",
    ),
    Option(
        "heartbeat_interval",
        ("LOCALAI_HEARTBEAT_INTERVAL",),
        kind=Kind.DURATION,
        default="10s",
        help="Time between two heartbeats; the frontend gives a node up after 60s without one.",
    ),
    # addresses and ports
    Option(
        "addr",
        ("LOCALAI_ADDR",),
        kind=Kind.ADDRESS,
        help="This worker's reachable address; backends get its port and those above, HTTP the one below.",
    ),
    Option(
        "serve_addr",
        ("LOCALAI_SERVE_ADDR",),
        kind=Kind.ADDRESS,
        default="0.0.0.0:50051",
        help="Where the gRPC ports begin when --addr does not say; only the port counts.",
    ),
    Option(
        "grpc_max_port",
        ("LOCALAI_GRPC_MAX_PORT",),
        since="newer",
        kind=Kind.NUMBER,
        default="0",
        help="The highest port a backend may get; 0 is 65535.",
    ),
    Option(
        "advertise_addr",
        ("LOCALAI_ADVERTISE_ADDR",),
        kind=Kind.ADDRESS,
        help="The address the frontend is told for backends. Default: --addr, else the host name.",
    ),
    Option(
        "http_addr",
        ("LOCALAI_HTTP_ADDR",),
        kind=Kind.ADDRESS,
        help="Where the file server listens. Default: 0.0.0.0 and the port below the gRPC ports.",
    ),
    Option(
        "advertise_http_addr",
        ("LOCALAI_ADVERTISE_HTTP_ADDR",),
        kind=Kind.ADDRESS,
        help="The file server's address the frontend is told. Default: the advertised host, the HTTP port.",
    ),
    # directories
    Option(
        "models_path",
        ("LOCALAI_MODELS_PATH", "MODELS_PATH"),
        kind=Kind.PATH,
        default="models",
        help="Models; staging, data and cache lie beside it.",
    ),
    Option(
        "backends_path",
        ("LOCALAI_BACKENDS_PATH", "BACKENDS_PATH"),
        kind=Kind.PATH,
        default="backends",
        help="Installed backends.",
    ),
    Option(
        "backends_system_path",
        ("LOCALAI_BACKENDS_SYSTEM_PATH",),
        kind=Kind.PATH,
        default="/var/lib/local-ai/backends",
        help="Backends that came with the system; empty for none.",
    ),
    Option(
        "state_path",
        ("LOCALAI_WORKER_STATE_PATH",),
        since="ours",
        kind=Kind.PATH,
        help="This worker's logs and journals. Default: localai-worker beside the models.",
    ),
    # files from the frontend
    Option(
        "upload_limit",
        ("LOCALAI_WORKER_UPLOAD_LIMIT",),
        since="ours",
        kind=Kind.SIZE,
        default="50GiB",
        help="How much one upload may bring, which a resumed file may do several times; 0 for no limit.",
    ),
    Option(
        "staging_keep",
        ("LOCALAI_WORKER_STAGING_KEEP",),
        since="ours",
        kind=Kind.DURATION,
        default="24h",
        help="How long inputs and results of requests stay in staging, and parts of broken uploads.",
    ),
    Option(
        "staging_limit",
        ("LOCALAI_WORKER_STAGING_LIMIT",),
        since="ours",
        kind=Kind.SIZE,
        default="0",
        help="What inputs and results of requests may take in staging, the oldest go first; 0 for no limit.",
    ),
    # galleries
    Option(
        "backend_galleries",
        ("LOCALAI_BACKEND_GALLERIES", "BACKEND_GALLERIES"),
        kind=Kind.GALLERIES,
        default=_BACKEND_GALLERIES,
        help="Backend galleries, a JSON list.",
    ),
    Option(
        "galleries",
        ("LOCALAI_GALLERIES", "GALLERIES"),
        since="newer",
        kind=Kind.GALLERIES,
        default=_MODEL_GALLERIES,
        help="Model galleries, a JSON list; only --prefetch-models reads them.",
    ),
    Option(
        "prefetch_models",
        ("LOCALAI_PREFETCH_MODELS", "PREFETCH_MODELS"),
        since="newer",
        kind=Kind.LIST,
        help="Gallery models to download before registering.",
    ),
    Option(
        "require_backend_integrity",
        ("LOCALAI_REQUIRE_BACKEND_INTEGRITY", "REQUIRE_BACKEND_INTEGRITY"),
        since="newer",
        kind=Kind.SWITCH,
        default="false",
        help="Refuse backends without a signature policy (images) or a SHA-256 (archives).",
    ),
    Option(
        "sigstore_trusted_root",
        ("LOCALAI_WORKER_SIGSTORE_ROOT",),
        since="ours",
        kind=Kind.FILE,
        help="Trust root of signatures (trusted_root.json). Default: Sigstore's public one, from the web.",
    ),
    # the message bus
    Option(
        "nats_url",
        ("LOCALAI_NATS_URL",),
        kind=Kind.URL,
        required=True,
        help="NATS servers, with commas; an empty value is nats://127.0.0.1:4222.",
    ),
    Option(
        "nats_jwt",
        ("LOCALAI_NATS_JWT",),
        since="newer",
        secret=True,
        help="A fixed NATS user JWT; the frontend hands out one otherwise.",
    ),
    Option(
        "nats_user_seed",
        ("LOCALAI_NATS_USER_SEED",),
        since="newer",
        secret=True,
        help="The seed (SU...) that belongs to --nats-jwt.",
    ),
    Option(
        "nats_require_auth",
        ("LOCALAI_NATS_REQUIRE_AUTH",),
        since="newer",
        kind=Kind.SWITCH,
        default="false",
        help="Wait for NATS credentials instead of connecting without.",
    ),
    Option(
        "nats_tls_ca",
        ("LOCALAI_NATS_TLS_CA",),
        since="newer",
        kind=Kind.FILE,
        other_flags=("--nats-tlsca",),  # LocalAI documents the first flag and parses this one
        help="Root certificates (PEM) the NATS server's is checked against.",
    ),
    Option(
        "nats_tls_cert",
        ("LOCALAI_NATS_TLS_CERT",),
        since="newer",
        kind=Kind.FILE,
        help="Client certificate (PEM) for NATS.",
    ),
    Option(
        "nats_tls_key",
        ("LOCALAI_NATS_TLS_KEY",),
        since="newer",
        kind=Kind.FILE,
        help="Key (PEM) of --nats-tls-cert.",
    ),
    Option(
        "bus",
        ("LOCALAI_WORKER_BUS",),
        since="ours",
        kind=Kind.CHOICE,
        default="nats",
        choices=("nats", "memory"),
        help="The message bus; memory stays inside this process and needs no --nats-url.",
    ),
    # the object store
    Option(
        "storage_url",
        ("LOCALAI_STORAGE_URL",),
        kind=Kind.URL,
        help="S3 endpoint, or file:// and a shared directory; with one, files come through the object store.",
    ),
    Option(
        "storage_bucket",
        ("LOCALAI_STORAGE_BUCKET",),
        help="S3 bucket. Default: localai, as the frontend's.",
    ),
    Option("storage_region", ("LOCALAI_STORAGE_REGION",), default="us-east-1", help="S3 region."),
    Option(
        "storage_access_key",
        ("LOCALAI_STORAGE_ACCESS_KEY",),
        secret=True,
        help="S3 access key; without a pair of keys the AWS defaults apply.",
    ),
    Option("storage_secret_key", ("LOCALAI_STORAGE_SECRET_KEY",), secret=True, help="S3 secret key."),
    Option(
        "storage_verify",
        ("LOCALAI_STORAGE_VERIFY",),
        since="ours",
        kind=Kind.SWITCH,
        default="true",
        negatable=True,
        help="Compare fetched objects with the hash that their ETag or metadata tell.",
    ),
    Option(
        "storage_cache_limit",
        ("LOCALAI_STORAGE_CACHE_LIMIT",),
        since="ours",
        help="What fetched objects may take, like 500GB or 60% of the disk. Default: all but a spare 5%.",
    ),
    # installs
    Option(
        "download_connections",
        ("LOCALAI_WORKER_DOWNLOAD_CONNECTIONS",),
        since="ours",
        kind=Kind.NUMBER,
        default="8",
        help="Connections that fetch one backend at the same time.",
    ),
    Option(
        "backend_cache",
        ("LOCALAI_WORKER_BACKEND_CACHE",),
        since="ours",
        kind=Kind.SIZE,
        default="20GiB",
        help="How much of what was downloaded is kept, so that an upgrade fetches only what is new; "
        "0 for nothing.",
    ),
    Option(
        "backend_size_limit",
        ("LOCALAI_WORKER_BACKEND_SIZE_LIMIT",),
        since="ours",
        kind=Kind.SIZE,
        default="64GiB",
        help="How large one backend may get when it is unpacked.",
    ),
    Option(
        "disk_floor",
        ("LOCALAI_WORKER_DISK_FLOOR",),
        since="ours",
        kind=Kind.SIZE,
        default="512MiB",
        help="How much of the disk installs leave free.",
    ),
    # backend processes
    Option(
        "backend_env",
        ("LOCALAI_BACKEND_ENV",),
        since="ours",
        kind=Kind.LIST,
        help="The only variables backends get, as NAME or PREFIX_*. Default: all but the worker's secrets.",
    ),
    Option(
        "ready_timeout",
        ("LOCALAI_BACKEND_READY_TIMEOUT",),
        since="ours",
        kind=Kind.DURATION,
        default="30s",
        help="How long a backend may take to answer its first health check, counted anew from each sign of "
        "work (CPU time, output); 4 min 30 s in all, or this if it is longer.",
    ),
    Option(
        "stop_grace",
        ("LOCALAI_BACKEND_STOP_GRACE",),
        since="ours",
        kind=Kind.DURATION,
        default="15s",
        help="How long a backend may take to end before it is killed.",
    ),
    Option(
        "keep_backends",
        ("LOCALAI_WORKER_KEEP_BACKENDS",),
        since="ours",
        kind=Kind.SWITCH,
        default="false",
        help="Leave backends running when a signal ends this worker; the next one takes them over.",
    ),
    Option(
        "adoption_window",
        ("LOCALAI_WORKER_ADOPTION_WINDOW",),
        since="ours",
        kind=Kind.DURATION,
        default="2m",
        help="How long backends outlive a worker that is gone; then the keeper ends them.",
    ),
    Option(
        "backend_log_mib",
        ("LOCALAI_BACKEND_LOG_MIB",),
        since="ours",
        kind=Kind.NUMBER,
        default="10",
        help="How large an output file of a backend may grow, in MiB, before it is moved aside and emptied.",
    ),
    # logging
    Option(
        "log_level",
        ("LOCALAI_LOG_LEVEL",),
        kind=Kind.CHOICE,
        default="info",
        choices=("error", "warn", "info", "debug", "trace"),
        help="What is logged.",
    ),
    Option(
        "debug",
        ("LOCALAI_DEBUG", "DEBUG"),
        kind=Kind.SWITCH,
        default="false",
        help="--log-level=debug, unless a level is given.",
    ),
    Option(
        "log_format",
        ("LOCALAI_LOG_FORMAT",),
        kind=Kind.CHOICE,
        default="default",
        choices=("default", "text", "json"),
        help="How a log line looks.",
    ),
    Option(
        "log_dedup_logs",
        ("LOCALAI_LOG_DEDUP",),
        kind=Kind.SWITCH,
        negatable=True,
        help="Write repeated lines once, with a count. Default: on a terminal.",
    ),
)

BY_FIELD = {option.field: option for option in OPTIONS}
