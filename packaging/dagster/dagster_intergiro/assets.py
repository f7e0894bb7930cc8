# SPDX-License-Identifier: Apache-2.0
"""Assets of lists: the decorator, the specs, and the translator from lists to assets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from dagster import (
    AssetKey,
    AssetsDefinition,
    AssetSpec,
    BackfillPolicy,
    MultiPartitionsDefinition,
    PartitionsDefinition,
    TimeWindowPartitionsDefinition,
    multi_asset,
)

from dagster_intergiro.checks import check_specs
from dagster_intergiro.pulls import PARTITION, IntergiroPull
from dagster_intergiro.running import PULL
from intergiro_provider.exceptions import IntergiroValueError


class DagsterIntergiroTranslator:
    """How a list of the bank becomes an asset. Subclass it and replace attributes of the spec."""

    def get_asset_spec(self, pull: IntergiroPull) -> AssetSpec:
        """Return the asset of a pull: ``intergiro/transactions`` of ``transactions``.

        .. code-block:: python

            class MyTranslator(DagsterIntergiroTranslator):
                def get_asset_spec(self, pull):
                    return super().get_asset_spec(pull).replace_attributes(group_name="bank", owners=["team:data"])

        """
        return AssetSpec(
            key=AssetKey(["intergiro", pull.short_name]),
            description=f"The list `{pull.endpoint}` of the Intergiro API, as files in `{pull.path}`.",
            kinds={"intergiro", pull.file_format},
        )


def build_intergiro_asset_specs(
    pulls: Sequence[IntergiroPull], translator: DagsterIntergiroTranslator | None = None
) -> list[AssetSpec]:
    """Return the asset specs of pulls.

    :raises IntergiroValueError: two have the same key or the same directory.
    """
    translator = translator or DagsterIntergiroTranslator()
    specs = [translator.get_asset_spec(pull).merge_attributes(metadata={PULL: pull}) for pull in pulls]
    keys, paths = [spec.key.to_user_string() for spec in specs], [pull.path for pull in pulls]
    for what, values in (("asset key", keys), ("`path`", paths)):
        if twice := [value for value in values if values.count(value) > 1]:
            raise IntergiroValueError(
                f"Two pulls have the same {what}, {twice[0]}. Give each its own `name` and `path`."
            )
    return specs


def intergiro_assets(
    *,
    specs: Sequence[IntergiroPull | AssetSpec],
    partitions_def: PartitionsDefinition[Any] | None = None,
    backfill_policy: BackfillPolicy | None = None,
    translator: DagsterIntergiroTranslator | None = None,
    checks: bool = False,
    **arguments: Any,
) -> Callable[[Callable[..., Any]], AssetsDefinition]:
    """Create assets from lists. The function runs :meth:`.IntergiroResource.run`.

    .. code-block:: python

        @intergiro_assets(specs=[IntergiroPull(endpoint="transactions", path="s3://lake/transactions")])
        def bank(context: AssetExecutionContext, intergiro: IntergiroResource):
            yield from intergiro.run(context)

    :param specs: the lists, or the result of :func:`build_intergiro_asset_specs`.
    :param partitions_def: a time-window partition holds the records that were created in its window.
    :param backfill_policy: None: one run pulls a whole range of partitions.
    :param translator: creates the specs of the lists.
    :param checks: whether to read each result back and check it: hashes, unique ids, times.
    :param arguments: further arguments of ``multi_asset``: ``name``, ``group_name``, ``retry_policy``, ``pool``, …
    """
    pulls = [spec for spec in specs if isinstance(spec, IntergiroPull)]
    made = [spec for spec in specs if isinstance(spec, AssetSpec)]
    for pull in pulls if partitions_def is not None else ():
        _check_partitions(pull, partitions_def)
    built = [*build_intergiro_asset_specs(pulls, translator), *made]
    return multi_asset(
        specs=built,
        partitions_def=partitions_def,
        backfill_policy=backfill_policy or (BackfillPolicy.single_run() if partitions_def is not None else None),
        check_specs=[check for spec in built for check in check_specs(spec.key)] if checks else None,
        can_subset=True,
        **arguments,
    )


def _check_partitions(pull: IntergiroPull, definition: PartitionsDefinition[Any] | None) -> None:
    """Refuse partitions that would each hold the whole list, and bounds in addition to those of a partition."""
    if isinstance(definition, MultiPartitionsDefinition):
        raise IntergiroValueError(
            f"`partitions_def` of the pull of {pull.endpoint!r} has several dimensions; only time windows, or "
            "partitions of one dimension that fill `{partition}`, can be pulled."
        )
    if isinstance(definition, TimeWindowPartitionsDefinition):
        if pull.created_from is not None:
            raise IntergiroValueError(
                f"`created_from` of the pull of {pull.endpoint!r} is given, and `partitions_def`, whose partitions "
                "have their own bounds. Leave one of them out."
            )
    elif PARTITION not in f"{pull.endpoint} {list(pull.query.values())}":
        raise IntergiroValueError(
            f"`partitions_def` of the pull of {pull.endpoint!r} has no time windows, so each partition would hold the "
            "same list. Put {partition} into `endpoint` or into a value of `query`."
        )
