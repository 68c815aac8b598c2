"""Faults of the machine: full disks, I/O errors, kills, signals, two runs at once.

Ten signals come at random moments; to send a hundred of them:

    SIGNALS=100 pytest test_machine.py -k random_moment
"""

import functools
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Callable, Iterator, List, Optional, Tuple

import ijson
import lumiere_api
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
    archived,
    assert_one_sentence,
    assert_recovers,
    fill,
    finish,
    md5,
    start_anew,
    strace,
    unchanged,
)
from lumiere_api import Answer, LumiereApi, answer, head, raw

posix = pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
HALF = head("200 OK", [f"Content-Length: {len(NEW)}"]) + NEW[: len(NEW) // 2]


class Pause:
    """An answer that stops half-way, says so, and goes on when it is told to."""

    def __init__(self, api: LumiereApi, path: str = WORKS, start: bytes = HALF) -> None:
        self.reached, self.go_on = threading.Event(), threading.Event()
        api.on(path, raw(start, then=self._wait), answer(NEW))

    def _wait(self, connection: object) -> None:
        self.reached.set()
        assert self.go_on.wait(60)
        connection.sendall(NEW[len(NEW) // 2 :])  # type: ignore[attr-defined]

    def wait(self) -> None:
        """Wait until the archiver has received the start, mostly half a dataset."""
        assert self.reached.wait(60)


@pytest.fixture
def pause(api: LumiereApi) -> Iterator[Pause]:
    """A pause in the middle of the next download."""
    pause = Pause(api)
    yield pause
    pause.go_on.set()


def part_appears(archiver: Archiver) -> bool:
    """Tell whether a temporary file lies in the archive."""
    return any(archiver.archive.glob(".*part*"))


@posix
@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 129)])
def test_interrupted(used: Archiver, pause: Pause, name: str, code: int) -> None:
    with unchanged(used):
        child = used.start()
        pause.wait()
        child.send_signal(getattr(signal, name))
        result = finish(child)
    assert (result.code, result.out) == (code, "")
    assert_one_sentence(result.err, name, "no temporary file is left")
    assert f"ERROR - Interrupted by {name}" in used.log
    assert_recovers(used)


@posix
@pytest.mark.parametrize("name", ["SIGINT", "SIGHUP"])
def test_what_was_ignored_stays_ignored(used: Archiver, pause: Pause, name: str) -> None:
    """nohup ignores a hang-up, and a shell the Ctrl-C of its jobs in the background."""
    child = used.start(before=["sh", "-c", f'trap "" {name[3:]}; exec "$@"', "sh"])
    pause.wait()
    child.send_signal(getattr(signal, name))
    pause.go_on.set()
    result = finish(child)
    assert (result.code, result.err) == (0, "")
    assert used.files() == archived(OLD, NEW)


@posix
@pytest.mark.parametrize("limit", ["2", "1000"])
def test_adopting_ends_when_told_to(used: Archiver, limit: str) -> None:
    """Reading a dataset that no list has takes hours here: a sparse file of a terabyte."""
    with open(str(used.archive / NEW_NAME), "wb") as file:
        file.truncate(10**12)
    child = used.start(MAX_RUNTIME=limit)
    if limit == "1000":
        wait_for(lambda: "Run started" in used.log)
        child.terminate()
    result = finish(child)
    assert result.code == (143 if limit == "1000" else 1)
    assert_one_sentence(result.err, "SIGTERM" if limit == "1000" else "MAX_RUNTIME")
    assert used.api.requests == []


@posix
def test_interrupted_in_a_delay(used: Archiver) -> None:
    used.api.on(WORKS, answer(status="503 Busy"))
    child = used.start(RETRY_DELAY="1000")
    wait_for(lambda: "attempt 2" in used.log)
    child.terminate()
    assert finish(child).code == 143
    assert_recovers(used)


@posix
def test_max_runtime_ends_a_delay(used: Archiver) -> None:
    used.api.on(WORKS, answer(status="503 Busy"))
    with unchanged(used):
        result = used.run(RETRY_DELAY="1", MAX_RUNTIME="2.5", ATTEMPTS="9")
    assert result.code == 1
    assert_one_sentence(result.err, "MAX_RUNTIME")


@posix
def test_max_runtime_that_is_over_at_once(used: Archiver) -> None:
    with unchanged(used):
        result = used.run(MAX_RUNTIME="0.000001")
    assert result.code == 1
    assert_one_sentence(result.err, "MAX_RUNTIME")


@posix
@pytest.mark.parametrize("number", range(5))
def test_interrupted_by_several_at_once(used: Archiver, pause: Pause, number: int) -> None:
    """As systemd does it: Python must not complain of one that is on its way."""
    child = used.start()
    pause.wait()
    for name in ("SIGHUP", "SIGTERM", "SIGINT"):
        child.send_signal(getattr(signal, name))
    result = finish(child)
    assert result.code in (129, 130, 143), number
    assert_one_sentence(result.err, "Interrupted by SIG")


@posix
def test_interrupted_twice(used: Archiver, pause: Pause) -> None:
    """The second signal comes while the first one is still at work."""
    child = used.start()
    pause.wait()
    for _ in range(20):
        child.terminate()
    result = finish(child)
    assert result.code == 143
    assert_one_sentence(result.err, "SIGTERM")
    assert_recovers(used)


