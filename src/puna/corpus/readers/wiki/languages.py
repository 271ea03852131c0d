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
eksterne lenker, eksterne lenkjer, referansar, referanser, litteratur, kjelder, sjå også, fotnoter, noter,
aiheesta muualla, lähteet, viitteet, katso myös, kirjallisuutta, kirjallisuus, linkkejä, ulkoiset linkit,
välislingid, viited, vaata ka, kirjandus, allikad, välisviited,
ārējās saites, atsauces, skatīt arī, literatūra, nuorodos, šaltiniai, taip pat skaitykite, išnašos,
tenglar, heimildir, tilvísanir, tengt efni, keldur, slóðir,
eksterne skakels, verwysings, sien ook, bronne, notas, verdere leeswerk,
kanpo estekak, erreferentziak, ikus, gainera, bibliografia, oharrak,
ligazóns externas, véxase tamén, outros artigos, ver tamén, bibliografía, notas,
enllaces esternos, referencies, ver tamién, vinclos externos, referencias, vinculos externes, referéncias,
dolenni allanol, cyfeiriadau, gweler hefyd, llyfryddiaeth, naisc sheachtracha, tagairtí, féach freisin,
ceanglaichean a-mach, iomraidhean,
lidhje të jashtme, referime, burime, shiko edhe, referimet, burimet,
надворешни врски, наводи, поврзано, белешки, видете исто така, извори, литература, користена литература,
vanjski linkovi, također pogledajte, također pogledati, literatura, spoljne veze, izvori i napomene,
спасылкі, зноскі, крыніцы, гл. таксама, глядзіце таксама, вонкавыя спасылкі, літаратура, заўвагі,
dış bağlantılar, kaynakça, kaynaklar, ayrıca bakınız, notlar, dipnotlar, bibliyografya,
konuyla ilgili yayınlar,
istinadlar, xarici keçidlər, həmçinin bax, mənbə, ədəbiyyat, i̇stinadlar, mənbələr,
havolalar, manbalar, adabiyotlar, yana qarang, дереккөздер, сілтемелер, тағы қараңыз, пайдаланылған әдебиет,
сыртқы сілтемелер, әдебиет, искәрмәләр, һылтанмалар, әҙәбиәт, чыганаклар, сылтамалар, шулай ук карагыз,
пайвандҳо, эзоҳ, манбаъҳо, нигаред низ,
εξωτερικοί σύνδεσμοι, παραπομπές, δείτε επίσης, πηγές, βιβλιογραφία, υποσημειώσεις, αναφορές, σημειώσεις,
გარე ბმულები, რესურსები ინტერნეტში, სქოლიო, იხილეთ აგრეთვე, ლიტერატურა, აგრეთვე იხილეთ, შენიშვნები,
ծանոթագրություններ, արտաքին հղումներ, տես նաև, գրականություն, աղբյուրներ,
קישורים חיצוניים, הערות שוליים, ראו גם, לקריאה נוספת, ביבליוגרפיה, מקורות,
وصلات خارجية, مراجع, المراجع, انظر أيضا, انظر أيضًا, طالع أيضًا, مصادر, المصادر, هوامش, روابط خارجية, ملاحظات,
پیوند به بیرون, پیوندهای بیرونی, منابع, جستارهای وابسته, پانویس, یادداشت‌ها, منبع, بیرونی حوالے, حوالہ جات,
بیرونی روابط, مزید دیکھیے, حوالے, مزید پڑھیں, دەرەکی بەستەر, سەرچاوەکان, بەستەرە دەرەکییەکان,
बाहरी कड़ियाँ, सन्दर्भ, संदर्भ, इन्हें भी देखें, टिप्पणी, बाह्य दुवे, हे सुद्धा पहा, बाह्य लिङ्कहरू,
सन्दर्भहरू,
यी पनि हेर्नुहोस्, बहिःसंयोजनानि, বহিঃসংযোগ, তথ্যসূত্র, আরও দেখুন, আরো দেখুন, পাদটীকা, গ্রন্থপঞ্জি,
ਬਾਹਰੀ ਕੜੀਆਂ, ਹਵਾਲੇ, ਬਾਹਰੀ ਲਿੰਕ, બાહ્ય કડીઓ, સંદર્ભ, આ પણ જુઓ, வெளி இணைப்புகள், மேற்கோள்கள், உசாத்துணை,
இவற்றையும் பார்க்க, வெளியிணைப்புகள், బయటి లింకులు, మూలాలు, ఇవి కూడా చూడండి, బాహ్య లంకెలు, ಬಾಹ್ಯ ಸಂಪರ್ಕಗಳು,
ಉಲ್ಲೇಖಗಳು, ഇതും കാണുക, അവലംബം, പുറത്തേക്കുള്ള കണ്ണികൾ, പുറം കണ്ണികൾ, අවලංගු සබැඳි, බාහිර සබැඳි, ආශ්‍රිත,
แหล่งข้อมูลอื่น, อ้างอิง, ดูเพิ่ม, เชิงอรรถ, บรรณานุกรม, ប្រភព, តំណភ្ជាប់ក្រៅ, ပြင်ပလင့်ခ်များ, ကိုးကား,
liên kết ngoài, tham khảo, chú thích, xem thêm, đọc thêm, ghi chú, thư mục,
pranala luar, referensi, lihat pula, catatan kaki, catatan, daftar pustaka, rujukan, pautan luar, lihat juga,
tautan luar, nota kaki, bacaan lanjut, mga kawing panlabas, mga sanggunian, tingnan din, panlabas na link,
viungo vya nje, marejeo, tazama pia, tanbihi, rohy ivelany, jereo koa, fanamarihana,
eksteraj ligiloj, referencoj, vidu ankaŭ, notoj, literaturo, fontoj, ekstera ligilo, nexus externi, fontes,
notae, vide etiam, bibliographia, liens ekstern,
外部链接, 外部連結, 外部鏈接, 外部連接, 参考文献, 參考文獻, 参考资料, 參考資料, 参见, 參見, 參看, 参看,
相关条目, 相關條目, 注释, 註釋,
注釋, 脚注, 腳註, 引用, 参考来源, 參考來源, 延伸阅读, 延伸閱讀, 来源, 資料來源, 資料来源, 扩展阅读, 備註,
外部リンク, 関連項目, 出典, 注釈, 脚注・出典, 注, 関連書籍, 参考書籍, 関連文献, 参照,
외부 링크, 바깥 고리, 각주, 같이 보기, 참고 문헌, 참고문헌, 출처, 주석, 참고 자료, 내용주, 외부링크,
гадны холбоос, эшлэл, ном зүй, мөн үзэх, лавлах бичиг,
""") | {"bronnen, noten en/of referenties", "bronnen, noten en referenties"}

# Words that a line which announces a table has, as beginnings or whole words.
TABLE_WORDS = names("""
tables? (?:below|above), following tables?, following lists?, in (?:the|this) table, table shows,
listed below,
as follows, are shown below, folgende[nr]? (?:tabelle|liste|übersicht), tabelle zeigt,
nachfolgend\\w* \\w*tabelle,
(?:tableau|liste) (?:ci-dessous|ci-contre|suivante?), le tableau, suivante?s? ?$,
(?:tabla|lista|cuadro) siguiente,
siguiente (?:tabla|lista|cuadro), la tabla, seguinte (?:tabela|lista),
(?:tabela|lista) (?:abaixo|a seguir|seguinte),
seguente (?:tabella|lista|elenco), tabella (?:seguente|sottostante), la tabella, onderstaande (?:tabel|lijst),
volgende (?:tabel|lijst), poniższ\\w+ (?:tabel|list)\\w+, następując\\w+ (?:tabel|list)\\w+, w tabeli,
следующ\\w+ таблиц\\w*, таблиц\\w+ ниже, в таблице, наступн\\w+ таблиц\\w*, у таблиці, следна\\w+ таблица,
таблицата, табели испод, следећ\\w+ табел\\w*, sljedeć\\w+ tablic\\w*, naslednj\\w+ tabel\\w*,
následujíc\\w+ tabul\\w*,
tabulce, tabuľke, alábbi táblázat, táblázatban, tabelul (?:următor|de mai jos), taula següent, la taula,
tabellen nedan, följande (?:tabell|lista), tabellen nedenfor, følgende (?:tabell?|liste),
seuraava\\w* taulu\\w*,
taulukossa, järgnev\\w* tabel\\w*, aşağıdaki (?:tablo|liste)\\w*, tabel berikut, tabel di bawah,
jadual (?:berikut|di bawah),
bảng (?:sau|dưới), 下表, 以下の表, 次の表, 如下表, 다음 표, 아래 표, الجدول التالي, جدول زیر,
निम्न तालिका, πίνακα, הטבלה הבאה,
""")

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
