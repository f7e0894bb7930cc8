# SPDX-License-Identifier: Apache-2.0
"""What each command runs: imported when it is run, and what it needs only then."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable

from airflow.utils.cli import action_cli

from intergiro_provider.cli.output import Result, run

_recorded: Callable[[Callable[[Namespace], None]], Callable[[Namespace], None]] = action_cli(check_db=False)  # type: ignore[no-untyped-call]
"""Enters who ran the command into Airflow's audit log."""


def session_show(args: Namespace) -> None:
    """`session show`"""
    from intergiro_provider.cli.session import show

    run(args, lambda: show(args.conn_id))


@_recorded
def session_renew(args: Namespace) -> None:
    """`session renew`"""
    from intergiro_provider.cli.session import renew

    run(args, lambda: renew(args.conn_id))


@_recorded
def session_reset(args: Namespace) -> None:
    """`session reset`"""
    from intergiro_provider.cli.session import reset

    run(args, lambda: reset(args.conn_id, confirmed=args.yes, force=args.force))


def check(args: Namespace) -> None:
    """`check`"""

    def look() -> Result:
        from intergiro_provider.cli.check import check

        return check(args.conn_id, login=args.login)

    run(args, look)
