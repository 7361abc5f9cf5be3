"""Downloads the open files of ActivityNet-1.3 and THUMOS-14: `python data_scripts/download.py`.

A broken download continues where it stopped, and a file gets its name only when it is complete. Run
the command again until the report says that nothing is left.

    python data_scripts/download.py --list                    # the files, and what to ask for
    python data_scripts/download.py --only thumos-i3d         # one file (or several)
    python data_scripts/download.py --mirror http://host/data # from a copy with the same paths
"""

import sys
from pathlib import Path
from typing import Annotated, NamedTuple

import typer
from transfer import Patience, digest, fetch, unpack

from etadlite.base.errors import InputError
from etadlite.base.files import read_json, write_json

GITHUB = "https://raw.githubusercontent.com"
ETAD = f"{GITHUB}/sming256/ETAD/b973a5ff966e3ec258d4f37cfe0d12669a210b3c"
GTAD = f"{GITHUB}/frostinassiky/gtad/ba68778d976236bc9681aa45b76268ee9b677c1d"
TSP = f"{GITHUB}/HumamAlwassel/TSP/8dc2f988c5ff785fc22f4fd8a5c2b2e3809d47cc"
TSP_RELEASES = "https://github.com/HumamAlwassel/TSP/releases/download"
DRIVE = "https://drive.usercontent.google.com/download?export=download&confirm=t&id="


class Source(NamedTuple):
    """A file that anybody may download.

    Attributes:
        name: its name for `--only`.
        path: its path in the data folder and on a mirror.
        url: its address.
        size: bytes; None if not published.
        checksum: "md5:HEX" or "sha256:HEX", or its first digits; None if not published.
        unpack: folder for the files of an archive; None if the file is used as it is.
        files: number of files in the archive; None if not published.
        spare: True for another source of the file above; downloaded only if `--only` names it.
    """

    name: str
    path: str
    url: str
    size: int | None = None
    checksum: str | None = None
    unpack: str | None = None
    files: int | None = None
    spare: bool = False


REPORT = "download.json"
ANET, THUMOS, WEIGHTS = "activitynet-1.3", "thumos-14", "weights"
ANET_FEATURES = f"{ANET}/features/anet_tsp_npy_unresize"
TSP_ON_ANET = (
    "r2plus1d_34-tsp_on_activitynet-max_gvf-backbone_lr_0.0001-fc_lr_0.002-epoch_5-0d2cf854.pth"
)
TSP_ON_THUMOS = (
    "r2plus1d_34-tsp_on_thumos14-max_gvf-backbone_lr_0.0001-fc_lr_0.004-epoch_4-e6a30b2f.pth"
)

