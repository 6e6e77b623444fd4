"""Tests of the rendered chart."""

import copy
import json
import re
import unittest

import yaml
from chart import CHART, NAME, NAMESPACE, ROOT, Objects, HelmError, notes, schema, text, values

# A PodMonitor that needs no Secret with a token.
POD_MONITOR = {"auth": {"enabled": False}, "podMonitor": {"enabled": True}}

# A non-default value per setting, with other values that it requires to have an effect.
SAMPLES = {
    "nameOverride": "other",
    "fullnameOverride": "other",
    "commonLabels": {"team": "x"},
    "global.imageRegistry": "registry.example.com",
    "global.imagePullSecrets": ["registry"],
    "namespaceOverride": "other",
    "commonAnnotations": {"a": "b"},
    "replicaCount": 0,
    "strategy": {"type": "Recreate"},
    "revisionHistoryLimit": 7,
    "podDisruptionBudget.minAvailable": 1,
    "image.registry": "registry.example.com:5000",
    "image.repository": "other/operator",
    "image.tag": "1.2.3",
    "image.digest": "sha256:" + "a" * 64,
    "image.pullPolicy": "Always",
    "imagePullSecrets": [{"name": "registry"}],
    "secretAccess.namespaces": ["deploy"],
    "restartAccess.namespaces": ["deploy"],
    **{
        path: (value, {"presets": {preset: {"enabled": True, "namespaces": ["a"], **more}}})
        for preset, more in (("cycle", {}), ("defang", {}), ("cdk", {"policy": "arn:aws:iam::123456789012:policy/cdk"}))
        for path, value in (
            (f"presets.{preset}.enabled", False),
            (f"presets.{preset}.namespaces", ["deploy"]),
            (f"presets.{preset}.permissionsBoundary", "arn:aws:iam::123456789012:policy/boundary"),
            (f"presets.{preset}.account", "123456789012"),
            (f"presets.{preset}.roleArn", "arn:aws:iam::123456789012:role/deploy-users"),
        )
    },
    **{
        f"presets.{preset}.externalId": ("cluster-1", {"presets": {preset: {
            "enabled": True, "namespaces": ["a"], "roleArn": "arn:aws:iam::123456789012:role/deploy-users", **more,
        }}})
        for preset, more in (("cycle", {}), ("defang", {}), ("cdk", {"policy": "arn:aws:iam::123456789012:policy/cdk"}))
    },
    **{
        f"presets.{preset}.leastPolicyOnly": (True, {"presets": {preset: {"enabled": True, "namespaces": ["a"]}}})
        for preset in ("cycle", "defang")
    },
    "presets.cdk.policy": (
        "arn:aws:iam::123456789012:policy/other",
        {"presets": {"cdk": {"enabled": True, "namespaces": ["a"], "policy": "arn:aws:iam::123456789012:policy/cdk"}}},
    ),
    "admission.classes": False,
    "admission.ownResources": False,
    "admission.ownSecrets": False,
    "admission.ownEvents": False,
    "admission.records": False,
    "admission.ownRestarts": False,
    "admission.handoverAgents": ["system:serviceaccount:deploy:cycle-handover"],
    "watchNamespaces": ["deploy"],
    "rbac.aggregateViewer": False,
    "rbac.aggregateEditor": True,
    "serviceAccount.create": (False, {"serviceAccount": {"name": "other"}}),
    "serviceAccount.name": "other",
    "serviceAccount.annotations": {"eks.amazonaws.com/role-arn": "arn:aws:iam::123456789012:role/x"},
    "serviceAccount.labels": {"a": "b"},
    "aws.region": "us-east-1",
    "aws.endpointUrl": "http://moto.aws:5000",
    "aws.credentialsSecret": "aws",
    "aws.instanceMetadata": True,
    "settings.clusterId": "other",
    "settings.concurrency": 3,
    "settings.awsRate": 2.5,
    "settings.resync": "3m",
    "settings.keyCheck": "3m",
    "settings.accountDetails": False,
    "settings.secretCheck": "3m",
    "settings.repairInterval": "3m",
    "settings.minRotationInterval": "3m",
    "settings.maxAttachedPolicies": 20,
    "settings.recoveryDelay": "3m",
    "settings.verifySuccesses": 0,
    "settings.verifyInterval": "3m",
    "settings.verifyTimeout": "3m",
    "settings.deletionDelay": "0s",
    "settings.classAbsenceGrace": "30s",
    "podDisruptionBudget.enabled": False,
    "settings.lastUsedWindow": "3h",
    "settings.restartHold": "3h",
    "settings.restartCheck": "3m",
    "startupCheck.enabled": False,
    "startupCheck.timeout": "90s",
    "leaderElection.enabled": (False, {"replicaCount": 1}),
    "settings.leaseDuration": "30s",
    "settings.log": "info,awsdeploy::aws=debug",
    "settings.logFormat": "json",
    "crds.enabled": False,
    "crds.keep": False,
    "metrics.address": "::",
    "metrics.port": 9090,
    "metrics.auth.enabled": False,
    "metrics.auth.audience": "metrics",
    **{
        path: (value, {"metrics": {"auth": {"enabled": True, "tokenSecret": "scraper"}, "podMonitor": {"enabled": True}}})
        for path, value in (("metrics.auth.tokenSecret", "prometheus"), ("metrics.auth.tokenSecretKey", "bearer"))
    },
    "metrics.tls.secretName": "tls",
    **{
        path: (value, {"metrics": {"tls": {"certManager": {"enabled": True, "issuerRef": {"name": "a"}}}, **POD_MONITOR}})
        for path, value in (
            ("metrics.tls.caKey", ""),
            ("metrics.tls.serverName", "operator.example.com"),
            ("metrics.tls.certManager.enabled", False),
            ("metrics.tls.certManager.issuerRef.name", "b"),
            ("metrics.tls.certManager.issuerRef.kind", "ClusterIssuer"),
            ("metrics.tls.certManager.issuerRef.group", "example.com"),
        )
    },
    "metrics.service.enabled": False,
    "metrics.service.annotations": {"a": "b"},
    "metrics.service.labels": {"a": "b"},
    "metrics.serviceMonitor.enabled": True,
    "metrics.serviceMonitor.namespace": ("monitoring", {"metrics": {"serviceMonitor": {"enabled": True}}}),
    "metrics.serviceMonitor.honorLabels": (False, {"metrics": {"serviceMonitor": {"enabled": True}}}),
    "metrics.serviceMonitor.labels": ({"a": "b"}, {"metrics": {"serviceMonitor": {"enabled": True}}}),
    "metrics.serviceMonitor.interval": ("7s", {"metrics": {"serviceMonitor": {"enabled": True}}}),
    "metrics.serviceMonitor.scrapeTimeout": ("7s", {"metrics": {"serviceMonitor": {"enabled": True}}}),
    "metrics.serviceMonitor.relabelings": ([{"action": "drop"}], {"metrics": {"serviceMonitor": {"enabled": True}}}),
    "metrics.serviceMonitor.metricRelabelings": ([{"action": "drop"}], {"metrics": {"serviceMonitor": {"enabled": True}}}),
    "metrics.podMonitor.enabled": (True, {"metrics": {"auth": {"enabled": False}}}),
    "metrics.podMonitor.namespace": ("monitoring", {"metrics": POD_MONITOR}),
    "metrics.podMonitor.honorLabels": (False, {"metrics": POD_MONITOR}),
    "metrics.podMonitor.labels": ({"a": "b"}, {"metrics": POD_MONITOR}),
    "metrics.podMonitor.interval": ("7s", {"metrics": POD_MONITOR}),
    "metrics.podMonitor.scrapeTimeout": ("7s", {"metrics": POD_MONITOR}),
    "metrics.podMonitor.relabelings": ([{"action": "drop"}], {"metrics": POD_MONITOR}),
    "metrics.podMonitor.metricRelabelings": ([{"action": "drop"}], {"metrics": POD_MONITOR}),
    "metrics.perResource": False,
    "metrics.prometheusRule.enabled": True,
    "metrics.prometheusRule.labels": ({"a": "b"}, {"metrics": {"prometheusRule": {"enabled": True}}}),
    "metrics.prometheusRule.alertLabels": ({"a": "b"}, {"metrics": {"prometheusRule": {"enabled": True}}}),
    "metrics.prometheusRule.runbookUrl": ("https://example.com/operations", {"metrics": {"prometheusRule": {"enabled": True}}}),
    "metrics.prometheusRule.disabled": (["AwsDeployThrottled"], {"metrics": {"prometheusRule": {"enabled": True}}}),
    "metrics.prometheusRule.notReadyFor": ("7m", {"metrics": {"prometheusRule": {"enabled": True}}}),
    "metrics.prometheusRule.rotationLateSeconds": (77, {"metrics": {"prometheusRule": {"enabled": True}}}),
    "metrics.prometheusRule.keyMaxAgeDays": (77, {"metrics": {"prometheusRule": {"enabled": True}}}),
    "metrics.dashboard.enabled": True,
    "metrics.dashboard.labels.grafana_dashboard": ("2", {"metrics": {"dashboard": {"enabled": True}}}),
    "metrics.dashboard.annotations": ({"a": "b"}, {"metrics": {"dashboard": {"enabled": True}}}),
    "tracing.otlp.endpoint": "http://collector:4318",
    "tracing.otlp.headersSecret": ("collector", {"tracing": {"otlp": {"endpoint": "http://collector:4318"}}}),
    "tracing.otlp.ratio": (0.1, {"tracing": {"otlp": {"endpoint": "http://collector:4318"}}}),
    "networkPolicy.enabled": False,
    "networkPolicy.metricsFrom": [{"podSelector": {}}],
    "networkPolicy.ports": [443],
    "networkPolicy.dnsPorts": [53],
    "networkPolicy.cidrs": ["10.0.0.0/8"],
    "networkPolicy.podIdentity": False,
    "networkPolicy.extraEgress": [{"ports": [{"port": 3128}]}],
    "resources.requests.cpu": "20m",
    "resources.requests.memory": "20Mi",
    "resources.limits.memory": "20Mi",
    "podSecurityContext.runAsNonRoot": None,
    "podSecurityContext.runAsUser": 1000,
    "podSecurityContext.runAsGroup": 1000,
    "podSecurityContext.seccompProfile.type": "Unconfined",
    "securityContext.allowPrivilegeEscalation": None,
    "securityContext.readOnlyRootFilesystem": False,
    "securityContext.capabilities.drop": [],
    **{
        f"{probe}.{key}": 42
        for probe in ("livenessProbe", "readinessProbe")
        for key in ("initialDelaySeconds", "periodSeconds", "timeoutSeconds", "failureThreshold")
    },
    "startupProbe": {"failureThreshold": 30},
    "lifecycle": {"preStop": {"sleep": {"seconds": 5}}},
    "terminationGracePeriodSeconds": 90,
    "deploymentAnnotations": {"a": "b"},
    "podAnnotations": {"a": "b"},
    "podLabels": {"a": "b"},
    "nodeSelector": {"a": "b"},
    "tolerations": [{"operator": "Exists"}],
    "affinity": {"nodeAffinity": {}},
    "topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway"}],
    "priorityClassName": "high",
    "runtimeClassName": "gvisor",
    "schedulerName": "other",
    "hostNetwork": True,
    "dnsPolicy": "Default",
    "dnsConfig": {"options": [{"name": "ndots", "value": "1"}]},
    "hostAliases": [{"ip": "10.0.0.1", "hostnames": ["sts.example.com"]}],
    "extraArgs": ["--later"],
    "extraEnv": [{"name": "HTTPS_PROXY", "value": "http://proxy:3128"}],
    "extraEnvFrom": [{"configMapRef": {"name": "proxy"}}],
    "extraContainers": [{"name": "proxy", "image": "proxy"}],
    "extraInitContainers": [{"name": "wait", "image": "wait"}],
    "extraVolumes": [{"name": "ca", "configMap": {"name": "ca"}}],
    "extraVolumeMounts": [{"name": "ca", "mountPath": "/ca"}],
    "extraObjects": [{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "more"}}],
}

