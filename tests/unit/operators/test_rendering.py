# SPDX-License-Identifier: Apache-2.0
"""Templated fields of all operators: undefined names, native rendering, and Params, mapped or not."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DAG, Param

from intergiro_provider.exceptions import IntergiroValueError
from intergiro_provider.operators.intergiro import IntergiroOperator
from intergiro_provider.sensors.intergiro import IntergiroSensor
from intergiro_provider.transfers.intergiro_to_object_storage import IntergiroToObjectStorageOperator

NEEDED: dict[Any, dict[str, Any]] = {
    IntergiroOperator: {"endpoint": "transactions"},
    IntergiroToObjectStorageOperator: {"endpoint": "transactions", "path": "file:///x"},
    IntergiroSensor: {"endpoint": "transactions", "response_check": "checks.has_records"},
}
every_operator = pytest.mark.parametrize("operator", NEEDED)
PARAMS = {"statuses": "failed", "limit": 7, "created_from": "2020-01-01", "query": {"limit": 1}, "endpoint": "cards"}
QUERY = {"statuses": ["{{ params.wanted }}"], "limit": 50}


def dag(**arguments: Any) -> DAG:
    return DAG("dag", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC), **arguments)


def rendered(task: Any, **context: Any) -> Any:
    task.render_template_fields(context)
    return task


class TestParams:
    """Params of the DAG do not change the query, even if they have the name of a filter, an argument or a bound."""

    @every_operator
    @pytest.mark.parametrize("default_args", [{}, {"params": {"limit": 9}}, {"query": {"limit": 3}}])
    def test_are_not_sent(self, operator: Any, default_args: dict[str, Any]) -> None:
        with dag(params=PARAMS, default_args=default_args):
            bare = operator(task_id="bare", **NEEDED[operator])
            task = operator(task_id="task", query=QUERY, **NEEDED[operator])
        assert rendered(bare, params=PARAMS).query == default_args.get("query")
        assert rendered(task, params={"wanted": "pending"}).query == {"statuses": ["pending"], "limit": 50}
        assert task.endpoint == "transactions"
        assert getattr(task, "created_from", None) is None

    @every_operator
    @pytest.mark.parametrize("how", ["partial", "expand", "expand_kwargs"])
    def test_are_not_sent_by_mapped_tasks(self, operator: Any, how: str) -> None:
        with dag(params={**PARAMS, "required": Param(type="string")}):
            if how == "partial":
                mapped = operator.partial(task_id="t", query=QUERY, **NEEDED[operator]).expand(intergiro_conn_id=["a"])
                given = {"intergiro_conn_id": "a"}
            elif how == "expand":
                mapped = operator.partial(task_id="t", **NEEDED[operator]).expand(query=[QUERY])
                given = {"query": QUERY}
            else:
                mapped = operator.partial(task_id="t").expand_kwargs([{"query": QUERY, **NEEDED[operator]}])
                given = {"query": QUERY, **NEEDED[operator]}
        task = rendered(mapped.unmap(given), params={"wanted": "pending"})
        assert task.query == {"statuses": ["pending"], "limit": 50}

    @every_operator
    def test_the_dags_may_be_read_by_templates_without_a_warning(
        self, operator: Any, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
    ) -> None:
        with dag(params=PARAMS):
            rendered(operator(task_id="t", **NEEDED[operator]))
            rendered(operator(task_id="u", params={"limit": 5}, query={"limit": "{{ 5 }}"}, **NEEDED[operator]))
        assert "`params`" not in caplog.text + capfd.readouterr().out

    @every_operator
    def test_filters_among_a_tasks_own_params_are_pointed_out(
        self, operator: Any, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
    ) -> None:
        with dag(params={"limit": 7}):
            rendered(operator(task_id="t", params={"statuses": "failed", "other": 1}, **NEEDED[operator]))
        said = caplog.text + capfd.readouterr().out  # operators of Airflow 3 do not use the logging module
        assert "`params` of this task holds `statuses`. " in said
        assert "use `query`" in said

    @every_operator
    def test_the_name_data_is_unknown(self, operator: Any) -> None:
        with pytest.raises((TypeError, Exception), match=r"(?i)(invalid|unexpected).*argument"):
            operator(task_id="t", data={"limit": 5}, **NEEDED[operator])
        with pytest.raises(TypeError, match="unexpected"):
            operator.partial(task_id="t", data={"limit": 5}).expand_kwargs([NEEDED[operator]])


class TestUndefinedNames:
    @every_operator
    def test_of_the_interval(self, operator: Any) -> None:
        with dag():
            task = operator(task_id="t", query={"created_from": "{{ data_interval_start }}"}, **NEEDED[operator])
        with pytest.raises(IntergiroValueError) as caught:
            rendered(task, dag_run="x")
        assert str(caught.value).startswith("The template of `query` cannot be rendered: 'data_interval_start' is")
        assert "`dag_run.data_interval_end or dag_run.run_after`" in str(caught.value)

    def test_others(self) -> None:
        with dag(), pytest.raises(IntergiroValueError, match=r"`endpoint` .*'foo' is undefined. Check the name"):
            rendered(IntergiroOperator(task_id="t", endpoint="{{ foo }}"))

    def test_of_a_mapped_task(self) -> None:
        bounds = {"created_from": "{{ data_interval_start }}", "created_to": "{{ data_interval_end }}"}
        with dag():
            mapped = IntergiroToObjectStorageOperator.partial(task_id="t", endpoint="x", **bounds).expand(path=["/x"])
        task: Any = mapped.unmap({"path": "/x"})
        with pytest.raises(IntergiroValueError, match="The template of `created_from` cannot be rendered"):
            task._do_render_template_fields(task, mapped.template_fields, {}, task.get_template_env(), set())


@every_operator
def test_native_rendering(operator: Any) -> None:
    query = {"account_ids": "{{ ids }}", "limit": "{{ limit }}", "flag": "{{ flag }}"}
    with dag(render_template_as_native_obj=True):
        task = operator(task_id="t", query=query, **NEEDED[operator])
    task = rendered(task, ids=["a", "b"], limit="5", flag=True)
    assert task.query == {"account_ids": ["a", "b"], "limit": 5, "flag": True}
