"""Renders the chart for tests."""

import functools
import json
import os
import pathlib
import subprocess
import tempfile

import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
CHART = ROOT / "charts" / "aws-deploy-user-operator"
NAME = "aws-deploy-user-operator"
NAMESPACE = "operators"


class HelmError(Exception):
    """helm failed; the message is from helm."""


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
        raise HelmError(done.stderr)
    return done.stdout


def text(given=None, release=NAME):
    return rendered(json.dumps(given or {}), release)


@functools.cache
def rendered(given, release):
    return helm("template", release, str(CHART), given=json.loads(given))


def notes(given=None):
    return helm("install", NAME, str(CHART), "--dry-run=client", given=given or {}).split("\nNOTES:\n", 1)[1]


def kubernetes_versions():
    """Kubernetes versions whose schemas objects are validated against."""
    return sorted(path.name for path in pathlib.Path(os.environ["SCHEMAS"]).iterdir())


def schema_errors(files, versions=None):
    """Errors of kubeconform for these documents, one per line; `files` maps names to text or documents."""
    found = []
    with tempfile.TemporaryDirectory() as directory:
        for name, content in files.items():
            content = content if isinstance(content, str) else yaml.safe_dump_all(content)
            (pathlib.Path(directory) / f"{name}.yaml").write_text(content)
        for version in versions or kubernetes_versions():
            location = f"{os.environ['SCHEMAS']}/{version}/{{{{.ResourceKind}}}}{{{{.KindSuffix}}}}.json"
            done = subprocess.run(
                [os.environ["KUBECONFORM"], "-strict", "-summary", "-output", "json", "-schema-location", location, directory],
                capture_output=True, text=True, check=False, timeout=120,
            )
            answer = json.loads(done.stdout)
            summary = answer["summary"]
            assert summary["valid"] + summary["invalid"] + summary["errors"] >= len(files) and not summary["skipped"], summary
            found += [
                f"{pathlib.Path(refused['filename']).stem}: {refused['kind']} {refused['name']} in {version}: {refused['msg']}"
                for refused in answer.get("resources") or []
            ]
    return found


class Objects(list):
    """Rendered objects of the operator, selected by kind and name suffix. Those of the start-up check are in `check`."""

    def __init__(self, given=None, release=NAME):
        documents = [document for document in yaml.safe_load_all(text(given, release)) if document]
        checks = [found["metadata"].get("labels", {}).get("app.kubernetes.io/name", "").endswith("-check") for found in documents]
        super().__init__(document for document, is_check in zip(documents, checks, strict=True) if not is_check)
        self.check = {document["kind"]: document for document, is_check in zip(documents, checks, strict=True) if is_check}

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
