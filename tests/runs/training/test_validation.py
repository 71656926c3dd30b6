"""Validation notes the best iteration."""

from contextlib import nullcontext
from types import SimpleNamespace

from runs.training.loop import Progress
from runs.training.validation import Validator


def test_the_first_of_equally_good_iterations_stays_the_best():
    accuracies = iter([0.5, 0.5, 0.625])
    evaluator = SimpleNamespace(
        split=SimpleNamespace(name="val"), specs=[0], ranks=SimpleNamespace(copy_weights=lambda *_, **__: None),
        run=lambda model, title: SimpleNamespace(accuracy=next(accuracies), interval=0.1, episode_accuracy=[0.5]))
    validator, progress, bests = Validator(evaluator, SimpleNamespace(at_once=nullcontext)), Progress(), []
    for progress.iteration in (2, 4, 6):
        bests.append((validator.run(None, progress)[1], progress.best, progress.best_iteration))
    assert bests == [(True, 0.5, 2), (False, 0.5, 2), (True, 0.625, 6)]