@posix
def test_verify_interrupted(used: Archiver) -> None:
    """Hashing a file that never ends, here a pipe."""
    os.mkfifo(str(used.archive / "endless"))
    with open(str(used.archive / "MD5SUMS"), "a") as sums:
        sums.write(f"{md5(b'')}  endless\n")
    child = used.start("--verify")
    with open(str(used.archive / "endless"), "wb"):  # waits until it is being read
        child.send_signal(signal.SIGINT)
    result = finish(child)
    assert result.code == 130
    assert_one_sentence(result.err, "SIGINT")


@posix
def test_verify_ends(used: Archiver) -> None:
    """Though a file of the archive never does."""
    os.mkfifo(str(used.archive / "endless"))
    with open(str(used.archive / "MD5SUMS"), "a") as sums:
        sums.write(f"{md5(b'')}  endless\n")
    child = used.start("--verify", MAX_RUNTIME="1")
    with open(str(used.archive / "endless"), "wb"):
        result = finish(child)
    assert result.code == 1
    assert_one_sentence(result.err, "LUMIERE_MAX_RUNTIME")


@posix
def test_verify_interrupted_beside_a_run(used: Archiver, pause: Pause) -> None:
    """The temporary file is the run's, which goes on."""
    os.mkfifo(str(used.archive / "endless"))
    run = used.start()
    pause.wait()
    wait_for(lambda: part_appears(used))
    with open(str(used.archive / "MD5SUMS"), "a") as sums:
        sums.write(f"{md5(b'')}  endless\n")
    child = used.start("--verify")
    with open(str(used.archive / "endless"), "wb"):
        child.send_signal(signal.SIGTERM)
    result = finish(child)  # a signal just before read() waits for it, and so for the pipe's end
    assert result.code == 143
    assert_one_sentence(result.err, "SIGTERM")
    assert "temporary file" not in result.err
    assert part_appears(used)
    pause.go_on.set()
    result = finish(run)
    assert (result.code, result.err) == (0, "")
    assert used.datasets() == {OLD_NAME: OLD, NEW_NAME: NEW}
    assert not part_appears(used)


@strace
@posix
@pytest.mark.parametrize("call", ["openat", "flock"])
def test_a_second_run_that_is_interrupted(used: Archiver, pause: Pause, call: str) -> None:
    """It is about to learn that there is another run, whose temporary file stays."""
    first = used.start()
    pause.wait()
    wait_for(lambda: part_appears(used))
    command = ["strace", "-f", "-qq", "-o", os.devnull]
    command += ["-P", ".lock", "-P", str(used.archive / ".lock")]
    second = used.run(before=[*command, "-e", f"inject={call}:signal=TERM:when=1"])
    assert (second.code, second.out) == (143, "")
    assert_one_sentence(second.err, "SIGTERM")
    assert "temporary file" not in second.err
    assert part_appears(used)
    pause.go_on.set()
    result = finish(first)
    assert (result.code, result.err) == (0, "")
    assert used.files() == archived(OLD, NEW)


@functools.lru_cache(maxsize=None)
def large() -> bytes:
    """A dataset that takes a moment to be received, and one to be checked."""
    return b"".join(lumiere_api.large_dataset(10_000_000))


def late(seconds: float) -> Answer:
    """Answer after some time."""

    def send(connection: socket.socket) -> None:
        time.sleep(seconds)
        connection.sendall(head("200 OK") + b"OK")

    return send


@posix
@pytest.mark.parametrize("number", range(int(os.getenv("SIGNALS", "10"))))
def test_signals_at_a_random_moment(used: Archiver, tmp_path: Path, number: int) -> None:
    """Whatever a run is doing, it is told once how it ended, and the next one has no trouble."""
    chance = random.Random(number)
    (tmp_path / "large.json").write_bytes(large())
    used.api.on(WORKS, lumiere_api.from_file(str(tmp_path / "large.json"), rate=400))
    for page in ("", "/start", "/fail"):
        used.api.on(f"/ping{page}", late(0.2))
    used.api.on("/hook", late(0.2))
    phases: List[Tuple[Callable[[], bool], float]] = [
        (lambda: bool(used.api.asked(WORKS)), 0.3),
        (lambda: "Checking" in used.log, 0.3),
        (lambda: bool(used.api.asked("/ping")), 0.4),
    ]
    begun, length = phases[number % 3]
    before = used.files()
    channels = {"HEALTHCHECKS_URL": f"{used.api.url}/ping", "WEBHOOK_URL": f"{used.api.url}/hook"}
    child = used.start(**channels)
    wait_for(begun)
    time.sleep(length * chance.random())
    sent = [chance.choice([signal.SIGINT, signal.SIGTERM, signal.SIGHUP]) for _ in range(2)]
    child.send_signal(sent[0])
    if chance.random() < 0.4:
        time.sleep(0.02 * chance.random())
        child.send_signal(sent[1])
    result = finish(child)
    assert "Traceback" not in result.out + result.err
    if result.code == 0:
        assert result.err == ""
        assert result.out.startswith(f"New dataset: {NEW_NAME}")
        page = "/ping"
        assert used.files() == archived(OLD, large())
    else:
        assert result.code in [128 + signal_sent for signal_sent in sent]
        assert result.out == ""
        assert_one_sentence(result.err, "Interrupted by SIG", "no temporary file is left")
        page = "/ping/fail"
        assert used.files() == before
    paths = [request.path for request in used.api.requests if "/api/" not in request.path]
    assert paths == ["/ping/start", page, "/hook"]
    result = used.run()
    assert (result.code, result.err) == (0, "")
    assert used.files() == archived(OLD, large())


