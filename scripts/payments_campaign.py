# SPDX-License-Identifier: Apache-2.0
"""Payments under kills and faults: `python -m scripts.payments_campaign`; reports what was asked for and what was made.

Every try of a payment is a process of its own, which runs IntergiroPaymentOperator against the sandbox.
A third of the first tries are killed with SIGKILL at a step of their own. The bank hides outcomes: it loses responses,
answers 502, and carries payments out up to a second after it did so. A tenth of the payments is cleared at the end.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

PARALLEL = 10
TRIES = 5
COMMIT_AFTER = 1.0
SETTLE = timedelta(seconds=5)
STEPS = ("start", "before record", "after record", "after response", "after confirmation")
PAYEE = {"name": "Åsa Öberg", "iban": "SE4550000000058398257466", "bic": "ESSESESS"}
DAY = timedelta(hours=24)


@dataclass(frozen=True)
class Mode:
    """How the bank treats a repeated key, and how far the tasks trust it."""

    name: str
    bank: dict[str, Any]
    trusted_for: timedelta = DAY


MODES = (
    Mode("keeps keys", {}),
    Mode("forgets keys after 10 s", {"idempotency_life": 10.0}, timedelta(seconds=10)),
    Mode("ignores keys, not trusted", {"idempotency": "ignore"}, timedelta(0)),
    Mode("answers 409", {"idempotency": "conflict"}),
    Mode("replays", {"idempotency": "replay"}),
)


@dataclass
class Payment:
    """One payment of a campaign, and what its tries said."""

    number: int
    kill_at: str | None
    tries: int = 0
    outcome: str = ""
    said: list[str] = field(default_factory=list)


def main() -> int:
    """Run the campaign, print the report; fail where a payment was made twice, or is missing and nobody said so."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--payments", type=int, default=1000)
    parser.add_argument("--others", type=int, default=300, help="payments in each mode but the first")
    parser.add_argument("--minutes", type=float, default=15.0, help="of all modes; later payments are not asked for")
    parser.add_argument("--only", type=int, help="run this mode alone; 0 is the first")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    home = Path(tempfile.mkdtemp(prefix="payments-"))
    os.environ.update(
        AIRFLOW_HOME=str(home), AIRFLOW__CORE__LOAD_EXAMPLES="False", AIRFLOW__LOGGING__LOGGING_LEVEL="ERROR"
    )
    subprocess.run([sys.executable, "-m", "airflow", "db", "migrate"], check=True, capture_output=True)
    print("| bank | asked | kills | faults | cleared | made | twice | missing | of them reported unknown |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |", flush=True)
    good = True
    for place, mode in enumerate(MODES):
        if arguments.only not in (None, place):
            continue
        count = arguments.payments if place == 0 else arguments.others
        share = 0.4 if place == 0 else 0.6 / (len(MODES) - 1)
        until = time.monotonic() + 60 * arguments.minutes * share
        good &= run(mode, count, until, home / f"records-{place}", random.Random(arguments.seed + place))  # noqa: S311
    return 0 if good else 1


