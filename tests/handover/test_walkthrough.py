"""Runs the commands of docs/handover-cycle.md: a real API server, the AWS emulator, the operator as a process, and the fake of the hub.
There is no node, so the pod of a Job is a process here, with the environment and the script of the CronJob.

Needs a control plane of the test kit: tests/chart/run --control-plane."""

import base64
import json
import os
import pathlib
import re
import shlex
import socket
import subprocess
import sys
import tempfile
import time
import unittest
import urllib.error
import urllib.request

import yaml
from test_handover import INTEGRATION, ROOT, SHELL, TOKEN, Fake, served

PAGE = ROOT / "docs" / "handover-cycle.md"
OPERATOR = "aws-deploy-user-operator"
AGENT = "system:serviceaccount:deploy:cycle-handover"
KUBECTL = """#!/bin/sh
case "$*" in
*" logs job/"*) exec {python} {program} run-agent ;;
*) exec {kubectl} "$@" ;;
esac
"""


def commands():
    """(command, output) of all console blocks, in order."""
    found = []
    for block in re.findall(r"^```console\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            if line.startswith("$ "):
                found.append((line[2:], []))
            else:
                found[-1][1].append(line)
    return found


class Names:
    """Replaces key ids by their order of appearance, times and hashes."""

    def __init__(self):
        self.known = []

    def normalize(self, text):
        def number(found):
            if found[0] not in self.known:
                self.known.append(found[0])
            return f"KEY{self.known.index(found[0]) + 1}"

        # kustomize appends a hash of the content.
        text = re.sub(r"^(configmap/.*)-[a-z0-9]{10} ", r"\1 ", text, flags=re.MULTILINE)
        text = re.sub(r"\d{4}-\d\d-\d\dT[\d:.]+Z", "TIME", text)
        return re.sub(r"AKIA[A-Z0-9]+", number, text)


def run(*arguments, check=True, given=None, **more):
    done = subprocess.run(arguments, capture_output=True, text=True, check=False, timeout=900, input=given, **more)
    if check and done.returncode != 0:
        raise AssertionError(f"{shlex.join(map(str, arguments))}: {done.stdout}{done.stderr}")
    return done


def kubectl(*arguments, **more):
    return run(os.environ["KUBECTL"], *arguments, **more)


def run_agent():
    """The pod of the CronJob, as a process."""
    job = json.loads(kubectl("-n", "deploy", "get", "cronjob", "cycle-handover", "-o", "json").stdout)
    pod = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    variables = {variable["name"]: variable["value"] for variable in container["env"]}
    with tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(folder)
        directories = {mount["name"]: root / mount["name"] for mount in container["volumeMounts"]}
        paths = {mount["mountPath"]: str(root / mount["name"]) for mount in container["volumeMounts"]}
        for volume in pod["volumes"]:
            directory = directories[volume["name"]]
            directory.mkdir()
            files = {}
            if "secret" in volume:
                data = json.loads(kubectl("-n", "deploy", "get", "secret", volume["secret"]["secretName"], "-o", "json").stdout)["data"]
                files = {name: base64.b64decode(value) for name, value in data.items()}
            elif "configMap" in volume:
                data = json.loads(kubectl("-n", "deploy", "get", "configmap", volume["configMap"]["name"], "-o", "json").stdout)["data"]
                files = {name: value.encode() for name, value in data.items()}
            for name, value in files.items():
                (directory / name).write_bytes(value)
        account = root / "account"
        account.mkdir()
        (account / "token").write_text(kubectl("-n", "deploy", "create", "token", pod["serviceAccountName"]).stdout.strip())
        access = yaml.safe_load(pathlib.Path(os.environ["KUBECONFIG"]).read_text())
        (cluster,) = [entry["cluster"] for entry in access["clusters"]]
        authority = cluster.get("certificate-authority-data")
        (account / "ca.crt").write_bytes(
            base64.b64decode(authority) if authority else pathlib.Path(cluster["certificate-authority"]).read_bytes()
        )
        environment = {"PATH": os.environ["PATH"], "TMPDIR": str(directories["tmp"]), "POLL_SECONDS": "0", "no_proxy": "*"}
        environment |= {name: paths.get(value, value) for name, value in variables.items()}
        environment |= {"ACCOUNT_DIR": str(account), "CYCLE_URL": os.environ["HUB"], "KUBERNETES_URL": cluster["server"]}
        program, script = container["command"]
        mount, name = script.rsplit("/", 1)
        assert program == "sh", container["command"]
        done = run(SHELL, f"{paths[mount]}/{name}", env=environment, check=False)
        sys.stdout.write(done.stdout)
        sys.stderr.write(done.stderr)
        return done.returncode


class Operator:
    """The operator as a process with the rights of the chart."""

    def __init__(self, folder):
        testkit, kubeconfig = pathlib.Path(os.environ["OPERATOR"]).with_name("testkit"), folder / "operator.kubeconfig"
        run(testkit, "sa-kubeconfig", "--namespace", OPERATOR, "--name", OPERATOR, "--out", kubeconfig)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.address = f"127.0.0.1:{free.getsockname()[1]}"
        times = ["--min-rotation-interval=10s", "--repair-interval=1s", "--recovery-delay=5s", "--deletion-delay=1s", "--secret-check=1s"]
        self.log = folder / "operator.log"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [os.environ["OPERATOR"], *times, f"--metrics-bind-address={self.address}"],
                env=os.environ | {"KUBECONFIG": str(kubeconfig)}, stdout=log, stderr=subprocess.STDOUT,
            )

    def wait_until_ready(self):
        end = time.monotonic() + 90
        while time.monotonic() < end:
            try:
                with urllib.request.urlopen(f"http://{self.address}/readyz", timeout=5) as answer:
                    if answer.status == 200:
                        return
            except (urllib.error.URLError, OSError):
                time.sleep(0.2)
        raise AssertionError(self.log.read_text())

    def stop(self):
        self.process.terminate()
        self.process.wait(timeout=60)


