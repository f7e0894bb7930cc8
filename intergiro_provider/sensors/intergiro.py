# SPDX-License-Identifier: Apache-2.0
"""Wait for a record or a status at the bank.

Each parse of a DAG file that uses this module imports it. So it imports at once only what a parse needs. What sends
requests is imported when the task runs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowFailException, BaseSensorOperator, conf

from intergiro_provider.exceptions import IntergiroError, IntergiroValueError
from intergiro_provider.links.intergiro import IntergiroPortalLink
from intergiro_provider.operators.rendering import RenderedFields
from intergiro_provider.query import is_pending, whole_query
from intergiro_provider.tracebacks import message_only

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context


class IntergiroSensor(RenderedFields, BaseSensorOperator):
    """Request an endpoint again and again, until a check returns True for the response.

    To wait for a record, describe it in ``query``, and use the ready-made check ``has_records``:

    .. code-block:: python

        IntergiroSensor(
            task_id="salaries_booked",
            endpoint="transactions",
            query={"statuses": "completed", "correlation_ids": "{{ params.batch }}"},
            response_check="intergiro_provider.sensors.checks.has_records",
            deferrable=True,
        )

    After a transient error, such as 429, 503 or no response, the sensor continues to wait, until its ``timeout``. After
    a final error the task fails at once, or is skipped with ``soft_fail=True``. A 404 is final, too: the bank creates
    the ids, so an id that it does not know is wrong.

    A deferred sensor uses no worker slot. The triggerer polls every ``poke_interval``. After an error it polls with
    growing delays, or when the bank allows it. ``exponential_backoff`` has no effect on that.

    :param endpoint: the endpoint to request, such as ``transactions``; the provider adds the API's version. (templated)
    :param response_check: called with the response; returns True when the wait is over. A function, which can also take
        names of Airflow's context, as in HttpSensor, or the import path of a function. ``deferrable`` needs an import
        path: the triggerer imports the function, and has neither the DAG nor its context.
    :param query: the query string, a dict. (templated)
    :param deferrable: wait in the triggerer. None: as ``[operators] default_deferrable`` says, if ``response_check`` is
        an import path.
    :param intergiro_conn_id: the connection. (templated)
    """

    template_fields: Sequence[str] = ("endpoint", "query", "intergiro_conn_id")
    template_fields_renderers = {"query": "json"}  # noqa: RUF012 - Airflow's form
    ui_color = "#fbf0d9"
    operator_extra_links = (IntergiroPortalLink(),)

    def __init__(
        self,
        *,
        endpoint: str,
        response_check: Callable[..., bool] | str,
        query: Mapping[str, Any] | None = None,
        deferrable: bool | None = None,
        intergiro_conn_id: str = "intergiro_default",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.endpoint = endpoint
        self.response_check = response_check
        self.query = query
        self.intergiro_conn_id = intergiro_conn_id
        whole_query(endpoint, None if is_pending(query) else query)
        if problem := _problem(response_check, deferrable):
            raise IntergiroValueError(problem)
        if deferrable is None:
            by_default = conf.getboolean("operators", "default_deferrable", fallback=False)
            deferrable = by_default and isinstance(response_check, str)
        self.deferrable = deferrable

    @message_only
    def poke(self, context: Context) -> bool:
        """Poll once. If the wait is not over and the sensor is deferrable, defer."""
        if self._is_met(context):
            return True
        if self.deferrable:
            from intergiro_provider.triggers.intergiro import IntergiroSensorTrigger

            self.defer(
                trigger=IntergiroSensorTrigger(
                    endpoint=self.endpoint,
                    response_check=str(self.response_check),
                    query=self.query,
                    poke_interval=self.poke_interval,
                    intergiro_conn_id=self.intergiro_conn_id,
                ),
                method_name=self.execute_complete.__name__,
                timeout=timedelta(seconds=self.timeout),
            )
        return False

    def _is_met(self, context: Context) -> bool:
        from intergiro_provider.hooks.callables import call, imported
        from intergiro_provider.hooks.intergiro import IntergiroHook

        check = imported(self.response_check) if isinstance(self.response_check, str) else self.response_check
        try:
            hook = IntergiroHook(intergiro_conn_id=self.intergiro_conn_id)
            response = hook.run(self.endpoint, params=self.query)
        except AirflowFailException:
            raise
        except IntergiroError as error:
            self.log.warning("%s The sensor continues to wait.", error)
            return False
        # A check that the triggerer may call gets no context here either, so that it fails at once if it needs one.
        return bool(call("response_check", check, response, {} if self.deferrable else context))

    @message_only
    def execute_complete(self, context: Context, event: dict[str, Any] | None = None) -> None:
        """End with the event of the trigger.

        :raises IntergiroError: the error with which the trigger ended.
        """
        from intergiro_provider.triggers.events import read_event

        read_event(event)
        self.log.info("Success criteria met. Exiting.")


def _problem(response_check: Any, deferrable: bool | None) -> str:
    """Return why these arguments cannot work; an empty text if they can."""
    if isinstance(response_check, str):
        if "." in response_check and response_check.replace(".", "_").isidentifier():
            return ""
        return (
            f"`response_check` is {response_check!r}, which is no import path such as my_checks.is_booked (module, "
            "dot, function)."
        )
    if not callable(response_check):
        return "`response_check` must be a function, or the import path of one."
    if deferrable:
        return (
            "`response_check` is a function, which cannot be sent to the triggerer. With `deferrable`, give the import "
            'path of a function that the triggerer can import, such as "my_checks.is_booked".'
        )
    return ""
