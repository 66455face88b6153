"""Runs to draw, and what is read back from a drawing."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
from records import write

from fmbench import report
from fmbench.records.predictions import mistake_type
from fmbench.report.figure import Figure
from fmbench.report.figures import figures

SVG = "{http://www.w3.org/2000/svg}"
HOSTILE = "a|b\n<script>x</script> $x$ ]]> --> & \" ' \x1b[31m{}% ../../c"

BLUE, RED, ORANGE, INK = "#0072b2", "#d55e00", "#c18500", "#1a1a1a"


def drawn(*folders: Path) -> dict[str, Figure]:
    made = report.build(folders)
    return {figure.name: figure for figure in figures(made.sections, made.searches)}


def texts(figure: Figure) -> list[str]:
    """What is written in it, read back from its SVG."""
    return [element.text or "" for element in ET.fromstring(figure.svg).iter(f"{SVG}text")]


def elements(figure: Figure, kind: str) -> Iterator[ET.Element]:
    """The elements of a kind in the panels; none of the legends."""
    root = ET.fromstring(figure.svg)
    for parent in list(root.iter()):
        for group in parent.findall(f"{SVG}g"):
            if group.get("id", "").startswith("legend"):
                parent.remove(group)
    return root.iter(f"{SVG}{kind}")


def paths(figure: Figure, colour: str, *, dashed: bool = False) -> list[np.ndarray]:
    """The lines of a colour: (points, 2) each, y counted upwards."""
    found = []
    for element in elements(figure, "path"):
        style = element.get("style", "")
        if f"stroke: {colour}" in style and ("dasharray" in style) == dashed:
            numbers = [float(text) for text in re.findall(r"-?[0-9.]+", element.get("d", ""))]
            found.append(np.array(numbers).reshape(-1, 2) * (1, -1))
    return found


def marks(figure: Figure, colour: str) -> list[tuple[float, float]]:
    """The middles of the marks of a colour, from the left; y counted upwards."""
    return sorted(
        (float(element.get("x", "")), -float(element.get("y", "")))
        for element in elements(figure, "use")
        if f"fill: {colour}" in element.get("style", "")
    )


def put(folder: Path, losses: list[float] | None = None, **changes: Any) -> Path:
    """A run with a history: of its losses, the accuracies are what is missing to 1."""
    write(folder, **changes)
    lines = [
        {"epoch": epoch, "train_loss": loss, "train_accuracy": 1 - loss,
         "validation_loss": loss + 0.1, "validation_accuracy": 0.9 - loss, "seconds": 1.0}
        for epoch, loss in enumerate(losses or [])
    ]  # fmt: skip
    if losses is not None:
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (folder / "history.jsonl").write_text(text, "utf-8")
    return folder


def answer(folder: Path, labels: list[int], predicted: list[int]) -> None:
    np.save(folder / "labels.npy", np.array(labels, np.uint8))
    np.save(folder / "predictions.npy", np.array(predicted, np.uint8))


def mistaken(folder: Path, *found: tuple[int, int, float]) -> np.ndarray:
    """Write mistakes: right class, predicted class, confidence; returns their images."""
    made = np.zeros(len(found), mistake_type("u1", (28, 28)))
    made["image"] = np.random.default_rng(0).integers(0, 256, (len(found), 28, 28), np.uint8)
    for place_, (label, predicted, confidence) in enumerate(found):
        made[place_]["label"], made[place_]["predicted"] = label, predicted
        made[place_]["confidence"] = confidence
    np.save(folder / "mistakes.npy", made)
    return made["image"]
