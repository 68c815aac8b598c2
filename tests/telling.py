"""What the tests of telling share: channels that listen, and editions that are listed."""

import asyncio
import datetime
import email
import email.policy
import html
import json
import platform
import re
import socket
import ssl
import threading
from pathlib import Path
from typing import Any, Iterator, List, Tuple

import pytest
import trustme
from aiosmtpd.smtp import SMTP, AuthResult
from conftest import EDITIONS, Archiver, Result, as_csv, row_of
from lumiere_api import Answer, answer

PING, HOOK = "/ping/5ecret-uuid", "/hooks/5ecret-token"
PASSWORD = "5ecret p@ss/word%#?"
LOGIN = "us%40er:5ecret%20p%40ss%2Fword%25%23%3F@"
SECRETS = ("5ecret", "p%40ss")
CONTROLS = "\x1b[2J\x1b]0;x\x07\x08"  # that clear a terminal, name it, sound its bell
# What means nothing to somebody who gets it by mail.
NOISE = (
    r"IncompleteRead|RemoteDisconnected|\w+(?:Error|Exception)\b|\[Errno|_ssl\.c|Traceback"
    r"|NewConnection|HTTPConnection|SMTP[A-Z][a-z]+|\b(?:[A-Z][a-z]+){2,}\b|\[SSL|: error\b"
)


class MailServer:
    """A real SMTP server on a port of its own, in a thread of its own."""

    def __init__(self, **options: Any) -> None:
        self.mails: List[Any] = []
        self.logins: List[str] = []
        self.receivers: List[str] = []  # that were named, over TLS or not
        self.starttls = ""  # the answer to STARTTLS, if it's not to go well
        self.greetings: List[str] = []  # what clients called themselves
        self.refuse = ""  # addresses, with spaces between
        self.refusal = "550 no such user"  # "": the connection breaks off
        self.farewell = "221 Bye"  # "": the connection breaks off
        self.greets_after = 0.0  # seconds
        tls = options.pop("ssl", None)
        self._loop = asyncio.new_event_loop()
        make = lambda: _Session(self, loop=self._loop, authenticator=self._login, **options)  # noqa: E731
        started = self._loop.create_server(make, "127.0.0.1", 0, ssl=tls)
        self._server = self._loop.run_until_complete(started)
        self.port = self._server.sockets[0].getsockname()[1]
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def _login(self, server: Any, session: Any, envelope: Any, mechanism: str, data: Any) -> Any:
        self.logins.append(f"{data.login.decode()}:{data.password.decode()}")
        return AuthResult(success=data.password.decode() == PASSWORD, handled=False)

    async def handle_RCPT(
        self, server: Any, session: Any, envelope: Any, address: str, options: Any
    ) -> str:
        self.receivers.append(address)
        if address in self.refuse.split():
            if not self.refusal:
                server.transport.abort()
            return self.refusal
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        self.mails.append(envelope)
        self.greetings.append(session.host_name)
        return "250 OK"

    async def handle_QUIT(self, server: Any, session: Any, envelope: Any) -> str:
        if not self.farewell:
            server.transport.abort()
        return self.farewell

    def message(self) -> Any:
        """The one mail that came."""
        assert len(self.mails) == 1
        return email.message_from_bytes(self.mails[0].content, policy=email.policy.default)

    def text(self) -> str:
        """What the one mail that came says, on one line."""
        return " ".join(self.message().get_content().split())

    def stop(self) -> None:
        """End the thread."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._server.close()


class _Session(SMTP):
    """A session that may begin late, and without the TLS that it offers."""

    async def _handle_client(self) -> None:
        await asyncio.sleep(self.event_handler.greets_after)
        await super()._handle_client()

    async def smtp_STARTTLS(self, arg: str) -> None:
        if not self.event_handler.starttls:
            await super().smtp_STARTTLS(arg)
            return
        await self.push(self.event_handler.starttls)


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    """Who signs the servers' certificates."""
    return trustme.CA()


@pytest.fixture
def server_tls(authority: trustme.CA) -> ssl.SSLContext:
    """TLS for a server on loopback."""
    return tls_of(authority.issue_cert("127.0.0.1"))