LEADS = [f"--namespace={NAMESPACE}", "--leader-elect", f"--lease-name={NAME}"]
ROLES = [f"--secrets-cluster-role={NAME}-secrets", f"--restarts-cluster-role={NAME}-restarts"]
SECRET_VERBS = ["get", "create", "update", "delete"]
# DNS, and the ports of API servers: managed ones, kubeadm and kind, minikube, MicroK8s.
CLUSTER_PORTS = {53, 5353, 443, 6443, 8443, 16443}


def leaves(node, path=""):
    """Paths of all values without nested values."""
    if isinstance(node, dict) and node:
        for key, below in node.items():
            yield from leaves(below, f"{path}.{key}" if path else key)
    else:
        yield path


def merged(base, over):
    result = copy.deepcopy(base)
    for key, value in over.items():
        result[key] = merged(result[key], value) if isinstance(value, dict) and isinstance(result.get(key), dict) else value
    return result


def at(path, value):
    for key in reversed(path.split(".")):
        value = {key: value}
    return value


class Values(unittest.TestCase):
    """values.yaml and its schema."""

    def test_every_value_changes_the_output(self):
        self.assertEqual(sorted(leaves(values())), sorted(SAMPLES), "SAMPLES must contain exactly the values of values.yaml")
        for path, sample in SAMPLES.items():
            value, needed = sample if isinstance(sample, tuple) else (sample, {})
            with self.subTest(path):
                self.assertNotEqual(text(needed), text(merged(needed, at(path, value))))

    def test_schema_and_values_have_the_same_keys(self):
        def compare(node, given, path):
            named = set(node.get("properties", {}))
            if node.get("additionalProperties") is not False or not given:
                return
            # Optional fields of Kubernetes structures have no default.
            missing = set(given) - named
            self.assertFalse(missing, f"{path}: not in the schema")
            if path.rsplit(".", 1)[-1] not in OPTIONAL:
                self.assertEqual(named, set(given), path or "(top)")
            for key, below in given.items():
                if isinstance(below, dict):
                    compare(node["properties"][key], below, f"{path}.{key}")

        OPTIONAL = {"podSecurityContext", "securityContext", "capabilities", "seccompProfile", "resources"}
        compare(schema(), values(), "")

    def test_every_schema_object_rejects_unknown_keys(self):
        # Kubernetes structures that the API server validates, and Helm's global.
        checked_elsewhere = {
            "nodeAffinity", "podAffinity", "podAntiAffinity", "podSelector", "namespaceSelector", "labelSelector",
            "valueFrom", "extraVolumes[]", "extraObjects[]", "relabelings[]", "metricRelabelings[]", "ports[]", "to[]", "global",
            "extraContainers[]", "extraInitContainers[]", "preStop", "postStart",
        }

        def walk(node, path):
            if node.get("type") == "object" and path.rsplit(".", 1)[-1] not in checked_elsewhere:
                self.assertIn("additionalProperties", node, path)
                if node.get("properties"):
                    self.assertIs(node["additionalProperties"], False, path)
            for key, below in node.get("properties", {}).items():
                walk(below, f"{path}.{key}")
            if isinstance(node.get("items"), dict):
                walk(node["items"], f"{path}[]")

        walk(schema(), "")

    def test_unknown_values_are_rejected_at_every_level(self):
        def objects(node, path):
            yield path
            for key, below in node.items():
                if isinstance(below, dict) and schema_at(path + [key]).get("additionalProperties") is False:
                    yield from objects(below, path + [key])

        def schema_at(path):
            node = schema()
            for key in path:
                node = node["properties"][key]
            return node

        paths = list(objects(values(), []))
        self.assertGreater(len(paths), 15)
        for path in paths:
            with self.subTest(".".join(path)), self.assertRaisesRegex(HelmError, "misspelled"):
                text(at(".".join([*path, "misspelled"]), 1))

    def test_invalid_values_are_rejected_with_a_reason(self):
        for given, reason in [
            ({"replicaCount": 2, "leaderElection": {"enabled": False}}, "leaderElection.enabled is false"),
            ({"replicaCount": "1"}, "replicaCount"),
            ({"settings": {"accountDetails": "yes"}}, "accountDetails"),
            ({"presets": {"cycle": {"enabled": True}}}, "enabled for no namespace"),
            ({"presets": {"cdk": {"enabled": True, "namespaces": ["a"]}}}, "presets.cdk.policy is missing"),
            ({"presets": {"defang": {"account": "1"}}}, "account"),
            ({"presets": {"cycle": {"roleArn": "arn:aws:iam::123456789012:user/deploy"}}}, "roleArn"),
            ({"presets": {"cycle": {"externalId": "a b"}}}, "externalId"),
            ({"presets": {"cycle": {"enabled": True, "namespaces": ["a"], "externalId": "ab"}}}, "roleArn, which is missing"),
            (
                {"presets": {"cycle": {"enabled": True, "namespaces": ["a"], "account": "1" * 12, "roleArn": f"arn:aws:iam::{'2' * 12}:role/a"}}},
                "is a role of account 222222222222, but",
            ),
            ({"secretAccess": {"namespaces": "deploy"}}, "namespaces"),
            ({"secretAccess": {"namespaces": ["*"]}}, "namespaces"),
            ({"secretAccess": {"namespaces": ["a", "a"]}}, "namespaces"),
            ({"secretAccess": {"namespaces": ["a"]}, "watchNamespaces": ["b"]}, "watchNamespaces does not"),
            ({"restartAccess": {"namespaces": ["a"]}, "watchNamespaces": ["b"]}, "watchNamespaces does not"),
            ({"settings": {"resync": "10"}}, "resync"),
            ({"startupCheck": {"timeout": "1d"}}, "timeout"),
            ({"settings": {"resync": 10}}, "resync"),
            ({"settings": {"verifySuccesses": -1}}, "verifySuccesses"),
            ({"settings": {"concurrency": 0}}, "concurrency"),
            ({"settings": {"awsRate": 0}}, "awsRate"),
            ({"settings": {"logFormat": "xml"}}, "logFormat"),
            ({"settings": {"log": "info; rm"}}, "log"),
            ({"image": {"digest": "latest"}}, "digest"),
            ({"image": {"pullPolicy": "Sometimes"}}, "pullPolicy"),
            ({"aws": {"endpointUrl": "moto:5000"}}, "endpointUrl"),
            ({"aws": {"endpointUrl": "http://me:pass@moto"}}, "endpointUrl"),
            ({"aws": {"region": "Frankfurt"}}, "region"),
            ({"serviceAccount": {"create": False}}, "serviceAccount.name"),
            ({"metrics": {"port": 0}}, "port"),
            ({"metrics": {"service": {"enabled": False}, "serviceMonitor": {"enabled": True}}}, "needs metrics.service.enabled"),
            ({"securityContext": {"privileged": True}}, "privileged"),
            ({"securityContext": {"capabilities": {"add": ["NET_ADMIN"]}}}, "add"),
            ({"securityContext": {"allowPrivilegeEscalation": True}}, "allowPrivilegeEscalation"),
            ({"podSecurityContext": {"runAsUser": 0}}, "runAsUser"),
            ({"podSecurityContext": {"runAsNonRoot": False}}, "runAsNonRoot"),
            ({"podLabels": {"app.kubernetes.io/name": "x"}}, "podLabels"),
            ({"commonLabels": {"app.kubernetes.io/instance": "x"}}, "commonLabels"),
            ({"extraArgs": ["--resync=1h"]}, "extraArgs"),
            ({"extraArgs": ["--class-status=false"]}, "extraArgs"),
            ({"extraEnv": [{"name": "AWSDEPLOY_RESYNC", "value": "1h"}]}, "extraEnv"),
            ({"extraEnv": [{"name": "AWS_REGION"}], "aws": {"region": "us-east-1"}}, "extraEnv has AWS_REGION"),
            ({"extraEnv": [{"name": "A"}, {"name": "A"}]}, "extraEnv has A"),
            ({"metrics": {"tls": {"certManager": {"enabled": True}}}}, "metrics.tls.certManager.issuerRef.name"),
            ({"metrics": {"tls": {"secretName": "Not a name"}}}, "secretName"),
            ({"extraArgs": ["--metrics-tls-cert=a"]}, "extraArgs"),
            ({"tracing": {"otlp": {"endpoint": "collector:4318"}}}, "endpoint"),
            ({"tracing": {"otlp": {"endpoint": "http://me:pass@collector"}}}, "endpoint"),
            ({"tracing": {"otlp": {"ratio": 2}}}, "ratio"),
            ({"extraEnv": [{"name": "OTEL_RESOURCE_ATTRIBUTES"}], "tracing": {"otlp": {"endpoint": "http://c"}}}, "aws or tracing"),
            ({"metrics": {"podMonitor": {"enabled": True}, "serviceMonitor": {"enabled": True}}}, "scraped twice"),
            ({"metrics": {"prometheusRule": {"disabled": ["AwsDeployFine"]}}}, "AwsDeployOperatorDown"),
            ({"metrics": {"prometheusRule": {"alertLabels": {"severity": "page"}}}}, "severity"),
        ]:
            with self.subTest(str(given)), self.assertRaisesRegex(HelmError, reason):
                text(given)

    def test_every_value_has_a_description(self):
        def walk(node, path):
            for key, below in node.get("properties", {}).items():
                self.assertTrue(path.count(".") > 2 or "description" in below or "enum" in below or path, f"{path}.{key}")
                walk(below, f"{path}.{key}")

        for key, below in schema()["properties"].items():
            self.assertIn("description", below, key)
        walk(schema(), "")


    def test_readme_lists_every_value_once(self):
        table = (CHART / "README.md").read_text().split("\n## Values\n")[1]
        rows = re.findall(r"^\| `([^`]+)` \| (.*?) \| (.*) \|$", table, re.MULTILINE)
        for path, default, description in rows:
            self.assertGreater(len(description), 9, f"{path} has no description in values.yaml")
            self.assertNotIn("nil", default, path)
        named = [path for path, _, _ in rows]
        self.assertEqual(len(named), len(set(named)))
        for path in leaves(values()):
            above = [path.rsplit(".", up)[0] for up in range(path.count(".") + 1)]
            self.assertTrue(set(above) & set(named), f"{path} is in no table of README.md.gotmpl, or has no comment with `# --`")


