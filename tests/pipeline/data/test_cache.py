"""What a start need not look at again is remembered as long as nothing seems to have changed; damage is found."""

import os
import shutil
import time

import numpy as np
import pytest

from pipeline.command import parse_command
from pipeline.data import cache as cache_module
from pipeline.data import dataset, pack
from pipeline.data.cache import content_key, known_key
from pipeline.data.contest import LANDMARKS
from pipeline.data.kept import kept, kept_numbers, key_of
from pipeline.metrics import Scores
from tests.fuzz.campaign import limits


def age(root, seconds=3600):
    """Gives all files and folders a time long ago."""
    then = time.time() - seconds
    for folder, _, files in os.walk(root):
        for path in (folder, *(os.path.join(folder, file) for file in files)):
            os.utime(path, (then, then))


@pytest.fixture
def copy(contest, tmp_path):
    root = shutil.copytree(contest, tmp_path / "contest")
    (root / "train/images/more").mkdir()
    shutil.copy(next((root / "train/images").glob("*.jpg")), root / "train/images/more/a.jpg")
    age(root)
    return root


def key(root, tmp_path, **options):
    return known_key(root / LANDMARKS, 128, cache=tmp_path / "cache", **({"check_photos": False} | options))


def test_the_key_is_that_of_all_photos_and_the_next_start_looks_at_none(copy, tmp_path, monkeypatch):
    assert key(copy, tmp_path) == content_key(copy / LANDMARKS, 128)
    monkeypatch.setattr(cache_module, "_listed", lambda *_: pytest.fail("the photos were looked at"))
    assert key(copy, tmp_path) == key(copy, tmp_path)


def add(images):
    (images / "more/b.jpg").write_bytes(b"new")


def delete(images):
    next(images.glob("*.jpg")).unlink()


def rename(images):
    next(images.glob("*.jpg")).rename(images / "z.jpg")


def replace_by_another(images):
    (images / "new").write_bytes(b"another")
    (images / "new").replace(images / "more/a.jpg")


def rewrite_table(images):
    table = images.parent / "landmarks.csv"
    table.write_bytes(table.read_bytes()[:-1] + b"\n")
    os.utime(table)


def copy_over(images):
    """As `cp` does, which opens the files that are there."""
    for path in images.glob("*.jpg"):
        path.write_bytes(path.read_bytes() + b"\0")


@pytest.mark.parametrize("change", [add, delete, rename, replace_by_another, rewrite_table, copy_over])
def test_what_changes_the_data_changes_the_key(change, copy, tmp_path):
    before = key(copy, tmp_path)
    change(copy / "train/images")
    assert key(copy, tmp_path) != before
    assert key(copy, tmp_path) == content_key(copy / LANDMARKS, 128)


def test_one_photo_that_is_edited_in_place_is_found_when_all_are_looked_at(copy, tmp_path, monkeypatch):
    monkeypatch.setattr(cache_module, "NUM_WATCHED", 2)
    before = key(copy, tmp_path)
    photo = sorted((copy / "train/images").glob("*.jpg"))[1]
    photo.write_bytes(photo.read_bytes() + b"\0")
    assert key(copy, tmp_path) == before  # the documented limit
    assert key(copy, tmp_path, check_photos=True) != before


def test_what_changed_just_now_is_looked_at_again(copy, tmp_path, monkeypatch):
    """A further change in the same tick of the clock would leave the folder's time as it is."""
    monkeypatch.setattr(cache_module, "NUM_WATCHED", 2)
    os.utime(copy / "train/images")
    before = key(copy, tmp_path)
    photo = sorted((copy / "train/images").glob("*.jpg"))[1]
    photo.write_bytes(photo.read_bytes() + b"\0")
    assert key(copy, tmp_path) != before


def test_what_has_a_time_to_come_is_looked_at_again(copy, tmp_path, monkeypatch):
    """As after a clock that went ahead was set right: its folder's time may come once more."""
    monkeypatch.setattr(cache_module, "NUM_WATCHED", 2)
    tomorrow = time.time() + 86400
    os.utime(copy / "train/images", (tomorrow, tomorrow))
    before = key(copy, tmp_path)
    photo = sorted((copy / "train/images").glob("*.jpg"))[1]
    photo.write_bytes(photo.read_bytes() + b"\0")
    assert key(copy, tmp_path) != before


