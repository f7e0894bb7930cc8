# SPDX-License-Identifier: Apache-2.0
"""Call one endpoint of the bank.

Each parse of a DAG file that uses this module imports it. So it imports at once only what a parse needs. What sends
requests is imported when the task runs.
"""

from __future__ import annotations

import json as json_module
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowFailException, AirflowSkipException, BaseOperator

from intergiro_provider.exceptions import IntergiroError, IntergiroResponseError, IntergiroValueError
from intergiro_provider.links.intergiro import IntergiroPortalLink
from intergiro_provider.operators.rendering import RenderedFields
from intergiro_provider.query import is_pending, whole_query
from intergiro_provider.retry_policy import set_retry_policy
from intergiro_provider.tracebacks import message_only

if TYPE_CHECKING:
    import requests
    from airflow.providers.common.compat.sdk import Context

XCOM_LIMIT = 48 * 1024
"""Bytes of JSON above which a result causes a warning. With what Airflow adds, such a result fits MySQL's column for
XComs (BLOB, 64 KiB), the smallest one. Airflow may store larger results, but they slow down its database."""

OPTIONS = frozenset({
    "allow_redirects", "cert", "check_response", "proxies", "proxy", "retry", "stream", "timeout", "verify",
    "verify_ssl",
})  # fmt: skip
"""The names that `extra_options` can hold."""


