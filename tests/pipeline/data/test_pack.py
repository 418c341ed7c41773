"""The pack holds what the folder holds, is made once, whole or not at all, and refuses what it must."""

import errno
import os
import shutil
from functools import partial
from unittest import mock

import cv2
import numpy as np
import pytest

from augment import RegionOfInterest, fit_photo
from pipeline.blocks import blocks
from pipeline.data.cache import content_key
from pipeline.data.contest import LANDMARKS, TEST_POINTS, read_landmarks, read_test_points
from pipeline.data.pack import open_pack
from pipeline.data.photos import BrokenPhoto, read_photo
from pipeline.errors import Faults, UserError
from tests.scripts import forked

WHOLE = RegionOfInterest(64, 0, 0, 64)


@pytest.fixture
def copy(contest, tmp_path):
    return shutil.copytree(contest, tmp_path / "contest")


def open_train(root, cache, **options):
    faults = Faults()
    pack = open_pack(
        root / LANDMARKS,
        read_landmarks,
        cache=cache,
        faults=faults,
        **({"roi": WHOLE, "resize": "letterbox"} | options),
    )
    return pack, faults.lines


@pytest.mark.parametrize("resize", ["letterbox", "crop"])
def test_the_pack_is_the_table_and_the_fitted_photos(contest, tmp_path, resize):
    pack, faults = open_train(contest, tmp_path, resize=resize)
    assert faults == []
    table = read_landmarks(contest / LANDMARKS, Faults())
    assert pack.names.tolist() == table.names
    np.testing.assert_array_equal(pack.values, table.values)
    for index in range(0, len(pack), 7):
        square, matrix = fit_photo(read_photo(contest / "train/images" / table.names[index]), 64, resize)
        np.testing.assert_array_equal(pack.squares[index], square)
        np.testing.assert_array_equal(pack.photo_to_image[index], matrix)


def test_a_test_pack_has_the_asked_indices(contest, tmp_path):
    faults = Faults()
    read = partial(read_test_points, num_points=971)
    pack = open_pack(contest / TEST_POINTS, read, cache=tmp_path, roi=WHOLE, resize="letterbox", faults=faults)
    np.testing.assert_array_equal(pack.values, read(contest / TEST_POINTS, faults).values)
    assert pack.values.shape == (12, 30)
    assert faults.lines == []


def test_opening_again_reads_no_photo_and_no_table(copy, tmp_path, monkeypatch):
    first, _ = open_train(copy, tmp_path / "cache")
    monkeypatch.setattr("pipeline.data.packing.read_photo", lambda path: pytest.fail("a photo was read again"))
    unread = {"roi": WHOLE, "resize": "letterbox", "cache": tmp_path / "cache", "faults": Faults()}
    again = open_pack(copy / LANDMARKS, lambda *_: pytest.fail("the table was read again"), **unread)
    assert again.folder == first.folder
    assert isinstance(again.squares, np.memmap)


def test_another_size_fit_table_or_photo_is_another_pack(copy, tmp_path):
    cache = tmp_path / "cache"
    packs = [
        open_train(copy, cache)[0],
        open_train(copy, cache, roi=RegionOfInterest(32, 0, 0, 32))[0],
        open_train(copy, cache, resize="crop")[0],
    ]
    table = copy / LANDMARKS
    header, first, *rest = table.read_text().split("\n")
    table.write_text("\n".join([header, first.replace("\t", "\t1", 1), *rest]))
    packs.append(open_train(copy, cache, check_photos=True)[0])
    photo = copy / "train/images" / packs[0].names[0]
    cv2.imwrite(str(photo), np.zeros((50, 60, 3), np.uint8))
    packs.append(open_train(copy, cache, check_photos=True)[0])
    assert len({pack.folder for pack in packs}) == 5
    assert len({packs[0].fingerprint, packs[3].fingerprint, packs[4].fingerprint}) == 3


def test_windows_of_one_size_share_a_pack_and_shift_its_fits(copy, tmp_path):
    whole, _ = open_train(copy, tmp_path / "cache")
    roi, _ = open_train(copy, tmp_path / "cache", roi=RegionOfInterest(64, 10, 7, 48))
    assert roi.folder == whole.folder
    shift = [[1, 0, -10], [0, 1, -7], [0, 0, 1]]
    np.testing.assert_allclose(roi.photo_to_image, shift @ whole.photo_to_image, atol=1e-12)


def spoil(root):
    """Breaks four photos in four ways. Returns their names."""
    images = sorted((root / "train/images").iterdir())[:4]
    images[0].unlink()
    images[1].write_bytes(b"")
    images[2].write_bytes(images[2].read_bytes()[:1500])
    images[3].write_bytes(b"not a photo at all")
    return {path.name for path in images}


