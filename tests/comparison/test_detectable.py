"""What so many items can show."""

import numpy as np
import pytest

from evomerge.comparison.detectable import items_needed, smallest_gain
from evomerge.comparison.paired import compare

TABLE = {
    0.05: (559, 246, 86),
    0.10: (1122, 496, 176, 41),
    0.15: (1686, 747, 266, 63),
    0.20: (2249, 997, 356, 86),
}


@pytest.mark.parametrize("discordance", TABLE)
def test_the_items_needed_are_the_tables(discordance: float) -> None:
    """The table's entry for ψ = .05 and a gain of .10 is left out: no gain exceeds its discordance."""
    for gain, expected in zip((0.02, 0.03, 0.05, 0.10), TABLE[discordance], strict=False):
        assert items_needed(gain, discordance) == pytest.approx(expected, abs=1.01)  # rounded up here


def test_a_gain_brings_its_own_discordance() -> None:
    assert items_needed(0.10, 0.05) == items_needed(0.10, 0.10)
    assert smallest_gain(20, 0.05) == smallest_gain(20, 0.0) > 0.05
    assert smallest_gain(0, 0.15) == 1.0
    assert items_needed(1.0, 0.2) == 1


@pytest.mark.parametrize("items", [10, 40, 100, 500, 2000])
@pytest.mark.parametrize("discordance", [0.02, 0.15, 0.4])
@pytest.mark.parametrize("alpha", [0.025, 0.1])
def test_one_is_the_inverse_of_the_other(items: int, discordance: float, alpha: float) -> None:
    gain = smallest_gain(items, discordance, alpha=alpha)
    assert items_needed(gain, discordance, alpha=alpha) == items
    assert items_needed(gain * 0.99, discordance, alpha=alpha) > items


def test_that_gain_is_shown_about_as_often_as_promised() -> None:
    items, discordance = 400, 0.15
    gain = smallest_gain(items, discordance)
    shares = [(discordance + gain) / 2, (discordance - gain) / 2, 1 - discordance]
    shown = 0
    for wins, losses, same in np.random.default_rng(1).multinomial(items, shares, size=2000):
        found = compare([1] * wins + [0] * (losses + same), [0] * wins + [1] * losses + [0] * same)
        assert found is not None
        shown += found.interval()[0] > 0
    assert shown / 2000 == pytest.approx(0.8, abs=0.03)


@pytest.mark.parametrize("gain", [0.0, -0.1, 1.5])
def test_a_gain_that_cannot_be_is_refused(gain: float) -> None:
    with pytest.raises(ValueError, match="above 0 and up to 1"):
        items_needed(gain, 0.15)
