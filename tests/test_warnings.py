"""Each row of the contract's table of WARNINGs: provoked from outside, and told to everybody."""

import json
import re
from datetime import date, timedelta
from typing import Callable, Dict, List, NamedTuple, Tuple

import pytest
from conftest import (
    COUNTRIES,
    EDITIONS,
    NEW,
    NEW_NAME,
    OLD,
    OLD_NAME,
    WORKS,
    Archiver,
    Result,
    as_csv,
    assert_one_sentence,
    md5,
)
from lumiere_api import MEMBERS, answer, as_json, dataset
from telling import (
    HOOK,
    PING,
    MailServer,
    ago,
    assert_no_secret,
    assert_words,
    body,
    counted,
    heard,
    hooked,
    list_editions,
    logged,
    said,
    warnings_of,
)

LONG_AGO = ago(271)
DAMAGED_NAME = "Complete_lumiere_COE_2026-03-31.json"


def serve(archiver: Archiver, data: bytes) -> None:
    """Let the API serve a dataset."""
    archiver.api.on(WORKS, answer(data))


def serve_codes(archiver: Archiver, codes: List[str]) -> None:
    """Let the API list these countries as members of the Council of Europe."""
    archiver.api.on(COUNTRIES, answer(members(codes)))


def members(codes: List[str]) -> bytes:
    """Write these countries as the API lists members of the Council of Europe."""
    return as_json([{"code": code, "is_coe": True} for code in codes])


# Each returns settings for the run.


def fewer_works(archiver: Archiver) -> Dict[str, str]:
    list_editions(archiver, works=200, presences=200)
    serve(archiver, counted(180, 200))
    return {}


def fewer_presences(archiver: Archiver) -> Dict[str, str]:
    list_editions(archiver, works=20, presences=2000)
    serve(archiver, counted(20, 1800))
    return {}


def other_countries(archiver: Archiver) -> Dict[str, str]:
    serve_codes(archiver, ["XA", *MEMBERS[1:]])
    return {}


def no_usable_dates(archiver: Archiver) -> Dict[str, str]:
    serve(archiver, counted(20, 300, "soon", "2026-02-30"))
    return {}


def dates_far_ahead(archiver: Archiver) -> Dict[str, str]:
    serve(archiver, counted(20, 300, "2206-06-30"))
    return {}


def no_news(archiver: Archiver) -> Dict[str, str]:
    list_editions(archiver, created=LONG_AGO)
    serve(archiver, OLD)
    return {}


def missing(archiver: Archiver) -> Dict[str, str]:
    archiver.checksum.write_text(md5(NEW) + "\n")
    return {}


def listed_late(archiver: Archiver) -> Dict[str, str]:
    (archiver.archive / "editions.csv").unlink()
    serve(archiver, OLD)
    return {}


def no_whole_dataset(archiver: Archiver) -> Dict[str, str]:
    (archiver.archive / DAMAGED_NAME).write_bytes(OLD[:-100])
    serve(archiver, OLD)
    return {}


def no_log(archiver: Archiver) -> Dict[str, str]:
    return {"LOG_FILE": "no/such/folder/log"}


def channel_failed(archiver: Archiver) -> Dict[str, str]:
    archiver.api.on(PING + "/start", answer(status="500 Oops"))
    return {}


def damaged(archiver: Archiver) -> Dict[str, str]:
    (archiver.archive / OLD_NAME).write_bytes(OLD.swapcase())
    serve(archiver, OLD)
    return {}


def damaged_for_good(archiver: Archiver) -> Dict[str, str]:
    (archiver.archive / "rejected").write_bytes(b"a file in the place of the folder")
    return damaged(archiver)


def damaged_and_not_listed(archiver: Archiver) -> Dict[str, str]:
    (archiver.archive / "editions.csv").unlink()
    (archiver.archive / OLD_NAME).write_bytes(OLD.swapcase())
    return {}


def spoilt_editions(archiver: Archiver) -> Dict[str, str]:
    path = archiver.archive / "editions.csv"
    path.write_text(path.read_text() + "seen by Anna\nand Bo\n")
    serve(archiver, OLD)
    return {}


