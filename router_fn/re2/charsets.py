"""Character classes as bit sets over the 256 characters that a header name could hold.

Bit n stands for the character of code n. Only ASCII can occur in a valid header name; the upper
half is kept so that negated classes and `.` take it, as they would take any other rune.
"""

from typing import Final

CharSet = int

EVERY: Final[CharSet] = (1 << 256) - 1
NEWLINE: Final[CharSet] = 1 << 0x0A


def of_range(low: int, high: int) -> CharSet:
    """Codes low to high, both included; what is beyond 255 is left out."""
    high = min(high, 255)
    return ((1 << (high - low + 1)) - 1) << low if low <= high else 0


def of_text(text: str) -> CharSet:
    result = 0
    for char in text:
        result |= of_range(ord(char), ord(char))
    return result


def negated(chars: CharSet) -> CharSet:
    return EVERY & ~chars


_UPPER: Final = of_range(0x41, 0x5A)
_LOWER: Final = of_range(0x61, 0x7A)
_DIGIT: Final = of_range(0x30, 0x39)
_ALPHA: Final = _UPPER | _LOWER
WORD: Final = _ALPHA | _DIGIT | of_text("_")
_SPACE: Final = of_text("\t\n\f\r ")

PERL: Final[dict[str, CharSet]] = {"d": _DIGIT, "s": _SPACE, "w": WORD}

POSIX: Final[dict[str, CharSet]] = {
    "alnum": _ALPHA | _DIGIT,
    "alpha": _ALPHA,
    "ascii": of_range(0, 0x7F),
    "blank": of_text("\t "),
    "cntrl": of_range(0, 0x1F) | of_text("\x7f"),
    "digit": _DIGIT,
    "graph": of_range(0x21, 0x7E),
    "lower": _LOWER,
    "print": of_range(0x20, 0x7E),
    "punct": of_range(0x21, 0x7E) & ~(_ALPHA | _DIGIT),
    "space": _SPACE | of_text("\v"),
    "upper": _UPPER,
    "word": WORD,
    "xdigit": _DIGIT | of_range(0x41, 0x46) | of_range(0x61, 0x66),
}


def folded(chars: CharSet) -> CharSet:
    """With the other case of every ASCII letter."""
    return chars | ((chars & _UPPER) << 32) | ((chars & _LOWER) >> 32)


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


_CATEGORIES: Final = _names(
    "C Cc Cf Co Cs L Ll Lm Lo Lt Lu M Mc Me Mn N Nd Nl No P Pc Pd Pe Pf Pi Po Ps S Sc Sk Sm So "
    "Z Zl Zp Zs"
)
# Scripts of Unicode 15, which recent Go releases know by these names.
_SCRIPTS: Final = _names(
    """Adlam Ahom Anatolian_Hieroglyphs Arabic Armenian Avestan Balinese Bamum Bassa_Vah Batak
    Bengali Bhaiksuki Bopomofo Brahmi Braille Buginese Buhid Canadian_Aboriginal Carian
    Caucasian_Albanian Chakma Cham Cherokee Chorasmian Common Coptic Cuneiform Cypriot Cypro_Minoan
    Cyrillic Deseret Devanagari Dives_Akuru Dogra Duployan Egyptian_Hieroglyphs Elbasan Elymaic
    Ethiopic Georgian Glagolitic Gothic Grantha Greek Gujarati Gunjala_Gondi Gurmukhi Han Hangul
    Hanifi_Rohingya Hanunoo Hatran Hebrew Hiragana Imperial_Aramaic Inherited Inscriptional_Pahlavi
    Inscriptional_Parthian Javanese Kaithi Kannada Katakana Kawi Kayah_Li Kharoshthi
    Khitan_Small_Script Khmer Khojki Khudawadi Lao Latin Lepcha Limbu Linear_A Linear_B Lisu Lycian
    Lydian Mahajani Makasar Malayalam Mandaic Manichaean Marchen Masaram_Gondi Medefaidrin
    Meetei_Mayek Mende_Kikakui Meroitic_Cursive Meroitic_Hieroglyphs Miao Modi Mongolian Mro Multani
    Myanmar Nabataean Nag_Mundari Nandinagari New_Tai_Lue Newa Nko Nushu Nyiakeng_Puachue_Hmong
    Ogham Ol_Chiki Old_Hungarian Old_Italic Old_North_Arabian Old_Permic Old_Persian Old_Sogdian
    Old_South_Arabian Old_Turkic Old_Uyghur Oriya Osage Osmanya Pahawh_Hmong Palmyrene Pau_Cin_Hau
    Phags_Pa Phoenician Psalter_Pahlavi Rejang Runic Samaritan Saurashtra Sharada Shavian Siddham
    SignWriting Sinhala Sogdian Sora_Sompeng Soyombo Sundanese Syloti_Nagri Syriac Tagalog Tagbanwa
    Tai_Le Tai_Tham Tai_Viet Takri Tamil Tangsa Tangut Telugu Thaana Thai Tibetan Tifinagh Tirhuta
    Toto Ugaritic Vai Vithkuqi Wancho Warang_Citi Yezidi Yi Zanabazar_Square"""
)


def of_unicode(name: str) -> CharSet | None:
    """A Unicode general category or script by name, None if there is no such class."""
    import unicodedata  # a megabyte of tables that hardly any pattern needs

    if name == "Any":
        return EVERY
    if name in _CATEGORIES:
        return of_text(
            "".join(chr(n) for n in range(256) if unicodedata.category(chr(n)).startswith(name))
        )
    if name in ("Latin", "Common"):
        latin = of_text("".join(chr(n) for n in range(256) if chr(n).isalpha() and n != 0xB5))
        return latin if name == "Latin" else negated(latin)
    return 0 if name in _SCRIPTS else None