class IntergiroOperator(RenderedFields, BaseOperator):
    """Call one endpoint and return the decoded JSON of the response, or None if the response has no body.

    To pull a list of any length, use
    :class:`~intergiro_provider.transfers.intergiro_to_object_storage.IntergiroToObjectStorageOperator`.

    To pay, use the operators of ``intergiro_provider.operators.payments``, which create the idempotency key.

    If the outcome of a writing request is unknown, the task fails with :class:`.OutcomeUnknown`, and Airflow does not
    retry it. A request with an idempotency key is retried: a ``POST`` to ``transactions/move`` or ``transactions/pay``
    (3d) with a ``request_id`` in its body.

    :param endpoint: the endpoint, such as ``accounts``; the provider adds the API's version. (templated)
    :param method: the HTTP method. (templated)
    :param query: the query string, a dict. A list as a value repeats its name. (templated)
    :param json: the body, sent as JSON; not for GET and HEAD. (templated)
    :param headers: headers to add. (templated)
    :param response_check: called with the response, and with names of Airflow's context, as in HttpOperator, such as
        ``lambda response, ti: response.json()["status"] == "open"``. If it returns False, the task fails. Airflow
        retries it, except after a write that must not be repeated.
    :param response_filter: called in the same way. It returns the result, instead of the decoded JSON. The result must
        fit into an XCom, unless ``do_xcom_push`` is False.
    :param extra_options: options of this request, as in :meth:`.IntergiroHook.run`: ``{"timeout": (5, 300)}`` for a
        slow response, ``{"check_response": False}`` to accept an error status.
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
        whole_query(endpoint, None if is_pending(query) else query)
        self._check_body()
        self._check_options()
        set_retry_policy(self)

    def _check_body(self) -> None:
        method = self.method.upper()
        if self.json is not None and method in ("GET", "HEAD"):
            raise IntergiroValueError(f"`json` is the body, and a {method} request has none. Use `query` for filters.")

    def _check_options(self) -> None:
        options: Any = self.extra_options or {}
        if not isinstance(options, Mapping):
            problem = f"is a {type(options).__name__}"
        elif unknown := sorted(str(name) for name in options.keys() - OPTIONS):
            problem = f"holds {', '.join(unknown)}"
        else:
            return
        raise IntergiroValueError(f"`extra_options` {problem}. It must be a dict with {', '.join(sorted(OPTIONS))}.")

    @message_only
    def execute(self, context: Context) -> Any:
        """Send the request, check the response, and return the result."""
        from intergiro_provider.hooks.intergiro import IntergiroHook

        self._check_body()
        hook = IntergiroHook(intergiro_conn_id=self.intergiro_conn_id, method=self.method.upper())
        headers = {name: value if value is None else str(value) for name, value in (self.headers or {}).items()}
        options = dict(self.extra_options or {})
        response = hook.run(self.endpoint, None, headers, options, params=self.query, json=self.json)
        if key := hook.client.idempotency_key(response.request):
            _refuse_another_payment(key, self.json, response)
        try:
            result, size = self._result(response, context)
        except (AirflowFailException, AirflowSkipException, KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # also Airflow's execution_timeout
            if hook.client.is_repeatable(response.request):
                raise
            # The request was sent. If Airflow retried the task, it would be sent again.
            if not isinstance(error, IntergiroError) or error.shows_cause:
                self.log.exception("The response could not be processed.")
            raise hook.client.outcome_unknown(response, _in_short(error)) from None
        if self.do_xcom_push:
            self._check_xcom(result, size)
        return result

    def _result(self, response: requests.Response, context: Context) -> tuple[Any, int]:
        """Return the result, and its size in bytes of JSON."""
        from intergiro_provider.hooks.callables import call

        if self.response_check and not call("response_check", self.response_check, response, context):
            raise IntergiroError(
                f"`response_check` returned False for {_path(self.endpoint)} (status {response.status_code})."
            )
        if self.response_filter:
            result = call("response_filter", self.response_filter, response, context)
            return result, _json_size(result)
        return _decoded(response, _path(self.endpoint)), len(response.content)

    def _check_xcom(self, result: Any, size: int) -> None:
        from intergiro_provider.operators.xcom import what_xcom_cannot_hold

        remedy = "keep less with response_filter, or set do_xcom_push=False"
        if problem := what_xcom_cannot_hold(result):
            raise IntergiroValueError(
                f"{self.method.upper()} {_path(self.endpoint)} was carried out, but an XCom cannot hold the result: "
                f"{problem}. To get a result, {remedy}."
            )
        if size > XCOM_LIMIT:
            self.log.warning(
                "The result of %s is %s bytes of JSON. XComs are for results below %s bytes. Pull lists with "
                "IntergiroToObjectStorageOperator, %s.",
                _path(self.endpoint), f"{size:,}", f"{XCOM_LIMIT:,}", remedy,
            )  # fmt: skip


def _refuse_another_payment(key: str, asked: Any, response: requests.Response) -> None:
    """Refuse a response that shows another payment: a bank repeats its earlier response to an idempotency key.

    :raises PaymentMismatch: names the payment and the fields that differ.
    """
    from intergiro_provider.payments.look_up import mismatch, shown_id

    try:
        paid = response.json()
    except ValueError:
        return
    if not isinstance(paid, dict) or not isinstance(asked, Mapping) or response.status_code >= 300:
        return
    pairs = {
        "amount": (asked.get("amount"), abs(paid["amount"]) if isinstance(paid.get("amount"), int) else None),
        "account_id": (asked.get("account_id", asked.get("source_account_id")), paid.get("account_id")),
        "reference": (asked.get("reference"), paid.get("reference")),
    }
    differ = [name for name, (wanted, shown) in pairs.items() if None not in (wanted, shown) and wanted != shown]
    if differ:
        raise mismatch(key, shown_id(paid), f"differs from this request in {', '.join(differ)}")


def _in_short(error: BaseException) -> str:
    """Return what went wrong after the response. The text of errors that are not ours can quote the response."""
    return str(error) if isinstance(error, IntergiroError) else f"its processing raised {type(error).__name__}"


def _path(endpoint: str) -> str:
    """Return the endpoint without its query, which must not be logged."""
    return str(endpoint).partition("?")[0]


def _decoded(response: requests.Response, endpoint: str) -> Any:
    if not response.content:
        return None
    try:
        return json_module.loads(response.content, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):  # "from None": the exception holds the response
        kind = response.headers.get("Content-Type", "no content type")
        raise IntergiroResponseError(
            f"{endpoint} returned {response.status_code} with a body that is not JSON ({kind}). To return something "
            "else than decoded JSON, use `response_filter`."
        ) from None


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _json_size(result: Any) -> int:
    try:
        return len(json_module.dumps(result, default=str))
    except (TypeError, ValueError):  # keys that are no strings, or a cycle: XCom raises the error
        return 0
