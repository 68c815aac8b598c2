"""Random datasets, whole and damaged: what is archived is always whole, and nothing is lost."""

import contextlib
import datetime
import json
import re
import tempfile
from pathlib import Path
from typing import Any, List, Optional, Tuple

import hypothesis
import ijson
import pytest
from conftest import Archiver, kept_as, md5
from hypothesis import strategies as some
from lumiere_api import LumiereApi, answer, as_json

import data_collect

DATES: some.SearchStrategy[Any] = some.one_of(
    some.dates().map(str),
    some.datetimes().map(lambda moment: moment.isoformat()),
    some.sampled_from([None, "", "soon", "2026-02-30", "../../x", 20260930, True, [], {}]),
)
HALVES = some.characters(min_codepoint=0xD7F0, max_codepoint=0xE010)  # of surrogate pairs
LETTERS = some.text(max_size=5) | some.text(HALVES, max_size=3)
VALUES = some.recursive(
    some.none() | some.booleans() | some.integers(-(10**30), 10**30) | LETTERS,
    lambda inner: some.lists(inner, max_size=3) | some.dictionaries(some.text(), inner, max_size=3),
    max_leaves=5,
)
PRESENCES = some.lists(
    some.fixed_dictionaries({"presence_date": DATES, "catalog": VALUES}) | VALUES, max_size=4
)
WORKS = some.lists(
    some.fixed_dictionaries({"title": VALUES, "presences": PRESENCES | VALUES}) | VALUES, max_size=5
)


def written(works: Any) -> bytes:
    """Write works as JSON: half a surrogate pair has no UTF-8, and so must be escaped."""
    try:
        return as_json(works)
    except UnicodeEncodeError:
        return json.dumps(works).encode()


@some.composite
def damaged(draw: Any) -> bytes:
    """A dataset, cut or altered at a random place."""
    data = written(draw(WORKS))
    place = draw(some.integers(0, len(data)))
    return bytes(
        draw(
            some.sampled_from(
                [
                    data[:place],
                    data[:place] + data[place + 1 :],
                    data[:place] + draw(some.binary(min_size=1, max_size=3)) + data[place:],
                    data[:place] + data[place:][:1] * 2 + data[place + 1 :],
                ]
            )
        )
    )


LATEST = datetime.datetime.now() + datetime.timedelta(366)  # what is later is a slip of the pen


