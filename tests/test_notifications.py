"""Who is told what, over real HTTP and real SMTP; and that no channel can hurt the run."""

import json
import os
import re
import signal
import socket
import ssl
import threading
import time
from typing import Any, Dict

import pytest
from conftest import (
    NEW,
    NEW_NAME,
    OLD,
    OLD_NAME,
    WORKS,
    Archiver,
    assert_one_sentence,
    finish,
    md5,
    unchanged,
)
from lumiere_api import answer, dataset, head, raw, silence
from telling import (
    HOOK,
    LOGIN,
    PASSWORD,
    PING,
    MailServer,
    allow_names,
    assert_no_secret,
    assert_words,
    body,
    counted,
    dead_port,
    heard,
    hooked,
    noticed,
    said,
    set_mail,
)


def test_a_new_dataset(told: Archiver, mail: MailServer) -> None:
    result = told.run()
    assert (result.code, result.err) == (0, "")
    assert heard(told)[0] == PING + "/start"
    assert sorted(heard(told)[1:]) == sorted([PING, HOOK])
    assert {request.method for request in told.api.requests[1:]} == {"GET", "POST"}
    message = result.out.strip()
    assert_one_sentence(result.out, NEW_NAME, md5(NEW), f"{len(NEW):,} bytes")
    works = [json.loads(data.decode()) for data in (OLD, NEW)]
    counts = [sum(len(work["presences"]) for work in data) for data in works]
    assert " 20 works (+0), " in message
    assert f" {counts[1]} presences ({counts[1] - counts[0]:+d})" in message
    assert body(told, PING) == message
    assert hooked(told).endswith(message)
    assert message in mail.message().get_content().replace("\n", " ")
    assert_no_secret(told, result.out)


def test_headers_of_a_mail(told: Archiver, mail: MailServer) -> None:
    allow_names(told)
    told.run()
    message = mail.message()
    assert "new dataset" in message["Subject"]
    assert message["From"] == "Archiver <archiver@example.org>"
    assert [address.addr_spec for address in message["To"].addresses] == [
        "anna@example.org",
        "bo@example.org",
    ]
    assert message["To"].addresses[1].display_name == "Bo Bø"
    assert abs(message["Date"].datetime.timestamp() - time.time()) < 100
    assert re.fullmatch(r"<[^<>@\s]+@[^<>@\s]+>", message["Message-ID"].strip())
    assert message.get_content_charset() == "utf-8"
    assert mail.mails[0].rcpt_tos == ["anna@example.org", "bo@example.org"]


def test_unchanged(told: Archiver, mail: MailServer) -> None:
    told.api.on(WORKS, answer(OLD))
    assert told.run() == (0, "", "")
    assert heard(told) == [PING + "/start", PING]
    assert body(told, PING).startswith("Unchanged")
    assert mail.mails == []


def test_a_failure(told: Archiver, mail: MailServer) -> None:
    told.api.on(WORKS, answer(b"<html>"))
    result = told.run()
    assert result.code == 1
    assert heard(told)[0] == PING + "/start"
    assert sorted(heard(told)[1:]) == sorted([PING + "/fail", HOOK])
    message = result.err.strip()
    for part in (told.api.url + WORKS, "attempt 2 of 2", md5(b"<html>"), "rejected"):
        assert part in message
    assert body(told, PING + "/fail") == message
    assert message in hooked(told)
    assert "failed" in mail.message()["Subject"]
    assert message in mail.message().get_content().replace("\n", " ")


def test_a_second_run_is_told_and_starts_nothing(told: Archiver) -> None:
    with open(str(told.archive / ".lock"), "a") as lock:
        if os.name != "posix":
            pytest.skip("locks with flock")
        import fcntl

        fcntl.flock(lock, fcntl.LOCK_EX)
        assert told.run().code == 1
    assert sorted(heard(told)) == sorted([PING + "/fail", HOOK])


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143), ("MAX_RUNTIME", 1)])
def test_an_interruption_is_told(told: Archiver, mail: MailServer, name: str, code: int) -> None:
    reached, wait = noticed(silence)
    told.api.on(WORKS, wait)
    child = told.start(MAX_RUNTIME="3" if name == "MAX_RUNTIME" else "100")
    assert reached.wait(60)
    if name != "MAX_RUNTIME":
        child.send_signal(getattr(signal, name))
    result = finish(child)
    assert result.code == code
    assert_one_sentence(result.err, name)
    assert body(told, PING + "/fail") == result.err.strip()
    assert name in hooked(told)
    assert name in mail.message().get_content()


