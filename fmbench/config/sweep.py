"""The plan of a sweep: which values of which keys, in how many runs."""

import copy
import math
import re
from collections.abc import Mapping, Sequence
from fractions import Fraction
from itertools import chain, product
from pathlib import Path
from typing import Any

from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Glob, IntervalSweep, Override, RangeSweep
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from fmbench.config import objectives, spaces
from fmbench.config.checks import check, refuse_out_of_bounds, resolve
from fmbench.config.hydra_compat import runs_in_turn
from fmbench.config.schema import DECIDING_IN_PARTS, KEYS, OF_SWEEPS, WILCOXON
from fmbench.config.trust import has_keys_in_subdir, refuse_untrusted, typed
from fmbench.core.errors import ConfigError

#: What the URL of a journal begins with; a path follows.
JOURNAL = "journal:"

#: The keys that say which images are read, rather than which of them train.
_PLACE_OF_DATA = re.compile(r"\+*data(?!\.split\b)(\.|$)")


def is_search(hydra: Any) -> bool:
    """Whether a `hydra` part looks for the best run, rather than running all of a grid."""
    return "sampler" in hydra.sweeper


def is_tuned(hydra: Any) -> bool:
    """Whether it compares contestants, each of which gets a search of its own."""
    return str(hydra.sweeper.get("_target_")).endswith(".TunedSweeper")


def run_name(config: DictConfig, number: int) -> str:
    """What a run of a sweep, with its number from 0, is called in a terminal."""
    if not is_search(config.hydra):
        return f"run {number + 1}"
    before, place, runs = "", number, config.sweep.get("seeds", 1)
    if is_tuned(config.hydra):
        block, place = divmod(number, block_size(config))
        before, trials = f"search {block + 1}, ", config.sweep.trials * runs
        if place >= trials:
            return f"{before}final {place - trials + 1} of {config.sweep.final_seeds}"
    trial, place = divmod(place, runs)
    return f"{before}trial {trial}" + (f", run {place + 1} of {runs}" if runs > 1 else "")


def block_size(config: DictConfig) -> int:
    """How many numbers of runs a search of a tuned comparison has: its trials', its finals'."""
    return int(config.sweep.trials * config.sweep.seeds + config.sweep.final_seeds)


#: The key of `evaluation` that a search may be given: it does not reach the trials, but for the
#: best, when it is evaluated on the test set.
OF_BEST = "evaluation.corruptions"

#: Keys by which the runs of a trial differ.
REPEATING = tuple(name for name, key in KEYS.items() if key.repeats)


def repeats(config: DictConfig, overrides: Sequence[str]) -> tuple[list[list[str]], list[str]]:
    """The runs of each trial of a search: what each sets; and the overrides that are left.

    They are the combinations of the seeds and folds that are listed beside the search; or, from the
    seed on, as many seeds as `sweep.seeds` says.

    Raises:
        ConfigError: both are said, or a range of seeds has no list of values.
    """
    listed: dict[str, list[str]] = {}
    left, seed, seeds = [], int(config.seed), int(config.sweep.seeds)
    for text, override in zip(overrides, _parser().parse_overrides(list(overrides)), strict=True):
        key = override.get_key_element().lstrip("+")
        if key not in REPEATING:
            left.append(text)
        elif override.is_discrete_sweep():
            _refuse_many(_count(override), config.max_runs, text, "runs of each trial")
            listed[key] = [f"{key}={value}" for value in override.sweep_string_iterator()]
            if len({*listed[key]}) < len(listed[key]):
                raise ConfigError(f"{text}: has one twice, which would be the same run twice")
        elif override.is_sweep_override():
            raise ConfigError(f"{text}: is no list; the runs of a trial are seed=0,1,2")
        elif key == "seed" and seeds > 1:
            seed = int(override.get_value_element_as_str())
        else:
            left.append(text)
    if seeds > 1:
        if "seed" in listed:
            raise ConfigError(f"sweep.seeds={seeds}: the seeds are listed already; leave out one")
        listed["seed"] = [f"seed={number}" for number in range(seed, seed + seeds)]
    return [list(runs) for runs in product(*listed.values())], left


