"""Flags, environment and defaults become settings: which wins, what is tolerated, what is an error."""

from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from localai_worker.app.option_table import OPTIONS
from localai_worker.app.option_values import OptionValue, SettingsError
from localai_worker.app.options import Kind
from localai_worker.app.resolve_settings import (
    ResolvedSettings,
    SettingsSurvey,
    require_files,
    resolve_settings,
    survey_settings,
)
from localai_worker.app.settings import Bus
from localai_worker.app.simulator.nats_users import NatsUsers
from localai_worker.domain.backend_environment import backend_environment
from localai_worker.domain.galleries import Gallery

CWD = Path("/srv/worker")
HOME = Path("/home/op")
REQUIRED = {
    "LOCALAI_REGISTER_TO": "http://frontend:8080",
    "LOCALAI_NATS_URL": "nats://nats:4222",
    "LOCALAI_REGISTRATION_TOKEN": "changeme",
}


def survey(environment: Mapping[str, str], flags: Mapping[str, str | None] | None = None) -> SettingsSurvey:
    return survey_settings(flags or {}, environment, cwd=CWD, home=HOME, hostname="gpu-1", pid=42)


def resolve(environment: Mapping[str, str] | None = None, /, **flags: str | None) -> ResolvedSettings:
    everything = REQUIRED | dict(environment or {})
    return resolve_settings(flags, everything, cwd=CWD, home=HOME, hostname="gpu-1", pid=42)


def error(environment: Mapping[str, str] | None = None, /, **flags: str | None) -> str:
    with pytest.raises(SettingsError) as caught:
        resolve(environment, **flags)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def value(resolved: ResolvedSettings | SettingsSurvey, name: str) -> OptionValue:
    return next(each for each in resolved.values if each.option.field == name)


def test_two_variables_are_enough_and_everything_else_has_localais_default() -> None:
    """M-1.2, G-1.1.2, G-1.1.3, G-1.1.12."""
    resolved = resolve()
    settings = resolved.settings
    assert resolved.warnings == ()
    assert settings.register_to == "http://frontend:8080"
    assert settings.nats_url == "nats://nats:4222"
    assert settings.node_name == "gpu-1"
    assert str(settings.addresses.grpc) == "gpu-1:50051"
    assert str(settings.addresses.http_bind) == "0.0.0.0:50050"
    assert settings.grpc_ports == range(50051, 65536)
    assert settings.models_path == CWD / "models"
    assert settings.backends_path == CWD / "backends"
    assert settings.backends_system_path == Path("/var/lib/local-ai/backends")
    assert settings.state_path == CWD / "localai-worker"
    assert settings.backend_galleries == (
        Gallery(
            "localai",
            "https://index.localai.io/backends",
            ("github:mudler/LocalAI/backend/index.yaml@master",),
        ),
    )
    assert settings.galleries == (
        Gallery(
            "localai",
            "https://index.localai.io/models",
            ("github:mudler/LocalAI/gallery/index.yaml@master",),
        ),
    )
    assert settings.heartbeat_interval_s == 10.0
    assert settings.max_replicas_per_model == 1
    assert (settings.ready_timeout_s, settings.stop_grace_s) == (30.0, 15.0)
    assert settings.bus is Bus.NATS
    assert settings.backend_env is None
    assert settings.storage_region == "us-east-1"
    assert (settings.log_level, settings.log_format, settings.log_dedup_logs) == ("info", "default", None)
    assert {each.source for each in resolved.values} <= {
        "default",
        "derived",
        *(f"environment {name}" for name in REQUIRED),
    }


def test_a_flag_beats_a_variable_beats_the_default() -> None:
    assert value(resolve(), "models_path").source == "default"
    variables = {"LOCALAI_MODELS_PATH": "/env"}
    assert value(resolve(variables), "models_path").source == "environment LOCALAI_MODELS_PATH"
    resolved = resolve(variables, models_path="/flag")
    assert value(resolved, "models_path").source == "flag --models-path"
    assert resolved.settings.models_path == Path("/flag")


