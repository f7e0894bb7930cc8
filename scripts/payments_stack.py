# SPDX-License-Identifier: Apache-2.0
"""The Airflow and the banks of the payments campaign, and its parts."""

from __future__ import annotations

import json
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

import requests

from intergiro_provider.sandbox import Sandbox
from scripts import services
from scripts.airflow_rest import AirflowRest
from scripts.airflow_stack import ROOT, AirflowStack
from scripts.leaks import files, find, postgres_cells
from scripts.payments_dags.kills import EVENTS
from scripts.payments_figures import Figures
from scripts.payments_plan import BBAN, BULKS, MODES, NAME, PAY_FAULTS, REFERENCE, SEED, SHARD, Bulk, Mode, items
from scripts.payments_plan import reference as reference_of

TIMEOUT = 5400.0
POLL = 3.0
LATEST = 8.0
"""Seconds after which every late payment has been carried out."""
INVOICES = 40
"""Number of payments in the list that is reordered."""
#: The task that returns the invoices, by the task that pays them.
UPSTREAM = {"with_record": "to_record", "without_record": "not_to_record"}
#: The scheduler imports these modules, and tasks are forked from it. That saves half a second of CPU time per task.
PRELOAD = """import sys
if "scheduler" in sys.argv:
    import airflow.dag_processing.dagbag, airflow.sdk.execution_time.task_runner, schwifty
    import intergiro_provider.hooks.intergiro, intergiro_provider.operators.payments, intergiro_provider.payments.bulk
    import intergiro_provider.payments.single, scripts.payments_dags.kills
    from airflow.sdk import BaseOperator, DAG, ObjectStoragePath, task
"""


