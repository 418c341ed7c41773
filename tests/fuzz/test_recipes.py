"""Whatever stands in a recipe, in a flag or in a file that a flag names, it is taken as it stands there or refused in a
line that names it."""

import io
import json
import math
import shutil
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import numpy as np
import torch
import yaml

from models import build_network
from pipeline.command import parse_command
from pipeline.data.loader import parse_chain
from pipeline.data.split import split_by_file
from pipeline.flip_indices import read_flip_indices
from pipeline.inference.tta import parse_views, read_views
from pipeline.networks import make_network, read_start
from pipeline.recipe import NetworkOptions, PhotoOptions, Recipe, flatten, to_yaml
from pipeline.recipe_file import read_recipe
from tests.fuzz.campaign import NUM_CASES, campaign, check_line, one_of, tried
from tests.fuzz.conftest import PARTNERS, TINY
from tests.fuzz.damage import no_file, remove, same, spoil_file, spoil_value
from tests.scripts import ROOT, call, quick_pictures

RECIPES = sorted((ROOT / "configs").glob("*.yaml"))
NUMBERS = [
    "nan",
    "inf",
    "-inf",
    "1e400",
    "-0",
    "0",
    "-1",
    "1e-400",
    "1_0",
    "0x10",
    "1e308",
    "9" * 30,
    "9" * 5000,
    "1.5",
]
TEXTS = ["", " ", "x" * 5000, "..", "/", "~", "%s%n", "-", "--", "\udcff", "\x1b[2J", "１", "null", "[]", "{}"]
JSONS = [
    "[" * 50_000,
    '{"a":' * 20_000,
    "[NaN]",
    "[1e999]",
    "[[]]",
    "[{}]",
    '[{"x": 1}]',
    '[[{"AffineAugmenter": null}]]',
]
FLAGS = sorted(f"--{name.replace('_', '-')}" for name in flatten(read_recipe(RECIPES[0])))
OF_JSON = ("--augment", "--stages", "--views")
MAY_BE_INFINITE = ("clip", "checkpoint_minutes")  # never


def recipe_file(rng):
    """The text of a recipe: one of the project's, or one with every field."""
    recipe = one_of(rng, RECIPES)
    return recipe.read_bytes() if rng.random() < 0.5 else to_yaml(read_recipe(recipe)).encode()


def test_a_recipe_is_taken_as_it_stands_there_or_refused(tmp_path):
    path = tmp_path / "recipe.yaml"

    def check(rng):
        remove(path)
        path.write_bytes(recipe_file(rng))
        spoil_file(path, rng)
        return what_becomes_of(path)

    campaign("bytes of a recipe", check)


def test_a_recipe_with_other_values_is_taken_as_it_stands_there_or_refused(tmp_path):
    path = tmp_path / "recipe.yaml"

    def check(rng):
        content = spoil_value(yaml.safe_load(recipe_file(rng)), rng)
        path.write_text(yaml.dump(plain(content)), encoding="utf-8", errors="surrogatepass")
        return what_becomes_of(path)

    campaign("values of a recipe", check, cases=range(2 * NUM_CASES))


def plain(value):
    """Without tensors, and without the order of keys."""
    if isinstance(value, torch.Tensor):
        return value.tolist()
    if isinstance(value, dict):
        return {key: plain(one) for key, one in value.items()}
    return [plain(one) for one in value] if isinstance(value, list) else value


def what_becomes_of(path):
    def read():
        recipe = read_recipe(path)
        parse_chain(recipe)
        parse_views(recipe.prediction.views, size=recipe.photos.size, mirroring=True, source="views")
        return recipe

    outcome = tried(read)
    if outcome.refused:
        check_line(outcome.refused, path, "augment: ", "views: ")
        return "refused"
    check_recipe(outcome.result, path.with_name("again.yaml"))
    content = yaml.safe_load(path.read_bytes().decode()) or {}
    found = flatten(outcome.result)
    for name, value in content.items():
        assert name == "extends" or alike(found[name], value), f"{name}: {value!r} became {found[name]!r}"
    return "taken"


def alike(found, value):
    """Whether a value stands for what a field of the recipe has become of it."""
    if isinstance(value, list):
        return isinstance(found, list | tuple) and len(found) == len(value) and all(map(alike, found, value))
    if isinstance(value, dict):
        return (
            isinstance(found, dict) and found.keys() == value.keys() and all(alike(found[k], value[k]) for k in value)
        )
    if isinstance(found, bool) and isinstance(value, str):
        return found == (value.lower() in ("true", "yes", "on", "1", "t", "y"))
    if isinstance(found, bool) or isinstance(value, bool):
        return str(found).lower() == str(value).lower() or (found in (0, 1) and found == value)
    return found == value or str(found) == str(value) or float(found) == float(value) or Path(found) == Path(value)


