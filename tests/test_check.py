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
VALUES = some.recursive(
    some.none() | some.booleans() | some.integers(-(10**9), 10**9) | some.text(max_size=5),
    lambda inner: some.lists(inner, max_size=3) | some.dictionaries(some.text(), inner, max_size=3),
    max_leaves=5,
)
PRESENCES = some.lists(
    some.fixed_dictionaries({"presence_date": DATES, "catalog": VALUES}) | VALUES, max_size=4
)
WORKS = some.lists(
    some.fixed_dictionaries({"title": VALUES, "presences": PRESENCES | VALUES}) | VALUES, max_size=5
)


@some.composite
def damaged(draw: Any) -> bytes:
    """A dataset, cut or altered at a random place."""
    data = as_json(draw(WORKS))
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
@hypothesis.given(data=WORKS.map(as_json) | damaged())
@hypothesis.example(
    as_json([{"presences": [{"presence_date": day}]} for day in ("2026-06-30", "2026-01-31")])
)
def test_what_is_found_in_a_dataset(data: bytes) -> None:
    hypothesis.assume(b"\\ud" not in data.lower())  # half a surrogate is read in several ways
    data_collect.untold.clear()
    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        try:
            edition = data_collect.check(file.name, data_collect.Edition())
        except data_collect.Failure:
            assert expected(data) is None
        else:
            undated = re.findall("^([0-9]+) presences have no", "".join(data_collect.untold)) or [0]
            counts = (int(edition.works), int(edition.presences), int(undated[0]))
            assert (*counts, edition.presence_date) == expected(data)


@strict
@slow
@hypothesis.given(data=damaged())
def test_what_is_archived_or_rejected(tmp_path_factory: Any, data: bytes) -> None:
    hypothesis.assume(data and b"\\ud" not in data.lower())
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
