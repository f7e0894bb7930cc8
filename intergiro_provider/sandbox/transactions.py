# SPDX-License-Identifier: Apache-2.0
"""Any number of transactions. Each is generated from its serial number on demand, always the same."""

from __future__ import annotations

import json
import random
from array import array
from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from heapq import heappop, heappush
from math import inf
from typing import Any

from intergiro_provider.sandbox.collection import Collection, encode, iso
from intergiro_provider.sandbox.ids import Ids

# Random bits select one of sixteen or eight; a value that occurs more often in the tuple is more likely.
STATUSES = (
    *("pending", "pending_approval", "processing", "rejected", "failed", "cancelled", "returned"),
    *["completed"] * 9,
)
OPEN = frozenset({"pending", "processing"})
"""Statuses of transactions that complete later."""
BOOKED = "completed"
"""The status of transactions that count in an account's balance."""
_TYPES = (b"bank-transfer", b"bank-transfer", b"bank-transfer", b"card", b"card", b"fee", b"exchange", b"move")
# A pull must keep the bank's spelling of strings, including escapes that a re-encoding would change.
NAMES = tuple(
    name.encode()
    for name in (
        "Åsa Öberg",
        "Zażółć gęślą jaźń Sp. z o.o.",
        "Müller & Söhne GmbH",
        "José Ñúñez",
        "Café de l’Étoile",
        "北京科技有限公司",
        "株式会社さくら",
        "Ελληνική Ναυτιλία",
        "ООО «Ромашка»",
        "شركة النور",
        "חברת השמש",
        'O\'Brien \\"Paddy\\" Ltd',
        "Þór Sigurðsson",
        "Ğülşen İnce",
        "Nguyễn Văn Đức",
        "दिल्ली ट्रेडर्स",
        "Emma Lindqvist",
        "Kafé 🍰 Södermalm",
        "AB Skog\\/Papper",
        "J\\u00fcrgen \\u00c4hrlich",
        "Acme\\tTrading",
        "Back\\\\slash Oy",
        "Łukasz Wiśniewski",
        "Plain Payments Ltd",
    )
)
REFERENCES = tuple(
    text.encode()
    for text in (
        "Invoice",
        "Faktura \\u2116",
        "Löner nov.",
        'Rent \\"flat 4\\"',
        "Zwrot kosztów",
        "a\\/b\\/c",
        "Cafe\\u0301",
        "💸 refund \\ud83d\\ude00",
        "家賃",
        "Line\\nbreak",
    )
)
BIG = 2**53 + 1
"""The smallest integer that a double cannot hold."""

_MASK = 2**64 - 1
_DAY = 86_400_000
_TEMPLATE = (
    b'{"id":"%b","type":"%b","amount":%d,"currency":"%b","status":"%b","account_id":"%b","reference":"%b %d",'
    b'"request_id":"%b","correlation_id":"%b","exchange_rate":%b,"payment_amount":%d,"payment_currency":"%b",'
    b'"counterparty":{"name":"%b","account_id":%b,"account_details":%b},'
    b'"created_at":"%b","updated_at":"%b"%b}'
)


@dataclass(frozen=True)
class Spread:
    """The number of transactions, and their period: from `now - days` to `now`."""

    count: int
    now: datetime
    days: float


