#!/usr/bin/env python3
# /// script
# requires-python = ">=3.6"
# dependencies = ["requests>=2.27.1,<3", "ijson>=3.1.4,<4"]
# ///
"""Keep every edition of the LUMIERE VOD dataset; made to be run by cron once a month.

A run downloads the current dataset and compares its MD5 with that of the last one. A
new dataset is checked to its last byte and gets its name in archive/. Then people are told,
over the channels that are set, and it is listed in editions.csv and MD5SUMS.

What a run puts into archive/*.json is a whole dataset, and is never overwritten. An answer
that is no dataset is kept in archive/rejected/ (of those that are no JSON, the last two). A
run that fails or is killed, at any point, leaves the datasets as they were.

Settings are the constants at the top of the script; LUMIERE_<NAME> in the environment
takes precedence. The README keeps them in settings.env; with it, a run and a check by hand:
  (set -a; . ./settings.env; .venv/bin/python data_collect.py)
  (set -a; . ./settings.env; .venv/bin/python data_collect.py --verify)

Exit codes: 0 archived, unchanged, all whole or all sent; 1 failed; 2 a wrong option or
setting, or no channel to test; 130, 143, 129 interrupted by Ctrl-C, SIGTERM, SIGHUP.
"""

import argparse
import csv
import errno
import functools
import hashlib
import http.client
import io
import itertools
import json
import logging
import os
import re
import shlex
import signal
import smtplib
import socket
import ssl
import sys
import time
import traceback
from calendar import timegm
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from email.message import EmailMessage
from email.utils import formatdate, getaddresses, make_msgid, parsedate
from glob import glob
from os.path import basename, dirname, exists, getmtime, getsize, isfile, join
from threading import Thread
from types import SimpleNamespace
from typing import IO, Any, Callable, Dict, Iterator, List, NamedTuple, Optional
from urllib.parse import unquote, urljoin, urlsplit

try:
    import requests.exceptions
    from ijson import backend, items
except Exception:  # an environment that is gone, or a file beside the script that is called so
    raise SystemExit(
        "The packages requests and ijson can't be loaded: in this script's folder, run the "
        "README's first command again, python3 -m venv --clear .venv && .venv/bin/python -m pip "
        "install -r requirements.txt, and let no file there be called requests.py or ijson.py."
    ) from None

# ---- Settings: change them here, or set LUMIERE_<NAME> in the environment -----------------------

DATA_API_URL = "https://lumierevod.obs.coe.int/api/works"
COUNTRY_CODE_API_URL = "https://lumierevod.obs.coe.int/api/countries"
STORAGE_DIR = "archive"  # relative paths, here and in the next two, start from this script's folder
LAST_CHECKSUM_FILE = "last_checksum.txt"
LOG_FILE = "archiver.log"
LOG_LEVEL = "INFO"  # DEBUG, INFO, WARNING, ERROR or CRITICAL
ARCHIVE_FILENAME_PREFIX = "Complete_lumiere_COE_"
CHUNK_SIZE = 256 * 1024  # bytes; two chunks are held in memory
CONNECT_TIMEOUT = 30.0  # seconds
READ_TIMEOUT = 600.0  # seconds without a byte: the first one may take minutes
MAX_RUNTIME = 6 * 3600.0  # seconds for the whole run
ATTEMPTS = 5  # in all, for the country codes and again for the works
RETRY_DELAY = 60.0  # seconds before the second attempt, and twice as long each time after
STALE_DAYS = 270  # without a new dataset, until people are told of that; 0: never
HEALTHCHECKS_URL = ""  # https://hc-ping.com/your-uuid, for example; empty: not used
WEBHOOK_URL = ""  # of Slack, Mattermost or Discord
SMTP_URL = ""  # smtps://user:password@host:465 or smtp://host:587
EMAIL_FROM = ""
EMAIL_TO = ""  # one address, or several with commas between

# ---- One run ------------------------------------------------------------------------------------


# A dataset grows in a hidden temporary file, and gets its name when it is checked and synced. Then
# people are told, then it is listed in editions.csv and MD5SUMS, and last its MD5 is noted. So a
# run may be killed at any point: a dataset without a row is told and listed by the next run.
def monthly_run() -> "Outcome":
    """Archive the API's dataset, tell people what came of it, and only then note it down."""
    on_signals(stop, MAX_RUNTIME)  # Ctrl-C, SIGTERM, SIGHUP or the alarm now raise Stopped
    with archive_locked():  # in here, the current folder is the archive
        ledger = Ledger()
        # An error or a signal that ends archive_dataset() is an outcome, too, and is told in here.
        # Afterwards signals are ignored. main() wraps this whole function in outcome_of(), too.
        outcome = outcome_of(lambda: archive_dataset(ledger))
        tell(outcome)
        note_down(outcome, ledger)
        return outcome._replace(text="")  # for they have been told


def archive_dataset(ledger: "Ledger") -> "Outcome":
    """Ask, receive, compare, check and publish; raises Failure, OSError or Stopped."""
    log.info(f"Run started; the archive is {STORAGE_DIR}.")
    send("", page="/start", subject="")  # a ping, and nothing else
    take_over(ledger)  # datasets without a row
    codes = persevere(ask_country_codes)
    warn_of_countries(codes, ledger)
    dataset = persevere(lambda: receive(codes))
    if dataset.path:  # where the archive has it already
        warn_if_stale(ledger)
        text = f"Unchanged: the archive has this dataset as {dataset.path}."
        return Outcome(0, text, page="", md5=dataset.hash)
    return publish(dataset, ledger)


class Outcome(NamedTuple):
    """What came of a job, and who is to be told."""

    code: int  # to exit with
    text: str  # a sentence for people; "" when they have been told
    page: Optional[str] = None  # of Healthchecks, "" or "/fail"; None: it is not pinged
    subject: str = ""  # of a mail; "": no mail, webhook or stdout, unless there are warnings
    md5: str = ""  # to be noted in LAST_CHECKSUM_FILE


class Failure(Exception):
    """What can be expected to go wrong, in words without a full stop."""

    def __init__(self, text: str, curable: bool = False, wait: float = 0) -> None:
        super().__init__(text)
        self.curable = curable  # by time
        self.wait = wait  # seconds that the server asked for


# ---- Ask the API --------------------------------------------------------------------------------

