"""Every release that a lock can install has a licence that is allowed, or accepted with a reason."""

from __future__ import annotations

import pytest

from requirements.licences import PAGE, Policy, Stated, page, pinned, rows
from requirements.locks import Pin

POLICY = Policy.load()


def new(
    licence: str | None = None, field: str | None = None, *classifiers: str, name: str = "new"
) -> str | None:
    """What speaks against a package whose metadata says this."""
    pin = Pin(name, "1.0", None, (), ())
    return POLICY.objection(pin, POLICY.licence(pin, Stated(licence, field, classifiers)))


def test_the_page_lists_what_is_pinned() -> None:
    listed = rows()
    assert listed.keys() == pinned().keys(), "run `make lock`"
    assert PAGE.read_text() == page(POLICY, listed), "run `make lock`"


def test_every_licence_is_allowed_or_accepted() -> None:
    listed = rows()
    objections = [POLICY.objection(pin, listed[key]) for key, (pin, _) in pinned().items()]
    assert not [objection for objection in objections if objection]


def test_what_is_installed_still_has_the_licence_that_is_listed() -> None:
    listed = rows()
    found: dict[tuple[str, str], str | None] = {}
    for key, (pin, _) in pinned().items():
        stated = Stated.installed(pin)
        if stated is not None:
            found[key] = POLICY.licence(pin, stated)
    assert len(found) > 80
    assert found == {key: listed[key] for key in found}


def test_no_exception_outlives_its_package() -> None:
    names = {name for name, _ in pinned()} | {f"{name}=={version}" for name, version in pinned()}
    assert not POLICY.packages.keys() - names
    for name, noted in POLICY.packages.items():
        assert noted.keys() <= {"read", "contains", "accepted", "why"}, name
        assert ("accepted" in noted) == ("why" in noted), name


@pytest.mark.parametrize(
    "stated",
    [
        ("MIT",),
        ("GPL-3.0-only OR BSD-3-Clause",),
        ("", "Apache-2.0"),
        ("", "as we please", "License :: OSI Approved :: MIT License"),
    ],
)
def test_what_is_allowed_comes_in(stated: tuple[str, ...]) -> None:
    assert new(*stated) is None


@pytest.mark.parametrize(
    "stated",
    [
        ("GPL-3.0-only",),
        ("MIT AND AGPL-3.0-or-later",),
        ("", "BSD", "License :: OSI Approved :: BSD License"),
        (
            None,
            "MIT License",
            "License :: OSI Approved :: MIT License",
            "License :: OSI Approved :: BSD License",
        ),
        ("", "", "License :: Other/Proprietary License"),
        ("", ""),
    ],
)
def test_a_licence_that_is_new_or_vague_does_not(stated: tuple[str, ...]) -> None:
    assert new(*stated) is not None


def test_an_exception_is_for_the_licence_that_it_was_made_for() -> None:
    assert new("LGPL-2.1-or-later", name="soxr") is None
    assert "GPL-3.0-or-later is neither allowed" in (new("GPL-3.0-or-later", name="soxr") or "")
