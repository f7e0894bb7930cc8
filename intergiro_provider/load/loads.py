# SPDX-License-Identifier: Apache-2.0
"""The table ``_intergiro_loads``: one row for each pull that was loaded into a table of the same schema."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec

from intergiro_provider import __version__
from intergiro_provider.exceptions import IntergiroValueError
from intergiro_provider.load import amounts
from intergiro_provider.load.source import Source, plain
from intergiro_provider.load.target import Loaded
from intergiro_provider.load.warehouse import Warehouse
from intergiro_provider.pull.schema import Kind

LOADS = "_intergiro_loads"
_PULL_TIME = "%Y%m%dT%H%M%S%f"


def prepare(warehouse: Warehouse, is_new: bool) -> None:
    loads = warehouse.target.beside(LOADS)
    if warehouse.columns(loads) is None:
        warehouse.lock_schema()
        text, moment, whole = warehouse.types[Kind.STRING], warehouse.types[Kind.TIMESTAMP], warehouse.types[Kind.INT64]
        warehouse.execute(
            f"CREATE TABLE IF NOT EXISTS {loads} (table_name {text}, pull_id {text}, endpoint {text}, "
            f"created_from {moment}, created_to {moment}, query {text}, rows {whole}, inserted {whole}, "
            f"changed {whole}, unchanged {whole}, vanished {whole}, replaced {whole}, "
            f"loaded_at {moment}, provider_version {text}, "
            "PRIMARY KEY (table_name, pull_id))"
        )
        amounts.create_currencies(warehouse)
    elif is_new:
        warehouse.execute(f"DELETE FROM {loads} WHERE table_name = {warehouse.mark}", warehouse.target.bare)


def former_load(warehouse: Warehouse, source: Source) -> Loaded | None:
    found = warehouse.execute(
        f"SELECT rows, inserted, changed, unchanged, vanished, replaced FROM {warehouse.target.beside(LOADS)} "
        f"WHERE table_name = {warehouse.mark} AND pull_id = {warehouse.mark}",
        warehouse.target.bare,
        source.manifest.pull_id,
    ).fetchone()
    if found is None:
        return None
    inserted, changed, unchanged, vanished, replaced = found[1:]
    return Loaded(
        warehouse.target.name, source.manifest.pull_id, found[0], inserted, changed, unchanged, vanished, replaced, True
    )


def refuse_conflicts(warehouse: Warehouse, source: Source) -> None:
    """Refuse a pull of another list, or one that is older than a loaded pull."""
    manifest = source.manifest
    found = warehouse.execute(
        f"SELECT pull_id, endpoint, created_from, created_to, query FROM {warehouse.target.beside(LOADS)} "
        f"WHERE table_name = {warehouse.mark} ORDER BY pull_id DESC",
        warehouse.target.bare,
    ).fetchall()
    for pull_id, endpoint, created_from, created_to, query in found:
        if _list_of(endpoint) != _list_of(manifest.endpoint):
            raise IntergiroValueError(
                f"`table`: {warehouse.target.name} holds the list {_list_of(endpoint)}, and {manifest.pull_id} is a "
                f"pull of {_list_of(manifest.endpoint)}; use one table per list"
            )
        if pull_id > manifest.pull_id and _overlap(source, created_from, created_to, query):
            raise IntergiroValueError(
                f"`path`: {warehouse.target.name} already holds the newer pull {pull_id} of an overlapping interval, "
                f"so the pull {manifest.pull_id} is not loaded. Pull the interval again to get its current state"
            )


def record(warehouse: Warehouse, source: Source, loaded: Loaded) -> None:
    manifest = source.manifest
    query = None if manifest.query is None else plain(manifest.query)
    warehouse.execute(
        f"INSERT INTO {warehouse.target.beside(LOADS)} (table_name, pull_id, endpoint, created_from, created_to, "
        "query, rows, inserted, changed, unchanged, vanished, replaced, loaded_at, provider_version) "
        f"VALUES ({warehouse.values(14)})",
        warehouse.target.bare, manifest.pull_id, manifest.endpoint, manifest.created_from, manifest.created_to, query,
        loaded.rows, loaded.inserted, loaded.changed, loaded.unchanged, loaded.vanished, loaded.replaced,
        datetime.now(UTC), __version__,
    )  # fmt: skip


def pulled_at(pull_id: str) -> datetime:
    """Return when a pull began, from its id."""
    return datetime.strptime(pull_id.partition("-")[0], _PULL_TIME).replace(tzinfo=UTC)


def _list_of(endpoint: str) -> str:
    return re.sub(r"^/?(?:v\d+/)?", "", endpoint.partition("?")[0]).rstrip("/")


def _overlap(source: Source, created_from: datetime | None, created_to: datetime | None, query: str | None) -> bool:
    """Return whether a pull in `_intergiro_loads` can hold records of the source."""
    manifest = source.manifest
    if created_from is not None and created_to is not None and manifest.created_from and manifest.created_to:
        if not (
            datetime.fromisoformat(manifest.created_from) < created_to
            and created_from < datetime.fromisoformat(manifest.created_to)
        ):
            return False
    # A record's account never changes, unlike its status: pulls of different accounts have no records in common.
    other = msgspec.json.decode(query) if query else {}
    mine, theirs = (_accounts(each) for each in (manifest.query or {}, other))
    return mine is None or theirs is None or not mine.isdisjoint(theirs)


def _accounts(query: Mapping[str, Any]) -> set[str] | None:
    named = query.get("account_ids")
    if isinstance(named, str):
        return set(named.split(","))
    return set(map(str, named)) if isinstance(named, list) else None
