from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qworker.errors import ConfigurationError
from qworker.settings import Settings, ignored_variables, parse_seconds


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("AZURE_STORAGE_CONNECTION_STRING", *(f"QWORKER_{field.upper()}" for field in Settings.model_fields)):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


def write_toml(text: str) -> None:
    Path("pyproject.toml").write_text(text)


def test_defaults() -> None:
    settings = Settings.load()
    assert ({}, 16, 1, 60, 25.0) == (
        settings.queues,
        settings.concurrency,
        settings.processes,
        settings.lease,
        settings.grace,
    )
    assert ("info", "auto", "text", False, False) == (
        settings.log_level,
        settings.log_format,
        settings.encoding,
        settings.burst,
        settings.reload,
    )
    assert (None, None, None, None) == (settings.max_jobs, settings.poll_min, settings.poll_max, settings.app)


def test_the_command_line_comes_before_the_environment_before_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    write_toml("[tool.qworker]\nconcurrency = 1\nprocesses = 1\nlease = 11\n")
    monkeypatch.setenv("QWORKER_CONCURRENCY", "2")
    monkeypatch.setenv("QWORKER_PROCESSES", "2")
    settings = Settings.load({"concurrency": 3, "processes": None})
    assert (3, 2, 11, 25.0) == (settings.concurrency, settings.processes, settings.lease, settings.grace)


def test_an_empty_variable_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QWORKER_CONCURRENCY", "")
    assert 16 == Settings.load().concurrency


def test_a_file_without_a_table_says_nothing() -> None:
    write_toml('[project]\nname = "x"\n')
    assert 16 == Settings.load().concurrency


@pytest.mark.parametrize(
    ("given", "queues"),
    [
        ("mail", {"mail": 1}),
        ("mail:3,default", {"mail": 3, "default": 1}),
        (" mail:3 , default, ", {"mail": 3, "default": 1}),
        (["mail:3", "default"], {"mail": 3, "default": 1}),
        (("mail",), {"mail": 1}),
        ({"mail": 3}, {"mail": 3}),
        ("", {}),
    ],
)
def test_queues(given: Any, queues: dict[str, int], monkeypatch: pytest.MonkeyPatch) -> None:
    assert queues == Settings.load({"queues": given}).queues
    assert list(queues) == list(Settings.load({"queues": given}).queues)
    if isinstance(given, str):
        monkeypatch.setenv("QWORKER_QUEUES", given)
        assert queues == Settings.load().queues


def test_queues_of_a_file() -> None:
    write_toml('[tool.qworker]\nqueues = ["mail:3", "default"]\n')
    assert {"mail": 3, "default": 1} == Settings.load().queues
    write_toml("[tool.qworker.queues]\nmail = 3\n")
    assert {"mail": 3} == Settings.load().queues


@pytest.mark.parametrize(
    ("given", "seconds"),
    [("90", 90), ("90s", 90), ("1.5m", 90), ("1h", 3600), ("2d", 172_800), ("500ms", 0.5), (" 5 s ", 5), (7, 7)],
)
def test_spans_of_time(given: Any, seconds: float) -> None:
    assert seconds == Settings.load({"grace": given}).grace
    if isinstance(given, str):
        assert seconds == parse_seconds("--older-than", given)


def test_a_span_of_an_option() -> None:
    assert parse_seconds("--older-than", None) is None
    with pytest.raises(
        ConfigurationError, match=r"^--older-than: 'soon' is not a time span such as 90, 90s, 5m or 1h$"
    ):
        parse_seconds("--older-than", "soon")


MISTAKES: list[tuple[str, Any, str]] = [
    ("concurrency", "many", "must be a valid integer, unable to parse string as an integer"),
    ("concurrency", 0, "must be greater than or equal to 1"),
    ("processes", 10_000, "must be less than or equal to 1000"),
    ("log_level", "loud", "must be 'debug', 'info', 'warning' or 'error'"),
    ("log_format", "xml", "must be 'auto', 'console' or 'json'"),
    ("encoding", "utf-8", "must be 'text' or 'base64'"),
    ("burst", "perhaps", "must be a valid boolean, unable to interpret input"),
    ("lease", "1", "must be greater than or equal to 2"),
    ("lease", "8d", "must be less than or equal to 604800"),
    ("lease", "2.5s", "must be a valid integer, got a number with a fractional part"),
    ("lease", "soon", "'soon' is not a time span such as 90, 90s, 5m or 1h"),
    ("grace", "-1", "'-1' is not a time span such as 90, 90s, 5m or 1h"),
    ("grace", "9" * 400, "a time span can be 100 years at most"),
    ("poll_max", 0, "must be greater than 0"),
    ("max_jobs", 0, "must be greater than or equal to 1"),
    ("health_port", 65_536, "must be less than or equal to 65535"),
    ("health_port", "http", "must be a valid integer, unable to parse string as an integer"),
    ("queues", "Mail", "queue name 'Mail' is not allowed: use lower-case letters, digits and single hyphens between"),
    ("queues", "mail:", "'mail:' is not NAME or NAME:WEIGHT"),
    ("queues", "mail:x", "'mail:x' is not NAME or NAME:WEIGHT"),
    ("queues", "mail:0", "the weight of queue 'mail' must be at least 1"),
    ("queues", "q" * 57, "queue name"),
]


