"""What a webhook is sent, by the host of its address, held against what each service takes.

A real TLS server, with a certificate for the services' own names, stands behind a real proxy.
"""

import json
import re
import socket
import ssl
from typing import Any, Dict, Iterator, List, NamedTuple

import pytest
import trustme
from conftest import WORKS, Archiver, assert_one_sentence
from lumiere_api import LumiereApi, answer, head
from telling import PING, assert_no_secret, assert_words, logged, said, tls_of

TEAMS = [  # where its Workflows listen; the last is of the connectors that they replaced
    "default5ecret.7b.environment.api.powerplatform.com",
    "prod-12.westeurope.logic.azure.com",
    "tenant.flow.powerautomate.com",
    "university.webhook.office.com",
]
DISCORD = ["discord.com", "discordapp.com", "canary.discord.com"]
CHAT, SLACK = "chat.googleapis.com", "hooks.slack.com"
OTHERS = [  # of which some only look like those above
    "mattermost.example.org",
    "powerplatform.com.example.org",
    "logic.azure.com.example.org",
    "discord.com.example.org",
    "notpowerplatform.com",
    "mydiscord.com",
    "api-powerautomate.com",
]
HOSTS = [*TEAMS, *DISCORD, CHAT, SLACK, *OTHERS]


class Call(NamedTuple):
    """One call of a webhook."""

    host: str  # as the proxy was asked for it
    body: Any


class Services(LumiereApi):
    """A proxy, and behind it each service, which answers as its own host does."""

    def __init__(self, context: ssl.SSLContext) -> None:
        super().__init__()
        self.calls: List[Call] = []
        self._context = context

    def serve(self, connection: socket.socket) -> None:
        """Make a tunnel, which ends here, and be the service that was asked for."""
        line = b""
        while not line.endswith(b"\r\n\r\n"):
            line += connection.recv(1)
        found = re.match(rb"CONNECT (\S+):443 HTTP/1\.[01]\r\n", line)
        assert found, line
        connection.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        with self._context.wrap_socket(connection, server_side=True) as tunnel:
            super().serve(tunnel)
            call = Call(found.group(1).decode(), json.loads(self.requests[-1].body.decode()))
            self.calls.append(call)
            status = status_of(call)
            tunnel.sendall(head(status, ["Content-Length: 0"]))


def status_of(call: Call) -> str:
    """What a service answers to a call."""
    if call.host.lower() in TEAMS:
        return "202 Accepted"  # whatever came: it shows only what is a card
    if call.host in DISCORD:
        content = call.body.get("content")
        good = isinstance(content, str) and 0 < len(content) <= 2000
        return "204 No Content" if good else "400 Bad Request"
    known = {CHAT: {"text", "cardsV2", "thread"}}.get(call.host, set(call.body))
    good = isinstance(call.body.get("text"), str) and set(call.body) <= known
    return "200 OK" if good else "400 Bad Request"


def shown(call: Call) -> str:
    """What people see of a call in their service."""
    if call.host.lower() in TEAMS:
        return text_of_card(call.body)
    if call.host in DISCORD:
        assert set(call.body) == {"content"}
        return str(call.body["content"])
    assert set(call.body) == {"text"}
    text = str(call.body["text"])
    assert not re.search("[<>]|&(?!(amp|lt|gt);)", text)
    return text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")


def text_of_card(message: Any) -> str:
    """The text of a message with an adaptive card, which is held against the form of both."""
    assert set(message) == {"type", "attachments"}
    assert message["type"] == "message"
    (attachment,) = message["attachments"]
    assert set(attachment) <= {"contentType", "contentUrl", "content"}
    assert attachment["contentType"] == "application/vnd.microsoft.card.adaptive"
    assert attachment.get("contentUrl") is None
    card = attachment["content"]
    assert set(card) <= {"$schema", "type", "version", "body"}
    assert (card["type"], card["version"]) == ("AdaptiveCard", "1.2")
    (block,) = card["body"]
    assert set(block) == {"type", "text", "wrap"}
    assert (block["type"], block["wrap"]) == ("TextBlock", True)
    assert isinstance(block["text"], str)
    return str(block["text"])


@pytest.fixture(scope="module")
def services_tls(authority: trustme.CA) -> ssl.SSLContext:
    """TLS with a certificate for all of the services' names."""
    return tls_of(authority.issue_cert(*HOSTS))


@pytest.fixture
def services(told: Archiver, services_tls: ssl.SSLContext) -> Iterator[Services]:
    """The services, which the archiver reaches by a proxy."""
    services = Services(services_tls)
    with services:
        for path in ("/5ecret", "/powerautomate/workflows/5ecret?sig=5ecret", "/discord.com"):
            services.on(path, lambda connection: None)  # serve() answers
        told.settings["HTTPS_PROXY"] = services.url
        told.settings["REQUESTS_CA_BUNDLE"] = told.settings["SSL_CERT_FILE"]
        yield services


