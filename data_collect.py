#!/usr/bin/env python3
# /// script
# requires-python = ">=3.6"
# dependencies = ["requests>=2.27.1,<3", "ijson>=3.1.4,<4"]
# ///
"""Keep every edition of the LUMIERE VOD dataset; made to be run by cron once a month.

A run downloads the current dataset and compares it with the archive, byte for byte. A new one is
checked from beginning to end and gets its name in archive/; none is ever overwritten. People are
told, over the channels that are set, and it is listed in editions.csv and MD5SUMS. An answer that
is not a dataset is kept in archive/rejected/. A run may be killed at any point and does no harm.

Settings are the constants at the top of the script; LUMIERE_<NAME> in the environment takes
precedence. With settings.env, as the README has it, a run and a check by hand:
  (set -a; . ./settings.env; .venv/bin/python data_collect.py)
  (set -a; . ./settings.env; .venv/bin/python data_collect.py --verify)

Exit codes: 0 archived, unchanged, all whole or all sent; 1 failed; 2 a wrong option or setting, or
no channel to test; 130, 143, 129 ended by Ctrl-C, SIGTERM, SIGHUP; 142 hung at the very end.
"""

import argparse
import csv
import decimal
import errno
import faulthandler
import filecmp
import functools
import hashlib
import io
import json
import logging
import os
import re
import signal
import smtplib
import socket
import ssl
import sys
import time
import traceback
from contextlib import suppress
from email.message import EmailMessage
from email.utils import formatdate, make_msgid, mktime_tz, parsedate_tz
from glob import glob
from os.path import dirname, exists, getmtime, getsize, join, lexists
from types import SimpleNamespace
from typing import IO, Any, Callable, Dict, Iterator, List, NamedTuple, Optional
from urllib.parse import unquote, urljoin, urlsplit

try:
    import requests.exceptions  # a stray requests.py beside this script has no .exceptions
    from ijson import backend, items
except Exception:  # the environment is gone, or a file beside the script has a package's name
    raise SystemExit(
        "The packages requests and ijson can't be loaded: run the repair command in this script's "
        "folder, python3 -m venv --clear .venv && .venv/bin/python -m pip install -r "
        "requirements.txt, and let no file there be called requests.py or ijson.py."
    ) from None

# ---- Settings: change them here, or set LUMIERE_<NAME> in the environment -----------------------
DATA_API_URL = "https://lumierevod.obs.coe.int/api/works"
COUNTRY_CODE_API_URL = "https://lumierevod.obs.coe.int/api/countries"
STORAGE_DIR = "archive"  # relative paths, here and in the next two, start from this script's folder
LAST_CHECKSUM_FILE = "last_checksum.txt"
LOG_FILE = "archiver.log"
LOG_LEVEL = "INFO"  # DEBUG, INFO, WARNING, ERROR or CRITICAL
ARCHIVE_FILENAME_PREFIX = "Complete_lumiere_COE_"
CHUNK_SIZE = 256 * 1024  # bytes to receive at a time, at most 64 MiB
CONNECT_TIMEOUT = 30.0  # seconds
READ_TIMEOUT = 600.0  # seconds without a byte: the first one may take minutes
MAX_RUNTIME = 6 * 3600.0  # seconds for the whole run
ATTEMPTS = 5  # for the country codes, and as many for the works
RETRY_DELAY = 60.0  # seconds before the second attempt, and twice as long each time after
STALE_DAYS = 270  # days without a new dataset until people are warned; 0: never
HEALTHCHECKS_URL = ""  # https://hc-ping.com/your-uuid, for example; empty: not used
WEBHOOK_URL = ""  # of Teams, Slack, Mattermost, Google Chat or Discord
SMTP_URL = ""  # smtp://relay.example.org:25, or smtps://user:password@host:465
EMAIL_FROM = ""
EMAIL_TO = ""  # one address, or several with commas between


# ---- One run ------------------------------------------------------------------------------------
# People hear of a dataset before it is listed, and its MD5 is noted last. So a run may be killed at
# any point: the next one tells of each dataset that has no row, and lists it.
def monthly_run() -> int:
    """Archive the API's dataset, tell people what came of it and list it; return the exit code."""
    lock_archive()
    read_lists()
    try:
        outcome = archive_dataset()
    except Exception as error:
        outcome = failed(error)
    # Signals are ignored from here on. If telling hangs, an alarm calls end_listed().
    set_signals(signal.SIG_IGN, end_listed)
    tell(outcome)
    note_down()
    return outcome.code


def archive_dataset() -> "Outcome":
    """Ask, download, compare, check and publish; raises Failure or OSError."""
    log.info(f"Run started; the archive is {STORAGE_DIR}.")
    send("", page="/start")  # without a subject: only a ping
    adopt()
    codes = retry(ask_country_codes)
    warn_of_countries(codes)
    dataset = retry(lambda: receive(codes))
    if dataset.path == PART:  # it is new, and has no name in the archive yet
        return publish(dataset)
    Run.current = dataset.hash
    warn_if_stale()
    return Outcome(0, f"Unchanged: the archive has this dataset as {dataset.path}.")


class Run:  # facts of this process's run, where a signal's handler finds them, too
    lock: Any = None  # the lock file's descriptor, once this process holds the archive's lock
    current: Optional[str] = None  # MD5 of the API's dataset, once the archive has it
    kept: Optional[str] = None  # the last whole answer that this run has added to rejected/


class Outcome(NamedTuple):  # what came of a job, and over which channels people are told
    code: int  # the exit code
    text: str  # a sentence for people
    page: Optional[str] = ""  # of Healthchecks: "/fail", "" for success; None: no ping
    subject: Optional[str] = None  # of a mail; None: no mail, no webhook, unless there is a warning


class Failure(Exception):
    """Something that can be expected to go wrong; its text is for people, without a full stop."""

    curable = False  # by time
    wait = 0.0  # seconds that the server asked for
    code = 1  # the exit code

    def __init__(self, text: str, **facts: Any) -> None:  # facts: curable, wait or code
        super().__init__(text)
        vars(self).update(facts)


# ---- Ask the API --------------------------------------------------------------------------------
HEADERS = {"User-Agent": "lumiere-vod-archiver/2.0", "Accept": "application/json"}
QUESTION = """{"id_type": "", "ids": [], "title": "", "directors": [], "work_types": [],
    "production_years": [], "production_countries": [], "catalogs": [], "catalogs_countries": %s,
    "business_models": ["FoD", "SVoD", "TVoD"]}"""
STATUSES = {  # what people are told about a status; 500 stands for all from there on
    403: ", as it refuses access: ask its operator",
    404: ", as it has no such page: try later; if it lasts, ask its operator for the new address",
    429: ", as it is asked too often",
    500: ", as it has trouble of its own",
}
REPORT = "please report it to whoever maintains this script"


