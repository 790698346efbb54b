"""The command line of one training run: its options are the fields of `TrainConfig`; it trains, tests and reports."""

import dataclasses
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any

import torch
from accelerate import PartialState
from jsonargparse import Namespace

from vivit_zoo import plots
from vivit_zoo.config import ViViTConfig
from vivit_zoo.datasets.config import AS_VIDEOS, check_sources
from vivit_zoo.evaluation.predictions import Predictions
from vivit_zoo.evaluation.scores import Scores
from vivit_zoo.flops import count_params
from vivit_zoo.model import ViViT
from vivit_zoo.system.extras import install_advice
from vivit_zoo.system.machine import describe_machine, versions
from vivit_zoo.system.pipes import exit_if_pipe_closes
from vivit_zoo.system.program import error_text, plain_warnings
from vivit_zoo.training.checkpoint import Checkpoints, read_metrics, write_whole
from vivit_zoo.training.config import TrainConfig
from vivit_zoo.training.loop import Trained, train
from vivit_zoo.training.objective import PROBLEM_TYPES, TargetScale
from vivit_zoo.training.options import make_parser
from vivit_zoo.weights import Checkpoint, config_for_image
from vivit_zoo.weights.card import NEW, Training, model_card
from vivit_zoo.weights.processing import Processing

__all__ = ["train_and_report", "train_from_command_line"]

PACKAGES = ("vivit-zoo", "torch", "torchvision", "timm", "accelerate", "av", "torchcodec")