def test_archived_again_is_compared_with_another(told: Archiver) -> None:
    """And not with its own row."""
    told.api.on(WORKS, answer(counted(30, 300)))
    told.run()
    (told.archive / NEW_NAME).unlink()
    assert " 30 works (+10), " in told.run().out


def test_revised_twice_is_compared_with_the_later(told: Archiver) -> None:
    for count, change in ((30, "+10"), (31, "+1")):
        told.api.on(WORKS, answer(dataset(date="2026-06-30", count=count)))
        assert f" {count} works ({change}), " in told.run().out


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
@pytest.mark.parametrize("data", [OLD, NEW], ids=["unchanged", "new"])
def test_a_signal_amid_the_telling_comes_too_late(told: Archiver, data: bytes) -> None:
    told.api.on(WORKS, answer(data))
    go_on = threading.Event()

    def go(connection: socket.socket) -> None:
        assert go_on.wait(60)
        connection.sendall(head("204 No Content"))

    reached, wait = noticed(go)
    told.api.on(PING, wait)
    child = told.start()
    assert reached.wait(60)
    child.terminate()
    go_on.set()
    result = finish(child)
    assert (result.code, result.err) == (0, "")
    assert (NEW_NAME in result.out) == (data == NEW)
    assert " - WARNING - " not in told.log
    assert sorted(heard(told)) == sorted([PING + "/start", PING, *[HOOK] * (data == NEW)])


@pytest.mark.skipif(os.name != "posix", reason="file names of any bytes")
def test_a_path_that_is_no_text_is_told(told: Archiver, mail: MailServer) -> None:
    told.api.on(WORKS, answer(b"<html>"))
    told.run(STORAGE_DIR=os.fsdecode(b"j\xf8rgen"), ATTEMPTS="1")
    assert "j\ufffdrgen/rejected" in body(told, PING + "/fail")
    assert "j\ufffdrgen/rejected" in hooked(told)
    assert "j\ufffdrgen/rejected" in mail.message().get_content()


def test_a_revised_dataset(told: Archiver) -> None:
    told.api.on(WORKS, answer(dataset(date="2026-06-30", count=30, seed=66)))
    result = told.run()
    assert_one_sentence(
        result.out, "Revised dataset for 2026-06-30", "2026-06-30_1.json", "30 works (+10)"
    )


def test_compared_with_the_newest_earlier(told: Archiver) -> None:
    for date, count in (("2026-03-31", 5), ("2026-12-31", 50), ("2026-09-30", 15)):
        told.api.on(WORKS, answer(dataset(date=date, count=count)))
        result = told.run()
        assert result.code == 0
    assert " 15 works (-5), " in result.out


def test_the_first_dataset_is_compared_with_nothing(fresh: Archiver) -> None:
    assert " 20 works, " in fresh.run().out


def test_an_earlier_dataset_is_not_read_again(told: Archiver) -> None:
    """What it held stands in editions.csv."""
    name = next(iter(told.datasets()))
    (told.archive / name).write_bytes(OLD[:-100])
    result = told.run()
    assert (result.code, result.err) == (0, "")
    assert " 20 works (+0), " in result.out


# Channels that fail


