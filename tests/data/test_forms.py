"""Fashion-MNIST, real or drawn, in every form: the same images, the same predictions."""

import io

import numpy as np
import pytest
from commands import compose
from PIL import Image

import fmbench
from fmbench.data import synthetic
from fmbench.data.load import load

pa = pytest.importorskip("pyarrow", reason="PyArrow is not installed (the extra parquet)")
pa_csv, pq = map(pytest.importorskip, ("pyarrow.csv", "pyarrow.parquet"))

#: What pixels of Fashion-MNIST are known by.
SAME = ["data.mean=0.286", "data.std=0.353"]


def write_forms(dataset, folder):
    """Kaggle's CSV, NPZ, Parquet, class folders of PNG; and an NPZ in the order of the folders."""
    arrays, in_order = {}, {}
    for part in ("train", "test"):
        images, labels = dataset.part(part)
        images = images[:, 0]
        arrays |= {f"{part}_images": images, f"{part}_labels": labels}
        names = ["label", *(f"pixel{n + 1}" for n in range(images[0].size))]
        table = pa.table([labels, *images.reshape(len(images), -1).T], names)
        (folder / "csv").mkdir(exist_ok=True)
        with (folder / "csv" / f"{part}.csv").open("wb") as file:
            file.write(f"{','.join(names)}\n".encode())
            pa_csv.write_csv(table, file, pa_csv.WriteOptions(include_header=False))
        encoded = []
        for number, (image, label) in enumerate(zip(images, labels, strict=True)):
            content = io.BytesIO()
            Image.fromarray(image).save(content, "PNG", compress_level=1)
            encoded.append({"bytes": content.getvalue()})
            place = folder / "png" / part / str(label)
            place.mkdir(parents=True, exist_ok=True)
            (place / f"{number}.png").write_bytes(content.getvalue())
        (folder / "parquet").mkdir(exist_ok=True)
        of_rows = {"image": encoded, "label": labels.astype(np.int64)}
        pq.write_table(pa.table(of_rows), folder / "parquet" / f"{part}.parquet")
        by_class = np.argsort(labels, kind="stable")
        in_order |= {f"{part}_images": images[by_class], f"{part}_labels": labels[by_class]}
    np.savez(folder / "set.npz", **arrays)
    np.savez(folder / "order.npz", **in_order)


def read(kind, place):
    return load(compose(f"data={kind}", f"data.root={place}")["data"])


def as_set(dataset, part):
    images, labels = dataset.part(part)
    return sorted(
        (image.tobytes(), int(label)) for image, label in zip(images, labels, strict=True)
    )


def check(dataset, itself, folder, *usual):
    """A set that options name, and that set in each form: the same in, the same predicted."""

    def predicted(name, *given):
        fmbench.run([*given, *usual, "threads=1", f"hydra.run.dir={folder / 'runs' / name}"])
        return (folder / "runs" / name / "predictions.npy").read_bytes()

    write_forms(dataset, folder)
    expected = predicted("itself", *itself)
    for kind, place in (("csv", "csv"), ("arrays", "set.npz"), ("parquet", "parquet")):
        found = read(kind, folder / place)
        assert np.array_equal(found.images, dataset.images), kind
        assert np.array_equal(found.labels, dataset.labels), kind
        assert predicted(kind, f"data={kind}", f"data.root={folder / place}", *SAME) == expected
    by_class = read("folder", folder / "png")
    for part in ("train", "test"):
        assert as_set(by_class, part) == as_set(dataset, part)
    of_folder, in_order = (
        predicted(place, f"data={kind}", f"data.root={folder / place}", *SAME)
        for kind, place in (("folder", "png"), ("arrays", "order.npz"))
    )
    assert of_folder == in_order != expected


@pytest.mark.slow
def test_every_form_of_drawn_images_is_predicted_alike(tmp_path):
    size = ["data.train_size=300", "data.test_size=100"]
    itself = ["data=synthetic", *size, "data.mean=0.286", "data.std=0.353"]
    dataset = synthetic.load(compose(*itself)["data"])
    check(dataset, itself, tmp_path, "model=lenet5", "epochs=2", "batch_size=50")


@pytest.mark.slow
@pytest.mark.real_data
def test_every_form_of_fashion_mnist_is_predicted_alike(fashion_mnist_root, tmp_path):
    itself = ["data=fashion_mnist", f"data.root={fashion_mnist_root}"]
    dataset = load(compose(*itself)["data"])
    check(
        dataset, itself, tmp_path, "model=lenet5", "epochs=1", "batch_size=512", "data.limit=5000"
    )
