#!/usr/bin/env python3
"""Keep every edition of the LUMIERE VOD dataset; made to be run by cron once a month.

The API of LUMIERE VOD serves the current dataset only: when a new one comes, the old one is gone.
One run locks the archive, asks for the country codes of the Council of Europe's members, downloads
all works into a hidden file in archive/ and compares its MD5 with that of the last dataset. A new
dataset is checked to its last byte, published as archive/<prefix><newest presence_date>.json and
listed in archive/MD5SUMS.

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
import email.utils
import functools
import hashlib
import json
import logging
import os
import re
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import IO, Any, Callable, Dict, Iterable, Iterator, List, Optional, Tuple
from urllib.parse import urljoin, urlsplit

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

# Of each setting: the type, what it must look like, and that in words.
LEVELS = "DEBUG|INFO|WARNING|ERROR|CRITICAL"
ADDRESS = r"https?://([^/?#@\s]*@)?([\w.-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?([/?#][!-~]*)?"
PREFIX = "([A-Za-z0-9_-][A-Za-z0-9_. -]{0,99})?"
ABOVE_0 = r"(?=.*[1-9])[0-9]{1,6}(\.[0-9]+)?"
RULES: List[Tuple[str, Callable[[str], Any], str, str]] = [
    ("DATA_API_URL COUNTRY_CODE_API_URL", str, ADDRESS, "an http:// or https:// address"),
    ("STORAGE_DIR LAST_CHECKSUM_FILE LOG_FILE", os.path.expanduser, ".+", "a path"),
    ("LOG_LEVEL", str.upper, f"(?i){LEVELS}", LEVELS.replace("|", " or ")),
    ("ARCHIVE_FILENAME_PREFIX", str, PREFIX, "letters, digits, and _ . - inside"),
    ("CHUNK_SIZE ATTEMPTS", int, "[1-9][0-9]{0,8}", "a whole number from 1 to 999999999"),
    ("CONNECT_TIMEOUT READ_TIMEOUT MAX_RUNTIME", float, ABOVE_0, "above 0 and below 1000000"),
    ("RETRY_DELAY", float, r"[0-9]{1,6}(\.[0-9]+)?", "0 or more and below 1000000"),
]
HEADERS = {"User-Agent": "lumiere-vod-archiver/2.0", "Accept": "application/json"}
# A thousand brackets opened in a row: ijson's memory grows with their square, to 25 GB at 100,000.
TOO_DEEP, NO_BRACKETS = rb"[\[{]{1000}", bytes(set(range(256)) - set(b"[]{}"))
PART = ".lumiere.part"  # the hidden file in which contents grow until they are given their name
MD5: Any = hashlib.md5
if sys.version_info >= (3, 9):  # where a system in FIPS mode can be told that nothing is secured
    MD5 = functools.partial(hashlib.md5, usedforsecurity=False)
WATCHED = sys.stderr is not None and sys.stderr.isatty()  # by somebody at a terminal
log = logging.getLogger("data_collect")  # not the root: urllib3's DEBUG lines hold whole addresses


class Failure(Exception):
    """What can be expected to go wrong, as a sentence without its full stop."""

    def __init__(self, text: str, curable: bool = False, wait: Optional[float] = None) -> None:
        super().__init__(text)
        self.curable = curable  # by time: in `wait` seconds, where the server says so
        self.wait = wait


class Stopped(BaseException):
    """A signal ends the run; no Exception, since urllib3 and logging swallow some of those."""


def main(arguments: Optional[List[str]] = None) -> int:
    """Run the script with these command-line arguments and return its exit code."""
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=layout)
    parser.add_argument("--verify", action="store_true", help="re-hash the archive; no download")
    options = parser.parse_args(arguments)
    complaint = load_settings()
    if complaint:
        print(complaint, file=sys.stderr)
        return 2
    try:
        return verify() if options.verify else monthly_run()
    except Failure as failure:
        log.error("%s.", failure)
    except Stopped as stopped:
        text, exit_code = stopped.args
        log.error("%s; the temporary file is removed.", text)
        return int(exit_code)
    except OSError as error:
        log.error("Could not go on in %s: %s; its datasets are whole.", STORAGE_DIR, error)
    except Exception:
        log.exception("An unexpected error; please report it with the lines that follow.")
    finally:
        if hasattr(signal, "setitimer"):  # an alarm after the end would kill Python itself
            signal.setitimer(signal.ITIMER_REAL, 0)
    return 1


def monthly_run() -> int:
    """Archive the API's dataset unless that is done; raises Failure, OSError or Stopped."""
    start_log()
    catch_signals()
    os.makedirs(STORAGE_DIR, exist_ok=True)
    os.chdir(STORAGE_DIR)  # from here on, a name without a folder is a file of the archive
    with open(".lock", "a") as lock:  # never removed: two runs could then lock two files
        take(lock)
        log.info("Run started; the archive is %s.", STORAGE_DIR)
        try:
            codes = persevere(ask_country_codes)
            dataset = persevere(lambda: receive(codes))
            if dataset:
                archive(*dataset)
            else:
                log.info("Unchanged: the API still serves the last dataset.")
        finally:
            for path in (PART, part_of(LAST_CHECKSUM_FILE)):
                with contextlib.suppress(FileNotFoundError):
                    os.remove(path)
    return 0


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
                failure.args = (f"{failure}; nothing was archived{tried}",)
                raise
            number, delay = number + 1, delay * 2
            log.warning("%s; attempt %d of %d in %.1f s.", failure, number, ATTEMPTS, wait)
        time.sleep(wait)


