# SPDX-License-Identifier: Apache-2.0
"""Compare the bank's balances with the transactions in the warehouse, to the minor unit.

Each load of the accounts with ``history=True`` is a snapshot of their balances at the beginning of its pull. Between
two snapshots, a balance must change by the sum of the transactions booked in the meantime. A transaction counts from
the time (`updated_at`) at which it got a status that counts, until it loses that status. Its earlier states come from
the transactions' history.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from intergiro_provider.exceptions import IntergiroValueError
from intergiro_provider.load.amounts import CURRENCIES
from intergiro_provider.load.loads import LOADS, pulled_at
from intergiro_provider.load.target import Target, literal
from intergiro_provider.load.warehouse import Warehouse
from intergiro_provider.pull.schema import Kind


@dataclass(frozen=True)
class Line:
    """One account between two snapshots; amounts in minor units.

    :param day: the UTC day in which most of the time between the snapshots lies.
    :param booked: sum of the transactions booked in between. :param pending: change of the sum of pending transactions.
    :param difference: change of the balance minus the sum of the compared transactions.
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


class Comparison:
    """A comparison of balances with transactions; for the parameters see :func:`.reconcile`."""

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
        """Compare, and write the table; return its lines and the exponents of the currencies."""
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
        target, moment = self._warehouse.target, self._warehouse.types[Kind.TIMESTAMP]
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
                f"since {types[Kind.TIMESTAMP]}, until {types[Kind.TIMESTAMP]}, "
                f"{', '.join(f'{name} {types[Kind.INT128]}' for name in amounts)}, agrees BOOLEAN)"
            )
        if lines:
            warehouse.execute(f"DELETE FROM {table} WHERE since >= {warehouse.mark}", min(line.since for line in lines))
        for line in lines:
            warehouse.execute(f"INSERT INTO {table} VALUES ({warehouse.values(11)})", *asdict(line).values())