def test_the_first_variable_that_is_set_wins_even_when_it_is_empty() -> None:
    both = {"LOCALAI_PREFETCH_MODELS": "", "PREFETCH_MODELS": "phi-4"}
    assert resolve(both).settings.prefetch_models == ()
    assert resolve({"PREFETCH_MODELS": "phi-4"}).settings.prefetch_models == ("phi-4",)


def test_an_empty_flag_beats_a_variable() -> None:
    resolved = resolve({"LOCALAI_NODE_LABELS": "a=b"}, node_labels="")
    assert resolved.settings.node_labels == {}


@pytest.mark.parametrize(
    "name",
    [
        name
        for option in OPTIONS
        for name in option.env
        if option.kind in {Kind.SWITCH, Kind.NUMBER, Kind.DURATION, Kind.FILE, Kind.CHOICE}
    ],
)
def test_a_variable_set_to_nothing_where_nothing_cannot_be_a_value_counts_as_unset(name: str) -> None:
    """N-B35: compose files produce them; upstream refuses to start."""
    resolved = resolve({name: " "})
    assert resolved.warnings == (f"{name} is set to nothing and counts as not set",)
    assert resolved.settings == resolve().settings


def test_after_an_empty_switch_the_next_variable_counts() -> None:
    """N-B35: unset means unset."""
    assert resolve({"LOCALAI_DEBUG": "", "DEBUG": "1"}).settings.log_level == "debug"


def test_an_empty_nats_url_means_the_local_server() -> None:
    resolved = resolve({"LOCALAI_NATS_URL": ""})
    assert resolved.settings.nats_url == "nats://127.0.0.1:4222"
    assert value(resolved, "nats_url").shown == "nats://127.0.0.1:4222"


@pytest.mark.parametrize(
    "text", ["nats://a:4222,nats://b", "b:4222", "tls://user:pw@a", "wss://a", "[::1]:4222"]
)
def test_nats_servers_are_kept_as_written(text: str) -> None:
    assert resolve({"LOCALAI_NATS_URL": text}).settings.nats_url == text


@pytest.mark.parametrize(
    "text", ["http://nats:4222", "nats://", "nats://a:port", "nats://a:99999", "nats://a b"]
)
def test_a_malformed_nats_url_is_an_error_with_an_example(text: str) -> None:
    assert "like nats://nats:4222" in error({"LOCALAI_NATS_URL": text})


def test_the_memory_bus_needs_no_nats_url() -> None:
    found = survey({"LOCALAI_REGISTER_TO": "http://f", "LOCALAI_WORKER_BUS": "memory"})
    assert found.settings is not None
    assert (found.settings.bus, found.settings.nats_url) == (Bus.MEMORY, "")
    assert value(found, "nats_url").shown == ""


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("http://frontend:8080", "http://frontend:8080"),
        ("https://frontend/base///", "https://frontend/base"),
        ("http://[::1]:8080/", "http://[::1]:8080"),
        ("http://frontend:8080\r\n", "http://frontend:8080"),
    ],
)
def test_the_frontends_url_loses_its_trailing_slashes(text: str, url: str) -> None:
    assert resolve({"LOCALAI_REGISTER_TO": text}).settings.register_to == url


@pytest.mark.parametrize(
    "text", ["", " ", "frontend:8080", "ftp://f", "http://", "http://f:x", "http://f?a=b"]
)
def test_a_frontend_url_that_is_none_is_an_error_with_the_remedy(text: str) -> None:
    said = error({"LOCALAI_REGISTER_TO": text})
    assert said.startswith(f'LOCALAI_REGISTER_TO="{text}" must be the frontend\'s base URL, like http://')


