"""How LOCALAI_NATS_URL is read, and that nothing secret in it is ever shown."""

import subprocess
import sys
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from localai_worker.adapters.nats.bus import NatsMessageBus
from localai_worker.adapters.nats.servers import Server, mask, parse_servers
from localai_worker.domain.errors import BusUnavailable


@pytest.mark.parametrize(
    ("text", "servers"),
    [
        ("", [Server("nats", "127.0.0.1", 4222)]),
        (" , ", [Server("nats", "127.0.0.1", 4222)]),
        ("nats://broker:4222", [Server("nats", "broker", 4222)]),
        ("broker", [Server("nats", "broker", 4222)]),
        ("broker:5000", [Server("nats", "broker", 5000)]),
        ("nats://broker/", [Server("nats", "broker", 4222)]),
        ("tls://broker", [Server("tls", "broker", 4222)]),
        ("NATS://Broker", [Server("nats", "broker", 4222)]),
        ("nats://[::1]:4222", [Server("nats", "::1", 4222)]),
        ("wss://broker/nats", [Server("wss", "broker", 443, "/nats")]),
        ("nats://ada:lovelace@broker", [Server("nats", "broker", 4222, user="ada", password="lovelace")]),
        ("nats://ada:@broker", [Server("nats", "broker", 4222, user="ada", password="")]),
        ("nats://p%40ss%2C%20word@broker", [Server("nats", "broker", 4222, token="p@ss, word")]),
        ("token@broker:1", [Server("nats", "broker", 1, token="token")]),
        (
            "nats://a:4222, tls://u:p@b:4223 ,c\n",
            [
                Server("nats", "a", 4222),
                Server("tls", "b", 4223, user="u", password="p"),
                Server("nats", "c", 4222),
            ],
        ),
    ],
)
def test_server_lists_are_read_as_nats_go_reads_them(text: str, servers: list[Server]) -> None:
    assert list(parse_servers(text)) == servers


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("http://broker:4222", 'unknown scheme "http"'),
        ("nats://", "host name"),
        ("nats://:4222", "host name"),
        ("nats://ada:sesame@", "host name"),
        ("nats://ada:sesame@my broker", "host name"),
        ("nats://ada:sesame@broker:port", "port"),
        ("nats://ada:sesame@broker:0", "port"),
        ("nats://ada:sesame@broker:65536", "port"),
        ("nats://ada:sesame@[::1", "malformed"),
        ("nats://ada:sesame@[1::2::3]", "malformed"),
        ("nats://ada:ses/ame@broker", "port"),
        ("nats://ada:ses,ame@broker", "port"),
        ("nats://broker,ws://broker", "mixed"),
    ],
)
async def test_a_malformed_address_fails_at_once_and_shows_no_password(text: str, hint: str) -> None:
    with pytest.raises(BusUnavailable, match=hint) as caught:
        await NatsMessageBus(text).open()
    assert "ses" not in str(caught.value)
    assert not caught.value.retrying


async def test_a_websocket_address_names_the_package_it_needs() -> None:
    with pytest.raises(BusUnavailable, match="aiohttp"):
        await NatsMessageBus("ws://broker").open()


def test_a_server_shows_that_there_are_credentials_but_not_which() -> None:
    plain, secret = parse_servers("nats://a:1"), parse_servers("tls://ada:lovelace@[::1]:2,nats://token@c:3")
    assert [str(server) for server in plain] == ["nats://a:1"]
    assert [str(server) for server in secret] == ["tls://***@[::1]:2", "nats://***@c:3"]
    assert "lovelace" not in repr(secret)
    assert secret[0].url == "tls://[::1]:2"


@given(st.text(min_size=1), st.text(min_size=1))
def test_any_credentials_come_back_when_percent_encoded(user: str, password: str) -> None:
    (server,) = parse_servers(f"nats://{quote(user, safe='')}:{quote(password, safe='')}@broker")
    assert (server.user, server.password, server.host) == (user, password, "broker")


@given(st.text(), st.text().filter(lambda rest: "@" not in rest))
def test_masking_leaves_nothing_of_what_stands_before_the_host(secret: str, rest: str) -> None:
    assert mask(f"nats://{secret}@{rest}") == f"nats://***@{rest}"
    assert mask(f"nats://a:1,nats://{secret}@{rest}") == f"nats://***@{rest}"
    if "://" not in secret:
        assert mask(f"{secret}@{rest}") == f"***@{rest}"


def test_the_bus_is_imported_without_nats() -> None:
    code = "import sys, localai_worker.adapters.nats.bus; sys.exit('nats' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
