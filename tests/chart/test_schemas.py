"""Tests that every manifest of the repository matches the schemas of Kubernetes, of third-party kinds and of our CRDs.

Validated against the oldest Kubernetes version that the chart supports, and against the version that the tests run.
"""

import copy
import re
import unittest

import yaml
from chart import CHART, ROOT, Objects, kubernetes_versions, schema_errors, notes, text
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
    """Rendered objects of the chart."""

    def test_schemas_cover_oldest_and_tested_kubernetes(self):
        oldest = re.search(r'kubeVersion: ">=1\.(\d+)\.0-0"', (CHART / "Chart.yaml").read_text()).group(1)
        newest = re.search(r"k8s.io/kubernetes (v1\.\S+)", (ROOT / "tests" / "cluster" / "go.mod").read_text()).group(1)
        self.assertEqual([version.split(".")[1] for version in kubernetes_versions()], [oldest, newest.split(".")[1]])
        self.assertEqual(kubernetes_versions()[-1], newest)

    def test_rendered_objects_match_the_schemas(self):
        files = {path.stem: text(yaml.safe_load(path.read_text())) for path in (CHART / "ci").glob("*-values.yaml")}
        for path, sample in SAMPLES.items():
            value, needed = sample if isinstance(sample, tuple) else (sample, {})
            files[path] = text(merged(needed, at(path, value)))
        everything = "".join(files.values())
        for template in (CHART / "templates").glob("*.yaml"):
            self.assertIn(f"/templates/{template.name}\n", everything, "no values render this template")
        self.assertEqual(schema_errors(files), [])

    def test_invalid_objects_are_rejected(self):
        """Verifies that the schemas detect typical template mistakes."""
        valid = {found["kind"]: found for found in Objects(ALL_ON)}
        valid["PodMonitor"] = Objects({"metrics": {"auth": {"enabled": False}, "podMonitor": {"enabled": True}}}).one("PodMonitor")
        self.assertEqual(schema_errors({kind: [found] for kind, found in valid.items()}), [])
        invalid = {
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
        for number, ((kind, *path), (value, _)) in enumerate(invalid.items()):
            wrong = copy.deepcopy(valid[kind])
            parent = wrong
            for key in path[:-1]:
                parent = parent[key]
            if value is ...:
                del parent[path[-1]]
            else:
                parent[path[-1]] = value
            files[str(number)] = [wrong]
        errors = schema_errors(files)
        for number, (path, (_, reason)) in enumerate(invalid.items()):
            for version in kubernetes_versions():
                with self.subTest(f"{path} {version}"):
                    matching = [line for line in errors if line.startswith(f"{number}: ") and f" in {version}: " in line]
                    self.assertEqual(len(matching), 1)
                    self.assertIn(reason, matching[0])
        twice = schema_errors({"twice": "apiVersion: v1\nkind: Namespace\nmetadata: {name: a}\nmetadata: {name: b}\n"})
        self.assertRegex(twice[0], "already set|duplicate")


class Manifests(unittest.TestCase):
    """Manifests for users to copy."""

    def test_examples_match_the_schemas(self):
        files = {file.stem: file.read_text() for file in (ROOT / "examples").glob("*.yaml")}
        files |= {f"class-{file.stem}": file.read_text() for file in (ROOT / "examples" / "classes").glob("*.yaml")}
        self.assertGreater(len(files), 10)
        self.assertEqual(schema_errors(files), [])

    def test_artifact_hub_examples_match_the_schemas(self):
        annotations = yaml.safe_load((CHART / "Chart.yaml").read_text())["annotations"]
        self.assertEqual(schema_errors({"Chart": yaml.safe_load(annotations["artifacthub.io/crdsExamples"])}), [])

    def test_gitops_fixtures_match_the_schemas(self):
        files = {file.stem: file.read_text() for file in (ROOT / "tests" / "gitops" / "testdata").glob("*.yaml")}
        files["argocd-cm"] = (ROOT / "integrations" / "argocd" / "argocd-cm.yaml").read_text()
        self.assertGreater(len(files), 15)
        self.assertEqual(schema_errors(files), [])

    def test_manifest_in_notes_matches_the_schemas(self):
        for given in ({}, ALL_ON, {"secretAccess": {"namespaces": ["ci"]}}):
            # Not indented, so that the shell finds END after pasting.
            (manifest,) = re.findall(r"^kubectl apply -f - <<'END'\n(.*?)^END$", notes(given), re.DOTALL | re.MULTILINE)
            self.assertEqual(schema_errors({"notes": manifest}), [])

    def test_manifests_in_docs_match_the_schemas(self):
        files = {}
        for file in [ROOT / "README.md", CHART / "README.md", *(ROOT / "docs").rglob("*.md")]:
            for number, block in enumerate(re.findall(r"^```yaml\n(.*?)^```$", file.read_text(), re.DOTALL | re.MULTILINE)):
                documents = list(yaml.safe_load_all(block))
                if all(isinstance(document, dict) and "kind" in document for document in documents):
                    files[f"{file.stem}-{number}"] = block
        self.assertGreaterEqual(len(files), 3)
        self.assertEqual(schema_errors(files), [])
