"""What a model looks at in a video file: the clip in its middle under the heat of attention, as a sheet and a film."""

from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from vivit_zoo import plots
from vivit_zoo.evaluation.classify import best_classes, check_model, class_table
from vivit_zoo.inference import optimize_for_inference
from vivit_zoo.interpret.maps import attention_layers, head_maps, rollout
from vivit_zoo.model import ViViT
from vivit_zoo.tokens import uniform_frame_indices
from vivit_zoo.video.clips import Views
from vivit_zoo.video.preprocess import Preprocess
from vivit_zoo.video.reader import VideoReader

__all__ = ["attend_file", "choose_layer"]


def attend_file(
    model: ViViT,
    path: str,
    views: Views,
    preprocess: Preprocess,
    out: Path,
    device: torch.device | str = "cpu",
    layer: str | None = None,
    top: int = 5,
) -> str:
    """Draw what a model looks at, and say what it sees and where the pictures are.

    `out`/{name of the video}.png shows a frame of each tubelet, below it the attention rollout and each head of the
    layer; the .gif of the same name the rollout over every frame of the video from the clip's first to its last.

    Args:
        model: to look into.
        path: of the video.
        views: one clip and one crop.
        preprocess: what to make of the frames.
        out: folder; made if missing.
        device: where the model shall live.
        layer: as for `choose_layer`; None for the rollout alone.
        top: number of classes to tell.

    Raises:
        VideoError: if the file cannot be read, or is too short under the policy "error".
        ValueError: if the model has no such layer, no head, or takes neither one nor three channels; if there are
            several views.
        OSError: if the pictures cannot be written.
    """
    check_model(model)
    if views.clips * views.crops != 1:
        raise ValueError(f"a picture is of one clip and one crop, not of {views.clips} times {views.crops}")
    name = None if layer is None else choose_layer(model, layer)
    with VideoReader(path, gray=model.config.in_chans == 1) as video:
        (clip,) = views.indices(video)
        film, places = _film(clip)
        resized = video.read(np.concatenate([clip, film]), change=preprocess.resize)
        seconds = video.times[-1] - video.times[0]
        fps = (len(video) - 1) / seconds if seconds else 10.0
    batch = preprocess(resized[: len(clip)])[None].to(device)
    frames = preprocess.crop(resized).numpy()

    model = optimize_for_inference(model.to(device).eval())
    with torch.inference_mode():
        logits = model(batch)
    logits = {head: x[0] for head, x in logits.items()} if isinstance(logits, dict) else logits[0]
    _, h, _ = model.config.grid
    shares = rearrange(rollout(model, batch)[0], "t (h w) -> t h w", h=h).cpu()
    rows = {"rollout": shares}
    if name is not None:
        heads = rearrange(head_maps(model, batch, name)[0], "head t (h w) -> head t h w", h=h).cpu()
        rows |= {f"{name}, head {number}": one for number, one in enumerate(heads)}

    shown, place = _tubelets(model)
    sheet, animation = (out / f"{Path(path).stem}{suffix}" for suffix in (".png", ".gif"))
    out.mkdir(parents=True, exist_ok=True)
    plots.attention_sheet(frames[shown], rows, sheet)
    plots.attention_film(frames[len(clip) :], shares[place[places]], animation, fps)
    return f"{class_table(path, best_classes(model, logits, top))}\nwritten to {sheet} and {animation}"


def choose_layer(model: ViViT, layer: str) -> str:
    """The name of an attention layer by its name or its number, from 0 or, from the end, -1.

    Raises:
        ValueError: if there is none.
    """
    names = attention_layers(model)
    if layer in names:
        return layer
    try:
        return names[int(layer)]
    except (ValueError, IndexError):
        raise ValueError(
            f"layer {layer!r} is not there; the model has {len(names)}, 0 to {len(names) - 1}: {', '.join(names)}"
        ) from None


def _film(clip: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The frames of a video from a clip's first to its last, and for each the number of the clip's frame on show.

    A frame that the clip repeats is shown as often; where the clip starts again, so does the film.
    """
    steps = [np.arange(here, max(here + 1, after)) for here, after in zip(clip, [*clip[1:], clip[-1]], strict=True)]
    return np.concatenate(steps), np.repeat(np.arange(len(clip)), [len(step) for step in steps])


def _tubelets(model: ViViT) -> tuple[np.ndarray, Tensor]:
    """A frame of the clip for each temporal place, and for each frame of the clip its temporal place."""
    config = model.config
    used = np.arange(config.num_frames)
    if config.sampled_frames is not None:
        used = np.array(uniform_frame_indices(config.num_frames, config.sampled_frames))
    nearest = np.abs(np.arange(config.num_frames)[:, None] - used).argmin(1)
    return used[:: config.tubelet_size[0]], torch.from_numpy(nearest // config.tubelet_size[0])
