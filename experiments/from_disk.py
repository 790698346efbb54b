"""Does a model learn the same from files as from memory, and are the files read fast enough?

    python experiments/from_disk.py              # one seed; first renders the files, once, into runs/digits-...
    python experiments/from_disk.py --seeds 3    # with the spread over seeds; finished cells are kept

The same clips of MovingDigits are given to the same model in four ways: from memory, and as H.264 files in a list, in a
folder for each class, or in WebDataset shards. A file has 16 frames of 32x32, and a clip is the whole file, so only the
coding differs. Such files are cheap to decode and expensive to open, which is the hard case for a loader.

Expected: the accuracies agree within noise. "loader alone" is the rate of the workers (`--workers`, here 1) if the
model never made them wait; "model alone" is the rate of the model if clips were always ready. If the first is larger,
reading is fast enough. Measure on an idle machine.

Seen: as expected. Seed by seed, memory, list and shards agree within two points, also where the order was not yet
learned. Class folders give the clips in another order, so their runs differ. One worker is faster than the model by a
quarter or more.
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
