"""A user's data in files: NumPy archives, CSV, Parquet, folders of pictures.

Each reader returns the parts as they were found; `fmbench.data.own` makes them a data set.
"""

import contextlib
import csv
import io
import json
import os
import sys
import zipfile
import zlib
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from fmbench.core.errors import ConfigError, DataError, require_package
from fmbench.core.files import open_regular
from fmbench.core.machine import usable
from fmbench.data.own import Part, natural
from fmbench.data.pictures import MAX_BYTES, fitted, opened, plain, quiet

#: The parts, and the names of the classes where the files have them.
Found = tuple[dict[str, Part], Sequence[str] | None]

#: What an archive calls the images and the labels of each part: MedMNIST, Keras, and plain names.
_ARRAYS = {
    "train": (("train_images", "train_labels"), ("x_train", "y_train"), ("images", "labels"),
              ("x", "y")),
    "validation": (("val_images", "val_labels"), ("validation_images", "validation_labels"),
                   ("x_val", "y_val")),
    "test": (("test_images", "test_labels"), ("x_test", "y_test")),
}  # fmt: skip

#: What folders and files call the parts.
_PART_NAMES = {"train": ("train", "training"), "validation": ("validation", "valid", "val"),
               "test": ("test",)}  # fmt: skip

#: What a column of labels may be called.
_LABEL_NAMES = ("label", "labels", "class", "target", "y")
_IMAGE_NAMES = ("image", "img", "images")

_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".avif", ".gif", ".bmp", ".tif", ".tiff", ".ppm",
             ".pgm", ".pbm", ".pnm"}  # fmt: skip


#: Rows of a Parquet file that are read at once, at most.
_ROWS = 4096

#: What a damaged archive makes its readers raise.
_DAMAGED = (OSError, ValueError, zipfile.BadZipFile, zlib.error)


# NumPy archives


def read_arrays(path: Path, config: Mapping[str, Any]) -> Found:
    """Images and labels of an `.npz` file, by the names of its arrays.

    `keys` of the `data` group names others: `{train_images: a, train_labels: b}`.

    Raises:
        DataError: It is no such file, holds objects, or is far larger than the memory.
    """
    given = dict(config["keys"] or {})
    known = {f"{part}_{what}" for part in _ARRAYS for what in ("images", "labels")}
    strange = [str(key) for key in given if key not in known]
    half = [part for part in _ARRAYS if (f"{part}_images" in given) != (f"{part}_labels" in given)]
    if strange or half:
        raise ConfigError(
            f"data.keys: {strange[0] if strange else half[0]}: must name images and labels of a "
            f"part: {', '.join(sorted(known))}"
        )
    with _archive(path) as archive:
        names = archive.files
        parts = {}
        for part, pairs in _ARRAYS.items():
            mine = given.get(f"{part}_images"), given.get(f"{part}_labels")
            pair = mine if all(mine) else next((p for p in pairs if {*p} <= {*names}), None)
            if pair is None:
                continue
            images, labels = (_array(path, archive, str(name)) for name in pair)
            parts[part] = Part(images, labels, f"{path}, {part}")
    if not parts:
        raise DataError(
            f"{path}: no arrays of images and labels are known among {', '.join(names)}; data.keys "
            "names them: data.keys='{train_images: A, train_labels: B}'"
        )
    return parts, None


def _array(path: Path, archive: Any, name: str) -> np.ndarray:
    if name not in archive.files:
        raise DataError(f"{path}: has no array {name}; there are {', '.join(archive.files)}")
    try:
        array: np.ndarray = archive[name]
    # Of a damaged archive, one with a password, a shape that no memory holds.
    except (*_DAMAGED, RuntimeError, MemoryError) as error:
        raise DataError(f"{path}: array {name} cannot be read ({error})") from error
    return array


def _archive(path: Path) -> Any:
    try:
        with zipfile.ZipFile(path) as package:
            size = sum(member.file_size for member in package.infolist())
        _refuse_large(path, "arrays", size)
        return np.load(path, allow_pickle=False)
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: no .npz file ({error})") from error


def _most() -> int:
    """Bytes that data may have: half of the memory, where images are there twice or more."""
    memory = usable().memory
    return sys.maxsize if memory is None else memory // 2


