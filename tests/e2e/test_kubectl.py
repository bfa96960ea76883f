"""Every command of the stock kubectl and what it prints. Streams, drains and logs have suites of their own."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.objects import STAY, container, headless, pod, workload
from tests.harness.api import Obj
from tests.harness.nanokube import Cluster, eventually

NAMESPACE = "commands"


class Commands:
    """kubectl in the suite's namespace."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster

    def __call__(self, text: str, *more: str, stdin: Any = None, check: bool = True) -> str:
        """A command line, split at blanks, with further arguments that may hold some."""
        body = stdin if stdin is None or isinstance(stdin, str) else json.dumps(stdin)
        command, *rest = text.split()
        return self.cluster.kubectl(command, "-n", NAMESPACE, *rest, *more, stdin=body, check=check)

    def json(self, text: str) -> Any:
        return json.loads(self(f"{text} -o json"))


@pytest.fixture(scope="module")
def kubectl(cluster: Cluster) -> Iterator[Commands]:
    cluster.kubectl("create", "namespace", NAMESPACE)
    commands = Commands(cluster)
    web = workload("Deployment", "web", main=container(ports=[{"containerPort": 8080}]), replicas=2)
    sets = workload("StatefulSet", "db", replicas=1, serviceName="db")
    agents = workload("DaemonSet", "agent")
    objects = [web, headless("db", {"app": "db"}), sets, agents]
    commands("apply -f -", stdin={"apiVersion": "v1", "kind": "List", "items": objects})
    for each in ("deployment/web", "statefulset/db", "daemonset/agent"):
        commands(f"rollout status {each} --timeout=60s")
    yield commands
    cluster.kubectl("delete", "namespace", NAMESPACE, "--wait=false")


# (arguments of `kubectl create`, what it says, what `kubectl describe` of the result must show)
GENERATORS = [
    ("configmap settings --from-literal=a=1", "configmap/settings created", "a:"),
    ("secret generic hidden --from-literal=a=1", "secret/hidden created", "a:  1 bytes"),
    (
        "secret docker-registry pull --docker-username=u --docker-password=p --docker-server=r",
        "secret/pull created",
        "Type:  kubernetes.io/dockerconfigjson",
    ),
    ("serviceaccount robot", "serviceaccount/robot created", "Image pull secrets:"),
    ("deployment made --image=busybox --replicas=0", "deployment.apps/made created", "StrategyType:           RollingUpdate"),
    ("job once --image=busybox -- true", "job.batch/once created", "Completions:"),
    ("cronjob often --image=busybox --schedule=0_0_1_1_*", "cronjob.batch/often created", "Concurrency Policy:"),
    ("job again --from=cronjob/often", "job.batch/again created", "Controlled By:    CronJob/often"),
    ("service clusterip plain --tcp=80:8080", "service/plain created", "TargetPort:               8080/TCP"),
    ("service nodeport outside --tcp=80:8080", "service/outside created", "NodePort:                 80-8080"),
    ("service loadbalancer balanced --tcp=80:8080", "service/balanced created", "LoadBalancer"),
    ("service externalname alias --external-name=example.com", "service/alias created", "External Name:"),
    ("ingress front --class=nginx --rule=example.com/path*=plain:80", "ingress.networking.k8s.io/front created", "plain:80"),
    ("quota few --hard=pods=50", "resourcequota/few created", "pods"),
    ("poddisruptionbudget steady --selector=app=web --min-available=1", "poddisruptionbudget.policy/steady created", "Min available:"),
    ("role reader --verb=get,list --resource=pods,pods/log", "role.rbac.authorization.k8s.io/reader created", "pods/log"),
    ("rolebinding reading --role=reader --user=ann", "rolebinding.rbac.authorization.k8s.io/reading created", "ann"),
    ("clusterrole commands-nodes --verb=get --resource=nodes", "clusterrole.rbac.authorization.k8s.io/commands-nodes created", "nodes"),
    (
        "clusterrolebinding commands-nodes --clusterrole=commands-nodes --group=ops",
        "clusterrolebinding.rbac.authorization.k8s.io/commands-nodes created",
        "ops",
    ),
    ("priorityclass commands-high --value=1000", "priorityclass.scheduling.k8s.io/commands-high created", "Value:             1000"),
    ("namespace commands-other", "namespace/commands-other created", "Status:       Active"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "said", "described"),
    GENERATORS,
    ids=[each[0].split()[0] + "-" + each[0].split()[1] for each in GENERATORS],
)
def test_generators(kubectl: Commands, arguments: str, said: str, described: str) -> None:
    words = [word.replace("0_0_1_1_*", "0 0 1 1 *") for word in arguments.split()]
    assert kubectl("create --dry-run=server", *words) == f"{said} (server dry run)\n"
    assert kubectl("create", *words) == f"{said}\n"
    name = said.split()[0]
    told = kubectl(f"describe {name}")
    assert re.search(rf"^Name: +{name.rpartition('/')[2]}$", told, re.MULTILINE) and described in told, told
    if name.startswith(("clusterrole", "priorityclass", "namespace")):
        assert "deleted" in kubectl(f"delete {name} --wait=false")