def check_recipe(recipe, path):
    """It is of finite numbers, but where infinity says something, and the same through a file."""
    for name, value in flatten(recipe).items():
        assert not isinstance(value, float) or math.isfinite(value) or name in MAY_BE_INFINITE, f"{name}: {value}"
    path.write_text(to_yaml(recipe), encoding="utf-8")
    assert same(flatten(read_recipe(path)), flatten(recipe))


def test_a_flag_is_taken_or_refused_by_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def check(rng):
        flag = one_of(rng, FLAGS)
        value = one_of(rng, NUMBERS + TEXTS + (JSONS if flag in OF_JSON else []))
        arguments = [f"{flag}={value}"] if rng.random() < 0.8 else [flag, value]
        with redirect_stderr(io.StringIO()) as err, redirect_stdout(io.StringIO()):
            try:
                outcome = tried(lambda: parse_command(arguments))
            except SystemExit:  # of the parser, which says it in a box
                assert flag in err.getvalue() or "nrecognized" in err.getvalue(), err.getvalue()
                return "refused by the parser"
        if outcome.refused:
            check_line(outcome.refused, flag, repr(value)[1:50], "recipe.yaml", "--augment or --views")
            return "refused"
        check_recipe(outcome.result.recipe, tmp_path / "recipe.yaml")
        return "taken"

    campaign("flags", check, cases=range(3 * NUM_CASES))


VIEWS = [[], [{"AffineAugmenter": {"scale": 1.08, "shift_x": 0.04}}], [{"MirrorAugmenter": {"probability": 1}}]]


def test_views_of_a_file_are_taken_or_refused(tmp_path):
    path = tmp_path / "views.json"

    def check(rng):
        remove(path)
        by_value = rng.random() < 0.5
        path.write_text(json.dumps(plain(spoil_value(VIEWS, rng)) if by_value else VIEWS, default=str))
        if not by_value:
            spoil_file(path, rng)
        outcome = tried(lambda: parse_views(read_views(path), size=32, mirroring=True, source=f"--views {path}"))
        if outcome.refused:
            check_line(outcome.refused, f"--views {path}")
            return "refused"
        geometry = np.stack([view.of(1, 32).geometry for view in outcome.result])
        assert np.isfinite(geometry).all()
        return "taken"

    campaign("--views FILE", check)


def test_a_split_and_flip_indices_of_a_file_are_taken_or_refused(tmp_path):
    path, names = tmp_path / "file", np.array([f"{index}.jpg" for index in range(20)])
    split, partners = "".join(f"{name}\n" for name in names[:5]).encode(), json.dumps(PARTNERS).encode()

    def check(rng):
        remove(path)
        flag, content = one_of(rng, (("--split", split), ("--flip-indices", partners)))
        path.write_bytes(content)
        spoil_file(path, rng)
        read = (lambda: split_by_file(path, names)) if flag == "--split" else (lambda: read_flip_indices(path, 5))
        outcome = tried(read)
        if outcome.refused:
            check_line(outcome.refused, f"{flag} {path}")
            return "refused"
        if flag == "--split":
            lines = path.read_text(encoding="utf-8-sig").split("\n")
            assert names[outcome.result].tolist() == [name for name in names if name in lines]
            assert set(filter(None, lines)) <= set(names)
        else:
            assert outcome.result.tolist() == json.loads(path.read_text(encoding="utf-8-sig"))
        return "taken"

    campaign("--split, --flip-indices FILE", check)


def test_weights_of_a_file_are_taken_or_refused(tmp_path):
    path, expected = tmp_path / "weights.pth", build_network("shufflenet_v2_x0_5", np.zeros((5, 2)), 32).state_dict()
    options = NetworkOptions(model="shufflenet_v2_x0_5", weights=str(path))
    checkpoint = {"network": expected, "epoch": 0, "mse": 1.0}

    def check(rng):
        remove(path)
        by_value = rng.random() < 0.5
        torch.save(spoil_value(checkpoint, rng) if by_value else checkpoint, path)
        if not by_value:
            spoil_file(path, rng)
        outcome = tried(lambda: start(options))
        if outcome.refused:
            check_line(outcome.refused, f"--weights {path}")
            return "refused"
        return "taken"

    def start(options):
        with redirect_stdout(io.StringIO()):
            recipe = Recipe(photos=PhotoOptions(size=32), network=options)
            network = make_network(recipe, read_start(options), mean_shape=np.zeros((5, 2)))
        assert all(tensor.isfinite().all() for tensor in network.state_dict().values())

    campaign("--weights FILE", check)


