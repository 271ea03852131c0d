"""Licences that pages name for themselves."""

import pytest

from puna.corpus import licences
from puna.corpus.readers.web.page import read_page
from puna.corpus.readers.web.rights import _zone, licence

CC = "https://creativecommons.org/licenses"
WORK = "<p>This work is licensed under a"
LD = '<script type="application/ld+json">'
CAPTION = f"<figcaption><a rel=license href='{CC}/by/2.0/'>CC</a></figcaption>"
PROSE = "<p>" + "The ferry left the pier at seven, and nobody saw it go. " * 20 + "</p>"


@pytest.mark.parametrize(
    ("source", "spdx"),
    [
        (f'<link rel="license" href="{CC}/by/4.0/">{PROSE}', "CC-BY-4.0"),
        (f"{PROSE}<div><a href='{CC}/by-sa/3.0/deed.de' rel='license nofollow'>CC</a></div>", "CC-BY-SA-3.0"),
        (f"{PROSE}<a rel=license href=//creativecommons.org/publicdomain/zero/1.0/>CC0</a>", "CC0-1.0"),
        (f"{PROSE}<footer>Text: <a href='{CC}/by-nc-nd/2.5/'>licence</a></footer>", "CC-BY-NC-ND-2.5"),
        (f"{PROSE}<div id=copyright><a href='{CC}/by/3.0/us/'>CC BY</a></div>", "CC-BY-3.0-US"),
        (f"{PROSE}{WORK} <a href='{CC}/by-nc-sa/4.0/'>CC licence</a>.", "CC-BY-NC-SA-4.0"),
        (f"{PROSE}<p>Alle Inhalte stehen unter der Lizenz <a href='{CC}/by/3.0/de/'>CC</a>.", "CC-BY-3.0-DE"),
        (f'<meta name="dcterms.rights" content="{CC}/by/4.0/">{PROSE}', "CC-BY-4.0"),
        (f'<meta property="og:license" content="CC BY-SA 4.0">{PROSE}', "CC-BY-SA-4.0"),
        (f'{LD}{{"@type": "Article", "license": "{CC}/by/4.0/"}}</script>{PROSE}', "CC-BY-4.0"),
        (f'{LD}{{"@graph": [{{"@type": "WebPage", "license": {{"@id": "{CC}/by/4.0/"}}}}]}}'
         f"</script>{PROSE}", "CC-BY-4.0"),
        (f"{PROSE}<footer><a href='{CC}/by-sa/4.0/'>a</a> <a href='https://www.gnu.org/licenses/fdl-1.3.html'>b</a>"
         "</footer>", "CC-BY-SA-4.0 AND GFDL-1.3-only"),
        # Those of something on the page
        (f"{PROSE}<figure><img src=a.jpg>{CAPTION}</figure>", ""),
        (f"{PROSE}<div class=wp-caption><a href='{CC}/by/2.0/' rel=license>CC BY</a></div>", ""),
        (f"{PROSE}<p>Photo: A. Person, <a href='{CC}/by/2.0/'>CC BY</a></p>", ""),
        (f"{PROSE}<footer>Photo by A. Person, <a href='{CC}/by/2.0/'>CC BY</a></footer>", ""),
        (f"{PROSE}<p>Read <a href='{CC}/by/2.0/'>this licence</a>.</p>", ""),
        (f'{LD}{{"@type": "ImageObject", "license": "{CC}/by/4.0/"}}</script>{PROSE}', ""),
        (f"{PROSE}<ol class=comments><li class=comment><a rel=license href='{CC}/by/2.0/'>x</a></ol>", ""),
        (f"<link rel=license href=/imprint>{PROSE}", ""),
        (PROSE, ""),
    ],
)  # fmt: skip
def test_the_licence_of_a_page(source: str, spdx: str) -> None:
    assert licence(source) == spdx
    assert read_page(f"<html><body>{source}".encode()).licence == spdx  # also by the splitter's eye


@pytest.mark.parametrize(
    ("attributes", "zone"),
    [
        (" class=Wp-Caption", "item"),
        (" id='site info'", ""),
        (" id=siteInfo", "foot"),
        (" class='&#102;oot'", "foot"),
        (" style='x' title=footer", ""),
        (" data-id=1 title=footer class=a", ""),
        (" CLASS=footer", ""),  # as in all documents so far
    ],
)
def test_zones(attributes: str, zone: str) -> None:
    assert _zone("div", attributes) == zone


@pytest.mark.parametrize(
    ("url", "spdx"),
    [
        ("http://creativecommons.org/licenses/by-sa/2.0/de/", "CC-BY-SA-2.0"),
        ("https://creativecommons.org/licenses/by-nd-nc/1.0/", "CC-BY-NC-ND-1.0"),
        ("https://creativecommons.org/licenses/by/3.0/igo/legalcode", "CC-BY-3.0-IGO"),
        ("https://web.archive.org/web/2014im_/http://creativecommons.org/licenses/by/3.0/", "CC-BY-3.0"),
        ("https://creativecommons.org/licenses/by-nc/", "LicenseRef-CC-BY-NC"),
        ("https://creativecommons.org/publicdomain/mark/1.0/", "CC-PDM-1.0"),
        ("https://opensource.org/licenses/MIT", "MIT"),
        ("https://www.apache.org/licenses/LICENSE-2.0", "Apache-2.0"),
        ("https://creativecommons.org/about/", ""),
        ("https://example.org/licenses/by/4.0/", ""),
    ],
)
def test_addresses_of_licences(url: str, spdx: str) -> None:
    assert licences.of_address(url) == spdx


def test_notices() -> None:
    assert licences.of_notice("CC-BY-NC-SA 3.0 by the authors") == "CC-BY-NC-SA-3.0"
    text = "Creative Commons Attribution-NonCommercial-NoDerivatives 4.0 International"
    assert licences.of_notice(text) == "CC-BY-NC-ND-4.0"
    assert licences.of_notice("© 2020 The Ferry Company") == ""
