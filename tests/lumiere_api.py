"""A stand-in for the LUMIERE VOD API: real HTTP on a port of its own, on loopback only.

As a module it answers each request as a test scripts it, down to the bytes of malformed HTTP,
remembers what it was asked, and raises its own errors in the test. As a program it serves a
generated dataset, always the same bytes for the same arguments, and prints the two settings that
point the archiver at it, as settings.env has them:

    python tests/lumiere_api.py --size 300
"""

import argparse
import contextlib
import gzip
import http.client
import json
import os
import random
import select
import signal
import socket
import socketserver
import struct
import sys
import tempfile
import threading
import time
from email.message import Message
from typing import Any, Callable, Dict, Iterable, Iterator, List, NamedTuple, Optional, cast

# Council of Europe members, and some countries that are not.
MEMBERS = (
    "AL AM AT AZ BA BE BG CH CY CZ DE DK EE ES FI FR GB GE GR HR HU IE IS IT LI LT LU LV MC MD ME "
    "MK MT NL NO PL PT RO RS SE SI SK SM TR UA AD"
).split()
OTHERS = "AU BR CA JP KR MA MX TN US".split()

Answer = Callable[[socket.socket], None]


class Request(NamedTuple):
    """One request as it came over the wire."""

    method: str
    path: str
    headers: Message
    body: bytes


class LumiereApi:
    """A server on loopback; use it in a `with` block, which raises what went wrong inside it."""

    def __init__(self, port: int = 0) -> None:
        self.requests: List[Request] = []
        self.errors: List[BaseException] = []
        self._answers: Dict[str, List[Answer]] = {}
        self._server = _Server(self, port)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self.on("/api/countries", answer(as_json(countries())))

    def on(self, path: str, *answers: Answer) -> None:
        """Script the answers to a path, one a request; the last goes on for ever."""
        self._answers[path] = list(answers)

    def asked(self, path: str) -> List[Request]:
        """Return the requests that a path has had so far."""
        return [request for request in self.requests if request.path == path]

    @property
    def settings(self) -> Dict[str, str]:
        """The environment settings that point the archiver at this server."""
        return {
            "LUMIERE_DATA_API_URL": self.url + "/api/works",
            "LUMIERE_COUNTRY_CODE_API_URL": self.url + "/api/countries",
        }

    def __enter__(self) -> "LumiereApi":
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        if self.errors:
            raise self.errors[0]

    def serve(self, connection: socket.socket) -> None:
        """Read one request, remember it, and answer it as scripted."""
        request = _read_request(connection)
        if request is None:
            return
        self.requests.append(request)
        answers = self._answers[request.path]
        (answers.pop(0) if len(answers) > 1 else answers[0])(connection)


def answer(
    body: bytes = b"",
    status: str = "200 OK",
    headers: Iterable[str] = ("Content-Type: application/json",),
    length: int = -1,
) -> Answer:
    """Answer with a body under Content-Length, which may lie."""
    length = len(body) if length < 0 else length
    return raw(head(status, [*headers, f"Content-Length: {length}"]) + body)


def zipped(body: bytes, cut: int = 0) -> Answer:
    """Answer with gzip, its last `cut` bytes missing while the framing stays intact."""
    packed = gzip.compress(body)
    return answer(packed[: len(packed) - cut], headers=["Content-Encoding: gzip"])


def chunked(body: bytes, size: int = 1000, end: bytes = b"0\r\n\r\n") -> Answer:
    """Answer in HTTP chunks of `size` bytes, closed by `end`."""
    parts = [body[start : start + size] for start in range(0, len(body), size)]
    framed = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts)
    return raw(head("200 OK", ["Transfer-Encoding: chunked"]) + framed + end)


def until_close(body: bytes) -> Answer:
    """Answer with a body that ends where the connection does."""
    return raw(head("200 OK") + body)


def raw(data: bytes, then: Answer = lambda connection: None) -> Answer:
    """Answer with bytes as they are, and then with whatever `then` does."""

    def send(connection: socket.socket) -> None:
        connection.sendall(data)
        then(connection)

    return send


def from_file(path: str, rate: float = 0) -> Answer:
    """Answer with a file's contents, not held in memory; at a rate in Mbit/s if one is given."""

    def send(connection: socket.socket) -> None:
        with open(path, "rb") as file:
            length = f"Content-Length: {os.path.getsize(path)}"
            connection.sendall(head("200 OK", ["Content-Type: application/json", length]))
            if not rate:
                connection.sendfile(file)
                return
            started, sent = time.monotonic(), 0
            for block in iter(lambda: file.read(65536), b""):
                connection.sendall(block)
                sent += len(block)
                time.sleep(max(0, started + sent * 8 / rate / 1e6 - time.monotonic()))

    return send


