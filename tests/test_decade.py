"""Ten years of an archive, month after month, with faults in random order, by seeds.

A seed stands for one walk. To walk further, by other seeds each time, or one of them once more:

    pytest test_decade.py --decades 20
    pytest test_decade.py --decades 1 --seed 4711
"""

import csv
import io
import json
import os
import random
import re
import shutil
import signal
import subprocess
import threading
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Set

import lumiere_api
import pytest
from conftest import WORKS, Archiver, Result, assert_one_sentence, finish, md5
from lumiere_api import Answer, answer, chunked, head, raw, until_close, zipped

PREFIX = "Complete_lumiere_COE_"
COLUMNS = "path presence_date created bytes hash works presences countries source software".split()
CHECKSUM = "last_checksum.txt"

# What a month can bring, and how often
EDITIONS = ["same"] * 9 + ["new"] * 6 + ["revised"] * 3 + ["again"] * 3
GOOD = ["plain"] * 12 + ["chunked", "zipped", "until close", "busy at first", "cut at first"]
REJECTED = ["truncated", "HTML", "another form"]
TRANSFERS = GOOD + REJECTED + ["cut", "empty", "refused"]
TARGETS = ["archive/editions.csv"] * 2 + ["archive/MD5SUMS", CHECKSUM]
LOSSES = ["lost", "torn", "garbage", "folder"]
GARBAGE = [b"", b"\0\xff\xfe\n\0,", b'"', b'path,hash\r\n"', b"x" * 200000, b"\n" * 9, b"a,b\n,\n"]
AMID = ["second run", "SIGKILL", "SIGTERM", "SIGHUP"]  # while a download pauses
INJECTED = ["SIGKILL", "SIGKILL", "EIO", "EIO", "EIO", "ENOSPC", "SIGTERM", "SIGHUP"]
# System calls to put a fault into, and about how many of each a run makes in the archive.
CALLS = {
    "?open,openat": 24, "%%stat": 40, "close": 20, "read": 20, "write": 6, "fsync": 10,
    "?rename,?renameat,?renameat2": 5, "?unlink,?unlinkat": 8, "?mkdir,?mkdirat": 2,
    "?getdents,getdents64": 10, "?lseek": 12, "flock": 1,
}  # fmt: skip
WEIGHTED = [call for call, times in CALLS.items() for _ in range(min(times, 10))]
CODES = {"SIGKILL": -9, "SIGTERM": 143, "SIGHUP": 129, "EIO": 1, "ENOSPC": 1}


class Edition(NamedTuple):
    """A dataset, and what is to be found in it."""

    data: bytes
    date: str
    works: int
    presences: int


class Month(NamedTuple):
    """What the API serves in a month, and what else happens."""

    edition: Edition
    news: str  # of EDITIONS
    transfer: str = "plain"
    loss: str = ""  # before the run: of LOSSES, or "destroyed", or "away"
    target: str = ""  # what is lost
    fault: str = ""  # amid the run
    call: str = ""  # the system call that has the fault; "": it comes while a download pauses
    nth: int = 0  # the how manieth such call
    lasting: bool = False  # an error that all later ones of these calls have, too
    share: float = 0.5  # where in a file it is cut, which dataset is destroyed
    by_hand: bool = False  # whether somebody tries again, should the month fail


class Ending(NamedTuple):
    """How a run ended, and whether the month's fault came to pass in it."""

    result: Result
    hit: bool


# The plan


def plan(seed: int, months: int, faults: Sequence[str]) -> List[Month]:
    """Make the months of a walk; the first ones of a longer walk are those of a shorter one."""
    chance = random.Random(seed)
    alike = chance.random() < 0.25  # all editions of one size
    editions: List[Edition] = []
    current: Optional[Edition] = None
    made = []
    for _ in range(months):
        news = chance.choice(EDITIONS) if current else "new"
        current = next_edition(chance, news, current, editions, alike)
        month = Month(current, news, transfer=chance.choice(TRANSFERS), share=chance.random())
        month = with_loss(chance, month, alike)
        month = with_fault(chance, month, faults)
        made.append(month._replace(by_hand=chance.random() < 0.4))
    return made


