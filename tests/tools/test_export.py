"""Exported files give the points of the network, for any number of photos."""

import json
import shutil
from dataclasses import asdict
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch

import predict
from augment import RegionOfInterest, fit_photo, transform_points
from models import build_network
from pipeline.checkpoint import load_checkpoint, save_checkpoint
from pipeline.data.photos import read_photo
from pipeline.errors import UserError
from pipeline.inference.onnx_network import PACKAGES
from pipeline.inference.submission import read_submission
from pipeline.metrics import Scores
from pipeline.networks import load_run_network
from pipeline.recipe import NetworkOptions, PhotoOptions, Recipe, RunOptions
from pipeline.runs import AboutData, Run
from tools import export
from tools.export import FORMATS, worst_difference

pytestmark = [
    pytest.mark.skipif(not all(map(find_spec, PACKAGES)), reason="exports need onnx, onnxscript and onnxruntime"),
    pytest.mark.filterwarnings("ignore"),  # torch's, of its own old formats
]


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("landmarks.torchscript.pt", "resnet18"),
        ("landmarks.pt2", "resnet18"),
        ("landmarks.pt2", "squeezenet1_1"),
        ("landmarks.onnx", "squeezenet1_1"),
    ],
)
def test_an_exported_file_gives_the_points_of_the_network(name, model, tmp_path):
    rng = np.random.default_rng(0)
    torch.manual_seed(0)
    head = "integral" if model == "resnet18" else "linear"
    network = build_network(model, rng.uniform(0, 64, (7, 2)), 64, head=head).eval()
    network.start_from(rng.normal(size=(14, 7, 2)))
    with torch.no_grad():  # as if it had been trained, on labels that lie aside
        network.label_shift.copy_(torch.tensor([0.5, -1.0]))
        if head == "integral":
            network.decoder.points.correction.linear.weight.normal_()
    photos = torch.from_numpy(rng.integers(0, 256, (5, 3, 64, 64), dtype=np.uint8))
    found = FORMATS[name](network, photos[:2], tmp_path / name)
    assert (tmp_path / name).stat().st_size > 1_000_000
    assert worst_difference(found, network, photos) < 1e-2
    assert worst_difference(lambda images: found(images) + 0.1, network, photos) > 0.05


class Still(torch.nn.Module):
    """Gives what it is told to, whatever it is shown."""

    def __init__(self, value):
        super().__init__()
        self.value = value

    def forward(self, images):
        return torch.full((len(images), 7, 2), self.value)


def test_what_is_no_number_or_of_another_shape_is_no_agreement():
    photos = torch.zeros(5, 3, 8, 8, dtype=torch.uint8)

    def spoiled(images, *, count, value):
        return torch.full((len(images), 7, 2), value if len(images) == count else 3.0)

    for value in (torch.nan, torch.inf):
        for count in (1, 2, 5):  # of the batches, each is enough
            some = partial(spoiled, count=count, value=value)
            assert worst_difference(some, Still(3.0), photos) == np.inf
            assert worst_difference(Still(3.0), some, photos) == np.inf
        assert worst_difference(Still(value), Still(value), photos) == np.inf
    assert worst_difference(lambda images: torch.full((1, 7, 2), 3.0), Still(3.0), photos) == np.inf
    assert worst_difference(Still(3.25), Still(3.0), photos) == 0.25


@pytest.fixture
def run(contest, tmp_path):
    """A run that was never trained, of a contest that may have gone."""
    data = Path(shutil.copytree(contest, tmp_path / "contest"))
    shutil.rmtree(data / "test")
    recipe = Recipe(
        run=RunOptions(data=data),
        photos=PhotoOptions(size=48),
        network=NetworkOptions(model="squeezenet1_1", head="linear", precision="fp32"),
    )
    run = Run(tmp_path / "run")
    run.folder.mkdir()
    run.write_recipe(recipe)
    about = AboutData("0", 1, 1, Scores(1, 1, 1, 1), (0.1, 0.1, 0.8))
    (run.folder / "data.json").write_text(json.dumps(asdict(about)))
    names = sorted(path.name for path in (data / "train/images").iterdir())
    run.split.write_text("\n".join(names[:20]))
    run.flip_indices.write_text("null")
    torch.manual_seed(0)
    save_checkpoint(run.best, {"network": build_network("squeezenet1_1", np.full((7, 2), 20.0), 48).state_dict()})
    return run


def exported(monkeypatch, capsys, run, *flags, format="landmarks.torchscript.pt"):
    monkeypatch.setattr(export, "FORMATS", {format: FORMATS[format]})
    monkeypatch.setattr("sys.argv", ["export", str(run.folder), *map(str, flags)])
    export.main()
    return capsys.readouterr().out


