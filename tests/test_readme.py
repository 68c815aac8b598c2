"""README and code hold together."""

import os
import re
from typing import Any, Dict

import pytest
from conftest import ROOT, Archiver

import data_collect

README = (ROOT / "README.md").read_text(encoding="utf-8")
SOURCE = (ROOT / "data_collect.py").read_text(encoding="utf-8")


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


def test_exit_codes() -> None:
    for code in ("0", "1", "2", "130", "143"):
        assert re.search(rf"\| .*\b{code}\b.* \|", README.split("## Exit codes")[1])
        assert re.search(rf"\b{code}\b", (data_collect.__doc__ or "").split("Exit codes")[1])


def test_options(fresh: Archiver) -> None:
    options = set(re.findall(r"--[a-z-]+", fresh.run("--help").out)) - {"--help"}
    assert options == {"--verify", "--test-notifications"}
    assert all(option in README for option in options)


def test_crontab_line() -> None:
    line = re.search(r"(?m)^(\d+) (\d+) (\d+) \* \* (/\S+/\.venv/bin/python) (/\S+)$", README)
    assert line
    assert 0 < int(line.group(1)) < 60
    assert os.path.dirname(line.group(5)) == line.group(4).replace("/.venv/bin/python", "")
    assert os.path.basename(line.group(5)) == "data_collect.py"


@pytest.mark.parametrize("name", ["archive", "requirements.txt", "LICENSE", "tests/benchmark.py"])
def test_what_the_readme_names_is_there(name: str) -> None:
    assert (ROOT / name).exists()


def test_only_two_packages_at_run_time() -> None:
    lines = (ROOT / "requirements.txt").read_text().split()
    assert sorted(re.split("[<>=]", line)[0] for line in lines) == ["ijson", "requests"]


def test_shape() -> None:
    """Nothing but the agreed files at the top level, beside dot-files and what a run makes."""
    run = {"last_checksum.txt", "archiver.log", "__pycache__"}
    names = {path.name for path in ROOT.iterdir() if not path.name.startswith(".")} - run
    agreed = {"data_collect.py", "requirements.txt", "README.md", "LICENSE", "archive", "tests"}
    assert names == agreed