@pytest.mark.parametrize("fault", ["hanging", "refused", "500", "redirect", "no HTTP"])
def test_with_every_channel_down(told: Archiver, fault: str) -> None:
    """A new dataset is archived, exit 0, each failure a WARNING, in less than three minutes."""
    faults = {
        "500": answer(status="500 Oops"),
        "redirect": answer(status="302 Found", headers=["Location: /5ecret"]),
        "no HTTP": raw(b"220 hello\r\n"),
    }
    base = f"http://127.0.0.1:{dead_port()}" if fault == "refused" else told.api.url
    for path in (PING, PING + "/start", HOOK):
        told.api.on(path, faults.get(fault, silence))
    with socket.socket() as listening:  # and says nothing
        listening.bind(("127.0.0.1", 0))
        listening.listen(5)
        port = listening.getsockname()[1] if fault == "hanging" else dead_port()
        started = time.monotonic()
        result = told.run(
            HEALTHCHECKS_URL=base + PING,
            WEBHOOK_URL=base + HOOK,
            SMTP_URL=f"smtp://127.0.0.1:{port}",
            EMAIL_FROM="a@example.org",
            EMAIL_TO="b@example.org",
            LOG_LEVEL="DEBUG",
        )
        assert time.monotonic() - started < 180
    assert result.code == 0
    outcome, *warned = result.out.splitlines()
    assert NEW_NAME in outcome
    assert [line.split()[2] for line in warned if "channel failed" in line] == ["Healthchecks"]
    for channel in ("Healthchecks", "webhook", "email"):  # those at the end, too late to be told
        (line,) = re.findall(f"(?m)^.*{channel}.*$", result.err)
        assert ("no answer in time" in line) == (fault == "hanging"), line
        assert not said(line, "unforeseen"), line
    assert_words(result.err)
    assert told.datasets() == {OLD_NAME: OLD, NEW_NAME: NEW}
    warnings = re.findall(r" - WARNING - The (\w+) channel failed: ", told.log)
    assert sorted(warnings) == ["Healthchecks", "Healthchecks", "email", "webhook"]
    assert_no_secret(told, result.out, result.err)


def test_any_2xx_is_success(told: Archiver) -> None:
    told.api.on(HOOK, answer(status="299 Whatever"))
    told.run()
    assert "WARNING" not in told.log


def test_a_long_message_is_cut_for_the_webhook(told: Archiver) -> None:
    told.api.on("/" + "x" * 3000, answer(status="404 Not Found"))
    told.run(DATA_API_URL=told.api.url + "/" + "x" * 3000)
    assert len(hooked(told)) == 2000


def test_the_query_of_a_ping_url_stays_behind_the_path(told: Archiver) -> None:
    told.api.on("/p/start?create=1", answer(b"OK"))
    told.api.on("/p?create=1", answer(b"OK"))
    told.run(HEALTHCHECKS_URL=told.api.url + "/p/?create=1")
    assert heard(told)[0] == "/p/start?create=1"
    assert "/p?create=1" in heard(told)


# Email


def run_with_mail(archiver: Archiver, scheme: str, user: str, **options: Any) -> MailServer:
    """Run once with a mail server of this kind."""
    server = MailServer(**options)
    try:
        set_mail(archiver, server, scheme, user)
        result = archiver.run(LOG_LEVEL="DEBUG")
        assert result.code == 0
        assert bool(result.err) == (not server.mails)
        assert_no_secret(archiver, result.out, result.err)
    finally:
        server.stop()
    return server


def test_tls_from_the_start(told: Archiver, server_tls: ssl.SSLContext) -> None:
    server = run_with_mail(told, "smtps", LOGIN, ssl=server_tls, auth_require_tls=False)
    assert len(server.mails) == 1
    assert server.logins == [f"us@er:{PASSWORD}"]


def test_starttls(told: Archiver, server_tls: ssl.SSLContext) -> None:
    server = run_with_mail(told, "smtp", LOGIN, tls_context=server_tls, require_starttls=True)
    assert len(server.mails) == 1
    assert server.logins == [f"us@er:{PASSWORD}"]


def test_no_password_without_tls(told: Archiver) -> None:
    server = run_with_mail(told, "smtp", LOGIN, auth_require_tls=False)
    assert (server.mails, server.logins) == ([], [])
    assert "no TLS is offered" in told.log


# --test-notifications


def test_test_notifications(told: Archiver, mail: MailServer) -> None:
    with unchanged(told):
        result = told.run("--test-notifications")
    assert (result.code, result.err) == (0, "")
    assert sorted(result.out.splitlines()) == [
        "Healthchecks: sent.",
        "email: sent.",
        "webhook: sent.",
    ]
    assert sorted(heard(told)) == sorted([PING + "/log", HOOK])
    assert "test" in mail.message()["Subject"]
    assert told.api.asked(WORKS) == []


