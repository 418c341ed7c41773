"""The formats by name. A new one needs a file here, a line in this table, its name among the choices of
tools/convert.py, and a file in the tests."""

from tools.formats import coco, cvat, deeplabcut, kaggle_faces, label_studio, pts, tables, wflw
from tools.formats.instance import Format

FORMATS: dict[str, Format] = {
    "coco": coco.FORMAT,
    "pts": pts.FORMAT,
    "wflw": wflw.FORMAT,
    "kaggle_faces": kaggle_faces.FORMAT,
    "cvat": cvat.FORMAT,
    "label_studio": label_studio.FORMAT,
    "deeplabcut": deeplabcut.FORMAT,
    "wide": tables.WIDE,
    "long": tables.LONG,
}