class Transactions(Collection):
    """The transactions of one API.

    :param api: `v1` (2d) or `v3` (3d).
    :param seed: determines ids, times and contents.
    :param accounts: the accounts of the transactions, which determine the currency.
    :param settle_after: seconds after which pending transactions complete; 0: only on request.
    :param cached: number of serialized records to keep.
    """

    facets = True

    def __init__(
        self,
        api: str,
        seed: int,
        accounts: Sequence[Mapping[str, Any]],
        spread: Spread,
        *,
        cached: int,
        settle_after: float = 0.0,
    ) -> None:
        self._ids = Ids(seed * 2 + 1)
        self._salt = (seed * 0x9E3779B97F4A7C15 + 0xD1B54A32D192ED03) & _MASK
        self._accounts = tuple(account["id"] for account in accounts)
        self._account_bytes = tuple((account["id"].encode(), account["currency"].encode()) for account in accounts)
        self._details = _account_details(seed, api)
        self._cached = cached
        self._cache: dict[int, bytes] = {}
        self._written: dict[int, dict[str, Any]] = {}
        self._balances: Counter[str] | None = None
        moments = _moments(seed, spread)
        super().__init__(moments, array("I", range(len(moments))))
        self._generated = len(moments)
        # Pending transactions by the time at which they complete, in milliseconds since the end of the data.
        self._pending: list[tuple[float, int]] = []
        self._elapsed = 0.0
        # Transactions that correlation_ids does not find yet, in the order in which it will.
        self._hidden: dict[int, float] = {}
        self._settle_after = round(settle_after * 1000)
        self._settled_before = 0
        if self._settle_after:
            end = int(spread.now.timestamp() * 1000)
            self._settled_before = end - self._settle_after
            for position in range(bisect_left(moments, self._settled_before), len(moments)):
                serial = self.order[position]
                if STATUSES[self._noise(serial) >> 8 & 15] in OPEN:
                    self._pending.append((moments[position] + self._settle_after - end, serial))

    def raw(self, serial: int) -> bytes:
        found = self._cache.get(serial)
        if found is None:
            found = encode(self._written[serial]) if serial in self._written else self._make(serial)
            if len(self._cache) < self._cached:
                self._cache[serial] = found
        return found

    def id(self, serial: int) -> str:
        return self._ids.of(serial)

    def serial(self, id: str) -> int | None:
        serial = self._ids.serial(id)
        return serial if serial is not None and serial < len(self.order) else None

    def updated(self, serial: int) -> int:
        written = self._written.get(serial)
        if written is not None:
            return round(datetime.fromisoformat(written["updated_at"]).timestamp() * 1000)
        created = self.created[self.place[serial]]
        return self._state(self._noise(serial), created)[1]

    def facet(self, serial: int) -> tuple[str, str, str]:
        written = self._written.get(serial)
        if written is not None:
            correlation = "" if serial in self._hidden else written.get("correlation_id", "")
            return written["account_id"], written["status"], correlation
        noise = self._noise(serial)
        status, _ = self._state(noise, self.created[self.place[serial]])
        return self._accounts[noise % len(self._accounts)], status, _correlation(noise).decode()

    def balance(self, account_id: str) -> int:
        """Return the sum of the account's booked transactions. The first call reads all transactions."""
        if self._balances is None:
            self._balances = Counter()
            for serial in range(self._generated):
                if serial not in self._written:
                    noise = self._noise(serial)
                    status, _ = self._state(noise, self.created[self.place[serial]])
                    if status == BOOKED:
                        self._balances[self._accounts[noise % len(self._accounts)]] += _amount(serial, noise)
            for record in self._written.values():
                self._count(record, 1)
        return self._balances[account_id]

    def prepare(self) -> None:
        """Serialize the records that are kept, so that the first pull is as fast as the second."""
        for serial in range(min(len(self.order), self._cached)):
            self.raw(serial)

    def add(self, records: Sequence[dict[str, Any]], created: int, *, found_after: float = 0.0) -> list[dict[str, Any]]:
        """Add transactions at epoch milliseconds, fill in their ids and times, and return them.

        :param found_after: seconds after which they are found by correlation_ids.
        """
        serials = range(len(self.order), len(self.order) + len(records))
        for serial, record in zip(serials, records, strict=True):
            moments = {"created_at": iso(created), "updated_at": iso(created)}
            self._write(serial, {"id": self.id(serial), **record, **moments})
        if found_after:
            self._hidden.update(dict.fromkeys(serials, self._elapsed + found_after * 1000))
        self.insert(serials, created)
        return [self._written[serial] for serial in serials]

    def change(self, serial: int, changes: dict[str, Any], updated: int) -> None:
        """Change fields of a transaction, such as its status."""
        former = self._written.get(serial) or json.loads(self._make(serial))
        self._count(former, -1)
        self._write(serial, {**former, **changes, "updated_at": iso(updated)})
        self._cache.pop(serial, None)
        self.touched()

    def settle(self, elapsed: float) -> None:
        """Apply the changes that are due this many milliseconds after the end of the data, such as completions."""
        self._elapsed = elapsed
        while self._hidden and self._hidden[serial := next(iter(self._hidden))] <= elapsed:
            del self._hidden[serial]
            self.touched()
        while self._pending and self._pending[0][0] <= elapsed:
            serial = heappop(self._pending)[1]
            self._complete(serial, self.created[self.place[serial]] + self._settle_after)

    def settle_all(self, now: int) -> int:
        """Complete all pending transactions that were added or would complete later; return their number."""
        pending, self._pending = self._pending, []
        return sum(self._complete(serial, now) for _, serial in pending)

    def _complete(self, serial: int, updated: int) -> bool:
        still_open = self.facet(serial)[1] in OPEN
        if still_open:
            self.change(serial, {"status": BOOKED}, updated)
        return still_open

    def _write(self, serial: int, record: dict[str, Any]) -> None:
        self._written[serial] = record
        self._count(record, 1)
        if record["status"] in OPEN:
            heappush(self._pending, (self._elapsed + (self._settle_after or inf), serial))

    def _count(self, record: Mapping[str, Any], sign: int) -> None:
        if self._balances is not None and record["status"] == BOOKED:
            self._balances[record["account_id"]] += sign * record["amount"]

    def _state(self, noise: int, created: int) -> tuple[str, int]:
        """Return a generated transaction's status and the time of its last update."""
        status = STATUSES[noise >> 8 & 15]
        if created < self._settled_before and status in OPEN:
            return BOOKED, created + self._settle_after
        return status, created + ((noise >> 20) % 90_000 if noise & 3 else 0)

    def _noise(self, serial: int) -> int:
        # A 64-bit mixer: adjacent serials get unrelated bits, and no state is needed for the millionth record.
        x = (serial * 0x9E3779B97F4A7C15 + self._salt) & _MASK
        x = ((x ^ x >> 30) * 0xBF58476D1CE4E5B9) & _MASK
        x = ((x ^ x >> 27) * 0x94D049BB133111EB) & _MASK
        return x ^ x >> 31

    def _make(self, serial: int) -> bytes:
        noise = self._noise(serial)
        created = self.created[self.place[serial]]
        status, updated = self._state(noise, created)
        amount = _amount(serial, noise)
        account, currency = self._account_bytes[noise % len(self._account_bytes)]
        rate, payment_amount, payment_currency = b"null", amount, currency
        if not noise >> 12 & 7:
            # A float does not keep trailing zeros and exponents.
            rate = (b"10.4500", b"0.0930", b"1.10", b"4.2e-2")[noise >> 40 & 3]
            payment_amount, payment_currency = amount * 11 // 10, b"NOK"
        extra = b""
        if not noise >> 44 & 7:
            extra = b',"risk":{"score":0.%02d0,"flags":[]},"x_ledger":%d' % (noise >> 48 & 63, BIG + serial)
        return _TEMPLATE % (
            self._ids.of(serial).encode(),
            _TYPES[noise >> 24 & 7],
            amount,
            currency,
            status.encode(),
            account,
            REFERENCES[(noise >> 27) % len(REFERENCES)],
            serial,
            b"%08x-5a4d-4b0c-8a5d-%012x" % (noise >> 32, serial),
            _correlation(noise),
            rate,
            payment_amount,
            payment_currency,
            NAMES[(noise >> 3) % len(NAMES)],
            b"null" if noise >> 50 & 1 else b'"%09d"' % (noise >> 30 & 0x1FFFFFFF),
            self._details[noise >> 34 & 63],
            _iso(created),
            _iso(updated),
            extra,
        )


