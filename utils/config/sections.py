"""Declare the long sections of the schema: TRAIN, TEST, DATA, AUGMENTATION."""

from dataclasses import dataclass

from utils.config.fields import NUMBERS, PLACE, SCORING, SPEED, TRAINING, key, section

# Published names of one data set that stand for what all of them use.
_DATASET: dict[str | None, str] = {"Ssv2_few_shot": "few_shot"}
_LIST_FORMAT: dict[str | None, str] = {"HMDB_few_shot": "paths", "Kinetics_few_shot": "paths", "Ssv2_few_shot": "ids",
                                       None: "ids"}


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """TRAIN: episodes, training, and (as published) the switches of the head."""

    ENABLE: bool = key("train, then test the best checkpoint once", affects=TRAINING, may_change=True)
    DATASET: str = key("data set class, from the data sets registry", affects=TRAINING, aliases=_DATASET)
    DATASET_FEW: str | None = key("format of the split lists: paths of videos, or ids (file names without extension); "
                                  "published: HMDB_few_shot, Kinetics_few_shot (paths), Ssv2_few_shot, null (ids)",
                                  affects=NUMBERS, aliases=_LIST_FORMAT)
    CLASS_NAME: tuple[str, ...] | None = key("names of the training classes, in the order of their index",
                                             affects=TRAINING)
    VAL_CLASS_NAME: tuple[str, ...] | None = key("names of the validation classes, in the order of their index",
                                                 affects=TRAINING)
    # Validation and test take WAY and SHOT where their own keys are null.
    WAY: int = key("classes an episode", affects=NUMBERS, minimum=2)
    SHOT: int = key("supports a class in training", affects=NUMBERS, minimum=1)
    QUERY_PER_CLASS: int = key("queries a class in training", affects=TRAINING, minimum=1)
    WAY_TEST: int | None = key("classes an episode in validation and test; null: WAY", affects=SCORING, minimum=2)
    SHOT_TEST: int | None = key("supports a class in validation and test; null: SHOT", affects=SCORING, minimum=1)
    QUERY_PER_CLASS_TEST: int = key("queries a class in validation and test", affects=SCORING, minimum=1)
    NUM_TRAIN_TASKS: int = key("iterations: one episode of each rank", affects=TRAINING, may_change=True, minimum=1)
    NUM_TEST_TASKS: int = key("episodes of the final test", affects=SCORING, may_change=True, minimum=1)
    NUM_VAL_TASKS: int | None = key("episodes of a validation; null: NUM_TEST_TASKS", affects=TRAINING, minimum=1)
    VAL_FRE_ITER: int = key("iterations between two validations", affects=TRAINING, minimum=1)
    EVAL_SPLIT: str = key("list the checkpoint is selected on; test (as published) labels every result so",
                          affects=TRAINING, choices=("val", "test"))
    BATCH_SIZE: int = key("divisor of the loss (published: the number of GPUs)", affects=TRAINING, minimum=1,
                          maximum=10**4)
    BATCH_SIZE_PER_TASK: int = key("iterations, one episode of each rank, whose gradients add up to one step",
                                   affects=TRAINING, minimum=1)
    CLIP_GRAD_NORM: float | None = key("largest L2 norm of the gradients; null: no clipping",
                                       affects=TRAINING, above=0.0)
    RANK_GRADIENTS: str = key("mean over ranks, as published; sum: n ranks do what one does with n times the "
                              "BATCH_SIZE_PER_TASK", affects=TRAINING, choices=("mean", "sum"))
    PRECISION: str = key("of a training step: fp32; tf32 (GPU); bf16 or fp16 autocast",
                         affects=TRAINING, choices=("fp32", "tf32", "bf16", "fp16"))
    COMPILE: bool = key("torch.compile tower and modulator for training", affects=SPEED)
    CHANNELS_LAST: bool = key("convolutions with the channels innermost in memory; the same but for rounding",
                              affects=SPEED)
    ONEDNN: bool = key("on a CPU, linear layers by oneDNN in place of MKL, which is slow on AMD's; the same but for "
                       "rounding", affects=SPEED)
    KEEP_MEMORY: bool = key("on a CPU, what a step frees stays with the process for the next one: less time, more "
                            "memory", affects=SPEED)
    GRAD_CHECKPOINT: bool = key("compute the tower's activations again in the backward pass: less memory, more time",
                                affects=SPEED)
    EPISODES_PER_STEP: int = key("iterations that share a forward and backward pass; divides BATCH_SIZE_PER_TASK",
                                 affects=SPEED, minimum=1)
    ON_NONFINITE: str = key("stop or skip at a NaN or infinite loss", affects=NUMBERS, choices=("stop", "skip"))
    AUTO_RESUME: bool = key("go on from the last checkpoint of OUTPUT_DIR", affects=PLACE)
    CHECKPOINT_FILE_PATH: str = key("weights to start from; empty: the backbone's alone", affects=TRAINING)
    FINE_TUNE: bool = key("of CHECKPOINT_FILE_PATH take the weights only (false: optimizer and iteration, too)",
                          affects=TRAINING)
    KEEP_CHECKPOINTS: int = key("latest checkpoints kept beside the best", affects=PLACE, minimum=2)
    LOG_FILE: str = key("text log, in OUTPUT_DIR", affects=PLACE)


