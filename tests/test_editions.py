"""The record of each edition, and what the archive keeps beside its datasets."""

import csv
import datetime
import io
import os
import re
from pathlib import Path
from typing import Any, Callable, Dict, List, Tuple, Union

import pytest
from conftest import (
    COLUMNS,
    COUNTRIES,
    EDITIONS,
    NEW,
    NEW_NAME,
    OLD,
    OLD_NAME,
    WORKS,
    Archiver,
    archived,
    as_csv,
    assert_one_sentence,
    fill,
    md5,
    row_of,
    strace,
)
from lumiere_api import MEMBERS, answer, as_json, dataset
from telling import warnings_of


def test_a_row_for_each_edition(fresh: Archiver) -> None:
    before = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    fresh.run()
    after = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    text = (fresh.folder / EDITIONS).read_bytes()
    assert text.splitlines()[0].decode() == ",".join(COLUMNS)
    assert b"\r" not in text
    (row,) = fresh.editions()
    assert before <= row["created"] <= after
    assert row["countries"] == " ".join(sorted(MEMBERS))
    assert row["source"] == fresh.api.url + WORKS
    assert row["software"] == "lumiere-vod-archiver/2.0"
    assert dict(row_of(NEW_NAME, NEW), **row) == row
    assert fresh.files()[EDITIONS] == archived(NEW)[EDITIONS]


def test_the_source_holds_no_secret(fresh: Archiver) -> None:
    fresh.api.on(WORKS + "?key=5ecret", answer(NEW))
    url = fresh.api.url.replace("//", "//user:5ecret@") + WORKS + "?key=5ecret"
    assert fresh.run(DATA_API_URL=url).code == 0
    assert fresh.editions()[0]["source"] == fresh.api.url + WORKS
    assert b"5ecret" not in (fresh.folder / EDITIONS).read_bytes()


def test_rows_stand_in_the_order_of_archiving(used: Archiver) -> None:
    older = dataset(date="2026-03-31", count=30)
    for data in (NEW, older):
        used.api.on(WORKS, answer(data))
        used.run()
    dates = [row["presence_date"] for row in used.editions()]
    assert dates == ["2026-06-30", "2026-09-30", "2026-03-31"]


def test_md5sums_keeps_the_record(used: Archiver) -> None:
    (used.archive / OLD_NAME).unlink()
    assert used.run().code == 0
    sums = archived(OLD, NEW)[os.path.join("archive", "MD5SUMS")]
    assert (used.archive / "MD5SUMS").read_bytes() == sums


def test_md5sums_made_again_lists_what_is_there(used: Archiver) -> None:
    """Not what only editions.csv remembers."""
    used.run()
    (used.archive / OLD_NAME).unlink()
    (used.archive / "MD5SUMS").unlink()
    assert used.run().code == 0
    assert (used.archive / "MD5SUMS").read_text() == f"{md5(NEW)}  {NEW_NAME}\n"


def test_a_row_of_another_software_stays_as_it_is(used: Archiver) -> None:
    row = dict(row_of(OLD_NAME, OLD), created="2026-07-03T04:17:09Z", software="mine/3.0rc1, beta")
    (used.folder / EDITIONS).write_bytes(as_csv([row]))
    assert used.run().code == 0
    assert as_csv([row]).decode().splitlines()[1] in (used.folder / EDITIONS).read_text()


def test_a_whole_dataset_whose_row_has_no_counts(used: Archiver) -> None:
    """An earlier version could not read it, or somebody has cleared the fields."""
    row = dict(row_of(OLD_NAME, OLD), works="", presences="")
    (used.folder / EDITIONS).write_bytes(as_csv([row]))
    used.api.on(WORKS, answer(OLD))
    for _ in range(2):
        assert used.run() == (0, "", "")
        assert used.files() == {**archived(OLD), EDITIONS: as_csv([row])}
    assert f"Unchanged: the archive has this dataset as {OLD_NAME}." in used.log


# What is a dataset


def test_files_that_are_nobodys_dataset_are_left_alone(used: Archiver) -> None:
    """They are not read, listed, or taken for the dataset that is served."""
    names = (
        "copy.json notes.json Complete_lumiere_COE_2026-09-30_copy.json 2026-09-30.json "
        "Complete_lumiere_COE_2026-9-30.json Complete_lumiere_COE_.json "
        "complete_lumiere_coe_2026-09-30.json x.Complete_lumiere_COE_2026-09-30.json"
    ).split()
    own = {os.path.join("archive", name): NEW for name in names}
    own[os.path.join("archive", names[1])] = b"{"
    fill(used, own)
    result = used.run()
    assert (result.code, result.err) == (0, "")
    assert_one_sentence(result.out, "New dataset", NEW_NAME)
    assert used.files() == {**archived(OLD, NEW), **own}
    assert used.run() == (0, "", "")
    assert used.files() == {**archived(OLD, NEW), **own}


