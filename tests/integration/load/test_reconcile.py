# SPDX-License-Identifier: Apache-2.0
"""Seven nights at the sandbox: bank, files and table are equal, and the balances agree to the cent."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from intergiro_provider.exceptions import BalanceMismatch, IntergiroValueError
from intergiro_provider.load.reconcile import reconcile
from intergiro_provider.pull import names
from intergiro_provider.sandbox import Sandbox
from tests.integration.load.world import Engine, has_psycopg3
from tests.integration.pulls import pull, written

pytestmark = pytest.mark.integration

START = datetime(2026, 3, 1, 2, 0, tzinfo=UTC)
NIGHTS = 7
FIELDS = ("id", "amount", "currency", "status", "account_id")


class World:
    """A bank and a warehouse over several nights. The ids of pulls contain the bank's time."""

    def __init__(self, bank: Sandbox, engine: Engine, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.bank, self.engine, self.path = bank, engine, path
        self.began = bank.state()["now"]
        monkeypatch.setattr(
            names, "new_pull_id", lambda began=None: f"{began or self.now():%Y%m%dT%H%M%S%f}-{next(self.numbers):08x}"
        )
        self.numbers = iter(range(1000))
        self.accounts = [json.loads(each) for each in bank.records("/v3/accounts")]

    def now(self) -> datetime:
        return START + timedelta(seconds=self.bank.state()["now"] - self.began)

    def night(self, number: int) -> None:
        created = self.now().isoformat()
        for n, account in enumerate(self.accounts[:6]):
            for status in ("completed", "pending", "pending"):
                fields = {"account_id": account["id"], "currency": account["currency"], "status": status}
                self.bank.add_transactions(1, created, amount=(n - 2) * 1000 + number, type="bank-transfer", **fields)
        self.bank.advance(6 * 3600)
        self.pull_and_load("accounts", f"accounts/{number}")
        lookback = 4 if number else 4000
        bounds = {
            "created_from": self.now() - timedelta(days=lookback),
            "created_to": self.now() + timedelta(minutes=1),
        }
        self.pull_and_load("transactions", f"transactions/{number}", **bounds)
        self.bank.advance(18 * 3600)

    def pull_and_load(self, endpoint: str, name: str, **bounds: Any) -> None:
        pull(self.path / name, endpoint=endpoint, **bounds)
        self.engine.load(self.path / name, endpoint, history=True)

    def compare(self, **options: Any) -> dict[str, Any]:
        names = {name: self.engine.table(name) for name in ("accounts", "transactions")}
        return reconcile(**names, **self.engine.where, **options)


@pytest.fixture
def world(engine: Engine, tmp_path: Path, airflow_db: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    if engine.kind == "psycopg2" and has_psycopg3():
        pytest.skip("as with psycopg 3")
    settings = {"transactions": 300, "days": 5.0, "now": START.isoformat(), "settle_after": 2 * 86400.0}
    with Sandbox(**settings, access_token_life=1e7, session_life=1e7, login_limit=50) as bank:
        monkeypatch.setenv("AIRFLOW_CONN_INTERGIRO_DEFAULT", bank.connection(max_logins_per_hour=50))
        yield World(bank, engine, tmp_path, monkeypatch)


def test_seven_nights(world: World, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    engine = world.engine
    with pytest.raises(IntergiroValueError, match="no table"):
        world.compare()
    for number in range(NIGHTS):
        world.night(number)
        if not number:
            assert world.compare()["lines"] == 0
    _check_equal(world)
    assert (
        engine.ask("SELECT count(*) FROM {t}_history WHERE _operation = 'update' AND status = 'completed'")[0][0] > 50
    )

    found = world.compare(report_path=str(tmp_path / "good.html"))
    assert found["differing"] == 0
    assert found["lines"] == (NIGHTS - 1) * len(world.accounts)
    assert engine.ask("SELECT sum(CASE WHEN booked <> 0 THEN 1 ELSE 0 END) FROM {t}_reconciliation")[0][0] > 20
    with pytest.raises(BalanceMismatch):
        world.compare(include_pending=True)

    [(victim, account, moment)] = engine.ask(
        "SELECT id, account_id, updated_at FROM {t} WHERE status = 'completed' "
        "AND updated_at > '2026-03-04 10:00:00+00' ORDER BY updated_at LIMIT 1"
    )
    engine.ask(f"UPDATE {engine.table()} SET amount = amount + 1 WHERE id = '{victim}'")
    caplog.clear()
    with pytest.raises(BalanceMismatch, match=f"1 of .* first {account}"):
        world.compare()
    found = world.compare(on_difference="warn", report_path=str(tmp_path / "bad.html"))
    day = (moment - timedelta(hours=8)).date().isoformat()
    assert [(each["account_id"], each["day"], each["difference"]) for each in found["differences"]] == [
        (account, day, -1)
    ]
    assert f"| {account} |" in caplog.text
    page = (tmp_path / "bad.html").read_text()
    assert page.count("class=off") == 2
    assert "<svg" in page
    assert "http" not in page
    assert engine.ask("SELECT account_id, difference FROM {t}_reconciliation WHERE NOT agrees") == [(account, -1)]
    assert world.compare(tolerance=1)["differing"] == 0


def _check_equal(world: World) -> None:
    bank = {each["id"]: tuple(each[name] for name in FIELDS) for each in map(json.loads, world.bank.records())}
    # The last pull does not contain transactions after it.
    world.pull_and_load(
        "transactions", "transactions/last",
        created_from=START - timedelta(days=4000), created_to=world.now() + timedelta(minutes=1),
    )  # fmt: skip
    files: dict[str, tuple[Any, ...]] = {}
    for name in [*map(str, range(NIGHTS)), "last"]:
        for line in written(world.path / "transactions" / name)[1]:
            record = json.loads(line)
            files[record["id"]] = tuple(record[field] for field in FIELDS)
    table = {row[0]: tuple(row) for row in world.engine.ask(f"SELECT {', '.join(FIELDS)} FROM {world.engine.table()}")}
    assert len(bank) > 300
    assert table == files == bank
