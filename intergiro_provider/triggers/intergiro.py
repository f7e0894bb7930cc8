# SPDX-License-Identifier: Apache-2.0
"""Triggers that wait for the bank. They send only GET requests."""

from __future__ import annotations

import asyncio
import functools
import hashlib
import json
from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING, Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from intergiro_provider.exceptions import IntergiroError, IntergiroValueError
from intergiro_provider.pull.arguments import newest_query
from intergiro_provider.query import whole_query
from intergiro_provider.triggers.events import SUCCESS, check_failed_event, error_event, is_final
from intergiro_provider.triggers.polling import delay_after, get, in_thread

if TYPE_CHECKING:
    from intergiro_provider.pull.new_records import Position

try:
    from airflow.triggers.base import BaseEventTrigger as _EventTrigger
except ImportError:  # Airflow 2
    _EventTrigger = BaseTrigger  # type: ignore[assignment, misc]

SHORTEST_INTERVAL = 1.0
"""The shortest time between two polls, in seconds."""


class IntergiroSensorTrigger(BaseTrigger):
    """Wait until a check returns True for the response of an endpoint. A deferred IntergiroSensor uses this trigger.

    It sends one event, when the wait is over or a final error occurs. After a transient error it polls again, with
    delays that grow to five minutes, or that the bank asks for.

    :param endpoint: the endpoint to poll.
    :param response_check: the import path of the check, which is called with the response.
    :param query: the query string, a dict.
    :param poke_interval: seconds between two polls.
    :param intergiro_conn_id: the connection.
    """

    def __init__(
        self,
        endpoint: str,
        response_check: str,
        query: Mapping[str, Any] | None = None,
        poke_interval: float = 60.0,
        intergiro_conn_id: str = "intergiro_default",
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.endpoint = endpoint
        self.response_check = response_check
        self.query = query
        self.poke_interval = poke_interval
        self.intergiro_conn_id = intergiro_conn_id

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class and the arguments, from which the triggerer creates this trigger."""
        return f"{__name__}.{type(self).__name__}", {
            "endpoint": self.endpoint,
            "response_check": self.response_check,
            "query": self.query,
            "poke_interval": self.poke_interval,
            "intergiro_conn_id": self.intergiro_conn_id,
        }

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Poll, and yield one event."""
        errors = 0
        while True:
            try:
                event, errors = await in_thread(self.intergiro_conn_id, self._poll), 0
            except Exception as error:
                if is_final(error):
                    event = error_event(error)
                else:
                    # Airflow's own errors, too: a database that is briefly unavailable looks like a missing connection.
                    event, errors = None, errors + 1
                    seconds = delay_after(errors, error)
                    self.log.warning("Polling again in %.0f s, after error %d in a row: %s", seconds, errors, error)
            else:
                seconds = max(self.poke_interval, SHORTEST_INTERVAL)
            if event is not None:
                yield TriggerEvent(event)  # type: ignore[no-untyped-call]
                return
            await asyncio.sleep(seconds)

    def _poll(self) -> dict[str, Any] | None:
        """Poll once. Return the event that ends the wait, or None."""
        from intergiro_provider.hooks.callables import call, imported

        check = imported(self.response_check)
        response = get(self.intergiro_conn_id, self.endpoint, self.query)
        try:
            return SUCCESS if call("response_check", check, response, {}) else None
        except Exception as error:
            self.log.error("`response_check` raised an exception.", exc_info=error)
            shown = error.__cause__ if isinstance(error, IntergiroError) and error.shows_cause else None
            return check_failed_event(shown or error, self.response_check)


class IntergiroEventTrigger(_EventTrigger):
    """Start DAGs when a list has new records: a trigger for an AssetWatcher of Airflow 3.

    .. code-block:: python

        new_transactions = Asset(
            "intergiro_new_transactions",
            watchers=[AssetWatcher(name="poll", trigger=IntergiroEventTrigger(endpoint="transactions"))],
        )

    Each poll is one request for the 100 newest records. The new ones among them make one event with the payload
    ``{endpoint, ids, more, created_from, created_to}``:

    * ``ids``: the ids of the new records, the oldest first
    * ``more``: whether there are more new records than these
    * ``created_from``, ``created_to``: the interval of all new records (``created_from ≤ created_at < created_to``),
      for IntergiroToObjectStorageOperator

    A record is new if the page did not hold it before. With a filter such as ``statuses``, an older record is new when
    it first matches.

    Since Airflow 3.3, the position is stored in the state of the asset. After a restart, the trigger finds all records
    since its last poll, and repeats at most one event. In older versions, or if one trigger watches several assets, it
    starts at each restart with the records that are there then.

    The trigger never ends. After an error it polls again, with growing delays. After a final error, such as a wrong
    key, it logs an error and polls again after half an hour.

    :param endpoint: the list, such as ``transactions``.
    :param query: filters, a dict.
    :param poll_interval: seconds between two polls, at least 1.
    :param intergiro_conn_id: the connection.
    """

    FINAL_ERROR_DELAY = 1800.0
    """Seconds between two polls while a person has to fix something."""
    EVENT_DELAY = 5.0
    """Seconds until Airflow has certainly stored an event; it stores events about once a second. An event can be lost
    before that, so its records do not count as seen yet."""

    def __init__(
        self,
        endpoint: str,
        query: Mapping[str, Any] | None = None,
        poll_interval: float = 60.0,
        intergiro_conn_id: str = "intergiro_default",
    ) -> None:
        if _EventTrigger is BaseTrigger:
            raise IntergiroValueError("IntergiroEventTrigger needs Airflow 3. Airflow 2 has no event-driven DAGs.")
        super().__init__()  # type: ignore[no-untyped-call]
        if isinstance(poll_interval, bool) or not isinstance(poll_interval, (int, float)) or poll_interval < 1:
            raise IntergiroValueError(f"`poll_interval` must be a number of seconds, 1 or more, not {poll_interval!r}.")
        self.endpoint = endpoint
        try:  # as Airflow stores it, because Airflow compares triggers by it
            self.query = json.loads(json.dumps(dict(query or {})))
        except (TypeError, ValueError):
            raise IntergiroValueError("`query` must be JSON: text, numbers, booleans, or lists of them.") from None
        self._newest()
        self.poll_interval = poll_interval
        self.intergiro_conn_id = intergiro_conn_id
        self._has_no_store = False

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class and the arguments. Airflow takes triggers with the same ones for one trigger."""
        return f"{__name__}.{type(self).__name__}", {
            "endpoint": self.endpoint,
            "query": self.query,
            "poll_interval": self.poll_interval,
            "intergiro_conn_id": self.intergiro_conn_id,
        }

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Poll without end, and yield an event for each poll that finds new records."""
        seen, stored, has_read, errors = None, None, False, 0
        while True:
            seconds = float(self.poll_interval)
            try:
                if not has_read:
                    seen = stored = await self._access_store("get")
                    has_read = True
                position, new = await in_thread(self.intergiro_conn_id, functools.partial(self._poll, seen))
                if new is not None:
                    payload = {"endpoint": self.endpoint.partition("?")[0], **new}
                    yield TriggerEvent(payload)  # type: ignore[no-untyped-call]
                    await asyncio.sleep(self.EVENT_DELAY)
                seen = position
                if seen != stored:
                    await self._access_store("set", seen)
                    stored = seen
                errors = 0
            except Exception as error:
                errors += 1
                seconds = self._delay_after(errors, error)
            await asyncio.sleep(seconds)

    def _poll(self, seen: Position | None) -> tuple[Position, dict[str, Any] | None]:
        from intergiro_provider.pull.new_records import find_new_records, is_position
        from intergiro_provider.pull.pages import Page, iter_pages, read_page

        if seen is not None and not is_position(seen):
            self.log.warning(
                "The asset's state holds no valid position under %s. Records before this poll create no event.",
                self._key(),
            )
            seen = None
        path, newest = self._newest()

        def get_page(query: Mapping[str, Any]) -> Page:
            return read_page(get(self.intergiro_conn_id, path, query).content)

        return find_new_records(next(iter_pages(get_page, newest)), seen)

    def _newest(self) -> tuple[str, dict[str, Any]]:
        path, query = whole_query(self.endpoint, self.query)
        return path, newest_query(query)

    def _delay_after(self, errors: int, error: Exception) -> float:
        if is_final(error):
            self.log.error("%s Until you fix this, the trigger starts no DAG.", error)
            return self.FINAL_ERROR_DELAY
        seconds = delay_after(errors, error)
        self.log.warning(
            "Polling again in %.0f s, after error %d in a row: %s", seconds, errors, error,
            exc_info=None if isinstance(error, IntergiroError) else error,
        )  # fmt: skip
        return seconds

    async def _access_store(self, method: str, *value: Any) -> Any:
        """Read or write the position in the state of the asset, if Airflow stores one.

        :param method: ``get``, or ``set`` with a value.
        """
        store = getattr(self, "asset_state_store", None)
        if store is None or self._has_no_store:
            return None
        try:  # in a thread, because `aget` and `aset` exist only since 3.3.2
            return await asyncio.to_thread(getattr(store, method), self._key(), *value)
        except ValueError:
            self._has_no_store = True
            self.log.warning(
                "The trigger on %s watches several assets, so Airflow cannot store its position. Records that arrive "
                "during a restart create no event. Give each asset its own trigger, for example with another "
                "`poll_interval`.",
                self.endpoint.partition("?")[0],
            )
            return None

    def _key(self) -> str:
        """Return the key of the position, which depends on the connection, the list and its filters."""
        polled = json.dumps([self.intergiro_conn_id, self.endpoint, self.query], sort_keys=True)
        return f"intergiro-{hashlib.sha256(polled.encode()).hexdigest()[:16]}"
