"""The `etadlite` command: every verb calls one public function."""

import inspect
import json
import os
import sys
import warnings
from collections.abc import Callable
from functools import cache, wraps
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer
from typer import Argument, Option

from etadlite import __version__
from etadlite.base.errors import InputError, StoppedError, disk_is_full, printable
from etadlite.presets import PRESETS
from etadlite.presets import preset as preset_of

# Without rich_markup_mode help is plain text, of which more fits a screen.
app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False)

Assignments = Annotated[
    list[str] | None, Argument(metavar="key=value", help="Changes to the settings.")
]
AsJson = Annotated[bool, Option("--json", help="Print JSON.")]
Checkpoint = Annotated[
    Path, Option(metavar="FILE|last", help="checkpoint.safetensors of a run; last: the newest.")
]
Out = Annotated[Path, Option(help="Folder for everything.")]
Picture = Annotated[Path | None, Option(metavar="PICTURE.png", help="Draw a picture.")]
Quiet = Annotated[bool, Option("--quiet", help="Show no progress bars.")]
Preset = Annotated[
    str,
    Argument(
        metavar="PRESET",
        help=f"{', '.join(PRESETS)}, or a JSON file of settings.",
        autocompletion=lambda incomplete: [n for n in PRESETS if n.startswith(incomplete)],
    ),
]
Size = Annotated[str, Option(help="smoke, laptop or large.")]


def say(text: str, **options: Any) -> None:
    """Print a text in which no name steers the terminal."""
    print(printable(text), **options)


def complain(kind: str, text: str) -> None:
    """Print `kind: text` to stderr, on a terminal in colour unless NO_COLOR is set."""
    shown = kind if os.environ.get("NO_COLOR") else typer.style(kind, fg="red", bold=True)
    typer.echo(f"{shown}: {printable(text)}", err=True)


def show_version(asked: bool) -> None:
    """Print the version and end."""
    if asked:
        say(f"etadlite {__version__}")
        raise typer.Exit


