"""Statistics of studies, by their definitions and by simulation with fixed seeds."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from vivit_zoo.studies import statistics
from vivit_zoo.studies.statistics import (
    ALPHA,
    anytime_interval,
    anytime_p_value,
    anytime_width,
    decide,
    equivalence_p_value,
    holm,
    seeds_needed,
    simulate_sequential,
    t_interval,
    t_p_value,
    t_width,
)

SAMPLES = st.lists(st.floats(-100, 100).map(lambda x: round(x, 3)), min_size=3, max_size=12).filter(
    lambda values: np.std(values) > 0.01
)


def test_t_interval_is_students():
    values = [0.9, 0.95, 0.97, 0.91]
    middle, half = t_interval(values)
    low, high = stats.t.interval(0.95, len(values) - 1, loc=middle, scale=stats.sem(values))
    assert (middle - half, middle + half) == pytest.approx((low, high))
    assert t_interval([0.5]) == (0.5, float("inf"))
    assert anytime_interval([0.5]) == (0.5, float("inf"))


def test_p_values_are_those_of_scipy():
    values = [1.0, 2.0, 0.5, 1.2]
    assert t_p_value(values) == pytest.approx(stats.ttest_1samp(values, 0).pvalue)
    sides = [stats.ttest_1samp(values, at, alternative=side).pvalue for at, side in [(3, "less"), (-3, "greater")]]
    assert equivalence_p_value(values, 3.0) == pytest.approx(2 * max(sides))
    assert t_p_value([1.0]) == t_p_value([0.0, 0.0]) == equivalence_p_value([4.0, 4.1], 3.0) == 1
    assert t_p_value([1.0, 1.0]) == 0


@given(values=SAMPLES, at=st.floats(-150, 150))
def test_intervals_are_what_their_tests_do_not_reject(values, at):
    for interval, p_value in [
        (t_interval, lambda v, at: t_p_value([x - at for x in v])),
        (anytime_interval, anytime_p_value),
    ]:
        middle, half = interval(values)
        if not abs(abs(middle - at) - half) < 1e-6 * (1 + half):  # at the edge rounding decides
            assert (p_value(values, at) < ALPHA) == (abs(middle - at) > half)


@given(values=SAMPLES, margin=st.floats(0.1, 200))
def test_equality_is_shown_where_the_interval_is_within_the_margin(values, margin):
    middle, half = t_interval(values)
    if abs(abs(middle) + half - margin) > 1e-6 * margin:
        assert (equivalence_p_value(values, margin) <= ALPHA) == decide(middle, half, margin).equal


def test_a_decision_is_away_from_zero_or_equal_or_both():
    assert decide(3, 1, 5) == statistics.Decision(1, True)
    assert decide(-7, 1, 5) == statistics.Decision(-1, False)
    assert decide(1, 2, 5) == statistics.Decision(0, True)
    assert not decide(4, 5, 5).decided
    assert not decide(4, float("inf"), 5).decided


def test_anytime_intervals_are_wider_and_shrink():
    n = np.arange(1, 200)
    anytime, once = anytime_width(n), t_width(n)
    assert np.isinf(anytime[0])
    assert (anytime[1:] > once[1:]).all()
    assert (np.diff(anytime[2:]) < 0).all()
    assert (anytime_width(n[2:], 0.01) > anytime[2:]).all()


@pytest.mark.parametrize("comparisons", [1, 5])
@pytest.mark.parametrize("max_seeds", [10, 30])
def test_null_studies_stop_wrongly_in_at_most_five_percent(comparisons, max_seeds):
    """10,000 studies without any difference, which look after each seed and stop when all is decided."""
    assert simulate_sequential(0.0, 1e-6, max_seeds, comparisons).away <= ALPHA
    assert simulate_sequential(0.0, 1.0, max_seeds, comparisons).away <= ALPHA


def test_studies_of_a_difference_as_large_as_the_margin_call_it_equal_in_at_most_five_percent():
    for margin in (0.7, 1.5, 3.0):
        assert simulate_sequential(margin, margin).equal <= ALPHA


def test_students_interval_would_stop_wrongly_far_more_often(monkeypatch):
    monkeypatch.setattr(statistics, "anytime_width", t_width)
    assert simulate_sequential(0.0, 1e-6).away > 3 * ALPHA


def test_studies_stop_sooner_the_larger_the_effect():
    found = [simulate_sequential(effect, 0.5, comparisons=3) for effect in (1.0, 2.0, 4.0)]
    assert [round(one.away, 2) for one in found] == pytest.approx([1, 1, 1], abs=0.05)
    seeds = [one.seeds.mean() for one in found]
    assert seeds == pytest.approx([22.7, 9.1, 5.3], abs=1.0)
    assert all(one.seeds.min() >= statistics.LEAST_SEEDS for one in found)


@pytest.mark.parametrize(("effect", "margin"), [(2.0, 0.5), (0.0, 1.5), (1.0, 0.01)])
def test_the_seeds_needed_are_those_at_which_studies_stop(effect, margin):
    seeds = simulate_sequential(effect, margin, max_seeds=60, studies=2000).seeds
    assert seeds_needed(effect, 1.0, margin) == pytest.approx(np.median(seeds), rel=0.25)


def test_the_seeds_needed_are_the_first_number_that_decides():
    needed = seeds_needed(1.0, 1.0, 0.1, width=t_width)
    assert t_width(needed) < 1 <= t_width(needed - 1)
    assert seeds_needed(5.0, 20.0, 5.0, most=10) is None
    assert seeds_needed(5.0, 0.0, 1.0) == statistics.LEAST_SEEDS


def test_holm():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_holm_holds_the_error_of_all_together():
    rng = np.random.default_rng(0)
    wrong = [min(holm(one.tolist())) <= ALPHA for one in rng.uniform(size=(4000, 8))]
    assert 0.03 < np.mean(wrong) < 0.06
    assert np.mean(rng.uniform(size=(4000, 8)).min(1) <= ALPHA) > 0.3  # without it
