"""What the chart renders to: against the schemas of Kubernetes, and what these do not say. Run by ./run, which makes `render`."""

import functools
import glob
import os
import subprocess
import tempfile
import unittest

import kubernetes_validate
import yaml

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.normpath(os.path.join(HERE, "../../.."))
CHART = os.path.join(ROOT, "deploy/helm/promdedup")
RENDER = os.environ["RENDER"]
with open(f"{CHART}/Chart.yaml", encoding="utf-8") as chart:
    OLDEST = yaml.safe_load(chart)["kubeVersion"].removeprefix(">=").removesuffix(".0-0")
# The oldest that the chart wants, and the newest that there is a schema for.
KUBERNETES = [OLDEST, kubernetes_validate.latest_version()]
UPSTREAM = {"PROMDEDUP_UPSTREAM_URL": "http://receive:19291/api/v1/receive"}


def sets():
    """Name and path of each set of values."""
    paths = glob.glob(f"{CHART}/ci/*-values.yaml") + glob.glob(f"{CHART}/examples/*-values.yaml")
    return {os.path.basename(path).removesuffix("-values.yaml"): path for path in sorted(paths)}


def render(verb, *arguments):
    return subprocess.run([RENDER, verb, *arguments], capture_output=True, text=True, timeout=60, check=False)


def rendered(path):
    done = render("template", CHART, path)
    assert done.returncode == 0, done.stderr
    return [each for each in yaml.safe_load_all(done.stdout) if each]


def with_values(values, verb="template"):
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        yaml.safe_dump(values, file)
        file.flush()
        return render(verb, CHART, file.name)


def one(documents, kind):
    found = [each for each in documents if each["kind"] == kind]
    assert len(found) == 1, (kind, len(found))
    return found[0]


def kinds(documents):
    return sorted(each["kind"] for each in documents)


def container(documents):
    (only,) = one(documents, "Deployment")["spec"]["template"]["spec"]["containers"]
    return only


def environment(documents):
    return {each["name"]: each for each in container(documents)["env"]}


def each_set(test):
    """Runs the test once with what each set renders to."""

    @functools.wraps(test)
    def run(self):
        for name, path in sets().items():
            with self.subTest(values=name):
                test(self, rendered(path))

    return run


