"""What each command of `vivit-zoo` does, given its parsed options; `cli.py` has the options themselves."""

import argparse
import json
import sys
import warnings
from functools import partial
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from vivit_zoo.config import named_config
from vivit_zoo.encoders import ENCODERS
from vivit_zoo.flops import PAPER_GFLOPS, count_macs, count_params, paper_gflops
from vivit_zoo.model import ViViT
from vivit_zoo.system.machine import choose_device

if TYPE_CHECKING:
    from vivit_zoo.video.clips import Views
    from vivit_zoo.video.preprocess import Preprocess

__all__ = ["attend", "bench", "bench_data", "check_data", "classify", "convert", "features", "probe", "summary"]

SUMMARY_LEGEND = """\
GMACs: matrix products alone. Paper GFLOPs: the same and half of every elementary operation, as the paper counted;
printed: in the paper, where it prints this model."""


def summary(options: argparse.Namespace) -> int:
    """Print parameters and cost of every variant of a size, beside the paper's numbers."""
    changes = _given(num_frames=options.frames, image_size=_pair(options.image_size), num_classes=options.classes)
    printed = [(fields, gflops) for name, fields, gflops, _ in PAPER_GFLOPS if name == options.name]
    deep = _given(temporal_depth=options.temporal_depth)

    rows: list[dict[str, Any]] = [{"variant": variant} for variant in ENCODERS]
    rows += [{"variant": "factorised_encoder"} | deep, {"variant": "factorised_encoder", "temporal_depth": 0}]
    rows += [] if changes else [fields for fields, _ in printed]
    lines = [f"{'variant':<58} {'params':>13} {'GMACs':>10} {'paper GFLOPs':>13} {'printed':>8}"]
    notes = []
    for row in [row for i, row in enumerate(rows) if row not in rows[:i]]:
        config = named_config(options.name, **(row | changes))
        make, shape = partial(ViViT, config), (1, *config.input_shape)
        label = ", ".join(value if field == "variant" else f"{field}={value}" for field, value in row.items())
        try:
            with torch.device("meta"):
                params = count_params(make())
        except ValueError as error:  # this size has no such variant: three heads cannot be halved
            lines.append(f"{label:<58} {'-':>13} {'-':>10} {'-':>13} {'-':>8}")
            notes.append(f"{label}: {error}")
            continue
        in_paper = [gflops for fields, gflops in printed if fields == row and not changes]
        lines.append(
            f"{label:<58} {params:>13,} {count_macs(make, shape) / 1e9:>10.2f} {paper_gflops(make, shape):>13.1f}"
            f" {in_paper[0] if in_paper else '-':>8}"
        )
    print("\n".join([*lines, *notes, SUMMARY_LEGEND]))
    return 0


def convert(options: argparse.Namespace) -> int:
    """Load a checkpoint, save it in a format, print the report."""
    written = ("config.json", "model.safetensors", "preprocessor_config.json")
    found = [name for name in written if (options.folder / name).exists()]
    source = Path(options.source)
    if source.exists() and options.folder.resolve() in (source.resolve(), source.resolve().parent):
        raise ValueError(f"{options.folder} is where the source is, which would be lost; give another folder")
    if found and not options.overwrite:
        raise ValueError(f"{options.folder} has a model already ({found[0]}); give another folder, or add --overwrite")
    changes = _given(
        variant=options.variant,
        num_frames=options.frames,
        image_size=_pair(options.image_size),
        order=options.order,
        sampled_frames=options.sampled_frames,
    )
    model = ViViT.from_pretrained(options.source, revision=options.revision, **changes)
    model.save_pretrained(options.folder, format=options.format)
    print(model.load_report)
    print(f"written to {options.folder} in the format of {options.format}")
    return 0


def classify(options: argparse.Namespace) -> int:
    """Print the most likely classes of video files; 1 if one could not be read."""
    from vivit_zoo.evaluation.classify import classify_files

    _check_videos(options.videos)
    model, views, preprocess, device = _open_model(options, *(options.views or (None, None)))
    return classify_files(
        model, options.videos, views, preprocess, device, options.top, options.json, threshold=options.threshold
    )


def attend(options: argparse.Namespace) -> int:
    """Draw what a model attends to in a video, and print its most likely classes."""
    from vivit_zoo.interpret.colours import dense_features
    from vivit_zoo.interpret.overlay import attend_file, choose_layer
    from vivit_zoo.weights.load import read_config

    _check_videos([options.video])
    # Layer and block are checked before the weights are read.
    if {options.layer, options.features} != {None} and (config := read_config(options.checkpoint)) is not None:
        with torch.device("meta"):
            model = ViViT(config).eval()
            if options.layer is not None:
                choose_layer(model, options.layer)
            if options.features is not None:
                dense_features(model, torch.empty(1, *config.input_shape), options.features)
    model, views, preprocess, device = _open_model(options, clips=1, crops=1)
    print(
        attend_file(
            model,
            options.video,
            views,
            preprocess,
            options.out,
            device,
            options.layer,
            options.top,
            options.features,
        )
    )
    return 0


