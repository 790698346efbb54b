"""Accuracies and predictions, against the original's numbers and against counting one by one."""

import csv
import itertools
import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vivit_zoo.evaluation.scores import Scores


def random_scores(clips: int, classes: int, seed: int = 0) -> Scores:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (clips,), generator=generator)
    return Scores(torch.randn(clips, classes, generator=generator), labels, torch.arange(clips))


def random_heads(clips: int, sizes: dict[str, int], seed: int = 0) -> Scores:
    parts = {name: random_scores(clips, size, seed + i) for i, (name, size) in enumerate(sizes.items())}
    return Scores(
        {name: one.logits for name, one in parts.items()},
        {name: one.labels for name, one in parts.items()},
        torch.arange(clips),
    )


@pytest.fixture(scope="module")
def epic(parity):
    """The original's verb-noun metrics on 12 clips: logits are nouns, then verbs."""
    return dict(np.load(parity / "epic_metrics.npz"))


@pytest.fixture(scope="module")
def kitchen(epic):
    def split(name):
        return dict(
            zip(("noun", "verb"), torch.tensor(epic[name]).split(epic["class_splits"].tolist(), 1), strict=True)
        )

    return Scores(split("logits"), {head: one.argmax(1) for head, one in split("onehot").items()})


def test_verb_and_noun_as_the_original(epic, kitchen):
    for head in ("noun", "verb"):
        assert kitchen.heads[head].correct().tolist() == epic[f"{head}_acc"].tolist()
    assert len(kitchen) == epic["weights"].sum()  # every clip counts, and counts once


def test_actions_as_the_original(epic, kitchen):
    actions = kitchen.joint()
    torch.testing.assert_close(actions.logits.exp(), torch.tensor(epic["pair_probs"]), atol=1e-7, rtol=1e-5)
    assert torch.equal(torch.nn.functional.one_hot(actions.labels, 24).float(), torch.tensor(epic["pair_labels"]))
    for scores in (kitchen, actions):
        assert scores.correct().tolist() == epic["joint_acc"].tolist()
        assert scores.correct(top=5).tolist() == epic["joint_top5"][:, 0].tolist()
        assert scores.accuracy() == 3 / 12
        assert scores.accuracy(top=5) == epic["joint_top5"].mean()


@given(st.integers(1, 30), st.integers(1, 8), st.integers(1, 9), st.integers(0, 99))
def test_top_k_by_sorting(clips, classes, top, seed):
    scores = random_scores(clips, classes, seed)
    ranks = [
        sorted(range(classes), key=lambda c: -logits[c]).index(label)
        for logits, label in zip(scores.logits.tolist(), scores.labels.tolist(), strict=True)
    ]
    assert scores.correct(top).tolist() == [rank < top for rank in ranks]
    assert scores.accuracy(top=top) == pytest.approx(sum(rank < top for rank in ranks) / clips)


@given(st.integers(1, 20), st.integers(1, 6), st.integers(0, 99))
def test_heads_together_are_right_if_each_is(clips, top, seed):
    scores = random_heads(clips, {"a": 3, "b": 2, "c": 4}, seed)
    each = torch.stack([one.correct() for one in scores.heads.values()])
    assert torch.equal(scores.correct(), each.all(0))
    for i in range(clips):
        shares = [one.logits[i].double().softmax(0).tolist() for one in scores.heads.values()]
        products = {
            key: shares[0][key[0]] * shares[1][key[1]] * shares[2][key[2]]
            for key in itertools.product(range(3), range(2), range(4))
        }
        best = sorted(products, key=lambda key: -products[key])[:top]
        assert scores.correct(top)[i] == (tuple(int(one.labels[i]) for one in scores.heads.values()) in best)


def test_many_clips_with_many_combinations():
    """Epic Kitchens' size; chunks must not be mixed up."""
    scores = random_heads(1100, {"noun": 300, "verb": 97})
    both = scores.heads["noun"].correct() & scores.heads["verb"].correct()
    assert torch.equal(scores.correct(), both)
    assert scores.joint().logits.shape == (1100, 29_100)


