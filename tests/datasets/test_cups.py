"""HiddenDigits: the label is what the pixels show, and frames without their order do not show it."""

from itertools import permutations

import numpy as np
import pytest
import torch

from vivit_zoo.datasets.cups import HiddenDigits


@pytest.mark.parametrize("difficulty", HiddenDigits.levels)
def test_the_label_is_where_the_digit_ends_in_the_picture(difficulty):
    """Found from the frames alone: where the digit is in the look, and which two cups leave their height in a swap."""
    dataset = HiddenDigits("train", difficulty=difficulty)
    for index in range(30):
        video, label = dataset[index]
        events = ((video[0] + 1) / 2).unflatten(0, (4, 4))  # (event, frame, h, w)
        look = 3 - difficulty
        strips = [slice(0, 11), slice(11, 21), slice(21, 32)]
        below = [events[look, 1, 17:, strip].sum() for strip in strips]  # lifted cups end above row 17
        place = int(np.argmax(below))
        for event in range(look + 1, 4):
            rows = torch.arange(32.0)
            mass = [events[event, 0][:, strip].clamp(min=0.3).sub(0.3).sum(1) for strip in strips]
            heights = torch.stack([(one * rows).sum() / one.sum() for one in mass])
            idle = int((heights - heights.mean()).abs().argmin())  # one of the others is above, one below
            if place != idle:
                place = 3 - idle - place
        assert place == label


@pytest.mark.parametrize("difficulty", HiddenDigits.levels)
def test_what_a_frame_shows_is_right_in_half_of_the_clips(difficulty):
    """The look shows the start, which is all that a bag of frames shows; other frames show a swap at a known time."""
    dataset = HiddenDigits("train", difficulty=difficulty)
    draws = [dataset._draw(index) for index in range(3000)]
    for shown in ("start", 0, 1, 2):
        ends: dict[int, list[int]] = {}
        for draw in draws:
            known = draw["start"] if shown == "start" else draw["order"][shown]
            ends.setdefault(int(known), []).append(dataset._label(draw))
        for known, places in ends.items():
            shares = np.bincount(places, minlength=3) / len(places)
            assert shares.max() < HiddenDigits.frame_ceiling + 4 * 0.5 / len(places) ** 0.5
            if shown == "start":
                assert shares[known] == 0
                assert shares.max() == pytest.approx(HiddenDigits.bag_ceiling, abs=0.07)


@pytest.mark.parametrize("difficulty", HiddenDigits.levels)
def test_clips_with_other_ends_have_the_same_frames(difficulty):
    """The order of the swaps decides the label and nothing in any frame: the bags are equal, pixel by pixel."""
    dataset = HiddenDigits("train", difficulty=difficulty)
    draw = dataset._draw(3)
    bags, ends = [], set()
    for order in permutations(range(3)):
        changed = draw | {"order": np.array(order), "above": np.array([order[i] % 2 for i in range(3)])}
        frames = dataset._render_all([changed])[0].flatten(1)
        bags.append(sorted(frames.tolist()))
        ends.add(dataset._label(changed))
    assert len(ends) > 1
    for bag in bags[1:]:
        torch.testing.assert_close(torch.tensor(bag), torch.tensor(bags[0]), rtol=0, atol=1e-5)
