"""What a forward pass launches and what a training step keeps: regressions of speed and memory, seen without a clock.

Sizes are tiny, but have every axis; numbers are of one block: a model of two blocks less one of a single block.
"""

import weakref
from collections import Counter

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tests.conftest import VARIANTS, tiny_config, video_for
from vivit_zoo import ViViT, inference, optimize_for_inference
from vivit_zoo.inference import FUSIBLE
from vivit_zoo.mlp import Mlp

variants = pytest.mark.parametrize("variant", VARIANTS)
batches = pytest.mark.parametrize("batch", [1, 2])
# The spatial tokens of the joint model are one sequence of t·n; class tokens are left out, so that all have as many.
CONFIG = tiny_config(global_pool="avg", temporal_depth=0)
TOKENS, DIM, HEADS, FLOAT = 3 * 6, CONFIG.dim, CONFIG.num_heads, 4


class Operations(TorchDispatchMode):
    """Counts what runs a kernel: every operation of torch but views."""

    def __init__(self):
        super().__init__()
        self.count = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if not (func.is_view or "_unsafe_view" in str(func)):
            self.count[func.overloadpacket.__name__.replace("_for_cpu", "")] += 1
        return func(*args, **(kwargs or {}))


class LiveBytes(TorchDispatchMode):
    """The most bytes that were alive at once, of all tensors that operations made since."""

    def __init__(self):
        super().__init__()
        self.alive, self.peak, self.known = 0, 0, set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        given = {x.untyped_storage()._cdata for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)}
        for x in tree_leaves(out):
            if isinstance(x, torch.Tensor) and (storage := x.untyped_storage())._cdata not in given | self.known:
                self.known.add(storage._cdata)
                self.alive += storage.nbytes()
                weakref.finalize(storage, self.forget, storage._cdata, storage.nbytes())
        self.peak = max(self.peak, self.alive)
        return out

    def forget(self, key, size):
        self.known.discard(key)
        self.alive -= size


def of_one_block(measure, variant, **changes):
    """The difference that a second block makes."""
    one, two = (measure(ViViT(CONFIG.replace(variant=variant, depth=depth, **changes))) for depth in (1, 2))
    return two - one


def operations(batch, prepare=lambda model: model):
    def measure(model):
        video = video_for(model.config, batch, dtype=torch.float32)
        model = prepare(model.eval())
        with torch.no_grad(), Operations() as seen:
            model(video)
        return seen.count

    return measure


MLP = {"addmm": 2, "gelu": 1}
FUSED = {"_linear_pointwise": 1, "addmm": 1} if torch.float32 in FUSIBLE else MLP
PLAIN = {"native_layer_norm": 2, "addmm": 2, "_scaled_dot_product_flash_attention": 1, "add": 2}
MORE = {
    # Attention over time is strided: the fused kernels take four axes, into which one clip's b·n folds without a copy
    # and those of several clips do not. Then q, k and v are copied, and what comes out is copied back.
    "factorised_self_attention": {
        1: {"native_layer_norm": 1, "addmm": 2, "_scaled_dot_product_flash_attention": 1, "add": 1},
        2: {"native_layer_norm": 1, "addmm": 2, "_scaled_dot_product_flash_attention": 1, "add": 1, "clone": 4},
    },
    # Half of q, k and v likewise; joining the halves puts what comes out where it belongs.
    "factorised_dot_product": {
        1: {"_scaled_dot_product_flash_attention": 1, "cat": 1},
        2: {"_scaled_dot_product_flash_attention": 1, "cat": 1, "clone": 3},
    },
}


@variants
@batches
def test_a_block_runs_no_operation_that_it_does_not_need(variant, batch):
    rest = Counter(PLAIN) + Counter(MORE.get(variant, {}).get(batch))
    assert of_one_block(operations(batch), variant) == rest + Counter(MLP)
    assert of_one_block(operations(batch, optimize_for_inference), variant) == rest + Counter(FUSED)


@variants
def test_around_the_blocks_there_is_one_copy(variant):
    """The pixels, into tubelets; with a class token its joining to the tokens."""
    one = CONFIG.replace(variant=variant, depth=1)
    around = operations(2)(ViViT(one)) - of_one_block(operations(2), variant)
    means = 2 if variant == "factorised_encoder" else 1
    assert around == {"clone": 1, "addmm": 2, "add": 1, "native_layer_norm": 1, "mean": means}


