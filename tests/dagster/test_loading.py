# SPDX-License-Identifier: Apache-2.0
"""Load the result of an asset into PostgreSQL. The documentation's snippet loads into DuckDB."""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy

from dagster_intergiro import load_into_postgres
from intergiro_provider.exceptions import IntergiroValueError, LoadError
from intergiro_provider.sandbox import Sandbox
from tests.dagster.reading import ids_in
from tests.dagster.test_assets import resource_of

SECRET = "n0t-to-be-shown"


def test_a_result_is_loaded_and_an_unchanged_rerun_writes_nothing(
    sandbox: Sandbox, database: str, tmp_path: Path
) -> None:
    resource_of(sandbox).pull_to(str(tmp_path), "transactions")
    url = database.replace("+psycopg2", "")
    loaded = load_into_postgres(str(tmp_path), "transactions", url)
    assert loaded["inserted"] == loaded["rows"] > 0
    assert load_into_postgres(str(tmp_path), "transactions", url)["already"]
    with sqlalchemy.create_engine(database).connect() as connection:
        found = connection.scalars(sqlalchemy.text("select id from transactions")).all()
    assert sorted(found) == sorted(ids_in(tmp_path))


@pytest.mark.parametrize(
    ("url", "error"),
    [
        (f"postgresql://me:{SECRET}@127.0.0.1:1/x", LoadError),
        (f"postgresql://me:{SECRET}@127.0.0.1:port/x", IntergiroValueError),
        (f"mysql://me:{SECRET}@127.0.0.1/x", IntergiroValueError),
    ],
)
def test_an_error_shows_no_password(sandbox: Sandbox, tmp_path: Path, url: str, error: type[Exception]) -> None:
    resource_of(sandbox).pull_to(str(tmp_path), "transactions")
    with pytest.raises(error) as raised:
        load_into_postgres(str(tmp_path), "transactions", url)
    assert SECRET not in f"{raised.value} {raised.value.__context__!r} {raised.value.__cause__!r}"
