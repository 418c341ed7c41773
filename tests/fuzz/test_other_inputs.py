"""Whatever stands in the tables and records beside a contest's own, in what the cache keeps and in labels of other
formats, it is taken as it stands there, made anew, or refused in a line."""

import csv
import io
import json
import shutil
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from augment import RegionOfInterest
from pipeline.data.boxes import read_boxes
from pipeline.data.contest import LANDMARKS, read_landmarks
from pipeline.data.kept import kept, kept_numbers
from pipeline.data.pack import open_pack
from pipeline.data.regions import read_regions
from pipeline.data.sample_weights import read_sample_weights
from pipeline.errors import Faults
from pipeline.inference.record import keep_earlier, note_leaderboard, write_record
from pipeline.inference.submission import write_submission
from tests.fuzz.campaign import NUM_CASES, campaign, check_line, one_of, tried
from tests.fuzz.damage import bring_back, remove, spoil_file, spoil_value, tree
from tests.fuzz.mutations import mutate
from tests.fuzz.test_recipes import plain
from tests.tools import formats
from tests.tools.test_convert import SEVERAL, options, source
from tools.convert import convert
from tools.convert_back import convert_back
from tools.formats.known import FORMATS
from tools.ledger import find_entries, print_ledger

NAMES = [f"{index}.jpg" for index in range(9)]
KINDS = [name for name in FORMATS if name != "kaggle_faces"]


def taken(kind, path, content, read, check):
    """A campaign on a file: what `read` makes of it passes `check`, or is refused by the file's name."""

    def check_case(rng):
        remove(path)
        path.write_bytes(content)
        spoil_file(path, rng)
        outcome = tried(read)
        if outcome.refused:
            check_line(outcome.refused, path)
            return "refused"
        check(outcome.result)
        return "taken"

    campaign(kind, check_case, cases=range(3 * NUM_CASES))


def rows_of(path):
    rows = [row for row in csv.reader(io.StringIO(path.read_bytes().decode("utf-8-sig"), newline="")) if row]
    return rows[0], rows[1:]


def test_boxes_are_taken_as_they_stand_there_or_refused(tmp_path):
    path = tmp_path / "boxes.csv"
    rows = [f"{name},{index},2.5,{index + 30},40" for index, name in enumerate([*NAMES, NAMES[0]])]
    content = "\n".join(["file_name,left,top,right,bottom", *rows, ""]).encode()

    def check(found):
        boxes = [(name, box) for name, own in found.of_photo.items() for box in own]
        if b"\t" not in path.read_bytes():
            expected = [(row[0], tuple(map(float, row[1:]))) for row in rows_of(path)[1]]
            assert sorted(boxes) == sorted(expected)
        assert all(left < right and top < bottom for _, (left, top, right, bottom) in boxes)

    taken("--boxes FILE", path, content, lambda: read_boxes(path), check)


def test_weights_of_photos_are_taken_as_they_stand_there_or_refused(tmp_path):
    path = tmp_path / "weights.csv"
    rows = [f"{name},x,{index / 4}" for index, name in enumerate(NAMES)]

    def check(found):
        header, rows = rows_of(path)
        stand = {row[header.index("file_name")]: float(row[header.index("weight")]) for row in rows}
        expected = np.array([stand.get(name, 1.0) for name in NAMES])
        np.testing.assert_array_equal(np.ones(len(NAMES)) if found is None else found, expected)

    content = "\n".join(["file_name,reason,weight", *rows, ""]).encode()
    taken("--sample-weights FILE", path, content, lambda: read_sample_weights(path, np.array(NAMES)), check)


def test_regions_are_taken_as_they_stand_there_or_refused(tmp_path):
    path = tmp_path / "regions.json"

    def check(found):
        text = path.read_text(encoding="utf-8-sig")
        assert {name: points.tolist() for name, points in found.items()} == json.loads(text)

    content = json.dumps({"jaw": [0, 1, 2], "nose": [3, 4]}).encode()
    taken("--regions FILE", path, content, lambda: read_regions(path, 5), check)


def test_the_ledger_shows_submissions_whatever_stands_in_their_records(tmp_path):
    path = tmp_path / "submission.csv"
    write_submission(path, ["a.jpg"], np.ones((1, 2, 2)), decimals=2)
    content = path.read_bytes()
    made_of = {"runs": [{"run": "a", "views": [[], []]}], "submissions": ["b"], "weights": [1.0], "decimals": 2}
    record = path.with_name("submission.csv.json")

    def check(rng):
        remove(record)
        write_record(path, made_of, expected={"mse": 4.0, "low": 3.0, "high": 5.0})
        note_leaderboard(path, 4.5)
        if rng.random() < 0.5:
            record.write_text(json.dumps(plain(spoil_value(json.loads(record.read_text()), rng)), default=str))
        else:
            spoil_file(record, rng)
        entries = find_entries([path])
        with redirect_stdout(io.StringIO()) as out:
            print_ledger(entries)
        assert (str(path) in out.getvalue()) == bool(entries)
        if record.is_dir():  # which the system refuses to replace, by its name
            return "not noted"
        note_leaderboard(path, 3.25)
        assert find_entries([path])[0].leaderboard == 3.25
        assert path.read_bytes() == content
        if kept_as := keep_earlier(path, {"other": 1}):
            kept_as.rename(path)
            remove(kept_as.with_name(f"{kept_as.name}.json"))
        return "shown" if entries else "not shown"

    campaign("ledger", check)


@dataclass(frozen=True)
class Found:
    numbers: list[float]
    text: str