def reset(connection: socket.socket) -> None:
    """Break the connection off with a TCP reset."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def silence(connection: socket.socket) -> None:
    """Say nothing more until the client goes away."""
    connection.recv(1)


def drip(connection: socket.socket) -> None:
    """Send a byte of white space every tenth of a second until the client goes away."""
    while not select.select([connection], [], [], 0.1)[0]:
        connection.sendall(b" ")


def head(status: str, headers: Iterable[str] = ()) -> bytes:
    """Build the head of an answer."""
    lines = ["HTTP/1.1 " + status, *headers, "Connection: close", "", ""]
    return "\r\n".join(lines).encode("latin-1")


def as_json(value: Any) -> bytes:
    """Write a value as UTF-8 JSON."""
    return json.dumps(value, ensure_ascii=False).encode("utf-8")


def countries() -> List[Dict[str, Any]]:
    """The answer of `/api/countries`: 46 members of the Council of Europe, and others."""
    codes = [(code, True) for code in MEMBERS] + [(code, False) for code in OTHERS]
    return [
        {"code": code, "name": f"Country {code}", "is_coe": is_coe}
        for code, is_coe in sorted(codes)
    ]


# Sentences of many scripts, some beyond the Basic Multilingual Plane and some that need escapes.
WORDS = (
    "la vie rêvée|das große Nichts|Αθήνα|Белград, ночь|Երևան|თბილისი|çocuk|łódź|ønske|ћутање|"
    '日本の夏|한강|القاهرة|שלום|ไม่มีชื่อ|"quoted"|back\\slash|tab\there|🎬 take|[bracket|{brace'
).split("|")


def works(count: int, date: str = "2026-09-30", seed: int = 1) -> Iterator[Dict[str, Any]]:
    """Make works, each with 1 to 25 presences, of which the newest is of `date`."""
    chance = random.Random(seed)

    def pick(choices: Any) -> Any:
        return choices[int(chance.random() * len(choices))]

    for number in range(count):
        yield {
            "id": number,
            "title": " ".join(pick(WORDS) for _ in range(3)),
            "original_title": pick(WORDS),
            "work_type": pick(("Film", "TV season")),
            "production_year": 1950 + int(chance.random() * 76),
            "production_countries": [pick(MEMBERS), pick(MEMBERS)],
            "directors": [pick(WORDS), pick(WORDS)],
            "imdb_id": None,
            "rating": round(chance.random() * 10, 3),
            "presences": [
                {
                    "catalog": pick(WORDS),
                    "catalog_country": pick(MEMBERS),
                    "business_model": pick(("FoD", "SVoD", "TVoD")),
                    "presence_date": date if chance.random() < 0.9 else "2025-01-31",
                }
                for _ in range(1 + int(chance.random() * 25))
            ],
        }


def dataset(count: int = 20, date: str = "2026-09-30", seed: int = 1) -> bytes:
    """Make a dataset of a few works, whole in memory."""
    return as_json(list(works(count, date, seed)))


def large_dataset(size: int, date: str = "2026-09-30", seed: int = 1) -> Iterator[bytes]:
    """Make a dataset of `size` bytes, or less than a work more, a work at a time."""
    patterns = [as_json(work).replace(b'{"id": ', b"", 1) for work in works(2000, date, seed)]
    patterns = [pattern.split(b",", 1)[1] for pattern in patterns]
    made, number, before = 1, 0, b"["
    while made < size:
        work = b'%s{"id": %d,%s' % (before, number, patterns[number % len(patterns)])
        yield work
        made, number, before = made + len(work), number + 1, b",\n"
    yield b"]"


def write_dataset(path: str, size: int, date: str = "2026-09-30", seed: int = 1) -> None:
    """Write a dataset of `size` bytes to a file."""
    with open(path, "wb") as file:
        file.writelines(large_dataset(size, date, seed))


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 50

    def __init__(self, api: LumiereApi, port: int) -> None:
        self.api = api
        super().__init__(("127.0.0.1", port), _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        error = cast(BaseException, sys.exc_info()[1])
        if not isinstance(error, ConnectionError):  # a client may go away whenever it likes
            self.api.errors.append(error)


class _Handler(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        cast(_Server, self.server).api.serve(self.request)


def _read_request(connection: socket.socket) -> Optional[Request]:
    with connection.makefile("rb") as stream:
        line = stream.readline().decode("latin-1").split()
        if not line:
            return None
        headers = http.client.parse_headers(stream)
        body = stream.read(int(headers.get("Content-Length", 0)))
    return Request(line[0], line[1], headers, body)


def main() -> None:
    """Serve a generated dataset until Ctrl-C or SIGTERM."""
    parser = argparse.ArgumentParser(description="Serve a generated LUMIERE VOD dataset.")
    parser.add_argument("--size", type=float, default=300, help="MB (default: 300)")
    parser.add_argument("--date", default="2026-09-30", help="newest presence_date")
    parser.add_argument("--seed", type=int, default=1, help="another number, another edition")
    parser.add_argument("--rate", type=float, default=0, help="Mbit/s (default: all it can)")
    parser.add_argument("--port", type=int, default=0, help="(default: a free one)")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # its folder is to go then, too
    with contextlib.ExitStack() as stack:
        stack.enter_context(contextlib.suppress(KeyboardInterrupt))
        path = os.path.join(stack.enter_context(tempfile.TemporaryDirectory()), "works.json")
        write_dataset(path, int(options.size * 1e6), options.date, options.seed)
        api = stack.enter_context(LumiereApi(options.port))
        api.on("/api/works", from_file(path, options.rate))
        for name, value in api.settings.items():
            print(f"{name}='{value}'", flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    main()
