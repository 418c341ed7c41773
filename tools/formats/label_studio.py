"""Label Studio: the export as JSON, with keypoints and rectangles in percent of the photo's sides;
https://labelstud.io/guide/task_format and https://labelstud.io/tags/keypointlabels.

Keypoints of one parent region are an instance, whose box is the parent if that is a rectangle; without parents all
keypoints of a photo are one. Predictions are written as tasks with pre-annotations, which Label Studio imports.
"""

import json
import re
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import parse_qs, unquote, urlparse

from pydantic import TypeAdapter, ValidationError

from pipeline.errors import UserError
from pipeline.files import write_text
from tools.formats.instance import Answer, Box, Format, Instance, Source, in_order
from tools.formats.reading import read_json


@dataclass(frozen=True)
class Region:
    type: str
    value: dict[str, Any]
    id: str = ""
    original_width: float = 0
    original_height: float = 0
    parentID: str | None = None
    from_name: str = "label"
    to_name: str = "image"


@dataclass(frozen=True)
class Place:
    """The value of a keypoint or a rectangle, in percent of the photo."""

    x: float
    y: float
    width: float = 0
    height: float = 0
    keypointlabels: list[str] = field(default_factory=list)


PLACE = TypeAdapter(Place)
UPLOADED = re.compile(r"^[0-9a-f]{8}-")
OF_BOX = ("type", "value", "from_name", "to_name")  # what is kept of a rectangle


@dataclass(frozen=True)
class Annotation:
    result: list[Region]
    was_cancelled: bool = False


@dataclass(frozen=True)
class Task:
    data: dict[str, Any]
    annotations: list[Annotation] = field(default_factory=list)


def read(source: Path, photos: Path | None) -> Source:
    tasks = read_json(source, list[Task], what="JSON export of Label Studio")
    instances = [instance for task in tasks for instance in _instances(task, source, photos or source.parent)]
    return Source(instances, in_order([name for instance in instances for name in instance.points]))


def _instances(task, source, folder):
    key = "image" if "image" in task.data else next(iter(task.data), "")
    name = _file_of(str(task.data.get(key, "")), folder)
    regions = [
        region for annotation in task.annotations if not annotation.was_cancelled for region in annotation.result
    ]
    points = [region for region in regions if region.type in ("keypointlabels", "keypoint")]
    boxes = {region.id: region for region in regions if region.type in ("rectanglelabels", "rectangle")}
    parents = in_order([region.parentID or "" for region in points]) or [""]
    for parent in parents:
        own = [region for region in points if (region.parentID or "") == parent]
        rectangle = boxes.get(parent) or (next(iter(boxes.values())) if len(boxes) == len(parents) == 1 else None)
        first = own[0] if own else rectangle
        yield Instance(
            name=name,
            photo=folder / name,
            points=_points_of(own, source, name),
            box=_box_of(rectangle, source, name) if rectangle else None,
            about={
                "data": task.data,
                "size": [first.original_width, first.original_height] if first else None,
                "names": [first.from_name, first.to_name] if first else ["label", "image"],
                "box": {name: getattr(rectangle, name) for name in OF_BOX} if rectangle else None,
            },
        )


def _points_of(regions, source, name):
    found: dict[str, tuple[float, float]] = {}
    for region in regions:
        place = _place_of(region, source, name)
        label = next(iter(place.keypointlabels), "")
        if label in found or not label:
            what = f"two points {label!r}" if label else "a point without a label"
            raise UserError(f"{source}: {name} has {what}; a parent region tells several instances apart")
        found[label] = _in_pixels(region, place.x, place.y, source, name)
    return found


def _in_pixels(region, x, y, source, name):
    if not (region.original_width > 0 and region.original_height > 0):
        raise UserError(f"{source}: {name} has a {region.type} without original_width and original_height")
    return x / 100 * region.original_width, y / 100 * region.original_height


def _place_of(region, source, name) -> Place:
    try:
        return PLACE.validate_python(region.value)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise UserError(f"{source}: {name} has a {region.type} whose value is none: {where}: {first['msg']}") from error


def _box_of(region, source, name) -> Box:
    place = _place_of(region, source, name)
    left, top = _in_pixels(region, place.x, place.y, source, name)
    width, height = _in_pixels(region, place.width, place.height, source, name)
    return left, top, left + width, top + height


def _file_of(address, folder):
    """The photo's name below the folder: as much of the end of the address as there is, and an upload has a random
    prefix before it."""
    parts = urlparse(address)
    local = PurePosixPath(unquote(parse_qs(parts.query).get("d", [parts.path])[0]))
    steps = [step for step in local.parts if step not in ("/", "..")]
    names = ["/".join(steps[first:]) for first in range(len(steps))]
    return next((name for name in names if (folder / name).exists()), UPLOADED.sub("", local.name))


def write(source: Path, out: Path, answers: list[Answer], point_names: list[str]):
    tasks: dict[str, dict[str, Any]] = {}
    for answer in answers:
        if not answer.about["size"]:
            raise UserError(f"{source}: of {answer.name} the export does not say its size, so there are no percents")
        width, height = answer.about["size"]
        from_name, to_name = answer.about["names"]
        key = json.dumps(answer.about["data"])
        task = tasks.setdefault(key, {"data": answer.about["data"], "predictions": [{"result": []}]})
        result = task["predictions"][0]["result"]
        size = {"original_width": width, "original_height": height, "image_rotation": 0}
        parent = {}
        if box := answer.about.get("box"):  # it tells the instances of a photo apart
            parent = {"parentID": f"instance-{len(result)}"}
            result.append({"id": parent["parentID"], **box, **size})
        for point, (x, y) in zip(point_names, answer.points.tolist(), strict=True):
            value = {"x": 100 * x / width, "y": 100 * y / height, "width": 0.5, "keypointlabels": [point]}
            names = {"from_name": from_name, "to_name": to_name}
            result.append({"type": "keypointlabels", **names, "value": value, **size, **parent})
    write_text(out, json.dumps(list(tasks.values()), indent=1))


FORMAT = Format(read, write, first_pixel=0.5)