HEADERS = {"User-Agent": "lumiere-vod-archiver/2.0", "Accept": "application/json"}
QUESTION = """{
    "id_type": "", "ids": [], "title": "", "directors": [], "work_types": [],
    "production_years": [], "production_countries": [], "catalogs": [],
    "catalogs_countries": [], "business_models": ["FoD", "SVoD", "TVoD"]
}"""
STATUSES = {  # what people are told of them; 500 stands for all from there on
    403: ", as it refuses access: ask its operator",
    404: ", as it has no such page: try later; if it lasts, ask its operator for the new address",
    429: ", as it is asked too often",
    500: ", as it has trouble of its own",
}
REPORT = "please report it to whoever maintains this script"


def persevere(attempt: Callable[[], Any]) -> Any:
    """Return what an attempt does; where time can cure its failure, try ATTEMPTS times in all."""
    number = 1
    delay = RETRY_DELAY
    while True:
        try:
            return attempt()
        except Failure as failure:
            # A server that asks for one second each time must not use up all attempts in a moment.
            wait = max(delay, failure.wait)
            if not failure.curable or number == ATTEMPTS or wait > MAX_RUNTIME:
                tried = f" (attempt {number} of {ATTEMPTS}: try later)" if number > 1 else ""
                raise Failure(f"{failure}; the archive is as it was{tried}") from None
            number += 1
            log.info(f"{failure}; attempt {number} of {ATTEMPTS} in {wait:.1f} s.")
        time.sleep(wait)
        delay *= 2


def ask_country_codes() -> List[str]:
    """Ask for the codes of the Council of Europe's members, sorted; raises Failure."""
    try:
        countries = json.loads(ask("GET", COUNTRY_CODE_API_URL).content)
    except (ValueError, RecursionError):
        raise Failure(f"{shown(COUNTRY_CODE_API_URL)} did not answer with JSON", True) from None
    with suppress(KeyError, TypeError):  # a key is missing, or a code is no text
        codes = sorted({country["code"] for country in countries if country["is_coe"] is True})
        if re.fullmatch("[!-~]{1,99}(\n[!-~]{1,99})*", "\n".join(codes)):  # none has a space
            log.info(f"{len(codes)} countries.")
            log.debug(codes)
            return codes
    raise Failure(f"{shown(COUNTRY_CODE_API_URL)} lists no usable country codes: {REPORT}")


def ask(method: str, url: str, **more: Any) -> requests.Response:
    """Send a request and return its answer, which has status 200; raises Failure."""
    more.update(headers=HEADERS, timeout=(CONNECT_TIMEOUT, READ_TIMEOUT), hooks={"response": judge})
    try:
        response = requests.request(method, url, **more)
    except Failure:
        raise
    except Exception as error:  # of requests or, after a redirect, of urllib3
        curable = not isinstance(error, (ValueError, requests.TooManyRedirects))
        raise Failure(f"{shown(url)} could not be asked: {in_words(error)}", curable) from None
    # With stream=True the body is yet to come, and urllib3 1.26 would take a shorter one for whole.
    response.raw.enforce_content_length = True
    return response


def judge(response: requests.Response, **_: Any) -> None:
    """Raise Failure at an answer, or a step on the way to it, that is of no use."""
    status = response.status_code
    target = response.headers.get("Location", "")
    # To these, requests would go on with a GET, which asks for something else.
    lost_post = status in (301, 302, 303) and response.request.method == "POST"
    if status == 200 or (response.is_redirect and target and not lost_post):
        return  # a redirect is followed by requests itself
    text = f"{shown(response.url)} answered with status {status}"
    wait = seconds_until(response.headers.get("Retry-After", ""))
    if wait > MAX_RUNTIME:
        days = f"{wait / 86400:.1f} days"
        text += f" and wants to be left alone for {days}: wait, or ask its operator"
    elif lost_post and target:
        new = shown(urljoin(response.url, target))
        text += f" and names '{new}': set LUMIERE_DATA_API_URL to it in settings.env"
    else:
        text += STATUSES.get(min(status, 500), "")
    raise Failure(text, status in (408, 429) or status >= 500, wait)


def seconds_until(after: str) -> float:
    """Read a Retry-After header, seconds or a date (RFC 9110, 10.2.3); 0 where it is neither."""
    with suppress(Exception):  # at nonsense, parsedate() and timegm() raise all kinds
        if after.isdigit():
            return float(after[:9])
        return timegm(parsedate(after) or ()) - time.time()  # all of these dates are in GMT
    return 0


