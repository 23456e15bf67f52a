"""The encodings of an array member, one class each.

A new encoding is a class here and a name in `Encoding`.
"""

from __future__ import annotations

from ctrate_convert.formats.codecs.b2nd import B2nd
from ctrate_convert.formats.codecs.codec import Codec
from ctrate_convert.formats.codecs.npy import Npy
from ctrate_convert.formats.codecs.npy_gz import NpyGz
from ctrate_convert.store.records.plan import Encoding

CODECS: dict[Encoding, Codec] = {"npy": Npy(), "npy.gz": NpyGz(), "b2nd": B2nd()}
