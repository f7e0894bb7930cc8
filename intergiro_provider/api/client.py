# SPDX-License-Identifier: Apache-2.0
"""The client of one bank: it builds requests, authenticates, sends them, and retries what may be sent again."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import requests
from requests.adapters import BaseAdapter

from intergiro_provider.api.auth import IntergiroAuth
from intergiro_provider.api.errors import described, error_of, retry_after_of, unreachable
from intergiro_provider.api.http import NO_RESPONSE, ApiSession, Transmit
from intergiro_provider.api.reader import ListReader
from intergiro_provider.api.retries import certainly_unsent, retrying
from intergiro_provider.api.settings import ApiSettings
from intergiro_provider.api.transport import SkipInterimAdapter
from intergiro_provider.api.writes import (
    IDEMPOTENT,
    idempotency_key,
    is_repeatable,
    outcome_unknown,
    raise_if_unknown,
    raise_if_unreadable,
)
from intergiro_provider.exceptions import IntergiroAuthError, IntergiroValueError, OutcomeUnknown, UnreadableResponse
from intergiro_provider.query import warn_of_unknown_filters, whole_query
from intergiro_provider.session.driver import SharedSession

T = TypeVar("T")

CONNECTIONS = 128
"""The largest number of connections that a client keeps open. A pull opens one for each window."""
SAFE = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
REFUSALS = frozenset(range(400, 500)) - {408, 412, 425, 429}
"""Statuses that end the attempts. Not 412: if consent is missing now, it was missing at the first attempt, too."""


class IntergiroClient:
    """Calls the Intergiro API. Threads may share it; a forked process needs one of its own (see `pid`).

    :param settings: where the bank is and how to talk to it.
    :param shared: the bank's session, shared with every other task.
    :param adapter: the transport; None: one with a pool of `CONNECTIONS`.
    """

    def __init__(self, settings: ApiSettings, shared: SharedSession, adapter: BaseAdapter | None = None) -> None:
        self.settings = settings
        self.pid = os.getpid()
        self._bearer = IntergiroAuth(shared, settings.origin)
        self._adapter = adapter or SkipInterimAdapter(pool_maxsize=CONNECTIONS)
        self.session = self.new_session()
        self._retrying = {repeatable: retrying(repeatable=repeatable) for repeatable in (True, False)}

    def authenticate(self) -> None:
        """Make sure that there is an access token, so that the next request does not wait for a login.

        :raises IntergiroError: there is no session.
        """
        self._bearer.obtain_token()

    def new_session(self) -> ApiSession:
        """Return a new `ApiSession` with this client's connections and bank session."""
        return ApiSession(self.settings, self._adapter, self._bearer)

    def request(
        self,
        method: str,
        endpoint: str | None,
        data: Any = None,
        headers: Mapping[str, str] | None = None,
        options: Mapping[str, Any] | None = None,
        **arguments: Any,
    ) -> requests.Response:
        """Send one request and return the response.

        :param endpoint: ``transactions``, ``/v3/transactions`` or a full URL on the connection's own origin.
        :param data: for GET the query, a dict; otherwise the body: a dict or list is sent as JSON, str and bytes as
            they are.
        :param headers: further headers of this request.
        :param options: as the `extra_options` of :meth:`.IntergiroHook.run`. Also `before_send`, as in
            :meth:`.ApiSession.send`.
        :param arguments: of ``requests.Request``, such as ``json`` or ``params``.
        :raises IntergiroApiError: for a status of 400 or above.
        :raises OutcomeUnknown: the bank may have carried out a write that must not be repeated.
        :raises IntergiroError: there is no session, or the request is not possible.
        """
        options = options or {}
        arguments = _body_arguments(method, data, arguments)
        if isinstance(query := arguments.get("params"), (Mapping, type(None))):
            endpoint, arguments["params"] = whole_query(endpoint, query)
            if method == "GET":
                warn_of_unknown_filters(endpoint, arguments["params"])
        url = self.settings.url(endpoint)
        try:
            request = self.session.prepare_request(requests.Request(method, url, headers=headers, **arguments))
        except (requests.RequestException, TypeError, ValueError) as error:
            if isinstance(error, IntergiroValueError):
                raise
            raise IntergiroValueError(
                f"The request {described(method, url)} cannot be made ({type(error).__name__}): a header, a part of "
                "the URL or the body cannot be encoded. Nothing was sent."
            ) from None
        how: Any = self.session.merge_environment_settings(
            request.url,
            options.get("proxies", options.get("proxy")) or {},
            options.get("stream"),
            options.get("verify", options.get("verify_ssl")),
            options.get("cert"),
        )
        how |= {name: options.get(name) for name in ("timeout", "before_send")}
        how["allow_redirects"] = options.get("allow_redirects", True)
        check = options.get("check_response", True)

        def transmit(request: requests.PreparedRequest) -> requests.Response:
            response = self.session.send(request, **how)
            if check and not how["stream"]:
                raise_if_unreadable(self.settings, response)
            return response

        return self.deliver(request, transmit, retry=options.get("retry", True), check=check)

    def deliver(
        self, request: requests.PreparedRequest, transmit: Transmit, *, retry: bool = True, check: bool = True
    ) -> requests.Response:
        """Send a prepared request; repeat it if that is safe and may help.

        :param transmit: sends it once.
        :param check: whether an error status is raised as an error.
        :raises IntergiroApiError: for a status of 400 or above.
        :raises BankUnavailable: there was no response.
        :raises OutcomeUnknown: the bank may have carried out a write that must not be repeated.
        """
        repeatable = is_repeatable(self.settings, request)
        doubts = []

        def attempt(request: requests.PreparedRequest) -> requests.Response:
            try:
                response = transmit(request)
            except (UnreadableResponse, *NO_RESPONSE) as error:
                if not certainly_unsent(error):
                    doubts.append(type(error).__name__)
                raise
            if response.status_code == 408 or response.status_code >= 500:
                doubts.append(f"status {response.status_code}")
            return response

        try:
            response = self._retrying[repeatable](attempt, request) if retry else attempt(request)
        except NO_RESPONSE as error:
            raise unreachable(request, error, in_doubt=bool(doubts) and request.method not in IDEMPOTENT) from None
        except IntergiroAuthError:
            if doubts and request.method not in SAFE:
                raise self._refused_after(doubts[-1], request, 401) from None
            raise
        if check:
            if doubts and request.method not in SAFE and response.status_code in REFUSALS:
                raise self._refused_after(doubts[-1], request, response.status_code)
            self.check(response)
        return response

    def is_repeatable(self, request: requests.PreparedRequest) -> bool:
        """Return whether this request may be sent again after the bank may have carried it out."""
        return is_repeatable(self.settings, request)

    def idempotency_key(self, request: requests.PreparedRequest) -> str | None:
        """Return the key with which the bank recognizes a repetition of this request; None if it has none."""
        return idempotency_key(self.settings, request)

    def outcome_unknown(self, response: requests.Response, happened: str) -> OutcomeUnknown:
        """Return the error for a write whose response does not say whether it was carried out."""
        what = f"status {response.status_code}, but {happened}"
        return outcome_unknown(self.settings, response.request, what, response.status_code)

    def _refused_after(self, doubt: str, request: requests.PreparedRequest, status: int) -> OutcomeUnknown:
        """Return the error for a refused repetition. It does not show the outcome of the first attempt."""
        happened = f"an earlier attempt ended with {doubt}, and the last one with status {status}"
        return outcome_unknown(self.settings, request, happened, status)

    def page_getter(
        self,
        endpoint: str | None,
        read: Callable[[bytes], T],
        on_response: Callable[[int, float | None], None] = lambda status, retry_after: None,
    ) -> Callable[[Mapping[str, Any]], T]:
        """Return a function that requests pages of a list, by the rules of :meth:`request` but with less work per page.

        :param read: reads the body of a page; if it raises :class:`.UnreadableResponse`, the request is repeated.
        :param on_response: called with the status and the `Retry-After`, in seconds, of every response, before it is
            decided whether the request is repeated. An exception that it raises ends the request.
        :return: a function of the query that returns the page; threads may share it.
        """
        reader = ListReader(self.session, self.settings.url(endpoint))

        def get_page(query: Mapping[str, Any]) -> T:
            pages = []

            def transmit(request: requests.PreparedRequest) -> requests.Response:
                response = reader.send(request)
                on_response(response.status_code, retry_after_of(response.headers))
                if response.ok:
                    pages.append(read(response.content))
                return response

            self.deliver(reader.request(query), transmit)
            return pages[-1]

        return get_page

    def check(self, response: requests.Response) -> None:
        """Raise the error that a response stands for.

        :raises IntergiroApiError: for a status of 400 or above.
        :raises OutcomeUnknown: the bank may have carried out a write that must not be repeated.
        """
        raise_if_unknown(self.settings, response)
        if response.status_code >= 400:
            raise error_of(response, self.idempotency_key(response.request))


def _body_arguments(method: str, data: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    """Put `data` into the query of a GET, otherwise into the body."""
    arguments = dict(given)
    if method in ("GET", "HEAD"):
        if data:
            arguments["params"] = {**data, **(arguments.get("params") or {})} if isinstance(data, dict) else data
    elif isinstance(data, (dict, list)):
        if data and arguments.get("json") is not None:
            raise IntergiroValueError("`data` and `json` are both given: both would be the body. Give one of them.")
        if arguments.get("files"):
            return {**arguments, "data": data}
        # The stock HttpOperator passes an empty dict if its user gave nothing.
        if data or (method in ("POST", "PUT", "PATCH") and "json" not in arguments):
            arguments.setdefault("json", data)
    elif data is not None:
        arguments["data"] = data
    return arguments