def test_what_is_missing_is_named_by_variable_and_flag() -> None:
    found = survey({})
    assert str(found.errors[0]) == (
        "LOCALAI_REGISTER_TO or --register-to is not set;"
        " it must be the frontend's base URL, like http://frontend:8080"
    )
    assert [each.name for each in found.errors] == [
        "LOCALAI_REGISTER_TO or --register-to",
        "LOCALAI_NATS_URL or --nats-url",
    ]
    assert found.settings is None
    assert value(found, "register_to") == OptionValue(value(found, "register_to").option, None, "not set")


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        (
            {"LOCALAI_GRPC_MAX_PORT": "many"},
            'LOCALAI_GRPC_MAX_PORT="many" must be a whole number, like 60000',
        ),
        ({"LOCALAI_MAX_REPLICAS_PER_MODEL": "2.5"}, "must be a whole number"),
        ({"DEBUG": "app:*"}, 'DEBUG="app:*" must be true, 1, yes, false, 0 or no'),
        ({"LOCALAI_LOG_LEVEL": "loud"}, "must be one of error, warn, info, debug, trace"),
        ({"LOCALAI_LOG_FORMAT": "xml"}, "must be one of default, text, json"),
        ({"LOCALAI_WORKER_BUS": "kafka"}, "must be one of nats, memory"),
        ({"LOCALAI_BACKEND_READY_TIMEOUT": "30"}, "must be a duration"),
        ({"LOCALAI_BACKEND_READY_TIMEOUT": "0s"}, "must be a duration of at least 0.1s"),
        ({"LOCALAI_BACKEND_STOP_GRACE": "-1s"}, "must be a duration of at least 0s"),
        ({"LOCALAI_HTTP_ADDR": "8080"}, 'LOCALAI_HTTP_ADDR="8080" must be host:port, like 0.0.0.0:50050'),
        ({"LOCALAI_STORAGE_URL": "minio:9000"}, "must be the S3 endpoint, like http://minio:9000"),
        ({"LOCALAI_BACKEND_ENV": "HF_TOKEN,9x"}, "must be names of variables"),
        (
            {"LOCALAI_MODELS_PATH": ""},
            'LOCALAI_MODELS_PATH="" must be a directory; unset it for /srv/worker/models',
        ),
        ({"LOCALAI_BACKENDS_PATH": " "}, "unset it for /srv/worker/backends"),
        ({"LOCALAI_NODE_NAME": "n" * 256}, "must be at most 255 bytes long"),
        ({"LOCALAI_NODE_NAME": "a\nb"}, "must be one line of UTF-8 without control characters"),
        ({"LOCALAI_NODE_NAME": "a\udcff"}, "must be one line of UTF-8"),
        ({"LOCALAI_NATS_TLS_CERT": "/c.pem"}, "must be given together with LOCALAI_NATS_TLS_CERT"),
        ({"LOCALAI_NATS_TLS_KEY": "/k.pem"}, "must be given together with LOCALAI_NATS_TLS_KEY"),
    ],
)
def test_a_wrong_value_is_one_line_that_says_what_would_be_right(
    environment: dict[str, str], said: str
) -> None:
    assert said in error(environment)


def test_a_wrong_flag_is_named_as_the_flag() -> None:
    assert error({"LOCALAI_GRPC_MAX_PORT": "7"}, grpc_max_port="x").startswith('--grpc-max-port="x" must be')


def test_an_empty_flag_is_no_switch() -> None:
    assert error(debug="").startswith('--debug="" must be true')


@pytest.mark.parametrize(
    ("text", "warning"),
    [
        ("10", 'LOCALAI_HEARTBEAT_INTERVAL="10" is used as 10s; it must be a duration'),
        ("soon", "is used as 10s"),
        ("0", "is used as 10s; it must be at least 0.05s"),
        ("-5s", "is used as 10s"),
        ("10ns", "is used as 10s"),
    ],
)
def test_a_heartbeat_interval_that_is_none_is_ten_seconds(text: str, warning: str) -> None:
    """N-B35: a negative one crashes upstream."""
    resolved = resolve({"LOCALAI_HEARTBEAT_INTERVAL": text})
    assert resolved.settings.heartbeat_interval_s == 10.0
    assert warning in resolved.warnings[0]
    assert value(resolved, "heartbeat_interval").shown == "10s"