def shown(url: str) -> str:
    """Return an address without user and password, which are all before the last @, and query."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{(parts.netloc + parts.path).rpartition('@')[2]}"


# ---- Receive a dataset --------------------------------------------------------------------------

PART = ".lumiere.part"  # the hidden file in which contents grow until they are given their name


def receive(codes: List[str]) -> "Edition":
    """Download the dataset; return it as checked, or with the path at which the archive has it."""
    with open(PART, "wb") as file:  # if it isn't moved, archive_locked() removes it at the end
        dataset = download(codes, file)
        last = ""
        with suppress(OSError):  # replace_text() reads it again, and raises when all is safe
            last = read_text(LAST_CHECKSUM_FILE)
        is_last = dataset.hash in last.lower()  # with or without a line feed, as md5sum writes it
        same_size = [it for it in dataset_names() if dataset.bytes == f"{getsize(it)}"]  # as text
        if is_last and same_size:
            # The usual month. The noted MD5 and a file of that size are proof enough: to hash the
            # file, too, would double the cost of a month, and is for verify().
            return dataset._replace(path=same_size[-1])
        file.flush()
        sync(file.fileno())
    try:
        dataset = check(PART, dataset)
    except Failure as failure:
        raise reject(dataset, failure) from None
    for name in same_size:  # it may be an earlier edition, or the note of the last one was lost
        if md5_of(name) == dataset.hash:
            return dataset._replace(path=name)
    if is_last:
        warn("The last dataset was missing in the archive; it is archived again.")
    return dataset


def download(codes: List[str], file: IO[bytes]) -> "Edition":
    """Stream all works into a file, and return what is known of them; raises Failure, OSError."""
    log.info("Asking for their works; the first byte may take minutes.")
    question = {**json.loads(QUESTION), "catalogs_countries": codes}
    md5 = MD5()
    response = ask("POST", DATA_API_URL, json=question, stream=True)
    with response, ThreadPoolExecutor(1) as hasher:  # MD5 takes as long as all the rest
        hashed = hasher.submit(take_no_signals)
        for chunk in chunks_of(response):
            file.write(chunk)
            hashed.result()  # so that no more than two chunks are in memory
            hashed = hasher.submit(md5.update, chunk)
    size = file.tell()  # md5 is complete, too: the block above has waited for the hasher
    if not size:
        raise Failure(f"{shown(DATA_API_URL)} answered with nothing", curable=True)
    log.info(f"Received {size:,} bytes, MD5 {md5.hexdigest()}.")
    return Edition(
        created=utc(time.time()),
        bytes=f"{size}",
        hash=md5.hexdigest(),
        countries=" ".join(codes),
        source=shown(DATA_API_URL),
        software=HEADERS["User-Agent"],
    )


def chunks_of(response: requests.Response) -> Iterator[bytes]:
    """Yield a body, show on a terminal how far it is; raises Failure where it breaks off."""
    length = response.raw.length_remaining
    mb = 0.0
    started = drawn_at = time.monotonic()
    try:
        for chunk in response.iter_content(CHUNK_SIZE):
            mb += len(chunk) / 1e6
            now = time.monotonic()
            if WATCHED and now > drawn_at + 0.25:
                drawn_at = now
                share = f", {response.raw.tell() / length:.0%}" if length else ""  # even if packed
                write_out(sys.stderr, f"\r{mb:,.1f} MB, {mb / (now - started):.1f} MB/s{share:<30}")
            yield chunk
    except Exception as error:  # requests 2.27 lets some of urllib3's own through
        raise Failure(
            f"The transfer from {shown(response.url)} broke off: {in_words(error)}", curable=True
        ) from None
    finally:
        if WATCHED:
            write_out(sys.stderr, f"\r{'':60}\r")


def reject(answer: "Edition", failure: Failure) -> Failure:
    """Keep an answer that is no dataset; return a failure that says where. Raises OSError."""
    os.makedirs("rejected", exist_ok=True)
    not_json = str(failure) == NOT_JSON
    kept = join("rejected", f"{answer.hash}{'.txt' if not_json else '.json'}")
    if not_json and not exists(kept):
        with suppress(OSError):  # what can't be removed must not cost us this answer
            # With this answer two .txt stay at most, or bad months would fill the disk.
            for path in sorted(glob("rejected/*.txt"), key=getmtime)[:-1]:
                os.remove(path)
    move(PART, kept)
    text = f"The answer of {answer.source} is {failure}; it is kept as {join(STORAGE_DIR, kept)}"
    return Failure(text, failure.curable)


# ---- Check and publish a dataset ----------------------------------------------------------------

ALL_BUT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
NOT_JSON = "not whole, well-formed JSON (it was cut short, or is an ordinary web page)"
NEW_FORM = f"; if it comes again, {REPORT}, with the file"


def check(path: str, edition: "Edition") -> "Edition":
    """Return an edition with what its file holds; raises Failure if it is no dataset, OSError."""
    log.debug(f"Checking with the {backend} backend of ijson.")
    start = vet(path)
    works = presences = undated = 0
    newest = ""
    for days in days_in(path):
        works += 1
        presences += len(days)
        undated += days.count("")
        newest = max([newest, *days])
    if not works or start != b"[":  # days_in() would find works in an object {"item": …}, too
        raise Failure(f"not an array of works{NEW_FORM}")
    if not newest:
        raise Failure(f"an array of works without any usable presence_date{NEW_FORM}")
    if undated:
        warn(f"{undated:,} presences have no usable presence_date.")
    return edition._replace(presence_date=newest, works=f"{works}", presences=f"{presences}")


def vet(path: str) -> bytes:
    """Return a text's first byte; raises Failure at what ijson can't bear, and OSError."""
    # ijson's memory grows with the square of the depth of brackets: 25 GB for 100,000. Its C
    # backend crashes at a number of over 4,300 digits, and takes \v and \f for white space. This is
    # looked for in a reading of its own: what its read() raises, ijson may print besides raising.
    start = b""
    for block in blocks_of(path):
        start = start or block.lstrip()[:1]
        if b"\v" in block or b"\f" in block:
            raise Failure(NOT_JSON, curable=True)
        # A rough test, as no dataset comes near it: 1,000 brackets opened, and none closed between.
        if b"[" * 1000 in block.translate(None, ALL_BUT_BRACKETS).replace(b"{", b"["):
            raise Failure(f"no dataset but brackets within brackets{NEW_FORM}")
        # If two blocks of 65,536 share 4,301 digits, one has 2,151, which still fill such a piece.
        if any(block[at : at + 1000].isdigit() for at in range(0, len(block) - 999, 1000)):
            raise Failure(f"no dataset but thousands of digits in a row{NEW_FORM}")
    return start


def days_in(path: str) -> Iterator[List[str]]:
    """Yield for each work what days_of() says; raises OSError, and Failure where it is no JSON."""
    # Without the line feed, ijson's C backend forgives a string that begins after the array.
    blocks = itertools.chain(blocks_of(path), [b"\n"])
    # ijson takes this for a file, whose blocks may have any size; 0 bytes show it their type.
    source = SimpleNamespace(read=lambda size: next(blocks, b"") if size else b"")
    try:
        for work in items(source, "item"):
            yield list(days_of(work))
        return
    except OSError:
        raise
    except Exception:  # JSONError or ValueError; at odd ones Arithmetic-, System-, MemoryError
        pass  # a Failure raised here would hold on to this error, and so to ijson's memory
    raise Failure(NOT_JSON, curable=True)


def days_of(work: Any) -> Iterator[str]:
    """Yield the day of each presence of a work, "" where it has none that is usable."""
    presences = work.get("presences") if isinstance(work, dict) else None
    for presence in presences if isinstance(presences, list) else []:
        try:
            yield day_of(presence["presence_date"])
        except (KeyError, TypeError):  # it has none, is no object, or its date is no text
            yield ""


@functools.lru_cache(maxsize=1000)  # most are equal, and there are millions
def day_of(text: str) -> str:
    """Return the day of an ISO 8601 date or date-time; "" if it is none, or over a year ahead."""
    try:
        time.strptime(text[:10], "%Y-%m-%d")
    except ValueError:  # such as the 31st of February
        return ""
    usable = re.fullmatch(r"\d{4}-\d\d-\d\d([Tt ]\d\d[\d:.,]*[Zz\d:+ -]*)?", text, re.ASCII)
    return text[:10] if usable and text < utc(time.time() + 366 * 86400) else ""


def publish(dataset: "Edition", ledger: "Ledger") -> Outcome:
    """Give a dataset that was received and checked its name in the archive; raises OSError."""
    # A name is taken if a file has it, or if a list has it with another MD5. (With this MD5, it is
    # that of a dataset which was lost and comes again: it keeps its name, and its row.)
    taken = os.listdir() + [row.path for row in ledger.values() if row.hash != dataset.hash]
    with suppress(OSError):  # save() reads it again, and raises when all is safe
        sums = sums_in(read_text("MD5SUMS"))
        taken += [name for name in sums if sums[name] != dataset.hash]
    name = f"{ARCHIVE_FILENAME_PREFIX}{dataset.presence_date}.json"
    number = 0
    while name.lower() in map(str.lower, taken):  # as file systems may ignore the case
        number += 1
        name = f"{ARCHIVE_FILENAME_PREFIX}{dataset.presence_date}_{number}.json"
    kind = f"Revised dataset for {dataset.presence_date}" if number else "New dataset"
    dataset = dataset._replace(path=name)
    text = f"{kind}: {name}, {compared(dataset, ledger)}."
    on_signals(signal.SIG_IGN)  # what is published must be told
    move(PART, name)  # it overwrites nothing: the name is free, and the lock is held
    ledger.setdefault(name, dataset)
    return Outcome(0, text, page="", subject="new dataset", md5=dataset.hash)


# ---- Compare with earlier editions --------------------------------------------------------------


def compared(edition: "Edition", ledger: "Ledger") -> str:
    """Describe an edition and how it differs from the one before; warn if a tenth is gone."""
    # The one before is that with the latest date up to this edition's, or else the latest of all.
    rows = [row for row in ledger.values() if row.works and row.hash != edition.hash]
    rows = [row for row in rows if row.presence_date <= edition.presence_date] or rows
    # Of equal dates the last row counts: max() takes the first. Without rows, it is edition itself.
    other = max(reversed(rows), key=lambda row: row.presence_date, default=edition)
    text = f"{int(edition.bytes):,} bytes"
    for what in ("works", "presences"):
        has = int(getattr(edition, what))
        had = int(getattr(other, what))
        text += f", {has:,} {what}"
        if rows:
            text += f" ({has - had:+,})"
        if has <= 0.9 * had:
            warn(f"{edition.path} has fewer {what} by a tenth or more: {has:,}, not {had:,}.")
    return f"{text}, MD5 {edition.hash}"


def warn_of_countries(codes: List[str], ledger: "Ledger") -> None:
    """Warn where other countries are asked for than for the edition before."""
    before = [row.countries.split() for row in ledger.values() if row.countries] or [codes]
    changed = sorted(set(codes) ^ set(before[-1]))
    changes = ", ".join(f"{code} {'came' if code in codes else 'went'}" for code in changed)
    if changes:
        warn(f"Other countries than for the edition before: {changes}.")


def warn_if_stale(ledger: "Ledger") -> None:
    """Warn where there has been nothing new for more than STALE_DAYS."""
    newest = max((row.created for row in ledger.values()), default="")
    if STALE_DAYS and "" < newest < utc(time.time() - STALE_DAYS * 86400):
        warn(f"No new dataset since {newest}; three or four editions a year are usual.")


# ---- Note down what is archived -----------------------------------------------------------------


def note_down(outcome: Outcome, ledger: "Ledger") -> None:
    """List what was archived or taken over, now that people know of it; raises OSError."""
    try:
        ledger.save()
    except Exception:  # OSError, or MemoryError
        if not outcome.code:
            raise
        # Else the run has failed and told that; the next one lists what this one could not.
    if outcome.md5:
        replace_text(LAST_CHECKSUM_FILE, f"{outcome.md5}\n")


class Edition(NamedTuple):
    """A row of editions.csv, all text, as it stands there: what is known of a dataset, or ""."""

    path: str = ""  # a file name
    presence_date: str = ""  # the newest
    created: str = ""  # when the download ended, in UTC
    bytes: str = ""
    hash: str = ""  # MD5
    works: str = ""
    presences: str = ""
    countries: str = ""  # that were asked for
    source: str = ""
    software: str = ""


# The form of a row, its fields joined by line feeds. Lines of another form are dropped: the header,
# which save() writes again, and torn rows. A dataset that is there then gets a new row.
ROW = r"""(?x)
    [^/\n]+\.json \n         # path
    (\d{4}-\d\d-\d\d)? \n    # presence_date
    .+Z \n                   # created
    \d+ \n                   # bytes
    [0-9a-f]{32} \n          # hash
    (\d{1,15} \n \d{1,15} | \n) \n  # works and presences, or two empty fields
    .* \n .* \n .*           # countries, source, software
