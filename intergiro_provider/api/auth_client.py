# SPDX-License-Identifier: Apache-2.0
"""The requests of a renewal. None is repeated automatically, follows a redirect, or exceeds its time limit."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import requests

from intergiro_provider.api.environment import proxies_and_verify
from intergiro_provider.api.errors import http_date, retry_after_of
from intergiro_provider.api.retries import certainly_unsent, handshake_failure
from intergiro_provider.api.settings import ApiSettings
from intergiro_provider.api.transport import SkipInterimAdapter
from intergiro_provider.exceptions import IntergiroError, StoreUnavailable, looks_like_an_id
from intergiro_provider.session.documents import fits_a_header
from intergiro_provider.session.effects import BankResponse, Moment, Outcome

LOGIN_REFUSALS = frozenset({400, 401, 403})
REFRESH_REFUSALS = frozenset({400, 401, 403, 409, 410, 422})

_offsets: dict[str, float] = {}


def note_time(origin: str, headers: Mapping[str, str]) -> float | None:
    """Remember the offset of the bank's clock from a Date header; return its epoch seconds, None without one."""
    at = http_date(headers.get("Date") or "")
    if at is not None:
        _offsets[origin] = at - time.time()
    return at


class AuthClient:
    """Sends the requests of a renewal: login, refresh, and the probe of an access token.

    :param settings: where the bank is and how to talk to it.
    :param call: upper limit in seconds for a whole call.
    :param reload: reads the connection again.
    """

    def __init__(self, settings: ApiSettings, call: float, reload: Callable[[], ApiSettings]) -> None:
        self._settings = settings
        self._call = call
        self._reload = reload

    def log_in(self) -> BankResponse:
        """Exchange the API key for the first pair of tokens."""
        response = self._post("auth/login", {"api_key": self._settings.api_key})
        return self._tokens(response, LOGIN_REFUSALS)

    def refresh(self, refresh_token: str) -> BankResponse:
        """Exchange the refresh token for the next pair."""
        response = self._post("auth/refresh", {"refresh_token": refresh_token})
        return self._tokens(response, REFRESH_REFUSALS)

    def probe(self, access_token: str, refused_path: str) -> BankResponse:
        """Test an access token at another path than the one that refused it."""
        response = self._send(
            "GET",
            self._settings.probe_url(refused_path),
            params={"limit": "1"},
            headers={"Authorization": f"Bearer {access_token}"},
        )
        if isinstance(response, BankResponse):
            return response
        status = response.status_code
        if status < 300 or status == 403:
            outcome = Outcome.OK
        elif status == 429 or status >= 500:
            outcome = Outcome.UNAVAILABLE
        else:
            outcome = Outcome.REFUSED
        return self._result(outcome, response)

    def time(self, exact: bool) -> Moment:
        """Return the time by the bank's clock, if it is known.

        :param exact: if it is not known, send a request without a token to learn it.
        """
        origin = self._settings.origin
        if exact and origin not in _offsets:
            self.reach()
        return Moment(time.time() + _offsets.get(origin, 0.0), exact=origin in _offsets)

    def reach(self) -> BankResponse:
        """Send a request without a token, to get the status (usually 401) and the bank's time."""
        response = self._send("GET", self._settings.probe_url(""), params={"limit": "1"}, headers={})
        return response if isinstance(response, BankResponse) else self._result(Outcome.OK, response)

    def has_current_key(self) -> bool:
        """Read the connection again; return whether it still has this origin and API key.

        :raises StoreUnavailable: the connection cannot be read.
        """
        try:
            return self._reload().key == self._settings.key
        except IntergiroError:
            raise
        except Exception as error:
            kind = type(error).__name__
        # Outside the handler: the error's text may quote the connection.
        raise StoreUnavailable(
            f"The connection could not be read again before a login ({kind}), so none was made. The task can "
            "be retried."
        )

    def _post(self, endpoint: str, body: dict[str, str]) -> requests.Response | BankResponse:
        return self._send("POST", self._settings.url(endpoint), json=body, headers={})

    def _send(
        self, method: str, url: str, *, headers: dict[str, str], **kwargs: Any
    ) -> requests.Response | BankResponse:
        """Return the whole response, or an :class:`BankResponse` if there is none."""
        settings = self._settings
        # requests limits each wait for bytes, but not their sum: a slow response would exceed every timeout.
        # The bank may still carry out a call that times out here.
        box: list[requests.Response | requests.RequestException] = []

        def work() -> None:
            try:
                with requests.Session() as session:
                    session.proxies, session.verify = proxies_and_verify(settings)
                    session.trust_env = False
                    session.mount("http://", SkipInterimAdapter())
                    session.mount("https://", SkipInterimAdapter())
                    box.append(
                        session.request(
                            method,
                            url,
                            headers={
                                **settings.headers,
                                "User-Agent": settings.user_agent,
                                "Accept": "application/json",
                                "Connection": "close",
                                **headers,
                            },
                            timeout=(min(settings.connect_timeout, self._call), min(settings.read_timeout, self._call)),
                            allow_redirects=False,
                            **kwargs,
                        )
                    )
            except requests.RequestException as error:
                box.append(error)
            except Exception as error:
                # Before anything was sent: a proxy, a certificate file or a header that cannot work.
                box.append(requests.exceptions.InvalidURL(type(error).__name__))

        thread = threading.Thread(target=work, name="intergiro-bank-call", daemon=True)
        thread.start()
        thread.join(self._call)
        result = box[0] if box else None
        if result is None:
            return BankResponse(Outcome.UNKNOWN, why=f"not within {self._call:.0f} s", origin=settings.origin)
        if isinstance(result, requests.RequestException):
            outcome = Outcome.UNSENT if certainly_unsent(result) else Outcome.UNKNOWN
            return BankResponse(outcome, why=_why(result), origin=settings.origin)
        return result

    def _tokens(self, response: requests.Response | BankResponse, refusals: frozenset[int]) -> BankResponse:
        if isinstance(response, BankResponse):
            return response
        status = response.status_code
        if status in refusals:
            return self._result(Outcome.REFUSED, response)
        if 300 <= status < 500:
            return self._result(Outcome.UNAVAILABLE, response)
        if status >= 500:
            return self._result(Outcome.UNKNOWN, response)
        try:
            body = json.loads(response.content)  # unlike response.json(), it reads a body with a byte order mark
        except (ValueError, RecursionError):
            body = None
        access = body.get("access_token") if isinstance(body, dict) else None
        refresh = body.get("refresh_token") if isinstance(body, dict) else None
        if not isinstance(access, str) or not fits_a_header(access):
            return self._result(Outcome.UNKNOWN, response)
        return self._result(
            Outcome.OK,
            response,
            access_token=access,
            refresh_token=refresh if isinstance(refresh, str) else "",
        )

    def _result(self, outcome: Outcome, response: requests.Response, **tokens: str) -> BankResponse:
        return BankResponse(
            outcome,
            status=response.status_code,
            at=note_time(self._settings.origin, response.headers),
            retry_after=retry_after_of(response.headers),
            code=_code(response) if outcome is not Outcome.OK else "",
            origin=self._settings.origin,
            **tokens,
        )


def _code(response: requests.Response) -> str:
    """Return the machine-readable code of an error; "" without one."""
    try:
        body = response.json()
    except (ValueError, RecursionError):
        return ""
    errors = body.get("errors") if isinstance(body, dict) else None
    for found in (body, *(errors if isinstance(errors, list) else ())):
        code = found.get("code") if isinstance(found, dict) else None
        if isinstance(code, str) and looks_like_an_id(code) and len(code) <= 40:
            return code
    return ""


def _why(error: requests.RequestException) -> str:
    reason = handshake_failure(error)
    if reason is None:
        return type(error).__name__
    return (
        f"the TLS handshake failed: {reason}; for a certificate authority of your own set `verify` in the connection's "
        "extra, and write a host without TLS on this machine as http://…"
    )
