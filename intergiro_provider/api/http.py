# SPDX-License-Identifier: Apache-2.0
"""The ``requests.Session`` that everything is sent through."""

from __future__ import annotations

import os
from http.cookiejar import DefaultCookiePolicy
from typing import Any
from urllib.parse import urlsplit

import requests
from requests.adapters import BaseAdapter, HTTPAdapter
from requests.hooks import dispatch_hook

from intergiro_provider.api.bank import USER_AGENT
from intergiro_provider.api.environment import proxies_and_verify
from intergiro_provider.api.errors import described
from intergiro_provider.api.settings import ApiSettings, origin_of
from intergiro_provider.exceptions import IntergiroResponseError


class ApiSession(requests.Session):
    """A session that never waits without end, keeps no cookies and is careful with redirects.

    :param settings: time-outs, proxies, certificates and headers.
    :param adapter: the transport, which holds the pool of connections.
    """

    def __init__(self, settings: ApiSettings, adapter: BaseAdapter) -> None:
        super().__init__()
        self.timeout: Any = settings.timeout
        self._endpoint_url = settings.url
        self.proxies, self.verify = proxies_and_verify(settings)
        self.trust_env = False
        self._own_headers = tuple(settings.headers)
        self._pid = os.getpid()
        self.headers.update({"User-Agent": USER_AGENT, "Accept": "application/json", **settings.headers})
        # The bank needs none, and a cookie jar is state that threads would share.
        self.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        self.mount("https://", adapter)
        self.mount("http://", adapter)

    def request(self, method: str | bytes, url: str | bytes, *args: Any, **kwargs: Any) -> requests.Response:
        """As in ``requests``; `url` may also be an endpoint, such as ``transactions``."""
        if isinstance(url, str) and "://" not in url.split("?", 1)[0]:
            url = self._endpoint_url(url)
        return super().request(method, url, *args, **kwargs)

    def send(self, request: requests.PreparedRequest, **kwargs: Any) -> requests.Response:
        kwargs["timeout"] = self._complete(kwargs.get("timeout"))
        self.part_from_parent()
        return super().send(request, **kwargs)

    def send_through(self, adapter: BaseAdapter, request: requests.PreparedRequest) -> requests.Response:
        """Send a request to which only the bearer is missing; return the answer with its body unread.

        As :meth:`send` in everything else, but redirects are not followed.
        """
        if callable(self.auth):
            request = self.auth(request)
        how: dict[str, Any] = {"stream": True, "timeout": self.timeout, "verify": self.verify, "cert": self.cert}
        how["proxies"] = self.proxies
        response = adapter.send(request, **how)
        answered: requests.Response = dispatch_hook("response", request.hooks, response, **how)  # type: ignore[no-untyped-call]
        return answered

    def part_from_parent(self) -> None:
        """Close what a fork shares with its parent: on such a connection, each would read the other's answers."""
        if self._pid == os.getpid():
            return
        self._pid = os.getpid()
        for adapter in set(self.adapters.values()):
            if isinstance(adapter, HTTPAdapter):
                adapter.close()

    def _complete(self, timeout: Any) -> Any:
        """A time-out without gaps."""
        if timeout is None:
            return self.timeout
        if isinstance(timeout, tuple):
            return tuple(own if own is not None else ours for own, ours in zip(timeout, self.timeout, strict=True))
        return timeout

    def rebuild_auth(self, prepared_request: requests.PreparedRequest, response: requests.Response) -> None:
        """After a redirect to another origin: take the bearer off, and never send a body there."""
        if origin_of(prepared_request.url or "") == origin_of(response.request.url or ""):
            return
        for name in ("Authorization", *self._own_headers):
            prepared_request.headers.pop(name, None)
        if prepared_request.body is not None:
            raise IntergiroResponseError(
                f"Intergiro redirected {described(response.request.method, response.request.url)} to another host, "
                f"{urlsplit(prepared_request.url or '').hostname}; its body is not sent there."
            )
