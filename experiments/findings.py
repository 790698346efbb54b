"""The findings of the paper that the studies of this folder test, for the page that `table.py` writes."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """A finding of the paper about two settings.

    Args:
        claim: in words.
        paper: the numbers there, or where they are shown.
        study: ours.
        settings: the names of the two rows.
        better: whether the first is claimed to be better, or else equal.
        head: whose accuracy is compared; "" for what the study measures.
    """

    claim: str
    paper: str
    study: str
    settings: tuple[str, str]
    better: bool = True
    head: str = ""


JOINT, MODEL_2 = "joint (Model 1)", "factorised encoder (Model 2)"
FINDINGS = (
    Finding(
        "a temporal encoder beats the average over frames",
        "Table 2: 78.8, 75.8",
        "variants",
        (MODEL_2, "average pool (baseline)"),
    ),
    Finding(
        "joint attention beats the factorised encoder on much data", "Table 2: 80.0, 78.8", "variants", (JOINT, MODEL_2)
    ),
    Finding(
        "the factorised encoder beats joint attention on little data: clips to 90 %",
        "Table 2: 43.7, 43.1",
        "learning_speed",
        (MODEL_2, JOINT),
    ),
    Finding(
        "the first temporal layer brings most",
        "Table 3: 78.6, 75.8",
        "temporal_depth",
        ("1 temporal layers", "0 temporal layers"),
    ),
    Finding(
        "four temporal layers bring hardly more than one",
        "Table 3: 78.8, 78.6",
        "temporal_depth",
        ("4 temporal layers", "1 temporal layers"),
        better=False,
    ),
    Finding(
        "tubelets from the central frame beat random ones: clips to 30 % of the numbers",
        "Table 1: 79.2, 73.2",
        "input_encoding",
        ("tubelets, central_frame", "tubelets, random"),
    ),
    Finding(
        "tubelets from the central frame beat filter inflation: clips to 30 % of the numbers",
        "Table 1: 79.2, 77.6",
        "input_encoding",
        ("tubelets, central_frame", "tubelets, filter_inflation"),
    ),
    Finding(
        "tubelets from the central frame beat uniform frame sampling: clips to 30 % of the numbers",
        "Table 1: 79.2, 78.5",
        "input_encoding",
        ("tubelets, central_frame", "uniform frame sampling"),
    ),
    Finding(
        "shorter tubelets are better (2 frames, 4): clips to 90 %",
        "Figure 8",
        "tubelet_length",
        ("tubelets of 2", "tubelets of 4"),
    ),
    Finding(
        "shorter tubelets are better (4 frames, 8): clips to 90 %",
        "Figure 8",
        "tubelet_length",
        ("tubelets of 4", "tubelets of 8"),
    ),
    Finding(
        "the order within Model 3 makes no difference: clips to 90 %",
        "section 3.3",
        "block_order",
        ("space, then time", "time, then space"),
        better=False,
    ),
    Finding(
        "larger frames are better within 4,800 clips: numbers",
        "Table 5: 81.0, 80.3",
        "resolution",
        ("48 pixels", "32 pixels"),
        head="number",
    ),
    Finding(
        "a larger model is better: clips to 90 %", "Figure 7", "model_size", ("width 108, depth 3", "width 72, depth 3")
    ),
    Finding(
        "regularisation helps on little data within 4,800 clips",
        "Table 4: 43.7, 38.4",
        "regularisation",
        ("+ mixup 0.1", "+ colour jitter"),
    ),
    Finding(
        "an image start helps: clips to 30 % of the numbers",
        "section 3.4",
        "image_start",
        ("image model, central frame", "random weights"),
    ),
    Finding(
        "an image start helps within 4,800 clips: number and order together",
        "section 3.4",
        "training_data",
        ("100,000 clips, image model", "100,000 clips, random weights"),
    ),
    Finding(
        "views make up for frames",
        "Figure 9",
        "frames_and_views",
        ("4 frames, 4 views", "16 frames, 1 views"),
        better=False,
    ),
)
