# SPDX-License-Identifier: Apache-2.0
"""Dagster assets from the Intergiro banking APIs."""

from __future__ import annotations

from dagster_shared.libraries import DagsterLibraryRegistry

from dagster_intergiro.assets import DagsterIntergiroTranslator, build_intergiro_asset_specs, intergiro_assets
from dagster_intergiro.component import IntergiroComponent
from dagster_intergiro.errors import dagster_errors
from dagster_intergiro.loading import load_into_duckdb, load_into_postgres
from dagster_intergiro.pulls import IntergiroPull
from dagster_intergiro.resource import IntergiroResource
from dagster_intergiro.sensor import build_intergiro_sensor
from dagster_intergiro.words import in_dagsters_words
from intergiro_provider import exceptions

__all__ = [
    "DagsterIntergiroTranslator",
    "IntergiroComponent",
    "IntergiroPull",
    "IntergiroResource",
    "build_intergiro_asset_specs",
    "build_intergiro_sensor",
    "dagster_errors",
    "intergiro_assets",
    "load_into_duckdb",
    "load_into_postgres",
]

__version__ = "0.1.0"

exceptions.worded = in_dagsters_words
DagsterLibraryRegistry.register("dagster-intergiro", __version__, is_dagster_package=False)
