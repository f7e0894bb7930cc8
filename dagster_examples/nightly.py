# SPDX-License-Identifier: Apache-2.0
"""Pull and check the transactions and accounts of the previous day every night; a backfill is one run."""

import dagster as dg

from dagster_intergiro import IntergiroPull, IntergiroResource, intergiro_assets


@intergiro_assets(
    specs=[
        IntergiroPull(endpoint="transactions", path="s3://lake/transactions", lookback_days=3),
        IntergiroPull(endpoint="accounts", path="s3://lake/accounts", file_format="parquet"),
    ],
    partitions_def=dg.DailyPartitionsDefinition(start_date="2026-01-01"),
    retry_policy=dg.RetryPolicy(max_retries=3, delay=60),
    group_name="bank",
    checks=True,
)
def nightly(context: dg.AssetExecutionContext, intergiro: IntergiroResource):
    yield from intergiro.run(context)


job = dg.define_asset_job("nightly_job", selection=[nightly])

defs = dg.Definitions(
    assets=[nightly],
    jobs=[job],
    schedules=[dg.build_schedule_from_partitioned_job(job, hour_of_day=3)],
    resources={"intergiro": IntergiroResource(api_key=dg.EnvVar("INTERGIRO_API_KEY"))},
)
