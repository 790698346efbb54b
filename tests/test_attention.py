import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import randomise
from vivit_zoo.attention import Attention, attend, attend_over_time, attend_split_heads

STRATEGIES = [attend, attend_over_time, attend_split_heads]
sizes = st.integers(1, 4)


def qkv(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(3)]


def softmax_attention(q, k, v):
    return torch.softmax(q @ k.mT / q.shape[-1] ** 0.5, dim=-1) @ v


@given(lead=st.lists(sizes, max_size=3), h=sizes, n=sizes, d=sizes)
def test_attend_is_softmax_attention_under_any_number_of_batch_axes(lead, h, n, d):
    q, k, v = qkv(*lead, h, n, d)
    torch.testing.assert_close(attend(q, k, v), softmax_attention(q, k, v))


@given(b=sizes, t=sizes, h=sizes, n=sizes, d=sizes)
def test_over_time_is_attention_of_each_place_alone(b, t, h, n, d):
    q, k, v = qkv(b, t, h, n, d)
    out = attend_over_time(q, k, v)
    for place in range(n):
        one = [x[:, :, :, place].transpose(1, 2) for x in (q, k, v)]  # b h t d
        torch.testing.assert_close(out[:, :, :, place], softmax_attention(*one).transpose(1, 2))


@given(b=sizes, t=sizes, half=sizes, n=sizes, d=sizes)
def test_split_heads_gives_time_the_first_half(b, t, half, n, d):
    q, k, v = qkv(b, t, 2 * half, n, d)
    time, space = attend_split_heads(q, k, v).split(half, dim=2)
    torch.testing.assert_close(time, attend_over_time(*(x[:, :, :half] for x in (q, k, v))))
    torch.testing.assert_close(space, attend(*(x[:, :, half:] for x in (q, k, v))))


def test_split_heads_equals_the_original_code(parity):
    functions = parity / "functions.npz"
    arrays = np.load(functions)
    # The original's layout is (b, t, n, h, d).
    q, k, v = (torch.from_numpy(arrays[f"fdp_{name}"]).transpose(2, 3) for name in "qkv")
    out = attend_split_heads(q, k, v).transpose(2, 3).numpy()
    np.testing.assert_allclose(out, arrays["fdp_out"], atol=3e-7, rtol=0)


@pytest.mark.parametrize(
    ("strategy", "sees"),
    [
        (attend, lambda frame, place: frame == 1),
        (attend_over_time, lambda frame, place: place == 2),
        (attend_split_heads, lambda frame, place: frame == 1 or place == 2),
    ],
)
def test_who_sees_whom(strategy, sees):
    """Changing frame 1, place 2 changes exactly the tokens that attend to it, and no other sample."""
    attention = randomise(Attention(8, 4, attend=strategy)).double()
    x = torch.randn(2, 3, 5, 8, dtype=torch.float64)
    changed = x.clone()
    changed[0, 1, 2] += 1
    moved = (attention(changed) - attention(x)).abs().amax(-1) > 1e-9
    expected = torch.tensor([[sees(frame, place) for place in range(5)] for frame in range(3)])
    assert torch.equal(moved[0], expected)
    assert not moved[1].any()


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_dropout_only_in_training(strategy):
    attention = randomise(Attention(8, 4, attend=strategy, attn_drop=0.5, proj_drop=0.5))
    x = torch.randn(2, 3, 5, 8)
    attention.eval()
    torch.testing.assert_close(attention(x), attention(x), rtol=0, atol=0)
    attention.train()
    assert not torch.equal(attention(x), attention(x))


def test_somebody_elses_strategy_receives_q_k_v_and_the_rate():
    seen = {}

    def record(q, k, v, dropout):
        seen.update(shape=q.shape, dropout=dropout)
        return v

    attention = Attention(8, 2, attend=record, attn_drop=0.25)
    attention(torch.randn(3, 5, 8))
    assert seen == {"shape": (3, 2, 5, 4), "dropout": 0.25}
    attention.eval()(torch.randn(3, 5, 8))
    assert seen["dropout"] == 0.0


def test_heads_must_divide_the_width():
    with pytest.raises(ValueError, match="dim 10 is not divisible by num_heads 4"):
        Attention(10, 4)


def test_kernels_start_as_square_xavier_matrices():
    """As a (3d, d) matrix the fused kernel would start too narrow."""
    bound = (6 / (64 + 64)) ** 0.5
    for weight in Attention(64, 4).qkv.weight.chunk(3):
        assert 0.95 * bound < weight.abs().max() <= bound
