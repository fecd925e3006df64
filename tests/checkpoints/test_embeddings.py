"""Aligned embeddings: own rows first, then the base's, the only owner's, the mean, zeros."""

import pytest
import torch
from torch import Tensor

from evomerge.checkpoints.embeddings import align_embeddings, common_submatrix
from evomerge.errors import MergeError


def rows(*numbers: float) -> Tensor:
    """Return an embedding whose rows are (x, -x)."""
    return torch.tensor([[number, -number] for number in numbers])


def test_each_model_keeps_its_own_rows_in_the_new_order() -> None:
    one, other = align_embeddings(["a", "b"], [{"a": 0, "b": 1}, {"b": 0, "a": 1}], [rows(1, 2), rows(3, 4)])
    assert torch.equal(one, rows(1, 2))
    assert torch.equal(other, rows(4, 3))


VOCABS = [{"a": 0}, {"a": 0, "b": 1, "c": 2}, {"a": 0, "b": 1}]
EMBEDDINGS = [rows(1), rows(2, 4, 5), rows(3, 8)]


def test_without_a_base_a_missing_token_is_the_mean_of_its_owners_or_zero() -> None:
    first, _, third = align_embeddings(["a", "b", "c", "d"], VOCABS, EMBEDDINGS)
    assert torch.equal(first, rows(1, 6, 5, 0))
    assert torch.equal(third, rows(3, 8, 5, 0))


def test_a_missing_token_is_the_bases_if_the_base_has_it() -> None:
    aligned = align_embeddings(["a", "b", "c", "d"], VOCABS, EMBEDDINGS, base_index=2)
    assert torch.equal(aligned[0], rows(1, 8, 5, 0))
    assert torch.equal(aligned[1], rows(2, 4, 5, 0))


def test_a_base_without_the_token_leaves_it_to_the_mean() -> None:
    first, _, _ = align_embeddings(["b"], VOCABS, EMBEDDINGS, base_index=0)
    assert torch.equal(first, rows(6))


def test_ids_beyond_the_rows_are_ignored() -> None:
    one, other = align_embeddings(["a", "b"], [{"a": 0, "b": 7}, {"a": 1, "b": 0}], [rows(1), rows(2, 3)])
    assert torch.equal(one, rows(1, 2))
    assert torch.equal(other, rows(3, 2))


@pytest.mark.parametrize(("multiple", "length"), [(None, 3), (1, 3), (3, 3), (2, 4), (8, 8)])
def test_padding_rows_are_the_mean_of_the_aligned_rows(multiple: int | None, length: int) -> None:
    vocabs = [{"a": 0, "b": 1}, {"c": 0}]
    embeddings = [rows(1, 2, 99), rows(6)]  # the 99 is no token's
    one, other = align_embeddings(["a", "b", "c"], vocabs, embeddings, pad_to_multiple_of=multiple)
    assert torch.equal(one, rows(1, 2, 6, *[3] * (length - 3)))
    assert torch.equal(other, one)


def test_the_dtype_is_kept_and_the_mean_is_of_float32() -> None:
    values = [torch.tensor([[1.0]]), torch.tensor([[1.0078125]]), torch.tensor([[2.0]])]
    embeddings = [value.bfloat16() for value in values]
    _, _, aligned = align_embeddings(["a"], [{"a": 0}, {"a": 0}, {}], embeddings)
    assert aligned.dtype == torch.bfloat16
    assert aligned.item() == torch.tensor((1.0 + 1.0078125) / 2).bfloat16().item()


def test_other_widths_are_refused() -> None:
    with pytest.raises(MergeError, match=r"only if they are as wide, found \[\(2,\), \(3,\)\]"):
        align_embeddings(["a"], [{"a": 0}, {"a": 0}], [torch.ones(1, 2), torch.ones(1, 3)])


def test_the_common_submatrix_is_the_top_left_of_each() -> None:
    one, other = common_submatrix([torch.arange(6.0).view(2, 3), torch.arange(8.0).view(4, 2)])
    assert torch.equal(one, torch.tensor([[0.0, 1.0], [3.0, 4.0]]))
    assert torch.equal(other, torch.tensor([[0.0, 1.0], [2.0, 3.0]]))
