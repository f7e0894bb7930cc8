# SPDX-License-Identifier: Apache-2.0
"""Pay through Intergiro, each payment once.

A light module: it is imported at every parse of every DAG file that uses it, so what makes requests is imported when
the task runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, NoReturn

from intergiro_provider.exceptions import IntergiroConsentRequired, IntergiroValueError, PaymentRejected
from intergiro_provider.links.intergiro import IntergiroConsentLink, IntergiroPortalLink
from intergiro_provider.operators.payment_base import (
    PaymentOperator,
    check_api,
    decoded,
    earlier_since,
    hidden_field,
    in_currency_of_account,
    object_path,
    remembered_key,
    shown,
)
from intergiro_provider.retry_policy import set_retry_policy
from intergiro_provider.tracebacks import message_only

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from intergiro_provider.hooks.intergiro import IntergiroHook
    from intergiro_provider.payments.keys import Position
    from intergiro_provider.payments.plan import Payment
    from intergiro_provider.payments.single import SinglePayment


class IntergiroPaymentOperator(PaymentOperator):
    """Pay somebody, or move money between accounts of one holder, through the 3d API.

    .. code-block:: python

        IntergiroPaymentOperator(
            task_id="pay_rent",
            operation="pay",
            account_id="{{ var.value.rent_account }}",
            amount=1_250_00,
            reference="Rent {{ ds }}",
            counterparty="{{ var.json.landlord }}",
            record_path="s3://audit@payments/records",
        )

    The payment is made once, however often the task is tried or cleared: every attempt sends the same idempotency key.
    The key is made from the DAG, the task, the map index and the run, or from `payment_key`.

    Returns ``{payment_id, key, status, amount, currency, sha256}``, or with `dry_run` the plan
    ``{count, totals, sha256}``.

    :param operation: ``pay`` or ``move``.
    :param account_id: the account that pays. (templated)
    :param amount: an int in minor units (cents), or a Decimal with `currency`. (templated)
    :param reference: text for the payee. (templated)
    :param currency: ISO 4217 code of the account's currency, which is checked before anything is sent. None: the
        amount is in minor units of whatever the account's currency is. (templated)
    :param counterparty: for ``pay``: ``{"name", "iban", "bic"}`` or ``{"name", "account_id"}``, or JSON text of it; not
        stored with the task's rendered fields. (templated)
    :param target_account_id: for ``move``: the account that receives. (templated)
    :param payment_key: what identifies the payment, such as an invoice id; None: the task instance. (templated)
    :param payment_scope: where `payment_key` is unique: ``run``, ``dag`` or ``ever``; the last two need `record_path`.
    :param record_path: directory for the write-ahead record, an ObjectStoragePath URL; None: no record. (templated)
    :param key_trusted_for: how long after the first request the bank recognizes a repeated key. From `settle` before
        its end on, the payment is looked up before it is sent again. Up to `settle`, such as ``timedelta(0)``: the key
        is never trusted, and `record_path` is needed.
    :param settle: how long after a request its payment may still appear in the bank's list.
    :param wait_for_consent: defer until a person has given consent, where the bank asks for it (412).
    :param consent_poll_interval: seconds between two looks at the consent.
    :param dry_run: send nothing, return the plan.
    :param approved_plan: the ``sha256`` of the plan that was approved; another plan is refused. (templated)
    :param approved_by: who approved it, for the record. (templated)
    :param intergiro_conn_id: the connection. (templated)
    """

    template_fields: Sequence[str] = (
        "account_id", "amount", "reference", "currency", "counterparty", "target_account_id", "payment_key",
        "record_path", "approved_plan", "approved_by", "intergiro_conn_id",
    )  # fmt: skip
    operator_extra_links = (IntergiroConsentLink(), IntergiroPortalLink())
    counterparty = hidden_field("counterparty")
    reference = hidden_field("reference")

    def __init__(
        self,
        *,
        operation: str,
        account_id: str,
        amount: Any,
        reference: str,
        currency: str | None = None,
        counterparty: Mapping[str, Any] | str | None = None,
        target_account_id: str | None = None,
        payment_key: str | None = None,
        payment_scope: str = "run",
        record_path: str | None = None,
        key_trusted_for: timedelta = timedelta(hours=24),
        settle: timedelta = timedelta(minutes=10),
        wait_for_consent: bool = False,
        consent_poll_interval: float = 10.0,
        dry_run: bool = False,
        approved_plan: str | None = None,
        approved_by: Any = None,
        intergiro_conn_id: str = "intergiro_default",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.operation = operation
        self.account_id = account_id
        self.amount = amount
        self.reference = reference
        self.currency = currency
        self.counterparty = counterparty
        self.target_account_id = target_account_id
        self.payment_key = payment_key
        self.payment_scope = payment_scope
        self.record_path = record_path
        self.key_trusted_for = key_trusted_for
        self.settle = settle
        self.wait_for_consent = wait_for_consent
        self.consent_poll_interval = consent_poll_interval
        self.only_plan = dry_run
        self.approved_plan = approved_plan
        self.approved_by = approved_by
        self.intergiro_conn_id = intergiro_conn_id
        self._check_scope()
        if isinstance(amount, float):
            from intergiro_provider.payments.amounts import minor_units

            minor_units(amount, None)
        set_retry_policy(self)
        self._is_made = True

    @message_only
    def execute(self, context: Context) -> dict[str, Any]:
        """Make the payment, or return the plan."""
        return self._pay(context)

    def _pay(
        self, context: Context, first_sent: datetime | None = None, key: str = "", decision: str = ""
    ) -> dict[str, Any]:
        """Make the payment.

        :param first_sent: when its first request left, if the task goes on after a wait for consent.
        :param key: which idempotency key it had.
        :param decision: how that wait ended.
        """
        from intergiro_provider.hooks.intergiro import IntergiroHook
        from intergiro_provider.payments.plan import check_approval, plan_of, totals_of

        payment = self._payment()
        check_approval(self.approved_plan, payment.digest)
        if self.record_path is None and self.key_trusted_for <= self.settle:
            raise IntergiroValueError(
                f"`record_path` is None and `key_trusted_for` ({self.key_trusted_for}) is not above `settle` "
                f"({self.settle}), so that the key is never trusted. Then only a record keeps two processes from "
                "sending one payment twice. Nothing was sent. Set `record_path`."
            )
        hook = IntergiroHook(intergiro_conn_id=self.intergiro_conn_id, method="POST")
        check_api(hook, "3d", "IntergiroBulkPaymentOperator")
        if payment.currency or self.only_plan:
            payment = in_currency_of_account(hook, payment)
        if self.only_plan:
            return plan_of(1, totals_of([(payment.currency, payment.amount)]), payment.digest)
        position = self._position(context)
        single = self._single(hook, payment, position, context, first_sent, key)
        try:
            result = self._decided(single, decision) if decision in ("refused", "expired") else single.make()
        except IntergiroConsentRequired as error:
            # A person who has come back may still have to decide; otherwise waiting again would change nothing.
            if not self.wait_for_consent or decision not in ("", "returned"):
                raise
            self._wait_for_consent(error, single, context)
        self.log.info("Payment %s: transaction %s, %s.", result["key"], result["payment_id"], result["status"])
        return result

    def _payment(self) -> Payment:
        from intergiro_provider.payments.plan import read_payment

        return read_payment(
            self.operation, self.account_id, self.amount, shown(self.reference), self.currency,
            decoded(shown(self.counterparty)), self.target_account_id,
        )  # fmt: skip

    def _single(
        self, hook: IntergiroHook, payment: Payment, position: Position, context: Context,
        first_sent: datetime | None, key: str,
    ) -> SinglePayment:  # fmt: skip
        from intergiro_provider.payments.keys import idempotency_key
        from intergiro_provider.payments.single import Policy, SinglePayment

        ti: Any = context["ti"]
        record = self._record(hook, position)
        computed = idempotency_key(hook.settings.key, position)
        remembered, is_remembered = remembered_key(context, record.name, computed)
        policy = Policy(
            key_trusted_for=self.key_trusted_for,
            settle=self.settle,
            last_try=int(getattr(ti, "try_number", 1) or 1) > int(getattr(ti, "max_tries", 0) or 0),
            # Without a record, another task of the run may have sent what has the same `payment_key`.
            earlier_since=first_sent or earlier_since(context, shared=self.record_path is None and self.payment_key),
            may_have_another_key=not is_remembered and not record.is_kept,
        )
        return SinglePayment(
            hook.client,
            payment,
            key or remembered,  # the API key may have changed during a wait
            record,
            policy,
            self._described(position, context, self.approved_by, self.approved_plan),
        )

    def _decided(self, single: SinglePayment, decision: str) -> dict[str, Any]:
        """Return the payment if the bank has made it although the consent was refused or has expired."""
        if result := single.find():
            return result
        raise PaymentRejected(
            f"The consent for payment {single.key} {'was refused' if decision == 'refused' else 'has expired'}, and "
            "the bank shows no payment. To ask for consent again, clear this task: it sends the same key."
        )

    def _wait_for_consent(self, error: IntergiroConsentRequired, single: SinglePayment, context: Context) -> NoReturn:
        """Go on in the triggerer until the person has decided."""
        from intergiro_provider.triggers.payments import IntergiroConsentTrigger

        if not error.consent_id:
            raise error
        IntergiroConsentLink.persist(context, error.consent_id, error.expires_at, self.intergiro_conn_id)
        self.log.info("Payment %s waits for a person's consent until %s.", single.key, error.expires_at)
        self.defer(
            trigger=IntergiroConsentTrigger(
                error.consent_id, error.expires_at, self.consent_poll_interval, self.intergiro_conn_id
            ),
            method_name=self.resume.__name__,
            kwargs={
                "first_sent": single.first_sent().isoformat(),
                "consent_id": error.consent_id,
                "key": single.key,
            },
        )

    @message_only
    def resume(
        self,
        context: Context,
        event: dict[str, Any] | None = None,
        first_sent: str = "",
        consent_id: str = "",
        key: str = "",
    ) -> dict[str, Any]:
        """Look for the payment, which the bank may have made when consent was given; if it is not there, send it."""
        from intergiro_provider.payments.record import parsed
        from intergiro_provider.triggers.payments import forget_return

        forget_return(consent_id)
        return self._pay(context, parsed(first_sent), key, (event or {}).get("decision", "unknown"))


class IntergiroBulkPaymentOperator(PaymentOperator):
    """Hand in SEPA payments in EUR from one account, through the 2d API. A person approves them in the portal.

    .. code-block:: python

        IntergiroBulkPaymentOperator(
            task_id="pay_wages",
            account_id="{{ var.value.wages_account }}",
            items="s3://audit@payments/wages/{{ ds }}.jsonl",
            record_path="s3://audit@payments/records",
        )

    More than 1,000 items are split into batches, by a plan that is written before anything is sent and that does not
    depend on the items' order. The bank knows no idempotency key for batches: one whose outcome is hidden is looked up
    by the `correlation_ids` of its items, and the task fails with OutcomeUnknown where that decides nothing.

    Returns ``{key, count, totals, sha256, batches}``, or with `dry_run` the plan ``{count, totals, sha256}``.

    :param account_id: the account that pays. (templated)
    :param items: dicts of `counterparty` (``{"name", "iban", "bic"}``), `amount` (an int in cents, or text or Decimal
        beside ``"currency": "EUR"``), `reference`, and if wanted `correlation_id`; or the URL of a file of JSON lines
        of them. Not stored with the task's rendered fields. (templated)
    :param record_path: directory for the write-ahead record, an ObjectStoragePath URL. (templated)
    :param payment_key: what identifies the bulk payment, such as a payroll's id; None: the task instance. (templated)
    :param payment_scope: where `payment_key` is unique: ``run``, ``dag`` or ``ever``.
    :param settle: how long after a request its payments may still appear in the bank's list.
    :param resend_after: how long after a request a batch of which the bank shows nothing is sent again; None: never.
    :param dry_run: send nothing, return the plan.
    :param approved_plan: the ``sha256`` of the plan that was approved; another plan is refused. (templated)
    :param approved_by: who approved it, for the record. (templated)
    :param intergiro_conn_id: the connection. (templated)
    """

    template_fields: Sequence[str] = (
        "account_id", "items", "payment_key", "record_path", "approved_plan", "approved_by", "intergiro_conn_id",
    )  # fmt: skip
    items = hidden_field("items")

    def __init__(
        self,
        *,
        account_id: str,
        items: Any,
        record_path: str,
        payment_key: str | None = None,
        payment_scope: str = "run",
        settle: timedelta = timedelta(minutes=10),
        resend_after: timedelta | None = None,
        dry_run: bool = False,
        approved_plan: str | None = None,
        approved_by: Any = None,
        intergiro_conn_id: str = "intergiro_default",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.account_id = account_id
        self.items = items
        self.record_path = record_path
        self.payment_key = payment_key
        self.payment_scope = payment_scope
        self.settle = settle
        self.resend_after = resend_after
        self.only_plan = dry_run
        self.approved_plan = approved_plan
        self.approved_by = approved_by
        self.intergiro_conn_id = intergiro_conn_id
        self._check_scope()
        set_retry_policy(self)
        self._is_made = True

    @message_only
    def execute(self, context: Context) -> dict[str, Any]:
        """Hand the items in, or return the plan."""
        from intergiro_provider.hooks.intergiro import IntergiroHook
        from intergiro_provider.payments.batches import read_plan
        from intergiro_provider.payments.bulk import BulkPayment
        from intergiro_provider.payments.keys import idempotency_key
        from intergiro_provider.payments.plan import check_approval

        plan = read_plan(self.account_id, self._given())
        check_approval(self.approved_plan, plan.digest)
        if self.only_plan:
            return plan.summary()
        if self.record_path is None:
            raise IntergiroValueError("`record_path` is None; a bulk payment needs it. Nothing was sent.")
        hook = IntergiroHook(intergiro_conn_id=self.intergiro_conn_id, method="POST")
        check_api(hook, "2d", "IntergiroPaymentOperator")
        position = self._position(context)
        result = BulkPayment(
            hook.client,
            plan,
            idempotency_key(hook.settings.key, position),
            self._record(hook, position),
            self._record(hook, position, "-plan"),
            self.settle,
            self.resend_after,
            self._described(position, context, self.approved_by, self.approved_plan),
        ).make()
        self.log.info("%d items are handed in, in %d batches.", result["count"], len(result["batches"]))
        return result

    def _given(self) -> Any:
        """Return the items, read from their file if that is what is given."""
        from intergiro_provider.payments.batches import read_lines

        given = decoded(shown(self.items))
        if not isinstance(given, str):
            return given
        # Airflow 2.11's files cannot be iterated over.
        return list(read_lines(object_path(given, "`items`").read_bytes().split(b"\n")))
