"""`python -m fmbench.predict`: classify pictures with a trained model."""

import argparse
from collections.abc import Sequence
from functools import partial

from fmbench.core.console import Parser, complain, printed, run_command, say, typed_path
from fmbench.core.errors import ConfigError, DataError, one_line
from fmbench.core.files import write_whole
from fmbench.predict import photographs

PROGRAM = "fmbench.predict"

EXAMPLES = f"""\
{photographs.__doc__}
Of clothing use pictures of one piece on a plain background; --seen shows the result.

examples:
  python -m fmbench model=lenet keep_model=true hydra.run.dir=outputs/lenet
  python -m fmbench.predict outputs/lenet shirt.jpg boot.png
  python -m fmbench.predict outputs/lenet photos/*.jpg --top 1 --seen seen.png

exit status:
  0  every picture was classified    2  the run folder does not exist, or a wrong option
  3  no model.safetensors, or a picture cannot be read: the others are classified
  5  the predictions could not be printed, or --seen not be written
"""


def main(argv: Sequence[str] | None = None) -> None:
    """Classify pictures, then exit with the status that `--help` explains."""
    run_command(PROGRAM, lambda: _predict(_parser().parse_args(argv)), typed=argv is None)


def _predict(arguments: argparse.Namespace) -> int:
    """Print the predictions of each picture; returns the exit status."""
    import torch  # which --help must not

    from fmbench.predict.model import load_model

    sheet = arguments.seen
    if sheet and (sheet.suffix.lower() != ".png" or sheet in arguments.pictures):
        raise ConfigError(f"--seen {sheet}: must end in .png, and be none of the pictures")
    model = load_model(arguments.run_folder)
    names = [one_line(str(path)) for path in arguments.pictures]
    classes = [one_line(name) for name in model.classes]
    name_width, class_width = max(map(len, names)), max(map(len, classes))
    seen, status = [], 0
    for path, name in zip(arguments.pictures, names, strict=True):
        try:
            image = photographs.prepared(
                path, model.config["data"], model.shape, arguments.background
            )
        except DataError as error:
            complain(PROGRAM, str(error))
            status = error.exit_status
            continue
        seen.append(image)
        best = model.probabilities(torch.from_numpy(image[None]))[0].sort(descending=True)
        top = zip(best.indices[: arguments.top], best.values, strict=False)
        cells = [f"{classes[number]:<{class_width}} {share:6.1%}" for number, share in top]
        # A line as soon as it is known, however many there are.
        if failed := printed(PROGRAM, partial(say, "  ".join([f"{name:<{name_width}}", *cells]))):
            return failed
    if sheet and seen:
        write_whole(sheet, photographs.sheet(seen))
    return status


def _parser() -> argparse.ArgumentParser:
    described = "Classify pictures with a trained model: the likeliest classes, best first."
    parser = Parser("python -m fmbench.predict", described, EXAMPLES)
    add = parser.add_argument
    folder_help = "of a run that was made with keep_model=true"
    add("run_folder", type=typed_path, metavar="RUN_FOLDER", help=folder_help)
    picture_help = f"of any size: {', '.join(photographs.FORMATS)}"
    add("pictures", nargs="+", type=typed_path, metavar="PICTURE", help=picture_help)
    top_help = "how many classes, 1 to 10 (default: %(default)s)"
    add("--top", type=int, choices=range(1, 11), default=3, metavar="N", help=top_help)
    background_help = "of the pictures (default: auto, by the brightness of the border)"
    add("--background", choices=photographs.BACKGROUNDS, default="auto", help=background_help)
    seen_help = "write what the model saw: the pictures that were read, in their order, row by row"
    add("--seen", type=typed_path, metavar="FILE.png", help=seen_help)
    return parser


if __name__ == "__main__":
    main()
