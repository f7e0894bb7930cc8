# SPDX-License-Identifier: Apache-2.0
"""The rights on S3 that a pull needs, as listed in `docs/pulls.md`, and a server that grants only these."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.integration.storage import s3
from tests.integration.storage.s3 import Lake

OF_OBJECTS = {
    "s3:PutObject": "lock file, parts and manifest; pieces of multipart uploads",
    "s3:GetObject": "lock files and the manifest; copying a part to its final name",
    "s3:DeleteObject": "lock files, staged parts, the parts of the previous result",
    "s3:AbortMultipartUpload": "aborting the multipart upload of a part",
}
OF_THE_BUCKET = {"s3:ListBucket": "listing the directory; recognizing that an object does not exist"}
RIGHTS = {*OF_OBJECTS, *OF_THE_BUCKET}


def policy(rights: set[str], bucket: str, prefix: str) -> dict[str, object]:
    """Return an IAM policy that grants these rights under a prefix."""
    statements = [
        {
            "Effect": "Allow",
            "Action": sorted(rights & OF_OBJECTS.keys()),
            "Resource": f"arn:aws:s3:::{bucket}/{prefix}/*",
        },
        {"Effect": "Allow", "Action": sorted(rights & OF_THE_BUCKET.keys()), "Resource": f"arn:aws:s3:::{bucket}"},
    ]
    return {"Version": "2012-10-17", "Statement": [statement for statement in statements if statement["Action"]]}


@contextmanager
def grant(
    lake: Lake, monkeypatch: pytest.MonkeyPatch, rights: set[str], prefix: str, key: str = "", secret: str = ""
) -> Iterator[None]:
    """Give the connection `lake` a user with these rights, which the server enforces."""
    from tests.integration.storage.conftest import connect

    iam = s3.client(lake.port, "iam")
    user = f"user-{uuid.uuid4().hex[:8]}"
    iam.create_user(UserName=user)
    made = iam.create_access_key(UserName=user)["AccessKey"]
    if rights:
        document = json.dumps(policy(rights, lake.bucket, prefix))
        iam.put_user_policy(UserName=user, PolicyName="pulls", PolicyDocument=document)
    with monkeypatch.context() as patch:
        connect(patch, lake.port, key=key or made["AccessKeyId"], secret=secret or made["SecretAccessKey"])
        lake.enforce_rights(0)
        try:
            yield
        finally:
            lake.enforce_rights(float("inf"))
