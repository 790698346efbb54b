"""What do pretrained video models cost in these blocks, beside transformers' own?

    python experiments/pretrained_video.py            # about 20 minutes on one CPU core
    python experiments/pretrained_video.py --page     # measures nothing: puts the tables into docs/pretrained-video.md

Models of official sizes with random weights, one clip each, float32. transformers saves each model once, both
`from_pretrained` load it, and the forward passes take turns. Times are CPU seconds of this process, so that other load
on the machine counts little. A ratio is ours over theirs, the median over the rounds. Memory is the peak of a load or a
forward pass beyond what was in use before. "Apart" is the largest difference of logits over the largest of theirs.

VideoPrism caps the scores of its attention. Its first row computes that unfused, as transformers does; the second in
torch's flex_attention, compiled; the third leaves the cap out and uses the fused kernel, which is another function.
(With random weights scores are small, so "apart" shows little of the difference.) V-JEPA 2 takes 16 frames, as its
checkpoint of Something-Something does.

Results are kept in docs/results/pretrained_video/results.json after each model. A model that is there is skipped, so
a run that was stopped continues; `--again` measures anew.

Expected: ratios near 1 where both attentions are fused or both are not, and below 1 where transformers' alone is not.

Seen: 1.01 VideoMAE, 0.92 TimeSformer, 1.00 V-JEPA 2; VideoPrism 0.80 with the unfused cap, 0.76 with flex_attention. A
forward pass takes a sixth to a third of transformers' memory. Loading takes seconds longer where
transformers maps the file into memory, since tensors are folded and copied here.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import torch
import transformers
from table import with_tables
from torch import Tensor
from torch.nn.attention.flex_attention import flex_attention

from vivit_zoo import ViViT
from vivit_zoo.attention import Attend, Attention, attend, attend_softcapped
from vivit_zoo.system.machine import PeakMemory, describe_machine
from vivit_zoo.system.markdown import markdown
from vivit_zoo.system.pipes import exit_if_pipe_closes

ROOT = Path(__file__).parents[1]
RESULTS, PAGE = ROOT / "docs/results/pretrained_video", ROOT / "docs/pretrained-video.md"
# Configuration and class of transformers, and the sizes that differ from the configuration's defaults.
MODELS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "VideoMAE-B": ("VideoMAEConfig", "VideoMAEForVideoClassification", {"num_labels": 400}),
    "TimeSformer-B": ("TimesformerConfig", "TimesformerForVideoClassification", {"num_labels": 400}),
    "VideoPrism-B": ("VideoPrismVisionConfig", "VideoPrismForVideoClassification", {"num_labels": 400}),
    "V-JEPA 2-L": ("VJEPA2Config", "VJEPA2ForVideoClassification", {"frames_per_clip": 16, "num_labels": 174}),
}


def timed(run: Callable[[], Any]) -> tuple[Any, float]:
    """The result of a call and its CPU seconds."""
    start = time.process_time()
    result = run()
    return result, time.process_time() - start


def strategies(model: ViViT) -> dict[str, Callable[[], Any]]:
    """What is added to the model's name in a row -> a function that sets the attention of that row."""
    cap = model.config.attn_softcap
    modules = [module for module in model.modules() if isinstance(module, Attention)]
    if cap is None:
        return {"": list}
    fused = torch.compile(partial(flex_attention, score_mod=lambda score, *_: cap * torch.tanh(score / cap)))

    def attend_flex(q: Tensor, k: Tensor, v: Tensor, dropout: float = 0.0) -> Tensor:
        batch = q.shape[:-3]
        return fused(*(x.flatten(end_dim=-4) for x in (q, k, v))).unflatten(0, batch)

    def set_all(strategy: Attend) -> None:
        for module in modules:
            module.attend = strategy

    unfused = partial(attend_softcapped, cap=cap)
    rows: dict[str, Attend] = {"": unfused, ", cap in flex_attention": attend_flex, ", no cap": attend}
    return {name: partial(set_all, strategy) for name, strategy in rows.items()}


