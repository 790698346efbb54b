"""Which frames make a clip, and which views make a test."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vivit_zoo.clips import clip_indices, clip_offsets
from vivit_zoo.video import VideoError

lengths, counts = st.integers(1, 400), st.integers(1, 40)


@given(lengths, st.integers(1, 10), counts, st.integers(1, 8))
def test_offsets_are_those_of_the_original(length, clips, frames, stride):
    last = max(0, length - frames * stride)
    offsets = clip_offsets(length, clips, frames, stride)
    if clips == 1:
        assert offsets == [(length - frames * stride) // 2 if last else 0]
    else:
        assert offsets == [int(x) for x in np.linspace(0, last, clips)]
        assert (offsets[0], offsets[-1]) == (0, last)


def test_offsets_by_hand():
    assert clip_offsets(300, 4) == [0, 78, 157, 236]
    assert clip_offsets(300) == [118]
    assert clip_offsets(64, 4) == [0, 0, 0, 0]
    assert clip_offsets(10, 3) == [0, 0, 0]


@given(lengths, st.data(), counts, st.integers(1, 8))
def test_policies(length, data, frames, stride):
    offset = data.draw(st.integers(0, length - 1))
    plain = [offset + i * stride for i in range(frames)]
    repeated = clip_indices(length, offset, frames, stride)
    assert repeated.tolist() == [min(i, length - 1) for i in plain]
    tiled = list(range(length)) * (plain[-1] // length + 1)
    assert clip_indices(length, offset, frames, stride, "wrap").tolist() == [tiled[i] for i in plain]
    if plain[-1] < length:
        assert clip_indices(length, offset, frames, stride, "error").tolist() == plain
    else:
        with pytest.raises(VideoError, match=f"{length} frames are too few: .* need {plain[-1] + 1}; use a smaller"):
            clip_indices(length, offset, frames, stride, "error")


def test_wrong_arguments_of_the_sampling():
    with pytest.raises(ValueError, match="policy 'loop' is unknown; choose from repeat_last, wrap, error"):
        clip_indices(9, policy="loop")
    with pytest.raises(ValueError, match="offset 9 is outside a video of 9 frames"):
        clip_indices(9, 9)
    with pytest.raises(ValueError, match="clip of 0 frames with stride 2 is empty"):
        clip_indices(9, frames=0)
    with pytest.raises(ValueError, match="clips 0 is not positive"):
        clip_offsets(9, 0)
