"""Shared by the tests of weights."""

import pytest

from tests.conftest import randomise, tiny_config
from vivit_zoo import ViViT


@pytest.fixture
def saved(tmp_path):
    folder = tmp_path / "model"
    randomise(ViViT(tiny_config())).save_pretrained(folder)
    return folder