"""


class Ledger(Dict[str, Edition]):
    """The rows of editions.csv, by name, and those that save() will add when people are told."""

    trouble: Optional[OSError] = None  # the list is there, but can't be read: save() raises this

    def __init__(self) -> None:
        try:
            for line in read_text("editions.csv").split("\n")[:-1]:  # the last is torn, or empty
                fields = next(csv.reader([line[:99999]]))  # csv refuses longer ones
                if re.fullmatch(ROW, "\n".join(fields)):
                    self[fields[0]] = Edition(*fields)
        except OSError as error:
            self.trouble = error

    def save(self) -> None:
        """Write the archive's lists durably; raises OSError."""
        if self.trouble:  # for what can't be read must not be replaced
            raise self.trouble
        if self:
            table = io.StringIO()
            csv.writer(table, lineterminator="\n").writerows([Edition._fields, *self.values()])
            replace_text("editions.csv", table.getvalue())
        text = ""
        for line in read_text("MD5SUMS").split("\n"):
            # Comments stay; so do sums of datasets, even of lost ones, and of other existing files.
            kept = [name for name in sums_in(line) if name.endswith(".json") or exists(name)]
            if kept or line.startswith("#"):
                text += f"{line}\n"
        listed = sums_in(text)
        for name, row in self.items():
            if name not in listed and exists(name):
                text += f"{row.hash}  {name}\n"
        replace_text("MD5SUMS", text)


def take_over(ledger: Ledger) -> None:
    """Give a row to each file that a killed run, or somebody, put there without; raises OSError."""
    for name in dataset_names():
        if name in ledger or ledger.trouble:
            continue
        try:
            row = Edition(name, "", utc(getmtime(name)), f"{getsize(name)}", md5_of(name))
            ledger[name] = check(name, row)
            late = "stood in the archive without a row in editions.csv, and gets one now"
            warn(f"{name} {late}: {compared(ledger[name], ledger)}.")
        except Failure as failure:  # of check()
            ledger[name] = row
            warn(f"{name} is no whole dataset: it is {failure}. It stays as it is.")
        except OSError as error:
            warn(f"{name} can't be read and so not be listed: {in_words(error)}.")


# ---- Verify the archive -------------------------------------------------------------------------


