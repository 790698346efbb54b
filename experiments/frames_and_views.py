"""More frames in a clip, or more clips of a video?

    python experiments/frames_and_views.py --seeds 3

Paper, Figure 9: more frames with fewer views are as good as fewer frames with more views, once all 250 frames of a
Kinetics video are covered: its classes do not ask for an order.

Here they do. Clips are cut at random from the 16 frames to train on; for testing, views start evenly over the video
and their logits are averaged. Expected: 4 frames seldom show the switch, and the average of their views knows both
motions and no order: at most half; 8 frames show it often; only all 16 always.

Seen: so; more views of short clips bring nothing that goes beyond the noise, and the model of 8 frames stays at half.
"""

import sys
from dataclasses import replace

from whole_frame import AS_VIDEOS

from vivit_zoo.studies.study import Setting, run_from_command_line
from vivit_zoo.training.config import TrainConfig

MODEL_2 = AS_VIDEOS.change_model(variant="factorised_encoder")


def settings(base: TrainConfig) -> list[Setting]:
    """Frames of a clip, and views of the test video that cover ever more of it."""
    return [
        Setting(
            f"{frames} frames, {views} views",
            replace(base.change_model(num_frames=frames), data=replace(base.data, views=(views, 1))),
        )
        for frames, views in ((16, 1), (8, 1), (8, 2), (8, 3), (4, 1), (4, 4))
    ]


if __name__ == "__main__":
    sys.exit(run_from_command_line(__doc__, MODEL_2, settings, out="runs/frames_and_views"))
