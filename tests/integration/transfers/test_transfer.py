# SPDX-License-Identifier: Apache-2.0
"""IntergiroToObjectStorageOperator against a bank over real sockets, with a real session and real files."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowTaskTimeout

from intergiro_provider.exceptions import (
    IntergiroApiError,
    IntergiroError,
    IntergiroNotFound,
    IntergiroResponseError,
    IntergiroValueError,
)
from intergiro_provider.sandbox import Sandbox
from scripts.services import wait_until
from tests.integration.interrupting import when
from tests.integration.pulls import Said, bank, pull, said, shared_bank, transfer, written

pytestmark = pytest.mark.integration

__all__ = ["bank", "said", "shared_bank"]  # fixtures

OLDEST_FIRST = {"sort_by": "created_at", "sort_type": "ASC"}


class TestResult:
    def test_every_record_once_byte_for_byte(self, bank: Sandbox, tmp_path: Path) -> None:
        manifest = pull(tmp_path, query=OLDEST_FIRST)
        stored, records = written(tmp_path)
        assert stored == manifest
        assert records == bank.records()
        assert manifest["rows"] == len(records) >= 730
        assert manifest["first_id"] == json.loads(records[0])["id"]
        assert manifest["last_id"] == json.loads(records[-1])["id"]
        assert bank.counters().by_path["GET /v3/transactions"] == -(-len(records) // 100)

    def test_one_connection_and_no_authentication_once_a_session_lives(self, bank: Sandbox, tmp_path: Path) -> None:
        pull(tmp_path, endpoint="accounts")
        bank.reset_counters()
        pull(tmp_path, query={"limit": 50})
        counters = bank.counters()
        assert counters.connections == 1
        assert set(counters.by_path) == {"GET /v3/transactions"}

    def test_the_log_says_where_the_manifest_is(self, bank: Sandbox, tmp_path: Path, said: Said) -> None:
        pull(tmp_path, endpoint="accounts")
        assert f"Published: file://{tmp_path}/_manifest.json" in said()

    def test_compressed(self, bank: Sandbox, tmp_path: Path) -> None:
        manifest = pull(tmp_path, query=OLDEST_FIRST, compression="gzip")
        assert written(tmp_path)[1] == bank.records()
        [part] = manifest["parts"]
        assert part["path"] == f"part-00000-{manifest['pull_id']}.jsonl.gz"
        assert part["bytes"] < sum(map(len, bank.records())) / 3

    def test_other_lists(self, bank: Sandbox, tmp_path: Path) -> None:
        for endpoint in ("accounts", "/v3/cards", "individuals"):
            manifest = pull(tmp_path / endpoint.strip("/"), endpoint=endpoint)
            assert manifest["endpoint"] == endpoint
            assert manifest["rows"] > 0
            assert (manifest["created_from"], manifest["created_to"]) == (None, None)

    def test_a_plain_array(self, bank: Sandbox, tmp_path: Path) -> None:
        pull(tmp_path / "accounts", endpoint="accounts")
        account = json.loads(written(tmp_path / "accounts")[1][0])["id"]
        assert pull(tmp_path / "details", endpoint=f"accounts/{account}/bank_details")["rows"] > 0

    def test_filters(self, bank: Sandbox, tmp_path: Path) -> None:
        pull(tmp_path, query={**OLDEST_FIRST, "statuses": ["pending", "completed"], "limit": 50})
        expected = [r for r in bank.records() if json.loads(r)["status"] in ("pending", "completed")]
        assert 0 < len(expected) < len(bank.records())
        assert written(tmp_path)[1] == expected

    def test_nothing_there(self, bank: Sandbox, tmp_path: Path) -> None:
        manifest = pull(tmp_path, created_from="1999-01-01", created_to="1999-01-02")
        assert (manifest["parts"], manifest["rows"], manifest["bytes"]) == ([], 0, 0)
        assert written(tmp_path)[1] == []

    def test_a_rerun_replaces(self, bank: Sandbox, tmp_path: Path) -> None:
        first = pull(tmp_path, query=OLDEST_FIRST)
        second = pull(tmp_path, query=OLDEST_FIRST, compression="gzip")
        assert first["pull_id"] != second["pull_id"]
        assert written(tmp_path)[0] == second


class TestInterval:
    @pytest.mark.parametrize("from_inclusive", [True, False])
    @pytest.mark.parametrize("to_inclusive", [True, False])
    @pytest.mark.parametrize("sort_type", ["ASC", "DESC"])
    def test_the_same_whatever_the_banks_bounds_include(
        self, bank: Sandbox, tmp_path: Path, from_inclusive: bool, to_inclusive: bool, sort_type: str
    ) -> None:
        bank.set(created_from_inclusive=from_inclusive, created_to_inclusive=to_inclusive)
        start, end = (json.loads(bank.records()[number])["created_at"] for number in (100, 300))
        for bound in (start, end):  # more than one record at exactly this time
            bank.add_transactions(2, created_at=bound)
        manifest = pull(tmp_path, created_from=start, created_to=end, query={"sort_type": sort_type, "limit": 7})
        expected = bank.records("/v3/transactions", start, end)
        times = {json.loads(r)["created_at"] for r in expected}
        assert start in times
        assert end not in times
        assert written(tmp_path)[1] == (expected if sort_type == "ASC" else expected[::-1])
        assert (manifest["created_from"], manifest["created_to"]) == (start, end)

    def test_the_query_of_the_endpoint_obeys_the_rules_of_query(self, bank: Sandbox, tmp_path: Path) -> None:
        records = bank.records("/v3/transactions")
        pull(tmp_path, endpoint="transactions?statuses=pending&limit=7", query={"sort_by": "created_at"})
        assert sorted(written(tmp_path)[1]) == sorted(r for r in records if json.loads(r)["status"] == "pending")
        queries = [r["query"] for r in bank.requests() if "limit=7&" in r["query"]]
        assert [query.count("limit=") for query in queries] == [1] * len(queries) != []

    def test_the_manifest_says_until_when_it_can_be_complete(self, bank: Sandbox, tmp_path: Path) -> None:
        start = json.loads(bank.records()[0])["created_at"]
        past = pull(tmp_path, created_from=start, created_to=json.loads(bank.records()[-9])["created_at"])
        assert past["complete_until"] == past["created_to"]
        before = datetime.now(UTC)
        future = pull(tmp_path, created_from=start, created_to="2999-01-01")
        assert future["created_to"] == "2999-01-01T00:00:00.000Z"
        assert before - timedelta(seconds=1) <= datetime.fromisoformat(future["complete_until"]) <= datetime.now(UTC)
        assert pull(tmp_path)["complete_until"] is None

    def test_days_share_the_records_out(self, bank: Sandbox, tmp_path: Path) -> None:
        everything = bank.records()
        first = datetime.fromisoformat(json.loads(everything[0])["created_at"]).replace(
            hour=0, minute=0, second=0, microsecond=0
        )
        found: list[bytes] = []
        for number in range(0, 32, 8):
            day = first + timedelta(days=number)
            pull(tmp_path / str(number), query=OLDEST_FIRST, created_from=day, created_to=day + timedelta(days=8))
            found += written(tmp_path / str(number))[1]
        assert found == [
            r for r in everything if datetime.fromisoformat(json.loads(r)["created_at"]) < day + timedelta(days=8)
        ]
        assert len(found) >= 730

    def test_lookback(self, bank: Sandbox, tmp_path: Path) -> None:
        end = datetime.now(UTC)
        start = end - timedelta(days=3)
        manifest = pull(tmp_path, query=OLDEST_FIRST, created_from=start, created_to=end, lookback=timedelta(days=10))
        expected = bank.records("/v3/transactions", manifest["created_from"], manifest["created_to"])
        assert datetime.fromisoformat(manifest["created_from"]) - (start - timedelta(days=10)) < timedelta(
            milliseconds=1
        )
        assert written(tmp_path)[1] == expected


class TestFailure:
    """If the bank fails, the previous result stays, and no other file is left."""

    @pytest.fixture(autouse=True)
    def little_patience(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("intergiro_provider.api.retries.ATTEMPTS", 2)

    @pytest.mark.parametrize(
        ("fault", "error"),
        [
            ({"kind": "drop"}, IntergiroError),
            ({"kind": "drop", "reset": True}, IntergiroError),
            ({"kind": "drop_body"}, IntergiroError),
            ({"kind": "status", "status": 503}, IntergiroApiError),
            ({"kind": "status", "status": 404}, IntergiroResponseError),
            ({"kind": "garbled", "how": "cut"}, IntergiroResponseError),
            ({"kind": "garbled", "how": "noise"}, IntergiroResponseError),
            ({"kind": "garbled", "how": "html"}, IntergiroResponseError),
            ({"kind": "garbled", "how": "empty"}, IntergiroResponseError),
            ({"kind": "garbled", "how": "not_utf8"}, IntergiroResponseError),
            ({"kind": "garbled", "how": "scalar"}, IntergiroResponseError),
            ({"kind": "empty_page"}, IntergiroResponseError),
            ({"kind": "stuck_page"}, IntergiroResponseError),
            ({"kind": "repeat_record"}, IntergiroResponseError),
        ],
        ids=lambda value: "-".join(map(str, value.values())) if isinstance(value, dict) else "",
    )
    def test_in_the_middle(self, bank: Sandbox, tmp_path: Path, fault: dict[str, Any], error: type[Exception]) -> None:
        former = pull(tmp_path, query=OLDEST_FIRST)
        bank.fault(path="/v3/transactions", skip=3, **fault)
        with pytest.raises(error) as caught:
            pull(tmp_path)
        assert sum(bank.counters().faults.values()) >= 1
        manifest, records = written(tmp_path)
        assert manifest == former
        assert records == bank.records()
        assert not any(json.loads(r)["account_id"] in str(caught.value) for r in records)
        bank.clear_faults()
        pull(tmp_path, query=OLDEST_FIRST)
        assert written(tmp_path)[1] == bank.records()

    def test_a_fault_that_passes_is_not_noticed(self, bank: Sandbox, tmp_path: Path) -> None:
        for skip, kind in enumerate(("drop", "drop_body", "status", "lose_response")):
            bank.fault(kind, path="/v3/transactions", times=1, skip=2 * skip)
        pull(tmp_path, query=OLDEST_FIRST)
        assert written(tmp_path)[1] == bank.records()
        assert sum(bank.counters().faults.values()) == 4

    def test_an_endpoint_that_is_no_list(self, bank: Sandbox, tmp_path: Path) -> None:
        one = json.loads(bank.records()[0])["id"]
        with pytest.raises(IntergiroResponseError, match="Check that `endpoint` is a list"):
            pull(tmp_path, endpoint=f"transactions/{one}")
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize(
        "arguments",
        [
            {"query": {"limit": "101"}},
            {"endpoint": "transactions?{{ x }}=[]&account_ids=", "query": {"a": 1}},
            {"path": "file://rel/x"},
            {"created_from": "{{ x }}", "created_to": "2999-01-02", "endpoint": "transactions?created_to=x"},
            {"created_from": "2999-01-01", "created_to": "2999-01-02"},
            {"created_from": "{{ x }}", "created_to": "{{ y }}"},
            {"endpoint": "https://elsewhere.example/v3/transactions"},
        ],
    )
    def test_bad_input_asks_nothing_of_the_bank(self, bank: Sandbox, tmp_path: Path, arguments: dict[str, Any]) -> None:
        with pytest.raises(IntergiroValueError):
            transfer(**{"path": tmp_path, **arguments}).execute({})
        assert bank.counters().requests == 0
        assert list(tmp_path.iterdir()) == []

    def test_a_full_disk(self, bank: Sandbox, tmp_path: Path) -> None:
        """Files of this process are limited to 100 kB, so a write fails in the middle, as on a full disk."""
        import resource

        former = pull(tmp_path, query={**OLDEST_FIRST, "statuses": ["pending"]})
        before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
            with pytest.raises(OSError, match="File too large"):
                pull(tmp_path, query=OLDEST_FIRST)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
            signal.signal(signal.SIGXFSZ, before)
        assert written(tmp_path)[0] == former


class TestBeingStopped:
    def stopped_while_the_bank_is_silent(self, bank: Sandbox, tmp_path: Path, handle: Any) -> float:
        """Pull, and send a signal to this process while page 4 hangs. Return the seconds until the pull ended.

        They do not include five times the duration of a whole pull: the allowance for a slow machine.
        """
        began = time.monotonic()
        former = pull(tmp_path, query=OLDEST_FIRST)
        a_pull = time.monotonic() - began
        bank.fault("hang", path="/v3/transactions", skip=3, seconds=600)
        operator = transfer(tmp_path)
        before = signal.signal(signal.SIGUSR1, lambda number, frame: handle(operator))
        sent: list[float] = []

        def send_signal() -> None:
            sent.append(time.monotonic())
            os.kill(os.getpid(), signal.SIGUSR1)

        sender = when(lambda: bank.counters().faults["hang"], send_signal)
        try:
            with pytest.raises((IntergiroError, AirflowTaskTimeout)):
                operator.execute({})
            took = time.monotonic() - sent[0]
        finally:
            sender.join()
            signal.signal(signal.SIGUSR1, before)
            bank.clear_faults()
        assert written(tmp_path)[0] == former
        return took - 5 * a_pull

    def test_by_airflow(self, bank: Sandbox, tmp_path: Path) -> None:
        """Airflow 3 calls on_kill from its handler of SIGTERM and sends SIGKILL after 5 s."""
        assert self.stopped_while_the_bank_is_silent(bank, tmp_path, lambda operator: operator.on_kill()) < 2

    def test_by_execution_timeout(self, bank: Sandbox, tmp_path: Path) -> None:
        """Airflow raises from its handler of SIGALRM, and calls on_kill afterwards."""

        def handle(operator: Any) -> None:
            raise AirflowTaskTimeout

        assert self.stopped_while_the_bank_is_silent(bank, tmp_path, handle) < 2

    def test_before_the_pull_begins(self, bank: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        former = pull(tmp_path, query=OLDEST_FIRST)
        operator = transfer(tmp_path)
        for from_another_thread in (False, True):
            operator = transfer(tmp_path)

            def ended(*_: Any, operator: Any = operator, from_another_thread: bool = from_another_thread) -> None:
                if from_another_thread:
                    thread = threading.Thread(target=operator.on_kill)
                    thread.start()
                    thread.join()
                else:
                    operator.on_kill()

            monkeypatch.setattr(operator, "_checkpointer", ended)
            asked = bank.counters().requests
            with pytest.raises(IntergiroError, match="stop. Nothing was published"):
                operator.execute({})
            assert bank.counters().requests == asked
            assert written(tmp_path)[0] == former

    def test_airflow_calls_on_kill_after_a_time_out_too(self, bank: Sandbox, tmp_path: Path) -> None:
        operator = transfer(tmp_path, endpoint="nothing")
        with pytest.raises(IntergiroNotFound):
            operator.execute({})
        operator.on_kill()

    def test_from_another_thread(self, bank: Sandbox, tmp_path: Path) -> None:
        former = pull(tmp_path, query=OLDEST_FIRST)
        bank.fault("hang", path="/v3/transactions", skip=3, seconds=600)
        operator = transfer(tmp_path)
        killer = when(lambda: bank.counters().faults["hang"], operator.on_kill)
        with pytest.raises(IntergiroError, match="stopped. Nothing was published"):
            operator.execute({})
        killer.join()
        assert written(tmp_path)[0] == former


@pytest.mark.slow
def test_the_access_token_expires_several_times(bank: Sandbox, tmp_path: Path) -> None:
    def expire() -> None:
        for number in range(3):
            wait_until(lambda number=number: bank.counters().refreshes == number)
            bank.expire_access_tokens()

    bank.set(latency=0.2)
    expiry = when(lambda: bank.counters().requests, expire)
    manifest = pull(tmp_path, query={**OLDEST_FIRST, "limit": 50})
    expiry.join()
    assert written(tmp_path)[1] == bank.records()
    assert manifest["rows"] == len(bank.records())
    counters = bank.counters()
    assert counters.refreshes >= 2
    assert (counters.logins, counters.refresh_early, counters.refresh_reused) == (0, 0, 0)