def features(options: argparse.Namespace) -> int:
    """Write the features of the windows of each video; 1 if one could not be read."""
    from vivit_zoo.evaluation.features import Extraction, extract_features, read_sources, windows_of
    from vivit_zoo.inference import optimize_for_inference
    from vivit_zoo.video.reader import check_backend

    check_backend("pyav")
    device = choose_device(options.device)
    what = Extraction(
        layers=tuple(options.layers),
        outputs=tuple(options.outputs),
        norm=not options.no_norm,
        dtype=options.dtype,
    )
    videos = read_sources(options.sources, **_reading(options))
    model = _load_model(options.checkpoint, **_given(num_frames=options.window))
    sampler, preprocess = windows_of(
        model, options.stride, options.fps, options.hop, options.preprocessing, options.policy
    )
    report = extract_features(
        optimize_for_inference(model.to(device).eval()),
        videos,
        options.out,
        what,
        sampler=sampler,
        preprocess=preprocess,
        batch_size=options.batch,
        device=device,
        checkpoint=options.checkpoint,
        progress=_progress("features"),
    )
    counts = {"written": report.written, "skipped": report.skipped, "broken": report.broken}
    print(json.dumps(counts) if options.json else f"{options.out}: {report}")
    return int(bool(report.broken))


def probe(options: argparse.Namespace) -> int:
    """Extract features, fit probes and print their table; 1 if a video could not be read."""
    from vivit_zoo.datasets.catalogue import read_catalogue, warn_of_shared_videos
    from vivit_zoo.evaluation.classify import inputs_of
    from vivit_zoo.evaluation.features import Extraction, extract_features, layer_numbers
    from vivit_zoo.evaluation.probe import load_features
    from vivit_zoo.inference import optimize_for_inference
    from vivit_zoo.studies.probes import probe_rows, report_probes
    from vivit_zoo.video.reader import check_backend

    check_backend("pyav")
    device = choose_device(options.device)
    train = read_catalogue(options.train, options.root)
    if options.test is None:
        train, test = train.hold_out(0.2)
    else:
        test = read_catalogue(options.test, options.root, train.classes)
        warn_of_shared_videos(train, test)
    classes: Any = train.classes
    if isinstance(classes, dict):
        if options.head not in classes:
            raise ValueError(f"head {options.head!r} is unknown; give --head, one of {', '.join(classes)}")
        classes = classes[options.head]
    model = _load_model(options.checkpoint)
    views, preprocess = inputs_of(model, options.clips, 1, options.stride, options.preprocessing, options.policy)
    model = optimize_for_inference(model.to(device).eval())
    what = Extraction(layers=tuple(options.layers), outputs=(options.tokens,))
    reports = {
        split: extract_features(
            model,
            videos,
            options.out / "features" / split,
            what,
            sampler=views,
            preprocess=preprocess,
            batch_size=options.batch,
            device=device,
            checkpoint=options.checkpoint,
            progress=_progress(f"features, {split}"),
        )
        for split, videos in {"train": train, "test": test}.items()
    }
    numbers = layer_numbers(model, options.layers)
    found = {}
    for number in numbers:
        name = f"layer.{number}.{options.tokens}"
        both = [load_features(reports[split].files, name, options.head) for split in ("train", "test")]
        found["" if len(numbers) == 1 else f"block {number}"] = both[0], both[1]
    rows = probe_rows(lambda seed: found, options.probes, range(options.seeds), len(classes), device=device)
    print(report_probes(rows, options.out))
    print(f"\nwritten to {options.out}: features/, table.md, results.json and pictures")
    return int(any(report.broken for report in reports.values()))


def check_data(options: argparse.Namespace) -> int:
    """Print what is in a data set; 1 if something cannot be used, 130 if stopped."""
    from vivit_zoo.datasets import check_videos, read_catalogue
    from vivit_zoo.datasets.check import check_fix, write_usable
    from vivit_zoo.video.reader import check_backend

    check_backend("pyav")  # without it every video would count as broken
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # what they say is in the report
        catalogue = read_catalogue(options.source, strict=False, **_reading(options))
    if options.fix is not None:
        check_fix(catalogue, options.fix, options.source)
    progress = _progress("check")
    report = check_videos(catalogue, options.frames, options.stride, options.full, options.workers, progress)
    print(report.to_json() if options.json else report)
    if len(report.videos) < report.total:
        return 130
    if options.fix is not None:
        usable, source = write_usable(catalogue, report, options.fix), Path(options.source)
        root = options.root or (source if source.is_dir() else source.parent)
        print(f"{options.fix}: {usable} usable videos; their paths start from {root}", file=sys.stderr)
    return int(bool(report.broken or report.problems))


