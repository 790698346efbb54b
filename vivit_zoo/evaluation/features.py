"""Features of videos from a frozen model: sliding windows over each video, one file a video, resumable."""

import hashlib
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from vivit_zoo.datasets.catalogue import Catalogue, Entry, read_catalogue
from vivit_zoo.datasets.sources import VideoFile, is_video
from vivit_zoo.encoders import Encoder
from vivit_zoo.evaluation.classify import inputs_of
from vivit_zoo.evaluation.feature_jobs import Job, Sampler, plan_jobs
from vivit_zoo.model import ViViT
from vivit_zoo.system.batches import compute_in_batches, prefetch
from vivit_zoo.system.signals import StopSignals
from vivit_zoo.tokens import average
from vivit_zoo.video.clips import Policy, Views, Windows
from vivit_zoo.video.preprocess import Preprocess, Style
from vivit_zoo.video.reader import VideoError

__all__ = [
    "OUTPUTS",
    "Extraction",
    "FeatureReport",
    "compute_features",
    "extract_features",
    "layer_numbers",
    "read_sources",
    "windows_of",
]

_Window = tuple[Job, int, tuple[Tensor, ...]]  # a video, the number of its window, and the window: clip and mask

OUTPUTS = ("pooled", "frames", "dense")
"""What is kept of a layer's tokens (b, t, h, w, d): their mean (b, d), that of each frame (b, t, d), or all of them."""


@dataclass(frozen=True, kw_only=True)
class Extraction:
    """Which features are kept of each window, besides the model's pooled output.

    Args:
        layers: numbers of blocks as for `ViViT.forward_intermediates`, negative ones from the end.
        outputs: of each of these layers, see `OUTPUTS`.
        norm: whether the last norm is applied to the tokens, as it is before the pooling.
        dtype: of the features in files, "float32" or "float16".

    Raises:
        ValueError: on an unknown output or dtype, or layers without outputs.
    """

    layers: tuple[int, ...] = (-1,)
    outputs: tuple[str, ...] = ("pooled",)
    norm: bool = True
    dtype: str = "float32"

    def __post_init__(self) -> None:
        for name in self.outputs:
            if name not in OUTPUTS:
                raise ValueError(f"output {name!r} is unknown; choose from {', '.join(OUTPUTS)}")
        if self.dtype not in ("float32", "float16"):
            raise ValueError(f"dtype {self.dtype!r} is unknown; choose from float32, float16")
        if self.layers and not self.outputs:
            raise ValueError(f"layers {list(self.layers)} need an output; choose from {', '.join(OUTPUTS)}")


@dataclass
class FeatureReport:
    """What `extract_features` did.

    Args:
        written: number of videos whose file was written.
        skipped: number of videos whose file existed.
        broken: names of videos that could not be read -> the reason.
        files: of all videos that could be read.
    """

    written: int = 0
    skipped: int = 0
    broken: dict[str, str] = field(default_factory=dict)
    files: list[Path] = field(default_factory=list)

    def __str__(self) -> str:
        parts = [f"{self.written} written", f"{self.skipped} skipped, as they exist"]
        return ", ".join([*parts, f"{len(self.broken)} could not be read"])


def read_sources(sources: Sequence[str], **options: Any) -> Catalogue:
    """Read video files, and data sets in any form, as one catalogue. Files have no label.

    Args:
        sources: paths of video files, or sources of `read_catalogue`.
        **options: of `read_catalogue`. Later data sets get the classes of the first.

    Raises:
        ValueError: as `read_catalogue`.
    """
    entries: list[Entry] = []
    classes = options.pop("classes", None)
    for source in sources:
        if is_video(source) and not Path(source).is_dir():
            entries.append(Entry(VideoFile(Path(source)), None))  # type: ignore[arg-type]
        else:
            catalogue = read_catalogue(source, classes=classes, **options)
            classes = catalogue.classes or None
            entries += catalogue.entries
    return Catalogue(entries, classes or [])


