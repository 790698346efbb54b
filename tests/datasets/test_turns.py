"""TurningDigits: the label is what the pixels show, and pieces without their order do not show it."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from vivit_zoo.datasets.turns import TurningDigits


@pytest.mark.parametrize("difficulty", TurningDigits.levels)
def test_the_label_counts_the_turns_in_the_picture(difficulty):
    """Found from the frames alone: which way the first frame of each piece has to be shifted to give the second."""
    dataset = TurningDigits("train", difficulty=difficulty)
    for index in range(30):
        video, label = dataset[index]
        directions = []
        for first, second in video[0].unflatten(0, (8, 2)):
            shift = round(TurningDigits.speeds[difficulty])
            down, up = ((first.roll(way * shift, 0) - second).square().mean() for way in (1, -1))
            directions.append(1 if down < up else -1)
        assert sum(directions) == 0
        assert sum(a != b for a, b in pairwise(directions)) == TurningDigits.counts[label]
        assert TurningDigits.classes[label] == f"{TurningDigits.counts[label]} turns"


def test_a_piece_is_alike_in_all_classes():
    """Over all sequences of a class each piece moves up as often as down, and each clip has four of both."""
    for count in TurningDigits.counts:
        sequences = np.array(TurningDigits.sequences[count])
        assert (sequences.sum(0) == 0).all()
        assert (sequences.sum(1) == 0).all()
        assert len({tuple(sequence) for sequence in sequences}) == len(sequences)


def test_clips_with_other_counts_have_the_same_pieces():
    """The order of the pieces decides the label and nothing in any piece: the bags are equal, pixel by pixel."""
    dataset = TurningDigits("train")
    draw = dataset._draw(0)
    bags, labels = [], set()
    for seed in range(12):
        order = np.random.default_rng(seed).permutation(8)
        changed = draw | {"direction": draw["direction"][order], "place": draw["place"][order]}
        if sum(a != b for a, b in pairwise(changed["direction"])) not in TurningDigits.counts:
            continue
        pieces = dataset._render_all([changed])[0].unflatten(0, (8, 2)).flatten(1)
        bags.append(torch.tensor(sorted(pieces.tolist())))
        labels.add(dataset._label(changed))
    assert len(labels) > 1
    for bag in bags[1:]:
        torch.testing.assert_close(bag, bags[0], rtol=0, atol=1e-5)
