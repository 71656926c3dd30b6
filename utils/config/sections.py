"""The long sections of the schema: TRAIN, TEST, DATA, AUGMENTATION. See schema.py for what inert means."""

from dataclasses import dataclass

from utils.config.fields import key

_UNREAD = "the few-shot loop of the published code never reads it"
_FIXED = "the published few-shot pipeline does this always, whatever the key says"


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """TRAIN: episodes, training, and (as published) the switches of the head."""

    ENABLE: bool = key("train, then test the best checkpoint once")
    DATASET: str = key("data set class, from the data sets registry")
    DATASET_FEW: str | None = key("format of the split lists; null: SSv2's (id without extension)")
    CLASS_NAME: tuple[str, ...] | None = key("names of the training classes, in the order of their index")
    VAL_CLASS_NAME: tuple[str, ...] | None = key("names of the validation classes, in the order of their index")
    WAY: int = key("classes an episode", minimum=2)
    SHOT: int = key("supports a class in training", minimum=1)
    QUERY_PER_CLASS: int = key("queries a class in training", minimum=1)
    WAY_TEST: int | None = key("classes an episode in validation and test; null: WAY", minimum=2)
    SHOT_TEST: int | None = key("supports a class in validation and test; null: SHOT", minimum=1)
    QUERY_PER_CLASS_TEST: int = key("queries a class in validation and test", minimum=1)
    NUM_TRAIN_TASKS: int = key("iterations: one episode of each rank", minimum=1)
    NUM_TEST_TASKS: int = key("episodes of the final test", minimum=1)
    NUM_VAL_TASKS: int | None = key("episodes of a validation; null: NUM_TEST_TASKS", minimum=1)
    VAL_FRE_ITER: int = key("iterations between two validations", minimum=1)
    EVAL_SPLIT: str = key("list the checkpoint is selected on; test (as published) labels every result so",
                          choices=("val", "test"))
    BATCH_SIZE: int = key("divisor of the loss (published: the number of GPUs)", minimum=1)
    BATCH_SIZE_PER_TASK: int = key("iterations, one episode of each rank, whose gradients add up to one step",
                                   minimum=1)
    USE_CLASSIFICATION: bool = key("add the video-text contrast to the loss")
    USE_CLASSIFICATION_VALUE: float = key("weight of the video-text contrast", minimum=0.0)
    USE_CLASSIFICATION_ONLY: bool = key("the video-text contrast is the whole loss")
    CLIP_GRAD_NORM: float | None = key("largest L2 norm of the gradients; null: no clipping", minimum=0.0)
    RANK_GRADIENTS: str = key("mean over ranks, as published; sum: n ranks do what one does with n times the "
                              "BATCH_SIZE_PER_TASK", choices=("mean", "sum"))
    PRECISION: str = key("of a training step: fp32; tf32 (GPU); bf16 or fp16 autocast",
                         choices=("fp32", "tf32", "bf16", "fp16"))
    COMPILE: bool = key("torch.compile tower and modulator for training")
    CHANNELS_LAST: bool = key("convolutions with the channels innermost in memory; the same but for rounding")
    GRAD_CHECKPOINT: bool = key("compute the tower's activations again in the backward pass: less memory, more time")
    EPISODES_PER_STEP: int = key("iterations that share a forward and backward pass; divides BATCH_SIZE_PER_TASK",
                                 minimum=1)
    ON_NONFINITE: str = key("stop or skip at a NaN or infinite loss", choices=("stop", "skip"))
    MERGE_BEFORE: bool = key("average the supports of a class before modulating, not after")
    SINGLE_DIRECT: bool = key("OTAM in one direction (query to support) only")
    TRANSFORMER_DEPTH: int = key("layers of the modulator", minimum=1)
    EVAL_TEXT: bool = key("evaluation: classify by text alone")
    COMBINE: bool = key("evaluation: fuse text and prototypes")
    TEXT_COFF: float | None = key("weight of the text in COMBINE; null: 0.9", minimum=0.0)
    COMBINE_FRAMES: int | None = key("T of COMBINE's (T - distance)/T; null: NUM_INPUT_FRAMES", minimum=1)
    AUTO_RESUME: bool = key("go on from the last checkpoint of OUTPUT_DIR")
    CHECKPOINT_FILE_PATH: str = key("weights to start from; empty: the backbone's alone")
    FINE_TUNE: bool = key("of CHECKPOINT_FILE_PATH take the weights only (false: optimizer and iteration, too)")
    KEEP_CHECKPOINTS: int = key("latest checkpoints kept beside the best", minimum=2)
    LOG_FILE: str = key("text log, in OUTPUT_DIR")
    EVAL_PERIOD: int = key("epochs between evaluations", inert=_UNREAD)
    NUM_FOLDS: int = key("folds of an epoch", inert=_UNREAD)
    META_BATCH: bool = key("episodic batches", inert=_FIXED)
    NUM_SAMPLES: int = key("length of the data set", inert=_UNREAD)