def test_test_notifications_with_a_channel_down(told: Archiver) -> None:
    told.api.on(HOOK, answer(status="404 Not Found"))
    result = told.run("--test-notifications")
    assert result.code == 1
    assert re.search("(?m)^webhook: .*404", result.out)
    assert "Healthchecks: sent.\n" in result.out
    assert_no_secret(told, result.out, result.err)


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_test_notifications_interrupted(told: Archiver, name: str, code: int) -> None:
    reached, wait = noticed(silence)
    told.api.on(HOOK, wait)
    child = told.start("--test-notifications")
    assert reached.wait(60)
    child.send_signal(getattr(signal, name))
    result = finish(child)
    assert (result.code, result.out) == (code, "")
    assert_one_sentence(result.err, name)
    assert PING + "/fail" not in heard(told)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a device of Linux")
def test_test_notifications_on_a_full_disk(told: Archiver) -> None:
    before = ["sh", "-c", 'exec "$@" > /dev/full', "sh"]
    assert told.run("--test-notifications", before=before).code == 0
    assert sorted(heard(told)) == sorted([PING + "/log", HOOK])


def test_test_notifications_with_none_set(used: Archiver) -> None:
    result = used.run("--test-notifications")
    assert (result.code, result.out) == (2, "")
    assert_one_sentence(result.err, "No channel is set", "LUMIERE_WEBHOOK_URL")


@pytest.mark.parametrize(
    "name", ["HEALTHCHECKS_URL", "WEBHOOK_URL", "SMTP_URL", "EMAIL_FROM", "EMAIL_TO", "STALE_DAYS"]
)
def test_test_notifications_names_a_setting_without_its_prefix(used: Archiver, name: str) -> None:
    """As somebody writes it who copies the name of the constant."""
    used.settings[name] = "https://example.org/5ecret"
    result = used.run("--test-notifications")
    assert result.code == 2
    assert_one_sentence(result.out, f"{name} is set", f"LUMIERE_{name}")
    assert_one_sentence(result.err, "No channel is set")
    assert_no_secret(used, result.out, result.err)


def test_test_notifications_names_it_beside_a_channel_that_works(told: Archiver) -> None:
    told.settings["SMTP_URL"] = "smtp://127.0.0.1"
    result = told.run("--test-notifications")
    assert (result.code, result.err) == (0, "")
    assert "Healthchecks: sent.\nwebhook: sent.\n" in result.out
    assert "LUMIERE_SMTP_URL" in result.out
    assert "LUMIERE_WEBHOOK_URL" not in result.out


WRONG: Dict[str, str] = {
    "HEALTHCHECKS_URL": "hc-ping.com/5ecret",
    "WEBHOOK_URL": "ftp://5ecret",
    "SMTP_URL": "https://user:5ecret@host",
    "EMAIL_FROM": "nobody",
    "EMAIL_TO": ", ".join([*["somebody.with.a.long.name@example.org"] * 30, "typo@@example.org"]),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_settings(told: Archiver, mail: MailServer, name: str) -> None:
    told.settings[f"LUMIERE_{name}"] = WRONG[name]
    result = told.run()
    assert result.code == 2
    assert_one_sentence(result.err, f"LUMIERE_{name} must be ")
    assert_no_secret(told, result.err)


@pytest.mark.parametrize("name", ["SMTP_URL", "EMAIL_FROM", "EMAIL_TO"])
def test_email_settings_go_together(told: Archiver, mail: MailServer, name: str) -> None:
    told.settings[f"LUMIERE_{name}"] = ""
    result = told.run()
    assert result.code == 2
    assert_one_sentence(result.err, "must be set together")


@pytest.mark.parametrize(
    "url",
    [
        "http://user:5ecret@127.0.0.1:1/x?5ecret",
        "http://u:5ecret\uff1f@127.0.0.1/",
        "http://127.0.0.1:1/5ecret@127.0.0.1/x",
    ],
)
def test_no_secret_of_the_api_address(used: Archiver, url: str) -> None:
    result = used.run(DATA_API_URL=url, LOG_LEVEL="DEBUG")
    assert result.code in (1, 2)
    assert_one_sentence(result.err)
    assert_no_secret(used, result.err)
