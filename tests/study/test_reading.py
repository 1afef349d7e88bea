"""The study file: lines, overrides, paths, presets, and text of any kind."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from contextlib import suppress
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nst_batch.errors import StudyError
from nst_batch.study.model import Grid, Study, json_schema
from nst_batch.study.reading import init_text, load_study, preset_names
from nst_batch.study.yaml_values import NotYamlError, read_yaml

PICTURES = "content: [/c.jpg]\nstyle: [/s.jpg]\n"
PRESETS = {
    "content_reconstruction": 5,
    "demo": 7,
    "full_grid": 195,
    "layers_and_ratios": 91,
    "gatys2016": 2,
    "style_reconstruction": 5,
    "week7_content_layers": 7,
}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory of every test."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def load(text: str | bytes, **options: Any) -> Study:
    Path("study.yaml").write_bytes(text if isinstance(text, bytes) else text.encode(errors="surrogatepass"))
    return load_study("study.yaml", **options)


def problems(text: str | bytes, **options: Any) -> tuple[str, ...]:
    with pytest.raises(StudyError) as caught:
        load(text, **options)
    return caught.value.problems


def test_the_design_documents_study(folder: Path) -> None:
    study = load("""
name: week7-content-layers
content: [photos/]
style: [paintings/*.jpg]
pairs: cross
image: {size: 300, fit: crop}
network: {arch: vgg16, weights: imagenet, pooling: max, normalization: auto}
grid:
  content_layers: [block1_conv2, block2_conv2]
  style_layers: [[block1_conv1, block2_conv1]]
  alpha: [0.5]
  seed: [0]
optimizer: {name: lbfgs, steps: 300}
""")
    grid = Grid(
        content_layers=(("block1_conv2",), ("block2_conv2",)), style_layers=(("block1_conv1", "block2_conv1"),)
    )
    content, style = (f"{folder}/photos",), (f"{folder}/paintings/*.jpg",)
    assert study == Study(name="week7-content-layers", content=content, style=style, grid=grid)


def test_everything_that_is_wrong_is_reported_with_its_line() -> None:
    text = """\
content: [/c.jpg]
style: [/s.jpg]

image: {size: big}
grid:
  alpha: [0.5, -1]
  alpha:
    - 1
    - x
optimizer:
  nme: lbfgs
"""
    assert problems(text, size=7, overrides=["grid.beta=[1, y]", "grid.alhpa=1", "steps"], steps=0) == (
        "study.yaml:7: grid.alpha: given twice, first on line 6",
        "study.yaml:9: grid.alpha[1]: expected a number of at least 0, found 'x'",
        "study.yaml:11: optimizer.nme: unknown key; did you mean 'name'?",
        "--size: expected an integer from 16 to 16384, found 7",
        "--steps: expected an integer from 1 to 100000, found 0",
        "--set grid.beta[1]: expected a number of at least 0, found 'y'",
        "--set grid.alhpa: unknown key; did you mean 'alpha'?",
        "--set steps: expected KEY=VALUE, as in grid.alpha=[0.5,1]",
    )


def test_a_wrong_type_names_the_line() -> None:
    text = PICTURES + "\nimage: {size: big}\n"
    assert problems(text) == ("study.yaml:4: image.size: expected an integer from 16 to 16384, found 'big'",)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "study.yaml: the file is empty; `nst-batch init` writes one to start from"),
        ("# only a comment\n", "study.yaml: the file is empty; `nst-batch init` writes one to start from"),
        ("- a\n- b\n", "study.yaml: expected keys such as content, style, grid, found a list"),
        ("hello", "study.yaml: expected keys such as content, style, grid, found 'hello'"),
        (b"name: x\ncontent: \xff\n", "study.yaml:2: not UTF-8: found byte 0xff"),
        ("name: x\nimage: {size: 3\n", "study.yaml:3: not valid YAML: while parsing a flow mapping expected ',' or "
         "'}', but got '<stream end>'"),
        ("name: a: b\n", "study.yaml:1: not valid YAML: mapping values are not allowed here"),
        ("a: 1\n---\nb: 2\n", "study.yaml:2: not valid YAML: expected a single document in the stream but found "
         "another document"),
        ("name: x\n\x07", "study.yaml:2: not valid YAML: the character U+0007 is not allowed"),
        ('name: "\\UFFFFFFFF"', "study.yaml:1: not valid YAML: an escape in quotes names no character"),
        ("name: x\nimage: !!python/object/apply:os.system [id]",
         "study.yaml:2: the tag 'tag:yaml.org,2002:python/object/apply:os.system' is not allowed"),
        ("name: !mine x", "study.yaml:1: the tag '!mine' is not allowed"),
        ("? [a, b]\n: 1\n", "study.yaml:1: a key must be a word, not a list or keys"),
        ("a: " + "[" * 5000, "study.yaml:1: nested more than 16 levels deep"),
        ("a: " + "[" * 30 + "]" * 30, "study.yaml:1: nested more than 16 levels deep"),
        ("a: &a [*a]", "study.yaml:1: nested more than 16 levels deep"),
        ("x" * (1 << 20) + "yz", "study.yaml:1: expected at most 1 MiB; use a .csv or .parquet list"),
    ],
)  # fmt: skip
def test_what_cannot_be_read(text: str | bytes, problem: str) -> None:
    assert problems(text) == (problem,)


def test_a_few_lines_that_mean_a_billion_values_are_refused() -> None:
    text = "a0: &a0 [1,1,1,1,1,1,1,1,1,1]\n"
    text += "".join(f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 9))
    (problem,) = problems(text)
    assert re.fullmatch(r"study\.yaml:\d: more than 100000 values; use a \.csv or \.parquet list", problem)


def test_files_that_are_not_there() -> None:
    presets = (
        "content_reconstruction, demo, full_grid, gatys2016, layers_and_ratios, style_reconstruction, "
        "week7_content_layers"
    )
    for source, problem in {
        "missing.yaml": "missing.yaml: no such file",
        "gatys": f"gatys: no such file or preset; did you mean 'gatys2016'? Presets: {presets}",
        "zzz": f"zzz: no such file or preset; presets: {presets}",
        ".": ".: expected a study file, found a folder",
        "x" * 5000: f"{'x' * 5000}: cannot be read: File name too long",
        "a\0b": f"a\0b: no such file or preset; presets: {presets}",
    }.items():
        with pytest.raises(StudyError) as caught:
            load_study(source)
        assert caught.value.problems == (problem,)
    with pytest.raises(
        StudyError, match="week7-content-layers: no such preset; did you mean 'week7_content_layers'"
    ):
        init_text("week7-content-layers")


def test_a_file_comes_before_the_preset_of_its_name_and_a_folder_does_not(folder: Path) -> None:
    (folder / "demo").mkdir()
    assert load_study("demo", content=["c"], style=["s"]).num_configurations == 7
    (folder / "demo").rmdir()
    (folder / "demo").write_text(PICTURES)
    assert load_study("demo").num_configurations == 1


def test_numbers_and_words_as_people_write_them() -> None:
    study = load(PICTURES + "grid: {alpha: [1e-3, 5, .5, 1.E+2], seed: 010}\noptimizer: {pyramid: off}\n")
    assert study.grid.alpha == (1e-3, 5.0, 0.5, 100.0)
    assert study.grid.seed == (10,)
    assert study.optimizer.pyramid == "off"
    assert load("name: 2024-01-01\n" + PICTURES).name == "2024-01-01"
    assert load("\ufeff" + PICTURES + "image:\n").name == "study"
    assert problems(PICTURES + "grid: {alpha: '1'}") == (
        "study.yaml:3: grid.alpha: expected a number of at least 0, found '1'",
    )
    for value in (".nan", ".inf", "-.inf", "1e999", "yes", "true", "null", "0x" + "F" * 5000, "9" * 5000):
        assert len(problems(PICTURES + f"grid: {{alpha: {value}}}")) == 1, value


def test_paths_start_from_the_file_or_from_the_working_directory(folder: Path) -> None:
    (folder / "deep [1]").mkdir()
    path = folder / "deep [1]" / "study.yaml"
    path.write_text("""
content: [a.jpg, 'https://x.org/*.jpg', /b.jpg, "s3://bucket/c", '*.png', ' ']
style: s
network: {weights: w.pth}
""")
    relative = str(path.relative_to(folder))
    with pytest.raises(StudyError) as caught:
        load_study(relative)
    assert caught.value.problems == (f"{relative}:2: content[5]: expected text, found ' '",)
    path.write_text(path.read_text().replace(", ' '", ""))
    study = load_study(relative)
    here = str(path.parent)
    assert study.content == (
        f"{here}/a.jpg", "https://x.org/*.jpg", "/b.jpg", "s3://bucket/c", f"{folder}/deep [[]1]/*.png"
    )  # fmt: skip
    assert study.style == (f"{here}/s",)
    assert study.network.weights == f"{here}/w.pth"
    study = load_study(relative, content=["x/*.jpg"], weights="random:3", overrides=["style=[~/y, ~nobody-here]"])
    assert study.content == (f"{folder}/x/*.jpg",)
    assert study.style == (str(Path.home() / "y"), f"{folder}/~nobody-here")
    assert study.network.weights == "random:3"
    pairs = load_study(relative, overrides=["content=[]", "style=[]", "pairs=p.csv", "network.weights=v.pth"])
    assert (pairs.pairs, pairs.network.weights) == (f"{folder}/p.csv", f"{folder}/v.pth")


def test_overrides_win_over_the_file_and_the_last_one_over_the_others() -> None:
    text = PICTURES + "image: {size: 100, fit: keep}\noptimizer: oops\n"
    options: dict[str, Any] = {"size": 200, "steps": 5}
    study = load(text, **options, overrides=["grid.alpha=1", "grid.alpha=[2, 3]", "image={size: 400}"])
    assert study.grid.alpha == (2.0, 3.0)
    assert (study.image.size, study.image.fit, study.optimizer.steps) == (400, "keep", 5)
    assert load(PICTURES + "image: {size: big}", size=64).image.size == 64


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        ("grid.alpha", "--set grid.alpha: expected KEY=VALUE, as in grid.alpha=[0.5,1]"),
        ("=3", "--set =3: expected KEY=VALUE, as in grid.alpha=[0.5,1]"),
        ("grid..alpha=3", "--set grid..alpha=3: expected KEY=VALUE, as in grid.alpha=[0.5,1]"),
        ("grid.alpha=", "--set grid.alpha: expected a number of at least 0, found nothing"),
        ("alpha=1", "--set alpha: unknown key; did you mean 'grid.alpha'?"),
        ("grid.alpha.x=1", "--set grid.alpha: expected a number of at least 0, found keys"),
        ("image=3", "--set image: expected keys such as size, fit, found 3"),
        ("image={size: 64, size: 65}", "--set image.size: given twice, first on line 1"),
        ("grid.alpha=[1", "--set grid.alpha: not valid YAML: while parsing a flow sequence expected ',' or ']', "
         "but got '<stream end>'"),
        ("loss=!x sum", "--set loss: the tag '!x' is not allowed"),
    ],
)  # fmt: skip
def test_overrides_that_are_wrong(override: str, problem: str) -> None:
    assert problems(PICTURES + "grid: {alpha: [1]}", overrides=[override]) == (problem,)


def test_a_problem_in_an_override_is_not_blamed_on_the_line_it_replaced() -> None:
    (problem,) = problems(PICTURES + "grid: {alpha: [1, x]}", overrides=["grid.alpha=[1, y]"])
    assert problem == "--set grid.alpha[1]: expected a number of at least 0, found 'y'"


@pytest.mark.parametrize("preset", PRESETS)
def test_presets(preset: str) -> None:
    text = init_text(preset)
    assert text.startswith("# ")
    study = load_study(preset, content=["c.jpg"], style=["s.jpg"])
    assert study.name == preset.replace("_", "-")
    assert study.num_configurations == PRESETS[preset]
    with pytest.raises(StudyError) as caught:
        load_study(preset)
    sides = [side for side in ("content", "style") if f"{side}: [] " in text]
    wanted = (
        rf"preset {preset}(:\d+)?: (\w+): no \w+ pictures, and the \w+ loss needs them; give --(\w+), or name .*"
    )
    found = [re.fullmatch(wanted, problem) for problem in caught.value.problems]
    assert [match and match[2] for match in found] == [match and match[3] for match in found] == sides


def test_the_presets_are_the_designs() -> None:
    assert preset_names() == tuple(sorted(PRESETS))
    pictures: dict[str, Any] = {"content": ["c"], "style": ["s"]}
    assert load_study("gatys2016", **pictures).grid.alpha == (1e-3, 1e-4)
    assert load_study("gatys2016", **pictures).grid.beta == (1.0,)
    assert load_study("demo", **pictures).grid == load_study("week7_content_layers", **pictures).grid
    assert load_study("demo", **pictures).network.weights == "random:0"
    cumulative = load_study("style_reconstruction", style=["s"]).grid.style_layers
    assert [len(entry) for entry in cumulative] == [1, 2, 3, 4, 5]
    assert load_study("full_grid", **pictures).grid.style_layers == cumulative
    assert load_study("content_reconstruction", content=["c"]).grid.style_layers == ((),)


def test_the_file_that_init_writes_names_every_key_with_its_default() -> None:
    text = init_text()
    study = load(text)
    assert study.content
    assert study.style
    assert study == Study(name="study", content=study.content, style=study.style)
    written = yaml.safe_load(text)
    for each in fields(Study):
        section = getattr(study, each.name)
        if is_dataclass(section):
            assert list(written[each.name]) == [key.name for key in fields(section)]
    assert list(written) == [each.name for each in fields(Study)]


def test_the_schema_accepts_what_is_shipped_and_tells_editors_what_is_wrong() -> None:
    schema = json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    check = jsonschema.Draft202012Validator(schema)
    for text in (init_text(), *(init_text(name) for name in preset_names())):
        check.validate(read_yaml(text).value)
    assert check.is_valid({"network": {"pooling": "avg"}, "grid": {"alpha": 1, "content_layers": "conv4_2"}})
    for wrong in (
        {"optimizer": {"nme": "lbfgs"}},
        {"grid": {"alpha": [-1]}},
        {"image": {"size": 7}},
        {"image": {"fit": "crap"}},
        {"grid": {"seed": "x"}},
    ):
        assert not check.is_valid(wrong), wrong
    assert "half their size" in schema["$defs"]["Optimizer"]["properties"]["pyramid"]["description"]


def test_average_pooling_has_a_short_spelling() -> None:
    assert load(PICTURES + "network: {pooling: avg}").network.pooling == "average"
    assert problems(PICTURES + "network: {pooling: mean}") == (
        "study.yaml:3: network.pooling: expected max, average or avg, found 'mean'",
    )


lines = st.sampled_from(
    [*(line + "\n" for line in init_text().splitlines() if ":" in line), "  - &a [*a]\n", "? x\n"]
)
anything = st.text(max_size=30) | st.text("[]{}:,-&*!?|>'\"# \n\tae19.~\\U", max_size=30)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(pieces=st.lists(lines | anything, max_size=12), override=anything)
def test_any_text_is_a_study_or_a_study_error(pieces: list[str], override: str) -> None:
    for attempt in (dict[str, Any](), {"overrides": [override, f"grid={override}", f"content={override}"]}):
        with suppress(StudyError):
            load("".join(pieces), **attempt)
    with pytest.raises(StudyError):
        load_study(override + "?")


@settings(max_examples=200, deadline=None)
@given(anything)
def test_any_yaml_is_plain_values_or_refused(text: str) -> None:
    with suppress(NotYamlError):
        json.dumps(read_yaml(text).value)


def test_reading_a_study_loads_no_heavy_module() -> None:
    heavy = "{'torch', 'ray', 'PIL', 'pyarrow', 'numpy'}"
    code = f"import sys, nst_batch.study.reading; print({heavy} & set(sys.modules))"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"
    )


def test_a_mistake_in_an_option_is_not_blamed_on_the_file_that_it_replaces(tmp_path: Path) -> None:
    file = tmp_path / "study.yaml"
    file.write_text("content: [a, b]\nstyle: [c]\n")
    with pytest.raises(StudyError) as caught:
        load_study(str(file), content=["a.jpg", ""])
    assert caught.value.problems == ("--content: expected text, found ''",)
