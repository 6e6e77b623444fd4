"""The chart in a real cluster: what the API server says to its objects, what the operator may and may not do there, and what
upgrade, rollback and uninstall leave.

Installs with no pod and removes all that it made. Only for a cluster that nobody needs.
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
from chart import CHART, NAME, NAMESPACE, ROOT, Objects, Refused, helm, notes

SERVED, OTHER = "deploy", "other"
NAMESPACES = (NAMESPACE, SERVED, OTHER, "ci", "staging", "velero")
ACCOUNT = f"system:serviceaccount:{NAMESPACE}:{NAME}"
USERS = "awsdeployusers.awsdeploy.dev"
CLASSES = "awsdeployuserclasses.awsdeploy.dev"
VALUES = {"replicas": 0, "secretAccess": {"namespaces": [SERVED]}}
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
    """What RBAC says to each (verb, group:resource/name, namespace, subresource), asked as the API server asks it: with the
    namespace of a namespace set to itself. One answer is one, several are a list."""
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
    ], "the answers are to these questions"
    answers = [answer["status"].get("allowed", False) for answer in answers]
    return answers if len(answers) > 1 else answers[0]


@functools.cache
def kinds():
    return {*kubectl("api-resources", "--verbs=list,delete", "-o", "name").stdout.split(), USERS, CLASSES}


def of_the_release():
    """(kind, name) of everything that carries the release's label."""
    found = kubectl("get", ",".join(kinds()), "--all-namespaces", "-l", f"app.kubernetes.io/instance={NAME}", "-o", "json").stdout
    return {(item["kind"], item["metadata"]["name"]) for item in json.loads(found)["items"]}


def eventually(claim, seconds=90):
    """What the claim says, once that is so. The API server learns of bindings and policies by watches of its own."""
    end = time.monotonic() + seconds
    while not (held := claim()) and time.monotonic() < end:
        time.sleep(0.2)
    return held


def setUpModule():
    unittest.addModuleCleanup(kubectl, "delete", "namespace", *NAMESPACES, "--ignore-not-found", "--wait=false")
    for namespace in NAMESPACES:
        kubectl("create", "namespace", namespace)
    kubectl("label", "namespace", NAMESPACE, "pod-security.kubernetes.io/enforce=restricted")


class Release(unittest.TestCase):
    """One release, used by all tests of a class; each of them finds it with VALUES."""

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
        """Other values until the end of the test."""
        Release.changed = True
        install(given)

    def make_user(self):
        """Applies the example, in a moment when the CRD is known; returns it."""
        user = yaml.safe_load((ROOT / "examples" / "cycle.yaml").read_text())
        self.addCleanup(kubectl, "-n", SERVED, "delete", USERS, "cycle", "--ignore-not-found")
        made = eventually(lambda: (done := kubectl("apply", "-o", "json", "-f", "-", given=user, check=False)).stdout and done)
        return json.loads(made.stdout)


