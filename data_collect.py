#!/usr/bin/env python3
"""Keep every edition of the LUMIERE VOD dataset; made to be run by cron once a month.

A run locks the archive, asks for the country codes of the Council of Europe's members, downloads
all works in their catalogues and compares the MD5 with that of the last dataset. A new dataset is
checked to its last byte and published as archive/<prefix><newest presence_date>.json; then people
are told, over the channels that are set; then it is listed in editions.csv and MD5SUMS.

What stands in archive/*.json is a whole dataset, synced to disk, and never overwritten. What was
received whole but is no dataset is kept in archive/rejected/. A run that fails or is killed, at
any point, costs the next one nothing; and what it could no longer tell, the next one tells.

Settings are the constants at the top of the script; each can also be set in the environment, as
LUMIERE_ and its name: LUMIERE_STORAGE_DIR, for example.

Exit codes: 0 archived, unchanged or whole, 1 failed, 2 a wrong option or setting,
130, 143 or 129 interrupted by Ctrl-C, SIGTERM or SIGHUP.
"""

import argparse
import contextlib
import csv
import email.message
import email.policy
import email.utils
import errno
import functools
import hashlib
import html
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
from concurrent.futures import ThreadPoolExecutor
from threading import Thread
from types import SimpleNamespace
from typing import IO, Any, Callable, Dict, Iterable, Iterator, List, NamedTuple, Optional
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
STORAGE_DIR = "archive"  # a relative path is taken from this script's folder
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


def monthly_run() -> "Outcome":
    """Archive the API's dataset, tell people what came of it, and only then note it down."""
    heed_signals(stop, MAX_RUNTIME)
    with archive_locked():
        ledger = Ledger()
        outcome = outcome_of(lambda: archive_dataset(ledger))
        tell(outcome)
        ledger.save()
        if outcome.md5:
            replace_text(LAST_CHECKSUM_FILE, f"{outcome.md5}\n")
        return outcome._replace(told=True)


def archive_dataset(ledger: "Ledger") -> "Outcome":
    """Ask, receive, compare, check and publish; raises Failure, OSError or Stopped."""
    log.info(f"Run started; the archive is {STORAGE_DIR}.")
    with removed(PART):
        send("start", "")
        take_over(ledger)
        codes = persevere(ask_country_codes)
        warn_of_countries(codes, ledger)
        dataset = persevere(lambda: receive(codes))
        name = archived_as(dataset)
        if not name:
            return publish(dataset, ledger)
        if dataset.works:
            ledger.rows.setdefault(name, dataset._replace(path=name))  # of the user's own name
        warn_if_stale(ledger)
        return Outcome(0, "unchanged", f"Unchanged: the archive has it as {name}.", dataset.hash)


class Outcome(NamedTuple):
    """What came of a job."""

    code: int  # to exit with
    event: str  # whom it is for: see PINGS and SUBJECTS
    text: str  # a sentence for people
    md5: str = ""  # to be noted in LAST_CHECKSUM_FILE
    told: bool = False  # to people


class Failure(Exception):
    """What can be expected to go wrong, as a sentence without its full stop."""

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


def persevere(attempt: Callable[[], Any]) -> Any:
    """Try what time can cure up to ATTEMPTS times, and return the result; raises Failure."""
    number = 1
    delay = RETRY_DELAY
    while True:
        try:
            return attempt()
        except Failure as failure:
            # The longer one: a server that asks for a second at a time would soon use up all.
            wait = max(delay, failure.wait)
            if not failure.curable or number == ATTEMPTS or wait > MAX_RUNTIME:
                tried = f" (attempt {number} of {ATTEMPTS})" if number > 1 else ""
                raise Failure(f"{failure}; the archive is as it was{tried}") from None
            number += 1
            log.info(f"{failure}; attempt {number} of {ATTEMPTS} in {wait:.1f} s.")
        time.sleep(wait)
        delay *= 2


def ask_country_codes() -> List[str]:
    """Ask for the codes of the Council of Europe's members, sorted; raises Failure."""
    where = shown(COUNTRY_CODE_API_URL)
    try:
        countries = json.loads(ask("GET", COUNTRY_CODE_API_URL).content)
        codes = sorted({country["code"] for country in countries if country["is_coe"] is True})
        usable = re.fullmatch("[!-~]+( [!-~]+)*", " ".join(codes))
    except (ValueError, RecursionError):
        raise Failure(f"{where} did not answer with JSON", curable=True) from None
    except (KeyError, TypeError):  # no list, a key that is missing, or a code that is no text
        raise Failure(
            f"{where} did not answer with a list of countries: please report it"
        ) from None
    if not usable:
        raise Failure(f"{where} lists no member of the Council of Europe, or one without a code")
    log.info(f"{len(codes)} countries.")
    log.debug(usable.group())
    return codes


def ask(method: str, url: str, **more: Any) -> requests.Response:
    """Send a request and return its answer, which has status 200; raises Failure."""
    more.update(headers=HEADERS, timeout=(CONNECT_TIMEOUT, READ_TIMEOUT), hooks={"response": judge})
    try:
        response = requests.request(method, url, **more)
    except Failure:
        raise
    except Exception as error:  # of requests or, from behind a redirect, of urllib3
        curable = not isinstance(error, (ValueError, requests.TooManyRedirects))
        raise Failure(f"{shown(url)} could not be asked: {in_words(error)}", curable) from None
    # Without this, urllib3 1.26 takes a body that is shorter than its Content-Length for whole.
    response.raw.enforce_content_length = True
    return response


