# SPDX-License-Identifier: Apache-2.0
"""Eight assets that pull the same list, each in its own process."""

import os

import dagster as dg

from dagster_intergiro import IntergiroPull, IntergiroResource, intergiro_assets

STEPS = int(os.environ.get("STEPS", "8"))


def make(number: int) -> dg.AssetsDefinition:
    pull = IntergiroPull(
        endpoint="transactions",
        path=f"{os.environ['TARGET']}/{number}",
        name=f"list_{number}",
        query={"limit": 10},
    )

    @intergiro_assets(specs=[pull], name=f"pull_{number}")
    def pulled(context: dg.AssetExecutionContext, intergiro: IntergiroResource):
        yield from intergiro.run(context)

    return pulled


defs = dg.Definitions(
    assets=[make(number) for number in range(STEPS)],
    executor=dg.multiprocess_executor.configured(
        {"max_concurrent": STEPS, "start_method": {"forkserver": {"preload_modules": ["dagster_intergiro"]}}}
    ),
    resources={
        "intergiro": IntergiroResource(
            api_key=dg.EnvVar("INTERGIRO_API_KEY"), host=os.environ["BANK"], max_logins_per_hour=3
        )
    },
)
