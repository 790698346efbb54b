"""One model on several processes: copies or shards of it, and the state of the whole as if there were one process."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType, gather_object
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_state_dict,
    set_model_state_dict,
    set_state_dict,
)
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.nn.parallel import DistributedDataParallel

from vivit_zoo.training.optim import WeightAverage

__all__ = ["anyone", "distribute", "get_random", "get_weights", "set_random", "set_weights", "sync_gradients"]

WHOLE = StateDictOptions(full_state_dict=True, cpu_offload=True)


def distribute(model: nn.Module, accelerator: Accelerator, shard: bool) -> nn.Module:
    """Put a model on the devices of all processes; what is returned is to be called in training.

    Accelerate's own FSDP2 does nothing on CPUs, and wants the names of block classes; here any `nn.ModuleList` is taken
    as a stack of blocks, so that encoders of your own are sharded too.

    Args:
        model: built alike in every process.
        accelerator: of the run. Where it was launched with FSDP, the model is sharded too.
        shard: whether each process holds a part of the model (FSDP2) in place of a copy (DDP).
    """
    device = accelerator.device
    model.to(device)
    if accelerator.num_processes == 1:
        return model
    if shard or accelerator.distributed_type == DistributedType.FSDP:
        if device.type == "cpu" and not hasattr(torch.cpu.Stream, "record_event"):
            raise ValueError(
                f"torch {torch.__version__} cannot shard a model on CPUs; use --shard false, or a newer torch"
            )
        mesh = init_device_mesh(device.type, (accelerator.num_processes,))
        for stack in [module for module in model.modules() if isinstance(module, nn.ModuleList)]:
            for block in stack:
                fully_shard(block, mesh=mesh)
        # By default the root would stay whole after a forward pass without a backward one, and so would not see that
        # the averaged weights have come or gone.
        fully_shard(model, mesh=mesh, reshard_after_forward=True)
        return model
    # Buffers are constants here, such as sine-cosine positions.
    return DistributedDataParallel(
        model, device_ids=[device] if device.type == "cuda" else None, broadcast_buffers=False
    )


def sync_gradients(model: nn.Module, sync: bool) -> None:
    """Whether the next forward and backward pass averages the gradients over the processes, or only adds to them."""
    if isinstance(model, DistributedDataParallel):
        model.require_backward_grad_sync = sync
    elif isinstance(model, FSDPModule):
        model.set_requires_gradient_sync(sync)


def anyone(flag: int, accelerator: Accelerator) -> int:
    """The largest of a number over all processes."""
    if accelerator.num_processes == 1:
        return flag
    return max(gather_object([flag]))


def get_weights(model: nn.Module, optimizer: torch.optim.Optimizer, average: WeightAverage | None) -> dict[str, Any]:
    """Weights, optimiser state and averaged weights, whole and on the CPU. All processes must take part."""
    weights, state = get_state_dict(model, optimizer, options=WHOLE)
    content: dict[str, Any] = {"model": weights, "optimizer": state}
    if average:
        with average.in_place():
            averages: dict[str, Any] = get_model_state_dict(model, options=WHOLE)
            # On a CPU these may be the parameters themselves, which are about to change back.
            content["average"] = {name: tensor.clone() for name, tensor in averages.items()}
    return content


def set_weights(
    content: dict[str, Any], model: nn.Module, optimizer: torch.optim.Optimizer, average: WeightAverage | None
) -> None:
    """Undo `get_weights`, on any number of processes."""
    if average:
        with average.in_place():
            set_model_state_dict(model, content["average"], options=WHOLE)
    set_state_dict(
        model,
        optimizer,
        model_state_dict=content["model"],
        optim_state_dict=content["optimizer"],
        options=WHOLE,
    )


def get_random(accelerator: Accelerator) -> list[dict[str, torch.Tensor]]:
    """The state of torch's random generators in each process. All processes must take part."""
    state = {"cpu": torch.get_rng_state()}
    if accelerator.device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(accelerator.device)
    return [state] if accelerator.num_processes == 1 else gather_object([state])


def set_random(states: Sequence[dict[str, torch.Tensor]], accelerator: Accelerator, *seeds: int) -> None:
    """Undo `get_random`; a process that has no state, because there were fewer, begins with one of its own.

    Args:
        states: what `get_random` returned, or nothing.
        accelerator: of the run.
        seeds: of the new states, with the number of the process.
    """
    process = accelerator.process_index
    if process < len(states):
        torch.set_rng_state(states[process]["cpu"])
        if "cuda" in states[process] and accelerator.device.type == "cuda":
            torch.cuda.set_rng_state(states[process]["cuda"], accelerator.device)
    else:
        key = np.random.SeedSequence([*seeds, process]).generate_state(1, np.uint64)
        torch.manual_seed(int(key[0]) >> 1)