def test_token_of_a_service_account(kubectl: Commands) -> None:
    assert kubectl("create token default --duration=10m").count(".") == 2


FORMATS = [
    ("get deployment web -o name", r"deployment\.apps/web\n"),
    ("get deployment web", r"NAME +READY +UP-TO-DATE +AVAILABLE +AGE\nweb +2/2 +2 +2 +\d+s\n"),
    ("get deployment web -o wide", r"NAME .* AGE +CONTAINERS +IMAGES +SELECTOR\nweb .*s +main +busybox +app=web\n"),
    ("get deployment web -o jsonpath={.spec.replicas}", r"2"),
    ("get deployment web -o custom-columns=N:.metadata.name,R:.spec.replicas", r"N +R\nweb +2\n"),
    ("get deployment web -o go-template={{.kind}}", r"Deployment"),
    ("get deployment web -o yaml", r"(?s)apiVersion: apps/v1\nkind: Deployment\nmetadata:.*"),
    ("get pods -l app=web --no-headers", r"(web-\w+-\w+ +1/1 +Running +0 +\d+s\n){2}"),
    ("get pods -l app=web --sort-by=.metadata.name -o name", r"(pod/web-\w+-\w+\n){2}"),
    ("get pods -l app=web --show-labels --no-headers", r"(?s).*app=web,pod-template-hash=\w+[^ ]*\n"),
    ("get pods -l app=web -L app", r"(?s)NAME +READY +STATUS +RESTARTS +AGE +APP\n.* web\n"),
    ("get pods --field-selector=status.phase=Failed", r""),
    ("get statefulset db", r"NAME +READY +AGE\ndb +1/1 +\d+s\n"),
    ("get daemonset agent", r"NAME +DESIRED +CURRENT +READY +UP-TO-DATE +AVAILABLE +NODE SELECTOR +AGE\nagent +3 +3 +3 +3 +3 +<none> +\d+s\n"),
    ("get service db", r"NAME +TYPE +CLUSTER-IP +EXTERNAL-IP +PORT\(S\) +AGE\ndb +ClusterIP +None +<none> +80/TCP +\d+s\n"),
    ("get deployment,statefulset -o name", r"(?s).*deployment\.apps/web\nstatefulset\.apps/db\n"),
    ("get nodes -o name", r"(node/worker-\d\n){3}"),
    ("get all -l app=db -o name", r"(?s)pod/db-0\nstatefulset\.apps/db\n"),
    ("get --raw /version", r'(?s)\{.*"gitVersion".*\}\n?'),
    ("get pod nothing --ignore-not-found", r""),
    ("api-versions", r"(?s).*apps/v1\n.*v1\n"),
    ("api-resources --namespaced=false -o name", r"(?s).*namespaces\n.*"),
    ("api-resources --api-group=apps --no-headers", r"(?s).*deployments +deploy +apps/v1 +true +Deployment\n.*"),
    ("explain deployment.spec.replicas", r"(?s)GROUP: +apps\nKIND: +Deployment\nVERSION: +v1\n\nFIELD: replicas <integer>\n.*"),
    ("explain pod --recursive", r"(?s)KIND: +Pod\n.*terminationGracePeriodSeconds\t<integer>\n.*"),
    ("auth can-i delete pods", r"yes\n"),
    ("auth can-i --list", r"(?s)Resources +Non-Resource URLs +Resource Names +Verbs\n.*"),
    ("auth whoami", r"(?s)ATTRIBUTE +VALUE\nUsername +\S+\nGroups +\[system:masters system:authenticated\]\n.*"),
    ("config current-context", r".+\n"),
    ("completion bash", r"(?s).*complete -o default -F __start_kubectl kubectl.*"),
    ("rollout history deployment/web", r"deployment\.apps/web \nREVISION +CHANGE-CAUSE\n1 +<none>\n\n"),
    ("rollout status statefulset/db", r"(partitioned roll out complete: 1 new pods have been updated\.\.\.|statefulset rolling update complete 1 pods at revision db-\w+\.\.\.)\n"),
    ("events --for=deployment/web", r"(?s)LAST SEEN +TYPE +REASON +OBJECT +MESSAGE\n.*ScalingReplicaSet +Deployment/web +Scaled up replica set web-\w+ from 0 to 2\n"),
    ("describe deployment web", r"(?s)Name: +web\n.*Replicas: +2 desired \| 2 updated \| 2 total \| 2 available \| 0 unavailable\n.*NewReplicaSet: +web-\w+ \(2/2 replicas created\)\n.*"),
    ("describe statefulset db", r"(?s)Name: +db\n.*Pods Status: +1 Running / 0 Waiting / 0 Succeeded / 0 Failed\n.*SuccessfulCreate.*create Pod db-0 in StatefulSet db successful\n"),
    ("describe daemonset agent", r"(?s)Name: +agent\n.*Desired Number of Nodes Scheduled: 3\n.*"),
    ("describe node worker-1", r"(?s)Name: +worker-1\n.*Non-terminated Pods:.*Allocated resources:.*"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "wanted"), FORMATS, ids=[each[0] for each in FORMATS])