def run(mode: Mode, count: int, until: float, records: Path, draw: random.Random) -> bool:
    """Run one mode, and print its line of the report."""
    from intergiro_provider.sandbox import Sandbox

    for module in ("schwifty", "intergiro_provider.hooks.intergiro", "intergiro_provider.payments.single"):
        importlib.import_module(module)  # here, so that each try need not
    importlib.import_module("intergiro_provider.payments.single").__dict__["FIRST_PAUSE"] = 0.05
    with Sandbox(process=True, transactions=10, login_limit=1000, **mode.bank) as bank:
        os.environ["AIRFLOW_CONN_INTERGIRO_DEFAULT"] = bank.connection(max_logins_per_hour=900)
        account = json.loads(bank.records("/v3/accounts")[0])["id"]
        path = "/v3/transactions/pay"
        for share, kind, how in (
            (0.09, "lose_answer", {}),
            (0.09, "lose_answer", {"commit_after": COMMIT_AFTER}),
            (0.09, "status", {"status": 502, "handled": True, "commit_after": COMMIT_AFTER}),
            (0.09, "drop", {}),
            (0.04, "status", {"status": 503}),
        ):
            bank.fault(kind, path=path, probability=share, seed=draw.randrange(1000), **how)
        payments = [Payment(n, draw.choice(STEPS) if draw.random() < 0.36 else None) for n in range(count)]
        started = datetime.now(UTC)

        def pay(payment: Payment) -> None:
            act(payment, mode, account, records, started)

        kills = in_processes(payments, pay, until)
        payments = [payment for payment in payments if payment.tries]
        count = len(payments)
        time.sleep(COMMIT_AFTER + 1)
        faults = sum(bank.counters().faults.values())
        cleared = draw.sample(payments, count // 10)
        for payment in cleared:
            payment.outcome, payment.kill_at = "", None
        in_processes(cleared, pay, float("inf"))
        time.sleep(COMMIT_AFTER + 1)
        booked = map(json.loads, bank.records("/v3/transactions"))
        made = Counter(t["reference"] for t in booked if t["reference"].startswith("Payment ") and t["amount"] < 0)
    twice = [p for p in payments if made[f"Payment {p.number}"] > 1]
    missing = [p for p in payments if not made[f"Payment {p.number}"]]
    unsaid = [p for p in missing if p.outcome == "made"]
    print(
        f"| {mode.name} | {count} | {kills} | {faults} | {len(cleared)} | {len(made)} | {len(twice)} | {len(missing)} "
        f"| {len(missing) - len(unsaid)} |",
        flush=True,
    )
    outcomes = Counter(p.outcome for p in payments)
    print(f"  {dict(outcomes)}; {sum(p.tries for p in payments)} tries", file=sys.stderr, flush=True)
    for payment in (*twice, *unsaid)[:5]:
        print(f"  {payment}", file=sys.stderr)
    return not twice and not unsaid


def in_processes(payments: list[Payment], pay: Callable[[Payment], None], until: float) -> int:
    """Run tries until every payment has an outcome; return how many were killed.

    :param until: by the monotonic clock; after it, no payment is begun.
    """
    waiting, running, kills = list(payments), dict[int, tuple[Payment, int]](), 0
    while waiting or running:
        if time.monotonic() > until:
            waiting = [payment for payment in waiting if payment.tries]
        while waiting and len(running) < PARALLEL:
            payment = waiting.pop(0)
            payment.tries += 1
            readable, writable = os.pipe()
            if not (child := os.fork()):
                os.close(readable)
                try:
                    pay(payment)
                    said = "made"
                except BaseException as error:
                    said = f"{type(error).__name__}: {error}"
                os.write(writable, said.encode()[:4000])
                os._exit(0)
            os.close(writable)
            running[child] = payment, readable
        if len(waiting) % 100 == 0:
            print(f"  {len(waiting)} waiting, {kills} killed", file=sys.stderr, flush=True)
        child, status = os.wait()
        if child not in running:
            continue
        payment, readable = running.pop(child)
        said = os.read(readable, 4096).decode(errors="replace")
        os.close(readable)
        payment.kill_at = None
        kills += os.WIFSIGNALED(status)
        payment.said.append(said or "killed")
        final = said.startswith(("OutcomeUnknown", "Payment", "IntergiroValueError", "IntergiroClientError"))
        if said == "made":
            payment.outcome = "made"
        elif final or payment.tries >= TRIES:
            payment.outcome = said.partition(":")[0] or "killed"
        else:
            waiting.append(payment)
    return kills


def act(payment: Payment, mode: Mode, account: str, records: Path, started: datetime) -> None:
    """Run one try, in a process of its own."""
    from intergiro_provider.operators.payments import IntergiroPaymentOperator

    with killed_at(payment.kill_at):
        operator = IntergiroPaymentOperator(
            task_id=f"pay_{payment.number}", operation="pay", account_id=account, amount=100 + payment.number % 3,
            reference=f"Payment {payment.number}", counterparty=PAYEE, key_trusted_for=mode.trusted_for, settle=SETTLE,
            record_path=f"file://{records}" if payment.number % 2 or mode.trusted_for <= SETTLE else None,
        )  # fmt: skip
        ti = SimpleNamespace(
            dag_id="campaign", task_id=operator.task_id, run_id="r", map_index=-1, try_number=payment.tries,
            max_tries=TRIES - 1,
        )  # fmt: skip
        operator.execute({"ti": ti, "dag_run": SimpleNamespace(start_date=started, clear_number=0)})  # type: ignore[typeddict-item]


class killed_at:
    """End this process with SIGKILL at a step; None: not at all."""

    def __init__(self, step: str | None) -> None:
        self.step = step

    def __enter__(self) -> None:
        if self.step is None:
            return
        from requests.adapters import HTTPAdapter

        from intergiro_provider.payments.record import Record

        save, send = Record.save, HTTPAdapter.send

        def killing_save(record: Record, **changes: Any) -> None:
            if self.step == "before record" and changes.get("state") == "sent":
                die()
            save(record, **changes)
            if self.step == "after record" and changes.get("state") == "sent":
                die()
            if self.step == "after confirmation" and changes.get("state") == "confirmed":
                die()

        def killing_send(adapter: HTTPAdapter, request: Any, *args: Any, **kwargs: Any) -> Any:
            try:
                return send(adapter, request, *args, **kwargs)
            finally:
                if self.step == "after response" and request.url.endswith("/pay"):
                    die()

        Record.save = killing_save  # type: ignore[assignment,method-assign]
        HTTPAdapter.send = killing_send  # type: ignore[assignment,method-assign]
        if self.step == "start":
            die()

    def __exit__(self, *exception: object) -> None:
        pass


def die() -> None:
    """As when the machine runs out of memory."""
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main())
