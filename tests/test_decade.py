"""Ten years of an archive, month after month, with faults in random order, by seeds.

A seed stands for one walk. To walk further, by other seeds each time, or one of them once more:

    pytest test_decade.py --decades 20
    pytest test_decade.py --decades 1 --seed 4711
"""

import csv
import io
import os
import random
import re
import shutil
import signal
import subprocess
import threading
from pathlib import Path
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Sequence, Set, Tuple

import lumiere_api
import pytest
from conftest import WORKS, Archiver, Result, assert_one_sentence, finish, md5
from lumiere_api import Answer, answer, chunked, head, raw, until_close, zipped

PREFIX = "Complete_lumiere_COE_"
COLUMNS = "path presence_date created bytes hash works presences countries source software".split()
NAME = rf"{PREFIX}[\d_-]+\.json"
CHECKSUM = "last_checksum.txt"
LISTS = ("editions.csv", "MD5SUMS")

# What a month can bring, and how often
EDITIONS = ["same"] * 9 + ["new"] * 6 + ["revised"] * 3 + ["again"] * 3
GOOD = ["plain"] * 12 + ["chunked", "zipped", "until close", "busy at first", "cut at first"]
REJECTED = ["truncated", "HTML", "another form", "empty array", "NaN", "BOM", "comma"]
TRANSFERS = GOOD + REJECTED + ["cut", "empty", "refused"]
TARGETS = ["archive/editions.csv"] * 2 + ["archive/MD5SUMS", CHECKSUM]
LOSSES = ["lost", "torn", "garbage", "folder", "saved", "saved"]
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
# How a spreadsheet, or somebody, leaves editions.csv. The first two no longer hold a row.
SAVED: List[Tuple[str, Callable[[bytes], bytes]]] = [
    ("semicolons", lambda data: data.replace(b",", b";")),
    (
        "other dates",
        lambda data: re.sub(rb",(\d{4})-(\d\d)-(\d\d)(T[\d:]+Z)?(?=,)", rb",\3/\2/\1", data),
    ),
    ("no last line feed", lambda data: data.rstrip(b"\n")),
    ("another column", lambda data: re.sub(rb"(?m)(?<=[^\n])$", b",seen", data)),
    ("a remark", lambda data: data + b"# compared with the copy, Anna\n"),
    ("CRLF", lambda data: data.replace(b"\n", b"\r\n")),
    ("BOM", lambda data: b"\xef\xbb\xbf" + data),
    ("quotes", lambda data: re.sub(rb'(?m)(^|,)([^,"\r\n]+)', rb'\1"\2"', data)),
    ("UTF-16", lambda data: data.decode("utf-8", "replace").encode("utf-16")),
]
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
    loss: str = ""  # before the run: of LOSSES, or "destroyed", "flipped", "away"
    target: str = ""  # what is lost
    fault: str = ""  # amid the run
    call: str = ""  # the system call that has the fault; "": it comes while a download pauses
    nth: int = 0  # the how manieth such call
    lasting: bool = False  # an error that all later ones of these calls have, too
    share: float = 0.5  # where in a file it is cut, which dataset is destroyed or damaged
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
        month = with_loss(chance, month)
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


def with_loss(chance: random.Random, month: Month) -> Month:
    """Choose what is lost before the run, in one month of three."""
    kind = chance.random()
    if kind < 0.2:
        loss, target = chance.choice(LOSSES), chance.choice(TARGETS)
        return month._replace(loss=loss, target=TARGETS[0] if loss == "saved" else target)
    if kind < 0.35:
        loss = chance.choice(["away", "destroyed", "flipped", "flipped"])
        return month._replace(loss=loss, target="archive")
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
        self.datasets: Dict[str, bytes] = {}  # those that stand there
        self.damaged: Dict[str, bytes] = {}  # those that the walk has damaged, as they were
        self.lists = dict.fromkeys(LISTS, b"")
        self.spoiled: Set[str] = set()  # lists in which lines may be that can't be read
        self.unreadable: Set[str] = set()  # and in which there are some for certain
        self.kept: Dict[str, bytes] = {}  # what is to stay in rejected/ for ever
        self.told = ""
        self.settled = False  # nothing has happened since the last run, and that went well

    def text(self, name: str) -> str:
        """Read a list without quotes and carriage returns, which spreadsheets add."""
        return re.sub('[\r"]', "", self.lists[name].decode("utf-8", "replace"))

    def rows(self) -> Set[Tuple[str, str]]:
        """Read the rows that are as the script writes them: names, MD5s."""
        row = rf"(?m)^({NAME}),[\d-]*,[^,\n]*Z,\d+,([0-9a-f]{{32}}),\d*,\d*(?:,[^,\n]*){{3}}$"
        return set(re.findall(row, self.text("editions.csv")))

    def sums(self) -> Dict[str, str]:
        """Read the lines of MD5SUMS as md5sum does, the last one of each name."""
        lines = re.findall(r"(?m)^([0-9a-fA-F]{32})  ([^\0\n]{1,255})$", self.text("MD5SUMS"))
        return {name: hashed.lower() for hashed, name in lines}


