"""ViViT-L/16x2 on Moments in Time, factorised encoder (Model 2).

Source: the paper's Table 7. The original released no configuration for it: the model is that of its Kinetics ones, with
24 temporal layers, and the 802,264 training videos are those that the data set's paper (arXiv 1801.03150) counts.
Paper: 38.5 top-1, 64.1 top-5 (Table 6).
Differs from the original: see table7.py. Not yet run to its end with this code.

Data: Moments_in_Time_Raw as its site gives it: training/{class}/*.mp4 and validation/{class}/*.mp4, in data/moments.

    vivit-zoo check-data data/moments/training
    python experiments/recipes/moments.py --accumulate 8 --grad_checkpointing true
    torchrun --nproc-per-node 8 experiments/recipes/moments.py
"""

import sys

from table7 import recipe

from vivit_zoo.training.run import train_from_command_line

BASE = recipe(
    "mit",
    {"train": "data/moments/training", "test": "data/moments/validation"},
    variant="factorised_encoder",
    temporal_depth=24,
)
PAPER = {"top-1": 38.5, "top-5": 64.1}

if __name__ == "__main__":
    sys.exit(train_from_command_line(__doc__, BASE, out="runs/moments", paper=PAPER))
