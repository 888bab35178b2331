# SPDX-License-Identifier: Apache-2.0
"""Text as the eye takes it: look-alike characters folded to ASCII, invisible ones dropped."""

import unicodedata

OPENING_BRACKETS = "<\u02c2\u1438\u2039\u227a\u2329\u276c\u276e\u27e8\u29fc\u3008\ufe64\uff1c"
CLOSING_BRACKETS = ">\u02c3\u1433\u203a\u227b\u232a\u276d\u276f\u27e9\u29fd\u3009\ufe65\uff1e"
_SLASHES = "\\\u2044\u2215\u2571\u27cb\u29f8\u29f5"  # a backslash is a slash that a model got wrong

# Letters of other scripts that are drawn like Latin ones. Full-width, mathematical and accented letters need no
# entry: their compatibility decomposition is Latin.
_ALPHABETS = {
    "АВЕКМНОРСТУХІЅЈ": "abekmhopctyxisj",  # Cyrillic capitals, then small letters
    "авеһнкмопрстухіѕјԁԛԝѵгӏ": "abehhkmonpctyxisjdqwvrl",
    "ΑΒΕΖΗΙΚΜΝΟΡΤΥΧ": "abezhikmnoptyx",  # Greek capitals, then small letters
    "αεηικνορτυχωϲ": "aenikvoptuxwc",
    "ᴀʙᴄᴅᴇꜰɢʜɪᴊᴋʟᴍɴᴏᴘʀꜱᴛᴜᴠᴡʏᴢ": "abcdefghijklmnoprstuvwyz",  # small capitals
    "ɑɡıհոօս": "agihnou",  # Latin variants, Armenian
}
# Letters and symbols by category, blanks by looks: Hangul fillers and the empty Braille cell.
_BLANK_LETTERS = "\u115f\u1160\u3164\uffa0\u2800"


class _Folding(dict[int, str]):
    """Table for `str.translate`, filled as characters are met."""

    def __missing__(self, code: int) -> str:
        parts = unicodedata.normalize("NFKD", chr(code))
        self[code] = "".join(self.get(ord(part), part.lower()) for part in parts if not _is_ignorable(part))
        return self[code]


def _is_ignorable(character: str) -> bool:
    """Combining marks, and format and control characters that are no white space."""
    return unicodedata.category(character) in ("Mn", "Me", "Cf", "Cc") and not character.isspace()


_FOLDING = _Folding(
    {ord(drawn): latin for looks, plain in _ALPHABETS.items() for drawn, latin in zip(looks, plain, strict=True)}
    | {ord(bracket): "<" for bracket in OPENING_BRACKETS}
    | {ord(bracket): ">" for bracket in CLOSING_BRACKETS}
    | {ord(slash): "/" for slash in _SLASHES}
)


def fold(text: str) -> str:
    """
    `text` in lower case with look-alikes of ASCII letters, brackets and slashes replaced and what is invisible gone.

    >>> fold("＜/Аn\u200bswеr＞")
    '</answer>'
    """
    return text.translate(_FOLDING)


def is_blank(text: str) -> bool:
    """
    Whether nothing in `text` can be seen: `str.strip()` keeps zero-width characters, fillers and lone marks.

    >>> is_blank(" \u200b\u3164\ufe0f"), is_blank(" .")
    (True, False)
    """
    return not any(unicodedata.category(c)[0] in "LNPS" and c not in _BLANK_LETTERS for c in text)
