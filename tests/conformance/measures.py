"""Cases of what is measured on models, or searched among them, rather than merged."""

import torch
from torch import Tensor

from evomerge import greedy_soup
from evomerge.evaluate.fisher import fisher_diag
from evomerge.evaluate.gram import gram
from evomerge.recipe import interpolated
from evomerge.recipe.layered import relative_depth
from tests.conformance.cases import Case, Tensors


def soup(case: Case, name: str) -> Tensor | Tensors:
    """The greedy soup under the case's scorer: minus a thousand times the squared distance to a target."""
    target = case.named(case.aux["target"])

    def score(state: Tensors) -> float:
        return -1000 * sum(
            float((value - target[key]).double().square().sum()) for key, value in state.items()
        )

    candidates = list(enumerate(case.models))
    if case.compat == "official":  # of models that score the same, the authors try the later one first
        candidates.reverse()
    merged, found = greedy_soup({str(i): model for i, model in candidates}, score)
    if name == "merged":
        return merged
    return {
        "ingredients": torch.tensor([int(each) for each in found.ingredients]),
        "order": torch.tensor([int(each) for each in found.order]),
        "best_score": torch.tensor(found.score),
    }[name]


def fisher(case: Case, name: str) -> Tensor:
    """The exact diagonal Fisher information of a linear classifier."""
    assert name == "fisher"
    return fisher_diag(case.tensor(case.aux["W"]), case.tensor(case.aux["X"]))


def gram_matrix(case: Case, name: str) -> Tensor:
    """The Gram matrix of a layer's inputs."""
    assert name == "gram"
    return gram(case.tensor(case.aux["X"]))


def gradient(case: Case, name: str) -> Tensor:
    """A parameter's value in each layer."""
    assert name == "per_layer"
    layers = int(case.params["num_layers"])
    depths = [relative_depth(layer, 0, layers - 1) for layer in range(layers)]
    anchors = case.params["anchors"]
    values = [
        float(interpolated(anchors if isinstance(anchors, list) else [anchors], depth)) for depth in depths
    ]
    return torch.tensor(values, dtype=torch.float64)