def call_at(archiver: Archiver, services: Services, url: str, **settings: str) -> Call:
    """The one call that a run made."""
    result = archiver.run(WEBHOOK_URL=url, **settings)
    assert_words(result.err)
    assert_no_secret(archiver, result.out, result.err)
    assert logged(archiver, "WARNING") == [], result
    (call,) = services.calls
    return call


@pytest.mark.parametrize("host", HOSTS)
def test_each_service_shows_the_message(told: Archiver, services: Services, host: str) -> None:
    call = call_at(told, services, f"https://{host}/5ecret")
    assert call.host == host
    (outcome,) = [line for line in logged(told, "INFO") if line.startswith("New dataset: ")]
    assert re.fullmatch(rf"LUMIERE VOD archiver on \S+: {re.escape(outcome)}", shown(call))


@pytest.mark.parametrize(
    "url",
    [
        f"https://{TEAMS[0]}:443/powerautomate/workflows/5ecret?sig=5ecret",
        f"https://{TEAMS[1].upper()}/5ecret",
    ],
)
def test_an_address_of_teams_as_it_is_given(told: Archiver, services: Services, url: str) -> None:
    """With a port, a query and capitals."""
    assert said(text_of_card(call_at(told, services, url).body), "New dataset: ")


def test_the_path_of_an_address_does_not_count(told: Archiver, services: Services) -> None:
    call = call_at(told, services, f"https://{OTHERS[0]}/discord.com")
    assert said(shown(call), "New dataset: ")


ODD = 'a&b <c> "d" 100% {e}'


@pytest.mark.parametrize("host", [TEAMS[0], DISCORD[0], CHAT, SLACK])
def test_odd_letters_reach_each_service(told: Archiver, services: Services, host: str) -> None:
    """Quotes, signs of percent and braces; only Slack and those like it ask for escapes."""
    told.api.on(WORKS, answer(b"{}"))
    told.settings["LUMIERE_STORAGE_DIR"] = str(told.folder / ODD)
    call = call_at(told, services, f"https://{host}/5ecret")
    assert f"/{ODD}/rejected/" in shown(call)


@pytest.mark.parametrize("host", [TEAMS[0], DISCORD[0], CHAT, SLACK])
def test_2000_characters_at_most(told: Archiver, services: Services, host: str) -> None:
    path = "/" + "&" * 3000
    told.api.on(path, answer(status="404 Not Found"))
    url = told.api.url + path
    call = call_at(told, services, f"https://{host}/5ecret", DATA_API_URL=url)
    text = call.body["text"] if host in (CHAT, SLACK) else shown(call)
    assert len(text) == 2000
    assert ("&amp;&amp;" if host in (CHAT, SLACK) else "&&&") in text


@pytest.mark.parametrize("host", [TEAMS[0], DISCORD[0], CHAT, SLACK])
def test_warnings_stand_on_lines_of_their_own(
    told: Archiver, services: Services, host: str
) -> None:
    told.api.on(PING + "/start", answer(status="500 Oops"))
    result = told.run(WEBHOOK_URL=f"https://{host}/5ecret")
    assert result.code == 0
    _, *warned = shown(services.calls[-1]).splitlines()
    assert said("\n".join(warned), "WARNING: The Healthchecks channel failed")


@pytest.mark.parametrize("host", [TEAMS[0], DISCORD[0], CHAT, SLACK])
def test_a_test_is_accepted(told: Archiver, services: Services, host: str) -> None:
    result = told.run("--test-notifications", WEBHOOK_URL=f"https://{host}/5ecret")
    assert (result.code, result.err) == (0, "")
    assert "webhook: sent.\n" in result.out
    assert said(shown(services.calls[-1]), "This is a test")


def test_a_certificate_of_another_name_is_not_trusted(told: Archiver, services: Services) -> None:
    """Which shows, too, that the names above are really looked at."""
    del told.settings["LUMIERE_HEALTHCHECKS_URL"]
    services.errors = Ignored()
    result = told.run("--test-notifications", WEBHOOK_URL="https://other.example.org/5ecret")
    assert result.code == 1
    assert_one_sentence(result.out, "webhook: ", "certificate")
    assert services.calls == []


class Ignored(List[BaseException]):
    """Errors that are to be expected: clients that go away at the sight of a certificate."""

    def append(self, error: BaseException) -> None:
        assert isinstance(error, ssl.SSLError)


def test_the_form_of_a_card_is_really_held() -> None:
    """By a card that is right, and by each of those that are not."""
    block: Dict[str, Any] = {"type": "TextBlock", "text": "x", "wrap": True}
    card: Dict[str, Any] = {"type": "AdaptiveCard", "version": "1.2", "body": [block]}

    def message(**changed: Any) -> Any:
        kind = "application/vnd.microsoft.card.adaptive"
        content = {"contentType": kind, "content": {**card, **changed}}
        return {"type": "message", "attachments": [content]}

    assert text_of_card(message()) == "x"
    for wrong in (
        {"text": "x"},
        message(version="1.5"),
        message(body=[{**block, "wrap": "true"}]),
        message(body=[block, block]),
        message(text="x"),
    ):
        with pytest.raises((AssertionError, ValueError, KeyError)):
            text_of_card(wrong)