def retry(attempt: Callable[[], Any]) -> Any:  # noqa: RET503, as the last returns or raises
    """Return what an attempt returns; where time can cure a failure, try ATTEMPTS times in all."""
    delay = RETRY_DELAY
    for number in range(1, ATTEMPTS + 1):
        try:
            return attempt()
        except Failure as failure:
            # A server that asks for one second each time must not use up all attempts in a moment.
            wait = max(delay, failure.wait)
            if not failure.curable or number == ATTEMPTS or wait > MAX_RUNTIME:
                tried = f" (attempt {number} of {ATTEMPTS}: try later)" if number > 1 else ""
                raise Failure(f"{failure}; the archive is as it was{tried}") from None
            log.info(f"{failure}; attempt {number + 1} of {ATTEMPTS} in {wait:.1f} s.")
        time.sleep(wait)
        delay *= 2


def ask_country_codes() -> List[str]:
    """Ask for the codes of the Council of Europe's members, sorted; raises Failure."""
    try:
        answer = json.loads(ask("GET", COUNTRY_CODE_API_URL).content)
        codes = sorted({country["code"] for country in answer if country["is_coe"] is True})
        usable = re.fullmatch("([!-~]{1,99} )+", f"{' '.join(codes)} ")
    except (ValueError, RecursionError):
        raise Failure(f"{redact(COUNTRY_CODE_API_URL)} gave no JSON", curable=True) from None
    except (KeyError, TypeError):  # a key is missing, or a code is not a string
        usable = None
    if not usable:
        raise Failure(f"{redact(COUNTRY_CODE_API_URL)} lists no usable country codes: {REPORT}")
    log.info(f"{len(codes)} countries.")
    return codes


def ask(method: str, url: str, **more: Any) -> requests.Response:
    """Send a request and return its answer, which has status 200; raises Failure."""
    more.update(headers=HEADERS, timeout=(CONNECT_TIMEOUT, READ_TIMEOUT))
    try:
        response = requests.request(method, url, hooks={"response": check_status}, **more)
    except (Failure, MemoryError):
        raise
    except Exception as error:  # of requests or, after a redirect, of urllib3
        curable = not isinstance(error, (ValueError, requests.TooManyRedirects))
        text = f"{redact(url)} could not be asked: {describe(error, url)}"
        raise Failure(text, curable=curable) from None
    # With stream=True the body is yet to come; urllib3 1.26 would take a cut body for whole.
    response.raw.enforce_content_length = True
    return response


def check_status(response: requests.Response, **_: Any) -> None:
    """Raise Failure unless an answer has status 200, or is a redirect that requests can follow."""
    status = response.status_code
    target = response.is_redirect and response.headers["Location"]
    # On 301 to 303, requests would ask the new address with a GET, which is another question.
    if status == 200 or (target and (status > 303 or response.request.method != "POST")):
        return
    reason = STATUSES.get(min(status, 500), "")
    after = response.headers.get("Retry-After", "")  # seconds or a date (RFC 9110, 10.2.3), in GMT
    wait = 0.0
    with suppress(Exception):  # without the header, or at nonsense, this raises: wait stays 0
        wait = float(after) if after.isdigit() else mktime_tz(parsedate_tz(after)) - time.time()  # type: ignore[arg-type]
    if target:  # a redirect gets here only after the POST, which asks DATA_API_URL
        new = redact(urljoin(response.url, target))
        reason = f" and names '{new}': set LUMIERE_DATA_API_URL to it in settings.env"
    text = f"{redact(response.url)} answered with status {status}{reason}"
    raise Failure(text, curable=status in (408, 429) or status >= 500, wait=wait)


def redact(url: str) -> str:
    """Return an address without query, user and password."""
    parts = urlsplit(url)  # user and password end at the last @, as a password may hold a "/"
    return f"{parts.scheme}://{(parts.netloc + parts.path).rpartition('@')[2]}"


# ---- Download and compare -----------------------------------------------------------------------
PART = ".lumiere.part"  # the hidden file in which contents grow until they get their name


def receive(codes: List[str]) -> "Edition":
    """Download a dataset, and check it if it is new. Its path is that of an equal file, or PART."""
    with open(PART, "wb") as file:
        dataset = download(codes, file)
        file.flush()
        filecmp.BUFSIZE = 2**18  # type: ignore[misc]  # by default 8 KiB, which takes twice as long
        for name in datasets():
            with suppress(OSError):  # a file that can't be read counts as damaged, in old_place()
                if filecmp.cmp(name, PART, shallow=False):
                    return dataset._replace(path=name)
        sync(file.fileno())
    return accept(dataset)


def download(codes: List[str], file: IO[bytes]) -> "Edition":
    """Stream all works to a file, as an Edition with no date or counts; raises Failure, OSError."""
    log.info("Asking for their works; the first byte may take minutes.")
    question = json.loads(QUESTION % json.dumps(codes))
    md5 = MD5()
    with ask("POST", DATA_API_URL, json=question, stream=True) as response:
        for chunk in chunks_of(response):
            file.write(chunk)
            md5.update(chunk)
    size = file.tell()
    if not size:
        raise Failure(f"{redact(DATA_API_URL)} answered with nothing", curable=True)
    log.info(f"Received {size:,} bytes, MD5 {md5.hexdigest()}.")
    origin = (" ".join(codes), redact(DATA_API_URL), HEADERS["User-Agent"])  # as Edition has them
    return Edition(PART, "", utc(time.time()), size, md5.hexdigest(), None, None, *origin)


def chunks_of(response: requests.Response) -> Iterator[bytes]:
    """Yield a body, and show on a terminal how far it is; raises Failure where it breaks off."""
    length = response.raw.length_remaining
    mb = 0.0
    started = time.monotonic()
    try:
        for chunk in response.iter_content(CHUNK_SIZE):
            mb += len(chunk) / 1e6
            if WATCHED:
                # raw.tell() counts what came over the wire, compressed or not, as the length does.
                share = f", {response.raw.tell() / length:.0%}" if length else ""
                rate = f"{mb / (time.monotonic() - started + 0.001):.1f} MB/s"
                write_out(sys.stderr, f"\r{mb:,.1f} MB, {rate}{share:<30}")
            yield chunk
    except Exception as error:  # of the transfer; requests 2.27 lets some of urllib3's through
        text = f"The transfer from {redact(response.url)} broke off after {mb:,.1f} MB"
        raise Failure(f"{text}: {describe(error)}", curable=True) from None
    finally:
        if WATCHED:
            write_out(sys.stderr, f"\r{'':60}\r")