def test_a_file_that_a_row_names_is_a_dataset(used: Archiver) -> None:
    """As those are that were archived when the prefix was another."""
    row = row_of("lumiere (old) 2026-09-30.json", NEW)
    fill(used, {os.path.join("archive", row["path"]): NEW})
    (used.folder / EDITIONS).write_bytes(as_csv([row_of(OLD_NAME, OLD), row]))
    assert used.run() == (0, "", "")
    assert used.log.endswith(f"Unchanged: the archive has this dataset as {row['path']}.\n")
    assert used.editions() == [row_of(OLD_NAME, OLD), row]
    assert f"{md5(NEW)}  {row['path']}\n" in (used.archive / "MD5SUMS").read_text()


@pytest.mark.parametrize(
    "path", ["../x.json", "x/y.json", "/tmp/x.json", ".x.json", "x.txt", "a\\b.json", ""]
)
def test_a_row_whose_path_is_no_file_of_the_archive(used: Archiver, path: str) -> None:
    """It is a line that can't be read, and nothing is written where it points to."""
    rows = [row_of(OLD_NAME, OLD), dict(row_of(NEW_NAME, NEW), path=path)]
    (used.folder / EDITIONS).write_bytes(as_csv(rows))
    result = used.run()
    assert (result.code, result.err) == (0, "")
    assert warnings_of(result) == [can_not_be_read("editions.csv", 1)]
    assert used.editions()[-1]["path"] == NEW_NAME
    files = {**archived(OLD, NEW), EDITIONS: as_csv([*rows, row_of(NEW_NAME, NEW)])}
    assert used.files() == files


def test_a_row_that_is_all_numbers(used: Archiver) -> None:
    """The fields that are nobody's number stay texts."""
    numbers = {"countries": "276", "source": "0", "software": "2"}
    (used.folder / EDITIONS).write_bytes(as_csv([dict(row_of(OLD_NAME, OLD), **numbers)]))
    listed = [{"code": "276", "is_coe": True}]
    used.api.on(COUNTRIES, answer(as_json(listed)))
    result = used.run()
    assert (result.code, result.err) == (0, "")
    assert_one_sentence(result.out, NEW_NAME)
    assert used.run() == (0, "", "")


@pytest.mark.parametrize("order", [1, -1])
def test_of_several_rows_the_one_with_the_md5_of_md5sums_counts(used: Archiver, order: int) -> None:
    """NEW has twenty works; else the last row counts."""
    right = dict(row_of(OLD_NAME, OLD), works="19")
    wrong = dict(right, hash=md5(b"?"), works="18")
    rows = [right, wrong][::order]
    (used.folder / EDITIONS).write_bytes(as_csv(rows))
    assert "20 works (+1)," in used.run().out
    assert used.editions()[:2] == rows
    for name in ("MD5SUMS", NEW_NAME):
        (used.archive / name).unlink()
    (used.folder / EDITIONS).write_bytes(as_csv(rows))
    assert f"20 works (+{2 if order == 1 else 1})," in used.run().out
    assert used.editions()[:2] == rows


def test_a_row_that_does_not_count_moves_no_dataset(used: Archiver) -> None:
    """It says that the name has what is served now; MD5SUMS, and the file, know better."""
    rows = [dict(row_of(OLD_NAME, OLD), hash=md5(NEW)), row_of(OLD_NAME, OLD)]
    (used.folder / EDITIONS).write_bytes(as_csv(rows))
    result = used.run()
    assert (result.code, result.err) == (0, "")
    assert_one_sentence(result.out, "New dataset", NEW_NAME)
    assert used.files() == {
        **archived(OLD, NEW),
        EDITIONS: as_csv([*rows, row_of(NEW_NAME, NEW)]),
    }


def test_a_file_without_a_row_that_is_damaged_gets_none(used: Archiver) -> None:
    """MD5SUMS tells it from what was archived, however well it reads."""
    other = dataset(date="2026-06-30", seed=66)
    fill(used, {os.path.join("archive", OLD_NAME): other})
    (used.folder / EDITIONS).unlink()
    for number in range(2):
        result = used.run()
        assert (result.code, result.err) == (0, "")
        damaged = f"{OLD_NAME} is damaged: its MD5 is {md5(other)}, in MD5SUMS {md5(OLD)}."
        assert warnings_of(result) == [damaged], number
        assert [row["path"] for row in used.editions()] == [NEW_NAME]
        assert used.datasets() == {OLD_NAME: other, NEW_NAME: NEW}
    sums = archived(OLD, NEW)[os.path.join("archive", "MD5SUMS")]
    assert (used.archive / "MD5SUMS").read_bytes() == sums
    used.api.on(WORKS, answer(OLD))
    result = used.run()
    assert result.out.startswith(f"New dataset: {OLD_NAME}, ")
    assert used.datasets() == {OLD_NAME: OLD, NEW_NAME: NEW}
    assert used.rejected() == [other]
    assert used.run() == (0, "", "")