SOURCES = (
    Source(
        "anet-annotations",  # 19,994 videos: 10,024 to train, 4,926 to validate
        f"{ANET}/annotations/activity_net.v1-3.min.json",
        f"{GITHUB}/activitynet/ActivityNet/master/Evaluation/data/activity_net.v1-3.min.json",
    ),
    Source(
        "anet-blocked",
        f"{ANET}/annotations/blocked.json",
        f"{ETAD}/lib/dataset/anet_1_3/data/blocked.json",
        1_185,
        "sha256:75011d71dfa29f682759c21fa984aa5fdc94fb91fc30a157a7f86b87e82c1327",
    ),
    Source(
        "anet-tsp",  # as ActionFormer packed them; the released ETAD uses them, too
        f"{ANET}/features/anet_1.3.tar.gz",
        f"{DRIVE}1VW8px1Nz9A17i0wMVUfxh6YsPCLVqL-S",
        None,
        "md5:c415f50120b9425ee1ede9ac3ce11203",
        ANET_FEATURES,
        14_950,
    ),
    Source(
        "anet-tsp-train-h5",  # the same features from their authors
        f"{ANET}/features/r2plus1d_34-tsp_on_activitynet-train_features.h5",
        f"{TSP_RELEASES}/activitynet_features/r2plus1d_34-tsp_on_activitynet-train_features.h5",
        unpack=ANET_FEATURES,
        spare=True,
    ),
    Source(
        "anet-tsp-valid-h5",
        f"{ANET}/features/r2plus1d_34-tsp_on_activitynet-valid_features.h5",
        f"{TSP_RELEASES}/activitynet_features/r2plus1d_34-tsp_on_activitynet-valid_features.h5",
        unpack=ANET_FEATURES,
        spare=True,
    ),
    Source(
        "anet-cuhk",  # classifier scores that G-TAD shared; for the other file see ASK
        f"{ANET}/classifiers/cuhk_val_simp_share.json",
        f"{GITHUB}/frostinassiky/gtad/anet/data/cuhk_val_simp_share.json",
    ),
    Source(
        "thumos-val-annotations",
        f"{THUMOS}/annotations/val_Annotation.csv",
        f"{GTAD}/data/thumos_annotations/val_Annotation.csv",
        186_225,
        "sha256:e3cf9735e41ae0bb040fdfcf1795b9fdae2d7d6f332c3101a78a4b40e3dd30c9",
    ),
    Source(
        "thumos-test-annotations",
        f"{THUMOS}/annotations/test_Annotation.csv",
        f"{GTAD}/data/thumos_annotations/test_Annotation.csv",
        187_907,
        "sha256:745cbc0aa776facb0d9220c56a5c10d78c82c15629baae6e442bea3ed61075ec",
    ),
    Source(
        "thumos-val-metadata",
        f"{THUMOS}/annotations/thumos14_valid_metadata.csv",
        f"{TSP}/data/thumos14/thumos14_valid_metadata.csv",
        10_247,
        "sha256:11c81d0cd5a65bcba8e0137a644c8c50256a4f5d07838990eb9028e110b449a8",
    ),
    Source(
        "thumos-test-metadata",
        f"{THUMOS}/annotations/thumos14_test_metadata.csv",
        f"{TSP}/data/thumos14/thumos14_test_metadata.csv",
        9_385,
        "sha256:802a1b98a5cca6e89dcd847437d0cb69b89b7e75aea172807410791a67b04f0b",
    ),
    Source(
        "thumos-ground-truth",  # the ground truth of published numbers
        f"{THUMOS}/annotations/thumos_gt.json",
        f"{GTAD}/evaluation/thumos_gt.json",
        376_411,
        "sha256:09ec867173d8532cd805769497633617f8a95519491c5558edd29a50731116a2",
    ),
    Source(
        "thumos-i3d",
        f"{THUMOS}/features/thumos.tar.gz",
        f"{DRIVE}1zt2eoldshf99vJMDuu8jqxda55dCyhZP",
        None,
        "md5:375f76ffbf7447af1035e694971ec9b2",
        f"{THUMOS}/features/i3d_actionformer_stride4_thumos",
        413,
    ),
    Source(
        "thumos-untrimmednet",
        f"{THUMOS}/classifiers/uNet_test.npy",
        f"{GTAD}/data/uNet_test.npy",
        635_976,
        "sha256:5cb76dfa462e7adeb2f139a2a20b4b549ec3ad87c1705657d0f5fa43e35a55c3",
    ),
    Source(
        "tsp-anet-weights",
        f"{WEIGHTS}/{TSP_ON_ANET}",
        f"{TSP_RELEASES}/model_weights/{TSP_ON_ANET}",
        checksum="sha256:0d2cf854",
    ),
    Source(
        "tsp-thumos-weights",
        f"{WEIGHTS}/{TSP_ON_THUMOS}",
        f"{TSP_RELEASES}/model_weights/{TSP_ON_THUMOS}",
        checksum="sha256:e6a30b2f",
    ),
)

ASK = (
    (
        "ActivityNet-1.3 videos",
        "fill in https://docs.google.com/forms/d/e/"
        "1FAIpQLSdxhNVeeSCwB2USAfeNWCaI9saVT6i2hpiiizVYfa3MsTyamg/viewform, which opens a shared "
        "folder for seven days. Take Anet_videos_15fps_short256.zip from it, already converted, "
        f"and unpack it so that its videos lie in {ANET}/raw_data/Anet_videos_15fps_short256; or "
        "the originals, and let convert_videos.py write them there",
    ),
    (
        "THUMOS-14 videos",
        "follow https://www.crcv.ucf.edu/THUMOS14/download.html: the validation videos are open, "
        "the zip of the test videos needs the password that the site gives to those who register; "
        f"unpack both so that their videos lie in {THUMOS}/raw_data/video",
    ),
    (
        "cuhk_val_simp_7.json, the classifier behind the published ActivityNet numbers",
        "open https://drive.google.com/drive/folders/1HwLFaUdrTLkTcx0oKm_z9WPyQiD2moJU (OpenTAD's "
        "annotations) in a browser, or run `gdown --folder` on it, and put the file into "
        f"{ANET}/classifiers; or use anet-cuhk with inference.classifier=FILE",
    ),
)

NEXT = (
    f"etadlite convert {{root}}/{WEIGHTS}/{TSP_ON_ANET} "
    "{root}/pretrained/r2plus1d_34_tsp_anet.safetensors",
    f"etadlite convert {{root}}/{WEIGHTS}/{TSP_ON_THUMOS} "
    "{root}/pretrained/r2plus1d_34_tsp_thumos.safetensors",
    f"python data_scripts/make_thumos_annotations.py {{root}}/{THUMOS}/annotations",
    "etadlite check-data PRESET",
)
"""Commands that make the presets' files from the downloaded ones."""


