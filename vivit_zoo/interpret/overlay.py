"""Draw the attention of a model on the middle clip of a video file, as a picture and as an animation."""

from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from vivit_zoo import plots
from vivit_zoo.evaluation.classify import best_classes, check_model, class_table
from vivit_zoo.inference import optimize_for_inference
from vivit_zoo.interpret.attention_rollout import rollout
from vivit_zoo.interpret.colours import dense_features, pca
from vivit_zoo.interpret.maps import head_maps
from vivit_zoo.interpret.recording import attention_layers
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
    features: int | None = None,
) -> str:
    """Draw the attention of a model on a video; return the most likely classes and the files as text.

    `out`/{name of the video}.png shows a frame of each tubelet, with rows for attention rollout, for each head of
    the layer, and for the features as colours. The .gif of the same name shows rollout on every frame between the first
    and the last of the clip.

    Args:
        model: the model; it is moved to the device and optimised for inference, in place.
        path: the video file.
        views: one clip and one crop.
        preprocess: the preprocessing of the frames.
        out: folder; created if missing.
        device: device to compute on.
        layer: a layer as for `choose_layer`; None for rollout only.
        top: number of classes to print.
        features: number of the block after which the features are shown, see `dense_features`; None for none.

    Raises:
        VideoError: if the file cannot be read, or is too short under the policy "error".
        ValueError: if the model has no such layer or block, no head, or an unsupported number of channels; or if there
            are several views or the policy "mask".
        OSError: if the pictures cannot be written.
    """
    check_model(model)
    if views.clips * views.crops != 1:
        raise ValueError(
            f"views have {views.clips} clips and {views.crops} crops; a picture needs one clip and one crop"
        )
    if views.policy == "mask":
        raise ValueError("a picture shows every frame of the clip; choose another policy than 'mask'")
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
    if features is not None:
        rows[f"features after block {features}, PCA"] = pca(dense_features(model, batch, features))[0].cpu()

    shown, place = _tubelets(model)
    sheet, animation = (out / f"{Path(path).stem}{suffix}" for suffix in (".png", ".gif"))
    out.mkdir(parents=True, exist_ok=True)
    plots.attention_sheet(frames[shown], rows, sheet)
    plots.attention_film(frames[len(clip) :], shares[place[places]], animation, fps)
    return f"{class_table(path, best_classes(model, logits, top))}\nwritten to {sheet} and {animation}"


def choose_layer(model: ViViT, layer: str) -> str:
    """Return the name of an attention layer, given its name or its number (0 is the first, -1 the last).

    Raises:
        ValueError: if there is no such layer.
    """
    names = attention_layers(model)
    if layer in names:
        return layer
    try:
        return names[int(layer)]
    except (ValueError, IndexError):
        raise ValueError(
            f"there is no layer {layer!r}; the model has {len(names)}, 0 to {len(names) - 1}: {', '.join(names)}"
        ) from None


def _film(clip: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the frames of a video from a clip's first to its last, and for each the frame of the clip it belongs to.

    Frames that the clip repeats are repeated; where the clip starts again, so does the animation.
    """
    steps = [np.arange(here, max(here + 1, after)) for here, after in zip(clip, [*clip[1:], clip[-1]], strict=True)]
    return np.concatenate(steps), np.repeat(np.arange(len(clip)), [len(step) for step in steps])


def _tubelets(model: ViViT) -> tuple[np.ndarray, Tensor]:
    """Return a frame of the clip for each temporal position, and the temporal position of each frame of the clip."""
    config = model.config
    used = np.arange(config.num_frames)
    if config.sampled_frames is not None:
        used = np.array(uniform_frame_indices(config.num_frames, config.sampled_frames))
    nearest = np.abs(np.arange(config.num_frames)[:, None] - used).argmin(1)
    return used[:: config.tubelet_size[0]], torch.from_numpy(nearest // config.tubelet_size[0])
