"""Compare speed and memory of modules.

Names are imported on first use, so importing this package loads nothing heavy.
"""

from typing import TYPE_CHECKING

from vivit_zoo.system.lazy import import_on_use

if TYPE_CHECKING:
    from vivit_zoo.bench.campaigns import campaign
    from vivit_zoo.bench.measure import Candidate, bench, compare
    from vivit_zoo.bench.peers import PEERS, candidates
    from vivit_zoo.bench.report import Case, Speed

__all__ = ["PEERS", "Candidate", "Case", "Speed", "bench", "campaign", "candidates", "compare"]

__getattr__ = import_on_use(
    __name__,
    {
        "campaigns": ["campaign"],
        "measure": ["Candidate", "bench", "compare"],
        "peers": ["PEERS", "candidates"],
        "report": ["Case", "Speed"],
    },
)
