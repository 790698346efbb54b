import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vivit_zoo.evaluation.evaluate import average_views, evaluate, shuffle_frames, swap_halves
from vivit_zoo.evaluation.scores import Scores


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
    assert not average_views(lambda x: x.flatten(1) * weight, torch.ones(1, 2, 1, 1, 1, 2)).requires_grad


def test_small_labels_are_scored_as_numbers():
    scores = evaluate(lambda x: x, [(torch.eye(2), torch.tensor([0, 1], dtype=torch.uint8))])
    assert scores.labels.dtype == torch.int64


def test_another_seed_shuffles_otherwise():
    assert not torch.equal(shuffle_frames(1)(counted(2, 16)), shuffle_frames(2)(counted(2, 16)))


def test_nothing_to_evaluate():
    with pytest.raises(ValueError, match="data set is empty"):
        evaluate(lambda x: x, [])


def test_half_precision_logits_are_kept_in_float32():
    scores = evaluate(lambda x: x.bfloat16(), [(torch.eye(2), torch.tensor([0, 1]))])
    assert scores.logits.dtype == torch.float32


def mean_pixels(video):
    """A model that sees the mean of each channel."""
    assert video.ndim == 5
    return 9 * video.mean((2, 3, 4))


def heads(video):
    return {"noun": mean_pixels(video), "verb": mean_pixels(video).flip(1)}


def views(b=3, v=4):
    return torch.randn(b, v, 2, 3, 4, 5, generator=torch.Generator().manual_seed(0))


def test_views_are_averaged_as_logits_or_on_request_as_probabilities():
    video, label = views(), torch.tensor([0, 1, 0])
    each = torch.stack([mean_pixels(view) for view in video.unbind(1)])
    plain = evaluate(mean_pixels, [(video, label)])
    torch.testing.assert_close(plain.logits, each.mean(0))
    soft = evaluate(mean_pixels, [(video, label)], average="softmax")
    torch.testing.assert_close(soft.logits.softmax(1), each.softmax(-1).mean(0))
    assert not torch.allclose(soft.logits.softmax(1), plain.logits.softmax(1))
    by_head = evaluate(heads, [(video, {"noun": label, "verb": label})], average="softmax")
    torch.testing.assert_close(by_head.logits["noun"], soft.logits)
    torch.testing.assert_close(average_views(heads, video)["verb"], plain.logits.flip(1))


def test_a_change_sees_each_view_as_a_clip():
    seen = []
    evaluate(mean_pixels, [(views(), torch.tensor([0, 1, 0]))], change=lambda x: seen.append(x.shape) or x)
    assert seen == [(3, 2, 3, 4, 5)] * 4


def test_heads_and_indices_of_several_batches():
    batches = [
        (video, {"noun": label, "verb": 1 - label}, index)
        for video, label, index in zip(
            views(5).split(2),
            torch.tensor([0, 1, 0, 1, 1]).split(2),
            torch.tensor([4, 2, 0, 1, 3]).split(2),
            strict=True,
        )
    ]
    scores = evaluate(heads, batches)
    assert scores.indices.tolist() == [4, 2, 0, 1, 3]
    assert scores.labels["verb"].tolist() == [1, 0, 1, 0, 0]
    assert scores.heads["noun"].accuracy() == scores.heads["verb"].accuracy() == scores.accuracy()
    ordered = Scores.merge([scores])
    assert ordered.labels["noun"].tolist() == [0, 1, 1, 1, 0]


@given(st.integers(1, 9), st.integers(1, 4), st.integers(1, 4))
def test_processes_together_count_each_clip_once(clips, processes, batch_size):
    """As a sampler deals the clips: the sizes need not divide."""
    video, label = torch.randn(clips, 2, 1, 1, 1), torch.arange(clips) % 2
    whole = evaluate(mean_pixels, [(video, label)])
    parts = [
        evaluate(mean_pixels, [(video[i], label[i], i) for i in torch.arange(rank, clips, processes).split(batch_size)])
        for rank in range(min(processes, clips))
    ]
    merged = Scores.merge(parts)
    assert merged.accuracy() == whole.accuracy()
    assert torch.equal(merged.logits, whole.logits)


@pytest.mark.parametrize("views", [1, 2])
@pytest.mark.parametrize("indices", [False, True])
def test_a_boolean_third_element_is_the_mask(views, indices):
    """Batches of `VideoClips` and `VideoViews` under the policy "mask", as a plain `DataLoader` collates them."""

    def model(video, mask):
        return (video * mask[:, None, :, None, None]).sum((1, 3, 4))

    video = torch.randn(3, views, 2, 4, 2, 2)
    mask = torch.rand(3, views, 4) < 0.5
    label, places = torch.tensor([0, 1, 2]), (torch.tensor([4, 0, 2]),) if indices else ()
    batch = (video, label, mask, *places) if views > 1 else (video[:, 0], label, mask[:, 0], *places)
    expected = torch.stack([model(video[:, v], mask[:, v]) for v in range(views)]).mean(0)
    scores = evaluate(model, [batch])
    torch.testing.assert_close(scores.logits, expected)
    assert (scores.indices is None) is not indices
    with pytest.raises(ValueError, match="clips with a mask cannot be changed"):
        evaluate(model, [batch], change=swap_halves)
