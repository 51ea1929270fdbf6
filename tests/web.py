"""A small web server for tests: real sockets, answers by path, and a memory of who asked for what."""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Page:
    """What one path answers. `tag`: its ETag; `chunks` go out as they come, also without end.

    A range from some byte on is answered with that part if it `gives_parts`. Who does not show the `token` is
    refused.
    """

    body: bytes = b""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    tag: str = ""
    chunks: Iterator[bytes] | None = None
    gives_parts: bool = True
    token: str = ""
    stall: bool = False  # nothing at all is answered until the server ends


@dataclass(frozen=True)
class Visit:
    """One request; header names in lower case. `peer`: the port of the client's end of the connection."""

    method: str
    path: str
    headers: Mapping[str, str]
    peer: int = 0


@dataclass
class Web:
    """A server on a free port of 127.0.0.1; `pages` may change while it runs."""

    port: int
    pages: dict[str, Page] = field(default_factory=dict)
    visits: list[Visit] = field(default_factory=list)
    ended: threading.Event = field(default_factory=threading.Event)

    def url(self, path: str, host: str = "127.0.0.1", login: str = "") -> str:
        return f"http://{login}{host}:{self.port}{path}"

    def paths(self, method: str = "GET") -> list[str]:
        return [visit.path for visit in self.visits if visit.method == method]


@contextmanager
def web_server() -> Iterator[Web]:
    """Serves until left."""
    web: Web

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True  # head and body go out apart

        def log_message(self, *_: object) -> None:
            """Say nothing."""

        def do_HEAD(self) -> None:
            self._answer(with_body=False)

        def do_GET(self) -> None:
            self._answer(with_body=True)

        def _answer(self, *, with_body: bool) -> None:
            headers = {name.lower(): value for name, value in self.headers.items()}
            web.visits.append(Visit(self.command, self.path, headers, self.client_address[1]))
            page = web.pages.get(self.path, Page(b"nothing here", status=404))
            if page.token and headers.get("authorization") != f"Bearer {page.token}":
                page = Page(b"Invalid username or password.", status=401)
            if page.stall:
                web.ended.wait(60)
                self.close_connection = True
                return
            if page.tag and headers.get("if-none-match") == page.tag:
                self.send_response(304)
                self.end_headers()
                return
            body, status, start = page.body, page.status, headers.get("range", "")
            if start and page.gives_parts and status == 200:
                first = int(start.removeprefix("bytes=").removesuffix("-"))
                body, status = (body[first:], 206) if first < len(body) else (b"", 416)
            self.send_response(status)
            if status == 206:
                last = len(page.body) - 1
                self.send_header("Content-Range", f"bytes {first}-{last}/{len(page.body)}")
            for name, value in page.headers.items():
                self.send_header(name, value)
            if page.tag:
                self.send_header("ETag", page.tag)
            if page.chunks is None and "Content-Length" not in page.headers:
                self.send_header("Content-Length", str(len(body)))
            else:
                self.close_connection = True
            self.end_headers()
            if not with_body:
                return
            try:
                for chunk in [body] if page.chunks is None else page.chunks:
                    self.wfile.write(chunk)
            except OSError:
                self.close_connection = True  # the client has had enough

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.handle_error = lambda *_: None  # type: ignore[method-assign]  # clients may leave when they like
    web = Web(server.server_address[1])
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield web
    finally:
        web.ended.set()
        server.shutdown()
        server.server_close()
        thread.join(10)
