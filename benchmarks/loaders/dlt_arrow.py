# SPDX-License-Identifier: Apache-2.0
"""dlt again, with Arrow tables that its user makes: pyarrow reads the JSON lines, and code of one's own turns nested
columns into text, for dlt's CSV takes no others. dlt then passes columns on as they are.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.loaders.dlt_merge import prepare
from benchmarks.pullers.clock import LoadJob, run


def tables(path: Path) -> Iterator[Any]:
    """Yield a file as one table."""
    import pyarrow
    import pyarrow.json
    from dlt.common import json

    table = pyarrow.json.read_json(path)
    for number, field in enumerate(table.schema):
        if pyarrow.types.is_nested(field.type):
            texts = [None if value is None else json.dumps(value) for value in table.column(number).to_pylist()]
            table = table.set_column(number, field.name, pyarrow.array(texts, pyarrow.string()))
    yield table


if __name__ == "__main__":
    run(functools.partial(prepare, lines=tables, loader="csv"), LoadJob)
