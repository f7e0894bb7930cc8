# SPDX-License-Identifier: Apache-2.0
"""The `Sandbox` class: start, settings, control, counters and stop, in a thread and as a process."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from email.utils import parsedate_to_datetime

import pytest
import requests

from intergiro_provider.sandbox import Sandbox
from intergiro_provider.sandbox.server import NotLoopback, listen
from intergiro_provider.sandbox.settings import SettingsError
from scripts.services import wait_until
from tests.integration.sandbox.client import Client

pytestmark = pytest.mark.integration


@pytest.fixture(params=["thread", "process"])
def either(request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    with Sandbox(process=request.param == "process", access_token_life=5, transactions=120) as bank:
        yield bank


def test_both_ways_of_running_do_the_same(either: Sandbox) -> None:
    client = Client(either)
    assert client.get("/v3/transactions", limit=100).json()["has_more"] is True
    either.expire_access_tokens()
    assert client.get("/v3/transactions").status_code == 401
    client.refresh()
    assert client.get("/v3/accounts/nothing/bank_details").status_code == 404
    either.set(frozen=True)
    assert either.settings()["frozen"] is True
    number = either.fault("status", "/v3/cards", times=1)
    assert client.get("/v3/cards").status_code == 503
    assert client.get("/v3/cards").status_code == 200
    assert [(fault["id"], fault["struck"]) for fault in either.faults()] == [(number, 1)]
    either.clear_faults(number)
    assert either.faults() == []
    counters = either.counters()
    assert (counters.logins, counters.refreshes, counters.unauthorized, counters.connections) == (1, 1, 1, 1)
    assert counters.requests == sum(counters.by_path.values()) == sum(counters.by_status.values()) == 7
    assert counters.by_path["GET /v3/transactions"] == 2
    assert counters.by_path["GET /v3/accounts/{id}/bank_details"] == 1
    assert counters.by_status == {"200": 4, "401": 1, "404": 1, "503": 1}
    assert counters.faults == {"status": 1}
    assert counters.rows == 110
    assert set(client.pairs) <= set(either.tokens())
    assert len(either.tokens()) == 4
    assert either.state()["sessions"] == 1
    either.reset_counters()
    assert either.counters().requests == 0
    either.reset()
    assert either.settings()["frozen"] is False
    assert either.state()["sessions"] == 0
    assert len(either.tokens()) == 4
    assert either.url == f"http://{either.host}:{either.port}"


def test_records_tell_the_truth(either: Sandbox) -> None:
    truth = either.records()
    assert len(truth) == 120
    body = Client(either).get("/v3/transactions", limit=100, sort_type="ASC").content
    assert body == b'{"data":[' + b",".join(truth[:100]) + b'],"has_more":true}'
    moments = [json.loads(record)["created_at"] for record in truth]
    low, high = moments[10], moments[20]
    assert either.records(created_from=low, created_to=high) == [
        record for record, moment in zip(truth, moments, strict=True) if low <= moment < high
    ]
    assert len(either.records("/v1/accounts")) == 8
    with pytest.raises(ValueError, match="path"):
        either.records("/v3/nothing")
    with pytest.raises(ValueError, match="created_from"):
        either.records(created_from="yesterday")


def test_it_starts_and_stops_in_no_time() -> None:
    with Sandbox():
        pass  # the imports are done now
    took = []
    for _ in range(5):
        started = time.perf_counter()
        with Sandbox() as bank:
            address = (bank.host, bank.port)
        took.append(time.perf_counter() - started)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(address, timeout=60)
    assert min(took) < 1


def test_stopping_does_not_wait_for_answers_that_hang() -> None:
    bank = Sandbox().start()
    bank.fault("hang")
    sock = socket.create_connection((bank.host, bank.port))
    sock.sendall(b"GET /v3/transactions HTTP/1.1\r\nHost: x\r\n\r\n")
    wait_until(lambda: bool(bank.counters().faults["hang"]))
    started = time.perf_counter()
    bank.stop()
    assert time.perf_counter() - started < 60
    assert sock.recv(1) == b""
    sock.close()
    bank.stop()  # harmless


def test_two_at_once_know_nothing_of_each_other() -> None:
    with Sandbox() as one, Sandbox(host="127.0.0.2") as other:
        client = Client(one)
        answer = requests.get(f"{other.url}/v3/accounts", headers=client.headers, timeout=60)
        assert answer.status_code == 401
        assert (one.counters().unknown_tokens, other.counters().unknown_tokens) == (0, 1)


def test_a_process_ends_when_it_is_stopped_and_its_port_is_free() -> None:
    with Sandbox(process=True) as bank:
        pid, port = bank.pid, bank.port
        assert pid != os.getpid()
        os.kill(pid, 0)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    with Sandbox(port=port) as again:
        assert again.port == port


@pytest.mark.parametrize("process", [False, True])
def test_a_taken_port_is_told(process: bool, sandbox: Sandbox, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises((OSError, RuntimeError)):
        Sandbox(process=process, port=sandbox.port).start()
    if process:
        assert f"cannot listen on 127.0.0.1, port {sandbox.port}" in capfd.readouterr().err


def test_it_listens_on_loopback_only() -> None:
    with pytest.raises(NotLoopback):
        Sandbox(host="0.0.0.0").start()


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "localhost", "::1"])
def test_a_listener_says_that_it_is_tcp(host: str) -> None:
    """Otherwise asyncio keeps Nagle's algorithm, and each response takes 40 ms. uvloop hides that."""
    if host == "::1" and not socket.has_ipv6:
        pytest.skip("no IPv6 here")
    with listen(host, 0) as sock:
        assert sock.proto == socket.IPPROTO_TCP


