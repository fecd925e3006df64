"""What an axis says of a measure: its name, its unit, which way is better."""

from __future__ import annotations

from evomerge.types import Measure

_UNITS = {
    "acc": "accuracy, share of items",
    "acc_norm": "accuracy (length-normalised), share of items",
    "exact_match": "exact match, share of items",
    "bits_per_byte": "bits per byte",
    "word_perplexity": "perplexity per word",
    "byte_perplexity": "perplexity per byte",
    "perplexity": "perplexity",
}


def unit(measure: Measure) -> str:
    """Return what a measure counts."""
    return _UNITS.get(measure.metric, measure.metric)


def axis(measure: Measure) -> str:
    """Return a measure for the label of an axis."""
    better = "higher" if measure.higher_is_better else "lower"
    return f"{measure.name}: {unit(measure)} ({better} is better)"
