# SPDX-License-Identifier: Apache-2.0
"""The faults as a client sees them, over real sockets."""

from __future__ import annotations

import http.client
import json
import re
import socket
import time
from collections.abc import Iterator
from datetime import datetime
from typing import Any
from urllib.parse import urljoin

import pytest
import requests

from intergiro_provider.sandbox import Sandbox
from scripts.services import wait_until
from tests.integration.sandbox.client import Client

pytestmark = pytest.mark.integration

PATH = "/v3/transactions"


@pytest.fixture
def client(sandbox: Sandbox) -> Client:
    return Client(sandbox)


class Raw:
    """One connection, whose response is read to the end."""

    def __init__(self, client: Client) -> None:
        self.sock = socket.create_connection((client.bank.host, client.bank.port), timeout=60)
        token = client.pair["access_token"]
        self.sock.sendall(f"GET {PATH} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n".encode())

    def read(self) -> bytes:
        received = b""
        while part := self.sock.recv(65536):
            received += part
        return received


@pytest.fixture
def raw(client: Client) -> Iterator[list[Raw]]:
    made: list[Raw] = []
    yield made
    for one in made:
        one.sock.close()


@pytest.mark.parametrize("kind", ["drop", "lose_response"])
def test_no_answer_at_all(client: Client, kind: str, raw: list[Raw]) -> None:
    client.bank.fault(kind, PATH, times=2)
    raw.append(Raw(client))
    assert raw[0].read() == b""
    with pytest.raises(requests.ConnectionError):
        client.get(PATH)
    assert client.get(PATH).status_code == 200
    counters = client.bank.counters()
    assert counters.by_status["none"] == counters.faults[kind] == 2
    assert counters.by_path[f"GET {PATH}"] == 3


@pytest.mark.parametrize("kind", ["drop", "lose_response"])
def test_a_reset_instead_of_an_end(client: Client, kind: str, raw: list[Raw]) -> None:
    client.bank.fault(kind, PATH, reset=True)
    raw.append(Raw(client))
    with pytest.raises(ConnectionResetError):
        raw[0].read()