@dataclass(frozen=True, slots=True)
class TestConfig:
    """TEST"""

    ENABLE: bool = key("test CHECKPOINT_FILE_PATH when TRAIN.ENABLE is false")
    DATASET: str = key("data set class of validation and test, from the data sets registry")
    CLASS_NAME: tuple[str, ...] | None = key("names of the test classes, in the order of their index")
    PROMPT: str = key("sentence whose {} takes the class name")
    EPISODE_SEED: int = key("seed of the validation and test episodes, the same for every RANDOM_SEED", minimum=0)
    FEATURE_STORE: bool = key("encode each distinct clip once and score all episodes from the features; false: decode "
                              "and encode episode by episode")
    FEATURE_STORE_DIR: str | None = key("directory that keeps the test clips' features for later tests; null: none")
    TEMPORAL_DRAWS: int = key("choices of frames a clip has where test frames are random; 0: fresh ones each time",
                              minimum=0)
    ENCODE_BATCH: int | None = key("clips a forward pass when features are stored; null: chosen by device and size",
                                   minimum=1)
    CHECKPOINT_FILE_PATH: str = key("checkpoint to test; empty: the best of OUTPUT_DIR")
    LOG_FILE: str = key("text log of a test without training, in OUTPUT_DIR")
    BATCH_SIZE: int = key("episodes a batch", inert=_UNREAD)
    TEST_SET: str = key("split", inert="selection is on TRAIN.EVAL_SPLIT, the final test on the test list")
    NUM_ENSEMBLE_VIEWS: int = key("temporal views", inert=_UNREAD)
    NUM_SPATIAL_CROPS: int = key("spatial crops", inert=_UNREAD)
    SPATIAL_CROPS: str = key("which crops", inert=_UNREAD)
    AUTOMATIC_MULTI_SCALE_TEST: bool = key("all views and crops", inert=_UNREAD)


@dataclass(frozen=True, slots=True)
class DataConfig:
    """DATA"""

    DATA_ROOT_DIR: str = key("directory of the videos")
    ANNO_DIR: str = key("directory of {train,val,test}_few_shot.txt")
    CLASSES: str | None = key("class-name file in configs/pool/classes (without .yaml) for lists not given by name")
    DECODER: str = key("video decoder, from the decoders registry; auto: torchcodec where it works, else decord")
    FRAME_CACHE: str | None = key("directory of frames decoded and resized before (prepare.py cache), used in place of "
                                  "the videos; null: decode")
    ON_BAD_VIDEO: str = key("stop, or replace by another clip of the class", choices=("stop", "replace"))
    NUM_INPUT_FRAMES: int = key("frames a clip (T)", minimum=1)
    SAMPLING_RATE: int = key("over 40: one frame a segment; else frames of an interval, at TARGET_FPS", minimum=1)
    TARGET_FPS: float = key("frames a second that interval sampling counts in", minimum=0.001)
    TEST_SAMPLING: str = key("segment sampling at test: random (published) or center", choices=("random", "center"))
    INTERVAL_TAIL: str = key("interval sampling: drop (published) or keep the last SAMPLING_RATE frames",
                             choices=("drop", "keep"))
    TRAIN_JITTER_SCALES: tuple[int, ...] = key("height and width of the resized training frame, pixels")
    TRAIN_CROP_SIZE: int = key("side of the random crop, pixels", minimum=1)
    TEST_SCALE: int | tuple[int, ...] = key("height and width of the resized test frame, pixels")
    TEST_CROP_SIZE: int = key("side of the central crop, pixels", minimum=1)
    MEAN: tuple[float, ...] = key("mean of R, G, B in 0..1")
    STD: tuple[float, ...] = key("standard deviation of R, G, B in 0..1")
    MEAN_FROM: str = key("DATA (published); SOLVER: SOLVER.MEAN and STD where a file set them there",
                         choices=("DATA", "SOLVER"))
    SAMPLING_MODE: str = key("interval or segment", inert="SAMPLING_RATE decides, as published")
    SAMPLING_UNIFORM: bool = key("uniform sampling", inert=_UNREAD)
    TEST_CENTER_CROP: bool = key("central crop at test", inert=_FIXED)
    FPS: float = key("frame rate", inert="each video's own rate is read")
    CLIP_INTERVAL: int = key("frames between clips", inert=_UNREAD)


