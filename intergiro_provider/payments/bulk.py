# SPDX-License-Identifier: Apache-2.0
"""A bulk payment, made once although the bank knows no idempotency key for it.

The plan is written first, and the state of each batch before its request leaves. A batch whose outcome is hidden is
looked up by the correlation ids of its items, `settle` after its request: earlier, a late one would be missed.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
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
from intergiro_provider.payments.record import OPEN, Record, last_under_way, parsed
from intergiro_provider.payments.sending import answered_object, check_prompt
from intergiro_provider.pull.pages import read_page

log = logging.getLogger(__name__)

SHOWN = 20
"""Correlation ids in a message at most; the record holds all."""
RESENDS = 2
"""How often one try of a task sends a batch again."""


@dataclass
class BulkPayment:
    """Makes one bulk payment, batch by batch.

    :param key: of a bulk payment that no record names one for; correlation ids are made from it.
    :param record: the states of the batches; it must be kept.
    :param plan_record: the items, masked.
    :param settle: how long after a request its payments may still appear.
    :param resend_after: how long after a request a batch of which nothing is found is sent again; None: never.
    :param described: fields for the record, such as where the payment stands in Airflow.
    """

    client: IntergiroClient
    plan: BulkPlan
    key: str
    record: Record
    plan_record: Record
    settle: timedelta = timedelta(minutes=10)
    resend_after: timedelta | None = None
    described: Mapping[str, Any] = field(default_factory=dict)
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    sleep: Callable[[float], None] = time.sleep
    began: datetime = field(init=False)

    def make(self) -> dict[str, Any]:
        """Make sure that every batch was handed in once; return what is known of them, without account data.

        :raises PaymentMismatch: the record is of other items, or the bank has taken other amounts.
        :raises OutcomeUnknown: a batch may have been handed in, and must not be sent again.
        :raises IntergiroError: the bank has refused a batch, or it was not sent; the task can be retried or cleared.
        """
        self.began = self.now()
        self.key = self.record.content.get("key") or self.key
        batches = self.plan.batches(self.key)
        self._take_up(batches)
        for number, batch in enumerate(batches):
            self._make_sure(number, batch)
        self.record.save(state="confirmed")
        entries = self.record.content["batches"]
        return {
            "key": self.key,
            **self.plan.summary(),
            "batches": [{name: entry[name] for name in ("batch_id", "items", "amount")} for entry in entries],
        }

    def _take_up(self, batches: list[Batch]) -> None:
        """Write the plan, or go on with the one that is there."""
        former = self.record.content
        if former.get("sha256") == self.plan.digest:
            return
        if any(entry["state"] in ("confirmed", *OPEN) for entry in former.get("batches", ())):
            raise PaymentMismatch(
                f"The items have changed since {self.record} was written, and batches of the former plan "
                f"{former['sha256'][:12]}… are with the bank already. Nothing was paid now. Bring back the former "
                "items to finish that plan. Pay the difference in a new run or under another `payment_key`."
            )
        self.plan_record.save(
            kind="bulk plan", key=self.key, sha256=self.plan.digest,
            items=[
                [number, item.content["correlation_id"], item.content["amount"], item.masked]
                for number, batch in enumerate(batches) for item in batch.items
            ],
        )  # fmt: skip
        entries: list[dict[str, Any]] = [
            {
                "state": "planned", "items": len(batch.items), "amount": batch.total, "batch_id": None, "attempts": [],
            }
            for batch in batches
        ]  # fmt: skip
        self.record.save(
            kind="bulk", state="planned", key=self.key, endpoint="bulk_payments", **self.plan.summary(),
            planned_at=self.record.time(), batches=entries, **self.described,
        )  # fmt: skip

    def _make_sure(self, number: int, batch: Batch) -> None:
        """Hand one batch in, unless it was."""
        for _ in range(1 + RESENDS):
            state = self._entry(number)["state"]
            if state == "confirmed" or (state in OPEN and self._was_made(number, batch)):
                return
            self._send(number, batch)
        if self._entry(number)["state"] != "confirmed" and not self._was_made(number, batch):
            raise self._unknown(number, f"{1 + RESENDS} requests without a usable response")

    def _send(self, number: int, batch: Batch) -> None:
        """Send the request; a hidden outcome leaves the batch in the state ``unknown``."""
        entry = self._entry(number)
        repeated = entry["state"] in OPEN
        sent_at = self.record.time()
        self._note(number, state="sent", attempts=[*entry["attempts"], {"sent_at": sent_at, "outcome": "sent"}])
        check_prompt(sent_at, self.now(), f"batch {number + 1}")
        try:
            response = self.client.request(
                "POST", "bulk_payments", batch.body(self.plan.account_id), options={"check_response": False}
            )
        except OutcomeUnknown as error:
            self._end(number, "hidden", "unknown")
            if error.interrupted:
                raise IntergiroError(
                    f"The task timed out or was stopped while batch {number + 1} was being sent. The next try of this "
                    "task looks up whether it was handed in."
                ) from None
            return
        except IntergiroError as error:
            if isinstance(error, BankUnavailable) and error.may_have_arrived:
                self._end(number, "hidden", "unknown")
                return
            self._end(number, "not sent", "sent" if repeated else "planned")
            raise
        self._read(number, batch, response, repeated)

    def _read(self, number: int, batch: Batch, response: requests.Response, repeated: bool) -> None:
        """Conclude from a response."""
        status = response.status_code
        if 200 <= status < 300 and (answer := answered_object(response)) is not None:
            net = _net(answer)
            batch_id = look_up.shown_id(answer)
            if net is not None and net != batch.total:
                self._end(number, "another amount", "unknown", status, batch_id)
                raise PaymentMismatch(
                    f"Intergiro has taken batch {number + 1} as {batch_id}, with another total than planned: {net} "
                    f"instead of {batch.total} cents. Look at it in the customer portal before it is approved.",
                    batch_id,
                )
            self._end(number, "answered", "confirmed", status, batch_id)
            return
        if status in (425, 429):
            self._end(number, "not carried out", "sent" if repeated else "planned", status)
            raise error_of(response)
        if status < 400 or status == 408 or status >= 500 or repeated:
            # Refused again, it may be because it was made the first time.
            self._end(number, "hidden", "unknown", status)
            return
        self._end(number, "refused", "refused", status)
        raise error_of(response)

    def _was_made(self, number: int, batch: Batch) -> bool:
        """Look for a batch whose outcome is hidden; False: it may be sent again.

        :raises OutcomeUnknown: it may not.
        """
        found = self._look(number, batch, self.settle)
        if not found and self.resend_after is not None:
            found = self._look(number, batch, self.resend_after, at_any_time=True)
            self._refuse_used_ids(number, found)
            if not found:
                log.warning("Nothing is found of batch %d: it is sent again, as `resend_after` says.", number + 1)
                return False
        missing = [each for each in batch.amounts if each not in found]
        if missing:
            raise self._unknown(
                number,
                f"of {len(batch.items)} items, {len(found)} are found at the bank and {len(missing)} are not. "
                f"Found: {_some(sorted(found))}. Not found: {_some(sorted(missing))}",
            )
        wrong = [each for each, made in found.items() if _amount(made) not in (None, batch.amounts[each])]
        if wrong:
            raise PaymentMismatch(
                f"Intergiro holds {len(wrong)} items of batch {number + 1} with other amounts than planned: "
                f"{_some(wrong)}. Look at them in the customer portal before they are approved."
            )
        log.info("Batch %d was handed in by an earlier request.", number + 1)
        self._end(number, "found", "confirmed")
        return True

    def _refuse_used_ids(self, number: int, found: Mapping[str, Any]) -> None:
        """Refuse to conclude from the user's own ids at any time: an earlier bulk payment may have had them, too."""
        own = {item.content["correlation_id"] for item in self.plan.items if "correlation_id" in item.content}
        if used := sorted(own & found.keys()):
            raise self._unknown(
                number,
                f"the bank holds items with {len(used)} of its correlation ids, which came late, are dated before the "
                f"request by a wrong clock of the bank's, or belong to an earlier bulk payment: {_some(used)}",
            )

    def _look(self, number: int, batch: Batch, wait: timedelta, at_any_time: bool = False) -> dict[str, dict[str, Any]]:
        attempts = self._entry(number)["attempts"]
        sent = last_under_way(attempts, self.began)
        seconds = (sent + wait - self.now()).total_seconds()
        if seconds > 0:
            log.info("Looking for batch %d in %.0f s, when late payments would have appeared.", number + 1, seconds)
            self.sleep(seconds)
        first = min((moment for each in attempts if (moment := parsed(each["sent_at"]))), default=sent)
        # What decides whether to send again must not depend on the bank's clock.
        since = None if at_any_time else first
        fetch = self.client.page_getter("transactions", read_page)
        if not look_up.filter_works(fetch, since):
            raise self._unknown(number, "the bank's list ignores `correlation_ids`, so that nothing can be looked up")
        return look_up.find_items(fetch, batch.amounts, since)

    def _entry(self, number: int) -> dict[str, Any]:
        entry: dict[str, Any] = self.record.content["batches"][number]
        return entry

    def _note(self, number: int, **changes: Any) -> None:
        entries = [*self.record.content["batches"]]
        entries[number] = {**entries[number], **changes}
        state = next((e["state"] for e in entries if e["state"] != "confirmed"), "confirmed")
        self.record.save(state=state, batches=entries)

    def _end(
        self, number: int, outcome: str, state: str, status: int | None = None, batch_id: str | None = None
    ) -> None:
        """Write down what became of the last attempt."""
        attempts = [*self._entry(number)["attempts"]]
        if attempts and attempts[-1]["outcome"] == "sent":
            ended = {"outcome": outcome, "status_code": status, "ended_at": self.record.time()}
            attempts[-1] = {**attempts[-1], **ended}
        self._note(number, state=state, attempts=attempts, batch_id=batch_id or self._entry(number)["batch_id"])

    def _unknown(self, number: int, happened: str) -> OutcomeUnknown:
        total = len(self.record.content["batches"])
        return OutcomeUnknown(
            f"POST /{self.client.settings.version}/bulk_payments",
            f"batch {number + 1} of {total}: {happened}",
            "Look for the batch in the Intergiro customer portal, or list `transactions` with the `correlation_ids` "
            f"that {self.plan_record} names for batch {number}.",
            then="If all of it is there, clear this task: it looks again. If nothing is, set `resend_after` and clear "
            "it. Later batches were not sent.",
        )


def _net(answer: Mapping[str, Any]) -> int | None:
    totals = answer.get("totals_by_currency")
    own = totals.get(CURRENCY.lower(), totals.get(CURRENCY)) if isinstance(totals, Mapping) else None
    net = own.get("net") if isinstance(own, Mapping) else None
    return abs(net) if isinstance(net, int) else None


def _amount(transaction: Mapping[str, Any]) -> int | None:
    amount = transaction.get("amount")
    return abs(amount) if isinstance(amount, int) else None


def _some(ids: Any) -> str:
    shown = [each if looks_like_an_id(each) else "<not shown>" for each in ids]
    more = f" and {len(shown) - SHOWN} more" if len(shown) > SHOWN else ""
    return (", ".join(shown[:SHOWN]) or "none") + more