class Every(unittest.TestCase):
    """What holds of each set."""

    def test_the_linter_has_no_complaint(self):
        for name, path in sets().items():
            with self.subTest(values=name):
                done = render("lint", CHART, path)
                self.assertEqual((done.returncode, done.stdout), (0, ""), done.stderr)

    @each_set
    def test_kubernetes_knows_all_of_it(self, documents):
        for version in KUBERNETES:
            for each in documents:
                if not each["apiVersion"].startswith("monitoring.coreos.com/"):
                    kubernetes_validate.validate(each, version, strict=True)

    @each_set
    def test_names_are_unique_and_in_the_namespace_of_the_release(self, documents):
        names = [(each["kind"], each["metadata"]["name"]) for each in documents]
        self.assertEqual(len(names), len(set(names)), names)
        self.assertEqual({each["metadata"]["namespace"] for each in documents}, {"thanos"})

    @each_set
    def test_selectors_match_the_pods_and_nothing_else(self, documents):
        deployment = one(documents, "Deployment")["spec"]
        labels = deployment["template"]["metadata"]["labels"]
        selectors = [deployment["selector"]["matchLabels"], one(documents, "Service")["spec"]["selector"]]
        spread = deployment["template"]["spec"].get("topologySpreadConstraints", [])
        selectors += [each["labelSelector"]["matchLabels"] for each in spread]
        for each in documents:
            if each["kind"] == "NetworkPolicy":
                selectors.append(each["spec"]["podSelector"]["matchLabels"])
            if each["kind"] in {"PodDisruptionBudget", "PodMonitor", "ServiceMonitor"}:
                selectors.append(each["spec"]["selector"]["matchLabels"])
        for selector in selectors:
            self.assertEqual(set(selector), {"app.kubernetes.io/name", "app.kubernetes.io/instance"})
            self.assertLessEqual(selector.items(), labels.items())
        service = one(documents, "Service")
        self.assertLessEqual(service["spec"]["selector"].items(), service["metadata"]["labels"].items())

    @each_set
    def test_named_ports_are_there(self, documents):
        ports = {each["name"] for each in container(documents)["ports"]}
        wanted = {each["targetPort"] for each in one(documents, "Service")["spec"]["ports"]}
        wanted |= {container(documents)[probe]["httpGet"]["port"] for probe in ("livenessProbe", "readinessProbe")}
        for each in documents:
            spec = each.get("spec", {})
            wanted |= {end["port"] for end in spec.get("podMetricsEndpoints", []) + spec.get("endpoints", [])}
            if each["kind"] == "NetworkPolicy":
                wanted |= {port["port"] for rule in spec["ingress"] for port in rule["ports"]}
            if each["kind"] == "Ingress":
                paths = [path for rule in spec["rules"] for path in rule["http"]["paths"]]
                wanted |= {path["backend"]["service"]["port"]["name"] for path in paths}
                self.assertEqual(
                    {path["backend"]["service"]["name"] for path in paths},
                    {one(documents, "Service")["metadata"]["name"]},
                )
        self.assertLessEqual(wanted, ports)

    @each_set
    def test_the_pod_is_locked_up(self, documents):
        pod = one(documents, "Deployment")["spec"]["template"]["spec"]
        self.assertIs(pod["enableServiceLinks"], False)
        self.assertIs(pod["automountServiceAccountToken"], False)
        self.assertIs(pod["securityContext"]["runAsNonRoot"], True)
        self.assertEqual(pod["securityContext"]["seccompProfile"], {"type": "RuntimeDefault"})
        own = container(documents)["securityContext"]
        self.assertIs(own["readOnlyRootFilesystem"], True)
        self.assertIs(own["allowPrivilegeEscalation"], False)
        self.assertEqual(own["capabilities"], {"drop": ["ALL"]})
        self.assertNotIn("hostNetwork", pod)

    @each_set
    def test_no_secret_is_in_the_environment(self, documents):
        self.assertNotIn("Secret", kinds(documents))
        mounted = container(documents).get("volumeMounts", [])
        paths = set()
        for volume in one(documents, "Deployment")["spec"]["template"]["spec"].get("volumes", []):
            (mount,) = [each for each in mounted if each["name"] == volume["name"]]
            for source in volume["projected"]["sources"]:
                items = source.get("secret", source.get("configMap"))["items"]
                paths |= {f"{mount['mountPath']}/{item['path']}" for item in items}
        named = {each["value"] for name, each in environment(documents).items() if name.endswith("_FILE")}
        self.assertEqual(named, paths)

    @each_set
    def test_a_drain_is_finished_before_the_pod_is_killed(self, documents):
        seconds = 0
        for name, default in (("PROMDEDUP_DRAIN_LEAD", "0s"), ("PROMDEDUP_DRAIN_TIMEOUT", "20s")):
            given = environment(documents).get(name, {"value": default})["value"]
            seconds += int(given[:-1]) * {"s": 1, "m": 60}[given[-1]]
        pod = one(documents, "Deployment")["spec"]["template"]["spec"]
        self.assertGreater(pod["terminationGracePeriodSeconds"], seconds)

    def test_the_notes_say_where_to_write(self):
        for name, path in sets().items():
            with self.subTest(values=name):
                done = render("template", "-notes", CHART, path)
                self.assertEqual(done.returncode, 0, done.stderr)
                self.assertRegex(done.stdout, r"- url: https?://[^ ]+/api/v1/receive\n")


