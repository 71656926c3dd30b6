"""The leaderboard of a sweep over several methods."""

import json

import pytest

from runs.evaluation.paired import compare
from runs.sweeps.board import build_board
from tests.conftest import called
from utils.json_files import read_json

main, pytestmark = called("sweep"), pytest.mark.slow


def test_a_directory_of_projects_ends_in_a_leaderboard(tiny_project, tmp_path, capsys):
    """Each scoring of each method is a row, with its difference to the first; transductive methods stand apart."""
    projects, out = tmp_path / "projects", tmp_path / "sweep"
    assert main(["--cfg", tmp_path]) == 1
    assert f"--cfg: {tmp_path}: expected a directory with project files" in capsys.readouterr().err
    projects.mkdir()
    for name, head, more in (("a", "MEAN_POOL", {}), ("b", "CNN_OTAM", {}), ("c", "FROZEN", {"ENABLE": False})):
        text = tiny_project(name, NUM_TRAIN_TASKS=2, VAL_FRE_ITER=2, **more).read_text()
        (projects / f"{name}.yaml").write_text(text.replace("{HEAD: {", f"{{HEAD: {{NAME: {head}, "))
    assert main(["--cfg", projects, "--out", out, "--jobs", "2", "TEST.ENABLE", "true"]) == 0
    text = (out / "leaderboard.md").read_text()
    assert text in capsys.readouterr().out and "custom, 3-way 1-shot, inductive; 6 test episodes, protocol" in text
    rows = {tuple(cells[:2]): cells[2:] for line in text.splitlines() if line.startswith("| ")
            for cells in [[cell.strip() for cell in line.strip("|").split(" | ")]]}
    assert rows["method", "scoring"][2] == "difference to mean pooling, cosine"
    assert rows["mean pooling", "cosine \\*"][2:4] == ["reference", ""]
    trained = read_json(out / "b" / "run.json")["trained_parameters"]
    assert rows["OTAM", "alignment distance \\*"][4] == f"{trained:,}" and trained > 0
    assert float(rows["OTAM", "alignment distance \\*"][5]) > 0 and rows["training-free", "Chamfer"][4] == "0"
    found = compare(out / "a", out / "c", "cosine", "chamfer")
    assert rows["training-free", "Chamfer"][2].split(" +- ")[0] == f"{100 * found.difference:+.1f}"
    page = (out / "leaderboard.html").read_text()
    assert page.count("<tr>") == len(rows) and 'href="b/report.html"' in page and "<script" not in page
    results = {k: v for k, v in read_json(out / "b" / "results.json").items() if k != "checksum"}
    (out / "b" / "results.json").write_text(json.dumps({**results, "transductive": True}))
    board = build_board([out / name for name in "abc"])
    assert [[row.result.setting.method for row in rows][:1] for _, rows in board.tables][1:] == [["OTAM"]]
    assert "transductive (a query's scores depend on the other queries)" in board.tables[1][0]
