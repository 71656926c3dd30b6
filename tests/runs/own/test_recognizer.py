"""Learning from folders and arrays, packs, what is encoded when, and what is told."""

import os
import shutil

import numpy as np
import pytest
import torch

from runs.own.actions import Actions
from runs.own.calibration import Wishes
from runs.own.clips import read_clip
from runs.own.folders import query_clips, read_actions
from runs.own.packs import read_pack
from runs.recognizer import Recognizer
from tests.runs.own.colours import T, model_of_colours, pictures, write_support, write_video
from utils.episode import Episode
from utils.errors import OwnClipsError, VideoDecodeError


@pytest.fixture(scope="module")
def rendered(tmp_path_factory):
    return write_support(tmp_path_factory.mktemp("support") / "mine", none=3)


@pytest.fixture()
def support(rendered, tmp_path):
    """A copy to change; nothing of it is encoded."""
    return shutil.copytree(rendered, tmp_path / "mine", ignore=shutil.ignore_patterns(".*"))


def test_a_folder_is_learned_once(support):
    first = model_of_colours().learn(support)
    assert first.encoded == 18 and first.names == ["blue", "green", "red"] and len(first.of_none) == 3
    again = model_of_colours().learn(support)
    assert again.encoded == 0 and again.held_out.distances_nK.tolist() == first.held_out.distances_nK.tolist()
    write_video(support / "red" / "new.mp4", pictures("red", 20, 77))
    assert model_of_colours().learn(support).encoded == 1
    assert model_of_colours(weights="others").learn(support).encoded == 19
    os.truncate(next((support / ".cache").glob("*.pack")), 100)
    assert {model_of_colours().learn(support).encoded for _ in range(2)} <= {0, 19}


def test_learning_that_is_ended_keeps_what_was_encoded(support):
    shares = []

    def seen(share: float) -> None:
        shares.append(share)
        if len(shares) == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        model_of_colours().learn(support, progress=seen)
    assert shares == [pytest.approx(number / 18) for number in range(1, 6)]
    assert model_of_colours().learn(support, progress=shares.append).encoded == 13
    assert len(shares) == 18 and shares[-1] == 1


def test_answers_are_right_and_their_own_clips_say_so(support):
    actions = model_of_colours().learn(support)
    check = actions.check()
    assert (check.right, check.total) == (15, 15) and check.calibration.none_accepted is not None
    assert check.calibration.temperature is not None and not check.warnings, str(check)
    answer = actions.predict(write_video(support.parent / "a.mp4", pictures("green", 30, 5)))
    assert answer.answer == "green" and not answer.unknown and answer.margin > 0
    assert sum(answer.probabilities.values()) == pytest.approx(1) and max(answer.probabilities.values()) > 0.5
    assert answer.frames_s == pytest.approx([0.3, 1.1, 1.8, 2.6], abs=0.11)
    foreign = actions.predict(write_video(support.parent / "b.mp4", pictures((230, 220, 30), 30, 5)))
    assert foreign.unknown and foreign.answer is None and foreign.margin < 0
    assert actions.predict(support / "red" / "0.mp4").same_as_support == "red/0.mp4"


def test_an_answer_is_the_heads_own_of_the_same_episode(support):
    """Unequal numbers of clips, too: what an evaluation would score."""
    (support / "blue" / "0.mp4").unlink()
    actions = model_of_colours().learn(support)
    reading, head = actions.model.reading, actions.model.head
    clips = [read_clip(support / one.clip.name, reading).pixels for one in actions.clips]
    labels = torch.tensor([actions.names.index(one.clip.action) for one in actions.clips])
    query = write_video(support.parent / "q.mp4", pictures("blue", 25, 31))
    episode = Episode(torch.stack(clips), labels, labels, read_clip(query, reading).pixels.unsqueeze(0),
                      torch.tensor([0]), torch.tensor([0]), torch.arange(3))
    with torch.no_grad():
        scores = head(episode, None).scores[actions.model.scoring][0]
    found = actions.predict(query)
    assert torch.allclose(-scores, torch.tensor([found.distances[name] for name in actions.names]), atol=1e-6)


def test_held_out_means_without_the_clip(support):
    """Each row equals the distances that actions learned without the clip give it."""
    actions = model_of_colours().learn(support)
    for row in (0, 7):
        clip = actions.clips[row].clip
        less = actions.without(clip.name)
        assert less.predict(support / clip.name).distances == pytest.approx(
            dict(zip(actions.names, actions.held_out.distances_nK[row], strict=True)), abs=1e-6)


