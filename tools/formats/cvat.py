"""CVAT's "for images 1.1": an XML file with skeletons or points on images; https://docs.cvat.ai/docs/other/xml_format.

Coordinates are lengths from the corner of the photo. A skeleton is an instance, and its sublabels name the points.
Without skeletons, each <points> of several positions is an instance, with numbered points, or all <points> of one
position are the points of one instance, named by their labels. A box belongs to the instance of its group, or to the
only one on the photo.
"""

from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from pipeline.errors import UserError
from pipeline.files import read_bytes, replacing
from tools.formats.instance import Answer, Box, Format, Instance, Source, in_order, numbered
from tools.formats.reading import number


def read(source: Path, photos: Path | None) -> Source:
    """The file, or the folder of an export, with annotations.xml and images/ in it."""
    path = source / "annotations.xml" if source.is_dir() else source
    folder = photos or (path.parent / "images" if (path.parent / "images").is_dir() else path.parent)
    try:
        root = ElementTree.fromstring(read_bytes(path))
    except ElementTree.ParseError as error:
        raise UserError(f"{path} is no XML: {error}") from error
    if root.tag != "annotations" or root.find("track") is not None:
        raise UserError(f"{path} is not an export as 'CVAT for images 1.1'; export it in that format")
    instances, names = [], []
    for image in root.iter("image"):
        for instance in _instances(image, path, folder):
            instances.append(instance)
            names += list(instance.points)
    return Source(instances, in_order(names))


def _instances(image, path, folder):
    name = image.get("name", "")
    about = {key: image.get(key, "") for key in ("id", "name", "width", "height")}
    groups = [(shape, _points_of(shape, path, name)) for shape in image.findall("skeleton")]
    groups = groups or _plain_points(image, path, name)
    if not groups:
        yield Instance(name, folder / name, {}, about=about)
    for shape, points in groups:
        yield Instance(
            name=name,
            photo=folder / name,
            points={label: place for label, (place, _) in points.items()},
            hidden=frozenset(label for label, (_, covered) in points.items() if covered),
            box=_box_of(image, shape, alone=len(groups) == 1, where=(path, name)),
            about=about | {"label": shape.get("label", "")},
        )


def _points_of(skeleton, path, name):
    """(place, whether it is covered) by label; a point that is marked as outside is missing."""
    found = {}
    for point in skeleton.findall("points"):
        if point.get("outside") != "1":
            place, *others = _places(point, path, name)
            if others:
                raise UserError(f"{path}: image {name} has a point of a skeleton with several positions; give it one")
            found[point.get("label", "")] = (place, point.get("occluded") == "1")
    return found


def _plain_points(image, path, name):
    shapes = [(shape, _places(shape, path, name)) for shape in image.findall("points")]
    if not shapes:
        return []
    if any(len(places) > 1 for _, places in shapes):
        return [
            (shape, {label: (place, False) for label, place in zip(numbered(len(places)), places, strict=True)})
            for shape, places in shapes
        ]
    labels = [shape.get("label", "") for shape, _ in shapes]
    if twice := next((label for label in labels if labels.count(label) > 1), None):
        raise UserError(f"{path}: image {name} has two points {twice!r}; only skeletons tell several instances apart")
    single = {shape.get("label", ""): (places[0], shape.get("occluded") == "1") for shape, places in shapes}
    return [(shapes[0][0], single)]


def _places(shape, path, name):
    pairs = [pair.split(",") for pair in shape.get("points", "").split(";")]
    where = f"image {name}"
    places = [tuple(number(cell, path, where) for cell in pair) for pair in pairs]
    if any(len(place) != 2 or None in place for place in places):
        raise UserError(f"{path} {where}: points {shape.get('points')!r} are not x,y;x,y …")
    return places


def _box_of(image, shape, *, alone, where) -> Box | None:
    path, name = where
    boxes = image.findall("box")
    group = shape.get("group_id") or "0"
    own = [box for box in boxes if group != "0" and box.get("group_id") == group]
    if not own and alone and len(boxes) == 1:
        own = boxes
    if len(own) != 1:
        return None
    left, top, right, bottom = (
        number(own[0].get(key, ""), path, f"image {name}: box") or 0.0 for key in ("xtl", "ytl", "xbr", "ybr")
    )
    return left, top, right, bottom


def write(source: Path, out: Path, answers: list[Answer], point_names: list[str]):
    """A skeleton for each instance, in the form of an export, which CVAT uploads as annotations."""
    root = ElementTree.Element("annotations")
    ElementTree.SubElement(root, "version").text = "1.1"
    images: dict[str, ElementTree.Element] = {}
    for answer in answers:
        about = dict(answer.about)
        label = about.pop("label", "")
        if about["name"] not in images:
            images[about["name"]] = ElementTree.SubElement(root, "image", about)
        skeleton = ElementTree.SubElement(images[about["name"]], "skeleton", {"label": label, "source": "auto"})
        for point, (x, y) in zip(point_names, np.asarray(answer.points).tolist(), strict=True):
            place = {"label": point, "outside": "0", "occluded": "0", "points": f"{x:.2f},{y:.2f}"}
            ElementTree.SubElement(skeleton, "points", place)
    ElementTree.indent(root)
    with replacing(out) as file:
        file.write(ElementTree.tostring(root, encoding="utf-8", xml_declaration=True))


FORMAT = Format(read, write, first_pixel=0.5)
