"""What every `Network` promises, held against the one in memory and this machine's."""

import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol

import pytest
from hypothesis import given
from hypothesis import strategies as st

from localai_worker.adapters.memory.backend import FakeBackend
from localai_worker.adapters.memory.machine import InMemoryMachine
from localai_worker.adapters.memory.network import InMemoryNetwork
from localai_worker.adapters.network.local import LocalNetwork
from localai_worker.domain.ports.network import Network
from tests.servers import free_port


class Place(Protocol):
    """A machine on which somebody else can take ports."""

    network: Network

    def listen(self, port: int) -> Callable[[], None]:
        """Take `port`; the result lets go of it."""

    def connect(self, port: int) -> Callable[[], None]:
        """Connect a client to `port`, which somebody listens on; the result disconnects it."""


class InMemoryPlace:
    def __init__(self) -> None:
        self.machine = InMemoryMachine()
        self.network: Network = InMemoryNetwork(self.machine)

    def listen(self, port: int) -> Callable[[], None]:
        self.machine.strangers[port] = FakeBackend()
        return lambda: self.machine.strangers.clear()

    def connect(self, port: int) -> Callable[[], None]:
        connections = self.machine.connections
        assert connections is not None
        connections[port] = connections.get(port, 0) + 1

        def disconnect() -> None:
            connections[port] -= 1

        return disconnect


class RealPlace:
    def __init__(self, stack: ExitStack) -> None:
        self.stack = stack
        self.network: Network = LocalNetwork()

    def listen(self, port: int) -> Callable[[], None]:
        listener = self.stack.enter_context(socket.create_server(("127.0.0.1", port)))
        return listener.close

    def connect(self, port: int) -> Callable[[], None]:
        return self.stack.enter_context(socket.create_connection(("127.0.0.1", port))).close


@pytest.fixture(params=["memory", "local"])
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    with ExitStack() as stack:
        yield InMemoryPlace() if request.param == "memory" else RealPlace(stack)


def test_a_port_nobody_listens_on_is_free(place: Place) -> None:
    port = free_port()
    assert place.network.can_listen(port)
    assert place.network.can_listen(port)  # it was let go again


def test_a_port_is_taken_while_somebody_listens_and_free_afterwards(place: Place) -> None:
    """G-W16, N-B16: tried before a backend gets the port."""
    port = free_port()
    let_go = place.listen(port)
    assert not place.network.can_listen(port)
    let_go()
    assert place.network.can_listen(port)


@pytest.mark.parametrize("port", [-1, 0, 65536, 2**40])
def test_what_is_no_port_cannot_be_listened_on(place: Place, port: int) -> None:
    assert not place.network.can_listen(port)


async def test_a_port_has_the_connections_of_its_clients_until_they_close(place: Place) -> None:
    """H-30: what a worker knows of requests in flight without asking the frontend."""
    port = free_port()
    place.listen(port)
    assert await place.network.connections([port]) == 0
    first, second = place.connect(port), place.connect(port)
    assert await place.network.connections([port]) == 2
    first()
    assert await place.network.connections([port]) == 1
    second()
    assert await place.network.connections([port]) == 0


async def test_only_the_ports_that_are_asked_about_count_and_each_of_them_once(place: Place) -> None:
    ports: list[int] = []
    while len(ports) < 3:
        if (port := free_port()) not in ports:
            ports.append(port)
            place.listen(port)
            place.connect(port)
    assert await place.network.connections(ports) == 3
    assert await place.network.connections([ports[0], ports[2], ports[0]]) == 2
    assert await place.network.connections({free_port()}) == 0
    assert await place.network.connections(()) == 0


@given(st.integers(min_value=1024, max_value=65535), st.integers(min_value=1024, max_value=65535))
def test_in_memory_only_the_port_that_is_taken_is_taken(taken: int, asked: int) -> None:
    network = InMemoryNetwork(InMemoryMachine(strangers={taken: FakeBackend()}))
    assert network.can_listen(asked) == (asked != taken)


def test_in_memory_the_systems_ports_are_reserved() -> None:
    assert not InMemoryNetwork(InMemoryMachine()).can_listen(443)
    assert InMemoryNetwork(InMemoryMachine(), reserved={50051}).can_listen(443)
    assert not InMemoryNetwork(InMemoryMachine(), reserved={50051}).can_listen(50051)


REUSE = {
    "plain": (),
    "SO_REUSEADDR": (socket.SO_REUSEADDR,),
    "SO_REUSEPORT": (socket.SO_REUSEPORT,),
    "both": (socket.SO_REUSEADDR, socket.SO_REUSEPORT),
}


@pytest.mark.parametrize("options", REUSE.values(), ids=REUSE)
@pytest.mark.parametrize("address", ["0.0.0.0", "127.0.0.1", "127.0.0.2", "::", "::1", "::ffff:127.0.0.1"])
def test_a_listener_is_seen_on_every_interface_whatever_it_would_share(
    address: str, options: tuple[int, ...]
) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    port = free_port()
    with socket.socket(family) as listener:
        for option in options:
            listener.setsockopt(socket.SOL_SOCKET, option, 1)
        try:
            listener.bind((address, port))
        except OSError as error:
            pytest.skip(f"this machine has no {address}: {error}")
        listener.listen()
        assert not LocalNetwork().can_listen(port)
    assert LocalNetwork().can_listen(port)


def test_an_ipv6_only_listener_is_seen() -> None:
    port = free_port()
    try:
        listener = socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=False)
    except OSError as error:
        pytest.skip(f"this machine has no IPv6: {error}")
    with listener:
        assert not LocalNetwork().can_listen(port)


def test_connections_in_time_wait_do_not_take_the_port() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)) as client:
            accepted, _ = listener.accept()
            accepted.close()  # who closes first keeps the connection in TIME_WAIT
            assert client.recv(1) == b""
    with socket.socket() as naive, pytest.raises(OSError, match="in use"):
        naive.bind(("0.0.0.0", port))  # so there is something that could mislead us
    assert LocalNetwork().can_listen(port)


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "::ffff:127.0.0.1"])
async def test_a_connection_is_seen_on_both_families(address: str) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    port = free_port()
    with socket.socket(family) as listener, socket.socket(family) as client:
        try:
            listener.bind((address, port))
        except OSError as error:
            pytest.skip(f"this machine has no {address}: {error}")
        listener.listen()
        client.connect((address, port))
        assert await LocalNetwork().connections([port]) == 1  # even before anybody accepts it
        assert await LocalNetwork().connections([client.getsockname()[1]]) == 1  # the other end's own port
        accepted, _ = listener.accept()
        accepted.close()
        assert await LocalNetwork().connections([port]) == 0


async def test_a_machine_without_socket_tables_cannot_tell(tmp_path: Path) -> None:
    assert await LocalNetwork(tmp_path).connections([50051]) is None
    assert await InMemoryNetwork(InMemoryMachine(connections=None)).connections([50051]) is None


async def test_a_machine_without_ipv6_tells_of_ipv4(tmp_path: Path) -> None:
    head = (
        "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
    )
    line = (
        "   0: 0100007F:C383 0100007F:{:04X} {} 00000000:00000000 00:00000000 00000000  1000        0 77 1\n"
    )
    rows = [
        line.format(40000, "01"),
        line.format(40001, "01"),
        line.format(40002, "08"),
        line.format(0, "0A"),
    ]
    (tmp_path / "tcp").write_text(head + "".join(rows))
    assert await LocalNetwork(tmp_path).connections([50051]) == 2
