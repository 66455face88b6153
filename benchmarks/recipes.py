"""How long each published recipe takes on this machine, from a few of its steps.

    python -m benchmarks.recipes
    python -m benchmarks.recipes lenet densenet --seconds 10

The steps are the recipe's own: its net, batch size, augmentation and optimizer, on the real images,
in the precision that a run takes by itself. Evaluation comes on top.
"""

import argparse
import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import hydra
import torch

from benchmarks.contest import option_of_data
from benchmarks.timing import Results, Spread, save, table
from fmbench.config import checks as configuration
from fmbench.report.table.formats import duration
from fmbench.runs import assembly
from fmbench.training.cost import count_flops
from fmbench.training.device import choose_precision
from fmbench.training.trainer import train_epoch


def recipe(name: str, *, seconds: float, data: str) -> tuple[Spread, int, str]:
    """Images per second of a recipe's steps, its images in all, and where it ran."""
    configuration.register()
    with hydra.initialize_config_dir(str(configuration.CONFIG_DIR)):
        overrides = [f"experiment={name}", f"data={data}"]
        config = configuration.resolve(hydra.compose("config", overrides=overrides))
    inputs = assembly.prepare(config)
    torch.manual_seed(config["seed"])
    model = assembly.make_model(config)
    flops = count_flops(model)
    precision = choose_precision(config["precision"], inputs.device.torch, flops)
    device = replace(inputs.device, precision=precision)
    trainer = assembly.make_trainer(config, inputs, model, device, flops)
    size = config["batch_size"]
    batches = trainer.loader.epoch(0)
    step = trainer.step

    def steps(count: int) -> float:
        start = time.perf_counter()
        train_epoch(
            trainer.model,
            itertools.islice(batches, count),
            step,
            trainer.schedule,
            report=lambda *_sums: None,
        )
        device.synchronize()
        return size * count / (time.perf_counter() - start)

    first = steps(2)  # allocates, and says how many more steps there is time for
    count = max(1, min(len(trainer.loader) // 4, round(seconds / 3 * first / size)))
    rates = [steps(count) for _ in range(3)]
    images = config["epochs"] * len(inputs.split.train)
    return Spread.of(rates, "images/s"), images, f"{device.name}, {precision}"


def measure(
    names: Sequence[str],
    *,
    seconds: float = 5.0,
    data: str = "fashion_mnist",
    say: Callable[[str], None] = lambda _line: None,
) -> Results:
    """Images per second of each recipe, and in words how long its training takes and on what.

    Args:
        names: of experiments.
        seconds: of each measurement, about.
        data: an option of the group `data`.
        say: told each recipe's line as soon as it is measured.
    """
    results: Results = {}
    for name in names:
        rate, images, where = recipe(name, seconds=seconds, data=data)
        found = {name: rate, f"{name}: training": duration(images / rate.median)}
        found[f"{name}: on"] = where
        results |= found
        say(rows(found).splitlines()[-1])
    return results


def rows(results: Results) -> str:
    """The results as a table with a line for each recipe."""
    return table(
        ["recipe", "images/s", "training in all", "on"],
        [
            [name, str(value), str(results[f"{name}: training"]), str(results[f"{name}: on"])]
            for name, value in results.items()
            if isinstance(value, Spread)
        ],
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print a table, save it where asked."""
    there = sorted(path.stem for path in (configuration.CONFIG_DIR / "experiment").glob("*.yaml"))
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("experiments", nargs="*", default=there, metavar="EXPERIMENT")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement, about")
    parser.add_argument(
        "--data", type=option_of_data, default="fashion_mnist", help="an option, or a folder"
    )
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args(argv)
    results = measure(
        arguments.experiments,
        seconds=arguments.seconds,
        data=arguments.data,
        say=lambda line: print(line, flush=True),
    )
    print("\n" + rows(results))
    save(arguments.json, "recipes", results)


if __name__ == "__main__":
    main()
