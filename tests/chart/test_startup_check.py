"""Tests of the start-up check: its Job, its rights, and the command that it runs."""

import os
import subprocess
import unittest

from chart import NAME, NAMESPACE, Objects

HOOK = {
    "helm.sh/hook": "post-install",
    "helm.sh/hook-delete-policy": "before-hook-creation,hook-succeeded",
    "helm.sh/hook-output-log-policy": "hook-failed",
}


class StartupCheck(unittest.TestCase):
    def test_check_is_a_hook_that_leaves_nothing_on_success(self):
        check = Objects().check
        kinds = {"ServiceAccount", "Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding", "Job"}
        self.assertEqual(set(check), kinds)
        for kind, found in check.items():
            # The rights exist before the Job.
            weight = {} if kind == "Job" else {"helm.sh/hook-weight": "-5"}
            self.assertEqual(found["metadata"]["annotations"], HOOK | weight, kind)
            self.assertEqual(found["metadata"]["name"], f"{NAME}-check")
        for given in ({"startupCheck": {"enabled": False}}, {"replicaCount": 0}):
            self.assertEqual(Objects(given).check, {}, given)

    def test_common_labels_and_annotations_are_on_the_check(self):
        for found in Objects({"commonLabels": {"team": "a"}, "commonAnnotations": {"own": "x"}}).check.values():
            self.assertEqual((found["metadata"]["labels"]["team"], found["metadata"]["annotations"]["own"]), ("a", "x"))

    def test_pod_of_the_check_is_restricted_and_no_pod_of_the_operator(self):
        objects = Objects({
            "tolerations": [{"key": "a"}],
            "nodeSelector": {"b": "c"},
            "affinity": {"nodeAffinity": {}},
            "global": {"imagePullSecrets": ["d"]},
            "hostNetwork": True,
            "dnsConfig": {"nameservers": ["192.0.2.1"]},
            "hostAliases": [{"ip": "192.0.2.2", "hostnames": ["e"]}],
            "podAnnotations": {"sidecar.istio.io/inject": "false"},
            "podLabels": {"team": "f"},
        })
        template, operator = objects.check["Job"]["spec"]["template"], objects.pod
        pod = template["spec"]
        own = {"containers", "serviceAccountName", "restartPolicy"}
        deployments = {"containers", "serviceAccountName", "terminationGracePeriodSeconds", "topologySpreadConstraints"}
        self.assertEqual({k: v for k, v in pod.items() if k not in own}, {k: v for k, v in operator.items() if k not in deployments})
        self.assertEqual(pod["dnsPolicy"], "ClusterFirstWithHostNet")
        self.assertEqual(template["metadata"]["annotations"], {"sidecar.istio.io/inject": "false"})
        self.assertEqual(template["metadata"]["labels"]["team"], "f")
        (container,) = pod["containers"]
        for field in ("image", "imagePullPolicy", "securityContext", "resources"):
            self.assertEqual(container[field], objects.container[field])
        self.assertEqual((pod["serviceAccountName"], pod["restartPolicy"]), (f"{NAME}-check", "Never"))
        # Service, PodDisruptionBudget and NetworkPolicy of the operator must not select it.
        selector = objects.one("Deployment")["spec"]["selector"]["matchLabels"]
        self.assertFalse(selector.items() <= template["metadata"]["labels"].items())

    def test_check_may_read_and_try_one_resource_in_its_namespace(self):
        check = Objects().check
        self.assertEqual(check["Role"]["metadata"]["namespace"], NAMESPACE)
        self.assertEqual(check["Role"]["rules"], [
            {"apiGroups": ["apps"], "resources": ["deployments"], "resourceNames": [NAME], "verbs": ["get"]},
            {"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]},
            {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "resourceNames": [NAME], "verbs": ["get"]},
            {"apiGroups": ["awsdeploy.dev"], "resources": ["awsdeployusers"], "verbs": ["create"]},
        ])
        self.assertEqual(check["ClusterRole"]["rules"], [
            {"apiGroups": ["awsdeploy.dev"], "resources": ["awsdeployuserclasses"], "verbs": ["get", "list"]},
        ])
        account = [{"kind": "ServiceAccount", "name": f"{NAME}-check", "namespace": NAMESPACE}]
        for kind in ("RoleBinding", "ClusterRoleBinding"):
            self.assertEqual(check[kind]["subjects"], account)
            self.assertEqual(check[kind]["roleRef"]["name"], f"{NAME}-check")

    def test_operator_accepts_the_arguments_of_the_check(self):
        if not os.access(os.environ.get("OPERATOR", ""), os.X_OK):
            self.skipTest("the operator is not built; run: make build")
        for given in ({}, {"replicaCount": 1, "leaderElection": {"enabled": False}, "fullnameOverride": "other"}):
            (container,) = Objects(given).check["Job"]["spec"]["template"]["spec"]["containers"]
            self.assertEqual(container["args"][:3], ["doctor", "--wait", "--timeout=2m"])
            environment = {"PATH": os.environ["PATH"], "KUBECONFIG": "/nonexistent"}
            done = subprocess.run([os.environ["OPERATOR"], *container["args"]], capture_output=True, text=True, check=False, timeout=60, env=environment)
            # Exit code 2 would be a usage error.
            self.assertEqual(done.returncode, 1, done.stderr)
            self.assertIn("no Kubernetes cluster is configured", done.stderr)