@pytest.mark.parametrize(("name", "value", "problem"), MISTAKES)
def test_a_mistake_is_one_line_that_names_the_option(name: str, value: Any, problem: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Settings.load({name: value})
    assert str(caught.value).startswith(f"--{name.replace('_', '-')}: {problem}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("name", "value", "problem"), MISTAKES)
def test_a_mistake_is_one_line_that_names_the_variable(
    name: str, value: Any, problem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"QWORKER_{name.upper()}", str(value))
    with pytest.raises(ConfigurationError) as caught:
        Settings.load()
    assert str(caught.value).startswith(f"QWORKER_{name.upper()}: {problem}")


@pytest.mark.parametrize(
    ("toml", "problem"),
    [
        ("concurrency = 0", "[tool.qworker] concurrency in pyproject.toml: must be greater than or equal to 1"),
        ("grace = inf", "[tool.qworker] grace in pyproject.toml: must be a finite number"),
        (
            "workers = 4",
            "[tool.qworker] workers in pyproject.toml: no such setting; there are app, broker",
        ),
    ],
)
def test_a_mistake_is_one_line_that_names_the_file(toml: str, problem: str) -> None:
    write_toml(f"[tool.qworker]\n{toml}\n")
    with pytest.raises(ConfigurationError) as caught:
        Settings.load()
    assert str(caught.value).startswith(problem)
    assert "\n" not in str(caught.value)


def test_all_mistakes_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QWORKER_LEASE", "1")
    with pytest.raises(ConfigurationError, match=r"^--concurrency: must .*; QWORKER_LEASE: must "):
        Settings.load({"concurrency": 0})


def test_an_unknown_option_is_no_setting() -> None:
    with pytest.raises(ConfigurationError, match=r"^--workers: no such setting; there are "):
        Settings.load({"workers": 3})


def test_the_broker_is_found_and_never_shown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert f"sqlite:///{tmp_path}/qworker.db" == Settings.load().broker_url()
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", "AccountName=a;AccountKey=s3cret")
    assert "AccountName=a;AccountKey=s3cret" == Settings.load().broker_url()
    monkeypatch.setenv("QWORKER_BROKER", "https://a.queue.core.windows.net?sig=s3cret")
    settings = Settings.load()
    assert "https://a.queue.core.windows.net?sig=s3cret" == settings.broker_url()
    assert "s3cret" not in repr(settings)
    with pytest.raises(ConfigurationError) as caught:
        Settings.load({"broker": ["s3cret"]})
    assert "s3cret" not in str(caught.value)


LEVELS = {"debug": "debug", "info": "info", "warning": "warning", "warn": "warning", "error": "error"}


@given(st.data(), st.sampled_from([*LEVELS]), st.sampled_from(["option", "variable", "file"]))
def test_a_level_is_understood_however_it_is_written(data: st.DataObject, level: str, way: str) -> None:
    written = "".join(data.draw(st.sampled_from([each, each.upper()])) for each in level)
    assert LEVELS[level] == loaded("log_level", written, way).log_level


@pytest.mark.parametrize("way", ["option", "variable", "file"])
@pytest.mark.parametrize(
    ("name", "written", "meant"),
    [("log_format", "JSON", "json"), ("loop", "AsyncIO", "asyncio"), ("encoding", "Base64", "base64")],
)
def test_a_word_in_capitals_is_the_same_word(name: str, written: str, meant: str, way: str) -> None:
    assert meant == getattr(loaded(name, written, way), name)


def loaded(name: str, value: str, way: str) -> Settings:
    """Load a setting that is given in one of the three ways."""
    with pytest.MonkeyPatch.context() as patch:
        if way == "variable":
            patch.setenv(f"QWORKER_{name.upper()}", value)
        write_toml(f"[tool.qworker]\n{name} = '{value}'\n" if way == "file" else "")
        return Settings.load({name: value} if way == "option" else {})


@given(st.sampled_from(sorted(Settings.model_fields)), st.data())
def test_a_misspelt_variable_is_refused_and_the_setting_is_named(name: str, data: st.DataObject) -> None:
    """With one character left out, doubled, or changed."""
    at = data.draw(st.integers(0, len(name) - 1))
    written = name[:at] + data.draw(st.sampled_from(["", name[at] * 2, "x"])) + name[at + 1 :]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(f"QWORKER_{written.upper()}", "1")
        if written in Settings.model_fields or len(name) < 4:  # of "app" too little is left to know it by
            return
        with pytest.raises(
            ConfigurationError, match=rf"^QWORKER_{written.upper()}: no such setting: is QWORKER_\w+ meant\?$"
        ):
            Settings.load()


@pytest.mark.parametrize(
    "theirs",
    ["SERVICE_HOST", "SERVICE_PORT", "SERVICE_PORT_HTTP", "PORT", "PORT_80_TCP", "PORT_80_TCP_ADDR", "HOME", "DEBUG"],
)
def test_a_variable_of_somebody_else_is_no_mistake(theirs: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kubernetes sets most of these for a service named qworker."""
    monkeypatch.setenv(f"QWORKER_{theirs}", "tcp://10.0.0.1:80")
    assert 16 == Settings.load().concurrency
    assert ([] if theirs == "DEBUG" else [f"QWORKER_{theirs}"]) == ignored_variables()