@pytest.mark.parametrize("reset", [False, True])
def test_half_a_body(client: Client, reset: bool, raw: list[Raw]) -> None:
    whole = client.get(PATH).content
    client.bank.fault("drop_body", PATH, fraction=0.25, reset=reset)
    with pytest.raises(requests.exceptions.RequestException):
        client.get(PATH)
    raw.append(Raw(client))
    received = b""
    try:
        while part := raw[0].sock.recv(100):
            received += part
        assert not reset
    except ConnectionResetError:
        assert reset
    head, _, body = received.partition(b"\r\n\r\n")
    assert f"content-length: {len(whole)}".encode() in head
    assert body == whole[: len(whole) // 4]
    assert client.bank.counters().by_status == {"200": 2, "none": 2}


def test_a_dropped_answer_may_have_been_executed(client: Client) -> None:
    bank = client.bank
    account = client.get("/v3/accounts").json()["data"][0]["id"]
    sent = {
        "request_id": "0b8f2f6e-4d35-4a5e-9d27-7b3a7d1c9e10",
        "account_id": account,
        "amount": 5,
        "reference": "x",
        "counterparty": {"name": "Åsa", "account": {"iban": "SE4550000000058398257466", "bic": "ESSESESS"}},
    }
    for handled, writes in ((False, 0), (True, 1)):
        bank.fault("drop", "/v3/transactions/pay", times=1, handled=handled)
        with pytest.raises(requests.ConnectionError):
            client.session.post(f"{bank.url}/v3/transactions/pay", json=sent, headers=client.headers, timeout=60)
        assert bank.counters().writes == writes
    bank.fault("status", "/v3/transactions/pay", times=1, handled=True, status=502)
    answers = [
        client.session.post(f"{bank.url}/v3/transactions/pay", json=sent, headers=client.headers, timeout=60)
        for _ in range(2)
    ]
    assert [answer.status_code for answer in answers] == [502, 200]
    assert (bank.counters().writes, bank.counters().duplicates) == (1, 2)


@pytest.mark.parametrize("kind", ["lose_response", "drop", "status"])
def test_a_payment_may_be_made_after_its_answer_was_lost(client: Client, kind: str) -> None:
    bank = client.bank
    sent = {
        "request_id": "0b8f2f6e-4d35-4a5e-9d27-7b3a7d1c9e10",
        "account_id": client.get("/v3/accounts").json()["data"][0]["id"],
        "amount": 5,
        "reference": "late",
        "counterparty": {"name": "Åsa", "account_id": "x"},
    }
    handled = {} if kind == "lose_response" else {"handled": True}
    bank.fault(kind, "/v3/transactions/pay", times=1, commit_after=1200, **handled)

    def post() -> int:
        url = f"{bank.url}/v3/transactions/pay"
        try:
            return client.session.post(url, json=sent, headers=client.headers, timeout=60).status_code
        except requests.ConnectionError:
            return 0

    assert post() == (503 if kind == "status" else 0)
    bank.advance(1190)  # the access token has expired, but the bank carries out what it has accepted
    assert bank.counters().writes == 0
    assert not [record for record in bank.records() if json.loads(record)["reference"] == "late"]
    bank.advance(20)
    assert len([record for record in bank.records() if json.loads(record)["reference"] == "late"]) == 1
    assert bank.counters().writes == 1


def test_a_late_payment_takes_effect_at_its_own_time(client: Client) -> None:
    bank = client.bank
    sent = {
        "request_id": "0b8f2f6e-4d35-4a5e-9d27-7b3a7d1c9e11",
        "account_id": client.get("/v3/accounts").json()["data"][0]["id"],
        "amount": 5,
        "reference": "own time",
        "counterparty": {"name": "Åsa", "account_id": "x"},
    }

    def post() -> int:
        try:
            url = f"{bank.url}/v3/transactions/pay"
            return client.session.post(url, json=sent, headers=client.headers, timeout=60).status_code
        except requests.ConnectionError:
            return 0

    def made() -> list[dict[str, Any]]:
        return [record for record in map(json.loads, bank.records()) if record["reference"] == sent["reference"]]

    bank.set(idempotency_life=60.0)
    assert post() == 200
    [first] = made()
    bank.fault("lose_response", "/v3/transactions/pay", times=1, commit_after=30)
    assert post() == 0
    bank.advance(100)  # the key was known at the late payment, and is forgotten at the next request
    assert made() == [first]
    bank.fault("lose_response", "/v3/transactions/pay", times=1, commit_after=30)
    assert post() == 0
    bank.advance(100)
    moments = sorted(datetime.fromisoformat(record["created_at"]) for record in made())
    assert 130 <= (moments[1] - moments[0]).total_seconds() < 160
    assert post() == 200
    assert len(made()) == 3  # its key was stored when it was carried out, and is forgotten now


@pytest.mark.parametrize(("decision", "status"), [("approved", 200), ("refused", 412)])
def test_a_person_decides_on_the_page_of_a_consent(client: Client, decision: str, status: int) -> None:
    bank = client.bank
    bank.fault("consent", "/v3/cards", scope="read_<cards>")
    consent = client.get("/v3/cards").json()["consent"]
    answer = client.session.post(
        f"{bank.url}/v3/consents/{consent['id']}",
        json={"return_url": "https://example.com/back?x=1"},
        headers=client.headers,
        timeout=60,
    )
    page = answer.json()["method"]["redirect_url"]
    assert page.startswith(bank.url)
    shown = requests.get(page, timeout=60)
    assert shown.status_code == 200
    assert "read_&lt;cards&gt;" in shown.text
    action = re.search(f'action="([^"]*/{decision})"', shown.text)
    assert action is not None
    decided = requests.post(urljoin(page, action[1]), timeout=60, allow_redirects=False)
    assert (decided.status_code, decided.headers["location"]) == (303, "https://example.com/back?x=1")
    assert client.get("/v3/cards").status_code == status
    assert requests.get(page, timeout=60).status_code == 410
    assert requests.post(urljoin(page, action[1]), timeout=60, allow_redirects=False).status_code == 410
    assert requests.get(page + "x", timeout=60).status_code == 404


def test_batches_are_decided_by_the_control_api(client: Client) -> None:
    assert client.bank.approve_batches() == client.bank.reject_batches() == client.bank.refuse_consents() == 0


def test_a_refresh_that_rotates_and_loses_its_answer(client: Client) -> None:
    bank = client.bank
    bank.expire_access_tokens()
    bank.fault("lose_response", "/v3/auth/refresh", times=1)
    with pytest.raises(requests.ConnectionError):
        client.refreshed()
    assert bank.counters().refreshes == 1
    assert client.refreshed().status_code == 400
    assert bank.counters().refresh_reused == 1
    bank.set(old_refresh_token="works")
    client.refresh()
    assert client.get(PATH).status_code == 200


def test_a_hanging_answer_ends_with_a_drop(client: Client) -> None:
    client.bank.fault("hang", PATH, seconds=0.4, times=1)
    started = time.perf_counter()
    with pytest.raises(requests.ConnectionError):
        client.get(PATH)
    assert 0.4 <= time.perf_counter() - started < 60


def test_a_hanging_answer_outlasts_a_clients_patience(client: Client) -> None:
    client.bank.fault("hang", PATH, times=1)
    with pytest.raises(requests.ReadTimeout):
        client.session.get(client.bank.url + PATH, headers=client.headers, timeout=0.3)
    wait_until(lambda: bool(client.bank.counters().by_status["none"]))  # it detects the closed connection
    assert client.bank.counters().by_status["none"] == 1
    assert client.get(PATH).status_code == 200


def test_latency_is_added_by_setting_and_by_fault(client: Client) -> None:
    client.bank.set(latency=0.1)
    client.bank.fault("latency", PATH, seconds=0.2, times=1)
    took = []
    for _ in range(2):
        started = time.perf_counter()
        assert client.get(PATH).status_code == 200
        took.append(time.perf_counter() - started)
    assert took[0] >= 0.3
    assert took[1] >= 0.1
    assert client.bank.faults()[0]["struck"] == 1


def test_too_many_requests(client: Client) -> None:
    client.bank.fault("rate_limit", PATH, retry_after=3, times=2)
    answers = [client.get(PATH) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [429, 429, 200]
    assert answers[0].headers["retry-after"] == "3"
    assert client.bank.counters().too_many_requests == 2


def test_the_limits_of_the_settings_spare_logins(client: Client) -> None:
    client.bank.set(requests_per_second=0.001)
    assert [client.get(PATH).status_code for _ in range(3)] == [200, 429, 429]
    assert client.logged_in().status_code == 200


@pytest.mark.parametrize("how", ["cut", "noise", "html", "empty", "not_utf8"])
def test_garbled_answers_arrive_whole(client: Client, how: str) -> None:
    client.bank.fault("garbled", PATH, how=how, times=1)
    answer = client.get(PATH)
    assert answer.status_code == 200
    with pytest.raises(ValueError):
        json.loads(answer.content)
    assert client.get(PATH).json()["data"]


def test_pages_that_lie(client: Client) -> None:
    first = client.get(PATH).json()["data"]
    after = {"starting_after": first[-1]["id"]}
    second = client.get(PATH, **after).json()["data"]
    client.bank.fault("stuck_page", PATH, times=1)
    assert client.get(PATH, **after).json()["data"] == first
    client.bank.fault("empty_page", PATH, times=1)
    assert client.get(PATH, **after).json() == {"data": [], "has_more": True}
    client.bank.fault("repeat_record", PATH, times=1)
    assert client.get(PATH, **after).json()["data"] == [*second, second[-1]]
    client.bank.fault("response", PATH, body=[1, 2], times=1)
    assert client.get(PATH, **after).json() == [1, 2]
    assert client.get(PATH, **after).json()["data"] == second


def test_what_spoils_good_answers_leaves_refusals_alone(client: Client) -> None:
    client.bank.fault("empty_page", PATH, times=1)
    client.bank.expire_access_tokens()
    assert client.get(PATH).status_code == 401
    client.refresh()
    assert client.get(PATH).json() == {"data": [], "has_more": True}


def test_a_redirect(client: Client) -> None:
    with Sandbox() as elsewhere:
        client.bank.fault("redirect", PATH, to=f"{elsewhere.url}/v3/cards", status=302)
        answer = client.get(PATH)
        assert (answer.status_code, answer.headers["location"]) == (302, f"{elsewhere.url}/v3/cards")


def test_consent_on_demand(client: Client) -> None:
    client.bank.fault("consent", "/v3/cards", scope="read_cards")
    client.bank.expire_access_tokens()
    assert client.get("/v3/cards").status_code == 401
    client.refresh()
    refused = client.get("/v3/cards")
    assert refused.status_code == 412
    assert refused.json()["consent"]["scope"] == ["read_cards"]
    assert client.bank.counters().consents_required == 1
    assert client.bank.approve_consents() == 1
    assert client.get("/v3/cards").status_code == 200


def test_connections_are_counted_when_they_are_used(client: Client) -> None:
    idle = socket.create_connection((client.bank.host, client.bank.port))
    for _ in range(3):
        client.get(PATH)
    assert client.bank.counters().connections == 1
    other = http.client.HTTPConnection(client.bank.host, client.bank.port)
    for _ in range(2):
        other.request("GET", PATH)
        other.getresponse().read()
    assert client.bank.counters().connections == 2
    client.bank.reset_counters()
    client.get(PATH)
    assert client.bank.counters().connections == 0  # no new one
    other.close()
    idle.close()


def test_pipelined_and_chunked_requests(client: Client) -> None:
    sock = socket.create_connection((client.bank.host, client.bank.port), timeout=60)
    key = client.bank.api_key
    body = json.dumps({"api_key": key})
    sock.sendall(
        f"POST /v3/auth/login HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        f"{len(body):x}\r\n{body}\r\n0\r\n\r\n"
        "GET /v3/cards HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode()
    )
    received = b""
    while part := sock.recv(65536):
        received += part
    sock.close()
    assert received.count(b"HTTP/1.1 200 OK") == 1
    assert received.count(b"HTTP/1.1 401 Unauthorized") == 1