@given(st.integers(0, 40), st.integers(1, 6), st.integers(0, 99))
def test_confusion_and_class_accuracy_by_counting(clips, classes, seed):
    scores = random_scores(clips, classes, seed)
    answers = scores.logits.argmax(1).tolist()
    pairs = list(zip(scores.labels.tolist(), answers, strict=True))
    matrix = scores.confusion()
    assert matrix.tolist() == [[pairs.count((label, answer)) for answer in range(classes)] for label in range(classes)]
    expected = matrix.diag().double() / matrix.sum(1)
    torch.testing.assert_close(scores.class_accuracy(), expected, equal_nan=True)
    assert scores.class_accuracy().isnan().tolist() == [label not in scores.labels.tolist() for label in range(classes)]


def test_equal_logits_count_alike_everywhere():
    scores = Scores(torch.zeros(6, 3), torch.tensor([0, 0, 1, 1, 2, 2]))
    assert scores.accuracy() == scores.confusion().diag().sum() / 6 == 2 / 6


@given(st.permutations(range(9)), st.lists(st.integers(0, 9), min_size=2, max_size=2))
def test_merging_restores_the_order(order, cuts):
    low, high = sorted(cuts)
    for whole in (random_scores(9, 4), random_heads(9, {"a": 3, "b": 2})):
        parts = [
            whole._take(torch.tensor(part, dtype=torch.long)) for part in (order[:low], order[low:high], order[high:])
        ]
        merged = Scores.merge(parts)
        assert merged.indices.tolist() == list(range(9))
        for name, one in merged.heads.items():
            assert torch.equal(one.logits, whole.heads[name].logits)
            assert torch.equal(one.labels, whole.heads[name].labels)


def test_a_clip_is_counted_once():
    whole = random_scores(4, 3)
    with pytest.raises(ValueError, match="1 clips were evaluated more than once, for example number 2"):
        Scores.merge([whole._take(torch.tensor([0, 2])), whole._take(torch.tensor([1, 2]))])
    with pytest.raises(ValueError, match="cannot merge 2 parts; each needs indices"):
        Scores.merge([whole, Scores(whole.logits, whole.labels)])
    with pytest.raises(ValueError, match="0 parts"):
        Scores.merge([])


def test_predictions_to_jsonl(tmp_path):
    scores = random_scores(3, 7)._take(torch.tensor([2, 0]))
    scores.save(tmp_path / "p.jsonl", names=["a.mp4", "b.mp4", "c é.mp4"], classes=list("ABCDEFG"))
    first, second = map(json.loads, (tmp_path / "p.jsonl").read_text(encoding="utf-8").splitlines())
    assert (first["index"], first["name"], second["name"]) == (2, "c é.mp4", "a.mp4")
    assert first["label"] == "ABCDEFG"[scores.labels[0]]
    order = scores.logits[0].argsort(descending=True)[:5]
    assert [name for name, _ in first["top"]] == ["ABCDEFG"[i] for i in order]
    assert [share for _, share in first["top"]] == pytest.approx(scores.logits[0].softmax(0)[order].tolist(), abs=1e-6)


def test_predictions_to_csv_by_head(tmp_path):
    random_heads(2, {"noun": 6, "verb": 2}).save(tmp_path / "p.csv", names=["a,b.mp4", "c.mp4"], top=3)
    with (tmp_path / "p.csv").open(newline="") as file:
        first, _ = csv.DictReader(file)
    assert first["name"] == "a,b.mp4"
    assert list(first)[2:] == [
        *["noun_label", "noun_top1", "noun_top1_probability", "noun_top2", "noun_top2_probability"],
        *["noun_top3", "noun_top3_probability", "verb_label"],
        *["verb_top1", "verb_top1_probability", "verb_top2", "verb_top2_probability"],
    ]
    assert float(first["verb_top1_probability"]) + float(first["verb_top2_probability"]) == pytest.approx(1, abs=2e-6)