def search_keys(config: DictConfig, base: Path | None = None) -> dict[str, Any]:
    """The keys of `sweep`, resolved.

    The path of a journal is absolute then; it starts from `base`, where the program was started,
    which is the current folder unless given.

    Raises:
        ConfigError: a journal has no path.
    """
    keys: Any = OmegaConf.to_container(config.sweep, resolve=True)
    scheme, colon, name = str(keys["storage"] or "").partition(":")
    if scheme + colon == JOURNAL:
        path = re.sub("^//(?=/)", "", name)
        if not path or path.startswith("//") or path.endswith("/"):
            raise ConfigError(f"sweep.storage={keys['storage']}: must be journal:FILE")
        keys["storage"] = f"{JOURNAL}{(base or Path.cwd()) / Path(path).expanduser()}"
    return dict(keys)


def has_one_data_set(config: DictConfig) -> bool:
    """Whether all runs of a sweep read the same files of images."""
    swept = (key for key, overrides in axes(config).items() if len(overrides) > 1)
    return not any(map(_PLACE_OF_DATA.match, swept))


def total_runs(config: DictConfig) -> int:
    """How many runs a sweep has: the trials of a search, or all combinations of its axes."""
    if is_tuned(config.hydra):
        searches = _combinations(config, listed(config)) * int(config.sweep.searches)
        return searches * block_size(config)
    if is_search(config.hydra):
        return int(config.sweep.trials) * _runs_of_a_trial(config)
    return _combinations(config, axes(config))


def _runs_of_a_trial(config: DictConfig) -> int:
    return len(repeats(config, [_text(override) for override in _overrides(config)])[0])


def _combinations(config: DictConfig, every: Mapping[str, Sequence[object]]) -> int:
    return math.prod(len(every[keys[0]]) for keys in paired(config, every))


def paired(config: DictConfig, every: Mapping[str, Sequence[object]]) -> list[tuple[str, ...]]:
    """The axes of a grid, which multiply: of one key each, or of those that `sweep.zip` pairs.

    `every` has the values of each key.

    Raises:
        ConfigError: `sweep.zip` is no list of keys, or names one that is not swept, one twice, or
            keys that do not have as many values each.
    """
    sweep: Any = OmegaConf.to_container(config.sweep, resolve=True)
    return _pairs(sweep["zip"], every)


def _pairs(given: Any, every: Mapping[str, Sequence[object]]) -> list[tuple[str, ...]]:
    zips = given or []
    if not isinstance(zips, list):
        zips = None
    elif zips and not any(isinstance(keys, list) for keys in zips):
        zips = [zips]
    if zips is None or not all(
        isinstance(k, list) and all(isinstance(t, str) for t in k) for k in zips
    ):
        raise ConfigError(
            f"sweep.zip={given}: must be a list of keys, as [model,batch_size], or several"
        )
    names = {key.lstrip("+").partition("@")[0]: key for key in every}
    seen: dict[str, tuple[str, ...]] = {}
    for keys in zips:
        if unknown := [key for key in keys if key not in names or key in seen]:
            why = "is in it twice" if unknown[0] in seen else "is not swept"
            raise ConfigError(f"sweep.zip={given}: {unknown[0]} {why}")
        lengths = {key: len(every[names[key]]) for key in keys}
        if len({*lengths.values()}) > 1 or len(lengths) < len(keys):
            said = ", ".join(f"{key} has {count}" for key, count in lengths.items())
            raise ConfigError(f"sweep.zip={given}: needs as many values of each: {said}")
        seen |= dict.fromkeys(keys, tuple(names[key] for key in keys))
    of_key = {key: axis for axis in seen.values() for key in axis}
    return list(dict.fromkeys(of_key.get(key, (key,)) for key in every))


def grid_size(texts: Sequence[str], zips: Any = None) -> int | None:
    """How many runs a grid of these overrides, and of this `sweep.zip`, has.

    They may be a stranger's: nothing is composed. None where they do not tell, as a glob does not.
    """
    counts: dict[str, range] = {}
    try:
        for override in OverridesParser.create().parse_overrides(list(texts)):
            if isinstance(override.value(), Glob):
                return None
            counts[override.get_key_element()] = range(_count(override))
        return math.prod(len(counts[keys[0]]) for keys in _pairs(zips, counts))
    except (ConfigError, HydraException, OverflowError, RecursionError, ValueError):
        return None


