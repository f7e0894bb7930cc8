# SPDX-License-Identifier: Apache-2.0
"""The table of ``docs/pulls.md``: each row is a fault with its expected outcome, which a test of its name measures.

``python -m tests.integration.storage.table`` writes the document anew.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tests.integration.storage.rights import OF_OBJECTS, OF_THE_BUCKET

DOCUMENT = Path(__file__).parents[3] / "docs" / "pulls.md"

GOES_ON = "goes on"
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
    "token_expires": Row("the access token expires; one refresh for all windows"),
    "session_ends": Row("the session is over: one login for all windows"),
    "storm_in_seconds": Row("24 answers of 429, `Retry-After` in seconds"),
    "storm_as_a_date": Row("the same as a date"),
    "storm_without_a_word": Row("the same without `Retry-After`"),
    "storm_for_good": Row("429, again and again", RETRIABLY, "IntergiroRateLimited", "Intergiro answered 429", FORMER),
    "bodies_cut": Row("8 answers end half way"),
    "bodies_cut_for_good": Row("every answer ends half way", RETRIABLY, "BankUnavailable", "", FORMER),
    "resets": Row("8 connections are reset"),
    "resets_for_good": Row("every connection is reset", RETRIABLY, "BankUnavailable", "", FORMER),
    "errors": Row("8 answers of 500, 502, 503 and 504"),
    "errors_for_good": Row("503, again and again", RETRIABLY, "IntergiroServerError", "Intergiro answered 503", FORMER),
    "silence": Row("4 requests get no answer within `read_timeout`"),
    "silence_for_good": Row("no request gets an answer", RETRIABLY, "BankUnavailable", "", FORMER),
    "garbled": Row("a good status, and half of a JSON text", RETRIABLY, "UnreadableResponse", "", FORMER),
}
CHAPTERS["The local disk"] = {
    "disk_full": Row(
        "the disk is full", RETRIABLY, "StorageError", "No space left on device; free some space there", FORMER
    ),
    "disk_read_only": Row(
        "the file system has become read-only", RETRIABLY, "StorageError", "Read-only file system", FORMER, leaves=True
    ),
    "directory_removed": Row(
        "the directory is removed under the pull", RETRIABLY, "StorageError", "was removed while a pull wrote to it", 0
    ),
    "no_rights": Row("the task's user may not write there", RETRIABLY, "StorageError", "give the task's user", FORMER),
}
CHAPTERS["The object store"] = {
    "s3_hiccups": Row("one 500 or 503, one lost connection, one lost answer, at each kind of request"),
    "s3_slow": Row("every request takes 0.2 s longer"),
    "s3_no_bucket": Row(
        "the bucket does not exist; none is made, and the bank is not asked",
        FINALLY,
        "IntergiroValueError",
        "`path`: there is no … to hold … it has to exist",
        0,
        proof=f"{S3}::TestNoBucket::test_that_does_not_exist",
    ),
    "s3_denied": Row(
        "a right is missing; the bank is asked only if writing the claim is allowed",
        RETRIABLY,
        "StorageError",
        "the rights that a pull needs there",
        FORMER,
        leaves=True,
        proof=f"{S3}::TestRights::test_each_is_needed",
    ),
    "s3_down_from_the_start": Row(
        "it answers 503, from the start", RETRIABLY, "StorageError", "`path`: writing … failed", FORMER
    ),
    "s3_down_in_the_middle": Row(
        "it is gone, from the middle of the pull on", RETRIABLY, "StorageError", "`path`: … failed", FORMER, leaves=True
    ),
    "s3_part_fails": Row("a part cannot be stored", RETRIABLY, "StorageError", "`path`: writing … failed", FORMER),
    "s3_piece_fails": Row(
        "a piece of a large part cannot be stored", RETRIABLY, "StorageError", "`path`: writing … failed", FORMER
    ),
    "s3_upload_fails": Row(
        "the pieces of a part cannot be put together", RETRIABLY, "StorageError", "`path`: writing … failed", FORMER
    ),
    "s3_copy_fails": Row(
        "a part cannot be given its name", RETRIABLY, "StorageError", "`path`: renaming … failed", FORMER
    ),
    "s3_manifest_fails": Row(
        "the manifest cannot be stored",
        RETRIABLY,
        "StorageError",
        "`path`: writing … _manifest.json failed",
        FORMER,
        leaves=True,
    ),
    "s3_manifest_refused": Row(
        "the manifest may not be stored", RETRIABLY, "StorageError", "`path`: writing … _manifest.json failed", FORMER
    ),
    "s3_manifest_unanswered": Row("the manifest is stored, and no answer comes"),
    "s3_former_part_stays": Row(
        "a part of the former result cannot be deleted",
        RETRIABLY,
        "IntergiroError",
        "could not be deleted",
        NEW,
        leaves=True,
    ),
    "s3_manifest_late": Row(
        "the manifest is stored when the pull has given up on it: former rows at first, then the new ones",
        RETRIABLY,
        "StorageError",
        "`path`: writing … _manifest.json failed",
        NEW,
        leaves=True,
        proof=f"{STORE}::test_a_manifest_that_is_stored_late",
    ),
    "s3_ended_while_publishing": Row(
        "the task is ended while the manifest is on its way",
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
    "writing its claim": {FORMER},
    "looking, and sweeping what dead pulls left": {FORMER},
    "waiting for a page": {FORMER},
    "writing a part": {FORMER},
    "giving the parts their names": {FORMER},
    "replacing the manifest": {FORMER, NEW},
    "dropping its claim": {NEW},
    "deleting the former parts": {NEW},
}
"""Where a pull is killed, and how many rows a reader may find then."""

HEAD = """<!-- Written by `python -m tests.integration.storage.table`; change it, and its rows, there. -->
# What a pull guarantees

