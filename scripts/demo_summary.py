# SPDX-License-Identifier: Apache-2.0
"""The summary of the demo: the files, a few records, how the session was renewed, where to look next."""

from __future__ import annotations

import gzip
import itertools
import json
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from scripts.airflow_stack import ROOT, AirflowStack
from scripts.bank import Bank

#: How many records are shown.
SHOWN = 5


def describe(airflow: AirflowStack, bank: Bank, run: dict[str, Any], data: Path, kept: bool, loaded: list[str]) -> str:
    """Return the summary as text."""
    return "\n".join(
        [
            "",
            *_headline(run),
            "",
            *_files(data),
            "",
            *_records(data),
            "",
            *loaded,
            "",
            *_session(bank),
            "",
            "Where to look next",
            f"  the files           {_short(data)}/ (each directory's _manifest.json lists its parts)",
            f"  the tasks' logs     {_short(airflow.home / 'logs')}/",
            f"  the DAGs            {_short(ROOT / 'dags_examples')}/",
            f"  the UI              {airflow.url if kept else 'make up'}",
            "",
        ]
    )


def _headline(run: dict[str, Any]) -> list[str]:
    if run["state"] != "success":
        return [f"The scheduled run {run['dag_run_id']} has FAILED: see the tasks' logs."]
    seconds = (_time(run["end_date"]) - _time(run["start_date"])).total_seconds()
    return [f"The scheduled run {run['dag_run_id']} took {seconds:.0f} s and succeeded."]


def _files(data: Path) -> list[str]:
    """One line for each manifest: what a pull has published."""
    lines = [f"{'Pulled':<16}{'files':>6}{'rows':>10}{'bytes':>14}   into"]
    for path in sorted(data.rglob("_manifest.json")):
        manifest = json.loads(path.read_bytes())
        lines.append(
            f"{manifest['endpoint']:<16}{len(manifest['parts']):>6}{manifest['rows']:>10,}{manifest['bytes']:>14,}"
            f"   {_short(path.parent)}/"
        )
    return lines if len(lines) > 1 else ["Nothing was published."]


def _records(data: Path) -> list[str]:
    """Return a few transactions: of the sandbox, whose data is made up."""
    lines = ["A few of the sandbox's transactions"]
    for path in sorted(data.rglob("_manifest.json")):
        manifest = json.loads(path.read_bytes())
        if "transactions" in manifest["endpoint"] and any(part["path"].endswith(".gz") for part in manifest["parts"]):
            part = path.parent / manifest["parts"][0]["path"]
            for record in itertools.islice(_read(part), SHOWN):
                amount = f"{record['amount'] / 100:,.2f} {record['currency']}"
                name = " ".join(((record.get("counterparty") or {}).get("name") or "").split())
                lines.append(
                    f"  {record['created_at']}  {amount:>20}  {record['status']:<18}{record['type']:<16}{name}"
                )
            break
    return lines


def warehouse(database: Path, compared: dict[str, Any]) -> list[str]:
    """Return a query's result from the DuckDB file, and what the reconciliation said."""
    import duckdb

    if not database.exists():
        return ["Nothing was loaded."]
    with duckdb.connect(str(database), read_only=True) as connection:
        found = connection.execute(
            "SELECT currency, count(*), count(*) FILTER (status = 'completed') "
            "FROM transactions_amounts GROUP BY currency ORDER BY currency"
        ).fetchall()
    lines = [f"Loaded into DuckDB ({_short(database)}); the view transactions_amounts by currency"]
    lines += [f"  {code}  {rows:>8,} rows, {done:>8,} completed" for code, rows, done in found]
    if compared:
        agree = compared["lines"] - compared["differing"]
        lines.append(f"Reconciliation: {agree} of {compared['lines']} balances agree with the transactions to the cent")
    return lines


def _read(part: Path) -> Iterator[dict[str, Any]]:
    with gzip.open(part, "rb") if part.suffix == ".gz" else part.open("rb") as lines:
        for line in lines:
            yield json.loads(line)


def _session(bank: Bank) -> list[str]:
    """Return how the one session was renewed, as the bank has counted it."""
    counters = bank.counters()
    life = bank.settings()["access_token_life"]
    return [
        f"One session, shared by every task; its access token lives {life:g} s here. The bank has counted",
        f"  logins      {counters['logins']:>6,}",
        f"  refreshes   {counters['refreshes']:>6,}",
        f"  early       {counters['refresh_early']:>6,}   refreshes of a token that still lived: an error at the bank",
        f"  re-used     {counters['refresh_reused']:>6,}   refreshes with a token that had been used before",
        f"  requests    {counters['requests']:>6,}   on {counters['connections']:,} connections",
    ]


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text.replace("Z", "+00:00"))


def _short(path: Path) -> str:
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)
