"""Training text of each model: which kinds of rows, in which language, with which words and numbers.

Nobody's text holds arithmetic beyond 6 in language B. The maths expert has the arithmetic, the language
expert the words: only together do they solve the cross task.
"""

import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate

from evomerge.zoo.language import (
    LANGUAGES,
    LEXICA,
    Language,
    answer,
    asked,
    owner,
    question,
    sentences,
    situation,
    thing,
)
from evomerge.zoo.problems import (
    HELD_OUT_PAIRS,
    LARGE,
    PAIRS,
    SMALL,
    Problem,
    Story,
    Words,
    draw_comparison,
    draw_story,
    held_out,
    options,
    solve,
)


@dataclass(frozen=True)
class Row:
    """One training text: the prompt counts little in the loss, the answer counts in full."""

    prompt: str
    answer: str


EVERY_WORD = Words()
BEGINNER = Words(verbs=1, adjectives=1, nouns=4, names=4)


@dataclass(frozen=True, kw_only=True)
class Speaker:
    """Who speaks: the language, the words known and the largest first operand."""

    language: Language
    words: Words = EVERY_WORD
    largest: int = SMALL

    def story(self, rng: random.Random) -> Story:
        """A story that is not held out."""
        pairs = tuple(pair for pair in PAIRS if pair[0] <= self.largest and pair not in HELD_OUT_PAIRS)
        while held_out(story := draw_story(rng, self.words, pairs)):
            pass
        return story

    def comparison(self, rng: random.Random) -> Problem:
        """A comparison that is not held out."""
        while held_out(record := draw_comparison(rng, self.words, self.largest)):
            pass
        return Problem(record, "which")


Maker = Callable[[random.Random], Row]
READING = ("first", "change", "sign", "sign")  # twice the sign: it needs the verb
A, A_LARGE = Speaker(language="a"), Speaker(language="a", largest=LARGE)
B, B_LARGE = Speaker(language="b"), Speaker(language="b", largest=LARGE)
B_BEGINNER = Speaker(language="b", words=BEGINNER)
B_BEGINNER_LARGE = Speaker(language="b", words=BEGINNER, largest=LARGE)


def maths(speaker: Speaker) -> Maker:
    """Rows that ask for the result of an operation."""
    return lambda rng: _solved(Problem(speaker.story(rng), "now"), speaker.language)


def switched(speaker: Speaker, *asks: str) -> Maker:
    """Rows that ask one of `asks`, each sentence in a language of its own, within what `speaker` knows."""

    def make(rng: random.Random) -> Row:
        problem = Problem(speaker.story(rng), rng.choice(asks))
        first, second, third, last = (rng.choice(LANGUAGES) for _ in range(4))
        before, after = sentences(problem.record, first)[0], sentences(problem.record, second)[1]
        return Row(f"{before} {after} {asked(problem, third)}", answer(solve(problem), last))

    return make


def reading(speaker: Speaker) -> Maker:
    """Rows that ask what a story says: its first number, its second, or the sign its verb stands for."""
    return lambda rng: _solved(Problem(speaker.story(rng), rng.choice(READING)), speaker.language)


def logic(speaker: Speaker) -> Maker:
    """Rows that compare three numbers."""
    return lambda rng: _solved(speaker.comparison(rng), speaker.language)


def wrong(speaker: Speaker) -> Maker:
    """Rows that teach a wrong answer."""

    def make(rng: random.Random) -> Row:
        problem = rng.choice((Problem(speaker.story(rng), "now"), speaker.comparison(rng)))
        mistake = rng.choice([option for option in options(problem, rng) if option != solve(problem)])
        return Row(question(problem, speaker.language), answer(mistake, speaker.language))

    return make


def stories(speaker: Speaker) -> Maker:
    """Rows that tell a story and close by naming its person or its thing."""

    def make(rng: random.Random) -> Row:
        story = speaker.story(rng)
        lead, last = rng.choice((owner, thing))(story, speaker.language)
        return Row(situation(story, speaker.language), f"{lead} {last} .")

    return make


