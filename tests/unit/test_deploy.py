"""What examples/deploy says, held against qworker, docs/ and each other."""

import ast
import configparser
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

import bicep
from manifests import CONTAINER_APP, KINDS
from qworker._exits import UNUSABLE, WRONG_USE
from qworker.cli.run.command import _LAST_EXIT
from qworker.errors import ConfigurationError
from qworker.processes.supervisor import _KILL_AFTER
from qworker.settings import Settings, parse_seconds

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "examples" / "deploy"
README = (DEPLOY / "README.md").read_text()
RIGHTS = (ROOT / "docs" / "rights.md").read_text()
PROJECT = ROOT / "pyproject.toml"
MANIFESTS: dict[str, Any] = {
    found["kind"]: found for found in yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text())
}
POD = MANIFESTS["Deployment"]["spec"]["template"]["spec"]
TEMPLATE = bicep.parse((DEPLOY / "containerapp.bicep").read_text())
CONTAINER_APP_PROPERTIES = TEMPLATE.resources["worker"][1]["properties"]
UNIT = (DEPLOY / "qworker.service").read_text()
# https://learn.microsoft.com/azure/role-based-access-control/built-in-roles/storage
ROLE_IDS = {
    "Storage Queue Data Contributor": "974c5e8b-45b9-4653-ba55-5f855dd0fb88",
    "Storage Queue Data Message Sender": "c6a89b2d-59bc-44d0-9896-0f6e12d7b80a",
}


def unit() -> configparser.SectionProxy:
    parser = configparser.ConfigParser(strict=False, interpolation=None, comment_prefixes=("#",))
    parser.optionxform = str  # type: ignore[assignment,method-assign] # keys as they are written
    parser.read_string(UNIT)
    return parser["Service"]


def environment(platform: str) -> dict[str, Any]:
    """Return the variables that a worker gets there."""
    if platform == "systemd":
        return dict(pair.split("=", 1) for pair in unit()["Environment"].split())
    container = {"kubernetes": POD, "container apps": CONTAINER_APP_PROPERTIES["template"]}[platform]["containers"][0]
    return {each["name"]: each["value"] for each in container["env"]}


STOP_TIMES = {
    "kubernetes": POD["terminationGracePeriodSeconds"],
    "container apps": CONTAINER_APP_PROPERTIES["template"]["terminationGracePeriodSeconds"],
    "systemd": int(unit()["TimeoutStopSec"]),
}


@pytest.mark.parametrize("platform", STOP_TIMES)
def test_a_worker_ends_before_it_is_killed(platform: str) -> None:
    grace = parse_seconds("QWORKER_GRACE", environment(platform)["QWORKER_GRACE"]) or 0.0
    assert grace == Settings.model_fields["grace"].default
    assert STOP_TIMES[platform] == grace + 10 > grace + max(_LAST_EXIT, _KILL_AFTER) + 4


def test_the_readme_says_so_too() -> None:
    assert {str(STOP_TIMES["kubernetes"])} == set(re.findall(r"stop --time (\d+)", README))
    assert "**grace + 10 s ≤ the platform's time**" in README