def test_a_file_in_the_place_of_rejected(used: Archiver) -> None:
    """What is no dataset can't be kept; the archive stays as it was, and it is said."""
    fill(used, {os.path.join("archive", "rejected"): b"mine"})
    used.api.on(WORKS, answer(b"<html>"))
    result = used.run(ATTEMPTS="1")
    assert result.code == 1
    assert_one_sentence(result.err, "a file in the place of a folder")
    assert used.files() == {**archived(OLD), os.path.join("archive", "rejected"): b"mine"}


def test_what_else_lies_in_rejected(used: Archiver) -> None:
    """A folder of the user's, and what an earlier version kept under this ending although it looks
    whole.
    """
    rejected = used.archive / "rejected"
    (rejected / "sorted").mkdir(parents=True)
    for number, data in enumerate((b"cut", b"[1", b"[1,\n]\n", b'\xef\xbb\xbf{"a": 1}', b"[")):
        path = rejected / f"{number}.txt"
        path.write_bytes(data)
        os.utime(str(path), (1e9 + number, 1e9 + number))
    before = "4.txt"
    for number in range(3):
        page = b"<html>%d" % number
        used.api.on(WORKS, answer(page))
        result = used.run(ATTEMPTS="1")
        assert_one_sentence(result.err, "rejected", md5(page))
        names = {path.name for path in rejected.iterdir()}
        assert names == {"sorted", "2.txt", "3.txt", before, f"{md5(page)}.txt"}
        before = f"{md5(page)}.txt"


@pytest.mark.skipif(os.name != "posix", reason="links of POSIX")
def test_links_that_lead_nowhere_stop_nothing(used: Archiver) -> None:
    for name, target in (("a.json", "a.json"), ("b.json", "nowhere"), ("c.json", OLD_NAME)):
        (used.archive / name).symlink_to(target)
    assert used.run().code == 0
    assert (used.archive / NEW_NAME).read_bytes() == NEW


def test_a_gutted_edition_listed_late_is_told(used: Archiver) -> None:
    """A run was killed between its publication and the telling."""
    gutted = dataset(count=2, date="2026-09-30")
    (used.archive / NEW_NAME).write_bytes(gutted)
    used.api.on(WORKS, answer(gutted))
    assert f"WARNING: {NEW_NAME} has fewer works" in used.run().out


def test_a_gutted_edition_with_an_older_date_is_told(used: Archiver) -> None:
    used.api.on(WORKS, answer(dataset(count=2, date="2026-03-31")))
    warning = "2026-03-31.json has fewer works by a tenth or more: 2, not 20."
    assert f"WARNING: Complete_lumiere_COE_{warning}" in used.run().out


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_a_failure_that_can_not_be_noted_down_is_one_line(used: Archiver) -> None:
    """Nothing is to be added to the list: its own trouble is a WARNING."""
    (used.folder / EDITIONS).unlink()
    (used.folder / EDITIONS).mkdir()
    used.api.on(WORKS, answer(status="404 Not Found"))
    result = used.run()
    assert result.code == 1
    assert_one_sentence(result.err, "404")
    (warning,) = warnings_of(result)
    assert warning.startswith("editions.csv can't be read: ")
    assert warning.endswith(". It stays as it is.")
    used.api.on(WORKS, answer(OLD))
    assert warning in warnings_of(used.run())


def test_a_name_is_not_given_to_other_contents(used: Archiver) -> None:
    """The row of a dataset that is gone stays: it is the record."""
    (used.archive / OLD_NAME).unlink()
    revised = dataset(date="2026-06-30", seed=66)
    used.api.on(WORKS, answer(revised))
    assert used.run().code == 0
    assert used.datasets() == {OLD_NAME.replace(".json", "_1.json"): revised}
    assert [row["hash"] for row in used.editions()] == [md5(OLD), md5(revised)]


def test_a_name_that_only_md5sums_has_is_taken(used: Archiver) -> None:
    """Both a dataset and editions.csv were lost, and other contents come for its date."""
    for name in (OLD_NAME, "editions.csv"):
        (used.archive / name).unlink()
    revised = dataset(date="2026-06-30", seed=66)
    used.api.on(WORKS, answer(revised))
    result = used.run()
    name = OLD_NAME.replace(".json", "_1.json")
    assert_one_sentence(result.out, "Revised dataset", name)
    assert used.datasets() == {name: revised}
    assert result.code == 0
    assert_one_sentence(used.run("--verify").err, "1 of 2 ", f"{OLD_NAME} is missing")


