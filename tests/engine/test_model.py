"""The model called with arrays gives the engine's logits, and refuses what no tokenizer gives."""

import numpy as np
import pytest

from neuronbert import NeuronBertForQuestionAnswering
from neuronbert.errors import InputError

IDS = [[101, 2040, 2001, 3958, 27227, 1029, 102, 3958, 27227, 2001, 1037, 3835, 13997, 102]]


@pytest.fixture(scope="module")
def model(echo_artifact):
    with NeuronBertForQuestionAnswering.from_pretrained(echo_artifact.folder) as model:
        yield model


def test_logits_are_as_long_as_the_input(model):
    output = model(np.array(IDS), np.ones_like(IDS), np.zeros_like(IDS))
    assert output.start_logits.shape == output.end_logits.shape == np.shape(IDS)
    assert output.start_logits.dtype == np.float32


def test_mask_and_types_have_defaults(model):
    given = model(np.array(IDS), np.ones_like(IDS), np.zeros_like(IDS))
    np.testing.assert_array_equal(model(IDS).start_logits, given.start_logits)


def test_torch_in_torch_out(model):
    torch = pytest.importorskip("torch")
    output = model(input_ids=torch.tensor(IDS))
    assert isinstance(output.start_logits, torch.Tensor)
    np.testing.assert_array_equal(output.start_logits.numpy(), model(IDS).start_logits)


def test_padding_does_not_change_a_row(model):
    padded, mask = np.pad(IDS, ((0, 0), (0, 5))), np.pad(np.ones_like(IDS), ((0, 0), (0, 5)))
    np.testing.assert_array_equal(model(padded, mask).end_logits[:, : len(IDS[0])], model(IDS).end_logits)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (([[10**7]],), "input_ids holds 10000000"),
        (([[-5]],), "input_ids holds -5"),
        ((np.array([[2**63]], np.uint64),), "input_ids holds 9223372036854775808"),
        (([[1]], [[2]]), "attention_mask holds 2"),
        (([[1]], [[1]], [[7]]), "token_type_ids holds 7"),
        (([[1, 2]], [[1]]), "differ in shape"),
        (([[1] * 600],), "600 tokens are more than the 512"),
        (([[1, 2], [3]],), "differ in length"),
        (([1, 2],), r"shape \(2,\)"),
        (([[0.5]],), "float64"),
        ((np.zeros((0, 4), np.int64),), r"shape \(0, 4\)"),
    ],
)
def test_what_no_tokenizer_gives_is_refused(model, arguments, words):
    with pytest.raises(InputError, match=words):
        model(*arguments)
