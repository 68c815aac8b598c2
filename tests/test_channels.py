"""Channels that really reach somebody: real servers' ways, and what is said when one fails."""

import html
import json
import os
import re
import shutil
import ssl
import sys
from pathlib import Path
from typing import Any, Iterator, List, Sequence

import pytest
from conftest import (
    NEW,
    NEW_NAME,
    OLD,
    OLD_NAME,
    WORKS,
    Archiver,
    Result,
    assert_one_sentence,
    start_anew,
    strace,
)
from lumiere_api import answer, head, raw, reset
from telling import (
    HOOK,
    LOGIN,
    PING,
    MailServer,
    assert_no_secret,
    assert_words,
    body,
    heard,
    hooked,
    logged,
    on_host,
    said,
    set_mail,
)

own_name = pytest.mark.skipif(
    not sys.platform.startswith("linux") or os.geteuid() != 0 or not shutil.which("unshare"),
    reason="only root on Linux can name a machine",
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
    called = json.loads(body(told, HOOK))
    assert "/a&b<c>&amp;d/" in called["content"]
    assert "/a&amp;b&lt;c&gt;&amp;amp;d/" in called["text"]
    assert html.unescape(called["text"]) == called["content"]


def test_quotes_are_not_escaped(told: Archiver) -> None:
    """Slack asks for three characters only, and shows `&quot;` as it is."""
    told.api.on(WORKS, answer(b"{}"))
    assert told.run(STORAGE_DIR='it\'s "mine" & yours').code == 1
    assert '/it\'s "mine" &amp; yours/' in json.loads(body(told, HOOK))["text"]


def test_2000_characters_at_most(told: Archiver) -> None:
    """Neither field is longer, and no escape is cut in two."""
    path = "/" + "&" * 3000
    told.api.on(path, answer(status="404 Not Found"))
    assert told.run(DATA_API_URL=told.api.url + path).code == 1
    called = json.loads(body(told, HOOK))
    for field in ("text", "content"):
        assert 1500 < len(called[field]) <= 2000
    assert re.fullmatch(r"([^&<>]|&amp;|&lt;|&gt;)*", called["text"])
    assert "&&&&" in called["content"]


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
    for option in ((), ("--test-notifications",)):
        result = told.run(*option, EMAIL_TO=value)
        assert (result.code, result.out) == (2, "")
        assert_one_sentence(result.err, "LUMIERE_EMAIL_TO")
        assert_words(result.err)
    assert (mail.mails, told.api.requests) == ([], [])


def test_commas_within_quotes_are_fine(told: Archiver, mail: MailServer) -> None:
    told.run(EMAIL_TO='"Bø, Bo" <bo@example.org>, anna@example.org')
    assert mail.mails[0].rcpt_tos == ["bo@example.org", "anna@example.org"]
    assert mail.message()["To"].addresses[0].display_name == "Bø, Bo"


def test_a_domain_beyond_ascii_goes_as_punycode(told: Archiver, mail: MailServer) -> None:
    result = told.run(
        EMAIL_TO="anna@bücher.example, Bo <bo@example.org>", EMAIL_FROM="a@øl.example"
    )
    assert (result.code, result.err) == (0, "")
    assert mail.mails[0].rcpt_tos == ["anna@xn--bcher-kva.example", "bo@example.org"]
    assert mail.mails[0].mail_from == "a@xn--l-4ga.example"
    headers, _, _ = mail.mails[0].content.partition(b"\r\n\r\n")
    assert b"anna@xn--bcher-kva.example" in headers
    headers.decode("ascii")


def test_a_name_beyond_ascii_where_the_server_takes_it(told: Archiver, servers: Any) -> None:
    server = servers(enable_SMTPUTF8=True)
    result = told.run(EMAIL_TO="bø@example.org, anna@example.org")
    assert (result.code, result.err) == (0, "")
    assert server.mails[0].rcpt_tos == ["bø@example.org", "anna@example.org"]
    assert "SMTPUTF8" in server.mails[0].mail_options
    assert "bø@example.org" in server.mails[0].content.decode("utf-8")
    assert NEW_NAME in server.text()


def test_a_name_beyond_ascii_where_the_server_takes_none(told: Archiver, mail: MailServer) -> None:
    result = told.run(EMAIL_TO="bø@example.org")
    assert_failed(told, result, "email", "bø@example.org|SMTPUTF8|beyond ASCII")
    assert mail.mails == []


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
    assert_failed(told, told.run(), "email", "password", "beyond ASCII")
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


@pytest.mark.parametrize("scheme", ["smtp", "smtps"])
def test_a_certificate_that_is_not_trusted_is_said(
    told: Archiver, servers: Any, server_tls: ssl.SSLContext, scheme: str
) -> None:
    del told.settings["SSL_CERT_FILE"]
    options = {"ssl": server_tls} if scheme == "smtps" else {"tls_context": server_tls}
    server = servers(scheme, LOGIN, auth_require_tls=False, **options)
    assert_failed(told, told.run(), "email", "certificate")
    assert (server.mails, server.logins) == ([], [])


def test_login_that_is_not_offered_is_said(
    told: Archiver, servers: Any, server_tls: ssl.SSLContext
) -> None:
    server = servers("smtps", LOGIN, ssl=server_tls)
    assert_failed(told, told.run(), "email", "password|user name|log ?in|AUTH")
    assert server.mails == []


def test_a_slash_in_a_mail_password(told: Archiver, mail: MailServer) -> None:
    result = told.run(SMTP_URL="smtps://user:5ecret/word@mail.example.org:465")
    assert (result.code, result.out) == (2, "")
    assert_one_sentence(result.err, "LUMIERE_SMTP_URL", "%2F")
    assert_no_secret(told, result.err)
    assert "word@" not in result.err


# The machine


@own_name
def test_a_machine_whose_name_is_not_ascii(told: Archiver, mail: MailServer) -> None:
    result = told.run(before=on_host("bø"))
    assert (result.code, result.err) == (0, "")
    assert_one_sentence(result.out, NEW_NAME)
    assert NEW_NAME in mail.text()
    assert NEW_NAME in hooked(told)
    mail.greetings[0].encode("ascii")
    headers, _, _ = mail.mails[0].content.partition(b"\r\n\r\n")
    headers.decode("ascii")
    assert "new dataset" in mail.message()["Subject"]
    assert re.fullmatch(r"<[!-;=?-~]+@[!-;=?-~]+>", mail.message()["Message-ID"].strip())


@own_name
@strace
def test_no_name_server_is_asked(told: Archiver, mail: MailServer, tmp_path: Path) -> None:
    """Where all hosts are numbers: not for EHLO, and not for Message-ID."""
    trace = tmp_path / "trace"
    command = ["strace", "-f", "-qq", "-e", "trace=openat,connect", "-o", str(trace)]
    result = told.run(before=[*on_host("archive-machine"), *command])
    assert (result.code, result.err, len(mail.mails)) == (0, "", 1)
    calls = trace.read_text(errors="replace")
    assert "connect(" in calls
    assert not re.findall(r".*(?:htons\(53\)|/etc/resolv\.conf|/etc/hosts).*", calls)


def threads_of(archiver: Archiver, trace: Path) -> List[int]:
    """List the threads that a run starts, by their place among what strace sees started; an ijson
    without its C backend starts programs, too.
    """
    archiver.run(before=tracing(trace))
    started = re.findall(r"clone3?\(.*", trace.read_text(errors="replace"))
    return [number for number, line in enumerate(started, 1) if "CLONE_THREAD" in line]


def tracing(trace: Path, *options: str) -> Sequence[str]:
    """Build a command that traces how a run starts threads."""
    command = ["strace", "-f", "-qq", "-o", str(trace), "-e", "trace=clone,clone3"]
    return [*command, *options]


@strace
def test_threads_that_can_not_be_started(told: Archiver, mail: MailServer, tmp_path: Path) -> None:
    """As under `ulimit -u`: from each one on, there are no more. No edition goes untold."""
    trace = tmp_path / "trace"
    numbers = threads_of(told, trace)
    archived_in = 0
    for first in numbers:
        start_anew(told)
        mail.mails.clear()
        fault = ["-e", f"inject=clone,clone3:error=EAGAIN:when={first}+"]
        result = told.run(before=tracing(trace, *fault))
        assert "(INJECTED)" in trace.read_text(errors="replace")
        assert "Traceback" not in result.err
        assert_words(result.err, result.out)
        outcome = (result.out or result.err).splitlines()[0]
        assert outcome in hooked(told)
        assert outcome in mail.text()
        if NEW_NAME in told.datasets():
            archived_in += 1
            assert result.code == 0
            assert said(result.out, "^New dataset.*" + re.escape(NEW_NAME))
        else:
            assert result.code == 1
            assert len(result.err.splitlines()) >= 1
    assert archived_in >= 1
    start_anew(told)
    assert told.run().code == 0


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