class Operator(unittest.TestCase):
    """The pod."""

    def test_default_arguments_are_minimal(self):
        self.assertEqual(
            Objects().arguments, ["--metrics-bind-address=0.0.0.0:8080", *ROLES, "--metrics-auth=true", *LEADS]
        )
        self.assertEqual(Objects().environment, {"AWS_EC2_METADATA_DISABLED": "true"})

    def test_settings_become_flags(self):
        given = yaml.safe_load((CHART / "ci" / "emulator-values.yaml").read_text())
        objects = Objects(given)
        self.assertEqual(
            set(objects.arguments[1:]),
            {
                *LEADS, *ROLES, "--metrics-auth=true", "--cluster-id=test", "--concurrency=4",
                "--aws-rate=2.5", "--resync=30s", "--secret-check=5s", "--min-rotation-interval=1m", "--repair-interval=1s",
                "--max-attached-policies=20", "--recovery-delay=5s", "--verify-successes=0", "--verify-interval=0.5s",
                "--verify-timeout=1m30s", "--deletion-delay=0s", "--last-used-window=2h", "--log=info,awsdeploy=debug", "--log-format=json",
            },
        )
        self.assertEqual(
            objects.environment,
            {"AWS_REGION": "us-east-1", "AWS_ENDPOINT_URL": "http://moto.aws:5000", "AWS_EC2_METADATA_DISABLED": "true"},
        )
        self.assertEqual(objects.container["envFrom"], [{"secretRef": {"name": "emulator"}}])

    def test_values_match_the_flags_of_the_operator(self):
        """Every flag has a value, and values.yaml documents the default of the flag."""
        source = (ROOT / "src" / "operator" / "settings.rs").read_text().split("#[cfg(test)]")[0]
        flags = {}
        for attributes, field in re.findall(r"#\[arg\(long, (.*)\)\]\s+pub (\w+):", source):
            default = re.search(r'default_value(?:_t)? = "?([\w.:/-]+)"?', attributes)
            flags[re.sub(r"_(.)", lambda letter: letter[1].upper(), field)] = default and default[1]
        elsewhere = {"metricsBindAddress", "metricsAuth", "metricsAudience", "metricsTlsCert", "metricsTlsKey", "otlpEndpoint", "metricsPerResource", "secretsClusterRole", "restartsClusterRole", "watchNamespaces", "classStatus", "leaderElect", "namespace", "leaseName"}
        self.assertEqual(set(values()["settings"]) | elsewhere, set(flags))
        known = schema()["properties"]["extraArgs"]["items"]["not"]["pattern"]
        for flag in flags:
            self.assertRegex("--" + re.sub(r"([A-Z])", lambda letter: f"-{letter[1].lower()}", flag), known)

        lines = (CHART / "values.yaml").read_text().split("\nsettings:\n")[1].split("\n\n")[0]
        for comment, setting in re.findall(r"((?:  #.*\n)+)  (\w+): null", lines + "\n"):
            documented = re.search(r"Default: (\S+)\n", comment)
            # LogFormat::Text is `text` on the command line.
            default = (flags[setting] or "none").removesuffix(".0").rsplit("::", 1)[-1].lower()
            self.assertEqual(documented and documented[1].lower(), default, setting) if setting != "clusterId" else None

    def test_numbers_have_no_exponent(self):
        self.assertIn("--concurrency=1000", Objects({"settings": {"concurrency": 1000}}).arguments)
        self.assertIn("--metrics-bind-address=0.0.0.0:65535", Objects({"metrics": {"port": 65535}}).arguments)

    def test_ipv6_address_is_bracketed(self):
        self.assertIn("--metrics-bind-address=[::]:8080", Objects({"metrics": {"address": "::"}}).arguments)

    def test_watch_namespaces_become_one_flag(self):
        self.assertIn("--watch-namespaces=a,b", Objects({"watchNamespaces": ["a", "b"]}).arguments)

    def test_several_replicas_require_leader_election(self):
        alone = Objects({"replicaCount": 1, "leaderElection": {"enabled": False}})
        self.assertEqual(alone.one("Deployment")["spec"]["strategy"], {"type": "Recreate"})
        self.assertFalse([argument for argument in alone.arguments if "lea" in argument])
        self.assertEqual([role["metadata"]["name"] for role in alone.kind("Role")], [f"{NAME}-own-namespace"])
        together = Objects()
        self.assertEqual(together.one("Deployment")["spec"]["strategy"], {"type": "RollingUpdate"})
        self.assertEqual(together.one("Deployment")["spec"]["replicas"], 2)
        rules = together.one("Role", f"{NAME}-lease")["rules"]
        self.assertEqual([rule["resources"] for rule in rules], [["leases"], ["leases"]])
        self.assertEqual([rule.get("resourceNames") for rule in rules], [None, [NAME]])
        self.assertEqual(rules[0]["verbs"], ["create"])
        self.assertEqual(Objects({"replicaCount": 0}).one("Deployment")["spec"]["replicas"], 0)

    def test_pod_is_restricted_with_all_ci_values(self):
        for file in sorted((CHART / "ci").glob("*-values.yaml")):
            with self.subTest(file.name):
                objects = Objects(yaml.safe_load(file.read_text()))
                pod, container = objects.pod["securityContext"], objects.container["securityContext"]
                self.assertIs(pod["runAsNonRoot"], True)
                self.assertEqual(pod["seccompProfile"], {"type": "RuntimeDefault"})
                self.assertIs(container["allowPrivilegeEscalation"], False)
                self.assertIs(container["readOnlyRootFilesystem"], True)
                self.assertEqual(container["capabilities"], {"drop": ["ALL"]})
                self.assertIs(objects.pod["enableServiceLinks"], False)
                self.assertIs(objects.pod["automountServiceAccountToken"], True)
                self.assertIn("memory", objects.container["resources"]["limits"])

    def test_user_ids_can_be_assigned_by_the_platform(self):
        pod = Objects({"podSecurityContext": {"runAsUser": None, "runAsGroup": None}}).pod["securityContext"]
        self.assertEqual(set(pod), {"runAsNonRoot", "seccompProfile"})

    def test_image_reference_has_tag_and_digest(self):
        digest = "sha256:" + "0" * 64
        for image, name in [
            ({}, f"{NAME}:0.1.0"),
            ({"tag": "2"}, f"{NAME}:2"),
            ({"registry": "localhost:5000", "digest": digest}, f"localhost:5000/{NAME}:0.1.0@{digest}"),
        ]:
            self.assertEqual(Objects({"image": image}).container["image"], name)

    def test_replicas_are_spread_over_nodes(self):
        (constraint,) = Objects({"podLabels": {"a": "b"}}).pod["topologySpreadConstraints"]
        self.assertEqual(constraint["topologyKey"], "kubernetes.io/hostname")
        self.assertEqual(constraint["whenUnsatisfiable"], "ScheduleAnyway", "a single node must be sufficient")
        selector = Objects().one("Deployment")["spec"]["selector"]
        self.assertEqual(constraint["labelSelector"], selector)
        given = [{"maxSkew": 2, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule", "labelSelector": {"matchLabels": {"a": "b"}}}]
        self.assertEqual(Objects({"topologySpreadConstraints": given}).pod["topologySpreadConstraints"], given)
        self.assertNotIn("topologySpreadConstraints", Objects({"topologySpreadConstraints": []}).pod)

    def test_extra_objects_are_rendered_as_templates(self):
        given = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "{{ .Release.Name }}-more"}, "data": {"a": "1"}}
        self.assertEqual(Objects({"extraObjects": [given]}).one("ConfigMap", "-more")["metadata"], {"name": f"{NAME}-more"})

    def test_selectors_do_not_depend_on_labels(self):
        selector = {"app.kubernetes.io/name": NAME, "app.kubernetes.io/instance": NAME}
        objects = Objects({"commonLabels": {"a": "1"}, "podLabels": {"a": "2"}})
        deployment = objects.one("Deployment")
        self.assertEqual(deployment["spec"]["selector"]["matchLabels"], selector)
        labels = deployment["spec"]["template"]["metadata"]["labels"]
        self.assertEqual(labels | selector | {"a": "2"}, labels, "podLabels take precedence over commonLabels")
        self.assertEqual(objects.one("NetworkPolicy")["spec"]["podSelector"]["matchLabels"], selector)
        self.assertEqual(objects.one("Service")["spec"]["selector"], selector)

    def test_probes_use_the_metrics_port(self):
        container = Objects({"metrics": {"port": 9090}}).container
        self.assertEqual(container["ports"], [{"name": "http", "containerPort": 9090, "protocol": "TCP"}])
        for probe, path in (("livenessProbe", "/livez"), ("readinessProbe", "/readyz")):
            self.assertEqual(container[probe]["httpGet"], {"path": path, "port": "http"})

    def test_tracing_is_configured_only_with_an_endpoint(self):
        self.assertFalse([found for found in [*Objects().arguments, *Objects().environment] if "otel" in found.lower() or "otlp" in found])
        otlp = {"endpoint": "http://collector.observability:4318", "headersSecret": "collector", "ratio": 0.25}
        objects = Objects({"tracing": {"otlp": otlp}})
        self.assertIn("--otlp-endpoint=http://collector.observability:4318", objects.arguments)
        given = {variable["name"]: variable for variable in objects.container["env"]}
        self.assertEqual(given["OTEL_EXPORTER_OTLP_HEADERS"]["valueFrom"], {"secretKeyRef": {"name": "collector", "key": "headers"}})
        self.assertEqual(given["OTEL_TRACES_SAMPLER"]["value"], "parentbased_traceidratio")
        self.assertEqual(given["OTEL_TRACES_SAMPLER_ARG"]["value"], "0.25")
        attributes = given["OTEL_RESOURCE_ATTRIBUTES"]["value"]
        self.assertEqual(attributes, f"k8s.pod.name=$(POD_NAME),k8s.namespace.name={NAMESPACE},k8s.deployment.name={NAME}")
        self.assertEqual(given["POD_NAME"]["valueFrom"], {"fieldRef": {"fieldPath": "metadata.name"}})
        names = list(given)
        self.assertLess(names.index("POD_NAME"), names.index("OTEL_RESOURCE_ATTRIBUTES"), "POD_NAME must be defined before it is referenced")

    def test_tls_secret_enables_https_for_server_and_probes(self):
        extra = {"extraVolumes": [{"name": "ca", "configMap": {"name": "ca"}}], "extraVolumeMounts": [{"name": "ca", "mountPath": "/ca"}]}
        for given, secret in [
            ({"secretName": "own"}, "own"),
            ({"certManager": {"enabled": True, "issuerRef": {"name": "ca"}}}, f"{NAME}-metrics-tls"),
            ({"secretName": "own", "certManager": {"enabled": True, "issuerRef": {"name": "ca"}}}, "own"),
        ]:
            objects = Objects({"metrics": {"tls": given}} | extra)
            directory = "/etc/aws-deploy-user-operator/tls"
            for argument in (f"--metrics-tls-cert={directory}/tls.crt", f"--metrics-tls-key={directory}/tls.key"):
                self.assertIn(argument, objects.arguments)
            mounts, volumes = objects.container["volumeMounts"], objects.pod["volumes"]
            # A directory, because the kubelet does not update subPath mounts.
            self.assertEqual(mounts[0], {"name": "tls", "mountPath": directory, "readOnly": True})
            self.assertEqual(volumes[0]["secret"]["secretName"], secret)
            self.assertEqual([item["key"] for item in volumes[0]["secret"]["items"]], ["tls.crt", "tls.key"])
            self.assertEqual(([mounts[1]], [volumes[1]]), (extra["extraVolumeMounts"], extra["extraVolumes"]))
            for probe in ("livenessProbe", "readinessProbe"):
                self.assertEqual(objects.container[probe]["httpGet"]["scheme"], "HTTPS")
        self.assertFalse([argument for argument in Objects().arguments if "tls" in argument])
        self.assertNotIn("volumes", Objects().pod)

    def test_certificate_contains_the_server_name_of_monitors(self):
        issuer = {"name": "ca", "kind": "ClusterIssuer"}
        for tls, monitor in [({}, "ServiceMonitor"), ({}, "PodMonitor"), ({"serverName": "operator.example.com"}, "PodMonitor")]:
            tls = tls | {"certManager": {"enabled": True, "issuerRef": issuer}}
            objects = Objects({"metrics": {"auth": {"enabled": False}, "tls": tls, monitor[0].lower() + monitor[1:]: {"enabled": True}}})
            made = objects.one("Certificate", "-metrics")["spec"]
            self.assertEqual(made["issuerRef"], issuer | {"group": "cert-manager.io"})
            service = objects.one("Service", "-metrics")["metadata"]
            self.assertIn(f"{service['name']}.{service['namespace']}.svc", made["dnsNames"])
            spec = objects.one(monitor)["spec"]
            endpoint = (spec.get("endpoints") or spec["podMetricsEndpoints"])[0]
            self.assertEqual(endpoint["scheme"], "https")
            self.assertIn(endpoint["tlsConfig"]["serverName"], made["dnsNames"])
            self.assertEqual(endpoint["tlsConfig"]["ca"], {"secret": {"name": made["secretName"], "key": "ca.crt"}})
            self.assertNotIn("insecureSkipVerify", endpoint["tlsConfig"])
        known = Objects({"metrics": {"tls": {"secretName": "own", "caKey": ""}, **POD_MONITOR}}).one("PodMonitor")
        self.assertEqual(
            known["spec"]["podMetricsEndpoints"][0]["tlsConfig"], {"serverName": f"{NAME}-metrics.{NAMESPACE}.svc"}
        )
        self.assertEqual(Objects({"metrics": {"tls": {"secretName": "own"}}}).kind("Certificate"), [])

    def test_long_names_are_truncated(self):
        release = "r" * 53
        for found in Objects(release=release):
            name = found["metadata"]["name"]
            self.assertLessEqual(len(name), 63, name) if found["kind"] in ("Service", "Deployment") else None
            for value in found["metadata"].get("labels", {}).values():
                self.assertLessEqual(len(value), 63)


