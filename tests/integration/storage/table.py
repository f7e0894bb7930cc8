# SPDX-License-Identifier: Apache-2.0
"""The table of ``docs/pulls.md``: each row is a fault with its expected outcome, which a test of its name measures.

``python -m tests.integration.storage.table`` writes the document.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tests.integration.storage.rights import OF_OBJECTS, OF_THE_BUCKET

DOCUMENT = Path(__file__).parents[3] / "docs" / "pulls.md"

GOES_ON = "succeeds"
RETRIABLY = "fails (retryable)"
FINALLY = "fails (final)"
ENDED = "is stopped"

FORMER, NEW = 200, 730
"""The number of rows of the previous result, and of the new one."""


@dataclass(frozen=True)
class Row:
    """One fault.

    :param does: what the task does. :param error: the class of the error. :param reads: parts of its text, between `…`.
    :param finds: the number of rows that a reader of the manifest finds afterwards.
    :param leaves: whether other files may stay there until the next pull.
    :param proof: the test, if it has another name than the row.
    """

    fault: str
    does: str = GOES_ON
    error: str = ""
    reads: str = ""
    finds: int = NEW
    leaves: bool = False
    proof: str = ""


TRANSFER = "tests/integration/transfers/test_transfer.py"
S3 = "tests/integration/storage/test_s3.py"
STORE = "tests/integration/storage/test_s3_failures.py"
DISK = "tests/integration/storage/test_disk_failures.py"

CHAPTERS: dict[str, dict[str, Row]] = {}
CHAPTERS["The bank, under 16 windows"] = {
    "token_expires": Row("the access token expires: one refresh for all windows"),
    "session_ends": Row("the session has ended: one login for all windows"),
    "storm_in_seconds": Row("24 responses 429, `Retry-After` in seconds"),
    "storm_as_a_date": Row("the same, `Retry-After` as a date"),
    "storm_without_a_word": Row("the same without `Retry-After`"),
    "storm_for_good": Row("429 to every request", RETRIABLY, "IntergiroRateLimited", "Intergiro returned 429", FORMER),
    "bodies_cut": Row("8 responses are incomplete"),
    "bodies_cut_for_good": Row("every response is incomplete", RETRIABLY, "BankUnavailable", "", FORMER),
    "resets": Row("8 connections are reset"),
    "resets_for_good": Row("every connection is reset", RETRIABLY, "BankUnavailable", "", FORMER),
    "errors": Row("8 responses 500, 502, 503 and 504"),
    "errors_for_good": Row("503 to every request", RETRIABLY, "IntergiroServerError", "Intergiro returned 503", FORMER),
    "silence": Row("4 requests get no response within `read_timeout`"),
    "silence_for_good": Row("no request gets a response", RETRIABLY, "BankUnavailable", "", FORMER),
    "garbled": Row("a response with status 200 and incomplete JSON", RETRIABLY, "UnreadableResponse", "", FORMER),
}
CHAPTERS["The local disk"] = {
    "disk_full": Row(
        "the disk is full", RETRIABLY, "StorageError", "No space left on device. Free some space there", FORMER
    ),
    "disk_read_only": Row(
        "the file system has become read-only", RETRIABLY, "StorageError", "Read-only file system", FORMER, leaves=True
    ),
    "directory_removed": Row(
        "the directory is deleted during the pull",
        RETRIABLY,
        "StorageError",
        "was deleted while a pull wrote to it",
        0,
    ),
    "no_rights": Row(
        "the task's user has no write permission", RETRIABLY, "StorageError", "Give the task's user", FORMER
    ),
}
CHAPTERS["The object store"] = {
    "s3_hiccups": Row("one 500 or 503, one lost connection and one lost response, for each kind of request"),
    "s3_slow": Row("every request takes 0.1 s longer"),
    "s3_no_bucket": Row(
        "the bucket does not exist; no request is sent to the bank",
        FINALLY,
        "IntergiroValueError",
        "`path`: the bucket … does not exist. Create it",
        0,
        proof=f"{S3}::TestNoBucket::test_that_does_not_exist",
    ),
    "s3_denied": Row(
        "a permission is missing",
        RETRIABLY,
        "StorageError",
        "the rights that a pull needs there",
        FORMER,
        leaves=True,
        proof=f"{S3}::TestRights::test_each_is_needed",
    ),
    "s3_down_from_the_start": Row("503 from the start", RETRIABLY, "StorageError", "`path`: writing … failed", FORMER),
    "s3_down_in_the_middle": Row(
        "down from the middle of the pull",
        RETRIABLY,
        "StorageError",
        "`path`: … failed",
        FORMER,
        leaves=True,
    ),
    "s3_part_fails": Row("a part cannot be stored", RETRIABLY, "StorageError", "`path`: writing … failed", FORMER),
    "s3_piece_fails": Row(
        "a piece of a large part cannot be stored", RETRIABLY, "StorageError", "`path`: writing … failed", FORMER
    ),
    "s3_upload_fails": Row(
        "the upload of a part cannot be completed", RETRIABLY, "StorageError", "`path`: writing … failed", FORMER
    ),
    "s3_copy_fails": Row("a part cannot be renamed", RETRIABLY, "StorageError", "`path`: renaming … failed", FORMER),
    "s3_manifest_fails": Row(
        "the manifest cannot be stored",
        RETRIABLY,
        "StorageError",
        "`path`: writing … _manifest.json failed",
        FORMER,
        leaves=True,
    ),
    "s3_manifest_refused": Row(
        "the store refuses the manifest", RETRIABLY, "StorageError", "`path`: writing … _manifest.json failed", FORMER
    ),
    "s3_manifest_unanswered": Row("the manifest is stored, but the response is lost"),
    "s3_former_part_stays": Row(
        "a part of the previous result cannot be deleted",
        RETRIABLY,
        "IntergiroError",
        "could not be deleted",
        NEW,
        leaves=True,
    ),
    "s3_manifest_late": Row(
        "the manifest is stored after the pull has failed; 200 rows until then",
        RETRIABLY,
        "StorageError",
        "`path`: writing … _manifest.json failed",
        NEW,
        leaves=True,
        proof=f"{STORE}::test_a_manifest_that_is_stored_late",
    ),
    "s3_ended_while_publishing": Row(
        "the task is stopped while it sends the manifest",
        ENDED,
        "AirflowTaskTimeout",
        finds=NEW,
        leaves=True,
        proof=f"{STORE}::test_a_task_that_is_ended_while_it_publishes",
    ),
}
CHAPTERS["The end of the task"] = {
    "execution_timeout": Row(
        "`execution_timeout`", ENDED, finds=FORMER, proof=f"{TRANSFER}::TestBeingStopped::test_by_execution_timeout"
    ),
    "on_kill": Row(
        "`on_kill`: the task is marked as failed or cleared in the UI, or the worker shuts down",
        ENDED,
        finds=FORMER,
        proof=f"{TRANSFER}::TestBeingStopped::test_by_airflow",
    ),
}

ROWS: dict[str, Row] = {name: row for rows in CHAPTERS.values() for name, row in rows.items()}

KILLS = {
    "writing its lock file": {FORMER},
    "looking for files of pulls that have ended, and deleting them": {FORMER},
    "waiting for a page": {FORMER},
    "writing a part": {FORMER},
    "renaming the parts": {FORMER},
    "replacing the manifest": {FORMER, NEW},
    "releasing its lock file": {NEW},
    "deleting the previous parts": {NEW},
}
"""The points at which a pull is killed, and the numbers of rows that a reader may find afterwards."""

HEAD = """<!-- Written by `python -m tests.integration.storage.table`; change it, and its rows, there. -->
# What a pull guarantees

