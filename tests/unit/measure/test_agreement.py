"""Whether an engine has its trainer's weights: what is lost, stale or under another name shows, and where."""

from __future__ import annotations

from rollout_bench.measure.placed.agreement import agreement

OWN = [("embed", "e1"), ("q", "q1"), ("k", "k1"), ("norm", "n1")]
TRAINERS = [(name, [checksum, f"{checksum} rows", f"{checksum} columns"]) for name, checksum in OWN]
LOADED = {name: [checksum] for name, checksum in OWN}


def test_what_arrived_and_was_loaded_agrees_whatever_its_order():
    found = agreement(TRAINERS, OWN[::-1], LOADED)
    assert (found.tensors, found.not_received, found.found, found.not_loaded, found.first) == (4, 0, 4, 0, None)


def test_a_lost_bucket_leaves_the_old_weights_and_shows():
    found = agreement(TRAINERS, OWN[:2], {**LOADED, "k": ["k0"], "norm": ["n0"]})
    assert (found.not_received, found.not_loaded, found.first) == (2, 2, "k")


def test_a_tensor_loaded_to_another_place_shows_only_there():
    found = agreement(TRAINERS, OWN, {**LOADED, "q": ["k1"], "k": ["q1"]})
    assert (found.not_received, found.not_loaded, found.first) == (0, 2, "q")


def test_one_of_two_places_that_kept_the_old_weights_shows():
    found = agreement(TRAINERS, OWN, {**LOADED, "embed": ["e1", "e0"]})
    assert (found.not_received, found.not_loaded, found.first) == (0, 1, "embed")


def test_an_unreadable_tensor_is_not_counted_as_found():
    found = agreement(TRAINERS, OWN, {"norm": ["n1"]})
    assert (found.tensors, found.found, found.not_loaded, found.first) == (4, 1, 0, None)


def test_a_share_matches_the_trainers_only_for_its_own_rank():
    shares = {"embed": ["e1 rows"], "q": ["q1 rows"], "k": ["k1 columns"]}
    found = agreement(TRAINERS, OWN, shares)
    assert (found.found, found.not_loaded, found.first) == (3, 0, None)
    found = agreement(TRAINERS, OWN, {**shares, "k": ["k1 columns of another rank"]})
    assert (found.found, found.not_loaded, found.first) == (3, 1, "k")
