#!/usr/bin/env python3
"""Keep every edition of the LUMIERE VOD dataset; made to be run by cron once a month.

The API of LUMIERE VOD serves the current dataset only: when a new one comes, the old one is gone.
One run locks the archive, asks for the country codes of the Council of Europe's members, downloads
all works into a hidden file in archive/ and compares its MD5 with that of the last dataset. A new
dataset is checked to its last byte, published as archive/<prefix><newest presence_date>.json and
listed in archive/MD5SUMS, and then people are told, over the channels that are set.

What it publishes is a whole dataset, synced to disk. Nothing is ever overwritten. What was received
whole but is no dataset is kept in archive/rejected/. A run that fails or is killed, at any point,
costs the next one nothing.

Settings are the constants at the top of the script; each can also be set in the environment, as
LUMIERE_ and its name: LUMIERE_STORAGE_DIR, for example.

Exit codes: 0 archived or unchanged, 1 failed, 2 a wrong option or setting,
130 interrupted by Ctrl-C, 143 interrupted by SIGTERM.
"""

import argparse
import contextlib
import datetime
import email.message
import email.utils
import functools
import hashlib
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
from concurrent.futures import ThreadPoolExecutor
from threading import Thread
from typing import IO, Any, Callable, Dict, Iterable, Iterator, List, NamedTuple, Optional, Tuple
from urllib.parse import unquote, urljoin, urlsplit

import ijson
import requests

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

# Settings: change them here, or set LUMIERE_<NAME> in the environment.
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
HEALTHCHECKS_URL = ""  # https://hc-ping.com/your-uuid, for example; empty: not used
WEBHOOK_URL = ""  # of Slack, Mattermost or Discord
SMTP_URL = ""  # smtps://user:password@host:465 or smtp://host:587
EMAIL_FROM = ""
EMAIL_TO = ""  # one address, or several with commas between

# For settings: what their text must look like, what turns it into a value, and what to ask for.
USER, HOST = r"([^/?#@\s\[\]\x7f-\U0010ffff]*@)?", r"([A-Za-z0-9_.-]+|\[[0-9A-Fa-f:.]+\])"
ADDRESS = f"s?://{USER}{HOST}(:[0-9]{{1,5}})?([/?#][!-~]*)?"
SECONDS, LEVELS = r"[0-9]{1,6}(\.[0-9]+)?", "DEBUG|INFO|WARNING|ERROR|CRITICAL"
HERE = os.path.dirname(os.path.abspath(__file__))
RULES: List[Tuple[str, str, Callable[[str], Any], str]] = [
    ("DATA_API_URL COUNTRY_CODE_API_URL", f"http{ADDRESS}", str, "an http(s):// address"),
    ("HEALTHCHECKS_URL WEBHOOK_URL", f"(http{ADDRESS})?", str, "an http(s):// address"),
    ("SMTP_URL", f"(smtp{ADDRESS})?", str, "an smtp(s):// address"),
    ("EMAIL_FROM EMAIL_TO", r"([^@\r\n]+(@[^@\r\n]+)+)?", lambda text: readable(text),
     "an email address, or several"),
    ("STORAGE_DIR LAST_CHECKSUM_FILE LOG_FILE", ".+",
     lambda path: os.path.join(HERE, os.path.expanduser(path)), "a path"),
    ("LOG_LEVEL", f"(?i){LEVELS}", str.upper, LEVELS.replace("|", " or ")),
    ("ARCHIVE_FILENAME_PREFIX", "([A-Za-z0-9_-][A-Za-z0-9_. -]{0,99})?", str,
     "at most 100 letters, digits, _ and -, and behind the first also dots and spaces"),
    ("CHUNK_SIZE ATTEMPTS", "[1-9][0-9]{0,8}", int, "a whole number from 1 to 999999999"),
    ("CONNECT_TIMEOUT READ_TIMEOUT MAX_RUNTIME", f"(?=.*[1-9]){SECONDS}", float,
     "a number of seconds above 0 and below 1000000"),
    ("RETRY_DELAY", SECONDS, float, "a number of seconds below 1000000"),
]  # fmt: skip

