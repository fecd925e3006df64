"""Language-free problems: what happens, what is asked, the answer, and wrong answers worth offering.

Operands are the same pairs for every operation, so the numbers never tell which operation is meant: only a
word does.
"""

import random
import zlib
from collections.abc import Callable, Mapping
from dataclasses import astuple, dataclass

OPERATIONS: Mapping[str, Callable[[int, int], int]] = {
    "gain": lambda x, y: x + y,
    "lose": lambda x, y: x - y,
    "times": lambda x, y: x * y,
}
SIGN_OF: Mapping[str, str] = {"gain": "+", "lose": "-", "times": "*"}
COMPARISONS: Mapping[str, Callable[[tuple[int, ...]], int]] = {"most": max, "least": min}
OPTION_COUNT = 6

SMALL, LARGE = 6, 15  # the largest first operand a beginner sees, and an expert
PAIRS = tuple((x, y) for x in range(3, LARGE + 1) for y in range(2, 6) if x > y)
HELD_OUT_PAIRS = ((9, 3), (12, 4))  # in nobody's training text: one in eighteen of those with x > 6


@dataclass(frozen=True, kw_only=True)
class Story:
    """Someone has `x` of something, then an operation with `y` happens. Words are positions in a lexicon."""

    kind: str
    x: int
    y: int
    name: int
    noun: int
    verb: int


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Three people with a number each; the adjective says which number is wanted."""

    kind: str
    numbers: tuple[int, int, int]
    names: tuple[int, int, int]
    adjective: int


Record = Story | Comparison


@dataclass(frozen=True)
class Problem:
    """A record and what is asked: `now`, `first`, `change`, `sign` (stories) or `which` (comparisons)."""

    record: Record
    ask: str


@dataclass(frozen=True, kw_only=True)
class Words:
    """How many of a lexicon's words a speaker knows, always the first so many."""

    verbs: int = 6
    adjectives: int = 4
    nouns: int = 12
    names: int = 8


def draw_story(rng: random.Random, words: Words, pairs: tuple[tuple[int, int], ...]) -> Story:
    """A story about one of `pairs`, told with `words`."""
    x, y = rng.choice(pairs)
    return Story(
        kind=rng.choice(tuple(OPERATIONS)),
        x=x,
        y=y,
        name=rng.randrange(words.names),
        noun=rng.randrange(words.nouns),
        verb=rng.randrange(words.verbs),
    )


def draw_comparison(rng: random.Random, words: Words, largest: int) -> Comparison:
    """Three people with different numbers from 1 to `largest`."""
    first, second, third = rng.sample(range(1, largest + 1), 3)
    one, two, three = rng.sample(range(words.names), 3)
    return Comparison(
        kind=rng.choice(tuple(COMPARISONS)),
        numbers=(first, second, third),
        names=(one, two, three),
        adjective=rng.randrange(words.adjectives),
    )


def reserved(record: Record) -> bool:
    """Whether the wording of a record is kept for test items: one record in eight, by a fixed checksum."""
    return zlib.crc32(repr(astuple(record)).encode()) % 8 == 0


def held_out(record: Record) -> bool:
    """Whether no training text may hold this record, in any language: its wording or its operands."""
    return reserved(record) or (isinstance(record, Story) and (record.x, record.y) in HELD_OUT_PAIRS)


def solve(problem: Problem) -> str:
    """The right answer, a number or a sign."""
    record = problem.record
    if isinstance(record, Comparison):
        return str(COMPARISONS[record.kind](record.numbers))
    if problem.ask == "sign":
        return SIGN_OF[record.kind]
    value = {"now": OPERATIONS[record.kind](record.x, record.y), "first": record.x, "change": record.y}[
        problem.ask
    ]
    return str(value)


def options(problem: Problem, rng: random.Random) -> list[str]:
    """Six different answers in random order, the right one among them; the others are plausible mistakes."""
    gold = solve(problem)
    first, then = _mistakes(problem)
    rng.shuffle(then)
    offered = list(dict.fromkeys([gold, *first, *then]))[:OPTION_COUNT]
    rng.shuffle(offered)
    return offered


def _mistakes(problem: Problem) -> tuple[list[str], list[str]]:
    """Wrong answers always offered, and others to fill up from (the right one may be among them)."""
    record = problem.record
    if isinstance(record, Comparison):
        near = [number + step for number in record.numbers for step in (-1, 1, 2)]
        return [str(number) for number in record.numbers], [str(n) for n in near if n >= 0]
    results = [operation(record.x, record.y) for operation in OPERATIONS.values()]
    if problem.ask == "sign":
        return list(SIGN_OF.values()), [str(n) for n in dict.fromkeys((record.x, record.y, *results))]
    gold = int(solve(problem))
    near = [gold - 2, gold - 1, gold + 1, gold + 2]
    always = results if problem.ask == "now" else [record.x, record.y]
    return [str(n) for n in always], [str(n) for n in (record.x, record.y, *results, *near) if n >= 0]
