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
RETRIABLY = "fails retriably"
FINALLY = "fails finally"
ENDED = "is ended"

FORMER, NEW = 200, 730
"""Rows of the result that is there, and of the one that the pull would put in its place."""


@dataclass(frozen=True)
class Row:
    """One fault.

    :param does: what the task does. :param error: the error's class. :param reads: parts of its text; `…` is left out.
    :param finds: how many rows a reader then finds by the manifest.
    :param leaves: whether files that the manifest does not name may lie there until the next pull.
    :param proof: the test, if not the one that takes its faults from the name of the row.
    """

    fault: str
    does: str = GOES_ON
    error: str = ""
    reads: str = ""
    finds: int = NEW
    leaves: bool = False
    proof: str = ""


TRANSFER = "tests/integration/test_transfer.py"
S3 = "tests/integration/storage/test_s3.py"
STORE = "tests/integration/storage/test_s3_failures.py"
DISK = "tests/integration/storage/test_disk_failures.py"

CHAPTERS: dict[str, dict[str, Row]] = {}
CHAPTERS["The bank, under 16 windows"] = {
    "token_expires": Row("the access token expires: one refresh for all windows"),
    "session_ends": Row("the session is over: one login for all windows"),
    "storm_in_seconds": Row("24 responses 429, `Retry-After` in seconds"),
    "storm_as_a_date": Row("the same, `Retry-After` as a date"),
    "storm_without_a_word": Row("the same without `Retry-After`"),
    "storm_for_good": Row("429 to every request", RETRIABLY, "IntergiroRateLimited", "Intergiro answered 429", FORMER),
    "bodies_cut": Row("8 responses end half way"),
    "bodies_cut_for_good": Row("every response ends half way", RETRIABLY, "BankUnavailable", "", FORMER),
    "resets": Row("8 connections are reset"),
    "resets_for_good": Row("every connection is reset", RETRIABLY, "BankUnavailable", "", FORMER),
    "errors": Row("8 responses 500, 502, 503 and 504"),
    "errors_for_good": Row("503 to every request", RETRIABLY, "IntergiroServerError", "Intergiro answered 503", FORMER),
    "silence": Row("4 requests get no response within `read_timeout`"),
    "silence_for_good": Row("no request gets a response", RETRIABLY, "BankUnavailable", "", FORMER),
    "garbled": Row("a success status with half of a JSON text", RETRIABLY, "UnreadableResponse", "", FORMER),
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
    "no_rights": Row("the task's user may not write there", RETRIABLY, "StorageError", "Give the task's user", FORMER),
}
CHAPTERS["The object store"] = {
    "s3_hiccups": Row("one 500 or 503, one lost connection, one lost response, at each kind of request"),
    "s3_slow": Row("every request takes 0.2 s longer"),
    "s3_no_bucket": Row(
        "the bucket does not exist: it is not created, and the bank gets no request",
        FINALLY,
        "IntergiroValueError",
        "`path`: the bucket … does not exist. Create it",
        0,
        proof=f"{S3}::TestNoBucket::test_that_does_not_exist",
    ),
    "s3_denied": Row(
        "a right is missing",
        RETRIABLY,
        "StorageError",
        "the rights that a pull needs there",
        FORMER,
        leaves=True,
        proof=f"{S3}::TestRights::test_each_is_needed",
    ),
    "s3_down_from_the_start": Row(
        "it answers 503 from the start", RETRIABLY, "StorageError", "`path`: writing … failed", FORMER
    ),
    "s3_down_in_the_middle": Row(
        "it is down from the middle of the pull on",
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
        "the manifest is refused", RETRIABLY, "StorageError", "`path`: writing … _manifest.json failed", FORMER
    ),
    "s3_manifest_unanswered": Row("the manifest is stored, and the response is lost"),
    "s3_former_part_stays": Row(
        "a part of the previous result cannot be deleted",
        RETRIABLY,
        "IntergiroError",
        "could not be deleted",
        NEW,
        leaves=True,
    ),
    "s3_manifest_late": Row(
        "the manifest is stored after the pull has given up: first the previous rows, then the new ones",
        RETRIABLY,
        "StorageError",
        "`path`: writing … _manifest.json failed",
        NEW,
        leaves=True,
        proof=f"{STORE}::test_a_manifest_that_is_stored_late",
    ),
    "s3_ended_while_publishing": Row(
        "the task is ended while it sends the manifest",
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
        "marked as failed or cleared in the UI, a worker that shuts down (`on_kill`)",
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
"""Where a pull is killed, and how many rows a reader may find then."""

HEAD = """<!-- Written by `python -m tests.integration.storage.table`; change it, and its rows, there. -->
# What a pull guarantees

* **Complete or absent.** One step publishes a result: the replacement of `_manifest.json`. It is a rename on a local
  disk, and one PUT on an object store. Until then the previous result is unchanged.
* **A reader that uses the manifest never sees half a result, or parts of two.** Read `_manifest.json`, then the
  parts that it names. If a part is missing, a newer result has replaced it: read the manifest again. Sizes and
  SHA-256 in the manifest show whether you have everything.
* **A rerun replaces the result.** After a successful pull, `part-*` finds exactly the parts of the manifest.
* **A failure leaves the previous result.** A failed pull deletes its own files. If it was killed, or its store was
  down, it cannot delete them. These files have names that begin with an underscore, or match `part-*` but are not in
  the manifest. The next pull into that directory deletes them. On Airflow 3.3 a retry resumes with them instead.
* **Two pulls into one directory never mix.** The first to finish is published. The other fails with an error.

## What happens when something fails

* **succeeds**: the provider handles the fault.
* **fails retriably**: Airflow retries the task, if it has `retries`.
* **fails finally**: a retry cannot help.
* **is ended**: Airflow ends the task.
* *Left*: whether the directory can hold files that the manifest does not name, until the next pull.

Each row is a test that causes the fault with real parts: a bank, a disk, an S3-compatible server, and a proxy in
between. Before the fault, {former} rows are published. The pull would publish {new} rows. *Rows* is the number that
a reader of the manifest must find after the fault, and finds: each record once, byte for byte, with the sizes and
SHA-256 of the manifest. Then a pull without the fault must publish {new} rows, and leave nothing else in the
directory.
"""

KILLED = """## Killed

A directory holds {former} rows, and a pull would publish {new}. The test kills the pull with `kill -9` at each of
its steps. On a local disk these are every system call that touches the directory, the middle of every write, and
every page. On S3 they are the moments before and after every request. The table shows what a reader finds then, and
what the next pull publishes:

| killed while | rows expected and found | rows after the next pull | left after that |
| --- | ---: | ---: | --- |
"""

S3_NOTES = """## On S3 and what is compatible with it

`path="s3://conn_id@bucket/directory"` needs `pip install 'apache-airflow-providers-amazon[s3fs]'`. The connection's
credentials, region and `endpoint_url` are used. The bucket must exist.

**Rights.** A pull needs these rights and no others. The tests run against a server that enforces exactly this
policy, and then without each right in turn. (Without the right to abort uploads, no pull fails.)

| on | action | for |
| --- | --- | --- |
"""

S3_REST = """
With encryption by a KMS key also `kms:GenerateDataKey` and `kms:Decrypt` on that key.

**Unfinished uploads.** A part of more than 8 MiB is a multipart upload. A failed pull aborts its uploads. A killed
pull cannot. Such an upload is invisible, but you pay for its pieces. Give the bucket a lifecycle rule:
`AbortIncompleteMultipartUpload` with `DaysAfterInitiation: 1`.

**Versioned buckets** keep every deleted part as an old version. Give them a rule that expires noncurrent versions.

**Consistency.** S3 shows a PUT to every reader at once. On a store that does not, a reader can find the previous
result for a while. It can also miss a part, and then has to read the manifest again.

**Cost.** The pull writes a part under a name that begins with an underscore, and copies it within the bucket when it
publishes. That is four requests per part, plus one per 50 MiB if the part is larger than 150 MiB. No byte returns to
the worker.

**Two pulls at once.** An object store has no lock. If two pulls publish within the same milliseconds, the later
manifest wins, and its result is complete.

**Memory.** An open part uses up to 8 MiB, and as much again while it is sent. Each window has one open part.
"""


def _found(rows: set[int]) -> str:
    return " or ".join(f"{number}" for number in sorted(rows))


def document() -> str:
    """The whole of ``docs/pulls.md``."""
    parts = [HEAD.format(former=FORMER, new=NEW)]
    for chapter, rows in CHAPTERS.items():
        lines = ["| fault | the task | it reads | rows expected and found | left |", "| --- | --- | --- | ---: | --- |"]
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
