"""The chart as its tests see it: values in, objects out."""

import json
import os
import pathlib
import subprocess

import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
CHART = ROOT / "charts" / "aws-deploy-user-operator"
NAME = "aws-deploy-user-operator"
NAMESPACE = "operators"


class Refused(Exception):
    """helm says no; the message is helm's."""


def values():
    return yaml.safe_load((CHART / "values.yaml").read_text())


def schema():
    return json.loads((CHART / "values.schema.json").read_text())


def helm(*arguments, given=None):
    done = subprocess.run(
        [os.environ["HELM"], *arguments, "--namespace", NAMESPACE, *(["--values", "-"] if given is not None else [])],
        input=None if given is None else json.dumps(given),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    if done.returncode != 0:
        raise Refused(done.stderr)
    return done.stdout


def text(given=None, release=NAME):
    return helm("template", release, str(CHART), given=given or {})


def notes(given=None):
    return helm("install", NAME, str(CHART), "--dry-run=client", given=given or {}).split("\nNOTES:\n", 1)[1]


class Objects(list):
    """Rendered objects, found by kind and the end of their name."""

    def __init__(self, given=None, release=NAME):
        super().__init__(document for document in yaml.safe_load_all(text(given, release)) if document)

    def kind(self, kind):
        return [found for found in self if found["kind"] == kind]

    def one(self, kind, end=""):
        found = [found for found in self.kind(kind) if found["metadata"]["name"].endswith(end)]
        if not end and len(found) > 1:
            found = [shortest for shortest in found if shortest["metadata"]["name"] == NAME]
        assert len(found) == 1, f"{len(found)} objects {kind} *{end}"
        return found[0]

    @property
    def pod(self):
        return self.one("Deployment")["spec"]["template"]["spec"]

    @property
    def container(self):
        (container,) = self.pod["containers"]
        return container

    @property
    def arguments(self):
        return self.container["args"]

    @property
    def environment(self):
        return {variable["name"]: variable.get("value") for variable in self.container.get("env", [])}
