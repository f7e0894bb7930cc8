# SPDX-License-Identifier: Apache-2.0
"""The steps of a load that all engines share, in one transaction."""

from __future__ import annotations

import logging
import re
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec

from intergiro_provider import __version__
from intergiro_provider.exceptions import IntergiroError, IntergiroValueError, LoadError
from intergiro_provider.load import amounts
from intergiro_provider.load.source import Source, plain
from intergiro_provider.pull.schema import Kind, ListOf, StructOf, Type, unite

log = logging.getLogger(__name__)

LOADS = "_intergiro_loads"
"""The ledger of loads: one row for each pull that is in a table."""
STAGE = "_intergiro_stage"
ON_NEW_FIELD = ("add", "ignore", "fail")
LOCK_TIMEOUT = 300.0

_TABLE = re.compile(r"(?:([a-z_][a-z0-9_]{0,62})\.)?([a-z_][a-z0-9_]{0,47})")
_PULL_TIME = "%Y%m%dT%H%M%S%f"


@dataclass(frozen=True)
class Loaded:
    """What a load has done.

    :param rows: records of the pull. :param vanished: rows that were deleted, because the bank no longer has them.
    :param replaced: characters that the warehouse cannot store, and that became U+FFFD.
    :param already: whether the pull was in the table before; then all other figures are those of that load.
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
    """A table to load into.

    :param name: ``table`` or ``schema.table``, in lower case.
    :param history: whether versions of rows are appended to ``<table>_history``.
    :param on_new_field: ``add``, ``ignore`` or ``fail``.
    :raises IntergiroValueError: one of them cannot be.
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
        """The quoted name of the table with former versions."""
        return self.beside(f"{self.bare}_history")


def quoted(name: str) -> str:
    """Return an identifier in quotation marks."""
    return '"' + name.replace('"', '""') + '"'


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
            self._prepare_ledger(have is None)
            if (former := self._former(source)) is not None:
                return former
            self._refuse_conflicts(source)
        with self.doing("adapting the schema"):
            have, staged = self._adapt(have or {}, source.fields)
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
            self._record(source, loaded)
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

    def _prepare_ledger(self, is_new: bool) -> None:
        ledger = self.target.beside(LOADS)
        if self.columns(ledger) is None:
            self.lock_schema()
            text, moment, whole = self.types[Kind.STRING], self.types[Kind.MOMENT], self.types[Kind.INTEGER]
            self.execute(
                f"CREATE TABLE IF NOT EXISTS {ledger} (table_name {text}, pull_id {text}, endpoint {text}, "
                f"created_from {moment}, created_to {moment}, query {text}, rows {whole}, inserted {whole}, "
                f"changed {whole}, unchanged {whole}, vanished {whole}, replaced {whole}, "
                f"loaded_at {moment}, provider_version {text}, "
                "PRIMARY KEY (table_name, pull_id))"
            )
            amounts.create_currencies(self)
        elif is_new:
            self.execute(f"DELETE FROM {ledger} WHERE table_name = {self.mark}", self.target.bare)

    def lock_schema(self) -> None:  # noqa: B027 - an engine with one writer needs no more
        """Exclude others who would create the same tables."""

    def _former(self, source: Source) -> Loaded | None:
        found = self.execute(
            f"SELECT rows, inserted, changed, unchanged, vanished, replaced FROM {self.target.beside(LOADS)} "
            f"WHERE table_name = {self.mark} AND pull_id = {self.mark}",
            self.target.bare,
            source.manifest.pull_id,
        ).fetchone()
        if found is None:
            return None
        inserted, changed, unchanged, vanished, replaced = found[1:]
        return Loaded(
            self.target.name, source.manifest.pull_id, found[0], inserted, changed, unchanged, vanished, replaced, True
        )

    def _refuse_conflicts(self, source: Source) -> None:
        """Refuse a pull that does not belong into the table, or no longer."""
        manifest = source.manifest
        found = self.execute(
            f"SELECT pull_id, endpoint, created_from, created_to, query FROM {self.target.beside(LOADS)} "
            f"WHERE table_name = {self.mark} ORDER BY pull_id DESC",
            self.target.bare,
        ).fetchall()
        for pull_id, endpoint, created_from, created_to, query in found:
            if _list_of(endpoint) != _list_of(manifest.endpoint):
                raise IntergiroValueError(
                    f"`table`: {self.target.name} holds the list {_list_of(endpoint)}, and {manifest.pull_id} is a "
                    f"pull of {_list_of(manifest.endpoint)}; give each list a table of its own"
                )
            if pull_id > manifest.pull_id and _overlap(source, created_from, created_to, query):
                raise IntergiroValueError(
                    f"`path`: {self.target.name} already holds the newer pull {pull_id} of an overlapping interval, so "
                    f"the pull {manifest.pull_id} is not loaded. Pull the interval again to get its present state"
                )

    def _adapt(self, have: dict[str, Type], fields: Mapping[str, Type]) -> tuple[dict[str, Type], dict[str, Type]]:
        """Make the table fit; return its columns, and those of them that the source fills."""
        columns, new = dict(have), []
        staged: dict[str, Type] = {}
        for name, found in fields.items():
            type_: Type = self.normal(found)
            if type_ is Kind.NULL:
                continue
            if name not in have:
                new.append(name)
                if not have or self.target.on_new_field == "add":
                    columns[name] = staged[name] = type_
                continue
            if have[name] is Kind.INTEGER and type_ is Kind.DOUBLE and self._is_small(name):
                have[name] = Kind.SMALL
            wide = self.normal(unite(have[name], type_))
            if added := _added_names(have[name], wide):
                new += [f"{name}.{each}" for each in added]
                if self.target.on_new_field != "add":
                    wide = _without_new(wide, have[name])
            columns[name] = staged[name] = wide
        if have:
            self._mention(new)
        self._alter(have, columns)
        return columns, staged

    def _mention(self, new: list[str]) -> None:
        if not new:
            return
        names = ", ".join(new)
        if self.target.on_new_field == "fail":
            raise IntergiroValueError(
                f"`on_new_field` is 'fail', and {self.target.name} has no column for {names}; use 'add' or 'ignore'"
            )
        what = "get columns" if self.target.on_new_field == "add" else "are not loaded"
        log.warning("%s: new fields %s: %s", self.target.name, what, names)

    def _is_empty(self) -> bool:
        return self.execute(f"SELECT 1 FROM {self.target.table} LIMIT 1").fetchone() is None

    def _is_small(self, column: str) -> bool:
        """Whether a double holds every integer of a column."""
        name = quoted(column)
        limits = self.execute(f"SELECT min({name}), max({name}) FROM {self.target.table}").fetchone()
        return all(limit is None or abs(limit) <= 2**53 for limit in limits)

    def _alter(self, have: Mapping[str, Type], columns: Mapping[str, Type]) -> None:
        if not have:
            if columns:
                self.create(self.target.table, columns)
                amounts.create_view(self, columns)
            return
        changes = {
            name: type_
            for name, type_ in columns.items()
            if name not in have or self.sql(have[name]) != self.sql(type_)
        }
        if not changes:
            return
        history = self.columns(self.target.history_table)
        if not changes.keys().isdisjoint(have):
            amounts.drop_view(self)
        for table, there in ((self.target.table, have), (self.target.history_table, history)):
            if there is None:
                continue
            for name, type_ in changes.items():
                self._change_column(table, name, there.get(name), type_)
        amounts.create_view(self, columns)

    def _change_column(self, table: str, name: str, had: Type | None, wanted: Type) -> None:
        column, sql = quoted(name), self.sql(wanted)
        if had is None:
            self.execute(f"ALTER TABLE {table} ADD COLUMN {column} {sql}")
        else:
            using = self.converted(column, had, wanted)
            log.warning("%s: the column %s becomes %s", self.target.name, name, sql)
            self.execute(f"ALTER TABLE {table} ALTER COLUMN {column} TYPE {sql} USING {using}")

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

    def _record(self, source: Source, loaded: Loaded) -> None:
        manifest = source.manifest
        query = None if manifest.query is None else plain(manifest.query)
        self.execute(
            f"INSERT INTO {self.target.beside(LOADS)} (table_name, pull_id, endpoint, created_from, created_to, query, "
            "rows, inserted, changed, unchanged, vanished, replaced, loaded_at, provider_version) "
            f"VALUES ({self.values(14)})",
            self.target.bare, manifest.pull_id, manifest.endpoint, manifest.created_from, manifest.created_to, query,
            loaded.rows, loaded.inserted, loaded.changed, loaded.unchanged, loaded.vanished, loaded.replaced,
            datetime.now(UTC), __version__,
        )  # fmt: skip