def test_adding_encodes_one_and_nothing_ever_changes(support):
    actions = model_of_colours().learn(support)
    eye = actions.model.head.backbone
    clip, before = write_video(support.parent / "c.mp4", pictures("red", 20, 55)), eye.seen
    more = actions.add("red", str(clip))
    assert eye.seen - before == T and len(more.clips) == 16 and len(actions.clips) == 15
    other = more.add("grey", (pictures((128, 128, 128), 9), 10.0))
    assert other.names[-1] == "grey" and "grey: one clip" in str(other.check())
    with pytest.raises(OwnClipsError, match=r"red/c.mp4: the same video as red/c.mp4"):
        more.add("red", str(clip))
    with pytest.raises(OwnClipsError, match="expected the name of one of 18 clips"):
        actions.without("red/nobody.mp4")
    with pytest.raises(OwnClipsError, match="expected the name of an action, found an empty one"):
        actions.add(" ", str(clip))
    with pytest.raises(OwnClipsError, match="found an empty list"):
        actions.predict([])
    assert other.without("grey/array 16").names == actions.names


def test_a_pack_holds_everything_and_no_path(support, tmp_path):
    actions = model_of_colours().learn(support)
    actions.save(tmp_path / "my.pack")
    loaded = model_of_colours().load(tmp_path / "my.pack")
    query = support / "none" / "1.mp4"
    assert loaded.predict(query).to_dict() == actions.predict(query).to_dict()
    assert loaded.check().to_dict() == actions.check().to_dict()
    content = (tmp_path / "my.pack").read_bytes()
    assert str(tmp_path).encode() not in content and b"red/0.mp4" in content
    half = {"red": [support / "red" / "0.mp4"], "black": [(pictures((8, 8, 8), 20), 10.0)]}
    model_of_colours().learn(half).save(tmp_path / "half.pack")
    joined = model_of_colours().load(tmp_path / "my.pack", tmp_path / "half.pack")
    assert joined.names == ["blue", "green", "red", "black"] and len(joined.clips) == 16


def test_packs_that_cannot_be_used(support, tmp_path):
    path = tmp_path / "my.pack"
    model_of_colours().learn(support).save(path)
    with pytest.raises(OwnClipsError, match=r"my.pack: made with another model.*weights: eye in the pack, others here"):
        model_of_colours(weights="others").load(path)
    content = bytearray(path.read_bytes())
    content[-3] ^= 64
    (tmp_path / "bad.pack").write_bytes(content)
    for name, words in (("bad.pack", "checksum"), ("none.pack", "none.pack")):
        with pytest.raises(OwnClipsError, match=words):
            read_pack(tmp_path / name)
    newer = tmp_path / "newer.pack"
    newer.write_bytes(path.read_bytes())
    import runs.own.packs as packs

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packs, "FORMAT", 9)
        model_of_colours().learn(support).save(newer)
    with pytest.raises(OwnClipsError, match="expected a pack of format 1, found format 9; a newer version"):
        read_pack(newer)


def test_what_is_odd_is_told(support, tmp_path):
    shutil.copy(support / "red" / "0.mp4", support / "red" / "copy.mp4")
    (support / "green" / "broken.mp4").write_bytes(b"\0\0\0\x18ftypmp42" + bytes(60))
    (support / "notes.txt").write_text("x")
    shutil.rmtree(support / "blue")
    write_video(support / "blue" / "long.mp4", pictures("blue", 200, 3))
    actions = model_of_colours().learn(support)
    text = str(actions.check())
    for words in ("red/copy.mp4: the same video as red/0.mp4", "green/broken.mp4: left out:", "notes.txt",
                  "blue: one clip", "blue/long.mp4: 20 s, where the median is 2.0 s; trim it"):
        assert words in text
    with pytest.raises(VideoDecodeError, match=r"broken.mp4"):
        model_of_colours().learn(support, strict=True)
    tall = write_video(tmp_path / "tall.mp4", pictures("red", 3, 1, (96, 48)))
    shape, frames = actions.predict(tall).notes
    assert "shape 48 x 96" in shape and "3 different frames of 4" in frames


def test_a_video_in_two_actions_is_named(support):
    shutil.copy(support / "red" / "0.mp4", support / "blue" / "again.mp4")
    with pytest.raises(OwnClipsError, match=r"red/0.mp4: the same video as blue/again.mp4; a video can belong to one"):
        model_of_colours().learn(support)


@pytest.mark.parametrize("clips, words", [
    ({}, "expected actions and their clips"), ({"none": ["a.mp4"]}, "expected actions and their clips"),
    ({"": ["a.mp4"]}, "'': expected the name of an action"), ({"wave": []}, "'wave': expected the name of an action")])
def test_mappings_that_are_none(clips, words):
    with pytest.raises(OwnClipsError, match=words):
        model_of_colours().learn(clips)