def next_edition(
    chance: random.Random,
    news: str,
    current: Optional[Edition],
    editions: List[Edition],
    alike: bool,
) -> Edition:
    """Choose what the API serves next, and add it to the editions if it is a new one."""
    if current and news == "same":
        return current
    if news == "again":
        return chance.choice(editions)
    year, quarter = divmod(len({edition.date for edition in editions}), 4)
    date = f"{2001 + year}-{quarter * 3 + 1:02}-15"
    if current and news == "revised":
        date = current.date
    editions.append(make_edition(chance, len(editions), date, alike))
    return editions[-1]


def make_edition(chance: random.Random, number: int, date: str, alike: bool) -> Edition:
    """Make a dataset of a few works, of a size that no other one has unless they are alike."""
    dates = [date, date + "T04:17:09Z", "2000-12-31", "2000-12-30"] + ["soon"] * (number % 5 == 4)
    lists = [[chance.choice(dates) for _ in range(chance.randrange(4))] for _ in range(3)]
    lists = [*lists[: chance.randrange(4)], [date]]
    works: List[Dict[str, Any]] = [
        {
            "id": at,
            "title": f"Ночь {number:03}",
            "presences": [{"presence_date": day} for day in days],
        }
        for at, days in enumerate(lists)
    ]
    size = 2000 if alike else 2000 + number
    works[0]["title"] += "!" * (size - len(lumiere_api.as_json(works)))
    return Edition(lumiere_api.as_json(works), date, len(works), sum(map(len, lists)))


def with_loss(chance: random.Random, month: Month, alike: bool) -> Month:
    """Choose what is lost before the run, in one month of four."""
    if chance.random() < 0.2:
        return month._replace(loss=chance.choice(LOSSES), target=chance.choice(TARGETS))
    # The archive is asked for the size of what it should have: see 'One run', 3 in the design.
    if chance.random() < 0.07 and not alike:
        return month._replace(loss=chance.choice(["away", "away", "destroyed"]), target="archive")
    return month


def with_fault(chance: random.Random, month: Month, faults: Sequence[str]) -> Month:
    """Choose what happens amid the run, in two months of five."""
    kind, amid, injected = chance.random(), chance.choice(AMID), chance.choice(INJECTED)
    call = chance.choice(WEIGHTED)
    nth = 1 + int(CALLS[call] * chance.random() ** 1.5)  # the later ones are not always made
    if kind < 0.08 and amid in faults:
        return month._replace(fault=amid, transfer="plain")
    if 0.08 <= kind < 0.45 and "EIO" in faults:
        lasting = injected.startswith("E") and chance.random() < 0.5
        return month._replace(fault=injected, call=call, nth=nth, lasting=lasting)
    return month


def possible_faults() -> List[str]:
    """List the faults that this machine can bring about."""
    faults = AMID if os.name == "posix" else AMID[:1]
    return [*faults, "EIO", "ENOSPC"] if shutil.which("strace") else faults


# The walk


class Shelf:
    """What must be true of an archive, going by what it was after the last run."""

    def __init__(self) -> None:
        self.datasets: Dict[str, bytes] = {}  # all that ever stood there
        self.destroyed: Set[str] = set()  # those of them that the walk took away
        self.forgotten: Dict[str, bytes] = {}  # such of which no list need know any more
        self.rows: List[Dict[str, str]] = []
        self.odd: Dict[str, bytes] = {}  # well-formed JSON in rejected/
        self.told = ""
        self.doubtful = {CHECKSUM}  # lists that the walk has damaged, or knows nothing of
        self.settled = False  # nothing has happened since the last run, and that went well


class Walk:
    """An archiver, and what is known of its archive and its API."""

    def __init__(self, archiver: Archiver) -> None:
        self.archiver, self.shelf = archiver, Shelf()
        self.editions: Dict[bytes, Edition] = {}  # all that the API has ever served
        self.rejectable: Set[bytes] = set()  # what came whole but is no dataset
        self.runs = 0  # how many have got as far as their first line in the log

    @property
    def away(self) -> Path:
        """Where the archive is while its disk is not mounted."""
        return self.archiver.folder.parent / "away"


def play(walk: Walk, month: Month) -> Ending:
    """Do to the archive what a month has in store, and run the script."""
    walk.editions[month.edition.data] = month.edition
    if month.transfer in REJECTED:
        walk.rejectable.update(bodies(month))
    if month.loss:
        lose(walk, month)
    walk.archiver.api.on(WORKS, *answers(month))
    if month.call:
        ending = run_with_injection(walk, month)
    elif month.fault:
        ending = run_with_pause(walk, month)
    else:
        ending = Ending(walk.archiver.run(), False)
    walk.shelf.told += ending.result.out
    return ending


