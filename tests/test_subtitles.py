"""Subtitles of detections: read back by small readers, and by the decoder's own."""

import html
import re

import av
import pytest
from hypothesis import given
from hypothesis import strategies as st

from etadlite.runs.pictures import one_a_moment
from etadlite.runs.subtitles import write_subtitles

HOUR = 3600
FOUND = [
    {"segment": [61.5, 64.25], "label": "run", "score": 0.874},
    {"segment": [1.0, 3.0], "label": "jump & <run>", "score": 1.0},
    {"segment": [2.0, 2.0002], "label": "a --> b\n\nc", "score": 0.004},
    {"segment": [HOUR + 0.0004, HOUR + 1], "label": "跳远", "score": 0.5},
]


def test_the_best_detections_are_chosen_that_do_not_cover_one_another():
    def found(start, end, score):
        return {"segment": [start, end], "label": "run", "score": score}

    best, beside, half = found(0, 10, 0.8), found(5.1, 15.1, 0.7), found(10.1, 20.1, 0.6)
    weak, least = found(30, 40, 0.0801), found(50, 60, 0.0799)
    given = [best, beside, half, weak, least]
    assert one_a_moment(given, 8) == [best, beside, weak]
    assert one_a_moment([best, half, weak], 2) == [best, half]
    assert one_a_moment([], 8) == []


def read(text, point, unescape):
    """Read subtitles as (start ms, end ms, text); blocks without times are no cues."""
    clock = rf"(\d\d):([0-5]\d):([0-5]\d){re.escape(point)}(\d\d\d)"
    cues = []
    for block in re.split(r"\n\n+", text.strip()):
        lines = block.split("\n")
        found = [n for n, line in enumerate(lines) if "-->" in line]
        if not found:
            continue
        (place,) = found  # no text may look like a line of times
        times = re.fullmatch(f"{clock} --> {clock}", lines[place]).groups()
        h, m, s, ms, *end = map(int, times)
        last = ((end[0] * 60 + end[1]) * 60 + end[2]) * 1000 + end[3]
        start = ((h * 60 + m) * 60 + s) * 1000 + ms
        cues.append((start, last, unescape("\n".join(lines[place + 1 :]))))
    return cues


def of_subrip(text):
    return read(text, ",", str)


def of_webvtt(text):
    assert text.startswith("WEBVTT\n")
    assert not re.search(r"<|&(?!amp;|lt;|gt;)", text)
    return read(text, ".", html.unescape)


def test_each_detection_is_a_cue_by_start_at_its_time(tmp_path):
    subrip, webvtt = write_subtitles(FOUND, tmp_path / "clip.1")
    assert [path.name for path in (subrip, webvtt)] == ["clip.1.srt", "clip.1.vtt"]
    times = [
        (1000, 3000),
        (2000, 2001),  # shown for a moment, though it is shorter
        (61500, 64250),
        (3_600_000, 3_601_000),
    ]
    shown = of_webvtt(webvtt.read_text(encoding="utf-8"))
    assert [cue[:2] for cue in shown] == times
    assert [text for *_, text in shown] == [
        *("jump & <run> 100 %", "a --> b c 0 %", "run 87 %", "跳远 50 %"),
    ]
    content = subrip.read_text(encoding="utf-8")
    shown = of_subrip(content)
    assert [cue[:2] for cue in shown] == times
    assert [text for *_, text in shown] == [
        *("jump & \u2039run\u203a 100 %", "a → b c 0 %", "run 87 %", "跳远 50 %"),
    ]
    numbers = [block.split("\n")[0] for block in content.strip().split("\n\n")]
    assert numbers == ["1", "2", "3", "4"]


@pytest.mark.parametrize("suffix", [".srt", ".vtt"])
def test_a_decoder_of_subtitles_finds_every_cue(tmp_path, suffix):
    write_subtitles(FOUND, tmp_path / "clip")
    with av.open(str(tmp_path / f"clip{suffix}")) as container:
        packets = [packet for packet in container.demux() if packet.size]
    starts = [float(packet.pts * packet.time_base) for packet in packets]
    assert starts == [1.0, 2.0, 61.5, HOUR]
    assert "→ b" in bytes(packets[1]).decode() or "--&gt; b" in bytes(packets[1]).decode()


LABEL = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12)
SPAN = st.tuples(st.floats(0, 1e5), st.floats(0, 50)).map(lambda s: [s[0], s[0] + s[1]])


@given(st.lists(st.builds(dict, segment=SPAN, label=LABEL, score=st.floats(0, 1)), max_size=6))
def test_no_label_breaks_the_file(tmp_path_factory, found):
    subrip, webvtt = write_subtitles(found, tmp_path_factory.mktemp("s") / "clip")
    cues = of_webvtt(webvtt.read_text(encoding="utf-8"))
    assert len(cues) == len(of_subrip(subrip.read_text(encoding="utf-8"))) == len(found)
    for (start, end, text), item in zip(
        cues, sorted(found, key=lambda f: f["segment"]), strict=True
    ):
        assert start == pytest.approx(1000 * item["segment"][0], abs=0.501)
        assert end > start
        assert text.endswith(f"{100 * item['score']:.0f} %")
        assert "\n" not in text
