"""What belongs together stays on one side whoever says so, and what may flatter a score is said."""

import shutil
import weakref
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from pipeline.command import parse_command
from pipeline.data import dataset
from pipeline.data.contest import Table
from pipeline.data.dataset import TURN, leaks, load_training_data, mean_shape_score, shape_components
from pipeline.data.split import split_into_folds
from pipeline.errors import Faults, UserError


@pytest.fixture(scope="module")
def copied(contest, tmp_path_factory):
    """A contest of 20 groups of four photos, and 40 more groups of one each: a copy, byte for byte, of every second."""
    root = shutil.copytree(contest, tmp_path_factory.mktemp("copied") / "contest")
    table = root / "train/landmarks.csv"
    header, *rows = table.read_text().strip().split("\n")
    copies = []
    for row in rows[::2]:
        name, _, cells = row.partition("\t")
        shutil.copy(root / "train/images" / name, root / "train/images" / f"copy_{name}")
        copies.append(f"copy_{name}\t{cells}")
    table.write_text("\n".join([header, *rows, *copies]) + "\n")
    names = [row.partition("\t")[0] for row in rows + copies]
    lines = [f"{name}\t{index // 4 if index < 80 else index}" for index, name in enumerate(names)]
    (root / "train/groups.csv").write_text("\n".join(["file_name\tgroup", *lines]) + "\n")
    return root


@pytest.fixture
def load(tmp_path_factory):
    cache = tmp_path_factory.getbasetemp() / "cache of test_data"

    def load(root, *flags):
        paths = ["--cache", str(cache), "--size", "32", "--roi", "whole", "--flip-indices", "none"]
        return load_training_data(parse_command(["-n", "x", "-d", str(root), *paths, *map(str, flags)]).recipe)

    return load


