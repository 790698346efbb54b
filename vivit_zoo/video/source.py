"""The source of a video, and what its bytes show before anything is decoded: its kind, and whether it is complete."""

import io
import os
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, BinaryIO

__all__ = ["Source", "VideoError", "VideoSource"]

Source = str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO


class VideoError(ValueError):
    """A video that cannot be read, or is too short for the clip. The message names the file."""


class VideoSource:
    """A file, bytes, or an open seekable binary file, with a name for messages.

    Args:
        source: a path; the bytes of a video; or a file object, which begins with the video, is moved about in while
            the video is read, and is not closed.
        name: what messages call it; None for the path, or what the file object calls itself.

    Raises:
        VideoError: if the file is missing, empty, or lacks its end.
        TypeError: if it is none of these.
        ValueError: if a file object is not seekable.
    """

    def __init__(self, source: Source, name: str | None = None) -> None:
        self._path: Path | None = None
        if isinstance(source, str | os.PathLike):
            self._path, known_as = Path(source), str(source)
        elif isinstance(source, bytes | bytearray | memoryview):
            self._file: Any = io.BytesIO(source)
            known_as = f"a video of {len(source)} bytes in memory"
        else:
            self._file = _binary_file(source)
            path = getattr(source, "name", None)  # a number, if it was opened by its descriptor
            known_as = str(path) if isinstance(path, str | os.PathLike) else "a video in a file object"
        self.name = known_as if name is None else name
        self._check()

    @property
    def path(self) -> str | None:
        """Absolute, of a file; None for bytes and file objects."""
        return None if self._path is None else str(self._path.absolute())

    def from_start(self) -> str | BinaryIO:
        """What a decoder opens: a path, or a file that stands at its first byte."""
        if self.path is not None:
            return self.path  # absolute, so that a name such as "a:b" is no protocol
        self._file.seek(0)
        return self._file

    def why_unreadable(self) -> str:
        """What a file that FFmpeg refuses most likely is, by its first bytes."""
        with self._open() as file:
            start = file.read(64)
        if start[4:8] == b"ftyp":
            return "truncated: the file ends before the table of its frames (moov), so that none can be found"
        if all(32 <= byte < 127 or byte in b"\t\r\n" for byte in start):
            return f"a text file, not a video; it begins {start[:40].decode()!r}"
        return "not a video, or its beginning is damaged"

    def _check(self) -> None:
        path = self._path
        if path is not None and not os.path.isfile(path):  # False, where pathlib raises for a name too long
            if os.path.isdir(path):
                raise VideoError(f"{self.name}: a folder, not a video; give the files in it")
            raise VideoError(f"{self.name}: {'not a file' if os.path.exists(path) else 'there is no such file'}")
        try:
            with self._open() as file:
                file.seek(0, io.SEEK_END)
                end = file.tell()
                missing = _missing_bytes(file, end)
        except OSError as error:
            raise VideoError(f"{self.name}: cannot be opened ({error.strerror or error})") from error
        if end == 0:
            raise VideoError(f"{self.name}: the file is empty")
        if missing:
            raise VideoError(
                f"{self.name}: truncated: {missing} bytes are missing at its end; fetch it again, or see whether "
                "`ffmpeg -i FILE -c copy NEW` can save what is there"
            )

    def _open(self) -> AbstractContextManager[BinaryIO]:
        """The bytes, from the first; a path is opened and closed again, what is open stays so."""
        if self._path is not None:
            return self._path.open("rb")
        self._file.seek(0)
        return nullcontext(self._file)


def _binary_file(source: Any) -> Any:
    if not (hasattr(source, "read") and hasattr(source, "seek")):
        raise TypeError(f"got a {type(source).__name__}; a video is a path, bytes, or an open binary file")
    if not source.seekable():
        raise ValueError(f"{source!r} is not seekable; read it whole and pass the bytes: file.read()")
    if not isinstance(source.read(0), bytes):
        raise TypeError(f"{source!r} is open as text; open it with mode 'rb'")
    return source


def _missing_bytes(file: BinaryIO, end: int) -> int:
    """How many bytes an MP4, QuickTime, Matroska or WebM file lacks at its `end`; FFmpeg does not tell."""
    file.seek(0)
    head = file.read(64)
    if head[:4] == b"\x1aE\xdf\xa3":  # EBML (RFC 8794): a header, then the segment; each identifier, size, content
        at, size = _ebml_size(head, 4)
        start = at + size
        file.seek(start)
        head = file.read(12)
        at, size = _ebml_size(head, 4)
        known = head[:4] == b"\x18S\x80g" and size + 1 != 1 << 7 * (at - 4)  # all ones: unknown, as in live streams
        return max(0, start + at + size - end) if known else 0
    place = 0
    while head[4:8].isalnum() and (place or head[4:8] == b"ftyp"):  # ISO 14496-12: boxes of size, name, content
        size = int.from_bytes(head[:4])
        size = int.from_bytes(head[8:16]) if size == 1 else size
        if size < 8:  # 0: to the end of the file
            break
        place += size
        file.seek(place)
        head = file.read(16)
    return max(0, place - end)


def _ebml_size(head: bytes, at: int) -> tuple[int, int]:
    """The place behind a number, and the number: its leading zero bits tell its length."""
    length = 9 - head[at].bit_length() if len(head) > at and head[at] else 1
    return at + length, int.from_bytes(head[at : at + length]) & ((1 << 7 * length) - 1)
