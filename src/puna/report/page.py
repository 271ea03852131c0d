"""The report of a run as one HTML page: no script, no network, nothing that differs between two calls with equal data.

Every section is a function from the run's data to HTML, "" where its data is absent; `SECTIONS` is their order. Strings from the data
are escaped by `tag` and `table`, which leave alone only what is of type Html already.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from puna.report import chart
from puna.report.chart import Html, escape, number
from puna.report.style import STYLE

METHODS = {"model": "model", "five_gram": "5-gram", "unigram": "unigram", "xz": "xz"}  # in the order in which they are shown
MOST_ROWS = 12  # of a table of counts
NONE = "–"