def judge(response: requests.Response, **_: Any) -> None:
    """Raise Failure at an answer, or a step on the way to it, that is of no use."""
    status = response.status_code
    target = response.headers.get("Location", "")
    # requests would follow these with a GET, which asks for something else.
    lost_post = status in (301, 302, 303) and response.request.method == "POST"
    if status == 200 or (response.is_redirect and target and not lost_post):
        return
    response.close()
    text = f"{shown(response.url)} answered with status {status}"
    if lost_post and target:
        text += f" and names '{shown(urljoin(response.url, target))}': set DATA_API_URL to it"
    wait = seconds_until(response.headers.get("Retry-After", ""))
    if wait > MAX_RUNTIME:
        text += f" and wants to be asked again in {wait / 86400:.1f} days"
    raise Failure(text, status in (408, 429) or status >= 500, wait)


def seconds_until(after: str) -> float:
    """Read a Retry-After header, seconds or a date (RFC 9110, 10.2.3); 0 where it is neither."""
    try:
        if re.fullmatch("[0-9]+", after):
            return float(after[:9])
        return email.utils.parsedate_to_datetime(after).timestamp() - time.time()
    except (TypeError, ValueError, LookupError, ArithmeticError):  # as nonsense has it
        return 0


def shown(url: str) -> str:
    """Return an address without the user, password and query that it may hold."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


# ---- Receive a dataset --------------------------------------------------------------------------

PART = ".lumiere.part"  # the hidden file in which contents grow until they are given their name


def receive(codes: List[str]) -> "Edition":
    """Download a dataset and check it, unless it is the last one and the archive has it; raises
    Failure, OSError.
    """
    with open(PART, "wb") as file:
        dataset = download(codes, file)
        if dataset.hash == read_text(LAST_CHECKSUM_FILE).strip().lower():
            for name in dataset_names():
                if size_of(name) == dataset.bytes:
                    return dataset._replace(path=name)
            log.warning("The last dataset was missing in the archive; it is archived again.")
        sync(file.fileno())
    try:
        return dataset.counted(check(PART))
    except Failure as failure:
        kept = reject(dataset.hash, failure.curable)
        text = f"The answer of {dataset.source} is {failure}; it is kept as {kept}"
        raise Failure(text, failure.curable) from None


def download(codes: List[str], file: IO[bytes]) -> "Edition":
    """Stream all works into a file, and return what is known of them; raises Failure, OSError."""
    log.info("Asking for their works; the first byte may take minutes.")
    question = {**json.loads(QUESTION), "catalogs_countries": codes}
    md5 = MD5()
    started = time.monotonic()
    response = ask("POST", DATA_API_URL, json=question, stream=True)
    with response, ThreadPoolExecutor(1) as hasher:
        try:
            hashed = hasher.submit(md5.update, b"")
        except RuntimeError:
            raise Failure("This machine lets the script start no thread", True) from None
        for chunk in chunks_of(response):
            file.write(chunk)
            hashed.result()  # so that no more than two chunks are in memory
            hashed = hasher.submit(md5.update, chunk)
    size = file.tell()
    if not size:
        raise Failure(f"{shown(DATA_API_URL)} answered with nothing", curable=True)
    seconds = time.monotonic() - started
    rate = f"{seconds:.1f} s ({size / 1e6 / seconds:.1f} MB/s)"
    log.info(f"Received {size:,} bytes in {rate}, MD5 {md5.hexdigest()}.")
    return Edition(
        created=utc(time.time()),
        bytes=str(size),
        hash=md5.hexdigest(),
        countries=" ".join(codes),
        source=shown(DATA_API_URL),
        software=HEADERS["User-Agent"],
    )


def chunks_of(response: requests.Response) -> Iterator[bytes]:
    """Yield a body in chunks of about CHUNK_SIZE bytes, and show on a terminal how far it is;
    raises Failure where it breaks off.
    """
    length = response.headers.get("Content-Length", "")
    known = re.fullmatch("[1-9][0-9]{0,17}", length) and "Content-Encoding" not in response.headers
    size = 0
    started = shown_at = time.monotonic()
    try:
        for chunk in response.iter_content(CHUNK_SIZE):
            size += len(chunk)
            now = time.monotonic()
            if WATCHED and now > shown_at + 0.25:
                shown_at = now
                share = f", {size / int(length):.0%}" if known else ""
                rate = f"{size / 1e6:,.1f} MB, {size / 1e6 / (now - started):.1f} MB/s{share}"
                write_out(sys.stderr, f"\r{rate:<60}")
            yield chunk
    except Exception as error:  # requests 2.27 lets some of urllib3's own through
        text = f"The transfer from {shown(response.url)} broke off: {in_words(error)}"
        raise Failure(text, curable=True) from None
    finally:
        if WATCHED:
            write_out(sys.stderr, f"\r{'':60}\r")


def reject(md5: str, broken: bool) -> str:
    """Keep in archive/rejected what is no dataset, and return where; of those that are no whole
    JSON only the newest two, so that bad months can't fill the disk. Raises OSError.
    """
    os.makedirs("rejected", exist_ok=True)
    kept = os.path.join("rejected", f"{md5}.txt")
    others = [entry.path for entry in os.scandir("rejected") if broken and is_broken(entry.path)]
    for path in sorted(set(others) - {kept}, key=os.path.getmtime)[:-1]:
        os.remove(path)
    move(PART, kept)
    return os.path.join(STORAGE_DIR, kept)


# ---- Check a dataset ----------------------------------------------------------------------------

# What ijson must not come to see: brackets opened one after the other, since its memory grows with
# their square, to 25 GB for 100,000; and thousands of digits, at which its C backend can crash.
TOO_DEEP = re.compile(rb"[\[{]{1000}")
TOO_LONG = 1000
NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
NO_JSON = "not whole, well-formed JSON"
NEW_FORM = "; if its form is a new one, please report it"


class Contents(NamedTuple):
    """What a check finds in a dataset."""

    works: int
    presences: int
    undated: int  # presences without a usable presence_date
    date: str  # the newest presence_date


def check(path: str) -> Contents:
    """Read a file to its end and count what it holds. Raises OSError, and Failure unless it is one
    whole array of works with some presence_date.
    """
    log.debug(f"Checking with the {backend} backend of ijson.")
    first = first_byte(path)
    found = count(works_in(path))
    if not found.works or first != b"[":  # in an object, ijson would find the key "item"
        raise Failure("not an array of works" + NEW_FORM)
    if not found.date:
        raise Failure("an array of works without any usable presence_date" + NEW_FORM)
    return found


def is_broken(path: str) -> bool:
    """Tell whether a file is no whole JSON; raises OSError."""
    try:
        check(path)
    except Failure as failure:
        return failure.curable
    return False


def first_byte(path: str) -> bytes:
    """Return the first byte of a text that ijson can be trusted with; raises Failure, OSError."""
    first = b""
    for block in blocks_of(path):
        first = first or block.lstrip()[:1]
        if b"\v" in block or b"\f" in block:  # white space to ijson, not to JSON
            raise Failure(NO_JSON, curable=True)
        if TOO_DEEP.search(block.translate(None, NO_BRACKETS)):
            raise Failure("no dataset but brackets within brackets")
        if any(block[at : at + TOO_LONG].isdigit() for at in range(0, len(block), TOO_LONG)):
            raise Failure("no dataset but thousands of digits in a row")
    return first


def works_in(path: str) -> Iterator[Any]:
    """Yield the works of a dataset; raises OSError, and Failure where it stops being JSON."""
    # Without a line feed there, ijson's C backend forgives a text that begins behind the array.
    # It first reads 0 bytes, to learn their type.
    blocks = itertools.chain(blocks_of(path), [b"\n"])
    source = SimpleNamespace(read=lambda size: next(blocks, b"") if size else b"")
    try:
        yield from items(source, "item")
    except OSError:
        raise
    except Exception:  # JSONError or ValueError; ArithmeticError, SystemError at huge numbers
        raise Failure(NO_JSON, curable=True) from None


def count(works: Iterable[Any]) -> Contents:
    """Count works, presences, and presences without a usable date; find the newest date."""
    number = presences = undated = 0
    newest = ""
    for work in works:
        number += 1
        dates = dates_of(work)
        presences += len(dates)
        undated += dates.count("")
        newest = max([newest, *dates])
    return Contents(number, presences, undated, newest)


def dates_of(work: Any) -> List[str]:
    """List the day of each presence of a work, "" where it has none that is usable."""
    presences = work.get("presences") if isinstance(work, dict) else None
    if not isinstance(presences, list):
        return []
    dates = [item.get("presence_date") if isinstance(item, dict) else "" for item in presences]
    return [day_of(date) if isinstance(date, str) else "" for date in dates]


@functools.lru_cache(maxsize=1000)  # most are equal, and there are millions
def day_of(text: str) -> str:
    """Return the date part of an ISO 8601 date or date-time as YYYY-MM-DD; "" if it is none, or is
    more than a year ahead.
    """
    if not re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}([Tt ][0-9]{2}[0-9:.,]*[Zz0-9:+ -]*)?", text):
        return ""
    try:
        time.strptime(text[:10], "%Y-%m-%d")
    except ValueError:  # the 31st of February
        return ""
    return text[:10] if text < utc(time.time() + 366 * 86400) else ""


# ---- Publish a dataset --------------------------------------------------------------------------


def archived_as(dataset: "Edition") -> str:
    """Return the name of the archive's file with the same bytes, or ""; raises OSError."""
    for name in () if dataset.path else dataset_names():
        if size_of(name) == dataset.bytes and md5_of(name) == dataset.hash:
            return name
    return dataset.path