def tls_of(certificate: trustme.LeafCert) -> ssl.SSLContext:
    """TLS for a server with this certificate."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    certificate.configure_cert(context)
    return context


@pytest.fixture
def told(used: Archiver, authority: trustme.CA, tmp_path: Path) -> Archiver:
    """The archiver in a plain month, with OLD listed; pings and a webhook are set."""
    list_editions(used, created=ago(1))
    bundle = tmp_path / "authority.pem"
    authority.cert_pem.write_to_path(str(bundle))
    used.api.on(PING, answer(b"OK"))
    for end in ("/start", "/fail", "/log"):
        used.api.on(PING + end, answer(b"OK"))
    used.api.on(HOOK, answer(status="204 No Content"))
    used.settings["LUMIERE_HEALTHCHECKS_URL"] = used.api.url + PING
    used.settings["LUMIERE_WEBHOOK_URL"] = used.api.url + HOOK
    used.settings["SSL_CERT_FILE"] = str(bundle)
    return used


def set_mail(archiver: Archiver, server: MailServer, scheme: str, user: str = "") -> None:
    """Point the archiver at a mail server."""
    archiver.settings["LUMIERE_SMTP_URL"] = f"{scheme}://{user}127.0.0.1:{server.port}"
    archiver.settings["LUMIERE_EMAIL_FROM"] = "Archiver <archiver@example.org>"
    archiver.settings["LUMIERE_EMAIL_TO"] = "anna@example.org, Bo Bø <bo@example.org>"


@pytest.fixture
def mail(told: Archiver) -> Iterator[MailServer]:
    """A mail server without TLS, and the archiver pointed at it."""
    server = MailServer()
    set_mail(told, server, "smtp")
    yield server
    server.stop()


def ago(days: float) -> str:
    """A moment that many days ago, as editions.csv has it."""
    moment = datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(days)
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def list_editions(archiver: Archiver, **other: Any) -> None:
    """List all datasets of the archive in editions.csv, some values other than usual."""
    rows = [row_of(name, data) for name, data in sorted(archiver.datasets().items())]
    (archiver.folder / EDITIONS).write_bytes(as_csv({**row, **other} for row in rows))


def counted(works: int, presences: int, *dates: str) -> bytes:
    """Make a dataset of so many works and presences, of these dates and else of 2026-09-30."""
    days = [*dates, *["2026-09-30"] * (presences - len(dates))]
    first = {"id": 0, "presences": [{"presence_date": day} for day in days]}
    rest = [{"id": number, "presences": []} for number in range(1, works)]
    return json.dumps([first, *rest]).encode()


def heard(archiver: Archiver) -> List[str]:
    """The pings and webhook calls that came, in their order."""
    paths = [request.path for request in archiver.api.requests]
    return [path for path in paths if not path.startswith("/api/")]


def body(archiver: Archiver, path: str) -> str:
    """What the last request to a path brought."""
    return archiver.api.asked(path)[-1].body.decode("utf-8")


def hooked(archiver: Archiver) -> str:
    """What the last call of the webhook said, without the escapes that Slack asks for."""
    called = json.loads(body(archiver, HOOK))
    assert set(called) == {"text"}  # a field that it doesn't know makes Google Chat answer 400
    assert not re.search("[<>]|&(?!(amp|lt|gt);)", called["text"])
    return html.unescape(called["text"])


def warnings_of(result: Result) -> List[str]:
    """The WARNINGs that a run printed for cron to mail, without their first word."""
    return re.findall(r"(?m)^WARNING: (.+)$", result.out)


def logged(archiver: Archiver, level: str) -> List[str]:
    """The messages in the log of one level."""
    return re.findall(rf"(?m)^[-\d]+ [\d:,]+ - {level} - (.+)$", archiver.log)


def said(text: str, *patterns: str) -> bool:
    """Whether a text matches all of these patterns, in any case of letters."""
    return all(re.search(pattern, text, re.IGNORECASE) for pattern in patterns)


def noticed(then: Answer) -> Tuple[threading.Event, Answer]:
    """An event, and an answer that sets it when it is asked for and goes on as `then` does."""
    reached = threading.Event()

    def send(connection: socket.socket) -> None:
        reached.set()
        then(connection)

    return reached, send


def dead_port() -> int:
    """A port on which nobody listens."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        return int(closed.getsockname()[1])


def assert_no_secret(archiver: Archiver, *texts: str) -> None:
    """Hold that neither the log nor any of these texts gives a secret away."""
    for text in (archiver.log, *texts):
        for secret in SECRETS:
            assert secret not in text


def assert_printable(*texts: str) -> None:
    """Hold that texts have no control characters but the ends of lines, and a terminal's own."""
    for text in texts:
        assert re.sub(r"\r?\n|\r", "", text).isprintable(), text


def assert_words(*texts: str) -> None:
    """Hold that texts are for a person: without names of classes and technical noise."""
    for text in texts:
        assert not re.findall(NOISE, text), text


def allow_names(archiver: Archiver) -> None:
    """Let names in settings be beyond ASCII, which Python 3.6 does not read under cron."""
    if platform.python_version().startswith("3.6."):
        archiver.settings["LC_ALL"] = "C.UTF-8"
