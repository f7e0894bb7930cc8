# SPDX-License-Identifier: Apache-2.0
"""Mutants of the production protocol, each with one rule broken, which the tests must detect.

None is a copy: :mod:`.forgeries` sit between the protocol and the world, :mod:`.broken` ones replace a method.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from intergiro_provider.session.effects import Refresh
from intergiro_provider.session.renewal import Renewal
from intergiro_provider.session.timings import Timings
from tests.unit.session import broken, forgeries
from tests.unit.session.actors import Variant


def bent(**changes: float) -> Timings:
    """Return timings that violate their inequalities."""
    timings = Timings()
    for name, value in changes.items():
        object.__setattr__(timings, name, value)
    return timings


@dataclass(frozen=True, slots=True)
class Mutant:
    """A variant, and the test that must fail with it, with that test's parameters."""

    variant: Variant
    scenario: str
    parameters: dict[str, Any]


def _mutant(
    name: str,
    scenario: str,
    protocol: type[Renewal] = Renewal,
    *,
    timings: Timings | None = None,
    entangled: dict[Any, Any] | None = None,
    **parameters: Any,
) -> Mutant:
    return Mutant(Variant(name, protocol, timings or Timings(), entangled or {}), scenario, parameters)


MUTANTS = [
    _mutant(
        "own slow write entered on",
        "late_writes.test_late_copy_of_a_slow_lease_write_is_no_win",
        timings=bent(lease_write=100.0),
    ),
    _mutant(
        "own slow round entered on",
        "late_writes.test_round_from_the_read_to_the_write_that_took_too_long",
        timings=bent(lease_write=100.0, lease_round=100.0),
        lock=None,
    ),
    _mutant(
        "settle_lease below lease_round",
        "late_writes.test_round_that_took_nearly_too_long",
        timings=bent(settle_lease=0.5),
    ),
    _mutant(
        "no settling of the lease",
        "late_writes.test_round_that_took_nearly_too_long",
        forgeries.through(forgeries.no_settling_of_the_lease),
    ),
    _mutant(
        "lease not read back",
        "protocol.test_lease_lost_before_entering",
        forgeries.through(forgeries.no_read_back_of_the_lease),
    ),
    _mutant(
        "no lease at all", "protocol.test_expiry_is_one_refresh", forgeries.through(forgeries.no_lease), rule="strict"
    ),
    _mutant(
        "lease taken whoever holds it",
        "protocol.test_lease_is_taken_over_only_after_its_time",
        broken.TakesWhatIsFree,
    ),
    _mutant(
        "takeover too short",
        "late_writes.test_owner_that_takes_all_the_time_it_has",
        timings=bent(takeover=30.0),
    ),
    _mutant(
        "lease inside the session",
        "late_writes.test_late_copy_of_a_lease_write_overwrites_no_session",
        entangled={"lease": "session"},
    ),
    _mutant(
        "login history inside the lease",
        "late_writes.test_late_copy_of_a_lease_write_strikes_no_login_off",
        entangled={"lease": "logins", "logins": "lease"},
    ),
    _mutant(
        "404 is absence",
        "late_writes.test_blind_worker_respects_the_lease",
        forgeries.through(forgeries.believe_404),
        times=1,
    ),
    _mutant(
        "404 of the login history is absence",
        "store_failures.test_login_history_that_seems_to_be_absent",
        forgeries.through(forgeries.believe_404),
    ),
    _mutant(
        "no lock fingerprint",
        "surroundings.test_other_lock_is_a_mismatch",
        forgeries.through(forgeries.no_lock_fingerprint),
        mine=None,
    ),
    _mutant(
        "no lease re-read after a refusal",
        "late_writes.test_late_copy_of_a_release_frees_nothing",
        broken.with_holder(broken.NeverLooksAtTheLease),
        skew=0.0,
    ),
    _mutant(
        "no session re-read before login",
        "late_writes.test_sleeper_that_stores_while_the_successor_settles",
        broken.with_holder(broken.NeverLooksAtTheSession),
    ),
    _mutant(
        "no re-read before persist",
        "late_writes.test_sleeper_drops_its_copy_for_a_newer_session",
        forgeries.through(forgeries.no_look_before_storing),
    ),
    _mutant(
        "no settling of the session",
        "late_writes.test_own_lease_that_came_back_over_another_is_taken_but_settled_first",
        timings=bent(settle_session=0.0),
    ),
    _mutant(
        "own lease retaken without settling",
        "late_writes.test_own_lease_that_came_back_over_another_is_taken_but_settled_first",
        broken.TakesOwnLeaseUnsettled,
    ),
    _mutant(
        "release reason ignored",
        "responses.test_bank_that_is_busy_is_an_error_for_everybody",
        forgeries.through(forgeries.ignore_release_reasons),
        effect=Refresh,
    ),
    _mutant(
        "release reason never expires",
        "responses.test_bank_that_is_busy_is_an_error_for_everybody",
        forgeries.through(forgeries.release_reasons_for_ever),
        effect=Refresh,
    ),
    _mutant(
        "backwards not noticed",
        "surroundings.test_session_that_only_seems_to_have_gone_backwards",
        forgeries.through(forgeries.never_backwards),
        release_reason=None,
    ),
    _mutant(
        "backwards without a second look",
        "surroundings.test_session_that_only_seems_to_have_gone_backwards",
        forgeries.through(forgeries.no_second_look_when_backwards),
        release_reason="free",
    ),
    _mutant(
        "refresh repeated twice",
        "responses.test_unknown_twice_is_an_error_and_no_login",
        forgeries.through(forgeries.refresh_three_times),
    ),
    _mutant(
        "login repeated by itself",
        "logins.test_login_of_unknown_outcome_is_not_repeated",
        forgeries.through(forgeries.log_in_twice),
    ),
    _mutant(
        "login after an unknown refresh",
        "responses.test_unknown_twice_is_an_error_and_no_login",
        forgeries.through(forgeries.log_in_after_unknown),
    ),
    _mutant(
        "no probe",
        "protocol.test_refused_request_with_a_live_session_is_a_permission",
        forgeries.through(forgeries.no_probe),
    ),
    _mutant(
        "no login history",
        "logins.test_budget_stops_logins_and_says_when_the_next_is_allowed",
        forgeries.through(forgeries.no_login_history),
    ),
    _mutant(
        "store not probed",
        "store_failures.test_lease_write_that_fails_three_times",
        forgeries.through(forgeries.no_probe_of_the_store),
    ),
    _mutant(
        "bank called at any time",
        "responses.test_refresh_that_can_never_be_sent_ends_within_the_critical_section",
        timings=bent(critical=1000.0),
    ),
    _mutant(
        "late copies not waited out",
        "late_writes.test_late_copy_of_the_mark_on_a_restored_session",
        broken.with_holder(broken.NeverWaitsOutASlowWrite),
        kind="slow",
        lock=None,
    ),
    _mutant(
        "store delayed after a login",
        "late_writes.test_own_lease_that_came_back_over_another_is_taken_but_settled_first",
        broken.with_holder(broken.StoresAfterStamping),
    ),
    _mutant(
        "only the refused session tried",
        "surroundings.test_restored_session_is_found_by_those_who_have_a_newer_one_in_memory",
        broken.with_holder(broken.TriesOnlyTheRefusedSession),
    ),
    _mutant(
        "lease of a first login kept",
        "logins.test_deleted_session_is_a_login_within_seconds",
        broken.with_holder(broken.KeepsTheLeaseOfAFirstLogin),
        renewed=False,
        age=30.0,
        waits=True,
    ),
    _mutant(
        "late copy of a release trusted",
        "late_writes.test_late_copy_of_the_release_after_a_first_login_frees_nothing",
        broken.TakesAYoungLease,
    ),
    _mutant(
        "age of a lease by any clock",
        "logins.test_first_login_that_may_be_under_way_is_waited_for",
        broken.TrustsAnyClock,
        exact=False,
    ),
    _mutant(
        "young lease counts as over",
        "logins.test_first_login_that_may_be_under_way_is_waited_for",
        broken.TakesAYoungLease,
        exact=True,
    ),
    _mutant(
        "lock released before late copies have come",
        "surroundings.test_slow_write_of_the_history_is_outlasted_before_the_lock_is_released",
        broken.with_holder(broken.OutlastsNoCopies),
    ),
    _mutant(
        "429 is an error",
        "responses.test_bank_that_limits_requests_is_waited_for_by_everybody",
        broken.with_holder(broken.FailsAtTooManyRequests),
        effect=Refresh,
    ),
]