def publish(dataset: "Edition", ledger: "Ledger") -> Outcome:
    """Give a dataset that was received and checked its name in the archive; raises OSError."""
    kind = "New dataset"
    number = 0
    name = f"{ARCHIVE_FILENAME_PREFIX}{dataset.presence_date}.json"
    # A name that other contents once had stays theirs: editions.csv is the record of them.
    while exists(name) or ledger.rows.get(name, dataset).hash != dataset.hash:
        kind = f"Revised dataset for {dataset.presence_date}"
        number += 1
        name = f"{ARCHIVE_FILENAME_PREFIX}{dataset.presence_date}_{number}.json"
    described = dataset.compared(ledger.newest_before(dataset))
    pass_signals_over()  # what is published must be told
    move(PART, name)
    ledger.rows[name] = dataset._replace(path=name)
    return Outcome(0, "new", f"{kind}: {name}, {described}.", dataset.hash)


# ---- Note down what was archived ----------------------------------------------------------------

SUM = "[0-9a-fA-F]{32} [ *].{1,255}"  # a line of MD5SUMS
ROW = (  # of editions.csv
    r"[^/,]+\.json,\d{4}-\d\d-\d\d,[^,]+Z,\d+,[0-9a-f]{32},\d*,\d*,"
    r"[^,]*,.*,(lumiere-vod-archiver/[\d.]+)?"
)


