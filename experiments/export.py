"""How long does it take to export each variant, how exact is the result, and is it faster?

    python experiments/export.py            # 8 minutes of one CPU core; writes docs/benchmarks/export
    python experiments/export.py --page     # measures nothing: puts the table into docs/export.md

ViViT-S/16x2 on clips of 16x224x224, 400 classes, float32, one thread. Each variant is exported with a free batch size
from an example of two clips:

- torch.export: a graph of PyTorch operators, run in Python;
- ONNX, run by ONNX Runtime (`pip install onnx onnxscript onnxruntime`);
- AOTInductor: a compiled library, which needs a C++ compiler.

"Export" is CPU seconds, those of the C++ compiler included. "Apart" is the largest difference of logits from the model
as built ("eager"), for another batch size than the example's, over the largest logit; the head is random here.
"Forward" is CPU seconds of one clip, for which all forms take turns; the ratio to eager is the median over the rounds.
All run in one process and one thread, so that other load on the machine counts little. `optimize_for_inference` is not
an export; it is the fastest form in Python.

Results are kept in docs/benchmarks/export/results.json after each variant. A variant that is there is skipped;
`--again` measures it anew.

Expected: exports differ from eager by rounding, a few millionths. The large products take most of the time in all
forms, so that ratios are near 1. The compiled library takes the longest to make.

Seen: at most 8e-7 apart. ONNX Runtime takes 5 to 10 % less time than eager, AOTInductor as much; the model in Python
with optimize_for_inference 3 to 7 % less. Exports take 4 to 35 CPU seconds.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import torch
from table import with_tables
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from vivit_zoo import ViViT, create_model, optimize_for_inference
from vivit_zoo.encoders import ENCODERS
from vivit_zoo.system.machine import describe_machine
from vivit_zoo.system.markdown import markdown
from vivit_zoo.system.pipes import exit_if_pipe_closes

ROOT = Path(__file__).parents[1]
RESULTS, PAGE = ROOT / "docs/benchmarks/export", ROOT / "docs/export.md"
EXAMPLE, OTHER = 2, 3  # clips of the example and of the comparison
PACKAGES = ("onnx", "onnxscript", "onnxruntime")
Run = Callable[[Tensor], Tensor]


def cpu_seconds() -> float:
    """CPU time of this process and of the processes that it started and that have ended."""
    return sum(os.times()[:4])


def build(variant: str, size: str, frames: int, side: int) -> ViViT:
    """A model with random weights, in its head too, which is zero in a new model."""
    torch.manual_seed(0)
    model = create_model(size, variant=variant, num_frames=frames, image_size=side).eval()
    assert isinstance(model.head, nn.Linear)
    nn.init.normal_(model.head.weight, std=0.02)
    return model


def clips(model: ViViT, count: int) -> Tensor:
    """Random clips in [-1, 1]."""
    return torch.rand(count, *model.config.input_shape, generator=torch.Generator().manual_seed(count)) * 2 - 1


def trace(model: ViViT) -> ExportedProgram:
    """The model as a graph with a free batch size."""
    batch = Dim("batch", min=1, max=64)
    return torch.export.export(model, (clips(model, EXAMPLE),), dynamic_shapes=({0: batch},))


def to_export(model: ViViT, folder: Path) -> tuple[Run, Path]:
    """torch.export's graph, saved and loaded again."""
    file = folder / "vivit.pt2"
    torch.export.save(trace(model), file)
    return torch.export.load(file).module(), file


def to_onnx(model: ViViT, folder: Path) -> tuple[Run, Path]:
    """An ONNX file in a session of ONNX Runtime."""
    import onnxruntime

    file = folder / "vivit.onnx"
    program = torch.onnx.export(
        model,
        (clips(model, EXAMPLE),),
        dynamo=True,
        dynamic_shapes=({0: Dim("batch")},),
        input_names=["video"],
        output_names=["logits"],
        verbose=False,
    )
    assert program is not None
    program.save(file)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    return lambda video: torch.from_numpy(session.run(None, {"video": video.numpy()})[0]), file


def to_library(model: ViViT, folder: Path) -> tuple[Run, Path]:
    """A library that AOTInductor compiles."""
    from torch._inductor import aoti_compile_and_package, aoti_load_package, config

    config.compile_threads = 1  # in this process, whose CPU time is measured
    file = aoti_compile_and_package(trace(model), package_path=str(folder / "library.pt2"))
    return aoti_load_package(file), Path(file)


EXPORTS: dict[str, Callable[[ViViT, Path], tuple[Run, Path]]] = {
    "torch.export": to_export,
    "ONNX Runtime": to_onnx,
    "AOTInductor": to_library,
}


