"""The scorer answers texts as `HFLM` does, and does once what it can do once."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM

from evomerge.checkpoints.locate import ZOO
from evomerge.errors import EvaluationError
from evomerge.evaluate.scorer import Scorer

STORIES = [
    json.loads(line)["text"]
    for line in (ZOO / "tasks" / "data" / "stories_b.jsonl").read_text().splitlines()[:40]
]
PAIRS = [
    ("ken wa kami o 4", " mai"),
    ("ken wa kami o 4", " mai motte imasu"),
    ("ken wa kami o 4", " ko"),
    ("taro wa kami o ", "4 mai"),  # whose space lm-eval moves
    ("", "jun wa momo"),
    ("", "ken"),
    ("jun wa momo o 6 ko motte imasu .", " soshite 3 ko hirou ."),
    (" ".join(STORIES[:12]), " jun wa"),  # longer than the model sees
]


def requests(kind: str, texts: Sequence[tuple[str, ...]]) -> list[Instance]:
    return [Instance(request_type=kind, doc={}, arguments=text, idx=k) for k, text in enumerate(texts)]


def lm_evals(math_expert: tuple[Any, Any]) -> HFLM:
    model, tokenizer = math_expert
    return HFLM(pretrained=model, tokenizer=tokenizer, batch_size=4, softmax_dtype="float32")


def test_log_likelihoods_are_lm_evals(math_expert: tuple[Any, Any]) -> None:
    asked = requests("loglikelihood", PAIRS)
    found = Scorer(*math_expert, batch_size=4).loglikelihood(asked)
    assert found == lm_evals(math_expert).loglikelihood(asked, disable_tqdm=True)
    assert len({likelihood for likelihood, _ in found}) == len(PAIRS)


def test_one_text_parted_at_two_places_is_answered_as_alone(math_expert: tuple[Any, Any]) -> None:
    """Together, lm-eval 0.4.13 reads the shorter continuation off where the longer one begins."""
    asked = requests("loglikelihood", [("ken wa kami o 4", " mai"), ("ken wa kami o ", "4 mai")])
    theirs = lm_evals(math_expert)
    alone = [theirs.loglikelihood([each], disable_tqdm=True)[0] for each in asked]
    assert Scorer(*math_expert, batch_size=4).loglikelihood(asked) == alone
    assert theirs.loglikelihood(asked, disable_tqdm=True) != alone


def test_rolling_log_likelihoods_are_lm_evals_also_over_several_windows(
    math_expert: tuple[Any, Any],
) -> None:
    texts = [(" ".join(STORIES[:9]),), *[(text,) for text in STORIES[:10]], ("",)]
    asked = requests("loglikelihood_rolling", texts)
    found = Scorer(*math_expert, batch_size=4).loglikelihood_rolling(asked)
    assert found == lm_evals(math_expert).loglikelihood_rolling(asked, disable_tqdm=True)
    assert found[-1] == 0


def test_a_set_of_requests_is_tokenised_and_packed_once(
    math_expert: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    scorer = Scorer(*math_expert, batch_size=4)
    first = scorer.loglikelihood(requests("loglikelihood", PAIRS))
    monkeypatch.setattr(scorer, "tok_encode", lambda *_: pytest.fail("tokenised again"))
    monkeypatch.setattr("evomerge.evaluate.prefixes.pack", lambda *_, **__: pytest.fail("packed again"))
    assert scorer.loglikelihood(requests("loglikelihood", PAIRS)) == first


def test_no_continuation_is_refused(math_expert: tuple[Any, Any]) -> None:
    with pytest.raises(EvaluationError, match="log-likelihood of 0 tokens after 2"):
        Scorer(*math_expert, batch_size=4).loglikelihood(requests("loglikelihood", [("ken wa", "")]))


def test_a_model_let_go_of_is_not_held(math_expert: tuple[Any, Any]) -> None:
    scorer = Scorer(*math_expert, batch_size=4)
    scorer.loglikelihood(requests("loglikelihood", PAIRS))
    scorer.bind(None)
    assert math_expert[0] not in [each for each in vars(scorer).values() if not isinstance(each, bool | int)]
    assert scorer._form == (None, "")
