"""Some minutes in the life of two operators, so that every panel of the dashboard has something to show: keys that rotate in
seconds, resources that are not allowed or not right, an AWS that throttles, refuses and is away, a leader that is killed.

Waits for what happens, not for time to pass.
"""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request

import draw
import grafana
import yaml
from processes import Processes, free_port, until
from prometheus import Prometheus, Refused, metrics_of, open_url

ROOT = pathlib.Path(__file__).resolve().parents[2]
CHART = ROOT / "charts" / "aws-deploy-user-operator"
DASHBOARD = CHART / "dashboards" / "aws-deploy-user-operator.json"
OPERATOR = "aws-deploy-user-operator"
READER = "arn:aws:iam::aws:policy/AmazonS3ReadOnlyAccess"
QUARANTINE = "arn:aws:iam::aws:policy/AWSCompromisedKeyQuarantineV3"
# Short waits, so that minutes show whole rotations.
FLAGS = [
    "--min-rotation-interval=10s", "--recovery-delay=3s", "--deletion-delay=4s", "--verify-timeout=10s", "--resync=10s", "--key-check=5s",
    "--leader-elect", f"--lease-namespace={OPERATOR}", "--lease-duration=5s", "--aws-rate=50",
]
CAPTION = "drawn from the dashboard's own queries and the data of a real Prometheus; Grafana looks different"


def user(name, every="20s", overlap="8s", **spec):
    rotation = {"every": every, "overlap": overlap}
    return {
        "apiVersion": "awsdeploy.dev/v1alpha1", "kind": "AwsDeployUser", "metadata": {"name": name, "namespace": "deploy"},
        "spec": {"className": "team", "userName": name, "policies": {"managed": [READER]}, "accessKey": {"rotation": rotation}} | spec,
    }


def team_class(name="team", policy=READER):
    return {
        "apiVersion": "awsdeploy.dev/v1alpha1", "kind": "AwsDeployUserClass", "metadata": {"name": name},
        "spec": {
            "namespaces": {"names": ["deploy"]}, "rotation": {"minEvery": "10s"},
            "policies": {"allowed": [policy, "arn:aws:iam::123456789012:policy/*"]},
        },
    }


ROTATING = [
    user("shop-backend", "20s", "8s"), user("shop-frontend", "25s", "8s"), user("build-server", "15s", "5s"), user("billing", "30s", "12s"),
    user("backup", "25s", "5s"), user("import", "35s", "10s"),
]
STEADY = [user("reporting", "30d", "7d"), user("archive", "Never", "24h"), user("leaked", "90d", "24h"), user("shared", "20s", "5s")]
PROJECT = user("project-of-last-year", "30d", "7d", className="projects")
NOT_WELL = [
    user("parked", suspend=True),
    user("newcomer", className="not-there"),
    user("misspelt", policies={"managed": ["arn:aws:iam::123456789012:policy/no-such-policy"]}),
]