@pytest.mark.parametrize("content", [b"", b"{", b"[" * 10**5, b'{"key": 1}', b"\xff"])
def test_a_damaged_memory_of_a_key_is_none(content, copy, tmp_path):
    before = key(copy, tmp_path)
    (known,) = (tmp_path / "cache").glob("known-*.json")
    known.write_bytes(content)
    assert key(copy, tmp_path) == before


@pytest.mark.parametrize("damage", [lambda content: content[:-1], lambda content: content[:-1] + b"~", lambda _: b""])
def test_what_is_kept_is_found_once_and_anew_where_it_is_damaged(damage, tmp_path, capsys):
    numbers, scores = np.array([3, 0, 2**31 - 1, 7]), Scores(1 / 3, 0.1, 1e300, 5e-324)
    paths = tmp_path / "numbers.i4", tmp_path / "scores.json"

    def find(fail=lambda: None):
        def first(made):
            return lambda: fail() or made

        return kept_numbers(paths[0], 4, first(numbers)), kept(paths[1], Scores, first(scores))

    find()
    for again in (find(lambda: pytest.fail("found again")), None):
        for path in paths if again is None else ():
            path.write_bytes(damage(path.read_bytes()))
        found = again or find()
        np.testing.assert_array_equal(found[0], numbers)
        assert found[1] == scores  # to the bit
    assert capsys.readouterr().out.count("is damaged") == 2
    find(lambda: pytest.fail("found again"))


def as_folder(path):
    (path / "inside").mkdir(parents=True)


@pytest.mark.parametrize("put", [as_folder, os.mkfifo], ids=["folder", "pipe"])
def test_what_takes_the_place_of_a_file_in_the_cache_gives_way(put, copy, tmp_path):
    before = key(copy, tmp_path)
    (known,) = (tmp_path / "cache").glob("known-*.json")
    paths = tmp_path / "numbers.i4", tmp_path / "scores.json"
    for path in (known, *paths):
        path.unlink(missing_ok=True)
        put(path)
    with limits():  # a pipe would be waited for without end
        assert key(copy, tmp_path) == before
        assert kept_numbers(paths[0], 1, lambda: np.array([3])).tolist() == [3]
        assert kept(paths[1], Scores, lambda: Scores(1, 2, 3, 4)) == Scores(1, 2, 3, 4)
    assert known.is_file()
    assert all(path.is_file() for path in paths)


def test_keys_tell_parts_apart():
    assert len({key_of("ab", "c"), key_of("a", "bc"), key_of("abc"), key_of(np.arange(3)), key_of(np.arange(4))}) == 5


def load(root, tmp_path, *flags):
    paths = ["--data", root, "--cache", tmp_path / "cache", "--runs", tmp_path / "runs", "--size", "32"]
    return dataset.load_training_data(parse_command([*map(str, paths), *flags]).recipe)


def test_a_later_start_finds_the_same_and_computes_nothing_anew(copy, tmp_path, monkeypatch):
    first, floor = (found := load(copy, tmp_path)), dataset.mean_shape_score(found)
    dataset.leaks(first)
    for module, name in [
        (dataset, "near_duplicate_groups"),
        (dataset, "find_flip_indices"),
        (dataset, "mean_shape"),
        (dataset, "errors_of_photos"),
        (pack, "_fingerprint"),
        (cache_module, "_listed"),
    ]:
        monkeypatch.setattr(module, name, lambda *_, name=name, **__: pytest.fail(f"{name} was called again"))
    again = load(copy, tmp_path)
    dataset.leaks(again)
    assert dataset.mean_shape_score(again) == floor
    for name in ("train", "validation", "groups", "flip_indices", "mean_shape"):
        np.testing.assert_array_equal(getattr(again, name), getattr(first, name))
        assert getattr(again, name).dtype == getattr(first, name).dtype
    assert (again.symmetry, again.grouping, again.roi) == (first.symmetry, first.grouping, first.roi)


def test_a_number_of_the_pack_that_changed_in_silence_is_found_when_all_is_checked(copy, tmp_path, capsys):
    first = load(copy, tmp_path)
    path = first.pack.folder / "values.npy"
    stat, content = path.stat(), bytearray(path.read_bytes())
    expected = first.pack.values.copy()
    content[-9] ^= 4
    path.write_bytes(content)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    load(copy, tmp_path)
    assert "damaged" not in capsys.readouterr().out
    again = load(copy, tmp_path, "--check-photos")
    assert "is damaged" in capsys.readouterr().out
    np.testing.assert_array_equal(again.pack.values, expected)