class Walk:
    """An archiver, and what is known of its archive and its API."""

    def __init__(self, archiver: Archiver) -> None:
        self.archiver, self.shelf = archiver, Shelf()
        self.editions: Dict[bytes, Edition] = {}  # all that the API has ever served
        self.rejectable: Set[bytes] = set()  # what came whole but is no dataset
        self.doubtful = True  # whether the walk has damaged CHECKSUM, or knows nothing of it
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
        "empty array": [b"[]"],
        "NaN": [data.replace(b'"id": 0', b'"id": NaN', 1)],
        "BOM": [b"\xef\xbb\xbf" + data],
        "comma": [data[:-1] + b",]"],
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
    """Damage a list or a dataset, or take a dataset or the whole archive away."""
    shelf, archiver = walk.shelf, walk.archiver
    shelf.settled = False
    standing = sorted(shelf.datasets.keys() - shelf.damaged.keys())
    chosen = standing[int(month.share * len(standing)) :][:1]
    if month.loss == "away":
        archiver.archive.rename(walk.away)
        archiver.archive.mkdir()
        walk.shelf = Shelf()
    elif month.loss == "destroyed":
        for name in chosen:
            (archiver.archive / name).unlink()
            del shelf.datasets[name]
    elif month.loss == "flipped":
        for name in chosen:
            shelf.damaged[name] = shelf.datasets[name]
            shelf.datasets[name] = flipped(shelf.datasets[name], month.share)
            (archiver.archive / name).write_bytes(shelf.datasets[name])
    elif month.target == CHECKSUM:
        spoil(archiver.folder / CHECKSUM, month)
        walk.doubtful = True
    else:
        spoil_list(walk, month)


def flipped(data: bytes, share: float) -> bytes:
    """Turn over one bit."""
    at = int(share * 1000003) % len(data)
    return data[:at] + bytes([data[at] ^ 1 << int(share * 7919) % 8]) + data[at + 1 :]


def spoil_list(walk: Walk, month: Month) -> None:
    """Damage a list, and remember what is left of it, all of which must stay."""
    shelf, path = walk.shelf, walk.archiver.folder / month.target
    before = shelf.lists[path.name]
    spoil(path, month)
    shelf.lists[path.name] = path.read_bytes() if path.is_file() else b""
    if month.loss in ("lost", "folder"):
        shelf.spoiled.discard(path.name)
        shelf.unreadable.discard(path.name)
    else:
        shelf.spoiled.add(path.name)
    if month.loss in ("torn", "garbage"):
        shelf.unreadable.discard(path.name)
    elif how_saved(month) in ("semicolons", "other dates") and before.count(PREFIX.encode()):
        shelf.unreadable.add(path.name)


def spoil(path: Path, month: Month) -> None:
    """Do to a file what a bad disk, a spreadsheet or a bad day can do."""
    data = path.read_bytes() if path.exists() else b""
    if path.exists():
        path.unlink()
    kept = data[: int(month.share * len(data))]
    if month.loss == "folder":
        path.mkdir()
    elif month.loss == "torn":
        path.write_bytes(kept)
    elif month.loss == "garbage":
        path.write_bytes(kept + GARBAGE[int(month.share * 1000) % len(GARBAGE)])
    elif month.loss == "saved":
        path.write_bytes(dict(SAVED)[how_saved(month)](data))


def how_saved(month: Month) -> str:
    """Choose what a spreadsheet does to a list: a key of SAVED."""
    return SAVED[int(month.share * 1000) % len(SAVED)][0] if month.loss == "saved" else ""


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
    names |= {f"rejected/{name}.damaged" for name in walk.shelf.damaged}
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
    hold_rejected(walk, month, calm)
    hold_datasets(walk, month, ending)
    if code == 0:
        walk.doubtful = False
        current = md5(month.edition.data)
        assert walk.archiver.checksum.read_bytes() == current.encode() + b"\n"
        assert current in map(md5, walk.archiver.datasets().values())
    if not walk.doubtful:
        known = [md5(data) + "\n" for data in walk.editions]
        assert walk.archiver.checksum.read_text() in known
    # What an injected fault kept from being read is told, and listed by the next run.
    listed_now = code == 0 and "can't be read and so not be listed" not in ending.result.out
    hold_lists(walk, month, ending, calm, listed_now)
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
    known = month.edition.data in walk.shelf.datasets.values()
    if code == 0 and walk.shelf.settled and known and not ending.hit:
        assert surprises(walk.shelf, out) == []
    if not ending.hit and month.loss != "away":
        for name in walk.shelf.unreadable:
            assert f"WARNING: {name} has lines that can't be read" in out


