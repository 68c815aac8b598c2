"""One run in which nothing goes wrong: what it asks, archives, says and leaves behind."""

import gzip
import json
import os
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any, Callable

import pytest
from conftest import (
    COUNTRIES,
    EDITIONS,
    NEW,
    NEW_NAME,
    OLD,
    OLD_NAME,
    ROOT,
    WORKS,
    Archiver,
    archived,
    as_csv,
    assert_one_sentence,
    fill,
    md5,
    row_of,
    unchanged,
)
from lumiere_api import MEMBERS, answer, as_json, chunked, dataset, until_close, works, zipped


def test_first_run_archives_the_dataset(fresh: Archiver) -> None:
    result = fresh.run()
    assert (result.code, result.err) == (0, "")
    assert_one_sentence(result.out, "New dataset", NEW_NAME, f"{len(NEW):,} bytes", md5(NEW))
    presences = sum(len(work["presences"]) for work in json.loads(NEW.decode()))
    assert f" 20 works, {presences} presences" in result.out
    assert fresh.files() == archived(NEW)


def test_second_run_is_silent_and_changes_nothing(fresh: Archiver) -> None:
    fresh.run()
    stamp = os.stat(str(fresh.archive / NEW_NAME)).st_mtime_ns
    assert fresh.run() == (0, "", "")
    assert fresh.files() == archived(NEW)
    assert os.stat(str(fresh.archive / NEW_NAME)).st_mtime_ns == stamp
    assert "INFO - Unchanged" in fresh.log.splitlines()[-1]
    assert "WARNING" not in fresh.log


def test_a_new_edition_joins_the_archive(used: Archiver) -> None:
    result = used.run()
    assert (result.code, result.err) == (0, "")
    assert used.files() == archived(OLD, NEW)


def test_unchanged_costs_no_parsing(used: Archiver) -> None:
    """What is equal to a dataset in the archive is not looked into, whatever it is."""
    no_json = b"x" * len(OLD)
    row = dict(row_of(OLD_NAME, OLD), hash=md5(no_json))
    fill(used, {os.path.join("archive", OLD_NAME): no_json, EDITIONS: as_csv([row])})
    used.api.on(WORKS, answer(no_json))
    assert used.run() == (0, "", "")
    assert used.checksum.read_text() == md5(no_json) + "\n"


def test_the_last_checksum_alone_proves_nothing(used: Archiver) -> None:
    """The archive has a file of the same size, and not these bytes."""
    no_json = b"x" * len(OLD)
    used.api.on(WORKS, answer(no_json))
    used.checksum.write_text(md5(no_json) + "\n")
    with unchanged(used, no_json):
        result = used.run()
    assert result.code == 1
    assert_one_sentence(result.err, "is not whole")


def test_a_checksum_of_another_edition_hides_nothing(used: Archiver) -> None:
    """What is served is in the archive, whatever last_checksum.txt says."""
    used.checksum.write_text(md5(NEW) + "\n")
    used.api.on(WORKS, answer(OLD))
    assert used.run() == (0, "", "")
    assert used.files() == archived(OLD)


@pytest.mark.parametrize("text", ["{}", "{}\r\n", "  {}  \n"])
def test_the_original_checksum_file_is_read(fresh: Archiver, text: str) -> None:
    fresh.checksum.write_text(text.format(md5(NEW)))
    result = fresh.run()
    assert (result.code, result.err) == (0, "")
    assert "archived again" in result.out
    assert fresh.datasets() == {NEW_NAME: NEW}


def test_what_is_asked(fresh: Archiver) -> None:
    listed = [{"code": code, "is_coe": True, "other": [1]} for code in [*MEMBERS, "AL", "FR"]]
    listed.append({"code": "US", "is_coe": False})
    fresh.api.on(COUNTRIES, answer(as_json(listed)))
    fresh.run()
    first, second = fresh.api.requests
    assert (first.method, first.path, first.body) == ("GET", COUNTRIES, b"")
    assert (second.method, second.path) == ("POST", WORKS)
    assert json.loads(second.body.decode()) == {
        "id_type": "",
        "ids": [],
        "title": "",
        "directors": [],
        "work_types": [],
        "production_years": [],
        "production_countries": [],
        "catalogs": [],
        "catalogs_countries": sorted(MEMBERS),
        "business_models": ["FoD", "SVoD", "TVoD"],
    }
    for request in (first, second):
        assert "lumiere" in str(request.headers["User-Agent"])
        assert request.headers["Accept"] == "application/json"
        assert "gzip" in str(request.headers["Accept-Encoding"])
    assert second.headers["Content-Type"] == "application/json"