* **Whole or not at all.** A result is published by one step, the replacement of `_manifest.json`: a rename on a local
  disk, one PUT on an object store. Until then the former result is untouched.
* **By the manifest, never half a result or two.** Read `_manifest.json`, then the parts that it names. If one is not
  there, the result was replaced in between: read the manifest again. Its sizes and SHA-256 tell whether you have all.
* **A rerun replaces.** When the last pull has succeeded, `part-*` finds exactly the parts of the manifest.
* **A failure leaves the former result**, and clears up after itself as far as it still can. What a killed pull, or one
  whose store was down, could not clear up has a name that begins with an underscore, or is a `part-*` that the
  manifest does not name; the next pull into that directory deletes it. On Airflow 3.3 a retry goes on with it instead.
* **Two at once never mix.** The first to finish is published. The other fails and says so.

## What happens when something fails

Every row is a test that runs the fault with real parts: a bank, a disk, an S3-compatible server, and a proxy in
between. Before each, {former} rows are published; the pull would publish {new}. *Rows* is what a reader by the manifest
has to find afterwards, and finds: each record once, byte for byte, and each part with the size and the SHA-256 of the
manifest; the test fails otherwise. After each, a pull without the fault has to publish {new} rows and to leave nothing
else in the directory.

* **goes on**: the task succeeds. **fails retriably**: Airflow tries again, if the task has `retries`. **fails
  finally**: trying again cannot help. **is ended**: by Airflow.
* *Left*: whether anything that the manifest does not name may lie in the directory until the next pull.
"""

KILLED = """## Killed

A pull over {former} rows that would publish {new} is killed with `kill -9` at each of its steps: on a local disk before
every system call that touches the directory, in the midst of every write and at every page; on S3 at every request,
once before it is carried out and once after. Then a reader finds, and the next pull publishes:

| killed while | rows expected and found | rows after the next pull | left after that |
| --- | ---: | ---: | --- |
"""

S3_NOTES = """## On S3 and what is compatible with it

`path="s3://conn_id@bucket/directory"` needs `pip install 'apache-airflow-providers-amazon[s3fs]'`. The connection's
credentials, region and `endpoint_url` are used. The bucket has to exist.

**Rights.** These are used and no others; the tests run against a server that enforces exactly this policy, and without
each of them in turn (but for giving up uploads, which no pull fails for).

| on | action | for |
| --- | --- | --- |
"""

S3_REST = """
With encryption by a KMS key also `kms:GenerateDataKey` and `kms:Decrypt` on that key.

**Unfinished uploads.** A part of more than 8 MiB is uploaded in pieces. A pull that fails gives its uploads up; one
that is killed cannot. Such an upload is no object, and nobody sees it, but its pieces are stored and paid for. Give the
bucket a lifecycle rule that ends them: `AbortIncompleteMultipartUpload` with `DaysAfterInitiation: 1`.

**Versioned buckets** keep every deleted part as an old version: give them a rule that expires noncurrent versions.

**Consistency.** S3 shows a PUT to every reader as soon as it is answered, and so needs no waiting. On a store that does
not, a reader may find the former result for a while, or miss a part and has to read the manifest again.

**Cost.** A part is written under a name that begins with an underscore, and copied within the bucket when the pull
publishes: four requests a part, or one more for each 50 MiB where it is larger than 150 MiB, and no byte comes back to
the worker. An object store has no lock: of two pulls that publish within the same milliseconds the later manifest
stands, whole.

**Memory.** An open part holds up to 8 MiB, the piece that is gathered, and as much again while that is sent. There is
one open part for each window.
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
