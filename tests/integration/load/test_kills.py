# SPDX-License-Identifier: Apache-2.0
"""A load that is killed at any statement leaves the old state or the new one, of rows and of `_intergiro_loads`."""

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

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

DAY = ("2026-01-01", "2026-01-02")


def loads_until(engine: Engine, path: Path, number: int, after: bool) -> bool:
    """Load in a child that is killed before or after its n-th statement; return whether it was."""
    child = os.fork()
    if child == 0:
        try:
            warehouse: Any = open_warehouse(engine.table(), history=True, **engine.where)
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
                for block in blocks():
                    yield block
                    if number < 0:
                        os.kill(os.getpid(), signal.SIGKILL)

            warehouse.execute, source.blocks = killed, cut  # type: ignore[method-assign]
            load(warehouse, source)
        finally:
            os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def state(engine: Engine) -> tuple[Any, ...]:
    loads = engine.ask(
        f"SELECT pull_id, rows, inserted, changed, vanished FROM {engine.table('_intergiro_loads')} ORDER BY 1"
    )
    history = engine.ask("SELECT id, _pull_id, _operation FROM {t}_history ORDER BY 1, 2, 3")
    return engine.ask("SELECT * FROM {t} ORDER BY id"), sorted(engine.types()), loads, history


@pytest.mark.parametrize("step", [5, pytest.param(1, marks=pytest.mark.exhaustive)])
def test_killed_at_its_statements(engine: Engine, tmp_path: Path, step: int) -> None:
    if engine.kind == "psycopg2" and step > 1 and has_psycopg3():
        pytest.skip("as with psycopg 3")
    before = Bank(*(record(n) for n in range(30)))
    then = Bank(*(record(n, status="completed" if n % 4 else "pending", fee=n) for n in range(3, 40)))
    pull(tmp_path / "1", before, DAY)
    pull(tmp_path / "2", then, DAY, part_bytes=2000)
    engine.load(tmp_path / "1", history=True)
    old = new = state(engine)
    kills = 0
    for number, after in itertools.product(range(-1, 200, step), (False, True)):
        killed = loads_until(engine, tmp_path / "2", number, after)
        kills += killed
        new = state(engine)
        if new != old or (number >= 0 and not killed):
            break  # it got to COMMIT
    assert [row[0] for row in new[2]] == [row[0] for row in old[2]] + [new[2][-1][0]]
    assert (new[2][-1][1:], len(new[0])) == ((37, 10, 27, 3), 37)
    assert kills >= (8 if step > 1 else 40)
    print(f"{engine.kind}: {kills} kills")