def verify() -> Outcome:
    """Hash what MD5SUMS lists; raises OSError, and Failure that names what is not whole."""
    on_signals(stop)  # but no alarm, and no lock: this may take hours, and changes nothing
    os.chdir(STORAGE_DIR)
    names = dataset_names()
    sums = sums_in(read_text("MD5SUMS"))
    for name in names:
        if name not in sums:
            warn(f"{name} is not listed in MD5SUMS.")
    troubles = []
    for name, md5 in sums.items():
        try:
            found = md5_of(name)
            if found != md5:
                troubles.append(f"{name} is damaged: its MD5 is {found}, in MD5SUMS {md5}")
        except OSError as error:
            troubles.append(f"{name} is missing or unreadable: {in_words(error)}")
    text = f"{len(sums) - len(troubles)} of {len(sums)} files listed in MD5SUMS are whole"
    if not sums and (names or read_text(LAST_CHECKSUM_FILE)):
        troubles = ["nothing could be checked, but there was a dataset"]
    if troubles:
        raise Failure("; ".join([text, *troubles]))
    return Outcome(0, f"{text}.")  # not pinged: that would hide that monthly runs are missing


def sums_in(text: str) -> Dict[str, str]:
    """Read the lines of an MD5SUMS much as md5sum does: MD5 by file name."""
    lines = re.findall(r"(?m)^([0-9a-fA-F]{32}) [ *](.{1,255})$", text)
    return {name: md5.lower() for md5, name in lines}


def md5_of(path: str) -> str:
    """Return a file's MD5 in 32 hex digits; raises OSError."""
    md5 = MD5()
    for block in blocks_of(path):
        md5.update(block)
    return f"{md5.hexdigest()}"


# ---- Tell people --------------------------------------------------------------------------------

TELL_TIMEOUT = 35  # seconds for all channels together: a mail server may take 30 to greet
untold: List[str] = []  # warnings, until people are told of them


def warn(text: str) -> None:
    """Log what somebody should know although the run goes well, and let tell() tell it."""
    untold.append(text)
    log.warning(text)


def tell(outcome: Outcome) -> None:
    """Tell what came of a job, and what looks wrong: in the log, on stdout, over the channels."""
    (log.error if outcome.code else log.info)(outcome.text)
    warnings = "".join(f"WARNING: {warning}\n" for warning in untold)
    untold.clear()
    console.setLevel("WARNING")  # stderr, under cron just for errors, gets what send() warns of
    subject = outcome.subject or (warnings and "something looks wrong")
    text = readable(f"{outcome.text}\n{warnings}")
    if subject and not WATCHED:  # for cron to mail it; a failure is on stderr already
        write_out(sys.stdout, warnings if outcome.code else text)
    send(text.rstrip(), outcome.page, subject)


def send(text: str, page: Any, subject: str) -> List["Channel"]:
    """Send a text over each channel that is set, if there is a page or subject for it."""
    ways = [
        ("Healthchecks", HEALTHCHECKS_URL and page is not None, lambda: ping(page, text)),
        ("webhook", WEBHOOK_URL and subject, lambda: call_webhook(text)),
        ("email", SMTP_URL and subject, lambda: send_mail(subject, text)),
    ]
    channels = [Channel(name=name, target=way, daemon=True) for name, wanted, way in ways if wanted]
    deadline = time.monotonic() + TELL_TIMEOUT
    for channel in channels:
        try:
            channel.start()
        except RuntimeError:  # no thread can be had
            channel.run()
    for channel in filter(Thread.is_alive, channels):  # one that never started can't be joined
        channel.join(deadline - time.monotonic())
    for channel in channels:
        if channel.trouble:
            warn(f"The {channel.name} channel failed: {channel.trouble}.")
    return channels


class Channel(Thread):
    """A text on its way, in a thread of its own: that may hang, and then dies with the run."""

    trouble = "there was no answer in time"

    def run(self) -> None:
        """Send the text, and note what goes wrong, or ""."""
        if self.is_alive():  # else there was no thread for it, and it runs in the main one
            take_no_signals()
        try:
            super().run()
            self.trouble = ""
        except (requests.Timeout, socket.timeout):
            pass  # trouble stays what it is
        except Exception as error:
            self.trouble = in_words(error)


def try_channels() -> Outcome:
    """Send a test over each channel that is set, and say for each whether it went."""
    on_signals(stop)
    channels = send("This is a test of the LUMIERE VOD archiver.", page="/log", subject="test")
    for channel in channels:
        write_out(sys.stdout, f"{channel.name}: {channel.trouble or 'sent'}.\n")
    if not channels:
        return Outcome(2, "No channel is set: see HEALTHCHECKS_URL, WEBHOOK_URL and SMTP_URL.")
    sent = [channel for channel in channels if not channel.trouble]
    return Outcome(int(sent != channels), f"{len(sent)} of {len(channels)} channels work.")


# ---- Channels -----------------------------------------------------------------------------------


def ping(page: str, text: str) -> None:
    """POST to a page of Healthchecks, in three attempts; raises Failure or RequestException."""
    # The page comes before the query: see https://healthchecks.io/docs/http_api/.
    url = re.sub(r"/*(\?|$)", rf"{page}\1", HEALTHCHECKS_URL, count=1)
    for _ in range(2):
        with suppress(Exception):
            return post(url, data=text.encode())
        time.sleep(1)
    return post(url, data=text.encode())


def call_webhook(text: str) -> None:
    """Tell a webhook, in the words of Slack, Mattermost and Discord; raises what post() does."""
    text = f"LUMIERE VOD archiver on {readable(socket.gethostname())}: {text}"[:2000]
    # Slack wants &, < and > escaped; an escape that was cut in two goes.
    slack = re.sub("&[a-z]*$", "", text.translate({38: "&amp;", 60: "&lt;", 62: "&gt;"})[:2000])
    post(WEBHOOK_URL, json={"text": slack, "content": text})


def post(url: str, **body: Any) -> None:
    """POST to an address and expect a good answer; raises Failure or RequestException."""
    body.update(headers=HEADERS, timeout=5, allow_redirects=False, stream=True)
    with requests.post(url, **body) as response:
        if not 200 <= response.status_code < 300:
            raise Failure(f"it answered with status {response.status_code}")
        start = b""
        with suppress(Exception):  # of a body that breaks off
            start = next(response.iter_content(99), b"")
    if start in (b"OK (not found)", b"OK (rate limited)"):  # as Healthchecks says with status 200
        raise Failure(f"it answered '{start.decode()}'")


