"""Channels that really reach somebody: real servers' ways, and what is said when one fails."""

import json
import os
import re
import socket
import ssl
from typing import Any, Iterator, List

import pytest
import trustme
from conftest import (
    NEW,
    NEW_NAME,
    OLD,
    OLD_NAME,
    WORKS,
    Archiver,
    Result,
    assert_one_sentence,
)
from lumiere_api import answer, head, raw, reset
from telling import (
    CONTROLS,
    HOOK,
    LOGIN,
    PING,
    MailServer,
    allow_names,
    assert_no_secret,
    assert_printable,
    assert_words,
    body,
    heard,
    hooked,
    logged,
    said,
    set_mail,
    tls_of,
)


@pytest.fixture
def servers(told: Archiver) -> Iterator[Any]:
    """Starts mail servers of a kind, points the archiver at them, and stops them at the end."""
    started: List[MailServer] = []

    def start(scheme: str = "smtp", user: str = "", **options: Any) -> MailServer:
        started.append(MailServer(**options))
        set_mail(told, started[-1], scheme, user)
        return started[-1]

    yield start
    for server in started:
        server.stop()


def assert_failed(archiver: Archiver, result: Result, channel: str, *words: str) -> None:
    """Hold that a new dataset is archived, and that it was said in words how a channel failed."""
    assert result.code == 0
    assert_one_sentence(result.out, NEW_NAME)
    assert_one_sentence(result.err, channel)
    (warning,) = logged(archiver, "WARNING")
    for text in (result.err, warning):
        assert said(text, channel, *words), text
        assert_words(text)
        assert_no_secret(archiver, text)
    assert archiver.datasets() == {OLD_NAME: OLD, NEW_NAME: NEW}


# Healthchecks


@pytest.mark.parametrize("reply", ["OK (not found)", "OK (rate limited)"])
def test_what_healthchecks_calls_ok_and_is_none(told: Archiver, reply: str) -> None:
    """A mistyped uuid is answered with status 200: a switch that would never fire."""
    told.api.on(PING, answer(reply.encode(), headers=["Content-Type: text/plain"]))
    assert_failed(told, told.run(), "Healthchecks", re.escape(reply[4:-1]))


@pytest.mark.parametrize("reply", ["OK (not found)", "OK (rate limited)"])
def test_a_test_of_what_is_no_ok(told: Archiver, reply: str) -> None:
    told.api.on(PING + "/log", answer(reply.encode()))
    result = told.run("--test-notifications")
    assert result.code == 1
    line = next(line for line in result.out.splitlines() if line.startswith("Healthchecks"))
    assert said(line, re.escape(reply[4:-1]))
    assert "sent" not in line
    assert "webhook: sent." in result.out
    assert_no_secret(told, result.out, result.err)


def test_not_found_at_the_start_is_told(told: Archiver) -> None:
    told.api.on(PING + "/start", answer(b"OK (not found)"))
    result = told.run()
    assert (result.code, result.err) == (0, "")
    warning = result.out.splitlines()[1]
    assert said(warning, "^WARNING: .*Healthchecks", "not found")
    assert warning in hooked(told)


@pytest.mark.parametrize("reply", [b"", b"OK", b"ok\n", b"Created (not found elsewhere)", b"\xff"])
def test_other_answers_of_2xx_are_fine(told: Archiver, reply: bytes) -> None:
    told.api.on(PING, answer(reply, status="201 Created"))
    assert told.run().err == ""
    assert logged(told, "WARNING") == []


# Webhooks


@pytest.mark.skipif(os.name != "posix", reason="such names of folders")
def test_text_is_escaped_as_slack_asks(told: Archiver) -> None:
    told.api.on(WORKS, answer(b"{}"))
    assert told.run(STORAGE_DIR="a&b<c>&amp;d").code == 1
    assert "/a&amp;b&lt;c&gt;&amp;amp;d/" in json.loads(body(told, HOOK))["text"]
    assert "/a&b<c>&amp;d/" in hooked(told)


def test_quotes_are_not_escaped(told: Archiver) -> None:
    """Slack asks for three characters only, and shows `&quot;` as it is."""
    told.api.on(WORKS, answer(b"{}"))
    assert told.run(STORAGE_DIR='it\'s "mine" & yours').code == 1
    assert '/it\'s "mine" &amp; yours/' in json.loads(body(told, HOOK))["text"]


# Whom a mail goes to


