"""Compare the archiver with the shell's way to do the same, and print one table.

Whole processes are timed side by side, in turns, in one run; what counts is the ratio of the
medians, since machines are noisy. Where the project promises a ratio, the table says whether it is
kept; nothing fails here on a slow machine.

    .venv/bin/python tests/benchmark.py
"""

import argparse
import contextlib
import datetime
import os
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Callable, Dict, Iterator, List, NamedTuple, Sequence, Tuple

HERE = os.path.dirname(os.path.abspath(__file__))
TOOLS = ("bash", "curl", "jq", "md5sum", "tee")
# What a check can't do without, over the dataset that the run before has archived
PASS = """
import glob, ijson
for path in glob.glob("archive/*.json"):
    with open(path, "rb") as file:
        for work in ijson.items(file, "item"):
            pass
"""
POST = "curl -sS -X POST -H 'Content-Type: application/json' -d '{}' \"$URL\""


class Cost(NamedTuple):
    """What a process cost, its children with it."""

    wall: float  # seconds
    cpu: float  # seconds
    kernel: float  # seconds of these, spent in the kernel on its behalf
    memory: float  # MiB, at its peak


def measure(command: List[str], folder: str, environment: Dict[str, str]) -> Cost:
    """Run a command to its end, which must be a good one."""
    started = time.monotonic()
    child = subprocess.Popen(
        command, cwd=folder, env={**os.environ, **environment}, stdout=subprocess.DEVNULL
    )
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = 0
    if status:
        raise SystemExit(f"{command} ended with status {status}")
    wall = time.monotonic() - started
    cpu = usage.ru_utime + usage.ru_stime
    return Cost(wall, cpu, usage.ru_stime, usage.ru_maxrss / 1024)


def warm_up(folder: str, megabytes: float) -> None:
    """Write a file of this size and remove it, so that the next one finds its memory warm: what the
    host of a virtual machine has taken back costs ten times as much to fill.
    """
    path = os.path.join(folder, "warm")
    with open(path, "wb") as file:
        file.writelines(b"x" * 1_000_000 for _ in range(int(megabytes)))
    os.remove(path)


@contextlib.contextmanager
def stand_in(megabytes: float, rate: float = 0, other: bool = False) -> Iterator[Dict[str, str]]:
    """Serve a dataset, or another one, from a process of its own, at a rate in Mbit/s; give the
    settings.
    """
    command = [sys.executable, os.path.join(HERE, "lumiere_api.py")]
    command += ["--size", str(megabytes), "--rate", str(rate)]
    command += ["--seed", "2", "--date", "2026-06-30"] if other else []
    server = subprocess.Popen(command, stdout=subprocess.PIPE, universal_newlines=True)
    assert server.stdout
    try:
        lines = [server.stdout.readline() for _ in range(2)]
        yield dict(shlex.split(line)[0].split("=", 1) for line in lines)
    finally:
        server.terminate()
        server.wait()


def fresh_folder(folder: str) -> None:
    """Empty a folder and put the script into it."""
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder)
    shutil.copy(os.path.join(HERE, os.pardir, "data_collect.py"), folder)


Prepare = Callable[[], None]


def in_turns(
    rounds: int, sides: List[Tuple[Prepare, List[str]]], folder: str, environment: Dict[str, str]
) -> List[List[Cost]]:
    """Measure each side once a round."""
    costs: List[List[Cost]] = [[] for _ in sides]
    for _ in range(rounds):
        for side, (prepare, command) in enumerate(sides):
            prepare()
            costs[side].append(measure(command, folder, environment))
    return costs


def ratio(ours: List[Cost], theirs: List[List[Cost]], what: str, most: float = 0) -> str:
    """Compare medians with those of others, added up, and with what is promised at most; give the
    spread of the ratios round by round, too.
    """
    mine = [getattr(cost, what) for cost in ours]
    others = [[getattr(cost, what) for cost in costs] for costs in theirs]
    middle = statistics.median(mine) / sum(map(statistics.median, others))
    rounds = [a / sum(b) for a, b in zip(mine, zip(*others))]
    text = f"{middle:.2f} ({min(rounds):.2f}-{max(rounds):.2f})"
    if not most:
        return text
    return f"{text}; promised: {most}; {'kept' if middle <= most else '**broken**'}"


class Case(NamedTuple):
    """What is compared: the archiver's kind of run, and the shell's way to the same."""

    kind: str
    command: str
    wall: float = 0  # what the ratio is promised to be at most; 0: nothing is promised
    cpu: float = 0


def cases(rate: float) -> List[Case]:
    """List what is compared at a rate in Mbit/s, or without one."""
    if rate:
        return [Case("unchanged", f"{POST} -o out.json", wall=1.15 if rate >= 1000 else 0)]
    piped = f"set -o pipefail; {POST} | tee out.json | md5sum"
    checked = f"{piped}; jq empty out.json"
    return [
        Case("unchanged", piped, cpu=1.25),
        Case("new", piped),
        Case("new", checked),
        Case("new beside an earlier one", checked),
    ]


