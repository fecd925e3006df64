"""Every mistake in a space file is told once, with its key, its line and what to write instead."""
# ruff: noqa: E501 - messages stand as users see them

from pathlib import Path

import pytest
import yaml

from evomerge import plugins
from evomerge.errors import SpaceError
from evomerge.space import Space, load_space, parse_space
from evomerge.space.load import measure_name
from evomerge.space.schema import Source
from evomerge.space.tables import Range

GOOD = """\
sources:
  base: models/base
  math: models/math
  lang: models/lang
merge:
  base: base
objectives:
  - task: gsm
"""
TABLE_KEYS = ", ".join(Space.model_fields)
METHODS = ", ".join(plugins.names("methods"))


def edited(old: str, new: str) -> str:
    assert GOOD.count(old) == 1
    return GOOD.replace(old, new)


def in_merge(*lines: str) -> str:
    return edited("  base: base\n", "".join(f"  {line}\n" for line in ("base: base", *lines)))


def mistakes(text: str) -> list[str]:
    with pytest.raises(SpaceError) as caught:
        parse_space(text, "s.yaml")
    return str(caught.value).splitlines()


def test_a_good_space_has_every_default() -> None:
    space = parse_space(GOOD, "some/folder/my space.yaml")
    assert space.name == "my-space"
    assert space.sources["math"].source == "models/math"
    assert (space.merged, space.merge.methods) == (("math", "lang"), ("task_arithmetic",))
    assert (space.budget, space.seed, space.sampler_choice.name) == (200, 0, "cma")


@pytest.mark.parametrize(
    ("file", "name"), [(".space.yaml", "space"), ("空间.yaml", "space"), ("-a.b.yml", "a.b")]
)
def test_any_file_name_gives_a_name_for_the_run(file: str, name: str) -> None:
    assert parse_space(GOOD, file).name == name


def test_two_objectives_are_searched_with_nsgaii() -> None:
    assert parse_space(GOOD + "  - task: mmlu\n").sampler_choice.name == "nsgaii"


def test_a_source_and_a_sampler_may_be_tables() -> None:
    text = (
        edited("models/math", "{source: me/math, revision: v2}") + "sampler: {name: tpe, options: {n: 3}}\n"
    )
    space = parse_space(text)
    assert (space.sources["math"].source, space.sources["math"].revision) == ("me/math", "v2")
    assert (space.sampler_choice.name, space.sampler_choice.options) == ("tpe", {"n": 3})


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("{run: ../one}", Source(run="../one")),
        ("{run: ../one, pick: best, objective: gsm}", Source(run="../one", pick="best", objective="gsm")),
        ("{run: ../one, pick: knee}", Source(run="../one", pick="knee")),
        ("{run: ../one, pick: 17, gram: g}", Source(run="../one", pick=17, gram="g")),
    ],
)
def test_a_source_may_be_a_trial_of_a_run(written: str, read: Source) -> None:
    space = parse_space(edited("models/math", written))
    assert space.sources["math"] == read
    assert parse_space(yaml.safe_dump(space.model_dump(mode="json", exclude_none=True))) == space


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("{revision: b}", "` needs either `source` (a model) or `run` (the folder of an earlier run), found neither"),
        ("{source: a, run: b}", "` needs either `source` (a model) or `run` (the folder of an earlier run), found both"),
        ("{source: a, pick: best}", "` has a `source`, and `pick` belongs to a `run`: leave it out"),
        ("{source: a, objective: gsm}", "` has a `source`, and `objective` belongs to a `run`: leave it out"),
        ("{source: a, pick: 1, objective: gsm}", "` has a `source`, and `pick` and `objective` belong to a `run`: leave them out"),
        ("{run: a, revision: b}", "` has a `run`, and `revision` belongs to a `source`: leave it out"),
        ("{run: a, adapts: base}", "` has a `run`, and `adapts` belongs to a `source`: leave it out"),
        ("{run: a, pick: knee, objective: b}", "` has an `objective`, which says in what `pick: best` is best: leave one out"),
        ("{run: a, pick: bset}", ".pick` must be `best` or `knee` or a whole number, found 'bset'"),
        ("{run: a, pick: '3'}", ".pick` must be `best` or `knee` or a whole number, found '3'"),
        ("{run: a, pick: -1}", ".pick` must be at least 0, found -1"),
        ("{run: a, pick: true}", ".pick` must be `best` or `knee` or a whole number, found true"),
        ("{run: 3}", ".run` must be text, found 3"),
    ],
)  # fmt: skip
def test_a_source_is_a_model_or_a_trial_of_a_run(written: str, message: str) -> None:
    assert mistakes(edited("models/math", written)) == [f"s.yaml:3: `sources.math{message}"]


