# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import re
from typing import Any

import dagster as dg
import pytest

from dagster_intergiro import IntergiroResource
from intergiro_provider.exceptions import IntergiroValueError

KEY = "5a4db0c5-secret"
POSTGRES = "postgresql://me:secret@db/sessions"


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"api_key": KEY}, "api_key"),
        ({"api_key": KEY, "host": "https://bank.example"}, "api_key"),
        ({"api_key": dg.EnvVar("KEY"), "session_store": POSTGRES}, "session_store"),
        ({"api_key": dg.EnvVar("KEY"), "proxies": {"https": "http://me:secret@proxy:3128"}}, "proxies"),
    ],
)
def test_a_secret_that_dagster_would_store_is_refused(fields: dict[str, Any], named: str) -> None:
    with pytest.raises(IntergiroValueError, match=f"`{named}`.*in clear") as raised:
        dg.Definitions(resources={"intergiro": IntergiroResource(**fields)}).get_repository_def()
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize(
    "fields",
    [
        {"api_key": dg.EnvVar("KEY")},
        {"api_key": KEY, "host": "http://127.0.0.1:8765"},
        {"api_key": dg.EnvVar("KEY"), "session_store": dg.EnvVar("STORE")},
        {"api_key": dg.EnvVar("KEY"), "session_store": "file:///var/lib/intergiro"},
        {"api_key": dg.EnvVar("KEY"), "session_store": "postgresql://me@db/sessions"},
    ],
)
def test_what_holds_no_secret_is_accepted(fields: dict[str, Any]) -> None:
    dg.Definitions(resources={"intergiro": IntergiroResource(**fields)}).get_repository_def()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"api": "4d"}, "`api`"),
        ({"environment": "production"}, "`environment`"),
        ({"host": "http://bank.example"}, "plain http"),
        ({"connect_timeout": 0.0}, "`connect_timeout`"),
        ({"max_logins_per_hour": 0}, "`max_logins_per_hour`"),
        ({"headers": {"Authorization": "x"}}, "`headers`"),
        ({"api_key": " "}, "API key"),
        ({"session_store": "redis://x"}, "`session_store`"),
        ({"session_store": "file://relative"}, "`session_store`"),
        ({"session_store": "postgresql://db:port/x"}, "`session_store`"),
    ],
)
def test_a_field_that_cannot_work_is_named(fields: dict[str, Any], message: str) -> None:
    resource = IntergiroResource(**{"api_key": KEY, **fields})
    with pytest.raises(IntergiroValueError, match=re.escape(message)) as raised:
        resource.get_client()
    assert "Airflow" not in str(raised.value)
    assert "connection" not in str(raised.value).replace("connect_", "")


@pytest.mark.parametrize(
    ("given", "expected"), [(True, True), (False, False), ("false", False), ("/ca.pem", "/ca.pem")]
)
def test_verify_is_as_in_requests(given: Any, expected: Any) -> None:
    assert IntergiroResource(api_key=KEY, verify=given).settings.verify == expected


def test_the_key_is_not_in_the_repr() -> None:
    resource = IntergiroResource(api_key=KEY, session_store=POSTGRES, headers={"X-Secret": "secret"})
    resource.settings  # noqa: B018
    assert "secret" not in repr(resource) + str(resource)
