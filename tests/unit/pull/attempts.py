# SPDX-License-Identifier: Apache-2.0
"""Attempts of one task: its state in Airflow, and lists that fail."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from intergiro_provider.exceptions import (
    BankUnavailable,
)
from intergiro_provider.pull.checkpoint import fingerprint
from intergiro_provider.pull.checkpointer import Checkpointer
from intergiro_provider.pull.directory import Directory
from intergiro_provider.pull.manifest import Manifest
from intergiro_provider.pull.pull import Pull, PullRequest, log
from intergiro_provider.pull.target import Target
from tests.unit.pull.lists import ListInMemory, pages_of, record

OWNER = "dag.task run -1"
RECORDS = [record(n) for n in range(100)]


class State:
    """The state of a task instance in Airflow, which can be unavailable."""

    def __init__(self, fails: Callable[[str], bool] = lambda operation: False) -> None:
        self.kept: dict[str, Any] = {}
        self.operations: list[str] = []
        self.fails = fails

    def get(self, key: str) -> Any:
        self._do("get")
        return json.loads(self.kept[key]) if key in self.kept else None

    def set(self, key: str, value: Any) -> None:
        self._do("set")
        self.kept[key] = json.dumps(value)

    def delete(self, key: str) -> None:
        self._do("delete")
        self.kept.pop(key, None)

    def _do(self, operation: str) -> None:
        self.operations.append(operation)
        if self.fails(operation):
            raise ConnectionError("the API server does not answer")


def new_attempt(fs: Any, root: str, bank: Any, state: Any, asked_for: str = "all", **request: Any) -> Pull:
    arguments = {"endpoint": "transactions", "query": {"limit": 5}, **request}
    checkpoints = Checkpointer(state, fingerprint(asked_for), log)
    return Pull(PullRequest(**arguments), pages_of(bank), Target(Directory(fs, root), OWNER), log, checkpoints)


def run(*arguments: Any, **request: Any) -> Manifest:
    return new_attempt(*arguments, **request).run()


def failing(at: int, error: BaseException | None = None, records: list[bytes] = RECORDS) -> ListInMemory:
    """Return a list that fails from this request on."""

    def broken(number: int) -> bytes | None:
        if number >= at:
            raise error or BankUnavailable("no answer")
        return None

    return ListInMemory(records, broken)