def test_broken_photos_are_all_named_and_nothing_is_kept(copy, tmp_path):
    names = spoil(copy)
    for _ in range(2):
        pack, faults = open_train(copy, tmp_path / "cache")
        assert pack is None
        assert len(faults) == 4
        assert all(any(name in line for line in faults) for name in names)
        assert any("cut short" in line for line in faults)
        assert not [path for path in (tmp_path / "cache").iterdir() if path.is_dir()]


def test_broken_photos_can_be_skipped_and_are_counted_but_not_forgotten(copy, tmp_path, monkeypatch):
    monkeypatch.setattr("pipeline.data.pack.blocks", lambda count: blocks(count, 7))
    whole = read_landmarks(copy / LANDMARKS, Faults())
    names = spoil(copy)
    pack, faults = open_train(copy, tmp_path / "cache", skip_bad_photos=True)
    assert faults == []
    assert set(pack.left_out) == names
    kept = [index for index, name in enumerate(whole.names) if name not in names]
    assert pack.names.tolist() == [whole.names[index] for index in kept]
    np.testing.assert_array_equal(pack.values, whole.values[kept])
    assert len(pack.squares) == len(pack.photo_to_image) == len(pack.hashes) == len(kept)
    refused, faults = open_train(copy, tmp_path / "cache")
    assert refused is None
    assert len(faults) == 4


def test_a_broken_photo_that_is_mended_in_its_place_is_packed(copy, tmp_path, monkeypatch):
    """Its folder keeps its time, and it need not be among the photos that are looked at in any case."""
    monkeypatch.setattr("pipeline.data.cache.NUM_WATCHED", 1)
    photo = sorted((copy / "train/images").iterdir())[20]
    whole = photo.read_bytes()
    photo.write_bytes(whole[:1500])
    for path in (copy / "train").rglob("*"):
        os.utime(path, (1e9, 1e9))
    broken, _ = open_train(copy, tmp_path / "cache", skip_bad_photos=True)
    assert photo.name in broken.left_out
    photo.write_bytes(whole)
    found, faults = open_train(copy, tmp_path / "cache")
    assert faults == []
    assert len(found) == len(broken) + 1


def test_checksums_tell_the_points_of_photos_whatever_the_size_of_the_pack(copy, tmp_path):
    small, _ = open_train(copy, tmp_path / "cache")
    large, _ = open_train(copy, tmp_path / "cache", roi=RegionOfInterest(96, 0, 0, 96))
    names = [*small.names[:5].tolist(), "nowhere.jpg"]
    found = small.checksums(names)
    assert list(found) == names[:5]
    assert len(set(found.values())) == 5
    assert large.fingerprint != small.fingerprint
    assert large.checksums(names) == found


def test_a_table_without_its_photos_is_a_fault(copy, tmp_path):
    shutil.rmtree(copy / "train/images")
    pack, faults = open_train(copy, tmp_path / "cache")
    assert pack is None
    assert "images is missing" in faults[0]


def test_a_cache_that_cannot_be_written_is_an_error_that_names_the_flag(contest, tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied", str(tmp_path))

    monkeypatch.setattr("pathlib.Path.mkdir", refuse)
    with pytest.raises(UserError, match="--cache"):
        open_train(contest, tmp_path / "cache")


def test_a_cache_on_a_file_system_without_locks_is_an_error_that_names_the_flag(contest, tmp_path, monkeypatch):
    no_locks = OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))
    monkeypatch.setattr("filelock.FileLock.acquire", mock.Mock(side_effect=no_locks))
    with pytest.raises(UserError, match=r"cache has no file locks .* --cache a local folder"):
        open_train(contest, tmp_path / "cache")


def cut(path):
    path.write_bytes(path.read_bytes()[:-1])


def flip(index):
    def damage(path):
        content = bytearray(path.read_bytes())
        content[index] ^= 4
        path.write_bytes(content)

    return damage


def write(content):
    return lambda path: path.write_bytes(content)


