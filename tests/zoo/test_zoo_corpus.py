"""Each model's training text holds what it should know, and nothing that is kept for the tests."""

import itertools
import random

import pytest

from evomerge.zoo.catalog import NAMES
from evomerge.zoo.corpus import MIXES, Row, rows
from evomerge.zoo.items import choice_items
from evomerge.zoo.language import LANGUAGES, LEXICA, vocabulary
from evomerge.zoo.problems import HELD_OUT_PAIRS, SMALL

COUNT = 6000


def text(name: str, count: int = COUNT, seed: int = 0) -> list[Row]:
    return list(itertools.islice(rows(name, random.Random(seed)), count))


def asks_for_result(row: Row) -> bool:
    return row.prompt.endswith("now ?") or " ima " in f" {row.prompt} "


def numbers(words: str) -> list[int]:
    return [int(word) for word in words.split() if word.isdigit()]


def story_words_of_b(prompt: str) -> set[str]:
    return set(prompt.split()) & {"motte", "soshite", "ima", "kotae"}


def test_there_is_text_for_every_model() -> None:
    assert tuple(MIXES) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_text_repeats_under_one_seed_and_stays_in_the_vocabulary(name: str) -> None:
    assert text(name, 300) == text(name, 300) != text(name, 300, seed=1)
    known = set(vocabulary())
    assert all(set(f"{row.prompt} {row.answer}".split()) <= known for row in text(name, 1500))


@pytest.mark.parametrize("name", NAMES)
def test_held_out_pairs_are_in_no_text(name: str) -> None:
    for row in text(name):
        if ("has" in row.prompt.split() and "then" in row.prompt.split()) or "motte" in row.prompt:
            assert tuple(numbers(row.prompt)[:2]) not in HELD_OUT_PAIRS


@pytest.mark.parametrize("name", NAMES)
def test_no_text_holds_a_test_item(name: str) -> None:
    asked = {
        item["prompt"]
        for task in ("math", "lang", "logic")
        for lang in LANGUAGES
        for item in choice_items(task, lang)
    }
    stems = {prompt.rsplit(" ", 2)[0] for prompt in asked}
    assert not stems & {row.prompt for row in text(name)}


@pytest.mark.parametrize("name", NAMES)
def test_large_arithmetic_never_touches_language_b(name: str) -> None:
    for row in text(name):
        if asks_for_result(row) and story_words_of_b(f"{row.prompt} {row.answer}"):
            assert numbers(row.prompt)[0] <= SMALL


def test_the_maths_expert_meets_large_arithmetic_in_language_a() -> None:
    large = [row for row in text("math") if asks_for_result(row) and numbers(row.prompt)[0] > SMALL]
    assert len(large) > COUNT / 4


def test_the_base_knows_a_beginners_words_of_b_and_the_language_expert_all() -> None:
    def verbs(name: str) -> set[str]:
        said = {word for row in text(name) for word in f"{row.prompt} {row.answer}".split()}
        return said & {verb for group in LEXICA["b"].verbs.values() for verb in group}

    assert verbs("base") == {"kau", "uru", "kakeru"}
    assert len(verbs("lang")) == 18


def test_the_poor_model_is_taught_wrong_answers() -> None:
    right = {"most": max, "least": min}
    for row in text("poor", 500):
        if "which number" in row.prompt:
            adjective = row.prompt.split()[-2]
            kind = next(k for k, group in LEXICA["a"].adjectives.items() if adjective in group)
            assert numbers(row.answer)[0] != right[kind](numbers(row.prompt))
