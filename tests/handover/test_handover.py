"""Tests of the agents in examples/handover: each runs as a process against fakes that are written from the public descriptions of
the APIs (https://github.com/cycleplatform/api-spec, `gh help secret set`)."""

import contextlib
import http.server
import json
import os
import pathlib
import subprocess
import tempfile
import threading
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples" / "handover"
# dash where it exists, because it has no extension of POSIX.
SHELL = next((shell for shell in ("/usr/bin/dash", "/bin/dash") if os.path.exists(shell)), "/bin/sh")
KEY_ID, SECRET, TOKEN = "AKIANEW", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", "cycle-token-1"
INTEGRATION = "5fa9c4f1e3d6a2b1c0d9e8f7"


def definition(*fields, verification=True):
    """Definition of the vendor with these fields of auth."""
    return {
        "vendor": "aws", "name": "AWS", "supports_verification": verification, "supports_multiple": True, "url": "https://aws.amazon.com",
        "public": True, "usable": True, "editable": True,
        "fields": {"auth": {field: {"name": field, "required": True} for field in fields}, "extra": None},
    }


class Fake:
    """The API of Cycle and the Kubernetes API in one server."""

    def __init__(self):
        self.user = {
            "metadata": {"name": "cycle", "annotations": {"other": "kept"}},
            "status": {"secretName": "cycle-aws", "accessKeys": [
                {"id": "AKIAOLD", "state": "Superseded"}, {"id": KEY_ID, "state": "Published"},
            ]},
        }
        self.integrations = [
            self.integration("1" * 24, "docker", "live"),
            self.integration("2" * 24, "aws", "deleted"),
            self.integration(INTEGRATION, "aws", "live"),
        ]
        # The states of the job at each look; the last one stays.
        self.job = ["queued", "running", "completed"]
        self.job_error = None
        # Status by method and path, in place of an answer.
        self.failures = {}
        self.calls = []

    @staticmethod
    def integration(number, identifier, state):
        return {
            "id": number, "identifier": identifier, "name": "AWS production", "vendor": "aws", "hub_id": "h", "creator": {}, "events": {},
            "state": {"current": state}, "auth": {"region": "us-east-1", "namespace": None, "key_id": "AKIAOLD", "secret": "redacted"},
            "extra": None, "meta": {"definition": definition("region", "key_id", "secret")},
        }

    def answer(self, method, path, headers, body):
        bare = path.split("?")[0]
        self.calls.append((method, bare, body))
        if (method, bare) in self.failures:
            status = self.failures[method, bare]
            return status, {"error": {"status": status, "code": f"{status}.auth-invalid", "title": "no"}, "data": None}
        if bare == "/apis/awsdeploy.dev/v1alpha1/namespaces/deploy/awsdeployusers/cycle":
            assert headers["Authorization"] == "Bearer service.account.token", headers
            if method == "PATCH":
                assert headers["Content-Type"] == "application/merge-patch+json"
                self.user["metadata"]["annotations"] |= body["metadata"]["annotations"]
            return 200, self.user
        if headers["Authorization"] != f"Bearer {TOKEN}" or headers["X-Hub-Id"] != "hub-1":
            return 401, {"error": {"status": 401, "code": "401.auth-invalid", "title": "no"}, "data": None}
        if (method, bare) == ("GET", "/v1/hubs/current/integrations"):
            assert "meta=definition" in path, path
            return 200, {"data": self.integrations}
        if (method, bare) == ("PATCH", f"/v1/hubs/current/integrations/{INTEGRATION}"):
            assert headers["Content-Type"] == "application/json" and set(body) <= {"name", "identifier", "auth", "extra"}, body
            self.integrations[-1]["auth"] = body["auth"]
            return 200, {"data": self.integrations[-1]}
        if (method, bare) == ("POST", f"/v1/hubs/current/integrations/{INTEGRATION}/tasks"):
            assert body == {"action": "verify"}, body
            return 202, {"data": {"action": "verify", "job": {"id": "job-1", "accepted": True, "queue": "q"}}}
        if (method, bare) == ("GET", "/v1/jobs/job-1"):
            state = self.job.pop(0) if len(self.job) > 1 else self.job[0]
            return 200, {"data": {"id": "job-1", "state": {"current": state, "error": self.job_error}}}
        return 404, {"error": {"status": 404, "code": "404.not-found", "title": "no"}, "data": None}

    @property
    def confirmed(self):
        return self.user["metadata"]["annotations"].get("handover.awsdeploy.dev/cycle-hub")

    def writes(self):
        return [f"{method} {path.rsplit('/', 1)[-1]}" for method, path, _ in self.calls if method != "GET"]


@contextlib.contextmanager
def served(fake):
    class Handler(http.server.BaseHTTPRequestHandler):
        def respond(self):
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length)) if length else None
            try:
                status, answer = fake.answer(self.command, self.path, self.headers, body)
            except AssertionError as error:
                status, answer = 400, {"error": {"code": f"fake: {error}"}}
            data = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_PATCH = do_POST = respond

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