* **A result is complete or absent.** A pull publishes its result in one step: it replaces `_manifest.json`. This is a
  rename on a local disk, and one PUT on an object store. Until then the previous result is unchanged.
* **Readers that use the manifest never see half a result, or a mix of two.** Read `_manifest.json`, then the parts that
  it names. If a part is missing, a newer result has replaced it: read the manifest again. To check that your copy is
  complete, compare the sizes and SHA-256 in the manifest.
* **A rerun replaces the result.** After a successful pull, `part-*` matches exactly the parts of the manifest.
* **A failure keeps the previous result.** A failed pull deletes its own files. If the pull was killed or the store was
  down, files remain. Their names begin with an underscore, or match `part-*` but are not in the manifest. The next
  pull into that directory deletes them. On Airflow 3.3 a retry uses them to resume.
* **Two pulls into one directory never mix.** The pull that finishes first is published. The other fails with an error.

## What happens when something fails

* **succeeds**: the provider handles the fault.
* **fails (retryable)**: Airflow retries the task if it has `retries`.
* **fails (final)**: Airflow does not retry the task, because a retry cannot help.
* **is stopped**: Airflow stops the task.
* *Rows*: the number of rows that a reader of the manifest finds after the fault.
* *Files left*: whether the directory may contain files that the manifest does not name, until the next pull.

