# SPDX-License-Identifier: Apache-2.0
"""The functions of the commands. Each imports its modules when it runs."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable

from airflow.utils.cli import action_cli

from intergiro_provider.cli.output import Result, command

_recorded: Callable[[Callable[[Namespace], Result]], Callable[[Namespace], Result]] = action_cli(check_db=False)  # type: ignore[no-untyped-call]
"""Records in Airflow's audit log who ran the command."""


@command
def session_show(args: Namespace) -> Result:
    """Run `session show`."""
    from intergiro_provider.cli.show import show

    return show(args.conn_id)


@command
@_recorded
def session_renew(args: Namespace) -> Result:
    """Run `session renew`."""
    from intergiro_provider.cli.renew import renew

    return renew(args.conn_id)


@command
@_recorded
def session_reset(args: Namespace) -> Result:
    """Run `session reset`."""
    from intergiro_provider.cli.removal import reset

    return reset(args.conn_id, confirmed=args.yes, force=args.force)


@command
@_recorded
def session_prune(args: Namespace) -> Result:
    """Run `session prune`."""
    from intergiro_provider.cli.removal import prune

    return prune(args.conn_id, confirmed=args.yes)


@command
def check(args: Namespace) -> Result:
    """Run `check`."""
    from intergiro_provider.cli.check import check

    return check(args.conn_id, login=args.login)