def test_a_long_heartbeat_interval_is_kept_with_a_warning() -> None:
    """H-21: the frontend gives a node up after 60 s."""
    resolved = resolve({"LOCALAI_HEARTBEAT_INTERVAL": "1m"})
    assert resolved.settings.heartbeat_interval_s == 60.0
    assert "60s after its last heartbeat" in resolved.warnings[0]


@pytest.mark.parametrize("text", ["", "[", "{}", '[{"url":1}]'])
@pytest.mark.parametrize("name", ["LOCALAI_BACKEND_GALLERIES", "LOCALAI_GALLERIES"])
def test_a_bad_gallery_list_is_a_warning_and_no_gallery(name: str, text: str) -> None:
    """G-1.1.5, M-1.4."""
    resolved = resolve({name: text})
    (warning,) = resolved.warnings
    assert warning.startswith(f'{name}="{text}" leaves no gallery: ')
    galleries = resolved.settings.backend_galleries if "BACKEND" in name else resolved.settings.galleries
    assert galleries == ()


def test_gallery_null_is_no_gallery_without_a_warning() -> None:
    resolved = resolve({"LOCALAI_BACKEND_GALLERIES": "null"})
    assert (resolved.settings.backend_galleries, resolved.warnings) == ((), ())


@pytest.mark.parametrize(
    ("text", "max_port", "warned"),
    [("60000", 60000, 0), ("0xEA60", 60000, 0), ("70000", 65535, 1), ("80", 65535, 1)],
)
def test_port_bounds_are_warned_about_not_refused(text: str, max_port: int, warned: int) -> None:
    """S-W30: clamped or ignored."""
    resolved = resolve({"LOCALAI_GRPC_MAX_PORT": text})
    assert resolved.settings.grpc_max_port == max_port
    assert resolved.settings.grpc_ports == range(50051, max_port + 1)
    assert len(resolved.warnings) == warned
    assert value(resolved, "grpc_max_port").shown == str(max_port)


def test_derived_addresses_are_shown_and_their_warnings_name_what_was_set() -> None:
    """N-B18, H-25: as the frontend will be told."""
    resolved = resolve({"LOCALAI_ADDR": "0.0.0.0:6000"}, http_addr=":8080")
    assert str(resolved.settings.addresses.http) == "gpu-1:8080"
    assert resolved.warnings == (
        'LOCALAI_ADDR="0.0.0.0:6000" cannot be dialled by the frontend as it is; it is told gpu-1:6000',
    )
    shown = {
        name: (value(resolved, name).shown, value(resolved, name).source)
        for name in ("addr", "advertise_addr", "http_addr", "advertise_http_addr")
    }
    assert shown == {
        "addr": ("0.0.0.0:6000", "environment LOCALAI_ADDR"),
        "advertise_addr": ("gpu-1:6000", "derived"),
        "http_addr": ("0.0.0.0:8080", "flag --http-addr"),
        "advertise_http_addr": ("gpu-1:8080", "derived"),
    }


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("/models", "/models"),
        ("models", "/srv/worker/models"),
        ("../models", "/srv/models"),
        ("/a/../models/", "/models"),
        ("~", "/home/op"),
        ("~/models", "/home/op/models"),
        ("~other/models", "/srv/worker/~other/models"),
    ],
)
def test_paths_are_absolute_and_know_the_home_directory(text: str, path: str) -> None:
    resolved = resolve({"LOCALAI_MODELS_PATH": text})
    assert str(resolved.settings.models_path) == path
    assert resolved.settings.state_path == Path(path).parent / "localai-worker"
    assert value(resolved, "models_path").shown == path


def test_an_empty_system_path_means_no_system_backends() -> None:
    assert resolve({"LOCALAI_BACKENDS_SYSTEM_PATH": ""}).settings.backends_system_path is None


def test_an_empty_state_path_is_the_default_one() -> None:
    assert resolve({"LOCALAI_WORKER_STATE_PATH": ""}).settings.state_path == CWD / "localai-worker"
    assert resolve(state_path="/var/lib/w").settings.state_path == Path("/var/lib/w")


