"""Tests of the chart in a real cluster: server-side validation, effective permissions, upgrade, rollback and uninstall.

Installs without a pod and removes all objects that it created. Use only a disposable cluster.
"""

import functools
import json
import os
import pathlib
import re
import shlex
import subprocess
import time
import unittest

import yaml
from chart import CHART, NAME, NAMESPACE, ROOT, Objects, HelmError, helm, notes

SERVED, OTHER = "deploy", "other"
NAMESPACES = (NAMESPACE, SERVED, OTHER, "ci", "staging", "velero")
ACCOUNT = f"system:serviceaccount:{NAMESPACE}:{NAME}"
USERS = "awsdeployusers.awsdeploy.dev"
CLASSES = "awsdeployuserclasses.awsdeploy.dev"
VALUES = {"replicaCount": 0, "secretAccess": {"namespaces": [SERVED]}}
ROLE = "arn:aws:iam::444455556666:role/deploy-users"
PRESET = {**VALUES, "presets": {"cycle": {"enabled": True, "namespaces": [SERVED], "roleArn": ROLE, "externalId": "cluster-1"}}}


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


def may(*questions):
    """Whether RBAC allows each (verb, group:resource/name, namespace, subresource); a list for several questions. For a namespace
    object, the API server sets the namespace to the name of the object."""
    reviews = []
    for verb, what, namespace, subresource in ((*question, None, None)[:4] for question in questions):
        group, _, rest = what.partition(":")
        resource, _, name = rest.partition("/")
        attributes = {"verb": verb, "group": group, "resource": resource, "name": name, "namespace": namespace or ""}
        if subresource:
            attributes["subresource"] = subresource
        spec = {
            "user": ACCOUNT,
            "groups": ["system:serviceaccounts", f"system:serviceaccounts:{NAMESPACE}", "system:authenticated"],
            "resourceAttributes": attributes,
        }
        reviews.append({"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec})
    answered = kubectl("create", "-f", "-", "-o", "json", given={"apiVersion": "v1", "kind": "List", "items": reviews}).stdout
    answers, decoder = [], json.JSONDecoder()
    while answered := answered.lstrip():
        answer, end = decoder.raw_decode(answered)
        answers += answer.get("items", [answer])
        answered = answered[end:]
    assert [answer["spec"] for answer in answers] == [
        {**review["spec"], "resourceAttributes": {k: v for k, v in review["spec"]["resourceAttributes"].items() if v}}
        for review in reviews
    ], "the reviews must be in the order of the questions"
    answers = [answer["status"].get("allowed", False) for answer in answers]
    return answers if len(answers) > 1 else answers[0]


@functools.cache
def kinds():
    return {*kubectl("api-resources", "--verbs=list,delete", "-o", "name").stdout.split(), USERS, CLASSES}


def of_the_release():
    """(kind, name) of all objects with the label of the release."""
    found = kubectl("get", ",".join(kinds()), "--all-namespaces", "-l", f"app.kubernetes.io/instance={NAME}", "-o", "json").stdout
    return {(item["kind"], item["metadata"]["name"]) for item in json.loads(found)["items"]}


def eventually(condition, seconds=90):
    """Polls until the condition holds. The API server loads bindings and policies asynchronously."""
    end = time.monotonic() + seconds
    while not (held := condition()) and time.monotonic() < end:
        time.sleep(0.2)
    return held


def setUpModule():
    unittest.addModuleCleanup(kubectl, "delete", "namespace", *NAMESPACES, "--ignore-not-found", "--wait=false")
    for namespace in NAMESPACES:
        kubectl("create", "namespace", namespace)
    kubectl("label", "namespace", NAMESPACE, "pod-security.kubernetes.io/enforce=restricted")


class Release(unittest.TestCase):
    """One release per test class; each test starts with VALUES."""

    changed = False

    @classmethod
    def setUpClass(cls):
        cls.addClassCleanup(cls.remove)
        install(VALUES)

    def setUp(self):
        if Release.changed:
            install(VALUES)
        Release.changed = False

    @classmethod
    def remove(cls):
        try:
            helm("uninstall", NAME, "--ignore-not-found")
        finally:
            kubectl("delete", "crd", USERS, CLASSES, "--ignore-not-found")
            Release.changed = False

    def change(self, given):
        """Installs other values until the end of the test."""
        Release.changed = True
        install(given)

    def make_user(self, *, of_preset=False):
        """Applies the example as soon as the CRD is established; returns it. `of_preset`: as the class of the preset allows it."""
        user = yaml.safe_load((ROOT / "examples" / "cycle.yaml").read_text())
        if of_preset:
            # That class names its users, and allows no tags.
            del user["spec"]["userName"], user["spec"]["tags"]
        self.addCleanup(kubectl, "-n", SERVED, "delete", USERS, "cycle", "--ignore-not-found")
        made = eventually(lambda: (done := kubectl("apply", "-o", "json", "-f", "-", given=user, check=False)).stdout and done)
        return json.loads(made.stdout)


class Rights(Release):
    """Permissions of the operator and of users, and server-side validation."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        # The CRD is established asynchronously.
        eventually(lambda: kubectl("apply", "-f", str(ROOT / "examples" / "classes"), check=False).returncode == 0)

    def test_operator_is_allowed_what_it_needs(self):
        users, classes = "awsdeploy.dev:awsdeployusers", "awsdeploy.dev:awsdeployuserclasses"
        questions = [
            *((verb, users, namespace) for verb in ("get", "list", "watch", "patch") for namespace in (None, SERVED, OTHER)),
            ("update", users, OTHER, "status"),
            *((verb, "events.k8s.io:events", OTHER) for verb in ("create", "patch")),
            *((verb, ":secrets", SERVED) for verb in ("get", "create", "update", "delete")),
            *((verb, ":secrets", NAMESPACE) for verb in ("get", "list", "create", "update", "delete")),
            ("get", ":namespaces/kube-system", "kube-system"),
            *((verb, classes) for verb in ("get", "list", "watch")),
            ("update", classes, None, "status"),
            *((verb, ":namespaces") for verb in ("list", "watch")),
        ]

        def refused():
            return [question for question, allowed in zip(questions, may(*questions), strict=True) if not allowed]

        self.assertTrue(eventually(lambda: not refused()), refused())

    def test_operator_is_allowed_nothing_else(self):
        questions = [
            (verb, ":secrets", namespace)
            for verb in ("get", "list", "watch", "create", "update", "patch", "delete", "deletecollection")
            for namespace in (None, OTHER, "kube-system")
        ]
        questions += [(verb, ":secrets", NAMESPACE) for verb in ("watch", "patch", "deletecollection")]
        for verb in ("get", "list", "watch", "create", "update", "patch", "delete", "deletecollection"):
            for group, resource in (
                ("", "configmaps"), ("", "pods"), ("", "serviceaccounts"), ("", "nodes"), ("apps", "deployments"),
                ("rbac.authorization.k8s.io", "clusterroles"), ("rbac.authorization.k8s.io", "rolebindings"),
                ("apiextensions.k8s.io", "customresourcedefinitions"), ("coordination.k8s.io", "leases"),
                ("admissionregistration.k8s.io", "validatingadmissionpolicies"),
            ):
                questions.append((verb, f"{group}:{resource}", SERVED))
        questions += [(verb, ":secrets", SERVED) for verb in ("list", "watch", "patch", "deletecollection")]
        for verb in ("create", "update", "delete", "deletecollection"):
            questions += [(verb, "awsdeploy.dev:awsdeployusers", SERVED), (verb, "awsdeploy.dev:awsdeployuserclasses")]
        questions += [(verb, ":namespaces") for verb in ("update", "patch", "delete")]
        questions.append(("get", f":namespaces/{OTHER}", OTHER))
        questions += [(verb, "events.k8s.io:events", SERVED) for verb in ("get", "list", "delete", "update")]
        for verb in ("impersonate", "bind", "escalate"):
            for resource in (":users", ":groups", ":serviceaccounts", "rbac.authorization.k8s.io:clusterroles"):
                questions.append((verb, resource))
        questions.append(("create", ":serviceaccounts", NAMESPACE, "token"))

        def allowed():
            return [question for question, allowed in zip(questions, may(*questions), strict=True) if allowed]

        self.assertTrue(eventually(lambda: not allowed()), allowed())

    def test_operator_token_has_the_expected_permissions(self):
        """Uses the token of the operator, which includes the permissions of all service accounts."""
        token = kubectl("-n", NAMESPACE, "create", "token", NAME).stdout.strip()
        # A client certificate would take precedence over the token.
        access = yaml.safe_load(pathlib.Path(os.environ["KUBECONFIG"]).read_text())
        for user in access["users"]:
            user["user"] = {"token": token}
        file = pathlib.Path(os.environ["HELM_CACHE_HOME"]).parent / "operator.kubeconfig"
        file.touch(mode=0o600)
        file.write_text(json.dumps(access))
        me = f"--kubeconfig={file}"

        self.assertIn(ACCOUNT, kubectl(me, "auth", "whoami").stdout)

        def can(namespace):
            return kubectl(me, "auth", "can-i", "get", "secrets", "-n", namespace, check=False).stdout.strip()

        self.assertTrue(eventually(lambda: can(SERVED) == "yes"))
        self.assertTrue(eventually(lambda: can(OTHER) == "no"))
        self.assertTrue(kubectl(me, "get", "namespace", "kube-system", "-o", "jsonpath={.metadata.uid}").stdout)
        kubectl(me, "get", USERS, "--all-namespaces")
        user = self.make_user()
        owner = {"apiVersion": user["apiVersion"], "kind": user["kind"], "name": "cycle", "uid": user["metadata"]["uid"], "controller": True}
        labels = {"app.kubernetes.io/managed-by": NAME}
        secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "a", "labels": labels}, "stringData": {"a": "b"}}

        def refusal():
            # A dry run, because the policy may not be active yet.
            dry = kubectl(me, "-n", SERVED, "create", "--dry-run=server", "-f", "-", given=secret, check=False)
            return dry.stderr

        self.assertTrue(eventually(lambda: "not owned by an AwsDeployUser" in refusal()), refusal())
        secret["metadata"]["ownerReferences"] = [owner]
        for namespace, allowed in ((SERVED, True), (OTHER, False)):
            done = kubectl(me, "-n", namespace, "create", "-f", "-", given=secret, check=False)
            self.assertEqual(done.returncode == 0, allowed, done.stderr)
        kubectl(me, "-n", SERVED, "get", "secret", "a")
        refused = kubectl(me, "-n", SERVED, "get", "secrets", check=False)
        self.assertIn("cannot list resource", refused.stderr)
        kubectl(me, "-n", SERVED, "delete", "secret", "a")

    def test_watch_namespaces_limit_the_permissions(self):
        self.change({**VALUES, "watchNamespaces": [SERVED]})
        lists = [("list", "awsdeploy.dev:awsdeployusers", namespace) for namespace in (SERVED, None, OTHER)]
        questions = [*lists, ("create", "events.k8s.io:events", SERVED)]
        self.assertTrue(eventually(lambda: may(*questions) == [True, False, False, True]), may(*questions))

    def test_manual_role_binding_grants_secret_access(self):
        self.change({"replicaCount": 0})
        closed = eventually(lambda: not may(("get", ":secrets", SERVED)))
        self.assertTrue(closed, "access to a removed namespace is revoked")
        role = f"{NAME}-secrets"
        kubectl("-n", SERVED, "create", "rolebinding", "manual", f"--clusterrole={role}", f"--serviceaccount={NAMESPACE}:{NAME}")
        self.addCleanup(kubectl, "-n", SERVED, "delete", "rolebinding", "manual")
        questions = [(verb, ":secrets", SERVED) for verb in ("get", "create", "update", "delete")]
        self.assertTrue(eventually(lambda: may(*questions) == [True] * 4), may(*questions))

    def test_user_roles_are_aggregated(self):
        def aggregated(role):
            rules = json.loads(kubectl("get", "clusterrole", role, "-o", "json").stdout)["rules"] or []
            return {verb for rule in rules if "awsdeployusers" in rule.get("resources", []) for verb in rule["verbs"]}

        self.assertTrue(eventually(lambda: aggregated("view") == {"get", "list", "watch"}), aggregated("view"))
        self.assertNotIn("create", aggregated("edit"))
        self.change({**VALUES, "rbac": {"aggregateEditor": True, "aggregateViewer": False}})
        self.assertTrue(eventually(lambda: "create" in aggregated("edit") and "create" in aggregated("admin")))
        self.assertTrue(eventually(lambda: not aggregated("view")))

    def test_pod_is_admitted_by_restricted_namespace(self):
        pod = Objects().one("Deployment")["spec"]["template"]
        pod |= {"apiVersion": "v1", "kind": "Pod"}
        pod["metadata"] |= {"name": "trial", "namespace": NAMESPACE}
        kubectl("create", "--dry-run=server", "--validate=strict", "-f", "-", given=pod)
        pod["spec"]["containers"][0]["securityContext"]["capabilities"] = {}
        refused = kubectl("create", "--dry-run=server", "-f", "-", given=pod, check=False)
        self.assertIn("violates PodSecurity", refused.stderr, "the namespace must reject an unrestricted pod")

    def test_api_server_accepts_all_rendered_objects(self):
        for file in sorted((CHART / "ci").glob("*-values.yaml")):
            objects = Objects(yaml.safe_load(file.read_text()))
            # CRDs of third parties are not installed.
            ours = [found for found in objects if not found["apiVersion"].startswith(("monitoring.coreos.com/", "cert-manager.io/"))]
            with self.subTest(file.name):
                kubectl(
                    "apply", "--server-side", "--force-conflicts", "--dry-run=server", "--validate=strict", "-f", "-",
                    given={"apiVersion": "v1", "kind": "List", "items": ours},
                )

    def test_api_server_accepts_all_examples(self):
        done = kubectl("apply", "--dry-run=server", "--validate=strict", "-f", str(ROOT / "examples"))
        manifests = [found for file in (ROOT / "examples").glob("*.yaml") for found in yaml.safe_load_all(file.read_text())]
        self.assertEqual(len(done.stdout.splitlines()), len(manifests))
        self.assertEqual(done.stderr, "", "warnings")
        done = kubectl("apply", "--dry-run=server", "--validate=strict", "-f", str(ROOT / "examples" / "classes"))
        self.assertEqual(done.stderr, "", "warnings")

    def test_notes_commands_print_the_iam_policy(self):
        """Runs the command locally, because there is no pod."""
        # The second command is for what the classes allow.
        lines = re.findall(r"^ +aws-deploy-user-operator (iam-policy .*)$", notes(VALUES | {"replicaCount": 1}), re.MULTILINE)
        classes = kubectl("get", CLASSES, "-o", "yaml").stdout
        actions = []
        for line in lines:
            command = [os.environ["OPERATOR"], *shlex.split(line)]
            done = subprocess.run(command, input=classes, capture_output=True, text=True, check=True, timeout=60)
            statements = json.loads(done.stdout)["Statement"]
            actions.append({action for statement in statements if statement["Effect"] == "Allow" for action in statement["Action"]})
        everything, what_classes_allow = actions
        self.assertIn("iam:CreateAccessKey", what_classes_allow)
        self.assertLessEqual(what_classes_allow, everything)

    def test_second_release_does_not_adopt_objects(self):
        self.addCleanup(helm, "uninstall", "another", "--ignore-not-found")
        self.change({**VALUES, "watchNamespaces": [SERVED]})
        with self.assertRaisesRegex(HelmError, "(?i)ownership|exists"):
            helm("upgrade", "another", str(CHART), "--install", given={"replicaCount": 0, "watchNamespaces": [OTHER]})

    def test_second_release_needs_namespaces_of_its_own(self):
        def another(*watched):
            given = {"replicaCount": 0, "watchNamespaces": watched}
            helm("upgrade", "another", str(CHART), "--install", "--take-ownership", given=given)

        self.addCleanup(helm, "uninstall", "another", "--ignore-not-found")
        with self.assertRaisesRegex(HelmError, f"release {NAME} in namespace {NAMESPACE} reconciles all namespaces"):
            another(OTHER)
        self.change({**VALUES, "watchNamespaces": [SERVED]})
        with self.assertRaisesRegex(HelmError, f"reconciles {SERVED}: "):
            another(OTHER, SERVED)
        with self.assertRaisesRegex(HelmError, f"reconciles {SERVED}: "):
            another()
        another(OTHER)
        with self.assertRaisesRegex(HelmError, f"release another in namespace {NAMESPACE} reconciles {OTHER}: "):
            install(VALUES)


class Life(Release):
    """Installation, upgrade, rollback and uninstall."""

    def uid(self):
        """UID of the preset class; empty if there is none."""
        return kubectl("get", CLASSES, "cycle", "--ignore-not-found", "-o", "jsonpath={.metadata.uid}").stdout

    def test_preset_class_is_never_recreated(self):
        helm("uninstall", NAME)
        kubectl("delete", "crd", USERS, CLASSES)
        self.change(PRESET)
        first = self.uid()
        self.assertTrue(first, "the first installation must create CRD and class")
        account = json.loads(kubectl("get", CLASSES, "cycle", "-o", "json").stdout)["spec"]["account"]
        self.assertEqual(account, {"id": "444455556666", "roleArn": ROLE, "externalId": "cluster-1"})
        install(PRESET)
        self.assertIn("kind: AwsDeployUserClass\n", helm("get", "manifest", NAME))
        self.assertEqual(self.uid(), first, "recreating the class would revoke the keys of its users")
        install(VALUES)
        self.assertEqual(self.uid(), first, "disabling a preset must keep the class")
        helm("rollback", NAME)
        self.assertEqual(self.uid(), first)
        helm("uninstall", NAME, "--wait")
        self.assertEqual(self.uid(), first, "uninstalling must keep the class")
        self.change(PRESET)
        self.assertEqual(self.uid(), first)

    def test_rollback_reverts_the_upgrade(self):
        before = of_the_release()
        secrets = [("get", ":secrets", SERVED), ("get", ":secrets", OTHER)]
        self.change({"replicaCount": 0, "secretAccess": {"namespaces": [OTHER]}, "metrics": {"dashboard": {"enabled": True}}})
        self.assertTrue(eventually(lambda: may(*secrets) == [False, True]), may(*secrets))
        self.assertIn(("ConfigMap", f"{NAME}-dashboard"), of_the_release() - before)
        helm("rollback", NAME)
        self.assertTrue(eventually(lambda: may(*secrets) == [True, False]), may(*secrets))
        self.assertEqual(of_the_release(), before)

    def test_uninstall_keeps_crds_and_resources(self):
        self.change(PRESET)
        self.make_user(of_preset=True)
        # Set the finalizer, because no operator runs.
        finalizer = {"metadata": {"finalizers": ["awsdeploy.dev/iam-user"]}}
        kubectl("-n", SERVED, "patch", "adu", "cycle", "--type", "merge", "-p", json.dumps(finalizer))
        self.assertGreater(len(of_the_release()), 20)
        helm("uninstall", NAME, "--wait")
        kept = {("CustomResourceDefinition", USERS), ("CustomResourceDefinition", CLASSES), ("AwsDeployUserClass", "cycle")}
        self.assertEqual(of_the_release(), kept)
        self.assertTrue(eventually(lambda: not may(("get", ":secrets", SERVED))))

        # A pending deletion, and the command of docs/operations.md that completes it.
        kubectl("-n", SERVED, "delete", "adu", "cycle", "--wait=false")
        self.assertIn("cycle", kubectl("-n", SERVED, "get", "adu").stdout)
        uninstall = (ROOT / "docs" / "operations.md").read_text().split("\n## Uninstall\n")[1]
        command = re.search(r"^ *kubectl (.*)$", uninstall, re.MULTILINE).group(1)
        kubectl(*shlex.split(command))
        self.assertTrue(eventually(lambda: "cycle" not in kubectl("-n", SERVED, "get", "adu").stdout))
