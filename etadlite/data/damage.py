"""What is known to be wrong with a video file, in words.

tests/benchmarks/README.md says what no reader can know.
"""

from pathlib import Path
from typing import Protocol

import av
import numpy as np
from av.container import InputContainer
from av.format import Flags

EXACT = 0.01, 0.25  # share and seconds by which the length that a container announces may be off
TS_PACKETS = {188: 0, 192: 4, 204: 0}  # bytes of a packet of MPEG-TS: where its mark stands
TS_SYNC = 0x47
NEAR = 3  # packets, in the order of the file, between a picture and one that is shown beside it


class Read(Protocol):
    """What is known of the packets that were read; see `etadlite.data.packets.Packets`."""

    container: InputContainer
    stream: av.VideoStream
    tick: float
    rate: float
    start: float
    end: float
    restarts: int
    indexed: int
    marked: list[int]


def fault(packets: Read, held: int, times: np.ndarray, *, reported: bool, too_fast: bool) -> str:
    """Say what the packets of a file show; empty if they show nothing wrong.

    `held` are the frames that the file holds, `times` see `Timeline`. `reported` is true if FFmpeg
    reported errors of the container, `too_fast` if no camera takes so many frames per second.
    """
    name, said = packets.container.format.name, []
    if packets.container.format.flags & Flags.no_timestamps.value and name != "mpegvideo":
        assumed = f"{packets.rate:g} frames per second are assumed"
        said.append(f"it has no container and so no times ({assumed}); copy it into one")
    if too_fast:
        rate = held / (times[-1] - times[0])
        said.append(f"its rate of {rate:.0f} frames per second is beyond sense")
    if reported:
        said.append("its container is damaged, and frames may be missing")
    if packets.marked:
        damaged = f"{len(packets.marked)} packets are marked as damaged in its container"
        said.append(damaged + _may_be_joined(packets, times) * ", or recordings are joined there")
    if name == "avi" and packets.indexed > held:
        said.append(f"its index lists {packets.indexed} frames but it holds {held}")
    reorders = packets.stream.codec_context.has_b_frames
    if name == "avi" and reorders and np.diff(times[:-1]).max() * packets.rate > 1.5:
        # It stores when pictures are decoded; by how much later one is shown differs at a gap.
        said.append(
            "the pictures beside its gaps may be shown at other times, because AVI does not store "
            "when B frames are due; encode it as MP4"
        )
    if name == "mpegts" and _ends_within_a_packet(packets.container):
        said.append("its last packet is cut off, or bytes are missing")
    if missing := _announced(packets, held, times):
        said.append(f"the file announces {missing}; it may be cut off")
    return "; ".join(said)


def _may_be_joined(packets: Read, times: np.ndarray) -> bool:
    """Return True if the clock jumps at all packets that are marked as damaged.

    So it does where recordings are joined, and where whole pictures are lost: no reader can know.
    """
    jumps = np.flatnonzero(np.diff(times[:-1]) * packets.rate > 1.5)
    return all((abs(jumps - number) <= NEAR).any() for number in packets.marked)


def _announced(packets: Read, held: int, times: np.ndarray) -> str:
    """Say what a file announces but does not hold; empty if it holds that."""
    stream, length = packets.stream, (packets.container.duration or 0) / av.time_base
    # Some writers announce when the last picture ends, others how long all of them last.
    end, own = max(float(times[-1]), packets.end - packets.start, packets.end), stream.duration
    late = float(times[0]) + packets.start  # an edit list may start with nothing, for this long
    intact = packets.indexed in (0, held)  # 0: not known
    if packets.container.format.name == "avi":  # it announces slots; FFmpeg may shorten its length
        own, late = stream.frames, 0.0
    elif late <= 0:
        late, intact = 0.0, True
    # An edit list, or empty packets of AVI, leave out frames but not their time.
    lasts = late + (times[-1] - times[0]) * (1 + 1.5 / held)
    whole = own and own * packets.tick < lasts and intact
    if stream.frames > held and not whole:
        return f"{stream.frames} frames but holds {held}"
    share, more = EXACT
    if not (stream.frames or packets.restarts) and length > end * (1 + share) + more:
        return f"{length:.1f} s but ends after {end:.1f} s"
    return ""


def _ends_within_a_packet(container: InputContainer) -> bool:
    """Return True if an MPEG-TS file is no whole number of packets, which all have one size."""
    with Path(container.name).open("rb") as file:
        start = file.read(20 * max(TS_PACKETS))
    marks = {size: start[first::size].count(TS_SYNC) for size, first in TS_PACKETS.items()}
    size = max(marks, key=lambda size: marks[size])
    return marks[size] > 2 and bool(container.size % size)


def damaged_frames(lost: int, corrupt: int, behind: int, frames: int) -> str:
    """Say how many of some frames are lost, damaged as the decoder says, or follow damage."""
    instead = "cannot be decoded; the nearest that can stand in for them"
    marked = "are marked as corrupt by the decoder"
    follow = "follow damage and may show it, up to the next intra picture"
    counts = {instead: lost, marked: corrupt, follow: behind}
    return "; ".join(
        f"{count} of {frames} frames {what}" for what, count in counts.items() if count
    )


def is_hidden(packet: av.Packet | None, ticks: np.ndarray | None) -> bool:
    """Return True if a packet has no frame at its time, but helps to decode others."""
    if ticks is None or packet is None or packet.pts is None:
        return False
    place = int(np.searchsorted(ticks, packet.pts))
    return place == len(ticks) or int(ticks[place]) != packet.pts
