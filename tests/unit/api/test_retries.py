# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import io
import logging
import socket
import ssl
import threading
import time
from collections.abc import Callable

import pytest
import requests
import urllib3

from intergiro_provider.api import retries
from intergiro_provider.api.retries import certainly_unsent, retrying


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Record the sleeps between attempts, without sleeping."""
    seen: list[float] = []
    mine, sleep = threading.get_ident(), time.sleep

    def noted(seconds: float) -> None:
        # Threads of earlier tests may still wait for something.
        (seen.append if threading.get_ident() == mine else sleep)(seconds)

    monkeypatch.setattr("tenacity.nap.time.sleep", noted)
    return seen


def answer(status: int, **headers: str) -> requests.Response:
    response = requests.Response()
    response.status_code = status
    response.raw = io.BytesIO()
    response.headers.update({name.replace("_", "-"): value for name, value in headers.items()})
    return response


Transmit = Callable[[requests.PreparedRequest], requests.Response]
REQUEST = requests.Request("GET", "https://bank.example/v3/x?account_ids=secret").prepare()


def deliver(
    transmit: Callable[[requests.PreparedRequest], requests.Response], *, repeatable: bool
) -> requests.Response:
    response: requests.Response = retrying(repeatable=repeatable)(transmit, REQUEST)
    return response


def outcomes(*results: requests.Response | Exception) -> Transmit:
    left = list(results)

    def transmit(request: requests.PreparedRequest) -> requests.Response:
        result = left.pop(0)
        if isinstance(result, Exception):
            raise result
        return result

    return transmit


def real_failure(url: str, **kwargs: object) -> requests.RequestException:
    with pytest.raises(requests.RequestException) as caught:
        requests.get(url, **kwargs)  # type: ignore[arg-type]
    return caught.value


def closed_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def test_a_refused_connection_was_certainly_not_sent() -> None:
    assert certainly_unsent(real_failure(f"http://127.0.0.1:{closed_port()}", timeout=2))


def test_an_unknown_host_was_certainly_not_sent() -> None:
    assert certainly_unsent(real_failure("http://nowhere.invalid", timeout=2))


def test_a_proxy_that_is_not_there_was_certainly_not_sent() -> None:
    proxy = f"http://127.0.0.1:{closed_port()}"

    assert certainly_unsent(real_failure("http://bank.invalid", proxies={"http": proxy}, timeout=2))


def test_a_silent_server_may_have_been_sent_to() -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()

        assert not certainly_unsent(real_failure(f"http://127.0.0.1:{server.getsockname()[1]}", timeout=0.2))


def test_other_errors_are_not_called_unsent() -> None:
    assert not certainly_unsent(requests.exceptions.ConnectionError("reset"))
    assert not certainly_unsent(ValueError())


@pytest.mark.parametrize("status", sorted(retries.RETRIED_STATUSES))
def test_a_passing_status_is_tried_again(status: int, slept: list[float]) -> None:
    response = deliver(outcomes(answer(status), answer(status), answer(200)), repeatable=True)

    assert response.status_code == 200
    assert len(slept) == 2


@pytest.mark.parametrize("status", [200, 204, 301, 400, 401, 404, 412, 501])
def test_other_statuses_are_not(status: int, slept: list[float]) -> None:
    assert deliver(outcomes(answer(status)), repeatable=True).status_code == status
    assert slept == []


@pytest.mark.parametrize("status", sorted(retries.RETRIED_STATUSES))
def test_nothing_that_may_have_been_carried_out_is_repeated(status: int, slept: list[float]) -> None:
    assert deliver(outcomes(answer(status)), repeatable=False).status_code == status
    with pytest.raises(requests.exceptions.ReadTimeout):
        deliver(outcomes(requests.exceptions.ReadTimeout()), repeatable=False)
    assert slept == []


def test_what_was_certainly_not_sent_is_repeated_whatever_it_is(slept: list[float]) -> None:
    send = outcomes(requests.exceptions.ConnectTimeout(), answer(201))

    assert deliver(send, repeatable=False).status_code == 201
    assert len(slept) == 1


@pytest.mark.parametrize(
    "error",
    [
        requests.exceptions.ConnectionError("reset"),
        requests.exceptions.ReadTimeout(),
        requests.exceptions.ChunkedEncodingError(),
    ],
)
def test_the_networks_faults_are_tried_again(error: Exception, slept: list[float]) -> None:
    assert deliver(outcomes(error, answer(200)), repeatable=True).status_code == 200


@pytest.mark.parametrize("error", [requests.exceptions.SSLError(), requests.exceptions.InvalidURL(), ValueError("bad")])
def test_what_cannot_pass_is_not_tried_again(error: Exception, slept: list[float]) -> None:
    with pytest.raises(type(error)):
        deliver(outcomes(error), repeatable=True)
    assert slept == []


def test_it_gives_up_with_the_last_answer(slept: list[float]) -> None:
    answers = [answer(503) for _ in range(retries.ATTEMPTS)]

    assert deliver(outcomes(*answers), repeatable=True) is answers[-1]
    assert len(slept) == retries.ATTEMPTS - 1


def test_retry_after_is_waited_for_with_jitter_on_top(slept: list[float]) -> None:
    deliver(outcomes(answer(429, Retry_After="7"), answer(200)), repeatable=True)

    assert 7 <= slept[0] <= 8


def test_a_long_retry_after_is_left_to_the_caller(slept: list[float]) -> None:
    response = deliver(outcomes(answer(429, Retry_After="61")), repeatable=True)

    assert response.status_code == 429
    assert slept == []


def test_waits_grow_and_differ(slept: list[float]) -> None:
    for _ in range(30):
        answers = [answer(503) for _ in range(retries.ATTEMPTS)]
        deliver(outcomes(*answers), repeatable=True)
    waits = [slept[i :: retries.ATTEMPTS - 1] for i in range(retries.ATTEMPTS - 1)]

    assert all(max(w) <= 2.0**i for i, w in enumerate(waits))
    assert max(waits[-1]) > max(waits[0])
    assert len(set(slept)) == len(slept)


def test_each_repetition_is_one_line(slept: list[float], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "intergiro_provider.api")
    deliver(outcomes(answer(503), requests.exceptions.ReadTimeout("secret"), answer(200)), repeatable=True)

    assert len(caplog.records) == 2
    assert "GET /v3/x: 503" in caplog.text
    assert "ReadTimeout" in caplog.text
    assert "secret" not in caplog.text


def test_the_first_try_takes_its_part_of_the_time(slept: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr("tenacity.time.monotonic", lambda: now[0])

    def slow(request: requests.PreparedRequest) -> requests.Response:
        now[0] += retries.DEADLINE + 1
        raise requests.ReadTimeout

    with pytest.raises(requests.ReadTimeout):
        deliver(slow, repeatable=True)
    assert now[0] == 1000.0 + retries.DEADLINE + 1
    assert slept == []


def test_a_kept_tls_connection_that_was_cut_is_tried_again(slept: list[float]) -> None:
    cut = urllib3.exceptions.SSLError(ssl.SSLEOFError(8, "EOF occurred in violation of protocol (_ssl.c:2427)"))
    pool = urllib3.HTTPSConnectionPool("127.0.0.1")
    error = requests.exceptions.SSLError(urllib3.exceptions.MaxRetryError(pool, "/", cut))
    assert deliver(outcomes(error, answer(200)), repeatable=True).status_code == 200
    with pytest.raises(requests.exceptions.SSLError):
        deliver(outcomes(error, answer(200)), repeatable=False)
