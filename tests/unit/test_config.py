"""Settings: a flag wins over the environment, that over the file, that over the default; what is wrong is said with its place."""

from __future__ import annotations

import os
import re
import tempfile
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from unitp.config import ABOUT, DEFAULTS, own_file, python_of, settings, variable_of, variables_of
from unitp.errors import InputError


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def own(folder: Path) -> Path:
    """The folder of the user's own settings file, below a home."""
    found = folder / "home" / ".config" / "unitp"
    found.mkdir(parents=True)
    return found / "unitp.toml"


GIVEN = {
    "backend": ("numpy", "torch", '"mxnet"', "tensorflow"),
    "mesh": ("tp=1", "tp=2", '"tp=3"', "dp=2,tp=2"),
    "machine": ("", "h100-nvlink", '"a100-nvlink"', "two.toml"),
    "dtype": ("float32", "float64", '"float32"', "float64"),
    "weights": ("float32", "bfloat16", '"float16"', "float32"),
    "context": (0, 1, "2", "3"),
    "threads": (1, 2, "3", "4"),
    "port": (0, 5001, "5002", "5003"),
    "isolation": ("auto", "off", '"require"', "auto"),
    "transport": ("auto", "native", '"mpi"', "auto"),
    "stall_s": (120.0, 1.5, "2", "3.5"),
}


def test_every_setting_has_a_default_and_a_description() -> None:
    assert set(DEFAULTS) == set(ABOUT) == set(GIVEN)


@pytest.mark.parametrize("name", GIVEN)
def test_flag_over_environment_over_file_over_default(folder: Path, name: str) -> None:
    default, flag, in_file, in_environment = GIVEN[name]
    kind: Callable[[object], object] = type(default)

    def found(flags: dict[str, object], environment: dict[str, str]) -> tuple[object, str]:
        setting = settings(flags, environment)[name]
        assert type(setting.value) is kind
        return setting.value, setting.origin

    variable = {variable_of(name): str(in_environment)}
    assert found({}, {}) == (default, "default")
    (folder / "unitp.toml").write_text(f"{name} = {in_file}\n")
    assert found({name: None}, {}) == (kind(str(in_file).strip('"')), "unitp.toml")
    assert found({name: None}, {variable_of(name): ""}) == found({}, {})
    assert found({name: None}, variable) == (kind(in_environment), f"UNITP_{name.upper()}")
    assert found({name: flag}, variable) == (flag, "flag")


def test_another_file_is_named_by_a_variable(folder: Path) -> None:
    (folder / "unitp.toml").write_text('backend = "torch"\n')
    (folder / "other.toml").write_text('mesh = "tp=2"\n')
    found = settings(environment={"UNITP_CONFIG": "other.toml"})
    assert (found["backend"].value, found["mesh"].value) == ("numpy", "tp=2")
    assert found["mesh"].origin == "other.toml"
    with pytest.raises(InputError, match=r"cannot read the file that UNITP_CONFIG names, absent.toml"):
        settings(environment={"UNITP_CONFIG": "absent.toml"})


def test_interpreters_are_named_per_backend(folder: Path, own: Path) -> None:
    own.write_text('[backends.mxnet]\npython = "/opt/a"\n[backends.torch]\npython = "/opt/b"\n')
    found = settings(environment={"HOME": str(folder / "home"), "UNITP_BACKENDS_TORCH_PYTHON": "/opt/c"})
    assert python_of("mxnet", found) == "/opt/a"
    assert python_of("torch", found) == "/opt/c"
    assert python_of("numpy", found) is None
    assert found["backends.torch.python"].origin == "UNITP_BACKENDS_TORCH_PYTHON"
    assert found["backends.mxnet.python"].origin == str(own)


