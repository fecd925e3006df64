"""Recipes as YAML."""

from dataclasses import replace

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from evomerge.errors import RecipeError
from evomerge.recipe import MODULES, Filtered, Group, Merge, ModelRef, Recipe, from_yaml, to_yaml
from evomerge.recipe.layered import Layered
from evomerge.types import Value

words = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12) | st.sampled_from(
    ["yes", "null", "1", "1e3", "~", "- a", "a: b", "#", "2024-01-01", "0x10", ""]
)
numbers = st.floats(allow_nan=False) | st.integers(min_value=-(10**20), max_value=10**20)
parameters = st.sampled_from(["weight", "density", "lambda", "t", "normalize"])
refs = st.builds(
    ModelRef,
    source=words,
    revision=st.none() | words,
    digest=st.none() | st.just("blake2b:00ff"),
    fisher=st.none() | words,
    gram=st.none() | words,
    gram_digest=st.none() | st.just("blake2b:ff00"),
)


def layered_of(values: st.SearchStrategy[Value]) -> st.SearchStrategy[Layered]:
    anchored = values | st.lists(values, min_size=1, max_size=3).map(tuple)
    filters = st.builds(Filtered, filter=st.none() | words, value=anchored)
    return anchored | st.lists(filters, min_size=1, max_size=2).map(tuple)


@st.composite
def recipes(draw: st.DrawFn) -> Recipe:
    models = draw(st.dictionaries(words, refs, min_size=1, max_size=4))
    names = st.sampled_from(list(models))
    models = {name: replace(ref, adapts=draw(st.none() | names)) for name, ref in models.items()}
    sources = tuple(draw(st.lists(names, min_size=1, max_size=3, unique=True)))
    layered = layered_of(st.booleans() | numbers | words)
    by_source = st.fixed_dictionaries(dict.fromkeys(sources, layered_of(numbers)))
    params = st.dictionaries(parameters, layered | by_source, max_size=3)
    spans = st.tuples(st.integers(0, 40), st.integers(0, 40)).map(lambda span: (min(span), max(span)))
    modules = st.lists(st.sampled_from(MODULES), max_size=5).map(tuple)
    groups = st.lists(st.builds(Group, modules=modules, layers=st.none() | spans, params=params), max_size=3)
    merge = Merge(
        method=draw(words),
        sources=sources,
        base=draw(st.none() | names),
        params=draw(params),
        groups=tuple(draw(groups)),
        compat=draw(st.sampled_from(["evomerge", "mergekit"])),
    )
    return Recipe(
        models=models,
        merges={draw(words): merge},
        dtype=draw(st.none() | st.sampled_from(["float32", "bfloat16"])),
        tokenizer=draw(st.none() | st.sampled_from(["base", "union", "a"])),
        seed=draw(st.integers()),
        untie=draw(st.booleans()),
        template=draw(st.just("") | names),
    )


@settings(deadline=None, derandomize=True, max_examples=60)
@given(recipes())
def test_yaml_and_back_gives_the_same_recipe(recipe: Recipe) -> None:
    text = to_yaml(recipe)
    again = from_yaml(text)
    assert again == recipe
    assert again.key == recipe.key
    assert to_yaml(again) == text


WRITTEN = """\
models:
  base: {source: 'zoo:base'}
  a: {source: org/a, revision: main, digest: 'blake2b:00'}
merges:
  merged:
    method: ties
    base: base
    sources:
    - a
    compat: mergekit
    params: {density: 0.5}
    groups:
    - {layers: [0, 3], modules: [attn], weight: {a: 0.25}}
dtype: bfloat16
seed: 3
"""
READ = Recipe(
    models={
        "base": ModelRef(source="zoo:base"),
        "a": ModelRef(source="org/a", revision="main", digest="blake2b:00"),
    },
    merges={
        "merged": Merge(
            method="ties",
            base="base",
            sources=("a",),
            compat="mergekit",
            params={"density": 0.5},
            groups=(Group(modules=("attn",), layers=(0, 3), params={"weight": {"a": 0.25}}),),
        )
    },
    dtype="bfloat16",
    seed=3,
)


def test_the_yaml_is_what_a_person_would_write() -> None:
    assert to_yaml(READ) == WRITTEN


def test_every_key_is_read() -> None:
    assert from_yaml(WRITTEN) == READ