def axes(config: DictConfig) -> dict[str, tuple[Override, ...]]:
    """The keys that a sweep sets, with the overrides that give each its values.

    The command line outranks `hydra.sweeper.params`. Of a range of a search, which has no list of
    values, the two ends stand for it.

    Raises:
        ConfigError: a glob matches nothing, or a key has more values than a sweep may have runs.
    """
    parser = _parser()
    found: dict[str, tuple[Override, ...]] = {}
    for override in _overrides(config):
        key = override.get_key_element()
        if override.is_discrete_sweep():
            _refuse_many(_count(override), config.max_runs, _text(override), "values")
            values = [f"{key}={value}" for value in override.sweep_string_iterator()]
            if not values:
                raise ConfigError(f"{override.input_line}: matches nothing")
            found[key] = tuple(parser.parse_overrides(values))
        elif isinstance(value := override.value(), IntervalSweep):
            ends = [f"{key}={value.start}", f"{key}={value.end}"]
            found[key] = tuple(parser.parse_overrides(ends))
        else:
            found[key] = (override,)
    return found


def is_list(override: Override) -> bool:
    """Whether values are listed with commas, or by a pattern, rather than as what is searched."""
    value = override.value()
    return isinstance(value, Glob) or (isinstance(value, ChoiceSweep) and value.simple_form)


def listed(config: DictConfig) -> dict[str, tuple[Override, ...]]:
    """The keys that were typed with a list, in a tuned comparison: its contestants; as `axes`."""
    last = {one.get_key_element(): one for one in _parser().parse_overrides(typed(config)[1])}
    every = axes(config)
    return {key: every[key] for key, override in last.items() if is_list(override)}


def _parser() -> OverridesParser:
    return OverridesParser.create(config_loader=GlobalHydra.instance().config_loader())


def _text(override: Override) -> str:
    return str(override.input_line)


def _overrides(config: DictConfig) -> list[Override]:
    """The overrides of a sweep: `hydra.sweeper.params`, then the command line."""
    texts = [f"{key}={value}" for key, value in spaces.params(config).items()]
    return _parser().parse_overrides([*texts, *typed(config)[1]])


#: What is typed for sweeps alone, and does nothing in a single run.
_FOR_SWEEPS = re.compile(
    r"hydra[/.](launcher|sweeper)\b|hydra\.sweep\.|sweep\.|max_runs\b|optimizer\.search\b"
)


#: Keys of `sweep` that mean something in a grid too.
_OF_GRIDS = ("sweep.jobs", "sweep.jobs_per_gpu", "sweep.zip", "sweep.detach", "sweep.plan")

#: Those of a tuned comparison alone, and those that it has no use for.
_OF_TUNED = ("sweep.final_seeds", "sweep.final_on", "sweep.searches")
_NOT_OF_TUNED = {
    "storage": "its searches share a study in its folder",
    "study": "each of its searches has one of its own",
    "detach": "the command hands out the trials of all searches",
}


def refuse_for_sweeps(config: DictConfig) -> None:
    """Refuse what was typed for a sweep in a single run."""
    for text in chain(*typed(config)):
        if _FOR_SWEEPS.match(text.lstrip("+~")):
            raise ConfigError(
                f"{text.lstrip('+')}: does nothing in a single run; python -m fmbench -m starts a "
                "sweep"
            )


def _refuse_idle(config: DictConfig) -> None:
    """Refuse what was typed for a single run, for a search where this is none, or several times."""
    for text in chain(*typed(config)):
        key, _, value = text.lstrip("+~").partition("=")
        if key == "hydra.run.dir":
            raise ConfigError(
                f"{text}: names the folder of a single run; of a sweep hydra.sweep.dir={value}"
            )
        of_search = key.startswith("sweep.") and key not in _OF_GRIDS
        if key == "sweep.seeds" and config.hydra.runtime.choices.get("sweep") == "aa":
            refuse_out_of_bounds(key, config.sweep.seeds)
            of_search = False
        if (of_search or spaces.is_of_space(key)) and not is_search(config.hydra):
            raise ConfigError(
                f"{text.lstrip('+')}: is for searches, and this is a grid; sweep=lr_batch or "
                "hydra/sweeper=optuna makes it one"
            )
        if key in _OF_TUNED and not is_tuned(config.hydra):
            raise ConfigError(f"{text}: is for a tuned comparison, which sweep=tuned makes")
    for override in _parser().parse_overrides(typed(config)[1]):
        key = override.get_key_element().lstrip("+~").partition(".")[0]
        if key in OF_SWEEPS and override.is_sweep_override():
            raise ConfigError(f"{override.input_line}: is one value of the whole sweep")


