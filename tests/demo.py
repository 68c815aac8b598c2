"""Show the whole life of an archive in half a minute, without the internet.

Seven months go by, against a stand-in for the API: each month runs the real script as cron would,
in a folder of its own, and shows its exit code, what it printed (cron would mail that), what the
log says, and what lies in the archive. It needs nothing but what the script needs.

    .venv/bin/python tests/demo.py
"""

import os
import shutil
import subprocess
import sys
import tempfile
from typing import Dict, List, NamedTuple

from lumiere_api import Answer, LumiereApi, answer, dataset

SCRIPT = os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir, "data_collect.py")


class Month(NamedTuple):
    """What the API does in a month."""

    title: str
    answer: Answer


def story() -> List[Month]:
    """Tell what happens: editions come, one is revised, and the API has its bad days."""
    winter = answer(dataset(2000, date="2025-12-31", seed=1))
    spring = answer(dataset(2100, date="2026-03-31", seed=2))
    revised = answer(dataset(2099, date="2026-03-31", seed=3))
    summer = answer(dataset(2250, date="2026-06-30", seed=4))
    html = answer(b"<html><body>We are moving to a new server.</body></html>")
    return [
        Month("January: the first dataset", winter),
        Month("February: nothing new", winter),
        Month("March: a new edition", spring),
        Month("April: the same edition, revised", revised),
        Month("May: an outage", answer(status="503 Service Unavailable")),
        Month("June: a page of HTML where the dataset should be", html),
        Month("July: well again, and a new edition", summer),
    ]


def run(folder: str, settings: Dict[str, str], *options: str) -> None:
    """Run the script as cron would, and show what came of it."""
    bare = {name: os.environ[name] for name in ("PATH", "SYSTEMROOT") if name in os.environ}
    log = os.path.join(folder, "archiver.log")
    read = os.path.getsize(log) if os.path.exists(log) else 0
    child = subprocess.Popen(
        [sys.executable, os.path.join(folder, "data_collect.py"), *options],
        env={**bare, **settings},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    out, err = (text.decode("utf-8").splitlines() for text in child.communicate())
    with open(log, encoding="utf-8") as file:
        file.seek(read)
        logged = file.read().splitlines()
    print(f"  exit code: {child.returncode}")
    show("printed", out + err)
    show("archiver.log", logged)


def show(title: str, lines: List[str]) -> None:
    """Print some lines under a title, if there are any."""
    if lines:
        print(f"  {title}:", *lines, sep="\n    ", flush=True)


def files_in(folder: str) -> List[str]:
    """List the files in a folder as a user would see them, hidden ones aside."""
    found = []
    for path, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            if not name.startswith("."):
                whole = os.path.join(path, name)
                found.append(f"{os.path.getsize(whole):>9,} {os.path.relpath(whole, folder)}")
    return found


def main() -> None:
    """Let the months go by, and then check the archive."""
    with tempfile.TemporaryDirectory(prefix="lumiere-") as folder, LumiereApi() as api:
        shutil.copy(SCRIPT, folder)
        archive = os.path.join(folder, "archive")
        settings = {**api.settings, "LUMIERE_ATTEMPTS": "2", "LUMIERE_RETRY_DELAY": "1"}
        for month in story():
            print(f"\n{month.title}")
            api.on("/api/works", month.answer)
            run(folder, settings)
            show("archive", files_in(archive))
        print("\nIn the end, data_collect.py --verify")
        run(folder, settings, "--verify")


if __name__ == "__main__":
    main()