@pytest.mark.parametrize("end", [",", ", ", " ,\t", ",,"])
def test_a_comma_at_the_end_is_forgiven(told: Archiver, mail: MailServer, end: str) -> None:
    result = told.run(EMAIL_TO=f"anna@example.org, Bo <bo@example.org>{end}")
    assert (result.code, result.err) == (0, "")
    assert mail.mails[0].rcpt_tos == ["anna@example.org", "bo@example.org"]


WRONG_ADDRESSES = [
    "anna@example.org; bo@example.org",
    "anna@example.org;",
    "anna@example.org, bo",
    "anna@example.org, @example.org",
    "anna@example.org, bo@",
    "anna@example.org bo@example.org",
    "bo, anna@example.org",
    "@example.org, anna@example.org",
    "bo@, anna@example.org",
]


@pytest.mark.parametrize("value", WRONG_ADDRESSES)
def test_each_address_is_checked_at_the_start(told: Archiver, mail: MailServer, value: str) -> None:
    result = told.run("--test-notifications", EMAIL_TO=value)
    assert (result.code, result.out) == (2, "")
    assert_one_sentence(result.err, "LUMIERE_EMAIL_TO must be ")
    assert_words(result.err)
    assert (mail.mails, told.api.requests) == ([], [])


def test_commas_within_quotes_are_fine(told: Archiver, mail: MailServer) -> None:
    allow_names(told)
    told.run(EMAIL_TO='"Bø, Bo" <bo@example.org>, anna@example.org')
    assert mail.mails[0].rcpt_tos == ["bo@example.org", "anna@example.org"]
    assert mail.message()["To"].addresses[0].display_name == "Bø, Bo"


BEYOND_ASCII = ["anna@example.org, Bo <bø@example.org>", "anna@bücher.example", "ø <ø>"]


@pytest.mark.parametrize("name", ["EMAIL_FROM", "EMAIL_TO"])
@pytest.mark.parametrize("value", BEYOND_ASCII)
def test_an_address_beyond_ascii(told: Archiver, mail: MailServer, name: str, value: str) -> None:
    """Few servers take one, so it is refused before anybody counts on it."""
    result = told.run("--test-notifications", **{name: value})
    assert (result.code, result.out) == (2, "")
    assert_one_sentence(result.err, f"LUMIERE_{name} must be ", "email address in ASCII")
    assert_words(result.err)
    assert (mail.mails, told.api.requests) == ([], [])


def test_names_beyond_ascii_are_fine(told: Archiver, mail: MailServer) -> None:
    allow_names(told)
    told.run(EMAIL_TO="Åse Łódź <ase@example.org>", EMAIL_FROM="Arkiv æøå <a@example.org>")
    assert mail.mails[0].rcpt_tos == ["ase@example.org"]
    assert mail.message()["To"].addresses[0].display_name == "Åse Łódź"
    assert mail.message()["From"].addresses[0].display_name == "Arkiv æøå"
    headers, _, _ = mail.mails[0].content.partition(b"\r\n\r\n")
    headers.decode("ascii")


# What mail servers do


@pytest.mark.parametrize("farewell", ["421 too busy", "500 what?", ""])
def test_what_was_accepted_was_sent(told: Archiver, mail: MailServer, farewell: str) -> None:
    """Whatever comes of QUIT behind it."""
    mail.farewell = farewell
    result = told.run()
    assert (result.code, result.err) == (0, "")
    assert NEW_NAME in mail.text()
    assert logged(told, "WARNING") == []
    assert "email: sent." in told.run("--test-notifications").out


def test_a_server_that_greets_late(told: Archiver, mail: MailServer) -> None:
    """Tarpits do so to be rid of spammers, who do not wait."""
    mail.greets_after = 15
    result = told.run("--test-notifications")
    assert (result.code, result.err) == (0, "")
    assert "email: sent." in result.out
    assert len(mail.mails) == 1


def test_a_refused_address_is_named(told: Archiver, mail: MailServer) -> None:
    """With the server's own words; the others get their mail."""
    mail.refuse = "bo@example.org"
    assert_failed(told, told.run(), "email", "bo@example.org", "no such user")
    assert mail.mails[0].rcpt_tos == ["anna@example.org"]


def test_all_addresses_refused(told: Archiver, mail: MailServer) -> None:
    mail.refuse = "bo@example.org anna@example.org"
    words = ("anna@example.org", "bo@example.org", "no such user")
    assert_failed(told, told.run(), "email", *words)
    assert mail.mails == []


