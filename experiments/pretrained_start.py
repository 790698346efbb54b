"""Can models of the shapes of VideoMAE and VideoPrism be fine-tuned on motions?

    python experiments/pretrained_start.py    # about 4 minutes on one CPU core; a run that was stopped continues

Two checkpoints of transformers with small sizes and random weights are fine-tuned on MovingDigits, as `vivit-zoo train
own_videos --start.source FOLDER` does. Writes table.md and rollout.png, what the models look at, into
docs/results/pretrained_start.

Expected: VideoPrism's tubelets have one frame, in which no motion is seen, so its encoder has to find the motion by
attention over time. That takes far more steps (compare tubelet_length.py). With tubelets of two frames, made of the
checkpoint's kernel, the same weights learn the motions within these steps.

Seen: 96.0 % from VideoMAE's shape; 14.3 %, chance, from VideoPrism's with tubelets of one frame; 43.7 % with those of
two, whose kernel starts as the mean over both.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import torch
import transformers
from einops import rearrange

from vivit_zoo import ViViT, config_for_image, plots
from vivit_zoo.datasets import DataConfig, MovingDigits
from vivit_zoo.interpret import rollout
from vivit_zoo.system.machine import describe_machine
from vivit_zoo.system.markdown import markdown
from vivit_zoo.system.pipes import exit_if_pipe_closes
from vivit_zoo.training.config import Start, TrainConfig
from vivit_zoo.training.loop import train

OUT = Path(__file__).parents[1] / "docs/results/pretrained_start"
SIZES: dict[str, Any] = {
    "hidden_size": 72,
    "num_attention_heads": 4,
    "intermediate_size": 144,
    "num_channels": 1,
    "image_size": 32,
}
MAE: dict[str, Any] = {"patch_size": 8, "tubelet_size": 2, "num_hidden_layers": 4, "initializer_range": 0.1}
PRISM: dict[str, Any] = {"tubelet_size": [1, 8, 8], "num_spatial_layers": 3, "num_temporal_layers": 2}
ROWS = {"VideoMAE, tubelets of 2": 2, "VideoPrism, tubelets of 1": 1, "VideoPrism, tubelets of 2": 2}


def checkpoint(name: str, folder: Path) -> str:
    """Save a random model of transformers, unless it is there."""
    if not (folder / "config.json").exists():
        torch.manual_seed(0)
        if name == "VideoPrism":
            prism = transformers.VideoPrismVisionConfig(**SIZES, **PRISM, num_frames=16)
            transformers.VideoPrismForVideoClassification(prism).save_pretrained(folder)
        else:
            mae = transformers.VideoMAEConfig(**SIZES, **MAE, num_frames=16)
            transformers.VideoMAEForVideoClassification(mae).save_pretrained(folder)
    return str(folder)


@exit_if_pipe_closes()
def main(arguments: list[str]) -> int:
    """Train what is not trained yet, and write the table and the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=200, help="of each run (200)")
    parser.add_argument("--runs", type=Path, default=Path("runs/pretrained_start"), help="folder of the runs")
    parser.add_argument("--out", type=Path, default=OUT, help="folder of the table and the picture")
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=[*ROWS], help="which (all)")
    options = parser.parse_args(arguments)
    video = MovingDigits("test", 4)[3][0]
    cells: dict[str, list[str]] = {"start": options.rows, "accuracy, %": [], "parameters": []}
    maps = {}
    for name in options.rows:
        length = ROWS[name]
        source = checkpoint(name.split(",")[0], options.runs / name.split(",")[0])
        config = config_for_image(source, num_classes=len(MovingDigits.orders), tubelet_size=(length, 8, 8))
        trained = train(
            TrainConfig(
                model=config,
                data=DataConfig(train="moving_digits", test_clips=300, views=(1, 1)),
                start=Start(source=source, tubelet="filter_inflation", positions="resize"),
                steps=options.steps,
                eval_every=100,
                eval_clips=100,
                batch_size=32,
                lr=2e-3,
                warmup_steps=20,
                device="cpu",
            ),
            options.runs / name,
        )
        assert isinstance(trained.model, ViViT)
        shares = rearrange(rollout(trained.model, video[None])[0], "t (h w) -> t h w", h=4)
        maps[name] = shares.repeat_interleave(length, 0) / length
        cells["accuracy, %"].append(f"{100 * trained.test().accuracy():.1f}")
        cells["parameters"].append(f"{sum(parameter.numel() for parameter in trained.model.parameters()):,}")
    text = f"{options.steps} steps of 32 clips, 300 test clips, one seed; six classes. "
    text += f"{describe_machine(torch.device('cpu'))}, transformers {transformers.__version__}"
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "table.md").write_text(f"{markdown(cells, left=['start'])}\n\n{text}\n", encoding="utf-8")
    frames = rearrange((video + 1) * 127.5, "c t h w -> t h w c").round().byte().numpy()
    plots.attention_sheet(frames, maps, options.out / "rollout.png")
    print((options.out / "table.md").read_text(encoding="utf-8"))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
