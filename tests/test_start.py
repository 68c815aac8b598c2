"""How a run starts: what must not stop it, what it says when something does, and its log."""

import os
import re
from pathlib import Path
from typing import List

import pytest
from conftest import NEW, NEW_NAME, ROOT, WORKS, Archiver, Result, assert_one_sentence
from lumiere_api import silence
from telling import (
    HOOK,
    PING,
    MailServer,
    assert_no_secret,
    assert_words,
    heard,
    logged,
    noticed,
    said,
)


def first_command() -> str:
    """The README's first command, as far as it sets up the environment."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    found = re.search(r"(?m)^```sh\n(python3 -m venv [^&]*)&&", readme)
    assert found
    return found.group(1).strip()


def assert_not_started(archiver: Archiver, result: Result, package: str) -> None:
    """Hold that a package is said to be missing, with the cure, and that nothing was done."""
    assert (result.code, result.out) == (1, "")
    assert_one_sentence(result.err, package, "-m venv", "requirements.txt")
    assert_words(result.err)
    assert archiver.api.requests == []
    assert archiver.datasets() == {}


def test_no_packages(fresh: Archiver) -> None:
    """As in an environment whose Python an upgrade of the system has swapped."""
    fresh.command.insert(1, "-S")
    result = fresh.run()
    assert_not_started(fresh, result, "")
    assert said(result.err, "requests|ijson")
    assert first_command() in result.err


@pytest.mark.parametrize("package", ["requests", "ijson"])
@pytest.mark.parametrize(
    "text", ["raise ImportError('5ecret')", "raise ModuleNotFoundError(__name__)", "import nowhere"]
)
def test_a_package_that_can_not_be_imported(
    fresh: Archiver, tmp_path: Path, package: str, text: str
) -> None:
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / f"{package}.py").write_text(text + "\n")
    fresh.settings["PYTHONPATH"] = str(tmp_path / "broken")
    result = fresh.run()
    assert_not_started(fresh, result, "")
    assert said(result.err, f"{package}|nowhere")
    assert_no_secret(fresh, result.err)


@pytest.mark.parametrize("package", ["requests", "ijson"])
@pytest.mark.parametrize(
    "text", ["", "print('hello')\n", "def (", "1 / 0", "get = post = items = None\n"]
)
def test_a_users_own_file_of_that_name(fresh: Archiver, package: str, text: str) -> None:
    """Beside the script, which is where Python looks first."""
    (fresh.folder / f"{package}.py").write_text(text)
    result = fresh.run()
    assert (result.code, result.err.count("\n")) == (1, 1)
    assert_one_sentence(result.err, f"{package}.py")
    assert_words(result.err)
    assert fresh.api.requests == []


def test_the_help_needs_no_setting(fresh: Archiver) -> None:
    assert fresh.run("--help", ATTEMPTS="nonsense").code == 0


@pytest.mark.skipif(os.name != "posix", reason="links of POSIX")
@pytest.mark.parametrize("relative", [True, False])
def test_called_through_a_link(fresh: Archiver, tmp_path: Path, relative: bool) -> None:
    """It works where the script lies, not where the link does."""
    (tmp_path / "bin").mkdir()
    link = tmp_path / "bin" / "archive-lumiere"
    script = fresh.folder / "data_collect.py"
    link.symlink_to(os.path.relpath(str(script), str(link.parent)) if relative else str(script))
    fresh.command[1] = str(link)
    result = fresh.run()
    assert (result.code, result.err) == (0, "")
    assert fresh.datasets() == {NEW_NAME: NEW}
    assert "Run started" in fresh.log
    assert list(link.parent.iterdir()) == [link]


def test_a_link_to_the_folder_is_fine(fresh: Archiver, tmp_path: Path) -> None:
    (tmp_path / "linked").symlink_to(fresh.folder)
    fresh.command[1] = str(tmp_path / "linked" / "data_collect.py")
    assert fresh.run().code == 0
    assert fresh.datasets() == {NEW_NAME: NEW}


# Settings that can't be mistyped


MISTYPED = ["WEBHOOK", "HEALTHCHECK_URL", "STALE_DAY", "EMAIL", "webhook_url", "HERE"]


@pytest.mark.skipif(os.name == "nt", reason="there all names are of capitals")
@pytest.mark.parametrize(
    ("name", "option"),
    [*((name, "") for name in MISTYPED), ("URL", "--verify"), ("URL", "--test-notifications")],
)
def test_a_variable_that_is_no_setting(
    told: Archiver, mail: MailServer, name: str, option: str
) -> None:
    result = told.run(*option.split(), **{name: "https://example.org/5ecret"})
    assert (result.code, result.out) == (2, "")
    assert_one_sentence(result.err, f"LUMIERE_{name} is not a setting")
    assert_no_secret(told, result.err)
    assert logged(told, "ERROR") == [result.err.strip()]
    channels = [] if option == "--test-notifications" else [HOOK, PING + "/fail"]
    assert sorted(request.path for request in told.api.requests) == channels
    assert len(mail.mails) == bool(channels)


def test_other_variables_are_nobodys_business(fresh: Archiver) -> None:
    fresh.settings.update(LUMIERE="x", XLUMIERE_NAME="x", LUMIEREX="x", WEBHOOK_URL="nonsense")
    assert fresh.run().code == 0


@pytest.mark.parametrize(
    "options", [["--verify", "--test-notifications"], ["--test-notifications", "--verify"]]
)
def test_one_option_at_a_time(told: Archiver, mail: MailServer, options: List[str]) -> None:
    result = told.run(*options)
    assert (result.code, result.out) == (2, "")
    assert said(result.err, "--verify", "--test-notifications")
    assert (heard(told), mail.mails, told.log) == ([], [], "")


# A log of two years


def test_how_many_countries(told: Archiver) -> None:
    """Which ones stands in editions.csv."""
    assert told.run().code == 0
    assert len([text for text in logged(told, "INFO") if said(text, r"\b46 countries")]) == 1
    assert not said(told.log, r"\bSE\W+SI\b")


def test_that_the_works_are_asked_for(told: Archiver) -> None:
    """The first byte may take minutes, and by then the log says why it is silent."""
    reached, wait = noticed(silence)
    told.api.on(WORKS, wait)
    child = told.start()
    try:
        assert reached.wait(60)
        last = logged(told, "INFO")[-1]
    finally:
        child.kill()
        child.communicate()
    assert said(last, r"\bask|\bworks\b")
    assert not said(last, r"46 countries")
