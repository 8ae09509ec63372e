"""Words and habits of the languages that `normalise` needs to write numbers, money and dates out."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final


@dataclass(frozen=True, slots=True)
class Locale:
    """Words and habits of one language."""

    months: tuple[str, ...]
    money: dict[str, tuple[str, str, str, str]]
    "Sign → one, many, one hundredth, many hundredths."
    also: str
    between_date_parts: str = " "
    decimal_comma: bool = True
    month_first: bool = False
    abbreviations: dict[str, str] = field(default_factory=dict[str, str])
    to: str = ", "
    "Said between the ends of a range of numbers."


_ABBREVIATIONS: Final = {
    "approx.": "approximately", "apt.": "apartment", "ave.": "avenue", "blvd.": "boulevard",
    "capt.": "captain", "dept.": "department", "dr.": "doctor", "e.g.": "for example",
    "esp.": "especially", "est.": "established", "etc.": "et cetera", "fig.": "figure",
    "gen.": "general", "gov.": "governor", "hon.": "honourable", "i.e.": "that is",
    "inc.": "incorporated", "jr.": "junior", "lt.": "lieutenant", "ltd.": "limited",
    "messrs.": "messieurs", "mr.": "mister", "mrs.": "missus", "ms.": "miz", "mt.": "mount",
    "no.": "number", "prof.": "professor", "rev.": "reverend", "sen.": "senator", "sgt.": "sergeant",
    "sr.": "senior", "st.": "saint", "vol.": "volume", "vs.": "versus", "w/": "with", "w/o": "without",
}  # fmt: skip
_EN_MONTHS: Final = (
    "January", "February", "March", "April", "May", "June",
    "July", "August", "September", "October", "November", "December",
)  # fmt: skip
_EN_MONEY: Final = {
    "$": ("dollar", "dollars", "cent", "cents"),
    "€": ("euro", "euros", "cent", "cents"),
    "£": ("pound", "pounds", "penny", "pence"),
    "¥": ("yen", "yen", "sen", "sen"),
    "₹": ("rupee", "rupees", "paisa", "paise"),
}
_US: Final = Locale(
    _EN_MONTHS,
    _EN_MONEY,
    "and",
    decimal_comma=False,
    month_first=True,
    abbreviations=_ABBREVIATIONS,
    to=" to ",
)
GB: Final = Locale(_EN_MONTHS, _EN_MONEY, "and", decimal_comma=False, abbreviations=_ABBREVIATIONS, to=" to ")
LOCALES: Final[dict[str, Locale]] = {
    "en-us": _US,
    "en-gb": GB,
    "es": Locale(
        ("enero", "febrero", "marzo", "abril", "mayo", "junio", "julio", "agosto", "septiembre", "octubre",
         "noviembre", "diciembre"),
        {"$": ("dólar", "dólares", "centavo", "centavos"), "€": ("euro", "euros", "céntimo", "céntimos"),
         "£": ("libra", "libras", "penique", "peniques")},
        "con", " de ", to=" a ",
        abbreviations={"sr.": "señor", "sra.": "señora", "srta.": "señorita", "dr.": "doctor",
                       "dra.": "doctora",
                       "ud.": "usted", "uds.": "ustedes", "etc.": "etcétera", "p. ej.": "por ejemplo",
                       "núm.": "número"},
    ),
    "fr": Locale(
        ("janvier", "février", "mars", "avril", "mai", "juin", "juillet", "août", "septembre", "octobre",
         "novembre", "décembre"),
        {"$": ("dollar", "dollars", "cent", "cents"), "€": ("euro", "euros", "centime", "centimes"),
         "£": ("livre", "livres", "penny", "pence")},
        "et", to=" à ",
        abbreviations={"m.": "monsieur", "mm.": "messieurs", "mme": "madame", "mlle": "mademoiselle",
                       "dr": "docteur", "p. ex.": "par exemple", "etc.": "et cetera", "n°": "numéro"},
    ),
    "it": Locale(
        ("gennaio", "febbraio", "marzo", "aprile", "maggio", "giugno", "luglio", "agosto", "settembre",
         "ottobre", "novembre", "dicembre"),
        {"$": ("dollaro", "dollari", "centesimo", "centesimi"),
         "€": ("euro", "euro", "centesimo", "centesimi"),
         "£": ("sterlina", "sterline", "penny", "pence")},
        "e", to=" a ",
        abbreviations={"sig.": "signor", "sig.ra": "signora", "dott.": "dottor", "dott.ssa": "dottoressa",
                       "prof.": "professor", "ecc.": "eccetera", "es.": "esempio"},
    ),
    "pt-br": Locale(
        ("janeiro", "fevereiro", "março", "abril", "maio", "junho", "julho", "agosto", "setembro", "outubro",
         "novembro", "dezembro"),
        {"R$": ("real", "reais", "centavo", "centavos"), "$": ("dólar", "dólares", "centavo", "centavos"),
         "€": ("euro", "euros", "cêntimo", "cêntimos"), "£": ("libra", "libras", "pêni", "pence")},
        "e", " de ", to=" a ",
        abbreviations={"sr.": "senhor", "sra.": "senhora", "dr.": "doutor", "dra.": "doutora",
                       "prof.": "professor",                       "etc.": "et cétera"},
    ),
    "hi": Locale(
        ("जनवरी", "फ़रवरी", "मार्च", "अप्रैल", "मई", "जून", "जुलाई", "अगस्त", "सितंबर", "अक्टूबर", "नवंबर", "दिसंबर"),
        {"₹": ("रुपया", "रुपये", "पैसा", "पैसे"), "$": ("डॉलर", "डॉलर", "सेंट", "सेंट"),
         "€": ("यूरो", "यूरो", "सेंट", "सेंट"), "£": ("पाउंड", "पाउंड", "पेंस", "पेंस")},
        "", decimal_comma=False, to=" से ",
        abbreviations={"डॉ.": "डॉक्टर", "श्री.": "श्री"},
    ),
}  # fmt: skip