def ask_country_codes() -> List[str]:
    """Ask for the codes of the Council of Europe's members, sorted; raises Failure."""
    where = shown(COUNTRY_CODE_API_URL)
    with ask("GET", COUNTRY_CODE_API_URL) as response:
        body = b"".join(chunks_of(response))
    try:
        countries = json.loads(body.decode("utf-8"))
        codes = sorted({country["code"] for country in countries if country["is_coe"] is True})
        log.info("%d countries: %s.", len(codes), ascii(" ".join(codes)))
    except (ValueError, RecursionError):
        raise Failure(f"{where} did not answer with JSON", curable=True) from None
    except (KeyError, TypeError):  # no list, a key that is missing, or a code that is no text
        raise Failure(f"{where} did not answer with a list of countries") from None
    if not all(codes):
        raise Failure(f"{where} lists a member without a code")
    if not codes:
        raise Failure(f"{where} lists no member of the Council of Europe")
    return codes


def ask(method: str, url: str, question: Optional[Dict[str, Any]] = None) -> requests.Response:
    """Send a request and return its answer, status 200, the body still to come; raises Failure."""
    hooks, timeout = {"response": judge}, (CONNECT_TIMEOUT, READ_TIMEOUT)
    try:
        response = requests.request(
            method, url, json=question, headers=HEADERS, stream=True, timeout=timeout, hooks=hooks
        )
    except (requests.RequestException, ValueError) as error:  # ValueError: a redirect to nowhere
        curable = isinstance(error, (requests.ConnectionError, requests.Timeout))
        raise Failure(f"{shown(url)} could not be asked: {reason(error)}", curable) from None
    # Without this, urllib3 1.26 takes less than Content-Length for the whole.
    response.raw.enforce_content_length = True
    return response


def judge(response: requests.Response, **_: Any) -> None:
    """Raise Failure at an answer, or a step on the way to it, that is of no use."""
    status, headers, wait = response.status_code, response.headers, None
    lost_post = status in (301, 302, 303) and response.request.method == "POST"  # it becomes a GET
    if status == 200 or (response.is_redirect and not lost_post):
        return
    response.close()
    text = f"{shown(response.url)} answered with status {status}"
    if lost_post:
        text += f": has it moved to {shown(urljoin(response.url, headers.get('Location', '')))!a}?"
    curable = status in (408, 429) or status >= 500
    with contextlib.suppress(LookupError, TypeError, ValueError, ArithmeticError):  # nonsense
        after = headers["Retry-After"]  # seconds or a date: RFC 9110, 10.2.3
        date = None if after.isdigit() else email.utils.parsedate_to_datetime(after)
        wait = max(0.0, date.timestamp() - time.time()) if date else float(after)
        text += f", to be asked again in {wait:.0f} s"
    raise Failure(text, curable, wait)


def chunks_of(response: requests.Response) -> Iterator[bytes]:
    """Yield a body in chunks of about CHUNK_SIZE bytes; raises Failure where it breaks off."""
    try:
        yield from response.iter_content(CHUNK_SIZE)
    except Exception as error:  # requests 2.27 lets some of urllib3's own through
        text = f"The transfer from {shown(response.url)} broke off: {reason(error)}"
        raise Failure(text, curable=True) from None


