"""Where a network starts: what cannot be had is refused at once, and so is what would make another experiment of it."""

import json
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torchvision.models import get_model

from models import build_network
from pipeline.checkpoint import save_checkpoint
from pipeline.command import parse_command
from pipeline.errors import UserError
from pipeline.metrics import Scores
from pipeline.networks import check_unseen, load_run_network, make_network, read_start
from pipeline.ranks import Ranks
from pipeline.recipe import NetworkOptions, PhotoOptions, Recipe, RunOptions
from pipeline.runs import AboutData, Run
from pipeline.training import one_run

SHAPE = np.random.default_rng(0).uniform(10, 50, (7, 2))
ELSEWHERE = Path("else/where")


@pytest.fixture
def run(tmp_path) -> Run:
    """A run of a small network that held out photos b and d of a … f."""
    recipe = parse_command(["--model", "shufflenet_v2_x0_5", "--weights", "none", "--size", "64"]).recipe
    found = Run(tmp_path / "run")
    found.folder.mkdir()
    found.write_recipe(recipe)
    torch.manual_seed(1)
    network = build_network(recipe.network.model, SHAPE, 64, head=recipe.network.head)
    save_checkpoint(found.best, {"network": network.state_dict(), "epoch": 0})
    found.split.write_text("b\nd\n")
    about = AboutData("faces", 4, 2, Scores(1, 1, 1, 1), (0.1, 0.1, 0.8), labels={"b": 1, "d": 2})
    (found.folder / "data.json").write_text(json.dumps(asdict(about)))
    return found


def photos_of(fingerprint, **labels):
    found = labels.items()
    return SimpleNamespace(
        fingerprint=fingerprint, checksums=lambda names: {name: label for name, label in found if name in names}
    )


def start(shape=SHAPE, **options):
    """A network as the script makes it."""
    chosen = NetworkOptions(**options)
    recipe = Recipe(run=RunOptions(seed=5), photos=PhotoOptions(size=64), network=chosen)
    return make_network(recipe, read_start(chosen), mean_shape=shape)


def test_a_network_that_comes_from_a_run_gives_its_points_with_nothing_but_its_folder_given(run):
    recipe = parse_command(["--init", str(run.folder), "--learning-rate", "1e-4"]).recipe
    network = make_network(recipe, read_start(recipe.network), mean_shape=SHAPE).eval()
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    with torch.no_grad():
        assert torch.equal(network(images), load_run_network(run, "best")(images))


def test_a_head_for_another_number_of_points_is_said(run, capsys):
    start(np.ones((9, 2)) * 30, model="shufflenet_v2_x0_5", init=run.folder)
    assert "their head is for 7 points, these photos have 9" in capsys.readouterr().out
    start(model="shufflenet_v2_x0_5", init=run.folder)
    assert "head" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("head", "said"),
    [
        ("simcc", "\n  4 of the head start at random: decoder.points.x.bias, decoder.points.x.weight, "),
        ("flat", "\n  1 of the head start at random: decoder.points.linear.weight\n"),
        ("linear", " tensors\n"),
    ],
)
def test_what_of_a_head_starts_at_random_is_said(head, said, tmp_path, capsys):
    """Of images of another size SimCC's layers but for the last come over."""
    model = "shufflenet_v2_x0_5"
    torch.save({"network": build_network(model, SHAPE, 96, head=head).state_dict()}, tmp_path / "own.pt")
    start(model=model, head=head, weights=str(tmp_path / "own.pt"))
    assert said in capsys.readouterr().out


@pytest.mark.parametrize("from_run", [True, False])
def test_it_stops_where_most_of_the_backbone_does_not_fit(from_run, run):
    """As a run of an earlier version would that is resumed after it was stopped before its first checkpoint."""
    source = {"init": run.folder} if from_run else {"weights": str(run.best)}
    flag = f"--init {run.folder}" if from_run else f"--weights {run.best}"
    with pytest.raises(UserError, match=rf"^{flag}: .* another --model\?$"):
        start(model="shufflenet_v2_x1_0", **source)


def test_folds_are_no_run_to_start_from(run):
    (run.folder / "folds.json").write_text('{"folds": 2}')
    with pytest.raises(UserError, match="2 folds; give one of them"):
        start(model="shufflenet_v2_x0_5", init=parse_command(["--init", str(run.folder)]).recipe.network.init)