@pytest.mark.parametrize(
    "text, message",
    [
        ('bakend = "torch"', 'unknown setting "bakend"\nDid you mean "backend"?'),
        ("threads = 1.5", 'threads is "1.5" but must be a whole number'),
        ("threads = true", 'threads is "True" but must be a whole number'),
        ("threads = 0", "threads is 0 but must be a number from 1 to 4096"),
        ("port = 70000", "port is 70000 but must be 0 (free ones), or a number up to 65535"),
        ("context = -1", "context is -1"),
        (
            "context = 0x" + "f" * 5000,
            "unitp.toml is not TOML: a whole number has more than 40 digits",
        ),
        ("stall_s = nan", "stall_s is nan"),
        ('stall_s = "long"', 'stall_s is "long" but must be a number'),
        ("mesh = 2", 'mesh is "2" but must be text in quotes'),
        ("backend = [", "unitp.toml is not TOML"),
        ("backends = 3", "[backends.NAME]"),
        ("backends.mxnet = 3", "[backends.NAME]"),
        ("[backends.mxnet]\npyton = 'x'", '[backends.mxnet] has python = "..."'),
        ("[backends.mxnet]\npython = 3", '[backends.mxnet] has python = "..."'),
        ("[backends.mxnet]\npython = ''", '[backends.mxnet] has python = "..."'),
        ('[backends.mxnet]\npython = "/a\\u0000b"', '[backends.mxnet] has python = "..."'),
        ("threads = 0x" + "f" * 5000, "unitp.toml is not TOML: a whole number has more than 40 digits"),
        ("threads = " + "9" * 5000, "unitp.toml is not TOML: Exceeds the limit"),
        ("stall_s = 1e400", "stall_s is inf but must be a number of seconds from 0.1 to 1e9"),
        ("mesh" + ".a" * 9 + " = 1", 'mesh is "a table" but must be text in quotes'),
        ('machine = "a\\u0000b"', 'machine is "a\\x00b" but must be text in quotes'),
        ("mesh = [[1]]", 'mesh is "a list" but must be text in quotes'),
        ("mesh = 1979-05-27", 'mesh is "1979-05-27" but must be text in quotes'),
        ("mesh = " + "[" * 5000, "unitp.toml is not TOML: it nests deeper than 64 levels"),
        ('mesh = "a"\nmesh = "b"', "unitp.toml is not TOML: Cannot overwrite a value"),
        ("#" * 20_000, "unitp.toml has 20000 bytes, at most 16384 are read"),
    ],
)
def test_what_is_wrong_in_a_file_is_said(folder: Path, text: str, message: str) -> None:
    (folder / "unitp.toml").write_text(text)
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        settings(environment={})
    assert "unitp.toml" in str(caught.value)


def test_a_file_that_is_no_text_is_refused(folder: Path) -> None:
    (folder / "unitp.toml").write_bytes(b'backend = "\xff"')
    with pytest.raises(InputError, match=r"cannot read unitp.toml: it is not UTF-8 at byte 11"):
        settings(environment={})


def test_a_file_that_is_no_file_is_refused_without_waiting_for_it(folder: Path) -> None:
    for kind in (os.mkfifo, Path.mkdir, lambda path: path.symlink_to("/dev/zero"), lambda path: path.symlink_to(path)):
        kind(folder / "unitp.toml")
        with pytest.raises(
            InputError, match=r"cannot read unitp.toml: (it is .*not a regular file|Is a directory|Too many levels)"
        ):
            settings(environment={})
        (folder / "unitp.toml").rename(folder / f"{kind}".replace("/", "_"))
    with (folder / "unitp.toml").open("wb") as sparse:
        sparse.truncate(3 * 2**30)
    with pytest.raises(InputError, match="at most 16384 are read"):
        settings(environment={})


def test_a_dangling_link_is_no_file(folder: Path) -> None:
    (folder / "unitp.toml").symlink_to("absent")
    assert settings(environment={})["backend"].origin == "default"


