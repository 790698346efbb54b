"""What the paper (arXiv 2103.15691 v2) and its released code print, as data: to compare with, never to compute from."""

from typing import Any

__all__ = ["MODELS"]

MODELS: list[tuple[str, dict[str, Any], str, str]] = [
    # Model name, fields of ViViTConfig, GFLOPs of one clip as printed, where. The large factorised encoders have 24
    # temporal layers: with 4 the first would count 991, and the original's Kinetics configurations say 24. For these
    # two our count is 0.01 % below the printed one; counting the original's two idle multiplications a block as well
    # would meet it, but then Model 4 would miss its digit.
    ("B/16x2", {"variant": "joint"}, "455.2", "Table 2, Model 1"),
    ("B/16x2", {"variant": "factorised_encoder"}, "284.4", "Table 2, Model 2"),
    ("B/16x2", {"variant": "factorised_self_attention"}, "372.3", "Table 2, Model 3"),
    ("B/16x2", {"variant": "factorised_dot_product"}, "277.1", "Table 2, Model 4"),
    ("B/16x2", {"variant": "factorised_encoder", "temporal_depth": 0}, "283.9", "Table 2, average pool"),
    ("L/16x2", {"variant": "joint"}, "1446", "Table 5, 224 pixels"),
    ("L/16x2", {"variant": "joint", "global_pool": "avg", "image_size": 288}, "2919", "Table 5, 288 pixels"),
    ("L/16x2", {"variant": "joint", "global_pool": "avg", "image_size": 320}, "3992", "Table 5, 320 pixels"),
    ("L/16x2", {"variant": "factorised_encoder", "temporal_depth": 24}, "995.3", "Section 4.4, 32 frames"),
    (
        "L/16x2",
        {"variant": "factorised_encoder", "temporal_depth": 24, "num_frames": 128},
        "3980.4",
        "Section 4.4, 128 frames",
    ),
    ("H/14x2", {"variant": "joint"}, "3980.8", "Table 6, 47.77 TFLOPs over 4x3 views"),
]
