# SPDX-License-Identifier: Apache-2.0
"""The findings of `check` about Airflow: versions, encryption, and the speed of Variables."""

from __future__ import annotations

import contextlib
import platform
import secrets
from urllib.parse import urlsplit

from airflow import __version__ as airflow_version
from airflow.providers.common.compat.sdk import conf

from intergiro_provider import __version__
from intergiro_provider.api.settings import origin_of
from intergiro_provider.cli.findings import Finding, by_time, timed
from intergiro_provider.cli.target import TIMINGS, Target
from intergiro_provider.exceptions import IntergiroError
from intergiro_provider.session.codec import Codec
from intergiro_provider.session.documents import LoginHistory
from intergiro_provider.session.store import VariableStore

AIRFLOW_3 = not airflow_version.startswith("2.")


def versions() -> Finding:
    """Return the versions of Airflow, the provider and Python."""
    return Finding(
        "versions",
        "ok",
        f"Airflow {airflow_version}, airflow-provider-intergiro {__version__}, Python {platform.python_version()}",
    )


def fernet_key() -> Finding:
    """Check whether Airflow encrypts Variables and connections."""
    from airflow.models.crypto import get_fernet

    try:
        encrypts = bool(get_fernet().is_encrypted)
    except Exception:
        # The text of the error may quote the key.
        return Finding("fernet_key", "error", "[core] fernet_key is not a Fernet key.", _NEW_FERNET_KEY)
    if not encrypts:
        return Finding(
            "fernet_key",
            "error",
            "Airflow has no Fernet key, so connections are stored with their API keys in clear.",
            _NEW_FERNET_KEY,
        )
    return Finding("fernet_key", "ok", "Variables and connections are stored encrypted.")


_NEW_FERNET_KEY = (
    "Set the same [core] fernet_key on every component. Then `airflow rotate-fernet-key` encrypts what is stored."
)


def variables() -> Finding:
    """Check whether a Variable can be written and read here, and how fast; use and delete a separate Variable."""
    store = VariableStore(Codec("", ""), f"intergiro_check_{secrets.token_hex(4)}")
    try:
        store.write("logins", LoginHistory())  # the first one includes connecting, which a task does once
        _, writing = timed(lambda: store.write("logins", LoginHistory()))
        back, reading = timed(lambda: store.read("logins"))
    finally:
        with contextlib.suppress(IntergiroError):
            store.delete("logins")
    if back != LoginHistory():
        return Finding(
            "variables",
            "error",
            "A Variable that was just written cannot be read back.",
            "The metadata database must not serve reads from a replica that lags behind.",
        )
    limit = TIMINGS.lease_round
    state = by_time(reading + writing, limit)
    return Finding(
        "variables",
        state,
        f"The metadata database writes a Variable in {_ms(writing)} and reads it in {_ms(reading)}; the limit of "
        f"both is {_ms(limit)}.",
        None if state == "ok" else "Make the metadata database faster, or set lock_conn_id in the connection's extra.",
    )


def execution_api() -> Finding:
    """Check how fast the API server responds, through which tasks of Airflow 3 access Variables."""
    if not AIRFLOW_3:
        return Finding(
            "execution_api", "ok", "Tasks of this Airflow version access Variables in the database directly."
        )
    import requests

    url = _execution_api_url()
    where = origin_of(url) or "an address that is not a URL"
    try:
        with requests.Session() as session:
            session.get(f"{url}/health", timeout=TIMINGS.lease_round)
            response, took = timed(lambda: session.get(f"{url}/health", timeout=TIMINGS.lease_round))
    except requests.RequestException as error:
        return Finding(
            "execution_api",
            "warning",
            f"The API server cannot be reached from here ({where}: {type(error).__name__}). Tasks reach the Variables "
            "through it.",
            "If tasks run on this machine, set [core] execution_api_server_url and check that the API server is up.",
        )
    if response.status_code >= 300:
        return Finding(
            "execution_api",
            "warning",
            f"{where} responds with {response.status_code} at the path of the Execution API.",
            "Check [core] execution_api_server_url.",
        )
    # A write must be acknowledged before the client repeats it; see `_timings` of the hook.
    limit = min(0.8 * conf.getfloat("workers", "execution_api_retry_wait_min", fallback=1.0), TIMINGS.lease_round)
    state = by_time(took, limit)
    return Finding(
        "execution_api",
        state,
        f"The API server at {where} responds in {_ms(took)}; the limit for writing a Variable is {_ms(limit)}.",
        None if state == "ok" else "Scale the API server, or set lock_conn_id in the connection's extra.",
    )


def _execution_api_url() -> str:
    base = conf.get("api", "base_url", fallback="/")
    if not urlsplit(base).scheme:
        base = f"http://localhost:8080/{base.lstrip('/')}"
    url = conf.get("core", "execution_api_server_url", fallback="") or f"{base.rstrip('/')}/execution/"
    return str(url).rstrip("/")


def connection_test(_: Target) -> Finding:
    """Check whether *Test connection* is enabled."""
    setting = conf.get("core", "test_connection", fallback="Disabled")
    if setting.strip().lower() == "enabled":
        return Finding(
            "connection_test",
            "ok",
            "*Test connection* is enabled. Each test is a login that is not in the login history; use it rarely.",
        )
    return Finding("connection_test", "ok", "*Test connection* is disabled ([core] test_connection).")


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"