def test_a_gene_may_be_a_range_a_list_or_a_value() -> None:
    genes = in_merge("genes:", "  weight: {low: 0, high: 2}", "  lambda: [1, 1.5]", "  normalize: true")
    assert parse_space(genes).merge.genes == {
        "weight": Range(low=0, high=2), "lambda": [1, 1.5], "normalize": True,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (GOOD + "budgett: 3\n", f"9: `budgett` is not a key here; did you mean `budget`? (known: {TABLE_KEYS})"),
        (GOOD + "zzz: 3\n", f"9: `zzz` is not a key here (known: {TABLE_KEYS})"),
        (edited("models/base", "{source: a, revison: b}"), "2: `sources.base.revison` is not a key here; did you mean `revision`? (known: source, run, pick, objective, revision, adapts, fisher, gram, influence)"),
        (in_merge("layer: 3"), "7: `merge.layer` is not a key here; did you mean `layers`? (known: base, template, sources, method, layers, modules, genes, compat)"),
        (in_merge("genes:", "  weight: {low: 0, high: 1, lgo: true}"), "8: `merge.genes.weight.lgo` is not a key here; did you mean `low`? (known: low, high, log)"),
        (GOOD + "    metrc: acc\n", "9: `objectives[0].metrc` is not a key here; did you mean `metric`? (known: task, metric, filter, name)"),
        (GOOD + "items: {serch: 9}\n", "9: `items.serch` is not a key here; did you mean `search`? (known: search, select, report)"),
        (GOOD + "sampler: {name: cma, option: {}}\n", "9: `sampler.option` is not a key here; did you mean `options`? (known: name, options)"),
        (GOOD + "constraints: [{task: t, max: 1, mn: 2}]\n", "9: `constraints[0].mn` is not a key here; did you mean `min`? (known: task, metric, filter, name, min, max)"),
    ],
    ids=lambda value: value.partition("`")[2].partition("`")[0] if value[0].isdigit() else "in",
)  # fmt: skip
def test_an_unknown_key_is_named_with_the_one_meant(text: str, message: str) -> None:
    assert mistakes(text) == [f"s.yaml:{message}"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("objectives: [{task: gsm}]\n", "1: `sources` is missing"),
        (GOOD.partition("objectives")[0], "1: `objectives` is missing"),
        (in_merge("genes:", "  weight: {low: 0}"), "8: `merge.genes.weight.high` is missing"),
        (GOOD + "  - metric: acc\n", "9: `objectives[1].task` is missing"),
        (GOOD + "sampler: {options: {}}\n", "9: `sampler.name` is missing"),
        (GOOD + "constraints: [{task: t}]\n", "9: `constraints[0]` needs `min`, `max` or both"),
        ("sources: {}\nobjectives: [{task: t}]\n", "1: `sources` must not be empty"),
        (edited("  - task: gsm\n", "  []\n"), "7: `objectives` must not be empty"),
    ],
)  # fmt: skip
def test_a_missing_key_is_named(text: str, message: str) -> None:
    assert mistakes(text) == [f"s.yaml:{message}"]


@pytest.mark.parametrize("typo", ["objectives:\n  - tsak: gsm\n", "objectives:\n  - taks: gsm\n"])
def test_a_misspelt_key_is_not_also_reported_as_missing(typo: str) -> None:
    (message,) = mistakes(GOOD.partition("objectives")[0] + typo)
    assert "did you mean `task`?" in message


