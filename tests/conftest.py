"""Shared by all tests: a fixed number of threads, hypothesis without deadlines, small models with no trivial weight."""

import multiprocessing.forkserver
import os
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, settings
from matplotlib.figure import Figure
from torch import nn

from tests.footage import ENCODED, write_video
from vivit_zoo import ViViT, ViViTConfig

# The processes that tests start are forked from one server for each pytest process. It imports at its start what any of
# them needs, so that none has to import it again.
preload = multiprocessing.forkserver.set_forkserver_preload
needed = ["vivit_zoo.studies.study", "vivit_zoo.bench.measure", "vivit_zoo.datasets.check", "tests.training.runs"]
multiprocessing.forkserver.set_forkserver_preload = lambda modules: preload([*modules, *needed])

torch.set_num_threads(1)  # a process per core runs tests; see addopts in pyproject.toml
# No deadline, and no complaint of slowness: a noisy machine is no failure. Derandomised: a red run can be repeated; set
# HYPOTHESIS_PROFILE=explore to look for new examples.
settings.register_profile(
    "default",
    deadline=None,
    max_examples=25,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile("explore", deadline=None, max_examples=300)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))

VARIANTS = ["joint", "factorised_encoder", "factorised_self_attention", "factorised_dot_product"]


def tiny_config(**changes) -> ViViTConfig:
    """3 x (2·3) tokens of width 24: every axis has another length, so that no mix-up of axes goes unseen."""
    fields = {
        "num_classes": 5,
        "num_frames": 6,
        "image_size": (8, 12),
        "tubelet_size": (2, 4, 4),
        "dim": 24,
        "depth": 2,
        "num_heads": 4,
        "temporal_depth": 2,
    }
    return ViViTConfig(**(fields | changes))


def randomise(module: nn.Module, seed: int = 0) -> nn.Module:
    """Every parameter random: zeros and ones, as heads, class tokens and norms start, would hide mistakes."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            scale = 0.3 if parameter.ndim > 1 else 0.5
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * scale)
    return module


def tiny_model(**changes) -> ViViT:
    """A random model of `tiny_config` in evaluation mode, in float64."""
    return randomise(ViViT(tiny_config(**changes))).double().eval()


def video_for(config: ViViTConfig, batch: int = 2, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    """A random batch of clips that fits the configuration."""
    return torch.randn(batch, *config.input_shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.fixture(scope="session")
def parity() -> Path:
    """Vectors made by running the original JAX code."""
    return Path(__file__).parent / "parity"


@pytest.fixture(scope="module", params=ENCODED)
def encoded(request, tmp_path_factory) -> Path:
    """A video of sixty frames, as each codec and container writes it."""
    name, options = ENCODED[request.param]
    return write_video(tmp_path_factory.mktemp(request.param) / name, **options)


@pytest.fixture
def drawn(monkeypatch):
    """The figures that are saved."""
    figures, save = [], Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda figure, *a, **k: (figures.append(figure), save(figure, *a, **k)))
    return figures
