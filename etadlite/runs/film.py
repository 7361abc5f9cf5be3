"""A short film of detections: a new generated video, a run's detector, and a GIF of both."""

from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image, ImageColor

from etadlite.base.files import written_whole
from etadlite.data.annotations import read_annotations
from etadlite.data.video import Video
from etadlite.inference.predict import predict
from etadlite.model.checkpoint import checkpoint_settings, load_checkpoint
from etadlite.runs.pictures import one_a_moment
from etadlite.stickfigures.dataset import Size, make_dataset
from etadlite.viz.style import COLOURS
from etadlite.viz.timeline import annotated

STEP = 5  # frames of the video to a picture of the film
SPEED = 2


def make_film(checkpoint: Path, film: Path, *, seed: int, pixels: int, colours: int) -> int:
    """Write a GIF of a new video of 30 s at double speed, and return its number of pictures.

    The checkpoint is one of a training on the generated videos. The new video has `pixels` rows and
    columns and depends on `seed`. The upper bar has its true actions, the lower one the detections.
    `colours`, at least 12, are those of the film; fewer make it smaller.

    Raises:
        InputError: the checkpoint cannot be used.
    """
    settings = checkpoint_settings(checkpoint)
    system = load_checkpoint(checkpoint, settings)
    with TemporaryDirectory() as folder:
        size = Size(0, 1, longest=30.0, pixels=pixels)
        file = make_dataset(Path(folder) / "data", size, seed, workers=1, progress=False)
        (entry,) = read_annotations(file).values()
        video = Video(file.parent / "videos" / f"{entry.name}.mp4")
        found = one_a_moment(predict(video, system, settings), len(entry.actions) + 2)
        truth = [{"segment": [a.start, a.end], "label": a.label} for a in entry.actions]
        shown = annotated(video, found, settings.detector.classes, truth)
        frames = [sheet for number, (_, sheet) in enumerate(shown) if number % STEP == 0]
    palette = _palette_of(frames, colours)
    first, *rest = (frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames)
    pause = round(1000 * STEP / video.info.fps / SPEED)
    with written_whole(film) as draft:
        first.save(draft, format="GIF", save_all=True, append_images=rest, duration=pause, loop=0)
    return len(frames)


def _palette_of(frames: list[Image.Image], colours: int) -> Image.Image:
    """Return one palette for all pictures: those of the classes and texts, and the commonest."""
    own = [*map(ImageColor.getrgb, (*COLOURS, "#202020", "white", "black"))]
    some = frames[:: max(len(frames) // 8, 1)]
    together = Image.new("RGB", (some[0].width * len(some), some[0].height))
    for number, frame in enumerate(some):
        together.paste(frame, (number * frame.width, 0))
    common = together.quantize(colours - len(own)).getpalette() or []
    palette = Image.new("P", (1, 1))
    palette.putpalette([value for colour in own for value in colour] + common)
    return palette