def _refuse_large(path: Path, what: str, size: int) -> None:
    """Refuse, by a DataError, what would fill the memory."""
    if size > _most():
        raise DataError(
            f"{path}: {size:,} bytes of {what} in all; at most half of the memory is allowed, "
            f"{_most():,}"
        )


# Tables


def read_csv(paths: Mapping[str, Path], config: Mapping[str, Any]) -> Found:
    """Images as rows of pixels, with a column of labels: Kaggle's form.

    Of the `data` group `label` is the column of the labels, by default one that is called so, or
    the first where there is no header; `channels` tells 3 x H x W pixels of a row, channel by
    channel, from one channel.

    Raises:
        DataError: A row is shorter or longer, a value is missing, there is no such column, or the
            files are far larger than the memory.
    """
    size = 0
    for path in paths.values():
        size += path.stat().st_size
        _refuse_large(path, "text", size)
    return {part: _read_csv(path, config) for part, path in paths.items()}, None


def _read_csv(path: Path, config: Mapping[str, Any]) -> Part:
    import pandas as pd

    try:
        with open_regular(path, 2**63) as file:
            lines = [file.readline(10_000_000).decode("utf-8-sig") for _ in range(2)]
        first, second = ([*csv.reader([line])] or [[]] for line in lines)
        first, second = first[0] or [""], second[0]
        if second and len(second) != len(first):
            raise DataError(
                f"{path}: its first line has {len(first)} values, the second {len(second)}"
            )
        label = config["label"] or next((n for n in first if n.lower() in _LABEL_NAMES), None)
        above = bool(second) and not _is_number(first[0]) and _is_number(second[0])
        header = label in first or above or any(not _is_number(cell) for cell in first[1:])
        names = None if header else list(map(str, range(len(first))))
        if not header:
            label = config["label"] or "0"
        if label is None or label not in (names or first) or len(first) < 2:
            raise DataError(
                f"{path}: has no column of labels; data.label names it, of "
                f"{', '.join(first[:5])}..."
            )
        options: dict[str, Any] = {"header": 0 if header else None, "names": names}
        try:
            frame = pd.read_csv(path, dtype=np.uint8, **options)
        except (ValueError, OverflowError, TypeError):  # words, more than 255, or a fraction
            try:
                of_columns = defaultdict(lambda: np.uint8, {label: str})
                frame = pd.read_csv(path, dtype=of_columns, **options)
            except (ValueError, OverflowError, TypeError):  # pixels are
                rows = path.stat().st_size // max(len(lines[1] or lines[0]), 1)
                _refuse_large(path, "numbers", 8 * rows * len(first))
                frame = pd.read_csv(path, **options)
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: no text in UTF-8") from error
    except (OSError, csv.Error, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise DataError(f"{path}: no table ({' '.join(str(error).split())})") from error
    gaps = frame.isna().to_numpy()
    if gaps.any():
        row, column = np.argwhere(gaps)[0]
        raise DataError(f"{path}: row {row + 1} has no value in column {frame.columns[column]}")
    labels, pixels = frame.pop(label).to_numpy(), frame
    odd = [name for name, dtype in pixels.dtypes.items() if dtype.kind not in "uif"]
    if odd:
        raise DataError(f"{path}: column {odd[0]} holds no pixels; data.label names the labels")
    if labels.dtype.kind not in "uif":
        labels = labels.astype(str)
        with contextlib.suppress(ValueError):  # they are words
            labels = pd.to_numeric(labels)
    return Part(_square(path, pixels.to_numpy(), config["channels"]), labels, str(path))


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _square(path: Path, rows: np.ndarray, channels: int | None) -> np.ndarray:
    """Rows of pixels as square images, (N, C, H, W)."""
    count = rows.shape[1]
    for each in (1, 3) if channels is None else (channels,):
        side = round((count / each) ** 0.5)
        if each * side * side == count and side:
            return rows.reshape(-1, each, side, side)
    raise DataError(f"{path}: {count} pixels a row are no square image of 1 or 3 channels")


def shards(folder: Path, pattern: str) -> dict[str, list[Path]]:
    """The files of each part in a folder: those that begin with the name of the part.

    Raises:
        DataError: There are none for training.
    """
    found = {
        part: sorted({path for name in names for path in folder.glob(f"{name}{pattern}")})
        for part, names in _PART_NAMES.items()
    }
    if not found["train"]:
        raise DataError(f"{folder}: has no file train{pattern}")
    return {part: paths for part, paths in found.items() if paths}


def read_parquet(paths: Mapping[str, Sequence[Path]], config: Mapping[str, Any]) -> Found:
    """Pictures and labels in the columns of Parquet files, as data sets on Hugging Face have them.

    `image` and `label` of the `data` group name the columns.

    Raises:
        ConfigError: PyArrow is not installed.
        DataError: There are no such columns, a picture cannot be read, or the files are far larger
            than the memory.
    """
    require_package("data=parquet", "pyarrow", "parquet")
    import pyarrow as pa
    import pyarrow.parquet as pq

    parts, names, size, read = {}, None, 0, 0
    for part, files in paths.items():
        pictures: list[Any] = []
        labels: list[Any] = []
        for path in files:
            try:
                schema = pq.read_schema(path)
                image = _column(path, schema.names, config["image"], _IMAGE_NAMES, "image")
                label = _column(path, schema.names, config["label"], _LABEL_NAMES, "label")
                columns = [_bytes_of(path, schema, image), label]
                unpacked = _unpacked(pq.read_metadata(path), (image, label))
                size += sum(unpacked)
                _refuse_large(path, "pictures", size)
                # Pages say the size of a value once that many rows have: any row may have as many
                # bytes as all pages of its column, so that no more are read at once than fit then.
                rows = min(max(_most() // max(*unpacked, 1), 1), _ROWS)
                with pq.ParquetFile(path) as file:
                    for batch in file.iter_batches(rows, columns=columns):
                        read += batch.nbytes
                        _refuse_large(path, "pictures", read)
                        cells = batch.column(image).to_pylist()
                        pictures += [c.get("bytes") if isinstance(c, dict) else c for c in cells]
                        labels += batch.column(label).to_pylist()
            except (OSError, pa.ArrowException) as error:
                raise DataError(f"{path}: no Parquet file ({error})") from error
            names = names or _names(schema, label)
        where = [f"{part}, row {row + 1}" for row in range(len(pictures))]
        ragged = any(isinstance(label, (list, dict)) for label in labels)
        if ragged or None in labels or not all(isinstance(one, bytes) for one in pictures):
            raise DataError(f"{files[0]}: a row has no label, or no bytes of a picture")
        images = _decoded([(io.BytesIO, one, at) for one, at in zip(pictures, where, strict=True)],
                          config)  # fmt: skip
        parts[part] = Part(images, np.array(labels), str(files[0]))
    return parts, names


def _bytes_of(path: Path, schema: Any, image: str) -> str:
    """What to read of the column of pictures: it, or the field `bytes` that Hugging Face has."""
    import pyarrow as pa

    kind, name = schema.field(image).type, image
    if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
        kind, name = kind.field("bytes").type, f"{image}.bytes"
    if not (pa.types.is_binary(kind) or pa.types.is_large_binary(kind)):
        raise DataError(
            f"{path}: column {image} holds {schema.field(image).type}, no bytes of a picture"
        )
    return name


def _unpacked(metadata: Any, names: Sequence[str]) -> list[int]:
    """Bytes of the pages of some columns of a Parquet file, by group of rows, by its footer."""
    groups = (metadata.row_group(number) for number in range(metadata.num_row_groups))
    columns = (group.column(number) for group in groups for number in range(group.num_columns))
    return [
        column.total_uncompressed_size
        for column in columns
        if column.path_in_schema.partition(".")[0] in names
    ]


def _column(
    path: Path, names: Sequence[str], given: str | None, usual: Sequence[str], what: str
) -> str:
    found = given or next((name for name in names if name in usual), None)
    if found is None or found not in names:
        raise DataError(f"{path}: has no column {given or what}; there are {', '.join(names)}")
    return found


def _names(schema: Any, label: str) -> list[str] | None:
    """The names of the labels, where the file says them as Hugging Face's data sets do."""
    try:
        features = json.loads(schema.metadata[b"huggingface"])["info"]["features"]
        names = features[label]["names"]
    except (KeyError, TypeError, ValueError):
        return None
    return names if isinstance(names, list) else None


# Folders of pictures


def pictures_of(root: Path) -> dict[str, list[tuple[str, Path]]]:
    """The pictures of a folder by part, each with its class, in the order of a data set.

    `root/train/CLASS/*` and `root/test/CLASS/*`, or `root/CLASS/*`; by class, then by name, numbers
    as numbers. Hidden files, and files that are no pictures by their names, are passed over.

    Raises:
        DataError: There is none, or one leads out of the folder.
    """
    inner = {entry.name.lower(): entry for entry in _folders(root)}
    found = {part: next((inner[n] for n in names if n in inner), None)
             for part, names in _PART_NAMES.items()}  # fmt: skip
    parts = {part: folder for part, folder in found.items() if folder is not None}
    if "train" not in parts:
        if parts:
            raise DataError(f"{root}: has a folder {next(iter(parts.values())).name}, and no train")
        parts = {"train": root}
    listed = {}
    real = root.resolve()
    for part, folder in parts.items():
        listed[part] = [
            (name.name, path)
            for name in sorted(_folders(folder), key=lambda one: natural(one.name))
            for path in sorted(_pictures(name), key=lambda one: natural(str(one)))
        ]
        if not listed[part]:
            raise DataError(f"{folder}: no pictures in class folders ({folder.name}/CLASS/*.png)")
        linked = [folder, *_folders(folder), *(path for _, path in listed[part])]
        for path in (path for path in linked if path.is_symlink()):
            if real not in path.resolve().parents:
                raise DataError(f"{path}: is a link out of {root}")
    return listed


def _folders(folder: Path) -> list[Path]:
    try:
        return [path for path in folder.iterdir() if path.is_dir() and path.name[0] != "."]
    except OSError as error:
        raise DataError(f"{folder}: cannot be read ({error.strerror})") from error


def _pictures(folder: Path) -> list[Path]:
    found = []
    for place, inner, names in os.walk(folder):
        inner[:] = [name for name in inner if name[0] != "."]
        found += [Path(place, name) for name in names
                  if name[0] != "." and Path(name).suffix.lower() in _SUFFIXES]  # fmt: skip
    return found


def read_folder(
    listed: Mapping[str, Sequence[tuple[str, Path]]], config: Mapping[str, Any]
) -> Found:
    """Decode the pictures that `pictures_of` lists.

    Raises:
        DataError: One cannot be read, or they are of several sizes and there is no `data.size`.
    """
    parts = {}
    for part, pictures in listed.items():
        jobs = [(partial(open_regular, most=MAX_BYTES), path, str(path)) for _, path in pictures]
        labels = np.array([name for name, _ in pictures])
        parts[part] = Part(_decoded(jobs, config), labels, part)
    return parts, None


def _decoded(jobs: Sequence[tuple[Callable[..., Any], Any, str]], config: Mapping[str, Any]) -> Any:
    """Pictures as (N, H, W) or (N, H, W, 3), in colour where one is; damaged ones are refused."""
    fit, channels = config["fit"], config["channels"]
    size = None if config["size"] is None else (config["size"],) * 2

    first: list[tuple[int, int]] = []

    def decode(job: tuple[Callable[..., Any], Any, str]) -> np.ndarray | DataError:
        make, source, where = job
        try:
            with make(source) as content, opened(content) as picture:
                first.append(picture.size)
                if size is None and picture.size != first[0]:
                    several = f"{picture.size} and {first[0]}; data.size=32 makes them one"
                    return DataError(f"{where}: the pictures have several sizes, {several}")
                image = plain(picture)
                if channels is not None:
                    image = image.convert("L" if channels == 1 else "RGB")
                return fitted(image, size, fit)
        except (DataError, OSError) as error:
            return DataError(f"{where}: {error}")

    with quiet(), ThreadPoolExecutor(usable().cores) as pool:
        made = list(pool.map(decode, jobs, chunksize=16))
    images = [one for one in made if isinstance(one, np.ndarray)]
    faults = [one for one in made if isinstance(one, DataError)]
    if faults:
        more = f" (and {len(faults) - 1:,} others)" if len(faults) > 1 else ""
        raise DataError(f"{faults[0]}{more}")
    if any(image.ndim == 3 for image in images):
        images = [i if i.ndim == 3 else i[..., None].repeat(3, axis=2) for i in images]
    return np.stack(images)
