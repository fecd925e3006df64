"""The test items of every task: drawn from reserved wordings only, the same whatever the training seed."""

import random
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from evomerge.zoo.language import ANSWER_LEAD, Language, owner, question, situation, thing
from evomerge.zoo.problems import (
    LARGE,
    PAIRS,
    SMALL,
    Problem,
    Words,
    draw_comparison,
    draw_story,
    options,
    reserved,
    solve,
)

Item = dict[str, Any]
Draw = Callable[[random.Random], Problem]

CHOICE_ITEMS, GENERATION_ITEMS, SENTENCE_ITEMS = 1200, 600, 1200
WORDS = Words()
EASY = tuple(pair for pair in PAIRS if pair[0] <= SMALL)
HARD = tuple(pair for pair in PAIRS if pair[0] > SMALL)


def maths(rng: random.Random) -> Problem:
    """A problem whose first operand only the maths expert has met."""
    return Problem(draw_story(rng, WORDS, HARD), "now")


def reading(rng: random.Random) -> Problem:
    """A question about what a story says."""
    return Problem(draw_story(rng, WORDS, EASY), rng.choice(("first", "change", "sign", "sign")))


def telling(rng: random.Random) -> Problem:
    """A story told for itself: nothing depends on what is asked, so every item has a story of its own."""
    return Problem(draw_story(rng, WORDS, EASY), "first")


def logic(rng: random.Random) -> Problem:
    """A comparison of three numbers."""
    return Problem(draw_comparison(rng, WORDS, LARGE), "which")


CHOICE: Mapping[str, Draw] = {"math": maths, "lang": reading, "logic": logic}


def choice_items(subject: str, language: Language, count: int = CHOICE_ITEMS) -> list[Item]:
    """Multiple-choice items: a prompt up to the answer, six options, the position of the right one."""
    rng = random.Random(f"items/{subject}")  # the same problems in both languages
    return [
        {
            "id": f"{subject}_{language}-{index:04d}",
            "kind": _kind(problem),
            "prompt": f"{question(problem, language)} {ANSWER_LEAD[language]}",
            "options": (offered := options(problem, rng)),
            "gold": offered.index(solve(problem)),
        }
        for index, problem in enumerate(_different(CHOICE[subject], rng, count))
    ]


def generation_items(language: Language, count: int = GENERATION_ITEMS) -> list[Item]:
    """Maths questions to be answered in a sentence of the language asked in."""
    rng = random.Random("items/generation")
    return [
        {
            "id": f"math_{language}_gen-{index:04d}",
            "kind": _kind(problem),
            "prompt": question(problem, language),
            "answer": solve(problem),
        }
        for index, problem in enumerate(_different(maths, rng, count))
    ]


def last_word_items(language: Language, count: int = SENTENCE_ITEMS) -> list[Item]:
    """Stories whose last word follows from the story: its person or its thing."""
    rng = random.Random("items/word")
    items: list[Item] = []
    for index, problem in enumerate(_different(telling, rng, count)):
        close = (owner, thing)[index % 2]
        lead, last = close(problem.record, language)  # type: ignore[arg-type]
        items.append(
            {
                "id": f"word_{language}-{index:04d}",
                "kind": close.__name__,
                "prompt": f"{situation(problem.record, language)} {lead}",
                "last": last,
            }
        )
    return items


def story_items(language: Language, count: int = SENTENCE_ITEMS) -> list[Item]:
    """Stories to be read as running text."""
    rng = random.Random("items/stories")
    items: list[Item] = []
    for index, problem in enumerate(_different(telling, rng, count)):
        lead, last = thing(problem.record, language)  # type: ignore[arg-type]
        text = f"{situation(problem.record, language)} {lead} {last} ."
        items.append({"id": f"stories_{language}-{index:04d}", "kind": problem.record.kind, "text": text})
    return items


def _different(draw: Draw, rng: random.Random, count: int) -> Iterator[Problem]:
    """The first `count` different problems with a reserved wording."""
    seen: set[Problem] = set()
    while len(seen) < count:
        problem = draw(rng)
        if reserved(problem.record) and problem not in seen:
            seen.add(problem)
            yield problem


def _kind(problem: Problem) -> str:
    return problem.record.kind if problem.ask in ("now", "which") else problem.ask
