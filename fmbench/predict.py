"""`python -m fmbench.predict`: what a trained net takes pictures for."""

import argparse
import io
import sys
from collections.abc import Sequence

import fmbench
from fmbench import pictures
from fmbench.errors import ConfigError, DataError, StorageError, UserError, one_line
from fmbench.storage import write_whole
from fmbench.streams import Parser, complain, import_from_here, open_all, say, silence, typed_path

PROGRAM = "fmbench.predict"

EXAMPLES = """\
what is done to a picture, as was done to those of Fashion-MNIST (arXiv:1708.07747, section 2):
  Edges close to the colour of the corners are cut off, the longest edge becomes 28 pixels,
  outlines are sharpened, and the picture is put in the middle of 28 x 28 grey pixels. A picture on
  a light background is negated, and any background becomes black. So what works is one piece of
  clothing on a plain background, light falling from one side or not; --seen shows what became of
  it. A transparent background counts as white, or as black where the clothing is nearly white. A
  grey picture of 28 x 28 is taken as it is, negated where its background is light.

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
    """Classify pictures, then exit with the status that `--help` explains.

    Args:
        argv: The arguments; those of the command line by default.
    """
    open_all()
    try:
        if argv is None:
            import_from_here()
        arguments = _parser().parse_args(argv)
    except UserError as error:
        complain(PROGRAM, str(error))
        sys.exit(error.exit_status)
    if sys.stdout is None:  # started with `>&-`
        complain(PROGRAM, "standard output is closed: nothing was printed")
        sys.exit(StorageError.exit_status)
    # An old terminal's encoding may lack a letter of a file's name.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    try:
        status = _predict(arguments)
    except UserError as error:
        complain(PROGRAM, str(error))
        status = error.exit_status
    except KeyboardInterrupt:
        status = 130
    except OSError as error:
        silence()
        complain(PROGRAM, f"standard output: cannot be written: {error.strerror or error}")
        status = StorageError.exit_status
    sys.exit(status)


def _predict(arguments: argparse.Namespace) -> int:
    """Print a line a picture; the exit status says whether each could be read."""
    import torch  # --help must not wait for it

    if arguments.seen and not pictures.may_write_sheet(arguments.seen):
        raise ConfigError(
            f"--seen {arguments.seen}: the name must end in .png, and no other picture be there"
        )
    model = fmbench.load_model(arguments.run_folder)
    names = [one_line(str(path)) for path in arguments.pictures]
    classes = list(map(one_line, model.classes))
    widest = max(map(len, names)), max(map(len, classes))
    seen = []
    status = 0
    for path, name in zip(arguments.pictures, names, strict=True):
        try:
            image = pictures.read(path, arguments.background)
        except DataError as error:
            complain(PROGRAM, str(error))
            status = error.exit_status
            continue
        seen.append(image)
        best = model.probabilities(torch.from_numpy(image[None]))[0].topk(
            min(arguments.top, len(classes))
        )
        guesses = zip(best.indices.tolist(), best.values.tolist(), strict=True)
        cells = [f"{classes[place]:<{widest[1]}} {share:6.1%}" for place, share in guesses]
        _print("  ".join([f"{name:<{widest[0]}}", *cells]))
    if arguments.seen and seen:
        write_whole(arguments.seen, pictures.sheet(seen))
    return status


def _print(line: str) -> None:
    try:
        say(line)
        sys.stdout.flush()  # a line as soon as it is known, however many there are
    except BrokenPipeError:  # `| head` has seen enough
        silence()


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text}: must be a whole number, 1 or more")
    return int(text)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m fmbench.predict",
        description="Say what a trained net takes pictures for: the likeliest classes, best first.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "run_folder",
        type=typed_path,
        metavar="RUN_FOLDER",
        help="of a run that was made with keep_model=true",
    )
    parser.add_argument(
        "pictures",
        nargs="+",
        type=typed_path,
        metavar="PICTURE",
        help=f"of any size: {', '.join(pictures.FORMATS)}",
    )
    parser.add_argument(
        "--top", type=_count, default=3, metavar="N", help="how many classes (default: 3)"
    )
    parser.add_argument(
        "--background",
        choices=pictures.BACKGROUNDS,
        default="auto",
        help="what the clothing is seen against (default: auto, by the corners and the border)",
    )
    parser.add_argument(
        "--seen",
        type=typed_path,
        metavar="FILE.png",
        help="write what the net saw: the pictures that were read, in their order, row by row",
    )
    return parser


if __name__ == "__main__":
    main()