@pytest.mark.parametrize(
    "environment, message",
    [
        ({"UNITP_THREADS": "many"}, 'UNITP_THREADS: threads is "many" but must be a whole number'),
        ({"UNITP_STALL_S": "0"}, "UNITP_STALL_S: stall_s is 0.0 but must be a number of seconds from 0.1 to 1e9"),
        ({"UNITP_BAKEND": "torch"}, 'UNITP_BAKEND is not a setting\nDid you mean "UNITP_BACKEND"?'),
    ],
)
def test_what_is_wrong_in_the_environment_is_said(folder: Path, environment: dict[str, str], message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        settings(environment=environment)


def test_variables_of_sessions_are_no_settings(folder: Path) -> None:
    names = ("UNITP_SESSION", "UNITP_ROLE", "UNITP_NUMBER", "UNITP_FOLDER", "UNITP_TEST")
    assert settings(environment=dict.fromkeys(names, "1")) == settings(environment={})


def test_a_wrong_flag_is_named(folder: Path) -> None:
    with pytest.raises(InputError, match="--stall-s: stall_s is -1"):
        settings({"stall_s": -1.0}, {})


# the user's own file


def test_the_users_own_file_counts_less_than_the_projects(folder: Path, own: Path) -> None:
    own.write_text('backend = "torch"\nmesh = "tp=2"\n[backends.mxnet]\npython = "/own/python"\n')
    environment = {"HOME": str(folder / "home")}
    found = settings(environment=environment)
    assert (found["backend"].value, found["backend"].origin) == ("torch", str(own))
    (folder / "unitp.toml").write_text('backend = "tensorflow"\n')
    found = settings(environment=environment)
    assert (found["backend"].value, found["mesh"].value) == ("tensorflow", "tp=2")
    assert python_of("mxnet", found) == "/own/python"


def test_the_users_own_file_adds_variables(folder: Path, own: Path) -> None:
    own.write_text('[backends.torch.env]\nCUDA_HOME = "/opt/cuda"\nLD_PRELOAD = ""\n')
    found = settings(environment={"HOME": str(folder / "home")})
    assert variables_of("torch", found) == {"CUDA_HOME": "/opt/cuda", "LD_PRELOAD": ""}
    assert variables_of("numpy", found) == {}
    assert found["backends.torch.env.CUDA_HOME"].origin == str(own)


TABLES = {
    "an interpreter": '[backends.mxnet]\npython = "/project/python"',
    "a variable": '[backends.torch.env]\nLD_PRELOAD = "./here.so"',
    "both": '[backends.mxnet]\npython = "/p"\n[backends.mxnet.env]\nA = "1"\nB = "2"\n[backends.torch]\npython = "/q"',
    "odd text": '[backends."a b"]\npython = "/\\u001B[31m\\"\\\\\\u202E\\U000E0041 ä"\n["backends"."a b".env]\nX = "\\n"',
}


@pytest.mark.parametrize("kind", TABLES)
@pytest.mark.parametrize("name", ["unitp.toml", "other.toml", "full"])
def test_a_projects_file_decides_no_program(kind: str, name: str, folder: Path, own: Path) -> None:
    """It is refused with the very lines that the user's own file takes; a file that UNITP_CONFIG names is a project's."""
    environment = {"HOME": str(folder / "home")}
    project = folder / "full.toml" if name == "full" else Path(name)
    if name != "unitp.toml":
        environment["UNITP_CONFIG"] = str(project)
    project.write_text('mesh = "tp=2"\n' + TABLES[kind] + "\n", "utf-8")
    with pytest.raises(
        InputError, match=rf"{project}: \[backends\..*\] may stand in your own settings file only"
    ) as caught:
        settings(environment=environment)
    first, _, lines = caught.value.hint.partition("\n\n")
    assert first == f"If you trust it, move these lines to {own}:"
    assert lines.replace("\n", "").isprintable()
    assert tomllib.loads(lines)["backends"] == tomllib.loads(TABLES[kind])["backends"]
    own.write_text(lines, "utf-8")
    project.write_text('mesh = "tp=2"\n')
    found = settings(environment=environment)
    assert {f.origin for f in found.values() if f.name.startswith("backends.")} == {str(own)}
    assert found["mesh"].value == "tp=2"


def test_the_users_own_file_is_known_by_any_name(folder: Path, own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own.write_text('[backends.torch]\npython = "/opt/python"\n')
    environment = {"HOME": str(folder / "home")}
    assert python_of("torch", settings(environment={**environment, "UNITP_CONFIG": str(own)}))
    monkeypatch.chdir(own.parent)
    assert python_of("torch", settings(environment=environment))
    (folder / "link").symlink_to(folder / "home")
    monkeypatch.chdir(folder / "link" / ".config" / "unitp")
    assert python_of("torch", settings(environment=environment))
    assert python_of("torch", settings(environment={"XDG_CONFIG_HOME": str(folder / "link" / ".config")}))


def test_a_relative_interpreter_or_home_would_be_another_in_every_folder(folder: Path, own: Path) -> None:
    own.write_text('[backends.torch]\npython = "venv/bin/python"\n')
    with pytest.raises(InputError, match="which depends on the current folder") as caught:
        settings(environment={"HOME": str(folder / "home")})
    assert "full path" in caught.value.hint
    own.write_text('[backends.torch]\npython = "python3.12"\n')
    assert python_of("torch", settings(environment={"HOME": str(folder / "home")})) == "python3.12"
    for home in ("home", ".", "./home"):
        assert own_file({"HOME": home}) is None
        assert python_of("torch", settings(environment={"HOME": home})) is None


def test_a_home_that_may_not_be_entered_has_no_settings() -> None:
    """As after `su` with another user's HOME. A file that may not be read is an error."""
    user = os.geteuid()
    with tempfile.TemporaryDirectory() as home:
        own = Path(home, ".config", "unitp", "unitp.toml")
        own.parent.mkdir(parents=True)
        own.write_text('backend = "torch"\n')
        try:
            os.chmod(own, 0)
            os.chmod(home, 0o755)
            os.seteuid(user or 65534)  # root may read everything
            with pytest.raises(InputError, match=f"cannot read {own}: Permission denied"):
                settings(environment={"HOME": home})
            os.seteuid(user)
            os.chmod(home, 0)
            os.seteuid(user or 65534)
            assert settings(environment={"HOME": home})["backend"].origin == "default"
        finally:
            os.seteuid(user)
            os.chmod(home, 0o700)


def test_xdg_names_another_place_and_none_is_needed(folder: Path) -> None:
    assert own_file({"XDG_CONFIG_HOME": "/xdg", "HOME": "/home"}) == Path("/xdg/unitp/unitp.toml")
    assert own_file({"XDG_CONFIG_HOME": "relative", "HOME": "/home"}) == Path("/home/.config/unitp/unitp.toml")
    assert own_file({}) is None
    assert settings(environment={})["backend"].origin == "default"


@pytest.mark.parametrize(
    "text, message",
    [
        ("[backends.mxnet]\nenv = 3", 'write NAME = "value" below it'),
        ("[backends.mxnet.env]\nX = 3", 'X is "3" but must be text in quotes'),
        ("[backends.mxnet.env]\n'a=b' = 'x'", '"a=b" is not the name of a variable'),
        ("[backends.mxnet.env]\nUNITP_SESSION = 'x'", "UNITP_SESSION is unitp's own"),
    ],
)
def test_what_cannot_be_a_variable_is_said(folder: Path, own: Path, text: str, message: str) -> None:
    own.write_text(text + "\n")
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        settings(environment={"HOME": str(folder / "home")})
    assert str(own) in str(caught.value)


def test_a_projects_file_cannot_switch_isolation_off(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "unitp.toml").write_text('isolation = "require"\n')
    assert settings({}, {})["isolation"].value == "require"
    (folder / "unitp.toml").write_text('isolation = "off"\n')
    with pytest.raises(InputError, match="cannot switch isolation off"):
        settings({}, {})
    own = folder / "home" / "unitp"
    own.mkdir(parents=True)
    (own / "unitp.toml").write_text('isolation = "off"\n')
    (folder / "unitp.toml").unlink()
    assert settings({}, {"XDG_CONFIG_HOME": str(folder / "home")})["isolation"].value == "off"
