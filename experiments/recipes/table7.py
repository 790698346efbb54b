"""The paper's training recipes as a table (arXiv 2103.15691 v2, Table 7), which the scripts beside this one run.

What all have in common: SGD with momentum 0.9 (not Nesterov's, no weight decay), batches of 64 clips, gradients clipped
to a norm of 1, a linear warm-up over 2.5 epochs and a cosine to 0, random crop, flip and scale jitter, a start from an
image model with the central frame's tubelets; clips of 32 frames of 224 pixels; 4x3 views to test.

Differs from the original everywhere: bfloat16 where the hardware has it (`--precision fp32` for the original's
float32); the gradient is clipped after it is averaged over the devices, there on each; stochastic depth rescales what
it keeps; the class token of a factorised encoder starts as the image model's, there at zero. Steps are counted for the
videos that the data set had; with fewer on the disk, `--epochs 30` counts those.
"""

from typing import Any

from vivit_zoo.config import named_config
from vivit_zoo.datasets import DataConfig
from vivit_zoo.training.config import Start, TrainConfig
from vivit_zoo.video.augment import Augment

# timm's names of the weights of the ViT paper, ImageNet-21K, which the original starts from.
IMAGE_MODELS = {"B": "vit_base_patch16_224.orig_in21k", "L": "vit_large_patch16_224.orig_in21k"}

# Training videos: the sizes of the original's configurations; Moments in Time has none there, this is its paper's.
VIDEOS = {"k400": 214_834, "k600": 363_213, "mit": 802_264, "ek": 67_217, "ssv2": 168_913}
CLASSES: dict[str, Any] = {"k400": 400, "k600": 600, "mit": 339, "ek": {"noun": 300, "verb": 97}, "ssv2": 174}
#                     K400   K600  MiT    EK   SSv2
TABLE_7: dict[str, tuple[float, ...]] = {
    "lr":              (0.1,  0.1, 0.25,  0.5,  0.5),
    "epochs":          ( 30,   30,   10,   50,   35),
    "colour":          (0.8,  0.8,  0.8,  0.0,  0.0),
    "rand_layers":     (  0,    0,    0,    2,    2),
    "rand_magnitude":  (  0,    0,    0,   15,   20),
    "drop_path":       (0.0,  0.0,  0.0,  0.2,  0.3),
    "label_smoothing": (0.0,  0.0,  0.0,  0.2,  0.3),
    "mixup":           (0.0,  0.0,  0.0,  0.1,  0.3),
}  # fmt: skip
WARMUP_EPOCHS = 2.5


def recipe(
    dataset: str,
    data: dict[str, Any],
    size: str = "L",
    start: Start | None = None,
    short_side: int | None = None,
    lr: float | None = None,
    **model: Any,
) -> TrainConfig:
    """The paper's training on a data set.

    Args:
        dataset: a column of the table: "k400", "k600", "mit", "ek" or "ssv2".
        data: fields of `DataConfig`: where the videos are.
        size: of the model, with tubelets of 16x2.
        start: None for the image model of this size.
        short_side: of the frames before the crop, in pixels.
        lr: None for the table's.
        **model: fields of `ViViTConfig`.
    """
    column = list(VIDEOS).index(dataset)
    row = {name: values[column] for name, values in TABLE_7.items()}
    steps_an_epoch = VIDEOS[dataset] // 64
    augment = Augment(
        short_side=short_side,
        colour=row["colour"],
        gray=0.1 if row["colour"] else 0.0,
        rand_augment_layers=int(row["rand_layers"]),
        rand_augment_magnitude=row["rand_magnitude"],
    )
    return TrainConfig(
        model=named_config(
            f"{size}/16x2",
            num_classes=CLASSES[dataset],
            drop_path=row["drop_path"],
            **model,
        ),
        data=DataConfig(augment=augment, **data),
        start=start or Start(source=IMAGE_MODELS[size], positions="tile"),
        steps=int(row["epochs"]) * steps_an_epoch,
        warmup_steps=int(WARMUP_EPOCHS * steps_an_epoch),
        batch_size=64,
        opt="momentum",
        momentum=0.9,
        weight_decay=0.0,
        lr=row["lr"] if lr is None else lr,
        clip_grad=1.0,
        label_smoothing=row["label_smoothing"],
        mixup=row["mixup"],
        eval_every=1000,
        eval_clips=2000,
        keep=2,
        workers=8,
    )
