"""Wrong usages get an exit code and a message that says what to do; interruptions get the code of the signal."""

import pytest

from tests.system.usages import INTERRUPTED, WRONG, interrupt, make_files, run
from vivit_zoo.cli import main


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("usages")
    make_files(folder)
    return folder


@pytest.mark.parametrize("usage", WRONG, ids=[usage.arguments for usage in WRONG])
def test_wrong_usage_is_answered(usage, folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    before = sorted(folder.rglob("*"))
    try:
        code = main(usage.arguments.split())
    except SystemExit as done:
        code = done.code
    error = capsys.readouterr().err
    assert (code, usage.message in error) == (usage.code, True), error
    assert "Traceback" not in error
    assert sorted(folder.rglob("*")) == before  # nothing is written


@pytest.mark.parametrize("usage", [usage for usage in WRONG if usage.parser][::8])
def test_as_a_process(usage, folder):
    code, error = run(usage.arguments, folder)
    assert (code, usage.message in error) == (usage.code, True), error


@pytest.mark.slow
@pytest.mark.parametrize("usage", WRONG, ids=[usage.arguments for usage in WRONG])
def test_each_as_a_process(usage, folder):
    code, error = run(usage.arguments, folder)
    assert (code, usage.message in error) == (usage.code, True), error
    assert "Traceback" not in error


@pytest.mark.slow
@pytest.mark.parametrize("usage", INTERRUPTED, ids=[usage.arguments for usage in INTERRUPTED])
def test_interruptions(usage, folder):
    code, error = interrupt(usage, folder)
    assert code == usage.code, error
    assert "Traceback" not in error
