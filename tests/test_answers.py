"""Faults of the server and the network: nothing is lost, and the next run succeeds."""

import email.utils
import gzip
import os
import re
import socket
import sys
import time
from typing import Any, Dict, List, Optional

import ijson
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
    archived,
    as_csv,
    assert_one_sentence,
    assert_recovers,
    md5,
    row_of,
    unchanged,
)
from lumiere_api import (
    Answer,
    answer,
    as_json,
    chunked,
    countries,
    drip,
    head,
    raw,
    reset,
    silence,
    until_close,
    zipped,
)

PACKED = gzip.compress(NEW)
HALF = NEW[: len(NEW) // 2]
AFTER_BRACKET = NEW[: NEW.index(b"]", len(NEW) // 2) + 1]
LONG = f"Content-Length: {len(NEW)}"
HTML = b"<!DOCTYPE html><html><body>Down for maintenance</body></html>"
DATED = b'[{"presences": [{"presence_date": "2026-09-30"}]}]'


def start_of(body: bytes, *headers: str, then: Answer = lambda connection: None) -> Answer:
    """Begin an answer, and go on as told."""
    return raw(head("200 OK", headers) + body, then)


# Transfers that break off in a way that HTTP can tell.
BROKEN: Dict[str, Answer] = {
    "cut under Content-Length": start_of(HALF, LONG),
    "cut under Content-Length behind a bracket": start_of(AFTER_BRACKET, LONG),
    "one byte short of Content-Length": start_of(NEW[:-1], LONG),
    "only the head under Content-Length": start_of(b"", LONG),
    "chunked, cut in a chunk": chunked(HALF, end=b"ff\r\n[[["),
    "chunked, without the last chunk": chunked(NEW, end=b""),
    "chunked, cut behind a bracket": chunked(AFTER_BRACKET, end=b""),
    "chunked, garbage in the framing": chunked(HALF, end=b"nonsense\r\n"),
    "gzip, cut under Content-Length": start_of(
        PACKED[:-100], "Content-Encoding: gzip", f"Content-Length: {len(PACKED)}"
    ),
    "gzip in name only": answer(NEW, headers=["Content-Encoding: gzip"]),
    "reset under Content-Length": start_of(HALF, LONG, then=reset),
    "reset, chunked": raw(
        head("200 OK", ["Transfer-Encoding: chunked"]) + b"400\r\n" + NEW[:100], then=reset
    ),
    "stall": start_of(HALF, LONG, then=silence),
    "no answer": silence,
    "hung up": raw(b""),
    "no HTTP": raw(b"220 mail.example ESMTP\r\n"),
    "endless header": raw(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100000),
}
# Transfers that break off in a way that only their contents tell. (One that is cut behind a bracket
# looks whole: see LOOKS_WHOLE.)
TRUNCATED: Dict[str, "tuple[Answer, bytes]"] = {
    "close-delimited": (until_close(HALF), HALF),
    "close-delimited, but for the last byte": (until_close(NEW[:-1]), NEW[:-1]),
    "framing intact": (answer(HALF), HALF),
    "chunked to the end": (chunked(HALF), HALF),
    "longer than Content-Length": (answer(NEW, length=len(HALF)), HALF),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_broken_transfer_once(used: Archiver, fault: str) -> None:
    used.api.on(WORKS, BROKEN[fault], answer(NEW))
    result = used.run(READ_TIMEOUT="1")
    assert (result.code, result.err) == (0, ""), used.log
    assert used.files() == archived(OLD, NEW)
    assert len(used.api.asked(WORKS)) == 2
    assert used.log.count("attempt 2 of 2") == 1


@pytest.mark.parametrize(
    "fault",
    ["cut under Content-Length", "chunked, cut in a chunk", "stall", "no answer", "hung up"],
)
def test_broken_transfer_for_good(used: Archiver, fault: str) -> None:
    used.api.on(WORKS, BROKEN[fault])
    with unchanged(used):
        result = used.run(READ_TIMEOUT="1")
    assert (result.code, result.out) == (1, "")
    assert_one_sentence(
        result.err, used.api.url + WORKS, "the archive is as it was", "attempt 2 of 2"
    )
    assert len(used.api.asked(WORKS)) == 2
    assert_recovers(used)


@pytest.mark.parametrize("fault", TRUNCATED)
def test_truncated_once(used: Archiver, fault: str) -> None:
    send, received = TRUNCATED[fault]
    used.api.on(WORKS, send, answer(NEW))
    result = used.run()
    assert (result.code, result.err) == (0, "")
    assert used.datasets()[NEW_NAME] == NEW
    assert used.rejected() == [received]


@pytest.mark.parametrize("fault", TRUNCATED)
def test_truncated_for_good(used: Archiver, fault: str) -> None:
    send, received = TRUNCATED[fault]
    used.api.on(WORKS, send)
    with unchanged(used, received):
        result = used.run()
    assert (result.code, result.out) == (1, "")
    assert_one_sentence(result.err, "not whole", f"{md5(received)}.txt", "attempt 2 of 2")
    assert_recovers(used)


def test_gzip_cut_in_an_intact_framing(used: Archiver) -> None:
    """urllib3 tells no error here; what could be unpacked is judged by its contents."""
    used.api.on(WORKS, zipped(NEW, cut=200), answer(NEW))
    assert used.run().code == 0
    assert used.datasets()[NEW_NAME] == NEW


def test_refused(used: Archiver) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/api/works"
        with unchanged(used):
            result = used.run(DATA_API_URL=url)
    assert result.code == 1
    assert_one_sentence(result.err, url, "refused", "attempt 2 of 2")
    assert_recovers(used)


def test_unknown_host(used: Archiver) -> None:
    with unchanged(used):
        result = used.run(DATA_API_URL="http://lumiere.invalid/api/works")
    assert result.code == 1
    assert_one_sentence(result.err, "http://lumiere.invalid/api/works")


def test_a_proxy_is_used(used: Archiver) -> None:
    url = "http://lumiere.invalid/api/works"
    used.api.on(url, answer(NEW))
    used.settings.update(HTTP_PROXY=used.api.url, NO_PROXY="127.0.0.1")
    assert used.run(DATA_API_URL=url).code == 0
    assert used.files() == archived(OLD, NEW)


@pytest.mark.skipif(os.name == "nt", reason="the Task Scheduler does it on Windows")
@pytest.mark.parametrize("start", [b"", head("200 OK"), head("200 OK", [LONG]) + HALF])
def test_a_byte_at_a_time_for_ever(used: Archiver, start: bytes) -> None:
    """No read ever times out, but MAX_RUNTIME ends the run."""
    used.api.on(WORKS, raw(start or b"HTTP/1.1 200 OK\r\nX: ", then=drip))
    started = time.monotonic()
    with unchanged(used):
        result = used.run(READ_TIMEOUT="5", MAX_RUNTIME="2")
    assert 2 <= time.monotonic() - started < 10
    assert result.code == 1
    assert_one_sentence(result.err, "MAX_RUNTIME", "2 s")
    assert "ERROR" in used.log
    assert_recovers(used)


@pytest.mark.parametrize(
    ("path", "status"),
    [(WORKS, "400 Bad Request"), (WORKS, "404 Not Found"), (COUNTRIES, "403 Forbidden")],
)
def test_what_time_cannot_cure_is_asked_once(used: Archiver, status: str, path: str) -> None:
    used.api.on(path, answer(HTML, status=status))
    with unchanged(used):
        result = used.run()
    assert result.code == 1
    assert_one_sentence(result.err, used.api.url + path, status[:3], "the archive is as it was")
    assert len(used.api.asked(path)) == 1
    assert_recovers(used)


@pytest.mark.parametrize("status", ["204 No Content", "206 Partial Content", "304 Not Modified"])
def test_other_statuses_are_no_answer(used: Archiver, status: str) -> None:
    used.api.on(WORKS, raw(head(status, ["Content-Length: 0"])))
    with unchanged(used):
        result = used.run()
    assert result.code == 1
    assert_one_sentence(result.err, used.api.url + WORKS, status[:3])
    assert_recovers(used)


@pytest.mark.parametrize(
    ("path", "status"),
    [
        (WORKS, "408 Request Timeout"),
        (WORKS, "429 Too Many Requests"),
        (WORKS, "500 Internal Server Error"),
        (WORKS, "503 Busy"),
        (COUNTRIES, "504 -"),
    ],
)
def test_what_time_can_cure_is_asked_again(used: Archiver, status: str, path: str) -> None:
    good = answer(NEW if path == WORKS else as_json(countries()))
    used.api.on(path, answer(HTML, status=status), answer(HTML, status=status), good)
    with unchanged(used):
        result = used.run()
    assert result.code == 1
    assert_one_sentence(result.err, used.api.url + path, status[:3], "attempt 2 of 2")
    assert len(used.api.asked(path)) == 2
    assert used.run().code == 0
    assert used.files() == archived(OLD, NEW)


def date_in(seconds: float) -> str:
    """Write a time from now as HTTP does."""
    return email.utils.formatdate(time.time() + seconds, usegmt=True)


@pytest.mark.parametrize("form", ["seconds", "date", "asctime"])
def test_retry_after_is_honoured(used: Archiver, form: str) -> None:
    """It is longer than RETRY_DELAY, which is nothing here; its dates are in GMT (RFC 9110)."""
    asctime = time.asctime(time.gmtime(time.time() + 3))
    after = {"seconds": "2", "date": date_in(3), "asctime": asctime}[form]
    header = f"Retry-After: {after}"
    used.settings["TZ"] = "XXX8"
    used.api.on(WORKS, answer(status="503 Busy", headers=[header]), answer(NEW))
    started = time.monotonic()
    assert used.run().code == 0
    assert time.monotonic() - started > 1.5
    assert used.files() == archived(OLD, NEW)


def test_a_short_retry_after_uses_up_no_attempts(used: Archiver) -> None:
    """The delays are the script's own where these are the longer ones."""
    used.api.on(WORKS, answer(status="503 Busy", headers=["Retry-After: 1"]))
    used.run(ATTEMPTS="3", RETRY_DELAY="1.1")
    assert re.findall(r"attempt \d of 3 in ([0-9.]+) s", used.log) == ["1.1", "2.2"]


@pytest.mark.parametrize(
    "after",
    [
        "nonsense",
        "",
        "-5",
        "1e3",
        "\xb2",
        "Sun, 99 Foo 2026 99:99:99 GMT",
        "Jan , , : -0000",
        "Sun, 01 Jan 99999999999999999999 00:00:00 GMT",
    ],
)
def test_retry_after_that_is_nonsense_is_passed_over(used: Archiver, after: str) -> None:
    header = f"Retry-After: {after}"
    used.api.on(WORKS, answer(status="503 Busy", headers=[header]), answer(NEW))
    assert used.run().code == 0
    assert used.files() == archived(OLD, NEW)


@pytest.mark.parametrize("length", ["nonsense", "\xb2", "9" * 5000])
def test_a_length_that_is_nonsense_is_passed_over(used: Archiver, length: str) -> None:
    used.api.on(WORKS, start_of(NEW, f"Content-Length: {length}"))
    used.run(ATTEMPTS="1")
    assert "Unexpected" not in used.log
    assert_recovers(used)


@pytest.mark.parametrize("after", ["86400", "9" * 400, "date"])
def test_retry_after_beyond_the_run_ends_it(used: Archiver, after: str) -> None:
    header = f"Retry-After: {date_in(86401) if after == 'date' else after}"
    used.api.on(WORKS, answer(status="429 Too Many Requests", headers=[header]))
    with unchanged(used):
        result = used.run()
    assert result.code == 1
    assert_one_sentence(result.err, "429")
    assert len(used.api.asked(WORKS)) == 1
    assert_recovers(used)


def test_delays_double(used: Archiver) -> None:
    used.api.on(WORKS, answer(status="500 Oops"))
    used.run(ATTEMPTS="4", RETRY_DELAY="0.2")
    assert re.findall(r"attempt (\d) of 4 in ([0-9.]+) s", used.log) == [
        ("2", "0.2"),
        ("3", "0.4"),
        ("4", "0.8"),
    ]


@pytest.mark.parametrize("status", ["301", "302", "303"])
def test_a_redirect_that_loses_the_post_is_an_error(used: Archiver, status: str) -> None:
    used.api.on(WORKS, answer(status=f"{status} Moved", headers=["Location: /new/works?page=1"]))
    with unchanged(used):
        result = used.run()
    assert result.code == 1
    assert_one_sentence(result.err, status, used.api.url + "/new/works")
    assert len(used.api.requests) == 2
    assert_recovers(used)


@pytest.mark.parametrize("location", [None, "", "http://[", "http://.x/", "/loop"])
@pytest.mark.parametrize("status", ["301", "308"])
def test_a_redirect_to_nowhere(used: Archiver, location: Optional[str], status: str) -> None:
    headers = [] if location is None else [f"Location: {location}"]
    used.api.on(WORKS, answer(status=f"{status} Moved", headers=headers))
    used.api.on("/loop", answer(status=f"{status} Moved", headers=headers))
    with unchanged(used):
        result = used.run()
    assert result.code == 1
    assert_one_sentence(result.err, used.api.url)
    assert_recovers(used)


@pytest.mark.parametrize("status", ["307", "308"])
def test_a_redirect_with_a_broken_body_is_asked_again(used: Archiver, status: str) -> None:
    headers = ["Location: /b", "Content-Encoding: gzip"]
    broken = answer(b"12345", status=f"{status} Moved", headers=headers, length=50)
    used.api.on(WORKS, broken, answer(NEW))
    assert used.run().code == 0
    assert used.files() == archived(OLD, NEW)


def test_a_redirect_is_no_dataset(used: Archiver) -> None:
    used.api.on(WORKS, answer(NEW, status="308 Moved", headers=["Location:"]))
    with unchanged(used):
        result = used.run()
    assert result.code == 1
    assert_one_sentence(result.err, "308")


NOT_JSON = "looks whole but is not JSON: keep the file, and report it to the Observatory"
NO_ARRAY = "is not an array of works; if it comes again"
UNDATED = "any usable presence_date"
# What looks whole and is no dataset. It is what the server has: time does not cure it, and nobody
# else may ever have it again.
LOOKS_WHOLE: Dict[str, "tuple[bytes, str]"] = {
    "NaN": (DATED.replace(b'"2026-09-30"', b"NaN"), NOT_JSON),
    "NaN, deep in an edition": (NEW.replace(b'"rating": ', b'"rating": NaN, "": ', 1), NOT_JSON),
    "Infinity": (DATED.replace(b"}]}]", b', "x": -Infinity}]}]'), NOT_JSON),
    "a byte order mark": (b"\xef\xbb\xbf" + NEW, NOT_JSON),
    "Latin-1": (NEW.replace("rêvée".encode(), "rêvée".encode("latin-1")), NOT_JSON),
    "bad UTF-8 in a key": (DATED.replace(b"presences", b"pr\xe9sences"), NOT_JSON),
    "a comma too many": (NEW[:-1] + b",]", NOT_JSON),
    "a comma too many and a line feed": (NEW[:-1] + b",\n]\r\n", NOT_JSON),
    "single quotes": (DATED.replace(b'"', b"'"), NOT_JSON),
    "two arrays": (DATED + DATED, NOT_JSON),
    "a text that begins behind the array": (DATED + b'"Internal Server Error]', NOT_JSON),
    "cut behind a bracket": (AFTER_BRACKET, NOT_JSON),
    "cut in the middle, between two blocks": (NEW[:-2] + b" " * 70000 + b"]", NOT_JSON),
    "an object a line": (DATED[1:-1] + b"\n" + DATED[1:-1] + b"\n", NO_ARRAY),
    "an object": (as_json({"error": "sorry"}), NO_ARRAY),
    "an object behind a byte order mark": (b"\xef\xbb\xbf \t" + as_json({"x": []}), NO_ARRAY),
    "an object with works in it": (b'{"item": %s}' % DATED[1:-1], NO_ARRAY),
    "an object with a list of works": (b'{"item": %s}' % DATED, NO_ARRAY),
    "no presences": (as_json([{"title": "x"}, {"presences": []}]), UNDATED),
    "dates missing": (as_json([{"presences": [{"date": "2026-09-30"}]}]), UNDATED),
    "dates null": (as_json([{"presences": [{"presence_date": None}]}]), UNDATED),
    "dates odd": (as_json([{"presences": [{"presence_date": "../../x"}]}]), UNDATED),
    "dates that are no days": (DATED.replace(b"09-30", b"02-30"), UNDATED),
}
# An array of nothing, whatever stands between its brackets.
EMPTY: Dict[str, bytes] = {"bare": b"[]", "spaced": b" [\n]\r\n", "long": b"[%s]" % (b" " * 70000)}
# What is cut short, or a page: nothing of it is worth more than a look.
NOT_WHOLE: Dict[str, bytes] = {
    "HTML": HTML,
    "a text": b"Service unavailable",
    "a text in quotes": b'"2026-09-30"',
    "null": b"null",
    "a number": b"17",
    "white space": b" \r\n ",
    "white space that JSON doesn't know": DATED + b"\f",
    "garbage behind the array": DATED + b"\n<!-- cached -->",
    "garbage before the array": b"while(1);" + DATED,
    "brackets that do not belong together": b'{"a": 1]',
    "brackets that do not belong together, too": b"[1}",
    "only a bracket": b"[",
    "not closed, deep": b"[" * 900,
    "cut behind a digit": DATED[:-1] + b', {"id": 7',
    "cut where a block ends": (DATED[:-1] + b', {"id":').ljust(65535) + b"7",
    "cut behind many digits": (DATED[:-1] + b', {"id":').ljust(4000) + b"7" * 999,
    "cut, and padded with white space": NEW[:-1] + b" " * 70000,
}


def assert_kept(archiver: Archiver, data: bytes, ending: str) -> str:
    """Hold that a run fails in one sentence and keeps the answer under this name, and nothing else;
    return the sentence.
    """
    with unchanged(archiver, data):
        result = archiver.run()
    assert (result.code, result.out) == (1, "")
    kept = os.path.join(str(archiver.archive), "rejected", f"{md5(data)}.{ending}")
    assert_one_sentence(
        result.err, archiver.api.url + WORKS, f"it is kept as {kept}", "the archive is as it was"
    )
    assert os.path.exists(kept)
    return result.err


@pytest.mark.parametrize("fault", LOOKS_WHOLE)
def test_what_looks_whole_is_fetched_once_and_kept(used: Archiver, fault: str) -> None:
    body, message = LOOKS_WHOLE[fault]
    used.api.on(WORKS, answer(body))
    assert message in assert_kept(used, body, "json")
    assert len(used.api.asked(WORKS)) == 1
    assert_recovers(used)


@pytest.mark.parametrize("fault", NOT_WHOLE)
def test_what_is_not_whole_is_asked_for_again(used: Archiver, fault: str) -> None:
    body = NOT_WHOLE[fault]
    used.api.on(WORKS, answer(body))
    sentence = assert_kept(used, body, "txt")
    assert "is not whole, as it was cut short or is a web page" in sentence
    assert "attempt 2 of 2" in sentence
    assert len(used.api.asked(WORKS)) == 2
    assert_recovers(used)


@pytest.mark.parametrize("form", EMPTY)
def test_an_empty_array_is_asked_for_again(used: Archiver, form: str) -> None:
    """A database that is being filled has no works yet; time cures that."""
    used.api.on(WORKS, answer(EMPTY[form]))
    sentence = assert_kept(used, EMPTY[form], "json")
    assert "is an empty array, without any work" in sentence
    assert "attempt 2 of 2" in sentence
    assert len(used.api.asked(WORKS)) == 2
    assert_recovers(used)


def test_an_empty_array_once(used: Archiver) -> None:
    used.api.on(WORKS, answer(b"[]"), answer(NEW))
    result = used.run()
    assert_one_sentence(result.out, "New dataset", NEW_NAME)
    assert (result.code, result.err) == (0, "")
    assert used.datasets() == {OLD_NAME: OLD, NEW_NAME: NEW}
    assert len(used.api.asked(WORKS)) == 2


def test_what_is_fetched_again_may_look_whole_next(used: Archiver) -> None:
    """Each answer is judged by itself: a page at first, then an edition with a comma too many."""
    odd = NEW[:-1] + b",]"
    used.api.on(WORKS, answer(HTML), answer(odd))
    with unchanged(used, HTML, odd):
        result = used.run(ATTEMPTS="5")
    assert result.code == 1
    assert_one_sentence(result.err, NOT_JSON, f"{md5(odd)}.json", "attempt 2 of 5")
    assert len(used.api.asked(WORKS)) == 2


# Valid JSON that parsers stumble over: the grammar bounds neither the size of a number nor which
# escapes stand beside each other.
VALID: Dict[str, bytes] = {
    "30 digits": b"7" * 30,
    "4301 digits": b"7" * 4301,
    "66,000 digits": b"7" * 66000,
    "4301 digits below zero": b"-" + b"7" * 4301,
    "4301 decimals": b"0." + b"7" * 4301,
    "beyond a double": b"1e400",
    "below a double": b"-1E+400",
    "beyond a decimal": b"1e99999999999999999999",
    "smaller than a decimal": b"1e-99999999999999999999",
    "the first half of a pair": rb'"\ud83d"',
    "the second half of a pair": rb'"\udc00"',
    "the second half, in capitals": rb'"\uDC00"',
    "a pair in the wrong order": rb'"\uDC00\ud83d"',
    "a pair": rb'"\ud83d\ude00"',
    "a half behind a backslash": rb'"\\\udc00"',
    "no escape, but a backslash": rb'"\\udc00"',
    "a half as a key": rb'{"\udc00": {"\uD83D": 1}}',
    "white space everywhere": b" \t\r\n[ \n] ",
    "the largest sign there is": rb'"\u0000\uffff\udbff\udfff"',
}


@pytest.mark.parametrize("value", VALID)
def test_valid_json_is_archived(used: Archiver, value: str) -> None:
    """Beside the date, and where two blocks of the file meet in the middle of it."""
    head_of_it = DATED[:-2] + b', "x": %s, "y": ' % VALID[value]
    data = head_of_it.ljust(65536 - 4) + VALID[value] + b"}]"
    used.api.on(WORKS, answer(data))
    result = used.run()
    assert (result.code, result.err) == (0, ""), used.log
    assert result.out.startswith(f"New dataset: {NEW_NAME}, {len(data):,} bytes, 1 works")
    assert used.files() == archived_one(data)
    assert len(used.api.asked(WORKS)) == 1


def archived_one(data: bytes) -> Dict[str, bytes]:
    """The files of an archive that holds OLD, and a dataset of one work and one presence."""
    files = archived(OLD)
    row = dict(row_of(OLD_NAME, OLD))
    one = dict(row, path=NEW_NAME, presence_date="2026-09-30", bytes=str(len(data)), hash=md5(data))
    sums = f"{md5(OLD)}  {OLD_NAME}\n{md5(data)}  {NEW_NAME}\n".encode()
    files[os.path.join("archive", NEW_NAME)] = data
    files[os.path.join("archive", "MD5SUMS")] = sums
    files[EDITIONS] = as_csv([row, dict(one, works="1", presences="1")])
    files["last_checksum.txt"] = f"{md5(data)}\n".encode()
    return files


# What would need memory beyond all bounds; how much it may take is measured in test_machine.py.
TOO_LARGE: Dict[str, bytes] = {
    "deep in a work": DATED[:-2] + b', "x": ' + b"[" * 99999 + b"]" * 99999 + b"}]",
    "many brackets that are not closed": b"[" * 300000 + b"]",
}


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits memory as Linux does")
@pytest.mark.skipif(ijson.backend == "python", reason="minutes in pure Python: for MAX_RUNTIME")
@pytest.mark.parametrize("fault", TOO_LARGE)
def test_what_needs_too_much_memory_is_kept(used: Archiver, fault: str) -> None:
    """It ends in a failure that is told, not in a crash, and is not fetched five times for it."""
    used.api.on(WORKS, answer(TOO_LARGE[fault]))
    sentence = assert_kept(used, TOO_LARGE[fault], "json")
    assert "needs more than 1 GiB of memory to be read; if it comes again" in sentence
    assert len(used.api.asked(WORKS)) == 1
    assert_recovers(used)


@pytest.mark.parametrize("send", [answer, chunked, until_close, zipped])
def test_an_empty_body_leaves_nothing(used: Archiver, send: Any) -> None:
    used.api.on(WORKS, send(b""))
    with unchanged(used):
        result = used.run()
    assert result.code == 1
    assert_one_sentence(result.err, used.api.url + WORKS, "nothing")
    assert_recovers(used)


BAD_COUNTRIES: Dict[str, Any] = {
    "no list": {"AL": True},
    "an empty object": {},
    "a number": 17,
    "null": None,
    "none": [],
    "none of the Council of Europe": [
        {"code": "US", "is_coe": False},
        {"code": "X", "is_coe": None},
    ],
    "no code": [{"code": "AL", "is_coe": True}, {"name": "France", "is_coe": True}],
    "no is_coe": [{"code": "AL", "is_coe": True}, {"code": "FR"}],
    "codes that are numbers": [{"code": 1, "is_coe": True}, {"code": 2, "is_coe": True}],
    "codes that are lists": [{"code": ["AL"], "is_coe": True}],
    "a code that is null": [{"code": "AL", "is_coe": True}, {"code": None, "is_coe": True}],
    "a code that is empty": [{"code": "AL", "is_coe": True}, {"code": "", "is_coe": True}],
    "texts": ["AL", "FR"],
}


@pytest.mark.parametrize("fault", BAD_COUNTRIES)
def test_countries_of_another_shape(used: Archiver, fault: str) -> None:
    used.api.on(COUNTRIES, answer(as_json(BAD_COUNTRIES[fault])))
    with unchanged(used):
        result = used.run()
    assert result.code == 1
    assert_one_sentence(result.err, used.api.url + COUNTRIES, "the archive is as it was")
    assert [request.path for request in used.api.requests] == [COUNTRIES]
    assert_recovers(used)


NO_COUNTRIES: Dict[str, Answer] = {
    "HTML": answer(HTML),
    "an empty body": answer(b""),
    "cut": answer(as_json(countries())[:-1]),
    "bad UTF-8": answer(b'[{"code": "\xff", "is_coe": true}]'),
    "broken transfer": answer(b"[", length=100),
    "deep": answer(b"[" * 100000),
    "500": answer(status="500 Oops"),
    "hung up": raw(b""),
}


@pytest.mark.parametrize("fault", NO_COUNTRIES)
def test_countries_are_asked_again(used: Archiver, fault: str) -> None:
    used.api.on(COUNTRIES, NO_COUNTRIES[fault])
    with unchanged(used):
        result = used.run()
    assert result.code == 1
    assert_one_sentence(result.err, used.api.url + COUNTRIES, "attempt 2 of 2")
    asked: List[str] = [request.path for request in used.api.requests]
    assert asked == [COUNTRIES, COUNTRIES]
    assert_recovers(used)


def test_of_whole_answers_of_one_run_the_last_is_kept(used: Archiver) -> None:
    """An array that is empty in another way at each attempt must not fill the disk."""
    used.api.on(WORKS, answer(b"[]"))
    assert used.run(ATTEMPTS="1").code == 1
    used.api.on(WORKS, answer(b"[ ]"), answer(b"[\n]"), answer(b"[  ]"), answer(b"[]"))
    assert used.run(ATTEMPTS="3").code == 1
    assert sorted(used.rejected()) == [b"[  ]", b"[]"]
