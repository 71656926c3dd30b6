"""The page's routes over HTTP, with a tiny model: the loop of adding and seeing, answers, timelines, downloads."""

import json
import time
from shutil import rmtree

import pytest
import torch

from runs.own.learning import encoded
from runs.recognizer import Recognizer
from tests.conftest import called
from tests.runs.own.page.served import SPECS, overrides, render, served, visible


def test_command_api_and_page_give_the_same_answers_to_the_last_bit(page, root, clips, tower, tmp_path):
    queries = sorted((clips / "query").glob("*.mp4")) + [clips / "long.mp4"]
    for path in queries:
        page.ask(path)
    by_page = json.loads(page.raw("GET", "/results.json")[2])
    rmtree(root / ".cache")
    torch.manual_seed(0)  # as the page's model
    assert called("predict")([*overrides(tower), "--text", "off", "--support", root, "--out", tmp_path / "out",
                              "--query", *queries]) == 0
    by_command = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert by_page == by_command
    assert page.raw("GET", "/results.csv")[2].decode() == (tmp_path / "out" / "predictions.csv").read_text()
    torch.manual_seed(0)
    actions = Recognizer(overrides=overrides(tower), text=False).learn(root)
    assert by_page["queries"] == [actions.predict(path).to_dict() for path in queries]
    (tmp_path / "my.pack").write_bytes(page.raw("GET", "/pack")[2])
    packed = page.server.jobs.model.load(tmp_path / "my.pack").predict(queries[0])
    assert packed.to_dict() == by_page["queries"][0]


def test_learning_waits_for_no_end_and_no_upload_for_learning(root, model, clips, monkeypatch):
    """As with many clips and a slow tower."""
    rmtree(root / ".cache")
    monkeypatch.setattr("runs.own.learning.encoded", lambda *given: (time.sleep(1), encoded(*given))[1])
    with served(root, model) as client:
        end = time.monotonic() + 30
        while (client.json("GET", "/state")[1]["busy"] or {}).get("share") is None and time.monotonic() < end:
            time.sleep(0.05)
        assert client.json("PUT", "/query?name=a.mp4", (clips / "query" / "spin.mp4").read_bytes())[0] == 202
        busy = client.json("GET", "/state")[1]["busy"]
        assert busy["text"] == "learning" and 1 / 12 <= busy["share"] <= 0.7
        begin = time.monotonic()
    assert time.monotonic() - begin < 4.5
    assert list((root / ".cache").glob("*.pack"))


def test_the_loop(page, root, clips):
    state = page.settled()
    before = state["sentence"]["text"]
    held = [(clip["right"], clip["got"] == action["name"]) for action in state["actions"] for clip in action["clips"]]
    assert len(held) == 12 and all(right is same for right, same in held)
    assert {right for right, _ in held} == {True, False}
    assert before.startswith(f"{sum(right for right, _ in held)} of 12 right")
    assert "of 12 right when each clip is held out" in before
    asked = page.ask(clips / "query" / "spin.mp4")["answer"]
    assert set(asked["distances"]) == set(SPECS)
    status, made = page.json("PUT", f"/clips/{page.action('spin')['id']}", (clips / "query" / "spin.mp4").read_bytes())
    assert status == 202
    state = page.settled()
    added = next(one for one in page.action("spin")["clips"] if one["id"] == made["id"])
    assert added["name"] == "clip_0001.mp4" and added["right"] is (added["got"] == "spin") and added["seconds"] == 2.0
    assert "of 13 right" in state["sentence"]["text"]
    [again] = state["queries"]  # answered anew without being asked
    assert again["answer"]["same_as_support"] == "spin/clip_0001.mp4"
    assert again["answer"]["distances"] != asked["distances"] and not again["stale"]
    assert page.server.jobs.actions.encoded == 1, "only the new clip passes the tower"
    status, headers, picture = page.raw("GET", f"/{added['strip']}")
    assert status == 200 and picture.startswith(b"\xff\xd8") and headers["Content-Type"] == "image/jpeg"
    assert page.json("DELETE", f"/clips/{made['id']}")[0] == 200
    assert page.settled()["sentence"]["text"] == before and page.json("POST", "/undo")[0] == 200
    assert "of 13 right" in page.settled()["sentence"]["text"] and (root / "spin" / "clip_0001.mp4").is_file()


