"""How long each published recipe takes on this machine, from a few of its steps.

    python -m benchmarks.recipes
    python -m benchmarks.recipes lenet densenet --seconds 10

The steps are the recipe's own: its net, batch size, augmentation and optimizer, on the real images,
in the precision that a run takes by itself. Evaluation comes on top.
"""

import argparse
import itertools
import time
from dataclasses import replace
from pathlib import Path

import hydra
import torch

from benchmarks.timing import Spread, save, table
from fmbench import assembly
from fmbench import config as configuration
from fmbench.cost import count_flops
from fmbench.device import choose_precision
from fmbench.report.formats import duration
from fmbench.train import train_epoch


def measure(name: str, seconds: float, data: str) -> tuple[Spread, int, str]:
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
    trainer = assembly.make_trainer(config, inputs, device.place(model), device, flops)
    size = config["batch_size"]
    batches = trainer.loader.epoch(0)
    step = trainer.make_step()

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
    return Spread.of(rates), images, f"{device.name}, {precision}"


def main() -> None:
    """Measure, print a table, save it where asked."""
    there = sorted(path.stem for path in (configuration.CONFIG_DIR / "experiment").glob("*.yaml"))
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("experiments", nargs="*", default=there, metavar="EXPERIMENT")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement, about")
    parser.add_argument("--data", default="fashion_mnist")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()

    results, rows = {}, []
    headings = ["recipe", "images/s", "training in all", "on"]
    for name in arguments.experiments:
        rate, images, where = measure(name, arguments.seconds, arguments.data)
        results[name] = rate
        rows.append([name, str(rate), duration(images / rate.median), where])
        print(table(headings, rows[-1:]).splitlines()[-1], flush=True)
    print("\n" + table(headings, rows))
    save(arguments.json, "recipes", results)


if __name__ == "__main__":
    main()
