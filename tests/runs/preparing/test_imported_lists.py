"""prepare.py lists --from: lists that others wrote, from directories and addresses, however their files are called."""

from pathlib import Path

import pytest

from tests.local_server import local_site
from tests.runs.preparing.prepare_fixture import (
    PUBLISHED,
    SPLITS,
    call,
    lines,
    made_up,
    names,
    touch,
    write,
)

pytestmark = pytest.mark.usefixtures("quick")
TRX, CMN = "{split}list03.txt", "{split}.list"


def named(dataset: str, split: str, clips: int = 6) -> list[str]:
    """The made-up list as CMN and TRX write theirs."""
    if dataset.startswith("ssv2"):
        return [f"{names(dataset)[split][int(row.split('/')[0].removeprefix(split))]}/{row.split('/')[1]}"
                for row in made_up(dataset, split, clips)]
    return ["/".join(row.removesuffix(".avi").split("/")[-2:]) for row in made_up(dataset, split, clips)]


def write_named(folder: Path, dataset: str, file_name: str = TRX) -> Path:
    folder.mkdir()
    for split in SPLITS:
        (folder / file_name.format(split=split)).write_text("\n".join(named(dataset, split)) + "\n")
    return folder


@pytest.mark.parametrize("file_name", [TRX, CMN, "{split}_few_shot.txt", "{split}_list.txt", "{split}.txt", "{split}"])
@pytest.mark.parametrize("dataset", ["hmdb51", "ucf101", "ssv2_small", "ssv2_full"])
def test_named_lines_get_the_class_index(dataset, file_name, tmp_path, capfd):
    source = write_named(tmp_path / "from", dataset, file_name)
    status, out, _ = call(capfd, "lists", dataset, "--from", source, "--out", tmp_path / "out")
    assert status == 0 and ("note: paths are videos/<class>/<id>.avi, by convention" in out) == (dataset[:4] != "ssv2")
    for split in SPLITS:
        assert lines(tmp_path / "out" / f"{split}_few_shot.txt") == sorted(made_up(dataset, split))


@pytest.mark.shared("splits")
@pytest.mark.parametrize("dataset", ["hmdb51", "ucf101", "ssv2_small"])
def test_named_lines_of_the_published_videos_give_the_published_lists(dataset, tmp_path, capfd):
    source = tmp_path / "from"
    source.mkdir()
    for split in SPLITS:
        rows = (PUBLISHED / dataset / f"{split}_few_shot.txt").read_text().split()
        if dataset == "ssv2_small":
            rows = [f"{names(dataset)[split][int(row.split('/')[0].removeprefix(split))]}/{row.split('/')[1]}"
                    for row in rows]
        else:
            rows = ["/".join(row.removesuffix(".avi").split("/")[-2:]) for row in rows]
        (source / TRX.format(split=split)).write_text("\n".join(rows))
    status, out, _ = call(capfd, "lists", dataset, "--from", source, "--out", tmp_path / "out")
    assert status == 0 and out.count(f" {dataset}@") == 3


def test_spelling_extension_and_folders_before_the_class_are_free(tmp_path, capfd):
    source = write_named(tmp_path / "from", "ucf101")
    train = source / "trainlist03.txt"
    rows = named("ucf101", "train")
    free = ["", *(f"UCF-101/{row.split('/')[0].replace('_', ' ').upper()}/{row.split('/')[1]}.AVI" for row in rows)]
    train.write_text("\r\n".join(free))
    assert call(capfd, "lists", "ucf101", "--from", source, "--out", tmp_path / "out")[0] == 0
    assert len(lines(tmp_path / "out/train_few_shot.txt")) == 420
    assert "train0//videos/APPLY_EYE_MAKEUP/v_Apply_Eye_Makeup_0.avi" in lines(tmp_path / "out/train_few_shot.txt")


def kinetics(folder: Path, root: Path) -> list[str]:
    """Lists of ids without and with seconds, and their videos in two folders; returns the paths of the val videos."""
    folder.mkdir()
    paths = []
    for split in SPLITS:
        rows = []
        for k, name in enumerate(names("kinetics100")[split]):
            for c in range(6):
                video = f"{split[:2]}-{k:03d}_{c:04d}"
                assert len(video) == 11
                rows.append(f"{name}/{video}{'_000012_000022' if c == 1 else ''}")
                place = f"{'val_256' if c == 2 else 'train_256'}/{name.replace(' ', '_')}/{video}"
                paths.append(place + (".mkv" if c == 3 else "_000012_000022/1.jpg" if c == 4 else "_000012_000022.mp4"))
        (folder / CMN.format(split=split)).write_text("\n".join(rows))
    touch(root, paths)
    return paths


def test_paths_are_looked_up(tmp_path, capfd):
    source, root = tmp_path / "from", tmp_path / "kinetics"
    paths = kinetics(source, root)
    arguments = ["lists", "kinetics100", "--from", source, "--out", tmp_path / "out"]
    status, out, _ = call(capfd, *arguments, "--videos", root)
    assert status == 0 and "note" not in out
    made = [row for split in SPLITS for row in lines(tmp_path / "out" / f"{split}_few_shot.txt")]
    assert sorted(row.split("//")[1] for row in made) == sorted(path.replace("/1.jpg", ".mp4") for path in paths)
    status, out, _ = call(capfd, *arguments, "--force")
    assert status == 0 and "note: paths are videos/<class>/<id>.mp4, by convention; --videos DATA_ROOT_DIR looks" in out
    name = names("kinetics100")["val"][0].replace(" ", "_")
    assert f"val0//videos/{name}/va-000_0001_000012_000022.mp4" in lines(tmp_path / "out/val_few_shot.txt")