HEADERS = {"User-Agent": "lumiere-vod-archiver/2.0", "Accept": "application/json"}
PART = ".lumiere.part"  # the hidden file in which contents grow until they are given their name
ENCODING = sys.getfilesystemencoding()  # of the names in MD5SUMS: not always UTF-8 under cron
# What ijson must not come to see: brackets opened one after the other, since its memory grows with
# their square, to 25 GB for 100,000; and thousands of digits, at which its C backend can crash.
TOO_DEEP, TOO_LONG = rb"[\[{]{1000}", b"0" * 2000
NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
ONLY_DIGITS = bytes(ord("0") if byte in b"0123456789" else ord(" ") for byte in range(256))
MD5: Any = hashlib.md5
if sys.version_info >= (3, 9):  # a system in FIPS mode refuses it unless no security hangs on it
    MD5 = functools.partial(hashlib.md5, usedforsecurity=False)
TELL_TIMEOUT = 20  # seconds for all channels together, at the start of a run and at its end
ENDPOINTS = {"start": "/start", "fail": "/fail", "test": "/log"}  # of Healthchecks
SUBJECTS = {"new": "new dataset", "fail": "the archiver failed", "test": "test"}
Send = Callable[[str, str], None]  # what a channel does with an event and a text
WATCHED = sys.stderr is not None and sys.stderr.isatty()  # by somebody at a terminal
log = logging.getLogger("data_collect")  # not the root: urllib3's DEBUG lines hold whole addresses


class Failure(Exception):
    """What can be expected to go wrong, as a sentence without its full stop."""

    def __init__(self, text: str, curable: bool = False, wait: Optional[float] = None) -> None:
        super().__init__(text)
        self.curable, self.wait = curable, wait  # by time, and the seconds the server asked for


class Stopped(BaseException):
    """A signal ends the run; not an Exception: urllib3 and logging swallow some of those."""


class Dataset(NamedTuple):
    """What is known of a dataset."""

    md5: str
    size: int  # bytes
    works: int
    presences: int
    undated: int  # presences without a usable presence_date
    date: str  # the newest presence_date


def main(arguments: Optional[List[str]] = None) -> int:
    """Run the script with these command-line arguments and return its exit code."""
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=layout)
    parser.add_argument("--verify", action="store_true", help="re-hash the archive; no download")
    note = "send a test over each channel that is set; no download"
    parser.add_argument("--test-notifications", action="store_true", help=note)
    options = parser.parse_args(arguments)
    complaint = load_settings()
    if complaint:
        write_out(sys.stderr, complaint + "\n")
        return 2
    job = monthly_run
    if options.verify or options.test_notifications:
        job = verify if options.verify else test_notifications
    try:
        heed_signals(stop, MAX_RUNTIME if job is monthly_run else 0)
        code, event, text = job()
    except (Exception, Stopped) as error:
        code, event, text = ending(error)
    heed_signals(signal.SIG_IGN, 0)  # what came of the run must be told
    if text:
        log.log(logging.ERROR if code else logging.INFO, text)
    if event == "new" and not WATCHED:
        write_out(sys.stdout, text + "\n")  # for cron to mail
    if job is monthly_run:
        tell(event, text)
    return code


def ending(error: BaseException) -> Tuple[int, str, str]:
    """Turn what ended a run into its exit code, the event to tell people and a sentence."""
    if isinstance(error, Stopped):
        code, text = error.args
        return code, "fail", text
    if isinstance(error, Failure):
        return 1, "fail", f"{error}."
    if isinstance(error, OSError):
        text = f"Could not go on in {STORAGE_DIR}: {error}; this run has damaged no dataset."
        return 1, "fail", text
    frames = traceback.extract_tb(error.__traceback__)  # its own text may hold a secret
    steps = " ".join(f"{frame.name}:{frame.lineno}" for frame in frames)
    return 1, "fail", f"Unexpected {type(error).__name__}; please report it ({steps})."


def monthly_run() -> Tuple[int, str, str]:
    """Archive the API's dataset unless that is done; return the exit code, "new" or "unchanged",
    and a sentence on it. Raises Failure, OSError or Stopped.
    """
    start_log()
    os.makedirs(STORAGE_DIR, exist_ok=True)
    os.chdir(STORAGE_DIR)  # from here on, a name without a folder is a file of the archive
    with open(".lock", "a") as lock:  # never removed: two runs could then lock two files
        take(lock)
        log.info("Run started; the archive is %s.", STORAGE_DIR)
        try:
            remove_parts()  # what a killed run left has the permissions of its day
            tell("start", "")
            codes = persevere(ask_country_codes)
            dataset = persevere(lambda: receive(codes))
            if not dataset:
                return 0, "unchanged", "Unchanged: the API still serves the last dataset."
            return (0, *archive(dataset))
        finally:
            remove_parts()


