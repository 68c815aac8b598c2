"""Options and settings: what is wrong is named in one line, and nothing is done."""

import os
import re
import subprocess
import sys
from typing import Dict

import pytest
from conftest import NEW, NEW_NAME, OLD, Archiver, archived, assert_one_sentence

WRONG: Dict[str, "list[str]"] = {
    "DATA_API_URL": [
        "lumierevod.obs.coe.int",
        "ftp://x/",
        "https://",
        "http://x:y/",
        "http://a b/",
    ],
    "COUNTRY_CODE_API_URL": [
        "/api",
        "http:///api",
        "http://x:70000",
        "http://u:p/q@h",
    ],
    "LOG_LEVEL": ["LOUD", "10"],
    "ARCHIVE_FILENAME_PREFIX": ["../x", ".x", "a/b", "a\\b", "x" * 101, "é"],
    "CHUNK_SIZE": ["0", "-1", "1.5", "many", "9999999999"],
    "ATTEMPTS": ["0", "2.5"],
    "CONNECT_TIMEOUT": ["0.0", "-1", "nan", "inf", "1e9"],
    "READ_TIMEOUT": ["0"],
    "MAX_RUNTIME": ["0", "forever", f"0.{'0' * 400}1"],
    "RETRY_DELAY": ["-1", "soon"],
}


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name in WRONG for value in WRONG[name]]
)
def test_wrong_settings(used: Archiver, name: str, value: str) -> None:
    used.settings[f"LUMIERE_{name}"] = value
    result = used.run()
    assert (result.code, result.out) == (2, "")
    assert_one_sentence(result.err, f"LUMIERE_{name} must be ")
    assert (used.files(), used.log, used.api.requests) == (archived(OLD), "", [])


def test_a_wrong_constant_is_named_as_it_stands(used: Archiver) -> None:
    script = used.folder / "data_collect.py"
    text = script.read_text(encoding="utf-8")
    script.write_text(text.replace("\nATTEMPTS = 5", "\nATTEMPTS = 'five'"), encoding="utf-8")
    del used.settings["LUMIERE_ATTEMPTS"]
    result = used.run()
    assert result.code == 2
    assert result.err.startswith("ATTEMPTS must be ")
    assert used.run(ATTEMPTS="1").code == 0


@pytest.mark.skipif(os.name != "posix", reason="a locale of POSIX")
@pytest.mark.parametrize("name", ["STORAGE_DIR", "LAST_CHECKSUM_FILE", "LOG_FILE"])
def test_a_path_that_the_locale_cannot_write(used: Archiver, name: str) -> None:
    """Python 3.6 under cron has ASCII only; the newer ones are brought to it here."""
    script = used.folder / "data_collect.py"
    text = re.sub(f"(?m)^{name} = .*$", f"{name} = 'Ærø/x'", script.read_text(encoding="utf-8"))
    script.write_text(text, encoding="utf-8")
    used.settings.update(LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0")
    result = used.run()
    assert (result.code, result.out) == (2, "")
    assert_one_sentence(result.err, f"{name} must be a path, best in ASCII.")
    assert (used.files(), used.log, used.api.requests) == (archived(OLD), "", [])


def test_constants_can_be_edited(fresh: Archiver) -> None:
    script = fresh.folder / "data_collect.py"
    text = script.read_text(encoding="utf-8")
    for before, after in (
        ('ARCHIVE_FILENAME_PREFIX = "Complete_lumiere_COE_"', 'ARCHIVE_FILENAME_PREFIX = ""'),
        ("MAX_RUNTIME = 6 * 3600.0", "MAX_RUNTIME = 2 * 3600"),
        ("CHUNK_SIZE = 256 * 1024", "CHUNK_SIZE = 8192"),
    ):
        assert before in text
        text = text.replace(before, after)
    script.write_text(text, encoding="utf-8")
    assert fresh.run().code == 0
    assert list(fresh.datasets()) == ["2026-09-30.json"]


@pytest.mark.parametrize("name", [name for name in WRONG if "URL" not in name])
def test_an_empty_variable_counts_as_unset(used: Archiver, name: str) -> None:
    used.settings[f"LUMIERE_{name}"] = " "
    assert used.run().code == 0
    assert NEW_NAME in used.datasets()


@pytest.mark.parametrize("option", ["--nonsense", "--verify=yes", "extra"])
def test_wrong_options(used: Archiver, option: str) -> None:
    result = used.run(option)
    assert (result.code, result.out) == (2, "")
    assert option.split("=")[0] in result.err
    assert (used.files(), used.log, used.api.requests) == (archived(OLD), "", [])


def test_main_can_be_called(fresh: Archiver) -> None:
    code = "import sys, data_collect; sys.exit(data_collect.main([]) + data_collect.main([]) + 40)"
    command = [sys.executable, "-B", "-c", code]
    assert subprocess.call(command, cwd=str(fresh.folder), env=fresh.environment()) == 40
    assert fresh.files() == archived(NEW)