def wait_for(condition: Callable[[], bool]) -> None:
    """Wait until something has happened that can only be looked for."""
    for _ in range(3000):
        if condition():
            return
        time.sleep(0.02)
    raise AssertionError("waited for a minute")


def test_killed_in_a_download(used: Archiver, pause: Pause) -> None:
    child = used.start()
    pause.wait()
    wait_for(lambda: part_appears(used))
    child.kill()
    finish(child)
    assert part_appears(used)
    assert used.datasets() == {OLD_NAME: OLD}
    assert_recovers(used)


def test_leftovers_of_a_kill_go_even_if_the_next_run_fails(used: Archiver, pause: Pause) -> None:
    child = used.start()
    pause.wait()
    wait_for(lambda: part_appears(used))
    child.kill()
    finish(child)
    used.api.on("/api/countries", answer(status="404 Not Found"))
    assert used.run().code == 1
    assert used.files() == archived(OLD)


@posix
def test_leftovers_of_a_kill_give_nothing_to_the_next_run(used: Archiver) -> None:
    """Neither their permissions nor, if it is a link, the file that this leads to."""
    part = used.archive / ".lumiere.part"
    part.touch(mode=0o600)
    (used.folder / ".lumiere.part").symlink_to(used.archive / OLD_NAME)
    used.run()
    assert used.files() == archived(OLD, NEW)
    sums = used.archive / "MD5SUMS"
    assert (used.archive / NEW_NAME).stat().st_mode == sums.stat().st_mode
    latest = lumiere_api.dataset(date="2026-12-31")
    used.api.on(WORKS, answer(latest))
    part.symlink_to(OLD_NAME)
    assert used.run().code == 0
    assert used.files() == archived(OLD, NEW, latest)


def test_two_runs_at_once(used: Archiver, pause: Pause) -> None:
    first = used.start()
    pause.wait()
    asked = len(used.api.requests)
    started = time.monotonic()
    second = used.run()
    assert time.monotonic() - started < 10
    assert (second.code, second.out) == (1, "")
    assert_one_sentence(second.err, "Another run", str(used.archive))
    assert len(used.api.requests) == asked
    pause.go_on.set()
    result = finish(first)
    assert (result.code, result.err) == (0, "")
    assert used.files() == archived(OLD, NEW)


def test_the_lock_dies_with_its_process(used: Archiver, pause: Pause) -> None:
    first = used.start()
    pause.wait()
    first.kill()
    finish(first)
    assert_recovers(used)


# A full disk, a read-only disk


def test_disk_full_in_the_download(used: Archiver, mount: Callable[..., None]) -> None:
    mount(used.archive, "-t", "tmpfs", "-o", "size=256k", "tmpfs")
    fill(used, archived(OLD))
    used.api.on(WORKS, answer(b" " * 300000 + NEW))
    with unchanged(used):
        result = used.run()
    assert (result.code, result.out) == (1, "")
    assert_one_sentence(result.err, "No space left on device", str(used.archive))
    assert_recovers(used)


@pytest.mark.parametrize("free", [-4096, 0])
def test_disk_full_at_the_end(used: Archiver, mount: Callable[..., None], free: int) -> None:
    """The dataset just fits, or just not; MD5SUMS and the checksum no longer do."""
    mount(used.folder, "-t", "tmpfs", "-o", "size=1m", "tmpfs")
    used.archive.mkdir()
    shutil.copy(str(Path(__file__).parent.parent / "data_collect.py"), str(used.folder))
    fill(used, archived(OLD))
    used.log_file.write_text("")
    used.run(COUNTRY_CODE_API_URL="http://127.0.0.1:1/")  # makes the lock file
    room = len(NEW) // 4096 * 4096 + 4096 + free
    with open(str(used.folder / "ballast"), "wb") as ballast:
        left = os.statvfs(str(used.folder))
        ballast.write(b"x" * (left.f_bavail * left.f_frsize - room))
    result = used.run()
    assert result.code == 1
    assert "No space left on device" in result.err
    assert "Traceback" not in result.err
    assert set(used.datasets().values()) <= {OLD, NEW}
    (used.folder / "ballast").unlink()
    result = used.run()
    assert (result.code, result.err) == (0, "")
    assert used.files() == archived(OLD, NEW)


@pytest.mark.parametrize("option", ["size=4k", "size=8k"])
def test_log_on_a_full_disk(used: Archiver, mount: Callable[..., None], option: str) -> None:
    """A log that can't be written costs neither the dataset nor a clean ending."""
    logs = used.folder.parent / "logs"
    logs.mkdir()
    mount(logs, "-t", "tmpfs", "-o", option, "tmpfs")
    (logs / "log").write_text("x" * 4090)
    (logs / "ballast").touch()
    with open(str(logs / "ballast"), "wb", buffering=0) as ballast:
        left = os.statvfs(str(logs))
        ballast.write(b"x" * (left.f_bavail * left.f_frsize))
    result = used.run(LOG_FILE=str(logs / "log"))
    assert (result.code, result.err) == (0, "")
    assert used.files() == archived(OLD, NEW)


