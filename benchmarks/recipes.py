"""How long each published recipe takes on this machine, from a few of its steps.

    python -m benchmarks.recipes
    python -m benchmarks.recipes lenet densenet --seconds 10

The steps are the recipe's own: its model, batch size, augmentation, optimizer and precision, on the
real images. Evaluation comes on top.
"""

from collections.abc import Iterator, Sequence

from benchmarks.contenders import Setup, compose, train_for
from benchmarks.frame import Results, Spread, main
from fmbench.config.checks import CONFIG_DIR
from fmbench.report.table.formats import duration

EXPERIMENTS = tuple(sorted(path.stem for path in (CONFIG_DIR / "experiment").glob("*.yaml")))


def measure(
    experiments: Sequence[str] = EXPERIMENTS, *, seconds: float = 5.0, data: str = "fashion_mnist"
) -> Iterator[Results]:
    """Images per second of each recipe, and in words how long its training takes and on what.

    Args:
        experiments: options of the group `experiment`
        seconds: for each, about
        data: an option of the group `data`
    """
    for name in experiments:
        setup = Setup(compose(f"experiment={name}", f"data={data}"))
        runs = [train_for(setup.trainer, seconds / 3) for _ in range(3)]
        images = setup.config["epochs"] * len(setup.inputs.split.train)
        rate = Spread.of([run.items / run.seconds for run in runs])
        yield {
            f"{name}: images/s": rate,
            f"{name}: training in all": duration(images / rate.median),
            f"{name}: on": f"{setup.device.name}, {setup.device.precision}",
        }


if __name__ == "__main__":
    main(measure)