def test_lists_are_trimmed_and_keep_order_and_duplicates() -> None:
    assert resolve(prefetch_models=" b, a,,b ").settings.prefetch_models == ("b", "a", "b")
    assert resolve(backend_env="HF_TOKEN,CUDA_*").settings.backend_env == ("HF_TOKEN", "CUDA_*")
    assert resolve({"LOCALAI_BACKEND_ENV": " , "}).settings.backend_env is None


@pytest.mark.parametrize("name", ["LOCALAI_NATS_REQUIRE_AUTH", "LOCALAI_DISTRIBUTED_REQUIRE_AUTH"])
def test_nats_auth_is_required_by_its_own_or_the_umbrella_switch(name: str) -> None:
    """S-W06: either is enough."""
    assert resolve({name: "true"}).settings.requires_nats_auth
    assert not resolve({name: "false"}).settings.requires_nats_auth


@pytest.mark.parametrize("name", ["LOCALAI_REGISTRATION_REQUIRE_AUTH", "LOCALAI_DISTRIBUTED_REQUIRE_AUTH"])
def test_registration_auth_is_required_by_its_own_or_the_umbrella_switch(name: str) -> None:
    """S-W06, H-73385713c: either is enough, and without a token there is no start."""
    assert resolve({name: "yes"}).settings.requires_registration_auth
    assert not resolve({name: "no"}).settings.requires_registration_auth
    said = error({name: "1", "LOCALAI_REGISTRATION_TOKEN": ""})
    assert said.startswith('LOCALAI_REGISTRATION_TOKEN="" must be the frontend\'s token, because')


def test_each_switch_requires_only_its_own_auth() -> None:
    """S-W06: the granular switches do not imply each other."""
    assert not resolve(nats_require_auth="true").settings.requires_registration_auth
    assert not resolve(registration_require_auth="true").settings.requires_nats_auth


def test_a_missing_token_is_loudly_warned_about() -> None:
    """G-W15."""
    (warning,) = resolve({"LOCALAI_REGISTRATION_TOKEN": ""}).warnings
    assert "open to whoever reaches their ports" in warning


@pytest.mark.parametrize(("one", "other"), [("nats_jwt", "nats_user_seed"), ("nats_user_seed", "nats_jwt")])
def test_a_nats_jwt_without_its_seed_or_the_reverse_is_an_error(one: str, other: str) -> None:
    """S-W07: never silently anonymous."""
    said = error(**{one: "SUXSECRET"})
    assert f"--{other.replace('_', '-')}" in said
    assert "SUXSECRET" not in said


@pytest.mark.parametrize(("text", "replicas"), [("4", 4), ("1", 1), ("0", 1), ("-3", 1)])
def test_less_than_one_replica_is_one(text: str, replicas: int) -> None:
    """S-W10: 0 becomes 1."""
    resolved = resolve({"LOCALAI_MAX_REPLICAS_PER_MODEL": text})
    assert resolved.settings.max_replicas_per_model == replicas
    assert bool(resolved.warnings) == (text != str(replicas))


def test_labels_are_parsed_and_odd_ones_warned_about() -> None:
    """S-W10: the operator's labels are kept."""
    resolved = resolve({"LOCALAI_NODE_LABELS": "zone=eu, gpu"})
    assert resolved.settings.node_labels == {"zone": "eu"}
    assert resolved.warnings == (
        'LOCALAI_NODE_LABELS: "gpu" has no "=" and is ignored; labels are written key=value',
    )


@pytest.mark.parametrize(("text", "warned"), [("", 0), ("80%", 0), ("12GB", 0), ("lots", 1)])
def test_the_vram_budget_is_kept_as_given(text: str, warned: int) -> None:
    """S-W11: the frontend applies it; one it would ignore is warned about."""
    resolved = resolve({"LOCALAI_VRAM_BUDGET": text})
    assert resolved.settings.vram_budget == text
    assert len(resolved.warnings) == warned


