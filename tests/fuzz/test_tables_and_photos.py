"""Whatever stands in a contest's files and in the cache, it is read right or refused in a line."""

import io
import shutil
from functools import partial

import numpy as np
import pytest
from PIL import Image

from augment import RegionOfInterest
from pipeline.data.contest import LANDMARKS, read_groups, read_landmarks, read_test_points
from pipeline.data.pack import open_pack
from pipeline.data.photos import MAX_PIXELS, BrokenPhoto, difference_hash, read_photo
from pipeline.errors import Faults
from tests.fuzz.campaign import NUM_CASES, OUTCOMES, rng_of
from tests.fuzz.mutations import mutate

NAMES = [f"{index}.jpg" for index in range(9)]
FORMATS = {
    "jpeg": ("JPEG", {}),
    "progressive": ("JPEG", {"progressive": True}),
    "png": ("PNG", {}),
    "webp": ("WEBP", {}),
    "tiff": ("TIFF", {"compression": "tiff_lzw"}),
    "bmp": ("BMP", {}),
    "gif": ("GIF", {}),
}


def cases(content, kind):
    for case in range(NUM_CASES):
        OUTCOMES[kind, "as it stands there, or refused"] += 1
        yield mutate(content, rng_of(kind, case))


def rows_of(path):
    """The lines below the header that are not empty, cut at the tabs: as the tables are meant."""
    lines = [line.rstrip(b"\r\n") for line in path.read_bytes().removeprefix(b"\xef\xbb\xbf").split(b"\n")]
    return lines[0].split(b"\t"), [line.split(b"\t") for line in lines[1:] if line]


def test_points_are_read_as_they_stand_there_or_refused(tmp_path):
    rng = np.random.default_rng(0)
    rows = ["\t".join([name, *map(str, rng.integers(-9, 400, 6)), "", f"{rng.normal():.3f}"]) for name in NAMES]
    table = "\n".join(["file_name" + "\tx" * 8, *rows, ""]).encode()
    path = tmp_path / "landmarks.csv"
    for content in cases(table, "points"):
        path.write_bytes(content)
        found = read_landmarks(path, faults := Faults())
        assert len(found.names) == len(found.values) == len(set(found.names))
        assert not np.isinf(found.values).any()
        if faults.lines:
            assert all(str(path) in line and "\n" not in line for line in faults.lines)
            continue
        header, rows = rows_of(path)
        assert found.names == [row[0].decode() for row in rows]
        assert found.values.shape[1] == (len(header) - 1) // 2
        expected = [[float(cell.decode()) if cell.strip() else np.nan for cell in row[1:]] for row in rows]
        np.testing.assert_array_equal(found.values.reshape(len(rows), -1), np.array(expected, np.float32))


def test_asked_points_are_read_as_they_stand_there_or_refused(tmp_path):
    rng = np.random.default_rng(0)
    rows = [f"{name}\t{rng.integers(0, 68, 5).tolist()}" for name in NAMES]
    path = tmp_path / "test_points.csv"
    for content in cases("\n".join(["file_name\tlist", *rows, ""]).encode(), "asked"):
        path.write_bytes(content)
        found = read_test_points(path, faults := Faults(), num_points=68)
        assert len(found.names) == len(found.values) == len(set(found.names))
        assert ((found.values >= 0) & (found.values < 68)).all()
        if not faults.lines:
            _, rows = rows_of(path)
            assert found.names == [row[0].decode() for row in rows]
            lists = [b"".join(row[1:]).strip(b" \r[]").split(b",") for row in rows]
            assert found.values.tolist() == [[int(one) for one in cells] for cells in lists]


def test_groups_are_read_as_they_stand_there_or_refused(tmp_path):
    path = tmp_path / "groups.csv"
    rows = [f"{name}\t{index // 2}" for index, name in enumerate(NAMES)]
    for content in cases("\n".join(["file_name\tgroup", *rows, ""]).encode(), "groups"):
        path.write_bytes(content)
        found = read_groups(path, NAMES, faults := Faults())
        assert found.shape == (len(NAMES),)
        if not faults.lines:
            group_of = {row[0]: row[1] for row in rows_of(path)[1]}
            same = [[group_of[one.encode()] == group_of[other.encode()] for one in NAMES] for other in NAMES]
            np.testing.assert_array_equal(found == found[:, None], same)


@pytest.mark.parametrize("kind", sorted(FORMATS))
def test_a_photo_is_one_of_a_sane_size_or_broken(kind, tmp_path):
    file = io.BytesIO()
    name, options = FORMATS[kind]
    Image.effect_noise((67, 45), 60).resize((90, 60)).convert("RGB").save(file, name, **options)
    path = tmp_path / "photo"
    for content in cases(file.getvalue(), kind):
        path.write_bytes(content)
        photo, broken = read(path)
        if broken:
            assert str(path) in broken
            assert "\n" not in broken
            continue
        assert photo.dtype == np.uint8
        assert photo.shape[2:] == (3,)
        assert photo.shape[0] * photo.shape[1] <= MAX_PIXELS
        assert difference_hash(photo).shape == (32,)


def read(path):
    try:
        return read_photo(path), None
    except BrokenPhoto as error:
        return None, str(error)


def test_a_pack_in_a_damaged_cache_is_what_it_was(tmp_path, monkeypatch):
    monkeypatch.setattr("pipeline.data.pack.sync", lambda path: None)
    (tmp_path / "train/images").mkdir(parents=True)
    for name in NAMES:
        Image.effect_noise((9, 8), 90).convert("RGB").save(tmp_path / "train/images" / name)
    rows = [f"{name}\t1\t{index}\t3\t" for index, name in enumerate(NAMES)]
    (tmp_path / LANDMARKS).write_text("\n".join(["file_name\tx\ty\tx\ty", *rows, ""]))
    table = read_landmarks(tmp_path / LANDMARKS, Faults())
    opened = partial(
        open_pack, tmp_path / LANDMARKS, cache=tmp_path / "cache", roi=RegionOfInterest(4, 0, 0, 4), resize="letterbox"
    )
    pack = opened(lambda *_: table, faults=Faults())
    whole = shutil.copytree(pack.folder, tmp_path / "whole")
    files = sorted(whole.iterdir())
    for case in range(NUM_CASES):
        rng = rng_of("cache", case)
        OUTCOMES["cache", "as it was"] += 1
        source = files[rng.integers(len(files))]
        (pack.folder / source.name).write_bytes(mutate(source.read_bytes(), rng))
        again = opened(lambda *_: table, faults=(faults := Faults()), skip_bad_photos=True)
        assert faults.lines == []
        assert again.names.tolist() == table.names
        np.testing.assert_array_equal(again.values, table.values)
        assert (len(again.photo_to_image), again.squares.shape, again.hashes.shape) == (9, (9, 4, 4, 3), (9, 32))
        shutil.rmtree(pack.folder)
        shutil.copytree(whole, pack.folder)
