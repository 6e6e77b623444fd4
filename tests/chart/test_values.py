"""Tests of values that charts of other projects have too: names, pod, Service, monitors, and the links of the packaged chart."""

import os
import pathlib
import re
import subprocess
import tempfile
import unittest

import yaml
from chart import CHART, NAME, NAMESPACE, ROOT, HelmError, Objects, helm, notes, schema_errors, text, values
from test_schemas import ALL_ON

HOME = yaml.safe_load((CHART / "Chart.yaml").read_text())["home"]


class Names(unittest.TestCase):
    """Registries, namespace, labels and annotations."""

    def test_global_registry_replaces_that_of_the_image(self):
        given = {"global": {"imageRegistry": "global.example.com"}, "image": {"registry": "own.example.com", "tag": "1"}}
        self.assertEqual(Objects(given).container["image"], f"global.example.com/{NAME}:1")

    def test_pull_secrets_are_those_of_chart_and_global(self):
        self.assertNotIn("imagePullSecrets", Objects().pod)
        given = {"global": {"imagePullSecrets": ["a", {"name": "b"}, "c"]}, "imagePullSecrets": [{"name": "c"}]}
        self.assertEqual(Objects(given).pod["imagePullSecrets"], [{"name": "c"}, {"name": "a"}, {"name": "b"}])

    def test_global_allows_values_of_other_charts(self):
        self.assertEqual(text({"global": {"storageClass": "fast"}}), text())
        for given in ({"imageRegistry": "a/b"}, {"imagePullSecrets": [{"key": "a"}]}, {"imagePullSecrets": "a"}):
            with self.assertRaisesRegex(HelmError, "global"):
                text({"global": given})

    def test_namespace_override_moves_everything(self):
        release, moved = text(ALL_ON), text({**ALL_ON, "namespaceOverride": "elsewhere"})
        self.assertIn(NAMESPACE, release)
        # Helm adopts a preset by the namespace of its release.
        adopted = f"meta.helm.sh/release-namespace: {NAMESPACE}"
        self.assertEqual(moved.replace(adopted, ""), release.replace(adopted, "").replace(NAMESPACE, "elsewhere"))
        shown = notes({"namespaceOverride": "elsewhere"})
        self.assertIn(f"-n {NAMESPACE} --reset-then-reuse-values", shown)
        self.assertIn("kubectl -n elsewhere rollout status", shown)

    def test_common_annotations_are_on_every_object(self):
        given = {**ALL_ON, "commonAnnotations": {"team": "a", "own": "common"}, "serviceAccount": {"annotations": {"own": "x"}}}
        before = {(found["kind"], found["metadata"]["name"]): found["metadata"].get("annotations", {}) for found in Objects(ALL_ON)}
        for found in Objects(given):
            name = (found["kind"], found["metadata"]["name"])
            own = {"own": "x"} if found["kind"] == "ServiceAccount" else {}
            self.assertEqual(found["metadata"]["annotations"], {"team": "a", "own": "common"} | before[name] | own, name)
        self.assertNotIn("annotations", Objects(given).one("Deployment")["spec"]["template"]["metadata"])
        for crd in Objects({"crds": {"keep": False}, "commonAnnotations": {"a": "b"}}).kind("CustomResourceDefinition"):
            self.assertEqual(crd["metadata"]["annotations"], {"a": "b"})

    def test_annotations_of_deployment_and_pod_are_separate(self):
        deployment = Objects({"deploymentAnnotations": {"a": "b"}, "podAnnotations": {"c": "d"}}).one("Deployment")
        self.assertEqual(deployment["metadata"]["annotations"], {"a": "b"})
        self.assertEqual(deployment["spec"]["template"]["metadata"]["annotations"], {"c": "d"})

    def test_labels_of_service_and_account_are_added(self):
        common = {"commonLabels": {"team": "a"}}
        service = Objects({**common, "metrics": {"service": {"labels": {"team": "b"}}}}).one("Service")
        account = Objects({**common, "serviceAccount": {"labels": {"team": "b"}}}).one("ServiceAccount")
        for found in (service, account):
            self.assertEqual(found["metadata"]["labels"]["team"], "b")
            self.assertEqual(found["metadata"]["labels"]["app.kubernetes.io/name"], NAME)
        for given in ({"metrics": {"service": {"labels": {"app.kubernetes.io/name": "x"}}}}, {"serviceAccount": {"labels": {"helm.sh/chart": "x"}}}):
            with self.assertRaisesRegex(HelmError, "labels"):
                text(given)