def surprises(shelf: Shelf, out: str) -> List[str]:
    """List what a month says in which nothing was new, but for what each month has to say."""
    usual = r"WARNING: \d+ presences have no usable presence_date\."
    for name in shelf.spoiled:
        usual += rf"|WARNING: {name} has lines that can't be read, .*"
    for name in shelf.damaged:
        usual += rf"|WARNING: {name} is damaged: .*"
    lines = [line for line in out.splitlines() if not re.fullmatch(usual, line)]
    return lines[1:] if out.startswith("Unchanged") else lines


def hold_datasets(walk: Walk, month: Month, ending: Ending) -> None:
    """Hold that what stood there stays, once, and that nothing new stands there but the API's."""
    shelf, found, served = walk.shelf, walk.archiver.datasets(), month.edition.data
    moved = [data for name, data in shelf.kept.items() if ".damaged" in name]
    listed = shelf.rows() | set(shelf.sums().items())
    for name, data in shelf.datasets.items():
        if found.get(name) != data:  # this edition was served, and took the place of its damage
            assert shelf.damaged.get(name) == served
            assert found.get(name) == served or ending.hit
            assert data in moved
            shelf.damaged.pop(name)
    assert len(set(found.values())) == len(found), sorted(found)
    for name in found.keys() - shelf.datasets.keys():
        assert found[name] == served
        assert re.fullmatch(f"{PREFIX}{month.edition.date}(_[1-9][0-9]*)?.json", name)
        others = {hashed for path, hashed in listed if path == name} - {md5(served)}
        assert ending.hit or not others, name
    names = {name for name, hashed in listed if hashed == md5(served)}
    if ending.result.code == 0 and names and served not in shelf.datasets.values():
        assert ending.hit or [name for name in names if found.get(name) == served], names
        assert ending.hit or re.search("was (damaged|missing)", ending.result.out)
    shelf.datasets = found


def hold_rejected(walk: Walk, month: Month, calm: bool) -> None:
    """Hold that what came whole is kept, and that bad months can't fill the disk."""
    shelf = walk.shelf
    paths = sorted((walk.archiver.archive / "rejected").glob("*"))
    found = {path.name: path.read_bytes() for path in paths}
    for name, data in found.items():
        damaged = re.fullmatch(r"(.*\.json)\.damaged(_\d+)?", name)
        if damaged:
            assert name in shelf.kept or data == shelf.datasets[damaged.group(1)]
        else:
            assert name == f"{md5(data)}.{'json' if looks_whole(data) else 'txt'}"
            assert data in walk.rejectable, name
    assert shelf.kept.items() <= found.items()
    shelf.kept = {name: data for name, data in found.items() if not name.endswith(".txt")}
    if calm and month.transfer in REJECTED:
        asked = bodies(month)
        if looks_whole(asked[0]) and asked[0] != b"[]":  # which time doesn't cure
            asked = asked[:1]
        assert set(asked) <= set(found.values())
        # A run that was disturbed may leave one more, until the next answer that isn't whole.
        if not all(map(looks_whole, asked)):
            assert len(found.keys() - shelf.kept.keys()) <= 2


def looks_whole(data: bytes) -> bool:
    """Tell whether these bytes begin and end as JSON does."""
    text = data.decode("utf-8-sig", "replace").strip()
    return text[:1] + text[-1:] in ("[]", "{}")


def hold_lists(walk: Walk, month: Month, ending: Ending, calm: bool, listed_now: bool) -> None:
    """Hold that the lists only grow, say what is there, and that what they say was told."""
    shelf, found = walk.shelf, walk.archiver.datasets()
    known = {"editions.csv": shelf.rows(), "MD5SUMS": set(shelf.sums().items())}
    for name in LISTS:
        path, before = walk.archiver.archive / name, shelf.lists[name]
        if path.is_dir():
            continue
        after = path.read_bytes() if path.exists() else b""
        assert after[: len(before)] == before, name
        shelf.lists[name] = after
        added = after[len(before) :].decode("utf-8")
        if before and added and not before.endswith(b"\n"):
            assert added.startswith("\n")
            added = added[1:]
        if name == "editions.csv":
            rows = read_rows(added, header=not before)
            for row in rows:
                hold_row(walk, row)
            pairs = {(row["path"], row["hash"]) for row in rows}
        else:
            pairs = set(read_sums(added).items())
        assert ending.hit or not pairs & known[name]
        for path_listed, hashed in pairs:
            whole = shelf.damaged.get(path_listed, found[path_listed])
            if hashed != md5(whole):  # no list was left that knew better
                assert hashed == md5(found[path_listed])
                assert ending.hit or (path_listed, md5(whole)) not in set.union(*known.values())
    # What editions.csv can't be asked for can't be listed, for as long as that lasts.
    opened = "editions.csv can't be read" not in ending.result.out + ending.result.err
    for name, data in found.items():
        due = opened and (calm or (listed_now and data == month.edition.data))
        if due and name not in shelf.damaged:
            for text in shelf.lists.values():
                assert mentions(text, name, md5(data)), name


