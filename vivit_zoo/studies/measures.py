"""What a study measures of each run: an accuracy, or the clips that training takes to reach an accuracy."""

import dataclasses
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from vivit_zoo.training.config import TrainConfig

__all__ = ["Accuracy", "ClipsToReach", "Measure", "clips_to_reach", "measure_from_json", "rise"]


@dataclass(frozen=True)
class Measure(ABC):
    """A number of each run, and how its differences are taken and written.

    Numbers are compared on a scale on which differences make sense: percent for accuracies, the natural logarithm for
    clips, whose differences are ratios.

    Attributes:
        title: of the column, and of axes.
        versus: title of the column of differences.
        margin: default margin on the scale of `value` within which two settings count as equal.
        words: for a difference below and above zero.
        better: the sign of a difference that is an improvement.
        margin_help: what a margin on the command line is.
        log: whether numbers are logarithms.
    """

    head: str = ""

    title: ClassVar[str]
    versus: ClassVar[str]
    margin: ClassVar[float]
    words: ClassVar[tuple[str, str]]
    better: ClassVar[int]
    margin_help: ClassVar[str]
    log: ClassVar[bool] = False

    @abstractmethod
    def value(self, result: Mapping[str, Any]) -> float | None:
        """The number of one run on the scale of comparison, from its result.json; None if it has none."""

    def censored(self, result: Mapping[str, Any]) -> bool:
        """Whether the number is only a lower bound."""
        return False

    def out_of_reach(self, ceiling: float | None) -> bool:
        """Whether a setting with this ceiling has no number by construction, so that nothing is compared with it."""
        return False

    def configure(self, train: TrainConfig) -> TrainConfig:
        """The configuration of a run that is measured so."""
        return train

    @abstractmethod
    def text(self, middle: float, half: float) -> str:
        """A mean on the scale of comparison with half the width of its interval; no interval if that is not finite."""

    @abstractmethod
    def difference(self, middle: float, half: float) -> str:
        """The same for a mean difference."""

    @abstractmethod
    def margin_text(self, margin: float) -> str:
        """A margin in words, such as "±5"."""

    @abstractmethod
    def read_margin(self, given: float) -> float:
        """A margin as given on the command line, on the scale of comparison.

        Raises:
            ValueError: if it is not possible.
        """

    def shown(self, value: float) -> float:
        """A number, or a difference, as axes show it."""
        return value

    def to_json(self) -> dict[str, Any]:
        """The measure for `measure_from_json`."""
        return {"kind": type(self).__name__, **dataclasses.asdict(self)}


@dataclass(frozen=True)
class Accuracy(Measure):
    """The test accuracy after all steps, in percent: at a budget, or of trained models.

    Args:
        head: the head whose accuracy is compared; "" for all heads together.
        trained: whether the steps are meant to be enough to finish training. The table then shows how much the accuracy
            still rose in the last quarter of the training.
    """

    trained: bool = False

    versus: ClassVar[str] = "difference"
    margin: ClassVar[float] = 5.0
    words: ClassVar[tuple[str, str]] = ("lower", "higher")
    better: ClassVar[int] = 1
    margin_help: ClassVar[str] = "percent (default 5)"

    @property
    def title(self) -> str:  # type: ignore[override]
        """Of the column."""
        return self.head or "accuracy"

    def value(self, result: Mapping[str, Any]) -> float | None:
        """In percent."""
        accuracy = result["head_accuracy"].get(self.head) if self.head else result.get("accuracy")
        return None if accuracy is None else 100 * accuracy

    def text(self, middle: float, half: float) -> str:
        """Such as "93.6 ± 17.8"."""
        return f"{middle:.1f}" + (f" ± {half:.1f}" if math.isfinite(half) else "")

    def difference(self, middle: float, half: float) -> str:
        """Such as "+4.2 ± 22.7"."""
        return f"{middle:+.1f}" + (f" ± {half:.1f}" if math.isfinite(half) else "")

    def margin_text(self, margin: float) -> str:
        """Such as "±5"."""
        return f"±{margin:g}"

    def read_margin(self, given: float) -> float:
        """Percent."""
        if given <= 0:
            raise ValueError(f"margin {given} is not positive; it is a difference of accuracies in percent, such as 5")
        return given


