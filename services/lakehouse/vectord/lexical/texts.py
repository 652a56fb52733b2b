"""Texts as they are taken apart into words.

A word is a run of letters and digits, in lower case and without accents; there is no stemming and
no word is passed over. A letter of a script that puts nothing between words is a word of its own.
Words of more than 255 bytes are left out.
"""

from __future__ import annotations

from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

__all__ = ["WORD_BYTES_MAX", "prepared"]

WORD_BYTES_MAX: Final = 255
_ALONE: Final = r"([\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}])"


def prepared(texts: pa.Array) -> pa.Array:
    """One spelling of what looks the same (NFKC), and spaces around what is a word by itself."""
    if pc.all(pc.string_is_ascii(texts)).as_py() is not False:
        return texts
    whole = pc.utf8_normalize(texts, "NFKC")
    # In lower case it is an i and a mark, and the mark would end the word.
    whole = pc.replace_substring(whole, "\u0130", "I")
    return pc.replace_substring_regex(whole, _ALONE, r" \1 ")
