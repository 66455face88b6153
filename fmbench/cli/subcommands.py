"""Subcommands of `fmbench`: words that are dispatched before Hydra sees the arguments."""

import importlib

#: The module whose `main` runs each; `python -m` starts the same one.
SUBCOMMANDS = {
    "report": "fmbench.report.__main__",
    "compare": "fmbench.report.__main__",
    "preview": "fmbench.preview.__main__",
    "predict": "fmbench.predict.__main__",
}


def dispatched(arguments: list[str]) -> bool:
    """Run the subcommand that a command line begins with, if it does; that exits the program.

    Args:
        arguments: `sys.argv`; the subcommand is taken out, as the module reads the rest.
    """
    name = arguments[1] if len(arguments) > 1 else ""
    if name not in SUBCOMMANDS:
        return False
    if name != "compare":  # a word that the report knows
        del arguments[1]
    importlib.import_module(SUBCOMMANDS[name]).main()
    return True
