"""The commands of runs/prepare.py, one module each: `add_arguments(parser)` and `run(arguments) -> exit status`."""
