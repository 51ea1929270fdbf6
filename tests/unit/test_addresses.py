"""Addresses: the port backends start at, what the frontend is told, where the file server listens."""

from ipaddress import IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from localai_worker.domain.addresses import (
    HostPort,
    NodeAddresses,
    WrongAddress,
    derive_addresses,
    effective_max_port,
    split_host_port,
)


def derive(
    addr: str = "",
    serve_addr: str = "0.0.0.0:50051",
    advertise_addr: str = "",
    http_addr: str = "",
    advertise_http_addr: str = "",
    hostname: str = "gpu-1",
) -> NodeAddresses:
    return derive_addresses(addr, serve_addr, advertise_addr, http_addr, advertise_http_addr, hostname)


def warned(addresses: NodeAddresses) -> list[str]:
    return [warning.setting for warning in addresses.warnings]


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("worker-1:50051", "worker-1", 50051),
        (" worker-1:50051 ", "worker-1", 50051),
        (":7000", "", 7000),
        ("worker-1", "worker-1", None),
        ("worker-1:", "worker-1", None),
        ("worker-1:grpc", "worker-1", None),
        ("worker-1:70000", "worker-1", None),
        ("worker-1:0", "worker-1", 0),
        ("7000", "", None),
        ("[::1]:7000", "::1", 7000),
        ("[::1]", "::1", None),
        ("[fe80::1%eth0]:7000", "fe80::1%eth0", 7000),
        ("::1", "::1", None),
        ("a:b:c", "", None),
        ("[::1", "::1", None),
        ("[::1]7000", "::1", None),
        ("http://worker-1:50050/", "worker-1", 50050),
        ("worker 1:50051", "", 50051),
        ("user@worker:1", "", 1),
        ("", "", None),
        (":", "", None),
        ("worker:٣", "worker", None),
    ],
)
def test_what_people_type_splits_into_host_and_port(text: str, host: str, port: int | None) -> None:
    assert split_host_port(text) == (host, port)


_hosts = st.from_regex(r"[a-z][a-z0-9.-]{0,20}", fullmatch=True) | st.ip_addresses().map(str)


@given(_hosts, st.integers(0, 65535))
def test_a_written_address_reads_back(host: str, port: int) -> None:
    address = HostPort(host, port)
    assert HostPort.parse(str(address)) == address
    assert split_host_port(str(address)) == (host, port)


@given(st.text())
def test_any_text_splits_without_an_error(text: str) -> None:
    host, port = split_host_port(text)
    assert not any(char.isspace() or char in "/@[]" for char in host)
    assert port is None or 0 <= port <= 65535


@pytest.mark.parametrize(
    "text", ["", "worker", "7000", "worker:", "worker:70000", "[::1]", "wor ker:80", "a:b:1"]
)
def test_an_address_to_listen_on_needs_a_port_and_a_possible_host(text: str) -> None:
    with pytest.raises(WrongAddress, match=r"like 0\.0\.0\.0:50050"):
        HostPort.parse(text)


@pytest.mark.parametrize(
    ("addr", "serve_addr", "base_port"),
    [
        ("worker-1:6000", "0.0.0.0:7000", 6000),
        (":6000", "0.0.0.0:7000", 6000),
        ("", "0.0.0.0:7000", 7000),
        ("", ":7000", 7000),
        ("", "", 50051),
    ],
)
def test_the_base_port_comes_from_addr_then_serve_addr_then_50051(
    addr: str, serve_addr: str, base_port: int
) -> None:
    """S-W01: the advertised address has no say in it."""
    addresses = derive(addr, serve_addr, advertise_addr="public:9999")
    assert (addresses.base_port, warned(addresses)) == (base_port, [])


@pytest.mark.parametrize("addr", ["worker-1:70000", "worker-1:0", "worker-1", "7000", "worker-1:x", "a:b:c"])
def test_a_wrong_port_falls_to_the_next_source_with_a_warning(addr: str) -> None:
    """S-W02: out of range, missing and unreadable ports alike."""
    addresses = derive(addr, "0.0.0.0:7000", advertise_addr="public:9999")
    assert (addresses.base_port, warned(addresses)) == (7000, ["addr"])