@dataclass(frozen=True, slots=True)
class TestConfig:
    """TEST"""

    ENABLE: bool = key("test CHECKPOINT_FILE_PATH when TRAIN.ENABLE is false", affects=PLACE)
    DATASET: str = key("data set class of validation and test, from the data sets registry",
                       affects=SCORING, aliases=_DATASET)
    CLASS_NAME: tuple[str, ...] | None = key("names of the test classes, in the order of their index", affects=SCORING)
    # Training sees the text of its classes, too.
    PROMPT: str = key("sentence whose {} takes the class name", affects=NUMBERS)
    PROMPTS: str | None = key("YAML file of class names to lists of sentences, such as a language model's, which stand "
                              "for PROMPT; null: none", affects=NUMBERS)
    EPISODE_SEED: int = key("seed of the validation and test episodes, the same for every RANDOM_SEED",
                            affects=SCORING, minimum=0)
    FEATURE_STORE: bool = key("encode each distinct clip once and score all episodes from the features; false: decode "
                              "and encode episode by episode", affects=SPEED)
    FEATURE_STORE_DIR: str | None = key("directory that keeps the test clips' features for later tests; null: none",
                                        affects=PLACE)
    TEMPORAL_DRAWS: int = key("choices of frames a clip has where test frames are random; 0: fresh ones each time",
                              affects=SCORING, minimum=0)
    ENCODE_BATCH: int | None = key("clips a forward pass when features are stored; null: chosen by device and size",
                                   affects=SPEED, minimum=1)
    # While TRAIN.ENABLE is on nothing reads it, so it may change then.
    CHECKPOINT_FILE_PATH: str = key("checkpoint to test; empty: the best of OUTPUT_DIR",
                                    affects=SCORING, may_change=True)
    LOG_FILE: str = key("text log of a test without training, in OUTPUT_DIR", affects=PLACE)


