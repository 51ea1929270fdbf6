"""Raw-socket HTTP client for benchmarks/transfer.py, as cheap as can be: what it measures is the server.

    .venv/bin/python -m benchmarks.transfer_client PORT METHOD PATH SOURCE_FILE COUNT

Moves SOURCE_FILE with PUT or GET, COUNT times side by side, or with MANY, COUNT times one after another on
one connection; HEAD asks for PATH. Prints the seconds it took.
"""

import os
import socket
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial


def put(port: int, path: str, source: int, size: int) -> None:
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(f"PUT {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {size}\r\n\r\n".encode())
        sent = 0
        while sent < size:
            sent += os.sendfile(connection.fileno(), source, sent, size - sent)
        _expect_200(connection.recv(65536))


def get(port: int, path: str, size: int) -> None:
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        buffer = memoryview(bytearray(1024 * 1024))
        head = b""
        while b"\r\n\r\n" not in head:
            head += connection.recv(4096)
        _expect_200(head)
        left = size - len(head.partition(b"\r\n\r\n")[2])
        while left:
            count = connection.recv_into(buffer)
            if not count:
                raise OSError("the body is short")
            left -= count


def many(port: int, path: str, content: bytes, count: int) -> None:
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for number in range(count):
            head = f"PUT {path}/{number // 100}/{number} HTTP/1.1\r\nHost: x\r\n"
            connection.sendall(f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content)
            answer = b""
            while not answer.endswith(b"}\n"):  # head and body may come apart
                _expect_200(answer := answer + connection.recv(65536))


def ask(port: int, path: str) -> None:
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(f"HEAD {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        answer = connection.recv(65536)
        _expect_200(answer)
        if b"x-content-sha256" not in answer.lower():
            raise OSError("no hash in the answer")


def _expect_200(head: bytes) -> None:
    if not head.startswith(b"HTTP/1.1 200"):
        raise OSError(f"unexpected answer: {head[:200]!r}")


def _jobs(port: int, method: str, path: str, source: int, size: int, count: int) -> list[Callable[[], None]]:
    match method:
        case "PUT":
            return [partial(put, port, f"{path}{number}", source, size) for number in range(count)]
        case "GET":
            return [partial(get, port, path, size)] * count
        case "MANY":
            return [partial(many, port, path, os.pread(source, size, 0), count)]
    return [partial(ask, port, path)] * count


def main() -> None:
    port, method, path, name, count = int(sys.argv[1]), *sys.argv[2:5], int(sys.argv[5])
    source = os.open(name, os.O_RDONLY)
    size = os.fstat(source).st_size
    began_s = time.perf_counter()
    with ThreadPoolExecutor(64) as pool:
        for done in [pool.submit(job) for job in _jobs(port, method, path, source, size, count)]:
            done.result()
    print(f"{time.perf_counter() - began_s:.4f}")


if __name__ == "__main__":
    main()
