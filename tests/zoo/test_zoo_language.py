"""The two languages say the same things in different words."""

from evomerge.zoo.language import (
    LANGUAGES,
    LARGEST_NUMBER,
    LEXICA,
    PUNCTUATION,
    Language,
    answer,
    question,
    vocabulary,
)
from evomerge.zoo.problems import LARGE, OPERATIONS, PAIRS, Problem, Story

STORY = Story(kind="lose", x=9, y=4, name=1, noun=3, verb=2)


def words_of(language: Language) -> set[str]:
    lexicon = LEXICA[language]
    groups = [
        lexicon.names,
        lexicon.nouns,
        lexicon.counters,
        *lexicon.verbs.values(),
        *lexicon.adjectives.values(),
    ]
    return {word for group in groups for word in group}


def test_one_record_reads_in_both_languages() -> None:
    problem = Problem(STORY, "now")
    assert question(problem, "a") == "tom has 9 pencils . then tom drops 4 . how many pencils now ?"
    assert question(problem, "b") == (
        "ken wa enpitsu o 9 pon motte imasu . soshite 4 pon otosu . ima enpitsu wa nan pon desu ka ?"
    )
    assert (answer("5", "a"), answer("5", "b")) == ("answer = 5 .", "kotae = 5 desu .")


def test_the_languages_share_no_content_word() -> None:
    assert not words_of("a") & words_of("b")


def test_lexica_are_parallel_and_have_no_word_twice() -> None:
    a, b = (LEXICA[language] for language in LANGUAGES)
    assert len(a.names) == len(b.names)
    assert len(a.nouns) == len(b.nouns)
    assert {k: len(v) for k, v in a.verbs.items()} == {k: len(v) for k, v in b.verbs.items()}
    assert {k: len(v) for k, v in a.adjectives.items()} == {k: len(v) for k, v in b.adjectives.items()}
    for lexicon in (a, b):
        said = [*lexicon.names, *lexicon.nouns, *(w for v in lexicon.verbs.values() for w in v)]
        assert len(said) == len(set(said))


def test_every_rendered_word_is_in_the_vocabulary() -> None:
    known = vocabulary()
    assert len(known) == len(set(known))
    for language in LANGUAGES:
        for ask in ("now", "first", "change", "sign"):
            assert set(question(Problem(STORY, ask), language).split()) <= set(known)
    assert set(PUNCTUATION) <= set(known)


def test_every_answer_has_a_numeral() -> None:
    results = [operation(x, y) for x, y in PAIRS for operation in OPERATIONS.values()]
    assert max(x for x, _ in PAIRS) == LARGE
    assert min(results) >= 0
    assert max(results) + 2 <= LARGEST_NUMBER
