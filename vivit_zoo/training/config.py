"""`TrainConfig`, the configuration of a training run, and `Start`, its initial weights."""

import dataclasses
import json
import math
from typing import Any, ClassVar, Literal, Self, get_args

import torch

from vivit_zoo.config import ViViTConfig
from vivit_zoo.datasets import DataConfig
from vivit_zoo.model import ViViT
from vivit_zoo.training.checkpoint import fill_in, flatten
from vivit_zoo.weights import LoadReport, init_from_image
from vivit_zoo.weights.resize import Tubelet
from vivit_zoo.weights.start import PixelRule, Positions, Temporal

__all__ = ["Start", "TrainConfig"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Start:
    """The initial weights of a run.

    Args:
        source: "" for random weights, or a source for `vivit_zoo.init_from_image`: timm's name of an image model
            ("vit_base_patch16_224.augreg_in21k"), a "local-dir:" folder, an original JAX checkpoint, or a ViViT that
            `ViViT.from_pretrained` can read ("google/vivit-b-16x2-kinetics400", a folder of this library).
        tubelet, positions, temporal, pixels, mean, std, arch: as for `vivit_zoo.init_from_image`.
    """

    source: str = ""
    tubelet: Tubelet = "central_frame"
    positions: Positions = "resize_tile"
    temporal: Temporal = "zero_out"
    pixels: PixelRule = "fold"
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    arch: str | None = None

    def __post_init__(self) -> None:
        rules = {"tubelet": Tubelet, "positions": Positions, "temporal": Temporal, "pixels": PixelRule}
        for name, known in rules.items():
            if getattr(self, name) not in get_args(known):
                raise ValueError(f"{name} {getattr(self, name)!r} is unknown; choose from {', '.join(get_args(known))}")

    def init(self, model: ViViT) -> LoadReport:
        """Load the weights into a model.

        Raises:
            WeightsError: as `vivit_zoo.init_from_image`.
        """
        rules = dataclasses.asdict(self)
        return init_from_image(model, rules.pop("source"), **rules)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """The complete configuration of a training run.

    Args:
        model: the model's configuration.
        data: the training and test clips.
        start: the initial weights.
        steps: number of optimiser steps.
        batch_size: clips per step, over all processes and accumulated parts.
        accumulate: number of parts into which each process splits its share of a step, to save memory.
        opt: timm's name of an optimiser: "adamw", "momentum" (SGD without Nesterov, as in the paper), "lamb", ...
        lr: peak learning rate, after `warmup_steps` of linear warm-up from 0. A cosine decays it to 0.
        momentum: momentum of SGD.
        weight_decay: weight decay of matrices; positions, class tokens, norms and biases have none.
        only: parts of the model that train, separated by commas; the others are frozen. "head", "pool" (attention
            pooling), "temporal", "spatial", "norm", "bias", or regular expressions for names of parameters; the head
            always trains, see `vivit_zoo.training.freeze`. "" trains everything.
        layer_decay: factor in (0, 1] between the learning rates of a layer and the layer below; None for 1.
        warmup_steps: steps of linear warm-up, at most half of `steps`.
        clip_grad: maximum norm of the gradient.
        label_smoothing: label smoothing in [0, 1).
        mixup: alpha of mixup's Beta distribution; 0 for no mixup.
        cutmix: alpha of CutMix's Beta distribution; 0 for no CutMix. With both, a batch has one of them, at random.
        class_weights: weights of the classes in the loss, one each, or "balanced" for weights that make up for unequal
            numbers of clips, see `balanced_weights`. With several labels a clip they weight the positive labels.
        sampling: "shuffled", every clip once in an epoch; or "balanced", the clips of every class equally often, see
            `TrainOrder`.
        aug_repeats: how many times each clip of a step is in it, augmented differently; `batch_size` counts all.
        ema: decay in [0, 1) of a moving average of the weights, which is used for evaluation; 0 for no average.
        seed: seed of the initial weights, dropout, augmentation and the order of the clips.
        eval_every: steps between evaluations. Each evaluation writes a checkpoint.
        eval_clips: number of test clips in these evaluations, one view each. The final test uses all clips.
        stop_accuracy: for one label a clip, stop training at the first evaluation with at least this accuracy, in
            (0, 1]; None to make all the steps. The schedule of the learning rate is that of all the steps.
        stop_head: the head whose accuracy that is; "" for all heads together.
        keep: number of newest checkpoints to keep, in addition to the best.
        workers: worker processes that load clips, for each training process; 0 loads in the training process.
        device: "auto" (CUDA or Apple's mps where there is one, else the CPU), "cpu", "cuda" or "mps".
        precision: "auto" (bfloat16 autocast if the hardware supports it natively, else float32), "bf16" or "fp32".
        grad_checkpointing: recompute activations in the backward pass, to save memory.
        compile: whether to use `torch.compile`.
        shard: shard weights, gradients and optimiser state over the processes (FSDP2); otherwise each has a copy (DDP).
        tracker: of Accelerate, such as "wandb" or "tensorboard", which gets the metrics too; "" for none. Its
            files are in the run's folder.
    """

    model: ViViTConfig
    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    start: Start = Start()
    steps: int = 400
    batch_size: int = 64
    accumulate: int = 1
    opt: str = "adamw"
    lr: float = 1e-3
    momentum: float = 0.9
    weight_decay: float = 0.05
    only: str = ""
    layer_decay: float | None = None
    warmup_steps: int = 40
    clip_grad: float = 1.0
    label_smoothing: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    class_weights: Literal["balanced"] | tuple[float, ...] | None = None
    sampling: Literal["shuffled", "balanced"] = "shuffled"
    aug_repeats: int = 1
    ema: float = 0.0
    seed: int = 0
    eval_every: int = 50
    eval_clips: int = 250
    stop_accuracy: float | None = None
    stop_head: str = ""
    keep: int = 1
    workers: int = 0
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    grad_checkpointing: bool = False
    compile: bool = False
    shard: bool = False
    tracker: str = ""

    # These do not change the result, and may change when a run resumes.
    free: ClassVar = ("workers", "keep", "tracker", "data.max_broken")

    def __post_init__(self) -> None:
        choices = {
            "device": ("auto", "cpu", "cuda", "mps"),
            "precision": ("auto", "bf16", "fp32"),
            "sampling": ("shuffled", "balanced"),
        }
        for name, known in choices.items():
            if getattr(self, name) not in known:
                raise ValueError(f"{name} {getattr(self, name)!r} is unknown; choose from {', '.join(known)}")
        for name in (
            "steps",
            "batch_size",
            "accumulate",
            "eval_every",
            "eval_clips",
            "keep",
            "lr",
            "clip_grad",
            "aug_repeats",
        ):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} {getattr(self, name)} is not positive")
        for name in ("weight_decay", "warmup_steps", "seed", "workers", "mixup", "cutmix"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} {getattr(self, name)} is negative")
        for name in ("label_smoothing", "ema", "momentum"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} {getattr(self, name)} is not in [0, 1)")
        if self.layer_decay is not None and not 0 < self.layer_decay <= 1:
            raise ValueError(f"layer_decay {self.layer_decay} is not in (0, 1]; None is for none")
        if self.stop_accuracy is not None and not 0 < self.stop_accuracy <= 1:
            raise ValueError(f"stop_accuracy {self.stop_accuracy} is not in (0, 1]; None is for no early stop")
        heads = [*self.model.num_classes] if isinstance(self.model.num_classes, dict) else []
        if self.stop_head and self.stop_head not in heads:
            raise ValueError(f"stop_head {self.stop_head!r} is unknown; the model has {heads or 'one unnamed head'}")
        if self.batch_size % self.accumulate:
            raise ValueError(f"batch_size {self.batch_size} is not divisible by accumulate {self.accumulate}")
        if (self.mixup or self.cutmix) and self.data.policy == "mask":
            raise ValueError(
                "mixup and CutMix mix clips whose masks differ; leave them out, or use another data.policy than 'mask'"
            )
        self._check_repeats()
        self._check_weights()
        self._check_task(heads)
        has = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
        if not has.get(self.device, True):
            raise ValueError(f"device {self.device!r} is not available here; use 'auto' or 'cpu'")

    def _check_repeats(self) -> None:
        if self.aug_repeats == 1:
            return
        if self._drawn:
            raise ValueError(
                f"aug_repeats {self.aug_repeats} would repeat equal clips: {self.data.train} is not augmented; use "
                f"{self.data.train}:videos"
            )
        if self.batch_size % (self.accumulate * self.aug_repeats):
            raise ValueError(
                f"batch_size {self.batch_size} is not divisible by accumulate {self.accumulate} times aug_repeats "
                f"{self.aug_repeats}"
            )

    def _check_weights(self) -> None:
        weights: Any = self.class_weights
        classes = self.model.num_classes
        if weights is None or weights == "balanced":
            return
        object.__setattr__(self, "class_weights", weights if isinstance(weights, str) else tuple(weights))
        if isinstance(weights, str) or not all(0 <= weight < math.inf for weight in weights) or not any(weights):
            raise ValueError(
                f"class_weights {weights!r} must be 'balanced' or a list of weights, one for each class, that are not "
                "negative and not all 0"
            )
        if isinstance(classes, dict):
            raise ValueError(
                f"class_weights are a list, but the model has the heads {', '.join(classes)}; use 'balanced'"
            )
        if classes and len(weights) != classes:
            raise ValueError(f"class_weights has {len(weights)} weights, but there are {classes} classes")

    def _check_task(self, heads: list[str]) -> None:
        """Refuse what the task of the data cannot have."""
        task = self.data.task
        if task == "single_label":
            return
        if heads:
            raise ValueError(
                f"several heads, {', '.join(heads)}, have one label each; data.task must be 'single_label'"
            )
        wrong = {"stop_accuracy": "is the share of right answers of one label a clip"}
        if task == "regression":
            wrong |= {
                "label_smoothing": "smooths labels of classes",
                "cutmix": "mixes labels by an area, which says nothing about a number",
                "class_weights": "weights classes",
                "sampling": "balances classes",
            }
        fields = {field.name: field.default for field in dataclasses.fields(self)}
        for name, why in wrong.items():
            if (value := getattr(self, name)) != fields[name]:
                raise ValueError(
                    f"{name} {value!r} cannot be used with data.task {task!r}: it {why}; leave it at {fields[name]!r}"
                )

    def to_json(self) -> str:
        """Return all fields as JSON."""
        return json.dumps(dataclasses.asdict(self), indent=2)

    def identity(self) -> dict[str, Any]:
        """Return all fields that the result depends on, as JSON values with dotted names."""
        return self.identify(json.loads(self.to_json()))

    def identify(self, config: dict[str, Any]) -> dict[str, Any]:
        """Return the same of another run from its config.json.

        Fields that an earlier version lacked get what was done before there were these fields, mostly their defaults.
        """
        identity = flatten(fill_in(config, self), self.free)
        if self._drawn:  # no frame is resized
            identity["data.augment.exact"] = False
        return identity

    @property
    def _drawn(self) -> bool:
        """Whether training clips are drawn as they are needed, and not augmented."""
        return self.data.embedded and not self.data.train.endswith(":videos")

    def change_model(self, **changes: Any) -> Self:
        """Return a copy with changed fields of the model."""
        return dataclasses.replace(self, model=self.model.replace(**changes))
