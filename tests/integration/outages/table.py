# SPDX-License-Identifier: Apache-2.0
"""The table of ``docs/outages.md``: each row is a fault with its expected outcome, which a test of its name measures.

``python -m tests.integration.outages.table`` writes the document.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

DOCUMENT = Path(__file__).parents[3] / "docs" / "outages.md"

GOES_ON = "succeeds"
RETRIABLY = "fails (retryable)"
FINALLY = "fails (final)"

ANY = "any"
AIRFLOW_3 = "3"
DATABASE = "2"


@dataclass(frozen=True)
class Row:
    """One fault.

    :param does: what the task does.
    :param reads: parts of the error, or of the log if the task continues, with `…` between the parts.
    :param logins: the number of logins beyond those without the fault.
    :param error: the class of the error.
    :param airflow: `any`, tasks of Airflow `3`, or tasks that reach the database themselves, as on Airflow `2`.
    :param proof: the test, if not the one named after the row.
    """

    fault: str
    does: str = GOES_ON
    reads: str = ""
    logins: int = 0
    error: str = ""
    airflow: str = ANY
    proof: str = ""


CHAPTERS: dict[str, dict[str, Row]] = {}
CHAPTERS["The Airflow API and the metadata database"] = {
    "api_down_at_the_start": Row(
        "API server down, a task starts",
        RETRIABLY,
        "could not be looked up … Airflow's metadata database or API server is unavailable here. The task can be "
        "retried.",
        error="StoreUnavailable",
        airflow=AIRFLOW_3,
    ),
    "api_down_with_a_living_token": Row(
        "API server down, a running task has a valid token",
        airflow=AIRFLOW_3,
    ),
    "api_down_when_the_token_expires": Row(
        "API server down, a running task's token expires",
        RETRIABLY,
        "could not be looked up … Airflow's metadata database or API server is unavailable here. The task can be "
        "retried.",
        error="StoreUnavailable",
        airflow=AIRFLOW_3,
    ),
    "api_down_while_a_refresh_is_under_way": Row(
        "API server down after a refresh, and up again before the new token pair must be stored",
        reads="Refreshed",
        airflow=AIRFLOW_3,
    ),
    "api_down_for_long_after_a_refresh": Row(
        "the same, but it stays down",
        reads="could not be stored in time. This task continues with it",
        logins=1,
        airflow=AIRFLOW_3,
    ),
    "api_drops_connections": Row(
        "the API server closes every connection without a response",
        RETRIABLY,
        "could not be looked up … unavailable here. The task can be retried.",
        error="StoreUnavailable",
        airflow=AIRFLOW_3,
    ),
    "api_hangs": Row(
        "requests to the API server get no response",
        RETRIABLY,
        "could not be looked up … unavailable here. The task can be retried.",
        error="StoreUnavailable",
        airflow=AIRFLOW_3,
    ),
    "api_answers_get_lost": Row(
        "the API server carries out requests, but its responses are lost",
        RETRIABLY,
        "could not be looked up … unavailable here. The task can be retried.",
        error="StoreUnavailable",
        airflow=AIRFLOW_3,
    ),
    "database_down_behind_the_api": Row(
        "metadata database down: the API server returns 404 for a Variable that exists",
        RETRIABLY,
        "could not be looked up … unavailable here. The task can be retried.",
        error="StoreUnavailable",
        airflow=AIRFLOW_3,
    ),
    "database_hangs_behind_the_api": Row(
        "metadata database hangs",
        RETRIABLY,
        "could not be looked up … unavailable here. The task can be retried.",
        error="StoreUnavailable",
        airflow=AIRFLOW_3,
    ),
    "api_refuses_the_task": Row(
        "the API server does not accept the task's own Airflow token",
        RETRIABLY,
        "could not be read (AirflowSecretsBackendAccessDenied): the API server refuses this task. Set the same "
        "`[api_auth] jwt_secret` on every component, and synchronize their clocks. The task can be retried.",
        error="StoreUnavailable",
        airflow=AIRFLOW_3,
    ),
    "database_down": Row(
        "metadata database down, the task connects to it directly",
        RETRIABLY,
        "could not be read (OperationalError): Airflow's metadata database or API server is unavailable here. The "
        "task can be retried.",
        error="StoreUnavailable",
        airflow=DATABASE,
    ),
    "database_down_for_long_after_a_refresh": Row(
        "metadata database down after a refresh, and it stays down",
        reads="could not be stored in time. This task continues with it",
        logins=1,
        airflow=DATABASE,
    ),
    "two_writers_at_once": Row("two tasks write one Variable at the same time, in PostgreSQL", airflow=DATABASE),
    "api_of_three_tenths_of_a_second": Row(
        "the API server takes 0.3 s per call, 16 hosts",
        airflow=AIRFLOW_3,
    ),
    "api_of_half_a_second": Row(
        "the API server takes 0.5 s per call, 16 hosts",
        airflow=AIRFLOW_3,
    ),
    "api_too_slow": Row(
        "the API server takes 0.9 s per call, so its client may send a write twice",
        RETRIABLY,
        "The Airflow API is too slow to renew the Intergiro session safely: writing a Variable took … s, and 0.8 s is "
        "the limit. … Otherwise scale the API server, or set `lock_conn_id` in the connection's extra: with a "
        "distributed lock, writes may be slow.",
        error="StoreUnavailable",
        airflow=AIRFLOW_3,
    ),
}
CHAPTERS["The Variables"] = {
    "variable_deleted": Row("session deleted", reads="Logged in", logins=1),
    "all_variables_deleted": Row("session, lease and login history deleted", reads="Logged in", logins=1),
    "variable_garbled": Row(
        "session replaced by text that is not JSON",
        RETRIABLY,
        "cannot be used: it is not a JSON object. No request was sent to the bank. Delete the Variable; that costs one "
        "login.",
        error="StoreUnavailable",
    ),
    "variable_of_another_kind": Row(
        "session replaced by other JSON",
        RETRIABLY,
        "cannot be used: its field kind is not 'session'. No request was sent to the bank. Delete the Variable; that "
        "costs one login.",
        error="StoreUnavailable",
    ),
    "edited_in_the_ui": Row(
        "session saved in Airflow's UI, which shows its tokens as `***`; later deleted",
        RETRIABLY,
        "it holds *** instead of a token … Delete the Variable",
        error="StoreUnavailable",
        logins=1,
    ),
    "restored_from_a_backup": Row(
        "session, lease and login history restored from a backup that is older than the last refresh",
        reads="Logged in",
        logins=1,
    ),
    "another_fernet_key": Row(
        "the session was written with another Fernet key; the task accesses the database directly",
        RETRIABLY,
        "cannot be decrypted: it was written with another Fernet key than this process has. Set the same "
        "`[core] fernet_key` on every component, or delete the Variable, which costs one login. No request was sent to "
        "the bank, and the task can be retried.",
        error="StoreUnavailable",
        airflow=DATABASE,
    ),
    "another_fernet_key_on_the_api_server": Row(
        "the API server has another Fernet key, and returns 404",
        RETRIABLY,
        "exists, but the API server cannot read it: most likely it was written with another Fernet key. Set the same "
        "`[core] fernet_key` on every component, or delete the Variable, which costs one login. No request was sent to "
        "the bank, and the task can be retried.",
        error="StoreUnavailable",
        airflow=AIRFLOW_3,
    ),
    "shadowed_on_the_worker": Row(
        "an environment variable `AIRFLOW_VAR_…` on the worker hides the session",
        FINALLY,
        "The environment variable AIRFLOW_VAR_INTERGIRO_SESSION_… hides the Variable … Remove it from "
        "the environment of the workers, then clear the task.",
        error="ShadowedError",
    ),
    "shadowed_by_a_backend": Row(
        "a secrets backend of the API server holds a copy of the session and hides it; the token expires",
        reads="is hidden by an environment variable or a secrets backend. Remove that",
        airflow=AIRFLOW_3,
    ),
    "shadowed_by_a_backend_for_the_next": Row(
        "the same, for every later task",
        FINALLY,
        "cannot be read back: an AIRFLOW_VAR_… environment variable or a secrets backend, on the worker or on the API "
        "server, hides them. … Remove what hides them, then clear the task.",
        error="ShadowedError",
        airflow=AIRFLOW_3,
    ),
}
CHAPTERS["The bank"] = {
    "bank_down": Row(
        "bank down, the task has a session",
        RETRIABLY,
        "No response from … to GET /v3/accounts (ConnectionError). Check the host, the network and `proxies`, or try "
        "again later",
        error="BankUnavailable",
    ),
    "bank_down_at_the_login": Row(
        "bank down, there is no session yet",
        RETRIABLY,
        "There is no Intergiro session: the bank cannot be reached for the login (ConnectionError). The "
        "provider does not log in again now … The task can be retried in 1 s.",
        error="BankUnavailable",
    ),
    "bank_slow": Row("bank slow: every request takes 0.5 s"),
    "refresh_hangs": Row(
        "two refresh requests time out",
        RETRIABLY,
        "There is no Intergiro session: the bank gave no usable response to the refresh (…). The provider does not "
        "log in again now",
        error="BankUnavailable",
    ),
    "refresh_429": Row(
        "429 for the refresh, twice",
        reads="Refreshed",
    ),
    "refresh_503": Row(
        "5xx for the refresh, twice",
        RETRIABLY,
        "There is no Intergiro session: the bank returned 503 for the refresh. The provider does not log in again now",
        error="BankUnavailable",
    ),
    "refresh_503_once": Row("5xx for the refresh, once", reads="Refreshed"),
    "refresh_html": Row(
        "a proxy returns HTML with status 200 for the refresh",
        RETRIABLY,
        "There is no Intergiro session: the bank gave no usable response to the refresh",
        error="BankUnavailable",
    ),
    "refresh_answer_lost": Row(
        "the response to the refresh is lost; the bank refuses the old token afterwards", reads="Logged in", logins=1
    ),
    "refresh_answer_lost_and_forgiven": Row(
        "the response to the refresh is lost; the bank still accepts the old token", reads="Refreshed"
    ),
    "login_429": Row(
        "429 for the login",
        RETRIABLY,
        "There is no Intergiro session: the bank returned 429 … for the login. The provider does not log in again now "
        "… The task can be retried in 1 s.",
        error="BankUnavailable",
    ),
    "login_503": Row(
        "5xx for the login",
        RETRIABLY,
        "There is no Intergiro session: the bank returned 503 for the login. The provider does not log in again now",
        error="BankUnavailable",
    ),
    "login_html": Row(
        "a proxy returns HTML with status 200 for the login",
        RETRIABLY,
        "There is no Intergiro session: the bank gave no usable response to the login",
        error="BankUnavailable",
    ),
    "login_answer_lost": Row(
        "the response to the login is lost",
        RETRIABLY,
        "There is no Intergiro session: the bank gave no usable response to the login (ConnectionError). The provider "
        "does not log in again now",
        logins=1,
        error="BankUnavailable",
    ),
    "key_wrong": Row(
        "API key wrong",
        FINALLY,
        "Intergiro does not accept the API key (it returned … the key is wrong, frozen or blocked … Check the "
        "connection's password … "
        "Clear the task once the key is accepted.",
        error="IntergiroAuthError",
    ),
    "key_frozen": Row(
        "API key frozen (2d)",
        FINALLY,
        "Intergiro does not accept the API key (it returned … the key is wrong, frozen or blocked … A frozen 2d key is "
        "renewed in the customer portal … Clear the task once the key is accepted.",
        error="IntergiroAuthError",
    ),
    "fraud_block": Row(
        "API key blocked by fraud prevention",
        FINALLY,
        "Intergiro does not accept the API key (it returned 403, blocked): the key is wrong, frozen or "
        "blocked … a blocked one by Intergiro. Clear the task once the key is accepted.",
        error="IntergiroAuthError",
    ),
    "sessions_end_again_and_again": Row(
        "sessions end too early, several times",
        RETRIABLY,
        "The Intergiro session has ended and cannot be refreshed, and 3 logins within an hour are used up "
        "(`max_logins_per_hour`). The next login is allowed at … UTC; the task can be "
        "retried then. If sessions keep ending early, another deployment or program logs "
        "in with the same API key",
        logins=2,
        error="LoginBudgetExhausted",
    ),
    "clocks_apart": Row("the bank's clock is an hour ahead or behind"),
    "clocks_of_workers_apart": Row("the clocks of two workers differ by an hour"),
    "tokens_without_a_date": Row("opaque access tokens, or JWTs without `exp`", reads="Refreshed"),
}

ROWS: dict[str, Row] = {name: row for rows in CHAPTERS.values() for name, row in rows.items()}

HEAD = """<!-- Written by `python -m tests.integration.outages.table`; change the rows there. -->
# When something breaks