def test_an_unreadable_md5sums_keeps_no_edition_back(used: Archiver) -> None:
    """Nothing is left that knows its name, and the run fails only when the dataset is safe."""
    for name in (OLD_NAME, "editions.csv", "MD5SUMS"):
        (used.archive / name).unlink()
    (used.archive / "MD5SUMS").mkdir()
    revised = dataset(date="2026-06-30", seed=66)
    used.api.on(WORKS, answer(revised))
    result = used.run()
    assert result.out.startswith(f"New dataset: {OLD_NAME}, ")
    (warning,) = warnings_of(result)
    assert warning.startswith("MD5SUMS can't be read: ")
    assert used.datasets() == {OLD_NAME: revised}
    assert result.code == 1
    assert_one_sentence(result.err, "MD5SUMS")


def test_a_disk_that_was_away_for_a_month(used: Archiver) -> None:
    """The new edition went into the empty mount point; it comes into the archive all the same."""
    away = used.folder / "away"
    used.archive.rename(away)
    used.archive.mkdir()
    assert used.run().code == 0
    used.archive.rename(used.folder / "mount point")
    away.rename(used.archive)
    result = used.run()
    assert (result.code, result.err) == (0, "")
    assert NEW_NAME in result.out.splitlines()[0]
    assert "missing" in result.out
    assert "archived again" in result.out
    assert used.datasets() == {OLD_NAME: OLD, NEW_NAME: NEW}
    assert used.run() == (0, "", "")


def test_an_archive_of_the_original_script_is_taken_over(used: Archiver) -> None:
    """Each file is read once; one that is no whole dataset is named, and left as it is."""
    cut_name = "Complete_lumiere_COE_2025-12-31.json"
    fill(used, {os.path.join("archive", cut_name): OLD[:-10]})
    (used.archive / "MD5SUMS").unlink()
    (used.folder / EDITIONS).unlink()
    stamp = os.stat(str(used.archive / OLD_NAME)).st_mtime
    used.api.on(WORKS, answer(OLD))
    result = used.run()
    assert (result.code, result.err) == (0, "")
    assert f"WARNING: {cut_name} is not a whole dataset: the file is not whole" in result.out
    cut, old = used.editions()
    assert [cut["bytes"], cut["works"], cut["presences"]] == [str(len(OLD) - 10), "", ""]
    created = datetime.datetime.fromtimestamp(int(stamp), datetime.timezone.utc)
    expected = dict(row_of(OLD_NAME, OLD), countries="", source="", software="")
    expected["created"] = created.strftime("%Y-%m-%dT%H:%M:%SZ")
    assert old == expected
    assert used.run() == (0, "", "")


def test_of_pages_the_newest_two_stay_and_of_all_else_everything(used: Archiver) -> None:
    """Bad months must not fill the disk; an edition with a flaw may be the only one there is."""
    whole = [as_json([{"form": 1}]), NEW[:-1] + b",]", NEW.replace(b"null", b"NaN"), b"[]"]
    cut = [NEW[:-number] for number in range(3, 9)]  # none of them ends with a bracket
    for body in (cut[0], whole[0], cut[1], whole[1], cut[2], whole[2], *cut[3:5], whole[3], cut[5]):
        used.api.on(WORKS, answer(body))
        assert used.run(ATTEMPTS="1").code == 1
    assert sorted(used.rejected()) == sorted([*whole, *cut[-2:]])
    for body in (cut[-2], *whole):  # the same bytes only once
        used.api.on(WORKS, answer(body))
        assert used.run().code == 1
        assert sorted(used.rejected()) == sorted([*whole, *cut[-2:]])


# "Unchanged" is a proof


def flip(path: Path) -> None:
    """Flip a bit, as an old disk does."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


def put_folder(path: Path) -> None:
    """Put a folder in the place of a file."""
    path.unlink()
    path.mkdir()


def put_link(path: Path) -> None:
    """Put a link that leads to itself in the place of a file: nobody can open it."""
    path.unlink()
    path.symlink_to(path.name)


DAMAGE: Dict[str, Callable[[Path], Any]] = {
    "a bit flipped": flip,
    "another file of its size": lambda path: path.write_bytes(NEW.swapcase()),
    "another dataset": lambda path: path.write_bytes(OLD),
    "cut": lambda path: path.write_bytes(NEW[:-1]),
    "longer": lambda path: path.write_bytes(NEW + b"\n"),
    "empty": lambda path: path.write_bytes(b""),
    "a folder": put_folder,
}
if os.name == "posix":
    DAMAGE["a link to itself"] = put_link


@pytest.fixture
def two(used: Archiver) -> Archiver:
    """The script with OLD and NEW in its archive, and NEW served."""
    fill(used, archived(OLD, NEW))
    return used


def lists_of(archiver: Archiver) -> Dict[str, bytes]:
    """The archive's lists, to the byte."""
    names = ("editions.csv", "MD5SUMS")
    return {name: (archiver.archive / name).read_bytes() for name in names}