class Stage:
    """The control plane, AWS, two operators and the Prometheus that scrapes them."""

    def __init__(self, processes, directory):
        self.processes, self.directory = processes, directory
        processes.start("control-plane", [f"{os.environ['PROGRAMS']}/testkit", "up", "--dir", directory / "rig"])
        file = directory / "rig" / "env"
        until("the control plane is up", file.exists, alive=processes.all_alive)
        told = subprocess.run(["bash", "-c", '. "$1" && env -0', "bash", file], capture_output=True, text=True, check=True).stdout
        self.environment = dict(line.split("=", 1) for line in told.split("\0") if line)
        for kind in ("CACHE", "CONFIG", "DATA"):
            self.environment[f"HELM_{kind}_HOME"] = str(directory / "helm")
        self.environment["AWS_PAGER"] = ""

        self.run("kubectl", "create", "namespace", "deploy")
        self.run("helm", "install", OPERATOR, CHART, "--namespace", OPERATOR, "--create-namespace", "--set", "replicas=0",
                 "--set", "secretAccess.namespaces={deploy}")
        # The rights that the chart gives, and no others.
        self.run(f"{os.environ['PROGRAMS']}/testkit", "sa-kubeconfig", "--namespace", OPERATOR, "--name", OPERATOR,
                 "--out", directory / "operator.kubeconfig")
        self.replicas = {f"{OPERATOR}-{end}": f"127.0.0.1:{free_port()}" for end in ("x7k2p", "m4tzq")}
        for pod in self.replicas:
            self.start_operator(pod)
        self.prometheus = Prometheus(
            processes, os.environ["PROMETHEUS"], directory / "prometheus",
            {
                address: {"namespace": OPERATOR, "pod": pod, "container": "operator", "service": OPERATOR, "endpoint": "metrics"}
                for pod, address in self.replicas.items()
            },
            {"each": self.rules(), "summed": self.rules("--set", "metrics.perResource=false")},
        )

    def run(self, *command, given=None, may_fail=False):
        """Runs a command of a person to its end, and returns what it says."""
        done = subprocess.run(
            [str(part) for part in command], env=os.environ | self.environment, text=True, capture_output=True, check=False,
            input=None if given is None else json.dumps(given), timeout=120,
        )
        if done.returncode != 0 and not may_fail:
            raise SystemExit(f"dashboard: {' '.join(str(part) for part in command)}: {done.stderr}")
        return done.stdout

    def rules(self, *arguments):
        rendered = self.run("helm", "template", OPERATOR, CHART, "--set", "metrics.prometheusRule.enabled=true", *arguments,
                            "--show-only", "templates/prometheusrule.yaml")
        return yaml.safe_load(rendered)["spec"]

    def start_operator(self, pod):
        environment = self.environment | {"KUBECONFIG": str(self.directory / "operator.kubeconfig"), "HOSTNAME": pod, "POD_NAME": pod}
        self.processes.start(pod, [f"{os.environ['PROGRAMS']}/{OPERATOR}", *FLAGS, f"--metrics-bind-address={self.replicas[pod]}"], environment)

    def apply(self, *objects):
        self.run("kubectl", "apply", "-f", "-", given={"apiVersion": "v1", "kind": "List", "items": list(objects)})

    def aws(self, method, path, **body):
        """Asks the strict AWS to behave in another way."""
        request = urllib.request.Request(
            f"{self.environment['AWS_ENDPOINT_URL']}/_awsdeploy/{path}", json.dumps(body).encode() if body else None, method=method,
        )
        with open_url(request, timeout=10) as answer:
            return json.load(answer)

    def weather(self, what, until_seen, within=90.0, **rule):
        """A rule of the strict AWS, until Prometheus has seen what it leads to."""
        say(what)
        number = self.aws("POST", "rules", **rule)["id"]
        self.prometheus.until(until_seen, within)
        self.aws("DELETE", f"rules/{number}")


def say(line):
    print(f"{time.strftime('%H:%M:%S')}  {line}", flush=True)


def rotations(result, more, over="5m"):
    return f'sum(increase(awsdeploy_rotations_total{{result="{result}"}}[{over}])) >= {more}'


def condition(reason, kind="Ready"):
    return f'awsdeploy_conditions{{type="{kind}",reason="{reason}"}} > 0'


