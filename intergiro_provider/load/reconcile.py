# SPDX-License-Identifier: Apache-2.0
"""Compare the bank's balances with the transactions in the warehouse, in a ``@task`` of your own."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from intergiro_provider.exceptions import BalanceMismatch, IntergiroValueError, LoadError
from intergiro_provider.load import open_warehouse, report
from intergiro_provider.load.comparison import Comparison
from intergiro_provider.load.target import Target
from intergiro_provider.pull.location import object_storage_path

log = logging.getLogger(__name__)

BOOKED = ("completed",)
PENDING = ("pending", "processing")


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
    :param include_pending: whether the bank's balance includes pending transactions.
    :param booked: statuses that count. :param pending: statuses that also count with `include_pending`.
    :param tolerance: the largest difference that is ignored, in minor units.
    :param on_difference: ``fail`` or ``warn``.
    :param snapshots: how many of the latest snapshots are compared.
    :param report_path: where to write an HTML report: an ObjectStoragePath URL or an absolute path. It holds balances.
    :return: ``{lines, differing, snapshots, differences: [{account_id, currency, day, difference}]}``.
    :raises BalanceMismatch: there are differences, and `on_difference` is ``fail``.
    """
    if on_difference not in ("fail", "warn"):
        raise IntergiroValueError(f"`on_difference` must be 'fail' or 'warn', not {on_difference!r}")
    warehouse = open_warehouse(transactions, sql_conn_id, database, lock_timeout=lock_timeout)
    comparison = Comparison(warehouse, Target(accounts), include_pending, booked, pending, tolerance)
    problem = None
    try:
        with warehouse.session():
            lines, exponents = comparison.run(snapshots)
    except Exception as error:
        if (explained := warehouse.explain(error)) is None:
            raise
        problem = LoadError(f"reconciling {transactions} with {accounts}: {warehouse.step} failed: {explained}")
    if problem is not None:  # see steps.load
        raise problem
    differing = [line for line in lines if not line.agrees]
    log.info("%s", report.markdown(lines, transactions, accounts))
    if report_path is not None:
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
