"""Speed and memory of modules beside each other.

A name is imported from its file when it is first used, so that importing this package loads nothing heavy.
"""

from typing import TYPE_CHECKING

from vivit_zoo.system.lazy import import_on_use

if TYPE_CHECKING:
    from vivit_zoo.bench.measure import Candidate, bench, campaign, compare
    from vivit_zoo.bench.peers import PEERS, candidates
    from vivit_zoo.bench.report import Case, Speed

__all__ = ["PEERS", "Candidate", "Case", "Speed", "bench", "campaign", "candidates", "compare"]

__getattr__ = import_on_use(
    __name__,
    {
        "measure": ["Candidate", "bench", "campaign", "compare"],
        "peers": ["PEERS", "candidates"],
        "report": ["Case", "Speed"],
    },
)
