# SPDX-License-Identifier: Apache-2.0
"""The steps of a load, in one transaction, on any engine."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import replace

from intergiro_provider.exceptions import IntergiroError, LoadError
from intergiro_provider.load import evolution, loads
from intergiro_provider.load.loads import LOADS, pulled_at
from intergiro_provider.load.source import Source
from intergiro_provider.load.target import Loaded, literal, quoted
from intergiro_provider.load.warehouse import STAGE, Warehouse
from intergiro_provider.pull.schema import Kind, Type

log = logging.getLogger(__name__)


def load(warehouse: Warehouse, source: Source) -> Loaded:
    """Make the table equal to the source, in one transaction.

    :raises LoadError: the engine refused a statement; nothing was changed, unless the step is the commit.
    """
    problem = None
    try:
        began = time.monotonic()
        with warehouse.session():
            loaded = _load(warehouse, source, began)
    except IntergiroError:
        raise
    except Exception as error:
        explained = warehouse.explain(error)
        if explained is None:
            raise
        failed = f"{warehouse.target.name}: {warehouse.step} failed: {explained}"
        problem = LoadError(
            f"{failed}. It is not known whether the load was committed. Run the task again: a pull is loaded once"
            if warehouse.step == "committing"
            else f"{failed}. The table is as it was before, and the task can be retried"
        )
    if problem is not None:  # outside the handler, because the engine's error quotes rows and must not be the context
        raise problem
    return loaded


def _load(warehouse: Warehouse, source: Source, began: float) -> Loaded:
    manifest = source.manifest
    with warehouse.doing("reading _intergiro_loads"):
        have = warehouse.columns(warehouse.target.table)
        loads.prepare(warehouse, have is None)
        if (former := loads.former_load(warehouse, source)) is not None:
            return former
        loads.refuse_conflicts(warehouse, source)
    with warehouse.doing("adapting the schema"):
        have, staged = evolution.adapt(warehouse, have or {}, source.fields)
        stamp = (pulled_at(manifest.pull_id).isoformat(), manifest.pull_id)
        if "_operation" in (warehouse.columns(warehouse.target.history_table) or ()):
            warehouse.target = replace(warehouse.target, history=True)  # otherwise this load would be missing in it
        staged = staged or {name: type_ for name, type_ in have.items() if name == "id"}  # the pull is empty
        if warehouse.target.history and have:
            _prepare_history(warehouse, have)
    inserted = changed = vanished = 0
    if have:
        is_filled = False
        if not warehouse.target.history and _is_empty(warehouse, source, have):
            with warehouse.doing("filling the table"):
                is_filled = warehouse.fill(source, staged)
            inserted = manifest.rows
        if not is_filled:
            source.replaced = 0
            with warehouse.doing("staging the rows"):
                warehouse.stage(source, staged)
                warehouse.refuse_repeated_ids()
            with warehouse.doing("deleting vanished rows"):
                vanished = _delete_vanished(warehouse, source, have, stamp)
            with warehouse.doing("merging the rows"):
                inserted, changed = warehouse.merge(have, staged, stamp)
    unchanged = manifest.rows - inserted - changed
    loaded = Loaded(
        warehouse.target.name, manifest.pull_id, manifest.rows, inserted, changed, unchanged, vanished, source.replaced,
        seconds=round(time.monotonic() - began, 3),
    )  # fmt: skip
    with warehouse.doing("writing _intergiro_loads"):
        loads.record(warehouse, source, loaded)
    warehouse.step = "committing"
    return loaded


def _is_empty(warehouse: Warehouse, source: Source, have: Mapping[str, Type]) -> bool:
    """Return whether the table has no rows in the pull's interval."""
    within = _within(warehouse, source, have) or ""
    return warehouse.execute(f"SELECT 1 FROM {warehouse.target.table} t WHERE true{within} LIMIT 1").fetchone() is None


def _within(warehouse: Warehouse, source: Source, have: Mapping[str, Type]) -> str | None:
    """Return the SQL condition that a row is in the pull's interval; None if the table has no `created_at`."""
    manifest = source.manifest
    if manifest.created_from is None or manifest.created_to is None:
        return ""
    if have.get("created_at") is not Kind.TIMESTAMP:
        return None
    return "".join(
        f' AND t."created_at" {sign} CAST({literal(bound)} AS {warehouse.types[Kind.TIMESTAMP]})'
        for sign, bound in ((">=", manifest.created_from), ("<", manifest.created_to))
    )


def _prepare_history(warehouse: Warehouse, columns: Mapping[str, Type]) -> None:
    """Create the history with the existing rows of the table."""
    if warehouse.columns(warehouse.target.history_table) is not None:
        return
    text, moment = warehouse.types[Kind.STRING], warehouse.types[Kind.TIMESTAMP]
    described = ", ".join(f"{quoted(name)} {warehouse.sql(type_)}" for name, type_ in columns.items())
    warehouse.execute(
        f"CREATE TABLE {warehouse.target.history_table} ({described}, _valid_from {moment}, _pull_id {text}, "
        f"_operation {text})"
    )
    last = warehouse.execute(
        f"SELECT max(pull_id) FROM {warehouse.target.beside(LOADS)} WHERE table_name = {warehouse.mark}",
        warehouse.target.bare,
    ).fetchone()[0]
    if last is not None:
        warehouse.append_history(columns, warehouse.target.table, (pulled_at(last).isoformat(), last), "insert")


def _delete_vanished(warehouse: Warehouse, source: Source, have: Mapping[str, Type], stamp: tuple[str, str]) -> int:
    """Delete the rows of the interval that were not pulled."""
    if source.filters != {}:
        return 0
    within = _within(warehouse, source, have)
    if within is None:
        log.warning(
            "%s: `created_at` is not a timestamp, so records that the bank no longer lists are not deleted",
            warehouse.target.name,
        )
        return 0
    gone = f'NOT EXISTS (SELECT 1 FROM {STAGE} s WHERE s."id" = t."id"){within}'
    if warehouse.target.history:
        warehouse.append_history(have, f"{warehouse.target.table} t WHERE {gone}", stamp, "delete")
    return warehouse.count(f"DELETE FROM {warehouse.target.table} t WHERE {gone}")
