# SPDX-License-Identifier: Apache-2.0
"""The target table of a load, the result of a load, and SQL names."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import Any

from intergiro_provider.exceptions import IntergiroValueError

ON_NEW_FIELD = ("add", "ignore", "fail")
OWN_COLUMNS = ("_valid_from", "_pull_id", "_operation", "_is_new")

_TABLE = re.compile(r"(?:([a-z_][a-z0-9_]{0,62})\.)?([a-z_][a-z0-9_]{0,47})")
_UNFIT = re.compile(r"\0|\\u[dD]")  # NUL, and half of a surrogate pair as a manifest spells it


@dataclass(frozen=True)
class Loaded:
    """The result of a load.

    :param rows: records of the pull. :param vanished: rows that were deleted because the bank no longer lists them.
    :param replaced: characters that the warehouse cannot store and that became U+FFFD.
    :param already: whether the pull had been loaded before; then the other figures are those of that load.
    """

    table: str
    pull_id: str
    rows: int
    inserted: int
    changed: int
    unchanged: int
    vanished: int
    replaced: int = 0
    already: bool = False
    seconds: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return the same in plain types."""
        return asdict(self)


@dataclass(frozen=True)
class Target:
    """The target table.

    :param name: ``table`` or ``schema.table``, in lower case.
    :param history: whether versions of rows are appended to ``<table>_history``.
    :param on_new_field: ``add``, ``ignore`` or ``fail``.
    :raises IntergiroValueError: an argument is not valid.
    """

    name: str
    history: bool = False
    on_new_field: str = "add"

    def __post_init__(self) -> None:
        if not _TABLE.fullmatch(self.name):
            raise IntergiroValueError(
                f"`table` must be `name` or `schema.name`, in lower-case letters, digits and underscores, with at most "
                f"48 characters in the name, not {self.name!r}"
            )
        if self.on_new_field not in ON_NEW_FIELD:
            raise IntergiroValueError(
                f"`on_new_field` must be one of {', '.join(map(repr, ON_NEW_FIELD))}, not {self.on_new_field!r}"
            )

    @property
    def schema(self) -> str | None:
        """The schema, if the name has one."""
        return self.name.rpartition(".")[0] or None

    def beside(self, name: str) -> str:
        """Return the quoted name of another table in the same schema."""
        return ".".join(map(quoted, filter(None, (self.schema, name))))

    @property
    def table(self) -> str:
        """The quoted name."""
        return self.beside(self.bare)

    @property
    def bare(self) -> str:
        """The name without its schema."""
        return self.name.rpartition(".")[2]

    @property
    def history_table(self) -> str:
        """The quoted name of the history table."""
        return self.beside(f"{self.bare}_history")


def is_fit(name: str) -> bool:
    """Return whether a name in a record can be the name of a column, or of a field inside of one."""
    return bool(name) and name not in OWN_COLUMNS and _UNFIT.search(name) is None


def quoted(name: str) -> str:
    """Return an identifier in quotation marks."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """Return a string literal."""
    return "'" + text.replace("'", "''") + "'"