def test_a_misspelt_end_of_a_range_is_one_mistake() -> None:
    assert mistakes(in_merge("genes:", "  weight: {low: 0, hgh: 1}")) == [
        "s.yaml:8: `merge.genes.weight.hgh` is not a key here; did you mean `high`? (known: low, high, log)"
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (edited("models/base", "3"), "2: `sources.base` must be text or a table of keys, found 3"),
        (edited("models/base", ""), "2: `sources.base` must be text or a table of keys, found nothing"),
        ("sources: [a, b]\nobjectives: [{task: t}]\n", "1: `sources` must be a table of keys, found a list"),
        (edited("  base: base\n", ""), "5: `merge` must be a table of keys, found nothing"),
        (in_merge("method: 3"), "7: `merge.method` must be text or a list, found 3"),
        (in_merge("method: []"), "7: `merge.method` must name at least one, and each once, found none"),
        (in_merge("sources: [math, math]"), "7: `merge.sources` must name at least one, and each once, found math, math"),
        (in_merge("layers: all"), "7: `merge.layers` must be a whole number, `each`, a list or {anchors: N}, found 'all'"),
        (in_merge("layers: 2.5"), "7: `merge.layers` must be a whole number, `each`, a list or {anchors: N}, found 2.5"),
        (in_merge("layers: {anchors: 1}"), "7: `merge.layers.anchors` must be at least 2, found 1"),
        (in_merge("layers: {anchor: 3}"), "7: `merge.layers.anchor` is not a key here; did you mean `anchors`? (known: anchors)"),
        (in_merge("layers: 0"), "7: `merge.layers` must be at least 1, found 0"),
        (in_merge("layers: [[0, 1], [2]]"), "7: `merge.layers` must list runs of layers [first, last] counted from 0, found [2]"),
        (in_merge("layers: [[3, 1]]"), "7: `merge.layers` must list runs of layers [first, last] counted from 0, found [3, 1]"),
        (in_merge("layers: [[0, a]]"), "7: `merge.layers[0][1]` must be a whole number, found 'a'"),
        (in_merge("modules: attn"), "7: `merge.modules` must be a list, found 'attn'"),
        (in_merge("modules: [attn, 3]"), "7: `merge.modules[1]` must be text or a list, found 3"),
        (in_merge("modules: [attn, mlp]"), "7: `merge.modules` must hold each of attn, mlp, rest, embed, head in exactly one group, found attn, mlp"),
        (in_merge("modules: [attn, mlp, [rest, embed], head]"), "7: `merge.modules` must keep embed and head apart from what lies in layers, found ['rest', 'embed']"),
        (in_merge("genes: [weight]"), "7: `merge.genes` must be a table of keys, found a list"),
        (in_merge("genes:", "  weight:"), "8: `merge.genes.weight` must be a range {low, high}, a list, a number, text or true or false, found nothing"),
        (in_merge("genes:", "  weight: [[1], 2]"), "8: `merge.genes.weight[0]` must be a number, text or true or false, found a list"),
        (in_merge("genes:", "  weight: {low: a, high: 1}"), "8: `merge.genes.weight.low` must be a number, found 'a'"),
        (in_merge("genes:", "  weight: {low: 2, high: 1}"), "8: `merge.genes.weight` must have `low` below `high`, found 2 and 1"),
        (in_merge("genes:", "  weight: {low: 0, high: 1, log: true}"), "8: `merge.genes.weight` must have `low` above 0 to be logarithmic, found 0"),
        (in_merge("genes:", "  weight: {low: 0, high: .inf}"), "8: `merge.genes.weight.high` must be a finite number, found inf"),
        (edited("  - task: gsm", "  - gsm"), "8: `objectives[0]` must be a table of keys, found 'gsm'"),
        (edited("  - task: gsm", "  task: gsm"), "7: `objectives` must be a list, found a table"),
        (GOOD + "budget: many\n", "9: `budget` must be a whole number, found 'many'"),
        (GOOD + "budget: true\n", "9: `budget` must be a whole number, found true"),
        (GOOD + "budget: 0\n", "9: `budget` must be at least 1, found 0"),
        (GOOD + "seed: -1\n", "9: `seed` must be at least 0, found -1"),
        (GOOD + "dtype: int8\n", "9: `dtype` must be `float32`, `bfloat16` or `float16`, found 'int8'"),
        (GOOD + "sampler: 3\n", "9: `sampler` must be text or a table of keys, found 3"),
        (GOOD + "sampler: {name: cma, options: {sigma: [1]}}\n", "9: `sampler.options.sigma` must be a number, text or true or false, found a list"),
        (GOOD + "tasks: 2020-01-01\n", "9: `tasks` must be text, found 2020-01-01"),
        (GOOD + "name: a b\n", "9: `name` must be letters, digits, `_`, `.` and `-`, the first no `.` or `-`, found 'a b'"),
        (edited("  math:", "  ma th:"), "3: `sources.ma th` must be letters, digits, `_`, `.` and `-`, the first no `.` or `-`, found 'ma th'"),
        (GOOD + "constraints: [{task: t, max: low}]\n", "9: `constraints[0].max` must be a number, found 'low'"),
        (GOOD + "constraints: [{task: t, min: 2, max: 1}]\n", "9: `constraints[0]` must have `min` at most `max`, found 2 and 1"),
    ],
    ids=lambda value: value.split("`")[1] if value[0].isdigit() else "in",
)  # fmt: skip
def test_a_value_of_the_wrong_kind_is_one_sentence(text: str, message: str) -> None:
    assert mistakes(text) == [f"s.yaml:{message}"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (edited("  base: base\n", "  base: base\n  template: langg\n"), "7: `merge.template` is unknown: no source named `langg`. Did you mean `lang`? Known: base, lang, math"),
        (edited("  base: base\n", "  base: bsae\n"), "6: `merge.base` is unknown: no source named `bsae`. Did you mean `base`? Known: base, lang, math"),
        (in_merge("sources: [math, lagn]"), "7: `merge.sources[1]` is unknown: no source named `lagn`. Did you mean `lang`? Known: base, lang, math"),
        (in_merge("method: tie"), f"7: `merge.method` is unknown: no merge method named `tie`. Did you mean `ties`? Known: {METHODS}"),
        (in_merge("method: [linear, tie]", "genes: {density: 0.5}"), f"7: `merge.method[1]` is unknown: no merge method named `tie`. Did you mean `ties`? Known: {METHODS}"),
        (in_merge("genes: {wieght: 1}"), "7: `merge.genes.wieght` is unknown: no parameter named `wieght`. Did you mean `weight`? Known: lambda, normalize, weight"),
        (in_merge("compat: mergekitt"), "7: `merge.compat` is unknown: no compat of `task_arithmetic` named `mergekitt`. Did you mean `mergekit`? Known: evomerge, fusion_bench, mergekit, mergelm, official, peft, regmean_repo"),
    ],
    ids=lambda value: value.split("`")[1] if value[0].isdigit() else "in",
)  # fmt: skip
def test_a_name_that_leads_nowhere_is_told_with_the_known_ones(text: str, message: str) -> None:
    assert mistakes(text) == [f"s.yaml:{message}"]


