"""What the first bytes of a packet say: whether it shows a picture, and whether decoding can start.

Containers and demuxers do not say it: VP8 and VP9 store pictures that are never shown, MPEG-4 packs
two pictures into a packet and none into another one, and a recovery point of H.264 (intra refresh)
is marked as a key frame although its picture needs others.
"""

import re
from collections.abc import Iterator

INTRA_SLICES = (2, 4, 7, 9)  # slice types I and SI of H.264
H264_SLICES, H264_IDR = (1, 2), 5  # NAL unit types
HEVC_RANDOM_ACCESS = range(16, 22)  # BLA, IDR and CRA pictures
MPEG4_PICTURE, MPEG4_EMPTY = b"\0\0\1\xb6", 8  # start code; bytes that cannot hold a picture


def pictures_shown(codec: str, data: memoryview) -> int:
    """Return how many pictures a packet shows: 0, 1, or more in MPEG-4 of AVI files.

    VP8 and VP9 store pictures that only help to decode others. MPEG-4 may say in a few bytes that
    the picture before lasts on, and AVI may pack two pictures and then such bytes.
    """
    if codec == "vp8":
        return data[0] >> 4 & 1
    if codec == "vp9":
        return any(map(_vp9_is_shown, _vp9_frames(data)))
    if codec == "mpeg4":
        return 0 if len(data) <= MPEG4_EMPTY else max(1, bytes(data).count(MPEG4_PICTURE))
    return 1


def can_start(codec: str, data: memoryview, extradata: bytes | None) -> bool:
    """Return True if a packet that is marked as a key frame can be decoded without earlier ones.

    In H.264 all slices must be intra-coded, in HEVC the picture must be a random access point.
    `extradata` is the header of the stream, which says how units are separated.
    """
    if codec not in ("h264", "hevc"):
        return True
    for unit in _units(codec, data, extradata or b""):
        if codec == "hevc":
            if (kind := unit[0] >> 1 & 63) < 32:  # a slice
                return kind in HEVC_RANDOM_ACCESS
        elif (kind := unit[0] & 31) == H264_IDR:
            return True
        elif kind in H264_SLICES and _slice_type(bytes(unit[1:9])) not in INTRA_SLICES:
            return False
    return True


def _units(codec: str, data: memoryview, extradata: bytes) -> Iterator[memoryview]:
    """Yield the NAL units of a packet without what separates them."""
    if extradata[:1] != b"\x01":  # start codes, as in MPEG-TS
        for code in re.finditer(b"\0\0\1(?=.)", data, re.DOTALL):
            yield data[code.end() :]
        return
    place = 4 if codec == "h264" else 21
    size, start = (extradata[place] & 3) + 1 if len(extradata) > place else 4, 0
    while start + size < len(data):
        length = int.from_bytes(data[start : start + size], "big")
        if not length:
            return
        yield data[start + size : start + size + length]
        start += size + length


def _slice_type(header: bytes) -> int:
    """Read the second of the two Exp-Golomb numbers at the start of a slice's header."""
    bits = "".join(f"{byte:08b}" for byte in header.replace(b"\0\0\3", b"\0\0"))
    value = -1
    for _ in range(2):
        zeros = len(bits) - len(bits.lstrip("0"))
        value = int(bits[zeros : 2 * zeros + 1] or "0", 2) - 1
        bits = bits[2 * zeros + 1 :]
    return value


def _vp9_frames(data: memoryview) -> Iterator[memoryview]:
    """Yield the frames of a packet; several are listed in an index at its end."""
    mark = data[-1]
    count, size = (mark & 7) + 1, (mark >> 3 & 3) + 1
    index = 2 + count * size
    if mark & 0xE0 != 0xC0 or len(data) < index or data[-index] != mark:
        yield data
        return
    start = 0
    for number in range(count):
        place = len(data) - index + 1 + number * size
        length = int.from_bytes(data[place : place + size], "little")
        if length:
            yield data[start : start + length]
        start += length


def _vp9_is_shown(frame: memoryview) -> bool:
    """Read show_existing_frame and show_frame of VP9's uncompressed header."""
    bits = f"{frame[0]:08b}"[2:] + (f"{frame[1]:08b}" if len(frame) > 1 else "00000000")
    bits = bits[3 if bits[:2] == "11" else 2 :]  # behind the profile
    return bits[0] == "1" or bits[2] == "1"