def day_of(date: Any) -> str:
    """The day of a date or date-time as this test writes them, by the standard library."""
    for layout in ("%Y-%m-%d", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M:%S.%f"):
        with contextlib.suppress(TypeError, ValueError):
            moment = datetime.datetime.strptime(date, layout)
            if date in (str(moment.date()), moment.isoformat()):
                return str(moment.date()) if moment < LATEST else ""
    odd = isinstance(date, str) and re.match(r"\d{4}-\d\d-\d\d.", date, re.DOTALL)
    hypothesis.assume(not odd)  # altered behind the day: for test_presence_dates to judge
    return ""


Found = Optional[Tuple[int, int, int, str]]
FOUND = ("presence_date", "works", "presences")
ODD_SPACE = b"\v\f"  # white space to ijson's C backend, but not to JSON


def expected(data: bytes) -> Found:
    """Works, presences, those without a date, and the newest date, by the standard library; None if
    it is no dataset.
    """

    def refuse(constant: str) -> None:
        raise ValueError(constant)

    try:
        works = json.loads(data.decode("utf-8"), parse_constant=refuse)
    except ValueError:
        return None
    if not isinstance(works, list):
        return None
    listed = [work.get("presences") for work in works if isinstance(work, dict)]
    presences = [item for items in listed if isinstance(items, list) for item in items]
    dates: List[Any] = [item.get("presence_date") for item in presences if isinstance(item, dict)]
    days = [day for day in map(day_of, dates) if day]
    undated = len(presences) - len(days)
    return (len(works), len(presences), undated, max(days)) if days else None


strict = pytest.mark.skipif(
    ijson.backend == "python", reason="ijson's pure-Python backend lets odd numbers pass"
)
slow = hypothesis.settings(
    max_examples=10, deadline=None, suppress_health_check=list(hypothesis.HealthCheck)
)


@strict
@hypothesis.settings(max_examples=200, deadline=None)
@hypothesis.given(data=WORKS.map(written) | damaged())
@hypothesis.example(
    as_json([{"presences": [{"presence_date": day}]} for day in ("2026-06-30", "2026-01-31")])
)
def test_what_is_found_in_a_dataset(data: bytes) -> None:
    hypothesis.assume(not set(ODD_SPACE) & set(data))
    assert found_in(data) == expected(data)


def found_in(data: bytes) -> Found:
    """What the script finds in a dataset."""
    data_collect.untold.clear()
    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        unknown = data_collect.Edition(file.name, "", "", 0, "")
        try:
            edition = data_collect.check(unknown)
        except data_collect.Failure:
            return None
    assert unknown._replace(**{name: getattr(edition, name) for name in FOUND}) == edition
    undated = re.findall("([0-9]+) presences have no", "".join(data_collect.untold)) or [0]
    assert edition.works is not None
    assert edition.presences is not None
    return (edition.works, edition.presences, int(undated[0]), edition.presence_date)


DATED = b'[{"presences": [{"presence_date": "2026-09-30"}], "x": "'
ESCAPES = [
    *(rb"\ud83d", rb"\udc00", rb"\uDC00", rb"\uD83D", rb"\ud83d\ude00", rb"\udc00\udc00"),
    *(rb"\\\udc00", rb"\\\\\udc00", rb"\\udc00", rb"\\\\udc00", rb"\\\\\\", rb"\"\\"),
]


@pytest.mark.parametrize("escape", ESCAPES, ids=lambda escape: escape.decode())
def test_an_escape_where_two_blocks_meet(escape: bytes) -> None:
    """The file is read in blocks of 65536 bytes, which may end anywhere."""
    for before in range(len(escape) + 1):
        data = DATED.ljust(65536 - before, b"x") + escape + b'y"}]'
        assert json.loads(data.decode())
        assert found_in(data) == (1, 1, 0, "2026-09-30"), before
        # What follows it must stay, too: the escape is cut short in each of these.
        assert found_in(data.replace(b'y"}]', b'\\u12"}]')) is None, before
        assert found_in(data.replace(b'y"}]', b"\\")) is None, before


def test_a_text_of_backslashes() -> None:
    """In which each block ends with one."""
    for count in (65536, 65537, 200000):
        data = DATED + b"\\\\" * count + b'"}]'
        assert found_in(data) == (1, 1, 0, "2026-09-30")
        assert found_in(data.replace(b'"}]', b'\\"}]')) is None


@strict
@slow
@hypothesis.given(data=damaged())
def test_what_is_archived_or_rejected(tmp_path_factory: Any, data: bytes) -> None:
    hypothesis.assume(data and not set(ODD_SPACE) & set(data))
    folder = tmp_path_factory.mktemp("lumiere")
    (folder / "archive").mkdir()
    script = folder / "data_collect.py"
    script.write_bytes(Path(data_collect.__file__).read_bytes())
    with LumiereApi() as api:
        api.on("/api/works", answer(data))
        archiver = Archiver(folder, api)
        result = archiver.run(ATTEMPTS="1")
    facts = expected(data)
    if facts:
        works, presences, _, date = facts
        assert result.code == 0
        assert f" {works:,} works, {presences:,} presences, MD5 {md5(data)}" in result.out
        assert list(archiver.datasets()) == [f"Complete_lumiere_COE_{date}.json"]
        assert list(archiver.datasets().values()) == [data]
        assert archiver.checksum.read_text() == f"{md5(data)}\n"
    else:
        assert result.code == 1
        assert archiver.files() == {kept_as(archiver, data): data}