def test_what_is_printed(kubectl: Commands, text: str, wanted: str) -> None:
    told = kubectl(text)
    assert re.fullmatch(wanted, told), told


REFUSALS = [
    ("get pod nothing", r'Error from server \(NotFound\): pods "nothing" not found'),
    ("get nonsense", r'error: the server doesn\'t have a resource type "nonsense"'),
    ("create configmap kube-root-ca.crt", r'error: failed to create configmap: configmaps "kube-root-ca.crt" already exists'),
    ("create namespace Bad_Name", r'The Namespace "Bad_Name" is invalid: metadata.name: Invalid value: "Bad_Name": .*'),
    ("get pods --as=nobody", r'Error from server \(Forbidden\): pods is forbidden: User "nobody" cannot list .*'),
    ("scale deployment web --replicas=-1", r"error: The --replicas=COUNT flag is required, and COUNT must be .*"),
    ("rollout undo deployment/web --to-revision=9", r"(?s)(Warning: .*\n)?error: unable to find specified revision 9 in history"),
    ("wait deployment/web --for=condition=Never --timeout=0", r"error: condition not met for deployments/web"),
    ("label deployment web app=other", r"error: 'app' already has a value \(web\), and --overwrite is false"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "wanted"), REFUSALS, ids=[each[0] for each in REFUSALS])
def test_what_is_refused(kubectl: Commands, text: str, wanted: str) -> None:
    told = kubectl(text, check=False).strip()
    assert re.fullmatch(wanted, told), told


