"""Episodes with pixels, and the builder: reproducible for any number of workers, ranks and restarts."""


import pytest
import torch
from PIL import Image

from datasets import builder
from datasets.few_shot import DATASETS, FewShotDataset
from tests.datasets.tiny_clips import CLASSES, CLIPS, NAMES, T, config, make_dataset, same
from utils.errors import AnnotationError, EpisodeError, RegistryError, VideoDecodeError


def test_an_episode_has_the_right_clips_and_labels(data):
    assert DATASETS["Ssv2_few_shot"] is DATASETS["few_shot"] is FewShotDataset
    episode = make_dataset(data)[0]
    assert episode.support_NTCHW.shape == (3, T, 3, 16, 16) and episode.query_MTCHW.shape == (6, T, 3, 16, 16)
    assert episode.support_NTCHW.dtype == torch.float32
    assert episode.support_NTCHW.is_contiguous() and episode.query_MTCHW.is_contiguous()
    assert episode.classes_K.tolist() == list(episode.spec.classes_K) and episode.bad_videos == ()
    for clips, labels, classes in (
            (episode.support_NTCHW, episode.support_labels_N, episode.support_classes_N),
            (episode.query_MTCHW, episode.query_labels_M, episode.query_classes_M)):
        assert labels.dtype == classes.dtype == torch.int64
        assert torch.equal(episode.classes_K[labels], classes)
        gray = clips.mean((1, 2, 3, 4)) * 255 // 40  # 40 levels a class
        assert gray.tolist() == classes.tolist()


@pytest.mark.parametrize("training", [False, True])
def test_an_episode_depends_on_seed_split_and_number_only(data, training):
    one, two = (make_dataset(data, training=training) for _ in range(2))
    torch.manual_seed(1)
    first = [one[i] for i in range(6)]
    torch.manual_seed(2)
    assert all(same(two[i], first[i]) for i in reversed(range(6)))
    assert not same(make_dataset(data, seed=1, training=training)[0], first[0])


def test_random_test_frames_differ_between_episodes_not_between_calls(data):
    dataset = make_dataset(data)
    seen: dict[int, list[torch.Tensor]] = {}
    for i in range(6):
        for video, clip in zip(dataset[i].spec.support_N, dataset[i].support_NTCHW, strict=True):
            seen.setdefault(video, []).append(clip)
    repeated = [clips for clips in seen.values() if len(clips) > 1]
    assert repeated and any(not torch.equal(a, b) for a, b, *_ in repeated)


@pytest.mark.parametrize("draws", [1, 2, 4])
def test_every_choice_of_frames_is_taken_about_equally_often(data, draws):
    dataset = make_dataset(data, draws=draws)
    taken = [dataset.draw(dataset.sampler.spec(i), position) for i in range(100) for position in range(9)]
    assert sorted(set(taken)) == list(range(draws))
    assert min(map(taken.count, range(draws))) > 900 / draws * 0.75
    assert taken == [dataset.draw(dataset.sampler.spec(i), position) for i in range(100) for position in range(9)]


