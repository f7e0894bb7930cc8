# SPDX-License-Identifier: Apache-2.0
"""Proxies and certificates: the connection's own first, then the environment's."""

from __future__ import annotations

import requests

from intergiro_provider.api.settings import ApiSettings


def proxies_and_verify(settings: ApiSettings) -> tuple[dict[str, str], bool | str]:
    """Return `proxies` and `verify` for a ``requests.Session`` with ``trust_env`` switched off.

    With ``trust_env``, requests prefers the environment and reads it twice per request. It would also send requests to
    this machine through a proxy, unencrypted.
    """
    if settings.origin.startswith("http://"):
        return {}, settings.verify
    with requests.Session() as session:
        found = session.merge_environment_settings(settings.origin, dict(settings.proxies), None, settings.verify, None)
    verify = found["verify"]
    return dict(found["proxies"]), True if verify is None else verify