def assert_heals(archiver: Archiver, name: str, data: bytes) -> str:
    """Hold that the next run archives a dataset again, under its old name and with its old row, and
    the run after it finds nothing to do; return what it warned of.
    """
    lists = lists_of(archiver)
    archiver.api.on(WORKS, answer(data))
    result = archiver.run()
    assert (result.code, result.err) == (0, ""), result
    assert result.out.startswith(f"New dataset: {name}, {len(data):,} bytes, "), result.out
    assert archiver.datasets() == {OLD_NAME: OLD, NEW_NAME: NEW}
    assert lists_of(archiver) == lists
    assert archiver.checksum.read_text() == f"{md5(data)}\n"
    assert archiver.run() == (0, "", "")
    assert archiver.log.endswith(f"Unchanged: the archive has this dataset as {name}.\n")
    (warning,) = warnings_of(result)
    return str(warning)


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_edition_heals(two: Archiver, damage: str) -> None:
    path = two.archive / NEW_NAME
    DAMAGE[damage](path)
    damaged = path.read_bytes() if os.path.isfile(str(path)) else None
    warning = assert_heals(two, NEW_NAME, NEW)
    kept = f"rejected/{NEW_NAME}.damaged"
    again = f"{NEW_NAME} was damaged; it is archived again. The damaged file is now {kept}."
    assert warning == again
    assert os.path.lexists(str(two.archive / kept))
    if damaged is not None:
        assert two.rejected() == [damaged]


def test_a_missing_edition_heals(two: Archiver) -> None:
    (two.archive / NEW_NAME).unlink()
    warning = assert_heals(two, NEW_NAME, NEW)
    assert warning == f"{NEW_NAME} was missing from the archive; it is archived again."
    assert not (two.archive / "rejected").exists()


@strace
def test_an_edition_that_can_not_be_read_heals(two: Archiver) -> None:
    """A bad sector: reading it fails, and moving it does not."""
    lists, path = lists_of(two), str(two.archive / NEW_NAME)
    inject = ["-P", path, "-e", "inject=read,pread64,readv:error=EIO"]
    result = two.run(before=["strace", "-f", "-qq", "-o", "/dev/null", *inject])
    assert (result.code, result.err) == (0, ""), result
    assert result.out.startswith(f"New dataset: {NEW_NAME}, ")
    assert [text for text in warnings_of(result) if f"rejected/{NEW_NAME}.damaged" in text]
    assert two.datasets() == {OLD_NAME: OLD, NEW_NAME: NEW}
    assert lists_of(two) == lists
    assert two.run() == (0, "", "")


@strace
def test_another_edition_that_can_not_be_read_fails_nothing(two: Archiver) -> None:
    """It is not asked about: --verify names it."""
    inject = ["-P", str(two.archive / OLD_NAME), "-e", "inject=read,pread64:error=EIO"]
    newest = dataset(date="2026-12-31")
    two.api.on(WORKS, answer(newest))
    result = two.run(before=["strace", "-f", "-qq", "-o", "/dev/null", *inject])
    assert (result.code, result.err) == (0, "")
    assert two.files() == archived(OLD, NEW, newest)


def test_damage_each_month(two: Archiver) -> None:
    """What was damaged is kept under names of its own, and overwrites nothing."""
    damaged = [NEW[:-5], NEW.swapcase(), b"", NEW[:-5]]
    for data, end in zip(damaged, ("", "_1", "_2", "_3")):
        (two.archive / NEW_NAME).write_bytes(data)
        assert assert_heals(two, NEW_NAME, NEW).endswith(f"rejected/{NEW_NAME}.damaged{end}.")
    assert sorted(two.rejected()) == sorted(damaged)


def test_an_older_edition_heals_when_it_is_served_again(two: Archiver) -> None:
    flip(two.archive / OLD_NAME)
    assert two.run() == (0, "", "")  # what is served now is whole
    assert "was damaged" in assert_heals(two, OLD_NAME, OLD)
    (two.archive / OLD_NAME).unlink()
    assert two.run().out.startswith(f"New dataset: {OLD_NAME}, ")
    assert two.datasets() == {OLD_NAME: OLD, NEW_NAME: NEW}


@pytest.mark.parametrize("known", ["editions.csv", "MD5SUMS"])
def test_one_list_is_enough_to_heal(two: Archiver, known: str) -> None:
    """The other one was lost: it is made anew, of what is there."""
    for name in {"editions.csv", "MD5SUMS"} - {known}:
        (two.archive / name).unlink()
    flip(two.archive / NEW_NAME)
    damaged = (two.archive / NEW_NAME).read_bytes()
    result = two.run()
    assert (result.code, result.err) == (0, "")
    assert result.out.startswith(f"New dataset: {NEW_NAME}, ")
    assert two.datasets() == {OLD_NAME: OLD, NEW_NAME: NEW}
    assert two.rejected() == [damaged]
    assert [row["hash"] for row in two.editions()] == [md5(OLD), md5(NEW)]
    assert two.run("--verify") == (0, "", "")
    assert two.run() == (0, "", "")


