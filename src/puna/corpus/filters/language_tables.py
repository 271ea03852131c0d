"""What is known of languages besides the model: scripts, letters, words, and the scores of right texts.

SCORES and SHARES are measured: `python bench/language.py` prints both anew from every second text.
"""

# Scripts of the labels that are not written in Latin letters alone, by the first word of their letters' names
# in Unicode. Serbian and others stand in two.
SCRIPTS = {
    "ARABIC": "ar arz azb ckb fa kk ku lrc mzn pnb ps sd ug ur",
    "ARMENIAN": "hy",
    "BENGALI": "as bn bpy",
    "CJK": "ja ko wuu yue zh",
    "CYRILLIC": (
        "av ba be bg bxr ce cv kk krc kv ky lez mhr mk mn mrj myv os ru rue sah sh sr tg tt tyv uk uz xal"
    ),
    "DEVANAGARI": "bh dty gom hi mai mr ne new sa",
    "ETHIOPIC": "am",
    "GEORGIAN": "ka xmf",
    "GREEK": "el",
    "GUJARATI": "gu",
    "GURMUKHI": "pa",
    "HANGUL": "ko",
    "HEBREW": "he yi",
    "HIRAGANA": "ja",
    "KANNADA": "kn",
    "KATAKANA": "ja",
    "KHMER": "km",
    "LAO": "lo",
    "LATIN": "gom kk ku sh sr tt ug uz",
    "MALAYALAM": "ml",
    "MYANMAR": "my",
    "ORIYA": "or",
    "SINHALA": "si",
    "TAMIL": "ta",
    "TELUGU": "te",
    "THAANA": "dv",
    "THAI": "th",
    "TIBETAN": "bo",
}

# The median score of texts in the languages that the model is least sure of.
SCORES = {
    "ga": 0.58, "ht": 0.22, "ia": 0.38, "jv": 0.32, "la": 0.56, "qu": 0.19, "so": 0.11, "su": 0.35,
    "sw": 0.54, "yo": 0.19,
}  # fmt: skip
# The median share, in percent, of a text's words that are frequent ones of its language in the model's
# dictionary.
SHARES = {
    "af": 10, "ar": 3, "az": 4, "be": 8, "bg": 25, "br": 16, "bs": 9, "ca": 22, "ceb": 39, "cs": 10,
    "cy": 10, "da": 23, "de": 39, "en": 36, "eo": 30, "es": 43, "et": 8, "eu": 13, "fa": 17, "fi": 9,
    "fr": 43, "fy": 12, "ga": 5, "gd": 5, "gl": 10, "hr": 6, "ht": 4, "hu": 12, "ia": 17, "id": 25,
    "ilo": 14, "is": 16, "it": 37, "jv": 10, "kk": 3, "ky": 7, "la": 5, "lb": 9, "lt": 10, "lv": 4,
    "mg": 18, "mk": 33, "mn": 3, "ms": 14, "nds": 18, "ne": 10, "nl": 32, "nn": 7, "no": 29, "pl": 7,
    "pnb": 4, "pt": 27, "ro": 17, "ru": 16, "sk": 7, "sl": 11, "sq": 17, "sr": 11, "su": 8, "sv": 30,
    "sw": 16, "tg": 14, "tl": 22, "tr": 12, "uk": 9, "ur": 8, "uz": 3, "vi": 11, "yi": 5,
}  # fmt: skip

# Latin letters that few of the model's languages write, and many that it does not know, from Akan to Yoruba:
# Latin Extended-B but for Romanian's, IPA, Latin Extended Additional.
RARE_LATIN = "\u0180-\u0217\u021c-\u02af\u1e00-\u1eff"
WRITES_RARE_LATIN = frozenset(("az", "eml", "vi", "yo"))
# All of these together are in texts of one language.
OWN_LETTERS = {"yo": "ẹọṣ"}

# Frequent words of languages that the model has, and hardly ever names.
OWN_WORDS = {
    "so": (
        "aad ah ahaa ahayd ay ayaa ayay ayuu badan ee inay inuu isagoo iyo jira kale kasta ku laga "
        "lagu oo sheegay sida soo soomaaliya uga ugu uu waa wax waxa waxaa waxay waxuu"
    ),
    "yo": "awọn bẹẹ fún gbogbo jẹ kò láti lọ naa náà ninu nínú nítorí pé pẹlu ṣe tí tó wọn wọ yìí àti àwọn ó",
}

