"""Local names in the 20 Wikipedias of the paper: namespaces, magic words, sections, disambiguation pages.

Names are in lower case. The namespaces and magic words are those of the wikis' own MediaWiki settings, with
aliases.
"""

import re


def names(listed: str) -> frozenset[str]:
    """Split names at commas, with white space collapsed."""
    return frozenset(name for field in listed.split(",") if (name := " ".join(field.split())))


# Links into these show an image, a sound or nothing at all: files, then categories.
DROPPED_NAMESPACES = names("""
file, image, media, файл, картинка, медия, fitxer, imatge, soubor, obrázok, média, fil, billede, datei, bild,
medium, archivo, imagen, medio, fichier, datoteka, slika, dt, mediji, fájl, kép, immagine, bestand,
afbeelding, plik, grafika, ficheiro, arquivo, imagem, multimédia, fișier, fişier, imagine, изображение, медиа,
fotografija, датотека, слика, фотографија, medij, medija, медиј, медија, зображення, медіа,
category, категория, categoria, kategorie, kategori, categoría, cat, catégorie, kategorija, ct, kt, kategória,
categorie, kategoria, к, категорија, категорія,
""")
PAGE_NAMES = names("""
pagename, fullpagename, basepagename, subpagename, rootpagename, страница, nompàgina, nompagina, nomdelaplana,
názevstrany, seitenname, nombredepagina, nombredepágina, nompage, imestranice, oldalneve, titolopagina,
paginanaam, nazwastrony, nomedapagina, nomedapágina, numepagina, название страницы, назив странице,
називстранице, иместранице, stranica, nazivstranice, sidnamn, назва сторінки,
""")
FORMAT_NUMBER = names("""
formatnum, formatnombre, formátujčíslo, zahlenformat, formatonúmero, formatonumero, oblikbroja, formázottszám,
számformázás, számform, formatteernum, numformatteren, formatnr, форматировать число, formateranum,
formateratal, форматувати число,
""")
# Group and decimal separators of numbers, and the languages that do not group a number of four digits.
SEPARATORS = {
    **dict.fromkeys(("ca", "da", "de", "hr", "it", "nl", "pt", "ro", "sl", "sr"), (".", ",")),
    **dict.fromkeys(("bg", "cs", "es", "fr", "hu", "pl", "ru", "sv", "uk"), (" ", ",")),
    "en": (",", "."),
}
UNGROUPED_THOUSANDS = frozenset({"bg", "es", "pl", "pt"})

# Sections of sources and links, which are dropped where they are nothing but lists.
LINK_SECTIONS = names("""
see also, external links, external link, references, notes, footnotes, citations, sources, bibliography,
further reading, works cited, notes and references, references and notes, notes and citations,
explanatory notes, cited sources, general references, cited works, general and cited references,
references and sources, sources and references, external sources, related articles,
siehe auch, weblinks, weblink, einzelnachweise, einzelnachweis, literatur, quellen, anmerkungen, fußnoten,
literatur und quellen, einzelnachweise und anmerkungen, anmerkungen und einzelnachweise, nachweise, belege,
referenzen, quellen und literatur,
voir aussi, liens externes, lien externe, références, référence, notes et références, bibliographie,
articles connexes, article connexe, annexes, notes, liens internes, sources,
véase también, enlaces externos, referencias, bibliografía, notas, notas y referencias, referencias y notas,
fuentes, bibliografía adicional, lecturas adicionales, lectura adicional, enlaces,
voci correlate, collegamenti esterni, note, bibliografia, altri progetti, fonti,
ver também, ligações externas, referências, notas, leitura adicional, links externos, notas e referências,
fontes, referências e notas, notas de rodapé,
zie ook, externe links, externe link, bronnen, noten, referenties, literatuur, voetnoten,
literatuurverwijzingen, verder lezen, referenties en noten, externe verwijzingen,
zobacz też, linki zewnętrzne, przypisy, uwagi, literatura,
см. также, ссылки, примечания, литература, источники, сноски, библиография, комментарии,
див. також, посилання, примітки, література, джерела, виноски, бібліографія,
se även, se också, externa länkar, referenser, noter, källor, litteratur, vidare läsning, källförteckning,
fotnoter, tryckta källor, webbkällor,
se også, eksterne henvisninger, kilder, referencer, henvisninger, fodnoter, eksterne links,
eksterne kilder/henvisninger, eksterne kilder, noter og referencer, kilder og henvisninger,
související články, externí odkazy, reference, odkazy, poznámky, související, zdroje,
glej tudi, zunanje povezave, sklici, viri, opombe, sklici in opombe, opombe in sklici,
vidi još, vanjske poveznice, izvori, bilješke, poveznice, napomene, vanjske veze, spoljašnje veze,
također pogledajte,
види још, референце, спољашње везе, напомене, извори, белешке, погледајте још,
вижте също, виж също, външни препратки, източници, бележки, бележки и източници, източници и бележки,
цитирана литература, бележки под линия, препратки,
jegyzetek, források, további információk, kapcsolódó szócikkek, külső hivatkozások, lásd még, irodalom,
hivatkozások, megjegyzések, ajánlott irodalom, kapcsolódó lapok, további irodalom,
referințe, legături externe, vezi și, bibliografie, lectură suplimentară, surse, note și referințe,
note de subsol,
vegeu també, enllaços externs, referències, notes i referències, fonts, bibliografia complementària,
bibliografia addicional,
""") | {"bronnen, noten en/of referenties", "bronnen, noten en referenties"}

DISAMBIGUATION_TEMPLATES = names("""
disambiguation, disambig, disamb, dab, hndis, human name disambiguation, geodis, place name disambiguation,
mathdab, numberdis, roaddis, schooldis, letter-numbercombdisambig, letter-number combination disambiguation,
airport disambiguation, callsigndis, mil-unit-dis, disambig-cleanup, disambiguation cleanup,
disambiguation page, begriffsklärung, homonymie, homonymes, toponymie, desambiguación, desambiguacion,
desambig, disambigua, desambiguação, desambiguacao, dp, doorverwijspagina, ujednoznacznienie, неоднозначность,
неоднозначність, багатозначність, багатозначні терміни, gren, förgrening, grensida, robotskapad förgrening,
flertydig, rozcestník, razločitev, razdvojba, razvrstavanje, вишезначна одредница, вишезначност,
višeznačna odrednica, пояснение, пояснителна, egyért, egyértelműsítő, egyértelműsítő lap, egyert,
dezambiguizare, desambiguació, desambigua,
""")
_DISAMBIGUATION_NAMES = "|".join(map(re.escape, sorted(DISAMBIGUATION_TEMPLATES)))
DISAMBIGUATION = re.compile(
    rf"\{{\{{[ \t\n_]*(?:{_DISAMBIGUATION_NAMES})[ \t\n]*(?:\||\}}\}})|__DISAMBIG__", re.IGNORECASE
)
