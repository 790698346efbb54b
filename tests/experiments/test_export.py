"""experiments/export.py on a tiny model: every form computes what the model does, for another batch size."""

import importlib
import json
from pathlib import Path

import pytest

EXPERIMENTS = Path(__file__).parents[2] / "experiments"


@pytest.fixture
def export(monkeypatch):
    monkeypatch.syspath_prepend(EXPERIMENTS)
    return importlib.import_module("export")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # other libraries' own
def test_all_forms_of_a_tiny_model(export, tmp_path, capsys):
    pytest.importorskip("onnxruntime", reason="pip install 'vivit-zoo[ecosystem]'")
    small = ["--size", "Ti/16x2", "--frames", "4", "--side", "32", "--rounds", "1", "--out", str(tmp_path)]
    assert export.main([*small, "--variants", "factorised_encoder"]) == 0
    rows = json.loads((tmp_path / "results.json").read_text())["variants"]["factorised_encoder"]
    assert list(rows) == ["eager", "optimize_for_inference", "torch.export", "ONNX Runtime", "AOTInductor"]
    assert all(row["apart"] < 1e-5 for row in rows.values())
    assert {
        form: row["bytes"] > rows["eager"]["bytes"] for form, row in rows.items() if "export" in row
    } == dict.fromkeys(export.EXPORTS, True)
    table = capsys.readouterr().out
    assert export.main([*small, "--variants", "factorised_encoder"]) == 0  # what is there is kept
    again = capsys.readouterr()
    assert (again.out, "factorised_encoder is in" in again.err) == (table, True)


def test_the_table_has_a_row_for_each_form(export):
    forms = {"eager": {"bytes": 2_000_000, "apart": 0.0, "forward": [1.0, 3.0, 2.0]}}
    forms["ONNX Runtime"] = {"export": 12.4, "bytes": 3_000_000, "apart": 2e-7, "forward": [0.5, 1.0, 1.0]}
    lines = export.table({"joint": forms}, "about").splitlines()
    assert [cell.strip() for cell in lines[2].split("|")[1:-1]] == ["joint", "eager", "", "2 MB", "", "2.00 s", ""]
    values = ["joint", "ONNX Runtime", "12 s", "3 MB", "2e-07", "1.00 s", "0.50"]
    assert [cell.strip() for cell in lines[3].split("|")[1:-1]] == values