The tables show for each fault what the task does, which message you read, and how many extra logins the fault costs.
In the messages, "…" stands for the parts that vary.

* **succeeds**: the provider handles the fault. The message, if any, is in the task's log.
* **fails (retryable)**: Airflow retries the task if it has `retries`. Nothing is lost.
* **fails (final)**: Airflow does not retry the task, because a retry cannot help. Remove the cause, then clear
  the task.

The column *Airflow* shows where the fault can occur:

* *3*: tasks and triggers of Airflow 3, which read and write Variables through the API server.
* *2*: tasks of Airflow 2.11, and every other process that connects to the metadata database directly.

Each row is a test that causes the fault in a real PostgreSQL server, in a real API server of Airflow 3, or in the
connection to the sandbox bank. `make test` runs the shorter tests, and `make outages` runs all of them. Most tests
use shorter waiting times than production. Extra logins are counted from the start of the fault until a task has
succeeded after its end.
"""


def document() -> str:
    """Return the content of ``docs/outages.md``."""
    parts = [HEAD]
    for chapter, rows in CHAPTERS.items():
        lines = ["| fault | Airflow | the task | message | logins |", "| --- | --- | --- | --- | --- |"]
        for row in rows.values():
            does = f"{row.does}: `{row.error}`" if row.error else row.does
            where = {ANY: "2, 3", AIRFLOW_3: "3", DATABASE: "2"}[row.airflow]
            lines.append(f"| {row.fault} | {where} | {does} | {row.reads or '–'} | {row.logins} |")
        parts.append(f"## {chapter}\n\n" + "\n".join(lines) + "\n")
    return "\n".join(parts)


if __name__ == "__main__":
    DOCUMENT.write_text(document())