class Pod(unittest.TestCase):
    """Deployment and pod."""

    def test_defaults_leave_the_pod_to_kubernetes(self):
        absent = {"runtimeClassName", "schedulerName", "dnsPolicy", "dnsConfig", "hostAliases", "initContainers", "hostNetwork"}
        self.assertFalse(absent & set(Objects().pod))
        self.assertFalse({"startupProbe", "lifecycle", "envFrom"} & set(Objects().container))
        self.assertEqual(Objects().one("Deployment")["spec"]["revisionHistoryLimit"], 3)

    def test_pod_fields_are_passed_on(self):
        given = {
            "runtimeClassName": "gvisor",
            "schedulerName": "other",
            "dnsPolicy": "None",
            "dnsConfig": {"nameservers": ["10.0.0.10"], "searches": ["example.com"], "options": [{"name": "ndots", "value": "1"}]},
            "hostAliases": [{"ip": "10.0.0.1", "hostnames": ["sts.example.com"]}],
        }
        pod = Objects(given).pod
        self.assertEqual({key: pod[key] for key in given}, given)
        self.assertEqual(schema_errors({"pod": text(given)}), [])

    def test_host_network_has_its_dns_policy_by_default(self):
        self.assertEqual(Objects({"hostNetwork": True}).pod["dnsPolicy"], "ClusterFirstWithHostNet")
        self.assertEqual(Objects({"hostNetwork": True, "dnsPolicy": "Default"}).pod["dnsPolicy"], "Default")

    def test_extra_containers_run_beside_the_operator(self):
        proxy, wait = {"name": "proxy", "image": "proxy:1"}, {"name": "wait", "image": "wait:1"}
        pod = Objects({"extraContainers": [proxy], "extraInitContainers": [wait]}).pod
        self.assertEqual([container["name"] for container in pod["containers"]], ["operator", "proxy"])
        self.assertEqual((pod["containers"][1], pod["initContainers"]), (proxy, [wait]))

    def test_credentials_win_over_extra_sources(self):
        extra = [{"configMapRef": {"name": "proxy"}}, {"secretRef": {"name": "more", "optional": True}}]
        self.assertEqual(Objects({"extraEnvFrom": extra}).container["envFrom"], extra)
        both = Objects({"extraEnvFrom": extra, "aws": {"credentialsSecret": "aws"}}).container["envFrom"]
        self.assertEqual(both, [*extra, {"secretRef": {"name": "aws"}}])

    def test_startup_probe_asks_for_liveness(self):
        for tls, scheme in (({}, {}), ({"metrics": {"tls": {"secretName": "tls"}}}, {"scheme": "HTTPS"})):
            probe = Objects({"startupProbe": {"failureThreshold": 30, "periodSeconds": 2}, **tls}).container["startupProbe"]
            self.assertEqual(
                probe, {"httpGet": {"path": "/livez", "port": "http", **scheme}, "failureThreshold": 30, "periodSeconds": 2}
            )

    def test_lifecycle_hooks_are_those_given(self):
        hooks = {"preStop": {"sleep": {"seconds": 5}}}
        self.assertEqual(Objects({"lifecycle": hooks}).container["lifecycle"], hooks)

    def test_strategy_keeps_a_single_operator_single(self):
        rolling = {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}}
        self.assertEqual(Objects({"strategy": rolling}).one("Deployment")["spec"]["strategy"], rolling)
        self.assertEqual(Objects({"strategy": {"type": "Recreate"}}).one("Deployment")["spec"]["strategy"], {"type": "Recreate"})
        with self.assertRaisesRegex(HelmError, "strategy.type is not Recreate, but leaderElection.enabled is false"):
            text({"replicaCount": 1, "leaderElection": {"enabled": False}, "strategy": rolling})

    def test_disruption_budget_allows_a_drain(self):
        def budget(**given):
            return Objects({"replicaCount": 3, "podDisruptionBudget": given}).one("PodDisruptionBudget")["spec"]

        self.assertEqual((budget()["maxUnavailable"], budget().get("minAvailable")), (1, None))
        for minimum in (0, 2, "50%"):
            self.assertEqual((budget(minAvailable=minimum)["minAvailable"], budget(minAvailable=minimum).get("maxUnavailable")), (minimum, None))
        for minimum in (3, 4, "100%"):
            with self.assertRaisesRegex(HelmError, "no node with a replica could be drained"):
                budget(minAvailable=minimum)
        with self.assertRaisesRegex(HelmError, "minAvailable"):
            budget(minAvailable="half")


class Monitors(unittest.TestCase):
    """ServiceMonitor and PodMonitor."""

    KINDS = {"serviceMonitor": "endpoints", "podMonitor": "podMetricsEndpoints"}

    def monitor(self, value, **given):
        metrics = {"auth": {"enabled": False}, value: {"enabled": True, **given}}
        return Objects({"metrics": metrics}).one(value[0].upper() + value[1:])

    def test_monitor_in_another_namespace_selects_the_operator(self):
        for value in self.KINDS:
            with self.subTest(value):
                self.assertNotIn("namespaceSelector", self.monitor(value)["spec"])
                self.assertNotIn("namespaceSelector", self.monitor(value, namespace=NAMESPACE)["spec"])
                elsewhere = self.monitor(value, namespace="monitoring")
                self.assertEqual(elsewhere["metadata"]["namespace"], "monitoring")
                self.assertEqual(elsewhere["spec"]["namespaceSelector"], {"matchNames": [NAMESPACE]})

    def test_labels_of_the_resource_are_kept_by_default(self):
        for value, endpoints in self.KINDS.items():
            self.assertIs(self.monitor(value)["spec"][endpoints][0]["honorLabels"], True)
            self.assertIs(self.monitor(value, honorLabels=False)["spec"][endpoints][0]["honorLabels"], False)


