from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from nas.core.errors import ConfigError, UnknownNameError
from nas.core.registry import Registry, nested, nested_registries

ROOM = """
from nas.core.registry import Registry, nested, nested_registries
registry = Registry("animal", __name__)
"""
CAT = """
from dataclasses import dataclass
from zoo import registry

@registry.register("cat")
@dataclass(frozen=True, kw_only=True)
class Cat:
    owner: str
    lives: int = 9
"""


@pytest.fixture
def room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package with one component; a sub-package of it is no component."""
    folder = tmp_path / "zoo"
    (folder / "shared").mkdir(parents=True)
    (folder / "shared" / "__init__.py").touch()
    (folder / "__init__.py").write_text(ROOM)
    (folder / "cat.py").write_text(CAT)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield folder
    for name in [name for name in sys.modules if name.split(".")[0] == "zoo"]:
        del sys.modules[name]


@pytest.fixture
def registry(room: Path) -> Registry:
    import zoo

    return zoo.registry


def test_names_are_read_from_the_files_and_nothing_is_imported_for_them(registry: Registry):
    assert registry.names() == ("cat",)
    assert "zoo.cat" not in sys.modules


def test_a_new_component_is_one_new_file(room: Path, registry: Registry):
    (room / "dog.py").write_text(CAT.replace("cat", "dog").replace("Cat", "Dog"))
    assert registry.names() == ("cat", "dog")
    assert type(registry.get("dog", owner="Ann")).__name__ == "Dog"


def test_one_file_may_register_several_components(room: Path):
    birds = [CAT.replace("cat", name).replace("Cat", name.title()) for name in ("duck", "swan")]
    (room / "birds.py").write_text("".join(birds))
    import zoo

    assert zoo.registry.names() == ("cat", "duck", "swan")
    assert "zoo.birds" not in sys.modules
    assert type(zoo.registry.get("swan", owner="Ann")).__name__ == "Swan"


def test_get_builds_from_fields_and_settings_leads_back(registry: Registry):
    cat = registry.get("cat", owner="Ann")
    settings = registry.settings(cat)
    assert settings == {"name": "cat", "owner": "Ann", "lives": 9}
    assert registry.get(**settings) == cat


def test_unknown_name_lists_the_valid_ones(registry: Registry):
    with pytest.raises(UnknownNameError, match=r"animal: got 'cow', expected one of cat"):
        registry.get("cow")


def test_unknown_field_is_named(registry: Registry):
    with pytest.raises(ConfigError, match=r"animal 'cat': got 'legs', expected a field of .*lives"):
        registry.get("cat", owner="Ann", legs=4)


def test_missing_field_is_named(registry: Registry):
    with pytest.raises(ConfigError, match=r"animal 'cat': .* a value for 'owner'"):
        registry.get("cat")


def test_a_file_that_registers_nothing_is_no_component(room: Path, registry: Registry):
    (room / "cow.py").write_text('"""As in\n\n    @register("cow")\n"""\n')
    assert registry.names() == ("cat",)
    with pytest.raises(UnknownNameError, match=r"animal: got 'cow', expected one of cat"):
        registry.get("cow")


def test_only_dataclasses_are_components(registry: Registry):
    with pytest.raises(TypeError, match="must be a dataclass"):
        registry.register("fish")(type("Fish", (), {}))


def test_fields_of_an_undecorated_subclass_do_not_go_unnoticed(registry: Registry):
    class Lion(registry.component("cat")):
        mane: bool = True

    with pytest.raises(TypeError, match="Lion must be a dataclass"):
        registry.register("lion")(Lion)


def test_a_component_cannot_have_a_field_that_is_its_name(registry: Registry):
    @dataclass(frozen=True, kw_only=True)
    class Named:
        name: str

    with pytest.raises(TypeError, match="`name` cannot be a field"):
        registry.register("named")(Named)


def test_a_name_belongs_to_one_class(registry: Registry):
    registry.component("cat")

    @dataclass(frozen=True, kw_only=True)
    class Impostor:
        lives: int = 1

    with pytest.raises(TypeError, match=r"'cat': zoo.cat has that name already"):
        registry.register("cat")(Impostor)


def test_settings_of_what_is_not_registered(registry: Registry):
    with pytest.raises(TypeError, match="int is not registered as animal"):
        registry.settings(3)


@pytest.fixture
def kennels(registry: Registry) -> Registry:
    kennels: Registry = Registry("kennel", "zoo")

    @kennels.register("kennel")
    @dataclass(frozen=True, kw_only=True)
    class Kennel:
        guest: object = nested(registry, "dog")
        beds: int = 1

    return kennels


def test_a_component_holds_another_one(room: Path, registry: Registry, kennels: Registry):
    (room / "dog.py").write_text(CAT.replace("cat", "dog").replace("owner: str", "owner: str = ''"))
    assert nested_registries(kennels.component("kennel")) == {"guest": registry}
    assert kennels.settings(kennels.get("kennel"))["guest"]["name"] == "dog"
    kennel = kennels.get("kennel", guest={"name": "cat", "owner": "Ann"}, beds=2)
    settings = kennels.settings(kennel)
    guest = {"name": "cat", "owner": "Ann", "lives": 9}
    assert settings == {"name": "kennel", "guest": guest, "beds": 2}
    assert kennels.get(**settings) == kennel
    assert kennels.get("kennel", guest=kennel.guest, beds=2) == kennel


def test_a_wrong_field_of_a_component_within_is_named(kennels: Registry):
    with pytest.raises(ConfigError, match=r"animal 'cat': got 'legs', expected a field of"):
        kennels.get("kennel", guest={"name": "cat", "legs": 4})
