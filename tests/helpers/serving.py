"""A local HTTP server that can also misbehave."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread


class Server(ThreadingHTTPServer):
    """Serves ``files`` by name; the first part of a path selects a behavior.

    ``/cut/NAME`` closes the connection halfway. ``/slow/NAME`` sets ``half_sent`` halfway and waits for
    ``may_continue``. ``/moved/NAME`` redirects to ``/NAME``, ``/circle/NAME`` to itself, and ``/tofile/NAME`` to
    a local file. ``/silent/NAME`` accepts the connection and sends nothing. ``/unsized/NAME`` omits the length,
    ``/drip/NAME`` sends a byte at a time and ``/endless/NAME`` never stops, both without a length, and
    ``/page/NAME`` claims to be HTML, and ``/secret/NAME`` requires authorization.
    """

    daemon_threads = True
    block_on_close = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files: dict[str, bytes] = {}
        self.requests: list[tuple[str, str | None]] = []  # path and Authorization header
        self.half_sent, self.may_continue = Event(), Event()

    def url(self, name: str, behavior: str = "", user: str = "") -> str:
        """Return the URL of a file with its digest."""
        return f"{self.address(name, behavior, user)}#sha256={sha256(self.files[name]).hexdigest()}"

    def address(self, name: str, behavior: str = "", user: str = "") -> str:
        return f"http://{user}127.0.0.1:{self.server_port}/{behavior}{name}"

    @property
    def downloads(self) -> int:
        return sum(not path.startswith("/moved/") for path, _ in self.requests)


class _Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.requests.append((self.path, self.headers["Authorization"]))
        _, *prefix, name = self.path.partition("?")[0].split("/")
        behavior = prefix[0] if prefix else ""
        if behavior == "silent":
            self.server.may_continue.wait(60)
            return
        if behavior in ("moved", "circle"):
            self.send_response(302)
            self.send_header("Location", self.server.address(name) if behavior == "moved" else self.path)
            self.end_headers()
            return
        if behavior == "tofile":
            self.send_response(302)
            self.send_header("Location", "file:///etc/hostname")
            self.end_headers()
            return
        if name not in self.server.files or behavior == "secret":
            self.send_error(401 if behavior == "secret" else 404)
            return
        data = self.server.files[name]
        self.send_response(200)
        if behavior not in ("unsized", "drip", "endless"):
            self.send_header("Content-Length", str(len(data)))
        if behavior == "page":
            self.send_header("Content-Type", "text/html; charset=utf-8")
        self.end_headers()
        with suppress(ConnectionError):
            self.wfile.write(data[: len(data) // 2] if behavior != "drip" else b"")
            if behavior == "cut":
                return
            while behavior in ("drip", "endless"):
                self.wfile.write(data if behavior == "endless" else data[:1])
                if self.server.may_continue.wait(0.0 if behavior == "endless" else 0.05):
                    return
            if behavior == "slow":
                self.server.half_sent.set()
                self.server.may_continue.wait(60)
            self.wfile.write(data[len(data) // 2 :])

    def log_message(self, *arguments: object) -> None: ...


@contextmanager
def serving() -> Iterator[Server]:
    with Server() as server:
        Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        try:
            yield server
        finally:
            server.may_continue.set()
            server.shutdown()
