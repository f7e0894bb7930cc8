# SPDX-License-Identifier: Apache-2.0
"""`check`: whether this deployment is set up correctly. Each finding comes from one function."""

from __future__ import annotations

from functools import partial

from intergiro_provider.cli import check_airflow, check_bank, check_session
from intergiro_provider.cli.findings import Finding, findings_data, findings_text, looked_at
from intergiro_provider.cli.output import Result
from intergiro_provider.cli.target import Target, target
from intergiro_provider.exceptions import IntergiroError


def check(conn_id: str, login: bool) -> Result:
    """Look at the deployment and, if the connection can be read, at the connection.

    :param login: also try the API key, which counts as a login.
    """
    findings = [
        looked_at(what, look)
        for what, look in {
            "versions": check_airflow.versions,
            "fernet_key": check_airflow.fernet_key,
            "variables": check_airflow.variables,
            "execution_api": check_airflow.execution_api,
        }.items()
    ]
    try:
        at = target(conn_id)
    except IntergiroError as error:
        findings.append(
            Finding("connection", "error", str(error), "The other checks need the connection and were left out.")
        )
    else:
        findings += of_connection(at, login)
    return Result(
        findings_data(findings), findings_text(findings), failed=any(finding.state == "error" for finding in findings)
    )


def of_connection(at: Target, login: bool) -> list[Finding]:
    """Return the findings about a connection that can be read."""
    clock, reach = check_bank.clock_and_reach(at)
    findings = [
        looked_at(what, partial(look, at))
        for what, look in {
            "connection": check_session.connection,
            "sharing": check_session.sharing,
            "former_sessions": check_session.former_sessions,
            "shadowing": check_session.shadowing,
            "session": check_session.session,
            "logins": check_session.logins,
            "lock": check_session.lock,
            "connection_test": check_airflow.connection_test,
        }.items()
    ]
    findings += [reach, clock]
    if login:
        findings.append(looked_at("login", partial(check_bank.login, at)))
    return findings
