"""README and code hold together: what the one says, the other does."""

import errno
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
import urllib.parse
from pathlib import Path
from typing import Any, Dict, List, Tuple

import lumiere_api
import pytest
from conftest import COLUMNS, OLD_NAME, ROOT, Archiver, Result, finish
from test_terminal import on_screen, run_on_terminal

import data_collect

README = (ROOT / "README.md").read_text(encoding="utf-8")
MAINTAINERS = (ROOT / "tests" / "README.md").read_text(encoding="utf-8")
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


def blocks(kind: str, text: str = README) -> List[Tuple[str, str]]:
    """The README's fenced blocks of this kind, and the output below each, or ""."""
    fenced = re.findall(r"(?ms)^( *)```([a-z]+)\n(.*?)^ *```$", text)
    flush = [(kind, re.sub(f"(?m)^{indent}", "", text)) for indent, kind, text in fenced]
    following = [*flush[1:], ("", "")]
    return [
        (text, after if kind_after == "text" else "")
        for (found, text), (kind_after, after) in zip(flush, following)
        if found == kind
    ]


def plain(text: str, folder: str = "") -> str:
    """A text without what differs from run to run."""
    for pattern, stand_in in (
        (re.escape(folder) if folder else "(?!)", f"{HOME}/lumiere"),
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
    for path in ("/your-uuid/log", "/your-uuid/start", "/your-uuid", "/your-uuid/fail"):
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


ELSEWHERE = ("uv run", "install duckdb")  # test_uv and .ci/run do these
LOST = "Complete_lumiere_COE_2019-06-30.json"  # the README's edition without a copy


@linux
def test_every_command_and_its_output(reader: Archiver) -> None:
    """In their order, as somebody would who follows the README on a machine of their own."""
    if not shutil.which("git"):
        pytest.skip("no git")
    (cloning, _), *others = blocks("sh")
    clone(reader, cloning)
    table = crontab_of(reader)
    lines: List[str] = []
    for command, output in others:
        if any(words in command for words in ELSEWHERE):
            continue
        if LOST in command:
            with (reader.archive / "MD5SUMS").open("a") as sums:
                sums.write(f"{'0' * 32}  {LOST}\n")
            assert as_cron(reader, lines[1]).err.count(f"{LOST} is missing") == 1
        said = plain(say(reader, re.sub(SET_UP, "", command)), str(reader.folder))
        assert_shown(plain(output), said)
        if "crontab -" in command:  # cron's turn
            before, lines = lines, table.read_text().splitlines()
            for line in set(lines) - set(before):
                assert as_cron(reader, line) == Result(0, "", "")
            if "date -d" in command:
                assert lines[:-1] == before
                minute, hour, day, month, _ = lines[-1].split()[:5]
                planned = (int(month), int(day), int(hour), int(minute))
                assert time.localtime()[1:5] <= planned <= time.localtime(time.time() + 120)[1:5]
    # Of the trial nothing is left, and whoever does step 5 again has no line twice.
    assert [line.rpartition(" ")[2] for line in lines] == [
        f"{reader.folder}/data_collect.py",
        "--verify",
    ]
    (adding,) = (command for command, _ in others if "when=" in command)
    say(reader, adding.replace("'17 4", "'18 5"))
    assert table.read_text().splitlines() == [lines[0].replace("17 4", "18 5"), lines[1]]
    pings = [request.path for request in reader.api.requests if "uuid" in request.path]
    run = ["/your-uuid/start", "/your-uuid"]  # by hand, by cron, and cron's trial
    assert pings == ["/your-uuid/log", *run * 3, "/your-uuid/fail"]
    # The end: the lines go, and those of others stay
    table.write_text("MAILTO=you\n" + table.read_text())
    (end,) = re.findall(r"`(crontab -l \\\| .*? \\\| crontab -)`", README)
    say(reader, end.replace("\\|", "|"))
    assert table.read_text() == "MAILTO=you\n"


def test_an_update(reader: Archiver) -> None:
    """What a run or the reader has made is not in the way; an edited script is, and is shown."""
    if not shutil.which("git"):
        pytest.skip("no git")
    origin = clone(reader, blocks("sh")[0][0])
    assert reader.run().code == 0
    assert git(reader.folder, "status", "--porcelain") == ""
    script = reader.folder / "data_collect.py"
    for line in ("# newer", "# newer still"):
        (origin / "data_collect.py").write_text(f"{SOURCE}\n{line}\n", encoding="utf-8")
        git(origin, "commit", "-qam", "Go on")
        if "still" in line:
            script.write_text("# edited\n" + script.read_text(encoding="utf-8"), encoding="utf-8")
            with pytest.raises(subprocess.CalledProcessError) as failed:
                git(reader.folder, "pull")
            assert b"would be overwritten by merge" in failed.value.output
            assert "+# edited" in git(reader.folder, "diff")
            git(reader.folder, "checkout", "data_collect.py")
        git(reader.folder, "pull")
        assert line in script.read_text(encoding="utf-8")
    (row,) = (row for row in rows_on("update of the script") if "git" in row)
    told = ("`git pull`", "`would be overwritten by merge`", "`git diff`", "`git checkout data_col")
    assert [words for words in told if words not in row] == []
    assert_in_order(row, *told)


def test_a_new_server(reader: Archiver) -> None:
    """The folder moves without its environment: settings, archive and log come along."""
    if not shutil.which("rsync"):
        pytest.skip("no rsync")
    assert reader.run().code == 0
    (reader.folder / "settings.env").write_text("LUMIERE_STALE_DAYS='0'\n")
    (command,) = re.findall("`(rsync .*?)`", "".join(rows_on("a new server")))
    home = reader.folder.parent / "home"
    home.mkdir()
    command = command.replace("old-server:lumiere", str(reader.folder))
    subprocess.check_call(["bash", "-euc", command], env={**os.environ, "HOME": str(home)})
    moved = {str(path.relative_to(home)) for path in home.rglob("*")}
    there = {
        f"lumiere/{path.relative_to(reader.folder)}"
        for path in reader.folder.rglob("*")
        if ".venv" not in path.parts
    }
    assert moved == {"lumiere"} | there


def rows_on(words: str) -> List[str]:
    """The rows of the table of the years with these words."""
    return [row for row in TABLES["Over the years"].splitlines() if words in row]


def assert_in_order(text: str, *parts: str) -> None:
    """Hold that these parts stand in a text, in this order."""
    places = [text.index(part) for part in parts]
    assert places == sorted(places)


def test_setting_up_is_in_order() -> None:
    """What a later step needs comes before it."""
    assert_in_order(
        README,
        "IT department",  # who must do something first
        "export HTTPS_PROXY=",  # which git and pip need
        "git clone",
        "### The repair command",
        "-m pip install -r",
        "Choose a time",  # which the next two use
        "hc-ping.com/your-uuid",
        "--test-notifications)",
        "until the check reads *Up*",
        "crontab -l",
        "# trial",
    )
    hosts = [urllib.parse.urlsplit(data_collect.DATA_API_URL).hostname, "pypi.org", "hc-ping.com"]
    (ask,) = re.findall("(?ms)^> .*?\n\n", README)
    wanted = [*hosts, "files.pythonhosted.org", "cron", "python3-venv", "proxy", "mail relay"]
    assert [word for word in wanted if str(word) not in ask] == []


@linux
def test_the_repair_command_where_the_python_is_gone(reader: Archiver) -> None:
    """As after an upgrade of the system: cron's mail is the README's message, and this the cure."""
    (command,) = {text for text, _ in blocks("sh") if "-r requirements.txt" in text}
    assert command in README.split("### The repair command")[1].split("###")[0]
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
    by_hand = ["bash", "-c", f"cd '{reader.folder}'; .venv/bin/python data_collect.py"]
    done = subprocess.run(by_hand, stderr=subprocess.PIPE)
    assert b".venv/bin/python: No such file or directory" in done.stderr
    (row,) = rows_on("`.venv/bin/python: not found`")
    assert "`No such file or directory`" in row
    assert "(#the-repair-command)" in row
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


@linux
def test_the_demonstration(reader: Archiver) -> None:
    """As it is shown; each command of tests/README.md is run by a test here, or by .ci/run."""
    commands = blocks("sh", MAINTAINERS)
    ((command, output),) = (block for block in commands if "demo.py" in block[0])
    assert_shown(plain(output), plain(say(reader, command)))
    others = [command for command, _ in commands if "demo.py" not in command]
    assert ["-m pytest tests" in command for command in others] == [True, False, False]


@linux
def test_the_stand_in(reader: Archiver, tmp_path: Path) -> None:
    """In the background it serves a run by the settings that it prints, and it leaves no trace."""
    serving, running = (text for text, _ in blocks("sh", MAINTAINERS) if "settings.env" in text)
    assert serving.count("\n") == 1
    script = f"{serving.replace('--size 30', '--size 1')}{running}jobs -p; kill %1; wait"
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    path = f"{os.path.dirname(sys.executable)}{os.pathsep}{os.environ['PATH']}"
    shell = subprocess.Popen(
        ["bash", "-euc", script],
        cwd=str(reader.folder),
        env={"PATH": path, "TMPDIR": str(temporary)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    result = finish(shell)
    assert (result.code, result.err) == (0, "")
    assert result.out.startswith("New dataset: ")
    settings = (reader.folder / "settings.env").read_text()
    address = r"'http://127\.0\.0\.1:\d+/api/"
    assert re.fullmatch(
        f"LUMIERE_DATA_API_URL={address}works'\nLUMIERE_COUNTRY_CODE_API_URL={address}countries'\n",
        settings,
    )
    assert list(temporary.iterdir()) == []
    with pytest.raises(ProcessLookupError):
        os.kill(int(result.out.split()[-1]), 0)


def write_editions(reader: Archiver) -> Path:
    """Put the README's three editions into the archive, and return the path of the last: a work
    goes, two come, and a revised one has one more.
    """
    for name, date, begin, end in (
        ("2026-06-30", "2026-06-30", 0, 200),
        ("2026-09-30", "2026-09-30", 1, 202),
        ("2026-09-30_1", "2026-09-30", 1, 203),
    ):
        works = [dict(work, title=f"Film {work['id']}") for work in lumiere_api.works(203, date)]
        path = reader.archive / f"Complete_lumiere_COE_{name}.json"
        path.write_bytes(lumiere_api.as_json(works[begin:end]))
    return path


def use(reader: Archiver) -> Tuple[List[str], float]:
    """Do the README's examples in Python, one after the other; return what each prints, and the
    peak of memory in MiB.
    """
    mark = "-" * 30
    code = f"print('{mark}')\n".join(code for code, _ in blocks("python"))
    child = subprocess.Popen(
        [sys.executable, "-c", code], cwd=str(reader.folder), stdout=subprocess.PIPE
    )
    assert child.stdout
    out = child.stdout.read().decode()
    child.stdout.close()
    _, child.returncode, usage = os.wait4(child.pid, 0)
    assert child.returncode == 0
    return out.split(f"{mark}\n"), usage.ru_maxrss / 1024


@linux
def test_using_the_datasets(reader: Archiver) -> None:
    """With two editions and a revised one, in the README's folder."""
    pytest.importorskip("duckdb")
    pytest.importorskip("pandas")
    write_editions(reader)
    said, _ = use(reader)
    assert said == [output for _, output in blocks("python")]


@linux
@pytest.mark.timeout(400)
def test_using_datasets_of_a_real_size(reader: Archiver) -> None:
    """An edition of 1.5 million presences beside others fits into the memory of a small server."""
    pytest.importorskip("duckdb")
    pytest.importorskip("pandas")
    path = write_editions(reader)
    lumiere_api.write_dataset(str(path), 200_000_000)
    said, memory = use(reader)
    (presences,) = re.findall(r"2026-09-30_1 +\d+ +(\d+)", said[0])
    assert int(presences) > 1_500_000
    assert memory < 900


def test_citing(fresh: Archiver) -> None:
    """The entry has what the row of an edition has, in its form."""
    assert fresh.run().code == 0
    (row,) = fresh.editions()
    ((entry, _),) = blocks("bibtex")
    cited = re.sub(r"(?s)^.*?(?=To cite)", "", README).partition("```")[0]
    assert [name for name in re.findall("`([a-z]+)`", cited) if name not in COLUMNS] == []
    for column in ("path", "created", "hash"):
        assert f"`{column}`" in cited
        form = re.sub(r"\d", r"\\d", re.escape(row[column]))
        form = "[0-9a-f]{32}" if column == "hash" else form
        assert re.search(form, entry.replace("\\_", "_"))
    assert entry.count("{") == entry.count("}")
    assert re.sub(r"\\_", "", entry).count("_") == 0  # TeX takes it for an index


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


def test_every_setting_is_read(used: Archiver) -> None:
    """A name that the script doesn't know is refused, so it knows all of these."""
    empty = dict.fromkeys(constants(), "")  # which counts as unset
    result = used.run("--verify", NO_SUCH="", **empty)
    assert result.code == 2
    assert re.findall(r"(\w+) is not a setting", result.err) == ["LUMIERE_NO_SUCH"]
    used.settings.update(dict.fromkeys(constants(), "x"))  # without LUMIERE_
    result = used.run("--test-notifications")
    assert set(re.findall(r"(\w+) is set, but", result.out)) == set(constants())


def test_settings_named_elsewhere_are_settings() -> None:
    assert set(re.findall(r"LUMIERE_([A-Z]\w+)", README)) <= set(constants())
    named = re.findall(r"`([A-Z]+(?:_[A-Z]+)+)`", TABLES["Over the years"])
    assert set(named) <= {f"LUMIERE_{name}" for name in constants()}  # as people write them


def test_numbers_in_the_text() -> None:
    assert "six hours" in README
    assert data_collect.MAX_RUNTIME == 6 * 3600
    assert "7 hours of grace time" in README
    delays = [data_collect.RETRY_DELAY * 2**number for number in range(data_collect.ATTEMPTS - 1)]
    assert "over a quarter of an hour" in MAINTAINERS
    assert sum(delays) == 15 * 60
    assert "after five attempts" in MAINTAINERS
    assert data_collect.ATTEMPTS == 5
    assert "in less than three\nminutes" in README
    assert 180 <= data_collect.LAST_ALARM <= 300
    assert "at most 64 MiB" in TABLES["Settings"]
    assert "from 1 to 66999999, or 67108864" in SOURCE
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
    by_system = [text for cell in seen for text in re.findall("`([A-Z].*?)`", cell)]
    known = [os.strerror(number) for number in (errno.ENOENT, errno.EACCES, errno.EROFS)]
    assert os.name == "nt" or sorted(by_system) == sorted(known)


def test_damage_is_not_said_to_be_harmless() -> None:
    """What is said of every failure is true of damage, too."""
    (row,) = rows_on("a failure, a check that is down")
    assert "No dataset is lost" not in row
    (row,) = rows_on("damaged: its MD5 is")
    assert "copy" in row


def test_escapes_of_a_password() -> None:
    ((letters, escapes),) = re.findall(r"write `(.*?)` as\s`(.*?)`", README)
    assert [urllib.parse.quote(letter, safe="") for letter in letters.split()] == escapes.split()
    assert set("#/?") <= set(letters)  # which data_collect.py asks for


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


@pytest.mark.parametrize(("folder", "text"), [(ROOT, README), (ROOT / "tests", MAINTAINERS)])
def test_links(folder: Path, text: str) -> None:
    """Those within the repository lead somewhere; to others they are by https."""
    titles = re.findall(r"(?m)^#+ (.*)$", text)
    anchors = [re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles]
    targets = re.findall(r"\]\(([^)]+)\)", text)
    assert targets
    for target in targets:
        if target.startswith("#"):
            assert target[1:] in anchors
        elif "://" not in target:
            assert (folder / target).exists()
        else:
            assert re.fullmatch(r"https://[a-z.]+/?\S*", target)
    for path in re.findall(r"tests/\w+\.\w+", text):
        assert (ROOT / path).exists()


def test_size() -> None:
    """It can be read in one sitting, on a screen of 100 columns."""
    assert len(README.encode("utf-8")) <= 20_000
    for text in (README, MAINTAINERS):
        prose = re.sub(r"(?ms)^```.*?^```$", "", text)
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