def take(lock: IO[str]) -> None:
    """Lock a file until it is closed or the process dies; raises Failure if another run has it."""
    try:
        if sys.platform == "win32":
            msvcrt.locking(lock.fileno(), msvcrt.LK_NBLCK, 1)  # Windows has no flock
        else:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        raise Failure(f"Another run is at work in {STORAGE_DIR}") from None


def persevere(attempt: Callable[[], Any]) -> Any:
    """Try what time can cure up to ATTEMPTS times, and return the result; raises Failure."""
    number, delay = 1, RETRY_DELAY
    while True:
        try:
            return attempt()
        except Failure as failure:
            wait = delay if failure.wait is None else failure.wait
            if not failure.curable or number == ATTEMPTS or wait > MAX_RUNTIME:
                tried = f" (attempt {number} of {ATTEMPTS})" if failure.curable else ""
                raise Failure(f"{failure}; nothing was archived{tried}") from None
            number, delay = number + 1, delay * 2
            log.warning("%s; attempt %d of %d in %.1f s.", failure, number, ATTEMPTS, wait)
        time.sleep(wait)


def ask_country_codes() -> List[str]:
    """Ask for the codes of the Council of Europe's members, sorted; raises Failure."""
    where = shown(COUNTRY_CODE_API_URL)
    try:
        countries = json.loads(ask("GET", COUNTRY_CODE_API_URL).content)
        codes = sorted({country["code"] for country in countries if country["is_coe"] is True})
        listed = ascii(" ".join(codes))[1:-1]
    except (ValueError, RecursionError):
        raise Failure(f"{where} did not answer with JSON", curable=True) from None
    except (KeyError, TypeError):  # no list, a key that is missing, or a code that is no text
        raise Failure(f"{where} did not answer with a list of countries") from None
    if not codes or not codes[0]:
        raise Failure(f"{where} lists no member of the Council of Europe, or one without a code")
    log.info("%d countries: %s.", len(codes), listed)
    return codes


def ask(method: str, url: str, question: Optional[Dict[str, Any]] = None) -> requests.Response:
    """Send a request and return its answer, which has status 200; that to a POST is still without
    its body. Raises Failure.
    """
    hooks, timeout, stream = {"response": judge}, (CONNECT_TIMEOUT, READ_TIMEOUT), bool(question)
    try:
        response = requests.request(
            method, url, json=question, headers=HEADERS, stream=stream, timeout=timeout, hooks=hooks
        )
    except Failure:
        raise
    except Exception as error:  # of requests or, from behind a redirect, of urllib3
        curable = not isinstance(error, (ValueError, requests.TooManyRedirects))
        raise Failure(f"{shown(url)} could not be asked: {reason(error)}", curable) from None
    # Without this, urllib3 1.26 takes a body that is shorter than its Content-Length for whole.
    response.raw.enforce_content_length = True
    return response


def judge(response: requests.Response, **_: Any) -> None:
    """Raise Failure at an answer, or a step on the way to it, that is of no use."""
    status, headers, wait = response.status_code, response.headers, None
    lost_post = status in (301, 302, 303) and response.request.method == "POST"  # it becomes a GET
    if status == 200 or (response.is_redirect and headers["Location"] and not lost_post):
        return
    response.close()
    text = f"{shown(response.url)} answered with status {status}"
    if lost_post and "Location" in headers:
        text += f": has it moved to {shown(urljoin(response.url, headers['Location']))!a}?"
    with contextlib.suppress(LookupError, TypeError, ValueError, ArithmeticError):  # nonsense
        after = headers["Retry-After"]  # seconds or a date: RFC 9110, 10.2.3
        date = None if after.isdigit() else email.utils.parsedate_to_datetime(after)
        wait = max(0.0, date.timestamp() - time.time()) if date else float(after)
        text += f", to be asked again in {wait:.0f} s"
    raise Failure(text, status in (408, 429) or status >= 500, wait)


