"""Tests of docs/quickstart-kind.md: each block of commands is run, rendered, or marked with what it needs."""

import json
import os
import pathlib
import re
import shlex
import socket
import subprocess
import tempfile
import time
import unittest
import urllib.error
import urllib.request

import yaml
from chart import ROOT, schema_errors

PAGE = (ROOT / "docs" / "quickstart-kind.md").read_text()
BLOCK = re.compile(r"(?:^<!-- ([^\n]*) -->\n)?^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# kubectl for the commands that are run: the issuer of a cluster, its classes, and the operator's binary.
KUBECTL = r"""#!/usr/bin/env bash
case "$*" in
"get --raw /.well-known/openid-configuration") printf '{"issuer":"https://oidc.example.com/id/1","jwks_uri":"https://oidc.example.com/keys"}' ;;
"get awsdeployuserclasses -o yaml") cat "$CLASSES" ;;
*" exec -i deploy/aws-deploy-user-operator -- "*) while [ "$1" != -- ]; do shift; done; shift 2; exec "$OPERATOR" "$@" ;;
*) echo "unexpected: kubectl $*" >&2; exit 1 ;;
esac
"""


def blocks(marker):
    return [commands for mark, commands in BLOCK.findall(PAGE) if marker in mark]


class QuickStart(unittest.TestCase):
    """Commands and manifests of the page."""

    def test_every_block_is_run_or_marked(self):
        found = BLOCK.findall(PAGE)
        self.assertGreater(len(found), 8)
        for mark, commands in found:
            self.assertRegex(mark, r"^(needs (kind|AWS|a cluster)|run by test_)", commands)
            for name in re.findall(r"by (test_\w+)", mark):
                self.assertTrue(hasattr(self, name), name)

    def test_named_files_exist(self):
        for path in re.findall(r"(?:-f|--values) (examples/\S+\.yaml)", PAGE):
            self.assertTrue((ROOT / path).is_file(), path)

    def test_quick_start_renders_and_validates(self):
        files = {path.stem: path.read_text() for path in (ROOT / "examples" / "kind").glob("*.yaml") if path.stem != "values"}
        commands = [command for block in blocks("test_quick_start_renders") for command in block.replace("\\\n", " ").splitlines()]
        commands = [shlex.split(command.replace("$account", "123456789012")) for command in commands if command.startswith("helm ")]
        self.assertEqual(len(commands), 3)
        for number, (_, _, _, release, chart, *arguments) in enumerate(commands):
            arguments = [each for each in arguments if each not in ("--wait", "--create-namespace", "--reset-then-reuse-values")]
            run = subprocess.run(
                [os.environ["HELM"], "template", release, chart, *arguments], cwd=ROOT, check=True, capture_output=True, text=True
            )
            files[f"helm-{number}"] = run.stdout
        self.assertEqual(schema_errors(files), [])
        rendered = {name: list(yaml.safe_load_all(files[name])) for name in ("helm-0", "helm-2")}
        (preset,) = [found for found in rendered["helm-0"] if found and found["kind"] == "AwsDeployUserClass"]
        self.assertEqual(preset["metadata"]["name"], yaml.safe_load(files["user"])["spec"]["className"])
        accounts = [found for found in rendered["helm-2"] if found and found["kind"] == "ServiceAccount"]
        (account,) = [found for found in accounts if found["metadata"]["name"] == "aws-deploy-user-operator"]
        role = "arn:aws:iam::123456789012:role/aws-deploy-user-operator"
        self.assertEqual(account["metadata"]["annotations"], {"eks.amazonaws.com/role-arn": role})

    def test_emulator_is_that_of_the_tests(self):
        (version,) = re.findall(r"^moto\[server\]==(\S+)$", (ROOT / "tests/cluster/requirements.txt").read_text(), re.MULTILINE)
        self.assertIn(f"image: motoserver/moto:{version}\n", (ROOT / "examples/kind/aws-emulator.yaml").read_text())

    def test_quick_start_commands_run_against_the_emulator(self):
        if not os.access(os.environ.get("OPERATOR", ""), os.X_OK):
            self.skipTest("the operator is not built; run: make build")
        programs = pathlib.Path(os.environ["VENV"]) / "bin"
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        with tempfile.TemporaryDirectory() as directory:
            tools = pathlib.Path(directory) / "bin"
            tools.mkdir()
            (tools / "kubectl").write_text(KUBECTL)
            (tools / "kubectl").chmod(0o755)
            url = f"http://127.0.0.1:{port}"
            environment = {
                "PATH": f"{tools}:{programs}:{os.environ['PATH']}", "HOME": directory, "AWS_ENDPOINT_URL": url,
                "AWS_ACCESS_KEY_ID": "emulator", "AWS_SECRET_ACCESS_KEY": "emulator", "AWS_DEFAULT_REGION": "us-east-1", "AWS_PAGER": "",
                "OPERATOR": os.environ["OPERATOR"], "CLASSES": str(ROOT / "examples/classes/cycle.yaml"),
            }
            emulator = subprocess.Popen(
                [programs / "python3", programs / "moto_server", "-H", "127.0.0.1", "-p", str(port)],
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )
            self.addCleanup(emulator.wait)
            self.addCleanup(emulator.terminate)
            self.wait_for(f"{url}/moto-api/")

            pod_identity, issuer, role = blocks("test_quick_start_commands")
            policies = []
            for trust in (pod_identity, issuer):
                script = f"set -euo pipefail\n{trust}\n{role}"
                done = subprocess.run(
                    ["bash", "-c", script], cwd=directory, env=environment, capture_output=True, text=True, check=False, timeout=300
                )
                self.assertEqual(done.returncode, 0, done.stderr)
                policies.append(json.loads((pathlib.Path(directory) / "trust.json").read_text())["Statement"][0])
                # The next form of trust makes the same role.
                for command in (
                    "delete-role-policy --role-name aws-deploy-user-operator --policy-name aws-deploy-user-operator",
                    "delete-role --role-name aws-deploy-user-operator",
                ):
                    subprocess.run([programs / "aws", "iam", *command.split()], env=environment, check=True, timeout=60)
            self.assertEqual(policies[0]["Principal"], {"Service": "pods.eks.amazonaws.com"})
            self.assertEqual(
                policies[1]["Condition"]["StringEquals"]["oidc.example.com/id/1:sub"],
                "system:serviceaccount:aws-deploy-user-operator:aws-deploy-user-operator",
            )
            actions = [statement["Action"] for statement in json.loads((pathlib.Path(directory) / "policy.json").read_text())["Statement"]]
            self.assertIn("iam:CreateAccessKey", str(actions))

    def wait_for(self, url):
        end = time.monotonic() + 120
        while True:
            try:
                urllib.request.urlopen(url, timeout=5).close()
                return
            except (urllib.error.URLError, OSError):
                self.assertLess(time.monotonic(), end, f"{url} does not respond")
                time.sleep(0.1)
