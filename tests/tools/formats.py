"""Small sources in each format, written by the format's documented rules, and what an answer in it says.

Each maker gets the things on the photos, with points and boxes in pixels whose centres are at integers, and writes a
source; each reader gives the points of an answer back in those pixels.
"""

import csv
import json
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import cv2
import numpy as np

NAMES = ["left_eye", "right_eye", "nose"]
WIDTH, HEIGHT = 120, 90


@dataclass(frozen=True)
class Thing:
    """points: (3, 2) whole pixels, NaN where missing. box: left, top, right, bottom."""

    photo: str
    points: np.ndarray
    box: tuple[int, int, int, int]


def things(*, on_a_photo: int, gaps: bool, count: int = 12) -> list[Thing]:
    """Things in the halves of photos."""
    rng = np.random.default_rng(0)
    found = []
    for number in range(count):
        left = 60 * (number % on_a_photo)
        points = rng.permutation(np.stack(np.meshgrid([12, 25, 38], [20, 45, 70]), -1).reshape(-1, 2))[:3]
        points = points + [left, 0] + rng.integers(-3, 4, (3, 2)).astype(float)
        if gaps and number % 4 == 3:
            points[1] = np.nan
        found.append(Thing(f"video/{number // on_a_photo}.png", points, (left + 5, 12, left + 48, 78)))
    return found


def draw(folder: Path, found: list[Thing]) -> Path:
    """Photos with a dot at each point, the first of them the brightest."""
    for name in {thing.photo for thing in found}:
        photo = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
        for thing in found:
            if thing.photo == name:
                for grey, (x, y) in zip((255, 200, 150), np.nan_to_num(thing.points, nan=-1).astype(int), strict=True):
                    if x >= 0:
                        photo[y, x] = grey
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / name), photo)
    return folder


def coco(folder, found):
    names = sorted({thing.photo for thing in found})
    annotations = []
    for number, thing in enumerate(found):
        seen = [(x, y, 2) if x == x else (0, 0, 0) for x, y in thing.points.tolist()]
        left, top, right, bottom = thing.box
        annotations.append(
            {
                "id": number + 1,
                "image_id": 100 + names.index(thing.photo),
                "category_id": 7,
                "keypoints": [value for point in seen for value in point],
                "num_keypoints": sum(v > 0 for *_, v in seen),
                "bbox": [left, top, right - left, bottom - top],
                "area": (right - left) * (bottom - top),
                "iscrowd": 0,
            }
        )
    images = [{"id": 100 + i, "file_name": name, "width": WIDTH, "height": HEIGHT} for i, name in enumerate(names)]
    category = {"id": 7, "name": "face", "keypoints": NAMES, "skeleton": [[1, 2]]}
    path = folder / "coco.json"
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": [category]}))
    return path


def read_coco(path, found):
    return [np.array(result["keypoints"]).reshape(-1, 3)[:, :2] for result in json.loads(path.read_text())]


def pts(folder, found):
    for thing in found:
        rows = "\n".join(f"{x + 1:.3f} {y + 1:.3f}" for x, y in thing.points.tolist())
        (folder / thing.photo).with_suffix(".pts").write_text(f"version: 1\nn_points: 3\n{{\n{rows}\n}}\n")
    return folder


def read_pts(path, found):
    files = [(path / thing.photo).with_suffix(".pts").read_text().splitlines() for thing in found]
    assert all(lines[:3] == ["version: 1", "n_points: 3", "{"] and lines[-1] == "}" for lines in files)
    return [np.array([line.split() for line in lines[3:-1]], float) - 1 for lines in files]


def wflw(folder, found):
    path = folder / "list.txt"
    rows = [[*thing.points.ravel(), *thing.box, 0, 1, 0, 0, 0, 1, thing.photo] for thing in found]
    path.write_text("".join(" ".join(map(str, row)) + "\n" for row in rows))
    return path


def read_wflw(path, found):
    rows = [line.split() for line in path.read_text().splitlines()]
    assert [row[-1] for row in rows] == [thing.photo for thing in found]
    assert all([float(cell) for cell in row[6:10]] == list(thing.box) for row, thing in zip(rows, found, strict=True))
    return [np.array(row[:6], float).reshape(3, 2) for row in rows]


def cvat(folder, found):
    root = ElementTree.Element("annotations")
    for number, name in enumerate(sorted({thing.photo for thing in found})):
        image = ElementTree.SubElement(root, "image", id=str(number), name=name, width=str(WIDTH), height=str(HEIGHT))
        for group, thing in enumerate((one for one in found if one.photo == name), start=1):
            edges = zip(("xtl", "ytl", "xbr", "ybr"), map(str, thing.box), strict=True)
            ElementTree.SubElement(image, "box", {"label": "face", "group_id": str(group)} | dict(edges))
            skeleton = ElementTree.SubElement(image, "skeleton", label="face", group_id=str(group))
            for label, (x, y) in zip(NAMES, np.nan_to_num(thing.points), strict=True):
                outside = "0" if label != "right_eye" or np.isfinite(thing.points[1, 0]) else "1"
                place = {"label": label, "outside": outside, "occluded": "0", "points": f"{x + 0.5:.2f},{y + 0.5:.2f}"}
                ElementTree.SubElement(skeleton, "points", place)
    path = folder / "annotations.xml"
    ElementTree.ElementTree(root).write(path)
    return path