class Rights(unittest.TestCase):
    """RBAC."""

    def rules(self, objects, *ends):
        return [rule for end in ends for rule in objects.one("ClusterRole", end)["rules"]]

    def test_operator_has_exactly_these_rules(self):
        objects = Objects()
        self.assertEqual(
            self.rules(objects, "", "-classes", "-cluster-id", "-secrets", "-restarts"),
            [
                {"apiGroups": ["awsdeploy.dev"], "resources": ["awsdeployusers"], "verbs": ["get", "list", "watch", "patch"]},
                {"apiGroups": ["awsdeploy.dev"], "resources": ["awsdeployusers/status"], "verbs": ["update"]},
                {"apiGroups": ["events.k8s.io"], "resources": ["events"], "verbs": ["create", "patch"]},
                {"apiGroups": ["awsdeploy.dev"], "resources": ["awsdeployuserclasses"], "verbs": ["get", "list", "watch"]},
                {"apiGroups": ["awsdeploy.dev"], "resources": ["awsdeployuserclasses/status"], "verbs": ["update"]},
                {"apiGroups": [""], "resources": ["namespaces"], "verbs": ["list", "watch"]},
                {"apiGroups": [""], "resources": ["namespaces"], "resourceNames": ["kube-system"], "verbs": ["get"]},
                {"apiGroups": [""], "resources": ["secrets"], "verbs": SECRET_VERBS},
                {"apiGroups": ["apps"], "resources": ["deployments", "statefulsets", "daemonsets"], "verbs": ["get", "patch"]},
            ],
        )
        self.assertEqual(
            {binding["roleRef"]["name"] for binding in objects.kind("ClusterRoleBinding")},
            {NAME, f"{NAME}-classes", f"{NAME}-cluster-id", f"{NAME}-metrics-auth"},
        )
        self.assertEqual([binding["metadata"]["name"] for binding in objects.kind("RoleBinding")], [f"{NAME}-lease", f"{NAME}-own-namespace"])
        own = objects.one("Role", f"{NAME}-own-namespace")
        self.assertEqual(own["metadata"]["namespace"], NAMESPACE)
        self.assertEqual(own["rules"], [{"apiGroups": [""], "resources": ["secrets"], "verbs": ["get", "list", *SECRET_VERBS[1:]]}])

    def test_secrets_role_is_never_bound_cluster_wide(self):
        for file in sorted((CHART / "ci").glob("*-values.yaml")):
            with self.subTest(file.name):
                objects = Objects(yaml.safe_load(file.read_text()))
                of_secrets = {
                    role["metadata"]["name"]
                    for role in objects.kind("ClusterRole")
                    if any("secrets" in rule.get("resources", []) for rule in role["rules"])
                }
                self.assertEqual(len(of_secrets), 1)
                for binding in objects.kind("ClusterRoleBinding"):
                    self.assertNotIn(binding["roleRef"]["name"], of_secrets)

    def test_secrets_role_is_bound_in_listed_namespaces(self):
        objects = Objects({"secretAccess": {"namespaces": ["deploy", "ci"]}})
        bindings = [binding for binding in objects.kind("RoleBinding") if binding["roleRef"]["kind"] == "ClusterRole"]
        self.assertEqual([binding["metadata"]["namespace"] for binding in bindings], ["deploy", "ci"])
        for binding in bindings:
            self.assertEqual(binding["roleRef"]["name"], f"{NAME}-secrets")
            self.assertEqual(binding["subjects"], [{"kind": "ServiceAccount", "name": NAME, "namespace": NAMESPACE}])

    def test_restarts_role_is_bound_in_listed_namespaces_only(self):
        objects = Objects({"restartAccess": {"namespaces": ["deploy", "ci"]}})
        bindings = [binding for binding in objects.kind("RoleBinding") if binding["roleRef"]["name"] == f"{NAME}-restarts"]
        self.assertEqual([binding["metadata"]["namespace"] for binding in bindings], ["deploy", "ci"])
        for binding in bindings:
            self.assertEqual(binding["subjects"], [{"kind": "ServiceAccount", "name": NAME, "namespace": NAMESPACE}])
        whole = {binding["roleRef"]["name"] for binding in objects.kind("ClusterRoleBinding")}
        self.assertNotIn(f"{NAME}-restarts", whole)

    def test_metrics_auth_creates_review_and_reader_roles(self):
        without = Objects({"metrics": {"auth": {"enabled": False}}})
        names = {role["metadata"]["name"] for role in without.kind("ClusterRole")}
        self.assertEqual([name for name in names if "-metrics" in name], [])
        self.assertIn("--metrics-auth=false", without.arguments)
        self.assertIn("--metrics-audience=own", Objects({"metrics": {"auth": {"audience": "own"}}}).arguments)
        objects = Objects()
        self.assertIn("--metrics-auth=true", objects.arguments, "pods of every namespace reach the port by default")
        self.assertEqual(
            self.rules(objects, "-metrics-auth", "-metrics-reader"),
            [
                {"apiGroups": ["authentication.k8s.io"], "resources": ["tokenreviews"], "verbs": ["create"]},
                {"apiGroups": ["authorization.k8s.io"], "resources": ["subjectaccessreviews"], "verbs": ["create"]},
                {"nonResourceURLs": ["/metrics"], "verbs": ["get"]},
            ],
        )
        bound = objects.one("ClusterRoleBinding", "-metrics-auth")
        self.assertEqual(bound["subjects"], [{"kind": "ServiceAccount", "name": NAME, "namespace": NAMESPACE}])

    def test_monitors_send_a_token_with_metrics_auth(self):
        def endpoint(kind, **auth):
            spec = Objects({"metrics": {"auth": {"enabled": True, **auth}, kind: {"enabled": True}}}).one(kind[0].upper() + kind[1:])["spec"]
            return (spec.get("endpoints") or spec["podMetricsEndpoints"])[0]

        self.assertEqual(endpoint("serviceMonitor")["bearerTokenFile"], "/var/run/secrets/kubernetes.io/serviceaccount/token")
        for kind in ("serviceMonitor", "podMonitor"):
            shown = endpoint(kind, tokenSecret="prometheus")
            self.assertEqual(shown["authorization"], {"type": "Bearer", "credentials": {"name": "prometheus", "key": "token"}})
            self.assertNotIn("bearerTokenFile", shown)
        with self.assertRaisesRegex(HelmError, "metrics.auth.tokenSecret"):
            endpoint("podMonitor")

    def test_no_rule_has_a_wildcard(self):
        for role in Objects().kind("ClusterRole"):
            for rule in role["rules"]:
                self.assertNotIn("*", [*rule.get("apiGroups", []), *rule.get("resources", []), *rule["verbs"]])

    def test_watch_namespaces_limit_the_permissions(self):
        objects = Objects({"watchNamespaces": ["a", "b"]})
        # Classes and namespaces are cluster-scoped.
        self.assertEqual(
            {binding["roleRef"]["name"] for binding in objects.kind("ClusterRoleBinding")},
            {f"{NAME}-classes", f"{NAME}-cluster-id", f"{NAME}-metrics-auth"},
        )
        self.assertEqual(
            [(binding["metadata"]["namespace"], binding["roleRef"]["name"]) for binding in objects.kind("RoleBinding")],
            [(NAMESPACE, f"{NAME}-lease"), (NAMESPACE, f"{NAME}-own-namespace"), ("a", NAME), ("b", NAME)],
        )

    def test_explicit_cluster_id_needs_no_namespace_read(self):
        roles = [role["metadata"]["name"] for role in Objects({"settings": {"clusterId": "x"}}).kind("ClusterRole")]
        self.assertNotIn(f"{NAME}-cluster-id", roles)

    def test_bindings_use_the_service_account_of_the_pod(self):
        for account in ({}, {"name": "other"}, {"create": False, "name": "other"}):
            objects = Objects({"serviceAccount": account, "secretAccess": {"namespaces": ["a"]}})
            name = account.get("name", NAME)
            self.assertEqual(objects.pod["serviceAccountName"], name)
            self.assertEqual(len(objects.kind("ServiceAccount")), 1 if account.get("create", True) else 0)
            for binding in objects.kind("RoleBinding") + objects.kind("ClusterRoleBinding"):
                self.assertEqual([subject["name"] for subject in binding["subjects"]], [name])

    def test_user_roles_are_aggregated_only_on_request(self):
        for viewer, editor in ((True, False), (False, True)):
            objects = Objects({"rbac": {"aggregateViewer": viewer, "aggregateEditor": editor}})
            aggregate = "rbac.authorization.k8s.io/aggregate-to-"
            self.assertEqual(f"{aggregate}view" in objects.one("ClusterRole", "-view")["metadata"]["labels"], viewer)
            self.assertEqual(f"{aggregate}edit" in objects.one("ClusterRole", "-edit")["metadata"]["labels"], editor)
            # Write access to classes would allow any permission.
            for suffix in ("-view", "-edit"):
                for rule in objects.one("ClusterRole", suffix)["rules"]:
                    if any(resource.startswith("awsdeployuserclasses") for resource in rule["resources"]):
                        self.assertEqual(rule["verbs"], ["get", "list", "watch"])

    def test_user_roles_may_read_classes(self):
        for suffix in ("-view", "-edit"):
            resources = [resource for rule in Objects().one("ClusterRole", suffix)["rules"] for resource in rule["resources"]]
            self.assertIn("awsdeployuserclasses", resources)