@dataclass(frozen=True, slots=True)
class DataConfig:
    """DATA"""

    DATA_ROOT_DIR: str = key("directory of the videos", affects=PLACE)
    ANNO_DIR: str = key("directory of {train,val,test}_few_shot.txt", affects=PLACE)
    # The class names that it brings are keys themselves, and compared as such.
    CLASSES: str | None = key("class-name file in configs/pool/classes (without .yaml) for lists not given by name",
                              affects=PLACE)
    # The same index is the same frame in all of them (datasets/decoding.py).
    DECODER: str = key("video decoder, from the decoders registry; auto: pyav", affects=SPEED)
    # A directory, but its frames may be JPEG, and are other pixels then.
    FRAME_CACHE: str | None = key("directory of frames decoded and resized before (prepare.py cache), used in place of "
                                  "the videos; null: decode", affects=NUMBERS)
    ON_BAD_VIDEO: str = key("stop, or replace by another clip of the class",
                            affects=NUMBERS, choices=("stop", "replace"))
    NUM_INPUT_FRAMES: int = key("frames a clip (T)", affects=NUMBERS, minimum=1)
    SAMPLING_RATE: int = key("over 40: one frame a segment; else frames of an interval, at TARGET_FPS",
                             affects=NUMBERS, minimum=1)
    TARGET_FPS: float = key("frames a second that interval sampling counts in", affects=NUMBERS, minimum=0.001)
    TEST_SAMPLING: str = key("segment sampling at test: random (published) or center",
                             affects=SCORING, choices=("random", "center"))
    INTERVAL_TAIL: str = key("interval sampling: drop (published) or keep the last SAMPLING_RATE frames",
                             affects=NUMBERS, choices=("drop", "keep"))
    TRAIN_JITTER_SCALES: tuple[int, ...] = key("height and width of the resized training frame, pixels",
                                               affects=TRAINING, items=2)
    TRAIN_CROP_SIZE: int = key("side of the random crop, pixels", affects=TRAINING, minimum=1)
    TEST_SCALE: int | tuple[int, ...] = key("height and width of the resized test frame, pixels", affects=SCORING,
                                              items=2)
    TEST_CROP_SIZE: int = key("side of the central crop, pixels", affects=SCORING, minimum=1)
    MEAN: tuple[float, ...] = key("mean of R, G, B in 0..1", affects=NUMBERS, items=3)
    STD: tuple[float, ...] = key("standard deviation of R, G, B in 0..1", affects=NUMBERS, items=3, above=0.0)
    MEAN_FROM: str = key("DATA (published); SOLVER: SOLVER.MEAN and STD where a file set them there",
                         affects=NUMBERS, choices=("DATA", "SOLVER"))


@dataclass(frozen=True, slots=True)
class ErasingConfig:
    """AUGMENTATION.RANDOM_ERASING (queries of training when SUPPORT_QUERY_DIFF is on)"""

    ENABLE: bool = key("erase a rectangle", affects=TRAINING)
    PROB: float = key("probability", affects=TRAINING, minimum=0.0, maximum=1.0)
    MODE: str = key("const: zeros; pixel: noise", affects=TRAINING, choices=("const", "pixel"))
    AREA_RANGE: tuple[float, ...] = key("share of the picture erased, least and most", affects=TRAINING, items=2,
                                         above=0.0, maximum=1.0)
    MIN_ASPECT: float = key("least height/width of the rectangle", affects=TRAINING, minimum=0.01, maximum=1.0)


@dataclass(frozen=True, slots=True)
class AugmentationConfig:
    """AUGMENTATION of training clips; validation and test have none"""

    SUPPORT_QUERY_DIFF: bool = key("flip and jitter the queries, not the supports", affects=TRAINING)
    SUPPORT_QUERY_DIFF_SUPPORT: bool = key("flip and jitter the supports, too", affects=TRAINING)
    RANDOM_FLIP: bool = key("horizontal flip with p = 0.5 of all training clips", affects=TRAINING)
    COLOR_AUG: bool = key("colour jitter of all training clips", affects=TRAINING)
    BRIGHTNESS: float = key("strength of the jitter", affects=TRAINING, minimum=0.0, maximum=1e6)
    CONTRAST: float = key("strength of the jitter", affects=TRAINING, minimum=0.0, maximum=1e6)
    SATURATION: float = key("strength of the jitter", affects=TRAINING, minimum=0.0, maximum=1e6)
    HUE: float = key("strength of the jitter, 0..0.5", affects=TRAINING, minimum=0.0, maximum=0.5)
    GRAYSCALE: float = key("probability of grayscale", affects=TRAINING, minimum=0.0, maximum=1.0)
    RANDOM_ERASING: ErasingConfig = section("random erasing")
    USE_GPU: bool = key("workers hand over frames of uint8 as decoded, and the training process resizes and augments on"
                        " its device; fewer bytes where a frame has fewer than 4 x crop^2 pixels", affects=SPEED)