def literal(text: str) -> str:
    """Return a string literal."""
    return "'" + text.replace("'", "''") + "'"


def pulled_at(pull_id: str) -> datetime:
    """Return when a pull began, which its id says."""
    return datetime.strptime(pull_id.partition("-")[0], _PULL_TIME).replace(tzinfo=UTC)


def _list_of(endpoint: str) -> str:
    return re.sub(r"^/?(?:v\d+/)?", "", endpoint.partition("?")[0]).rstrip("/")


def _overlap(source: Source, created_from: datetime | None, created_to: datetime | None, query: str | None) -> bool:
    """Whether a pull, as the ledger has it, can have records of the source."""
    manifest = source.manifest
    if created_from is not None and created_to is not None and manifest.created_from and manifest.created_to:
        if not (
            datetime.fromisoformat(manifest.created_from) < created_to
            and created_from < datetime.fromisoformat(manifest.created_to)
        ):
            return False
    # The account of a record never changes, as its status may: two pulls of different accounts have nothing in common.
    other = msgspec.json.decode(query) if query else {}
    mine, theirs = (_accounts(each) for each in (manifest.query or {}, other))
    return mine is None or theirs is None or not mine.isdisjoint(theirs)


def _accounts(query: Mapping[str, Any]) -> set[str] | None:
    named = query.get("account_ids")
    if isinstance(named, str):
        return set(named.split(","))
    return set(map(str, named)) if isinstance(named, list) else None


def _added_names(had: Type, wide: Type) -> list[str]:
    """The fields of nested objects that are new."""
    if isinstance(had, StructOf) and isinstance(wide, StructOf):
        return [
            f"{name}.{inner}" if inner else name
            for name, type_ in wide.fields.items()
            for inner in ([""] if name not in had.fields else _added_names(had.fields[name], type_))
        ]
    if isinstance(had, ListOf) and isinstance(wide, ListOf):
        return _added_names(had.element, wide.element)
    return []


def _without_new(wide: Type, had: Type) -> Type:
    if isinstance(had, StructOf) and isinstance(wide, StructOf):
        return StructOf({name: _without_new(wide.fields[name], inner) for name, inner in had.fields.items()})
    if isinstance(had, ListOf) and isinstance(wide, ListOf):
        return ListOf(_without_new(wide.element, had.element))
    return wide
