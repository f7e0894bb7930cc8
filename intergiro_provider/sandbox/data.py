# SPDX-License-Identifier: Apache-2.0
"""All data of one API, made when first asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from functools import cached_property

from intergiro_provider.sandbox.collection import Collection, Rows, encode
from intergiro_provider.sandbox.people import Makers, Record
from intergiro_provider.sandbox.settings import Settings
from intergiro_provider.sandbox.transactions import Spread, Transactions

ACCOUNTS = {"v3": 60, "v1": 8}
INDIVIDUALS = 250
CARDS = 180


class Accounts(Rows):
    """Accounts that show their present balance.

    :param balance: gives the balance of an account's id, in minor units.
    """

    def __init__(self, rows: Sequence[Record], balance: Callable[[str], int]) -> None:
        super().__init__(rows)
        self._balance = balance

    def raw(self, serial: int) -> bytes:
        row = self.values[serial]
        return encode({**row, "balance": self._balance(row["id"])})


class Data:
    """The lists of one API.

    :param api: `v1` (2d) or `v3` (3d).
    :param now: the end of the data.
    """

    def __init__(self, api: str, settings: Settings, now: datetime) -> None:
        self.api, self.now = api, now
        self._settings, self._elapsed = settings, 0.0
        self._makers = Makers(api, settings.seed, now)
        self._small: dict[tuple[str, str], Rows] = {}

    @cached_property
    def accounts(self) -> Accounts:
        """Accounts of the customer, whose balances are the sums of their transactions."""
        return Accounts(self._makers.accounts(ACCOUNTS[self.api]), lambda account: self.transactions.balance(account))

    @cached_property
    def individuals(self) -> Rows:
        """3d: the persons that the customer serves."""
        return Rows(self._makers.individuals(INDIVIDUALS))

    @cached_property
    def cards(self) -> Rows:
        """3d: their cards."""
        return Rows(self._makers.cards(CARDS, self.accounts.values, self.individuals.values))

    @cached_property
    def transactions(self) -> Transactions:
        """The long list."""
        settings = self._settings
        spread = Spread(settings.transactions, self.now, settings.days)
        seed = settings.seed * 2 + (self.api == "v1")
        made = Transactions(
            self.api,
            seed,
            self.accounts.values,
            spread,
            cached=settings.cached_records,
            settle_after=settings.settle_after,
        )
        made.settle(self._elapsed)
        return made

    def settle(self, elapsed: float) -> None:
        """Complete the transactions that are due, so many seconds after the start."""
        self._elapsed = elapsed * 1000
        if "transactions" in self.__dict__:
            self.transactions.settle(self._elapsed)

    def events(self, individual_id: str) -> Collection | None:
        """3d: an individual's events; None where there is no such individual."""
        individual = _find(self.individuals, individual_id)
        if individual is None:
            return None
        return self._remember("events", individual_id, self._makers.events(individual))

    def individual_payment_methods(self, individual_id: str) -> Collection | None:
        """3d: how an individual can pay; None where there is no such individual."""
        if _find(self.individuals, individual_id) is None:
            return None
        return self._remember("methods", individual_id, self._makers.payment_methods(individual_id))

    def guest_payment_methods(self, guest_id: str) -> Collection | None:
        """3d: how a guest can pay. Guests are in no list: every id is one, but those that begin with `unknown`."""
        if guest_id.startswith("unknown"):
            return None
        return self._remember("guests", guest_id, self._makers.payment_methods(guest_id))

    def bank_details(self, account_id: str) -> list[Record] | None:
        """3d: how money reaches an account; None where there is no such account."""
        account = _find(self.accounts, account_id)
        return None if account is None else self._makers.bank_details(account)

    def _remember(self, kind: str, owner: str, rows: list[Record]) -> Rows:
        found = self._small.get((kind, owner))
        if found is None:
            found = self._small[kind, owner] = Rows(rows)
        return found


def _find(rows: Rows, id: str) -> Record | None:
    serial = rows.serial(id)
    return None if serial is None else rows.values[serial]
