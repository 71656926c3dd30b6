"""Recognise actions in someone's own clips, from a few examples of each: the Python door to what predict.py does.

    from runs.recognizer import Recognizer

    model = Recognizer("ViT-B/16")
    actions = model.learn("my_actions")          # my_actions/<action>/*.mp4
    print(actions.check())                       # leave-one-out, when an answer is "unknown", warnings
    print(actions.predict("new.mp4").answer)
    for moment in actions.follow(frames):        # (seconds, uint8 [H, W, 3]) of a camera, in order
        print(moment.start, moment.action)

A Recognizer and its Actions never change, and may be used from several threads.
"""

from collections.abc import Iterable
from typing import Any

from runs.own.actions import Actions
from runs.own.calibration import Wishes
from runs.own.recognizer import Recognizer
from runs.own.results import Answer, Check

__all__ = ["Actions", "Answer", "Check", "Recognizer", "Wishes", "to_frame"]


def to_frame(answers: Iterable[Answer]) -> Any:
    """Return answers as a pandas DataFrame, a row each, with the keys of `Answer.to_dict` as columns."""
    import pandas as pd

    return pd.DataFrame([answer.to_dict() for answer in answers])