def test_the_node_name_falls_back_to_the_hostname_then_the_process_id() -> None:
    assert resolve().settings.node_name == "gpu-1"
    assert resolve({"LOCALAI_NODE_NAME": "mine"}).settings.node_name == "mine"
    assert resolve({"LOCALAI_NODE_NAME": ""}).settings.node_name == "gpu-1"
    resolved = resolve_settings({}, REQUIRED, cwd=CWD, home=HOME, hostname="", pid=42)
    assert resolved.settings.node_name == "node-42"
    assert (value(resolved, "node_name").shown, value(resolved, "node_name").source) == ("node-42", "derived")


@pytest.mark.parametrize(
    ("flags", "level"),
    [
        ({}, "info"),
        ({"debug": "true"}, "debug"),
        ({"debug": "false"}, "info"),
        ({"debug": "true", "log_level": "error"}, "error"),
        ({"log_level": "TRACE"}, "trace"),
    ],
)
def test_debug_is_a_log_level_unless_one_is_given(flags: dict[str, str], level: str) -> None:
    assert resolve(**flags).settings.log_level == level


@pytest.mark.parametrize(("text", "dedup"), [("true", True), ("false", False), ("", None)])
def test_folding_of_repeated_lines_is_decided_by_the_terminal_unless_it_is_set(
    text: str, dedup: bool | None
) -> None:
    assert resolve(log_dedup_logs=text).settings.log_dedup_logs is dedup


def test_half_a_pair_of_storage_keys_is_warned_about_and_a_missing_bucket_is_the_frontends() -> None:
    """S-1.2.5, S-1.2.6"""
    resolved = resolve({"LOCALAI_STORAGE_URL": "http://minio:9000/", "LOCALAI_STORAGE_ACCESS_KEY": "AKIA"})
    assert resolved.settings.storage_url == "http://minio:9000"
    assert resolved.settings.storage_bucket == "localai"
    assert "AWS defaults" in resolved.warnings[0]
    assert resolve().settings.storage_bucket == ""
    assert resolve(storage_url="http://minio:9000", storage_bucket="b").settings.storage_bucket == "b"


def test_a_shared_directory_is_an_object_store_too() -> None:
    assert resolve(storage_url="file:///mnt/objects").settings.storage_url == "file:///mnt/objects"
    for wrong in ("file://objects", "file:///", "file://host/mnt/objects", "s3://bucket"):
        with pytest.raises(SettingsError, match=r"the S3 endpoint, .* or a shared directory"):
            resolve(storage_url=wrong)


@pytest.mark.parametrize("text", ["", "500GB", "1TiB", "60%"])
def test_the_cache_limit_is_a_size_or_a_share(text: str) -> None:
    assert resolve(storage_cache_limit=text).settings.storage_cache_limit == text


def test_a_cache_limit_that_is_none_is_refused() -> None:
    with pytest.raises(SettingsError, match="a size like 500GB"):
        resolve(storage_cache_limit="much")


def test_files_must_exist_but_only_where_the_disk_may_be_read(tmp_path: Path) -> None:
    present = tmp_path / "ca.pem"
    present.write_text("-----BEGIN CERTIFICATE-----")
    require_files(resolve(nats_tls_ca=str(present)).values)
    resolved = resolve({"LOCALAI_NATS_TLS_CA": str(tmp_path / "gone.pem")})
    with pytest.raises(SettingsError, match=r'LOCALAI_NATS_TLS_CA=".*gone\.pem" must be a file that exists'):
        require_files(resolved.values)
    with pytest.raises(SettingsError, match="must be a file"):
        require_files(resolve(nats_tls_ca=str(tmp_path)).values)


@pytest.mark.parametrize("name", ["nats_jwt", "nats_user_seed"])
def test_nats_credentials_that_cannot_be_any_are_an_error_that_does_not_show_them(name: str) -> None:
    """S-W07: a worker that would be refused for ever does not start."""
    pair = NatsUsers().mint("worker")
    given = {"nats_jwt": pair.jwt, "nats_user_seed": pair.seed, name: "hush"}
    said = error(**given)
    assert f"--{name.replace('_', '-')}=" in said
    assert "hush" not in said
    good = resolve(**{**given, name: getattr(pair, {"nats_jwt": "jwt"}.get(name, "seed"))}).settings
    assert (good.nats_jwt, good.nats_user_seed) == (pair.jwt, pair.seed)