@pytest.mark.parametrize("send", [answer, chunked, zipped, until_close])
@pytest.mark.parametrize("chunk", ["7", "1000", "10000000"])
def test_every_framing_and_chunk_size(
    fresh: Archiver, send: Callable[..., Any], chunk: str
) -> None:
    fresh.api.on(WORKS, send(NEW))
    assert fresh.run(CHUNK_SIZE=chunk).code == 0
    assert fresh.files() == archived(NEW)


def test_redirects_that_keep_the_post_are_followed(fresh: Archiver) -> None:
    fresh.api.on(WORKS, answer(status="308 Permanent Redirect", headers=["Location: /b"]))
    fresh.api.on("/b", answer(status="307 Temporary Redirect", headers=["Location: /c"]))
    fresh.api.on("/c", answer(NEW))
    fresh.api.on(COUNTRIES, answer(status="301 Moved", headers=["Location: /countries"]))
    fresh.api.on("/countries", answer(as_json([{"code": "FR", "is_coe": True}])))
    assert fresh.run().code == 0
    assert fresh.files() == archived(NEW)
    last = fresh.api.requests[-1]
    assert last.method == "POST"
    assert json.loads(last.body.decode())["catalogs_countries"] == ["FR"]


@pytest.mark.parametrize(
    ("dates", "newest", "passed_over"),
    [
        (["2026-01-31", "2026-02-28"], "2026-02-28", 0),
        (["2026-02-28T23:59:59Z", "2026-02-27"], "2026-02-28", 0),
        (["2026-02-28T23:59:59.123+02:00"], "2026-02-28", 0),
        (["2026-02-28 23:59"], "2026-02-28", 0),
        (["2026-02-28", None, 20270101, True, {}, [], "", "soon", 1e400], "2026-02-28", 8),
        (["2026-02-28", "2026-02-31", "2026-13-01", "9999-99-99"], "2026-02-28", 3),
        (["2026-02-28", "../../2027-01-01", "2027-01-01/../../x", "2027-01-01\n"], "2026-02-28", 3),
        (["2026-02-28", "2027-01-01 ../x", "2027-01-01T../x", " 2027-01-01"], "2026-02-28", 3),
        (["2026-02-28", "2027-1-1", "27-01-01", "\u0662\u0660\u0662\u0667-01-01"], "2026-02-28", 3),
    ],
)
def test_presence_dates(fresh: Archiver, dates: Any, newest: str, passed_over: int) -> None:
    data = as_json([{"presences": [{"presence_date": date} for date in dates]}])
    fresh.api.on(WORKS, answer(data.replace(b"Infinity", b"1e400")))
    result = fresh.run()
    assert (result.code, result.err) == (0, "")
    assert list(fresh.datasets()) == [f"Complete_lumiere_COE_{newest}.json"]
    assert f" 1 works, {len(dates)} presences" in result.out
    warnings = re.findall(r" - WARNING - (\d+) presences", fresh.log)
    assert warnings == ([str(passed_over)] if passed_over else [])


def test_a_presence_date_that_is_deep_is_passed_over(fresh: Archiver) -> None:
    """Deeper than Python could write it out."""
    deep = b"[" * 990 + b"]" * 990
    dated = as_json([{"presences": [{"presence_date": "2026-02-28"}, {"presence_date": 7}]}])
    data = dated.replace(b"7", deep)
    fresh.api.on(WORKS, answer(data))
    result = fresh.run()
    assert (result.code, result.err) == (0, "")
    assert fresh.datasets() == {"Complete_lumiere_COE_2026-02-28.json": data}
    assert "1 works, 2 presences" in result.out
    assert "WARNING: 1 presences have no usable presence_date." in result.out


def test_dates_missing_in_the_earlier_dataset_are_no_news(fresh: Archiver) -> None:
    """It is read again for the differences, but a warning speaks of the new one only."""
    for day, warned in (("2026-06-30", 1), ("2026-09-30", 2)):
        dates = [{"presence_date": date} for date in (day, "soon")]
        fresh.api.on(WORKS, answer(as_json([{"presences": dates}])))
        assert fresh.run().code == 0
        assert fresh.log.count("1 presences have no usable presence_date") == warned


def test_odd_works_are_fine(fresh: Archiver) -> None:
    odd = [{}, {"presences": None}, {"presences": []}, {"presences": "2020-01-01"}, 17, None, []]
    data = as_json([*odd, {"presences": [17, {}, {"presence_date": "2026-09-30"}]}])
    fresh.api.on(WORKS, answer(data))
    result = fresh.run()
    assert result.code == 0
    assert f" {len(odd) + 1} works, 3 presences" in result.out
    assert fresh.files() == archived(data)


def test_some_depth_is_fine(fresh: Archiver) -> None:
    deep = b"[" * 400 + b"]" * 400
    data = b'[{"x": %s, "presences": [{"presence_date": "2026-09-30"}]}]' % deep
    fresh.api.on(WORKS, answer(data))
    assert fresh.run().code == 0
    assert fresh.files() == archived(data)


