"""COCO keypoints: a JSON file of images, categories and annotations; https://cocodataset.org/#format-data.

A keypoint is x, y and v, with pixels counted from 0; v is 0 if it is not labelled, 1 if it is covered and 2 if it is
visible. Predictions are written as a file of results, which `pycocotools` loads.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from pipeline.errors import UserError
from pipeline.files import write_text
from tools.formats.instance import Answer, Format, Instance, Source
from tools.formats.reading import read_json


@dataclass(frozen=True)
class Image:
    id: int
    file_name: str


@dataclass(frozen=True)
class Category:
    id: int
    name: str
    keypoints: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Annotation:
    image_id: int
    category_id: int
    keypoints: list[float] = field(default_factory=list)
    bbox: tuple[float, float, float, float] | None = None
    iscrowd: bool = False


@dataclass(frozen=True)
class Content:
    images: list[Image]
    categories: list[Category]
    annotations: list[Annotation]


def read(source: Path, photos: Path | None) -> Source:
    """An instance for each annotation of the one category that has keypoints. Crowds are left out."""
    content = read_json(source, Content, what="file of COCO keypoints")
    categories = [category for category in content.categories if category.keypoints]
    if len(categories) != 1:
        names = ", ".join(category.name for category in categories) or "none"
        raise UserError(f"{source}: categories with keypoints are {names}; one is expected, leave the others out")
    (category,) = categories
    name_of = {image.id: image.file_name for image in content.images}
    instances = []
    for number, annotation in enumerate(content.annotations):
        if annotation.category_id != category.id or annotation.iscrowd:
            continue
        if annotation.image_id not in name_of:
            raise UserError(f"{source}: annotations.{number} is of image {annotation.image_id}, which is not there")
        instances.append(_instance(annotation, number, name_of[annotation.image_id], category, source, photos))
    return Source(instances, category.keypoints)


def _instance(annotation, number, name, category, source, photos):
    names = category.keypoints
    if len(annotation.keypoints) not in (0, 3 * len(names)):
        count = len(annotation.keypoints)
        raise UserError(f"{source}: annotations.{number} has {count} numbers, not 3 for each of {len(names)} keypoints")
    rows = dict(zip(names, np.array(annotation.keypoints).reshape(-1, 3).tolist(), strict=False))
    box = None
    if annotation.bbox:
        left, top, width, height = annotation.bbox
        box = (left, top, left + width, top + height)
    return Instance(
        name=name,
        photo=(photos or source.parent) / name,
        points={point: (x, y) for point, (x, y, v) in rows.items() if v > 0},
        hidden=frozenset(point for point, (_, _, v) in rows.items() if v == 1),
        box=box,
        about={"image_id": annotation.image_id, "category_id": category.id},
    )


def write(source: Path, out: Path, answers: list[Answer], point_names: list[str]):
    results = [
        {
            **answer.about,
            "keypoints": np.c_[answer.points.round(2), np.ones(len(point_names))].ravel().tolist(),
            "score": 1.0,
        }
        for answer in answers
    ]
    write_text(out, json.dumps(results))


FORMAT = Format(read, write)