def test_mistakes_are_told(sandbox: Sandbox) -> None:
    with pytest.raises(SettingsError, match="nonsense"):
        Sandbox(nonsense=1)
    with pytest.raises(ValueError, match="nonsense: no such setting"):
        sandbox.set(nonsense=1)
    with pytest.raises(ValueError, match="latency: -1"):
        sandbox.set(seed=5, latency=-1)
    assert sandbox.settings()["seed"] == 1
    with pytest.raises(ValueError, match="no fault 'flood'"):
        sandbox.fault("flood")
    with pytest.raises(ValueError, match="seconds"):
        sandbox.advance("soon")  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match="already running"):
        sandbox.start()
    with pytest.raises(RuntimeError, match="is not running"):
        Sandbox().counters()


def test_the_connection_it_offers(sandbox: Sandbox) -> None:
    assert json.loads(sandbox.connection(api="2d")) == {
        "conn_type": "intergiro",
        "host": "http://127.0.0.1",
        "port": sandbox.port,
        "password": sandbox.api_key,
        "extra": {"api": "2d"},
    }


def test_time_passes_at_the_bank_when_told(sandbox: Sandbox) -> None:
    client = Client(sandbox)
    before = parsedate_to_datetime(client.get("/v3/cards").headers["date"])
    sandbox.advance(901)
    answer = client.get("/v3/cards")
    assert answer.status_code == 401
    assert 900 <= (parsedate_to_datetime(answer.headers["date"]) - before).total_seconds() <= 930
    client.refresh()
    sandbox.advance(3600)
    assert client.refreshed().status_code == 400
    for _ in range(9):
        client.login()
    assert client.logged_in().status_code == 200  # the very first login is outside of the window
    assert client.logged_in().status_code == 403


def test_the_date_header_may_be_wrong(sandbox: Sandbox) -> None:
    sandbox.set(date_skew=-3600)
    before = time.time()
    date = parsedate_to_datetime(requests.get(f"{sandbox.url}/v3/cards", timeout=60).headers["date"]).timestamp()
    assert before - 3601 <= date <= time.time() - 3600


def test_transactions_can_be_booked_and_changed(sandbox: Sandbox) -> None:
    late = sandbox.add_transactions(3, created_at="2020-01-01T00:00:00Z", reference="late")
    (new,) = sandbox.add_transactions(status="pending_approval")
    truth = [json.loads(record) for record in sandbox.records()]
    assert {record["id"] for record in truth[:3]} == set(late)
    assert truth[-1]["id"] == new
    sandbox.change_transactions([new, late[0]], status="completed")
    client = Client(sandbox)
    changed = client.get("/v3/transactions", sort_by="updated_at", limit=2).json()["data"]
    assert {record["id"] for record in changed} == {new, late[0]}
    assert {record["status"] for record in changed} == {"completed"}
    with pytest.raises(ValueError, match="no such transaction"):
        sandbox.change_transactions(["nothing"])


