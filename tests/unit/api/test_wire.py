# SPDX-License-Identifier: Apache-2.0
"""The short way takes the usual answer; every other one comes out as urllib3's own connections read it."""

from __future__ import annotations

import gc
import gzip
import ipaddress
import re
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import requests
import urllib3
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection

from intergiro_provider.api.wire import BUFFER, LONGEST, WholeAnswer, shorter
from tests.unit.api.raw_server import Server

BODY = b'{"data": [1, 2, 3], "has_more": false}'
HEADERS = {"User-Agent": "test", "Accept-Encoding": "gzip", "Accept": "*/*"}


def usual(body: bytes = BODY, *headers: bytes) -> bytes:
    lines = (b"content-type: application/json", *headers, b"content-length: %d" % len(body))
    return b"HTTP/1.1 200 OK\r\n%b\r\n\r\n%b" % (b"\r\n".join(lines), body)


def pool_of(server: Server, short: bool) -> Any:
    pool: Any = urllib3.HTTPConnectionPool("127.0.0.1", server.port, timeout=5, maxsize=1, retries=False)
    if short:
        pool.ConnectionCls = shorter(pool.ConnectionCls)
    return pool


def ask(pool: Any, path: str = "/list?limit=1") -> Any:
    return pool.urlopen(
        "GET", path, headers=HEADERS, redirect=False, retries=False, preload_content=False, decode_content=False
    )


def told(pool: Any) -> tuple[Any, ...]:
    """What comes of an answer: everything that requests looks at, or the error."""
    try:
        answer = ask(pool)
        body = answer.read(decode_content=True)
    except Exception as error:
        return (type(error).__name__,)
    # Whoever has an older urllib3 has folds in its headers.
    headers = {name.lower(): re.sub(r"\s*\r\n\s+", " ", value) for name, value in answer.headers.items()}
    return answer.status, answer.reason, answer.version, headers, body


ODD = {
    "another status": b"HTTP/1.1 404 Not Found\r\ncontent-length: 2\r\n\r\n{}",
    "another reason": b"HTTP/1.1 200 Fine\r\ncontent-length: 2\r\n\r\n{}",
    "no reason": b"HTTP/1.1 200\r\ncontent-length: 2\r\n\r\n{}",
    "an old version": b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\n{}",
    "first to go on": b"HTTP/1.1 100 Continue\r\n\r\n" + usual(),
    "chunked": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    "chunked, a length": b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "gzip": usual(gzip.compress(BODY), b"Content-Encoding: gzip"),
    "closed afterwards": usual(BODY, b"Connection: close"),
    "closed at its end": b"HTTP/1.1 200 OK\r\ncut: 1\r\nconnection: close\r\n\r\n{}",
    "two lengths": b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncut: 1\r\ncontent-length: 2\r\n\r\n{}",
    "a length with a sign": b"HTTP/1.1 200 OK\r\ncontent-length: +2\r\n\r\n{}",
    "a folded header": b"HTTP/1.1 200 OK\r\nx-long: a\r\n b\r\ncontent-length: 2\r\n\r\n{}",
    "a header without a colon": b"HTTP/1.1 200 OK\r\nx-none\r\ncut: 1\r\ncontent-length: 2\r\n\r\n{}",
    "a space before the colon": b"HTTP/1.1 200 OK\r\ncontent-length : 2\r\ncut: 1\r\n\r\n{}",
    "a space in a name": b"HTTP/1.1 200 OK\r\nx y: z\r\ncut: 1\r\ncontent-length: 2\r\n\r\n{}",
    "bare line feeds": b"HTTP/1.1 200 OK\ncontent-length: 2\n\n{}",
    "a bare line feed": b"HTTP/1.1 200 OK\r\nx: a\ncontent-length: 2\r\n\r\n{}",
    "a bare carriage return": b"HTTP/1.1 200 OK\r\nx: a\rb: c\r\ncut: 1\r\ncontent-length: 2\r\n\r\n{}",
    "latin-1": b"HTTP/1.1 200 OK\r\nx-name: \xe5\r\ncontent-length: 2\r\n\r\n{}",
    "not HTTP": b"hello\r\n\r\n bye\r\n",
    "nothing": b"",
    "half a body": b"HTTP/1.1 200 OK\r\ncut: 1\r\ncontent-length: 9\r\n\r\n{}",
    "half a head": b"HTTP/1.1 200 OK\r\ncut: 1\r\ncontent-len",
    "half a chunk": b"HTTP/1.1 200 OK\r\ncut: 1\r\ntransfer-encoding: chunked\r\n\r\n9\r\nabc",
}  # fmt: skip


