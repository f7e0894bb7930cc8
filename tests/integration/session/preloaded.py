# SPDX-License-Identifier: Apache-2.0
"""What member processes need, imported once by the process that they are forked from, and not by each of them."""

from __future__ import annotations

import airflow.models.connection
import airflow.models.variable
import airflow.providers.postgres.hooks.postgres
import airflow.utils.session
import pytest
import redis
import sqlalchemy.orm

from tests.integration.session import crashes, members, worker

__all__ = ["airflow", "crashes", "members", "pytest", "redis", "worker"]

# Else the first query of each process would do it, for half a second.
sqlalchemy.orm.configure_mappers()
