# SPDX-License-Identifier: Apache-2.0
"""`python -m intergiro_provider`: the commands of `airflow intergiro`, which needs Airflow 3.2 or later."""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Iterable
from typing import Any

from intergiro_provider.cli.definition import get_intergiro_cli_commands


def parser() -> argparse.ArgumentParser:
    """Return a parser of the same commands, without those of Airflow."""
    [group] = get_intergiro_cli_commands()
    made = argparse.ArgumentParser(prog="python -m intergiro_provider", description=group.help)
    _add(made, group.subcommands)  # type: ignore[union-attr] # it is a group
    return made


def _add(parser: argparse.ArgumentParser, commands: Iterable[Any]) -> None:
    from airflow.cli.cli_config import GroupCommand

    subparsers = parser.add_subparsers(dest="subcommand", metavar="COMMAND", required=True)
    for command in commands:
        added = subparsers.add_parser(
            command.name, help=command.help, description=command.description or command.help, epilog=command.epilog
        )
        if isinstance(command, GroupCommand):
            _add(added, command.subcommands)
            continue
        for argument in command.args:
            argument.add_to_parser(added)
        added.set_defaults(func=command.func)


def main() -> None:
    """Run the command line."""
    import airflow.configuration  # noqa: F401 # it sets warning filters

    if not sys.warnoptions:
        # Deprecation warnings of Airflow itself.
        warnings.simplefilter("ignore")
    arguments = parser().parse_args()
    arguments.func(arguments)


if __name__ == "__main__":
    main()
