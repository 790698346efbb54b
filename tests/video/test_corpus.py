"""Of every awkward video the frames are those that were painted, at random places, from files and from bytes."""

import numpy as np
import pytest

from tests.corpus import CORPUS, REFUSED
from tests.footage import numbers_of
from vivit_zoo.video.reader import VideoError, VideoReader


@pytest.mark.parametrize("awkward", CORPUS, ids=lambda awkward: awkward.name)
def test_frames_at_random_places_are_those_that_were_painted(tmp_path, awkward):
    path = tmp_path / awkward.name
    awkward.write(path)
    places = np.random.default_rng(0).integers(0, len(awkward.numbers), 20)
    for source in (path, path.read_bytes()):
        with VideoReader(source, threads=1) as video:
            assert len(video) == len(awkward.numbers)
            assert (np.diff(video.times) > 0).all()
            frames = np.stack([video.read([place])[0] for place in places])
            np.testing.assert_array_equal(video.read(places), frames)  # what lies between may be left out
        stored = np.rot90(frames, -awkward.quarter_turns, axes=(1, 2))
        assert numbers_of(stored) == [awkward.numbers[place] for place in places]


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_is_refused_in_words(tmp_path, name):
    write, message = REFUSED[name]
    write(tmp_path / name)
    with pytest.raises(VideoError, match=f"{name}: {message}"):
        VideoReader(tmp_path / name)
