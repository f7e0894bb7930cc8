# SPDX-License-Identifier: Apache-2.0
"""Tokens that look like the bank's. They are random, and the sandbox keeps a list of them."""

from __future__ import annotations

import base64
import json
import secrets


def access_token(form: str, *, session: str, issued_at: float, expires_at: float) -> str:
    """Return a new access token: `jwt`, `jwt_without_exp` or `opaque`. Times are epoch seconds."""
    if form == "opaque":
        return secrets.token_urlsafe(48)
    claims: dict[str, object] = {"sid": session, "jti": secrets.token_hex(8), "iat": int(issued_at)}
    if form == "jwt":
        claims["exp"] = int(expires_at)
    header = {"kid": "1", "alg": "RS256", "typ": "JWT"}
    # The signature is random: clients cannot verify the bank's either.
    return f"{_part(_json(header))}.{_part(_json(claims))}.{_part(secrets.token_bytes(256))}"


def refresh_token(*, session: str) -> str:
    """Return a new refresh token, which is opaque."""
    return _part(_json({"sessionId": session, "nonce": secrets.token_hex(24)}))


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _part(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")