def test_archive_not_writable(used: Archiver, mount: Callable[..., None]) -> None:
    mount(used.archive, "--bind", str(used.archive))
    subprocess.check_call(["mount", "-o", "remount,ro,bind", str(used.archive)])
    with unchanged(used):
        result = used.run()
    assert (result.code, result.out) == (1, "")
    assert_one_sentence(result.err, "Read-only file system", str(used.archive))
    subprocess.check_call(["mount", "-o", "remount,rw,bind", str(used.archive)])
    assert_recovers(used)


def test_archive_is_no_folder(used: Archiver) -> None:
    with unchanged(used):
        result = used.run(STORAGE_DIR=str(used.checksum))
    assert result.code == 1
    assert_one_sentence(result.err, str(used.checksum))
    assert used.api.requests == []


def test_checksum_file_is_a_folder(used: Archiver) -> None:
    """The dataset is archived and told all the same, and not archived twice."""
    used.checksum.unlink()
    used.checksum.mkdir()
    for _ in range(2):
        result = used.run()
        assert result.code == 1
        assert_one_sentence(result.err, "last_checksum.txt")
        assert used.datasets() == {OLD_NAME: OLD, NEW_NAME: NEW}
    used.checksum.rmdir()
    assert used.run() == (0, "", "")
    assert used.files() == archived(OLD, NEW)


@pytest.mark.parametrize("name", ["MD5SUMS", "editions.csv"])
def test_a_list_that_is_a_folder(used: Archiver, name: str) -> None:
    """The dataset is archived and told; it is listed when the fault is mended."""
    path = used.archive / name
    path.unlink()
    path.mkdir()
    result = used.run()
    assert result.code == 1
    dataset, warning = result.out.splitlines()
    assert dataset.startswith(f"New dataset: {NEW_NAME}")
    assert warning.startswith(f"WARNING: {name} can't be read")
    assert_one_sentence(result.err, name, str(used.archive))
    assert used.datasets() == {OLD_NAME: OLD, NEW_NAME: NEW}
    path.rmdir()
    result = used.run()
    assert (result.code, result.err) == (0, "")
    # editions.csv, which says what has been told, is written before MD5SUMS.
    adopted = f"WARNING: {NEW_NAME} was in the archive without a row"
    assert (adopted in result.out) == (name == "editions.csv")
    assert used.files() == archived(OLD, NEW)


def test_no_folder_for_the_checksum(used: Archiver) -> None:
    result = used.run(LAST_CHECKSUM_FILE="no/such/folder/md5")
    assert result.code == 1
    assert_one_sentence(result.out, "New dataset", NEW_NAME)
    assert_one_sentence(result.err, str(used.folder / "no/such/folder"))
    used.run()
    assert used.files() == archived(OLD, NEW)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits memory as Linux does")
def test_too_little_memory(used: Archiver) -> None:
    """What came is kept, since it may be a dataset: here one work with all presences."""
    data = b'[{"presences": [%s]}]' % b", ".join([b'{"presence_date": "2026-09-30"}'] * 600000)
    used.api.on(WORKS, answer(data))
    with unchanged(used, data):
        result = used.run(before=["sh", "-c", 'ulimit -v 200000; exec "$@"', "sh"])
    assert result.code == 1
    assert_one_sentence(result.err, "rejected")  # not always "memory": ijson has its own words
    assert_recovers(used)


# strace stops the script at each step that changes the disk

STEPS = "openat,mkdir,write,fsync,rename,unlink"


def traced(archiver: Archiver, *options: str) -> Tuple[List[str], str]:
    """Build a strace command that looks at the script's own files only, and where it writes."""
    trace = str(archiver.folder.parent / "trace")
    paths = [archiver.archive, archiver.checksum, archiver.folder / ".lumiere.part"]
    names = [".lock", ".lumiere.part", "MD5SUMS", "editions.csv", OLD_NAME, NEW_NAME, "rejected"]
    paths += [archiver.archive / name for name in names]
    # A relative path counts as another one.
    wanted = (
        [str(path) for path in paths]
        + names
        + [".", "./.lumiere.part", f"rejected/{md5(NEW[:-1])}.txt"]
    )
    chosen = [word for path in wanted for word in ("-P", path)]
    # Four times as fast as a stop at every call, but strace 6.1 then injects no signal.
    quick = [] if any(":signal=" in option for option in options) else ["--seccomp-bpf"]
    return ["strace", *quick, "-f", "-y", "-qq", "-o", trace, *chosen, *options], trace


def own_words(result: Result) -> str:
    """What a run said on stderr, without what strace says there."""
    return re.sub("(?m)^strace: .*\n", "", result.err)


def steps(archiver: Archiver) -> List[Tuple[str, int]]:
    """List the system calls of a run that change the disk: each name, and the how manieth."""
    command, trace = traced(archiver, "-e", f"trace={STEPS}")
    archiver.run(before=command)
    calls, found = [], []
    for line in Path(trace).read_text(errors="replace").splitlines():
        calls.append(line.split()[1].split("(")[0])
        if calls[-1] != "openat" or "O_CREAT" in line:
            found.append((calls[-1], calls.count(calls[-1])))
    for name in ("openat", "write", "fsync", "rename"):
        assert len([call for call, _ in found if call == name]) >= 3, calls
    return found


