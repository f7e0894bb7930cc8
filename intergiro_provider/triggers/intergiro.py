# SPDX-License-Identifier: Apache-2.0
"""What waits for Intergiro in the triggerer. Only GET requests are made here."""

from __future__ import annotations

import asyncio
import functools
import hashlib
import json
from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING, Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from intergiro_provider.exceptions import IntergiroError, IntergiroValueError
from intergiro_provider.pull.query import newest_query
from intergiro_provider.query import whole_query
from intergiro_provider.triggers.events import SUCCESS, check_failed_event, error_event, is_final
from intergiro_provider.triggers.polling import ask, in_thread, pause

if TYPE_CHECKING:
    from intergiro_provider.pull.news import Position

try:
    from airflow.triggers.base import BaseEventTrigger as _EventTrigger
except ImportError:  # Airflow 2
    _EventTrigger = BaseTrigger  # type: ignore[assignment, misc]

SHORTEST_INTERVAL = 1.0
"""Seconds between polls at least, whatever was asked for."""


class IntergiroSensorTrigger(BaseTrigger):
    """Wait until a check says yes to the answer of an endpoint; the part of the IntergiroSensor that is deferred.

    Its only event is that the wait has ended, or the error that ends it. Passing errors end nothing: it asks again,
    after pauses that grow to five minutes, or that the bank asks for.

    :param endpoint: what to GET.
    :param response_check: import path of the check; it is called with the response.
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
        """Return how to make it again."""
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
                    # Airflow's own errors too: "no such connection" may be a database that is away for a moment.
                    event, errors = None, errors + 1
                    seconds = pause(errors, error)
                    self.log.warning("Asking again in %.0f s, after error %d in a row: %s", seconds, errors, error)
            else:
                seconds = max(self.poke_interval, SHORTEST_INTERVAL)
            if event is not None:
                yield TriggerEvent(event)  # type: ignore[no-untyped-call]
                return
            await asyncio.sleep(seconds)

    def _poll(self) -> dict[str, Any] | None:
        """Ask once; the event that ends the wait, or None."""
        from intergiro_provider.hooks.callables import call, imported

        check = imported(self.response_check)
        response = ask(self.intergiro_conn_id, self.endpoint, self.query)
        try:
            return SUCCESS if call("response_check", check, response, {}) else None
        except Exception as error:
            self.log.error("response_check failed.", exc_info=error)
            shown = error.__cause__ if isinstance(error, IntergiroError) and error.shows_cause else None
            return check_failed_event(shown or error, self.response_check)


class IntergiroEventTrigger(_EventTrigger):
    """Start DAGs when a list has new records: the trigger of an AssetWatcher. Airflow 3.

    .. code-block:: python

        new_transactions = Asset(
            "intergiro_new_transactions",
            watchers=[AssetWatcher(name="poll", trigger=IntergiroEventTrigger(endpoint="transactions"))],
        )

    A poll is one request for the 100 newest records. What is new in it makes one event, whose payload is ``{endpoint,
    ids, more, created_from, created_to}``: the new records' ids, the oldest first; whether there are more new ones than
    these; and the interval in which all of them were created (``created_from ≤ created_at < created_to``), which
    IntergiroToObjectStorageOperator takes. A record counts as new when the list did not have it before among its
    newest; with a filter such as ``statuses`` that may also be an older record which has come to satisfy it.

    From Airflow 3.3 on, what was seen is kept in the asset's state store: a restart, however long, loses nothing, and
    repeats at most the event of one poll. Before that, or if one trigger watches several assets, it begins anew at each
    start, with what there is then.

    It never ends. After errors it asks again, after growing pauses; errors that trying again does not mend, such as a
    wrong key, are logged as errors and asked about again after half an hour.

    :param endpoint: the list, such as ``transactions``.
    :param query: its filters, a dict.
    :param poll_interval: seconds between two polls, at least 1.
    :param intergiro_conn_id: the connection.
    """

    FINAL_PAUSE = 1800.0
    """Seconds between polls while somebody has to mend something."""
    HAND_OVER = 5.0
    """Seconds after which Airflow has stored an event, which it does about once a second: until then it could get lost,
    so what it tells about does not count as seen."""

    def __init__(
        self,
        endpoint: str,
        query: Mapping[str, Any] | None = None,
        poll_interval: float = 60.0,
        intergiro_conn_id: str = "intergiro_default",
    ) -> None:
        if _EventTrigger is BaseTrigger:
            raise IntergiroValueError("IntergiroEventTrigger needs Airflow 3: Airflow 2 has no event-driven DAGs")
        super().__init__()  # type: ignore[no-untyped-call]
        if isinstance(poll_interval, bool) or not isinstance(poll_interval, (int, float)) or poll_interval < 1:
            raise IntergiroValueError(
                f"`poll_interval` has to be a number of seconds, 1 or more, not {poll_interval!r}"
            )
        self.endpoint = endpoint
        try:  # as Airflow stores them: it tells triggers apart by this
            self.query = json.loads(json.dumps(dict(query or {})))
        except (TypeError, ValueError):
            raise IntergiroValueError("`query` has to be JSON: text, numbers, booleans, lists of them") from None
        self._newest()
        self.poll_interval = poll_interval
        self.intergiro_conn_id = intergiro_conn_id
        self._homeless = False

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return how to make it again; equal for equal triggers."""
        return f"{__name__}.{type(self).__name__}", {
            "endpoint": self.endpoint,
            "query": self.query,
            "poll_interval": self.poll_interval,
            "intergiro_conn_id": self.intergiro_conn_id,
        }

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Poll for ever, and yield an event for each poll that finds something new."""
        seen, kept, begun, errors = None, None, False, 0
        while True:
            seconds = float(self.poll_interval)
            try:
                if not begun:
                    seen = kept = await self._in_store("get")
                    begun = True
                position, news = await in_thread(self.intergiro_conn_id, functools.partial(self._poll, seen))
                if news is not None:
                    yield TriggerEvent({"endpoint": self.endpoint.partition("?")[0], **news})  # type: ignore[no-untyped-call]
                    await asyncio.sleep(self.HAND_OVER)
                seen = position
                if seen != kept:
                    await self._in_store("set", seen)
                    kept = seen
                errors = 0
            except Exception as error:
                errors += 1
                seconds = self._pause(errors, error)
            await asyncio.sleep(seconds)

    def _poll(self, seen: Position | None) -> tuple[Position, dict[str, Any] | None]:
        from intergiro_provider.pull.news import compare, is_position
        from intergiro_provider.pull.pages import Page, iter_pages, read_page

        if seen is not None and not is_position(seen):
            self.log.warning("What the asset's state store holds under %s is no position: starting anew.", self._key())
            seen = None
        path, newest = self._newest()

        def get_page(query: Mapping[str, Any]) -> Page:
            return read_page(ask(self.intergiro_conn_id, path, query).content)

        return compare(next(iter_pages(get_page, newest)), seen)

    def _newest(self) -> tuple[str, dict[str, Any]]:
        path, query = whole_query(self.endpoint, self.query)
        return path, newest_query(query)

    def _pause(self, errors: int, error: Exception) -> float:
        if is_final(error):
            self.log.error("%s No DAG is started until this is mended.", error)
            return self.FINAL_PAUSE
        seconds = pause(errors, error)
        self.log.warning(
            "Asking again in %.0f s, after error %d in a row: %s", seconds, errors, error,
            exc_info=None if isinstance(error, IntergiroError) else error,
        )  # fmt: skip
        return seconds

    async def _in_store(self, method: str, *value: Any) -> Any:
        """Read or write the position, where Airflow has a place for it: the state store of the asset that is watched.

        :param method: ``get``, or ``set``, with a value.
        """
        store = getattr(self, "asset_state_store", None)
        if store is None or self._homeless:
            return None
        try:  # in a thread: `aget` and `aset` came with 3.3.2 only
            return await asyncio.to_thread(getattr(store, method), self._key(), *value)
        except ValueError:
            self._homeless = True
            self.log.warning(
                "The trigger on %s watches several assets, and so has no place for its position: after a restart it "
                "will start from what there is then. Let the triggers of these assets differ, in `poll_interval` say.",
                self.endpoint.partition("?")[0],
            )
            return None

    def _key(self) -> str:
        """Under which the position is kept: its own for each list and filter."""
        polled = json.dumps([self.intergiro_conn_id, self.endpoint, self.query], sort_keys=True)
        return f"intergiro-{hashlib.sha256(polled.encode()).hexdigest()[:16]}"
