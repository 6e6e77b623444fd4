"""The chart in a real cluster: what the API server says to its objects, and what the operator may and may not do there.

Installs with no pod and removes all that it made. Only for a cluster that nobody needs.
"""

import json
import os
import pathlib
import subprocess
import time
import unittest

import yaml
from chart import CHART, NAME, NAMESPACE, ROOT, Objects, Refused, helm

SERVED, OTHER = "deploy", "other"
NAMESPACES = (NAMESPACE, SERVED, OTHER, "ci", "staging")
ACCOUNT = f"system:serviceaccount:{NAMESPACE}:{NAME}"
USERS = "awsdeployusers.awsdeploy.dev"
CLASSES = "awsdeployuserclasses.awsdeploy.dev"
VALUES = {"replicas": 0, "secretAccess": {"namespaces": [SERVED]}}


def kubectl(*arguments, given=None, check=True):
    text = None if given is None else given if isinstance(given, str) else json.dumps(given)
    done = subprocess.run(
        [os.environ["KUBECTL"], *arguments], input=text, capture_output=True, text=True, check=False, timeout=120
    )
    if check and done.returncode != 0:
        raise AssertionError(f"kubectl {' '.join(arguments)}: {done.stderr}")
    return done


def install(given):
    return helm("upgrade", NAME, str(CHART), "--install", given=given)


def may(verb, what, namespace=None, subresource=None):
    """What RBAC says, asked as the API server asks it: with the namespace of a namespace set to itself."""
    group, _, rest = what.partition(":")
    resource, _, name = rest.partition("/")
    attributes = {"verb": verb, "group": group, "resource": resource, "name": name, "namespace": namespace or ""}
    if subresource:
        attributes["subresource"] = subresource
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": {
            "user": ACCOUNT,
            "groups": ["system:serviceaccounts", f"system:serviceaccounts:{NAMESPACE}", "system:authenticated"],
            "resourceAttributes": attributes,
        },
    }
    return json.loads(kubectl("create", "-f", "-", "-o", "json", given=review).stdout)["status"].get("allowed", False)


def eventually(claim, seconds=20):
    end = time.monotonic() + seconds
    while not (held := claim()) and time.monotonic() < end:
        time.sleep(0.2)
    return held