def receive(codes: List[str]) -> Optional[Dataset]:
    """Download a dataset; return None if it is the last one, or check it and return what is known
    of it; raises Failure, OSError.
    """
    with open(PART, "wb") as file:
        md5, size = download(codes, file)
        if md5 == read_text(LAST_CHECKSUM_FILE).strip().lower():
            if size not in map(os.path.getsize, dataset_names()):
                lost = "The last dataset is not in %s; to archive it again, delete %s."
                log.warning(lost, STORAGE_DIR, LAST_CHECKSUM_FILE)
            return None
        file.flush()
        os.fsync(file.fileno())
    try:
        dataset = Dataset(md5, size, *check(PART))
    except Failure as failure:
        kept = os.path.join(STORAGE_DIR, "rejected", f"{md5}.txt")  # the same bytes only once
        os.makedirs(os.path.dirname(kept), exist_ok=True)
        move(PART, kept)
        text = f"The answer of {shown(DATA_API_URL)} is {failure}; it is kept as {kept}"
        raise Failure(text, failure.curable) from None
    if dataset.undated:
        log.warning("%d presences have no usable presence_date.", dataset.undated)
    return dataset


def download(codes: List[str], file: IO[bytes]) -> Tuple[str, int]:
    """Stream all works into a file; return their MD5 and size in bytes; raises Failure, OSError."""
    question = {
        "id_type": "", "ids": [], "title": "", "directors": [], "work_types": [],
        "production_years": [], "production_countries": [], "catalogs": [],
        "catalogs_countries": codes, "business_models": ["FoD", "SVoD", "TVoD"],
    }  # fmt: skip
    md5, size, started = MD5(), 0, time.monotonic()
    with ask("POST", DATA_API_URL, question) as response, ThreadPoolExecutor(1) as hasher:
        hashed = hasher.submit(int)
        for chunk in chunks_of(response):
            file.write(chunk)
            size += len(chunk)
            hashed.result()  # so that no more than two chunks are in memory
            hashed = hasher.submit(md5.update, chunk)
    if not size:
        raise Failure(f"{shown(DATA_API_URL)} answered with nothing", curable=True)
    seconds = max(time.monotonic() - started, 0.001)
    told = f"{size:,} bytes in {seconds:.1f} s ({size / 1e6 / seconds:.1f} MB/s)"
    log.info("Received %s, MD5 %s.", told, md5.hexdigest())
    return md5.hexdigest(), size


def chunks_of(response: requests.Response) -> Iterator[bytes]:
    """Yield a body in chunks of about CHUNK_SIZE bytes, and show on a terminal how far it is;
    raises Failure where it breaks off.
    """
    length = response.headers.get("Content-Length", "")
    plain = re.fullmatch("[0-9]{1,18}", length) and "Content-Encoding" not in response.headers
    total = int(length) if plain else 0
    size, started = 0, time.monotonic()
    due = started + 0.25
    try:
        for chunk in response.iter_content(CHUNK_SIZE):
            size, now = size + len(chunk), time.monotonic()
            if WATCHED and now >= due:
                share = f", {size / total:.0%}" if total else ""
                rate = size / 1e6 / max(now - started, 0.001)
                write_out(sys.stderr, f"\r{f'{size / 1e6:,.1f} MB, {rate:.1f} MB/s{share}':<60}")
                due = now + 0.25
            yield chunk
    except Exception as error:  # requests 2.27 lets some of urllib3's own through
        text = f"The transfer from {shown(response.url)} broke off: {reason(error)}"
        raise Failure(text, curable=True) from None
    finally:
        if WATCHED:
            write_out(sys.stderr, f"\r{'':60}\r")


def check(path: str) -> Tuple[int, int, int, str]:
    """Read a file to its end; return its works, presences, those of them without a usable date,
    and the newest date. Raises Failure unless it is one whole array of works with some date.
    """
    log.debug("Checking with the %s backend of ijson.", ijson.backend)
    trouble: Optional[Failure] = None
    with open(path, "rb") as file:
        source = Source(file)
        try:
            works, presences, undated, newest = count(ijson.items(source, "item"))
        except OSError:
            raise
        except MemoryError:
            trouble = Failure("more than the memory of this machine can take")
        except Exception:  # JSONError or ValueError; ArithmeticError, SystemError at huge numbers
            trouble = Failure("not whole, well-formed JSON", curable=True)
    trouble = source.trouble or trouble
    if trouble:
        raise trouble
    if not works or source.first != b"[":  # in an object, items() would find the key "item"
        raise Failure("not an array of works")
    if not newest:
        raise Failure("an array of works without any usable presence_date")
    return works, presences, undated, newest