@dataclass(frozen=True)
class ClipsToReach(Measure):
    """The clips that training takes to reach an accuracy on held-out clips. A run stops there.

    The accuracy is looked at every `eval_every` steps, on `eval_clips` clips; between the last two looks the number is
    interpolated. A run that does not get there in all its steps is censored: it counts as if it had got there at the
    end, so that its number, and every ratio with it, is nearer to the others than the true one.

    Args:
        head: the head whose accuracy is looked at; "" for all heads together.
        accuracy: to reach, in (0, 1].
    """

    accuracy: float = 0.9

    versus: ClassVar[str] = "ratio"
    margin: ClassVar[float] = math.log(1.25)
    words: ClassVar[tuple[str, str]] = ("fewer", "more")
    better: ClassVar[int] = -1
    margin_help: ClassVar[str] = "a ratio (default 1.25)"
    log: ClassVar[bool] = True

    @property
    def title(self) -> str:  # type: ignore[override]
        """Of the column."""
        return f"clips to {100 * self.accuracy:g} %" + (f" of {self.head}" if self.head else "")

    def configure(self, train: TrainConfig) -> TrainConfig:
        """It stops at the accuracy."""
        return dataclasses.replace(train, stop_accuracy=self.accuracy, stop_head=self.head)

    def value(self, result: Mapping[str, Any]) -> float | None:
        """The natural logarithm of the clips."""
        return math.log(result["clips"]) if result.get("clips") else None

    def censored(self, result: Mapping[str, Any]) -> bool:
        """Whether the run did not get there."""
        return not result.get("reached", True)

    def out_of_reach(self, ceiling: float | None) -> bool:
        """Whether the accuracy is above the ceiling."""
        return ceiling is not None and ceiling < self.accuracy

    def text(self, middle: float, half: float) -> str:
        """The geometric mean, such as "2,710 (2,400 to 3,060)"."""
        low, high = (f"{math.exp(middle + sign * half):,.0f}" if math.isfinite(half) else "" for sign in (-1, 1))
        return f"{math.exp(middle):,.0f}" + (f" ({low} to {high})" if low else "")

    def difference(self, middle: float, half: float) -> str:
        """The ratio, such as "1.21 (1.05 to 1.39)"."""
        low, high = (f"{math.exp(middle + sign * half):.2f}" if math.isfinite(half) else "" for sign in (-1, 1))
        return f"{math.exp(middle):.2f}" + (f" ({low} to {high})" if low else "")

    def margin_text(self, margin: float) -> str:
        """Such as "a ratio of 1.25"."""
        return f"a ratio of {math.exp(margin):.3g}"

    def read_margin(self, given: float) -> float:
        """The logarithm of a ratio."""
        if given <= 1:
            raise ValueError(f"margin {given} is not above 1; it is a ratio of clips, such as 1.25")
        return math.log(given)

    def shown(self, value: float) -> float:
        """Clips, or a ratio."""
        return math.exp(value)


def measure_from_json(fields: Mapping[str, Any]) -> Measure:
    """The measure that `Measure.to_json` wrote."""
    kinds: dict[str, type[Measure]] = {"Accuracy": Accuracy, "ClipsToReach": ClipsToReach}
    return kinds[fields["kind"]](**{name: value for name, value in fields.items() if name != "kind"})


def clips_to_reach(
    looks: Sequence[Mapping[str, float]], accuracy: float, batch_size: int, head: str = ""
) -> float | None:
    """The clips after which an accuracy was first reached, interpolated between two looks; None if it was not.

    Args:
        looks: lines of metrics.jsonl.
        accuracy: in (0, 1].
        batch_size: clips of a step.
        head: whose accuracy; "" for all heads together.
    """
    name = f"accuracy_{head}" if head else "accuracy"
    step, below = 0.0, 0.0
    for look in looks:
        if look[name] >= accuracy:
            share = (accuracy - below) / (look[name] - below)
            return batch_size * (step + share * (look["step"] - step))
        step, below = look["step"], look[name]
    return None


def rise(looks: Sequence[Mapping[str, float]]) -> float:
    """How much the accuracy rose at the end: its mean over the last quarter of the looks, less that of the third."""
    quarter = max(1, len(looks) // 4)
    late, before = looks[-quarter:], looks[-2 * quarter : -quarter] or looks[:1]
    return sum(look["accuracy"] for look in late) / len(late) - sum(look["accuracy"] for look in before) / len(before)
