# SPDX-License-Identifier: Apache-2.0
"""IntergiroComponent: lists of the bank as assets, described in YAML."""

# Without `annotations` of __future__: Dagster reads the types of a component's fields.

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Optional

from dagster import (
    AssetExecutionContext,
    Component,
    ComponentLoadContext,
    Definitions,
    EnvVar,
    PartitionsDefinition,
    Resolvable,
    Resolver,
    Scaffolder,
    ScaffoldRequest,
    scaffold_component,
    scaffold_with,
)
from pydantic import BaseModel, Field

from dagster_intergiro import internals
from dagster_intergiro.assets import DagsterIntergiroTranslator, intergiro_assets
from dagster_intergiro.pulls import IntergiroPull
from dagster_intergiro.resource import IntergiroResource


class IntergiroScaffoldParams(BaseModel):
    """The options of ``dg scaffold defs``."""

    endpoint: str = Field(default="transactions", description="The list to begin with.")
    path: str = Field(default="/tmp/intergiro/transactions", description="Directory of its files.")  # noqa: S108
    api_key_env: str = Field(default="INTERGIRO_API_KEY", description="The environment variable with the API key.")


class IntergiroScaffolder(Scaffolder[IntergiroScaffoldParams]):
    """Writes the initial YAML."""

    @classmethod
    def get_scaffold_params(cls) -> type[IntergiroScaffoldParams]:
        """Return the options of ``dg scaffold defs``."""
        return IntergiroScaffoldParams

    def scaffold(self, request: ScaffoldRequest[IntergiroScaffoldParams]) -> None:
        """Write defs.yaml."""
        params = request.params or IntergiroScaffoldParams()
        attributes = {
            "api_key_env": params.api_key_env,
            "environment": "staging",
            "pulls": [{"endpoint": params.endpoint, "path": params.path}],
        }
        scaffold_component(request=request, yaml_attributes=attributes)


@scaffold_with(IntergiroScaffolder)
@dataclass
class IntergiroComponent(Component, Resolvable):
    """Lists of the Intergiro API as assets: complete files, with one bank session for all runs.

    The YAML holds no key: `api_key_env` names the environment variable that holds it at run time.
    """

    pulls: Annotated[Sequence[IntergiroPull], Resolver.default(description="The lists, and where their files go.")]
    api_key_env: Annotated[str, Resolver.default(description="The environment variable with the API key.")] = (
        "INTERGIRO_API_KEY"
    )
    api: Annotated[str, Resolver.default(description="3d (banking as a service) or 2d (business banking).")] = "3d"
    environment: Annotated[str, Resolver.default(description="live or staging.")] = "live"
    host: Annotated[Optional[str], Resolver.default(description="Another host, such as a sandbox.")] = None
    session_store_env: Annotated[
        Optional[str],
        Resolver.default(
            description="The environment variable with session_store; without it, the instance's storage is used."
        ),
    ] = None
    resource: Annotated[
        dict[str, Any],
        Resolver.default(description="Further fields of IntergiroResource: read_timeout, proxies, verify, …"),
    ] = field(default_factory=dict)
    partitions_def: Annotated[
        Optional[PartitionsDefinition],
        Resolver(
            internals.resolve_partitions_def,
            model_field_type=internals.PARTITIONS_MODEL,
            description="Partitions of all these assets.",
        ),
    ] = None
    group_name: Optional[str] = None
    checks: Annotated[bool, Resolver.default(description="Read each result back and check hashes, ids and times.")] = (
        False
    )

    @property
    def translator(self) -> DagsterIntergiroTranslator:
        """Create the specs of the assets; override it in a subclass."""
        return DagsterIntergiroTranslator()

    def build_defs(self, context: ComponentLoadContext) -> Definitions:
        """Return the assets, and the resource that they use."""
        # Two components in one code location may have two keys.
        key = re.sub(r"\W", "_", f"intergiro_{context.path.relative_to(context.project_root)}")
        resource = IntergiroResource(
            api_key=EnvVar(self.api_key_env),
            api=self.api,
            environment=self.environment,
            host=self.host,
            session_store=EnvVar(self.session_store_env) if self.session_store_env else None,
            **self.resource,
        )

        @intergiro_assets(
            specs=self.pulls,
            name=key,
            partitions_def=self.partitions_def,
            group_name=self.group_name,
            translator=self.translator,
            checks=self.checks,
            required_resource_keys={key},
        )
        def assets(context: AssetExecutionContext) -> Any:
            yield from getattr(context.resources, key).run(context)

        return Definitions(assets=[assets], resources={key: resource})
