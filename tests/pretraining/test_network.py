from scgpt.pretraining._network import starting_point


def test_predictions_begin_in_the_middle_of_the_bins(settings, corpus):
    start = starting_point(settings(tokenizer={"n_bins": 21}), corpus)
    assert start.state_dict["gep.value.4.bias"].tolist() == [10.5]