class Sets(unittest.TestCase):
    """What is asked of one set."""

    def test_minimal(self):
        documents = rendered(sets()["minimal"])
        self.assertEqual(kinds(documents), ["Deployment", "PodDisruptionBudget", "Service", "ServiceAccount"])
        spec = one(documents, "Deployment")["spec"]
        self.assertEqual((spec["replicas"], spec["strategy"]), (1, {"type": "Recreate"}))
        self.assertEqual(set(environment(documents)), {"PROMDEDUP_UPSTREAM_URL", "PROMDEDUP_WORKERS", "PROMDEDUP_DRAIN_LEAD"})

    def test_scaled(self):
        documents = rendered(sets()["scaled"])
        deployment, scaler = one(documents, "Deployment"), one(documents, "HorizontalPodAutoscaler")["spec"]
        # Else each upgrade would set their number back.
        self.assertNotIn("replicas", deployment["spec"])
        self.assertEqual(scaler["scaleTargetRef"]["name"], deployment["metadata"]["name"])
        self.assertEqual((scaler["minReplicas"], scaler["maxReplicas"]), (2, 6))
        self.assertIn("cpu", container(documents)["resources"]["requests"])
        annotations = one(documents, "Ingress")["metadata"]["annotations"]
        self.assertEqual(annotations["nginx.ingress.kubernetes.io/upstream-hash-by"], "$http_x_promdedup_group$arg_group")
        self.assertEqual(deployment["spec"]["strategy"]["rollingUpdate"], {"maxSurge": 1, "maxUnavailable": 0})
        keys = {each["topologyKey"] for each in deployment["spec"]["template"]["spec"]["topologySpreadConstraints"]}
        self.assertEqual(keys, {"kubernetes.io/hostname", "topology.kubernetes.io/zone"})
        notes = render("template", "-notes", CHART, sets()["scaled"]).stdout
        self.assertIn("X-Promdedup-Group", notes)

    def test_secured(self):
        documents = rendered(sets()["secured"])
        variables = environment(documents)
        self.assertEqual(
            variables["PROMDEDUP_UPSTREAM_HEADERS"]["valueFrom"],
            {"secretKeyRef": {"name": "promdedup-upstream", "key": "headers"}},
        )
        # One volume, so that a certificate and its key change at one moment.
        self.assertEqual(len(one(documents, "Deployment")["spec"]["template"]["spec"]["volumes"]), 1)
        annotations = one(documents, "Ingress")["metadata"]["annotations"]
        self.assertEqual(annotations["nginx.ingress.kubernetes.io/backend-protocol"], "HTTPS")
        policy = one(documents, "NetworkPolicy")["spec"]
        self.assertEqual(policy["policyTypes"], ["Ingress", "Egress"])

    def test_everything(self):
        documents = rendered(sets()["everything"])
        variables = environment(documents)
        # Not 1.2e+07.
        self.assertEqual(variables["PROMDEDUP_WINDOW_SERIES_MAX"]["value"], "12000000")
        self.assertEqual(variables["PROMDEDUP_WORKERS"]["value"], "4")
        self.assertEqual(variables["PROMDEDUP_UPSTREAM_PROTOCOL"]["value"], "2.0")
        self.assertRegex(container(documents)["image"], r"^example/promdedup@sha256:")
        annotations = one(documents, "Ingress")["metadata"]["annotations"]
        self.assertEqual(annotations["nginx.ingress.kubernetes.io/proxy-body-size"], "64m")
        self.assertNotIn("nginx.ingress.kubernetes.io/upstream-hash-by", annotations)
        self.assertEqual(one(documents, "PodDisruptionBudget")["spec"]["minAvailable"], 2)
        with open(f"{ROOT}/deploy/grafana/promdedup.json", encoding="utf-8") as file:
            self.assertEqual(one(documents, "ConfigMap")["data"]["promdedup.json"].strip(), file.read().strip())
        with open(f"{ROOT}/deploy/prometheus/rules.yml", encoding="utf-8") as file:
            self.assertEqual(one(documents, "PrometheusRule")["spec"], yaml.safe_load(file))
        notes = render("template", "-notes", CHART, sets()["everything"]).stdout
        self.assertIn("WARNING: acknowledgeSplitGroups", notes)

    def test_service_monitor(self):
        documents = rendered(sets()["service-monitor"])
        self.assertEqual(kinds(documents), ["Deployment", "Service", "ServiceMonitor"])
        self.assertNotIn("PROMDEDUP_WORKERS", environment(documents))

    def test_runai(self):
        pod = one(rendered(sets()["runai"]), "Deployment")["spec"]["template"]["spec"]
        terms = pod["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
        self.assertEqual(terms[0]["matchExpressions"][0]["key"], "node-role.kubernetes.io/runai-system")


class Refused(unittest.TestCase):
    """What must not be installed, and what is said of it."""

    def refused(self, values, words, config=None):
        done = with_values({"config": {**UPSTREAM, **(config or {})}, **values})
        self.assertEqual((done.returncode, done.stdout), (1, ""), values)
        self.assertRegex(done.stderr, words)

    def test_what_is_right_is_not_refused(self):
        done = with_values({"config": UPSTREAM})
        self.assertEqual(done.returncode, 0, done.stderr)

    def test_no_upstream(self):
        done = render("template", CHART)
        self.assertEqual(done.returncode, 1)
        self.assertIn("config.PROMDEDUP_UPSTREAM_URL is required", done.stderr)

    def test_typos(self):
        self.refused({"replicas": 2}, "replicas")
        self.refused({"image": {"tags": "1"}}, "tags")
        self.refused({"files": {"PROMDEDUP_TLS_CERTS_FILE": {"secretName": "a", "key": "b"}}}, "PROMDEDUP_TLS_CERTS_FILE")
        self.refused({"configFromSecrets": {"PROMDEDUP_LOGS": {"secretName": "a", "key": "b"}}}, "PROMDEDUP_LOGS")
        self.refused({}, "PROMDEDUP_WINDOW_SERIE_MAX", {"PROMDEDUP_WINDOW_SERIE_MAX": 1})

    def test_forms(self):
        self.refused({}, "PROMDEDUP_UPSTREAM_PROTOCOL", {"PROMDEDUP_UPSTREAM_PROTOCOL": 2.0})
        self.refused({}, "PROMDEDUP_WINDOW_IDLE", {"PROMDEDUP_WINDOW_IDLE": "30"})
        self.refused({}, "PROMDEDUP_LISTEN", {"PROMDEDUP_LISTEN": "0.0.0.0:8080"})
        self.refused({"replicaCount": "1"}, "replicaCount")
        self.refused({"files": {"PROMDEDUP_AUTH_BEARER_FILE": {"key": "tokens"}}}, "PROMDEDUP_AUTH_BEARER_FILE")
        both = {"secretName": "a", "configMapName": "b", "key": "c"}
        self.refused({"files": {"PROMDEDUP_AUTH_BEARER_FILE": both}}, "PROMDEDUP_AUTH_BEARER_FILE")

    def test_several_instances_without_anything_that_brings_groups_together(self):
        words = "nothing that brings the replicas of an HA group together"
        self.refused({"replicaCount": 2}, f"up to 2 instances, and {words}")
        self.refused({"autoscaling": {"enabled": True}}, f"up to 6 instances, and {words}")
        self.refused({"replicaCount": 2, "ingress": {"enabled": True, "hash": {"enabled": False}}}, words)
        for well in ({"ingress": {"enabled": True}}, {"acknowledgeSplitGroups": True}):
            done = with_values({"config": UPSTREAM, "replicaCount": 2, **well})
            self.assertEqual(done.returncode, 0, done.stderr)

    def test_instances_that_share_groups_by_a_database(self):
        database = {"PROMDEDUP_COORDINATION_URL": {"secretName": "db", "key": "url"}}
        self.refused({"replicaCount": 2, "configFromSecrets": database}, "files.PROMDEDUP_PEER_TOKEN_FILE is required")
        names = ("PROMDEDUP_PEER_TOKEN_FILE", "PROMDEDUP_TLS_CERT_FILE", "PROMDEDUP_TLS_KEY_FILE")
        files = {name: {"secretName": "some", "key": "one"} for name in names}
        self.refused({"configFromSecrets": database, "files": files}, "which is in no certificate")
        named = {"PROMDEDUP_PEER_TLS_SERVER_NAME": "promdedup.thanos.svc"}
        done = with_values({"config": {**UPSTREAM, **named}, "configFromSecrets": database, "files": files})
        self.assertEqual(done.returncode, 0, done.stderr)
        documents = [each for each in yaml.safe_load_all(done.stdout) if each]
        self.assertEqual(environment(documents)["PROMDEDUP_ADVERTISE_URL"]["value"], "https://[$(POD_IP)]:19290")
        documents = rendered(f"{CHART}/examples/coordinated-values.yaml")
        names = list(environment(documents))
        # Kubernetes puts in only what was named before.
        self.assertLess(names.index("POD_IP"), names.index("PROMDEDUP_ADVERTISE_URL"))
        # With brackets, since the pod's address may be one of IPv6.
        self.assertEqual(environment(documents)["PROMDEDUP_ADVERTISE_URL"]["value"], "http://[$(POD_IP)]:19290")
        peers = one(documents, "NetworkPolicy")["spec"]["ingress"][0]["from"][-1]["podSelector"]["matchLabels"]
        self.assertEqual(peers, one(documents, "Deployment")["spec"]["selector"]["matchLabels"])

    def test_each_instance_is_reached_by_an_address_of_its_own(self):
        several = {
            "replicaCount": 2,
            "configFromSecrets": {"PROMDEDUP_COORDINATION_URL": {"secretName": "db", "key": "url"}},
            "files": {
                name: {"secretName": "some", "key": "one"}
                for name in ("PROMDEDUP_PEER_TOKEN_FILE", "PROMDEDUP_TLS_CERT_FILE", "PROMDEDUP_TLS_KEY_FILE")
            },
        }
        same = {"PROMDEDUP_ADVERTISE_URL": "https://promdedup.thanos.svc:19290"}
        self.refused(several, "is the same for up to 2 instances", same)
        own = {"PROMDEDUP_ADVERTISE_URL": "https://[$(POD_IP)]:19290"}
        done = with_values({"config": {**UPSTREAM, **own}, **several})
        self.assertEqual(done.returncode, 0, done.stderr)
        documents = [each for each in yaml.safe_load_all(done.stdout) if each]
        variables = [each["name"] for each in container(documents)["env"]]
        self.assertEqual(len(variables), len(set(variables)), variables)
        self.assertLess(variables.index("POD_IP"), variables.index("PROMDEDUP_ADVERTISE_URL"))
        self.assertEqual(environment(documents)["PROMDEDUP_ADVERTISE_URL"]["value"], own["PROMDEDUP_ADVERTISE_URL"])
        # Without a database nobody has to know the pod's address.
        self.assertNotIn("POD_IP", environment(rendered(sets()["minimal"])))

    def test_what_does_not_go_together(self):
        cert = {"PROMDEDUP_TLS_CERT_FILE": {"secretName": "tls", "key": "tls.crt"}}
        self.refused({"files": cert}, "PROMDEDUP_TLS_CERT_FILE and PROMDEDUP_TLS_KEY_FILE belong together")
        self.refused({}, "terminationGracePeriodSeconds 30 is not longer", {"PROMDEDUP_DRAIN_TIMEOUT": "25s"})
        self.refused({"networkPolicy": {"enabled": True}}, "networkPolicy.from is required")
        monitors = {"podMonitor": {"enabled": True}, "serviceMonitor": {"enabled": True}}
        self.refused(monitors, "enable one")
        scaled = {"autoscaling": {"enabled": True, "minReplicas": 9}, "ingress": {"enabled": True}}
        self.refused(scaled, "minReplicas 9 is more than autoscaling.maxReplicas 6")


class Manifests(unittest.TestCase):
    """The files beside the chart that are applied as they are."""

    def test_kubernetes_knows_all_of_it(self):
        seen = 0
        for path in sorted(glob.glob(f"{ROOT}/deploy/kubernetes/*.yaml")):
            with open(path, encoding="utf-8") as file:
                for each in yaml.safe_load_all(file):
                    if each["apiVersion"].startswith("monitoring.coreos.com/"):
                        continue
                    for version in KUBERNETES:
                        with self.subTest(path=path, kind=each["kind"], version=version):
                            kubernetes_validate.validate(each, version, strict=True)
                            seen += 1
        self.assertGreater(seen, 4)


if __name__ == "__main__":
    unittest.main()
