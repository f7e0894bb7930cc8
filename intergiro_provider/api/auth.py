# SPDX-License-Identifier: Apache-2.0
"""Authentication that survives the expiry of the access token."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from urllib.parse import urlsplit

import requests

from intergiro_provider.api.auth_client import note_time
from intergiro_provider.api.errors import described
from intergiro_provider.api.settings import origin_of
from intergiro_provider.exceptions import IntergiroAuthError, IntergiroValueError
from intergiro_provider.session.driver import SharedSession

RENEWALS = 3


class IntergiroAuth:
    """Adds the access token to requests; after a 401 it renews the session and sends the request again.

    :param shared: the session, shared with every other task.
    :param origin: the only origin that ever receives the access token.
    """

    def __init__(self, shared: SharedSession, origin: str) -> None:
        self._shared = shared
        self._origin = origin

    def obtain_token(self) -> None:
        """Make sure that there is an access token, which may take a login.

        :raises IntergiroError: there is no session.
        """
        self._shared.current()

    def exchange(
        self, request: requests.PreparedRequest, transmit: Callable[[requests.PreparedRequest], requests.Response]
    ) -> requests.Response:
        """Return the response to an authenticated request.

        :param transmit: sends the request once, without following redirects.
        :raises IntergiroAuthError: the bank refuses this request, although it accepts the session.
        :raises IntergiroError: there is no session.
        """
        url = request.url or ""
        # The first comparison decides for nearly every request, in a tenth of the time.
        if not url.startswith(f"{self._origin}/") and origin_of(url) != self._origin:
            raise IntergiroValueError(
                f"This session belongs to {self._origin} and is not used for other hosts. Use a requests.Session of "
                "your own there."
            )
        pair, alive = self._shared.current(), False
        for renewals in range(RENEWALS + 1):
            request.headers["Authorization"] = f"Bearer {pair.access_token}"
            response = transmit(request)
            if response.status_code != 401:
                return response
            _release(response)
            if alive or renewals == RENEWALS:
                break
            note_time(self._origin, response.headers)
            renewed = self._shared.renew(pair, urlsplit(url).path)
            pair, alive = renewed.pair, renewed.how == "alive"
        raise IntergiroAuthError(
            f"Intergiro refuses {described(request.method, url)} with 401, although the session is valid (it works "
            "for other endpoints, or was just renewed): this API key has no access to that endpoint. Give the key the "
            "role that it needs, in the Intergiro customer portal."
        )


def _release(response: requests.Response) -> None:
    """Read a response to its end, so that its connection can be used again."""
    # The bank has refused the request, so an error in the rest of its response does not matter.
    with contextlib.suppress(requests.RequestException):
        _ = response.content
    response.close()