def test_videos_that_are_not_there(tmp_path, capfd):
    source, root = tmp_path / "from", tmp_path / "kinetics"
    for path in kinetics(source, root)[2:4]:
        (root / path).unlink()
    status, _, err = call(capfd, "lists", "kinetics100", "--from", source, "--videos", root, "--out", tmp_path / "out")
    assert status == 1
    assert err == (f"\nListError: {source}/train.list, line 3: expected a video of id 'tr-000_0002' under --videos, "
                   "found none; so for 2 of 384 lines\n")
    status, _, err = call(capfd, "lists", "kinetics100", "--from", source, "--videos", "no", "--out", tmp_path / "out")
    assert status == 1 and "ListError: no: expected the directory of the videos (--videos), found nothing there" in err


def test_videos_of_no_use_are_said_to_be(tmp_path, capfd):
    source = write(tmp_path / "from", "hmdb51")
    status, out, _ = call(capfd, "lists", "hmdb51", "--from", source, "--videos", tmp_path, "--out", tmp_path / "out")
    assert status == 0 and f"note: {tmp_path} was not looked at: these lists name paths\n" in out


@pytest.mark.parametrize(("line", "text"), [
    ("fencing/x", "found 'fencing/x', whose class is one of test\n"), ("cartwheel", "found 'cartwheel'\n"),
    ("cartwheel/", "found 'cartwheel/'"), ("<!DOCTYPE html>", "found '<!DOCTYPE html>'\n"),
    ("cartwhel/x", "found 'cartwhel/x'; nearest: 'cartwheel'\n"),
])
def test_a_line_without_a_class_of_its_split(line, text, tmp_path, capfd):
    source = write_named(tmp_path / "from", "hmdb51")
    (source / "vallist03.txt").write_text("\n".join(["", *named("hmdb51", "val")[:3], line]))
    status, _, err = call(capfd, "lists", "hmdb51", "--from", source, "--out", tmp_path / "out")
    assert status == 1 and text in err
    assert err.startswith(f"\nAnnotationError: {source}/vallist03.txt, line 5: expected a class of hmdb51's val and a "
                          "video, such as 'cartwheel/<video id>', found ")


def test_files_are_named_where_the_directory_does_not_tell(tmp_path, capfd):
    source, out = write_named(tmp_path / "from", "hmdb51"), tmp_path / "out"
    (source / "vallist07.txt").write_text("x")
    arguments = ["lists", "hmdb51", "--from", source, "--out", out]
    status, _, err = call(capfd, *arguments)
    assert (status, err) == (1, f"\nListError: {source}: expected one list of val, such as val_few_shot.txt, "
                                "vallist03.txt or val.list, found vallist03.txt, vallist07.txt; name the file with "
                                "--val\n")
    assert call(capfd, *arguments, "--val", source / "vallist03.txt")[0] == 0
    (source / "testlist03.txt").rename(source / "eval.txt")
    status, _, err = call(capfd, *arguments, "--val", source / "vallist03.txt")
    assert status == 1
    assert "found eval.txt, trainlist03.txt, vallist03.txt, vallist07.txt; name the file with --test" in err
    files = {"--train": "trainlist03.txt", "--val": "vallist03.txt", "--test": "eval.txt"}
    given = [part for option, name in files.items() for part in (option, source / name)]
    assert call(capfd, "lists", "hmdb51", "--out", out, *given)[0] == 0
    status, _, err = call(capfd, "lists", "hmdb51", "--out", out, *given[:4])
    assert (status, err) == (1, "\nListError: --test: expected a file or an address, as for the other splits, found "
                                "none\n")
    status, _, err = call(capfd, "lists", "hmdb51", "--out", out, "--from", source / "eval.txt")
    assert status == 1 and "(--from), found a file; name it with --train, --val or --test" in err
    status, _, err = call(capfd, "lists", "hmdb51", "--out", out, *given[:4], "--test", source / "no.txt")
    assert status == 1 and f"AnnotationError: {source}/no.txt: split list not found" in err


@pytest.mark.parametrize(("source", "file_name"), [("/a/b", "{split}_few_shot.txt"), ("/a/b/", "{split}_few_shot.txt"),
                                                   ("/a/b/{split}.list", CMN)])
def test_addresses(source, file_name, tmp_path, capfd):
    with local_site() as site:
        for split in SPLITS:
            site.bodies[f"a/b/{file_name.format(split=split)}"] = "\n".join(named("hmdb51", split)).encode()
        status, _, _ = call(capfd, "lists", "hmdb51", "--from", site.address + source, "--out", tmp_path / "out")
        assert status == 0 and len(site.asked) == 3
        for split in SPLITS:
            assert lines(tmp_path / "out" / f"{split}_few_shot.txt") == sorted(made_up("hmdb51", split))
        assert len(list((tmp_path / "out").iterdir())) == 3
        status, _, err = call(capfd, "lists", "hmdb51", "--from", f"{site.address}/x", "--out", tmp_path / "out")
        assert status == 1
        assert err == (f"\nListError: {site.address}/x/train_few_shot.txt: cannot be downloaded: HTTP 404 Not Found\n"
                       "--from takes an address with {split} in it, --train that of one list; or fetch the lists on a "
                       "machine with network and give their directory with --from\n")
