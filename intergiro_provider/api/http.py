# SPDX-License-Identifier: Apache-2.0
"""The ``requests.Session`` that every request of a client goes through."""

from __future__ import annotations

import codecs
import functools
import os
from collections.abc import Callable
from http.cookiejar import DefaultCookiePolicy
from typing import Any
from urllib.parse import urlsplit

import requests
import urllib3
from requests.adapters import BaseAdapter, HTTPAdapter

from intergiro_provider.api.auth import IntergiroAuth
from intergiro_provider.api.environment import proxies_and_verify
from intergiro_provider.api.errors import described
from intergiro_provider.api.retries import certainly_unsent
from intergiro_provider.api.settings import ApiSettings, origin_of
from intergiro_provider.api.writes import is_repeatable, outcome_unknown, raise_if_unknown, raise_if_unreadable
from intergiro_provider.exceptions import IntergiroError, IntergiroResponseError, IntergiroValueError

Transmit = Callable[[requests.PreparedRequest], requests.Response]
NO_RESPONSE = (requests.RequestException, urllib3.exceptions.HTTPError)
"""The errors without a response. requests does not wrap all errors of urllib3."""


class ApiSession(requests.Session):
    """A session with one bank: with authentication and timeouts, without cookies, and only for its origin.

    :param settings: timeouts, proxies, certificates and headers.
    :param adapter: the transport, which holds the pool of connections.
    :param bearer: adds the access token; None: requests have none.
    """

    def __init__(self, settings: ApiSettings, adapter: BaseAdapter, bearer: IntergiroAuth | None = None) -> None:
        super().__init__()
        self.timeout: Any = settings.timeout
        self._settings = settings
        self._bearer = bearer
        self.proxies, self.verify = proxies_and_verify(settings)
        self.trust_env = False
        self._pid = os.getpid()
        self.headers.update({"User-Agent": settings.user_agent, "Accept": "application/json", **settings.headers})
        # The bank needs no cookies, and threads would share the cookie jar.
        self.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        self.hooks["response"].append(_refuse_hints)
        self.mount("https://", adapter)
        self.mount("http://", adapter)

    def request(self, method: str | bytes, url: str | bytes, *args: Any, **kwargs: Any) -> requests.Response:
        """As in ``requests``; `url` may also be an endpoint, such as ``transactions``.

        :raises OutcomeUnknown: the bank may have carried out a write that must not be repeated.
        """
        url = self._settings.url(url.decode() if isinstance(url, bytes) else url)
        response = super().request(method, url, *args, **kwargs)
        if not is_repeatable(self._settings, response.request):
            raise_if_unknown(self._settings, response)
            if not (kwargs.get("stream") or self.stream):
                raise_if_unreadable(self._settings, response)
        return response

    def send(self, request: requests.PreparedRequest, **kwargs: Any) -> requests.Response:
        """Send a prepared request; follow redirects that keep its origin, method and body.

        :param kwargs: as in ``requests``; and `before_send`, a function to call after the authentication, immediately
            before the request. If it raises an error, nothing is sent.
        :raises OutcomeUnknown: there is no response to a write that must not be repeated, or one that redirects it.
        """
        if not isinstance(request.body, (bytes, str, bytearray, type(None))):
            raise IntergiroValueError(
                f"The body of {described(request.method, request.url)} can be read only once, and may have to be sent "
                "again after the access token has expired. Give its content: bytes, str, or `json`."
            )
        kwargs["timeout"] = self._complete(kwargs.get("timeout"))
        follow = kwargs.pop("allow_redirects", True)
        before_send: Callable[[], None] | None = kwargs.pop("before_send", None)
        self.part_from_parent()
        send_once: Transmit = functools.partial(super().send, allow_redirects=False, **kwargs)

        def transmit(request: requests.PreparedRequest) -> requests.Response:
            if before_send is not None:
                before_send()
            return send_once(request)

        history: list[requests.Response] = []
        while True:
            response = self._exchange(request, transmit)
            if not follow or not 300 <= response.status_code < 400 or _is_unchanged(response):
                response.history = history
                if not (kwargs.get("stream") or self.stream) and response.content.startswith(codecs.BOM_UTF8):
                    response.encoding = "utf-8-sig"
                return response
            request = self._redirected(response)
            history.append(response)
            if len(history) > self.max_redirects:
                raise self._refused(response, f"more than {self.max_redirects} redirects")

    def get_page(self, adapter: BaseAdapter, request: requests.PreparedRequest) -> requests.Response:
        """Send a GET through this adapter; return the response with its body unread. Redirects are not followed."""
        how: dict[str, Any] = {"stream": True, "timeout": self.timeout, "verify": self.verify, "cert": self.cert}
        return self._exchange(request, functools.partial(adapter.send, proxies=self.proxies, **how))

    def _exchange(self, request: requests.PreparedRequest, transmit: Transmit) -> requests.Response:
        def attempt(request: requests.PreparedRequest) -> requests.Response:
            try:
                return transmit(request)
            except NO_RESPONSE as error:
                if certainly_unsent(error) or is_repeatable(self._settings, request):
                    raise
                # The cause is not chained: its text holds the URL with its query.
                raise outcome_unknown(self._settings, request, f"no response ({type(error).__name__})") from None
            except (Exception, KeyboardInterrupt, SystemExit):
                raise
            except BaseException as error:  # Airflow's execution_timeout, after which Airflow would retry the task
                if is_repeatable(self._settings, request):
                    raise
                unknown = outcome_unknown(self._settings, request, f"no response ({type(error).__name__})")
                unknown.interrupted = True
                raise unknown from None

        return self._bearer.exchange(request, attempt) if self._bearer else attempt(request)

    def get_redirect_target(self, response: requests.Response) -> str | None:
        """As in ``requests``, but a target that is not a URL raises an error of the provider."""
        try:
            target = super().get_redirect_target(response)
            urlsplit(target or "")
        except ValueError:
            raise self._refused(response, "a redirect to what is not a URL") from None
        return target

    def _redirected(self, response: requests.Response) -> requests.PreparedRequest:
        """Return the request that a redirect asks for."""
        asked, following = response.request, response.next
        if following is None:
            raise self._refused(response, f"status {response.status_code}, which is neither a result nor a redirect")
        if following.method != asked.method or following.body is not asked.body:
            raise self._refused(response, f"a redirect with {response.status_code}, which drops the method or the body")
        if origin_of(following.url or "") != self._settings.origin:
            host = urlsplit(following.url or "").netloc
            raise self._refused(response, f"a redirect to {host}, which is not {self._settings.origin}")
        return following

    def _refused(self, response: requests.Response, what: str) -> IntergiroError:
        # A bank that returns 307 or 308 has not carried the request out; one that returns 303 usually has.
        if response.status_code not in (307, 308) and not is_repeatable(self._settings, response.request):
            return outcome_unknown(self._settings, response.request, what, response.status_code)
        return IntergiroResponseError(
            f"Intergiro responded to {described(response.request.method, response.request.url)} with {what}. It was "
            "not followed. Check the connection's host, `api` and `environment`."
        )

    def part_from_parent(self) -> None:
        """After a fork, close the connections of the parent, where each process could read the other's responses."""
        if self._pid == os.getpid():
            return
        self._pid = os.getpid()
        for adapter in set(self.adapters.values()):
            if isinstance(adapter, HTTPAdapter):
                adapter.close()

    def _complete(self, timeout: Any) -> Any:
        """Return a timeout for connecting and one for reading, with the settings' values where none is given."""
        if timeout is None:
            return self.timeout
        if isinstance(timeout, tuple):
            return tuple(own if own is not None else ours for own, ours in zip(timeout, self.timeout, strict=True))
        return timeout


def _is_unchanged(response: requests.Response) -> bool:
    """Return whether this is a 304 to a conditional GET. For other requests, a 304 is an error."""
    asked = response.request
    conditional = "If-None-Match" in asked.headers or "If-Modified-Since" in asked.headers
    return response.status_code == 304 and asked.method in ("GET", "HEAD") and conditional


def _refuse_hints(response: requests.Response, **kwargs: Any) -> None:
    """Close a connection on which another response may follow, if the adapter is not one of ours."""
    if response.status_code < 200:
        response.raw.close()
        raise requests.ConnectionError(f"informational status {response.status_code} instead of a response")