def test_what_the_cache_keeps_is_what_it_was_or_found_anew(tmp_path):
    path, plain_value, numbers = tmp_path / "kept", Found([1.5, 2.5], "x"), np.arange(5, dtype=np.int32)

    def check(rng):
        remove(path)
        is_plain = rng.random() < 0.5
        get = (lambda: kept(path, Found, lambda: plain_value)) if is_plain else partial(kept_numbers, path, 5)
        read = get if is_plain else lambda: get(lambda: numbers)
        with redirect_stdout(io.StringIO()):
            read()
            spoil_file(path, rng)
            found = tried(read).result
            assert found == plain_value if is_plain else found.tolist() == numbers.tolist()
        return "as it was"

    campaign("kept in the cache", check)


def test_a_pack_of_jpegs_in_a_damaged_cache_is_what_it_was_or_refused(tmp_path, monkeypatch):
    """A damaged JPEG mostly decodes to other pixels, which nothing tells; see docs/fuzzing.md."""
    monkeypatch.setattr("pipeline.data.pack.sync", lambda path: None)
    (tmp_path / "train/images").mkdir(parents=True)
    for name in NAMES:
        Image.effect_noise((16, 16), 90).convert("RGB").save(tmp_path / "train/images" / name)
    rows = [f"{name}\t1\t{index}\t3\t" for index, name in enumerate(NAMES)]
    (tmp_path / LANDMARKS).write_text("\n".join(["file_name\tx\ty\tx\ty", *rows, ""]))
    table, roi = read_landmarks(tmp_path / LANDMARKS, Faults()), RegionOfInterest(16, 0, 0, 16)

    def opened():
        with redirect_stdout(io.StringIO()):
            pack = open_pack(
                tmp_path / LANDMARKS, lambda *_: table, cache=tmp_path / "cache", roi=roi, resize="letterbox",
                kind="jpeg", faults=(faults := Faults()),
            )  # fmt: skip
        assert faults.lines == []
        return pack, pack.squares[:]

    pack, _ = opened()
    whole = shutil.copytree(pack.folder, tmp_path / "whole")
    files = sorted(whole.iterdir())

    def check(rng):
        bring_back(pack.folder, whole)
        name = one_of(rng, files).name
        (pack.folder / name).write_bytes(mutate((whole / name).read_bytes(), rng))
        outcome = tried(opened)
        if outcome.refused:
            check_line(outcome.refused, pack.folder / "images.jpg")
            return "refused"
        again, squares = outcome.result
        assert again.names.tolist() == table.names
        np.testing.assert_array_equal(again.values, table.values)
        assert (squares.shape, again.hashes.shape) == ((9, 16, 16, 3), (9, 32))
        return "as it was"

    campaign("cache of JPEGs", check)


@pytest.mark.parametrize("kind", KINDS)
def test_labels_of_another_format_become_a_contest_or_are_refused(tmp_path, kind):
    (tmp_path / "source").mkdir()
    path, _ = source(tmp_path / "source", kind)
    label = path if path.is_file() else next(path.rglob("*.pts"))
    content, out = label.read_bytes(), tmp_path / "out"

    def check(rng):
        remove(out)
        bring_back_bytes(label, content)
        if content.startswith((b"{", b"[")) and rng.random() < 0.5:
            label.write_text(json.dumps(plain(spoil_value(json.loads(content), rng)), default=str))
        else:
            spoil_file(label, rng)
        with redirect_stdout(io.StringIO()):
            outcome = tried(lambda: convert(options(kind, path, out, test=path)))
        assert {one.name for one in tmp_path.iterdir()} <= {"source", "out"}
        if outcome.refused:
            check_line(outcome.refused, path.parent, "is no name of a photo", "instances are on")
            assert not out.exists()
            return "refused"
        table = read_landmarks(out / LANDMARKS, faults := Faults())
        assert not faults.lines, faults.lines[:2]
        assert len(table.names) > 0
        return "converted"

    campaign(f"convert {kind}", check, cases=range(-(-NUM_CASES // 2)))


def bring_back_bytes(path: Path, content: bytes):
    remove(path)
    path.write_bytes(content)


def test_predictions_go_back_or_are_refused_whatever_stands_in_the_source(tmp_path):
    places = {}
    for kind in SEVERAL:
        (tmp_path / kind).mkdir()
        path, _ = source(tmp_path / kind, kind)
        with redirect_stdout(io.StringIO()):
            convert(options(kind, path, tmp_path / f"{kind}-out", test=path))
        about = tmp_path / f"{kind}-out/source.json"
        places[kind] = about, about.read_bytes()

    def check(rng):
        kind = one_of(rng, SEVERAL)
        about, content = places[kind]
        bring_back_bytes(about, content)
        names = list(json.loads(content)["photos"])
        submission, answer = tmp_path / "submission.csv", tmp_path / "answer"
        remove(answer)
        write_submission(submission, names, np.full((len(names), len(formats.NAMES), 2), 3.0), decimals=2)
        if rng.random() < 0.5:
            about.write_text(json.dumps(plain(spoil_value(json.loads(content), rng)), default=str))
        else:
            spoil_file(about, rng)
        before = tree(tmp_path, but=(answer,))
        outcome = tried(lambda: convert_back(about.parent, submission, answer))
        assert tree(tmp_path, but=(answer,)) == before
        if outcome.refused:
            check_line(outcome.refused, about, submission, about.parent)
            return "refused"
        assert outcome.result == len(names)
        return "written"

    campaign("convert_back", check)