def test_a_pipe_and_a_dead_link_are_told_at_once(support):
    model_of_colours().learn(support)  # what is kept is looked up by content
    os.mkfifo(support / "red" / "pipe.mp4")
    (support / "red" / "dead.mp4").symlink_to(support / "nowhere.mp4")
    text = str(model_of_colours().learn(support).check())
    assert "red/pipe.mp4: left out: cannot be read: no file, or one without an end" in text
    assert "red/dead.mp4: left out: cannot be read: No such file or directory" in text


def test_an_action_without_a_readable_clip_stops(support):
    for clip in (support / "green").iterdir():
        clip.write_bytes(b"no video")
    with pytest.raises(VideoDecodeError, match="green"):
        model_of_colours().learn(support)


def test_one_action_says_yes_or_no_only_with_enough_clips(tmp_path):
    few = {"red": [(pictures("red", 10, n), 10.0) for n in range(8)]}
    with pytest.raises(OwnClipsError, match="red: one action needs at least 9 clips to say yes or no, found 8"):
        model_of_colours().learn(few).check()
    few["red"].append((pictures("red", 10, 99), 10.0))
    actions = model_of_colours("CNN_OTAM").learn(few)
    assert actions.predict(pictures("red", 10, 500), fps=10).answer == "red"
    assert actions.predict(pictures("blue", 10, 500), fps=10).unknown


@pytest.mark.parametrize("frames, fps, words", [
    (np.zeros((4, 8, 8), np.uint8), 10, r"uint8 \[L, H, W, 3\], found uint8 \[4, 8, 8\]"),
    (np.zeros((4, 8, 8, 3)), 10, "found float64"), (np.zeros((4, 8, 8, 3), np.uint8), 0, "frames a second"),
    (np.zeros((4, 8, 8, 3), np.uint8), None, "frames a second")])
def test_arrays_are_checked_as_clips_are(support, frames, fps, words):
    with pytest.raises(OwnClipsError, match=words):
        model_of_colours().learn(support).predict(frames, fps=fps)


def test_with_features_that_say_nothing_it_says_so(tmp_path):
    """Noise is no better than guessing, and nothing else is claimed."""
    rng = np.random.default_rng(0)
    clips = {name: [(rng.integers(0, 256, (6, 16, 16, 3)).astype(np.uint8), 10.0) for _ in range(6)]
             for name in "abcde"}
    assert "no better than guessing" in str(model_of_colours().learn(clips).check())


def test_folders_that_are_none(tmp_path):
    cases = {"nothing there": tmp_path / "absent", "found a file": tmp_path / "file"}
    (tmp_path / "file").write_text("")
    loose = tmp_path / "loose"
    write_video(loose / "a.mp4", pictures("red", 5))
    cases["1 videos directly in"] = loose
    empty = tmp_path / "empty"
    (empty / "wave").mkdir(parents=True)
    cases["expected at least one clip"] = empty
    only = tmp_path / "only"
    write_video(only / "none" / "a.mp4", pictures("red", 5))
    cases["beside none"] = only
    stills = tmp_path / "stills"
    (stills / "wave").mkdir(parents=True)
    (stills / "wave" / "1.jpg").write_bytes(b"")
    cases["a folder of frames is one clip"] = stills
    out = tmp_path / "out"
    out.mkdir()
    (out / "wave").symlink_to(loose)
    cases["leads out of"] = out
    for words, folder in cases.items():
        with pytest.raises(OwnClipsError, match=words):
            read_actions(folder)
    with pytest.raises(OwnClipsError, match="expected videos"):
        query_clips(stills.parent / "empty")


def test_names_and_litter(tmp_path):
    for name in ("push-up", "jumping_jack", "跑步", "<script>alert(1)</script>"[:7], "x" * 200):
        write_video(tmp_path / name / "a.mp4", pictures("red", 4))
    for name in (".DS_Store", "Thumbs.db", "desktop.ini"):
        (tmp_path / name).write_text("")
        (tmp_path / "push-up" / name).write_text("")
    (tmp_path / "actions.yaml").write_text("jumping_jack: a person doing a jumping jack\n")
    found = read_actions(tmp_path)
    assert not found.skipped and found.texts["push-up"] == "push up" and found.texts["跑步"] == "跑步"
    assert found.texts["jumping_jack"] == "a person doing a jumping jack" and len(found.actions) == 5
    (tmp_path / "actions.yaml").write_text("jumpingjack: x\n")
    with pytest.raises(OwnClipsError, match=r"actions.yaml: .*'jumpingjack': no such action"):
        read_actions(tmp_path)


def test_it_is_what_the_public_name_leads_to():
    assert Recognizer.learn and Actions.predict and Wishes().keep is None
