"""The servers that tests share through. Each starts when the first test needs it; what is not installed is said so."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support import azurite, ceph, git_http, servers, webdav


@pytest.fixture(scope="session")
def s3_server() -> Iterator[servers.S3]:
    with servers.s3() as server:
        yield server


@pytest.fixture(scope="session")
def ssh_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[servers.Ssh]:
    if not servers.has_sshd():
        pytest.skip("there is no sshd")
    with servers.ssh(tmp_path_factory.mktemp("ssh") / "server") as server:
        yield server


@pytest.fixture(scope="session")
def webdav_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdav.WebDav]:
    if not webdav.is_installed():
        pytest.skip(webdav.WHY)
    with webdav.webdav(tmp_path_factory.mktemp("webdav") / "server") as server:
        yield server


@pytest.fixture(scope="session")
def ceph_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ceph.Ceph]:
    if not ceph.is_installed():
        pytest.skip(ceph.WHY)
    with ceph.ceph(tmp_path_factory.mktemp("ceph") / "server") as server:
        yield server


@pytest.fixture(scope="session")
def azure_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[azurite.Azurite]:
    if not azurite.is_installed():
        pytest.skip(azurite.WHY)
    with azurite.azurite(tmp_path_factory.mktemp("azurite")) as server:
        yield server


@pytest.fixture(scope="module")
def git_http_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[git_http.GitHttp]:
    with git_http.git_http(tmp_path_factory.mktemp("http")) as server:
        yield server
