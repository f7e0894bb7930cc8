# SPDX-License-Identifier: Apache-2.0
"""Pull a complete list."""

import dagster as dg

from dagster_intergiro import IntergiroPull, IntergiroResource, intergiro_assets


@intergiro_assets(specs=[IntergiroPull(endpoint="transactions", path="/var/lake/transactions")])
def bank(context: dg.AssetExecutionContext, intergiro: IntergiroResource):
    yield from intergiro.run(context)


defs = dg.Definitions([bank], resources={"intergiro": IntergiroResource(api_key=dg.EnvVar("INTERGIRO_API_KEY"))})
