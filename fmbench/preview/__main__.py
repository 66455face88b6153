"""`python -m fmbench.preview`: write a picture of what an augmentation does to the images."""

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import hydra
from hydra.core.override_parser.overrides_parser import OverridesParser

from fmbench.config import checks as configuration
from fmbench.config import sources, trust
from fmbench.config.messages import as_user_error
from fmbench.config.overrides import mended, refuse_passwords
from fmbench.config.trust import refuse_untrusted
from fmbench.core.console import Parser, printed, run_command, say, typed_path
from fmbench.core.errors import ConfigError
from fmbench.core.files import write_whole

PROGRAM = "fmbench.preview"

EXAMPLES = """\
examples:
  python -m fmbench.preview augmentation=crop_flip_cutout
  python -m fmbench.preview augmentation=crop_flip 'augmentation.cutout={size: 8}' seed=3
  python -m fmbench.preview augmentation=flip data=synthetic --images 4 --output flip.png

exit status:
  0  the picture is written          2  a wrong option, or a config that cannot be
  3  the data are missing or damaged 5  the picture could not be written
"""


def main(argv: Sequence[str] | None = None) -> None:
    """Write the picture and print its path, then exit with the status that `--help` explains."""
    run_command(PROGRAM, lambda: _preview(_arguments(argv)), typed=argv is None)


def _preview(arguments: argparse.Namespace) -> int:
    logging.basicConfig(format="%(message)s")
    logging.getLogger("fmbench").setLevel(logging.INFO)  # downloads are logged
    try:
        config, option = compose(arguments.overrides, arguments.config_dir)
        from fmbench.preview.images import collect, draw
        from fmbench.training.device import settings_kept  # torch, which --help must not import

        with settings_kept():
            grid = collect(config, option, images=arguments.images, draws=arguments.draws)
        write_whole(arguments.output, draw(grid))
    except Exception as error:
        if known := as_user_error(error):
            raise known from None
        raise
    return printed(PROGRAM, lambda: say(str(arguments.output)), only_there=False)


def compose(
    overrides: Sequence[str], folders: Sequence[str | Path] = ()
) -> tuple[dict[str, Any], str]:
    """Compose and resolve the config of a run; returns it and its option of `augmentation`.

    Raises:
        ConfigError: There are values to sweep, or the config cannot be that of a run.
        HydraException: The overrides do not compose.
    """
    refuse_passwords(overrides)
    overrides = mended(overrides)
    for override in OverridesParser.create().parse_overrides(list(overrides)):
        if override.is_sweep_override():
            raise ConfigError(
                f"{override.input_line}: a picture shows one run's images; give each key one value"
            )
    with (
        sources.hydra_alone(),
        hydra.utils.execution_whitelist(trust.around_runs(), reset=True),
        sources.own_folders(sources.found(folders)),
    ):
        configuration.register()
        hydra.initialize_config_dir(str(configuration.CONFIG_DIR))
        composed = hydra.compose("config", list(overrides), return_hydra_config=True)
        refuse_untrusted(composed)
        option = composed.hydra.runtime.choices.get("augmentation")
        return configuration.resolve(composed), str(option or "none")


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(
        "python -m fmbench.preview",
        "Show what an augmentation does: a picture with an image of each class as it is, and\n"
        "as a run with the same settings sees it in its first epochs.",
        EXAMPLES,
    )
    add = parser.add_argument
    overrides_help = "as for a run, such as augmentation=crop_flip data=synthetic seed=3"
    add("overrides", nargs="*", metavar="GROUP=OPTION | KEY=VALUE", help=overrides_help)
    output_help = "where to write the picture, a PNG (default: %(default)s, here)"
    add("--output", type=typed_path, default="preview.png", metavar="FILE", help=output_help)
    images_help = "rows: images of different classes, 1 to 10 (default: %(default)s)"
    add("--images", type=int, choices=range(1, 11), default=10, metavar="N", help=images_help)
    draws_help = "columns: epochs, 1 to 20 (default: %(default)s)"
    add("--draws", type=int, choices=range(1, 21), default=8, metavar="M", help=draws_help)
    folder_help = "a folder with options of your own, as for a run; may be given several times"
    add("--config-dir", action="append", default=[], metavar="DIR", help=folder_help)
    arguments = parser.parse_intermixed_args(argv)
    if arguments.output.suffix.lower() != ".png":
        raise ConfigError(f"--output {arguments.output}: the name must end in .png")
    return arguments


if __name__ == "__main__":
    main()