def test_a_model_that_is_none_is_refused_in_one_short_line():
    with pytest.raises(UserError, match=r"^--model 'resnet_18' .* did you mean resnet18") as error:
        read_start(NetworkOptions(model="resnet_18"))
    assert len(str(error.value)) < 200


@pytest.mark.parametrize("model", ["deit_tiny_distilled_patch16_224", "levit_128s", "crossvit_tiny_240", "volo_d1_224"])
def test_a_linear_head_is_refused_where_a_network_has_several_output_layers(model):
    pytest.importorskip("timm")
    with pytest.raises(
        UserError, match=r"^--head linear: timm/.* has 2 output layers .*; give another --head"
    ) as error:
        read_start(NetworkOptions(model=f"timm/{model}", head="linear", weights="none"))
    assert "\n" not in str(error.value)
    assert read_start(NetworkOptions(model=f"timm/{model}", head="low_rank", weights="none")) is None
    assert read_start(NetworkOptions(model="timm/test_vit", head="linear", weights="none")) is None


def test_freezing_a_random_backbone_is_refused(run):
    with pytest.raises(UserError, match="--freeze-epochs 2: the backbone starts from random weights"):
        read_start(NetworkOptions(model="resnet18", weights="none", freeze_epochs=2))
    assert read_start(NetworkOptions(model="resnet18", weights="none")) is None
    assert read_start(NetworkOptions(model="shufflenet_v2_x0_5", weights="none", init=run.folder, freeze_epochs=2))


@pytest.mark.parametrize("source", ["init", "weights"])
def test_a_photo_that_a_network_was_trained_on_is_not_held_out(source, run, tmp_path, monkeypatch):
    """It would validate a network that knows it; every photo is held out by one of several folds."""
    monkeypatch.chdir(tmp_path)  # where the run's data lie
    options = NetworkOptions(**{source: run.folder if source == "init" else str(run.best)})
    check_unseen(options, photos_of("faces"), ELSEWHERE, held_out=["b", "d"], everything=False)
    check_unseen(options, photos_of("faces"), ELSEWHERE, held_out=["d"], everything=False)
    with pytest.raises(UserError, match=rf"trained on 1 of the photos .* give --split {run.split}"):
        check_unseen(options, photos_of("faces"), ELSEWHERE, held_out=["b", "c"], everything=False)
    with pytest.raises(UserError, match=r"trained on 4 of the photos .* folds start from weights of no run"):
        check_unseen(options, photos_of("faces"), ELSEWHERE, held_out=list("abcdef"), everything=True)
    same_folder = run.recipe().run.data  # of which another --limit-photos, for one, gives other photos
    check_unseen(options, photos_of("more faces"), same_folder, held_out=["d"], everything=False)
    with pytest.raises(UserError, match="may have been trained on 1 of the photos"):
        check_unseen(options, photos_of("more faces"), same_folder, held_out=["b", "g"], everything=False)
    with pytest.raises(UserError, match="may have been trained on 1 of the photos"):  # --data may name the one above
        check_unseen(options, photos_of("more faces"), same_folder / "contest", held_out=["b", "g"], everything=False)
    (same_folder / "train").mkdir(parents=True)
    (same_folder / "train/landmarks.csv").touch()  # then the one below is another
    check_unseen(options, photos_of("other faces"), same_folder / "contest", held_out=list("abcdef"), everything=False)
    check_unseen(options, photos_of("other faces"), ELSEWHERE, held_out=list("abcdef"), everything=False)
    for size_and_one_label in (photos_of("larger", b=9, d=2, a=7), photos_of("larger", b=1)):
        with pytest.raises(UserError, match="may have been trained on 4 of the photos"):
            check_unseen(options, size_and_one_label, ELSEWHERE, held_out=list("abcdef"), everything=False)
    check_unseen(options, photos_of("with the same names", b=3, d=4), ELSEWHERE, held_out=list("ab"), everything=False)
    check_unseen(NetworkOptions(), photos_of("faces"), ELSEWHERE, held_out=list("abcdef"), everything=True)
    run.split.unlink()  # nobody can tell any more
    with pytest.raises(UserError, match=rf"{run.split} cannot be read"):
        check_unseen(options, photos_of("faces"), ELSEWHERE, held_out=["b"], everything=False)