class Stack:
    """An Airflow with LocalExecutor and PostgreSQL, and one sandbox for each bank. `with` starts and stops them."""

    def __init__(self, home: Path, slots: int, level: str, report: Callable[[str], None]) -> None:
        self.home, self.report = home, report
        self.banks: dict[str, Sandbox] = {}
        self.secrets: set[str] = set()  # addresses of consent pages
        self.events, self.records = home / "events.jsonl", home / "records"
        self._open = ExitStack()
        modes = {mode.name: mode.settings for mode in MODES}
        bulks = {bulk.name: {"correlation_delay": bulk.visible_after} for bulk in BULKS}
        for name, settings in {**modes, **bulks, "mapped": {}, "consents": {"pay_consent_above": 1}}.items():
            self.banks[name] = Sandbox(process=True, transactions=10, **settings)
        self._slots, self._level = slots, level

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self._open.close()
            raise
        return self

    def __exit__(self, *failure: object) -> None:
        self._open.close()

    def _start(self) -> None:
        for name, bank in self.banks.items():
            self._open.enter_context(bank)
            faults = next((bulk.faults for bulk in BULKS if bulk.name == name), PAY_FAULTS)
            path = "/v1/bulk_payments" if name.startswith("bulk") else "/v3/transactions/pay"
            for number, (kind, share, how) in enumerate(faults):
                bank.fault(kind, path=path, probability=share, seed=SEED * 100 + number, **how)
        variables = {"records": f"file://{self.records}", "items": str(self.home / "items")}
        for name, path in (("account", "/v3/accounts"), ("account_2d", "/v1/accounts")):
            accounts = map(json.loads, self.banks["keeps"].records(path))  # equal at each bank
            variables[name] = next(each["id"] for each in accounts if each["currency"] == "EUR")
        env = {f"AIRFLOW_VAR_{name.upper()}": value for name, value in variables.items()}
        for name, bank in self.banks.items():
            extra = {"api": "2d"} if name.startswith("bulk") else {}
            env[f"AIRFLOW_CONN_{name.upper()}"] = bank.connection(**extra)
        self.postgres = self._open.enter_context(
            services.postgres(services.Postgres, max_connections=200, shared_buffers="128MB")
        )
        database = f"postgres:{self.postgres.password}@127.0.0.1:{self.postgres.port}/postgres"
        env |= {
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"postgresql+psycopg2://{database}",
            EVENTS: str(self.events),
            "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
            "AIRFLOW__CORE__PARALLELISM": str(self._slots),
            "AIRFLOW__LOGGING__LOGGING_LEVEL": self._level,
        }
        self.airflow = AirflowStack(
            self.home / "airflow", ROOT / "scripts" / "payments_dags", env, self.report, api_workers=2
        )
        settings = self.airflow.home / "config" / "airflow_local_settings.py"
        settings.parent.mkdir(parents=True)
        settings.write_text(PRELOAD)
        self._open.enter_context(self.airflow)
        self.airflow.wait_for_dags({mode.name for mode in MODES} | {bulk.name for bulk in BULKS}, 300.0)

    # ── Runs and their ends ──────────────────────────────────────────────────────────────────────────────
    def rest(self) -> AirflowRest:
        """Return a client for one thread."""
        rest = AirflowRest(self.airflow.url, retries=5)
        rest.log_in()
        return rest

    def wait(self, rest: AirflowRest, dag_id: str, runs: Iterable[str]) -> None:
        """Wait for the end of these runs."""
        for run in runs:
            rest.wait_for_run(dag_id, run, TIMEOUT, lambda: time.sleep(POLL))

    def read_events(self) -> list[dict[str, Any]]:
        """Return the events that the tasks have recorded."""
        lines = self.events.read_text().splitlines() if self.events.exists() else []
        return [json.loads(line) for line in lines]

    def failures(self, dag_id: str, instances: Iterable[dict[str, Any]]) -> Counter[str]:
        """Return the number of failed task instances, by their error."""
        last = {(e["run"], e["task"], e["index"]): e["what"] for e in self.read_events() if e["dag"] == dag_id}
        return Counter(
            last.get((each["dag_run_id"], each["task_id"], each["map_index"]), "?")
            for each in instances
            if each["state"] != "success"
        )

    def clear_some(
        self, rest: AirflowRest, figures: Figures, dag_id: str, instances: list[dict[str, Any]], draw: random.Random
    ) -> None:
        """Clear a tenth of the task instances and all failed ones, and wait until they have run again."""
        chosen = draw.sample(instances, max(1, len(instances) // 10))
        chosen += [each for each in instances if each["state"] != "success" and each not in chosen]
        figures.cleared += len(chosen)
        runs = sorted({each["dag_run_id"] for each in chosen})
        for run in runs:
            rest.clear(dag_id, run, [[e["task_id"], e["map_index"]] for e in chosen if e["dag_run_id"] == run])
        self.wait(rest, dag_id, runs)

    def compare(
        self, figures: Figures, bank: str, dag_ids: set[str], tasks: dict[str, list[str]],
        expected: dict[str, int], path: str = "/v3/transactions",
    ) -> Figures:  # fmt: skip
        """Complete the figures: compare the bank's payments with the requested ones.

        :param tasks: the states of the task instances of each reference.
        :param expected: how often each reference is to be paid.
        """
        time.sleep(LATEST)
        sandbox = self.banks[bank]
        rows = [json.loads(row) for row in sandbox.records(path) if REFERENCE.encode() in row]
        figures.compare([row for row in rows if row["amount"] < 0], tasks, expected)
        kills = [each for each in self.read_events() if each["dag"] in dag_ids and "record" in each]
        figures.kills = Counter((each["what"].removeprefix("killed "), each["record"]) for each in kills)
        for fault in sandbox.faults():
            figures.faults[_fault(fault)] += fault["struck"]
        counters = sandbox.counters()
        figures.logins, figures.refreshes = counters.logins, counters.refreshes
        figures.refused = counters.login_refused + counters.refresh_early + counters.refresh_reused
        return figures

    def progress(self) -> str:
        """Return the progress of the campaign as text."""
        writes = sum(bank.counters().writes for bank in self.banks.values())
        return f"{writes} payments made, {sum('killed' in event['what'] for event in self.read_events())} kills"

    # ── The search for account data ────────────────────────────────────────────────────────────────
    def leaks(self) -> tuple[list[str], dict[str, int]]:
        """Return the places with account data or secrets, and the number of searched places."""
        spaced = f"{BBAN[:4]} {BBAN[4:8]} {BBAN[8:]}"
        secrets = {REFERENCE, NAME, BBAN, spaced, *self.secrets}
        paid = [("", row) for bank in self.banks.values() for row in bank.records("/v3/transactions")]
        if not all(find({each}, paid) for each in (REFERENCE, NAME, BBAN)):
            raise RuntimeError("the search does not find the secrets in the bank's own transactions")
        secrets |= {token for bank in self.banks.values() for token in bank.tokens()} | {self.banks["keeps"].api_key}
        searched = {"secrets": len(secrets), "files": 0, "database values": 0}

        def counted(what: str, places: Iterable[tuple[str, bytes]]) -> Iterator[tuple[str, bytes]]:
            for place in places:
                searched[what] += 1
                yield place

        with closing(self.postgres.connect()) as connection:
            found = find(secrets, counted("database values", postgres_cells(connection)))
        for folder in (self.airflow.home, self.records):
            found += find(secrets, counted("files", files(folder)))
        return found, searched


# ── The parts of the campaign ──────────────────────────────────────────────────────────────────────────
def payments(stack: Stack, mode: Mode, count: int) -> list[Figures]:
    """Pay `count` invoices, then clear a tenth of the tasks and those that failed."""
    rest, figures, draw = stack.rest(), Figures(mode.title), random.Random(SEED)  # noqa: S311
    shards = [(first, min(SHARD, count - first)) for first in range(0, count, SHARD)]
    runs = [
        rest.trigger(mode.name, {"first": first, "count": size}, run_id=f"{mode.name}-{first}")
        for first, size in shards
    ]
    stack.wait(rest, mode.name, runs)
    figures.failed_at_first = stack.failures(mode.name, _pays(rest, mode.name, runs))
    stack.clear_some(rest, figures, mode.name, _pays(rest, mode.name, runs), draw)
    instances = _pays(rest, mode.name, runs)
    figures.attempts, figures.failed_at_end = _attempts(instances), stack.failures(mode.name, instances)
    tasks = _by_reference(rest, mode.name, instances)
    expected = {reference_of(mode.name, f"invoice-{number}"): 1 for number in range(count)}
    return [stack.compare(figures, mode.name, {mode.name}, tasks, expected)]


def mapped(stack: Stack) -> list[Figures]:
    """Pay the items of a list that has another order after a clear, and pay from two DAGs with one run id."""
    rest, figures, draw = stack.rest(), Figures("mapped tasks"), random.Random(SEED)  # noqa: S311
    run, twins = rest.trigger("reordered", {"first": 0, "count": INVOICES}), ("twin_a", "twin_b")
    for twin in twins:
        rest.trigger(twin, run_id="same-run")
    stack.wait(rest, "reordered", [run])
    before = _keys(rest, run)
    first = _pays(rest, "reordered", [run])
    figures.failed_at_first += stack.failures("reordered", first)
    figures.cleared += len(first)
    rest.clear("reordered", run, [*UPSTREAM.values()], downstream=True)
    stack.wait(rest, "reordered", [run])
    after = _keys(rest, run)
    moved = sum(one != other for one, other in zip(before, after, strict=True))
    figures.remarks.append(
        "two DAGs with the same run id pay equal invoices: once per DAG, or once in total with the scope `ever`"
    )
    figures.remarks.append("without `payment_key`, items from another task are refused (`IntergiroValueError`)")
    figures.remarks.append(f"{moved} of {INVOICES} invoices had a different map index after the clear")
    instances = _pays(rest, "reordered", [run])
    figures.attempts, figures.failed_at_end = _attempts(instances), stack.failures("reordered", instances)
    tasks = _by_reference(rest, "reordered", instances)
    expected = {reference_of("reordered", key): 1 for key in after}
    for twin in twins:
        stack.wait(rest, twin, ["same-run"])
        figures.failed_at_first += stack.failures(twin, _pays(rest, twin, ["same-run"]))
        stack.clear_some(rest, figures, twin, _pays(rest, twin, ["same-run"]), draw)
        instances = _pays(rest, twin, ["same-run"])
        figures.attempts += _attempts(instances)
        figures.failed_at_end += stack.failures(twin, instances)
        for each in instances:
            group, number = f"twin {each['task_id'].removeprefix('by_')}", each["map_index"]
            reference = reference_of(group, number if group == "twin place" else f"invoice-{number}")
            tasks.setdefault(reference, []).append(each["state"])
            expected[reference] = 1 if group == "twin ever" else 2
    if figures.failed_at_end["OutcomeUnknown"]:
        figures.remarks.append(
            "`OutcomeUnknown` means here: the payment has no record, its first attempt was killed before Airflow "
            "stored its key, and the other DAG has made an equal payment"
        )
    return [stack.compare(figures, "mapped", {"reordered", *twins}, tasks, expected)]


def consents(stack: Stack) -> list[Figures]:
    """Give consent to each payment, on Airflow's page and on the bank's page."""
    rest, figures = stack.rest(), Figures("asks for a person's consent")
    run, given = rest.trigger("consents"), 0
    while rest.run("consents", run)["state"] not in ("success", "failed"):
        for each in _pays(rest, "consents", [run]):
            if each["state"] != "deferred":
                continue
            page = f"/intergiro/consents/consents/{quote(run, safe='')}/pay/{each['map_index']}"
            address = rest.request("POST", page, allow_redirects=False).headers.get("Location", "")
            if "/consents/" not in address or address.startswith(stack.airflow.url):
                continue
            stack.secrets.add(address.rpartition("/")[2])
            back = requests.post(f"{address}/approved", allow_redirects=False, timeout=60).headers.get("Location", "")
            if back.startswith(stack.airflow.url):
                rest.request("GET", back.removeprefix(stack.airflow.url))
                given += 1
        time.sleep(POLL)
    instances = _pays(rest, "consents", [run])
    figures.attempts, figures.failed_at_end = _attempts(instances), stack.failures("consents", instances)
    figures.remarks.append(f"{given} consents were given")
    tasks = {reference_of("consents", f"invoice-{each['map_index']}"): [each["state"]] for each in instances}
    return [stack.compare(figures, "consents", {"consents"}, tasks, dict.fromkeys(tasks, 1))]


def bulk_payment(stack: Stack, bulk: Bulk, count: int) -> list[Figures]:
    """Submit `count` items. After OutcomeUnknown, wait and clear the task, as its message says."""
    rest, figures = stack.rest(), Figures(bulk.title)
    lines = items(bulk, count)
    file = stack.home / "items" / f"{bulk.name}.jsonl"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
    run = rest.trigger(bulk.name)
    stack.wait(rest, bulk.name, [run])
    while (failed := stack.failures(bulk.name, _pays(rest, bulk.name, [run]))) and figures.cleared < bulk.clears:
        figures.failed_at_first += failed
        figures.cleared += 1
        time.sleep(bulk.visible_after)
        rest.clear(bulk.name, run, ["pay"])
        stack.wait(rest, bulk.name, [run])
    instances = _pays(rest, bulk.name, [run])
    figures.attempts, figures.failed_at_end = _attempts(instances), failed
    tasks = {line["reference"]: [each["state"] for each in instances] for line in lines}
    return [stack.compare(figures, bulk.name, {bulk.name}, tasks, dict.fromkeys(tasks, 1), "/v1/transactions")]


def _pays(rest: AirflowRest, dag_id: str, runs: Iterable[str]) -> list[dict[str, Any]]:
    """Return the task instances that pay."""
    found = [each for run in runs for each in rest.task_instances(dag_id, run)]
    return [each for each in found if each["map_index"] >= 0 or each["task_id"] == "pay"]


def _attempts(instances: Iterable[dict[str, Any]]) -> int:
    return sum(each["try_number"] for each in instances)


def _keys(rest: AirflowRest, run: str) -> list[str]:
    """Return the invoices of the reordered DAG in the order of their map indexes."""
    return [key for source in UPSTREAM.values() for key in rest.xcom("reordered", run, source)]


def _by_reference(rest: AirflowRest, dag_id: str, instances: Iterable[dict[str, Any]]) -> dict[str, list[str]]:
    """Return the states of task instances that are mapped over another task's result, by reference."""
    keys: dict[tuple[str, str], list[str]] = {}
    found: dict[str, list[str]] = {}
    for each in instances:
        place = run, task = each["dag_run_id"], each["task_id"]
        if task == "refused":
            continue
        if place not in keys:
            keys[place] = rest.xcom(dag_id, run, UPSTREAM[task])
        found.setdefault(reference_of(dag_id, keys[place][each["map_index"]]), []).append(each["state"])
    return found


def _fault(described: dict[str, Any]) -> str:
    """Return the description of a fault for the report."""
    params = described["params"]
    kind = {"lose_response": "response lost", "drop": "connection dropped"}.get(described["kind"], "")
    kind = kind or str(params.get("status"))
    done = described["kind"] == "lose_response" or params.get("handled")
    late = params.get("commit_after", 0.0)
    return f"{kind}, " + (f"carried out after {late:g} s" if late else "carried out" if done else "not carried out")


def print_progress(message: str) -> None:
    """Print a message with the time on stderr."""
    print(f"{time.strftime('%H:%M:%S')} {message}", file=sys.stderr, flush=True)
