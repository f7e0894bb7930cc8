# SPDX-License-Identifier: Apache-2.0
"""All data of one API, generated at its first use."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from functools import cached_property

from intergiro_provider.sandbox.collection import Collection, Rows, encode
from intergiro_provider.sandbox.settings import Settings
from intergiro_provider.sandbox.small_lists import Record, SmallLists
from intergiro_provider.sandbox.transactions import Spread, Transactions

ACCOUNTS = {"v3": 60, "v1": 8}
INDIVIDUALS = 250
CARDS = 180


class Accounts(Rows):
    """Accounts with their current balance.

    :param balance: returns the balance of an account by its id, in minor units.
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
        self._lists = SmallLists(api, settings.seed, now)
        self._rows: dict[tuple[str, str], Rows] = {}

    @cached_property
    def accounts(self) -> Accounts:
        """The customer's accounts. Their balances are the sums of their transactions."""
        return Accounts(self._lists.accounts(ACCOUNTS[self.api]), lambda account: self.transactions.balance(account))

    @cached_property
    def individuals(self) -> Rows:
        """The customer's individuals (3d)."""
        return Rows(self._lists.individuals(INDIVIDUALS))

    @cached_property
    def cards(self) -> Rows:
        """3d: their cards."""
        return Rows(self._lists.cards(CARDS, self.accounts.values, self.individuals.values))

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
        """Complete the transactions that are due, this number of seconds after the start."""
        self._elapsed = elapsed * 1000
        if "transactions" in self.__dict__:
            self.transactions.settle(self._elapsed)

    def events(self, individual_id: str) -> Collection | None:
        """Return the events of an individual (3d); None if there is no such individual."""
        individual = _find(self.individuals, individual_id)
        if individual is None:
            return None
        return self._remember("events", individual_id, self._lists.events(individual))

    def individual_payment_methods(self, individual_id: str) -> Collection | None:
        """Return the payment methods of an individual (3d); None if there is no such individual."""
        if _find(self.individuals, individual_id) is None:
            return None
        return self._remember("methods", individual_id, self._lists.payment_methods(individual_id))

    def guest_payment_methods(self, guest_id: str) -> Collection | None:
        """Return the payment methods of a guest (3d). Every id is a guest's, unless it starts with `unknown`."""
        if guest_id.startswith("unknown"):
            return None
        return self._remember("guests", guest_id, self._lists.payment_methods(guest_id))

    def bank_details(self, account_id: str) -> list[Record] | None:
        """Return the bank details of an account (3d); None if there is no such account."""
        account = _find(self.accounts, account_id)
        return None if account is None else self._lists.bank_details(account)

    def _remember(self, kind: str, owner: str, rows: list[Record]) -> Rows:
        found = self._rows.get((kind, owner))
        if found is None:
            found = self._rows[kind, owner] = Rows(rows)
        return found


def _find(rows: Rows, id: str) -> Record | None:
    serial = rows.serial(id)
    return None if serial is None else rows.values[serial]