# Words by which languages are told apart that the model confuses, and beginnings of words ("evrop*"). Those
# of Serbo-Croatian are in Latin letters: by the vowel of "vrijeme" and "vreme", and by words of west and
# east.
_EKAVIAN = (
    "bela belo belog cela cele celi celog celu cena cene cenu ceo deca dece deci dela delu deo dve "
    "gde hteo izmen* lepo mera mere mesec* mesta mesto mestu nedelj* obezbed* ovde posle pre pren* "
    "primen* primer* promen* reka reke reč reči rešen* reši* sled* smen* svest svet sveta svetsk* "
    "svetu uspe* uvek uvre* vek veka veku vera vere veru vreme vremena vremenu zahtev* zamen* čovek* "
    "živel*"
)
_IJEKAVIAN = (
    "bijel* cijel* cijen* dijel* dio djec* dvije gdje htio izmjen* lijep* mjer* mjesec* mjest* "
    "nedjelj* obavijest* obezbij* ovdje poslije prije primijen* primjen* primjer* promijen* promjen* "
    "rijek* riječ* riješ* rješ* slijed* sljede* smjen* svijest* svijet* svjetsk* uspje* uvijek uvjer* "
    "vijek* vjer* vrijeme* zahtjev* zamijen* zamjen* čovjek* živjel*"
)
_CROATIAN = (
    "europ* glazb* glede gospodarst* izravn* izvješć* kazališ* kolodvor* kolovoz* lipnja listopad* "
    "ljekarn* milijun* nazoč* netko nitko obitelj* odvjetni* općenito osobit* ožujk* poduzeć* "
    "premijer* priopć* promidžb* prosinc* redatelj* rujna siječnj* skladatelj* srpnj* stude* sukladno "
    "suradnj* surađ* sustav* svatko svezi svibnj* tijekom tisuć* tjed* tko točk* točn* travnj* "
    "tvornic* tvrtk* udrug* unatoč utemelj* uvjet* veljač* vlak* znanost* znanstv* zrakoplov* "
    "čimbeni* športsk* županij*"
)
_EASTERN = (
    "advokat* april* augusta avgusta decemb* dešav* drugačij* ekonomij* evrop* fabri* februar* firma "
    "firme hiljad* istorij* izvještaj* januar* jula juna ko ličnost* marta muzi* naročito nauci nauka "
    "nauke naučni* neko niko novemb* odbran* oktob* opšt* organizova* porodi* pozorišt* preduzeć* "
    "prečnik* proizvođ* reditelj* saobraća* saopć* saopšt* saradn* sarađ* sedmic* septemb* sistem* "
    "sprat* svako takođe tačk* tačn* tokom udruženj* uslov* uticaj* učestv* vazduh* vijek* šta"
)
_BOSNIAN = (
    "bosanac* bosansk* bosna bosne bosni bosnu hercegov* historij* hljeb* kahv* lahko mehk* sarajev* također"
)
CLOSE = (
    {
        "id": (
            "agustus bahwa berbeda* bisa butuh gratis jadwal juli jumat juni kamis kantor* karena "
            "kota lewat maret melakukan mobil musik* pemerintah* perusahaan* polisi presiden provinsi "
            "rusak* saat senin situs tapi tim uang universitas yaitu"
        ),
        "ms": (
            "bahawa berbanding berbeza* beza bilik dijalankan ekoran ertinya hendaklah iaitu ialah "
            "isnin julai jumaat jun kerajaan kerana khamis maklumat* manakala negeri ogos pelbagai "
            "perkhidmatan* polis sahaja sebarang syarikat* universiti wang"
        ),
    },
    {
        "no": (
            "bare ble de dem dere en etter fra få gi gir gjør gjøre hun hva hvem hvis hvor hvordan "
            "hvorfor ikke jeg kommer meg mer mye noe noen nå også se selv sier uten være vært"
        ),
        "nn": (
            "berre blei dei deira desse dykk eg ein eit eitt fleire frå gje gjer gjev ho ikkje kjem "
            "kor kva kvar kvarandre kvifor me meir mykje no noko nokon nokre seier seinare sidan sjå "
            "sjølv utan vart vera vere vert vore òg"
        ),
    },
    {
        "bs": f"{_IJEKAVIAN} {_EASTERN} {_BOSNIAN}",
        "hr": f"{_IJEKAVIAN} {_CROATIAN} također",
        "sr": f"{_EKAVIAN} {_EASTERN}",
        "sh": "",
    },
)