# ---- Check what came ----------------------------------------------------------------------------
WHOLE = (b"[]", b"{}")  # the first and the last byte of a whole array or object
REPORT_IT = f"; if it comes again, {REPORT}, with the file"


def accept(answer: "Edition") -> "Edition":
    """Check an answer and return it; if it is not a dataset, keep it. Raises Failure, OSError."""
    try:
        return check(answer)
    except Failure as failure:
        whole = ends_of(PART) in WHOLE
        kept = f"rejected/{answer.hash}.{'json' if whole else 'txt'}"
        is_new = not exists(kept)
        move(PART, kept)
        # Of cut answers, keep the newest two; of whole ones, all but this run's earlier ones.
        with suppress(OSError):  # what can't be removed must not cost us this answer
            # An old version of this script gave whole answers this ending, too.
            cut = [path for path in glob("rejected/*.txt") if ends_of(path) not in WHOLE]
            for path in sorted(cut, key=getmtime)[:-2]:
                os.remove(path)
            if whole and is_new:
                if Run.kept:
                    os.remove(Run.kept)
                Run.kept = kept
        text = f"The answer of {answer.source} {failure}; it is kept as {join(STORAGE_DIR, kept)}"
        raise Failure(text, curable=failure.curable) from None


def check(edition: "Edition") -> "Edition":
    """Return an edition with what its file holds; raises OSError, or Failure: "is …"."""
    log.info(f"Checking {edition.path}, half a minute for each gigabyte.")
    log.debug(f"ijson has its {backend} backend.")
    works = presences = undated = 0
    newest = ""
    for work in works_in(edition.path):
        works += 1
        listed = work.get("presences") if isinstance(work, dict) else None
        for presence in listed if isinstance(listed, list) else []:
            presences += 1  # a presence: the work is in a catalogue, since presence_date
            try:
                newest = max(newest, day_of(presence["presence_date"]))
            except (KeyError, TypeError, ValueError):  # it is not an object, or has no such date
                undated += 1
    if not works:
        raise Failure("is an empty array, without any work", curable=True)
    if not newest:
        raise Failure(f"is an array of works without any usable presence_date{REPORT_IT}")
    if undated:
        warn(f"{undated:,} presences have no usable presence_date.")
    return edition._replace(presence_date=newest, works=works, presences=presences)


def works_in(path: str) -> Iterator[Any]:
    """Yield the works of a JSON array; raises Failure where a file isn't one, OSError."""
    ends = ends_of(path)
    if ends not in WHOLE:
        raise Failure("is not whole, as it was cut short or is a web page", curable=True)
    if ends == b"{}":  # "item" below means an array's elements, but would fit a key "item", too
        raise Failure(f"is not an array of works{REPORT_IT}")
    blocks = legible_blocks(path)
    # ijson takes blocks of any size. It asks for 0 bytes first, to see whether bytes come or text.
    source = SimpleNamespace(read=lambda size: next(blocks, b"") if size else b"")
    problem = "looks whole but is not JSON: keep the file, and report it to the Observatory"
    try:
        yield from items(source, "item")
        return
    except OSError:
        raise
    except MemoryError:
        problem = f"needs more than 1 GiB of memory to be read{REPORT_IT}"
    except Exception:  # JSONError or ValueError; the pure-Python backend has others at odd bytes
        pass
    raise Failure(problem)  # outside of `except`, or the error would keep ijson's memory in use


def ends_of(path: str) -> bytes:
    """Return the first and the last byte of a text, white space and byte order mark aside."""
    first = last = b""
    for block in blocks_of(path):  # all of them: the white space may be long
        text = block.strip(b" \t\r\n\xef\xbb\xbf")
        first = first or text[:1]
        last = text[-1:] or last
    return first + last


def legible_blocks(path: str) -> Iterator[bytes]:
    r"""Yield a text in blocks, with each \ud made \u0; raises OSError."""
    # JSON allows half a surrogate pair, as in "\udc00"; ijson doesn't. Only dates count here.
    tail = b"  "  # the last two bytes wait for the next block, which may bring the d
    for block in blocks_of(path):
        text = (tail + block).replace(b"\\ud", b"\\u0").replace(b"\\uD", b"\\u0")
        yield text[:-2]  # never empty: ijson would take that for the end
        tail = text[-2:]
    yield tail + b"\n"  # else ijson's C backend accepts [1]"x, with a string begun behind the array


@functools.lru_cache(maxsize=1000)  # most are equal, and there are millions
def day_of(text: str) -> str:
    """Return the day of an ISO 8601 date or date-time, at most a year ahead; raises ValueError."""
    date = re.fullmatch(r"(?a)(\d{4}-\d\d-\d\d)([Tt ]\d\d[\d:.,]*[Zz\d:+ -]*)?", text)
    if not date or time.strptime(date[1], "%Y-%m-%d") > time.gmtime(time.time() + 366 * 86400):
        raise ValueError
    return date[1]


# ---- Publish a dataset, and compare it with earlier editions ------------------------------------
def publish(dataset: "Edition") -> Outcome:
    """Give a dataset that was downloaded and checked its name in the archive; raises OSError."""
    set_signals(signal.SIG_IGN)  # from here on people must hear of it; if it hangs, an alarm kills
    stem = f"{ARCHIVE_FILENAME_PREFIX}{dataset.presence_date}"
    name = old_place(dataset) or free_path(stem, ".json", [taken for taken, _ in known])
    dataset = dataset._replace(path=name)
    revised = re.search(r"_\d+\.json$", name)
    kind = f"Revised dataset for {dataset.presence_date}" if revised else "New dataset"
    text = f"{kind}: {name}, {compared(dataset)}."
    move(PART, name)  # the name is free, and the lock is held
    Run.current = dataset.hash
    if name not in editions:  # the name of old_place() keeps its row, which may say more
        add_row(dataset)
    return Outcome(0, text, subject="new dataset")


def old_place(dataset: "Edition") -> Optional[str]:
    """Return the name under which a dataset was lost, or damaged and now moved; warn of it."""
    names = [name for name, md5 in known if md5 == dataset.hash]  # no file has it, as receive() saw
    name = next(filter(is_dataset, names), None)  # skips "The last dataset", which is no file name
    if name and lexists(name):
        try:
            kept = free_path(f"rejected/{name}.damaged", "")
            move(name, kept)
            warn(f"{name} was damaged; it is archived again. The damaged file is now {kept}.")
        except OSError as error:
            warn(f"{name} is damaged and can't be moved: {describe(error)}. It is archived again.")
            return None
    elif names:
        warn(f"{names[0]} was missing from the archive; it is archived again.")
    return name


