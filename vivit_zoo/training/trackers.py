"""Experiment trackers, such as TensorBoard and Weights & Biases, through Accelerate."""

import hashlib
import json
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from vivit_zoo.training.checkpoint import flatten

__all__ = ["start_trackers"]


def start_trackers(accelerator: Accelerator, run_dir: Path, config: dict[str, Any]) -> None:
    """Start the trackers of a run and give them its configuration; their files go into the run's folder.

    Args:
        accelerator: of the run, made with `log_with`.
        run_dir: folder of the run; its name is the name of the project.
        config: of the run, as JSON has it.
    """
    # Trackers take plain values only: TensorBoard fails on lists, dictionaries and None.
    values = {
        name: value if isinstance(value, bool | int | float | str) else json.dumps(value)
        for name, value in flatten(config).items()
    }
    # The same id each time, so that a resumed run continues its curves.
    identity = hashlib.sha256(str(run_dir.resolve()).encode()).hexdigest()[:12]
    wandb = {"dir": str(run_dir), "id": f"{run_dir.name}-{identity}", "resume": "allow"}
    accelerator.init_trackers(run_dir.name, values, init_kwargs={"wandb": wandb})