class Admission(unittest.TestCase):
    """ValidatingAdmissionPolicies; tests/it/admission.rs has their effect."""

    def test_every_policy_fails_closed_and_denies(self):
        objects = Objects()
        policies, bindings = (objects.kind(f"ValidatingAdmissionPolicy{end}") for end in ("", "Binding"))
        self.assertEqual({binding["spec"]["policyName"] for binding in bindings}, {policy["metadata"]["name"] for policy in policies})
        for policy in policies:
            self.assertEqual(policy["spec"]["failurePolicy"], "Fail")
        for binding in bindings:
            self.assertIn("Deny", binding["spec"]["validationActions"])

    def test_records_policy_excludes_namespaces_of_other_releases(self):
        def selected(given):
            return Objects(given).one("ValidatingAdmissionPolicyBinding", "-records")["spec"].get("matchResources")

        self.assertIsNone(selected({}))
        (expression,) = selected({"watchNamespaces": ["a", "b"]})["namespaceSelector"]["matchExpressions"]
        self.assertEqual(expression, {"key": "kubernetes.io/metadata.name", "operator": "In", "values": ["a", "b"]})


class Network(unittest.TestCase):
    """NetworkPolicy and metrics."""

    def egress(self, given=None):
        """Maps ports to allowed CIDRs."""
        reached = {}
        for rule in Objects(given).one("NetworkPolicy")["spec"]["egress"]:
            for port in rule.get("ports", []):
                reached[port["port"]] = [peer["ipBlock"]["cidr"] for peer in rule.get("to", [])]
        return reached

    def test_network_policy_denies_by_default(self):
        policy = Objects().one("NetworkPolicy")["spec"]
        self.assertEqual(policy["policyTypes"], ["Ingress", "Egress"])
        self.assertEqual(policy["ingress"], [{"ports": [{"port": 8080, "protocol": "TCP"}]}])
        self.assertEqual(
            self.egress(), {53: [], 5353: [], 443: [], 6443: [], 8443: [], 16443: [], 80: ["169.254.170.23/32", "fd00:ec2::23/128"]}
        )

    def test_aws_endpoint_port_is_allowed(self):
        for url, port in (("http://moto.aws:5000", 5000), ("http://moto.aws/", 80), ("https://[fd00::1]:8443", 8443)):
            given = {"aws": {"endpointUrl": url}, "networkPolicy": {"podIdentity": False}}
            self.assertEqual(set(self.egress(given)), {*CLUSTER_PORTS, port})
        self.assertEqual(set(self.egress({"aws": {"endpointUrl": "https://a.b"}})), {*CLUSTER_PORTS, 80})

    def test_collector_port_is_allowed(self):
        given = {"tracing": {"otlp": {"endpoint": "http://collector.observability:4318"}}, "networkPolicy": {"podIdentity": False}}
        self.assertEqual(set(self.egress(given)), {*CLUSTER_PORTS, 4318})

    def test_instance_metadata_is_allowed_only_on_request(self):
        self.assertNotIn("169.254.169.254", text())
        given = {"aws": {"instanceMetadata": True}, "networkPolicy": {"podIdentity": False}}
        self.assertEqual(self.egress(given)[80], ["169.254.169.254/32", "fd00:ec2::254/128"])
        self.assertNotIn("AWS_EC2_METADATA_DISABLED", Objects(given).environment)


