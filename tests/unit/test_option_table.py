"""The table of options against the flags and variables of the protocol sheet."""

import dataclasses

import pytest

from localai_worker.app.flags import MissingValue, take_flags
from localai_worker.app.option_table import BY_FIELD, OPTIONS
from localai_worker.app.options import Kind
from localai_worker.app.settings import Settings

# Flag, variables in order: section 4 of the NATS sheet, seed and newer rows.
LOCALAI = """
--addr LOCALAI_ADDR
--serve-addr LOCALAI_SERVE_ADDR
--grpc-max-port LOCALAI_GRPC_MAX_PORT
--backends-path LOCALAI_BACKENDS_PATH BACKENDS_PATH
--backends-system-path LOCALAI_BACKENDS_SYSTEM_PATH
--backend-galleries LOCALAI_BACKEND_GALLERIES BACKEND_GALLERIES
--galleries LOCALAI_GALLERIES GALLERIES
--models-path LOCALAI_MODELS_PATH MODELS_PATH
--require-backend-integrity LOCALAI_REQUIRE_BACKEND_INTEGRITY REQUIRE_BACKEND_INTEGRITY
--prefetch-models LOCALAI_PREFETCH_MODELS PREFETCH_MODELS
--http-addr LOCALAI_HTTP_ADDR
--advertise-http-addr LOCALAI_ADVERTISE_HTTP_ADDR
--advertise-addr LOCALAI_ADVERTISE_ADDR
--register-to LOCALAI_REGISTER_TO
--node-name LOCALAI_NODE_NAME
--registration-token LOCALAI_REGISTRATION_TOKEN
--registration-require-auth LOCALAI_REGISTRATION_REQUIRE_AUTH
--distributed-require-auth LOCALAI_DISTRIBUTED_REQUIRE_AUTH
--heartbeat-interval LOCALAI_HEARTBEAT_INTERVAL
--node-labels LOCALAI_NODE_LABELS
--max-replicas-per-model LOCALAI_MAX_REPLICAS_PER_MODEL
--vram-budget LOCALAI_VRAM_BUDGET
--nats-url LOCALAI_NATS_URL
--nats-jwt LOCALAI_NATS_JWT
--nats-user-seed LOCALAI_NATS_USER_SEED
--nats-require-auth LOCALAI_NATS_REQUIRE_AUTH
--nats-tlsca LOCALAI_NATS_TLS_CA
--nats-tls-ca LOCALAI_NATS_TLS_CA
--nats-tls-cert LOCALAI_NATS_TLS_CERT
--nats-tls-key LOCALAI_NATS_TLS_KEY
--storage-url LOCALAI_STORAGE_URL
--storage-bucket LOCALAI_STORAGE_BUCKET
--storage-region LOCALAI_STORAGE_REGION
--storage-access-key LOCALAI_STORAGE_ACCESS_KEY
--storage-secret-key LOCALAI_STORAGE_SECRET_KEY
--log-level LOCALAI_LOG_LEVEL
--debug LOCALAI_DEBUG DEBUG
--log-format LOCALAI_LOG_FORMAT
--log-dedup-logs LOCALAI_LOG_DEDUP
"""
OURS = {
    "state_path",
    "backend_env",
    "backend_log_mib",
    "ready_timeout",
    "stop_grace",
    "bus",
    "sigstore_trusted_root",
    "keep_backends",
    "adoption_window",
    "storage_verify",
    "storage_cache_limit",
    "download_connections",
    "backend_cache",
    "backend_size_limit",
    "disk_floor",
    "upload_limit",
    "staging_keep",
    "staging_limit",
}


@pytest.mark.parametrize("row", LOCALAI.strip().splitlines())
def test_every_flag_and_variable_of_localais_worker_is_there(row: str) -> None:
    """M-1.1, G-1.1.1, G-1.1.10, G-1.1.11, G-1.1.12."""
    flag, *names = row.split()
    (option,) = [option for option in OPTIONS if flag in option.flags]
    assert option.env == tuple(names)
    assert option.since in {"seed", "newer"}


def test_what_is_not_localais_says_so() -> None:
    assert {option.field for option in OPTIONS if option.since == "ours"} == OURS
    flags = {row.split()[0] for row in LOCALAI.strip().splitlines()}
    assert {flag for option in OPTIONS for flag in option.flags if option.field not in OURS} == flags


def test_no_flag_and_no_variable_means_two_things() -> None:
    for names in ([f for o in OPTIONS for f in o.flags], [e for o in OPTIONS for e in o.env]):
        assert len(names) == len(set(names))
    assert len(BY_FIELD) == len(OPTIONS)


def test_every_option_reaches_the_settings() -> None:
    settings = {field.name for field in dataclasses.fields(Settings)}
    settings |= {name.removesuffix("_s").removesuffix("_bytes") for name in settings}
    in_addresses = {"addr", "serve_addr", "advertise_addr", "http_addr", "advertise_http_addr"}
    in_log_level = {"debug"}
    assert set(BY_FIELD) - settings == in_addresses | in_log_level


def test_credentials_are_secret() -> None:
    assert {option.field for option in OPTIONS if option.secret} == {
        "registration_token",
        "nats_jwt",
        "nats_user_seed",
        "storage_access_key",
        "storage_secret_key",
    }


def test_every_option_explains_itself() -> None:
    for option in OPTIONS:
        assert option.help.endswith("."), option.field
        assert (option.kind is Kind.CHOICE) == bool(option.choices), option.field


@pytest.mark.parametrize(
    ("arguments", "flags", "rest"),
    [
        (["--node-name", "a"], {"node_name": "a"}, []),
        (["--node-name=a=b"], {"node_name": "a=b"}, []),
        (["--node-name="], {"node_name": ""}, []),
        (["--node-name", "a", "--node-name", "b"], {"node_name": "b"}, []),
        (["--debug"], {"debug": "true"}, []),
        (["--debug=false"], {"debug": "false"}, []),
        (["--debug", "false"], {"debug": "true"}, ["false"]),
        (["--no-log-dedup-logs"], {"log_dedup_logs": "false"}, []),
        (["--no-debug"], {}, ["--no-debug"]),
        (["--node-name", "--debug", "--debug"], {"node_name": "--debug", "debug": "true"}, []),
        (["--prefetch-models", "a,b", "--prefetch-models=c"], {"prefetch_models": "a,b,c"}, []),
        (["--nats-tlsca", "x", "--nats-tls-ca", "y"], {"nats_tls_ca": "y"}, []),
        (["--json", "--debug", "x"], {"debug": "true"}, ["--json", "x"]),
        (["--", "--debug"], {}, ["--", "--debug"]),
    ],
)
def test_flags_are_taken_from_a_command_line_and_the_rest_is_left(
    arguments: list[str], flags: dict[str, str], rest: list[str]
) -> None:
    assert take_flags(arguments, OPTIONS) == (flags, rest)


def test_a_flag_without_its_value_is_an_error_with_an_example() -> None:
    with pytest.raises(MissingValue, match="--addr needs a value: --addr=HOST:PORT"):
        take_flags(["--debug", "--addr"], OPTIONS)
