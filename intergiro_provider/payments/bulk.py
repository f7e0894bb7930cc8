# SPDX-License-Identifier: Apache-2.0
"""A bulk payment, made once although the bank supports no idempotency key for it.

The plan, and the state of each batch, are written durably before a request. If the outcome of a batch is unknown, it
is looked up by the correlation ids of its items. The look-up waits until `settle` after the request, since payments can
appear late.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import requests

from intergiro_provider.api.client import IntergiroClient
from intergiro_provider.api.errors import error_of
from intergiro_provider.exceptions import (
    BankUnavailable,
    IntergiroError,
    OutcomeUnknown,
    PaymentMismatch,
    looks_like_an_id,
)
from intergiro_provider.payments import look_up
from intergiro_provider.payments.batches import CURRENCY, Batch, BulkPlan
from intergiro_provider.payments.record import UNRESOLVED, Record, last_in_flight, parse_time
from intergiro_provider.payments.sending import decode_payment, refuse_delayed
from intergiro_provider.pull.pages import read_page

log = logging.getLogger(__name__)

MAX_SHOWN_IDS = 20
"""The most correlation ids in a message; the record holds all."""
SMALL_CLOCK_SKEW = timedelta(minutes=1)
"""How far the bank's clock may be behind ours where correlation ids of the user are found."""
MAX_RESENDS = 2
"""How often one try of a task sends a batch again."""