def test_a_damaged_edition_that_can_not_be_moved(two: Archiver) -> None:
    """A file is in the way of the folder. The edition gets a name of its own."""
    (two.archive / "rejected").write_bytes(b"mine")
    flip(two.archive / NEW_NAME)
    damaged = (two.archive / NEW_NAME).read_bytes()
    lists = lists_of(two)
    result = two.run()
    assert (result.code, result.err) == (0, "")
    name = NEW_NAME.replace(".json", "_1.json")
    assert result.out.startswith(f"Revised dataset for 2026-09-30: {name}, ")
    (warning,) = warnings_of(result)
    assert warning.startswith(f"{NEW_NAME} is damaged and can't be moved: ")
    assert two.datasets() == {OLD_NAME: OLD, NEW_NAME: damaged, name: NEW}
    for key, before in lists.items():
        assert lists_of(two)[key].startswith(before)
    assert [row["path"] for row in two.editions()] == [OLD_NAME, NEW_NAME, name]
    assert two.run() == (0, "", "")
    assert (two.archive / "rejected").read_bytes() == b"mine"


def test_a_file_in_the_place_of_a_name_that_no_list_gives_stays(used: Archiver) -> None:
    """Only last_checksum.txt knows the MD5 that is served. The file may be somebody's own."""
    other = dataset(date="2026-09-30", seed=66)
    fill(used, {os.path.join("archive", NEW_NAME): other})
    used.checksum.write_text(f"{md5(NEW)}\n")
    result = used.run()
    assert (result.code, result.err) == (0, "")
    name = NEW_NAME.replace(".json", "_1.json")
    assert used.datasets() == {OLD_NAME: OLD, NEW_NAME: other, name: NEW}
    assert not (used.archive / "rejected").exists()
    assert [text for text in warnings_of(result) if "was missing from the archive" in text]
    assert used.run() == (0, "", "")


def test_an_older_edition_served_again_without_its_row(two: Archiver) -> None:
    """It is there, whatever the lists have lost, and is not archived twice."""
    lines = (two.folder / EDITIONS).read_bytes().splitlines(True)
    (two.folder / EDITIONS).write_bytes(lines[0] + lines[2])
    (two.archive / "MD5SUMS").unlink()
    two.checksum.unlink()
    two.api.on(WORKS, answer(OLD))
    result = two.run()
    assert (result.code, result.err) == (0, "")
    assert result.out.startswith(f"Unchanged: the archive has this dataset as {OLD_NAME}.\n")
    assert two.datasets() == {OLD_NAME: OLD, NEW_NAME: NEW}
    assert two.run() == (0, "", "")


# Lists that only grow

NEXT = dataset(date="2026-12-31", seed=12)
NEXT_NAME = "Complete_lumiere_COE_2026-12-31.json"


def can_not_be_read(name: str, number: int) -> str:
    """What people are told of a list's lines."""
    return f"{name} has lines that can't be read, {number} in all. They stay as they are."


def with_index(text: str) -> str:
    """Write an index before each line, as pandas does."""
    lines = text.splitlines()
    return "".join(f"{number or ''},{line}\n" for number, line in enumerate(lines))


def quoted(text: str) -> str:
    """Write quotes around everything, as some programs do."""
    return re.sub("(?m)([^,\n]+)", r'"\1"', text)


