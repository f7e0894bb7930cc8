# SPDX-License-Identifier: Apache-2.0
"""The bank's session rules, on a clock that the tests set."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from intergiro_provider.sandbox.counters import Counters
from intergiro_provider.sandbox.sessions import Refused, Sessions
from intergiro_provider.sandbox.settings import DEFAULT_API_KEY, ROLES, Settings

KEY = DEFAULT_API_KEY


class Bank:
    """Sessions with a clock, by default at the API v3."""

    def __init__(self, **settings: Any) -> None:
        self.now = 1_700_000_000.0
        self.settings = Settings(**settings)
        self.counters = Counters()
        self.sessions = Sessions(lambda: self.settings, self.counters, lambda: self.now)

    def login(self, key: str = KEY, api: str = "v3") -> dict[str, str]:
        return self.sessions.login(api, key)

    def refresh(self, pair: dict[str, str], api: str = "v3") -> dict[str, str]:
        return self.sessions.refresh(api, pair["refresh_token"])

    def lives(self, pair: dict[str, str], api: str = "v3") -> bool:
        return self.sessions.authorize(api, pair["access_token"]) is not None

    def refused(self, pair: dict[str, str], api: str = "v3") -> Refused:
        with pytest.raises(Refused) as caught:
            self.refresh(pair, api)
        return caught.value


def test_an_access_token_lives_to_the_second() -> None:
    bank = Bank(access_token_life=900.0)
    pair = bank.login()
    bank.now += 899.9
    assert bank.lives(pair)
    bank.now += 0.1
    assert not bank.lives(pair)


def test_an_hour_is_one_login_and_three_refreshes() -> None:
    bank = Bank()
    pair = bank.login()
    for _ in range(3):
        bank.now += 900
        assert not bank.lives(pair)
        pair = bank.refresh(pair)
        assert bank.lives(pair)
    bank.now += 900
    assert bank.refused(pair).code == "session_expired"
    assert (bank.counters.logins, bank.counters.refreshes, bank.counters.refresh_refused) == (1, 3, 1)


def test_no_access_token_outlives_its_session() -> None:
    bank = Bank(access_token_life=900.0, session_life=1000.0)
    pair = bank.login()
    bank.now += 900
    pair = bank.refresh(pair)
    assert _claims(pair["access_token"])["exp"] == 1_700_001_000
    bank.now += 99.9
    assert bank.lives(pair)
    bank.now += 0.1
    assert not bank.lives(pair)


def test_an_early_refresh_is_refused_and_burns_nothing() -> None:
    bank = Bank()
    pair = bank.login()
    bank.now += 899.9
    refused = bank.refused(pair)
    assert (refused.status, refused.code) == (400, "too_early")
    bank.now += 0.1
    assert bank.lives(bank.refresh(pair))
    assert (bank.counters.refresh_early, bank.counters.refreshes) == (1, 1)


def test_every_token_is_new() -> None:
    bank = Bank()
    pair = bank.login()
    bank.now += 900
    other = bank.refresh(pair)
    assert len({*pair.values(), *other.values()}) == 4
    assert set(bank.sessions.issued) == {*pair.values(), *other.values()}


def test_a_used_refresh_token_is_refused_and_the_session_goes_on() -> None:
    bank = Bank()
    first = bank.login()
    bank.now += 900
    second = bank.refresh(first)
    assert bank.refused(first).status == 400
    bank.now += 900
    assert bank.refused(first).code == "refresh_token_used"
    assert bank.lives(bank.refresh(second))
    assert (bank.counters.refresh_reused, bank.counters.refresh_refused) == (2, 0)


def test_a_used_refresh_token_may_still_work() -> None:
    bank = Bank(old_refresh_token="works")
    first = bank.login()
    bank.now += 900
    lost = bank.refresh(first)
    again = bank.refresh(first)
    assert bank.lives(again)
    assert again["refresh_token"] != lost["refresh_token"]
    assert bank.counters.refresh_reused == 1
    # The rules apply to its token pairs, too.
    assert bank.refused(again).code == "too_early"
    bank.now += 900
    assert bank.lives(bank.refresh(lost))


def test_using_a_used_refresh_token_may_revoke_the_session() -> None:
    bank = Bank(old_refresh_token="revokes")
    first = bank.login()
    bank.now += 900
    second = bank.refresh(first)
    assert bank.lives(second)
    bank.refused(first)
    assert not bank.lives(second)
    assert bank.refused(second).code == "session_expired"


def test_a_login_leaves_the_former_session_alone() -> None:
    bank = Bank()
    first, second = bank.login(), bank.login()
    assert bank.lives(first)
    assert bank.lives(second)
    bank.now += 900
    bank.refresh(first)


def test_unknown_tokens_are_refused() -> None:
    bank = Bank()
    assert bank.refused({"refresh_token": "nonsense"}).status == 400
    assert not bank.lives({"access_token": "nonsense"})
    assert (bank.counters.refresh_refused, bank.counters.unknown_tokens) == (1, 1)
    pair = bank.login()
    # An access token is no refresh token, and the other way round.
    assert bank.refused({"refresh_token": pair["access_token"]}).code == "invalid_refresh_token"
    assert not bank.lives({"access_token": pair["refresh_token"]})


def test_the_apis_share_no_sessions() -> None:
    bank = Bank()
    pair = bank.login(api="v3")
    assert not bank.lives(pair, "v1")
    bank.now += 900
    assert bank.refused(pair, "v1").code == "invalid_refresh_token"


def test_a_wrong_key() -> None:
    bank = Bank()
    with pytest.raises(Refused) as caught:
        bank.login("wrong")
    assert caught.value.status == 401
    assert "wrong" not in str(caught.value)
    assert (bank.counters.login_refused, bank.counters.logins) == (1, 0)


def test_a_frozen_key_is_refused_at_the_2d_api_only() -> None:
    bank = Bank(frozen=True)
    bank.login(api="v3")
    with pytest.raises(Refused, match="frozen") as caught:
        bank.login(api="v1")
    assert caught.value.status == 403
    bank.settings = Settings(frozen=False)
    assert bank.lives(bank.login(api="v1"), "v1")  # a renewed key is the same key


def test_a_key_that_is_taken_back_ends_its_sessions() -> None:
    bank = Bank(api_keys=(KEY, "other"))
    pair = bank.login("other")
    bank.settings = Settings()
    assert not bank.lives(pair)
    bank.now += 900
    assert bank.refused(pair).code == "invalid_refresh_token"


def test_roles() -> None:
    bank = Bank(api_keys=(KEY, "reader:transactions+accounts", "nobody:"))
    assert bank.sessions.authorize("v3", bank.login()["access_token"]) == frozenset(ROLES)
    assert bank.sessions.authorize("v3", bank.login("reader")["access_token"]) == frozenset(ROLES) - {"payments"}
    assert bank.sessions.authorize("v3", bank.login("nobody")["access_token"]) == frozenset()


def test_one_login_too_many_blocks_the_key_until_the_reset() -> None:
    bank = Bank(login_limit=3, login_window=60.0, api_keys=(KEY, "other"))
    for _ in range(3):
        pair = bank.login()
    for _ in range(2):
        with pytest.raises(Refused, match="fraud") as caught:
            bank.login()
        assert caught.value.status == 403
    bank.login("other")
    assert bank.lives(pair)
    bank.now += 100_000
    with pytest.raises(Refused, match="fraud"):
        bank.login()
    assert (bank.counters.logins, bank.counters.fraud_blocks) == (4, 3)
    bank.sessions.forget()
    bank.login()


def test_the_window_of_logins_rolls() -> None:
    bank = Bank(login_limit=2, login_window=60.0)
    bank.login()
    bank.now += 30
    bank.login()
    bank.now += 30
    bank.login()  # the first is now outside of the window
    with pytest.raises(Refused):
        bank.login()


def test_wrong_keys_count_for_no_block() -> None:
    bank = Bank(login_limit=1)
    for _ in range(5):
        with pytest.raises(Refused):
            bank.login("wrong")
    bank.login()


def test_what_a_person_can_do_to_sessions() -> None:
    bank = Bank()
    pair = bank.login()
    assert bank.sessions.expire_access() == 1
    assert not bank.lives(pair)
    pair = bank.refresh(pair)
    assert bank.sessions.state() == {"sessions": 1, "access_tokens": 1}
    assert bank.sessions.end_sessions() == 1
    assert bank.sessions.state() == {"sessions": 0, "access_tokens": 0}
    assert not bank.lives(pair)
    assert bank.refused(pair).code == "session_expired"
    bank.sessions.forget()
    assert bank.refused(pair).code == "invalid_refresh_token"
    assert set(pair.values()) <= set(bank.sessions.issued)


def test_forms_of_access_tokens() -> None:
    claims = _claims(Bank(access_token_life=90.0).login()["access_token"])
    assert claims["exp"] == 1_700_000_090
    assert "exp" not in _claims(Bank(access_token_format="jwt_without_exp").login()["access_token"])
    assert "." not in Bank(access_token_format="opaque").login()["access_token"]


def _claims(token: str) -> dict[str, Any]:
    header, claims, _ = (base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)) for part in token.split("."))
    assert json.loads(header)["typ"] == "JWT"
    found: dict[str, Any] = json.loads(claims)
    return found