class Edition(NamedTuple):
    """A row of editions.csv, as it stands there: what is known of a dataset, "" what is not."""

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

    def counted(self, found: Contents) -> "Edition":
        """Return the edition with what a check found in it."""
        if found.undated:
            log.warning(f"{found.undated:,} presences have no usable presence_date.")
        works, presences, _, date = map(str, found)
        return self._replace(presence_date=date, works=works, presences=presences)

    def compared(self, earlier: Optional["Edition"] = None) -> str:
        """Say how large it is beside an earlier one, and warn where a tenth or more is gone."""
        counts = []
        for what in ("works", "presences"):
            has = int(getattr(self, what))
            had = int(getattr(earlier or self, what))
            counts.append(f"{has:,} {what}" + (f" ({has - had:+,})" if earlier else ""))
            if has <= 0.9 * had:
                log.warning(f"There are {had - has:,} {what} fewer, a tenth or more of {had:,}.")
        return f"{int(self.bytes):,} bytes, {', '.join(counts)}, MD5 {self.hash}"


class Ledger:
    """The archive's lists, editions.csv and MD5SUMS, as they will be when people have been told."""

    def __init__(self) -> None:
        self.rows: Dict[str, Edition] = {}
        self.trouble: Optional[OSError] = None
        try:
            for line in read_text("editions.csv").split("\n")[:-1]:
                fields = next(csv.reader([line]), [])
                if re.fullmatch(ROW, ",".join(fields)):
                    self.rows[fields[0]] = Edition(*fields[:10])
        except OSError as error:
            self.trouble = error

    def newest_before(self, edition: Edition) -> Optional[Edition]:
        """Return the newest other edition that is not newer than this one, and was counted."""
        rows = [row for row in self.rows.values() if row.works and row.hash != edition.hash]
        rows = [row for row in reversed(rows) if row.presence_date <= edition.presence_date]
        return max(rows, key=lambda row: row.presence_date, default=None)

    def save(self) -> None:
        """Write the lists durably; raises OSError."""
        if self.trouble:  # what can't be read must not be replaced
            raise self.trouble
        if self.rows:
            table = io.StringIO()
            rows = [Edition._fields, *self.rows.values()]
            csv.writer(table, lineterminator="\n").writerows(rows)
            replace_text("editions.csv", table.getvalue())
        # Not what is left of a torn line: it names no file.
        lines = [
            line for line in read_text("MD5SUMS").split("\n") if re.fullmatch(f"#.*|{SUM}", line)
        ]
        lines = [line for line in lines if re.search(r"^#|\.json$", line) or exists(line[34:])]
        sums = "".join(f"{line}\n" for line in lines)
        for name, edition in self.rows.items():
            if name not in sums_in(sums) and exists(name):
                sums += f"{edition.hash}  {name}\n"
        replace_text("MD5SUMS", sums)


def take_over(ledger: Ledger) -> None:
    """List the datasets that no earlier run came to tell and list; raises OSError."""
    pattern = re.escape(ARCHIVE_FILENAME_PREFIX) + r"(\d{4}-\d\d-\d\d)(_\d+)?\.json"
    for name in [] if ledger.trouble else dataset_names():
        match = re.fullmatch(pattern, name)
        if match and name not in ledger.rows:
            try:
                ledger.rows[name] = edition_in(name, match.group(1))
            except OSError as error:
                log.warning(f"{name} can't be read and so not be listed: {in_words(error)}.")


def edition_in(name: str, date: str) -> Edition:
    """Find out about a dataset of which only its file is known; raises OSError."""
    edition = Edition(name, date, utc(os.path.getmtime(name)), size_of(name), md5_of(name))
    try:
        edition = edition.counted(check(name))
        late = "stood in the archive without a row in editions.csv, and gets one now"
        log.warning(f"{name} {late}: {edition.compared()}.")
    except Failure as failure:
        log.warning(f"{name} is no whole dataset: it is {failure}. It stays as it is.")
    return edition


def warn_of_countries(codes: List[str], ledger: Ledger) -> None:
    """Warn where other countries are asked for than for the edition before."""
    asked = [row.countries.split() for row in ledger.rows.values() if row.countries]
    before = set(asked[-1] if asked else codes)
    came = " ".join(sorted(set(codes) - before)) or "none"
    went = " ".join(sorted(before - set(codes))) or "none"
    if before != set(codes):
        text = f"{came} came, {went} went"
        log.warning(f"Other countries are asked for than for the edition before: {text}.")


def warn_if_stale(ledger: Ledger) -> None:
    """Warn where there has been nothing new for more than STALE_DAYS."""
    newest = max((row.created for row in ledger.rows.values()), default="")
    if STALE_DAYS and "" < newest < utc(time.time() - STALE_DAYS * 86400):
        log.warning(f"No new dataset since {newest}; three or four editions a year are usual.")


# ---- Verify the archive -------------------------------------------------------------------------


def verify() -> Outcome:
    """Hash what MD5SUMS lists; raises OSError, and Failure that names what is not whole."""
    heed_signals(stop, 0)
    os.chdir(STORAGE_DIR)
    names = dataset_names()
    sums = sums_in(read_text("MD5SUMS"))  # read later, so that it has all of the names
    for name in sorted(set(names) - set(sums)):
        log.warning(f"{name} is not listed in MD5SUMS.")
    troubles = list(filter(None, map(damage, sums, sums.values())))
    text = f"{len(sums) - len(troubles)} of {len(sums)} files listed in MD5SUMS are whole"
    if troubles or (not sums and (names or read_text(LAST_CHECKSUM_FILE))):
        raise Failure("; ".join([text, *troubles]))
    return Outcome(0, "", f"{text}.")


def damage(name: str, md5: str) -> str:
    """Say what is wrong with a file that should have this MD5, or ""."""
    try:
        found = md5_of(name)
    except OSError as error:
        return f"{name} is missing or unreadable: {in_words(error)}"
    return "" if found == md5 else f"{name} is damaged: its MD5 is {found}, in MD5SUMS {md5}"