def test_no_print_of_the_settings_shows_a_secret() -> None:
    pair = NatsUsers().mint("worker")
    secrets = {
        "LOCALAI_REGISTRATION_TOKEN": "hush-1",
        "LOCALAI_NATS_JWT": pair.jwt,
        "LOCALAI_NATS_USER_SEED": pair.seed,
        "LOCALAI_STORAGE_ACCESS_KEY": "hush-4",
        "LOCALAI_STORAGE_SECRET_KEY": "hush-5",
        "LOCALAI_NATS_URL": "nats://user:hush-6@nats:4222,hush-7@nats-2:4222",
        "LOCALAI_REGISTER_TO": "http://user:hush-8@frontend",
        "LOCALAI_STORAGE_URL": "http://user:hush-9@minio",
        "LOCALAI_BACKEND_GALLERIES": '[{"name":"x","url":"https://u:hush-10@g/i.yaml"}]',
        "LOCALAI_GALLERIES": 'broken [{"url":"https://u:hush-11@g/i.yaml"}]',
    }
    resolved = resolve(secrets)
    assert resolved.settings.registration_token == "hush-1"
    printed = [repr(resolved), repr(resolved.settings), *resolved.warnings]
    printed += [each.shown or "" for each in resolved.values]
    assert "hush" not in "".join(printed)
    assert "frontend" in repr(resolved.settings)


@pytest.mark.parametrize(
    "environment",
    [
        {"LOCALAI_NATS_URL": "http://user:hush@nats"},
        {"LOCALAI_NATS_URL": "user:hu/sh,hush@nats:x"},
        {"LOCALAI_REGISTER_TO": "user:hush@frontend"},
        {"LOCALAI_REGISTRATION_TOKEN": "hush\x00hush"},
        {"LOCALAI_STORAGE_SECRET_KEY": "hush\thush"},
    ],
)
def test_no_error_shows_a_secret(environment: dict[str, str]) -> None:
    assert "hu" not in error(environment).partition(" must be")[0]


def test_no_secret_setting_reaches_a_backend() -> None:
    for name in (name for option in OPTIONS if option.secret for name in option.env):
        assert name not in backend_environment({name: "hush"}, token="changeme")


def test_a_token_from_a_mounted_file_loses_its_line_end() -> None:
    assert resolve({"LOCALAI_REGISTRATION_TOKEN": "changeme\n"}).settings.registration_token == "changeme"


def test_a_very_long_wrong_value_is_cut_in_the_error() -> None:
    assert len(error({"LOCALAI_GRPC_MAX_PORT": "x" * 100_000})) < 250


_anything = st.text(max_size=30) | st.sampled_from(["", "1", "true", "10s", "a:1", "http://x", "[]", "0x1F"])
_environments = st.dictionaries(
    st.sampled_from([name for option in OPTIONS for name in option.env]), _anything
)
_flags = st.dictionaries(st.sampled_from([option.field for option in OPTIONS]), _anything)


@given(_environments, _flags)
def test_any_input_gives_settings_or_one_line_errors(
    environment: dict[str, str], flags: dict[str, str]
) -> None:
    found = survey(environment, flags)
    assert (found.settings is None) == bool(found.errors)
    assert [each.option for each in found.values] == list(OPTIONS)
    for line in (*map(str, found.errors), *found.warnings, *(each.shown or "" for each in found.values)):
        assert line.isprintable() or not line
    if found.settings:
        assert found.settings.heartbeat_interval_s > 0
        assert found.settings.max_replicas_per_model >= 1
        assert found.settings.models_path.is_absolute()
        assert found.settings.addresses.base_port in found.settings.grpc_ports