def compared(edition: "Edition") -> str:
    """Describe an edition and how it differs from the one before; warn if a tenth is gone."""
    rows = [row for row in editions.values() if row.works and row.hash != edition.hash]
    # The one before has the latest date up to this edition's, or else the latest date of all.
    rows.sort(key=lambda row: (row.presence_date <= edition.presence_date, row.presence_date))
    text = f"{edition.bytes:,} bytes"
    for what in ("works", "presences"):
        has = getattr(edition, what)
        text += f", {has:,} {what}"
        for before in rows[-1:]:  # one, or none
            had = getattr(before, what)
            text += f" ({has - had:+,})"
            if has <= 0.9 * had:
                warn(f"{edition.path} has fewer {what} by a tenth or more: {has:,}, not {had:,}.")
    return f"{text}, MD5 {edition.hash}"


def warn_of_countries(codes: List[str]) -> None:
    """Warn where other countries are asked for than for the edition before."""
    lists = [row.countries for row in editions.values() if row.countries]
    changed = lists and {*codes} ^ {*lists[-1].split()}
    if changed:
        changes = [f"{code} {'came' if code in codes else 'went'}" for code in sorted(changed)]
        warn(f"Other countries than for the edition before: {', '.join(changes)}.")


def warn_if_stale() -> None:
    """Warn where there has been nothing new for more than STALE_DAYS."""
    newest = max((row.created for row in editions.values()), default="")
    if STALE_DAYS and "" < newest < utc(time.time() - STALE_DAYS * 86400):
        warn(f"No new dataset since {newest}; three or four editions a year are usual.")


# ---- List what is archived ----------------------------------------------------------------------
class Edition(NamedTuple):  # what is known of a dataset: a row of editions.csv
    path: str  # a file name
    presence_date: str  # the newest, YYYY-MM-DD, or empty
    created: str  # when the download ended, in UTC
    bytes: int
    hash: str  # MD5
    works: Optional[int] = None  # None or 0: not counted yet, or it is not a whole dataset
    presences: Optional[int] = None
    countries: str = ""  # the codes that were asked for, with spaces between
    source: str = ""
    software: str = ""


# A row: the ten fields of Edition, whatever the header is; fields after them are somebody's own.
# A regex reads it, and not csv, so that a line which somebody has spoiled costs only itself.
ROW = (
    r"(?ma)^([\w-][^/\\,\n]*\.json),(\d{4}-\d\d-\d\d|),(\d{4}-[^,\n]*Z),(\d{1,15}),([0-9a-f]{32}),"
    r"(\d{1,15}|),(\d{1,15}|),([^,\n]*),([^,\n]*),([^,\n]*)(?:,.*)?$"
)
SUM = r"(?m)^([0-9a-fA-F]{32}) [ *]([^\0\n]{1,255})$"  # a line of MD5SUMS, much as md5sum reads it

# What the lists say, by file name, and in `added` the rows to add once people are told. These
# are globals, as a process has one archive, and end_listed() needs them in the middle of a run.
editions: Dict[str, Edition] = {}
md5sums: Dict[str, str] = {}
unreadable: List[str] = []  # names of lists
known: List[Any] = []  # (name, MD5) of each file that is or was there
added = io.StringIO()


def read_lists() -> None:
    """Read editions.csv, MD5SUMS and last_checksum.txt, as far as they can be read."""
    md5sums.update((name, md5.lower()) for md5, name in read_list("MD5SUMS", SUM))
    for name, day, at, size, md5, works, presences, *origin in read_list("editions.csv", ROW):
        row = Edition(name, day, at, int(size), md5, int(works or 0), int(presences or 0), *origin)
        # Of several rows for a name, the one with the MD5 of MD5SUMS counts, or else the last.
        if name not in editions or editions[name].hash != md5sums.get(name):
            editions[name] = row
    known.extend((row.path, row.hash) for row in editions.values())
    known.extend(md5sums.items())
    with suppress(OSError):  # it only helps old_place(), and note_down() writes it anew
        last = contents_of(LAST_CHECKSUM_FILE).strip().lower()
        known.append(("The last dataset", last))  # instead of its name, for old_place() to say


def read_list(name: str, pattern: str) -> Any:
    """Find a list's lines by their pattern; warn of all other lines."""
    text = ""
    try:
        text = re.sub("\r\n?", "\n", contents_of(name)).replace('"', "")  # spreadsheets add quotes
    except OSError as error:
        warn(f"{name} can't be read: {describe(error)}. It stays as it is.")
        unreadable.append(name)
    found = re.findall(pattern, text)
    # All lines but remarks, empty lines and the header
    others = len(re.findall(r"(?m)^(?!\s*(#|$)|\W*path[,;\t]).", text)) - len(found)
    if others:
        warn(f"{name} has lines that can't be read, {others} in all. They stay as they are.")
    return found


def is_dataset(name: str) -> bool:
    """Tell whether a file is a dataset: it has a usual name or a row."""
    usual = rf"{re.escape(ARCHIVE_FILENAME_PREFIX)}\d{{4}}-\d\d-\d\d(_\d+)?\.json"
    return name in editions or bool(re.fullmatch(usual, name))


def datasets() -> List[str]:
    """List the datasets in the archive; raises OSError."""
    return sorted(filter(is_dataset, os.listdir(".")))


def adopt() -> None:
    """Give a row to each dataset without one: a killed run left it, or somebody put it there."""
    for name in datasets():
        if name in editions or "editions.csv" in unreadable:
            continue
        try:
            md5 = md5_of(name)
            if md5sums.get(name, md5) != md5:
                warn(f"{name} is damaged: its MD5 is {md5}, in MD5SUMS {md5sums[name]}.")
                continue
            row = Edition(name, "", utc(getmtime(name)), getsize(name), md5)
            row = check(row)
            what = compared(row)
            text = f"{name} was in the archive without a row in editions.csv, and got one: {what}"
            warn(f"{text}. When, from where and for which countries it came is not known any more.")
        except Failure as failure:  # of check(): the row is added without counts
            warn(f"{name} is not a whole dataset: the file {failure}. It stays as it is.")
        except OSError as error:
            warn(f"{name} can't be read, so it can't be listed: {describe(error)}.")
            continue
        add_row(row)


def add_row(row: Edition) -> None:
    """Let note_down() add a row."""
    csv.writer(added, lineterminator="\n").writerow(row)
    editions[row.path] = row


def note_down() -> None:
    """List what was archived or adopted, now that people know of it; raises OSError."""
    add_lines("editions.csv", added.getvalue(), ",".join(Edition._fields) + "\n")
    new = [row for row in editions.values() if row.path not in md5sums and exists(row.path)]
    add_lines("MD5SUMS", "".join(f"{row.hash}  {row.path}\n" for row in new))
    if Run.current:
        replace_file(LAST_CHECKSUM_FILE, f"{Run.current}\n")