def describe() -> str:
    """Return the table of sources, and how to get what cannot be downloaded."""
    lines = [f"{'name':<26}{'bytes':>10}  {'checked by':<12}{'files':>7}  goes to"]
    for source in SOURCES:
        size = "?" if source.size is None else f"{source.size:,}"
        kind = (source.checksum or "nothing").partition(":")[0]
        files = "" if not source.unpack else f"{source.files:,}" if source.files else "?"
        spare = "  (only by name)" if source.spare else ""
        lines.append(f"{source.name:<26}{size:>10}  {kind:<12}{files:>7}  {source.path}{spare}")
    return "\n".join([*lines, "", *_asking()])


def download(
    root: Path,
    sources: tuple[Source, ...] = SOURCES,
    *,
    mirror: str | None = None,
    patience: Patience | None = None,
    progress: bool = True,
) -> dict[str, dict]:
    """Download and unpack files; one that fails does not stop the others.

    Returns:
        For each source its "state" ("downloaded", "there" or "failed") and what is known about it.
    """
    before = _earlier(root)
    report = {}
    for source in sources:
        target = root / source.path
        if _is_done(root, source, before.get(source.name, {})):
            report[source.name] = {**before[source.name], "state": "there"}
            continue
        url = f"{mirror.rstrip('/')}/{source.path}" if mirror else source.url
        try:
            new = fetch(
                url,
                target,
                size=source.size,
                checksum=source.checksum,
                patience=patience,
                progress=progress,
            )
            entry = {"state": "downloaded" if new else "there", "bytes": target.stat().st_size}
            entry |= {"sha256": digest(target), "url": url}
            if source.unpack:
                entry["files"] = unpack(target, root / source.unpack)
                if source.files not in (None, entry["files"]):
                    raise InputError(
                        f"{target} has {entry['files']:,} files, expected {source.files:,}; "
                        "they are unpacked"
                    )
        except InputError as error:
            entry = {"state": "failed", "reason": str(error), "url": url}
        report[source.name] = entry
        try:
            write_json(root / REPORT, before | report)
        except OSError as error:
            raise InputError(
                entry.get("reason")
                or f"{root / REPORT} cannot be written ({error.strerror}); make room for it and "
                "run this again"
            ) from None
    return report


def _earlier(root: Path) -> dict[str, dict]:
    path = root / REPORT
    return read_json(path, "report", "delete it") if path.exists() else {}


def _is_done(root: Path, source: Source, before: dict) -> bool:
    """Return True if an earlier run checked the existing file, and unpacked all of it."""
    target = root / source.path
    if not target.exists() or before.get("bytes") != target.stat().st_size:
        return False
    there = len(list((root / source.unpack).glob("*.npy"))) if source.unpack else 0
    return there >= before.get("files", 0)


def main(
    root: Annotated[Path, typer.Argument(help="Folder of all data sets.")] = Path("data"),
    *,
    only: Annotated[list[str] | None, typer.Option(help="A name of --list; repeatable.")] = None,
    mirror: Annotated[str | None, typer.Option(help="Address with the same paths.")] = None,
    show: Annotated[bool, typer.Option("--list", help="Show the files, and end.")] = False,
    timeout: Annotated[float, typer.Option(help="Seconds without a byte.")] = 60.0,
    attempts: Annotated[int, typer.Option(min=1, help="Tries without progress.")] = 6,
    progress: Annotated[bool, typer.Option(help="Show bars.")] = True,
) -> None:
    """Download the open files; say how to get the others."""
    if show:
        print(describe())
        return
    names = {source.name: source for source in SOURCES}
    if unknown := [name for name in only or () if name not in names]:
        sys.exit(f"error: there is no source {unknown[0]}; there are {', '.join(names)}")
    chosen = tuple(s for s in SOURCES if (s.name in only if only else not s.spare))
    patience = Patience(attempts, timeout)
    try:
        report = download(root, chosen, mirror=mirror, patience=patience, progress=progress)
    except (InputError, OSError) as error:
        sys.exit(f"error: {error}")
    print()
    for name, entry in report.items():
        size = f"{entry['bytes']:,} bytes" if "bytes" in entry else ""
        files = f", {entry['files']:,} files" if "files" in entry else ""
        print(f"{name:<26}{entry['state']:<12}{entry.get('reason', size + files)}")
    failed = [name for name, entry in report.items() if entry["state"] == "failed"]
    print(f"\nreport: {root / REPORT}\n")
    print("\n".join([*_asking(), "", "then:", *(f"  {line.format(root=root)}" for line in NEXT)]))
    if failed:
        sys.exit(f"\n{len(failed)} of {len(report)} failed: run this again to continue")


def _asking() -> list[str]:
    lines = ["these cannot be downloaded without asking:"]
    for what, how in ASK:
        lines += [f"  {what}:", f"    {how}"]
    return lines


if __name__ == "__main__":
    typer.run(main)
