"""Are several seeds of a study's small model trained faster as one program than one after the other?

    python experiments/seeds_together.py                   # on the CPU, into docs/benchmarks/seeds; 2 minutes
    python experiments/seeds_together.py --device cuda     # on a GPU, into docs/benchmarks/gpu_seeds; 2 minutes

Such a model is so small that a GPU waits for the next kernel most of the time. One program holds the weights of all
seeds in tensors with one more axis, and `torch.func` maps the gradient over it: each kernel then works on all seeds.
Each seed has its own clips, its own gradient norm and its own state of AdamW, so the weights are those of single runs
but for rounding. A step is forward, backward, clipping and optimiser, in bfloat16 autocast on a GPU; clips are noise.

Expected: on a GPU at least 8 times as fast with 32 seeds; on a CPU, whose cores are busy with one seed, no gain.
"""

import argparse
import copy
import dataclasses
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, grad, stack_module_state, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel
from tqdm import tqdm

from vivit_zoo.config import ViViTConfig
from vivit_zoo.encoders import ENCODERS
from vivit_zoo.model import ViViT
from vivit_zoo.studies.cells import TRAINED
from vivit_zoo.system.machine import choose_device, describe_machine
from vivit_zoo.system.markdown import markdown

RESULTS = Path(__file__).parents[1] / "docs/benchmarks"
Step = Callable[[Tensor, Tensor], None]  # one step of all seeds, from clips (k, b, c, t, h, w) and labels (k, b)
SMALL = 1e-6  # added to a norm, as `clip_grad_norm_` does


def alone(models: Sequence[ViViT]) -> Step:
    """A step of each model, one after the other. It changes the models."""
    optimisers = [_optimiser(model, dict(model.named_parameters())) for model in models]

    def step(clips: Tensor, labels: Tensor) -> None:
        for model, optimiser, x, y in zip(models, optimisers, clips, labels, strict=True):
            with _autocast(x.device):
                loss = F.cross_entropy(model(x), y)
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), TRAINED.clip_grad)
            optimiser.step()
            optimiser.zero_grad()

    return step