class Rights(Release):
    """What the operator and what people may do, and what the API server says to what they write."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        # The CRD is known a moment later.
        eventually(lambda: kubectl("apply", "-f", str(ROOT / "examples" / "classes"), check=False).returncode == 0)

    def test_the_operator_may_do_what_it_does(self):
        users, classes = "awsdeploy.dev:awsdeployusers", "awsdeploy.dev:awsdeployuserclasses"
        questions = [
            *((verb, users, namespace) for verb in ("get", "list", "watch", "patch") for namespace in (None, SERVED, OTHER)),
            ("update", users, OTHER, "status"),
            *((verb, "events.k8s.io:events", OTHER) for verb in ("create", "patch")),
            *((verb, ":secrets", SERVED) for verb in ("get", "create", "update", "delete")),
            ("get", ":namespaces/kube-system", "kube-system"),
            *((verb, classes) for verb in ("get", "list", "watch")),
            ("update", classes, None, "status"),
            *((verb, ":namespaces") for verb in ("list", "watch")),
        ]

        def refused():
            return [question for question, allowed in zip(questions, may(*questions), strict=True) if not allowed]

        self.assertTrue(eventually(lambda: not refused()), refused())

    def test_the_operator_may_do_nothing_else(self):
        questions = [
            (verb, ":secrets", namespace)
            for verb in ("get", "list", "watch", "create", "update", "patch", "delete", "deletecollection")
            for namespace in (None, OTHER, NAMESPACE, "kube-system")
        ]
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

        def can(namespace):
            return kubectl(me, "auth", "can-i", "get", "secrets", "-n", namespace, check=False).stdout.strip()

        self.assertTrue(eventually(lambda: can(SERVED) == "yes"))
        self.assertTrue(eventually(lambda: can(OTHER) == "no"))
        self.assertTrue(kubectl(me, "get", "namespace", "kube-system", "-o", "jsonpath={.metadata.uid}").stdout)
        kubectl(me, "get", USERS, "--all-namespaces")
        user = self.make_user()
        owner = {"apiVersion": user["apiVersion"], "kind": user["kind"], "name": "cycle", "uid": user["metadata"]["uid"]}
        secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "a"}, "stringData": {"a": "b"}}

        def refusal():
            # Nothing is made while the policy is not in force yet.
            dry = kubectl(me, "-n", SERVED, "create", "--dry-run=server", "-f", "-", given=secret, check=False)
            return dry.stderr

        self.assertTrue(eventually(lambda: "belong to an AwsDeployUser" in refusal()), refusal())
        secret["metadata"]["ownerReferences"] = [owner]
        for namespace, allowed in ((SERVED, True), (OTHER, False)):
            done = kubectl(me, "-n", namespace, "create", "-f", "-", given=secret, check=False)
            self.assertEqual(done.returncode == 0, allowed, done.stderr)
        kubectl(me, "-n", SERVED, "get", "secret", "a")
        refused = kubectl(me, "-n", SERVED, "get", "secrets", check=False)
        self.assertIn("cannot list resource", refused.stderr)
        kubectl(me, "-n", SERVED, "delete", "secret", "a")

    def test_watched_namespaces_are_the_end_of_the_operators_rights(self):
        self.change({**VALUES, "watchNamespaces": [SERVED]})
        lists = [("list", "awsdeploy.dev:awsdeployusers", namespace) for namespace in (SERVED, None, OTHER)]
        questions = [*lists, ("create", "events.k8s.io:events", SERVED)]
        self.assertTrue(eventually(lambda: may(*questions) == [True, False, False, True]), may(*questions))

    def test_the_command_that_the_operator_names_grants_the_same(self):
        self.change({"replicas": 0})
        closed = eventually(lambda: not may(("get", ":secrets", SERVED)))
        self.assertTrue(closed, "a namespace that is no longer named is closed")
        role = f"{NAME}-secrets"
        kubectl("-n", SERVED, "create", "rolebinding", "by-hand", f"--clusterrole={role}", f"--serviceaccount={NAMESPACE}:{NAME}")
        self.addCleanup(kubectl, "-n", SERVED, "delete", "rolebinding", "by-hand")
        questions = [(verb, ":secrets", SERVED) for verb in ("get", "create", "update", "delete")]
        self.assertTrue(eventually(lambda: may(*questions) == [True] * 4), may(*questions))

    def test_people_get_rights_by_aggregation(self):
        def aggregated(role):
            rules = json.loads(kubectl("get", "clusterrole", role, "-o", "json").stdout)["rules"] or []
            return {verb for rule in rules if "awsdeployusers" in rule.get("resources", []) for verb in rule["verbs"]}

        self.assertTrue(eventually(lambda: aggregated("view") == {"get", "list", "watch"}), aggregated("view"))
        self.assertNotIn("create", aggregated("edit"))
        self.change({**VALUES, "rbac": {"aggregateEditor": True, "aggregateViewer": False}})
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
            # The CRDs of others are not ours to install.
            ours = [found for found in objects if not found["apiVersion"].startswith(("monitoring.coreos.com/", "cert-manager.io/"))]
            with self.subTest(file.name):
                kubectl(
                    "apply", "--server-side", "--force-conflicts", "--dry-run=server", "--validate=strict", "-f", "-",
                    given={"apiVersion": "v1", "kind": "List", "items": ours},
                )

    def test_examples_are_taken(self):
        done = kubectl("apply", "--dry-run=server", "--validate=strict", "-f", str(ROOT / "examples"))
        manifests = [found for file in (ROOT / "examples").glob("*.yaml") for found in yaml.safe_load_all(file.read_text())]
        self.assertEqual(len(done.stdout.splitlines()), len(manifests))
        self.assertEqual(done.stderr, "", "warnings")
        done = kubectl("apply", "--dry-run=server", "--validate=strict", "-f", str(ROOT / "examples" / "classes"))
        self.assertEqual(done.stderr, "", "warnings")

    def test_the_commands_of_the_notes_print_the_policy_of_the_operator(self):
        """Run outside of the pod that there is not."""
        # The last of the two asks for what the classes allow.
        lines = re.findall(r"^ +aws-deploy-user-operator (iam-policy .*)$", notes(VALUES | {"replicas": 1}), re.MULTILINE)
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

    def test_a_second_release_does_not_take_what_is_anothers(self):
        self.addCleanup(helm, "uninstall", "another", "--ignore-not-found")
        with self.assertRaisesRegex(Refused, "(?i)ownership|exists"):
            helm("upgrade", "another", str(CHART), "--install", given=VALUES)


class Life(Release):
    """The release from its first installation to its end."""

    def uid(self):
        """The class of the preset, or nothing."""
        return kubectl("get", CLASSES, "cycle", "--ignore-not-found", "-o", "jsonpath={.metadata.uid}").stdout

    def test_the_class_of_a_preset_is_one_object_from_the_first_installation_on(self):
        helm("uninstall", NAME)
        kubectl("delete", "crd", USERS, CLASSES)
        self.change(PRESET)
        first = self.uid()
        self.assertTrue(first, "CRD and class come with one installation")
        account = json.loads(kubectl("get", CLASSES, "cycle", "-o", "json").stdout)["spec"]["account"]
        self.assertEqual(account, {"id": "444455556666", "roleArn": ROLE, "externalId": "cluster-1"})
        install(PRESET)
        self.assertIn("kind: AwsDeployUserClass\n", helm("get", "manifest", NAME))
        self.assertEqual(self.uid(), first, "a class that were made anew would take its users with it")
        install(VALUES)
        self.assertEqual(self.uid(), first, "a preset that is switched off takes no keys with it")
        helm("rollback", NAME)
        self.assertEqual(self.uid(), first)
        helm("uninstall", NAME, "--wait")
        self.assertEqual(self.uid(), first, "nor does the release, whose pods are still there for a while")
        self.change(PRESET)
        self.assertEqual(self.uid(), first)

    def test_a_rollback_takes_back_what_the_upgrade_brought(self):
        before = of_the_release()
        secrets = [("get", ":secrets", SERVED), ("get", ":secrets", OTHER)]
        self.change({"replicas": 0, "secretAccess": {"namespaces": [OTHER]}, "metrics": {"dashboard": {"enabled": True}}})
        self.assertTrue(eventually(lambda: may(*secrets) == [False, True]), may(*secrets))
        self.assertIn(("ConfigMap", f"{NAME}-dashboard"), of_the_release() - before)
        helm("rollback", NAME)
        self.assertTrue(eventually(lambda: may(*secrets) == [True, False]), may(*secrets))
        self.assertEqual(of_the_release(), before)

    def test_an_uninstall_leaves_the_crds_and_what_people_made(self):
        self.change(PRESET)
        self.make_user()
        # As the operator marks it, who is not there.
        mark = {"metadata": {"finalizers": ["awsdeploy.dev/iam-user"]}}
        kubectl("-n", SERVED, "patch", "adu", "cycle", "--type", "merge", "-p", json.dumps(mark))
        self.assertGreater(len(of_the_release()), 20)
        helm("uninstall", NAME, "--wait")
        kept = {("CustomResourceDefinition", USERS), ("CustomResourceDefinition", CLASSES), ("AwsDeployUserClass", "cycle")}
        self.assertEqual(of_the_release(), kept)
        self.assertTrue(eventually(lambda: not may(("get", ":secrets", SERVED))))

        # What hangs, and the way out that docs/operations.md gives.
        kubectl("-n", SERVED, "delete", "adu", "cycle", "--wait=false")
        self.assertIn("cycle", kubectl("-n", SERVED, "get", "adu").stdout)
        uninstall = (ROOT / "docs" / "operations.md").read_text().split("\n## Uninstall\n")[1]
        command = re.search(r"^ *kubectl (.*)$", uninstall, re.MULTILINE).group(1)
        kubectl(*shlex.split(command))
        self.assertTrue(eventually(lambda: "cycle" not in kubectl("-n", SERVED, "get", "adu").stdout))
