# SPDX-License-Identifier: Apache-2.0
"""A simple client of the sandbox, independent of the provider."""

from __future__ import annotations

from typing import Any

import requests

from intergiro_provider.sandbox import Sandbox


class Client:
    """Logs in when it is created. Each call is one request."""

    def __init__(self, bank: Sandbox, version: str = "v3") -> None:
        self.bank, self.version = bank, version
        self.session = requests.Session()
        self.pair: dict[str, str] = {}
        self.pairs: list[str] = []
        self.login()

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.pair['access_token']}"}

    def get(self, path: str, **query: Any) -> requests.Response:
        return self.session.get(
            self.bank.url + path, params=query, headers=self.headers, timeout=60, allow_redirects=False
        )

    def logged_in(self) -> requests.Response:
        return self._auth("login", api_key=self.bank.api_key)

    def refreshed(self) -> requests.Response:
        return self._auth("refresh", refresh_token=self.pair["refresh_token"])

    def login(self) -> None:
        self._take(self.logged_in())

    def refresh(self) -> None:
        self._take(self.refreshed())

    def _auth(self, name: str, **sent: str) -> requests.Response:
        return self.session.post(f"{self.bank.url}/{self.version}/auth/{name}", json=sent, timeout=60)

    def _take(self, answer: requests.Response) -> None:
        assert answer.status_code == 200, answer.text
        self.pair = answer.json()
        self.pairs += self.pair.values()
