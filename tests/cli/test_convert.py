import pytest

from scgpt.cli import main
from scgpt.hub import read_checkpoint, read_official


def test_it_writes_safetensors(golden, tmp_path, capsys):
    assert main(["convert", str(golden / "checkpoint"), str(tmp_path / "model")]) == 0
    assert "loaded genes, values, layers" in capsys.readouterr().out
    ours, theirs = read_checkpoint(tmp_path / "model"), read_official(golden / "checkpoint")
    assert ours.config == theirs.config
    assert all((ours.state_dict[name] == tensor).all() for name, tensor in theirs.state_dict.items())


@pytest.mark.parametrize(("options", "message"), [([], "--overwrite"), (["--overwrite"], "holds other files than")])
def test_a_folder_with_other_files_is_left_as_it_is(folder, golden, fails, options, message):
    assert message in fails("convert", golden / "checkpoint", folder, *options)
