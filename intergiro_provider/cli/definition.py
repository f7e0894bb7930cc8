# SPDX-License-Identifier: Apache-2.0
"""The commands, their arguments and their help.

Airflow (3.2 and later) imports this module at every start of `airflow`, for whatever command: it imports nothing, and
the commands themselves are imported when they are run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow.cli.cli_config import CLICommand

_COMMANDS = "intergiro_provider.cli.commands."


def get_intergiro_cli_commands() -> list[CLICommand]:
    """The group `intergiro`, as Airflow wants it. Its formatter leaves the lines of a description as they are."""
    from airflow.cli.cli_config import ActionCommand, Arg, GroupCommand, lazy_load_command

    argument: Any = Arg  # it has no types
    conn_id = argument(
        ("-c", "--conn-id"),
        default="intergiro_default",
        metavar="CONN_ID",
        help="Connection of type intergiro (default: intergiro_default)",
    )
    output = argument(("-o", "--output"), choices=("text", "json"), default="text", help="For people or for scripts")
    yes = argument(("-y", "--yes"), action="store_true", help="Do not ask for confirmation")
    force = argument(
        ("-f", "--force"),
        action="store_true",
        help="Reset even if a renewal seems to be under way, whose tokens may be lost, or if no login is left",
    )
    login = argument(
        ("--login",),
        action="store_true",
        help="Also try the API key by logging in. The bank counts it as a login; nothing of it is kept",
    )
    session = GroupCommand(
        name="session",
        help="The bank session that all tasks share",
        subcommands=(
            ActionCommand(
                name="show",
                help="Show what is stored of the session",
                description="Show what is stored of the session: its generation and ages, who wrote it,\n"
                "the logins of the last hour, the lease and the lock. Never a token. The bank is\nnot asked.",
                func=lazy_load_command(_COMMANDS + "session_show"),
                args=(conn_id, output),
            ),
            ActionCommand(
                name="renew",
                help="Ask the bank, and renew the session if it answers 401",
                description="Ask the bank for one record of a list, which is not shown. If it answers 401, renew\n"
                "the session just as a task would: within the login budget, under the same locks.\n"
                "Where no session is stored, log in.",
                func=lazy_load_command(_COMMANDS + "session_renew"),
                args=(conn_id, output),
            ),
            ActionCommand(
                name="reset",
                help="Forget the session; the next task logs in",
                description="Delete the session's Variable, whatever is in it. That costs one login. The ledger\n"
                "of logins stays, so a reset is no way around the login budget.",
                func=lazy_load_command(_COMMANDS + "session_reset"),
                args=(conn_id, output, yes, force),
            ),
        ),
    )
    check = ActionCommand(
        name="check",
        help="Check whether this deployment is set up soundly",
        description="Check the connection, encryption, the Variables, the lock, and how quickly Airflow\n"
        "and the bank answer. It sees what this machine sees: run it where tasks run. It does\n"
        "not log in. The exit status is 1 where there is an error.",
        func=lazy_load_command(_COMMANDS + "check"),
        args=(conn_id, output, login),
    )
    return [
        GroupCommand(name="intergiro", help="The Intergiro bank: its session and set-up", subcommands=(session, check))
    ]