@pytest.mark.parametrize("platform", STOP_TIMES)
def test_every_variable_is_a_setting(platform: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in environment(platform).items():
        if name.startswith("QWORKER_"):
            monkeypatch.setenv(name, value)
            assert name.removeprefix("QWORKER_").lower() in Settings.model_fields
    assert Settings.load().broker


@pytest.mark.parametrize("kind", KINDS)
def test_manifests_fit_their_schemas(kind: str) -> None:
    jsonschema.Draft202012Validator(KINDS[kind]).validate(MANIFESTS[kind])


def test_manifests_name_each_other() -> None:
    assert set(KINDS) == set(MANIFESTS)
    deployment, scaled = MANIFESTS["Deployment"], MANIFESTS["ScaledObject"]["spec"]
    assert (
        deployment["spec"]["selector"]["matchLabels"].items()
        <= deployment["spec"]["template"]["metadata"]["labels"].items()
    )
    assert MANIFESTS["ServiceAccount"]["metadata"]["name"] == POD["serviceAccountName"]
    assert deployment["metadata"]["name"] == scaled["scaleTargetRef"]["name"]
    (trigger,) = scaled["triggers"]
    assert MANIFESTS["TriggerAuthentication"]["metadata"]["name"] == trigger["authenticationRef"]["name"]
    assert environment("kubernetes")["QWORKER_BROKER"] == f"azure://{trigger['metadata']['accountName']}"
    assert {mount["name"] for mount in POD["containers"][0]["volumeMounts"]} == {
        each["name"] for each in POD["volumes"]
    }


def test_no_service_of_kubernetes_sets_a_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Into pods with service links, Kubernetes puts QWORKER_HEALTH_PORT for a Service named qworker-health."""
    assert POD["enableServiceLinks"] is False
    monkeypatch.setenv("QWORKER_HEALTH_PORT", "tcp://10.0.0.11:9000")
    with pytest.raises(ConfigurationError, match="QWORKER_HEALTH_PORT"):
        Settings.load()


def test_a_typing_mistake_in_a_manifest_would_be_seen() -> None:
    wrong = json.loads(json.dumps(MANIFESTS["ScaledObject"]))
    wrong["spec"]["triggers"][0]["metadata"]["queueLenght"] = "5"
    with pytest.raises(jsonschema.ValidationError, match="queueLenght"):
        jsonschema.Draft202012Validator(KINDS["ScaledObject"]).validate(wrong)


def test_the_probes_are_those_of_the_page_on_monitoring() -> None:
    page = (ROOT / "docs" / "monitoring.md").read_text()
    shown = yaml.safe_load(re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)[0])
    container = POD["containers"][0]
    assert shown == {name: container[name] for name in shown}
    for probe in CONTAINER_APP_PROPERTIES["template"]["containers"][0]["probes"]:
        same = container[f"{probe['type'].lower()}Probe"]
        assert probe["httpGet"] == same["httpGet"] | {"port": container["ports"][0]["containerPort"]}
        assert probe["periodSeconds"] * probe.get("failureThreshold", 1) == same["periodSeconds"] * same.get(
            "failureThreshold", 1
        )


def test_the_container_app_fits_its_schema() -> None:
    jsonschema.Draft202012Validator(CONTAINER_APP).validate(CONTAINER_APP_PROPERTIES)


def test_the_template_uses_what_it_declares() -> None:
    declared = {*TEMPLATE.parameters, *TEMPLATE.variables, *TEMPLATE.resources}
    assert declared == TEMPLATE.used | {"worker"}
    assert {"environment", "account", "queueService"} == TEMPLATE.existing
    assert TEMPLATE.parameters["queueName"] == "mail"
    given = set(re.findall(r"(\w+)=my", README))
    assert {name for name, default in TEMPLATE.parameters.items() if default is None} == given


@pytest.mark.parametrize(
    ("symbol", "scope", "role"),
    [
        ("works", "queue", "Storage Queue Data Contributor"),
        ("givesUp", "poisonQueue", "Storage Queue Data Message Sender"),
    ],
)
def test_the_roles_are_the_least(symbol: str, scope: str, role: str) -> None:
    """Each for one queue only, as docs/rights.md says it of a worker."""
    variable = "".join(role.split())
    variable = variable[0].lower() + variable[1:]
    assigned = TEMPLATE.resources[symbol][1]
    assert scope == assigned["scope"].text
    assert f", {variable})" in assigned["properties"]["roleDefinitionId"].text
    assert ROLE_IDS[role] == TEMPLATE.variables[variable]
    queue = {"queue": "mail", "poisonQueue": "mail-poison"}[scope]
    assert f'--assignee $WORKER --role "{role}" --scope $queues/{queue}\n' in RIGHTS


def test_the_template_assigns_no_other_role() -> None:
    types = [of for of, _ in TEMPLATE.resources.values()]
    assert 2 == types.count("Microsoft.Authorization/roleAssignments@2022-04-01")
    assert set(ROLE_IDS.values()) == set(TEMPLATE.variables.values())


@pytest.mark.parametrize(
    "wrong", ["param x string =\n", "resource a 'b' = {\n  name 'c'\n}\n", "var a = 'b\n", "a b\n"]
)
def test_what_is_not_bicep_is_refused(wrong: str) -> None:
    with pytest.raises(ValueError, match=r"'"):
        bicep.parse(wrong)


def instructions() -> list[tuple[str, str]]:
    """Return what the Dockerfile says, line by line."""
    text = re.sub(r"\\\n\s*", "", re.sub(r"^\s*#.*\n", "", (DEPLOY / "Dockerfile").read_text(), flags=re.MULTILINE))
    lines = (line.split(maxsplit=1) for line in text.splitlines() if line)
    return [(name, rest) for name, rest in lines]


def test_the_image_is_what_its_first_line_says() -> None:
    said = instructions()
    assert {"FROM", "WORKDIR", "COPY", "RUN", "ENV", "USER", "EXPOSE", "STOPSIGNAL", "ENTRYPOINT", "CMD"} == {
        name for name, _ in said
    }
    bases = [rest.split()[0] for name, rest in said if name == "FROM"]
    assert 2 == len(bases)
    assert all(re.fullmatch(r"python:3\.\d+-slim", base) for base in bases)
    last = said[[name for name, _ in said].index("FROM", 1) :]
    assert "RUN" not in {name for name, _ in last}  # nothing is installed in what is shipped
    final = dict(last)
    assert ["qworker", "run"] == ast.literal_eval(final["ENTRYPOINT"])  # exec form: no shell between
    assert POD["containers"][0]["args"] == ast.literal_eval(final["CMD"])
    assert "SIGTERM" == final["STOPSIGNAL"] == unit()["KillSignal"]
    user = POD["securityContext"]
    assert f"{user['runAsUser']}:{user['runAsGroup']}" == final["USER"] != "0:0"
    port = str(POD["containers"][0]["ports"][0]["containerPort"])
    assert port == final["EXPOSE"] == re.findall(r"QWORKER_HEALTH_PORT=(\d+)", final["ENV"])[0]


def test_the_image_is_made_of_what_is_there() -> None:
    sent = {line[1:] for line in (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines() if line[0] == "!"}
    copied = {
        source
        for name, rest in instructions()
        if name == "COPY" and not rest.startswith("--from")
        for source in rest.split()[:-1]
    }
    assert copied == sent
    assert all((ROOT / name).exists() for name in sent)
    (build,) = (rest for name, rest in instructions() if name == "RUN")
    assert "://" not in build
    extras = re.findall(r"'\.\[([\w,]+)\]'", build)[0].split(",")
    assert all(f"\n{extra} = [" in PROJECT.read_text() for extra in extras)


def test_the_unit_stops_a_worker_as_it_wants_to_be_stopped() -> None:
    service = unit()
    assert ("exec", "mixed", "always", "continue") == (
        service["Type"],
        service["KillMode"],
        service["Restart"],
        service["OOMPolicy"],
    )
    assert [WRONG_USE, UNUSABLE] == [int(code) for code in service["RestartPreventExitStatus"].split()]
    assert environment("systemd")["QWORKER_BROKER"] == f"sqlite:////var/lib/{service['StateDirectory']}/qworker.db"


@pytest.mark.parametrize("command", [["verify"], ["security", "--offline=true", "--threshold=20"]])
def test_systemd_takes_the_unit(command: list[str], tmp_path: Path) -> None:
    """With a program that is there; where systemd is not, by what else can be known of it."""
    program = unit()["ExecStart"].split()[0]
    file = tmp_path / "qworker.service"
    file.write_text(UNIT.replace(program, sys.executable).replace(unit()["WorkingDirectory"], str(tmp_path)))
    if (analyze := shutil.which("systemd-analyze")) is None:
        assert ["Description", "ExecStart", "WantedBy"] == re.findall(
            r"^(Description|ExecStart|WantedBy)=.", UNIT, re.MULTILINE
        )
        return
    ended = subprocess.run([analyze, *command, str(file)], capture_output=True, text=True, check=False)
    assert 0 == ended.returncode, ended.stdout + ended.stderr
    assert "qworker.service" not in ended.stderr


def test_the_list_of_files_is_complete() -> None:
    there = {found.name for found in DEPLOY.iterdir() if found.is_file()} - {"README.md", "Dockerfile.dockerignore"}
    assert there == set(re.findall(r"^\| \[([\w.-]+)\]\(\1\)", README, re.MULTILINE))
