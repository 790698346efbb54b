"""Check a data set before a run: open every video, count, and say what is broken and why."""

import json
import os
import signal
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from vivit_zoo.datasets.catalogue import Catalogue
from vivit_zoo.datasets.labels import Label
from vivit_zoo.datasets.rows import Problem
from vivit_zoo.datasets.sources import Place
from vivit_zoo.datasets.videos import ONE_FRAME
from vivit_zoo.system.processes import process_context
from vivit_zoo.video.reader import VideoError

__all__ = ["DataReport", "VideoFacts", "check_fix", "check_videos", "write_usable"]

Look = Callable[[Place], "VideoFacts"]


@dataclass(frozen=True)
class VideoFacts:
    """What is known of a video; `seconds` and `fps` are None for folders of images, all numbers if it is broken."""

    name: str
    error: str | None = None
    frames: int | None = None
    seconds: float | None = None
    fps: float | None = None
    width: int | None = None
    height: int | None = None


@dataclass(frozen=True)
class DataReport:
    """What a check found; `str` of it is a report to read.

    Args:
        total: videos in the catalogue.
        needed: frames that a clip needs, from its first to its last.
        videos: those that were looked at, by their number in the catalogue; fewer than `total` if it was stopped.
        counts: videos of each class, by name; with several heads "head: name"; none for scores.
        absent, notes, problems: as of the catalogue.
    """

    total: int
    needed: int
    videos: dict[int, VideoFacts]
    counts: dict[str, int]
    absent: Sequence[str] = ()
    notes: Sequence[str] = ()
    problems: Sequence[Problem] = ()

    @property
    def broken(self) -> list[VideoFacts]:
        """The videos that cannot be read."""
        return [video for _, video in sorted(self.videos.items()) if video.error is not None]

    @property
    def short(self) -> list[VideoFacts]:
        """The videos with fewer frames than a clip needs."""
        return [video for _, video in sorted(self.videos.items()) if video.frames and video.frames < self.needed]

    @property
    def duplicates(self) -> dict[str, int]:
        """Videos that are listed more than once, and how often."""
        return {name: n for name, n in Counter(video.name for video in self.videos.values()).items() if n > 1}

    @property
    def empty(self) -> list[str]:
        """The classes that have no video."""
        return [name for name, count in self.counts.items() if not count]

    def spread(self) -> dict[str, tuple[float, float, float]]:
        """Minimum, median and maximum of each number, over the videos that have it."""
        found = {}
        for name in ("frames", "seconds", "fps", "width", "height"):
            values = [value for video in self.videos.values() if (value := getattr(video, name)) is not None]
            if values:
                found[name] = (float(min(values)), float(np.median(values)), float(max(values)))
        return found

    def to_json(self) -> str:
        """All of it as one JSON object."""
        names = ("total", "needed", "absent", "notes", "counts", "empty", "duplicates")
        found: dict[str, Any] = {name: getattr(self, name) for name in names}
        found |= {"checked": len(self.videos), "spread": self.spread()}
        found["problems"] = [problem._asdict() for problem in self.problems]
        found |= {name: [asdict(video) for video in getattr(self, name)] for name in ("broken", "short")}
        return json.dumps(found, indent=2)

    def __str__(self) -> str:
        lines = [f"{len(self.videos)} of {self.total} videos looked at, {len(self.broken)} broken"]
        lines += [f"  {video.name}: {video.error}" for video in self.broken]
        lines += [f"{len(self.problems)} rows that cannot be used"] if self.problems else []
        lines += [f"  {problem}" for problem in self.problems]
        lines += _few(f"{len(self.short)} shorter than a clip, which takes {self.needed} frames", self.short, _length)
        lines += _few(f"{len(self.duplicates)} listed more than once", list(self.duplicates.items()), _times)
        lines += _few(f"{len(self.absent)} listed but absent", self.absent, str)
        lines += self.notes
        lines += ["", f"{'':<10}{'minimum':>10}{'median':>10}{'maximum':>10}"]
        lines += [f"{name:<10}" + "".join(f"{x:>10.5g}" for x in row) for name, row in self.spread().items()]
        text = "\n".join([*lines, "", *self._balance()])
        return text.encode("utf-8", "backslashreplace").decode()  # names of files need not be UTF-8

    def _balance(self) -> Iterator[str]:
        if not self.counts:
            return
        ranked = sorted(self.counts.items(), key=lambda item: -item[1])
        yield f"{len(ranked)} classes, {len(self.empty)} without a video"
        shown = ranked if len(ranked) <= 20 else [*ranked[:10], ("...", 0), *ranked[-10:]]
        most, width = max(self.counts.values()), max(len(name) for name, _ in shown)
        for name, count in shown:
            yield name if name == "..." else f"  {name:<{width}}{count:>8} {'#' * round(30 * count / (most or 1))}"


