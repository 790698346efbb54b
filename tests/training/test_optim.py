"""The learning rate's schedule, held to the original's, and the moving average of weights."""

import numpy as np
import pytest
import torch
from timm.optim import create_optimizer_v2
from torch import nn

from vivit_zoo.training.optim import WeightAverage, use_fused_kernel, warmup_cosine


def test_schedule_is_the_originals(parity):
    """Computed there in float32, for Kinetics-400's 30 epochs; the last two steps are past the end."""
    vectors = np.load(parity / "lr_schedule.npz")
    warmup, steps, peak = (vectors[name].item() for name in ("warmup_steps", "total_steps", "base_lr"))
    shares = [warmup_cosine(int(step), warmup, steps) for step in vectors["steps"]]
    np.testing.assert_allclose(peak * np.array(shares), vectors["lr"], rtol=2e-6, atol=1e-8)


def test_schedule():
    shares = [warmup_cosine(step, 4, 12) for step in range(12)]
    assert shares[:5] == [0, 0.25, 0.5, 0.75, 1.0]
    assert shares[4:] == sorted(shares[4:], reverse=True)
    assert shares[8] == pytest.approx(0.5)
    assert warmup_cosine(0, 0, 3) == 1


@pytest.mark.parametrize("opt", ["adamw", "momentum", "lamb"])
def test_optimisers_make_the_same_steps_with_a_fused_kernel(opt, monkeypatch):
    """Those that have one use it; timm's lamb has none."""
    fused = []
    for name in ("_fused_adamw_", "_fused_sgd_"):
        kernel = getattr(torch, name)
        monkeypatch.setattr(torch, name, lambda *x, kernel=kernel, **y: fused.append(1) or kernel(*x, **y))
    weights = []
    for use in (lambda _: None, use_fused_kernel):
        torch.manual_seed(0)
        model = nn.Linear(5, 3)
        optimizer = create_optimizer_v2(model, opt=opt, lr=0.1, weight_decay=0.1)
        use(optimizer)
        for _ in range(3):
            model(torch.randn(4, 5)).square().sum().backward()
            optimizer.step()
            optimizer.zero_grad()
        weights.append(model.weight.detach())
    torch.testing.assert_close(*weights)
    assert bool(fused) == (opt != "lamb")


def test_weight_average():
    model = nn.Linear(3, 2)
    first = model.weight.detach().clone()
    average = WeightAverage(model, 0.5)
    with torch.no_grad():
        model.weight += 1
    average.update(0)  # a decay of 1/10 after no update, so that 9/10 of the step are in
    average.update(100)  # half of what is left
    expected = first + 0.95
    with average.in_place():
        torch.testing.assert_close(model.weight.detach(), expected)
    torch.testing.assert_close(model.weight.detach(), first + 1)
    average.apply()
    torch.testing.assert_close(model.weight.detach(), expected)


def test_weights_come_back_when_an_evaluation_fails():
    model = nn.Linear(3, 2)
    average = WeightAverage(model, 0.5)
    with torch.no_grad():
        model.weight += 1
    weight = model.weight.detach().clone()
    with pytest.raises(RuntimeError), average.in_place():
        raise RuntimeError
    assert torch.equal(model.weight, weight)