@unittest.skipUnless(os.environ.get("AWS_ENDPOINT_URL") and os.environ.get("KUBECONFIG"), "needs the control plane of the test kit")
class Walkthrough(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        (self.folder / "bin").mkdir()
        for name, value in (("api-key", TOKEN + "\n"), ("hub-id", "hub-1")):
            (self.folder / name).write_text(value)
        for name in ("examples", "charts"):
            (self.folder / name).symlink_to(ROOT / name)
        kubectl("create", "namespace", "deploy")
        self.addCleanup(kubectl, "delete", "namespace", "deploy", OPERATOR, "--timeout=120s")
        crds = [f"{plural}.awsdeploy.dev" for plural in ("awsdeployusers", "awsdeployuserclasses")]
        self.addCleanup(kubectl, "delete", "crd", *crds, "--ignore-not-found", "--timeout=60s")
        values = {
            "replicaCount": 0, "secretAccess": {"namespaces": ["deploy"]}, "networkPolicy": {"enabled": False},
            "admission": {"handoverAgents": [AGENT]},
        }
        chart = str(ROOT / "charts" / OPERATOR)
        run(
            os.environ["HELM"], "upgrade", "--install", OPERATOR, chart, "--namespace", OPERATOR, "--create-namespace", "--values", "-",
            given=json.dumps(values),
        )
        self.addCleanup(run, os.environ["HELM"], "uninstall", OPERATOR, "--namespace", OPERATOR, "--wait")
        self.operator = Operator(self.folder)
        self.addCleanup(self.operator.stop)
        self.operator.wait_until_ready()
        self.addCleanup(kubectl, "delete", "-f", str(ROOT / "examples" / "cycle.yaml"), "--ignore-not-found", "--timeout=60s")

    def test_documented_commands_hand_a_key_over_to_cycle(self):
        fake = Fake()
        program = self.folder / "bin" / "kubectl"
        program.write_text(KUBECTL.format(python=sys.executable, program=__file__, kubectl=os.environ["KUBECTL"]))
        program.chmod(0o755)
        shown, seen = Names(), Names()
        with served(fake) as hub:
            environment = os.environ | {"PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}", "HUB": hub}
            found = commands()
            self.assertGreater(len(found), 15)
            for command, output in found:
                # Admission may use stale classes, and refuses until it has loaded those that were just created.
                end = time.monotonic() + 60
                while True:
                    done = run("bash", "-euo", "pipefail", "-c", command, cwd=self.folder, env=environment, check=False)
                    if done.returncode == 0 or not re.search("paramKind|no params found", done.stderr) or time.monotonic() > end:
                        break
                    kubectl("delete", "-f", str(ROOT / "examples/classes/cycle.yaml"), "--ignore-not-found")
                    time.sleep(1)
                log = self.operator.log.read_text()
                self.assertEqual(done.returncode, 0, f"{command}\n{done.stdout}{done.stderr}\n{log}")
                self.assertEqual(seen.normalize(done.stdout.strip()), shown.normalize("\n".join(output)), f"{command}\n{done.stderr}")
        self.assertEqual(fake.writes(), [f"PATCH {INTEGRATION}", "POST tasks"] * 2, "written and verified, once per key")
        secret = json.loads(kubectl("-n", "deploy", "get", "secret", "cycle-aws", "-o", "json").stdout)["data"]
        in_secret = {name: base64.b64decode(value).decode() for name, value in secret.items()}
        auth = fake.integrations[-1]["auth"]
        self.assertEqual((auth["key_id"], auth["secret"] == in_secret["AWS_SECRET_ACCESS_KEY"]), (in_secret["AWS_ACCESS_KEY_ID"], True))


if __name__ == "__main__":
    sys.exit(run_agent() if sys.argv[1:] == ["run-agent"] else unittest.main())