@pytest.mark.parametrize("name", ODD)
def test_any_other_answer_is_read_as_by_urllib3(server: Server, name: str) -> None:
    server.answers = [[ODD[name]], [usual()]] * 2
    own, short = pool_of(server, short=False), pool_of(server, short=True)
    found = []
    for pool in (own, own, short, short):
        found.append(told(pool))
        assert server.done.acquire(timeout=5)  # so that a connection that is closed is known to be
        found.append((server.connections,))
    assert found[4:] == [found[0], (found[1][0] + found[3][0],), found[2], (2 * found[3][0],)]
    assert found[2][-1] == BODY


@pytest.mark.parametrize(
    "headers",
    [
        (),
        (b"Connection: keep-alive", b"Date: Tue, 24 Nov 2026 00:00:00 GMT"),
        (b"set-cookie: a=1", b"set-cookie: b=2"),
        (b"X-Empty:", b"X-Spaces:  a  b\t", b"x-colons: a:b:c"),
    ],
)
@pytest.mark.parametrize("size", [0, 1, len(BODY), BUFFER - 10, 3 * BUFFER])
def test_the_usual_answer_is_taken_the_short_way(server: Server, headers: tuple[bytes, ...], size: int) -> None:
    body = (BODY * (size // len(BODY) + 1))[:size]
    server.answers = [[usual(body, *headers)] for _ in range(4)]
    pool, own = pool_of(server, short=True), pool_of(server, short=False)
    answer = ask(pool)
    assert isinstance(answer, WholeAnswer)
    assert answer.whole == body
    answer.release_conn()
    assert told(pool) == told(own)
    assert server.connections == 2
    assert answer.headers.getlist("set-cookie") == ask(own).headers.getlist("set-cookie")


LINES = st.lists(
    st.sampled_from([
        "content-length: 2", "Content-Length: 2", "content-length:2", "content-length: 02", "content-length: 1_0",
        "content-length: ٢", "content-length: 2, 2", "content-length:", "connection: Keep-Alive", "connection: close",
        "connection: keep-alive, close", "keep-alive: timeout=5", "transfer-encoding: identity", "x: y", ": y", "x", "",
        " folded", "\tfolded", "x y: z", "x: a\rcontent-length: 1", "x:\x0bz", "x: \x85z", "X-Tab:\ta\t",
        "upgrade: h2c", "trailer: x",
    ]),
    max_size=5,
)  # fmt: skip


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from(["HTTP/1.1 200 OK", "HTTP/1.1 200 OK", "HTTP/1.1 200 OK ", "HTTP/1.1  200 OK", "http/1.1 200 OK"]),
    LINES,
    st.sampled_from(["cut: 1", "cut: 1\r\ncontent-length: 2"]),
)
def test_no_head_is_read_differently(server: Server, status: str, lines: list[str], last: str) -> None:
    answer = "\r\n".join([status, *lines, last, "", "{}"]).encode("utf-8")
    server.answers = [[answer], [answer]]
    expected = told(pool_of(server, short=False))
    assert told(pool_of(server, short=True)) == expected


@pytest.mark.parametrize("length", [LONGEST + 1, 10**30])
def test_a_long_body_is_left_to_who_wants_it(server: Server, length: int) -> None:
    server.answers = [[b"HTTP/1.1 200 OK\r\ncut: 1\r\ncontent-length: %d\r\n\r\n%b" % (length, BODY)]]
    answer = ask(pool_of(server, short=True))
    assert answer.read(len(BODY)) == BODY


def test_no_header_holds_a_line_break(server: Server) -> None:
    server.answers = [[ODD["a folded header"]]]
    assert ask(pool_of(server, short=True)).headers["x-long"] == "a b"


def test_however_the_answer_is_cut(server: Server) -> None:
    whole = usual(BODY * 40)
    cuts = [1, 16, 17, 18, 40, whole.index(b"\r\n\r\n") + 2, whole.index(b"\r\n\r\n") + 4, len(whole) - 1]
    server.answers = [[whole[:at], whole[at:]] for at in cuts]
    pool = pool_of(server, short=True)
    assert [told(pool)[-1] == BODY * 40 for _ in cuts] == [True] * len(cuts)
    assert server.connections == 1


def test_the_request_says_what_it_always_says(server: Server) -> None:
    server.answers = [[usual()], [usual()]]
    for short in (True, False):
        ask(pool_of(server, short), "/list?a=b%20c&d=å").read()
    ours, urllib3s = (sorted(head.decode().split("\r\n")) for head in server.heads)
    assert ours == urllib3s


@pytest.mark.parametrize("value", ["a\r\nX-Other: 1", "a\nb", "a\rb"])
def test_no_header_smuggles_another(server: Server, value: str) -> None:
    with pytest.raises(ValueError, match="header value"):
        pool_of(server, short=True).urlopen(
            "GET", "/", headers={**HEADERS, "X": value}, retries=False, preload_content=False, decode_content=False
        )
    assert server.heads == []


@pytest.mark.parametrize("headers", [{}, {"User-Agent": "a"}, {**HEADERS, "Host": "other"}, {**HEADERS, "X": b"bytes"}])
def test_headers_that_others_write(server: Server, headers: dict[str, Any]) -> None:
    server.answers = [[usual()], [usual()]]
    for short in (True, False):
        pool_of(server, short).urlopen(
            "GET", "/", headers=headers, retries=False, preload_content=False, decode_content=False
        ).read()
    assert server.heads[0] == server.heads[1]


@pytest.mark.parametrize(("method", "body"), [("POST", b"{}"), ("GET", b"{}"), ("DELETE", None), ("OPTIONS", None)])
def test_other_requests_are_sent_as_ever(server: Server, method: str, body: bytes | None) -> None:
    server.answers = [[usual()], [usual()]]
    for short in (True, False):
        pool_of(server, short).urlopen(
            method, "/", body=body, headers=HEADERS, retries=False, preload_content=False, decode_content=False
        ).read()
    ours, urllib3s = (head.removesuffix(b"{}") for head in server.heads)
    assert ours == urllib3s
    assert ours.startswith(method.encode())


def test_a_half_read_answer_that_came_through_a_proxy_is_an_error(server: Server) -> None:
    server.answers = [[ODD["another status"]], [usual()]]
    manager = urllib3.ProxyManager(f"http://127.0.0.1:{server.port}", timeout=5, retries=False, maxsize=1)
    pool: Any = manager.connection_from_url("http://bank.example")
    pool.ConnectionCls = shorter(pool.ConnectionCls)
    how: dict[str, Any] = {"headers": HEADERS, "retries": False, "preload_content": False, "decode_content": False}
    how["assert_same_host"] = False
    half_read = pool.urlopen("GET", "http://bank.example/", **how)
    half_read.release_conn()
    with pytest.raises(urllib3.exceptions.ProtocolError):
        pool.urlopen("GET", "http://bank.example/", **how)
    assert len(server.heads) == server.connections == 1
    assert pool.urlopen("GET", "http://bank.example/", **how).read() == BODY


def ask_within(server: Server, connect: float, read: float) -> Any:
    return pool_of(server, short=True).urlopen(
        "GET", "/", headers=HEADERS, retries=False, preload_content=False, decode_content=False,
        timeout=urllib3.Timeout(connect=connect, read=read),
    )  # fmt: skip


@pytest.mark.parametrize(("method", "body"), [("GET", None), ("POST", b"{}")])
@pytest.mark.parametrize(("then", "sent"), [("GET", None), ("POST", b"{}")])
def test_the_rest_of_one_answer_is_never_another(
    server: Server, method: str, body: bytes | None, then: str, sent: bytes | None
) -> None:
    how: dict[str, Any] = {"headers": HEADERS, "retries": False, "preload_content": False, "decode_content": False}
    start = b"HTTP/1.1 404 Not Found\r\ncut: 1\r\ncontent-length: 500\r\n\r\n"
    server.answers, server.pause = [[start, usual(b"another's")], [usual()]], 0.2
    pool = pool_of(server, short=True)
    half_read = pool.urlopen(method, "/", body=body, **how)
    half_read.release_conn()
    assert pool.urlopen(then, "/", body=sent, **how).read() == BODY


@pytest.mark.parametrize(("method", "body"), [("GET", None), ("POST", b"{}")])
@pytest.mark.parametrize("times", [1, 3])
def test_a_hint_is_not_the_answer(server: Server, method: str, body: bytes | None, times: int) -> None:
    how: dict[str, Any] = {"headers": HEADERS, "retries": False, "preload_content": False, "decode_content": False}
    hint = b"HTTP/1.1 103 Early Hints\r\nlink: </style.css>\r\n\r\n"
    server.answers, server.pause = [[*[hint] * times, usual(b"the first")], [usual(b"the second")]], 0.1
    pool = pool_of(server, short=True)
    for expected in (b"the first", b"the second"):
        answer = pool.urlopen(method, "/", body=body, **how)
        assert (answer.status, answer.headers.get("link"), answer.read()) == (200, None, expected)
    assert server.connections == 1


def test_a_time_out_is_one_and_hangs_up(server: Server) -> None:
    server.answers = [[b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{}"]]
    with pytest.raises(urllib3.exceptions.ReadTimeoutError) as raised:
        ask_within(server, connect=5, read=0.1)
    assert server.left.wait(5)
    assert raised.value.args


def test_the_answer_has_the_time_to_read_not_that_to_connect(server: Server) -> None:
    server.answers, server.pause = [[usual()[:20], usual()[20:]]], 0.3
    assert ask_within(server, connect=0.1, read=5).read() == BODY


@pytest.mark.parametrize("name", ["nothing", "two lengths"])
def test_what_cannot_be_read_is_let_go_in_silence(server: Server, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    complaints: list[Any] = []
    monkeypatch.setattr("sys.unraisablehook", complaints.append)
    server.answers = [[ODD[name]]]
    assert len(told(pool_of(server, short=True))) == 1
    gc.collect()
    assert complaints == []


def test_an_answer_that_broke_off_tells_nothing_of_itself(server: Server) -> None:
    server.answers = [[ODD["half a body"]]]
    with pytest.raises(urllib3.exceptions.ProtocolError) as raised:
        ask(pool_of(server, short=True))
    assert "{}" not in repr(raised.value.args)


def test_a_session_of_requests_reads_it_and_keeps_the_connection(server: Server) -> None:
    server.answers = [[usual()], [usual()]]
    session = requests.Session()
    adapter = session.get_adapter("http://")
    assert isinstance(adapter, HTTPAdapter)
    url = f"http://127.0.0.1:{server.port}/"
    pool: Any = adapter.get_connection_with_tls_context(requests.Request("GET", url).prepare(), verify=True)
    pool.ConnectionCls = shorter(pool.ConnectionCls)
    assert [session.get(url).content for _ in range(2)] == [BODY] * 2
    assert server.connections == 1


def own_certificate(directory: Path) -> tuple[ssl.SSLContext, str]:
    """A server's context with a certificate for 127.0.0.1, and the file to trust it by."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    now = datetime.now(UTC)
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    made = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now, now + timedelta(1))
    certificate = made.add_extension(address, critical=False).sign(key, hashes.SHA256())
    pem = directory / "certificate.pem"
    secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    pem.write_bytes(certificate.public_bytes(Encoding.PEM) + secret)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    return context, str(pem)


def test_over_tls(tmp_path: Path) -> None:
    context, trusted = own_certificate(tmp_path)
    body = BODY * 4000
    server = Server(context)
    try:
        server.answers = [[usual(body)], [usual(body)], [ODD["chunked"]]]
        pool: Any = urllib3.HTTPSConnectionPool("127.0.0.1", server.port, ca_certs=trusted, timeout=5, retries=False)
        pool.ConnectionCls = shorter(pool.ConnectionCls)
        for _ in range(2):
            answer = ask(pool)
            assert isinstance(answer, WholeAnswer)
            assert answer.whole == body
            answer.release_conn()
        assert told(pool)[-1] == b"abc"
        assert server.connections == 1
        pool = urllib3.HTTPSConnectionPool("127.0.0.1", server.port, timeout=5, retries=False)
        pool.ConnectionCls = shorter(pool.ConnectionCls)
        with pytest.raises(urllib3.exceptions.SSLError):
            ask(pool)
    finally:
        server.close()


def test_only_urllib3s_own_two_kinds() -> None:
    class Other(HTTPConnection):
        pass

    assert shorter(Other) is Other
    assert issubclass(shorter(HTTPSConnection), HTTPSConnection)
    assert shorter(HTTPSConnection).default_port == 443
