"""Options and settings: what is wrong is named in one line, told, and nothing else is done."""

import subprocess
import sys
from typing import Dict, List, Set

import pytest
from conftest import NEW, NEW_NAME, OLD, Archiver, archived, assert_one_sentence, unchanged
from lumiere_api import answer
from telling import (
    HOOK,
    PING,
    MailServer,
    assert_no_secret,
    assert_words,
    body,
    heard,
    hooked,
    logged,
    said,
)

WRONG: Dict[str, List[str]] = {
    "DATA_API_URL": [
        "lumierevod.obs.coe.int",
        "ftp://x/",
        "https://",
        "http://x:y/",
        "http://a b/",
    ],
    "COUNTRY_CODE_API_URL": [
        "/api",
        "http:///api",
        "http://x:70000",
        "http://u:p/q@h",
    ],
    "HEALTHCHECKS_URL": ["http://[1:2]/x", "http://\u2100@x/"],  # urlsplit() can't read these
    "WEBHOOK_URL": ["http://u:p[@x/", "http://x:0/"],
    "SMTP_URL": ["smtp://[2001:db8::1::5]", "smtps://u:p]@x", "http://x"],
    "EMAIL_TO": ["a@example.org,\n b@example.org", f"{'Anna <a@example.org>, ' * 50}nobody"],
    "LOG_LEVEL": ["LOUD", "10"],
    "ARCHIVE_FILENAME_PREFIX": ["../x", ".x", "a/b", "a\\b", "x" * 101, "é"],
    "CHUNK_SIZE": ["0", "-1", "1.5", "many", "9999999999"],
    "ATTEMPTS": ["0", "2.5"],
    "CONNECT_TIMEOUT": ["0.0", "-1", "nan", "inf", "1e9"],
    "READ_TIMEOUT": ["0"],
    "MAX_RUNTIME": ["0", "forever", f"0.{'0' * 400}1"],
    "RETRY_DELAY": ["-1", "soon"],
    "STALE_DAYS": ["-1", "many", "1e3", "nan"],
    "STORAGE_DIR": ["a\nb"],
    "LAST_CHECKSUM_FILE": ["a\nb"],
    "LOG_FILE": ["a\nb"],
}


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name in WRONG for value in WRONG[name]]
)
def test_wrong_settings(used: Archiver, name: str, value: str) -> None:
    used.settings[f"LUMIERE_{name}"] = value
    result = used.run()
    assert (result.code, result.out) == (2, "")
    assert_one_sentence(result.err, f"LUMIERE_{name} must be ")
    assert logged(used, "ERROR") == [result.err.strip()]
    assert (used.files(), used.api.requests) == (archived(OLD), [])


def test_a_wrong_constant_is_named_as_it_stands(used: Archiver) -> None:
    script = used.folder / "data_collect.py"
    text = script.read_text(encoding="utf-8")
    script.write_text(text.replace("\nATTEMPTS = 5", "\nATTEMPTS = 'five'"), encoding="utf-8")
    del used.settings["LUMIERE_ATTEMPTS"]
    result = used.run()
    assert result.code == 2
    assert result.err.startswith("ATTEMPTS must be ")
    assert used.run(ATTEMPTS="1").code == 0


def test_constants_can_be_edited(fresh: Archiver) -> None:
    script = fresh.folder / "data_collect.py"
    text = script.read_text(encoding="utf-8")
    for before, after in (
        ('ARCHIVE_FILENAME_PREFIX = "Complete_lumiere_COE_"', 'ARCHIVE_FILENAME_PREFIX = ""'),
        ("MAX_RUNTIME = 6 * 3600.0", "MAX_RUNTIME = 2 * 3600"),
        ("CHUNK_SIZE = 256 * 1024", "CHUNK_SIZE = 8192"),
    ):
        assert before in text
        text = text.replace(before, after)
    script.write_text(text, encoding="utf-8")
    assert fresh.run().code == 0
    assert list(fresh.datasets()) == ["2026-09-30.json"]


@pytest.mark.parametrize("name", [name for name in WRONG if "URL" not in name])
def test_an_empty_variable_counts_as_unset(used: Archiver, name: str) -> None:
    used.settings[f"LUMIERE_{name}"] = " "
    assert used.run().code == 0
    assert NEW_NAME in used.datasets()


@pytest.mark.parametrize("option", ["--nonsense", "--verify=yes", "extra"])
def test_wrong_options(used: Archiver, option: str) -> None:
    result = used.run(option)
    assert (result.code, result.out) == (2, "")
    assert option.split("=")[0] in result.err
    assert (used.files(), used.log, used.api.requests) == (archived(OLD), "", [])