def send_mail(subject: str, text: str) -> None:
    """Send an email to all of EMAIL_TO; raises Failure, SMTPException or OSError."""
    message: Any = EmailMessage()
    message["Subject"] = f"LUMIERE VOD: {subject} ({readable(socket.gethostname())})"
    message["From"] = EMAIL_FROM
    message["To"] = EMAIL_TO
    message["Date"] = formatdate()
    message["Message-ID"] = make_msgid(domain="lumiere-vod-archiver")
    message.set_content(text)
    sender, *receivers = [at for _, at in getaddresses([EMAIL_FROM, EMAIL_TO])]
    beyond = max(sender + "".join(receivers)) > "~"  # the last letter of ASCII
    # send_message() of Python 3.6, like its policy SMTP, puts CRs too many between headers.
    data = message.as_bytes(policy=message.policy.clone(utf8=beyond)).replace(b"\n", b"\r\n")
    server = mail_server()
    refused = server.sendmail(sender, receivers, data, ["SMTPUTF8"] if beyond else [])
    with suppress(OSError):  # the mail has been accepted already
        server.quit()
    if refused:  # some of them: had it been all, this would have been raised before
        raise smtplib.SMTPRecipientsRefused(refused)


def mail_server() -> smtplib.SMTP:
    """Connect to SMTP_URL, with TLS where it can be had, and log in; raises like send_mail()."""
    parts = urlsplit(SMTP_URL)
    context = ssl.create_default_context()
    # By default the machine's own name is looked up, at a name server that may hang.
    more: Any = {"host": parts.hostname, "local_hostname": "[127.0.0.1]", "timeout": TELL_TIMEOUT}
    if parts.scheme == "smtp":
        server = smtplib.SMTP(port=parts.port or 587, **more)
        with suppress(smtplib.SMTPNotSupportedError):
            server.starttls(context=context)
    else:
        server = smtplib.SMTP_SSL(port=parts.port or 465, context=context, **more)
    if parts.username:
        if not isinstance(server.sock, ssl.SSLSocket):
            raise Failure("no TLS is offered, and no password is sent without it")
        server.login(unquote(parts.username), unquote(parts.password or ""))
    return server


# ---- Words for people ---------------------------------------------------------------------------

WORDS: Any = [  # to say of the first of these kinds among an error's causes; {NAME} is a setting
    (requests.exceptions.ProxyError,
     "the proxy in HTTPS_PROXY or HTTP_PROXY can't be reached: ask this machine's administrator"),
    ((requests.exceptions.SSLError, ssl.SSLError, ssl.CertificateError),
     "there is no secure connection; perhaps its certificate is not trusted or has expired: renew "
     "the environment with the README's first command, and look at this machine's clock; if that "
     "does not help, ask its administrator"),
    (requests.ConnectTimeout,
     "no connection came about in CONNECT_TIMEOUT, {CONNECT_TIMEOUT:g} s; you can raise that"),
    (socket.timeout, "nothing came for READ_TIMEOUT, {READ_TIMEOUT:g} s; you can raise that"),
    (socket.gaierror, "its name can't be found: look at its spelling and at the network"),
    (ConnectionRefusedError, "connections are refused"),
    (FileExistsError,
     "there is a file in the place of a folder: is STORAGE_DIR in settings.env the right one"),
    (requests.exceptions.ChunkedEncodingError, "it ended before all had come"),
    (requests.exceptions.ContentDecodingError, "what came can't be unpacked"),
    (requests.TooManyRedirects, "it redirects in a circle: try later, or ask its operator"),
    (http.client.RemoteDisconnected, "it closed the connection"),
    (smtplib.SMTPAuthenticationError, "it refuses the user name or the password"),
    (UnicodeEncodeError, "it takes no user name, password or address beyond ASCII"),
    ((http.client.HTTPException, requests.exceptions.InvalidHeader),
     "it does not answer as a web server does: if it lasts, ask its operator"),
    (ValueError,
     "it, or one it leads to, or one in HTTPS_PROXY, HTTP_PROXY or ALL_PROXY, is no valid address"),
]  # fmt: skip


def in_words(error: BaseException) -> str:
    """Say in our words what went wrong: an error's own may hold a secret."""
    causes = []
    cause: Any = error
    # Up to a Failure: an error within reject() has one as its context, which is not its cause.
    while cause and not isinstance(cause, Failure):
        causes.append(cause)
        cause = cause.__cause__ or cause.__context__
    if not causes:  # error is a Failure, and so in our words already
        return str(error)
    for kinds, words in WORDS:
        if any(isinstance(cause, kinds) for cause in causes):
            return f"{words.format(**globals())}"
    if isinstance(error, smtplib.SMTPException):  # no secret: a refused login has been in WORDS
        said = re.sub(r"\[Errno \d+\]|\\[nr]?|[(){}\"']|\bb(?=[\"'])", " ", str(error))
        return f"it said: {' '.join(said.split())}"  # "550, No" for "(550, b'No')"
    return words_of_system(causes[-1])


def words_of_system(error: Any) -> str:
    """Say what the system calls an error, where, and what helps."""
    if type(error) is OSError and not error.strerror:  # requests' way to say: no such bundle
        path = os.getenv("REQUESTS_CA_BUNDLE") or os.getenv("CURL_CA_BUNDLE")
        missing = f"REQUESTS_CA_BUNDLE or CURL_CA_BUNDLE names a file that is not there: {path}"
        return f"{missing}; ask this machine's administrator"
    if not getattr(error, "strerror", ""):
        return "an unforeseen fault"
    text = f"{error.strerror}: {error.filename}" if error.filename else f"{error.strerror}"
    if error.errno == errno.ENOSPC:
        text += "; make room"
        if exists("rejected"):
            text += ": the .txt files in rejected/ may be deleted"
    return text


# ---- Command line -------------------------------------------------------------------------------

SCRIPT = os.path.realpath(__file__)
WATCHED = sys.stderr and sys.stderr.isatty()  # by somebody at a terminal; pythonw has no stderr


def main(arguments: Optional[List[str]] = None) -> int:
    """Run the script with these command-line arguments and return its exit code."""
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=layout)
    option = parser.add_mutually_exclusive_group().add_argument
    option("--verify", action="store_true", help="re-hash the archive; no download")
    option("--test-notifications", action="store_true", help="send a test over each channel")
    options = parser.parse_args(arguments)
    complaint = load_settings()
    if complaint:
        write_out(sys.stderr, f"{complaint}\n")
        return 2
    start_log()
    if options.test_notifications:
        outcome = outcome_of(try_channels)  # which has told people itself
        (log.error if outcome.code else log.info)(outcome.text)
    else:
        outcome = outcome_of(verify if options.verify else monthly_run)
        if outcome.text:
            tell(outcome)
    return outcome.code


