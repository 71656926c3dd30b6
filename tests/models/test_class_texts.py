"""Class texts: of a prompt, or means over the sentences that a file has for each class (TEST.PROMPTS)."""

import pytest
import torch
import torch.nn.functional as F

from models.builder import class_texts
from utils.config import load_config
from utils.errors import ConfigError

NAMES = {"train": ("brush_hair", "run"), "test": ("wave",)}


def read(sentences, prompt):
    """A text tower that knows letters only."""
    texts = [prompt.format(one) for one in sentences]
    return torch.tensor([[float(text.count(letter)) for letter in "aeirs"] for text in texts]) + 0.5


def settings(tmp_path, text: str | None):
    path = tmp_path / "x.yaml"
    path.write_text("PROTOCOL: clean\n")
    if text is None:
        return load_config(path)
    (tmp_path / "prompts.yaml").write_text(text)
    return load_config(path, ["TEST.PROMPTS", str(tmp_path / "prompts.yaml")])


def test_without_a_file_the_prompt_is_read_as_it_is(tmp_path):
    found = class_texts(read, NAMES, settings(tmp_path, None))
    torch.testing.assert_close(found["train"], read(NAMES["train"], "a photo of {}"))


def test_a_class_is_the_mean_of_its_normalised_sentences(tmp_path):
    text = "brush hair: [a girl, her hair]\nrun: [he runs]\nwave: [she waves, bye]\n"
    found = class_texts(read, NAMES, settings(tmp_path, text))
    expected = F.normalize(F.normalize(read(["a girl", "her hair"], "{}"), dim=-1).mean(0), dim=-1)
    torch.testing.assert_close(found["train"][0], expected)
    torch.testing.assert_close(found["test"].norm(dim=-1), torch.ones(1))


@pytest.mark.parametrize("text", ["run: [he runs]\nwave: [bye]\n", "brush hair: []\nrun: [x]\nwave: [x]\n",
                                  "brush hair: text\nrun: [x]\nwave: [x]\n"])
def test_a_class_without_sentences_is_refused(tmp_path, text):
    with pytest.raises(ConfigError, match="prompts.yaml: expected a list of sentences for each class .*: brush_hair"):
        class_texts(read, NAMES, settings(tmp_path, text))
