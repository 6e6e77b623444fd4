"""Converts OpenAPI and CRDs to strict JSON schemas, in files named for kubeconform, such as deployment-apps-v1.json.

    convert.py kubernetes DIRECTORY SWAGGER    creates the directory with all kinds of the OpenAPI of Kubernetes
    convert.py crds DIRECTORY FILE...          adds the kinds of CustomResourceDefinitions

Unknown fields are rejected, as with `kubectl apply --validate=strict`. Null is rejected too, because it is usually an empty value
in a template. CEL rules are not evaluated.
"""

import json
import pathlib
import sys

import yaml

META = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"
SCHEMA = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1."
# Shared definitions, for kinds that are added later; not the name of a kind.
DEFINITIONS = "_definitions.json"
INT_OR_STRING = {"type": ["integer", "string"]}
NUMBER = r"([0-9]+(\.[0-9]*)?|\.[0-9]+)"
# Types whose JSON form is not described by the OpenAPI.
SPECIAL_FORMS = {
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
# Types that allow any JSON.
ANY_JSON = {"io.k8s.apimachinery.pkg.apis.meta.v1.FieldsV1", "io.k8s.apimachinery.pkg.runtime.RawExtension"}
# PyYAML does not parse a bare `=` as text, and matchers use it.
yaml.CSafeLoader.add_constructor("tag:yaml.org,2002:value", lambda loader, node: node.value)
CHECKED = {
    "type", "enum", "pattern", "format", "required", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf",
    "minLength", "maxLength", "minItems", "maxItems", "uniqueItems", "minProperties", "maxProperties", "$ref",
    # In structural schemas these only constrain fields that are declared elsewhere.
    "allOf", "anyOf", "oneOf", "not",
}


def strict(node):
    """Converts an OpenAPI schema to a JSON schema that rejects unknown fields."""
    result = {key: value for key, value in node.items() if key in CHECKED}
    if node.get("format") == "int32":
        result = {"minimum": -(2**31), "maximum": 2**31 - 1} | result
    for key in ("exclusiveMinimum", "exclusiveMaximum"):
        # A flag in OpenAPI 3.0, a number in JSON schemas.
        if result.pop(key, False):
            result[key] = result.pop(key.removeprefix("exclusive").lower())
    if "items" in node:
        result["items"] = strict(node["items"])
    properties = {name: strict(below) for name, below in node.get("properties", {}).items()}
    if node.get("x-kubernetes-embedded-resource"):
        embedded = {"apiVersion": {"type": "string"}, "kind": {"type": "string"}, "metadata": {"$ref": f"#/definitions/{META}"}}
        properties = embedded | properties
    if properties:
        result["properties"] = properties
    more = node.get("additionalProperties")
    if isinstance(more, dict):
        result["additionalProperties"] = strict(more)
    elif node.get("type") == "object" and not more and not node.get("x-kubernetes-preserve-unknown-fields"):
        result["additionalProperties"] = False
    if node.get("x-kubernetes-int-or-string"):
        result = {key: value for key, value in result.items() if key not in ("anyOf", "oneOf", "allOf")} | INT_OR_STRING
    if node.get("nullable"):
        result = {"anyOf": [{"type": "null"}, result]}
    return result


def standalone(root, definitions):
    """The schema with all referenced definitions."""
    needed, found = {}, [root]
    while found:
        node = found.pop()
        if isinstance(node, list):
            found.extend(node)
        elif isinstance(node, dict):
            # A field may also be named $ref, in the schema of schemas.
            name = node.get("$ref")
            if isinstance(name, str) and (name := name.removeprefix("#/definitions/")) not in needed:
                needed[name] = definitions[name]
                found.append(definitions[name])
            found.extend(node.values())
    return {"$schema": "http://json-schema.org/draft-07/schema#", "definitions": needed, "allOf": [root]}


def kinds_of_kubernetes(definitions, published):
    for name, node in published.items():
        for which in node.get("x-kubernetes-group-version-kind", []):
            # DeleteOptions and WatchEvent are in every group but are not objects.
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
        # Mode x fails on duplicate kinds.
        with (directory / f"{'-'.join(parts)}.json").open("x") as file:
            json.dump(schema, file)


def kubernetes(directory, swagger):
    published = json.loads(pathlib.Path(swagger).read_text())["definitions"]
    definitions = {
        name: SPECIAL_FORMS.get(name) or ({} if name in ANY_JSON or "type" not in node else strict(node))
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
