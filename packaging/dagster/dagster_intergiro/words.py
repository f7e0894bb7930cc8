# SPDX-License-Identifier: Apache-2.0
"""Replace Airflow's terms in messages of the shared packages by Dagster's."""

from __future__ import annotations

import re

NAME = "IntergiroResource"
"""The connection id that the shared packages use in messages."""

_WORDS = {
    # Settings
    rf"in the extra of connection '{NAME}'": f"of {NAME}",
    rf"The extra of connection '{NAME}'": NAME,
    rf"The connection '{NAME}' has": f"{NAME} has",
    r"Put it into the connection's password": "Set `api_key`",
    rf"The API key in the password of connection '{NAME}'": f"`api_key` of {NAME}",
    rf"[Tt]he host of connection '{NAME}'": f"`host` of {NAME}",
    rf"The connection '{NAME}' uses": f"`host` of {NAME} uses",
    r" \(the host as https://…, or `schema` https\)": "",
    r"belongs into the password": "belongs into `api_key`",
    r"The API key of the connection (\S+)": r"`api_key` of \1",
    r"The connection could not be read again": f"{NAME} could not be read again",
    r"[Tt]he connection's password and extra": f"`api_key`, `api` and `environment` of {NAME}",
    r"in the connection's extra": f"of {NAME}",
    r"with this connection's API key": "with this API key",
    r"[Tt]he connection's": f"{NAME}'s",
    r", or use a connection for that host": f", or another {NAME} for that host",
    # Retries
    r"Airflow retries the task if it has retries left": "Dagster retries the step as its retry policy says",
    r"Airflow can retry the task": "Dagster can retry the step",
    r"put the tasks into an Airflow pool": "put the assets into a pool",
    r"Clear the task once": "Run it again once",
    r"clear th(is|e) task": "run it again",
    r", or mark it as success": "",
    r" Keep this URL out of logs and XCom\.": "",
    r" For a single payment, IntergiroPaymentOperator .*": "",
    r" \*Test connection\* shows whether .*? counts as a login\.": "",
    # The session
    r"Airflow's Variables are": "the session's store is",
    r"[Tt]he Airflow API is": "the session's store is",
    r"; if this happens often, set `lock_conn_id`[^.]*": "",
    r"of `lock_conn_id` is still": "is still",
    r" Use a service that is nearer to the workers\.": "",
    r"the task's user, or its connection,": "the user of the run",
    r" In Airflow 3 (a plain|a run).*": "",
    r" A run that was started by hand .*; fall back on `dag_run.run_after`\.": "",
    r"run its task again": "run its step again",
    r" It was saved in Airflow's UI or REST API, which do not show tokens": "",
    r"airflow-provider-intergiro": "dagster-intergiro",
    r"\b([Tt]he|[Tt]his|[Aa]nother) task\b": r"\1 step",
}
_PATTERNS = [(re.compile(pattern), words) for pattern, words in _WORDS.items()]


def in_dagsters_words(message: str) -> str:
    """Return a message with Dagster's terms."""
    for pattern, words in _PATTERNS:
        message = pattern.sub(words, message)
    return message
