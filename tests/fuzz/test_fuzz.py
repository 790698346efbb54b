"""Every reader gives a result or our own error, whatever is done to its files."""

import os
import random

import pytest

from tests.fuzz import FUZZERS
from tests.fuzz.mutate import count_outcomes

EXPLORE = os.environ.get("HYPOTHESIS_PROFILE") == "explore"
FIRST = random.randrange(2**40) if EXPLORE else 0


@pytest.mark.parametrize("name", FUZZERS)
def test_damage_gives_a_result_or_our_own_error(name, tmp_path):
    count = 3000 if EXPLORE else 30
    outcomes = count_outcomes(FUZZERS[name], tmp_path, range(FIRST, FIRST + count))
    assert outcomes.total() == count
    assert outcomes["own error"]
