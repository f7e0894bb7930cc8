# SPDX-License-Identifier: Apache-2.0
"""The interface to a database for loads and reconciliations; :mod:`.postgres` and :mod:`.duck` implement it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from intergiro_provider.exceptions import LoadError
from intergiro_provider.load.source import Source
from intergiro_provider.load.target import Target, is_fit, literal, quoted
from intergiro_provider.pull.schema import Kind, Type

STAGE = "_intergiro_stage"


class Warehouse(ABC):
    """One connection to one engine, for one load.

    :param target: the table to load into.
    """

    mark = "?"
    """The placeholder of a parameter in a statement."""
    types: Mapping[Kind, str]

    def __init__(self, target: Target) -> None:
        self.target = target
        self.step = "connecting"
        """The current step, for messages."""

    # Each engine implements these -------------------------------------------------------------------------------------
    @abstractmethod
    def execute(self, statement: str, *parameters: Any) -> Any:
        """Run a statement; return its cursor."""

    @abstractmethod
    def count(self, statement: str, *parameters: Any) -> int:
        """Run a statement that changes rows; return their number."""

    @abstractmethod
    def session(self) -> Any:
        """Return a context manager that connects, begins and locks; it commits, or rolls back after an exception."""

    @abstractmethod
    def dataset(self) -> tuple[str, str]:
        """Return the namespace and the name of the table for OpenLineage."""

    @abstractmethod
    def columns(self, table: str) -> dict[str, Type] | None:
        """Return the columns of a table (its quoted name) in their order; None if there is no such table."""

    @abstractmethod
    def normal(self, type_: Type) -> Type:
        """Return the type that this engine's columns can have; :attr:`Kind.NULL` for no column."""

    @abstractmethod
    def sql(self, type_: Type) -> str:
        """Return the engine's name of a type."""

    @abstractmethod
    def converted(self, column: str, had: Type, wanted: Type) -> str:
        """Return an expression that casts a (quoted) column from one type to a wider one."""

    @abstractmethod
    def stage(self, source: Source, columns: Mapping[str, Type]) -> None:
        """Fill :data:`STAGE` with the parts, in these columns of the target."""

    @abstractmethod
    def fill(self, source: Source, columns: Mapping[str, Type]) -> bool:
        """Insert the parts into the target, which has no rows in the pull's interval.

        :return: False, with the target unchanged, if an id occurs twice. Then :meth:`stage` is called.
        """

    @abstractmethod
    def merge(self, columns: Mapping[str, Type], staged: Mapping[str, Type], stamp: tuple[str, str]) -> tuple[int, int]:
        """Merge the staged rows into the target; return the numbers of inserted and changed rows.

        :param columns: of the target. :param staged: the staged ones; the others become NULL.
        :param stamp: `_valid_from` and `_pull_id` for the history.
        """

    @abstractmethod
    def explain(self, error: Exception) -> str | None:
        """Return the text of an engine's error, without any value of a row; None for other errors."""

    # All engines share these ------------------------------------------------------------------------------------------
    @contextmanager
    def doing(self, step: str) -> Iterator[None]:
        """Set the current step, for messages."""
        self.step = step
        yield

    def values(self, number: int) -> str:
        """Return this number of placeholders."""
        return ", ".join([self.mark] * number)

    def lock_schema(self) -> None:  # noqa: B027 - an engine with one writer needs no more
        """Exclude other processes that would create the same tables."""

    def accepts(self, name: str, columns: Collection[str]) -> bool:
        """Return whether a table with these columns can have a new one with this name."""
        return is_fit(name)

    def create(self, table: str, columns: Mapping[str, Type]) -> None:
        """Create the target."""
        described = ", ".join(self.column(name, type_) for name, type_ in columns.items())
        self.execute(f"CREATE TABLE {table} ({described})")

    def column(self, name: str, type_: Type) -> str:
        """Return the declaration of a column."""
        return f"{quoted(name)} {self.sql(type_)}"

    def refuse_repeated_ids(self) -> None:
        """Check the staged rows.

        :raises LoadError: an id is there twice, or is missing.
        """
        rows, ids, distinct = self.execute(
            f"SELECT count(*), count(id), (SELECT count(*) FROM (SELECT DISTINCT id FROM {STAGE} WHERE id IS NOT NULL) "
            f"d) FROM {STAGE}"
        ).fetchone()
        if ids < rows:
            raise LoadError(f"{self.target.name}: the pull holds {rows - ids} record(s) without an id; pull again")
        if distinct < rows:
            raise LoadError(
                f"{self.target.name}: the pull holds {rows - distinct} record(s) twice; pull the interval again"
            )

    def append_history(
        self, columns: Mapping[str, Type], rows: str, stamp: tuple[str, str], operation: str, before: str = ""
    ) -> int:
        """Append rows to the history; return how many.

        :param rows: what stands after FROM. :param before: what stands before INSERT.
        """
        names = ", ".join(map(quoted, columns))
        return self.count(
            f"{before}INSERT INTO {self.target.history_table} ({names}, _valid_from, _pull_id, _operation) "
            f"SELECT {names}, CAST({literal(stamp[0])} AS {self.types[Kind.TIMESTAMP]}), {literal(stamp[1])}, "
            f"{literal(operation)} FROM {rows}"
        )