@app.callback()
def etadlite(
    version: Annotated[
        bool, Option("--version", callback=show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """End-to-end training of temporal action detectors on a laptop.

    Example: etadlite demo
    """


def field_by_field(verb: Callable[[Any], None]) -> Callable[..., None]:
    """Let a verb take one NamedTuple, of which typer sees every field as an option."""
    (parameter,) = inspect.signature(verb).parameters.values()

    @wraps(verb)
    def spread(**fields: Any) -> None:
        verb(parameter.annotation(**fields))

    spread.__signature__ = inspect.signature(parameter.annotation)
    return spread


@app.command()
def demo(
    out: Out = Path("runs/demo"),
    size: Size = "laptop",
    seeds: Annotated[int, Option(min=1, help="Number of runs of every system.")] = 1,
    changes: Annotated[list[str] | None, Option("--set", help="A change: key=value.")] = None,
    quiet: Quiet = False,
) -> None:
    """Make videos, train three systems, compare them.

    One has a frozen encoder, two are trained end to end; a table and pictures compare them. As many
    train at a time as there are cores and memory for. Finished runs are kept: the same command goes
    on where it was stopped.

    Example: etadlite demo --size smoke
    """
    from etadlite.runs.demo import run_demo

    options = {"size": size, "seeds": range(seeds), "progress": not quiet}
    run_demo(out, assignments=changes or (), **options)
    say(f"\n{(out / 'table.txt').read_text()}\npictures: {out / 'pictures'}")


@app.command()
def ablate(
    what: Annotated[str, Argument(metavar="snippets|proposals")],
    changes: Assignments = None,
    *,
    out: Out = Path("runs/ablate"),
    size: Size = "laptop",
    seeds: Annotated[int, Option(min=1, help="Number of runs of each kind.")] = 3,
    ratios: Annotated[str | None, Option(help="Such as 0.1,0.3; 1 is all.")] = None,
    strategies: Annotated[str | None, Option(help="Such as random,grid.")] = None,
    quiet: Quiet = False,
) -> None:
    """Train with every sampling strategy and ratio.

    A table and a picture compare mAP with memory and time. Finished runs are kept: the same command
    goes on where it was stopped.

    Example:
      etadlite ablate snippets --seeds 1 --ratios 0.3 --strategies grid,block
    """
    from etadlite.runs.ablate import ablation_table, run_ablation

    options: dict[str, Any] = {"size": size, "seeds": range(seeds), "progress": not quiet}
    options["ratios"] = read_numbers(ratios, "--ratios") if ratios else ()
    options["strategies"] = strategies.split(",") if strategies else ()
    reports = run_ablation(what, out, assignments=changes or (), **options)
    say(f"\n{ablation_table(reports)}\n\npicture: {out / what}.png")


@app.command()
def make_data(
    root: Annotated[Path, Argument()] = Path("data/stickfigures"),
    size: Size = "laptop",
    seed: Annotated[int, Option(min=0)] = 0,
    quiet: Quiet = False,
) -> None:
    """Generate the stick-figure videos and annotations.

    Example: etadlite make-data --size smoke
    """
    from etadlite.stickfigures.dataset import make_dataset

    say(str(make_dataset(root, size, seed, progress=not quiet)))


@app.command()
def check_data(
    what: Annotated[str, Argument(metavar="PRESET|FOLDER", help="FOLDER: your own data set.")],
    changes: Assignments = None,
    deep: Annotated[bool, Option("--deep", help="Read all values, decode all.")] = False,
    workers: Annotated[int, Option(min=1, help="Files that are opened at once.")] = 4,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Compare a data set with its annotations and protocol.

    A manifest of the files is written beside them.

    Example: etadlite check-data e2e_stickfigures --deep
    """
    from etadlite.prepare.check import check_data as check
    from etadlite.prepare.check import settings_of

    settings = settings_of(what, changes or ())
    checked = check(settings, deep=deep, workers=workers, progress=not quiet)
    say(checked.as_json() if as_json else checked.as_text())
    if not checked.sound:
        raise typer.Exit(1)


@app.command()
def extract(
    preset: Preset,
    changes: Assignments = None,
    *,
    out: Annotated[Path | None, Option(help="Default: data.features.")] = None,
    stride: Annotated[int | None, Option(min=1, help="Frames between dense features.")] = None,
    fps: Annotated[float | None, Option(min=0.1, help="Frame rate for --stride.")] = None,
    quiet: Quiet = False,
) -> None:
    """Write features of videos, for feature-based training.

    With --stride: dense features of all video files in data.videos, at the files' own frame rate
    or at --fps.

    Example: etadlite extract stickfigures
    """
    from etadlite.prepare.extract import extract as extract_to_files

    settings, rate = preset_of(preset, changes or ()), {"stride": stride, "fps": fps}
    written, folder = extract_to_files(settings, out, **rate, progress=not quiet)
    say(f"{written} feature files written to {folder}")


@app.command()
def train(
    preset: Preset,
    changes: Assignments = None,
    out: Annotated[Path, Option(help="Folder of the run directories.")] = Path("runs"),
    resume: Annotated[
        str | None, Option(metavar="RUN|last", help="Continue this run, or the last in --out.")
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Train and test a preset, into a new run directory.

    Examples:
      etadlite train e2e_stickfigures
      etadlite train e2e_stickfigures training.epochs=2 sampling.snippet_ratio=0.5
      torchrun --nproc_per_node=2 -m etadlite train e2e_stickfigures
    """
    from etadlite.base import distributed
    from etadlite.runs.run import last_run_folder, new_run_folder, run_training
    from etadlite.training.report import results_table

    settings = preset_of(preset, changes or ())

    with distributed.process_group(settings.device, settings.training.patience_minutes) as store:
        resumed = resume
        if store is not None:
            from etadlite.base import restarts

            resumed = distributed.broadcast(restarts.remembered_run(store)) or resume

        def folder() -> Path:
            known = last_run_folder(out, settings.name) if resumed == "last" else resumed
            chosen = Path(known) if known else new_run_folder(out, settings.name)
            if store is not None:
                restarts.remember_run(store, chosen)
            if not quiet:
                say(f"run: {chosen}", file=sys.stderr)
            return chosen

        report = run_training(settings, folder, resume=resumed is not None, progress=not quiet)
    if report is None:
        return
    say(results_table({settings.name: [report]}))
    say(
        f"{report.videos_per_second:.3g} videos a second, {report.waiting_share:.1%} of the time "
        f"waiting for them\nrun: {report.folder}"
    )
    if report.skipped_steps or report.unreadable_videos:
        say(
            f"{report.skipped_steps} steps were skipped because they were not finite, "
            f"{report.unreadable_videos} videos are unreadable: see metrics.jsonl and "
            "failed_videos.json there"
        )


@app.command()
def plan(
    preset: Preset,
    changes: Assignments = None,
    *,
    memory: Annotated[str | None, Option(help="A budget, such as 6GB or 800MiB.")] = None,
    run: Annotated[bool, Option("--measure", help="Measure a step on random frames.")] = False,
    profile: Annotated[bool, Option("--profile", help="Time a step by part instead.")] = False,
    picture: Picture = None,
    as_json: AsJson = False,
) -> None:
    """Predict a step's memory, and what fits a budget; or time it.

    This needs no data.

    Example: etadlite plan e2e_stickfigures --memory 1GB
    """
    settings = preset_of(preset, changes or ())
    if profile:
        from etadlite.runs.profiling import explain_time

        if memory or run or as_json:
            raise InputError("--profile times a step; leave --memory, --measure and --json out")
        say(explain_time(settings, picture))
        return
    from etadlite.runs.planning import explain_memory

    say(explain_memory(settings, memory, measure=run, picture=picture, as_json=as_json))


@app.command()
def test(
    preset: Preset,
    changes: Assignments = None,
    checkpoint: Checkpoint = Path("last"),
    out: Annotated[Path | None, Option(help="Default: beside the checkpoint.")] = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Test a checkpoint: mAP, predictions and pictures.

    The checkpoint is by default the newest of the preset's runs in the folder runs.

    Example: etadlite test e2e_stickfigures
    """
    from etadlite.runs.checkpoints import chosen_checkpoint
    from etadlite.runs.testing import test_checkpoint

    settings = preset_of(preset, changes or ())
    checkpoint = chosen_checkpoint(checkpoint, settings.name)
    folder = out or checkpoint.parent / "test"
    precision = test_checkpoint(checkpoint, settings, folder, progress=not quiet)
    if precision is None:
        return
    predictions = folder / "predictions.json"
    if as_json:
        say(json.dumps({**precision.record(), "predictions": str(predictions)}))
        return
    for threshold, value in zip(precision.tiou, precision.per_tiou, strict=True):
        say(f"mAP@{threshold:.2f}  {100 * value:5.1f}")
    say(f"average   {100 * precision.average:5.1f}\npredictions: {predictions}")


@app.command()
def predict(
    *,
    videos: Annotated[list[Path], Argument(metavar="VIDEO_OR_FOLDER")],
    checkpoint: Checkpoint = Path("last"),
    out: Annotated[Path, Option(help="Folder of the results.")] = Path("predictions"),
    threshold: Annotated[float, Option(min=0, max=1, help="Lowest score to keep.")] = 0.0,
    video: Annotated[bool, Option("--video", help="Write annotated videos too.")] = False,
    quiet: Quiet = False,
) -> None:
    """Detect actions in new videos.

    Writes JSON, CSV, subtitles and timelines; with --video, annotated videos, too. The checkpoint
    is by default the newest of all runs in the folder runs.

    Example: etadlite predict my_videos --threshold 0.1
    """
    from etadlite.runs.checkpoints import chosen_checkpoint
    from etadlite.runs.predictions import predict_videos

    options = {"threshold": threshold, "annotate": video, "progress": not quiet}
    predict_videos(videos, chosen_checkpoint(checkpoint), out, **options, log=say)
    say(f"written to {out}: predictions.json, predictions.csv; of each video: timeline, subtitles")


class NewDataset(NamedTuple):
    """What `init_dataset` takes."""

    folder: Annotated[Path, Argument(help="Folder of the videos.")]
    annotations: Annotated[
        list[Path], Option(help="A file of labels, or a folder of them; can be repeated.")
    ]
    out: Annotated[Path | None, Option(help="Default: the folder of the videos.")] = None
    validation: Annotated[float, Option(min=0, max=1, help="Share kept for the test.")] = 0.25
    seed: Annotated[int, Option(min=0, help="Seed that draws the test videos.")] = 0
    tier: Annotated[str | None, Option(help="Tier, attribute or control of the labels.")] = None
    fps: Annotated[float | None, Option(min=0.1, help="Rate of times given in frames.")] = None
    encoder: Annotated[
        str | None, Option(help="As encoder.name; default: what suits this machine.")
    ] = None
    weights: Annotated[str | None, Option(help="Its weights: a file, or a name.")] = None
    skip: Annotated[bool, Option("--skip", help="Leave out what cannot be used.")] = False
    overwrite: Annotated[bool, Option("--overwrite", help="Replace old files.")] = False
    quiet: Quiet = False


@app.command()
@field_by_field
def init_dataset(given: NewDataset) -> None:
    """Start a data set from your own videos and labels.

    The files are checked, the videos split, and settings for a training written.

    Example:
      etadlite init-dataset my_videos --annotations labels.csv --encoder tiny
    """
    from etadlite.prepare.choose_encoder import Wish
    from etadlite.prepare.own_data import ImportOptions
    from etadlite.prepare.own_data import init_dataset as start

    out, wish = given.out or given.folder, Wish(given.encoder, given.weights)
    options = ImportOptions(given.validation, given.tier, given.fps, given.skip, wish)
    how = {"seed": given.seed, "overwrite": given.overwrite, "progress": not given.quiet}
    start(given.folder, given.annotations, out, options, **how, log=say)
    say(f"\nwritten: {out / 'annotations.json'} and {out / 'settings.json'}")
    say(f"next:    etadlite train {out / 'settings.json'}")
    say("then:    etadlite predict VIDEO")


@app.command()
def runs(
    roots: Annotated[list[Path] | None, Argument(metavar="FOLDER")] = None,
    picture: Picture = None,
    against: Annotated[
        Path | None, Option(metavar="FILE|RUN", help="Compare the first 50 steps with these.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show the runs in folders (default: runs) as a table.

    --against compares losses and gradient norms with those of another run, or of a file such as
    tests/golden/anet_tsp.json, and ends with exit code 1 if they differ.

    Examples:
      etadlite runs --picture curves.png
      etadlite runs runs/e2e_stickfigures/003 --against runs/e2e_stickfigures/001
    """
    from etadlite.runs.pictures import draw_run_curves
    from etadlite.runs.table import curve_names, find_runs, run_records, runs_table

    found = find_runs(roots or [Path("runs")])
    if against is not None:
        from etadlite.runs.trajectory import compare_runs

        agree, text = compare_runs([run.folder for run in found if not run.problem], against)
        say(json.dumps({"agree": agree, "text": text}) if as_json else text)
        raise typer.Exit(not agree)
    say(json.dumps(run_records(found)) if as_json else runs_table(found))
    if picture is not None:
        whole = [run for run in found if not run.problem]
        say(
            f"curves: {draw_run_curves(curve_names(whole), picture)}",
            file=sys.stderr if as_json else None,
        )


class Scoring(NamedTuple):
    """What `evaluate` takes."""

    ground_truth: Annotated[Path, Option(help="Annotations, ActivityNet JSON.")]
    predictions: Annotated[Path, Option(help="Predictions, ActivityNet JSON.")]
    subset: Annotated[str, Option(help="For example validation.")]
    tiou: Annotated[str, Option(help="START:STOP:STEP or a list.")] = "0.5:0.95:0.05"
    blocked: Annotated[Path | None, Option(help="JSON list of videos to leave out.")] = None
    duplicates: Annotated[str, Option(help="keep (official rule) or drop (OpenTAD's).")] = "keep"
    proposals: Annotated[str | None, Option(help="Also AR@AN, such as 1,5,10,100.")] = None
    breakdown: Picture = None
    lengths: Annotated[str, Option(help="Bounds of lengths in seconds.")] = "30,60,120,180"
    analyse: Annotated[
        Path | None, Option(metavar="PICTURE.png", help="Kinds of errors: table, picture, JSON.")
    ] = None
    coverages: Annotated[str, Option(help="Bounds of shares of the video.")] = "0.2,0.4,0.6,0.8"
    instances: Annotated[str, Option(help="Bounds of actions in a video.")] = "1,4,8"
    as_json: Annotated[bool, Option("--json", help="Print one JSON object.")] = False


@app.command()
@field_by_field
def evaluate(given: Scoring) -> None:
    """Score a file of predictions: mAP at tIoU thresholds.

    --breakdown draws the scores of classes and of actions of different lengths. --analyse counts
    kinds of errors, after DETAD, and writes PICTURE.png and PICTURE.json.

    Example:
      etadlite evaluate --ground-truth G.json --predictions P.json --subset test
    """
    from etadlite.evaluation import mean_average_precision

    files = (given.ground_truth, given.predictions)
    tiou = read_numbers(given.tiou, "--tiou")
    if given.duplicates not in ("keep", "drop"):
        raise InputError(f'--duplicates is "{given.duplicates}"; give keep or drop')
    chosen = {"subset": given.subset, "tiou": tiou, "blocked": given.blocked or ()}
    chosen["duplicates"] = given.duplicates
    precision = mean_average_precision(*files, **chosen)
    scores = {"subset": given.subset, **precision.record()}
    if given.proposals is not None:
        from etadlite.evaluation.recall import average_recall

        numbers = read_numbers(given.proposals, "--proposals")
        amounts = [int(n) if n.is_integer() else n for n in numbers]
        recall = average_recall(*files, **chosen, proposals=amounts)
        scores["average_recall"] = dict(zip(amounts, recall.average.tolist(), strict=True))
    if given.breakdown is not None:
        from etadlite.evaluation.error_analysis import breakdown
        from etadlite.viz.breakdown import draw_breakdown
        from etadlite.viz.style import save

        edges = read_numbers(given.lengths, "--lengths")
        found = breakdown(*files, **chosen, edges=edges)
        save(draw_breakdown(found, edges, title=given.predictions.name), given.breakdown)
    analysis = ""
    if given.analyse is not None:
        from etadlite.viz.diagnosis import write_diagnosis

        texts = {"lengths": given.lengths, "coverages": given.coverages}
        bounds = {name[:-1]: read_numbers(text, f"--{name}") for name, text in texts.items()}
        bounds["instances"] = read_numbers(given.instances, "--instances")
        analysis, scores["errors"] = write_diagnosis(*files, given.analyse, **chosen, edges=bounds)
    if given.as_json:
        say(json.dumps(scores))
        return
    for threshold, value in zip(scores["tiou"], scores["mAP"], strict=True):
        say(f"mAP@{threshold:.2f}  {100 * value:6.2f}")
    say(f"average   {100 * precision.average:6.2f}")
    for amount, value in scores.get("average_recall", {}).items():
        say(f"{f'AR@{amount}':<8}  {100 * value:6.2f}")
    if given.breakdown is not None:
        say(f"breakdown: {given.breakdown}")
    if given.analyse is not None:
        say(f"\n{analysis}\n\nanalysis: {given.analyse}")


@app.command()
def convert(
    file: Annotated[Path, Argument(help="A checkpoint of ETAD, OpenTAD, TSP or an encoder.")],
    out: Annotated[Path, Argument(metavar="OUT.safetensors")],
    encoder: Annotated[
        str | None, Option(help="Whose weights they are, such as image:resnet18.")
    ] = None,
) -> None:
    """Rewrite a published checkpoint as safetensors.

    None of its code is run.

    Example:
      etadlite convert resnet18.pth resnet18.safetensors --encoder image:resnet18
    """
    from etadlite.base.weight_checks import checksum
    from etadlite.prepare.convert import convert as convert_checkpoint

    for what, value in convert_checkpoint(file, out, encoder).metadata().items():
        say(f"{what:<10} {value}")
    say(f"read       {file}, SHA-256 {checksum(file)}")
    say(f"written to {out}")


@app.command()
def course(
    folder: Annotated[Path, Argument(help="A new folder, or one with an older course.")],
    overwrite: Annotated[bool, Option("--overwrite", help="Replace files that differ.")] = False,
) -> None:
    """Write the notebooks of the course into a folder.

    FOLDER/notebooks has them, FOLDER/data_scripts the scripts that they name. A file that is there
    and differs is kept, and named.

    Example: etadlite course my_course
    """
    from etadlite.course.handout import write_course

    say(write_course(folder, overwrite=overwrite))


@app.command(
    options_metavar="[-p KEY VALUE]... [OPTIONS]",
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
)
def notebook(
    context: typer.Context,
    name: Annotated[str, Argument(help="Such as 00_quickstart.")],
    out: Annotated[Path | None, Option(help="Default: the notebook's out_dir.")] = None,
    cell_limit: Annotated[float | None, Option(min=1, help="Seconds per cell.")] = None,
    record: Annotated[bool, Option("--record", help="Keep times and laptop outputs.")] = False,
) -> None:
    """Run a notebook without a browser.

    It is kept with its outputs, an HTML page and its metrics. Each -p KEY VALUE sets a parameter.

    Example: etadlite notebook 00_quickstart -p profile smoke
    """
    from etadlite.course.execute import NotebookFailedError, parameters_in, run_notebook

    pairs = parameters_in(context.args)
    try:
        done = run_notebook(name, pairs, out=out, cell_limit=cell_limit, record=record)
    except NotebookFailedError as error:
        say(f"failed: {error}", file=sys.stderr)
        raise typer.Exit(1) from None
    for what, path in done._asdict().items():
        say(f"{what:<9} {path}")


@app.command()
def presets(as_json: AsJson = False) -> None:
    """List the presets: what they are, data, published mAP.

    Example: etadlite presets
    """
    from etadlite.prepare.explain import explain_presets

    say(explain_presets(as_json=as_json))


@app.command()
def settings(
    preset: Annotated[str | None, Argument(metavar="PRESET", help="Or a section.")] = None,
    section: Annotated[str | None, Argument(metavar="SECTION", help="Or a setting.")] = None,
    as_json: AsJson = False,
) -> None:
    """Explain the settings: value, unit, meaning, changes.

    A * marks what differs from the default; in the settings of a run, from its preset.

    Examples:
      etadlite settings
      etadlite settings e2e_stickfigures training
      etadlite settings runs/e2e_stickfigures/001/config.json data.crop
    """
    from etadlite.prepare.explain import explain_settings

    say(explain_settings(preset, section, as_json=as_json))


@app.command()
def encoders(as_json: AsJson = False) -> None:
    """List the encoders: size, cost, weights.

    Example: etadlite encoders
    """
    from etadlite.prepare.encoder_table import encoder_table

    say(encoder_table(as_json=as_json))


@app.command()
def doctor(as_json: AsJson = False) -> None:
    """Check versions, device, decoders and disk.

    It prints OK, or what to do.

    Example: etadlite doctor
    """
    from etadlite.prepare.doctor import examine

    findings = list(examine(Path.cwd()))
    if as_json:
        say(json.dumps([finding._asdict() for finding in findings]))
    for finding in () if as_json else findings:
        say(f"{finding.what:<12} {finding.found:<44} {finding.remedy or 'OK'}")
    if any(finding.remedy for finding in findings):
        raise typer.Exit(1)


for verb in app.registered_commands:  # \b keeps the lines of examples
    verb.help = (inspect.getdoc(verb.callback) or "").replace("\n\nExample", "\n\n\b\nExample")


def main() -> None:
    """Run the command; an error that the user can correct is one sentence and exit code 2."""
    once = cache(lambda text: complain("warning", text))  # each warning once
    warnings.showwarning = lambda message, *rest: once(str(message))
    code, speaks = 2, os.environ.get("RANK", "0") == "0"  # the first process speaks for all
    try:
        app(prog_name="etadlite")
        return
    except InputError as error:
        message, speaks = str(error), speaks or error.everywhere
    except StoppedError as error:
        message, code, speaks = str(error), error.code, speaks or error.everywhere
        if error.folder is not None:
            from etadlite.runs.resuming import resuming

            message += f"\ncontinue with: {resuming(sys.argv[1:], error.folder)}"
    except OSError as error:
        room = "; make room and run it again, what is finished is kept" * disk_is_full(error)
        if error.filename is None and not room:
            raise
        message, speaks = f"{error.filename or 'the disk'}: {error.strerror}{room}", True
    except (MemoryError, RuntimeError) as error:
        from etadlite.base.devices import is_out_of_memory  # loaded when memory was left

        if not is_out_of_memory(error):
            raise
        message, code, speaks = "memory ran out; `etadlite plan` says what training needs", 1, True
    if speaks:
        complain("error", message)
    sys.exit(code)


def read_numbers(text: str, option: str) -> list[float]:
    """Read `START:STOP:STEP` (both ends, at most 1,000 steps) or `A,B`; else raise `InputError`."""
    try:
        if ":" not in text:
            return [float(part) for part in text.split(",")]
        start, stop, step = map(float, text.split(":"))
        steps = (stop - start) / step + 1e-6
        if step > 0 and 0 <= steps < 1001:
            # Rounded: 0.5 + 8 * 0.05 is 0.9.
            return [round(start + i * step, 10) for i in range(int(steps) + 1)]
    except (ValueError, ZeroDivisionError):
        pass
    example = "START:STOP:STEP (0.5:0.95:0.05) or a list with commas (0.3,0.5)"
    raise InputError(f'{option} is "{text}"; give {example}')