Spoil = Callable[[str], Union[str, bytes]]
# What others do to editions.csv with its header and two rows: how, how many lines of it can't be
# read then, and how many of the rows.
TABLES: Dict[str, Tuple[Spoil, int, int]] = {
    "dates of a spreadsheet": (
        lambda text: re.sub(r",(\d{4})-(\d\d)-(\d\d)", r",\3/\2/\1", text),
        *(2, 2),
    ),
    "times without their zone": (lambda text: re.sub("T(04:17:00)Z", r" \1", text), 2, 2),
    "semicolons": (lambda text: text.replace(",", ";"), 2, 2),
    "tabs": (lambda text: text.replace(",", "\t"), 2, 2),
    "semicolons in one row": (lambda text: ";".join(text.rsplit(",", 9)), 1, 1),
    "pandas index": (with_index, 2, 2),
    "another column in front": (lambda text: re.sub("(?m)^(?=.)", "x,", text), 3, 2),
    "another column at the end": (lambda text: re.sub("(?m)$", ",x,y", text.rstrip("\n")), 0, 0),
    "empty columns": (lambda text: text.replace("\n", ",,,\n"), 0, 0),
    "a column less": (lambda text: re.sub("(?m),[^,]*$", "", text), 2, 2),
    "numbers rounded": (lambda text: re.sub(r",(\d\d)\d{3},", r",\1E+03,", text), 2, 2),
    "a remark": (lambda text: text + "# seen by Anna, 2026-11-03", 0, 0),
    "a remark of another kind": (lambda text: text + "seen by Anna", 1, 0),
    "a remark between": (lambda text: text.replace("\n", "\n\n  # mine\n\n", 2), 0, 0),
    "a row turned into a remark": (lambda text: re.sub("(?m)^Co", "# Co", text), 0, 2),
    "no last line feed": (lambda text: text.rstrip("\n"), 0, 0),
    "CRLF": (lambda text: text.replace("\n", "\r\n"), 0, 0),
    "CR": (lambda text: text.replace("\n", "\r"), 0, 0),
    "a byte order mark": (lambda text: "\ufeff" + text, 0, 0),
    "quotes around everything": (quoted, 0, 0),
    "all of a spreadsheet": (lambda text: "\ufeff" + quoted(text).replace("\n", "\r\n"), 0, 0),
    "UTF-16": (lambda text: text.encode("utf-16"), 4, 2),
    "Latin-1": (lambda text: text.replace("/2.0\n", "/2.0,Zoë\n").encode("latin-1"), 0, 0),
    "another header": (lambda text: text.replace("path,presence_date", "file,date"), 1, 0),
    "no header": (lambda text: text.partition("\n")[2], 0, 0),
    "a header that is a remark": (lambda text: "#" + text, 0, 0),
    "a hash that is none": (lambda text: text.replace(md5(NEW), "x"), 1, 1),
    "too many digits": (lambda text: text.replace(f",{len(NEW)},", f",{'9' * 5000},"), 1, 1),
    "torn": (lambda text: text[:-40], 1, 1),
    "an open quote": (lambda text: '"' + text, 0, 0),
    "zeros": (lambda text: "\0" * len(text), 1, 2),
    "zeros behind it": (lambda text: text + "\0" * 64, 1, 0),
    "garbage": (lambda text: b"\x80\xff" + bytes(range(14, 256)) * 2, 1, 2),
    "something else": (lambda text: "a;b;c\n1;2;3\n", 2, 2),
    "rows the other way round": (lambda text: "".join(sorted(text.splitlines(True))[::-1]), 0, 0),
    "every row twice": (lambda text: text + text, 0, 0),
}
SUMS: Dict[str, Tuple[Spoil, int, int]] = {
    "BSD's form": (lambda text: re.sub("(?m)^(.+)  (.+)$", r"MD5 (\2) = \1", text), 2, 2),
    "semicolons": (lambda text: text.replace("  ", ";"), 2, 2),
    "binary, in capitals": (lambda text: re.sub("(?m)^(.+) ", upper, text), 0, 0),
    "a remark": (lambda text: text + "# mine", 0, 0),
    "a remark of another kind": (lambda text: text + "checked by Anna", 1, 0),
    "a line turned into a remark": (lambda text: "# " + text, 0, 1),
    "no last line feed": (lambda text: text.rstrip("\n"), 0, 0),
    "CRLF": (lambda text: text.replace("\n", "\r\n"), 0, 0),
    "CR": (lambda text: text.replace("\n", "\r"), 0, 0),
    "a byte order mark": (lambda text: "\ufeff" + text, 1, 1),
    "UTF-16": (lambda text: text.encode("utf-16"), 3, 2),
    "torn": (lambda text: text[:80], 1, 1),
    "zeros": (lambda text: "\0" * len(text), 1, 2),
    "zeros behind it": (lambda text: text + "\0" * 64, 1, 0),
    "garbage": (lambda text: b"\x80\xff" + bytes(range(14, 256)) * 2, 1, 2),
    "empty": (lambda text: "", 0, 2),
}


def test_a_line_in_a_remark_is_no_line(used: Archiver) -> None:
    """Also where nothing else is to be added."""
    used.api.on(WORKS, answer(OLD))
    assert used.run().code == 0
    path = used.archive / "MD5SUMS"
    line = path.read_bytes()
    path.write_bytes(b"# " + line)
    for _ in range(2):
        assert used.run() == (0, "", "")
        assert path.read_bytes() == b"# " + line + line


def upper(found: Any) -> str:
    """Write an MD5 as md5sum does for a file that it reads as binary."""
    return f"{found.group(1).upper()}*"