def add_lines(name: str, lines: str, header: str = "") -> None:
    """Add lines to a list after those that it has, which stay as they are; raises OSError."""
    old = contents_of(name) if lines else ""
    if f"\n{lines}" not in f"\n{old}":  # there are some, and note_down() has not just written them
        end = "\n" if old and not old.endswith("\n") else ""
        replace_file(name, f"{old or header}{end}{lines}")


# ---- Verify the archive -------------------------------------------------------------------------
def verify() -> int:
    """Hash what MD5SUMS lists; raises OSError, and Failure that names what is not whole."""
    os.chdir(STORAGE_DIR)
    read_lists()
    for name in datasets():
        if name not in md5sums:
            warn(f"{name} is not listed in MD5SUMS.")
    troubles = []
    for name, md5 in md5sums.items():
        try:
            found = md5_of(name)
            if found != md5:
                troubles.append(f"{name} is damaged: its MD5 is {found}, in MD5SUMS {md5}")
        except OSError as error:
            troubles.append(f"{name} is missing or unreadable: {describe(error)}")
    text = f"{len(md5sums) - len(troubles)} of {len(md5sums)} files listed in MD5SUMS are whole"
    if not md5sums and (datasets() or contents_of(LAST_CHECKSUM_FILE)):
        troubles = ["nothing could be checked, but there was a dataset"]
    if troubles:
        raise Failure("; ".join([text, *troubles, "put back whole copies from a backup"]))
    tell(Outcome(0, f"{text}.", page=None))  # a ping would hide that monthly runs are missing
    return 0


# ---- Tell people --------------------------------------------------------------------------------
untold: List[str] = []  # warnings, until people are told of them


def warn(text: str) -> None:
    """Log what somebody should know although the run goes well, and keep it for tell()."""
    untold.append(f"WARNING: {text}")
    log.warning(text)


def failed(error: Exception) -> Outcome:
    """Return the outcome of a job that an error has ended, in words for people."""
    text = str(error)
    if isinstance(error, (OSError, MemoryError)):
        text = f"Could not go on in {STORAGE_DIR}: {describe(error)}; no dataset was damaged. "
        text += "If it lasts, ask this machine's administrator"
    elif not isinstance(error, Failure):  # its own words may hold a secret
        last = traceback.extract_tb(error.__traceback__)[-1]
        text = f"An unforeseen fault in {last.filename}, line {last.lineno}; no dataset "
        text += f"was damaged; {REPORT}"
    # The command of this process, with settings.env as in the README's crontab line
    again = " ".join(f'"{word}"' for word in [sys.executable, SCRIPT, *sys.argv[1:]])
    settings = path_from_here("settings.env")
    if exists(settings):
        again = f'(set -a; . "{settings}"; {again})'
    return Outcome(getattr(error, "code", 1), f"{text}. To try again: {again}", "/fail", "failed")


def tell(outcome: Outcome) -> None:
    """Tell what came of a job, and what looks wrong: in the log, on stdout, over the channels."""
    (log.error if outcome.code else log.info)(outcome.text)
    if options.job is try_channels:
        return  # whoever tests the channels looks at the screen
    lines = [printable(text) for text in (outcome.text, *untold)]
    untold.clear()
    console.setLevel("WARNING")  # so that stderr tells of a channel that fails below
    subject = outcome.subject or ("something looks wrong" if lines[1:] else None)
    if subject and not WATCHED:  # for cron to mail it; a failure is on stderr already
        for line in lines[1:] if outcome.code else lines:
            write_out(sys.stdout, f"{line}\n")
    send("\n".join(lines), outcome.page, subject)


def send(text: str, page: Optional[str], subject: Optional[str] = None) -> Dict[str, str]:
    """Send a text over each channel that is set and wanted; return what came of it, by channel."""
    results = {}
    for channel, url, way, topic in (
        ("Healthchecks", HEALTHCHECKS_URL, ping, page),
        ("webhook", WEBHOOK_URL, call_webhook, subject),
        ("email", SMTP_URL, send_mail, subject),
    ):
        if url and topic is not None:
            results[channel] = "sent"
            try:
                way(text, topic)
            except Exception as error:
                results[channel] = describe(error, url)
                warn(f"The {channel} channel failed: {results[channel]}.")
    return results


def try_channels() -> int:
    """Send a test over each channel that is set, and say for each whether it went."""
    results = send("This is a test of the LUMIERE VOD archiver.", "/log", "test")
    for channel, result in results.items():
        write_out(sys.stdout, f"{channel}: {printable(result)}.\n")
    for name in re.findall("[A-Z_]+(?=[A-Z_ ]*:)", RULES):  # all names before a colon
        if name in os.environ:
            write_out(sys.stdout, f"{name} is set, but its name here is LUMIERE_{name}.\n")
    if not results:
        names = "LUMIERE_HEALTHCHECKS_URL, LUMIERE_WEBHOOK_URL nor LUMIERE_SMTP_URL"
        raise Failure(f"No channel is set, neither {names}", code=2)
    if {*results.values()} != {"sent"}:
        raise Failure("Not all channels work")
    return 0


# ---- Channels -----------------------------------------------------------------------------------
MAIL_TIMEOUT = 35  # seconds: a mail server may take 30 to greet
CARD = """{"type": "message", "attachments": [{"content": {"type": "AdaptiveCard", "version": "1.2",
    "body": [{"type": "TextBlock", "wrap": true, "text": %s}]},
    "contentType": "application/vnd.microsoft.card.adaptive"}]}"""


def ping(text: str, page: str) -> None:
    """POST to a page of Healthchecks; raises Failure or RequestException."""
    # The page goes before a query, in place of a final "/": https://healthchecks.io/docs/http_api/
    url = re.sub(r"/*(\?|$)", rf"{page}\1", HEALTHCHECKS_URL, count=1)
    post(url, data=text.encode())


def call_webhook(text: str, _subject: str) -> None:
    """Tell a webhook in the form that its service takes; raises what post() does."""
    text = f"LUMIERE VOD archiver on {socket.gethostname()}: {text}"
    host = f".{urlsplit(WEBHOOK_URL).hostname}"
    if re.search(r"\.(logic\.azure|powerplatform|powerautomate|webhook\.office)\.com$", host):
        form = CARD  # Microsoft Teams answers 202 to all else, and shows nothing
    elif re.search(r"\.discord(app)?\.com$", host):
        form = '{"content": %s}'
    else:  # Slack asks for these escapes; Google Chat refuses any other field.
        form = '{"text": %s}'
        text = text.translate({38: "&amp;", 60: "&lt;", 62: "&gt;"})
    post(WEBHOOK_URL, json=json.loads(form % json.dumps(text[:2000])))