def test_short_forms_are_read() -> None:
    found = from_yaml("""
        models: {1: ./one, 2: ./two}
        merges: {m: {method: linear, sources: [1, 2], groups: [{modules: attn, weight: {1: 0.5, 2: 1}}]}}
    """)
    assert found.models == {"1": ModelRef(source="./one"), "2": ModelRef(source="./two")}
    assert found.merge.sources == ("1", "2")
    assert found.merge.groups == (Group(modules=("attn",), params={"weight": {"1": 0.5, "2": 1}}),)
    assert (found.seed, found.dtype, found.merge.base) == (0, None, None)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("seed: 3", "sed: 3", r"`recipe`: no key named `sed`\. Did you mean `seed`"),
        ("method: ties", "metod: ties", r"`merges\.merged`: no key named `metod`\. Did you mean `method`"),
        ("revision: main", "revsion: main", r"`models\.a`: no key named `revsion`"),
        ("    method: ties\n", "", r"`merges\.merged` needs `method`"),
        ("source: org/a, ", "", r"`models\.a` needs `source`"),
        ("modules: [attn], ", "", r"`merges\.merged\.groups\[0\]` needs `modules`"),
        ("[attn]", "[atn]", r"no module group named `atn`\. Did you mean `attn`"),
        ("[attn]", "3", r"`merges\.merged\.groups\[0\]\.modules` must be a list, found 3"),
        ("[0, 3]", "[3]", r"`merges\.merged\.groups\[0\]\.layers` must be \[first, last\], found \[3\]"),
        ("[0, 3]", "[0, 1, 2]", r"must be \[first, last\]"),
        ("[0, 3]", "0", r"must be \[first, last\], found 0"),
        ("[0, 3]", "[]", r"must be \[first, last\], found \[\]"),
        ("[0, 3]", "[0.5, 3]", r"must be \[first, last\]"),
        ("[0, 3]", "[3, 0]", r"layers are \[first, last\] counted from 0, found \[3, 0\]"),
        ("\n    - a\n", " a\n", r"`merges\.merged\.sources` must be a list, found 'a'"),
        ("    - a\n", "    - c\n", "no model named `c`"),
        ("base: base", "base: bas", r"no model named `bas`\. Did you mean `base`"),
        ("{density: 0.5}", "[density]", r"`merges\.merged\.params` must be a table"),
        (
            "{density: 0.5}",
            "{density: [[0.5]]}",
            r"`merges\.merged\.params\.density` must be one value, a list of anchors",
        ),
        ("{density: 0.5}", "{density: }", r"`merges\.merged\.params\.density` must be one value, a list"),
        ("{density: 0.5}", "{density: []}", r"`merges\.merged\.params\.density` must be one value, a list"),
        (
            "{density: 0.5}",
            "{density: [{filter: mlp}]}",
            r"`merges\.merged\.params\.density\[0\]` needs `value`",
        ),
        (
            "{density: 0.5}",
            "{density: [{filter: mlp, value: 1}, 0.5]}",
            r"`merges\.merged\.params\.density\[1\]` must be a table, found 0\.5",
        ),
        (
            "{a: 0.25}",
            "{a: much}",
            r"`merges\.merged\.groups\[0\]\.weight\.a` must be a number, found 'much'",
        ),
        ("seed: 3", "seed: x", "`seed` must be a whole number, found 'x'"),
        ("seed: 3", "untie: 1", "`untie` must be true or false, found 1"),
        ("seed: 3", "seed: 1.5", r"`seed` must be a whole number, found 1\.5"),
        ("dtype: bfloat16", "dtype: 16", "`dtype` must be a word, found 16"),
        ("dtype: bfloat16", "tokenizer: [a]", r"`tokenizer` must be a word, found \['a'\]"),
        ("method: ties", "method: 3", r"`merges\.merged\.method` must be a word, found 3"),
        ("{source: 'zoo:base'}", "[zoo]", r"`models\.base` must be a table, found \['zoo'\]"),
        ("source: org/a", "source: 3", r"`models\.a\.source` must be a word, found 3"),
    ],
)
def test_a_mistake_is_refused_by_its_place(old: str, new: str, message: str) -> None:
    assert old in WRITTEN
    with pytest.raises(RecipeError, match=message):
        from_yaml(WRITTEN.replace(old, new, 1))


@pytest.mark.parametrize("text", ["", "3", "[]", "word"])
def test_what_is_no_table_is_refused(text: str) -> None:
    with pytest.raises(RecipeError, match="`recipe` must be a table"):
        from_yaml(text)


@pytest.mark.parametrize("text", ["models: [", "a: b: c", "!!python/object:os.system {}", "a: \x00"])
def test_what_is_no_plain_yaml_is_refused(text: str) -> None:
    with pytest.raises(RecipeError, match="the recipe is not YAML"):
        from_yaml(text)


def test_the_text_is_plain_yaml() -> None:
    content = yaml.safe_load(to_yaml(READ))
    assert content["merges"]["merged"]["groups"][0] == {
        "layers": [0, 3],
        "modules": ["attn"],
        "weight": {"a": 0.25},
    }