def _few(title: str, items: Sequence[Any], show: Callable[[Any], str]) -> list[str]:
    if not items:
        return []
    return [title, *(f"  {show(item)}" for item in items[:10]), *(["  ..."] if len(items) > 10 else [])]


def _length(video: VideoFacts) -> str:
    return f"{video.name}: {video.frames}"


def _times(item: tuple[str, int]) -> str:
    return f"{item[0]}: {item[1]} times"


def check_videos(
    catalogue: Catalogue,
    frames: int = 32,
    stride: int = 2,
    full: bool = False,
    workers: int = 0,
    progress: Callable[..., Any] | None = None,
) -> DataReport:
    """Open every video and decode its first frame; broken ones are listed with the reason.

    Ctrl-C ends the check early, with a report of the videos that were opened by then.

    Args:
        catalogue: the videos.
        frames, stride: of the clips to come, to find videos that are too short; videos of one frame count as broken.
        full: decode all frames, which finds damage in the middle, and takes as long as decoding does.
        workers: processes; 0 does it in this one. With at least one, not even a crash of the decoder stops the check.
        progress: such as `tqdm`, called with an iterable and `total=`.
    """
    if min(frames, stride) < 1 or workers < 0:
        raise ValueError(f"frames {frames} and stride {stride} must be positive, workers {workers} not negative")
    look = partial(_look, frames=frames, full=full)
    sources = [entry.video for entry in catalogue.entries]
    found: dict[int, VideoFacts] = {}
    with suppress(KeyboardInterrupt):
        results = _in_processes(look, sources, workers) if workers else enumerate(map(look, sources))
        for number, facts in progress(results, total=len(sources)) if progress else results:
            found[number] = facts
    return DataReport(
        total=len(catalogue),
        needed=(frames - 1) * stride + 1,
        videos=found,
        counts=_count_classes(catalogue),
        absent=catalogue.absent,
        notes=catalogue.notes,
        problems=catalogue.problems,
    )


def check_fix(catalogue: Catalogue, out: Path, source: str | os.PathLike[str]) -> None:
    """Whether `write_usable` can write a list, before the videos are checked.

    Raises:
        ValueError: if the source is no list and no folder, or the file is there already, or has another suffix.
    """
    if catalogue.rows is None:
        raise ValueError(f"{source} is neither a list nor class folders; a list of its usable videos cannot be written")
    if out.suffix != catalogue.suffix:
        raise ValueError(f"{out} must end in {catalogue.suffix or 'no suffix'!r}, as its form is recognised by that")
    if out.exists():
        raise ValueError(f"{out} is there already; give another name, or remove it")
    if not out.parent.is_dir():
        raise ValueError(f"{out}: there is no such folder to write it to")
    if catalogue.footer and out.resolve().parent != Path(source).resolve().parent:
        raise ValueError(f"{out} must be beside {source}, as the names of the classes are")
    for entry, row in zip(catalogue.entries, catalogue.rows, strict=True):
        if not entry.video.name.isprintable() and not row.isprintable():  # found in a folder; lists have no such paths
            raise ValueError(f"{entry.video.name!a} has characters that a list cannot hold; rename it")