@dataclass
class BulkPayment:
    """Makes one bulk payment, batch by batch.

    :param key: the key of the bulk payment, if the record does not hold one. Correlation ids are made from it.
    :param record: the states of the batches; it must be kept.
    :param plan_record: the items, masked.
    :param settle: how long after a request its payments may still appear in the bank's list.
    :param resend_after: how long after a request a batch is sent again if none of its items is found; None: never.
    :param task_fields: fields for the record that name the task, its try and the approver.
    :param possibly_sent_since: the earliest time of an earlier try, whose record may be lost; None: there was none.
    """

    client: IntergiroClient
    plan: BulkPlan
    key: str
    record: Record
    plan_record: Record
    settle: timedelta = timedelta(minutes=10)
    resend_after: timedelta | None = None
    task_fields: Mapping[str, Any] = field(default_factory=dict)
    possibly_sent_since: datetime | None = None
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    sleep: Callable[[float], None] = time.sleep
    began: datetime = field(init=False)

    def make(self) -> dict[str, Any]:
        """Make sure that every batch is submitted once, and return the result, without account data.

        :raises PaymentMismatch: the record holds other items, or the bank shows other amounts.
        :raises OutcomeUnknown: a batch may have been submitted, and must not be sent again.
        :raises IntergiroError: the bank has refused a batch, or a batch was not sent. The task can be retried or
            cleared.
        """
        self.began = self.now()
        self.key = self.record.content.get("key") or self.key
        batches = self.plan.batches(self.key)
        self._open_record(batches)
        for number, batch in enumerate(batches):
            self._submit(number, batch)
        self.record.save(state="confirmed")
        entries = self.record.content["batches"]
        return {
            "key": self.key,
            **self.plan.summary(),
            "batches": [{name: entry[name] for name in ("batch_id", "items", "amount")} for entry in entries],
        }

    def _open_record(self, batches: list[Batch]) -> None:
        """Write the plan, or continue the existing one."""
        former = self.record.content
        if former.get("sha256") == self.plan.digest:
            return
        if any(entry["state"] in ("confirmed", *UNRESOLVED) for entry in former.get("batches", ())):
            raise PaymentMismatch(
                f"The items have changed since {self.record} was written, but the bank already has batches of the "
                f"earlier plan {former['sha256'][:12]}…. Nothing was paid now. To finish that plan, restore its items "
                "and clear this task. Pay the difference in a new run or with another `payment_key`."
            )
        self.plan_record.save(
            kind="bulk plan", key=self.key, sha256=self.plan.digest,
            items=[
                [number, item.content["correlation_id"], item.content["amount"], item.masked]
                for number, batch in enumerate(batches, 1) for item in batch.items
            ],
        )  # fmt: skip
        # The record of an earlier try may have been lost with its worker's disk.
        is_lost = not former and self.possibly_sent_since is not None
        entries: list[dict[str, Any]] = [
            {
                "state": "unknown" if is_lost else "planned", "items": len(batch.items), "amount": batch.total,
                "batch_id": None, "attempts": [],
            }
            for batch in batches
        ]  # fmt: skip
        self.record.save(
            kind="bulk", state="planned", key=self.key, endpoint="bulk_payments", **self.plan.summary(),
            planned_at=self.record.time(), batches=entries, **self.task_fields,
        )  # fmt: skip

    def _submit(self, number: int, batch: Batch) -> None:
        """Make sure that one batch is submitted once."""
        for _ in range(1 + MAX_RESENDS):
            state = self._entry(number)["state"]
            if state == "confirmed" or (state in UNRESOLVED and self._is_found(number, batch)):
                return
            self._send(number, batch)
        if self._entry(number)["state"] != "confirmed" and not self._is_found(number, batch):
            raise self._outcome_unknown(number, f"{1 + MAX_RESENDS} requests without a usable response")

    def _send(self, number: int, batch: Batch) -> None:
        """Send the request once. If its outcome is unknown, the batch gets the state ``unknown``."""
        entry = self._entry(number)
        repeated = entry["state"] in UNRESOLVED
        self.client.authenticate()
        sent_at = self.record.time()
        attempt = {"sent_at": sent_at, "outcome": "sent", "sent_by": {**self.task_fields}}
        self._save_entry(number, state="sent", attempts=[*entry["attempts"], attempt])
        check = refuse_delayed(sent_at, self.now, f"batch {number + 1}")
        try:
            response = self.client.request(
                "POST", "bulk_payments", batch.body(self.plan.account_id),
                options={"check_response": False, "before_send": check},
            )  # fmt: skip
        except OutcomeUnknown as error:
            self._save_outcome(number, "unknown", "unknown")
            if error.interrupted:
                raise IntergiroError(
                    f"The task timed out or was stopped while it sent batch {number + 1}. The next try of this task "
                    "looks up whether the bank has the batch."
                ) from None
            return
        except IntergiroError as error:
            if isinstance(error, BankUnavailable) and error.may_have_arrived:
                self._save_outcome(number, "unknown", "unknown")
                return
            self._save_outcome(number, "not sent", "sent" if repeated else "planned")
            raise
        self._handle_response(number, batch, response, repeated)

    def _handle_response(self, number: int, batch: Batch, response: requests.Response, repeated: bool) -> None:
        status = response.status_code
        if 200 <= status < 300 and (content := decode_payment(response)) is not None:
            total = _total(content)
            batch_id = look_up.shown_id(content)
            if total is not None and total != batch.total:
                self._save_outcome(number, "another amount", "unknown", status, batch_id)
                raise PaymentMismatch(
                    f"Intergiro shows another total for batch {number + 1} ({batch_id}) than planned: {total} instead "
                    f"of {batch.total} cents. Look at the batch in the customer portal before it is approved.",
                    batch_id,
                )
            self._save_outcome(number, "response received", "confirmed", status, batch_id)
            return
        if status in (425, 429):
            self._save_outcome(number, "not carried out", "sent" if repeated else "planned", status)
            raise error_of(response)
        if status < 400 or status == 408 or status >= 500 or repeated:
            # The bank may refuse a repeated batch because it has carried out the first request.
            self._save_outcome(number, "unknown", "unknown", status)
            return
        self._save_outcome(number, "refused", "refused", status)
        raise error_of(response)

    def _is_found(self, number: int, batch: Batch) -> bool:
        """Look up a batch with an unknown outcome. Return whether the bank has it; if not, it may be sent again.

        :raises OutcomeUnknown: the batch may have been submitted, and must not be sent again.
        """
        found = self._look_up(number, batch, self.settle)
        if not found and not self._entry(number)["attempts"]:
            log.info("The bank shows no item of batch %d: no earlier try of this task has submitted it.", number + 1)
            self._save_entry(number, state="planned")
            return False
        earliest = self._first_sent(number) - SMALL_CLOCK_SKEW
        created = {each: parse_time(made.get("created_at")) for each, made in found.items()}
        self._refuse_used_ids(number, {each for each, moment in created.items() if moment and moment < earliest})
        if not found and self.resend_after is not None:
            found = self._look_up(number, batch, self.resend_after, at_any_time=True)
            self._refuse_used_ids(number, found.keys())
            if not found:
                log.warning("The bank shows no item of batch %d. It is sent again (`resend_after`).", number + 1)
                return False
        missing = [each for each in batch.amounts if each not in found]
        if missing:
            raise self._outcome_unknown(
                number,
                f"of {len(batch.items)} items, {len(found)} are found at the bank and {len(missing)} are not. "
                f"Found: {_shown_ids(sorted(found))}. Not found: {_shown_ids(sorted(missing))}",
            )
        wrong = [each for each, made in found.items() if _amount(made) not in (None, batch.amounts[each])]
        if wrong:
            raise PaymentMismatch(
                f"Intergiro shows {len(wrong)} items of batch {number + 1} with other amounts than planned: "
                f"{_shown_ids(wrong)}. Look at them in the customer portal before they are approved."
            )
        log.info("An earlier request has submitted batch %d.", number + 1)
        self._save_outcome(number, "found by look-up", "confirmed")
        return True

    def _refuse_used_ids(self, number: int, found: Set[str]) -> None:
        """Refuse items that were found by correlation ids of the user: an earlier bulk payment may have used the ids.

        :raises OutcomeUnknown: there are such items.
        """
        own = {item.content["correlation_id"] for item in self.plan.items if "correlation_id" in item.content}
        if used := sorted(own & found):
            raise self._outcome_unknown(
                number,
                f"the bank shows items with {len(used)} of its correlation ids that appeared late, or that are dated "
                f"before the request. They may belong to an earlier bulk payment: {_shown_ids(used)}",
            )

    def _look_up(
        self, number: int, batch: Batch, wait: timedelta, at_any_time: bool = False
    ) -> dict[str, dict[str, Any]]:
        """Return the transactions of a batch, by correlation id.

        :param wait: how long after the last request to look.
        :param at_any_time: whether to include transactions of any time. The decision to send again must not depend on
            the bank's clock.
        """
        attempts = self._entry(number)["attempts"]
        sent = last_in_flight(attempts, self.began)
        seconds = (sent + wait - self.now()).total_seconds()
        if seconds > 0:
            log.info("Payments of batch %d can appear late. The look-up starts in %.0f s.", number + 1, seconds)
            self.sleep(seconds)
        since = None if at_any_time else self._first_sent(number)
        fetch = self.client.page_getter("transactions", read_page)
        if not look_up.filter_works(fetch, since):
            raise self._outcome_unknown(
                number, "the bank's list ignores `correlation_ids`, so that the batch cannot be looked up"
            )
        return look_up.find_items(fetch, batch.amounts, since)

    def _first_sent(self, number: int) -> datetime:
        """Return the earliest time at which the first request of a batch may have been sent."""
        times = (parse_time(attempt["sent_at"]) for attempt in self._entry(number)["attempts"])
        return min((moment for moment in times if moment), default=self.possibly_sent_since or self.began)

    def _entry(self, number: int) -> dict[str, Any]:
        entry: dict[str, Any] = self.record.content["batches"][number]
        return entry

    def _save_entry(self, number: int, **changes: Any) -> None:
        entries = [*self.record.content["batches"]]
        entries[number] = {**entries[number], **changes}
        state = next((e["state"] for e in entries if e["state"] != "confirmed"), "confirmed")
        self.record.save(state=state, batches=entries)

    def _save_outcome(
        self, number: int, outcome: str, state: str, status: int | None = None, batch_id: str | None = None
    ) -> None:
        """Store the outcome of the last attempt, and the state of the batch."""
        attempts = [*self._entry(number)["attempts"]]
        if attempts and attempts[-1]["outcome"] == "sent":
            ended = {"outcome": outcome, "status_code": status, "ended_at": self.record.time()}
            attempts[-1] = {**attempts[-1], **ended}
        self._save_entry(number, state=state, attempts=attempts, batch_id=batch_id or self._entry(number)["batch_id"])

    def _outcome_unknown(self, number: int, happened: str) -> OutcomeUnknown:
        total = len(self.record.content["batches"])
        return OutcomeUnknown(
            f"POST /{self.client.settings.version}/bulk_payments",
            f"batch {number + 1} of {total}: {happened}",
            "Look for the batch in the Intergiro customer portal, or list `transactions` with the `correlation_ids` "
            f"that {self.plan_record} holds for batch {number + 1}.",
            then="If all its items are there, clear this task: it looks them up again. If none is there, set "
            "`resend_after` and clear this task. Later batches were not sent.",
        )


def _total(content: Mapping[str, Any]) -> int | None:
    """Return the total of a batch in cents, as the bank shows it; None if it shows none."""
    totals = content.get("totals_by_currency")
    own = totals.get(CURRENCY.lower(), totals.get(CURRENCY)) if isinstance(totals, Mapping) else None
    net = own.get("net") if isinstance(own, Mapping) else None
    return abs(net) if isinstance(net, int) else None


def _amount(transaction: Mapping[str, Any]) -> int | None:
    amount = transaction.get("amount")
    return abs(amount) if isinstance(amount, int) else None


def _shown_ids(ids: Any) -> str:
    """Return correlation ids for a message, without those that could be other data."""
    shown = [each if looks_like_an_id(each) else "<not shown>" for each in ids]
    more = f" and {len(shown) - MAX_SHOWN_IDS} more" if len(shown) > MAX_SHOWN_IDS else ""
    return (", ".join(shown[:MAX_SHOWN_IDS]) or "none") + more
