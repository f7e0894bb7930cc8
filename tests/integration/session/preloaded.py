# SPDX-License-Identifier: Apache-2.0
"""The imports of member processes, done once by the process from which they are forked."""

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

# Otherwise the first query of each process does it, which takes half a second.
sqlalchemy.orm.configure_mappers()