class Crds(unittest.TestCase):
    """CustomResourceDefinitions."""

    SOURCES = sorted((CHART / "crd-files").glob("*.yaml"))

    def test_crds_match_the_generated_files_and_are_kept(self):
        rendered = {crd["metadata"]["name"]: crd for crd in Objects().kind("CustomResourceDefinition")}
        self.assertEqual(len(rendered), len(self.SOURCES))
        self.assertTrue(self.SOURCES)
        for file in self.SOURCES:
            source = yaml.safe_load(file.read_text())
            crd = rendered[source["metadata"]["name"]]
            self.assertEqual(crd["metadata"]["annotations"], {"helm.sh/resource-policy": "keep"})
            self.assertEqual(crd["spec"], source["spec"])

    def test_crd_copies_match_the_generated_files(self):
        for file in self.SOURCES:
            generated = ROOT / "crds" / file.name
            if not generated.exists():
                self.skipTest(f"crds/{file.name} is not generated yet")
            self.assertEqual(file.read_text(), generated.read_text(), f"run: make generate ({file.name})")

    def test_crds_can_be_omitted_or_not_kept(self):
        self.assertEqual(Objects({"crds": {"enabled": False}}).kind("CustomResourceDefinition"), [])
        for crd in Objects({"crds": {"keep": False}}).kind("CustomResourceDefinition"):
            self.assertNotIn("annotations", crd["metadata"])


