# SPDX-License-Identifier: Apache-2.0
"""Faults: the requests to which they apply, and the changed responses. Integration tests cover the connection."""

from __future__ import annotations

import json
from email.utils import parsedate_to_datetime
from typing import Any

import pytest
from starlette.responses import Response

from intergiro_provider.sandbox.fault_effects import replaced, spoiled
from intergiro_provider.sandbox.faults import AFTER, GUARD, KINDS, Fault, FaultError, Faults

PATH = "/v3/transactions"
PAGE = Response(b'{"data":[{"id":"a"},{"id":"b"}],"has_more":true}')


def faults(*described: dict[str, Any]) -> Faults:
    made = Faults()
    for one in described:
        made.add(one)
    return made


def test_a_fault_strikes_so_often_after_so_many() -> None:
    made = faults({"kind": "drop", "path": PATH, "skip": 2, "times": 3})
    struck = [made.before("GET", PATH) is not None for _ in range(8)]
    assert struck == [False, False, True, True, True, False, False, False]
    assert made.describe()[0]["struck"] == 3


def test_a_fault_strikes_until_it_is_cleared() -> None:
    made = faults({"kind": "drop"}, {"kind": "hang"})
    assert [made.before("GET", PATH).kind for _ in range(5)] == ["drop"] * 5  # type: ignore[union-attr]
    assert made.clear(1) == 1
    assert made.before("GET", PATH).kind == "hang"  # type: ignore[union-attr]
    assert made.clear() == 1
    assert made.before("GET", PATH) is None
    assert not made


def test_a_fault_keeps_to_its_path_and_method() -> None:
    made = faults({"kind": "drop", "path": "/v3/transactions", "method": "POST"})
    assert made.before("GET", PATH) is None
    assert made.before("POST", "/v3/accounts") is None
    assert made.before("POST", "/v3/transactions/pay") is not None
    exact = faults({"kind": "drop", "path": "/v3/transactions$"})
    assert exact.before("GET", "/v3/transactions/x") is None
    assert exact.before("GET", PATH) is not None


def test_probability_is_drawn_from_the_seed() -> None:
    def drawn(seed: int) -> list[bool]:
        made = faults({"kind": "drop", "probability": 0.3, "seed": seed})
        return [made.before("GET", PATH) is not None for _ in range(1000)]

    assert drawn(1) == drawn(1) != drawn(2)
    assert 250 < sum(drawn(1)) < 350


def test_latencies_add_up_and_leave_the_others_alone() -> None:
    made = faults(
        {"kind": "latency", "seconds": 0.5}, {"kind": "latency", "seconds": 0.25, "times": 1}, {"kind": "drop"}
    )
    assert made.latency("GET", PATH) == 0.75
    assert made.latency("GET", PATH) == 0.5
    assert made.before("GET", PATH).kind == "drop"  # type: ignore[union-attr]


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_each_kind_strikes_in_one_phase(kind: str) -> None:
    made = faults({"kind": kind, **({"to": "http://x"} if kind == "redirect" else {})})
    phases = {"before": made.before, "guard": made.guard, "after": made.after}
    struck = {name for name, phase in phases.items() if phase("GET", PATH) is not None}
    wanted = "after" if kind in AFTER else "guard" if kind in GUARD else "before"
    assert struck == (set() if kind == "latency" else {wanted})


@pytest.mark.parametrize(
    ("described", "message"),
    [
        ({}, "kind: is missing"),
        ({"kind": "flood"}, "no fault 'flood'"),
        ({"kind": "drop", "seconds": 3}, "drop: no parameter seconds; there are: reset, handled"),
        ({"kind": "empty_page", "x": 3}, "there are: none"),
        ({"kind": "garbled", "how": "badly"}, "'badly' is not one of cut"),
        ({"kind": "drop", "probability": 1.5}, "probability: 1.5"),
        ({"kind": "drop", "times": 0}, "times: 0"),
        ({"kind": "drop", "times": "3"}, "times: '3'"),
        ({"kind": "hang", "seconds": "3"}, "hang: seconds '3' is not a number"),
        ({"kind": "drop_body", "fraction": True}, "fraction True is not a number"),
        ({"kind": "redirect"}, "`to` is missing"),
        ({"kind": "status", "status": 99}, "status: status 99"),
    ],
)
def test_faults_that_cannot_be(described: dict[str, Any], message: str) -> None:
    made = Faults()
    with pytest.raises(FaultError, match=message):
        made.add(described)
    assert not made


def test_answers_instead_of_the_banks() -> None:
    now = 1_763_942_400.0
    limited = replaced(Fault("rate_limit", params={"retry_after": 2.5}), now)
    assert limited is not None
    assert (limited.status_code, limited.headers["retry-after"]) == (429, "2.5")
    dated = replaced(Fault("rate_limit", params={"retry_after": 30, "as_date": True}), now)
    assert dated is not None
    assert parsedate_to_datetime(dated.headers["retry-after"]).timestamp() == now + 30
    silent = replaced(Fault("rate_limit", params={"retry_after": None}), now)
    assert silent is not None
    assert "retry-after" not in silent.headers
    for body, start in (("json", b'{"errors"'), ("html", b"<html>"), ("text", b"error 502"), ("empty", b"")):
        broken = replaced(Fault("status", params={"status": 502, "body": body, "retry_after": "soon"}), now)
        assert broken is not None
        assert broken.status_code == 502
        assert bytes(broken.body).startswith(start)
        assert broken.headers["retry-after"] == "soon"
    made_up = replaced(Fault("response", params={"status": 201, "body": {"å": 1}, "headers": {"X-A": "b"}}), now)
    assert made_up is not None
    assert (made_up.status_code, made_up.body, made_up.headers["x-a"]) == (201, '{"å": 1}'.encode(), "b")
    moved = replaced(Fault("redirect", params={"to": "http://127.0.0.2/x"}), now)
    assert moved is not None
    assert (moved.status_code, moved.headers["location"]) == (307, "http://127.0.0.2/x")
    assert replaced(Fault("drop"), now) is None


@pytest.mark.parametrize("how", ["cut", "noise", "html", "empty", "not_utf8"])
def test_garbled_answers_are_no_json(how: str) -> None:
    with pytest.raises(ValueError):
        json.loads(spoiled(Fault("garbled", params={"how": how}), PAGE).body)


def test_pages_that_lie() -> None:
    assert spoiled(Fault("empty_page"), PAGE).body == b'{"data":[],"has_more":true}'
    assert json.loads(spoiled(Fault("repeat_record"), PAGE).body)["data"] == [{"id": "a"}, {"id": "b"}, {"id": "b"}]
    assert json.loads(spoiled(Fault("garbled", params={"how": "scalar"}), PAGE).body) == 17