def spoilt_sums(archiver: Archiver) -> Dict[str, str]:
    path = archiver.archive / "MD5SUMS"
    path.write_text(path.read_text() + "seen by Anna")
    serve(archiver, OLD)
    return {}


class Row(NamedTuple):
    """How to provoke a WARNING, what it must say, and the outcome above it."""

    provoke: Callable[[Archiver], Dict[str, str]]
    words: Tuple[str, ...]
    outcome: str = "New dataset"


ROWS: Dict[str, Row] = {
    "fewer works": Row(fewer_works, ("fewer", "works", r"\b180\b|\b20\b")),
    "fewer presences": Row(fewer_presences, ("fewer", "presences", r"\b1,?800\b|\b200\b")),
    "other countries": Row(
        other_countries,
        (
            "other countries",
            r"\bXA\b.*\bcame\b|\bcame\b.*\bXA\b",
            r"\bAL\b.*went\b|\bwent\b.*\bAL\b",
        ),
    ),
    "no usable presence_date": Row(no_usable_dates, (r"\b2 presences", "no usable presence_date")),
    "a date far ahead": Row(dates_far_ahead, (r"\b1 presences?\b", "no usable presence_date")),
    "no news": Row(
        no_news, ("no new dataset since", LONG_AGO[:10], "three or four"), outcome="Unchanged"
    ),
    "missing, archived again": Row(missing, ("missing", "archived again")),
    "damaged, archived again": Row(
        damaged, (re.escape(OLD_NAME), "damaged", "archived again", r"rejected/.*\.damaged")
    ),
    "damaged, and it can't be moved": Row(
        damaged_for_good,
        (re.escape(OLD_NAME), "damaged", "archived again", "can't be moved"),
        outcome="Revised dataset",
    ),
    "damaged, without a row": Row(
        damaged_and_not_listed,
        (re.escape(OLD_NAME), "damaged", md5(OLD), md5(OLD.swapcase())),
    ),
    "listed late": Row(
        listed_late,
        (re.escape(OLD_NAME), "without a row in editions.csv", "countries.* not known any more"),
        outcome="Unchanged",
    ),
    "no whole dataset": Row(
        no_whole_dataset, (re.escape(DAMAGED_NAME), "not a whole dataset"), outcome="Unchanged"
    ),
    "lines of editions.csv": Row(
        spoilt_editions,
        ("editions.csv has lines that can't be read", r"\b2\b", "stay as they are"),
        outcome="Unchanged",
    ),
    "a line of MD5SUMS": Row(
        spoilt_sums,
        ("MD5SUMS has lines that can't be read", r"\b1\b", "stay as they are"),
        outcome="Unchanged",
    ),
    "the log": Row(no_log, ("log.* can't be opened", "no/such/folder/log")),
    "a channel that failed": Row(channel_failed, ("Healthchecks channel failed", "500")),
}


def assert_warned(archiver: Archiver, mail: MailServer, result: Result, row: Row) -> str:
    """Hold that a run that went well has told its WARNING everywhere, and return it."""
    assert (result.code, result.err) == (0, ""), result
    outcome, *below = result.out.splitlines()
    assert outcome.startswith(row.outcome), result.out
    assert len(below) >= 1
    assert all(line.startswith("WARNING: ") for line in below), result.out
    matching = [text for text in warnings_of(result) if said(text, *row.words)]
    assert len(matching) == 1, result.out
    line = f"WARNING: {matching[0]}"
    assert line in hooked(archiver).splitlines()
    assert outcome in hooked(archiver)
    assert body(archiver, PING).splitlines() == [outcome, *below]
    assert " ".join([outcome, *below]) in mail.text()
    assert set(heard(archiver)) == {PING + "/start", PING, HOOK}
    assert_no_secret(archiver, result.out)
    assert_words(result.out)
    return str(matching[0])


@pytest.mark.parametrize("name", ROWS)
def test_every_warning_is_told(told: Archiver, mail: MailServer, name: str) -> None:
    settings = ROWS[name].provoke(told)
    result = told.run(**settings)
    text = assert_warned(told, mail, result, ROWS[name])
    if name != "the log":
        assert text in logged(told, "WARNING")