def tell(stage):
    prometheus = stage.prometheus
    say("two operators, one of which leads")
    prometheus.until("count(awsdeploy_build_info) == 2 and on () sum(awsdeploy_leader) == 1")
    say("a class and its users; new keys are refused for two seconds, as on AWS")
    stage.aws("PATCH", "settings", activationDelaySeconds=2)
    stage.apply(team_class(), team_class("projects"), *ROTATING, *STEADY, PROJECT)
    prometheus.until(f"sum(awsdeploy_ready) == {len(ROTATING + STEADY) + 1}", 120)
    say("some that are not well, a key made by hand, a key found in public")
    stage.apply(*NOT_WELL, team_class("projects", "arn:aws:iam::aws:policy/AmazonEC2ReadOnlyAccess"))
    prometheus.until(rotations("published", 20), 120)
    # While one key is Superseded both slots are in use.
    until("a key is made by hand", lambda: stage.run("aws", "iam", "create-access-key", "--user-name", "shared",
                                                     "--query", "AccessKey.AccessKeyId", may_fail=True))
    stage.run("aws", "iam", "attach-user-policy", "--user-name", "leaked", "--policy-arn", QUARANTINE)
    for reason in ("NotAllowed", "PolicyNotFound", "Suspended", "Quarantined"):
        prometheus.until(condition(reason))
    for reason in ("KeyQuotaExceeded", "Frozen"):
        prometheus.until(condition(reason, "RotationHealthy"))
    prometheus.until('awsdeploy_keys{state="Foreign"} > 0')

    stage.weather("AWS throttles every third call", "sum(increase(awsdeploy_aws_throttled_total[1m])) > 30", every=3, do="throttle")
    stage.weather("AWS denies new keys", rotations("refused", 2), action="CreateAccessKey", do="deny")
    say("new keys are not accepted in time")
    stage.aws("PATCH", "settings", activationDelaySeconds=3600)
    prometheus.until(rotations("not_accepted", 2), 120)
    stage.aws("PATCH", "settings", activationDelaySeconds=2)

    say("the leader is killed when a key was made and not yet written down")
    number = stage.aws("POST", "rules", action="CreateAccessKey", nth=1, when="after-commit", do="pause")["id"]
    until("a key is being made", lambda: next(rule["hits"]["acted"] for rule in stage.aws("GET", "rules") if rule["id"] == number),
          alive=stage.processes.all_alive)
    leader = prometheus.instant("awsdeploy_leader == 1")[0][0]["pod"]
    stage.processes.end(leader, signal.SIGKILL)
    stage.aws("POST", f"rules/{number}/abort")
    stage.aws("DELETE", f"rules/{number}")
    prometheus.until(f'awsdeploy_leader{{pod!="{leader}"}} == 1')
    stage.start_operator(leader)
    prometheus.until(f'{rotations("cut_off", 1)} and on () count(awsdeploy_build_info) == 2', 90)

    stage.weather("AWS is away", 'sum(increase(awsdeploy_aws_requests_total{code="Unreachable"}[1m])) > 10', do="drop")
    say("all is as it was")
    prometheus.until(f"sum(awsdeploy_ready) >= {len(ROTATING) + 2}", 120)
    prometheus.until(rotations("published", 4, "30s"), 120)


# What is so at the end, and told by alerts that do not wait for a quarter of an hour to be sure.
ALERTED = {
    "AwsDeployUserQuarantined": "firing", "AwsDeployUserNotReady": "pending", "AwsDeployRotationBlocked": "pending",
    "AwsDeployForeignKeys": "pending", "AwsDeployKeyNotAccepted": "firing",
}


def check(prometheus, panels, start, end):
    """What is wrong, in words."""
    wrong, asked = [], set()
    for panel in panels:
        try:
            wrong += panel.evaluate(prometheus, start, end)
        except Refused as refused:
            wrong.append(f"{panel.title}: {refused}")
        asked |= metrics_of(" ".join(target["expr"] for target in panel.targets))
    rules = prometheus.rules()
    for (file, name), rule in rules.items():
        asked |= metrics_of(rule["query"])
        if rule["health"] != "ok" or rule.get("lastError"):
            wrong.append(f"alert {name} ({file}): {rule.get('lastError') or rule['health']}")
        if (wanted := ALERTED.get(name)) and rule["state"] != wanted:
            wrong.append(f"alert {name} ({file}): {rule['state']}, expected {wanted}")
    missing = {name for name in asked if not prometheus.range(f"count({name})", start, end, 5)}
    wrong += [f"{name}: asked for and never there" for name in sorted(missing)]
    print(f"{sum(len(panel.targets) for panel in panels)} queries of {sum(bool(panel.targets) for panel in panels)} panels, "
          f"{len(rules)} alerts, {len(asked)} metrics")
    return wrong


def main(file):
    directory = pathlib.Path(tempfile.mkdtemp(prefix="awsdeploy-dashboard."))
    try:
        with Processes(directory) as processes:
            begun = time.time()
            stage = Stage(processes, directory)
            # From before the first sample on, so that every increase is seen.
            start = time.time()
            tell(stage)
            end = time.time()
            panels = grafana.read(DASHBOARD)
            wrong = check(stage.prometheus, panels, start, end)
            title = json.loads(DASHBOARD.read_text())["title"]
            draw.draw(panels, title, CAPTION, start, end, file)
            print(f"wrote {file} ({file.stat().st_size / 1000:.0f} kB), {time.time() - begun:.0f} s")
            if wrong:
                raise SystemExit("\n".join(["dashboard: not as it should be:", *(f"  {line}" for line in wrong)]))
    finally:
        if os.environ.get("AWSDEPLOY_TEST_KEEP"):
            print(f"kept {directory}")
        else:
            shutil.rmtree(directory, ignore_errors=True)
    print("ok")


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