def receive(codes: List[str]) -> Optional[Tuple[str, int, int, int, str]]:
    """Download a dataset; return None if it is the last one, or check it and return its MD5, its
    size in bytes, works, presences and newest presence_date; raises Failure, OSError.
    """
    with open(PART, "wb") as file:
        md5, size = download(codes, file)
        if md5 == read_text(LAST_CHECKSUM_FILE).strip().lower():
            return None
        file.flush()
        os.fsync(file.fileno())
    try:
        return (md5, size, *check())
    except Failure as failure:
        os.makedirs("rejected", exist_ok=True)
        move(PART, os.path.join("rejected", md5 + ".txt"))  # so the same bytes are kept only once
        failure.args = (f"{failure}; it is kept as rejected/{md5}.txt",)
        raise


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
    seconds = time.monotonic() - started
    rate = size / 1e6 / seconds
    log.info("%s bytes in %.0f s (%.1f MB/s), MD5 %s.", f"{size:,}", seconds, rate, md5.hexdigest())
    return md5.hexdigest(), size


def check() -> Tuple[int, int, str]:
    """Read what was received to its end; return works, presences and the newest presence_date.

    Raises Failure unless it is one whole array of works, some of them with a usable date.
    """
    log.debug("Checking with the %s backend of ijson.", ijson.backend)
    answer = f"The answer of {shown(DATA_API_URL)} is"
    with open(PART, "rb") as file:
        blocks = iter(lambda: file.read(CHUNK_SIZE), b"")
        if any(re.search(TOO_DEEP, block.translate(None, NO_BRACKETS)) for block in blocks):
            raise Failure(f"{answer} no dataset but brackets within brackets")
        try:
            file.seek(0)
            is_array = next(ijson.basic_parse(file))[0] == "start_array"
            file.seek(0)
            works, presences, dated, newest = count(ijson.items(file, "item"))
        except (ijson.JSONError, ValueError):
            raise Failure(f"{answer} not whole, well-formed JSON", curable=True) from None
    if not works or not is_array:  # in an object, items() would find the key "item"
        raise Failure(f"{answer} not an array of works")
    if not dated:
        raise Failure(f"{answer} an array of works without any usable presence_date")
    if dated < presences:
        log.warning("%d presences without a usable date were passed over.", presences - dated)
    return works, presences, newest


def count(items: Iterable[Any]) -> Tuple[int, int, int, str]:
    """Count works, presences, and presences with a usable date; find the newest date."""
    works = presences = dated = 0
    newest = ""
    for work in items:
        works += 1
        listed = work.get("presences") if isinstance(work, dict) else None
        for presence in listed if isinstance(listed, list) else ():
            text = presence.get("presence_date") if isinstance(presence, dict) else ""
            date = iso_date(str(text)[:40])
            presences += 1
            dated += date != ""
            newest = max(newest, date)
    return works, presences, dated, newest


@functools.lru_cache(maxsize=1000)  # there are millions of presences, but few days
def iso_date(text: str) -> str:
    """Return the date part of an ISO 8601 date or date-time as YYYY-MM-DD, or else ""."""
    if not re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}([Tt ][0-9]{2}[0-9:.,]*[Zz0-9:+ -]*)?", text):
        return ""
    try:
        return str(datetime.datetime.strptime(text[:10], "%Y-%m-%d").date())
    except ValueError:  # the 31st of February
        return ""


def archive(md5: str, size: int, works: int, presences: int, date: str) -> None:
    """Publish what was received, unless these bytes stand in the archive; raises OSError."""
    md5sums, names = read_md5sums(), [n for n in dataset_names() if os.path.getsize(n) == size]
    name = next((name for name in names if md5_of(name) == md5), None)
    known = name is not None and md5sums.get(name) == md5
    if name is None:
        name = free_name(date)
        move(PART, name)
    if not known:
        md5sums[name] = md5
        replace_text("MD5SUMS", "".join(f"{md5sums[n]}  {n}\n" for n in md5sums))
    replace_text(LAST_CHECKSUM_FILE, f"{md5}\n")
    if known:
        log.info("Unchanged: the archive has this dataset as %s.", name)
        return
    text = f"New dataset: {name}, {size:,} bytes, {works:,} works, {presences:,} presences, "
    text += f"MD5 {md5}."
    log.info(text)
    if not WATCHED:
        with contextlib.suppress(OSError):  # the dataset is safe, whatever becomes of stdout
            os.write(1, f"{text}\n".encode())


def free_name(date: str) -> str:
    """Return the first name for a dataset of this date that is not taken."""
    name, number = f"{ARCHIVE_FILENAME_PREFIX}{date}.json", 0
    while os.path.lexists(name):
        number += 1
        name = f"{ARCHIVE_FILENAME_PREFIX}{date}_{number}.json"
    return name