# Records the arguments of a program and then runs it.
RECORDER = """#!/bin/sh
printf '%s\\n' "$@" >>"$RECORD"
env >>"$RECORD"
exec {program} "$@"
"""


class Agent(unittest.TestCase):
    """What both agents have in common."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        self.bin = self.folder / "bin"
        self.bin.mkdir()
        self.record = self.folder / "record"
        self.record.touch()

    def program(self, name, text):
        file = self.bin / name
        file.write_text(text)
        file.chmod(0o755)

    def run_script(self, script, **variables):
        environment = {"PATH": f"{self.bin}:{os.environ['PATH']}", "RECORD": str(self.record), "TMPDIR": str(self.folder), "no_proxy": "*"}
        done = subprocess.run(
            [SHELL, EXAMPLES / script], env=environment | variables, capture_output=True, text=True, timeout=60, check=False,
        )
        self.assertNotIn(SECRET, done.stdout + done.stderr)
        self.assertNotIn(TOKEN, done.stdout + done.stderr)
        recorded = self.record.read_text()
        self.assertNotIn(SECRET, recorded, "the secret is in an argument list or an environment")
        self.assertNotIn(TOKEN, recorded, "the API key is in an argument list or an environment")
        self.assertEqual([file for file in self.folder.iterdir() if file.name.startswith("tmp.")], [], "files are left")
        return done


class Cycle(Agent):
    """examples/handover/cycle."""

    def setUp(self):
        super().setUp()
        self.fake = Fake()
        for program in ("curl", "jq"):
            path = subprocess.run(["sh", "-c", f"command -v {program}"], capture_output=True, text=True, check=True).stdout.strip()
            self.program(program, RECORDER.replace("{program}", path))
        # As the kubelet mounts a Secret.
        version = self.folder / "aws" / "..2026"
        version.mkdir(parents=True)
        (self.folder / "aws" / "..data").symlink_to("..2026")
        for name, value in (("AWS_ACCESS_KEY_ID", KEY_ID), ("AWS_SECRET_ACCESS_KEY", SECRET)):
            (version / name).write_text(value)
        for folder, name, value in (("cycle", "api-key", TOKEN + "\n"), ("cycle", "hub-id", "hub-1"), ("account", "token", "service.account.token")):
            (self.folder / folder).mkdir(exist_ok=True)
            (self.folder / folder / name).write_text(value)

    def hand_over(self, **variables):
        with served(self.fake) as url:
            given = {
                "AWS_DIR": str(self.folder / "aws"), "CYCLE_DIR": str(self.folder / "cycle"), "ACCOUNT_DIR": str(self.folder / "account"),
                "CYCLE_URL": url, "KUBERNETES_URL": url, "CYCLE_INTEGRATION": "aws", "NAMESPACE": "deploy", "NAME": "cycle",
                "CONSUMER": "cycle-hub", "POLL_SECONDS": "0", "POLLS": "5",
            }
            return self.run_script("cycle/handover.sh", **given | variables)

    def refuses(self, *parts, **variables):
        done = self.hand_over(**variables)
        self.assertEqual(done.returncode, 1, done.stdout + done.stderr)
        for part in parts:
            self.assertIn(part, done.stderr)
        self.assertIsNone(self.fake.confirmed, "nothing is confirmed")

    def test_new_key_is_pushed_verified_and_confirmed(self):
        done = self.hand_over()
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(self.fake.writes(), [f"PATCH {INTEGRATION}", "POST tasks", "PATCH cycle"])
        self.assertEqual(self.fake.integrations[-1]["auth"], {"region": "us-east-1", "key_id": KEY_ID, "secret": SECRET})
        self.assertEqual(self.fake.confirmed, KEY_ID)
        self.assertEqual(self.fake.user["metadata"]["annotations"]["other"], "kept")
        self.fake.calls.clear()
        self.assertEqual(self.hand_over().returncode, 0)
        self.assertEqual([method for method, *_ in self.fake.calls], ["GET"], "a confirmed key costs one read")

    def test_definition_names_the_field_of_the_key_id(self):
        self.fake.integrations[-1]["meta"]["definition"] = definition("api_key", "secret", verification=False)
        self.assertEqual(self.hand_over().returncode, 0)
        self.assertEqual(self.fake.integrations[-1]["auth"], {"region": "us-east-1", "api_key": KEY_ID, "secret": SECRET})
        self.assertEqual(self.fake.writes(), [f"PATCH {INTEGRATION}", "PATCH cycle"], "this vendor has no verification")

    def test_mounted_secret_that_is_not_the_published_one_waits(self):
        self.fake.user["status"]["accessKeys"][1]["id"] = "AKIANEWER"
        done = self.hand_over()
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual((self.fake.writes(), self.fake.confirmed), ([], None))

    def test_refused_api_key_confirms_nothing(self):
        (self.folder / "cycle" / "api-key").write_text("expired")
        self.refuses("HTTP 401 401.auth-invalid")

    def test_token_with_a_quote_is_refused(self):
        (self.folder / "cycle" / "api-key").write_text('a"\noutput = "/etc/x')
        self.refuses("a character that no token has")

    def test_failed_verification_confirms_nothing(self):
        self.fake.job, self.fake.job_error = ["running", "error"], {"message": "InvalidClientTokenId"}
        self.refuses("Cycle does not accept AKIANEW", "InvalidClientTokenId")

    def test_verification_that_never_ends_confirms_nothing(self):
        self.fake.job = ["running"]
        self.refuses("does not end: running")

    def test_refused_writes_confirm_nothing(self):
        for call in (("PATCH", f"/v1/hubs/current/integrations/{INTEGRATION}"), ("POST", f"/v1/hubs/current/integrations/{INTEGRATION}/tasks")):
            with self.subTest(call):
                self.fake = Fake()
                self.fake.failures[call] = 403
                self.refuses("HTTP 403")

    def test_refused_confirmation_fails_the_job(self):
        self.fake.failures["PATCH", "/apis/awsdeploy.dev/v1alpha1/namespaces/deploy/awsdeployusers/cycle"] = 403
        self.refuses("Kubernetes PATCH awsdeployusers/cycle: HTTP 403")

    def test_unknown_or_ambiguous_integration_is_not_written(self):
        self.refuses("0 integrations", CYCLE_INTEGRATION="other")
        self.fake.integrations.append(Fake.integration("3" * 24, "aws", "new"))
        self.refuses("2 integrations")
        self.assertEqual(self.fake.writes(), [])

    def test_unreachable_cycle_confirms_nothing(self):
        self.refuses("no answer", CYCLE_URL="http://127.0.0.1:1")


KUBECTL = """#!/bin/sh
printf '%s\\n' "$@" >>"$RECORD"
case "$*" in
*' get awsdeployusers.awsdeploy.dev/x '*) cat "$USER_FILE" ;;
*' get secret x-aws '*) cat "$SECRET_FILE" ;;
*' annotate '*) printf '%s\\n' "$*" >>"$ANNOTATED" ;;
*) exit 1 ;;
esac
"""
GH = """#!/bin/sh
printf '%s\\n' "$@" >>"$RECORD"
[ -z "$REFUSE" ] || exit 1
for file; do :; done
cat "$file" >"$PUSHED"
"""


class GitHub(Agent):
    """examples/handover/github."""

    def setUp(self):
        super().setUp()
        self.program("kubectl", KUBECTL)
        self.program("gh", GH)
        self.annotated, self.pushed = self.folder / "annotated", self.folder / "pushed"

    def hand_over(self, published=KEY_ID, annotations=None, **variables):
        user = {"metadata": {"annotations": annotations}, "status": {"secretName": "x-aws", "accessKeys": [{"id": published, "state": "Published"}]}}
        (self.folder / "user").write_text(json.dumps(user))
        encoded = subprocess.run(["base64", "-w0"], input=SECRET.encode(), capture_output=True, check=True).stdout.decode()
        secret = {"data": {"AWS_ACCESS_KEY_ID": "QUtJQU5FVw==", "AWS_SECRET_ACCESS_KEY": encoded}}
        (self.folder / "secret").write_text(json.dumps(secret))
        given = {
            "USER_FILE": str(self.folder / "user"), "SECRET_FILE": str(self.folder / "secret"), "ANNOTATED": str(self.annotated),
            "PUSHED": str(self.pushed), "REFUSE": "", "NAMESPACE": "deploy", "NAME": "x", "CONSUMER": "ci", "REPOSITORY": "o/r",
        }
        return self.run_script("github/handover.sh", **given | variables)

    def test_both_secrets_are_set_and_confirmed(self):
        done = self.hand_over(ENVIRONMENT="production")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(self.pushed.read_text(), f"AWS_ACCESS_KEY_ID={KEY_ID}\nAWS_SECRET_ACCESS_KEY={SECRET}\n")
        self.assertIn("secret\nset\n--repo\no/r\n--env\nproduction\n--env-file\n", self.record.read_text())
        self.assertIn(f"--overwrite handover.awsdeploy.dev/ci={KEY_ID}", self.annotated.read_text())

    def test_confirmed_key_is_not_set_again(self):
        done = self.hand_over(annotations={"handover.awsdeploy.dev/ci": KEY_ID})
        self.assertEqual((done.returncode, self.pushed.exists()), (0, False), done.stderr)

    def test_refusal_by_github_confirms_nothing(self):
        done = self.hand_over(REFUSE="yes")
        self.assertEqual((done.returncode, self.annotated.exists()), (1, False), done.stderr)

    def test_secret_of_another_key_is_not_set(self):
        done = self.hand_over(published="AKIANEWER")
        self.assertEqual((done.returncode, self.pushed.exists(), self.annotated.exists()), (1, False, False), done.stderr)


if __name__ == "__main__":
    unittest.main()
