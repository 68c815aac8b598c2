"""--verify, which is made for cron: silent while all is whole, told like a failure when not."""

import shlex
from typing import List, Optional

import pytest
from conftest import NEW_NAME, OLD, OLD_NAME, WORKS, Archiver, assert_one_sentence, md5
from telling import (
    PING,
    MailServer,
    assert_words,
    body,
    heard,
    hooked,
    list_editions,
    logged,
    said,
    warnings_of,
)
from test_terminal import run_on_terminal


@pytest.fixture
def two(told: Archiver) -> Archiver:
    """An archive of two datasets, both of them listed."""
    told.run()
    told.api.requests.clear()
    list_editions(told)
    return told


def flip(archiver: Archiver, name: str) -> str:
    """Damage a dataset by a bit, and return its MD5."""
    path = archiver.archive / name
    data = bytearray(path.read_bytes())
    data[1000] ^= 1
    path.write_bytes(bytes(data))
    return md5(bytes(data))


def assert_told_as_failure(archiver: Archiver, mail: MailServer, *words: str) -> str:
    """Hold that --verify fails and tells it everywhere in these words, and return them."""
    asked = len(archiver.api.asked(WORKS))
    before = len(logged(archiver, "ERROR"))
    result = archiver.run("--verify")
    assert result.code == 1
    assert_one_sentence(result.err)
    sentence = result.err.strip()
    assert said(sentence, *words), sentence
    assert_words(sentence)
    assert sentence in hooked(archiver)
    assert sentence in body(archiver, PING + "/fail")
    assert sentence in mail.text()
    assert "failed" in mail.message()["Subject"]
    assert logged(archiver, "ERROR")[before:] == [sentence]
    assert PING not in heard(archiver)
    assert len(archiver.api.asked(WORKS)) == asked
    return sentence


def test_silent_where_all_is_whole(two: Archiver, mail: MailServer) -> None:
    mail.mails.clear()
    files = two.files()
    assert two.run("--verify") == (0, "", "")
    assert said(logged(two, "INFO")[-1], "2 of 2 files")
    assert heard(two) == []  # a ping, too, would hide that the monthly run no longer comes
    assert mail.mails == []
    assert two.files() == files


def test_its_outcome_is_shown_on_a_terminal(two: Archiver) -> None:
    code, out, shown = run_on_terminal(two, "--verify")
    assert (code, out) == (0, "")
    assert said(shown, "INFO - 2 of 2 files")


def test_damage_is_told(two: Archiver, mail: MailServer) -> None:
    mail.mails.clear()
    found = flip(two, OLD_NAME)
    words = ("1 of 2 files", f"{OLD_NAME} is damaged", found, md5(OLD))
    sentence = assert_told_as_failure(two, mail, *words)
    assert NEW_NAME not in sentence


def test_all_that_is_wrong_is_told_at_once(two: Archiver, mail: MailServer) -> None:
    mail.mails.clear()
    flip(two, NEW_NAME)
    (two.archive / OLD_NAME).unlink()
    words = ("0 of 2 files", f"{OLD_NAME} is missing", f"{NEW_NAME} is damaged")
    assert_told_as_failure(two, mail, *words)


def test_log_level_never_decides_whether_damage_is_told(two: Archiver, mail: MailServer) -> None:
    mail.mails.clear()
    flip(two, NEW_NAME)
    two.settings["LUMIERE_LOG_LEVEL"] = "CRITICAL"
    result = two.run("--verify")
    assert result.code == 1
    assert_one_sentence(result.err, NEW_NAME)
    assert result.err.strip() in mail.text()


def test_to_try_again_is_to_verify_again(two: Archiver) -> None:
    flip(two, OLD_NAME)
    _, again = two.run("--verify").err.strip().split("To try again: ")
    assert shlex.split(again) == [*two.command, "--verify"]


def test_datasets_without_any_list(used: Archiver) -> None:
    used.checksum.unlink()
    (used.archive / "MD5SUMS").unlink()
    assert used.run("--verify").code == 1


@pytest.mark.parametrize("sums", [None, b"", b"\n# nothing\n"])
def test_nothing_to_verify_where_there_was_a_dataset(
    told: Archiver, mail: MailServer, sums: Optional[bytes]
) -> None:
    """The archive is gone: its disk is not mounted, say."""
    for path in list(told.archive.iterdir()):
        path.unlink()
    if sums is not None:
        (told.archive / "MD5SUMS").write_bytes(sums)
    assert_told_as_failure(told, mail, "MD5SUMS|verify|list")


