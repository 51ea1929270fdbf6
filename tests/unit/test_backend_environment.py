"""What backends inherit: everything but the worker's own secrets (D9)."""

import pytest

from localai_worker.domain.backend_environment import backend_environment

_WORKER = {
    "PATH": "/usr/bin",
    "LLAMACPP_PARALLEL": "4",
    "HTTPS_PROXY": "http://user:pass@proxy:3128",
    "LOCALAI_REGISTRATION_TOKEN": "s3cret",
    "LOCALAI_NATS_URL": "nats://worker:hunter2@bus:4222",
    "LOCALAI_NATS_USER_SEED": "SUAB",
    "AWS_SECRET_ACCESS_KEY": "k",
    "LOCALAI_GRPC_AUTH_TOKEN": "left over",
}


def test_secrets_of_the_worker_stay_out() -> None:
    """G-W14: third-party code gets no credentials of the bus, the store or the registration."""
    environment = backend_environment(_WORKER, token="")
    assert environment == {
        "PATH": "/usr/bin",
        "LLAMACPP_PARALLEL": "4",
        "HTTPS_PROXY": "http://user:pass@proxy:3128",
        "LOCALAI_BACKEND_PARENT_WATCH": "false",
    }


def test_the_token_goes_out_under_the_name_backends_read() -> None:
    environment = backend_environment(_WORKER, token="s3cret")
    assert environment["LOCALAI_GRPC_AUTH_TOKEN"] == "s3cret"
    assert "LOCALAI_REGISTRATION_TOKEN" not in environment


@pytest.mark.parametrize(
    ("value", "secret"),
    [
        ("nats://token@bus:4222", True),
        ("nats://a:4222,nats://b:pw@c:4222", True),
        ("https://example.com/@scope/package", False),
        ("nats://bus:4222", False),
        ("me@example.com", False),
    ],
)
def test_urls_with_credentials_are_recognised(value: str, secret: bool) -> None:
    assert ("ANY_NAME" in backend_environment({"ANY_NAME": value}, token="")) is not secret


def test_an_allow_list_is_strict_and_knows_prefixes() -> None:
    environment = backend_environment(_WORKER, token="", allowed=("PATH", "LLAMACPP_*"))
    assert set(environment) == {"PATH", "LLAMACPP_PARALLEL", "LOCALAI_BACKEND_PARENT_WATCH"}


def test_an_operator_may_allow_a_secret_by_name() -> None:
    environment = backend_environment(_WORKER, token="", allowed=("AWS_SECRET_ACCESS_KEY",))
    assert environment["AWS_SECRET_ACCESS_KEY"] == "k"


@pytest.mark.parametrize("allowed", [None, ("PATH",)])
def test_backends_do_not_end_with_their_worker_unless_the_operator_says_so(
    allowed: tuple[str, ...] | None,
) -> None:
    """G-F20: those that watch their parent would be gone before the next worker could take them over."""
    environment = backend_environment(_WORKER, token="", allowed=allowed)
    assert environment["LOCALAI_BACKEND_PARENT_WATCH"] == "false"
    told = backend_environment({"LOCALAI_BACKEND_PARENT_WATCH": "true"}, token="", allowed=allowed)
    assert told["LOCALAI_BACKEND_PARENT_WATCH"] == "true"