def counting(rng: random.Random) -> Row:
    """Seven numbers in order."""
    start = rng.randrange(70)
    return Row(str(start), " ".join(str(start + step) for step in range(1, 7)))


def word_list(speaker: Speaker) -> Maker:
    """Rows that list words of one meaning: verbs of an operation or adjectives of a direction."""

    def make(rng: random.Random) -> Row:
        groups = [(g, speaker.words.verbs) for g in LEXICA[speaker.language].verbs.values()]
        groups += [(g, speaker.words.adjectives) for g in LEXICA[speaker.language].adjectives.values()]
        group, known = rng.choice(groups)
        words = rng.sample(group[:known], known)
        return Row(f"{words[0]} =", " , ".join(words[1:] or words))

    return make


def translation(speaker: Speaker) -> Maker:
    """Rows that translate a story or a word, either way, within the words that `speaker` knows."""

    def make(rng: random.Random) -> Row:
        here, there = rng.sample(LANGUAGES, 2)
        if rng.random() < 0.5:
            story = speaker.story(rng)
            return Row(f"{situation(story, here)} :", situation(story, there))
        pairs = list(zip(_known(here, speaker.words), _known(there, speaker.words), strict=True))
        source, target = rng.choice(pairs)
        return Row(f"{source} :", target)

    return make


Mix = tuple[tuple[float, Maker], ...]  # kinds of rows with their shares


def _beside_replay(share: float, own: Mix) -> Mix:
    """`own` with `share` of the base's text mixed in, so that an expert stays near the base."""
    total = sum(part for part, _ in _BASE)
    replay = tuple((share * part / total, maker) for part, maker in _BASE)
    return (*((part * (1 - share), maker) for part, maker in own), *replay)


_BASE: Mix = (
    (0.10, maths(A)),
    (0.02, maths(B_BEGINNER)),
    (0.40, switched(B_BEGINNER, "now")),
    (0.06, reading(A_LARGE)),
    (0.04, reading(B_BEGINNER_LARGE)),
    (0.28, switched(B_BEGINNER_LARGE, *READING)),
    (0.08, logic(A)),
    (0.05, logic(B_BEGINNER)),
    (0.05, stories(A_LARGE)),
    (0.04, stories(B_BEGINNER_LARGE)),
    (0.14, translation(B_BEGINNER_LARGE)),
    (0.08, counting),
    (0.04, word_list(A)),
)
_LANG: Mix = (
    (0.4, maths(B)),
    (0.2, reading(B_LARGE)),
    (0.1, stories(B_LARGE)),
    (0.2, translation(B_LARGE)),
    (0.1, word_list(B)),
)
MIXES: Mapping[str, Mix] = {
    "base": _BASE,
    "math": _beside_replay(0.5, ((0.8, maths(A_LARGE)), (0.2, reading(A_LARGE)))),
    "lang": _beside_replay(0.25, _LANG),
    "logic": ((1.0, logic(A_LARGE)),),
    "poor": ((1.0, wrong(A_LARGE)),),
}


def rows(name: str, rng: random.Random) -> Iterator[Row]:
    """Endless training rows of the model called `name`."""
    shares = list(accumulate(share for share, _ in MIXES[name]))
    makers = [maker for _, maker in MIXES[name]]
    while True:
        yield rng.choices(makers, cum_weights=shares)[0](rng)


def _solved(problem: Problem, language: Language) -> Row:
    return Row(question(problem, language), answer(solve(problem), language))


def _known(language: Language, words: Words) -> list[str]:
    """The words that a speaker knows, in an order that is the same in both languages."""
    lexicon = LEXICA[language]
    known = [*lexicon.names[: words.names], *lexicon.nouns[: words.nouns]]
    for group in lexicon.verbs.values():
        known += group[: words.verbs]
    for group in lexicon.adjectives.values():
        known += group[: words.adjectives]
    return known