class Notes(unittest.TestCase):
    """NOTES.txt."""

    def test_notes_show_missing_settings_and_how_to_set_them(self):
        output = notes()
        for part in ("NOTHING IS ALLOWED WITHOUT A CLASS", "kubectl get awsdeployuserclasses", "NO ACCESS TO SECRETS",
                     "secretAccess.namespaces={deploy}", "fallback", "OIDC", "AWS CREDENTIALS ARE MISSING", "wait --for=condition=Ready"):
            self.assertIn(part, output)

    def test_notes_show_configured_settings(self):
        output = notes({
            "secretAccess": {"namespaces": ["ci", "deploy"]}, "crds": {"keep": False},
            "aws": {"credentialsSecret": "aws"},
        })
        for part in ("Secrets in: ci, deploy", "BEFORE you uninstall", "rotate it", "namespace: ci"):
            self.assertIn(part, output)
        self.assertNotRegex(output, "NO ACCESS TO SECRETS|ARE MISSING")

    def test_notes_wait_three_minutes_and_explain_rejections(self):
        # kubectl waits 30 s by default, which may be too short for a first user.
        unchecked = {"startupCheck": {"enabled": False}}
        output = notes(unchecked)
        self.assertRegex(output, r"wait --for=condition=Ready adu/example --timeout=3m\n")
        for part in ("paramKind", "no params found", "Apply it again"):
            self.assertIn(part, output)
        for given in ({}, {**unchecked, "admission": {"classes": False}}):
            self.assertNotIn("no params found", notes(given))

    def test_notes_mention_preset_classes(self):
        role = "arn:aws:iam::123456789012:role/deploy-users"
        output = notes({
            "secretAccess": {"namespaces": ["ci"]},
            "presets": {"cycle": {"enabled": True, "namespaces": ["deploy"], "roleArn": role}},
        })
        for part in ("BUT NOT in deploy", "Class cycle uses a role in account 123456789012", "className: cycle", "adu,secret cycle"):
            self.assertIn(part, output)
        self.assertNotIn("AwsDeployUserClass\n", output)
        closed = notes({"presets": {"cycle": {"enabled": True, "namespaces": ["a", "b"]}}})
        self.assertIn("secretAccess.namespaces={a,b}", closed)

    def test_notes_print_the_policy_for_the_role_account(self):
        self.assertIn("iam-policy --account 123456789012\n", notes())
        annotations = {"eks.amazonaws.com/role-arn": "arn:aws-cn:iam::111122223333:role/x"}
        output = notes({"serviceAccount": {"annotations": annotations}})
        self.assertIn("iam-policy --account 111122223333 --partition aws-cn\n", output)
        self.assertNotIn("123456789012", output)
        self.assertNotIn(" exec ", notes({"replicaCount": 0}), "without a pod, exec is not possible")

    def test_notes_warn_about_tokens_without_tls(self):
        self.assertIn("WITHOUT TLS", notes())
        self.assertNotIn("WITHOUT TLS", notes({"metrics": {"tls": {"secretName": "own"}}}))
        self.assertNotIn("WITHOUT TLS", notes({"metrics": {"auth": {"enabled": False}}}))

    def test_notes_warn_about_open_metrics_and_host_network(self):
        closed, opened = {}, {"metrics": {"auth": {"enabled": False}}}
        limited = {"networkPolicy": {"metricsFrom": [{"podSelector": {}}]}}
        self.assertNotRegex(notes(closed), "NEED NO TOKEN|NO EFFECT")
        self.assertRegex(notes(opened), "NEED NO TOKEN, and every pod")
        self.assertRegex(notes(opened | limited), "NEED NO TOKEN: ")
        host = notes(opened | limited | {"hostNetwork": True})
        self.assertRegex(host, "NEED NO TOKEN, and every pod")
        self.assertIn("NETWORK POLICY HAS NO EFFECT", host)

    def test_notes_warn_about_secrets_of_kube_system(self):
        given = {"secretAccess": {"namespaces": ["deploy", "kube-system"]}}
        self.assertIn("kube-system IS AMONG THEM", notes(given))
        self.assertNotIn("AMONG THEM", notes({"secretAccess": {"namespaces": ["deploy"]}}))

    def test_notes_fit_a_terminal(self):
        for given in (
            {},
            {"presets": {"cycle": {"enabled": True, "namespaces": ["deploy"]}}, "aws": {"credentialsSecret": "aws"}},
            {"metrics": {"auth": {"enabled": False}}, "hostNetwork": True, "secretAccess": {"namespaces": ["kube-system"]}},
        ):
            for line in notes(given).splitlines():
                self.assertLessEqual(len(line), 130, line)


