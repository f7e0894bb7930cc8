# SPDX-License-Identifier: Apache-2.0
"""The commands, their arguments and their help.

Airflow 3.2 and later imports this module at every start of `airflow`. So it imports nothing heavy, and a command's
function is imported when the command runs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow.cli.cli_config import CLICommand

_COMMANDS = "intergiro_provider.cli.commands."


def get_intergiro_cli_commands() -> list[CLICommand]:
    """Return the group `intergiro`. Airflow prints the lines of a description as they are."""
    from airflow.cli.cli_config import ActionCommand, Arg, GroupCommand, lazy_load_command

    argument: Any = Arg  # it has no types
    conn_id = argument(
        ("-c", "--conn-id"),
        default="intergiro_default",
        metavar="CONN_ID",
        help="Connection of type intergiro (default: intergiro_default)",
    )
    output = argument(
        ("-o", "--output"), choices=("text", "json"), default="text", help="Format: text for people, json for scripts"
    )
    yes = argument(("-y", "--yes"), action="store_true", help="Do not ask for confirmation")
    force = argument(
        ("-f", "--force"),
        action="store_true",
        help="Reset even if a renewal seems to be in progress (its tokens are lost), or if no login is left",
    )
    login = argument(
        ("--login",),
        action="store_true",
        help="Also log in, to test the API key. The bank counts this login; its tokens are not stored",
    )
    session = GroupCommand(
        name="session",
        help="The bank session that all tasks share",
        subcommands=(
            ActionCommand(
                name="show",
                help="Show the stored session",
                description="Show the stored session: the connections that share it, its generation and age,\n"
                "who wrote it, the logins of the last hour, the lease and the lock. Also list the\n"
                "sessions of former API keys. It shows no token and sends nothing to the bank.",
                func=lazy_load_command(_COMMANDS + "session_show"),
                args=(conn_id, output),
            ),
            ActionCommand(
                name="renew",
                help="Test the session at the bank, and renew it after a 401",
                description="Request one record of a list, which is not shown. If the bank returns 401, renew\n"
                "the session as a task does: within the login budget and under the same locks.\n"
                "If no session is stored, log in.",
                func=lazy_load_command(_COMMANDS + "session_renew"),
                args=(conn_id, output),
            ),
            ActionCommand(
                name="reset",
                help="Delete the session; the next task logs in",
                description="Delete the stored session, also a broken one. That costs one login. The login\n"
                "history stays, so a reset does not raise the login budget.",
                func=lazy_load_command(_COMMANDS + "session_reset"),
                args=(conn_id, output, yes, force),
            ),
            ActionCommand(
                name="prune",
                help="Delete the sessions of former API keys",
                description="Delete the stored sessions that no connection uses any more. The session of the\n"
                "named connection and of every connection that can be listed or found stays.\n"
                "Connections in a secrets backend cannot be listed; those that used a session are\n"
                "looked up by their ids, which are stored with it.",
                func=lazy_load_command(_COMMANDS + "session_prune"),
                args=(conn_id, output, yes),
            ),
        ),
    )
    check = ActionCommand(
        name="check",
        help="Check whether this deployment is set up correctly",
        description="Check the connection, encryption, the Variables, the lock, and how fast Airflow and\n"
        "the bank respond, as seen from this machine. Run it where tasks run. It does not log\n"
        "in, unless you ask for it. The exit status is 1 if there is an error.",
        func=lazy_load_command(_COMMANDS + "check"),
        args=(conn_id, output, login),
    )
    return [
        GroupCommand(
            name="intergiro",
            help="Intergiro: the shared session, and checks of the set-up",
            subcommands=(session, check),
        )
    ]
