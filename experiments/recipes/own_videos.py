"""Your own videos: fine-tune a trained model on a folder of clips, walk/clip.mp4, run/other.mp4, ...

    python experiments/recipes/own_videos.py --data.train clips/train --data.test clips/test
    python experiments/recipes/own_videos.py --data.train clips              # every fifth video is for testing
    python experiments/recipes/own_videos.py --data.train clips --start.source vit_small_patch16_224.augreg_in21k
    torchrun --nproc-per-node 4 experiments/recipes/own_videos.py --data.train clips
    vivit-zoo classify new.mp4 --checkpoint runs/own_videos/model

The classes are those of the data, which may come in any form that docs/data.md names. Without --data.test the last
fifth of each class (of its sorted names) is held out to test on.

The model is that of --start.source: the official weights of Kinetics-400 (ViViT-B/16x2, 32 frames of 224 pixels,
downloaded once), an image model of timm, or the model/ folder of another run. Its positions are
resized to other sizes: --model.num_frames 16 --model.image_size 160 takes a quarter of the tokens.

The defaults are for few clips, tens to thousands: AdamW with a layer decay, so that the lower layers move little, a
short schedule, label smoothing and a little mixup. Such settings are usual where transformers are fine-tuned (BEiT,
arXiv 2106.08254; VideoMAE, arXiv 2203.12602); the numbers are a place to begin, not the end of a search. Words such as
left and right in the classes' names are taken for directions, which a mirror image changes.

Where memory is short: --accumulate 4, --grad_checkpointing true, fewer or smaller frames. A first look: --epochs 5.
"""

import sys

from vivit_zoo.config import ViViTConfig
from vivit_zoo.datasets import DataConfig
from vivit_zoo.training.config import Start, TrainConfig
from vivit_zoo.training.run import train_from_command_line

BASE = TrainConfig(
    model=ViViTConfig(num_classes=0, drop_path=0.1),
    data=DataConfig(train="clips", held_out=0.2, mirror=True),
    start=Start(source="google/vivit-b-16x2-kinetics400", positions="resize"),
    batch_size=16,
    opt="adamw",
    lr=2e-4,
    weight_decay=0.05,
    layer_decay=0.75,
    label_smoothing=0.1,
    mixup=0.1,
    workers=4,
)

if __name__ == "__main__":
    sys.exit(train_from_command_line(__doc__, BASE, out="runs/own_videos", epochs=20, like_start=True))
