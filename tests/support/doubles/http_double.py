"""An HTTP server in a thread that answers JSON, and misbehaves when a test asks it to."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qs, unquote, urlsplit


@dataclass(frozen=True)
class Request:
    """One request: `path` is decoded, `query` maps each name to its values, `body` is parsed."""

    method: str
    path: str
    query: Mapping[str, list[str]]
    headers: Mapping[str, str]
    body: Any
    size: int

    def one(self, name: str, default: str = "") -> str:
        """Return the first value of a query parameter."""
        return self.query.get(name, [default])[0]


@dataclass
class Refusal(Exception):  # noqa: N818 - it is an answer, thrown because that reads best
    """An answer that is no success."""

    status: int
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Fault:
    """What happens to requests that match, instead of or to their answer.

    `status` answers that without doing anything; `after` lets the request take effect first.
    `cut` sends half of the answer and closes the connection; `change` rewrites the answer's body.
    `skip` lets so many matching requests pass, then it happens `times` times.
    """

    method: str = ".*"
    path: str = ".*"
    status: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)
    after: bool = False
    cut: bool = False
    change: Callable[[Any], Any] | None = None
    seconds: float = 0.0
    skip: int = 0
    times: int = 1
    then: Callable[[], None] | None = None

    def fits(self, request: Request) -> bool:
        """Return whether `request` is one of those."""
        return bool(
            re.fullmatch(self.method, request.method) and re.search(self.path, request.path)
        )


class HttpDouble:
    """Routes are tuples of a method, a pattern of the whole path, and a function.

    The function is given the `Request` and the pattern's groups, and returns the body, or a
    status and a body. Requests are handled one at a time: a double has no races of its own.
    """

    def __init__(self) -> None:
        self.faults: list[Fault] = []
        self.log: list[tuple[str, str]] = []
        self._lock = threading.RLock()
        self._servers: list[ThreadingHTTPServer] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Stop listening everywhere."""
        for server in self._servers:
            server.shutdown()
            server.server_close()
        self._servers.clear()

    def times(self, method: str, path: str) -> int:
        """Return how many requests of `method` had a path in which `path` (a pattern) is found."""
        with self._lock:
            return sum(1 for one, where in self.log if one == method and re.search(path, where))

    def listen(self, routes: list[tuple[str, str, Callable[..., Any]]], *, port: int = 0) -> int:
        """Serve `routes` on a free port of the loopback interface; return it."""
        server = ThreadingHTTPServer(("127.0.0.1", port), _handler(self, routes))
        server.daemon_threads = True
        # A poll of half a second would make every stop that slow.
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        self._servers.append(server)
        return server.server_address[1]

    def authorise(self, request: Request) -> None:
        """Raise a `Refusal` for a request without the right key."""

    def failure(self, error: Refusal) -> Any:
        """Return the body of a refusal in the service's own words."""
        return error.body

    def answer(
        self, request: Request, routes: list[tuple[str, str, Callable[..., Any]]]
    ) -> tuple[int, Any, Mapping[str, str], bool]:
        """Return status, body, headers, and whether the connection is cut half way."""
        with self._lock:
            self.log.append((request.method, request.path))
            fault = self._fault(request)
        if fault is not None and fault.seconds:
            time.sleep(fault.seconds)
        faulty = fault is not None and fault.status
        with self._lock:
            try:
                if not faulty or (fault is not None and fault.after):
                    self.authorise(request)
                    status, body = self._dispatch(request, routes)
            except Refusal as error:
                return error.status, self.failure(error), error.headers, False
            if fault is not None and fault.status:
                error = Refusal(fault.status)
                return fault.status, self.failure(error), fault.headers, False
            if fault is not None and fault.change is not None:
                body = fault.change(body)
            return status, body, {}, fault is not None and fault.cut

    def _fault(self, request: Request) -> Fault | None:
        for fault in self.faults:
            if fault.times > 0 and fault.fits(request):
                if fault.skip:
                    fault.skip -= 1
                    continue
                fault.times -= 1
                if fault.then is not None:
                    fault.then()
                return fault
        return None

    def _dispatch(
        self, request: Request, routes: list[tuple[str, str, Callable[..., Any]]]
    ) -> tuple[int, Any]:
        for method, pattern, function in routes:
            match = re.fullmatch(pattern, request.path)
            if match and method == request.method:
                found = function(request, *match.groups())
                return found if isinstance(found, tuple) else (200, found)
        raise Refusal(404, {"message": f"no such route: {request.method} {request.path}"})


def _handler(
    double: HttpDouble, routes: list[tuple[str, str, Callable[..., Any]]]
) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        # Head and body are two writes; Nagle's algorithm would hold the second back for 40 ms.
        disable_nagle_algorithm = True

        def _serve(self) -> None:
            raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            where = urlsplit(self.path)
            request = Request(
                method=self.command,
                path=unquote(where.path),
                query=parse_qs(where.query, keep_blank_values=True),
                headers={name.lower(): value for name, value in self.headers.items()},
                body=json.loads(raw) if raw else None,
                size=max(len(raw), len(self.path)),
            )
            status, body, headers, cut = double.answer(request, routes)
            data = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data[: len(data) // 2] if cut else data)
            if cut:
                self.close_connection = True

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _serve  # noqa: N815 - http.server's

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - http.server's
            """Stay silent: the requests are in the double's own log."""

    return Handler
