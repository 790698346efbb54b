"""Training only some parts of a model: which they are, that nothing else changes, and what is said of it."""

import dataclasses
import json

import pytest
import torch
from torch import nn

from tests.conftest import VARIANTS, tiny_model
from tests.training.runs import assert_same_run, last, small
from vivit_zoo import ViViT
from vivit_zoo.studies.cells import Setting, check_setting
from vivit_zoo.training import loop as train_module
from vivit_zoo.training.freeze import freeze, frozen_modules, set_train_mode
from vivit_zoo.training.loop import train
from vivit_zoo.training.run import train_and_report

HEAD = {"head.weight", "head.bias"}


def modules_of(names):
    return {name.rpartition(".")[0] for name in names}


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_head_alone(variant):
    model = tiny_model(variant=variant, representation_size=8)
    assert set(freeze(model, "head")) == HEAD | {"pre_logits.0.weight", "pre_logits.0.bias"}
    assert {name for name, one in model.named_parameters() if one.requires_grad} == set(freeze(model, "head"))


@pytest.mark.parametrize(
    ("variant", "options", "only", "modules"),
    [
        ("joint", {"global_pool": "attention"}, "pool", {"encoder.attn_pool"}),
        ("factorised_encoder", {}, "temporal", {"encoder.temporal"}),
        (
            "factorised_self_attention",
            {},
            "temporal",
            {f"encoder.blocks.{i}.{m}" for i in (0, 1) for m in ("attn_time", "norm_time")},
        ),
        ("factorised_encoder", {}, "head, spatial", {"encoder.spatial"}),
        ("joint", {}, r"blocks\.1\.,cls_token", {"encoder.blocks.1", "encoder.cls_token"}),
        ("joint", {}, "norm", {"encoder.norm", *(f"encoder.blocks.{i}.norm{n}" for i in (0, 1) for n in (1, 2))}),
    ],
)
def test_parts_and_patterns_train_with_the_head(variant, options, only, modules):
    model = tiny_model(variant=variant, **options)
    expected = {name for name, _ in model.named_parameters() if name.startswith(tuple(f"{one}." for one in modules))}
    assert len(expected) >= len(modules)
    assert set(freeze(model, only)) == expected | HEAD


def test_without_parts_everything_trains():
    model = tiny_model()
    assert freeze(model, "") == [name for name, _ in model.named_parameters()]
    assert all(one.requires_grad for one in model.parameters())


@pytest.mark.parametrize("only", ["temporl", "pool", "head,temporal", "blocks.9", "head,"])
def test_an_unknown_part_is_refused_with_those_that_there_are(only):
    model = tiny_model(variant="joint", num_classes=5)
    with pytest.raises(ValueError, match=r"is the name of no parameter .* parts head, norm, bias, .*encoder.blocks.0"):
        freeze(model, only)
    assert all(one.requires_grad for one in model.parameters())


def test_a_part_that_is_no_regular_expression_and_a_head_that_is_not_there():
    with pytest.raises(ValueError, match=r"only 'blocks\(' is not a regular expression"):
        freeze(tiny_model(), "blocks(")
    with pytest.raises(ValueError, match="only 'head' is the name of no parameter"):
        freeze(tiny_model(num_classes=0), "head")
    config = small(only="pool")
    with pytest.raises(ValueError, match="a row: only 'pool' is the name of no parameter"):
        check_setting(Setting("a row", config))


def test_frozen_modules_are_in_evaluation_mode():
    model = tiny_model(variant="factorised_encoder", drop=0.5, drop_path=0.5)
    freeze(model, "temporal")
    set_train_mode(model)
    assert model.training
    assert all(module.training for module in model.encoder.temporal.modules())
    assert not any(module.training for module in [*model.encoder.spatial.modules(), model.tubelet_embed])
    assert [type(module).__name__ for module in frozen_modules(model)] == ["TubeletEmbed", "Encoder"]
    assert frozen_modules(tiny_model()) == []


def changed(before, after):
    return {name for name in before if not torch.equal(before[name], after[name])}


@pytest.mark.parametrize("weight_decay", [0.0, 0.05])
@pytest.mark.parametrize("layer_decay", [None, 0.5])
def test_a_run_changes_only_what_trains(tmp_path, monkeypatch, weight_decay, layer_decay):
    config = small(only="temporal", ema=0.5, steps=4, weight_decay=weight_decay, layer_decay=layer_decay)
    config = config.change_model(variant="factorised_encoder")
    torch.manual_seed(config.seed)
    optimizers, create = [], train_module.create_optimizer_v2
    monkeypatch.setattr(
        train_module, "create_optimizer_v2", lambda *a, **k: optimizers.append(create(*a, **k)) or optimizers[-1]
    )
    before = {}
    build = ViViT.__init__

    def keep(self, *args):
        build(self, *args)
        before.update({name: tensor.clone() for name, tensor in self.state_dict().items()})

    monkeypatch.setattr(ViViT, "__init__", keep)
    train(config, tmp_path)
    content = last(tmp_path)
    trained = changed(before, content["model"])
    assert modules_of(trained) >= {"head", "encoder.temporal.blocks.0.mlp.fc1"}
    assert all(name.startswith(("head.", "encoder.temporal.")) for name in trained)
    assert changed(before, content["average"]) <= trained
    ours = sum(one.numel() for group in optimizers[0].param_groups for one in group["params"])
    assert ours == sum(t.numel() for name, t in before.items() if name.startswith(("head.", "encoder.temporal.")))


def test_a_stopped_run_with_frozen_parts_resumes(tmp_path, monkeypatch):
    config = small(only="head", ema=0.9).change_model(drop_path=0.2)
    train(config, tmp_path / "whole")
    evaluate, calls = train_module.evaluate, []

    def stop(*args, **kwargs):
        calls.append(1)
        if len(calls) == 2:
            raise InterruptedError
        return evaluate(*args, **kwargs)

    monkeypatch.setattr(train_module, "evaluate", stop)
    with pytest.raises(InterruptedError):
        train(config, tmp_path / "stopped")
    monkeypatch.setattr(train_module, "evaluate", evaluate)
    train(config, tmp_path / "stopped")
    assert_same_run(tmp_path / "whole", tmp_path / "stopped")
    with pytest.raises(ValueError, match="it differs in only"):
        train(dataclasses.replace(config, only="norm"), tmp_path / "stopped")


def test_the_report_counts_what_trains(tmp_path, capsys):
    train_and_report(small(only="head", steps=2), tmp_path)
    result = json.loads((tmp_path / "result.json").read_text(encoding="utf-8"))
    assert result["trained_params"] == 25 * 6
    assert f"trained 150 of {result['params']:,} parameters (head), the others were frozen" in capsys.readouterr().out
    assert "| only | head (150 parameters) |" in (tmp_path / "model" / "README.md").read_text(encoding="utf-8")


def test_a_model_of_another_kind_can_be_frozen_by_patterns():
    model = nn.ModuleDict({"body": nn.Linear(2, 2), "head": nn.Linear(2, 2)})
    assert freeze(model, r"^body\.bias") == ["body.bias", *sorted(HEAD, reverse=True)]