def windows_of(
    model: ViViT,
    stride: int | None = None,
    fps: float | None = None,
    hop: int | None = None,
    style: Style | None = None,
    policy: Policy | None = None,
) -> tuple[Windows | Views, Preprocess]:
    """Sliding windows of the frames that a model takes, and the preprocessing of the frames.

    Args:
        model: its `processing` decides what is not given, as for `vivit_zoo.evaluation.classify.inputs_of`. A model
            whose frames are spread over the whole video gets one such window, if neither stride, fps nor hop is given.
        stride, fps, hop, policy: see `Windows`.
        style: see `Preprocess`.

    Raises:
        ValueError: if stride and fps are both given, or on values that `Windows` refuses.
    """
    if stride is not None and fps is not None:
        raise ValueError(f"stride {stride} and fps {fps:g} are both given; give only one of them")
    views, preprocess = inputs_of(model, 1, 1, stride, style, policy)
    if views.spread and fps is None and hop is None:
        return views, preprocess
    fps = views.fps if fps is None else fps
    return Windows(frames=views.frames, stride=views.stride, fps=fps, hop=hop, policy=views.policy), preprocess


@torch.no_grad()
def compute_features(model: ViViT, video: Tensor, what: Extraction, mask: Tensor | None = None) -> dict[str, Tensor]:
    """Compute the features of a batch of clips: (b, c, t, h, w) -> name -> (b, ...).

    "features" is the model's pooled output (b, d). "layer.{n}.pooled" is (b, d), "layer.{n}.frames" (b, t, d) and
    "layer.{n}.dense" (b, t, h, w, d) of block n, counted from 0. With a mask (b, T) of the frames that are there, the
    tokens of the others are left out of the means, and zero in the rest.

    Raises:
        ValueError: on layers that the model does not have.
    """
    if not what.layers:
        return {"features": model.forward_features(video, mask)}
    features, tokens = model.forward_intermediates(video, what.layers, norm=what.norm, mask=mask)
    found = {"features": features}
    there = None if mask is None else model.token_mask(mask)
    forms = {
        "pooled": lambda x: average(x.mean((2, 3)), there),
        "frames": lambda x: x.mean((2, 3)),
        "dense": lambda x: x,
    }
    for number, x in zip(layer_numbers(model, what.layers), tokens, strict=True):
        x = x if there is None else x.masked_fill(~there[:, :, None, None, None], 0.0)
        found |= {f"layer.{number}.{name}": forms[name](x) for name in what.outputs}
    return found


def _count_blocks(model: ViViT) -> int:
    return sum(len(module.blocks) for module in model.modules() if isinstance(module, Encoder))


def layer_numbers(model: ViViT, layers: Sequence[int]) -> list[int]:
    """Return the numbers from 0 of layers that may be counted from the end."""
    return [layer % _count_blocks(model) for layer in layers]