@pytest.mark.parametrize("method", ["task_arithmetic", "ties", "dare_ties", "dare_linear", "slerp"])
def test_a_method_that_merges_into_a_base_asks_for_one(method: str) -> None:
    text = edited("  base: base\n", f"  method: {method}\n")
    assert mistakes(text) == [
        f"s.yaml:5: `merge` needs `base`, which `{method}` merges the sources into: "
        "name one of base, math, lang"
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("genes: {weight: {low: 1e-3, high: 1}}", "`merge.genes.weight.low` must be a number, found '1e-3' (to YAML that is text; write 0.001)"),
        ("genes: {weight: {low: one, high: 1}}", "`merge.genes.weight.low` must be a number, found 'one'"),
    ],
)  # fmt: skip
def test_a_number_that_yaml_takes_for_text_is_told_how_to_write_it(line: str, message: str) -> None:
    assert mistakes(in_merge(line)) == [f"s.yaml:7: {message}"]


@pytest.mark.parametrize("density", ["2", "{low: 0.5, high: 3}", "[0.5, 3]"])
def test_a_density_above_one_would_search_where_nothing_changes(density: str) -> None:
    (message,) = mistakes(in_merge("method: ties", f"genes: {{density: {density}}}"))
    assert message.startswith("s.yaml:8: `merge.genes.density` must be at most 1, found ")