@pytest.mark.parametrize("scores", [random_scores(5, 3), random_heads(5, {"a": 3, "b": 2})])
@pytest.mark.parametrize("counted", [True, False])
def test_everything_to_a_file_and_back(tmp_path, scores, counted):
    scores = scores if counted else Scores(scores.logits, scores.labels)
    scores.save(tmp_path / "all.npz")
    loaded = Scores.load(tmp_path / "all.npz")
    assert loaded.heads.keys() == scores.heads.keys()
    for name, one in loaded.heads.items():
        assert torch.equal(one.logits, scores.heads[name].logits)
        assert torch.equal(one.labels, scores.heads[name].labels)
    assert torch.equal(loaded.indices, scores.indices) if counted else loaded.indices is None


def test_an_empty_set_can_be_written(tmp_path):
    for ending in ("csv", "jsonl", "npz"):
        random_scores(0, 3).save(tmp_path / f"none.{ending}")


def test_wrong_files(tmp_path):
    scores = Scores(torch.eye(2), torch.tensor([0, 1]))
    with pytest.raises(
        ValueError, match=r"has the suffix '\.txt'; choose \.csv or \.jsonl for predictions, \.npz for all"
    ):
        scores.save(tmp_path / "p.txt")
    with pytest.raises(ValueError, match="names need indices"):
        scores.save(tmp_path / "p.csv", names=["a", "b"])
    (tmp_path / "text.npz").write_text("no arrays")
    scores.save(tmp_path / "cut.npz")
    (tmp_path / "cut.npz").write_bytes((tmp_path / "cut.npz").read_bytes()[:-40])
    np.savez(tmp_path / "other.npz", weights=np.zeros(3))
    np.save(tmp_path / "one.npy", np.zeros(3))
    for name in ("text.npz", "cut.npz", "other.npz", "one.npy"):
        with pytest.raises(ValueError, match=f"{name} was not written by Scores.save"):
            Scores.load(tmp_path / name)


def test_what_does_not_belong_together():
    logits, labels = torch.zeros(2, 3), torch.tensor([0, 1])
    with pytest.raises(ValueError, match="logits of 2 clips, 1 labels and no indices; their numbers must be equal"):
        Scores(logits, labels[:1])
    with pytest.raises(ValueError, match="2 labels and 3 indices"):
        Scores(logits, labels, torch.arange(3))
    with pytest.raises(ValueError, match="labels are from 0 to 7, but the model has 3 classes, 0 to 2"):
        Scores(logits, labels * 7)
    with pytest.raises(ValueError, match=r"heads of the logits are \['a'\], those of the labels \['b'\]"):
        Scores({"a": logits}, {"b": labels})
    with pytest.raises(ValueError, match=r"heads of the logits are one unnamed, those of the labels \['b'\]"):
        Scores(logits, {"b": labels})
    with pytest.raises(ValueError, match="top 0 is not positive"):
        Scores(logits, labels).accuracy(top=0)
    with pytest.raises(ValueError, match=r"the model has several heads; use scores\.heads\[name\] with one of a, b"):
        random_heads(2, {"a": 3, "b": 2}).confusion()


def test_there_is_no_top_5_of_five_classes():
    def of(**heads):
        parts = {head: (torch.rand(4, classes), torch.zeros(4, dtype=torch.long)) for head, classes in heads.items()}
        logits, labels = ({head: part[i] for head, part in parts.items()} for i in (0, 1))
        return Scores(logits, labels) if len(heads) > 1 else Scores(logits["noun"], labels["noun"])

    assert of(noun=5).report().keys() == {"top-1"}
    assert of(noun=6).report().keys() == {"top-1", "top-5"}
    both = of(noun=5, verb=3).report()
    assert both.keys() == {"noun top-1", "verb top-1", "action top-1", "action top-5"}