def measure(model: ViViT, rounds: int, exports: list[str]) -> dict[str, dict[str, Any]]:
    """The numbers of each form of a model, by name."""
    one, other = clips(model, 1), clips(model, OTHER)
    rows: dict[str, dict[str, Any]] = {name: {"forward": []} for name in ("eager", "optimize_for_inference", *exports)}
    with TemporaryDirectory() as name:
        folder = Path(name)
        model.save_pretrained(folder / "eager")
        rows["eager"]["bytes"] = (folder / "eager" / "model.safetensors").stat().st_size
        runs: dict[str, Run] = {"eager": model}
        for form in exports:
            start = cpu_seconds()
            runs[form], file = EXPORTS[form](model, folder)
            files = file.parent.glob(f"{file.name}*")  # ONNX can put the weights into a second file
            rows[form] |= {"export": cpu_seconds() - start, "bytes": sum(file.stat().st_size for file in files)}
        optimized = ViViT.from_pretrained(folder / "eager")
        runs["optimize_for_inference"] = optimize_for_inference(optimized)
        with torch.inference_mode():
            expected = model(other)
            for form, run in runs.items():
                rows[form]["apart"] = ((run(other) - expected).abs().max() / expected.abs().max()).item()
                run(one)  # the first call of a size allocates memory
            for _ in range(rounds):
                for form, run in runs.items():
                    start = time.process_time()
                    run(one)
                    rows[form]["forward"].append(time.process_time() - start)
    return rows


def table(variants: dict[str, dict[str, dict[str, Any]]], about: str) -> str:
    """The rows of all variants as Markdown."""
    columns: dict[str, list[str]] = {
        title: [] for title in ("variant", "form", "export", "file", "apart", "forward", "ratio to eager")
    }
    for variant, rows in variants.items():
        for form, row in rows.items():
            ratio = median(a / b for a, b in zip(row["forward"], rows["eager"]["forward"], strict=True))
            cells = [
                variant,
                form,
                f"{row['export']:.0f} s" if "export" in row else "",
                f"{row['bytes'] / 1e6:.0f} MB" if "bytes" in row else "",
                "" if form == "eager" else f"{row['apart']:.0e}" if row["apart"] else "0",
                f"{median(row['forward']):.2f} s",
                "" if form == "eager" else f"{ratio:.2f}",
            ]
            for column, cell in zip(columns.values(), cells, strict=True):
                column.append(cell)
    return f"{markdown(columns, left=('variant', 'form'))}\n\n{about}"


def describe(size: str, frames: int, side: int) -> str:
    """What was measured, on which machine, with which versions."""
    from importlib.metadata import version

    versions = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    machine = describe_machine(torch.device("cpu"))
    return (
        f"`export.py`, {size}, {frames}x{side}x{side}, {machine}, {versions}. CPU seconds; forward passes take turns."
    )


@exit_if_pipe_closes()
def main(arguments: list[str]) -> int:
    """Measure the variants that are missing and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variants", nargs="+", choices=ENCODERS, default=[*ENCODERS], help="which (all)")
    parser.add_argument("--exports", nargs="+", choices=EXPORTS, default=[*EXPORTS], help="which (all)")
    parser.add_argument("--size", default="S/16x2", help="the paper's name of a model (S/16x2)")
    parser.add_argument("--frames", type=int, default=16, help="of a clip (16)")
    parser.add_argument("--side", type=int, default=224, help="of a frame, pixels (224)")
    parser.add_argument("--rounds", type=int, default=7, help="forward passes of each form (7)")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for the results (docs/benchmarks/export)")
    parser.add_argument("--again", action="store_true", help="measure variants anew that the results have")
    parser.add_argument("--page", action="store_true", help="only write the page")
    options = parser.parse_args(arguments)
    file = options.out / "results.json"
    results = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {"variants": {}}
    for variant in [] if options.page else options.variants:
        if variant in results["variants"] and not options.again:
            print(f"{variant} is in {file}; --again measures it anew", file=sys.stderr)
            continue
        torch.set_num_threads(1)
        about = describe(options.size, options.frames, options.side)
        if results.setdefault("about", about) != about:
            parser.error(f"{file} is of {results['about']} This is {about} Move the file away to start anew")
        model = build(variant, options.size, options.frames, options.side)
        results["variants"][variant] = measure(model, options.rounds, options.exports)
        options.out.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    measured = {name: results["variants"][name] for name in ENCODERS if name in results["variants"]}
    text = table(measured, results["about"])
    (options.out / "table.md").write_text(text + "\n", encoding="utf-8")
    if options.out == RESULTS:
        PAGE.write_text(with_tables(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
