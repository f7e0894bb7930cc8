# SPDX-License-Identifier: Apache-2.0
"""A load that is killed at any statement leaves the old or the new state, both of rows and of `_intergiro_loads`."""

from __future__ import annotations

import itertools
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fsspec.implementations.local import LocalFileSystem

from intergiro_provider.load import open_warehouse
from intergiro_provider.load.source import Source
from intergiro_provider.load.steps import load
from intergiro_provider.pull.directory import Directory
from tests.integration.load.world import Bank, Engine, has_psycopg3, pull, record

pytestmark = pytest.mark.integration

DAY = ("2026-01-01", "2026-01-02")
NEXT_DAY = ("2026-01-02", "2026-01-03")


def loads_until(engine: Engine, path: Path, history: bool, number: int, after: bool) -> bool:
    """Load in a child process, and kill it before or after its n-th statement. Return whether it was killed.

    :param number: the number of the statement, from 0; negative: the number of the record, from -1.
    """
    child = os.fork()
    if child == 0:
        try:
            warehouse: Any = open_warehouse(engine.table(), history=history, **engine.where)
            numbers, execute = itertools.count(), warehouse.execute

            def killed(*arguments: Any) -> Any:
                mine = next(numbers) == number
                if mine and not after:
                    os.kill(os.getpid(), signal.SIGKILL)
                result = execute(*arguments)
                if mine:
                    os.kill(os.getpid(), signal.SIGKILL)
                return result

            source = Source(Directory(LocalFileSystem(), str(path)))
            blocks = source.blocks

            def cut() -> Iterator[bytes]:
                lines = (line for block in blocks() for line in block.splitlines(keepends=True))
                for place, line in enumerate(lines, 1):
                    mine = place == -number
                    if mine and not after:
                        os.kill(os.getpid(), signal.SIGKILL)
                    yield line
                    if mine:
                        os.kill(os.getpid(), signal.SIGKILL)

            warehouse.execute, source.blocks = killed, cut  # type: ignore[method-assign]
            load(warehouse, source)
        finally:
            os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def state(engine: Engine, history: bool) -> tuple[Any, ...]:
    loads = engine.ask(
        f"SELECT pull_id, rows, inserted, changed, vanished FROM {engine.table('_intergiro_loads')} ORDER BY 1"
    )
    former = engine.ask("SELECT id, _pull_id, _operation FROM {t}_history ORDER BY 1, 2, 3") if history else []
    return engine.ask("SELECT * FROM {t} ORDER BY id"), sorted(engine.types()), loads, former


@pytest.mark.parametrize("history", [True, False], ids=["merging", "filling"])
@pytest.mark.parametrize("step", [5, pytest.param(1, marks=pytest.mark.exhaustive)])
def test_killed_at_its_statements(engine: Engine, tmp_path: Path, step: int, history: bool) -> None:
    if engine.kind == "psycopg2" and step > 1 and has_psycopg3():
        pytest.skip("as with psycopg 3")
    day = 0 if history else 1
    before = Bank(*(record(n) for n in range(30)))
    then = Bank(*(record(n, status="completed" if n % 4 else "pending", fee=n) for n in range(3, 40)))
    if not history:
        then = Bank(*(record(100 + n, fee=n, day=day) for n in range(37)))  # into an empty interval
    pull(tmp_path / "1", before, DAY)
    pull(tmp_path / "2", then, (DAY, NEXT_DAY)[day])
    engine.load(tmp_path / "1", history=history)
    old = new = state(engine, history)
    kills = 0
    for number, after in itertools.product(range(-6, 200, step), (False, True)):
        killed = loads_until(engine, tmp_path / "2", history, number, after)
        kills += killed
        new = state(engine, history)
        if new != old or (number >= 0 and not killed):
            break  # it reached COMMIT
    assert [row[0] for row in new[2]] == [row[0] for row in old[2]] + [new[2][-1][0]]
    assert (new[2][-1][1:], len(new[0])) == (((37, 10, 27, 3), 37) if history else ((37, 37, 0, 0), 67))
    assert kills >= (8 if step > 1 else 50 if history else 35)
    print(f"{engine.kind}: {kills} kills")