def command() -> str:
    """Return the command that does again what this process does."""
    quote = '"{}"'.format if os.name == "nt" else shlex.quote
    again = " ".join(map(quote, [sys.executable, SCRIPT, *sys.argv[1:]]))
    settings = path_from_here("settings.env")  # which the README has cron read, too
    return f"(set -a; . {quote(settings)}; {again})" if exists(settings) else again


# ---- Reading the settings -----------------------------------------------------------------------


def load_settings() -> str:
    """Give each setting its value, from the environment or here; return what is wrong, or ""."""
    # A setting is a global variable of its name, so that it can be edited as the constant it is.
    settings = globals()
    unknown = {name for name in os.environ if name.startswith("LUMIERE_")}
    for names, pattern, value_of, wanted in RULES:
        for name in names.split():
            unknown.discard(f"LUMIERE_{name}")
            text = os.environ.get(f"LUMIERE_{name}", "").strip()
            value = text or str(settings[name])
            try:
                if not re.fullmatch(pattern, value):
                    raise ValueError
                settings[name] = value and value_of(value)
            except ValueError:
                return f"{'LUMIERE_' if text else ''}{name} must be {wanted}."
    if unknown:
        return f"{min(unknown)} is no setting."
    if [SMTP_URL, EMAIL_FROM, EMAIL_TO].count("") in (1, 2):
        return "SMTP_URL, EMAIL_FROM and EMAIL_TO must be set together."
    return ""


def web_url(url: str) -> str:
    """Return an address of a server as it is; raises ValueError at a host or port that can't be."""
    parts = urlsplit(url)
    if parts.port == 0 or not re.fullmatch("[a-z0-9_.:-]+", parts.hostname or ""):
        raise ValueError
    return url


def addresses(text: str) -> str:
    """Return email addresses with their domains in ASCII, as DNS has them; raises ValueError."""
    text = readable(text).rstrip(", ")
    for _, one in getaddresses([text]):
        if not re.fullmatch(r"[^\s@]+@[^\s@]+", one):
            raise ValueError
    return re.sub(r"(?<=@)[^@\s,>]+", lambda found: found.group().encode("idna").decode(), text)


def path_from_here(path: str) -> str:
    """Return a path that is absolute; a relative one starts from the script's folder."""
    os.fsencode(path)  # raises a ValueError if the system can't have such a name
    return join(dirname(SCRIPT), os.path.expanduser(path))


def readable(text: str) -> str:
    """Return a text with its letters beyond ASCII, which Python 3.6 under cron leaves undecoded."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


URL = "https?://[!-~]+"
SECONDS = r"[0-9]{1,6}(\.[0-9]{1,6})?"
# Names, what their text must look like, what turns it into a value, and what to ask for.
RULES: Any = [
    ("DATA_API_URL COUNTRY_CODE_API_URL", URL, web_url, "an http(s):// address"),
    ("HEALTHCHECKS_URL WEBHOOK_URL", f"({URL})?", web_url, "an http(s):// address"),
    ("SMTP_URL", "(smtps?://[^/]+/?)?", web_url, "an smtp(s):// address, with %2F for a / in it"),
    ("EMAIL_FROM EMAIL_TO", r"[^;\r\n]*", addresses, "an email address, or several with commas"),
    ("STORAGE_DIR LAST_CHECKSUM_FILE LOG_FILE", ".+", path_from_here, "a path, best in ASCII"),
    ("LOG_LEVEL", "(?i)DEBUG|INFO|WARNING|ERROR|CRITICAL", str.upper,
     "DEBUG, INFO, WARNING, ERROR or CRITICAL"),
    ("ARCHIVE_FILENAME_PREFIX", "([A-Za-z0-9_-][A-Za-z0-9_. -]{0,99})?", str,
     "at most 100 letters, digits, _ and -, and after the first also dots and spaces"),
    ("CHUNK_SIZE ATTEMPTS", "[1-9][0-9]{0,8}", int, "a whole number from 1 to 999999999"),
    ("CONNECT_TIMEOUT READ_TIMEOUT MAX_RUNTIME", f"(?![0.]+$){SECONDS}", float,
     "a number of seconds above 0 and below 1000000"),
    ("RETRY_DELAY", SECONDS, float, "a number of seconds below 1000000"),
    ("STALE_DAYS", "[0-9]{1,5}", int, "a whole number of days below 100000"),
]  # fmt: skip

# ---- Signals, and how a run ends ----------------------------------------------------------------

# - Ctrl-C, SIGTERM, a hang-up and the alarm, which comes after MAX_RUNTIME, end the run: stop()
#   raises Stopped. From then on the first three do nothing, so that they can't disturb the ending.
# - Stopped is lost if a destructor is at work just then, or if another exception takes its place.
#   So an alarm comes 10 s later, and every 10 s, and raises it again, until the run has ended.
# - From a dataset's publication on, or else when outcome_of()'s job ends, all four stay ignored.
# - A signal that was ignored when the script started (by nohup, for example) stays ignored.
# - Windows has no alarm; there the Task Scheduler ends a run that takes too long.

NAMES = ("SIGINT", "SIGTERM", "SIGHUP")  # of which Windows lacks the last
SIGNALS = [s for s in signal.Signals if s.name in NAMES and signal.getsignal(s) != signal.SIG_IGN]


class Stopped(BaseException):
    """A signal ends the run; args: words and exit code. urllib3 would swallow an Exception."""


# What stop() has raised, if it has. outcome_of() finds it here if another error took its place. It
# also stays alive here: freeing it, Python would close what its traceback holds, which can hang.
stopped: List[Stopped] = []


def on_signals(handler: Any, seconds: float = 0) -> None:
    """Give the signals a handler, and let the alarm come in so many seconds; with 0, never."""
    for number in SIGNALS:
        signal.signal(number, handler)
    if os.name != "nt":  # Windows has no alarm
        signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, seconds, 10)


def take_no_signals() -> None:
    """Keep signals from this thread: they must wake the main one, which alone heeds them."""
    if os.name != "nt":  # where no other thread gets any
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.Signals)


def stop(number: int, _frame: Any) -> None:
    """Handle a signal: end the run."""
    if stopped and number in SIGNALS:  # it must not disturb the ending
        return
    on_signals(stop, 10)
    left = "the archive is as it was, and no temporary file is left"
    reason = Stopped(f"Not done in MAX_RUNTIME, {MAX_RUNTIME:g} s; you can raise that; {left}", 1)
    if number in SIGNALS:
        reason = Stopped(f"Interrupted by {signal.Signals(number).name}; {left}", 128 + number)
    if not stopped:  # else this is the alarm, which raises the first reason again
        stopped.append(reason)
    raise stopped[0]


def outcome_of(job: Callable[[], Outcome]) -> Outcome:
    """Do a job and return its outcome, whatever ends it; signals do nothing from then on."""
    code = 1
    try:
        try:
            return job()
        finally:  # so that no signal disturbs what follows
            on_signals(signal.SIG_IGN)
    except Stopped:  # from the job, or from within finally; its words are in stopped[0]
        on_signals(signal.SIG_IGN)
    except Failure as failure:
        text = str(failure)
    except OSError as error:
        text = f"Could not go on in {STORAGE_DIR}: {in_words(error)}; no dataset was damaged. "
        text += "If it lasts, ask this machine's administrator"
    except Exception as error:  # whose own text may hold a secret
        last = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{basename(last.filename)}, line {last.lineno}"
        text = f"An unforeseen fault in {where}; no dataset was damaged; {REPORT}"
    if stopped:  # that is why the run ends, even if another error has taken its place
        text, code = stopped[0].args
    text += f". To try again: {command()}"
    return Outcome(code, text, page="/fail", subject="the archiver failed")


# ---- The log, and what people see ---------------------------------------------------------------

log = logging.getLogger("data_collect")  # not the root: urllib3's DEBUG lines hold whole addresses


class Lines(logging.Handler):
    """Writes log lines: to stderr, or another file."""

    stream: Any = sys.stderr

    def emit(self, record: logging.LogRecord) -> None:
        write_out(self.stream, f"{self.format(record)}\n")


console = Lines("ERROR")


def start_log() -> None:
    """Open the log; on a terminal show it there, too, and elsewhere only errors."""
    sys.unraisablehook = lambda *_: None  # else Python complains of what a signal left half-made
    layout = logging.Formatter("%(asctime)s - %(levelname)s - %(message)s")
    if WATCHED:
        console.setFormatter(layout)
        console.setLevel("DEBUG" if LOG_LEVEL == "DEBUG" else "INFO")
    log.setLevel("DEBUG")
    log.addHandler(console)
    try:
        file = Lines(LOG_LEVEL)
        file.stream = open(LOG_FILE, "ab")  # noqa: SIM115
        file.setFormatter(layout)
        log.addHandler(file)
    except OSError as error:
        warn(f"The log {LOG_FILE} can't be opened: {in_words(error)}.")


def write_out(stream: Any, text: str) -> None:
    """Write to a file at once, in UTF-8; what becomes of it can't hurt the run."""
    with suppress(OSError, AttributeError):  # of a stream that is closed, or is None
        os.write(stream.fileno(), readable(text).encode())


