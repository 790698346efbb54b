import pytest
import torch

from tests.conftest import VARIANTS, tiny_model, video_for
from vivit_zoo.encoders import Encoder
from vivit_zoo.interpret import tokens_to_grid


@pytest.mark.parametrize(("variant", "per_place"), [*((name, False) for name in VARIANTS), (VARIANTS[1], True)])
def test_tokens_of_every_block_are_those_of_forward_intermediates(variant, per_place):
    """Which keeps the grid by itself; here the output of each block is put back on it."""
    options = {"reg_tokens": 2} if variant in VARIANTS[:2] else {}
    options |= {"temporal_per_place": True, "global_pool": "avg"} if per_place else {}
    model = tiny_model(variant=variant, **options)
    blocks = [block for encoder in model.modules() if isinstance(encoder, Encoder) for block in encoder.blocks]
    kept = []
    hooks = [block.register_forward_hook(lambda _, __, out: kept.append(out)) for block in blocks]
    with torch.no_grad():
        _, expected = model.forward_intermediates(video_for(model.config))
    for hook in hooks:
        hook.remove()
    assert len(kept) == len(expected)
    for tokens, wanted in zip(kept, expected, strict=True):
        assert torch.equal(tokens_to_grid(model, tokens), wanted.permute(0, 4, 1, 2, 3))


def test_other_tokens_are_refused():
    with pytest.raises(ValueError, match=r"tokens of shape \(2, 2, 24\) are not of a grid of 3 x 2 x 3 places"):
        tokens_to_grid(tiny_model(), torch.zeros(2, 2, 24))