def mentions(text: bytes, name: str, hashed: str) -> bool:
    """Tell whether a list has a line with this name and this MD5."""
    lines = text.decode("utf-8", "replace").split("\n")
    return any(name in line and hashed in line.lower() for line in lines)


def read_rows(text: str, header: bool) -> List[Dict[str, str]]:
    """Read lines that were added to editions.csv, by the letter of their contract."""
    assert "\r" not in text
    assert text.endswith("\n") or not text
    lines = list(csv.reader(io.StringIO(text, newline=""), strict=True))
    if header and lines:
        assert lines.pop(0) == COLUMNS
    assert {len(line) for line in lines} <= {len(COLUMNS)}
    return [dict(zip(COLUMNS, line)) for line in lines]


def hold_row(walk: Walk, row: Dict[str, str]) -> None:
    """Hold that a row is right, and that somebody has heard of its dataset."""
    name = row["path"]
    data = walk.archiver.datasets()[name]
    edition = walk.editions.get(data)
    assert row["hash"] == md5(data)
    assert row["bytes"] == str(len(data))
    if edition:
        counts = [int(row["works"]), int(row["presences"])]
        assert counts == [edition.works, edition.presences]
        assert row["presence_date"] == edition.date
    else:  # no list was left that knew better
        assert name in walk.shelf.damaged
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", row["created"])
    assert row["countries"] in ("", " ".join(sorted(lumiere_api.MEMBERS)))
    assert row["source"] in ("", walk.archiver.api.url + WORKS)
    assert row["software"] in ("", "lumiere-vod-archiver/2.0")
    assert was_told(walk.shelf, name)


def was_told(shelf: Shelf, name: str) -> bool:
    """Tell whether cron has mailed somebody that a dataset was archived, or found."""
    archived = rf"(New dataset|Revised dataset for [\d-]+): {name},"
    adopted = rf"WARNING: {name} (was in the archive without a row|is not a whole dataset)"
    return re.search(f"(?m)^({archived}|{adopted})", shelf.told) is not None


def read_sums(text: str) -> Dict[str, str]:
    """Read lines that were added to MD5SUMS as md5sum does, without its leniency."""
    lines = text.split("\n")
    assert lines.pop() == ""
    for line in lines:
        assert re.fullmatch(f"[0-9a-f]{{32}}  {NAME}", line)
    sums = {line[34:]: line[:32] for line in lines}
    assert len(sums) == len(lines)
    return sums


def hold_tidy(walk: Walk) -> None:
    """Hold that a run that was not killed leaves no file but those it should."""
    allowed = (
        rf"{CHECKSUM}|archive/(MD5SUMS|editions\.csv|[^./][^/]*\.json|rejected/\w+\.(txt|json)"
        r"|rejected/[\w-]+\.json\.damaged(_\d+)?)"
    )
    names = [name.replace(os.sep, "/") for name in walk.archiver.files()]
    assert [name for name in names if not re.fullmatch(allowed, name)] == []


def hold_in_the_end(walk: Walk) -> None:
    """Hold what must be true after all that, and one month in which nothing happened."""
    shelf, archive, found = walk.shelf, walk.archiver.archive, walk.archiver.datasets()
    for name in shelf.datasets.keys() - shelf.damaged.keys():
        assert was_told(shelf, name)
    sums = shelf.sums()
    assert set(found) <= sums.keys() | shelf.damaged.keys()
    whole = {name for name, hashed in sums.items() if md5(found.get(name, b"")) == hashed}
    if shutil.which("md5sum") and len(whole) == len(sums) and "MD5SUMS" not in shelf.spoiled:
        subprocess.check_output(["md5sum", "-c", "MD5SUMS"], cwd=str(archive))
    result = walk.archiver.run("--verify")
    print(f"In the end: {result}")
    assert "Traceback" not in result.err
    assert (result.code == 0) == (len(whole) == len(sums)), result
    if result.code:
        assert f"{len(whole)} of {len(sums)} files" in result.err
    for name in sums.keys() - whole:
        assert f"{name} is {'damaged' if name in found else 'missing'}" in result.err


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
        walk.doubtful = True  # it tells of the empty folder that the script was given
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
        parts.append(f"{month.target} {month.loss} {how_saved(month)} ({month.share:.3f})")
    if month.fault:
        where = (
            f"at {month.call} {month.nth}{'+' * month.lasting}"
            if month.call
            else "while a download pauses"
        )
        parts.append(f"{month.fault} {where}")
    return ", ".join(parts)