def test_same_date_with_other_contents(used: Archiver) -> None:
    versions = [OLD] + [dataset(date="2026-06-30", seed=seed) for seed in (11, 12)]
    for version in versions[1:]:
        used.api.on(WORKS, answer(version))
        assert used.run().code == 0
    assert used.files() == archived(*versions)


def test_names_that_are_taken_are_left_alone(fresh: Archiver) -> None:
    (fresh.archive / NEW_NAME).mkdir()
    if os.name == "posix":
        (fresh.archive / NEW_NAME.replace(".json", "_1.json")).symlink_to("nowhere")
    else:
        (fresh.archive / NEW_NAME.replace(".json", "_1.json")).mkdir()
    assert fresh.run().code == 0
    assert (fresh.archive / NEW_NAME.replace(".json", "_2.json")).read_bytes() == NEW


def test_an_older_edition_served_again(used: Archiver) -> None:
    used.run()
    used.api.on(WORKS, answer(OLD), answer(NEW))
    assert used.run() == (0, "", "")
    assert used.files() == archived(OLD, NEW, last=OLD)
    assert OLD_NAME in used.log.splitlines()[-1]
    assert used.run() == (0, "", "")
    assert used.files() == archived(OLD, NEW)


@pytest.mark.parametrize("damage", [b"", b"d41d8cd98f", b"\xff\xfe\x00", b"z" * 32, b"\n"])
def test_checksum_file_torn(used: Archiver, damage: bytes) -> None:
    used.checksum.write_bytes(damage)
    used.api.on(WORKS, answer(OLD))
    assert used.run() == (0, "", "")
    assert used.files() == archived(OLD)


def test_checksum_file_lost(used: Archiver) -> None:
    used.checksum.unlink()
    used.api.on(WORKS, answer(OLD))
    assert used.run() == (0, "", "")
    assert used.files() == archived(OLD)


def test_a_damaged_dataset_is_fetched_again(used: Archiver) -> None:
    """What the README advises while the API still serves it: delete it and the checksum."""
    (used.archive / OLD_NAME).unlink()
    used.checksum.unlink()
    used.api.on(WORKS, answer(OLD))
    assert used.run().code == 0
    assert used.files() == archived(OLD)


def test_md5sums_lost(used: Archiver) -> None:
    (used.archive / "MD5SUMS").unlink()
    assert used.run().code == 0
    assert used.datasets() == {OLD_NAME: OLD, NEW_NAME: NEW}
    assert used.files() == archived(OLD, NEW)


def test_an_archive_of_the_original_script(used: Archiver) -> None:
    """It has no MD5SUMS, and its checksum file no newline."""
    (used.archive / "MD5SUMS").unlink()
    used.checksum.write_text(md5(OLD))
    used.api.on(WORKS, answer(OLD), answer(NEW))
    assert used.run() == (0, "", "")
    assert used.datasets() == {OLD_NAME: OLD}
    assert used.run().code == 0
    assert used.datasets() == {OLD_NAME: OLD, NEW_NAME: NEW}


def test_a_users_own_files_are_left_alone(used: Archiver) -> None:
    own = {"notes.json": b"{}", "copy.json": b"x" * len(NEW), "README": b"hello", ".hidden": b"?"}
    fill(used, {os.path.join("archive", name): data for name, data in own.items()})
    sums = (used.archive / "MD5SUMS").read_bytes() + b"%s *README\n# a note: of my own\n" % md5(
        b"hello"
    ).encode()
    (used.archive / "MD5SUMS").write_bytes(sums)
    assert used.run().code == 0
    for name, data in own.items():
        assert (used.archive / name).read_bytes() == data
    assert (used.archive / "MD5SUMS").read_bytes().startswith(sums)
    assert (used.archive / NEW_NAME).read_bytes() == NEW


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
@pytest.mark.parametrize("mask", [0o022, 0o027, 0o077, 0o002])
def test_permissions_are_those_of_the_umask(fresh: Archiver, mask: int) -> None:
    before = os.umask(mask)
    try:
        fresh.run()
    finally:
        os.umask(before)
    for name in ("archive/" + NEW_NAME, "archive/MD5SUMS", "last_checksum.txt", "archiver.log"):
        assert stat.S_IMODE(os.stat(str(fresh.folder / name)).st_mode) == 0o666 & ~mask


def test_another_file_system(fresh: Archiver, mount: Callable[..., None]) -> None:
    mount(fresh.archive, "-t", "tmpfs", "tmpfs")
    assert fresh.run().code == 0
    assert fresh.files() == archived(NEW)


