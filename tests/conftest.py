"""The archiver under test: the real script as a child process, in an environment like cron's."""

import contextlib
import csv
import hashlib
import io
import json
import os
import random
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Callable, Dict, Iterable, Iterator, List, NamedTuple, Optional, Sequence

import lumiere_api
import pytest

pytest_plugins = ["telling"]  # the channels' fixtures

ROOT = Path(__file__).resolve().parent.parent
OLD = lumiere_api.dataset(date="2026-06-30", seed=6)
NEW = lumiere_api.dataset(date="2026-09-30", seed=9)
OLD_NAME = "Complete_lumiere_COE_2026-06-30.json"
NEW_NAME = "Complete_lumiere_COE_2026-09-30.json"
WORKS, COUNTRIES = "/api/works", "/api/countries"
strace = pytest.mark.skipif(not shutil.which("strace"), reason="no strace on this machine")


def md5(data: bytes) -> str:
    """Return an MD5 as hex digits."""
    return hashlib.new("md5", data).hexdigest()


class Result(NamedTuple):
    """How a run ended, and what it said."""

    code: int
    out: str
    err: str


class Archiver:
    """A folder with the script in it, as a user has it, and ways to run it there."""

    def __init__(self, folder: Path, api: lumiere_api.LumiereApi) -> None:
        self.folder, self.api = folder, api
        self.archive = folder / "archive"
        self.checksum = folder / "last_checksum.txt"
        self.log_file = folder / "archiver.log"
        self.settings = {"LUMIERE_RETRY_DELAY": "0", "LUMIERE_ATTEMPTS": "2", **api.settings}
        self.command = [sys.executable, str(folder / "data_collect.py")]

    def environment(self, **settings: str) -> Dict[str, str]:
        """What cron gives its jobs, and settings, named without LUMIERE_."""
        bare = {"PATH": "/usr/bin:/bin", "HOME": str(self.folder.parent), "SHELL": "/bin/sh"}
        if os.name == "nt":
            bare = {name: os.environ[name] for name in ("SYSTEMROOT", "PATH")}
        named = {f"LUMIERE_{name}": value for name, value in settings.items()}
        return {**bare, **self.settings, **named}

    def start(self, *options: str, before: Sequence[str] = (), **settings: str) -> "Child":
        """Start the script, with a command like strace before it if wanted."""
        return subprocess.Popen(
            [*before, *self.command, *options],
            env=self.environment(**settings),
            cwd=str(self.folder.parent),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def run(self, *options: str, before: Sequence[str] = (), **settings: str) -> Result:
        """Run the script to its end."""
        return finish(self.start(*options, before=before, **settings))

    @property
    def log(self) -> str:
        """What the log says."""
        return self.log_file.read_text(encoding="utf-8") if self.log_file.exists() else ""

    def datasets(self) -> Dict[str, bytes]:
        """The archive's datasets, by name."""
        return {path.name: path.read_bytes() for path in self.archive.glob("*.json")}

    def files(self) -> Dict[str, bytes]:
        """All that a run may leave, but for the log: paths from the script's folder, contents."""
        paths = (path for path in self.folder.rglob("*") if path.is_file())
        names = {str(path.relative_to(self.folder)): path for path in paths}
        for name in ("data_collect.py", "archiver.log", os.path.join("archive", ".lock")):
            names.pop(name, None)
        files = {name: path.read_bytes() for name, path in names.items()}
        if EDITIONS in files:
            with contextlib.suppress(csv.Error, ValueError):  # of one that is damaged
                files[EDITIONS] = as_csv(dict(row, **SETTLED) for row in self.editions())
        return files

    def editions(self) -> List[Dict[str, str]]:
        """The rows of editions.csv."""
        text = (self.folder / EDITIONS).read_text(encoding="utf-8")
        return [dict(row) for row in csv.DictReader(io.StringIO(text, newline=""))]

    def rejected(self) -> List[bytes]:
        """What lies in archive/rejected."""
        return [path.read_bytes() for path in (self.archive / "rejected").glob("*")]


Child = Any  # subprocess.Popen, whose type takes no parameter on Python 3.6


def finish(child: Child) -> Result:
    """Wait for a child and collect what it said."""
    try:
        out, err = child.communicate(timeout=100)
    finally:
        child.kill()  # one that does not end must not burden the tests that follow
    return Result(child.returncode, out.decode("utf-8"), err.decode("utf-8"))


EDITIONS = os.path.join("archive", "editions.csv")
COLUMNS = "path presence_date created bytes hash works presences countries source software".split()
# Columns that differ from run to run; files() and archived() give them these values.
SETTLED = {
    "created": "2026-07-01T04:17:00Z",
    "countries": " ".join(sorted(lumiere_api.MEMBERS)),
    "source": "http://127.0.0.1/api/works",
    "software": "lumiere-vod-archiver/2.0",
}


def as_csv(rows: Iterable[Dict[str, str]]) -> bytes:
    """Write rows as editions.csv has them."""
    table = io.StringIO()
    writer = csv.DictWriter(table, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return table.getvalue().encode()


def row_of(name: str, data: bytes) -> Dict[str, str]:
    """The row of a whole dataset in editions.csv."""
    works = json.loads(data.decode("utf-8"))
    listed = [work.get("presences") if isinstance(work, dict) else None for work in works]
    presences = [item for items in listed if isinstance(items, list) for item in items]
    return {
        "path": name,
        "presence_date": re.findall(r"\d{4}-\d\d-\d\d", name)[-1],
        "bytes": str(len(data)),
        "hash": md5(data),
        "works": str(len(works)),
        "presences": str(len(presences)),
        **SETTLED,
    }


def archived(*datasets: bytes, last: Optional[bytes] = None) -> Dict[str, bytes]:
    """The files of an archive that holds these datasets, the last of them current."""
    names = {}
    for data in datasets:
        date = max(re.findall(rb"\d{4}-\d\d-\d\d", data)).decode()
        stem, number = f"Complete_lumiere_COE_{date}", 0
        while f"{stem}.json" in names:
            number += 1
            stem = f"Complete_lumiere_COE_{date}_{number}"
        names[f"{stem}.json"] = data
    sums = "".join(f"{md5(data)}  {name}\n" for name, data in names.items())
    files = {os.path.join("archive", name): data for name, data in names.items()}
    files[os.path.join("archive", "MD5SUMS")] = sums.encode()
    files[EDITIONS] = as_csv(row_of(name, data) for name, data in names.items())
    files["last_checksum.txt"] = f"{md5(datasets[-1] if last is None else last)}\n".encode()
    return files


def pytest_addoption(parser: Any) -> None:
    """Let the walks of test_decade.py be longer, and be walked once more."""
    parser.addoption("--decades", type=int, default=0, help="walks of ten years (default: 0)")
    parser.addoption("--seed", type=int, help="of the first of them (default: a random one)")


def pytest_configure(config: Any) -> None:
    """Choose the seed where none was given; the workers are given the same one."""
    if config.option.seed is None:
        config.option.seed = random.SystemRandom().randrange(10**6)


def pytest_report_header(config: Any) -> str:
    """Print what it takes to walk the same decades again."""
    return f"decades: --decades {config.option.decades} --seed {config.option.seed}"


def pytest_collection_modifyitems(items: List[Any]) -> None:
    """Begin with the tests that take longest, few to a worker, so that the others run beside."""
    names = (
        "walk channel_down at_each_step archived_or_rejected memory odd_names greets_late".split()
    )
    slow = [item for item in items if any(name in item.name for name in names)]
    items[:] = [item for item in items if item not in slow]
    for number, item in enumerate(slow):
        items.insert(number * 7, item)  # a worker is given some twenty in a row to begin with


@pytest.fixture
def api() -> Iterator[lumiere_api.LumiereApi]:
    """A stand-in for the API that serves NEW until a test says otherwise."""
    with lumiere_api.LumiereApi() as api:
        api.on(WORKS, lumiere_api.answer(NEW))
        yield api


@pytest.fixture
def fresh(tmp_path: Path, api: lumiere_api.LumiereApi) -> Archiver:
    """The script as it is cloned: an empty archive."""
    folder = tmp_path / "lumiere"
    (folder / "archive").mkdir(parents=True)
    shutil.copy(str(ROOT / "data_collect.py"), str(folder))
    return Archiver(folder, api)


@pytest.fixture
def used(fresh: Archiver) -> Archiver:
    """The script with OLD in its archive."""
    fill(fresh, archived(OLD))
    return fresh


def fill(archiver: Archiver, files: Dict[str, bytes]) -> None:
    """Write files into the script's folder."""
    for name, data in files.items():
        (archiver.folder / name).write_bytes(data)


def start_anew(archiver: Archiver) -> None:
    """Put the archive back to where it held OLD, listed."""
    shutil.rmtree(str(archiver.archive))
    archiver.archive.mkdir()
    for name in archiver.files():
        (archiver.folder / name).unlink()
    fill(archiver, archived(OLD))
    archiver.api.requests.clear()


@pytest.fixture
def mount(request: Any) -> Callable[..., None]:
    """Mount a file system of its own on a folder; needs root on Linux."""
    if not sys.platform.startswith("linux") or os.geteuid() != 0:
        pytest.skip("only root on Linux can mount a file system")

    def mount_on(folder: Path, *options: str) -> None:
        subprocess.check_call(["mount", *options, str(folder)])
        request.addfinalizer(lambda: subprocess.call(["umount", str(folder)]))

    return mount_on


def assert_one_sentence(text: str, *parts: str) -> None:
    """Hold that a text is one line, one sentence, with these parts in it; and, behind a failure's,
    the command that tries again, without a full stop that would be pasted with it.
    """
    assert re.fullmatch(r"[^\n]+\.( To try again: [^\n]+[^.\n])?\n", text), text
    assert "Traceback" not in text
    for part in parts:
        assert part in text


def assert_recovers(archiver: Archiver) -> str:
    """Hold that the next run archives NEW beside OLD, as if nothing had happened; return what it
    printed.
    """
    archiver.api.on(COUNTRIES, lumiere_api.answer(lumiere_api.as_json(lumiere_api.countries())))
    archiver.api.on(WORKS, lumiere_api.answer(NEW))
    result = archiver.run()
    assert (result.code, result.err) == (0, ""), result
    kept = os.path.join("archive", "rejected") + os.sep
    files = {name: data for name, data in archiver.files().items() if not name.startswith(kept)}
    assert files == archived(OLD, NEW)
    return result.out


@contextlib.contextmanager
def unchanged(archiver: Archiver, *rejected: bytes) -> Iterator[None]:
    """Hold that the files stay byte for byte as they are, but for what is newly rejected."""
    before = archiver.files()
    yield
    before.update({kept_as(archiver, data): data for data in rejected})
    assert archiver.files() == before


def kept_as(archiver: Archiver, data: bytes) -> str:
    """The one file that a rejected answer is kept in: JSON, or what is no JSON."""
    paths = (archiver.archive / "rejected").glob(f"{md5(data)}.*")
    (path,) = [path for path in paths if path.suffix in (".json", ".txt")]
    return os.path.join("archive", "rejected", path.name)