def test_apply_diff_prune_replace(kubectl: Commands) -> None:
    def settings(name: str, **data: str) -> Obj:
        return {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": name, "labels": {"set": "one"}},
            "data": data,
        }

    both = {"apiVersion": "v1", "kind": "List", "items": [settings("kept", a="1"), settings("pruned", a="1")]}
    prune = "apply -f - --prune -l set=one --prune-allowlist=core/v1/ConfigMap"
    assert kubectl(prune, stdin=both) == "configmap/kept created\nconfigmap/pruned created\n"
    assert kubectl("apply -f -", stdin=settings("kept", a="1")) == "configmap/kept unchanged\n"
    told = kubectl("diff -f -", stdin=settings("kept", a="2"), check=False)
    assert re.search(r"^-  a: \"1\"$", told, re.MULTILINE) and re.search(r"^\+  a: \"2\"$", told, re.MULTILINE)
    assert kubectl(prune, stdin=settings("kept", a="2")) == "configmap/kept configured\nconfigmap/pruned pruned\n"
    assert '"a": "2"' in kubectl("apply view-last-applied configmap/kept -o json")
    kubectl("patch configmap kept --type=merge -p", '{"data":{"own":"1"}}')
    kubectl("apply -f -", stdin=settings("kept", b="3"))
    assert kubectl.json("get configmap kept")["data"] == {"b": "3", "own": "1"}, "what was not applied stays"
    uid = kubectl.json("get configmap kept")["metadata"]["uid"]
    assert kubectl("replace --force -f -", stdin=settings("kept", c="4")).splitlines()[-1] == "configmap/kept replaced"
    assert kubectl.json("get configmap kept")["metadata"]["uid"] != uid
    assert "serverside-applied" in kubectl("apply --server-side --force-conflicts -f -", stdin=settings("kept", d="5"))


def test_edit(kubectl: Commands, tmp_path: Path) -> None:
    editor = tmp_path / "editor"
    editor.write_text("#!/bin/sh\nsed -i 's/colour: red/colour: blue/' \"$1\"\n")
    editor.chmod(0o755)
    kubectl("create configmap edited --from-literal=colour=red")
    environment = kubectl.cluster.environment
    environment["KUBE_EDITOR"] = str(editor)
    try:
        assert kubectl("edit configmap edited") == "configmap/edited edited\n"
        assert kubectl("edit configmap edited", check=False) == "Edit cancelled, no changes made.\n"
    finally:
        del environment["KUBE_EDITOR"]
    assert kubectl.json("get configmap edited")["data"] == {"colour": "blue"}


def test_set_and_patch(kubectl: Commands) -> None:
    kubectl("create deployment changed --image=busybox --replicas=0")
    steps = [
        ("set image deployment/changed busybox=busybox:1", "deployment.apps/changed image updated"),
        ("set env deployment/changed A=1", "deployment.apps/changed env updated"),
        ("set resources deployment/changed --requests=cpu=10m", "deployment.apps/changed resource requirements updated"),
        ("set serviceaccount deployment/changed default", "deployment.apps/changed serviceaccount updated"),
        ("annotate deployment changed note=x", "deployment.apps/changed annotated"),
        ("annotate deployment changed note=y --overwrite", "deployment.apps/changed annotated"),
        ("label deployment changed tier=x", "deployment.apps/changed labeled"),
        ("rollout pause deployment/changed", "deployment.apps/changed paused"),
        ("rollout resume deployment/changed", "deployment.apps/changed resumed"),
        ("rollout restart deployment/changed", "deployment.apps/changed restarted"),
        ("scale deployment changed --replicas=1 --current-replicas=0", "deployment.apps/changed scaled"),
        ("autoscale deployment changed --min=1 --max=3 --cpu-percent=50", "horizontalpodautoscaler.autoscaling/changed autoscaled"),
        ("expose deployment changed --port=80 --target-port=8080", "service/changed exposed"),
        ("set selector service changed app=other", "service/changed selector updated"),
        ("patch deployment changed --subresource=scale --type=merge -p", "scale.autoscaling/changed patched"),
    ]  # fmt: skip
    for text, said in steps:
        more = ['{"spec":{"replicas":0}}'] if text.endswith("-p") else []
        assert kubectl(text, *more) == f"{said}\n"
    spec = kubectl.json("get deployment changed")["spec"]
    (main,) = spec["template"]["spec"]["containers"]
    assert (main["image"], main["env"], spec["replicas"]) == ("busybox:1", [{"name": "A", "value": "1"}], 0)
    assert main["resources"] == {"requests": {"cpu": "10m"}}
    scaler = kubectl("get hpa changed").splitlines()
    assert scaler[0].split() == ["NAME", "REFERENCE", "TARGETS", "MINPODS", "MAXPODS", "REPLICAS", "AGE"]
    assert re.match(r"changed +Deployment/changed +cpu: \S+/50% +1 +3 +\d", scaler[1])
    patched = kubectl(
        "patch deployment changed --type=json -p", '[{"op":"remove","path":"/metadata/annotations/note"}]'
    )
    assert patched == "deployment.apps/changed patched\n"