@torch.inference_mode()
def measure(name: str, rounds: int) -> dict[str, dict[str, Any]]:
    """The numbers of a model's rows, by title."""
    config, architecture, sizes = MODELS[name]
    kind, device = getattr(transformers, architecture), torch.device("cpu")
    with TemporaryDirectory() as folder:
        kind(getattr(transformers, config)(**sizes)).save_pretrained(folder)
        theirs, their_load = timed(lambda: kind.from_pretrained(folder).eval())
        memory = PeakMemory(device)
        ours, load = timed(lambda: ViViT.from_pretrained(folder))
        load_bytes = memory.peak_bytes()
    clip = torch.rand(1, *ours.config.input_shape, generator=torch.Generator().manual_seed(0)) * 2 - 1
    mean, std = (torch.tensor(x)[:, None, None] for x in (ours.processing.mean, ours.processing.std))
    pixels = ((clip.transpose(1, 2) + 1) / 2 - mean) / std
    memory = PeakMemory(device)
    expected = theirs(pixels).logits.flatten()
    shared = {
        "parameters": sum(parameter.numel() for parameter in ours.parameters()),
        "load": load,
        "their_load": their_load,
        "load_bytes": load_bytes,
        "their_bytes": memory.peak_bytes(),
    }
    set_attention = {name + suffix: setter for suffix, setter in strategies(ours).items()}
    rows: dict[str, dict[str, Any]] = {}
    for title, setter in set_attention.items():
        setter()
        ours(clip)  # compiles what is to be compiled
        memory = PeakMemory(device)
        apart = (ours(clip).flatten() - expected).abs().max() / expected.abs().max()
        found = {"bytes": memory.peak_bytes(), "apart": apart.item(), "ours": [], "theirs": []}
        rows[title] = shared | found
    for _ in range(rounds):
        _, their_seconds = timed(lambda: theirs(pixels))
        for title, setter in set_attention.items():
            setter()
            rows[title]["ours"].append(timed(lambda: ours(clip))[1])
            rows[title]["theirs"].append(their_seconds)
    return rows


def table(rows: dict[str, dict[str, Any]], machine: str) -> str:
    """The rows as Markdown, with the machine below."""

    def megabytes(count: int | None) -> str:
        return "" if count is None else f"{count / 2**20:,.0f} MB"

    columns: dict[str, list[str]] = {"model": list(rows)}
    cells: dict[str, Callable[[dict[str, Any]], str]] = {
        "parameters": lambda row: f"{row['parameters'] / 1e6:.0f} M",
        "load": lambda row: f"{row['load']:.1f} s",
        "their load": lambda row: f"{row['their_load']:.1f} s",
        "load memory": lambda row: megabytes(row["load_bytes"]),
        "forward": lambda row: f"{median(row['ours']):.1f} s",
        "ratio": lambda row: f"{median(a / b for a, b in zip(row['ours'], row['theirs'], strict=True)):.2f}",
        "memory": lambda row: megabytes(row["bytes"]),
        "their memory": lambda row: megabytes(row["their_bytes"]),
        "apart": lambda row: f"{row['apart']:.0e}",
    }
    columns |= {title: [cell(row) for row in rows.values()] for title, cell in cells.items()}
    text = markdown(columns, left=["model"])
    return f"{text}\n\n`pretrained_video.py`, {machine}. CPU seconds; forward passes take turns."


@exit_if_pipe_closes()
def main(arguments: list[str]) -> int:
    """Measure what is missing and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=[*MODELS], help="which (all)")
    parser.add_argument("--rounds", type=int, default=3, help="forward passes of each (3)")
    parser.add_argument("--again", action="store_true", help="measure models anew that the results have")
    parser.add_argument("--page", action="store_true", help="only write the page")
    options = parser.parse_args(arguments)
    file = RESULTS / "results.json"
    results = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {"models": {}}
    for name in [] if options.page else options.models:
        if name in results["models"] and not options.again:
            print(f"{name} is in {file}; --again measures it anew", file=sys.stderr)
            continue
        machine = f"{describe_machine(torch.device('cpu'))}, transformers {transformers.__version__}"
        if results.setdefault("machine", machine) != machine:
            parser.error(f"{file} is of {results['machine']}; this is {machine}: move the file away to start anew")
        results["models"][name] = measure(name, options.rounds)
        RESULTS.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    rows = {title: row for name in MODELS for title, row in results["models"].get(name, {}).items()}
    text = table(rows, results["machine"])
    (RESULTS / "table.md").write_text(text + "\n", encoding="utf-8")
    PAGE.write_text(with_tables(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
