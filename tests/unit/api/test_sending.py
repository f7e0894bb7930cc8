# SPDX-License-Identifier: Apache-2.0
"""What an error says of whether the bank may have carried a request out."""

from __future__ import annotations

import pytest
import requests

from intergiro_provider.api.sending import send_by_the_rules
from intergiro_provider.exceptions import BankUnavailable, IntergiroValueError
from tests.unit.api.raw_server import Server


def test_an_answer_that_is_not_http_does_not_mean_that_nothing_was_sent(server: Server) -> None:
    server.answers = [[b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncut: 1\r\ncontent-length: 2\r\n\r\n{}"]]
    url = f"http://127.0.0.1:{server.port}/payments"
    with pytest.raises(BankUnavailable, match="may have carried it out"):
        send_by_the_rules(lambda: requests.post(url, json={}, timeout=5), "POST", url, repeatable=False)
    assert len(server.heads) == 1


def test_a_header_that_cannot_be_sent_is_not(server: Server) -> None:
    url = f"http://127.0.0.1:{server.port}/payments"
    with pytest.raises(IntergiroValueError, match="Nothing was sent"):
        send_by_the_rules(lambda: requests.post(url, headers={"X": "a\nb"}, timeout=5), "POST", url, repeatable=False)
    assert server.heads == []
