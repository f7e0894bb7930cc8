# SPDX-License-Identifier: Apache-2.0
"""A single payment, made once.

The record is written before the request. If the outcome of a request is unknown, the payment is looked up before the
request is sent again, with the same idempotency key. While the key is trusted, the look-up is a precaution, because
the bank recognizes the key. Afterwards the look-up decides. It then waits until `settle` after the last request, since
a payment can appear late. For the same reason, trust in the key ends `settle` before the bank may forget the key.
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
from intergiro_provider.payments.record import NEEDS_CONSENT, UNRESOLVED, Record, last_in_flight, parse_time
from intergiro_provider.payments.sending import decode_payment, refuse_delayed
from intergiro_provider.pull.pages import Page, read_page

log = logging.getLogger(__name__)

MAX_REQUESTS = 3
"""The most requests in one try of a task, while their outcome is unknown."""
FIRST_PAUSE = 1.0
"""Seconds before the second request. Each further pause is four times as long."""
LONGEST_PAUSE = 60.0
"""The longest pause in seconds that the bank can ask for."""
LARGEST_CLOCK_SKEW = timedelta(days=1)
"""How wrong the bank's clock or time zone may be where the look-up decides."""
LOOK_BACK = timedelta(days=7)
"""How far back to look for a payment if the bank returns 409 to the first request with its key."""


@dataclass
class Policy:
    """How far the bank and the idempotency key are trusted.

    :param key_trusted_for: how long after the first request the bank recognizes a repeated key.
    :param settle: how long after a request its payment may still appear in the bank's list.
    :param last_try: whether Airflow does not retry the task after this try.
    :param possibly_sent_since: the earliest time at which an attempt without a record may have sent the payment; None:
        there was no such attempt.
    :param key_may_differ: whether an earlier try may have sent another key, made from an earlier API key.
    """

    key_trusted_for: timedelta = timedelta(hours=24)
    settle: timedelta = timedelta(minutes=10)
    last_try: bool = True
    possibly_sent_since: datetime | None = None
    key_may_differ: bool = False