def test_balances_agree_with_the_transactions(sandbox: Sandbox) -> None:
    def balances() -> list[int]:
        accounts = [json.loads(record) for record in sandbox.records("/v3/accounts")]
        found = [row for row in map(json.loads, sandbox.records()) if row["status"] == "completed"]
        for account in accounts:
            own = [row for row in found if row["account_id"] == account["id"]]
            assert {row["currency"] for row in own} <= {account["currency"]}
            assert account["balance"] == sum(row["amount"] for row in own)
        return [account["balance"] for account in accounts]

    before = balances()
    sandbox.add_transactions(2, amount=7, status="pending")
    assert balances() == before
    assert sandbox.settle() == 2
    assert balances() == [before[0] + 7, before[1] + 7, *before[2:]]


def test_requests_are_kept_without_their_secrets(sandbox: Sandbox) -> None:
    client = Client(sandbox)
    client.get("/v3/transactions", limit=7)
    client.session.post(f"{sandbox.url}/v3/consents/x", json={"return_url": "å"}, headers=client.headers, timeout=60)
    login, listed, posted = sandbox.requests()
    assert (login["path"], login["body"], login["status"]) == ("/v3/auth/login", "", 200)
    assert (listed["path"], listed["query"], listed["method"]) == ("/v3/transactions", "limit=7", "GET")
    assert json.loads(posted["body"]) == {"return_url": "å"}
    assert posted["connection"] == listed["connection"]
    text = json.dumps(sandbox.requests())
    assert not any(secret in text for secret in (*sandbox.tokens(), sandbox.api_key))


def test_concurrency_is_measured_and_can_be_limited(sandbox: Sandbox) -> None:
    client = Client(sandbox)
    sandbox.set(latency=3.0, max_concurrency=3, retry_after=7, retry_after_form="date")
    answers: list[requests.Response] = []

    def get() -> None:
        answers.append(requests.get(f"{sandbox.url}/v3/cards", headers=client.headers, timeout=60))

    threads = [threading.Thread(target=get) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sandbox.counters().peak_concurrent == 5
    refused = [answer for answer in answers if answer.status_code == 429]
    assert refused
    assert len(refused) == sandbox.counters().too_many_requests
    for answer in refused:
        wait = parsedate_to_datetime(answer.headers["retry-after"]) - parsedate_to_datetime(answer.headers["date"])
        assert wait.total_seconds() == 7
    client.login()  # /auth/* is exempt


def test_the_rate_of_requests_can_be_limited(sandbox: Sandbox) -> None:
    client = Client(sandbox)
    sandbox.set(requests_per_second=0.05, request_burst=2, retry_after=0.5)
    answers = [client.get("/v3/cards") for _ in range(12)]
    refused = [answer for answer in answers if answer.status_code == 429]
    assert [answer.status_code for answer in answers[:2]] == [200, 200]
    assert refused
    assert {answer.headers["retry-after"] for answer in refused} == {"0.5"}
    sandbox.set(requests_per_second=200)
    time.sleep(0.1)
    assert client.get("/v3/cards").status_code == 200


def is_back(client: Client) -> bool:
    try:
        return client.get("/v3/cards").status_code == 200
    except requests.ConnectionError:
        return False


def test_an_outage_refuses_connections_and_keeps_the_state(sandbox: Sandbox) -> None:
    client = Client(sandbox)
    sandbox.outage(3.0)
    for _ in range(2):
        with pytest.raises(requests.ConnectionError):
            client.get("/v3/cards")
    wait_until(lambda: is_back(client))
    assert sandbox.counters().logins == 1


def test_an_outage_needs_a_number(sandbox: Sandbox) -> None:
    with pytest.raises(ValueError, match="seconds: must be a number"):
        sandbox.outage("soon")  # type: ignore[arg-type]


def test_an_outage_of_no_time_closes_the_connections_that_clients_keep(sandbox: Sandbox) -> None:
    sock = socket.create_connection((sandbox.host, sandbox.port), timeout=60)
    sandbox.outage(0)
    assert sock.recv(1) == b""
    sock.close()
    assert sandbox.counters().requests == 0
