"""What every `Network` promises, held against the one in memory and this machine's."""

import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
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


class InMemoryPlace:
    def __init__(self) -> None:
        self.machine = InMemoryMachine()
        self.network: Network = InMemoryNetwork(self.machine)

    def listen(self, port: int) -> Callable[[], None]:
        self.machine.strangers[port] = FakeBackend()
        return lambda: self.machine.strangers.clear()


class RealPlace:
    def __init__(self, stack: ExitStack) -> None:
        self.stack = stack
        self.network: Network = LocalNetwork()

    def listen(self, port: int) -> Callable[[], None]:
        listener = self.stack.enter_context(socket.create_server(("127.0.0.1", port)))
        return listener.close


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
