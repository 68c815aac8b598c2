"""README and code hold together: what the one says, the other does."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Dict, List, Tuple

import lumiere_api
import pytest
from conftest import NEW_NAME, OLD_NAME, ROOT, Archiver
from test_terminal import on_screen, run_on_terminal

import data_collect

README = (ROOT / "README.md").read_text(encoding="utf-8")
SOURCE = (ROOT / "data_collect.py").read_text(encoding="utf-8")
HOME = "/home/you"  # where the README has its folder, lumiere
SET_UP = r"python3 -m venv .* -m pip install -r \S+ && "  # .ci/run does it
linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="as Linux prints it")


def blocks(*kinds: str) -> List[Tuple[str, str]]:
    """The README's fenced blocks of these kinds, and the output below each, or ""."""
    fenced = re.findall(r"(?ms)^( *)```([a-z]+)\n(.*?)^ *```$", README)
    flush = [(kind, re.sub(f"(?m)^{indent}", "", text)) for indent, kind, text in fenced]
    following = [*flush[1:], ("", "")]
    return [
        (text, after if kind_after == "text" else "")
        for (kind, text), (kind_after, after) in zip(flush, following)
        if kind in kinds
    ]


def plain(text: str, folder: str = "") -> str:
    """A text without what differs from run to run."""
    for pattern, stand_in in (
        (re.escape(folder) or "^$", f"{HOME}/lumiere"),
        (r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}", "TIME"),
        (r"in [\d.]+ s \([\d,.]+ MB/s\)", "in N s (N MB/s)"),
        (r"127\.0\.0\.1:\d+", "127.0.0.1:PORT"),
        (r"/[\w/.-]*/lumiere-\w+/", "/tmp/lumiere-X/"),
    ):
        text = re.sub(pattern, stand_in, text)
    return text


def assert_shown(output: str, said: str) -> None:
    """Hold that the README shows what was said, leaving out at most what "…" stands for."""
    if "…" not in output:
        assert said == output
    at = 0
    for part in re.split(r"(?m)^ *…\n", output):
        assert part in said[at:]
        at = said.index(part, at) + len(part)


@pytest.fixture
def reader(tmp_path: Path, api: lumiere_api.LumiereApi) -> Archiver:
    """A clone, with an environment and a stand-in that serves 30 MB; pings are heard, too."""
    folder = tmp_path / "lumiere"
    shutil.copytree(str(ROOT / "tests"), str(folder / "tests"))
    (folder / "archive").mkdir()
    shutil.copy(str(ROOT / "data_collect.py"), str(folder))
    (folder / ".venv").symlink_to(sys.prefix)
    lumiere_api.write_dataset(str(tmp_path / "works.json"), 30_000_000)
    api.on("/api/works", lumiere_api.from_file(str(tmp_path / "works.json")))
    api.on("/your-uuid/log", lumiere_api.answer(b"OK"))
    return Archiver(folder, api)