def test_wait(kubectl: Commands) -> None:
    assert kubectl("wait deployment/web --for=condition=Available") == "deployment.apps/web condition met\n"
    assert kubectl("wait pod -l app=web --for=jsonpath={.status.phase}=Running").count("condition met") == 2
    assert kubectl("wait service/db --for=create") == "service/db condition met\n"
    kubectl(
        "run brief --image=busybox --restart=Never --grace-period=1 -- sh -c",
        "trap 'exit 0' TERM; sleep 60 & wait",
        check=False,
    )
    kubectl("apply -f -", stdin=pod("briefer", main=container(STAY)))
    kubectl("wait pod/briefer --for=condition=Ready --timeout=30s")
    kubectl("delete pod briefer --wait=false")
    assert kubectl("wait pod/briefer --for=delete --timeout=30s") in ("pod/briefer condition met\n", "")


def test_rollout_history_and_undo(kubectl: Commands) -> None:
    kubectl("apply -f -", stdin=workload("Deployment", "rolled", replicas=1))
    kubectl("rollout status deployment/rolled --timeout=60s")
    kubectl("set env deployment/rolled A=1")
    kubectl("annotate deployment/rolled kubernetes.io/change-cause=second")
    told = kubectl("rollout status deployment/rolled --timeout=60s")
    assert told.splitlines()[-1] == 'deployment "rolled" successfully rolled out'

    def causes() -> list[list[str]]:
        return [line.split() for line in kubectl("rollout history deployment/rolled").splitlines()[2:] if line]

    eventually(lambda: causes() == [["1", "<none>"], ["2", "second"]], "the change cause of the revision")
    assert "A:\t1" in kubectl("rollout history deployment/rolled --revision=2")
    assert kubectl("rollout undo deployment/rolled") == "deployment.apps/rolled rolled back\n"
    kubectl("rollout status deployment/rolled --timeout=60s")
    eventually(lambda: [each[0] for each in causes()] == ["2", "3"], "the first revision again as the third")


def test_nodes(kubectl: Commands) -> None:
    steps = [
        ("cordon worker-3", "node/worker-3 cordoned"),
        ("cordon worker-3", "node/worker-3 already cordoned"),
        ("uncordon worker-3", "node/worker-3 uncordoned"),
        ("taint node worker-3 commands=x:PreferNoSchedule", "node/worker-3 tainted"),
        ("taint node worker-3 commands-", "node/worker-3 untainted"),
        ("label node worker-3 commands=x", "node/worker-3 labeled"),
        ("label node worker-3 commands-", "node/worker-3 unlabeled"),
    ]
    for text, said in steps:
        assert kubectl(text) == f"{said}\n"
    kubectl("cordon worker-3")
    assert re.search(r"^worker-3 +Ready,SchedulingDisabled ", kubectl("get nodes"), re.MULTILINE)
    kubectl("uncordon worker-3")


