"""Makes strict JSON schemas of what Kubernetes publishes, each in a file that kubeconform looks for: deployment-apps-v1.json.

    convert.py kubernetes DIRECTORY SWAGGER    makes the directory, with all kinds of the OpenAPI of Kubernetes
    convert.py crds DIRECTORY FILE...          adds the kinds of CustomResourceDefinitions to it

A field that there is not is refused, as `kubectl apply --validate=strict` does it. So is null, since a template that leaves a
field empty was hardly meant to. Rules in CEL are left to the API server.
"""

import json
import pathlib
import sys

import yaml

META = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"
SCHEMA = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1."
# All that kinds refer to, for those that come later; no name of a kind.
DEFINITIONS = "_definitions.json"
INT_OR_STRING = {"type": ["integer", "string"]}
NUMBER = r"([0-9]+(\.[0-9]*)?|\.[0-9]+)"
# What the OpenAPI does not tell of types that have a form of their own in JSON.
OWN_FORM = {
    "io.k8s.apimachinery.pkg.util.intstr.IntOrString": INT_OR_STRING,
    "io.k8s.apimachinery.pkg.api.resource.Quantity": {
        "type": ["number", "string"],
        "pattern": rf"^[+-]?{NUMBER}([KMGTPE]i|[numkMGTPE]|[eE][+-]?[0-9]+)?$",
    },
    f"{SCHEMA}JSONSchemaPropsOrArray": {
        "anyOf": [{"$ref": f"#/definitions/{SCHEMA}JSONSchemaProps"}]
        + [{"type": "array", "items": {"$ref": f"#/definitions/{SCHEMA}JSONSchemaProps"}}]
    },
    f"{SCHEMA}JSONSchemaPropsOrBool": {"anyOf": [{"$ref": f"#/definitions/{SCHEMA}JSONSchemaProps"}, {"type": "boolean"}]},
    f"{SCHEMA}JSONSchemaPropsOrStringArray": {
        "anyOf": [{"$ref": f"#/definitions/{SCHEMA}JSONSchemaProps"}, {"type": "array", "items": {"type": "string"}}]
    },
}
# Any JSON, by name.
OPEN = {"io.k8s.apimachinery.pkg.apis.meta.v1.FieldsV1", "io.k8s.apimachinery.pkg.runtime.RawExtension"}
# PyYAML takes a lone `=` for something else than text, and matchers have such.
yaml.CSafeLoader.add_constructor("tag:yaml.org,2002:value", lambda loader, node: node.value)
CHECKED = {
    "type", "enum", "pattern", "format", "required", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf",
    "minLength", "maxLength", "minItems", "maxItems", "uniqueItems", "minProperties", "maxProperties", "$ref",
    # In structural schemas these name values, and no fields that are not named beside them.
    "allOf", "anyOf", "oneOf", "not",
}


def strict(node):
    """A schema of OpenAPI, as one of JSON that knows no field but its own."""
    made = {key: value for key, value in node.items() if key in CHECKED}
    if node.get("format") == "int32":
        made = {"minimum": -(2**31), "maximum": 2**31 - 1} | made
    for key in ("exclusiveMinimum", "exclusiveMaximum"):
        # A flag in OpenAPI 3.0, a number in JSON schemas.
        if made.pop(key, False):
            made[key] = made.pop(key.removeprefix("exclusive").lower())
    if "items" in node:
        made["items"] = strict(node["items"])
    properties = {name: strict(below) for name, below in node.get("properties", {}).items()}
    if node.get("x-kubernetes-embedded-resource"):
        embedded = {"apiVersion": {"type": "string"}, "kind": {"type": "string"}, "metadata": {"$ref": f"#/definitions/{META}"}}
        properties = embedded | properties
    if properties:
        made["properties"] = properties
    more = node.get("additionalProperties")
    if isinstance(more, dict):
        made["additionalProperties"] = strict(more)
    elif node.get("type") == "object" and not more and not node.get("x-kubernetes-preserve-unknown-fields"):
        made["additionalProperties"] = False
    if node.get("x-kubernetes-int-or-string"):
        made = {key: value for key, value in made.items() if key not in ("anyOf", "oneOf", "allOf")} | INT_OR_STRING
    if node.get("nullable"):
        made = {"anyOf": [{"type": "null"}, made]}
    return made


def standalone(root, definitions):
    """The schema, with all that it refers to."""
    needed, found = {}, [root]
    while found:
        node = found.pop()
        if isinstance(node, list):
            found.extend(node)
        elif isinstance(node, dict):
            # A field may have this name too: schemas are described by one.
            name = node.get("$ref")
            if isinstance(name, str) and (name := name.removeprefix("#/definitions/")) not in needed:
                needed[name] = definitions[name]
                found.append(definitions[name])
            found.extend(node.values())
    return {"$schema": "http://json-schema.org/draft-07/schema#", "definitions": needed, "allOf": [root]}


def kinds_of_kubernetes(definitions, published):
    for name, node in published.items():
        for which in node.get("x-kubernetes-group-version-kind", []):
            # DeleteOptions and WatchEvent belong to every group, and are no objects.
            if "metadata" in node.get("properties", {}):
                yield which["group"], which["version"], which["kind"], standalone({"$ref": f"#/definitions/{name}"}, definitions)


def kinds_of_crd(definitions, crd):
    for version in crd["spec"]["versions"]:
        root = strict(version["schema"]["openAPIV3Schema"])
        root["properties"] |= {
            "apiVersion": {"type": "string"}, "kind": {"type": "string"}, "metadata": {"$ref": f"#/definitions/{META}"},
        }
        yield crd["spec"]["group"], version["name"], crd["spec"]["names"]["kind"], standalone(root, definitions)


def write(directory, kinds):
    for group, version, kind, schema in kinds:
        parts = [kind.lower(), *([group.split(".")[0]] if group else []), version]
        # Two kinds of one name would hide each other.
        with (directory / f"{'-'.join(parts)}.json").open("x") as file:
            json.dump(schema, file)


def kubernetes(directory, swagger):
    published = json.loads(pathlib.Path(swagger).read_text())["definitions"]
    definitions = {
        name: OWN_FORM.get(name) or ({} if name in OPEN or "type" not in node else strict(node))
        for name, node in published.items()
    }
    directory.mkdir()
    write(directory, kinds_of_kubernetes(definitions, published))
    (directory / DEFINITIONS).write_text(json.dumps(definitions))


def crds(directory, *files):
    definitions = json.loads((directory / DEFINITIONS).read_text())
    for file in files:
        for crd in yaml.load_all(pathlib.Path(file).read_text(), yaml.CSafeLoader):
            write(directory, kinds_of_crd(definitions, crd))


if __name__ == "__main__":
    command, folder, *given = sys.argv[1:]
    {"kubernetes": kubernetes, "crds": crds}[command](pathlib.Path(folder), *given)