@strace
@pytest.mark.parametrize("call", STEPS.split(","))
@pytest.mark.parametrize("fault", ["signal=KILL", "error=EIO"])
def test_fault_at_each_step(used: Archiver, call: str, fault: str) -> None:
    """At each step datasets stay whole, and the next run ends as if nothing had happened."""
    numbers = [number for name, number in steps(used) if name == call]
    assert numbers or call in ("mkdir", "unlink")
    for number in numbers:
        start_anew(used)
        injection = f"inject={call}:{fault}:when={number}"
        command, trace = traced(used, "-e", f"trace={call}", "-e", injection)
        result = used.run(before=command)
        assert "Traceback" not in result.err
        said = Path(trace).read_text(errors="replace")
        assert ("(INJECTED)" in said) or ("killed by SIGKILL" in said)
        for name, data in used.datasets().items():
            assert {OLD_NAME: OLD, NEW_NAME: NEW}[name] == data
        assert used.datasets()[OLD_NAME] == OLD
        if used.checksum.read_bytes() != archived(OLD)["last_checksum.txt"]:
            assert used.files() == archived(OLD, NEW)  # it comes last
        if fault != "signal=KILL":
            assert result.code in (0, 1)
            assert result.code or used.files() == archived(OLD, NEW)
            said = own_words(result)
            if result.code:
                assert_one_sentence(said)
            else:
                assert not said
        assert NEW_NAME in result.out + assert_recovers(used)  # somebody has heard of it by now


@strace
@pytest.mark.parametrize("number", [2, 3])
def test_killed_behind_a_publication_and_then_another_edition(used: Archiver, number: int) -> None:
    """What the killed run published is listed by the next, whatever that finds."""
    command, _ = traced(
        used, "-e", "trace=rename", "-e", f"inject=rename:signal=KILL:when={number}"
    )
    used.run(before=command)
    assert used.datasets() == {OLD_NAME: OLD, NEW_NAME: NEW}
    latest = lumiere_api.dataset(date="2026-12-31")
    used.api.on(WORKS, answer(latest))
    assert used.run().code == 0
    assert used.files() == archived(OLD, NEW, latest)


@strace
def test_an_unlisted_dataset_that_can_not_be_read(used: Archiver) -> None:
    """It costs neither the new dataset nor its announcement, and is listed when it can be read."""
    (used.archive / "MD5SUMS").unlink()
    (used.folder / EDITIONS).unlink()
    paths = ["-P", OLD_NAME, "-P", str(used.archive / OLD_NAME)]
    fault = ["-e", "inject=openat:error=EACCES"]
    result = used.run(before=["strace", "-f", "-qq", "-o", os.devnull, *paths, *fault])
    assert (result.code, result.err) == (0, "")
    first, second = result.out.splitlines()
    assert first.startswith(f"New dataset: {NEW_NAME}")
    assert second.startswith(f"WARNING: {OLD_NAME} can't be read")
    assert (used.archive / "MD5SUMS").read_text() == f"{md5(NEW)}  {NEW_NAME}\n"
    result = used.run()
    assert (result.code, result.err) == (0, "")
    assert f"WARNING: {OLD_NAME} was in the archive without a row" in result.out
    assert {row["path"] for row in used.editions()} == {OLD_NAME, NEW_NAME}


@strace
@pytest.mark.parametrize("times", ["1", "1+"])
def test_a_list_that_can_not_be_read(used: Archiver, times: str) -> None:
    """It is not begun anew: what it alone knows would be lost."""
    path = used.folder / EDITIONS
    before = path.read_bytes()
    command = ["strace", "-f", "-qq", "-o", os.devnull, "-P", "editions.csv", "-P", str(path)]
    result = used.run(before=[*command, "-e", f"inject=openat:error=EIO:when={times}"])
    dataset, warning = result.out.splitlines()
    assert dataset.startswith(f"New dataset: {NEW_NAME}")
    assert warning.startswith("WARNING: editions.csv can't be read")
    if times == "1":  # it can be read again when the dataset is listed
        assert (result.code, result.err) == (0, "")
        assert path.read_bytes().startswith(before)
        assert used.files() == archived(OLD, NEW)
    else:
        assert result.code == 1
        assert_one_sentence(result.err, "editions.csv")
        assert path.read_bytes() == before
        assert_recovers(used)


@strace
@posix
@pytest.mark.parametrize("name", ["TERM", "INT", "HUP"])
@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_a_signal_amid_publishing_comes_too_late(used: Archiver, number: int, name: str) -> None:
    """What is archived is told: the first rename is the publication, the others list it."""
    fault = f"inject=rename:signal={name}:when={number}"
    command, trace = traced(used, "-e", "trace=rename", "-e", fault)
    result = used.run(before=command)
    assert f"--- SIG{name}" in Path(trace).read_text(errors="replace")
    assert (result.code, own_words(result)) == (0, "")
    assert NEW_NAME in result.out
    assert used.files() == archived(OLD, NEW)


