"""Damaged inputs for every reader: a result or the package's own error, and nothing else.

A few inputs for each reader run in the default tests, always the same ones; `HYPOTHESIS_PROFILE=explore` takes many
new ones, and `python -m tests.fuzz --inputs 100000` prints a table.
"""

from tests.fuzz import lists, videos, weights

FUZZERS = {
    f"{kind}: {name}": fuzzer
    for kind, fuzzers in {"checkpoint": weights.FUZZERS, "list": lists.FUZZERS, "video": videos.FUZZERS}.items()
    for name, fuzzer in fuzzers.items()
}
