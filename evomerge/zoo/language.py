"""Two toy languages with one meaning: words by number, and records rendered in either.

A is English-like (subject, verb, object). B is like Japanese in Latin letters (subject, object, verb;
particles, counters, dropped subjects). They share no word; numerals, signs and punctuation are common to
both. The last token before an answer is the same in both, so that what computes it can be shared.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from evomerge.zoo.problems import Comparison, Problem, Record, Story

Language = Literal["a", "b"]
LANGUAGES: tuple[Language, ...] = ("a", "b")

LARGEST_NUMBER = 80  # the largest answer is 15 * 5; options stray a little further
SIGNS = ("+", "-", "*")
PUNCTUATION = (".", ",", "?", ":", "=")


@dataclass(frozen=True, kw_only=True)
class Lexicon:
    """The content words of one language. Equal positions mean the same in both."""

    names: tuple[str, ...]
    nouns: tuple[str, ...]
    verbs: Mapping[str, tuple[str, ...]]  # by operation
    adjectives: Mapping[str, tuple[str, ...]]  # by direction of comparison
    counters: tuple[str, ...] = ()  # one for every three nouns, in order


LEXICA: Mapping[Language, Lexicon] = {
    "a": Lexicon(
        names=("anna", "tom", "leo", "mary", "sam", "lucy", "jack", "emma"),
        nouns=(
            *("apples", "oranges", "peaches", "pencils", "bottles", "umbrellas"),
            *("papers", "plates", "shirts", "books", "diaries", "magazines"),
        ),
        verbs={
            "gain": ("buys", "finds", "gets", "wins", "earns", "picks"),
            "lose": ("sells", "loses", "drops", "eats", "spends", "gives"),
            "times": ("multiplies", "copies", "repeats", "scales", "clones", "stacks"),
        },
        adjectives={
            "most": ("biggest", "largest", "greatest", "highest"),
            "least": ("smallest", "lowest", "tiniest", "slightest"),
        },
    ),
    "b": Lexicon(
        names=("yuki", "ken", "hana", "taro", "aki", "jun", "mei", "rei"),
        nouns=(
            *("ringo", "mikan", "momo", "enpitsu", "bin", "kasa"),
            *("kami", "sara", "shatsu", "hon", "nikki", "zasshi"),
        ),
        verbs={
            "gain": ("kau", "mitsukeru", "morau", "katsu", "kasegu", "hirou"),
            "lose": ("uru", "nakusu", "otosu", "taberu", "tsukau", "ageru"),
            "times": ("kakeru", "utsusu", "kurikaesu", "hirogeru", "fuyasu", "kasaneru"),
        },
        adjectives={
            "most": ("ookii", "ooi", "takai", "nagai"),
            "least": ("chiisai", "sukunai", "hikui", "mijikai"),
        },
        counters=("ko", "pon", "mai", "satsu"),
    ),
}

_QUESTIONS: Mapping[Language, Mapping[str, str]] = {
    "a": {
        "now": "how many {noun} now ?",
        "first": "how many {noun} at first ?",
        "change": "how many did that change ?",
        "sign": "which sign is that ?",
        "which": "which number is the {adjective} ?",
    },
    "b": {
        "now": "ima {noun} wa nan {counter} desu ka ?",
        "first": "hajime {noun} wa nan {counter} deshita ka ?",
        "change": "henka wa nan {counter} desu ka ?",
        "sign": "kigou wa dore desu ka ?",
        "which": "ichiban {adjective} kazu wa dore desu ka ?",
    },
}
ANSWER_LEAD: Mapping[Language, str] = {"a": "answer =", "b": "kotae ="}
_ANSWER_END: Mapping[Language, str] = {"a": ".", "b": "desu ."}
_OWNER: Mapping[Language, str] = {"a": "that person is", "b": "sono hito wa"}
_THING: Mapping[Language, str] = {"a": "those things are", "b": "sono mono wa"}


def counter(noun: int) -> str:
    """The counting word that language B uses for a noun."""
    return LEXICA["b"].counters[noun // 3]


def sentences(record: Record, language: Language) -> tuple[str, ...]:
    """What happens in a record, sentence by sentence."""
    return _story(record, language) if isinstance(record, Story) else (_comparison(record, language),)


def situation(record: Record, language: Language) -> str:
    """What happens in a record, as text without a question."""
    return " ".join(sentences(record, language))


def asked(problem: Problem, language: Language) -> str:
    """The question alone."""
    record, words = problem.record, LEXICA[language]
    if isinstance(record, Story):
        return _QUESTIONS[language][problem.ask].format(
            noun=words.nouns[record.noun], counter=counter(record.noun)
        )
    return _QUESTIONS[language][problem.ask].format(adjective=words.adjectives[record.kind][record.adjective])


def question(problem: Problem, language: Language) -> str:
    """The whole prompt of a problem: what happens, then what is asked."""
    return f"{situation(problem.record, language)} {asked(problem, language)}"


def answer(value: str, language: Language) -> str:
    """The sentence that gives `value` as the answer."""
    return f"{ANSWER_LEAD[language]} {value} {_ANSWER_END[language]}"


def owner(record: Story, language: Language) -> tuple[str, str]:
    """A sentence that names who the story is about: all but the last word, and the last word."""
    return _OWNER[language], LEXICA[language].names[record.name]


def thing(record: Story, language: Language) -> tuple[str, str]:
    """A sentence that names what the story is about: all but the last word, and the last word."""
    return _THING[language], LEXICA[language].nouns[record.noun]


def vocabulary() -> list[str]:
    """Every word of both languages once, in a fixed order."""
    words: dict[str, None] = {str(n): None for n in range(LARGEST_NUMBER + 1)}
    words |= dict.fromkeys((*SIGNS, *PUNCTUATION))
    for language in LANGUAGES:
        words |= dict.fromkeys(_words_of(language))
    return list(words)


def _words_of(language: Language) -> list[str]:
    lexicon = LEXICA[language]
    words = [*lexicon.names, *lexicon.nouns, *lexicon.counters]
    for group in (*lexicon.verbs.values(), *lexicon.adjectives.values()):
        words += group
    blank = Story(kind="gain", x=0, y=0, name=0, noun=0, verb=0)
    trio = Comparison(kind="most", numbers=(0, 0, 0), names=(0, 0, 0), adjective=0)
    asked = [
        question(Problem(trio if ask == "which" else blank, ask), language) for ask in _QUESTIONS[language]
    ]
    endings = [answer("0", language), _OWNER[language], _THING[language]]
    return words + " ".join([*asked, *endings]).split()


def _story(record: Story, language: Language) -> tuple[str, str]:
    words = LEXICA[language]
    name, noun, verb = (
        words.names[record.name],
        words.nouns[record.noun],
        words.verbs[record.kind][record.verb],
    )
    if language == "a":
        return f"{name} has {record.x} {noun} .", f"then {name} {verb} {record.y} ."
    count = counter(record.noun)
    return f"{name} wa {noun} o {record.x} {count} motte imasu .", f"soshite {record.y} {count} {verb} ."


def _comparison(record: Comparison, language: Language) -> str:
    names = [LEXICA[language].names[name] for name in record.names]
    held = {"a": "{} has {}", "b": "{} ni {}"}[language]
    parts = " , ".join(held.format(name, number) for name, number in zip(names, record.numbers, strict=True))
    return f"{parts} ." if language == "a" else f"{parts} ga aru ."
