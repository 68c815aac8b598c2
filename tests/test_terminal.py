"""By hand, on a real terminal: the log and a progress line on stderr."""

import gzip
import os
import re
import signal
import socket
import subprocess
import time
from typing import Tuple

import pytest
from conftest import NEW, OLD, WORKS, Archiver, archived
from lumiere_api import Answer, answer, head, raw
from telling import CONTROLS, assert_printable, dead_port

pty = pytest.importorskip("pty", reason="pseudo-terminals of POSIX")


def run_on_terminal(archiver: Archiver, *options: str) -> Tuple[int, str, str]:
    """Run with stderr on a terminal and stdout on a pipe: exit code, stdout, what was shown."""
    ours, theirs = pty.openpty()
    child = subprocess.Popen(
        [*archiver.command, *options],
        env=archiver.environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=theirs,
    )
    os.close(theirs)
    shown = b""
    while True:
        try:
            data = os.read(ours, 65536)
        except OSError:  # what Linux says at the end
            break
        if not data:
            break
        shown += data
    out, _ = child.communicate(timeout=60)
    os.close(ours)
    return child.returncode, out.decode(), shown.decode()


def in_parts(data: bytes, headers: Tuple[str, ...]) -> Answer:
    """Answer in ten parts, a fifth of a second between them."""

    def rest(connection: socket.socket) -> None:
        size = len(data) // 10 + 1
        for start in range(0, len(data), size):
            connection.sendall(data[start : start + size])
            time.sleep(0.2)

    return raw(head("200 OK", headers), then=rest)


def on_screen(shown: str) -> str:
    """What is left on the screen: a carriage return starts the line anew."""
    lines = []
    for line in shown.replace("\r\n", "\n").split("\n"):
        screen = ""
        for part in line.split("\r"):
            screen = part + screen[len(part) :]
        lines.append(screen.rstrip())
    return "\n".join(lines)


LOG_LINE = r"\d{4}-\d\d-\d\d [\d:,]{12} - (INFO|WARNING|ERROR) - .*"


@pytest.mark.parametrize("known", [True, False])
def test_log_and_progress(used: Archiver, known: bool) -> None:
    length = (f"Content-Length: {len(NEW)}",) if known else ()
    used.api.on(WORKS, in_parts(NEW, length))
    used.settings["LUMIERE_CHUNK_SIZE"] = "1000"
    code, out, shown = run_on_terminal(used)
    assert (code, out) == (0, "")
    assert used.files() == archived(OLD, NEW)
    progress = re.findall(r"\r([\d,.]+) MB, ([\d.]+) MB/s(?:, (\d+)%)? *(?=\r)", shown)
    assert len(progress) == -(-len(NEW) // 1000)
    assert all(bool(share) == known for _, _, share in progress)
    assert on_screen(shown).splitlines() == used.log.splitlines()
    assert all(re.fullmatch(LOG_LINE, line) for line in used.log.splitlines())


def test_progress_of_a_chunked_answer(used: Archiver) -> None:
    data = b" " * 400000 + NEW
    parts = [data[start : start + 50000] for start in range(0, len(data), 50000)]

    def rest(connection: socket.socket) -> None:
        for part in [*parts, b""]:
            connection.sendall(b"%x\r\n%s\r\n" % (len(part), part))
            time.sleep(0.1)

    used.api.on(WORKS, raw(head("200 OK", ["Transfer-Encoding: chunked"]), then=rest))
    used.settings["LUMIERE_CHUNK_SIZE"] = "10000"
    code, _, shown = run_on_terminal(used)
    assert code == 0
    sizes = [float(size) for size in re.findall(r"\r([\d.]+) MB, ", shown)]
    assert sizes == sorted(sizes)
    assert sizes[-1] >= 0.4 > sizes[0]


def test_progress_of_a_packed_answer_counts_what_was_sent(used: Archiver) -> None:
    packed = gzip.compress(NEW)
    headers = ("Content-Encoding: gzip", f"Content-Length: {len(packed)}")
    used.api.on(WORKS, in_parts(packed, headers))
    used.settings["LUMIERE_CHUNK_SIZE"] = "1000"
    code, _, shown = run_on_terminal(used)
    assert code == 0
    shares = [int(share) for share in re.findall(r"MB/s, (\d+)%", shown)]
    assert shares == sorted(shares)
    assert 0 < shares[0] < shares[-1] <= 100


@pytest.mark.parametrize("level", ["ERROR", "DEBUG"])
def test_log_level_hides_nothing_on_a_terminal(used: Archiver, level: str) -> None:
    used.settings["LUMIERE_LOG_LEVEL"] = level
    code, _, shown = run_on_terminal(used)
    assert code == 0
    assert re.search("INFO - New dataset: ", shown)
    assert "DEBUG" not in shown
    assert ("DEBUG - ijson has its " in used.log) == ("INFO" in used.log) == (level == "DEBUG")


@pytest.mark.parametrize("data", [OLD, NEW], ids=["unchanged", "new"])
def test_that_a_dataset_is_checked(used: Archiver, data: bytes) -> None:
    """It takes half a minute for a gigabyte, in which nothing else would be shown."""
    used.api.on(WORKS, answer(data))
    code, _, shown = run_on_terminal(used)
    assert code == 0
    shown = on_screen(shown)
    assert (" INFO - Checking " in shown) == (data == NEW)
    if data == NEW:
        order = ["INFO - Received ", "INFO - Checking ", "INFO - New dataset: "]
        assert sorted(order, key=shown.index) == order


@pytest.mark.parametrize("status", ["301 Moved", "308 Moved"])
def test_no_control_character_of_a_server(used: Archiver, status: str) -> None:
    moved_to = f"Location: http://127.0.0.1:{dead_port()}/{CONTROLS}\x9b2J\r\n {CONTROLS}"
    used.api.on(WORKS, answer(status=status, headers=[moved_to]))
    code, out, shown = run_on_terminal(used)
    assert (code, out) == (1, "")
    assert_printable(shown)
    assert all(re.fullmatch(LOG_LINE, line) for line in on_screen(shown).splitlines())


def test_progress_goes_before_a_failure_is_shown(used: Archiver) -> None:
    used.api.on(WORKS, in_parts(NEW[:20000], (f"Content-Length: {len(NEW)}",)))
    used.settings["LUMIERE_CHUNK_SIZE"] = "1000"
    code, out, shown = run_on_terminal(used)
    assert (code, out) == (1, "")
    assert "MB/s" in shown
    assert on_screen(shown).splitlines() == used.log.splitlines()
    assert shown.count("ERROR") == 1


def test_a_terminal_that_goes_away(used: Archiver) -> None:
    """What can't be shown doesn't hurt the run."""
    ours, theirs = pty.openpty()
    used.api.on(WORKS, in_parts(NEW, ()))
    ignore = lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN)  # noqa: E731
    child = subprocess.Popen(
        used.command, env=used.environment(), stderr=theirs, stdin=theirs, preexec_fn=ignore
    )
    os.close(theirs)
    os.read(ours, 1)
    os.close(ours)
    assert child.wait(60) == 0
    assert used.files() == archived(OLD, NEW)
