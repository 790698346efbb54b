"""Does a model learn from files what it learns from memory, and do they come fast enough?

    python experiments/from_disk.py              # one seed; renders the files first, once, into runs/digits-...
    python experiments/from_disk.py --seeds 3    # with a spread; finished cells are kept

The same clips of MovingDigits reach the same model in four ways: made in memory, and as H.264 files that a list names,
that lie in a folder a class, or that are packed into WebDataset shards. Files hold 16 frames of 32x32, the whole of
which a clip takes: nothing is cut off or changed, so that only the coding differs. Such files cost little to decode and
much to open, which is the hard case for a loader.

Expected: the accuracies agree within noise. "loader alone" is what the workers (`--workers`, here 1)
could do if the model never made them wait, "model alone" what the model could if the clips were always there: where the
first is larger, reading keeps up. Measure on a machine that does nothing else.

Seen: so. Seed by seed, memory, list and shards agree within two points, also where the order was not yet learned; class
folders give the clips in another order, and so other runs. One worker is ahead of the model by a quarter and more.
"""

import dataclasses
import shutil
import sys
import time
from pathlib import Path

from render_digits import render
from whole_frame import WHOLE_FRAME

from vivit_zoo.datasets import DataConfig
from vivit_zoo.studies.study import BASE, Setting, run_from_command_line
from vivit_zoo.training.config import TrainConfig

FROM_DISK = dataclasses.replace(
    BASE,
    data=DataConfig(train_clips=2_000, test_clips=1_000, stride=1, views=(1, 1), augment=WHOLE_FRAME),
    workers=1,
)
CACHE = Path("runs")


def rendered(train: int, test: int) -> Path:
    """The folder with so many clips of both splits as files, which is made if it is not there."""
    folder = CACHE / f"digits-{train}-{test}"
    if not folder.exists():
        part, started = folder.with_name(folder.name + ".part"), time.perf_counter()
        shutil.rmtree(part, ignore_errors=True)  # of a call that was stopped
        for split, clips in {"train": train, "test": test}.items():
            render(part, split, clips, scale=1)
        part.rename(folder)
        seconds, size = time.perf_counter() - started, sum(file.stat().st_size for file in folder.glob("*/*/*.mp4"))
        print(f"{folder}: {train + test} clips in {seconds:.0f} s, {size / (train + test) / 1000:.1f} kB each")
    return folder


def settings(base: TrainConfig) -> list[Setting]:
    """The same clips from memory and in the three layouts of files."""
    folder = rendered(base.data.train_clips, base.data.test_clips)

    def files(train: str, test: str) -> TrainConfig:
        data = dataclasses.replace(base.data, train=str(folder / train), test=str(folder / test))
        return dataclasses.replace(base, data=data)

    return [
        Setting("memory", base),
        Setting("list file", files("train.txt", "test.txt")),
        Setting("folder by class", files("train", "test")),
        Setting("WebDataset shards", files("train-*.tar", "test-*.tar")),
    ]


if __name__ == "__main__":
    sys.exit(run_from_command_line(__doc__, FROM_DISK, settings, out="runs/from_disk"))