class Source:
    """A file as ijson reads it: with one more line feed, or ended before what ijson can't bear."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file, self.first, self.last = file, b"", b"\n"
        self.trouble: Optional[Failure] = None

    def read(self, size: int = -1) -> bytes:
        """Read up to so many bytes; raises OSError."""
        block = self.file.read(size)
        if size and not block:
            # Without a line feed there, the C backend forgives a text that begins behind the array.
            block, self.last = self.last, b""
        self.first = self.first or block.lstrip()[:1]
        if b"\v" in block or b"\f" in block:  # to ijson it is white space, to JSON it isn't
            self.trouble = Failure("not whole, well-formed JSON", curable=True)
        if re.search(TOO_DEEP, block.translate(None, NO_BRACKETS)):
            self.trouble = Failure("no dataset but brackets within brackets")
        if TOO_LONG in block.translate(ONLY_DIGITS):
            self.trouble = Failure("no dataset but thousands of digits in a row")
        return b"" if self.trouble else block


def count(items: Iterable[Any]) -> Tuple[int, int, int, str]:
    """Count works, presences, and presences without a usable date; find the newest date."""
    works = presences = undated = 0
    last: Any = None
    date = newest = ""
    for work in items:
        works += 1
        listed = work.get("presences") if isinstance(work, dict) else None
        for presence in listed if isinstance(listed, list) else ():
            presences += 1
            text = presence.get("presence_date") if isinstance(presence, dict) else None
            if text != last:  # most are equal, and there are millions
                last, date = text, iso_date(str(text)[:40])
                newest = max(newest, date)
            if not date:
                undated += 1
    return works, presences, undated, newest


@functools.lru_cache(maxsize=1000)
def iso_date(text: str) -> str:
    """Return the date part of an ISO 8601 date or date-time as YYYY-MM-DD, or else ""."""
    if not re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}([Tt ][0-9]{2}[0-9:.,]*[Zz0-9:+ -]*)?", text):
        return ""
    try:
        return str(datetime.datetime.strptime(text[:10], "%Y-%m-%d").date())
    except ValueError:  # the 31st of February
        return ""


def archive(dataset: Dataset) -> Tuple[str, str]:
    """Publish what was received unless the archive has these bytes; return "new" or "unchanged",
    and a sentence on it. Raises OSError, and Failure when the dataset is safe but not its MD5.
    """
    same_size = (name for name in dataset_names() if os.path.getsize(name) == dataset.size)
    found = next((name for name in same_size if md5_of(name) == dataset.md5), "")
    name, event = found or free_name(dataset.date), "unchanged"
    text = f"Unchanged: the archive has this dataset as {name}."
    heed_signals(signal.SIG_IGN, 0)  # what is published must be told
    if not found:
        move(PART, name)
    try:
        if read_md5sums().get(found) != dataset.md5:  # it is new, or its run was killed by now
            event, text = "new", announcement(name, dataset)
            list_md5(name, dataset.md5)
        replace_text(LAST_CHECKSUM_FILE, f"{dataset.md5}\n")
    except OSError as error:
        text = f"The dataset is archived as {name} in {STORAGE_DIR}, but its MD5 was not noted"
        raise Failure(f"{text}: {error}") from None
    return event, text


def announcement(name: str, dataset: Dataset) -> str:
    """Describe a new dataset, and how it differs from the newest earlier one; raises OSError."""
    kind, more_works, more_presences = "New dataset", "", ""
    older = [other for other in dataset_names() if ("", 0) < edition(other) < edition(name)]
    if older:
        earlier = max(older, key=edition)
        if edition(earlier)[0] == dataset.date:
            kind = f"Revised dataset for {dataset.date}"
        with contextlib.suppress(Failure, OSError):  # of an earlier one that is damaged
            works, presences, _, _ = check(earlier)
            more_works = f" ({dataset.works - works:+,})"
            more_presences = f" ({dataset.presences - presences:+,})"
    counts = f"{dataset.works:,} works{more_works}, {dataset.presences:,} presences{more_presences}"
    return f"{kind}: {name}, {dataset.size:,} bytes, {counts}, MD5 {dataset.md5}."


def edition(name: str) -> Tuple[str, int]:
    """Read the date and number in a dataset's name; ("", 0) where the name is of another kind."""
    prefix = re.escape(ARCHIVE_FILENAME_PREFIX)
    match = re.fullmatch(prefix + r"(\d{4}-\d\d-\d\d)(?:_(\d+))?\.json", name)
    return (match.group(1), int(match.group(2) or 0)) if match else ("", 0)