def bodies(month: Month) -> List[bytes]:
    """List the bodies that come whole, one after the other, where a month brings no dataset."""
    data, number = month.edition.data, int(month.share * 1e9)
    at = 2 + int(month.share * (len(data) - 2))
    return {
        "truncated": [data[: at // 2], data[:at]],
        "HTML": [b"<html>Maintenance until %d</html>" % number],
        "another form": [b'{"works": [], "page": %d}' % number],
        "empty": [b""],
    }.get(month.transfer, [data])


def answers(month: Month) -> List[Answer]:
    """Build what the API answers in a month, attempt by attempt."""
    data = month.edition.data
    cut = answer(data[: int(month.share * len(data))], length=len(data))
    return {
        "chunked": [chunked(data)],
        "zipped": [zipped(data)],
        "until close": [until_close(data)],
        "busy at first": [answer(status="503 Busy"), answer(data)],
        "cut at first": [cut, answer(data)],
        "cut": [cut],
        "refused": [answer(status="404 Not Found")],
    }.get(month.transfer, [chunked(body) for body in bodies(month)])


def lose(walk: Walk, month: Month) -> None:
    """Damage a list, or take a dataset or the whole archive away."""
    shelf, archiver = walk.shelf, walk.archiver
    shelf.settled = False
    if month.loss == "away":
        archiver.archive.rename(walk.away)
        archiver.archive.mkdir()
        walk.shelf = Shelf()
    elif month.loss == "destroyed":
        there = sorted(shelf.datasets.keys() - shelf.destroyed)
        for name in there[int(month.share * len(there)) :][:1]:
            (archiver.archive / name).unlink()
            shelf.destroyed.add(name)
    else:
        spoil(archiver.folder / month.target, month.loss, month.share)
        shelf.doubtful.add(Path(month.target).name)
    if month.target.endswith("editions.csv"):  # the only witness of what is gone
        shelf.rows = []
        for name in shelf.destroyed:
            shelf.forgotten[name] = shelf.datasets.pop(name)
        shelf.destroyed = set()


def spoil(path: Path, loss: str, share: float) -> None:
    """Do to a file what a bad disk, or a bad day, can do."""
    data = path.read_bytes() if path.exists() else b""
    if path.exists():
        path.unlink()
    if loss == "folder":
        path.mkdir()
    elif loss == "torn":
        path.write_bytes(data[: int(share * len(data))])
    elif loss == "garbage":
        garbage = GARBAGE[int(share * 1000) % len(GARBAGE)]
        kept = data[: int(share * len(data))]
        # The last three fields are free text: a row whose damage lies there can't be told from one
        # that is whole, so it comes in front of them.
        path.write_bytes(re.sub(rb"(?m)^((?:[^,\n]*,){7})[^\n]*\Z", rb"\1", kept) + garbage)


def run_with_pause(walk: Walk, month: Month) -> Ending:
    """Run the script, and let something happen while half a dataset has come."""
    data = month.edition.data
    reached, go_on = threading.Event(), threading.Event()

    def pause(connection: Any) -> None:
        reached.set()
        assert go_on.wait(60)
        connection.sendall(data[len(data) // 2 :])

    half = head("200 OK", [f"Content-Length: {len(data)}"]) + data[: len(data) // 2]
    walk.archiver.api.on(WORKS, raw(half, then=pause), answer(data))
    child = walk.archiver.start()
    while child.poll() is None and not reached.wait(0.02):
        pass
    hit = child.poll() is None and disturb(walk, month.fault, child)
    go_on.set()
    return Ending(finish(child), hit)


def disturb(walk: Walk, fault: str, child: Any) -> bool:
    """Start a second run, or send a signal; tell whether that may change the run."""
    if fault == "second run":
        second = walk.archiver.run()
        assert (second.code, second.out) == (1, ""), second
        assert_one_sentence(second.err, "Another run")
        return False
    number = getattr(signal, fault)
    child.send_signal(number)
    return signal.getsignal(number) != signal.SIG_IGN  # as under nohup, which children inherit


def run_with_injection(walk: Walk, month: Month) -> Ending:
    """Run the script under strace, which puts a fault into a system call on the archive's files."""
    trace = walk.archiver.folder.parent / "trace"
    fault = f"signal={month.fault}" if month.fault.startswith("SIG") else f"error={month.fault}"
    # Four times as fast as a stop at every call, but strace 6.1 then injects no signal.
    quick = [] if "signal" in fault else ["--seccomp-bpf"]
    command = ["strace", *quick, "-f", "-qq", "-o", str(trace), *own_paths(walk, month)]
    when = f"when={month.nth}{'+' if month.lasting else ''}"
    command += ["-e", f"trace={month.call}", "-e", f"inject={month.call}:{fault}:{when}"]
    code, out, err = walk.archiver.run(before=command)
    result = Result(code, out, re.sub("(?m)^strace: .*\n", "", err))
    said = trace.read_text(errors="replace")
    return Ending(result, re.search(r"\(INJECTED\)|--- SIG|\+\+\+ killed", said) is not None)


def own_paths(walk: Walk, month: Month) -> List[str]:
    """Build strace's options for the script's own files; a relative path counts as another one."""
    archiver, date = walk.archiver, month.edition.date
    names = {".lock", ".lumiere.part", "MD5SUMS", "editions.csv", "rejected", *walk.shelf.datasets}
    names |= {f"{PREFIX}{date}{end}.json" for end in ("", "_1", "_2", "_3", "_4", "_5")}
    kept = {f"rejected/{md5(data)}" for data in walk.rejectable}
    names |= {name + ending for name in kept for ending in (".txt", ".json")}
    paths = [".", archiver.archive, archiver.checksum, archiver.folder / ".lumiere.part"]
    paths += [*sorted(names), *(archiver.archive / name for name in sorted(names))]
    return [word for path in paths for word in ("-P", str(path))]


def put_right(walk: Walk, month: Month) -> None:
    """Bring back the archive that was away, and remove a folder that was in a list's place."""
    target = walk.archiver.folder / month.target
    if month.loss == "away":
        shutil.rmtree(str(walk.archiver.archive))
        walk.away.rename(walk.archiver.archive)
    elif month.loss == "folder" and target.is_dir():
        target.rmdir()


# The promises


def hold(walk: Walk, month: Month, ending: Ending) -> None:
    """Hold the archive and the run to what is promised, and remember what must stay."""
    shelf, code = walk.shelf, ending.result.code
    calm = not ending.hit and month.loss != "folder"
    hold_ending(walk, month, ending)
    hold_datasets(walk)
    hold_rejected(walk, month, calm)
    if code == 0:
        shelf.doubtful = set()
        current = md5(month.edition.data)
        assert walk.archiver.checksum.read_bytes() == current.encode() + b"\n"
        assert current in map(md5, walk.archiver.datasets().values())
    if CHECKSUM not in shelf.doubtful:
        known = [*shelf.datasets.values(), *shelf.forgotten.values()]
        assert walk.archiver.checksum.read_text() in [md5(data) + "\n" for data in known]
    # What an injected fault kept from being read is told, and listed by the next run.
    listed_now = code == 0 and "can't be read and so not be listed" not in ending.result.out
    hold_lists(walk, month, calm, listed_now)
    runs = walk.archiver.log.count("Run started")
    idle = runs == walk.runs  # it did not get the lock, and so could not tidy up either
    walk.runs = runs
    if code != CODES["SIGKILL"] and not (ending.hit and "unlink" in month.call) and not idle:
        hold_tidy(walk)
    shelf.settled = calm and code == 0 and not month.loss


def hold_ending(walk: Walk, month: Month, ending: Ending) -> None:
    """Hold a run to its exit code, to one line for a failure, to silence where nothing is new."""
    code, out, err = ending.result
    codes = {0 if month.transfer in GOOD else 1}
    if month.loss == "folder":
        codes.add(1)
    if ending.hit:
        codes = {CODES[month.fault]} | (codes if month.fault != "SIGKILL" else set())
    if code < 0 and ending.hit:  # before Python could heed it
        codes.add(128 - CODES[month.fault])
    assert code in codes
    assert "Traceback" not in out + err
    if code == 0:
        assert err == ""
    elif code > 0:
        failures = err.splitlines(True)  # the run's own, and one in noting it down
        assert len(failures) <= (2 if ending.hit or month.loss == "folder" else 1)
        for failure in failures:
            assert_one_sentence(failure)
    standing = walk.shelf.datasets.keys() - walk.shelf.destroyed
    known = month.edition.data in [walk.shelf.datasets[name] for name in standing]
    if code == 0 and walk.shelf.settled and known and not ending.hit:
        assert re.sub("Unchanged.*\n(WARNING: \\d+ presences have no usable.*\n)", "", out) == ""


def hold_datasets(walk: Walk) -> None:
    """Hold that what was archived stays, once, and that nothing else stands there."""
    shelf, found = walk.shelf, walk.archiver.datasets()
    for name, data in shelf.datasets.items():
        if name not in shelf.destroyed:
            assert name in found
        assert found.get(name, data) == data, name
    assert len(set(found.values())) == len(found), sorted(found)
    for name, data in found.items():
        assert data in walk.editions, name
        assert re.fullmatch(f"{PREFIX}{walk.editions[data].date}(_[1-9][0-9]*)?.json", name)
    shelf.destroyed -= found.keys()
    shelf.datasets.update(found)


def hold_rejected(walk: Walk, month: Month, calm: bool) -> None:
    """Hold that what came whole is kept, and that bad months can't fill the disk."""
    paths = sorted((walk.archiver.archive / "rejected").glob("*"))
    found = {path.name: path.read_bytes() for path in paths}
    for name, data in found.items():
        assert name == f"{md5(data)}.{'json' if is_json(data) else 'txt'}"
        assert data in walk.rejectable, name
    assert walk.shelf.odd.items() <= found.items()
    walk.shelf.odd = {name: data for name, data in found.items() if is_json(data)}
    # A run that was disturbed may leave one more, until the next answer that is no whole JSON.
    if calm and month.transfer in REJECTED and not all(map(is_json, bodies(month))):
        assert len(found.keys() - walk.shelf.odd.keys()) <= 2
    if calm and month.transfer in REJECTED:
        assert set(bodies(month)) <= set(found.values())


def is_json(data: bytes) -> bool:
    """Tell whether these bytes are whole, well-formed JSON."""
    try:
        json.loads(data.decode("utf-8"))
    except ValueError:
        return False
    return True


def hold_lists(walk: Walk, month: Month, calm: bool, listed_now: bool) -> None:
    """Hold that the lists say what is there, and that what they say was told."""
    shelf, listed, found = walk.shelf, {}, walk.archiver.datasets()
    if "editions.csv" not in shelf.doubtful or calm:
        rows = read_rows(walk.archiver.archive / "editions.csv")
        listed = {row["path"]: row["hash"] for row in rows}
        assert len(listed) == len(rows)
        assert rows[: len(shelf.rows)] == shelf.rows
        for row in rows:
            hold_row(walk, row)
        shelf.rows = rows
        shelf.doubtful.discard("editions.csv")
    sums: Dict[str, str] = {}
    if "MD5SUMS" not in shelf.doubtful or calm:
        sums = read_sums(walk.archiver.archive / "MD5SUMS")
        shelf.doubtful.discard("MD5SUMS")
    due = {
        name for name, data in found.items() if calm or (listed_now and data == month.edition.data)
    }
    assert due <= listed.keys()
    assert due <= sums.keys()
    for name, data in found.items():
        assert sums.get(name, md5(data)) == md5(data)


def read_rows(path: Path) -> List[Dict[str, str]]:
    """Read an editions.csv by the letter of its contract."""
    if not path.exists():
        return []
    text = path.read_bytes().decode("utf-8")
    assert "\r" not in text
    assert text.endswith("\n")
    header, *lines = list(csv.reader(io.StringIO(text, newline=""), strict=True))
    assert header == COLUMNS
    assert {len(line) for line in lines} <= {len(COLUMNS)}
    return [dict(zip(header, line)) for line in lines]


def hold_row(walk: Walk, row: Dict[str, str]) -> None:
    """Hold that a row is right, and that somebody has heard of its dataset."""
    data = {**walk.shelf.forgotten, **walk.shelf.datasets}[row["path"]]
    edition = walk.editions[data]
    assert row["hash"] == md5(data)
    numbers = [int(row[name]) for name in ("bytes", "works", "presences")]
    assert numbers == [len(data), edition.works, edition.presences]
    assert row["presence_date"] == edition.date
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", row["created"])
    assert row["countries"] in ("", " ".join(sorted(lumiere_api.MEMBERS)))
    assert row["source"] in ("", walk.archiver.api.url + WORKS)
    assert row["software"] in ("", "lumiere-vod-archiver/2.0")
    assert was_told(walk.shelf, row["path"])


def was_told(shelf: Shelf, name: str) -> bool:
    """Tell whether cron has mailed somebody that a dataset was archived."""
    lines = shelf.told.split("\n")
    return any(name in line for line in lines if not re.search("^Unchanged|fewer", line))


def read_sums(path: Path) -> Dict[str, str]:
    """Read an MD5SUMS as md5sum does, without its leniency."""
    lines = path.read_text(encoding="utf-8").split("\n") if path.exists() else [""]
    assert lines.pop() == ""
    for line in lines:
        assert re.fullmatch(rf"[0-9a-f]{{32}}  {PREFIX}[0-9_-]+\.json", line)
    sums = {line[34:]: line[:32] for line in lines}
    assert len(sums) == len(lines)
    return sums


def hold_tidy(walk: Walk) -> None:
    """Hold that a run that was not killed leaves no file but those it should."""
    allowed = (
        rf"{CHECKSUM}|archive/(MD5SUMS|editions\.csv|[^./][^/]*\.json|rejected/\w+\.(txt|json))"
    )
    names = [name.replace(os.sep, "/") for name in walk.archiver.files()]
    assert [name for name in names if not re.fullmatch(allowed, name)] == []


def hold_in_the_end(walk: Walk) -> None:
    """Hold what must be true after all that, and one month in which nothing happened."""
    shelf, archive = walk.shelf, walk.archiver.archive
    for name in shelf.datasets.keys() - shelf.destroyed:
        assert was_told(shelf, name)
    sums = read_sums(archive / "MD5SUMS")
    assert set(walk.archiver.datasets()) <= sums.keys()
    lost = sums.keys() - set(walk.archiver.datasets())  # MD5SUMS is the record of them, too
    if shutil.which("md5sum") and not lost:
        subprocess.check_output(["md5sum", "-c", "MD5SUMS"], cwd=str(archive))
    result = walk.archiver.run("--verify")
    assert "Traceback" not in result.err
    assert (result.code == 0) == (not lost), result


# The test


def pytest_generate_tests(metafunc: Any) -> None:
    """Walk a short way with the suite, and as many decades as are asked for."""
    walks: List[Any] = [(1, 32), (2, 32)]
    base = metafunc.config.getoption("seed")
    for number in range(metafunc.config.getoption("decades")):
        walks.append(pytest.param(base + number, 120, marks=pytest.mark.timeout(1800)))
    metafunc.parametrize(("seed", "months"), walks)


def test_walk(fresh: Archiver, seed: int, months: int) -> None:
    """After every month all promises hold, whatever it brought."""
    faults = possible_faults()
    print(f"To walk this way again: pytest test_decade.py --decades 1 --seed {seed}")
    print(f"Faults amid a run, beside transfers and lists: {', '.join(faults)}")
    walk = Walk(fresh)
    month = Month(make_edition(random.Random(seed), 0, "2001-01-15", False), "new")
    for number, month in enumerate(plan(seed, months, faults)):
        take_a_month(walk, number, month)
    take_a_month(walk, months, Month(month.edition, "same"))
    hold_in_the_end(walk)


def take_a_month(walk: Walk, number: int, month: Month) -> None:
    """Play a month, hold the promises, and let somebody try again by hand if the plan says so."""
    shelf = walk.shelf
    code = step(walk, f"Month {number}", month)
    put_right(walk, month)
    if month.loss == "away":
        walk.shelf = shelf
        shelf.doubtful.add(CHECKSUM)  # it tells of the empty folder that the script was given
    if code and month.by_hand:
        step(walk, f"Month {number}, by hand", Month(month.edition, "same"))


def step(walk: Walk, label: str, month: Month) -> int:
    """Play a month and hold the promises; print the story, which pytest shows after a failure."""
    print(f"{label}: {story(month)}")
    ending = play(walk, month)
    print(f"  {'hit, ' if ending.hit else ''}{ending.result}")
    hold(walk, month, ending)
    return ending.result.code


def story(month: Month) -> str:
    """Say in a line what happens in a month."""
    parts = [f"{month.news} {month.edition.date} {md5(month.edition.data)[:8]}", month.transfer]
    if month.loss:
        parts.append(f"{month.target} {month.loss} ({month.share:.3f})")
    if month.fault:
        where = (
            f"at {month.call} {month.nth}{'+' * month.lasting}"
            if month.call
            else "while a download pauses"
        )
        parts.append(f"{month.fault} {where}")
    return ", ".join(parts)
