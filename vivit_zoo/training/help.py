"""The options of training scripts and studies that matter first, for `--help`; imports nothing."""

__all__ = ["STUDY_HELP", "TRAIN_HELP"]

TRAIN_HELP = """\
The options that matter most; --help-all lists all of them:
  --data.train SOURCE      videos to train on: a folder, a list file, shards, ... (docs/data.md)
  --data.test SOURCE       videos to test on; without it a share of each class is held out
  --data.task TASK         single_label, multi_label (several labels a video) or regression (docs/multi-label.md)
  --start.source SOURCE    weights to start from: a hub id, a folder, timm's name of an image model
  --out DIR                folder of the run; the same command resumes it
  --epochs N               times that each video is seen; or --steps N
  --batch_size N           clips in a step
  --accumulate N           parts into which a batch is cut, to save memory
  --lr RATE                peak learning rate
  --only PARTS             train only these parts: head, pool, temporal, ... (docs/features.md)
  --class_weights balanced for classes of unequal size; or --sampling balanced
  --cutmix ALPHA           CutMix; --mixup ALPHA: mixup; --aug_repeats N: copies of a video in a batch
  --model.num_frames N     frames of a clip; --model.image_size N: its side in pixels
  --workers N              processes that read clips
  --device NAME            auto, cpu, cuda or mps"""

STUDY_HELP = """\
The options that matter most; --help-all lists all of them:
  --seeds N                number of seeds; finished cells are kept; auto adds seeds until all is decided
  --out DIR                folder of the study; the same command resumes it
  --cells DIR              folder of cells that several studies share
  --jobs N                 cells that run at the same time
  --launcher slurm         a SLURM job for each cell
  --steps N                optimiser steps of each cell
  --batch_size N           clips in a step
  --model.depth N          any other field of the model: --model.dim, --model.pos_embed, ...
  --data.train SOURCE      other data than the embedded task
  --device NAME            auto, cpu, cuda or mps"""
