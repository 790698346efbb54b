import subprocess
import sys

import torch


def test_peak_memory_is_of_this_process_alone():
    """A process starts with the peak of the one that started it, for getrusage, which is not to be asked."""
    torch.ones(150_000_000).sum()  # 600 MB at once, here
    code = "import torch; from vivit_zoo.machine import PeakMemory; print(PeakMemory(torch.device('cpu')).peak_bytes())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 200e6