@pytest.mark.parametrize("name", ROWS)
def test_log_level_never_decides_what_is_told(told: Archiver, mail: MailServer, name: str) -> None:
    settings = ROWS[name].provoke(told)
    result = told.run(LOG_LEVEL="ERROR", **settings)
    assert_warned(told, mail, result, ROWS[name])
    assert told.log == ""


@pytest.mark.parametrize(
    "name",
    [
        *("listed late", "no whole dataset", "damaged, without a row", "lines of editions.csv"),
        *("the log", "a channel that failed"),
    ],
)
def test_a_warning_is_told_with_a_failure_too(told: Archiver, mail: MailServer, name: str) -> None:
    """What is known by the time of the failure: here the countries can't be asked for."""
    settings = ROWS[name].provoke(told)
    told.api.on(COUNTRIES, answer(status="404 Not Found"))
    result = told.run(**settings)
    assert result.code == 1
    assert_one_sentence(result.err, "404")
    below = result.out.splitlines()
    assert all(line.startswith("WARNING: ") for line in below)
    assert [text for text in warnings_of(result) if said(text, *ROWS[name].words)], result.out
    failure = result.err.strip()
    for text in (hooked(told), body(told, PING + "/fail")):
        assert text.endswith("\n".join([failure, *below]))
    assert " ".join([failure, *below]) in mail.text()


def test_a_plain_month_says_nothing(told: Archiver, mail: MailServer) -> None:
    """One in which the newest edition is as old as it may be."""
    list_editions(told, created=ago(269))
    serve(told, OLD)
    assert told.run() == (0, "", "")
    assert heard(told) == [PING + "/start", PING]
    assert_one_sentence(body(told, PING) + "\n", "Unchanged")
    assert mail.mails == []
    assert logged(told, "WARNING") == []
    assert told.run(LOG_LEVEL="ERROR") == (0, "", "")
    assert mail.mails == []


def test_a_new_dataset_without_trouble_is_one_line(told: Archiver, mail: MailServer) -> None:
    result = told.run()
    assert (result.code, result.err) == (0, "")
    assert_one_sentence(result.out, NEW_NAME)
    assert "WARNING" not in result.out + hooked(told) + body(told, PING) + mail.text()
    assert logged(told, "WARNING") == []


@pytest.mark.parametrize("data", [OLD, NEW], ids=["unchanged", "new"])
@pytest.mark.parametrize("path", [COUNTRIES, WORKS])
def test_what_a_second_attempt_cured_is_no_warning(
    told: Archiver, mail: MailServer, path: str, data: bytes
) -> None:
    good = {COUNTRIES: members(MEMBERS), WORKS: data}
    serve(told, data)
    told.api.on(path, answer(status="503 Busy"), answer(good[path]))
    result = told.run()
    assert (result.code, result.err) == (0, "")
    assert result.out.count("\n") == (1 if data == NEW else 0)
    assert len(mail.mails) == (1 if data == NEW else 0)
    assert "attempt 2" not in result.out + body(told, PING)
    assert logged(told, "WARNING") == []
    assert [text for text in logged(told, "INFO") if said(text, "503", "attempt 2 of 2")]


def test_a_channel_that_fails_at_the_end(told: Archiver, mail: MailServer) -> None:
    """It is too late for the other channels: the log says it, and stderr for cron to mail."""
    told.api.on(HOOK, answer(status="500 Oops"))
    result = told.run()
    assert result.code == 0
    assert_one_sentence(result.out, NEW_NAME)
    assert_one_sentence(result.err, "webhook", "500")
    assert [text for text in logged(told, "WARNING") if said(text, "webhook.*failed", "500")]
    assert told.datasets() == {OLD_NAME: OLD, NEW_NAME: NEW}
    assert_no_secret(told, result.err)


def test_a_channel_that_fails_at_the_end_of_a_failed_run(told: Archiver) -> None:
    told.api.on(HOOK, answer(status="500 Oops"))
    told.api.on(WORKS, answer(status="404 Not Found"))
    result = told.run()
    assert (result.code, result.out) == (1, "")
    failure, channel = result.err.splitlines()
    assert said(failure, "404")
    assert said(channel, "webhook", "500")


