# SPDX-License-Identifier: Apache-2.0
"""Call one endpoint of Intergiro.

A light module: it is imported at every parse of every DAG file that uses it, so what makes requests is
imported when the task runs, and errors where they are raised.
"""

from __future__ import annotations

import json as json_module
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import BaseOperator

from intergiro_provider.links.intergiro import IntergiroPortalLink
from intergiro_provider.retry_policy import wait_as_told

if TYPE_CHECKING:
    import requests
    from airflow.providers.common.compat.sdk import Context

XCOM_COMFORT = 48 * 1024
"""Bytes of JSON from which a result is called too large for XCom: with what Airflow adds, it still fits the
smallest of the columns that hold XComs (MySQL's BLOB, 64 KiB). Larger results may be stored, but burden the
metadata database."""

OPTIONS = frozenset({
    "allow_redirects", "cert", "check_response", "proxies", "proxy", "retry", "stream", "timeout", "verify",
    "verify_ssl",
})  # fmt: skip
"""What `extra_options` may hold."""


class IntergiroOperator(BaseOperator):
    """Call one endpoint and return what it answers, decoded from JSON; None if it answers nothing (204).

    To pull a list of any length, use
    :class:`~intergiro_provider.transfers.intergiro_to_object_storage.IntergiroToObjectStorageOperator`.

    A call that moves money carries a ``request_id``, the bank's idempotency key. Make one that is the same in
    each try of the task, so that a retry after a lost answer does not pay twice, and that another run does
    not share:

    .. code-block:: python

        IntergiroOperator(
            task_id="pay_rent",
            endpoint="transactions/pay",
            method="POST",
            json={
                "request_id": "{{ macros.uuid.uuid5(macros.uuid.NAMESPACE_OID, 'rent ' ~ run_id) }}",
                "account_id": "{{ params.account_id }}",
                "amount": 125000,
                "reference": "Rent",
                "counterparty": {
                    "name": "{{ params.landlord }}",
                    "account": {"iban": "{{ params.iban }}", "bic": "{{ params.bic }}"},
                },
            },
        )

    :param endpoint: what to call, such as ``accounts``; the API's version is put before it. (templated)
    :param method: the HTTP method. (templated)
    :param query: the query string, a dict; a list as a value repeats its name. (templated)
    :param json: the body, sent as JSON; not for GET and HEAD. (templated)
    :param headers: headers to add. (templated)
    :param response_check: called with the response, and with the names of Airflow's context that it asks for,
        as the HttpOperator does: ``lambda response, ti: response.json()["status"] == "open"``. If it returns
        False, the task fails, and is retried.
    :param response_filter: called alike; what it returns is the result instead of the decoded JSON.
    :param extra_options: of this call alone, as for :meth:`.IntergiroHook.run`: ``{"timeout": (5, 300)}`` for an answer
        that takes long, ``{"check_response": False}`` to get an error status as a result.
    :param intergiro_conn_id: the connection. (templated)
    """

    template_fields: Sequence[str] = ("endpoint", "method", "query", "json", "headers", "intergiro_conn_id")
    template_fields_renderers = {"query": "json", "json": "json", "headers": "json"}  # noqa: RUF012 - Airflow's form
    ui_color = "#e3f1ec"
    operator_extra_links = (IntergiroPortalLink(),)

    def __init__(
        self,
        *,
        endpoint: str,
        method: str = "GET",
        query: Mapping[str, Any] | None = None,
        json: Any = None,
        headers: Mapping[str, str] | None = None,
        response_check: Callable[..., bool] | None = None,
        response_filter: Callable[..., Any] | None = None,
        extra_options: Mapping[str, Any] | None = None,
        intergiro_conn_id: str = "intergiro_default",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.endpoint = endpoint
        self.method = method
        self.query = query
        self.json = json
        self.headers = headers
        self.response_check = response_check
        self.response_filter = response_filter
        self.extra_options = extra_options
        self.intergiro_conn_id = intergiro_conn_id
        self._check_body()
        self._check_options()
        wait_as_told(self)

    def _check_body(self) -> None:
        method = self.method.upper()
        if self.json is not None and method in ("GET", "HEAD"):
            from intergiro_provider.exceptions import IntergiroValueError

            raise IntergiroValueError(f"`json` is the body, and a {method} request has none: use `query` for filters")

    def _check_options(self) -> None:
        options: Any = self.extra_options or {}
        if not isinstance(options, Mapping):
            problem = f"not a {type(options).__name__}"
        elif unknown := sorted(str(name) for name in options.keys() - OPTIONS):
            problem = f"not of {', '.join(unknown)}"
        else:
            return
        from intergiro_provider.exceptions import IntergiroValueError

        raise IntergiroValueError(f"`extra_options` has to be a dict of {', '.join(sorted(OPTIONS))}, {problem}")

    def execute(self, context: Context) -> Any:
        """Call, check, and return the result."""
        from intergiro_provider.exceptions import IntergiroError
        from intergiro_provider.hooks.callables import call
        from intergiro_provider.hooks.intergiro import IntergiroHook

        self._check_body()
        hook = IntergiroHook(intergiro_conn_id=self.intergiro_conn_id, method=self.method.upper())
        arguments = {"params": self.query, "json": self.json}
        headers = dict(self.headers) if self.headers else None
        response = hook.run(self.endpoint, None, headers, dict(self.extra_options or {}), **arguments)
        if self.response_check and not call(self.response_check, response, context):
            raise IntergiroError(
                f"response_check returned False for {_path(self.endpoint)} (status {response.status_code})"
            )
        if self.response_filter:
            result = call(self.response_filter, response, context)
            size = _json_size(result)
        else:
            result = _decoded(response, _path(self.endpoint))
            size = len(response.content)
        if self.do_xcom_push and size > XCOM_COMFORT:
            self.log.warning(
                "The result of %s is %s bytes of JSON. XCom, where it goes, is meant for results below %s "
                "bytes: pull lists with "
                "IntergiroToObjectStorageOperator, keep less with response_filter, or set "
                "do_xcom_push=False.",
                _path(self.endpoint), f"{size:,}", f"{XCOM_COMFORT:,}",
            )  # fmt: skip
        return result


def _path(endpoint: str) -> str:
    """An endpoint as it may be shown: without its query."""
    return str(endpoint).partition("?")[0]


def _decoded(response: requests.Response, endpoint: str) -> Any:
    from intergiro_provider.exceptions import IntergiroResponseError

    if not response.content:
        return None
    try:
        return json_module.loads(response.content)
    except ValueError:  # UnicodeDecodeError is one; "from None": the exception holds the answer
        kind = response.headers.get("Content-Type", "no content type")
        raise IntergiroResponseError(
            f"{endpoint} answered {response.status_code} with something that is not JSON ({kind}); "
            "use response_filter to return something else than decoded JSON"
        ) from None


def _json_size(result: Any) -> int:
    try:
        return len(json_module.dumps(result, default=str))
    except (TypeError, ValueError):  # keys that are no strings, circles: then XCom will say
        return 0
