# SPDX-License-Identifier: Apache-2.0
"""The requests for the pages of one list: what is the same for every page is prepared once.

A ``requests.Session`` merges settings, prepares and encodes everything again for each request. Here the request is
prepared once, and a page is sent through the session's own pool of connections: the same certificates, proxies and
authentication, and, since ``HTTPAdapter.send`` does it, the same exceptions (``docs/benchmarks.md`` has the figures).
"""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote_plus, urlencode

import requests
from requests.adapters import BaseAdapter, HTTPAdapter
from requests.hooks import default_hooks

from intergiro_provider.api.http import ApiSession


class ListReader:
    """Reads one list. Threads may share it.

    :param session: sends the requests.
    :param url: the URL of the list; may contain a query.
    """

    def __init__(self, session: ApiSession, url: str) -> None:
        self._session = session
        template = requests.PreparedRequest()
        template.prepare(method="GET", url=url, headers=session.headers)
        self._template = template
        self._url, _, self._fixed = (template.url or "").partition("#")[0].partition("?")
        self._adapter: tuple[int, BaseAdapter | None] = (0, None)

    def send(self, request: requests.PreparedRequest) -> requests.Response:
        """Send a request once and return the response with its body.

        Statuses are not checked, but after a 401 the session is renewed, and redirects are followed.

        :raises requests.RequestException: there is no response, or only a part of it.
        """
        self._session.part_from_parent()
        response = self._session.get_page(self._current_adapter(), request)
        if response.is_redirect:
            response.close()
            return self._session.send(request)
        response._content = b"".join(response.iter_content(None))  # at once, not in pieces of 10 KB
        return response

    def request(self, query: Mapping[str, Any]) -> requests.PreparedRequest:
        """Prepare the request for one page."""
        template = self._template
        request = requests.PreparedRequest()
        request.method, request.headers, request.hooks = template.method, template.headers.copy(), default_hooks()
        request._cookies = template._cookies  # type: ignore[attr-defined] # a copy of the request wants some
        given = {name: _without_none(value) for name, value in query.items() if value is not None}
        asked = urlencode(given, doseq=True, quote_via=_quote)
        request.url = "?".join(filter(None, (self._url, "&".join(filter(None, (self._fixed, asked))))))
        return request

    def _current_adapter(self) -> BaseAdapter:
        pid, adapter = self._adapter
        if adapter is None or pid != os.getpid():  # a fork has closed the pool of its parent
            adapter = self._new_adapter()
            self._adapter = os.getpid(), adapter
        return adapter

    def _new_adapter(self) -> BaseAdapter:
        adapter = self._session.get_adapter(self._url)
        if not isinstance(adapter, HTTPAdapter) or type(adapter).send is not HTTPAdapter.send:
            return adapter  # an adapter of the user, which may have other features
        return _OnePool(adapter, self._template, self._session)


_quote = functools.lru_cache(128)(quote_plus)  # in the query, only the cursor differs between pages


def _without_none(value: Any) -> Any:
    """Encode a query as requests does: without None, also in lists."""
    return [item for item in value if item is not None] if isinstance(value, (list, tuple, set)) else value


class _OnePool(HTTPAdapter):
    """Sends to one origin through a pool of another adapter."""

    def __init__(self, adapter: HTTPAdapter, request: requests.PreparedRequest, session: ApiSession) -> None:
        super().__init__(max_retries=adapter.max_retries)
        pool: Any = adapter.get_connection_with_tls_context(
            request, session.verify, proxies=session.proxies, cert=session.cert
        )
        adapter.cert_verify(pool, request.url, session.verify, session.cert)  # type: ignore[no-untyped-call]
        self._pool = pool
        url = request.url or ""
        self._path_at = url.index("/", url.index("://") + 3)

    def get_connection_with_tls_context(self, *_: Any, **__: Any) -> Any:
        return self._pool

    def cert_verify(self, *_: Any, **__: Any) -> None:
        """Do nothing: the pool verifies certificates."""

    def request_url(self, request: requests.PreparedRequest, proxies: Any) -> str:
        # Never an absolute URL: only http through a proxy needs one, and http is allowed for this machine only.
        return (request.url or "")[self._path_at :]

    def build_response(self, request: requests.PreparedRequest, resp: Any) -> requests.Response:
        response = requests.Response()
        response.status_code, response.reason, response.raw = resp.status, resp.reason, resp
        response.headers.update(resp.headers)
        response.url, response.request = request.url or "", request
        response.connection = self
        return response