def test_an_archive_folder_that_is_gone(told: Archiver, mail: MailServer) -> None:
    told.archive.rename(told.folder / "elsewhere")
    assert_told_as_failure(told, mail, str(told.archive))


def test_nothing_to_verify_before_the_first_run(fresh: Archiver) -> None:
    assert fresh.run("--verify") == (0, "", "")


@pytest.mark.parametrize(
    "lines", [["# a note of my own"], [""], ["", "#", "# 0123  x", "   "], ["\t# indented"]]
)
def test_comments_and_empty_lines(two: Archiver, lines: List[str]) -> None:
    """To md5sum they are no files."""
    sums = two.archive / "MD5SUMS"
    first, *rest = sums.read_text().splitlines()
    sums.write_text("\n".join([*lines, first, *lines, *rest, *lines, ""]))
    assert two.run("--verify") == (0, "", "")
    assert said(logged(two, "INFO")[-1], "2 of 2 files")


def test_a_dataset_that_no_list_has_is_mentioned(two: Archiver) -> None:
    name = OLD_NAME.replace(".json", "_1.json")
    (two.archive / name).write_bytes(OLD)
    (two.archive / "copy.json").write_bytes(OLD)  # nobody's dataset
    result = two.run("--verify")
    assert (result.code, result.err) == (0, "")
    assert warnings_of(result) == [f"{name} is not listed in MD5SUMS."]
    assert warnings_of(result) == logged(two, "WARNING")


def test_a_line_that_can_not_be_read_is_mentioned(two: Archiver) -> None:
    """Nobody can say of its file whether it is whole."""
    sums = two.archive / "MD5SUMS"
    sums.write_text(sums.read_text().replace("  ", ";", 1))
    before = sums.read_bytes()
    result = two.run("--verify")
    assert (result.code, result.err) == (0, "")
    unreadable = "MD5SUMS has lines that can't be read, 1 in all. They stay as they are."
    assert warnings_of(result) == [unreadable, f"{OLD_NAME} is not listed in MD5SUMS."]
    assert said(logged(two, "INFO")[-1], "1 of 1 files")
    assert sums.read_bytes() == before


def test_md5sums_that_can_not_be_opened(two: Archiver) -> None:
    (two.archive / "MD5SUMS").unlink()
    (two.archive / "MD5SUMS").mkdir()
    result = two.run("--verify")
    assert result.code == 1
    assert_one_sentence(result.err)
    assert [text for text in warnings_of(result) if text.startswith("MD5SUMS can't be read: ")]


def test_what_heals_is_whole_again(two: Archiver) -> None:
    """The check that --verify turned red: the monthly run turns it green for a reason."""
    flip(two, NEW_NAME)
    assert two.run("--verify").code == 1
    assert two.run().code == 0
    assert two.run("--verify") == (0, "", "")


def test_md5sums_that_is_lost(two: Archiver) -> None:
    """No run has made it again by now: that is no success."""
    (two.archive / "MD5SUMS").unlink()
    result = two.run("--verify")
    assert result.code == 1
    assert_one_sentence(result.err)


def test_the_next_run_is_a_plain_one(two: Archiver) -> None:
    """As --verify changes nothing."""
    two.run("--verify")
    assert two.run() == (0, "", "")
    assert set(two.datasets()) == {OLD_NAME, NEW_NAME}


# What MD5SUMS may hold


def test_verify_a_torn_md5sums(used: Archiver) -> None:
    sums = used.archive / "MD5SUMS"
    sums.write_bytes(sums.read_bytes()[:40])
    assert used.run("--verify").code == 1
    sums.write_bytes(sums.read_bytes()[:20])
    assert used.run("--verify").code == 1


def test_verify_names_that_can_be_none(used: Archiver) -> None:
    (used.archive / "MD5SUMS").write_bytes(b"\0" * 200)
    result = used.run("--verify")
    assert result.code == 1
    assert_one_sentence(result.err)
    assert_words(result.err)


def test_verify_reads_what_md5sum_writes(used: Archiver) -> None:
    (used.archive / "MD5SUMS").write_text(f"{md5(OLD).upper()} *{OLD_NAME}\n")
    assert used.run("--verify").code == 0


def test_verify_before_the_first_run(fresh: Archiver) -> None:
    assert fresh.run("--verify").code == 0
    result = fresh.run("--verify", STORAGE_DIR="elsewhere")
    assert result.code == 1
    assert_one_sentence(result.err, str(fresh.folder / "elsewhere"))
