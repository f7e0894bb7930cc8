# SPDX-License-Identifier: Apache-2.0
"""Proxies and certificates: the connection's own first, then the environment's."""

from __future__ import annotations

import requests

from intergiro_provider.api.settings import ApiSettings


def proxies_and_verify(settings: ApiSettings) -> tuple[dict[str, str], bool | str]:
    """What to give a ``requests.Session``, whose ``trust_env`` then has to be off.

    Left to itself, requests prefers the environment, asks it twice for every request, and would send what is meant for
    this machine through a proxy, in clear.
    """
    if settings.origin.startswith("http://"):
        return {}, settings.verify
    with requests.Session() as session:
        found = session.merge_environment_settings(settings.origin, dict(settings.proxies), None, settings.verify, None)
    verify = found["verify"]
    return dict(found["proxies"]), True if verify is None else verify