class Package(unittest.TestCase):
    """What is published: the packaged chart and its metadata."""

    def test_links_work_without_the_repository(self):
        files = ["values.yaml", "README.md", *(f"templates/{file.name}" for file in (CHART / "templates").iterdir())]
        for file in files:
            content = (CHART / file).read_text().replace("{{ $docs }}/", f"{HOME}/blob/main/docs/")
            for link in re.findall(r"\S*docs/[a-z-]+\.md", content):
                if not link.startswith("[docs/") and "tests/" not in link:
                    self.assertIn(f"{HOME}/blob/main/docs/", link, file)
        for link in re.findall(rf"{HOME}/blob/main/(\S+?\.md)", notes() + (CHART / "values.yaml").read_text()):
            self.assertTrue((ROOT / link).exists(), link)

    def test_artifact_hub_annotations_are_complete(self):
        chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
        given = {name.removeprefix("artifacthub.io/"): value for name, value in chart["annotations"].items()}
        # https://artifacthub.io/docs/topics/annotations/helm/, without those about signing and allow lists of scans.
        self.assertEqual(set(given), {
            "alternativeName", "category", "changes", "containsSecurityUpdates", "crds", "crdsExamples", "images", "license", "links",
            "operator", "operatorCapabilities", "prerelease", "recommendations", "screenshots",
        })
        for name in ("changes", "crds", "crdsExamples", "images", "links", "recommendations", "screenshots"):
            self.assertIsInstance(yaml.safe_load(given[name]), list, name)
        for change in yaml.safe_load(given["changes"]):
            self.assertIn(change["kind"], {"added", "changed", "deprecated", "removed", "fixed", "security"})
        (image,) = yaml.safe_load(given["images"])
        self.assertTrue(Objects().container["image"].endswith(image["image"].rsplit("/", 1)[-1]), image)
        for link in [*yaml.safe_load(given["links"]), *yaml.safe_load(given["screenshots"])]:
            if found := re.match(rf"{HOME}/(?:blob|raw)/main/(.*)", link["url"]):
                self.assertTrue((ROOT / found[1]).exists(), link)
        kinds = {crd["kind"] for crd in yaml.safe_load(given["crds"])}
        self.assertEqual(kinds, {"AwsDeployUser", "AwsDeployUserClass"})
        self.assertTrue(chart["maintainers"] and chart["icon"].startswith("https://"))

    def test_distribution_has_manifest_schemas_and_chart(self):
        with tempfile.TemporaryDirectory() as directory:
            subprocess.run([CHART.parent / "dist", directory], check=True, capture_output=True, text=True, timeout=120)
            made = pathlib.Path(directory)
            version = yaml.safe_load((CHART / "Chart.yaml").read_text())["version"]
            self.assertEqual(
                sorted(str(path.relative_to(made)) for path in made.rglob("*") if path.is_file()),
                [f"{NAME}-{version}.tgz", "crd-schemas/awsdeployuser-awsdeploy-v1alpha1.json",
                 "crd-schemas/awsdeployuserclass-awsdeploy-v1alpha1.json", "install.yaml"],
            )
            manifest = (made / "install.yaml").read_text()
            self.assertEqual(schema_errors({"install": manifest}), [])
            first, *objects = [found for found in yaml.safe_load_all(manifest) if found]
            self.assertEqual((first["kind"], first["metadata"]["name"]), ("Namespace", NAME))
            self.assertEqual(first["metadata"]["labels"]["pod-security.kubernetes.io/enforce"], "restricted")
            rendered = subprocess.run(
                [os.environ["HELM"], "template", NAME, CHART, "--namespace", NAME, "--set", "startupCheck.enabled=false"], check=True, capture_output=True, text=True
            ).stdout
            wanted = [found for found in yaml.safe_load_all(rendered) if found]
            self.assertEqual(objects, wanted)
            self.assertFalse([found for found in objects if "helm.sh/hook" in found["metadata"].get("annotations", {})])
            shown = helm("show", "values", str(made / f"{NAME}-{version}.tgz"))
            self.assertEqual(yaml.safe_load(shown), values())
            # The schemas refuse what the API server refuses in a manifest.
            location = f"{made}/crd-schemas/{{{{.ResourceKind}}}}{{{{.KindSuffix}}}}.json"
            run = subprocess.run(
                [os.environ["KUBECONFORM"], "-strict", "-schema-location", location, ROOT / "examples" / "cycle.yaml"],
                capture_output=True, text=True, check=False, timeout=60,
            )
            self.assertEqual((run.returncode, run.stdout), (0, ""))