def check_sweep(config: DictConfig, config_name: str) -> dict[str, Any]:
    """Check every value that a sweep gives to every key, one key at a time; returns the first run.

    Not every combination: there can be millions. One that fails only together with another ends
    its own run.

    Raises:
        ConfigError: a value cannot be or does nothing, or there are more runs than `max_runs`.
        HydraException: a value names no option or no key.
    """
    _refuse_idle(config)
    _check_jobs(config)
    _check_sweeper(config)
    if is_search(config.hydra):
        _check_search(config)
    loader = GlobalHydra.instance().config_loader()
    every = axes(config)
    runs = total_runs(config)
    _refuse_many(runs, config.max_runs, "this sweep", "runs")
    first = [_text(overrides[0]) for overrides in every.values()]
    # Where keys of a run stand in the name of its folder, that is checked too.
    named = typed(config)[0] if has_keys_in_subdir(config) else []
    base = loader.load_configuration(config_name, [*named, *first], RunMode.RUN)
    refuse_untrusted(base, config_name)
    resolved = resolve(base)
    check(resolved)
    own = OmegaConf.masked_copy(base, [str(key) for key in base if key != "hydra"])
    for keys in [(key,) for key in every] if is_search(config.hydra) else paired(config, every):
        for values in list(zip(*(every[key] for key in keys), strict=True))[1:]:
            there = [OmegaConf.select(own, key) for key in keys]
            # What is null now may become anything.
            composes = any(
                value is None or key in base.hydra.runtime.choices or OmegaConf.is_config(value)
                for key, value in zip(keys, there, strict=True)
            )
            leads_up = bool(named) and any(".." in _text(value) for value in values)
            if composes or leads_up:
                texts = dict(zip(every, first, strict=True))
                texts |= {key: _text(value) for key, value in zip(keys, values, strict=True)}
                changed = [*named, *texts.values()]
                composed = loader.load_configuration(config_name, changed, RunMode.RUN)
                refuse_untrusted(composed, config_name)
                check(resolve(composed))
            else:
                # Ten times as fast as composing, and the values of a long range are of this kind.
                job = copy.deepcopy(own)
                for key, value in zip(keys, values, strict=True):
                    OmegaConf.update(job, key, value.value())
                check(resolve(job))
    return resolved


def _check_jobs(config: DictConfig) -> None:
    """Refuse a number of runs at once that cannot be, or that does nothing."""
    jobs = config.sweep.jobs
    if jobs != "auto":
        if type(jobs) is not int:
            raise ConfigError(f"sweep.jobs={jobs}: must be 1 or more, or auto")
        refuse_out_of_bounds("sweep.jobs", jobs)
    refuse_out_of_bounds("sweep.jobs_per_gpu", config.sweep.jobs_per_gpu)
    here = runs_in_turn(config.hydra.launcher)
    if not here and (jobs == "auto" or (jobs != 1 and not is_search(config.hydra))):
        option = config.hydra.runtime.choices["hydra/launcher"]
        raise ConfigError(
            f"sweep.jobs={jobs}: is for runs on this machine; hydra/launcher={option} has keys of "
            "its own for how many are at work"
        )


def _count(override: Override) -> int:
    """How many values a sweep gives to a key, without making them."""
    value = override.value()
    if isinstance(value, RangeSweep) and value.step:
        start, stop = Fraction(value.start or 0), Fraction(value.stop or 0)
        return max(0, math.ceil((stop - start) / Fraction(value.step)))
    return len(value.list) if isinstance(value, ChoiceSweep) else 1


def _refuse_many(count: int, most: int, what: str, things: str) -> None:
    """Refuse what Hydra would write out in memory before it starts the first run."""
    if count > most:
        shown = f"{count:,}" if count < 10**15 else "over 10**15"
        raise ConfigError(f"{what}: {shown} {things}, more than max_runs={most}")