@pytest.mark.parametrize(
    ("refusal", "heard"),
    [
        (
            "550-5.1.1 'bo' {isn't} known\r\n550 5.1.1 (ask b\"Anna\")",
            "550, .*5.1.1 .*bo.* known .*Anna",
        ),
        ("550 " + "x" * 9000, "500, Line too long"),
    ],
)
def test_what_a_mail_server_says_has_no_marks_of_python(
    told: Archiver, mail: MailServer, refusal: str, heard: str
) -> None:
    mail.refuse = "bo@example.org anna@example.org"
    mail.refusal = refusal
    result = told.run()
    assert_failed(told, result, "email", heard)
    assert not re.search(r"[{}\\]|b['\"]", result.err)


def test_a_mail_server_that_breaks_off_is_said(told: Archiver, mail: MailServer) -> None:
    mail.refuse = "bo@example.org"
    mail.refusal = ""
    result = told.run()
    assert_failed(told, result, "email", "clos")
    assert "rrno" not in result.err


def test_a_refused_login_is_said(told: Archiver, servers: Any, server_tls: ssl.SSLContext) -> None:
    servers("smtps", "us%40er:wrong@", ssl=server_tls, auth_require_tls=False)
    assert_failed(told, told.run(), "email", "refuses the user name or the password")


def test_a_password_beyond_ascii_is_said(
    told: Archiver, servers: Any, server_tls: ssl.SSLContext
) -> None:
    server = servers("smtps", "user:%C3%BC5ecret@", ssl=server_tls, auth_require_tls=False)
    assert_failed(told, told.run(), "email", "password", "in ASCII")
    assert server.mails == []


@pytest.mark.parametrize("path", [PING, HOOK])
def test_a_good_answer_that_breaks_off_is_good(told: Archiver, mail: MailServer, path: str) -> None:
    told.api.on(path, raw(head("200 OK", ["Content-Length: 50"]) + b"OK", then=reset))
    result = told.run()
    assert (result.code, result.err) == (0, "")
    assert logged(told, "WARNING") == []


def test_a_wrong_password_is_said(told: Archiver, servers: Any, server_tls: ssl.SSLContext) -> None:
    user = LOGIN.replace("word", "w0rd")
    server = servers("smtps", user, ssl=server_tls, auth_require_tls=False)
    assert_failed(told, told.run(), "email", "password|user name|credentials|log ?in")
    assert server.mails == []


@pytest.fixture(scope="module")
def own_tls(tmp_path_factory: Any) -> ssl.SSLContext:
    """TLS with a self-signed certificate, of another name: as a relay on the campus has it."""
    own = trustme.CA()
    path = str(tmp_path_factory.mktemp("own") / "own.pem")
    own.private_key_pem.write_to_path(path)
    own.cert_pem.write_to_path(path, append=True)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(path)
    return context


def relay(servers: Any, scheme: str, user: str, tls: ssl.SSLContext) -> Any:
    """Start a mail server with TLS, from the start or by STARTTLS as the scheme has it."""
    options = {"ssl": tls} if scheme == "smtps" else {"tls_context": tls, "require_starttls": True}
    return servers(scheme, user, auth_require_tls=False, **options)


@pytest.mark.parametrize("scheme", ["smtp", "smtps"])
@pytest.mark.parametrize("known", [True, False])
def test_a_relay_may_have_a_certificate_of_its_own(
    told: Archiver, servers: Any, own_tls: ssl.SSLContext, scheme: str, known: bool
) -> None:
    """As long as it gets no password; mail servers do the same among each other."""
    if not known:  # no certificate at all is trusted
        told.settings["SSL_CERT_FILE"] = os.devnull
    server = relay(servers, scheme, "", own_tls)
    result = told.run()
    assert (result.code, result.err) == (0, "")
    assert NEW_NAME in server.text()


@pytest.mark.parametrize("scheme", ["smtp", "smtps"])
def test_no_password_for_a_certificate_that_is_not_trusted(
    told: Archiver, servers: Any, own_tls: ssl.SSLContext, scheme: str
) -> None:
    server = relay(servers, scheme, LOGIN, own_tls)
    assert_failed(told, told.run(), "email", "certificate", "not trusted")
    assert (server.receivers, server.logins) == ([], [])


@pytest.mark.parametrize("scheme", ["smtp", "smtps"])
def test_no_password_for_a_certificate_of_another_host(
    told: Archiver, servers: Any, authority: trustme.CA, scheme: str
) -> None:
    tls = tls_of(authority.issue_cert("other.example.org"))
    server = relay(servers, scheme, LOGIN, tls)
    assert_failed(told, told.run(), "email", "certificate")
    assert (server.receivers, server.logins) == ([], [])