def fold(path):
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("images.u8", cut),
        ("images.u8", lambda path: path.unlink()),
        ("values.npy", cut),
        ("values.npy", flip(3)),  # the magic
        ("values.npy", flip(9)),  # the length of the header
        ("values.npy", flip(22)),  # the type
        ("values.npy", flip(-9)),  # a number
        ("fits.npy", lambda path: np.save(path, np.zeros((80, 2, 3)))),
        ("hashes.npy", lambda path: np.save(path, np.zeros((79, 32), np.uint8))),
        ("names.npy", fold),
        ("names.npy", write(b"")),
        ("pack.json", write(b"{")),
        ("pack.json", write(b"[" * 100_000)),
        ("pack.json", write(b'{"fingerprint": 1, "left_out": []}')),
        (".", lambda path: shutil.rmtree(path) or path.write_text("not a folder")),
    ],
)
def test_a_damaged_pack_is_made_anew_and_said(name, damage, small, tmp_path, capsys):
    root, packed = small
    cache = shutil.copytree(packed.folder.parent, tmp_path / "cache")
    folder = cache / packed.folder.name
    damage(folder / name)
    again, faults = open_train(root, cache, roi=RegionOfInterest(8, 0, 0, 8))
    assert faults == []
    assert f"{folder} is damaged" in capsys.readouterr().out
    for part in ("squares", "photo_to_image", "values", "hashes", "names"):
        np.testing.assert_array_equal(getattr(again, part), getattr(packed, part))
    open_train(root, cache, roi=RegionOfInterest(8, 0, 0, 8))
    assert "damaged" not in capsys.readouterr().out


@pytest.fixture(scope="module")
def small(contest, tmp_path_factory):
    """The contest and a small pack of it, not to be changed."""
    return contest, open_train(contest, tmp_path_factory.mktemp("cache"), roi=RegionOfInterest(8, 0, 0, 8))[0]


def test_links_that_lead_nowhere_or_round_in_a_circle_break_their_photos_alone(copy, tmp_path):
    images = copy / "train/images"
    one, other, third = sorted(images.iterdir())[:3]
    one.unlink()
    one.symlink_to(one)
    other.unlink()
    other.symlink_to("nowhere")
    third.unlink()
    third.mkdir()
    (images / "round").symlink_to(images)
    pack, faults = open_train(copy, tmp_path / "cache")
    assert pack is None
    assert len(faults) == 3
    pack, faults = open_train(copy, tmp_path / "cache", skip_bad_photos=True)
    assert set(pack.left_out) == {one.name, other.name, third.name}


def test_a_photo_in_a_linked_folder_that_changes_makes_another_pack(copy, tmp_path):
    images, elsewhere = copy / "train/images", tmp_path / "elsewhere"
    shutil.move(images, elsewhere / "images")
    images.mkdir()
    (images / "part").symlink_to(elsewhere / "images")
    before = content_key(copy / LANDMARKS)
    next((elsewhere / "images").iterdir()).write_bytes(b"another photo")
    assert content_key(copy / LANDMARKS) != before


def test_what_a_killed_build_left_is_cleared_away(contest, tmp_path):
    pack, _ = open_train(contest, tmp_path)
    half = pack.folder.with_name(pack.folder.name + ".building")
    shutil.move(pack.folder, half)
    (half / "pack.json").unlink()
    again, faults = open_train(contest, tmp_path)
    assert faults == []
    assert len(again) == 80
    assert not half.exists()


def _open_in_process(root, cache, queue):
    pack, faults = open_train(root, cache)
    queue.put((pack.fingerprint, int(pack.squares[:].astype(np.int64).sum()), faults))


def test_two_runs_that_build_at_once_both_get_it(contest, tmp_path):
    context = forked()
    queue = context.Queue()
    processes = [context.Process(target=_open_in_process, args=(contest, tmp_path, queue)) for _ in range(2)]
    for process in processes:
        process.start()
    found = [queue.get(timeout=120) for _ in processes]
    for process in processes:
        process.join()
    assert found[0] == found[1]
    assert len([path for path in tmp_path.iterdir() if path.is_dir()]) == 1


def test_a_photo_as_telephones_write_them_is_whole_and_one_cut_short_is_not(tmp_path):
    """A thumbnail in front and a film behind have ends and scans of their own."""
    pixels = np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)
    for progressive in (0, 1):
        jpeg = cv2.imencode(".jpg", pixels, (cv2.IMWRITE_JPEG_PROGRESSIVE, progressive))[1].tobytes()
        thumbnail = b"\xff\xe1" + (len(jpeg[:9000]) + 2).to_bytes(2, "big") + jpeg[:9000]
        film = np.random.default_rng(1).integers(0, 256, 200_000, dtype=np.uint8).tobytes() + b"\xff\xda\x00\x08"
        path = tmp_path / "photo.jpg"
        path.write_bytes(jpeg[:2] + thumbnail + jpeg[2:] + film)
        assert read_photo(path).shape == pixels.shape
        path.write_bytes(jpeg[:2] + thumbnail + jpeg[2:-500])
        with pytest.raises(BrokenPhoto, match="cut short"):
            read_photo(path)
