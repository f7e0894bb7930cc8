# SPDX-License-Identifier: Apache-2.0
"""Two lists with checks, for the picture in the documentation."""

import os

import dagster as dg

from dagster_intergiro import IntergiroPull, IntergiroResource, intergiro_assets

LAKE = os.environ["LAKE"]


@intergiro_assets(
    specs=[
        IntergiroPull(endpoint="transactions", path=f"{LAKE}/transactions"),
        IntergiroPull(endpoint="accounts", path=f"{LAKE}/accounts"),
    ],
    group_name="bank",
    checks=True,
)
def bank(context: dg.AssetExecutionContext, intergiro: IntergiroResource):
    yield from intergiro.run(context)


defs = dg.Definitions(
    assets=[bank],
    resources={"intergiro": IntergiroResource(api_key=dg.EnvVar("INTERGIRO_API_KEY"), host=os.environ["BANK"])},
    executor=dg.in_process_executor,
)
