"""Makes what queries are compared with, and holds clips out, by any runtime's modules: torch's or a bundle's.

N clips of the actions, R references, K actions, T frames, L tokens, D features, n clips that are held out.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

Modulate = Callable[[np.ndarray], np.ndarray]
Compare = Callable[[np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True, slots=True, eq=False)
class Runtime:
    """Runs the modules behind the tower: tokens [P, L, D] -> [P, L, D]; [M, T, D] and [R, T, D] -> [M, R]."""

    modulate: Modulate
    compare: Compare


@dataclass(frozen=True, slots=True, eq=False)
class Examples:
    """Holds clips of actions and how references come of them.

    Args:
        frames_NTD: features of their frames. labels_N: action of each. text_KD: text that joins the frames of an
            action's clips; None: none does. merge: see models/layers/exported.py.
    """

    frames_NTD: np.ndarray
    labels_N: np.ndarray
    text_KD: np.ndarray | None
    merge: str

    @property
    def reference_labels(self) -> np.ndarray:
        """Gives the action of each reference, [R]."""
        return self.labels_N if self.merge == "never" else np.arange(self.labels_N.max() + 1)

    def _supports(self, frames_PTD: np.ndarray, labels_P: np.ndarray, runtime: Runtime) -> np.ndarray:
        """Return the frames of clips of some actions behind the modulator, [P, T, D]."""
        if self.text_KD is None:
            return runtime.modulate(frames_PTD)
        tokens = np.concatenate([frames_PTD, self.text_KD[labels_P][:, None]], axis=1)
        return runtime.modulate(tokens)[:, :-1]

    def clips(self, runtime: Runtime) -> np.ndarray:
        """Return the clips as references are made of them, [N, T, D]: modulated, unless they are merged first."""
        return self.frames_NTD if self.merge == "before" else self._supports(self.frames_NTD, self.labels_N, runtime)

    def _merged(self, clips_NTD: np.ndarray, k: int, kept_N: np.ndarray, runtime: Runtime) -> np.ndarray:
        """Return the reference of one action from those of its clips that are kept, [1, T, D]."""
        mean = clips_NTD[kept_N & (self.labels_N == k)].mean(axis=0, dtype=np.float32, keepdims=True)
        return self._supports(mean, np.array([k]), runtime) if self.merge == "before" else mean

    def references(self, runtime: Runtime) -> np.ndarray:
        """Return all references, [R, T, D]."""
        clips, kept = self.clips(runtime), np.ones(len(self.labels_N), bool)
        if self.merge == "never":
            return clips
        return np.concatenate([self._merged(clips, k, kept, runtime) for k in self.reference_labels])

    def held_out(self, clips_n: np.ndarray, runtime: Runtime, asked_NTD: np.ndarray | None = None) -> np.ndarray:
        """Return the distances of clips to all actions, their own made without them. float64 [n, K]

        Args:
            asked_NTD: the clips as queries, where their frames have other features then.
        """
        asked_NTD = self.frames_NTD if asked_NTD is None else asked_NTD
        clips, references = self.clips(runtime), self.references(runtime)
        found = []
        for clip in clips_n:
            kept, own = np.arange(len(self.labels_N)) != clip, references
            if self.merge != "never":
                k = int(self.labels_N[clip])
                own = references.copy()
                own[k] = self._merged(clips, k, kept, runtime)[0]
                kept = np.ones(len(references), bool)
            distances_R = runtime.compare(runtime.modulate(asked_NTD[clip:clip + 1]), own)[0]
            found.append([distances_R[kept & (self.reference_labels == k)].mean(dtype=np.float64)
                          for k in range(int(self.labels_N.max()) + 1)])
        return np.array(found).reshape(len(clips_n), -1)