def test_a_space_of_only_a_base_has_one_mistake() -> None:
    text = "sources: {base: zoo:base}\nmerge: {base: base}\nobjectives: [{task: t}]\n"
    assert mistakes(text) == [
        "s.yaml:1: `sources` leaves nothing to merge: name at least one source besides the base"
    ]


def test_a_recipe_of_mergekit_is_told_from_a_space() -> None:
    text = "models:\n  - model: a\nmerge_method: ties\n"
    (message,) = mistakes(text)
    assert message.startswith("s.yaml:3: `merge_method`: this is a recipe of mergekit")


def test_slerp_takes_one_source_besides_the_base() -> None:
    (message,) = mistakes(in_merge("method: slerp"))
    assert message.startswith("s.yaml:5: `merge.sources` must name exactly 1 besides the base")
    assert message.endswith("found 2 (math, lang)")
    assert parse_space(in_merge("method: slerp", "sources: [math]")).merged == ("math",)


def test_a_base_alone_leaves_nothing_to_merge() -> None:
    text = "sources: {base: b}\nmerge: {base: base, method: linear}\nobjectives: [{task: t}]\n"
    assert (
        mistakes(text)[0]
        == "s.yaml:1: `sources` leaves nothing to merge: name at least one source besides the base"
    )


@pytest.mark.parametrize(
    ("gene", "message"),
    [
        ("weight: high", "must be a number, a list of numbers or {low, high}, found high"),
        ("weight: true", "must be a number, a list of numbers or {low, high}, found true"),
        ("weight: .nan", "must be a number, a list of numbers or {low, high}, found nan"),
        ("weight: []", "must not be empty: list what to choose from"),
        ("weight: [1, 1.0]", "must list each option once, found 1, 1.0"),
        ("normalize: maybe", "must be among true, false, found maybe"),
        ("normalize: 1", "must be among true, false, found 1"),
        ("normalize: []", "must not be empty: list what to choose from"),
        ("normalize: {low: 0, high: 1}", "has no range: list some of true, false, or give one"),
        ("normalize: [true, true]", "must list each option once, found true, true"),
    ],
)
def test_a_gene_that_does_not_suit_its_parameter_is_refused(gene: str, message: str) -> None:
    name = gene.partition(":")[0]
    assert mistakes(in_merge("genes:", f"  {gene}")) == [f"s.yaml:8: `merge.genes.{name}` {message}"]


@pytest.mark.parametrize("density", ["-0.1", "[0.5, -0.1]", "{low: -0.1, high: 1}"])
def test_a_gene_below_what_its_parameter_can_be_is_refused(density: str) -> None:
    text = in_merge("method: [linear, ties]", "genes:", f"  density: {density}")
    assert mistakes(text) == ["s.yaml:9: `merge.genes.density` must be at least 0, found -0.1"]


def test_several_mistakes_are_all_told_once_in_the_order_of_the_file() -> None:
    text = in_merge("layer: 3", "genes:", "  weight: {low: 0, hgh: 1}").replace("models/math", "7")
    found = mistakes(text + "seed: -1\nbudgett: 3\n")
    keys = [message.split("`")[1] for message in found]
    assert keys == ["sources.math", "merge.layer", "merge.genes.weight.hgh", "seed", "budgett"]


def test_several_contradictions_are_all_told() -> None:
    found = mistakes(in_merge("method: [ties, tie]", "sources: [math, lagn]", "compat: nobody"))
    assert [message.split("`")[1] for message in found] == [
        "merge.method[1]",
        "merge.sources[1]",
        "merge.compat",
    ]


def test_a_message_never_shows_how_it_was_checked() -> None:
    for gene in ("{low: 0}", "{lo: 0, high: 1}", "{low: 2, high: 1}", "[[1]]", ""):
        text = "\n".join(mistakes(in_merge("genes:", f"  weight: {gene}")))
        assert not any(word in text for word in ("union", "function-after", "input should", "dictionary"))


