"""README and code hold together: what the one says, the other does."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Dict, List, Tuple

import lumiere_api
import pytest
from conftest import OLD_NAME, ROOT, Archiver, Result, finish
from test_terminal import on_screen, run_on_terminal

import data_collect

README = (ROOT / "README.md").read_text(encoding="utf-8")
SOURCE = (ROOT / "data_collect.py").read_text(encoding="utf-8")
TABLES = {
    title: text.split("\n|---")[1]
    for title, _, text in (
        part.partition("\n") for part in re.split(r"(?m)^##+ ", README) if "\n|---" in part
    )
}
HOME = "/home/you"  # where the README has its folder, lumiere
EXAMPLE = "https://git.example.org/you/lumiere.git"  # the address of a reader's copy
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
    for name in ("data_collect.py", ".gitignore"):
        shutil.copy(str(ROOT / name), str(folder))
    (folder / ".venv").symlink_to(sys.prefix)
    lumiere_api.write_dataset(str(tmp_path / "works.json"), 30_000_000)
    api.on("/api/works", lumiere_api.from_file(str(tmp_path / "works.json")))
    for path in ("/your-uuid/log", "/your-uuid/start", "/your-uuid"):
        api.on(path, lumiere_api.answer(b"OK"))
    return Archiver(folder, api)


def say(reader: Archiver, command: str) -> str:
    """Do what the README says in its folder, and return what is printed."""
    command = command.replace("https://hc-ping.com", reader.api.url)
    strict = "" if "crontab -l" in command else "e"  # it fails where there is no crontab so far
    arguments = ["bash", f"-{strict}uc", f"cd '{reader.folder}'; {command}"]
    if re.search(r"data_collect\.py.*\)\n", command):  # by hand, on a terminal
        reader.command = arguments
        code, out, shown = run_on_terminal(reader)
        assert code == 0, shown
        return out + on_screen(shown)
    done = subprocess.run(
        arguments, env=reader.environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    assert done.returncode == 0, done.stdout.decode()
    return done.stdout.decode()


def git(folder: Path, *arguments: str) -> str:
    """Run git in a folder, as somebody of its own."""
    author = ("-c", "user.name=You", "-c", "user.email=you@example.org")
    command = ["git", "-C", str(folder), *author, *arguments]
    return subprocess.check_output(command, stderr=subprocess.STDOUT).decode()


def clone(reader: Archiver, command: str) -> Path:
    """Clone the reader's folder by the README's command, and return where it was cloned from; the
    clone has an environment, and what the tests set is in its settings.env.
    """
    origin = reader.folder.parent / "origin"
    (reader.folder / ".venv").unlink()
    reader.folder.rename(origin)
    (origin / "archive" / ".gitkeep").touch()
    git(origin, "init", "-q")
    git(origin, "add", ".")
    git(origin, "commit", "-qm", "Begin")
    command = command.replace(EXAMPLE, str(origin))
    subprocess.check_call(["bash", "-euc", command], env=reader.environment())
    (reader.folder / ".venv").symlink_to(sys.prefix)
    with (reader.folder / ".git" / "info" / "exclude").open("a") as file:
        file.write("/.venv\n")  # a link here, while a folder is ignored
    settings = reader.folder / "settings.env"
    assert (settings.stat().st_mode & 0o777, settings.read_text()) == (0o600, "")
    settings.write_text("".join(f"{name}='{text}'\n" for name, text in reader.settings.items()))
    return origin


def crontab_of(reader: Archiver) -> Path:
    """Put a crontab program before that of the machine, and return the file that it keeps."""
    table, program = reader.folder.parent / "crontab", reader.folder.parent / "bin" / "crontab"
    program.parent.mkdir()
    program.write_text(
        f"#!/bin/sh\n[ $1 = -l ] && exec cat {table}\ncat > {table}.new; mv {table}.new {table}\n"
    )
    program.chmod(0o755)
    reader.settings = {"PATH": f"{program.parent}:/usr/bin:/bin"}
    return table


def as_cron(reader: Archiver, line: str) -> Result:
    """Run a crontab's line as cron does: by /bin/sh, at home, with next to no environment."""
    assert "%" not in line  # to cron it is the end of the line
    *schedule, command = line.split(None, 5)
    assert all(re.fullmatch(r"\*|\d+(,\d+)*", field) for field in schedule)
    assert 0 < int(schedule[0]) < 60
    home = str(reader.folder.parent)
    bare = {"HOME": home, "LOGNAME": "you", "PATH": "/usr/bin:/bin", "SHELL": "/bin/sh"}
    return finish(
        subprocess.Popen(
            ["/bin/sh", "-c", command],
            env=bare,
            cwd=home,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
    )


@linux
def test_every_command_and_its_output(reader: Archiver) -> None:
    """In their order, as somebody would who follows the README on a machine of their own."""
    if not shutil.which("git"):
        pytest.skip("no git")
    (cloning, _), *others = blocks("sh")
    origin = clone(reader, cloning)
    table = crontab_of(reader)
    for command, output in others:
        if "-m pytest" in command or "uv run" in command:
            continue  # .ci/run does the one, and test_uv the other
        said = plain(say(reader, re.sub(SET_UP, "", command)), str(reader.folder))
        assert_shown(plain(output), said)
        if "crontab -" in command:  # cron's turn
            run, verify = table.read_text().splitlines()
            assert verify.endswith(" --verify")
            for line in (verify, run):
                assert as_cron(reader, line) == Result(0, "", "")
    pings = [request.path for request in reader.api.requests if "uuid" in request.path]
    assert pings == ["/your-uuid/log", "/your-uuid/start", "/your-uuid"]
    # An update, for which nothing that a run or the reader has made is in the way
    assert git(reader.folder, "status", "--porcelain") == ""
    (origin / "data_collect.py").write_text(f"{SOURCE}\n# newer\n", encoding="utf-8")
    git(origin, "commit", "-qam", "Go on")
    assert "`git pull`" in README
    say(reader, "git pull")
    assert "# newer" in (reader.folder / "data_collect.py").read_text(encoding="utf-8")
    assert "hc-ping" not in (reader.folder / "settings.env").read_text()
    # The end: the lines go, and those of others stay
    table.write_text("MAILTO=you\n" + table.read_text())
    (end,) = re.findall(r"`(crontab -l \\\| .*? \\\| crontab -)`", README)
    say(reader, end.replace("\\|", "|"))
    assert table.read_text() == "MAILTO=you\n"


@linux
def test_the_first_command_where_the_python_is_gone(reader: Archiver) -> None:
    """As after an upgrade of the system: cron's mail is the README's message, and this the cure."""
    (command,) = {text for text, _ in blocks("sh") if "-r requirements.txt" in text}
    assert command.startswith("python3 -m venv --clear .venv && ")
    anew = command.split(" && ")[0].replace("python3", shlex.quote(sys.executable), 1)
    environment = reader.folder / ".venv"
    environment.unlink()

    def make(command: str) -> int:
        return subprocess.call(["/bin/sh", "-c", command], cwd=str(reader.folder))

    assert make(anew) == 0
    for python in (environment / "bin").glob("python*"):
        python.unlink()
        python.symlink_to(str(reader.folder / "gone"))
    (reader.folder / "settings.env").touch()
    (line,) = re.findall(r"(?m)^17 .*data_collect\.py$", README)
    result = as_cron(reader, line.replace(f"{HOME}/lumiere", str(reader.folder)))
    assert result.code == 127
    assert ".venv/bin/python: not found" in result.err
    assert "`.venv/bin/python: not found`" in TABLES["Over the years"]
    assert make(anew.replace(" --clear", "")) != 0
    assert make(anew) == 0
    assert make(".venv/bin/python -m pip --version > /dev/null") == 0


def test_uv(reader: Archiver) -> None:
    """With uv there is no set-up, and by cron's standards it is silent."""
    uv = shutil.which("uv") or shutil.which("uv", path=os.path.dirname(sys.executable))
    if not uv:
        pytest.skip("no uv")
    (command,) = (text for text, _ in blocks("sh") if "uv run" in text)
    path = f"{os.path.dirname(uv)}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, **reader.settings, "PATH": path, "UV_PYTHON_DOWNLOADS": "never"}
    child = subprocess.Popen(
        command.split(),
        cwd=str(reader.folder),
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    result = finish(child)
    if "Failed to fetch" in result.err:
        pytest.skip("uv reaches no registry")
    assert (result.code, result.err) == (0, "")
    assert result.out.startswith("New dataset: ")


def test_inline_metadata() -> None:
    """What uv reads in the script is what pip reads in requirements.txt."""
    (block,) = re.findall(r"(?m)^# /// script\n((?:#(?: .*)?\n)+?)# ///\n", SOURCE)
    lines = dict(line[2:].split(" = ", 1) for line in block.splitlines())
    assert sorted(lines) == ["dependencies", "requires-python"]
    assert re.findall('"(.*?)"', lines["dependencies"]) == requirements()
    assert lines["requires-python"] == '">=3.6"'
    assert "Python 3.6 or newer" in README


def test_the_stand_in() -> None:
    """As a program it prints the two settings that point the script at it."""
    (command,) = re.findall("`(.* tests/lumiere_api.py .*?)`", README)
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
    """In an archive of one edition, in the README's folder."""
    pytest.importorskip(package)
    assert reader.run().code == 0
    code, output = next(block for block in blocks("python") if f"import {package}" in block[0])
    assert "editions.csv" in code
    command = [sys.executable, "-c", code]
    assert subprocess.check_output(command, cwd=str(reader.folder)).decode() == output


def test_crontab_line() -> None:
    line = re.search(
        r"(?m)^(\d+) (\d+) (\d+) \* \* "
        r"set -a; \. (/\S+)/settings\.env; exec (/\S+/\.venv/bin/python) (/\S+)$",
        README,
    )
    assert line
    assert 0 < int(line.group(1)) < 60
    assert f"{line.group(4)}/.venv/bin/python" == line.group(5)
    assert f"{line.group(4)}/data_collect.py" == line.group(6)
    schedule = " ".join(line.groups()[:3])
    assert README.count(f"{schedule} * *") == 3  # for Healthchecks, in the command, in its output


def test_settings_file(used: Archiver) -> None:
    """Quoted in a way that /bin/sh and systemd read alike; and the script takes what it says."""
    (text,) = (text for text, _ in blocks("env"))
    lines = text.splitlines()
    (check,) = re.findall(r'echo "(LUMIERE_.*?)" >> settings.env', README)
    for line in [*lines, check]:
        assert re.fullmatch(r"LUMIERE_[A-Z_]+='[^'\\]+'", line)
    (used.folder / "settings.env").write_text(text.replace("…", "x"))
    script = f"set -a; . ./settings.env; exec {shlex.quote(sys.executable)} data_collect.py"
    done = subprocess.run(
        ["/bin/sh", "-c", f"{script} --verify"], cwd=str(used.folder), stderr=subprocess.PIPE
    )
    assert (done.returncode, done.stderr) == (0, b"")


def verified(folder: Path, units: Dict[str, str]) -> Tuple[int, str]:
    """Let systemd-analyze verify units: its exit code, and what it says."""
    python = folder / "lumiere" / ".venv" / "bin" / "python"
    if not python.exists():
        python.parent.mkdir(parents=True)
        python.symlink_to(sys.executable)
    for name, text in units.items():
        (folder / name).write_text(text)
    environment = {"HOME": str(folder), "PATH": "/usr/bin:/bin", "XDG_RUNTIME_DIR": str(folder)}
    done = subprocess.run(
        ["systemd-analyze", "verify", "--user", *units],
        cwd=str(folder),
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    return done.returncode, done.stdout.decode()


def test_systemd_units(tmp_path: Path) -> None:
    if not shutil.which("systemd-analyze"):
        pytest.skip("no systemd-analyze")
    service, timer = (text for text, _ in blocks("ini"))
    assert "`lumiere.service`" in README
    assert "`lumiere.timer`" in README
    assert verified(tmp_path, {"lumiere.service": service, "lumiere.timer": timer}) == (0, "")
    # The other job's, by the README's words
    (calendar,) = re.findall(r"`(OnCalendar=.*?)`", README)
    service = re.sub("(?m)^Restart.*\n", "", service).replace("collect.py", "collect.py --verify")
    timer = re.sub("OnCalendar=.*", calendar, timer)
    units = {"lumiere-verify.service": service, "lumiere-verify.timer": timer}
    assert verified(tmp_path, units) == (0, "")
    # What systemd only warns of is seen here: it would send no mail to Bo.
    spoilt = service + "Environment=LUMIERE_EMAIL_TO=anna@example.org, bo@example.org\n"
    assert "ignoring" in verified(tmp_path, {"spoilt.service": spoilt})[1]


def constants() -> Dict[str, Any]:
    """The settings in the script, with their defaults."""
    block = SOURCE.split("# ---- Settings")[1].split("# ----")[0]
    return {name: getattr(data_collect, name) for name in re.findall(r"(?m)^([A-Z_]+) = ", block)}


def test_settings_and_defaults() -> None:
    table = TABLES["Settings"]
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
    assert set(re.findall(r"LUMIERE_([A-Z]\w+)", README)) <= set(constants())
    named = re.findall(r"`([A-Z]+(?:_[A-Z]+)+)`", TABLES["Over the years"])
    assert set(named) <= set(constants())


def test_numbers_in_the_text() -> None:
    assert "six hours" in README
    assert data_collect.MAX_RUNTIME == 6 * 3600
    assert "7 hours of grace time" in README
    delays = [data_collect.RETRY_DELAY * 2**number for number in range(data_collect.ATTEMPTS - 1)]
    assert "over a quarter of an hour" in README
    assert sum(delays) == 15 * 60
    assert "after five attempts" in README
    assert data_collect.ATTEMPTS == 5
    assert "at most 35 seconds" in README
    assert data_collect.TELL_TIMEOUT == 35
    assert "on the next three days" in README
    assert "StartLimitBurst=4" in README  # the first try, and three more


def test_exit_codes() -> None:
    for code in ("0", "1", "2", "130", "143", "129"):
        assert re.search(rf"\| .*\b{code}\b.* \|", TABLES["Exit codes"])
        assert re.search(rf"\b{code}\b", (data_collect.__doc__ or "").split("Exit codes")[1])


def test_messages() -> None:
    """What people see is led by the script's own words."""
    joined = re.sub(r'"\s*\n\s*f?"', "", SOURCE)  # texts that go over several lines
    seen = [row.split(" | ")[0] for row in TABLES["Over the years"].splitlines()]
    quoted = [text for cell in seen for text in re.findall('"(.*?)"', cell)]
    assert len(quoted) > 10
    parts = [part.strip(" /?") for text in quoted for part in text.split("…")]
    assert [part for part in parts if part not in joined] == []


def test_help_fits_a_screen(fresh: Archiver) -> None:
    lines = fresh.run("--help").out.splitlines()
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 100
    examples = [line.strip() for line in lines if line.startswith("  (")]
    assert len(examples) == 2
    assert all(example in README for example in examples)


def test_options(fresh: Archiver) -> None:
    options = set(re.findall(r"--[a-z-]+", fresh.run("--help").out)) - {"--help"}
    assert options == {"--verify", "--test-notifications"}
    assert all(option in README for option in options)
    assert set(re.findall(r"data_collect\.py (--[a-z-]+)", README)) == options


def test_files(used: Archiver) -> None:
    """All that runs leave is in the table of files, and nothing else but the reader's own."""
    used.run()
    used.api.on("/api/works", lumiere_api.answer(b"[]"))
    used.run()
    named = set(re.findall(r"`([\w./-]+)`", TABLES["Files"])) - {"presence_date", "settings.env"}
    left = {
        str(path.relative_to(used.folder)) for path in used.folder.rglob("*") if path.is_file()
    } - {"data_collect.py", f"archive/{OLD_NAME}"}
    left = {re.sub("rejected/.*", "rejected/", path) for path in left}
    assert named == left | {f"archive/{data_collect.PART}"}
    assert "`settings.env`" in TABLES["Files"]
    assert "/*.env" in (ROOT / ".gitignore").read_text().splitlines()


def test_links() -> None:
    """Those within the repository lead somewhere; to others they are by https."""
    titles = re.findall(r"(?m)^#+ (.*)$", README)
    anchors = [re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles]
    for target in re.findall(r"\]\(([^)]+)\)", README):
        if target.startswith("#"):
            assert target[1:] in anchors
        elif "://" not in target:
            assert (ROOT / target).exists()
        else:
            assert re.fullmatch(r"https://[a-z.]+/?\S*", target)
    for path in re.findall(r"tests/\w+\.\w+", README):
        assert (ROOT / path).exists()


def test_size() -> None:
    """It can be read in one sitting, on a screen of 100 columns."""
    assert len(README.encode("utf-8")) <= 16_000
    prose = re.sub(r"(?ms)^```.*?^```$", "", README)
    assert [line for line in prose.splitlines() if len(line) > 100 and line[0] != "|"] == []


def requirements() -> List[str]:
    """What the script needs at run time."""
    return (ROOT / "requirements.txt").read_text().split()


def test_only_two_packages_at_run_time() -> None:
    lines = requirements()
    assert sorted(re.split("[<>=]", line)[0] for line in lines) == ["ijson", "requests"]


def test_shape() -> None:
    """Nothing but the agreed files at the top level, beside dot-files and what a run makes."""
    run = {"last_checksum.txt", "archiver.log", "__pycache__"}
    names = {path.name for path in ROOT.iterdir() if not path.name.startswith(".")} - run
    agreed = {"data_collect.py", "requirements.txt", "README.md", "LICENSE", "archive", "tests"}
    assert names == agreed