def post(url: str, **body: Any) -> None:
    """POST to an address and expect a good answer; raises Failure or RequestException."""
    body.update(headers=HEADERS, timeout=5, allow_redirects=False, stream=True)
    response = requests.post(url, **body)
    if not 200 <= response.status_code < 300:
        raise Failure(f"it answered with status {response.status_code}")
    start = b""
    with suppress(Exception):  # of a body that breaks off
        start = response.raw.read(99)
    if start in (b"OK (not found)", b"OK (rate limited)"):  # as Healthchecks says with status 200
        raise Failure(f"it answered '{start.decode()}'")


def send_mail(text: str, subject: str) -> None:
    """Send an email to all of EMAIL_TO; raises Failure, SMTPException or OSError."""
    message: Any = EmailMessage()
    message["Subject"] = f"LUMIERE VOD archiver: {subject} ({socket.gethostname()})"
    message["From"] = EMAIL_FROM
    message["To"] = EMAIL_TO
    message["Date"] = formatdate()
    message["Message-ID"] = make_msgid(domain="lumiere-vod-archiver")
    message.set_content(text, cte="quoted-printable")
    sender, *receivers = re.findall(r"[^\s,<]+@[^\s,>]+", f"{EMAIL_FROM},{EMAIL_TO}")
    server = mail_server()
    # send_message() of Python 3.6 puts two carriage returns behind some headers.
    refused = server.sendmail(sender, receivers, message.as_string())
    with suppress(OSError):  # the mail has been accepted already
        server.quit()
    if refused:  # some of them: had it been all, this would have been raised before
        raise smtplib.SMTPRecipientsRefused(refused)


def mail_server() -> smtplib.SMTP:
    """Connect to SMTP_URL, with TLS where it can be had, and log in; raises like send_mail()."""
    url: Any = urlsplit(SMTP_URL)
    # With None, smtplib takes any certificate, as mail servers do: there is no password to protect.
    tls = ssl.create_default_context() if url.username else None
    if url.scheme == "smtp":
        server = smtplib.SMTP(url.hostname, url.port or 587, timeout=MAIL_TIMEOUT)
        try:
            server.starttls(context=tls)
        except smtplib.SMTPNotSupportedError:
            if url.username:
                raise Failure("no TLS is offered, and no password is sent without it") from None
    else:
        server = smtplib.SMTP_SSL(url.hostname, url.port or 465, timeout=MAIL_TIMEOUT, context=tls)
    if url.username:
        server.login(unquote(url.username), unquote(url.password or ""))
    return server


# ---- Words for people ---------------------------------------------------------------------------
ENTRY = r"(?m)^(\w.*?): (.+(?:\n .+)*)"  # of WORDS and RULES: names, and a text
# What to say where a class is among the causes of an error: the first entry that fits counts.
WORDS = """
ProxyError: the proxy in HTTPS_PROXY or HTTP_PROXY can't be reached: ask its administrator
SSLError CertificateError: no secure connection; its certificate is not trusted or has expired: run
    the README's repair command, which renews the environment, and look at this machine's clock
gaierror: its name can't be found ({host}, or one that it redirects to): look at its spelling
ConnectionRefusedError: connections are refused
NewConnectionError: it can't be reached: look at the network
ConnectTimeout: no connection in time (of the API: LUMIERE_CONNECT_TIMEOUT, {CONNECT_TIMEOUT} s)
TimeoutError timeout: no answer in time (of the API: LUMIERE_READ_TIMEOUT, {READ_TIMEOUT} s)
FileExistsError: there is a file in the place of a folder: look at LUMIERE_STORAGE_DIR and rejected/
ChunkedEncodingError: it ended before all had come
ContentDecodingError: what came can't be unpacked
TooManyRedirects: it redirects in a circle: try later, or ask its operator
RemoteDisconnected: it closed the connection
SMTPAuthenticationError: it refuses the user name or the password
UnicodeEncodeError: it takes only user names and passwords in ASCII
MemoryError: an answer needs more than 1 GiB of memory
HTTPException InvalidHeader: it does not answer as a web server does: if it lasts, ask its operator
InvalidSchema: this address, or one it leads to, is not valid; or HTTPS_PROXY or ALL_PROXY names a
    SOCKS proxy, which needs one more package: .venv/bin/python -m pip install 'requests[socks]'
ValueError: this address, one it leads to, or that of a proxy (HTTPS_PROXY, HTTP_PROXY) is not valid
"""


def describe(error: Any, url: str = "") -> str:
    """Say in our words what went wrong: an error's own words may hold a secret."""
    causes = []
    while error and not isinstance(error, Failure):  # a Failure came before, and is no cause
        causes.append(error)
        error = error.__cause__ or error.__context__
    if not causes:  # the error itself is a Failure
        return str(error)
    classes = {kind.__name__ for cause in causes for kind in type(cause).__mro__}
    for names, words in re.findall(ENTRY, WORDS):
        if classes & {*names.split()}:
            return " ".join(words.split()).format(host=urlsplit(url).hostname, **globals())
    if "SMTPException" in classes:  # no secret: a refused login is among WORDS
        said = re.sub(r"\[Errno \d+\]|\\[nr]?|[(){}\"']|\bb(?=[\"'])", " ", str(causes[0]))
        return f"it said: {' '.join(said.split())}"  # "550, No" for "(550, b'No')"
    last = causes[-1]
    if type(last) is OSError and not last.strerror:  # requests' way to say that a bundle is missing
        path = os.getenv("REQUESTS_CA_BUNDLE") or os.getenv("CURL_CA_BUNDLE")
        return f"the file in REQUESTS_CA_BUNDLE or CURL_CA_BUNDLE is not there: {path}"
    if not getattr(last, "strerror", None):
        return "an unforeseen fault"
    path = last.filename2 or last.filename
    text = f"{last.strerror}: {join(STORAGE_DIR, path)}" if path else last.strerror
    if last.errno == errno.EACCES:
        text += "; make it yours or writable (chmod u+w), or ask whose file it is"
    if last.errno == errno.ENOSPC:
        text += f"; make room{': the .txt files in rejected/ may be deleted' * exists('rejected')}"
    return f"{text}"


# ---- Command line and settings ------------------------------------------------------------------
SCRIPT = os.path.realpath(__file__)
WATCHED = sys.stderr and sys.stderr.isatty()  # by somebody at a terminal; pythonw has no stderr
options = argparse.Namespace()  # job: the function that does what was asked for