def test_ranks_and_restarts_share_one_list(data):
    whole = [make_dataset(data)[i].spec for i in range(6)]
    halves = [make_dataset(data).part(rank=rank, world=2) for rank in range(2)]
    assert [halves[i % 2][i // 2].spec for i in range(6)] == whole
    rest = make_dataset(data).part(start=4)
    assert len(rest) == 2 and [rest[i].spec for i in range(2)] == whole[4:]
    with pytest.raises(IndexError):
        rest[2]


def test_a_bad_video_stops(copied):
    dataset = make_dataset(copied)
    bad = copied / dataset.videos.records[dataset.sampler.spec(0).query_M[0]].path
    bad.write_bytes(b"")
    with pytest.raises(VideoDecodeError) as caught:
        dataset[0]
    assert str(caught.value) == f"{bad}: empty file (0 bytes)"


def test_a_bad_video_is_replaced_by_another_of_its_class(copied):
    dataset = make_dataset(copied, on_bad_video="replace")
    spec, whole = dataset.sampler.spec(0), dataset[0]
    victims = [dataset.videos.records[spec.support_N[0]].path, dataset.videos.records[spec.query_M[2]].path]
    (copied / victims[0]).write_bytes(b"")
    (copied / victims[1]).unlink()
    episode, again = dataset[0], dataset[0]
    assert same(episode, again) and episode.bad_videos == again.bad_videos
    assert [bad.path for bad in episode.bad_videos] == victims
    assert episode.bad_videos[0].reason == "empty file (0 bytes)"
    assert "no such video" in episode.bad_videos[1].reason
    used = {dataset.videos.records[v].path for v in (*spec.support_N, *spec.query_M)}
    for bad in episode.bad_videos:
        assert (bad.split, bad.episode) == ("test", 0)
        assert bad.replaced_by not in used and bad.replaced_by.rsplit("_", 1)[0] == bad.path.rsplit("_", 1)[0]
    assert torch.equal(episode.support_NTCHW[1:], whole.support_NTCHW[1:])  # the other clips are as before
    assert episode.support_classes_N.tolist() == whole.support_classes_N.tolist()


def test_a_stand_in_may_be_bad_too_and_none_left_is_an_error(copied):
    dataset = make_dataset(copied, on_bad_video="replace")
    spec = dataset.sampler.spec(0)
    victim = spec.support_N[0]
    members = [int(m) for m in dataset.sampler.members[dataset.videos.records[victim].class_index]]
    free = [m for m in members if m not in (*spec.support_N, *spec.query_M)]
    for number in (victim, free[0]):
        (copied / dataset.videos.records[number].path).write_bytes(b"")
    reports = dataset[0].bad_videos
    assert {bad.replaced_by for bad in reports} == {dataset.videos.records[free[1]].path}
    assert reports[0].path == dataset.videos.records[victim].path
    (copied / dataset.videos.records[free[1]].path).write_bytes(b"")
    with pytest.raises(VideoDecodeError) as caught:
        dataset[0]
    assert caught.value.reason == ("empty file (0 bytes); 2 other clips of the class were tried in its place, "
                                   "none can be read")


def test_folders_of_frames_are_episodes_too(tmp_path):
    lines = []
    for k in range(3):
        for i in range(3):
            (tmp_path / f"{k}{i}").mkdir()
            for number in range(1, 4):  # fewer than T: frames repeat
                Image.new("RGB", (24, 18), (30 + 50 * k,) * 3).save(tmp_path / f"{k}{i}" / f"{number:08d}.jpg")
            lines.append(f"test{k}/{k}{i}")
    (tmp_path / "test_few_shot.txt").write_text("\n".join(lines))
    for decoder in ("decord", "frames"):
        episode = make_dataset(tmp_path, query=1, list_format=None, decoder=decoder)[0]
        assert ((episode.support_NTCHW.mean((1, 2, 3, 4)) * 255 - 30) / 50).round().tolist() == (
            episode.support_classes_N.tolist())


def loader_of(cfg, **place):
    return builder.build_loader(cfg, builder.build_split(cfg, "train"), **place)


def test_build_split_follows_the_configuration(root):
    cfg = config(root, TRAIN__WAY_TEST=4, TRAIN__SHOT_TEST=3)
    split = builder.build_split(cfg, "train")
    assert (split.episodes, len(split.dataset), len(split.records)) == (5, 5, CLASSES * CLIPS)
    assert split.class_names == tuple(NAMES["train"]) and split.list_path == root / "train_few_shot.txt"
    assert (split.sampler.way, split.sampler.shot, split.sampler.query) == (3, 1, 2)
    for name, episodes in (("val", 3), ("test", 4)):
        split = builder.build_split(cfg, name)
        assert (split.episodes, split.sampler.way, split.sampler.shot, split.sampler.query) == (episodes, 4, 3, 1)
        assert split.class_names == tuple(NAMES[name])
    assert builder.build_split(config(root, TRAIN__NUM_VAL_TASKS=None), "val").episodes == 4
    assert len(builder.build_split(cfg, "train").dataset.part(rank=1, world=2)) == 2


def test_test_episodes_depend_on_the_episode_seed_alone(root):
    specs = [builder.build_split(config(root, RANDOM_SEED=random, TEST__EPISODE_SEED=seed), "test").sampler.spec(0)
             for random, seed in ((1, 0), (2, 0), (1, 1))]
    assert specs[0] == specs[1] != specs[2]


def test_mean_from(root):
    solver = {"SOLVER__MEAN": (0.5, 0.5, 0.5), "SOLVER__STD": (0.1, 0.1, 0.1)}
    frames = [builder.build_split(config(root, **changes), "test").dataset[0].support_NTCHW * std + mean
              for changes, mean, std in (({}, 0.45, 0.225), ({**solver, "DATA__MEAN_FROM": "SOLVER"}, 0.5, 0.1),
                                         (solver, 0.45, 0.225), ({"DATA__MEAN_FROM": "SOLVER"}, 0.45, 0.225))]
    assert all(torch.allclose(frames[0], other, atol=1e-5) for other in frames)


def test_refusals_come_before_decoding(root):
    with pytest.raises(RegistryError, match="unknown decoder 'x'.*known: auto, decord, frames, pyav"):
        builder.build_split(config(root, DATA__DECODER="x"), "train")
    with pytest.raises(RegistryError, match="unknown data set 'x'"):
        builder.build_split(config(root, TEST__DATASET="x"), "test")
    unnamed = builder.build_split(config(root, TRAIN__VAL_CLASS_NAME=None), "val")
    assert unnamed.class_names == ("class 0", "class 1", "class 2", "class 3")
    with pytest.raises(AnnotationError, match="expected at most 3 classes, as many as CLASS_NAME has names, found 4"):
        builder.build_split(config(root, TEST__CLASS_NAME=("a", "b", "c")), "test")
    with pytest.raises(AnnotationError, match="expected at least 6 videos a class"):
        builder.build_split(config(root, TRAIN__SHOT=4), "train")
    with pytest.raises(EpisodeError, match="an episode draws 5 classes, found 4"):
        builder.build_split(config(root, TRAIN__WAY=5), "train")


def test_training_pixels_follow_the_augmentation_keys(root):
    def erased(**changes) -> tuple[bool, bool]:
        cfg = config(root, AUGMENTATION__RANDOM_ERASING__ENABLE=True, AUGMENTATION__RANDOM_ERASING__PROB=1.0, **changes)
        episode = builder.build_split(cfg, "train").dataset[0]
        return bool((episode.support_NTCHW == 0).any()), bool((episode.query_MTCHW == 0).any())

    assert erased() == (False, False)
    assert erased(AUGMENTATION__SUPPORT_QUERY_DIFF=True) == (False, True)
    assert erased(AUGMENTATION__SUPPORT_QUERY_DIFF=True, AUGMENTATION__SUPPORT_QUERY_DIFF_SUPPORT=True) == (True, True)


def test_the_loader_gives_the_same_episodes_with_any_number_of_workers(root):
    state = torch.get_rng_state()
    runs = [list(loader_of(config(root, DATA_LOADER__NUM_WORKERS=n))) for n in (0, 1, 2)]
    assert torch.equal(torch.get_rng_state(), state)
    assert [episode.spec.index for episode in runs[0]] == list(range(5))
    for other in runs[1:]:
        assert len(other) == 5 and all(same(a, b) for a, b in zip(runs[0], other, strict=True))
    late = loader_of(config(root), start=3)
    assert len(late) == 2 and all(same(a, b) for a, b in zip(late, runs[0][3:], strict=True))
    assert list(loader_of(config(root), start=5)) == []


@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_in_a_worker_keeps_its_type_and_text(copied, workers):
    dataset = make_dataset(copied, split="train")
    for record in dataset.videos.records:
        (copied / record.path).write_bytes(b"")
    cfg = config(copied, DATA_LOADER__NUM_WORKERS=workers)
    with pytest.raises(VideoDecodeError) as caught:
        next(iter(loader_of(cfg)))
    assert caught.value.reason == "empty file (0 bytes)"
    assert str(caught.value).startswith(str(copied))