@strace
@posix
@pytest.mark.parametrize("number", [1, 2])
def test_a_signal_amid_mending_comes_too_late(used: Archiver, number: int) -> None:
    """Between the two renames the archive has no file of this name."""
    damaged = OLD[:-9] + bytes([OLD[-9] ^ 1]) + OLD[-8:]
    (used.archive / OLD_NAME).write_bytes(damaged)
    used.api.on(WORKS, answer(OLD))
    fault = f"inject=rename:signal=TERM:when={number}"
    command, trace = traced(used, "-e", "trace=rename", "-e", fault)
    result = used.run(before=command)
    assert "--- SIGTERM" in Path(trace).read_text(errors="replace")
    assert (result.code, own_words(result)) == (0, "")
    assert f"WARNING: {OLD_NAME} was damaged; it is archived again" in result.out
    assert used.datasets() == {OLD_NAME: OLD}
    assert used.rejected() == [damaged]


@posix
def test_signals_while_people_are_told_come_too_late(used: Archiver) -> None:
    pause = Pause(used.api, "/ping", head("200 OK"))
    used.api.on("/ping/start", answer(b"OK"))
    child = used.start(HEALTHCHECKS_URL=f"{used.api.url}/ping")
    pause.wait()
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        child.send_signal(getattr(signal, name))
    pause.go_on.set()
    result = finish(child)
    assert (result.code, result.err) == (0, "")
    assert used.files() == archived(OLD, NEW)
    assert len(used.api.asked("/ping")) == 1


# What hangs, and what ends it in a copy of the script that has less patience


def edit(archiver: Archiver, *changes: Tuple[str, str]) -> None:
    """Change lines in the folder's copy of the script."""
    script = archiver.folder / "data_collect.py"
    text = script.read_text(encoding="utf-8")
    for old, new in changes:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    script.write_text(text, encoding="utf-8")


QUICK = (("LAST_ALARM = 240", "LAST_ALARM = 2"), ("seconds=30)", "seconds=1)"))


def hang_at_sync(archiver: Archiver, folder: Path, number: int, how: str) -> None:
    """Let the disk hang from that sync on, for runs to come."""
    code = "import os, time\nleft = iter(range(1, {0}))\nfsync = os.fsync\n"
    code += "os.fsync = lambda file: fsync(file) if next(left, 0) else {1}\n"
    (folder / "sitecustomize.py").write_text(code.format(number, how))
    archiver.settings["PYTHONPATH"] = str(folder)


@posix
@pytest.mark.parametrize("number", [2, 3, 4, 5])
def test_a_disk_that_hangs_behind_the_publication(
    used: Archiver, tmp_path: Path, number: int
) -> None:
    """The second sync is that of the new name, the third that of editions.csv."""
    edit(used, *QUICK)
    hang_at_sync(used, tmp_path, number, "time.sleep(1000)")
    result = used.run()
    assert (result.code, result.err) == (-signal.SIGALRM, "")
    assert (NEW_NAME in result.out) == (number > 2)
    assert used.datasets() == {OLD_NAME: OLD, NEW_NAME: NEW}
    del used.settings["PYTHONPATH"]
    result = used.run()
    assert (result.code, result.err) == (0, "")
    assert (f"WARNING: {NEW_NAME} was in" in result.out) == (number < 4)
    assert used.files() == archived(OLD, NEW)


@posix
def test_a_ping_that_never_ends(used: Archiver) -> None:
    """A server sends a header, a byte at a time: what is archived is listed all the same."""
    edit(used, *QUICK)
    used.api.on("/ping/start", answer(b"OK"))
    used.api.on("/ping", raw(b"HTTP/1.1 200 OK\r\nX:", lumiere_api.drip))
    result = used.run(HEALTHCHECKS_URL=f"{used.api.url}/ping")
    assert (result.code, result.err) == (-signal.SIGALRM, "")
    assert NEW_NAME in result.out
    assert len(used.api.asked("/ping")) == 1
    assert used.files() == archived(OLD, NEW)
    assert used.run() == (0, "", "")


@posix
def test_a_ping_that_never_ends_while_an_interruption_is_told(used: Archiver, pause: Pause) -> None:
    edit(used, *QUICK)
    used.api.on("/ping/start", answer(b"OK"))
    used.api.on("/ping/fail", raw(b"HTTP/1.1 200 OK\r\nX:", lumiere_api.drip))
    with unchanged(used):
        child = used.start(HEALTHCHECKS_URL=f"{used.api.url}/ping")
        pause.wait()
        child.terminate()
        result = finish(child)
    assert result.code == -signal.SIGALRM
    assert_one_sentence(result.err, "SIGTERM")
    assert_recovers(used)


@posix
def test_what_no_handler_can_interrupt_ends(used: Archiver, tmp_path: Path) -> None:
    """A sum of many numbers does not look for signals."""
    edit(used, ("MAX_RUNTIME + 300", "MAX_RUNTIME + 1"))
    hang_at_sync(used, tmp_path, 1, "sum(range(10 ** 15))")
    result = used.run(MAX_RUNTIME="2")
    assert result == (1, "", "")
    assert used.datasets() == {OLD_NAME: OLD}
    del used.settings["PYTHONPATH"]
    assert_recovers(used)