def kept(batch):
    """Bytes that the forward pass of a training step keeps for the backward pass, beside the weights."""

    def measure(model):
        weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
        storages = {}

        def keep(x):
            if x.untyped_storage().data_ptr() not in weights:
                storages[x.untyped_storage().data_ptr()] = x.untyped_storage()  # held, so that none has its place
            return x

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
            model.train()(video_for(model.config, batch, dtype=torch.float32))
        return sum(storage.nbytes() for storage in storages.values())

    return measure


# In widths of a token: the norms' inputs and outputs (4), q, k and v (3), what attention gave (1), and of the MLP the
# activation's input and output (8 = 2·mlp_ratio). Less would mean computing something again.
WIDTHS = {"joint": 16, "factorised_encoder": 16, "factorised_self_attention": 22, "factorised_dot_product": 17}
# Model 4 has joined its halves, beside them. With several clips Model 3 has copied what attention over time gave, and
# Model 4 its half of q, k and v, beside the whole that attention over space still needs.
OF_SEVERAL_CLIPS = {"factorised_self_attention": 1, "factorised_dot_product": 1.5}


@variants
@batches
def test_a_block_keeps_what_its_gradients_need_and_no_more(variant, batch):
    widths = WIDTHS[variant] + (OF_SEVERAL_CLIPS.get(variant, 0) if batch > 1 else 0)
    attentions = 2 if variant == "factorised_self_attention" else 1
    # Per token and norm mean and deviation; per token and head the logarithm of the softmax's sum.
    statistics = 2 * (attentions + 1) + HEADS * attentions
    assert of_one_block(kept(batch), variant) == batch * TOKENS * (widths * DIM + statistics) * FLOAT


@pytest.mark.parametrize("variant", ["joint", "factorised_encoder"])
def test_copies_of_long_sequences_take_the_place_of_what_they_copy(variant, monkeypatch):
    """What attention gives is then laid out like the queries, so that it is copied back."""
    plain = of_one_block(operations(2, optimize_for_inference), variant)
    monkeypatch.setattr(inference, "LONG", 1)
    assert of_one_block(operations(2, optimize_for_inference), variant) == plain + Counter(clone=4)


@pytest.mark.skipif(not FUSIBLE, reason="this torch has no such kernel")
def test_without_gradients_the_mlp_never_holds_its_whole_hidden_layer(monkeypatch):
    """Parts of it in turn, and what comes out twice: in parts and as a whole."""
    tokens, dim = 64, 8
    monkeypatch.setattr(inference, "HIDDEN_BYTES", 16 * 4 * dim * FLOAT)
    mlp, x = inference.FusedMlp(Mlp(dim, 4 * dim)), torch.randn(1, tokens, dim)
    with torch.no_grad(), LiveBytes() as memory:
        mlp(x)
    assert memory.peak == max(tokens * dim + 16 * 4 * dim, 2 * tokens * dim) * FLOAT


BATCH = 4


def peak_of_step(checkpointing):
    def measure(model):
        model.train().set_grad_checkpointing(checkpointing)
        video = video_for(model.config, BATCH, dtype=torch.float32)
        with LiveBytes() as memory:
            model(video).square().mean().backward()
        return memory.peak - sum(p.numel() for p in model.parameters()) * FLOAT  # their gradients

    return measure


@variants
def test_peak_of_a_training_step(variant):
    """A block adds to it what it keeps; checkpointed, its input alone."""
    width = BATCH * TOKENS * DIM * FLOAT
    plain, checkpointed = (of_one_block(peak_of_step(again), variant) / width for again in (False, True))
    assert plain < WIDTHS[variant] + OF_SEVERAL_CLIPS.get(variant, 0) + 1
    assert checkpointed <= 1


@variants
def test_checkpointing_computes_each_block_once_more_and_nothing_twice(variant):
    """Two products in the backward pass for each in the forward pass; a block's last is not needed a second time."""

    def products(checkpointing):
        def measure(model):
            model.train().set_grad_checkpointing(checkpointing)
            video = video_for(model.config, 2, dtype=torch.float32)
            with Operations() as seen:
                model(video).square().mean().backward()
            return Counter({name: seen.count[name] for name in ("addmm", "mm")})

        return measure

    linears = 6 if variant == "factorised_self_attention" else 4
    assert of_one_block(products(False), variant) == {"addmm": linears, "mm": 2 * linears}
    assert of_one_block(products(True), variant) == {"addmm": 2 * linears - 1, "mm": 2 * linears}
