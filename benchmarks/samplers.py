"""Which sampler finds the best place of a surface of real runs, by one worker and by several?

    python -m benchmarks.samplers

Searches over learning rate, batch size and weight decay on what `benchmarks.surface` has measured:
the highest validation accuracy (%) of the first trials to end, over the seeds of the sampler. The
samplers are those that a search of fmbench makes of `hydra/sweeper/sampler=NAME`, each trial with a
seed of its own. Workers are simulated: each gets the next trial at once when its last one has
ended, and a trial lasts as long as the surface's runs of its batch size trained (median). One that
diverged is told as pruned, as a search tells it. `over tpe, before` is the difference within each
seed, with the 95 % interval of its mean: positive where the other one is better.
"""

import heapq
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path

import hydra
import optuna
import torch
from omegaconf import DictConfig
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.trial import TrialState

from benchmarks.frame import CHECKOUT, Results, Spread, main
from benchmarks.surface import Surface
from fmbench.config import checks
from fmbench.search import sampler
from fmbench.stats import t_half_width

#: Their options on the command line of a search.
CONTENDERS = {
    "tpe, before": ("tpe", {"multivariate": False, "constant_liar": False}),
    "tpe": ("tpe", {}),
    "random": ("random", {}),
    "gp": ("gp", {}),
}
BASE = "tpe, before"


def measure(
    *,
    file: Path = CHECKOUT / "benchmarks" / "surface_lenet.csv",
    contenders: Sequence[str] = tuple(CONTENDERS),
    workers: Sequence[int] = (1, 8),
    trials: Sequence[int] = (20, 50),
    seeds: int = 20,
) -> Iterator[Results]:
    """The best accuracies, named "WORKERS, TRIALS: CONTENDER"."""
    torch.set_num_threads(1)  # of gp, whose matrices are small
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    surface = Surface(file)
    yield {"best of the surface": f"{100 * surface.best:.2f} %"}
    for at_once in workers:
        found = {
            name: [
                search(surface, config(name, seed), at_once, max(trials)) for seed in range(seeds)
            ]
            for name in contenders
        }
        for first in trials:
            yield _compared(f"{_many(at_once, 'worker')}, {_many(first, 'trial')}", found, first)


def _compared(where: str, found: dict[str, list[list[float]]], first: int) -> Results:
    best = {name: [100 * max(one[:first]) for one in ends] for name, ends in found.items()}
    results: Results = {f"{where}: {name}": Spread.of(each, "%") for name, each in best.items()}
    for name, each in best.items():
        if name != BASE and BASE in best:
            results[f"{where}: {name} over {BASE}"] = _paired(each, best[BASE])
    return results


def _paired(ours: Sequence[float], theirs: Sequence[float]) -> str:
    each = [one - other for one, other in zip(ours, theirs, strict=True)]
    half = float(t_half_width(statistics.stdev(each), len(each))) if len(each) > 1 else float("nan")
    return f"{statistics.mean(each):+.2f} +- {half:.2f}"


def _many(count: int, thing: str) -> str:
    return f"{count} {thing}{'s' * (count != 1)}"


def config(contender: str, seed: int) -> DictConfig:
    """The config of a sampler, as the search has it that a command line starts."""
    option, typed = CONTENDERS[contender]
    words = [f"hydra/sweeper/sampler={option}", f"hydra.sweeper.sampler.seed={seed}"]
    words += [f"hydra.sweeper.sampler.{key}={value}".lower() for key, value in typed.items()]
    checks.register()
    with hydra.initialize_config_dir(str(checks.CONFIG_DIR)):
        composed = hydra.compose(
            "config", ["hydra/sweeper=optuna", *words], return_hydra_config=True
        )
    made: DictConfig = composed.hydra.sweeper.sampler
    return sampler.settled(made, {})


def search(surface: Surface, made: DictConfig, workers: int, total: int) -> list[float]:
    """The accuracies of a search's trials, in the order of their ends; 0 where one diverged."""
    rates, decays = surface.rates, surface.decays
    space = {
        "optimizer.lr": FloatDistribution(rates[0], rates[-1], log=True),
        "batch_size": CategoricalDistribution(surface.sizes),
        "optimizer.weight_decay": FloatDistribution(decays[0], decays[-1], log=True),
    }
    study = optuna.create_study(direction="maximize")
    at_work: list[tuple[float, int, optuna.Trial, float | None]] = []
    ends: list[float] = []
    now, begun = 0.0, 0
    while len(ends) < total:
        while len(at_work) < workers and begun < total:
            study.sampler = sampler.make(made, space, [begun])
            trial = study.ask(space)
            point = surface.at(*(trial.params[key] for key in space))
            heapq.heappush(at_work, (now + point.seconds, begun, trial, point.accuracy))
            begun += 1
        now, _, trial, accuracy = heapq.heappop(at_work)
        study.tell(trial, accuracy, state=TrialState.PRUNED if accuracy is None else None)
        ends.append(accuracy or 0.0)
    return ends


if __name__ == "__main__":
    main(measure)