def free_name(date: str) -> str:
    """Return the first name for a dataset of this date that is not taken."""
    name, number = f"{ARCHIVE_FILENAME_PREFIX}{date}.json", 0
    while os.path.lexists(name):
        number += 1
        name = f"{ARCHIVE_FILENAME_PREFIX}{date}_{number}.json"
    return name


def verify() -> Tuple[int, str, str]:
    """Hash what MD5SUMS lists, name what is wrong, and return the exit code; raises OSError."""
    os.chdir(STORAGE_DIR)
    names, md5sums, wrong = dataset_names(), read_md5sums(), 0  # the later one is the longer one
    for name, md5 in md5sums.items():
        try:
            found = md5_of(name)
            trouble = f"damaged: its MD5 is {found}, in MD5SUMS {md5}"
        except (OSError, ValueError) as error:  # a name that can't be one is a ValueError
            found, trouble = "?", f"missing or unreadable: {reason(error)}"
        if found != md5:
            wrong += 1
            write_out(sys.stderr, f"{name} is {trouble}.\n")
    for name in names:
        if name not in md5sums:
            write_out(sys.stdout, f"{name} is not listed in MD5SUMS.\n")
    whole = len(md5sums) - wrong
    write_out(sys.stdout, f"{whole} of {len(md5sums)} files listed in MD5SUMS are whole.\n")
    return 1 if wrong or (names and not md5sums) else 0, "", ""


def read_md5sums() -> Dict[str, str]:
    """Read the archive's MD5SUMS, as md5sum writes it: MD5 by file name; raises OSError."""
    return {line[34:]: line[:32].lower() for line in read_text("MD5SUMS").split("\n") if line}


def list_md5(name: str, md5: str) -> None:
    """Add a dataset to MD5SUMS, and those that no earlier run came to list; raises OSError."""
    lines = [line for line in read_text("MD5SUMS").split("\n") if line and line[34:] != name]
    listed = [name, *(line[34:] for line in lines)]
    missed = [one for one in dataset_names() if edition(one) > ("", 0) and one not in listed]
    for one in missed:
        with contextlib.suppress(OSError):  # one that can't be read, --verify will mention
            lines.append(f"{md5_of(one)}  {one}")
    replace_text("MD5SUMS", "\n".join([*lines, f"{md5}  {name}", ""]))


def dataset_names() -> List[str]:
    """List the datasets in the archive; raises OSError."""
    names = (name for name in sorted(os.listdir(".")) if name.endswith(".json"))
    return [name for name in names if name[0] != "." and os.path.isfile(name)]


def remove_parts() -> None:
    """Remove the hidden files of a run; raises OSError."""
    for path in (PART, part_of(LAST_CHECKSUM_FILE)):
        with contextlib.suppress(FileNotFoundError):
            os.remove(path)


def part_of(path: str) -> str:
    """Return the path of the hidden file that is to become this one."""
    return os.path.join(os.path.dirname(path), PART)


def read_text(path: str) -> str:
    """Read a small text file, "" if there is none; raises OSError."""
    try:
        with open(path, encoding=ENCODING, errors="surrogateescape") as file:
            return file.read()
    except FileNotFoundError:
        return ""


def replace_text(path: str, text: str) -> None:
    """Give a small text file new contents, all at once and durably; raises OSError."""
    with open(part_of(path), "wb") as file:
        file.write(text.encode(ENCODING, "surrogateescape"))
        file.flush()
        os.fsync(file.fileno())
    move(part_of(path), path)


def move(path: str, target: str) -> None:
    """Give a synced file its name, and wait until that is on the disk; raises OSError."""
    os.replace(path, target)
    for folder in {os.path.dirname(target) or ".", os.path.dirname(path) or "."}:
        if os.name != "nt":  # Windows can't open a folder to sync it; NTFS keeps a journal of names
            descriptor = os.open(folder, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)


