"""A TCP proxy in front of a real server that cuts, stalls and lies, as networks and stores do."""

import socket
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

BLOCK_BYTES = 64 * 1024


@dataclass
class FaultyProxy:
    """What happens to answers on their way to the client.

    `cuts`: after how many bytes each of the next connections is cut. `stalls`: after how many bytes each of
    the next ones falls silent. `replace`: bytes put in place of others in what the server sends.
    `bytes_per_s`: how fast each connection is; 0 is as fast as it goes.
    """

    port: int
    target: int
    cuts: deque[int] = field(default_factory=deque)
    stalls: deque[int] = field(default_factory=deque)
    replace: tuple[bytes, bytes] | None = None
    upload_cuts: deque[int] = field(default_factory=deque)
    upload_limit: int | None = None
    upload_stall: int | None = None
    refusing: bool = False
    bytes_per_s: float = 0.0
    connections: int = 0
    requests: list[bytes] = field(default_factory=list)
    stalled: threading.Event = field(default_factory=threading.Event)
    _closing: threading.Event = field(default_factory=threading.Event)
    _released: threading.Event = field(default_factory=threading.Event)
    _resumed: threading.Event = field(default_factory=threading.Event)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def resume(self) -> None:
        """Let through what the client sends, from now on and what waited."""
        self.upload_stall = None
        self._resumed.set()

    def release(self) -> None:
        """Cut the connections that have fallen silent; what waited is lost."""
        self.upload_stall = None
        self._released.set()
        self._resumed.set()

    def close(self) -> None:
        self._closing.set()
        self._released.set()
        self._resumed.set()

    def serve(self, listener: socket.socket) -> None:
        while not self._closing.is_set():
            try:
                client, _ = listener.accept()
            except OSError:
                return
            if self.refusing:
                client.close()
                continue
            self.connections += 1
            threading.Thread(target=self._join, args=(client,), daemon=True).start()

    def _join(self, client: socket.socket) -> None:
        cut = self.cuts.popleft() if self.cuts else None
        stall = self.stalls.popleft() if self.stalls else None
        with client, socket.create_connection(("127.0.0.1", self.target)) as server:
            threading.Thread(target=self._ask, args=(client, server), daemon=True).start()
            sent = 0
            with suppress(OSError):
                while block := server.recv(BLOCK_BYTES):
                    if self.replace:
                        block = block.replace(*self.replace)
                    if cut is not None and sent + len(block) > cut:
                        client.sendall(block[: cut - sent])
                        client.shutdown(socket.SHUT_RDWR)
                        return
                    if stall is not None and sent + len(block) > stall:
                        client.sendall(block[: stall - sent])
                        self.stalled.set()
                        self._released.wait(60)
                        client.shutdown(socket.SHUT_RDWR)
                        return
                    client.sendall(block)
                    sent += len(block)
                    if self.bytes_per_s:
                        self._closing.wait(len(block) / self.bytes_per_s)
                client.shutdown(socket.SHUT_RDWR)

    def _ask(self, client: socket.socket, server: socket.socket) -> None:
        sent, cut = 0, self.upload_cuts.popleft() if self.upload_cuts else None
        with suppress(OSError):
            while block := client.recv(BLOCK_BYTES):
                self.requests.append(block)
                sent += len(block)
                limits = (limit for limit in (cut, self.upload_limit) if limit is not None)
                if self.refusing or sent > min(limits, default=sent):
                    client.shutdown(socket.SHUT_RDWR)
                    break
                if self.upload_stall is not None and sent > self.upload_stall:
                    self.stalled.set()
                    self._resumed.wait(60)
                    if self._released.is_set():
                        break
                server.sendall(block)
        with suppress(OSError):
            server.shutdown(socket.SHUT_RDWR)


@contextmanager
def faulty_proxy(target: int) -> Iterator[FaultyProxy]:
    """A proxy in front of the port `target` of this machine."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(64)
        proxy = FaultyProxy(listener.getsockname()[1], target)
        thread = threading.Thread(target=proxy.serve, args=(listener,), daemon=True)
        thread.start()
        try:
            yield proxy
        finally:
            proxy.close()
            listener.shutdown(socket.SHUT_RDWR)
    thread.join(10)