def test_a_run_alone_is_enough_and_what_it_was_compared_on_is_said(run, tmp_path, monkeypatch, capsys):
    data = tmp_path / "contest"
    assert "compared on 16 held-out photos" in exported(monkeypatch, capsys, run)  # without the contest's test
    for name in run.held_out_names()[2:]:
        (data / "train/images" / name).unlink()
    assert "compared on 2 held-out photos" in exported(monkeypatch, capsys, run)
    data.rename(tmp_path / "moved")
    assert "compared on 16 images of noise" in exported(monkeypatch, capsys, run)
    assert "compared on 2 held-out photos" in exported(monkeypatch, capsys, run, "--data", tmp_path / "moved")
    assert {path.name for path in (run.folder / "export").iterdir()} == {"landmarks.torchscript.pt", "landmarks.json"}


def test_data_that_are_asked_for_and_have_no_held_out_photo_are_refused(run, tmp_path, monkeypatch, capsys):
    with pytest.raises(UserError, match="--data"):
        exported(monkeypatch, capsys, run, "--data", tmp_path / "nowhere")
    run.split.write_text("gone.jpg")
    with pytest.raises(UserError, match=r"--data .* has none of the photos"):
        exported(monkeypatch, capsys, run, "--data", tmp_path / "contest")


def test_a_file_that_does_not_agree_is_not_left_there(run, monkeypatch, capsys):
    def wrong(network, example, path):
        path.write_bytes(b"wrong")
        return Still(20.0)

    out = run.folder / "export/wrong"
    monkeypatch.setitem(FORMATS, "wrong", wrong)
    with pytest.raises(UserError, match="px off the network"):
        exported(monkeypatch, capsys, run, format="wrong")
    assert not list(out.parent.iterdir())


def test_a_network_that_gives_no_numbers_is_not_exported(run, monkeypatch, capsys):
    state = load_checkpoint(run.best)
    state["network"]["backbone.classifier.1.bias"][3] = 3e38
    save_checkpoint(run.best, state)
    with pytest.raises(UserError, match=r"best\.pt gives points that are no numbers"):
        exported(monkeypatch, capsys, run)


def test_the_command_writes_and_verifies_every_file(run, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["export", str(run.folder)])
    export.main()
    assert {path.name for path in (run.folder / "export").iterdir()} == {*FORMATS, "landmarks.json"}
    about = json.loads((run.folder / "export/landmarks.json").read_text())
    roi = RegionOfInterest.of((0.1, 0.1, 0.8), 48)
    assert roi.left + roi.top > 0
    middle = load_run_network(run, "best").mean_shape.mean(dim=0).tolist()
    looks = {"middle": pytest.approx(middle), "spread": None}  # of a run of before
    assert about == {"resize": "letterbox", **vars(roi), "points": 7, "box_margin": None, **looks}
    assert_as_predict_does(run, about, next((tmp_path / "contest/train/images").iterdir()), tmp_path, monkeypatch)
    out = capsys.readouterr().out
    assert all(name in out for name in FORMATS)


def assert_as_predict_does(run, about, path, tmp_path, monkeypatch):
    """What docs/predict.md says of landmarks.json, with the exported network, gives what predict.py gives."""
    (tmp_path / "single.json").write_text("[[]]")
    flags = ["--run", run.folder, "--photo", path, "--output", tmp_path / "out", "--views", tmp_path / "single.json"]
    monkeypatch.setattr("sys.argv", ["predict.py", *map(str, flags), "--weights", "equal"])
    predict.main()
    square, matrix = fit_photo(read_photo(path), about["square"], about["resize"])
    left, top, size = about["left"], about["top"], about["size"]
    image = torch.from_numpy(square[top : top + size, left : left + size].copy()).permute(2, 0, 1)[None]
    exported = torch.jit.load(run.folder / "export/landmarks.torchscript.pt")
    points = exported(image)[0].detach().numpy() + (left, top)
    home = transform_points(np.linalg.inv(matrix)[None], points[None])[0]
    np.testing.assert_allclose(read_submission(tmp_path / "out/points.csv")[1][0], home, atol=0.05)


def test_a_file_of_earlier_weights_is_not_left_beside_the_others(run, monkeypatch, capsys):
    """If one cannot be made again, it would be taken for one of these weights."""
    folder = run.folder / "export"
    folder.mkdir(exist_ok=True)
    for name in ("landmarks.onnx", "landmarks.json"):
        (folder / name).write_text("of earlier weights")

    def missing(*arguments):
        raise ModuleNotFoundError("No module named 'onnx'")

    monkeypatch.setitem(FORMATS, "landmarks.onnx", missing)
    assert "left out" in exported(monkeypatch, capsys, run, format="landmarks.onnx")
    assert [path.name for path in folder.iterdir()] == ["landmarks.json"]
    assert json.loads((folder / "landmarks.json").read_text())["points"] == 7
