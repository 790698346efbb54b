"""Write MovingDigits as video files, a data set for trying readers whose best possible accuracy is known.

    python experiments/render_digits.py --clips 600 --out data/digits

writes each split in the three layouts of file data sets, with the same clips:

    data/digits/train/{class}/{number}.mp4      folder by class
    data/digits/train.txt                       list file, `path,label`, of the same files
    data/digits/train-{000..}.tar               WebDataset shards
    data/digits/train.csv                       table of the same files with other labels, see below

and the same for test, with a tenth of the clips. Labels are names of classes, so they get the same numbers in all three
layouts. The table is for several labels and for numbers (docs/multi-label.md): its column `labels` has the motions that
occur, such as `right;clockwise`, and the columns `right`, `down` and `clockwise` have how fast each is, in pixels (of
32) or radians a frame, 0 where it does not occur. Pixels of 32x32 are enlarged by `--scale`; H.264 at --crf 10 changes
them by half a step of 255 on average.
"""

import argparse
import io
import tarfile
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from vivit_zoo.datasets import MovingDigits
from vivit_zoo.system.pipes import exit_if_pipe_closes


def to_frames(video: torch.Tensor, scale: int) -> np.ndarray:
    """A clip (1, t, h, w) in [-1, 1] -> gray frames in RGB, (t, scale h, scale w, 3) uint8."""
    gray = ((video[0] + 1) * 127.5).round().to(torch.uint8)
    return gray.repeat_interleave(scale, 1).repeat_interleave(scale, 2)[..., None].expand(-1, -1, -1, 3).numpy()


def encode(frames: np.ndarray, crf: int, rate: int = 16) -> bytes:
    """Frames (t, h, w, 3) uint8 as an MP4 file."""
    import av

    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=rate, options={"crf": str(crf), "preset": "ultrafast", "g": "8"})
        stream.codec_context.thread_count = 1  # starting threads takes longer than sixteen small frames
        stream.height, stream.width, stream.pix_fmt = frames.shape[1], frames.shape[2], "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")))
        container.mux(stream.encode())
    return file.getvalue()


def render(out: Path, split: str, clips: int, scale: int = 2, crf: int = 10, per_shard: int = 200) -> None:
    """Write one split in all three layouts, and the table.

    Raises:
        FileExistsError: if it is there already.
    """
    dataset = MovingDigits(split, clips)  # type: ignore[arg-type]
    out.mkdir(parents=True, exist_ok=True)
    (out / split).mkdir()
    for name in dataset.orders:
        (out / split / name).mkdir()
    lines, rows = [], ["path,labels," + ",".join(dataset.motions) + "\n"]
    for first in range(0, clips, per_shard):
        with tarfile.open(out / f"{split}-{first // per_shard:03}.tar", "w") as shard:
            for index in tqdm(range(first, min(first + per_shard, clips)), desc=f"{split} from {first}", leave=False):
                video, label = dataset[index]
                name = dataset.orders[label]
                data, path = encode(to_frames(video, scale), crf), f"{split}/{name}/{index:06}.mp4"
                (out / path).write_bytes(data)
                lines.append(f"{path},{name}\n")
                speeds = dataset.speeds(index)
                numbers = ",".join(f"{speed:.4f}" for speed in speeds.values())
                rows.append(f"{path},{';'.join(motion for motion, speed in speeds.items() if speed)},{numbers}\n")
                for kind, content in {"mp4": data, "cls": name.encode()}.items():
                    member = tarfile.TarInfo(f"{index:06}.{kind}")
                    member.size = len(content)
                    shard.addfile(member, io.BytesIO(content))
    (out / f"{split}.txt").write_text("".join(lines), encoding="utf-8")
    (out / f"{split}.csv").write_text("".join(rows), encoding="utf-8")


@exit_if_pipe_closes()
def main() -> None:
    """Render both splits."""
    parser = argparse.ArgumentParser(description="MovingDigits as video files in three layouts.")
    parser.add_argument("--clips", type=int, default=2000, help="of the training split; a tenth is for testing (2000)")
    parser.add_argument("--out", type=Path, default=Path("data/digits"), help="folder to write to (data/digits)")
    parser.add_argument("--scale", type=int, default=2, help="pixels a side for each of the 32 (2)")
    parser.add_argument("--crf", type=int, default=10, help="quality of H.264, 0 for lossless (10)")
    options = parser.parse_args()
    for split, clips in {"train": options.clips, "test": max(1, options.clips // 10)}.items():
        render(options.out, split, clips, options.scale, options.crf)
    layouts = "folders by class, train.txt and test.txt, train-*.tar and test-*.tar, train.csv and test.csv"
    print(f"written to {options.out}: {layouts}")


if __name__ == "__main__":
    main()
