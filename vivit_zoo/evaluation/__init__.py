"""Evaluate models: scores of a test set, classes of a video file."""

from vivit_zoo.evaluation.classify import classify, top_classes
from vivit_zoo.evaluation.evaluate import average_views, evaluate, shuffle_frames, swap_halves
from vivit_zoo.evaluation.scores import Scores

__all__ = ["Scores", "average_views", "classify", "evaluate", "shuffle_frames", "swap_halves", "top_classes"]
