"""Measures: what they take of a run, how a run is configured for them, how they write numbers."""

import math

import numpy as np
import pytest

from tests.studies.test_tables import row
from vivit_zoo.studies.cells import BASE
from vivit_zoo.studies.comparisons import Design, compare
from vivit_zoo.studies.measures import Accuracy, ClipsToReach, clips_to_reach, measure_from_json, rise
from vivit_zoo.studies.statistics import ALPHA, anytime_interval, t_interval


def looks(*accuracies, every=10):
    return [{"step": every * (i + 1), "accuracy": one, "accuracy_verb": one / 2} for i, one in enumerate(accuracies)]


def test_clips_are_interpolated_between_the_last_two_looks():
    assert clips_to_reach(looks(0.2, 0.5, 0.8, 0.95), 0.9, batch_size=32) == pytest.approx(32 * (30 + 10 * 0.1 / 0.15))
    assert clips_to_reach(looks(0.2, 0.9), 0.9, 32) == pytest.approx(32 * 20)
    assert clips_to_reach(looks(0.8), 0.4, 32) == pytest.approx(32 * 5)  # from zero
    assert clips_to_reach(looks(0.2, 0.5), 0.9, 32) is None
    assert clips_to_reach(looks(0.2, 1.0), 0.4, 32, head="verb") == pytest.approx(32 * 17.5)


def test_rise_compares_the_last_quarter_with_the_third():
    assert rise(looks(0.0, 0.1, 0.5, 0.6, 0.8, 0.8, 0.9, 0.9)) == pytest.approx(0.1)
    assert rise(looks(0.5)) == 0


def test_a_run_that_is_measured_by_clips_stops_at_the_accuracy():
    assert ClipsToReach(accuracy=0.8).configure(BASE).stop_accuracy == 0.8
    assert Accuracy().configure(BASE) == BASE


@pytest.mark.parametrize("measure", [Accuracy("verb", trained=True), ClipsToReach("noun", 0.75)])
def test_measures_survive_json(measure):
    assert measure_from_json(measure.to_json()) == measure


def test_numbers_are_written_with_their_intervals():
    accuracy, clips = Accuracy(), ClipsToReach()
    assert accuracy.text(93.61, 17.8) == "93.6 ± 17.8"
    assert accuracy.text(93.61, math.inf) == "93.6"
    assert accuracy.difference(4.2, 1.0) == "+4.2 ± 1.0"
    assert clips.text(math.log(2710), math.log(1.5)) == "2,710 (1,807 to 4,065)"
    assert clips.text(math.log(2710), math.inf) == "2,710"
    assert clips.difference(math.log(1.2), math.log(1.1)) == "1.20 (1.09 to 1.32)"
    assert (accuracy.title, Accuracy("verb").title) == ("accuracy", "verb")
    assert (clips.title, ClipsToReach("verb", 0.5).title) == ("clips to 90 %", "clips to 50 % of verb")


def test_margins_are_checked():
    assert Accuracy().read_margin(2) == 2
    assert ClipsToReach().read_margin(1.5) == pytest.approx(math.log(1.5))
    with pytest.raises(ValueError, match="margin 0 is not positive"):
        Accuracy().read_margin(0)
    with pytest.raises(ValueError, match=r"margin 0.5 is not above 1; it is a ratio of clips, such as 1\.25"):
        ClipsToReach().read_margin(0.5)


def reaching(name, clips, most=19_200):
    """A row whose runs took these clips, or were stopped at the most."""
    made = row(name, dict.fromkeys(range(len(clips)), 0.9))
    for seed, one in enumerate(clips):
        made.results[seed] |= {"clips": min(one, most), "reached": one <= most}
    return made


def test_ratios_of_clips_are_taken_seed_by_seed():
    first, other = reaching("first", [1000, 2000, 4000]), reaching("other", [1500, 3000, 6100])
    compared = compare(other, first, Design(ClipsToReach()))
    assert math.exp(compared.middle) == pytest.approx((1.5 * 1.5 * 1.525) ** (1 / 3))
    assert compared.decision.sign == 1
    assert compared.bound == 0


def test_a_censored_run_makes_a_ratio_a_bound_and_never_equal():
    first, other = reaching("first", [18_000, 19_000, 18_500]), reaching("other", [50_000, 90_000, 19_100])
    design = Design(ClipsToReach())
    compared = compare(other, first, design)
    assert (compared.bound, compared.decision.equal, compared.p_unequal) == (1, False, 1.0)
    assert compare(first, other, design).bound == -1
    both = [reaching(name, [50_000] * 3) for name in "ab"]
    assert not compare(*both, design).decision.decided
    finished = [reaching(name, [10_000, 11_000, 10_500]) for name in "ab"]
    assert compare(*finished, design).decision.equal


def test_censoring_makes_no_difference_where_there_is_none():
    """2,000 simulated pairs of the same distribution, of which a third of the runs is censored, with six seeds each."""
    rng = np.random.default_rng(0)
    clips = np.exp(rng.normal(9, 0.6, (2000, 2, 6))).clip(max=11_000)
    differences = np.diff(np.log(clips), axis=1)[:, 0]
    assert 0.2 < (clips == 11_000).mean() < 0.5
    for interval in (t_interval, anytime_interval):
        wrong = np.mean([abs(middle) > half for middle, half in map(interval, differences)])
        assert wrong <= ALPHA + 2 * (ALPHA * (1 - ALPHA) / 2000) ** 0.5
