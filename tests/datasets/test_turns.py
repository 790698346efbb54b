"""TurningDigits: the label is what the pixels show, and pieces without their order do not show it."""

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
import torch

from vivit_zoo.datasets.turns import TurningDigits


@pytest.mark.parametrize("difficulty", TurningDigits.levels)
def test_the_label_counts_the_turns_in_the_picture(difficulty):
    """Found from the frames alone: which way each frame of a piece has to be shifted to give the next."""
    dataset = TurningDigits("train", difficulty=difficulty)
    for index in range(30):
        video, label = dataset[index]
        directions = []
        for piece in video[0].unflatten(0, (4, 4)):
            shift = round(TurningDigits.speeds[difficulty])
            down, up = ((piece[:-1].roll(way * shift, 1) - piece[1:]).square().mean() for way in (1, -1))
            directions.append(1 if down < up else -1)
        assert directions.count(-1) in (2, 3)
        assert sum(a != b for a, b in pairwise(directions)) == TurningDigits.counts[label]
        assert TurningDigits.classes[label].startswith(f"{TurningDigits.counts[label]} turn")


def test_ceilings_are_those_of_the_sequences():
    """The best answer to one piece, and to the number of pieces that move up, over all equally likely sequences."""
    counts, sequences = TurningDigits.counts, TurningDigits.sequences
    assert set(sequences) == set(counts)

    def best(what):
        shown = {count: Counter(what(one) for one in sequences[count]) for count in counts}
        answers = {seen for of_count in shown.values() for seen in of_count}
        return sum(max(shown[c][seen] / shown[c].total() for c in counts) for seen in answers) / len(counts)

    assert best(lambda one: tuple(sorted(one))) == TurningDigits.bag_ceiling
    assert best(lambda one: one) == 1
    pieces = {count: Counter(piece for one in sequences[count] for piece in one) for count in counts}
    of_piece = sum(max(pieces[c][way] / pieces[c].total() for c in counts) for way in (-1, 1)) / len(counts)
    assert of_piece == pytest.approx(3 / 8)
    assert TurningDigits.frame_ceiling == 1 / len(counts)


def test_clips_with_other_counts_have_the_same_pieces():
    """The order of the pieces decides the label and nothing in any piece: the bags are equal, pixel by pixel."""
    dataset = TurningDigits("train")
    draw = dataset._draw(0) | {"direction": np.array([-1, -1, 1, 1])}
    bags, labels = [], set()
    for order in ([0, 1, 2, 3], [0, 2, 3, 1], [0, 2, 1, 3]):
        changed = draw | {"direction": draw["direction"][order], "place": draw["place"][order]}
        pieces = dataset._render_all([changed])[0].unflatten(0, (4, 4)).flatten(1)
        bags.append(torch.tensor(sorted(pieces.tolist())))
        labels.add(dataset._label(changed))
    assert labels == {0, 1, 2}
    for bag in bags[1:]:
        torch.testing.assert_close(bag, bags[0], rtol=0, atol=1e-5)
