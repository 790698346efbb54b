import platform
import subprocess
import sys

import pytest
import torch

from tests.conftest import tiny_config
from vivit_zoo import __version__
from vivit_zoo.system.machine import choose_device, use_bf16, versions
from vivit_zoo.training.config import TrainConfig


def test_peak_memory_is_of_this_process_alone():
    """A process starts with the peak of the one that started it, for getrusage, which is not to be asked."""
    torch.ones(150_000_000).sum()  # 600 MB at once, here
    code = (
        "import torch; from vivit_zoo.system.machine import PeakMemory; "
        "print(PeakMemory(torch.device('cpu')).peak_bytes())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 200e6


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a process keeps its peak")
def test_peak_memory_forgets_what_was_before():
    """Such as a model in float32 on its way to bfloat16."""
    code = """if True:
        import torch
        from vivit_zoo.system.machine import PeakMemory
        small = torch.ones(300_000_000, dtype=torch.uint8)[:10].clone()
        many = [torch.ones(100_000) for _ in range(500)]
        del many
        memory = PeakMemory(torch.device("cpu"))
        torch.ones(25_000_000)
        print(memory.peak_bytes())
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 99e6 < int(done.stdout) < 120e6


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
def test_freed_memory_is_kept_for_the_next_tensors():
    """The system clears no pages for tensors of which as many have been freed."""
    code = """if True:
        import resource, torch
        from vivit_zoo.system.machine import keep_freed_memory
        assert keep_freed_memory()
        faults = []
        for _ in range(3):
            tensors = [torch.ones(1_000_000) for _ in range(30)]
            del tensors
            faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
        print(faults[-1] - faults[-2])
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 1000


def test_auto_takes_the_best_device_that_is_there(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert choose_device() == torch.device("cpu")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert choose_device() == torch.device("mps")
    assert not use_bf16("auto", cpu=False)
    assert TrainConfig(model=tiny_config(), device="mps").device == "mps"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choose_device() == torch.device("cuda")


@pytest.mark.skipif(torch.backends.mps.is_available(), reason="it is here")
def test_a_device_that_is_not_here_is_refused():
    with pytest.raises(
        ValueError, match=r"device 'mps' cannot be used here; this machine has cpu.*; 'auto' takes the best"
    ):
        choose_device("mps")


def test_versions_are_of_the_code_that_runs(monkeypatch):
    monkeypatch.setattr("vivit_zoo.system.machine.version", lambda name: {"torch": "1"}.get(name, "old"))
    assert versions(["vivit-zoo", "torch"]) == {"vivit-zoo": __version__, "torch": "1"}
    monkeypatch.undo()
    assert list(versions(["torch", "nobody-knows"])) == ["torch"]
