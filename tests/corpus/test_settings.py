"""Settings that would lose documents are refused."""

from typing import Any

import pytest
from pydantic import ValidationError

from puna.corpus.settings import CorpusSettings


@pytest.mark.parametrize("where", ["corpus", "source"])
def test_a_language_that_the_model_does_not_have_is_told(where: str) -> None:
    source: dict[str, Any] = {"name": "a", "reader": "lines", "uris": ["a.txt"]}
    codes = {"languages": ["en", "eng"]}
    with pytest.raises(ValidationError, match="'eng' is no code of the language model; did you mean en"):
        CorpusSettings.model_validate(
            {"sources": [source | codes]} if where == "source" else {"sources": [source], **codes}
        )
