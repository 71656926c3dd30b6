"""Define every error this project raises on purpose.

All derive from `FewShotError`, so `runs/run.py` can show them as one message instead of a traceback.
Texts name the file or key, what was expected, and what came.
"""

from os import PathLike


class FewShotError(Exception):
    """Base of the errors a user can act on."""


class ConfigError(FewShotError):
    """The configuration is wrong. `problems` lists every problem, one line each."""

    def __init__(self, problems: list[str]):
        self.problems = list(problems)
        count = len(self.problems)
        head = f"{count} problem{'s' if count != 1 else ''} in the configuration:"
        more = [f"... and {count - 50} more"] if count > 50 else []
        super().__init__("\n".join([head, *(f"  - {problem}" for problem in [*self.problems[:50], *more])]))

    def __reduce__(self) -> tuple[type["ConfigError"], tuple[list[str]]]:
        return type(self), (self.problems,)


class RegistryError(FewShotError):
    """A name that no registry entry has, or a name registered twice."""


class AnnotationError(FewShotError):
    """A split list that cannot be read: names the file and the line."""


class ListError(FewShotError):
    """A split list that cannot be made: names what is missing or in the way, and what to do."""


class EpisodeError(FewShotError):
    """An episode that cannot be drawn, or an Episode whose parts do not fit together."""


class VideoDecodeError(FewShotError):
    """A video cannot give the frames asked of it. `path` and `reason` stand on their own, too."""

    def __init__(self, path: str | PathLike[str], reason: str):
        self.path = str(path)
        self.reason = reason
        super().__init__(f"{self.path}: {reason}")

    def __reduce__(self) -> tuple[type["VideoDecodeError"], tuple[str, str]]:
        return type(self), (self.path, self.reason)


class DemoError(FewShotError, ValueError):
    """Settings that the demo's videos cannot be rendered with: names the setting, and what was expected."""


class WorkerError(FewShotError):
    """A loader worker that was killed, or that found no room in shared memory: names what happened and what to do."""


class DiskError(FewShotError):
    """A file that cannot be written: names it, the reason, what it takes and what is free."""


class WeightsError(FewShotError):
    """A weights file that is missing, damaged, of another shape or of another hash."""


class DownloadError(FewShotError):
    """A file that cannot be fetched: names the address and the reason, or the path that cannot be written."""


class HashError(DownloadError):
    """A file that came whole and is not the one expected."""


class HeadError(FewShotError):
    """A few-shot head that does not keep the contract of models/heads/base.py: names the head and what it broke."""


class CheckpointError(FewShotError):
    """A checkpoint that is damaged or does not fit the model."""


class ReportError(FewShotError):
    """Results, or examples, that a report cannot be made of: names the key or the part, and what was expected."""


class NonFiniteLossError(FewShotError):
    """A loss that is NaN or infinite: names the step, the losses, the learning rate and the episode's videos."""


class LaunchError(FewShotError):
    """The machine cannot run what the configuration asks for."""


class AlignmentBackendError(FewShotError):
    """OTAM's Triton kernels were to be used and cannot be: names what failed, and how to do without them."""


class ExportError(FewShotError):
    """A model that cannot be exported with the same numbers: names the setting, what was expected, what came."""


class CompileError(FewShotError):
    """torch.compile cannot make code for this machine: names what failed, and how to do without it."""


class RankError(FewShotError):
    """A rank ended, and with it the run: names the rank and the cause. `reported`: the rank said the cause itself."""

    def __init__(self, text: str, reported: bool = False):
        self.reported = reported
        super().__init__(text)


class LostRankError(FewShotError):
    """Another rank is gone, and says itself what went wrong."""


class OutputDirError(FewShotError):
    """An OUTPUT_DIR that another process is using, or that cannot be written to."""


class FeatureStoreError(FewShotError):
    """Stored features that cannot be written or read."""


class ResultsError(FewShotError):
    """A run's results that are missing, damaged, or do not fit together."""


class BenchmarkError(FewShotError):
    """A benchmark's record that cannot be read, written or compared, or a benchmark that cannot run here."""


class OwnClipsError(FewShotError):
    """Own clips, or a pack of them, that cannot be used: names the file or folder, what was expected, what came."""


class FrameCacheError(FewShotError):
    """A frame cache that is stale, incomplete, damaged, or cannot be written: names what differs."""


def described(error: FewShotError | OSError) -> str:
    """Return an error as a command shows it; one of the system names the file and the reason."""
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: cannot be read or written: {error.strerror}"
    return f"{type(error).__name__}: {error}"
