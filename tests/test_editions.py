"""The record of each edition, and what the archive keeps beside its datasets."""

import datetime
import os
import re
from typing import Callable, Dict

import pytest
from conftest import (
    COLUMNS,
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
)
from lumiere_api import MEMBERS, answer, as_json, dataset


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


def test_rows_with_other_columns_are_made_again(used: Archiver) -> None:
    """As pandas writes them, with an index."""
    lines = (used.folder / EDITIONS).read_text().splitlines()
    indexed = [f"{number or ''},{line}" for number, line in enumerate(lines)]
    (used.folder / EDITIONS).write_text("\n".join(indexed) + "\n")
    assert used.run().code == 0
    assert sorted(row["path"] for row in used.editions()) == [OLD_NAME, NEW_NAME]


def test_a_row_with_half_its_counts_is_made_again(used: Archiver) -> None:
    (used.folder / EDITIONS).write_bytes(as_csv([dict(row_of(OLD_NAME, OLD), presences="")]))
    result = used.run()
    assert (result.code, result.err) == (0, "")
    assert {row["works"] for row in used.editions()} == {"20"}


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


def test_a_row_without_md5_is_made_again(used: Archiver) -> None:
    (used.folder / EDITIONS).write_bytes(as_csv([dict(row_of(OLD_NAME, OLD), hash="x")]))
    assert used.run().code == 0
    assert [row["hash"] for row in used.editions()] == [md5(OLD), md5(NEW)]


def test_a_row_of_another_software_stays_as_it_is(used: Archiver) -> None:
    row = dict(row_of(OLD_NAME, OLD), created="2026-07-03T04:17:09Z", software="mine/3.0rc1, beta")
    (used.folder / EDITIONS).write_bytes(as_csv([row]))
    assert used.run().code == 0
    assert as_csv([row]).decode().splitlines()[1] in (used.folder / EDITIONS).read_text()


def test_the_same_cut_answer_as_in_the_archive_is_no_dataset(used: Archiver) -> None:
    """A gateway cuts at the same place each time, and the original script took that for whole."""
    cut = NEW[:-10]
    fill(used, {os.path.join("archive", NEW_NAME): cut})
    used.api.on(WORKS, answer(cut))
    for _ in range(2):
        result = used.run()
        assert result.code == 1
        assert_one_sentence(result.err, "not whole", f"{md5(cut)}.txt")
    assert used.checksum.read_text() != f"{md5(cut)}\n"
    assert used.datasets()[NEW_NAME] == cut


def test_a_dataset_of_another_name_has_its_row(used: Archiver) -> None:
    """Somebody's copy, or one from when the prefix was another."""
    fill(used, {os.path.join("archive", "copy.json"): NEW})
    result = used.run()
    assert (result.code, result.err) == (0, "")
    assert "WARNING: copy.json stood in the archive without a row" in result.out
    row = used.editions()[-1]
    unknown = {"created": row["created"], "countries": "", "source": "", "software": ""}
    assert row == {**row_of(NEW_NAME, NEW), "path": "copy.json", **unknown}
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
    """A folder of the user's, and files of a time when the clock was wrong."""
    rejected = used.archive / "rejected"
    (rejected / "sorted").mkdir(parents=True)
    for number in range(3):
        path = rejected / f"{number}.txt"
        path.write_bytes(b"cut")
        os.utime(str(path), (4e9 + number, 4e9 + number))
    used.api.on(WORKS, answer(b"<html>"))
    result = used.run(ATTEMPTS="1")
    assert_one_sentence(result.err, "rejected", md5(b"<html>"))
    names = {path.name for path in rejected.iterdir()}
    assert names == {"sorted", "2.txt", f"{md5(b'<html>')}.txt"}


def test_odd_counts_are_made_again(used: Archiver) -> None:
    (used.folder / EDITIONS).write_bytes(as_csv([dict(row_of(OLD_NAME, OLD), works="9" * 5000)]))
    assert used.run().code == 0
    assert {row["works"] for row in used.editions()} == {"20"}


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