def test_two_wrong_ports_leave_the_default() -> None:
    """S-W02: each source is warned about."""
    addresses = derive("worker:0", "worker:99999", advertise_addr="public:9999")
    assert (addresses.base_port, warned(addresses)) == (50051, ["addr", "serve_addr"])


def test_a_bracketed_ipv6_address_gives_the_base_port() -> None:
    """S-W02: the brackets are accepted."""
    addresses = derive("[2001:db8::7]:6000")
    assert (addresses.base_port, str(addresses.grpc)) == (6000, "[2001:db8::7]:6000")


@pytest.mark.parametrize(
    ("addr", "advertise_addr", "told"),
    [
        ("worker-1:6000", "public:9999", "public:9999"),
        ("worker-1:6000", "", "worker-1:6000"),
        ("", "", "gpu-1:50051"),
    ],
)
def test_the_frontend_is_told_the_advertised_address_else_addr_else_the_hostname(
    addr: str, advertise_addr: str, told: str
) -> None:
    """S-W03: in this order, as written."""
    addresses = derive(addr, advertise_addr=advertise_addr)
    assert (str(addresses.grpc), addresses.warnings) == (told, ())


@pytest.mark.parametrize(
    ("advertise_addr", "told"),
    [
        ("0.0.0.0:9999", "gpu-1:9999"),
        ("[::]:9999", "gpu-1:9999"),
        ("*:9999", "gpu-1:9999"),
        (":9999", "gpu-1:9999"),
        ("public", "public:6000"),
        ("public:0", "public:6000"),
        ("2001:db8::7", "[2001:db8::7]:6000"),
        ("9999", "gpu-1:6000"),
        ("http://public:9999", "public:9999"),
    ],
)
def test_an_advertised_address_always_names_a_host_and_a_port(advertise_addr: str, told: str) -> None:
    """N-B18: wildcard hosts become the host name, missing ports the base port."""
    assert str(derive("worker-1:6000", advertise_addr=advertise_addr).grpc) == told


def test_a_replaced_host_or_port_is_warned_about() -> None:
    """N-B18: the operator hears what the frontend is told instead."""
    addresses = derive("0.0.0.0:6000")
    (warning,) = addresses.warnings
    assert (warning.setting, str(addresses.grpc)) == ("addr", "gpu-1:6000")
    assert "gpu-1:6000" in warning.effect


def test_a_machine_without_a_name_advertises_localhost_with_a_warning() -> None:
    addresses = derive(hostname="")
    assert (str(addresses.grpc), warned(addresses)) == ("localhost:50051", ["advertise_addr"])


def test_http_listens_below_the_base_port_on_every_interface() -> None:
    """S-W04: an explicit address is taken instead."""
    assert str(derive("worker-1:6000").http_bind) == "0.0.0.0:5999"
    assert str(derive("worker-1:6000", http_addr="127.0.0.1:8080").http_bind) == "127.0.0.1:8080"
    assert str(derive("worker-1:6000", http_addr=":8080").http_bind) == "0.0.0.0:8080"


def test_a_node_known_by_an_ipv6_address_listens_on_it() -> None:
    """N-B19: `::` takes both families."""
    assert str(derive("[2001:db8::7]:6000").http_bind) == "[::]:5999"
    assert str(derive("[2001:db8::7]:6000").http) == "[2001:db8::7]:5999"


def test_an_http_address_without_a_port_is_refused() -> None:
    with pytest.raises(WrongAddress):
        derive(http_addr="0.0.0.0")


