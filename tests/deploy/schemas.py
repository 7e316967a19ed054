#!/usr/bin/env python3
"""Makes tests/deploy/schemas, with which kubeconform checks manifests offline. Run by hand when Kubernetes or KEDA is new:

    python3 -m venv V && V/bin/pip install kubernetes-validate==1.37.0 pyyaml
    go mod download github.com/kedacore/keda/v2@v2.21.0 github.com/prometheus-operator/prometheus-operator@v0.94.0
    V/bin/python tests/deploy/schemas.py "$(go env GOMODCACHE)"

Core kinds are those of Kubernetes 1.36 with their definitions put inside; custom kinds are the CRDs' schemas, closed against
unknown keys. Descriptions are left out. triggers.json has the parameters that KEDA's triggers take.
"""

import json
import pathlib
import sys

import kubernetes_validate
import yaml

out = pathlib.Path(__file__).resolve().parent / "schemas"
CORE = "ConfigMap Deployment Job NetworkPolicy PersistentVolumeClaim Pod PodDisruptionBudget Service ServiceAccount".split()
VERSIONS = {"Deployment": "apps-v1", "Job": "batch-v1", "NetworkPolicy": "networking-v1", "PodDisruptionBudget": "policy-v1"}
CUSTOM = [
    ("github.com/kedacore/keda/v2@v2.21.0/config/crd/bases", ["keda.sh_scaledobjects", "keda.sh_triggerauthentications"]),
    (
        "github.com/prometheus-operator/prometheus-operator@v0.94.0/example/prometheus-operator-crd",
        [f"monitoring.coreos.com_{kind}" for kind in ("podmonitors", "prometheusrules", "servicemonitors")],
    ),
]
TRIGGERS = "github.com/kedacore/keda/v2@v2.21.0/schema/generated/scalers-schema.json"
WORDS = ("description", "x-kubernetes-validations", "x-kubernetes-list-type", "x-kubernetes-list-map-keys", "x-kubernetes-map-type")


def write(name, schema):
    target = out / name
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(schema, separators=(",", ":"), sort_keys=True) + "\n")


def bare(node, inside=False):
    """Without words; under `properties` these names are a kind's own."""
    if isinstance(node, list):
        return [bare(value) for value in node]
    if not isinstance(node, dict):
        return node
    return {key: bare(value, key in ("properties", "$defs") and not inside) for key, value in node.items() if inside or key not in WORDS}


def core():
    folder = pathlib.Path(kubernetes_validate.__file__).parent / "kubernetes-json-schema/v1.36.0-local-strict"
    all_of_them = json.loads((folder / "_definitions.json").read_text())["$defs"]

    def local(node, needed):
        if isinstance(node, list):
            return [local(value, needed) for value in node]
        if not isinstance(node, dict):
            return node
        if "$ref" in node:
            name = node["$ref"].rsplit("/", 1)[1]
            needed.append(name)
            return {**{k: v for k, v in node.items() if k != "$ref"}, "$ref": f"#/$defs/{name}"}
        return {key: local(value, needed) for key, value in node.items()}

    for kind in CORE:
        version = VERSIONS.get(kind, "v1")
        path = folder / f"{kind.lower()}-{version}.json"
        needed, inside = [], {}
        schema = local(bare(json.loads(path.read_text())), needed)
        while needed:
            name = needed.pop()
            if name not in inside:
                inside[name] = {}
                inside[name] = local(bare(all_of_them[name]), needed)
        schema["$defs"] = inside
        write(f"core/{kind.lower()}-{version}.json", schema)


def closed(node):
    """As an API server reads a CRD's schema."""
    if isinstance(node, list):
        return [closed(value) for value in node]
    if not isinstance(node, dict):
        return node
    node = dict(node)
    if node.pop("x-kubernetes-int-or-string", False):
        node.pop("type", None)
        node.setdefault("anyOf", [{"type": "integer"}, {"type": "string"}])
    if node.pop("nullable", False) and isinstance(node.get("type"), str):
        node["type"] = [node["type"], "null"]
    open_to_all = node.pop("x-kubernetes-preserve-unknown-fields", False)
    if "properties" in node:
        node["properties"] = {name: closed(value) for name, value in node["properties"].items()}
        if not open_to_all and "additionalProperties" not in node:
            node["additionalProperties"] = False
    return {key: value if key == "properties" else closed(value) for key, value in node.items()}


def custom(modules):
    for folder, names in CUSTOM:
        for name in names:
            crd = yaml.safe_load((modules / folder / f"{name}.yaml").read_text())["spec"]
            kind = crd["names"]["kind"]
            for version in crd["versions"]:
                schema = closed(bare(version["schema"]["openAPIV3Schema"]))
                schema["properties"]["apiVersion"] = {"const": f"{crd['group']}/{version['name']}"}
                schema["properties"]["kind"] = {"const": kind}
                schema["properties"]["metadata"] = {"type": "object"}
                schema["required"] = sorted({*schema.get("required", []), "apiVersion", "kind", "metadata"})
                write(f"{crd['group']}/{kind.lower()}_{version['name']}.json", schema)


def triggers(modules):
    known = json.loads((modules / TRIGGERS).read_text())
    wanted = {}
    for trigger in known["scalers"]:
        if trigger["type"] in ("kafka", "aws-sqs-queue", "postgresql"):
            wanted[trigger["type"]] = {
                p["name"]: {k: p[k] for k in ("optional", "default", "allowedValue") if k in p}
                for p in trigger["parameters"]
                if p.get("metadataVariableReadable")
            }
    write("triggers.json", wanted)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    core()
    custom(pathlib.Path(sys.argv[1]))
    triggers(pathlib.Path(sys.argv[1]))