def test_main_can_be_called(fresh: Archiver) -> None:
    code = "import sys, data_collect; sys.exit(data_collect.main([]) + 40)"
    command = [sys.executable, "-B", "-c", code]
    assert subprocess.call(command, cwd=str(fresh.folder), env=fresh.environment()) == 40
    assert fresh.files() == archived(NEW)


# Who is told: in a crontab nobody sees stderr


def told_over(archiver: Archiver, mail: MailServer, text: str) -> Set[str]:
    """The channels that brought a text, and nothing else."""
    channels = set()
    if heard(archiver).count(HOOK):
        assert hooked(archiver).endswith(": " + text)
        channels.add("webhook")
    if mail.mails:
        assert mail.text() == " ".join(text.split())
        assert "failed" in mail.message()["Subject"]
        channels.add("email")
    if heard(archiver).count(PING + "/fail"):
        assert body(archiver, PING + "/fail") == text
        channels.add("Healthchecks")
    assert len(archiver.api.requests) + len(mail.mails) == len(channels)
    return channels


ALL = {"Healthchecks", "webhook", "email"}
MISTAKES = {  # a name, its wrong value, and the channels that are left to tell of it
    "a name that is no setting": ("RETRY_DELAYS", "3", ALL),
    "a value": ("RETRY_DELAY", "soon", ALL),
    "the log": ("LOG_FILE", "a\nb", ALL),
    "the level of the log": ("LOG_LEVEL", "LOUD", ALL),
    "the archive": ("STORAGE_DIR", "a\nb", ALL),
    "the API": ("DATA_API_URL", "ftp://u:5ecret@h", ALL),
    "the ping": ("HEALTHCHECKS_URL", "hc-ping.com/5ecret", {"webhook", "email"}),
    "the webhook": ("WEBHOOK_URL", "htps://h/5ecret", {"Healthchecks", "email"}),
    "the mail server": ("SMTP_URL", "https://user:5ecret@h", {"Healthchecks", "webhook"}),
    "the sender": ("EMAIL_FROM", "bø@example.org", {"Healthchecks", "webhook"}),
    "the receivers": ("EMAIL_TO", "a@example.org; b@example.org", {"Healthchecks", "webhook"}),
    "no receivers": ("EMAIL_TO", "", {"Healthchecks", "webhook"}),
}


@pytest.mark.parametrize("option", ["", "--verify", "--test-notifications"])
@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_told(told: Archiver, mail: MailServer, mistake: str, option: str) -> None:
    """Over each channel whose own settings are right; who tests the channels sees it at once."""
    name, value, left = MISTAKES[mistake]
    told.settings[f"LUMIERE_{name}"] = value
    with unchanged(told):
        result = told.run(*option.split())
    assert (result.code, result.out) == (2, "")
    assert_one_sentence(result.err, f"LUMIERE_{name}", "To try again: ")
    assert_words(result.err)
    assert logged(told, "ERROR") == [result.err.strip()]
    assert len(told.log.splitlines()) == 1
    expected: Set[str] = set() if option == "--test-notifications" else left
    assert told_over(told, mail, result.err.strip()) == expected
    assert_no_secret(told, result.err)


def test_several_mistakes_are_told_at_once(told: Archiver, mail: MailServer) -> None:
    """Else each would cost another month."""
    result = told.run(RETRY_DELAY="soon", STALE_DAY="1", EMAIL_TO="nobody", ATTEMPT="1")
    assert result.code == 2
    named = ["LUMIERE_RETRY_DELAY must", "LUMIERE_STALE_DAY is", "LUMIERE_EMAIL_TO must"]
    assert_one_sentence(result.err, *named, "LUMIERE_ATTEMPT is")
    assert told_over(told, mail, result.err.strip()) == {"Healthchecks", "webhook"}


def test_a_channel_that_fails_beside_a_mistake(told: Archiver, mail: MailServer) -> None:
    """The others hear of the mistake, and its exit code stands."""
    told.api.on(HOOK, answer(status="410 Gone"))
    result = told.run(RETRY_DELAYS="3")
    assert (result.code, result.out) == (2, "")
    mistake, channel = result.err.splitlines()
    assert said(mistake, "LUMIERE_RETRY_DELAYS is not a setting")
    assert said(channel, "webhook channel failed", "410")
    assert body(told, PING + "/fail") == mistake
    assert mail.text() == " ".join(mistake.split())


def test_a_mistake_is_told_though_the_log_can_not_be_opened(told: Archiver) -> None:
    result = told.run(LOG_FILE=str(told.archive), RETRY_DELAYS="3")
    assert result.code == 2
    assert_one_sentence(result.err, "LUMIERE_RETRY_DELAYS")
    for text in (hooked(told), body(told, PING + "/fail")):
        assert said(text, "LUMIERE_RETRY_DELAYS is not a setting", "WARNING: The log .* opened")
