# SPDX-License-Identifier: Apache-2.0
"""Authentication that renews itself: any request made with it survives the expiry of its access token."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import requests
from requests.auth import AuthBase
from requests.utils import rewind_body

from intergiro_provider.api.bank import note_time
from intergiro_provider.api.body import repeatable_body
from intergiro_provider.api.errors import described
from intergiro_provider.api.settings import origin_of
from intergiro_provider.exceptions import IntergiroAuthError, IntergiroValueError
from intergiro_provider.session.documents import Session
from intergiro_provider.session.driver import SharedSession

RENEWALS = 3


class IntergiroAuth(AuthBase):
    """Adds the bearer; on 401 renews the session and sends the request again.

    :param shared: the session, shared with every other task.
    :param origin: the only origin that ever sees the bearer.
    """

    def __init__(self, shared: SharedSession, origin: str) -> None:
        self._shared = shared
        self._origin = origin

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        url = request.url or ""
        # The first look is enough for almost all, and costs a tenth.
        if not url.startswith(f"{self._origin}/") and origin_of(url) != self._origin:
            raise IntergiroValueError(
                f"This session belongs to {self._origin} and is not used for other hosts. Use a requests.Session of "
                "your own there."
            )
        session = self._shared.current()
        request.headers["Authorization"] = f"Bearer {session.access_token}"
        if (kept := repeatable_body(request.body)) is not request.body:
            request.body = kept
            # Its length is known now, and a request must not name both.
            request.headers.pop("Transfer-Encoding", None)
            request._body_position = 0  # type: ignore[attr-defined]
        request.register_hook("response", self._renewing(session))  # type: ignore[no-untyped-call]
        return request

    def _renewing(self, session: Session) -> Callable[..., requests.Response]:
        def renew_and_send_again(response: requests.Response, **kwargs: Any) -> requests.Response:
            return self._answer_401(session, response, kwargs)

        return renew_and_send_again

    def _answer_401(self, session: Session, response: requests.Response, kwargs: dict[str, Any]) -> requests.Response:
        alive = False
        for _ in range(RENEWALS):
            # After a redirect the response may come from elsewhere, and there its 401 means something else.
            if response.status_code != 401 or origin_of(response.url) != self._origin:
                return response
            if alive:
                break
            note_time(self._origin, response.headers)
            renewed = self._shared.renew(session, urlsplit(response.url).path)
            session, alive = renewed.session, renewed.how == "alive"
            response = _send_again(response, session, kwargs)
        if response.status_code != 401:
            return response
        raise IntergiroAuthError(
            f"Intergiro refuses {described(response.request.method, response.url)} with 401, although it accepts the "
            "session elsewhere or has just renewed it: this API key has no access to that endpoint. Give the key the "
            "role that it needs, in the Intergiro customer portal."
        )


def _send_again(response: requests.Response, session: Session, kwargs: dict[str, Any]) -> requests.Response:
    # Read to its end, so that the connection can be used again.
    _ = response.content
    response.close()
    request = response.request.copy()
    request.headers["Authorization"] = f"Bearer {session.access_token}"
    if request._body_position is not None:  # type: ignore[attr-defined]
        rewind_body(request)
    again: requests.Response = response.connection.send(request, **kwargs)
    again.history.append(response)
    again.request = request
    return again