def sums_in(text: str) -> Dict[str, str]:
    """Read the lines of an MD5SUMS as md5sum does: MD5 by file name."""
    return {line[34:]: line[:32].lower() for line in text.split("\n") if re.fullmatch(SUM, line)}


# ---- Tell people --------------------------------------------------------------------------------

TELL_TIMEOUT = 35  # seconds for all channels together: a mail server may take 30 to greet
# By kind of event: what follows Healthchecks' address (https://healthchecks.io/docs/http_api/),
# and the subject of the mail. Without one, they are not told, or neither mail nor webhook tells.
PINGS = {"start": "/start", "unchanged": "", "new": "", "fail": "/fail", "test": "/log"}
SUBJECTS = {"new": "new dataset", "fail": "the archiver failed"}


def tell(outcome: Outcome) -> None:
    """Tell what came of a job, and what looks wrong: in the log, over the channels and, for cron to
    mail it, on stdout; a failure the log shows on stderr.
    """
    log.log(logging.ERROR if outcome.code else logging.INFO, outcome.text)
    lines = [f"WARNING: {warning}" for warning in console.warnings]
    console.warnings.clear()
    console.shown = min(console.shown, logging.WARNING)  # of what comes now nobody else is told
    subject = SUBJECTS.get(outcome.event, "something looks wrong" if lines else "")
    if subject and not WATCHED:
        shown = lines if outcome.code else [outcome.text, *lines]
        write_out(sys.stdout, "".join(f"{line}\n" for line in shown))
    send(outcome.event, "\n".join([outcome.text, *lines]), subject)


def send(event: str, text: str, subject: str = "") -> Dict[str, str]:
    """Send a text over the channels that are set and meant for an event, webhook and mail only
    under a subject, in bounded time; return what went wrong by channel, or "".
    """
    ways: Dict[str, Callable[[], None]] = {}
    if HEALTHCHECKS_URL and event in PINGS:
        ways["Healthchecks"] = lambda: ping(PINGS[event], readable(text))
    if WEBHOOK_URL and subject:
        ways["webhook"] = lambda: call_webhook(readable(text))
    if SMTP_URL and subject:
        ways["email"] = lambda: send_mail(subject, readable(text))
    channels = [Channel(target=way, name=name, daemon=True) for name, way in ways.items()]
    deadline = time.monotonic() + TELL_TIMEOUT
    for channel in channels:
        try:
            channel.start()
        except RuntimeError:  # no thread can be had
            channel.run()
    for channel in channels:
        if channel.is_alive():
            channel.join(max(0, deadline - time.monotonic()))
        if channel.trouble:
            log.warning(f"The {channel.name} channel failed: {channel.trouble}.")
    return {channel.name: channel.trouble for channel in channels}


class Channel(Thread):
    """A text on its way, in a thread of its own: that may hang, and then dies with the run."""

    trouble = "it was not done in time"

    def run(self) -> None:
        """Send the text, and note what goes wrong, or ""."""
        try:
            super().run()
            self.trouble = ""
        except TIMEOUT:
            self.trouble = "there was no answer in time"
        except Exception as error:
            self.trouble = in_words(error)


def try_channels() -> Outcome:
    """Send a test over each channel that is set, and say for each whether it went."""
    heed_signals(stop, 0)
    text = "This is a test of the LUMIERE VOD archiver's notifications."
    troubles = send("test", text, "test")
    console.warnings.clear()  # of which people are told now
    for name, trouble in troubles.items():
        write_out(sys.stdout, f"{name}: {trouble or 'sent'}.\n")
    if not troubles:
        return Outcome(2, "", "No channel is set: see HEALTHCHECKS_URL, WEBHOOK_URL and SMTP_URL.")
    sent = list(troubles.values()).count("")
    return Outcome(int(sent < len(troubles)), "", f"{sent} of {len(troubles)} channels work.")


# ---- Channels -----------------------------------------------------------------------------------


def ping(end: str, text: str) -> None:
    """Tell Healthchecks, in three attempts; raises Failure or RequestException."""
    parts = urlsplit(HEALTHCHECKS_URL)
    url = parts._replace(path=parts.path.rstrip("/") + end).geturl()
    for _ in range(2):
        with contextlib.suppress(Exception):
            return post(url, data=text.encode())
        time.sleep(1)
    return post(url, data=text.encode())


def call_webhook(text: str) -> None:
    """Tell a webhook, in the words of Slack, Mattermost and Discord; raises what post() does."""
    text = f"LUMIERE VOD archiver on {machine()}: {text}"[:2000]
    slack = re.sub("&[a-z]*$", "", html.escape(text, quote=False)[:2000])
    post(WEBHOOK_URL, json={"text": slack, "content": text})


def post(url: str, **body: Any) -> None:
    """POST to an address and expect a good answer; raises Failure or RequestException."""
    body.update(headers=HEADERS, timeout=5, allow_redirects=False, stream=True)
    with requests.post(url, **body) as response:
        if not 200 <= response.status_code < 300:
            raise Failure(f"it answered with status {response.status_code}")
        start = next(response.iter_content(99), b"")
    if start in (b"OK (not found)", b"OK (rate limited)"):  # so Healthchecks, with status 200
        raise Failure(f"it answered '{start.decode()}'")