class ClassAdmission(unittest.TestCase):
    """The admission policy of classes."""

    def test_revocation_changes_no_other_field(self):
        policy = Objects().one("ValidatingAdmissionPolicy", "-classes")
        (condition,) = [found["expression"] for found in policy["spec"]["matchConditions"] if found["name"] == "more-than-revocation"]
        crd = yaml.safe_load((CHART / "crd-files" / "awsdeploy.dev_awsdeployusers.yaml").read_text())
        fields = set(crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"])
        self.assertEqual(set(re.findall(r"object\.spec\.\?(\w+) == oldObject\.spec\.\?\1", condition)), fields - {"credentials"})


class Presets(unittest.TestCase):
    """Preset classes."""

    def test_presets_are_classes_and_disabled_by_default(self):
        self.assertEqual(Objects().kind("AwsDeployUserClass"), [])
        policy = "arn:aws:iam::123456789012:policy/cdk"
        given = {preset: {"enabled": True, "namespaces": ["deploy"]} for preset in ("cycle", "defang", "cdk")}
        given["cdk"]["policy"] = policy
        classes = {found["metadata"]["name"]: found for found in Objects({"presets": given}).kind("AwsDeployUserClass")}
        self.assertEqual(set(classes), {"cycle", "defang", "cdk"})
        for found in classes.values():
            self.assertEqual(found["spec"]["namespaces"], {"names": ["deploy"]})
            self.assertEqual(found["spec"]["users"], {"path": f"/awsdeploy/{found['metadata']['name']}/"})
            # Deleting and recreating a class would revoke the keys of its users.
            self.assertEqual(found["metadata"]["annotations"]["helm.sh/hook-delete-policy"], "hook-failed")
        self.assertEqual(classes["cycle"]["spec"]["policies"]["allowed"], ["AmazonEC2FullAccess"])
        self.assertEqual(classes["cdk"]["spec"]["policies"]["allowed"], [policy])
        acknowledged = [name for name, found in classes.items() if found["spec"].get("acknowledgeAdminEquivalent")]
        self.assertEqual(acknowledged, ["defang"])

    def test_presets_offer_the_least_policy_of_the_examples(self):
        for preset in ("cycle", "defang"):
            given = {"enabled": True, "namespaces": ["deploy"]}
            example, _ = yaml.safe_load_all((ROOT / "examples" / "policies" / f"{preset}.yaml").read_text())
            least = example["spec"]["policies"]["templates"]
            for more, expected in (
                ({"account": "123456789012"}, least),
                ({}, json.loads(json.dumps(least).replace("{accountId}", "*"))),
            ):
                with self.subTest(f"{preset} {more}"):
                    policies = Objects({"presets": {preset: given | more}}).one("AwsDeployUserClass", preset)["spec"]["policies"]
                    self.assertEqual((policies["documents"], policies["templates"]), ("TemplatesOnly", expected))
                    self.assertIn("default", policies)
                    only = Objects({"presets": {preset: given | more | {"leastPolicyOnly": True}}}).one("AwsDeployUserClass", preset)["spec"]
                    self.assertEqual(only["policies"], {"documents": "TemplatesOnly", "templates": expected})
                    self.assertNotIn("acknowledgeAdminEquivalent", only)

    def test_preset_uses_the_account_of_its_role(self):
        role = "arn:aws:iam::123456789012:role/deploy-users"
        for preset in ("cycle", "defang", "cdk"):
            given = {"enabled": True, "namespaces": ["deploy"]} | ({"policy": "arn:aws:iam::123456789012:policy/cdk"} if preset == "cdk" else {})
            for more, account in (
                ({}, None),
                ({"account": "123456789012"}, {"id": "123456789012"}),
                ({"roleArn": role}, {"id": "123456789012", "roleArn": role}),
                ({"account": "123456789012", "roleArn": role, "externalId": "c-1"},
                 {"id": "123456789012", "roleArn": role, "externalId": "c-1"}),
            ):
                with self.subTest(f"{preset} {more}"):
                    spec = Objects({"presets": {preset: given | more}}).one("AwsDeployUserClass", preset)["spec"]
                    self.assertEqual(spec.get("account"), account)


class Examples(unittest.TestCase):
    """examples/, in addition to test_schemas."""

    def manifests(self):
        for file in sorted((ROOT / "examples").glob("*.yaml")):
            for manifest in yaml.safe_load_all(file.read_text()):
                yield file.name, manifest

    def test_every_example_has_its_class(self):
        classes = {}
        for file in sorted((ROOT / "examples" / "classes").glob("*.yaml")):
            manifest = yaml.safe_load(file.read_text())
            classes[manifest["metadata"]["name"]] = manifest["spec"]
        for name, manifest in self.manifests():
            if manifest["kind"] == "AwsDeployUser":
                served = classes[manifest["spec"]["className"]]["namespaces"]["names"]
                self.assertIn(manifest["metadata"]["namespace"], served, name)

    def test_manifests_set_all_defaults_within_lists(self):
        # Argo CD compares lists as a whole and would always show a defaulted field as drift.
        def absent(node, given, path, listed):
            for key, below in node.get("properties", {}).items():
                if listed and "default" in below and key not in given:
                    yield f"{path}.{key}"
                if key in given:
                    yield from absent(below, given[key], f"{path}.{key}", listed)
            if isinstance(node.get("items"), dict):
                for each in given:
                    yield from absent(node["items"], each, f"{path}[]", True)

        crds = [yaml.safe_load(file.read_text()) for file in (CHART / "crd-files").glob("*.yaml")]
        schemas = {crd["spec"]["names"]["kind"]: crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"] for crd in crds}
        classes = [yaml.safe_load(file.read_text()) for file in (ROOT / "examples" / "classes").glob("*.yaml")]
        presets = {"cycle": {}, "defang": {}, "cdk": {"policy": "arn:aws:iam::123456789012:policy/cdk"}}
        given = {preset: {"enabled": True, "namespaces": ["deploy"], **more} for preset, more in presets.items()}
        classes += Objects({"presets": given}).kind("AwsDeployUserClass")
        for manifest in [*classes, *(manifest for _, manifest in self.manifests())]:
            if manifest["kind"] in schemas:
                with self.subTest(manifest["metadata"]["name"]):
                    self.assertEqual(list(absent(schemas[manifest["kind"]], manifest, "", False)), [])

    def test_cycle_agent_serves_the_example(self):
        (user,) = yaml.safe_load_all((ROOT / "examples" / "cycle.yaml").read_text())
        agent = list(yaml.safe_load_all((ROOT / "examples" / "handover" / "cycle" / "cronjob.yaml").read_text()))
        job = next(manifest for manifest in agent if manifest["kind"] == "CronJob")
        pod = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]
        environment = {variable["name"]: variable["value"] for variable in pod["containers"][0]["env"]}
        key = user["spec"]["accessKey"]
        self.assertEqual({environment["CONSUMER"]}, {consumer["name"] for consumer in key["handover"]})
        self.assertEqual((environment["NAMESPACE"], environment["NAME"]), (user["metadata"]["namespace"], user["metadata"]["name"]))
        self.assertEqual(pod["volumes"][0]["secret"]["secretName"], key["secret"]["name"])
        (role,) = [manifest["rules"] for manifest in agent if manifest["kind"] == "Role"]
        self.assertEqual(role[0]["resourceNames"], [user["metadata"]["name"]])

    def test_example_pods_mount_the_secret_as_a_directory(self):
        secrets = {
            manifest["spec"].get("accessKey", {}).get("secret", {}).get("name", manifest["metadata"]["name"])
            for _, manifest in self.manifests()
            if manifest["kind"] == "AwsDeployUser"
        }
        pods = [manifest for _, manifest in self.manifests() if manifest["kind"] == "Pod"]
        self.assertTrue(pods)
        for pod in pods:
            (container,) = pod["spec"]["containers"]
            (mount,) = container["volumeMounts"]
            (volume,) = pod["spec"]["volumes"]
            self.assertNotIn("subPath", mount)
            self.assertIn(volume["secret"]["secretName"], secrets)
            environment = {variable["name"]: variable["value"] for variable in container["env"]}
            self.assertEqual(environment["AWS_CONFIG_FILE"], f"{mount['mountPath']}/config")
            credentials = environment.get("AWS_SHARED_CREDENTIALS_FILE", f"{mount['mountPath']}/credentials")
            self.assertEqual(credentials, f"{mount['mountPath']}/credentials")


class Image(unittest.TestCase):
    """The Dockerfile and duplicated versions."""

    DOCKERFILE = (ROOT / "Dockerfile").read_text()

    def test_dockerfile_uses_the_toolchain_of_the_repository(self):
        channel = re.search(r'channel = "(.+)"', (ROOT / "rust-toolchain.toml").read_text()).group(1)
        self.assertIn(f"ARG RUST_VERSION={channel}\n", self.DOCKERFILE)

    def test_chart_image_and_crate_versions_match(self):
        version = re.search(r'^version = "(.+)"', (ROOT / "Cargo.toml").read_text(), re.MULTILINE).group(1)
        chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
        self.assertEqual((chart["appVersion"], chart["version"]), (version, version))
        self.assertIn(f"ARG VERSION={version}\n", self.DOCKERFILE)

    def test_image_user_matches_the_chart(self):
        user = values()["podSecurityContext"]["runAsUser"]
        self.assertIn(f"USER {user}:{user}\n", self.DOCKERFILE)

    def test_dockerignore_includes_every_workspace_crate(self):
        allowed = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
        cargo = (ROOT / "Cargo.toml").read_text()
        members = re.findall(r'"([^"]+)"', re.search(r"members = \[(.*?)\]", cargo, re.DOTALL).group(1))
        for member in [*members, "src", "Cargo.toml", "Cargo.lock"]:
            self.assertTrue(any(member == path or member.startswith(f"{path}/") for path in allowed), member)