@strace
@posix
def test_a_second_signal_amid_the_ending(used: Archiver) -> None:
    """It comes when the run that the first one has ended sets its signals anew."""
    trace = str(used.folder.parent / "trace")
    command = ["strace", "-qq", "-o", trace, "-e", "trace=fsync,rt_sigaction"]
    command += ["-e", "inject=fsync:signal=TERM:when=1"]
    used.run(before=command)
    calls, _ = Path(trace).read_text(errors="replace").split("--- SIGTERM", 1)
    number = calls.count("rt_sigaction(") + 1
    with unchanged(used):
        result = used.run(before=[*command, "-e", f"inject=rt_sigaction:signal=TERM:when={number}"])
    assert Path(trace).read_text(errors="replace").count("--- SIGTERM") == 2
    assert result.code == 143
    assert_one_sentence(result.err, "SIGTERM")
    assert_recovers(used)


@strace
@posix
def test_a_signal_while_a_failed_run_is_ending(used: Archiver) -> None:
    """At each step from the failure to the end of the process: one sentence, and no traceback."""
    used.api.on(WORKS, answer(status="404 Not Found"))
    trace = str(used.folder.parent / "trace")
    command = ["strace", "-qq", "-o", trace, "-e", "trace=rt_sigaction"]
    used.run(before=command)
    calls = Path(trace).read_text(errors="replace").splitlines()
    armed = next(at for at, line in enumerate(calls, 1) if "(SIGALRM, {" in line)  # the last
    for number in range(armed + 1, len(calls) + 1):
        injection = f"inject=rt_sigaction:signal=TERM:when={number}"
        with unchanged(used):
            result = used.run(before=[*command, "-e", injection])
        assert result.code in (1, 143), (number, result)
        assert_one_sentence(result.err, "SIGTERM" if result.code == 143 else "404")
        assert used.log.splitlines()[-1].endswith(result.err.strip())


@strace
@pytest.mark.parametrize("error", ["EINVAL", "EBADF", "EOPNOTSUPP", "ENOSYS"])
def test_a_folder_that_can_not_be_synced(used: Archiver, error: str) -> None:
    """So it is on CIFS, sshfs and some NFS, and it is no failure there."""
    paths = [word for path in (used.archive, used.folder) for word in ("-P", str(path))]
    command = ["strace", "-f", "-y", "-qq", "-o", str(used.folder.parent / "trace"), *paths]
    result = used.run(before=[*command, "-e", f"inject=fsync:error={error}"])
    assert (result.code, result.err) == (0, "")
    assert NEW_NAME in result.out
    assert used.files() == archived(OLD, NEW)
    text = (used.folder.parent / "trace").read_text(errors="replace")
    assert text.count("(INJECTED)") >= 4


@strace
@pytest.mark.parametrize("error", ["ENOLCK", "ENOSYS", "EOPNOTSUPP"])
def test_a_lock_that_can_not_be_had(used: Archiver, error: str) -> None:
    with unchanged(used):
        command = ["strace", "-f", "-qq", "-o", os.devnull, "-e", f"inject=flock:error={error}"]
        result = used.run(before=command)
    assert result.code == 1
    assert_one_sentence(result.err, "lock", "STORAGE_DIR", str(used.archive))
    assert_recovers(used)


@strace
def test_an_answer_that_can_not_be_kept(used: Archiver) -> None:
    """The disk is full behind the download: that is what is to be said, and no more."""
    used.api.on(WORKS, answer(b"<html>"))
    command, _ = traced(used, "-e", "trace=rename", "-e", "inject=rename:error=ENOSPC:when=1")
    with unchanged(used):
        result = used.run(before=command, ATTEMPTS="1")
    assert result.code == 1
    said = own_words(result)
    assert_one_sentence(said, "No space left on device", "make room")


@strace
def test_a_dataset_that_can_not_be_synced_is_not_published(used: Archiver) -> None:
    """EIO there means that it may not be on the disk."""
    command, _ = traced(used, "-e", "trace=fsync", "-e", "inject=fsync:error=EIO:when=1")
    with unchanged(used):
        result = used.run(before=command)
    assert result.code == 1
    said = own_words(result)
    assert_one_sentence(said, "Input/output error", str(used.archive))
    assert_recovers(used)


@strace
def test_what_is_published_was_synced_first(used: Archiver) -> None:
    """The file before its name, its folder after it, and what says so only then."""
    command, trace = traced(used, "-e", f"trace={STEPS}", "-P", str(used.folder))
    # Small chunks: the last of them waits in a buffer, and is to be written before the sync.
    assert used.run(before=command, CHUNK_SIZE="1000").code == 0
    lines = Path(trace).read_text(errors="replace").splitlines()

    def place(pattern: str, start: int = 0) -> int:
        places = [at for at, line in enumerate(lines) if at >= start and re.search(pattern, line)]
        assert places, (pattern, lines)
        return places[0]

    at = -1
    for target, folder in (
        (NEW_NAME, used.archive),
        ("editions.csv", used.archive),
        ("MD5SUMS", used.archive),
        ("last_checksum.txt", used.folder),
    ):
        renamed = place(rf"rename\(.*{re.escape(target)}", at + 1)
        written = re.compile(r"(write|fsync)\(\d+<[^>]*/\.lumiere\.part>")
        before = [line for line in lines[at + 1 : renamed] if written.search(line)]
        assert "write(" in before[-2]
        assert "fsync(" in before[-1]
        at = place(rf"fsync\(\d+<{re.escape(str(folder))}>\)", renamed)