@pytest.mark.parametrize(
    ("name", "case"),
    [*(("editions.csv", key) for key in TABLES), *(("MD5SUMS", key) for key in SUMS)],
)
def test_a_list_only_grows(two: Archiver, name: str, case: str) -> None:
    """Not a byte that stood there goes, what can't be read is told, and what was added is known the
    next month.
    """
    spoil, unreadable, lost = (TABLES if name == "editions.csv" else SUMS)[case]
    path = two.archive / name
    spoilt = spoil(path.read_text(encoding="utf-8"))
    before = spoilt.encode() if isinstance(spoilt, str) else spoilt
    path.write_bytes(before)
    two.api.on(WORKS, answer(NEXT))
    result = two.run()
    assert (result.code, result.err) == (0, ""), result
    assert result.out.startswith(f"New dataset: {NEXT_NAME}, ")
    after = path.read_bytes()
    assert after.startswith(before)
    added = after[len(before) :].decode().lstrip("\n").splitlines()
    assert len(added) == lost + 1, added
    assert NEXT_NAME in added[-1]
    complaints = [can_not_be_read(name, unreadable)] * bool(unreadable)
    late = [text for text in warnings_of(result) if text not in complaints]
    assert [text for text in warnings_of(result) if text in complaints] == complaints, result.out
    assert len(late) == (lost if name == "editions.csv" else 0), result.out
    unknown = "When, from where and for which countries it came is not known any more"
    assert all(unknown in text for text in late)
    assert two.datasets() == {OLD_NAME: OLD, NEW_NAME: NEW, NEXT_NAME: NEXT}
    again = "".join(f"WARNING: {text}\n" for text in complaints)
    for _ in range(2):
        result = two.run()
        assert (result.code, result.err) == (0, "")
        assert result.out.partition("\n")[2] == again
        assert path.read_bytes() == after
    # All are listed: nothing is damaged or missing, and --verify knows them.
    assert two.run("--verify").code == 0
    assert "3 of 3 files" in two.log.splitlines()[-1]


def test_an_empty_list_gets_its_header(two: Archiver) -> None:
    (two.folder / EDITIONS).write_bytes(b"")
    two.run()
    assert (two.folder / EDITIONS).read_text().splitlines()[0] == ",".join(COLUMNS)
    assert [row["path"] for row in two.editions()] == [OLD_NAME, NEW_NAME]
    assert two.run() == (0, "", "")


def test_what_is_somebodys_own_stays_behind_a_row(two: Archiver) -> None:
    """Fields behind the tenth, though the row's dataset is archived again."""
    path = two.folder / EDITIONS
    path.write_text(path.read_text().replace("/2.0\n", '/2.0,"mine, ""too"" ",7\n'))
    flip(two.archive / NEW_NAME)
    assert "was damaged" in assert_heals(two, NEW_NAME, NEW)


def test_the_record_of_what_is_gone_stays(two: Archiver) -> None:
    """Its row, and its line in MD5SUMS; also in a form that nobody can read."""
    (two.archive / OLD_NAME).unlink()
    for name in ("editions.csv", "MD5SUMS"):
        path = two.archive / name
        path.write_text(path.read_text().replace(",", ";").replace("  ", ";"))
    lists = lists_of(two)
    result = two.run()
    assert (result.code, result.err) == (0, "")
    for name, before in lists.items():
        assert lists_of(two)[name].startswith(before)
    assert [row[0] for row in rows_of(two)] == [NEW_NAME]
    grown = lists_of(two)
    two.run()
    assert lists_of(two) == grown


def rows_of(archiver: Archiver) -> List[List[str]]:
    """The rows of editions.csv that have ten fields, without the header."""
    text = (archiver.folder / EDITIONS).read_text(encoding="utf-8", errors="replace")
    rows = list(csv.reader(io.StringIO(text, newline="")))
    return [row for row in rows if len(row) == 10 and row != COLUMNS]


@pytest.mark.parametrize("name", ["editions.csv", "MD5SUMS"])
def test_a_list_that_can_not_be_opened_for_a_month(two: Archiver, name: str) -> None:
    """It costs no dataset, and the next month's run adds what is missing."""
    path = two.archive / name
    before = path.read_bytes()
    path.rename(two.archive / "away")
    path.mkdir()
    two.api.on(WORKS, answer(NEXT))
    result = two.run()
    assert result.code == 1
    assert_one_sentence(result.err, name)
    assert result.out.startswith(f"New dataset: {NEXT_NAME}, ")
    (warning,) = warnings_of(result)
    assert warning.startswith(f"{name} can't be read: ")
    assert two.datasets() == {OLD_NAME: OLD, NEW_NAME: NEW, NEXT_NAME: NEXT}
    path.rmdir()
    (two.archive / "away").rename(path)
    result = two.run()
    assert (result.code, result.err) == (0, "")
    assert path.read_bytes().startswith(before)
    assert len(path.read_bytes().splitlines()) == len(before.splitlines()) + 1
    assert two.run() == (0, "", "")
