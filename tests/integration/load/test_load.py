# SPDX-License-Identifier: Apache-2.0
"""The table is what the bank says: loads, reloads and late changes, on each engine."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest

from tests.integration.load.world import Bank, Engine, pull, record

pytestmark = pytest.mark.integration

DAY = ("2026-01-01", "2026-01-02")
WEEK = ("2026-01-01", "2026-01-08")


def counts(rows: int, inserted: int = 0, changed: int = 0, vanished: int = 0, **others: object) -> dict[str, object]:
    unchanged = rows - inserted - changed
    return {
        "rows": rows, "inserted": inserted, "changed": changed, "unchanged": unchanged, "vanished": vanished,
        "replaced": 0, "already": False, **others,
    }  # fmt: skip


FORMATS = [("jsonl", None), ("jsonl", "gzip"), ("jsonl", "zstd"), ("parquet", None), ("parquet", "zstd")]


@pytest.mark.parametrize(("file_format", "compression"), FORMATS)
def test_a_table_follows_the_bank(engine: Engine, tmp_path: Path, file_format: str, compression: str | None) -> None:
    how = {"file_format": file_format, "compression": compression, "part_bytes": 3000}
    bank = Bank(*(record(n) for n in range(40)))
    pull(tmp_path / "1", bank, DAY, **how)
    assert engine.load(tmp_path / "1") == counts(40, inserted=40)
    assert engine.load(tmp_path / "1") == counts(40, inserted=40, already=True)
    pull(tmp_path / "2", bank, DAY, **how)
    assert engine.load(tmp_path / "2") == counts(40)
    changed = [record(n, status="completed") if n % 10 == 0 else record(n) for n in range(42) if n != 7]
    pull(tmp_path / "3", Bank(*changed), DAY, **how)
    assert engine.load(tmp_path / "3") == counts(41, inserted=2, changed=4, vanished=1)
    found = engine.ask("SELECT id, amount, status FROM {t} ORDER BY id")
    assert found == [(each["id"], each["amount"], each["status"]) for each in changed]
    assert engine.ask("SELECT amount_decimal FROM {t}_amounts WHERE id = 't00005'") == [(Decimal("10.05"),)]
    name = "counterparty.name" if engine.is_duck else "counterparty ->> 'name'"
    [(name,)] = engine.ask(f"SELECT {name} FROM {engine.table()} LIMIT 1")
    assert name == 'Åsa "O"\n\\'
    assert engine.ask(f"SELECT count(*), sum(inserted) FROM {engine.table('_intergiro_loads')}") == [(3, 42)]