def paths(rng, folder):
    """A path that a user may give by mistake."""
    path = folder / "odd"
    remove(path)
    kind = one_of(rng, ("no file", "text", "table", "weights", "long", "below a file", "inputs", "not there"))
    if kind == "no file":
        no_file(path, rng)
    elif kind in ("text", "table", "weights"):
        path.write_bytes({"text": b"x\n", "table": b"file_name,Point_M0_X\n", "weights": b"PK\x03\x04"}[kind])
    return {
        "long": folder / ("x" * 300),
        "below a file": folder / "partners.json/x",
        "inputs": folder / "partners.json",
        "not there": folder / "nowhere/x",
    }.get(kind, path)


def test_a_training_with_an_odd_flag_ends_or_says_why_not(tiny, tiny_contest, tmp_path):
    (tmp_path / "cache").symlink_to(tiny / "cache")

    def check(rng):
        remove(tmp_path / "runs")
        flag = one_of(rng, [flag for flag in FLAGS if flag not in ("--epochs", "--minutes")])  # which would take long
        value = one_of(rng, NUMBERS if rng.random() < 0.6 else TEXTS)
        arguments = ["-d", tiny_contest, "--flip-indices", "none", *TINY, f"{flag}={value}"]
        status, _, err = tried(lambda: call("hack_train.py", tmp_path, *arguments, pictures=quick_pictures)).result
        if status:
            assert status == 2, (flag, value, status)
            if "-----" in err:  # the box of the parser, which names the flag or what it cannot tell
                return "refused by the parser"
            check_line(err.removesuffix("\n"), flag, value, "step", "photo")
            return "refused"
        return "done"

    campaign("flags of hack_train.py", check, cases=range(NUM_CASES // 2))


OUTPUTS = ("--output", "--uncertainty")
INPUTS = ("--run", "--data", "--photo", "--views", "--runs", "--cache")


def test_paths_of_predict_lead_to_a_submission_or_to_a_line(tiny, tmp_path):
    shutil.copytree(tiny, tmp_path / "of", symlinks=True)
    folder = tmp_path / "of"
    run = next((folder / "runs").iterdir())

    def check(rng):
        flags = {"--run": run}
        for flag in rng.permutation(OUTPUTS + INPUTS)[: rng.integers(1, 3)]:
            flags[str(flag)] = run if rng.random() < 0.1 else paths(rng, folder)
        there = {path: path.read_bytes() for path in (folder / "partners.json", run / "best.pt")}
        arguments = [word for flag, path in flags.items() for word in (flag, path)]
        status, _, err = tried(lambda: call("predict.py", folder, *arguments)).result
        assert all(path.read_bytes() == content for path, content in there.items()), arguments
        if status:
            assert status == 2, (arguments, status)
            check_line(err.removesuffix("\n"), *flags, *flags.values(), run)
            return "refused"
        for flag in OUTPUTS:
            if flag in flags and "--photo" not in flags:
                assert flags[flag].read_text().startswith("file_name,")
        return "done"

    campaign("paths of predict.py", check, cases=range(NUM_CASES // 2))


def test_paths_of_hack_train_lead_to_a_run_or_to_a_line(tiny, tiny_contest, tmp_path):
    (tmp_path / "cache").symlink_to(tiny / "cache")
    (tmp_path / "partners.json").write_text(json.dumps(PARTNERS))

    def check(rng):
        remove(tmp_path / "runs")
        flag = one_of(
            rng, ("--data", "--runs", "--cache", "--split", "--flip-indices", "--weights", "--init", "--config")
        )
        path = paths(rng, tmp_path)
        arguments = ["-d", tiny_contest, *TINY, "--flip-indices", "none", flag, path]
        status, _, err = tried(lambda: call("hack_train.py", tmp_path, *arguments)).result
        if status:
            assert status == 2, (flag, path, status)
            check_line(err.removesuffix("\n"), flag, path)
            return "refused"
        return "done"

    campaign("paths of hack_train.py", check, cases=range(NUM_CASES // 3))