def md5_of(path: str) -> str:
    """Return a file's MD5 in 32 hex digits; raises OSError."""
    md5 = MD5()
    with open(path, "rb") as file:
        for block in iter(lambda: file.read(65536), b""):
            md5.update(block)
    return str(md5.hexdigest())


def load_settings() -> str:
    """Give each setting its value, from the environment or here; return what is wrong, or ""."""
    for names, pattern, convert, expected in RULES:
        for name in names.split():
            text = os.environ.get(f"LUMIERE_{name}", "").strip()
            value = text or str(globals()[name])
            try:
                fits = re.fullmatch(pattern, value)
                if "URL" in name:
                    _ = urlsplit(value).port  # ValueError at a port or an IPv6 host that can't be
            except ValueError:
                fits = None
            if not fits:
                return f"{'LUMIERE_' if text else ''}{name} must be {expected}."
            globals()[name] = convert(value)
    if len({bool(SMTP_URL), bool(EMAIL_FROM), bool(EMAIL_TO)}) > 1:
        return "SMTP_URL, EMAIL_FROM and EMAIL_TO must be set together."
    return ""


def start_log() -> None:
    """Open the log; on a terminal show it there, too, and elsewhere only errors; raises OSError."""
    logging.raiseExceptions = False  # a full disk under the log is no reason for tracebacks
    stream = open(LOG_FILE, "a", encoding="utf-8", errors="backslashreplace")  # noqa: SIM115
    file = logging.StreamHandler(stream)
    console = Console()
    handlers: List[logging.Handler] = [file, console]
    for handler in handlers if WATCHED else handlers[:1]:
        handler.setLevel(LOG_LEVEL)
        handler.setFormatter(logging.Formatter("%(asctime)s - %(levelname)s - %(message)s"))
    console.setLevel(min(console.level or logging.ERROR, logging.ERROR))
    log.handlers[:] = handlers
    log.setLevel(logging.DEBUG)


class Console(logging.Handler):
    """Shows log lines on stderr, of which nothing is left to fail at the end of the process."""

    def emit(self, record: logging.LogRecord) -> None:
        write_out(sys.stderr, self.format(record) + "\n")


def stop(number: int, _frame: Any) -> None:
    """End the run on a signal: Ctrl-C, SIGTERM, or the alarm that MAX_RUNTIME sets."""
    code, why = 1, f"Not done in MAX_RUNTIME, {MAX_RUNTIME:g} s"
    if number in (signal.SIGINT, signal.SIGTERM):
        code, why = 128 + number, f"Interrupted by {signal.Signals(number).name}"
    # A second signal must not disturb the ending. But Python drops what is raised in a destructor,
    # so the alarm raises it again, every 10 s until the run has ended.
    heed_signals(signal.SIG_IGN, 10, lambda *_: stop(number, None))
    raise Stopped(code, f"{why}; no temporary file is left.")


def heed_signals(handler: Any, seconds: float, at_alarm: Any = None) -> None:
    """Give the signals that end a run a handler, and set the alarm; with 0 seconds, cancel it."""
    signal.signal(signal.SIGINT, handler)
    signal.signal(signal.SIGTERM, handler)
    if hasattr(signal, "setitimer"):  # else it is Windows, where the Task Scheduler ends a run
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, at_alarm or handler)
        signal.setitimer(signal.ITIMER_REAL, seconds, 10)


def tell(event: str, text: str) -> Dict[str, str]:
    """Send a text over the channels that are set and meant for an event ("start", "unchanged",
    "new", "fail" or "test"), each in bounded time; return what went wrong by channel, or "".
    """
    channels: List[Tuple[str, str, Send]] = [("Healthchecks", HEALTHCHECKS_URL, ping)]
    if event in SUBJECTS:
        channels += [("webhook", WEBHOOK_URL, call_webhook), ("email", SMTP_URL, send_mail)]
    senders = {channel: send for channel, setting, send in channels if setting}
    troubles = dict.fromkeys(senders, f"not done after {TELL_TIMEOUT} s")

    def attempt(channel: str) -> None:
        try:
            senders[channel](event, readable(text))
            troubles[channel] = ""
        except Exception as error:
            troubles[channel] = reason(error)

    threads = [Thread(target=attempt, args=(channel,), daemon=True) for channel in senders]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + TELL_TIMEOUT
    for thread in threads:
        thread.join(max(0, deadline - time.monotonic()))
    for channel, trouble in troubles.items():
        if trouble and event != "test":
            log.warning("The %s channel failed: %s.", channel, trouble)
    return troubles