DAMAGE: Dict[str, Callable[[bytes], bytes]] = {
    "torn": lambda data: data[: len(data) // 2],
    "torn, with a line feed": lambda data: data[: len(data) // 2] + b"\n",
    "garbage": lambda data: b"\x80\xff" + bytes(range(256)) * 2 + b"\n",
    "zeros": lambda data: b"\0" * len(data),
    "an open quote": lambda data: b'"' + data,
    "another list": lambda data: b"a;b;c\n1;2;3\n",
    "empty": lambda data: b"",
    "zeros behind it": lambda data: data + b"\0" * 64,
    "other line ends": lambda data: data.replace(b"\n", b"\r"),
}


@pytest.mark.parametrize("name", ["editions.csv", "MD5SUMS"])
@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_list_heals(used: Archiver, name: str, damage: str) -> None:
    """In the next run, also if it finds nothing new."""
    used.run()
    path = used.archive / name
    path.write_bytes(DAMAGE[damage](path.read_bytes()))
    result = used.run()
    assert (result.code, result.err) == (0, "")
    assert sorted(row["path"] for row in used.editions()) == [OLD_NAME, NEW_NAME]
    assert not set(b"\r\0") & set(path.read_bytes())
    sums = (used.archive / "MD5SUMS").read_text().splitlines()
    assert sorted(sums) == sorted(f"{row['hash']}  {row['path']}" for row in used.editions())
    assert used.datasets() == {OLD_NAME: OLD, NEW_NAME: NEW}
    assert used.run() == (0, "", "")


def test_what_spreadsheets_do_to_a_list_is_read(used: Archiver) -> None:
    """A byte order mark, line ends of their own, and quotes around everything."""
    text = (used.folder / EDITIONS).read_text(encoding="utf-8")
    quoted = re.sub("(?m)([^,\n]+)", r'"\1"', text).replace("\n", "\r\n")
    (used.folder / EDITIONS).write_bytes(b"\xef\xbb\xbf" + quoted.encode())
    result = used.run()
    assert_one_sentence(result.out, "New dataset", NEW_NAME)
    assert used.files() == archived(OLD, NEW)


def test_a_name_that_differs_in_case_is_taken(used: Archiver) -> None:
    """On macOS and Windows it is the same file."""
    revised = dataset(date="2026-06-30", seed=66)
    used.api.on(WORKS, answer(revised))
    assert used.run(ARCHIVE_FILENAME_PREFIX="complete_lumiere_coe_").code == 0
    name = "complete_lumiere_coe_2026-06-30_1.json"
    assert used.datasets() == {OLD_NAME: OLD, name: revised}


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_a_failure_that_can_not_be_noted_down_is_one_line(used: Archiver) -> None:
    """The list's own trouble is told by a run that goes well otherwise."""
    (used.folder / EDITIONS).unlink()
    (used.folder / EDITIONS).mkdir()
    used.api.on(WORKS, answer(status="404 Not Found"))
    result = used.run()
    assert (result.code, result.out) == (1, "")
    assert_one_sentence(result.err, "404")
    used.api.on(WORKS, answer(OLD))
    assert_one_sentence(used.run().err, "editions.csv")


def test_a_name_is_not_given_to_other_contents(used: Archiver) -> None:
    """The row of a dataset that is gone stays: it is the record."""
    (used.archive / OLD_NAME).unlink()
    revised = dataset(date="2026-06-30", seed=66)
    used.api.on(WORKS, answer(revised))
    assert used.run().code == 0
    assert used.datasets() == {OLD_NAME.replace(".json", "_1.json"): revised}
    assert [row["hash"] for row in used.editions()] == [md5(OLD), md5(revised)]


def test_of_files_of_one_size_the_last_is_the_unchanged_one(used: Archiver) -> None:
    """The size alone can't tell the edition from an earlier one."""
    used.run()
    (used.archive / "Complete_lumiere_COE_2001-01-15.json").write_bytes(NEW.swapcase())
    used.run()
    assert used.log.endswith(f" - INFO - Unchanged: the archive has this dataset as {NEW_NAME}.\n")


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
    assert_one_sentence(result.out, "New dataset", OLD_NAME)
    assert used.datasets() == {OLD_NAME: revised}
    assert result.code == 1


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
    assert f"WARNING: {cut_name} is no whole dataset" in result.out
    cut, old = used.editions()
    assert [cut["bytes"], cut["works"], cut["presences"]] == [str(len(OLD) - 10), "", ""]
    created = datetime.datetime.fromtimestamp(int(stamp), datetime.timezone.utc)
    expected = dict(row_of(OLD_NAME, OLD), countries="", source="", software="")
    expected["created"] = created.strftime("%Y-%m-%dT%H:%M:%SZ")
    assert old == expected
    assert used.run() == (0, "", "")


def test_rejected_answers_can_not_fill_the_disk(used: Archiver) -> None:
    """Of those that are no whole JSON the newest two stay; of the others, all."""
    whole = [as_json([{"form": number}]) for number in range(3)]
    cut = [NEW[:-number] for number in range(1, 7)]
    for body in (cut[0], whole[0], cut[1], whole[1], cut[2], whole[2], *cut[3:]):
        used.api.on(WORKS, answer(body))
        assert used.run(ATTEMPTS="1").code == 1
    assert sorted(used.rejected()) == sorted([*whole, *cut[-2:]])
    used.api.on(WORKS, answer(cut[-2]))
    assert used.run().code == 1
    assert sorted(used.rejected()) == sorted([*whole, *cut[-2:]])