def test_all_files_elsewhere(fresh: Archiver) -> None:
    """Relative paths start from the script's folder; ~ is the home folder."""
    result = fresh.run(
        STORAGE_DIR="some/where",
        LAST_CHECKSUM_FILE="~/sum.txt",
        LOG_FILE=str(fresh.folder / "other.log"),
        ARCHIVE_FILENAME_PREFIX="x-",
    )
    assert result.code == 0
    assert (fresh.folder / "some" / "where" / "x-2026-09-30.json").read_bytes() == NEW
    if os.name == "posix":
        assert (fresh.folder.parent / "sum.txt").read_text() == f"{md5(NEW)}\n"
    assert "New dataset" in (fresh.folder / "other.log").read_text()
    assert list(fresh.archive.iterdir()) == []


def test_log_lines(fresh: Archiver) -> None:
    fresh.run()
    for line in fresh.log.splitlines():
        assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} - [A-Z]+ - .+", line)
    assert "46 countries" in fresh.log


@pytest.mark.parametrize("level", ["debug", "WARNING"])
def test_log_level(fresh: Archiver, level: str) -> None:
    fresh.run(LOG_LEVEL=level)
    assert ("ijson" in fresh.log) == (level == "debug")
    assert ("INFO" in fresh.log) == (level == "debug")


@pytest.mark.parametrize("redirect", [">&-", "2>&-", ">/dev/full"])
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="a shell and /dev/full")
def test_no_place_for_output(fresh: Archiver, redirect: str) -> None:
    command = '"$0" "$1" ' + redirect
    code = subprocess.call(["/bin/sh", "-c", command, *fresh.command], env=fresh.environment())
    assert code == 0
    assert fresh.files() == archived(NEW)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="names are bytes")
def test_odd_names_and_folders_under_cron(tmp_path: Path, fresh: Archiver) -> None:
    """cron gives Python 3.6 an ASCII locale; names beyond it still work, also in the lists."""
    odd = b"donn\xe9es\xc3\xa9.json"
    with open(os.fsencode(str(fresh.archive)) + b"/" + odd, "wb") as file:
        file.write(NEW)
    listed = as_csv([row_of(NEW_NAME, NEW)]).replace(NEW_NAME.encode(), odd)
    fill(fresh, {EDITIONS: listed})
    for encoding in ("utf-8", "ascii"):
        fresh.settings["PYTHONIOENCODING"] = encoding
        result = fresh.run(LAST_CHECKSUM_FILE=f"{encoding}.txt")
        assert (result.code, result.err) == (0, "")
        assert list(fresh.datasets().values()) == [NEW]
        assert (fresh.folder / EDITIONS).read_bytes() == listed
        assert (fresh.archive / "MD5SUMS").read_bytes() == md5(NEW).encode() + b"  " + odd + b"\n"
        assert fresh.run("--verify").code == 0
    moved = fresh.folder.parent / "donn\xe9es \u4e2d"
    fresh.folder.rename(moved)
    fresh.command[1] = str(moved / "data_collect.py")
    fresh.api.on(WORKS, answer(OLD))
    assert fresh.run().code == 0
    assert (moved / "archive" / OLD_NAME).read_bytes() == OLD


def test_import_does_nothing(fresh: Archiver) -> None:
    code = "import logging, signal, data_collect\n"
    code += "print(signal.getsignal(15) == 0, logging.root.handlers)"
    command = [sys.executable, "-B", "-c", code]
    environment = dict(fresh.environment(), LUMIERE_CHUNK_SIZE="nonsense")
    out = subprocess.check_output(command, cwd=str(fresh.folder), env=environment)
    assert out.decode().split() == ["True", "[]"]
    assert (fresh.files(), fresh.log) == ({}, "")


def test_help_is_the_docstring(fresh: Archiver) -> None:
    result = fresh.run("--help")
    source = (ROOT / "data_collect.py").read_text(encoding="utf-8")
    assert source.split('"""')[1].strip() in result.out
    assert (result.code, result.err) == (0, "")
    assert (fresh.files(), fresh.log, fresh.api.requests) == ({}, "", [])


def test_gzip_is_stored_unpacked(fresh: Archiver) -> None:
    many = as_json(list(works(2000)))
    fresh.api.on(WORKS, zipped(many))
    assert len(gzip.compress(many)) < len(many) / 4
    assert fresh.run().code == 0
    assert list(fresh.datasets().values()) == [many]


def test_md5sum_agrees(used: Archiver) -> None:
    if not shutil.which("md5sum"):
        pytest.skip("no md5sum")
    used.run()
    out = subprocess.check_output(["md5sum", "-c", "MD5SUMS"], cwd=str(used.archive))
    assert out.decode() == f"{OLD_NAME}: OK\n{NEW_NAME}: OK\n"