def test_from_nothing_to_an_answer(model, clips, tmp_path):
    with served(tmp_path / "new" / "folder", model) as page:
        assert page.settled()["sentence"]["text"].startswith("Add an action")
        assert page.json("GET", "/pack")[0] == page.json("GET", "/results.json")[0] == 409
        assert page.ask(clips / "query" / "spin.mp4")["answer"]["error"] == "there are no actions to compare it with"
        for name in ("spin", "slide"):
            status, made = page.json("POST", "/actions", {"name": name})
            assert status == 200 and page.action(name)["id"] == made["id"]
            page.json("PUT", f"/clips/{made['id']}", (clips / "support" / name / "0.mp4").read_bytes())
            state = page.settled()
            wanted = {"spin": "cannot be used", "slide": "Not checked yet"}[name]  # one action cannot say yes or no
            assert wanted in state["sentence"]["text"], state["sentence"]
        [query] = page.settled()["queries"]
        assert query["answer"]["error"] and page.json("POST", f"/query/{query['id']}")[0] == 200
        [query] = page.settled()["queries"]
        assert query["answer"]["answer"] in ("spin", "slide") and query["answer"]["margin"] is None
        assert query["answer"]["probabilities"] is None, "no figures before they are calibrated"


def test_a_long_video_is_a_timeline_and_a_stretch_of_it_becomes_none(page, root, clips):
    query = page.ask(clips / "long.mp4")
    assert query["seconds"] == pytest.approx(61, abs=0.3) and query["answer"]["windows"]
    assert page.json("POST", f"/query/{query['id']}/none", {"start": 10, "end": 13.5})[0] == 202
    state = page.settled()
    assert [one["name"] for one in state["none"]["clips"]] == ["clip_0001.mp4"]
    assert state["none"]["clips"][0]["seconds"] == pytest.approx(3.5, abs=0.2)
    assert state["none"]["clips"][0]["right"] is (state["none"]["clips"][0]["got"] == "unknown")
    assert "Of 1 clip of none" in state["sentence"]["more"] and not state["queries"][0]["stale"]
    for start, end in ((None, None), (5, 2), (0, 63), ("1", 2), (70, 71)):
        wrong = {"start": start, "end": end}
        assert page.json("POST", f"/query/{query['id']}/none", wrong)[0] == 400
    page.json("DELETE", f"/clips/{page.action('slide')['clips'][0]['id']}")
    assert page.settled()["queries"][0]["stale"], "a long video is watched again only when it is asked for"
    assert page.json("DELETE", f"/query/{query['id']}")[0] == 200 and not list((root / ".asked").iterdir())


def test_what_was_asked_about_becomes_a_clip(page, root, clips):
    query = page.ask(clips / "query" / "other.mp4")
    for wrong in ({}, {"action": "../x"}, {"action": None}, {"action": ["none"]}):
        assert page.json("POST", f"/query/{query['id']}/keep", wrong)[0] == 404
    assert page.json("POST", f"/query/{query['id']}/keep", {"action": page.action("none")["id"]})[0] == 202
    state = page.settled()
    assert (root / "none" / "clip_0001.mp4").read_bytes() == (clips / "query" / "other.mp4").read_bytes()
    assert state["queries"] == [] and "Of 1 clip of none" in state["sentence"]["more"]


def test_media_by_ranges(page, root):
    clip = page.action("spin")["clips"][0]
    whole = (root / "spin" / clip["name"]).read_bytes()
    status, headers, body = page.raw("GET", f"/media/{clip['id']}")
    assert (status, body, headers["Content-Type"], headers["Accept-Ranges"]) == (200, whole, "video/mp4", "bytes")
    status, headers, body = page.raw("GET", f"/media/{clip['id']}", Range="bytes=10-19")
    assert (status, body, headers["Content-Range"]) == (206, whole[10:20], f"bytes 10-19/{len(whole)}")
    assert page.raw("GET", f"/media/{clip['id']}", Range=f"bytes={len(whole)}-")[0] == 416


