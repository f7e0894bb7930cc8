# SPDX-License-Identifier: Apache-2.0
"""Errors and warnings about the templated fields of operators and sensors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from intergiro_provider.exceptions import IntergiroValueError
from intergiro_provider.query import FILTERS, PAGING

_RUN_DATES = ("data_interval", "logical_date", "execution_date", "ds", "ts", "prev_", "next_")


class RenderedFields:
    """Mixin for operators and sensors: an undefined name in a template raises an error with a remedy."""

    # Airflow calls this method for mapped tasks, too, unlike `render_template_fields`.
    def _do_render_template_fields(
        self, parent: Any, template_fields: Iterable[str], *args: Any, **kwargs: Any
    ) -> None:
        from jinja2 import UndefinedError

        for field in template_fields:
            try:
                super()._do_render_template_fields(parent, (field,), *args, **kwargs)  # type: ignore[misc]
            except UndefinedError as error:
                raise IntergiroValueError(_undefined(field, str(error))) from error
        if parent is self:
            self._warn_of_params()

    def _warn_of_params(self) -> None:
        """Log a warning if the task's own `params`, which are never sent to the bank, hold a filter."""
        task: Any = self
        dag, query = task.get_dag(), task.query if isinstance(task.query, Mapping) else {}
        own = set(task.params) - set(dag.params if dag else ())
        if meant := sorted(own.intersection(FILTERS + PAGING).difference(query)):
            task.log.warning(
                "`params` of this task holds %s. These are Airflow's Params, which templates can read. They are not "
                "sent to the bank. To send them, use `query`.", ", ".join(f"`{name}`" for name in meant),
            )  # fmt: skip


def _undefined(field: str, problem: str) -> str:
    message = f"The template of `{field}` cannot be rendered: {problem}."
    if problem.lstrip("'\"").startswith(_RUN_DATES):
        return (
            f"{message} A run that was started by hand or by an asset may have no logical date and no data interval "
            "in Airflow 3. Start it with a logical date, or use `dag_run.data_interval_end or dag_run.run_after` in "
            "the template."
        )
    return f"{message} Check the name, and the `conf` and the Params of the run."
