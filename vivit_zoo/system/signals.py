"""Ctrl-C and SIGTERM as a question that a loop answers when it is ready, instead of an exception anywhere."""

import signal
import threading
from types import FrameType, TracebackType
from typing import Any, Self

__all__ = ["StopSignals"]


class StopSignals:
    """Within it, the first SIGINT or SIGTERM only sets `received`; a second SIGINT interrupts at once.

    A handler that someone else has installed stays, such as submitit's, which requeues the job. Outside the main thread
    nothing is changed, since Python handles signals there.
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
        """End the program as the signal asks.

        Raises:
            KeyboardInterrupt: for SIGINT.
            SystemExit: for others, with the code that shells use, 128 + number.
        """
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(128 + number)