def send_mail(subject: str, text: str) -> None:
    """Send an email to all of EMAIL_TO; raises Failure, SMTPException or OSError."""
    message = email.message.EmailMessage(email.policy.SMTP)
    message["Subject"] = f"LUMIERE VOD: {subject} ({machine()})"
    message["From"] = EMAIL_FROM
    message["To"] = EMAIL_TO
    message["Date"] = email.utils.formatdate()
    message["Message-ID"] = email.utils.make_msgid(domain="lumiere-vod-archiver")
    message.set_content(text)
    server = mail_server()
    try:
        refused = server.send_message(message)
    except smtplib.SMTPRecipientsRefused as error:  # all of them
        refused = error.recipients
    with contextlib.suppress(OSError):  # what was accepted, is
        server.quit()
    if refused:
        said = [f"{to} was refused: {answer(*why)}" for to, why in refused.items()]
        raise Failure("; ".join(said))


def mail_server() -> smtplib.SMTP:
    """Connect to SMTP_URL, with TLS where it can be had, and log in; raises like send_mail()."""
    parts = urlsplit(SMTP_URL)
    context = ssl.create_default_context()
    # By default the machine's own name is looked up, at a name server that may hang.
    more: Any = {"host": parts.hostname, "local_hostname": "[127.0.0.1]", "timeout": TELL_TIMEOUT}
    server: smtplib.SMTP
    if parts.scheme == "smtps":
        server = smtplib.SMTP_SSL(port=parts.port or 465, context=context, **more)
    else:
        server = smtplib.SMTP(port=parts.port or 587, **more)
        server.ehlo()
        if server.has_extn("starttls"):
            server.starttls(context=context)
    if parts.username:
        if not isinstance(server.sock, ssl.SSLSocket):
            raise Failure("no TLS is offered, and no password is sent without it")
        server.login(unquote(parts.username), unquote(parts.password or ""))
    return server


def answer(code: int, text: Any) -> str:
    """Return what a mail server said, in one line and without the password."""
    line = " ".join(str(text, "utf-8", "replace").split())
    return f"{code} {line}".replace(unquote(urlsplit(SMTP_URL).password or "\n"), "***")


def machine() -> str:
    """Return this machine's name."""
    return readable(socket.gethostname())


# ---- Words for people ---------------------------------------------------------------------------

TIMEOUT = (requests.Timeout, socket.timeout, TimeoutError)
HUNG_UP = (http.client.RemoteDisconnected, smtplib.SMTPServerDisconnected)
# What to say of the first of these kinds of error that is among the causes.
WORDS: Any = [
    (requests.exceptions.ProxyError, "the proxy in HTTPS_PROXY or HTTP_PROXY can't be reached"),
    (
        (ssl.SSLError, ssl.CertificateError),
        "there is no secure connection; where its certificate is not trusted or has expired, renew "
        "the environment with the README's first command, and look at this machine's clock",
    ),
    (requests.ConnectTimeout, "no connection came about in CONNECT_TIMEOUT, {CONNECT_TIMEOUT:g} s"),
    (TIMEOUT, "nothing came for READ_TIMEOUT, {READ_TIMEOUT:g} s"),
    (http.client.IncompleteRead, "it ended before all had come"),
    (requests.exceptions.ContentDecodingError, "it can't be unpacked"),
    (requests.TooManyRedirects, "it redirects in a circle"),
    (HUNG_UP, "it hung up"),
    (smtplib.SMTPNotSupportedError, "it takes no login, or no address beyond ASCII"),
    (http.client.HTTPException, "that is no HTTP"),
    (ValueError, "it redirects to an address that can't be"),
]


def in_words(error: BaseException) -> str:
    """Say in a person's words what went wrong; not in the error's, which may hold a secret."""
    if isinstance(error, Failure):
        return str(error)
    if isinstance(error, smtplib.SMTPResponseException):
        return f"it said {answer(error.smtp_code, error.smtp_error)}"
    causes: List[Any] = [error]
    while causes[-1].__cause__ or causes[-1].__context__:
        causes.append(causes[-1].__cause__ or causes[-1].__context__)
    for kinds, words in WORDS:
        if any(isinstance(cause, kinds) for cause in causes):
            return str(words.format(**globals()))
    last = causes[-1]
    if not isinstance(last, OSError) or not last.strerror:  # as requests raises it
        path = os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE")
        return f"the certificates in REQUESTS_CA_BUNDLE or CURL_CA_BUNDLE are not there: {path}"
    text = str(last.strerror) + (f": {last.filename}" if last.filename else "")
    if last.errno == errno.ENOSPC:
        text += "; make room" + (", perhaps in rejected/" if os.path.exists("rejected") else "")
    return text


# ---- Command line -------------------------------------------------------------------------------

HERE = os.path.dirname(os.path.realpath(__file__))
WATCHED = sys.stderr is not None and sys.stderr.isatty()  # by somebody at a terminal


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
        write_out(sys.stderr, complaint + "\n")
        return 2
    start_log()
    job = verify if options.verify else monthly_run
    if options.test_notifications:
        job = try_channels
    outcome = outcome_of(job)
    if job is try_channels:  # which says itself what came of it
        outcome = outcome._replace(event="")
    if not outcome.told:
        tell(outcome)
    return outcome.code


def outcome_of(job: Callable[[], Outcome]) -> Outcome:
    """Do a job, turn what ends it into an outcome, and pass signals over from then on."""
    try:
        try:
            outcome = job()
        except (Exception, Stopped) as error:
            outcome = ending(error)
        pass_signals_over()
    except Stopped as error:  # a signal that came behind the job
        pass_signals_over()
        outcome = ending(error)
    return outcome