@dataclass
class SinglePayment:
    """Makes one payment.

    :param key: the idempotency key, if the record does not hold one.
    :param task_fields: fields for the record that name the task, its try and the approver.
    """

    client: IntergiroClient
    payment: Payment
    key: str
    record: Record
    policy: Policy = field(default_factory=Policy)
    task_fields: Mapping[str, Any] = field(default_factory=dict)
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    sleep: Callable[[float], None] = time.sleep
    began: datetime = field(init=False)

    def find(self) -> dict[str, Any] | None:
        """Return the result of the payment if the bank has made it, otherwise None. Send only GET requests."""
        self._open_record()
        if self.record.state == "confirmed":
            return self._recorded_result()
        found = self._look_up()
        return self._confirm_found(found) if found else None

    def make(self) -> dict[str, Any]:
        """Make sure that the payment is made once, and return its result, without account data.

        :raises PaymentMismatch: the key belongs to another payment.
        :raises PaymentRejected: the bank has rejected the payment.
        :raises IntergiroConsentRequired: a person has to give consent.
        :raises OutcomeUnknown: the payment may have been made, and must not be sent again.
        :raises IntergiroError: the payment was not made, or the same key can be sent again. The task can be retried.
        """
        self._open_record()
        if self.record.state in ("confirmed", "rejected"):
            return self._recorded_result()
        if self._is_unresolved() and (found := self._look_up()):
            return self._confirm_found(found)
        for number in range(1, MAX_REQUESTS + 1):
            try:
                return self._send()
            except _NoUsableResponse as failure:
                error = failure.error
                if number == MAX_REQUESTS:
                    break
                self.sleep(_pause(number, error))
                if found := self._look_up():
                    return self._confirm_found(found)
        if self.policy.last_try:
            raise self._outcome_unknown(f"{MAX_REQUESTS} requests, the last with {_status_of(error)}")
        raise error

    def _open_record(self) -> None:
        """Start a record, or continue the existing one."""
        self.began = self.now()
        content = self.record.content
        if not content:
            since = self.policy.possibly_sent_since
            self.record.save(
                kind="payment", state="planned", key=self.key, endpoint=self.payment.endpoint,
                amount=self.payment.amount, currency=self.payment.currency, sha256=self.payment.digest,
                counterparty=self.payment.masked, planned_at=self.record.time(), attempts=[], payment_id=None,
                possibly_sent_since=since and since.isoformat(), **self.task_fields,
            )  # fmt: skip
            return
        self.key = content["key"]  # the key of the first attempt: the connection's API key may have changed since
        if content["sha256"] == self.payment.digest:
            return
        if self.record.state in ("confirmed", *UNRESOLVED):
            raise look_up.mismatch(
                self.key, content.get("payment_id"), "has another amount, account, reference or payee"
            )
        self.record.save(
            sha256=self.payment.digest, amount=self.payment.amount, currency=self.payment.currency,
            counterparty=self.payment.masked, state="planned", **self.task_fields,
        )  # fmt: skip

    def _is_unresolved(self) -> bool:
        """Return whether the bank may have carried out an earlier attempt."""
        return self.record.state in UNRESOLVED or (not self._attempts() and self._possibly_sent_since() is not None)

    def _possibly_sent_since(self) -> datetime | None:
        """Return the earliest time at which an attempt without a record may have sent the payment; None: no such."""
        return parse_time(self.record.content.get("possibly_sent_since"))

    def _attempts(self) -> list[dict[str, Any]]:
        attempts: list[dict[str, Any]] = self.record.content["attempts"]
        return attempts

    def first_sent(self) -> datetime:
        """Return the earliest time at which a request may have been sent; now, if there was none."""
        times = [moment for attempt in self._attempts() if (moment := parse_time(attempt.get("sent_at")))]
        if (earlier := self._possibly_sent_since()) is not None:
            times.append(earlier)
        return min(times, default=self.now())

    def _key_is_trusted(self, first: datetime) -> bool:
        """Return whether the bank still knows the key if it carries out a request `settle` from now."""
        return self.now() + self.policy.settle - first < self.policy.key_trusted_for

    def _look_up(self) -> dict[str, Any] | None:
        """Look for the payment before it is sent again; return its transaction, or None if it may be sent again.

        :raises OutcomeUnknown: the payment may have been made, and must not be sent again.
        """
        first = self.first_sent()
        trusted = self._key_is_trusted(first)
        if not trusted:
            self._wait_to_settle()
        try:
            # While the key is trusted, a failed look-up is not retried: the payment can be sent again without it.
            fetch = self._fetch_once if trusted else self.client.page_getter("transactions", read_page)
            since = first if trusted else first - LARGEST_CLOCK_SKEW
            found = look_up.find_payment(fetch, self.payment, self.key, since)
        except IntergiroError as error:
            if not trusted or self.policy.key_may_differ or isinstance(error, PaymentMismatch):
                raise
            log.warning(
                "The look-up of payment %s failed. The payment is sent again, because the bank still recognizes its "
                "idempotency key. %s", self.key, error,
            )  # fmt: skip
            found = look_up.LookUp()
        if found.payment is None and trusted and not self._key_is_trusted(first):
            return self._look_up()  # during the look-up, the trust in the key has ended
        if found.payment is None and found.other_key and self.policy.key_may_differ:
            raise self._outcome_unknown(
                f"the transactions {', '.join(found.other_key[:5])} are equal to it but have other keys, and an "
                "earlier try had another key if the connection's API key has changed"
            )
        if found.payment is None and found.without_key and not trusted:
            raise self._outcome_unknown(
                f"the transactions {', '.join(found.without_key[:5])} are equal to it and show no key"
            )
        return found.payment

    def _fetch_once(self, query: Mapping[str, Any]) -> Page:
        return read_page(self.client.request("GET", "transactions", dict(query), options={"retry": False}).content)

    def _wait_to_settle(self) -> None:
        """Wait until the payment of the last request must have appeared."""
        # An earlier try without a record may have sent a request just before this one began.
        sent = last_in_flight(self._attempts(), self.began)
        seconds = (sent + self.policy.settle - self.now()).total_seconds()
        if seconds > 0:
            log.info("Payment %s can appear late. The look-up starts in %.0f s.", self.key, seconds)
            self.sleep(seconds)

    def _send(self) -> dict[str, Any]:
        """Send the request once.

        :raises _NoUsableResponse: its outcome is unknown.
        """
        repeated = self._is_unresolved()
        self.client.authenticate()
        sent_at = self.record.time()
        attempt = {"sent_at": sent_at, "outcome": "sent", "sent_by": {**self.task_fields}}
        self.record.save(state="sent", attempts=[*self._attempts(), attempt])
        check = refuse_delayed(sent_at, self.now, f"payment {self.key}")
        body = {"request_id": self.key, **self.payment.body}
        try:
            response = self.client.request(
                "POST", self.payment.endpoint, body,
                options={"retry": False, "check_response": False, "before_send": check},
            )  # fmt: skip
        except (BankUnavailable, IntergiroResponseError) as error:
            if isinstance(error, IntergiroResponseError) or error.may_have_arrived:
                raise self._no_usable_response(error) from None
            self._save_outcome("not sent", "sent" if repeated else "planned")
            raise
        except IntergiroError:
            self._save_outcome("not sent", "sent" if repeated else "planned")
            raise
        return self._handle_response(response, repeated)

    def _handle_response(self, response: requests.Response, repeated: bool) -> dict[str, Any]:
        status = response.status_code
        if 200 <= status < 300:
            transaction = decode_payment(response)
            if transaction is None:
                error: IntergiroError = IntergiroResponseError(f"status {status} with a body that is not a payment")
                raise self._no_usable_response(error, status)
            return self._finish(transaction, "response received", status)
        error = error_of(response)
        if status in (425, 429):
            self._save_outcome("not carried out", "sent" if repeated else "planned", status)
            raise error
        if status == 408 or status >= 500 or status < 400:
            raise self._no_usable_response(error, status)
        if isinstance(error, IntergiroConsentRequired):
            self._save_outcome(NEEDS_CONSENT, "sent", status)
            raise error
        if status == 409 or repeated:
            return self._handle_refused_key(status, repeated)
        self._save_outcome("refused", "refused", status)
        raise error

    def _handle_refused_key(self, status: int, repeated: bool) -> dict[str, Any]:
        """Look up the payment after a refusal that may concern the key, and not the payment."""
        self._save_outcome("refused", "unknown", status)
        since = self.first_sent() if repeated else self.now() - LOOK_BACK
        fetch = self.client.page_getter("transactions", read_page)
        found = look_up.find_payment(fetch, self.payment, self.key, since).payment
        if found is None and (repeated or len(self._attempts()) > 1):  # an earlier request may still be in flight
            self._wait_to_settle()
            found = look_up.find_payment(fetch, self.payment, self.key, since).payment
        if found is not None:
            return self._confirm_found(found)
        if status == 409 and not repeated and len(self._attempts()) == 1:
            raise look_up.mismatch(self.key, None, "the bank does not accept as this one (status 409)")
        raise self._outcome_unknown(f"the request was sent again, and refused with status {status}", status)

    def _confirm_found(self, transaction: dict[str, Any]) -> dict[str, Any]:
        log.info("An earlier request has made payment %s.", self.key)
        return self._finish(transaction, "found by look-up")

    def _finish(self, transaction: dict[str, Any], outcome: str, status: int | None = None) -> dict[str, Any]:
        """Store the outcome of a transaction, and return the result of the payment.

        :param outcome: how the transaction became known.
        :param status: the status code of the response; None for a look-up.
        """
        if look_up.differences(self.payment, transaction, self.key):
            self._save_outcome("another payment", "unknown", status, look_up.shown_id(transaction))
        look_up.check_same(self.payment, transaction, self.key)
        payment_id, bank_status = look_up.shown_id(transaction), str(transaction.get("status") or "")
        rejected = bank_status.lower() in look_up.REJECTED
        self._save_outcome(outcome, "rejected" if rejected else "confirmed", status, payment_id, bank_status)
        if rejected:
            raise self._rejected(payment_id, bank_status)
        return self._result(transaction)

    def _recorded_result(self) -> dict[str, Any]:
        """Return the result that the record holds, unless the bank has rejected the payment since."""
        payment_id = self.record.content.get("payment_id")
        try:
            transaction = decode_payment(self.client.request("GET", f"transactions/{payment_id}")) or {}
        except IntergiroError as error:
            log.warning("The record confirms payment %s, but its current status is not known: %s", self.key, error)
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

    def _save_outcome(
        self, outcome: str, state: str, status: int | None = None, payment_id: str | None = None, bank_status: str = ""
    ) -> None:
        """Store the outcome of the last attempt, and the state of the payment."""
        attempts = [*self._attempts()]
        if attempts and attempts[-1]["outcome"] == "sent":
            ended = {"outcome": outcome, "status_code": status, "ended_at": self.record.time()}
            attempts[-1] = {**attempts[-1], **ended}
        self.record.save(state=state, attempts=attempts, payment_id=payment_id, bank_status=bank_status)

    def _no_usable_response(self, error: IntergiroError, status: int | None = None) -> _NoUsableResponse:
        self._save_outcome("unknown", "unknown", status)
        return _NoUsableResponse(error)

    def _rejected(self, payment_id: str, status: str) -> PaymentRejected:
        return PaymentRejected(
            f"Intergiro has rejected payment {self.key} (transaction {payment_id}, status {status}). If you clear the "
            "task, it sends the same key, and the payment stays rejected. Correct the cause, then start a new run or "
            "set another `payment_key`.",
            payment_id,
        )

    def _outcome_unknown(self, happened: str, status: int | None = None) -> OutcomeUnknown:
        since = (self.first_sent() - look_up.CLOCK_SKEW).isoformat(timespec="seconds")
        return OutcomeUnknown(
            f"POST /{self.client.settings.version}/{self.payment.endpoint}",
            happened,
            f"List `transactions` of the account with created_from={since}, and look for request_id {self.key}, or for "
            "the amount and the reference.",
            key=self.key,
            status_code=status,
            then="If the payment is there, mark this task as success. If not, clear this task: it looks the payment up "
            "again, then sends the same key.",
        )


class _NoUsableResponse(Exception):
    """The outcome of a request is unknown.

    :param error: what happened instead of a usable response.
    """

    def __init__(self, error: IntergiroError) -> None:
        super().__init__()
        self.error = error


def _pause(number: int, error: IntergiroError) -> float:
    """Return the seconds to wait after request `number`; longer, if the bank asks for it."""
    own = FIRST_PAUSE * 4.0 ** (number - 1) * random.uniform(0.5, 1.0)  # noqa: S311
    return max(own, min(float(getattr(error, "retry_after", None) or 0.0), LONGEST_PAUSE))


def _status_of(error: IntergiroError) -> str:
    status = getattr(error, "status_code", None)
    return f"status {status}" if status else "no usable response"
