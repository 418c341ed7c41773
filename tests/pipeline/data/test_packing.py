"""An interrupted packing goes on where it was and ends the same; what does not fit is refused; JPEGs are as good."""

import errno
import json
import shutil
from collections import namedtuple
from functools import partial
from unittest import mock

import numpy as np
import pytest
import torch
from filelock import FileLock

from augment import RegionOfInterest
from pipeline.data import pack as pack_module
from pipeline.data import packing, photos
from pipeline.data.contest import LANDMARKS, read_landmarks
from pipeline.data.pack import Pack, open_pack
from pipeline.data.source import HostSource
from pipeline.errors import Faults, UserError
from pipeline.stopping import Stopped

ROI = RegionOfInterest(64, 0, 0, 64)
FILES = ("squares", "photo_to_image", "values", "hashes", "names", "fingerprint")


def opened(root, cache, **options):
    faults = Faults()
    found = open_pack(
        root / LANDMARKS, read_landmarks, cache=cache, roi=ROI, resize="letterbox", faults=faults, **options
    )
    faults.refuse()
    return found


@pytest.fixture(scope="module")
def packs(contest, tmp_path_factory):
    """A pack of each kind, not to be changed."""
    cache = tmp_path_factory.mktemp("cache")
    return {kind: opened(contest, cache, kind=kind) for kind in ("raw", "jpeg")}


def assert_same(pack, other):
    for name in FILES:
        np.testing.assert_array_equal(getattr(pack, name)[:], getattr(other, name)[:])
    assert sorted(path.name for path in pack.folder.iterdir()) == sorted(path.name for path in other.folder.iterdir())


@pytest.fixture
def stopping(monkeypatch):
    """Stops a packing when so many photos are asked for; gives the names of those that were read."""
    monkeypatch.setattr(packing, "BLOCK", 4)
    monkeypatch.setattr(packing, "num_cores", lambda: 1)
    read, names = packing.read_photo, []

    def after(count):
        names.clear()

        def stop(path):
            names.append(path.name)
            if len(names) == count:
                raise Stopped(2)
            return read(path)

        monkeypatch.setattr(packing, "read_photo", stop)
        return names

    return after


@pytest.mark.parametrize("kind", ["raw", "jpeg"])
def test_an_interrupted_packing_goes_on_where_it_was(kind, contest, packs, tmp_path, stopping, capsys):
    stopping(50)
    with pytest.raises(Stopped):
        opened(contest, tmp_path, kind=kind)
    names = stopping(0)
    assert_same(opened(contest, tmp_path, kind=kind), packs[kind])
    assert 10 < len(names) < 70
    assert "packing goes on behind" in capsys.readouterr().out
    assert not list(tmp_path.glob("*.building"))


def test_a_stop_after_the_last_photo_loses_none(contest, packs, tmp_path, stopping, monkeypatch):
    save_rows = pack_module._save_rows
    monkeypatch.setattr(pack_module, "_save_rows", mock.Mock(side_effect=Stopped(2)))
    with pytest.raises(Stopped):
        opened(contest, tmp_path, kind="raw")
    monkeypatch.setattr(pack_module, "_save_rows", save_rows)
    names = stopping(0)
    assert_same(opened(contest, tmp_path, kind="raw"), packs["raw"])
    assert names == []


def test_of_an_interrupted_packing_of_the_other_kind_nothing_is_left(contest, packs, tmp_path, stopping):
    stopping(50)
    with pytest.raises(Stopped):
        opened(contest, tmp_path, kind="raw")
    stopping(0)
    assert_same(opened(contest, tmp_path, kind="jpeg"), packs["jpeg"])
    assert not list(tmp_path.glob("*.building"))


def test_a_file_system_that_is_gone_for_a_while_breaks_no_photo(contest, packs, tmp_path, monkeypatch):
    check_regular = photos.check_regular

    def gone(path):
        if path.name == packs["raw"].names[7]:
            raise OSError(errno.ENOTCONN, "not connected")
        return check_regular(path)

    monkeypatch.setattr(photos, "check_regular", gone)
    with pytest.raises(OSError, match="not connected"):
        opened(contest, tmp_path, kind="raw", skip_bad_photos=True)
    monkeypatch.setattr(photos, "check_regular", check_regular)
    assert_same(opened(contest, tmp_path, kind="raw", skip_bad_photos=True), packs["raw"])


def test_photos_wait_to_be_written_in_so_much_memory_and_no_more(tmp_path, monkeypatch):
    found = []
    monkeypatch.setattr(packing, "num_cores", lambda: 64)
    monkeypatch.setattr(packing, "map_with_all_cores", lambda read, left, *, ahead: found.append(ahead) or [])
    for size in (64, 1024):
        packing.pack_photos(tmp_path, [], tmp_path, packing.Fitting(size, "letterbox", "raw"))
    assert found == [256, 64]


def cut_images(folder):
    path = folder / "images.u8"
    path.write_bytes(path.read_bytes()[:-1000])


def cut_records(folder):
    path = folder / "records"
    path.write_bytes(path.read_bytes()[:100])


def other_names(folder):
    path = folder / "so-far.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"names": "others"}))


def no_note(folder):
    (folder / "so-far.json").write_text("{")


def more_rows(folder):
    path = folder / "so-far.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"rows": 10**9}))


def written_behind_the_note(folder):
    """As a kill leaves it: the files go further than what was written down."""
    for name in ("images.u8", "records"):
        with (folder / name).open("ab") as file:
            file.write(b"\7" * 12345)


