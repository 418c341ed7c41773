"""Recipe files extend one another: a file holds over those that it extends, and of these the later over the earlier."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.command import parse_command
from pipeline.errors import UserError
from pipeline.recipe import Recipe, flatten
from pipeline.recipe_file import read_given, read_recipe

FIELDS = ("epochs", "batch_size", "size", "seed")


@st.composite
def trees(draw):
    """Files, each of which extends some of those before it by any of their fields' values."""
    files = []
    for number in range(draw(st.integers(1, 4))):
        extended = draw(st.lists(st.integers(0, number - 1), max_size=2)) if number else []
        values = draw(st.dictionaries(st.sampled_from(FIELDS), st.integers(32, 99)))
        files.append((extended, values))
    return files


@given(files=trees())
def test_a_file_holds_over_those_that_it_extends_and_of_these_the_later_over_the_earlier(files, tmp_path_factory):
    """So a file stands for itself after those that it extends, each of which stands for the same."""
    folder = tmp_path_factory.mktemp("tree")
    merged: list[dict] = []
    for number, (extended, values) in enumerate(files):
        path = folder / f"below-{number}" / "own.yaml"
        path.parent.mkdir()
        names = [f"../below-{other}/own.yaml" for other in extended]
        lines = [f"extends: {names[0] if len(names) == 1 else names}"] if names else []
        path.write_text("\n".join([*lines, *(f"{name}: {value}" for name, value in values.items())]))
        below: dict = {}
        for other in extended:
            below |= merged[other]
        merged.append(below | values)
        assert flatten(read_recipe(path)) == flatten(Recipe()) | merged[-1]
        assert {name: given.value for name, given in read_given(path).items()} == merged[-1]


def test_what_a_file_overrides_of_those_that_it_extends_is_said(tmp_path, capsys):
    (tmp_path / "base.yaml").write_text("epochs: 7\nsize: 96\n")
    (tmp_path / "own.yaml").write_text("extends: base.yaml\nepochs: 8\n")
    parse_command(["--config", str(tmp_path / "own.yaml"), "--size", "64"])
    assert capsys.readouterr().out.splitlines() == [
        f"epochs       8 ({tmp_path / 'own.yaml'}) overrides 7 ({tmp_path / 'base.yaml'})",
        f"size         64 (--size) overrides 96 ({tmp_path / 'base.yaml'})",
    ]


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("extends: own.yaml", "own.yaml extends .*own.yaml: that goes round in a circle"),
        ("extends: [sound.yaml, other.yaml]", "own.yaml extends .*other.yaml extends .*own.yaml: that goes round"),
        ("extends: nowhere.yaml", "own.yaml: it extends nowhere.yaml, and .*nowhere.yaml is not there"),
        ("extends: 3", "own.yaml: extends takes the name of a recipe file"),
        ("extends: [sound.yaml, {}]", "own.yaml: extends takes the name of a recipe file"),
        ("extends: spoilt.yaml", "spoilt.yaml: epochs 0"),
        ("extend: sound.yaml", "own.yaml: 'extend' is no field of a recipe; did you mean extends"),
        (f"extends: [{', '.join(['sound.yaml'] * 101)}]", "own.yaml: more than 100 files"),
    ],
)
def test_files_that_cannot_be_extended_are_refused_in_one_line(tmp_path, text, named):
    (tmp_path / "own.yaml").write_text(text)
    (tmp_path / "sound.yaml").write_text("epochs: 3")
    (tmp_path / "spoilt.yaml").write_text("epochs: 0")
    (tmp_path / "other.yaml").write_text("extends: ./own.yaml")
    with pytest.raises(UserError, match=named) as caught:
        read_recipe(tmp_path / "own.yaml")
    assert "\n" not in str(caught.value)