def write_usable(catalogue: Catalogue, report: DataReport, out: Path) -> int:
    """Write a list of the videos that are not broken, in the form of the source; returns their number.

    Raises:
        ValueError: if there are none, or the check was stopped.
    """
    if len(report.videos) < report.total:
        raise ValueError(f"{out} is not written: the check was stopped")
    usable = [number for number, video in sorted(report.videos.items()) if video.error is None]
    if not usable or catalogue.rows is None:
        raise ValueError(f"{out} is not written: no video is usable")
    rows = [catalogue.rows[number] for number in usable]
    if catalogue.footer:
        rows = [",\n".join(rows)]
    text = "\n".join(part for part in [catalogue.header, *rows, catalogue.footer] if part)
    with out.open("x", encoding="utf-8") as file:
        file.write(f"{text}\n")
    return len(usable)


def _look(source: Place, frames: int, full: bool) -> VideoFacts:
    try:
        with source.open(threads=1) as video:
            count = len(video)
            height, width = video.read([0]).shape[1:3]
            if full:
                video.read(range(count), change=lambda frame: frame[:1, :1])
            if count == 1 < frames:
                return VideoFacts(source.name, ONE_FRAME)
            seconds = fps = None
            with suppress(ValueError):  # folders of images have no times
                fps = (count - 1) / max(float(video.times[-1]), 1e-9) if count > 1 else None
                seconds = count / fps if fps else None
            return VideoFacts(source.name, None, count, seconds, fps, width, height)
    except VideoError as error:
        return VideoFacts(source.name, str(error).removeprefix(f"{source.name}: "))
    except Exception as error:  # one broken file never stops the check
        return VideoFacts(source.name, f"{type(error).__name__}: {error}")


def _count_classes(catalogue: Catalogue) -> dict[str, int]:
    """Videos by class name; {} for scores."""
    if catalogue.task == "regression":
        return {}
    heads = catalogue.classes if isinstance(catalogue.classes, dict) else {"": catalogue.classes}
    counts: dict[str, int] = {}
    for head, names in heads.items():
        found = Counter(one for entry in catalogue.entries for one in _classes_of(entry.label, head))
        counts |= {f"{head}: {name}" if head else name: found[number] for number, name in enumerate(names)}
    return counts


def _classes_of(label: Label, head: str) -> tuple[Any, ...]:
    if isinstance(label, dict):
        return (label[head],)
    return label if isinstance(label, tuple) else (label,)


def _in_processes(look: Look, sources: Sequence[Place], workers: int) -> Iterator[tuple[int, VideoFacts]]:
    """The facts of each source, as they come. If a process dies, those in flight are looked at one by one, alone."""
    waiting = deque(range(len(sources)))
    while waiting:
        in_flight: dict[Future, int] = {}
        pool = _pool(workers, look, sources)
        try:
            while waiting or in_flight:
                while waiting and len(in_flight) < 4 * workers:
                    in_flight[pool.submit(_look_at, waiting[0])] = waiting[0]
                    waiting.popleft()
                for future in wait(in_flight, return_when=FIRST_COMPLETED).done:
                    facts = future.result()
                    yield in_flight.pop(future), facts
        except BrokenProcessPool:
            for number in in_flight.values():
                yield number, _alone(number, look, sources)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _alone(number: int, look: Look, sources: Sequence[Place]) -> VideoFacts:
    try:
        with _pool(1, look, sources) as pool:
            return pool.submit(_look_at, number).result()
    except BrokenProcessPool:
        return VideoFacts(sources[number].name, "the decoder crashes on it")


def _pool(workers: int, look: Look, sources: Sequence[Place]) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(workers, process_context(__name__), initializer=_start_process, initargs=(look, sources))


def _start_process(look: Look, sources: Sequence[Place]) -> None:
    """What each process keeps, so that only numbers travel: a source may hold a whole table."""
    global _look_at_number
    # Ctrl-C goes to all processes of a terminal; only the one that reports is to hear it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _look_at_number = lambda number: look(sources[number])  # noqa: E731


def _look_at(number: int) -> VideoFacts:
    return _look_at_number(number)


_look_at_number: Callable[[int], VideoFacts]