def ending(error: BaseException) -> Outcome:
    """Turn what ended a job into its outcome."""
    text = str(error)
    if isinstance(error, OSError):
        text = f"Could not go on in {STORAGE_DIR}: {in_words(error)}; no dataset is damaged"
    elif not isinstance(error, (Failure, Stopped)):
        last = traceback.extract_tb(error.__traceback__)[-1]  # its own text may hold a secret
        text = f"Unexpected {type(error).__name__} in line {last.lineno}; please report it"
    quote = '"{}"'.format if os.name == "nt" else shlex.quote
    again = " ".join(map(quote, [sys.executable, os.path.realpath(__file__)]))
    return Outcome(getattr(error, "code", 1), "fail", f"{text}. To try again now: {again}.")


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
                settings[name] = value_of(value) if re.fullmatch(pattern, value) else int("")
            except ValueError:
                return f"{'LUMIERE_' if text else ''}{name} must be {wanted}."
    if unknown:
        return f"{min(unknown)} is no setting."
    if len({bool(SMTP_URL), bool(EMAIL_FROM), bool(EMAIL_TO)}) > 1:
        return "SMTP_URL, EMAIL_FROM and EMAIL_TO must be set together."
    return ""


def address(url: str) -> str:
    """Return an address as it is; raises ValueError at a host or port that can't be."""
    parts = urlsplit(url)
    if url and (parts.port == 0 or not re.fullmatch("[a-z0-9_.:-]+", parts.hostname or "")):
        raise ValueError(url)
    return url


def addresses(text: str) -> str:
    """Return email addresses with their domains in ASCII, as DNS has them; raises ValueError."""
    text = readable(text).rstrip(", ")
    for _, one in email.utils.getaddresses([text] if text else []):
        if not re.fullmatch(r"[^\s@]+@[^\s@]+", one):
            raise ValueError(one)
    return re.sub(r"(?<=@)[^@\s,>]+", lambda found: found.group().encode("idna").decode(), text)


def path_from_here(path: str) -> str:
    """Return a path that is absolute; a relative one starts from the script's folder."""
    return os.path.join(HERE, os.path.expanduser(path))


def readable(text: str) -> str:
    """Return a text as UTF-8, of which Python 3.6 under cron, for one, has decoded only ASCII."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


URL = "https?://[!-~]+"
SECONDS = r"[0-9]{1,6}(\.[0-9]+)?"
LEVELS = "DEBUG|INFO|WARNING|ERROR|CRITICAL"
# Names, what their text must look like, what turns it into a value, and what to ask for.
RULES: List[Any] = [
    ("DATA_API_URL COUNTRY_CODE_API_URL", URL, address, "an http(s):// address"),
    ("HEALTHCHECKS_URL WEBHOOK_URL", f"({URL})?", address, "an http(s):// address"),
    ("SMTP_URL", "(smtps?://[^/]+/?)?", address, "an smtp(s):// address, with %2F for a / in it"),
    ("EMAIL_FROM EMAIL_TO", r"[^;\r\n]*", addresses, "an email address, or several with commas"),
    ("STORAGE_DIR LAST_CHECKSUM_FILE LOG_FILE", ".+", path_from_here, "a path"),
    ("LOG_LEVEL", f"(?i){LEVELS}", str.upper, LEVELS.replace("|", " or ")),
    ("ARCHIVE_FILENAME_PREFIX", "([A-Za-z0-9_-][A-Za-z0-9_. -]{0,99})?", str,
     "at most 100 letters, digits, _ and -, and behind the first also dots and spaces"),
    ("CHUNK_SIZE ATTEMPTS", "[1-9][0-9]{0,8}", int, "a whole number from 1 to 999999999"),
    ("CONNECT_TIMEOUT READ_TIMEOUT MAX_RUNTIME", f"(?![0.]+$){SECONDS}", float,
     "a number of seconds above 0 and below 1000000"),
    ("RETRY_DELAY", SECONDS, float, "a number of seconds below 1000000"),
    ("STALE_DAYS", "[0-9]{1,5}", int, "a whole number of days below 100000"),
]  # fmt: skip

# ---- Signals ------------------------------------------------------------------------------------

# Ctrl-C, SIGTERM, a hang-up, and the alarm that MAX_RUNTIME sets: the first that comes ends the run
# by raising Stopped, and the others are passed over from then on, so that nothing disturbs the
# ending. They are also passed over once a dataset is published, and while people are told.
# A signal that was ignored when the script started (by nohup, for one) stays ignored.
# Python drops what is raised in a destructor. So the alarm raises Stopped again, every 10 s, until
# the run has ended. Windows has no alarm: there the Task Scheduler ends a run that takes too long.

SIGNALS = [getattr(signal, name, None) for name in ("SIGINT", "SIGTERM", "SIGHUP")]


class Stopped(BaseException):
    """A signal ends the run; not an Exception: urllib3 and logging swallow some of those."""

    def __init__(self, code: int, why: str) -> None:
        super().__init__(f"{why}; no temporary file is left")
        self.code = code


def heed_signals(handler: Any, seconds: float, at_alarm: Any = None) -> None:
    """Give the signals a handler, and the alarm, in so many seconds (with 0: never), its own."""
    for number in SIGNALS:
        if number and signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, handler)
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, at_alarm or handler)
        signal.setitimer(signal.ITIMER_REAL, seconds, 10)


def pass_signals_over() -> None:
    """Let signals do nothing from now on, nor the alarm."""
    heed_signals(pass_over, 0)


def pass_over(_number: int, _frame: Any) -> None:
    """Handle a signal: do nothing."""


def stop(number: int, _frame: Any) -> None:
    """Handle a signal: end the run."""
    stopped = Stopped(1, f"Not done in MAX_RUNTIME, {MAX_RUNTIME:g} s")
    if number in SIGNALS:
        stopped = Stopped(128 + number, f"Interrupted by {signal.Signals(number).name}")

    def raise_it(*_: Any) -> None:
        raise stopped

    heed_signals(pass_over, 10, raise_it)
    raise stopped


# ---- The log, and what people see ---------------------------------------------------------------

log = logging.getLogger("data_collect")  # not the root: urllib3's DEBUG lines hold whole addresses


class Console(logging.Handler):
    """Shows log lines on stderr, and keeps the warnings that people are to be told."""

    def __init__(self) -> None:
        super().__init__()
        self.warnings: List[str] = []
        self.shown = logging.ERROR  # and what is worse

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno == logging.WARNING:
            self.warnings.append(record.getMessage())
        if record.levelno >= self.shown:
            write_out(sys.stderr, self.format(record) + "\n")


console = Console()


def start_log() -> None:
    """Open the log; on a terminal show it there, too, and elsewhere only errors."""
    logging.raiseExceptions = False  # a full disk under the log is no reason for tracebacks
    layout = logging.Formatter("%(asctime)s - %(levelname)s - %(message)s")
    console.shown = getattr(logging, LOG_LEVEL) if WATCHED else logging.ERROR
    console.setFormatter(layout if WATCHED else None)
    console.warnings.clear()
    log.handlers[:] = [console]
    log.setLevel(logging.DEBUG)
    try:
        stream = open(LOG_FILE, "a", encoding="utf-8", errors="backslashreplace")  # noqa: SIM115
        file = logging.StreamHandler(stream)
        file.setFormatter(layout)
        file.setLevel(LOG_LEVEL)
        log.addHandler(file)
    except OSError as error:
        log.warning(f"The log {LOG_FILE} can't be opened: {in_words(error)}.")


def write_out(stream: Optional[IO[str]], text: str) -> None:
    """Write to stdout or stderr at once, if it is there; what becomes of it can't hurt the run."""
    if stream:
        with contextlib.suppress(OSError):
            os.write(stream.fileno(), readable(text).encode())


