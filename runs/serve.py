"""Open a page on this machine for a folder of your own clips: add some, by webcam or as files, and see what it does.

The page changes files in that folder and nothing else; predict.py gives the same answers from it. Nothing leaves this
machine, and no other machine can reach the page. KEY VALUE pairs, before the options, change settings as in run.py.
"""

import argparse
from pathlib import Path

EXAMPLES = ("examples: python runs/serve.py --dir my_actions\n"
            "          python runs/serve.py --dir my_actions --weights MobileNetV2 --text off\n"
            "from another machine: ssh -L 8765:127.0.0.1:8765 user@this-machine, then open the printed address there")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    from runs.predict import add_model_arguments  # known once this checkout is on sys.path

    parser.add_argument("--dir", type=Path, required=True, help="your clips: a folder an action; none/ holds clips of "
                        "none of them. It is made where it is missing")
    parser.add_argument("--port", type=int, default=8765, help="the next free one from there is taken (default: 8765)")
    parser.add_argument("--no-browser", action="store_true", help="only print the address")
    parser.add_argument("--max-upload", type=float, default=200, metavar="MB", help="of one video (default: 200)")
    parser.add_argument("--max-folder", type=float, default=5, metavar="GB", help="of the folder (default: 5)")
    add_model_arguments(parser)


def usage_problem(parsed: argparse.Namespace) -> str | None:
    """Say what is wrong about the options, in place of doing anything; None: nothing."""
    if not 0 <= parsed.port < 65536:
        return f"--port: expected 0 to 65535, found {parsed.port}"
    if not (parsed.max_upload > 0 and parsed.max_folder > 0):
        return "--max-upload, --max-folder: expected more than 0"
    return None


def run(parsed: argparse.Namespace) -> int:
    """Serve the page until Ctrl-C. Raises FewShotError."""
    from runs.own.page.serving import serve  # torch loads only when there is something to do

    return serve(parsed)


if __name__ == "__main__":
    from clip_fsar import start

    start("serve")
