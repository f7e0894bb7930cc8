# SPDX-License-Identifier: Apache-2.0
"""Settings: valid values, by name, by flag and as JSON."""

from __future__ import annotations

import argparse
import dataclasses
import json
from typing import Any

import pytest

from intergiro_provider.sandbox.__main__ import banner, main, parser
from intergiro_provider.sandbox.settings import (
    DEFAULT_API_KEY,
    Settings,
    SettingsError,
    from_flags,
    parse_key,
    parse_now,
)


def flags(*arguments: str) -> Settings:
    given: argparse.Namespace = parser().parse_args(arguments)
    return from_flags(given, {})


def test_without_flags_everything_is_as_documented() -> None:
    assert flags() == Settings()


def test_every_setting_has_a_flag_that_sets_it() -> None:
    given: dict[str, Any] = {}
    arguments = []
    for each in dataclasses.fields(Settings):
        default: Any = each.default
        flag = "--" + each.name.replace("_", "-")
        if isinstance(default, bool):
            given[each.name] = not default
            arguments.append(flag if not default else flag.replace("--", "--no-", 1))
        elif isinstance(default, tuple):
            given[each.name] = ("a", "b")
            singular = "--api-key" if each.name == "api_keys" else flag
            arguments += [singular, "a", singular, "b"]
        elif isinstance(default, str):
            choices = {"access_token_format": "opaque", "old_refresh_token": "works", "now": "2025-11-24T00:00:00Z"}
            choices |= {"retry_after_form": "date", "idempotency": "replay", "consent_repeat": "replaced"}
            given[each.name] = choices[each.name]
            arguments += [flag, given[each.name]]
        else:
            given[each.name] = type(default)(1 if default != 1 else 0)
            arguments += [flag, str(given[each.name])]
    found = flags(*arguments)
    assert {name: getattr(found, name) for name in given} == given
    assert all(getattr(found, each.name) != each.default for each in dataclasses.fields(Settings))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("nonsense", 1, "nonsense: no such setting"),
        ("access_token_life", -1, "access_token_life: -1.0 is below 0"),
        ("access_token_life", float("nan"), "not a finite number"),
        ("access_token_life", "5", "access_token_life: '5' is not of type float"),
        ("access_token_life", True, "is not of type float"),
        ("login_limit", 2.5, "login_limit: 2.5 is not of type int"),
        ("login_limit", 0, "login_limit: 0 is below 1"),
        ("transactions", 6_000_000, "is above 5000000"),
        ("old_refresh_token", "perhaps", "'perhaps' is not one of refused, works, revokes"),
        ("frozen", 1, "frozen: 1 is not of type bool"),
        ("always_401", "/v3", "always_401: '/v3' is not a list of strings"),
        ("api_keys", [], "api_keys: at least one"),
        ("api_keys", [" "], "api_keys: a key must not be empty"),
        ("api_keys", ["k:root"], "api_keys: unknown role root"),
        ("now", "yesterday", "now: 'yesterday' is not an ISO 8601"),
        ("now", "2025-11-24T00:00:00", "has no offset"),
    ],
)
def test_bad_settings(name: str, value: object, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        Settings().changed({name: value})


def test_settings_survive_json() -> None:
    settings = Settings(always_401=("/v3/cards",), latency=0.5, login_limit=3)
    assert Settings().changed(json.loads(json.dumps(settings.as_dict()))) == settings


def test_whole_numbers_of_the_other_kind_are_accepted() -> None:
    settings = Settings().changed({"access_token_life": 3, "login_limit": 4.0})
    assert settings.access_token_life == 3.0
    assert isinstance(settings.access_token_life, float)
    assert isinstance(settings.login_limit, int)


def test_keys_and_roles() -> None:
    assert parse_key("k") == ("k", frozenset({"transactions", "accounts", "payments"}))
    assert parse_key("k:accounts") == ("k", frozenset({"accounts"}))
    assert parse_key("k:") == ("k", frozenset())


def test_now() -> None:
    assert parse_now("2025-11-24").isoformat() == "2025-11-24T00:00:00+00:00"
    assert parse_now("2025-11-24T01:00:00+01:00").isoformat() == "2025-11-24T00:00:00+00:00"
    assert parse_now("").microsecond == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--login-limit", "0"], "login_limit: 0 is below 1"),
        (["--login-limit", "many"], "argument --login-limit: invalid int value"),
        (["--old-refresh-token", "perhaps"], "invalid choice"),
        (["--nonsense"], "unrecognized arguments: --nonsense"),
        (["--settings", "{"], "--settings is not JSON"),
        (["--settings", "[]"], "--settings is not a JSON object"),
        (["--settings", '{"nonsense": 1}'], "nonsense: no such setting"),
        (["--host", "0.0.0.0"], "host: 0.0.0.0 can be reached from outside"),
        (["--host", "192.0.2.1"], "can be reached from outside"),
        (["--host", "::"], "can be reached from outside"),
        (["--host", "example.com"], "'example.com' is not a loopback address"),
    ],
)
def test_bad_flags_are_told(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


def test_flags_win_over_settings_given_as_json() -> None:
    given = parser().parse_args(["--settings", '{"seed": 3, "days": 5}', "--seed", "4"])
    found = from_flags(given, json.loads(given.settings))
    assert (found.seed, found.days) == (4, 5.0)


def test_the_banner_says_what_it_is_and_how_to_connect() -> None:
    text = banner("http://127.0.0.1:8765", DEFAULT_API_KEY, Settings())
    assert "NOT the bank" in text
    assert "http://127.0.0.1:8765" in text
    assert f"--conn-password {DEFAULT_API_KEY}" in text
    variable = next(line for line in text.splitlines() if "AIRFLOW_CONN_" in line)
    connection = json.loads(variable.partition("=")[2].strip("'"))
    assert connection == {
        "conn_type": "intergiro",
        "host": "http://127.0.0.1",
        "port": 8765,
        "password": DEFAULT_API_KEY,
    }