# ---- Files --------------------------------------------------------------------------------------

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

ENCODING = (sys.getfilesystemencoding(), "surrogateescape")  # of names, and so of the lists
MD5: Any = hashlib.md5
if sys.version_info >= (3, 9):  # a system in FIPS mode refuses it unless no security hangs on it
    MD5 = functools.partial(hashlib.md5, usedforsecurity=False)


@contextmanager
def archive_locked() -> Iterator[None]:
    """Work in the archive, under its lock, which dies with the process; raises Failure, OSError."""
    os.makedirs(STORAGE_DIR, exist_ok=True)
    os.chdir(STORAGE_DIR)  # from here on, a name without a folder is a file of the archive
    with open(".lock", "a") as file:  # never removed: two runs could then lock two files
        try:
            if sys.platform == "win32":
                msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # Windows has no flock
            else:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            text = f"Another run is at work in {STORAGE_DIR}; this one stopped and changed nothing"
            raise Failure(text) from None
        except OSError:  # ENOLCK, ENOSYS, EOPNOTSUPP
            text = f"The file system of {STORAGE_DIR} gives no lock; set STORAGE_DIR to another one"
            raise Failure(text) from None
        remove_leftovers()  # of a run that was killed
        try:
            yield
        finally:
            remove_leftovers()


def remove_leftovers() -> None:
    """Remove the temporary files."""
    for folder in (".", dirname(LAST_CHECKSUM_FILE)):
        with suppress(OSError):  # there is none; if it can't be removed, the next run tries again
            os.remove(join(folder, PART))


def dataset_names() -> List[str]:
    """List the datasets in the archive; raises OSError."""
    # isfile() alone would miss a file on a bad sector; is_file() alone fails at a circular link.
    files = [it.name for it in os.scandir() if it.is_file(follow_symlinks=False) or isfile(it)]
    return sorted(filter(re.compile(r"[^.].*\.json").fullmatch, files))


def read_text(path: str) -> str:
    """Read a small text file, "" if there is none, without NULs and CRs; raises OSError."""
    return contents_of(path).decode(*ENCODING).replace("\0", "").replace("\r", "\n")


def contents_of(path: str) -> bytes:
    """Read a small file, b"" if there is none; raises OSError."""
    with suppress(FileNotFoundError), open(path, "rb") as file:
        return file.read()
    return b""


def replace_text(path: str, text: str) -> None:
    """Give a small text file new contents, all at once and durably; raises OSError."""
    contents = text.encode(*ENCODING)
    if contents_of(path) != contents:  # raises, too, if what is there can't be read
        part = join(dirname(path), PART)
        with open(part, "wb") as file:
            file.write(contents)
            file.flush()
            sync(file.fileno())
        move(part, path)


def move(path: str, target: str) -> None:
    """Give a synced file its name, and wait until that is on the disk; raises OSError."""
    os.replace(path, target)
    for folder in {dirname(target) or ".", "."}:  # where it is now, and where a dataset was
        if os.name != "nt":  # Windows can't open a folder; NTFS keeps a journal of names
            descriptor = os.open(folder, os.O_RDONLY)
            sync(descriptor)
            os.close(descriptor)


def sync(descriptor: int) -> None:
    """Wait until a file's contents, or a folder's names, are on the disk; raises OSError."""
    try:
        os.fsync(descriptor)
        if sys.platform == "darwin":  # where fsync leaves them in the drive's cache
            fcntl.fcntl(descriptor, 51)  # F_FULLFSYNC, a name that fcntl has only since 3.9
    except OSError as error:
        # CIFS, sshfs and some NFS can't sync a folder, and need no such thing.
        if error.errno not in (errno.EINVAL, errno.EBADF, errno.ENOTSUP, errno.ENOSYS):
            raise


def blocks_of(path: str) -> Iterator[bytes]:
    """Yield a file in blocks; raises OSError."""
    with open(path, "rb") as file:
        yield from iter(lambda: file.read(65536), b"")


def utc(seconds: float) -> str:
    """Write seconds since 1970 as a time in UTC."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


if __name__ == "__main__":
    os._exit(main())  # without Python's own ending, which waits for what a signal left half-done