def ping(event: str, text: str) -> None:
    """Tell Healthchecks (https://healthchecks.io/docs/http_api/); raises what post() does."""
    parts = urlsplit(HEALTHCHECKS_URL)
    url = parts._replace(path=parts.path.rstrip("/") + ENDPOINTS.get(event, "")).geturl()
    for pause in (1, 1, 0):
        try:
            post(url, data=text.encode())
            break
        except Exception:
            if not pause:
                raise
        time.sleep(pause)


def call_webhook(_event: str, text: str) -> None:
    """Tell a webhook, in the words of Slack, Mattermost and Discord; raises what post() does."""
    text = f"LUMIERE VOD archiver on {socket.gethostname()}: {text}"[:2000]
    post(WEBHOOK_URL, json={"text": text, "content": text})


def post(url: str, **body: Any) -> None:
    """POST to an address and expect a status of 2xx; raises Failure or RequestException."""
    with requests.post(
        url, headers=HEADERS, timeout=5, allow_redirects=False, stream=True, **body
    ) as response:
        if not 200 <= response.status_code < 300:
            raise Failure(f"answered with status {response.status_code}")


def send_mail(event: str, text: str) -> None:
    """Send an email to all of EMAIL_TO; raises Failure, SMTPException or OSError."""
    message = email.message.EmailMessage()
    message["Subject"] = f"LUMIERE VOD: {SUBJECTS[event]} ({socket.gethostname()})"
    message["From"], message["To"] = EMAIL_FROM, EMAIL_TO
    message["Date"], message["Message-ID"] = email.utils.formatdate(), email.utils.make_msgid()
    message.set_content(text)
    data = message.as_bytes().replace(b"\n", b"\r\n")  # send_message() of Python 3.6 spoils headers
    sender, *receivers = [at for _, at in email.utils.getaddresses([EMAIL_FROM, EMAIL_TO])]
    parts, context = urlsplit(SMTP_URL), ssl.create_default_context()
    host, smtps = parts.hostname or "", parts.scheme == "smtps"
    connection: smtplib.SMTP
    if smtps:
        connection = smtplib.SMTP_SSL(host, parts.port or 465, timeout=10, context=context)
    else:
        connection = smtplib.SMTP(host, parts.port or 587, timeout=10)
    with connection as server:
        server.ehlo()
        if not smtps and server.has_extn("starttls"):
            server.starttls(context=context)
        if parts.username and not isinstance(server.sock, ssl.SSLSocket):
            raise Failure("no TLS is offered, and no password is sent without it")
        if parts.username:
            server.login(unquote(parts.username), unquote(parts.password or ""))
        refused = server.sendmail(sender, receivers, data)
    if refused:
        raise Failure(f"{len(refused)} of the addresses were refused")


def test_notifications() -> Tuple[int, str, str]:
    """Send a test over each channel, say for each whether it went, and return the exit code."""
    troubles = tell("test", "This is a test of the LUMIERE VOD archiver's notifications.")
    for channel, trouble in troubles.items():
        write_out(sys.stdout, f"{channel}: {trouble or 'sent'}.\n")
    if not troubles:
        hint = "No channel is set: see HEALTHCHECKS_URL, WEBHOOK_URL and SMTP_URL.\n"
        write_out(sys.stderr, hint)
    return 2 if not troubles else 1 if any(troubles.values()) else 0, "", ""


def write_out(stream: Optional[IO[str]], text: str) -> None:
    """Write to stdout or stderr at once, if it is there; what becomes of it can't hurt the run."""
    if stream:
        with contextlib.suppress(OSError):
            os.write(stream.fileno(), text.encode(errors="backslashreplace"))


def readable(text: str) -> str:
    """Return a text as UTF-8, of which Python 3.6 under cron, for one, has decoded only ASCII."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def reason(error: BaseException) -> str:
    """Name an error's first cause, but never its text, which may hold a secret address."""
    if isinstance(error, Failure):
        return str(error)
    while error.__cause__ or error.__context__:
        error = error.__cause__ or error.__context__  # type: ignore[assignment]
    return getattr(error, "strerror", None) or type(error).__name__


def shown(url: str) -> str:
    """Return an address without the user, password and query that it may hold."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


if __name__ == "__main__":
    raise SystemExit(main())