@pytest.mark.parametrize(
    ("advertise_addr", "advertise_http_addr", "told"),
    [
        ("public:9999", "files:8080", "files:8080"),
        ("public:9999", "", "public:5999"),  # base port less one, not the advertised port less one
        ("", "", "worker-1:5999"),
        ("", ":8080", "worker-1:8080"),
        ("", "0.0.0.0:8080", "worker-1:8080"),
        ("", "files", "files:5999"),
    ],
)
def test_the_advertised_http_address_is_explicit_or_the_host_with_the_port_below_the_base(
    advertise_addr: str, advertise_http_addr: str, told: str
) -> None:
    """S-W05: and N-B18 holds for it too."""
    addresses = derive(
        "worker-1:6000", advertise_addr=advertise_addr, advertise_http_addr=advertise_http_addr
    )
    assert str(addresses.http) == told


def test_the_port_of_an_explicit_http_address_is_the_one_advertised() -> None:
    """H-25: upstream advertises the port below the base port, on which nobody listens."""
    assert str(derive("worker-1:6000", http_addr="0.0.0.0:8080").http) == "worker-1:8080"


def test_an_http_port_the_system_chooses_is_advertised_once_it_is_known() -> None:
    """H-25: no address with port 0 is advertised."""
    addresses = derive("worker-1:6000", http_addr="127.0.0.1:0").bound(41000)
    assert (str(addresses.http_bind), str(addresses.http)) == ("127.0.0.1:41000", "worker-1:41000")
    fixed = derive("worker-1:6000", http_addr="127.0.0.1:0", advertise_http_addr="nat:80").bound(41000)
    assert str(fixed.http) == "nat:80"
    assert derive().bound(41000) == derive()


def test_base_port_1_lets_the_system_choose_the_http_port() -> None:
    assert derive("worker-1:1").http_bind.port == 0


def test_a_replicas_address_has_the_advertised_host_and_its_own_port() -> None:
    assert derive("worker-1:6000", advertise_addr="public:9999").advertised(6003) == "public:6003"
    assert derive("[2001:db8::7]:6000").advertised(6003) == "[2001:db8::7]:6003"


_typed = st.sampled_from(
    [
        "",
        "0.0.0.0:1",
        "[::]:2",
        "host",
        "host:3",
        ":4",
        "7000",
        "host:70000",
        "[::1]:5",
        "::1",
        "a:b:c",
        "://",
    ]
) | st.text(max_size=12)


@given(_typed, _typed, _typed, _typed, st.sampled_from(["gpu-1", ""]))
def test_whatever_is_typed_the_frontend_gets_addresses_it_can_dial(
    addr: str, serve_addr: str, advertise_addr: str, advertise_http_addr: str, hostname: str
) -> None:
    """N-B18: never a wildcard, never port 0, for the node and for every replica."""
    addresses = derive_addresses(addr, serve_addr, advertise_addr, "", advertise_http_addr, hostname).bound(
        41000
    )
    assert 1 <= addresses.base_port <= 65535
    for address in (addresses.grpc, addresses.http, HostPort.parse(addresses.advertised(50052))):
        assert address.host not in {"", "0.0.0.0", "::", "*"}
        assert 1 <= address.port <= 65535
        assert HostPort.parse(str(address)) == address


@given(st.ip_addresses(v=6).filter(lambda ip: not ip.is_unspecified))
def test_ipv6_addresses_are_bracketed_exactly_once(ip: IPv6Address) -> None:
    assert derive(advertise_addr=f"[{ip}]:6000").advertised(7) == f"[{ip}]:7"
    assert derive(advertise_addr=str(ip)).advertised(7) == f"[{ip}]:7"


@pytest.mark.parametrize(
    ("configured", "max_port", "said"),
    [
        (0, 65535, ""),
        (-1, 65535, ""),
        (60000, 60000, ""),
        (50051, 50051, ""),
        (65536, 65535, "highest port 65535"),
        (50050, 65535, "below the base port 50051"),
    ],
)
def test_the_highest_port_is_honoured_clamped_or_ignored(configured: int, max_port: int, said: str) -> None:
    """S-W30: unset is 65535, above is clamped, below the base port is ignored; the last two are said."""
    effective, warning = effective_max_port(configured, 50051)
    assert effective == max_port
    assert said in warning
    assert bool(said) == bool(warning)
