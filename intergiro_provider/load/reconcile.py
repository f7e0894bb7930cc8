# SPDX-License-Identifier: Apache-2.0
"""Compare the bank's balances with the transactions in the warehouse, to the minor unit.

Each load of the accounts with ``history=True`` is a snapshot of their balances at the beginning of its pull. Between
two snapshots a balance must change by the sum of what was booked in the meantime. A transaction counts from the moment
(`updated_at`) when it got a status that counts, until it loses it; former states come from the transactions' history.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from intergiro_provider.exceptions import BalanceMismatch, IntergiroValueError, LoadError
from intergiro_provider.load import open_warehouse, report
from intergiro_provider.load.amounts import CURRENCIES
from intergiro_provider.load.ledger import LOADS, pulled_at
from intergiro_provider.load.target import Target, literal
from intergiro_provider.pull.schema import Kind

if TYPE_CHECKING:
    from intergiro_provider.load.warehouse import Warehouse

log = logging.getLogger(__name__)

BOOKED = ("completed",)
PENDING = ("pending", "processing")


@dataclass(frozen=True)
class Line:
    """One account between two snapshots; amounts in minor units.

    :param day: the UTC day in which most of the time between the snapshots lies.
    :param booked: sum of what was booked in between. :param pending: change of the sum of what is pending.
    :param difference: what the change of the balance has more than the transactions that were compared.
    """

    account_id: str
    currency: str
    day: str
    since: datetime
    until: datetime
    opening: int
    closing: int
    booked: int
    pending: int
    difference: int
    agrees: bool


def reconcile(
    *,
    accounts: str = "accounts",
    transactions: str = "transactions",
    sql_conn_id: str | None = None,
    database: str | None = None,
    include_pending: bool = False,
    booked: Sequence[str] = BOOKED,
    pending: Sequence[str] = PENDING,
    tolerance: int = 0,
    on_difference: str = "fail",
    snapshots: int = 32,
    report_path: str | None = None,
    lock_timeout: float = 300.0,
) -> dict[str, Any]:
    """Compare balances with transactions, and write ``<transactions>_reconciliation``.

    :param accounts: the table of the accounts, loaded with ``history=True``.
    :param transactions: the table of the transactions. With ``history=True``, former states count, too.
    :param sql_conn_id: a connection of type ``postgres``; give this or `database`, a DuckDB file.
    :param include_pending: whether the bank's balance includes what is pending.
    :param booked: statuses that count. :param pending: those that count beside them with `include_pending`.
    :param tolerance: the largest difference that is none, in minor units.
    :param on_difference: ``fail`` or ``warn``.
    :param snapshots: how many of the latest snapshots are compared.
    :param report_path: where to write an HTML report: an ObjectStoragePath URL or an absolute path. It holds balances.
    :return: ``{lines, differing, snapshots, differences: [{account_id, currency, day, difference}]}``.
    :raises BalanceMismatch: there are differences, and `on_difference` is ``fail``.
    """
    if on_difference not in ("fail", "warn"):
        raise IntergiroValueError(f"`on_difference` must be 'fail' or 'warn', not {on_difference!r}")
    warehouse = open_warehouse(transactions, sql_conn_id, database, lock_timeout=lock_timeout)
    comparison = _Comparison(warehouse, Target(accounts), include_pending, booked, pending, tolerance)
    problem = None
    try:
        with warehouse.session():
            lines, exponents = comparison.run(snapshots)
    except Exception as error:
        if (explained := warehouse.explain(error)) is None:
            raise
        problem = LoadError(f"reconciling {transactions} with {accounts}: {warehouse.step} failed: {explained}")
    if problem is not None:  # see Warehouse.load
        raise problem
    differing = [line for line in lines if not line.agrees]
    log.info("%s", report.markdown(lines, transactions, accounts))
    if report_path is not None:
        from intergiro_provider.transfers.location import object_storage_path

        page = report.html(lines, exponents, transactions, accounts)
        object_storage_path(report_path).write_bytes(page.encode())
    found = {
        "lines": len(lines),
        "differing": len(differing),
        "snapshots": len({line.until for line in lines}) + 1 if lines else 0,
        "differences": [
            {
                name: value
                for name, value in asdict(line).items()
                if name in ("account_id", "currency", "day", "difference")
            }
            for line in differing[:100]
        ],
    }
    if differing and on_difference == "fail":
        first = differing[0]
        raise BalanceMismatch(
            f"{len(differing)} of {len(lines)} balances do not agree with {transactions}, first {first.account_id} "
            f"({first.currency}) on {first.day}, by {first.difference} minor units. See the table "
            f"{transactions}_reconciliation"
        )
    return found


class _Comparison:
    def __init__(
        self,
        warehouse: Warehouse,
        accounts: Target,
        include_pending: bool,
        booked: Sequence[str],
        pending: Sequence[str],
        tolerance: int,
    ) -> None:
        self._warehouse = warehouse
        self._accounts = accounts
        self._include_pending = include_pending
        self._booked, self._pending = (", ".join(map(literal, statuses)) for statuses in (booked, pending))
        self._tolerance = tolerance

    def run(self, limit: int) -> tuple[list[Line], dict[str, int]]:
        warehouse = self._warehouse
        with warehouse.doing("reading the snapshots of the balances"):
            self._check_tables()
            found = warehouse.execute(
                f"SELECT pull_id FROM {self._accounts.beside(LOADS)} WHERE table_name = {warehouse.mark} "
                f"ORDER BY pull_id DESC LIMIT {int(limit)}",
                self._accounts.bare,
            ).fetchall()
            pulls = sorted(pull_id for (pull_id,) in found)
            exponents = dict(
                warehouse.execute(f"SELECT currency, exponent FROM {self._accounts.beside(CURRENCIES)}").fetchall()
            )
        lines: list[Line] = []
        if len(pulls) > 1:
            with warehouse.doing("comparing"):
                found = warehouse.execute(self._query(pulls)).fetchall()
            lines = [self._line(*row) for row in found]
        with warehouse.doing("writing the comparison"):
            self._write(lines)
        return lines, exponents

    def _check_tables(self) -> None:
        if self._warehouse.columns(self._accounts.history_table) is None:
            raise IntergiroValueError(
                f"`accounts`: there is no table {self._accounts.name}_history. Load the accounts with history=True"
            )
        if self._warehouse.columns(self._warehouse.target.table) is None:
            raise IntergiroValueError(f"`transactions`: there is no table {self._warehouse.target.name}")

    def _query(self, pulls: list[str]) -> str:
        target, moment = self._warehouse.target, self._warehouse.types[Kind.MOMENT]
        windows = ", ".join(
            f"({literal(former)}, {literal(pull)}, CAST({literal(pulled_at(former).isoformat())} AS {moment}), "
            f"CAST({literal(pulled_at(pull).isoformat())} AS {moment}))"
            for former, pull in itertools.pairwise(pulls)
        )
        history = ""
        if self._warehouse.columns(target.history_table) is not None:
            history = (
                "UNION ALL SELECT h.id, h.account_id, h.amount, h.status, "
                "CASE WHEN h._operation = 'delete' THEN h._valid_from ELSE h.updated_at END, h._operation <> 'delete' "
                f"FROM {target.history_table} h LEFT JOIN {target.table} t ON t.id = h.id "
                "WHERE t.id IS NULL OR (h._operation <> 'delete' AND h.updated_at < t.updated_at)"
            )
        states = f"""
            WITH windows (former, pull, since, until) AS (VALUES {windows}),
            points AS (SELECT pull AS pull_id FROM windows UNION SELECT former FROM windows),
            versions AS (
                SELECT p.pull_id, h.id, h.currency, h.balance, h._operation,
                    row_number() OVER (PARTITION BY p.pull_id, h.id ORDER BY h._pull_id DESC) AS age
                FROM points p JOIN {self._accounts.history_table} h ON h._pull_id <= p.pull_id
            ),
            balances AS (SELECT * FROM versions WHERE age = 1 AND _operation <> 'delete'),
            states AS (
                SELECT id, account_id, amount, status, updated_at AS moment, true AS there FROM {target.table} {history}
            ),
            counted AS (
                SELECT id, account_id, moment,
                    CASE WHEN there AND status IN ({self._booked}) THEN amount ELSE 0 END AS booked,
                    CASE WHEN there AND status IN ({self._pending}) THEN amount ELSE 0 END AS pending
                FROM states
            ),
            changes AS (
                SELECT account_id, moment,
                    booked - lag(booked, 1, 0) OVER (PARTITION BY id ORDER BY moment) AS booked,
                    pending - lag(pending, 1, 0) OVER (PARTITION BY id ORDER BY moment) AS pending
                FROM counted
            ),
            sums AS (
                SELECT w.pull, c.account_id, sum(c.booked) AS booked, sum(c.pending) AS pending
                FROM windows w JOIN changes c ON c.moment > w.since AND c.moment <= w.until
                GROUP BY w.pull, c.account_id
            )"""
        return f"""{states}
            SELECT b.id, b.currency, w.since, w.until, a.balance, b.balance,
                coalesce(s.booked, 0), coalesce(s.pending, 0)
            FROM windows w
            JOIN balances a ON a.pull_id = w.former
            JOIN balances b ON b.pull_id = w.pull AND b.id = a.id
            LEFT JOIN sums s ON s.pull = w.pull AND s.account_id = b.id
            ORDER BY w.until, b.id"""

    def _line(
        self, account: Any, currency: str, since: datetime, until: datetime, opening: Any, closing: Any, *sums: Any
    ) -> Line:
        opening, closing, booked, pending = (int(each) for each in (opening, closing, *sums))
        difference = closing - opening - booked - (pending if self._include_pending else 0)
        day = (since + (until - since) / 2).date().isoformat()
        agrees = abs(difference) <= self._tolerance
        return Line(str(account), currency, day, since, until, opening, closing, booked, pending, difference, agrees)

    def _write(self, lines: list[Line]) -> None:
        warehouse = self._warehouse
        target, types = warehouse.target, warehouse.types
        table = target.beside(f"{target.bare}_reconciliation")
        amounts = ("opening", "closing", "booked", "pending", "difference")
        if warehouse.columns(table) is None:
            warehouse.execute(
                f"CREATE TABLE {table} (account_id {types[Kind.STRING]}, currency {types[Kind.STRING]}, day DATE, "
                f"since {types[Kind.MOMENT]}, until {types[Kind.MOMENT]}, "
                f"{', '.join(f'{name} {types[Kind.HUGE]}' for name in amounts)}, agrees BOOLEAN)"
            )
        if lines:
            warehouse.execute(f"DELETE FROM {table} WHERE since >= {warehouse.mark}", min(line.since for line in lines))
        for line in lines:
            warehouse.execute(f"INSERT INTO {table} VALUES ({warehouse.values(11)})", *asdict(line).values())
