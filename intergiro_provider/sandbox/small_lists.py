# SPDX-License-Identifier: Apache-2.0
"""The bank's small lists: individuals, accounts, cards, events, payment methods. A seed determines them."""

from __future__ import annotations

import random
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from intergiro_provider.sandbox.collection import iso
from intergiro_provider.sandbox.ids import Ids

Record = dict[str, Any]

INDIVIDUAL_STATUSES = (
    "onboarding_requested",
    "onboarding_data_provided",
    "active",
    "active",
    "active",
    "blocked",
)
EVENTS = (
    "IndividualOnboardingRequested",
    "IndividualOnboardingDataProvided",
    "IndividualActivated",
    "IndividualBlocked",
)
# How many of EVENTS each status has seen.
_SEEN = {"onboarding_requested": 1, "onboarding_data_provided": 2, "active": 3, "blocked": 4}
GIVEN = ("Åsa", "Zoë", "Łukasz", "Özlem", "Jürgen", "Nguyễn", "Σοφία", "Дарья", "美咲", "ليلى", "Siobhán", "Emma")
FAMILY = ("Öberg", "O'Neill", "Wiśniewska", "Müller-Lund", "d’Arc", "Παπαδοπούλου", "Иванова", "田中", "Smith", "Ñúñez")


class SmallLists:
    """Generates the small lists of one API.

    :param api: `v1` or `v3`.
    :param now: the end of the data; all records were created in the two years before.
    """

    def __init__(self, api: str, seed: int, now: datetime) -> None:
        self._api, self._seed, self._now = api, seed, now

    def accounts(self, count: int) -> list[Record]:
        """Return accounts, half of them in EUR. Their balances are computed from the transactions."""
        draw, ids = self._source("accounts")
        rows = []
        for serial in range(count):
            created = self._moment(draw)
            row: Record = {
                "id": ids.of(serial),
                "name": f"{draw.choice(GIVEN)}s konto {serial}" if serial % 2 else f"Account № {serial}",
                "currency": draw.choice(("SEK", "GBP", "USD", "PLN")) if serial % 2 else "EUR",
                "balance": 0,
                "created_at": iso(created),
                "type": draw.choice(("current", "current", "savings", "client-funds")),
                "updated_at": iso(created + draw.randrange(1_000_000)),
            }
            if serial % 5 == 3:
                row["x_limits"] = {"daily": None, "tiers": [1, 2.50, "three"]}
            rows.append(row)
        return rows

    def individuals(self, count: int) -> list[Record]:
        """Return individuals, in every status."""
        draw, ids = self._source("individuals")
        rows = []
        for serial in range(count):
            created = self._moment(draw)
            rows.append(
                {
                    "id": ids.of(serial),
                    "first_name": draw.choice(GIVEN),
                    "last_name": draw.choice(FAMILY),
                    "email": f"person{serial}@example.com",
                    "status": INDIVIDUAL_STATUSES[serial % len(INDIVIDUAL_STATUSES)],
                    "address": {
                        "city": "Göteborg",
                        "country": "SE",
                        "postal_code": str(draw.randrange(10_000, 99_999)),
                    },
                    "date_of_birth": f"{draw.randrange(1940, 2005)}-0{draw.randrange(1, 10)}-1{draw.randrange(10)}",
                    "created_at": iso(created),
                    "updated_at": iso(created + draw.randrange(10_000_000)),
                }
            )
        return rows

    def cards(self, count: int, accounts: Sequence[Record], individuals: Sequence[Record]) -> list[Record]:
        """Return cards of these individuals, on these accounts."""
        draw, ids = self._source("cards")
        rows = []
        for serial in range(count):
            created = self._moment(draw)
            account = draw.choice(accounts)
            rows.append(
                {
                    "id": ids.of(serial),
                    "display_name": f"{draw.choice(GIVEN)} 💳 {serial}",
                    "type": draw.choice(("virtual", "physical")),
                    "brand": "mastercard",
                    "region": "SE",
                    "exp_month": draw.randrange(1, 13),
                    "exp_year": draw.randrange(2026, 2031),
                    "last4": f"{draw.randrange(10_000):04d}",
                    "currency": account["currency"],
                    "account_id": account["id"],
                    "individual_id": draw.choice(individuals)["id"],
                    "status": ("active", "inactive", "blocked", "expired")[serial % 4],
                    "created_at": iso(created),
                    "updated_at": iso(created + draw.randrange(10_000_000)),
                }
            )
        return rows

    def events(self, individual: Record) -> list[Record]:
        """Return the events of an individual; the first has an empty payload."""
        _, ids = self._source("events" + individual["id"])
        start = datetime.fromisoformat(individual["created_at"])
        names = EVENTS[: _SEEN[individual["status"]]]
        return [
            {
                "id": ids.of(serial),
                "name": name,
                "payload": {"individual_id": individual["id"], "step": serial, "note": None} if serial else {},
                "created_at": iso(_ms(start + timedelta(minutes=7 * serial))),
            }
            for serial, name in enumerate(names)
        ]

    def payment_methods(self, owner: str) -> list[Record]:
        """Return the payment methods of an individual or a guest."""
        draw, ids = self._source("methods" + owner)
        rows = []
        for serial in range(1 + draw.randrange(4)):
            created = self._moment(draw)
            rows.append(
                {
                    "id": ids.of(serial),
                    "type": draw.choice(("card", "bank-account")),
                    "last4": f"{draw.randrange(10_000):04d}",
                    "status": "active",
                    "created_at": iso(created),
                    "updated_at": iso(created),
                }
            )
        return rows

    def bank_details(self, account: Record) -> list[Record]:
        """Return the bank details of an account."""
        draw, _ = self._source("details" + account["id"])
        iban = "SE" + "".join(draw.choice("0123456789") for _ in range(22))
        rows: list[Record] = [{"type": "sepa", "iban": iban, "bic": "ESSESESS", "beneficiary": account["name"]}]
        if account["currency"] == "GBP":
            number = f"{draw.randrange(10**8):08d}"
            rows.append({"type": "faster-payments", "sort_code": "04-00-04", "account_number": number})
        return rows

    def _source(self, what: str) -> tuple[random.Random, Ids]:
        # str seeds of random.Random are stable between processes, unlike hash().
        draw = random.Random(f"{self._seed}/{self._api}/{what}")
        return draw, Ids(draw.getrandbits(40))

    def _moment(self, draw: random.Random) -> int:
        return _ms(self._now) - 1 - draw.randrange(2 * 365 * 86_400_000)


def _ms(moment: datetime) -> int:
    return round(moment.timestamp() * 1000)