def bench(options: argparse.Namespace) -> int:
    """Measure the variants of a size, and print and write the table."""
    from vivit_zoo.bench.campaigns import campaign
    from vivit_zoo.bench.peers import candidates
    from vivit_zoo.bench.report import Case

    if options.checkpointing and not options.train:
        raise ValueError("--checkpointing changes training steps alone; add --train")
    if (options.out / "speeds.json").exists() and not options.overwrite:
        raise ValueError(f"{options.out} has results already (speeds.json); give another --out, or add --overwrite")
    device = str(choose_device(options.device))
    plan = []
    for dtype, side, frames, batch in product(options.dtype, options.image_size, options.frames, options.batch):
        changes = {"num_frames": frames, "image_size": side}
        configs = [named_config(options.name, variant=variant, **changes) for variant in options.variants]
        shape = (batch, *configs[0].input_shape)
        case = Case(shape=shape, dtype=dtype, device=device, train=options.train)
        plan.append((case, candidates(configs, options.peers, options.checkpointing, options.compile)))
    print(campaign(plan, options.out, options.repeats, options.seconds))
    print(f"\nwritten to {options.out}: speeds.json, table.md and pictures")
    return 0


def bench_data(options: argparse.Namespace) -> int:
    """Measure how fast clips of video files are read, and print the tables."""
    from vivit_zoo.bench.data import measure, report
    from vivit_zoo.system.machine import describe_machine
    from vivit_zoo.video.clips import ClipSampler

    _check_videos(options.videos)
    torch.set_num_threads(1)
    sampler = ClipSampler(frames=options.frames, stride=options.stride)
    for path in options.videos:
        speed = measure(path, sampler, options.image_size, options.repeats)
        print(report([speed], options.clips_per_second) + "\n", flush=True)
    print(describe_machine(torch.device("cpu")))
    return 0


def _load_model(checkpoint: str, **changes: Any) -> ViViT:
    """Load a model and print the notes of its report, such as what of a processor's file is not followed."""
    model = ViViT.from_pretrained(checkpoint, **changes)
    for note in model.load_report.notes if model.load_report else []:
        print(f"note: {note}", file=sys.stderr)
    return model


def _open_model(
    options: argparse.Namespace, clips: int | None, crops: int | None
) -> tuple[ViViT, "Views", "Preprocess", torch.device]:
    """Everything that classify and attend need; what is quick to check comes before the model is loaded."""
    from vivit_zoo.evaluation.classify import inputs_of

    device = choose_device(options.device)
    if sys.stderr.isatty() and not Path(options.checkpoint).exists():
        print(f"{options.checkpoint} is not here; looking for it on the hub", file=sys.stderr)
    model = _load_model(options.checkpoint)
    views, preprocess = inputs_of(model, clips, crops, options.stride, options.preprocessing, options.policy)
    return model, views, preprocess, device


def _progress(title: str) -> Any:
    """A progress bar over videos; none where stderr is no terminal."""
    from tqdm import tqdm

    return partial(tqdm, desc=title, unit="video", dynamic_ncols=True, disable=None)


def _reading(options: argparse.Namespace) -> dict[str, Any]:
    """The arguments of `read_catalogue`."""
    from vivit_zoo.datasets.labels import read_class_list

    classes = None if options.classes is None else read_class_list(Path(options.classes))
    names = ("root", "task", "video_key", "targets")
    return {"classes": classes, **{name: getattr(options, name) for name in names}}


def _check_videos(paths: list[str]) -> None:
    """Raise the reader's error if no video can even be opened, before a model is loaded for it."""
    from vivit_zoo.video.reader import VideoError, check_backend
    from vivit_zoo.video.source import VideoSource

    check_backend("pyav")
    errors = []
    for path in paths:
        try:
            VideoSource(path)
        except VideoError as error:
            errors.append(str(error))
    if len(errors) == len(paths):
        raise ValueError("; ".join(errors))


def _given(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _pair(size: list[int] | None) -> tuple[int, ...] | None:
    """Height and width from one number or two; more are for the configuration to refuse."""
    return None if size is None else tuple(size * 2 if len(size) == 1 else size)