def test_a_channel_that_fails_at_the_end_of_a_plain_month(told: Archiver) -> None:
    serve(told, OLD)
    told.api.on(PING, answer(status="500 Oops"))
    result = told.run(LOG_LEVEL="ERROR")
    assert (result.code, result.out) == (0, "")
    assert_one_sentence(result.err, "Healthchecks", "500")


def test_warnings_have_a_line_each(told: Archiver, mail: MailServer) -> None:
    chosen = ("a channel that failed", "other countries", "fewer works", "a date far ahead")
    for name in chosen:
        ROWS[name].provoke(told)
    serve(told, counted(20, 30, "2206-06-30"))
    result = told.run()
    for name in chosen:
        words = ROWS[name].words[:2]
        assert len([text for text in warnings_of(result) if said(text, *words)]) == 1, result.out
    assert sorted(warnings_of(result)) == sorted(logged(told, "WARNING"))
    assert " ".join(result.out.split()) in mail.text()


# When, exactly


@pytest.mark.parametrize(
    ("works", "presences", "warned"),
    [(180, 2000, 1), (181, 2000, 0), (200, 1800, 1), (200, 1801, 0), (400, 4000, 0)],
)
def test_a_tenth_is_fewer(told: Archiver, works: int, presences: int, warned: int) -> None:
    """Than the newest earlier edition has in editions.csv; it is archived all the same."""
    list_editions(told, works=200, presences=2000)
    data = counted(works, presences)
    serve(told, data)
    result = told.run()
    assert (result.code, len(warnings_of(result))) == (0, warned), result
    assert told.datasets()[NEW_NAME] == data


def test_other_countries_than_the_edition_before(told: Archiver) -> None:
    """The last row's, not the first one's: a change is told once."""
    serve_codes(told, ["XA", *MEMBERS[1:]])
    assert len(warnings_of(told.run())) == 1
    serve(told, dataset(date="2026-12-31"))
    assert warnings_of(told.run()) == []


def test_the_newest_row_is_the_news(told: Archiver) -> None:
    """However old the first one is."""
    told.run()
    rows = [dict(row, created=ago(age)) for row, age in zip(told.editions(), (3000, 1))]
    (told.folder / EDITIONS).write_bytes(as_csv(rows))
    assert told.run() == (0, "", "")


def test_the_row_of_a_lost_dataset_stays(told: Archiver) -> None:
    """It says when it was archived first."""
    before = told.editions()
    (told.archive / OLD_NAME).unlink()
    serve(told, OLD)
    assert told.run().code == 0
    assert told.editions() == before


def test_a_warning_is_told_once_though_the_run_fails_behind_it(
    told: Archiver, mail: MailServer
) -> None:
    serve_codes(told, ["XA", *MEMBERS[1:]])
    told.checksum.unlink()
    told.checksum.mkdir()
    result = told.run()
    assert (result.code, len(warnings_of(result))) == (1, 1)
    assert "WARNING" not in body(told, PING + "/fail")


def test_a_first_dataset_is_no_fewer_and_no_other(fresh: Archiver) -> None:
    result = fresh.run()
    assert_one_sentence(result.out, NEW_NAME)


def test_countries_that_are_not_known_are_no_others(told: Archiver) -> None:
    """Those of a dataset that was taken over."""
    list_editions(told, countries="", source="", software="")
    assert warnings_of(told.run()) == []


def test_the_same_countries_in_another_order_are_no_others(told: Archiver) -> None:
    serve_codes(told, [*reversed(MEMBERS), MEMBERS[0]])
    assert warnings_of(told.run()) == []


@pytest.mark.parametrize(("days", "warned"), [(350, 0), (380, 1)])
def test_a_date_ahead(told: Archiver, days: int, warned: int) -> None:
    """Up to a year it may be planned; behind that it is mistyped, and names no edition."""
    day = (date.today() + timedelta(days)).isoformat()
    serve(told, counted(20, 300, day))
    result = told.run()
    assert len(warnings_of(result)) == warned, result.out
    assert (NEW_NAME in told.datasets()) == bool(warned)
    row = told.editions()[-1]
    assert (row["presence_date"], row["presences"]) == ("2026-09-30" if warned else day, "300")