@pytest.mark.parametrize("damage", [cut_images, cut_records, other_names, no_note, more_rows, written_behind_the_note])
def test_what_cannot_be_trusted_of_an_interrupted_packing_is_packed_anew(damage, contest, packs, tmp_path, stopping):
    stopping(50)
    with pytest.raises(Stopped):
        opened(contest, tmp_path, kind="raw")
    (building,) = tmp_path.glob("*.building")
    damage(building)
    names = stopping(0)
    assert_same(opened(contest, tmp_path, kind="raw"), packs["raw"])
    assert (len(names) == 80) == (damage is not written_behind_the_note)


def test_photos_that_were_left_out_before_the_stop_stay_so(contest, tmp_path, stopping):
    root = shutil.copytree(contest, tmp_path / "contest")
    first = read_landmarks(root / LANDMARKS, Faults()).names[3]
    (root / "train/images" / first).write_bytes(b"no photo")
    stopping(50)
    with pytest.raises(Stopped):
        opened(root, tmp_path / "cache", skip_bad_photos=True)
    stopping(0)
    again = opened(root, tmp_path / "cache", skip_bad_photos=True)
    assert list(again.left_out) == [first]
    assert_same(again, opened(root, tmp_path / "other", skip_bad_photos=True))


def disk_with(monkeypatch, free):
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(packing.shutil, "disk_usage", lambda path: usage(free))


def test_what_does_not_fit_on_the_disk_is_refused_with_the_figures_before_it_is_read(contest, tmp_path, monkeypatch):
    disk_with(monkeypatch, 500_000)
    monkeypatch.setattr("pipeline.data.pack.pack_photos", lambda *_, **__: pytest.fail("photos were read"))
    with pytest.raises(UserError, match=r"about 80 photos of 64 px need 1\.\d MB in .*0\.5 MB are free"):
        opened(contest, tmp_path)
    with pytest.raises(UserError, match=r"--pack jpeg needs about 1\.\d MB"):
        opened(contest, tmp_path, kind="raw")
    assert not [path for path in tmp_path.iterdir() if path.suffix not in (".lock", ".json")]


def test_a_limited_pack_needs_room_for_its_photos_alone(contest, tmp_path, monkeypatch):
    disk_with(monkeypatch, 1_000_000)
    choose = partial(packing.choose_kind, "raw", contest / LANDMARKS, tmp_path / "pack", size=64)
    assert choose(limit=10) == "raw"
    with pytest.raises(UserError, match="about 80 photos"):
        choose(limit=None)


def test_jpegs_are_chosen_where_raw_photos_do_not_fit_and_stay_chosen(contest, packs, tmp_path, monkeypatch, capsys):
    disk_with(monkeypatch, 2_000_000)
    found = opened(contest, tmp_path)
    assert "the cache takes JPEGs: 2.0 MB are free, and raw photos need 2." in capsys.readouterr().out
    assert_same(found, packs["jpeg"])
    disk_with(monkeypatch, 10**12)
    assert opened(contest, tmp_path).folder == found.folder


def test_jpegs_show_what_raw_photos_show_in_any_order_of_samples(packs):
    raw, jpeg = packs["raw"], packs["jpeg"]
    assert jpeg.fingerprint == raw.fingerprint
    assert (jpeg.folder / "images.jpg").stat().st_size * 4 < (raw.folder / "images.u8").stat().st_size
    for samples in (slice(3, 40, 2), np.array([7, 7, 2]), [5], 4, np.array([], int), np.array([[1, 2], [79, 0]])):
        found, expected = jpeg.squares[samples], raw.squares[samples]
        assert found.shape == expected.shape
        assert np.abs(found.astype(float) - expected).sum() <= 2 * found.size
    samples = np.arange(70)[::-1]
    sources = [HostSource(pack.squares, torch.device("cpu")).take(samples).float() for pack in (jpeg, raw)]
    assert (sources[0] - sources[1]).abs().mean() < 2


@pytest.mark.parametrize("name", ["images.jpg", "ends.npy"])
def test_a_damaged_jpeg_pack_is_made_anew(name, contest, packs, tmp_path, capsys):
    cache = shutil.copytree(packs["jpeg"].folder.parent, tmp_path / "cache")
    path = cache / packs["jpeg"].folder.name / name
    path.write_bytes(path.read_bytes()[:-8])
    assert_same(opened(contest, cache, kind="jpeg"), packs["jpeg"])
    assert "is damaged" in capsys.readouterr().out


def test_a_jpeg_that_is_damaged_inside_is_an_error_that_names_the_pack(packs, tmp_path):
    folder = shutil.copytree(packs["jpeg"].folder, tmp_path / "pack")
    content = bytearray((folder / "images.jpg").read_bytes())
    content[:64] = bytes(64)
    (folder / "images.jpg").write_bytes(content)
    with pytest.raises(UserError, match="is damaged at photo 0"):
        Pack(folder, ROI).squares[0]


def test_what_an_interrupted_packing_left_goes_when_its_data_have_changed(contest, tmp_path, stopping):
    """And stays while they have not, or another process goes on with it."""
    root, other = (shutil.copytree(contest, tmp_path / name) for name in ("contest", "other"))
    cache = tmp_path / "cache"
    stopping(50)
    with pytest.raises(Stopped):
        opened(root, cache)
    (first,) = cache.glob("*.building")
    stopping(0)
    (other / LANDMARKS).touch()
    opened(other, cache)
    with FileLock(first.with_name(f"{first.stem}.lock")):
        (root / LANDMARKS).touch()
        opened(root, cache)
    assert list(cache.glob("*.building")) == [first]
    (root / LANDMARKS).touch()
    opened(root, cache)
    assert not list(cache.glob("*.building"))
