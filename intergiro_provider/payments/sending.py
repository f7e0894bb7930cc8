# SPDX-License-Identifier: Apache-2.0
"""What single and bulk payments share: the limit between record and request, and the check of a response."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import requests

from intergiro_provider.exceptions import IntergiroError
from intergiro_provider.payments.record import parse_time

MAX_DELAY = timedelta(seconds=30)
"""The longest time between the record and its request."""


def refuse_delayed(sent_at: str, now: Callable[[], datetime], what: str) -> Callable[[], None]:
    """Return a function to call immediately before the request. It refuses a request that is late.

    After a delay, another process may have looked for the payment, and may send it, too.

    :param sent_at: when the record was written, as the record stores it.
    :param now: returns the current time.
    :param what: the payment, for the message.
    :return: a function that raises a retriable IntergiroError if the request is late.
    """

    def check() -> None:
        if now() - (parse_time(sent_at) or now()) > MAX_DELAY:
            raise IntergiroError(
                f"Nothing was sent for {what}: more than {MAX_DELAY.seconds} s have passed since its record was "
                "written, and another process may have taken over. The task can be retried."
            )

    return check


def decode_payment(response: requests.Response) -> dict[str, Any] | None:
    """Return the JSON object of a response; None if the body is not an object with an `id`."""
    try:
        content = response.json()
    except (ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) and content.get("id") else None