def _check_search(config: DictConfig) -> None:
    """Refuse a search that could not choose, or that would choose by the test set."""
    spaces.told(config)  # what it refuses, before a study is written
    refuse_out_of_bounds("sweep.seeds", config.sweep.seeds)
    runs = _runs_of_a_trial(config)
    pruner = config.sweep.pruner
    if runs > 1 and pruner not in ("none", WILCOXON):
        raise ConfigError(
            f"sweep.pruner={pruner}: prunes one run by its epochs, and a trial here has {runs}; "
            f"allowed are none and {WILCOXON}"
        )
    if runs < 4 and pruner == WILCOXON:
        raise ConfigError(
            f"sweep.pruner={WILCOXON}: prunes a trial by its runs, from the fourth on, and here it "
            f"has {runs}; sweep.seeds=5 gives it five"
        )
    objectives.check(search_keys(config))
    if is_tuned(config.hydra):
        _check_tuned(config)
    elif config.sweep.zip is not None:
        raise ConfigError(f"sweep.zip={config.sweep.zip}: is for grids, and this is a search")
    if config.hydra.sweeper.sampler is None:
        raise ConfigError("hydra.sweeper.sampler=null: hydra/sweeper/sampler=tpe chooses one")
    for override in _overrides(config):
        key = override.get_key_element().lstrip("+~")
        of_best = key == OF_BEST and not (override.is_sweep_override() or override.is_delete())
        of_test = key.partition(".")[0].partition("@")[0] in ("evaluation", "test_every")
        if of_test and not of_best and key not in DECIDING_IN_PARTS:
            raise ConfigError(
                f"{override.input_line}: a search uses the test set once, for the best of its runs"
            )
        of_data = key.split(".")[:2] in (["data"], ["data", "split"]) and key not in REPEATING
        if override.is_sweep_override() and of_data:
            raise ConfigError(
                f"{override.input_line}: cannot be searched; accuracies on other images do not "
                "compare"
            )
    folders: Any = OmegaConf.to_container(config.hydra.sweep, resolve=False)
    if folders["subdir"] != "${hydra.job.num}":
        raise ConfigError("hydra.sweep.subdir: a search numbers the folders of its runs itself")


def _check_tuned(config: DictConfig) -> None:
    """Refuse a tuned comparison that has nothing to compare, or that could not be fair."""
    sweep = config.sweep
    for key in _OF_TUNED:
        refuse_out_of_bounds(key, sweep[key.partition(".")[2]])
    for key, why in _NOT_OF_TUNED.items():
        if sweep[key]:
            raise ConfigError(f"sweep.{key}={sweep[key]}: not in a tuned comparison: {why}")
    if sweep.objective not in objectives.OF_AN_EPOCH:
        raise ConfigError(
            f"sweep.objective={sweep.objective}: a tuned comparison chooses by one of "
            f"{', '.join(objectives.OF_AN_EPOCH)}"
        )
    contestants = listed(config)
    lists = [key for key, values in contestants.items() if len(values) > 1]
    if not lists:
        raise ConfigError(
            "sweep=tuned: there is nothing to compare; a list makes contestants, as "
            "optimizer=sgd,adamw"
        )
    for override in _overrides(config):
        key, text = override.get_key_element().lstrip("+"), _text(override)
        if key in REPEATING and override.is_sweep_override():
            raise ConfigError(
                f"{text}: a tuned comparison draws its seeds itself; sweep.final_seeds and "
                "sweep.seeds say how many"
            )
        if key in contestants and override.is_sweep_override() and not is_list(override):
            raise ConfigError(f"{text}: is searched, and {key} has a list of contestants too")
    for key in config.hydra.sweeper.get("params") or {}:
        if str(key).lstrip("+") in contestants:
            raise ConfigError(
                f"hydra.sweeper.params.{key}: is searched, and has a list of contestants too"
            )


def _check_sweeper(config: DictConfig) -> None:
    sweeper = config.hydra.sweeper
    most = sweeper.get("max_batch_size")
    if most is not None and most < 1:
        raise ConfigError(f"hydra.sweeper.max_batch_size={most}: must be 1 or more")
    params = sweeper.get("params") or {}
    if not isinstance(params, DictConfig) and params != {}:
        raise ConfigError(f"hydra.sweeper.params={params}: must be KEY: VALUES")
    for key in map(str, params):
        name = key.lstrip("+~").partition("@")[0]
        if name.startswith("hydra") or name.partition(".")[0] in OF_SWEEPS:
            raise ConfigError(f"hydra.sweeper.params.{key}: must be a key of a run, not of Hydra")
        if name in ("data.root", "data.test"):
            raise ConfigError(f"hydra.sweeper.params.{key}: is given on the command line")
    spaces.params(config)
