"""Say what a method does behind its tower as modules that torch.export takes, so that a bundle runs it without torch.

P clips, L tokens, M queries, R references, T frames, D features.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, nn

from models.layers.alignment.bimhm import mean_hausdorff
from models.layers.alignment.exportable import ExportableOtam
from models.layers.similarity import frame_costs, full_precision, unit
from utils.errors import ExportError

Distance = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class Exportable:
    """Holds what is done with the frames of clips, [P, T, D], once the tower has seen them.

    Args:
        compare: queries [M, T, D] and references [R, T, D] -> distances [M, R], which are minus the scores.
        merge: what the references are: "after": the mean of each action's modulated clips; "before": its mean clip,
            modulated; "never": its modulated clips, whose distances are averaged.
        modulator: what clips pass first, [P, L, D] -> [P, L, D]; None: nothing.
        text: whether the text of its action follows a reference's frames into the modulator; what comes of it is left.
    """

    compare: nn.Module
    merge: Literal["before", "after", "never"]
    modulator: nn.Module | None = None
    text: bool = False

    @classmethod
    def of(cls, modulator: nn.Module, options: Any, frames: int) -> "Exportable":
        """Return prototypes of modulated clips that an alignment compares, by the options of CLIP-FSAR.

        Raises ExportError: see Aligned.
        """
        return cls(Aligned(options.ALIGNMENT, frames, options.SMOOTHING, options.SINGLE_DIRECT),
                   "before" if options.MERGE_BEFORE else "after",
                   None if isinstance(modulator, nn.Identity) else modulator, text=True)


class Pairwise(nn.Module):
    """Computes a function of queries [M, T, D] and references [R, T, D]. [M, R]"""

    def __init__(self, distance: Distance):
        super().__init__()
        self.distance = distance

    def forward(self, queries_MTD: Tensor, references_RTD: Tensor) -> Tensor:
        """Return the distances."""
        return self.distance(queries_MTD, references_RTD)


class UnitMean(nn.Module):
    """Computes the mean frame of each clip, divided by its norm. [P, T, D] -> [P, 1, D]"""

    def forward(self, frames_PTD: Tensor) -> Tensor:
        """Return one vector a clip."""
        return unit(full_precision(frames_PTD).mean(dim=1, keepdim=True))


class Aligned(nn.Module):
    """Computes the distance by which an alignment joins the frames of a query and of a reference. [M, R]

    Args:
        name: of the alignment, as in ALIGNMENTS. frames, smoothing, single_direction: see ExportableOtam.

    Raises ExportError where there is no module of it, or OTAM cannot be exported with these settings.
    """

    def __init__(self, name: str, frames: int, smoothing: float, single_direction: bool = False):
        super().__init__()
        if name not in ("otam", "otam_triton", "otam_reference", "bimhm"):
            raise ExportError(f"alignment {name}: expected otam or bimhm, of which there are modules for export")
        self.otam = None if name == "bimhm" else ExportableOtam(frames, smoothing, single_direction)
        self.single_direction = single_direction

    def forward(self, queries_MTD: Tensor, references_RTD: Tensor) -> Tensor:
        """Return the distances."""
        costs_MRTT = frame_costs(queries_MTD.unsqueeze(0), references_RTD.unsqueeze(0))[0]
        if self.otam is None:
            return mean_hausdorff(costs_MRTT, single_direction=self.single_direction)
        return self.otam(costs_MRTT)