def test_waiting_for_news(page):
    state = page.settled()
    page.server.page.poll_seconds = 0.3
    begun = time.monotonic()
    assert page.json("GET", f"/state?after={state['version']}")[1]["version"] == state["version"]
    assert 0.25 < time.monotonic() - begun < 5
    page.server.page.poll_seconds = 60
    page.json("POST", "/actions", {"name": "jump"})
    assert page.json("GET", f"/state?after={state['version']}")[1]["version"] > state["version"]


def test_files_that_are_no_videos(page, root, clips):
    target, before = f"/clips/{page.action('spin')['id']}", visible(root)
    video = (clips / "query" / "spin.mp4").read_bytes()
    bad = {b"hello": "no video that is taken here", b"#EXTM3U\nfile:///etc/passwd\n": "no video that is taken here",
           video[:len(video) // 2]: "truncated", video[:40] + bytes(400): "cannot be read",
           b"\x1aE\xdf\xa3" + bytes(300): "cannot be read", b"RIFF" + bytes(300): "cannot be read"}
    for body, reason in bad.items():
        for path in (target, "/query?name=a.mp4"):
            status, answer = page.json("PUT", path, body)
            assert status == 415 and reason in answer["error"], (body[:20], answer)
    assert page.json("PUT", target, b"")[0] == 400
    assert visible(root) == before and not list(root.glob(".upload_*")) and not page.settled()["queries"]


def test_a_broken_clip_in_the_folder_is_shown_as_such(root, model):
    (root / "spin" / "broken.mp4").write_bytes(b"\0\0\0\x18ftypmp42 and no more")
    with served(root, model) as page:
        page.settled()
        shown = next(one for one in page.action("spin")["clips"] if one["name"] == "broken.mp4")
        assert shown["note"].startswith("left out: ") and shown["strip"] is None and shown["right"] is None


def test_names_stay_text(page, root):
    nasty = "<img src=x onerror=alert(1)>"
    assert page.json("PATCH", f"/actions/{page.action('spin')['id']}", {"name": nasty})[0] == 200
    assert nasty in [one["name"] for one in page.settled()["actions"]] and (root / nasty / "0.mp4").is_file()
    status, headers, _ = page.raw("GET", "/state")
    assert (headers["Content-Type"], headers["X-Content-Type-Options"]) == ("application/json", "nosniff")
    query = page.ask(render(root.parent / "q.mp4", SPECS["spin"], 3), "../../<script>alert(1)<\x07.mp4")
    assert query["name"] == "<script>alert(1)<\\x07.mp4"


def test_the_page_asks_no_other_host(page, clips, monkeypatch):
    import socket

    def none(host, *_, **__):
        raise AssertionError(f"asked for {host}")

    real = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", lambda host, *more, **options: (
        real if host == "127.0.0.1" else none)(host, *more, **options))
    for path in ("/", "/page.js", "/common.js", "/camera.js", "/page.css"):
        status, _, body = page.raw("GET", path)
        assert status == 200 and b"//" not in body.replace(b"// ", b"").replace(b"http://www.w3.org", b""), path
    assert page.ask(clips / "query" / "spin.mp4")["answer"]["distances"]


def test_a_video_is_an_example_once_and_names_are_read_apart(page, root):
    status, said = page.json("PUT", f"/clips/{page.action('spin')['id']}", (root / "bounce" / "0.mp4").read_bytes())
    assert status == 409 and said["error"] == "the same video as bounce/0.mp4; a video can be an example once"
    assert page.json("POST", "/actions", {"name": "jump_up"})[0] == 200
    status, said = page.json("POST", "/actions", {"name": "jump-up"})
    assert status == 409 and said["error"] == "'jump_up' is read as the same words"