def verify() -> int:
    """Hash what MD5SUMS lists, name what is wrong, and return the exit code; raises OSError."""
    os.chdir(STORAGE_DIR)
    md5sums, names, wrong = read_md5sums(), dataset_names(), 0
    for name, md5 in md5sums.items():
        try:
            found = md5_of(name)
            trouble = f"damaged: its MD5 is {found}, in MD5SUMS {md5}"
        except OSError as error:
            found, trouble = "?", f"missing or unreadable: {error.strerror}"
        if found != md5:
            wrong += 1
            log.error("%s is %s.", name, trouble)
    for name in names:
        if name not in md5sums:
            print(f"{name} is not listed in MD5SUMS.")
    print(f"{len(md5sums) - wrong} of {len(md5sums)} files listed in MD5SUMS are whole.")
    return 1 if wrong or (names and not md5sums) else 0


def read_md5sums() -> Dict[str, str]:
    """Read the archive's MD5SUMS, as md5sum writes it: MD5 by file name; raises OSError."""
    return {line[34:]: line[:32].lower() for line in read_text("MD5SUMS").splitlines()}


def dataset_names() -> List[str]:
    """List the datasets in the archive; raises OSError."""
    names = (name for name in sorted(os.listdir(".")) if name.endswith(".json"))
    return [name for name in names if name[0] != "." and os.path.isfile(name)]


def part_of(path: str) -> str:
    """Return the path of the hidden file that is to become this one."""
    return os.path.join(os.path.dirname(path), PART)


def read_text(path: str) -> str:
    """Read a small text file, "" if there is none; raises OSError."""
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return file.read()
    except FileNotFoundError:
        return ""


def replace_text(path: str, text: str) -> None:
    """Give a small text file new contents, all at once and durably; raises OSError."""
    with open(part_of(path), "w", encoding="utf-8", errors="surrogateescape") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    move(part_of(path), path)


def move(path: str, target: str) -> None:
    """Give a synced file its name, and wait until that is on the disk; raises OSError."""
    os.replace(path, target)
    if os.name != "nt":  # Windows can't open a folder to sync it; NTFS keeps a journal of names
        folder = os.open(os.path.dirname(target) or ".", os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def md5_of(path: str) -> str:
    """Return a file's MD5 in 32 hex digits; raises OSError."""
    md5 = MD5()
    with open(path, "rb") as file:
        for block in iter(lambda: file.read(65536), b""):
            md5.update(block)
    return str(md5.hexdigest())


def load_settings() -> str:
    """Give each setting its value, from the environment or here; return what is wrong, or ""."""
    here = os.path.dirname(os.path.abspath(__file__))
    for names, convert, pattern, expected in RULES:
        for name in names.split():
            text = os.environ.get(f"LUMIERE_{name}", "").strip()
            value = text or str(globals()[name])
            if not re.fullmatch(pattern, value):
                return f"{'LUMIERE_' if text else ''}{name} must be {expected}."
            value = convert(value)
            globals()[name] = os.path.join(here, value) if convert is os.path.expanduser else value
    return ""


def start_log() -> None:
    """Open the log; on a terminal show it there, too, and elsewhere only errors; raises OSError."""
    logging.raiseExceptions = False  # a full disk under the log is no reason for tracebacks
    stream = open(LOG_FILE, "a", encoding="utf-8", errors="backslashreplace")  # noqa: SIM115
    file = logging.StreamHandler(stream)
    console = logging.StreamHandler()
    console.setLevel(logging.ERROR)
    for handler in (file, console) if WATCHED else (file,):
        handler.setLevel(LOG_LEVEL)
        handler.setFormatter(logging.Formatter("%(asctime)s - %(levelname)s - %(message)s"))
    log.handlers[:] = [console, file]
    log.setLevel(logging.DEBUG)


def catch_signals() -> None:
    """Raise Stopped on Ctrl-C, SIGTERM and after MAX_RUNTIME."""

    def stop(number: int, _frame: Any) -> None:
        if number in (signal.SIGINT, signal.SIGTERM):
            raise Stopped(f"Interrupted by {signal.Signals(number).name}", 128 + number)
        raise Stopped(f"Not done after MAX_RUNTIME, {MAX_RUNTIME:g} s", 1)

    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)
    if hasattr(signal, "SIGALRM"):  # else it is Windows, where the Task Scheduler ends a run
        signal.signal(signal.SIGALRM, stop)
        signal.setitimer(signal.ITIMER_REAL, MAX_RUNTIME, 10)  # again, should one be swallowed


def reason(error: BaseException) -> str:
    """Name an error's first cause, but never its text, which may hold a secret address."""
    while error.__cause__ or error.__context__:
        error = error.__cause__ or error.__context__  # type: ignore[assignment]
    return getattr(error, "strerror", None) or type(error).__name__


def shown(url: str) -> str:
    """Return an address without the user, password and query that it may hold."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


if __name__ == "__main__":
    raise SystemExit(main())
