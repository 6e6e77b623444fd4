"""Claims about every manifest of the repository: it fits the schemas of Kubernetes, of those whose kinds the chart makes, and of
our own CRDs.

Held against the oldest Kubernetes that the chart allows, and against the one that the tests run.
"""

import copy
import re
import unittest

import yaml
from chart import CHART, ROOT, Objects, kubernetes_versions, misfits, notes, text
from test_chart import SAMPLES, at, merged

ALL_ON = {
    "secretAccess": {"namespaces": ["a"]},
    "restartAccess": {"namespaces": ["a"]},
    "presets": {
        "cycle": {"enabled": True, "namespaces": ["a"]},
        "defang": {"enabled": True, "namespaces": ["a"]},
        "cdk": {"enabled": True, "namespaces": ["a"], "policy": "arn:aws:iam::123456789012:policy/cdk"},
    },
    "metrics": {
        "auth": {"enabled": True},
        "serviceMonitor": {"enabled": True},
        "prometheusRule": {"enabled": True},
        "dashboard": {"enabled": True},
    },
}


class Chart(unittest.TestCase):
    """What helm makes of the chart."""

    def test_the_schemas_are_those_of_the_oldest_kubernetes_of_the_chart_and_of_the_tests(self):
        oldest = re.search(r'kubeVersion: ">=1\.(\d+)\.0-0"', (CHART / "Chart.yaml").read_text()).group(1)
        newest = re.search(r"k8s.io/kubernetes (v1\.\S+)", (ROOT / "tests" / "cluster" / "go.mod").read_text()).group(1)
        self.assertEqual([version.split(".")[1] for version in kubernetes_versions()], [oldest, newest.split(".")[1]])
        self.assertEqual(kubernetes_versions()[-1], newest)

    def test_objects_of_every_value_fit(self):
        files = {path.stem: text(yaml.safe_load(path.read_text())) for path in (CHART / "ci").glob("*-values.yaml")}
        for path, sample in SAMPLES.items():
            value, needed = sample if isinstance(sample, tuple) else (sample, {})
            files[path] = text(merged(needed, at(path, value)))
        everything = "".join(files.values())
        for template in (CHART / "templates").glob("*.yaml"):
            self.assertIn(f"/templates/{template.name}\n", everything, "a template that no value brings forth")
        self.assertEqual(misfits(files), [])

    def test_what_does_not_fit_is_refused(self):
        """Else the claims here say nothing: each of these is what a slip in a template makes."""
        fitting = {found["kind"]: found for found in Objects(ALL_ON)}
        fitting["PodMonitor"] = Objects({"metrics": {"podMonitor": {"enabled": True}}}).one("PodMonitor")
        self.assertEqual(misfits({kind: [found] for kind, found in fitting.items()}), [])
        doctored = {
            ("Deployment", "spec", "template", "spec", "containers", 0, "imagePullPolic"): ("Always", "additional properties"),
            ("Deployment", "spec", "template", "spec", "containers", 0, "ports", 0, "containerPort"): ("8080", "want integer"),
            ("Deployment", "spec", "template", "spec", "containers", 0, "resources", "limits", "memory"): ("1 GB", "pattern"),
            ("Deployment", "spec", "template", "spec", "containers", 0, "livenessProbe", "httpGet", "port"): ([], "want integer or string"),
            ("Deployment", "spec", "template", "spec", "volumes"): (None, "got null"),
            ("Deployment", "spec", "selector"): (..., "missing property"),
            ("Service", "spec", "ports", 0, "port"): (1 << 31, "maximum"),
            ("ClusterRole", "rules", 0, "verb"): (["get"], "additional properties"),
            ("NetworkPolicy", "spec", "egress", 0, "ports", 0, "port"): ({}, "want integer or string"),
            ("ValidatingAdmissionPolicy", "spec", "validations", 0, "expression"): (True, "want string"),
            ("CustomResourceDefinition", "spec", "versions", 0, "schema", "openAPIV3Schema", "properties", "spec", "typ"): ("object", "additional properties"),
            ("PodDisruptionBudget", "spec", "maxUnavailable"): (1.5, "want integer or string"),
            ("ServiceMonitor", "spec", "endpoints", 0, "interval"): ("often", "pattern"),
            ("ServiceMonitor", "spec", "endpoints", 0, "honourLabels"): (True, "additional properties"),
            ("PodMonitor", "spec", "podMetricsEndpoints", 0, "port"): (8080, "want string"),
            ("PrometheusRule", "spec", "groups", 0, "rules", 0, "expression"): ("up", "additional properties"),
            ("AwsDeployUserClass", "spec", "polices"): ({}, "additional properties"),
            ("AwsDeployUserClass", "spec", "namespaces", "names"): ("a", "want array"),
            ("AwsDeployUserClass", "spec", "onRevoked"): ("Explode", "must be one of"),
            ("AwsDeployUserClass", "metadata", "annotation"): ({}, "additional properties"),
            ("Role", "kind"): ("Rolle", "could not find schema"),
        }
        files = {}
        for number, ((kind, *path), (value, _)) in enumerate(doctored.items()):
            wrong = copy.deepcopy(fitting[kind])
            parent = wrong
            for key in path[:-1]:
                parent = parent[key]
            if value is ...:
                del parent[path[-1]]
            else:
                parent[path[-1]] = value
            files[str(number)] = [wrong]
        refused = misfits(files)
        for number, (path, (_, reason)) in enumerate(doctored.items()):
            for version in kubernetes_versions():
                with self.subTest(f"{path} {version}"):
                    said = [line for line in refused if line.startswith(f"{number}: ") and f" in {version}: " in line]
                    self.assertEqual(len(said), 1)
                    self.assertIn(reason, said[0])
        twice = misfits({"twice": "apiVersion: v1\nkind: Namespace\nmetadata: {name: a}\nmetadata: {name: b}\n"})
        self.assertRegex(twice[0], "already set|duplicate")


class Manifests(unittest.TestCase):
    """What people are given to copy."""

    def test_examples_and_their_classes_fit(self):
        files = {file.stem: file.read_text() for file in (ROOT / "examples").glob("*.yaml")}
        files |= {f"class-{file.stem}": file.read_text() for file in (ROOT / "examples" / "classes").glob("*.yaml")}
        self.assertGreater(len(files), 10)
        self.assertEqual(misfits(files), [])

    def test_the_example_of_artifact_hub_fits(self):
        annotations = yaml.safe_load((CHART / "Chart.yaml").read_text())["annotations"]
        self.assertEqual(misfits({"Chart": yaml.safe_load(annotations["artifacthub.io/crdsExamples"])}), [])

    def test_the_next_command_of_the_notes_fits(self):
        for given in ({}, ALL_ON, {"secretAccess": {"namespaces": ["ci"]}}):
            # Not indented, so that the shell finds the END of what was copied.
            (manifest,) = re.findall(r"^kubectl apply -f - <<'END'\n(.*?)^END$", notes(given), re.DOTALL | re.MULTILINE)
            self.assertEqual(misfits({"notes": manifest}), [])

    def test_manifests_of_the_documentation_fit(self):
        files = {}
        for file in [ROOT / "README.md", CHART / "README.md", *(ROOT / "docs").rglob("*.md")]:
            for number, block in enumerate(re.findall(r"^```yaml\n(.*?)^```$", file.read_text(), re.DOTALL | re.MULTILINE)):
                documents = list(yaml.safe_load_all(block))
                if all(isinstance(document, dict) and "kind" in document for document in documents):
                    files[f"{file.stem}-{number}"] = block
        self.assertGreaterEqual(len(files), 3)
        self.assertEqual(misfits(files), [])