def compare(size: float, rounds: int, folder: str, rate: float = 0) -> Iterator[str]:
    """Make the table's rows for one size in MB, and one rate in Mbit/s."""
    script = [sys.executable, "data_collect.py"]
    out = os.path.join(folder, "out.json")

    def again() -> None:
        if os.path.exists(out):  # the archiver's own file is a new one each time, too
            os.remove(out)
        warm_up(folder, size)

    def anew() -> None:
        fresh_folder(folder)
        warm_up(folder, size)

    def beside() -> None:
        shutil.rmtree(folder)
        shutil.copytree(earlier, folder, copy_function=os.link)
        warm_up(folder, size)

    prepare = {"unchanged": again, "new": anew, "new beside an earlier one": beside}
    earlier = folder + "-earlier"  # what a run has left that archived another edition
    with stand_in(size, other=True) as settings:
        fresh_folder(earlier)
        measure(script, earlier, settings)
    with stand_in(size, rate) as settings:
        environment = {**settings, "URL": settings["LUMIERE_DATA_API_URL"]}
        for case in cases(rate):
            fresh_folder(folder)
            measure(script, folder, environment)
            sides = [(prepare[case.kind], script), (again, ["bash", "-c", case.command])]
            ours, theirs = in_turns(rounds, sides, folder, environment)
            wall = ratio(ours, [theirs], "wall", case.wall)
            cpu = ratio(ours, [theirs], "cpu", case.cpu)
            link = f", {rate:g} Mbit/s" if rate else ""
            yield f"| {case.kind}, {size:g} MB{link} | {shown(case.command)} | {wall} | {cpu} |"
        if not rate:
            sides = [(anew, script), (again, script), (again, [sys.executable, "-c", PASS])]
            new, *others = in_turns(rounds, sides, folder, environment)
            wall, cpu = ratio(new, others, "wall"), ratio(new, others, "cpu", 1.15)
            yield f"| new, {size:g} MB | unchanged, and a bare pass of ijson | {wall} | {cpu} |"


def shown(command: str) -> str:
    """Shorten a shell command for the table."""
    short = command.replace("set -o pipefail; ", "").replace(POST, "curl").replace(" out.json", "")
    return "`" + short.replace("|", "\\|") + "`"


def growth(sizes: Sequence[float], folder: str, rounds: int) -> Iterator[str]:
    """Make the rows on memory and CPU time by size in MB."""
    script = [sys.executable, "data_collect.py"]
    idle = statistics.median(measure([*script, "--help"], folder, {}).cpu for _ in range(rounds))
    for size in sizes:
        with stand_in(size) as settings:
            fresh_folder(folder)
            warm: Prepare = lambda: warm_up(folder, size)  # noqa: B023, E731
            ((new, *again),) = in_turns(rounds + 1, [(warm, script)], folder, settings)
        cells = [f"{size:g} MB"]
        for costs in ([new], again):
            cpu = statistics.median(cost.cpu for cost in costs)
            kernel = statistics.median(cost.kernel for cost in costs)
            cells += [f"{max(cost.memory for cost in costs):.1f} MiB"]
            cells += [f"{cpu - idle:.2f} s ({kernel:.2f})"]
        yield f"| {' | '.join(cells)} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="Compare the archiver with curl, md5sum and jq.")
    parser.add_argument("--size", type=float, default=300, help="MB (default: 300)")
    parser.add_argument("--rounds", type=int, default=5, help="of each comparison (default: 5)")
    parser.add_argument("--large", action="store_true", help="go to 3 GB, not to 1")
    options = parser.parse_args()
    missing = [tool for tool in TOOLS if not shutil.which(tool)]
    if missing:
        raise SystemExit(f"The benchmark needs {', '.join(missing)}.")
    with tempfile.TemporaryDirectory() as top:
        folder = os.path.join(top, "run")
        fresh_folder(folder)
        day = datetime.datetime.now(datetime.timezone.utc).date()
        python = ".".join(map(str, sys.version_info[:3]))
        print(f"{day}, {os.cpu_count()} cores, Python {python}\n")
        print("| the archiver, | against | wall: median ratio (range) | CPU |\n|---|---|---|---|")
        for size, rate in ((options.size, 0), (options.size, 1000), (options.size / 3, 100)):
            for row in compare(size, options.rounds, folder, rate):
                print(row, flush=True)
        print("\n| dataset | new: peak memory | CPU beyond start-up (the kernel's) ", end="")
        print("| unchanged: peak memory | CPU |\n|---|---|---|---|---|")
        for row in growth([10, 100, 1000] + [3000] * options.large, folder, 3):
            print(row, flush=True)


if __name__ == "__main__":
    main()
