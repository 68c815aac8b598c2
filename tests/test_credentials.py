"""No credentials but those of the settings go anywhere; a proxy and a bundle are still heeded."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Dict, Iterator, List, Tuple

import pytest
import trustme
from conftest import COUNTRIES, NEW, OLD, WORKS, Archiver
from lumiere_api import LumiereApi, Request, answer, as_json, countries
from telling import HOOK, PING, heard, tls_of
from test_words import TlsApi

ENTRIES = {
    "default": "default login anonymous password me@example.org\n",
    "of the machine": "".join(
        f"machine {host} login somebody password 0ther\n" for host in ("127.0.0.1", "localhost")
    ),
}


@pytest.fixture(params=ENTRIES)
def netrc(request: Any, told: Archiver) -> Path:
    """A file of somebody's credentials, in the home folder of who runs the script."""
    path = told.folder.parent / ("_netrc" if os.name == "nt" else ".netrc")
    path.write_text(ENTRIES[request.param])
    path.chmod(0o600)
    return path


@pytest.fixture
def elsewhere() -> Iterator[LumiereApi]:
    """A server on another host, by its name."""
    with LumiereApi() as api:
        api.url = api.url.replace("127.0.0.1", "localhost")
        api.on(WORKS, answer(NEW))
        yield api


def credentials(requests: List[Request]) -> List[Tuple[str, str]]:
    """The headers by which requests said who asks."""
    names = ("Authorization", "Proxy-Authorization", "Cookie")
    return [(name, request.headers[name]) for request in requests for name in names
            if name in request.headers]  # fmt: skip


def ask_without_care(archiver: Archiver, **variables: str) -> None:
    """Ask the API as any program does that uses requests."""
    code = f"import requests; requests.get({archiver.api.url + COUNTRIES!r})"
    environment: Dict[str, str] = {**archiver.environment(), **variables}
    subprocess.check_call([sys.executable, "-c", code], env=environment)


def test_no_password_of_somebody_else(told: Archiver, netrc: Path) -> None:
    """Though the file is one that requests finds and uses."""
    ask_without_care(told)
    assert len(credentials(told.api.requests)) == 1
    told.api.requests.clear()
    result = told.run()
    assert (result.code, result.err) == (0, "")
    assert heard(told) == [PING + "/start", PING, HOOK]
    assert len(told.api.requests) == 5
    assert credentials(told.api.requests) == []


def test_not_from_a_file_that_a_variable_names(told: Archiver, netrc: Path) -> None:
    moved = netrc.parent / "credentials"
    netrc.rename(moved)
    ask_without_care(told, NETRC=str(moved))
    assert len(credentials(told.api.requests)) == 1
    told.settings["NETRC"] = str(moved)
    told.api.requests.clear()
    assert told.run().code == 0
    assert credentials(told.api.requests) == []


def test_not_behind_a_redirect(told: Archiver, netrc: Path, elsewhere: LumiereApi) -> None:
    """There requests looks for credentials anew."""
    elsewhere.on(COUNTRIES, answer(as_json(countries())))
    for path, status in ((COUNTRIES, "302 Found"), (WORKS, "308 Permanent Redirect")):
        told.api.on(path, answer(status=status, headers=[f"Location: {elsewhere.url}{path}"]))
    result = told.run()
    assert (result.code, result.err) == (0, "")
    assert [request.path for request in elsewhere.requests] == [COUNTRIES, WORKS]
    assert credentials([*told.api.requests, *elsewhere.requests]) == []
    assert set(told.datasets().values()) == {OLD, NEW}


@pytest.mark.parametrize("option", ["--test-notifications", "--verify"])
def test_not_by_the_other_jobs(told: Archiver, netrc: Path, option: str) -> None:
    told.checksum.write_text("damaged")
    (told.archive / "MD5SUMS").write_text("")
    told.run(option)
    assert len(told.api.requests) == 2
    assert credentials(told.api.requests) == []


def test_a_user_in_an_address_of_the_settings_is_sent(told: Archiver, netrc: Path) -> None:
    """It is one of the settings; whoever needs a password for a channel writes it there."""
    url = told.api.url.replace("http://", "http://user:5ecret@")
    assert told.run(WEBHOOK_URL=url + HOOK).code == 0
    ((name, value),) = credentials(told.api.requests)
    assert (name, value) == ("Authorization", "Basic dXNlcjo1ZWNyZXQ=")


def test_a_proxy_is_still_heeded(told: Archiver, netrc: Path) -> None:
    """With its own user and password, and without those of the file."""
    paths = {path: "http://lumiere.invalid" + path for path in (COUNTRIES, WORKS)}
    told.api.on(paths[COUNTRIES], answer(as_json(countries())))
    told.api.on(paths[WORKS], answer(NEW))
    told.settings["HTTP_PROXY"] = told.settings["http_proxy"] = told.api.url.replace(
        "http://", "http://user:5ecret@"
    )
    told.settings["NO_PROXY"] = "127.0.0.1"
    result = told.run(DATA_API_URL=paths[WORKS], COUNTRY_CODE_API_URL=paths[COUNTRIES])
    assert (result.code, result.err) == (0, "")
    by_proxy = [*told.api.asked(paths[COUNTRIES]), *told.api.asked(paths[WORKS])]
    assert credentials(by_proxy) == [("Proxy-Authorization", "Basic dXNlcjo1ZWNyZXQ=")] * 2
    assert len(credentials(told.api.requests)) == 2


def test_a_bundle_of_certificates_is_still_heeded(
    told: Archiver, netrc: Path, authority: trustme.CA
) -> None:
    told.settings["REQUESTS_CA_BUNDLE"] = told.settings["SSL_CERT_FILE"]
    with TlsApi(tls_of(authority.issue_cert("127.0.0.1"))) as api:
        told.settings.update(api.settings)
        result = told.run()
        assert (result.code, result.err) == (0, "")
        assert [request.path for request in api.requests] == [COUNTRIES, WORKS]
        assert credentials(api.requests) == []