@pytest.mark.parametrize("user", ["", LOGIN])
@pytest.mark.parametrize(
    ("reply", "words"),
    [("454 TLS is out of order", "454,? TLS is out of order"), ("220 Go ahead", "secure")],
)
def test_starttls_that_fails(
    told: Archiver, servers: Any, own_tls: ssl.SSLContext, user: str, reply: str, words: str
) -> None:
    """Refused, or promised and then not spoken: nothing goes in plain text instead."""
    server = servers("smtp", user, tls_context=own_tls, auth_require_tls=False)
    server.starttls = reply
    assert_failed(told, told.run(), "email", words)
    assert (server.receivers, server.logins, server.mails) == ([], [], [])


def test_a_server_that_says_nothing(told: Archiver) -> None:
    """It is said to be silent, also where a setting of other words is the mistake to be told."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(5)
        result = told.run(
            SMTP_URL=f"smtp://127.0.0.1:{listening.getsockname()[1]}",
            EMAIL_FROM="a@example.org",
            EMAIL_TO="b@example.org",
            READ_TIMEOUT="0",
        )
    assert (result.code, result.out) == (2, "")
    mistake, channel = result.err.splitlines()
    assert said(mistake, "LUMIERE_READ_TIMEOUT must be")
    assert channel.startswith("The email channel failed: no answer in time ")


def test_login_that_is_not_offered_is_said(
    told: Archiver, servers: Any, server_tls: ssl.SSLContext
) -> None:
    server = servers("smtps", LOGIN, ssl=server_tls)
    assert_failed(told, told.run(), "email", "password|user name|log ?in|AUTH")
    assert server.mails == []


@pytest.mark.parametrize("sign", ["/", "#", "?", "/#?"])
@pytest.mark.parametrize("user", ["user:5ecret{}tail", "5ecret{}us:tail"])
def test_a_sign_in_a_mail_password(told: Archiver, mail: MailServer, user: str, sign: str) -> None:
    """It would end the name of the host; how to write it is said, and works (see LOGIN)."""
    url = f"smtps://{user.format(sign)}@mail.example.org:465"
    result = told.run("--test-notifications", SMTP_URL=url)
    assert (result.code, result.out) == (2, "")
    assert_one_sentence(result.err, "LUMIERE_SMTP_URL must be ", "%23 for #", "%2F for /")
    assert "%3F for ?" in result.err
    assert_no_secret(told, result.err)
    assert "tail" not in result.err + told.log


@pytest.mark.parametrize("channel", ["Healthchecks", "webhook", "email"])
def test_a_host_that_can_not_be_found_is_named(
    told: Archiver, mail: MailServer, channel: str
) -> None:
    """With the name as it is set, since a mistyped one is what it mostly is."""
    settings = {
        "Healthchecks": {"HEALTHCHECKS_URL": "http://pings.invalid/5ecret"},
        "webhook": {"WEBHOOK_URL": "http://hooks.invalid/5ecret"},
        "email": {"SMTP_URL": "smtp://user:5ecret@mail.invalid"},
    }
    result = told.run("--test-notifications", **settings[channel])
    assert result.code == 1
    (line,) = [line for line in result.out.splitlines() if line.startswith(channel + ": ")]
    assert said(line, r"\b(pings|hooks|mail)\.invalid\b", "can't be found")
    assert_words(line)
    assert_no_secret(told, result.out, result.err)


@pytest.mark.parametrize("refusal", [f"550 no{CONTROLS}such user", f"550-no\r\n550 {CONTROLS}"])
def test_no_control_character_of_a_mail_server(
    told: Archiver, mail: MailServer, refusal: str
) -> None:
    mail.refuse = "bo@example.org anna@example.org"
    mail.refusal = refusal
    result = told.run()
    assert_failed(told, result, "email", "550")
    tested = told.run("--test-notifications")
    assert tested.code == 1
    assert_printable(result.out, result.err, tested.out, tested.err, told.log)
    assert result.err.count("\n") == 1


# The machine


# What a test says


def test_every_trouble_is_said_in_words(told: Archiver, mail: MailServer) -> None:
    mail.refuse = "bo@example.org anna@example.org"
    told.api.on(HOOK, answer(status="410 Gone"))
    told.api.on(PING + "/log", answer(b"OK (not found)"))
    result = told.run("--test-notifications")
    assert result.code == 1
    lines = {line.split(": ")[0]: line for line in result.out.splitlines()}
    assert sorted(lines) == ["Healthchecks", "email", "webhook"]
    assert said(lines["email"], "anna@example.org", "no such user")
    assert said(lines["webhook"], "410")
    assert said(lines["Healthchecks"], "not found")
    assert_words(result.out)
    assert_no_secret(told, result.out)
    assert heard(told).count(PING + "/fail") == 0
    assert told.api.asked(WORKS) == []
