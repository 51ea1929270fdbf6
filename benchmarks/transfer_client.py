"""Raw-socket HTTP client for benchmarks/transfer.py, as cheap as can be: what it measures is the server.

    .venv/bin/python -m benchmarks.transfer_client PORT METHOD BASE_PATH SOURCE_FILE COUNT

Moves SOURCE_FILE with METHOD (PUT or GET) COUNT times side by side; prints the seconds it took.
"""

import os
import socket
import sys
import threading
import time


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
                sys.exit("the body is short")
            left -= count


def _expect_200(head: bytes) -> None:
    if not head.startswith(b"HTTP/1.1 200"):
        sys.exit(f"unexpected answer: {head[:200]!r}")


def main() -> None:
    port, method, path, name, count = int(sys.argv[1]), *sys.argv[2:5], int(sys.argv[5])
    source = os.open(name, os.O_RDONLY)
    size = os.fstat(source).st_size
    jobs = [
        threading.Thread(
            target=put if method == "PUT" else get,
            args=(port, f"{path}{number}", source, size) if method == "PUT" else (port, path, size),
        )
        for number in range(count)
    ]
    began_s = time.perf_counter()
    for job in jobs:
        job.start()
    for job in jobs:
        job.join()
    print(f"{time.perf_counter() - began_s:.4f}")


if __name__ == "__main__":
    main()
