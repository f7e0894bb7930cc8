# SPDX-License-Identifier: Apache-2.0
"""Kill the process of a task with SIGKILL at a step of its payment, and record each kill and each failure in a file."""

from __future__ import annotations

import json
import os
import random
import signal
import threading
from pathlib import Path
from typing import Any

from scripts.payments_plan import BULKS, step_of

EVENTS = "PAYMENTS_CAMPAIGN_EVENTS"
"""The environment variable with the path of the file of events."""
ANY_MOMENT = 2.0
"""The latest kill "at any moment", in seconds after the start of the try."""


def schedule_kill(context: Any) -> None:
    """Prepare the kill of this try, if the plan has one. The `pre_execute` of the operators."""
    ti, operator = context["ti"], context["task"]
    key, record = getattr(operator, "payment_key", None), getattr(operator, "record_path", None) is not None
    bulk = next((each for each in BULKS if each.name == ti.dag_id), None)
    if bulk is not None:
        step, occurrence = bulk.kills.get(ti.try_number, (None, 0))
    else:
        step, occurrence = step_of(f"{ti.dag_id} {ti.run_id} {ti.task_id} {key or ti.map_index}", ti.try_number), 1
    if step == "at the start":
        _kill(ti, step, record)
    elif step == "at any moment":
        timer = threading.Timer(random.uniform(0, ANY_MOMENT), _kill, (ti, step, record))  # noqa: S311
        timer.daemon = True
        timer.start()
    elif step is not None:
        _patch(ti, step, occurrence, record)


def record_failure(context: Any) -> None:
    """Record the error of a failed try. The `on_failure_callback` of the operators."""
    _record(context["ti"], type(context.get("exception")).__name__)


def _patch(ti: Any, step: str, occurrence: int, record: bool) -> None:
    from requests.adapters import HTTPAdapter

    from intergiro_provider.payments.record import Record

    save, send, remaining = Record.save, HTTPAdapter.send, occurrence

    def reached(name: str) -> None:
        nonlocal remaining
        remaining -= name == step
        if remaining == 0:
            _kill(ti, step, record)

    def killing_save(kept: Record, **changes: Any) -> None:
        states = {changes.get("state"), *(entry["state"] for entry in changes.get("batches", ()))}
        if "sent" in states:
            reached("before the record")
        save(kept, **changes)
        if "sent" in states:
            reached("after the record")
        elif "confirmed" in states:
            reached("after the confirmation")

    def killing_send(adapter: HTTPAdapter, request: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return send(adapter, request, *args, **kwargs)
        finally:
            if request.method == "POST" and request.url.endswith(("/pay", "/bulk_payments")):
                reached("after the response")

    Record.save = killing_save  # type: ignore[assignment,method-assign]
    HTTPAdapter.send = killing_send  # type: ignore[assignment,method-assign]


def _kill(ti: Any, step: str, record: bool) -> None:
    _record(ti, f"killed {step}", record=record)
    os.kill(os.getpid(), signal.SIGKILL)


def _record(ti: Any, what: str, **more: Any) -> None:
    place = {"dag": ti.dag_id, "run": ti.run_id, "task": ti.task_id, "index": ti.map_index, "try": ti.try_number}
    with Path(os.environ[EVENTS]).open("ab", buffering=0) as file:  # appended at once, so that no two lines mix
        file.write(json.dumps({**place, "what": what, **more}).encode() + b"\n")
