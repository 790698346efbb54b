import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vivit_zoo.evaluate import evaluate, shuffle_frames, swap_halves


def counted(b, t):
    """Videos whose pixels are the number of their frame."""
    return torch.arange(t, dtype=torch.float32).view(1, 1, t, 1, 1).expand(b, 2, t, 3, 4)


@given(b=st.integers(1, 4), t=st.integers(1, 9))
def test_shuffling_permutes_whole_frames_and_is_repeatable(b, t):
    video = torch.randn(b, 2, t, 3, 4)
    shuffled = shuffle_frames()(video)
    assert torch.equal(shuffled, shuffle_frames()(video))
    order = shuffle_frames()(counted(b, t))[:, 0, :, 0, 0].long()
    assert torch.equal(order.sort(dim=1).values, torch.arange(t).expand(b, t))
    for sample in range(b):
        assert torch.equal(shuffled[sample], video[sample][:, order[sample]])


def test_each_clip_is_shuffled_differently_whatever_the_batches():
    shuffle = shuffle_frames()
    orders = [tuple(row) for b in (1, 5, 2) for row in shuffle(counted(b, 16))[:, 0, :, 0, 0].tolist()]
    assert len(set(orders)) == 8
    assert orders == [tuple(row) for row in shuffle_frames()(counted(8, 16))[:, 0, :, 0, 0].tolist()]


@given(b=st.integers(1, 3), half=st.integers(1, 5))
def test_swapping_halves(b, half):
    video = torch.randn(b, 2, 2 * half, 3, 4)
    assert torch.equal(swap_halves(video), torch.cat([video[:, :, half:], video[:, :, :half]], dim=2))


def test_accuracy_counts_clips_not_batches():
    """Batches of different sizes weigh by their clips."""

    def model(video):
        return torch.nn.functional.one_hot(video[:, 0].long(), 3).float()

    batches = [(torch.tensor([[0], [1], [2]]), torch.tensor([0, 1, 1])), (torch.tensor([[2]]), torch.tensor([0]))]
    scores = evaluate(model, batches)
    assert scores.accuracy() == 0.5
    assert scores.accuracy(torch.tensor([0, 1, 2, 2])) == 1.0
    assert scores.logits.shape == (4, 3)


def test_change_is_applied_before_the_model():
    scores = evaluate(lambda x: x, [(torch.eye(2), torch.tensor([0, 1]))], change=lambda x: x.flip(0))
    assert scores.accuracy() == 0.0


def test_no_gradients_are_kept():
    weight = torch.ones(2, requires_grad=True)
    assert not evaluate(lambda x: x * weight, [(torch.eye(2), torch.tensor([0, 1]))]).logits.requires_grad


def test_nothing_to_evaluate():
    with pytest.raises(ValueError, match="data set is empty"):
        evaluate(lambda x: x, [])


def test_half_precision_logits_are_kept_in_float32():
    scores = evaluate(lambda x: x.bfloat16(), [(torch.eye(2), torch.tensor([0, 1]))])
    assert scores.logits.dtype == torch.float32