def extract_features(
    model: ViViT,
    videos: Catalogue,
    out: str | Path,
    what: Extraction | None = None,
    *,
    sampler: Sampler | None = None,
    preprocess: Preprocess | None = None,
    batch_size: int = 8,
    device: torch.device | str = "cpu",
    checkpoint: str = "",
    backend: str = "pyav",
    progress: Callable[[Iterable[Any]], Iterable[Any]] = iter,
) -> FeatureReport:
    """Write the features of each video to a file in a folder; resume an earlier call with the same settings.

    Each file is written whole or not at all. Videos whose file exists are skipped, videos that cannot be read are
    reported. Windows of several videos share a batch. The next batch is read in a thread while the model computes. Each
    frame is decoded once, however many windows it is in, and only the frames of one window are kept for the next.

    Args:
        model: in evaluation mode, on the device.
        videos: the videos, such as of `read_catalogue` or `read_sources`.
        out: the folder; created if missing.
        what: which features; None for the defaults.
        sampler: the windows of each video, `Windows` or `Views` with one crop; None for those of `windows_of`.
        preprocess: of the frames; None for that of `windows_of`.
        batch_size: windows in a batch; half as many, again and again, where they do not fit the memory of a GPU.
        device: device of the model.
        checkpoint: name of the model for the metadata; by default the source that it was loaded from.
        backend: that decodes files.
        progress: wraps the list of videos, such as `tqdm`.

    Raises:
        ValueError: if the model is in training mode, takes neither one nor three channels, or does not have a layer; or
            if the folder has files that were made with other settings or labels, with the differences.
        KeyboardInterrupt, SystemExit: on Ctrl-C and SIGTERM, after the batch; the files of finished videos are kept.
    """
    what = what or Extraction()
    usual, preprocessing = windows_of(model)
    sampler, preprocess = sampler or usual, preprocess or preprocessing
    _check_model(model, what, sampler)
    settings = _settings(model, what, sampler, preprocess)
    name = checkpoint or (model.load_report.source if model.load_report else "")
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    files, jobs = plan_jobs(videos, out, settings, {"checkpoint": name})
    report = FeatureReport(skipped=len(files) - len(jobs))
    reading = {"gray": model.config.in_chans == 1, "backend": backend}

    def read() -> Iterator[tuple[list[_Window], list[tuple[Job, VideoError]]]]:
        """Full batches of windows, and the jobs that failed on the way; runs in a thread."""
        batch: list[_Window] = []
        failed: list[tuple[Job, VideoError]] = []
        for job in progress(jobs):
            try:
                for number, clip in enumerate(job.windows(sampler, preprocess, reading)):
                    batch.append((job, number, clip))
                    if len(batch) == batch_size:
                        yield batch, failed
                        batch, failed = [], []
            except VideoError as error:
                failed.append((job, error))
                batch = [one for one in batch if one[0] is not job]
        yield batch, failed

    def windows() -> Iterator[_Window]:
        """The windows of all jobs, read one batch ahead."""
        for batch, failed in prefetch(read()):
            for job, error in failed:
                job.discard()
                report.broken[job.place.name] = str(error)
                tqdm.write(f"skipped: {error}", file=sys.stderr)
            yield from batch

    def compute(batch: list[_Window]) -> dict[str, Tensor]:
        clips, *mask = (torch.stack(parts).to(device) for parts in zip(*(clip for _, _, clip in batch), strict=True))
        found = compute_features(model, clips, what, *mask)
        return {key: x.cpu().to(getattr(torch, what.dtype)) for key, x in found.items()}

    with StopSignals() as signals:
        try:
            for batch, found in compute_in_batches(compute, windows(), batch_size):
                for row, (job, number, _) in enumerate(batch):
                    job.put(number, {key: x[row].numpy() for key, x in found.items()})
                    report.written += job.done == job.total
                if signals.received:
                    done = f"{report.written} of {len(jobs)} videos are done"
                    tqdm.write(f"stopped: {done}; run the same command again to resume", file=sys.stderr)
                    signals.leave(signals.received)
        finally:
            for job in jobs:
                if job.done < job.total:
                    job.discard()
    report.files = [file for file in files if file.exists()]
    return report


def _check_model(model: ViViT, what: Extraction, sampler: Sampler) -> None:
    if model.training:
        raise ValueError("the model is in training mode; call model.eval() before extract_features(model, ...)")
    if model.config.in_chans not in (1, 3):
        raise ValueError(f"the model takes {model.config.in_chans} channels; videos have 3, or 1 for gray models")
    if getattr(sampler, "crops", 1) != 1:
        raise ValueError(f"the views have {getattr(sampler, 'crops', 1)} crops; features are of one crop, the centre")
    count = _count_blocks(model)
    for layer in what.layers:
        if not -count <= layer < count:
            raise ValueError(f"layer {layer} is not in {-count} to {count - 1}, the numbers of the model's blocks")


def _settings(model: ViViT, what: Extraction, sampler: Any, preprocess: Preprocess) -> dict[str, Any]:
    """What the features depend on, besides the video."""
    digest = hashlib.sha256(model.config.to_json().encode())
    for name, tensor in model.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    settings = {"weights": digest.hexdigest()[:16], **asdict(what), "layers": layer_numbers(model, what.layers)}
    settings |= {"sampler": type(sampler).__name__, **{f"sampler.{k}": v for k, v in asdict(sampler).items()}}
    settings |= {f"preprocess.{name}": value for name, value in asdict(preprocess).items()}
    return json.loads(json.dumps(settings))
