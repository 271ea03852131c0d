"""What is known of languages besides the model: scripts, letters, words, and the scores of right texts.

languages.json has the lists. Its scores and shares are measured: `python bench/language.py` prints both anew
from every second text.
"""

from puna.text.lists import listed

_LISTS = listed(__file__, "languages.json")

# Scripts of the labels that are not written in Latin letters alone, by the first word of their letters' names
# in Unicode. Serbian and others stand in two.
SCRIPTS: dict[str, str] = _LISTS["scripts"]
# The median score of texts in the languages that the model is least sure of.
SCORES: dict[str, float] = _LISTS["scores"]
# The median share, in percent, of a text's words that are frequent ones of its language in the model's
# dictionary.
SHARES: dict[str, int] = _LISTS["shares"]

# Latin letters that few of the model's languages write, and many that it does not know, from Akan to Yoruba:
# Latin Extended-B but for Romanian's, IPA, Latin Extended Additional.
RARE_LATIN = "\u0180-\u0217\u021c-\u02af\u1e00-\u1eff"
WRITES_RARE_LATIN = frozenset(("az", "eml", "vi", "yo"))
# All of these together are in texts of one language.
OWN_LETTERS: dict[str, str] = _LISTS["own_letters"]
# Frequent words of languages that the model has, and hardly ever names.
OWN_WORDS: dict[str, str] = _LISTS["own_words"]

# Words by which languages are told apart that the model confuses, and beginnings of words ("evrop*"). Those
# of Serbo-Croatian are in Latin letters: by the vowel of "vrijeme" and "vreme", and by words of west and
# east.
_WORDS: dict[str, str] = _LISTS["croatian_bosnian_serbian"]
CLOSE: tuple[dict[str, str], ...] = (
    *_LISTS["close"],
    {
        "bs": " ".join((_WORDS["ijekavian"], _WORDS["eastern"], _WORDS["bosnian"])),
        "hr": " ".join((_WORDS["ijekavian"], _WORDS["croatian"], "također")),
        "sr": " ".join((_WORDS["ekavian"], _WORDS["eastern"])),
        "sh": "",
    },
)