@plain_warnings()
@exit_if_pipe_closes()
def train_from_command_line(
    doc: str,
    base: TrainConfig,
    out: str,
    *,
    paper: Mapping[str, float] | None = None,
    epochs: float | None = None,
    like_start: bool = False,
) -> int:
    """Run a training from the command line: train or resume, test with all views, and write the results.

    The same script runs under `python`, `torchrun` and `accelerate launch`.

    Args:
        doc: the script's docstring, shown by --help.
        base: the defaults of all options. A model of 0 classes gets those of the data.
        out: default folder of the run.
        paper: accuracies in percent to print beside the results, by name: "top-1", "verb top-1", "action top-5", ...
        epochs: default of --epochs, which replaces --steps.
        like_start: build a model with the sizes of `start.source`. Fields of `base.model` that differ from the defaults
            of `ViViTConfig`, and fields on the command line, override them.

    Returns:
        The exit code: 0; 2 for wrong options or data; 130 after Ctrl-C. SIGTERM exits with 143. `train` saves first on
        both signals.
    """
    parser = make_parser(doc, base)
    parser.add_argument("--out", type=Path, default=Path(out), help="folder of the run; the same command resumes it")
    parser.add_argument(
        "--epochs",
        type=float | None,
        default=epochs,
        help="number of epochs, instead of steps; unless warmup_steps and eval_every are given, a tenth of the steps "
        "is warm-up and there are at most ten evaluations",
    )
    options, said = parser.parse_args(), parser.parse_args(defaults=False)
    try:
        if like_start and options.start.source:
            check_sources(options.data.train, options.data.test)  # before the start is fetched
            usual, own = dataclasses.asdict(ViViTConfig()), dataclasses.asdict(base.model)
            wishes = {name for name in usual if own[name] != usual[name]} | vars(said.get("model", Namespace())).keys()
            changes = {name: options.model[name] for name in wishes}
            options.model = Namespace(
                dataclasses.asdict(config_for_image(options.start.source, arch=options.start.arch, **changes))
            )
        given = vars(parser.instantiate(options))
        folder, epochs = given.pop("out"), given.pop("epochs")
        if "steps" in said and said.get("epochs") is not None:
            raise ValueError("steps and epochs are both given; give only one of them")
        config = _fit_data(TrainConfig(**given), None if "steps" in said else epochs, said)
        train_and_report(config, folder, paper)
    except ModuleNotFoundError as error:
        print(f"{parser.prog}: {install_advice(error)}", file=sys.stderr)
        return 2
    except (ImportError, OSError, ValueError, FloatingPointError, torch.OutOfMemoryError) as error:
        advice = "; try --grad_checkpointing true, or a larger --accumulate" * isinstance(error, torch.OutOfMemoryError)
        print(f"{parser.prog}: {error_text(error)}{advice}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


def _fit_data(config: TrainConfig, epochs: float | None, said: Namespace) -> TrainConfig:
    """Fill in what depends on the data: the number of classes and the steps of an epoch."""
    if config.model.num_classes and epochs is None:
        return config
    data = config.data.build(config.model.input_shape)
    config = config.change_model(num_classes=config.model.num_classes or data.num_classes)
    if epochs is None:
        return config
    if not 0 < epochs < float("inf"):
        raise ValueError(f"epochs {epochs} is not positive")
    epoch = len(data.train) / config.batch_size
    steps = max(1, round(epochs * epoch))
    follows: dict[str, Any] = {"warmup_steps": steps // 10, "eval_every": max(1, round(epoch), steps // 10)}
    return dataclasses.replace(config, steps=steps, **{k: v for k, v in follows.items() if k not in said})


def train_and_report(config: TrainConfig, folder: Path, paper: Mapping[str, float] | None = None) -> None:
    """Train, test with all views, print the metrics, and write into the folder of the run beside what `train` does:

    model/ (`ViViT.save_pretrained`, with the names of the classes and the processing of the test, so that `vivit-zoo
    classify` needs no options for the same results, and README.md, a model card for the hub),
    predictions.csv, confusion.png (for one label a video, of several heads one each), and last result.json: metrics,
    the pace, the files that could not be read, the machine, the versions.

    Args:
        config: of the run.
        folder: of this run alone.
        paper: accuracies in percent to print beside ours.

    Raises:
        ValueError, FloatingPointError, KeyboardInterrupt, SystemExit: as `train`.
    """
    trained = train(config, folder)
    scores = trained.test()
    state = PartialState()
    if state.is_main_process:
        classes = trained.data.classes
        model = _last_model(config, folder, classes)
        model.save_pretrained(folder / "model")
        scores.save(folder / "predictions.csv", trained.data.names, classes)
        for head, one in scores.heads.items() if isinstance(scores, Scores) else ():
            names = classes[head] if head else classes
            plots.confusion(one.confusion(), names, folder / f"confusion{head and '_'}{head}.png")
        result = _result(config, folder, trained, scores, paper or {})
        card = model_card(Checkpoint.of_model(model), NEW + folder.name, training=_facts(config, result))
        write_whole(folder / "model" / "README.md", lambda file: file.write_text(card, encoding="utf-8"))
        write_whole(
            folder / "result.json", lambda file: file.write_text(json.dumps(result, indent=2), encoding="utf-8")
        )
        print(_summary(result, config.workers))
        pictures = "confusion*.png, " if isinstance(scores, Scores) else ""
        print(f"\nwritten to {folder}: model/, predictions.csv, {pictures}result.json")
    state.wait_for_everyone()
    state.destroy_process_group()


def _last_model(config: TrainConfig, folder: Path, classes: Any) -> ViViT:
    """Load the trained model from the checkpoint of the last step, because in memory it may be sharded.

    The head of a regression is changed to predict the targets in their units.
    """
    content = Checkpoints(folder / "checkpoints").newest()
    assert content is not None
    model = ViViT(config.model)
    model.load_state_dict(content.get("average", content["model"]))
    if "scale" in content:
        assert isinstance(model.head, torch.nn.Linear)
        TargetScale.from_json(content["scale"]).fold_into(model.head)
    model.problem_type = PROBLEM_TYPES[config.data.task]
    model.processing = _processing(config)
    heads = isinstance(classes, Mapping)
    model.class_names = {head: list(names) for head, names in classes.items()} if heads else list(classes)
    return model


def _processing(config: TrainConfig) -> Processing:
    """How the test of a run takes videos. An embedded clip is a whole video, whose frames have the model's size."""
    data, size = config.data, config.model.frame_size
    pixels: dict[str, Any] = dict.fromkeys(("mean", "std"), (0.5,) * config.model.in_chans)
    if data.embedded and not data.train.endswith(AS_VIDEOS):
        return Processing(short_side=min(size), antialias=False, stride=1, **pixels)
    return Processing(
        short_side=dataclasses.replace(data.augment, size=size).preprocess.resized_side,
        antialias=False,
        stride=None if data.fps else data.stride,
        fps=data.fps,
        views=data.views,
        policy=data.policy,
        **pixels,
    )


def _result(
    config: TrainConfig, folder: Path, trained: Trained, scores: Predictions, paper: Mapping[str, float]
) -> dict[str, Any]:
    metrics = read_metrics(folder / "metrics.jsonl")
    names = ("clips_per_second", "loader_clips_per_second", "model_clips_per_second")
    pace = {name: median(line[name] for line in metrics) for name in names}
    return {
        "metric": scores.metric,
        "metrics": scores.report(trained.data.classes),
        "in_percent": scores.higher_is_better,
        "notes": scores.notes(trained.data.classes),
        "paper_percent": dict(paper),
        "test_videos": len(scores),
        "views": trained.data.views,
        "steps": config.steps,
        "params": count_params(trained.model),
        "trained_params": sum(one.numel() for one in trained.model.parameters() if one.requires_grad),
        "only": config.only,
        **pace,
        "waiting": max(0.0, 1 - pace["clips_per_second"] / pace["model_clips_per_second"]),
        "peak_bytes": trained.peak_bytes,
        "broken": {split: _broken(folder, split) for split in ("train", "test")},
        "machine": describe_machine(trained.device),
        "processes": PartialState().num_processes,
        "versions": versions(PACKAGES),
    }


def _facts(config: TrainConfig, result: Mapping[str, Any]) -> Training:
    """What the model card says of a run."""
    names = ("steps", "batch_size", "opt", "lr", "weight_decay", "layer_decay", "label_smoothing", "mixup", "ema")
    settings = {name: getattr(config, name) for name in names if getattr(config, name)}
    defaults = {field.name: field.default for field in dataclasses.fields(config)}
    rarer = ("cutmix", "class_weights", "sampling", "aug_repeats")
    settings |= {name: getattr(config, name) for name in rarer if getattr(config, name) != defaults[name]}
    settings |= {"only": f"{config.only} ({result['trained_params']:,} parameters)"} if config.only else {}
    return Training(
        data=_data_name(config.data.train),
        started_from=config.start.source,
        **{name: result[name] for name in ("metric", "metrics", "in_percent")},
        test_videos=result["test_videos"],
        views=result["views"],
        details=settings | {"machine": result["machine"], **result["versions"]},
    )


def _data_name(source: str) -> str:
    """The name of a data set, such as clips/train: no absolute path, which would show the folders of this machine."""
    path = Path(source)
    return path.name if path.is_absolute() or ".." in path.parts else "/".join(path.parts[-2:])


def _broken(folder: Path, split: str) -> list[str]:
    """Return the messages of files that could not be read, in the order of the data set."""
    lines = [
        line for file in folder.glob(f"broken_{split}*.jsonl") for line in file.read_text(encoding="utf-8").splitlines()
    ]
    found = {one["place"]: one["error"] for one in map(json.loads, lines)}
    return [found[place] for place in sorted(found)]


def _summary(result: dict[str, Any], workers: int) -> str:
    """Format the result in a few lines."""
    paper, broken, metrics = result["paper_percent"], result["broken"], result["metrics"]
    title = f"{result['metric']}, %" if result["in_percent"] else result["metric"]
    width = max(map(len, (title, *metrics)))
    lines = [f"{title:<{width}} {'here':>6}" + (f" {'paper':>6}" if paper else "")]
    for name, value in metrics.items():
        printed = f" {paper[name]:>6}" if name in paper else ""
        number = f"{100 * value:.1f}" if result["in_percent"] else f"{value:.4g}"
        lines.append(f"{name:<{width}} {number:>6}{printed}")
    if len(lines) > 30:
        lines[26:] = [f"... and {len(lines) - 26} more in result.json"]
    lines += result["notes"]
    views = f"{result['views']} view{'s' * (result['views'] != 1)}"
    lines.append(f"{result['test_videos']} test videos, {views} each")
    if result["only"]:
        lines.append(
            f"trained {result['trained_params']:,} of {result['params']:,} parameters ({result['only']}), the others "
            "were frozen"
        )
    for split, errors in broken.items():
        if errors:
            lines += [f"{len(errors)} {split} videos could not be read:", *(f"  {error}" for error in errors)]
    lines.append(
        f"{result['clips_per_second']:.3g} clips/s in training; loading alone "
        f"{result['loader_clips_per_second']:.3g} with {workers} workers, the model alone "
        f"{result['model_clips_per_second']:.3g}; the model waits for data "
        f"{result['waiting']:.0%} of the time" + ("; try more --workers" if result["waiting"] > 0.1 else "")
    )
    return "\n".join([*lines, result["machine"]])
