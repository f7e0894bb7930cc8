# SPDX-License-Identifier: Apache-2.0
"""What both kinds of payments share around their one request."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import requests

from intergiro_provider.exceptions import IntergiroError
from intergiro_provider.payments.record import parsed

PROMPT = timedelta(seconds=30)
"""How long a process may take from its record to its request."""


def check_prompt(sent_at: str, now: datetime, what: str) -> None:
    """Refuse to send what was recorded a while ago: another process may have taken over since.

    :raises IntergiroError: nothing was sent; retriable.
    """
    if now - (parsed(sent_at) or now) > PROMPT:
        raise IntergiroError(
            f"Nothing was sent for {what}: its record took too long to write, and another process may have taken "
            "over. The task can be retried."
        )


def answered_object(response: requests.Response) -> dict[str, Any] | None:
    """Return the object of a successful response; None if it is not one with an id."""
    try:
        answer = response.json()
    except (ValueError, RecursionError):
        return None
    return answer if isinstance(answer, dict) and answer.get("id") else None
