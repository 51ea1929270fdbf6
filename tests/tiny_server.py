"""A gRPC server of a few MB that answers every call with one text: one thread, sockets, no library.

Hundreds of them fit on a small machine. It speaks as much HTTP/2 as the worker's Health and Free need.
"""

import sys
from pathlib import Path

TINY_SERVER = r'''"""Answers every gRPC call with the bytes of Reply(message=<the first argument>)."""
import selectors, socket, sys

DATA, HEADERS, SETTINGS, PING = 0, 1, 4, 6
END_STREAM, END_HEADERS = 1, 4


def frame(kind, flags, stream, payload=b""):
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


STATUS_200 = b"\x88"
CONTENT_TYPE = b"\x0f\x10\x10application/grpc"  # name 31 of the static table
TRAILERS = b"\x00\x0bgrpc-status\x010"
HEALTH = sys.argv[1].encode()
MESSAGE = b"\x00\x00\x00\x00" + bytes((len(HEALTH) + 2, 10, len(HEALTH))) + HEALTH
PREFACE = len(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")


class Connection:
    def __init__(self, peer):
        self.peer, self.received, self.skip = peer, b"", PREFACE
        peer.sendall(frame(SETTINGS, 0, 0))

    def take(self, data):
        self.received += data
        if len(self.received) < self.skip:
            return
        self.received, self.skip = self.received[self.skip:], 0
        while len(self.received) >= 9:
            size = int.from_bytes(self.received[:3], "big")
            if len(self.received) < 9 + size:
                return
            kind, flags = self.received[3], self.received[4]
            stream = int.from_bytes(self.received[5:9], "big")
            payload, self.received = self.received[9:9 + size], self.received[9 + size:]
            if kind in (DATA, HEADERS) and flags & END_STREAM:
                self.peer.sendall(
                    frame(HEADERS, END_HEADERS, stream, STATUS_200 + CONTENT_TYPE)
                    + frame(DATA, 0, stream, MESSAGE)
                    + frame(HEADERS, END_HEADERS | END_STREAM, stream, TRAILERS)
                )
            elif kind == SETTINGS and not flags & 1:
                self.peer.sendall(frame(SETTINGS, 1, 0))
            elif kind == PING and not flags & 1:
                self.peer.sendall(frame(PING, 1, 0, payload))


host, _, port = sys.argv[sys.argv.index("--addr") + 1].rpartition(":")
listener = socket.create_server((host, int(port)))
events = selectors.DefaultSelector()
events.register(listener, selectors.EVENT_READ, None)
while True:
    for key, _ in events.select():
        if key.data is None:
            peer, _ = listener.accept()
            events.register(peer, selectors.EVENT_READ, Connection(peer))
            continue
        try:
            data = key.fileobj.recv(65536)
            if data:
                key.data.take(data)
        except OSError:
            data = b""
        if not data:
            events.unregister(key.fileobj)
            key.fileobj.close()
'''


def write_tiny_backend(directory: Path) -> Path:
    """Write the server into `directory` with a run.sh and return that."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "server.py").write_text(TINY_SERVER)
    run = directory / "run.sh"
    run.write_text(f'#!/bin/sh\nexec {sys.executable} -S -E server.py OK "$@"\n')
    run.chmod(0o755)
    return run