def main(arguments: Optional[List[str]] = None) -> int:
    """Run the script with these command-line arguments and return its exit code."""
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=layout)
    group = parser.add_mutually_exclusive_group()
    add_job = functools.partial(group.add_argument, dest="job", action="store_const")
    add_job("--verify", const=verify, help="hash what MD5SUMS lists, and name what is not whole")
    add_job("--test-notifications", const=try_channels, help="send a test over each channel")
    options.job = monthly_run
    parser.parse_args(arguments, options)
    set_signals(end_run, seconds=0)
    os.environ["NETRC"] = os.devnull  # else requests sends what ~/.netrc has for a host
    complaints = read_settings()
    start_log()
    try:
        if complaints:
            raise Failure(complaints, code=2)
        set_limits()
        return int(options.job())
    except Exception as error:
        outcome = failed(error)
    finally:
        if Run.lock:
            remove_leftovers()
    set_signals(signal.SIG_IGN)
    tell(outcome)
    return outcome.code


def read_settings() -> str:
    """Give each setting its value, from the environment or from here; return what is wrong."""
    # A setting is a global variable of its name, so that it can be edited as the constant it is.
    settings = globals()
    complaints = []
    environment = dict(os.environ)
    for names, rule in re.findall(ENTRY, RULES):
        kind, pattern, wanted = rule.split(None, 2)
        for name in names.split():
            given = environment.pop(f"LUMIERE_{name}", "").strip()
            value = given or str(settings[name])
            if re.fullmatch(f"(?a){pattern}", value):
                settings[name] = KINDS[kind](value)
            else:
                complaints.append(f"{'LUMIERE_' if given else ''}{name} must be {wanted}")
                settings[name] = ""
    unknown = [name for name in sorted(environment) if name.startswith("LUMIERE_")]
    complaints += [f"{name} is not a setting" for name in unknown]
    mail = (SMTP_URL, EMAIL_FROM, EMAIL_TO)
    if any(mail) and not all(mail):
        settings["SMTP_URL"] = ""  # no mail can be sent, not even of this
        names = "LUMIERE_SMTP_URL, LUMIERE_EMAIL_FROM and LUMIERE_EMAIL_TO"
        complaints = complaints or [f"{names} must be set together"]
    return "; ".join(complaints)


def path_from_here(path: str) -> str:
    """Return a path that is absolute; a relative one starts from the script's folder."""
    return join(dirname(SCRIPT), os.path.expanduser(path))


# Settings: their kind, a pattern for their text (it has no spaces itself), and what to ask for
KINDS: Any = {"text": str, "path": path_from_here, "int": int, "float": float}
RULES = r"""
DATA_API_URL COUNTRY_CODE_API_URL HEALTHCHECKS_URL WEBHOOK_URL: text
    (https?://([^][/?#\s\u2000-\uffff]+@)?[\w.-]+(:(?!0|6[6-9]\d{3})[1-6]?\d{1,4})?([/?#][!-~]*)?)?
    an http(s):// address
SMTP_URL: text (smtps?://([^][/?#\s\u2000-\uffff]+@)?[\w.-]+(:(?!0|6[6-9]\d{3})[1-6]?\d{1,4})?/?)?
    an smtp(s):// address; in user and password, write %23 for #, %2F for / and %3F for ?
EMAIL_FROM EMAIL_TO: text
    ((("[^"@\n\r]*"|[^",;@\n\r])*<)?[!#-+.-:=?A-~-]+@[\w.-]+>?\x20*(,[,\x20]*(?!\x20)|$))*
    an email address in ASCII, or several with commas
STORAGE_DIR LAST_CHECKSUM_FILE LOG_FILE: path .+ a path, best in ASCII
LOG_LEVEL: text (?i:DEBUG|INFO|WARNING|ERROR|CRITICAL) DEBUG, INFO, WARNING, ERROR or CRITICAL
ARCHIVE_FILENAME_PREFIX: text ([\w-][\w.\x20-]{0,99})? up to 100 letters, digits, _, -, dots, spaces
CHUNK_SIZE: int [1-9]\d{0,6}|([1-5]\d|6[0-6])\d{6}|67108864 from 1 to 66999999, or 67108864 (64 MiB)
ATTEMPTS: int [1-9]\d{0,8} a whole number from 1 to 999999999
CONNECT_TIMEOUT READ_TIMEOUT MAX_RUNTIME: float (?![0.]+$)\d{1,6}(\.\d{1,6})?
    a number of seconds above 0 and below 1000000
RETRY_DELAY: float \d{1,6}(\.\d{1,6})? a number of seconds below 1000000
STALE_DAYS: int \d{1,5} a whole number of days below 100000
"""

# ---- Signals, and how a run ends ----------------------------------------------------------------
# Ctrl-C, SIGTERM, a hang-up and the alarm of MAX_RUNTIME call end_run(), which ends the process
# where it stands, so that nothing can swallow a signal. While a dataset is published and people are
# told, they are ignored, and a last alarm is set. A signal that was ignored when the script started
# (by nohup, for example) stays ignored. A handler waits until the C call at hand returns; the
# watchdog of set_limits() need not.
NAMES = ("SIGINT", "SIGTERM", "SIGHUP")  # Windows lacks the last, and the alarm
SIGNALS = [s for s in signal.Signals if s.name in NAMES and signal.getsignal(s) != signal.SIG_IGN]
LAST_ALARM = 240  # seconds for what must not be disturbed: telling people may take 180


def set_signals(handler: Any, alarm: Any = signal.SIG_DFL, seconds: float = LAST_ALARM) -> None:
    """Set the handler of the signals, and an alarm in so many seconds (0: none); SIG_DFL kills."""
    for number in SIGNALS:
        signal.signal(number, handler)
    if os.name != "nt":
        signal.signal(signal.SIGALRM, alarm)
        signal.setitimer(signal.ITIMER_REAL, seconds)


def set_limits() -> None:
    """Hold the run to MAX_RUNTIME and 1 GiB of memory, whatever the server sends."""
    set_signals(end_run, end_run, MAX_RUNTIME)
    null = open(os.devnull, "w")  # nobody can use a dump of the stack  # noqa: SIM115
    faulthandler.dump_traceback_later(MAX_RUNTIME + 300, exit=True, file=null)  # the watchdog
    decimal.setcontext(decimal.Context(traps=[]))  # for ijson: 1e99999999999999999999 is valid
    with suppress(AttributeError):  # of an older Python; a newer one's limit is too low
        sys.set_int_max_str_digits(0)  # at the default, a long number crashes ijson's C backend
    if sys.platform != "win32":  # where `resource` is imported, under "Files"
        soft, hard = resource.getrlimit(resource.RLIMIT_AS)  # "no limit" is -1: % makes it huge
        with suppress(OSError, ValueError):  # where the system has no such limit
            resource.setrlimit(resource.RLIMIT_AS, (min(soft % 2**64, 2**30), hard))