def _amount(serial: int, noise: int) -> int:
    amount = (noise >> 16) % 250_000 + 1 + (BIG if serial % 97 == 5 else 0)
    return -amount if noise >> 61 & 1 else amount


def _correlation(noise: int) -> bytes:
    return b"batch-%03d" % (noise >> 52 & 255)


_DAYS: dict[int, bytes] = {}


def _iso(ms: int) -> bytes:
    day, ms = divmod(ms, _DAY)
    date = _DAYS.get(day)
    if date is None:
        date = _DAYS[day] = (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(days=day)).strftime("%Y-%m-%d").encode()
    seconds, ms = divmod(ms, 1000)
    minutes, seconds = divmod(seconds, 60)
    return b"%bT%02d:%02d:%02d.%03dZ" % (date, *divmod(minutes, 60), seconds, ms)


def _moments(seed: int, spread: Spread) -> array[int]:
    """Return sorted epoch milliseconds with ties, also across page boundaries."""
    draw = random.Random(seed).random
    end = int(spread.now.timestamp() * 1000)
    length = max(int(spread.days * _DAY), 1)
    moments = [end - 1 - int(draw() * length) for _ in range(spread.count)]
    moments.sort()
    for start in range(0, len(moments), 10):
        # Two of ten are equal, and four in every fifth ten. `add` can create more than a page of equal ones.
        for tied in range(start + 1, min(start + (2 if start % 50 else 4), len(moments))):
            moments[tied] = moments[start]
    return array("q", moments)


def _account_details(seed: int, api: str) -> tuple[bytes, ...]:
    """Return a counterparty's account, in the form of each API."""
    draw = random.Random(seed ^ 0x1BA)
    kinds = (("SE", 22, "ESSESESS"), ("DE", 20, "DEUTDEFF"), ("PL", 26, "BREXPLPW"), ("FR", 25, "BNPAFRPP"))
    made = []
    for _ in range(64):
        country, digits, bic = draw.choice(kinds)
        iban = country + "".join(draw.choice("0123456789") for _ in range(digits))
        made.append(encode({"number": iban, "bank_code": bic} if api == "v1" else {"type": "sepa", "iban": iban}))
    return tuple(made)
