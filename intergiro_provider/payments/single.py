# SPDX-License-Identifier: Apache-2.0
"""A single payment, made once.

Before a request leaves, the record says so. After a request whose outcome is hidden, the payment is looked up before
the same request, with the same key, is sent again. While the key is trusted, the look-up is a precaution: the bank
recognizes the key. When it is not, the look-up decides, and takes place only `settle` after the last request, since a
payment can appear late. For the same reason, the key is trusted no longer than `settle` before the bank may forget it.
"""

from __future__ import annotations

import logging
import random
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
    IntergiroConsentRequired,
    IntergiroError,
    IntergiroResponseError,
    OutcomeUnknown,
    PaymentMismatch,
    PaymentRejected,
)
from intergiro_provider.payments import look_up
from intergiro_provider.payments.plan import Payment
from intergiro_provider.payments.record import OPEN, Record, last_under_way, parsed
from intergiro_provider.payments.sending import answered_object, check_prompt
from intergiro_provider.pull.pages import Page, read_page

log = logging.getLogger(__name__)

SENDS = 3
"""Requests in one try of a task at most, while their outcome is hidden."""
FIRST_PAUSE = 1.0
"""Seconds before the second; they grow fourfold."""
LONGEST_PAUSE = 60.0
CLOCK_WRONG = timedelta(days=1)
"""By how much the bank's clock, or its time zone, may be wrong where the look-up decides."""
LOOK_BACK = timedelta(days=7)
"""How far back a payment is looked for when the bank says that it has one under the key of a first request."""


@dataclass
class Policy:
    """How far the bank is trusted.

    :param key_trusted_for: how long after the first request the bank recognizes a repeated key.
    :param settle: how long after a request its payment may still appear.
    :param last_try: whether nobody tries again after this.
    :param earlier_since: earliest moment of an earlier attempt that no record tells of; None: there was none.
    :param may_have_another_key: whether an earlier try may have sent another key, made from a former API key.
    """

    key_trusted_for: timedelta = timedelta(hours=24)
    settle: timedelta = timedelta(minutes=10)
    last_try: bool = True
    earlier_since: datetime | None = None
    may_have_another_key: bool = False


