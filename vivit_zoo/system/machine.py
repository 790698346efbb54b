"""What the machine is, what it can do, and how much of its memory is in use."""

import ctypes
import gc
import os
import platform
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from vivit_zoo import __version__

__all__ = [
    "PeakMemory",
    "choose_device",
    "cpu_capabilities",
    "describe_machine",
    "keep_freed_memory",
    "use_bf16",
    "versions",
]

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's mallopt


def choose_device(name: str = "auto") -> torch.device:
    """The device of a name; "auto" is CUDA, Apple's "mps" or the CPU, the first that this machine has.

    Raises:
        ValueError: if torch does not know the device, or this machine does not have it.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    here = [f"cuda:{number}" for number in range(torch.cuda.device_count())]
    here += ["mps"] * torch.backends.mps.is_available()
    advice = f"this machine has {', '.join(['cpu', *here])}; 'auto' takes the best of them"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        small = f"; write {name.lower()}" * (name != name.lower())
        raise ValueError(f"there is no device {name!r}{small}; {advice}") from error
    try:
        if device.type == "meta":
            raise ValueError("it holds no numbers")
        torch.empty(0, device=device)
    except (AssertionError, NotImplementedError, RuntimeError, ValueError) as error:
        raise ValueError(f"device {name!r} cannot be used here; {advice}") from error
    return device


def cpu_capabilities() -> Mapping[str, Any]:
    """What torch knows of this CPU, such as "cpu_name" and "amx_bf16"; nothing before torch 2.13."""
    return getattr(torch.cpu, "get_capabilities", dict)()


def describe_machine(device: torch.device) -> str:
    """Device, Python and torch in one line, to stand beside numbers."""
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    elif device.type == "mps":
        name = f"{platform.processor()} GPU (mps)"
    else:
        cpu = cpu_capabilities().get("cpu_name", platform.machine())
        threads, cores = torch.get_num_threads(), os.cpu_count() or 1
        name = f"{cpu} CPU, {threads} thread{'s' * (threads != 1)} on {cores} core{'s' * (cores != 1)}"
    return f"{name}, Python {platform.python_version()}, torch {torch.__version__}"


def versions(packages: Iterable[str]) -> dict[str, str]:
    """The versions of the packages that are installed, by name.

    That of this package is the code's: what an editable installation says is of the day on which it was made.
    """
    found = {}
    for package in packages:
        with suppress(PackageNotFoundError):
            found[package] = __version__ if package == "vivit-zoo" else version(package)
    return found


def use_bf16(precision: str, cpu: bool) -> bool:
    """Whether to compute in bfloat16: as "bf16" or "fp32" says; for "auto", if the hardware multiplies it natively.

    Args:
        precision: "auto", "bf16" or "fp32".
        cpu: whether the CPU is to compute although there may be a GPU.
    """
    if precision != "auto":
        return precision == "bf16"
    if torch.cuda.is_available() and not cpu:
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if torch.backends.mps.is_available() and not cpu:
        return False  # autocast to bfloat16 depends on the version of macOS
    # Without AMX a CPU emulates bfloat16, up to several hundred times slower than float32.
    return bool(cpu_capabilities().get("amx_bf16", False))


def keep_freed_memory() -> bool:
    """Let this process keep up to 1 GB of freed memory for its next tensors, and return whether it can: with glibc.

    By default glibc returns the memory of a training step's tensors to the system, which clears the pages that it gives
    out again for the next step. With small models that is several percent of the time (docs/performance.md).
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):  # other C libraries
        return False
    # 32 MB is the largest size that glibc can be told to take from its heap.
    return bool(mallopt(M_MMAP_THRESHOLD, 2**25) and mallopt(M_TRIM_THRESHOLD, 2**30))


class PeakMemory:
    """The most memory since its making beyond what was in use then, and at least `floor`, what it was before a resume.

    Off CUDA and Linux a process has one peak for its whole life, so that a run needs a process of its own, in which
    nothing before took more.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.floor: int | None = 0
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
            self.before = torch.cuda.memory_allocated(device)
        else:
            gc.collect()
            with suppress(OSError, AttributeError, TypeError):  # glibc and Linux alone
                ctypes.CDLL(None).malloc_trim(0)  # memory that is free, but still the process's, would hide as much
                # Forget the peak until now, such as of a conversion.
                Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
            import psutil  # of the extra "experiments", which choosing a device does not need

            self.before = psutil.Process().memory_info().rss

    def peak_bytes(self) -> int | None:
        """Allocated memory on CUDA, resident memory of the process on the CPU except on Windows; None elsewhere."""
        if self.floor is None or self.device.type not in ("cpu", "cuda"):
            return None
        if self.device.type == "cuda":
            return max(self.floor, torch.cuda.max_memory_allocated(self.device) - self.before)
        if sys.platform == "win32":
            return None
        status = Path("/proc/self/status")
        if status.exists():  # on Linux, where getrusage also counts what the process that started this one had
            peak = dict(line.split(":", 1) for line in status.read_text(encoding="utf-8").splitlines())["VmHWM"]
            return max(self.floor, int(peak.split()[0]) * 1024 - self.before)
        import resource

        unit = 1 if sys.platform == "darwin" else 1024  # getrusage counts bytes there, KiB elsewhere
        return max(self.floor, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit - self.before)
