"""Every failure as the researcher reads it who gets it by mail: no noise, and what there is to do.

Each is a real run against the stand-in; what it must say is given by keywords.
"""

import contextlib
import datetime
import os
import re
import shlex
import socket
import ssl
import subprocess
import sys
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional, Tuple

import ijson
import pytest
import trustme
from conftest import (
    COUNTRIES,
    NEW,
    OLD,
    WORKS,
    Archiver,
    Result,
    archived,
    assert_one_sentence,
    fill,
    finish,
)
from lumiere_api import (
    Answer,
    LumiereApi,
    answer,
    as_json,
    chunked,
    head,
    raw,
    reset,
    silence,
    until_close,
)
from telling import (
    CONTROLS,
    HOOK,
    PING,
    MailServer,
    allow_names,
    assert_no_secret,
    assert_printable,
    assert_words,
    body,
    dead_port,
    hooked,
    list_editions,
    said,
    tls_of,
)

HALF = NEW[: len(NEW) // 2]
LONG = head("200 OK", [f"Content-Length: {len(NEW)}"]) + HALF
AGAIN = r"To try again: (.+)$"
HTML = b"<!DOCTYPE html><html><body>Down for maintenance</body></html>"


class TlsApi(LumiereApi):
    """The stand-in behind TLS."""

    def __init__(self, context: ssl.SSLContext) -> None:
        super().__init__()
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.url = self.url.replace("http:", "https:")
        self.on(WORKS, answer(NEW))

    def serve(self, connection: socket.socket) -> None:
        """Answer, unless the client goes away at the sight of the certificate."""
        with contextlib.suppress(ssl.SSLError):
            super().serve(connection)


class NotFound(LumiereApi):
    """A server that has no page of any name."""

    def serve(self, connection: socket.socket) -> None:
        """Read the request, and answer."""
        with contextlib.suppress(KeyError):
            super().serve(connection)
        answer(status="404 Not Found")(connection)


class Scene:
    """An archiver with all channels set, and what can be made to fail around it."""

    def __init__(self, archiver: Archiver, authority: trustme.CA, request: Any) -> None:
        self.archiver, self.authority, self.api = archiver, authority, archiver.api
        self.bundle = archiver.settings["SSL_CERT_FILE"]
        self.closing = contextlib.ExitStack()
        self._request = request

    def set(self, **settings: str) -> None:
        """Set settings, named without LUMIERE_."""
        named = {f"LUMIERE_{name}": value for name, value in settings.items()}
        self.archiver.settings.update(named)

    def serve_tls(self, certificate: trustme.LeafCert) -> None:
        """Let the API be one with this certificate."""
        api = self.closing.enter_context(TlsApi(tls_of(certificate)))
        self.archiver.settings.update(api.settings)

    def mount(self, *options: str) -> None:
        """Mount a file system on the archive, with OLD on it."""
        self._request.getfixturevalue("mount")(self.archiver.archive, *options)
        fill(self.archiver, archived(OLD))
        list_editions(self.archiver)


@pytest.fixture
def scene(told: Archiver, authority: trustme.CA, request: Any) -> Iterator[Scene]:
    """The scene of a failure."""
    scene = Scene(told, authority, request)
    with scene.closing:
        yield scene


# What goes wrong


def nested(scene: Scene) -> None:
    """An answer that ends only when memory does."""
    if ijson.backend == "python":
        pytest.skip("minutes in pure Python: for MAX_RUNTIME")
    scene.api.on(WORKS, answer(b"[" * 200000 + b"]" * 200000))


def works(*answers: Answer, **settings: str) -> Callable[[Scene], None]:
    """The works are answered so."""

    def arrange(scene: Scene) -> None:
        scene.api.on(WORKS, *answers)
        scene.set(**settings)

    return arrange


def codes(send: Answer) -> Callable[[Scene], None]:
    """The countries are answered so."""
    return lambda scene: scene.api.on(COUNTRIES, send)


def address(url: str, **environment: str) -> Callable[[Scene], None]:
    """The works are at another address, and variables are set, of other programs, too."""

    def arrange(scene: Scene) -> None:
        scene.set(DATA_API_URL=url)
        scene.archiver.settings.update(environment)

    return arrange


def refused(scene: Scene) -> None:
    scene.set(DATA_API_URL=f"http://127.0.0.1:{dead_port()}/api/works")


def no_bundle(variable: str) -> Callable[[Scene], None]:
    return address("https://127.0.0.1:1/api/works", **{variable: "/nowhere/ca.pem"})


def proxy_down(scheme: str) -> Callable[[Scene], None]:
    def arrange(scene: Scene) -> None:
        proxy = f"http://user:5ecret@127.0.0.1:{dead_port()}"
        variables = {f"{scheme.upper()}_PROXY": proxy, "NO_PROXY": "127.0.0.1"}
        address(f"{scheme}://lumiere.invalid/api/works", **variables)(scene)

    return arrange


def socks(scene: Scene) -> None:
    """A proxy that requests has no package for."""
    found = subprocess.call([sys.executable, "-c", "import socks"], stderr=subprocess.DEVNULL)
    if found == 0:
        pytest.skip("the package for SOCKS is here")
    variables = {"HTTP_PROXY": "socks5h://user:5ecret@127.0.0.1:1", "NO_PROXY": "127.0.0.1"}
    address("http://lumiere.invalid/api/works", **variables)(scene)


def untrusted(scene: Scene) -> None:
    scene.serve_tls(scene.authority.issue_cert("127.0.0.1"))


def expired(scene: Scene) -> None:
    now = datetime.datetime.now(datetime.timezone.utc).replace(tzinfo=None)
    began, ended = (now - datetime.timedelta(days) for days in (90, 2))
    try:
        scene.serve_tls(scene.authority.issue_cert("127.0.0.1", not_before=began, not_after=ended))
    except TypeError:
        pytest.skip("this trustme makes no expired certificates")
    scene.archiver.settings["REQUESTS_CA_BUNDLE"] = scene.bundle


def of_another_host(scene: Scene) -> None:
    scene.serve_tls(scene.authority.issue_cert("other.example.org"))
    scene.archiver.settings["REQUESTS_CA_BUNDLE"] = scene.bundle


def no_connection(scene: Scene) -> None:
    """A server whose queue is full: Linux drops what would connect."""
    if not sys.platform.startswith("linux"):
        pytest.skip("a full queue of Linux")
    listening = scene.closing.enter_context(socket.socket())
    listening.bind(("127.0.0.1", 0))
    listening.listen(0)
    port = listening.getsockname()[1]
    for _ in range(4):
        waiting = scene.closing.enter_context(socket.socket())
        waiting.setblocking(False)
        waiting.connect_ex(("127.0.0.1", port))
    scene.set(DATA_API_URL=f"http://127.0.0.1:{port}/api/works", CONNECT_TIMEOUT="1")


def retry_after(seconds: str) -> Callable[[Scene], None]:
    header = f"Retry-After: {seconds}"
    return works(answer(status="429 Too Many Requests", headers=[header]))


def moved(scene: Scene) -> None:
    scene.api.on(WORKS, answer(status="301 Moved", headers=["Location: /v2/works?token=5ecret"]))


def disk_full(scene: Scene) -> None:
    scene.mount("-t", "tmpfs", "-o", "size=256k", "tmpfs")
    scene.api.on(WORKS, answer(b" " * 300000 + NEW))


def disk_full_of_rejected(scene: Scene) -> None:
    disk_full(scene)
    (scene.archiver.archive / "rejected").mkdir()
    (scene.archiver.archive / "rejected" / "x.txt").write_bytes(b"x" * 10000)


def read_only(scene: Scene) -> None:
    archive = str(scene.archiver.archive)
    scene.mount("--bind", archive)
    subprocess.check_call(["mount", "-o", "remount,ro,bind", archive])


def no_folder(scene: Scene) -> None:
    scene.set(STORAGE_DIR=str(scene.archiver.checksum))


def endless(scene: Scene) -> None:
    if os.name == "nt":
        pytest.skip("the Task Scheduler does it on Windows")
    works(silence, MAX_RUNTIME="2")(scene)


def locked(scene: Scene) -> None:
    fcntl = pytest.importorskip("fcntl", reason="locks with flock")
    lock = os.open(str(scene.archiver.archive / ".lock"), os.O_RDWR | os.O_CREAT)
    scene.closing.callback(os.close, lock)
    fcntl.flock(lock, fcntl.LOCK_EX)


class Fault(NamedTuple):
    """How to make a run fail, what it must say, and what not; whether it is tried twice."""

    arrange: Callable[[Scene], None]
    words: Tuple[str, ...] = ()
    twice: Optional[bool] = None  # None: either will do
    never: str = "nothing was archived"


AS_IT_WAS = "the archive is as it was"
CERTIFICATE = ("certificate", "renew|environment", "clock")
BROKE_OFF = (AS_IT_WAS, "/api/works", r"br[eo]ke?|clos|cut|ended|hung up|incomplete|short|reset")
FORM = ("kept|keep", "report", r"rejected/[0-9a-f]{32}\.(txt|json)")
FAULTS: Dict[str, Fault] = {
    "no bundle": Fault(no_bundle("REQUESTS_CA_BUNDLE"), ("REQUESTS_CA_BUNDLE", "/nowhere/ca.pem")),
    "no bundle for curl": Fault(no_bundle("CURL_CA_BUNDLE"), ("CURL_CA_BUNDLE",)),
    "a proxy that is down": Fault(proxy_down("http"), ("proxy", r"HTTP_PROXY", AS_IT_WAS)),
    "a proxy for https that is down": Fault(proxy_down("https"), ("proxy", r"HTTPS_PROXY")),
    "a SOCKS proxy": Fault(socks, ("SOCKS", r"pip install 'requests\[socks\]'", AS_IT_WAS), False),
    "no answer": Fault(
        works(silence, READ_TIMEOUT="1"), ("READ_TIMEOUT", r"\b1(\.0)? s", AS_IT_WAS), True
    ),
    "stall": Fault(
        works(raw(LONG, then=silence), READ_TIMEOUT="1"), ("READ_TIMEOUT", r"\b1(\.0)? s"), True
    ),
    "no connection": Fault(no_connection, ("CONNECT_TIMEOUT", r"\b1(\.0)? s"), True),
    "refused": Fault(refused, ("refused", AS_IT_WAS), True),
    "unknown host": Fault(
        address("http://lumiere.invalid/api/works"),
        ("lumiere.invalid", "name can't be found", AS_IT_WAS),
        True,
    ),
    "a redirect to an unknown host": Fault(
        works(answer(status="308 Moved", headers=["Location: http://moved.invalid/api/works"])),
        ("name can't be found", "redirects", AS_IT_WAS),
        True,
    ),
    "cut": Fault(works(raw(LONG)), (*BROKE_OFF, "ended before all had come"), True),
    "cut, chunked": Fault(works(chunked(HALF, end=b"ff\r\n[[[")), BROKE_OFF, True),
    "cut between two chunks": Fault(
        works(chunked(HALF, end=b"")), (*BROKE_OFF, "ended before all had come"), True
    ),
    "garbage in the framing": Fault(works(chunked(HALF, end=b"nonsense\r\n")), BROKE_OFF, True),
    "reset": Fault(works(raw(LONG, then=reset)), BROKE_OFF, True),
    "hung up": Fault(works(raw(b"")), (*BROKE_OFF, "closed the connection"), True),
    "gzip in name only": Fault(
        works(answer(NEW, headers=["Content-Encoding: gzip"])),
        (AS_IT_WAS, "/api/works", "unpacked"),
        True,
    ),
    "no HTTP": Fault(works(raw(b"220 mail ESMTP\r\n")), (AS_IT_WAS, "as a web server does"), True),
    "two lengths": Fault(
        works(raw(head("200 OK", ["Content-Length: 5", "Content-Length: 9"]) + b"[]")),
        (AS_IT_WAS, "as a web server does"),
    ),
    "endless header": Fault(works(raw(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100000)), (AS_IT_WAS,)),
    "redirect loop": Fault(
        works(answer(status="308 Moved", headers=["Location: /api/works"])),
        ("redirect|circle|loop", AS_IT_WAS),
        False,
    ),
    "redirect to nowhere": Fault(
        works(answer(status="308 Moved", headers=["Location: http://["])),
        (AS_IT_WAS, "address.* is not valid"),
        False,
    ),
    "moved": Fault(moved, ("301", "DATA_API_URL", "/v2/works", AS_IT_WAS), False),
    "an untrusted certificate": Fault(untrusted, CERTIFICATE),
    "an expired certificate": Fault(expired, ("certificate", "expired", "clock")),
    "a certificate of another host": Fault(of_another_host, ("certificate",)),
    "404": Fault(
        works(answer(HTML, status="404 Not Found")), ("404", "no such page", AS_IT_WAS), False
    ),
    "403 for the countries": Fault(
        codes(answer(status="403 Forbidden")),
        ("403", "refuses access", "/api/countries", AS_IT_WAS),
        False,
    ),
    "503": Fault(works(answer(status="503 Busy")), ("503", "trouble of its own", AS_IT_WAS), True),
    "500 for the countries": Fault(
        codes(answer(status="500 Internal Server Error")),
        ("500", "trouble of its own", "/api/countries"),
        True,
    ),
    "too many requests": Fault(
        retry_after("1"), ("429", "too often"), True, "again in 1 s|nothing was"
    ),
    "too many requests for days": Fault(
        retry_after("999999"), ("429", "too often", AS_IT_WAS), None, "999,?999"
    ),
    "too many requests for ever": Fault(retry_after("9" * 400), ("429",), None, r"\binf\b|9999"),
    "no JSON": Fault(works(answer(HTML)), FORM[:1] + FORM[2:], True),
    "half a dataset": Fault(works(until_close(HALF)), FORM[:1] + FORM[2:], True),
    "another form": Fault(works(answer(as_json({"works": []}))), FORM, False),
    "no dates": Fault(works(answer(as_json([{"title": "x"}]))), FORM, False),
    "brackets": Fault(nested, FORM[:1] + FORM[2:], False),
    "nothing": Fault(works(answer(b"")), ("/api/works", AS_IT_WAS), True),
    "countries in another form": Fault(
        codes(answer(as_json({"AL": True}))), ("/api/countries", "report", AS_IT_WAS), False
    ),
    "no countries": Fault(codes(answer(b"[]")), ("/api/countries", AS_IT_WAS), False),
    "countries that are no JSON": Fault(codes(answer(HTML)), ("/api/countries",), True),
    "a full disk": Fault(disk_full, ("make room|free ",), False, "rejected"),
    "a disk full of what was rejected": Fault(
        disk_full_of_rejected, ("make room|free |delete", r"\brejected\b"), False
    ),
    "a read-only disk": Fault(read_only, ("read-only|written",), False),
    "an archive that is no folder": Fault(
        no_folder, ("last_checksum.txt", "a file in the place of a folder"), False
    ),
    "MAX_RUNTIME": Fault(endless, ("MAX_RUNTIME", r"\b2(\.0)? s"), False),
    "another run": Fault(locked, ("another run",), False),
}


@pytest.mark.parametrize("name", FAULTS)
def test_words(scene: Scene, mail: MailServer, name: str) -> None:
    """On stderr, over each channel, and in the log."""
    fault = FAULTS[name]
    fault.arrange(scene)
    result = scene.archiver.run()
    assert (result.code, result.out) == (1, "")
    assert_one_sentence(result.err)
    sentence = result.err.strip()
    texts = [sentence, hooked(scene.archiver), body(scene.archiver, PING + "/fail"), mail.text()]
    for text in texts:
        assert " ".join(sentence.split()) in text
    assert_words(*texts, mail.message()["Subject"], scene.archiver.log)
    assert_no_secret(scene.archiver, *texts)
    words = re.split("To try again:", sentence)[0]
    # pytest's folder has the name of this test in it, which must not count as words.
    words = words.replace(str(scene.archiver.folder.parent), "")
    for pattern in fault.words:
        assert said(words, pattern), (pattern, sentence)
    assert not said(words, fault.never), sentence
    assert not said(words, "unforeseen"), sentence
    if fault.twice is not None:
        assert ("attempt 2 of 2" in words) == fault.twice, sentence
        assert said(words, "attempt") == fault.twice, sentence
    again = re.search(AGAIN, sentence)
    assert again, sentence
    assert shlex.split(again.group(1)) == scene.archiver.command


def test_an_unforeseen_fault(told: Archiver, mail: MailServer, tmp_path: Path) -> None:
    """Its own words may hold a secret: it says where it came about, and to report it."""
    (tmp_path / "broken").mkdir()
    code = "import time\ndef strptime(*_):\n    raise RuntimeError('http://user:5ecret@host')\n"
    (tmp_path / "broken" / "sitecustomize.py").write_text(code + "time.strptime = strptime\n")
    told.settings["PYTHONPATH"] = str(tmp_path / "broken")
    result = told.run(LOG_LEVEL="DEBUG")
    assert result.code == 1
    assert_one_sentence(result.err, "unforeseen fault in ", "/sitecustomize.py, line 3;", "report")
    assert_no_secret(told, result.err, hooked(told), body(told, PING + "/fail"), mail.text())


def test_https_goes_well_with_a_certificate_that_is_trusted(scene: Scene) -> None:
    """Which shows, too, that the stand-in for the faults above has no other."""
    scene.serve_tls(scene.authority.issue_cert("127.0.0.1"))
    scene.archiver.settings["REQUESTS_CA_BUNDLE"] = scene.bundle
    result = scene.archiver.run()
    assert (result.code, result.err) == (0, "")
    assert set(scene.archiver.datasets().values()) == {OLD, NEW}


def test_a_first_attempt_that_fails_for_good_is_no_series(scene: Scene) -> None:
    scene.api.on(WORKS, answer(status="503 Busy"))
    sentence = scene.archiver.run(ATTEMPTS="1").err
    assert_one_sentence(sentence, "503")
    assert not said(sentence, r"attempt \d of")


def test_secrets_of_a_proxy_stay_secret_at_each_attempt(scene: Scene) -> None:
    proxy_down("http")(scene)
    result = scene.archiver.run(LOG_LEVEL="DEBUG", ATTEMPTS="3")
    assert result.code == 1
    assert_no_secret(scene.archiver, result.err, body(scene.archiver, HOOK))
    assert_words(scene.archiver.log)


@pytest.mark.parametrize(
    "send",
    [
        raw(head("200 OK", ["Content-Length: 9000000"]) + b" " * 1600000),
        chunked(b" " * 1600000, end=b""),
        raw(head("200 OK", ["Content-Length: 9000000"]) + b" " * 1600000, then=silence),
    ],
    ids=["cut", "cut between two chunks", "stall"],
)
def test_a_transfer_that_breaks_off_says_how_much_had_come(scene: Scene, send: Answer) -> None:
    """Which tells a line that is slow from a server that is not there."""
    scene.api.on(WORKS, send)
    result = scene.archiver.run(CHUNK_SIZE="10000", READ_TIMEOUT="1", ATTEMPTS="1")
    assert result.code == 1
    assert_one_sentence(result.err, "broke off after 1.6 MB: ")
    assert_no_secret(scene.archiver, result.err)


# Control characters, by which a server could do what it likes at a terminal

FOLDED = "/v2/works\r\n 2026-01-01 - INFO - Unchanged"  # a header that goes on in the next line


def assert_no_controls(scene: Scene, mail: MailServer, result: Result) -> None:
    """Hold that a failure is told in one line, and that nothing of it is a control character."""
    assert (result.code, result.out) == (1, "")
    assert_one_sentence(result.err)
    sentence = result.err.strip()
    assert hooked(scene.archiver).endswith(": " + sentence)
    assert body(scene.archiver, PING + "/fail") == sentence
    assert mail.text() == " ".join(sentence.split())
    assert_printable(sentence, scene.archiver.log, mail.message()["Subject"])
    assert all(re.match(r"\d{4}-\d\d-\d\d \d\d:", line) for line in scene.archiver.log.splitlines())


@pytest.mark.parametrize(
    "location",
    [f"/v2/{CONTROLS}works", f"http://x.invalid/{CONTROLS}", "/v2/\x9b2J\x85\x90", FOLDED],
)
@pytest.mark.parametrize("status", ["301 Moved", "308 Moved"])
def test_no_control_character_of_a_redirect(
    scene: Scene, mail: MailServer, location: str, status: str
) -> None:
    """Where it is not followed, and where it is, to a server that has no such page."""
    with NotFound() as elsewhere:
        if location.startswith("/"):
            location = elsewhere.url + location
        scene.api.on(WORKS, answer(status=status, headers=[f"Location: {location}"]))
        result = scene.archiver.run(ATTEMPTS="1")
    assert_no_controls(scene, mail, result)


@pytest.mark.parametrize("status", [f"404 No{CONTROLS}", f"429 {CONTROLS}", "503 \x9b2J"])
def test_no_control_character_of_a_status(scene: Scene, mail: MailServer, status: str) -> None:
    headers = [f"Retry-After: {CONTROLS}", f"Server: {CONTROLS}"]
    scene.api.on(WORKS, answer(status=status, headers=headers))
    assert_no_controls(scene, mail, scene.archiver.run(ATTEMPTS="1"))


def test_no_control_character_of_a_country(scene: Scene, mail: MailServer) -> None:
    codes(answer(as_json([{"code": CONTROLS, "is_coe": True}])))(scene)
    assert_no_controls(scene, mail, scene.archiver.run())


def test_no_control_character_of_a_date(scene: Scene, mail: MailServer) -> None:
    works(answer(as_json([{"presences": [{"presence_date": "2026-09-30" + CONTROLS}]}])))(scene)
    assert_no_controls(scene, mail, scene.archiver.run())


# What the machine refuses


@pytest.fixture
def bound(tmp_path: Path) -> List[str]:
    """A command to go before another, so that permissions bind it though root runs these tests."""
    code = "import ctypes, os, sys"
    # Linux lets go of what makes root pass them: prctl() with PR_CAPBSET_DROP, and two CAP_DAC_….
    code += "\nif os.getuid() == 0: [ctypes.CDLL(None).prctl(24, right) for right in (1, 2)]"
    code += "\nos.execvp(sys.argv[1], sys.argv[1:])"
    before = [sys.executable, "-c", code]
    (tmp_path / "probe").touch(0o444)
    if os.name != "posix" or not subprocess.call([*before, "test", "-w", str(tmp_path / "probe")]):
        pytest.skip("no permissions that bind this user")
    return before


def assert_refused(text: str, path: Path) -> None:
    """Hold that the whole path is named, of a file or of one in this folder, and the cure."""
    (named,) = re.findall(r"Permission denied: ([^;]+);", text)
    assert str(path) in (named, os.path.dirname(named)), text
    assert said(text, r"chmod u\+w", "whose file it is")
    assert_words(text)


@pytest.mark.parametrize("name", ["archive", "archive/.lock", "archive/rejected"])
def test_permission_denied(fresh: Archiver, bound: List[str], name: str) -> None:
    path = fresh.folder / name
    if name == "archive/.lock":
        path.touch()
    else:
        path.mkdir(exist_ok=True)
    path.chmod(0o444 if path.is_file() else 0o555)
    fresh.api.on(WORKS, answer(HTML))
    result = fresh.run(before=bound, ATTEMPTS="1")
    assert result.code == 1
    assert_one_sentence(result.err)
    assert_refused(result.err, path)


def test_a_checksum_that_can_not_be_written(fresh: Archiver, bound: List[str]) -> None:
    fresh.log_file.touch()
    fresh.log_file.chmod(0o666)
    fresh.folder.chmod(0o555)
    result = fresh.run(before=bound)
    assert result.code == 1
    assert said(result.out, "New dataset: ")
    assert_refused(result.err, fresh.folder)


def test_a_log_that_can_not_be_written(fresh: Archiver, bound: List[str]) -> None:
    fresh.log_file.touch()
    fresh.log_file.chmod(0o444)
    result = fresh.run(before=bound)
    assert (result.code, result.err) == (0, "")
    (warning,) = re.findall("(?m)^WARNING: (.+)$", result.out)
    assert_refused(warning, fresh.log_file)


def test_an_archive_that_can_not_be_listed(fresh: Archiver, bound: List[str]) -> None:
    fresh.archive.chmod(0o333)
    result = fresh.run(before=bound)
    assert result.code == 1
    assert_refused(result.err, fresh.archive)


# Damage, for which another try is no cure


@pytest.mark.parametrize("missing", [True, False])
def test_verify_asks_for_a_copy(told: Archiver, mail: MailServer, missing: bool) -> None:
    path = next(told.archive.glob("*.json"))
    if missing:
        path.unlink()
    else:
        path.write_bytes(b"[]")
    result = told.run("--verify")
    assert (result.code, result.out) == (1, "")
    assert_one_sentence(result.err, path.name, "missing" if missing else "damaged")
    texts = (result.err, hooked(told), body(told, PING + "/fail"), mail.text())
    for text in texts:
        assert said(text, "0 of 1 files", r"\bcop(y|ies)\b", "backup")
        assert not said(text, "try later|if it lasts|no dataset (is|was) (lost|damaged)")
    assert_words(*texts)


# The command that tries again


def run_in(folder: Path, command: List[str], archiver: Archiver) -> Result:
    """Run a command in a folder, in the archiver's environment."""
    return finish(
        subprocess.Popen(
            command,
            env=archiver.environment(),
            cwd=str(folder),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
    )


def try_again(archiver: Archiver, text: str) -> None:
    """Do what the failure says, as somebody would who pastes it into a shell elsewhere."""
    archiver.api.on(WORKS, answer(NEW))
    again = re.search(AGAIN, text.strip())
    assert again, text
    done = run_in(Path("/"), ["/bin/sh", "-c", again.group(1)], archiver)
    assert (done.code, done.err) == (0, "")
    assert NEW in archiver.datasets().values()


@pytest.mark.skipif(os.name != "posix", reason="a shell of POSIX")
@pytest.mark.parametrize("name", ["lumiere", "it's my & more", "archivé"])
def test_the_command_that_tries_again(fresh: Archiver, name: str) -> None:
    allow_names(fresh)
    fresh.api.on(WORKS, answer(status="404 Not Found"))
    moved_to = fresh.folder.parent / name
    fresh.folder.rename(moved_to)
    fresh.folder, fresh.archive = moved_to, moved_to / "archive"
    fresh.command[1] = str(moved_to / "data_collect.py")
    result = fresh.run()
    assert result.code == 1
    try_again(fresh, result.err)


@pytest.mark.skipif(os.name != "posix", reason="a shell of POSIX")
def test_the_command_is_good_from_any_folder(fresh: Archiver) -> None:
    """However the run that failed was called: here from its own folder, by hand."""
    fresh.api.on(WORKS, answer(status="404 Not Found"))
    result = run_in(fresh.folder, [sys.executable, "data_collect.py"], fresh)
    assert result.code == 1
    try_again(fresh, result.err)


@pytest.mark.skipif(os.name != "posix", reason="a shell of POSIX")
def test_the_command_takes_the_settings_with_it(fresh: Archiver) -> None:
    """Those of settings.env, where the README has them; without, another archive would be used."""
    settings = dict(fresh.settings, LUMIERE_STORAGE_DIR=str(fresh.folder / "my disk"))
    lines = "".join(f"{name}='{value}'\n" for name, value in settings.items())
    (fresh.folder / "settings.env").write_text(lines)
    fresh.api.on(WORKS, answer(status="404 Not Found"))
    result = fresh.run(STORAGE_DIR=str(fresh.folder / "my disk"))
    assert result.code == 1
    fresh.settings.clear()
    fresh.archive = fresh.folder / "my disk"
    try_again(fresh, result.err)
