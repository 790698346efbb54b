"""Handle Ctrl-C and SIGTERM at a safe point of a loop instead of by an exception anywhere."""

import signal
import threading
from types import FrameType, TracebackType
from typing import Any, Self

__all__ = ["StopSignals"]


class StopSignals:
    """Context manager in which the first SIGINT or SIGTERM only sets `received`; a second SIGINT interrupts at once.

    Handlers that others have installed stay, such as that of submitit, which requeues the job. Outside the main thread
    nothing changes, because Python handles signals in the main thread.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        usual = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
        if threading.current_thread() is threading.main_thread():
            self._before = {number: usual[number] for number in usual if signal.getsignal(number) == usual[number]}
        for number in self._before:
            signal.signal(number, self._note)
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, _: FrameType | None) -> None:
        if self.received == number == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = number

    def leave(self, number: int) -> None:
        """Exit as the signal requires.

        Raises:
            KeyboardInterrupt: for SIGINT.
            SystemExit: for others, with the code that shells use, 128 + number.
        """
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(128 + number)
