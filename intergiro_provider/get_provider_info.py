# SPDX-License-Identifier: Apache-2.0
"""The provider info, which Airflow's provider manager reads through the entry point `apache_airflow_provider`.

Airflow does not catch exceptions of `get_provider_info`. An exception, or a result that violates the schema, makes
every `airflow` command fail. So it returns a constant dictionary, and the module does not import Airflow.

From Airflow 3.2 on the connection form is built from `conn-fields` and `ui-field-behaviour` below, without
importing the hook; older versions ask the hook's form methods, which read this dictionary too.
Every field's type admits null: the form saves an empty field as null, which means "not set".
"""

from __future__ import annotations

from typing import Any

from intergiro_provider import __version__

_INTEGRATION = "Intergiro"

#: 0 is not allowed, but the form's spinner knows inclusive bounds only, and without one counts down below zero.
_SECONDS = {"exclusiveMinimum": 0, "minimum": 0, "maximum": 3600}


def _field(label: str, kind: str, description: str, **schema: Any) -> dict[str, Any]:
    """One optional field of the connection's extra, for the form."""
    return {"label": label, "description": description, "schema": {"type": [kind, "null"], **schema}}


def get_provider_info() -> dict[str, Any]:
    """Describe this package to Airflow: what it integrates with, its modules and its connection type."""
    return {
        "package-name": "airflow-provider-intergiro",
        "name": "Intergiro",
        "description": "Accounts, cards, transactions and events of the `Intergiro <https://www.intergiro.com/>`__ "
        "banking APIs, through one session that renews itself.\n",
        "versions": [__version__],
        "integrations": [
            {
                "integration-name": _INTEGRATION,
                "external-doc-url": "https://www.intergiro.com/",
                "tags": ["service"],
            }
        ],
        "operators": [
            {
                "integration-name": _INTEGRATION,
                "python-modules": ["intergiro_provider.operators.intergiro", "intergiro_provider.operators.payments"],
            }
        ],
        "sensors": [
            {
                "integration-name": _INTEGRATION,
                "python-modules": ["intergiro_provider.sensors.intergiro"],
            }
        ],
        "triggers": [
            {
                "integration-name": _INTEGRATION,
                "python-modules": ["intergiro_provider.triggers.intergiro", "intergiro_provider.triggers.payments"],
            }
        ],
        "hooks": [
            {
                "integration-name": _INTEGRATION,
                "python-modules": ["intergiro_provider.hooks.intergiro"],
            }
        ],
        "transfers": [
            {
                "source-integration-name": _INTEGRATION,
                # Airflow's own name for whatever an ObjectStoragePath can reach.
                "target-integration-name": "Common IO",
                "python-module": "intergiro_provider.transfers.intergiro_to_object_storage",
            },
            {
                "source-integration-name": _INTEGRATION,
                "target-integration-name": "PostgreSQL",
                "python-module": "intergiro_provider.transfers.intergiro_to_sql",
            },
        ],
        # Airflow ≥ 3.2; imported at every start of `airflow`.
        "cli": ["intergiro_provider.cli.definition.get_intergiro_cli_commands"],
        "extra-links": [
            "intergiro_provider.links.intergiro.IntergiroConsentLink",
            "intergiro_provider.links.intergiro.IntergiroManifestLink",
            "intergiro_provider.links.intergiro.IntergiroPortalLink",
        ],
        "connection-types": [
            {
                "connection-type": "intergiro",
                "hook-class-name": "intergiro_provider.hooks.intergiro.IntergiroHook",
                "hook-name": "Intergiro",
                "ui-field-behaviour": {
                    "hidden-fields": ["login", "schema"],
                    "relabeling": {"password": "API key"},
                    "placeholders": {
                        "host": "Usually empty: API and Environment name it",
                        "port": "Usually empty",
                        "password": "The API key, as Intergiro gave it to you",
                    },
                },
                "conn-fields": _conn_fields(),
            }
        ],
    }


def _conn_fields() -> dict[str, dict[str, Any]]:
    """Return the settings in the connection's extra, in the order of the form."""
    return {
        "api": _field(
            "API",
            "string",
            "3d: banking as a service (individuals, accounts, cards, transactions, events). "
            "2d: business banking (a company's own accounts and payments). Empty: 3d.",
            enum=["3d", "2d"],
        ),
        "environment": _field(
            "Environment",
            "string",
            "Live moves real money; staging is for trying out. Empty: live. Not used when Host is set.",
            enum=["live", "staging"],
        ),
        "lock_conn_id": _field(
            "Lock connection",
            "string",
            "Optional: id of a postgres or redis connection. Its server then decides which task renews the session, so "
            "tasks on many hosts wait less. Use the same on every connection with this API key.",
        ),
        "max_logins_per_hour": _field(
            "Logins per hour",
            "integer",
            "More logins than this in an hour are refused, so that the bank's fraud prevention does not block the key. "
            "Empty: 3. A normal hour needs one.",
            minimum=1,
            maximum=1000,
        ),
        "connect_timeout": _field(
            "Connect timeout",
            "number",
            "Longest wait for a connection to the bank, in seconds. Empty: 5.",
            **_SECONDS,
        ),
        "read_timeout": _field(
            "Read timeout",
            "number",
            "Longest wait for the next bytes of a response, in seconds. Empty: 60.",
            **_SECONDS,
        ),
        "verify": _field(
            "Verify TLS",
            "string",
            "Empty: certificates are checked. The path of a file with your own certificate authorities: checked "
            "against those. false: not checked.",
        ),
        "proxies": _field(
            "Proxies",
            "object",
            'A JSON object, such as {"https": "http://proxy.example:3128"}. Empty: as the environment says.',
        ),
        "headers": _field(
            "Headers",
            "object",
            "A JSON object of further request headers. Do not put a key here: everyone who can see connections "
            "can read it.",
        ),
    }
