"""Runs two operators so that every panel of the dashboard has data: keys that rotate within seconds, denied and invalid
resources, AWS throttling, errors and outages, and a killed leader.

Waits for conditions, not for fixed times.
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
from prometheus import Prometheus, PrometheusError, metrics_of, open_url

ROOT = pathlib.Path(__file__).resolve().parents[2]
CHART = ROOT / "charts" / "aws-deploy-user-operator"
DASHBOARD = CHART / "dashboards" / "aws-deploy-user-operator.json"
OPERATOR = "aws-deploy-user-operator"
READER = "arn:aws:iam::aws:policy/AmazonS3ReadOnlyAccess"
QUARANTINE = "arn:aws:iam::aws:policy/AWSCompromisedKeyQuarantineV3"
# Short intervals, so that several rotations happen within minutes.
FLAGS = [
    "--min-rotation-interval=10s", "--repair-interval=1s", "--recovery-delay=3s", "--deletion-delay=4s", "--verify-timeout=10s", "--resync=10s", "--key-check=5s",
    "--leader-elect", f"--namespace={OPERATOR}", "--lease-duration=5s", "--aws-rate=50",
]
CAPTION = "rendered from the queries of the dashboard and data of a real Prometheus; Grafana looks different"


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
            "namespaces": {"names": ["deploy"]}, "users": {"namePattern": ".*"}, "rotation": {"minEvery": "10s"},
            "policies": {"allowed": [policy, "arn:aws:iam::123456789012:policy/*"]},
        },
    }


ROTATING = [
    user("shop-backend", "20s", "8s"), user("shop-frontend", "25s", "8s"), user("build-server", "15s", "5s"), user("billing", "30s", "12s"),
    user("backup", "25s", "5s"), user("import", "35s", "10s"),
]
STEADY = [user("reporting", "30d", "7d"), user("archive", "Never", "24h"), user("leaked", "90d", "24h"), user("shared", "20s", "5s")]
PROJECT = user("project-of-last-year", "30d", "7d", className="projects")
FAILING = [
    user("parked", credentials="Revoked"),
    user("newcomer", className="not-there"),
    user("misspelt", policies={"managed": ["arn:aws:iam::123456789012:policy/no-such-policy"]}),
]


class DashboardEnv:
    """Control plane, AWS emulator, two operators and a Prometheus that scrapes them."""

    def __init__(self, processes, directory):
        self.processes, self.directory = processes, directory
        processes.start("control-plane", [f"{os.environ['PROGRAMS']}/testkit", "up", "--dir", directory / "rig"])
        file = directory / "rig" / "env"
        until("the control plane is ready", file.exists, alive=processes.all_alive)
        variables = subprocess.run(["bash", "-c", '. "$1" && env -0', "bash", file], capture_output=True, text=True, check=True).stdout
        self.environment = dict(line.split("=", 1) for line in variables.split("\0") if line)
        for kind in ("CACHE", "CONFIG", "DATA"):
            self.environment[f"HELM_{kind}_HOME"] = str(directory / "helm")
        self.environment["AWS_PAGER"] = ""

        self.run("kubectl", "create", "namespace", "deploy")
        self.run("helm", "install", OPERATOR, CHART, "--namespace", OPERATOR, "--create-namespace", "--set", "replicaCount=0",
                 "--set", "secretAccess.namespaces={deploy}")
        # The operator has exactly the RBAC of the chart.
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
        """Runs a command and returns its output."""
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
        """Calls the admin API of the AWS proxy."""
        request = urllib.request.Request(
            f"{self.environment['AWS_ENDPOINT_URL']}/_awsdeploy/{path}", json.dumps(body).encode() if body else None, method=method,
        )
        with open_url(request, timeout=10) as answer:
            return json.load(answer)

    def inject_fault(self, description, until_seen, within=90.0, **rule):
        """Applies a fault rule of the AWS proxy until Prometheus shows its effect."""
        log(description)
        number = self.aws("POST", "rules", **rule)["id"]
        self.prometheus.until(until_seen, within)
        self.aws("DELETE", f"rules/{number}")


def log(line):
    print(f"{time.strftime('%H:%M:%S')}  {line}", flush=True)


def rotations(result, more, over="5m"):
    return f'sum(increase(awsdeploy_rotations_total{{result="{result}"}}[{over}])) >= {more}'


def condition(reason, kind="Ready"):
    return f'awsdeploy_conditions{{type="{kind}",reason="{reason}"}} > 0'


def run_scenario(env):
    prometheus = env.prometheus
    log("start two operators, one leader")
    prometheus.until("count(awsdeploy_build_info) == 2 and on () sum(awsdeploy_leader) == 1")
    log("apply classes and users; AWS rejects new keys for two seconds")
    env.aws("PATCH", "settings", activationDelaySeconds=2)
    env.apply(team_class(), team_class("projects"), *ROTATING, *STEADY, PROJECT)
    prometheus.until(f"sum(awsdeploy_ready) == {len(ROTATING + STEADY) + 1}", 120)
    log("apply failing users, create a key manually, quarantine a user")
    env.apply(*FAILING, team_class("projects", "arn:aws:iam::aws:policy/AmazonEC2ReadOnlyAccess"))
    prometheus.until(rotations("published", 20), 120)
    # While a key is Superseded, both key slots are in use.
    until("a key is created manually", lambda: env.run("aws", "iam", "create-access-key", "--user-name", "shared",
                                                     "--query", "AccessKey.AccessKeyId", may_fail=True))
    env.run("aws", "iam", "attach-user-policy", "--user-name", "leaked", "--policy-arn", QUARANTINE)
    for reason in ("NotAllowed", "PolicyNotFound", "CredentialsRevoked", "Quarantined"):
        prometheus.until(condition(reason))
    for reason in ("KeyQuotaExceeded", "Frozen"):
        prometheus.until(condition(reason, "RotationHealthy"))
    prometheus.until('awsdeploy_keys{state="Foreign"} > 0')

    env.inject_fault("AWS throttles every third call", "sum(increase(awsdeploy_aws_throttled_total[1m])) > 30", every=3, do="throttle")
    env.inject_fault("AWS denies new keys", rotations("refused", 2), action="CreateAccessKey", do="deny")
    log("new keys are not accepted in time")
    env.aws("PATCH", "settings", activationDelaySeconds=3600)
    prometheus.until(rotations("not_accepted", 2), 120)
    env.aws("PATCH", "settings", activationDelaySeconds=2)

    log("kill the leader between key creation and journal write")
    number = env.aws("POST", "rules", action="CreateAccessKey", nth=1, when="after-commit", do="pause")["id"]
    until("CreateAccessKey is held", lambda: next(rule["hits"]["acted"] for rule in env.aws("GET", "rules") if rule["id"] == number),
          alive=env.processes.all_alive)
    leader = prometheus.instant("awsdeploy_leader == 1")[0][0]["pod"]
    env.processes.end(leader, signal.SIGKILL)
    env.aws("POST", f"rules/{number}/abort")
    env.aws("DELETE", f"rules/{number}")
    prometheus.until(f'awsdeploy_leader{{pod!="{leader}"}} == 1')
    env.start_operator(leader)
    prometheus.until(f'{rotations("cut_off", 1)} and on () count(awsdeploy_build_info) == 2', 90)

    env.inject_fault("AWS is unreachable", 'sum(increase(awsdeploy_aws_requests_total{code="Unreachable"}[1m])) > 10', do="drop")
    log("faults are removed")
    prometheus.until(f"sum(awsdeploy_ready) >= {len(ROTATING) + 2}", 120)
    prometheus.until(rotations("published", 4, "30s"), 120)


# Expected state of alerts at the end.
EXPECTED_ALERTS = {
    "AwsDeployUserQuarantined": "firing", "AwsDeployUserNotReady": "pending", "AwsDeployRotationBlocked": "pending",
    "AwsDeployForeignKeys": "pending", "AwsDeployKeyNotAccepted": "firing",
}


def check(prometheus, panels, start, end):
    """Returns a description of each problem."""
    problems, used = [], set()
    for panel in panels:
        try:
            problems += panel.evaluate(prometheus, start, end)
        except PrometheusError as refused:
            problems.append(f"{panel.title}: {refused}")
        used |= metrics_of(" ".join(target["expr"] for target in panel.targets))
    rules = prometheus.rules()
    for (file, name), rule in rules.items():
        used |= metrics_of(rule["query"])
        if rule["health"] != "ok" or rule.get("lastError"):
            problems.append(f"alert {name} ({file}): {rule.get('lastError') or rule['health']}")
        if (wanted := EXPECTED_ALERTS.get(name)) and rule["state"] != wanted:
            problems.append(f"alert {name} ({file}): {rule['state']}, expected {wanted}")
    missing = {name for name in used if not prometheus.range(f"count({name})", start, end, 5)}
    problems += [f"{name}: used but never exported" for name in sorted(missing)]
    print(f"{sum(len(panel.targets) for panel in panels)} queries of {sum(bool(panel.targets) for panel in panels)} panels, "
          f"{len(rules)} alerts, {len(used)} metrics")
    return problems


def main(file):
    directory = pathlib.Path(tempfile.mkdtemp(prefix="awsdeploy-dashboard."))
    try:
        with Processes(directory) as processes:
            begun = time.time()
            env = DashboardEnv(processes, directory)
            # Before the first sample, so that every increase is included.
            start = time.time()
            run_scenario(env)
            end = time.time()
            panels = grafana.read(DASHBOARD)
            problems = check(env.prometheus, panels, start, end)
            title = json.loads(DASHBOARD.read_text())["title"]
            draw.draw(panels, title, CAPTION, start, end, file)
            print(f"wrote {file} ({file.stat().st_size / 1000:.0f} kB), {time.time() - begun:.0f} s")
            if problems:
                raise SystemExit("\n".join(["dashboard: check failed:", *(f"  {line}" for line in problems)]))
    finally:
        if os.environ.get("AWSDEPLOY_TEST_KEEP"):
            print(f"kept {directory}")
        else:
            shutil.rmtree(directory, ignore_errors=True)
    print("ok")


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