@strace
def test_what_is_rejected_was_synced_first(used: Archiver) -> None:
    used.api.on(WORKS, answer(NEW[:-1]))
    command, trace = traced(used, "-e", f"trace={STEPS}")
    assert used.run(before=command, ATTEMPTS="1").code == 1
    text = Path(trace).read_text(errors="replace")
    order = r"fsync\(\d+<[^>]*part>.*rename\(.*rejected/.*fsync\(\d+<[^>]*/rejected>"
    assert re.search(order, text, re.DOTALL)


# A small process between: the peak of a child begins with the size of what it was forked from.
MEASURE = """
import resource, subprocess, sys
code = subprocess.call(sys.argv[1:])
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(code % 256)
"""
measured = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="limits and counts memory as Linux does"
)


def peak_of(result: Result) -> float:
    """The MiB that a measured run took."""
    return int(result.out.split()[-1]) / 1024


@measured
def test_memory_stays_flat(used: Archiver, tmp_path: Path) -> None:
    """Three times the data, the same memory, and little of it where ijson has its C backend."""
    peaks = []
    for size in (10_000_000, 30_000_000) if ijson.backend != "python" else (2_000_000, 6_000_000):
        path = str(tmp_path / f"{size}.json")
        lumiere_api.write_dataset(path, size)
        used.api.on(WORKS, lumiere_api.from_file(path))
        peaks.append(peak_of(used.run(before=[sys.executable, "-c", MEASURE])))
    assert len(used.datasets()) == 3
    used.command = [sys.executable, "-c", "import requests, ijson"]
    start = peak_of(used.run(before=[sys.executable, "-c", MEASURE]))
    if ijson.backend == "python":
        assert max(peaks) < start + 32  # where it levels off
    else:
        assert max(peaks) < start + 8
        assert peaks[1] < peaks[0] + 2


MEMORY = "more than 1 GiB of memory"
HUNGRY = {  # each would take gigabytes, with the square of its depth, and what is said of it
    "arrays": (b"[" * 300000 + b"]" * 300000, MEMORY),
    "arrays beside arrays": (b"[" + b"[[]," * 60000 + b"[]" + b"]" * 60001, MEMORY),
    "objects": (b'{"a":' * 100000 + b"1" + b"}" * 100000, "not an array of works"),
}


@measured
@pytest.mark.parametrize("kind", HUNGRY)
def test_memory_for_what_is_nested_is_bounded(used: Archiver, kind: str) -> None:
    """It may be a dataset: what came is kept, and is not asked for again."""
    data, words = HUNGRY[kind]
    used.api.on(WORKS, answer(data))
    with unchanged(used, data):
        result = used.run(before=[sys.executable, "-c", MEASURE])
    assert result.code == 1
    assert_one_sentence(result.err, words, "rejected")
    assert peak_of(result) < 1.3 * 1024
    assert len(used.api.asked(WORKS)) == 1
    assert_recovers(used)


@measured
def test_memory_for_the_countries_is_bounded(used: Archiver) -> None:
    """Gigabytes of them, in a list that never ends."""

    def send(connection: socket.socket) -> None:
        connection.sendall(head("200 OK", ["Content-Type: application/json"]) + b"[")
        for _ in range(1500):
            connection.sendall(b'{"code": "AL", "is_coe": true},\n' * 32768)

    used.api.on(COUNTRIES, send)
    with unchanged(used):
        result = used.run(before=[sys.executable, "-c", MEASURE])
    assert result.code == 1
    assert_one_sentence(result.err, "more than 1 GiB of memory")
    assert peak_of(result) < 1.3 * 1024
    assert len(used.api.asked(COUNTRIES)) == 1
    assert_recovers(used)


@measured
@pytest.mark.parametrize(
    ("before", "limits"),
    [
        ("ulimit -S -v 700000", [700000 * 1024, None]),
        ("ulimit -v 700000", [700000 * 1024, 700000 * 1024]),
        ("ulimit -S -v 2000000", [2**30, None]),
        ("ulimit -v 2000000", [2**30, 2000000 * 1024]),
        (":", [2**30, None]),
    ],
)
def test_the_limit_of_memory_is_lowered_only(
    used: Archiver, pause: Pause, before: str, limits: List[Optional[int]]
) -> None:
    """And only the soft one: None stands for none."""
    child = used.start(before=["sh", "-c", f'{before}; exec "$@"', "sh"])
    pause.wait()
    text = Path(f"/proc/{child.pid}/limits").read_text()
    pause.go_on.set()
    assert finish(child).code == 0
    found = re.findall(r"(?m)^Max address space +(\w+) +(\w+)", text)[0]
    assert [None if limit == "unlimited" else int(limit) for limit in found] == limits


def test_an_archive_that_goes_away_amid_a_download(used: Archiver, pause: Pause) -> None:
    """Somebody tidies up, or a folder on the network is replaced: that is one sentence, too."""
    child = used.start()
    pause.wait()
    shutil.rmtree(str(used.archive))
    pause.go_on.set()
    result = finish(child)
    assert (result.code, result.out) == (1, "")
    assert_one_sentence(result.err, "No such file or directory", str(used.archive))
