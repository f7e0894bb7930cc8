# SPDX-License-Identifier: Apache-2.0
"""Wait for something at Intergiro.

A light module: it is imported at every parse of every DAG file that uses it, so what makes requests is
imported when the task runs, and errors where they are raised.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowFailException, BaseSensorOperator, conf

from intergiro_provider.links.intergiro import IntergiroPortalLink
from intergiro_provider.operators.rendering import RenderedFields
from intergiro_provider.query import is_pending, whole_query
from intergiro_provider.tracebacks import message_only

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context


class IntergiroSensor(RenderedFields, BaseSensorOperator):
    """GET an endpoint again and again, until a check says yes to what it answers.

    To wait for a record, let the query describe it, and the ready check see whether there is one:

    .. code-block:: python

        IntergiroSensor(
            task_id="salaries_booked",
            endpoint="transactions",
            query={"statuses": "completed", "correlation_ids": "{{ params.batch }}"},
            response_check="intergiro_provider.sensors.checks.has_records",
            deferrable=True,
        )

    While the bank is not available, says 429 or has a fault (every error that is not final), the sensor waits on, until
    its ``timeout``. A final error ends it at once, as a failure, or as skipped with ``soft_fail``; a 404 is final too,
    for ids are the bank's, and what has one is there.

    Deferred, it takes no worker slot: the triggerer polls, every ``poke_interval``, and after errors with growing
    pauses or when the bank says; ``exponential_backoff`` has no part in that.

    :param endpoint: what to GET, such as ``transactions``; the API's version is put before it. (templated)
    :param response_check: called with the response; it says whether the wait is over. Either a function, which is also
        given those names of Airflow's context that it asks for, as the HttpSensor does; or the import path of one, as
        ``deferrable`` needs: the triggerer imports it, which has neither the DAG nor its context.
    :param query: the query string, a dict. (templated)
    :param deferrable: wait in the triggerer. Unset: as ``[operators] default_deferrable`` says, if ``response_check``
        is an import path.
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
            from intergiro_provider.exceptions import IntergiroValueError

            raise IntergiroValueError(problem)
        if deferrable is None:
            by_default = conf.getboolean("operators", "default_deferrable", fallback=False)
            deferrable = by_default and isinstance(response_check, str)
        self.deferrable = deferrable

    @message_only
    def poke(self, context: Context) -> bool:
        """Ask once; not met and deferrable: go on in the triggerer."""
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
        from intergiro_provider.exceptions import IntergiroError
        from intergiro_provider.hooks.callables import call, imported
        from intergiro_provider.hooks.intergiro import IntergiroHook

        check = imported(self.response_check) if isinstance(self.response_check, str) else self.response_check
        try:
            hook = IntergiroHook(intergiro_conn_id=self.intergiro_conn_id)
            response = hook.run(self.endpoint, params=self.query)
        except AirflowFailException:
            raise
        except IntergiroError as error:
            self.log.warning("%s The sensor waits on.", error)
            return False
        # Where the triggerer may have to call it, a check that asks for more than it gets there shall fail at once.
        return bool(call("response_check", check, response, {} if self.deferrable else context))

    @message_only
    def execute_complete(self, context: Context, event: dict[str, Any] | None = None) -> None:
        """End as the trigger says.

        :raises IntergiroError: the error that the trigger ended with.
        """
        from intergiro_provider.triggers.events import read_event

        read_event(event)
        self.log.info("Success criteria met. Exiting.")


def _problem(response_check: Any, deferrable: bool | None) -> str:
    """Why there cannot be a sensor with these arguments; empty if there can."""
    if isinstance(response_check, str):
        if "." in response_check and response_check.replace(".", "_").isidentifier():
            return ""
        return (
            f"`response_check` is {response_check!r}, which is no import path such as my_checks.is_booked "
            "(module, dot, function)"
        )
    if not callable(response_check):
        return "`response_check` has to be a function, or the import path of one"
    if deferrable:
        return (
            "`response_check` is a function, which the triggerer cannot be given: with `deferrable`, it has to be "
            'the import path of one that the triggerer can import, such as "my_checks.is_booked"'
        )
    return ""