@dataclass
class SinglePayment:
    """Makes one payment.

    :param key: the idempotency key of a payment that no record names one for.
    :param described: fields for the record, such as where the payment stands in Airflow.
    """

    client: IntergiroClient
    payment: Payment
    key: str
    record: Record
    policy: Policy = field(default_factory=Policy)
    described: Mapping[str, Any] = field(default_factory=dict)
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    sleep: Callable[[float], None] = time.sleep
    began: datetime = field(init=False)

    def find(self) -> dict[str, Any] | None:
        """Return what is known of the payment if the bank has made it; None if it has not. Nothing is sent."""
        self._take_up()
        if self.record.state == "confirmed":
            return self._confirmed_earlier()
        found = self._look()
        return self._adopt(found) if found else None

    def make(self) -> dict[str, Any]:
        """Make sure that the payment happened; return what is known of it, without account data.

        :raises PaymentMismatch: the key belongs to another payment.
        :raises PaymentRejected: the bank has rejected it.
        :raises IntergiroConsentRequired: a person has to give consent.
        :raises OutcomeUnknown: it may have been made, and must not be sent again.
        :raises IntergiroError: it was not made, or sending the same key again is safe; the task can be retried.
        """
        self._take_up()
        if self.record.state == "confirmed" or (self.record.state == "refused" and self.record.content["payment_id"]):
            return self._confirmed_earlier()
        if self._is_open() and (found := self._look()):
            return self._adopt(found)
        for number in range(1, SENDS + 1):
            try:
                return self._send()
            except _Hidden as hidden:
                error = hidden.error
                if number == SENDS:
                    break
                self.sleep(_pause(number, error))
                if found := self._look():
                    return self._adopt(found)
        if self.policy.last_try:
            raise self._unknown(f"{SENDS} requests, the last with {_shown(error)}")
        raise error

    def _take_up(self) -> None:
        """Begin a record, or go on with the one that is there."""
        self.began = self.now()
        content = self.record.content
        if not content:
            self.record.save(
                kind="payment", state="planned", key=self.key, endpoint=self.payment.endpoint,
                amount=self.payment.amount, currency=self.payment.currency, sha256=self.payment.digest,
                counterparty=self.payment.masked, planned_at=self.record.time(), attempts=[], payment_id=None,
                earlier_since=self.policy.earlier_since and self.policy.earlier_since.isoformat(), **self.described,
            )  # fmt: skip
            return
        self.key = content["key"]  # of the first attempt: the connection may have got a new API key since
        if content["sha256"] == self.payment.digest:
            return
        if self.record.state in ("confirmed", *OPEN):
            raise look_up.mismatch(
                self.key, content.get("payment_id"), "was planned with another amount, account, reference or payee"
            )
        self.record.save(
            sha256=self.payment.digest, amount=self.payment.amount, currency=self.payment.currency,
            counterparty=self.payment.masked, state="planned", **self.described,
        )  # fmt: skip

    def _is_open(self) -> bool:
        """Whether an earlier attempt may have been carried out."""
        return self.record.state in OPEN or (not self._attempts() and self._earlier_since() is not None)

    def _earlier_since(self) -> datetime | None:
        """Earliest moment of a request that was sent before the record began."""
        return parsed(self.record.content.get("earlier_since"))

    def _attempts(self) -> list[dict[str, Any]]:
        attempts: list[dict[str, Any]] = self.record.content["attempts"]
        return attempts

    def first_sent(self) -> datetime:
        """When the first request left, at the earliest."""
        times = [moment for attempt in self._attempts() if (moment := parsed(attempt.get("sent_at")))]
        if (earlier := self._earlier_since()) is not None:
            times.append(earlier)
        return min(times, default=self.now())

    def _is_trusted(self, first: datetime) -> bool:
        """Whether the bank still knows the key when a request that leaves now is carried out, at the latest."""
        return self.now() + self.policy.settle - first < self.policy.key_trusted_for

    def _look(self) -> dict[str, Any] | None:
        """Look the payment up before it is sent again; None: it may be sent again.

        :raises OutcomeUnknown: it may not.
        """
        first = self.first_sent()
        trusted = self._is_trusted(first)
        if not trusted:
            self._settle()
        try:
            # Where the key is trusted, a bank that does not answer now need not be waited for.
            fetch = self._fetch_once if trusted else self.client.page_getter("transactions", read_page)
            found = look_up.find_payment(fetch, self.payment, self.key, first if trusted else first - CLOCK_WRONG)
        except IntergiroError as error:
            if not trusted or self.policy.may_have_another_key or isinstance(error, PaymentMismatch):
                raise
            log.warning(
                "The look-up of payment %s failed; while its key is trusted, it is sent again. %s", self.key, error
            )
            found = look_up.Found()
        if found.payment is None and trusted and not self._is_trusted(first):
            return self._look()  # the look-up took so long that the key is not trusted any more
        if found.payment is None and found.others and self.policy.may_have_another_key:
            raise self._unknown(
                f"the transactions {', '.join(found.others[:5])} are equal to it under other keys, and an earlier try "
                "had another key if the connection's API key has changed"
            )
        if found.payment is None and found.similar and not trusted:
            raise self._unknown(f"the transactions {', '.join(found.similar[:5])} are equal to it and show no key")
        return found.payment

    def _fetch_once(self, query: Mapping[str, Any]) -> Page:
        return read_page(self.client.request("GET", "transactions", dict(query), options={"retry": False}).content)

    def _settle(self) -> None:
        """Wait until a payment of the last request would have appeared."""
        # Without a record, an earlier try may have sent it a moment ago.
        sent = last_under_way(self._attempts(), self.began)
        seconds = (sent + self.policy.settle - self.now()).total_seconds()
        if seconds > 0:
            log.info("Looking for payment %s in %.0f s, when a late one would have appeared.", self.key, seconds)
            self.sleep(seconds)

    def _send(self) -> dict[str, Any]:
        """Send the request once.

        :raises _Hidden: its outcome is not known.
        """
        repeated = self._is_open()
        attempt = {"sent_at": self.record.time(), "outcome": "sent"}
        self.record.save(state="sent", attempts=[*self._attempts(), attempt])
        check_prompt(attempt["sent_at"], self.now(), f"payment {self.key}")
        body = {"request_id": self.key, **self.payment.body}
        try:
            response = self.client.request(
                "POST", self.payment.endpoint, body, options={"retry": False, "check_response": False}
            )
        except (BankUnavailable, IntergiroResponseError) as error:
            if isinstance(error, IntergiroResponseError) or error.may_have_arrived:
                raise self._hidden(error) from None
            self._note("not sent", "sent" if repeated else "planned")
            raise
        except IntergiroError:
            self._note("not sent", "sent" if repeated else "planned")
            raise
        return self._read(response, repeated)

    def _read(self, response: requests.Response, repeated: bool) -> dict[str, Any]:
        """Conclude from a response."""
        status = response.status_code
        if 200 <= status < 300:
            answer = answered_object(response)
            if answer is None:
                raise self._hidden(IntergiroResponseError(f"status {status} with a body that is not a payment"), status)
            return self._conclude(answer, "answered", status)
        error = error_of(response)
        if status in (425, 429):
            self._note("not carried out", "sent" if repeated else "planned", status)
            raise error
        if status == 408 or status >= 500 or status < 400:
            raise self._hidden(error, status)
        if isinstance(error, IntergiroConsentRequired):
            self._note("consent required", "sent", status)
            raise error
        if status == 409 or repeated:
            return self._refused_repetition(status, repeated)
        self._note("refused", "refused", status)
        raise error

    def _refused_repetition(self, status: int, repeated: bool) -> dict[str, Any]:
        """Conclude from a refusal that may be about the key and not about the payment."""
        self._note("refused", "unknown", status)
        since = self.first_sent() if repeated else self.now() - LOOK_BACK
        fetch = self.client.page_getter("transactions", read_page)
        found = look_up.find_payment(fetch, self.payment, self.key, since).payment
        if found is None and len(self._attempts()) > 1:
            self._settle()
            found = look_up.find_payment(fetch, self.payment, self.key, since).payment
        if found is not None:
            return self._adopt(found)
        if status == 409 and len(self._attempts()) == 1:
            raise look_up.mismatch(self.key, None, "the bank does not take for this one (status 409)")
        raise self._unknown(f"the request was sent again, and refused with status {status}", status)

    def _adopt(self, transaction: dict[str, Any]) -> dict[str, Any]:
        log.info("Payment %s was made by an earlier request.", self.key)
        return self._conclude(transaction, "found")

    def _conclude(self, transaction: dict[str, Any], how: str, status: int | None = None) -> dict[str, Any]:
        if look_up.differences(self.payment, transaction):
            self._note("another payment", "unknown", status, look_up.shown_id(transaction))
        look_up.check_same(self.payment, transaction, self.key)
        payment_id, bank_status = look_up.shown_id(transaction), str(transaction.get("status") or "")
        rejected = bank_status.lower() in look_up.REJECTED
        self._note(how, "refused" if rejected else "confirmed", status, payment_id, bank_status)
        if rejected:
            raise self._rejected(payment_id, bank_status)
        return self._result(transaction)

    def _confirmed_earlier(self) -> dict[str, Any]:
        """Return what the record says, unless the bank has rejected the payment since."""
        payment_id = self.record.content.get("payment_id")
        try:
            transaction = answered_object(self.client.request("GET", f"transactions/{payment_id}")) or {}
        except IntergiroError as error:
            log.warning("Payment %s is confirmed by its record. Its present status is not known: %s", self.key, error)
            transaction = {}
        bank_status = str(transaction.get("status") or self.record.content.get("bank_status") or "")
        if bank_status.lower() in look_up.REJECTED:
            self.record.save(bank_status=bank_status)
            raise self._rejected(str(payment_id), bank_status)
        return self._result({**transaction, "id": payment_id, "status": bank_status})

    def _result(self, transaction: Mapping[str, Any]) -> dict[str, Any]:
        return {
            "payment_id": look_up.shown_id(transaction),
            "key": self.key,
            "status": str(transaction.get("status") or ""),
            "amount": self.payment.amount,
            "currency": transaction.get("currency") or self.payment.currency,
            "sha256": self.payment.digest,
        }

    def _note(
        self, outcome: str, state: str, status: int | None = None, payment_id: str | None = None, bank_status: str = ""
    ) -> None:
        """Write down what became of the last attempt."""
        attempts = [*self._attempts()]
        if attempts and attempts[-1]["outcome"] == "sent":
            ended = {"outcome": outcome, "status_code": status, "ended_at": self.record.time()}
            attempts[-1] = {**attempts[-1], **ended}
        self.record.save(state=state, attempts=attempts, payment_id=payment_id, bank_status=bank_status)

    def _hidden(self, error: IntergiroError, status: int | None = None) -> _Hidden:
        self._note("hidden", "unknown", status)
        return _Hidden(error)

    def _rejected(self, payment_id: str, status: str) -> PaymentRejected:
        return PaymentRejected(
            f"Intergiro has rejected payment {self.key} (transaction {payment_id}, status {status}). Clearing the task "
            "sends the same key and changes nothing. Correct the cause, then start a new run or set another "
            "`payment_key`.",
            payment_id,
        )

    def _unknown(self, happened: str, status: int | None = None) -> OutcomeUnknown:
        since = (self.first_sent() - look_up.CLOCKS).isoformat(timespec="seconds")
        return OutcomeUnknown(
            f"POST /{self.client.settings.version}/{self.payment.endpoint}",
            happened,
            f"List `transactions` of the account with created_from={since}, and look for request_id {self.key}, or for "
            "the amount and the reference.",
            key=self.key,
            status_code=status,
            then="If it is there, mark this task as success. If not, clear this task: it looks again, then sends the "
            "same key.",
        )


class _Hidden(Exception):
    """A request whose outcome is not known."""

    def __init__(self, error: IntergiroError) -> None:
        super().__init__()
        self.error = error


def _pause(number: int, error: IntergiroError) -> float:
    own = FIRST_PAUSE * 4.0 ** (number - 1) * random.uniform(0.5, 1.0)  # noqa: S311
    return max(own, min(float(getattr(error, "retry_after", None) or 0.0), LONGEST_PAUSE))


def _shown(error: IntergiroError) -> str:
    status = getattr(error, "status_code", None)
    return f"status {status}" if status else "no usable response"
