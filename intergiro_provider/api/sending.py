# SPDX-License-Identifier: Apache-2.0
"""Sending a request by the rules of :mod:`.retries`, with errors of ours instead of those of requests."""

from __future__ import annotations

from collections.abc import Callable

import requests

from intergiro_provider.api.errors import described
from intergiro_provider.api.retries import NEVER_SENT, certainly_unsent, refused_by_requests, send_with_retries
from intergiro_provider.api.settings import origin_of
from intergiro_provider.exceptions import BankUnavailable, IntergiroError, IntergiroValueError


def send_by_the_rules(
    send: Callable[[], requests.Response], method: str, url: str, repeatable: bool, again: bool = True
) -> requests.Response:
    """Send a request, and again where that is safe and may help; statuses are not checked.

    :param send: sends it once.
    :param repeatable: whether it may be sent again although the bank may have carried it out.
    :param again: whether to send it again at all.
    :raises IntergiroValueError: it cannot be sent at all.
    :raises BankUnavailable: there was no whole answer.
    """
    try:
        return send_with_retries(send, what=described(method, url), repeatable=repeatable) if again else send()
    except IntergiroError:
        raise
    except (*NEVER_SENT, requests.exceptions.InvalidJSONError, TypeError, UnicodeError) as error:
        if isinstance(error, NEVER_SENT) and not refused_by_requests(error):
            raise _unreachable(error, method, url, repeatable) from None
        raise IntergiroValueError(
            f"The request {described(method, url)} cannot be made ({type(error).__name__}): a header, a part of "
            "the URL or the body cannot be encoded. Nothing was sent."
        ) from None
    except requests.RequestException as error:
        raise _unreachable(error, method, url, repeatable) from None


def _unreachable(error: requests.RequestException, method: str, url: str, repeatable: bool) -> IntergiroError:
    """What a failure of the network means; the cause is not chained, since its text holds the URL with its query."""
    kind = type(error).__name__
    if isinstance(error, requests.exceptions.SSLError):
        advice = "The certificate or the TLS settings do not fit: see `verify` in the connection's extra."
    elif isinstance(error, requests.exceptions.Timeout):
        advice = "See `connect_timeout` and `read_timeout` in the connection's extra, or try again later."
    elif isinstance(error, requests.exceptions.ConnectionError):
        advice = "Check the host, the network and `proxies`, or try again later."
    else:
        advice = "The request or the answer is not valid HTTP."
    if not repeatable and not certainly_unsent(error):
        advice = "The bank may have carried it out: look before it is sent again."
    return BankUnavailable(f"No answer from {origin_of(url)} to {described(method, url)} ({kind}). {advice}")