def read_cvat(path, found):
    skeletons = ElementTree.parse(path).getroot().iter("skeleton")
    pairs = [[point.get("points").split(",") for point in skeleton] for skeleton in skeletons]
    return [np.array(points, float) - 0.5 for points in pairs]


def label_studio(folder, found):
    tasks = []
    for number, name in enumerate(sorted({thing.photo for thing in found})):
        result = []
        size = {"original_width": WIDTH, "original_height": HEIGHT, "image_rotation": 0}
        for thing in (one for one in found if one.photo == name):
            left, top, right, bottom = thing.box
            box = {
                "x": 100 * left / WIDTH,
                "y": 100 * top / HEIGHT,
                "width": 100 * (right - left) / WIDTH,
                "height": 100 * (bottom - top) / HEIGHT,
                "rotation": 0,
                "rectanglelabels": ["face"],
            }
            parent = f"region-{left}"
            names = {"from_name": "tag", "to_name": "img"}
            result.append({"id": parent, "type": "rectanglelabels", "value": box} | size | names)
            for label, (x, y) in zip(NAMES, thing.points, strict=True):
                if x == x:
                    value = {"x": 100 * (x + 0.5) / WIDTH, "y": 100 * (y + 0.5) / HEIGHT, "width": 0.4}
                    region = {"id": f"{label}{left}", "type": "keypointlabels", "parentID": parent} | size | names
                    result.append(region | {"value": value | {"keypointlabels": [label]}})
        data = {"image": f"/data/local-files/?d=shared/{name}"}
        tasks.append({"id": number, "data": data, "annotations": [{"id": number, "result": result}]})
    path = folder / "export.json"
    path.write_text(json.dumps(tasks))
    return path


def read_label_studio(path, found):
    points = []
    for task in json.loads(path.read_text()):
        (prediction,) = task["predictions"]
        regions = prediction["result"]
        assert all(region["from_name"] == "tag" and region["to_name"] == "img" for region in regions)
        for box in (region for region in regions if region["type"] == "rectanglelabels"):
            own = [region["value"] for region in regions if region.get("parentID") == box["id"]]
            values = [(value["x"] * WIDTH / 100, value["y"] * HEIGHT / 100) for value in own]
            points.append(np.array(values) - 0.5)
    return points


def deeplabcut(folder, found):
    path = folder / "CollectedData_me.csv"
    rows = [
        ["scorer", *["me"] * 6],
        ["bodyparts", *(name for name in NAMES for _ in "xy")],
        ["coords", *["x", "y"] * 3],
    ]
    rows += [[thing.photo, *("" if value != value else value for value in thing.points.ravel())] for thing in found]
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return path


def read_deeplabcut(path, found):
    rows = list(csv.reader(path.open()))
    assert [row[0] for row in rows] == ["scorer", "bodyparts", "coords", *(thing.photo for thing in found)]
    return [np.array(row[1:], float).reshape(3, 2) for row in rows[3:]]


def wide(folder, found):
    path = folder / "wide.csv"
    header = ["file_name", "left", "top", "right", "bottom", *(f"{name}_{axis}" for name in NAMES for axis in "xy")]
    rows = [
        [thing.photo, *thing.box, *("" if value != value else value for value in thing.points.ravel())]
        for thing in found
    ]
    path.write_text("\n".join(";".join(map(str, row)) for row in [header, *rows]))
    return path


def read_wide(path, found):
    rows = list(csv.reader(path.open()))
    assert rows[0] == ["file_name", *(f"{name}_{axis}" for name in NAMES for axis in "xy")]
    return [np.array(row[1:], float).reshape(3, 2) for row in rows[1:]]


def long(folder, found):
    path = folder / "long.tsv"
    rows = [["file_name", "instance", "point", "x", "y", "left", "top", "right", "bottom"]]
    for thing in found:
        for name, (x, y) in zip(NAMES, thing.points.tolist(), strict=True):
            rows.append([thing.photo, thing.box[0], name, *(("", "") if x != x else (x, y)), *thing.box])
    path.write_text("\n".join("\t".join(map(str, row)) for row in rows))
    return path


def read_long(path, found):
    rows = list(csv.reader(path.open()))
    assert rows[0] == ["file_name", "instance", "point", "x", "y"]
    assert [row[2] for row in rows[1:4]] == NAMES
    return list(np.array([row[3:] for row in rows[1:]], float).reshape(-1, 3, 2))