Each row is a test that causes the fault with a bank, a disk, an S3-compatible server, or a proxy in between. Before
the fault, {former} rows are published. Without the fault, the pull would publish {new} rows.

After the fault, the test reads the published result. It must contain each record once, byte for byte, with the sizes
and SHA-256 of the manifest. Then a pull without the fault must publish {new} rows and leave no other files in the
directory.
"""

KILLED = """## Killed

A directory contains {former} rows, and a pull would publish {new}. The test kills the pull with `kill -9` at each of
its steps:

* on a local disk, at every system call that touches the directory, in the middle of every write, and at every page
* on S3, before and after every request

The table shows what a reader finds after the kill, and after the next pull:

| killed while | rows after the kill | rows after the next pull | files left after it |
| --- | ---: | ---: | --- |
"""

S3_NOTES = """## S3 and compatible object stores

`path="s3://conn_id@bucket/directory"` needs `pip install 'apache-airflow-providers-amazon[s3fs]'`. The connection's
credentials, region and `endpoint_url` are used. The bucket must exist.

**Permissions.** A pull needs these permissions and no others. The tests use a server that enforces this policy. They
also remove each permission in turn. Without `s3:AbortMultipartUpload`, pulls still succeed. All others are necessary.

| on | action | for |
| --- | --- | --- |
"""

S3_REST = """
If the bucket is encrypted with a KMS key, the pull also needs `kms:GenerateDataKey` and `kms:Decrypt` on that key.

**Unfinished uploads.** A part of more than 8 MiB is a multipart upload. A failed pull aborts its uploads, but a killed
pull cannot. An unfinished upload is invisible, but you pay for its storage. Give the bucket a lifecycle rule:
`AbortIncompleteMultipartUpload` with `DaysAfterInitiation: 1`.

**Versioned buckets** keep every deleted part as an old version. Add a lifecycle rule that expires noncurrent versions.

**Consistency.** On S3, every reader sees a new object at once. On a store with eventual consistency, a reader may see
the previous result for a while. If a part is missing, read the manifest again.

**Cost.** The pull writes each part under a temporary name that begins with an underscore. To publish the result, it
copies the parts within the bucket, so the worker does not download them. That is four requests per part, plus one per
50 MiB if the part is larger than 150 MiB.

**Two pulls at once.** An object store has no lock. If two pulls publish within the same milliseconds, the later
manifest stays, and its result is complete.

**Memory.** Each window writes one part at a time. A part uses up to 8 MiB of memory, and up to 16 MiB while it is sent.
"""


def _found(rows: set[int]) -> str:
    return " or ".join(f"{number}" for number in sorted(rows))


def document() -> str:
    """Return the content of ``docs/pulls.md``."""
    parts = [HEAD.format(former=FORMER, new=NEW)]
    for chapter, rows in CHAPTERS.items():
        lines = ["| fault | the task | message | rows | files left |", "| --- | --- | --- | ---: | --- |"]
        for row in rows.values():
            does = f"{row.does}: `{row.error}`" if row.error else row.does
            left = "perhaps" if row.leaves else "no"
            lines.append(f"| {row.fault} | {does} | {row.reads or '–'} | {row.finds} | {left} |")
        parts.append(f"### {chapter}\n\n" + "\n".join(lines) + "\n")
    killed = [f"| {where} | {_found(rows)} | {NEW} | no |" for where, rows in KILLS.items()]
    parts.append(KILLED.format(former=FORMER, new=NEW) + "\n".join(killed) + "\n")
    rights = [f"| the objects below `directory/` | `{action}` | {use} |" for action, use in OF_OBJECTS.items()]
    rights += [f"| the bucket | `{action}` | {use} |" for action, use in OF_THE_BUCKET.items()]
    parts.append(S3_NOTES + "\n".join(rights) + "\n" + S3_REST)
    return "\n".join(parts)


if __name__ == "__main__":
    DOCUMENT.write_text(document())