def say(reader: Archiver, command: str) -> str:
    """Do what the README says in its folder, and return what is printed."""
    command = command.replace("https://hc-ping.com", reader.api.url)
    arguments = ["bash", "-euc", f"cd '{reader.folder}'; {command}"]
    if "data_collect.py\n" in command:  # by hand, on a terminal
        reader.command = arguments
        _, _, shown = run_on_terminal(reader)
        return on_screen(shown)
    done = subprocess.run(
        arguments, env=reader.environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    assert done.returncode == 0, done.stdout.decode()
    return done.stdout.decode()


@linux
def test_every_command_and_its_output(reader: Archiver) -> None:
    """In their order, as somebody would who follows the README in a clone of their own."""
    for command, output in blocks("sh"):
        if "-m pytest" in command or "lumiere_api.py" in command:
            continue  # .ci/run does the one, and test_the_stand_in the other
        said = plain(say(reader, re.sub(SET_UP, "", command)), str(reader.folder))
        assert_shown(plain(output), said)
        if command.startswith("echo"):  # cron's turn
            line = said.replace(f"{HOME}/lumiere", str(reader.folder))
            subprocess.check_call(
                ["/bin/sh", "-c", line.split(None, 5)[5]], env=reader.environment()
            )


def test_the_stand_in() -> None:
    """As a program it prints the two settings that point the script at it."""
    command = next(text for text, _ in blocks("sh") if "lumiere_api.py" in text)
    python, *arguments = command.replace("--size 300", "--size 1").split()
    assert python == "python3"
    server = subprocess.Popen(
        [sys.executable, *arguments], cwd=str(ROOT), stdout=subprocess.PIPE, universal_newlines=True
    )
    try:
        assert server.stdout
        lines = [server.stdout.readline() for _ in range(2)]
    finally:
        server.terminate()
        server.communicate()
    assert [line.split("=")[0] for line in lines] == [
        "LUMIERE_DATA_API_URL",
        "LUMIERE_COUNTRY_CODE_API_URL",
    ]


@pytest.mark.parametrize("package", ["duckdb", "pandas"])
def test_using_the_datasets(reader: Archiver, package: str) -> None:
    pytest.importorskip(package)
    shutil.copy(str(reader.folder.parent / "works.json"), str(reader.archive / NEW_NAME))
    code, output = next(block for block in blocks("python") if f"import {package}" in block[0])
    command = [sys.executable, "-c", code]
    assert subprocess.check_output(command, cwd=str(reader.folder)).decode() == output


def test_crontab_line() -> None:
    line = re.search(r"(?m)^ *(\d+) (\d+) (\d+) \* \* (/\S+/\.venv/bin/python) (/\S+)$", README)
    assert line
    assert 0 < int(line.group(1)) < 60
    assert os.path.dirname(line.group(5)) == line.group(4).replace("/.venv/bin/python", "")
    assert os.path.basename(line.group(5)) == "data_collect.py"


def test_systemd_units(tmp_path: Path) -> None:
    if not shutil.which("systemd-analyze"):
        pytest.skip("no systemd-analyze")
    python = tmp_path / "lumiere" / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.symlink_to(sys.executable)
    for name, (text, _) in zip(("lumiere.service", "lumiere.timer"), blocks("ini")):
        (tmp_path / name).write_text(text)
        assert f"`{name}`" in README
    environment = {"HOME": str(tmp_path), "PATH": "/usr/bin:/bin", "XDG_RUNTIME_DIR": str(tmp_path)}
    command = ["systemd-analyze", "verify", "--user", "lumiere.service", "lumiere.timer"]
    done = subprocess.run(
        command,
        cwd=str(tmp_path),
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert (done.returncode, done.stdout) == (0, b"")


def constants() -> Dict[str, Any]:
    """The settings in the script, with their defaults."""
    block = SOURCE.split("# Settings:")[1].split("\n\n")[0]
    return {name: getattr(data_collect, name) for name in re.findall(r"(?m)^([A-Z_]+) = ", block)}


def test_settings_and_defaults() -> None:
    table = README.split("## Settings")[1].split("\n## ")[0]
    rows = re.findall(r"(?m)^\| (`[A-Z_`, ]+`) \| (?:`(.*?)`)? ?\|", table)
    listed = {name: default for names, default in rows for name in re.findall(r"[A-Z_]+", names)}
    defaults = {
        name: f"{value:g}" if isinstance(value, float) else str(value)
        for name, value in constants().items()
    }
    assert listed == defaults


def test_every_setting_is_read() -> None:
    ruled = {name for names, _, _, _ in data_collect.RULES for name in names.split()}
    assert ruled == set(constants())


def test_settings_named_elsewhere_are_settings() -> None:
    assert set(re.findall(r"LUMIERE_([A-Z_]+)", README)) <= set(constants())


def test_numbers_in_the_text() -> None:
    assert "six hours" in README
    assert data_collect.MAX_RUNTIME == 6 * 3600
    delays = [data_collect.RETRY_DELAY * 2**number for number in range(data_collect.ATTEMPTS - 1)]
    assert "for a quarter of an hour" in README
    assert sum(delays) == 15 * 60
    assert "after five attempts" in README
    assert data_collect.ATTEMPTS == 5
    assert "at most 20 seconds" in README
    assert data_collect.TELL_TIMEOUT == 20


def test_exit_codes() -> None:
    for code in ("0", "1", "2", "130", "143"):
        assert re.search(rf"\| .*\b{code}\b.* \|", README.split("## Exit codes")[1])
        assert re.search(rf"\b{code}\b", (data_collect.__doc__ or "").split("Exit codes")[1])


def test_options(fresh: Archiver) -> None:
    options = set(re.findall(r"--[a-z-]+", fresh.run("--help").out)) - {"--help"}
    assert options == {"--verify", "--test-notifications"}
    assert all(option in README for option in options)
    assert set(re.findall(r"data_collect\.py (--[a-z-]+)", README)) == options


def test_files(used: Archiver) -> None:
    """All that runs leave is in the table of files, and nothing else."""
    used.run()
    used.api.on("/api/works", lumiere_api.answer(b"[]"))
    used.run()
    table = README.split("## What lies where")[1].split("\n## ")[0]
    named = set(re.findall(r"`([\w./-]+)`", table)) - {"presence_date"}
    left = {
        str(path.relative_to(used.folder)) for path in used.folder.rglob("*") if path.is_file()
    } - {"data_collect.py", f"archive/{OLD_NAME}"}
    left = {re.sub("rejected/.*", "rejected/", path) for path in left}
    assert named == left | {f"archive/{data_collect.PART}"}


def test_links() -> None:
    """Those within the repository lead somewhere."""
    titles = re.findall(r"(?m)^#+ (.*)$", README)
    anchors = [re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles]
    for target in re.findall(r"\]\(([^)]+)\)", README):
        if target.startswith("#"):
            assert target[1:] in anchors
        elif "://" not in target:
            assert (ROOT / target).exists()
    for path in re.findall(r"tests/\w+\.\w+", README):
        assert (ROOT / path).exists()


def test_only_two_packages_at_run_time() -> None:
    lines = (ROOT / "requirements.txt").read_text().split()
    assert sorted(re.split("[<>=]", line)[0] for line in lines) == ["ijson", "requests"]


def test_shape() -> None:
    """Nothing but the agreed files at the top level, beside dot-files and what a run makes."""
    run = {"last_checksum.txt", "archiver.log", "__pycache__"}
    names = {path.name for path in ROOT.iterdir() if not path.name.startswith(".")} - run
    agreed = {"data_collect.py", "requirements.txt", "README.md", "LICENSE", "archive", "tests"}
    assert names == agreed
