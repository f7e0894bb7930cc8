# SPDX-License-Identifier: Apache-2.0
"""What a load and a reconciliation need of a database; :mod:`.postgres` and :mod:`.duck` implement it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from intergiro_provider.load.source import Source
from intergiro_provider.load.target import Target, literal, quoted
from intergiro_provider.pull.schema import Kind, Type

STAGE = "_intergiro_stage"


class Warehouse(ABC):
    """One connection to one engine, for one load.

    :param target: where to.
    """

    mark = "?"
    """What stands for a parameter in a statement."""
    types: Mapping[Kind, str]

    def __init__(self, target: Target) -> None:
        self.target = target
        self.step = "connecting"
        """What is being done, for messages."""

    # What an engine has to know ---------------------------------------------------------------------------------------
    @abstractmethod
    def execute(self, statement: str, *parameters: Any) -> Any:
        """Run a statement; return its cursor."""

    @abstractmethod
    def count(self, statement: str, *parameters: Any) -> int:
        """Run a statement that changes rows; return how many."""

    @abstractmethod
    def session(self) -> Any:
        """Return a context manager: connect, begin and lock; commit, or roll back after an exception."""

    @abstractmethod
    def dataset(self) -> tuple[str, str]:
        """Return the namespace and the name of the table for OpenLineage."""

    @abstractmethod
    def columns(self, table: str) -> dict[str, Type] | None:
        """Return the columns of a table (its quoted name) in their order; None if there is no such table."""

    @abstractmethod
    def normal(self, type_: Type) -> Type:
        """Return the type as this engine's columns can have it; :attr:`Kind.NULL` for no column."""

    @abstractmethod
    def sql(self, type_: Type) -> str:
        """Return the engine's name of a type."""

    @abstractmethod
    def converted(self, column: str, had: Type, wanted: Type) -> str:
        """Return an expression for a (quoted) column of one type as another, wider one."""

    @abstractmethod
    def stage(self, source: Source, columns: Mapping[str, Type]) -> None:
        """Fill :data:`STAGE` with what the parts hold, in these columns of the target."""

    @abstractmethod
    def fill(self, source: Source, columns: Mapping[str, Type]) -> bool:
        """Put what the parts hold into the target, which has no rows in the pull's interval.

        :return: False, and the target is as before, if an id is there twice: :meth:`stage` comes next.
        """

    @abstractmethod
    def merge(self, columns: Mapping[str, Type], staged: Mapping[str, Type], stamp: tuple[str, str]) -> tuple[int, int]:
        """Bring the staged rows into the target; return how many were inserted, and how many changed.

        :param columns: of the target. :param staged: those that are staged; the others become NULL.
        :param stamp: `_valid_from` and `_pull_id` for the history.
        """

    @abstractmethod
    def explain(self, error: Exception) -> str | None:
        """Return what an error of the engine is, without any value of a row; None if it is none of the engine's."""

    # What all do alike ------------------------------------------------------------------------------------------------
    @contextmanager
    def doing(self, step: str) -> Iterator[None]:
        """Name a step for messages."""
        self.step = step
        yield

    def values(self, number: int) -> str:
        """Return so many marks of parameters."""
        return ", ".join([self.mark] * number)

    def lock_schema(self) -> None:  # noqa: B027 - an engine with one writer needs no more
        """Exclude others who would create the same tables."""

    def create(self, table: str, columns: Mapping[str, Type]) -> None:
        """Create the target."""
        described = ", ".join(self.column(name, type_) for name, type_ in columns.items())
        self.execute(f"CREATE TABLE {table} ({described})")

    def column(self, name: str, type_: Type) -> str:
        """Return how a column is declared."""
        return f"{quoted(name)} {self.sql(type_)}"

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