def test_debug_with_an_ephemeral_container(kubectl: Commands) -> None:
    kubectl("apply -f -", stdin=pod("puzzling", main=container(STAY)))
    kubectl("wait pod/puzzling --for=condition=Ready --timeout=30s")
    kubectl("debug puzzling --image=busybox --container=look --quiet -- sh -c", "echo seen; sleep 3600")

    def seen() -> bool:
        return kubectl("logs puzzling -c look", check=False) == "seen\n"

    eventually(seen, "the ephemeral container's words")
    assert "Ephemeral Containers:" in kubectl("describe pod puzzling")
    told = kubectl(
        "debug puzzling --image=busybox --copy-to=copy --container=extra --profile=general -q -- true", check=False
    )
    assert told == "" and kubectl("get pod copy -o name") == "pod/copy\n"


def test_certificates(kubectl: Commands, tmp_path: Path) -> None:
    import base64

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "ann")])
    request = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashes.SHA256())
    pem = request.public_bytes(serialization.Encoding.PEM)
    for asked in ("commands-yes", "commands-no"):
        spec = {
            "request": base64.b64encode(pem).decode(),
            "signerName": "kubernetes.io/kube-apiserver-client",
            "usages": ["client auth"],
        }
        body = {
            "apiVersion": "certificates.k8s.io/v1",
            "kind": "CertificateSigningRequest",
            "metadata": {"name": asked},
            "spec": spec,
        }
        kubectl("create -f -", stdin=body)
    approved = "certificatesigningrequest.certificates.k8s.io/commands-yes approved\n"
    assert kubectl("certificate approve commands-yes") == approved
    eventually(lambda: "Approved,Issued" in kubectl("get csr commands-yes"), "the certificate")
    assert "denied" in kubectl("certificate deny commands-no")
    assert "Denied" in kubectl("get csr commands-no")
    kubectl("delete csr commands-yes commands-no")


def test_kustomize_and_reconcile_and_dump(kubectl: Commands, tmp_path: Path) -> None:
    (tmp_path / "kustomization.yaml").write_text(
        "namePrefix: dev-\nconfigMapGenerator:\n- name: generated\n  literals: [a=1]\ngeneratorOptions: {disableNameSuffixHash: true}\n"
    )
    assert "name: dev-generated" in kubectl.cluster.kubectl("kustomize", str(tmp_path))
    assert kubectl("apply -k", str(tmp_path)) == "configmap/dev-generated created\n"
    role = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "Role",
        "metadata": {"name": "reconciled", "namespace": NAMESPACE},
        "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}],
    }
    for _ in range(2):
        assert "role.rbac.authorization.k8s.io/reconciled reconciled" in kubectl("auth reconcile -f -", stdin=role)
    folder = tmp_path / "dump"
    kubectl(f"cluster-info dump --output-directory={folder}", f"--namespaces={NAMESPACE}")
    assert (folder / "nodes.json").exists() and (folder / NAMESPACE / "pods.json").exists()
    assert os.listdir(folder / NAMESPACE)


def test_plugins_and_configuration(kubectl: Commands, tmp_path: Path) -> None:
    plugin = tmp_path / "kubectl-hello"
    plugin.write_text("#!/bin/sh\necho hello $1\n")
    plugin.chmod(0o755)
    environment = kubectl.cluster.environment
    path = environment["PATH"]
    environment["PATH"] = f"{tmp_path}:{path}"
    try:
        assert str(plugin) in kubectl.cluster.kubectl("plugin", "list", check=False)
        assert kubectl.cluster.kubectl("hello", "world") == "hello world\n"
    finally:
        environment["PATH"] = path
    assert "server: https://" in kubectl.cluster.kubectl("config", "view", "--minify")
    assert kubectl.cluster.kubectl("config", "get-contexts", "-o", "name").strip() != ""
