"""Paths from the literature."""

import pytest

from evomerge.errors import RecipeError
from evomerge.recipe import Slot, cluster_centres, passthrough, shared_layers, without_layers


def layers(slots: tuple[Slot, ...]) -> list[tuple[str, int, int | None]]:
    return [(slot.model, slot.layer, slot.norms) for slot in slots]


def test_slices_are_stacked_without_their_end() -> None:
    found = passthrough([("a", 0, 2), ("b", 1, 2)], weights=(("o_proj", 0.5),))
    assert layers(found) == [("a", 0, None), ("a", 1, None), ("b", 1, None)]
    assert {slot.weights for slot in found} == {(("o_proj", 0.5),)}


@pytest.mark.parametrize("span", [(2, 2), (3, 1), (-1, 2)])
def test_a_slice_of_no_layers_is_refused(span: tuple[int, int]) -> None:
    with pytest.raises(RecipeError, match="a slice of `a` is first layer and layer after the last"):
        passthrough([("a", *span)])


def test_removed_layers_are_gone() -> None:
    assert layers(without_layers("a", 4, {1, 2})) == [("a", 0, None), ("a", 3, None)]


def test_a_layer_that_is_not_there_cannot_be_removed() -> None:
    with pytest.raises(RecipeError, match="layer 4 cannot be removed: `a` has the layers 0 to 3"):
        without_layers("a", 4, [1, 4])


def test_a_group_shares_its_first_layer_and_keeps_its_norms() -> None:
    groups = [[0], [1, 2], [3]]
    assert layers(shared_layers("a", groups)) == [("a", 0, None), ("a", 1, None), ("a", 1, 2), ("a", 3, None)]
    assert layers(shared_layers("a", groups, lender="last"))[1:3] == [("a", 2, 1), ("a", 2, None)]
    assert layers(shared_layers("a", groups, own_norms=False))[1:3] == [("a", 1, None), ("a", 1, None)]


def test_a_cluster_is_its_centre_once_or_as_often_as_it_has_layers() -> None:
    clusters = [[0, 1], [2], [3, 4, 5]]
    assert [slot.layer for slot in cluster_centres("a", clusters)] == [1, 2, 4]
    assert [slot.layer for slot in cluster_centres("a", clusters, repeat=True)] == [1, 1, 2, 4, 4, 4]


@pytest.mark.parametrize("groups", [[[0], [2]], [[1, 0]], [[0], []], [[1]]])
def test_groups_that_are_no_runs_of_all_layers_are_refused(groups: list[list[int]]) -> None:
    with pytest.raises(RecipeError, match="must be cut into runs from 0 on"):
        shared_layers("a", groups)