def together(models: Sequence[ViViT], compile: bool = False) -> tuple[Step, dict[str, Tensor]]:
    """A step of all models at once, and their parameters (k, ...), which it changes. The models stay as they are."""
    base = copy.deepcopy(models[0]).to("meta")  # only its structure is used
    parameters, buffers = stack_module_state(list(models))
    optimiser = _optimiser(models[0], parameters)

    def loss(parameters: dict[str, Tensor], buffers: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        with _autocast(x.device):
            return F.cross_entropy(functional_call(base, (parameters, buffers), (x,)), y)

    gradients = vmap(grad(loss), randomness="different")
    if compile:
        gradients = torch.compile(gradients, dynamic=False)

    def step(clips: Tensor, labels: Tensor) -> None:
        # torch cannot map its fused attention for CPUs, and would call it seed by seed.
        with sdpa_kernel(SDPBackend.MATH) if clips.device.type == "cpu" else nullcontext():
            found = gradients(parameters, buffers, clips, labels)
        squares = [x.flatten(1).square().sum(1) for x in found.values()]
        shares = (TRAINED.clip_grad / (torch.stack(squares).sum(0).sqrt() + SMALL)).clamp(max=1)
        for name, parameter in parameters.items():
            parameter.grad = found[name] * shares.view(-1, *[1] * (parameter.ndim - 1))
        optimiser.step()

    return step, parameters


def _optimiser(model: ViViT, parameters: dict[str, Tensor]) -> torch.optim.Optimizer:
    """AdamW as in training, of a model's parameters or of those of several, stacked."""
    shapes, without = dict(model.named_parameters()), model.no_weight_decay()
    groups: dict[bool, list[Tensor]] = {True: [], False: []}
    for name, parameter in parameters.items():
        groups[shapes[name].ndim > 1 and name not in without].append(parameter)
    return torch.optim.AdamW(
        [{"params": some, "weight_decay": TRAINED.weight_decay * decays} for decays, some in groups.items()],
        lr=TRAINED.lr,
    )


def _autocast(device: torch.device) -> torch.autocast:
    return torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda")


def models_of(config: ViViTConfig, seeds: int, device: torch.device) -> list[ViViT]:
    """A model of each seed."""
    models = []
    for seed in range(seeds):
        torch.manual_seed(seed)
        models.append(ViViT(config).to(device))
    return models


def compare(
    config: ViViTConfig, seeds: int, batch: int, device: torch.device, rounds: int, compile: bool
) -> dict[str, list[float]]:
    """Seconds of a step of all seeds, for each way and round; CPU time on a CPU."""
    clips = torch.rand(seeds, batch, *config.input_shape, device=device) * 2 - 1
    assert isinstance(config.num_classes, int)
    labels = torch.randint(config.num_classes, (seeds, batch), device=device)
    ways = {"one after the other": alone(models_of(config, seeds, device))}
    ways["together"], _ = together(models_of(config, seeds, device))
    if compile:
        ways["together, compiled"], _ = together(models_of(config, seeds, device), compile=True)
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    for step in ways.values():
        step(clips, labels)  # what the first step allocates and compiles
        step(clips, labels)
    spent: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, step in ways.items():
            _wait(device)
            started = clock()
            step(clips, labels)
            _wait(device)
            spent[name].append(clock() - started)
    return spent


def _wait(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", help="cpu, cuda, ... (cpu)")
    parser.add_argument("--variants", nargs="+", choices=[*ENCODERS], help="(joint on a CPU, all elsewhere)")
    parser.add_argument("--seeds", type=int, nargs="+", help="numbers of seeds (1 4 8 on a CPU, 1 8 32 64 elsewhere)")
    parser.add_argument("--batch", type=int, default=TRAINED.batch_size, help=f"clips a seed ({TRAINED.batch_size})")
    parser.add_argument("--dim", type=int, default=TRAINED.model.dim, help=f"width of the model ({TRAINED.model.dim})")
    parser.add_argument("--rounds", type=int, default=7, help="steps of each way (7)")
    parser.add_argument("--compile", action="store_true", help="also the program of all seeds under torch.compile")
    parser.add_argument("--out", type=Path, help="folder (docs/benchmarks/seeds or gpu_seeds)")
    options = parser.parse_args()
    try:
        device = choose_device(options.device)
    except ValueError as error:
        parser.error(str(error))
    on_cpu = device.type == "cpu"
    if on_cpu:
        torch.set_num_threads(1)  # as a cell of a study
    variants = options.variants or (["joint"] if on_cpu else [*ENCODERS])
    columns: dict[str, list[str]] = {}
    for variant in tqdm(variants, mininterval=5):
        config = dataclasses.replace(TRAINED.model, variant=variant, dim=options.dim)
        for seeds in options.seeds or ([1, 4, 8] if on_cpu else [1, 8, 32, 64]):
            spent = compare(config, seeds, options.batch, device, options.rounds, options.compile)
            first, *others = spent.values()
            row = {"variant": variant, "seeds": str(seeds)}
            row |= {f"{name}, ms": f"{1e3 * statistics.median(times):.1f}" for name, times in spent.items()}
            ratios = [statistics.median(a / b for a, b in zip(first, other, strict=True)) for other in others]
            names = [f"{name}, times as fast" for name in [*spent][1:]]
            row |= {name: f"{ratio:.2f}" for name, ratio in zip(names, ratios, strict=True)}
            for title, cell in row.items():
                columns.setdefault(title, []).append(cell)
    about = f"`seeds_together.py --device {options.device}`, {describe_machine(device)}"
    text = f"{markdown(columns, left=['variant'])}\n\n{about}"
    print(text)
    out = options.out or RESULTS / ("seeds" if on_cpu else "gpu_seeds")
    out.mkdir(parents=True, exist_ok=True)
    (out / "table.md").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