@dataclass(frozen=True, slots=True)
class MixConfig:
    """AUGMENTATION.MIXUP"""

    ENABLE: bool = key("mix two samples", inert=_UNREAD)
    ALPHA: float = key("Beta parameter", inert=_UNREAD)
    PROB: float = key("probability", inert=_UNREAD)
    MODE: str = key("batch, pair or elem", inert=_UNREAD)
    SWITCH_PROB: float = key("probability of CutMix", inert=_UNREAD)


@dataclass(frozen=True, slots=True)
class CutmixConfig:
    """AUGMENTATION.CUTMIX"""

    ENABLE: bool = key("paste a patch of another sample", inert=_UNREAD)
    ALPHA: float = key("Beta parameter", inert=_UNREAD)
    MINMAX: tuple[float, ...] | None = key("patch size", inert=_UNREAD)


@dataclass(frozen=True, slots=True)
class ErasingConfig:
    """AUGMENTATION.RANDOM_ERASING (queries of training when SUPPORT_QUERY_DIFF is on)"""

    ENABLE: bool = key("erase a rectangle")
    PROB: float = key("probability", minimum=0.0)
    MODE: str = key("const: zeros; pixel: noise", choices=("const", "pixel"))
    AREA_RANGE: tuple[float, ...] = key("share of the picture erased, least and most")
    MIN_ASPECT: float = key("least height/width of the rectangle", minimum=0.01)
    COUNT: tuple[int, ...] = key("rectangles", inert="one rectangle")
    NUM_SPLITS: int = key("clean samples a batch", inert=_UNREAD)


@dataclass(frozen=True, slots=True)
class AugmentationConfig:
    """AUGMENTATION of training clips; validation and test have none"""

    SUPPORT_QUERY_DIFF: bool = key("flip and jitter the queries, not the supports")
    SUPPORT_QUERY_DIFF_SUPPORT: bool = key("flip and jitter the supports, too")
    RANDOM_FLIP: bool = key("horizontal flip with p = 0.5 of all training clips")
    COLOR_AUG: bool = key("colour jitter of all training clips")
    BRIGHTNESS: float = key("strength of the jitter", minimum=0.0)
    CONTRAST: float = key("strength of the jitter", minimum=0.0)
    SATURATION: float = key("strength of the jitter", minimum=0.0)
    HUE: float = key("strength of the jitter, 0..0.5", minimum=0.0)
    GRAYSCALE: float = key("probability of grayscale", minimum=0.0)
    RANDOM_ERASING: ErasingConfig = key("random erasing")
    CONSISTENT: bool = key("one draw a clip", inert=_FIXED)
    SHUFFLE: bool = key("jitter in random order", inert=_FIXED)
    GRAY_FIRST: bool = key("grayscale before the jitter", inert=_FIXED)
    RATIO: tuple[float, ...] = key("aspect ratios of a resized crop", inert=_UNREAD)
    USE_GPU: bool = key("workers hand over frames of uint8 as decoded, and the training process resizes and augments "
                        "on its device; fewer bytes where a frame has fewer than 4 x crop^2 pixels")
    LABEL_SMOOTHING: float = key("label smoothing", inert=_UNREAD)
    SSV2_FLIP: bool = key("flips that swap left and right", inert=_UNREAD)
    IS_SPLIT: bool = key("split the batch", inert=_UNREAD)
    NO_RANDOM_ERASE: bool = key("no erasing", inert="RANDOM_ERASING.ENABLE decides")
    MIXUP: MixConfig = key("MixUp")
    CUTMIX: CutmixConfig = key("CutMix")