class Cluster(unittest.TestCase):
    """One release, used by all tests."""

    @classmethod
    def setUpClass(cls):
        cls.addClassCleanup(cls.remove)
        for namespace in NAMESPACES:
            kubectl("create", "namespace", namespace)
        kubectl("label", "namespace", NAMESPACE, "pod-security.kubernetes.io/enforce=restricted")
        install(VALUES)
        # The CRD is known a moment later.
        eventually(lambda: kubectl("apply", "-f", str(ROOT / "examples" / "classes"), check=False).returncode == 0)

    @classmethod
    def remove(cls):
        try:
            helm("uninstall", NAME, "--ignore-not-found")
        finally:
            kubectl("delete", "crd", USERS, CLASSES, "--ignore-not-found")
            kubectl("delete", "namespace", *NAMESPACES, "--ignore-not-found", "--wait=false")

    def tearDown(self):
        install(VALUES)

    def test_the_operator_may_do_what_it_does(self):
        for verb in ("get", "list", "watch", "patch"):
            for namespace in (None, SERVED, OTHER):
                self.assertTrue(may(verb, "awsdeploy.dev:awsdeployusers", namespace), (verb, namespace))
        self.assertTrue(may("update", "awsdeploy.dev:awsdeployusers", OTHER, "status"))
        for verb in ("create", "patch"):
            self.assertTrue(may(verb, "events.k8s.io:events", OTHER), verb)
        for verb in ("get", "create", "update", "delete"):
            self.assertTrue(may(verb, ":secrets", SERVED), verb)
        self.assertTrue(may("get", ":namespaces/kube-system", "kube-system"))
        for verb in ("get", "list", "watch"):
            self.assertTrue(may(verb, "awsdeploy.dev:awsdeployuserclasses"), verb)
        self.assertTrue(may("update", "awsdeploy.dev:awsdeployuserclasses", subresource="status"))
        for verb in ("list", "watch"):
            self.assertTrue(may(verb, ":namespaces"), verb)

    def test_the_operator_may_do_nothing_else(self):
        for verb in ("get", "list", "watch", "create", "update", "patch", "delete", "deletecollection"):
            for namespace in (None, OTHER, NAMESPACE, "kube-system"):
                self.assertFalse(may(verb, ":secrets", namespace), (verb, namespace))
            for group, resource in (
                ("", "configmaps"), ("", "pods"), ("", "serviceaccounts"), ("", "nodes"), ("apps", "deployments"),
                ("rbac.authorization.k8s.io", "clusterroles"), ("rbac.authorization.k8s.io", "rolebindings"),
                ("apiextensions.k8s.io", "customresourcedefinitions"), ("coordination.k8s.io", "leases"),
                ("admissionregistration.k8s.io", "validatingadmissionpolicies"),
            ):
                self.assertFalse(may(verb, f"{group}:{resource}", SERVED), (verb, resource))
        for verb in ("list", "watch", "patch", "deletecollection"):
            self.assertFalse(may(verb, ":secrets", SERVED), verb)
        for verb in ("create", "update", "delete", "deletecollection"):
            self.assertFalse(may(verb, "awsdeploy.dev:awsdeployusers", SERVED), verb)
            self.assertFalse(may(verb, "awsdeploy.dev:awsdeployuserclasses"), verb)
        for verb in ("update", "patch", "delete"):
            self.assertFalse(may(verb, ":namespaces"), verb)
        self.assertFalse(may("get", f":namespaces/{OTHER}", OTHER))
        for verb in ("get", "list", "delete", "update"):
            self.assertFalse(may(verb, "events.k8s.io:events", SERVED), verb)
        for verb in ("impersonate", "bind", "escalate"):
            for resource in (":users", ":groups", ":serviceaccounts", "rbac.authorization.k8s.io:clusterroles"):
                self.assertFalse(may(verb, resource), (verb, resource))
        self.assertFalse(may("create", ":serviceaccounts", NAMESPACE, "token"))

    def test_the_operator_itself_gets_the_same_answers(self):
        """With its own token, over the wire; the rights that every account has are among them."""
        token = kubectl("-n", NAMESPACE, "create", "token", NAME).stdout.strip()
        # A client certificate would win over the token.
        access = yaml.safe_load(pathlib.Path(os.environ["KUBECONFIG"]).read_text())
        for user in access["users"]:
            user["user"] = {"token": token}
        file = pathlib.Path(os.environ["HELM_CACHE_HOME"]).parent / "operator.kubeconfig"
        file.touch(mode=0o600)
        file.write_text(json.dumps(access))
        me = f"--kubeconfig={file}"

        self.assertIn(ACCOUNT, kubectl(me, "auth", "whoami").stdout)
        self.assertEqual(kubectl(me, "auth", "can-i", "get", "secrets", "-n", SERVED).stdout.strip(), "yes")
        self.assertEqual(kubectl(me, "auth", "can-i", "get", "secrets", "-n", OTHER, check=False).stdout.strip(), "no")
        self.assertTrue(kubectl(me, "get", "namespace", "kube-system", "-o", "jsonpath={.metadata.uid}").stdout)
        kubectl(me, "get", USERS, "--all-namespaces")
        user = yaml.safe_load((ROOT / "examples" / "cycle.yaml").read_text())
        done = eventually(lambda: (made := kubectl("apply", "-o", "json", "-f", "-", given=user, check=False)).stdout and made)
        self.addCleanup(kubectl, "-n", SERVED, "delete", USERS, "cycle")
        owner = {"apiVersion": user["apiVersion"], "kind": user["kind"], "name": "cycle"}
        owner["uid"] = json.loads(done.stdout)["metadata"]["uid"]
        secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "a"}, "stringData": {"a": "b"}}
        refused = kubectl(me, "-n", SERVED, "create", "-f", "-", given=secret, check=False)
        self.assertIn("belong to an AwsDeployUser", refused.stderr)
        secret["metadata"]["ownerReferences"] = [owner]
        for namespace, allowed in ((SERVED, True), (OTHER, False)):
            done = kubectl(me, "-n", namespace, "create", "-f", "-", given=secret, check=False)
            self.assertEqual(done.returncode == 0, allowed, done.stderr)
        kubectl(me, "-n", SERVED, "get", "secret", "a")
        refused = kubectl(me, "-n", SERVED, "get", "secrets", check=False)
        self.assertIn("cannot list resource", refused.stderr)
        kubectl(me, "-n", SERVED, "delete", "secret", "a")

    def test_watched_namespaces_are_the_end_of_the_operators_rights(self):
        install({**VALUES, "watchNamespaces": [SERVED]})
        self.assertTrue(may("list", "awsdeploy.dev:awsdeployusers", SERVED))
        self.assertTrue(may("create", "events.k8s.io:events", SERVED))
        for namespace in (None, OTHER):
            self.assertFalse(may("list", "awsdeploy.dev:awsdeployusers", namespace))

    def test_a_namespace_that_is_no_longer_named_is_closed(self):
        install({"replicas": 0, "secretAccess": {"namespaces": [OTHER]}})
        self.assertTrue(may("get", ":secrets", OTHER))
        self.assertFalse(may("get", ":secrets", SERVED))

    def test_the_command_that_the_operator_names_grants_the_same(self):
        install({"replicas": 0})
        role = f"{NAME}-secrets"
        self.assertFalse(may("get", ":secrets", SERVED))
        kubectl("-n", SERVED, "create", "rolebinding", "by-hand", f"--clusterrole={role}", f"--serviceaccount={NAMESPACE}:{NAME}")
        self.addCleanup(kubectl, "-n", SERVED, "delete", "rolebinding", "by-hand")
        for verb in ("get", "create", "update", "delete"):
            self.assertTrue(may(verb, ":secrets", SERVED), verb)

    def test_people_get_rights_by_aggregation(self):
        def aggregated(role):
            rules = json.loads(kubectl("get", "clusterrole", role, "-o", "json").stdout)["rules"] or []
            return {verb for rule in rules if "awsdeployusers" in rule.get("resources", []) for verb in rule["verbs"]}

        self.assertTrue(eventually(lambda: aggregated("view") == {"get", "list", "watch"}), aggregated("view"))
        self.assertNotIn("create", aggregated("edit"))
        install({**VALUES, "rbac": {"aggregateEditor": True, "aggregateViewer": False}})
        self.assertTrue(eventually(lambda: "create" in aggregated("edit") and "create" in aggregated("admin")))
        self.assertTrue(eventually(lambda: not aggregated("view")))

    def test_the_pod_is_admitted_where_only_restricted_ones_are(self):
        pod = Objects().one("Deployment")["spec"]["template"]
        pod |= {"apiVersion": "v1", "kind": "Pod"}
        pod["metadata"] |= {"name": "trial", "namespace": NAMESPACE}
        kubectl("create", "--dry-run=server", "--validate=strict", "-f", "-", given=pod)
        pod["spec"]["containers"][0]["securityContext"]["capabilities"] = {}
        refused = kubectl("create", "--dry-run=server", "-f", "-", given=pod, check=False)
        self.assertIn("violates PodSecurity", refused.stderr, "else the claim above says nothing")

    def test_the_api_server_takes_what_the_chart_makes(self):
        for file in sorted((CHART / "ci").glob("*-values.yaml")):
            objects = Objects(yaml.safe_load(file.read_text()))
            # The CRD of a ServiceMonitor is not ours to install.
            ours = [found for found in objects if found["kind"] != "ServiceMonitor"]
            with self.subTest(file.name):
                kubectl(
                    "apply", "--server-side", "--force-conflicts", "--dry-run=server", "--validate=strict", "-f", "-",
                    given={"apiVersion": "v1", "kind": "List", "items": ours},
                )

    def test_examples_are_taken(self):
        done = kubectl("apply", "--dry-run=server", "--validate=strict", "-f", str(ROOT / "examples"))
        self.assertEqual(len(done.stdout.splitlines()), len(list((ROOT / "examples").glob("*.yaml"))))
        self.assertEqual(done.stderr, "", "warnings")
        done = kubectl("apply", "--dry-run=server", "--validate=strict", "-f", str(ROOT / "examples" / "classes"))
        self.assertEqual(done.stderr, "", "warnings")

    def test_resources_outlive_the_release(self):
        user = yaml.safe_load((ROOT / "examples" / "cycle.yaml").read_text())
        kubectl("apply", "-f", "-", given=user)
        self.addCleanup(kubectl, "-n", SERVED, "delete", USERS, "cycle")
        helm("uninstall", NAME, "--wait")
        self.assertIn("cycle", kubectl("-n", SERVED, "get", "adu").stdout)
        self.assertFalse(may("get", ":secrets", SERVED))
        install(VALUES)
        with self.assertRaisesRegex(Refused, "(?i)ownership|exists"):
            helm("upgrade", "another", str(CHART), "--install", given=VALUES)
        helm("uninstall", "another", "--ignore-not-found")


if __name__ == "__main__":
    unittest.main()
