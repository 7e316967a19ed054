#!/usr/bin/env python3
"""Makes schema.json: what the AWS provider says of the types that deploy/terraform uses.

    schema.py WHEEL >schema.json      the wheel of cdktf-cdktf-provider-aws, from pip download --no-deps

The wheel holds JavaScript that was generated from the provider's own schema: names, types and blocks stand there as data,
what is required stands in the declarations. What is optional counts as computed too, which is more lenient than the provider.
"""

import io
import json
import re
import sys
import tarfile
import zipfile

TYPES = """cloudwatch_metric_alarm eks_pod_identity_association iam_openid_connect_provider iam_role iam_role_policy route53_record
sesv2_configuration_set sesv2_configuration_set_event_destination sesv2_email_identity
sesv2_email_identity_mail_from_attributes sesv2_email_identity_policy sns_topic sns_topic_policy sns_topic_subscription
sqs_queue sqs_queue_policy sqs_queue_redrive_allow_policy""".split()

ENTRY = re.compile(r"\n {8,12}(\w+): \{\n\s+value: .*\n\s+isBlock: (\w+),\n\s+type: \"(\w+)\",\n\s+storageClassType: \"(\w+)\"")
GETTER = re.compile(r"get (\w+)\(\) \{\n\s+return this\.get(\w+)Attribute\('(\w+)'\)")
GETTERS = {"String": "string", "Number": "number", "Boolean": "bool", "List": ["list", "string"], "StringMap": ["map", "string"]}
SIMPLE = {"string": "string", "number": "number", "boolean": "bool"}


def camel(name):
    head, *rest = name.split("_")
    return head + "".join(word.capitalize() for word in rest)


def of(kind, storage):
    if kind == "simple":
        return SIMPLE[storage]
    return [kind, SIMPLE.get(re.sub("(List|Map)$", "", storage), "string")]


def body(script, declarations, struct, config):
    """What stands in a resource, or in one of its blocks."""
    function = "synthesizeHclAttributes() {" if struct == config else f"function {struct[0].lower()}{struct[1:]}ToHclTerraform("
    entries = ENTRY.findall(script.split(function, 1)[1].split("remove undefined", 1)[0])
    interface = declarations.split(f"export interface {struct}{'Config' if struct == config else ''} ", 1)[1].split("\n}", 1)[0]
    required = set(re.findall(r"readonly (\w+):", interface))
    attributes, blocks = {}, {}
    for name, is_block, kind, storage in entries:
        needed = camel(name) in required
        if is_block == "true":
            inner = re.sub("List$", "", storage)
            blocks[name] = {"nesting": kind if kind in ("list", "set") else "single", "required": needed, **body(script, declarations, inner, config)}
        else:
            attributes[name] = {"type": of(kind, storage), "required": needed}
    reference = script.split(f"class {struct}{'' if struct == config else 'OutputReference'} extends", 1)[1].split("\n}\n", 1)[0]
    for _, kind, name in GETTER.findall(reference):
        if name not in attributes and name not in blocks and kind in GETTERS:
            attributes[name] = {"type": GETTERS[kind], "computed": True}
    return {"attributes": attributes, "blocks": blocks}


def main():
    wheel = zipfile.ZipFile(sys.argv[1])
    bundle = next(name for name in wheel.namelist() if name.endswith(".tgz"))
    package = tarfile.open(fileobj=io.BytesIO(wheel.read(bundle)))

    def text(path):
        return package.extractfile(f"package/lib/{path}").read().decode()

    made = {}
    for name in TYPES:
        folder = name.replace("_", "-")
        config = name.title().replace("_", "")
        made[f"aws_{name}"] = body(text(f"{folder}/index.js"), text(f"{folder}/index.d.ts"), config, config)
    lines = [f'"{name}": {json.dumps(schema, sort_keys=True, separators=(",", ":"))}' for name, schema in sorted(made.items())]
    print("{\n" + ",\n".join(lines) + "\n}")


main()
