"""Running means go on where they were."""

import math

from utils.meters import WINDOW, Meter


def test_a_window_handed_over_gives_the_same_means():
    values: dict[str, list[float]] = {}
    whole, first = Meter(200), Meter(200, values=values)
    for number in range(70):
        whole.update(loss=math.sin(number))
        first.update(loss=math.sin(number))
    second = Meter(200, 70, {name: list(figures) for name, figures in values.items()})
    assert len(values["loss"]) == WINDOW == 50 and second.mean("loss") == first.mean("loss")
    for number in range(70, 140):
        whole.update(loss=math.sin(number))
        second.update(loss=math.sin(number))
        assert whole.mean("loss") == second.mean("loss")
    assert whole.done == second.done and math.isnan(second.mean("accuracy"))