# ---- Files --------------------------------------------------------------------------------------

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

ENCODING = sys.getfilesystemencoding()  # of the names in MD5SUMS: not always UTF-8 under cron
MD5: Any = hashlib.md5
if sys.version_info >= (3, 9):  # a system in FIPS mode refuses it unless no security hangs on it
    MD5 = functools.partial(hashlib.md5, usedforsecurity=False)


@contextlib.contextmanager
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
            raise Failure(f"Another run is at work in {STORAGE_DIR}") from None
        except OSError:  # ENOLCK, ENOSYS, EOPNOTSUPP
            text = f"The file system of {STORAGE_DIR} gives no lock; set STORAGE_DIR to another one"
            raise Failure(text) from None
        yield


@contextlib.contextmanager
def removed(path: str) -> Iterator[str]:
    """Remove a hidden file that a killed run left, and remove it in the end; raises OSError."""
    with contextlib.suppress(FileNotFoundError):
        os.remove(path)
    try:
        yield path
    finally:
        with contextlib.suppress(OSError):  # then the next run does it
            os.remove(path)


def dataset_names() -> List[str]:
    """List the datasets in the archive; raises OSError."""
    files = [entry.name for entry in os.scandir(".") if entry.is_file()]
    return sorted(name for name in files if re.fullmatch(r"[^.].*\.json", name))


def exists(path: str) -> bool:
    """Tell whether there is something of that name; raises OSError where that can't be told."""
    with contextlib.suppress(FileNotFoundError):
        return bool(os.lstat(path))
    return False


def size_of(name: str) -> str:
    """Return a file's size in bytes, as editions.csv has it; raises OSError."""
    return str(os.path.getsize(name))


def read_text(path: str) -> str:
    """Read a small text file, "" if there is none; raises OSError."""
    try:
        with open(path, encoding=ENCODING, errors="surrogateescape") as file:
            return file.read().replace("\0", "")  # of which a torn file may be full
    except FileNotFoundError:
        return ""


def replace_text(path: str, text: str) -> None:
    """Give a small text file new contents, all at once and durably; raises OSError."""
    if read_text(path) != text:
        with removed(os.path.join(os.path.dirname(path), PART)) as part:
            with open(part, "wb") as file:
                file.write(text.encode(ENCODING, "surrogateescape"))
                file.flush()
                sync(file.fileno())
            move(part, path)


def move(path: str, target: str) -> None:
    """Give a synced file its name, and wait until that is on the disk; raises OSError."""
    os.replace(path, target)
    for folder in {os.path.dirname(target) or ".", os.path.dirname(path) or "."}:
        if os.name != "nt":  # Windows can't open a folder; NTFS keeps a journal of names
            descriptor = os.open(folder, os.O_RDONLY)
            try:
                sync(descriptor)
            finally:
                os.close(descriptor)


def sync(descriptor: int) -> None:
    """Wait until a file's contents, or a folder's names, are on the disk; raises OSError."""
    try:
        os.fsync(descriptor)
        if sys.platform == "darwin":  # where fsync leaves them in the drive's cache
            fcntl.fcntl(descriptor, getattr(fcntl, "F_FULLFSYNC", 51))
    except OSError as error:
        # CIFS, sshfs and some NFS can't sync a folder, and need no such thing.
        if error.errno not in (errno.EINVAL, errno.EBADF, errno.ENOTSUP, errno.ENOSYS):
            raise


def md5_of(path: str) -> str:
    """Return a file's MD5 in 32 hex digits; raises OSError."""
    md5 = MD5()
    for block in blocks_of(path):
        md5.update(block)
    return str(md5.hexdigest())


def blocks_of(path: str) -> Iterator[bytes]:
    """Yield a file in blocks; raises OSError."""
    with open(path, "rb") as file:
        yield from iter(lambda: file.read(65536), b"")


def utc(seconds: float) -> str:
    """Write seconds since 1970 as a time in UTC."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


if __name__ == "__main__":
    raise SystemExit(main())
