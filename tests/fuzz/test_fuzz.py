"""Every reader gives a result or our own error, whatever is done to its files."""

import os
import random

import pytest

from tests.fuzz import FUZZERS
from tests.fuzz.mutate import count_outcomes

EXPLORE = os.environ.get("HYPOTHESIS_PROFILE") == "explore"
FIRST = random.randrange(2**40) if EXPLORE else 0
FOUND = {"video: mp4": [10973], "list: list of classes": [200081]}  # seeds that once gave another exception


@pytest.mark.parametrize("name", FUZZERS)
def test_damage_gives_a_result_or_our_own_error(name, tmp_path):
    count = 3000 if EXPLORE else 30
    seeds = [*range(FIRST, FIRST + count), *FOUND.get(name, [])]
    outcomes = count_outcomes(FUZZERS[name], tmp_path, seeds)
    assert outcomes.total() == len(seeds)
    assert outcomes["own error"]