def test_measures_of_one_name_are_told_apart() -> None:
    assert mistakes(GOOD + "  - task: gsm\n") == [
        "s.yaml:9: `objectives[1]` is named `gsm` like objectives[0]; give it a `name` of its own"
    ]
    space = parse_space(
        GOOD + "    metric: acc\n  - {task: gsm, metric: acc_norm}\n  - {task: gsm, name: mine}\n"
    )
    assert [measure_name(space, "objectives", i) for i in range(3)] == ["gsm_acc", "gsm_acc_norm", "mine"]


def test_a_constraint_on_an_objectives_task_needs_its_own_name() -> None:
    assert "give it a `name` of its own" in mistakes(GOOD + "constraints: [{task: gsm, min: 0.1}]\n")[0]


def test_a_file_is_loaded_under_its_name(tmp_path: Path) -> None:
    file = tmp_path / "two.yaml"
    file.write_text(GOOD, encoding="utf-8")
    assert load_space(file).name == load_space(str(file)).name == "two"


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "none.yaml", tmp_path):
        with pytest.raises(SpaceError, match=f"^no space file at {path}$"):
            load_space(path)


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "space.yaml"
    file.write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(SpaceError, match=f"^{file} cannot be read as text: "):
        load_space(file)


def test_changes_take_the_place_of_keys_and_are_checked_alike(tmp_path: Path) -> None:
    file = tmp_path / "two.yaml"
    file.write_text(GOOD, encoding="utf-8")
    assert load_space(file, {"budget": 7, "seed": 3}).budget == 7
    with pytest.raises(SpaceError, match=r"^`budget` as given must be at least 1, found 0$"):
        load_space(file, {"budget": 0})


def test_items_are_counted_or_named_by_a_file() -> None:
    items = parse_space(GOOD + "items: {search: found.txt, select: 0}\n").items
    assert (items.search, items.select, items.report) == ("found.txt", 0, None)


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ("{search: 0}", "`items.search` must be at least 1, found 0"),
        ("{select: -1}", "`items.select` must be at least 0, found -1"),
        ("{report: [a]}", "`items.report` must be a whole number or text, found a list"),
        ("{report: 0.5}", "`items.report` must be a whole number or text, found 0.5"),
    ],
)
def test_other_items_are_refused(items: str, message: str) -> None:
    assert mistakes(GOOD + f"items: {items}\n") == [f"s.yaml:9: {message}"]


def test_held_out_measures_have_names_of_their_own() -> None:
    space = parse_space(GOOD + "held_out: [{task: arc}, {task: gsm, metric: other}]\n")
    assert [measure_name(space, "held_out", i) for i in range(2)] == ["arc", "gsm_other"]
    assert measure_name(space, "objectives", 0) == "gsm"
    assert mistakes(GOOD + "held_out: [{task: arc, name: gsm}]\n") == [
        "s.yaml:9: `held_out[0]` is named `gsm` like objectives[0]; give it a `name` of its own"
    ]
    assert mistakes(GOOD + "held_out: [{task: arc}, {task: arc}]\n") == [
        "s.yaml:9: `held_out[1]` is named `arc` like held_out[0]; give it a `name` of its own"
    ]


@pytest.mark.parametrize(
    ("more", "kind"), [("", "objectives"), ("constraints: [{task: gsm, name: x, min: 0}]\n", "constraints")]
)
def test_what_is_searched_by_cannot_be_held_out(more: str, kind: str) -> None:
    text = GOOD if kind == "objectives" else GOOD.replace("task: gsm", "task: arc")
    line = 10 if more else 9
    assert mistakes(text + more + "held_out: [{task: gsm, name: other}]\n") == [
        f"s.yaml:{line}: `held_out[0]` is what {kind}[0] measures, so nothing is held out; leave one out"
    ]


def test_held_out_measures_have_no_bounds() -> None:
    [said] = mistakes(GOOD + "held_out: [{task: arc, min: 0}]\n")
    assert "`held_out[0].min` is not a key here" in said