def test_neither_the_split_nor_folds_part_a_photo_from_its_copy_or_its_group(copied, load):
    data = load(copied)
    assert data.grouping == "60 of groups.csv, 60 of them joined into 20 by 80 near-duplicates"
    given = np.array([index // 4 if index < 80 else index for index in range(120)])
    copy_of = np.array([index if index < 80 else 2 * (index - 80) for index in range(120)])
    held_out = np.isin(np.arange(120), data.validation)
    for side in (held_out, *(split_into_folds(data.groups, 3) == fold for fold in range(3))):
        assert 0 < side.sum() < 120
        assert not set(given[side]) & set(given[~side])
        assert not set(copy_of[side]) & set(copy_of[~side])
    assert leaks(data) == []


def test_a_limit_takes_the_same_photos_each_time_decodes_no_other_and_suits_large_groups(copied, load, tmp_path):
    names = load(copied).pack.names.tolist()
    rows = [f"{name}\t{number % 3}" for number, name in enumerate(names)]  # each group is larger than the limit
    (copied / "train/groups.csv").write_text("\n".join(["file_name\tgroup", *rows]) + "\n")
    data = load(copied, "--limit-photos", "30")
    assert len(data.pack) == 30
    assert len(set(data.groups[data.train]) & set(data.groups[data.validation])) == 0
    names = data.pack.names.tolist()
    values = dict(zip(load(copied).pack.names.tolist(), load(copied).pack.values, strict=True))
    np.testing.assert_array_equal(data.pack.values, np.stack([values[name] for name in names]))
    assert load(copied, "--limit-photos", "30", "--seed", "5").pack.names.tolist() == names
    broken = shutil.copytree(copied, tmp_path / "broken")
    next(path for path in (broken / "train/images").iterdir() if path.name not in names).write_bytes(b"")
    assert load(broken, "--limit-photos", "30").pack.names.tolist() == names
    assert len(load(copied, "--limit-photos", "120").pack) == 120


def emptied(contest, folder, names):
    """A copy of a contest in which these photos have no known point."""
    root = shutil.copytree(contest, folder / "contest")
    table = root / "train/landmarks.csv"
    header, *rows = (line.split("\t") for line in table.read_text().splitlines())
    rows = [[row[0], *[""] * (len(row) - 1)] if row[0] in names else row for row in rows]
    table.write_text("\n".join("\t".join(row) for row in [header, *rows]) + "\n")
    return root


def test_photos_without_a_known_point_are_not_trained_on(contest, load, tmp_path):
    """Their loss, which is 0, would count among those that a trimmed loss ranks, and in the mean."""
    before = load(contest)
    names = before.pack.names[[*before.train[1:4], before.validation[0]]].tolist()
    data = load(emptied(contest, tmp_path, names))
    assert data.pack.names[data.train].tolist() == np.delete(before.pack.names[before.train], [1, 2, 3]).tolist()
    assert (data.pack.names[data.validation] == before.pack.names[before.validation]).all()
    assert data.num_empty == 3
    assert np.isfinite(mean_shape_score(data).mse)


def test_held_out_photos_none_of_which_has_a_known_point_are_refused(contest, load, tmp_path):
    before = load(contest)
    data = load(emptied(contest, tmp_path, before.pack.names[before.validation].tolist()))
    for _ in range(2):  # what was found is kept
        with pytest.raises(UserError, match=f"none of the {len(data.validation)} held-out photos has a known point"):
            mean_shape_score(data)


def test_a_split_that_parts_photos_from_their_copies_or_groups_is_said(copied, load, tmp_path):
    data = load(copied)
    names = data.pack.names
    (tmp_path / "split.txt").write_text("\n".join(names[[0, 80, 44]]))  # two of a group of six, and one of another
    (line,) = leaks(load(copied, "--split", tmp_path / "split.txt"))
    assert line.startswith("--split holds out 3 photos of which near-duplicates or others of their group")
    assert all(name in line for name in names[[0, 80, 44]])
    (tmp_path / "split.txt").write_text("\n".join(names[data.groups == data.groups[5]]))
    assert leaks(load(copied, "--split", tmp_path / "split.txt")) == []


def test_photos_of_the_test_that_are_in_train_are_said(contest, load, tmp_path):
    root = shutil.copytree(contest, tmp_path / "contest")
    assert load(root).grouping == "no groups.csv; 0 near-duplicates in 0 groups"
    shown = sorted((root / "test/images").iterdir())[:2]
    for photo, train in zip(shown, sorted((root / "train/images").iterdir()), strict=False):
        shutil.copy(train, photo)
    (line,) = leaks(load(root))
    assert line.startswith("2 photos of the test are near-duplicates of photos of train")
    assert all(photo.name in line for photo in shown)


def test_faults_of_all_tables_are_refused_together(copied, load, tmp_path):
    root = shutil.copytree(copied, tmp_path / "contest")
    with (root / "train/landmarks.csv").open("a") as file:
        file.write("z.jpg\t1\n")
    with (root / "train/groups.csv").open("a") as file:
        file.write("z.jpg\n")
    with (root / "test/test_points.csv").open("a") as file:
        file.write("z.jpg\t[\n")
    with pytest.raises(UserError, match="3 faults") as error:
        load(root)
    for named in (
        "landmarks.csv line 122: 1 numbers",
        "groups.csv line 122: 1 columns",
        "test_points.csv line 14: '['",
    ):
        assert named in str(error.value)


def test_a_link_to_groups_that_are_not_there_is_a_fault(contest, load, tmp_path):
    root = shutil.copytree(contest, tmp_path / "contest")
    (root / "train/groups.csv").symlink_to("nowhere.csv")
    with pytest.raises(UserError, match=r"groups\.csv cannot be read: No such file"):
        load(root)


@pytest.mark.parametrize("roi", ["auto", "whole"])
def test_on_a_first_start_the_points_are_read_once(contest, load, tmp_path, monkeypatch, roi):
    read, reads = dataset.contest.read_landmarks, []
    monkeypatch.setattr(
        dataset.contest, "read_landmarks", lambda *given, **where: reads.append(given[0]) or read(*given, **where)
    )
    first = load(contest, "--cache", tmp_path, "--roi", roi)
    assert len(reads) == 1
    assert load(contest, "--cache", tmp_path, "--roi", roi).roi == first.roi
    assert len(reads) == 1


def test_faults_are_told_once_though_two_need_the_table(contest, load, tmp_path):
    root = shutil.copytree(contest, tmp_path / "contest")
    with (root / "train/landmarks.csv").open("a") as file:
        file.write("z.jpg\t1\n")
    with pytest.raises(UserError, match="1 fault in the data"):
        load(root, "--cache", tmp_path / "cache", "--roi", "auto")


def test_who_takes_a_table_has_the_only_hold_of_it():
    """While photos are packed, its memory must not be held twice, nor longer than by the pack."""
    once = dataset.ReadOnce(lambda path, faults: Table(["a.jpg"], np.ones((1, 3, 2), np.float32)))
    looked = weakref.ref(once.look(Path(), Faults()))
    taken = once.take(Path(), Faults())
    assert looked() is taken
    del taken
    assert looked() is None


def test_a_point_that_few_photos_have_spoils_no_component_of_the_shapes(monkeypatch):
    """It may be in none of the photos that are looked at."""
    monkeypatch.setattr(dataset, "NUM_SHAPES", 20)
    rng = np.random.default_rng(0)
    mean = rng.uniform(0, 60, (5, 2))
    points = mean + rng.normal(size=(40, 1, 1)) * rng.normal(size=(5, 2)) + rng.normal(scale=0.1, size=(40, 5, 2))
    points[:, 3] = np.nan
    points[1, 3] = mean[3]
    pack = SimpleNamespace(photo_to_image=np.broadcast_to(np.eye(3), (40, 3, 3)), values=points)
    found = shape_components(SimpleNamespace(train=np.arange(40), pack=pack, mean_shape=mean))
    assert np.isfinite(found).all()
    assert (found[4:, 3] == 0).all()
    assert (np.abs(found[4, [0, 1, 2, 4]]) > 0).any()
    points[:, :3] = points[:, 4:] = np.nan  # one point and no shape
    assert shape_components(SimpleNamespace(train=np.arange(40), pack=pack, mean_shape=mean)).shape == (4, 5, 2)


def test_components_of_shapes_that_are_turned_at_random_are_as_long_as_what_shapes_have_of_them():
    """Their mean shape is far smaller than any of them, and says nothing about how far their points lie apart."""
    rng = np.random.default_rng(0)
    shape = rng.normal(size=(6, 2)) * 20
    angles = rng.uniform(0, 2 * np.pi, 300)
    turns = np.stack((np.cos(angles), -np.sin(angles), np.sin(angles), np.cos(angles)), axis=1).reshape(-1, 2, 2)
    points = 50 + (shape - shape.mean(axis=0)) @ turns
    mean = points.mean(axis=0)
    pack = SimpleNamespace(photo_to_image=np.broadcast_to(np.eye(3), (300, 3, 3)), values=points)
    _, _, scale, turn, *rest = shape_components(SimpleNamespace(train=np.arange(300), pack=pack, mean_shape=mean))
    size = np.sqrt((shape - shape.mean(axis=0)).var(axis=0).sum())
    for component in (scale, turn):
        assert np.sqrt((component**2).sum(axis=1).mean()) == pytest.approx(TURN * size, rel=0.02)
    for component in rest[:2]:
        found = ((points - mean) * component).sum(axis=(1, 2)) / (component**2).sum()
        assert found.std() == pytest.approx(1, rel=0.1)