def end_run(number: int, _frame: Any) -> None:
    """Handle a signal or the alarm: tidy up, report that, and leave the process."""
    set_signals(signal.SIG_IGN)
    code = 1
    try:
        text = f"Not done in LUMIERE_MAX_RUNTIME, {MAX_RUNTIME:g} s; you can raise that"
        if number in SIGNALS:
            code = 128 + number
            text = f"Interrupted by {signal.Signals(number).name}"
        text += "; the archive is as it was"
        if Run.lock:  # else the temporary files may be those of another run
            remove_leftovers()
            text += "" if lexists(PART) else ", and no temporary file is left"
        tell(failed(Failure(text, code=code)))
    finally:
        os._exit(code)


def end_listed(number: int, _frame: Any) -> None:
    """Handle the last alarm, where a channel or a disk hangs: list what is archived, and end."""
    set_signals(signal.SIG_IGN, seconds=30)  # SIGALRM kills now: in 30 s, or below
    note_down()
    os.kill(os.getpid(), number)


# ---- The log, and what people see ---------------------------------------------------------------
log = logging.Logger("data_collect", "DEBUG")  # not the root's, which has urllib3's secrets, too


class Lines(logging.Handler):  # writes log lines to stderr, or another file
    stream: Any = sys.stderr

    def emit(self, record: logging.LogRecord) -> None:
        write_out(self.stream, f"{printable(self.format(record))}\n")


console = Lines("ERROR")


def start_log() -> None:
    """Open the log; on a terminal show it there, too, and elsewhere only errors."""
    layout = logging.Formatter("%(asctime)s - %(levelname)s - %(message)s")
    if WATCHED:
        console.setFormatter(layout)
        console.setLevel("INFO")
    log.addHandler(console)
    try:
        file = Lines(LOG_LEVEL.upper() or "INFO")  # a setting that is wrong is "" by now
        file.stream = open(LOG_FILE or path_from_here("archiver.log"), "ab")  # noqa: SIM115
        file.setFormatter(layout)
        log.addHandler(file)
    except OSError as error:
        warn(f"The log {LOG_FILE} can't be opened: {describe(error)}.")


def printable(text: str) -> str:
    """Return a text without control characters, with which a server could disturb a terminal."""
    return "".join(letter if letter.isprintable() else "\ufffd" for letter in text)


def write_out(stream: Any, text: str) -> None:
    """Write to a file at once, in UTF-8; what becomes of it can't hurt the run."""
    with suppress(OSError, AttributeError):  # the stream is closed, or is None
        os.write(stream.fileno(), text.encode())


# ---- Files --------------------------------------------------------------------------------------
if sys.platform == "win32":
    import msvcrt
else:
    import fcntl
    import resource

ENCODING = (sys.getfilesystemencoding(), "surrogateescape")  # so that odd bytes stay as they are
MD5: Any = hashlib.md5
if sys.version_info >= (3, 9):  # a system in FIPS mode refuses MD5 for security
    MD5 = functools.partial(MD5, usedforsecurity=False)


def lock_archive() -> None:
    """Enter the archive and take its lock, which dies with the process; raises Failure."""
    os.makedirs(STORAGE_DIR, exist_ok=True)
    os.chdir(STORAGE_DIR)  # so that a bare name is a file of the archive
    # The file is never removed, as two runs could then lock two files; the process's end closes it.
    lock = os.open(".lock", os.O_WRONLY | os.O_CREAT, 0o666)
    try:
        if sys.platform == "win32":
            msvcrt.locking(lock, msvcrt.LK_NBLCK, 1)  # Windows has no flock
        else:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        text = f"Another run is at work in {STORAGE_DIR}; this one stopped and changed nothing"
        if not isinstance(error, (BlockingIOError, PermissionError)):  # ENOLCK, ENOSYS, EOPNOTSUPP
            text = f"The disk of {STORAGE_DIR} can't be locked; put LUMIERE_STORAGE_DIR elsewhere"
        raise Failure(text) from None
    Run.lock = lock
    remove_leftovers()  # of a run that was killed


def remove_leftovers() -> None:
    """Remove the temporary files."""
    for folder in (".", dirname(LAST_CHECKSUM_FILE)):  # replace_file() uses both
        with suppress(OSError):  # there is none; if it can't be removed, the next run tries again
            os.remove(join(folder, PART))


def free_path(stem: str, ending: str, taken: Any = ()) -> str:
    """Return the first of stem, stem_1, stem_2, …, each with an ending, that is not taken."""
    path = stem + ending
    number = 0
    while lexists(path) or path in taken:
        number += 1
        path = f"{stem}_{number}{ending}"
    return path


def contents_of(path: str) -> str:
    """Read a small text file, "" if there is none; raises OSError."""
    with suppress(FileNotFoundError), open(path, "rb") as file:
        return file.read().decode(*ENCODING)
    return ""


def replace_file(path: str, text: str) -> None:
    """Give a small text file new contents, all at once and durably; raises OSError."""
    part = join(dirname(path), PART)
    with open(part, "wb") as file:
        file.write(text.encode(*ENCODING))
        file.flush()
        sync(file.fileno())
    move(part, path)


def move(path: str, target: str) -> None:
    """Give a synced file another name, and wait until that is on the disk; raises OSError."""
    folder = dirname(target) or "."
    os.makedirs(folder, exist_ok=True)
    os.replace(path, target)
    if os.name != "nt":  # Windows can't open a folder; NTFS keeps a journal of names
        descriptor = os.open(folder, os.O_RDONLY)
        sync(descriptor)
        os.close(descriptor)


def sync(descriptor: int) -> None:
    """Wait until a file or a folder is on the disk; raises OSError."""
    try:
        os.fsync(descriptor)
    except OSError as error:  # CIFS, sshfs and some NFS can't sync a folder, and need not
        if error.errno not in (errno.EINVAL, errno.EBADF, errno.ENOTSUP, errno.ENOSYS):
            raise


def blocks_of(path: str) -> Iterator[bytes]:
    """Yield a file in blocks; raises OSError."""
    with open(path, "rb") as file:
        yield from iter(lambda: file.read(65536), b"")


def md5_of(path: str) -> str:
    """Return a file's MD5 in 32 hex digits; raises OSError."""
    md5 = MD5()
    for block in blocks_of(path):
        md5.update(block)
    return f"{md5.hexdigest()}"


def utc(seconds: float) -> str:
    """Write seconds since 1970 as a time in UTC."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


if __name__ == "__main__":
    raise SystemExit(main())
