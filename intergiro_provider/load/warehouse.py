# SPDX-License-Identifier: Apache-2.0
"""The steps of a load that all engines share, in one transaction."""

from __future__ import annotations

import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from intergiro_provider.exceptions import IntergiroError, LoadError
from intergiro_provider.load import evolution, ledger
from intergiro_provider.load.ledger import LOADS, pulled_at
from intergiro_provider.load.source import Source
from intergiro_provider.load.target import Loaded, Target, literal, quoted
from intergiro_provider.pull.schema import Kind, Type

log = logging.getLogger(__name__)

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
    def fill(self, source: Source, columns: Mapping[str, Type]) -> int:
        """Put what the parts hold into the target, which is empty; return how many rows that are."""

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
    def load(self, source: Source) -> Loaded:
        """Make the table equal to the source, in one transaction.

        :raises LoadError: the engine refused a statement; nothing was changed.
        """
        problem = None
        try:
            began = time.monotonic()
            with self.session():
                loaded = self._load(source, began)
        except IntergiroError:
            raise
        except Exception as error:
            explained = self.explain(error)
            if explained is None:
                raise
            problem = LoadError(
                f"{self.target.name}: {self.step} failed: {explained}. The table is as it was before, and the task can "
                "be retried"
            )
        if problem is not None:  # outside of the handler: no error of the engine, which quotes rows, is its context
            raise problem
        return loaded

    def _load(self, source: Source, began: float) -> Loaded:
        manifest = source.manifest
        with self.doing("reading the ledger of loads"):
            have = self.columns(self.target.table)
            ledger.prepare(self, have is None)
            if (former := ledger.former_load(self, source)) is not None:
                return former
            ledger.refuse_conflicts(self, source)
        with self.doing("adapting the schema"):
            have, staged = evolution.adapt(self, have or {}, source.fields)
            stamp = (pulled_at(manifest.pull_id).isoformat(), manifest.pull_id)
            staged = staged or {name: type_ for name, type_ in have.items() if name == "id"}  # an empty pull
            if self.target.history and have:
                self._prepare_history(have)
        vanished = inserted = changed = 0
        if have and not self.target.history and self._is_empty():
            with self.doing("filling the table"):
                inserted = self.fill(source, staged)
        elif have:
            with self.doing("staging the rows"):
                self.stage(source, staged)
            with self.doing("deleting vanished rows"):
                vanished = self._delete_vanished(source, have, stamp)
            with self.doing("merging the rows"):
                inserted, changed = self.merge(have, staged, stamp)
        unchanged = manifest.rows - inserted - changed
        loaded = Loaded(
            self.target.name, manifest.pull_id, manifest.rows, inserted, changed, unchanged, vanished, source.replaced,
            seconds=round(time.monotonic() - began, 3),
        )  # fmt: skip
        with self.doing("writing the ledger of loads"):
            ledger.record(self, source, loaded)
        self.step = "committing"
        return loaded

    @contextmanager
    def doing(self, step: str) -> Iterator[None]:
        """Name a step for messages."""
        self.step = step
        yield

    def values(self, number: int) -> str:
        """Return so many marks of parameters."""
        return ", ".join([self.mark] * number)

    def _is_empty(self) -> bool:
        return self.execute(f"SELECT 1 FROM {self.target.table} LIMIT 1").fetchone() is None

    def lock_schema(self) -> None:  # noqa: B027 - an engine with one writer needs no more
        """Exclude others who would create the same tables."""

    def create(self, table: str, columns: Mapping[str, Type]) -> None:
        """Create the target."""
        described = ", ".join(f"{quoted(name)} {self.sql(type_)}" for name, type_ in columns.items())
        self.execute(f"CREATE TABLE {table} ({described})")

    def _prepare_history(self, columns: Mapping[str, Type]) -> None:
        """Create the history with what the table holds already."""
        if self.columns(self.target.history_table) is not None:
            return
        text, moment = self.types[Kind.STRING], self.types[Kind.MOMENT]
        described = ", ".join(f"{quoted(name)} {self.sql(type_)}" for name, type_ in columns.items())
        self.execute(
            f"CREATE TABLE {self.target.history_table} ({described}, _valid_from {moment}, _pull_id {text}, "
            f"_operation {text})"
        )
        last = self.execute(
            f"SELECT max(pull_id) FROM {self.target.beside(LOADS)} WHERE table_name = {self.mark}", self.target.bare
        ).fetchone()[0]
        if last is not None:
            self.append_history(columns, self.target.table, (pulled_at(last).isoformat(), last), "insert")

    def append_history(
        self, columns: Mapping[str, Type], rows: str, stamp: tuple[str, str], operation: str, before: str = ""
    ) -> int:
        """Append rows to the history; return how many.

        :param rows: what stands after FROM. :param before: what stands before INSERT.
        """
        names = ", ".join(map(quoted, columns))
        return self.count(
            f"{before}INSERT INTO {self.target.history_table} ({names}, _valid_from, _pull_id, _operation) "
            f"SELECT {names}, CAST({literal(stamp[0])} AS {self.types[Kind.MOMENT]}), {literal(stamp[1])}, "
            f"{literal(operation)} FROM {rows}"
        )

    def _delete_vanished(self, source: Source, have: Mapping[str, Type], stamp: tuple[str, str]) -> int:
        """Delete what lies in the interval and was not pulled."""
        manifest = source.manifest
        if source.filters != {}:
            return 0
        gone = f'NOT EXISTS (SELECT 1 FROM {STAGE} s WHERE s."id" = t."id")'
        if manifest.created_from is not None and manifest.created_to is not None:
            if have.get("created_at") is not Kind.MOMENT:
                log.warning(
                    "%s: `created_at` is no timestamp, so records that the bank has no longer stay", self.target.name
                )
                return 0
            gone += "".join(
                f' AND t."created_at" {sign} CAST({literal(bound)} AS {self.types[Kind.MOMENT]})'
                for sign, bound in ((">=", manifest.created_from), ("<", manifest.created_to))
            )
        if self.target.history:
            self.append_history(have, f"{self.target.table} t WHERE {gone}", stamp, "delete")
        return self.count(f"DELETE FROM {self.target.table} t WHERE {gone}")