def test_a_photo_that_is_alone_where_a_norm_needs_two_is_refused():
    flags = ["--model", "mobilenet_v3_small", "--weights", "none", "--head", "linear", "--size", "32"]
    for batch in (["-b", "1"], ["-b", "4", "--accumulate", "4"]):
        with pytest.raises(UserError, match=r"^--batch-size .* --accumulate .*: a norm of mobilenet_v3_small"):
            make_network(parse_command([*flags, *batch]).recipe, None, mean_shape=SHAPE)
    two = parse_command([*flags, "-b", "4", "--accumulate", "2"]).recipe
    make_network(two, None, mean_shape=SHAPE, num_photos=9)
    with pytest.raises(UserError, match="--accumulate 2 of 3 training photos: a norm of mobilenet_v3_small"):
        make_network(two, None, mean_shape=SHAPE, num_photos=3)
    make_network(parse_command([*flags[:-1], "64", "-b", "1"]).recipe, None, mean_shape=SHAPE)
    make_network(parse_command([*flags, "-b", "1", "--freeze-epochs", "2", "-e", "2"]).recipe, None, mean_shape=SHAPE)
    for later in (["-e", "3"], ["--minutes", "5"]):  # its norms are trained in the end
        with pytest.raises(UserError, match="a norm of mobilenet_v3_small"):
            make_network(
                parse_command([*flags, "-b", "1", "--freeze-epochs", "2", *later]).recipe, None, mean_shape=SHAPE
            )


def test_a_photo_that_is_alone_on_its_rank_is_refused_unless_norms_see_those_of_all_ranks(monkeypatch):
    monkeypatch.setattr("pipeline.networks.current_ranks", lambda: Ranks(0, 2))
    flags = ["--model", "mobilenet_v3_small", "--weights", "none", "--head", "linear", "--size", "32", "-b", "4"]
    for own in (["--accumulate", "2"], ["--accumulate", "2", "--gpu", "--local-norms"]):
        with pytest.raises(UserError, match="fewer parts or processes"):
            make_network(parse_command([*flags, *own]).recipe, None, mean_shape=SHAPE)
    for together in ([], ["--accumulate", "2", "--gpu"]):
        make_network(parse_command([*flags, *together]).recipe, None, mean_shape=SHAPE)


def test_what_a_network_cannot_start_with_is_refused_before_photos_are_packed(tmp_path, monkeypatch):
    monkeypatch.setattr(one_run, "load_training_data", lambda *_, **__: pytest.fail("the photos were packed"))
    (tmp_path / "data/train/images").mkdir(parents=True)
    (tmp_path / "data/train/landmarks.csv").touch()
    torch.save(get_model("squeezenet1_1").state_dict(), tmp_path / "other.pth")
    where = ["-d", str(tmp_path / "data"), "--runs", str(tmp_path / "runs"), "--cache", str(tmp_path / "cache")]
    for flags, named in (
        (["--model", "maxvit_t", "--size", "96", "--weights", "none"], "does not take images of --size 96"),
        (["--model", "resnet18", "--weights", str(tmp_path / "other.pth")], r"--weights .*other\.pth: .* --model"),
    ):
        with pytest.raises(UserError, match=named):
            one_run.prepare(parse_command([*where, *flags]).recipe, None)


def test_a_size_that_a_backbone_refuses_itself_is_a_line():
    recipe = parse_command(["--model", "maxvit_t", "--weights", "none", "--size", "96"]).recipe
    with pytest.raises(UserError, match=r"^--model maxvit_t does not take images of --size 96: .+$"):
        make_network(recipe, None, mean_shape=SHAPE)


def test_a_size_at_which_a_backbone_of_timm_cannot_be_looked_at_is_a_line():
    pytest.importorskip("timm")
    recipe = parse_command(["--model", "timm/crossvit_tiny_240", "--weights", "none", "--size", "96"]).recipe
    with pytest.raises(UserError, match=r"^--model timm/crossvit_tiny_240 does not take images of --size 96: .+$"):
        make_network(recipe, None, mean_shape=SHAPE)
