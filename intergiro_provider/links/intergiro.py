# SPDX-License-Identifier: Apache-2.0
"""Links on a task in Airflow's UI: to the manifest of a pull, to the consent page, and to Intergiro's customer portal.

Each parse of a DAG file that uses the operators imports this module, so it is light.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit

from airflow.providers.common.compat.sdk import BaseOperatorLink

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import BaseOperator, Context, ObjectStoragePath, TaskInstanceKey

PORTAL = "https://www.intergiro.com/"
CONSENT_KEY = "intergiro_consent"
"""Key of the XCom with the data for the consent page, of a task that waits for consent."""


class IntergiroManifestLink(BaseOperatorLink):
    """Link to the manifest of a pull in the console of Amazon S3 or Google Cloud Storage.

    There is no link before the pull has published its result, and no link to a place that a browser cannot open, such
    as a disk. To follow the link, you need your own rights there. The URL holds the bucket and the key, and no
    connection.
    """

    name = "Manifest"
    # Airflow 3 stores a link when the task ends. Airflow 2 evaluates it in the web server, which knows the path only as
    # a template. So the task itself stores the link when it has published, on both.
    _key = "_link_IntergiroManifestLink"

    @property
    def xcom_key(self) -> str:
        """Key of the XCom that holds the link."""
        return self._key

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        """Return the URL, or an empty text if there is none."""
        from airflow.providers.common.compat.sdk import XCom

        return str(XCom.get_value(ti_key=ti_key, key=self._key) or "")

    @classmethod
    def persist(cls, context: Context, manifest: ObjectStoragePath) -> bool:
        """Store the link for the running task, and return whether there is one."""
        ti, url = context.get("ti"), console_url(manifest)
        if ti is None or not url:
            return False
        ti.xcom_push(key=cls._key, value=url)
        return True


class IntergiroConsentLink(BaseOperatorLink):
    """Link to the page in Airflow on which a person starts the consent to a payment. Airflow 3.1 and later."""

    name = "Give consent"
    _key = "_link_IntergiroConsentLink"

    @property
    def xcom_key(self) -> str:
        """Key of the XCom that holds the link."""
        return self._key

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        """Return the path of the page, or an empty text if the task has not waited for consent."""
        from airflow.providers.common.compat.sdk import XCom

        return str(XCom.get_value(ti_key=ti_key, key=self._key) or "")

    @classmethod
    def persist(cls, context: Context, consent_id: str, expires_at: str | None, conn_id: str) -> None:
        """Store the link, and the data for its page, for the running task. Nothing in it is secret."""
        ti = context.get("ti")
        if ti is None:
            return
        ti.xcom_push(key=CONSENT_KEY, value={"consent_id": consent_id, "expires_at": expires_at, "conn_id": conn_id})
        path = consent_path(ti.dag_id, ti.run_id, ti.task_id, ti.map_index)
        ti.xcom_push(key=cls._key, value=urlsplit(airflow_url()).path.rstrip("/") + path)


class IntergiroPortalLink(BaseOperatorLink):
    """Link to Intergiro's customer portal, where people approve payments and renew API keys."""

    name = "Intergiro portal"

    @property
    def xcom_key(self) -> str:
        """Key of the XCom in which Airflow 3 stores the link."""
        return "_link_IntergiroPortalLink"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        """Return the portal's URL, the same for every task."""
        return PORTAL


def airflow_url() -> str:
    """Return the address of Airflow's UI as configured (``[api] base_url``), or an empty text."""
    from airflow.providers.common.compat.sdk import conf

    return str(conf.get("api", "base_url", fallback="") or "")


def consent_path(dag_id: str, run_id: str, task_id: str, map_index: int | None) -> str:
    """Return the path of the page on which a person starts a task's consent, below the address of Airflow's UI."""
    return "/".join(
        ["/intergiro/consents", *(quote(str(part), safe="") for part in (dag_id, run_id, task_id, map_index))]
    )


def console_url(path: ObjectStoragePath) -> str:
    """Return the URL at which a person can look at an object in a browser, or an empty text if there is none.

    :param path: the object. On S3, its file system has been used already.
    """
    # Airflow 2 leaves the connection in the bucket: conn_id@bucket.
    bucket, key = quote(path.bucket.rpartition("@")[2], safe=""), quote(path.key)
    if path.protocol in ("s3", "s3a", "s3n") and _is_amazons(path):
        return f"https://s3.console.aws.amazon.com/s3/object/{bucket}?prefix={key}"
    if path.protocol in ("gs", "gcs"):
        return f"https://console.cloud.google.com/storage/browser/_details/{bucket}/{key}"
    return ""


def _is_amazons(path: ObjectStoragePath) -> bool:
    """Return whether a path is on Amazon's S3, except in China, which has another console."""
    client = getattr(path.fs, "s3", None)
    endpoint = getattr(getattr(client, "meta", None), "endpoint_url", None) or ""
    return (urlsplit(endpoint).hostname or "").endswith(".amazonaws.com")
