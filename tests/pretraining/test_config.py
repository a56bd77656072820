import pytest
import yaml

from scgpt.pretraining import PretrainingConfig


def config(**changes) -> PretrainingConfig:
    return PretrainingConfig.from_dict({"corpus": "c.zarr", "out": "run"} | changes)


def test_defaults_are_those_of_the_authors():
    settings = config()
    assert (settings.batch_size, settings.lr, settings.warmup_steps, settings.max_epochs) == (512, 1e-4, 10_000, 6)
    assert settings.shares == (0.25, 0.5, 0.75)
    assert config(objectives=["gep"]).shares == 0.4
    assert config(mask_share=[0.1, 0.2]).shares == (0.1, 0.2)


def test_a_file_is_read_with_changes_and_written_as_it_was_understood(tmp_path):
    path = tmp_path / "pretrain.yaml"
    path.write_text("corpus: c.zarr\nout: run\nlr: 1e-3\nnetwork: {d_model: 64}\nobjectives: [gep, gepc]\n")
    settings = PretrainingConfig.from_yaml(path, {"network.n_layers": 2, "batch_size": 8})
    assert settings.lr == 0.001  # which YAML takes for text
    assert settings.network == {"d_model": 64, "n_layers": 2}
    assert settings.batch_size == 8
    assert PretrainingConfig.from_dict(yaml.safe_load(settings.to_yaml())) == settings


def test_where_a_run_lies_and_how_it_is_spread_is_not_what_it_is():
    one = config()
    assert one.of_result() == config(out="other", devices=4, strategy="ddp", prefetch=0, log_every=1).of_result()
    for change in ({"lr": 1e-3}, {"batch_size": 256}, {"accumulate": 2}, {"seed": 1}, {"batches_per_read": 2}):
        assert one.of_result() != config(**change).of_result()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"leraning_rate": 1}, "There is no setting 'leraning_rate'"),
        ({"warmup_step": 1}, "no setting 'warmup_step'; 'warmup_steps'?"),
        ({"lr": "fast"}, "lr must be a number, not 'fast'"),
        ({"batch_size": 1.5}, "batch_size must be a whole number"),
        ({"batch_size": True}, "batch_size must be a whole number"),
        ({"grow_vocabulary": "yes please"}, "grow_vocabulary must be true or false"),
        ({"schedule": "linear"}, "schedule must be 'constant' or 'cosine' or 'epoch_decay'"),
        ({"network": ["d_model"]}, "network must be a mapping"),
        ({"mask_share": ["half"]}, "mask_share must be"),
        ({"batch_size": 10, "accumulate": 4}, "cannot be cut into accumulate=4"),
        ({"max_epochs": 0}, "max_epochs must be at least 1"),
        ({"max_steps": 0}, "max_steps must be at least 1"),
        ({"lr": 0}, "above 0"),
        ({"tokenizer": {"bins": 3}}, r"tokenizer has no settings \['bins'\]"),
        ({"grow_vocabulary": True}, "is for a model to go on from"),
        ({"loggers": ["mlflow"]}, "not \\['mlflow'\\]"),
        ({"objectives": {"gn": 1}}, "Unknown objective 'gn'"),
    ],
)
def test_a_bad_setting_is_named(changes, message):
    with pytest.raises(ValueError, match=message):
        config(**changes)


def test_a_bad_file_is_named(tmp_path):
    path = tmp_path / "pretrain.yaml"
    for text, message in (("a: [", "not valid YAML"), ("- a", "must hold settings"), ("lr: 1", "lack corpus, out")):
        path.write_text(text)
        with pytest.raises(ValueError, match=message):
            PretrainingConfig.from_yaml(path)