def test_dates_that_are_all_far_ahead_are_rejected(told: Archiver) -> None:
    data = dataset(date="2206-06-30").replace(b"2025-01-31", b"2206-06-30")
    serve(told, data)
    result = told.run()
    assert result.code == 1
    assert_one_sentence(result.err, "presence_date", md5(data))
    assert told.rejected() == [data]


@pytest.mark.parametrize(
    ("days", "stale", "warned"),
    [(11, "10", 1), (9, "10", 0), (271, "", 1), (269, "", 0), (3000, "0", 0), (271, "300", 0)],
)
def test_stale_days(told: Archiver, days: int, stale: str, warned: int) -> None:
    list_editions(told, created=ago(days))
    serve(told, OLD)
    result = told.run(STALE_DAYS=stale)
    assert (result.code, result.err) == (0, "")
    assert len(warnings_of(result)) == warned, result.out


def test_a_new_dataset_is_news(told: Archiver) -> None:
    list_editions(told, created=ago(3000))
    assert warnings_of(told.run()) == []


def test_no_news_is_told_each_month(told: Archiver) -> None:
    no_news(told)
    assert len(warnings_of(told.run())) == 1
    assert len(warnings_of(told.run())) == 1


def test_a_dataset_that_was_lost(told: Archiver, mail: MailServer) -> None:
    """It stands in both lists; the API still serves it."""
    (told.archive / OLD_NAME).unlink()
    serve(told, OLD)
    assert_warned(told, mail, told.run(), ROWS["missing, archived again"])
    assert list(told.datasets().values()) == [OLD]
    assert told.run() == (0, "", "")


def test_missing_is_told_once(told: Archiver) -> None:
    missing(told)
    assert len(warnings_of(told.run())) == 1
    assert told.run() == (0, "", "")


@pytest.mark.parametrize("name", ["listed late", "no whole dataset"])
def test_what_was_listed_late_was_told(told: Archiver, name: str) -> None:
    """By the run that lists it, and not again."""
    ROWS[name].provoke(told)
    told.run()
    assert {row["path"] for row in told.editions()} == set(told.datasets())
    assert told.run() == (0, "", "")


def test_what_is_no_whole_dataset_has_no_counts(told: Archiver) -> None:
    no_whole_dataset(told)
    told.run()
    row = next(row for row in told.editions() if row["path"] == DAMAGED_NAME)
    assert (row["works"], row["presences"], row["countries"]) == ("", "", "")
    assert (row["hash"], row["bytes"]) == (md5(OLD[:-100]), str(len(OLD) - 100))


def test_what_was_listed_late_has_its_counts(told: Archiver) -> None:
    listed_late(told)
    told.run()
    row = told.editions()[0]
    presences = sum(len(work["presences"]) for work in json.loads(OLD.decode()))
    assert (row["works"], row["presences"]) == ("20", str(presences))
    assert (row["countries"], row["source"], row["software"]) == ("", "", "")


def test_late_datasets_are_told_by_a_run_that_fails(told: Archiver) -> None:
    """And are then listed, so that the next run does not tell them again."""
    listed_late(told)
    told.api.on(COUNTRIES, answer(status="404 Not Found"), answer(members(MEMBERS)))
    result = told.run()
    assert result.code == 1
    assert [text for text in warnings_of(result) if OLD_NAME in text]
    assert [row["path"] for row in told.editions()] == [OLD_NAME]
    assert told.run() == (0, "", "")


@pytest.mark.parametrize("path", ["archive", "no/such/folder/log", "data_collect.py/log"])
def test_a_log_that_cannot_be_opened(told: Archiver, path: str) -> None:
    """The edition matters more."""
    result = told.run(LOG_FILE=path)
    assert (result.code, result.err) == (0, "")
    outcome, warning = result.out.splitlines()
    assert NEW_NAME in outcome
    assert said(warning, "^WARNING: .*log.* can't be opened", re.escape(path))
    assert told.datasets() == {OLD_NAME: OLD, NEW_NAME: NEW}
