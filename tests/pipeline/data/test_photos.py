"""A photo is read whole or not at all, and none is decoded that declares a size that no photo has."""

import io
import os
import struct
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pipeline.data.headers import declared_size
from pipeline.data.photos import BrokenPhoto, read_photo

FORMATS = {
    "jpeg": ("JPEG", {}),
    "progressive": ("JPEG", {"progressive": True}),
    "png": ("PNG", {}),
    "webp": ("WEBP", {}),
    "webp lossless": ("WEBP", {"lossless": True}),
    "webp with metadata": ("WEBP", {"exif": b"Exif\0\0II*\0\x08\0\0\0\0\0\0\0\0\0"}),
    "tiff": ("TIFF", {}),
    "big tiff": ("TIFF", {"big_tiff": True}),
    "bmp": ("BMP", {}),
    "gif": ("GIF", {}),
}


def encode(kind, width, height):
    name, options = FORMATS[kind]
    file = io.BytesIO()
    Image.effect_noise((width, height), 90).convert("RGB").save(file, name, **options)
    return file.getvalue()


@given(st.sampled_from(sorted(FORMATS)), st.integers(1, 300), st.integers(1, 300))
def test_the_declared_size_is_that_of_the_image(kind, width, height):
    content = encode(kind, width, height)
    assert declared_size(content) == (width, height)
    for end in range(0, len(content), 1 + len(content) // 7):
        assert declared_size(content[:end]) in (None, (width, height))


def test_a_tiff_of_the_other_order_of_bytes_declares_its_size():
    entries = struct.pack(">HHIHxx", 256, 3, 1, 300) + struct.pack(">HHII", 257, 4, 1, 200)
    assert declared_size(b"MM\0*" + struct.pack(">IH", 8, 2) + entries) == (300, 200)


@pytest.mark.parametrize(
    ("kind", "before", "layout", "apart"),
    [
        ("png", b"IHDR", ">I", 4),
        ("jpeg", b"\xff\xc0\0\x11\x08", ">H", 2),
        ("progressive", b"\xff\xc2\0\x11\x08", ">H", 2),
        ("bmp", b"\x28\0\0\0", "<i", 4),
        ("gif", b"GIF87a", "<H", 2),
        ("webp with metadata", b"VP8X\x0a\0\0\0\x08\0\0\0", "<H", 3),
        ("tiff", b"\0\1\4\0\1\0\0\0", "<I", 12),
    ],
)
def test_a_size_that_no_memory_holds_is_refused_before_it_is_decoded(
    kind, before, layout, apart, tmp_path, monkeypatch
):
    content = bytearray(encode(kind, 30, 20))
    offset = content.index(before) + len(before)
    for each in (offset, offset + apart):
        struct.pack_into(layout, content, each, 65535)
    monkeypatch.setattr("cv2.imdecode", lambda *_: pytest.fail("it was decoded"))
    (tmp_path / "photo").write_bytes(content)
    with pytest.raises(BrokenPhoto, match=r"65,53[56] x 65,53[56] pixels, more than 268,435,456"):
        read_photo(tmp_path / "photo")


def test_a_size_that_opencv_refuses_in_another_format_is_a_broken_photo(tmp_path):
    (tmp_path / "photo.ppm").write_bytes(b"P6\n60000 60000\n255\n" + bytes(100))
    with pytest.raises(BrokenPhoto, match="not an image that can be decoded"):
        read_photo(tmp_path / "photo.ppm")


def test_what_no_photo_can_be_read_from_is_a_broken_photo_at_once(tmp_path):
    (tmp_path / "folder.jpg").mkdir()
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "loop.jpg").symlink_to(tmp_path / "loop.jpg")
    for name in ("nowhere.jpg", "folder.jpg", "pipe.jpg", "loop.jpg", "/dev/zero", "n" * 300):
        with pytest.raises(BrokenPhoto, match="cannot be read"):
            read_photo(tmp_path / name)
    with (tmp_path / "large.jpg").open("wb") as file:
        file.truncate(2**31)
    with pytest.raises(BrokenPhoto, match="has 2,147,483,648 bytes"):
        read_photo(tmp_path / "large.jpg")


def test_a_big_tiff_of_which_something_lies_beyond_any_file_has_no_size():
    assert declared_size(b"II\x2b\0\x08\0\0\0" + b"\xff" * 8 + bytes(64)) is None


def test_a_file_that_comes_in_parts_is_read_whole(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    cv2.imwrite(str(path), np.random.default_rng(0).integers(0, 256, (40, 30, 3), np.uint8))
    whole = read_photo(path)

    class Slow(io.FileIO):
        def read(self, size=-1):
            return super().read(min(size, 1000))

    monkeypatch.setattr(Path, "open", lambda path, *_, **__: Slow(path))
    np.testing.assert_array_equal(read_photo(path), whole)


def test_a_line_of_pixels_is_no_photo(tmp_path):
    """Fitted by its short side it would be larger than any memory."""
    cv2.imwrite(str(tmp_path / "line.png"), np.zeros((2, 500, 3), np.uint8))
    with pytest.raises(BrokenPhoto, match="500 x 2 pixels, which is no photo"):
        read_photo(tmp_path / "line.png")
