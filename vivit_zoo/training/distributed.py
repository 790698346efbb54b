"""Train one model in several processes: copies or shards of it, and its whole state as if there were one process."""

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
    """Move a model to the devices of all processes, and return the module to call in training.

    Accelerate's FSDP2 does nothing on CPUs and needs the names of block classes. This function treats every
    `nn.ModuleList` as a stack of blocks, so that your own encoders are sharded as well.

    Args:
        model: the model, with the same weights in every process.
        accelerator: the accelerator of the run. If it was launched with FSDP, the model is sharded.
        shard: whether to shard the model over the processes (FSDP2) instead of copying it to each (DDP).
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
        # By default the root stays unsharded after a forward pass without a backward pass, and would not notice that
        # the weights have been swapped with their average.
        fully_shard(model, mesh=mesh, reshard_after_forward=True)
        return model
    # Buffers are constants here, such as sine-cosine positions.
    return DistributedDataParallel(
        model, device_ids=[device] if device.type == "cuda" else None, broadcast_buffers=False
    )


def sync_gradients(model: nn.Module, sync: bool) -> None:
    """Set whether the next backward pass averages gradients over processes, or only accumulates them."""
    if isinstance(model, DistributedDataParallel):
        model.require_backward_grad_sync = sync
    elif isinstance(model, FSDPModule):
        model.set_requires_gradient_sync(sync)


def anyone(flag: int, accelerator: Accelerator) -> int:
    """Return the maximum of a number over all processes."""
    if accelerator.num_processes == 1:
        return flag
    return max(gather_object([flag]))


def get_weights(model: nn.Module, optimizer: torch.optim.Optimizer, average: WeightAverage | None) -> dict[str, Any]:
    """Gather weights, optimiser state and averaged weights, unsharded, on the CPU. All processes must call this."""
    weights, state = get_state_dict(model, optimizer, options=WHOLE)
    content: dict[str, Any] = {"model": weights, "optimizer": state}
    if average:
        with average.in_place():
            averages: dict[str, Any] = get_model_state_dict(model, options=WHOLE)
            # On a CPU these may be the parameters themselves, which are swapped back below.
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
    """Gather the state of torch's random generators of each process. All processes must call this."""
    state = {"cpu": torch.get_rng_state()}
    if accelerator.device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(accelerator.device)
    if accelerator.device.type == "mps":
        state["mps"] = torch.mps.get_rng_state()
    return [state] if accelerator.num_processes == 1 else gather_object([state])


def set_random(states: Sequence[dict[str, torch.Tensor]], accelerator: Accelerator, *seeds: int) -> None:
    """Undo `get_random`; processes without a state, because there were fewer before, get a new one.

    Args:
        states: the result of `get_random`, or an empty list.
        accelerator: the accelerator of the run.
        seeds: seeds of new states, used with the number of the process.
    """
    process = accelerator.process_index
    if process < len(states):
        torch.set_rng_state(states[process]["cpu"])
        if "cuda" in states[process] and accelerator.device.type == "cuda":
            torch.cuda.set_rng_state(states[process]["cuda"], accelerator.device)
        if "mps" in states[process] and accelerator.device.type == "mps":
            torch.mps.set_rng_state(states[process]["mps"])
    else:
        key = np.random.SeedSequence([*seeds, process]).generate_state(1, np.uint64)
        torch.manual_seed(int(key[0]) >> 1)
