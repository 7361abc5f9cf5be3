"""Why a file with an unusual name is no video."""

from pathlib import Path

from etadlite.base.errors import StoppedError
from etadlite.base.files import is_draft
from etadlite.data.packets import films_of, open_video


def why_no_video(path: Path) -> str:
    """Return why a file is no video that the decoder can open; empty if it is one."""
    if path.name.startswith(".") or is_draft(path.name) or path.suffix in (".tmp", ".crdownload"):
        return "hidden or unfinished"
    try:
        with open_video(path) as container:
            kind, films = container.format.name, films_of(container)
            # FFmpeg plays even plain texts and still pictures.
            if kind in ("tty", "image2") or kind.endswith("_pipe") or not films:
                return "no moving pictures"
            return "" if films[0].codec_context else "its codec is unknown"
    except StoppedError:
        raise
    except OSError as error:  # such as a lack of rights
        return error.strerror or "it cannot be opened"
    except Exception:  # readers raise nearly anything at what is no video
        return "the decoder cannot open it"
